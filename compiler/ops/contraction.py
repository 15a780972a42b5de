"""Contractions: dot_general and convolution.

Both are one thing to the code generator: `out[...] += lhs[...] * rhs[...]` over a nest of loops with
affine indices (`Contraction`). `passes/layout.py` first makes padding, dilation of the input and
awkward layouts explicit ops, so that the indices stay affine and in bounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product as cartesian

import numpy as np

from ..errors import UnsupportedError
from ..ir.core import TensorType, Value
from ..ir.dtypes import as_dtype, widened
from ..ir.structs import ConvDimensionNumbers, DotDimensionNumbers
from ..trace.core import bind
from .declare import Factors, OpDefinition, op, require
from .shape import later

Affine = tuple[tuple[int, int], ...]
"""An index as a sum of `coefficient * loop`: pairs (loop number, coefficient)."""


@dataclass(frozen=True)
class Contraction:
    """A loop nest: `parallel` loops first (outermost to innermost in the output), then reductions.

    `extents[i]` is an int or a `(value, dim)` whose extent it is; `lhs`, `rhs` and `out` give one
    affine index per dim of the operand or result.
    """

    extents: tuple[int | tuple[Value, int], ...]
    parallel: int
    lhs: tuple[Affine, ...]
    rhs: tuple[Affine, ...]
    out: tuple[Affine, ...]


# -- dot_general ----------------------------------------------------------------------------------

def _free(rank: int, *taken: Sequence[int]) -> list[int]:
    used = {d for dims in taken for d in dims}
    return [d for d in range(rank) if d not in used]


@op("stablehlo.dot_general")
class DotGeneral(OpDefinition):
    """Sum of products over the contracting dims; result dims: batching, lhs free, rhs free."""

    attributes = {"dot_dimension_numbers": "dot_dimension_numbers",
                  "precision_config": "precision_config", "algorithm": "dot_algorithm",
                  "dtype": "result_dtype"}
    optional = frozenset({"precision_config", "algorithm", "dtype"})

    def infer(operands, attributes, regions):
        lhs, rhs = operands
        n: DotDimensionNumbers = attributes["dot_dimension_numbers"]
        lb, rb = n.lhs_batching_dimensions, n.rhs_batching_dimensions
        lc, rc = n.lhs_contracting_dimensions, n.rhs_contracting_dimensions
        require(len(lb) == len(rb), "C1", "dot_general needs as many lhs as rhs batching dims")
        require(len(lc) == len(rc), "C2", "dot_general needs as many lhs as rhs contracting dims")
        for x, dims, constraint in ((lhs, (*lb, *lc), "C5"), (rhs, (*rb, *rc), "C7")):
            require(len(set(dims)) == len(dims) and all(0 <= d < x.rank for d in dims),
                    constraint, f"dims {list(dims)} of {x} in dot_general")
        for a, b, constraint in ((lb, rb, "C9"), (lc, rc, "C10")):
            require(all(lhs.shape[i] == rhs.shape[j] for i, j in zip(a, b, strict=True)),
                    constraint, f"dot_general cannot multiply {lhs} and {rhs}: dims {list(a)} and"
                    f" {list(b)} must have equal sizes")
        dtype = attributes.get("dtype") or lhs.dtype
        if attributes.get("dtype") is None:
            require(lhs.dtype is rhs.dtype, "C13", f"dot_general of {lhs} and {rhs}")
        shape = [lhs.shape[d] for d in lb]
        shape += [lhs.shape[d] for d in _free(lhs.rank, lb, lc)]
        shape += [rhs.shape[d] for d in _free(rhs.rank, rb, rc)]
        return [TensorType(tuple(shape), dtype)]

    def evaluate(operands, attributes, regions, result_types):
        lhs, rhs = operands
        n = attributes["dot_dimension_numbers"]
        target = result_types[0].dtype
        accumulate = target.wide
        lhs, rhs = (widened(x).astype(accumulate, copy=False) for x in (lhs, rhs))
        lb, lc = n.lhs_batching_dimensions, n.lhs_contracting_dimensions
        rb, rc = n.rhs_batching_dimensions, n.rhs_contracting_dimensions
        lf, rf = _free(lhs.ndim, lb, lc), _free(rhs.ndim, rb, rc)
        batch = [lhs.shape[d] for d in lb]
        inner = int(np.prod([lhs.shape[d] for d in lc], dtype=np.int64))
        rows = int(np.prod([lhs.shape[d] for d in lf], dtype=np.int64))
        columns = int(np.prod([rhs.shape[d] for d in rf], dtype=np.int64))
        left = lhs.transpose([*lb, *lf, *lc]).reshape([*batch, rows, inner])
        right = rhs.transpose([*rb, *rc, *rf]).reshape([*batch, inner, columns])
        if accumulate == np.bool_:
            return [(left[..., None] & right[..., None, :, :]).any(-2).reshape(
                result_types[0].shape)]
        return [np.matmul(left, right).reshape(result_types[0].shape).astype(target.numpy)]

    def vjp(cotangents, op, operands, results):
        lhs, rhs = operands
        n = op.attributes["dot_dimension_numbers"]
        left = (n.lhs_batching_dimensions, n.lhs_contracting_dimensions)
        right = (n.rhs_batching_dimensions, n.rhs_contracting_dimensions)
        return [_dot_vjp(cotangents[0], lhs, rhs, left, right, swapped=False),
                _dot_vjp(cotangents[0], rhs, lhs, right, left, swapped=True)]

    def batch(op, operands, batched, batch):
        from ..trace.batch import move

        n: DotDimensionNumbers = op.attributes["dot_dimension_numbers"]
        left, right = (later if b else tuple for b in batched)
        lead = (0,) if all(batched) else ()
        numbers = DotDimensionNumbers(
            (*lead, *left(n.lhs_batching_dimensions)), (*lead, *right(n.rhs_batching_dimensions)),
            left(n.lhs_contracting_dimensions), right(n.rhs_contracting_dimensions))
        (result,) = batch.bind(op, *operands, dot_dimension_numbers=numbers)
        # Of one operand alone the batch dim is the first free one.
        at = 0 if lead else len(n.lhs_batching_dimensions)
        if batched == [False, True]:
            at = len(op.operands[0].shape) - len(n.lhs_contracting_dimensions)
        return [move(result, at, 0)]

    def factors(op):
        lhs, rhs = op.operands
        n = op.attributes["dot_dimension_numbers"]
        lb, lc = n.lhs_batching_dimensions, n.lhs_contracting_dimensions
        rb, rc = n.rhs_batching_dimensions, n.rhs_contracting_dimensions
        lf, rf = _free(len(lhs.shape), lb, lc), _free(len(rhs.shape), rb, rc)
        rank = len(op.result.shape)
        left: list[int | None] = [None] * len(lhs.shape)
        right: list[int | None] = [None] * len(rhs.shape)
        for i, d in enumerate([*lb, *lf]):
            left[d] = i
        for i, d in enumerate(rb):
            right[d] = i
        for i, d in enumerate(rf, len(lb) + len(lf)):
            right[d] = i
        for i, (a, b) in enumerate(zip(lc, rc, strict=True), rank):
            left[a] = right[b] = i
        return Factors([left, right], [tuple(range(rank))],
                       {rank + i: "add" for i in range(len(lc))})

    def contraction(op) -> Contraction:
        lhs = op.operands[0]
        f = DotGeneral.factors(op)
        rank = len(op.result.shape)
        extents: list = [(op.result, d) for d in range(rank)]
        extents += [(lhs, d) for d in op.attributes[
            "dot_dimension_numbers"].lhs_contracting_dimensions]
        return Contraction(tuple(extents), rank,
                           tuple(((i, 1),) for i in f.operands[0]),
                           tuple(((i, 1),) for i in f.operands[1]),
                           tuple(((i, 1),) for i in range(rank)))


def _dot_vjp(ct, x, other, dims, other_dims, swapped):
    """Cotangent of operand `x` of a dot: contract `ct` with the free dims of the other operand."""
    (xb, xc), (ob, oc) = dims, other_dims
    x_free = _free(len(x.shape), xb, xc)
    o_free = _free(len(other.shape), ob, oc)
    batch = len(xb)
    start = batch if swapped else batch + len(x_free)
    ct_contracting = tuple(range(start, start + len(o_free)))
    product = bind("stablehlo.dot_general", ct, other, dot_dimension_numbers=DotDimensionNumbers(
        tuple(range(batch)), tuple(ob), ct_contracting, tuple(o_free)), dtype=as_dtype(x.dtype))
    # Result dims now: batching, free dims of x, contracting dims of `other` in its own order.
    order = sorted(range(len(oc)), key=lambda i: oc[i])
    layout = [*xb, *x_free, *(xc[i] for i in order)]
    permutation = tuple(layout.index(d) for d in range(len(layout)))
    if permutation == tuple(range(len(layout))):
        return product
    return bind("stablehlo.transpose", product, permutation=permutation)


# -- convolution ----------------------------------------------------------------------------------

_CONVOLUTION = {
    "window_strides": "i64_array", "padding": "i64_pairs", "lhs_dilation": "i64_array",
    "rhs_dilation": "i64_array", "window_reversal": "bool_array",
    "dimension_numbers": "conv_dimension_numbers", "feature_group_count": "i64",
    "batch_group_count": "i64", "precision_config": "precision_config", "dtype": "result_dtype",
}


def convolution_defaults(attributes) -> dict:
    """The attributes with absent ones filled in."""
    full = dict(attributes)
    spatial = len(full["dimension_numbers"].input_spatial_dimensions)
    for name in ("window_strides", "lhs_dilation", "rhs_dilation"):
        full.setdefault(name, (1,) * spatial)
    full.setdefault("padding", ((0, 0),) * spatial)
    full.setdefault("window_reversal", (False,) * spatial)
    for name in ("window_strides", "padding", "lhs_dilation", "rhs_dilation", "window_reversal"):
        # Texts in the wild have more entries than there are dims; what is too much says nothing.
        full[name] = tuple(full[name])[:spatial]
    full.setdefault("feature_group_count", 1)
    full.setdefault("batch_group_count", 1)
    return full


def _dilated(extent, dilation):
    return 0 if extent == 0 else (extent - 1) * dilation + 1


def _check_layout(a: dict, rank: int) -> None:
    """Dimension numbers name each dim once; windows have an amount for each spatial dim."""
    n: ConvDimensionNumbers = a["dimension_numbers"]
    layouts = (
        ("C13", "input", (n.input_batch_dimension, n.input_feature_dimension,
                          *n.input_spatial_dimensions)),
        ("C18", "kernel", (n.kernel_input_feature_dimension, n.kernel_output_feature_dimension,
                           *n.kernel_spatial_dimensions)),
        ("C20", "output", (n.output_batch_dimension, n.output_feature_dimension,
                           *n.output_spatial_dimensions)))
    for constraint, name, dims in layouts:
        require(sorted(dims) == list(range(rank)), constraint,
                f"the {name} dimensions {list(dims)} of convolution do not name each of {rank} dims"
                " once")
    for constraint, name in (("C2", "window_strides"), ("C4", "padding"), ("C5", "lhs_dilation"),
                             ("C7", "rhs_dilation"), ("C9", "window_reversal")):
        require(len(a[name]) >= rank - 2, constraint,
                f"`{name}` of convolution needs {rank - 2} entries, got {len(a[name])}")
    for constraint, name in (("C3", "window_strides"), ("C6", "lhs_dilation"), ("C8", "rhs_dilation")):
        require(all(e > 0 for e in a[name]), constraint, f"`{name}` {list(a[name])} is not positive")
    for constraint, name in (("C21", "feature_group_count"), ("C22", "batch_group_count")):
        require(a[name] > 0, constraint, f"`{name}` of convolution is {a[name]}, not positive")
    require(a["feature_group_count"] == 1 or a["batch_group_count"] == 1, "C23",
            "convolution has feature groups or batch groups, not both")


@op("stablehlo.convolution")
class Convolution(OpDefinition):
    """N-d convolution with strides, padding, dilations and groups."""

    attributes = _CONVOLUTION
    optional = frozenset(_CONVOLUTION) - {"dimension_numbers"}

    def infer(operands, attributes, regions):
        lhs, rhs = operands
        a = convolution_defaults(attributes)
        n: ConvDimensionNumbers = a["dimension_numbers"]
        groups, batch_groups = a["feature_group_count"], a["batch_group_count"]
        require(lhs.rank == rhs.rank, "C1", f"convolution of {lhs} with {rhs}")
        _check_layout(a, lhs.rank)
        features = rhs.shape[n.kernel_output_feature_dimension]
        require(lhs.shape[n.input_feature_dimension]
                == rhs.shape[n.kernel_input_feature_dimension] * groups, "C14",
                f"convolution: the input {lhs} has {lhs.shape[n.input_feature_dimension]} features,"
                f" the kernel {rhs} takes {rhs.shape[n.kernel_input_feature_dimension]} in each of"
                f" {groups} groups")
        require(features % groups == 0 and features % batch_groups == 0, "C15",
                f"{features} output features do not divide into the groups")
        batch = lhs.shape[n.input_batch_dimension]
        require(batch_groups == 1 or batch % batch_groups == 0, "C10",
                f"a batch of {batch} does not divide into {batch_groups} groups")
        shape: list = [0] * lhs.rank
        shape[n.output_batch_dimension] = batch // batch_groups if batch_groups > 1 else batch
        shape[n.output_feature_dimension] = features
        for i, d in enumerate(n.output_spatial_dimensions):
            low, high = a["padding"][i]
            size = low + _dilated(lhs.shape[n.input_spatial_dimensions[i]],
                                  a["lhs_dilation"][i]) + high
            span = _dilated(rhs.shape[n.kernel_spatial_dimensions[i]], a["rhs_dilation"][i])
            shape[d] = 0 if size < span else (size - span) // a["window_strides"][i] + 1
        return [TensorType(tuple(shape), attributes.get("dtype") or lhs.dtype)]

    def evaluate(operands, attributes, regions, result_types):
        return [_convolve(*operands, convolution_defaults(attributes), result_types[0])]

    def vjp(cotangents, op, operands, results):
        a = convolution_defaults(op.attributes)
        n: ConvDimensionNumbers = a["dimension_numbers"]
        ct, (lhs, rhs), groups = cotangents[0], operands, a["batch_group_count"]
        reversed_dims = tuple(d for d, r in zip(n.kernel_spatial_dimensions, a["window_reversal"],
                                                strict=True) if r)
        if reversed_dims:
            rhs = bind("stablehlo.reverse", rhs, dimensions=reversed_dims)
            a["window_reversal"] = (False,) * len(a["window_reversal"])
        if groups > 1:
            # Groups of images are groups of features when they are put beside each other.
            lhs = _swap_groups(lhs, n.input_batch_dimension, n.input_feature_dimension, groups)
            a.update(batch_group_count=1, feature_group_count=groups)
        to_lhs, to_rhs = _input_gradient(ct, lhs, rhs, a), _kernel_gradient(ct, lhs, rhs, a)
        if groups > 1:
            to_lhs = _swap_groups(to_lhs, n.input_feature_dimension, n.input_batch_dimension, groups)
        if reversed_dims:
            to_rhs = bind("stablehlo.reverse", to_rhs, dimensions=reversed_dims)
        return [to_lhs, to_rhs]

    def batch(op, operands, batched, batch):
        n: ConvDimensionNumbers = op.attributes["dimension_numbers"]
        groups = op.attributes.get("feature_group_count", 1)
        batch_groups = op.attributes.get("batch_group_count", 1)
        lhs, rhs = operands
        at, feature = n.output_batch_dimension, n.output_feature_dimension
        if not batched[1]:
            # More images, in each of the batch groups.
            lhs = _merge_batch(lhs, n.input_batch_dimension, batch_groups)
            return [_split_batch(*batch.bind(op, lhs, rhs), op.result, at, 1, batch.size)]
        if not batched[0]:
            # More output features, in each of the groups.
            group = max(groups, batch_groups)
            rhs = _merge_batch(rhs, n.kernel_output_feature_dimension, group)
            return [_split_batch(*batch.bind(op, lhs, rhs), op.result, feature, group, batch.size)]
        if not isinstance(batch.size, int):
            raise UnsupportedError("vmap over images and kernels of a convolution makes a group of"
                                   f" each example, which needs their number; it is `{batch.size}`",
                                   op.location)
        rhs = _merge_batch(rhs, n.kernel_output_feature_dimension, 1)
        if batch_groups > 1:
            lhs = _merge_batch(lhs, n.input_batch_dimension, 1)
            change = {"batch_group_count": batch_groups * batch.size}
        else:
            lhs = _merge_batch(lhs, n.input_feature_dimension, 1)
            change = {"feature_group_count": groups * batch.size}
        (result,) = batch.bind(op, lhs, rhs, **change)
        return [_split_batch(result, op.result, feature, 1, batch.size)]

    def factors(op):
        a = convolution_defaults(op.attributes)
        n = a["dimension_numbers"]
        rank = len(op.result.shape)
        left: list[int | None] = [None] * rank
        right: list[int | None] = [None] * rank
        out: list[int | None] = [None] * rank
        reduction = {}
        if a["batch_group_count"] == 1:
            left[n.input_batch_dimension] = out[n.output_batch_dimension] = 0
        if a["feature_group_count"] == a["batch_group_count"] == 1:
            right[n.kernel_output_feature_dimension] = out[n.output_feature_dimension] = 1
        if a["feature_group_count"] == 1:
            left[n.input_feature_dimension] = right[n.kernel_input_feature_dimension] = 2
            reduction[2] = "add"
        return Factors([left, right], [out], reduction)

    def contraction(op) -> Contraction:
        a = convolution_defaults(op.attributes)
        n = a["dimension_numbers"]
        if (any(p != (0, 0) for p in map(tuple, a["padding"])) or set(a["lhs_dilation"]) - {1}
                or any(a["window_reversal"])):
            raise UnsupportedError("convolution reached code generation before layout", op.location)
        (lhs, rhs), result = op.operands, op.result
        groups, batch_groups = a["feature_group_count"], a["batch_group_count"]
        group = max(groups, batch_groups)
        per_group = rhs.shape[n.kernel_output_feature_dimension] // group
        # Loops: output batch, group, output spatial, feature within the group; then the reductions.
        spatial = len(n.input_spatial_dimensions)
        batch, at_group, feature = 0, 1, 2 + spatial
        parallel = 3 + spatial
        channel = parallel + spatial
        extents: list = [(result, n.output_batch_dimension), group]
        extents += [(result, d) for d in n.output_spatial_dimensions]
        extents += [per_group if group > 1 else (result, n.output_feature_dimension)]
        extents += [(rhs, d) for d in n.kernel_spatial_dimensions]
        extents += [(rhs, n.kernel_input_feature_dimension)]
        left, right, out = ({} for _ in range(3))
        features: Affine = ((at_group, per_group), (feature, 1)) if group > 1 else ((feature, 1),)
        channels = rhs.shape[n.kernel_input_feature_dimension]
        left[n.input_batch_dimension] = ((batch, 1),) if batch_groups == 1 else (
            (at_group, result.shape[n.output_batch_dimension]), (batch, 1))
        left[n.input_feature_dimension] = ((channel, 1),) if groups == 1 else (
            (at_group, channels), (channel, 1))
        right[n.kernel_input_feature_dimension] = ((channel, 1),)
        right[n.kernel_output_feature_dimension] = features
        out[n.output_batch_dimension] = ((batch, 1),)
        out[n.output_feature_dimension] = features
        for i in range(spatial):
            left[n.input_spatial_dimensions[i]] = (
                (2 + i, a["window_strides"][i]), (parallel + i, a["rhs_dilation"][i]))
            right[n.kernel_spatial_dimensions[i]] = ((parallel + i, 1),)
            out[n.output_spatial_dimensions[i]] = ((2 + i, 1),)
        rank = len(lhs.shape)
        return Contraction(tuple(extents), parallel, *(
            tuple(m[d] for d in range(rank)) for m in (left, right, out)))


def _merge_batch(x, dim: int, groups: int):
    """The leading batch dim as a part of dim `dim`, just inside its `groups`."""
    from ..trace.batch import move

    size, *shape = x.shape
    split = (*shape[:dim], groups, shape[dim] // groups, *shape[dim + 1:])
    inside = move(bind("stablehlo.reshape", x, shape=(size, *split)), 0, dim + 1)
    shape[dim] = shape[dim] * size
    return bind("stablehlo.reshape", inside, shape=tuple(shape))


def _split_batch(x, value: Value, dim: int, groups: int, size):
    """The batch dim of a result back in front; `value` is the result for one example."""
    from ..trace.batch import move

    shape = value.shape
    split = (*shape[:dim], groups, size, shape[dim] // groups, *shape[dim + 1:])
    front = move(bind("stablehlo.reshape", x, shape=split), dim + 1, 0)
    return bind("stablehlo.reshape", front, shape=(size, *shape))


def _convolve(lhs, rhs, a, result_type):
    n = a["dimension_numbers"]
    groups, batch_groups = a["feature_group_count"], a["batch_group_count"]
    target = result_type.dtype.numpy
    accumulate = as_dtype(target).wide
    x = lhs.astype(accumulate).transpose(
        n.input_batch_dimension, n.input_feature_dimension, *n.input_spatial_dimensions)
    if 0 in result_type.shape:
        return np.zeros(result_type.shape, target)
    w = rhs.astype(accumulate).transpose(
        n.kernel_output_feature_dimension, n.kernel_input_feature_dimension,
        *n.kernel_spatial_dimensions)
    reversed_dims = [2 + i for i, r in enumerate(a["window_reversal"]) if r]
    w = np.flip(w, reversed_dims) if reversed_dims else w
    x = _spread(x, a["lhs_dilation"], a["padding"])
    batch = x.shape[0] // batch_groups
    out = [result_type.shape[d] for d in n.output_spatial_dimensions]
    features = w.shape[0]
    total = np.zeros([max(groups, batch_groups), batch, features // max(groups, batch_groups),
                      int(np.prod(out, dtype=np.int64))], accumulate)
    for offset in cartesian(*(range(k) for k in w.shape[2:])):
        window = tuple(slice(o * d, o * d + (size - 1) * s + 1 if size else o * d, s)
                       for o, d, size, s in zip(offset, a["rhs_dilation"], out,
                                                a["window_strides"], strict=True))
        patch = x[(slice(None), slice(None), *window)]
        patch = patch.reshape(batch_groups, batch, groups, x.shape[1] // groups, total.shape[-1])
        patch = patch[0].transpose(1, 0, 2, 3) if batch_groups == 1 else patch[:, :, 0]
        kernel = w[(slice(None), slice(None), *offset)].reshape(
            len(total), 1, features // len(total), w.shape[1])
        total += np.matmul(kernel, patch)
    result = total.transpose(1, 0, 2, 3).reshape([batch, features, *out])
    order = np.argsort([n.output_batch_dimension, n.output_feature_dimension,
                        *n.output_spatial_dimensions])
    return result.transpose(order).astype(target)


def _spread(x, dilation, padding):
    """Dilate and pad the spatial dims of `x` (batch, feature, spatial...) with zeros."""
    from .shape import Pad

    pads = {"edge_padding_low": [0, 0, *(p[0] for p in padding)],
            "edge_padding_high": [0, 0, *(p[1] for p in padding)],
            "interior_padding": [0, 0, *(d - 1 for d in dilation)]}
    dtype = as_dtype(x.dtype)
    scalar = TensorType((), dtype)
    types = Pad.infer([TensorType(x.shape, dtype), scalar], pads, ())
    return Pad.evaluate([x, np.zeros((), x.dtype)], pads, (), types)[0]


def _gradient_sizes(ct, lhs, rhs, a):
    """Per spatial dim: dilated sizes of input, kernel and output."""
    n = a["dimension_numbers"]
    for i in range(len(n.input_spatial_dimensions)):
        yield (_dilated(lhs.shape[n.input_spatial_dimensions[i]], a["lhs_dilation"][i]),
               _dilated(rhs.shape[n.kernel_spatial_dimensions[i]], a["rhs_dilation"][i]),
               _dilated(ct.shape[n.output_spatial_dimensions[i]], a["window_strides"][i]),
               a["padding"][i][0])


def _precision(a) -> dict:
    """A gradient is as exact as what it is the gradient of."""
    return {name: a[name] for name in ("precision_config",) if a.get(name)}


def _input_gradient(ct, lhs, rhs, a):
    """Convolve the cotangent with the spatially reversed kernel, features swapped."""
    n, groups = a["dimension_numbers"], a["feature_group_count"]
    rhs = bind("stablehlo.reverse", rhs, dimensions=tuple(n.kernel_spatial_dimensions))
    if groups > 1:
        rhs = _swap_groups(rhs, n.kernel_output_feature_dimension,
                           n.kernel_input_feature_dimension, groups)
    padding = []
    for x, kernel, out, low in _gradient_sizes(ct, lhs, rhs, a):
        before = kernel - low - 1
        padding.append((before, x + kernel - 1 - out - before))
    return bind(
        "stablehlo.convolution", ct, rhs, window_strides=tuple(a["lhs_dilation"]),
        padding=tuple(padding), lhs_dilation=tuple(a["window_strides"]),
        rhs_dilation=tuple(a["rhs_dilation"]), feature_group_count=groups, batch_group_count=1,
        dtype=as_dtype(lhs.dtype), **_precision(a), dimension_numbers=ConvDimensionNumbers(
            n.output_batch_dimension, n.output_feature_dimension, n.output_spatial_dimensions,
            n.kernel_output_feature_dimension, n.kernel_input_feature_dimension,
            n.kernel_spatial_dimensions,
            n.input_batch_dimension, n.input_feature_dimension, n.input_spatial_dimensions))


def _swap_groups(rhs, out_dim, in_dim, groups):
    """Move the group factor from the output features of a kernel to its input features."""
    shape = list(rhs.shape)
    split = shape[:]
    split[out_dim:out_dim + 1] = [groups, shape[out_dim] // groups]
    x = bind("stablehlo.reshape", rhs, shape=tuple(split))
    target = in_dim + 1 if in_dim > out_dim else in_dim
    order = [d for d in range(len(split)) if d != out_dim]
    order.insert(order.index(target), out_dim)
    x = bind("stablehlo.transpose", x, permutation=tuple(order))
    shape[out_dim] //= groups
    shape[in_dim] *= groups
    return bind("stablehlo.reshape", x, shape=tuple(shape))


def _kernel_gradient(ct, lhs, rhs, a):
    """Convolve the input with the cotangent, batch and features swapped."""
    n = a["dimension_numbers"]
    padding = []
    for x, kernel, out, low in _gradient_sizes(ct, lhs, rhs, a):
        padding.append((low, kernel - 1 + out - x - low))
    return bind(
        "stablehlo.convolution", lhs, ct, window_strides=tuple(a["rhs_dilation"]),
        padding=tuple(padding), lhs_dilation=tuple(a["lhs_dilation"]),
        rhs_dilation=tuple(a["window_strides"]), feature_group_count=1,
        batch_group_count=a["feature_group_count"], dtype=as_dtype(rhs.dtype), **_precision(a),
        dimension_numbers=ConvDimensionNumbers(
            n.input_feature_dimension, n.input_batch_dimension, n.input_spatial_dimensions,
            n.output_batch_dimension, n.output_feature_dimension, n.output_spatial_dimensions,
            n.kernel_input_feature_dimension, n.kernel_output_feature_dimension,
            n.kernel_spatial_dimensions))
