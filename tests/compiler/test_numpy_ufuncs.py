"""`add.reduce` and what else NumPy's ufuncs have, and the operators' and arrays' other methods."""

import numpy as np
import pytest

import tfn.compiler.numpy as tnp

X = np.random.default_rng(0).uniform(0.5, 2, (3, 4)).astype("f4")


@pytest.mark.parametrize("axis", [0, 1, None])
@pytest.mark.parametrize("name", ["add", "multiply", "maximum", "minimum", "logical_and", "logical_or",
                                  "logaddexp"])
def test_reduce(engine, name, axis):
    found = engine(lambda v: getattr(tnp, name).reduce(v, axis, keepdims=True), X)
    np.testing.assert_allclose(found, getattr(np, name).reduce(X, axis, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(getattr(tnp, name).reduce(X), getattr(np, name).reduce(X), rtol=1e-5)


@pytest.mark.parametrize("name", ["add", "multiply", "maximum", "minimum"])
def test_accumulate(engine, name):
    for axis in (0, 1):
        np.testing.assert_allclose(engine(lambda v, a=axis: getattr(tnp, name).accumulate(v, a), X),
                                   getattr(np, name).accumulate(X, axis), rtol=1e-5)


@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "divide", "power", "maximum", "less",
                                  "arctan2", "hypot", "logaddexp", "fmod"])
def test_outer(engine, name):
    np.testing.assert_allclose(engine(getattr(tnp, name).outer, X, X[0]),
                               getattr(np, name).outer(X, X[0]), rtol=1e-5)


@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "divide", "power", "maximum",
                                  "minimum"])
def test_at(engine, name):
    expected = X.copy()
    getattr(np, name).at(expected, [0, 0, 2], np.float32(3))
    found = engine(lambda v: getattr(tnp, name).at(v, np.array([0, 0, 2]), 3.0, inplace=False), X)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    with pytest.raises(TypeError, match="arrays are immutable"):
        getattr(tnp, name).at(X, 0, 1.0, inplace=True)


@pytest.mark.parametrize("dtype", ["i4", "f4", "f8", "c8"])
def test_float_power_is_never_an_integer(engine, dtype):
    x, y = np.array([1, 2, 3, 4], dtype), np.array([[-1], [2]], dtype)
    found = engine(tnp.float_power, x, y)
    assert found.dtype == (np.float32 if dtype == "i4" else np.dtype(dtype))
    np.testing.assert_allclose(found, np.float_power(x, y), rtol=1e-5)


def test_methods_of_arrays(engine):
    x = tnp.asarray(X)
    assert x.tobytes() == X.tobytes() and x.T.tobytes() == X.T.tobytes()
    assert X[1, 2] in x and 99.0 not in x
    np.testing.assert_array_equal(engine(lambda v: v.flat, X), X.ravel())
    np.testing.assert_array_equal(engine(lambda v: v.view("i4"), X), X.view("i4"))
    np.testing.assert_array_equal(engine(lambda v: v.conjugate(), X * (1 + 1j)), np.conj(X * (1 + 1j)))
    np.testing.assert_array_equal(x.compress([True, False, True], 0), X[[0, 2]])
    np.testing.assert_array_equal(tnp.asarray([1, 0]).choose([[1, 2], [3, 4]]), [3, 2])
    place = np.take_along_axis(X, np.asarray(x.argpartition(1)), -1)
    np.testing.assert_array_equal(place[:, 1], np.partition(X, 1)[:, 1])
