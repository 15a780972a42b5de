"""`vmap` against a Python loop over the examples: every op, every way of mapping its operands."""

from __future__ import annotations

import json
import subprocess
from itertools import product

import numpy as np
import pytest

import tfn.compiler.numpy as tnp
from tfn.compiler import nn
from tfn.compiler.errors import OpError, TraceError, UnsupportedError
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dims import Dim
from tfn.compiler.ir.dtypes import I1, I32, UI32, as_dtype
from tfn.compiler.ir.structs import (
    ConvDimensionNumbers,
    DotDimensionNumbers,
    GatherDimensionNumbers,
    ScatterDimensionNumbers,
)
from tfn.compiler.ops.control import composite
from tfn.compiler.ops.declare import COMPLEX, FLOAT, REGISTRY
from tfn.compiler.ops.elementwise import Elementwise
from tfn.compiler.ops.reduction import reducer, replacement
from tfn.compiler.trace import axis as collectives
from tfn.compiler.trace import tree
from tfn.compiler.trace.batch import vmap
from tfn.compiler.trace.core import as_array, bind, trace, trace_region
from tfn.compiler.trace.grad import grad, stop_gradient
from tfn.compiler.trace.jit import jit

SIZE = 3
F32, F64 = as_dtype(np.float32), as_dtype(np.float64)


# -- the cases: an op as a function, and its operands' shapes and dtypes ---------------------------

CASES: dict[str, tuple] = {}
"""Name -> (the op it is about, function, [(shape, dtype, low, high), ...])."""

FLOATING = ("f4", "f8")
ALL = (*FLOATING, "i4")


def case(op, function, *shapes, dtypes=ALL, low=1, high=5, label=""):
    """A case per dtype. A shape with a dtype of its own is `(shape, dtype)` or `(shape, dtype, high)`:
    integers below `high`."""
    for dtype in dtypes:
        operands = []
        for s in shapes:
            own = isinstance(s, tuple) and len(s) > 1 and isinstance(s[1], str)
            if own:
                operands.append((s[0], s[1], 0, s[2] if len(s) > 2 else 2))
            else:
                operands.append((s, dtype, low, high))
        CASES[f"{op.removeprefix('stablehlo.')}{'-' if label else ''}{label}-{dtype}"] = (
            op, function, operands)


def simple(op, *shapes, dtypes=ALL, label="", low=1, high=5, regions=None, **attributes):
    """A case that is the op itself; `regions(dtype)` makes its regions."""
    for dtype in dtypes:
        made = regions(as_dtype(np.dtype(dtype))) if regions else ()
        case(op, lambda *x, made=made: bind(op, *x, regions=made, **attributes), *shapes,
             dtypes=(dtype,), low=low, high=high, label=label)


def adding(dtype):
    return [reducer("add", dtype)]


def comparing(direction):
    def regions(dtype):
        scalar = TensorType((), dtype)
        return [trace_region(lambda a, b: [bind("stablehlo.compare", a, b,
                                                comparison_direction=direction)], [scalar] * 2)]

    return regions


SPECIAL_ATTRIBUTES = {
    "stablehlo.compare": {"comparison_direction": "LT"}, "stablehlo.convert": {"dtype": I32},
    "stablehlo.reduce_precision": {"exponent_bits": 5, "mantissa_bits": 7},
    "chlo.constant_like": {"value": 2.0},
}
SPECIAL_OPERANDS = {"stablehlo.select", "stablehlo.clamp", "stablehlo.bitcast_convert"}
for _name, _op in list(REGISTRY.items()):
    if issubclass(_op, Elementwise) and _name not in SPECIAL_OPERANDS:
        _accepted = [t for t in (*ALL, "c8") if as_dtype(np.dtype(t)) in _op.accepts]
        _range = (0.1, 0.9) if _op.accepts <= FLOAT | COMPLEX else (1, 5)
        simple(_name, *[(2, 4)] * _op.arity, low=_range[0], high=_range[1],
               dtypes=[t for t in _accepted if t != "c8" or len(_accepted) == 1],
               **SPECIAL_ATTRIBUTES.get(_name, {}))

simple("stablehlo.add", (), (), label="scalars")
for _shape in ((2, 3), ()):
    simple("stablehlo.select", (_shape, "?"), (2, 3), (2, 3), label=f"{len(_shape)}d")
    simple("stablehlo.clamp", _shape, (2, 3), (2, 3), label=f"{len(_shape)}d")
simple("stablehlo.clamp", (), (), (), label="scalars", dtypes=("f4",))
simple("stablehlo.bitcast_convert", (2, 3), dtypes=("f4",), dtype=UI32)
simple("stablehlo.bitcast_convert", (2, 3), dtypes=("f8",), dtype=UI32, label="narrower")
simple("stablehlo.bitcast_convert", (3, 2), dtypes=("f4",), dtype=F64, label="wider")

