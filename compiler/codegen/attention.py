"""Attention without a matrix of all scores: blocks of queries against all keys of a head.

Forward, a task is a block of rows of one head: its scores, in memory of the thread's own, become
weights and then the block of the result. Backward, a task is one head of keys, whose cotangents add up
over the blocks of queries in order; scores are computed again. Memory grows with the length of the
sequences, not with its square. Everything is computed in f32 (f64 for f64).

A first phase packs keys, and what else the products read across, as panels; `tile.py` multiplies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..ir.core import Op, Value
from ..ir.dims import Extent
from ..ir.dtypes import F32, F64
from .emitter import Emitter
from .pack import Packer
from .product import Product
from .text import Index
from .tile import Micro, best_tile, multiply_panel
from .work import Work

_BLOCK_BYTES = 512 << 10
"""Scores of a block of queries stay in the second-level cache."""
_ROWS = 48
_DEPTH = 256
"""Keys whose values are multiplied at a time."""
_PICOSECONDS = 20


def forward(emit: Emitter, op: Op) -> None:
    """The kernel of `tfn.attention`."""
    _Attention(emit, op, backward=False).forward()


def backward(emit: Emitter, op: Op) -> None:
    """The kernel of `tfn.attention_backward`."""
    _Attention(emit, op, backward=True).backward()


@dataclass(frozen=True)
class _Block:
    """What a block of queries is: its head, its first row and how many, and the keys it looks at."""

    b: Index
    head: Index
    row: Index
    rows: Index
    keys: Index


class _Attention:
    def __init__(self, emit: Emitter, op: Op, backward: bool):
        self.emit, self.op = emit, op
        self.q, self.k, self.v = op.operands[:3]
        rest = list(op.operands[3:])
        given = op.attributes["composite_attributes"]
        self.bias = rest.pop(0) if given["bias"] else None
        self.mask = rest.pop(0) if given["mask"] else None
        self.ct = rest.pop(0) if backward else None
        self.scale, self.causal = given["scale"], given["is_causal"]
        # Rows that see nothing weigh all keys alike: only without a mask are keys surely in vain.
        self.skips = self.causal and self.mask is None and self.bias is None
        self.length, self.heads, self.width = (_known(d) for d in self.q.shape[1:])
        self.keys, self.groups, _ = (_known(d) for d in self.k.shape[1:])
        self.repeats = self.heads // self.groups
        self.wide = F64 if self.q.dtype.bits == 64 else F32
        self.product = Product(self.wide, self.wide)
        size = self.wide.itemsize
        most = max(12, min(_ROWS, _BLOCK_BYTES // (self.keys * size) // 12 * 12))
        self.rows = min(most, self.length)
        tile = best_tile(emit.target, self.wide, self.rows, self.keys)
        self.tile = best_tile(emit.target, self.wide, self.rows, self.width)
        self.key_tile = tile
        self.panels = -(-self.keys // tile.columns)
        self.line = self.panels * tile.columns + 16
        """Numbers between rows of scores: not a power of two, which would share a cache set."""
        self.across = -(-self.width // self.tile.columns) * self.tile.columns
        masks = self.wide is self.q.dtype or "+avx512bw" in emit.target.features.split(",")
        self.packer = Packer(emit, self.q.dtype, self.product, self.tile, masks)
        self.key_packer = Packer(emit, self.q.dtype, self.product, tile, masks)
        # Words of a head of keys in shared memory: panels of transposed rows, and plain rows.
        self.panel_words = (-(-self.width // tile.lanes) * tile.lanes) * tile.columns
        self.transposed = self.panels * self.panel_words
        self.plain = self.panels * tile.columns * self.across

    # -- the two kernels ----------------------------------------------------------------------------

    def forward(self) -> None:
        emit, (out,) = self.emit, self.op.results
        self._pack([self.k], [self.v])
        work = Work((self.q.shape[0], self.heads, self.length), (1, 1, self.rows),
                    (_PICOSECONDS, self.rows, self.keys, self.width))
        with emit.phase(work):
            scores, queries, result, factors = self._workspace(
                self.rows * self.line, self.rows * self.across, self.rows * self.across, self.rows)
            blocks = -(-self.length // self.rows)
            with emit.loop("%first", "%last") as task, emit.scope():
                head = emit.idiv(task, blocks)
                at = self._block(emit.idiv(head, self.heads), emit.irem(head, self.heads),
                                 emit.imul(emit.irem(task, blocks), self.rows))
                self._lines(self.q, at, queries)
                self._scores(queries, self._packed(at, 0), scores, at)
                with emit.loop(0, at.rows) as r, emit.scope():
                    line = self._word(scores, emit.imul(r, self.line))
                    factor = self._soften(line, at, r)
                    emit.store_to(self._word(factors, r), self.wide, factor)
                values = self._packed(at, self.transposed)
                with emit.loop(0, at.keys, _DEPTH) as s, emit.scope():
                    depth = emit.imin(emit.isub(at.keys, s), _DEPTH)
                    self._multiply("values", (self._word(scores, s), self.line, 1),
                                   self._word(values, emit.imul(s, self.across)),
                                   (result, self.across), at.rows, self.width, depth,
                                   emit.icompare("sgt", s, 0))
                self._write(out, result, at.b, at.row, at.rows, at.head, self.heads,
                            lambda r: emit.load_from(self._word(factors, r), self.wide))

    def backward(self) -> None:
        emit, (dq, dk, dv) = self.emit, self.op.results
        assert self.ct is not None
        self._pack([self.k, self.v], [self.k])
        work = Work((self.q.shape[0], self.groups), (),
                    (_PICOSECONDS * 3, self.repeats * self.length, self.keys, self.width))
        with emit.phase(work):
            block = self.rows * self.across
            scores, others, queries, cts, result, keys, values = self._workspace(
                self.rows * self.line, self.rows * self.line, block, block, block,
                self.keys * self.across, self.keys * self.across)
            with emit.loop("%first", "%last") as task, emit.scope():
                b, group = emit.idiv(task, self.groups), emit.irem(task, self.groups)
                with emit.loop(0, self.keys * self.across) as i, emit.scope():
                    for memory in (keys, values):
                        emit.store_to(self._word(memory, i), self.wide, emit.constant(0, self.wide))
                with emit.loop(0, self.repeats) as repeat, emit.scope(), \
                        emit.loop(0, self.length, self.rows) as row, emit.scope():
                    head = emit.iadd(emit.imul(group, self.repeats), repeat)
                    at = self._block(b, head, row)
                    self._lines(self.q, at, queries)
                    self._lines(self.ct, at, cts)
                    self._scores(queries, self._packed(at, 0), scores, at)
                    self._scores(cts, self._packed(at, self.transposed), others, at)
                    with emit.loop(0, at.rows) as r, emit.scope():
                        start = emit.imul(r, self.line)
                        self._weights_and_slopes(self._word(scores, start), self._word(others, start),
                                                 at, r)
                    for weights, lines, total, value in ((scores, cts, values, dv),
                                                         (others, queries, keys, dk)):
                        if value in emit.pointers:
                            self._multiply("keys", (weights, 1, self.line), lines,
                                           (total, self.across), at.keys, self.width, at.rows, "true")
                    if dq in emit.pointers:
                        self._multiply("values", (others, self.line, 1),
                                       self._packed(at, 2 * self.transposed), (result, self.across),
                                       at.rows, self.width, at.keys, "false")
                        self._write(dq, result, b, row, at.rows, head, self.heads)
                for value, total in ((dk, keys), (dv, values)):
                    # One that nothing reads has no memory.
                    if value in emit.pointers:
                        self._write(value, total, b, 0, self.keys, group, self.groups)

    # -- memory -------------------------------------------------------------------------------------

    def _word(self, pointer: str, offset: Index) -> str:
        return self.packer.word(pointer, offset)

    def _workspace(self, *sizes: int) -> list[str]:
        """Pieces of this thread's memory of so many numbers each."""
        room = [-(-size // 16) * 16 + 64 for size in sizes]
        memory = self.emit.workspace(sum(room) * self.wide.itemsize)
        return [self._word(memory, sum(room[:i])) for i in range(len(room))]

    def _pack(self, across: list[Value], along: list[Value]) -> None:
        """A phase: for each head of keys, panels of some operands' transposes, then rows of others."""
        emit, tile = self.emit, self.key_tile
        self.head_words = len(across) * self.transposed + len(along) * self.plain
        count = self.q.shape[0] * (self.groups * self.head_words * self.wide.itemsize)
        self.shared = emit.scratch(count)
        work = Work((self.q.shape[0], self.groups, self.keys), (1, 1, tile.columns),
                    (300 * len(across), tile.columns, self.width))
        with emit.phase(work), emit.loop("%first", "%last") as task, emit.scope():
            head, panel = emit.idiv(task, self.panels), emit.irem(task, self.panels)
            b, group = emit.idiv(head, self.groups), emit.irem(head, self.groups)
            first = emit.imul(panel, tile.columns)
            left = emit.isub(self.keys, first)
            memory = self._word(self.shared, emit.imul(head, self.head_words))
            for i, value in enumerate(across):
                target = self._word(memory, emit.iadd(i * self.transposed,
                                                      emit.imul(panel, self.panel_words)))
                self.key_packer.panel(emit.pointer(value, (b, first, group, 0)), target, 1,
                                      self.groups * self.width, self.width, left)
            for value in along:
                target = self._word(memory, emit.iadd(len(across) * self.transposed,
                                                      emit.imul(first, self.across)))
                self.packer.lines(emit.pointer(value, (b, first, group, 0)), target,
                                  self.groups * self.width, 1, self.width,
                                  emit.imin(left, tile.columns), self.across)

    def _packed(self, at: _Block, offset: int) -> str:
        """What the first phase made for the keys of a block, from so many words on."""
        emit = self.emit
        head = emit.iadd(emit.imul(at.b, self.groups), emit.idiv(at.head, self.repeats))
        return self._word(self.shared, emit.iadd(emit.imul(head, self.head_words), offset))

    def _block(self, b: Index, head: Index, row: Index) -> _Block:
        emit = self.emit
        rows = emit.imin(emit.isub(self.length, row), self.rows)
        keys = emit.imin(emit.iadd(row, rows), self.keys) if self.skips else self.keys
        return _Block(b, head, row, rows, keys)

    def _lines(self, value: Value, at: _Block, target: str) -> None:
        """Rows of a block of a value like the queries, as numbers of the products."""
        self.packer.lines(self.emit.pointer(value, (at.b, at.row, at.head, 0)), target,
                          self.heads * self.width, 1, self.width, at.rows, self.across)

    def _write(self, value: Value, source: str, b: Index, row: Index, rows: Index, head: Index,
               heads: int, factor: Callable[[Index], str] | None = None) -> None:
        """Store rows of one head, each times a factor."""
        emit = self.emit
        with emit.loop(0, rows) as r, emit.scope():
            line = self._word(source, emit.imul(r, self.across))
            place = emit.pointer(value, (b, emit.iadd(row, r), head, 0))
            scale = factor(r) if factor else ""
            with emit.loop(0, self.width) as d:
                number = emit.load_from(self._word(line, d), self.wide)
                if scale:
                    number = emit.binary("fmul", self.wide, number, scale)
                target = emit.inst(
                    f"getelementptr inbounds {value.dtype.storage}, ptr {place}, i64 {d}")
                emit.store_to(target, value.dtype, number)

    # -- products -----------------------------------------------------------------------------------

    def _scores(self, lines: str, panels: str, target: str, at: _Block) -> None:
        """The products of the lines of a block and of all its keys."""
        emit, tile = self.emit, self.key_tile
        micro = Micro(self.product, tile, self.across, 1, tile.columns, self.line, True, ".scores")
        with emit.loop(0, at.keys, tile.columns) as column, emit.scope():
            b = self._word(panels, emit.imul(emit.idiv(column, tile.columns), self.panel_words))
            multiply_panel(emit, micro, lines, b, self._word(target, column), at.rows,
                           emit.imin(emit.isub(at.keys, column), tile.columns), self.width, "false")

    def _multiply(self, name: str, a: tuple[str, int, int], b: str, c: tuple[str, int], rows: Index,
                  columns: int, depth: Index, add: str) -> None:
        """c (+)= a * b for rows of b `across` apart; a and c are pointers with their strides."""
        tile = self.tile
        pointer, a_row, a_k = a
        micro = Micro(self.product, tile, a_row, a_k, self.across, c[1], True, f".{name}")
        for column in range(0, columns, tile.columns):
            multiply_panel(self.emit, micro, pointer, self._word(b, column), self._word(c[0], column),
                           rows, min(columns - column, tile.columns), depth, add)

    # -- scores to weights --------------------------------------------------------------------------

    def _seen(self, at: _Block, r: Index) -> Index:
        """The keys row `r` of a block looks at; those after it are skipped."""
        emit = self.emit
        return emit.imin(emit.iadd(emit.iadd(at.row, r), 1), at.keys) if self.skips else at.keys

    def _allowed(self, at: _Block, r: Index, s: Index) -> list[str]:
        """What must hold for row `r` to look at key `s`."""
        emit, row = self.emit, self.emit.iadd(at.row, r)
        found = []
        if self.mask is not None:
            found.append(emit.load(self.mask, self._broadcast(self.mask, (at.b, at.head, row, s))))
        if self.causal and not self.skips:
            found.append(emit.icompare("sge", row, s))
        return found

    def _broadcast(self, value: Value, index: tuple[Index, ...]) -> list[Index]:
        """The index into a value that broadcasts to all scores."""
        rank = len(value.shape)
        return [0 if extent == 1 else i
                for extent, i in zip(value.shape, index[4 - rank:], strict=True)]

    def _soften(self, line: str, at: _Block, r: Index) -> str:
        """Turn a row of products into weights but for a factor, which is returned; zeros for skipped
        keys."""
        emit, wide = self.emit, self.wide
        kind = wide.llvm
        largest, total = emit.cell(kind), emit.cell(kind)
        emit.do(f"store {kind} {emit.constant(float('-inf'), wide)}, ptr {largest}")
        emit.do(f"store {kind} {emit.constant(0, wide)}, ptr {total}")
        seen = self._seen(at, r)
        lowest = -0.7 * (3.4028234663852886e38 if wide is F32 else 1.7976931348623157e308)
        with emit.loop(0, seen) as s, emit.scope():
            place = self._word(line, s)
            score = emit.binary("fmul", wide, emit.load_from(place, wide),
                                emit.constant(self.scale, wide))
            if self.bias is not None:
                index = self._broadcast(self.bias, (at.b, at.head, emit.iadd(at.row, r), s))
                bias = emit.convert(emit.load(self.bias, index), self.bias.dtype, wide)
                score = emit.binary("fadd", wide, score, bias)
            for condition in self._allowed(at, r, s):
                score = emit.select(condition, wide, score, emit.constant(lowest, wide))
            emit.store_to(place, wide, score)
            old = emit.inst(f"load {kind}, ptr {largest}")
            emit.do(f"store {kind} {emit.intrinsic('maximum', wide, old, score)}, ptr {largest}")
        top = emit.inst(f"load {kind}, ptr {largest}")
        with emit.loop(0, seen) as s, emit.scope():
            place = self._word(line, s)
            weight = emit.math("exp", wide, emit.binary("fsub", wide, emit.load_from(place, wide), top))
            emit.store_to(place, wide, weight)
            old = emit.inst(f"load {kind}, ptr {total}")
            emit.do(f"store {kind} {emit.inst(f'fadd reassoc {kind} {old}, {weight}')}, ptr {total}")
        if self.skips:
            with emit.loop(seen, at.keys) as s:
                emit.store_to(self._word(line, s), wide, emit.constant(0, wide))
        sum = emit.inst(f"load {kind}, ptr {total}")
        return emit.inst(f"fdiv {kind} {emit.constant(1, wide)}, {sum}")

    def _weights_and_slopes(self, line: str, slopes: str, at: _Block, r: Index) -> None:
        """Turn a row of products into weights, and the cotangents of the weights into those of the
        products."""
        emit, wide = self.emit, self.wide
        kind = wide.llvm
        factor = self._soften(line, at, r)
        mean = emit.cell(kind)
        emit.do(f"store {kind} {emit.constant(0, wide)}, ptr {mean}")
        with emit.loop(0, at.keys) as s, emit.scope():
            place = self._word(line, s)
            weight = emit.binary("fmul", wide, emit.load_from(place, wide), factor)
            emit.store_to(place, wide, weight)
            more = emit.inst(f"fmul contract {kind} {weight},"
                             f" {emit.load_from(self._word(slopes, s), wide)}")
            old = emit.inst(f"load {kind}, ptr {mean}")
            emit.do(f"store {kind} {emit.inst(f'fadd reassoc contract {kind} {old}, {more}')},"
                    f" ptr {mean}")
        center = emit.inst(f"load {kind}, ptr {mean}")
        with emit.loop(0, at.keys) as s, emit.scope():
            place = self._word(slopes, s)
            slope = emit.binary("fsub", wide, emit.load_from(place, wide), center)
            weight = emit.load_from(self._word(line, s), wide)
            slope = emit.binary("fmul", wide, emit.binary("fmul", wide, slope, weight),
                                emit.constant(self.scale, wide))
            for condition in self._allowed(at, r, s):
                slope = emit.select(condition, wide, slope, emit.constant(0, wide))
            emit.store_to(place, wide, slope)


def _known(extent: Extent) -> int:
    assert isinstance(extent, int)
    return extent
