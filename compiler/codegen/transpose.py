"""Transposes that move the innermost dim: squares of elements are turned over in registers.

Result dims whose elements lie behind each other in the operand, too, count as one. Then one dim is
contiguous in the operand, another in the result, and a task turns squares of the two over. The last
square of a line begins early to be whole: it writes again what is there. A dim too small for squares is
unrolled, so that LLVM interleaves its elements. A square that fills lines is stored past the cache
where the result is large: 4096 x 4096 take a third of the time on Emerald Rapids.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..ir.core import Block, Op
from .emitter import Emitter
from .shuffle import transpose as turn
from .stream import past_the_cache
from .target import LINE, Target
from .text import Index
from .work import Work

_SIDE_BY_SIDE = 128
"""Elements of the operand's rows that a task reads, half as many where they are small: 4096 x 4096 f32
take half the time they take with 32."""
_UNROLLED = 8
_PICOSECONDS = 100


@dataclass(frozen=True)
class _Axis:
    """A dim of the result: its size, and the distance of its elements in operand and result."""

    size: int
    source: int
    target: int


def is_turned(op: Op) -> bool:
    """Is it a transpose worth a kernel of its own? Its elements are not read in order."""
    if op.name != "stablehlo.transpose" or op.operands[0].dtype.itemsize > 8:
        return False
    axes = _axes(op)
    if axes is None:
        return False
    columns, rows = axes[-1], next((a for a in axes if a.source == 1), axes[-1])
    return rows is not columns and min(rows.size, columns.size) >= _UNROLLED


def transposition(block: Block) -> Op | None:
    """The op of a kernel that does nothing but transpose a buffer, if it does not copy rows."""
    if len(block.ops) != 1:
        return None
    (op,) = block.ops
    if (op.name != "stablehlo.transpose" or op.operands[0] not in block.arguments
            or op.operands[0].dtype.itemsize > 8):
        return None
    axes = _axes(op)
    return op if axes is not None and axes[-1].source != 1 else None


def _axes(op: Op) -> list[_Axis] | None:
    """The dims of the result but an outermost one that stays (the batch, of any size), merged. None
    where there are unknown sizes, or nothing to do."""
    shape, permutation = op.operands[0].shape, op.attributes["permutation"]
    stays = bool(permutation) and permutation[0] == 0
    sizes = [s for s in shape[stays:] if isinstance(s, int)]
    order = [d - stays for d in permutation[stays:]]
    if not sizes or len(sizes) < len(order) or 0 in sizes:
        return None
    axes: list[_Axis] = []
    for i, d in enumerate(order):
        size, source = sizes[d], math.prod(sizes[d + 1:])
        target = math.prod(sizes[e] for e in order[i + 1:])
        if size == 1:
            continue
        if axes and axes[-1].source == source * size:
            axes[-1] = _Axis(axes[-1].size * size, source, target)
        else:
            axes.append(_Axis(size, source, target))
    return axes or None


def transposed(emit: Emitter, op: Op, pointer: str, target: Target) -> None:
    """Emit the kernel of `transposition`; the result's buffer is `pointer`."""
    axes = _axes(op)
    assert axes is not None
    x = op.operands[0]
    stays = op.attributes["permutation"][0] == 0
    columns = axes[-1]
    rows = next(a for a in axes if a.source == 1)
    others = [a for a in axes if a is not rows and a is not columns]
    square = _Squares(emit, rows, columns, x.dtype.itemsize, target)
    step = square.step
    grid = (*(x.shape[:1] if stays else ()), *(a.size for a in others), rows.size)
    work = Work(grid, (*[1] * (len(grid) - 1), step),
                (_PICOSECONDS, min(step, rows.size), columns.size))
    with emit.phase(work), emit.loop("%first", "%last") as task, emit.scope():
        blocks = -(-rows.size // step)
        rest: Index = emit.idiv(task, blocks)
        first = emit.imul(emit.irem(task, blocks), step)
        read: Index = 0
        write: Index = 0
        for axis in reversed(others):
            i = emit.irem(rest, axis.size)
            rest = emit.idiv(rest, axis.size)
            read = emit.iadd(read, emit.imul(i, axis.source))
            write = emit.iadd(write, emit.imul(i, axis.target))
        if stays:
            image = math.prod(a.size for a in axes)
            read, write = (emit.iadd(v, emit.imul(rest, image)) for v in (read, write))
        source = emit.pointers[x]
        if not square.fills_lines():
            square.block(source, pointer, read, write, first)
            return
        emit.pointers[op.result] = pointer
        past_the_cache(emit, op.result,
                       lambda note: square.block(source, pointer, read, write, first, note))


class _Squares:
    """Blocks of elements, contiguous along `rows` in the operand and along `columns` in the result."""

    def __init__(self, emit: Emitter, rows: _Axis, columns: _Axis, itemsize: int, target: Target):
        self.emit, self.rows, self.columns, self.itemsize = emit, rows, columns, itemsize
        self.kind = f"i{8 * itemsize}"
        lanes = min(16, target.tile.bits // (8 * itemsize))
        self.lanes = lanes if lanes <= min(rows.size, columns.size) else 0
        """Elements along a side of a square; 0 where there is not one."""
        self.step = _SIDE_BY_SIDE if itemsize > 2 else _SIDE_BY_SIDE // 2
        if not self.lanes and rows.size > columns.size:
            self.step = 4096

    def fills_lines(self) -> bool:
        """Does a square store whole lines of the cache, if the result begins with one?"""
        return self.lanes * self.itemsize == LINE and self.columns.size % self.lanes == 0

    def block(self, source: str, target: str, read: Index, write: Index, first: Index,
              note: str = "") -> None:
        """Turn over the rows from `first` to before `first + step`; `note` ends the stores."""
        emit = self.emit
        last = emit.imin(emit.iadd(first, self.step), self.rows.size)
        if not self.lanes:
            self._elements(source, target, read, write, first, last)
            return
        end = self.columns.size
        with emit.loop(0, end, self.lanes) as c, emit.scope():
            column = emit.imin(c, end - self.lanes)
            with emit.loop(first, last, self.lanes) as r, emit.scope():
                row = emit.imin(r, self.rows.size - self.lanes)
                self._square(self._place(source, read, row, column, "source"),
                             self._place(target, write, row, column, "target"), note)

    def _place(self, pointer: str, base: Index, row: Index, column: Index, side: str) -> str:
        emit = self.emit
        offset = emit.iadd(emit.imul(row, getattr(self.rows, side)),
                           emit.imul(column, getattr(self.columns, side)))
        return self._at(pointer, emit.iadd(base, offset))

    def _at(self, pointer: str, offset: Index) -> str:
        return pointer if offset == 0 else self.emit.inst(
            f"getelementptr inbounds {self.kind}, ptr {pointer}, i64 {offset}")

    def _square(self, source: str, target: str, note: str) -> None:
        emit, vector = self.emit, f"<{self.lanes} x {self.kind}>"
        lines = [emit.inst(f"load {vector}, ptr {self._at(source, i * self.columns.source)},"
                           f" align {self.itemsize}") for i in range(self.lanes)]
        for i, line in enumerate(turn(emit, lines, vector)):
            emit.do(f"store {vector} {line}, ptr {self._at(target, i * self.rows.target)},"
                    f" align {LINE if note else self.itemsize}{note}")

    def _elements(self, source: str, target: str, read: Index, write: Index, first: Index,
                  last: Index) -> None:
        """One by one; a small dim unrolled inside of the other."""
        emit = self.emit

        def copy(row: Index, column: Index) -> None:
            x = emit.inst(f"load {self.kind}, ptr {self._place(source, read, row, column, 'source')},"
                          f" align {self.itemsize}")
            emit.do(f"store {self.kind} {x}, ptr {self._place(target, write, row, column, 'target')},"
                    f" align {self.itemsize}")

        if self.columns.size <= _UNROLLED:
            with emit.loop(first, last) as row, emit.scope():
                for few in range(self.columns.size):
                    copy(row, few)
            return
        with emit.loop(0, self.columns.size) as column, emit.scope():
            if self.rows.size <= _UNROLLED:
                for few in range(self.rows.size):
                    copy(few, column)
                return
            with emit.loop(first, last) as row, emit.scope():
                copy(row, column)
