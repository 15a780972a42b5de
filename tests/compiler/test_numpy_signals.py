"""Convolution, differences, derivatives and phases of `tfn.numpy` against NumPy."""

import numpy as np
import pytest

import tfn.compiler.numpy as tnp
from tfn.compiler.errors import OpError, UnsupportedError
from tfn.compiler.trace.grad import grad
from tfn.compiler.trace.jit import jit

RNG = np.random.default_rng(0)


def line(n, dtype):
    x = RNG.normal(size=n) * 4
    return (x + 1j * RNG.normal(size=n) if np.dtype(dtype).kind == "c" else x).astype(dtype)


@pytest.mark.parametrize("dtype", ["u1", "f4", "c8"])
@pytest.mark.parametrize("mode", ["valid", "same", "full"])
@pytest.mark.parametrize(("n", "m"), [(7, 3), (3, 6), (4, 4), (1, 1)])
@pytest.mark.parametrize("name", ["convolve", "correlate"])
def test_sums_of_shifted_products(engine, name, n, m, mode, dtype):
    x, y = line(n, dtype), line(m, dtype)
    found = engine(lambda a, b: getattr(tnp, name)(a, b, mode), x, y)
    expected = getattr(np, name)(x, y, mode)
    assert found.dtype == x.dtype and found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_convolution_spreads_nan_and_infinity_as_far_as_the_kernel(engine):
    x = np.float32([1, np.nan, 2, 3, 4, np.inf, 5])
    found = engine(lambda v: tnp.convolve(v, np.float32([1, 1])), x)
    np.testing.assert_array_equal(found, np.convolve(x, np.float32([1, 1])))


def test_gradient_of_a_convolution():
    x, y = line(6, "f8"), line(3, "f8")
    slopes = grad(lambda v: tnp.sum(tnp.convolve(x, v) * np.arange(8.0)))(tnp.asarray(y))
    np.testing.assert_allclose(slopes, np.correlate(np.arange(8.0), x, "valid"), rtol=1e-9)


@pytest.mark.parametrize("dtype", ["i4", "f4"])
@pytest.mark.parametrize("shape", [(0,), (1,), (5,), (2, 3)])
def test_ediff1d(engine, shape, dtype):
    x = line(int(np.prod(shape)), dtype).reshape(shape)
    np.testing.assert_array_equal(engine(tnp.ediff1d, x), np.ediff1d(x))
    np.testing.assert_array_equal(
        engine(lambda v: tnp.ediff1d(v, to_end=[7, 8], to_begin=-1), x),
        np.ediff1d(x, to_end=np.array([7, 8], dtype), to_begin=np.array([-1], dtype)))


@pytest.mark.parametrize("trim", ["fb", "f", "b"])
@pytest.mark.parametrize("x", [[0, 0, 1, 0, 2, 0], [0, 0], [], [1, 2]])
def test_trim_zeros(x, trim):
    np.testing.assert_array_equal(tnp.trim_zeros(np.array(x, "f4"), trim),
                                  np.trim_zeros(np.array(x, "f4"), trim))
    with pytest.raises(UnsupportedError, match="trim_zeros of a traced array"):
        jit(tnp.trim_zeros)(np.ones(3, "f4"))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("options", [{}, {"period": 4}, {"discont": 5.0}, {"period": 5}])
@pytest.mark.parametrize("dtype", ["i4", "f4", "f8"])
def test_unwrap(engine, dtype, options, axis):
    x = np.cumsum(RNG.integers(-6, 7, (4, 9)), 1).astype(dtype)
    found = engine(lambda v: tnp.unwrap(v, axis=axis, **options), x)
    np.testing.assert_allclose(found, np.unwrap(x, axis=axis, **options), rtol=1e-5, atol=1e-5)
    if np.dtype(dtype).kind == "f" or isinstance(options.get("period"), int):
        assert found.dtype == x.dtype


F = RNG.normal(size=(4, 5))


@pytest.mark.parametrize("edge_order", [1, 2])
@pytest.mark.parametrize(("spacing", "axis"), [
    ((), None), ((2.0,), None), ((2.0, 0.5), None), ((), 1), ((3.0,), 0), ((), (1, 0)), ((), -1),
    ((np.array([0.0, 1, 3, 4]), np.array([0.0, 0.1, 0.5, 0.6, 2])), None),
    ((np.array([0.0, 1, 3, 4]),), 0), ((1.0, np.array([0.0, 1, 3, 4])), (1, 0))])
def test_gradient(engine, spacing, axis, edge_order):
    options = {"axis": axis, "edge_order": edge_order}
    found = engine(lambda v: tnp.gradient(v, *spacing, **options), F)
    expected = np.gradient(F, *spacing, **options)
    for ours, theirs in zip(found if isinstance(found, list) else [found],
                            expected if isinstance(expected, tuple) else [expected], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_gradient_keeps_the_element_type_and_makes_floats_of_integers():
    assert tnp.gradient(np.ones(3, np.float16)).dtype == np.float16
    np.testing.assert_array_equal(tnp.gradient(np.array([1, 4, 9])), [3, 4, 5])


def test_errors_say_what_does_not_fit():
    with pytest.raises(OpError, match="convolve mode 'some' is not one of valid, same, full"):
        tnp.convolve([1.0], [1.0], "some")
    with pytest.raises(OpError, match=r"convolve needs 1-d arrays .*, got \(2, 2\) and \(1,\)"):
        tnp.convolve(np.ones((2, 2)), [1.0])
    with pytest.raises(OpError, match="gradient along an axis of 1 needs at least 2 elements"):
        tnp.gradient(np.ones(1))
    with pytest.raises(OpError, match="takes no, one or 2 spacings, got 3"):
        tnp.gradient(F, 1.0, 2.0, 3.0)
