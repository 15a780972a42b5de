"""Elementary functions as LLVM text, small enough to inline so that loops over them vectorise.

Everything is computed in f64 and rounded once for f32, which puts f32 results within 0.51 ULP of the
true value (`erf`: 1 ULP) over the full range, subnormals, infinities and NaN included. Functions
listed in `LIBM` call the C library; they are correct but do not vectorise.
"""

from __future__ import annotations

import math
import struct

LIBM = {"sin": 1, "cos": 1, "tan": 1, "cbrt": 1, "atan2": 2, "fmod": 2}
"""Name -> number of arguments, for functions taken from the C library in both precisions."""
LIBM_F64 = {"erf": 1, "pow": 2}
"""The same, in f64 only."""


def _hex(x: float) -> str:
    return f"0x{struct.unpack('<Q', struct.pack('<d', x))[0]:016X}"


class _Body:
    """A straight-line double function."""

    def __init__(self, name: str, arguments: int = 1):
        names = ["%x", "%y"][:arguments]
        self.name = name
        self.head = f"define internal double @{name}({', '.join('double ' + n for n in names)})"
        self.lines: list[str] = []
        self.uses: set[str] = set()

    def do(self, text: str) -> str:
        register = f"%v{len(self.lines)}"
        self.lines.append(f"  {register} = {text}")
        return register

    def op(self, opcode: str, a: str, b: str) -> str:
        return self.do(f"{opcode} double {a}, {b}")

    def fma(self, a: str, b: str, c: str) -> str:
        return self.do(f"call double @llvm.fma.f64(double {a}, double {b}, double {c})")

    def call(self, name: str, *arguments: str) -> str:
        self.uses.add(name)
        given = ", ".join(f"double {a}" for a in arguments)
        return self.do(f"call double @{name}({given})")

    def select(self, condition: str, a: str, b: str) -> str:
        return self.do(f"select i1 {condition}, double {a}, double {b}")

    def compare(self, predicate: str, a: str, b: str) -> str:
        return self.do(f"fcmp {predicate} double {a}, {b}")

    def polynomial(self, x: str, coefficients: list[float]) -> str:
        """Horner, highest power first."""
        result = _hex(coefficients[0])
        for c in coefficients[1:]:
            result = self.fma(result, x, _hex(c))
        return result

    def finish(self, result: str) -> str:
        return "\n".join([f"{self.head} alwaysinline nounwind willreturn memory(none) {{",
                          *self.lines, f"  ret double {result}", "}"])


_LN2_HIGH = float.fromhex("0x1.62e42fee00000p-1")
_LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")


def _reduced(b: _Body, x: str) -> tuple[str, str]:
    """`(n, r)` with x = n ln 2 + r and |r| <= ln 2 / 2, as doubles."""
    n = b.call("llvm.roundeven.f64", b.op("fmul", x, _hex(1 / math.log(2))))
    r = b.fma(n, _hex(-_LN2_HIGH), x)
    return n, b.fma(n, _hex(-_LN2_LOW), r)


def _power_of_two(b: _Body, n: str) -> str:
    bits = b.do(f"shl i64 {b.do(f'add i64 {n}, 1023')}, 52")
    return b.do(f"bitcast i64 {bits} to double")


def _exp() -> str:
    b = _Body("tfn.exp")
    high = b.select(b.compare("ogt", "%x", _hex(710.0)), _hex(710.0), "%x")
    clamped = b.select(b.compare("olt", high, _hex(-746.0)), _hex(-746.0), high)
    n, r = _reduced(b, clamped)
    series = [1 / math.factorial(k) for k in range(13, -1, -1)]
    p = b.polynomial(r, series)
    b.uses.add("llvm.fptosi.sat.i64.f64")
    whole = b.do(f"call i64 @llvm.fptosi.sat.i64.f64(double {n})")
    # Two factors: 2**n alone over- or underflows before the product does.
    half = b.do(f"ashr i64 {whole}, 1")
    rest = b.do(f"sub i64 {whole}, {half}")
    result = b.op("fmul", b.op("fmul", p, _power_of_two(b, half)), _power_of_two(b, rest))
    return b.finish(b.select(b.compare("uno", "%x", "%x"), "%x", result))


