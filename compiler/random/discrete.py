"""Integers, choices and orders. Numbers follow JAX's streams: the same key gives the same draw."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .. import numpy as tnp
from ..errors import OpError, user_location
from ..ir.dims import Extent
from ..ir.dtypes import I32, DType
from ..numpy.promote import (
    ArrayLike,
    Value,
    as_shape,
    asarray,
    convert,
    dtype_argument,
    dtype_of,
    floating,
    normalize_axis,
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
    """Uniform integers in [minval, maxval), `minval` where that is empty.

    Python bounds beyond those of `dtype` are its own: `randint(key, shape, -128, 128, "int8")` draws
    every int8.
    """
    dtype, shape = dtype_argument(dtype), as_shape(shape)
    if not dtype.is_integer:
        raise OpError(f"randint needs an integer dtype, got {dtype}", user_location())
    unsigned = UNSIGNED[max(32, dtype.bits)]
    (low, _), (high, beyond) = (_within(v, dtype) for v in (minval, maxval))
    keys = split(key)
    upper, lower = (bits(keys[i], shape, unsigned) for i in range(2))
    span = convert(high, unsigned) - convert(low, unsigned) + unsigned.numpy.type(beyond)
    span = tnp.where(high <= low, 1, span)
    # upper * 2**bits + lower, modulo span, without a type twice as wide.
    half = Array(np.asarray(2 ** (unsigned.bits // 2), unsigned.numpy)) % span
    multiplier = half * half % span
    offset = (upper % span * multiplier + lower % span) % span
    return low + convert(offset, dtype)


def _within(bound: ArrayLike, dtype: DType) -> tuple[Value, bool]:
    """A bound of integers, and whether it was above the largest of the type, which it then is."""
    if not isinstance(bound, (int, np.integer)):
        return to_dtype(bound, dtype), False
    limits = np.iinfo(dtype.numpy)
    return to_dtype(min(max(int(bound), limits.min), limits.max), dtype), int(bound) > limits.max


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


def permutation(key: ArrayLike, x: int | ArrayLike, axis: int = 0,
                independent: bool = False) -> Value:
    """0 ... x-1 in random order (an int), or `x` with its slices along `axis` in random order.

    `independent`: each line along `axis` in an order of its own.
    """
    if isinstance(x, (int, np.integer)):
        return _shuffled(key, tnp.arange(int(x)))
    x = asarray(x)
    if not x.shape:
        raise OpError("permutation needs an int or an array of at least one dim, got a scalar array;"
                      " int() it", user_location())
    axis = normalize_axis(axis, len(x.shape))
    if independent:
        return _shuffled(key, x, axis)
    if len(x.shape) == 1:
        return _shuffled(key, x)
    return tnp.take(x, _shuffled(key, tnp.arange(x.shape[axis])), axis)


shuffle = permutation


def _shuffled(key: ArrayLike, x: Value, axis: int = 0) -> Value:
    """Sorted by random words, often enough that equal words do not matter."""
    size = math.prod(x.shape)
    if not isinstance(size, int):
        raise OpError(f"cannot shuffle along a symbolic dim of {x.shape}; fix its size",
                      user_location())
    rounds = math.ceil(3 * math.log(max(1, size)) / math.log(2**32 - 1))
    for _ in range(rounds):
        keys = split(key)
        key = keys[0]
        x = tnp.take_along_axis(x, tnp.argsort(bits(keys[1], x.shape), axis), axis)
    return x


def choice(key: ArrayLike, x: int | ArrayLike, shape=(), replace: bool = True,
           p: ArrayLike | None = None, axis: int = 0) -> Value:
    """Slices of `x` along `axis` (or of 0 ... x-1), with probabilities `p` if given.

    The dims of `shape` stand where `axis` was. `OpError` if there are too few to choose from.
    """
    x = tnp.arange(int(x)) if isinstance(x, (int, np.integer)) else asarray(x)
    if not x.shape:
        raise OpError("choice needs an int or an array of at least one dim, got a scalar array; int()"
                      " it", user_location())
    axis, shape = normalize_axis(axis, len(x.shape)), as_shape(shape)
    size, count = x.shape[axis], math.prod(shape)
    if size == 0 and count:
        raise OpError(f"cannot choose from the {x.shape[axis]} elements of an empty axis",
                      user_location())
    if not replace and count > size:
        raise OpError(f"cannot choose {count} of {size} without replacement", user_location())
    if p is not None:
        p = floating(p)
        if p.shape != (size,):
            raise OpError(f"choice needs a probability for each of {size} elements, got an array of"
                          f" shape {p.shape}", user_location())
        places = tnp.reshape(_weighted(key, p, shape, count, replace), shape)
    elif replace:
        places = randint(key, shape, 0, size)
    else:
        places = tnp.reshape(_shuffled(key, tnp.arange(size))[:count], shape)
    return tnp.take(x, places, axis)


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
