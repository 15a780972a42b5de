"""The scatter kernel: it writes where the data says.

Updates are applied one after the other in row-major order, so colliding updates combine in a fixed
order whatever the machine: threads share columns or what never meets. An index is looked at once; its
window is combined in runs of neighbouring elements. A result that begins as an operand is written in
place (`update.py`), one that begins as zeros, say, is filled first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..ir.core import Op
from ..ops.indexing import Scatter, _batch_dims, _batch_source
from .emitter import Emitter
from .stream import past_the_cache
from .target import LINE
from .text import Index
from .work import Work

_STRIPE = 64
"""Columns that a task of long rows does, in elements: whole cache lines."""
_NEAR = 1 << 18
"""Bytes that stay in the cache: no prefetching."""
_AHEAD = 1 << 12
"""Bytes of windows that are asked for ahead: those of a large result are where the data says, and no
hardware foresees them."""
_WINDOWS = 8, 128
"""The fewest and the most of them."""
_LINES = 16


def nest(emit: Emitter, value, body, index=()) -> None:
    """Run `body(index)` for every index of `value`, in row-major order."""
    if len(index) == len(value.shape):
        body(list(index))
        return
    with emit.loop(0, emit.extent(value, len(index))) as i, emit.scope():
        nest(emit, value, body, (*index, i))


def when(emit: Emitter, conditions: list[str], body) -> None:
    """Run `body()` when all conditions hold."""
    if not conditions:
        body()
        return
    inside, after = emit.fresh("inside"), emit.fresh("after")
    emit.do(f"br i1 {emit.all(conditions)}, label %{inside}, label %{after}")
    emit.block(inside)
    with emit.scope():
        body()
    emit.do(f"br label %{after}")
    emit.block(after)


class Windows:
    """The windows of a scatter: where they begin, and which of their dims are one run in memory."""

    def __init__(self, emit: Emitter, op: Op):
        self.emit, self.op, self.result, self.body = emit, op, op.result, op.regions[0]
        self.x, self.indices, self.updates = op.operands
        self.numbers = n = Scatter.as_gather(op.attributes["scatter_dimension_numbers"])
        x, updates = self.x, self.updates
        self.kept = [d for d in range(len(x.shape))
                     if d not in n.collapsed_slice_dims and d not in n.operand_batching_dims]
        self.batch = _batch_dims(len(updates.shape), n.offset_dims)
        numbers = op.attributes["scatter_dimension_numbers"]
        self.shape = Scatter.window_sizes(x.shape, updates.shape, numbers)
        self.sizes: list[Index] = Scatter.window_sizes(
            [emit.extent(x, d) for d in range(len(x.shape))],
            [emit.extent(updates, d) for d in range(len(updates.shape))], numbers)
        self.last = self.batch == list(range(len(self.batch)))
        """Are the dims of the windows the last ones of the updates?"""
        self.run = self._run()
        """The first dim of the operand that belongs to a run; its rank, if no run is two elements."""

    def _run(self) -> int:
        rank = len(self.x.shape)
        if not self.last:
            return rank
        first, d = rank, rank - 1
        while d >= 0 and d in self.kept and self.updates in self.emit.pointers:
            first = d
            if self.shape[d] != self.x.shape[d]:
                break
            d -= 1
        if self.updates not in self.emit.pointers and rank - 1 in self.kept:
            first = rank - 1
        return first

    @property
    def far(self) -> bool:
        """Are windows to be fetched: long ones, or those of a result too large for a cache?"""
        count, result = self.elements(), self.result
        size = result.type.with_shape(result.shape[self.parts:]).nbytes
        return (not isinstance(size, int) or size > _NEAR
                or (count is not None and LINE <= count * result.dtype.itemsize <= size // 2))

    def prefetch(self, batch: Sequence[Index], low: Index) -> None:
        """Ask for the window of an index that comes later, from the element `low` of its run on. Where
        it is out of bounds, nothing is there, which does no harm."""
        emit, result = self.emit, self.result
        if not batch:
            return
        emit.declare("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
        last = emit.isub(emit.extent(self.updates, self.batch[-1]), 1)
        nbytes = (self.elements() or 1) * result.dtype.itemsize
        fewest, most = _WINDOWS
        later = emit.imin(emit.iadd(batch[-1], min(max(_AHEAD // nbytes, fewest), most)), last)
        starts, _ = self.starts([*batch[:-1], later])
        first = emit.inst(f"getelementptr {result.dtype.storage}, ptr {emit.pointers[result]},"
                          f" i64 {emit.iadd(emit.linear(result, starts), low)}")
        for offset in range(0, min(nbytes, _LINES * LINE), LINE):
            line = emit.inst(f"getelementptr i8, ptr {first}, i64 {offset}")
            emit.do(f"call void @llvm.prefetch.p0(ptr {line}, i32 1, i32 3, i32 1)")

    @property
    def parts(self) -> int:
        """The leading dims of operand, indices and updates that are batching dims of both: what differs
        there never meets."""
        n, count = self.numbers, 0
        pairs = list(zip(n.operand_batching_dims, n.start_indices_batching_dims, strict=True))
        while (count, count) in pairs and count < n.index_vector_dim and self.last:
            count += 1
        return count

    def length(self) -> Index:
        """The elements of a run."""
        total: Index = 1
        for d in range(self.run, len(self.x.shape)):
            total = self.emit.imul(total, self.sizes[d])
        return total

    def elements(self) -> int | None:
        """The elements of a run where they are known now."""
        extents = self.shape[self.run:]
        return math.prod(extents) if all(isinstance(e, int) for e in extents) else None

    def starts(self, batch: Sequence[Index]) -> tuple[list[Index], list[str]]:
        """Where a window begins along each dim of the operand, and the conditions that it is inside."""
        emit, n, x, indices = self.emit, self.numbers, self.x, self.indices
        places: list[Index] = []
        conditions: list[str] = []
        for d in range(len(x.shape)):
            start: Index = 0
            if d in n.start_index_map:
                at = list(batch)
                if n.index_vector_dim < len(indices.shape):
                    at.insert(n.index_vector_dim, n.start_index_map.index(d))
                start = emit.to_index(emit.at(indices, at), indices.dtype)
                last = emit.isub(emit.extent(x, d), self.sizes[d])
                conditions += [emit.icompare("sge", start, 0), emit.icompare("sle", start, last)]
            elif d in n.operand_batching_dims:
                start = batch[_batch_source(n.operand_batching_dims, n.start_indices_batching_dims,
                                            n.index_vector_dim, d)]
            places.append(start)
        return places, conditions

    def window(self, starts: Sequence[Index], batch: Sequence[Index], low: Index, high: Index) -> None:
        """Combine the window of one index into the result: of each run the elements from `low` to
        before `high`."""
        emit, n = self.emit, self.numbers
        outer = [d for d in self.kept if d < self.run]

        def runs(offsets: dict[int, Index]) -> None:
            if len(offsets) < len(outer):
                d = outer[len(offsets)]
                with emit.loop(0, self.sizes[d]) as i, emit.scope():
                    runs({**offsets, d: i})
                return
            full: list[Index] = [0] * len(self.updates.shape)
            for d, at in zip(self.batch, batch, strict=True):
                full[d] = at
            for d, at in offsets.items():
                full[n.offset_dims[self.kept.index(d)]] = at
            place = [emit.iadd(s, offsets.get(d, 0)) for d, s in enumerate(starts)]
            target = emit.pointer(self.result, place)
            if self.run == len(self.x.shape):
                self.combine(target, emit.at(self.updates, full))
                return
            stored = self.updates in emit.pointers
            source = emit.pointer(self.updates, full) if stored else ""
            with emit.loop(low, high, independent=True) as j, emit.scope():
                update = (emit.load_from(self.slot(source, j), self.updates.dtype) if stored else
                          emit.at(self.updates, [*full[:-1], j]))
                self.combine(self.slot(target, j), update)

        runs({})

    def slot(self, pointer: str, i: Index) -> str:
        return self.emit.inst(
            f"getelementptr inbounds {self.result.dtype.storage}, ptr {pointer}, i64 {i}")

    def combine(self, pointer: str, update: str) -> None:
        """Combine an update into an element."""
        emit, dtype = self.emit, self.result.dtype
        old = emit.load_from(pointer, dtype)
        emit.store_to(pointer, dtype, emit.region(self.body, [old, update])[0])


def scatter(emit: Emitter, op: Op) -> None:
    """Combine each in-bounds update into the operand; what is in the result already where both are the
    same memory."""
    windows = Windows(emit, op)
    x, result = op.operands[0], op.result
    begun = emit.pointers.get(x) == emit.pointers[result]
    parts = windows.parts
    if not begun and not parts:
        with emit.phase(Work(tuple(result.shape[:1]), cost=(50, *result.shape[1:]))):
            _begin(emit, windows, ("%first", "%last"))
    if parts:
        # Of an element of the updates, in picoseconds.
        work = Work(tuple(result.shape[:parts]), cost=(200, *windows.updates.shape[parts:]))
        with emit.phase(work), emit.loop("%first", "%last") as task, emit.scope():
            at = emit.split(task, windows.updates, parts)
            if not begun:
                _begin(emit, windows, at=at)
            _apply(emit, windows, at)
        return
    count = windows.elements()
    if count is None or count < 2 * _STRIPE or not windows.last:
        with emit.phase(Work()):
            _apply(emit, windows)
        return
    cost = (200 * _STRIPE, *windows.updates.shape[:len(windows.batch)])
    with emit.phase(Work((count,), (_STRIPE,), cost)):
        low = emit.imul("%first", _STRIPE)
        _apply(emit, windows, low=low, high=emit.imin(emit.imul("%last", _STRIPE), count))


def _is_splat(op: Op) -> bool:
    """Is every element of the result the same?"""
    return op.name == "stablehlo.constant" or (
        op.name == "stablehlo.broadcast_in_dim" and not op.operands[0].shape)


def _begin(emit: Emitter, windows: Windows, tasks: tuple[Index, Index] | None = None,
           at: Sequence[Index] = ()) -> None:
    """Copy the operand to the result: the outermost indices `tasks`, or what is at the index `at`."""
    x, result = windows.x, windows.result

    if x.op is not None and _is_splat(x.op) and tasks is not None and result.shape:
        inner: Index = 1
        for d in range(1, len(result.shape)):
            inner = emit.imul(inner, emit.extent(result, d))
        low, high = (emit.imul(task, inner) for task in tasks)
        _fill(emit, windows, low, high)
        return

    def copy(index: Sequence[Index]) -> None:
        rank = len(result.shape)
        if len(index) == rank:
            emit.store_to(emit.pointer(result, index), result.dtype, emit.at(x, index))
            return
        d = len(index)
        low, high = tasks if tasks is not None and d == 0 else (0, emit.extent(result, d))
        with emit.loop(low, high, independent=d == rank - 1) as i, emit.scope():
            copy((*index, i))

    copy(tuple(at))


def _fill(emit: Emitter, windows: Windows, low: Index, high: Index) -> None:
    """Store the one element that the operand consists of from `low` to before `high`."""
    x, result = windows.x, windows.result
    element = emit.at(x, [0] * len(x.shape))

    def run(low: Index, high: Index) -> None:
        with emit.loop(low, high, independent=True) as i, emit.scope():
            emit.store_to(windows.slot(emit.pointers[result], i), result.dtype, element)

    lanes = LINE // result.dtype.itemsize

    def lines(past: str) -> None:
        vector = f"<{lanes} x {result.dtype.storage}>"
        cell = emit.cell(vector)
        for k in range(lanes):
            emit.store_to(emit.inst(f"getelementptr {result.dtype.storage}, ptr {cell}, i64 {k}"),
                          result.dtype, element)
        line = emit.inst(f"load {vector}, ptr {cell}, align {LINE}")
        first = emit.imin(emit.imul(emit.idiv(emit.iadd(low, lanes - 1), lanes), lanes), high)
        after = emit.imax(emit.imul(emit.idiv(high, lanes), lanes), first)
        run(low, first)
        with emit.loop(first, after, lanes) as i, emit.scope():
            place = windows.slot(emit.pointers[result], i)
            emit.do(f"store {vector} {line}, ptr {place}, align {LINE}{past}")
        run(after, high)

    past_the_cache(emit, result, lambda past: lines(past) if past else run(low, high),
                   emit.target.bytes_filled)


def _apply(emit: Emitter, windows: Windows, at: Sequence[Index] = (), low: Index = 0,
           high: Index | None = None) -> None:
    """Combine all updates, or those of the part `at`."""
    if not windows.last:
        _apply_elements(emit, windows)
        return
    until = windows.length() if high is None else high
    far = windows.far

    def one(batch: list[Index]) -> None:
        if len(batch) < len(windows.batch):
            extent = emit.extent(windows.updates, windows.batch[len(batch)])
            with emit.loop(0, extent) as i, emit.scope():
                one([*batch, i])
            return
        starts, conditions = windows.starts(batch)
        if far:
            windows.prefetch(batch, low)
        when(emit, conditions, lambda: windows.window(starts, batch, low, until))

    one(list(at))


def _apply_elements(emit: Emitter, windows: Windows) -> None:
    """One element of the updates after the other: their order decides where windows overlap."""
    n = windows.numbers

    def one(index: list[Index]) -> None:
        starts, conditions = windows.starts([index[d] for d in windows.batch])
        place = [emit.iadd(s, index[n.offset_dims[windows.kept.index(d)]] if d in windows.kept else 0)
                 for d, s in enumerate(starts)]
        when(emit, conditions, lambda: windows.combine(
            emit.pointer(windows.result, place), emit.at(windows.updates, index)))

    nest(emit, windows.updates, one)


