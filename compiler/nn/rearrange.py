"""Rearranging space: depth and space, sliding patches, adaptive pooling, many-hot vectors."""

from __future__ import annotations

from itertools import product

from .. import numpy as tnp
from ..ir.dtypes import F32
from ..numpy.promote import ArrayLike, Value, asarray, floating
from .convolution import PerDim, per_dim, spatial_dims


def depth_to_space(x: ArrayLike, block_size: int, data_format: str = "channels_last") -> Value:
    """(batch, h, w, b*b*c) to (batch, h*b, w*b, c), as TensorFlow."""
    x = asarray(x)
    b = block_size
    if data_format == "channels_last":
        n, h, w, c = x.shape
        wide = tnp.transpose(tnp.reshape(x, (n, h, w, b, b, c // (b * b))), (0, 1, 3, 2, 4, 5))
        return tnp.reshape(wide, (n, h * b, w * b, c // (b * b)))
    n, c, h, w = x.shape
    wide = tnp.transpose(tnp.reshape(x, (n, b, b, c // (b * b), h, w)), (0, 3, 4, 1, 5, 2))
    return tnp.reshape(wide, (n, c // (b * b), h * b, w * b))


def space_to_depth(x: ArrayLike, block_size: int, data_format: str = "channels_last") -> Value:
    """(batch, h*b, w*b, c) to (batch, h, w, b*b*c), as TensorFlow."""
    x = asarray(x)
    b = block_size
    if data_format == "channels_last":
        n, h, w, c = x.shape
        wide = tnp.transpose(tnp.reshape(x, (n, h // b, b, w // b, b, c)), (0, 1, 3, 2, 4, 5))
        return tnp.reshape(wide, (n, h // b, w // b, b * b * c))
    n, c, h, w = x.shape
    wide = tnp.transpose(tnp.reshape(x, (n, c, h // b, b, w // b, b)), (0, 3, 5, 1, 2, 4))
    return tnp.reshape(wide, (n, b * b * c, h // b, w // b))


def unfold(x: ArrayLike, kernel_size: PerDim, dilation: PerDim = 1, padding: PerDim = 0,
           stride: PerDim = 1) -> Value:
    """The patches of (batch, channels, h, w) as columns: (batch, channels*kh*kw, patches)."""
    x = asarray(x)
    (kh, kw), (dh, dw), (ph, pw), (sh, sw) = (
        per_dim(v, 2, name) for v, name in ((kernel_size, "kernel_size"), (dilation, "dilation"),
                                            (padding, "padding"), (stride, "stride")))
    x = tnp.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    n, c, h, w = x.shape
    rows, columns = ((h - dh * (kh - 1) - 1) // sh + 1, (w - dw * (kw - 1) - 1) // sw + 1)
    patches = [x[:, :, i * dh:i * dh + (rows - 1) * sh + 1:sh,
                 j * dw:j * dw + (columns - 1) * sw + 1:sw]
               for i, j in product(range(kh), range(kw))]
    return tnp.reshape(tnp.stack(patches, 2), (n, c * kh * kw, rows * columns))


def fold(x: ArrayLike, output_size: PerDim, kernel_size: PerDim, dilation: PerDim = 1,
         padding: PerDim = 0, stride: PerDim = 1) -> Value:
    """The transpose of `unfold`: overlapping patches are added up."""
    x = asarray(x)
    (h, w), (kh, kw), (dh, dw), (ph, pw), (sh, sw) = (
        per_dim(v, 2, name) for v, name in (
            (output_size, "output_size"), (kernel_size, "kernel_size"), (dilation, "dilation"),
            (padding, "padding"), (stride, "stride")))
    rows, columns = ((h + 2 * ph - dh * (kh - 1) - 1) // sh + 1,
                     (w + 2 * pw - dw * (kw - 1) - 1) // sw + 1)
    n, c = x.shape[0], x.shape[1] // (kh * kw)
    patches = tnp.reshape(x, (n, c, kh * kw, rows, columns))
    result = tnp.zeros((n, c, h + 2 * ph, w + 2 * pw), x.dtype)
    for k, (i, j) in enumerate(product(range(kh), range(kw))):
        key = (slice(None), slice(None), slice(i * dh, i * dh + (rows - 1) * sh + 1, sh),
               slice(j * dw, j * dw + (columns - 1) * sw + 1, sw))
        result = result.at[key].add(patches[:, :, k])
    return result[:, :, ph:ph + h, pw:pw + w]


def _adaptive(x: ArrayLike, output_size: PerDim, data_format: str, combine) -> Value:
    """Each output element covers [floor(i*n/m), ceil((i+1)*n/m)) of an axis of n; the windows
    are boxes, so the axes are reduced one after the other."""
    x = asarray(x)
    dims = spatial_dims(len(x.shape), data_format)
    for d, m in zip(dims, per_dim(output_size, len(dims), "output_size"), strict=True):
        n = x.shape[d]
        pieces = [combine(x[(slice(None),) * d + (slice(i * n // m, -(-(i + 1) * n // m)),)], d,
                          keepdims=True) for i in range(m)]
        x = tnp.concatenate(pieces, d)
    return x


def adaptive_average_pool(x: ArrayLike, output_size: PerDim,
                          data_format: str = "channels_last") -> Value:
    """Means over windows chosen so that the result has `output_size`."""
    return _adaptive(x, output_size, data_format, tnp.mean)


def adaptive_max_pool(x: ArrayLike, output_size: PerDim,
                      data_format: str = "channels_last") -> Value:
    """Maxima over windows chosen so that the result has `output_size`."""
    return _adaptive(x, output_size, data_format, tnp.max)


def multi_hot(x: ArrayLike, num_classes: int, axis: int = -1, dtype=F32) -> Value:
    """1 for each class that occurs along the last dim of `x` (1-d: per example of one class)."""
    x = asarray(x)
    reduced = 1 if len(x.shape) > 1 else 0
    return tnp.max(tnp.one_hot(x, num_classes, axis, dtype), reduced)


def psnr(x: ArrayLike, y: ArrayLike, max_val: float) -> Value:
    """Peak signal-to-noise ratio in decibels."""
    error = tnp.mean(tnp.square(floating(x) - y))
    return 20 * tnp.log10(max_val) - 10 * tnp.log10(error)
