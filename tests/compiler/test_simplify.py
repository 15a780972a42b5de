"""Simplification: fewer ops, and every bit as before, for numbers of every kind."""

import numpy as np
import pytest

import tfn.compiler.numpy as tnp
from tfn.compiler.ir.core import Function, TensorType
from tfn.compiler.ir.dims import Dim
from tfn.compiler.ir.dtypes import BF16, F16, F32, F64, I1, I8, I16, I32, I64, UI8, UI32, DType
from tfn.compiler.ir.evaluator import evaluate
from tfn.compiler.ir.verify import verify
from tfn.compiler.ops.reduction import reducer
from tfn.compiler.passes.dce import dce
from tfn.compiler.passes.fold import fold
from tfn.compiler.passes.simplify import simplify
from tfn.compiler.trace.core import bind, trace

SPECIAL = [0.0, -0.0, 1.0, -1.0, 2.5, -3.25, np.inf, -np.inf, np.nan, 1e-40, -1e-40, 3e38]


def numbers(shape, dtype: DType, seed: int):
    """Every special number, in another order for each seed; extremes of integers."""
    size = int(np.prod(shape))
    if dtype.kind == "bool":
        pool = [True, False]
    elif dtype.is_integer:
        info = np.iinfo(dtype.numpy)
        pool = [0, 1, info.max, info.min, 7, info.max // 3]
    else:
        pool = SPECIAL
    drawn = np.random.default_rng(seed).permutation(np.resize(pool, max(size, len(pool))))
    with np.errstate(over="ignore"):
        return np.asarray(drawn[:size]).reshape(shape).astype(dtype.numpy)


def bits_equal(a, b):
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.kind in "biu":
        return np.array_equal(a, b)
    a, b = a.astype(np.float64), b.astype(np.float64)
    return np.array_equal(a, b, equal_nan=True) and np.array_equal(
        np.signbit(a) & ~np.isnan(a), np.signbit(b) & ~np.isnan(b))


def simplified(program, *types) -> tuple[list[str], Function]:
    """Names of what is left, constants and their broadcasts aside, compared with the evaluator."""
    function, _ = trace(program, list(types))
    short = verify(dce(simplify(function)))
    for seed in range(4):
        arrays = [numbers(t.shape, t.dtype, 10 * seed + i) for i, t in enumerate(types)]
        with np.errstate(all="ignore"):
            for a, b in zip(evaluate(function, arrays), evaluate(short, arrays), strict=True):
                assert bits_equal(a, b)
    constant = {r for op in short.ops if op.name == "stablehlo.constant" for r in op.results}
    return [op.name.partition(".")[2] for op in short.ops
            if op.operands and not constant.issuperset(op.operands)], short


def of(dtype: DType, *shape: int) -> TensorType:
    return TensorType(shape or (12,), dtype)


def full(x, number):
    return tnp.full(x.shape, number, x.dtype)


def op(name, *operands, **attributes):
    return bind(f"stablehlo.{name}", *operands, **attributes)


def window(start):
    return lambda x: [op("dynamic_slice", x, np.int32(start), slice_sizes=(4,))]


X, Y, N, B, U = of(F32), of(F32), of(I32), of(I1), of(UI32)

GONE = {
    "x + -0": (lambda x: [op("add", x, full(x, -0.0))], X),
    "-0 + x": (lambda x: [op("add", full(x, -0.0), x)], X),
    "x + -0 in bf16": (lambda x: [op("add", x, full(x, -0.0))], of(BF16)),
    "n + 0": (lambda n: [op("add", n, full(n, 0))], N),
    "x - 0": (lambda x: [op("subtract", x, full(x, 0.0))], X),
    "n - 0": (lambda n: [op("subtract", n, full(n, 0))], N),
    "x * 1": (lambda x: [op("multiply", x, full(x, 1.0))], X),
    "x / 1": (lambda x: [op("divide", x, full(x, 1.0))], X),
    "x ** 1": (lambda x: [op("power", x, full(x, 1.0))], X),
    "-(-x)": (lambda x: [op("negate", op("negate", x))], X),
    "max(x, x)": (lambda x: [op("maximum", x, x)], X),
    "max(x, -inf)": (lambda x: [op("maximum", x, full(x, -np.inf))], X),
    "min(inf, x)": (lambda x: [op("minimum", full(x, np.inf), x)], X),
    "n & n": (lambda n: [op("and", n, n)], N),
    "n & -1": (lambda n: [op("and", n, full(n, -1))], N),
    "u & ones": (lambda u: [op("and", u, full(u, 2**32 - 1))], U),
    "b & true": (lambda b: [op("and", full(b, True), b)], B),
    "b | false": (lambda b: [op("or", b, full(b, False))], B),
    "n | n": (lambda n: [op("or", n, n)], N),
    "n ^ 0": (lambda n: [op("xor", n, full(n, 0))], N),
    "b ? true : false": (lambda b: [op("select", b, full(b, True), full(b, False))], B),
    "b ? x : x": (lambda b, x: [op("select", b, x, x)], B, X),
    "f32 through f64": (lambda x: [x.astype("float64").astype("float32")], X),
    "bf16 through f32": (lambda x: [x.astype("float32").astype("bfloat16")], of(BF16)),
    "f16 through f32": (lambda x: [x.astype("float32").astype("float16")], of(F16)),
    "i8 through f16": (lambda x: [x.astype("float16").astype("int8")], of(I8)),
    "i32 through i64": (lambda n: [n.astype("int64").astype("int32")], N),
    "ui8 through i16": (lambda n: [n.astype("int16").astype("uint8")], of(UI8)),
    "bool through f32": (lambda b: [b.astype("float32").astype("bool")], B),
    "turned twice": (lambda x: [tnp.flip(tnp.flip(x, 0), 0)], X),
    "a dim of 1 turned": (lambda x: [op("reverse", x, dimensions=(1,))], of(F32, 6, 1)),
    "transposed twice": (lambda x: [x.T.T], of(F32, 3, 4)),
    "cut and joined": (lambda x: [tnp.concatenate([x[:3], x[3:5], x[5:]])], X),
    "joined and cut": (lambda x, y: [tnp.concatenate([x, y])[12:]], X, Y),
    "padded and cut": (lambda x: [tnp.pad(x, (2, 3))[2:14]], X),
    "a slice of all": (lambda x: [x[0:12]], X),
    "nothing joined": (lambda x: [tnp.concatenate([x, x[:0], x[3:3]])], X),
    "a whole window": (lambda x, n: [op("dynamic_slice", x, n, slice_sizes=(12,))], X,
                       of(I32).with_shape(())),
    "a whole update": (lambda x, y, n: [op("dynamic_update_slice", x, y, n)], X, Y,
                       of(I32).with_shape(())),
}


@pytest.mark.parametrize(("program", "types"), [(p, t) for p, *t in GONE.values()], ids=GONE)
def test_nothing_is_left(program, types):
    assert simplified(program, *types)[0] == []


LEFT = {
    "x + 0": (["add"], lambda x: [op("add", x, full(x, 0.0))], X),
    "x - -0": (["subtract"], lambda x: [op("subtract", x, full(x, -0.0))], X),
    "x + mixed zeros": (["add"], lambda x: [op("add", x, np.array([0.0, -0.0] * 6, np.float32))], X),
    "x * 0": (["multiply"], lambda x: [op("multiply", x, full(x, 0.0))], X),
    "x - x": (["subtract"], lambda x: [op("subtract", x, x)], X),
    "0 - x": (["subtract"], lambda x: [op("subtract", full(x, 0.0), x)], X),
    "-0 - x": (["negate"], lambda x: [op("subtract", full(x, -0.0), x)], X),
    "x + -y": (["subtract"], lambda x, y: [op("add", x, op("negate", y))], X, Y),
    "-x + y": (["subtract"], lambda x, y: [op("add", op("negate", x), y)], X, Y),
    "x - -y": (["add"], lambda x, y: [op("subtract", x, op("negate", y))], X, Y),
    "m - -n": (["add"], lambda m, n: [op("subtract", m, op("negate", n))], N, N),
    "-x * -y": (["multiply"], lambda x, y: [op("multiply", op("negate", x), op("negate", y))], X, Y),
    "-x / -y": (["divide"], lambda x, y: [op("divide", op("negate", x), op("negate", y))], X, Y),
    "x * -1": (["negate"], lambda x: [op("multiply", x, full(x, -1.0))], X),
    "-1 * x": (["negate"], lambda x: [op("multiply", full(x, -1.0), x)], X),
    "x / -1": (["negate"], lambda x: [op("divide", x, full(x, -1.0))], X),
    "-1 / x": (["divide"], lambda x: [op("divide", full(x, -1.0), x)], X),
    "n * 0": ([], lambda n: [op("multiply", n, full(n, 0))], N),
    "n - n": ([], lambda n: [op("subtract", n, n)], N),
    "n ^ n": ([], lambda n: [op("xor", n, n)], N),
    "b ^ b": ([], lambda b: [op("xor", b, b)], B),
    "n & 0": ([], lambda n: [op("and", n, full(n, 0))], N),
    "u | ones": ([], lambda u: [op("or", full(u, 2**32 - 1), u)], U),
    "x ** 0": ([], lambda x: [op("power", x, full(x, 0.0))], X),
    "x ** 2": (["multiply"], lambda x: [op("power", x, full(x, 2.0))], X),
    "x ** .5": (["power"], lambda x: [op("power", x, full(x, 0.5))], X),
    "abs(abs(x))": (["abs"], lambda x: [op("abs", op("abs", x))], X),
    "abs(-x)": (["abs"], lambda x: [op("abs", op("negate", x))], X),
    "abs(-n)": (["negate", "abs"], lambda n: [op("abs", op("negate", n))], N),
    "max(x, inf)": (["maximum"],
                    lambda x: [op("maximum", x, full(x, np.inf))], X),
    "not x == y": (["compare"], lambda x, y: [op("not", x == y)], X, Y),
    "not x < y": (["compare", "not"], lambda x, y: [op("not", x < y)], X, Y),
    "not m < n": (["compare"], lambda m, n: [op("not", m < n)], N, N),
    "x == x": (["compare"], lambda x: [x == x], X),
    "n == n": ([], lambda n: [n == n], N),
    "n < n": ([], lambda n: [n < n], N),
    "not b ? x : y": (["select"], lambda b, x, y: [op("select", op("not", b), x, y)], B, X, Y),
    "b ? false : true": (["not"], lambda b: [op("select", b, full(b, False), full(b, True))], B),
    "f32 through bf16": (["convert", "convert"], lambda x: [x.astype("bfloat16").astype("float32")], X),
    "bf16 through f16": (["convert", "convert"], lambda x: [x.astype("float16").astype("float32")],
                         of(BF16)),
    "i32 through f32": (["convert", "convert"], lambda n: [n.astype("float32").astype("int32")], N),
    "i16 through f32 to i8": (["convert", "convert"],
                              lambda n: [n.astype("float32").astype("int8")], of(I16)),
    "i8 through ui32 to f32": (["convert", "convert"],
                               lambda n: [n.astype("uint32").astype("float32")], of(I8)),
    "i8 through i32 to f32": (["convert"], lambda n: [n.astype("int32").astype("float32")], of(I8)),
    "i64 through i32": (["convert", "convert"], lambda n: [n.astype("int32").astype("int64")], of(I64)),
    "f32 through f64 to bf16": (["convert"], lambda x: [x.astype("float64").astype("bfloat16")], X),
    "f16 through f32 to i8": (["convert"], lambda x: [x.astype("float32").astype("int8")], of(F16)),
    "f64 through f32": (["convert", "convert"], lambda x: [x.astype("float32").astype("float64")],
                        of(F64)),
    "three turns": (["reverse"], lambda x: [tnp.flip(tnp.flip(x, (0, 1)), 1)], of(F32, 3, 4)),
    "a broadcast transposed": (["broadcast_in_dim"],
                               lambda x: [tnp.broadcast_to(x, (3, 12)).T], X),
    "a column broadcast": (["broadcast_in_dim"],
                           lambda x: [tnp.broadcast_to(tnp.reshape(x, (12, 1)), (12, 5))], X),
    "other columns broadcast": (["reshape", "broadcast_in_dim"],
                                lambda x: [tnp.broadcast_to(tnp.reshape(x, (6, 2, 1)), (6, 2, 5))], X),
    "rows of rows": (["slice"], lambda x: [x[2:11:2][1:4:2]], X),
    "none of rows": (["slice", "slice"], lambda x: [x[2:11:2][1:1]], X),
    "rows of one part": (["slice"], lambda x, y: [tnp.concatenate([x, y])[14:20:3]], X, Y),
    "rows of two parts": (["concatenate", "slice"], lambda x, y: [tnp.concatenate([x, y])[10:14]],
                          X, Y),
    "rows with padding": (["pad", "slice"], lambda x: [tnp.pad(x, (2, 3))[1:9]], X),
    "rows of repetitions": (["broadcast_in_dim"],
                            lambda x: [tnp.broadcast_to(x, (9, 12))[2:7:2]], X),
    "columns of repetitions": (["broadcast_in_dim", "slice"],
                               lambda x: [tnp.broadcast_to(x, (9, 12))[:, 2:7]], X),
    "parts of parts": (["concatenate"],
                       lambda x, y: [tnp.concatenate([tnp.concatenate([x, y]), x])], X, Y),
    "parts of other parts": (["concatenate"] * 3, lambda x, y: [tnp.concatenate(
        [tnp.concatenate([x, y], 1), tnp.concatenate([y, x], 1)])], of(F32, 2, 3), of(F32, 2, 3)),
    "neighbours": (["slice", "concatenate"], lambda x, y: [tnp.concatenate([x[1:3], x[3:7], y])], X, Y),
    "no neighbours": (["slice", "slice", "concatenate"],
                      lambda x: [tnp.concatenate([x[1:3], x[4:7]])], X),
    "a window at 3": (["slice"], window(3), X),
    "a window beyond the end": (["slice"], window(99), X),
    "a window before the beginning": (["slice"], window(-9), X),
    "maxima of maxima": (["reduce"], lambda x: [x.max(2).max(0)], of(F32, 3, 4, 2)),
    "all of all": (["reduce"], lambda b: [tnp.all(tnp.all(b, 1), 0)], of(I1, 3, 4)),
    "sums of sums": (["reduce", "reduce"], lambda x: [x.sum(1).sum(0)], of(F32, 3, 4)),
    "maxima of minima": (["reduce", "reduce"], lambda x: [x.min(1).max(0)], of(F32, 3, 4)),
}


@pytest.mark.parametrize(("left", "program", "types"), [(n, p, t) for n, p, *t in LEFT.values()],
                         ids=LEFT)
def test_what_is_left(left, program, types):
    assert simplified(program, *types)[0] == left


def test_reductions_with_other_beginnings_stay_two():
    def program(x):
        inner = bind("stablehlo.reduce", x, np.float32(2), dimensions=(1,),
                     regions=[reducer("maximum", F32)])
        return [bind("stablehlo.reduce", inner, np.float32(3), dimensions=(0,),
                     regions=[reducer("maximum", F32)])]

    assert simplified(program, of(F32, 3, 4))[0] == ["reduce", "reduce"]


def test_symbolic_dims():
    n = Dim.named("n")
    function, _ = trace(lambda x, y: [
        tnp.broadcast_to(tnp.reshape(y, (1, 4)), x.shape) + x, x[:, 1:][:, 1:3],
        tnp.concatenate([x, x], 1)[:, 4:]], [TensorType((n, 4), F32), of(F32, 4)])
    short = verify(dce(simplify(function)))
    assert "stablehlo.reshape" not in [o.name for o in short.ops]
    for rows in (0, 1, 5):
        arrays = [numbers((rows, 4), F32, 1), numbers((4,), F32, 2)]
        for a, b in zip(evaluate(function, arrays), evaluate(short, arrays), strict=True):
            assert bits_equal(a, b)


def test_rules_apply_to_what_rules_make():
    names, _ = simplified(lambda x, y: [op("negate", op("negate", op("add", x, op("negate", op(
        "negate", op("negate", y))))))], X, Y)
    assert names == ["subtract"]


MOVES = (lambda x: tnp.flip(x, 0), lambda x: tnp.flip(x, 1), lambda x: tnp.transpose(x),
         lambda x: tnp.concatenate([x[:2], x[2:]]), lambda x: x[::2][:3].repeat(2, 0)[:6],
         lambda x: tnp.pad(x, ((1, 2), (0, 1)))[1:7, :6], lambda x: tnp.concatenate([x, -x])[3:9],
         lambda x: tnp.reshape(tnp.reshape(x, (36,)), (6, 6)), lambda x: tnp.roll(x, 2, 0),
         lambda x: tnp.broadcast_to(tnp.reshape(x[1], (6, 1)), (6, 6)), lambda x: -x, lambda x: x - -x,
         lambda x: tnp.broadcast_to(x[:, 2], (6, 6)), lambda x: tnp.maximum(x, -np.inf))


@pytest.mark.parametrize("seed", range(40))
def test_random_movements(seed):
    draw = np.random.default_rng(seed)
    chosen = draw.integers(0, len(MOVES), int(draw.integers(2, 9))).tolist()

    def program(x):
        for number in chosen:
            x = MOVES[number](x)
        return [x]

    simplified(program, of(F32, 6, 6))
    function, _ = trace(program, [of(F32, 6, 6)])
    assert len(dce(simplify(fold(function))).ops) <= len(function.ops) + 1
