"""Eager functions that skip the op give what the op gives: bits, errors, checks."""

import ml_dtypes
import numpy as np
import pytest

import tfn
from tfn.compiler import nn
from tfn.compiler import numpy as tnp
from tfn.compiler.errors import NanError, OpError
from tfn.compiler.trace.jit import jit

SPECIAL = np.array([0.0, -0.0, 1.5, -2.0, np.inf, -np.inf, np.nan, 3e38], np.float32)
SHAPES = [((8,), (8,)), ((4, 8), (8,)), ((), (8,)), ((3, 1), (1, 8)), ((0, 8), (8,))]


def _values(shape, dtype, seed):
    rng = np.random.default_rng(seed)
    return rng.choice(SPECIAL, shape).astype(dtype) if shape else np.asarray(1.5, dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, ml_dtypes.bfloat16])
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("name", ["add", "subtract", "multiply"])
def test_arithmetic(name, shapes, dtype):
    with np.errstate(all="ignore"):
        x, y = (_values(s, dtype, i) for i, s in enumerate(shapes))
        expected = getattr(np, name)(x, y)
    found = np.asarray(getattr(tnp, name)(tnp.asarray(x), tnp.asarray(y)))
    assert found.dtype == dtype and found.shape == expected.shape
    np.testing.assert_array_equal(found.astype(np.float64), expected.astype(np.float64))
    np.testing.assert_array_equal(np.signbit(found), np.signbit(expected))


@pytest.mark.parametrize("shapes", [
    ((3, 4), (4, 5)), ((2, 3, 4), (4, 5)), ((4,), (4, 5)), ((3, 4), (4,)), ((2, 3, 4), (2, 4, 5)),
    ((0, 4), (4, 5)), ((3, 0), (0, 5))], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_products(shapes, dtype):
    rng = np.random.default_rng(0)
    x, y = (rng.integers(-5, 5, s).astype(dtype) for s in shapes)
    found = np.asarray(tnp.matmul(tnp.asarray(x), tnp.asarray(y)))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, x @ y)


def test_relu():
    x = tnp.asarray(SPECIAL)
    found = np.asarray(nn.relu(x))
    np.testing.assert_array_equal(found, np.asarray(jit(nn.relu)(x)))
    assert not np.signbit(found).any() and np.isnan(found[6])
    assert np.asarray(nn.relu(tnp.asarray([-1, 2]))).tolist() == [0, 2]


def test_shapes_that_do_not_fit_are_explained():
    x, y = tnp.ones((3, 4)), tnp.ones((3, 5))
    with pytest.raises(OpError, match=r"test_direct\.py"):
        tnp.add(x, y)
    with pytest.raises(OpError, match=r"the last dim of the first \(4\) must equal 3"):
        tnp.matmul(x, y)


def test_nan_checks_see_them():
    with tfn.debug.check_nans(), pytest.raises(NanError):
        tnp.subtract(tnp.asarray(np.float32(np.inf)), tnp.asarray(np.float32(np.inf)))


def test_a_trace_records_them():
    held = tnp.ones((64, 64))

    @jit
    def f(x):
        return x + tnp.add(held, held) @ held

    np.testing.assert_array_equal(np.asarray(f(held)), np.full((64, 64), 129.0, np.float32))
