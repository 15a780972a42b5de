"""Products of a matrix and one vector: the matrix is read once, in memory order."""

from __future__ import annotations

from dataclasses import dataclass

from ..ir.dtypes import DType
from .emitter import Emitter
from .text import Index, literal

_STREAMED = 4
"""Rows of the matrix taken at once."""


@dataclass(frozen=True)
class Line:
    """Elements `stride` apart from a pointer on."""

    pointer: str
    stride: Index


def matrix_vector(emit: Emitter, dtype: DType, matrix: str, by_output: Index, by_k: Index, vector: Line,
                  out: Line, count: Index, depth: Index) -> None:
    """out[o] = sum over k of matrix[o * by_output + k * by_k] * vector[k], for `count` outputs."""
    if by_output == 1 and out.stride == 1:
        _stream(emit, dtype, matrix, by_k, vector, out, count, depth)
    else:
        _dots(emit, dtype, matrix, by_output, by_k, vector, out, count, depth)


def _at(emit: Emitter, dtype: DType, pointer: str, offset: Index) -> str:
    return pointer if offset == 0 else emit.inst(
        f"getelementptr inbounds {dtype.storage}, ptr {pointer}, i64 {offset}")


def _stream(emit: Emitter, dtype: DType, matrix: str, by_k: Index, vector: Line, out: Line,
            count: Index, depth: Index) -> None:
    """Rows of the matrix, times a number each, added to outputs that stay in the cache."""
    element, function = dtype.llvm, f"llvm.fma.f{dtype.bits}"
    emit.declare(f"declare {element} @{function}({element}, {element}, {element})")
    with emit.loop(0, count) as j:
        emit.store_to(_at(emit, dtype, out.pointer, j), dtype, literal(0, dtype))
    whole = emit.imul(emit.idiv(depth, _STREAMED), _STREAMED)
    for low, high, step in ((0, whole, _STREAMED), (whole, depth, 1)):
        with emit.loop(low, high, step) as k, emit.scope():
            rows = [emit.iadd(k, i) for i in range(step)]
            factors = [emit.load_from(_at(emit, dtype, vector.pointer, emit.imul(r, vector.stride)),
                                      dtype) for r in rows]
            lines = [_at(emit, dtype, matrix, emit.imul(r, by_k)) for r in rows]
            with emit.loop(0, count) as j:
                place = _at(emit, dtype, out.pointer, j)
                total = emit.load_from(place, dtype)
                for factor, line in zip(factors, lines, strict=True):
                    other = emit.load_from(_at(emit, dtype, line, j), dtype)
                    total = emit.inst(f"call {element} @{function}({element} {factor},"
                                      f" {element} {other}, {element} {total})")
                emit.store_to(place, dtype, total)


def _dots(emit: Emitter, dtype: DType, matrix: str, by_output: Index, by_k: Index, vector: Line,
          out: Line, count: Index, depth: Index) -> None:
    """One sum after the other, along contiguous K; LLVM fixes its order by the shape alone."""
    element = dtype.llvm
    cell = emit.cell(element)
    with emit.loop(0, count) as j, emit.scope():
        line = _at(emit, dtype, matrix, emit.imul(j, by_output))
        emit.do(f"store {element} {literal(0, dtype)}, ptr {cell}")
        with emit.loop(0, depth) as k:
            x = emit.load_from(_at(emit, dtype, line, emit.imul(k, by_k)), dtype)
            y = emit.load_from(_at(emit, dtype, vector.pointer, emit.imul(k, vector.stride)), dtype)
            product = emit.inst(f"fmul contract {element} {x}, {y}")
            old = emit.inst(f"load {element}, ptr {cell}")
            new = emit.inst(f"fadd reassoc contract {element} {old}, {product}")
            emit.do(f"store {element} {new}, ptr {cell}")
        emit.store_to(_at(emit, dtype, out.pointer, emit.imul(j, out.stride)), dtype,
                      emit.inst(f"load {element}, ptr {cell}"))
