"""Pieces of normalisation layers: moments, batch, layer and RMS normalisation."""

from __future__ import annotations

from .. import numpy as tnp
from ..ir.dtypes import F32
from ..numpy.promote import ArrayLike, Value, asarray, convert, dtype_of, floating


def moments(x: ArrayLike, axes, keepdims: bool = False) -> tuple[Value, Value]:
    """Mean and variance over `axes`; 16-bit floats are computed in f32 and converted back."""
    x = floating(x)
    dtype = dtype_of(x)
    wide = convert(x, F32) if dtype.bits == 16 else x
    mean = tnp.mean(wide, axes, keepdims=True)
    variance = tnp.mean(tnp.square(wide - mean), axes, keepdims=True)
    if not keepdims:
        axes = axes if axes is not None else tuple(range(len(x.shape)))
        mean, variance = tnp.squeeze(mean, axes), tnp.squeeze(variance, axes)
    return convert(mean, dtype), convert(variance, dtype)


def batch_normalization(x: ArrayLike, mean: ArrayLike, variance: ArrayLike, axis: int = -1,
                        offset: ArrayLike | None = None, scale: ArrayLike | None = None,
                        epsilon: float = 1e-3) -> Value:
    """(x - mean) / sqrt(variance + epsilon) * scale + offset; parameters are 1-d along `axis`."""
    x = floating(x)
    axis %= len(x.shape)

    def aligned(v: ArrayLike) -> Value:
        v = asarray(v)
        return tnp.reshape(v, tuple(v.shape[0] if d == axis else 1 for d in range(len(x.shape))))

    factor = tnp.rsqrt(tnp.asarray(variance) + epsilon)
    if scale is not None:
        factor = factor * asarray(scale)
    shift = -(asarray(mean) * factor)
    if offset is not None:
        shift = shift + asarray(offset)
    return convert(x * aligned(factor) + aligned(shift), dtype_of(x))


def layer_normalization(x: ArrayLike, scale: ArrayLike | None = None,
                        offset: ArrayLike | None = None, axis=-1,
                        epsilon: float = 1e-3) -> Value:
    """`x` with mean 0 and variance 1 over `axis`, then scaled and shifted."""
    x = floating(x)
    dtype = dtype_of(x)
    wide = convert(x, F32) if dtype.bits == 16 else x
    centred = wide - tnp.mean(wide, axis, keepdims=True)
    variance = tnp.mean(tnp.square(centred), axis, keepdims=True)
    return _scaled(centred * tnp.rsqrt(variance + epsilon), scale, offset, dtype)


def rms_normalization(x: ArrayLike, scale: ArrayLike | None = None, axis=-1,
                      epsilon: float = 1e-6) -> Value:
    """`x` divided by its root mean square over `axis`, then scaled."""
    x = floating(x)
    dtype = dtype_of(x)
    wide = convert(x, F32) if dtype.bits == 16 else x
    mean = tnp.mean(tnp.square(wide), axis, keepdims=True)
    return _scaled(wide * tnp.rsqrt(mean + epsilon), scale, None, dtype)


def _scaled(x: Value, scale, offset, dtype) -> Value:
    x = x if scale is None else x * asarray(scale)
    x = x if offset is None else x + asarray(offset)
    return convert(x, dtype)
