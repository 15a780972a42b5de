"""Bits: counted, packed into bytes, and the parts floats are made of."""

from __future__ import annotations

import numpy as np

from ..errors import OpError, user_location
from ..ir.dtypes import I1, I32, UI8
from ..trace.core import Array, bind
from . import elementwise as el
from .manipulation import moveaxis, ravel, reshape, slice_along
from .padding import pad
from .promote import (
    ArrayLike,
    Value,
    asarray,
    convert,
    dtype_argument,
    dtype_of,
    floating,
    normalize_axis,
    promote,
    to_dtype,
)
from .reduction import sum as sum_
from .special import nextafter

_ORDERS = ("big", "little")


def bitwise_count(x: ArrayLike) -> Value:
    """The number of one bits of |x|, as u8."""
    x = asarray(x)
    if dtype_of(x) is I1:
        return convert(x, UI8)
    if not dtype_of(x).is_integer:
        raise OpError(f"bitwise_count needs integers, got {x.dtype}", user_location())
    return convert(bind("stablehlo.popcnt", el.absolute(x) if dtype_of(x).kind == "int" else x), UI8)


def _weights(bitorder: str) -> Array:
    if bitorder not in _ORDERS:
        raise OpError(f"bitorder {bitorder!r} is not one of {', '.join(_ORDERS)}", user_location())
    bits = np.left_shift(1, np.arange(8)).astype(np.uint8)
    return Array(bits[::-1].copy() if bitorder == "big" else bits)