simple("stablehlo.broadcast_in_dim", (3, 1), shape=(4, 2, 3), broadcast_dimensions=(2, 1))
simple("stablehlo.reshape", (2, 6), shape=(4, 3))
simple("stablehlo.transpose", (2, 3, 4), permutation=(2, 0, 1))
simple("stablehlo.slice", (5, 6), start_indices=(1, 0), limit_indices=(5, 6), strides=(2, 1))
simple("stablehlo.pad", (3, 4), (), edge_padding_low=(1, -1), edge_padding_high=(0, 2),
       interior_padding=(1, 0))
simple("stablehlo.concatenate", (2, 3), (2, 1), (2, 2), dimension=1)
simple("stablehlo.reverse", (3, 4), dimensions=(0,))
simple("stablehlo.optimization_barrier", (3,), (2, 2))
case("stablehlo.get_dimension_size",
     lambda x: bind("stablehlo.get_dimension_size", x, dimension=1), (2, 5))
_START = ((), "i4", 6)
simple("stablehlo.dynamic_slice", (4, 5), _START, _START, slice_sizes=(2, 3))
simple("stablehlo.dynamic_slice", (4, 5), _START, ((), "i8", 6), slice_sizes=(2, 3), label="i64",
       dtypes=("f4",))
simple("stablehlo.dynamic_slice", (), slice_sizes=(), label="scalar")
simple("stablehlo.dynamic_update_slice", (4, 5), (2, 3), _START, _START)

simple("stablehlo.reduce", (3, 4, 2), (), dimensions=(0, 2), regions=adding)
for _kind in ("multiply", "maximum", "minimum"):
    simple("stablehlo.reduce", (3, 4), (), dimensions=(1,), label=_kind,
           regions=lambda t, k=_kind: [reducer(k, t)])
case("stablehlo.reduce", lambda x: tnp.argmax(x, 1), (3, 4), label="argmax")


def _product_and_sum(x, y, one, zero):
    types = [TensorType((), as_dtype(x.dtype))] * 4
    body = trace_region(lambda p, s, a, b: [bind("stablehlo.multiply", p, a),
                                            bind("stablehlo.add", s, b)], types)
    return bind("stablehlo.reduce", x, y, one, zero, dimensions=(0,), regions=[body])


case("stablehlo.reduce", _product_and_sum, (3, 2), (3, 2), (), (), label="two", dtypes=("f4",))
simple("stablehlo.reduce_window", (5, 4), (), window_dimensions=(2, 1), window_strides=(2, 1),
       padding=((1, 0), (0, 0)), regions=adding)
simple("stablehlo.reduce_window", (5, 4), (), window_dimensions=(3, 2), regions=adding,
       label="defaults", dtypes=("f4",))


def _select_and_scatter(dtype):
    return [*comparing("GE")(dtype), reducer("add", dtype)]


simple("stablehlo.select_and_scatter", (4, 6), (2, 3), (), window_dimensions=(2, 2),
       window_strides=(2, 2), regions=_select_and_scatter)
simple("stablehlo.sort", (3, 4), dimension=0, regions=comparing("LT"))
simple("stablehlo.sort", (3, 4), regions=comparing("GT"), label="last")
case("stablehlo.sort", lambda x: tnp.argsort(x, 0), (4, 2), label="argsort")

_ROWS = GatherDimensionNumbers((1,), (0,), (), (), (0,), 1)
_BLOCKS = GatherDimensionNumbers((0, 2), (), (), (), (1, 0), 1)
_PAIRED = GatherDimensionNumbers((1,), (1,), (0,), (0,), (1,), 1)
simple("stablehlo.gather", (5, 3), ((4,), "i4", 7), dimension_numbers=_ROWS, slice_sizes=(1, 3))
simple("stablehlo.gather", (5, 4), ((3, 2), "i4", 6), dimension_numbers=_BLOCKS,
       slice_sizes=(2, 3), label="blocks")
simple("stablehlo.gather", (2, 5, 3), ((2,), "i4", 6), dimension_numbers=_PAIRED,
       slice_sizes=(1, 1, 3), label="batching")
_INTO_ROWS = ScatterDimensionNumbers((1,), (0,), (), (), (0,), 1)
_INTO_BLOCKS = ScatterDimensionNumbers((0, 2), (), (), (), (1, 0), 1)
_INTO_PAIRED = ScatterDimensionNumbers((1,), (1,), (0,), (0,), (1,), 1)
simple("stablehlo.scatter", (5, 3), ((4,), "i4", 7), (4, 3), scatter_dimension_numbers=_INTO_ROWS,
       regions=adding)
simple("stablehlo.scatter", (5, 4), ((3, 2), "i4", 6), (2, 3, 3), regions=adding,
       scatter_dimension_numbers=_INTO_BLOCKS, label="blocks")
simple("stablehlo.scatter", (2, 5, 3), ((2,), "i4", 6), (2, 3), regions=adding,
       scatter_dimension_numbers=_INTO_PAIRED, label="batching")
