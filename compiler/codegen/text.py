"""LLVM IR as text: registers, blocks, counted loops, index arithmetic that folds Python ints.

Text is 30 times cheaper to make than builder objects. An index operand is a Python int or the name
of an i64 register; a result is an int whenever both operands are.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager

from ..ir.dtypes import F32, F64, DType

Index = int | str


def literal(value, dtype: DType) -> str:
    """A constant of the *register* type of `dtype` (narrow floats live in f32 registers)."""
    if dtype.kind == "bool":
        return "true" if value else "false"
    if dtype.is_integer:
        return str(int(value))
    if dtype.kind == "complex":
        part = F32 if dtype.bits == 64 else F64
        return (f"{{{part.llvm} {literal(value.real, part)},"
                f" {part.llvm} {literal(value.imag, part)}}}")
    number = float(value)
    if dtype.bits <= 32:
        number = struct.unpack("<f", struct.pack("<f", _clip_f32(number)))[0]
    return f"0x{struct.unpack('<Q', struct.pack('<d', number))[0]:016X}"


def _clip_f32(number: float) -> float:
    import numpy as np

    with np.errstate(all="ignore"):
        return float(np.float32(number))


def register_type(dtype: DType) -> str:
    """The LLVM type an element of `dtype` has in a register."""
    return "float" if dtype.is_float and dtype.is_narrow else dtype.llvm


def suffix(dtype: DType) -> str:
    """The overload suffix of an intrinsic on registers of `dtype`."""
    if dtype.is_float:
        return "f64" if dtype.bits == 64 else "f32"
    return dtype.llvm


class Text:
    """An LLVM function body under construction."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.current = "start"
        self.declarations: set[str] = set()
        self.metadata: list[str] = []
        self._count = 0

    def fresh(self, prefix: str = "t") -> str:
        self._count += 1
        return f"{prefix}{self._count}"

    def inst(self, text: str) -> str:
        """Append an instruction and return the register of its result."""
        register = f"%{self.fresh()}"
        self.lines.append(f"  {register} = {text}")
        return register

    def do(self, text: str) -> None:
        """Append an instruction without a result."""
        self.lines.append(f"  {text}")

    def block(self, label: str) -> None:
        self.lines.append(f"{label}:")
        self.current = label

    def declare(self, declaration: str) -> None:
        self.declarations.add(declaration)

    @contextmanager
    def loop(self, low: Index, high: Index, step: Index = 1, independent: bool = False,
             short: bool = False) -> Iterator[str]:
        """`for i in range(low, high, step)`, tested before the first round.

        `independent`: no round reads or writes what another writes, which LLVM need not find out;
        `short`: there are too few rounds for vectors.
        """
        head, body, done = (self.fresh(p) for p in ("head", "body", "done"))
        before = self.current
        index = f"%{self.fresh('i')}"
        self.do(f"br label %{head}")
        self.block(head)
        place = len(self.lines)
        self.lines.append("")
        more = self.inst(f"icmp slt i64 {index}, {high}")
        self.do(f"br i1 {more}, label %{body}, label %{done}")
        self.block(body)
        yield index
        following = self.inst(f"add nuw nsw i64 {index}, {step}")
        self.lines[place] = (
            f"  {index} = phi i64 [{low}, %{before}], [{following}, %{self.current}]")
        note = self._independent(place) if independent else self._short() if short else ""
        self.do(f"br label %{head}{note}")
        self.block(done)

    @contextmanager
    def when(self, condition: str) -> Iterator[None]:
        """`if condition:` around the body, which leaves nothing behind but what it stores."""
        body, done = self.fresh("when"), self.fresh("done")
        self.do(f"br i1 {condition}, label %{body}, label %{done}")
        self.block(body)
        yield
        self.do(f"br label %{done}")
        self.block(done)

    def _independent(self, start: int) -> str:
        """Mark every access since line `start` as one of a loop that ends here, and the loop. The
        variables of a round are its own: they become registers."""
        group = len(self.metadata)
        self.metadata += [f"!{group} = distinct !{{}}",
                          f"!{group + 1} = distinct !{{!{group + 1}, !{group + 2}}}",
                          f'!{group + 2} = !{{!"llvm.loop.parallel_accesses", !{group}}}']
        for number in range(start, len(self.lines)):
            line = self.lines[number]
            if (" = load " in line or line.startswith("  store ")) and "ptr %cell" not in line:
                self.lines[number] = f"{line}, !llvm.access.group !{group}"
        return f", !llvm.loop !{group + 1}"

    def _short(self) -> str:
        group = len(self.metadata)
        self.metadata += [f"!{group} = distinct !{{!{group}, !{group + 1}}}",
                          f'!{group + 1} = !{{!"llvm.loop.vectorize.enable", i1 false}}']
        return f", !llvm.loop !{group}"

    # -- index arithmetic -------------------------------------------------------------------------

    def iadd(self, a: Index, b: Index) -> Index:
        if isinstance(a, int) and isinstance(b, int):
            return a + b
        if a == 0:
            return b
        return a if b == 0 else self.inst(f"add nsw i64 {a}, {b}")

    def isub(self, a: Index, b: Index) -> Index:
        if isinstance(a, int) and isinstance(b, int):
            return a - b
        return a if b == 0 else self.inst(f"sub nsw i64 {a}, {b}")

    def imul(self, a: Index, b: Index) -> Index:
        if isinstance(a, int) and isinstance(b, int):
            return a * b
        if a == 0 or b == 0:
            return 0
        if a == 1:
            return b
        return a if b == 1 else self.inst(f"mul nsw i64 {a}, {b}")

    def idiv(self, a: Index, b: Index) -> Index:
        """Quotient of non-negative indices."""
        if isinstance(a, int) and isinstance(b, int):
            return a // b if b else 0
        return a if b == 1 else self.inst(f"udiv i64 {a}, {b}")

    def irem(self, a: Index, b: Index) -> Index:
        """Remainder of non-negative indices."""
        if isinstance(a, int) and isinstance(b, int):
            return a % b if b else 0
        return 0 if b == 1 else self.inst(f"urem i64 {a}, {b}")

    def imin(self, a: Index, b: Index) -> Index:
        if isinstance(a, int) and isinstance(b, int):
            return min(a, b)
        return self._extreme("smin", a, b)

    def imax(self, a: Index, b: Index) -> Index:
        if isinstance(a, int) and isinstance(b, int):
            return max(a, b)
        return self._extreme("smax", a, b)

    def _extreme(self, name: str, a: Index, b: Index) -> str:
        self.declare(f"declare i64 @llvm.{name}.i64(i64, i64)")
        return self.inst(f"call i64 @llvm.{name}.i64(i64 {a}, i64 {b})")

    def icompare(self, predicate: str, a: Index, b: Index) -> str:
        return self.inst(f"icmp {predicate} i64 {a}, {b}")

    def all(self, conditions: list[str]) -> str:
        """The conjunction of i1 registers (at least one)."""
        result = conditions[0]
        for condition in conditions[1:]:
            result = self.inst(f"and i1 {result}, {condition}")
        return result
