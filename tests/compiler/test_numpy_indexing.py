"""Indexing, indexed updates, take and dynamic slices against NumPy."""

import numpy as np
import pytest

import tfn.compiler.numpy as tnp
from tfn.compiler.errors import OpError, TfnError
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dtypes import F32, I1
from tfn.compiler.trace.core import trace

X = np.arange(120, dtype=np.float32).reshape(4, 5, 6)
PLANE = np.array([[0, 2], [3, -1]])
J = np.array([1, -2])

KEYS = {
    "int": 1, "negative int": -1, "ints": (1, 2, 3), "slice": slice(1, 3), "step": slice(0, 4, 2),
    "backwards": slice(None, None, -1), "backwards step": slice(4, 0, -2),
    "empty": slice(3, 1), "beyond": slice(2, 99), "ellipsis": (..., 2),
    "ellipsis middle": (1, ..., slice(1, 4)), "new axis": (None, slice(None), None, 1),
    "all": (), "dots": ..., "array": PLANE, "negative array": J,
    "array then slice": (J, slice(1, 3)),
    "slice then array": (slice(None), J), "two arrays": (PLANE, PLANE),
    "arrays apart": (J, slice(None), J),
    "int and array": (0, slice(None), J), "array and int": (slice(None), J, 2),
    "new axis and array": (None, J, slice(None), None), "arrays broadcast": (PLANE, J),
    "array and step": (slice(None, None, -2), J, slice(0, 5, 2)), "mask": X[:, 0, 0] > 30,
    "mask of all dims": X % 7 == 0, "mask and slice": (slice(1, 3), X[0, :, 0] > 10),
    "list": [0, 2], "empty array": np.zeros(0, np.int32),
}


@pytest.mark.parametrize("name", KEYS)
def test_reading(engine, name):
    key = KEYS[name]
    expected = X[key]
    found = engine(lambda x: x[key], X)
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", KEYS)
def test_setting(engine, name):
    key = KEYS[name]
    expected = X.copy()
    value = -1 - np.arange(X[key].size, dtype=np.float32).reshape(X[key].shape)
    expected[key] = value
    if name.startswith("mask"):
        value = -np.float32(1)
        expected[key] = value
    np.testing.assert_array_equal(engine(lambda x: x.at[key].set(value), X), expected)


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize(("method", "ufunc"), [
    ("add", np.add), ("multiply", np.multiply), ("max", np.maximum), ("min", np.minimum),
    ("subtract", np.subtract)])
def test_updating(engine, name, method, ufunc):
    key, value = KEYS[name], np.float32(50)
    expected = X.copy()
    ufunc.at(expected, key, value)
    found = engine(lambda x: getattr(x.at[key], method)(value), X)
    np.testing.assert_array_equal(found, expected)


def test_repeated_indices_add_up(engine):
    found = engine(lambda x: x.at[np.array([1, 1, 2])].add(1), np.zeros(4, np.float32))
    np.testing.assert_array_equal(found, [0, 2, 1, 0])


def test_traced_scalar_indices():
    def program(x, i, j):
        return [x[i], x[:, i, 1:3], x[i, j], x[i, None, :, j], x.at[i].set(7.0), x.at[:, j].add(1)]

    function, _ = trace(program, [TensorType(X.shape, F32)] + [tnp.asarray(0).type] * 2)
    from tfn.compiler.ir.evaluator import evaluate

    for i, j in ((1, 2), (-1, 0), (3, -2)):
        found = evaluate(function, [X, np.int32(i), np.int32(j)])
        changed, added = X.copy(), X.copy()
        changed[i] = 7
        added[:, j] += 1
        expected = [X[i], X[:, i, 1:3], X[i, j], X[i, None, :, j], changed, added]
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_errors():
    x = tnp.asarray(X)
    with pytest.raises(IndexError):
        x[4]
    with pytest.raises(IndexError):
        x[0, 0, 0, 0]
    with pytest.raises(TfnError, match=r"where\(mask, x, fill\)"):
        trace(lambda x, m: [x[m]], [TensorType((3,), F32), TensorType((3,), I1)])
    with pytest.raises(OpError, match="must hold integers"):
        tnp.take(x, np.float32([1]))


def test_iteration_and_length():
    rows = list(tnp.asarray(X))
    assert len(rows) == len(tnp.asarray(X)) == 4
    np.testing.assert_array_equal(rows[2], X[2])


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
@pytest.mark.parametrize("indices", [2, J, PLANE])
def test_take(engine, axis, indices):
    np.testing.assert_array_equal(engine(lambda x: tnp.take(x, indices, axis), X),
                                  np.take(X, indices, axis))


def test_take_out_of_bounds(engine):
    i = np.array([0, 9, -9])
    np.testing.assert_array_equal(engine(lambda x: tnp.take(x, i, 0), X), X[[0, 3, 0]])
    np.testing.assert_array_equal(engine(lambda x: tnp.take(x, i, 0, mode="wrap"), X),
                                  np.take(X, i, 0, mode="wrap"))
    found = engine(lambda x: tnp.take(x, i, 1, mode="fill"), X)
    assert np.isnan(found[:, 1:]).all()
    np.testing.assert_array_equal(found[:, 0], X[:, 0])


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_take_and_put_along_axis(engine, axis):
    order = np.argsort(-X, axis)[tuple(slice(0, 2) if d == axis % 3 else slice(None)
                                       for d in range(3))]
    np.testing.assert_array_equal(engine(lambda x: tnp.take_along_axis(x, order, axis), X),
                                  np.take_along_axis(X, order, axis))
    expected = X.copy()
    np.put_along_axis(expected, order, 5, axis)
    np.testing.assert_array_equal(engine(lambda x: tnp.put_along_axis(x, order, 5, axis), X),
                                  expected)


def test_dynamic_slices(engine):
    found = engine(lambda x: tnp.dynamic_slice(x, (1, 2, 99), (2, 3, 4)), X)
    np.testing.assert_array_equal(found, X[1:3, 2:5, 2:6])
    found = engine(lambda x: tnp.dynamic_update_slice(x, x[:2, :2, :2] * 0, (-5, 1, 0)), X)
    expected = X.copy()
    expected[:2, 1:3, :2] = 0
    np.testing.assert_array_equal(found, expected)
