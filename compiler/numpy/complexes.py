"""Elementary functions of complex numbers in real arithmetic: `function(re, im) -> (re, im)`.

Accurate to a few ULP in each part, over the whole range. Inverse sine and cosine are those of Hull,
Fairgrieve and Tang, "Implementing the complex arcsine and arccosine functions using exception handling"
(1997); logarithms near the unit circle use sums in twice the precision (Dekker, Knuth).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..ir.dtypes import F64
from .elementwise import (
    absolute,
    copysign,
    cos,
    equal,
    exp,
    expm1,
    isfinite,
    isinf,
    isnan,
    less,
    less_equal,
    log,
    log1p,
    logical_and,
    logical_or,
    maximum,
    minimum,
    sin,
    sqrt,
    where,
)
from .promote import Value, convert, dtype_of
from .real_functions import cosh, sinh
from .special import arctan2

Pair = tuple[Value, Value]


def _info(x: Value) -> Any:
    return np.finfo(np.float64 if dtype_of(x) is F64 else np.float32)


def multiply(a: Pair, b: Pair) -> Pair:
    """The textbook product."""
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def divide(a: Pair, b: Pair) -> Pair:
    """Smith's quotient, which does not overflow where the result does not; C99's infinities."""
    x, y = b
    wide = less(absolute(x), absolute(y))
    big, small = where(wide, y, x), where(wide, x, y)
    ratio = small / big
    scale = big + small * ratio
    real = where(wide, a[0] * ratio + a[1], a[0] + a[1] * ratio) / scale
    imag = where(wide, a[1] * ratio - a[0], a[1] - a[0] * ratio) / scale
    broken = logical_and(isnan(real), isnan(imag))
    zero = logical_and(equal(x, 0), equal(y, 0))
    infinite = logical_or(isinf(a[0]), isinf(a[1]))
    finite_divisor = logical_and(isfinite(x), isfinite(y))
    known = logical_and(zero, ~logical_and(isnan(a[0]), isnan(a[1])))
    pole = copysign(math.inf, x)
    real = where(logical_and(broken, known), pole * a[0], real)
    imag = where(logical_and(broken, known), pole * a[1], imag)
    one = lambda v: copysign(where(isinf(v), 1.0, 0.0), v)  # noqa: E731
    top = logical_and(broken, logical_and(infinite, logical_and(finite_divisor, ~zero)))
    c, d = one(a[0]), one(a[1])
    real = where(top, math.inf * (c * x + d * y), real)
    imag = where(top, math.inf * (d * x - c * y), imag)
    bottom = logical_and(broken, logical_and(
        logical_or(isinf(x), isinf(y)), logical_and(isfinite(a[0]), isfinite(a[1]))))
    c, d = one(x), one(y)
    real = where(bottom, 0.0 * (a[0] * c + a[1] * d), real)
    imag = where(bottom, 0.0 * (a[1] * c - a[0] * d), imag)
    return real, imag


def hypot(x: Value, y: Value) -> Value:
    """sqrt(x**2 + y**2) without overflow; infinite when either part is."""
    x, y = absolute(x), absolute(y)
    large, small = maximum(x, y), minimum(x, y)
    same = equal(large, small)
    ratio = small / where(equal(large, 0), 1.0, large)
    squared = ratio * ratio
    root = sqrt(1 + squared)
    # Where the root rounds to 1 the square would be lost.
    near = large + large * squared / 2
    result = where(equal(root, 1), near, large * root)
    result = where(same, large * math.sqrt(2), result)
    result = where(equal(large, 0), 0.0, result)
    return where(logical_or(isinf(x), isinf(y)), math.inf, result)


def sign(x: Value, y: Value) -> Pair:
    """z / abs(z), 0 at 0."""
    size = hypot(x, y)
    zero = equal(size, 0)
    divisor = where(zero, 1.0, size)
    nan = isnan(size)
    return (where(nan, math.nan, where(zero, 0.0, x / divisor)),
            where(nan, math.nan, where(zero, 0.0, y / divisor)))


def square(x: Value, y: Value) -> Pair:
    real = (x - y) * (x + y)
    infinite = logical_and(isinf(x), isinf(y))
    equal_sizes = logical_and(equal(absolute(x), absolute(y)), isfinite(x))
    real = where(equal_sizes, 0.0, where(infinite, math.nan, real))
    return real, x * y * 2


def exponential(x: Value, y: Value) -> Pair:
    """In two factors, so that it overflows only where the result does; C99's special values."""
    half = exp(x * 0.5)
    real, imag = half * cos(y) * half, half * sin(y) * half
    whole = exp(x)
    plain = isfinite(whole)
    real = where(plain, whole * cos(y), real)
    imag = where(plain, whole * sin(y), imag)
    # An infinite real part without an angle: still nothing at the left, infinite at the right.
    lost = logical_and(isinf(x), ~isfinite(y))
    real = where(lost, where(less(x, 0), 0.0, math.inf), real)
    imag = where(lost, where(less(x, 0), copysign(0.0, y), math.nan), imag)
    return real, where(equal(y, 0), y, imag)


