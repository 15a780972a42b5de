"""Rules for shapes, indexing and reductions; `rules` has the table.

A view keeps its broadcasts through `broadcast_in_dim` and `transpose`; the other rules here need
all elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...compiler.ir.core import Op, TensorType
from ...compiler.ir.dims import Dim
from ...compiler.ir.dtypes import I1
from .graph import ARITHMETIC, TYPES, Tensor
from .lowering import Lowering, View

# -- shapes ---------------------------------------------------------------------------------------

def constant(to: Lowering, op: Op) -> Tensor | View:
    """A constant; one that is all the same number is stored once."""
    data, type = op.attributes["value"], op.result.type
    if data.size > 1 and type.rank and np.all(data == data.reshape(-1)[0]):
        return View(to.constant(data.reshape(-1)[:1].reshape((1,) * type.rank)), type)
    return to.constant(data)


def iota(to: Lowering, op: Op) -> View:
    type, d = op.result.type, op.attributes["iota_dimension"]
    extent = type.shape[d]
    if isinstance(extent, Dim):
        raise to.unsupported(f"its numbers run over the symbolic dim `{extent}`")
    shape = [extent if i == d else 1 for i in range(type.rank)]
    return View(to.constant(np.arange(extent).reshape(shape), type.dtype), type)


def broadcast(to: Lowering, op: Op) -> View:
    view, dims = to.view(op.operands[0]), op.attributes["broadcast_dimensions"]
    order = sorted(range(len(dims)), key=lambda i: dims[i])
    core = to.transpose(view.core, order) if len(view.core.shape) == len(dims) else view.core
    shape: list = [1] * len(op.result.shape)
    for i, d in enumerate(dims):
        shape[d] = view.core.shape[i]
    return View(to.reshape(core, shape), op.result.type)


def reshape(to: Lowering, op: Op) -> Tensor:
    return to.reshape(to.dense(op.operands[0]), op.result.shape)


def transpose(to: Lowering, op: Op) -> View:
    view = to.view(op.operands[0])
    return View(to.transpose(view.core, op.attributes["permutation"]), op.result.type)


def slice(to: Lowering, op: Op) -> Tensor:
    x = to.dense(op.operands[0])
    a = op.attributes
    starts, limits = list(a["start_indices"]), list(a["limit_indices"])
    whole = 0
    for d, (limit, extent) in enumerate(zip(limits, x.shape, strict=True)):
        if limit == extent:
            whole |= 1 << d
    limits = [0 if whole >> d & 1 else limit for d, limit in enumerate(limits)]
    return to.emit("STRIDED_SLICE", [x, to.shape_vector(starts, exact=True),
                                    to.shape_vector(limits, exact=True), to.numbers(a["strides"])],
                  op.result.type, "StridedSliceOptions", begin_mask=0, end_mask=whole)


def pad(to: Lowering, op: Op) -> Tensor:
    a = op.attributes
    amounts = [*a["edge_padding_low"], *a["edge_padding_high"]]
    if any(a["interior_padding"]):
        raise to.unsupported("it cannot pad between elements")
    if any(not isinstance(n, int) or n < 0 for n in amounts):
        raise to.unsupported("it cannot pad by a negative or symbolic amount")
    pairs = to.numbers(list(zip(a["edge_padding_low"], a["edge_padding_high"], strict=True)))
    x = to.dense(op.operands[0])
    if to.is_filled(op.operands[1], 0):
        return to.emit("PAD", [x, pairs], op.result.type)
    return to.emit("PADV2", [x, pairs, to.dense(op.operands[1])], op.result.type)


def concatenate(to: Lowering, op: Op) -> Tensor:
    return to.emit("CONCATENATION", [to.dense(v) for v in op.operands], op.result.type,
                  "ConcatenationOptions", axis=op.attributes["dimension"])


def reverse(to: Lowering, op: Op) -> Tensor:
    x = to.dense(op.operands[0])
    for d in op.attributes["dimensions"]:
        x = to.emit("REVERSE_V2", [x, to.numbers([d])], x.type)
    return x


def dimension_size(to: Lowering, op: Op) -> Tensor:
    return to.reshape(to.size(op.operands[0].shape[op.attributes["dimension"]]), ())


# -- indexing -------------------------------------------------------------------------------------

def _clamped(to: Lowering, indices: Tensor, high: Any) -> Tensor:
    """Indices brought into range, as StableHLO has it; the runtime would refuse them."""
    low = to.emit("MAXIMUM", [indices, to.constant(0, indices.dtype)], indices.type)
    return to.emit("MINIMUM", [low, to.constant(high, indices.dtype)], indices.type)


def gather(to: Lowering, op: Op) -> Tensor:
    x, indices = (to.dense(v) for v in op.operands)
    n, sizes = op.attributes["dimension_numbers"], op.attributes["slice_sizes"]
    collapsed, mapped = n.collapsed_slice_dims, n.start_index_map
    vector = n.index_vector_dim == len(indices.shape) - 1
    whole = all(s == (1 if d in collapsed else x.shape[d]) for d, s in enumerate(sizes))
    if n.operand_batching_dims or tuple(collapsed) != tuple(mapped) or not whole:
        raise to.unsupported("it only gathers whole slices along some dims")
    extents = [x.shape[d] for d in collapsed]
    if any(isinstance(e, Dim) for e in extents):
        raise to.unsupported("the dim it gathers along is symbolic")
    high = [int(e) - 1 for e in extents]  # type: ignore[arg-type]
    rank = len(op.result.shape)
    if len(collapsed) == 1:
        axis = collapsed[0]
        if vector:
            indices = to.reshape(indices, indices.shape[:-1])
        count = len(indices.shape)
        expected = [*range(axis), *range(axis + count, rank)]
        if list(n.offset_dims) == expected and (vector or n.index_vector_dim == count):
            return to.emit("GATHER", [x, _clamped(to, indices, high[0])], op.result.type,
                          "GatherOptions", axis=axis, batch_dims=0)
    elif (vector and tuple(collapsed) == tuple(range(len(collapsed)))
          and list(n.offset_dims) == list(range(len(indices.shape) - 1, rank))):
        return to.emit("GATHER_ND", [x, _clamped(to, indices, high)], op.result.type)
    raise to.unsupported("it has no gather with this order of dims")


def _starts(to: Lowering, op: Op, values: Sequence, sizes: Sequence) -> Tensor:
    """Scalar start indices as one vector, brought into range."""
    x = op.operands[0]
    if any(isinstance(d, Dim) for d in (*x.shape, *sizes)):
        raise to.unsupported("its operand has a symbolic dim")
    pieces = [to.reshape(to.dense(v), (1,)) for v in values]
    type = TensorType((len(pieces),), pieces[0].dtype)
    joined = pieces[0] if len(pieces) == 1 else to.emit(
        "CONCATENATION", pieces, type, "ConcatenationOptions", axis=0)
    return _clamped(to, joined, [e - s for e, s in zip(x.shape, sizes, strict=True)])


def dynamic_slice(to: Lowering, op: Op) -> Tensor:
    x, *starts = op.operands
    sizes = op.attributes["slice_sizes"]
    begin = _starts(to, op, starts, sizes)
    return to.emit("SLICE", [to.dense(x), begin, to.constant(sizes, begin.dtype)], op.result.type)


def dynamic_update_slice(to: Lowering, op: Op) -> Tensor:
    x, update, *starts = op.operands
    begin = _starts(to, op, starts, update.shape)
    return to.emit("DYNAMIC_UPDATE_SLICE", [to.dense(x), to.dense(update), begin], op.result.type)


# -- reductions -----------------------------------------------------------------------------------

# Body of the reducer -> operator, and the initial value that changes nothing.
_REDUCTIONS: dict[str, tuple[str, Any, str]] = {
    "stablehlo.add": ("SUM", 0, "ADD"), "stablehlo.multiply": ("REDUCE_PROD", 1, "MUL"),
    "stablehlo.maximum": ("REDUCE_MAX", -np.inf, "MAXIMUM"),
    "stablehlo.minimum": ("REDUCE_MIN", np.inf, "MINIMUM"),
    "stablehlo.or": ("REDUCE_ANY", False, "LOGICAL_OR"),
    "stablehlo.and": ("REDUCE_ALL", True, "LOGICAL_AND"),
}


def reduce(to: Lowering, op: Op):
    if len(op.operands) == 4:
        return _arg_reduce(to, op)
    (body,) = op.regions
    kind = body.ops[0].name if len(body.ops) == 1 and len(op.operands) == 2 else ""
    if kind not in _REDUCTIONS or set(body.ops[0].operands) != set(body.arguments):
        raise to.unsupported("its reducer is not a sum, product, maximum, minimum, or or and")
    code, identity, combine = _REDUCTIONS[kind]
    if code in ("REDUCE_ANY", "REDUCE_ALL") and op.result.dtype is not I1:
        raise to.unsupported("it has no bitwise operators on integers")
    if op.result.dtype.is_integer and code.startswith("REDUCE_M"):
        bounds = np.iinfo(op.result.dtype.numpy)
        identity = bounds.min if code == "REDUCE_MAX" else bounds.max
    axes = to.numbers(list(op.attributes["dimensions"]))
    result = to.emit(code, [to.dense(op.operands[0]), axes], op.result.type, "ReducerOptions",
                    keep_dims=False)
    if to.is_filled(op.operands[1], identity):
        return result
    initial = to.dense(op.operands[1])
    return to.emit(combine, [result, initial], op.result.type, ARITHMETIC.get(combine, ""))


def _arg_reduce(to: Lowering, op: Op) -> list[Tensor]:
    """The largest or smallest element along a dim, and its first index."""
    x, index = op.operands[:2]
    dims = list(op.attributes["dimensions"])
    names = [inner.name.partition(".")[2] for inner in op.regions[0].ops]
    known = ["compare", "compare", "or", "compare", "compare", "and", "or", "select", "select"]
    numbers = to.data(index)
    extent = x.shape[dims[0]] if len(dims) == 1 else None
    if (names != known or not isinstance(extent, int) or numbers is None
            or not np.array_equal(numbers.reshape(-1), np.arange(extent))):
        raise to.unsupported("its reducer is not a maximum or minimum with its index")
    largest = op.regions[0].ops[0].attributes["comparison_direction"] == "GT"
    value, place = (("REDUCE_MAX", "ARG_MAX") if largest else ("REDUCE_MIN", "ARG_MIN"))
    operand, axis = to.dense(x), to.numbers(dims)
    table = "ArgMaxOptions" if largest else "ArgMinOptions"
    types = [r.type for r in op.results]
    return [to.emit(value, [operand, axis], types[0], "ReducerOptions", keep_dims=False),
            to.emit(place, [operand, to.numbers(dims[0])], types[1], table,
                   output_type=TYPES[types[1].dtype.name])]
