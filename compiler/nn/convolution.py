"""Convolution and pooling over any number of spatial dims.

Inputs are (batch, *spatial, channels), or (batch, channels, *spatial) with
`data_format="channels_first"`. Kernels are (*spatial, input channels per group, output channels)
either way. Padding is "valid", "same" (as TensorFlow: the extra element goes at the end) or a
(low, high) pair per spatial dim.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .. import numpy as tnp
from ..errors import OpError, user_location
from ..ir.dims import Dim, Extent
from ..ir.dtypes import F32
from ..ir.structs import ConvDimensionNumbers
from ..numpy import direct
from ..numpy.promote import (
    ArrayLike,
    Value,
    asarray,
    dtype_argument,
    dtype_of,
    floating,
    shape_text,
    unify,
)
from ..ops.reduction import identity_of, reducer
from ..trace.core import Array, bind

Padding = str | int | Sequence[Sequence[int]]
PerDim = int | Sequence[int]


def per_dim(value: PerDim, count: int, name: str) -> tuple[int, ...]:
    """An int, or one int per spatial dim, as a tuple."""
    values = (value,) * count if isinstance(value, (int, np.integer)) else tuple(value)
    if len(values) != count:
        raise OpError(f"{name} needs {count} numbers (one per spatial dim), got {list(values)}",
                      user_location())
    return tuple(int(v) for v in values)


def spatial_dims(rank: int, data_format: str) -> tuple[int, ...]:
    """The positions of the spatial dims of an input of `rank` dims."""
    if data_format not in ("channels_last", "channels_first"):
        raise OpError(f"data_format is 'channels_last' or 'channels_first', got {data_format!r}",
                      user_location())
    first = 1 if data_format == "channels_last" else 2
    return tuple(range(first, first + rank - 2))


def same_padding(extent: Extent, window: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Low and high padding with which ceil(extent / stride) windows fit."""
    span = (window - 1) * dilation + 1
    if isinstance(extent, Dim):
        if stride != 1:
            raise OpError(f"same padding with stride {stride} along the symbolic dim `{extent}`"
                          " depends on its size; fix it", user_location())
        total = span - 1
    else:
        total = max((-(-extent // stride) - 1) * stride + span - extent, 0)
    return total // 2, total - total // 2


def paddings(padding: Padding, extents: Sequence[Extent], windows: Sequence[int],
             strides: Sequence[int], dilations: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """A padding argument as (low, high) per spatial dim."""
    if isinstance(padding, str):
        name = padding.lower()
        if name == "valid":
            return ((0, 0),) * len(extents)
        if name == "same":
            return tuple(same_padding(*row) for row in zip(extents, windows, strides, dilations,
                                                           strict=True))
        raise OpError(f"padding is 'valid', 'same' or pairs of ints, got {padding!r}",
                      user_location())
    pairs = np.broadcast_to(np.asarray(padding), (len(extents), 2)).tolist()
    return tuple((int(low), int(high)) for low, high in pairs)


def _convolution(x: Value, kernel: Value, **attributes) -> Value:
    found = direct.convolution(x, kernel, attributes)
    return bind("stablehlo.convolution", x, kernel, **attributes) if found is None else found


def conv(x: ArrayLike, kernel: ArrayLike, strides: PerDim = 1, padding: Padding = "valid",
         dilation: PerDim = 1, data_format: str = "channels_last",
         preferred_element_type=None) -> Value:
    """Convolve `x` with `kernel`; fewer kernel than input channels means groups.

    Raises `OpError` when the input channels are no multiple of the kernel's.
    """
    x, kernel = unify(x, kernel)
    rank = len(x.shape)
    dims = _conv_rank(x, kernel, data_format)
    count = len(dims)
    channel = rank - 1 if data_format == "channels_last" else 1
    channels, per_group = x.shape[channel], kernel.shape[-2]
    if channels % per_group:
        raise OpError(f"conv: the input {shape_text(x.shape)} has {channels} channels, no multiple"
                      f" of the kernel's {per_group} (kernel {shape_text(kernel.shape)})",
                      user_location())
    strides = per_dim(strides, count, "strides")
    dilation = per_dim(dilation, count, "dilation")
    pads = paddings(padding, [x.shape[d] for d in dims], kernel.shape[:count], strides, dilation)
    numbers = _dimension_numbers(rank, channel, dims)
    return _convolution(x, kernel, window_strides=strides, padding=pads,
                        lhs_dilation=(1,) * count, rhs_dilation=dilation,
                        window_reversal=(False,) * count, dimension_numbers=numbers,
                        feature_group_count=channels // per_group, batch_group_count=1,
                        dtype=_result(x, preferred_element_type))


def _conv_rank(x: Value, kernel: Value, data_format: str) -> tuple[int, ...]:
    rank = len(x.shape)
    if rank < 3 or len(kernel.shape) != rank:
        raise OpError("conv needs an input (batch, *spatial, channels) and a kernel (*spatial, in,"
                      f" out) of equal rank, got {shape_text(x.shape)} and"
                      f" {shape_text(kernel.shape)}", user_location())
    return spatial_dims(rank, data_format)


def _result(x: Value, preferred_element_type):
    if preferred_element_type is None:
        return dtype_of(x)
    return dtype_argument(preferred_element_type)


def _dimension_numbers(rank: int, channel: int, dims, swap: bool = False) -> ConvDimensionNumbers:
    kernel = tuple(range(rank - 2))
    features = (rank - 1, rank - 2) if swap else (rank - 2, rank - 1)
    return ConvDimensionNumbers(0, channel, dims, *features, kernel, 0, channel, dims)


def depthwise_conv(x: ArrayLike, kernel: ArrayLike, strides: PerDim = 1,
                   padding: Padding = "valid", dilation: PerDim = 1,
                   data_format: str = "channels_last") -> Value:
    """Each channel with its own filters; kernel (*spatial, channels, multiplier)."""
    kernel = asarray(kernel)
    *spatial, channels, multiplier = kernel.shape
    kernel = tnp.reshape(kernel, (*spatial, 1, channels * multiplier))
    return conv(x, kernel, strides, padding, dilation, data_format)


def separable_conv(x: ArrayLike, depthwise_kernel: ArrayLike, pointwise_kernel: ArrayLike,
                   strides: PerDim = 1, padding: Padding = "valid", dilation: PerDim = 1,
                   data_format: str = "channels_last") -> Value:
    """A depthwise convolution followed by one with windows of size 1."""
    x = depthwise_conv(x, depthwise_kernel, strides, padding, dilation, data_format)
    return conv(x, pointwise_kernel, 1, "valid", 1, data_format)


def transposed_padding(padding: Padding, windows: Sequence[int], strides: Sequence[int],
                       dilations: Sequence[int],
                       output_padding: PerDim | None = None) -> tuple[tuple[int, int], ...]:
    """Padding of the dilated input that transposes a forward convolution with `padding`.

    With n input elements and windows spanning w the result has n * stride elements ("same") or
    (n - 1) * stride + max(w, stride) ("valid"); with `output_padding` it has
    (n - 1) * stride + w % 2 + output_padding or (n - 1) * stride + w + output_padding.
    """
    if not isinstance(padding, str):
        return paddings(padding, windows, windows, strides, dilations)
    same = padding.lower() == "same"
    extra = (None,) * len(windows) if output_padding is None else per_dim(
        output_padding, len(windows), "output_padding")
    pairs = []
    for window, stride, dilation, more in zip(windows, strides, dilations, extra, strict=True):
        span = (window - 1) * dilation + 1
        if more is None:
            size = stride if same else max(span, stride)
        else:
            size = (span % 2 if same else span) + more
        # What the forward convolution padded in all; it put the smaller half first.
        forward = max(span - size, 0)
        low = span - 1 - forward // 2
        pairs.append((low, size + span - 2 - low))
    return tuple(pairs)


def conv_transpose(x: ArrayLike, kernel: ArrayLike, strides: PerDim = 1,
                   padding: Padding = "valid", dilation: PerDim = 1,
                   output_padding: PerDim | None = None,
                   data_format: str = "channels_last") -> Value:
    """The transpose (gradient with respect to the input) of `conv`.

    `kernel` is that of the forward convolution: (*spatial, output channels, input channels) seen
    from here. Pairs as `padding` pad the input after it is dilated by the strides.
    """
    x, kernel = unify(x, kernel)
    rank = len(x.shape)
    dims = _conv_rank(x, kernel, data_format)
    count = len(dims)
    channel = rank - 1 if data_format == "channels_last" else 1
    strides = per_dim(strides, count, "strides")
    dilation = per_dim(dilation, count, "dilation")
    pads = transposed_padding(padding, kernel.shape[:count], strides, dilation, output_padding)
    flipped = tnp.flip(kernel, tuple(range(count)))
    return _convolution(x, flipped, window_strides=(1,) * count, padding=pads,
                        lhs_dilation=strides, rhs_dilation=dilation,
                        window_reversal=(False,) * count,
                        dimension_numbers=_dimension_numbers(rank, channel, dims, swap=True),
                        feature_group_count=1, batch_group_count=1, dtype=dtype_of(x))


# -- pooling --------------------------------------------------------------------------------------

def _windows(x: Value, size: PerDim, strides: PerDim | None, padding: Padding, data_format: str):
    rank = len(x.shape)
    dims = spatial_dims(rank, data_format)
    size = per_dim(size, len(dims), "pool_size")
    strides = size if strides is None else per_dim(strides, len(dims), "strides")
    pads = paddings(padding, [x.shape[d] for d in dims], size, strides, (1,) * len(dims))

    def spread(values, other):
        place = dict(zip(dims, values, strict=True))
        return tuple(place.get(d, other) for d in range(rank))

    return dims, spread(size, 1), spread(strides, 1), spread(pads, (0, 0))


def _pool(x: Value, kind: str, size, strides, pads) -> Value:
    rank, dtype = len(x.shape), dtype_of(x)
    return bind("stablehlo.reduce_window", x, identity_of(kind, dtype), window_dimensions=size,
                window_strides=strides, base_dilations=(1,) * rank, window_dilations=(1,) * rank,
                padding=pads, regions=[reducer(kind, dtype)])


def max_pool(x: ArrayLike, size: PerDim, strides: PerDim | None = None,
             padding: Padding = "valid", data_format: str = "channels_last") -> Value:
    """The maximum of each window; `strides` default to `size`."""
    x = asarray(x)
    _, size, strides, pads = _windows(x, size, strides, padding, data_format)
    return _pool(x, "maximum", size, strides, pads)


def avg_pool(x: ArrayLike, size: PerDim, strides: PerDim | None = None,
             padding: Padding = "valid", data_format: str = "channels_last") -> Value:
    """The mean of each window, not counting padding; `strides` default to `size`."""
    x = floating(x)
    dtype = dtype_of(x)
    wide = tnp.convert(x, F32) if dtype.bits == 16 else x
    dims, window, steps, pads = _windows(x, size, strides, padding, data_format)
    total = _pool(wide, "add", window, steps, pads)
    if not any(low or high for low, high in pads):
        return tnp.convert(total / math.prod(window), dtype)
    return tnp.convert(total / _window_counts(wide, dims, window, steps, pads), dtype)


average_pool = avg_pool


def _window_counts(x: Value, dims, size, strides, pads) -> Value:
    """How many elements of `x` each window covers, broadcastable to the pooled shape."""
    counts = np.ones((1,) * len(x.shape), x.dtype)
    for d in dims:
        extent = x.shape[d]
        if not isinstance(extent, int):
            raise OpError(f"average pooling with padding along the symbolic dim `{extent}` is not"
                          " supported; fix its size", user_location())
        low, high = pads[d]
        starts = np.arange(0, extent + low + high - size[d] + 1, strides[d]) - low
        covered = np.minimum(starts + size[d], extent) - np.maximum(starts, 0)
        shape = [1] * len(x.shape)
        shape[d] = len(starts)
        counts = counts * covered.reshape(shape).astype(x.dtype)
    return Array(counts)
