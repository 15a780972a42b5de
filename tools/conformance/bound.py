"""How far a compiled program may be from the evaluator: exact, but for what rounding may change.

Both engines round every op once; they differ where StableHLO leaves room: elementary functions (within
`FUNCTION_ULP` units in the last place), the order of sums, and products contracted into FMA. The bound
propagates those differences through the program by running it again with random errors of that size
put in: each place may be off by `SLACK` times the largest deviation seen there, and by nothing where
no run deviates. A comparison or a conversion at a rounding boundary then bounds itself: where runs
disagree by a whole step, so may the engines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from ...compiler.ir.core import Block, Function, Op, Value
from ...compiler.ir.dtypes import F4E2M1FN, F6E2M3FN, F6E3M2FN, DType, as_dtype
from ...compiler.ir.rewrite import substitute_function
from ...compiler.ops.declare import REGISTRY
from ...compiler.ops.elementwise import Elementwise
from ...compiler.passes.complex import split_complex
from ...compiler.passes.inline import inline
from ...compiler.passes.quantized import lower_quantized
from ...compiler.passes.regions import everywhere
from ...compiler.trace.core import conform

FUNCTION_ULP = 4
SUM_ULP = 4
SLACK = 8
RUNS = 3
MORE_RUNS = 40
"""Runs before a difference counts as one."""

FUNCTIONS = frozenset(n for n, op in REGISTRY.items() if issubclass(op, Elementwise) and op.expensive)
SUMS = frozenset("stablehlo." + n for n in (
    "reduce", "reduce_window", "dot_general", "convolution", "scatter", "select_and_scatter", "fft",
    "triangular_solve", "cholesky"))
ORDERED_SUMS = SUMS - {"stablehlo.fft", "stablehlo.triangular_solve", "stablehlo.cholesky"}
"""Sums whose order is open: what overflows in one order may not in another."""
ADDITIONS = frozenset({"stablehlo.add", "stablehlo.subtract"})
PRODUCTS = frozenset({"stablehlo.multiply", "chlo.square"})
"""What may be contracted with an addition."""

WITHOUT_NAN = frozenset({F4E2M1FN, F6E2M3FN, F6E3M2FN})
"""A NaN becomes a zero in these, with the sign of the NaN, which is not specified."""
EXACT = frozenset("stablehlo." + n for n in (
    "constant", "abs", "negate", "maximum", "minimum", "select", "clamp", "reshape", "transpose",
    "slice", "gather", "concatenate", "broadcast_in_dim", "pad", "reverse", "sort", "iota", "sign"))
"""Ops that make no NaN."""


@dataclass(frozen=True)
class Difference:
    """The first place where a result is out of bounds."""

    output: int
    index: tuple[int, ...]
    compiled: object
    evaluated: object
    allowed: float

    def __str__(self) -> str:
        return (f"result {self.output}{list(self.index)} is {self.compiled} compiled,"
                f" {self.evaluated} evaluated; {self.allowed} apart is allowed")


def difference(function: Function, arrays: Sequence[np.ndarray], sizes: Mapping[str, int],
               compiled: Sequence[np.ndarray], evaluated: Sequence[np.ndarray]) -> Difference | None:
    """The first difference that rounding does not explain."""
    wrong = [_unequal(c, e) for c, e in zip(compiled, evaluated, strict=True)]
    if not any(w.any() for w in wrong):
        return None
    flat = everywhere(lambda f, _: split_complex(lower_quantized(inline(f))),
                      substitute_function(function, sizes) if sizes else function)
    allowed = [np.zeros(e.shape) for e in evaluated]
    for seed in range(MORE_RUNS):
        again = perturbed(flat, arrays, np.random.default_rng(seed))
        for a, e, p in zip(allowed, evaluated, again, strict=True):
            np.maximum(a, SLACK * distance(p, e), out=a)
        wrong = [_unequal(c, e) & ~(distance(c, e) <= a)
                 for c, e, a in zip(compiled, evaluated, allowed, strict=True)]
        if seed + 1 >= RUNS and not any(w.any() for w in wrong):
            return None
    output = next(i for i, w in enumerate(wrong) if w.any())
    index = tuple(int(i) for i in np.argwhere(wrong[output])[0])
    return Difference(output, index, compiled[output][index], evaluated[output][index],
                      float(allowed[output][index]))


def _unequal(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where two arrays differ; all NaNs are equal, zeros are not."""
    if x.dtype.kind == "c":
        return _unequal(x.real, y.real) | _unequal(x.imag, y.imag)
    if not as_dtype(x.dtype).is_float:
        return np.asarray(x != y)
    x, y = x.astype(np.float64), y.astype(np.float64)
    return ~((x == y) & (np.signbit(x) == np.signbit(y)) | np.isnan(x) & np.isnan(y))


def distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Elementwise: 0 where equal, infinite where only one is finite (or a NaN)."""
    if x.dtype.kind == "c":
        return np.maximum(distance(x.real, y.real), distance(x.imag, y.imag))
    if not as_dtype(x.dtype).is_float:
        return np.where(x == y, 0.0, np.inf)
    with np.errstate(all="ignore"):
        a, b = x.astype(np.float64), y.astype(np.float64)
        gap = np.where(a == b, np.where(np.signbit(a) == np.signbit(b), 0.0, 5e-324), np.abs(a - b))
        return np.where(np.isnan(a) & np.isnan(b), 0.0, np.where(np.isnan(gap), np.inf, gap))


# -- running with errors --------------------------------------------------------------------------

def perturbed(function: Function, arrays: Sequence[np.ndarray], rng: np.random.Generator
              ) -> list[np.ndarray]:
    """The results of a flat function with rounding errors put in wherever engines may differ."""
    environment = dict(zip(function.arguments, map(np.asarray, arrays), strict=True))
    with np.errstate(all="ignore"):
        return _run(function.body, environment, rng)


def _run(block: Block, environment: dict[Value, np.ndarray], rng) -> list[np.ndarray]:
    for op in block.ops:
        operands = [environment[v] for v in op.operands]
        if op.name in _CONTROL:
            results = _CONTROL[op.name](op, operands, environment, rng)
        else:
            results = op.definition.rule("evaluate")(
                _operands(op, operands, rng), op.attributes, op.regions, [r.type for r in op.results])
        for value, result in zip(op.results, results, strict=True):
            result = conform(result, value.type)
            if op.name in FUNCTIONS or op.name in SUMS:
                result = shaken(result, FUNCTION_ULP, rng)
            if op.name in ORDERED_SUMS:
                result = _any_zero(result, rng) if value.dtype.is_float else result
                result = _cancelled(op, operands, value, result, rng)
                result = _astray(op, operands, value, result, rng)
            if value.dtype in WITHOUT_NAN and op.name not in EXACT:
                result = _any_zero(result, rng)
            environment[value] = result
    return [environment[v] for v in block.returns]


def _operands(op: Op, operands: list[np.ndarray], rng) -> list[np.ndarray]:
    if op.name in SUMS:
        return [shaken(x, SUM_ULP, rng, contracted=_is_product(v))
                for v, x in zip(op.operands, operands, strict=True)]
    if op.name in ADDITIONS:
        return [shaken(x, 1, rng, contracted=True) if _is_product(v) else x
                for v, x in zip(op.operands, operands, strict=True)]
    if (op.name in ("stablehlo.bitcast_convert", "stablehlo.sort", "chlo.top_k")
            or op.attributes.get("compare_type") == "TOTALORDER"):
        return [_any_nan(x, rng) for x in operands]
    return operands


def _is_product(value: Value) -> bool:
    return value.op is not None and value.op.name in PRODUCTS


def shaken(x: np.ndarray, ulp: int, rng, contracted: bool = False) -> np.ndarray:
    """`x` with each float up to `ulp` units in the last place away (one for narrow types). A
    `contracted` infinity may have been finite before it was rounded, and a zero not quite zero."""
    dtype = as_dtype(x.dtype)
    if dtype.kind == "complex":
        return _complex(shaken(x.real, ulp, rng), shaken(x.imag, ulp, rng), x.dtype)
    if not dtype.is_float or not x.size:
        return x
    ulp = 1 if dtype.is_narrow else ulp
    bits = np.ascontiguousarray(x).view(f"i{dtype.itemsize}").reshape(x.shape)
    step = rng.integers(-ulp, ulp + 1, x.shape).astype(bits.dtype)
    moved = (bits + step).view(x.dtype)
    kept = ~np.isfinite(x.astype(np.float32 if dtype.is_narrow else x.dtype)) | (
        (bits & np.iinfo(bits.dtype).max) < ulp)
    result = np.where(kept, x, moved)
    if contracted and not dtype.is_narrow:
        info, chosen = np.finfo(x.dtype), rng.integers(0, 2, x.shape) == 1
        result = np.where(np.isinf(result) & chosen, np.copysign(info.max, x), result)
        result = np.where((x == 0) & chosen, np.copysign(info.smallest_subnormal, x), result)
    return result.astype(x.dtype)


def _complex(real: np.ndarray, imaginary: np.ndarray, dtype: np.dtype) -> np.ndarray:
    result = np.empty(real.shape, dtype)
    result.real, result.imag = real, imaginary
    return result


def _astray(op: Op, operands: list[np.ndarray], value: Value, result: np.ndarray, rng) -> np.ndarray:
    """`result` with anything where a partial sum may have left the range: sums of narrow floats may be
    rounded once, at the end."""
    if not value.dtype.is_float:
        return result
    lost = rng.choice([np.nan, np.inf, -np.inf, 1.0], result.shape)
    if value.dtype in WITHOUT_NAN:
        info = ml_dtypes.finfo(result.dtype)
        lost = np.where(rng.integers(0, 2, result.shape) == 1, float(info.max), float(info.min))
    open_ = _overflows(op, operands, value) | _is_open(op, operands)
    chosen = open_ & (rng.integers(0, 4, result.shape) > 0)
    return np.where(chosen, np.asarray(lost).astype(result.dtype), result)


def _cancelled(op: Op, operands: list[np.ndarray], value: Value, result: np.ndarray, rng) -> np.ndarray:
    """`result` with zeros where no more than the rounding of its addends is left of them."""
    if not value.dtype.is_float:
        return result
    addends = op.definition.rule("evaluate")(
        [np.abs(x) if as_dtype(x.dtype).is_float else x for x in operands], op.attributes, op.regions,
        [r.type for r in op.results])[value.index]
    size = np.asarray(addends).astype(np.float64) * float(ml_dtypes.finfo(result.dtype).eps)
    little = np.abs(result.astype(np.float64)) <= SUM_ULP * size
    return np.where(little & (rng.integers(0, 2, result.shape) == 1), result.dtype.type(0), result)


def _overflows(op: Op, operands: list[np.ndarray], value: Value) -> np.ndarray:
    """Where the sum (or product) of magnitudes leaves the range, whatever is infinite already."""
    sizes = []
    for x in operands:
        dtype = as_dtype(x.dtype)
        if not dtype.is_float:
            sizes.append(x)
            continue
        top = np.asarray(ml_dtypes.finfo(x.dtype).max)
        wide = np.nan_to_num(np.abs(x.astype(np.float64)), nan=1.0, posinf=1.0)
        sizes.append(np.clip(wide, 1, float(top)).astype(x.dtype))
    total = op.definition.rule("evaluate")(
        sizes, op.attributes, op.regions, [r.type for r in op.results])[value.index]
    most = float(ml_dtypes.finfo(value.dtype.numpy).max)
    return ~(np.abs(np.asarray(total).astype(np.float64)) < most)


def _is_open(op: Op, operands: list[np.ndarray]) -> bool:
    """Are there infinite weights, or has the type no zero to pad with? A convolution may leave out the
    products with padding and holes."""
    return op.name == "stablehlo.convolution" and not (
        np.isfinite(operands[1].astype(np.float64)).all() and operands[0].dtype.type(0) == 0)


def _any_zero(x: np.ndarray, rng) -> np.ndarray:
    """Zeros of any sign, or all of one."""
    negative = rng.integers(0, 2, x.shape if rng.integers(0, 2) else ()) == 1
    signed = np.where(negative, np.asarray(-0.0, x.dtype), np.asarray(0.0, x.dtype))
    return np.where(x.astype(np.float64) == 0, signed, x).astype(x.dtype)


def _any_nan(x: np.ndarray, rng) -> np.ndarray:
    """The bits of a NaN are not specified: change its sign or its payload."""
    dtype: DType = as_dtype(x.dtype)
    if dtype.kind == "complex":
        return _complex(_any_nan(x.real, rng), _any_nan(x.imag, rng), x.dtype)
    if not dtype.is_float or not np.isnan(x.astype(np.float64)).any():
        return x
    plain = np.where(np.isnan(x), np.asarray(np.nan, x.dtype), x)
    negative = rng.integers(0, 2, x.shape if rng.integers(0, 2) else ()) == 1
    return np.where(np.isnan(x) & negative, -plain, plain).astype(x.dtype)


# -- control flow ---------------------------------------------------------------------------------

def _region(block: Block, arguments, environment, rng) -> list[np.ndarray]:
    return _run(block, {**environment, **dict(zip(block.arguments, arguments, strict=True))}, rng)


def _while(op: Op, state, environment, rng):
    cond, body = op.regions
    while _region(cond, state, environment, rng)[0]:
        state = _region(body, state, environment, rng)
    return state


def _if(op: Op, operands, environment, rng):
    return _region(op.regions[0 if operands[0] else 1], (), environment, rng)


def _case(op: Op, operands, environment, rng):
    index, last = int(operands[0]), len(op.regions) - 1
    return _region(op.regions[index if 0 <= index <= last else last], (), environment, rng)


_CONTROL = {"stablehlo.while": _while, "stablehlo.if": _if, "stablehlo.case": _case}
