"""A memory budget: the same bits in less memory, or a refusal that says how much it takes."""

import numpy as np
import pytest

import tfn
import tfn.compiler.numpy as tnp
from tfn.compiler.codegen.target import Target
from tfn.compiler.compile import Executable, compile_function, run_passes
from tfn.compiler.errors import CompileError, TraceError
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dims import Dim
from tfn.compiler.ir.dtypes import F32
from tfn.compiler.ir.verify import verify
from tfn.compiler.passes.rematerialise import rematerialise
from tfn.compiler.runtime.memory import aligned_copy
from tfn.compiler.runtime.plan import make_plan
from tfn.compiler.trace.core import trace

rng = np.random.default_rng(9)
HOST = Target.host()
SIDE = 256
ONE = SIDE * SIDE * 4


def array(*shape):
    return rng.standard_normal(shape or (SIDE, SIDE)).astype(np.float32)


def both(program, *arrays, donate=(), budget=0):
    """The program as it is and with as little memory as it gets, after comparing their bits."""
    function, _ = trace(program, [TensorType(a.shape, F32) for a in arrays])
    for i, j in donate:
        function.argument_attributes[i] = {"tf.aliasing_output": j}
    fused = run_passes(function, HOST)
    made = [Executable(f, make_plan(f, HOST)) for f in (fused, verify(rematerialise(fused, budget)))]
    first, second = [e(*map(aligned_copy, arrays)) for e in made]
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    return made


def tower(x):
    """The derivative reads what goes into an activation, and what comes out of it."""
    w = tnp.eye(SIDE) * 0.9
    for _ in range(5):
        x = tfn.nn.gelu(x) @ (w + x)
    return x.sum()


def test_a_backward_pass_makes_activations_anew():
    kept, slim = both(lambda x: [tfn.grad(tower)(x)], array())
    assert slim.plan.arena_bytes <= kept.plan.arena_bytes - 3 * ONE


def test_no_more_than_asked_for():
    kept, slim = both(lambda x: [tfn.grad(tower)(x)], array(), budget=1 << 40)
    assert len(slim.plan.steps) == len(kept.plan.steps)
    least = both(lambda x: [tfn.grad(tower)(x)], array())[1]
    steps = [len(both(lambda x: [tfn.grad(tower)(x)], array(), budget=k * ONE)[1].plan.steps)
             for k in range(30, 0, -4)]
    assert steps == sorted(steps)
    assert steps[0] == len(kept.plan.steps) < steps[-1] == len(least.plan.steps)


def late(x, f):
    """`f(x)` is read at the beginning and, after much has come and gone, at the end."""
    first = tnp.cumsum(v := f(x), 0)
    wide = sum(tnp.cumsum(first * k, 1) for k in range(1, 4))
    return [tnp.cumsum(tnp.cumsum(wide, 0), 1) @ v]


LATE = {
    "elementwise": lambda x: tnp.exp(x) / 3,
    "a conversion": lambda x: (x * 4).astype("int32").astype("float32"),
    "a broadcast": lambda x: tnp.broadcast_to(tnp.tanh(x[0]), (SIDE, SIDE)),
    "a product and a sum": lambda x: x * tnp.tanh(x) + 1,
    "another order": lambda x: tnp.flip(tnp.tanh(x), 1),
    "parts": lambda x: tnp.concatenate([tnp.tanh(x[:9]), x[9:] + 1]),
    "another shape": lambda x: tnp.reshape(tnp.tanh(tnp.reshape(x, (-1,))), (SIDE, SIDE)),
}


@pytest.mark.parametrize("f", LATE.values(), ids=LATE)
def test_what_is_made_again(f):
    kept, slim = both(lambda x: late(x, f), array())
    assert slim.plan.arena_bytes < kept.plan.arena_bytes


NOT = {
    "a product": lambda x: x @ x,
    "a cumulative sum": lambda x: tnp.cumsum(x, 0),
    "sorted": lambda x: tnp.sort(x, 0),
}


