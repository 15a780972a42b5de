"""Reductions that keep the innermost dim: whole rows are added into rows of the result.

One element at a time would stride through memory. Sums for each example of a batch are shared between
threads by example, many columns as they are; few are summed in blocks of rows, whose number follows
from the extents alone, and the blocks are added up in order. Sums of the same rows are made in one
pass, which also stores what they are sums of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..ir.core import Op, Value
from ..ir.dtypes import DType
from ..ops.reduction import combiner, identity_of
from .emitter import Emitter
from .text import Index, register_type
from .work import Work

Element = Callable[[int, str, dict[int, Any]], str]
"""The register to store at a place of the row of a sum (by number) at given indices."""
Output = tuple[Value, str]
"""A value and the buffer it is stored in."""

_WIDE = 512
"""Columns that give every thread whole cache lines of its own."""
_STRIPE = 64
_ROWS = 256
"""Rows added to a partial sum before it is added to the result."""
_BLOCKS = 16
_BLOCK_ELEMENTS = 1 << 15
"""Elements that make a block of their own worth while."""


def accumulate(emit: Emitter, sums: Sequence[Output], elements: Sequence[Output] = ()) -> None:
    """Emit reductions of the same dims of operands of one shape, and store `elements` of that shape."""
    value = sums[0][0]
    op = value.op
    assert op is not None
    rows = _Rows(emit, sums, elements)
    columns = value.shape[-1]
    each = 60 * (len(sums) + len(elements))
    cost = (each, *op.operands[0].shape[:-1])
    bottom = emit.extent(op.operands[0], rows.dims[0])
    if rows.are_apart() and isinstance(columns, int) and columns < _WIDE:
        outermost, *inner = [op.operands[0].shape[d] for d in (*rows.kept[:-1], *rows.dims)]
        with emit.phase(Work((outermost,), (), (each, columns, *inner))):
            rows.sum([p for _, p in sums], 0, columns, 0, bottom, outermost=("%first", "%last"))
        return
    if not isinstance(columns, int) or columns >= _WIDE or not rows.can_block():
        work = Work((columns,), (_STRIPE,), (_STRIPE, *cost))
        with emit.phase(work):
            low = emit.imul("%first", _STRIPE)
            high = emit.imin(emit.imul("%last", _STRIPE), rows.columns)
            rows.sum([p for _, p in sums], low, high, 0, bottom)
        return
    rows.blocks(Work((_BLOCKS,), (), (4 * (len(sums) + len(elements)), *op.operands[0].shape)))


def accumulates(outputs: Sequence[Value]) -> bool:
    """Are these sums of rows of one shape, and elements of that shape?"""
    sums = [v for v in outputs if v.op is not None and adds_rows(v.op)]
    if not sums:
        return False
    first = sums[0].op
    assert first is not None
    shape, dims = tuple(first.operands[0].shape), sorted(first.attributes["dimensions"])
    return (len(outputs) == 1 or all(_adds_floats(v, sums[0].dtype) for v in sums)) and all(
        tuple(v.op.operands[0].shape) == shape and sorted(v.op.attributes["dimensions"]) == dims
        if v in sums and v.op is not None else tuple(v.shape) == shape for v in outputs)


def adds_rows(op: Op) -> bool:
    """A reduction that keeps the innermost dim."""
    if op.name != "stablehlo.reduce" or len(op.results) != 1 or not op.attributes["dimensions"]:
        return False
    rank, result = len(op.operands[0].shape), op.result
    return (rank - 1 not in op.attributes["dimensions"] and len(result.shape) > 0
            and combiner(op.regions[0]) is not None
            and result.dtype.kind != "bool" and result.dtype.bits >= 32)


def _adds_floats(value: Value, dtype: DType) -> bool:
    return (value.op is not None and value.dtype == dtype and dtype.is_float
            and combiner(value.op.regions[0]) == "add")


class _Rows:
    """The loops of reductions of one shape."""

    def __init__(self, emit: Emitter, sums: Sequence[Output], elements: Sequence[Output]):
        self.emit, self.elements = emit, elements
        self.values, self.pointers = [v for v, _ in sums], [p for _, p in sums]
        self.value = self.values[0]
        self.ops = [v.op for v in self.values if v.op is not None]
        self.op = self.ops[0]
        self.x = self.op.operands[0]
        self.dims = sorted(self.op.attributes["dimensions"])
        self.kept = [d for d in range(len(self.x.shape)) if d not in self.dims]
        self.columns = emit.extent(self.x, self.kept[-1])

    def are_apart(self) -> bool:
        """Is there a row of the result for each example of a batch, whose size is not known?"""
        return len(self.kept) > 1 and isinstance(self.emit.extent(self.x, self.kept[0]), str)

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
        memory = emit.scratch(len(self.ops) * _BLOCKS * size * dtype.itemsize)

        def partial(number: int, block: Index, i: Index = 0) -> str:
            start = emit.imul(emit.iadd(block, number * _BLOCKS), size)
            return self._slot(memory, emit.iadd(start, i))

        with emit.phase(work):
            extent, length = self._division()
            with emit.loop("%first", "%last") as block, emit.scope():
                low = emit.imin(emit.imul(block, length), extent)
                high = emit.imin(emit.iadd(low, length), extent)
                self.sum([partial(number, block) for number in range(len(self.ops))],
                         0, self.columns, low, high, first=block)
        with emit.phase(Work()):
            extent, length = self._division()
            used = emit.idiv(emit.isub(emit.iadd(extent, length), 1), length)
            with emit.loop(0, size) as i, emit.scope():
                for number, op in enumerate(self.ops):
                    place = self._slot(self.pointers[number], i)
                    cell = emit.cell(wide)
                    start = emit.load_from(partial(number, 0, i), dtype)
                    emit.do(f"store {wide} {start}, ptr {cell}")
                    with emit.loop(1, used) as block, emit.scope():
                        more = emit.load_from(partial(number, block, i), dtype)
                        old = emit.inst(f"load {wide}, ptr {cell}")
                        new = emit.region(op.regions[0], [old, more])[0]
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

    def sum(self, into: Sequence[str], low: Index, high: Index, top: Index, bottom: Index,
            first: Index | None = None, outermost: tuple[Index, Index] | None = None) -> None:
        """Reduce the columns `low` to `high` of the rows `top` to `bottom` (of the outermost reduced
        dim) to memories of the results' shape; only the block `first` = 0 begins with the start value.
        `outermost`: the range of the outermost kept dim, where it is not all of it.
        """
        emit, value, x = self.emit, self.value, self.x
        emit.pointers.update(zip(self.values, into, strict=True))
        kept, dims = self.kept, self.dims
        partial = self._partial_rows()

        def each_column(at: dict[int, Any], row: int, element: Element, stored=()) -> None:
            """Store `element(number, place, at)` in each place of a row of each sum: a partial sum, or
            (-1) the result; and the `stored` elements at that place."""
            with emit.loop(low, high) as j, emit.scope():
                full = {**at, kept[-1]: j}
                for number, v in enumerate(self.values):
                    place = (emit.pointer(v, [full[d] for d in kept]) if row < 0
                             else self._slot(partial[row][number], j))
                    emit.store_to(place, v.dtype, element(number, place, full))
                for v, pointer in stored:
                    index = [full[d] for d in range(len(x.shape))]
                    place = emit.inst(f"getelementptr inbounds {v.dtype.storage}, ptr {pointer},"
                                      f" i64 {emit.linear(x, index)}")
                    emit.store_to(place, v.dtype, emit.at(v, index))

        def combined(more: Callable[[int, dict[int, Any]], str]) -> Element:
            def element(number: int, place: str, full: dict[int, Any]) -> str:
                return emit.region(self.ops[number].regions[0],
                                   [emit.load_from(place, value.dtype), more(number, full)])[0]
            return element

        def rows(at: dict[int, Any], rest: list[int], target: int) -> None:
            if not rest:
                each_column(at, target, combined(lambda number, full: emit.at(
                    self.ops[number].operands[0], [full[d] for d in range(len(x.shape))])),
                    self.elements)
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
                    lambda number, full: emit.load_from(
                        self._slot(partial[row][number], full[kept[-1]]), value.dtype)))

        def outer(at: dict[int, Any], rest: list[int]) -> None:
            if rest:
                part = outermost if rest[0] == kept[0] else None
                begin, end = part or (0, emit.extent(x, rest[0]))
                with emit.loop(begin, end) as i, emit.scope():
                    outer({**at, rest[0]: i}, rest[1:])
                return
            each_column(at, -1, lambda number, *_: self._start(number, first))
            rows(at, dims, -1)

        outer({}, kept[:-1])
        for v in self.values:
            del emit.pointers[v]

    def _slot(self, base: str, i: Index) -> str:
        return self.emit.inst(f"getelementptr inbounds {self.value.dtype.storage}, ptr {base}, i64 {i}")

    def _partial_rows(self) -> dict[int, list[str]]:
        """Pointers to rows of partial sums, by the number of the reduced dim they begin anew with and
        the number of the sum.

        One running sum of n numbers has an error that grows with n: over the 100,000 pixels of a batch
        40 times that of XLA's. Sums of the inner dims, added up in turn, keep it small.
        """
        emit, x, columns = self.emit, self.x, self.value.shape[-1]
        added = combiner(self.op.regions[0]) == "add" and x.dtype.is_float
        if not added or not isinstance(columns, int):
            return {}
        numbers = [0] if len(self.dims) == 1 else _boundaries(
            [emit.extent(x, d) for d in self.dims])
        count = len(self.ops)
        memory = emit.workspace(len(numbers) * count * columns * x.dtype.itemsize)
        return {number: [self._slot(memory, columns * (i * count + k)) for k in range(count)]
                for i, number in enumerate(numbers)}

    def _start(self, number: int, first: Index | None) -> str:
        """What a sum begins with: the start value, or what changes nothing."""
        emit, dtype = self.emit, self.value.dtype
        start = emit.at(self.ops[number].operands[1], [])
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
