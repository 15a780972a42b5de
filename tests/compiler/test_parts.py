"""Parts of a concatenation are made where they belong, and never in memory that is still read."""

import numpy as np
import pytest

import tfn.compiler.numpy as tnp
from tfn.compiler.compile import compile_function
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dims import Dim
from tfn.compiler.ir.dtypes import F32
from tfn.compiler.ir.evaluator import evaluate
from tfn.compiler.passes.inline import inline
from tfn.compiler.runtime.memory import aligned_copy
from tfn.compiler.trace.control import cond, fori_loop
from tfn.compiler.trace.core import trace

rng = np.random.default_rng(5)
SIDE = 128
"""Two squares are just large enough to be placed."""


def compiled(program, *shapes, donate=()):
    """The executable, after comparing it with the evaluator; `donate`: pairs of argument and result."""
    function, _ = trace(program, [TensorType(s, F32) for s in shapes])
    for i, j in donate:
        function.argument_attributes[i] = {"tf.aliasing_output": j}
    executable = compile_function(function)
    arrays = [rng.uniform(-0.1, 0.1, s).astype(np.float32) for s in shapes]
    wanted = evaluate(inline(function), arrays)
    for _ in range(2):
        for a, b in zip(executable(*map(aligned_copy, arrays)), wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    return executable


def copies(executable):
    return [s for s in executable.plan.steps
            if s.kernel is None and s.jump is None and s.host is None and s.collective is None]


SQUARE = (SIDE, SIDE)
IN_PLACE = {
    "two products": lambda a, b: [tnp.concatenate([a @ b, b @ a])],
    "products and what follows": lambda a, b: [tnp.concatenate([tnp.maximum(a @ b + 1, 0), b @ a])],
    "elementwise beside a product": lambda a, b: [tnp.concatenate([tnp.exp(a), a @ b])],
    "a reshaped product": lambda a, b: [tnp.concatenate([tnp.reshape(a @ b, (32, 4, SIDE)), tnp.reshape(
        b @ a, (32, 4, SIDE))])],
    "along the second of dims of one": lambda a, b: [
        tnp.concatenate([(a @ b)[None], (b @ a)[None]], 1)],
    "a part that is read as well": lambda a, b: [tnp.concatenate([y := a @ b, b @ a]), tnp.sum(y, 1)],
    "a part of another": lambda a, b: [tnp.concatenate([y := a @ b, y @ a])],
    "inside the program": lambda a, b: [tnp.concatenate([a @ b, b @ a]).T @ tnp.concatenate([a, b])],
    "scattered rows": lambda a, b: [tnp.concatenate([a @ b, tnp.zeros(SQUARE).at[
        tnp.asarray(np.arange(SIDE, dtype=np.int32) % 5)].add(a)])],
    "sums of columns": lambda a, b: [tnp.concatenate([a @ b, tnp.broadcast_to(tnp.sum(a, 0), SQUARE)])],
}


@pytest.mark.parametrize("program", IN_PLACE.values(), ids=IN_PLACE)
def test_nothing_is_copied(program):
    assert not copies(compiled(program, SQUARE, SQUARE))


PROGRAMS = {
    "an argument beside a product": lambda a, b: [tnp.concatenate([a, a @ b])],
    "a constant beside a product": lambda a, b: [tnp.concatenate(
        [tnp.asarray(np.eye(SIDE, dtype=np.float32)), a @ b])],
    "a part that is returned": lambda a, b: [y := a @ b, tnp.concatenate([y, b @ a])],
    "one part twice": lambda a, b: [tnp.concatenate([y := a @ b, y])],
    "one part in two": lambda a, b: [tnp.concatenate([y := a @ b, a]), tnp.concatenate([b, y])],
    "one in another": lambda a, b: [tnp.concatenate([tnp.concatenate([a @ b, b @ a]), a @ a])],
    "rows of a part": lambda a, b: [tnp.concatenate([(a @ b)[8:64], (b @ a)[32:]])],
    "a part that could be overwritten": lambda a, b: [
        tnp.concatenate([y := a @ b, b @ a]), (y + 1) @ b],
    "a whole that could be overwritten": lambda a, b: [
        tnp.tanh(z := tnp.concatenate([a @ b, b @ a])), z @ b],
    "parts that begin within a line": lambda a, b: [tnp.concatenate(
        [a[:, :17] @ b[:17, :33], b[:, :17] @ a[:17, :33]])[3:]],
    "along columns": lambda a, b: [tnp.concatenate([a @ b, b @ a], 1)],
    "an empty part": lambda a, b: [tnp.concatenate([a[:0] @ b, a @ b, b @ a])],
}


@pytest.mark.parametrize("donate", [(), [(0, 0)]], ids=["", "donated"])
@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_programs(program, donate):
    compiled(program, SQUARE, SQUARE, donate=donate)


DONATED = {
    "rows that stay": lambda x, w: [tnp.concatenate([x[:SIDE], x[SIDE:] @ w])],
    "rows that move": lambda x, w: [tnp.concatenate([x[SIDE:] @ w, x[:SIDE]])],
    "rows that move a little": lambda x, w: [tnp.concatenate([x[64:192], x[:SIDE] @ w])],
    "a queue": lambda x, w: [tnp.concatenate([x[SIDE:], x[:SIDE] @ w])],
    "parts of one another": lambda x, w: [tnp.concatenate([x[SIDE:] @ w, tnp.exp(x[:SIDE])])],
    "read afterwards": lambda x, w: [tnp.concatenate([y := x[:SIDE] @ w, x[SIDE:] @ w]), y + x[SIDE:]],
}


@pytest.mark.parametrize("program", DONATED.values(), ids=DONATED)
def test_donated_memory_is_not_overwritten_before_it_is_read(program):
    compiled(program, (2 * SIDE, SIDE), SQUARE, donate=[(0, 0)])


def test_rows_are_not_copied_within_one_memory():
    executable = compiled(lambda x, w: [tnp.concatenate([x[64:], y := x[:64] @ w]), y],
                          (2 * SIDE, SIDE), SQUARE, donate=[(0, 0)])
    assert not executable.plan.donations


LOOPS = {
    "a new state": lambda i, s: (tnp.concatenate([s[0][SIDE:] @ s[1], s[0][:SIDE] @ s[1]]), s[1]),
    "a queue": lambda i, s: (tnp.concatenate([s[0][SIDE:], s[0][:SIDE] @ s[1] + 1]), s[1]),
    "read afterwards": lambda i, s: (tnp.concatenate([y := s[0][SIDE:] @ s[1], s[0][:SIDE]]), y - s[1]),
    "of a part of before": lambda i, s: (tnp.concatenate([s[0][:SIDE] @ s[1], s[0][:SIDE] @ s[1]]),
                                         tnp.tanh(s[1] @ s[1]) + s[0][SIDE:] * 0.1),
    "under a condition": lambda i, s: (cond(
        i > 1, lambda x, w: tnp.concatenate([x[SIDE:] @ w, w @ w]),
        lambda x, w: tnp.concatenate([w @ w, x[:SIDE]]), *s), s[1]),
}


@pytest.mark.parametrize("body", LOOPS.values(), ids=LOOPS)
def test_loops(body):
    compiled(lambda x, w: list(fori_loop(0, 3, body, (x, w))), (2 * SIDE, SIDE), SQUARE)


def test_a_part_made_before_a_loop():
    def program(x, w):
        y = x @ w
        z = fori_loop(0, 3, lambda i, z: tnp.concatenate([y, z[:SIDE] @ w]), tnp.concatenate([y, x]))
        return [z]

    compiled(program, SQUARE, SQUARE)


def test_symbolic_sizes():
    """Where a part begins depends on the batch: it is copied."""
    n = Dim.named("n")
    function, _ = trace(lambda x, w: [tnp.concatenate([x @ w, x @ w.T])],
                        [TensorType((n, SIDE), F32), TensorType(SQUARE, F32)])
    executable = compile_function(function)
    for size in (1, 200, 64):
        x, w = (rng.uniform(-0.1, 0.1, s).astype(np.float32) for s in ((size, SIDE), SQUARE))
        np.testing.assert_allclose(executable(x, w)[0], np.concatenate([x @ w, x @ w.T]), atol=1e-5)


@pytest.mark.parametrize("seed", range(25))
def test_random_programs(seed):
    """Products, sums, cuts and joins of squares in any order, some of them donated."""
    choose = np.random.default_rng(seed)

    def program(a, b, c):
        squares, pairs = [a, b @ a], [c, tnp.concatenate([a @ b, b @ b])]
        for _ in range(choose.integers(3, 12)):
            x, y = (squares[i] for i in choose.integers(0, len(squares), 2))
            z = pairs[choose.integers(0, len(pairs))]
            kind = choose.integers(0, 6)
            if kind < 2:
                pairs.append(tnp.concatenate([x @ b, y] if kind else [x, tnp.tanh(y @ b)]))
            elif kind == 2:
                squares.append(x @ y)
            elif kind == 3:
                squares.append(z[SIDE:] + x)
            elif kind == 4:
                pairs.append(tnp.concatenate([z[SIDE:] @ b, z[:SIDE]]))
            else:
                pairs.append(z * 0.5 + pairs[-1])
        return [pairs[-1], squares[-1], pairs[choose.integers(0, len(pairs))]]

    compiled(program, SQUARE, SQUARE, (2 * SIDE, SIDE), donate=[(2, 0)] if seed % 2 else ())