simple("stablehlo.scatter", (5, 3), ((1,), "i4", 5), (1, 3), label="write",
       scatter_dimension_numbers=_INTO_ROWS, regions=lambda t: [replacement(t)])

simple("stablehlo.dot_general", (3, 4), (4, 2),
       dot_dimension_numbers=DotDimensionNumbers((), (), (1,), (0,)))
simple("stablehlo.dot_general", (2, 3, 5, 4), (4, 5, 2), label="batching",
       dot_dimension_numbers=DotDimensionNumbers((0,), (2,), (2, 3), (1, 0)))
simple("stablehlo.dot_general", (4,), (4,), label="vectors",
       dot_dimension_numbers=DotDimensionNumbers((), (), (0,), (0,)))
_NHWC = ConvDimensionNumbers(0, 3, (1, 2), 2, 3, (0, 1), 0, 3, (1, 2))
_NCW = ConvDimensionNumbers(0, 1, (2,), 1, 0, (2,), 2, 0, (1,))
simple("stablehlo.convolution", (2, 5, 4, 3), (2, 3, 3, 4), dimension_numbers=_NHWC,
       window_strides=(2, 1), padding=((1, 0), (1, 1)), dtypes=FLOATING)
simple("stablehlo.convolution", (2, 5, 4, 6), (2, 3, 3, 4), dimension_numbers=_NHWC,
       feature_group_count=2, dtypes=FLOATING, label="groups")
simple("stablehlo.convolution", (4, 5, 4, 3), (2, 3, 3, 4), dimension_numbers=_NHWC,
       batch_group_count=2, dtypes=FLOATING, label="batch-groups")
simple("stablehlo.convolution", (2, 3, 7), (4, 3, 2), dimension_numbers=_NCW, rhs_dilation=(2,),
       dtypes=FLOATING, label="channels-first")


def _positive(x):
    """A well conditioned matrix, positive definite in its lower half."""
    return tnp.matmul(x, tnp.swapaxes(x, -1, -2)) + 4 * tnp.eye(x.shape[-1], dtype=x.dtype)


case("stablehlo.cholesky", lambda a: bind("stablehlo.cholesky", _positive(a), lower=True), (3, 3),
     dtypes=FLOATING)
case("stablehlo.triangular_solve", lambda a, b: bind(
    "stablehlo.triangular_solve", _positive(a), b, left_side=True, lower=True,
    unit_diagonal=False, transpose_a="NO_TRANSPOSE"), (3, 3), (3, 2), dtypes=FLOATING)
simple("stablehlo.fft", (3, 8), fft_type="RFFT", fft_length=(8,), dtypes=FLOATING)
case("stablehlo.custom_call", lambda a: tnp.linalg.qr(a), (4, 3), dtypes=FLOATING, label="qr")
case("stablehlo.custom_call", lambda a: tnp.linalg.eigh(_positive(a))[0], (3, 3), dtypes=FLOATING,
     label="eigh")
case("stablehlo.custom_call", lambda a, b: bind(
    "stablehlo.custom_call", a, b, call_target_name="check.eq", types=[TensorType((), I1)]),
    ((2,), "i4", 1), ((2,), "i4", 1), dtypes=("i4",), label="one-by-one")
case("stablehlo.rng_bit_generator", lambda state: bind(
    "stablehlo.rng_bit_generator", state, rng_algorithm="THREE_FRY", type=TensorType((3, 2), UI32)),
    ((2,), "u8", 1000), dtypes=("f4",))

simple("stablehlo.batch_norm_training", (4, 3), (3,), (3,), epsilon=0.1, feature_index=1,
       dtypes=FLOATING)
simple("stablehlo.batch_norm_inference", (4, 3), (3,), (3,), (3,), (3,), epsilon=0.1,
       feature_index=1, dtypes=FLOATING)
simple("stablehlo.batch_norm_grad", (4, 3), (3,), (3,), (3,), (4, 3), epsilon=0.1, feature_index=1,
       dtypes=FLOATING)
simple("chlo.top_k", (2, 6), k=3)
simple("stablehlo.map", (2, 3), (2, 3), dimensions=(0, 1), dtypes=FLOATING,
       regions=lambda t: [trace_region(lambda a, b: [bind("stablehlo.multiply", a, b)],
                                       [TensorType((), t)] * 2)])


def _scan(xs, carry):
    types = [TensorType(tuple(xs.shape[1:]), as_dtype(xs.dtype)), carry.type]
    body = trace_region(lambda x, c: [c * x, c + x], types)
    return bind("chlo.scan", xs, carry, dimension=0, regions=[body])


case("chlo.scan", _scan, (4, 2), (2,))


def _power(count, x):
    """x ** count, by a loop whose length the first operand tells."""
    one = bind("stablehlo.broadcast_in_dim", np.ones((), x.dtype), shape=x.shape,
               broadcast_dimensions=())
    types = [count.type, x.type]
    return bind("stablehlo.while", count, one, regions=[
        trace_region(lambda i, y: [i > 0], types),
        trace_region(lambda i, y: [i - 1, y * x], types)])[1]


