"""Depthwise convolutions and their weight gradients: a vector is neighbouring channels.

A tile is a few neighbouring outputs of one line by one vector of channels. Tiles beside the border of
the image are made by code that loads zeros there; nothing is copied.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product as cartesian

from ..ir.core import Op, Value
from .emitter import Emitter
from .move import place
from .shuffle import lane_mask
from .target import Target
from .text import Index
from .window import Axis, Part, Window, is_wide_float
from .work import Work

_CHANNELS = 256
"""Of a task: what a tile and its neighbours read stays in the first-level cache."""
_LINES = 8
_MOST_TAPS = 25
"""Of a weight gradient: its sums are in registers."""
_PARTS = 8
_PICOSECONDS = 20

Output = tuple[Value, str]
_ONE = Axis(1, 1, 1, 1, 1, 1, (Part(0, 1, 0, (0,)),))


def is_depthwise(window: Window, op: Op, gradient: bool = False) -> bool:
    """Is each channel convolved by itself, and are its neighbours next to it in the kernel?"""
    if not is_wide_float(op) or window.channels != 1 or window.features != 1 or len(window.axes) > 2:
        return False
    if gradient:
        return math.prod(a.out for a in window.axes) <= _MOST_TAPS
    n = op.attributes["dimension_numbers"]
    last = len(op.operands[1].shape) - 1
    return last in (n.kernel_output_feature_dimension, n.kernel_input_feature_dimension) and all(
        d < last - 1 for d in n.kernel_spatial_dimensions)


class _Vectors:
    """Loads and FMAs of vectors of channels."""

    def __init__(self, emit: Emitter, op: Op, window: Window, target: Target):
        self.emit, self.dtype = emit, op.result.dtype
        self.channels = window.groups
        self.lanes = target.tile.bits // self.dtype.bits
        self.vector = f"<{self.lanes} x {self.dtype.llvm}>"
        self.kind = f"v{self.lanes}f{self.dtype.bits}"
        self.mask = f"<{self.lanes} x i1>"
        self.wide = 8 if target.tile.bits == 512 else 4
        self.tall, self.line = (_ONE, *window.axes)[-2:]
        self.groups = -(-self.channels // _CHANNELS)
        vector, mask = self.vector, self.mask
        emit.declare(f"declare {vector} @llvm.fma.{self.kind}({vector}, {vector}, {vector})")
        emit.declare(f"declare {vector} @llvm.masked.load.{self.kind}.p0(ptr, i32, {mask}, {vector})")
        emit.declare(f"declare void @llvm.masked.store.{self.kind}.p0({vector}, ptr, i32, {mask})")

    def at(self, pointer: str, offset: Index) -> str:
        return place(self.emit, self.dtype, pointer, offset)

    def load(self, pointer: str, mask: str | None) -> str:
        size = self.dtype.itemsize
        if mask is None:
            return self.emit.inst(f"load {self.vector}, ptr {pointer}, align {size}")
        return self.emit.inst(f"call {self.vector} @llvm.masked.load.{self.kind}.p0(ptr {pointer},"
                              f" i32 {size}, {self.mask} {mask}, {self.vector} zeroinitializer)")

    def store(self, value: str, pointer: str, mask: str | None) -> None:
        size = self.dtype.itemsize
        if mask is None:
            self.emit.do(f"store {self.vector} {value}, ptr {pointer}, align {size}")
        else:
            self.emit.do(f"call void @llvm.masked.store.{self.kind}.p0({self.vector} {value},"
                         f" ptr {pointer}, i32 {size}, {self.mask} {mask})")

    def fma(self, a: str, b: str, c: str) -> str:
        return self.emit.inst(f"call {self.vector} @llvm.fma.{self.kind}({self.vector} {a},"
                              f" {self.vector} {b}, {self.vector} {c})")

    def when(self, inside: str | None, mask: str | None) -> str | None:
        """The lanes to load where there may be no input."""
        if inside is None:
            return mask
        lanes = mask or lane_mask(self.emit, self.lanes, self.lanes)
        return self.emit.inst(f"select i1 {inside}, {self.mask} {lanes}, {self.mask} zeroinitializer")

    def channel_mask(self, channel: Index) -> str | None:
        if self.channels % self.lanes == 0:
            return None
        return lane_mask(self.emit, self.emit.isub(self.channels, channel), self.lanes)

    def cells(self, count: int) -> list[str]:
        names = [f"%{self.emit.fresh('acc')}" for _ in range(count)]
        self.emit.entry.extend(f"  {c} = alloca {self.vector}, align 64" for c in names)
        return names

    def get(self, cell: str) -> str:
        return self.emit.inst(f"load {self.vector}, ptr {cell}, align 64")

    def put(self, cell: str, value: str) -> None:
        self.emit.do(f"store {self.vector} {value}, ptr {cell}, align 64")

    def channel_range(self, group: Index) -> tuple[Index, Index]:
        first = self.emit.imul(group, _CHANNELS)
        return first, self.emit.imin(self.emit.iadd(first, _CHANNELS), self.channels)

    def tiles(self, count: int, width: int, inner: range,
              body: Callable[[Index, Index, bool], None]) -> None:
        """`body(start, low, edge)` for tiles of a line: the outputs from `low` on are new, the last
        tile begins early to be whole. Tiles that start in `inner` read nothing beyond the line."""
        emit = self.emit
        first = min(max(-(-inner.start // width), 0), -(-count // width))
        last = max(min((inner.stop - 1) // width + 1, count // width), first)
        for begin, end, edge in ((0, first, True), (first, last, False),
                                 (last, -(-count // width), True)):
            if begin < end:
                with emit.loop(begin * width, end * width, width) as t, emit.scope():
                    start = emit.imin(t, count - width) if edge else t
                    body(start, t, edge)


class _Depthwise(_Vectors):
    def __init__(self, emit: Emitter, op: Op, window: Window, target: Target,
                 outputs: Sequence[Output]):
        super().__init__(emit, op, window, target)
        self.op, self.out, self.outputs = op, op.result, outputs
        self.image, self.kernel = op.operands
        n = op.attributes["dimension_numbers"]
        shape = self.kernel.shape
        strides = [math.prod(shape[d + 1:]) for d in range(len(shape))]
        self.taps = [0, *(strides[d] for d in n.kernel_spatial_dimensions)][-2:]
        self.staged = any(v is not self.out for v, _ in outputs)

    def emit_phases(self) -> None:
        emit, tall = self.emit, self.tall
        lines = tall.parts[0].count
        cut = -(-lines // _LINES)
        work = Work((self.image.shape[0], cut, self.groups), (),
                    (_PICOSECONDS, _LINES, self.line.out, min(_CHANNELS, self.channels), tall.taps))
        with emit.phase(work), emit.loop("%first", "%last") as task, emit.scope():
            group, rest = emit.irem(task, self.groups), emit.idiv(task, self.groups)
            block, self.n = emit.irem(rest, cut), emit.idiv(rest, cut)
            first = emit.idiv(emit.imul(block, lines), cut)
            last = emit.idiv(emit.imul(emit.iadd(block, 1), lines), cut)
            self.buffer = emit.workspace(
                self.wide * self.lanes * self.dtype.itemsize) if self.staged else ""
            self.range = self.channel_range(group)
            for tall_part, part in cartesian(tall.parts, self.line.parts):
                # As accumulators, a part has as many outputs as its tiles are wide.
                width = -(-part.count // -(-part.count // self.wide))
                cells = self.cells(width)
                with emit.loop(first, emit.imin(last, tall_part.count)) as t, emit.scope():
                    self._line(tall_part, part, t, width, cells)

    def _line(self, tall_part: Part, part: Part, t: Index, width: int, cells: list[str]) -> None:
        emit, tall, line = self.emit, self.tall, self.line
        output = emit.iadd(emit.imul(t, tall.step), tall_part.start)
        position = emit.iadd(emit.imul(t, tall.stride), tall_part.origin)
        up, total = tall.spacing - 1, len(tall_part.taps)
        low: Index = emit.imin(emit.idiv(emit.imax(emit.isub(up, position), 0), tall.spacing), total)
        high: Index = emit.imin(
            emit.idiv(emit.imax(emit.isub(tall.size + up, position), 0), tall.spacing), total)
        image = self.at(emit.pointers[self.image], emit.imul(
            self.n, tall.size * line.size * self.channels))
        reach = (width - 1) * line.stride + max(len(part.taps) - 1, 0) * line.spacing
        inner = range(-(part.origin // line.stride),
                      (line.size - 1 - reach - part.origin) // line.stride + 1)

        def tile(start: Index, new: Index, edge: bool) -> None:
            column = emit.iadd(emit.imul(start, line.stride), part.origin)
            with emit.loop(self.range[0], self.range[1], self.lanes) as c, emit.scope():
                mask = self.channel_mask(c)
                for cell in cells:
                    self.put(cell, "zeroinitializer")
                with emit.loop(low, high) as m, emit.scope():
                    row = emit.iadd(position, emit.imul(m, tall.spacing))
                    source = self.at(image, emit.iadd(emit.imul(
                        emit.iadd(emit.imul(row, line.size), column), self.channels), c))
                    at_tap = emit.imul(_progression(emit, tall_part.taps, m), self.taps[0])
                    self._row(part, source, column, self.at(
                        emit.pointers[self.kernel], emit.iadd(at_tap, c)), edge, mask, cells)
                self._store(output, part, start, new, c, mask, cells)

        self.tiles(part.count, width, inner, tile)

    def _row(self, part: Part, source: str, column: Index, weights: str, edge: bool, mask: str | None,
             cells: list[str]) -> None:
        emit, line = self.emit, self.line
        factors = [self.load(self.at(weights, tap * self.taps[1]), mask) for tap in part.taps]
        seen: dict[int, str] = {}
        for u, cell in enumerate(cells):
            total = self.get(cell)
            for m, factor in enumerate(factors):
                q = u * line.stride + m * line.spacing
                if q not in seen:
                    inside = emit.icompare("ult", emit.iadd(column, q), line.size) if edge else None
                    seen[q] = self.load(self.at(source, q * self.channels), self.when(inside, mask))
                total = self.fma(seen[q], factor, total)
            self.put(cell, total)

    def _store(self, output: Index, part: Part, start: Index, new: Index, c: Index, mask: str | None,
               cells: list[str]) -> None:
        emit, line = self.emit, self.line
        if not self.staged:
            first = emit.iadd(emit.imul(start, line.step), part.start)
            row = emit.iadd(emit.imul(emit.iadd(emit.imul(self.n, self.tall.out), output), line.out),
                            first)
            target = self.at(emit.pointers[self.out], emit.iadd(emit.imul(row, self.channels), c))
            for u, cell in enumerate(cells):
                self.store(self.get(cell), self.at(target, u * line.step * self.channels), mask)
            return
        for u, cell in enumerate(cells):
            self.put(self.at(self.buffer, u * self.lanes), self.get(cell))
        columns: Index = emit.imin(emit.isub(self.channels, c), self.lanes) if mask else self.lanes
        with emit.loop(emit.isub(new, start), len(cells)) as number, emit.scope():
            column = emit.iadd(emit.imul(emit.iadd(start, number), line.step), part.start)
            index = [self.n, output, column] if len(self.out.shape) == 4 else [self.n, column]
            values = self.at(self.buffer, emit.imul(number, self.lanes))
            with emit.loop(0, columns) as j, emit.scope():
                self._finish(self.at(values, j), [*index, emit.iadd(c, j)])

    def _finish(self, source: str, index: list[Index]) -> None:
        """Compute the outputs from an element of the convolution."""
        emit = self.emit
        with emit.given(self.out, emit.load_from(source, self.dtype)):
            registers = [emit.at(value, index) for value, _ in self.outputs]
        position = emit.linear(self.out, index)
        for (value, pointer), register in zip(self.outputs, registers, strict=True):
            emit.store_to(emit.inst(f"getelementptr inbounds {value.dtype.storage}, ptr {pointer},"
                                    f" i64 {position}"), value.dtype, register)


class _DepthwiseGradient(_Vectors):
    """Sums over lines in parts, all taps of a vector of channels in registers."""

    def __init__(self, emit: Emitter, op: Op, window: Window, target: Target, pointer: str):
        super().__init__(emit, op, window, target)
        self.image, self.gradient = op.operands
        self.result = pointer
        self.taps = list(cartesian(range(self.tall.out), range(self.line.out)))
        self.size = len(self.taps) * self.channels

    def emit_phases(self, add_parts: Callable[..., None]) -> None:
        emit, tall, line = self.emit, self.tall, self.line
        self.sums = emit.scratch(_PARTS * self.size * self.dtype.itemsize)
        cost = (_PICOSECONDS, self.image.shape[0], tall.taps, line.taps, min(_CHANNELS, self.channels))
        with emit.phase(Work((_PARTS, self.groups), (), cost)):
            # Few taps and a wide tile would not help: the loads of a tile are shared by its taps.
            width = -(-line.taps // -(-line.taps // max(2, min(self.wide, 64 // len(self.taps)))))
            cells = self.cells(len(self.taps))
            with emit.loop("%first", "%last") as task, emit.scope():
                group, part = emit.irem(task, self.groups), emit.idiv(task, self.groups)
                begin, end = self.channel_range(group)
                sums = self.at(self.sums, emit.imul(part, self.size))
                with emit.loop(0, len(self.taps)) as tap, emit.scope(), \
                        emit.loop(begin, end, self.lanes) as c, emit.scope():
                    self.store("zeroinitializer", self.at(sums, emit.iadd(
                        emit.imul(tap, self.channels), c)), self.channel_mask(c))
                lines = emit.imul(emit.extent(self.image, 0), tall.taps)
                first = emit.idiv(emit.imul(part, lines), _PARTS)
                last = emit.idiv(emit.imul(emit.iadd(part, 1), lines), _PARTS)
                with emit.loop(first, last) as number, emit.scope(), \
                        emit.loop(begin, end, self.lanes) as c, emit.scope():
                    self._line(number, c, self.at(sums, c), width, cells)
        add_parts(emit, self.dtype, self.lanes, self.sums, self.result, self.size, _PARTS)

    def _line(self, number: Index, c: Index, sums: str, width: int, cells: list[str]) -> None:
        """Add the products of a line of the gradient to the sums of all taps."""
        emit, tall, line = self.emit, self.tall, self.line
        mask = self.channel_mask(c)
        n, y = emit.idiv(number, tall.taps), emit.irem(number, tall.taps)
        top = emit.iadd(emit.imul(y, tall.spacing), tall.first)
        image = self.at(emit.pointers[self.image], emit.iadd(emit.imul(
            n, tall.size * line.size * self.channels), c))
        gradient = self.at(emit.pointers[self.gradient], emit.iadd(emit.imul(
            number, line.taps * self.channels), c))
        places = [self.at(sums, i * self.channels) for i in range(len(self.taps))]
        for cell, pointer in zip(cells, places, strict=True):
            self.put(cell, self.load(pointer, mask))
        reach = (width - 1) * line.spacing + (line.out - 1) * line.stride
        inner = range(-(line.first // line.spacing),
                      (line.size - 1 - reach - line.first) // line.spacing + 1)

        def tile(start: Index, new: Index, edge: bool) -> None:
            # What the tile before did counts as zeros.
            factors = []
            for u in range(width):
                fresh = emit.icompare("sge", emit.iadd(start, u), new) if start != new else None
                pointer = self.at(gradient, emit.imul(emit.iadd(start, u), self.channels))
                factors.append(self.load(pointer, self.when(fresh, mask)))
            column = emit.iadd(emit.imul(start, line.spacing), line.first)
            for ky in range(tall.out):
                row = emit.iadd(top, ky * tall.stride)
                exists = None if tall.inside else emit.icompare("ult", row, tall.size)
                source = self.at(image, emit.imul(
                    emit.iadd(emit.imul(row, line.size), column), self.channels))
                seen: dict[int, str] = {}
                for kx in range(line.out):
                    cell = cells[ky * line.out + kx]
                    total = self.get(cell)
                    for u, factor in enumerate(factors):
                        q = u * line.spacing + kx * line.stride
                        if q not in seen:
                            conditions = [] if exists is None else [exists]
                            if edge:
                                conditions.append(
                                    emit.icompare("ult", emit.iadd(column, q), line.size))
                            inside = emit.all(conditions) if conditions else None
                            seen[q] = self.load(self.at(source, q * self.channels),
                                                self.when(inside, mask))
                        total = self.fma(seen[q], factor, total)
                    self.put(cell, total)

        self.tiles(line.taps, width, inner, tile)
        for cell, pointer in zip(cells, places, strict=True):
            self.store(self.get(cell), pointer, mask)


def depthwise(emit: Emitter, op: Op, window: Window, target: Target, outputs: Sequence[Output]
              ) -> None:
    """Emit the kernel of a depthwise convolution and of what follows it."""
    _Depthwise(emit, op, window, target, outputs).emit_phases()


def depthwise_gradient(emit: Emitter, op: Op, window: Window, target: Target, pointer: str,
                       add_parts: Callable[..., None]) -> None:
    """Emit the kernel of the weight gradient of one; `add_parts` emits its last phase."""
    _DepthwiseGradient(emit, op, window, target, pointer).emit_phases(add_parts)


def _progression(emit: Emitter, taps: tuple[int, ...], m: Index) -> Index:
    """`taps[m]`: the taps of a part are evenly spaced."""
    step = taps[1] - taps[0] if len(taps) > 1 else 0
    return emit.iadd(emit.imul(m, step), taps[0] if taps else 0)
