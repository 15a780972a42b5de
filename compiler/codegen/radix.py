"""Words sorted by their bytes above the position, the least first: each pass keeps the order of those
before it. A byte that is the same in all words has no pass."""

from __future__ import annotations

from .emitter import Emitter
from .order import INDEX_BITS, Order
from .scatter import when
from .text import Index

_BUCKETS = 256


class Radix:
    """Sorts words of `order` between two arrays."""

    def __init__(self, emit: Emitter, order: Order, memory: str, other: str, counts: str):
        self.emit, self.order, self.memory, self.other, self.counts = emit, order, memory, other, counts
        self.source, self.target = emit.cell("ptr"), emit.cell("ptr")

    @staticmethod
    def counts_bytes(order: Order) -> int:
        """Bytes of the counts of all passes."""
        return _BUCKETS * 8 * (order.bits // 8)

    def slot(self, base: str, i: Index) -> str:
        return self.emit.inst(f"getelementptr inbounds {self.order.word}, ptr {base}, i64 {i}")

    def get(self, base: str, i: Index) -> str:
        return self.emit.inst(f"load {self.order.word}, ptr {self.slot(base, i)}, align 8")

    def put(self, base: str, i: Index, word: str) -> None:
        self.emit.do(f"store {self.order.word} {word}, ptr {self.slot(base, i)}, align 8")

    def _count(self, digit: Index, number: int) -> str:
        place = self.emit.iadd(digit, number * _BUCKETS)
        return self.emit.inst(f"getelementptr inbounds i64, ptr {self.counts}, i64 {place}")

    def _digit(self, word: str, number: int) -> str:
        emit, kind = self.emit, self.order.word
        byte = emit.inst(f"lshr {kind} {word}, {INDEX_BITS + 8 * number}")
        byte = emit.inst(f"trunc {kind} {byte} to i64") if kind != "i64" else byte
        return emit.inst(f"and i64 {byte}, {_BUCKETS - 1}")

    def sort(self, length: Index) -> str:
        """Sort the first `length` words of the memory; returns the array they are in then."""
        emit = self.emit
        digits = range(self.order.bits // 8)
        with emit.loop(0, len(digits) * _BUCKETS) as i:
            emit.do(f"store i64 0, ptr {self._count(i, 0)}, align 8")
        with emit.loop(0, length) as i, emit.scope():
            word = self.get(self.memory, i)
            for number in digits:
                count = self._count(self._digit(word, number), number)
                old = emit.inst(f"load i64, ptr {count}, align 8")
                emit.do(f"store i64 {emit.iadd(old, 1)}, ptr {count}, align 8")
        emit.do(f"store ptr {self.memory}, ptr {self.source}")
        emit.do(f"store ptr {self.other}, ptr {self.target}")
        for number in digits:
            first = self._digit(self.get(self.memory, 0), number)
            same = emit.inst(f"load i64, ptr {self._count(first, number)}, align 8")
            when(emit, [emit.icompare("ne", same, length)],
                 lambda number=number: self._pass(number, length))
        return emit.inst(f"load ptr, ptr {self.source}")

    def _pass(self, number: int, length: Index) -> None:
        emit = self.emit
        total = emit.cell("i64")
        emit.do(f"store i64 0, ptr {total}")
        with emit.loop(0, _BUCKETS) as i, emit.scope():
            count = self._count(i, number)
            before = emit.inst(f"load i64, ptr {total}")
            own = emit.inst(f"load i64, ptr {count}, align 8")
            emit.do(f"store i64 {before}, ptr {count}, align 8")
            emit.do(f"store i64 {emit.iadd(before, own)}, ptr {total}")
        old, new = (emit.inst(f"load ptr, ptr {c}") for c in (self.source, self.target))
        with emit.loop(0, length) as i, emit.scope():
            word = self.get(old, i)
            count = self._count(self._digit(word, number), number)
            place = emit.inst(f"load i64, ptr {count}, align 8")
            emit.do(f"store i64 {emit.iadd(place, 1)}, ptr {count}, align 8")
            self.put(new, place, word)
        emit.do(f"store ptr {new}, ptr {self.source}")
        emit.do(f"store ptr {old}, ptr {self.target}")
