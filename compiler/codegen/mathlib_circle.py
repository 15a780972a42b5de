"""Sine, cosine and tangent, exactly reduced whatever the size of their argument.

On f32 they are functions of vectors, too: those with an element that is far from zero branch to what
reduces any number, the others need a fifth of the operations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction

from .mathbody import CALLED, Body, variants_of

_NEAR = 2.0**30
"""Below, in f64, an f32 less a multiple of pi in two parts is what it is exactly but for 2**-50."""
_PI_LOW = 1.2246467991473532e-16
# sin(r)/r in r**2 for |r| <= pi/2, error 2**-52.5
_SINE = (-7.373287835653201e-13, 1.604809083327182e-10, -2.5051880130156363e-08,
         2.7557316598337323e-06, -0.00019841269825039042, 0.008333333333285481, -0.16666666666666186,
         1.0)
_PI_2_HIGH = math.pi / 2
_PI_2_LOW = 6.123233995736766e-17


def _turns_table() -> tuple[int, ...]:
    """Bits of 2/pi, two zero bits first: entry i holds the 64 bits that begin at bit 8 i."""
    count = 8 * 160
    # pi by Machin's formula in integers.
    unit = 1 << (count + 64)

    def arctan_inverse(n: int) -> int:
        total, term, k = 0, unit // n, 0
        while term:
            total += -(term // (2 * k + 1)) if k % 2 else term // (2 * k + 1)
            term //= n * n
            k += 1
        return total

    pi = 4 * (4 * arctan_inverse(5) - arctan_inverse(239))
    bits = int(Fraction(2 * unit, pi) * (1 << (count - 2)))
    return tuple((bits >> (count - 8 * i - 64)) & (2**64 - 1) for i in range(count // 8 - 8))


_CHUNK = 26


def circle(b: Body, name: str, x: str, wide: bool) -> str:
    """`sin`, `cos` or `tan` of the double `x`, exactly reduced by pi/2 whatever its size.

    Payne and Hanek (1983): x = 2**k m, and only the bits of 2/pi that m 2**k does not turn into
    whole turns are multiplied. `wide`: x has 53 significant bits, not 24.
    """
    d = Body("circle", 64)
    d.lines = b.lines
    magnitude = d.call("fabs", x)
    digits, largest, parts = (53, 971, 7) if wide else (24, 104, 4)
    exponent = d.integer("sub", d.integer("lshr", d.bits_of(magnitude), 52), 1022 + digits)
    negative = d.do(f"icmp slt i64 {exponent}, 0")
    k = d.do(f"select i1 {negative}, i64 0, i64 {exponent}")
    beyond = d.do(f"icmp sgt i64 {k}, {largest}")
    k = d.do(f"select i1 {beyond}, i64 {largest}, i64 {k}")
    m = d.op("fmul", magnitude, d.power_of_two(d.integer("sub", "0", k)))
    chunks = [_chunk(d, k, i) for i in range(parts)]
    factors = [m]
    if wide:
        high = d.from_bits(d.integer("and", d.bits_of(m), -(1 << 27)))
        factors = [high, d.op("fsub", m, high)]
    hi, lo, quadrant = _fraction(d, [d.op("fmul", f, c) for c in chunks for f in factors])
    r = d.op("fmul", hi, d.number(_PI_2_HIGH))
    rest = d.fma(hi, d.number(_PI_2_HIGH), d.do(f"fneg double {r}"))
    rest = d.fma(hi, d.number(_PI_2_LOW), rest)
    rest = d.fma(lo, d.number(_PI_2_HIGH), rest)
    sine, cosine = _sine(d, r, rest), _cosine(d, r, rest)
    odd = d.do(f"icmp ne i64 {d.integer('and', quadrant, 1)}, 0")
    sign = d.do(f"call double @llvm.copysign.f64(double {d.number(1.0)}, double {x})")
    if name == "tan":
        top = d.select(odd, d.do(f"fneg double {cosine}"), sine)
        y = d.op("fmul", d.op("fdiv", top, d.select(odd, sine, cosine)), sign)
    else:
        shifted = quadrant if name == "sin" else d.integer("add", quadrant, 1)
        y = d.select(odd, *((cosine, sine) if name == "sin" else (sine, cosine)))
        flip = d.do(f"icmp ne i64 {d.integer('and', shifted, 2)}, 0")
        y = d.select(flip, d.do(f"fneg double {y}"), y)
        y = y if name == "cos" else d.op("fmul", y, sign)
    if name != "cos":  # keeps subnormals exact
        y = d.select(d.compare("olt", magnitude, d.number(2.0**-30)), x, y)
    infinite = d.compare("ueq", magnitude, d.number(math.inf))
    return d.select(infinite, d.number(math.nan), y)


def _chunk(d: Body, k: str, i: int) -> str:
    """26 bits of 2**k 2/pi mod 4, from bit 26 i on, as a double."""
    place = d.integer("add", k, _CHUNK * i)
    entry = d.do(f"getelementptr i64, ptr @tfn.turns, i64 {d.integer('lshr', place, 3)}")
    word = d.do(f"load i64, ptr {entry}, align 8")
    bits = d.integer("lshr", d.integer("shl", word, d.integer("and", place, 7)), 64 - _CHUNK)
    # Small integers become doubles as the mantissa of 2**52.
    number = d.from_bits(d.integer("or", bits, 0x4330000000000000))
    number = d.op("fsub", number, d.number(2.0**52))
    return d.op("fmul", number, d.number(2.0 ** (2 - _CHUNK * (i + 1))))


def _fraction(d: Body, terms: list[str]) -> tuple[str, str, str]:
    """The sum of exact terms, less a whole number: high and low part, and the number in a word."""
    hi = lo = d.number(0.0)
    quadrant = None
    for term in terms:
        whole = d.call("roundeven", term)
        # Modulo 4 the whole part fits the word trick whatever its size.
        turns = d.call("roundeven", d.op("fmul", whole, d.number(0.25)))
        _, word = d.whole(d.fma(turns, d.number(-4.0), whole))
        quadrant = word if quadrant is None else d.integer("add", quadrant, word)
        rest = d.op("fsub", term, whole)
        total = d.op("fadd", hi, rest)
        back = d.op("fsub", total, hi)
        error = d.op("fadd", d.op("fsub", hi, d.op("fsub", total, back)),
                     d.op("fsub", rest, back))
        hi, lo = total, d.op("fadd", lo, error)
    assert quadrant is not None
    whole = d.call("roundeven", hi)
    _, word = d.whole(whole)
    hi = d.op("fsub", hi, whole)
    total = d.op("fadd", hi, lo)
    return total, d.op("fsub", lo, d.op("fsub", total, hi)), d.integer("add", quadrant, word)


def _sine(d: Body, r: str, rest: str) -> str:
    z = d.op("fmul", r, r)
    p = d.polynomial(z, [(-1) ** k / math.factorial(2 * k + 1) for k in range(8, 0, -1)])
    return d.op("fadd", r, d.fma(d.op("fmul", z, r), p, rest))


def _cosine(d: Body, r: str, rest: str) -> str:
    z = d.op("fmul", r, r)
    p = d.polynomial(z, [(-1) ** k / math.factorial(2 * k) for k in range(9, 1, -1)])
    half = d.op("fmul", z, d.number(0.5))
    w = d.op("fsub", d.number(1.0), half)
    lost = d.op("fsub", d.op("fsub", d.number(1.0), w), half)
    tail = d.fma(d.op("fmul", z, z), p, d.op("fsub", lost, d.op("fmul", r, rest)))
    return d.op("fadd", w, tail)


def circular(name: str, lanes: int, variants: Mapping[int, str] | None = None) -> str:
    """`sin`, `cos` or `tan` of f32, or of vectors of them; `variants`: those of the scalar function, by
    their lanes.

    They are called, not inlined, until loops are vectorised; a branch inside of a loop prevents that.
    """
    b = Body(name, 32, lanes=lanes)
    wide = Body(name, 64, lanes=lanes)
    wide.lines = b.lines
    x = b.do(f"fpext {b.kind} %x to {wide.kind}")
    y = (wide.op("fdiv", _near(wide, "sin", x), _near(wide, "cos", x)) if name == "tan"
         else _near(wide, name, x))
    y = b.do(f"fptrunc {wide.kind} {y} to {b.kind}")
    far = b.compare("oge", b.call("fabs", "%x"), b.number(_NEAR))
    some = far if lanes == 1 else b.do(
        f"call i1 @llvm.vector.reduce.or.v{lanes}i1({b.wide('i1')} {far})")
    reduce_far = f"tfn.{name}.{'circle' if lanes == 1 else 'far'}.{b.suffix}"
    return f"""\
{b.head} {CALLED}{variants_of(b.name, variants)} {{
near:
{chr(10).join(b.lines)}
  br i1 {some}, label %far, label %done
far:
  %reduced = call {b.kind} @{reduce_far}({b.kind} %x)
  %each = select {b.wide("i1")} {far}, {b.kind} %reduced, {b.kind} {y}
  br label %done
done:
  %result = phi {b.kind} [{y}, %near], [%each, %far]
  ret {b.kind} %result
}}"""


def _near(d: Body, name: str, x: str) -> str:
    """`sin` or `cos` of an f32 in a double: x = n pi + r, where n is whole for the sine, and whole and
    a half for the cosine."""
    odd = name == "cos"
    if odd:
        n, word = d.whole(d.fma(x, d.number(1 / math.pi), d.number(-0.5)))
        n = d.op("fadd", n, d.number(0.5))
        r = d.fma(n, d.number(math.pi), d.do(f"fneg {d.kind} {x}"))
        r = d.fma(n, d.number(_PI_LOW), r)
    else:
        n, word = d.whole(x, 1 / math.pi)
        r = d.fma(n, d.number(-_PI_LOW), d.fma(n, d.number(-math.pi), x))
    y = d.op("fmul", r, d.polynomial(d.op("fmul", r, r), _SINE))
    return d.from_bits(d.integer("xor", d.bits_of(y), d.integer("shl", word, 63)))


def circular_circle(name: str) -> str:
    """`sin`, `cos` or `tan` of any f32."""
    b = Body(f"{name}.circle", 32)
    return b.finish_narrow(circle(b, name, b.do("fpext float %x to double"), wide=False))


def circular_far(name: str, lanes: int) -> str:
    """`sin`, `cos` or `tan` of a vector of any f32: a loop for LLVM to vectorise."""
    b = Body(f"{name}.far", 32, lanes=lanes)
    return f"""\
{b.head} {CALLED} {{
entry:
  %elements = alloca {b.kind}, align 64
  store {b.kind} %x, ptr %elements, align 64
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
  %place = getelementptr float, ptr %elements, i64 %i
  %element = load float, ptr %place, align 4
  %y = call float @tfn.{name}.circle.f32(float %element)
  store float %y, ptr %place, align 4
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, {lanes}
  br i1 %more, label %loop, label %done
done:
  %result = load {b.kind}, ptr %elements, align 64
  ret {b.kind} %result
}}"""


def turns_table() -> str:
    """The definition of the table that `circle` reads."""
    values = ", ".join(f"i64 {v}" for v in _turns_table())
    return f"@tfn.turns = internal constant [{len(_turns_table())} x i64] [{values}], align 8"
