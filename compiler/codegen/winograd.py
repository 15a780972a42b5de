"""Winograd convolutions: 36 matrix products over tiles of the image, by the micro-kernel of `tile.py`.

A task is some lines of tiles of a few images by some panels of the kernel. Its tiles go to the points,
`[point][tile][input]`; the products of a panel, `[point][tile][column]`, come back at once, in a
workspace that stays close. What is around the image is zeros that are nowhere in memory.
`ops/winograd.py` has the matrices.

Shapes decide how tiles are grouped, and a sum is in the order of its inputs alone: the bits of an image
depend neither on threads nor on the images beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..ir.core import Op, Value
from ..ir.dtypes import F32
from ..ops.winograd import OUTPUTS, POINTS, WINDOW
from .emitter import Emitter
from .move import place
from .outline import outlined
from .points import Vector, both_ways, from_points, to_points
from .product import Product
from .shuffle import lane_mask
from .target import Target
from .text import Index, Text
from .tile import Micro, Tile, multiply_panel
from .work import Work

_CLOSE_BYTES = 256 << 10
"""Tiles at the points, and their products by a panel: what stays in the second-level cache."""
_KERNEL_BYTES = 4 << 20
"""A larger kernel comes from far for every task, which then has tiles enough to make up for it."""
_TILES, _MANY_TILES = 7, 32
_TASKS, _PANELS = 4, 4
"""Tasks of a single image large enough to share, and the fewest panels of one, which goes to the points
for itself."""
_PICOSECONDS = 10

Output = tuple[Value, str]


@dataclass(frozen=True)
class Blocking:
    """How the tiles of images and the panels of a kernel are cut."""

    micro: Tile
    panels: int
    tall: int
    wide: int
    cuts: int
    """Blocks of lines of tiles of an image."""
    images: int
    """Of a task."""
    shares: int
    """Parts of the panels, each a task of its own."""

    @property
    def lines(self) -> int:
        """Of the tallest block."""
        return -(-self.tall // self.cuts)

    @property
    def tiles(self) -> int:
        """The most of a task."""
        return self.images * self.lines * self.wide

    @property
    def task_panels(self) -> int:
        return -(-self.panels // self.shares)


def kernel_columns(target: Target) -> int:
    """Columns of a panel: two vectors leave registers for tall tiles."""
    return 2 * target.tile.bits // F32.bits


def blocking(target: Target, height: int, width: int, inputs: int, outputs: int) -> Blocking:
    """How a convolution with results of so many pixels and features is cut for a target."""
    tall, wide = -(-height // OUTPUTS), -(-width // OUTPUTS)
    columns = kernel_columns(target)
    panels = -(-outputs // columns)
    far = POINTS * inputs * outputs * F32.itemsize > _KERNEL_BYTES
    enough = _MANY_TILES if far else _TILES
    one = POINTS * (inputs + columns) * F32.itemsize
    most = max(enough, _CLOSE_BYTES // one)
    cuts = next((c for c in range(1, tall + 1) if -(-tall // c) * wide <= most), tall)
    images = max(1, enough // (tall * wide)) if cuts == 1 else 1
    shares = max(1, min(panels // _PANELS, _TASKS // cuts))
    lines = -(-tall // cuts)
    # K is short: a taller tile takes longer to begin and to end than it saves.
    tallest = min(target.tile.rows * target.tile.vectors // 2, 8)
    unit = images * lines * wide
    rows = -(-unit // -(-unit // tallest))
    return Blocking(Tile(rows, 2, columns // 2), panels, tall, wide, cuts, images, shares)


@dataclass(frozen=True)
class _Block:
    """The tiles of a task: of `images` images from `image` on, `lines` lines from `line` on."""

    image: Index
    images: Index
    line: Index
    lines: Index


def is_winograd(op: Op) -> bool:
    return op.name == "tfn.winograd"


def winograd(emit: Emitter, op: Op, target: Target, outputs: Sequence[Output]) -> None:
    """Emit the kernel of `op` and of the elementwise ops that follow it, storing `outputs`."""
    emit.finished = True
    _Winograd(emit, op, target, outputs).emit_phase()


class _Winograd:
    def __init__(self, emit: Emitter, op: Op, target: Target, outputs: Sequence[Output]):
        self.emit, self.op, self.outputs, self.out = emit, op, outputs, op.result
        self.image, self.kernel = op.operands
        self.height, self.width, self.inputs = _sizes(self.image)
        self.out_height, self.out_width, self.features = _sizes(self.out)
        (self.top, _), (self.left, _) = op.attributes["padding"]
        self.cut = cut = blocking(target, self.out_height, self.out_width, self.inputs, self.features)
        self.lanes, self.nr = cut.micro.lanes, cut.micro.columns
        # Rows of a power of two bytes, and points so far apart, would share a few sets of a cache.
        self.in_pitch = -(-self.inputs // self.lanes) * self.lanes + self.lanes
        self.out_pitch = self.nr + self.lanes
        self.staged = any(v is not self.out for v, _ in outputs)
        self.micro = Micro(Product(F32, F32), cut.micro, self.in_pitch, 1, self.nr, self.out_pitch,
                           True, depth=self.inputs, adds=False)

    def emit_phase(self) -> None:
        emit, cut = self.emit, self.cut
        batch = self.image.shape[0]
        work = Work((cut.shares, batch, cut.cuts), (1, cut.images, 1),
                    (_PICOSECONDS, POINTS, cut.tiles, self.inputs, cut.task_panels * self.nr))
        with emit.phase(work), emit.loop("%first", "%last") as task, emit.scope():
            self._task(task)

    def _task(self, task: Index) -> None:
        emit, cut = self.emit, self.cut
        count = emit.extent(self.image, 0)
        groups = emit.idiv(emit.iadd(count, cut.images - 1), cut.images)
        number, rest = emit.irem(task, cut.cuts), emit.idiv(task, cut.cuts)
        image, share = emit.imul(emit.irem(rest, groups), cut.images), emit.idiv(rest, groups)
        low = emit.idiv(emit.imul(number, cut.tall), cut.cuts)
        high = emit.idiv(emit.imul(emit.iadd(number, 1), cut.tall), cut.cuts)
        lines = emit.isub(high, low) if cut.tall % cut.cuts else cut.lines
        images = 1 if cut.images == 1 else emit.imin(emit.isub(count, image), cut.images)
        first = emit.imul(share, cut.task_panels)
        last = emit.imin(emit.iadd(first, cut.task_panels), cut.panels)
        if cut.shares > 1:
            # With images enough to share, one task does all panels, and goes to the points once.
            many = emit.icompare("sge", emit.imul(groups, cut.cuts), _TASKS)
            whole = emit.inst(f"select i1 {emit.icompare('eq', share, 0)}, i64 {cut.panels}, i64 0")
            first = emit.inst(f"select i1 {many}, i64 0, i64 {first}")
            last = emit.inst(f"select i1 {many}, i64 {whole}, i64 {last}")
            images = emit.inst(f"select i1 {emit.icompare('eq', last, 0)}, i64 0, i64 {images}")
        block = _Block(image, images, low, lines)
        at, products, buffer = self._workspaces()
        self._tiles(block, lambda *tile: self._to_points(at, *tile))
        with emit.loop(first, last) as panel, emit.scope():
            self._multiply(at, panel, products, emit.imul(emit.imul(images, lines), cut.wide))
            self._tiles(block, lambda *tile: self._from_points(products, buffer, panel, *tile))

    def _tiles(self, block: _Block, body: Callable[[Index, Index, Index, Index], None]) -> None:
        """`body(image, line, column, number)` for every tile of a task."""
        emit = self.emit
        with emit.loop(0, block.images) as i, emit.scope(), \
                emit.loop(0, block.lines) as r, emit.scope(), \
                emit.loop(0, self.cut.wide) as w, emit.scope():
            line = emit.iadd(emit.imul(i, block.lines), r)
            body(emit.iadd(block.image, i), emit.iadd(block.line, r), w,
                 emit.iadd(emit.imul(line, self.cut.wide), w))

    def _to_points(self, at: str, n: Index, r: Index, w: Index, tile: Index) -> None:
        emit = self.emit
        row = emit.isub(emit.imul(r, OUTPUTS), self.top)
        column = emit.isub(emit.imul(w, OUTPUTS), self.left)
        pixel = emit.iadd(emit.imul(emit.iadd(emit.imul(n, self.height), row), self.width), column)
        source = self._at(emit.pointers[self.image], emit.imul(pixel, self.inputs))
        target = self._at(at, emit.imul(tile, self.in_pitch))
        self._call("spread", self._spread, (source, target), (row, column))

    def _multiply(self, at: str, panel: Index, products: str, rows: Index) -> None:
        """The products of the task's tiles and a panel at each point."""
        emit, cut = self.emit, self.cut
        with emit.loop(0, POINTS) as point, emit.scope():
            weights = emit.imul(emit.iadd(emit.imul(point, cut.panels), panel), self.inputs * self.nr)
            multiply_panel(
                emit, self.micro, self._at(at, emit.imul(point, cut.tiles * self.in_pitch)),
                self._at(emit.pointers[self.kernel], weights),
                self._at(products, emit.imul(point, cut.tiles * self.out_pitch)),
                rows, self.nr, self.inputs, "false")

    def _from_points(self, products: str, buffer: str, panel: Index, n: Index, r: Index, w: Index,
                     tile: Index) -> None:
        emit = self.emit
        row, column = emit.imul(r, OUTPUTS), emit.imul(w, OUTPUTS)
        rows, columns = (emit.imin(emit.isub(size, first), OUTPUTS) for size, first in (
            (self.out_height, row), (self.out_width, column)))
        feature = emit.imul(panel, self.nr)
        features = self.nr if self.features % self.nr == 0 else emit.imin(
            emit.isub(self.features, feature), self.nr)
        source = self._at(products, emit.imul(tile, self.out_pitch))
        if self.staged:
            self._call("gather", self._gather, (source, buffer), (OUTPUTS, OUTPUTS, self.nr))
            with outlined(emit, (buffer,), (n, row, column, feature, rows, columns, features)
                          ) as ((inner,), numbers):
                self._follow(inner, *numbers)
            return
        pixel = emit.iadd(
            emit.imul(emit.iadd(emit.imul(n, self.out_height), row), self.out_width), column)
        target = self._at(emit.pointers[self.out],
                          emit.iadd(emit.imul(pixel, self.features), feature))
        self._call("gather", self._gather, (source, target), (rows, columns, features))

    def _at(self, pointer: str, offset: Index) -> str:
        return place(self.emit, F32, pointer, offset)

    def _workspaces(self) -> tuple[str, str, str]:
        """This thread's memory for tiles at the points, their products, and the results of a tile."""
        cut = self.cut
        first = POINTS * cut.tiles * self.in_pitch
        second = first + POINTS * cut.tiles * self.out_pitch
        third = second + (OUTPUTS * OUTPUTS * self.nr if self.staged else 0)
        memory = self.emit.workspace(third * F32.itemsize)
        return memory, self._at(memory, first), self._at(memory, second)

    def _call(self, name: str, body: Callable[[Text, list[Index]], None], pointers: Sequence[str],
              numbers: Sequence[Index]) -> None:
        """Call a function that is finished as it is, `body` of numbers under names of its own."""
        emit = self.emit
        if name not in emit.definitions:
            text = Text()
            names = [f"%n{i}" for i in range(len(numbers))]
            body(text, list(names))
            for declaration in text.declarations:
                emit.declare(declaration)
            parameters = ", ".join(["ptr noalias %source", "ptr noalias %target",
                                    *(f"i64 {n}" for n in names)])
            lines = "\n".join(text.lines)
            emit.definitions[name] = (f"define internal void @kernel.{name}({parameters}) #1 {{\n"
                                      f"entry:\n  br label %start\nstart:\n{lines}\n  ret void\n}}")
        given = ", ".join([*(f"ptr {p}" for p in pointers), *(f"i64 {n}" for n in numbers)])
        emit.do(f"call void @kernel.{name}({given})")

    # -- to the points and back ---------------------------------------------------------------------

    def _spread(self, text: Text, numbers: list[Index]) -> None:
        """A tile of the image that begins at the pixel `numbers`, at the points."""
        vector = Vector(text, self.lanes)
        row, column = numbers
        sizes = ((row, self.height), (column, self.width))
        inside = text.all([c for first, size in sizes for c in (
            text.icompare("sge", first, 0), text.icompare("sle", first, size - WINDOW))])
        exists = [[text.icompare("ult", text.iadd(first, i), size) for i in range(WINDOW)]
                  for first, size in sizes]
        pixels = [[text.all([exists[0][r], exists[1][c]]) for c in range(WINDOW)]
                  for r in range(WINDOW)]
        whole = self.inputs // self.lanes * self.lanes
        end = text.inst(f"select i1 {inside}, i64 {whole}, i64 0")
        plane = self.cut.tiles * self.in_pitch

        def load(r: int, c: int, i: Index, lanes: str | None) -> str:
            at = vector.at("%source", text.iadd(i, (r * self.width + c) * self.inputs))
            return vector.load(at, lanes and vector.when(pixels[r][c], lanes))

        for low, high in ((0, end), (end, self.inputs)):
            with text.loop(low, high, self.lanes) as i:
                lanes = None if low == 0 else lane_mask(
                    text, self.lanes if whole == self.inputs else text.isub(self.inputs, i), self.lanes)
                points = both_ways(vector, to_points, (
                    [load(r, c, i, lanes) for r in range(WINDOW)] for c in range(WINDOW)))
                for number, value in enumerate(points):
                    vector.store(value, vector.at("%target", text.iadd(i, number * plane)), None)

    def _gather(self, text: Text, numbers: list[Index]) -> None:
        """The first rows and columns of a tile's results, of so many features, from the points."""
        vector = Vector(text, self.lanes)
        rows, columns, features = numbers
        size = self.nr if self.staged else self.features
        width = OUTPUTS if self.staged else self.out_width
        complete = text.all([text.icompare("eq", n, OUTPUTS) for n in (rows, columns)])
        pixels = [[text.all([text.icompare("slt", r, rows), text.icompare("slt", c, columns)])
                   for c in range(OUTPUTS)] for r in range(OUTPUTS)]
        whole = text.imul(text.idiv(features, self.lanes), self.lanes)
        end = text.inst(f"select i1 {complete}, i64 {whole}, i64 0")
        plane = self.cut.tiles * self.out_pitch

        def load(point: int, j: Index) -> str:
            return vector.load(vector.at("%source", text.iadd(j, point * plane)), None)

        for low, high in ((0, end), (end, features)):
            with text.loop(low, high, self.lanes) as j:
                lanes = None if low == 0 else lane_mask(
                    text, self.lanes if self.features % self.lanes == 0 else text.isub(features, j),
                    self.lanes)
                results = both_ways(vector, from_points, (
                    [load(a * WINDOW + b, j) for a in range(WINDOW)] for b in range(WINDOW)))
                for number, value in enumerate(results):
                    r, c = divmod(number, OUTPUTS)
                    at = vector.at("%target", text.iadd(j, (r * width + c) * size))
                    vector.store(value, at, lanes and vector.when(pixels[r][c], lanes))

    def _follow(self, buffer: str, n: Index, row: Index, column: Index, feature: Index, rows: Index,
                columns: Index, features: Index) -> None:
        """Store what follows the results of a tile in `buffer`."""
        emit = self.emit
        with emit.loop(0, rows) as r, emit.scope(), emit.loop(0, columns) as c, emit.scope():
            line = self._at(buffer, emit.imul(emit.iadd(emit.imul(r, OUTPUTS), c), self.nr))
            with emit.loop(0, features, independent=True) as j, emit.scope():
                index = [n, emit.iadd(row, r), emit.iadd(column, c), emit.iadd(feature, j)]
                with emit.given(self.out, emit.load_from(self._at(line, j), F32)):
                    registers = [emit.at(value, index) for value, _ in self.outputs]
                position = emit.linear(self.out, index)
                for (value, pointer), register in zip(self.outputs, registers, strict=True):
                    emit.store_to(emit.inst(f"getelementptr inbounds {value.dtype.storage},"
                                            f" ptr {pointer}, i64 {position}"), value.dtype, register)


def _sizes(value: Value) -> tuple[int, int, int]:
    """Height, width and features of images."""
    _, height, width, features = value.shape
    assert isinstance(height, int) and isinstance(width, int) and isinstance(features, int)
    return height, width, features
