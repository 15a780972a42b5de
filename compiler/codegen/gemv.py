"""Products of a matrix and few vectors: the matrix comes from memory once, in its own order.

Its lines are taken some at a time. Where they run along the outputs, they are added up in outputs that
stay in the cache, in the order of a micro-kernel's sums: part of a batch gets the bits of the whole.
Where they run along K, each is a sum of products. All vectors use the lines before the next ones come.
Numbers are converted to the type of the sums as they are read.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..ir.dtypes import DType
from .emitter import Emitter
from .lanes import Lanes
from .product import Product
from .shuffle import lane_mask
from .target import LINE
from .text import Index, literal

FEW = 6
"""Vectors that are few: more are multiplied faster by a micro-kernel, which reuses what it loads."""
_STREAMED, _SUMMED = (12, 4, 1), 8
"""Lines of the matrix taken at once: those along the outputs, fewer of what is left; those along K."""
_AHEAD = 1 << 10
"""Bytes of a line along K that are asked for ahead."""


@dataclass(frozen=True)
class Line:
    """Numbers `stride` apart from a pointer on, in lines `step` apart."""

    pointer: str
    stride: Index
    dtype: DType
    step: Index = 0

    def place(self, emit: Emitter, i: Index, line: Index = 0) -> str:
        offset = emit.iadd(emit.imul(line, self.step), emit.imul(i, self.stride))
        return self.pointer if offset == 0 else emit.inst(
            f"getelementptr inbounds {self.dtype.storage}, ptr {self.pointer}, i64 {offset}")

    def load(self, emit: Emitter, i: Index, dtype: DType, line: Index = 0) -> str:
        """Number `i` of a line, converted to a type that holds it."""
        return emit.convert(emit.load_from(self.place(emit, i, line), self.dtype), self.dtype, dtype)


@dataclass(frozen=True)
class MatrixVector:
    """out[v][o] = sum over k of matrix[k][o] * vector[v][k], for `count` outputs of each of `vectors`.

    Blocks of `block` of K are added up apart, in `part`, which is like `out`.
    """

    emit: Emitter
    product: Product
    matrix: Line
    vector: Line
    out: Line
    part: Line
    block: Index
    vectors: Index
    count: Index
    depth: Index

    def run(self) -> None:
        """Emit it."""
        if self._streams:
            self._stream()
        elif self._sums_rows:
            self._rows()
        else:
            self._dots()

    @property
    def is_finished(self) -> bool:
        """Is it written in vectors, and without functions that convert numbers?"""
        return Lanes.fit(self.vector.dtype) and Lanes.fit(self.matrix.dtype) and (
            self._streams or self._sums_rows)

    @property
    def _streams(self) -> bool:
        return self.matrix.stride == 1 and self.out.stride == 1

    @property
    def _sums_rows(self) -> bool:
        return self.product.sums.is_float and self.matrix.step == 1 and self.vector.stride == 1 and all(
            Lanes.fit(line.dtype) for line in (self.matrix, self.vector))

    def _stream(self) -> None:
        """Lines of the matrix, times a number each, added to the outputs."""
        emit, sums, out, part, lanes = self.emit, self.product.sums, self.out, self.part, self._lanes

        def either(kind: str, then: Index, otherwise: Index) -> str:
            return emit.inst(f"select i1 {is_first}, {kind} {then}, {kind} {otherwise}")

        # Once even if K is 0: the result is zeros then.
        with emit.loop(0, emit.imax(self.depth, 1), self.block) as k, emit.scope():
            is_first = emit.icompare("eq", k, 0)
            self._add_block(Line(either("ptr", out.pointer, part.pointer), 1, sums,
                                 either("i64", out.step, part.step)),
                            k, emit.imin(emit.iadd(k, self.block), self.depth))
            with emit.loop(0, either("i64", 0, self.vectors)) as v, emit.scope():
                target, more = (line.place(emit, 0, v) for line in (out, part))

                def add(j: Index, mask: str | None, target=target, more=more) -> None:
                    place = lanes.place(target, j)
                    x, y = lanes.load(place, mask), lanes.load(lanes.place(more, j), mask)
                    kind = "fadd" if sums.is_float else "add"
                    lanes.store(place, emit.inst(f"{kind} {lanes.kind} {x}, {y}"), mask)

                lanes.run(0, self.count, add)

    def _add_block(self, out: Line, low: Index, high: Index) -> None:
        """The sums over K from `low` to before `high`."""
        emit, lanes = self.emit, self._lanes
        with emit.loop(0, self.vectors) as v, emit.scope():
            target = out.place(emit, 0, v)
            lanes.run(0, self.count, lambda j, mask: lanes.store(
                lanes.place(target, j), "zeroinitializer", mask))
        first = low
        for step in _STREAMED:
            whole = emit.imul(emit.idiv(emit.isub(high, first), step), step)
            last = emit.iadd(first, whole)
            with emit.loop(first, last, step) as k, emit.scope(), emit.loop(0, self.vectors) as v, \
                    emit.scope():
                self._add_lines(out.place(emit, 0, v), [emit.iadd(k, i) for i in range(step)], v)
            first = last

    def _add_lines(self, target: str, lines: list[Index], v: Index) -> None:
        emit, sums, matrix, lanes = self.emit, self.product.sums, self.matrix, self._lanes
        numbers, product = Lanes(emit, matrix.dtype, lanes.count), Product(sums, sums)
        factors = [lanes.splat(self.vector.load(emit, i, sums, v)) for i in lines]
        starts = [matrix.place(emit, 0, i) for i in lines]
        # Whole lines of the matrix, of which more is read than of the outputs.
        begin = emit.inst(f"ptrtoint ptr {starts[0]} to i64")
        rest = emit.inst(f"and i64 {emit.isub(0, begin)}, {LINE - 1}")
        first = emit.imin(emit.idiv(rest, matrix.dtype.itemsize), self.count)

        def element(start: str, j: Index, mask: str | None) -> str:
            if not Lanes.fit(matrix.dtype):
                return lanes.splat(Line(start, 1, matrix.dtype).load(emit, j, sums))
            x = numbers.load(numbers.place(start, j), mask)
            if numbers.kind == lanes.kind:
                return x
            wider = "fpext" if sums.is_float else "sext" if matrix.dtype.kind == "int" else "zext"
            return emit.inst(f"{wider} {numbers.kind} {x} to {lanes.kind}")

        def add(j: Index, mask: str | None) -> None:
            place = lanes.place(target, j)
            total = lanes.load(place, mask)
            for factor, start in zip(factors, starts, strict=True):
                total = product.add(emit, total, factor, element(start, j, mask), lanes.count)
            lanes.store(place, total, mask)

        with emit.loop(0, first, lanes.count) as j, emit.scope():
            add(j, lane_mask(emit, emit.isub(first, j), lanes.count))
        lanes.run(first, self.count, add)

    @property
    def _lanes(self) -> Lanes:
        """Vectors of sums; of one where those of the matrix cannot be loaded."""
        width = self.emit.target.tile.bits // self.product.sums.bits
        return Lanes(self.emit, self.product.sums, width if Lanes.fit(self.matrix.dtype) else 1)

    def _rows(self) -> None:
        """Vectors of products along K, for some lines of the matrix at a time."""
        emit = self.emit
        whole = emit.imul(emit.idiv(self.count, _SUMMED), _SUMMED)
        for low, high, step in ((0, whole, _SUMMED), (whole, self.count, 1)):
            with emit.loop(low, high, step) as j, emit.scope(), emit.loop(0, self.vectors) as v, \
                    emit.scope():
                self._some_rows([emit.iadd(j, i) for i in range(step)], v)

    def _some_rows(self, rows: list[Index], v: Index) -> None:
        emit, sums, matrix = self.emit, self.product.sums, self.matrix
        lanes = emit.target.tile.bits // sums.bits
        a, b = (Lanes(emit, line.dtype, lanes) for line in (matrix, self.vector))
        kind, name = f"<{lanes} x {sums.llvm}>", f"v{lanes}f{sums.bits}"
        emit.declare(f"declare {kind} @llvm.fma.{name}({kind}, {kind}, {kind})")
        emit.declare(f"declare {sums.llvm} @llvm.vector.reduce.fadd.{name}({sums.llvm}, {kind})")
        emit.declare("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
        cells = [emit.cell(kind) for _ in rows]
        for cell in cells:
            emit.do(f"store {kind} zeroinitializer, ptr {cell}")
        starts = [matrix.place(emit, row) for row in rows]
        vector = self.vector.place(emit, 0, v)

        def load(of: Lanes, place: str, mask: str | None) -> str:
            x = of.load(place, mask)
            return x if of.kind == kind else emit.inst(f"fpext {of.kind} {x} to {kind}")

        def add(k: Index, mask: str | None) -> None:
            y = load(b, b.place(vector, k), mask)
            for start, cell in zip(starts, cells, strict=True):
                place = a.place(start, k)
                if mask is None:
                    ahead = emit.inst(f"getelementptr i8, ptr {place}, i64 {_AHEAD}")
                    emit.do(f"call void @llvm.prefetch.p0(ptr {ahead}, i32 0, i32 3, i32 1)")
                x, old = load(a, place, mask), emit.inst(f"load {kind}, ptr {cell}")
                new = emit.inst(f"call {kind} @llvm.fma.{name}({kind} {x}, {kind} {y}, {kind} {old})")
                emit.do(f"store {kind} {new}, ptr {cell}")

        a.run(0, self.depth, add)
        for row, cell in zip(rows, cells, strict=True):
            total = emit.inst(f"load {kind}, ptr {cell}")
            total = emit.inst(f"call reassoc {sums.llvm} @llvm.vector.reduce.fadd.{name}("
                              f"{sums.llvm} {literal(-0.0, sums)}, {kind} {total})")
            emit.store_to(self.out.place(emit, row, v), sums, total)

    def _dots(self) -> None:
        """One sum after the other; LLVM fixes its order by the shape alone."""
        emit, sums = self.emit, self.product.sums
        element = sums.llvm
        cell = emit.cell(element)
        with emit.loop(0, self.count) as j, emit.scope(), emit.loop(0, self.vectors) as v, emit.scope():
            emit.do(f"store {element} {literal(0, sums)}, ptr {cell}")
            with emit.loop(0, self.depth) as k, emit.scope():
                x, y = self.matrix.load(emit, j, sums, k), self.vector.load(emit, k, sums, v)
                old = emit.inst(f"load {element}, ptr {cell}")
                if sums.is_float:
                    # A chain of sums would not vectorise.
                    more = emit.inst(f"fmul contract {element} {x}, {y}")
                    new = emit.inst(f"fadd reassoc contract {element} {old}, {more}")
                else:
                    new = self.product.add_scalar(emit, old, x, y)
                emit.do(f"store {element} {new}, ptr {cell}")
            emit.store_to(self.out.place(emit, j, v), sums, emit.inst(f"load {element}, ptr {cell}"))

