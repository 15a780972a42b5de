"""Elementary functions that are compositions of ops: inverse and hyperbolic functions, logarithms
of sums, the inverse error function.

Each is written to be accurate at small arguments and not to overflow at large ones.
"""

from __future__ import annotations

import math

from ..ir.dtypes import BF16, F16, F32, F64
from ..trace.core import bind
from .chebyshev import erfc
from .elementwise import (
    absolute,
    copysign,
    equal,
    erf,
    exp,
    floor_divide,
    fmod,
    imag,
    isinf,
    isnan,
    less,
    log,
    log1p,
    logical_or,
    maximum,
    minimum,
    multiply,
    power,
    real,
    sin,
    sqrt,
    where,
)
from .promote import (
    ArrayLike,
    Value,
    asarray,
    convert,
    dtype_argument,
    dtype_of,
    floating,
    is_concrete,
    operands,
    result_type,
    to_dtype,
)


def exp2(x: ArrayLike) -> Value:
    """2**x."""
    return power(2.0, floating(x))


def log2(x: ArrayLike) -> Value:
    """Base-2 logarithm."""
    return log(x) * (1 / math.log(2))


def log10(x: ArrayLike) -> Value:
    """Base-10 logarithm."""
    return log(x) * (1 / math.log(10))


def arctan2(y: ArrayLike, x: ArrayLike) -> Value:
    """The angle of the point (x, y) in radians, in [-pi, pi]."""
    dtype = result_type(x, y, 0.0)
    return bind("stablehlo.atan2", *operands(y, x, dtype=dtype))


def arctan(x: ArrayLike) -> Value:
    """Inverse tangent in radians."""
    return bind("chlo.atan", floating(x))


def arcsin(x: ArrayLike) -> Value:
    """Inverse sine in radians; NaN for reals outside [-1, 1]."""
    return bind("chlo.asin", floating(x))


def arccos(x: ArrayLike) -> Value:
    """Inverse cosine in radians; NaN for reals outside [-1, 1]."""
    return bind("chlo.acos", floating(x))


def sinh(x: ArrayLike) -> Value:
    """Hyperbolic sine."""
    return bind("chlo.sinh", floating(x))


def cosh(x: ArrayLike) -> Value:
    """Hyperbolic cosine."""
    return bind("chlo.cosh", floating(x))


def arcsinh(x: ArrayLike) -> Value:
    """Inverse hyperbolic sine."""
    return bind("chlo.asinh", floating(x))


def arccosh(x: ArrayLike) -> Value:
    """Inverse hyperbolic cosine; NaN for reals below 1."""
    return bind("chlo.acosh", floating(x))


def arctanh(x: ArrayLike) -> Value:
    """Inverse hyperbolic tangent; NaN for reals outside [-1, 1]."""
    return bind("chlo.atanh", floating(x))


acos, asin, atan, atan2 = arccos, arcsin, arctan, arctan2
acosh, asinh, atanh = arccosh, arcsinh, arctanh


# Giles, "Approximating the erfinv function" (2010): f32 coefficients, central and tail.
_ERFINV_CENTRAL = (2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087,
                   -0.00125372503, -0.00417768164, 0.246640727, 1.50140941)
_ERFINV_TAIL = (-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773,
                -0.0076224613, 0.00943887047, 1.00167406, 2.83297682)


def erf_inv(x: ArrayLike) -> Value:
    """Inverse error function: +-inf at +-1, NaN outside [-1, 1]."""
    x = floating(x)
    dtype = dtype_of(x)
    if dtype in (F16, BF16):
        return convert(erf_inv(convert(x, F32)), dtype)
    size = absolute(x)
    rest = 1 - size
    # 1 - x**2 by factors where the square would round away what it differs from 1.
    w = -where(less(size, 0.5), log1p(-(x * x)), log(rest * (1 + size)))
    central = less(w, 5.0)
    at = where(central, w - 2.5, sqrt(maximum(w, 5.0)) - 3.0)
    p = where(central, _ERFINV_CENTRAL[0], _ERFINV_TAIL[0])
    for c, t in zip(_ERFINV_CENTRAL[1:], _ERFINV_TAIL[1:], strict=True):
        p = where(central, c, t) + p * at
    edge = equal(size, 1)
    result = where(edge, where(less(x, 0), -math.inf, math.inf), p * x)
    if dtype is F64:
        result = where(less(size, 1), _erf_inv_refined(x, size, rest, p), result)
    return result


