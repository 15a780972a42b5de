"""Constant folding: evaluate ops whose operands are all constants.

What is folded is stored in the program and read from memory, so it should be small. Weights are large:
those of a program that has them as constants are brought into another order or type once, if that makes
them no larger, or if their op says that it `folds`.
"""

from __future__ import annotations

import numpy as np

from ..errors import UnsupportedError
from ..ir.core import Function, Op
from ..ir.rewrite import Rewriter
from ..ops.declare import definition
from ..trace.core import conform

MAX_BYTES = 1 << 16
"""Of a constant that may be larger than what it is made of."""


def fold(function: Function, target=None) -> Function:
    """Replace ops on constants by their values, if those are small or no larger than the constants."""
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
    if not op.operands or op.has_effect or op.regions:
        return None
    if not all(r.type.is_static for r in op.results):
        return None
    operands = []
    for value in op.operands:
        source = rewriter[value].op
        if source is None or source.name != "stablehlo.constant":
            return None
        operands.append(source.attributes["value"])
    if not _is_worth_storing(op, operands):
        return None
    # A splat stays a broadcast: it fuses into its consumers for nothing.
    if op.name == "stablehlo.broadcast_in_dim" and operands[0].size == 1:
        return None
    return _evaluated(op, operands)


def _is_worth_storing(op: Op, operands: list[np.ndarray]) -> bool:
    size = sum(int(r.type.nbytes) for r in op.results)  # type: ignore[arg-type]
    if size <= MAX_BYTES or op.definition.folds:
        return True
    # A splat is one number in memory.
    return op.definition.pointwise and size <= sum(
        x.nbytes for x in operands if x.size and any(x.strides))


def _evaluated(op: Op, operands: list[np.ndarray]) -> list[np.ndarray] | None:
    evaluate = op.definition.evaluate
    if evaluate is None:
        return None
    try:
        with np.errstate(all="ignore"):
            results = evaluate(operands, op.attributes, op.regions,
                               [r.type for r in op.results])
            return [conform(v, r.type) for v, r in zip(results, op.results, strict=True)]
    except UnsupportedError:
        return None
