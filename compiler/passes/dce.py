"""Dead code: drop ops nothing depends on."""

from __future__ import annotations

from ..ir.core import Block, Function, Op, Value
from ..ir.rewrite import Rewriter


def dce(function: Function, target=None) -> Function:
    """Keep what the returns and ops with effects need."""
    kept, _ = _live(function.body)
    if len(kept) == len(function.ops):
        return function
    rewriter = Rewriter(function)
    for op in function.ops:
        if op in kept:
            rewriter.copy(op)
    return rewriter.finish()


def _live(block: Block) -> tuple[set[Op], set[Value]]:
    """The ops of a block that are needed, and the values they need: of a region's, what it only reads
    in order to drop it does not count."""
    needed: set[Value] = set(block.returns)
    kept: set[Op] = set()
    for op in reversed(block.ops):
        if op.has_effect or any(r in needed for r in op.results):
            kept.add(op)
            needed.update(op.operands)
            for region in op.regions:
                needed |= _live(region)[1]
    return kept, needed
