"""The gradient of pooling by an extreme: select_and_scatter.

Where windows do not reach along the innermost dim (channels), a vector is neighbouring channels: the
place each lane selects is the number of an element of the window, and every element of the window is
then added to where it is the one. Images of a batch are tasks. Other windows go by single elements.
"""

from __future__ import annotations

import math
from itertools import product as cartesian

from ..errors import UnsupportedError
from ..ir.core import Op
from ..ops.elementwise import COMPARISONS
from ..ops.reduction import combiner, window_defaults
from .emitter import Emitter
from .lanes import Lanes
from .scatter import nest, when
from .text import Index
from .work import Work

_LARGEST = 32
"""Elements of a window that are told apart without a loop."""
_PICOSECONDS = 100


def select_and_scatter(emit: Emitter, op: Op) -> None:
    """For each source element find the selected place of its window and combine there."""
    if combiner(op.regions[1]) is None:
        raise UnsupportedError("select_and_scatter with a custom scatter body", op.location)
    channels = _Channels(emit, op)
    if channels.fit():
        channels.emit_phases()
        return
    with emit.phase(Work()):
        _by_elements(emit, op)


class _Channels:
    """Vectors along the innermost dim, on which the window does not move."""

    def __init__(self, emit: Emitter, op: Op):
        self.emit, self.op = emit, op
        self.x, self.source, self.initial = op.operands
        self.rank = len(self.x.shape)
        a = window_defaults({"window_dimensions": (1,) * self.rank, **op.attributes}, self.rank)
        self.window, self.strides = a["window_dimensions"], a["window_strides"]
        self.padding = a["padding"]
        self.outer = 1 if self.rank > 1 and self._stays(0) else 0
        """The dim whose rows are made one after the other."""

    def _stays(self, d: int) -> bool:
        return self.window[d] == self.strides[d] == 1 and tuple(self.padding[d]) == (0, 0)

    def fit(self) -> bool:
        dtype, scatter = self.x.dtype, combiner(self.op.regions[1])
        return (self.rank > self.outer + 1 and self._stays(self.rank - 1)
                and math.prod(self.window) <= _LARGEST and Lanes.fit(dtype)
                and scatter == "add" and self._direction() is not None)

    def _direction(self) -> str | None:
        """How the best element so far compares with one that does not replace it."""
        select = self.op.regions[0]
        if (len(select.ops) != 1 or select.ops[0].name != "stablehlo.compare"
                or list(select.ops[0].operands) != select.arguments
                or select.ops[0].attributes.get("compare_type") == "TOTALORDER"):
            return None
        return select.ops[0].attributes["comparison_direction"]

    def emit_phases(self) -> None:
        emit, x = self.emit, self.x
        tasks = x.shape[:self.outer]
        cost = (_PICOSECONDS, math.prod(self.window), *self.source.shape[self.outer:])
        with emit.phase(Work(tuple(tasks), cost=cost)):
            self.lanes = Lanes(emit, x.dtype)
            self.channels = emit.extent(x, self.rank - 1)
            if self.outer:
                with emit.loop("%first", "%last") as image, emit.scope():
                    self._image((image,))
            else:
                self._image(())

    def _image(self, before: tuple[Index, ...]) -> None:
        emit, x, d = self.emit, self.x, self.outer
        start = self.lanes.splat(emit.at(self.initial, []))
        row: Index = 1
        for inner in range(d + 1, self.rank):
            row = emit.imul(row, emit.extent(x, inner))
        base = emit.linear(x, [*before, *[0] * (self.rank - d)])
        cleared = emit.cell("i64")
        emit.do(f"store i64 0, ptr {cleared}")

        def clear(until: Index) -> None:
            """The rows of the result before `until` that do not have their start value yet."""
            old = emit.inst(f"load i64, ptr {cleared}")
            new = emit.imax(old, until)
            low, high = (emit.iadd(base, emit.imul(r, row)) for r in (old, new))
            self.lanes.run(low, high, lambda i, mask: self.lanes.store(
                self.lanes.place(emit.pointers[self.op.result], i), start, mask))
            emit.do(f"store i64 {new}, ptr {cleared}")

        with emit.loop(0, emit.extent(self.source, d)) as i, emit.scope():
            first = emit.isub(emit.imul(i, self.strides[d]), self.padding[d][0])
            # Just before they are added to: rows are still in the cache then.
            clear(emit.imin(emit.iadd(first, self.window[d]), emit.extent(x, d)))
            self._pixels((*before, i))
        clear(emit.extent(x, d))

    def _pixels(self, index: tuple[Index, ...]) -> None:
        emit = self.emit
        if len(index) < self.rank - 1:
            with emit.loop(0, emit.extent(self.source, len(index))) as i, emit.scope():
                self._pixels((*index, i))
            return
        taps = [self._tap(index, offset) for offset in cartesian(*map(range, self.window[:-1]))]
        self.lanes.run(0, self.channels, lambda c, mask: self._vector(index, taps, c, mask))

    def _tap(self, index: tuple[Index, ...], offset: tuple[int, ...]
             ) -> tuple[list[Index], list[str]]:
        """A place of the window, and the conditions on which it is inside of the image."""
        emit, at, conditions = self.emit, [], []
        for d, (i, o) in enumerate(zip(index, offset, strict=True)):
            low, high = self.padding[d]
            j = emit.isub(emit.iadd(emit.imul(i, self.strides[d]), o), low)
            if low or high:
                conditions += [emit.icompare("sge", j, 0),
                               emit.icompare("slt", j, emit.extent(self.x, d))]
            at.append(j)
        return at, conditions

    def _vector(self, index: tuple[Index, ...], taps, c: Index, mask: str | None) -> None:
        emit, lanes, dtype = self.emit, self.lanes, self.x.dtype
        words = f"<{lanes.count} x i32>"
        best, chosen = emit.cell(lanes.kind), emit.cell(words)
        emit.do(f"store {lanes.kind} zeroinitializer, ptr {best}, align 64")
        emit.do(f"store {words} {lanes.every('i32', -1)}, ptr {chosen}, align 64")
        direction = self._direction()
        assert direction is not None
        _, ordered, signed, unsigned = COMPARISONS[direction]
        compare = {"float": f"fcmp {ordered}", "int": f"icmp {signed}"}.get(
            dtype.kind, f"icmp {unsigned}")

        def pointer(value, at: list[Index]) -> str:
            return lanes.place(emit.pointers[value], emit.linear(value, [*at, c]))

        def consider(number: int, at: list[Index]) -> None:
            candidate = lanes.load(pointer(self.x, at), mask)
            old = emit.inst(f"load {lanes.kind}, ptr {best}, align 64")
            place = emit.inst(f"load {words}, ptr {chosen}, align 64")
            none = emit.inst(f"icmp slt {words} {place}, zeroinitializer")
            keep = emit.inst(f"{compare} {lanes.kind} {old}, {candidate}")
            take = emit.inst(f"or {lanes.mask} {none},"
                             f" {emit.inst(f'xor {lanes.mask} {keep}, ' + lanes.every('i1', 'true'))}")
            value = emit.inst(f"select {lanes.mask} {take}, {lanes.kind} {candidate},"
                              f" {lanes.kind} {old}")
            where = emit.inst(f"select {lanes.mask} {take}, {words} {lanes.every('i32', number)},"
                              f" {words} {place}")
            emit.do(f"store {lanes.kind} {value}, ptr {best}, align 64")
            emit.do(f"store {words} {where}, ptr {chosen}, align 64")

        for number, (at, inside) in enumerate(taps):
            when(emit, inside, lambda number=number, at=at: consider(number, at))
        more = lanes.load(pointer(self.source, list(index)), mask)
        place = emit.inst(f"load {words}, ptr {chosen}, align 64")

        def add(number: int, at: list[Index]) -> None:
            target = pointer(self.op.result, at)
            hit = emit.inst(f"icmp eq {words} {place}, {lanes.every('i32', number)}")
            old = lanes.load(target, mask)
            opcode = "fadd" if dtype.is_float else "add"
            new = lanes.rounded(emit.inst(f"{opcode} {lanes.kind} {old}, {more}"))
            lanes.store(target, emit.inst(f"select {lanes.mask} {hit}, {lanes.kind} {new},"
                                          f" {lanes.kind} {old}"), mask)

        for number, (at, inside) in enumerate(taps):
            when(emit, inside, lambda number=number, at=at: add(number, at))