case("stablehlo.while", _power, ((), "i4", 5), (2,))


def _counted(x):
    """A loop that counts to 4: the counter is the same for all examples."""
    types = [TensorType((), I32), x.type]
    return bind("stablehlo.while", np.int32(0), x, regions=[
        trace_region(lambda i, y: [i < 4], types),
        trace_region(lambda i, y: [i + 1, y + x], types)])


case("stablehlo.while", _counted, (3,), label="counted")


def _late(x, y):
    """A state that is batched only after a step through another."""
    types = [TensorType((), I32), x.type, x.type]
    return bind("stablehlo.while", np.int32(0), x, x, regions=[
        trace_region(lambda i, a, b: [i < 3], types),
        trace_region(lambda i, a, b: [i + 1, y, a], types)])


case("stablehlo.while", _late, (2,), (2,), label="late")


def _case(index, x, y):
    return bind("stablehlo.case", index, regions=[
        trace_region(lambda: [x + y, x], []), trace_region(lambda: [x, y * y], []),
        trace_region(lambda: [y, y], [])])


def _if(predicate, x, y):
    return bind("stablehlo.if", predicate, regions=[
        trace_region(lambda: [x * y], []), trace_region(lambda: [y], [])])


def _called(x, y):
    types = [x.type, y.type]
    inner, _ = trace(lambda a, b: [a * b, b + b], types, "inner")
    return bind("func.call", x, y, callee=inner)


case("stablehlo.case", _case, ((), "i4", 5), (2,), (2,))
case("stablehlo.if", _if, ((), "?"), (2,), (2,))
case("func.call", _called, (2, 3), (2, 3))
case("stablehlo.composite", lambda x: nn.softmax(x, 0), (3, 2), dtypes=FLOATING, label="softmax")
case("stablehlo.composite", lambda x: composite("tests.double", lambda v: v + v, x), (3,),
     label="unknown")
case("stablehlo.composite", lambda x: stop_gradient(x), (3,), label="stop")

# Ops that other tests are about.
ELSEWHERE = {
    "check.expect_eq", "check.expect_eq_const", "check.expect_almost_eq",
    "check.expect_almost_eq_const", "check.expect_close", "chlo.ragged_dot",
    "stablehlo.all_reduce", "stablehlo.all_gather", "stablehlo.reduce_scatter",
    "stablehlo.all_to_all", "stablehlo.collective_broadcast", "stablehlo.collective_permute",
    "tfn.axis_exchange", "tfn.axis_gather", "tfn.axis_index", "tfn.axis_permute",
    "tfn.axis_reduce", "tfn.callback",
    "tfn.switch", "tfn.scan", "tfn.custom_vjp", "tfn.custom_jvp", "tfn.checkpoint",
}
WITHOUT = {
    # No operands, or none that can be batched.
    "stablehlo.constant", "stablehlo.iota", "stablehlo.replica_id", "stablehlo.partition_id",
    "stablehlo.after_all", "stablehlo.create_token",
    # Effects of one program.
    "stablehlo.send", "stablehlo.recv", "stablehlo.infeed", "stablehlo.outfeed",
    "interpreter.run_parallel", "tfn.check_finite", "stablehlo.rng",
    # What no traced program holds: forms of text, and kernels.
    "stablehlo.dynamic_broadcast_in_dim", "stablehlo.dynamic_conv", "stablehlo.dynamic_gather",
    "stablehlo.dynamic_iota", "stablehlo.dynamic_pad", "stablehlo.dynamic_reshape",
    "stablehlo.real_dynamic_slice", "tfn.kernel", "tfn.attention", "tfn.attention_backward", "tfn.lstm",
    "tfn.lstm_backward", "tfn.gru", "tfn.gru_backward", "tfn.simple_rnn", "tfn.simple_rnn_backward",
    "tfn.winograd", "tfn.winograd_kernel", "tfn.first_sorted", "tfn.cumulative",
    "stablehlo.uniform_quantize",
    "stablehlo.uniform_dequantize", "stablehlo.async_start", "stablehlo.async_done",
}


def test_every_op_is_tested_or_known_not_to_be_batched():
    tested = {op for op, _, _ in CASES.values()}
    assert {*REGISTRY} - tested <= ELSEWHERE | WITHOUT
    assert not tested & WITHOUT


# -- the reference --------------------------------------------------------------------------------

def operands_of(name, batched, axes):
    """Operands of a case; those `batched` have an extra dim of `SIZE` at their axis."""
    rng = np.random.default_rng(0)
    made = []
    for (shape, dtype, low, high), b, axis in zip(CASES[name][2], batched, axes, strict=True):
        place = axis % (len(shape) + 1)
        full = (*shape[:place], SIZE, *shape[place:]) if b else shape
        kind = np.dtype(dtype).kind
        if kind in "fc":
            x = rng.uniform(low, high, full) + (1j * rng.uniform(low, high, full)
                                                if kind == "c" else 0)
        else:
            x = rng.integers(low, high, full)
        made.append(as_array(np.asarray(x, dtype)))
    return made


