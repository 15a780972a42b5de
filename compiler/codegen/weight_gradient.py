"""Weight gradients of convolutions: products summed over the pixels of a batch of images.

    d[tap, channel, feature] = sum over pixels of image[pixel + tap, channel] * gradient[pixel, feature]

Pixels are K of the micro-kernel, channels its rows, features its columns. They are cut into blocks that
stay in the second-level cache; a task copies a block of the image (zeros around it) and of the
gradient (as panels of features) into its workspace and adds its products to the result, tap by tap.
Small results are summed in several parts, which a last phase adds, where there are pixels enough: how
many follows from the shapes alone. The panels of a result in one part are shared instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ..ir.core import Op, Value
from ..ir.dtypes import DType
from .depthwise import depthwise_gradient, is_depthwise
from .emitter import Emitter
from .move import clear_run, copy_run, place
from .pack import Packer
from .product import Product
from .shuffle import lane_mask
from .target import LINE, Target
from .text import Index
from .tile import Micro, Tile
from .window import Window, gradient_window
from .work import Work

_BLOCK_BYTES = 384 << 10
"""Of image and gradient that a task works on at a time."""
_FAR_BYTES, _FAR_BLOCK_BYTES = 4 << 20, 768 << 10
"""A result of this size is in no second-level cache, and every block adds to all of it: fewer, larger
ones. 10 to 30 %."""
_PANEL_BYTES = 24 << 10
"""Of a packed panel of the gradient where each pixel is multiplied once, without a window around it:
what stays in the first-level cache. A fifth for 64 channels."""
_PARTS = 8
_PARTS_BYTES = 4 << 20
"""Of partial sums."""
_PART_PIXELS = 1024
"""Of a part at least: fewer take up to a fifth longer than no parts."""
_TASKS = 4
_PICOSECONDS = 10
_CHUNK = 4096
"""Elements a task of the last phase adds up."""

Output = tuple[Value, str]


def weight_gradient(emit: Emitter, op: Op, target: Target, outputs: Sequence[Output]) -> None:
    """Emit the kernel of a weight gradient."""
    window = gradient_window(op)
    assert window is not None
    ((_, pointer),) = outputs
    if is_depthwise(window, op, gradient=True):
        depthwise_gradient(emit, op, window, target, pointer, add_parts)
        return
    emit.finished = True
    _WeightGradient(emit, op, window, target, pointer).emit_phases()


def _best_tile(target: Target, dtype, rows: int, columns: int) -> Tile:
    lanes = target.tile.bits // dtype.bits
    budget = 28 if target.tile.bits == 512 else target.tile.rows * target.tile.vectors

    def merit(tile: Tile) -> float:
        used = rows / (-(-rows // tile.rows) * tile.rows)
        used *= columns / (-(-columns // tile.columns) * tile.columns)
        reuse = tile.rows * tile.vectors / (tile.rows + tile.vectors)
        return used * min(1.0, 0.55 + 0.25 * reuse) * min(1.0, 0.4 + tile.rows * tile.vectors / 20)

    tiles = [Tile(height, vectors, lanes) for vectors in (2, 4, 3, 1)
             for height in range(min(budget // vectors, 14), 0, -1)]
    return max(tiles, key=merit)


class _WeightGradient:
    def __init__(self, emit: Emitter, op: Op, window: Window, target: Target, pointer: str):
        self.emit, self.window, self.result = emit, window, pointer
        self.image, self.gradient = op.operands
        self.dtype = op.result.dtype
        # The dims of the result are taps of the convolution this is the gradient of, and its stride is
        # the spacing here.
        self.axes = window.axes
        self.channels = window.groups * window.channels
        self.features = window.groups * window.features
        self.size = math.prod(a.out for a in self.axes) * window.channels * self.features
        item = self.dtype.itemsize
        wide = self.axes[-1]
        step = wide.spacing * self.channels * item
        # Pixels 1 KB apart or more share few sets of the first-level cache.
        self.pitch = self.channels + (64 // item if step % 1024 == 0 else 0)
        # The image is read where it is, if it is all there.
        self.copies = self.pitch != self.channels or not all(a.inside for a in self.axes)
        # Of pixels between taps, none are copied where there is one tap.
        self.spacings = [1 if self.copies and a.out == 1 else a.spacing for a in self.axes]
        self.joined = self.pitch == self.channels and wide.stride == 1 and window.groups == 1
        self.rows = window.channels * (wide.out if self.joined else 1)
        self.tile = _best_tile(target, self.dtype, self.rows, window.features)
        self.nr = self.tile.columns
        self.panels = -(-window.features // self.nr)
        self.product = Product(self.dtype, self.dtype)
        self.packer = Packer(emit, self.dtype, self.product, self.tile)
        self._cut()

    def _cut(self) -> None:
        """Blocks of pixels, and how the work divides."""
        item = self.dtype.itemsize

        def read(counts: Sequence[int]) -> int:
            pixels = math.prod(counts)
            return (math.prod(self._reach(counts)) * self.pitch + pixels * self.features) * item

        def is_large() -> bool:
            sizes = self._sizes()
            panel = math.prod(sizes) * self.nr * item if all(a.out == 1 for a in self.axes) else 0
            return read(sizes) > most or panel > _PANEL_BYTES

        most = _BLOCK_BYTES if self.size * item < _FAR_BYTES else _FAR_BLOCK_BYTES
        taps = [a.taps for a in self.axes]
        # As axes whose outputs are the pixels of the gradient.
        self.cuts = [1] * len(taps)
        for i, count in enumerate(taps):
            while self.cuts[i] < count and is_large():
                self.cuts[i] += 1
        self.sizes = self._sizes()
        self.reach = self._reach(self.sizes)
        # Small images go several at a time.
        whole = all(c == 1 for c in self.cuts)
        self.images = max(1, min(8, most // read(self.sizes))) if whole else 1
        # The pixels of a block are neighbours: one run of K.
        self.flat = all(c == 1 for c in self.cuts[1:]) and all(
            a.out == 1 and step == 1 and (self.copies or a.taps == a.size)
            for a, step in zip(self.axes, self.spacings, strict=True))
        self.parts = max(1, min(_PARTS, _PARTS_BYTES // (self.size * item)))
        shares = 1 if self.window.groups > 1 else min(self.panels, _TASKS)
        self.task_panels = -(-self.panels // shares)
        self.shares = -(-self.panels // self.task_panels)
        # A product of every pixel takes hardly longer than to read it: the next block is fetched
        # meanwhile, the image, too, where all of it is used.
        self.next = self.features + self.channels * all(a.taps == a.size for a in self.axes)
        tiles = -(-self.rows // self.tile.rows) * self.panels
        self.coming = 0
        if self.flat and self.window.groups == 1:
            self.coming = min(-(-Micro.unroll * self.next * item // (LINE * tiles)), 4)

    def _reach(self, counts: Sequence[int]) -> list[int]:
        """Positions of the input that so many pixels of the gradient meet."""
        return [(count - 1) * step + (axis.out - 1) * axis.stride + 1
                for axis, step, count in zip(self.axes, self.spacings, counts, strict=True)]

    def _sizes(self) -> list[int]:
        return [-(-a.taps // k) for a, k in zip(self.axes, self.cuts, strict=True)]

    # -- phases -------------------------------------------------------------------------------------

    def emit_phases(self) -> None:
        emit, item = self.emit, self.dtype.itemsize
        self.sums = self.result
        if self.parts > 1:
            self.sums = emit.scratch(self.parts * self.size * item)
        cost = (_PICOSECONDS, self.image.shape[0], self.size // self.window.groups,
                *(a.taps for a in self.axes))
        with emit.phase(Work((max(self.parts, self.shares),), (), cost)):
            self._tasks()
        if self.parts > 1:
            add_parts(emit, self.dtype, self.tile.lanes, self.sums, self.result, self.size, self.parts,
                      self._used_parts)

    def _used_parts(self) -> Index:
        """Parts of the sum: 1 is summed in the result itself."""
        emit = self.emit
        if self.parts == 1:
            return 1
        pixels = emit.imul(emit.extent(self.image, 0), math.prod(a.taps for a in self.axes))
        used = emit.imin(emit.idiv(pixels, _PART_PIXELS), self.parts)
        return emit.imax(emit.imin(used, self._blocks()), 1)

    def _blocks(self) -> Index:
        """Blocks of pixels in the batch."""
        groups = _ceil(self.emit, self.emit.extent(self.image, 0), self.images)
        return self.emit.imul(groups, math.prod(self.cuts))

    def _tasks(self) -> None:
        """Tasks are parts of the sum or, if it has one, shares of the panels: those of one call then
        take each block together, which is copied once."""
        emit = self.emit
        begin = emit.imin(emit.imul("%first", self.task_panels), self.panels)
        end = emit.imin(emit.imul("%last", self.task_panels), self.panels)
        some = emit.inst(f"zext i1 {emit.icompare('slt', begin, end)} to i64")
        parts = self._used_parts()
        if parts == 1:
            with emit.loop(0, some) as part, emit.scope():
                self._part(part, parts, begin, end, self.result)
            return
        one = emit.icompare("eq", parts, 1)

        def either(first: Index, second: Index) -> str:
            return emit.inst(f"select i1 {one}, i64 {first}, i64 {second}")

        begin, end = either(begin, 0), either(end, self.panels)
        with emit.loop(either(0, "%first"), either(some, emit.imin("%last", parts))) as part, \
                emit.scope():
            sums = place(emit, self.dtype, self.sums, emit.imul(part, self.size))
            sums = emit.inst(f"select i1 {one}, ptr {self.result}, ptr {sums}")
            self._part(part, parts, begin, end, sums)

    def _part(self, part: Index, parts: Index, begin: Index, end: Index, sums: str) -> None:
        """Some panels of a part of the sum."""
        emit, item = self.emit, self.dtype.itemsize
        # Once even if there are no images: the result is zeros then.
        total = emit.imax(self._blocks(), 1)
        first = emit.idiv(emit.imul(part, total), parts)
        last = emit.idiv(emit.imul(emit.iadd(part, 1), total), parts)
        image_size = math.prod(self.reach) * self.pitch if self.copies else 0
        panel_size = self.images * math.prod(self.sizes) * self.nr
        memory = emit.workspace((self.images * image_size + panel_size) * item + 64)
        packed = place(emit, self.dtype, memory, -(-self.images * image_size // 16) * 16)
        with emit.loop(first, last) as block, emit.scope():
            add = emit.icompare("sgt", block, first)
            low: list[Index] = []
            counts: list[Index] = []
            rest: Index = block
            for axis, cut in zip(self.axes[::-1], self.cuts[::-1], strict=True):
                number, rest = emit.irem(rest, cut), emit.idiv(rest, cut)
                start = emit.idiv(emit.imul(number, axis.taps), cut)
                stop = emit.idiv(emit.imul(emit.iadd(number, 1), axis.taps), cut)
                low.insert(0, start)
                counts.insert(0, emit.isub(stop, start))
            n = emit.imul(rest, self.images)
            images = emit.imin(emit.isub(emit.extent(self.image, 0), n), self.images)
            image = memory
            if self.copies:
                with emit.loop(0, images) as i, emit.scope():
                    self._copy_image(memory, emit.iadd(n, i), emit.imul(i, image_size), low)
            else:
                image = self._first_pixel(n, low)
            pixels = emit.imul(images, _product(emit, counts))
            if self.coming:
                start = emit.iadd(emit.imul(n, math.prod(a.taps for a in self.axes)), emit.imul(
                    low[0], math.prod(a.taps for a in self.axes[1:])))
                self._expect(emit.iadd(start, pixels), pixels)
            with emit.loop(0, self.window.groups) as group, emit.scope(), \
                    emit.loop(begin, end) as panel, emit.scope():
                self._pack_gradient(packed, n, images, low, counts, group, panel)
                runs = (pixels, ()) if self.flat else (counts[-1], (images, *counts[:-1]))
                self._products(image, packed, sums, *runs, group, panel, emit.isub(panel, begin), add)

    def _expect(self, pixel: Index, pixels: Index) -> None:
        """The next block begins at a pixel of the batch and has about as many as this one: a pointer
        and a range of bytes to fetch, for the gradient and for the image."""
        emit, item = self.emit, self.dtype.itemsize
        self.expected: list[tuple[str, Index, Index]] = []
        low: Index = 0
        for value, count in ((self.gradient, self.features), (self.image, self.next - self.features)):
            high = emit.iadd(low, emit.imul(pixels, count * item))
            self.expected.append((place(emit, self.dtype, emit.pointers[value], emit.imul(
                pixel, count)), low, high))
            low = high

    def _fetched(self, call: Index, depth: Index, near: str) -> str:
        """What a call fetches of it: nothing new when all is fetched."""
        emit = self.emit
        offset = emit.imul(emit.imul(call, emit.idiv(depth, Micro.unroll)), LINE * self.coming)
        found = near
        for pointer, low, high in self.expected:
            here = emit.inst(f"getelementptr i8, ptr {pointer}, i64 {emit.isub(offset, low)}")
            inside = emit.all([emit.icompare("sge", offset, low), emit.icompare("slt", offset, high)])
            found = emit.inst(f"select i1 {inside}, ptr {here}, ptr {found}")
        return found

    def _first_pixel(self, n: Index, low: list[Index]) -> str:
        """Where what a block reads of an image begins."""
        emit, at = self.emit, n
        for axis, start in zip(self.axes, low, strict=True):
            at = emit.iadd(emit.imul(at, axis.size),
                           emit.iadd(emit.imul(start, axis.spacing), axis.first))
        return place(emit, self.dtype, emit.pointers[self.image], emit.imul(at, self.channels))

    def _copy_image(self, memory: str, n: Index, offset: Index, low: list[Index]) -> None:
        """What a block reads of an image."""
        emit, lanes = self.emit, self.tile.lanes
        target = place(emit, self.dtype, memory, offset)
        pixels = math.prod(a.size for a in self.axes)
        source = place(emit, self.dtype, emit.pointers[self.image],
                       emit.imul(n, pixels * self.channels))

        def nest(i: int, position: Index, at: Index, inside: list[str]) -> None:
            if i == len(self.axes):
                to = place(emit, self.dtype, target, emit.imul(position, self.pitch))
                count: Index = self.channels
                if inside:
                    count = emit.inst(f"select i1 {emit.all(inside)}, i64 {count}, i64 0")
                copy_run(emit, self.dtype, lanes, place(
                    emit, self.dtype, source, emit.imul(at, self.channels)), to, 0, count,
                    self.channels)
                clear_run(emit, self.dtype, lanes, to, count, self.channels, self.channels)
                return
            axis = self.axes[i]
            first = emit.iadd(emit.imul(low[i], axis.spacing), axis.first)
            with emit.loop(0, self.reach[i]) as p, emit.scope():
                here = emit.iadd(first, emit.imul(p, axis.spacing // self.spacings[i]))
                more = inside if axis.inside else [*inside, emit.icompare("ult", here, axis.size)]
                nest(i + 1, emit.iadd(emit.imul(position, self.reach[i]), p),
                     emit.iadd(emit.imul(at, axis.size), here), more)

        nest(0, 0, 0, [])

    def _pack_gradient(self, target: str, n: Index, images: Index, low: list[Index],
                       counts: list[Index], group: Index, panel: Index) -> None:
        """A panel of features of the block's pixels, `[pixel][column]`."""
        emit = self.emit
        column = emit.imul(panel, self.nr)
        left = emit.isub(self.window.features, column)
        feature = emit.iadd(emit.imul(group, self.window.features), column)
        source = place(emit, self.dtype, emit.pointers[self.gradient], feature)

        def nest(i: int, position: Index, at: Index) -> None:
            if i == len(self.axes) - 1:
                axis, count = self.axes[i], counts[i]
                pixel = emit.iadd(emit.imul(at, axis.taps), low[i])
                self.packer.panel(
                    place(emit, self.dtype, source, emit.imul(pixel, self.features)),
                    place(emit, self.dtype, target, emit.imul(
                        emit.imul(position, count), self.nr)), self.features, 1, count, left)
                return
            with emit.loop(0, counts[i]) as p, emit.scope():
                nest(i + 1, emit.iadd(emit.imul(position, counts[i]), p),
                     emit.iadd(emit.imul(at, self.axes[i].taps), emit.iadd(low[i], p)))

        with emit.loop(0, images) as i, emit.scope():
            nest(0, i, emit.iadd(n, i))

    def _products(self, memory: str, packed: str, sums: str, depth: Index, rounds: tuple[Index, ...],
                  group: Index, panel: Index, number: Index, add: str) -> None:
        """Add a block's products of a panel of features, the `number`th, all taps and channels."""
        emit, axes = self.emit, self.axes
        sizes = self.reach if self.copies else [a.size for a in axes]
        pitches = [math.prod(sizes[i + 1:]) * self.pitch for i in range(len(axes))]
        outer = (math.prod(sizes) * self.pitch,
                 *(step * p for step, p in zip(self.spacings[:-1], pitches, strict=False)))
        micro = Micro(self.product, self.tile, 1, self.spacings[-1] * self.pitch, self.nr,
                      self.features, True, outer=() if self.flat else outer, unroll=_unroll(depth),
                      coming=self.coming)
        column = emit.imul(panel, self.nr)
        feature = emit.iadd(emit.imul(group, self.window.features), column)
        left = emit.imin(emit.isub(self.window.features, column), self.nr)
        memory = place(emit, self.dtype, memory, emit.imul(group, self.window.channels))
        sums = place(emit, self.dtype, sums, feature)

        def nest(i: int, a: Index, tap: Index) -> None:
            if i < len(axes) - (1 if self.joined else 0):
                with emit.loop(0, axes[i].out) as k, emit.scope():
                    nest(i + 1, emit.iadd(a, emit.imul(k, axes[i].stride * pitches[i])),
                         emit.iadd(emit.imul(tap, axes[i].out), k))
                return
            source = place(emit, self.dtype, memory, a)
            target = place(emit, self.dtype, sums, emit.imul(tap, self.rows * self.features))
            self._tiles(micro, source, packed, target, depth, rounds, number, add, left)

        nest(0, 0, 0)

    def _tiles(self, micro: Micro, a: str, b: str, c: str, depth: Index, rounds, number: Index,
               add: str, left: Index) -> None:
        emit, height = self.emit, self.tile.rows
        calls = emit.imul(number, -(-self.rows // height))

        def one(t: Index, edge) -> None:
            row = emit.imul(t, height)
            source = place(emit, self.dtype, a, row)
            coming = self._fetched(emit.iadd(calls, t), depth, source) if self.coming else ""
            micro.call(emit, source, b, place(emit, self.dtype, c, emit.imul(row, self.features)),
                       depth, add, edge, rounds, coming)

        whole: Index = self.rows // height
        total = -(-self.rows // height)
        even = self.window.features % self.nr == 0
        if not even:
            narrow = emit.icompare("slt", left, self.nr)
            whole = emit.inst(f"select i1 {narrow}, i64 0, i64 {whole}")
        with emit.loop(0, whole) as t, emit.scope():
            one(t, None)
        if even and self.rows % height == 0:
            return
        with emit.loop(whole, total) as t, emit.scope():
            rows = emit.imin(emit.isub(self.rows, emit.imul(t, height)), height)
            one(t, (rows, left))


def add_parts(emit: Emitter, dtype: DType, lanes: int, sums: str, result: str, size: int, most: int,
              used: Callable[[], Index] | None = None) -> None:
    """A phase that adds the parts of a sum, `most` of them or as many as are `used`: 1 is in the result
    already."""
    vector, kind, item = f"<{lanes} x {dtype.llvm}>", f"v{lanes}f{dtype.bits}", dtype.itemsize
    with emit.phase(Work((size,), (_CHUNK,), (_CHUNK, most * 100))):
        parts: Index = most
        final: Index = "%last"
        if used is not None:
            parts = used()
            final = emit.inst(f"select i1 {emit.icompare('eq', parts, 1)}, i64 0, i64 %last")
        cell = emit.cell(vector)
        with emit.loop("%first", final) as task, emit.scope():
            start = emit.imul(task, _CHUNK)
            stop = emit.imin(emit.iadd(start, _CHUNK), size)
            with emit.loop(start, stop, lanes) as i, emit.scope():
                mask = lane_mask(emit, emit.isub(stop, i), lanes)
                emit.do(f"store {vector} zeroinitializer, ptr {cell}, align 64")
                with emit.loop(0, parts) as part, emit.scope():
                    pointer = place(emit, dtype, sums, emit.iadd(emit.imul(part, size), i))
                    value = emit.inst(
                        f"call {vector} @llvm.masked.load.{kind}.p0(ptr {pointer}, i32 {item},"
                        f" <{lanes} x i1> {mask}, {vector} zeroinitializer)")
                    old = emit.inst(f"load {vector}, ptr {cell}, align 64")
                    new = emit.inst(f"fadd {vector} {old}, {value}")
                    emit.do(f"store {vector} {new}, ptr {cell}, align 64")
                done = emit.inst(f"load {vector}, ptr {cell}, align 64")
                pointer = place(emit, dtype, result, i)
                emit.do(f"call void @llvm.masked.store.{kind}.p0({vector} {done}, ptr {pointer},"
                        f" i32 {item}, <{lanes} x i1> {mask})")


def _product(emit: Emitter, counts: Sequence[Index]) -> Index:
    total: Index = 1
    for count in counts:
        total = emit.imul(total, count)
    return total


def _unroll(depth: Index) -> int:
    if not isinstance(depth, int):
        return 4
    return next((u for u in (4, 7, 6, 5, 3) if depth % u == 0), 4)


def _ceil(emit: Emitter, count: Index, step: int) -> Index:
    return emit.idiv(emit.iadd(count, step - 1), step)