def exponential_op(x: Value, y: Value) -> Pair:
    """The op: NaN where both parts are infinite, though C99 knows that exp(-inf + i y) is 0."""
    real, imag = exponential(x, y)
    lost = logical_and(isinf(x), isinf(y))
    return where(lost, math.nan, real), where(lost, math.nan, imag)


def exponential_minus_one(x: Value, y: Value) -> Pair:
    sine = sin(y * 0.5)
    real = expm1(x) * cos(y) - 2 * sine * sine
    imag = where(equal(y, 0), y, exp(x) * sin(y))
    lost = logical_and(isinf(x), ~isfinite(y))
    real = where(lost, where(less(x, 0), -1.0, math.inf), real)
    return real, where(lost, where(less(x, 0), copysign(0.0, y), math.nan), imag)


# -- twice the precision --------------------------------------------------------------------------

def _two_sum(a: Value, b: Value) -> Pair:
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _split(x: Value) -> Pair:
    factor = 2.0**27 + 1 if dtype_of(x) is F64 else 2.0**12 + 1
    scaled = x * factor
    high = scaled - (scaled - x)
    return high, x - high


def _two_square(x: Value) -> Pair:
    high, low = _split(x)
    total = x * x
    return total, ((high * high - total) + 2 * high * low) + low * low


def _log_size(x: Value, y: Value) -> Value:
    """log(hypot(x, y)), accurate near the unit circle, too."""
    info = _info(x)
    x, y = absolute(x), absolute(y)
    large, small = maximum(x, y), minimum(x, y)
    # Near the circle: half the log1p of large**2 - 1 + small**2, summed exactly enough.
    bounded = minimum(large, 2.0)
    squared, lost = _two_square(bounded)
    other, lost_other = _two_square(minimum(small, 2.0))
    total, rest = _two_sum(squared, -1.0 + 0 * squared)
    total2, rest2 = _two_sum(total, other)
    near = 0.5 * log1p(total2 + (rest + rest2 + lost + lost_other))
    inside = logical_and(less(0.5, large), less(large, 2.0))
    big = less(math.sqrt(float(info.max)) * 0.01, large)
    tiny = less(large, math.sqrt(float(info.tiny)) * 100)
    ratio = small / where(equal(large, 0), 1.0, large)
    far = log(large) + 0.5 * log1p(ratio * ratio)
    middle = 0.5 * log(large * large + small * small)
    middle = where(logical_or(big, logical_or(tiny, less(ratio, 1e-3))), far, middle)
    result = where(inside, near, middle)
    result = where(equal(large, 0), -math.inf, result)
    return where(logical_or(isinf(x), isinf(y)), math.inf, result)


def logarithm(x: Value, y: Value) -> Pair:
    return _log_size(x, y), arctan2(y, x)


def log_plus_one(x: Value, y: Value) -> Pair:
    """log(1 + z): the real part is half the log1p of x (x + 2) + y**2, summed exactly enough."""
    info = _info(x)
    ax, ay = absolute(x), absolute(y)
    large = maximum(ax, ay)
    limit = math.sqrt(float(info.max)) * 0.01
    bx, by = maximum(minimum(x, limit), -limit), minimum(ay, limit)
    xx, lost = _two_square(bx)
    yy, lost_y = _two_square(by)
    total, rest = _two_sum(xx, yy)
    total2, rest2 = _two_sum(total, 2 * bx)
    # What two_sum keeps is exact only while nothing overflows, which the limit sees to.
    near = 0.5 * log1p(total2 + (rest + rest2 + lost + lost_y))
    far = _log_size(1 + x, y)
    # Left of -1/2 the sum 1 + x is exact.
    real = where(logical_and(less(large, limit * 0.5), less(-0.5, x)), near, far)
    real = where(logical_or(isinf(x), isinf(y)), math.inf, real)
    return real, arctan2(y, 1 + x)


