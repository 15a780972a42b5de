"""Masks: what a comparison asks of a value, it asks of the activation made from it.

The derivative of relu asks where x > 0, which is where max(x, 0) > 0. The activation is kept for what
it was made for; x, the sum of a residual block for example, would be kept for nothing else.
"""

from __future__ import annotations

from ..ir.core import Function, Op, Value
from ..ir.rewrite import Rewriter
from .arithmetic import splat

_ASKED = {"GT": "maximum", "LE": "maximum", "LT": "minimum", "GE": "minimum"}
"""Direction of a comparison of x with a number -> what may stand for x: its maximum or minimum with
the same number. A NaN stays one, and to a comparison zeros have no sign."""

Key = tuple[str, Value, object]
"""An op's name, its operand, and the number that is its other."""


def masks(function: Function, target=None) -> Function:
    """Compare activations instead of what they were made from."""
    activations: dict[Key, Value] = {}
    rewriter = Rewriter(function)
    changed = False
    for op in function.ops:
        short = op.name.partition(".")[2]
        if short == "compare" and (found := _activation(op, activations)) is not None:
            new = rewriter.append(op.definition, [rewriter[found], rewriter[op.operands[1]]],
                                  [op.result.type], op.attributes, location=op.location)
            rewriter.replace(op, new.results)
            changed = True
            continue
        rewriter.copy(op)
        if short in ("maximum", "minimum"):
            for x, bound in (op.operands, op.operands[::-1]):
                number = splat(bound)
                if number is not None:
                    activations.setdefault((short, x, number.item()), op.result)
    return rewriter.finish() if changed else function


def _activation(op: Op, activations: dict[Key, Value]) -> Value | None:
    """What may be compared instead of the first operand."""
    x, bound = op.operands
    number = splat(bound)
    asked = _ASKED.get(op.attributes["comparison_direction"])
    if number is None or asked is None or op.attributes.get("compare_type") == "TOTALORDER":
        return None
    return activations.get((asked, x, number.item()))
