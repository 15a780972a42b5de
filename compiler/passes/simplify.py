"""Algebraic simplification: a table of local rules.

A rule looks at one op whose operands are already simplified and returns the value that can stand for
its result, or None. Rules are exact in IEEE arithmetic, NaN, signed zeros and infinities included
(so `x + 0` stays: it turns -0 into +0; `x * 0` stays: it is NaN for infinite x).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..ir.core import Function, Op, Value
from ..ir.rewrite import Rewriter
from ..ir.structs import DotDimensionNumbers
from ..ops.declare import definition
from ..ops.reduction import window_defaults

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


def _identity_right(number) -> Rule:
    return lambda op, operands, _: operands[0] if _is(operands[1], number) else None


def _identity_left(number) -> Rule:
    return lambda op, operands, _: operands[1] if _is(operands[0], number) else None


def _integer(rule: Rule) -> Rule:
    return lambda op, operands, r: rule(op, operands, r) if operands[0].dtype.is_integer else None


def _same_type(op: Op, operands: list[Value], _) -> Value | None:
    """A reshape, broadcast or convert to the type its operand already has."""
    ordered = op.name != "stablehlo.broadcast_in_dim" or _in_order(op)
    return operands[0] if operands[0].type == op.result.type and ordered else None


def _in_order(op: Op) -> bool:
    dims = op.attributes["broadcast_dimensions"]
    return list(dims) == list(range(len(dims)))


def _identity_permutation(op: Op, operands, _) -> Value | None:
    permutation = op.attributes["permutation"]
    return operands[0] if list(permutation) == list(range(len(permutation))) else None


def _composed(op: Op, operands: list[Value], rewriter: Rewriter) -> Value | None:
    """reshape(reshape(x)), transpose(transpose(x)), broadcast(broadcast(x)) as one op."""
    inner = operands[0].op
    if inner is None or inner.name != op.name:
        return None
    attributes = dict(op.attributes)
    if op.name == "stablehlo.transpose":
        first = inner.attributes["permutation"]
        attributes["permutation"] = tuple(first[d] for d in op.attributes["permutation"])
    elif op.name == "stablehlo.broadcast_in_dim":
        outer = op.attributes["broadcast_dimensions"]
        attributes["broadcast_dimensions"] = tuple(
            outer[d] for d in inner.attributes["broadcast_dimensions"])
    return rewriter.append(op.definition, inner.operands, [op.result.type], attributes,
                           location=op.location).result


def _empty_pad(op: Op, operands: list[Value], _) -> Value | None:
    amounts = [*op.attributes["edge_padding_low"], *op.attributes["edge_padding_high"],
               *op.attributes["interior_padding"]]
    return operands[0] if all(isinstance(a, int) and a == 0 for a in amounts) else None


def _whole_slice(op: Op, operands: list[Value], _) -> Value | None:
    return operands[0] if op.result.type == operands[0].type else None


def _single_concatenate(op: Op, operands: list[Value], _) -> Value | None:
    return operands[0] if len(operands) == 1 else None


def _double_negation(op: Op, operands: list[Value], _) -> Value | None:
    inner = operands[0].op
    return inner.operands[0] if inner is not None and inner.name == op.name else None


def _decided_select(op: Op, operands: list[Value], _) -> Value | None:
    if operands[1] is operands[2]:
        return operands[1]
    predicate = splat(operands[0])
    return None if predicate is None else operands[1 if predicate else 2]


def _reshape_of_broadcast_scalar(op: Op, operands: list[Value], rewriter) -> Value | None:
    inner = operands[0].op
    if (inner is None or inner.name != "stablehlo.broadcast_in_dim"
            or inner.operands[0].shape != ()):
        return None
    attributes = {"shape": op.result.shape, "broadcast_dimensions": ()}
    return rewriter.append(inner.definition, inner.operands, [op.result.type], attributes,
                           location=op.location).result


def _power_of_two(op: Op, operands: list[Value], rewriter: Rewriter) -> Value | None:
    if operands[0].dtype.is_float and _is(operands[1], 2):
        return rewriter.append(definition("stablehlo.multiply"), [operands[0]] * 2,
                               location=op.location).result
    return None


def _dot_of_transpose(op: Op, operands: list[Value], rewriter: Rewriter) -> Value | None:
    """A product reads its operands in any order: transposed ones it takes as they were."""
    dims = op.attributes["dot_dimension_numbers"]
    sides = [[tuple(dims.lhs_batching_dimensions), tuple(dims.lhs_contracting_dimensions)],
             [tuple(dims.rhs_batching_dimensions), tuple(dims.rhs_contracting_dimensions)]]
    taken = list(operands)
    for side, value in enumerate(operands):
        if value.op is None or value.op.name != "stablehlo.transpose":
            continue
        permutation = value.op.attributes["permutation"]
        used = {d for group in sides[side] for d in group}
        free = [permutation[d] for d in range(len(permutation)) if d not in used]
        if free != sorted(free):
            continue
        sides[side] = [tuple(permutation[d] for d in group) for group in sides[side]]
        taken[side] = value.op.operands[0]
    if taken == list(operands):
        return None
    (lb, lc), (rb, rc) = sides
    attributes = dict(op.attributes) | {"dot_dimension_numbers": DotDimensionNumbers(lb, rb, lc, rc)}
    return rewriter.append(op.definition, taken, [op.result.type], attributes,
                           location=op.location).result


def _window_of_pad(op: Op, operands: list[Value], rewriter: Rewriter) -> Value | None:
    """Windows see their initial value where nothing is: padding with that value is not made."""
    if len(operands) != 2 or operands[0].op is None or operands[0].op.name != "stablehlo.pad":
        return None
    pad, initial = operands[0].op, splat(operands[1])
    a = window_defaults(op.attributes, len(op.result.shape))
    around = splat(pad.operands[1])
    amounts = [pad.attributes[k] for k in ("edge_padding_low", "edge_padding_high",
                                           "interior_padding")]
    if (initial is None or around is None or initial.tobytes() != around.tobytes()
            or set(a["base_dilations"]) != {1}
            or not all(isinstance(v, int) for group in amounts for v in group)):
        return None
    # What is cut off and padded again is not what was there.
    cuts = any(cut < 0 < more for edge, side in ((amounts[0], 0), (amounts[1], 1))
               for cut, more in zip(edge, (p[side] for p in a["padding"]), strict=True))
    if cuts or any(0 in v.shape for v in (pad.operands[0], op.result)):
        return None
    attributes = dict(op.attributes) | {
        "padding": tuple((low + before, high + after) for (low, high), before, after in zip(
            a["padding"], amounts[0], amounts[1], strict=True)),
        "base_dilations": tuple(i + 1 for i in amounts[2])}
    return rewriter.append(op.definition, [pad.operands[0], operands[1]], [op.result.type],
                           attributes, op.regions, op.location).result


RULES: dict[str, tuple[Rule, ...]] = {
    "stablehlo.dot_general": (_dot_of_transpose,),
    "stablehlo.add": (_integer(_identity_right(0)), _integer(_identity_left(0))),
    "stablehlo.subtract": (_identity_right(0),),
    "stablehlo.multiply": (_identity_right(1), _identity_left(1)),
    "stablehlo.divide": (_identity_right(1),),
    "stablehlo.power": (_identity_right(1), _power_of_two),
    "stablehlo.negate": (_double_negation,),
    "stablehlo.not": (_double_negation,),
    "stablehlo.select": (_decided_select,),
    "stablehlo.convert": (_same_type,),
    "stablehlo.reshape": (_same_type, _composed, _reshape_of_broadcast_scalar),
    "stablehlo.broadcast_in_dim": (_same_type, _composed),
    "stablehlo.transpose": (_identity_permutation, _composed),
    "stablehlo.pad": (_empty_pad,),
    "stablehlo.reduce_window": (_window_of_pad,),
    "stablehlo.slice": (_whole_slice,),
    "stablehlo.concatenate": (_single_concatenate,),
}
"""Op name -> rules, tried in order; the first that answers wins."""


def simplify(function: Function, target=None) -> Function:
    """Apply `RULES` once, in program order."""
    rewriter = Rewriter(function)
    for op in function.ops:
        operands = [rewriter[v] for v in op.operands]
        for rule in RULES.get(op.name, ()):
            value = rule(op, operands, rewriter)
            if value is not None:
                rewriter.replace(op, [value])
                break
        else:
            rewriter.copy(op)
    return rewriter.finish()
