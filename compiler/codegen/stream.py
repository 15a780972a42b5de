"""Results too large to wait in the cache for who reads them are stored past it, whole lines at a time.

Other stores read the line they write to first, which is a third of the traffic of a copy. Kernels that
move whole lines do it where the result is large (`past_the_cache`). A loop over elements makes blocks
of its results in a buffer that is then stored by lines (`stream`): x + y of 64 MB each takes three
quarters of the time. That is only for loops that memory limits, and not where a result is written over
an operand, whose lines are in the cache already (decided when the code runs).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..ir.core import Op, Value
from .emitter import Emitter
from .target import LINE
from .text import Index
from .work import DEAR

_LARGE = 8 << 20
"""Bytes from which whole lines go past the cache. Buffers pay later: `Target.bytes_uncached`."""
_BLOCK = 256
"""Elements: few enough that a processor reads on while it stores the last ones. With 4096 it does not,
and nothing is gained."""
_MOST = 2
"""Results of a kernel: each has a buffer."""


def past_the_cache(emit: Emitter, result: Value, make: Callable[[str], None]) -> None:
    """`make(note)` twice, of which one is run: `note` ends the stores of whole lines, each aligned as a
    line, that go past the cache; it is empty where none do."""
    total: Index = result.dtype.itemsize
    for d in range(len(result.shape)):
        total = emit.imul(total, emit.extent(result, d))
    past = emit.all([_begins_line(emit, emit.pointers[result]), emit.icompare("sge", total, _LARGE)])
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


def is_streamed(emit: Emitter, outputs: Sequence[tuple[Value, str]], ops: Sequence[Op]) -> bool:
    """Are the results large, of 32-bit words, in rows that are worth it, and cheap to compute?"""
    if not (len(outputs) <= _MOST and emit.target.triple.startswith("x86_64")
            and emit.target.tile.bits >= 256):
        return False
    if any(op.name.rpartition(".")[2] in DEAR for op in ops):
        return False
    shape = outputs[0][0].shape
    rows = len(shape) == 1 or (len(shape) > 1 and isinstance(shape[-1], int) and shape[-1] >= _BLOCK)
    return rows and all(isinstance(v.type.nbytes, int) and v.type.nbytes >= emit.target.bytes_uncached
                        and v.dtype.llvm in ("float", "i32") for v, _ in outputs)


def stream(emit: Emitter, outputs: Sequence[tuple[Value, str]], index: tuple[Index, ...], low: Index,
           high: Index) -> None:
    """The loop over the last dim of the results from `low` to `high`, at `index` of the others."""
    row = emit.linear(outputs[0][0], (*index, 0))
    pointers = [emit.inst(f"getelementptr float, ptr {p}, i64 {row}") for _, p in outputs]
    around = _allowed(emit, outputs, pointers, low)
    buffers = []
    for _ in outputs:
        buffers.append(f"%{emit.fresh('buffer')}")
        emit.entry.append(f"  {buffers[-1]} = alloca [{_BLOCK} x float], align {LINE}")
    with emit.loop(low, high, _BLOCK) as start, emit.scope():
        end = emit.imin(emit.iadd(start, _BLOCK), high)
        back = emit.isub(0, start)
        targets = []
        for pointer, buffer in zip(pointers, buffers, strict=True):
            before = emit.inst(f"getelementptr float, ptr {buffer}, i64 {back}")
            targets.append(emit.inst(f"select i1 {around}, ptr {before}, ptr {pointer}"))
        with emit.loop(start, end, independent=True) as i, emit.scope():
            registers = [emit.at(value, (*index, i)) for value, _ in outputs]
            for (value, _), target, register in zip(outputs, targets, registers, strict=True):
                place = emit.inst(f"getelementptr float, ptr {target}, i64 {i}")
                emit.store_to(place, value.dtype, register)
        size = emit.inst(f"select i1 {around}, i64 {emit.isub(end, start)}, i64 0")
        for pointer, buffer in zip(pointers, buffers, strict=True):
            into = emit.inst(f"getelementptr float, ptr {pointer}, i64 {start}")
            _store_lines(emit, buffer, into, size)


def _allowed(emit: Emitter, outputs: Sequence[tuple[Value, str]], pointers: Sequence[str],
             low: Index) -> str:
    """Does the loop begin with a line of each result, and is none of them an operand?"""
    conditions = []
    for (_, whole), pointer in zip(outputs, pointers, strict=True):
        first = emit.inst(f"getelementptr float, ptr {pointer}, i64 {low}")
        conditions.append(_begins_line(emit, first))
        place = emit.inst(f"ptrtoint ptr {whole} to i64")
        for operand in dict.fromkeys(emit.pointers.values()):
            other = emit.inst(f"ptrtoint ptr {operand} to i64")
            conditions.append(emit.icompare("ne", place, other))
    return emit.all(conditions)


def _store_lines(emit: Emitter, buffer: str, into: str, size: Index) -> None:
    """Copy words to a line of memory and those after it, not through the cache."""
    count = LINE // 4
    note = _note(emit)
    line = f"<{count} x float>"
    whole = emit.imul(emit.idiv(size, count), count)
    with emit.loop(0, whole, count) as i:
        source, place = (emit.inst(f"getelementptr float, ptr {p}, i64 {i}") for p in (buffer, into))
        x = emit.inst(f"load {line}, ptr {source}, align {LINE}")
        emit.do(f"store {line} {x}, ptr {place}, align {LINE}{note}")
    with emit.loop(whole, size) as i:
        source, place = (emit.inst(f"getelementptr float, ptr {p}, i64 {i}") for p in (buffer, into))
        x = emit.inst(f"load float, ptr {source}, align 4")
        emit.do(f"store float {x}, ptr {place}, align 4")
