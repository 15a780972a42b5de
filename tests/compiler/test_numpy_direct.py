"""Eager functions that go straight to NumPy: the same results, types, errors and checks as the ops."""

import math
import warnings

import ml_dtypes
import numpy as np
import pytest

import tfn
from tfn import numpy as tnp
from tfn.compiler import debug, nn
from tfn.compiler.errors import NanError, OpError
from tfn.compiler.numpy import direct, elementwise
from tfn.compiler.trace.core import Array, bind

TYPES = ["f4", "f8", "i1", "i4", "i8", "u1", "u4", "u8"]
BINARY = {"add": "stablehlo.add", "subtract": "stablehlo.subtract", "multiply": "stablehlo.multiply",
          "maximum": "stablehlo.maximum", "minimum": "stablehlo.minimum"}


def some(dtype: str, *shape: int) -> np.ndarray:
    values = np.random.default_rng(len(shape)).integers(0, 120, shape).astype(dtype)
    if dtype[0] == "f" and values.size > 5:
        values.flat[:6] = [0.0, -0.0, np.nan, np.inf, -np.inf, 1e-40]
    return values


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", BINARY)
def test_bits_of_the_op(name, dtype):
    x, y = some(dtype, 3, 7), some(dtype, 3, 7)[:, ::-1]
    found = getattr(tnp, name)(Array(x), Array(y))
    expected = bind(BINARY[name], x, np.ascontiguousarray(y))
    assert found.dtype == x.dtype
    assert np.asarray(found).tobytes() == np.asarray(expected).tobytes()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("number", [3, 0, 2.5])
def test_numbers_are_weak(dtype, number):
    x = some(dtype, 4)
    for found in (Array(x) * number, number * Array(x)):
        expected = tfn.jit(lambda x: x * number)(x)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


@pytest.mark.parametrize("number", [300, -1, 2**40])
def test_numbers_that_do_not_fit_are_left_to_the_op(number):
    x = Array(some("u1", 4))
    assert direct.comparison("LT")(x, number) is None
    assert direct.binary(np.add, "u")(x, number) is None


def test_scalars_stay_arrays():
    x = tnp.asarray(np.float32(2))
    for found in (x + x, x * 3.0, tnp.exp(x), x < 3, tnp.sum(tnp.ones(4)), tnp.ones(4) @ tnp.ones(4)):
        assert type(found) is Array and found.shape == ()


def test_nothing_warns():
    x = tnp.asarray(np.array([0, -1, np.inf, 3e38], np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x / x, tnp.log(x), x * x, tnp.sum(x * 3e38), x - x, tnp.sqrt(x)


@pytest.mark.parametrize("call", [
    lambda x, y: x + y, lambda x, y: x < y, lambda x, y: x @ y, lambda x, y: tnp.where(x > 0, x, y),
    lambda x, y: tnp.concatenate([x, y]), lambda x, y: x.reshape((4, 4)),
    lambda x, y: x.transpose((0, 5)), lambda x, y: tnp.max(x[:0]), lambda x, y: tnp.sum(x, 7)])
def test_mistakes_are_reported_at_the_users_line(call):
    with pytest.raises(OpError, match=r"test_numpy_direct.py:\d+"):
        call(tnp.ones((3, 5)), tnp.ones((3, 4)))


def test_checks_see_what_numpy_made():
    zero = tnp.zeros(3)
    with tfn.debug.check_nans(), pytest.raises(NanError, match="divide"):
        zero / zero


def test_large_arrays_meet_the_compiled_functions():
    x = np.linspace(-4, 4, 1 << 15).astype(np.float32).reshape(128, 256)[:, ::2]
    small, large = x[:4], np.tile(x, (2, 1))
    for function, true in ((elementwise.erf, math.erf), (tnp.tanh, math.tanh), (tnp.exp, math.exp)):
        expected = np.vectorize(true)(large.astype(np.float64))
        found = np.asarray(function(Array(large)))
        assert found.shape == large.shape and large.size >= direct._LARGE
        np.testing.assert_allclose(found, expected, rtol=3e-7, atol=1e-45)
        np.testing.assert_allclose(np.asarray(function(Array(small))), expected[:4], rtol=3e-7)


@pytest.mark.parametrize("shapes", [
    ((3, 4), (4, 5)), ((2, 3, 4), (4, 5)), ((4,), (4, 5)), ((3, 4), (4,)), ((2, 3, 4), (2, 4, 5)),
    ((0, 4), (4, 5)), ((3, 0), (0, 5))], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_products(shapes, dtype):
    rng = np.random.default_rng(0)
    x, y = (rng.integers(-5, 5, s).astype(dtype) for s in shapes)
    found = np.asarray(tnp.asarray(x) @ tnp.asarray(y))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, x @ y)


@pytest.mark.parametrize("shapes", [((4, 8), (8,)), ((), (8,)), ((3, 1), (1, 8)), ((0, 8), (8,))],
                         ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.int32, ml_dtypes.bfloat16])
def test_broadcasting(shapes, dtype):
    x, y = (np.arange(math.prod(s)).reshape(s).astype(dtype) for s in shapes)
    found = np.asarray(tnp.asarray(x) - tnp.asarray(y))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, x - y)


def test_relu():
    x = tnp.asarray(np.array([0.0, -0.0, 1.5, -2.0, np.inf, -np.inf, np.nan, 3e38], np.float32))
    found = np.asarray(nn.relu(x))
    np.testing.assert_array_equal(found, np.asarray(tfn.jit(nn.relu)(x)))
    assert not np.signbit(found).any() and np.isnan(found[6])
    assert np.asarray(nn.relu(tnp.asarray([-1, 2]))).tolist() == [0, 2]


def test_a_trace_records_them():
    held = tnp.ones((64, 64))

    @tfn.jit
    def f(x):
        return x + tnp.add(held, held) @ held

    np.testing.assert_array_equal(np.asarray(f(held)), np.full((64, 64), 129.0, np.float32))


@pytest.mark.parametrize("image, kernel, options", [
    ((2, 1500, 2), (700, 2, 33), {"strides": 50, "padding": "same"}),
    ((3, 30, 31, 16), (5, 5, 8, 32), {"dilation": 2, "padding": ((3, 1), (0, 2))}),
    ((2, 16, 40, 40), (3, 3, 16, 40), {"strides": (2, 1), "data_format": "channels_first"}),
], ids=["long", "grouped", "channels first"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_long_convolutions_have_a_kernel_for_any_batch(image, kernel, options, dtype, monkeypatch):
    rng = np.random.default_rng(0)
    x, w = (tnp.asarray(rng.standard_normal(s).astype(dtype)) for s in (image, kernel))
    monkeypatch.setattr(direct, "_LONG", math.inf)
    expected = np.asarray(nn.conv(x, w, **options))
    monkeypatch.setattr(direct, "_LONG", 0)
    found = np.asarray(nn.conv(x, w, **options))
    assert found.dtype == dtype
    scale = np.abs(expected).max() * np.finfo(dtype).eps
    np.testing.assert_allclose(found, expected, rtol=0, atol=20 * scale)
    before = debug.compilations()
    fewer = np.asarray(nn.conv(x[:1], w, **options))
    assert debug.compilations() == before
    np.testing.assert_array_equal(fewer, found[:1])


def test_a_wrong_convolution_is_refused_at_the_users_line():
    with pytest.raises(OpError, match="channels"):
        nn.conv(tnp.ones((1, 999, 3)), tnp.ones((900, 2, 64)))
