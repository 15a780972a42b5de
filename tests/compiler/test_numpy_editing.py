"""Arrays put together, cut and changed at places, against NumPy (its in-place functions on copies)."""

import numpy as np
import pytest

import tfn.compiler.numpy as tnp
from tfn.compiler.errors import OpError, UnsupportedError
from tfn.compiler.trace.jit import jit

X = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.mark.parametrize("parts", [
    [[X, X[:, :1]], [np.zeros((2, 5), "f4")]], [X[0], X[1]], X, [[[X]], [[X + 1]]], [1.0, 2.0], 5.0,
    [[X[0], np.ones(2, "f4")], [np.zeros(6, "f4")]]],
    ids=["2 by 2", "row", "one", "deep", "scalars", "number", "lines"])
def test_block(parts):
    np.testing.assert_array_equal(tnp.block(parts), np.block(parts))


def test_block_traced(engine):
    np.testing.assert_array_equal(engine(lambda v: tnp.block([[v, v[:, :1]], [v[:1], v[:1, :1]]]), X),
                                  np.block([[X, X[:, :1]], [X[:1], X[:1, :1]]]))
    with pytest.raises(OpError, match="lists of one depth"):
        tnp.block([[X], X])


PLACES = {"int": 1, "negative": -1, "slice": slice(0, 3, 2), "indices": [2, 0], "repeated": [1, 1],
          "mask": np.array([True, False, True]), "none": []}


@pytest.mark.parametrize("where", PLACES.values(), ids=PLACES)
def test_delete(engine, where):
    np.testing.assert_array_equal(engine(lambda v: tnp.delete(v, where, 0), X), np.delete(X, where, 0))
    if not isinstance(where, np.ndarray):
        np.testing.assert_array_equal(tnp.delete(X, where), np.delete(X, where))


@pytest.mark.parametrize(("where", "values", "axis"), [
    (1, 5.0, None), (-2, [1.0, 2.0], None), ([1, 3], 7.0, None), ([3, 1], [1.0, 2.0], None),
    ([1, 1], [1.0, 2.0], None), (slice(0, 4, 2), 9.0, None), (1, [1.0, 2.0, 3.0], 1),
    ([1], [[1.0], [2.0], [3.0]], 1), ([0, 2], [1.0, 2.0], 1), (0, X[:2], 0), (3, 8.0, 0),
    (np.array([True, False, True]), 4.0, 0), ([], 1.0, 0), (2, X.T[:2].T, 1)])
def test_insert(engine, where, values, axis):
    expected = np.insert(X, where, values, axis) if axis != 1 or np.shape(values) != (3, 2) else None
    if expected is None:
        expected = np.insert(X, where, np.moveaxis(values, 1, 0), axis)
        values = np.moveaxis(values, 1, 0)
    np.testing.assert_array_equal(engine(lambda v: tnp.insert(v, where, values, axis), X), expected)


@pytest.mark.parametrize("shape", [(2, 3), (5, 4), 7, (0, 3), ()])
def test_resize(engine, shape):
    np.testing.assert_array_equal(engine(lambda v: tnp.resize(v, shape), X), np.resize(X, shape))
    np.testing.assert_array_equal(tnp.resize(X[:0], (2, 2)), np.resize(X[:0], (2, 2)))


@pytest.mark.parametrize(("axis", "start"), [(2, 0), (0, 3), (1, 1), (-1, 1), (0, -1)])
def test_rollaxis(axis, start):
    x = np.arange(24).reshape(2, 3, 4)
    np.testing.assert_array_equal(tnp.rollaxis(x, axis, start), np.rollaxis(x, axis, start))


@pytest.mark.parametrize(("condition", "axis"), [([True, False, True], 0), ([0, 1], 1), ([], 0),
                                                 ([1, 0, 1], None)])
def test_compress(condition, axis):
    np.testing.assert_array_equal(tnp.compress(condition, X, axis),
                                  np.compress(np.array(condition, bool), X, axis))