def loop(function, operands, in_axes):
    """What `vmap` means: call, example by example, and stack."""
    rows = []
    for k in range(SIZE):
        given = [x if a is None else as_array(np.take(np.asarray(x), k, a))
                 for x, a in zip(operands, in_axes, strict=True)]
        rows.append(tree.leaves(function(*given)))
    return [np.stack([np.asarray(r) for r in column]) for column in zip(*rows, strict=True)]


def assert_same(actual, expected):
    actual = [np.asarray(a) for a in tree.leaves(actual)]
    assert len(actual) == len(expected)
    for a, e in zip(actual, expected, strict=True):
        assert a.dtype == e.dtype and a.shape == e.shape
        if a.dtype.kind in "fc":
            wide = a.dtype in (np.float64, np.complex128)
            np.testing.assert_allclose(a, e, rtol=1e-10 if wide else 2e-4,
                                       atol=1e-10 if wide else 1e-4)
        else:
            np.testing.assert_array_equal(a, e)


def mappings(name):
    """Every non-empty choice of mapped operands, each with axes 0, last and a middle one."""
    shapes = [s for s, *_ in CASES[name][2]]
    for chosen in product((True, False), repeat=len(shapes)):
        if any(chosen):
            axes = [(0, -1, min(1, len(s)))[(i + sum(chosen)) % 3] for i, s in enumerate(shapes)]
            yield chosen, axes


@pytest.mark.parametrize("name", CASES)
def test_op_as_a_loop(name):
    function = CASES[name][1]
    for chosen, axes in mappings(name):
        in_axes = [a if c else None for a, c in zip(axes, chosen, strict=True)]
        operands = operands_of(name, chosen, axes)
        assert_same(vmap(function, in_axes)(*operands), loop(function, operands, in_axes))


ONLY_EVALUATED = {"stablehlo.rng_bit_generator", "stablehlo.complex", "stablehlo.real",
                  "stablehlo.imag"}
COMPILED = [n for n in CASES if not n.endswith("-f8") and CASES[n][0] not in ONLY_EVALUATED]


@pytest.mark.parametrize("name", COMPILED)
def test_op_under_jit(name):
    function = CASES[name][1]
    count = len(CASES[name][2])
    for chosen in {(True,) * count, (True, *(False,) * (count - 1))}:
        in_axes = [0 if c else None for c in chosen]
        operands = operands_of(name, chosen, [0] * count)
        expected = loop(function, operands, in_axes)
        assert_same(jit(vmap(function, in_axes))(*operands), expected)


@pytest.mark.parametrize("name", [n for n in CASES if n.endswith("-f4")])
def test_op_under_two_maps(name):
    """The outer map over dim 0 of the first operand, the inner one over dim 0 of all others."""
    function = CASES[name][1]
    count = len(CASES[name][2])
    inner = [0] * count
    outer = [0, *(None,) * (count - 1)]
    operands = operands_of(name, (True,) * count, inner)
    first = as_array(np.stack([np.asarray(operands[0]) + np.asarray(k, operands[0].dtype)
                               if operands[0].dtype != bool else np.asarray(operands[0])
                               for k in range(SIZE)]))
    operands = [first, *operands[1:]]
    assert_same(vmap(vmap(function, inner), outer)(*operands),
                loop(vmap(function, inner), operands, outer))


# -- with other transforms ------------------------------------------------------------------------

rng = np.random.default_rng(3)
X = rng.normal(size=(SIZE, 4, 5))
W = rng.normal(size=(5, 2))
IMAGES = rng.normal(size=(SIZE, 2, 6, 6, 3))
KERNELS = rng.normal(size=(SIZE, 3, 3, 3, 2))

DIFFERENTIABLE = {
    "dense": (lambda w, x: tnp.sum(tnp.tanh(x @ w) ** 2), W, X),
    "softmax": (lambda w, x: tnp.sum(nn.log_softmax(x @ w)[:, 0]), W, X),
    "convolution": (lambda k, x: tnp.sum(nn.conv(x, k, 1, "same") ** 2), KERNELS[0], IMAGES),
    "pooling": (lambda k, x: tnp.sum(nn.max_pool(nn.conv(x, k), 2) ** 2), KERNELS[0], IMAGES),
    "sort": (lambda w, x: tnp.sum(tnp.sort(x, 0) * w[:, 0]), W, X),
    "gather": (lambda w, x: tnp.sum(tnp.take(w, tnp.argmax(x, 1), 0) ** 2), W, X),
    "slice": (lambda w, x: tnp.sum(tnp.dynamic_slice(w, (tnp.argmax(x[0]), 0), (2, 2)) ** 3), W, X),
    "cholesky": (lambda w, x: tnp.sum(tnp.linalg.cholesky(x @ x.T + 9 * tnp.eye(4)) ** 2) * w[0, 0],
                 W, X),
    "layer norm": (lambda w, x: tnp.sum(nn.layer_normalization(x) @ w), W, X),
    "stop": (lambda w, x: tnp.sum(stop_gradient(x @ w) * (x @ w)), W, X),
    "cumsum": (lambda w, x: tnp.sum(tnp.cumsum(x @ w, 0) ** 2), W, X),
}


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradient_per_example(name):
    loss, w, x = DIFFERENTIABLE[name]
    per_example = vmap(grad(loss), (None, 0))
    expected = loop(grad(loss), [as_array(w), as_array(x)], (None, 0))
    assert_same(per_example(w, x), expected)
    assert_same(jit(per_example)(w, x), expected)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradient_of_a_batch(name):
    loss, w, x = DIFFERENTIABLE[name]
    batched = grad(lambda w: tnp.sum(vmap(loss, (None, 0))(w, x)))
    expected = sum(np.asarray(grad(loss)(w, x[k])) for k in range(SIZE))
    assert_same(batched(w), [expected])
    assert_same(jit(batched)(w), [expected])


