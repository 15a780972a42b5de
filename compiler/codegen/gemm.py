"""Matrix products: blocked for the caches, packed where memory order is bad, shared between threads.

A task is a block of rows by a block of columns of the result. Inside it

    for K block:  [pack the block of a]  for panel of columns:  [pack b]  for tile of rows: micro-kernel
    the ops that follow, on the block while it is in the cache

Elements are the words of a `Product` (`product.py`), and depths and strides of what is packed are in
words. b is packed into panels `[k][columns]` by a phase of its own when it is large, by the task when
there is a batch of products or few rows, and not at all when its rows are contiguous and it is small. a
is packed only when its columns are contiguous (`staging.py` decides). The order of every sum follows
from K alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

from ..ir.core import Op
from ..ir.dtypes import I8
from . import amx
from .blocking import ceil_div
from .emitter import Emitter
from .gemv import Line, MatrixVector
from .matrix import extent_of, matrix_axes
from .outline import outlined
from .shared import shared
from .staging import STRIP, STRIPS, Output, Staging
from .target import LINE, Target
from .text import Index
from .tile import Micro
from .work import Work

_PACKED_ROWS = 64
"""Rows of b that are packed at a time."""
_PICOSECONDS = 10
"""Of a multiplication and addition, with the loads they need."""

Fetched = tuple[str, Index | None, Index]
"""Where a tile fetches lines, and how many bytes they are apart along K, and beside each other."""


def gemm(emit: Emitter, op: Op, target: Target, outputs: Sequence[Output]) -> None:
    """Emit the kernel of `op` and of the elementwise ops that follow it, storing `outputs`."""
    spec = op.definition.rule("contraction")(op)
    axes = matrix_axes(op, spec)
    assert axes is not None
    emit.finished = True
    _Gemm(emit, op, spec, axes, target, outputs).emit_phases()


@dataclass(frozen=True)
class _Keep:
    """If `condition`, the first tile of a panel reads b where it is, at `source`, and copies it for the
    others: stores that multiplications need not wait for."""

    condition: str
    source: str
    copy: str


class _Gemm(Staging):
    """The phases of a kernel."""

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
        self.om = self.sum_line if self.follows else loops.stride(
            self.out, self.spec.out, self.axes.m)

    def emit_phases(self) -> None:
        emit = self.emit
        memory = ""
        if self.packs == "phase":
            memory = emit.scratch(self.panel_memory())
            cost = 2000 // self.product.group
            with emit.phase(Work((self.n,), (self.nr,), (cost, self.nr, self.k))):
                self._begin()
                short = self._is_short()
                last = "%last" if short is None else emit.inst(f"select i1 {short}, i64 0, i64 %last")
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

    def _is_short(self) -> str | None:
        """Are there so few rows, which run time tells, that b need not be packed by a phase of its own?
        None where there are not."""
        most = self.rows_alone or (self.most_unpacked if self.reads_both else self.few)
        if self.packs != "phase" or self.fixed_m is not None or not most:
            return None
        return self.emit.icompare("sle", self.count_m, most)

    def _is_in_place(self) -> str | None:
        """Are there so few rows, which run time tells, that they use b as it is, if others do not? None
        where there are not."""
        most = self.most_unpacked
        if self.rows_alone:
            # Two tiles, but one where rows of b drive each other out of the cache.
            apart = (self.fixed_n or 0) * self.rhs.dtype.itemsize % 4096
            most = self.tile.rows * (2 if apart else 1)
        if self.packs != "phase" or self.fixed_m is not None or not (self.reads_both and most):
            return None
        return self.emit.icompare("sle", self.count_m, most)

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
        short = self._is_short()
        if short is not None and self.packs_alone:
            # What the first block of rows packs, it uses for all; nothing is left to the others.
            rows, columns = (emit.inst(f"select i1 {short}, i64 {mine}, i64 {size}") for mine, size in (
                (self._if_first(block_m, self.count_m), rows),
                (self._if_first(block_m, columns), columns)))
        few = None
        if self.few and (self.fixed_m is None or self.fixed_m <= self.few):
            few = emit.icompare("sle", self.count_m, self.few)
            columns = self._strip(few, block_n, column, columns)
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

    def _if_first(self, block: Index, size: Index) -> str:
        """A size of the first block, 0 of others."""
        first = self.emit.icompare("eq", block, 0)
        return self.emit.inst(f"select i1 {first}, i64 {size}, i64 0")

    def _vectors(self, matrix: Line, vector: Line, out: Line, part: str, vectors: Index, count: Index
                 ) -> None:
        lines = matrix, vector, out, Line(part, 1, out.dtype, self.part_line)
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

    def _strip(self, few: str, block: Index, column: Index, columns: Index) -> Index:
        """The columns of a task when there are few rows: long pieces of the matrix's rows are read at
        the speed of memory, so that some tasks do the work of their neighbours, too."""
        emit = self.emit
        one, many = (self.strip_blocks(size) for size in (STRIP, STRIPS if self.few > 1 else 1))
        blocks = emit.inst(f"select i1 {emit.icompare('eq', self.count_m, 1)}, i64 {one}, i64 {many}")
        strip = emit.imin(emit.isub(self.count_n, column), emit.imul(blocks, self.panels * self.nr))
        mine = self._if_first(emit.irem(block, blocks), strip)
        return emit.inst(f"select i1 {few}, i64 {mine}, i64 {columns}")

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
            self.pack_a.rows(a, packed_a, self.lk, depth, rows, self.tile_words)
            a_strides = 1, self.pack_a.a_width
        elif self.copies_a == "lines":
            self.pack_a.lines(a, packed_a, self.lm, self.lk, depth, rows, self.line)
            a_strides = self.line, 1
        elif self.product.group > 1:
            a_strides = emit.idiv(self.lm, self.product.group), 1
        short, in_place = self._is_short(), self._is_in_place()
        by_k: Index = self.rk if self.packs == "none" else self.nr
        if in_place is not None:
            by_k = emit.inst(f"select i1 {in_place}, i64 {self.rk}, i64 {self.nr}")
        micro = Micro(self.product, self.tile, *a_strides, by_k, self.om,
                      self.packs != "none" and in_place is None, depth=self.one_depth(),
                      adds=bool(self.axes.sums) or self.one_depth() is None,
                      fetches=self.copies_a == "" and self.lk == 1,
                      coming=self.lines)
        panels, words = _ceil(emit, columns, self.nr), _ceil(emit, depth, self.product.group)
        with emit.loop(0, panels) as panel, emit.scope():
            column = emit.imul(panel, self.nr)
            left = emit.isub(columns, column)
            source = self.pack_b.at(b, emit.iadd(emit.imul(k, self.rk), emit.imul(column, self.rn)))
            keep: _Keep | None = None
            if self.packs == "phase":
                packed = self._block_of(self._panel(memory, emit.iadd(first_panel, panel), term), k)
                if self.packs_alone:
                    if self.keeps:
                        assert in_place is not None
                        keep = _Keep(emit.inst(f"select i1 {in_place}, i1 false, i1 {short}"), source,
                                     packed_b)
                    else:
                        own = emit.inst(f"select i1 {short}, i64 {depth}, i64 0")
                        self.pack_b.panel(source, packed_b, self.rk, self.rn, own, left)
                    packed = emit.inst(f"select i1 {short}, ptr {packed_b}, ptr {packed}")
                source = packed if in_place is None else emit.inst(
                    f"select i1 {in_place}, ptr {source}, ptr {packed}")
            elif self.packs == "task":
                if self.keeps:
                    keep = _Keep("true", source, packed_b)
                else:
                    self.pack_b.panel(source, packed_b, self.rk, self.rn, depth, left)
                source = packed_b
            coming: Line | None = None
            if micro.coming:
                coming = self._coming(a, b, memory, term, k, first_panel, panel, panels, short)
            self._rows(micro, a, packed_a, source, self._sum_at(c, column), words, add, rows,
                       left, coming, keep)

    def _coming(self, a: str, b: str, memory: str, term: Index, k: Index, first: Index, panel: Index,
                panels: Index, short: str | None) -> Line:
        """The bytes of rows of b after those of a panel: of the next, or in the next block."""
        emit = self.emit
        following, below = emit.iadd(panel, 1), emit.iadd(k, self.step)
        last = emit.icompare("eq", following, panels)
        packed = here = Line(a, 0, I8)
        if self.packs == "phase":
            places = [self._block_of(self._panel(memory, emit.iadd(first, p), term), at)
                      for p, at in ((0, below), (following, k))]
            packed = Line(emit.inst(f"select i1 {last}, ptr {places[0]}, ptr {places[1]}"),
                          self.nr * self.product.word_bytes, I8)
            if short is None:
                return packed
        if self.direct and self.product.group == 1:
            # After the last block, the first one of the columns that come next.
            more = emit.icompare("slt", below, self.count_k)
            end = emit.inst(f"select i1 {more}, i64 0, i64 {panels}")
            down = emit.inst(f"select i1 {more}, i64 {below}, i64 0")
            row = emit.inst(f"select i1 {last}, i64 {down}, i64 {k}")
            column = emit.imul(emit.inst(f"select i1 {last}, i64 {end}, i64 {following}"), self.nr)
            here = Line(self.pack_b.at(b, emit.iadd(emit.imul(row, self.rk), column)),
                        emit.imul(self.rk, self.rhs.dtype.itemsize), I8)
        if self.packs != "phase":
            return here
        return Line(emit.inst(f"select i1 {short}, ptr {here.pointer}, ptr {packed.pointer}"),
                    emit.inst(f"select i1 {short}, i64 {here.stride}, i64 {packed.stride}"), I8)

    def _sum_at(self, pointer: str, offset: Index) -> str:
        return pointer if offset == 0 else self.emit.inst(
            f"getelementptr inbounds {self.product.sums.llvm}, ptr {pointer}, i64 {offset}")

    def _rows(self, micro: Micro, a: str, packed_a: str, b: str, c: str, depth: Index, add: str,
              rows: Index, left: Index, coming: Line | None, keep: _Keep | None) -> None:
        """The tiles of a panel: whole ones, then lower ones."""
        emit, height = self.emit, self.tile.rows
        lower = replace(micro, tile=replace(self.tile, rows=self.lower_rows))

        def one(t: Index, r: Index, edge: tuple[Index, Index] | None, kept: _Keep | None = None
                ) -> None:
            if self.copies_a == "tiles":
                tile = emit.idiv(r, height)
                source = self.pack_a.word(packed_a, emit.imul(tile, self.tile_words))
            elif self.copies_a == "lines":
                source = self.pack_a.word(packed_a, emit.imul(r, self.line))
            else:
                source = self.pack_a.at(a, emit.imul(r, self.lm))
            fetched: Fetched = ("", None, LINE) if coming is None else share(t, coming)
            kernel, words, copy = lower if edge else micro, b, ""
            if kept is not None:
                kernel = replace(kernel, b_k=self.rk, keeps=True, whole_rows_of_b=False, name=".keep")
                words, copy = kept.source, kept.copy
            kernel.call(emit, source, words, self._sum_at(c, emit.imul(r, self.om)), depth, add, edge,
                        (), *fetched, copy)

        def share(t: Index, coming: Line) -> Fetched:
            if self.product.tiles:
                lines = emit.imul(emit.imul(t, emit.idiv(depth, micro.unroll)), micro.coming)
                return Line(coming.pointer, LINE, I8).place(emit, lines), None, LINE
            # All lines of some rows each, or one line where there are many tiles: at once, they would
            # fill the queue to the third-level cache. For tiles after that what is at hand.
            everything = micro.unroll * micro.coming
            spread = emit.icompare("sge", rows, height * everything)
            some = emit.inst(f"select i1 {spread}, i64 {everything}, i64 {micro.unroll}")
            beside = emit.inst(f"select i1 {spread}, i64 0, i64 {LINE}")
            row = coming.place(emit, emit.irem(t, micro.unroll))
            place = Line(row, LINE, I8).place(emit, emit.idiv(t, micro.unroll))
            early = emit.icompare("slt", t, some)
            return (emit.inst(f"select i1 {early}, ptr {place}, ptr {b}"),
                    emit.inst(f"select i1 {early}, i64 {coming.stride}, i64 0"), beside)

        even_columns = self.fixed_n is not None and self.fixed_n % self.nr == 0
        even_rows = self.fixed_m is not None and self.fixed_m % height == 0
        whole: Index = emit.idiv(rows, height)
        if not even_rows:
            whole = self._whole_tiles(rows)
        if not even_columns:
            narrow = emit.icompare("slt", left, self.nr)
            whole = emit.inst(f"select i1 {narrow}, i64 0, i64 {whole}")
        begin: Index = 0
        start: Index = 0
        if keep is not None:
            kept = emit.inst(f"zext i1 {keep.condition} to i64")
            begin = emit.imin(kept, whole)
            start = emit.isub(kept, begin)
            with emit.loop(0, begin), emit.scope():
                one(0, 0, None, keep)
        with emit.loop(begin, whole) as t, emit.scope():
            one(t, emit.imul(t, height), None)
        if even_columns and even_rows:
            return
        first = emit.imul(whole, height)
        if keep is not None:
            with emit.loop(0, emit.imin(start, rows)), emit.scope():
                one(0, 0, (emit.imin(rows, lower.tile.rows), emit.imin(left, self.nr)), keep)
        with emit.loop(start, _ceil(emit, emit.isub(rows, first), lower.tile.rows)) as t, emit.scope():
            r = emit.iadd(first, emit.imul(t, lower.tile.rows))
            one(emit.iadd(whole, t), r, (emit.imin(emit.isub(rows, r), lower.tile.rows),
                                         emit.imin(left, self.nr)))

    def _whole_tiles(self, rows: Index) -> Index:
        """Tiles before the lower ones: one fewer where those then do fewer rows in vain, as 4 and 4 for
        8 where whole ones have 6."""
        emit, height, low = self.emit, self.tile.rows, self.lower_rows
        whole, rest = emit.idiv(rows, height), emit.irem(rows, height)
        if low == height:
            return whole
        after = emit.iadd(emit.imul(_ceil(emit, rest, low), low), height)
        instead = emit.imul(_ceil(emit, emit.iadd(rest, height), low), low)
        fewer = emit.inst(f"zext i1 {emit.icompare('slt', instead, after)} to i64")
        return emit.imax(emit.isub(whole, fewer), 0)

    def _workspaces(self) -> tuple[str, str, str, str]:
        """This thread's memory for a packed block of a, a packed panel of b, a block of c, and what a
        block of K adds to few rows."""
        sizes = self.workspace_sizes
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