@pytest.mark.parametrize("f", NOT.values(), ids=NOT)
def test_what_is_kept(f):
    kept, slim = both(lambda x: late(x, f), array())
    assert slim.plan.arena_bytes == kept.plan.arena_bytes


def test_views_of_what_is_made_again():
    def program(x):
        v = tnp.tanh(x)
        first = tnp.cumsum(v, 0)
        wide = sum(tnp.cumsum(first * k, 1) for k in range(1, 4))
        return [tnp.reshape(v, (SIDE * 2, SIDE // 2)).T @ tnp.reshape(wide, (SIDE * 2, SIDE // 2)),
                v[3:9] @ tnp.cumsum(wide, 0)]

    kept, slim = both(program, array())
    assert slim.plan.arena_bytes < kept.plan.arena_bytes


def test_donated_memory_is_not_read_after_its_update():
    def step(w, x):
        v = tnp.tanh(w)
        new = tnp.cumsum(x, 0) - w
        wide = sum(tnp.cumsum(new * k, 1) for k in range(1, 4))
        return [new, tnp.cumsum(wide, 0) @ v]

    kept, slim = both(step, array(), array(), donate=[(0, 0)])
    assert slim.plan.donations == kept.plan.donations


def test_jit_takes_a_budget():
    x = array()
    free = tfn.jit(tfn.grad(tower))
    wanted = np.asarray(free(x))
    (program,) = free._programs.values()
    budget = program.executable.plan.arena_bytes - ONE
    slim = tfn.jit(tfn.grad(tower), memory_budget=budget)
    np.testing.assert_array_equal(np.asarray(slim(x)), wanted)
    (program,) = slim._programs.values()
    assert program.executable.plan.arena_bytes <= budget


def test_a_budget_that_is_too_small_says_what_it_takes():
    with pytest.raises(CompileError, match=r"main needs [\d,]+ bytes of memory beside its arguments and"
                       r" results, its budget is 100: raise memory_budget") as caught:
        tfn.jit(lambda x: tnp.cumsum(tnp.cumsum(x, 0), 1) @ x, memory_budget=100)(array())
    assert caught.value.location.file == __file__


def test_a_budget_needs_known_sizes():
    function, _ = trace(lambda x: [tnp.cumsum(tnp.cumsum(x, 1), 1)],
                        [TensorType((Dim.named("n"), 9), F32)])
    with pytest.raises(CompileError, match="a memory budget for main needs known sizes"):
        compile_function(function, memory_budget=1000)


def test_a_budget_and_a_compiler_exclude_each_other():
    with pytest.raises(TraceError, match="a compiler or a memory_budget, not both"):
        tfn.jit(lambda x: x, memory_budget=1000, compiler=compile_function)


OPS = (lambda a, b: a + b, lambda a, b: tnp.cumsum(a, 0) * 0.1, lambda a, b: a @ b * 0.1,
       lambda a, b: tnp.tanh(a - b.mean(0)), lambda a, b: tnp.reshape(tnp.reshape(a, (64,)), (8, 8)),
       lambda a, b: tfn.fori_loop(0, 2, lambda i, s: s * 0.5 + b, a), lambda a, b: tnp.flip(a, 1),
       lambda a, b: a.at[1:3].set(b[:2]), lambda a, b: a * b + 1, lambda a, b: tnp.exp(-a * a),
       lambda a, b: tnp.concatenate([b[4:], a[:4]]))


@pytest.mark.parametrize("seed", range(40))
def test_random_programs(seed):
    draw = np.random.default_rng(seed)
    count = int(draw.integers(6, 24))
    choices = [(int(draw.integers(len(OPS))), *draw.integers(0, 3 + k, 2).tolist())
               for k in range(count)]

    def program(*values):
        values = list(values)
        for number, i, j in choices:
            values.append(OPS[number](values[i], values[j]))
        return [values[-1], values[-2], *(v.sum() for v in values[3::2])]

    both(program, array(8, 8), array(8, 8), array(8, 8), donate=[(0, 0), (1, 1)] if seed % 2 else [])
