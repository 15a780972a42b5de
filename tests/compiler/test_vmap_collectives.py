"""Collectives over a named axis of `vmap`, and those of processes under it, against NumPy on rows."""

from __future__ import annotations

import numpy as np
import pytest

import tfn.compiler.numpy as tnp
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dtypes import I32, as_dtype
from tfn.compiler.ops.reduction import reducer
from tfn.compiler.trace import axis as collectives
from tfn.compiler.trace import tree
from tfn.compiler.trace.batch import vmap
from tfn.compiler.trace.core import bind, trace_region
from tfn.compiler.trace.grad import grad
from tfn.compiler.trace.jit import jit

F64 = as_dtype(np.float64)
rng = np.random.default_rng(3)
X = rng.normal(size=(3, 4, 5))


def assert_same(actual, expected):
    """The type and shape, and f64 within 1e-10."""
    for a, e in zip(map(np.asarray, tree.leaves(actual)), expected, strict=True):
        assert a.dtype == e.dtype and a.shape == e.shape
        np.testing.assert_allclose(a, e, rtol=1e-10, atol=1e-10 if e.dtype == np.float64 else 0)


def over(function, *arrays, **options):
    return vmap(function, axis_name="i", **options)(*arrays)


ROWS = X[:, :3]

COLLECTIVES = {
    "psum": (lambda x: collectives.psum(x, "i"), np.stack([ROWS.sum(0)] * 3)),
    "psum of a constant": (lambda x: x * collectives.psum(1, "i"), ROWS * 3),
    "psum of a shared array": (lambda x: collectives.psum(tnp.ones(2, "f8"), "i"),
                               np.full((3, 2), 3.0)),
    "psum of bools": (lambda x: collectives.psum(x > 0, "i"),
                      np.stack([(ROWS > 0).sum(0).astype(np.int32)] * 3)),
    "pmean": (lambda x: x - collectives.pmean(x, "i"), ROWS - ROWS.mean(0)),
    "pmax": (lambda x: collectives.pmax(x, "i"), np.stack([ROWS.max(0)] * 3)),
    "pmin": (lambda x: collectives.pmin(x, "i"), np.stack([ROWS.min(0)] * 3)),
    "axis_index": (lambda x: collectives.axis_index("i"), np.arange(3, dtype=np.int32)),
    "axis_size": (lambda x: x * collectives.axis_size("i"), ROWS * 3),
    "all_gather": (lambda x: collectives.all_gather(x, "i"), np.stack([ROWS] * 3)),
    "all_gather axis": (lambda x: collectives.all_gather(x, "i", axis=-1),
                        np.stack([np.moveaxis(ROWS, 0, -1)] * 3)),
    "all_gather tiled": (lambda x: collectives.all_gather(x, "i", axis=1, tiled=True),
                         np.stack([np.concatenate(ROWS, 1)] * 3)),
    "ppermute": (lambda x: collectives.ppermute(x, "i", [(0, 1), (1, 2), (2, 0)]),
                 np.roll(ROWS, 1, 0)),
    "ppermute in part": (lambda x: collectives.ppermute(x, "i", [(0, 2), (2, 0)]),
                         np.stack([ROWS[2], 0 * ROWS[1], ROWS[0]])),
    "all_to_all": (lambda x: collectives.all_to_all(x, "i", 0, 0), ROWS.swapaxes(0, 1)),
    "all_to_all axes": (lambda x: collectives.all_to_all(x, "i", 0, 1),
                        np.moveaxis(np.moveaxis(ROWS, 1, 0), 1, 2)),
    "all_to_all tiled": (
        lambda x: collectives.all_to_all(x[:, :3], "i", 1, 0, tiled=True),
        np.stack([np.concatenate([ROWS[i, :, j:j + 1] for i in range(3)], 0) for j in range(3)])),
    "psum_scatter": (lambda x: collectives.psum_scatter(x, "i"), ROWS.sum(0)),
    "psum_scatter tiled": (
        lambda x: collectives.psum_scatter(x, "i", scatter_dimension=0, tiled=True),
        ROWS.sum(0)[:, None]),
}


@pytest.mark.parametrize("name", COLLECTIVES)
def test_collective(name):
    function, expected = COLLECTIVES[name]
    assert_same(over(function, ROWS), [expected])
    assert_same(jit(vmap(function, axis_name="i"))(ROWS), [expected])


