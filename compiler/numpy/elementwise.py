"""Elementwise functions: arithmetic, one-op functions, comparisons, logic, `where`, `clip`.

Most are rows of a table: the NumPy name and the op. Operands are broadcast and promoted first
(`promote.operands`); functions of real analysis turn integers into f32.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..errors import OpError, user_location
from ..ir.dtypes import F32, F64, I1, DType
from ..trace.core import Array, bind
from . import direct
from .promote import (
    ArrayLike,
    Value,
    asarray,
    broadcast_shapes,
    broadcast_to,
    convert,
    dtype_argument,
    dtype_of,
    float_type,
    floating,
    is_concrete,
    operands,
    result_type,
    to_dtype,
    weak_kind,
)

Unary = Callable[[ArrayLike], Value]
Binary = Callable[[ArrayLike, ArrayLike], Value]


def _named(function, name: str, doc: str):
    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return function


def _analytic(name: str, op: str, doc: str) -> Unary:
    """A unary function of inexact numbers; integers become f32."""
    at_once = direct.unary(op, kinds="f")

    def function(x):
        result = at_once(x)
        return bind(op, floating(x)) if result is None else result

    return _named(function, name, doc)


def _unary(name: str, op: str, doc: str, kinds: str) -> Unary:
    """A unary function that keeps the element type."""
    at_once = direct.unary(op, kinds)

    def function(x):
        result = at_once(x)
        return bind(op, asarray(x)) if result is None else result

    return _named(function, name, doc)


def _rounding(name: str, op: str, doc: str) -> Unary:
    """A unary function that leaves integers as they are."""

    def function(x):
        x = asarray(x)
        if dtype_of(x).kind == "complex":
            return bind("stablehlo.complex", function(real(x)), function(imag(x)))
        return bind(op, x) if dtype_of(x).is_inexact else x

    return _named(function, name, doc)


def _binary(name: str, op: str, doc: str, kinds: str = "fiu") -> Binary:
    at_once = direct.binary(direct.function_of(op), kinds)

    def function(x, y):
        result = at_once(x, y)
        return bind(op, *operands(x, y)) if result is None else result

    return _named(function, name, doc)


def _comparison(name: str, direction: str, doc: str) -> Binary:
    at_once = direct.comparison(direction)

    def function(x, y):
        result = at_once(x, y)
        if result is not None:
            return result
        return bind("stablehlo.compare", *operands(x, y), comparison_direction=direction)

    return _named(function, name, doc)


_real_exp = direct.unary("stablehlo.exponential", "f")


def exp(x: ArrayLike) -> Value:
    """e**x."""
    at_once = _real_exp(x)
    if at_once is not None:
        return at_once
    x = floating(x)
    result = bind("stablehlo.exponential", x)
    if dtype_of(x).kind != "complex":
        return result
    # Of two infinite parts the op makes NaN; C99, and so the array API, keeps what is known.
    a, b = real(x), imag(x)
    left = less(a, 0)
    known = bind("stablehlo.complex", where(left, 0.0, a), where(left, 0.0, a - a))
    return where(logical_and(isinf(a), isinf(b)), known, result)


expm1 = _analytic("expm1", "stablehlo.exponential_minus_one", "e**x - 1, accurate near 0.")
log = _analytic("log", "stablehlo.log", "Natural logarithm.")
log1p = _analytic("log1p", "stablehlo.log_plus_one", "log(1 + x), accurate near 0.")
sqrt = _analytic("sqrt", "stablehlo.sqrt", "Square root; NaN below zero.")
rsqrt = _analytic("rsqrt", "stablehlo.rsqrt", "1 / sqrt(x).")
cbrt = _analytic("cbrt", "stablehlo.cbrt", "Cube root.")
sin = _analytic("sin", "stablehlo.sine", "Sine of x in radians.")
cos = _analytic("cos", "stablehlo.cosine", "Cosine of x in radians.")
tan = _analytic("tan", "stablehlo.tan", "Tangent of x in radians.")
tanh = _analytic("tanh", "stablehlo.tanh", "Hyperbolic tangent.")
logistic = _analytic("logistic", "stablehlo.logistic", "1 / (1 + e**-x).")
erf = _analytic("erf", "chlo.erf", "Error function.")
negative = _unary("negative", "stablehlo.negate", "-x.", "fiu")
invert = _unary("invert", "stablehlo.not", "Bitwise (boolean: logical) complement.", "iub")
floor = _rounding("floor", "stablehlo.floor", "Largest integer not above x.")
ceil = _rounding("ceil", "stablehlo.ceil", "Smallest integer not below x.")
rint = _rounding("rint", "stablehlo.round_nearest_even", "Nearest integer, ties to even.")
add = _binary("add", "stablehlo.add", "x + y; booleans: or.")
multiply = _binary("multiply", "stablehlo.multiply", "x * y; booleans: and.")
subtract = _binary("subtract", "stablehlo.subtract", "x - y.")
maximum = _binary("maximum", "stablehlo.maximum", "The larger of x and y; NaN wins.")
minimum = _binary("minimum", "stablehlo.minimum", "The smaller of x and y; NaN wins.")
bitwise_and = _binary("bitwise_and", "stablehlo.and", "Bitwise and.", "iub")
bitwise_or = _binary("bitwise_or", "stablehlo.or", "Bitwise or.", "iub")
bitwise_xor = _binary("bitwise_xor", "stablehlo.xor", "Bitwise exclusive or.", "iub")
left_shift = _binary("left_shift", "stablehlo.shift_left", "x * 2**y for integers.", "")
equal = _comparison("equal", "EQ", "x == y.")
not_equal = _comparison("not_equal", "NE", "x != y.")
less = _comparison("less", "LT", "x < y.")
less_equal = _comparison("less_equal", "LE", "x <= y.")
greater = _comparison("greater", "GT", "x > y.")
greater_equal = _comparison("greater_equal", "GE", "x >= y.")
bitwise_not = bitwise_invert = invert
bitwise_left_shift = left_shift


def positive(x: ArrayLike) -> Value:
    """`x`."""
    return asarray(x)


_magnitude = _unary("absolute", "stablehlo.abs", "Magnitude of x.", "fiu")


def absolute(x: ArrayLike) -> Value:
    """Magnitude of `x`."""
    x = asarray(x)
    return x if dtype_of(x).kind == "bool" else _magnitude(x)


abs = fabs = absolute


def sign(x: ArrayLike) -> Value:
    """-1, 0 (never -0) or 1; NaN for NaN; x / |x| of a complex x."""
    x = asarray(x)
    if dtype_of(x).kind == "bool":
        return x
    result = bind("stablehlo.sign", x)
    return add(result, 0) if dtype_of(x).is_float else result


def right_shift(x: ArrayLike, y: ArrayLike) -> Value:
    """`x` shifted right by `y` bits: arithmetic for signed, logical for unsigned integers."""
    a, b = operands(x, y)
    kind = "logical" if dtype_of(a).kind == "uint" else "arithmetic"
    return bind(f"stablehlo.shift_right_{kind}", a, b)


bitwise_right_shift = right_shift


def square(x: ArrayLike) -> Value:
    """x * x."""
    return multiply(x, x)


def reciprocal(x: ArrayLike) -> Value:
    """1 / x."""
    return divide(1, x)


_quotient = direct.binary(np.true_divide, "f")


def divide(x: ArrayLike, y: ArrayLike) -> Value:
    """x / y as an inexact number: integers are divided in f32."""
    result = _quotient(x, y)
    if result is not None:
        return result
    return bind("stablehlo.divide", *operands(x, y, dtype=float_type(result_type(x, y))))


true_divide = divide


def divide_no_nan(x: ArrayLike, y: ArrayLike) -> Value:
    """x / y, and 0 where y is 0."""
    zero = equal(y, 0)
    return where(zero, 0, divide(x, where(zero, 1, y)))


def floor_divide(x: ArrayLike, y: ArrayLike) -> Value:
    """The largest integer not above x / y, in the operands' type."""
    a, b = _numbers(x, y)
    dtype = dtype_of(a)
    if dtype.is_inexact:
        rest = mod(a, b)
        return _float_quotient(a, b, rest)
    quotient = bind("stablehlo.divide", a, b)
    if dtype.kind == "uint":
        return quotient
    rest = bind("stablehlo.remainder", a, b)
    adjust = logical_and(not_equal(rest, 0), not_equal(sign(a), sign(b)))
    return subtract(quotient, convert(adjust, dtype))


