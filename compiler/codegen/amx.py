"""Micro-kernels of matrix products in tile registers: Intel's AMX.

A tile register holds 16 rows of 64 bytes. The product of two takes 16 rows of 16 words of a and 16 rows
of 16 words of b, and adds to 16 rows of 16 sums. Four registers of sums, two of a and two of b make the
32 by 32 sums of a micro-kernel, or fewer of them a smaller one:

    c[r, j] (+)= sum over k of a[r * a_row + k] * b[k * b_k + j]

A convolution has loops around that over k (`tile.py`). Words along K are taken 16 at a time, so that
what is packed ends with zeros there. The shapes of the registers are a state of the thread: whole ones
are configured at the start of a task, the variant for edges configures its own and puts them back.
Source: Intel 64 Software Developer's Manual, volume 1, chapter 18.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .text import Index, Text

if TYPE_CHECKING:
    from .emitter import Emitter
    from .tile import Micro

ROWS = 16
"""Rows of a register, and words in one of its rows."""
_WORD, _BYTES = 4, 64
_SUMS = ((0, 1), (2, 3))
_LEFT, _RIGHT = (4, 5), (6, 7)
_WHOLE = "kernel.whole"
_ARCH_PRCTL, _REQUEST, _TILE_DATA = 158, 0x1023, 18


@functools.cache
def allowed() -> bool:
    """May this process use tile registers? Linux gives them to a process that asks (arch_prctl(2),
    ARCH_REQ_XCOMP_PERM); its threads and forks have them, too."""
    if not sys.platform.startswith("linux"):
        return False
    return ctypes.CDLL(None, use_errno=True).syscall(_ARCH_PRCTL, _REQUEST, _TILE_DATA) == 0


@contextmanager
def configured(emit: Emitter, height: int) -> Iterator[None]:
    """Code in which registers are whole, of `height` rows, as micro-kernels but those of edges expect.
    They are released after it: a thread that holds them takes longer to switch."""
    shape = [1, *[0] * 15, *[_BYTES, 0] * 8, *[0] * 16, *[height] * 6, *[ROWS] * 2, *[0] * 8]
    emit.definitions[_WHOLE] = (f"@{_WHOLE} = private unnamed_addr constant [64 x i8]"
                                f" [{', '.join(f'i8 {b}' for b in shape)}], align 64")
    emit.declare("declare void @llvm.x86.ldtilecfg(ptr)")
    emit.declare("declare void @llvm.x86.tilerelease()")
    emit.do(f"call void @llvm.x86.ldtilecfg(ptr @{_WHOLE})")
    yield
    emit.do("call void @llvm.x86.tilerelease()")


def height_of(rows: int, lines: int = 1) -> int:
    """Rows of a register, for a tile of one or two `lines` of evenly spaced rows."""
    return rows // 2 if lines == 2 or rows > ROWS else rows


def micro_kernel(emit: Emitter, name: str, micro: Micro, edge: bool) -> str:
    """The function of a micro-kernel, with the parameters of those in vector registers (`tile.py`)."""
    return _MicroKernel(emit, micro, edge).function(name)


class _MicroKernel:
    def __init__(self, emit: Emitter, micro: Micro, edge: bool):
        self.emit, self.micro, self.edge, self.text = emit, micro, edge, Text()
        self.height = height_of(micro.tile.rows, 2 if micro.a_rows else 1)
        self.halves, self.vectors = micro.tile.rows // self.height, micro.tile.vectors
        word = micro.product.word_bytes
        a_row, b_k, c_row = (
            stride if isinstance(stride, int) else parameter for stride, parameter in (
                (micro.a_row, "%ar"), (micro.b_k, "%bk"), (micro.c_row, "%cr")))
        self.by_row, self.by_k, self.by_c = (self.text.imul(s, word) for s in (a_row, b_k, c_row))

    def function(self, name: str) -> str:
        text = self.text
        rows = ["%a", *(self._at("%a", self._offset(i * self.height)) for i in range(1, self.halves))]
        exists = [[""] * self.vectors for _ in rows]
        if self.edge:
            self._configure(*((text.imin(n, ROWS), text.imax(text.isub(n, ROWS), 1))
                              for n in ("%rows", "%cols")))
            tall, wide = (text.icompare("sgt", n, ROWS) for n in ("%rows", "%cols"))
            # For rows that do not exist the first one again; what it gives is not stored.
            rows[1:] = [text.inst(f"select i1 {tall}, ptr {row}, ptr %a") for row in rows[1:]]
            exists = [["", wide], [tall, text.all([tall, wide])]]
        sums = [(_SUMS[i][j], self._at("%c", text.iadd(text.imul(self.by_c, i * self.height),
                                                       j * _BYTES)), exists[i][j])
                for i in range(self.halves) for j in range(self.vectors)]
        for register, _, _ in sums:
            self._do("tilezero", f"i8 {register}")
        if self.micro.adds:
            self._each(sums, "tileloadd64", "%add")
        self._around(rows, 0, 0)
        self._each(sums, "tilestored64")
        if self.edge:
            self._configure((ROWS, ROWS), (ROWS, ROWS))
        for declaration in text.declarations:
            self.emit.declare(declaration)
        lines = "\n".join(text.lines)
        counts = "".join(f", i64 %o{i}" for i in range(len(self.micro.outer)))
        return (f"define internal void @{name}(ptr noalias %a, ptr noalias %b, ptr noalias %c, i64 %k,"
                f" i64 %ar, i64 %ak, i64 %bk, i64 %cr, i64 %rows, i64 %cols{counts}, i1 %add"
                f"{', ptr %coming, i64 %apart, i64 %beside' if self.micro.coming else ''}) #1 {{\n"
                f"entry:\n  %shape = alloca [64 x i8], align 64\n  br label %start\n"
                f"start:\n{lines}\n  ret void\n}}")

    def _offset(self, row: int) -> Index:
        """Bytes from the first row of a."""
        if self.micro.a_rows:
            return self.micro.a_rows[row] * self.micro.product.word_bytes
        return self.text.imul(self.by_row, row)

    def _around(self, rows: Sequence[str], done: Index, number: int) -> None:
        """The loops from `number` on, after `done` rounds of the loop over k."""
        text, outer = self.text, self.micro.outer
        depth: Index = "%k" if self.micro.depth is None else self.micro.depth
        if number == len(outer):
            right = self._at("%b", text.imul(text.imul(done, depth), self.by_k))
            with text.loop(0, depth, ROWS) as k:
                self._step(rows, right, k)
            return
        with text.loop(0, f"%o{number}") as i:
            step = text.imul(i, outer[number] * self.micro.product.word_bytes)
            self._around([self._at(row, step) for row in rows],
                         text.iadd(text.imul(done, f"%o{number}"), i), number + 1)

    def _step(self, rows: Sequence[str], right: str, k: Index) -> None:
        """The products of 16 words along K."""
        text = self.text
        lines = self.micro.coming * ROWS // self.micro.unroll
        if lines:
            text.declare("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
            coming = self._at("%coming", text.imul(k, lines * _BYTES // ROWS))
            for i in range(lines):
                text.do(f"call void @llvm.prefetch.p0(ptr {self._at(coming, i * _BYTES)},"
                        " i32 0, i32 2, i32 1)")
        for row, register in zip(rows, _LEFT, strict=False):
            # Past the first-level cache, which keeps the panel of b: 20 %.
            self._move("tileloaddt164", register, self._at(row, text.imul(k, _WORD)), self.by_row)
        right = self._at(right, text.imul(k, self.by_k))
        for j in range(self.vectors):
            self._move("tileloadd64", _RIGHT[j], self._at(right, j * _BYTES), self.by_k)
        for i in range(self.halves):
            for j in range(self.vectors):
                self._do(self.micro.product.intrinsic.removeprefix("llvm.x86."),
                         f"i8 {_SUMS[i][j]}, i8 {_LEFT[i]}, i8 {_RIGHT[j]}")

    def _each(self, sums: list[tuple[int, str, str]], instruction: str, condition: str = "") -> None:
        """Move the registers of sums whose rows and columns exist."""
        text = self.text
        for register, pointer, exists in sums:
            conditions = [c for c in (condition, exists) if c]
            after = text.fresh("after")
            if conditions:
                here = text.fresh("here")
                text.do(f"br i1 {text.all(conditions)}, label %{here}, label %{after}")
                text.block(here)
            self._move(instruction, register, pointer, self.by_c)
            if conditions:
                text.do(f"br label %{after}")
                text.block(after)

    def _configure(self, rows: tuple[Index, Index], columns: tuple[Index, Index]) -> None:
        """Registers for so many rows in both halves, and so many columns."""
        text = self.text
        text.do("store <64 x i8> zeroinitializer, ptr %shape, align 64")
        text.do("store i8 1, ptr %shape, align 1")
        wide = [text.imul(c, _WORD) for c in columns]
        shapes = [*((_SUMS[i][j], rows[i], wide[j]) for i in range(2) for j in range(2)),
                  *((_LEFT[i], rows[i], _BYTES) for i in range(2)),
                  *((_RIGHT[j], ROWS, wide[j]) for j in range(2))]
        for register, height, nbytes in shapes:
            for offset, kind, number in ((16 + 2 * register, "i16", nbytes),
                                         (48 + register, "i8", height)):
                value = number if isinstance(number, int) else text.inst(
                    f"trunc i64 {number} to {kind}")
                text.do(f"store {kind} {value}, ptr {self._at('%shape', offset)}, align 1")
        self._do("ldtilecfg", "ptr %shape")

    def _move(self, instruction: str, register: int, pointer: str, stride: Index) -> None:
        self._do(instruction, f"i8 {register}, ptr {pointer}, i64 {stride}")

    def _do(self, instruction: str, operands: str) -> None:
        types = ", ".join(o.split()[0] for o in operands.split(", "))
        self.text.declare(f"declare void @llvm.x86.{instruction}({types})")
        self.text.do(f"call void @llvm.x86.{instruction}({operands})")

    def _at(self, base: str, offset: Index) -> str:
        """An address so many bytes after another."""
        return base if offset == 0 else self.text.inst(
            f"getelementptr inbounds i8, ptr {base}, i64 {offset}")
