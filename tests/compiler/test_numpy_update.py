"""`x.at[...]`: every update and index mode against NumPy on a copy, repeated indices, indices out of
bounds, traced indices."""

import numpy as np
import pytest

import tfn.compiler.numpy as tnp
from tfn.compiler.errors import OpError
from tfn.compiler.trace.grad import grad

X = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
KEYS = {"int": 1, "slice": np.s_[1:, ::2], "array": np.array([2, 0]),
        "pair": (np.array([0, 2]), np.array([1, 1])),
        "repeated": np.array([1, 1]), "array and slice": np.s_[1:, [3, 0]], "mask": X > 6,
        "negative": np.s_[-1, [-1, 0]], "all": ...}
UFUNCS = {"add": np.add, "subtract": np.subtract, "multiply": np.multiply, "divide": np.divide,
          "power": np.power, "max": np.maximum, "min": np.minimum}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize("name", UFUNCS)
def test_updates(engine, name, key):
    expected = X.copy()
    UFUNCS[name].at(expected, key, np.float32(2))
    found = engine(lambda v: getattr(v.at[key], name)(2.0), X)
    assert found.dtype == X.dtype
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_set_and_apply(engine, key):
    expected = X.copy()
    expected[key] = 7
    np.testing.assert_array_equal(engine(lambda v: v.at[key].set(7.0), X), expected)
    expected = X.copy()
    expected[key] = np.sqrt(X[key])
    np.testing.assert_allclose(engine(lambda v: v.at[key].apply(tnp.sqrt), X), expected, rtol=1e-6)


OUTSIDE = np.array([2, -5, 7, 0])


@pytest.mark.parametrize("dtype", ["f4", "i4", "u1", "?"])
def test_reading_out_of_bounds(engine, dtype):
    x = X[:, 0].astype(dtype)
    missing = {"f4": np.nan, "i4": np.iinfo("i4").min, "u1": 255, "?": True}[dtype]
    inside = (OUTSIDE >= -3) & (OUTSIDE < 3)
    near = x[np.clip(np.where(OUTSIDE < 0, OUTSIDE + 3, OUTSIDE), 0, 2)]
    for mode, expected in (("clip", near), ("wrap", x[OUTSIDE % 3]),
                           ("fill", np.where(inside, near, np.array(missing, dtype)))):
        found = engine(lambda v, i, m=mode: v.at[i].get(mode=m), x, OUTSIDE)
        assert found.dtype == x.dtype
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(
        engine(lambda v, i: v.at[i].get(mode="fill", fill_value=1), x, OUTSIDE),
        np.where(inside, near, np.array(1, dtype)))


def test_filling_beside_slices_and_new_dims(engine):
    rows, columns = np.array([0, 5]), np.array([[1], [-9]])
    found = engine(lambda v, i, j: v.at[:, i, None, j].get(mode="fill", fill_value=-1),
                   np.stack([X, X + 20]), rows, columns)
    assert found.shape == np.stack([X, X])[:, rows * 0, None, columns * 0].shape
    expected = np.full(found.shape, -1.0)
    expected[0, 0] = [[X[0, 1]], [X[0, 1] + 20]]
    np.testing.assert_array_equal(found, expected)


def test_a_traced_number_out_of_bounds(engine):
    place = np.array(9)
    np.testing.assert_array_equal(engine(lambda v, i: v.at[i].get(mode="fill", fill_value=0), X, place),
                                  np.zeros(4))
    np.testing.assert_array_equal(engine(lambda v, i: v.at[i].get(mode="clip"), X, place), X[2])
    np.testing.assert_array_equal(engine(lambda v, i: v.at[i].get(mode="wrap"), X, place), X[0])


@pytest.mark.parametrize(("mode", "places"), [(None, [2, 0]), ("drop", [2, 0]), ("fill", [2, 0]),
                                              ("clip", [2, 0, 2, 0]), ("wrap", [2, 1, 1, 0])])
def test_writing_out_of_bounds(engine, mode, places):
    expected = np.zeros(3, "f4")
    np.add.at(expected, places, 1)
    found = engine(lambda v, i: v.at[i].add(1.0, mode=mode), np.zeros(3, "f4"), OUTSIDE)
    np.testing.assert_array_equal(found, expected)


def test_hints_are_taken_and_unknown_options_are_not():
    x = tnp.asarray(X)
    hints = {"indices_are_sorted": True, "unique_indices": True}
    np.testing.assert_array_equal(x.at[np.array([0, 1])].set(0.0, **hints)[:2], np.zeros((2, 4)))
    with pytest.raises(TypeError, match=r"unknown options of \.at\[\.\.\.\]: indices_sorted"):
        x.at[0].set(0.0, indices_sorted=True)
    with pytest.raises(OpError, match="index mode 'near' is not one of drop or fill, clip, wrap"):
        x.at[0].get(mode="near")


@pytest.mark.parametrize("name", ["add", "multiply", "divide", "power", "set"])
def test_gradients(name):
    """Of the array and of the values, against differences in f64."""
    x, v = X.astype("f8") / 4, np.array([[1.5], [0.5]])
    key = np.array([2, 0])
    weight = np.cos(np.arange(12.0)).reshape(3, 4)

    def readout(a, b):
        return tnp.sum(getattr(tnp.asarray(a).at[key], name)(b) * weight)

    slopes = grad(readout, argnums=(0, 1))(tnp.asarray(x), tnp.asarray(v))
    for n, (slope, at) in enumerate(zip(slopes, (x, v), strict=True)):
        step = np.sin(1 + np.arange(at.size)).reshape(at.shape)
        ends = [float(readout(*(p + s * 1e-6 * step if k == n else p for k, p in enumerate((x, v)))))
                for s in (1, -1)]
        np.testing.assert_allclose(np.sum(np.asarray(slope) * step), (ends[0] - ends[1]) / 2e-6,
                                   rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("mode", ["clip", "wrap", "fill"])
def test_take_along_axis_out_of_bounds(engine, mode):
    index = np.array([[1, -9, 4, 0], [3, 2, -4, 40], [0, 0, 0, 0]])
    found = engine(lambda v, i: tnp.take_along_axis(v, i, 1, mode=mode), X, index)
    clipped = np.clip(np.where(index < 0, index + 4, index), 0, 3)
    expected = np.take_along_axis(X, index % 4 if mode == "wrap" else clipped, 1)
    if mode == "fill":
        expected = np.where((index < -4) | (index >= 4), np.nan, expected)
    np.testing.assert_array_equal(found, expected)


def test_put_along_axis(engine):
    for axis, index in ((1, np.array([[3], [0], [-2]])), (0, np.array([[1, 0, 2, 2]])),
                        (None, np.array([5, -1]))):
        expected = X.copy()
        np.put_along_axis(expected, index, 99, axis)
        found = engine(lambda v, i, a=axis: tnp.put_along_axis(v, i, 99.0, a), X, index)
        np.testing.assert_array_equal(found, expected)