def _float_quotient(a: Value, b: Value, rest: Value) -> Value:
    """floor(a / b) given `rest` = mod(a, b): exact although a / b is rounded."""
    quotient = bind("stablehlo.divide", bind("stablehlo.subtract", a, rest), b)
    ratio = divide(a, b)
    # A zero has the sign of the ratio.
    whole = where(isinf(b), where(equal(rest, a), 0, -1), rint(quotient))
    return where(isfinite(ratio), where(equal(whole, 0), multiply(ratio, 0), whole), ratio)


def mod(x: ArrayLike, y: ArrayLike) -> Value:
    """The remainder of floor division: it has the sign of `y`."""
    a, b = _numbers(x, y)
    rest = bind("stablehlo.remainder", a, b)
    if dtype_of(a).kind == "uint":
        return rest
    adjust = logical_and(not_equal(rest, 0), not_equal(less(rest, 0), less(b, 0)))
    rest = where(adjust, add(rest, b), rest)
    # A zero has the sign of the divisor: r + 0 is never -0, and -(0 - r) never +0.
    return rest if dtype_of(a).is_integer else where(
        less(b, 0), negative(subtract(0, rest)), add(rest, 0))


remainder = mod


def fmod(x: ArrayLike, y: ArrayLike) -> Value:
    """The remainder of truncated division: it has the sign of `x`."""
    return bind("stablehlo.remainder", *_numbers(x, y))


