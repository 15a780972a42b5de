"""`tfn.numpy` elementwise functions against NumPy: values, element types, broadcasting."""

import ml_dtypes
import numpy as np
import pytest

import tfn.compiler.numpy as tnp
from tfn.compiler.errors import OpError

SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, 2.5, -2.5, 1e-3, 40.0, -40.0, np.nan, np.inf, -np.inf],
                   np.float32)
WITHIN_ONE = np.array([-1, -0.9, -1e-4, 0, 1e-4, 0.3, 0.999, 1, 1.5, np.nan], np.float32)
FROM_ONE = np.array([1, 1.0001, 2, 1e3, 1e8, 0.5, np.inf], np.float32)

UNARY = [
    *((n, SPECIAL) for n in (
        "exp", "expm1", "log", "log1p", "sqrt", "cbrt", "tanh", "arctan", "sinh",
        "cosh", "arcsinh", "abs", "negative", "sign", "floor", "ceil", "rint", "trunc", "square",
        "reciprocal", "isnan", "isinf", "isfinite", "isposinf", "isneginf", "signbit",
        "logical_not", "exp2", "log2", "log10", "deg2rad", "rad2deg", "nan_to_num", "positive",
        "conj", "real", "imag", "fabs", "absolute")),
    *((n, SPECIAL[:9]) for n in ("sin", "cos", "tan", "sinc")),
    *((n, WITHIN_ONE) for n in ("arcsin", "arccos", "arctanh")),
    ("arccosh", FROM_ONE),
]


@pytest.mark.parametrize(("name", "x"), UNARY, ids=[n for n, _ in UNARY])
def test_unary_is_numpys(engine, name, x):
    with np.errstate(all="ignore"):
        expected = getattr(np, name)(x)
    found = engine(getattr(tnp, name), x)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=3e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["exp", "log", "sqrt", "sin", "tanh", "arctan"])
@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint8, np.bool_])
def test_functions_of_analysis_turn_integers_into_f32(engine, name, dtype):
    x = np.array([0, 1, 1], dtype)
    with np.errstate(all="ignore"):
        expected = getattr(np, name)(x.astype(np.float32))
    found = engine(getattr(tnp, name), x)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["exp", "tanh", "floor", "abs"])
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_float_types_are_kept(engine, name, dtype):
    x = np.array([0.5, -1.25, 3], dtype)
    found = engine(getattr(tnp, name), x)
    assert found.dtype == dtype
    np.testing.assert_allclose(found.astype(np.float64),
                               getattr(np, name)(x.astype(np.float64)), rtol=1e-2)


BINARY = ["add", "subtract", "multiply", "maximum", "minimum", "divide", "mod", "fmod",
          "floor_divide", "power", "arctan2", "logaddexp", "hypot", "copysign", "heaviside",
          "equal", "not_equal", "less", "less_equal", "greater", "greater_equal", "logical_and",
          "logical_or", "logical_xor", "fmax", "fmin", "logaddexp2"]


@pytest.mark.parametrize("name", BINARY)
def test_binary_on_floats_with_broadcasting(engine, name):
    x = np.array([[0.5], [-2], [3.7], [np.nan], [0]], np.float32)
    y = np.array([2, -3.5, 1, 0.25], np.float32)
    with np.errstate(all="ignore"):
        expected = getattr(np, name)(x, y)
    found = engine(getattr(tnp, name), x, y)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=2e-6)


@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "maximum", "minimum", "mod",
                                  "floor_divide", "fmod", "bitwise_and", "bitwise_or",
                                  "bitwise_xor", "less", "equal"])
@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, np.uint8, np.uint32])
def test_binary_on_integers(engine, name, dtype):
    x = np.array([7, 100, 3, 0, 12], dtype)
    y = np.array([2, 7, 5, 9, 4], dtype)
    if np.issubdtype(dtype, np.signedinteger):
        x, y = x * np.array([1, -1, 1, 1, -1], dtype), y * np.array([1, 1, -1, 1, -1], dtype)
    expected = getattr(np, name)(x, y)
    found = engine(getattr(tnp, name), x, y)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["left_shift", "right_shift"])
@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int8])
def test_shifts(engine, name, dtype):
    x, y = np.array([1, 77, 100], dtype), np.array([3, 1, 0], dtype)
    np.testing.assert_array_equal(engine(getattr(tnp, name), x, y), getattr(np, name)(x, y))


PROMOTION = [
    (np.float32, np.float64, np.float64), (np.int32, np.float32, np.float32),
    (np.int64, np.float16, np.float16), (np.int64, np.float32, np.float32),
    (np.bool_, np.int8, np.int8), (np.uint8, np.int8, np.int16), (np.uint32, np.int32, np.int64),
    (np.uint64, np.int32, np.float32), (np.float16, ml_dtypes.bfloat16, np.float32),
    (np.int8, np.int64, np.int64), (np.complex64, np.float64, np.complex128),
    (np.bool_, np.bool_, np.bool_),
]


@pytest.mark.parametrize(("a", "b", "expected"), PROMOTION)
def test_promotion_of_arrays(a, b, expected):
    assert tnp.add(np.ones(2, a), np.ones(2, b)).dtype == expected
    assert tnp.add(np.ones(2, b), np.ones(2, a)).dtype == expected


WEAK = [
    (np.float16, 2.5, np.float16), (ml_dtypes.bfloat16, 2, ml_dtypes.bfloat16),
    (np.float64, 2.5, np.float64), (np.int8, 3, np.int8), (np.int32, 2.5, np.float32),
    (np.uint8, 2.5, np.float32), (np.bool_, 3, np.int32), (np.bool_, 1.0, np.float32),
    (np.int64, 3, np.int64), (np.float32, np.float64(2.5), np.float32),
    (np.float32, 1j, np.complex64), (np.float64, 1j, np.complex128), (np.int8, True, np.int8),
]


