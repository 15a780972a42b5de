"""Cheap values are made where they are read: the same bits, less memory."""

from importlib import import_module

import numpy as np
import pytest

import tfn
import tfn.compiler.numpy as tnp
from tfn.compiler.codegen.target import Target
from tfn.compiler.compile import Executable, run_passes
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dtypes import F32
from tfn.compiler.ir.evaluator import evaluate
from tfn.compiler.ir.verify import verify
from tfn.compiler.passes.inline import inline
from tfn.compiler.passes.recompute import recompute
from tfn.compiler.passes.regions import everywhere
from tfn.compiler.runtime.memory import aligned_copy
from tfn.compiler.runtime.plan import make_plan
from tfn.compiler.trace.core import trace

rng = np.random.default_rng(5)
HOST = Target.host()


def array(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def both(program, *arrays, donate=()):
    """The program without recomputation and with it, after comparing their bits, and the evaluator."""
    function, _ = trace(program, [TensorType(a.shape, F32) for a in arrays])
    for i, j in donate:
        function.argument_attributes[i] = {"tf.aliasing_output": j}
    plain = run_passes(function, HOST, until="fuse")
    made = [Executable(f, make_plan(f, HOST)) for f in (
        plain, verify(everywhere(recompute, plain, HOST)))]
    kept, spared = [e(*map(aligned_copy, arrays)) for e in made]
    for a, b, c in zip(kept, spared, evaluate(inline(function), arrays), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(a, c, rtol=1e-4, atol=1e-4)
    return made


def normalised(x, scale, offset):
    mean = x.mean(0)
    centred = x - mean
    return centred * tnp.sqrt((centred * centred).mean(0) + 1e-3) * scale + offset


def layers(x, scale, offset, w):
    for _ in range(3):
        x = tnp.maximum(normalised(x @ w, scale, offset), 0.0)
    return (x * x).sum()


def test_a_backward_pass_keeps_what_products_made_and_read():
    """Of each layer: the product, the activation, and not the two values between them."""
    n = 512
    kept, spared = both(lambda *a: list(tfn.grad(layers, argnums=(0, 1, 2, 3))(*a)),
                        array(n, 32), array(32), array(32), array(32, 32) * 0.1)
    assert spared.plan.arena_bytes < 0.75 * kept.plan.arena_bytes
    assert len(spared.plan.steps) <= len(kept.plan.steps)


def stored(executable):
    return sum(len(op.results) for op in executable.function.ops if op.name == "tfn.kernel")


PROGRAMS = {
    "two operands to read instead of one": (
        lambda x, y: [(v := x + y).sum(0), v.sum(1), tnp.cumsum(v, 0)], 0),
    "read late": (lambda x, y: [(v := x - y.mean(0)).sum(0), tnp.tanh(tnp.cumsum(x, 0)) * v], 1),
    "a product for sums": (lambda x, y: [(v := x * y.mean(0)).sum(0), tnp.cumsum(x, 0) + v], 0),
    "a product inside": (lambda x, y: [(v := x * y.mean(0) + 1).sum(0), tnp.cumsum(x, 0) + v], 1),
    "a product read twice": (lambda x, y: [(v := (m := x * y.mean(0)) + 1).sum(0), m.sum(1),
                                           tnp.cumsum(x, 0) * v - m], None),
    "dear": (lambda x, y: [(v := tnp.exp(x)).sum(0), tnp.cumsum(x, 0) * v], 0),
    "returned": (lambda x, y: [(v := x - y.mean(0)), v.sum(0), tnp.cumsum(x, 0) * v], 0),
    "read by a product": (lambda x, y: [(v := x - y.mean(0)).T @ v, tnp.cumsum(x, 0) * v], None),
    "read elsewhere": (lambda x, y: [tnp.flip(v := x + y.mean(0), 0).sum(), tnp.cumsum(x, 0) * v],
                       None),
    "followed by a product": (lambda x, y: [(v := x - y.mean(0)).sum(0), x @ tnp.cumsum(y, 0)[:24] * v],
                              None),
    "whole numbers": (lambda x, y: [(v := (x * 8).astype("int32")).sum(0), tnp.cumsum(v, 0) // 3 * v],
                      None),
    "not a number": (lambda x, y: [(v := tnp.sqrt(x) - y.mean(0)).sum(0),
                                   tnp.maximum(v, 0) * tnp.cumsum(x, 0), v > 0], None),
    "in a loop": (lambda x, y: [tfn.fori_loop(0, 3, lambda i, s: (
        (v := s - s.mean(0)) / ((v * v).sum() + 1) + tnp.cumsum(v, 0) * 0.1), x)], None),
    "in a branch": (lambda x, y: list(tfn.cond(x[0, 0] > 0, lambda x, y: (
        (v := x - y.mean(0)).sum(0), tnp.cumsum(v, 0) * v), lambda x, y: (x[0], y), x, y)), None),
    "of a loop's state": (lambda x, y: [tfn.fori_loop(0, 3, lambda i, s: (
        (v := s[1] - 1).sum(0) + s[0], tnp.cumsum(v, 0) * v * 0.1), (x[0], y))[1]], None),
}


@pytest.mark.parametrize(("program", "fewer"), PROGRAMS.values(), ids=PROGRAMS)
def test_programs(program, fewer):
    kept, spared = both(program, array(24, 24), array(24, 24))
    # A row that lives longer, and the memory of results, may be less well used.
    assert spared.plan.arena_bytes <= kept.plan.arena_bytes + 1024
    assert fewer is None or stored(kept) - stored(spared) == fewer


def test_what_there_is_one_of_per_row_is_stored_instead(monkeypatch):
    """The mean and the deviation, and not the normalised rows that the scale's gradient reads. In rows
    so short that LLVM adds them up in the same order, whatever else the loop does."""
    monkeypatch.setattr(import_module("tfn.compiler.passes.recompute"), "_FEW", 16)
    def normalised(x, scale):
        centred = x - x.mean(-1, keepdims=True)
        return centred / tnp.sqrt((centred * centred).mean(-1, keepdims=True) + 1e-5) * scale

    x, scale, dy = array(40, 32), array(32), array(40, 32)
    made = both(lambda x, scale, dy: list(tfn.vjp(normalised, x, scale)[1](dy)), x, scale, dy)
    kept, spared = (sum(r.shape == x.shape for op in m.function.ops for r in op.results)
                    for m in made)
    assert spared < kept


def test_donated_memory_is_still_updated_in_place():
    def step(w, x):
        v = w * 0.5 - 1
        return [w - x, v.sum(0), tnp.cumsum(x, 0) / v]

    kept, spared = both(step, array(16, 8), array(16, 8), donate=[(0, 0)])
    assert kept.plan.donations == spared.plan.donations == {0: 0}


def test_any_batch_has_the_same_kernels():
    def kernels(n):
        shapes = [(n, 32), (32,), (32,), (32, 32)]
        function, _ = trace(lambda *a: list(tfn.grad(layers, argnums=(0, 3))(*a)),
                            [TensorType(s, F32) for s in shapes])
        return {k.name for k in make_plan(run_passes(function, HOST), HOST).kernels()}

    assert kernels(7) == kernels(64) == kernels(5000)


OPS = (lambda a, b: a + b, lambda a, b: a * b + 0.5, lambda a, b: tnp.maximum(a, 0.0),
       lambda a, b: a - b.mean(0), lambda a, b: a * b.mean(1, keepdims=True), lambda a, b: -a,
       lambda a, b: tnp.where(a > b, a, b * 0.5), lambda a, b: tnp.cumsum(a, 0) * 0.1,
       lambda a, b: a @ b[:6] * 0.3, lambda a, b: tnp.tanh(a), lambda a, b: a / (1 + b * b),
       lambda a, b: tnp.reshape(tnp.reshape(a, (3, 24)) - b.mean(), (12, 6)))


@pytest.mark.parametrize("seed", range(40))
def test_random_programs(seed):
    draw = np.random.default_rng(seed)
    count = int(draw.integers(4, 18))
    choices = [(int(draw.integers(len(OPS))), *draw.integers(max(0, k - 4), 2 + k, 2).tolist())
               for k in range(count)]

    def program(*values):
        values = list(values)
        for number, i, j in choices:
            values.append(OPS[number](values[i], values[j]))
        return [values[-1], sum(v.sum() for v in values[2:])]

    both(program, array(12, 6), array(12, 6), donate=[(0, 0)] if seed % 2 else [])
