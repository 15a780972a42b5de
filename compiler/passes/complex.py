"""Complex numbers as pairs: every complex value becomes its real and its imaginary part.

The code generator knows real numbers only. Complex arguments come in through `real` and `imag`, results
leave through `complex`, and in between are pairs: what moves numbers moves each part, arithmetic and
functions are those of `numpy/complexes.py`, regions take and return both parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import UnsupportedError
from ..ir.core import Block, Function, Op, TensorType, Value
from ..ir.dtypes import F32, F64, UI32, UI64, DType
from ..numpy import complexes
from ..ops.complex import PART
from ..ops.elementwise import BitcastConvert
from ..ops.reduction import combiner
from ..trace.core import bind, located, replay_op, replay_ops, trace, trace_region
from .regions import CONTROL, REGION

_MOVES = frozenset("stablehlo." + name for name in (
    "add", "subtract", "negate", "reshape", "transpose", "broadcast_in_dim", "slice", "reverse", "pad",
    "concatenate", "gather", "dynamic_slice", "dynamic_update_slice", "select",
    "optimization_barrier"))
"""Ops that do the same to each part."""

FUNCTIONS: dict[str, Callable[..., complexes.Pair]] = {
    "stablehlo.sign": complexes.sign, "stablehlo.exponential": complexes.exponential_op,
    "stablehlo.exponential_minus_one": complexes.exponential_minus_one,
    "stablehlo.log": complexes.logarithm, "stablehlo.log_plus_one": complexes.log_plus_one,
    "stablehlo.sqrt": complexes.square_root, "stablehlo.rsqrt": complexes.reciprocal_root,
    "stablehlo.cbrt": complexes.cube_root, "stablehlo.sine": complexes.sine,
    "stablehlo.cosine": complexes.cosine, "stablehlo.tan": complexes.tangent,
    "stablehlo.tanh": complexes.hyperbolic_tangent, "stablehlo.logistic": complexes.logistic,
    "chlo.square": complexes.square,
    "chlo.acos": complexes.arccosine, "chlo.acosh": complexes.hyperbolic_arccosine,
    "chlo.asin": complexes.arcsine, "chlo.asinh": complexes.hyperbolic_arcsine,
    "chlo.atan": complexes.arctangent, "chlo.atanh": complexes.hyperbolic_arctangent,
    "chlo.sinh": complexes.hyperbolic_sine, "chlo.cosh": complexes.hyperbolic_cosine,
    "chlo.tan": complexes.tangent,
}
"""Functions of one number."""


def split_complex(function: Function, target=None) -> Function:
    """`function` on real numbers inside; itself when it has no complex ones, or is a region: those are
    split with the function around them."""
    if function.name == REGION:
        return function
    if not any(v.dtype.kind == "complex" for op in function.body.walk()
               for v in (*op.operands, *op.results)):
        return function

    def body(*arguments):
        environment = {v: _taken(a) for v, a in zip(function.arguments, arguments, strict=True)}
        _run(function.body, environment)
        return [_given(environment[v]) for v in function.returns]

    new, _ = trace(body, function.argument_types, function.name)
    return Function(new.name, new.body, function.argument_attributes, function.result_attributes,
                    function.public)


class Pair(tuple):
    """The two parts of a complex value."""

    __slots__ = ()


def _is_complex(value: Value) -> bool:
    return value.dtype.kind == "complex"


def _taken(x: Any) -> Any:
    """A value from outside in parts."""
    if x.type.dtype.kind != "complex":
        return x
    return Pair((bind("stablehlo.real", x), bind("stablehlo.imag", x)))


def _given(x: Any) -> Any:
    """A value for outside, whole."""
    return bind("stablehlo.complex", *x) if isinstance(x, Pair) else x


def _run(block: Block, environment: dict[Value, Any]) -> None:
    for op in block.ops:
        with located(op.location):
            results = _op(op, [environment[v] for v in op.operands], environment)
        environment.update(zip(op.results, results, strict=True))


def _op(op: Op, operands: list[Any], environment: Mapping[Value, Any]) -> list[Any]:
    if op.regions:
        return _with_regions(op, operands, environment)
    if not any(_is_complex(v) for v in (*op.operands, *op.results)):
        return replay_op(op, operands, environment)
    if op.definition.host or op.has_effect:
        results = replay_op(op, [_given(o) for o in operands], environment)
        return [_taken(r) for r in results]
    if op.name in _MOVES:
        parts = [bind(op.definition, *(o[i] if isinstance(o, Pair) else o for o in operands),
                      **op.attributes) for i in range(2)]
        if len(op.results) == 1:
            return [Pair(parts)]
        return [Pair(p) if _is_complex(r) else p[0]
                for r, p in zip(op.results, zip(*parts, strict=True), strict=True)]
    if op.name in FUNCTIONS:
        return [Pair(FUNCTIONS[op.name](*operands[0]))]
    rule = _RULES.get(op.name)
    if rule is None:
        raise UnsupportedError(f"{op.name} of complex numbers is not supported in compiled programs",
                               op.location)
    result = rule(op, *operands)
    return [Pair(result) if isinstance(result, tuple) else result]


# -- regions --------------------------------------------------------------------------------------

def _part_types(types: Sequence[TensorType]) -> list[TensorType]:
    return [part for t in types for part in (
        [t.with_dtype(PART[t.dtype])] * 2 if t.dtype in PART else [t])]


def _flat(values: Sequence[Any]) -> list[Any]:
    return [part for v in values for part in (v if isinstance(v, Pair) else [v])]


def _grouped(flat: Sequence[Any], values: Sequence[Value]) -> list[Any]:
    rest = iter(flat)
    return [Pair((next(rest), next(rest))) if _is_complex(v) else next(rest) for v in values]


def _region(block: Block, environment: Mapping[Value, Any]) -> Block:
    def body(*arguments):
        inner = dict(environment)
        inner.update(zip(block.arguments, _grouped(arguments, block.arguments), strict=True))
        _run(block, inner)
        return _flat([inner[v] for v in block.returns])

    return trace_region(body, _part_types([a.type for a in block.arguments]))


def _with_regions(op: Op, operands: list[Any], environment: Mapping[Value, Any]) -> list[Any]:
    inside = [v for r in op.regions for o in r.walk() for v in (*o.operands, *o.results)]
    if not any(_is_complex(v) for v in (*op.operands, *op.results, *inside)):
        return replay_op(op, operands, environment)
    if op.name not in CONTROL and _moves_parts(op):
        return _by_parts(op, operands)
    regions = [_region(r, environment) for r in op.regions]
    if op.name == "stablehlo.sort":
        regions = [_comparator(regions[0], op.operands)]
    results = bind(op.definition, *_flat(operands), regions=regions, **op.attributes)
    results = results if isinstance(results, list) else [results]
    return _grouped(results, op.results)


def _comparator(block: Block, operands: Sequence[Value]) -> Block:
    """A comparator takes the two scalars of each operand side by side, so both of each part."""
    order: list[int] = []
    at = 0
    for value in operands:
        count = 2 if _is_complex(value) else 1
        for i in range(count):
            order += [at + i, at + count + i]
        at += 2 * count
    arguments = [block.arguments[i] for i in order]

    def body(*scalars):
        environment = dict(zip(arguments, scalars, strict=True))
        replay_ops(block.ops, environment)
        return [environment[v] for v in block.returns]

    return trace_region(body, [a.type for a in arguments])


def _moves_parts(op: Op) -> bool:
    """Does the region add, or take one of its arguments as it is?"""
    body = op.regions[0]
    if op.name == "stablehlo.select_and_scatter":
        return False
    return combiner(body) == "add" or (not body.ops and len(op.results) == 1)


def _by_parts(op: Op, operands: list[Any]) -> list[Any]:
    parts = []
    for i in range(2):
        region = trace_region(
            lambda *scalars: [bind(op.regions[0].ops[0].definition, *scalars)]
            if op.regions[0].ops else [scalars[op.regions[0].returns[0].index]],
            [t.with_dtype(PART[t.dtype]) for t in (a.type for a in op.regions[0].arguments)])
        parts.append(bind(op.definition, *(o[i] if isinstance(o, Pair) else o for o in operands),
                          regions=[region], **op.attributes))
    return [Pair(parts)]


# -- ops with rules of their own ------------------------------------------------------------------

def _zeros(x: Any) -> Any:
    return bind("stablehlo.broadcast_in_dim", np.zeros((), x.dtype), shape=x.shape,
                broadcast_dimensions=())


def _constant(op: Op) -> Pair:
    value = np.asarray(op.attributes["value"])
    return Pair(bind("stablehlo.constant", value=np.ascontiguousarray(p).reshape(value.shape))
                for p in (value.real, value.imag))


def _iota(op: Op) -> Pair:
    type: TensorType = op.attributes["type"]
    real = bind("stablehlo.iota", **{**op.attributes, "type": type.with_dtype(PART[type.dtype])})
    return Pair((real, _zeros(real)))


def _convert(op: Op, x: Any) -> Any:
    dtype: DType = op.attributes["dtype"]
    if dtype not in PART:
        return bind("stablehlo.convert", x[0], dtype=dtype)
    part = PART[dtype]
    if isinstance(x, Pair):
        return Pair(bind("stablehlo.convert", p, dtype=part) for p in x)
    real = bind("stablehlo.convert", x, dtype=part)
    return Pair((real, _zeros(real)))


def _compare(op: Op, x: Pair, y: Pair) -> Any:
    direction = op.attributes["comparison_direction"]

    def compare(a, b, how):
        return bind("stablehlo.compare", a, b, comparison_direction=how)

    if direction in ("EQ", "NE"):
        return bind(f"stablehlo.{'and' if direction == 'EQ' else 'or'}",
                    compare(x[0], y[0], direction), compare(x[1], y[1], direction))
    # In order of the real parts, then of the imaginary ones.
    first = compare(x[0], y[0], direction[0] + "T")
    second = bind("stablehlo.and", compare(x[0], y[0], "EQ"), compare(x[1], y[1], direction))
    return bind("stablehlo.or", first, second)


def _extreme(direction: str):
    def rule(op: Op, x: Pair, y: Pair) -> Pair:
        def compare(a, b, how):
            return bind("stablehlo.compare", a, b, comparison_direction=how)

        keep = bind("stablehlo.or", compare(x[0], y[0], direction), bind(
            "stablehlo.and", compare(x[0], y[0], "EQ"), compare(x[1], y[1], direction)))
        nan = bind("stablehlo.or", compare(x[0], x[0], "NE"), compare(x[1], x[1], "NE"))
        keep = bind("stablehlo.or", keep, nan)
        return Pair(bind("stablehlo.select", keep, a, b) for a, b in zip(x, y, strict=True))

    return rule


def _clamp(op: Op, low: Any, x: Any, high: Any) -> Pair:
    shape = x[0].shape
    low, high = (Pair(p if p.shape == shape else bind(
        "stablehlo.broadcast_in_dim", p, shape=shape, broadcast_dimensions=()) for p in bound)
        for bound in (low, high))
    return _extreme("LT")(op, _extreme("GT")(op, x, low), high)


def _product(op: Op, x: Any, y: Any) -> Any:
    """dot_general and convolution: four of them."""
    attributes = dict(op.attributes)
    dtype = attributes.get("dtype")
    if dtype in PART:
        attributes["dtype"] = PART[dtype]
    x, y = (v if isinstance(v, Pair) else Pair((v, _zeros(v))) for v in (x, y))

    def one(i, j):
        return bind(op.definition, x[i], y[j], **attributes)

    if op.result.dtype not in PART:
        return bind("stablehlo.subtract", one(0, 0), one(1, 1))
    return Pair((bind("stablehlo.subtract", one(0, 0), one(1, 1)),
                 bind("stablehlo.add", one(0, 1), one(1, 0))))


def _bitcast(op: Op, x: Any) -> Any:
    """Through unsigned integers; the real part is the low half."""
    target: DType = op.attributes["dtype"]

    def cast(value, dtype):
        if value.type.dtype.bits != dtype.bits:  # Other widths are made of shifts.
            return BitcastConvert.decompose([value], {"dtype": dtype}, ())[0]
        return bind("stablehlo.bitcast_convert", value, dtype=dtype)

    if isinstance(x, Pair) and x[0].type.dtype is PART.get(target):
        return x
    if isinstance(x, Pair) and target in PART:
        # c128 to c64 and back: each f64 is two f32, the parts of one c64.
        if x[0].type.dtype is F64:
            halves = [cast(p, F32) for p in x]
            rank = len(halves[0].shape)
            bounds: dict[str, Any] = {"strides": (1,) * rank}
            rows = [[bind("stablehlo.slice", h, start_indices=(0,) * (rank - 1) + (i,),
                          limit_indices=(*h.shape[:-1], i + 1), **bounds) for h in halves]
                    for i in range(2)]
            return Pair(bind("stablehlo.concatenate", *row, dimension=rank - 1) for row in rows)
        rank = len(x[0].shape)
        joined = []
        for i in range(2):
            words = [bind("stablehlo.slice", p, start_indices=(0,) * (rank - 1) + (i,),
                          limit_indices=(*p.shape[:-1], i + 1), strides=(1,) * rank) for p in x]
            joined.append(cast(bind("stablehlo.concatenate", *words, dimension=rank - 1), F64))
        return Pair(joined)
    if isinstance(x, Pair):
        if x[0].type.dtype is not F32:
            raise UnsupportedError(f"bitcast_convert of complex<f64> to {target} is not supported",
                                   op.location)
        low, high = (bind("stablehlo.convert", cast(p, UI32), dtype=UI64) for p in x)
        shift = bind("stablehlo.broadcast_in_dim", np.uint64(32), shape=high.shape,
                     broadcast_dimensions=())
        word = bind("stablehlo.or", low, bind("stablehlo.shift_left", high, shift))
        return cast(word, target)
    words = cast(cast(x, UI64), UI32)
    rank = len(words.shape)
    parts = []
    for i in range(2):
        part = bind("stablehlo.slice", words, start_indices=(0,) * (rank - 1) + (i,),
                    limit_indices=(*words.shape[:-1], i + 1), strides=(1,) * rank)
        parts.append(cast(bind("stablehlo.reshape", part, shape=tuple(words.shape[:-1])), F32))
    return Pair(parts)


_RULES: dict[str, Callable[..., Any]] = {
    "stablehlo.constant": _constant,
    "stablehlo.iota": _iota,
    "stablehlo.convert": _convert,
    "stablehlo.compare": _compare,
    "stablehlo.real": lambda op, x: x[0],
    "stablehlo.imag": lambda op, x: x[1],
    "stablehlo.complex": lambda op, x, y: Pair((x, y)),
    "stablehlo.abs": lambda op, x: complexes.hypot(*x),
    "stablehlo.multiply": lambda op, x, y: Pair(complexes.multiply(x, y)),
    "stablehlo.divide": lambda op, x, y: Pair(complexes.divide(x, y)),
    "stablehlo.power": lambda op, x, y: Pair(complexes.power(x, y)),
    "stablehlo.maximum": _extreme("GT"),
    "stablehlo.minimum": _extreme("LT"),
    "stablehlo.clamp": _clamp,
    "stablehlo.dot_general": _product,
    "stablehlo.convolution": _product,
    "stablehlo.bitcast_convert": _bitcast,
}