def divmod(x: ArrayLike, y: ArrayLike) -> tuple[Value, Value]:
    """`(floor_divide(x, y), mod(x, y))`."""
    return floor_divide(x, y), mod(x, y)


def _numbers(x, y) -> list[Value]:
    """Operands in a common type with arithmetic: booleans become i32."""
    dtype = result_type(x, y, 0)
    return operands(x, y, dtype=dtype)


_MULTIPLIED_POWERS = 16


def power(x: ArrayLike, y: ArrayLike) -> Value:
    """x ** y. A small Python int as exponent is multiplied out."""
    if isinstance(y, int) and not isinstance(y, bool) and weak_kind(x) is None:
        base = to_dtype(x, result_type(x, y))
        if 0 <= y <= _MULTIPLIED_POWERS or (y < 0 and dtype_of(base).is_inexact
                                            and -y <= _MULTIPLIED_POWERS):
            return _integer_power(base, y)
    return bind("stablehlo.power", *_numbers(x, y))


def _integer_power(x: Value, n: int) -> Value:
    if n < 0:
        return divide(1, _integer_power(x, -n))
    result, square_ = None, x
    while n:
        if n & 1:
            result = square_ if result is None else bind("stablehlo.multiply", result, square_)
        n >>= 1
        if n:
            square_ = bind("stablehlo.multiply", square_, square_)
    return broadcast_to(to_dtype(1, dtype_of(x)), x.shape) if result is None else result


pow = power


def float_power(x: ArrayLike, y: ArrayLike) -> Value:
    """x ** y in inexact numbers: of integers in the default float."""
    dtype = float_type(result_type(x, y))
    return bind("stablehlo.power", *operands(x, y, dtype=dtype))


def heaviside(x: ArrayLike, y: ArrayLike) -> Value:
    """0 below zero, `y` at zero, 1 above."""
    a, b = operands(x, y, dtype=result_type(x, y, 0.0))
    return where(equal(a, 0), b, where(isnan(a), a, convert(greater(a, 0), dtype_of(a))))


def fmax(x: ArrayLike, y: ArrayLike) -> Value:
    """The larger of x and y, ignoring a NaN."""
    a, b = operands(x, y)
    return where(logical_or(greater_equal(a, b), isnan(b)), a, b)


def fmin(x: ArrayLike, y: ArrayLike) -> Value:
    """The smaller of x and y, ignoring a NaN."""
    a, b = operands(x, y)
    return where(logical_or(less_equal(a, b), isnan(b)), a, b)


