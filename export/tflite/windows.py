"""TFLite forms of dot_general, convolution and windowed reductions.

TFLite fixes the layouts: images are (batch, height, width, channels), filters (out, height, width,
in), dense weights (out, in). Other layouts are transposed; one spatial dim gets a second of 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...compiler.ir.core import Op, TensorType
from ...compiler.ir.dims import Dim, Extent, product
from ...compiler.ir.dtypes import F32
from ...compiler.ops.contraction import convolution_defaults
from .graph import Tensor
from .lowering import Lowering

SAME, VALID = 0, 1


def _inverse(permutation: Sequence[int]) -> list[int]:
    return [list(permutation).index(d) for d in range(len(permutation))]


# -- dot_general ----------------------------------------------------------------------------------

def dot_general(to: Lowering, op: Op) -> Tensor:
    """FULLY_CONNECTED with constant weights, BATCH_MATMUL otherwise."""
    if op.result.dtype is not F32 or any(v.dtype is not F32 for v in op.operands):
        raise to.unsupported("it only multiplies matrices of float32")
    n = op.attributes["dot_dimension_numbers"]
    lhs, rhs = (to.dense(v) for v in op.operands)
    lb, lc = list(n.lhs_batching_dimensions), list(n.lhs_contracting_dimensions)
    rb, rc = list(n.rhs_batching_dimensions), list(n.rhs_contracting_dimensions)
    lf = [d for d in range(len(lhs.shape)) if d not in (*lb, *lc)]
    rf = [d for d in range(len(rhs.shape)) if d not in (*rb, *rc)]
    lhs, rhs = to.transpose(lhs, [*lb, *lf, *lc]), to.transpose(rhs, [*rb, *rc, *rf])
    count = len(lb)
    batch, rows = lhs.shape[:count], lhs.shape[count:count + len(lf)]
    columns = rhs.shape[count + len(rc):]
    inner = product(lhs.shape[count + len(lf):])
    width = product(columns)
    if not lb and lf and rhs.data is not None and isinstance(width, int):
        x = to.reshape(lhs, (*rows, inner))
        weights = to.transpose(to.reshape(rhs, (inner, width)), [1, 0])
        result = to.emit("FULLY_CONNECTED", [x, weights], TensorType((*rows, width), F32),
                        "FullyConnectedOptions", fused_activation_function=0,
                        keep_num_dims=len(rows) > 1)
    else:
        x = to.reshape(lhs, (*batch, product(rows), inner))
        y = to.reshape(rhs, (*batch, inner, width))
        result = to.emit("BATCH_MATMUL", [x, y], TensorType((*batch, product(rows), width), F32),
                        "BatchMatMulOptions", adj_x=False, adj_y=False)
    return to.reshape(result, op.result.shape)


# -- windows --------------------------------------------------------------------------------------

def _padding(to: Lowering, x: Tensor, out: Sequence[Extent], window: Sequence[int],
             strides: Sequence[int], dilations: Sequence[int],
             pads: Sequence[tuple[int, int]], fill: float) -> tuple[Tensor, int]:
    """The input and padding mode of a window op on (batch, height, width, channels).

    Padding that is not what TFLite calls SAME is done by an operator of its own.
    """
    if all(p == (0, 0) for p in pads):
        return x, VALID
    same = []
    for extent, n, size, stride, dilation in zip(x.shape[1:3], out, window, strides, dilations,
                                                 strict=True):
        span = (size - 1) * dilation + 1
        if isinstance(extent, Dim) or isinstance(n, Dim):
            total = span - 1 if stride == 1 else -1
        else:
            total = max((n - 1) * stride + span - extent, 0) if n == -(-extent // stride) else -1
        same.append((total // 2, total - total // 2))
    if list(map(tuple, pads)) == same:
        return x, SAME
    if any(a < 0 for pair in pads for a in pair):
        raise to.unsupported("its padding is negative")
    amounts = to.numbers([(0, 0), *pads, (0, 0)])
    shape = [x.shape[0], *(e + a + b for e, (a, b) in zip(x.shape[1:3], pads, strict=True)),
             x.shape[3]]
    type = x.type.with_shape(shape)
    if fill == 0:
        return to.emit("PAD", [x, amounts], type), VALID
    return to.emit("PADV2", [x, amounts, to.constant(fill, x.dtype)], type), VALID


def _image(to: Lowering, x: Tensor, layout: Sequence[int]) -> Tensor:
    """`x` as (batch, height, width, channels); `layout` names its dims in that order."""
    x = to.transpose(x, layout)
    return x if len(layout) == 4 else to.reshape(x, (x.shape[0], 1, *x.shape[1:]))


def _from_image(to: Lowering, y: Tensor, layout: Sequence[int]) -> Tensor:
    if len(layout) == 3:
        y = to.reshape(y, (y.shape[0], *y.shape[2:]))
    return to.transpose(y, _inverse(layout))


def _result_type(op: Op, layout: Sequence[int]) -> TensorType:
    """The type of the result as (batch, height, width, channels)."""
    shape = [op.result.shape[d] for d in layout]
    return TensorType(tuple(shape if len(shape) == 4 else [shape[0], 1, *shape[1:]]),
                      op.result.dtype)


def _two(values: Sequence[Any], missing: Any) -> list:
    """One or two values per spatial dim as two."""
    return [missing, *values] if len(values) == 1 else list(values)


def convolution(to: Lowering, op: Op) -> Tensor:
    """CONV_2D, DEPTHWISE_CONV_2D when every channel has its own filters, or TRANSPOSE_CONV."""
    a = convolution_defaults(op.attributes)
    n = a["dimension_numbers"]
    spatial = n.input_spatial_dimensions
    if len(spatial) not in (1, 2):
        raise to.unsupported(f"it convolves over 1 or 2 dims, not {len(spatial)}")
    if a["batch_group_count"] != 1 or any(a["window_reversal"]):
        raise to.unsupported("it has no convolution with batch groups or reversed windows")
    if any(v.dtype is not F32 for v in (*op.operands, op.result)):
        raise to.unsupported("it only convolves float32")
    x = _image(to, to.dense(op.operands[0]),
               [n.input_batch_dimension, *spatial, n.input_feature_dimension])
    kernel = to.dense(op.operands[1])
    groups, per_group = a["feature_group_count"], kernel.shape[n.kernel_input_feature_dimension]
    outputs = kernel.shape[n.kernel_output_feature_dimension]
    depthwise = groups > 1 and per_group == 1
    ends = [n.kernel_output_feature_dimension, n.kernel_input_feature_dimension]
    first, last = ends[::-1] if depthwise else ends
    kernel = _image(to, kernel, [first, *n.kernel_spatial_dimensions, last])
    layout = [n.output_batch_dimension, *n.output_spatial_dimensions, n.output_feature_dimension]
    type = _result_type(op, layout)
    strides, dilations = _two(a["window_strides"], 1), _two(a["rhs_dilation"], 1)
    pads = _two(a["padding"], (0, 0))
    if any(d != 1 for d in a["lhs_dilation"]):
        if groups != 1 or any(d != 1 for d in (*strides, *dilations)):
            raise to.unsupported("its transposed convolution has no groups, strides or dilations")
        result = _transposed(to, x, kernel, type, _two(a["lhs_dilation"], 1), pads)
        return _from_image(to, result, layout)
    x, mode = _padding(to, x, type.shape[1:3], kernel.shape[1:3], strides, dilations,
                       _two(a["padding"], (0, 0)), 0)
    options = {"padding": mode, "stride_h": strides[0], "stride_w": strides[1],
               "dilation_h_factor": dilations[0], "dilation_w_factor": dilations[1],
               "fused_activation_function": 0}
    if depthwise:
        result = to.emit("DEPTHWISE_CONV_2D", [x, kernel], type, "DepthwiseConv2DOptions",
                        depth_multiplier=outputs // groups, **options)
    else:
        result = to.emit("CONV_2D", [x, kernel], type, "Conv2DOptions", **options)
    return _from_image(to, result, layout)


def _transposed(to: Lowering, x: Tensor, kernel: Tensor, type: TensorType, strides: Sequence[int],
                pads: Sequence[tuple[int, int]]) -> Tensor:
    """A convolution over an input dilated by `strides`: TRANSPOSE_CONV of all that the windows
    reach, cropped or padded to what the convolution's own padding leaves."""
    if kernel.data is None:
        raise to.unsupported("the kernel of a transposed convolution must be a weight")
    weights = to.constant(np.ascontiguousarray(kernel.data[:, ::-1, ::-1]))
    window = kernel.data.shape[1:3]
    full = [(e - 1) * s + k for e, s, k in zip(x.shape[1:3], strides, window, strict=True)]
    whole = type.with_shape((type.shape[0], *full, type.shape[3]))
    result = to.emit("TRANSPOSE_CONV", [to.shape_vector(whole.shape, exact=True), weights, x], whole,
                     "TransposeConvOptions", padding=VALID, stride_h=strides[0],
                     stride_w=strides[1], fused_activation_function=0)
    missing = [(low - k + 1, high - k + 1) for (low, high), k in zip(pads, window, strict=True)]
    amounts = [(max(low, 0), max(high, 0)) for low, high in missing]
    if any(n for pair in amounts for n in pair):
        grown = [e + low + high for e, (low, high) in zip(full, amounts, strict=True)]
        shape = (type.shape[0], *grown, type.shape[3])
        result = to.emit("PAD", [result, to.numbers([(0, 0), *amounts, (0, 0)])],
                         type.with_shape(shape))
    if result.shape == type.shape:
        return result
    starts = [0, *(max(-low, 0) for low, _ in missing), 0]
    limits = [0, *(s + e for s, e in zip(starts[1:3], type.shape[1:3], strict=True)), 0]
    return to.emit("STRIDED_SLICE", [result, to.numbers(starts), to.numbers(limits),
                                     to.numbers([1] * 4)], type, "StridedSliceOptions",
                   begin_mask=0b1001, end_mask=0b1001)


