"""Operands of contractions copied into the order in which the micro-kernel reads them.

What is copied are words of a `Product`: numbers, or groups of neighbours of K, zeros where K ends. An
operand of another type is converted on the way.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..ir.dtypes import BF16, MINIFLOATS, DType
from .emitter import Emitter
from .product import Product
from .shared import shared
from .shuffle import interleave, lane_mask, transpose
from .text import Index
from .tile import Tile


@dataclass(frozen=True)
class Packer:
    """Copies an operand of dtype `source`. `tile` is that of the micro-kernel; a packed row of b has
    its columns, a packed row of a `a_width` words."""

    emit: Emitter
    source: DType
    product: Product
    tile: Tile
    masks_bytes: bool = True
    """The target loads part of a vector of bytes or half words."""
    flips: bool = False
    """Add 128 to each number: a signed a for an instruction that takes it unsigned."""

    @property
    def a_lanes(self) -> int:
        return min(1 << (self.tile.rows - 1).bit_length(), self.tile.lanes)

    @property
    def a_width(self) -> int:
        """The tile's rows, rounded up to whole vectors."""
        return -(-self.tile.rows // self.a_lanes) * self.a_lanes

    def at(self, pointer: str, offset: Index) -> str:
        """The address of the number `offset` after a pointer."""
        return self._address(self.source.storage, pointer, offset)

    def word(self, pointer: str, offset: Index) -> str:
        """The address of the word `offset` after a pointer."""
        return self._address(self.product.word, pointer, offset)

    def _address(self, kind: str, pointer: str, offset: Index) -> str:
        return pointer if offset == 0 else self.emit.inst(
            f"getelementptr inbounds {kind}, ptr {pointer}, i64 {offset}")

    @property
    def by_vectors(self) -> bool:
        """Can vectors of the operand be loaded, masked, and converted?"""
        return self.source not in MINIFLOATS and (self.source.bits >= 32 or self.masks_bytes)

    # -- b ------------------------------------------------------------------------------------------

    def panel(self, source: str, target: str, by_k: Index, by_column: Index, depth: Index, left: Index
              ) -> None:
        """`depth` numbers along K of a panel of b, `left` columns of which exist.

        Where K is contiguous, whole squares are written: up to `lanes - 1` rows after the last.
        """
        emit, width = self.emit, self.tile.columns
        start = target
        if self.product.flips:
            self._start(start, negate=False)
            target = self.word(target, width)
        if by_column == 1 and self.by_vectors:
            masks = [lane_mask(emit, emit.isub(left, v), self.tile.lanes)
                     for v in range(0, width, self.tile.lanes)]
            with emit.loop(0, depth, self.product.group) as k, emit.scope():
                row = emit.imul(emit.idiv(k, self.product.group), width)
                for v, mask in zip(range(0, width, self.tile.lanes), masks, strict=True):
                    word = self._group(self.at(source, emit.iadd(emit.imul(k, by_k), v)), by_k,
                                       emit.isub(depth, k), mask, self.tile.lanes)
                    self._store(word, self.word(target, emit.iadd(row, v)), self.tile.lanes)
                    self._count(word, self.word(start, v))
        elif by_k == 1 and self.by_vectors:
            self._squares(source, target, by_column, depth, left, start)
        else:
            self._numbers(source, target, (by_k, by_column), (width, 1), depth, emit.imin(left, width),
                          start)
        if self.product.depth > 1 and by_column == 1 and self.by_vectors:
            words = emit.idiv(emit.iadd(depth, self.product.group - 1), self.product.group)
            with emit.loop(words, self._rounded(words, self.product.depth)) as k, emit.scope():
                for v in range(0, width, self.tile.lanes):
                    self._store("zeroinitializer", self.word(target, emit.iadd(emit.imul(k, width), v)),
                                self.tile.lanes)
        if self.product.flips:
            self._start(start, negate=True)

    def _rounded(self, count: Index, step: int) -> Index:
        """`count`, rounded up to whole steps."""
        emit = self.emit
        return emit.imul(emit.idiv(emit.iadd(count, step - 1), step), step)

    def _start(self, start: str, negate: bool) -> None:
        """Clear the row of sums, or change its sign."""
        emit, kind = self.emit, f"<{self.tile.lanes} x i32>"
        for v in range(0, self.tile.columns, self.tile.lanes):
            place, value = self.word(start, v), "zeroinitializer"
            if negate:
                total = emit.inst(f"load {kind}, ptr {place}, align 4")
                value = emit.inst(f"sub {kind} zeroinitializer, {total}")
            emit.do(f"store {kind} {value}, ptr {place}, align 4")

    def _count(self, words: str, place: str) -> None:
        """Add 128 times the numbers in a vector of words to the row of sums."""
        if not self.product.flips:
            return
        emit, kind = self.emit, f"<{self.tile.lanes} x i32>"
        factor = f"<{', '.join(['i32 -2139062144'] * self.tile.lanes)}>"
        total = emit.inst(f"load {kind}, ptr {place}, align 4")
        more = self.product.add(emit, total, factor, words, self.tile.lanes)
        emit.do(f"store {kind} {more}, ptr {place}, align 4")

    def _squares(self, source: str, target: str, by_column: Index, depth: Index, left: Index,
                 start: str) -> None:
        """Transposed squares; columns that do not exist repeat the last one."""
        with shared(self.emit, True, (source, target, start), (by_column, depth, left)) as (
                pointers, numbers):
            self._each_square(*pointers, *numbers)

    def _each_square(self, source: str, target: str, start: str, by_column: Index, depth: Index,
                     left: Index) -> None:
        emit, lanes, width, group = self.emit, self.tile.lanes, self.tile.columns, self.product.group
        last = emit.isub(left, 1)
        with emit.loop(0, depth, lanes * group) as k, emit.scope():
            mask = lane_mask(emit, emit.isub(depth, k), lanes * group)
            row = emit.idiv(k, group)
            # A loop: LLVM's time for one square is a tenth of a second as it is.
            with emit.loop(0, width, lanes) as v, emit.scope():
                rows = []
                for j in range(lanes):
                    column = emit.imin(emit.iadd(v, j), last)
                    numbers = self._load(self.at(source, emit.iadd(k, emit.imul(column, by_column))),
                                         mask, lanes * group)
                    rows.append(self._words(numbers, lanes))
                for u, words in enumerate(transpose(emit, rows, f"<{lanes} x {self.product.word}>")):
                    place = self.word(target, emit.iadd(emit.imul(emit.iadd(row, u), width), v))
                    self._store(words, place, lanes)
                    self._count(words, self.word(start, v))

    # -- a ------------------------------------------------------------------------------------------

    def rows(self, source: str, target: str, by_k: Index, depth: Index, rows: Index, tile_stride: int
             ) -> None:
        """A block of a, whose rows are neighbours in memory, as tiles `[k][rows]` that begin
        `tile_stride` words apart; in memory order."""
        emit, height, group = self.emit, self.tile.rows, self.product.group
        whole = emit.imul(emit.idiv(rows, height), height)
        with emit.loop(0, depth, group) as k, emit.scope():
            line = self.at(source, emit.imul(k, by_k))
            packed = self.word(target, emit.imul(emit.idiv(k, group), self.a_width))
            for first, last in ((0, whole), (whole, rows)):
                with emit.loop(first, last, height) as r, emit.scope():
                    tile = emit.imul(emit.idiv(r, height), tile_stride)
                    count = height if last == whole else emit.isub(rows, r)
                    for v in range(0, self.a_width, self.a_lanes):
                        mask = lane_mask(emit, emit.isub(count, v), self.a_lanes)
                        words = self._group(self.at(line, emit.iadd(r, v)), by_k, emit.isub(depth, k),
                                            mask, self.a_lanes)
                        self._store(words, self.word(packed, emit.iadd(tile, v)), self.a_lanes)

    def lines(self, source: str, target: str, by_row: Index, by_k: Index, depth: Index, rows: Index,
              stride: int) -> None:
        """A block of a as rows of words along K that begin `stride` words apart."""
        emit, lanes, group = self.emit, self.tile.lanes, self.product.group
        if by_row == 1 and self.by_vectors:
            self._turned(source, target, by_k, depth, rows, stride)
            return
        if by_k != 1 or not self.by_vectors:
            self._numbers(source, target, (by_k, by_row), (1, stride), depth, rows, "")
            return
        with emit.loop(0, rows) as r, emit.scope():
            line = self.at(source, emit.imul(r, by_row))
            packed = self.word(target, emit.imul(r, stride))
            with emit.loop(0, depth, lanes * group) as k, emit.scope():
                mask = lane_mask(emit, emit.isub(depth, k), lanes * group)
                words = self._words(self._load(self.at(line, k), mask, lanes * group), lanes)
                self._store(words, self.word(packed, emit.idiv(k, group)), lanes)

    def _turned(self, source: str, target: str, by_k: Index, depth: Index, rows: Index, stride: Index
                ) -> None:
        """`lines` of a block whose rows are neighbours in memory: transposed squares."""
        with shared(self.emit, True, (source, target), (by_k, depth, rows, stride)) as (
                pointers, numbers):
            self._each_turned(*pointers, *numbers)

    def _each_turned(self, source: str, target: str, by_k: Index, depth: Index, rows: Index,
                     stride: Index) -> None:
        emit, lanes, group = self.emit, self.tile.lanes, self.product.group
        with emit.loop(0, depth, lanes * group) as k, emit.scope(), \
                emit.loop(0, rows, lanes) as r, emit.scope():
            words = []
            for u in range(0, lanes * group, group):
                left = emit.isub(depth, emit.iadd(k, u))
                count = emit.inst(f"select i1 {emit.icompare('sgt', left, 0)},"
                                  f" i64 {emit.isub(rows, r)}, i64 0")
                words.append(self._group(
                    self.at(source, emit.iadd(emit.imul(emit.iadd(k, u), by_k), r)), by_k, left,
                    lane_mask(emit, count, lanes), lanes))
            line = emit.iadd(emit.imul(r, stride), emit.idiv(k, group))
            for j, row in enumerate(transpose(emit, words, f"<{lanes} x {self.product.word}>")):
                self._store(row, self.word(target, emit.iadd(line, emit.imul(stride, j))), lanes)

    # -- one number, one vector ---------------------------------------------------------------------

    def _numbers(self, source: str, target: str, strides: tuple[Index, Index],
                 packed_strides: tuple[int, int], depth: Index, count: Index, start: str) -> None:
        """Number by number: strides along K and along the other dim, of numbers and of words."""
        emit, group, packed = self.emit, self.product.group, self.product.packed
        whole = self._rounded(depth, group * self.product.depth)
        with emit.loop(0, whole) as k, emit.scope(), emit.loop(0, count) as j, emit.scope():
            inside = emit.imin(k, emit.isub(depth, 1))
            place = self.at(source, emit.iadd(emit.imul(inside, strides[0]), emit.imul(j, strides[1])))
            number = emit.convert(emit.load_from(place, self.source), self.source, packed)
            if group > 1:
                number = emit.select(emit.icompare("slt", k, depth), packed, number,
                                     emit.constant(0, packed))
            if self.flips:
                number = emit.inst(f"xor i8 {number}, -128")
            word = emit.iadd(emit.imul(emit.idiv(k, group), packed_strides[0]),
                             emit.imul(j, packed_strides[1]))
            part = emit.iadd(emit.imul(word, group), emit.irem(k, group))
            emit.store_to(self._address(packed.storage, target, part), packed, number)
            if start and self.product.flips:
                total = self.word(start, j)
                more = emit.inst(f"shl i32 {emit.inst(f'sext i8 {number} to i32')}, 7")
                old = emit.inst(f"load i32, ptr {total}, align 4")
                emit.do(f"store i32 {emit.inst(f'add i32 {old}, {more}')}, ptr {total}, align 4")

    def _group(self, source: str, by_k: Index, depth: Index, mask: str, lanes: int) -> str:
        """Words of neighbours of K, which are `by_k` apart, and of `lanes` neighbours in memory that
        are in the mask; zeros where K ends."""
        emit = self.emit
        rows = []
        for i in range(self.product.group):
            mine = mask
            if i:
                more = lane_mask(emit, emit.inst(
                    f"select i1 {emit.icompare('sgt', depth, i)}, i64 {lanes}, i64 0"), lanes)
                mine = emit.inst(f"and <{lanes} x i1> {mask}, {more}")
            rows.append(self._load(self.at(source, emit.imul(by_k, i)), mine, lanes))
        if self.product.group == 1:
            return rows[0]
        bits = self.product.packed.bits
        kind, word = f"<{lanes} x {self.product.packed.llvm}>", f"<{lanes} x i{bits}>"
        return interleave(emit, [emit.inst(f"bitcast {kind} {r} to {word}") for r in rows], lanes, bits)

    def _words(self, numbers: str, lanes: int) -> str:
        """A vector of numbers, neighbours of K, as words."""
        if self.product.group == 1:
            return numbers
        kind = f"<{lanes * self.product.group} x {self.product.packed.llvm}>"
        return self.emit.inst(f"bitcast {kind} {numbers} to <{lanes} x i32>")

    def _load(self, pointer: str, mask: str, lanes: int) -> str:
        """A vector of the operand, as the product packs it; zeros where the mask is false."""
        emit, source, packed = self.emit, self.source, self.product.packed
        bits = f"i{source.bits}" if source.bits < 32 else source.llvm
        vector = f"<{lanes} x {bits}>"
        name = f"llvm.masked.load.v{lanes}{bits.replace('float', 'f32').replace('double', 'f64')}.p0"
        emit.declare(f"declare {vector} @{name}(ptr, i32, <{lanes} x i1>, {vector})")
        value = emit.inst(f"call {vector} @{name}(ptr {pointer}, i32 {source.itemsize},"
                          f" <{lanes} x i1> {mask}, {vector} zeroinitializer)")
        if self.flips:
            flip = f"<{', '.join(['i8 -128'] * lanes)}>"
            return emit.inst(f"xor {vector} {value}, {flip}")
        if bits == packed.llvm:
            return value
        wide = f"<{lanes} x {packed.llvm}>"
        if source.is_integer:
            return emit.inst(f"{'sext' if source.kind == 'int' else 'zext'} {vector} {value} to {wide}")
        if source is BF16 and packed is not BF16:
            # On bits, as the emitter does it: `fpext` may lose subnormals.
            single = f"<{lanes} x i32>"
            high = emit.inst(f"zext {vector} {value} to {single}")
            shift = f"<{', '.join(['i32 16'] * lanes)}>"
            value = emit.inst(f"bitcast {single} {emit.inst(f'shl {single} {high}, {shift}')} to"
                              f" <{lanes} x float>")
            own = "float"
        else:
            own = source.llvm
            if own != bits:
                value = emit.inst(f"bitcast {vector} {value} to <{lanes} x {own}>")
        return value if own == packed.llvm else emit.inst(f"fpext <{lanes} x {own}> {value} to {wide}")

    def _store(self, words: str, pointer: str, lanes: int) -> None:
        self.emit.do(f"store <{lanes} x {self.product.word}> {words}, ptr {pointer},"
                     f" align {self.product.word_bytes}")