def _by_elements(emit: Emitter, op: Op) -> None:
    """For each source element find the selected place of its window and combine there."""
    x, source, initial = op.operands
    select, body = op.regions
    rank = len(x.shape)
    a = window_defaults({"window_dimensions": (1,) * rank, **op.attributes}, rank)
    result = op.result
    start = emit.at(initial, [])
    nest(emit, result, lambda index: emit.store_to(
        emit.pointer(result, index), result.dtype, start))
    kind = emit.type(x.dtype)
    best, place = f"%{emit.fresh('best')}", f"%{emit.fresh('place')}"
    emit.entry += [f"  {best} = alloca {kind}, align 8", f"  {place} = alloca i64, align 8"]
    moving = [d for d, w in enumerate(a["window_dimensions"]) if w > 1]

    def one(index: list) -> None:
        emit.do(f"store i64 -1, ptr {place}")

        def window(offsets: tuple) -> None:
            if len(offsets) < len(moving):
                extent = a["window_dimensions"][moving[len(offsets)]]
                with emit.loop(0, extent) as i, emit.scope():
                    window((*offsets, i))
                return
            at, conditions = [], []
            by_dim = dict(zip(moving, offsets, strict=True))
            for d, i in enumerate(index):
                low, high = a["padding"][d]
                j = emit.isub(emit.iadd(emit.imul(i, a["window_strides"][d]), by_dim.get(d, 0)),
                              low)
                if low or high:
                    conditions += [emit.icompare("sge", j, 0),
                                   emit.icompare("slt", j, emit.extent(x, d))]
                at.append(j)

            def consider() -> None:
                candidate = emit.at(x, at)
                position = emit.linear(x, at)
                old = emit.inst(f"load {kind}, ptr {best}")
                chosen = emit.inst(f"load i64, ptr {place}")
                first = emit.icompare("slt", chosen, 0)
                keep = emit.region(select, [old, candidate])[0]
                take = emit.inst(f"or i1 {first}, {emit.inst(f'xor i1 {keep}, true')}")
                value = emit.inst(f"select i1 {take}, {kind} {candidate}, {kind} {old}")
                where = emit.inst(f"select i1 {take}, i64 {position}, i64 {chosen}")
                emit.do(f"store {kind} {value}, ptr {best}")
                emit.do(f"store i64 {where}, ptr {place}")

            when(emit, conditions, consider)

        emit.do(f"store {kind} {emit.constant(0, x.dtype)}, ptr {best}")
        window(())
        chosen = emit.inst(f"load i64, ptr {place}")

        def add() -> None:
            pointer = emit.inst(f"getelementptr inbounds {result.dtype.storage},"
                                f" ptr {emit.pointers[result]}, i64 {chosen}")
            old = emit.load_from(pointer, result.dtype)
            new = emit.region(body, [old, emit.at(source, index)])[0]
            emit.store_to(pointer, result.dtype, emit.rounded(new, result.dtype))

        when(emit, [emit.icompare("sge", chosen, 0)], add)

    nest(emit, source, one)
