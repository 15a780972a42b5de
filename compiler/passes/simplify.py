"""Algebraic simplification: tables of local rules.

A rule looks at one op whose operands are already simplified and returns the value that can stand for
its result, or None. Rules are exact in IEEE arithmetic, NaN, signed zeros and infinities included
(so `x + 0` stays: it turns -0 into +0; `x * 0` stays: it is NaN for infinite x), but that reductions of
narrow floats are rounded once, not after each element. Those of arithmetic are in `arithmetic.py`,
those of ops that only move elements in `movement.py`.
"""

from __future__ import annotations

from ..ir.core import Function, Op, Value
from ..ir.dtypes import F32, DType
from ..ir.rewrite import Rewriter
from ..ir.structs import DotDimensionNumbers
from ..ops.reduction import combiner, reducer, window_defaults
from .arithmetic import ARITHMETIC, Rule, splat
from .movement import MOVEMENT, append, made_by, same_type
from .units import reshaped_afterwards

__all__ = ["RULES", "simplify", "splat"]

_MANTISSA = {"f16": 11, "bf16": 8, "f32": 24, "f64": 53}
_EXPONENT = {"f16": 5, "bf16": 8, "f32": 8, "f64": 11}


def _holds(wide: DType, dtype: DType) -> bool:
    """Is every number of `dtype` one of `wide`?"""
    if dtype.kind == "bool":
        return wide.is_integer or wide.name in _MANTISSA
    if dtype.is_integer:
        signed = dtype.kind == "int"
        if wide.name in _MANTISSA:
            return dtype.bits - signed <= _MANTISSA[wide.name]
        if wide.kind == dtype.kind:
            return wide.bits >= dtype.bits
        return wide.kind == "int" and wide.bits > dtype.bits
    known = wide.name in _MANTISSA and dtype.name in _MANTISSA
    return known and (_MANTISSA[wide.name] >= _MANTISSA[dtype.name]
                      and _EXPONENT[wide.name] >= _EXPONENT[dtype.name])


def _convert_twice(op: Op, operands: list[Value], rewriter: Rewriter) -> Value | None:
    """Through a type that holds every number of the first, as if it was not there."""
    inner = made_by(operands[0], "convert")
    if inner is None or not _holds(operands[0].dtype, inner.operands[0].dtype):
        return None
    x = inner.operands[0]
    if x.type == op.result.type:
        return x
    if x.dtype.is_integer and operands[0].dtype.is_float and op.result.dtype.is_integer:
        return None  # Floats stop at the ends of integers, integers wrap.
    return append(rewriter, op, "convert", [x], {"dtype": op.result.dtype}, op.result.type)


_REPEATABLE = frozenset({"maximum", "minimum", "and", "or"})


def _reduce_twice(op: Op, operands: list[Value], rewriter: Rewriter) -> Value | None:
    """Of the same extreme or bits, along all dims at once; sums would round otherwise."""
    if len(operands) != 2:
        return None
    inner = made_by(operands[0], "reduce")
    kind = combiner(op.regions[0])
    if inner is None or kind not in _REPEATABLE or len(inner.operands) != 2 or (
            combiner(inner.regions[0]) != kind or not _same_number(inner.operands[1], operands[1])):
        return None
    gone = inner.attributes["dimensions"]
    left = [d for d in range(len(inner.operands[0].shape)) if d not in gone]
    dims = tuple(sorted((*gone, *(left[d] for d in op.attributes["dimensions"]))))
    return rewriter.append(op.definition, inner.operands, [op.result.type], {"dimensions": dims},
                           op.regions, op.location).result


_ROUNDED = frozenset({"add", "multiply", "maximum", "minimum"})


def _reduce_narrow(op: Op, operands: list[Value], rewriter: Rewriter) -> Value | None:
    """In f32, as XLA and oneDNN do; kernels of reductions are for that and wider types."""
    dtype, kind = operands[0].dtype, combiner(op.regions[0])
    if len(operands) != 2 or kind not in _ROUNDED or not dtype.is_float or dtype.bits >= 32:
        return None
    wide = [append(rewriter, op, "convert", [x], {"dtype": F32}) for x in operands]
    total = rewriter.append(op.definition, wide, [op.result.type.with_dtype(F32)], op.attributes,
                            [reducer(kind, F32)], op.location).result
    return append(rewriter, op, "convert", [total], {"dtype": dtype})


def _same_number(a: Value, b: Value) -> bool:
    known = [splat(v) for v in (a, b)]
    return a is b or (known[0] is not None and known[1] is not None
                      and known[0].tobytes() == known[1].tobytes())


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
    **MOVEMENT,
    **ARITHMETIC,
    "stablehlo.dot_general": (_dot_of_transpose,),
    "stablehlo.reduce_window": (_window_of_pad,),
    "stablehlo.convert": (same_type, _convert_twice),
    "stablehlo.reduce": (_reduce_twice, _reduce_narrow),
}
"""Op name -> rules, tried in order; the first that answers wins."""

ELEMENTWISE: tuple[Rule, ...] = (reshaped_afterwards,)
"""Rules for every op that makes an element of elements at the same place, after its own."""


def simplify(function: Function, target=None) -> Function:
    """Apply `RULES` in program order, to what a rule makes as well."""
    rewriter = Rewriter(function)
    for op in function.ops:
        value = _simplified(op, [rewriter[v] for v in op.operands], rewriter)
        if value is None:
            rewriter.copy(op)
            continue
        further: Value | None = value
        while further is not None:
            value, made = further, further.op
            if made is None or not rewriter.block.ops or rewriter.block.ops[-1] is not made:
                break
            further = _simplified(made, list(made.operands), rewriter)
        rewriter.replace(op, [value])
    return rewriter.finish()


def _simplified(op: Op, operands: list[Value], rewriter: Rewriter) -> Value | None:
    elementwise = getattr(op.definition, "scalar", None) is not None
    for rule in (*RULES.get(op.name, ()), *(ELEMENTWISE if elementwise else ())):
        value = rule(op, operands, rewriter)
        if value is not None:
            return value
    return None