def copysign(x: ArrayLike, y: ArrayLike) -> Value:
    """The magnitude of `x` with the sign of `y`."""
    a, b = operands(x, y, dtype=result_type(x, y, 0.0))
    return where(signbit(b), -absolute(a), absolute(a))


def signbit(x: ArrayLike) -> Value:
    """True where the sign bit is set (also for -0.0)."""
    x = asarray(x)
    dtype = dtype_of(x)
    if not dtype.is_float:
        return less(x, 0)
    bits = dtype_argument(f"int{dtype.bits}")
    return less(bind("stablehlo.bitcast_convert", x, dtype=bits), 0)


def round(x: ArrayLike, decimals: int = 0) -> Value:
    """`x` rounded to `decimals`, ties to even; integers keep their type."""
    x = asarray(x)
    dtype = dtype_of(x)
    if decimals == 0:
        return rint(x)
    scale = 10.0 ** decimals
    if not dtype.is_inexact:
        return x if decimals > 0 else convert(rint(convert(x, F64) * scale) / scale, dtype)
    if dtype.bits == 16:
        return convert(round(convert(x, F32), decimals), dtype)
    return rint(x * scale) / scale


around = round


def trunc(x: ArrayLike) -> Value:
    """`x` without its fraction."""
    x = asarray(x)
    return where(less(x, 0), ceil(x), floor(x)) if dtype_of(x).is_inexact else x


fix = trunc


# -- logic ----------------------------------------------------------------------------------------

def truth(x: ArrayLike) -> Value:
    """`x` as booleans: x != 0."""
    return convert(asarray(x), I1)


def _logical(name: str, op: str, doc: str) -> Binary:
    def function(x, y):
        a, b = truth(x), truth(y)
        return bind(op, *operands(a, b))

    return _named(function, name, doc)


logical_and = _logical("logical_and", "stablehlo.and", "x and y as booleans.")
logical_or = _logical("logical_or", "stablehlo.or", "x or y as booleans.")
logical_xor = _logical("logical_xor", "stablehlo.xor", "Exactly one of x and y.")


def logical_not(x: ArrayLike) -> Value:
    """not x."""
    return bind("stablehlo.not", truth(x))


def isnan(x: ArrayLike) -> Value:
    """True where x is not a number."""
    x = asarray(x)
    return bind("stablehlo.compare", x, x, comparison_direction="NE")


def isfinite(x: ArrayLike) -> Value:
    """True where x is neither infinite nor NaN."""
    x = asarray(x)
    if not dtype_of(x).is_inexact:
        return broadcast_to(True, x.shape)
    if dtype_of(x).kind == "complex":
        return logical_and(isfinite(real(x)), isfinite(imag(x)))
    return bind("stablehlo.is_finite", x)


def isinf(x: ArrayLike) -> Value:
    """True where x is plus or minus infinity."""
    x = asarray(x)
    if not dtype_of(x).is_inexact:
        return broadcast_to(False, x.shape)
    if dtype_of(x).kind == "complex":
        return logical_or(isinf(real(x)), isinf(imag(x)))
    return equal(absolute(x), math.inf)


def isposinf(x: ArrayLike) -> Value:
    """True where x is plus infinity."""
    return logical_and(isinf(x), greater(x, 0))


def isneginf(x: ArrayLike) -> Value:
    """True where x is minus infinity."""
    return logical_and(isinf(x), less(x, 0))


def isclose(x: ArrayLike, y: ArrayLike, rtol: float = 1e-5, atol: float = 1e-8,
            equal_nan: bool = False) -> Value:
    """|x - y| <= atol + rtol * |y|."""
    a, b = operands(x, y, dtype=result_type(x, y, 0.0))
    near = less_equal(absolute(a - b), atol + rtol * absolute(b))
    both = logical_and(isfinite(a), isfinite(b))
    result = where(both, near, equal(a, b))
    return logical_or(result, logical_and(isnan(a), isnan(b))) if equal_nan else result


