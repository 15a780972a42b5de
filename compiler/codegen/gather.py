"""Gathers: runs of neighbouring elements copied from where the data says.

An index is looked at once for its run. What a later index names is asked for ahead: no hardware
foresees it. Elements that lie alone are loaded one after the other, which is faster than a vector of
them on many processors.

Where many elements are picked from each short row of an operand, the next row is asked for as a whole,
and the loop is LLVM's to vectorise, with what makes the indices inside (`picks`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..ir.core import Block, Op
from ..ops.indexing import gather_place
from .emitter import Emitter
from .stream import past_the_cache
from .target import LINE
from .text import Index
from .work import Work, element_cost

_AHEAD, _FEWEST, _MOST = 1 << 12, 8, 64
"""Bytes of runs that are asked for ahead, the fewest and the most runs."""
_LINES = 16
_UNROLLED = 16
_NEAR = 1 << 15
"""Bytes of an operand that are in the cache anyway."""


def gathering(block: Block) -> Op | None:
    """The gather of a kernel that does nothing but gather from a buffer at the places in another."""
    if len(block.ops) != 1:
        return None
    (op,) = block.ops
    if op.name != "stablehlo.gather" or any(v not in block.arguments for v in op.operands):
        return None
    return op if _first(op) > 0 else None


def _first(op: Op) -> int:
    """The dim of the result from which on its elements are neighbours in the operand, too."""
    n, sizes = op.attributes["dimension_numbers"], op.attributes["slice_sizes"]
    shape = op.operands[0].shape
    first = len(op.result.shape)
    for d in range(len(shape) - 1, -1, -1):
        if first - 1 not in n.offset_dims or d in (*n.collapsed_slice_dims, *n.operand_batching_dims):
            break
        first -= 1
        if sizes[d] != shape[d]:
            break
    return first


def picks(op: Op) -> bool:
    """Does a gather pick elements from the row of the operand that has the number of its own row, so
    many that all of that is read, which the cache holds?"""
    if op.name != "stablehlo.gather":
        return False
    n, (x, indices), shape = op.attributes["dimension_numbers"], op.operands, op.result.shape
    rows = tuple(range(len(shape) - 1))
    length, count = (s[-1] if s else 1 for s in (x.shape, shape))
    return (n.operand_batching_dims == n.start_indices_batching_dims == rows
            and n.start_index_map == n.collapsed_slice_dims == (len(rows),)
            and n.index_vector_dim == len(indices.shape) == len(shape) == len(x.shape) > 1
            and isinstance(length, int) and isinstance(count, int)
            and length * x.dtype.itemsize <= min(_NEAR, LINE * count))


def picking(block: Block) -> Op | None:
    """The gather that `picks`, of a kernel that does nothing else than make its indices."""
    op = block.returns[0].op if len(block.returns) == 1 else None
    if op is None or not picks(op) or op.operands[0] not in block.arguments:
        return None
    return op


def pick(emit: Emitter, op: Op, pointer: str, ops: Sequence[Op]) -> None:
    """Store what `op`, which is a kernel's `picking`, reads; `ops`: all of the kernel."""
    (x, _), result = op.operands, op.result
    rows, count, length = len(result.shape) - 1, result.shape[-1], x.shape[-1]
    assert isinstance(count, int) and isinstance(length, int)
    lanes = emit.target.tile.bits // 8 // max(v.dtype.itemsize for o in ops for v in o.results)
    whole, lines = count // lanes * lanes, -(-length * x.dtype.itemsize // LINE)
    share = -(-lines * lanes // max(whole, 1))
    emit.declare("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")

    def element(i: Index) -> None:
        register = emit.at(result, (*index, i))
        place = emit.inst(f"getelementptr {result.dtype.storage}, ptr {pointer},"
                          f" i64 {emit.linear(result, (*index, i))}")
        emit.store_to(place, result.dtype, register)

    cost = element_cost(ops, result)
    with (emit.phase(Work(tuple(result.shape[:rows]), cost=(cost, count))),
          emit.loop("%first", "%last") as task, emit.scope()):
        index = emit.split(task, result, rows)
        following = emit.pointer(x, (*index, length))
        with emit.loop(0, whole, lanes) as start, emit.scope():
            with emit.loop(0, lanes, independent=True) as i, emit.scope():
                element(emit.iadd(start, i))
            line = emit.imul(emit.idiv(start, lanes), share * LINE)
            for k in range(share):
                ahead = emit.inst(
                    f"getelementptr i8, ptr {following}, i64 {emit.iadd(line, k * LINE)}")
                emit.do(f"call void @llvm.prefetch.p0(ptr {ahead}, i32 0, i32 3, i32 1)")
        with emit.loop(whole, count, short=True) as i, emit.scope():
            element(i)


def gather(emit: Emitter, op: Op, pointer: str) -> None:
    """Store what `op`, which is a kernel's `gathering`, reads."""
    result, first = op.result, _first(op)
    emit.pointers[result] = pointer
    # Nothing is left to LLVM's passes, which would make calls of copies.
    emit.finished = True
    run = math.prod(e for e in result.shape[first:] if isinstance(e, int))
    # Tasks are single runs, where those are long enough to find out which one it is.
    outer = first if run * result.dtype.itemsize >= LINE else 1

    def tasks(past: str = "") -> None:
        with emit.loop("%first", "%last") as task, emit.scope():
            _nest(emit, op, emit.split(task, result, outer), first, run, past)

    with emit.phase(Work(tuple(result.shape[:outer]), cost=(100, *result.shape[outer:]))):
        if run * result.dtype.itemsize % LINE:
            tasks()
        else:
            past_the_cache(emit, result, tasks)


def _nest(emit: Emitter, op: Op, index: list[Index], first: int, run: int, past: str) -> None:
    result = op.result
    if len(index) < first:
        with emit.loop(0, emit.extent(result, len(index))) as i, emit.scope():
            _nest(emit, op, [*index, i], first, run, past)
        return
    rest: list[Index] = [0] * (len(result.shape) - first)
    _fetch(emit, op, index, rest, run)
    source = emit.pointer(op.operands[0], gather_place(emit, op, [*index, *rest]))
    target = emit.pointer(result, [*index, *rest])
    length: Index = 1
    for d in range(first, len(result.shape)):
        length = emit.imul(length, emit.extent(result, d))
    _copy(emit, result.dtype.itemsize, source, target, length, past)


def _copy(emit: Emitter, size: int, source: str, target: str, length: Index, past: str) -> None:
    """Copy `length` elements of `size` bytes, the lowest first: LLVM's own copy of a few lines stores
    them in another order, which takes twice as long."""
    word, lanes = f"i{8 * size}", max(LINE // size, 1)
    vector = f"<{lanes} x {word}>"

    def move(i: Index, kind: str, note: str = "") -> None:
        places = [p if i == 0 else emit.inst(f"getelementptr {word}, ptr {p}, i64 {i}")
                  for p in (source, target)]
        element = emit.inst(f"load {kind}, ptr {places[0]}, align {min(size, 8)}")
        align = LINE if note else min(size, 8)
        emit.do(f"store {kind} {element}, ptr {places[1]}, align {align}{note}")

    whole = emit.imul(emit.idiv(length, lanes), lanes)
    if isinstance(whole, int) and whole <= _UNROLLED * lanes:
        for start in range(0, whole, lanes):
            move(start, vector, past)
    else:
        with emit.loop(0, whole, lanes) as i, emit.scope():
            move(i, vector, past)
    if isinstance(length, int) and length - (whole if isinstance(whole, int) else 0) == 1:
        move(whole, word)
    elif whole != length:
        with emit.loop(whole, length) as i, emit.scope():
            move(i, word)


def _fetch(emit: Emitter, op: Op, index: list[Index], rest: list[Index], run: int) -> None:
    """Ask for what a later index names."""
    x, nbytes = op.operands[0], max(run, 1) * op.result.dtype.itemsize
    size = x.type.nbytes
    if isinstance(size, int) and size <= _NEAR:
        return
    emit.declare("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
    last = emit.isub(emit.extent(op.result, len(index) - 1), 1)
    later = emit.imin(emit.iadd(index[-1], min(max(_AHEAD // nbytes, _FEWEST), _MOST)), last)
    place = emit.pointer(x, gather_place(emit, op, [*index[:-1], later, *rest]))
    for offset in range(0, min(nbytes, _LINES * LINE), LINE):
        line = emit.inst(f"getelementptr i8, ptr {place}, i64 {offset}")
        emit.do(f"call void @llvm.prefetch.p0(ptr {line}, i32 0, i32 3, i32 1)")
