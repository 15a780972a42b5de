"""Merging: kernels that read the same numbers, or each other's, become one where one nest of loops can
hold them.

`fuse` computes nothing twice, so it stops at a value that several kernels read. Here kernels join if
they pass over the same rows (softmax, layer normalisation: `codegen/rows.py`) or add up rows of one
shape (`codegen/accumulate.py`): what they share is read once, and what only they read is never stored.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import Any

from ..codegen.accumulate import accumulates
from ..codegen.rows import is_elementwise, rows_of
from ..ir.core import Block, Function, Op, Value, free_values
from ..ir.dims import Extent
from ..ir.rewrite import Rewriter, clone_op
from ..ops.declare import definition
from .cse import distinct
from .fuse import MAX_OPS, SINGLE, is_alias, is_free

_SHORTEST = 32
"""Elements of a row that vectors are worth while for."""
_LONGEST = 1 << 16
"""Elements of a row that stays in the cache from pass to pass."""
_STREAMS = 12
"""Buffers a kernel may have: more than what the processor fetches ahead at once."""
_WINDOWED = frozenset({"stablehlo.dynamic_update_slice", "stablehlo.reduce_window",
                       "stablehlo.gather", "stablehlo.concatenate", "stablehlo.transpose"})
"""Ops that kernels of their own are made for, or whose loops should be theirs."""


class _Unit:
    """What is executed at once: merged kernels, or another op."""

    def __init__(self, position: int, op: Op):
        self.ops = [(position, op)]
        self.sources: set[_Unit] = set()
        self.mask = 1 << position
        self.before = 0
        """The positions of all ops it waits for."""
        self.mergeable = op.name == "tfn.kernel" and not any(
            o.name in SINGLE or o.name in _WINDOWED for o in op.regions[0].ops)

    @property
    def size(self) -> int:
        return sum(len(op.regions[0].ops) for _, op in self.ops)


def merge(function: Function, target=None) -> Function:
    """`function` with kernels joined where that saves memory traffic."""
    if sum(op.name == "tfn.kernel" for op in function.ops) < 2:
        return function
    units = _Units(function)
    seeds = [u for u in units.all if u.mergeable]
    for unit in seeds:
        if unit in units.all and _reduces(unit):
            units.grow(unit)
    return units.build() if units.merged else function


def _reduces(unit: _Unit) -> bool:
    return any(o.name == "stablehlo.reduce" for _, op in unit.ops for o in op.regions[0].ops)


class _Units:
    """The units of a function and what they wait for."""

    def __init__(self, function: Function):
        self.function = function
        self.returned = set(function.returns)
        self.readers: dict[Value, list[Op]] = {}
        self.home: dict[Op, _Unit] = {}
        self.all: dict[_Unit, None] = {}
        self.merged = False
        last: _Unit | None = None
        for position, op in enumerate(function.ops):
            unit = self.home[op] = _Unit(position, op)
            self.all[unit] = None
            for value in _read(op):
                self.readers.setdefault(value, []).append(op)
                if value.op in self.home:
                    unit.sources.add(self.home[value.op])
            # What acts outside of the program does so in order.
            if op.name != "tfn.kernel" and not is_alias(op) and op.name != "stablehlo.constant":
                if last is not None:
                    unit.sources.add(last)
                last = unit
            self._waits(unit)

    def _waits(self, unit: _Unit) -> None:
        for source in unit.sources:
            unit.before |= source.before | source.mask

    def grow(self, unit: _Unit) -> None:
        """Merge `unit` with its neighbours, and theirs, as long as it can be."""
        refused: set[_Unit] = set()
        while True:
            found = next((other for other in self.neighbours(unit)
                          if other not in refused and not self._joined(unit, other, refused)), None)
            if found is None:
                return
            self.join(unit, found)
            refused.clear()

    def _joined(self, unit: _Unit, other: _Unit, refused: set[_Unit]) -> bool:
        """Remember `other` when it cannot join."""
        if self.fits(unit, other):
            return False
        refused.add(other)
        return True

    def neighbours(self, unit: _Unit) -> Iterable[_Unit]:
        """Kernels that make what `unit` reads, read what it makes, or read the same as it."""
        found: dict[_Unit, None] = {}
        for _, op in unit.ops:
            for value in op.operands:
                if value.op in self.home:
                    found[self.home[value.op]] = None
            for value in (*op.results, *(v for v in op.operands if v.shape)):
                for reader in self.readers.get(value, ()):
                    found[self.home[reader]] = None
        found.pop(unit, None)
        return [other for other in found if other.mergeable]

    def fits(self, unit: _Unit, other: _Unit) -> bool:
        """Is there one kernel for both, and no way from one through others to the other?"""
        both = unit.mask | other.mask
        if unit.size + other.size > MAX_OPS or any(
                source.before & both for source in (unit.sources | other.sources) - {unit, other}):
            return False
        if not _alike(unit, other):
            return False
        ops = sorted((*unit.ops, *other.ops), key=lambda pair: pair[0])
        block, operands, results = self.combined([op for _, op in ops])
        return len(operands) + len(results) <= _STREAMS and _is_one_kernel(block)

    def join(self, unit: _Unit, other: _Unit) -> None:
        """Let `unit` do what `other` does."""
        self.merged = True
        unit.ops = sorted((*unit.ops, *other.ops), key=lambda pair: pair[0])
        unit.mask |= other.mask
        unit.sources = (unit.sources | other.sources) - {unit, other}
        unit.before = 0
        self._waits(unit)
        for _, op in other.ops:
            self.home[op] = unit
        del self.all[other]
        for later in self.all:
            if later.before & unit.mask:
                later.before |= unit.before | unit.mask
            if other in later.sources:
                later.sources.remove(other)
                later.sources.add(unit)

    def combined(self, ops: list[Op]) -> tuple[Block, list[Value], list[Value]]:
        """The body of a kernel that does what `ops` do, its operands, and what it makes."""
        block = Block()
        values: dict[Value, Value] = {}
        seen: dict[Any, Op] = {}
        operands: list[Value] = []
        for op in ops:
            inside: dict[Value, Value] = {}
            for argument, operand in zip(op.regions[0].arguments, op.operands, strict=True):
                if operand not in values:
                    operands.append(operand)
                    values[operand] = block.add_argument(operand.type)
                inside[argument] = values[operand]
            for o in op.regions[0].ops:
                new = clone_op(o, inside)
                known = distinct(new, seen)
                if known is new:
                    block.ops.append(new)
                inside.update(zip(o.results, known.results, strict=True))
            values.update(zip(op.results, (inside[v] for v in op.regions[0].returns), strict=True))
        chosen = set(ops)
        results = [r for op in ops for r in op.results if r in self.returned
                   or any(reader not in chosen for reader in self.readers.get(r, ()))]
        block.returns = [values[r] for r in results]
        return block, operands, results

    def build(self) -> Function:
        """The function, in an order that keeps to the old one."""
        rewriter = Rewriter(self.function)
        waiting = {unit: len(unit.sources) for unit in self.all}
        readers: dict[_Unit, list[_Unit]] = {}
        for unit in self.all:
            for source in unit.sources:
                readers.setdefault(source, []).append(unit)
        ready = [(unit.ops[0][0], unit) for unit, count in waiting.items() if not count]
        heapq.heapify(ready)
        while ready:
            _, unit = heapq.heappop(ready)
            self._append(unit, rewriter)
            for reader in readers.get(unit, ()):
                waiting[reader] -= 1
                if not waiting[reader]:
                    heapq.heappush(ready, (reader.ops[0][0], reader))
        return rewriter.finish()

    def _append(self, unit: _Unit, rewriter: Rewriter) -> None:
        if len(unit.ops) == 1:
            rewriter.copy(unit.ops[0][1])
            return
        ops = [op for _, op in unit.ops]
        body, operands, results = self.combined(ops)
        new = rewriter.append(definition("tfn.kernel"), [rewriter[v] for v in operands],
                              [r.type for r in results], {}, [body], ops[-1].location)
        rewriter.values.update(zip(results, new.results, strict=True))


def _read(op: Op) -> list[Value]:
    return [*op.operands, *(v for region in op.regions for v in free_values(region))]


def _alike(unit: _Unit, other: _Unit) -> bool:
    """Could they share loops? A look at the shapes, before anything is built."""
    return not _shapes(unit).isdisjoint(_shapes(other))


def _shapes(unit: _Unit) -> set[tuple[Extent, ...]]:
    """The shapes that loops of `unit` go over."""
    found: set[tuple[Extent, ...]] = set()
    for _, op in unit.ops:
        found.update(tuple(r.shape) for r in op.results if r.shape)
        found.update(tuple(o.operands[0].shape) for o in op.regions[0].ops
                     if o.name == "stablehlo.reduce")
    return found


def _is_one_kernel(block: Block) -> bool:
    """Is there one nest of loops for all of it?"""
    if len(set(block.returns)) < len(block.returns) or any(
            v in block.arguments for v in block.returns):
        return False
    computed = [op for op in block.ops if not is_free(op)]
    reductions = [op for op in computed if op.name == "stablehlo.reduce"]
    rest = [op for op in computed if op.name != "stablehlo.reduce"]
    if not all(is_elementwise(op) for op in rest):
        return False
    shapes = {tuple(op.result.shape) for op in rest}
    if not reductions:
        # A forward pass would make, and keep, what only the backward pass reads.
        return False
    whole = tuple(reductions[0].operands[0].shape)
    rows = rows_of(block)
    if rows is not None:
        # Anything smaller would be computed again for each row.
        return shapes <= {whole, whole[:rows.kept]} and (
            not isinstance(rows.length, int) or _SHORTEST <= rows.length <= _LONGEST)
    # Only sums: loops over few columns store slower than one over all elements.
    made = {r for op in reductions for r in op.results}
    return (shapes <= {whole} and made == set(block.returns) and accumulates(block.returns)
            and all(made.isdisjoint(op.operands) for op in block.ops))
