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
        values = _as_splat(op) if op.name == "stablehlo.constant" else _fold(op, rewriter)
        if values is None:
            rewriter.copy(op)
            continue
        rewriter.replace(op, [
            rewriter.append(constant, (), [r.type], {"value": v}, location=op.location).result
            for r, v in zip(op.results, values, strict=True)])
    return rewriter.finish()


def _as_splat(op: Op) -> list[np.ndarray] | None:
    """The value of a constant as one number in memory, where it repeats one: code need not read it."""
    value = op.attributes["value"]
    if value.size < 2 or value.nbytes > MAX_BYTES or not any(value.strides):
        return None
    elements = np.ascontiguousarray(value).reshape(-1)
    raw = elements.view(np.uint8).reshape(value.size, -1)
    return [np.broadcast_to(elements[:1].reshape(()), value.shape)] if (raw == raw[0]).all() else None


def _fold(op: Op, rewriter: Rewriter) -> list[np.ndarray] | None:
    if not op.operands or op.has_effect or op.regions:
        return None
    if not all(r.type.is_static for r in op.results):
        return None
    operands = []
    for value in op.operands:
        known = _known(rewriter[value].op)
        if known is None:
            return None
        operands.append(known)
    # A broadcast stays one: it fuses into its consumers for nothing, for batches of every size.
    if _repeats(op) or not _is_worth_storing(op, operands):
        return None
    return _evaluated(op, operands)


def _repeats(op: Op) -> bool:
    """Does it make more elements of fewer?"""
    return (op.name == "stablehlo.broadcast_in_dim"
            and op.operands[0].type.size != op.result.type.size)


def _known(op: Op | None) -> np.ndarray | None:
    """The value of a constant, or of a small one's repetition."""
    if op is None:
        return None
    if op.name == "stablehlo.constant":
        return op.attributes["value"]
    if not _repeats(op) or not op.result.type.is_static:
        return None
    source = op.operands[0].op
    if source is None or source.name != "stablehlo.constant" or source.attributes["value"].size == 1:
        return None
    values = [source.attributes["value"]]
    found = _evaluated(op, values) if _is_worth_storing(op, values) else None
    return None if found is None else found[0]


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
