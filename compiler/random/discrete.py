"""Integers, choices and orders. Numbers follow JAX's streams: the same key gives the same draw."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .. import numpy as tnp
from ..errors import OpError, user_location
from ..ir.dims import Extent
from ..ir.dtypes import I32
from ..numpy.promote import (
    ArrayLike,
    Value,
    as_shape,
    asarray,
    convert,
    dtype_argument,
    dtype_of,
    floating,
    to_dtype,
)
from ..trace.core import Array
from .continuous import gumbel, shape_of, uniform
from .threefry import UNSIGNED, bits, split


def bernoulli(key: ArrayLike, p: ArrayLike = 0.5, shape=None) -> Value:
    """True with probability `p`."""
    p = floating(p)
    shape = p.shape if shape is None else as_shape(shape)
    return uniform(key, shape, dtype_of(p)) < p


def randint(key: ArrayLike, shape, minval: ArrayLike, maxval: ArrayLike, dtype=I32) -> Value:
    """Uniform integers in [minval, maxval)."""
    dtype, shape = dtype_argument(dtype), as_shape(shape)
    if not dtype.is_integer:
        raise OpError(f"randint needs an integer dtype, got {dtype}", user_location())
    unsigned = UNSIGNED[max(32, dtype.bits)]
    low, high = to_dtype(minval, dtype), to_dtype(maxval, dtype)
    keys = split(key)
    upper, lower = (bits(keys[i], shape, unsigned) for i in range(2))
    span = tnp.where(high <= low, 1, convert(high, unsigned) - convert(low, unsigned))
    # upper * 2**bits + lower, modulo span, without a type twice as wide.
    half = Array(np.asarray(2 ** (unsigned.bits // 2), unsigned.numpy)) % span
    multiplier = half * half % span
    offset = (upper % span * multiplier + lower % span) % span
    return low + convert(offset, dtype)


def categorical(key: ArrayLike, logits: ArrayLike, axis: int = -1, shape=None,
                replace: bool = True) -> Value:
    """Class numbers (i32) with probabilities softmax(logits) along `axis`.

    `shape` ends with the shape of `logits` without `axis`; dims before that are further draws, of
    different classes if not `replace`.
    """
    logits = floating(logits)
    axis = axis % len(logits.shape) - len(logits.shape)
    batch = tuple(e for d, e in enumerate(logits.shape) if d - len(logits.shape) != axis)
    shape = batch if shape is None else as_shape(shape)
    extra = shape[:len(shape) - len(batch)]
    if shape[len(extra):] != batch:
        raise OpError(f"categorical: the shape {shape} does not end with {batch}, the shape of the"
                      " logits without the class axis", user_location())
    if not replace:
        count, classes = math.prod(extra), logits.shape[axis]
        if count > classes:
            raise OpError(f"cannot choose {count} of {classes} without replacement", user_location())
        noisy = tnp.moveaxis(logits + gumbel(key, logits.shape, dtype_of(logits)), axis, -1)
        order = tnp.argsort(-noisy)[..., :count]
        return tnp.reshape(tnp.moveaxis(order, -1, 0), shape)
    noise = gumbel(key, extra + logits.shape, dtype_of(logits))
    return tnp.argmax(noise + logits, axis)


def geometric(key: ArrayLike, p: ArrayLike, shape=None, dtype=I32) -> Value:
    """The number of trials of probability `p` up to the first success, from 1."""
    p = floating(p)
    u = uniform(key, shape_of(shape, p), dtype_of(p))
    logarithm = tnp.log(tnp.where(u == 0, 1, u))
    return convert(tnp.floor(logarithm / tnp.log1p(-p)) + 1, dtype_argument(dtype))


def permutation(key: ArrayLike, x: int | ArrayLike, axis: int = 0) -> Value:
    """0 ... x-1 in random order (an int), or `x` with its slices along `axis` in random order."""
    if isinstance(x, (int, np.integer)):
        return _shuffled(key, tnp.arange(int(x)))
    x = asarray(x)
    if len(x.shape) == 1:
        return _shuffled(key, x)
    return tnp.take(x, _shuffled(key, tnp.arange(x.shape[axis])), axis)


shuffle = permutation


def _shuffled(key: ArrayLike, x: Value) -> Value:
    """Sorted by random words, often enough that equal words do not matter."""
    size = x.shape[0]
    if not isinstance(size, int):
        raise OpError(f"cannot shuffle along the symbolic dim `{size}`; fix its size",
                      user_location())
    rounds = math.ceil(3 * math.log(max(1, size)) / math.log(2**32 - 1))
    for _ in range(rounds):
        keys = split(key)
        key = keys[0]
        x = tnp.take(x, tnp.argsort(bits(keys[1], (size,))), 0)
    return x


def choice(key: ArrayLike, x: int | ArrayLike, shape=(), replace: bool = True,
           p: ArrayLike | None = None) -> Value:
    """Elements of `x` along its first axis (or of 0 ... x-1), with probabilities `p` if given."""
    x = tnp.arange(int(x)) if isinstance(x, (int, np.integer)) else asarray(x)
    shape, size = as_shape(shape), x.shape[0]
    count = math.prod(shape)
    if not replace and count > size:
        raise OpError(f"cannot choose {count} of {size} without replacement", user_location())
    if p is not None:
        p = floating(p)
        if p.shape != (size,):
            raise OpError(f"choice needs a probability for each of {size} elements, got an array of"
                          f" shape {p.shape}", user_location())
        return tnp.reshape(tnp.take(x, _weighted(key, p, shape, count, replace), 0),
                           shape + x.shape[1:])
    if replace:
        return tnp.take(x, randint(key, shape, 0, size), 0)
    return tnp.reshape(permutation(key, x)[:count], shape + x.shape[1:])


def _weighted(key: ArrayLike, p: Value, shape: tuple, count: int, replace: bool) -> Value:
    """Places with probabilities `p`."""
    if replace:
        total = tnp.cumsum(p)
        return tnp.searchsorted(total, total[-1] * (1 - uniform(key, shape, dtype_of(p))))
    # The largest of logits with Gumbel noise are a weighted sample (Efraimidis and Spirakis, 2006).
    noisy = gumbel(key, p.shape, dtype_of(p)) + tnp.log(p)
    return tnp.argsort(-noisy)[:count]


def dropout_mask(key: ArrayLike, keep: float, shape: Sequence[Extent]) -> Value:
    """True for the elements dropout keeps, each with probability `keep`."""
    return uniform(key, shape) < keep
