"""Values that share memory: no copy where none is needed, and never memory that is still read."""

import numpy as np
import pytest

import tfn
import tfn.compiler.numpy as tnp
from tfn.compiler.codegen.target import Target
from tfn.compiler.compile import compile_function, run_passes
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dtypes import BF16, F32
from tfn.compiler.ir.evaluator import evaluate
from tfn.compiler.passes.inline import inline
from tfn.compiler.runtime.memory import aligned_copy
from tfn.compiler.trace.core import trace

rng = np.random.default_rng(3)
SIDE = 8


def square():
    return rng.standard_normal((SIDE, SIDE)).astype(np.float32)


def compiled(program, *arrays, donate=()):
    """The executable, after comparing it with the evaluator; `donate`: pairs of argument and result."""
    types = [TensorType(a.shape, next(t for t in (F32, BF16) if t.numpy == a.dtype))
             for a in arrays]
    function, _ = trace(program, types)
    for i, j in donate:
        function.argument_attributes[i] = {"tf.aliasing_output": j}
    executable = compile_function(function)
    wanted = evaluate(inline(function), arrays)
    for _ in range(2):
        for a, b in zip(executable(*map(aligned_copy, arrays)), wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    return executable


def copies(executable):
    return [s for s in executable.plan.steps
            if s.kernel is None and s.jump is None and s.host is None and s.collective is None]


NOT_IN_PLACE = {
    "a transpose of what is computed": lambda x: [tnp.transpose(x * 2)],
    "turned around": lambda x: [tnp.flip(tnp.tanh(x), 0) + 1],
    "rolled": lambda x: [tnp.roll(x + 1, 3, 1) * x],
    "its own product": lambda x: [x @ x + x],
    "sums of rows": lambda x: [x - x.sum(1, keepdims=True)],
    "sums of columns": lambda x: [x - x.sum(0, keepdims=True)],
    "read again by a later kernel": lambda x: [x + 1, (x + 1) @ x],
    "cumulative sums": lambda x: [tnp.cumsum(x, 0)],
}


@pytest.mark.parametrize("program", NOT_IN_PLACE.values(), ids=NOT_IN_PLACE)
def test_donated_memory_is_not_overwritten_before_it_is_read(program):
    compiled(program, square(), donate=[(0, 0)])


def test_values_that_change_places():
    compiled(lambda a, b: [b * 2, a + 1], square(), square(), donate=[(0, 0), (1, 1)])
    compiled(lambda a, b: [b, a], square(), square(), donate=[(0, 0), (1, 1)])


def adam(w, m, v, g):
    m = 0.9 * m + 0.1 * g
    v = 0.99 * v + 0.01 * g * g
    return [w - 1e-3 * m / (tnp.sqrt(v) + 1e-7), m, v]


IN_PLACE = {
    "an optimizer": (adam, 4, 3),
    "two that do not depend on each other": (lambda a, b: [a * 2, tnp.exp(b)], 2, 2),
    "the end of a product": (lambda c, a, b: [a @ b + c], 3, 1),
    "returned as it is": (lambda a, b: [a, b + 1], 2, 2),
    "the state of a loop": (lambda a: [tfn.fori_loop(0, 3, lambda i, x: x * 0.5 + 1, a)], 1, 1),
    "one branch": (lambda a: [tfn.cond(a[0, 0] > 0, lambda x: x * 2, lambda x: x, a)], 1, 1),
}


@pytest.mark.parametrize(("program", "takes", "gives"), IN_PLACE.values(), ids=IN_PLACE)
def test_donated_memory_is_updated_in_place_without_a_copy(program, takes, gives):
    executable = compiled(program, *[abs(square()) for _ in range(takes)],
                          donate=[(i, i) for i in range(gives)])
    assert executable.plan.donations == {i: i for i in range(gives)}
    assert copies(executable) == []


def test_a_narrower_type_does_not():
    compiled(lambda x: [x.astype(BF16.numpy)], square(), donate=[(0, 0)])


def test_intermediate_values_are_computed_in_place():
    executable = compiled(lambda x: [tfn.nn.softmax(x)], rng.random((64, 64), np.float32))
    assert executable.peak_bytes() <= 64 * 64


def test_a_residual_tower_takes_no_more_than_its_lowest_storeys():
    def tower(height):
        def program(x, w):
            for _ in range(height):
                x = x + tnp.maximum(x @ w, 0.0)
            return [x.sum()]

        return compiled(program, square() * 0.1, square() * 0.1).peak_bytes()

    assert tower(8) == tower(3)


def test_what_a_loop_begins_with_is_made_in_its_state():
    def program(x):
        zeros = tnp.zeros((SIDE, SIDE), np.float32)
        return list(tfn.fori_loop(0, 4, lambda i, s: (
            s[0].at[i].set(x[0] + i), s[1].at[:, i].set(x[1]), s[2] + x), (zeros, zeros, zeros)))

    executable = compiled(program, square())
    large = [s for s in copies(executable) if s.work.extents[0] >= SIDE * SIDE * 4]
    assert large == []


def test_filled_memory_that_is_read_elsewhere():
    def program(x):
        ones = tnp.ones((SIDE, SIDE), np.float32)
        a, b = tfn.fori_loop(0, 3, lambda i, s: (s[0] @ x * 0.1, s[1] + s[0]), (ones, ones))
        return [a, b, ones, tnp.cumsum(ones, 0) @ x]

    compiled(program, square())


def test_kernels_say_which_memory_may_be_one():
    """LLVM may keep a load until after a store to memory that cannot be the same."""
    from tfn.compiler.codegen.kernel import emit_kernel

    host = Target.host()
    function, _ = trace(lambda a, b: [a * 2, tnp.exp(b)], [TensorType((64,), F32)] * 2)
    (kernel,) = run_passes(function, host).ops[:1]
    assert "ptr %b0" in emit_kernel(kernel, host).text
    assert "noalias %b0" not in emit_kernel(kernel, host).text
    function, _ = trace(lambda a, b: [a + b[0]], [TensorType((64,), F32)] * 2)
    *_, kernel = (op for op in run_passes(function, host).ops if op.name == "tfn.kernel")
    assert "noalias %b1" in emit_kernel(kernel, host).text


OPS = (lambda a, b: a + b, lambda a, b: tnp.maximum(a, b) * 0.5, lambda a, b: tnp.tanh(a) - b,
       lambda a, b: tnp.transpose(a), lambda a, b: tnp.flip(a, 1), lambda a, b: a @ b * 0.3,
       lambda a, b: tnp.concatenate([b[4:], a[:4]]), lambda a, b: a - b.mean(0),
       lambda a, b: tnp.reshape(tnp.reshape(a, (4, 16)) * 0.7, (8, 8)),
       lambda a, b: a.at[2:5].set(b[:3]),
       lambda a, b: tfn.fori_loop(0, 2, lambda i, s: (s[1], s[0] * 0.5 + s[1]), (a, b))[1],
       lambda a, b: tfn.cond(a[0, 1] > b[1, 0], lambda a, b: a, lambda a, b: b * 0.9, a, b))


@pytest.mark.parametrize("seed", range(40))
def test_random_programs_whose_arguments_are_all_donated(seed):
    draw = np.random.default_rng(seed)
    count = int(draw.integers(3, 14))
    choices = [(int(draw.integers(len(OPS))), *draw.integers(0, 3 + k, 2).tolist())
               for k in range(count)]
    returned = draw.integers(0, 3 + count, 3).tolist()
    if seed % 2:
        returned = [count, count + 1, count + 2]

    def program(*values):
        values = list(values)
        for number, i, j in choices:
            values.append(OPS[number](values[i], values[j]))
        return [values[k] for k in returned]

    order = draw.permutation(3).tolist()
    compiled(program, square(), square(), square(), donate=list(enumerate(order)))
