"""Dead code: drop ops nothing depends on."""

from __future__ import annotations

from ..ir.core import Function, Value, free_values
from ..ir.rewrite import Rewriter


def dce(function: Function, target=None) -> Function:
    """Keep what the returns and ops with effects need."""
    needed: set[Value] = set(function.returns)
    kept = set()
    for op in reversed(function.ops):
        if op.has_effect or any(r in needed for r in op.results):
            kept.add(op)
            needed.update(op.operands)
            for region in op.regions:
                needed.update(free_values(region))
    if len(kept) == len(function.ops):
        return function
    rewriter = Rewriter(function)
    for op in function.ops:
        if op in kept:
            rewriter.copy(op)
    return rewriter.finish()
