"""Loop-invariant motion and the results of loops nobody reads: the same bits, and less inside."""

import numpy as np
import pytest

from tfn import numpy as tnp
from tfn.compiler import debug
from tfn.compiler.codegen.target import Target
from tfn.compiler.compile import compile_function, run_passes
from tfn.compiler.errors import TfnError
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dims import Dim
from tfn.compiler.ir.dtypes import F32, I32
from tfn.compiler.ir.evaluator import evaluate
from tfn.compiler.ir.verify import verify
from tfn.compiler.passes.cse import cse
from tfn.compiler.passes.dce import dce
from tfn.compiler.passes.hoist import hoist
from tfn.compiler.passes.inline import inline
from tfn.compiler.passes.regions import everywhere
from tfn.compiler.trace.control import cond, scan, while_loop
from tfn.compiler.trace.core import trace
from tfn.tools.conformance.random_programs import numbered

RNG = np.random.default_rng(5)
COUNT, MATRIX, VECTOR = TensorType((), I32), TensorType((6, 6), F32), TensorType((6,), F32)


def moved(function):
    """The function after inlining, and that with less in its loops."""
    before = inline(function)
    after = everywhere(dce, everywhere(hoist, everywhere(cse, before)))
    verify(after)
    return before, after


def inner_ops(function):
    """What is computed inside loops, at any depth; not what moves numbers or repeats them."""
    found = [op.name.partition(".")[2]
             for loop in function.body.walk() if loop.name == "stablehlo.while"
             for region in loop.regions for op in region.ops]
    return sorted(name for name in found if name not in (
        "constant", "broadcast_in_dim", "reshape", "slice", "transpose"))


def repeat(n, step, *state):
    """`step` of the state, n times; n is traced."""
    return while_loop(lambda s: s[0] < n, lambda s: (s[0] + 1, *step(s[0], *s[1:])),
                      (np.int32(0), *state))[1:]


def product(n, w, v):
    """The product of two weights does not change."""
    return repeat(n, lambda i, x: (x @ (w @ tnp.exp(w)),), v)


def carried(n, w, v):
    """A weight is carried along, as JAX's scans do."""
    return repeat(n, lambda i, w, x: (w, x @ tnp.transpose(w)), w, v)[1:]


def swapped(n, w, v):
    """Two values trade places: neither is fixed."""
    return repeat(n, lambda i, x, y: (y, x), v, v * 2)


def unread(n, w, v):
    """A product that only feeds itself."""
    return repeat(n, lambda i, x, y: (x + 1, y @ w), v, v)[:1]


def nested(n, w, v):
    """What both loops leave alone leaves both."""
    return repeat(n, lambda i, x: repeat(n, lambda j, y: (y + tnp.tanh(w)[0],), x), v)


def of_the_outer_loop(n, w, v):
    """What the inner loop leaves alone stays in the outer one."""
    return repeat(n, lambda i, x: repeat(n, lambda j, y: (y + tnp.tanh(x),), x), v)


def branches(n, w, v):
    """A product in a branch may never run, and stays there."""
    return repeat(n, lambda i, x: (cond(i > 1, lambda: x @ (w @ w), lambda: x),), v)


def spread(n, w, v):
    """A row added to every row is cheap, the matrix of rows is large: both stay."""
    return repeat(n, lambda i, x: (x * (tnp.broadcast_to(v, (6, 6)) + 1),), w)


def everything(n, w, v):
    """All values are fixed: no loop is left."""
    return while_loop(lambda s: s[0] < -n, lambda s: s, (n, v))[1:]


def condition(n, w, v):
    """The bound is computed from values outside."""
    return while_loop(lambda s: tnp.sum(s) < tnp.sum(tnp.abs(w)), lambda s: s + 1, v)