def _log() -> str:
    b = _Body("tfn.log")
    small = b.compare("olt", "%x", _hex(2.2250738585072014e-308))
    x = b.select(small, b.op("fmul", "%x", _hex(2.0**54)), "%x")
    bits = b.do(f"bitcast double {x} to i64")
    # Exponent relative to sqrt(1/2), so that the mantissa lies in [sqrt(1/2), sqrt(2)).
    origin = struct.unpack("<q", struct.pack("<d", math.sqrt(0.5)))[0]
    shifted = b.do(f"sub i64 {bits}, {origin}")
    e = b.do(f"ashr i64 {shifted}, 52")
    m = b.do(f"bitcast i64 {b.do(f'sub i64 {bits}, ' + b.do(f'shl i64 {e}, 52'))} to double")
    e = b.do(f"sitofp i64 {e} to double")
    e = b.select(small, b.op("fsub", e, _hex(54.0)), e)
    f = b.op("fsub", m, _hex(1.0))
    s = b.op("fdiv", f, b.op("fadd", f, _hex(2.0)))
    z = b.op("fmul", s, s)
    # log(1+f) = f - s*(f - 2z/3 - 2z^2/5 ...), which keeps the leading f exact.
    tail = b.op("fmul", z, b.polynomial(z, [2 / (2 * k + 1) for k in range(11, 0, -1)]))
    y = b.op("fmul", s, b.op("fsub", f, tail))
    y = b.op("fsub", y, b.op("fmul", e, _hex(_LN2_LOW)))
    y = b.op("fsub", f, y)
    y = b.fma(e, _hex(_LN2_HIGH), y)
    y = b.select(b.compare("oeq", "%x", _hex(math.inf)), "%x", y)
    y = b.select(b.compare("oeq", "%x", _hex(0.0)), _hex(-math.inf), y)
    nan = _hex(math.nan)
    return b.finish(b.select(b.compare("ult", "%x", _hex(0.0)), nan, y))


def _log1p() -> str:
    b = _Body("tfn.log1p")
    u = b.op("fadd", "%x", _hex(1.0))
    change = b.op("fsub", u, _hex(1.0))
    # Kahan: the rounding of 1 + x is undone by the factor x / (u - 1).
    y = b.op("fmul", b.call("tfn.log", u), b.op("fdiv", "%x", change))
    y = b.select(b.compare("oeq", change, _hex(0.0)), "%x", y)
    return b.finish(b.select(b.compare("oeq", "%x", _hex(math.inf)), "%x", y))


def _expm1() -> str:
    b = _Body("tfn.expm1")
    series = [1 / math.factorial(k) for k in range(16, 1, -1)]
    p = b.polynomial("%x", series)
    near = b.fma(b.op("fmul", "%x", "%x"), p, "%x")
    far = b.op("fsub", b.call("tfn.exp", "%x"), _hex(1.0))
    inside = b.compare("olt", b.call("llvm.fabs.f64", "%x"), _hex(0.5))
    return b.finish(b.select(inside, near, far))


def _tanh() -> str:
    b = _Body("tfn.tanh")
    a = b.call("llvm.fabs.f64", "%x")
    t = b.call("tfn.expm1", b.op("fadd", a, a))
    y = b.op("fdiv", t, b.op("fadd", t, _hex(2.0)))
    y = b.select(b.compare("ogt", a, _hex(22.0)), _hex(1.0), y)
    return b.finish(b.call("llvm.copysign.f64", y, "%x"))


def _logistic() -> str:
    b = _Body("tfn.logistic")
    a = b.call("llvm.fabs.f64", "%x")
    e = b.call("tfn.exp", b.do(f"fneg double {a}"))
    d = b.op("fadd", e, _hex(1.0))
    positive = b.compare("oge", "%x", _hex(0.0))
    return b.finish(b.op("fdiv", b.select(positive, _hex(1.0), e), d))


def _erf() -> str:
    """For f32 results only: about 1e-8 relative."""
    b = _Body("tfn.erf")
    a = b.call("llvm.fabs.f64", "%x")
    # erf(x) = 1 - erfc(x); Maclaurin series below 2.5, continued fraction of erfc above.
    z = b.op("fmul", "%x", "%x")
    z_small = b.select(b.compare("olt", a, _hex(2.5)), z, _hex(6.25))
    series = [2 / math.sqrt(math.pi) * (-1) ** k / (math.factorial(k) * (2 * k + 1))
              for k in range(38, -1, -1)]
    near = b.op("fmul", "%x", b.polynomial(z_small, series))
    fraction = a
    for k in range(24, 0, -1):
        fraction = b.op("fadd", a, b.op("fdiv", _hex(k / 2), fraction))
    e = b.call("tfn.exp", b.do(f"fneg double {z}"))
    tail = b.op("fdiv", b.op("fmul", e, _hex(1 / math.sqrt(math.pi))), fraction)
    far = b.call("llvm.copysign.f64", b.op("fsub", _hex(1.0), tail), "%x")
    far = b.select(b.compare("ogt", a, _hex(6.0)),
                   b.call("llvm.copysign.f64", _hex(1.0), "%x"), far)
    return b.finish(b.select(b.compare("ult", a, _hex(2.5)), near, far))


