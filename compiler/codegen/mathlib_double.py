"""The elementary functions on f64."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from fractions import Fraction

from .mathbody import Body, hexadecimal
from .mathlib_circle import circle, turns_table
from .mathlib_root import reciprocal_root

_LN2_HIGH = float.fromhex("0x1.62e42fee00000p-1")
_LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")

# erf(x)/x - 1 in x**2 below 1.6, error 4e-23
_ERF_NEAR = (
    1.4171259683903108e-18, -6.028335089257143e-17, 1.4467102810711216e-15, -2.7006091426120696e-14,
    4.43608663426215e-13, -6.704641198150808e-12, 9.421480049742769e-11, -1.2290367463540467e-09,
    1.480717149956849e-08, -1.6365842831119343e-07, 1.6462114242387449e-06, -1.492565035227352e-05,
    0.00012055332981567653, -0.0008548327023445208, 0.0052239776254420925, -0.026866170645131242,
    0.11283791670955126, -0.37612638903183754, 0.1283791670955126)
# log(erfc(3.25 + 2.75 t)) on |t| <= 1, error 1e-16
_ERF_FAR = (
    2.3937290567325814e-08, -4.361940447016918e-08, -1.0188823264670878e-07,
    2.3369648105576428e-07, 7.681365893345505e-08, -2.3892962252749404e-07,
    -4.102883228931834e-07, 6.890222207250522e-07, 2.483937849205695e-07,
    -1.4535027522511643e-06, 3.2878933760504307e-06, -7.981239543919775e-06,
    1.6830202539715986e-05, -2.935332280940169e-05, 4.136993540746771e-05,
    -3.635107687175861e-05, -3.30591432229727e-05, 0.00028150208599327797,
    -0.0009623980767427554, 0.002603227202630238, -0.006257662879927052, 0.013983910358273302,
    -0.029809681186874125, 0.061936544685887406, -0.12893215909904063, -7.278767479709119,
    -18.655341386306848, -12.3562493571816)


def _exp() -> str:
    b = Body("exp", 64)
    high = b.select(b.compare("ogt", "%x", b.number(710.0)), b.number(710.0), "%x")
    x = b.select(b.compare("olt", high, b.number(-746.0)), b.number(-746.0), high)
    n, word = b.whole(b.op("fmul", x, b.number(1 / math.log(2))))
    r = b.fma(n, b.number(-_LN2_HIGH), x)
    r = b.fma(n, b.number(-_LN2_LOW), r)
    series = [1 / math.factorial(k) for k in range(13, -1, -1)]
    p = b.polynomial(r, series)
    # Two factors: 2**n alone over- or underflows before the product does.
    half = b.integer("ashr", word, 1)
    rest = b.integer("sub", word, half)
    return b.finish(b.op("fmul", b.op("fmul", p, b.power_of_two(half)), b.power_of_two(rest)))


def _split(b: Body, x: str) -> tuple[str, str]:
    """`(e, m)`: positive x = 2**e m with m between sqrt(1/2) and sqrt(2), both doubles."""
    small = b.compare("olt", x, b.number(2.0**-1022))
    scaled = b.select(small, b.op("fmul", x, b.number(2.0**54)), x)
    bits = b.bits_of(scaled)
    origin = struct.unpack("<q", struct.pack("<d", math.sqrt(0.5)))[0]
    e = b.integer("ashr", b.integer("sub", bits, origin), 52)
    m = b.from_bits(b.integer("sub", bits, b.integer("shl", e, 52)))
    exponent = b.do(f"sitofp i64 {e} to double")
    return b.select(small, b.op("fsub", exponent, b.number(54.0)), exponent), m


def _log() -> str:
    b = Body("log", 64)
    e, m = _split(b, "%x")
    f = b.op("fsub", m, b.number(1.0))
    s = b.op("fdiv", f, b.op("fadd", f, b.number(2.0)))
    z = b.op("fmul", s, s)
    # log(1+f) = f - s*(f - 2z/3 - 2z^2/5 ...), which keeps the leading f exact.
    tail = b.op("fmul", z, b.polynomial(z, [2 / (2 * k + 1) for k in range(11, 0, -1)]))
    y = b.op("fmul", s, b.op("fsub", f, tail))
    y = b.op("fsub", y, b.op("fmul", e, b.number(_LN2_LOW)))
    y = b.fma(e, b.number(_LN2_HIGH), b.op("fsub", f, y))
    y = b.select(b.compare("oeq", "%x", b.number(math.inf)), "%x", y)
    y = b.select(b.compare("oeq", "%x", b.number(0.0)), b.number(-math.inf), y)
    return b.finish(b.select(b.compare("ult", "%x", b.number(0.0)), b.number(math.nan), y))


def _log1p() -> str:
    b = Body("log1p", 64)
    u = b.op("fadd", "%x", b.number(1.0))
    # What rounding 1 + x lost; of the two subtrahends the larger goes first.
    lost_small = b.op("fsub", "%x", b.op("fsub", u, b.number(1.0)))
    lost_large = b.op("fsub", b.number(1.0), b.op("fsub", u, "%x"))
    lost = b.select(b.compare("ogt", "%x", b.number(1.0)), lost_large, lost_small)
    y = b.op("fadd", b.call("tfn.log", u), b.op("fdiv", lost, u))
    y = b.select(b.compare("oeq", u, b.number(1.0)), "%x", y)
    y = b.select(b.compare("oeq", u, b.number(0.0)), b.number(-math.inf), y)
    return b.finish(b.select(b.compare("oeq", "%x", b.number(math.inf)), "%x", y))


def _expm1() -> str:
    b = Body("expm1", 64)
    p = b.polynomial("%x", [1 / math.factorial(k) for k in range(16, 1, -1)])
    near = b.fma(b.op("fmul", "%x", "%x"), p, "%x")
    far = b.op("fsub", b.call("tfn.exp", "%x"), b.number(1.0))
    inside = b.compare("olt", b.call("fabs", "%x"), b.number(0.5))
    return b.finish(b.call("copysign", b.select(inside, near, far), "%x"))


def _tanh() -> str:
    b = Body("tanh", 64)
    a = b.call("fabs", "%x")
    t = b.call("tfn.expm1", b.op("fadd", a, a))
    y = b.op("fdiv", t, b.op("fadd", t, b.number(2.0)))
    y = b.select(b.compare("ogt", a, b.number(22.0)), b.number(1.0), y)
    return b.finish(b.call("copysign", y, "%x"))


def _logistic() -> str:
    b = Body("logistic", 64)
    e = b.call("tfn.exp", b.do(f"fneg double {b.call('fabs', '%x')}"))
    positive = b.compare("oge", "%x", b.number(0.0))
    top = b.select(positive, b.number(1.0), e)
    return b.finish(b.op("fdiv", top, b.op("fadd", e, b.number(1.0))))


def _erf() -> str:
    b = Body("erf", 64)
    a = b.call("fabs", "%x")
    near = b.fma(a, b.polynomial(b.op("fmul", a, a), _ERF_NEAR), a)
    capped = b.select(b.compare("ogt", a, b.number(6.0)), b.number(6.0), a)
    t = b.op("fdiv", b.op("fsub", capped, b.number(3.25)), b.number(2.75))
    far = b.op("fsub", b.number(1.0), b.call("tfn.exp", b.polynomial(t, _ERF_FAR)))
    y = b.select(b.compare("ult", a, b.number(1.35)), near, far)
    return b.finish(b.call("copysign", y, "%x"))


def _circular(name: str) -> Callable[[], str]:
    def source() -> str:
        b = Body(name, 64)
        return b.finish(circle(b, name, "%x", wide=True))

    return source


def _cbrt() -> str:
    b = Body("cbrt", 64)
    a = b.call("fabs", "%x")
    # Cubes of what is very small or large leave the range: scale by a cube.
    small, large = (b.compare("olt", a, b.number(2.0**-1000)),
                    b.compare("ogt", a, b.number(2.0**1000)))
    a = b.select(small, b.op("fmul", a, b.number(2.0**54)), a)
    a = b.select(large, b.op("fmul", a, b.number(2.0**-54)), a)
    # A third of the exponent (and mantissa) bits is a guess good to 5 %.
    high = b.do(f"trunc i64 {b.integer('lshr', b.bits_of(a), 32)} to i32")
    third = b.do(f"zext i32 {b.do(f'udiv i32 {high}, 3')} to i64")
    y = b.from_bits(b.integer("shl", b.integer("add", third, 715094163), 32))
    for _ in range(2):  # Halley: the number of right digits triples
        cube = b.op("fmul", b.op("fmul", y, y), y)
        top = b.op("fadd", cube, b.op("fadd", a, a))
        bottom = b.op("fadd", b.op("fadd", cube, cube), a)
        y = b.op("fmul", y, b.op("fdiv", top, bottom))
    # Newton's step, with what the squares and cubes round away.
    square = b.op("fmul", y, y)
    square_low = b.fma(y, y, b.do(f"fneg double {square}"))
    cube = b.op("fmul", square, y)
    cube_low = b.fma(square, y, b.do(f"fneg double {cube}"))
    cube_low = b.fma(square_low, y, cube_low)
    missing = b.op("fsub", b.op("fsub", a, cube), cube_low)
    y = b.op("fadd", y, b.op("fdiv", missing, b.op("fmul", square, b.number(3.0))))
    y = b.select(small, b.op("fmul", y, b.number(2.0**-18)), y)
    y = b.select(large, b.op("fmul", y, b.number(2.0**18)), y)
    y = b.call("copysign", y, "%x")
    zero = b.compare("oeq", "%x", b.number(0.0))
    finite = b.compare("olt", b.call("fabs", "%x"), b.number(math.inf))
    usable = b.do(f"and i1 {finite}, {b.do(f'xor i1 {zero}, true')}")
    return b.finish(b.select(usable, y, "%x"))


def _atan2() -> str:
    """atan2(x, y): the first argument is the ordinate."""
    b = Body("atan2", 64, 2)
    up, right = b.call("fabs", "%x"), b.call("fabs", "%y")
    steep = b.compare("ogt", up, right)
    low, high = b.select(steep, right, up), b.select(steep, up, right)
    q = b.op("fdiv", low, high)
    q = b.select(b.compare("oeq", low, high), b.number(1.0), q)
    q = b.select(b.compare("oeq", low, b.number(0.0)), b.number(0.0), q)
    turned = b.compare("ogt", q, b.number(math.sqrt(2) - 1))
    t = b.op("fdiv", b.op("fsub", q, b.number(1.0)), b.op("fadd", q, b.number(1.0)))
    t = b.select(turned, t, q)
    z = b.op("fmul", t, t)
    p = b.polynomial(z, [(-1) ** k / (2 * k + 1) for k in range(21, 0, -1)])
    r = b.fma(b.op("fmul", t, z), p, t)
    r = b.select(turned, b.op("fadd", b.number(math.pi / 4), r), r)
    r = b.select(steep, b.op("fsub", b.number(math.pi / 2), r), r)
    left = b.do(f"icmp slt i64 {b.bits_of('%y')}, 0")
    r = b.select(left, b.op("fsub", b.number(math.pi), r), r)
    nan = b.compare("uno", "%x", "%y")
    return b.finish(b.select(nan, b.number(math.nan), b.call("copysign", r, "%x")))


def _simple_power() -> str:
    """|x|**y for f32: exp(y log|x|) in f64 is good to 1e-13."""
    b = Body("power", 64, 2)
    a = b.call("fabs", "%x")
    return b.finish(_signed_power(b, b.call("tfn.exp", b.op("fmul", "%y", b.call("tfn.log", a)))))


def _pow() -> str:
    """x**y through log|x| as a sum of two doubles: 11 bits more, which the product needs."""
    b = Body("pow", 64, 2)
    a = b.call("fabs", "%x")
    e, m = _split(b, a)
    f = b.op("fsub", m, b.number(1.0))
    d = b.op("fadd", f, b.number(2.0))
    d_low = b.op("fadd", b.op("fsub", b.number(2.0), d), f)
    s = b.op("fdiv", f, d)
    s_low = b.fma(b.do(f"fneg double {s}"), d, f)
    s_low = b.op("fdiv", b.op("fsub", s_low, b.op("fmul", s, d_low)), d)
    # 2 s + s z (2/3 + z series), each product and sum with what its rounding lost.
    z = b.op("fmul", s, s)
    z_low = b.fma(b.op("fadd", s, s), s_low, b.fma(s, s, b.do(f"fneg double {z}")))
    series = b.polynomial(z, [2 / (2 * k + 1) for k in range(11, 1, -1)])
    tail, tail_low = _sum(b, b.number(2 / 3), b.op("fmul", z, series))
    tail_low = b.op("fadd", tail_low, b.number(float(Fraction(2, 3) - Fraction(2 / 3))))
    cube, cube_low = _product(b, z, z_low, tail, tail_low)
    cube, cube_low = _product(b, s, s_low, cube, cube_low)
    h, low = _sum(b, b.op("fmul", e, b.number(_LN2_HIGH)), b.op("fadd", s, s))
    h, more = _sum(b, h, cube)
    low = b.op("fadd", b.op("fadd", low, more), b.op("fadd", cube_low, b.op("fadd", s_low, s_low)))
    low = b.fma(e, b.number(_LN2_LOW), low)
    total = b.op("fadd", h, low)
    low = b.op("fsub", low, b.op("fsub", total, h))
    h = total
    zero = b.compare("oeq", a, b.number(0.0))
    huge = b.compare("oeq", a, b.number(math.inf))
    h = b.select(zero, b.number(-math.inf), b.select(huge, b.number(math.inf), h))
    product = b.op("fmul", "%y", h)
    error = b.fma("%y", h, b.do(f"fneg double {product}"))
    error = b.fma("%y", low, error)
    usable = b.compare("olt", b.call("fabs", product), b.number(745.0))
    error = b.select(usable, error, b.number(0.0))
    return b.finish(_signed_power(b, _exp_of_sum(b, product, error)))


def _sum(b: Body, x: str, y: str) -> tuple[str, str]:
    """x + y and what its rounding lost (Knuth's two-sum)."""
    total = b.op("fadd", x, y)
    back = b.op("fsub", total, x)
    return total, b.op("fadd", b.op("fsub", x, b.op("fsub", total, back)), b.op("fsub", y, back))


def _product(b: Body, x: str, x_low: str, y: str, y_low: str) -> tuple[str, str]:
    """(x + x_low) (y + y_low) as such a sum."""
    high = b.op("fmul", x, y)
    low = b.fma(x, y, b.do(f"fneg double {high}"))
    return high, b.fma(x, y_low, b.fma(x_low, y, low))


def _exp_of_sum(b: Body, x: str, low: str) -> str:
    """exp(x + low) for a small `low`, rounded nearly once: 1 + r is kept as a sum of two doubles."""
    high = b.select(b.compare("ogt", x, b.number(710.0)), b.number(710.0), x)
    bounded = b.select(b.compare("olt", high, b.number(-746.0)), b.number(-746.0), high)
    n, word = b.whole(b.op("fmul", bounded, b.number(1 / math.log(2))))
    r = b.fma(n, b.number(-_LN2_HIGH), bounded)
    rest_of_r = b.fma(n, b.number(-_LN2_LOW), low)
    whole = b.op("fadd", r, rest_of_r)
    lost = b.op("fsub", rest_of_r, b.op("fsub", whole, r))
    one = b.number(1.0)
    lead = b.op("fadd", one, whole)
    lost = b.op("fadd", lost, b.op("fsub", whole, b.op("fsub", lead, one)))
    series = b.polynomial(whole, [1 / math.factorial(k) for k in range(13, 1, -1)])
    p = b.op("fadd", lead, b.fma(b.op("fmul", whole, whole), series, lost))
    half = b.integer("ashr", word, 1)
    other = b.integer("sub", word, half)
    return b.op("fmul", b.op("fmul", p, b.power_of_two(half)), b.power_of_two(other))


def _signed_power(b: Body, r: str) -> str:
    """|x|**y with the sign and the special cases of IEEE 754 `pow`."""
    a = b.call("fabs", "%x")
    one = b.number(1.0)
    r = b.select(b.compare("oeq", a, one), one, r)
    whole = b.compare("oeq", b.call("trunc", "%y"), "%y")
    half = b.op("fmul", "%y", b.number(0.5))
    even = b.compare("oeq", b.call("trunc", half), half)
    odd = b.do(f"and i1 {whole}, {b.do(f'xor i1 {even}, true')}")
    r = b.op("fmul", r, b.select(odd, b.call("copysign", one, "%x"), one))
    infinite = b.compare("oeq", b.call("fabs", "%y"), b.number(math.inf))
    defined = b.do(f"or i1 {whole}, {infinite}")
    negative = b.compare("olt", "%x", b.number(0.0))
    bounded = b.compare("one", "%x", b.number(-math.inf))
    bad = b.do(f"and i1 {negative}, {bounded}")
    bad = b.do(f"and i1 {bad}, {b.do(f'xor i1 {defined}, true')}")
    bad = b.do(f"or i1 {bad}, {b.compare('uno', '%x', '%y')}")
    r = b.select(bad, b.number(math.nan), r)
    r = b.select(b.compare("oeq", "%x", one), one, r)
    return b.select(b.compare("oeq", "%y", b.number(0.0)), one, r)


_FMOD = """\
define internal double @tfn.fmod.f64(double %x, double %y) nounwind memory(none) {
entry:
  %a = call double @llvm.fabs.f64(double %x)
  %b = call double @llvm.fabs.f64(double %y)
  %finite = fcmp olt double %a, INF
  %divides = fcmp ogt double %b, 0.0
  %defined = and i1 %finite, %divides
  br i1 %defined, label %head, label %undefined
head:
  %r = phi double [%a, %entry], [%r3, %body]
  %more = fcmp oge double %r, %b
  br i1 %more, label %body, label %done
body:
  %er = call i64 @tfn.exponent(double %r)
  %eb = call i64 @tfn.exponent(double %b)
  %gap0 = sub i64 %er, %eb
  %gap1 = sub i64 %gap0, 50
  %positive = icmp sgt i64 %gap1, 0
  %gap2 = select i1 %positive, i64 %gap1, i64 0
  %wide = icmp sgt i64 %gap2, 2046
  %gap = select i1 %wide, i64 2046, i64 %gap2
  %half = lshr i64 %gap, 1
  %rest = sub i64 %gap, %half
  %s1 = call double @tfn.scale(i64 %half)
  %s2 = call double @tfn.scale(i64 %rest)
  %t1 = fmul double %b, %s1
  %t = fmul double %t1, %s2
  %q0 = fdiv double %r, %t
  %q = call double @llvm.trunc.f64(double %q0)
  %nq = fneg double %q
  %r1 = call double @llvm.fma.f64(double %nq, double %t, double %r)
  %below = fcmp olt double %r1, 0.0
  %r2 = fadd double %r1, %t
  %r3 = select i1 %below, double %r2, double %r1
  br label %head
done:
  %signed = call double @llvm.copysign.f64(double %r, double %x)
  ret double %signed
undefined:
  ret double NAN
}
define internal i64 @tfn.exponent(double %v) alwaysinline nounwind memory(none) {
  %small = fcmp olt double %v, TINY
  %scaled = fmul double %v, LARGE
  %w = select i1 %small, double %scaled, double %v
  %bits = bitcast double %w to i64
  %e = lshr i64 %bits, 52
  %less = sub i64 %e, 54
  %result = select i1 %small, i64 %less, i64 %e
  ret i64 %result
}
define internal double @tfn.scale(i64 %n) alwaysinline nounwind memory(none) {
  %biased = add i64 %n, 1023
  %bits = shl i64 %biased, 52
  %result = bitcast i64 %bits to double
  ret double %result
}"""


def _fmod() -> str:
    """Long division, 50 bits of the quotient per round: every remainder is exact."""
    text = _FMOD
    for name, value in (("INF", math.inf), ("NAN", math.nan), ("TINY", 2.0**-960),
                        ("LARGE", 2.0**54)):
        text = text.replace(f" {name}\n", f" {hexadecimal(value)}\n")
    return text


DOUBLE: dict[str, Callable[[], str]] = {
    "tfn.exp.f64": _exp, "tfn.log.f64": _log, "tfn.log1p.f64": _log1p, "tfn.expm1.f64": _expm1,
    "tfn.tanh.f64": _tanh, "tfn.logistic.f64": _logistic, "tfn.erf.f64": _erf,
    **{f"tfn.{name}.f64": _circular(name) for name in ("sin", "cos", "tan")},
    "tfn.rsqrt.f64": lambda: reciprocal_root(64),
    "tfn.cbrt.f64": _cbrt, "tfn.atan2.f64": _atan2, "tfn.power.f64": _simple_power,
    "tfn.pow.f64": _pow, "tfn.fmod.f64": _fmod, "tfn.turns": turns_table,
}
"""Symbol -> source of the f64 functions and the table they read."""
