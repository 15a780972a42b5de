"""What a sort's comparator orders by, as unsigned numbers: a radix sort needs no comparisons.

A comparator that is `compare(f(a), f(b))`, less or greater, of one operand, in the total order of
floats or of integers, orders by the bits of f, made monotone. That is how JAX and `tfn.numpy` write it:
f there makes zeros equal, and NaNs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..ir.core import Block, Op, Value
from ..ir.dtypes import MINIFLOATS, DType
from .emitter import Emitter
from .text import literal

INDEX_BITS = 32
"""A word holds the position of its element below the key."""


@dataclass(frozen=True)
class Order:
    """The order of one operand of a sort: by the key `function` of its elements."""

    operand: int
    function: Block
    descends: bool

    @staticmethod
    def of(op: Op) -> Order | None:
        """The order a sort is by; None for a comparator that is none, or too long a line."""
        body = op.regions[0]
        compare = body.returns[0].op
        if compare is None or compare.name != "stablehlo.compare":
            return None
        direction = compare.attributes["comparison_direction"]
        left, right = compare.operands
        dtype = left.dtype
        total = not dtype.is_float or compare.attributes.get("compare_type") == "TOTALORDER"
        found: set[int] = set()
        if (direction not in ("LT", "GT") or not total or dtype.kind == "complex"
                or dtype in MINIFLOATS or not _alike(left, right, body, found) or len(found) != 1):
            return None
        length = op.operands[0].shape[op.attributes.get("dimension", -1)]
        if isinstance(length, int) and length >= 1 << INDEX_BITS:
            return None
        (argument,) = found
        # Of (b, a) it is the other way round.
        descends = (direction == "GT") != bool(argument % 2)
        function = Block()
        function.arguments, function.ops, function.returns = body.arguments, body.ops, [left]
        return Order(argument // 2, function, descends)

    @property
    def dtype(self) -> DType:
        return self.function.returns[0].dtype

    @property
    def bits(self) -> int:
        """The width of a key: whole bytes."""
        return max(self.dtype.bits, 8)

    @property
    def word(self) -> str:
        """The LLVM type of a key above its element's position."""
        return "i64" if self.bits <= 32 else "i128"

    @property
    def word_bytes(self) -> int:
        return 8 if self.bits <= 32 else 16

    def key(self, emit: Emitter, element: str) -> str:
        """The key of a register: unsigned, smaller is first."""
        kind, registers = f"i{self.bits}", []
        for i, argument in enumerate(self.function.arguments):
            registers.append(element if i // 2 == self.operand else literal(
                np.zeros((), argument.dtype.numpy)[()], argument.dtype))
        (x,) = emit.region(self.function, registers)
        dtype, sign = self.dtype, -(1 << (self.bits - 1))
        if dtype.is_float:
            x = emit.narrowed(x, dtype) if dtype.is_narrow else x
            x = emit.inst(f"bitcast {dtype.llvm} {x} to {kind}")
            negative = emit.inst(f"ashr {kind} {x}, {self.bits - 1}")
            x = emit.inst(f"xor {kind} {x}, {emit.inst(f'or {kind} {negative}, {sign}')}")
        else:
            if dtype.bits < 8:
                extend = "sext" if dtype.kind == "int" else "zext"
                x = emit.inst(f"{extend} {dtype.llvm} {x} to {kind}")
            if dtype.kind == "int":
                x = emit.inst(f"xor {kind} {x}, {sign}")
        return emit.inst(f"xor {kind} {x}, -1") if self.descends else x

    def packed(self, emit: Emitter, key: str, position: str) -> str:
        """A key and the position of its element as one word."""
        word = self.word
        if self.bits < int(word[1:]):
            key = emit.inst(f"zext i{self.bits} {key} to {word}")
        position = emit.inst(f"zext i64 {position} to {word}") if word != "i64" else position
        return emit.inst(f"or {word} {emit.inst(f'shl {word} {key}, {INDEX_BITS}')}, {position}")

    def position(self, emit: Emitter, word: str) -> str:
        """The position in a word, as an index."""
        low = emit.inst(f"trunc {self.word} {word} to i{INDEX_BITS}")
        return emit.inst(f"zext i{INDEX_BITS} {low} to i64")


def _alike(a: Value, b: Value, body: Block, found: set[int]) -> bool:
    """Is `b` the same function of the second element of a pair as `a` is of the first? `found` gets the
    number of the argument that `a` depends on."""
    if a in body.arguments and b in body.arguments:
        i, j = body.arguments.index(a), body.arguments.index(b)
        found.add(i)
        return i // 2 == j // 2 and i != j
    if a.op is None or b.op is None or a.op.name != b.op.name or a.index != b.index:
        return False
    if a.op.name == "stablehlo.constant":
        x, y = (v.op.attributes["value"] for v in (a, b) if v.op is not None)
        return x.dtype == y.dtype and x.tobytes() == y.tobytes()
    return (a.op.attributes == b.op.attributes and not a.op.regions
            and len(a.op.operands) == len(b.op.operands)
            and getattr(a.op.definition, "scalar", None) is not None
            and all(_alike(x, y, body, found)
                    for x, y in zip(a.op.operands, b.op.operands, strict=True)))
