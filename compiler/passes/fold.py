"""Constant folding: evaluate ops whose operands are all constants."""

from __future__ import annotations

import numpy as np

from ..errors import UnsupportedError
from ..ir.core import Function, Op
from ..ir.rewrite import Rewriter
from ..ops.declare import definition
from ..trace.core import conform

# A folded constant is stored in the program and read from memory: not worth it when it is large.
MAX_BYTES = 1 << 16


def fold(function: Function, target=None) -> Function:
    """Replace ops on constants by their values, up to `MAX_BYTES` per result."""
    rewriter = Rewriter(function)
    constant = definition("stablehlo.constant")
    for op in function.ops:
        values = _fold(op, rewriter)
        if values is None:
            rewriter.copy(op)
            continue
        rewriter.replace(op, [
            rewriter.append(constant, (), [r.type], {"value": v}, location=op.location).result
            for r, v in zip(op.results, values, strict=True)])
    return rewriter.finish()


def _fold(op: Op, rewriter: Rewriter) -> list[np.ndarray] | None:
    if (not op.operands or op.has_effect or op.regions
            or op.definition.evaluate is None):
        return None
    small = all(r.type.is_static and r.type.nbytes <= MAX_BYTES for r in op.results)
    if not small:
        return None
    operands = []
    for value in op.operands:
        source = rewriter[value].op
        if source is None or source.name != "stablehlo.constant":
            return None
        operands.append(source.attributes["value"])
    # A splat stays a broadcast: it fuses into its consumers for nothing.
    if op.name == "stablehlo.broadcast_in_dim" and operands[0].size == 1:
        return None
    try:
        with np.errstate(all="ignore"):
            results = op.definition.evaluate(operands, op.attributes, op.regions,
                                             [r.type for r in op.results])
            return [conform(v, r.type) for v, r in zip(results, op.results, strict=True)]
    except UnsupportedError:
        return None