def reduce_window(to: Lowering, op: Op) -> Tensor:
    """MAX_POOL_2D, or AVERAGE_POOL_2D times the number of elements for a sum."""
    a, rank = op.attributes, len(op.result.shape)
    body = op.regions[0]
    kind = body.ops[0].name if len(body.ops) == 1 and len(op.operands) == 2 else ""
    if kind not in ("stablehlo.maximum", "stablehlo.add") or op.result.dtype is not F32:
        raise to.unsupported("it only takes the maximum or the sum of windows of float32")
    one, none = (1,) * rank, ((0, 0),) * rank
    size, strides = a["window_dimensions"], a.get("window_strides", one)
    pads = tuple(map(tuple, a.get("padding", none)))
    if any(d != 1 for k in ("base_dilations", "window_dilations") for d in a.get(k, one)):
        raise to.unsupported("its windows are dilated")
    identity = -np.inf if kind == "stablehlo.maximum" else 0.0
    initial = to.data(op.operands[1])
    if initial is None or np.any(initial != identity):
        raise to.unsupported("its initial value is not the reduction's identity")
    windowed = [d for d in range(rank)
                if size[d] != 1 or strides[d] != 1 or pads[d] != (0, 0)]
    layout = _pool_layout(to, rank, windowed)
    spatial = layout[1:-1]
    x, type = _image(to, to.dense(op.operands[0]), layout), _result_type(op, layout)
    window, steps = (_two([v[d] for d in spatial], 1) for v in (size, strides))
    around = _two([pads[d] for d in spatial], (0, 0))
    source = x
    x, mode = _padding(to, x, type.shape[1:3], window, steps, (1, 1), around, identity)
    options = {"padding": mode, "stride_h": steps[0], "stride_w": steps[1],
               "filter_height": window[0], "filter_width": window[1],
               "fused_activation_function": 0}
    if kind == "stablehlo.maximum":
        largest = to.emit("MAX_POOL_2D", [x], type, "Pool2DOptions", **options)
        return _from_image(to, largest, layout)
    average = to.emit("AVERAGE_POOL_2D", [x], type, "Pool2DOptions", **options)
    counts = _counts(to, source, type.shape[1:3], window, steps, around if mode == SAME else None)
    total = to.emit("MUL", [average, to.constant(counts)], type, "MulOptions",
                   fused_activation_function=0)
    result = _from_image(to, total, layout)
    flat = counts if rank == 4 else counts[:, 0]
    to.averages[result] = (_from_image(to, average, layout), flat.transpose(_inverse(layout)))
    return result