def test_chosen_elements_of_known_number(engine):
    mask = X % 3 == 1
    expected = np.extract(mask, X)
    np.testing.assert_array_equal(tnp.extract(mask, X), expected)
    found = engine(lambda m, v: tnp.extract(m, v, size=6, fill_value=-1), mask, X)
    np.testing.assert_array_equal(found, [*expected, *[-1] * (6 - len(expected))])
    found = engine(lambda m, v: tnp.compress(m, v, 1, size=2), np.array([0, 1, 1, 1]), X)
    np.testing.assert_array_equal(found, X[:, 1:3])
    with pytest.raises(UnsupportedError, match="give `size`"):
        jit(tnp.extract)(mask, X)


@pytest.mark.parametrize("mode", [None, "clip", "wrap"])
@pytest.mark.parametrize("values", [5.0, [1.0, 2.0], [1.0, 2.0, 3.0, 4.0, 5.0]])
def test_put(engine, values, mode):
    places = np.array([0, 5, -1, 11]) if mode is None else np.array([3, 40, -70, 1])
    expected = X.copy()
    np.put(expected, places, values, mode or "raise")
    np.testing.assert_array_equal(engine(lambda v, p: tnp.put(v, p, values, mode), X, places), expected)


@pytest.mark.parametrize("values", [[5.0], [1.0, 2.0], list(range(20))])
def test_place(engine, values):
    mask, expected = X % 2 == 0, X.copy()
    np.place(expected, mask, values)
    np.testing.assert_array_equal(engine(lambda v, m: tnp.place(v, m, values), X, mask), expected)


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("value", [5.0, [1.0, 2.0]])
@pytest.mark.parametrize("shape", [(3, 3), (2, 5), (7, 3), (3, 3, 3)])
def test_fill_diagonal(engine, shape, value, wrap):
    x = np.zeros(shape, "f4")
    expected = x.copy()
    np.fill_diagonal(expected, value, wrap)
    np.testing.assert_array_equal(engine(lambda v: tnp.fill_diagonal(v, value, wrap), x), expected)


@pytest.mark.parametrize("mode", ["raise", "clip", "wrap"])
def test_choose(engine, mode):
    index = np.array([[0, 2], [1, 1]]) if mode == "raise" else np.array([[-1, 5], [1, 3]])
    choices = [np.float32([1, 2]), np.float32([[3], [4]]), np.float32(9)]
    expected = np.choose(index, choices, mode=mode)
    np.testing.assert_array_equal(tnp.choose(index, choices, mode), expected)
    if mode != "raise":
        np.testing.assert_array_equal(engine(lambda i: tnp.choose(i, choices, mode), index), expected)
    else:
        with pytest.raises(OpError, match="outside the 3 choices"):
            tnp.choose([3], choices)


@pytest.mark.parametrize("functions", [
    [-1.0, 2.0], [-1.0, 2.0, 7.0], [lambda v: -v, lambda v: v * v],
    [lambda v: -v, 3.0, lambda v: v + 1]])
def test_piecewise(engine, functions):
    x = np.linspace(-2, 2, 9).astype("f4")

    def conditions(v):
        return [v < -1, v > 0.4]

    np.testing.assert_array_equal(engine(lambda v: tnp.piecewise(v, conditions(v), functions), x),
                                  np.piecewise(x, conditions(x), functions))


def test_piecewise_passes_further_arguments():
    x = np.float32([1, -2])
    np.testing.assert_array_equal(tnp.piecewise(x, [x > 0], [lambda v, k: v * k], 3),
                                  np.piecewise(x, [x > 0], [lambda v, k: v * k], 3))
    with pytest.raises(OpError, match="takes 1 or 2 functions, got 3"):
        tnp.piecewise(x, [x > 0], [1, 2, 3])


@pytest.mark.parametrize("call", [
    lambda: tnp.put(X, [0], 1, inplace=True), lambda: tnp.place(X, X > 0, [1], inplace=True),
    lambda: tnp.fill_diagonal(X, 1, inplace=True),
    lambda: tnp.put_along_axis(X, X.astype(int)[:1], 1, 0, inplace=True)])
def test_nothing_is_changed_in_place(call):
    with pytest.raises(OpError, match="arrays are immutable; use the returned array"):
        call()
