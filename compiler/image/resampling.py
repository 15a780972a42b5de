"""Resizing and shifting: along each dim, a matrix of interpolation weights.

Pixels are unit squares: the one with index i has its centre at i + 1/2. `antialias` widens the kernel
where the image shrinks, so that every pixel counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .. import numpy as tnp
from ..errors import OpError, user_location
from ..ir.dtypes import F32
from ..numpy.promote import (
    ArrayLike,
    Value,
    asarray,
    convert,
    dtype_of,
    floating,
    normalize_axis,
    shape_text,
)


def _triangle(x: Value) -> Value:
    return tnp.maximum(1 - x, 0)


def _cubic(x: Value) -> Value:
    """Keys' kernel with a = -1/2."""
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return tnp.where(x >= 2, 0, tnp.where(x >= 1, far, near))


def _lanczos(radius: float):
    return lambda x: tnp.where(x > radius, 0, tnp.sinc(x) * tnp.sinc(x / radius))


KERNELS = {"linear": _triangle, "cubic": _cubic, "lanczos3": _lanczos(3.0),
           "lanczos5": _lanczos(5.0)}
"""Method -> weight of a pixel at a distance of at least 0."""

_ALIASES = {"bilinear": "linear", "trilinear": "linear", "triangle": "linear",
            "bicubic": "cubic", "tricubic": "cubic"}


def _kernel(method: str):
    method = _ALIASES.get(method, method)
    if method not in KERNELS:
        raise OpError(f"interpolation {method!r} is not one of {', '.join([*KERNELS, *_ALIASES])}",
                      user_location())
    return KERNELS[method]


def _weights(size: int, wanted: int, scale: Value, translation: Value, kernel, antialias: bool
             ) -> Value:
    """A (size, wanted) matrix: the share of every pixel in every new one."""
    step = tnp.asarray(1.0) / scale
    width = tnp.maximum(step, 1.0) if antialias else 1.0
    centre = (np.arange(wanted, dtype=np.float32) + 0.5 - translation) * step - 0.5
    distance = tnp.abs(centre[None, :] - np.arange(size, dtype=np.float32)[:, None]) / width
    shares = kernel(distance)
    total = tnp.sum(shares, axis=0, keepdims=True)
    small = 1000 * float(np.finfo(np.float32).eps)
    shares = tnp.where(tnp.abs(total) > small, shares / tnp.where(total == 0, 1, total), 0)
    inside = tnp.logical_and(centre >= -0.5, centre <= size - 0.5)
    return tnp.where(inside[None, :], shares, 0)


def scale_and_translate(x: ArrayLike, shape: Sequence[int], dims: Sequence[int], scale: ArrayLike,
                        translation: ArrayLike, method: str = "linear", antialias: bool = True
                        ) -> Value:
    """`x` scaled, then moved, along `dims` (an element of `scale` and `translation` each), as an array
    of `shape`; what comes from outside of `x` is 0. Integers are rounded."""
    x, scale, translation = asarray(x), floating(scale), floating(translation)
    kernel, rank = _kernel(method), len(x.shape)
    if len(shape) != rank:
        raise OpError(f"scale_and_translate to {shape_text(tuple(shape))} of {shape_text(x.shape)}:"
                      " the ranks differ", user_location())
    if scale.shape != (len(dims),) or translation.shape != (len(dims),):
        raise OpError(f"scale_and_translate along {len(dims)} dims needs as many scales and"
                      f" translations, got {shape_text(scale.shape)} and"
                      f" {shape_text(translation.shape)}", user_location())
    result = _wide(x)
    for i, dim in enumerate(dims):
        dim = normalize_axis(dim, rank)
        weights = _weights(x.shape[dim], shape[dim], scale[i], translation[i], kernel, antialias)
        result = _apply(result, weights, dim)
    return _narrow(result, x)


def resize(x: ArrayLike, shape: Sequence[int], method: str = "linear", antialias: bool = True
           ) -> Value:
    """`x` interpolated to `shape` along the dims whose size changes.

    `method`: nearest, linear, cubic, lanczos3 or lanczos5. Integers are rounded and saturate.
    """
    x = asarray(x)
    changed = [d for d, (a, b) in enumerate(zip(x.shape, shape, strict=True)) if a != b]
    if method == "nearest":
        for d in changed:
            size, wanted = x.shape[d], shape[d]
            places = np.floor((np.arange(wanted) + 0.5) * (size / wanted)).astype(np.int32)
            x = tnp.take(x, np.minimum(places, size - 1), axis=d)
        return x
    kernel, result = _kernel(method), _wide(x)
    for d in changed:
        scale = np.float32(shape[d] / x.shape[d])
        weights = _weights(x.shape[d], shape[d], scale, np.float32(0), kernel, antialias)
        result = _apply(result, weights, d)
    return _narrow(result, x)


def _apply(x: Value, weights: Value, dim: int) -> Value:
    return tnp.moveaxis(tnp.tensordot(x, convert(weights, dtype_of(x)), ((dim,), (0,))), -1, dim)


def _wide(x: Value) -> Value:
    """`x` in the type weights are applied in."""
    x = floating(x)
    return convert(x, F32) if dtype_of(x).bits < 32 else x


def _narrow(result: Value, like: Value) -> Value:
    dtype = dtype_of(like)
    if dtype.is_integer:
        limits = tnp.iinfo(dtype.numpy)
        # The largest i32 and u32 are no f32: stay below them.
        high = float(limits.max) if dtype.bits < 32 else math.nextafter(float(limits.max), 0)
        result = tnp.clip(tnp.rint(result), float(limits.min), high)
    return convert(result, dtype)
