"""Matrix products: blocked for the caches, packed where memory order is bad, shared between threads.

A task is a block of rows by a block of columns of the result. Inside it

    for K block:  [pack the block of a]  for panel of columns:  [pack b]  for tile of rows: micro-kernel
    the ops that follow, on the block while it is in the cache

Elements are the words of a `Product` (`product.py`), and depths and strides of what is packed are in
words. b is packed into panels `[k][columns]` by a phase of its own when it is large, by the task when
there is a batch of products, and not at all when its rows are contiguous and it is small. a is packed
only when its columns are contiguous. The order of every sum follows from K alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

from ..ir.core import Op, Value
from ..ir.dims import Extent
from ..ops.contraction import Contraction
from . import amx
from .blocking import block_of, blocking_of, ceil_div, depth_of
from .emitter import Emitter
from .gemv import FEW, Line, MatrixVector
from .loops import Loops, innermost
from .matrix import Axes, dims_of, extent_of, is_affine, matrix_axes
from .outline import outlined
from .pack import Packer
from .product import product_of
from .shared import shared
from .target import LINE, Target
from .text import Index
from .tile import AMX_TILE, Micro, Tile, best_tile
from .work import Work

_SMALL_BYTES = 1 << 20
"""A b of this size stays in the second-level cache as it is."""
_TINY_BYTES, _MANY_ROWS, _FEW_ROWS = 32 << 10, 1024, 64
"""Up to how many rows use a b that is not tiny where it is: one whose rows are read as fast apart as
together (`Target.bytes_apart`), and a larger one. Packing takes a fifth of the time of 64 rows;
thousands are faster by 4 to 11 % for it."""
_CLOSE_BYTES = 1024
_FAR_BYTES = 8192
"""From row to row of a result into which tile registers are not stored one by one."""
_PACKED_ROWS = 64
"""Rows of b that are packed at a time."""
_STRIP = 2048
"""Columns of a task when one row is multiplied by a matrix."""
_PICOSECONDS = 10
"""Of a multiplication and addition, with the loads they need."""

Output = tuple[Value, str]


def gemm(emit: Emitter, op: Op, target: Target, outputs: Sequence[Output]) -> None:
    """Emit the kernel of `op` and of the elementwise ops that follow it, storing `outputs`."""
    spec = op.definition.rule("contraction")(op)
    axes = matrix_axes(op, spec)
    assert axes is not None
    emit.finished = True
    _Gemm(emit, op, spec, axes, target, outputs).emit_phases()


@dataclass
class _Gemm:
    emit: Emitter
    op: Op
    spec: Contraction
    axes: Axes
    target: Target
    outputs: Sequence[Output]
    tile: Tile = field(init=False)

    def __post_init__(self) -> None:
        lhs, rhs = self.op.operands
        self.lhs, self.rhs, self.out = lhs, rhs, self.op.result
        self.loops = Loops(self.emit, self.spec)
        self.product = product_of(self.op, self.target)
        self.m, self.n, self.k = (self.loops.size(g) for g in (self.axes.m, self.axes.n, self.axes.k))
        # What may shape the code: a run-time extent, a batch as a rule, may not.
        self.fixed_m, self.fixed_n, self.fixed_k = (
            self.loops.fixed(g) for g in (self.axes.m, self.axes.n, self.axes.k))
        words = None if self.fixed_k is None else ceil_div(self.fixed_k, self.product.group)
        self.tile = AMX_TILE if self.product.tiles else best_tile(
            self.target, self.product.sums, self.fixed_m, self.fixed_n, words)
        self.nr = self.tile.columns
        how = blocking_of(self.product)
        self.depth = depth_of(how, words)
        self.direct = innermost(self.spec.rhs, self.axes.n)
        bytes_too = self.product.group > 1 or "+avx512bw" in self.target.features.split(",")
        self.pack_a = Packer(self.emit, lhs.dtype, self.product, self.tile, bytes_too,
                             self.product.flips)
        self.pack_b = Packer(self.emit, rhs.dtype, self.product, self.tile, bytes_too)
        self.copies_a = self._copies_a()
        self.rows, self.panels = block_of(how, self.tile, self.fixed_m, self.fixed_n,
                                          bool(self.axes.batch), self.copies_a == "tiles")
        self.few = self._few()
        self.packs = self._packs()
        # The product itself goes to the task's own memory when only what follows it is stored, if only
        # its rounding: an operand of that may have the memory of the result.
        self.follows = (any(value is not self.out for value, _ in self.outputs)
                        or self.out.dtype.llvm != self.product.sums.llvm
                        or (self.product.tiles and self._is_far()))

    def _is_far(self) -> bool:
        """Are rows of the result so far apart, or written so often, that tiles are better stored in the
        task's own memory first? Up to a third of a product."""
        return (self._one_depth() is None or self.fixed_n is None
                or self.fixed_n * self.product.sums.itemsize >= _FAR_BYTES)

    def _few(self) -> int:
        """Rows that use the matrix b as it comes from memory. More than one do where their sums are in
        the order of the micro-kernel's."""
        if self.fixed_n == 1 or self.axes.sums:
            return 0
        return min(FEW, self.rows) if self.direct and self.product.group == 1 else 1

    def _copies_a(self) -> str:
        """How a is packed: as "tiles" of rows that are neighbours in memory, as "lines" along K, or, ""
        where its words are in memory already, not at all."""
        by_row = innermost(self.spec.lhs, self.axes.m)
        same = self.lhs.dtype is self.product.packed and not self.product.flips
        if self.product.group == 1 and same:
            # Columns of a that lie close together are read where they are.
            close = self.fixed_m is not None and self.fixed_m * self.lhs.dtype.itemsize <= _CLOSE_BYTES
            return "tiles" if by_row and not close else ""
        if self.product.tiles:
            # Rows of whole words that begin with cache lines: others take twice as long to load.
            return "lines"
        if same and innermost(self.spec.lhs, self.axes.k) and all(
                isinstance(s, int) and s % self.product.group == 0 for s in self._a_strides()):
            return ""
        return "tiles" if by_row and self.pack_a.by_vectors else "lines"

    def _a_strides(self) -> list[Index]:
        """Elements from row to row, from product to product, and in a row."""
        inner = {dims_of(self.spec.lhs)[loop] for loop in self.axes.k}
        outer = [d for d in range(len(self.lhs.shape)) if d not in inner]
        return [*(self.loops.dim_stride(self.lhs, d) for d in outer),
                self.fixed_k if self.fixed_k is not None else "run time"]

    def _packs(self) -> str:
        """Who packs b: "phase", "task" or "none"."""
        if self.fixed_m is not None and self.fixed_m <= self.few:
            return "none"
        same = self.product.group == 1 and self.rhs.dtype is self.product.packed
        if self.direct and same:
            most = self._most_unpacked
            if most is None or (self.fixed_m is not None and self.fixed_m <= most):
                return "none"
        affine = is_affine([self.spec.extents[i]
                            for i in (*self.axes.sums, *self.axes.k, *self.axes.n)])
        return "task" if self.axes.batch or not affine else "phase"

    # -- phases -------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Counts and strides, made anew in every phase."""
        loops = self.loops
        self.count_m, self.count_n, self.count_k, self.count_sums = (
            loops.count(g) for g in (self.axes.m, self.axes.n, self.axes.k, self.axes.sums))
        # Without terms the sum is one product of nothing: zeros.
        self.count_k = self.emit.imul(self.count_k, self.emit.imin(self.count_sums, 1))
        self.count_sums = self.emit.imax(self.count_sums, 1)
        self.lm, self.lk = (loops.stride(self.lhs, self.spec.lhs, g)
                            for g in (self.axes.m, self.axes.k))
        self.rk, self.rn = (loops.stride(self.rhs, self.spec.rhs, g)
                            for g in (self.axes.k, self.axes.n))
        self.om = self._sum_line if self.follows else loops.stride(
            self.out, self.spec.out, self.axes.m)

    def emit_phases(self) -> None:
        emit = self.emit
        memory = ""
        if self.packs == "phase":
            memory = emit.scratch(self._panel_memory())
            cost = 2000 // self.product.group
            with emit.phase(Work((self.n,), (self.nr,), (cost, self.nr, self.k))):
                self._begin()
                last = "%last"
                if self.fixed_m is None and (self._reads_both or not self.axes.sums):
                    last = emit.inst(f"select i1 {self._unpacked_rows()}, i64 0, i64 %last")
                self._pack_panels(memory, "%first", last)
        batch = tuple(extent_of(self.spec.extents[i]) for i in self.axes.batch)
        work = Work((*batch, self.m, self.n), (*[1] * len(batch), self.rows, self.panels * self.nr),
                    (_PICOSECONDS, self.rows, self.panels * self.nr,
                     self.k // self.product.group if isinstance(self.k, int) else self.k,
                     self.loops.size(self.axes.sums)))
        with emit.phase(work):
            self._begin()
            with emit.loop("%first", "%last") as task, emit.scope():
                self._task(task, memory)

    def _panel_memory(self) -> Extent:
        """Bytes: panels up to the last column, with rows for whole squares of a transpose and, if the
        product flips, one for each block of K."""
        size = self.product.packed.itemsize
        ends = (2 * self.tile.lanes + 2) * self.product.word_bytes
        # A start of four bytes for every 1024 of K or more: less than one for eight.
        starts = (self.k // 8 if isinstance(self.k, int) else self.k) if self.product.flips else 0
        row: Extent = self.loops.size(self.axes.sums) * (self.k * size + (starts + ends))
        if isinstance(self.n, int):
            return row * (self.nr * (self.n // self.nr + 1))
        return (self.n + self.nr) * row

    def _pack_panels(self, memory: str, first: Index, last: Index) -> None:
        emit = self.emit
        with self._each_sum() as (term, _, offset):
            b = self.pack_b.at(emit.pointers[self.rhs], offset)
            # A few rows of b at a time, for one panel after the other: a panel of all rows would touch
            # a page of memory for a line of it.
            step = self.step if self.product.flips or self.rn != 1 else _PACKED_ROWS
            with emit.loop(0, emit.imax(self.count_k, 1), step) as k, emit.scope(), \
                    emit.loop(first, last) as panel, emit.scope():
                column = emit.imul(panel, self.nr)
                source = self.pack_b.at(b, emit.iadd(emit.imul(k, self.rk), emit.imul(column, self.rn)))
                target = self._block_of(self._panel(memory, panel, term), k)
                self.pack_b.panel(source, target, self.rk, self.rn,
                                  emit.imin(emit.isub(self.count_k, k), step),
                                  emit.isub(self.count_n, column))

    @property
    def _most_unpacked(self) -> int | None:
        """Up to how many rows use a contiguous b as it is; None: any number."""
        size = self.loops.fixed((*self.axes.sums, *self.axes.k, *self.axes.n))
        if size is None:
            return _FEW_ROWS
        nbytes = size * self.rhs.dtype.itemsize
        # A single panel is packed as it is; where there is a batch, every task would pack for itself.
        if (self.fixed_n == self.nr or nbytes <= _TINY_BYTES
                or (self.axes.batch and nbytes <= _SMALL_BYTES)):
            return None
        return _MANY_ROWS if nbytes <= self.target.bytes_apart else _FEW_ROWS

    def _unpacked_rows(self) -> str:
        """Are there so few rows that they use b as it is?"""
        most = self._most_unpacked if self._reads_both else self.few
        assert most is not None, "a b that is never packed has no phase for it"
        return self.emit.icompare("sle", self.count_m, most)

    @property
    def _reads_both(self) -> bool:
        """Can the micro-kernel read b unpacked, too?"""
        return (self.direct and self.product.group == 1 and self.rhs.dtype is self.product.packed)

    @property
    def step(self) -> int:
        """Numbers along K of a block."""
        return self.depth * self.product.group

    @contextmanager
    def _each_sum(self) -> Iterator[tuple[Index, Index, Index]]:
        """A loop over the products that are added up: number, and offsets in a and b."""
        emit = self.emit
        if not self.axes.sums:
            yield 0, 0, 0
            return
        with emit.loop(0, self.count_sums) as term, emit.scope():
            at: dict[int, Index] = {}
            self.loops.split(term, self.axes.sums, at)
            yield (term, self.loops.offset(self.lhs, self.spec.lhs, at),
                   self.loops.offset(self.rhs, self.spec.rhs, at))

    def _panel(self, memory: str, panel: Index, term: Index) -> str:
        """The packed panel of a product: rows of K, rounded up to whole squares."""
        emit, square = self.emit, self.tile.lanes * self.product.group
        squares = emit.idiv(emit.iadd(self.count_k, square - 1), square)
        rows = emit.imul(squares, self.tile.lanes)
        if self.product.flips:
            rows = emit.iadd(rows, emit.imax(_ceil(emit, self.count_k, self.step), 1))
        number = emit.iadd(emit.imul(panel, self.count_sums), term)
        return self.pack_b.word(memory, emit.imul(emit.imul(number, rows), self.nr))

    def _block_of(self, panel: str, k: Index) -> str:
        """The block of a packed panel that begins with the number `k` along K."""
        emit = self.emit
        rows = emit.idiv(k, self.product.group)
        if self.product.flips:
            rows = emit.iadd(rows, emit.idiv(k, self.step))
        return self.pack_b.word(panel, emit.imul(rows, self.nr))

    def _task(self, task: Index, memory: str) -> None:
        emit = self.emit
        wide = self.panels * self.nr
        blocks_n = _ceil(emit, self.count_n, wide)
        blocks_m = _ceil(emit, self.count_m, self.rows)
        rest, block_n = emit.idiv(task, blocks_n), emit.irem(task, blocks_n)
        rest, block_m = emit.idiv(rest, blocks_m), emit.irem(rest, blocks_m)
        at: dict[int, Index] = {}
        for loop in reversed(self.axes.batch):
            at[loop] = emit.irem(rest, self.loops.extent(loop))
            rest = emit.idiv(rest, self.loops.extent(loop))
        row, column = emit.imul(block_m, self.rows), emit.imul(block_n, wide)
        rows = emit.imin(emit.isub(self.count_m, row), self.rows)
        columns = emit.imin(emit.isub(self.count_n, column), wide)
        few = None
        if self.few and (self.fixed_m is None or self.fixed_m <= self.few):
            few = emit.icompare("sle", self.count_m, self.few)
            columns = self._strip(emit.icompare("eq", self.count_m, 1), block_n, column, columns)
        a = self.pack_a.at(emit.pointers[self.lhs], emit.iadd(
            self.loops.offset(self.lhs, self.spec.lhs, at), emit.imul(row, self.lm)))
        b = self.pack_b.at(emit.pointers[self.rhs], emit.iadd(
            self.loops.offset(self.rhs, self.spec.rhs, at), emit.imul(column, self.rn)))
        packed_a, packed_b, c, part = self._workspaces()
        packed = (packed_a, packed_b, memory)
        if not self.follows:
            c = self._sum_at(emit.pointers[self.out], emit.iadd(
                self.loops.offset(self.out, self.spec.out, at),
                emit.iadd(emit.imul(row, self.om), column)))
        first_panel = emit.imul(block_n, self.panels)
        if self.fixed_n == 1 and not self.axes.sums:
            self._vectors(Line(a, self.lm, self.lhs.dtype, self.lk), Line(b, self.rk, self.rhs.dtype),
                          Line(c, self.om, self.product.sums), part, 1, rows)
        elif few is not None:
            self._either(few,
                         lambda: self._vectors(
                             Line(b, self.rn, self.rhs.dtype, self.rk),
                             Line(a, self.lk, self.lhs.dtype, self.lm),
                             Line(c, 1, self.product.sums, self.om), part, rows, columns),
                         lambda: self._blocks(a, b, c, rows, columns, first_panel, packed))
        else:
            self._blocks(a, b, c, rows, columns, first_panel, packed)
        if self.follows:
            loops = list(at)
            with outlined(emit, (c,), (row, column, rows, columns, *at.values())) as ((c,), numbers):
                self._epilogue(dict(zip(loops, numbers[4:], strict=True)), c, *numbers[:4])

    def _vectors(self, matrix: Line, vector: Line, out: Line, part: str, vectors: Index, count: Index
                 ) -> None:
        lines = matrix, vector, out, Line(part, 1, out.dtype, self._part_line)
        sizes = self.step, vectors, count, self.count_k

        def multiplied(lines: Sequence[Line], sizes: Sequence[Index]) -> MatrixVector:
            matrix, vector, out, part = lines
            return MatrixVector(self.emit, self.product, matrix, vector, out, part, *sizes)

        is_finished = multiplied(lines, sizes).is_finished
        strides = [n for line in lines for n in (line.stride, line.step)]
        with shared(self.emit, is_finished, [line.pointer for line in lines],
                    [*strides, *sizes]) as (pointers, numbers):
            inner = [Line(p, numbers[2 * i], line.dtype, numbers[2 * i + 1])
                     for i, (p, line) in enumerate(zip(pointers, lines, strict=True))]
            multiplied(inner, numbers[8:]).run()

    @property
    def _part_line(self) -> int:
        """Numbers from row to row of what a block of K adds to few rows."""
        wide = self.panels * self.nr
        return wide if self.fixed_n is None else min(wide, self.fixed_n)

    def _part_size(self) -> int:
        """Numbers of all those rows, or of a strip of one."""
        if not self.direct or self._one_depth() is not None:
            return 0
        wide = self.panels * self.nr
        strip = ceil_div(_STRIP, wide) * wide
        if self.fixed_n is not None:
            strip = min(strip, self.fixed_n)
        return max(self.few * self._part_line, strip)

    def _strip(self, one: str, block: Index, column: Index, columns: Index) -> Index:
        """The columns of a task when there is one row: long pieces of the matrix's rows are read at the
        speed of memory, so that some tasks do the work of their neighbours, too."""
        emit, wide = self.emit, self.panels * self.nr
        group = ceil_div(_STRIP, wide)
        first = emit.icompare("eq", emit.irem(block, group), 0)
        many = emit.imin(emit.isub(self.count_n, column), group * wide)
        strip = emit.inst(f"select i1 {first}, i64 {many}, i64 0")
        return emit.inst(f"select i1 {one}, i64 {strip}, i64 {columns}")

    def _either(self, condition: str, then: Callable[[], None], otherwise: Callable[[], None]) -> None:
        emit = self.emit
        yes, no, join = (emit.fresh(p) for p in ("one", "many", "join"))
        emit.do(f"br i1 {condition}, label %{yes}, label %{no}")
        for label, body in ((yes, then), (no, otherwise)):
            emit.block(label)
            with emit.scope():
                body()
            emit.do(f"br label %{join}")
        emit.block(join)

    def _blocks(self, a: str, b: str, c: str, rows: Index, columns: Index, first_panel: Index,
                packed: tuple[str, str, str]) -> None:
        # Once even if K is 0: the result is zeros then.
        registers = amx.configured(self.emit, amx.ROWS) if self.product.tiles else nullcontext()
        with registers, self._each_sum() as (term, in_a, in_b):
            a, b = self.pack_a.at(a, in_a), self.pack_b.at(b, in_b)
            with self.emit.loop(0, self.emit.imax(self.count_k, 1), self.step) as k, self.emit.scope():
                self._k_block(term, k, a, b, c, rows, columns, first_panel, *packed)

    def _k_block(self, term: Index, k: Index, a: str, b: str, c: str, rows: Index, columns: Index,
                 first_panel: Index, packed_a: str, packed_b: str, memory: str) -> None:
        emit = self.emit
        depth = emit.imin(emit.isub(self.count_k, k), self.step)
        add = emit.icompare("sgt", emit.iadd(term, k), 0)
        a = self.pack_a.at(a, emit.imul(k, self.lk))
        a_strides: tuple[Index, Index] = (self.lm, self.lk)
        if self.copies_a == "tiles":
            self.pack_a.rows(a, packed_a, self.lk, depth, rows, self._tile_words)
            a_strides = 1, self.pack_a.a_width
        elif self.copies_a == "lines":
            self.pack_a.lines(a, packed_a, self.lm, self.lk, depth, rows, self._line)
            a_strides = self._line, 1
        elif self.product.group > 1:
            a_strides = emit.idiv(self.lm, self.product.group), 1
        few = self._unpacked_rows() if (
            self.packs == "phase" and self.fixed_m is None and self._reads_both) else None
        by_k: Index = self.rk if self.packs == "none" else self.nr
        if few is not None:
            by_k = emit.inst(f"select i1 {few}, i64 {self.rk}, i64 {self.nr}")
        micro = Micro(self.product, self.tile, *a_strides, by_k, self.om,
                      self.packs != "none" and few is None, depth=self._one_depth(),
                      adds=bool(self.axes.sums) or self._one_depth() is None,
                      fetches=self.copies_a == "" and self.lk == 1,
                      coming=self._lines)
        panels, words = _ceil(emit, columns, self.nr), _ceil(emit, depth, self.product.group)
        with emit.loop(0, panels) as panel, emit.scope():
            column = emit.imul(panel, self.nr)
            left = emit.isub(columns, column)
            source = self.pack_b.at(b, emit.iadd(emit.imul(k, self.rk), emit.imul(column, self.rn)))
            if self.packs == "phase":
                packed = self._block_of(self._panel(memory, emit.iadd(first_panel, panel), term), k)
                source = packed if few is None else emit.inst(
                    f"select i1 {few}, ptr {source}, ptr {packed}")
            elif self.packs == "task":
                self.pack_b.panel(source, packed_b, self.rk, self.rn, depth, left)
                source = packed_b
            coming = ""
            if micro.coming:
                coming = self._coming(b, memory, term, k, first_panel, panel, panels)
            if few is not None:
                # What is not packed would be fetched for nothing.
                coming = emit.inst(f"select i1 {few}, ptr {a}, ptr {coming}")
            self._rows(micro, a, packed_a, source, self._sum_at(c, column), words, add, rows,
                       left, coming)

    @property
    def _is_panel(self) -> bool:
        """Is b a single panel as it is in memory, of several blocks?"""
        return (self.packs == "none" and self.fixed_n == self.nr and not self.axes.sums
                and self._one_depth() is None)

    @property
    def _lines(self) -> int:
        """Cache lines of the next panel that `unroll` steps fetch, so that the tiles of a block fetch
        them all: up to a fifth of a product whose b is in the third-level cache."""
        if self.packs != "phase" and not self._is_panel:
            return 0
        return ceil_div(Micro.unroll * self.nr * self.product.word_bytes,
                        LINE * (self.rows // self.tile.rows))

    def _coming(self, b: str, memory: str, term: Index, k: Index, first: Index, panel: Index,
                panels: Index) -> str:
        """The words after those of a panel: of the next, or of the first in the next block."""
        emit = self.emit
        if self._is_panel:
            return self.pack_b.at(b, emit.imul(emit.iadd(k, self.step), self.rk))
        following = emit.iadd(panel, 1)
        last = emit.icompare("eq", following, panels)
        places = [self._block_of(self._panel(memory, emit.iadd(first, p), term), at)
                  for p, at in ((0, emit.iadd(k, self.step)), (following, k))]
        return emit.inst(f"select i1 {last}, ptr {places[0]}, ptr {places[1]}")

    def _one_depth(self) -> int | None:
        """Words along K where that is one block, and there is a sum."""
        if not self.fixed_k or self.fixed_k > self.step or not self.loops.fixed(self.axes.sums):
            return None
        return ceil_div(self.fixed_k, self.product.group)

    @property
    def _line(self) -> int:
        """Words between packed lines of a: not a power of two, which would share a cache set."""
        return self.depth + 16

    @property
    def _tile_words(self) -> int:
        """Words between packed tiles of a. They are written side by side: at a multiple of 2 KB, all of
        them would share two or four cache sets. A fifth of a product."""
        return self.pack_a.a_width * self.depth + 16

    @property
    def _sum_line(self) -> int:
        """Sums from row to row of the task's own block."""
        return self.panels * self.nr + (16 if self.product.tiles else 0)

    def _sum_at(self, pointer: str, offset: Index) -> str:
        return pointer if offset == 0 else self.emit.inst(
            f"getelementptr inbounds {self.product.sums.llvm}, ptr {pointer}, i64 {offset}")

    def _rows(self, micro: Micro, a: str, packed_a: str, b: str, c: str, depth: Index, add: str,
              rows: Index, left: Index, coming: str = "") -> None:
        """The tiles of a panel: whole ones, then smaller ones."""
        emit, tile = self.emit, self.tile

        def one(t: Index, edge: tuple[Index, Index] | None) -> None:
            r = emit.imul(t, tile.rows)
            if self.copies_a == "tiles":
                source = self.pack_a.word(packed_a, emit.imul(t, self._tile_words))
            elif self.copies_a == "lines":
                source = self.pack_a.word(packed_a, emit.imul(r, self._line))
            else:
                source = self.pack_a.at(a, emit.imul(r, self.lm))
            micro.call(emit, source, b, self._sum_at(c, emit.imul(r, self.om)), depth, add, edge,
                       coming=coming and emit.inst(f"getelementptr i8, ptr {coming}, i64 {share(t)}"))

        def share(t: Index) -> Index:
            return emit.imul(emit.imul(t, emit.idiv(depth, micro.unroll)), LINE * micro.coming)

        whole: Index = emit.idiv(rows, tile.rows)
        even_columns = self.fixed_n is not None and self.fixed_n % self.nr == 0
        even_rows = self.fixed_m is not None and self.fixed_m % tile.rows == 0
        if not even_columns:
            narrow = emit.icompare("slt", left, self.nr)
            whole = emit.inst(f"select i1 {narrow}, i64 0, i64 {whole}")
        with emit.loop(0, whole) as t, emit.scope():
            one(t, None)
        if even_columns and even_rows:
            return
        with emit.loop(whole, _ceil(emit, rows, tile.rows)) as t, emit.scope():
            height = emit.imin(emit.isub(rows, emit.imul(t, tile.rows)), tile.rows)
            one(t, (height, emit.imin(left, self.nr)))

    def _workspaces(self) -> tuple[str, str, str, str]:
        """This thread's memory for a packed block of a, a packed panel of b, a block of c, and what a
        block of K adds to few rows."""
        tile, word, sums = self.tile, self.product.word_bytes, self.product.sums.itemsize
        a_words = {"": 0, "lines": self.rows * self._line,
                   "tiles": self.rows // tile.rows * self._tile_words}[self.copies_a]
        sizes = (a_words * word,
                 (self.depth + tile.lanes + 1) * self.nr * word if self.packs == "task" else 0,
                 max(self.rows * self._sum_line, 2 * _STRIP) * sums if self.follows else 0,
                 self._part_size() * sums if self.few else 0)
        if not any(sizes):
            return "", "", "", ""
        starts = [sum(ceil_div(size, 64) * 64 for size in sizes[:i]) for i in range(5)]
        memory = self.emit.workspace(starts[4])
        first, second, third, fourth = (
            memory if not start else self.emit.inst(
                f"getelementptr inbounds i8, ptr {memory}, i64 {start}") for start in starts[:4])
        return first, second, third, fourth

    # -- what follows the product -------------------------------------------------------------------

    def _epilogue(self, at: dict[int, Index], c: str, row: Index, column: Index, rows: Index,
                  columns: Index) -> None:
        """Compute the outputs from a block of the product at `c`."""
        emit = self.emit
        with emit.loop(0, rows) as r, emit.scope():
            by_loop = dict(at)
            self.loops.split(emit.iadd(row, r), self.axes.m, by_loop)
            line = self._sum_at(c, emit.imul(r, self.om))
            with emit.loop(0, columns, independent=True) as j, emit.scope():
                place = dict(by_loop)
                self.loops.split(emit.iadd(column, j), self.axes.n, place)
                index = [place[loop] for ((loop, _),) in self.spec.out]
                product = self.product.total(
                    emit, emit.load_from(self._sum_at(line, j), self.product.sums), self.out.dtype)
                with emit.given(self.out, product):
                    registers = [emit.at(value, index) for value, _ in self.outputs]
                position = emit.linear(self.out, index)
                for (value, pointer), register in zip(self.outputs, registers, strict=True):
                    target = emit.inst(f"getelementptr inbounds {value.dtype.storage}, ptr {pointer},"
                                       f" i64 {position}")
                    emit.store_to(target, value.dtype, register)


def _ceil(emit: Emitter, count: Index, step: int) -> Index:
    return emit.idiv(emit.iadd(count, step - 1), step)
