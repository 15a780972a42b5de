"""The first elements of a sorted line, top-k: found without sorting the line.

Elements before the last of the best so far are collected; when there are enough, they are sorted and
all but the best forgotten. Few are before it soon, and blocks without any are passed by in vectors.
"""

from __future__ import annotations

from collections.abc import Callable

from ..ir.core import Op
from .emitter import Emitter
from .order import Order
from .radix import Radix
from .scatter import when
from .sort import Lines, store
from .text import Index

_BLOCK = 128
"""Elements that are looked at together."""
_ROOM = 512


def first_sorted(emit: Emitter, op: Op) -> None:
    """The first `count` elements of every line in sorted order; equal elements keep their order."""
    order = Order.of(op)
    assert order is not None, "made for orders only"
    count = op.attributes["count"]
    room = 2 * count + _ROOM
    words = room * order.word_bytes

    def line(at: Callable[[Index], list[Index]], memory: str) -> None:
        other, counts = (emit.inst(f"getelementptr i8, ptr {memory}, i64 {offset}")
                         for offset in (words, 2 * words))
        radix = Radix(emit, order, memory, other, counts)
        _Selection(emit, op, order, radix, at, lines.length, room).run()

    lines = Lines(emit, op)
    lines.emit_phase(lambda n: 2 * words + Radix.counts_bytes(order), line)


class _Selection:
    """One line."""

    def __init__(self, emit: Emitter, op: Op, order: Order, radix: Radix, at, length: Index, room: int):
        self.emit, self.op, self.order, self.radix, self.at = emit, op, order, radix, at
        self.length, self.room, self.count = length, room, op.attributes["count"]
        self.kind = f"i{order.bits}"
        self.next, self.held = emit.cell("i64"), emit.cell("i64")
        self.last, self.full = emit.cell(self.kind), emit.cell("i8")

    def run(self) -> None:
        emit = self.emit
        for cell, value in ((self.next, "i64 0"), (self.held, "i64 0"), (self.last, f"{self.kind} 0"),
                            (self.full, "i8 0")):
            emit.do(f"store {value}, ptr {cell}")
        with emit.repeat(lambda: emit.icompare("slt", self._load(self.next), self.length)):
            with emit.repeat(self._may_go_on):
                self._block()
            self._sort()
        store(emit, self.op, self.order, self.radix, self.radix.memory, self.at, self.count)

    def _load(self, cell: str, kind: str = "i64") -> str:
        return self.emit.inst(f"load {kind}, ptr {cell}")

    def _may_go_on(self) -> str:
        emit = self.emit
        return emit.all([emit.icompare("slt", self._load(self.next), self.length),
                         emit.icompare("sle", self._load(self.held), self.room - _BLOCK)])

    def _key(self, i: Index) -> str:
        order = self.order
        return order.key(self.emit, self.emit.at(self.op.operands[order.operand], self.at(i)))

    def _block(self) -> None:
        emit = self.emit
        low = self._load(self.next)
        high = emit.imin(emit.iadd(low, _BLOCK), self.length)
        last = self._load(self.last, self.kind)
        open_ = emit.inst(f"icmp eq i8 {self._load(self.full, 'i8')}, 0")

        def is_before(key: str) -> str:
            return emit.inst(f"or i1 {open_}, {emit.inst(f'icmp ult {self.kind} {key}, {last}')}")

        any_ = emit.cell("i32")
        emit.do(f"store i32 0, ptr {any_}")
        with emit.loop(low, high) as i, emit.scope():
            found = emit.inst(f"zext i1 {is_before(self._key(i))} to i32")
            old = self._load(any_, "i32")
            emit.do(f"store i32 {emit.inst(f'or i32 {old}, {found}')}, ptr {any_}")

        def collect() -> None:
            with emit.loop(low, high) as i, emit.scope():
                key = self._key(i)
                # Written always, kept if it is one: there is room for a block.
                held = self._load(self.held)
                self.radix.put(self.radix.memory, held, self.order.packed(emit, key, i))
                more = emit.inst(f"zext i1 {is_before(key)} to i64")
                emit.do(f"store i64 {emit.iadd(held, more)}, ptr {self.held}")

        when(emit, [emit.inst(f"icmp ne i32 {self._load(any_, 'i32')}, 0")], collect)
        emit.do(f"store i64 {high}, ptr {self.next}")

    def _sort(self) -> None:
        """Sort what is held, and keep the best."""
        emit, order = self.emit, self.order
        held = self._load(self.held)
        words = self.radix.sort(held)
        kept = emit.imin(held, self.count)
        with emit.loop(0, kept) as i, emit.scope():
            self.radix.put(self.radix.memory, i, self.radix.get(words, i))
        word = self.radix.get(self.radix.memory, emit.isub(kept, 1))
        key = emit.inst(f"lshr {order.word} {word}, 32")
        key = emit.inst(f"trunc {order.word} {key} to {self.kind}")
        emit.do(f"store {self.kind} {key}, ptr {self.last}")
        full = emit.inst(f"zext i1 {emit.icompare('eq', kept, self.count)} to i8")
        emit.do(f"store i8 {full}, ptr {self.full}")
        emit.do(f"store i64 {kept}, ptr {self.held}")
