"""Plans: every buffer is live when it is read, arenas are reused, donation, symbolic sizes."""

import numpy as np
import pytest

import tfn.compiler.numpy as tnp
from tfn.compiler.codegen.target import Target
from tfn.compiler.compile import Executable, compile_function, run_passes
from tfn.compiler.errors import OpError, UnsupportedError
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dims import Dim
from tfn.compiler.ir.dtypes import F32
from tfn.compiler.ops.declare import OpDefinition
from tfn.compiler.runtime.plan import make_plan
from tfn.compiler.trace.core import as_array, bind, trace
from tfn.compiler.trace.jit import jit

RNG = np.random.default_rng(11)
BATCH = Dim.named("batch")


def random(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def compiled(program, *shapes):
    return compile_function(trace(program, [TensorType(s, F32) for s in shapes])[0])


def chain(x):
    for _ in range(6):
        x = tnp.cumsum(x, axis=1) * 0.5
    return [x]


def expected_chain(x):
    for _ in range(6):
        x = np.cumsum(x, axis=1) * np.float32(0.5)
    return x


def test_a_chain_of_any_length_takes_few_buffers():
    executable = compiled(chain, (64, 64))
    assert executable.peak_bytes() <= 4 * 64 * 64 * 4
    x = random(64, 64)
    np.testing.assert_allclose(executable(x)[0], expected_chain(x), rtol=1e-4, atol=1e-4)


def test_one_plan_serves_every_batch_size():
    executable = compiled(lambda x, w: [tnp.cumsum(tnp.exp(x) @ w, axis=1)], (BATCH, 6), (6, 5))
    for batch in (1, 2, 17, 300, 1):
        x, w = random(batch, 6), random(6, 5)
        np.testing.assert_allclose(executable(x, w)[0], np.cumsum(np.exp(x) @ w, axis=1),
                                   rtol=1e-4, atol=1e-4)
    assert executable.peak_bytes(batch=300) > executable.peak_bytes(batch=1)


def test_peak_memory_is_affine_in_the_batch():
    executable = compiled(lambda x: [tnp.sum(tnp.cumsum(x, axis=1), axis=1)], (BATCH, 16))
    sizes = [executable.peak_bytes(batch=n) for n in (1, 2, 3)]
    assert sizes[2] - sizes[1] == sizes[1] - sizes[0]


RESULTS = {
    "an argument": (lambda x: [x], lambda x: [x]),
    "an argument twice": (lambda x: [x, x], lambda x: [x, x]),
    "a value twice": (lambda x: [y := tnp.exp(x), y], lambda x: [np.exp(x)] * 2),
    "a view of a result": (lambda x: [y := tnp.exp(x), tnp.reshape(y, (12,))],
                           lambda x: [np.exp(x), np.exp(x).reshape(12)]),
    "rows of a value": (lambda x: [tnp.exp(x)[1:3]], lambda x: [np.exp(x)[1:3]]),
    "rows of an argument": (lambda x: [x[2:]], lambda x: [x[2:]]),
    "a constant": (lambda x: [tnp.asarray(np.arange(5, dtype=np.float32)), x + 1.0],
                   lambda x: [np.arange(5, dtype=np.float32), x + 1]),
    "a splat": (lambda x: [tnp.zeros_like(x)], lambda x: [np.zeros_like(x)]),
    "a reshaped argument": (lambda x: [tnp.reshape(x, (2, 6))], lambda x: [x.reshape(2, 6)]),
}


@pytest.mark.parametrize("name", RESULTS)
def test_results_that_are_not_computed_here(name):
    program, reference = RESULTS[name]
    x = random(4, 3)
    found = compiled(program, (4, 3))(x)
    for a, b in zip(found, reference(x), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    for a in found:
        assert not np.shares_memory(a, x)


def test_results_are_64_byte_aligned():
    for result in compiled(lambda x: [x + 1.0, tnp.exp(x)], (3, 5))(random(3, 5)):
        assert result.ctypes.data % 64 == 0


def test_a_donated_argument_lends_its_memory():
    step = jit(lambda w, g: w - g * 0.1, donate_argnums=0)
    w, g = as_array(random(100)), as_array(random(100))
    expected = np.asarray(w).copy()
    for _ in range(3):
        w = step(w, g)
        expected = expected - np.asarray(g) * np.float32(0.1)
    np.testing.assert_allclose(np.asarray(w), expected, rtol=1e-6)
    assert next(iter(step._programs.values()))[0].plan.donations == {0: 0}


def test_donation_never_overwrites_the_users_array():
    step = jit(lambda w: w * 2.0, donate_argnums=0)
    mine = random(10)
    kept = mine.copy()
    step(as_array(mine))
    np.testing.assert_array_equal(mine, kept)


def test_donation_waits_for_the_last_reader():
    def swap(w):
        moved = tnp.flip(w, 0)
        return moved, tnp.sum(w * moved)

    step = jit(swap, donate_argnums=0)
    w = random(33)
    moved, total = step(as_array(w))
    np.testing.assert_array_equal(np.asarray(moved), w[::-1])
    np.testing.assert_allclose(np.asarray(total), np.sum(w * w[::-1]), rtol=1e-4)


def test_calls_from_many_threads():
    from concurrent.futures import ThreadPoolExecutor

    executable = compiled(chain, (BATCH, 8))
    inputs = [random(n % 7 + 1, 8) for n in range(40)]
    with ThreadPoolExecutor(4) as pool:
        for x, (y,) in zip(inputs, pool.map(executable, inputs), strict=True):
            np.testing.assert_allclose(y, expected_chain(x), rtol=1e-4, atol=1e-4)


def test_arguments_that_are_not_contiguous():
    x = random(8, 6)
    executable = compiled(lambda x: [x * 2.0], (6, 8))
    np.testing.assert_array_equal(executable(x.T)[0], x.T * 2)


@pytest.mark.parametrize(("shapes", "text"), [
    ([(3, 4)], r"argument 0 of main must be tensor<\?x5xf32>, got float32\[3, 4\]"),
    ([(3, 5), (2, 5)], r"argument 1 of main must be"),
])
def test_arguments_that_do_not_fit(shapes, text):
    executable = compiled(lambda *xs: [sum(xs[1:], xs[0])], *[(BATCH, 5)] * len(shapes))
    with pytest.raises(OpError, match=text):
        executable(*[random(*s) for s in shapes])


def test_too_few_arguments():
    with pytest.raises(OpError, match="main takes 2 arguments, got 1"):
        compiled(lambda x, y: [x + y], (2,), (2,))(random(2))


def test_an_op_without_code_is_named_with_its_line():
    class Codeless(OpDefinition):
        name = "test.codeless"

        @staticmethod
        def infer(operands, attributes, regions):
            return list(operands)

    function, _ = trace(lambda x: [bind(Codeless, x)], [TensorType((2,), F32)])
    with pytest.raises(UnsupportedError, match=r"test\.codeless") as caught:
        compile_function(function)
    assert caught.value.location.file == __file__


def test_a_plan_has_memory_for_every_thread_of_the_pool():
    """Its default: the workspace of a plan for one thread would be overrun by the others."""
    function, _ = trace(lambda a, b: [tnp.maximum(a @ b, 0.0)], [TensorType((512, 512), F32)] * 2)
    fused = run_passes(function, Target.host())
    a, b = random(512, 512), random(512, 512)
    (found,) = Executable(fused, make_plan(fused, Target.host()))(a, b)
    np.testing.assert_allclose(found, np.maximum(a @ b, 0), rtol=1e-3, atol=1e-3)
    one, many = (make_plan(fused, Target.host(), threads).arena_bytes for threads in (1, 3))
    assert many > one


def test_a_plan_for_fewer_threads_is_refused():
    function, _ = trace(lambda a: [a + 1], [TensorType((5,), F32)])
    fused = run_passes(function, Target.host())
    executable = Executable(fused, make_plan(fused, Target.host(), 0))
    with pytest.raises(ValueError, match="has memory for 0 threads"):
        executable(random(5))
