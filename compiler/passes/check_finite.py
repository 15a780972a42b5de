"""NaN checks in the program itself: a flag per op that makes floats, and a report at the end of every
block.

A flag is set where an op's result holds a NaN and none of its operands does. Only in programs
compiled under `debug.check_nans`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..ir.core import Function, Value
from ..ir.rewrite import Rewriter
from ..ops.declare import definition
from ..ops.host import CHECKS, Maker
from ..ops.reduction import reducer
from .regions import CONTROL, REGION

_QUIET = frozenset({"stablehlo.constant", "stablehlo.iota", "stablehlo.reshape",
                    "stablehlo.transpose", "stablehlo.broadcast_in_dim", "stablehlo.slice",
                    "stablehlo.reverse", "stablehlo.optimization_barrier", "stablehlo.concatenate",
                    "stablehlo.gather", "stablehlo.dynamic_slice", "stablehlo.dynamic_update_slice",
                    "stablehlo.pad", "stablehlo.select"})
"""Ops that only move numbers: nothing is born in them."""


def check_finite(function: Function, target=None) -> Function:
    """`function` with the checks that `debug.check_nans` asks for; itself without any."""
    if not (CHECKS.nans or CHECKS.infs):
        return function
    return _Checker(function).run()


class _Checker:
    def __init__(self, function: Function):
        self.function = function
        self.rewriter = Rewriter(function)
        self.nans, self.infs = CHECKS.nans, CHECKS.infs
        self.bad: dict[Value, Value] = {}
        """A value -> whether it holds what is looked for."""
        self.flags: list[Value] = []
        self.makers: list[Maker] = []

    def run(self) -> Function:
        if self.function.name != REGION:
            for value, attributes in zip(self.function.arguments,
                                         self.function.argument_attributes, strict=True):
                name = attributes.get("tfn.name", str(value.index))
                self._flag(value, (), (f"argument {name}", value.type, None))
        for op in self.function.ops:
            self.rewriter.copy(op)
            if op.name not in _QUIET and op.name not in CONTROL:
                for result in op.results:
                    self._flag(result, op.operands, (op.name, result.type, op.location))
        if self.flags:
            self.rewriter.append(
                definition("tfn.check_finite"), self.flags, [],
                {"makers": tuple(self.makers), "nans": self.nans, "infs": self.infs})
        return self.rewriter.finish()

    def _flag(self, value: Value, operands: Sequence[Value], maker: Maker) -> None:
        if not value.dtype.is_float:
            return
        raised = self._holds(value)
        for operand in dict.fromkeys(operands):
            if operand.dtype.is_float:
                clean = _append(self.rewriter, "not", [self._holds(operand)])
                raised = _append(self.rewriter, "and", [raised, clean])
        self.flags.append(raised)
        self.makers.append(maker)

    def _holds(self, value: Value) -> Value:
        if value not in self.bad:
            self.bad[value] = _holds(self.rewriter, self.rewriter[value], self.nans, self.infs)
        return self.bad[value]


def _append(rewriter: Rewriter, name: str, operands: Sequence[Value], **attributes) -> Value:
    return rewriter.append(definition(f"stablehlo.{name}"), operands, None, attributes).result


def _holds(rewriter: Rewriter, value: Value, nans: bool, infs: bool) -> Value:
    """Whether any element is what is looked for, as one i1."""
    if nans and infs:
        good = _append(rewriter, "is_finite", [value])
        each = _append(rewriter, "not", [good])
    else:
        each = _append(rewriter, "compare", [value, value], comparison_direction="NE")
        if infs:
            good = _append(rewriter, "is_finite", [value])
            each = _append(rewriter, "not", [_append(rewriter, "or", [good, each])])
    if not value.shape:
        return each
    no = rewriter.append(definition("stablehlo.constant"), [], [each.type.with_shape(())],
                         {"value": np.asarray(False)}).result
    return rewriter.append(
        definition("stablehlo.reduce"), [each, no], None,
        {"dimensions": tuple(range(len(value.shape)))}, [reducer("or", each.dtype)]).result
