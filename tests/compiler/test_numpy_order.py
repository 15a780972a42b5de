"""Order of complex numbers, of elements in memory and of places; differences of short lines."""

import numpy as np
import pytest

import tfn.compiler.numpy as tnp

RNG = np.random.default_rng(0)
COMPLEX = (RNG.integers(-2, 3, (4, 7)) + 1j * RNG.integers(-2, 3, (4, 7))).astype("c8")


@pytest.mark.parametrize("axis", [0, -1, None])
@pytest.mark.parametrize("name", ["sort", "argsort"])
def test_complex_numbers_are_ordered_by_real_part_first(engine, name, axis):
    expected = getattr(np, name)(COMPLEX, axis=axis, kind="stable")
    np.testing.assert_array_equal(engine(lambda x: getattr(tnp, name)(x, axis), COMPLEX), expected)


def test_sort_complex(engine):
    np.testing.assert_array_equal(engine(tnp.sort_complex, COMPLEX[0]), np.sort_complex(COMPLEX[0]))
    x = np.array([3, 1, 2], "f4")
    assert engine(tnp.sort_complex, x).dtype == np.complex64
    np.testing.assert_array_equal(engine(tnp.sort_complex, x), [1, 2, 3])


@pytest.mark.parametrize("shape", [(), (0,), (2, 3), (2, 0, 3), (2, 3, 4)])
def test_ravel_by_columns(engine, shape):
    x = np.arange(np.prod(shape, dtype=int), dtype="f4").reshape(shape)
    np.testing.assert_array_equal(engine(lambda v: tnp.ravel(v, order="F"), x), x.ravel(order="F"))
    np.testing.assert_array_equal(engine(lambda v: v.flatten("F"), x), x.flatten("F"))


@pytest.mark.parametrize("size", [2, 7])
def test_where_with_one_argument_and_a_size(engine, size):
    x = np.array([[0, 1, 0], [2, 3, 0]])
    found = engine(lambda v: tnp.where(v, size=size, fill_value=-1), x)
    for ours, theirs in zip(found, np.where(x), strict=True):
        np.testing.assert_array_equal(ours, [*theirs, *[-1] * size][:size])


@pytest.mark.parametrize("dtype", ["f4", "i4", "?"])
@pytest.mark.parametrize("n", [0, 1, 2, 5])
@pytest.mark.parametrize("extent", [0, 1, 3])
def test_differences(engine, extent, n, dtype):
    x = RNG.integers(0, 2, (2, extent)).astype(dtype)
    found = engine(lambda v: tnp.diff(v, n), x)
    assert found.dtype == x.dtype
    np.testing.assert_array_equal(found, np.diff(x, n))
