"""Convolutions of images: the micro-kernel of matrix products walks over the image itself.

Rows of a tile are neighbouring outputs, its columns output features, and K is the taps of the kernel
times the input features: `[tap][feature]` are runs of the image. The kernel is packed by a phase of its
own into panels `[tap][feature][columns]`. A task is a block of outputs by a few panels; where it reads
beyond the image, it first copies what it reads into its workspace, zeros around it.

Where the input is dilated (the gradient of a strided convolution) the outputs are computed in parts,
each by the taps that meet the input: nothing is multiplied by zeros.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product as cartesian

from ..ir.core import Op, Value
from .depthwise import depthwise, is_depthwise
from .emitter import Emitter
from .move import clear_run, copy_run, place
from .outline import outlined
from .pack import Packer
from .product import Product
from .target import Target
from .text import Index
from .tile import Micro, Tile
from .window import Part, Window, blocks, direct_window
from .work import Work

_REGION_BYTES = 256 << 10
"""What a task reads of the image stays in the second-level cache, beside a panel of the kernel."""
_CLOSE_BYTES = 40 << 10
"""A panel of the kernel of this size is close enough."""
_SHORT = 160
_TASKS = 4
"""Tasks of an image large enough to share."""
_PICOSECONDS = 10

Output = tuple[Value, str]


def convolution(emit: Emitter, op: Op, target: Target, outputs: Sequence[Output]) -> None:
    """Emit the kernel of `op` and of the elementwise ops that follow it, storing `outputs`."""
    window = direct_window(op)
    assert window is not None
    if is_depthwise(window, op):
        depthwise(emit, op, window, target, outputs)
        return
    emit.finished = True
    _Convolution(emit, op, window, target, outputs).emit_phases()


def best_rows(target: Target, dtype, rows: int, more: int, columns: int, close: bool, apart: int,
              short: bool = False) -> tuple[Tile, int]:
    """A tile for `rows` outputs side by side, `more` such rows that are neighbours in memory (1 if
    they are not), and how many of these rows a tile has. Is the kernel `close`, or read as seldom as
    the image? Elements of the image for neighbouring outputs are `apart` bytes from each other. Is K so
    `short` that a large tile takes longer to begin and to end than it saves?"""
    lanes = target.tile.bits // dtype.bits
    # 512-bit targets broadcast from memory, so that only accumulators and columns need registers.
    budget = 28 if target.tile.bits == 512 else target.tile.rows * target.tile.vectors
    if short:
        budget = min(budget, 16)

    def tile(vectors: int) -> tuple[float, Tile, int]:
        most = max(budget // vectors, 1)
        height = -(-rows // -(-rows // most))
        count = 1
        if height == rows:
            count = -(-more // -(-more // max(1, most // rows)))
        used = rows / (-(-rows // height) * height) * more / (-(-more // count) * count)
        used *= columns / (-(-columns // (vectors * lanes)) * vectors * lanes)
        total = height * count
        reuse = total * vectors / (total + vectors)
        merit = used * min(1.0, 0.55 + 0.25 * reuse) * min(1.0, 0.4 + total * vectors / 20)
        if not close:
            # The kernel comes from the second-level cache, once for a tile: tall ones read it less.
            merit *= min(1.0, 0.8 + total / 70)
        if apart % 4096 == 0 and total > 8:
            merit *= 0.8
        return merit, Tile(total, vectors, lanes), count

    best = max((tile(v) for v in (4, 2, 3, 1)), key=lambda t: t[0])
    return best[1], best[2]


class _Convolution:
    def __init__(self, emit: Emitter, op: Op, window: Window, target: Target,
                 outputs: Sequence[Output]):
        self.emit, self.op, self.window, self.outputs = emit, op, window, outputs
        self.axes = window.axes
        self.image, self.kernel = op.operands
        self.out, self.dtype = op.result, op.result.dtype
        self.input_features = window.groups * window.channels
        self.output_features = window.groups * window.features
        wide = self.axes[-1]
        tall = self.axes[-2].out if len(self.axes) > 1 and all(
            len(a.parts) == 1 for a in self.axes[-2:]) else 1
        self.copies = not all(a.inside for a in self.axes)
        # Pixels a multiple of 1 KB apart would share a few sets of the first-level cache.
        uneven = self.copies and self.input_features * self.dtype.itemsize % 512 == 0
        lanes = target.tile.bits // self.dtype.bits
        self.pitch = self.input_features + (lanes if uneven else 0)
        self.depth = math.prod(a.taps for a in self.axes) * window.channels
        item = self.dtype.itemsize
        close = self.depth * 4 * lanes * item <= _CLOSE_BYTES or (
            not self.copies and window.features <= 4 * lanes)
        self.tile, self.stacked = best_rows(
            target, self.dtype, min(p.count for p in wide.parts), tall, window.features, close,
            wide.stride * self.pitch * item, self.depth <= _SHORT)
        self.width = self.tile.rows // self.stacked
        self.nr = self.tile.columns
        self.product = Product(self.dtype, self.dtype)
        self.packer = Packer(emit, self.dtype, self.product, self.tile)
        self.panels = -(-window.features // self.nr)
        self._cut()
        # Outputs are stored a tile at a time, but where something is computed from them first.
        self.staged = window.features % self.nr != 0 or any(v is not self.out for v, _ in outputs)
        # Taps along the innermost dim and features are one run, where no feature is skipped.
        self.joined = wide.spacing == 1 and window.groups == 1 and self.pitch == self.input_features
        self.parts = list(cartesian(*(a.parts for a in self.axes)))

    def _cut(self) -> None:
        """Blocks of outputs and of panels that make a task."""
        size = self.dtype.itemsize
        least = [1] * len(self.axes)
        least[-1] = self.width
        if self.stacked > 1:
            least[-2] = self.stacked

        def read(counts: Sequence[int]) -> int:
            spans = [a.span(c) for a, c in zip(self.axes, counts, strict=True)]
            return math.prod(spans) * self.pitch * size

        if self.stacked > 1:
            least[-1] = self.axes[-1].out
        self.cuts = blocks(self.axes, tuple(least), read, _REGION_BYTES)
        self.sizes = [-(-a.parts[0].count // k) for a, k in zip(self.axes, self.cuts, strict=True)]
        self.spans = [a.span(s) for a, s in zip(self.axes, self.sizes, strict=True)]
        shares = 1 if self.window.groups > 1 else -(-_TASKS // math.prod(self.cuts))
        self.task_panels = -(-self.panels // min(shares, self.panels))

    # -- phases -------------------------------------------------------------------------------------

    def emit_phases(self) -> None:
        emit, window = self.emit, self.window
        self._lay_out_kernel()
        self.memory = emit.scratch(self.group_size * window.groups * self.dtype.itemsize)
        with emit.phase(Work((window.groups * self.panels,), (), (1000, self.nr, self.depth))), \
                emit.loop("%first", "%last") as number, emit.scope():
            self._pack(number)
        shares = -(-self.panels // self.task_panels)
        work = Work((shares, self.image.shape[0], *self.cuts), (),
                    (_PICOSECONDS, *self.sizes, min(self.task_panels * self.nr, window.features),
                     window.groups, self.depth))
        with emit.phase(work), emit.loop("%first", "%last") as task, emit.scope():
            self._task(task, shares)

    def _lay_out_kernel(self) -> None:
        """Where the panels of each part begin: `[group][panel][part]`."""
        self.starts, total = [], 0
        for part in self.parts:
            self.starts.append(total)
            # Whole squares are written where the kernel is transposed.
            taps = math.prod(len(p.taps) for p in part)
            total += (taps * self.window.channels + self.tile.lanes) * self.nr
        self.panel_size = total
        self.group_size = total * self.panels

    def _pack(self, number: Index) -> None:
        """A panel of the kernel, all parts."""
        emit, window = self.emit, self.window
        n = self.op.attributes["dimension_numbers"]
        shape = self.kernel.shape
        strides = [math.prod(shape[d + 1:]) for d in range(len(shape))]
        group, panel = emit.idiv(number, self.panels), emit.irem(number, self.panels)
        column = emit.imul(panel, self.nr)
        feature = emit.iadd(emit.imul(group, window.features), column)
        source = place(emit, self.dtype, emit.pointers[self.kernel],
                       emit.imul(feature, strides[n.kernel_output_feature_dimension]))
        target = place(emit, self.dtype, self.memory, emit.imul(number, self.panel_size))
        left = emit.isub(window.features, column)
        rows = []
        for start, part in zip(self.starts, self.parts, strict=True):
            for i, taps in enumerate(cartesian(*(p.taps for p in part))):
                rows.append(sum(t * strides[d] for t, d in
                                zip(taps, n.kernel_spatial_dimensions, strict=True)))
                rows.append(start + i * window.channels * self.nr)
        # A table of source and target, so that the code is there once.
        emit.definitions["kernel.taps"] = (
            f"@kernel.taps = private unnamed_addr constant [{len(rows)} x i64]"
            f" [{', '.join(f'i64 {r}' for r in rows)}], align 8")
        with emit.loop(0, len(rows) // 2) as tap, emit.scope():
            row = emit.inst(f"getelementptr [2 x i64], ptr @kernel.taps, i64 {tap}")
            begin = emit.inst(f"load i64, ptr {row}, align 8")
            end = emit.inst(f"getelementptr i64, ptr {row}, i64 1")
            self.packer.panel(
                place(emit, self.dtype, source, begin),
                place(emit, self.dtype, target, emit.inst(f"load i64, ptr {end}, align 8")),
                strides[n.kernel_input_feature_dimension],
                strides[n.kernel_output_feature_dimension], window.channels, left)

    # -- a task -------------------------------------------------------------------------------------

    def _task(self, task: Index, shares: int) -> None:
        emit, window = self.emit, self.window
        low: list[Index] = []
        high: list[Index] = []
        for axis, cut in zip(self.axes[::-1], self.cuts[::-1], strict=True):
            number, task = emit.irem(task, cut), emit.idiv(task, cut)
            count = axis.parts[0].count
            low.insert(0, emit.idiv(emit.imul(number, count), cut))
            high.insert(0, emit.idiv(emit.imul(emit.iadd(number, 1), count), cut))
        images = emit.extent(self.image, 0)
        n, share = emit.irem(task, images), emit.idiv(task, images)
        self.n, self.low, self.high = n, low, high
        size = math.prod(a.size for a in self.axes) * self.input_features
        self.base = place(emit, self.dtype, emit.pointers[self.image], emit.imul(n, size))
        memory, item = "", self.dtype.itemsize
        tile = -(-self.tile.rows * self.nr * item // 64) * 64 if self.staged else 0
        region = math.prod(self.spans) * self.pitch * item if self.copies else 0
        if tile or region:
            memory = emit.workspace(tile + region + 64)
        self.buffer = memory
        sizes = [a.size for a in self.axes]
        if self.copies:
            sizes = self.spans
            source, self.base = self.base, place(emit, self.dtype, memory, tile // item)
            self._copy(source)
        self.pitches = [math.prod(sizes[i + 1:]) * self.pitch for i in range(len(sizes))]
        first = emit.imul(share, self.task_panels)
        last = emit.imin(emit.iadd(first, self.task_panels), self.panels)
        with emit.loop(0, window.groups) as group, emit.scope(), \
                emit.loop(first, last) as panel, emit.scope():
            weights = place(emit, self.dtype, self.memory, emit.imul(
                emit.iadd(emit.imul(group, self.panels), panel), self.panel_size))
            for start, part in zip(self.starts, self.parts, strict=True):
                self._part(part, place(emit, self.dtype, weights, start), group, panel)

    def _copy(self, source: str) -> None:
        """What the task reads, into its workspace, zeros where there is no input."""
        emit, features, lanes = self.emit, self.input_features, self.tile.lanes
        # Lines are copied whole where pixels are neighbours in the workspace, too.
        lines = self.pitch == features
        wide = self.axes[-1]
        outer = self.axes[:-1] if lines else self.axes
        run, size = (self.spans[-1] * features, wide.size * features) if lines else (features, features)
        begin: Index = 0
        end: Index = run
        if lines:
            # The part of a line that exists, as of the first element that is read.
            before = emit.imul(emit.iadd(emit.imul(self.low[-1], wide.stride), wide.first), features)
            begin = emit.imin(emit.imax(emit.isub(0, before), 0), run)
            end = emit.imax(emit.imin(emit.isub(size, before), run), begin)
            source = place(emit, self.dtype, source, before)

        def nest(i: int, position: Index, offset: Index, inside: list[str]) -> None:
            if i == len(outer):
                target = place(emit, self.dtype, self.base, emit.imul(
                    position, run if lines else self.pitch))
                low, high = begin, end
                if inside:
                    exists = emit.all(inside)
                    low = emit.inst(f"select i1 {exists}, i64 {begin}, i64 {run}")
                    high = emit.inst(f"select i1 {exists}, i64 {end}, i64 {run}")
                clear_run(emit, self.dtype, lanes, target, 0, low)
                copy_run(emit, self.dtype, lanes, place(
                    emit, self.dtype, source, emit.imul(offset, size)), target, low, high)
                clear_run(emit, self.dtype, lanes, target, high, run)
                return
            axis = outer[i]
            first = emit.iadd(emit.imul(self.low[i], axis.stride), axis.first)
            with emit.loop(0, self.spans[i]) as p, emit.scope():
                at = emit.iadd(first, p)
                here = inside if axis.inside else [*inside, emit.icompare("ult", at, axis.size)]
                nest(i + 1, emit.iadd(emit.imul(position, self.spans[i]), p),
                     emit.iadd(emit.imul(offset, axis.size), at), here)

        nest(0, 0, 0, [])

    def _part(self, part: tuple[Part, ...], weights: str, group: Index, panel: Index) -> None:
        """The task's outputs of one part and one panel."""
        emit, window = self.emit, self.window
        column = emit.imul(panel, self.nr)
        feature = emit.iadd(emit.imul(group, window.features), column)
        base = place(emit, self.dtype, self.base, emit.imul(group, window.channels))
        taps = [len(p.taps) for p in part]
        counts: tuple[Index, ...] = tuple(taps[:-1])
        outer = tuple(a.spacing * p for a, p in zip(self.axes[:-1], self.pitches, strict=False))
        depth: Index = taps[-1] * window.channels
        if not self.joined:
            counts, depth = tuple(taps), window.channels
            outer = (*outer, self.axes[-1].spacing * self.pitches[-1])
        wide, row = self.axes[-1], self.axes[-1].stride * self.pitch
        rows: tuple[int, ...] = ()
        if self.stacked > 1:
            tall = self.axes[-2].stride * self.pitches[-2]
            rows = tuple(r * tall + c * row for r in range(self.stacked) for c in range(self.width))
        micro = Micro(self.product, self.tile, row, 1, self.nr,
                      self.nr if self.staged else wide.step * self.output_features, True,
                      outer=outer, a_rows=rows, unroll=_unroll(depth),
                      depth=depth if len(self.parts) == 1 and isinstance(depth, int) else None,
                      adds=False)

        def nest(i: int, at: list[Index], skip: list[Index], a: str) -> None:
            """`at`: outputs of the part along the axes so far; `skip`: rows of the tile done before."""
            if i == len(self.axes):
                self._tile(micro, part, *self._existing(part[0], at[0], a, weights, depth, counts),
                           at, skip, feature, column)
                return
            axis, mine = self.axes[i], part[i]
            low, high = self.low[i], emit.imin(self.high[i], mine.count)
            step = self.width if i == len(self.axes) - 1 else (
                self.stacked if i == len(self.axes) - 2 else 1)
            # The last tile begins early, so that all are whole.
            with emit.loop(low, high, step) as t, emit.scope():
                begin: Index = t
                if step > 1 and not (self.cuts[i] == 1 and mine.count % step == 0):
                    begin = emit.imin(t, emit.isub(high, step))
                position = emit.iadd(emit.imul(begin, axis.stride), mine.origin)
                if self.copies:
                    start = emit.iadd(emit.imul(low, axis.stride), axis.first)
                    position = emit.isub(position, start)
                if not mine.taps:
                    position = 0
                nest(i + 1, [*at, begin], [*skip, emit.isub(t, begin) if begin != t else 0],
                     place(emit, self.dtype, a, emit.imul(position, self.pitches[i])))

        nest(0, [], [], base)

    def _existing(self, part: Part, first: Index, a: str, weights: str, depth: Index,
                  counts: tuple[Index, ...]) -> tuple[str, str, Index, tuple[Index, ...]]:
        """Without the taps of the outermost axis that meet only what is around the image: a third of
        the outermost lines of a small image."""
        emit, axis = self.emit, self.axes[0]
        if axis.inside or not part.taps or len(counts) == 0:
            return a, weights, depth, counts
        # The lines of a tile share their taps: those that any of them needs.
        more = self.stacked - 1 if len(self.axes) == 2 else 0
        if len(self.axes) == 1:
            more = self.width - 1
        position = emit.iadd(emit.imul(first, axis.stride), part.origin)
        final = emit.iadd(position, more * axis.stride)
        up, total = axis.spacing - 1, len(part.taps)
        low = emit.imin(emit.idiv(emit.imax(emit.isub(up, final), 0), axis.spacing), total)
        high = emit.imin(emit.idiv(emit.imax(emit.isub(axis.size + up, position), 0), axis.spacing),
                         total)
        run: Index = depth
        for count in counts[1:]:
            run = emit.imul(run, count)
        return (place(emit, self.dtype, a, emit.imul(low, axis.spacing * self.pitches[0])),
                place(emit, self.dtype, weights, emit.imul(emit.imul(low, run), self.nr)),
                depth, (emit.imax(emit.isub(high, low), 0), *counts[1:]))

    def _tile(self, micro: Micro, part, a: str, weights: str, depth: Index, counts, at, skip,
              feature: Index, column: Index) -> None:
        emit = self.emit
        outputs = [emit.iadd(emit.imul(t, axis.step), p.start)
                   for t, axis, p in zip(at, self.axes, part, strict=True)]
        if not self.staged:
            position: Index = self.n
            for o, axis in zip(outputs, self.axes, strict=True):
                position = emit.iadd(emit.imul(position, axis.out), o)
            c = place(emit, self.dtype, emit.pointers[self.out],
                      emit.iadd(emit.imul(position, self.output_features), feature))
            micro.call(emit, a, weights, c, depth, "false", counts=counts)
            return
        micro.call(emit, a, weights, self.buffer, depth, "false", counts=counts)
        columns: Index = self.nr
        if self.window.features % self.nr:
            columns = emit.imin(emit.isub(self.window.features, column), self.nr)
        first_row = skip[-2] if self.stacked > 1 else 0
        with outlined(emit, (self.buffer,), (
                self.n, feature, columns, first_row, skip[-1], *outputs)) as ((buffer,), numbers):
            self._follow(buffer, *numbers)

    def _follow(self, buffer: str, n: Index, feature: Index, columns: Index, first_row: Index,
                first: Index, *outputs: Index) -> None:
        """Store what follows a tile in `buffer`, from its row `first_row` and there its place `first`
        on; `outputs` is where its first element belongs."""
        emit = self.emit
        with emit.loop(first_row, self.stacked) as r, emit.scope(), \
                emit.loop(first, self.width) as w, emit.scope():
            index = list(outputs)
            index[-1] = emit.iadd(index[-1], emit.imul(w, self.axes[-1].step))
            if self.stacked > 1:
                index[-2] = emit.iadd(index[-2], r)
            line = place(emit, self.dtype, buffer, emit.imul(
                emit.iadd(emit.imul(r, self.width), w), self.nr))
            with emit.loop(0, columns) as j, emit.scope():
                self._store(place(emit, self.dtype, line, j), [n, *index, emit.iadd(feature, j)])

    def _store(self, source: str, index: list[Index]) -> None:
        """Compute the outputs from an element of the convolution."""
        emit = self.emit
        with emit.given(self.out, emit.load_from(source, self.dtype)):
            registers = [emit.at(value, index) for value, _ in self.outputs]
        position = emit.linear(self.out, index)
        for (value, pointer), register in zip(self.outputs, registers, strict=True):
            emit.store_to(emit.inst(f"getelementptr inbounds {value.dtype.storage}, ptr {pointer},"
                                    f" i64 {position}"), value.dtype, register)


def _unroll(depth: Index) -> int:
    """The steps of a round of the loop over K: none left over where possible."""
    if not isinstance(depth, int):
        return 4
    return next((u for u in (4, 7, 6, 5, 3) if depth % u == 0), 4)