def where(condition: ArrayLike, x: ArrayLike | None = None, y: ArrayLike | None = None, *,
          size: int | None = None, fill_value: int = 0):
    """`x` where `condition`, else `y`. With one argument: `nonzero(condition, size, fill_value)`."""
    if x is None and y is None:
        from .sorting import nonzero

        return nonzero(condition, size, fill_value)
    if x is None or y is None:
        raise OpError("where takes one or three arguments", user_location())
    result = direct.where(condition, x, y)
    if result is not None:
        return result
    condition = truth(condition)
    dtype = result_type(x, y)
    on_true, on_false = to_dtype(x, dtype), to_dtype(y, dtype)
    shape = broadcast_shapes(condition.shape, on_true.shape, on_false.shape)
    if condition.shape:
        condition = broadcast_to(condition, shape)
    return bind("stablehlo.select", condition, broadcast_to(on_true, shape),
                broadcast_to(on_false, shape))


def clip(x: ArrayLike, min: ArrayLike | None = None, max: ArrayLike | None = None) -> Value:
    """`x` limited to [min, max]; a bound may be None or an array."""
    bounds = [b for b in (min, max) if b is not None]
    dtype = result_type(x, *bounds)
    x = to_dtype(x, dtype)
    low, high = (None if b is None else to_dtype(b, dtype) for b in (min, max))
    if low is not None and high is not None and not low.shape and not high.shape:
        return bind("stablehlo.clamp", low, x, high)
    x = x if low is None else maximum(x, low)
    return x if high is None else minimum(x, high)


def nan_to_num(x: ArrayLike, copy: bool = True, nan: float = 0.0, posinf: float | None = None,
               neginf: float | None = None) -> Value:
    """`x` with NaN replaced by `nan` and infinities by the largest finite numbers."""
    x = asarray(x)
    dtype = dtype_of(x)
    if not dtype.is_inexact:
        return x
    largest = largest_of(dtype)
    x = where(isnan(x), nan, x)
    x = where(equal(x, math.inf), largest if posinf is None else posinf, x)
    return where(equal(x, -math.inf), -largest if neginf is None else neginf, x)


def largest_of(dtype: DType) -> float:
    """The largest finite number of a float type."""
    import ml_dtypes

    return float(ml_dtypes.finfo(dtype.numpy).max)


def real(x: ArrayLike) -> Value:
    """The real part."""
    x = asarray(x)
    return bind("stablehlo.real", x) if dtype_of(x).kind == "complex" else x


def imag(x: ArrayLike) -> Value:
    """The imaginary part."""
    x = asarray(x)
    if dtype_of(x).kind == "complex":
        return bind("stablehlo.imag", x)
    return broadcast_to(Array(np.zeros((), x.dtype)), x.shape)


def conjugate(x: ArrayLike) -> Value:
    """The complex conjugate."""
    x = asarray(x)
    if dtype_of(x).kind != "complex":
        return x
    return bind("stablehlo.complex", real(x), -imag(x))


conj = conjugate


def isreal(x: ArrayLike) -> Value:
    """True where the imaginary part is 0."""
    return equal(imag(x), 0)


def iscomplex(x: ArrayLike) -> Value:
    """True where the imaginary part is not 0."""
    return not_equal(imag(x), 0)


def view(x: ArrayLike, dtype) -> Value:
    """The bits of `x` read as another element type; of another width, the last dim shrinks or grows."""
    x, target = asarray(x), dtype_argument(dtype)
    old, new = dtype_of(x).itemsize, target.itemsize
    if old == new:
        return bind("stablehlo.bitcast_convert", x, dtype=target)
    if not x.shape or (isinstance(x.shape[-1], int) and x.shape[-1] * old % new):
        raise OpError(f"view as {target} needs a last dim of a multiple of {new} bytes, got {x.shape}"
                      f" of {old} bytes each", user_location())
    if is_concrete(x):
        return Array(np.ascontiguousarray(x._data).view(target.numpy))
    if old < new:
        x = bind("stablehlo.reshape", x, shape=(*x.shape[:-1], x.shape[-1] * old // new, new // old))
        return bind("stablehlo.bitcast_convert", x, dtype=target)
    x = bind("stablehlo.bitcast_convert", x, dtype=target)
    return bind("stablehlo.reshape", x, shape=(*x.shape[:-2], x.shape[-2] * x.shape[-1]))
