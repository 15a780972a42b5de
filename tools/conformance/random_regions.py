"""Makers of ops with regions or contractions: reductions, products, loops, branches, calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...compiler.ir.core import TensorType
from ...compiler.ir.dims import Dim
from ...compiler.ir.dtypes import C64, C128, F32, F64, I1, I32, UI32, UI64
from ...compiler.ir.structs import ConvDimensionNumbers, DotDimensionNumbers
from ...compiler.ops.declare import BOOL, COMPLEX, FLOAT, INTEGER, NUMBER
from ...compiler.trace import control
from .random_ops import LEFT_OUT, MAKERS, NAMES, ORDERED, RANKED, REAL, maker
from .random_programs import Builder

MAX_DEPTH = 2
"""Loops and branches nest to this depth."""


# -- reductions -----------------------------------------------------------------------------------

def combiners(type: TensorType) -> tuple[str, ...]:
    if type.dtype in BOOL:
        return ("or", "and", "add", "maximum", "xor")
    if type.dtype in INTEGER:
        return ("add", "maximum", "minimum", "and", "or", "xor", "multiply")
    return ("add", "multiply") if type.dtype in COMPLEX else ("add", "maximum", "minimum", "multiply")


def reducer(b: Builder, scalars: Sequence[TensorType]) -> Any:
    """A region that combines values in any order: one op of each type, now and then a longer way."""
    kinds = [b.pick(combiners(t)) for t in scalars]
    longer = b.chance(5)

    def body(*values: Any) -> list[Any]:
        results = []
        for i, kind in enumerate(kinds):
            x, y = values[i], values[i + len(kinds)]
            if longer and x.type.dtype in NUMBER and kind == "add":
                x, y = (b.one("stablehlo.negate", v) for v in (x, y))
                results.append(b.one("stablehlo.negate", b.one("stablehlo.add", x, y)))
            else:
                results.append(b.one(f"stablehlo.{kind}", x, y))
        return results

    return b.region([*scalars, *scalars], body, 0, closed=True)


def _inputs(b: Builder, accepts=None) -> tuple[list[Any], list[TensorType]]:
    x = b.value(accepts, RANKED)
    inputs = [x, *(b.like(x.type.with_dtype(b.dtype())) for _ in range(b.pick((0, 0, 0, 1, 2))))]
    return inputs, [TensorType((), v.type.dtype) for v in inputs]


@maker("stablehlo.reduce")
def _reduce(b: Builder) -> Sequence[Any]:
    inputs, scalars = _inputs(b)
    dims = tuple(b.subset(range(len(inputs[0].shape))))
    return b.record("stablehlo.reduce", *inputs, *map(b.like, scalars), dimensions=dims,
                    regions=[reducer(b, scalars)])


def _window(b: Builder, shape: Sequence[Any], dilated: bool = True) -> dict[str, Any]:
    fixed = [isinstance(d, Dim) for d in shape]

    def each(choices: Sequence[int], still: int = 1) -> tuple[int, ...]:
        return tuple(still if f else b.pick(choices) for f in fixed)

    found: dict[str, Any] = {"window_dimensions": each((1, 2, 3)), "window_strides": each((1, 2))}
    if dilated:
        found["base_dilations"], found["window_dilations"] = each((1, 1, 2)), each((1, 1, 2))
    found["padding"] = tuple(zip(each((0, 0, 1), 0), each((0, 0, 1), 0), strict=True))
    return found


@maker("stablehlo.reduce_window")
def _reduce_window(b: Builder) -> Sequence[Any]:
    inputs, scalars = _inputs(b)
    return b.record("stablehlo.reduce_window", *inputs, *map(b.like, scalars),
                    regions=[reducer(b, scalars)], **_window(b, inputs[0].shape))


@maker("stablehlo.select_and_scatter")
def _select_and_scatter(b: Builder) -> Sequence[Any]:
    from ...compiler.ops.reduction import _window_shape

    x = b.value(REAL, RANKED, static=True)
    window = _window(b, x.shape, dilated=False)
    scalar = TensorType((), x.type.dtype)
    source = b.like(x.type.with_shape(_window_shape(x.type, window)))
    direction = b.pick(("GE", "LE"))
    select = b.region([scalar, scalar], lambda p, q: b.record(
        "stablehlo.compare", p, q, comparison_direction=direction), 0, closed=True)
    scatter = b.region([scalar, scalar], lambda p, q: b.record("stablehlo.add", p, q), 0, closed=True)
    return b.record("stablehlo.select_and_scatter", x, source, b.like(scalar),
                    regions=[select, scatter], **window)


@maker("stablehlo.map")
def _map(b: Builder) -> Sequence[Any]:
    x = b.value()
    names = ("stablehlo.negate", "stablehlo.abs", "stablehlo.not", "stablehlo.sign")
    name = b.pick(names)
    region = b.region([TensorType((), x.type.dtype)], lambda v: b.record(name, v), 0, closed=True)
    return b.record("stablehlo.map", x, dimensions=tuple(range(len(x.shape))), regions=[region])


# -- products -------------------------------------------------------------------------------------

@maker("stablehlo.dot_general")
def _dot_general(b: Builder) -> Sequence[Any]:
    x = b.value(ranks=RANKED)
    dims = list(range(len(x.shape)))
    batch = [d for d in b.subset(dims) if b.chance(2)]
    contracted = [d for d in b.subset(dims) if d not in batch]
    free = list(b.shape(b.integer(0, 2), 20))
    order = b.shuffled([*(("b", d) for d in batch), *(("c", d) for d in contracted),
                        *(("f", i) for i in range(len(free)))])
    shape = tuple(free[i] if kind == "f" else x.shape[i] for kind, i in order)
    y = b.like(x.type.with_shape(shape))
    numbers = DotDimensionNumbers(
        tuple(batch), tuple(order.index(("b", d)) for d in batch),
        tuple(contracted), tuple(order.index(("c", d)) for d in contracted))
    return b.record("stablehlo.dot_general", x, y, dot_dimension_numbers=numbers, dtype=x.type.dtype)


@maker("stablehlo.convolution")
def _convolution(b: Builder) -> Sequence[Any]:
    rank = b.pick((4, 3, 2, 5))
    x = b.value(ranks=(rank,), static=True)
    layout, kernel, result = (b.shuffled(range(rank)) for _ in range(3))
    features, batch = x.shape[layout[1]], x.shape[layout[0]]
    groups = b.pick([g for g in (1, 2, 3) if features % g == 0]) if b.chance(3) else 1
    batches = b.pick([g for g in (1, 2) if batch % g == 0]) if groups == 1 and b.chance(4) else 1
    shape = [0] * rank
    shape[kernel[0]], shape[kernel[1]] = features // groups, groups * batches * b.pick((1, 2, 3))
    for d in kernel[2:]:
        shape[d] = b.pick((1, 2, 3))
    y = b.like(x.type.with_shape(shape))
    spatial = rank - 2
    numbers = ConvDimensionNumbers(
        layout[0], layout[1], tuple(layout[2:]), kernel[0], kernel[1], tuple(kernel[2:]),
        result[0], result[1], tuple(result[2:]))

    def each(choices: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(b.pick(choices) for _ in range(spatial))

    return b.record(
        "stablehlo.convolution", x, y, dimension_numbers=numbers, window_strides=each((1, 2)),
        padding=each(((0, 0), (1, 1), (2, 0), (-1, 0))), lhs_dilation=each((1, 1, 2)),
        rhs_dilation=each((1, 1, 2)), window_reversal=each((False, False, True)),
        feature_group_count=groups, batch_group_count=batches, dtype=x.type.dtype)


@maker("stablehlo.fft")
def _fft(b: Builder) -> Sequence[Any]:
    kind = b.pick(("FFT", "IFFT", "RFFT", "IRFFT"))
    accepts = frozenset({F32, F64} if kind == "RFFT" else {C64, C128})
    x = b.value(accepts, RANKED, static=True)
    length = list(x.shape[-b.integer(1, min(3, len(x.shape))):])
    if kind == "IRFFT":
        length[-1] = max(0, 2 * (length[-1] - 1) + b.integer(0, 1))
    return b.record("stablehlo.fft", x, fft_type=kind, fft_length=tuple(length))


def _square(b: Builder) -> Any:
    n, batch = b.pick((2, 1, 3, 4)), b.shape(b.integer(0, 1), 4)
    return b.like(TensorType((*batch, n, n), b.dtype(frozenset({F32, F64, C64, C128}))))


@maker("stablehlo.cholesky")
def _cholesky(b: Builder) -> Sequence[Any]:
    return b.record("stablehlo.cholesky", _square(b), lower=b.chance(2))


@maker("stablehlo.triangular_solve")
def _triangular_solve(b: Builder) -> Sequence[Any]:
    a, left = _square(b), b.chance(2)
    *batch, n, _ = a.shape
    other = b.pick((1, 2, 5))
    y = b.like(a.type.with_shape((*batch, *((n, other) if left else (other, n)))))
    return b.record("stablehlo.triangular_solve", a, y, left_side=left, lower=b.chance(2),
                    unit_diagonal=b.chance(2),
                    transpose_a=b.pick(("NO_TRANSPOSE", "TRANSPOSE", "ADJOINT")))


def _features(b: Builder) -> tuple[Any, int, TensorType]:
    x = b.value(FLOAT, RANKED)
    index = b.integer(0, len(x.shape) - 1)
    return x, index, TensorType((x.shape[index],), x.type.dtype)


@maker("stablehlo.batch_norm_training")
def _batch_norm_training(b: Builder) -> Sequence[Any]:
    x, index, t = _features(b)
    return b.record("stablehlo.batch_norm_training", x, b.like(t), b.like(t), epsilon=0.5,
                    feature_index=index)


@maker("stablehlo.batch_norm_inference")
def _batch_norm_inference(b: Builder) -> Sequence[Any]:
    x, index, t = _features(b)
    return b.record("stablehlo.batch_norm_inference", x, *(b.like(t) for _ in range(4)), epsilon=0.5,
                    feature_index=index)


@maker("stablehlo.batch_norm_grad")
def _batch_norm_grad(b: Builder) -> Sequence[Any]:
    x, index, t = _features(b)
    return b.record("stablehlo.batch_norm_grad", x, *(b.like(t) for _ in range(3)), b.like(x.type),
                    epsilon=0.5, feature_index=index)


@maker("stablehlo.rng_bit_generator")
def _rng_bit_generator(b: Builder) -> Sequence[Any]:
    state = b.like(TensorType((2,), UI64))
    return b.record("stablehlo.rng_bit_generator", state,
                    rng_algorithm=b.pick(("THREE_FRY", "PHILOX", "DEFAULT")),
                    type=TensorType(b.shape(), b.pick((UI32, UI64, I32))))


# -- control flow ---------------------------------------------------------------------------------

def _wanted(b: Builder) -> list[TensorType]:
    return [b.value().type for _ in range(b.integer(1, 2))]


def _branch(b: Builder, types: Sequence[TensorType]) -> Any:
    return b.region((), lambda: [b.like(t) for t in types])


@maker("stablehlo.if")
def _if(b: Builder) -> Sequence[Any]:
    if b.depth >= MAX_DEPTH:
        return []
    pred, types = b.like(TensorType((), I1)), _wanted(b)
    return b.record("stablehlo.if", pred, regions=[_branch(b, types), _branch(b, types)])


@maker("stablehlo.case")
def _case(b: Builder) -> Sequence[Any]:
    if b.depth >= MAX_DEPTH:
        return []
    index, types = b.like(TensorType((), I32)), _wanted(b)
    return b.record("stablehlo.case", index,
                    regions=[_branch(b, types) for _ in range(b.integer(1, 3))])


@maker("stablehlo.while")
def _while(b: Builder) -> Sequence[Any]:
    """At most a few rounds, by a counter; perhaps fewer, by a condition on the state."""
    if b.depth >= MAX_DEPTH:
        return []
    state = [b.value() for _ in range(b.integer(1, 2))]
    types = [TensorType((), I32), *(s.type for s in state)]
    limit = np.int32(b.integer(0, 3))
    early = b.chance(3)

    def more(i: Any, *rest: Any) -> list[Any]:
        going = b.one("stablehlo.compare", i, limit, comparison_direction="LT")
        return [b.one("stablehlo.and", going, b.like(TensorType((), I1))) if early else going]

    def step(i: Any, *rest: Any) -> list[Any]:
        swapped = [b.like(t) for t in types[1:]]
        return [b.one("stablehlo.add", i, np.int32(1)), *swapped]

    start = b.constant(np.zeros((), np.int32))
    return b.record("stablehlo.while", start, *state,
                    regions=[b.region(types, more, b.integer(0, 1)), b.region(types, step)])


@maker("tfn.scan")
def _scan(b: Builder) -> Sequence[Any]:
    if b.depth >= MAX_DEPTH:
        return []
    xs, carry = b.value(ranks=RANKED, static=True), b.value(ranks=(0, 1, 2), static=True)

    def step(carry: Any, x: Any) -> tuple[Any, Any]:
        outer, b.pool = b.pool, [carry, x]
        b.depth += 1
        try:
            b.grow(2)
            return b.like(carry.type), b.value()
        finally:
            b.pool = outer
            b.depth -= 1

    last, stacked = control.scan(step, carry, xs, reverse=b.chance(3))
    return [last, stacked]


@maker("chlo.scan")
def _chlo_scan(b: Builder) -> Sequence[Any]:
    if b.depth >= MAX_DEPTH:
        return []
    x, carry = b.value(ranks=RANKED, static=True), b.value(ranks=(0, 1, 2), static=True)
    axis = b.integer(0, len(x.shape) - 1)
    part = x.type.with_shape([d for i, d in enumerate(x.shape) if i != axis])
    body = b.region([part, carry.type], lambda p, c: [b.like(part), b.like(carry.type)], closed=True)
    return b.record("chlo.scan", x, carry, dimension=axis, is_reverse=b.chance(2), regions=[body])


def _callee(b: Builder) -> tuple[list[Any], Any]:
    operands = [b.value() for _ in range(b.integer(1, 3))]
    function = b.function([o.type for o in operands], lambda *a: [b.value() for _ in range(2)], "part")
    return operands, function


@maker("func.call")
def _call(b: Builder) -> Sequence[Any]:
    if b.depth >= MAX_DEPTH:
        return []
    operands, function = _callee(b)
    again = b.chance(3)
    results = b.record("func.call", *operands, callee=function)
    return results + b.record("func.call", *operands, callee=function) if again else results


@maker("stablehlo.composite")
def _composite(b: Builder) -> Sequence[Any]:
    if b.depth >= MAX_DEPTH:
        return []
    operands, function = _callee(b)
    return b.record("stablehlo.composite", *operands, name="some.part", composite_attributes={},
                    decomposition=function)


@maker("stablehlo.async_done")
def _async(b: Builder) -> Sequence[Any]:
    x = b.value()
    body = b.region([x.type], lambda v: [b.value()], 1, closed=True)
    return b.record("stablehlo.async_done", *b.record("stablehlo.async_start", x, regions=[body]))


NAMES += [n for n in MAKERS if n not in LEFT_OUT or n == "tfn.scan"]
__all__ = ["ORDERED", "reducer"]