def test_gradient_of_every_kernel():
    def loss(k, x):
        return tnp.sum(nn.conv(x, k, 2, "same") ** 2)

    assert_same(vmap(grad(loss))(KERNELS, IMAGES),
                loop(grad(loss), [as_array(KERNELS), as_array(IMAGES)], (0, 0)))


def test_hessian():
    def f(x):
        return tnp.sum(tnp.sin(x) * x[::-1] ** 2)

    x = X[0, 0]
    directions = np.eye(5)
    hessian = vmap(lambda v: grad(lambda y: tnp.sum(grad(f)(y) * v))(x))(directions)
    step = 1e-6
    slopes = [(np.asarray(grad(f)(x + step * v)) - np.asarray(grad(f)(x - step * v))) / (2 * step)
              for v in directions]
    np.testing.assert_allclose(hessian, slopes, rtol=1e-6, atol=1e-8)


def test_values_from_outside_are_shared():
    def outer(x, y):
        return vmap(lambda row: row * y + tnp.sum(x))(x)

    x, y = X[0], X[1, 0]
    expected = x * y + x.sum()
    assert_same(outer(as_array(x), as_array(y)), [expected])
    assert_same(jit(outer)(x, y), [expected])
    assert_same(vmap(outer, (0, None))(X, y), [X * y + X.sum((1, 2))[:, None, None]])


def test_every_pair_by_two_maps():
    pairs = vmap(vmap(lambda a, b: a @ b, (None, 0)), (0, None))
    assert_same(pairs(X[0], X[1]), [X[0] @ X[1].T])


def test_a_jitted_function():
    assert_same(vmap(jit(lambda x: tnp.sum(x @ W)))(X), [(X @ W).sum((1, 2))])


def test_a_symbolic_number_of_examples():
    batch, rows = Dim.named("batch"), Dim.named("rows")

    def f(x, i, w):
        return nn.softmax(tnp.take(x, i, 0) @ w).reshape(-1), tnp.sum(x), tnp.sort(x, 0)

    program = jit(vmap(f, (0, 0, None))).trace(
        TensorType((batch, 4, 5), F64), TensorType((batch, 3), I32), TensorType((5, 2), F64))
    assert [r.shape for r in program.returns] == [(batch, 6), (batch,), (batch, 4, 5)]
    index = rng.integers(0, 4, (SIZE, 3)).astype(np.int32)
    operands = [as_array(X), as_array(index), as_array(W)]
    from tfn.compiler.compile import compile_function

    assert_same(compile_function(program)(X, index, W), loop(f, operands, (0, 0, None)))
    inner = jit(vmap(lambda x: tnp.sum(x, 0))).trace(TensorType((3, rows, 5), F64))
    assert inner.returns[0].shape == (3, 5)
    images = jit(vmap(lambda x, k: nn.conv(x, k), (0, None))).trace(
        TensorType((batch, 2, 6, 6, 3), F64), TensorType((3, 3, 3, 2), F64))
    assert images.returns[0].shape == (batch, 2, 4, 4, 2)


def test_what_is_the_same_for_all_is_computed_once():
    program = jit(vmap(lambda x, w: x + tnp.exp(w), (0, None))).trace(
        TensorType((3, 4), F32), TensorType((4,), F32))
    (exponential,) = [op for op in program.ops if op.name == "stablehlo.exponential"]
    assert exponential.result.shape == (4,)


def test_a_counter_stays_a_scalar():
    program = jit(vmap(_counted)).trace(TensorType((3, 4), F32))
    (loop_,) = [op for op in program.ops if op.name == "stablehlo.while"]
    assert [r.shape for r in loop_.results] == [(), (3, 4)]


@pytest.mark.parametrize("axis", [0, -1])
def test_names_of_composites_survive(axis):
    program = jit(vmap(lambda x: nn.softmax(x, axis))).trace(TensorType((3, 4, 5), F32))
    (named,) = [op for op in program.ops if op.name == "stablehlo.composite"]
    assert named.attributes["name"] == "tfn.softmax"
    assert named.attributes["composite_attributes"]["axis"] == [axis % 2 + 1]


