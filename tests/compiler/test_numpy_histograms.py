"""Histograms of one and several variables against NumPy: edges, ranges, weights, NaN, no data."""

import numpy as np
import pytest

import tfn.compiler.numpy as tnp
from tfn.compiler.errors import OpError

RNG = np.random.default_rng(0)
X = RNG.normal(size=200)
Y = X + RNG.normal(size=200)
WEIGHTS = RNG.uniform(size=200)
BINS = {"number": 7, "edges": np.array([-2.0, -0.5, 0.1, 3.0]), "one": 1}


def compare(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        if isinstance(theirs, (list, tuple)):
            compare(ours, theirs)
        else:
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("density", [False, True])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["counted", "weighted"])
@pytest.mark.parametrize("range", [None, (-1.0, 2.0)])
@pytest.mark.parametrize("bins", BINS.values(), ids=BINS)
def test_histogram(engine, bins, range, weights, density):
    found = engine(lambda v: tnp.histogram(v, bins, range, weights, density), X)
    compare(found, np.histogram(X, bins, range, density=density, weights=weights))


@pytest.mark.parametrize("x", [np.zeros((0,)), np.full(4, 2.0), np.array([[1.0, 2], [3, 4]])],
                         ids=["empty", "constant", "matrix"])
def test_unusual_data(engine, x):
    compare(engine(lambda v: tnp.histogram(v, 4), x), np.histogram(x, 4))


def test_the_last_bin_has_its_right_edge_and_nan_has_no_bin():
    found, _ = tnp.histogram(np.array([0.0, 1.0, 2.0, np.nan, np.inf]), np.array([0.0, 1.0, 2.0]))
    np.testing.assert_array_equal(found, [1, 2])


@pytest.mark.parametrize("density", [False, True])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["counted", "weighted"])
@pytest.mark.parametrize(("bins", "range"), [
    (5, None), ((3, 6), [(-1, 1), (-2, 2)]), (np.linspace(-2, 2, 6), None),
    ((4, np.linspace(-1, 1, 4)), [None, None])])
def test_histogram2d(engine, bins, range, weights, density):
    found = engine(lambda a, b: tnp.histogram2d(a, b, bins, range, weights, density), X, Y)
    compare(found, np.histogram2d(X, Y, bins, range, density, weights))


@pytest.mark.parametrize("density", [False, True])
@pytest.mark.parametrize("bins", [3, (2, 3, 4), [np.linspace(-2, 2, 4), 3, 2]])
def test_histogramdd(bins, density):
    points = np.stack([X, Y, X * Y], 1)
    total, edges = tnp.histogramdd(points, bins, density=density)
    expected = np.histogramdd(points, bins, density=density)
    np.testing.assert_allclose(total, expected[0])
    compare(edges, expected[1])


def test_errors_count_the_variables():
    with pytest.raises(OpError, match="bins has 2 entries for 3 variables"):
        tnp.histogramdd(np.ones((4, 3)), [2, 2])
    with pytest.raises(OpError, match=r"needs rows of variables, got an array of shape \(4,\)"):
        tnp.histogramdd(np.ones(4))
