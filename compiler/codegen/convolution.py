"""Convolutions of images: the micro-kernel of matrix products walks over the image itself.

Rows of a tile are neighbouring outputs, its columns output features, and K is the taps of the kernel
times the input features: `[tap][feature]` are runs of the image. The kernel is packed by a phase of its
own into panels `[tap][feature][columns]`. A task is a block of outputs by a few panels; where it reads
beyond the image, it first copies what it reads into its workspace, zeros around it. If that is one
place before and after a line, it reads the image itself, and zeros from elsewhere for a row of a tile.

Where neighbours of K multiply in words (`product.py`), the features of a pixel are padded to whole
steps along K: a task copies what it reads if they are not whole in the image.

Where the input is dilated (the gradient of a strided convolution) the outputs are computed in parts,
each by the taps that meet the input: nothing is multiplied by zeros. Parts of so few features that they
would leave most of a vector empty are computed together instead, side by side in the columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import product as cartesian

from ..ir.core import Op, Value
from . import amx
from .depthwise import depthwise, is_depthwise
from .emitter import Emitter
from .move import clear_run, copy_run, place
from .outline import outlined
from .pack import Packer
from .product import product_of
from .sections import dot, sections, together
from .target import LINE, Target
from .text import Index
from .tile import Micro, best_rows, register_rows
from .window import Axis, Part, Window, blocks, direct_window
from .work import Work

_REGION_BYTES = 288 << 10
"""What a task reads of the image stays in the second-level cache, beside a panel of the kernel."""
_CLOSE_BYTES = 40 << 10
"""A panel of the kernel of this size is close enough."""
_SHORT = 160
_FAR_BYTES = 1 << 20
"""A kernel of this size is far away once it is packed: by a task for itself, where it is the only one
that uses it. A third of the time of 512 features of 7x7 pixels."""
_TASKS, _MANY_TASKS = 4, 16
"""Tasks of an image large enough to share, and of a batch that need not share its images."""
_LONG, _SETS = 64, 64
"""Features of a tap that repay a loop of their own, and sets of a first-level cache."""
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


def _is_beside(axis: Axis, part: Part) -> bool:
    """Does a part read one place at most before a line, for its first output, and after it for the
    last?"""
    if not part.taps or part.count < 2:
        return False
    last = part.origin + (part.count - 1) * axis.stride + len(part.taps) - 1
    return part.origin >= -1 and last <= axis.size


class _Convolution:
    def __init__(self, emit: Emitter, op: Op, window: Window, target: Target,
                 outputs: Sequence[Output]):
        self.emit, self.op, self.window, self.outputs = emit, op, window, outputs
        self.image, self.kernel = op.operands
        self.out, self.product = op.result, product_of(op, target)
        assert self.product.packed.bits == self.image.dtype.bits, "layout widens other numbers"
        self.sums, self.word = self.product.sums, self.product.word_type
        lanes = target.tile.bits // self.sums.bits
        self.together = (self.product.group == 1 and self.sums.is_float
                         and together(window, lanes))
        self.axes = tuple(a.together for a in window.axes) if self.together else window.axes
        self.columns = window.features
        if self.together:
            self.columns *= math.prod(len(a.parts) for a in window.axes)
        step = self.product.group * self.product.depth
        # In words, as all that the micro-kernel reads.
        self.channels = -(-window.channels // step) * self.product.depth
        self.input_features = window.groups * self.channels
        self.output_features = window.groups * window.features
        wide = self.axes[-1]
        tall = self.axes[-2].parts[0].count if len(self.axes) > 1 and all(
            len(a.parts) == 1 for a in self.axes[-2:]) else 1
        self.depth = math.prod(a.taps for a in self.axes) * self.channels
        inside = window.channels % step == 0 and all(a.inside for a in self.axes)
        self.sides = not inside and self._has_sides()
        self.copies = not inside and not self.sides
        self._choose_tile(target, tall)
        if self.sides and not self._reads_in_place(target):
            self.sides, self.copies = False, True
            self._choose_tile(target, tall)
        self.packer = Packer(emit, self.kernel.dtype, self.product, self.tile)
        self.panels = -(-self.columns // self.nr)
        self._cut(target)
        # Outputs are stored a tile at a time, but where something is computed from them first.
        self.followed = any(v is not self.out for v, _ in outputs)
        self.staged = (self.together or self.followed or window.features % self.nr != 0
                       or self.out.dtype is not self.sums)
        # Taps along the innermost dim and features are one run, where no feature is skipped.
        self.joined = (wide.spacing == 1 and window.groups == 1 and not self.sides
                       and self.pitch == self.input_features)
        self.sections = sections(window) if self.together else []
        self.parts = [s.parts for s in self.sections] or list(cartesian(*(a.parts for a in self.axes)))

    def _has_sides(self) -> bool:
        """Does nothing lie beside the lines of the image but one place for a tile, which can be zeros
        elsewhere? Lines before and after it have no products."""
        *outer, wide = self.axes
        return (len(outer) == 1 and self.window.groups == 1 and wide.spacing == 1 and not self.together
                and self.product.group == 1 and self.channels >= _LONG
                and all(_is_beside(wide, p) for p in wide.parts))

    def _reads_in_place(self, target: Target) -> bool:
        """Is a tile part of a line, and do the rows it reads have room in the first-level cache?"""
        sets = _SETS * LINE
        apart = math.gcd(self.axes[-1].stride * self.pitch * self.word.itemsize, sets)
        return (self.stacked == 1 and self.tile.rows > 1
                and self.tile.rows * apart <= (target.ways - 4) * sets)

    def _choose_tile(self, target: Target, tall: int) -> None:
        """The tile, where rows that begin so many words apart are read."""
        window, item, lanes = self.window, self.word.itemsize, target.tile.bits // self.sums.bits
        wide = self.axes[-1]
        # Pixels a multiple of 1 KB apart would share a few sets of the first-level cache.
        uneven = self.copies and self.input_features * item % 512 == 0
        self.pitch = self.input_features + (lanes if uneven else 0)
        close = self.depth * 4 * lanes * item <= _CLOSE_BYTES or (
            not self.copies and window.features <= 4 * lanes)
        # Parts that are computed together are one panel.
        vectors = {"vectors": [-(-self.columns // lanes)]} if self.together else {}
        row = min(p.count for p in wide.parts)
        if self.product.tiles:
            self.tile, self.stacked = register_rows(row, tall, self.columns)
        else:
            self.tile, self.stacked = best_rows(
                target, self.sums, row, tall, self.columns, close, wide.stride * self.pitch * item,
                self.depth <= _SHORT, **vectors)
        self.width = self.tile.rows // self.stacked
        self.nr = self.tile.columns

    def _cut(self, target: Target) -> None:
        """Blocks of outputs and of panels that make a task."""
        size = self.word.itemsize
        least = [1] * len(self.axes)
        least[-1] = self.width
        if self.stacked > 1:
            least[-2] = self.stacked

        def read(counts: Sequence[int]) -> int:
            spans = [a.span(c) for a, c in zip(self.axes, counts, strict=True)]
            return math.prod(spans) * self.pitch * size

        if self.stacked > 1:
            least[-1] = self.axes[-1].parts[0].count
        self.cuts = blocks(self.axes, tuple(least), read, _REGION_BYTES)
        self.sizes = [-(-a.parts[0].count // k) for a, k in zip(self.axes, self.cuts, strict=True)]
        self.spans = [a.span(s) for a, s in zip(self.axes, self.sizes, strict=True)]
        shares = 1 if self.window.groups > 1 else -(-_TASKS // math.prod(self.cuts))
        self.task_panels = -(-self.panels // min(shares, self.panels))
        # Of many images a task does as many panels as stay near from one to the next: what it reads is
        # copied once for all of these.
        panel = self.depth * self.nr * size
        most = self.panels if self.window.groups > 1 else max(
            min(target.bytes_near // panel, self.panels), 1)
        self.many_panels = -(-self.panels // -(-self.panels // most))

    # -- phases -------------------------------------------------------------------------------------

    def emit_phases(self) -> None:
        emit, window = self.emit, self.window
        self._lay_out_kernel()
        self.memory = emit.scratch(self.group_size * window.groups * self.word.itemsize)
        with emit.phase(Work((window.groups * self.panels,), (), (1000, self.nr, self.depth))):
            last = "%last"
            if self.packs_alone:
                last = emit.inst(f"select i1 {self._is_alone()}, i64 0, i64 %last")
            with emit.loop("%first", last) as number, emit.scope():
                self._pack(number, place(emit, self.word, self.memory,
                                         emit.imul(number, self.panel_size)))
        shares = -(-self.panels // min(self.task_panels, self.many_panels))
        work = Work((shares, self.image.shape[0], *self.cuts), (),
                    (_PICOSECONDS, *self.sizes, min(self.task_panels * self.nr, window.features),
                     window.groups, self.depth))
        with emit.phase(work), emit.loop("%first", "%last") as task, emit.scope():
            self._task(task)

    def _is_alone(self) -> str:
        """Does no other task use this one's panels: is there one image?"""
        return self.emit.icompare("eq", self.emit.extent(self.image, 0), 1)

    def _lay_out_kernel(self) -> None:
        """Where the panels of each part, or section, begin: `[group][panel][part]`."""
        self.starts, total = [], 0
        for part in self.parts:
            self.starts.append(total)
            # Whole squares are written where the kernel is transposed.
            taps = math.prod(len(p.taps) for p in part)
            total += (taps * self.channels + self.tile.lanes) * self.nr
        self.panel_size = total
        # Alone with its panels, a task packs each before it uses it.
        self.packs_alone = (math.prod(self.cuts) == 1 and self.window.groups == 1 and not self.together
                            and total * self.panels * self.word.itemsize >= _FAR_BYTES)
        self.group_size = total * self.panels

    def _pack(self, number: Index, target: str) -> None:
        """A panel of the kernel, all parts."""
        emit, window = self.emit, self.window
        n = self.op.attributes["dimension_numbers"]
        shape = self.kernel.shape
        strides = [math.prod(shape[d + 1:]) for d in range(len(shape))]
        taps = [strides[d] for d in n.kernel_spatial_dimensions]
        by_channel, by_feature = (strides[d] for d in (
            n.kernel_input_feature_dimension, n.kernel_output_feature_dimension))
        if self.together:
            self._pack_together(taps, by_channel, by_feature)
            return
        group, panel = emit.idiv(number, self.panels), emit.irem(number, self.panels)
        column = emit.imul(panel, self.nr)
        feature = emit.iadd(emit.imul(group, window.features), column)
        source = place(emit, self.kernel.dtype, emit.pointers[self.kernel],
                       emit.imul(feature, by_feature))
        left = emit.isub(window.features, column)
        rows = []
        for start, part in zip(self.starts, self.parts, strict=True):
            for i, tap in enumerate(cartesian(*(p.taps for p in part))):
                rows.append((dot(tap, taps), start + i * self.channels * self.nr))
        with self._each_tap(rows) as (begin, end):
            self.packer.panel(
                place(emit, self.kernel.dtype, source, begin), place(emit, self.word, target, end),
                by_channel, by_feature, window.channels, left)

    def _pack_together(self, taps: list[int], by_channel: int, by_feature: int) -> None:
        """The panel of all parts. What is where one has no tap is multiplied, and not used."""
        emit, window = self.emit, self.window
        clear_run(emit, self.word, self.tile.lanes, self.memory, 0, self.panel_size)
        rows = [(dot(tap, taps), start + i * self.channels * self.nr + number * window.features)
                for start, section in zip(self.starts, self.sections, strict=True)
                for number, elements in section.elements.items() for i, tap in enumerate(elements)]
        with self._each_tap(rows) as (begin, end), \
                emit.loop(0, window.channels) as k, emit.scope(), \
                emit.loop(0, window.features) as j, emit.scope():
            source = emit.iadd(emit.imul(k, by_channel), emit.imul(j, by_feature))
            element = emit.load_from(place(emit, self.word, emit.pointers[self.kernel],
                                           emit.iadd(begin, source)), self.word)
            target = emit.iadd(emit.iadd(end, emit.imul(k, self.nr)), j)
            emit.store_to(place(emit, self.word, self.memory, target), self.word, element)

    @contextmanager
    def _each_tap(self, rows: list[tuple[int, int]]) -> Iterator[tuple[Index, Index]]:
        """A loop over where taps are in the kernel and in a panel: a table, so that the code is there
        once."""
        emit = self.emit
        emit.definitions["kernel.taps"] = (
            f"@kernel.taps = private unnamed_addr constant [{2 * len(rows)} x i64]"
            f" [{', '.join(f'i64 {r}' for row in rows for r in row)}], align 8")
        with emit.loop(0, len(rows)) as tap, emit.scope():
            row = emit.inst(f"getelementptr [2 x i64], ptr @kernel.taps, i64 {tap}")
            end = emit.inst(f"getelementptr i64, ptr {row}, i64 1")
            yield (emit.inst(f"load i64, ptr {row}, align 8"),
                   emit.inst(f"load i64, ptr {end}, align 8"))

    # -- a task -------------------------------------------------------------------------------------

    def _task(self, task: Index) -> None:
        emit = self.emit
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
        panels: Index = self.task_panels
        if self.many_panels != self.task_panels:
            many = emit.icompare("sge", images, -(-_MANY_TASKS // math.prod(self.cuts)))
            panels = emit.inst(f"select i1 {many}, i64 {self.many_panels}, i64 {self.task_panels}")
        first = emit.imul(share, panels)
        last = emit.imin(emit.iadd(first, panels), self.panels)
        with emit.when(emit.icompare("slt", first, last)), emit.scope():
            self._panels(first, last)

    def _panels(self, first: Index, last: Index) -> None:
        """The outputs of some panels."""
        emit, window, n = self.emit, self.window, self.n
        size = math.prod(a.size for a in self.axes) * window.groups * window.channels
        self.base = place(emit, self.image.dtype, emit.pointers[self.image], emit.imul(n, size))
        memory, item = "", self.word.itemsize
        self.buffer_size = self.tile.rows * self.nr
        buffers = max(len(self.sections), 1) if self.staged else 0
        tile = -(-buffers * self.buffer_size * self.sums.itemsize // 64) * 64
        region = math.prod(self.spans) * self.pitch * item if self.copies else 0
        own = self.panel_size * item if self.packs_alone else 0
        if tile or region or own:
            memory = emit.workspace(tile + region + own + 64)
        self.buffer = memory
        sizes = [a.size for a in self.axes]
        if self.copies:
            sizes = self.spans
            source, self.base = self.base, place(emit, self.word, memory, tile // item)
            self._copy(source)
        self.pitches = [math.prod(sizes[i + 1:]) * self.pitch for i in range(len(sizes))]
        registers = amx.configured(emit, amx.height_of(self.tile.rows, self.stacked)) if (
            self.product.tiles) else nullcontext()
        with registers, emit.loop(0, window.groups) as group, emit.scope(), \
                emit.loop(first, last) as panel, emit.scope():
            number = emit.iadd(emit.imul(group, self.panels), panel)
            weights = place(emit, self.word, self.memory, emit.imul(number, self.panel_size))
            if self.packs_alone:
                weights = self._pack_own(number, weights, place(
                    emit, self.word, memory, -(-(tile + region) // 64) * 64 // item))
            runs = list(zip(self.parts, self.starts, strict=True))
            if self.together:
                self._part(tuple(a.parts[0] for a in self.axes), runs, weights, group, panel)
                return
            for part, start in runs:
                self._part(part, [(part, start)], weights, group, panel)

    def _pack_own(self, number: Index, weights: str, memory: str) -> str:
        """A panel in the task's own memory if it is alone, or where it was packed before."""
        emit, alone = self.emit, self._is_alone()
        with emit.when(alone), emit.scope():
            self._pack(number, memory)
        return emit.inst(f"select i1 {alone}, ptr {memory}, ptr {weights}")

    def _copy(self, source: str) -> None:
        """What the task reads, into its workspace, zeros where there is no input."""
        emit, dtype, group = self.emit, self.image.dtype, self.product.group
        features, pitch = self.window.groups * self.window.channels, self.pitch * group
        lanes = self.tile.lanes * group
        # Lines are copied whole where pixels are neighbours in the workspace, too.
        lines = pitch == features
        wide = self.axes[-1]
        outer = self.axes[:-1] if lines else self.axes
        run, size = (self.spans[-1] * features, wide.size * features) if lines else (
            self.input_features * group, features)
        multiple = features if run % features == 0 else 1
        begin: Index = 0
        end: Index = run if lines else features
        if lines:
            # The part of a line that exists, as of the first element that is read.
            before = emit.imul(emit.iadd(emit.imul(self.low[-1], wide.stride), wide.first), features)
            begin = emit.imin(emit.imax(emit.isub(0, before), 0), run)
            end = emit.imax(emit.imin(emit.isub(size, before), run), begin)
            source = place(emit, dtype, source, before)

        def nest(i: int, position: Index, offset: Index, inside: list[str]) -> None:
            if i == len(outer):
                target = place(emit, dtype, self.base, emit.imul(position, run if lines else pitch))
                low, high = begin, end
                if inside:
                    exists = emit.all(inside)
                    low = emit.inst(f"select i1 {exists}, i64 {begin}, i64 {run}")
                    high = emit.inst(f"select i1 {exists}, i64 {end}, i64 {run}")
                clear_run(emit, dtype, lanes, target, 0, low, multiple)
                copy_run(emit, dtype, lanes, place(emit, dtype, source, emit.imul(offset, size)),
                         target, low, high, multiple)
                clear_run(emit, dtype, lanes, target, high, run, multiple)
                return
            axis = outer[i]
            first = emit.iadd(emit.imul(self.low[i], axis.stride), axis.first)
            with emit.loop(0, self.spans[i]) as p, emit.scope():
                at = emit.iadd(first, p)
                here = inside if axis.inside else [*inside, emit.icompare("ult", at, axis.size)]
                nest(i + 1, emit.iadd(emit.imul(position, self.spans[i]), p),
                     emit.iadd(emit.imul(offset, axis.size), at), here)

        nest(0, 0, 0, [])

    def _part(self, part: tuple[Part, ...], runs: Sequence[tuple[tuple[Part, ...], int]], weights: str,
              group: Index, panel: Index) -> None:
        """The task's outputs of one part and one panel: sums over `runs` of taps, whose panels begin
        at a place in the weights."""
        emit, window = self.emit, self.window
        column = emit.imul(panel, self.nr)
        feature = emit.iadd(emit.imul(group, window.features), column)
        base = place(emit, self.word, self.base, emit.imul(group, self.channels))
        outer = tuple(a.spacing * p for a, p in zip(self.axes[:-1], self.pitches, strict=False))
        if not self.joined:
            outer = (*outer, self.axes[-1].spacing * self.pitches[-1])
        depth = self._counts(runs[0][0])[0]
        wide, row = self.axes[-1], self.axes[-1].stride * self.pitch
        rows: tuple[int, ...] = ()
        if self.stacked > 1:
            tall = self.axes[-2].stride * self.pitches[-2]
            rows = tuple(r * tall + c * row for r in range(self.stacked) for c in range(self.width))
        micro = Micro(self.product, self.tile, row, 1, self.nr,
                      self.nr if self.staged else wide.step * self.output_features, True,
                      outer=outer, a_rows=rows, unroll=_unroll(depth),
                      depth=depth if len(self.parts) == 1 and isinstance(depth, int) else None,
                      adds=False, sides=self.sides)

        def nest(i: int, at: list[Index], skip: list[Index], a: str) -> None:
            """`at`: outputs of the part along the axes so far; `skip`: rows of the tile done before."""
            if i == len(self.axes):
                reads = []
                for taps, panel_start in runs:
                    shift = dot([t.origin - p.origin for t, p in zip(taps, part, strict=True)],
                                 self.pitches)
                    reads.append(self._existing(
                        taps[0], at[0], place(emit, self.word, a, shift),
                        place(emit, self.word, weights, panel_start), *self._counts(taps)))
                self._tile(micro, part, reads, at, skip, feature, column)
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
                     place(emit, self.word, a, emit.imul(position, self.pitches[i])))

        nest(0, [], [], base)

    def _counts(self, taps: tuple[Part, ...]) -> tuple[int, tuple[int, ...]]:
        """K, and how often the loops around it run."""
        counts = tuple(len(t.taps) for t in taps)
        if not self.joined:
            return self.channels, counts
        return counts[-1] * self.channels, counts[:-1]

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
        return (place(emit, self.word, a, emit.imul(low, axis.spacing * self.pitches[0])),
                place(emit, self.word, weights, emit.imul(emit.imul(low, run), self.nr)),
                depth, (emit.imax(emit.isub(high, low), 0), *counts[1:]))

    def _tile(self, micro: Micro, part, reads, at, skip, feature: Index, column: Index) -> None:
        emit = self.emit
        outputs = [emit.iadd(emit.imul(t, axis.step), p.start)
                   for t, axis, p in zip(at, self.axes, part, strict=True)]
        if not self.staged:
            position: Index = self.n
            for o, axis in zip(outputs, self.axes, strict=True):
                position = emit.iadd(emit.imul(position, axis.out), o)
            c = place(emit, self.sums, emit.pointers[self.out],
                      emit.iadd(emit.imul(position, self.output_features), feature))
            ((a, weights, depth, counts),) = reads
            micro.call(emit, a, weights, c, depth, "false", counts=counts,
                       zeros=self._beside(part[-1], at[-1]))
            return
        for number, (a, weights, depth, counts) in enumerate(reads):
            buffer = place(emit, self.sums, self.buffer, number * self.buffer_size)
            micro.call(emit, a, weights, buffer, depth, "false", counts=counts,
                       zeros=self._beside(part[-1], at[-1]))
        columns: Index = self.nr
        if self.columns % self.nr:
            columns = emit.imin(emit.isub(self.columns, column), self.nr)
        first_row = skip[-2] if self.stacked > 1 else 0
        with outlined(emit, (self.buffer,), (
                self.n, feature, columns, first_row, skip[-1], *outputs)) as ((buffer,), numbers):
            self._follow(buffer, *numbers)

    def _beside(self, part: Part, first: Index) -> tuple[str, Index, Index]:
        """Zeros, and the taps for which the first and the last row of a tile read them."""
        emit, axis = self.emit, self.axes[-1]
        if not self.sides:
            return "null", -1, -1
        emit.definitions["kernel.zeros"] = (
            f"@kernel.zeros = private unnamed_addr constant [{self.channels} x {self.word.llvm}]"
            " zeroinitializer, align 64")
        low: Index = -1
        high: Index = -1
        if part.origin < 0:
            low = emit.inst(f"select i1 {emit.icompare('eq', first, 0)}, i64 0, i64 -1")
        if part.origin + (part.count - 1) * axis.stride + len(part.taps) > axis.size:
            last = emit.icompare("eq", first, part.count - self.width)
            high = emit.inst(f"select i1 {last}, i64 {len(part.taps) - 1}, i64 -1")
        return "@kernel.zeros", low, high

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
                index[-2] = emit.iadd(index[-2], emit.imul(r, self.axes[-2].step))
            line = place(emit, self.sums, buffer, emit.imul(
                emit.iadd(emit.imul(r, self.width), w), self.nr))
            if self.together:
                self._add_sections(line)
                self._store_parts(line, n, index)
            else:
                with emit.loop(0, columns, independent=True) as j, emit.scope():
                    self._store(place(emit, self.sums, line, j), [n, *index, emit.iadd(feature, j)])

    def _add_sections(self, line: str) -> None:
        """Add up a row of what the sections gave, each for the parts that have its taps."""
        emit, lanes, features = self.emit, self.tile.lanes, self.window.features
        vector, kind = f"<{lanes} x {self.sums.llvm}>", f"v{lanes}f{self.sums.bits}"
        for v in range(0, self.nr, lanes):
            total = ""
            for number, section in enumerate(self.sections):
                bits = ", ".join(f"i1 {'true' if (v + i) // features in section.elements else 'false'}"
                                 for i in range(lanes))
                source = place(emit, self.sums, line, number * self.buffer_size + v)
                value = emit.inst(f"call {vector} @llvm.masked.load.{kind}.p0(ptr {source},"
                                  f" i32 {self.sums.itemsize}, <{lanes} x i1> <{bits}>,"
                                  f" {vector} zeroinitializer)")
                total = emit.inst(f"fadd {vector} {total}, {value}") if total else value
            emit.do(f"store {vector} {total}, ptr {place(emit, self.sums, line, v)},"
                    f" align {self.sums.itemsize}")

    def _store_parts(self, line: str, n: Index, first: list[Index]) -> None:
        """Store a row of all parts, of which `first` is where the first one begins: along the innermost
        dim they are neighbours."""
        emit, features = self.emit, self.window.features
        *outer, wide = self.window.axes
        run = len(wide.parts) * features

        def nest(i: int, number: Index, index: list[Index]) -> None:
            if i < len(outer):
                left = emit.isub(outer[i].out, first[i])
                with emit.loop(0, emit.imin(left, len(outer[i].parts))) as p, emit.scope():
                    nest(i + 1, emit.iadd(emit.imul(number, len(outer[i].parts)), p),
                         [*index, emit.iadd(first[i], p)])
                return
            source = place(emit, self.sums, line, emit.imul(number, run))
            count = emit.imin(emit.imul(emit.isub(wide.out, first[-1]), features), run)
            if self.followed:
                with emit.loop(0, count) as j, emit.scope():
                    self._store(place(emit, self.sums, source, j), [
                        *index, emit.iadd(first[-1], emit.idiv(j, features)), emit.irem(j, features)])
                return
            target = place(emit, self.sums, emit.pointers[self.out],
                           emit.linear(self.out, [*index, first[-1], 0]))
            copy_run(emit, self.sums, self.tile.lanes, source, target, 0, count)

        nest(0, 0, [n])

    def _store(self, source: str, index: list[Index]) -> None:
        """Compute the outputs from an element of the convolution."""
        emit = self.emit
        with emit.given(self.out, self.product.total(emit, emit.load_from(source, self.sums),
                                                     self.out.dtype)):
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
