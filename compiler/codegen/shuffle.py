"""Vectors rearranged in registers."""

from __future__ import annotations

from collections.abc import Sequence

from .text import Text


def transpose(text: Text, registers: Sequence[str], kind: str) -> list[str]:
    """The transpose of a square of vectors of the LLVM type `kind`, `<n x t>` for n registers.

    One round per bit of n: two vectors 2**bit apart exchange blocks of that many elements.
    """
    rows, n = list(registers), len(registers)
    step = 1
    while step < n:
        for i in range(n):
            if i & step:
                continue
            a, b = rows[i], rows[i + step]
            low = [p if not p & step else n + p - step for p in range(n)]
            high = [p + step if not p & step else n + p for p in range(n)]
            for row, order in ((i, low), (i + step, high)):
                mask = ", ".join(f"i32 {p}" for p in order)
                rows[row] = text.inst(f"shufflevector {kind} {a}, {kind} {b}, <{n} x i32> <{mask}>")
        step *= 2
    return rows


def interleave(text: Text, registers: Sequence[str], lanes: int, bits: int) -> str:
    """Vectors of `lanes` integers each as one of i32: the first word is made of their first numbers."""
    rows = list(registers)
    while len(rows) > 1:
        order = ", ".join(f"i32 {i}, i32 {lanes + i}" for i in range(lanes))
        kind, pairs = f"<{lanes} x i{bits}>", f"<{2 * lanes} x i{bits}>"
        both = [text.inst(f"shufflevector {kind} {a}, {kind} {b}, <{2 * lanes} x i32> <{order}>")
                for a, b in zip(rows[::2], rows[1::2], strict=True)]
        bits *= 2
        rows = [text.inst(f"bitcast {pairs} {v} to <{lanes} x i{bits}>") for v in both]
    return rows[0]


def lane_mask(text: Text, count: str | int, lanes: int) -> str:
    """`<lanes x i1>`: true in the first `count` lanes (none below 0, all from `lanes`)."""
    if isinstance(count, int):
        bits = ", ".join(f"i1 {'true' if i < count else 'false'}" for i in range(lanes))
        return f"<{bits}>"
    first = text.inst(f"insertelement <{lanes} x i64> poison, i64 {count}, i64 0")
    splat = text.inst(f"shufflevector <{lanes} x i64> {first}, <{lanes} x i64> poison,"
                      f" <{lanes} x i32> zeroinitializer")
    steps = ", ".join(f"i64 {i}" for i in range(lanes))
    return text.inst(f"icmp slt <{lanes} x i64> <{steps}>, {splat}")