def square_root(x: Value, y: Value) -> Pair:
    """By halves of sums of sizes, scaled so that nothing overflows or is lost."""
    info = _info(x)
    ax, ay = absolute(x), absolute(y)
    large = maximum(ax, ay)
    up = less(large, float(info.tiny) * 2.0**(2 * info.nmant // 2 + 4))
    down = less(float(info.max) * 0.0625, large)
    even = 2 * ((info.nmant + 6) // 2)
    scale = where(up, 2.0**even, where(down, 0.0625, 1.0))
    unscale = where(up, 2.0**(-even // 2), where(down, 4.0, 1.0))
    sx, sy = ax * scale, ay * scale
    root = sqrt((hypot(sx, sy) + sx) * 0.5) * unscale
    other = where(equal(root, 0), 0.0, ay / (2 * where(equal(root, 0), 1.0, root)))
    diagonal = logical_and(equal(ax, ay), isfinite(ax))
    # sqrt(1 + i) and sqrt(1 - i) in one piece: both parts are sqrt(a (sqrt 2 +- 1) / 2).
    root = where(diagonal, sqrt(sx) * unscale * math.sqrt((math.sqrt(2) + 1) / 2), root)
    other = where(diagonal, sqrt(sx) * unscale * math.sqrt((math.sqrt(2) - 1) / 2), other)
    left = less(x, 0)
    real, imag = where(left, other, root), where(left, root, other)
    imag = copysign(imag, y)
    infinite = isinf(y)
    real = where(infinite, math.inf, where(equal(x, math.inf), math.inf, real))
    imag = where(infinite, y, imag)
    at_left = logical_and(equal(x, -math.inf), ~infinite)
    real = where(at_left, where(isnan(y), math.nan, 0.0), real)
    imag = where(at_left, copysign(math.inf, y), imag)
    at_right = logical_and(equal(x, math.inf), ~infinite)
    return real, where(at_right, where(isnan(y), math.nan, copysign(0.0, y)), imag)


def reciprocal_root(x: Value, y: Value) -> Pair:
    """1 / sqrt(z)."""
    root = square_root(x, y)
    size = hypot(x, y)
    divisor = where(equal(size, 0), 1.0, size)
    # The conjugate of the root over its squared size, which is abs(z).
    real, imag = root[0] / divisor, -root[1] / divisor
    zero, infinite = equal(size, 0), isinf(size)
    real = where(zero, math.inf, where(infinite, 0.0, real))
    return real, where(zero, math.nan, where(infinite, copysign(0.0, -y), imag))


def cube_root(x: Value, y: Value) -> Pair:
    from ..trace.core import bind

    size = bind("stablehlo.cbrt", hypot(x, y))
    angle = arctan2(y, x) / 3
    return size * cos(angle), size * sin(angle)


def power(a: Pair, b: Pair) -> Pair:
    """exp(b log a), 1 for a zero exponent."""
    log_size, angle = logarithm(*a)
    size = exp(b[0] * log_size - b[1] * angle)
    turn = b[1] * log_size + b[0] * angle
    zero = logical_and(equal(a[0], 0), equal(a[1], 0))
    none = logical_and(equal(b[0], 0), equal(b[1], 0))
    real, imag = size * cos(turn), size * sin(turn)
    nothing = logical_and(zero, less(0, b[0]))
    real = where(none, 1.0, where(nothing, 0.0, real))
    return real, where(logical_or(none, nothing), 0.0, imag)


# -- trigonometric and hyperbolic -----------------------------------------------------------------

def sine(x: Value, y: Value) -> Pair:
    """sin z = -i sinh(i z)."""
    real, imag = hyperbolic_sine(-y, x)
    return imag, -real


def cosine(x: Value, y: Value) -> Pair:
    """cos z = cosh(i z)."""
    return hyperbolic_cosine(-y, x)


def _exact_zero(a: Value, b: Value) -> Value:
    """a b; 0 where either is, whatever the other may be."""
    zero = logical_or(equal(a, 0), equal(b, 0))
    return where(zero, copysign(0.0, a) * copysign(1.0, b), a * b)


def hyperbolic_sine(x: Value, y: Value) -> Pair:
    """With C99's special values, as the other functions here."""
    lost = logical_and(isinf(x), ~isfinite(y))
    return where(lost, x, _exact_zero(sinh(x), cos(y))), _exact_zero(cosh(x), sin(y))


def hyperbolic_cosine(x: Value, y: Value) -> Pair:
    lost = logical_and(isinf(x), ~isfinite(y))
    return where(lost, math.inf, cosh(x) * cos(y)), _exact_zero(sinh(x), sin(y))


def hyperbolic_tangent(x: Value, y: Value) -> Pair:
    """By Kahan's formula with tan y, sinh x; flat for large x."""
    size = absolute(x)
    flat = less(20.0 if dtype_of(x) is F64 else 11.0, size)
    bounded = where(flat, 1.0, x)
    tangent = sin(y) / cos(y)
    rise = sinh(bounded)
    beta = 1 + tangent * tangent
    rho = sqrt(1 + rise * rise)
    scale = 1 + beta * rise * rise
    real, imag = beta * rho * rise / scale, tangent / scale
    wide = isinf(tangent)
    real = where(wide, rho / where(equal(rise, 0), 1.0, rise), real)
    imag = where(wide, 0.0, imag)
    small = exp(-2 * size)
    far = 4 * small * sin(y) * cos(y)
    real = where(flat, copysign(1.0, x), real)
    endless = isinf(x)
    imag = where(flat, where(logical_and(endless, ~isfinite(y)), copysign(0.0, y), far), imag)
    # Without an angle: nothing is known but at infinity, and that the imaginary axis stays.
    lost = logical_or(isnan(x), logical_and(~isfinite(y), ~endless))
    real = where(lost, where(equal(x, 0), x, math.nan), real)
    return real, where(equal(y, 0), y, where(lost, math.nan, imag))


def tangent(x: Value, y: Value) -> Pair:
    """tan z = -i tanh(i z)."""
    real, imag = hyperbolic_tangent(-y, x)
    return imag, -real


def logistic(x: Value, y: Value) -> Pair:
    """1 / (1 + exp(-z)), through tanh: no overflow."""
    real, imag = hyperbolic_tangent(x * 0.5, y * 0.5)
    # (1 + tanh(z/2)) / 2 cancels on the left; there exp(z) is small.
    grown = exponential(minimum(x, 0.0), y)
    left = divide(grown, (1 + grown[0], grown[1]))
    low = less(x, -0.5)
    return where(low, left[0], 0.5 + real * 0.5), where(low, left[1], imag * 0.5)


def _hull(x: Value, y: Value) -> tuple[Value, Value, Value, Value]:
    """For x, y >= 0: the angles of arcsine and arccosine, the imaginary part, whether it is large."""
    info = _info(x)
    huge = less(math.sqrt(float(info.max)) / 8, maximum(x, y))
    x_, y_ = where(huge, 2.0, x), where(huge, 2.0, y)
    r, s = hypot(x_ + 1, y_), hypot(x_ - 1, y_)
    a = (r + s) * 0.5
    b = x_ / a
    ax = a + x_
    yy = y_ * y_
    inner = ax * 0.5
    below = less_equal(x_, 1.0)
    left = inner * (yy / (r + x_ + 1) + (s + (1 - x_)))
    right = inner / (r + x_ + 1) + inner / where(equal(s + (x_ - 1), 0), 1.0, s + (x_ - 1))
    adjacent = where(below, sqrt(left), y_ * sqrt(right))
    arcsine, arccosine = arctan2(x_, adjacent), arctan2(adjacent, x_)
    near = less(b, 0.6417)
    root = sqrt((1 - b) * (1 + b))
    arcsine = where(near, arctan2(b, root), arcsine)
    arccosine = where(near, arctan2(root, b), arccosine)
    # a - 1 without cancellation. Between y = 0 and the smallest numbers the parts are taken apart.
    tail = s + (x_ - 1)
    minus = where(less(x_, 1.0), yy / (s + (1 - x_)), tail) * 0.5 + 0.5 * yy / (r + x_ + 1)
    low = log1p(minus + sqrt(minus * (a + 1)))
    high = log(a + sqrt((a - 1) * (a + 1)))
    imag = where(less_equal(a, 1.5), low, high)
    # Where y**2 is nothing: sqrt(a**2 - 1) is y over or beside the root of |1 - x**2|.
    thin = less(y_, math.sqrt(float(info.tiny)) * 4)
    beside = sqrt(absolute(1 - x_) * (1 + x_))
    flat = where(less(x_, 1.0), y_ / where(equal(beside, 0), 1.0, beside),
                 log1p((x_ - 1) + beside))
    flat = where(equal(x_, 1.0), sqrt(y_), flat)
    imag = where(thin, flat, imag)
    thin_angle = where(equal(x_, 1.0), sqrt(y_),
                       where(less(x_, 1.0), arctan2(beside, x_),
                             y_ / where(equal(beside, 0), 1.0, beside)))
    arccosine = where(logical_and(thin, less_equal(1.0, x_)), thin_angle, arccosine)
    far = math.log(2) + _log_size(x, y)
    return (where(huge, arctan2(x, y), arcsine), where(huge, arctan2(y, x), arccosine),
            where(huge, far, imag), huge)


def _both(x: Value, y: Value) -> tuple[Value, Value, Value]:
    size_x, size_y = absolute(x), absolute(y)
    arcsine, arccosine, imag, _ = _hull(where(isinf(size_x), 1.0, size_x) * 1.0, size_y)
    infinite = logical_or(isinf(x), isinf(y))
    sides = (where(isinf(size_x), 1.0, minimum(size_x, 0.0)),
             where(isinf(size_y), 1.0, minimum(size_y, 0.0)))
    arcsine = where(infinite, arctan2(*sides), arcsine)
    arccosine = where(infinite, arctan2(sides[1], sides[0]), arccosine)
    return arcsine, arccosine, where(infinite, math.inf, imag)


def _in_double(function: Callable[[Value, Value], Pair]) -> Callable[[Value, Value], Pair]:
    """Computed in f64: three roundings in f32 are more than a few ULP near the branch points."""

    @functools.wraps(function)
    def wrapped(x: Value, y: Value) -> Pair:
        dtype = dtype_of(x)
        if dtype is F64:
            return function(x, y)
        real, imag = function(convert(x, F64), convert(y, F64))
        return convert(real, dtype), convert(imag, dtype)

    return wrapped


@_in_double
def arcsine(x: Value, y: Value) -> Pair:
    angle, _, imag = _both(x, y)
    nan = logical_or(isnan(x), isnan(y))
    return (where(nan, where(equal(x, 0), x, x + y), copysign(angle, x)),
            where(nan, where(isinf(y), y, where(isinf(x), math.inf, x + y)), copysign(imag, y)))


@_in_double
def arccosine(x: Value, y: Value) -> Pair:
    _, angle, imag = _both(x, y)
    nan = logical_or(isnan(x), isnan(y))
    angle = where(less(x, 0), math.pi - angle, angle)
    return (where(nan, where(equal(x, 0), math.pi / 2, x + y), angle),
            where(nan, where(isinf(y), -y, where(isinf(x), -math.inf, x + y)), copysign(imag, -y)))


def hyperbolic_arcsine(x: Value, y: Value) -> Pair:
    """asinh z = i asin(-i z)."""
    real, imag = arcsine(y, x)
    return imag, real


def hyperbolic_arccosine(x: Value, y: Value) -> Pair:
    real, imag = arccosine(x, y)
    return absolute(imag), copysign(real, y)


@_in_double
def hyperbolic_arctangent(x: Value, y: Value) -> Pair:
    info = _info(x)
    ax, ay = absolute(x), absolute(y)
    huge = less(math.sqrt(float(info.max)) / 8, maximum(ax, ay))
    bx, by = where(huge, 2.0, ax), where(huge, 2.0, ay)
    yy = by * by
    gap = (1 - bx) * (1 - bx) + yy
    real = 0.25 * log1p(4 * bx / where(equal(gap, 0), 1.0, gap))
    # At x = 1 and where y**2 is nothing.
    corner = logical_and(equal(bx, 1.0), less(by, math.sqrt(float(info.tiny)) * 4))
    real = where(corner, 0.5 * (math.log(2) - log(by)), real)
    imag = 0.5 * arctan2(2 * by, (1 - bx) * (1 + bx) - yy)
    # x / (x**2 + y**2) far away.
    large, small = maximum(ax, ay), minimum(ax, ay)
    ratio = small / large
    far = where(less(ay, ax), 1.0, ratio) / (1 + ratio * ratio) / large
    far = where(logical_or(isinf(ax), isinf(ay)), 0.0, far)
    real = where(huge, far, real)
    imag = where(huge, math.pi / 2, imag)
    real = where(equal(x, 0), 0.0, real)
    straight = logical_and(equal(ay, 0), less_equal(ax, 1))
    imag = where(straight, 0.0, imag)
    real = where(isinf(ay), 0.0, where(isinf(ax), 0.0, real))
    imag = where(isinf(ay), math.pi / 2, where(isnan(y), y, imag))
    return copysign(real, x), copysign(imag, y)


def arctangent(x: Value, y: Value) -> Pair:
    """atan z = -i atanh(i z)."""
    real, imag = hyperbolic_arctangent(-y, x)
    return imag, -real
