"""The sort kernel: a radix sort of keys with their positions, then one gather per operand.

Comparators that are no order of keys (`order.py`), and short lines, go to `merge.py`. Lines of known
length are tasks.
"""

from __future__ import annotations

from collections.abc import Callable

from ..ir.core import Op, Value
from .emitter import Emitter
from .merge import merge_sort
from .order import Order
from .radix import Radix
from .text import Index
from .work import Work

_SHORTEST = 32
"""Counting bytes costs more than comparing fewer elements."""
_PICOSECONDS = 10_000


def sort(emit: Emitter, op: Op) -> None:
    """Sort every line along the dimension of `op`; equal elements keep their order."""
    order, lines = Order.of(op), Lines(emit, op)
    if order is None or lines.length_is_below(_SHORTEST):
        merge_sort(emit, op)
        return

    def line(at: Callable[[Index], list[Index]], memory: str) -> None:
        length = lines.length
        size = emit.imul(length, order.word_bytes)
        other = emit.inst(f"getelementptr i8, ptr {memory}, i64 {size}")
        counts = emit.inst(f"getelementptr i8, ptr {other}, i64 {size}")
        radix = Radix(emit, order, memory, other, counts)
        with emit.loop(0, length) as i, emit.scope():
            key = order.key(emit, emit.at(op.operands[order.operand], at(i)))
            radix.put(memory, i, order.packed(emit, key, i))
        store(emit, op, order, radix, radix.sort(length), at, length)

    lines.emit_phase(lambda n: 2 * order.word_bytes * n + Radix.counts_bytes(order), line)


def store(emit: Emitter, op: Op, order: Order, radix: Radix, words: str,
          at: Callable[[Index], list[Index]], count: Index) -> None:
    """The elements that the first `count` words stand for, to the results."""
    wanted = [(x, r) for x, r in zip(op.operands, op.results, strict=True) if r in emit.pointers]
    with emit.loop(0, count) as i, emit.scope():
        position = order.position(emit, radix.get(words, i))
        for x, result in wanted:
            emit.store_to(emit.pointer(result, at(i)), result.dtype, emit.at(x, at(position)))


class Lines:
    """The lines of a sort, and the memory to sort one in."""

    def __init__(self, emit: Emitter, op: Op):
        self.emit = emit
        self.x: Value = op.operands[0]
        self.axis = op.attributes.get("dimension", -1) % len(self.x.shape)
        self.length = emit.extent(self.x, self.axis)

    def length_is_below(self, count: int) -> bool:
        return isinstance(self.length, int) and self.length < count

    def emit_phase(self, memory, line) -> None:
        """A phase of `line(place of element, memory)` for each; a line of n elements needs `memory(n)`
        bytes."""
        emit, x, axis = self.emit, self.x, self.axis
        others = [d for d in range(len(x.shape)) if d != axis]
        work = Work()
        known = isinstance(self.length, int) and bool(others)
        if known:
            work = Work(tuple(x.shape[d] for d in others), cost=(_PICOSECONDS, x.shape[axis]))
        with emit.phase(work):
            place = (emit.workspace(memory(self.length)) if known
                     else emit.scratch(memory(x.shape[axis])))
            total: Index = 1
            for d in others:
                total = emit.imul(total, emit.extent(x, d))
            low, high = ("%first", "%last") if known else (0, total)
            with emit.loop(low, high) as task, emit.scope():
                rest: Index = task
                place_of: dict[int, Index] = {}
                for d in reversed(others):
                    place_of[d] = emit.irem(rest, emit.extent(x, d))
                    rest = emit.idiv(rest, emit.extent(x, d))
                line(lambda i: [i if d == axis else place_of[d] for d in range(len(x.shape))], place)
