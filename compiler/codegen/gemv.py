"""Products of a matrix and one vector: the matrix is read once, in memory order.

Numbers are converted to the type of the sums as they are read.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..ir.dtypes import DType
from .emitter import Emitter
from .product import Product
from .text import Index, literal

_STREAMED = 4
"""Rows of the matrix taken at once."""


@dataclass(frozen=True)
class Line:
    """Numbers `stride` apart from a pointer on."""

    pointer: str
    stride: Index
    dtype: DType

    def place(self, emit: Emitter, i: Index) -> str:
        return _at(emit, self.dtype, self.pointer, emit.imul(i, self.stride))

    def load(self, emit: Emitter, i: Index, dtype: DType) -> str:
        """Number `i`, converted to a type that holds it."""
        return emit.convert(emit.load_from(self.place(emit, i), self.dtype), self.dtype, dtype)


def matrix_vector(emit: Emitter, product: Product, matrix: Line, by_k: Index, vector: Line, out: Line,
                  count: Index, depth: Index) -> None:
    """out[o] = sum over k of matrix[o * matrix.stride + k * by_k] * vector[k], for `count` outputs."""
    if matrix.stride == 1 and out.stride == 1:
        _stream(emit, product, matrix, by_k, vector, out, count, depth)
    else:
        _dots(emit, product, matrix, by_k, vector, out, count, depth)


def _at(emit: Emitter, dtype: DType, pointer: str, offset: Index) -> str:
    return pointer if offset == 0 else emit.inst(
        f"getelementptr inbounds {dtype.storage}, ptr {pointer}, i64 {offset}")


def _stream(emit: Emitter, product: Product, matrix: Line, by_k: Index, vector: Line, out: Line,
            count: Index, depth: Index) -> None:
    """Rows of the matrix, times a number each, added to outputs that stay in the cache."""
    sums = product.sums
    with emit.loop(0, count) as j:
        emit.store_to(out.place(emit, j), sums, literal(0, sums))
    whole = emit.imul(emit.idiv(depth, _STREAMED), _STREAMED)
    for low, high, step in ((0, whole, _STREAMED), (whole, depth, 1)):
        with emit.loop(low, high, step) as k, emit.scope():
            rows = [emit.iadd(k, i) for i in range(step)]
            factors = [vector.load(emit, r, sums) for r in rows]
            lines = [Line(_at(emit, matrix.dtype, matrix.pointer, emit.imul(r, by_k)), 1, matrix.dtype)
                     for r in rows]
            with emit.loop(0, count) as j:
                place = out.place(emit, j)
                total = emit.load_from(place, sums)
                for factor, line in zip(factors, lines, strict=True):
                    total = product.add_scalar(emit, total, factor, line.load(emit, j, sums))
                emit.store_to(place, sums, total)


def _dots(emit: Emitter, product: Product, matrix: Line, by_k: Index, vector: Line, out: Line,
          count: Index, depth: Index) -> None:
    """One sum after the other, along contiguous K; LLVM fixes its order by the shape alone."""
    sums = product.sums
    element = sums.llvm
    cell = emit.cell(element)
    with emit.loop(0, count) as j, emit.scope():
        line = Line(matrix.place(emit, j), by_k, matrix.dtype)
        emit.do(f"store {element} {literal(0, sums)}, ptr {cell}")
        with emit.loop(0, depth) as k:
            x, y = line.load(emit, k, sums), vector.load(emit, k, sums)
            old = emit.inst(f"load {element}, ptr {cell}")
            if sums.is_float:
                # A chain of sums would not vectorise.
                more = emit.inst(f"fmul contract {element} {x}, {y}")
                new = emit.inst(f"fadd reassoc contract {element} {old}, {more}")
            else:
                new = product.add_scalar(emit, old, x, y)
            emit.do(f"store {element} {new}, ptr {cell}")
        emit.store_to(out.place(emit, j), sums, emit.inst(f"load {element}, ptr {cell}"))
