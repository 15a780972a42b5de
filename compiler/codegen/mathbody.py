"""A straight-line LLVM function under construction: what elementary functions are written with.

Everything is selects instead of branches, so that a loop over the function vectorises.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

MAGIC = 1.5 * 2.0**23
"""Added to an f32 it leaves the nearest integer in the low bits; multiples of it vanish from a word
that is shifted to the exponent."""


CALLED = "noinline nounwind willreturn memory(none)"
"""Attributes of functions that are called, not inlined."""


def variants_of(name: str, variants: Mapping[int, str] | None) -> str:
    """The attribute that tells LLVM which functions do the same on vectors, by their lanes."""
    if not variants:
        return ""
    mapped = ",".join(f"_ZGV_LLVM_N{n}v_{name}({v})" for n, v in variants.items())
    return f' "vector-function-abi-variant"="{mapped}"'


def hexadecimal(x: float) -> str:
    """A float constant in the form LLVM reads for both `float` and `double`."""
    return f"0x{struct.unpack('<Q', struct.pack('<d', x))[0]:016X}"


def single(x: float) -> float:
    """`x` rounded to f32: a `float` constant must be exactly representable."""
    return struct.unpack("<f", struct.pack("<f", x))[0]


class Body:
    """A function `kind @tfn.NAME.fBITS(kind %x[, kind %y])`. Registers are strings.

    With `lanes` they hold vectors, and the function is `@tfn.NAME.vLANESfBITS`.
    """

    def __init__(self, name: str, bits: int, arguments: int = 1, lanes: int = 1):
        self.bits, self.lanes = bits, lanes
        self.suffix = f"f{bits}" if lanes == 1 else f"v{lanes}f{bits}"
        self.name = f"tfn.{name}.{self.suffix}"
        self.kind = self.wide("double" if bits == 64 else "float")
        self.word = self.wide(f"i{bits}")
        names = ["%x", "%y"][:arguments]
        parameters = ", ".join(f"{self.kind} {n}" for n in names)
        self.head = f"define internal {self.kind} @{self.name}({parameters})"
        self.lines: list[str] = []

    def wide(self, element: str) -> str:
        """The type of a register of elements."""
        return element if self.lanes == 1 else f"<{self.lanes} x {element}>"

    def every(self, element: str, value: str | int) -> str:
        """The constant `value` in a register of elements."""
        return str(value) if self.lanes == 1 else f"splat ({element} {value})"

    def number(self, x: float) -> str:
        element = "double" if self.bits == 64 else "float"
        return self.every(element, hexadecimal(x if self.bits == 64 else single(x)))

    def do(self, text: str) -> str:
        register = f"%v{len(self.lines)}"
        self.lines.append(f"  {register} = {text}")
        return register

    def op(self, opcode: str, a: str, b: str) -> str:
        return self.do(f"{opcode} {self.kind} {a}, {b}")

    def integer(self, opcode: str, a: str, b: str | int) -> str:
        b = self.every(f"i{self.bits}", b) if isinstance(b, int) else b
        return self.do(f"{opcode} {self.word} {a}, {b}")

    def fma(self, a: str, b: str, c: str) -> str:
        return self.call("fma", a, b, c)

    def call(self, name: str, *arguments: str) -> str:
        """An LLVM intrinsic (`fma`, `fabs`, ...) or, with a dot, a function of the library."""
        symbol = f"{name if name.startswith('tfn.') else f'llvm.{name}'}.{self.suffix}"
        given = ", ".join(f"{self.kind} {a}" for a in arguments)
        return self.do(f"call {self.kind} @{symbol}({given})")

    def select(self, condition: str, a: str, b: str) -> str:
        return self.do(f"select {self.wide('i1')} {condition}, {self.kind} {a}, {self.kind} {b}")

    def compare(self, predicate: str, a: str, b: str) -> str:
        return self.do(f"fcmp {predicate} {self.kind} {a}, {b}")

    def bits_of(self, x: str) -> str:
        return self.do(f"bitcast {self.kind} {x} to {self.word}")

    def from_bits(self, x: str) -> str:
        return self.do(f"bitcast {self.word} {x} to {self.kind}")

    def polynomial(self, x: str, coefficients: Sequence[float]) -> str:
        """Horner, highest power first."""
        result = self.number(coefficients[0])
        for c in coefficients[1:]:
            result = self.fma(result, x, self.number(c))
        return result

    def halves(self, x: str, square: str, coefficients: Sequence[float]) -> str:
        """The polynomial, even and odd powers apart: half the latency, which is what a processor waits
        for (+10 %)."""
        odd, even = (self.polynomial(square, coefficients[k % 2::2])
                     for k in (len(coefficients), len(coefficients) + 1))
        return self.fma(odd, x, even)

    def whole(self, x: str, factor: float | None = None) -> tuple[str, str]:
        """`x`, or `factor` times it, rounded to an integer, as a float and in the low bits of a word.

        Adding 1.5 * 2**p leaves the integer in the mantissa: no conversion that NaN would break.
        """
        magic = 1.5 * 2.0 ** (52 if self.bits == 64 else 23)
        shifted = (self.op("fadd", x, self.number(magic)) if factor is None
                   else self.fma(x, self.number(factor), self.number(magic)))
        base = struct.unpack("<q" if self.bits == 64 else "<i",
                             struct.pack("<d" if self.bits == 64 else "<f", magic))[0]
        return (self.op("fsub", shifted, self.number(magic)),
                self.integer("sub", self.bits_of(shifted), base))

    def power_of_two(self, n: str) -> str:
        """2**n for an integer register in the normal range."""
        bias, place = (1023, 52) if self.bits == 64 else (127, 23)
        return self.from_bits(self.integer("shl", self.integer("add", n, bias), place))

    def scaled(self, x: str, n: str, bits: int) -> str:
        """`x` times 2**n for an integer register, rounded once, where x is about 1 or smaller."""
        if bits == 512:  # AVX-512's `scalef`
            return self.do(f"call {self.kind} @llvm.ldexp.{self.suffix}.i{self.bits}"
                           f"({self.kind} {x}, {self.word} {n})")
        # Two factors: 2**n alone over- or underflows before the product does.
        half = self.integer("ashr", n, 1)
        scales = self.power_of_two(half), self.power_of_two(self.integer("sub", n, half))
        return self.op("fmul", self.op("fmul", x, scales[0]), scales[1])

    def finish(self, result: str) -> str:
        return "\n".join([f"{self.head} alwaysinline nounwind willreturn memory(none) {{",
                          *self.lines, f"  ret {self.kind} {result}", "}"])

    def finish_called(self, result: str, variants: Mapping[int, str] | None = None) -> str:
        """Finish a function that stays one until loops are vectorised; `variants`: the symbols of the
        same function of vectors, by their lanes."""
        return "\n".join([f"{self.head} {CALLED}{variants_of(self.name, variants)} {{",
                          *self.lines, f"  ret {self.kind} {result}", "}"])

    def finish_narrow(self, result: str) -> str:
        """Finish an f32 function whose `result` is a double register."""
        return self.finish(self.do(f"fptrunc double {result} to float"))
