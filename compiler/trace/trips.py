"""How often a loop runs, where that follows from what is known while it is traced.

A counter that starts at a number and moves by numbers does not depend on what else the loop carries.
Such a loop is one of fixed length: it has a derivative in both modes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..ir.core import Block, Function, Value, free_values
from .core import Array, eager, replay_ops, trace

MOST = 4096
"""Rounds that are counted, at some 10 us per operation of the condition and its counters."""


def trip_count(turn: Callable[..., Sequence[Any]], state: Sequence[Any]) -> int | None:
    """How often a loop runs whose `turn(*state)` returns whether it goes on and its next state; None
    where that depends on traced values, has effects, or takes more than `MOST` rounds."""
    function, _ = trace(turn, [s.type for s in state])
    if any(op.has_effect for op in function.body.walk()):
        return None
    read = _read(function, len(state))
    if read is None or not all(isinstance(state[i], Array) for i in read):
        return None
    block = function.body
    returns = [block.returns[0], *(block.returns[1 + i] for i in read)]
    needed = _needed(block, returns)
    ops = [op for op in block.ops if any(r in needed for r in op.results)]
    values = [state[i] for i in read]
    for count in range(MOST + 1):
        environment = {block.arguments[i]: v for i, v in zip(read, values, strict=True)}
        with eager():
            replay_ops(ops, environment)
        more, *values = (environment[r] for r in returns)
        if not bool(more):
            return count
    return None


def _read(function: Function, count: int) -> list[int] | None:
    """The parts of the state that the condition depends on, over any number of rounds; None if it
    depends on a value from outside."""
    block = function.body
    read: set[int] = set()
    while True:
        needed = _needed(block, [block.returns[0], *(block.returns[1 + i] for i in read)])
        found = {i for i, a in enumerate(block.arguments) if a in needed}
        if any(i >= count for i in found):
            return None
        if found <= read:
            return sorted(read)
        read |= found


def _needed(block: Block, returns: Iterable[Value]) -> set[Value]:
    """What `returns` depend on, themselves included."""
    needed = set(returns)
    for op in reversed(block.ops):
        if any(r in needed for r in op.results):
            needed.update(op.operands)
            for region in op.regions:
                needed.update(free_values(region))
    return needed
