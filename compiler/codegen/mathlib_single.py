"""The elementary functions on f32.

Exponentials, logarithms and erf work in f32 with fitted polynomials (Chebyshev, 40 digits);
cube root, power and remainder compute in f64 and round once, as do trigonometric functions
(`mathlib_circle.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from .mathbody import MAGIC, Body
from .mathlib_circle import circular_circle
from .mathlib_root import reciprocal_root

_LN2_HIGH = float.fromhex("0x1.62e400p-1")
_LN2_LOW = math.log(2) - _LN2_HIGH

# (exp(r) - 1 - r) / r**2 on |r| <= ln(2)/2, error 1.4e-9
_EXP = (0.00019890988455544567, 0.0013933647862928863, 0.008333310927615311,
        0.041666464944505696, 0.16666666681621095, 0.5000000013463886)
# (log(1+f) - f + f**2/2) / f**3 for 1+f between sqrt(1/2) and sqrt(2), error 3e-8
_LOG = (0.06971611471451178, -0.11479733846637635, 0.1168541992348674, -0.12425687331451106,
        0.1424905764569748, -0.16667802319501254, 0.200007157488921, -0.24999996957950882,
        0.33333331180030046)
# erf(x)/x - 1 in x**2 - _ERF_MIDDLE for x below 1.085 (about the middle rounding costs half as much)
_ERF_MIDDLE = 0.59375
_ERF_NEAR = (-8.979212105006429e-06, 7.291331388420358e-05, -0.0005188296466411778,
             0.0032271213644863056, -0.01702684583428722, 0.07444664970582746,
             -0.26665364271464287, -0.06019863942026534)
# log(erfc(x)) between 1.07 and 4, error 9e-12 of erfc
_ERF_FAR = (7.338626366462842e-07, -3.2429620417138004e-05, 0.000508821985316123,
            -0.004442254925655182, 0.025721843119795362, -0.10911599657246246, -0.6326383581534072,
            -1.1298508086129275, 0.00024294237093336335)
# (tanh(x) - x) / x**3 in x**2 below 0.72, error 8e-9
_TANH = (0.001999714171928431, -0.008044066293173025, 0.02166199492392531,
         -0.053943813406819745, 0.13333226348801377, -0.33333332565285906)


_TANH_END = 9.5
"""From here on tanh is 1 in f32."""


def _clamped(b: Body, x: str, low: float, high: float) -> str:
    """x within bounds; NaN stays."""
    above = b.select(b.compare("ogt", x, b.number(high)), b.number(high), x)
    return b.select(b.compare("olt", above, b.number(low)), b.number(low), above)


def _reduced(b: Body, x: str) -> tuple[str, str]:
    """`(n, r)`: x = n ln 2 + r with |r| <= ln(2)/2; n in a word."""
    n, word = b.whole(x, 1 / math.log(2))
    r = b.fma(n, b.number(-_LN2_HIGH), x)
    return word, b.fma(n, b.number(-_LN2_LOW), r)


def exponential(b: Body, x: str, bits: int) -> str:
    """e**x in vectors of so many bits."""
    n, r = _reduced(b, _clamped(b, x, -104.0, 89.0))
    p = b.fma(b.op("fmul", r, r), b.polynomial(r, _EXP), r)
    return b.scaled(b.op("fadd", p, b.number(1.0)), n, bits)


def _exp(bits: int) -> str:
    b = Body("exp", 32)
    return b.finish(exponential(b, "%x", bits))


def _expm1() -> str:
    b = Body("expm1", 32)
    n, r = _reduced(b, _clamped(b, "%x", -20.0, 89.0))
    p = b.fma(b.op("fmul", r, r), b.polynomial(r, _EXP), r)
    # Half the scale, since 2**128 is not an f32: exp(x)-1 = 2 (t p + t - 1/2) with t = 2**(n-1).
    t = b.power_of_two(b.integer("sub", n, 1))
    y = b.fma(t, p, b.op("fsub", t, b.number(0.5)))
    y = b.op("fadd", y, y)
    small = b.do(f"icmp eq i32 {n}, 0")
    return b.finish(b.call("copysign", b.select(small, p, y), "%x"))


def _logarithm(b: Body, x: str, shift: str | None = None, lost: str | None = None) -> str:
    """log((x + lost) 2**shift) for a normal x and a `lost` that is tiny beside it."""
    # Exponent relative to sqrt(1/2), so that the mantissa lies in [sqrt(1/2), sqrt(2)).
    origin = 0x3F3504F3
    e = b.integer("ashr", b.integer("sub", b.bits_of(x), origin), 23)
    m = b.from_bits(b.integer("sub", b.bits_of(x), b.integer("shl", e, 23)))
    e = b.do(f"sitofp i32 {e} to float")
    if shift is not None:
        e = b.op("fadd", e, shift)
    f = b.op("fsub", m, b.number(1.0))
    z = b.op("fmul", f, f)
    y = b.op("fmul", b.op("fmul", z, f), b.polynomial(f, _LOG))
    y = b.fma(e, b.number(_LN2_LOW), y)
    if lost is not None:
        y = b.op("fadd", y, b.op("fdiv", lost, x))
    return b.fma(e, b.number(_LN2_HIGH), b.op("fadd", f, b.fma(z, b.number(-0.5), y)))


def _log() -> str:
    b = Body("log", 32)
    small = b.compare("olt", "%x", b.number(2.0**-126))
    x = b.select(small, b.op("fmul", "%x", b.number(2.0**25)), "%x")
    y = _logarithm(b, x, shift=b.select(small, b.number(-25.0), b.number(0.0)))
    y = b.select(b.compare("oeq", "%x", b.number(math.inf)), "%x", y)
    y = b.select(b.compare("oeq", "%x", b.number(0.0)), b.number(-math.inf), y)
    return b.finish(b.select(b.compare("ult", "%x", b.number(0.0)), b.number(math.nan), y))


def _log1p() -> str:
    b = Body("log1p", 32)
    u = b.op("fadd", "%x", b.number(1.0))
    # What rounding 1 + x lost; of the two subtrahends the larger goes first.
    lost_small = b.op("fsub", "%x", b.op("fsub", u, b.number(1.0)))
    lost_large = b.op("fsub", b.number(1.0), b.op("fsub", u, "%x"))
    lost = b.select(b.compare("ogt", "%x", b.number(1.0)), lost_large, lost_small)
    y = _logarithm(b, u, lost=lost)
    # x itself where 1 + x is 1 (keeps subnormals and -0), and +inf.
    same = b.do(f"or i1 {b.compare('oeq', u, b.number(1.0))}, "
                f"{b.compare('oeq', '%x', b.number(math.inf))}")
    y = b.select(same, "%x", y)
    y = b.select(b.compare("oeq", "%x", b.number(-1.0)), b.number(-math.inf), y)
    return b.finish(b.select(b.compare("ult", "%x", b.number(-1.0)), b.number(math.nan), y))


def _tanh() -> str:
    """A polynomial near 0; else 1 - 2 / (exp(2a) + 1), where exp(2a) is 2**n (1 + p)."""
    b = Body("tanh", 32)
    a = b.call("fabs", "%x")
    z = b.op("fmul", a, a)
    near = b.fma(b.op("fmul", a, z), b.halves(z, b.op("fmul", z, z), _TANH), a)
    capped = b.select(b.compare("ogt", a, b.number(_TANH_END)), b.number(_TANH_END), a)
    shifted = b.fma(capped, b.number(2 / math.log(2)), b.number(MAGIC))
    n = b.op("fsub", shifted, b.number(MAGIC))
    r = b.fma(n, b.number(-_LN2_HIGH / 2), capped)
    r = b.fma(n, b.number(-_LN2_LOW / 2), r)
    square = b.op("fmul", r, r)
    # In r the polynomial of 2r: its coefficients times powers of two.
    scaled = [c * 2.0 ** (len(_EXP) + 1 - k) for k, c in enumerate((*_EXP, 1.0))]
    p = b.fma(square, b.halves(r, square, scaled[:-1]), b.op("fmul", r, b.number(scaled[-1])))
    power = b.from_bits(b.integer("add", b.integer("shl", b.bits_of(shifted), 23), 0x3F800000))
    total = b.fma(p, power, b.op("fadd", power, b.number(1.0)))
    far = b.op("fsub", b.number(1.0), b.op("fdiv", b.number(2.0), total))
    y = b.select(b.compare("ult", a, b.number(0.7)), near, far)
    return b.finish(b.call("copysign", y, "%x"))


def _logistic(bits: int) -> str:
    """e / (1 + e) with e = exp(-|x|) as a sum of two numbers, or 1 / (1 + e)."""
    b = Body("logistic", 32)
    x = _clamped(b, b.do(f"fneg float {b.call('fabs', '%x')}"), -104.0, 0.0)
    n, word = b.whole(b.op("fmul", x, b.number(1 / math.log(2))))
    above = b.fma(n, b.number(-_LN2_HIGH), x)
    r = b.fma(n, b.number(-_LN2_LOW), above)
    lost = b.fma(n, b.number(-_LN2_LOW), b.op("fsub", above, r))
    high = b.op("fadd", r, b.number(1.0))
    rest = b.op("fsub", r, b.op("fsub", high, b.number(1.0)))
    tail = b.op("fadd", rest, b.fma(b.op("fmul", r, r), b.polynomial(r, _EXP), lost))
    linear, high = high, b.op("fadd", high, tail)
    low = b.op("fsub", tail, b.op("fsub", high, linear))
    high, low = (b.scaled(v, word, bits) for v in (high, low))
    total = b.op("fadd", high, b.number(1.0))
    excess = b.op("fadd", b.op("fsub", high, b.op("fsub", total, b.number(1.0))), low)
    positive = b.compare("oge", "%x", b.number(0.0))
    top = b.select(positive, b.number(1.0), high)
    inverse = b.op("fdiv", b.number(1.0), total)
    y = b.op("fmul", top, inverse)
    missing = b.fma(b.do(f"fneg float {y}"), total, top)
    missing = b.op("fadd", missing, b.select(positive, b.number(0.0), low))
    missing = b.fma(b.do(f"fneg float {y}"), excess, missing)
    return b.finish(b.fma(missing, inverse, y))


def _erf() -> str:
    b = Body("erf", 32)
    a = b.call("fabs", "%x")
    z = b.fma(a, a, b.number(-_ERF_MIDDLE))
    near = b.fma(a, b.polynomial(z, _ERF_NEAR), a)
    capped = b.select(b.compare("ogt", a, b.number(4.0)), b.number(4.0), a)
    far = b.op("fsub", b.number(1.0), b.call("tfn.exp", b.polynomial(capped, _ERF_FAR)))
    y = b.select(b.compare("ult", a, b.number(1.085)), near, far)
    return b.finish(b.call("copysign", y, "%x"))


def _through_double(name: str, arguments: int) -> Callable[[], str]:
    def source() -> str:
        b = Body(name, 32, arguments)
        wide = [b.do(f"fpext float {a} to double") for a in ("%x", "%y")[:arguments]]
        given = ", ".join(f"double {w}" for w in wide)
        inner = "tfn.power.f64" if name == "pow" else f"tfn.{name}.f64"
        return b.finish_narrow(b.do(f"call double @{inner}({given})"))

    return source


SINGLE: dict[str, Callable[[], str]] = {
    "tfn.expm1.f32": _expm1, "tfn.log.f32": _log, "tfn.log1p.f32": _log1p,
    "tfn.rsqrt.f32": lambda: reciprocal_root(32), "tfn.tanh.f32": _tanh,
    "tfn.erf.f32": _erf,
    **{f"tfn.{name}.circle.f32": partial(circular_circle, name) for name in ("sin", "cos", "tan")},
    **{f"tfn.{name}.f32": _through_double(name, count)
       for name, count in (("cbrt", 1), ("atan2", 2), ("pow", 2), ("fmod", 2))},
}
"""Symbol -> source of the f32 functions."""

SINGLE_BY_WIDTH: dict[str, Callable[[int], str]] = {"tfn.exp.f32": _exp, "tfn.logistic.f32": _logistic}
"""Symbol -> source for vectors of so many bits."""