def _pool_layout(to: Lowering, rank: int, windowed: Sequence[int]) -> list[int]:
    """Dims as batch, spatial dims, channels, so that all windows are over the spatial ones."""
    wanted = 2 if rank == 4 else 1
    if rank not in (3, 4) or len(windowed) > wanted:
        raise to.unsupported("it takes windows over at most 2 dims of 4, or 1 of 3")
    for spatial in ([1, 2], [2, 3]) if rank == 4 else ([1], [2]):
        if set(windowed) <= set(spatial):
            break
    else:
        spatial = [*windowed, *(d for d in range(rank) if d not in windowed)][:wanted]
    first, last = (d for d in range(rank) if d not in spatial)
    return [first, *spatial, last]


def _counts(to: Lowering, x: Tensor, out: Sequence[Extent], window: Sequence[int],
            strides: Sequence[int], pads: Sequence[tuple[int, int]] | None) -> np.ndarray:
    """How many elements each average is over: (1, height or 1, width or 1, 1)."""
    counts = np.full((1, 1, 1, 1), window[0] * window[1], np.float32)
    if pads is None:
        return counts
    counts[:] = 1
    for d in (0, 1):
        extent, n = x.shape[1 + d], out[d]
        low, high = pads[d]
        if (low, high) == (0, 0):
            counts = counts * np.float32(window[d])
            continue
        if isinstance(extent, Dim) or isinstance(n, Dim):
            raise to.unsupported("it sums padded windows along a symbolic dim")
        starts = np.arange(n) * strides[d] - low
        covered = np.minimum(starts + window[d], extent) - np.maximum(starts, 0)
        counts = counts * covered.reshape((1, n, 1, 1) if d == 0 else (1, 1, n, 1)).astype("f4")
    return counts
