"""Trigonometric and hyperbolic functions of real numbers from StableHLO's ops.

Within 3 ULP, but for `sinh` and `cosh` of f32. Half precision is computed in f32.
"""

from __future__ import annotations

import math

from ..ir.dtypes import F64
from ..trace.core import bind
from .elementwise import (
    absolute,
    copysign,
    equal,
    exp,
    expm1,
    less,
    log,
    log1p,
    maximum,
    minimum,
    sqrt,
    where,
)
from .gamma import in_single
from .promote import Value, dtype_of
from .special import arctan2


@in_single
def acos(x: Value) -> Value:
    return 2 * arctan2(sqrt(1 - x), sqrt(1 + x))


@in_single
def asin(x: Value) -> Value:
    return arctan2(x, sqrt((1 - x) * (1 + x)))


@in_single
def atan(x: Value) -> Value:
    return arctan2(x, 1.0 + 0.0 * minimum(absolute(x), 0.0))


@in_single
def tan(x: Value) -> Value:
    return bind("stablehlo.tan", x)


def _halves(size: Value) -> tuple[Value, Value]:
    """exp(size) / 2, which may be finite where exp(size) is not, and exp(-size) / 2, for size >= 0.

    f32 takes halves as exponents, as the dialect defines these functions: up to 40 ULP off for large
    arguments, but the expectations of StableHLO's programs have the same roundings.
    """
    if dtype_of(size) is not F64:
        return exp(size - math.log(2)), exp(-size - math.log(2))
    shift = 256.0
    # Exact: the difference needs no more bits than `size`.
    large = less(2 * shift, size)
    grown = exp(where(large, size - shift, size))
    # Where size is large, exp(-size) is nothing beside exp(size).
    return where(large, grown * (math.exp(shift) / 2), grown * 0.5), 0.5 / grown


@in_single
def sinh(x: Value) -> Value:
    size = absolute(x)
    grown = expm1(minimum(size, 1.0))
    near = 0.5 * (grown + grown / (grown + 1))
    up, down = _halves(size)
    return where(equal(x, 0), x, copysign(where(less(size, 1.0), near, up - down), x))


@in_single
def cosh(x: Value) -> Value:
    up, down = _halves(absolute(x))
    return up + down


@in_single
def asinh(x: Value) -> Value:
    size = absolute(x)
    large = 2.0**28 if dtype_of(x) is F64 else 2.0**13
    bounded = minimum(size, large)
    squared = bounded * bounded
    near = log1p(bounded + squared / (1 + sqrt(squared + 1)))
    result = where(less(size, large), near, log(size) + math.log(2))
    return where(equal(x, 0), x, copysign(result, x))


@in_single
def acosh(x: Value) -> Value:
    large = 2.0**28 if dtype_of(x) is F64 else 2.0**13
    near = minimum(x, large) - 1
    low = log1p(near + sqrt(near * (near + 2)))
    result = where(less(x, large), low, log(maximum(x, 1.0)) + math.log(2))
    return where(less(x, 1.0), math.nan, result)


@in_single
def atanh(x: Value) -> Value:
    size = absolute(x)
    result = 0.5 * log1p(2 * size / (1 - size))
    return where(equal(x, 0), x, copysign(result, x))