# -- trees, axes, errors --------------------------------------------------------------------------

def test_trees_of_arguments_and_results():
    def f(tree, scale, *, shift):
        return {"sum": tree["a"] + tree["b"][0] * scale, "same": scale, "none": None}, (shift,)

    tree_in = {"a": X, "b": [X[:, 0, 0], None]}
    out, (shift,) = vmap(f, in_axes=({"a": 1, "b": -1}, None),
                         out_axes=({"sum": -1, "same": None, "none": None}, 0))(
        {"a": np.moveaxis(X, 0, 1), "b": tree_in["b"]}, 2.0, shift=X)
    assert_same(out["sum"], [np.moveaxis(X + 2 * X[:, :1, :1], 0, -1)])
    assert np.asarray(out["same"]) == 2.0
    assert out["none"] is None
    assert_same(shift, [X])


@pytest.mark.parametrize("out_axes", [0, 1, 2, -1, -2, -3])
def test_out_axes(out_axes):
    assert_same(vmap(lambda x: x * 2, out_axes=out_axes)(X), [np.moveaxis(2 * X, 0, out_axes)])
    assert_same(vmap(lambda x: W, out_axes=out_axes)(X),
                [np.stack([W] * SIZE, out_axes)])


def test_axis_size_alone():
    assert_same(vmap(lambda: tnp.ones(2), axis_size=3)(), [np.ones((3, 2), np.float32)])
    assert_same(vmap(lambda x: x, in_axes=None, axis_size=2)(W), [np.stack([W, W])])


@pytest.mark.parametrize("size", [0, 1])
def test_few_examples(size):
    x = np.ones((size, 3), np.float32)
    assert vmap(lambda r: tnp.sum(r * 2))(x).shape == (size,)
    assert vmap(lambda r: tnp.linalg.qr(tnp.outer(r, r))[0])(x).shape == (size, 3, 3)
    assert vmap(lambda r: tnp.stack([r, r]))(x).shape == (size, 2, 3)


def test_random_numbers_per_key():
    from tfn.compiler import random

    keys = np.stack([np.asarray(random.key(k)) for k in range(SIZE)])

    def draw(key):
        return random.normal(key, (4,))

    assert_same(vmap(draw)(keys), loop(draw, [as_array(keys)], (0,)))


