"""Sets of `tfn.numpy` against NumPy; with `size` they trace and compile."""

import numpy as np
import pytest

import tfn.compiler.numpy as tnp

RNG = np.random.default_rng(0)
A = np.array([3, 1, 1, 5, 3, 9, -2])
B = np.array([[9, 4], [1, 4]])
FLOATS = np.array([2.0, np.nan, -np.inf, 2.0, np.nan, -0.0, 0.0], "f4")


@pytest.mark.parametrize("name", ["union1d", "intersect1d", "setdiff1d", "setxor1d"])
@pytest.mark.parametrize("size", [None, 3, 9])
def test_two_sets(engine, name, size):
    expected = getattr(np, name)(A, B)
    if size is None:
        np.testing.assert_array_equal(getattr(tnp, name)(A, B), expected)
        return
    found = engine(lambda a, b: getattr(tnp, name)(a, b, size=size, fill_value=-7), A, B)
    filled = np.full(size, -7)
    filled[:len(expected)] = expected[:size]
    np.testing.assert_array_equal(found, filled)


@pytest.mark.parametrize("name", ["union1d", "intersect1d", "setdiff1d", "setxor1d"])
@pytest.mark.parametrize(("a", "b"), [(A[:0], B), (A, B[:0]), (A[:0], B[:0])],
                         ids=["no a", "no b", "none"])
def test_empty_sets(engine, name, a, b):
    expected = getattr(np, name)(a, b)
    np.testing.assert_array_equal(getattr(tnp, name)(a, b), expected)
    found = engine(lambda p, q: getattr(tnp, name)(p, q, size=6, fill_value=-7), a, b)
    np.testing.assert_array_equal(found, [*expected, *[-7] * (6 - len(expected))])


def test_where_common_elements_are(engine):
    expected = np.intersect1d(A, B, return_indices=True)
    for ours, theirs in zip(tnp.intersect1d(A, B, return_indices=True), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    values, first, second = engine(
        lambda a, b: tnp.intersect1d(a, b, return_indices=True, size=4, fill_value=0), A, B)
    np.testing.assert_array_equal(values, [*expected[0], 0, 0])
    np.testing.assert_array_equal(first, [*expected[1], len(A), len(A)])
    np.testing.assert_array_equal(second, [*expected[2], B.size, B.size])


@pytest.mark.parametrize("invert", [False, True])
def test_isin(engine, invert):
    np.testing.assert_array_equal(engine(lambda a, b: tnp.isin(a, b, invert=invert), A, B),
                                  np.isin(A, B, invert=invert))


@pytest.mark.parametrize("x", [A, B, FLOATS, A[:0]], ids=["line", "matrix", "floats", "empty"])
@pytest.mark.parametrize("equal_nan", [True, False])
def test_unique(x, equal_nan):
    found = tnp.unique(x, True, True, True, equal_nan=equal_nan)
    for ours, theirs in zip(found, np.unique(x, True, True, True, equal_nan=equal_nan), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("x", [A, B, FLOATS], ids=["line", "matrix", "floats"])
@pytest.mark.parametrize("size", [2, 8])
def test_unique_of_known_size(engine, x, size):
    found = engine(lambda v: tnp.unique(v, True, True, True, size=size, fill_value=-7), x)
    values, first, inverse, counts = np.unique(x, True, True, True)
    n = min(size, len(values))
    np.testing.assert_array_equal(found[0], np.r_[values, np.full(size, -7)][:len(values)][:n].tolist()
                                  + [-7] * (size - n))
    np.testing.assert_array_equal(found[1][:n], first[:n])
    np.testing.assert_array_equal(found[2], inverse)
    np.testing.assert_array_equal(found[3], counts[:n].tolist() + [0] * (size - n))


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("size", [None, 2, 5])
def test_unique_slices(engine, axis, size):
    x = RNG.integers(0, 2, (4, 2, 2)).astype("f4")
    values, first, inverse, counts = np.unique(x, True, True, True, axis=axis)
    if size is None:
        np.testing.assert_array_equal(tnp.unique(x, axis=axis), values)
        return
    found = engine(lambda v: tnp.unique(v, True, True, True, axis=axis, size=size, fill_value=-7), x)
    n = min(size, values.shape[axis])
    expected = np.full([size if d == axis % 3 else e for d, e in enumerate(x.shape)], -7.0)
    np.moveaxis(expected, axis, 0)[:n] = np.moveaxis(values, axis, 0)[:n]
    np.testing.assert_array_equal(found[0], expected)
    np.testing.assert_array_equal(found[1][:n], first[:n])
    np.testing.assert_array_equal(found[2], np.ravel(inverse))
    np.testing.assert_array_equal(found[3][:n], counts[:n])


@pytest.mark.parametrize("name", ["unique_all", "unique_counts", "unique_inverse", "unique_values"])
def test_the_standards_functions(engine, name):
    expected = getattr(np, name)(FLOATS)
    single = isinstance(expected, np.ndarray)
    expected = [expected] if single else list(expected)
    ours = getattr(tnp, name)(FLOATS)
    for a, b in zip([ours] if single else ours, expected, strict=True):
        np.testing.assert_array_equal(a, np.sort(b) if single else b)
    found = engine(lambda v: getattr(tnp, name)(v, size=6), FLOATS)
    np.testing.assert_array_equal(found if single else found[0], [*np.sort(expected[0]), -np.inf])
