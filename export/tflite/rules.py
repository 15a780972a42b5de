"""One rule per IR op: how TFLite expresses it. `RULES[name](lowering, op) -> tensor, view or list`.

Shapes, indexing and reductions are in `shapes`, contractions and windows in `windows`. A rule
raises `lowering.unsupported(why)` where TFLite has no form with the same meaning; a composite's
rule returns None to use the decomposition.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...compiler.ir.core import Op
from ...compiler.ir.dtypes import F32, I1
from . import shapes
from .graph import ARITHMETIC, TYPES, Tensor
from .lowering import Lowering, Rule, View
from .windows import convolution, dot_general, reduce_window

# -- elementwise ----------------------------------------------------------------------------------

def _cores(to: Lowering, op: Op) -> tuple[list[Tensor], tuple]:
    """Operands without their broadcasts, and the extents their result has."""
    views = [to.view(v) for v in op.operands]
    rank = len(op.result.shape)
    shape = tuple(
        1 if all(_extent(v, d - rank) == 1 for v in views) else op.result.shape[d]
        for d in range(rank))
    return [v.core for v in views], shape


def _extent(view: View, d: int):
    """Extent `d` (counted from the end) of the core; 1 where it has no such dim."""
    shape = view.core.shape
    return shape[d] if -d <= len(shape) else 1


def _elementwise(code: str, table: str = "", **options: Any) -> Rule:
    """An operator of the same meaning that broadcasts its operands."""

    def rule(to: Lowering, op: Op) -> View:
        cores, shape = _cores(to, op)
        result = to.emit(code, cores, op.result.type.with_shape(shape), table, **options)
        return View(result, op.result.type)

    return rule


def _expression(build: Callable[..., Tensor]) -> Rule:
    """Several operators; `build(emit, *operands)` with `emit(code, *inputs) -> tensor`."""

    def rule(to: Lowering, op: Op) -> View:
        cores, shape = _cores(to, op)
        type = op.result.type.with_shape(shape)

        def emit(code: str, *inputs: Any, dtype=type.dtype) -> Tensor:
            tensors = [i if isinstance(i, Tensor) else to.constant(i, cores[0].dtype)
                       for i in inputs]
            return to.emit(code, tensors, type.with_dtype(dtype), ARITHMETIC.get(code, ""))

        return View(build(emit, *cores), op.result.type)

    return rule


_COMPARISONS = {"EQ": "EQUAL", "NE": "NOT_EQUAL", "LT": "LESS", "LE": "LESS_EQUAL",
                "GT": "GREATER", "GE": "GREATER_EQUAL"}


def _compare(to: Lowering, op: Op) -> View:
    return _elementwise(_COMPARISONS[op.attributes["comparison_direction"]])(to, op)


def _select(to: Lowering, op: Op) -> View:
    """A select; `x <= 0 ? 0 : x` and its mirror images are RELU."""
    predicate, on_true, on_false = op.operands
    test = predicate.op
    if test is not None and test.name == "stablehlo.compare" and on_true.dtype is F32:
        x, bound = test.operands
        direction = test.attributes["comparison_direction"]
        zero, other = (on_true, on_false) if direction in ("LE", "LT") else (on_false, on_true)
        if (direction in ("LE", "LT", "GE", "GT") and other is x and to.is_filled(bound, 0)
                and to.is_filled(zero, 0)):
            return _activate(to, "RELU", to.view(x))
    return _elementwise("SELECT_V2")(to, op)


def _activate(to: Lowering, code: str, view: View) -> View:
    return View(to.emit(code, [view.core], view.core.type), view.type)


def _maximum(to: Lowering, op: Op) -> View:
    for x, bound in (op.operands, op.operands[::-1]):
        if x.dtype is F32 and to.is_filled(bound, 0) and to.view(x).is_dense:
            return _activate(to, "RELU", to.view(x))
    return _elementwise("MAXIMUM")(to, op)


def _clamp(to: Lowering, op: Op) -> View:
    low, x, high = op.operands
    if x.dtype is F32 and to.is_filled(low, 0) and to.is_filled(high, 6):
        return _activate(to, "RELU6", to.view(x))
    return _expression(
        lambda emit, low, x, high: emit("MINIMUM", emit("MAXIMUM", low, x), high))(to, op)


def _divide(to: Lowering, op: Op) -> Tensor | View:
    """A quotient; a sum over windows divided by their sizes is the average it came from."""
    total, divisor = (to.view(v) for v in op.operands)
    if total.core in to.averages and divisor.core.data is not None:
        average, counts = to.averages[total.core]
        rank = len(op.result.shape)
        data = divisor.core.data
        if data.ndim <= rank and np.all(counts == data):
            return average
    return _elementwise("DIV", "DivOptions")(to, op)


def _convert(to: Lowering, op: Op) -> View:
    view = to.view(op.operands[0])
    if view.type.dtype is op.result.dtype:
        return view
    if op.result.dtype is I1:
        zero = to.constant(0, view.type.dtype)
        core = to.emit("NOT_EQUAL", [view.core, zero], view.core.type.with_dtype(I1))
        return View(core, op.result.type)
    core = to.emit("CAST", [view.core], view.core.type.with_dtype(op.result.dtype), "CastOptions",
                  in_data_type=TYPES[view.type.dtype.name],
                  out_data_type=TYPES[op.result.dtype.name])
    return View(core, op.result.type)


def _logical(code: str) -> Rule:
    def rule(to: Lowering, op: Op) -> View:
        if op.result.dtype is not I1:
            raise to.unsupported("it has no bitwise operators on integers")
        return _elementwise(code)(to, op)

    return rule


# -- composites -----------------------------------------------------------------------------------

def _along_last(code: str, table: str = "", **options: Any) -> Rule:
    """A normalisation along one axis, which is moved to the end if it is not there."""

    def rule(to: Lowering, op: Op) -> Tensor | None:
        axes = op.attributes["composite_attributes"]["axis"]
        if len(axes) != 1 or op.result.dtype is not F32:
            return None
        rank = len(op.result.shape)
        order = [*(d for d in range(rank) if d != axes[0]), axes[0]]
        x = to.transpose(to.dense(op.operands[0]), order)
        return to.transpose(to.emit(code, [x], x.type, table, **options),
                           [order.index(d) for d in range(rank)])

    return rule


def _gelu(to: Lowering, op: Op) -> Tensor | None:
    if op.result.dtype is not F32:
        return None
    approximate = bool(op.attributes["composite_attributes"]["approximate"])
    return to.emit("GELU", [to.dense(op.operands[0])], op.result.type, "GeluOptions",
                  approximate=approximate)


COMPOSITES: dict[str, Rule] = {
    "tfn.softmax": _along_last("SOFTMAX", "SoftmaxOptions", beta=1.0),
    "tfn.log_softmax": _along_last("LOG_SOFTMAX"),
    "tfn.gelu": _gelu,
}
"""Composite -> rule."""

RULES: dict[str, Rule] = {
    "stablehlo.add": _elementwise("ADD", "AddOptions"),
    "stablehlo.subtract": _elementwise("SUB", "SubOptions"),
    "stablehlo.multiply": _elementwise("MUL", "MulOptions"),
    "stablehlo.divide": _divide,
    "stablehlo.maximum": _maximum,
    "stablehlo.minimum": _elementwise("MINIMUM"),
    "stablehlo.power": _elementwise("POW"),
    "stablehlo.atan2": _elementwise("ATAN2"),
    "stablehlo.negate": _elementwise("NEG"),
    "stablehlo.abs": _elementwise("ABS"),
    "stablehlo.sign": _elementwise("SIGN"),
    "stablehlo.floor": _elementwise("FLOOR"),
    "stablehlo.ceil": _elementwise("CEIL"),
    "stablehlo.round_nearest_even": _elementwise("ROUND"),
    "stablehlo.exponential": _elementwise("EXP"),
    "stablehlo.exponential_minus_one": _expression(
        lambda emit, x: emit("SUB", emit("EXP", x), 1)),
    "stablehlo.log": _elementwise("LOG"),
    "stablehlo.log_plus_one": _expression(lambda emit, x: emit("LOG", emit("ADD", x, 1))),
    "stablehlo.logistic": _elementwise("LOGISTIC"),
    "stablehlo.tanh": _elementwise("TANH"),
    "stablehlo.sine": _elementwise("SIN"),
    "stablehlo.cosine": _elementwise("COS"),
    "stablehlo.sqrt": _elementwise("SQRT"),
    "stablehlo.rsqrt": _elementwise("RSQRT"),
    "stablehlo.is_finite": _expression(
        lambda emit, x: emit("LESS", emit("ABS", x, dtype=x.dtype), np.inf)),
    "stablehlo.compare": _compare,
    "stablehlo.select": _select,
    "stablehlo.clamp": _clamp,
    "stablehlo.convert": _convert,
    "stablehlo.and": _logical("LOGICAL_AND"),
    "stablehlo.or": _logical("LOGICAL_OR"),
    "stablehlo.xor": _logical("NOT_EQUAL"),
    "stablehlo.not": _logical("LOGICAL_NOT"),
    "stablehlo.constant": shapes.constant,
    "stablehlo.iota": shapes.iota,
    "stablehlo.broadcast_in_dim": shapes.broadcast,
    "stablehlo.reshape": shapes.reshape,
    "stablehlo.transpose": shapes.transpose,
    "stablehlo.slice": shapes.slice,
    "stablehlo.pad": shapes.pad,
    "stablehlo.concatenate": shapes.concatenate,
    "stablehlo.reverse": shapes.reverse,
    "stablehlo.get_dimension_size": shapes.dimension_size,
    "stablehlo.gather": shapes.gather,
    "stablehlo.dynamic_slice": shapes.dynamic_slice,
    "stablehlo.dynamic_update_slice": shapes.dynamic_update_slice,
    "stablehlo.reduce": shapes.reduce,
    "stablehlo.reduce_window": reduce_window,
    "stablehlo.dot_general": dot_general,
    "stablehlo.convolution": convolution,
}
"""Op -> rule."""