def packbits(x: ArrayLike, axis: int | None = None, bitorder: str = "big") -> Value:
    """Every eight elements along `axis` (of the flattened array by default) as the bits of a byte;
    "big": the first is the highest. The last byte is filled with zeros."""
    x, weights = asarray(x), _weights(bitorder)
    if dtype_of(x).is_inexact:
        raise OpError(f"packbits needs integers or booleans, got {x.dtype}", user_location())
    x, axis = (ravel(x), 0) if axis is None else (x, normalize_axis(axis, len(x.shape)))
    lines = moveaxis(convert(el.truth(x), UI8), axis, -1)
    missing = -lines.shape[-1] % 8
    lines = pad(lines, [(0, 0)] * (len(lines.shape) - 1) + [(0, missing)])
    groups = reshape(lines, (*lines.shape[:-1], lines.shape[-1] // 8, 8))
    return moveaxis(convert(sum_(el.multiply(groups, weights), -1), UI8), -1, axis)


def unpackbits(x: ArrayLike, axis: int | None = None, count: int | None = None,
               bitorder: str = "big") -> Value:
    """The bits of bytes (u8) as elements 0 and 1 along `axis` (flattened by default).

    `count`: how many to keep (a negative one: how many to leave out), zeros for more than there are.
    """
    x, weights = asarray(x), _weights(bitorder)
    if dtype_of(x) is not UI8:
        raise OpError(f"unpackbits needs bytes (uint8), got {x.dtype}", user_location())
    x, axis = (ravel(x), 0) if axis is None else (x, normalize_axis(axis, len(x.shape)))
    lines = moveaxis(x, axis, -1)
    on = el.not_equal(el.bitwise_and(reshape(lines, (*lines.shape, 1)), weights), 0)
    bits = reshape(convert(on, UI8), (*lines.shape[:-1], 8 * lines.shape[-1]))
    if count is not None:
        have = bits.shape[-1]
        wanted = count if count >= 0 else max(have + count, 0)
        last = len(bits.shape) - 1
        bits = slice_along(bits, last, 0, wanted) if wanted <= have else pad(
            bits, [(0, 0)] * last + [(0, wanted - have)])
    return moveaxis(bits, -1, axis)


# -- parts of floats ------------------------------------------------------------------------------

def _layout(dtype) -> tuple[int, int]:
    """The number of mantissa bits of a float type, and the bias of its exponent."""
    import ml_dtypes

    limits = ml_dtypes.finfo(dtype.numpy)
    return limits.nmant, 1 - limits.minexp


def frexp(x: ArrayLike) -> tuple[Value, Value]:
    """`(m, e)` with x = m 2**e and 0.5 <= |m| < 1; e is i32. 0, infinities and NaN have e = 0."""
    x = floating(x)
    dtype = dtype_of(x)
    if not dtype.is_float or dtype.bits < 16:
        raise OpError(f"frexp needs real floats of at least 16 bits, got {x.dtype}", user_location())
    mantissa_bits, bias = _layout(dtype)
    integer = dtype_argument(f"int{dtype.bits}")
    # A subnormal has no exponent of its own: make it normal first.
    lift = mantissa_bits + 2
    small = el.less(el.absolute(x), float(np.ldexp(1.0, 1 - bias)))
    scaled = el.where(small, el.multiply(x, to_dtype(float(2 ** lift), dtype)), x)
    pattern = bind("stablehlo.bitcast_convert", scaled, dtype=integer)
    ones = 2 ** (dtype.bits - 1 - mantissa_bits) - 1
    field = el.bitwise_and(el.right_shift(pattern, mantissa_bits), ones)
    power = el.subtract(convert(field, I32), bias - 1)
    power = el.subtract(power, el.where(small, lift, 0))
    half = el.bitwise_or(el.bitwise_and(pattern, to_dtype(~(ones << mantissa_bits), integer)),
                         to_dtype((bias - 1) << mantissa_bits, integer))
    mantissa = bind("stablehlo.bitcast_convert", half, dtype=dtype)
    special = el.logical_or(el.equal(x, 0), el.logical_not(el.isfinite(x)))
    return el.where(special, x, mantissa), el.where(special, 0, power)


def ldexp(x: ArrayLike, exponent: ArrayLike) -> Value:
    """x 2**exponent for integer exponents, rounded once; 2**exponent alone may be out of range."""
    x, exponent = floating(x), asarray(exponent)
    dtype = dtype_of(x)
    if not dtype.is_float or dtype.bits < 16 or dtype_of(exponent).is_inexact:
        raise OpError(f"ldexp needs real floats of at least 16 bits and integers, got {x.dtype} and"
                      f" {exponent.dtype}", user_location())
    mantissa_bits, bias = _layout(dtype)
    integer = dtype_argument(f"int{dtype.bits}")
    # Between the smallest and the largest float are less than three times the powers one factor has.
    wide = convert(exponent, promote(dtype_of(exponent), I32))
    low = 0 if dtype_of(wide).kind == "uint" else 3 * (1 - bias)
    rest = convert(el.clip(wide, low, 3 * bias), I32)
    factors = []
    for _ in range(3):
        part = el.clip(rest, 1 - bias, bias)
        rest = el.subtract(rest, part)
        pattern = el.left_shift(convert(el.add(part, bias), integer), mantissa_bits)
        factors.append(bind("stablehlo.bitcast_convert", pattern, dtype=dtype))
    # The largest power last: what comes before it is exact wherever the result is not 0 or infinite.
    for factor in reversed(factors):
        x = el.multiply(x, factor)
    return x


def modf(x: ArrayLike) -> tuple[Value, Value]:
    """The fraction and the whole part, both with the sign of `x`."""
    x = floating(x)
    whole = el.trunc(x)
    fraction = el.where(el.isinf(x), 0, el.subtract(x, whole))
    return el.copysign(fraction, x), el.copysign(whole, x)


def spacing(x: ArrayLike) -> Value:
    """The distance to the next float away from zero, with the sign of `x`."""
    x = floating(x)
    if not dtype_of(x).is_float or dtype_of(x).bits < 16:
        raise OpError(f"spacing needs real floats of at least 16 bits, got {x.dtype}", user_location())
    size = el.absolute(x)
    step = el.subtract(nextafter(size, np.inf), size)
    return el.where(el.isfinite(x), el.where(el.less(x, 0), el.negative(step), step), np.nan)


__all__ = ["bitwise_count", "frexp", "ldexp", "modf", "packbits", "spacing", "unpackbits"]
