"""Kernels that are the same: a deep network repeats its blocks, and each is emitted once."""

from __future__ import annotations

from typing import Any

from ..ir.core import Block, Op, Value
from ..passes.cse import hashable
from .kernel import Kernel, emit_kernel
from .target import Target


class Emitted:
    """The kernels of a program by what they compute."""

    def __init__(self, target: Target):
        self._target = target
        self._known: dict[Any, Kernel] = {}

    def kernel(self, op: Op) -> Kernel:
        """`emit_kernel`, once for all `tfn.kernel` ops that do the same to the same types."""
        try:
            key = _structure(op.regions[0], {})
            known = self._known.get(key)
        except (KeyError, TypeError):
            # A region that reads what is outside of it, or attributes without a hash.
            return emit_kernel(op, self._target)
        if known is None:
            known = self._known[key] = emit_kernel(op, self._target)
        return known


def _structure(block: Block, numbers: dict[Value, int]) -> Any:
    """A block with numbers for its values."""
    for value in block.arguments:
        numbers[value] = len(numbers)
    ops = []
    for op in block.ops:
        operands = tuple([numbers[v] for v in op.operands])
        regions = tuple([_structure(region, numbers) for region in op.regions])
        attributes = tuple([(k, hashable(v)) for k, v in op.attributes.items()])
        ops.append((op.name, operands, attributes, tuple([r.type for r in op.results]), regions))
        for result in op.results:
            numbers[result] = len(numbers)
    return (tuple([a.type for a in block.arguments]), tuple(ops),
            tuple([numbers[v] for v in block.returns]))
