"""`vectorize`, `apply_along_axis` and friends against NumPy."""

import numpy as np
import pytest

import tfn.compiler.numpy as tnp
from tfn.compiler.errors import OpError
from tfn.compiler.trace.grad import grad

X = np.random.default_rng(0).normal(size=(2, 3, 4))


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("name", ["sum", "cumsum", "outer"])
def test_apply_along_axis(engine, name, axis):
    """A line becomes a number, a line, a matrix."""
    def function(module):
        return {"sum": lambda v: module.sum(v), "cumsum": lambda v: module.cumsum(v)[::-1],
                "outer": lambda v: module.outer(v, v[:2])}[name]

    np.testing.assert_allclose(engine(lambda v: tnp.apply_along_axis(function(tnp), axis, v), X),
                               np.apply_along_axis(function(np), axis, X))


def test_apply_along_axis_passes_arguments():
    found = tnp.apply_along_axis(lambda v, p, q: tnp.sum(v * p) + q, 0, X, 2.0, q=1.0)
    np.testing.assert_allclose(found, 2 * X.sum(0) + 1)
    with pytest.raises(OpError, match=r"no lines \(shape \(0, 3\), axis 1\)"):
        tnp.apply_along_axis(tnp.sum, 1, np.ones((0, 3)))


@pytest.mark.parametrize("axes", [0, [0, 2], (-1,)])
def test_apply_over_axes(engine, axes):
    np.testing.assert_allclose(engine(lambda v: tnp.apply_over_axes(tnp.sum, v, axes), X),
                               np.apply_over_axes(np.sum, X, axes))
    np.testing.assert_allclose(
        tnp.apply_over_axes(lambda v, a: tnp.max(v, a, keepdims=True), X, axes),
        np.apply_over_axes(np.max, X, axes))


def test_fromfunction():
    found = tnp.fromfunction(lambda i, j: i * 10 + j, (2, 3))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.fromfunction(lambda i, j: i * 10 + j, (2, 3)))
    assert tnp.fromfunction(lambda i, k: i + k, (4,), dtype=int, k=2).tolist() == [2, 3, 4, 5]


@pytest.mark.parametrize(("a", "b"), [((3, 1), (4,)), ((), (2, 2)), ((), ()), ((2, 3), (2, 3))])
def test_vectorize_broadcasts_scalars(engine, a, b):
    x, y = np.ones(a), np.full(b, 2.0)

    def distance(p, q):
        assert np.shape(p) == np.shape(q) == ()
        return p * 3 - q

    np.testing.assert_allclose(engine(tnp.vectorize(distance), x, y), np.vectorize(distance)(x, y))


def test_vectorize_with_a_signature(engine):
    matrices, vectors = X, np.arange(12.0).reshape(1, 3, 4)[:, 0]
    run = tnp.vectorize(lambda m, v: m @ v, signature="(n,m),(m)->(n)")
    expected = np.vectorize(lambda m, v: m @ v, signature="(n,m),(m)->(n)")(matrices, vectors)
    np.testing.assert_allclose(engine(run, matrices, vectors), expected)
    both = tnp.vectorize(lambda v: (v.sum(), v * 2), signature="(n)->(),(n)")
    for found, expected in zip(engine(both, X), (X.sum(-1), X * 2), strict=True):
        np.testing.assert_allclose(found, expected)


def test_vectorize_leaves_excluded_arguments_alone():
    run = tnp.vectorize(lambda x, power, scale: x ** power * scale, excluded={1, "scale"})
    np.testing.assert_allclose(run(X[0], 2, scale=3.0), X[0] ** 2 * 3)
    named = tnp.vectorize(lambda x, y: x - y)
    np.testing.assert_allclose(named(X[0], y=X[0, :1]), X[0] - X[0, :1])


def test_gradient_through_vectorize():
    slopes = grad(lambda v: tnp.sum(tnp.vectorize(lambda p: p * p)(v)))(tnp.asarray(X))
    np.testing.assert_allclose(slopes, 2 * X)


def test_errors_name_the_signature():
    with pytest.raises(OpError, match="is not a signature"):
        tnp.vectorize(lambda v: v, signature="n->n")
    run = tnp.vectorize(lambda m, v: m @ v, signature="(n,m),(m)->(n)")
    with pytest.raises(OpError, match="the dim m is 4 in one argument, 3 in another"):
        run(X, np.ones(3))
    with pytest.raises(OpError, match=r"\(n,m\) needs at least 2 dims, got \(3,\)"):
        run(np.ones(3), np.ones(3))
    with pytest.raises(OpError, match="has 2 arguments, the call 1"):
        run(X)
