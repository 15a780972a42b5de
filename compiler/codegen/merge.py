"""Sorting by any comparator: a stable bottom-up merge sort of indices, then one gather per operand.

Indices are sorted, not elements, so any number of operands and any comparator cost one comparison
per step. The two index arrays of a line live in scratch memory that the plan provides.
"""

from __future__ import annotations

from collections.abc import Callable

from ..ir.core import Op
from .emitter import Emitter
from .text import Index
from .work import Work

_INDEX_BYTES = 8


def merge_sort(emit: Emitter, op: Op) -> None:
    """Sort every line along the dimension of `op`; equal elements keep their order."""
    first = op.operands[0]
    rank = len(first.shape)
    axis = op.attributes.get("dimension", -1) % rank
    length = emit.extent(first, axis)
    memory = emit.scratch(2 * _INDEX_BYTES * first.shape[axis])

    def line(index: list[Index], d: int, other: str) -> None:
        if d == rank:
            _line(emit, op, index, axis, length, memory, other)
        elif d == axis:
            line([*index, 0], d + 1, other)
        else:
            with emit.loop(0, emit.extent(first, d)) as i, emit.scope():
                line([*index, i], d + 1, other)

    with emit.phase(Work()):
        line([], 0, emit.inst(f"getelementptr i64, ptr {memory}, i64 {length}"))


def _slot(emit: Emitter, base: str, i: Index) -> str:
    return emit.inst(f"getelementptr inbounds i64, ptr {base}, i64 {i}")


def _line(emit: Emitter, op: Op, index, axis: int, length: Index, memory: str, other: str) -> None:
    def place(i: Index) -> list[Index]:
        return [*index[:axis], i, *index[axis + 1:]]

    def precedes(i: str, j: str) -> str:
        """Does element i come strictly before element j?"""
        registers = [emit.at(x, place(k)) for x in op.operands for k in (i, j)]
        return emit.region(op.regions[0], registers)[0]

    with emit.loop(0, length) as i:
        emit.do(f"store i64 {i}, ptr {_slot(emit, memory, i)}")
    source, target, width = (emit.cell(t) for t in ("ptr", "ptr", "i64"))
    for value, kind, cell in ((memory, "ptr", source), (other, "ptr", target), (1, "i64", width)):
        emit.do(f"store {kind} {value}, ptr {cell}")
    with emit.repeat(lambda: emit.icompare("slt", emit.inst(f"load i64, ptr {width}"), length)):
        span = emit.inst(f"load i64, ptr {width}")
        old, new = (emit.inst(f"load ptr, ptr {c}") for c in (source, target))
        low = emit.cell("i64")
        emit.do(f"store i64 0, ptr {low}")
        with emit.repeat(lambda: emit.icompare("slt", emit.inst(f"load i64, ptr {low}"), length)):
            start = emit.inst(f"load i64, ptr {low}")
            middle = emit.imin(emit.iadd(start, span), length)
            end = emit.imin(emit.iadd(middle, span), length)
            _merge(emit, old, new, start, middle, end, precedes)
            emit.do(f"store i64 {end}, ptr {low}")
        emit.do(f"store ptr {new}, ptr {source}")
        emit.do(f"store ptr {old}, ptr {target}")
        emit.do(f"store i64 {emit.inst(f'shl i64 {span}, 1')}, ptr {width}")
    order = emit.inst(f"load ptr, ptr {source}")
    with emit.loop(0, length) as i, emit.scope():
        chosen = emit.inst(f"load i64, ptr {_slot(emit, order, i)}")
        for x, result in zip(op.operands, op.results, strict=True):
            if result in emit.pointers:
                emit.store_to(emit.pointer(result, place(i)), result.dtype,
                              emit.at(x, place(chosen)))


def _merge(emit: Emitter, old: str, new: str, start: Index, middle: Index, end: Index,
           precedes: Callable[[str, str], str]) -> None:
    """Merge old[start:middle] and old[middle:end] into new[start:end]."""
    left, right = emit.cell("i64"), emit.cell("i64")
    emit.do(f"store i64 {start}, ptr {left}")
    emit.do(f"store i64 {middle}, ptr {right}")
    with emit.loop(start, end) as k, emit.scope():
        i, j = (emit.inst(f"load i64, ptr {c}") for c in (left, right))
        from_right = emit.branch(
            emit.icompare("sge", i, middle), "i1", lambda: "true",
            lambda: emit.branch(
                emit.icompare("sge", j, end), "i1", lambda: "false",
                lambda: precedes(emit.inst(f"load i64, ptr {_slot(emit, old, j)}"),
                                 emit.inst(f"load i64, ptr {_slot(emit, old, i)}"))))
        at = emit.inst(f"select i1 {from_right}, i64 {j}, i64 {i}")
        value = emit.inst(f"load i64, ptr {_slot(emit, old, at)}")
        emit.do(f"store i64 {value}, ptr {_slot(emit, new, k)}")
        step = emit.inst(f"zext i1 {from_right} to i64")
        emit.do(f"store i64 {emit.iadd(j, step)}, ptr {right}")
        emit.do(f"store i64 {emit.isub(emit.iadd(i, 1), step)}, ptr {left}")