PROGRAMS = {
    product: ["add", "compare", "dot_general"],
    carried: ["add", "compare", "dot_general"],
    swapped: ["add", "compare"],
    unread: ["add", "add", "compare"],
    nested: ["add", "add", "add", "compare", "compare", "while"],
    of_the_outer_loop: ["add", "add", "add", "compare", "compare", "tanh", "while"],
    branches: ["add", "case", "compare", "compare", "convert", "convert", "convert"],
    spread: ["add", "add", "compare", "multiply"],
    everything: [],
    condition: ["add", "compare", "reduce"],
}
"""What is left inside."""


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
@pytest.mark.parametrize("n", [0, 1, 3])
def test_loops_do_less_and_give_the_same(program, n):
    found = trace(lambda *a: list(r if isinstance(r := program(*a), (list, tuple)) else [r]),
                  [COUNT, MATRIX, VECTOR])[0]
    before, after = moved(found)
    assert inner_ops(after) == PROGRAMS[program]
    arrays = [np.array(n, np.int32), RNG.normal(size=(6, 6)).astype(np.float32) * 0.3,
              RNG.normal(size=6).astype(np.float32)]
    expected = evaluate(before, arrays)
    compiled = compile_function(found)(*arrays)
    for a, b, c in zip(expected, evaluate(after, arrays), compiled, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(a, c, rtol=1e-4, atol=1e-4)


def test_a_branch_keeps_its_product():
    _, after = moved(trace(lambda *a: list(branches(*a)), [COUNT, MATRIX, VECTOR])[0])
    assert all(op.name != "stablehlo.dot_general" for op in after.ops)


def test_a_batch_of_any_size():
    batch = Dim.named("batch")

    def program(x, w):
        return [scan(lambda c, _: (tnp.tanh(c + tnp.exp(x) @ w), None), tnp.zeros_like(x), None, 5)[0]]

    found = trace(program, [TensorType((batch, 6), F32), MATRIX])[0]
    before, after = moved(found)
    assert "dot_general" not in inner_ops(after)
    arrays = [RNG.normal(size=(4, 6)).astype(np.float32), RNG.normal(size=(6, 6)).astype(np.float32)]
    np.testing.assert_array_equal(evaluate(before, arrays), evaluate(after, arrays))


def test_effects_stay_and_keep_what_they_read():
    seen = []

    def program(n, w, v):
        def step(i, x, y):
            debug.callback(lambda a: seen.append(float(a)), tnp.sum(y))
            return x + 1, y * 2
        return [repeat(n, step, v, v)[0]]

    function = trace(program, [COUNT, MATRIX, VECTOR])[0]
    arrays = [np.array(3, np.int32), np.zeros((6, 6), np.float32), np.ones(6, np.float32)]
    compile_function(function)(*arrays)
    assert seen == [6, 12, 24]


def test_a_loop_of_effects_alone_is_kept():
    seen = []

    def program(n):
        def step(i, x):
            debug.callback(lambda a: seen.append(float(a)), x)
            return (x * 2,)
        repeat(n, step, tnp.ones(()))
        return [n]

    compile_function(trace(program, [COUNT])[0])(np.array(3, np.int32))
    assert seen == [1, 2, 4]


def test_the_gradient_of_a_scan_keeps_no_copy_of_the_weights():
    """Sums of gradients are carried, weights are not."""
    from tfn import grad

    def loss(w, xs):
        return tnp.sum(scan(lambda h, x: (tnp.tanh(h @ w + x),) * 2, tnp.zeros(6), xs)[1])

    function = trace(lambda w, xs: [grad(loss)(w, xs)], [MATRIX, TensorType((9, 6), F32)])[0]
    loops = [op for op in run_passes(function, Target.host(), "dce").ops
             if op.name == "stablehlo.while"]
    carried = sorted([r.shape for r in op.results] for op in loops)
    # Forwards, a counter, the state and all states; backwards, a counter, the gradient of the state and
    # the sum for the weights.
    assert carried == [[(), (6,), (6, 6)], [(), (6,), (9, 6)]]


@pytest.mark.parametrize("start", range(0, 400, 100))
def test_random_programs_give_the_same_bits(start):
    loops = 0
    for number in range(start, start + 100):
        program = numbered(number)
        if all(op.name not in ("stablehlo.while", "stablehlo.if", "stablehlo.case", "tfn.scan")
               for op in program.function.body.walk()):
            continue
        try:
            before, after = moved(program.function)
            expected = evaluate(before, program.arrays)
        except TfnError:
            continue
        loops += 1
        for a, b in zip(expected, evaluate(after, program.arrays), strict=True):
            assert a.tobytes() == b.tobytes(), f"program {number}"
    assert loops > 10
