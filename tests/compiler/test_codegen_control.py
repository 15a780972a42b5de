"""Compiled loops and branches against the evaluator and NumPy."""

import numpy as np
import pytest

import tfn.compiler.numpy as tnp
from tfn.compiler.compile import compile_function
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dims import Dim
from tfn.compiler.ir.dtypes import F32, I1, I32
from tfn.compiler.ir.evaluator import evaluate
from tfn.compiler.passes.regions import REGION, everywhere
from tfn.compiler.passes.simplify import simplify
from tfn.compiler.trace.core import bind, trace, trace_region

RNG = np.random.default_rng(3)
BATCH = Dim.named("batch")


def matrix(*shape):
    return TensorType(shape, F32)


def loop(condition, body, *state):
    types = [s.type for s in map(tnp.asarray, state)]
    return bind("stablehlo.while", *state,
                regions=[trace_region(condition, types), trace_region(body, types)])


def both(function, *arrays):
    """The compiled results, checked against the evaluator's."""
    found = compile_function(function)(*arrays)
    for a, b in zip(found, evaluate(function, arrays), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    return found


def test_a_loop_counts_and_accumulates():
    def program(x, n):
        return loop(lambda i, total, n: [i < n],
                    lambda i, total, n: [i + np.int32(1), total + x * 2.0, n],
                    np.int32(0), x, n)[1:2]

    function, _ = trace(program, [matrix(3, 5), TensorType((), I32)])
    x = RNG.normal(size=(3, 5)).astype(np.float32)
    for n in (0, 1, 4):
        (found,) = both(function, x, np.array(n, np.int32))
        np.testing.assert_allclose(found, x * (1 + 2 * n), rtol=1e-5)


def test_state_that_trades_places():
    function, _ = trace(lambda x, y: loop(
        lambda i, a, b: [i < np.int32(3)],
        lambda i, a, b: [i + np.int32(1), b, a], np.int32(0), x, y)[1:],
        [matrix(4), matrix(4)])
    x, y = np.arange(4, dtype=np.float32), -np.ones(4, np.float32)
    a, b = both(function, x, y)
    np.testing.assert_array_equal(a, y)
    np.testing.assert_array_equal(b, x)


def test_fibonacci_reads_the_old_state_in_both_results():
    function, _ = trace(lambda x: loop(
        lambda i, a, b: [i < np.int32(10)],
        lambda i, a, b: [i + np.int32(1), b, a + b], np.int32(0), x, x)[1:], [matrix()])
    a, _ = both(function, np.float32(1))
    assert a == 89


def test_a_recurrent_layer_with_a_product_inside_and_values_from_outside():
    """A scan: slices in, updates out, weights captured, any batch size."""
    def program(x, w, h):
        u = w * 0.5

        def body(t, h, out):
            zero = np.int32(0)
            now = bind("stablehlo.dynamic_slice", x, t, zero, zero,
                       slice_sizes=(1, BATCH, 4))
            h = tnp.tanh(tnp.reshape(now, (BATCH, 4)) + h @ u)
            out = bind("stablehlo.dynamic_update_slice", out,
                       tnp.reshape(h, (1, BATCH, 4)), t, zero, zero)
            return [t + np.int32(1), h, out]

        out = tnp.zeros_like(x)
        return loop(lambda t, h, out: [t < np.int32(6)], body, np.int32(0), h, out)[1:]

    function, _ = trace(program, [matrix(6, BATCH, 4), matrix(4, 4), matrix(BATCH, 4)])
    executable = compile_function(function)
    for batch in (1, 7):
        x, h = RNG.normal(size=(6, batch, 4)), RNG.normal(size=(batch, 4))
        x, h = x.astype(np.float32), h.astype(np.float32)
        w = RNG.normal(size=(4, 4)).astype(np.float32)
        expected, state = [], h
        for now in x:
            state = np.tanh(now + state @ (w * np.float32(0.5)))
            expected.append(state)
        last, out = executable(x, w, h)
        np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(last, expected[-1], rtol=1e-4, atol=1e-5)


def test_nested_loops_keep_outer_values_alive():
    def program(x):
        keep = tnp.exp(x)

        def outer(i, total):
            inner = loop(lambda j, t: [j < np.int32(3)],
                         lambda j, t: [j + np.int32(1), tnp.sin(t) + keep], np.int32(0), total)
            return [i + np.int32(1), inner[1] * 0.5]

        result = loop(lambda i, t: [i < np.int32(4)], outer, np.int32(0), x)[1]
        return [result, tnp.cos(result), keep]

    function, _ = trace(program, [matrix(5)])
    both(function, RNG.normal(size=5).astype(np.float32))


@pytest.mark.parametrize("choice", [True, False])
def test_if(choice):
    def program(p, x):
        y = x + 1.0
        return bind("stablehlo.if", p, regions=[
            trace_region(lambda: [tnp.exp(y), y], []),
            trace_region(lambda: [x, tnp.sum(y) * y], [])])

    function, _ = trace(program, [TensorType((), I1), matrix(6)])
    both(function, np.array(choice), RNG.normal(size=6).astype(np.float32))


@pytest.mark.parametrize("index", [-1, 0, 1, 2, 9])
def test_case_out_of_range_takes_the_last_branch(index):
    def program(i, x):
        return [bind("stablehlo.case", i, regions=[
            trace_region(lambda f=f: [f(x)], []) for f in (tnp.exp, tnp.sin, lambda v: v * 0.0)])]

    function, _ = trace(program, [TensorType((), I32), matrix(3)])
    both(function, np.array(index, np.int32), RNG.normal(size=3).astype(np.float32))


def test_branches_may_return_constants():
    def program(p, x):
        return [bind("stablehlo.if", p, regions=[
            trace_region(lambda: [tnp.full((3,), 2.5, dtype=np.float32)], []),
            trace_region(lambda: [x], [])])]

    function, _ = trace(program, [TensorType((), I1), matrix(3)])
    for choice in (True, False):
        both(function, np.array(choice), np.ones(3, np.float32))


def test_a_loop_over_a_large_constant():
    table = RNG.normal(size=(4, 3)).astype(np.float32)

    def program(x):
        return loop(lambda i, t: [i < np.int32(4)],
                    lambda i, t: [i + np.int32(1), t + tnp.take(tnp.asarray(table), i, axis=0)],
                    np.int32(0), x)[1:]

    function, _ = trace(program, [matrix(3)])
    (found,) = both(function, np.zeros(3, np.float32))
    np.testing.assert_allclose(found, table.sum(0), rtol=1e-5)


def test_passes_that_change_nothing_copy_nothing():
    def program(x, n):
        return loop(lambda i, total, n: [i < n],
                    lambda i, total, n: [i + np.int32(1), total + x, n], np.int32(0), x, n)

    traced, _ = trace(program, [matrix(3), TensorType((), I32)])
    assert everywhere(lambda function, target: function, traced) is traced
    # A change in a region alone is seen, and outer values still reach into it.
    changed = everywhere(lambda function, target: simplify(function)
                         if function.name == REGION else function, traced)
    assert changed is not traced
    both(changed, np.ones(3, np.float32), np.int32(4))
