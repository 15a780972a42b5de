"""Results too large to wait in the cache for who reads them are stored past it, whole lines at a time.

Other stores read the line they write to first, which is a third of the traffic of a copy. Kernels that
move whole lines do it where the result is large (`past_the_cache`). A loop over elements makes a vector
of its results at a time, while what comes later is read ahead (`stream`): x + y of 64 MB each takes
three quarters of the time, gelu half. That is only for loops that memory limits, and not where a result
is written over an operand, whose lines are in the cache already (decided when the code runs).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from ..ir.core import Op, Value
from ..ir.dtypes import F16
from .emitter import Emitter
from .target import LINE
from .text import Index
from .work import DEAR

_LARGE = 8 << 20
"""Bytes from which whole lines go past the cache. Loops over elements: `Target.bytes_uncached`."""
_FAR = 4 << 20
"""Bytes of operands and results that are worth reading ahead: more than the second level holds."""
_SHORTEST = 256
"""Elements of a row that is worth it."""
_AHEAD = 4096
"""Bytes that are asked for before they are read: processors look ahead to the end of a page only."""
_MANY = 16
"""As many at a time as otherwise where elements are skipped, or LLVM would read them one by one."""
_MOST = 2
"""Results of a kernel: each has a buffer."""
_CHEAP = frozenset({"exponential", "tanh", "gelu", "gelu_slope", "gelu_tanh", "gelu_tanh_slope"})
"""Of the dear ops those that vectors of 512 bits make faster than memory takes their results."""


def past_the_cache(emit: Emitter, result: Value, make: Callable[[str], None],
                   least: int = _LARGE) -> None:
    """`make(note)` twice, of which one is run: `note` ends the stores of whole lines, each aligned as a
    line, that go past the cache; it is empty where none do: in results of less than `least` bytes."""
    total: Index = result.dtype.itemsize
    for d in range(len(result.shape)):
        total = emit.imul(total, emit.extent(result, d))
    past = emit.all([_begins_line(emit, emit.pointers[result]), emit.icompare("sge", total, least)])
    yes, no, done = (emit.fresh(p) for p in ("past", "through", "stored"))
    emit.do(f"br i1 {past}, label %{yes}, label %{no}")
    emit.block(yes)
    with emit.scope():
        make(_note(emit))
    finish_streams(emit)
    emit.do(f"br label %{done}")
    emit.block(no)
    with emit.scope():
        make("")
    emit.do(f"br label %{done}")
    emit.block(done)


def finish_streams(emit: Emitter) -> None:
    """Another thread may be told that these stores are done: they are not ordered otherwise."""
    emit.do("fence seq_cst")


def _note(emit: Emitter) -> str:
    """What makes a store one that goes past the cache."""
    number = len(emit.metadata)
    emit.metadata.append(f"!{number} = !{{i32 1}}")
    return f", !nontemporal !{number}"


def _begins_line(emit: Emitter, pointer: str) -> str:
    begin = emit.inst(f"ptrtoint ptr {pointer} to i64")
    return emit.icompare("eq", emit.inst(f"and i64 {begin}, {LINE - 1}"), 0)


def inner_loop(emit: Emitter, outputs: Sequence[tuple[Value, str]], ops: Sequence[Op]
               ) -> Callable[[tuple[Index, ...], Index, Index], None] | None:
    """What emits the loop over the last dim of large results of `ops`, given the index of the others
    and where it begins and ends; None where it is as any other loop."""
    target, shape = emit.target, outputs[0][0].shape
    values = [*emit.pointers, *(v for v, _ in outputs)]
    if not (target.triple.startswith("x86_64") and target.tile.bits >= 256) or any(
            v.dtype.kind == "complex" for v in values):
        return None
    # As many as LLVM takes at once: the inner loop becomes instructions.
    lanes = target.tile.bits // 8 // max(
        v.dtype.itemsize for v in (*values, *(r for op in ops for r in op.results)))
    skips = any(op.name == "stablehlo.slice" and op.attributes["strides"][-1:] != (1,) for op in ops)
    if is_streamed(emit, outputs, ops):
        count = max(lanes, LINE // min(v.dtype.itemsize for v, _ in outputs))
        return functools.partial(_stream, emit, outputs, _MANY * count if skips else count)
    far = sum(v.type.nbytes for v in values if isinstance(v.type.nbytes, int)) >= _FAR
    if far and not skips and (len(shape) == 1 or (len(shape) > 1 and isinstance(shape[-1], int) and (
            shape[-1] >= _SHORTEST and shape[-1] % lanes == 0))):
        return functools.partial(_ahead, emit, outputs, lanes)
    return None


def is_streamed(emit: Emitter, outputs: Sequence[tuple[Value, str]], ops: Sequence[Op]) -> bool:
    """Are the results large, in rows that are worth it, and cheap to compute?"""
    dear = [op for op in ops if op.name.rpartition(".")[2] in DEAR]
    if len(outputs) > _MOST or (dear and (len(dear) > 1 or emit.target.tile.bits < 512
                                         or dear[0].name.rpartition(".")[2] not in _CHEAP)):
        return False
    shape = outputs[0][0].shape
    rows = len(shape) == 1 or (len(shape) > 1 and isinstance(shape[-1], int) and shape[-1] >= _SHORTEST)
    # LLVM forgets of vectors of halves that they should go past the cache.
    return rows and all(isinstance(v.type.nbytes, int) and v.type.nbytes >= emit.target.bytes_uncached
                        and v.dtype is not F16 for v, _ in outputs)


def _ahead(emit: Emitter, outputs: Sequence[tuple[Value, str]], lanes: int, index: tuple[Index, ...],
           low: Index, high: Index) -> None:
    """The loop over elements that reads operands ahead."""
    pointers = _rows(emit, outputs, index)
    whole = emit.iadd(low, emit.imul(emit.idiv(emit.isub(high, low), lanes), lanes))
    with emit.loop(low, whole, lanes) as start, emit.scope():
        _vector(emit, outputs, lanes, index, start, pointers, start)
    with emit.loop(whole, high, short=True) as i, emit.scope():
        _elements(emit, outputs, (*index, i), pointers, i)


def _stream(emit: Emitter, outputs: Sequence[tuple[Value, str]], count: int, index: tuple[Index, ...],
            low: Index, high: Index) -> None:
    """The loop over elements, `count` of them at a time, that stores results past the cache, if it
    may. Buffers of a few vectors become registers."""
    pointers = _rows(emit, outputs, index)
    whole = emit.iadd(low, emit.imul(emit.idiv(emit.isub(high, low), count), count))
    middle = emit.inst(f"select i1 {_allowed(emit, outputs, pointers, low)}, i64 {whole}, i64 {low}")
    buffers = []
    for value, _ in outputs:
        buffers.append(f"%{emit.fresh('buffer')}")
        emit.entry.append(f"  {buffers[-1]} = alloca [{count} x {value.dtype.storage}], align {LINE}")
    note = _note(emit)
    with emit.loop(low, middle, count) as start, emit.scope():
        _vector(emit, outputs, count, index, start, buffers, 0)
        for (value, _), pointer, buffer in zip(outputs, pointers, buffers, strict=True):
            size = min(LINE, count * value.dtype.itemsize)
            into = emit.inst(f"getelementptr {value.dtype.storage}, ptr {pointer}, i64 {start}")
            for offset in range(0, count * value.dtype.itemsize, size):
                here, there = (emit.inst(f"getelementptr i8, ptr {p}, i64 {offset}")
                               for p in (buffer, into))
                x = emit.inst(f"load <{size} x i8>, ptr {here}, align {size}")
                emit.do(f"store <{size} x i8> {x}, ptr {there}, align {size}{note}")
    with emit.loop(middle, high, independent=True) as i, emit.scope():
        _elements(emit, outputs, (*index, i), pointers, i)


def _rows(emit: Emitter, outputs: Sequence[tuple[Value, str]], index: tuple[Index, ...]) -> list[str]:
    """Where the rows of the results begin."""
    row = emit.linear(outputs[0][0], (*index, 0))
    return [emit.inst(f"getelementptr {v.dtype.storage}, ptr {p}, i64 {row}") for v, p in outputs]


def _vector(emit: Emitter, outputs: Sequence[tuple[Value, str]], count: int, index: tuple[Index, ...],
            start: Index, targets: Sequence[str], first: Index) -> None:
    """So many elements of the results from `start` on, at the places of their targets from `first` on;
    what will be read later is read ahead."""
    with emit.loop(0, count, independent=True) as i, emit.scope():
        place = (*index, emit.iadd(start, i))
        _elements(emit, outputs, place, targets, emit.iadd(first, i))
        read = [v for v in emit.pointers if emit.knows(v, place)]
    emit.declare("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
    for value in read:
        pointer = emit.pointer(value, (*index, start))
        for line in range(_AHEAD, _AHEAD + count * value.dtype.itemsize, LINE):
            ahead = emit.inst(f"getelementptr i8, ptr {pointer}, i64 {line}")
            emit.do(f"call void @llvm.prefetch.p0(ptr {ahead}, i32 0, i32 3, i32 1)")


def _elements(emit: Emitter, outputs: Sequence[tuple[Value, str]], index: tuple[Index, ...],
              targets: Sequence[str], place: Index) -> None:
    """Elements of the results, each at a place of its target."""
    registers = [emit.at(value, index) for value, _ in outputs]
    for (value, _), target, register in zip(outputs, targets, registers, strict=True):
        pointer = emit.inst(f"getelementptr {value.dtype.storage}, ptr {target}, i64 {place}")
        emit.store_to(pointer, value.dtype, register)


def _allowed(emit: Emitter, outputs: Sequence[tuple[Value, str]], pointers: Sequence[str],
             low: Index) -> str:
    """Does the loop begin with a line of each result, and is none of them an operand?"""
    conditions = []
    for (value, whole), pointer in zip(outputs, pointers, strict=True):
        first = emit.inst(f"getelementptr {value.dtype.storage}, ptr {pointer}, i64 {low}")
        conditions.append(_begins_line(emit, first))
        place = emit.inst(f"ptrtoint ptr {whole} to i64")
        for operand in dict.fromkeys(emit.pointers.values()):
            other = emit.inst(f"ptrtoint ptr {operand} to i64")
            conditions.append(emit.icompare("ne", place, other))
    return emit.all(conditions)
