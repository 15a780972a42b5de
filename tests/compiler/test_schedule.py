"""The order of kernels: dependencies and effects hold, and less memory is needed."""

import numpy as np
import pytest

import tfn
import tfn.compiler.numpy as tnp
from tfn.compiler.codegen.target import Target
from tfn.compiler.compile import Executable, run_passes
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dims import Dim
from tfn.compiler.ir.dtypes import F32
from tfn.compiler.ir.verify import verify
from tfn.compiler.passes.schedule import schedule
from tfn.compiler.runtime.memory import aligned_copy
from tfn.compiler.runtime.plan import make_plan
from tfn.compiler.trace.core import trace

rng = np.random.default_rng(8)
HOST = Target.host()


def array(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def both(program, *arrays, donate=()):
    """The program in its own order and in the best, after comparing their bits."""
    function, _ = trace(program, [TensorType(a.shape, F32) for a in arrays])
    for i, j in donate:
        function.argument_attributes[i] = {"tf.aliasing_output": j}
    own = run_passes(function, HOST, until="recompute")
    made = [Executable(f, make_plan(f, HOST)) for f in (own, verify(schedule(own)))]
    first, second = [e(*map(aligned_copy, arrays)) for e in made]
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    return made


def order(executable):
    return [[o.name.partition(".")[2] for o in op.regions[0].ops] for op in executable.function.ops
            if op.name == "tfn.kernel"]


def test_weights_are_updated_as_soon_as_their_gradients_are_there():
    depth, side = 6, 1024

    def loss(weights, x):
        for w in weights:
            x = tnp.tanh(x @ w)
        return (x * x).sum()

    def step(x, *weights):
        gradients = tfn.grad(loss)(list(weights), x)
        return [w - 0.1 * g / (1 + abs(g).max()) for w, g in zip(weights, gradients, strict=True)]

    own, best = both(step, array(4, side), *[array(side, side) * 0.1 for _ in range(depth)],
                     donate=[(i + 1, i) for i in range(depth)])
    one = side * side * 4
    assert own.plan.arena_bytes - best.plan.arena_bytes >= (depth - 2) * one
    assert best.plan.donations == own.plan.donations == {i: i + 1 for i in range(depth)}


def test_what_is_made_of_nothing_is_made_when_it_is_needed():
    def program(x):
        masks = [tnp.cumsum(tnp.sin(x * k), 0) for k in range(1, 7)]
        y = x
        for mask in masks:
            y = tnp.cumsum(y * mask, 1)
        return [y]

    own, best = both(program, array(64, 64))
    assert best.plan.arena_bytes <= 0.6 * own.plan.arena_bytes


def test_what_frees_memory_runs_first():
    def program(x):
        wide = [tnp.cumsum(x * k, 0) for k in range(1, 7)]
        return [tnp.cumsum(w, 1).sum() for w in wide]

    own, best = both(program, array(64, 64))
    assert best.plan.arena_bytes <= 0.6 * own.plan.arena_bytes


def test_the_own_order_stays_if_it_is_as_good():
    function, _ = trace(lambda x: [tnp.cumsum(tnp.cumsum(x, 0), 1)], [TensorType((9, 9), F32)])
    fused = run_passes(function, HOST, until="recompute")
    assert schedule(fused) is fused


def test_effects_keep_their_order(capsys):
    @tfn.jit
    def program(x):
        for k in range(5):
            wide = tnp.cumsum(x * k, 0)
            tfn.debug.print("{} {}", k, tnp.cumsum(wide, 1).sum())
        return tnp.cumsum(wide, 0)

    program(np.zeros((8, 8), np.float32))
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list("01234")


def test_a_symbolic_batch():
    n = Dim.named("n")

    def program(x):
        wide = [tnp.cumsum(x * k, 1) for k in range(1, 7)]
        return [w.sum(1) for w in wide]

    function, _ = trace(program, [TensorType((n, 64), F32)])
    own = run_passes(function, HOST, until="recompute")
    made = [Executable(f, make_plan(f, HOST)) for f in (own, schedule(own))]
    x = array(5, 64)
    np.testing.assert_array_equal(*[e(x)[0] for e in made])
    assert made[1].peak_bytes(n=100) < made[0].peak_bytes(n=100)


OPS = (lambda a, b: a + b, lambda a, b: tnp.cumsum(a, 0) * 0.1, lambda a, b: a @ b * 0.1,
       lambda a, b: tnp.tanh(a - b.mean(0)), lambda a, b: tnp.reshape(tnp.reshape(a, (64,)), (8, 8)),
       lambda a, b: tfn.fori_loop(0, 2, lambda i, s: s * 0.5 + b, a), lambda a, b: tnp.flip(a, 1),
       lambda a, b: a.at[1:3].set(b[:2]))


@pytest.mark.parametrize("seed", range(30))
def test_random_programs(seed):
    draw = np.random.default_rng(seed)
    count = int(draw.integers(4, 20))
    choices = [(int(draw.integers(len(OPS))), *draw.integers(0, 3 + k, 2).tolist())
               for k in range(count)]

    def program(*values):
        values = list(values)
        for number, i, j in choices:
            values.append(OPS[number](values[i], values[j]))
        return [values[-1], values[-2], sum(v.sum() for v in values[3::2])]

    both(program, array(8, 8), array(8, 8), array(8, 8), donate=[(0, 0), (1, 1)] if seed % 2 else [])
