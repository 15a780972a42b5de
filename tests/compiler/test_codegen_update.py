"""dynamic_update_slice writes its window and nothing else: loops and donated buffers stay in place."""

import numpy as np
import pytest

import tfn.compiler.numpy as tnp
from tfn.compiler.compile import compile_function
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dims import Dim
from tfn.compiler.ir.dtypes import BF16, F32, I1, I32, DType
from tfn.compiler.ir.evaluator import evaluate
from tfn.compiler.passes.inline import inline
from tfn.compiler.trace.control import fori_loop, scan
from tfn.compiler.trace.core import bind, trace
from tfn.compiler.trace.jit import jit

rng = np.random.default_rng(0)


def write(x, update, *starts):
    return bind("stablehlo.dynamic_update_slice", x, update,
                *(tnp.asarray(s, dtype=np.int32) for s in starts))


def array(shape, dtype: DType = F32):
    if dtype is I1:
        return rng.random(shape) < 0.5
    if dtype is I32:
        return rng.integers(-9, 9, shape).astype(np.int32)
    return rng.standard_normal(shape).astype(dtype.numpy)


def compiled(program, *arrays):
    """The executable, after comparing it with the evaluator; inputs must stay as they are."""
    types = [TensorType(a.shape, next(t for t in (F32, BF16, I1, I32) if t.numpy == a.dtype))
             for a in arrays]
    function, _ = trace(program, types)
    executable = compile_function(function)
    before = [a.copy() for a in arrays]
    for _ in range(2):
        for a, b in zip(executable(*arrays), evaluate(inline(function), arrays), strict=True):
            np.testing.assert_array_equal(a, b)
    for a, b in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(a, b)
    return executable


@pytest.mark.parametrize("dtype", [F32, BF16, I1, I32], ids=str)
@pytest.mark.parametrize(("shape", "window"), [
    ((7,), (3,)), ((7,), (0,)), ((5, 6), (1, 6)), ((5, 6), (5, 1)), ((5, 6), (5, 6)),
    ((4, 3, 5), (2, 1, 3)), ((2, 3, 4, 5), (1, 3, 2, 5)), ((), ())])
@pytest.mark.parametrize("start", [0, 1, 100, -4])
def test_windows(shape, window, start, dtype):
    starts = [np.int32(start)] * len(shape)
    compiled(lambda x, u, *s: [write(x, u, *s)], array(shape, dtype), array(window, dtype), *map(
        np.asarray, starts))


def test_the_update_is_computed_in_the_same_kernel():
    executable = compiled(lambda x, u, i: [write(x, tnp.maximum(u * 2, 0.0), i, 0)],
                          array((6, 4)), array((2, 4)), np.asarray(3, np.int32))
    assert len(executable.plan.kernels()) == 1


