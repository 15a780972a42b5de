"""gelu and its derivative on f32: the form with erf by the tail of the normal distribution, that with
tanh by one exponential.

P(a), the probability of more than a >= 0, is 2**D(a) / 2; one polynomial D does below 4 sqrt(2).
Beyond, 1 + erf(-a / sqrt(2)) is 0 in f32, and so is P here. Both functions are at least as accurate as
what they stand for: 1.9 ULP where 1 + erf does not cancel, and 2e-8 |x| in the tail.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from .mathbody import MAGIC, Body
from .mathlib_single import exponential

# u = x (_LINE + _CUBE x**2) of the form with tanh
_LINE = math.sqrt(2 / math.pi)
_CUBE = 0.044715 * _LINE

_END = 4 * math.sqrt(2)
# D(a) / a, error 1e-9 of P below 2 and 4e-9 beyond; the last three are what they are in f32, since
# rounding them would cost more.
_TAIL = (6.538757478180469e-07, -1.1313613619210184e-05, 8.373570003936516e-05,
         -0.00030710560564890777, 4.8163041366727914e-05, 0.006903832458895378,
         -0.052422717213630676, -0.4592239558696747, -1.1511040925979614)
# (2**r - 1) / r on |r| <= 1/2, error 2.6e-9
_EXP2 = (0.00015594562644261016, 0.001340664252779837, 0.009617693364230032, 0.05550310555297336,
         0.2402265277996372, 0.6931472149650342)


def _power(b: Body, exponent: str, scale: float) -> str:
    """`scale` 2**exponent, where that is a normal number."""
    shifted = b.op("fadd", exponent, b.number(MAGIC))
    n = b.op("fsub", shifted, b.number(MAGIC))
    r = b.op("fsub", exponent, n)
    p = b.polynomial(r, [scale * c for c in (*_EXP2, 1.0)])
    return b.from_bits(b.integer("add", b.bits_of(p), b.integer("shl", b.bits_of(shifted), 23)))


def _tail(b: Body, a: str) -> str:
    """P(a)."""
    z = b.op("fmul", a, a)
    rest = b.op("fmul", z, b.halves(a, z, _TAIL[:-1]))
    p = _power(b, b.fma(a, b.number(_TAIL[-1]), rest), 0.5)
    return b.select(b.compare("ogt", a, b.number(_END)), b.number(0.0), p)


def _gelu() -> str:
    """max(x, 0) - |x| P(|x|)."""
    b = Body("gelu", 32)
    # Not +inf times 0, but -inf times 0, which is NaN.
    below = b.select(b.compare("ogt", "%x", b.number(_END)), b.number(_END), "%x")
    a = b.call("fabs", below)
    # -0 for negative x, as in the product of x and 0.
    positive = b.select(b.compare("olt", "%x", b.number(-0.0)), b.number(-0.0), "%x")
    return b.finish(b.fma(b.do(f"fneg float {a}"), _tail(b, a), positive))


def _slope() -> str:
    """x times the density, and P or 1 - P, the 1 last."""
    b = Body("gelu_slope", 32)
    p = _tail(b, b.call("fabs", "%x"))
    half = b.op("fmul", b.op("fmul", "%x", "%x"), b.number(-0.5 / math.log(2)))
    density = _power(b, half, 1 / math.sqrt(2 * math.pi))
    # 2**-124 / sqrt(2 pi) is the last normal number: below, the sum of exponents wraps round to NaN.
    density = b.select(b.compare("olt", half, b.number(-124.0)), b.number(0.0), density)
    below = b.compare("olt", "%x", b.number(0.0))
    part = b.fma("%x", density, b.select(below, p, b.do(f"fneg float {p}")))
    return b.finish(b.op("fadd", part, b.select(below, b.number(0.0), b.number(1.0))))


def _decay(b: Body, bits: int) -> str:
    """exp(-2u), where the form with tanh is x (1 + tanh(u)) / 2."""
    z = b.op("fmul", "%x", "%x")
    slope = b.fma(z, b.number(-2 * _CUBE), b.number(-2 * _LINE))
    return exponential(b, b.op("fmul", "%x", slope), bits)


def _gelu_tanh(bits: int) -> str:
    """x / (1 + exp(-2u)): below zero nothing cancels, as 1 + tanh(u) does."""
    b = Body("gelu_tanh", 32)
    return b.finish(b.op("fdiv", "%x", b.op("fadd", _decay(b, bits), b.number(1.0))))


def _slope_tanh(bits: int) -> str:
    """s + 2 x u' s (1 - s), where s = 1 / (1 + exp(-2u)) and 1 - s = exp(-2u) s."""
    b = Body("gelu_tanh_slope", 32)
    decay = _decay(b, bits)
    s = b.op("fdiv", b.number(1.0), b.op("fadd", decay, b.number(1.0)))
    both = b.op("fmul", b.op("fmul", decay, s), s)
    both = b.select(b.compare("ogt", decay, b.number(2.0**120)), b.number(0.0), both)
    share = b.op("fmul", "%x", both)
    # Where the square is capped the share is 0, and must not meet an infinity.
    z = b.op("fmul", "%x", "%x")
    z = b.select(b.compare("ogt", z, b.number(2.0**20)), b.number(2.0**20), z)
    steep = b.fma(z, b.number(6 * _CUBE), b.number(2 * _LINE))
    return b.finish(b.fma(steep, share, s))


GELU: dict[str, Callable[[], str]] = {"tfn.gelu.f32": _gelu, "tfn.gelu_slope.f32": _slope}
"""Symbol -> source."""

GELU_BY_WIDTH: dict[str, Callable[[int], str]] = {
    "tfn.gelu_tanh.f32": _gelu_tanh, "tfn.gelu_tanh_slope.f32": _slope_tanh}
"""Symbol -> source for vectors of so many bits."""
