"""Reductions that keep the innermost dim: whole rows are added into rows of the result.

One element at a time would stride through memory. Many columns are shared between threads as they are;
few are summed in blocks of rows, whose number follows from the extents alone, and the blocks are added
up in order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..ir.core import Value
from ..ops.reduction import combiner, identity_of
from .emitter import Emitter
from .text import Index, register_type
from .work import Work

Element = Callable[[str, dict[int, Any]], str]
"""The register to store at a place of the row at given indices."""

_WIDE = 512
"""Columns that give every thread whole cache lines of its own."""
_STRIPE = 64
_ROWS = 256
"""Rows added to a partial sum before it is added to the result."""
_BLOCKS = 16
_BLOCK_ELEMENTS = 1 << 15
"""Elements that make a block of their own worth while."""


def accumulate(emit: Emitter, value: Value, pointer: str) -> None:
    """Emit the reduction `value` to the buffer `pointer`."""
    op = value.op
    assert op is not None
    rows = _Rows(emit, value, pointer)
    columns = value.shape[-1]
    cost = (60, *op.operands[0].shape[:-1])
    if not isinstance(columns, int) or columns >= _WIDE or not rows.can_block():
        work = Work((columns,), (_STRIPE,), (_STRIPE, *cost))
        with emit.phase(work):
            low = emit.imul("%first", _STRIPE)
            high = emit.imin(emit.imul("%last", _STRIPE), rows.columns)
            rows.sum(pointer, low, high, 0, emit.extent(op.operands[0], rows.dims[0]))
        return
    rows.blocks(Work((_BLOCKS,), (), (4, *op.operands[0].shape)))


class _Rows:
    """The loops of one reduction."""

    def __init__(self, emit: Emitter, value: Value, pointer: str):
        self.emit, self.value, self.pointer = emit, value, pointer
        assert value.op is not None
        self.op = value.op
        self.x, self.initial = self.op.operands
        self.dims = sorted(self.op.attributes["dimensions"])
        self.kept = [d for d in range(len(self.x.shape)) if d not in self.dims]
        self.columns = emit.extent(self.x, self.kept[-1])

    def can_block(self) -> bool:
        """Blocks of rows, where the result is small and known, and a start value comes once."""
        size = self.value.type.size
        return isinstance(size, int) and size <= 1 << 14

    def blocks(self, work: Work) -> None:
        """Sum blocks of the outermost reduced dim apart, then their sums."""
        emit, dtype = self.emit, self.value.dtype
        size = self.value.type.size
        assert isinstance(size, int)
        wide = register_type(dtype)
        memory = emit.scratch(_BLOCKS * size * dtype.itemsize)

        def partial(block: Index) -> str:
            return self._slot(memory, emit.imul(block, size))

        with emit.phase(work):
            extent, length = self._division()
            with emit.loop("%first", "%last") as block, emit.scope():
                low = emit.imin(emit.imul(block, length), extent)
                high = emit.imin(emit.iadd(low, length), extent)
                self.sum(partial(block), 0, self.columns, low, high, first=block)
        with emit.phase(Work()):
            extent, length = self._division()
            used = emit.idiv(emit.isub(emit.iadd(extent, length), 1), length)
            with emit.loop(0, size) as i, emit.scope():
                place = self._slot(self.pointer, i)
                source = self._slot(memory, i)
                cell = emit.cell(wide)
                emit.do(f"store {wide} {emit.load_from(source, dtype)}, ptr {cell}")
                with emit.loop(1, used) as block, emit.scope():
                    source = self._slot(memory, emit.iadd(emit.imul(block, size), i))
                    old = emit.inst(f"load {wide}, ptr {cell}")
                    new = emit.region(self.op.regions[0], [old, emit.load_from(source, dtype)])[0]
                    emit.do(f"store {wide} {new}, ptr {cell}")
                emit.store_to(place, dtype, emit.inst(f"load {wide}, ptr {cell}"))

    def _division(self) -> tuple[Index, Index]:
        """The outermost reduced extent, and how much of it makes a block."""
        emit = self.emit
        extent = emit.extent(self.x, self.dims[0])
        total: Index = 1
        for d in range(len(self.x.shape)):
            total = emit.imul(total, emit.extent(self.x, d))
        count = emit.imax(emit.imin(emit.idiv(total, _BLOCK_ELEMENTS), _BLOCKS), 1)
        return extent, emit.imax(emit.idiv(emit.isub(emit.iadd(extent, count), 1), count), 1)

    def sum(self, into: str, low: Index, high: Index, top: Index, bottom: Index,
            first: Index | None = None) -> None:
        """Reduce the columns `low` to `high` of the rows `top` to `bottom` (of the outermost reduced
        dim) to memory of the result's shape; only the block `first` = 0 begins with the start value."""
        emit, value, x = self.emit, self.value, self.x
        emit.pointers[value] = into
        body, kept, dims = self.op.regions[0], self.kept, self.dims
        partial = self._partial_rows()

        def each_column(at: dict[int, Any], row: int, element: Element) -> None:
            """Store `element(place, at)` in each place of a row: a partial sum, or (-1) the result."""
            with emit.loop(low, high) as j, emit.scope():
                full = {**at, kept[-1]: j}
                place = (emit.pointer(value, [full[d] for d in kept]) if row < 0
                         else self._slot(partial[row], j))
                emit.store_to(place, value.dtype, element(place, full))

        def combined(more: Callable[[dict[int, Any]], str]) -> Element:
            def element(place: str, full: dict[int, Any]) -> str:
                return emit.region(body, [emit.load_from(place, value.dtype), more(full)])[0]
            return element

        def rows(at: dict[int, Any], rest: list[int], target: int) -> None:
            if not rest:
                each_column(at, target, combined(
                    lambda full: emit.at(x, [full[d] for d in range(len(x.shape))])))
                return
            row = len(dims) - len(rest)
            begin, end = (top, bottom) if row == 0 else (0, emit.extent(x, rest[0]))
            step = _ROWS if row == 0 and row in partial and len(rest) == 1 else 1
            with emit.loop(begin, end, step) as i, emit.scope():
                if row not in partial:
                    rows({**at, rest[0]: i}, rest[1:], target)
                    return
                each_column(at, row, lambda *_: emit.constant(-0.0, value.dtype))
                if step == 1:
                    rows({**at, rest[0]: i}, rest[1:], row)
                else:
                    with emit.loop(i, emit.imin(emit.iadd(i, step), end)) as k, emit.scope():
                        rows({**at, rest[0]: k}, [], row)
                each_column(at, target, combined(
                    lambda full: emit.load_from(self._slot(partial[row], full[kept[-1]]),
                                                value.dtype)))

        def outer(at: dict[int, Any], rest: list[int]) -> None:
            if rest:
                with emit.loop(0, emit.extent(x, rest[0])) as i, emit.scope():
                    outer({**at, rest[0]: i}, rest[1:])
                return
            each_column(at, -1, lambda *_: self._start(first))
            rows(at, dims, -1)

        outer({}, kept[:-1])
        del emit.pointers[value]

    def _slot(self, base: str, i: Index) -> str:
        return self.emit.inst(f"getelementptr inbounds {self.value.dtype.storage}, ptr {base}, i64 {i}")

    def _partial_rows(self) -> dict[int, str]:
        """Pointers to rows of partial sums, by the number of the reduced dim they begin anew with.

        One running sum of n numbers has an error that grows with n: over the 100,000 pixels of a batch
        40 times that of XLA's. Sums of the inner dims, added up in turn, keep it small.
        """
        emit, x, columns = self.emit, self.x, self.value.shape[-1]
        added = combiner(self.op.regions[0]) == "add" and x.dtype.is_float
        if not added or not isinstance(columns, int):
            return {}
        numbers = [0] if len(self.dims) == 1 else _boundaries(
            [emit.extent(x, d) for d in self.dims])
        memory = emit.workspace(len(numbers) * columns * x.dtype.itemsize)
        return {number: self._slot(memory, columns * i) for i, number in enumerate(numbers)}

    def _start(self, first: Index | None) -> str:
        """What a sum begins with: the start value, or what changes nothing."""
        emit, dtype = self.emit, self.value.dtype
        start = emit.at(self.initial, [])
        if first is None:
            return start
        own = emit.icompare("eq", first, 0)
        return emit.select(own, dtype, start, emit.constant(self._neutral(), dtype))

    def _neutral(self):
        kind, dtype = combiner(self.op.regions[0]), self.value.dtype
        assert kind is not None
        # 0 + -0 is 0: the neutral element of float addition is -0.
        return -0.0 if kind == "add" and dtype.is_float else identity_of(kind, dtype)


def _boundaries(extents: list[int | str]) -> list[int]:
    """The reduced dims in each round of which a partial sum begins, one for every 16 rows or more."""
    found, rows = [], 1
    for number in range(len(extents) - 2, -1, -1):
        extent = extents[number + 1]
        rows *= extent if isinstance(extent, int) else 16
        if rows >= 16:
            found.append(number)
            rows = 1
    return found