PROGRAMS = {
    "the operand is needed afterwards": lambda x, u, i: [write(x, u, i, 0), x * 2],
    "the operand is returned": lambda x, u, i: [write(x, u, i, 0), x],
    "one after the other": lambda x, u, i: [write(write(x, u, i, 0), u + 1, i + 1, 1)],
    "two of one operand": lambda x, u, i: [write(x, u, i, 0), write(x, u + 1, i, 1)],
    "the update is of the operand": lambda x, u, i: [write(x, x[:2, :3] + 1, i, 0)],
    "the update is the operand's rows": lambda x, u, i: [write(x, x[1:3], i, 0)],
    "what it made is read": lambda x, u, i: [tnp.sum(write(x, u, i, 0), 0)],
    "of something computed": lambda x, u, i: [write(tnp.maximum(x, 0.0), u, i, 0)],
    "of zeros": lambda x, u, i: [write(tnp.zeros((6, 4)), u, i, 0)],
    "of a constant": lambda x, u, i: [write(tnp.asarray(np.arange(24.0, dtype=np.float32)
                                                        .reshape(6, 4)), u, i, 0)],
    "of a reshape": lambda x, u, i: [write(tnp.reshape(x, (4, 6)), u, i, 0), x],
    "returned twice": lambda x, u, i: [write(x, u, i, 0)] * 2,
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_programs(program):
    compiled(program, array((6, 4)), array((2, 3)), np.asarray(2, np.int32))


LOOPS = {
    "written": lambda i, s: (write(s[0], s[1][:1] + i, i, 0), s[1]),
    "written and read": lambda i, s: (write(s[0], s[0][1:2] * 0.5 + s[1][:1], i, 0), s[1]),
    "read afterwards": lambda i, s: (write(s[0], s[1][:1], i, 0), s[1] + s[0][:2]),
    "the new one read": lambda i, s: ((new := write(s[0], s[1][:1], i, 0)), s[1] + new[:2]),
    "both written": lambda i, s: (write(s[0], s[1][:1], i, 0), write(s[1], s[0][:1], 1, 0)),
    "crossed": lambda i, s: (write(s[0], s[1][:1], i, 0), tnp.concatenate(
        [s[0][2:3], s[1][:1]])),
    "twice": lambda i, s: (write(write(s[0], s[1][:1], i, 0), s[1][1:], 5 - i, 0), s[1] * 0.5),
}


@pytest.mark.parametrize("body", LOOPS.values(), ids=LOOPS)
def test_loops(body):
    compiled(lambda x, u: list(fori_loop(0, 5, body, (x, u))), array((6, 4)), array((2, 4)))


def test_states_that_change_places():
    def body(i, s):
        a, b = s
        return write(b, a[:1] + 1, i, 0), a

    compiled(lambda x, y: list(fori_loop(0, 5, body, (x, y))), array((6, 4)), array((6, 4)))


def test_branches():
    def program(x, u, i):
        return [tnp.where(i > 0, write(x, u, i, 0), x), *_cond(i > 1, x, u, i)]

    for i in (0, 2):
        compiled(program, array((6, 4)), array((2, 3)), np.asarray(i, np.int32))


def _cond(test, x, u, i):
    from tfn.compiler.trace.control import cond

    return [cond(test, lambda x: write(x, u, i, 0), lambda x: write(x, u * 2, 0, 1), x)]


def test_what_a_scan_stacks_is_written_once():
    """Before the loop zeros are made and copied into its state; no step of the loop touches all."""
    def program(c, xs):
        c, ys = scan(lambda c, x: (c * 0.5 + x, c), c, xs)
        return [c, ys]

    executable = compiled(program, array((8,)), array((50, 8)))
    whole = compiled(lambda x: [tnp.maximum(x, 0.0)], array((50, 8))).plan.steps[0].work
    steps = [s.work.picoseconds({}) for s in executable.plan.steps if s.jump is None]
    assert sum(cost > whole.picoseconds({}) / 4 for cost in steps) <= 2


def test_donated_memory_is_written_in_place():
    step = jit(lambda cache, x, i: write(cache, x, i, 0), donate_argnums=0)
    expected = array((100, 16))
    cache = jit(lambda x: x + 0)(tnp.asarray(expected))
    place = cache._data.ctypes.data
    for i in (3, 50, 98, 120):
        x = array((2, 16))
        cache = step(cache, tnp.asarray(x), tnp.asarray(np.int32(i)))
        expected[min(i, 98):min(i, 98) + 2] = x
        np.testing.assert_array_equal(cache, expected)
        assert cache._data.ctypes.data == place
    program = next(iter(step._programs.values()))
    assert program.executable.plan.donations == {0: 0}


def test_a_symbolic_batch():
    n = Dim.named("n")
    function, _ = trace(lambda x, u: [write(x, tnp.exp(u), 0, 2)],
                        [TensorType((n, 5), F32), TensorType((n, 2), F32)])
    executable = compile_function(function)
    for size in (1, 7, 3, 0):
        x, u = array((size, 5)), array((size, 2))
        np.testing.assert_allclose(executable(x, u)[0], evaluate(function, [x, u])[0], rtol=1e-6)