def _pow() -> str:
    """For f32 results only: exp(y log|x|) in f64 is good to 1e-13."""
    b = _Body("tfn.pow", 2)
    a = b.call("llvm.fabs.f64", "%x")
    r = b.call("tfn.exp", b.op("fmul", "%y", b.call("tfn.log", a)))
    r = b.select(b.compare("oeq", a, _hex(1.0)), _hex(1.0), r)
    whole = b.compare("oeq", b.call("llvm.trunc.f64", "%y"), "%y")
    half = b.op("fmul", "%y", _hex(0.5))
    even = b.compare("oeq", b.call("llvm.trunc.f64", half), half)
    odd = b.do(f"and i1 {whole}, {b.do(f'xor i1 {even}, true')}")
    sign = b.call("llvm.copysign.f64", _hex(1.0), "%x")
    r = b.op("fmul", r, b.select(odd, sign, _hex(1.0)))
    infinite = b.compare("oeq", b.call("llvm.fabs.f64", "%y"), _hex(math.inf))
    usable = b.do(f"or i1 {whole}, {infinite}")
    finite_negative = b.compare("olt", "%x", _hex(0.0))
    not_minus_infinity = b.compare("one", "%x", _hex(-math.inf))
    bad = b.do(f"and i1 {finite_negative}, {not_minus_infinity}")
    bad = b.do(f"and i1 {bad}, {b.do(f'xor i1 {usable}, true')}")
    r = b.select(bad, _hex(math.nan), r)
    nan = b.do(f"or i1 {b.compare('uno', '%x', '%y')}, false")
    r = b.select(nan, _hex(math.nan), r)
    r = b.select(b.compare("oeq", "%x", _hex(1.0)), _hex(1.0), r)
    return b.finish(b.select(b.compare("oeq", "%y", _hex(0.0)), _hex(1.0), r))


_SOURCES = {"tfn.exp": _exp, "tfn.log": _log, "tfn.log1p": _log1p, "tfn.expm1": _expm1,
            "tfn.tanh": _tanh, "tfn.logistic": _logistic, "tfn.erf": _erf, "tfn.pow": _pow}
_USES = {"tfn.log1p": ["tfn.log"], "tfn.expm1": ["tfn.exp"], "tfn.tanh": ["tfn.expm1"],
         "tfn.logistic": ["tfn.exp"], "tfn.erf": ["tfn.exp"], "tfn.pow": ["tfn.exp", "tfn.log"]}
_INTRINSICS = {
    "llvm.fma.f64": "double, double, double", "llvm.roundeven.f64": "double",
    "llvm.fabs.f64": "double", "llvm.trunc.f64": "double", "llvm.copysign.f64": "double, double",
}


def function_name(name: str, is_f64: bool) -> str:
    """The symbol that computes `name` in f64."""
    if name in LIBM or (is_f64 and name in LIBM_F64):
        return name
    return f"tfn.{name}"


def definitions(names: set[str]) -> str:
    """LLVM text that defines (or declares) the named symbols and what they use."""
    pending, wanted = list(names), set()
    while pending:
        name = pending.pop()
        if name not in wanted:
            wanted.add(name)
            pending += _USES.get(name, ())
    lines = []
    own = sorted(n for n in wanted if n in _SOURCES)
    text = [_source(n) for n in own]
    joined = "\n".join(text)
    for intrinsic, arguments in _INTRINSICS.items():
        if f"@{intrinsic}(" in joined:
            lines.append(f"declare double @{intrinsic}({arguments})")
    if "llvm.fptosi.sat.i64.f64" in joined:
        lines.append("declare i64 @llvm.fptosi.sat.i64.f64(double)")
    for name in sorted(wanted - set(own)):
        count = {**LIBM, **LIBM_F64}[name]
        arguments = ", ".join(["double"] * count)
        lines.append(f"declare double @{name}({arguments}) nounwind willreturn memory(none)")
    return "\n".join([*lines, *text])


_TEXT: dict[str, str] = {}


def _source(name: str) -> str:
    if name not in _TEXT:
        _TEXT[name] = _SOURCES[name]()
    return _TEXT[name]