@pytest.mark.parametrize("name", [n for n in COLLECTIVES if "bools" not in n])
def test_collective_under_another_map(name):
    """The axis it names is the outer one; between them an op without a name is batched."""
    function, expected = COLLECTIVES[name]
    twice = np.stack([ROWS, 2 * ROWS], -1)
    both = vmap(vmap(function, -1), axis_name="i")(twice)
    assert both.shape == (3, 2, *expected.shape[1:])
    assert_same(both[:, 0], [expected])


DIFFERENTIABLE_COLLECTIVES = [n for n in COLLECTIVES if "bools" not in n and n not in (
    "axis_index", "psum of a shared array")]


@pytest.mark.parametrize("name", DIFFERENTIABLE_COLLECTIVES)
def test_gradient_through_a_collective(name):
    """Outside of the map, where a collective is ordinary ops, and inside, by its own derivative,
    which adds up what the members find."""
    function, expected = COLLECTIVES[name]
    weight = rng.normal(size=expected.shape)

    def total(x):
        return tnp.sum(over(lambda r, w: tnp.sum(function(r) * w), x, weight))

    outside = np.asarray(grad(total)(ROWS))
    inside = over(grad(lambda r, w: tnp.sum(function(r) * w)), ROWS, weight)
    assert_same(inside, [outside])


def test_two_named_axes():
    def f(x):
        return (collectives.psum(x, ("i", "j")), collectives.axis_index(("i", "j")),
                collectives.all_gather(x, ("i", "j")), collectives.pmax(x, "j"))

    table = X[0]
    total, index, gathered, largest = vmap(vmap(f, axis_name="j"), axis_name="i")(table)
    assert_same(total, [np.full((4, 5), table.sum())])
    assert_same(index, [np.arange(20, dtype=np.int32).reshape(4, 5)])
    assert_same(gathered, [np.broadcast_to(table.ravel(), (4, 5, 20))])
    assert_same(largest, [np.broadcast_to(table.max(1)[:, None], (4, 5))])


def test_a_collective_inside_a_loop():
    def f(x):
        types = [TensorType((), I32), x.type]
        return bind("stablehlo.while", np.int32(0), x, regions=[
            trace_region(lambda i, y: [i < 2], types),
            trace_region(lambda i, y: [i + 1, y + collectives.psum(y, "i") + collectives.axis_index(
                "i").astype("f8")], types)])[1]

    x = ROWS
    expected = x
    for _ in range(2):
        expected = expected + expected.sum(0) + np.arange(3.0)[:, None, None]
    assert_same(over(f, x), [expected])
    assert_same(jit(vmap(f, axis_name="i"))(x), [expected])


def test_batch_statistics_across_examples():
    def normalise(x):
        mean = collectives.pmean(tnp.mean(x), "i")
        return (x - mean) / tnp.sqrt(collectives.pmean(tnp.mean((x - mean) ** 2), "i"))

    assert_same(over(normalise, X), [(X - X.mean()) / X.std()])


def test_collectives_of_processes_are_batched():
    groups = {"replica_groups": np.array([[0]])}
    scalar = [reducer("add", F64)]

    def f(x):
        return (bind("stablehlo.all_reduce", x, regions=scalar, **groups),
                bind("stablehlo.all_gather", x, all_gather_dim=1, **groups),
                bind("stablehlo.reduce_scatter", x, scatter_dimension=0, types=[x.type],
                     regions=scalar, **groups),
                bind("stablehlo.all_to_all", x, split_dimension=0, concat_dimension=1, split_count=1,
                     **groups),
                bind("stablehlo.collective_broadcast", x, **groups),
                bind("stablehlo.collective_permute", x, source_target_pairs=[[0, 0]]))

    assert_same(vmap(f, 1)(np.moveaxis(X, 0, 1)), [X] * 6)


def test_checks_are_batched():
    def f(x, y):
        bind("check.expect_eq", x, y)
        bind("check.expect_almost_eq", x, y)
        bind("check.expect_close", x, y)
        bind("check.expect_eq_const", y, value=X[0])
        bind("check.expect_almost_eq_const", y, value=X[0])
        return x

    assert_same(vmap(f, (0, None))(np.stack([X[0], X[0]]), X[0]), [np.stack([X[0], X[0]])])
    with pytest.raises(AssertionError, match="expect_eq"):
        vmap(f, (0, None))(X, X[0])
