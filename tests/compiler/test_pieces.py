"""Arrays that are taken apart, updated and put together again: the same values, not concatenated."""

import numpy as np
import pytest

from tfn import numpy as tnp
from tfn.compiler.codegen.target import Target
from tfn.compiler.compile import compile_function, run_passes
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dims import Dim
from tfn.compiler.ir.dtypes import F32, I32
from tfn.compiler.ir.evaluator import evaluate
from tfn.compiler.ir.rewrite import substitute_function
from tfn.compiler.ir.verify import verify
from tfn.compiler.passes.dce import dce
from tfn.compiler.passes.inline import inline
from tfn.compiler.passes.pieces import pieces
from tfn.compiler.passes.regions import everywhere
from tfn.compiler.trace.control import while_loop
from tfn.compiler.trace.core import trace

RNG = np.random.default_rng(2)
LAYERS, PLACES, HEADS, SIZE = 3, 7, 2, 4


def layer(cache, index, x):
    """Keys and values of one place written, and the sum of all: `[batch, heads, size]`."""
    keys = tnp.dynamic_update_slice(cache[:, 0], x[:, None], [0, index, 0, 0])
    values = tnp.dynamic_update_slice(cache[:, 1], 2 * x[:, None], [0, index, 0, 0])
    return tnp.sum(tnp.tanh(keys) * values, axis=1), tnp.stack([keys, values], axis=1)


def step(cache, index, x):
    caches = []
    for i in range(LAYERS):
        x, new = layer(cache[:, i], index, x)
        caches.append(new)
    return x, tnp.stack(caches, axis=1)


def types(batch):
    return [TensorType((batch, LAYERS, 2, PLACES, HEADS, SIZE), F32), TensorType((), I32),
            TensorType((batch, HEADS, SIZE), F32)]


def drawn(batch, index):
    cache, _, x = (t.shape for t in types(batch))
    return [RNG.standard_normal(cache).astype("float32"), np.int32(index),
            RNG.standard_normal(x).astype("float32")]


def names(function):
    return [op.name.partition(".")[2] for op in function.body.walk()]


def joined(function):
    """The function before and after, with all that is not needed gone."""
    before = inline(function)
    after = everywhere(dce, everywhere(pieces, before))
    verify(after)
    return before, after


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("index", [0, 3, PLACES - 1, PLACES + 5, -2])
def test_a_cache_of_slices_is_updated_as_it_is(batch, index):
    """Also where the place is outside: it is moved inside, in both."""
    before, after = joined(trace(step, types(batch))[0])
    assert "concatenate" in names(before) and "concatenate" not in names(after)
    assert names(after).count("dynamic_update_slice") == 2 * LAYERS
    arguments = drawn(batch, index)
    for made, right in zip(evaluate(after, arguments), evaluate(before, arguments), strict=True):
        np.testing.assert_array_equal(made, right)
    for made, right in zip(compile_function(before)(*arguments), evaluate(before, arguments),
                           strict=True):
        np.testing.assert_allclose(made, right, rtol=1e-5, atol=1e-6)


def test_a_batch_of_any_size():
    before, after = joined(trace(step, types(Dim.named("batch")))[0])
    assert "concatenate" not in names(after)
    arguments = drawn(3, 2)
    for made, right in zip(*(evaluate(substitute_function(f, {"batch": 3}), arguments)
                             for f in (after, before)), strict=True):
        np.testing.assert_array_equal(made, right)


def test_in_a_loop_the_cache_lies_where_it_is():
    """Compiled, no step copies it: the loop's only big results are written in place."""
    def body(state):
        cache, index, x = state
        x, cache = step(cache, index, x)
        return cache, index + 1, x

    def run(cache, count, x):
        return while_loop(lambda s: s[1] < count, body, (cache, tnp.asarray(0, dtype="int32"), x))

    before, after = joined(trace(run, types(2))[0])
    assert "concatenate" not in names(after)
    arguments = drawn(2, 5)
    expected = evaluate(before, arguments)
    for made, right in zip(compile_function(before)(*arguments), expected, strict=True):
        np.testing.assert_allclose(made, right, rtol=1e-4, atol=1e-5)


def untouched(x, i):
    return [tnp.concatenate([x[:2], x[2:5], x[5:]])]


def swapped(x, i):
    return [tnp.concatenate([x[3:], x[:3]])]


def with_a_gap(x, i):
    return [tnp.concatenate([x[:2], x[3:], x[2:3]])]


def of_two(x, i):
    return [tnp.concatenate([x[:3], (x + 1)[3:]])]


def moved_start(x, i):
    """The update is less than its piece, so that where it ends up depends on the piece's size."""
    return [tnp.concatenate([tnp.dynamic_update_slice(x[:3], x[:1] + 1, [i, 0]), x[3:]])]


def whole_pieces(x, i):
    return [tnp.concatenate([tnp.dynamic_update_slice(x[:3], x[3:6, :2] + 1, [i, i]), x[3:]])]


def every_other(x, i):
    return [tnp.concatenate([x[::2], x[1::2]])]


def twice(x, i):
    piece = tnp.dynamic_update_slice(x[:3], x[3:6, :2] + 1, [i, i])
    piece = tnp.dynamic_update_slice(piece, piece[:, 1:2] * 2, [i, i])
    return tnp.concatenate([piece, x[3:]]), piece, x


def two_joins(x, i):
    piece = tnp.dynamic_update_slice(x[:3], x[3:6, :2] + 1, [i, i])
    return tnp.concatenate([piece, x[3:]]), tnp.concatenate([piece, x[3:]]) * 2


@pytest.mark.parametrize(("function", "joins"), [
    (untouched, True), (swapped, False), (with_a_gap, False), (of_two, False), (moved_start, False),
    (whole_pieces, True), (every_other, False), (twice, True), (two_joins, False)],
    ids=lambda f: getattr(f, "__name__", str(f)))
def test_what_is_put_together_again(function, joins):
    before, after = joined(trace(function, [TensorType((6, 4), F32), TensorType((), I32)])[0])
    assert ("concatenate" not in names(after)) == joins
    for index in (-1, 0, 2, 9):
        arguments = [RNG.standard_normal((6, 4)).astype("float32"), np.int32(index)]
        expected = evaluate(before, arguments)
        for found in (evaluate(after, arguments), compile_function(before)(*arguments)):
            for made, right in zip(found, expected, strict=True):
                np.testing.assert_array_equal(made, right)


def test_a_program_without_pieces_stays_the_same():
    function, _ = trace(lambda x: [x + 1], [TensorType((3,), F32)])
    assert pieces(function) is function
    assert run_passes(function, Target.host(), until="pieces").ops
