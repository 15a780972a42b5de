"""Rematerialisation: less memory for more time.

While more is needed at once than a budget allows, one of the values that only wait then is made a
second time, just before it is read again. Only kernels without products, sums or orderings are run
twice: their time is that of reading memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ..ir.core import Block, Function, Op, Value, free_values
from ..ir.rewrite import Rewriter, clone_op
from .fuse import is_alias, is_free
from .recompute import contracts_alike, part


def rematerialise(function: Function, budget: int) -> Function:
    """`function` with values made anew until at most `budget` bytes are alive at once, or as near to
    that as it gets. Applies to scheduled functions; regions stay as they are."""
    program = _Program(function)
    # Each value is made anew at most once for each of its readers.
    for _ in range(8 * len(program.steps)):
        if not program.relieve(budget):
            break
    return program.rebuilt()


@dataclass(eq=False)
class _Step:
    """An op of the function, or a kernel run again."""

    op: Op
    reads: list[Value]
    """What it reads, as the memory it is in."""
    makes: list[Value]
    block: Block | None = None
    operands: list[Value] = field(default_factory=list)
    """Of a kernel: its region and the values it reads, which may be views."""


class _Program:
    """The steps in order. A view is made again by whoever reads it."""

    def __init__(self, function: Function):
        self.function = function
        self.views: dict[Value, Op] = {}
        self.steps: list[_Step] = []
        self.fixed: set[Value] = set()
        """Memory that stays to the end, or that is read in ways which cannot be redirected."""
        self.donated = {a for a, attributes in zip(
            function.arguments, function.argument_attributes, strict=True)
            if "tf.aliasing_output" in attributes}
        self.again: dict[Value, tuple[Block, list[Value]] | None] = {}
        for op in function.ops:
            outside = [v for r in op.regions for v in free_values(r)]
            if is_alias(op):
                self.views.update(dict.fromkeys(op.results, op))
                continue
            self.fixed.update(map(self.root, outside))
            step = _Step(op, list(dict.fromkeys(map(self.root, (*op.operands, *outside)))),
                         list(op.results), None, list(op.operands))
            self.steps.append(step)
            if op.name == "tfn.kernel":
                step.block = op.regions[0]
                for result, value in zip(op.results, step.block.returns, strict=True):
                    self.again[result] = _alone(op, value)
        self.fixed.update(map(self.root, function.returns))

    def root(self, value: Value) -> Value:
        while value in self.views:
            op = self.views[value]
            value = op.operands[op.results.index(value)]
        return value

    def _size(self, value: Value) -> int:
        return 0 if value.op is None or value.op.name == "stablehlo.constant" \
            or value in self.fixed else value.type.nominal_bytes

    def relieve(self, budget: int) -> bool:
        """Make one value anew where the most memory is in use; False if that is within the budget, or
        no value helps."""
        first: dict[Value, int] = {}
        readers: dict[Value, list[int]] = {}
        for n, step in enumerate(self.steps):
            first.update(dict.fromkeys(step.makes, n))
            for value in step.reads:
                readers.setdefault(value, []).append(n)
        last = {**first, **{value: numbers[-1] for value, numbers in readers.items()}}
        change = [0] * (len(self.steps) + 1)
        for value, n in first.items():
            change[n] += self._size(value)
            change[last[value] + 1] -= self._size(value)
        now, most, peak = 0, 0, 0
        for n in range(len(self.steps)):
            now += change[n]
            if now > most:
                most, peak = now, n
        if most <= budget:
            return False
        found = max(self._choices(peak, first, last, readers), default=None, key=lambda c: c[:2])
        if found is None:
            return False
        self._make_again(found[2], found[3])
        return True

    def _choices(self, peak: int, first: dict[Value, int], last: dict[Value, int],
                 readers: dict[Value, list[int]]) -> Iterator[tuple[int, int, Value, int]]:
        """Bytes that making a value again would spare, bytes it would move (negative), the value, and
        the step before which it is needed again."""
        for value, made in first.items():
            own = self.again.get(value)
            later = [n for n in readers.get(value, ()) if n >= peak]
            if made >= peak or own is None or not self._size(value) or not later or later[0] == peak:
                continue
            sources = {self.root(v) for v in own[1]}
            longer = [s for s in sources if last.get(s, -1) < later[0]]
            if any(s in self.donated for s in longer):
                continue
            spared = self._size(value) - sum(self._size(s) for s in longer if last.get(s, -1) < peak)
            if spared > 0:
                moved = value.type.nominal_bytes + sum(s.type.nominal_bytes for s in sources)
                yield spared, -moved, value, later[0]

    def _make_again(self, value: Value, before: int) -> None:
        """Insert a copy of the kernel of `value` before a step, for that step and all that follow."""
        own = self.again[value]
        assert own is not None and value.op is not None
        block, operands = own
        copy = Value(value.type, value.op, -1)
        for step in self.steps[before:]:
            if value in step.reads:
                step.reads = [copy if v is value else v for v in step.reads]
                step.operands = [self._redirected(v, value, copy) for v in step.operands]
        self.steps.insert(before, _Step(value.op, list(dict.fromkeys(map(self.root, operands))), [copy],
                                        block, list(operands)))
        self.again[copy] = own

    def _redirected(self, operand: Value, value: Value, copy: Value) -> Value:
        """`operand` with the memory of `copy` instead of that of `value`."""
        if operand is value:
            return copy
        if operand not in self.views or self.root(operand) is not value:
            return operand
        op = self.views[operand]
        inner = [self._redirected(v, value, copy) for v in op.operands]
        new = Op(op.definition, inner, [r.type for r in op.results], op.attributes, (), op.location)
        self.views.update(dict.fromkeys(new.results, new))
        return new.results[op.results.index(operand)]

    def _needed(self) -> list[_Step]:
        """The steps without results that only later copies are read of."""
        read = {v for step in self.steps for v in step.reads} | self.fixed
        kept = []
        for step in self.steps:
            if step.block is not None and not all(v in read for v in step.makes):
                pairs = [(v, r) for v, r in zip(step.makes, step.block.returns, strict=True)
                         if v in read]
                if not pairs:
                    continue
                block, operands = part(step.block, step.operands, [r for _, r in pairs])
                step = _Step(step.op, step.reads, [v for v, _ in pairs], block, operands)
            kept.append(step)
        return kept

    def rebuilt(self) -> Function:
        rewriter = Rewriter(self.function)

        def view(value: Value) -> Value:
            """The new value; a view where it is first needed."""
            if value in self.views and value not in rewriter.values:
                op = self.views[value]
                for operand in op.operands:
                    view(operand)
                rewriter.copy(op)
            return rewriter[value]

        for step in self._needed():
            op = step.op
            operands = [view(v) for v in step.operands]
            if step.block is None:
                for region in op.regions:
                    for v in free_values(region):
                        view(v)
                rewriter.block.ops.append(clone_op(op, {**rewriter.values, **dict(
                    zip(op.operands, operands, strict=True))}))
                new = rewriter.block.ops[-1]
            else:
                new = rewriter.append(op.definition, operands, [v.type for v in step.makes],
                                      op.attributes, [step.block], op.location)
            rewriter.values.update(zip(step.makes, new.results, strict=True))
        for value in self.function.returns:
            view(value)
        return rewriter.finish()


def _alone(kernel: Op, value: Value) -> tuple[Block, list[Value]] | None:
    """The region and the operands of a kernel that makes this result again; None if it takes long, or
    may give other bits."""
    block, operands = part(kernel.regions[0], kernel.operands, [value])
    if not all(op.definition.pointwise or is_free(op) for op in block.ops):
        return None
    whole = kernel.regions[0]
    return (block, operands) if contracts_alike(whole, _makers(whole, value)) else None


def _makers(block: Block, value: Value) -> list[Op]:
    """The ops that `value` depends on."""
    needed, found = {value}, []
    for op in reversed(block.ops):
        if any(r in needed for r in op.results):
            needed.update(op.operands)
            found.append(op)
    return found