def _erf_inv_refined(x: Value, size: Value, rest: Value, p: Value) -> Value:
    """f64: Newton's step squares the error of the polynomials, 2**-24 or, in the tail, more."""
    scale = 2 / math.sqrt(math.pi)
    inside = less(size, 0.5)
    near = where(inside, p * x, 0.0)
    for _ in range(2):
        near = near - (erf(near) - where(inside, x, 0.0)) / (exp(-near * near) * scale)
    # Beyond: on log(erfc(y)), nearly a parabola; far out it starts from the asymptotic series.
    rest = where(logical_or(inside, equal(rest, 0)), 0.5, rest)
    size_log = -log(rest)
    start = sqrt(size_log - 0.5 * log(math.pi * size_log))
    y = where(less(16.0, size_log), start, where(less(size, 1), p * size, 0.5))
    for _ in range(3):
        left = erfc(y)
        y = y + log(left / rest) * left / (exp(-y * y) * scale)
    return where(inside, near, copysign(y, x))


erfinv = erf_inv


def logaddexp(x: ArrayLike, y: ArrayLike) -> Value:
    """log(e**x + e**y) without overflow."""
    a, b = operands(x, y, dtype=result_type(x, y, 0.0))
    difference = a - b
    # The difference is NaN for equal infinities: their sum is right.
    return where(isnan(difference), a + b, maximum(a, b) + log1p(exp(-absolute(difference))))


def logaddexp2(x: ArrayLike, y: ArrayLike) -> Value:
    """log2(2**x + 2**y) without overflow."""
    log_2 = math.log(2)
    return logaddexp(multiply(x, log_2), multiply(y, log_2)) * (1 / log_2)


def hypot(x: ArrayLike, y: ArrayLike) -> Value:
    """sqrt(x*x + y*y) without overflow."""
    a, b = (absolute(v) for v in operands(x, y, dtype=result_type(x, y, 0.0)))
    large, small = maximum(a, b), minimum(a, b)
    ratio = small / where(equal(large, 0), 1, large)
    result = large * sqrt(1 + ratio * ratio)
    return where(logical_or(isinf(a), isinf(b)), math.inf, result)


def sinc(x: ArrayLike) -> Value:
    """sin(pi x) / (pi x), 1 at 0."""
    x = floating(x) * math.pi
    zero = equal(x, 0)
    return where(zero, 1, sin(x) / where(zero, 1, x))


def deg2rad(x: ArrayLike) -> Value:
    """Degrees to radians."""
    return floating(x) * (math.pi / 180)


def rad2deg(x: ArrayLike) -> Value:
    """Radians to degrees."""
    return floating(x) * (180 / math.pi)


radians, degrees = deg2rad, rad2deg


def nextafter(x: ArrayLike, y: ArrayLike) -> Value:
    """The float next to `x` in the direction of `y`."""
    a, b = operands(x, y, dtype=result_type(x, y, 0.0))
    return bind("chlo.next_after", a, b)


def next_after(a: Value, b: Value) -> Value:
    """The decomposition of `chlo.next_after`."""
    dtype = dtype_of(a)
    bits = dtype_argument(f"int{dtype.bits}")
    pattern = bind("stablehlo.bitcast_convert", a, dtype=bits)
    # Away from zero the bit pattern grows; from zero the step is to the smallest subnormal.
    moved = pattern + where(equal(less(a, b), less(a, 0)), -1, 1)
    moved = where(equal(a, 0), where(less(b, 0), to_dtype(_minus_smallest(dtype), bits), 1), moved)
    result = bind("stablehlo.bitcast_convert", convert(moved, bits), dtype=dtype)
    result = where(equal(a, b), b, result)
    return where(logical_or(isnan(a), isnan(b)), math.nan, result)


def _minus_smallest(dtype) -> int:
    """The bit pattern of the negative subnormal nearest to zero, as a signed integer."""
    return 1 - 2 ** (dtype.bits - 1)


def angle(x: ArrayLike, deg: bool = False) -> Value:
    """The angle of complex numbers in radians (or degrees)."""
    x = asarray(x)
    result = arctan2(imag(x), real(x))
    return rad2deg(result) if deg else result


def gcd(x: ArrayLike, y: ArrayLike) -> Value:
    """Greatest common divisor of integers."""
    a, b = (absolute(v) for v in operands(x, y))
    bits = dtype_of(a).bits
    # Euclid's algorithm needs at most log(2**bits) / log(golden ratio) steps.
    for _ in range(math.ceil(bits * 1.4405)):
        done = equal(b, 0)
        if is_concrete(done) and done._data.all():
            break
        a, b = where(done, a, b), where(done, 0, fmod(a, where(done, 1, b)))
    return a


def lcm(x: ArrayLike, y: ArrayLike) -> Value:
    """Least common multiple of integers."""
    a, b = (absolute(v) for v in operands(x, y))
    divisor = gcd(a, b)
    return where(equal(divisor, 0), 0, floor_divide(a, where(equal(divisor, 0), 1, divisor)) * b)
