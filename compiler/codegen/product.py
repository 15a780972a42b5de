"""How the elements of a matrix product are multiplied: in what type they are packed and added up.

Elements of 8 and 16 bits multiply in *words* of 32 bits, two or four neighbours of K at a time, where
the target has an instruction for it; a row of the table says so. Otherwise they are widened while they
are packed. Integers are exact modulo the result's range, floats are rounded once from an f32 sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..ir.core import Op
from ..ir.dtypes import BF16, F32, F64, I8, I16, I32, I64, UI8, DType
from . import amx
from .target import Target
from .text import Text

if TYPE_CHECKING:
    from .emitter import Emitter


@dataclass(frozen=True)
class Product:
    """`sums` += `packed` * `packed`, `group` neighbours of K in a word."""

    sums: DType
    packed: DType
    group: int = 1
    intrinsic: str = ""
    """Of words of a and words of b; multiply and add if there is none."""
    adds: bool = False
    """The instruction takes the sums, too, as its first operand."""
    flips: bool = False
    """The instruction takes a unsigned: a signed one is packed with 128 added, and each K block of b
    begins with a row of what sums start from, -128 times the sums of its columns."""
    tiles: bool = False
    """The instruction multiplies tile registers (`amx.py`)."""

    @property
    def word(self) -> str:
        """The LLVM type of a word."""
        return "i32" if self.group > 1 else self.packed.llvm

    @property
    def word_type(self) -> DType:
        """Of a word in memory."""
        return I32 if self.group > 1 else self.packed

    @property
    def word_bytes(self) -> int:
        return self.group * self.packed.itemsize

    @property
    def depth(self) -> int:
        """Words along K that are taken at once: what is packed ends with zeros."""
        return amx.ROWS if self.tiles else 1

    def add(self, text: Text, total: str, a: str, b: str, lanes: int) -> str:
        """Emit `total + a * b` of vectors of so many words; returns its register."""
        kind, words = f"<{lanes} x {self.sums.llvm}>", f"<{lanes} x {self.word}>"
        if self.intrinsic:
            pair = f"<{lanes * self.group} x {self.packed.llvm}>"
            a, b = (text.inst(f"bitcast {words} {v} to {pair}") for v in (a, b))
            operands = [(pair, a), (pair, b)]
            if self.adds:
                operands.insert(0, (kind, total))
            types = ", ".join(t for t, _ in operands)
            text.declare(f"declare {kind} @{self.intrinsic}({types})")
            given = ", ".join(f"{t} {v}" for t, v in operands)
            result = text.inst(f"call {kind} @{self.intrinsic}({given})")
            return result if self.adds else text.inst(f"add {kind} {total}, {result}")
        if self.sums.is_float:
            name = f"llvm.fma.v{lanes}f{self.sums.bits}"
            text.declare(f"declare {kind} @{name}({kind}, {kind}, {kind})")
            return text.inst(f"call {kind} @{name}({kind} {a}, {kind} {b}, {kind} {total})")
        return text.inst(f"add {kind} {total}, {text.inst(f'mul {kind} {a}, {b}')}")

    def add_scalar(self, text: Text, total: str, x: str, y: str) -> str:
        """Emit `total + x * y` of numbers of the type `sums`."""
        kind = self.sums.llvm
        if not self.sums.is_float:
            return text.inst(f"add {kind} {total}, {text.inst(f'mul {kind} {x}, {y}')}")
        name = f"llvm.fma.f{self.sums.bits}"
        text.declare(f"declare {kind} @{name}({kind}, {kind}, {kind})")
        return text.inst(f"call {kind} @{name}({kind} {x}, {kind} {y}, {kind} {total})")


    def total(self, emit: Emitter, register: str, dtype: DType) -> str:
        """A sum as an element of a result of `dtype`."""
        if dtype.is_float:
            return emit.rounded(register, dtype)
        return register if dtype.bits == self.sums.bits else emit.inst(
            f"trunc {self.sums.llvm} {register} to {dtype.llvm}")


_BYTES = (I8, UI8)
_DOT = "llvm.x86.avx512.vpdpbusd.512"
INSTRUCTIONS: tuple[tuple[tuple[DType, ...], tuple[DType, ...], str, Product], ...] = (
    ((BF16,), (BF16,), "+amx-bf16", Product(F32, BF16, 2, "llvm.x86.tdpbf16ps", tiles=True)),
    ((I8,), (I8,), "+amx-int8", Product(I32, I8, 4, "llvm.x86.tdpbssd", tiles=True)),
    ((I8,), (UI8,), "+amx-int8", Product(I32, I8, 4, "llvm.x86.tdpbsud", tiles=True)),
    ((UI8,), (I8,), "+amx-int8", Product(I32, I8, 4, "llvm.x86.tdpbusd", tiles=True)),
    ((UI8,), (UI8,), "+amx-int8", Product(I32, I8, 4, "llvm.x86.tdpbuud", tiles=True)),
    ((BF16,), (BF16,), "+avx512bf16", Product(F32, BF16, 2, "llvm.x86.avx512bf16.dpbf16ps.512", True)),
    ((UI8,), (I8,), "+avx512vnni", Product(I32, I8, 4, _DOT, True)),
    ((I8,), (I8,), "+avx512vnni", Product(I32, I8, 4, _DOT, True, flips=True)),
    (_BYTES, _BYTES, "+avx512bw", Product(I32, I16, 2, "llvm.x86.avx512.pmaddw.d.512")),
    (_BYTES, _BYTES, "+avx2", Product(I32, I16, 2, "llvm.x86.avx2.pmadd.wd")),
)
"""Types of a, types of b, a feature, and how they multiply with it. The first row that fits; vectors of
its instruction are as wide as the target's tile. That of bf16 takes subnormals for zeros."""


def sums_of(op: Op) -> DType | None:
    """What a product adds up in; None where its numbers do not fit into that."""
    operands, result = [v.dtype for v in op.operands], op.result.dtype
    if result.is_float and all(d.is_float for d in operands):
        sums = F64 if result.bits == 64 else F32
    elif result.is_integer and all(d.is_integer for d in operands):
        sums = I64 if result.bits == 64 else I32
    else:
        return None
    return sums if all(8 <= d.bits <= sums.bits for d in (*operands, result)) else None


def product_of(op: Op, target: Target) -> Product:
    """How `op`, which `sums_of` accepts, multiplies on a target."""
    sums, (lhs, rhs) = sums_of(op), (v.dtype for v in op.operands)
    assert sums is not None
    features = target.features.split(",")
    for left, right, feature, product in INSTRUCTIONS:
        if lhs in left and rhs in right and feature in features and product.sums is sums:
            return product
    return Product(sums, sums)
