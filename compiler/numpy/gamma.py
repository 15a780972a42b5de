"""The gamma family: log-gamma, digamma, polygamma, Hurwitz zeta.

Lanczos' approximation (g = 7, nine terms), reflection for negative arguments, Euler-Maclaurin for
zeta. Log-gamma and digamma of f32 are computed in f64, and half precision in f32.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

from ..ir.dtypes import F32, F64, DType
from .elementwise import (
    absolute,
    cos,
    equal,
    exp,
    floor,
    isinf,
    less,
    less_equal,
    log,
    log1p,
    logical_and,
    logical_or,
    not_equal,
    power,
    sin,
    where,
)
from .promote import ArrayLike, Value, convert, dtype_of, floating, operands, result_type

_G = 7.0
_LANCZOS = (676.520368121885098567009190444019, -1259.13921672240287047156078755283,
            771.3234287776530788486528258894, -176.61502916214059906584551354,
            12.507343278686904814458936853, -0.13857109526572011689554707,
            9.984369578019570859563e-6, 1.50563273514931155834e-7)
_LANCZOS_BASE = 0.99999999999980993227684700473478

# B(2k) / (2k)! of Euler and Maclaurin's formula, k = 1, 2, ...
_BERNOULLI = (1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160, -691 / 1307674368000,
              1 / 74724249600, -3617 / 10670622842880000, 43867 / 5109094217170944000,
              -174611 / 802857662698291200000)


def in_single(function: Callable[..., Value]) -> Callable[..., Value]:
    """Compute half precision in f32: `function` gets operands of one float dtype."""
    return _in(F32, function)


def in_double(function: Callable[..., Value]) -> Callable[..., Value]:
    """Compute in f64 and round once: where terms cancel, f32 would lose more than a few ULP."""
    return _in(F64, function)


def _in(wide: DType, function: Callable[..., Value]) -> Callable[..., Value]:
    @functools.wraps(function)
    def wrapped(*values: ArrayLike) -> Value:
        given = ([floating(values[0])] if len(values) == 1
                 else operands(*values, dtype=result_type(*values, 0.0)))
        dtype = dtype_of(given[0])
        if dtype.bits >= wide.bits:
            return function(*given)
        return convert(function(*(convert(v, wide) for v in given)), dtype)

    return wrapped


def _lanczos(z: Value) -> tuple[Value, Value]:
    """The series and its derivative at z >= -0.5."""
    total = derivative = None
    for i, c in enumerate(_LANCZOS, 1):
        term = c / (z + i)
        slope = term / (z + i)
        total = _LANCZOS_BASE + term if total is None else total + term
        derivative = slope if derivative is None else derivative + slope
    assert total is not None and derivative is not None
    return total, -derivative


@in_double
def gammaln(x: ArrayLike) -> Value:
    """log(abs(gamma(x))); infinite at the non-positive integers and at both infinities."""
    reflect = less(x, 0.5)
    z = where(reflect, -x, x - 1)
    half = _G + 0.5
    log_t = math.log(half) + log1p(z / half)
    series, _ = _lanczos(z)
    # (z + 0.5) log(t) - t without the cancellation of its large parts.
    direct = (z + 0.5 - (z + half) / log_t) * log_t + math.log(math.sqrt(2 * math.pi)) + log(series)
    size = absolute(x)
    fraction = size - floor(size)
    near = where(less(0.5, fraction), 1 - fraction, fraction)
    # The sine of a tiny number is the number, which pi would make a subnormal one of few bits.
    tiny = less(near, 1e-9)
    sine = where(tiny, math.log(math.pi) + log(near), log(sin(math.pi * where(tiny, 0.5, near))))
    reflected = where(isinf(sine), -sine, math.log(math.pi) - sine - direct)
    return where(isinf(x), math.inf, where(reflect, reflected, direct))


@in_double
def digamma(x: ArrayLike) -> Value:
    """The derivative of log(gamma(x)); NaN at the non-positive integers."""
    reflect = less(x, 0.5)
    z = where(reflect, -x, x - 1)
    half = _G + 0.5
    t = z + half
    log_t = math.log(half) + log1p(z / half)
    series, slope = _lanczos(z)
    direct = log_t + slope / series - _G / t
    # Reduced first: pi * x is far from exact for large x.
    reduced = x + absolute(floor(x + 0.5))
    angle = math.pi * reduced
    reflected = direct - math.pi * cos(angle) / sin(angle)
    pole = logical_and(less_equal(x, 0), equal(x, floor(x)))
    return where(pole, math.nan, where(reflect, reflected, direct))


@in_single
def zeta(s: ArrayLike, q: ArrayLike) -> Value:
    """Hurwitz zeta: the sum of (q + k)**-s over k >= 0, for s > 1."""
    total = power(q, -s)
    a = q
    for _ in range(9):
        a = a + 1
        total = total + power(a, -s)
    a = a + 1
    tail = power(a, -s)
    total = total + tail * (a / (s - 1) + 0.5)
    factor, square = s / a, a * a
    correction = None
    for k, b in enumerate(_BERNOULLI):
        term = factor * b
        correction = term if correction is None else correction + term
        factor = factor * (s + 2 * k + 1) * (s + 2 * k + 2) / square
    assert correction is not None
    total = total + tail * correction
    # Poles at the non-positive integers q; below zero only even integers s have a real value.
    whole = equal(q, floor(q))
    pole = where(equal(s / 2, floor(s / 2)), math.inf, math.nan)
    total = where(logical_and(less_equal(q, 0), whole), pole, total)
    broken = logical_and(less(q, 0), logical_and(not_equal(s, floor(s)), not_equal(q, floor(q))))
    total = where(broken, math.nan, total)
    total = where(logical_and(isinf(s), less(1, s)), where(less(1, q), 0.0, total), total)
    return where(less(s, 1), math.nan, where(equal(s, 1), math.inf, total))


@in_single
def polygamma(n: ArrayLike, x: ArrayLike) -> Value:
    """The n-th derivative of digamma at x; n is a non-negative integer, given as a float."""
    sign = where(equal(n / 2, floor(n / 2)), -1.0, 1.0)
    derivative = sign * exp(gammaln(n + 1)) * zeta(n + 1, x)
    value = where(equal(n, 0), digamma(x), derivative)
    return where(logical_or(less(n, 0), not_equal(n, floor(n))), math.nan, value)


__all__ = ["digamma", "gammaln", "in_double", "in_single", "polygamma", "zeta"]