@pytest.mark.parametrize(("dtype", "scalar", "expected"), WEAK)
def test_python_scalars_take_the_arrays_type(engine, dtype, scalar, expected):
    assert engine(lambda x: x * scalar, np.ones(2, dtype)).dtype == expected
    assert engine(lambda x: scalar * x, np.ones(2, dtype)).dtype == expected


def test_python_numbers_are_32_bits_wide():
    assert tnp.asarray(1.5).dtype == np.float32
    assert tnp.asarray([1.5, 2]).dtype == np.float32
    assert tnp.asarray(3).dtype == np.int32
    assert tnp.asarray([[1, 2], [3, 4]]).dtype == np.int32
    assert tnp.asarray(2**40).dtype == np.int64
    assert tnp.asarray(True).dtype == np.bool_
    assert tnp.asarray(np.ones(3)).dtype == np.float64


def test_integer_division_is_f32(engine):
    found = engine(lambda x: x / 2, np.array([1, 2, 3]))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [0.5, 1, 1.5])


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 7, -1, -2, 0.5, 2.0, 40])
def test_powers_by_a_number(engine, exponent):
    x = np.array([0.5, 1.25, 2, 3], np.float32)
    np.testing.assert_allclose(engine(lambda v: v ** exponent, x), x ** np.float32(exponent),
                               rtol=1e-5)


def test_negative_base_to_an_integer_power(engine):
    np.testing.assert_array_equal(engine(lambda v: v ** 3, np.float32([-2, -1])), [-8, -1])


def test_where_broadcasts_and_promotes(engine):
    c = np.array([[True], [False]])
    x = np.arange(3, dtype=np.int32)
    found = engine(lambda c, x: tnp.where(c, x, 0.5), c, x)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.where(c, x, 0.5))


@pytest.mark.parametrize("bounds", [(0, 2), (None, 1), (-1, None), (0.5, 1.5)])
def test_clip(engine, bounds):
    x = np.array([-3, 0.7, 9, np.nan], np.float32)
    np.testing.assert_allclose(engine(lambda v: tnp.clip(v, *bounds), x), np.clip(x, *bounds))


def test_clip_by_arrays(engine):
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    low, high = np.float32([1, 1, 3]), np.float32([[2], [4]])
    np.testing.assert_array_equal(engine(tnp.clip, x, low, high), np.clip(x, low, high))


@pytest.mark.parametrize("decimals", [0, 1, 2, -1])
def test_round(engine, decimals):
    x = np.array([0.5, 1.5, 2.345, -17.25, 123.456], np.float32)
    np.testing.assert_allclose(engine(lambda v: tnp.round(v, decimals), x),
                               np.round(x, decimals), rtol=1e-6)


def test_isclose(engine):
    x = np.array([1, 1 + 1e-6, np.nan, np.inf, 2], np.float32)
    y = np.array([1, 1, np.nan, np.inf, 3], np.float32)
    for equal_nan in (False, True):
        np.testing.assert_array_equal(
            engine(lambda a, b, e=equal_nan: tnp.isclose(a, b, equal_nan=e), x, y),
            np.isclose(x, y, equal_nan=equal_nan))


def test_erf_inv_inverts_erf(engine):
    from math import erf

    x = np.array([-2.5, -1, -0.1, 0, 0.3, 1.7, 2.9], np.float64)
    y = np.array([erf(v) for v in x])
    np.testing.assert_allclose(engine(tnp.erf_inv, y), x, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(engine(tnp.erf_inv, y.astype(np.float32)), x, rtol=1e-3)
    np.testing.assert_array_equal(engine(tnp.erf_inv, np.float32([-1, 1, 2])),
                                  [-np.inf, np.inf, np.nan])


def test_operators_are_the_functions(engine):
    x, y = np.float32([7, -3, 2]), np.float32([2, 2, -4])
    pairs = [(lambda a, b: a + b, np.add), (lambda a, b: a - b, np.subtract),
             (lambda a, b: a * b, np.multiply), (lambda a, b: a / b, np.divide),
             (lambda a, b: a // b, np.floor_divide), (lambda a, b: a % b, np.mod),
             (lambda a, b: abs(a) ** b, lambda a, b: np.abs(a) ** b),
             (lambda a, b: -a, lambda a, b: -a), (lambda a, b: a @ b, np.matmul),
             (lambda a, b: (a < b) | (a >= 7), lambda a, b: (a < b) | (a >= 7)),
             (lambda a, b: ~(a == b) & (a != 2), lambda a, b: (a != b) & (a != 2)),
             (lambda a, b: 1 - a, lambda a, b: 1 - a), (lambda a, b: 2 / a, lambda a, b: 2 / a)]
    for ours, theirs in pairs:
        np.testing.assert_allclose(engine(ours, x, y), theirs(x, y), rtol=1e-6)


def test_numpy_arrays_on_the_left():
    found = np.float32([1, 2]) * tnp.asarray([3.0, 4.0])
    assert isinstance(found, tnp.Array)
    np.testing.assert_array_equal(found, [3, 8])


def test_shapes_that_do_not_broadcast_are_reported():
    with pytest.raises(OpError, match=r"\(2,\) and \(3,\) cannot be broadcast"):
        tnp.add(np.ones(2), np.ones(3))


def test_empty_and_0d(engine):
    assert engine(tnp.add, np.ones((0, 3), np.float32), np.float32(1)).shape == (0, 3)
    assert engine(tnp.exp, np.float32(0)).shape == ()
