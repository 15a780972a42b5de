"""Simplification of arithmetic: neutral elements, signs, choices that are none.

Rules are exact for every number, NaN, infinities and both zeros: see `simplify.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..ir.core import Op, Value
from ..ir.dtypes import DType
from ..ir.rewrite import Rewriter
from .movement import append, made_by

Rule = Callable[[Op, list[Value], Rewriter], Value | None]


_SMALL = 4096
"""Elements of a constant that is compared to see whether all are equal."""


def splat(value: Value) -> np.generic | None:
    """The scalar a value is filled with, when it is a constant or a broadcast of one."""
    while value.op is not None and value.op.name == "stablehlo.broadcast_in_dim":
        value = value.op.operands[0]
    if value.op is not None and value.op.name == "stablehlo.constant":
        data = value.op.attributes["value"]
        if data.size == 1 or (data.size and not any(data.strides)):
            return data[(0,) * data.ndim]
        if 0 < data.size <= _SMALL and bool((data == data.reshape(-1)[0]).all()):
            return data.reshape(-1)[0]
    return None


def _is(value: Value, number) -> bool:
    found = splat(value)
    return found is not None and bool(found == number)


def _is_zero(value: Value, negative: bool) -> bool:
    """Is it all +0, or all -0? Integers have one zero, which is both."""
    while (op := made_by(value, "broadcast_in_dim")) is not None:
        value = op.operands[0]
    source = made_by(value, "constant")
    if source is None or not _is(value, 0):
        return False
    if value.dtype.is_integer:
        return True
    signs = np.signbit(source.attributes["value"].reshape(-1)[:_SMALL].astype(np.float64)) \
        if value.dtype.is_float and value.dtype.bits >= 16 else np.zeros(0)
    return signs.size > 0 and bool((signs == negative).all())


def _filled(rewriter: Rewriter, op: Op, number) -> Value:
    """`number` in the type of the result."""
    type = op.result.type
    scalar = append(rewriter, op, "constant", [], {"value": np.asarray(number, type.dtype.numpy)},
                    type.with_shape(()))
    return append(rewriter, op, "broadcast_in_dim", [scalar],
                  {"shape": type.shape, "broadcast_dimensions": ()}, type)


# -- neutral and absorbing elements -------------------------------------------------------------------

def _identity_right(number) -> Rule:
    return lambda op, operands, _: operands[0] if _is(operands[1], number) else None


def _identity_left(number) -> Rule:
    return lambda op, operands, _: operands[1] if _is(operands[0], number) else None


def _absorbing(number) -> Rule:
    """An integer operand that decides the result."""
    return lambda op, operands, r: _filled(r, op, number) if any(
        _is(v, number) for v in operands) else None


def _integer(rule: Rule) -> Rule:
    return lambda op, operands, r: rule(op, operands, r) if operands[0].dtype.is_integer else None


def _without_zero(op: Op, operands: list[Value], _) -> Value | None:
    """x + (-0) is x; +0 would turn -0 around."""
    x, y = operands
    return x if _is_zero(y, True) else y if _is_zero(x, True) else None


def _less_zero(op: Op, operands: list[Value], _) -> Value | None:
    """x - 0 is x; -0 would turn -0 around."""
    return operands[0] if _is_zero(operands[1], False) else None


def _all_bits(dtype: DType):
    """The number whose bits are all set."""
    return True if dtype.kind == "bool" else -1 if dtype.kind == "int" else (1 << dtype.bits) - 1


def _and(op: Op, operands: list[Value], rewriter: Rewriter) -> Value | None:
    x, y = operands
    ones = _all_bits(op.result.dtype)
    if x is y or _is(y, ones):
        return x
    if _is(x, ones):
        return y
    return _filled(rewriter, op, 0) if _is(x, 0) or _is(y, 0) else None


def _or(op: Op, operands: list[Value], rewriter: Rewriter) -> Value | None:
    x, y = operands
    ones = _all_bits(op.result.dtype)
    if x is y or _is(y, 0):
        return x
    if _is(x, 0):
        return y
    return _filled(rewriter, op, ones) if _is(x, ones) or _is(y, ones) else None


def _itself(number) -> Rule:
    """Integers and booleans: what x and x give."""
    return lambda op, operands, r: _filled(r, op, number) if (
        operands[0] is operands[1] and not operands[0].dtype.is_inexact) else None


def _idempotent(op: Op, operands: list[Value], _) -> Value | None:
    return operands[0] if operands[0] is operands[1] else None


def _unbounded(sign: int) -> Rule:
    """A bound that is no bound: maximum with -inf, minimum with inf."""
    def rule(op: Op, operands: list[Value], _) -> Value | None:
        if not operands[0].dtype.is_float:
            return None
        x, y = operands
        return x if _is(y, sign * np.inf) else y if _is(x, sign * np.inf) else None

    return rule


# -- signs --------------------------------------------------------------------------------------------

def _twice(op: Op, operands: list[Value], _) -> Value | None:
    """An op that undoes itself."""
    inner = operands[0].op
    return inner.operands[0] if inner is not None and inner.name == op.name else None


def _add_negative(op: Op, operands: list[Value], rewriter: Rewriter) -> Value | None:
    for x, y in (operands, operands[::-1]):
        negative = made_by(y, "negate")
        if negative is not None:
            return append(rewriter, op, "subtract", [x, negative.operands[0]])
    return None


def _subtract_negative(op: Op, operands: list[Value], rewriter: Rewriter) -> Value | None:
    x, y = operands
    negative = made_by(y, "negate")
    if negative is not None:
        return append(rewriter, op, "add", [x, negative.operands[0]])
    # 0 - x is +0 for x = +0, and its negative is not.
    return append(rewriter, op, "negate", [y]) if _is_zero(x, True) else None


def _both_negative(op: Op, operands: list[Value], rewriter: Rewriter) -> Value | None:
    x, y = (made_by(v, "negate") for v in operands)
    if x is None or y is None or not op.result.dtype.is_float:
        return None
    return append(rewriter, op, op.name.partition(".")[2], [x.operands[0], y.operands[0]])


def _by_minus_one(op: Op, operands: list[Value], rewriter: Rewriter) -> Value | None:
    x, y = operands
    if op.name == "stablehlo.multiply" and _is_minus_one(x):
        x, y = y, x
    return append(rewriter, op, "negate", [x]) if _is_minus_one(y) else None


def _is_minus_one(value: Value) -> bool:
    return value.dtype.is_float and _is(value, -1)


def _absolute(op: Op, operands: list[Value], rewriter: Rewriter) -> Value | None:
    inner = operands[0].op
    if inner is None or not op.result.dtype.is_float:
        return None
    if inner.name == "stablehlo.abs":
        return operands[0]
    return append(rewriter, op, "abs", inner.operands) if inner.name == "stablehlo.negate" else None


def _power(op: Op, operands: list[Value], rewriter: Rewriter) -> Value | None:
    x, y = operands
    if _is(y, 0) and not x.dtype.is_narrow:
        return _filled(rewriter, op, 1)  # Of NaN, too.
    return append(rewriter, op, "multiply", [x, x]) if x.dtype.is_float and _is(y, 2) else None


# -- choices ------------------------------------------------------------------------------------------

def _decided_select(op: Op, operands: list[Value], _) -> Value | None:
    if operands[1] is operands[2]:
        return operands[1]
    predicate = splat(operands[0])
    return None if predicate is None else operands[1 if predicate else 2]


def _select(op: Op, operands: list[Value], rewriter: Rewriter) -> Value | None:
    """By the opposite of a condition; between true and false."""
    condition, yes, no = operands
    opposite = made_by(condition, "not")
    if opposite is not None:
        return append(rewriter, op, "select", [opposite.operands[0], no, yes])
    if op.result.dtype.kind != "bool" or condition.type != op.result.type:
        return None
    if _is(yes, True) and _is(no, False):
        return condition
    return append(rewriter, op, "not", [condition]) if _is(yes, False) and _is(no, True) else None


_OPPOSITES = {"EQ": "NE", "NE": "EQ", "LT": "GE", "GE": "LT", "GT": "LE", "LE": "GT"}


def _opposite(op: Op, operands: list[Value], rewriter: Rewriter) -> Value | None:
    """Of a comparison; a NaN is neither less nor not less."""
    inner = made_by(operands[0], "compare")
    if inner is None:
        return None
    direction = inner.attributes["comparison_direction"]
    if inner.operands[0].dtype.is_inexact and direction not in ("EQ", "NE"):
        return None
    return append(rewriter, op, "compare", inner.operands,
                  {**inner.attributes, "comparison_direction": _OPPOSITES[direction]})


def _compared_to_itself(op: Op, operands: list[Value], rewriter: Rewriter) -> Value | None:
    if operands[0] is not operands[1] or operands[0].dtype.is_inexact:
        return None
    return _filled(rewriter, op, op.attributes["comparison_direction"] in ("EQ", "LE", "GE"))


ARITHMETIC: dict[str, tuple[Rule, ...]] = {
    "stablehlo.add": (_integer(_identity_right(0)), _integer(_identity_left(0)), _without_zero,
                      _add_negative),
    "stablehlo.subtract": (_less_zero, _subtract_negative, _itself(0)),
    "stablehlo.multiply": (_identity_right(1), _identity_left(1), _integer(_absorbing(0)),
                           _both_negative, _by_minus_one),
    "stablehlo.divide": (_identity_right(1), _both_negative, _by_minus_one),
    "stablehlo.power": (_identity_right(1), _power),
    "stablehlo.negate": (_twice,),
    "stablehlo.abs": (_absolute,),
    "stablehlo.maximum": (_idempotent, _unbounded(-1)),
    "stablehlo.minimum": (_idempotent, _unbounded(1)),
    "stablehlo.not": (_twice, _opposite),
    "stablehlo.and": (_and,),
    "stablehlo.or": (_or,),
    "stablehlo.xor": (_identity_right(0), _identity_left(0), _itself(0)),
    "stablehlo.select": (_decided_select, _select),
    "stablehlo.compare": (_compared_to_itself,),
}
"""Op name -> rules."""
