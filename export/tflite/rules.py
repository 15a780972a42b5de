"""One rule per IR op: how TFLite expresses it. `RULES[name](lowering, op) -> tensor, view or list`.

Contractions and windows are in `windows`. A rule raises `lowering.unsupported(why)` where TFLite
has no form with the same meaning; a composite's rule returns None to use the decomposition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...compiler.ir.core import Op, TensorType
from ...compiler.ir.dims import Dim
from ...compiler.ir.dtypes import F32, I1
from .graph import TYPES, Tensor
from .lowering import Lowering, Rule, View
from .windows import convolution, dot_general, reduce_window

# -- elementwise ----------------------------------------------------------------------------------

def _cores(to: Lowering, op: Op) -> tuple[list[Tensor], tuple]:
    """Operands without their broadcasts, and the extents their result has."""
    views = [to.view(v) for v in op.operands]
    rank = len(op.result.shape)
    shape = tuple(
        1 if all(_extent(v, d - rank) == 1 for v in views) else op.result.shape[d]
        for d in range(rank))
    return [v.core for v in views], shape


def _extent(view: View, d: int):
    """Extent `d` (counted from the end) of the core; 1 where it has no such dim."""
    shape = view.core.shape
    return shape[d] if -d <= len(shape) else 1


def _elementwise(code: str, table: str = "", **options: Any) -> Rule:
    """An operator of the same meaning that broadcasts its operands."""

    def rule(to: Lowering, op: Op) -> View:
        cores, shape = _cores(to, op)
        result = to.emit(code, cores, op.result.type.with_shape(shape), table, **options)
        return View(result, op.result.type)

    return rule


def _expression(build: Callable[..., Tensor]) -> Rule:
    """Several operators; `build(emit, *operands)` with `emit(code, *inputs) -> tensor`."""

    def rule(to: Lowering, op: Op) -> View:
        cores, shape = _cores(to, op)
        type = op.result.type.with_shape(shape)

        def emit(code: str, *inputs: Any, dtype=type.dtype) -> Tensor:
            tensors = [i if isinstance(i, Tensor) else to.constant(i, cores[0].dtype)
                       for i in inputs]
            return to.emit(code, tensors, type.with_dtype(dtype), _TABLES.get(code, ""))

        return View(build(emit, *cores), op.result.type)

    return rule


_TABLES = {"ADD": "AddOptions", "SUB": "SubOptions", "MUL": "MulOptions", "DIV": "DivOptions"}

_COMPARISONS = {"EQ": "EQUAL", "NE": "NOT_EQUAL", "LT": "LESS", "LE": "LESS_EQUAL",
                "GT": "GREATER", "GE": "GREATER_EQUAL"}


def _compare(to: Lowering, op: Op) -> View:
    return _elementwise(_COMPARISONS[op.attributes["comparison_direction"]])(to, op)


def _is(to: Lowering, value, number) -> bool:
    data = to.data(value)
    return data is not None and bool(np.all(data == number))


def _select(to: Lowering, op: Op) -> View:
    """A select; `x <= 0 ? 0 : x` and its mirror images are RELU."""
    predicate, on_true, on_false = op.operands
    test = predicate.op
    if test is not None and test.name == "stablehlo.compare" and on_true.dtype is F32:
        x, bound = test.operands
        direction = test.attributes["comparison_direction"]
        zero, other = (on_true, on_false) if direction in ("LE", "LT") else (on_false, on_true)
        if (direction in ("LE", "LT", "GE", "GT") and other is x and _is(to, bound, 0)
                and _is(to, zero, 0)):
            return _activate(to, "RELU", to.view(x))
    return _elementwise("SELECT_V2")(to, op)


def _activate(to: Lowering, code: str, view: View) -> View:
    return View(to.emit(code, [view.core], view.core.type), view.type)


def _maximum(to: Lowering, op: Op) -> View:
    for x, bound in (op.operands, op.operands[::-1]):
        if x.dtype is F32 and _is(to, bound, 0) and to.view(x).is_dense:
            return _activate(to, "RELU", to.view(x))
    return _elementwise("MAXIMUM")(to, op)


def _clamp(to: Lowering, op: Op) -> View:
    low, x, high = op.operands
    if x.dtype is F32 and _is(to, low, 0) and _is(to, high, 6):
        return _activate(to, "RELU6", to.view(x))
    return _expression(
        lambda emit, low, x, high: emit("MINIMUM", emit("MAXIMUM", low, x), high))(to, op)


def _divide(to: Lowering, op: Op) -> Tensor | View:
    """A quotient; a sum over windows divided by their sizes is the average it came from."""
    total, divisor = (to.view(v) for v in op.operands)
    if total.core in to.averages and divisor.core.data is not None:
        average, counts = to.averages[total.core]
        rank = len(op.result.shape)
        data = divisor.core.data
        if data.ndim <= rank and np.all(counts == data):
            return average
    return _elementwise("DIV", "DivOptions")(to, op)


def _convert(to: Lowering, op: Op) -> View:
    view = to.view(op.operands[0])
    if view.type.dtype is op.result.dtype:
        return view
    if op.result.dtype is I1:
        zero = to.constant(0, view.type.dtype)
        core = to.emit("NOT_EQUAL", [view.core, zero], view.core.type.with_dtype(I1))
        return View(core, op.result.type)
    core = to.emit("CAST", [view.core], view.core.type.with_dtype(op.result.dtype), "CastOptions",
                  in_data_type=TYPES[view.type.dtype.name],
                  out_data_type=TYPES[op.result.dtype.name])
    return View(core, op.result.type)


def _logical(code: str) -> Rule:
    def rule(to: Lowering, op: Op) -> View:
        if op.result.dtype is not I1:
            raise to.unsupported("it has no bitwise operators on integers")
        return _elementwise(code)(to, op)

    return rule


# -- shapes ---------------------------------------------------------------------------------------

def _constant(to: Lowering, op: Op) -> Tensor | View:
    """A constant; one that is all the same number is stored once."""
    data, type = op.attributes["value"], op.result.type
    if data.size > 1 and type.rank and np.all(data == data.reshape(-1)[0]):
        return View(to.constant(data.reshape(-1)[:1].reshape((1,) * type.rank)), type)
    return to.constant(data)


def _iota(to: Lowering, op: Op) -> View:
    type, d = op.result.type, op.attributes["iota_dimension"]
    extent = type.shape[d]
    if isinstance(extent, Dim):
        raise to.unsupported(f"its numbers run over the symbolic dim `{extent}`")
    shape = [extent if i == d else 1 for i in range(type.rank)]
    return View(to.constant(np.arange(extent).reshape(shape), type.dtype), type)


def _broadcast(to: Lowering, op: Op) -> View:
    view, dims = to.view(op.operands[0]), op.attributes["broadcast_dimensions"]
    order = sorted(range(len(dims)), key=lambda i: dims[i])
    core = to.transpose(view.core, order) if len(view.core.shape) == len(dims) else view.core
    shape: list = [1] * len(op.result.shape)
    for i, d in enumerate(dims):
        shape[d] = view.core.shape[i]
    return View(to.reshape(core, shape), op.result.type)


def _reshape(to: Lowering, op: Op) -> Tensor:
    return to.reshape(to.dense(op.operands[0]), op.result.shape)


def _transpose(to: Lowering, op: Op) -> View:
    view = to.view(op.operands[0])
    return View(to.transpose(view.core, op.attributes["permutation"]), op.result.type)


def _slice(to: Lowering, op: Op) -> Tensor:
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


def _pad(to: Lowering, op: Op) -> Tensor:
    a = op.attributes
    amounts = [*a["edge_padding_low"], *a["edge_padding_high"]]
    if any(a["interior_padding"]):
        raise to.unsupported("it cannot pad between elements")
    if any(not isinstance(n, int) or n < 0 for n in amounts):
        raise to.unsupported("it cannot pad by a negative or symbolic amount")
    pairs = to.numbers(list(zip(a["edge_padding_low"], a["edge_padding_high"], strict=True)))
    x = to.dense(op.operands[0])
    if _is(to, op.operands[1], 0):
        return to.emit("PAD", [x, pairs], op.result.type)
    return to.emit("PADV2", [x, pairs, to.dense(op.operands[1])], op.result.type)


def _concatenate(to: Lowering, op: Op) -> Tensor:
    return to.emit("CONCATENATION", [to.dense(v) for v in op.operands], op.result.type,
                  "ConcatenationOptions", axis=op.attributes["dimension"])


def _reverse(to: Lowering, op: Op) -> Tensor:
    x = to.dense(op.operands[0])
    for d in op.attributes["dimensions"]:
        x = to.emit("REVERSE_V2", [x, to.numbers([d])], x.type)
    return x


def _dimension_size(to: Lowering, op: Op) -> Tensor:
    return to.reshape(to.size(op.operands[0].shape[op.attributes["dimension"]]), ())


# -- indexing -------------------------------------------------------------------------------------

def _clamped(to: Lowering, indices: Tensor, high: Any) -> Tensor:
    """Indices brought into range, as StableHLO has it; the runtime would refuse them."""
    low = to.emit("MAXIMUM", [indices, to.constant(0, indices.dtype)], indices.type)
    return to.emit("MINIMUM", [low, to.constant(high, indices.dtype)], indices.type)


def _gather(to: Lowering, op: Op) -> Tensor:
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


def _dynamic_slice(to: Lowering, op: Op) -> Tensor:
    x, *starts = op.operands
    sizes = op.attributes["slice_sizes"]
    begin = _starts(to, op, starts, sizes)
    return to.emit("SLICE", [to.dense(x), begin, to.constant(sizes, begin.dtype)], op.result.type)


def _dynamic_update_slice(to: Lowering, op: Op) -> Tensor:
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


def _reduce(to: Lowering, op: Op):
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
    if _is(to, op.operands[1], identity):
        return result
    initial = to.dense(op.operands[1])
    return to.emit(combine, [result, initial], op.result.type, _TABLES.get(combine, ""))


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


# -- composites -----------------------------------------------------------------------------------

def _along_last(code: str, table: str = "", **options: Any) -> Rule:
    """A normalisation along one axis, which is moved to the end if it is not there."""

    def rule(to: Lowering, op: Op) -> Tensor | None:
        axes = op.attributes["composite_attributes"]["axis"]
        if len(axes) != 1 or op.result.dtype is not F32:
            return None
        rank = len(op.result.shape)
        order = [*(d for d in range(rank) if d != axes[0]), axes[0]]
        x = to.transpose(to.dense(op.operands[0]), order)
        return to.transpose(to.emit(code, [x], x.type, table, **options),
                           [order.index(d) for d in range(rank)])

    return rule


def _gelu(to: Lowering, op: Op) -> Tensor | None:
    if op.result.dtype is not F32:
        return None
    approximate = bool(op.attributes["composite_attributes"]["approximate"])
    return to.emit("GELU", [to.dense(op.operands[0])], op.result.type, "GeluOptions",
                  approximate=approximate)


COMPOSITES: dict[str, Rule] = {
    "tfn.softmax": _along_last("SOFTMAX", "SoftmaxOptions", beta=1.0),
    "tfn.log_softmax": _along_last("LOG_SOFTMAX"),
    "tfn.gelu": _gelu,
}
"""Composite -> rule."""

RULES: dict[str, Rule] = {
    "stablehlo.add": _elementwise("ADD", "AddOptions"),
    "stablehlo.subtract": _elementwise("SUB", "SubOptions"),
    "stablehlo.multiply": _elementwise("MUL", "MulOptions"),
    "stablehlo.divide": _divide,
    "stablehlo.maximum": _maximum,
    "stablehlo.minimum": _elementwise("MINIMUM"),
    "stablehlo.power": _elementwise("POW"),
    "stablehlo.atan2": _elementwise("ATAN2"),
    "stablehlo.negate": _elementwise("NEG"),
    "stablehlo.abs": _elementwise("ABS"),
    "stablehlo.sign": _elementwise("SIGN"),
    "stablehlo.floor": _elementwise("FLOOR"),
    "stablehlo.ceil": _elementwise("CEIL"),
    "stablehlo.round_nearest_even": _elementwise("ROUND"),
    "stablehlo.exponential": _elementwise("EXP"),
    "stablehlo.exponential_minus_one": _expression(
        lambda emit, x: emit("SUB", emit("EXP", x), 1)),
    "stablehlo.log": _elementwise("LOG"),
    "stablehlo.log_plus_one": _expression(lambda emit, x: emit("LOG", emit("ADD", x, 1))),
    "stablehlo.logistic": _elementwise("LOGISTIC"),
    "stablehlo.tanh": _elementwise("TANH"),
    "stablehlo.sine": _elementwise("SIN"),
    "stablehlo.cosine": _elementwise("COS"),
    "stablehlo.sqrt": _elementwise("SQRT"),
    "stablehlo.rsqrt": _elementwise("RSQRT"),
    "stablehlo.is_finite": _expression(
        lambda emit, x: emit("LESS", emit("ABS", x, dtype=x.dtype), np.inf)),
    "stablehlo.compare": _compare,
    "stablehlo.select": _select,
    "stablehlo.clamp": _clamp,
    "stablehlo.convert": _convert,
    "stablehlo.and": _logical("LOGICAL_AND"),
    "stablehlo.or": _logical("LOGICAL_OR"),
    "stablehlo.xor": _logical("NOT_EQUAL"),
    "stablehlo.not": _logical("LOGICAL_NOT"),
    "stablehlo.constant": _constant,
    "stablehlo.iota": _iota,
    "stablehlo.broadcast_in_dim": _broadcast,
    "stablehlo.reshape": _reshape,
    "stablehlo.transpose": _transpose,
    "stablehlo.slice": _slice,
    "stablehlo.pad": _pad,
    "stablehlo.concatenate": _concatenate,
    "stablehlo.reverse": _reverse,
    "stablehlo.get_dimension_size": _dimension_size,
    "stablehlo.gather": _gather,
    "stablehlo.dynamic_slice": _dynamic_slice,
    "stablehlo.dynamic_update_slice": _dynamic_update_slice,
    "stablehlo.reduce": _reduce,
    "stablehlo.reduce_window": reduce_window,
    "stablehlo.dot_general": dot_general,
    "stablehlo.convolution": convolution,
}
"""Op -> rule."""


