"""How a matrix product is staged: what is packed, by whom, and how much memory that takes.

Only the shapes and the target decide. `gemm.py` emits what is decided here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..ir.core import Op, Value
from ..ir.dims import Extent
from ..ops.contraction import Contraction
from .blocking import block_of, blocking_of, ceil_div, depth_of
from .emitter import Emitter
from .gemv import FEW
from .loops import Loops, innermost
from .matrix import Axes, dims_of, is_affine
from .pack import Packer
from .product import product_of
from .target import LINE, Target
from .text import Index
from .tile import AMX_TILE, Micro, Tile, best_tile

_SMALL_BYTES = 1 << 20
"""A b of this size stays in the second-level cache as it is."""
_TINY_BYTES, _MANY_ROWS, _FEW_ROWS = 32 << 10, 1024, 64
"""Up to how many rows use a b that is not tiny where it is: one whose rows are read as fast apart as
together (`Target.bytes_apart`), and a larger one. Packing takes a fifth of the time of 64 rows;
thousands are faster by 4 to 11 % for it."""
_CLOSE_BYTES = 1024
"""Of a row of neighbours: columns of a that lie so close together are read where they are."""
_FEWEST_ALONE, _MOST_ALONE, _LONG = 192, 512, 4096
"""Rows for which a panel of b is packed by the task at least, and at most, and K if it is not known."""
_FEW_NEAR = 2
"""Rows that use a matrix b as it comes from memory, if it need not come from there."""
_FAR_BYTES = 8192
"""From row to row of a result into which tile registers are not stored one by one."""
STRIP, STRIPS = 2048, 256
"""Columns of a task when one row is multiplied by a matrix, and when few are."""

Output = tuple[Value, str]


@dataclass
class Staging:
    """Decisions and sizes. What follows the product is stored as `outputs`."""

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
        how = blocking_of(self.product, self.target)
        self.depth = depth_of(how, words)
        self.direct = innermost(self.spec.rhs, self.axes.n)
        bytes_too = self.product.group > 1 or "+avx512bw" in self.target.features.split(",")
        self.pack_a = Packer(self.emit, lhs.dtype, self.product, self.tile, bytes_too,
                             self.product.flips)
        self.pack_b = Packer(self.emit, rhs.dtype, self.product, self.tile, bytes_too)
        self.copies_a = self._copies_a()
        self.rows_alone = self._rows_alone()
        self.few = self._few()
        self.packs = self._packs()
        self.rows, self.panels = block_of(how, self.tile, self.fixed_m, self.fixed_n,
                                          bool(self.axes.batch), self.copies_a == "tiles",
                                          self.rows_alone if self.packs == "task" else 0)
        # The product itself goes to the task's own memory when only what follows it is stored, if only
        # its rounding: an operand of that may have the memory of the result.
        self.follows = (any(value is not self.out for value, _ in self.outputs)
                        or self.out.dtype.llvm != self.product.sums.llvm
                        or (self.product.tiles and self._is_far()))

    def _is_far(self) -> bool:
        """Are rows of the result so far apart, or written so often, that tiles are better stored in the
        task's own memory first? Up to a third of a product."""
        return (self.one_depth() is None or self.fixed_n is None
                or self.fixed_n * self.product.sums.itemsize >= _FAR_BYTES)

    def _few(self) -> int:
        """Rows that use the matrix b as it comes from memory. More than one do where their sums are in
        the order of the micro-kernel's."""
        if self.fixed_n == 1 or self.axes.sums:
            return 0
        if not self.direct or self.product.group > 1:
            return 1
        size = self.loops.fixed((*self.axes.k, *self.axes.n))
        near = size is not None and size * self.rhs.dtype.itemsize <= self.target.bytes_streamed
        return _FEW_NEAR if near else FEW

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

    def _rows_alone(self) -> int:
        """Up to how many rows use panels of b that each task packs for itself: they stay in its caches,
        and no thread waits for another's. 0 where none do, as where tasks copy rows of a, too."""
        most = self.target.bytes_alone
        if not most or self.copies_a == "tiles":
            return 0
        if self.product.tiles:
            # Packing takes longer than multiplying: what comes is better fetched meanwhile.
            return _FEWEST_ALONE
        row = (self.fixed_k or _LONG) * self.lhs.dtype.itemsize
        return min(max(most // row // LINE * LINE, _FEWEST_ALONE), _MOST_ALONE)

    def _a_strides(self) -> list[Index]:
        """Elements from row to row, from product to product, and in a row."""
        inner = {dims_of(self.spec.lhs)[loop] for loop in self.axes.k}
        outer = [d for d in range(len(self.lhs.shape)) if d not in inner]
        return [*(self.loops.dim_stride(self.lhs, d) for d in outer),
                self.fixed_k if self.fixed_k is not None else "run time"]

    def _packs(self) -> str:
        """Who packs b: "phase", "task" or "none"."""
        one_column = self.fixed_n == 1 and not self.axes.sums
        if one_column or (self.fixed_m is not None and self.fixed_m <= self.few):
            return "none"
        same = self.product.group == 1 and self.rhs.dtype is self.product.packed
        if self.direct and same:
            most = self.most_unpacked
            if most is None or (self.fixed_m is not None and self.fixed_m <= most):
                return "none"
        affine = is_affine([self.spec.extents[i]
                            for i in (*self.axes.sums, *self.axes.k, *self.axes.n)])
        alone = self.fixed_m is not None and self.fixed_m <= self.rows_alone
        return "task" if self.axes.batch or not affine or alone else "phase"

    def panel_memory(self) -> Extent:
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

    @property
    def most_unpacked(self) -> int | None:
        """Up to how many rows use a contiguous b as it is; None: any number."""
        few = self.tile.rows if self.rows_alone else _FEW_ROWS
        size = self.loops.fixed((*self.axes.sums, *self.axes.k, *self.axes.n))
        if size is None:
            return few
        nbytes = size * self.rhs.dtype.itemsize
        # A single panel is packed as it is; where there is a batch, every task would pack for itself.
        if (self.fixed_n == self.nr or nbytes <= _TINY_BYTES
                or (self.axes.batch and nbytes <= _SMALL_BYTES)):
            return None
        return _MANY_ROWS if nbytes <= self.target.bytes_apart else few

    @property
    def keeps(self) -> bool:
        """Does the first tile of a panel copy what it reads of b, where tasks pack it?"""
        return self.rows_alone > 0 and self.reads_both

    @property
    def packs_alone(self) -> bool:
        """Does a task pack panels of b in its own memory, ever?"""
        return self.packs == "task" or (
            self.packs == "phase" and self.fixed_m is None and self.rows_alone > 0)

    @property
    def reads_both(self) -> bool:
        """Can the micro-kernel read b unpacked, too?"""
        return (self.direct and self.product.group == 1 and self.rhs.dtype is self.product.packed)

    @property
    def step(self) -> int:
        """Numbers along K of a block."""
        return self.depth * self.product.group

    @property
    def part_line(self) -> int:
        """Numbers from row to row of what a block of K adds to few rows."""
        return self.wide if self.fixed_n is None else min(self.wide, self.fixed_n)

    def part_size(self) -> int:
        """Numbers of all those rows, or of a strip of one."""
        if not self.direct or self.one_depth() is not None:
            return 0
        strip = self.strip_blocks(STRIP) * self.panels * self.nr
        if self.fixed_n is not None:
            strip = min(strip, self.fixed_n)
        return max(self.few * self.part_line, strip)

    def strip_blocks(self, columns: int) -> int:
        """Tasks' blocks of columns that make a strip of so many."""
        return ceil_div(columns, self.panels * self.nr)

    @property
    def wide(self) -> int:
        """The most columns of a task that has more rows than one."""
        blocks = self.strip_blocks(STRIPS) if self.few > 1 else 1
        return blocks * self.panels * self.nr

    @property
    def is_panel(self) -> bool:
        """Is b a single panel as it is in memory, of several blocks?"""
        return (self.packs == "none" and self.fixed_n == self.nr and not self.axes.sums
                and self.one_depth() is None)

    @property
    def lines(self) -> int:
        """Cache lines of the next panel that `unroll` steps fetch: up to a fifth of a product whose b
        is in the third-level cache. The tiles of a block share them, in vectors the first ones."""
        if self.packs == "none" and not self.is_panel:
            return 0
        row = self.nr * self.product.word_bytes
        if not self.product.tiles:
            return row // LINE
        return ceil_div(Micro.unroll * row, LINE * (self.rows // self.tile.rows))

    def one_depth(self) -> int | None:
        """Words along K where that is one block, and there is a sum."""
        if not self.fixed_k or self.fixed_k > self.step or not self.loops.fixed(self.axes.sums):
            return None
        return ceil_div(self.fixed_k, self.product.group)

    @property
    def line(self) -> int:
        """Words between packed lines of a: not a power of two, which would share a cache set."""
        return self.depth + 16

    @property
    def tile_words(self) -> int:
        """Words between packed tiles of a. They are written side by side: at a multiple of 2 KB, all of
        them would share two or four cache sets. A fifth of a product."""
        return self.pack_a.a_width * self.depth + 16

    @property
    def sum_line(self) -> int:
        """Sums from row to row of the task's own block."""
        wide = self.wide
        if self.fixed_n is not None:
            wide = min(wide, ceil_div(self.fixed_n, self.nr) * self.nr)
        return wide + (16 if self.product.tiles else 0)

    @property
    def lower_rows(self) -> int:
        """Rows of the tiles at the end: two of them are a few rows more than a whole one. Tile
        registers and packed tiles have all of a tile's rows."""
        whole = self.product.tiles or self.copies_a == "tiles"
        return self.tile.rows if whole else ceil_div(2 * self.tile.rows, 3)

    @property
    def workspace_sizes(self) -> tuple[int, int, int, int]:
        """Bytes of a thread's memory for a packed block of a, a packed panel of b, a block of c, and
        what a block of K adds to few rows."""
        tile, word, sums = self.tile, self.product.word_bytes, self.product.sums.itemsize
        rows = max(self.rows, self.rows_alone) if self.packs_alone else self.rows
        if self.fixed_m is not None:
            rows = min(rows, ceil_div(self.fixed_m, tile.rows) * tile.rows)
        a_words = {"": 0, "lines": rows * self.line,
                   "tiles": ceil_div(rows, tile.rows) * self.tile_words}[self.copies_a]
        return (a_words * word,
                 (self.depth + tile.lanes + 1) * self.nr * word if self.packs_alone else 0,
                 max(rows * self.sum_line, 2 * STRIP) * sums if self.follows else 0,
                 self.part_size() * sums if self.few else 0)