ERRORS = {
    "sizes": (lambda: vmap(lambda a, b: a)(X, W), OpError,
              r"sizes of the mapped axes differ: dim 0 of tensor<3x4x5xf64> \(3\), dim 0 of"),
    "axis size": (lambda: vmap(lambda a: a, axis_size=4)(X), OpError, "axis_size 4"),
    "nothing": (lambda: vmap(lambda a: a, in_axes=None)(X), OpError, "nothing to map over"),
    "rank": (lambda: vmap(lambda a: a, in_axes=3)(X), OpError, "axis 3 is none of the 3 dims"),
    "out rank": (lambda: vmap(lambda a: tnp.sum(a), out_axes=1)(X), OpError, "axis 1 is none of"),
    "count": (lambda: vmap(lambda a, b: a, in_axes=(0,))(X, X), OpError, "1 entries for 2 values"),
    "tree": (lambda: vmap(lambda a: a, in_axes=({"b": 0},))({"a": X}), OpError, "no prefix"),
    "kind": (lambda: vmap(lambda a: a, in_axes="x"), TraceError, "ints, None, or trees"),
    "None out": (lambda: vmap(lambda a: a, out_axes=None)(X), OpError, "differs between the"),
    "branch": (lambda: vmap(lambda a: a if tnp.sum(a) > 0 else -a)(X), TraceError, "Python branch"),
    "axis name": (lambda: collectives.psum(X, "i"), OpError, "no axis 'i'.*in scope are: none"),
    "other axis": (lambda: vmap(lambda x: collectives.axis_index("j"), axis_name="i")(X), OpError,
                   "no axis 'j'.*in scope are: 'i'"),
    "all_to_all": (lambda: vmap(lambda x: collectives.all_to_all(x, "i", 0, 0), axis_name="i")(X),
                   OpError, "must have the size 3"),
    "ppermute": (lambda: vmap(lambda x: collectives.ppermute(x, "i", [(0, 1), (2, 1)]),
                              axis_name="i")(X), OpError, "each target of"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_says_what_to_do(name):
    call, kind, text = ERRORS[name]
    with pytest.raises(kind, match=text):
        call()


def test_an_op_without_a_rule_is_named_with_the_users_line():
    def send(x):
        token = bind("stablehlo.create_token")
        return bind("stablehlo.send", x, token, channel_handle=1)

    with pytest.raises(UnsupportedError, match=r"vmap: stablehlo.send has no rule `batch`") as error:
        vmap(send)(X)
    assert error.value.location.line == send.__code__.co_firstlineno + 2


def test_symbolic_examples_with_kernels_of_their_own_are_refused():
    batch = Dim.named("batch")
    with pytest.raises(UnsupportedError, match="which needs their number; it is `batch`"):
        jit(vmap(lambda x, k: nn.conv(x, k))).trace(
            TensorType((batch, 2, 6, 6, 3), F64), TensorType((batch, 3, 3, 3, 2), F64))


# -- against JAX ----------------------------------------------------------------------------------

PROGRAMS = {
    "dense": "vmap(lambda x, w: np.tanh(x @ w), (0, None))(X, W)",
    "axes": "vmap(lambda x, y: (x + y, y), (1, -1), (0, -1))(X, X.swapaxes(1, 2)[:, :1])",
    "nested": "vmap(vmap(lambda a, b: np.sum(a * b), (None, 0)), (0, None))(X[0], X[1])",
    "per-example gradients": "vmap(grad(lambda w, x: np.sum(np.tanh(x @ w) ** 2)), (None, 0))(W, X)",
    "gradient of a map": "grad(lambda w: np.sum(vmap(lambda x: np.max(x @ w))(X)))(W)",
    "sort": "vmap(lambda x: (np.sort(x, 0), np.argsort(x, 1)), 2)(X)",
    "take": "vmap(lambda x, i: np.take(x, i, 1))(X, np.argsort(X[:, 0], 1)[:, :2])",
    "psum": "vmap(lambda x: x / psum(np.exp(x), 'i'), axis_name='i')(X)",
    "gradient of psum": "vmap(grad(lambda x: np.sum(psum(x ** 2, 'i') * x)), axis_name='i')(X)",
    "gradient of all_gather":
        "vmap(grad(lambda x: np.sum(all_gather(x, 'i') ** 3)), axis_name='i')(X)",
    "gradient of ppermute":
        "vmap(grad(lambda x: np.sum(ppermute(x ** 2, 'i', [(0, 1), (1, 2), (2, 0)]) * x)),"
        " axis_name='i')(X)",
    "all_to_all": "vmap(lambda x: all_to_all(x[:3], 'i', 0, 1), axis_name='i')(X)",
    "all_to_all tiled":
        "vmap(lambda x: all_to_all(x[:, :3], 'i', 1, 0, tiled=True), axis_name='i')(X)",
    "all_to_all tiled back":
        "vmap(lambda x: all_to_all(x[:3], 'i', 0, 1, tiled=True), axis_name='i')(X)",
    "all_gather": "vmap(lambda x: all_gather(x, 'i', axis=1, tiled=True), axis_name='i')(X)",
    "psum_scatter": "vmap(lambda x: psum_scatter(x[:3], 'i'), axis_name='i')(X)",
    "axis_index": "vmap(lambda x: x * axis_index('i'), axis_name='i')(X)",
    "pmax": "vmap(lambda x: pmax(x, 'i') - pmin(x, 'i') + pmean(x, 'i'), axis_name='i')(X)",
    "cholesky": "vmap(lambda x: np.linalg.cholesky(x @ x.T + np.eye(4)))(X)",
    "argmax": "vmap(lambda x: x.at[np.argmax(x[:, 0])].set(0.0))(X)",
    "cumulative": "vmap(lambda x: np.cumsum(x, 1), 1, 1)(X)",
}

_IN_JAX = """
import json, sys, numpy
import jax
jax.config.update("jax_enable_x64", True)
import jax.numpy as np
from jax import grad, vmap
from jax.lax import (all_gather, all_to_all, axis_index, pmax, pmean, pmin, ppermute, psum,
                     psum_scatter)
job = json.load(sys.stdin)
X, W = (np.asarray(job[k]) for k in "XW")
print(json.dumps([[numpy.asarray(leaf, float).tolist() for leaf in jax.tree.leaves(eval(p))]
                  for p in job["programs"]]))
"""


@pytest.fixture(scope="module")
def in_jax(jax_python):
    """The results of `PROGRAMS` in JAX, by name."""
    job = {"X": X.tolist(), "W": W.tolist(), "programs": [*PROGRAMS.values()]}
    found = subprocess.run([jax_python, "-c", _IN_JAX], input=json.dumps(job), text=True,
                           capture_output=True, check=True)
    return dict(zip(PROGRAMS, json.loads(found.stdout), strict=True))


@pytest.mark.outside("jax")
@pytest.mark.parametrize("name", PROGRAMS)
def test_program_as_in_jax(name, in_jax):
    names = {"np": tnp, "grad": grad, "vmap": vmap, "X": as_array(X), "W": as_array(W),
             **{k: getattr(collectives, k) for k in collectives.__all__}}
    results = tree.leaves(eval(PROGRAMS[name], names))
    assert len(results) == len(in_jax[name])
    for actual, expected in zip(results, in_jax[name], strict=True):
        np.testing.assert_allclose(np.asarray(actual, float), expected, rtol=1e-10, atol=1e-12)
