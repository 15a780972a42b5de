"""Bits, bytes and the parts of floats against NumPy: subnormals, infinities, narrow floats."""

import ml_dtypes
import numpy as np
import pytest

import tfn.compiler.numpy as tnp
from tfn.compiler.errors import OpError

RNG = np.random.default_rng(0)
SPECIAL = [0.0, -0.0, 1.0, -1.5, 0.75, 3e38, -1e-38, 1e-45, 2e-41, np.inf, -np.inf, np.nan, 1024.0]


@pytest.mark.parametrize("dtype", ["i1", "i4", "i8", "u1", "u4", "u8", "?"])
@pytest.mark.parametrize("shape", [(), (0,), (3, 4)])
def test_bitwise_count(engine, shape, dtype):
    limits = (0, 2) if dtype == "?" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    x = RNG.integers(*limits, shape, dtype=np.dtype(dtype) if dtype != "?" else "i8").astype(dtype)
    found = engine(tnp.bitwise_count, x)
    # NumPy leaves booleans alone; they are counted here.
    expected = np.bitwise_count(x if dtype != "?" else x.astype("u1"))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("bitorder", ["big", "little"])
@pytest.mark.parametrize(("shape", "axis"), [((16,), None), ((5,), 0), ((3, 11), 1), ((9, 2), 0),
                                             ((3, 11), None), ((0,), 0), ((2, 0), 1)])
def test_packbits(engine, shape, axis, bitorder):
    x = RNG.integers(0, 3, shape)
    np.testing.assert_array_equal(engine(lambda v: tnp.packbits(v, axis, bitorder), x),
                                  np.packbits(x, axis, bitorder))


@pytest.mark.parametrize("count", [None, 3, 11, 40, -3])
@pytest.mark.parametrize("bitorder", ["big", "little"])
@pytest.mark.parametrize(("shape", "axis"), [((4,), None), ((2, 3), 1), ((2, 3), 0), ((2, 2), None)])
def test_unpackbits(engine, shape, axis, bitorder, count):
    x = RNG.integers(0, 256, shape, dtype=np.uint8)
    np.testing.assert_array_equal(engine(lambda v: tnp.unpackbits(v, axis, count, bitorder), x),
                                  np.unpackbits(x, axis, count, bitorder))


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_frexp(engine, dtype):
    with np.errstate(over="ignore"):
        x = np.array([*SPECIAL, *RNG.normal(size=20) * 10.0 ** RNG.integers(-5, 5, 20)]).astype(dtype)
    x = np.append(x, [np.finfo(dtype).smallest_subnormal, np.finfo(dtype).tiny, np.finfo(dtype).max])
    mantissa, power = engine(tnp.frexp, x)
    expected = np.frexp(x)
    assert mantissa.dtype == x.dtype and power.dtype == np.int32
    np.testing.assert_array_equal(mantissa, expected[0])
    # What NumPy gives as exponent of infinities and NaN is up to the C library.
    np.testing.assert_array_equal(power, np.where(np.isfinite(x), expected[1], 0))


def test_frexp_of_bfloat16(engine):
    x = np.array([1.0, -3.0, 1e-40, 3e38], np.float32).astype(ml_dtypes.bfloat16)
    mantissa, power = engine(tnp.frexp, x)
    assert mantissa.dtype == x.dtype
    np.testing.assert_array_equal(np.ldexp(mantissa.astype("f4"), power), x.astype("f4"))
    assert np.all((np.abs(mantissa.astype("f4")) >= 0.5) & (np.abs(mantissa.astype("f4")) < 1))


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("power", ["i4", "i8", "u1"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_ldexp(engine, dtype, power):
    """Also where 2**exponent alone is 0 or infinite, and rounded once among the subnormals."""
    with np.errstate(over="ignore"):
        x = np.array([*SPECIAL, 1e-30, 1.9999999, -3e-300]).astype(dtype)
    limits = np.finfo(dtype)
    x = np.append(x, [limits.smallest_subnormal, limits.max])[:, None]
    k = np.unique([0, 1, -1, 5, 15, -20, 24, 127, -126, -130, 150, -149, 277, -1074, 2097, -2097,
                   10 ** 6])
    k = np.where((k < 0) | (k > 255), 0, k).astype("u1") if power == "u1" else k.astype(power)
    found = engine(tnp.ldexp, x, k)
    assert found.dtype == x.dtype
    np.testing.assert_array_equal(found, np.ldexp(x, k.astype("i4")))


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i4"])
def test_modf(engine, dtype):
    x = (np.arange(-3, 4) if dtype == "i4" else np.array([*SPECIAL[:5], 2.5, -2.75, *SPECIAL[9:]])
         ).astype(dtype)
    for ours, theirs in zip(engine(tnp.modf, x), np.modf(x), strict=True):
        np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(np.signbit(ours), np.signbit(theirs))


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_spacing(engine, dtype):
    with np.errstate(over="ignore"):
        x = np.array(SPECIAL).astype(dtype)
    x = x[~(x == np.finfo(dtype).max)]
    found = engine(tnp.spacing, x)
    np.testing.assert_array_equal(np.abs(found), np.abs(np.spacing(x)))
    if dtype != "f2":  # NumPy's spacing of a negative float16 is positive.
        np.testing.assert_array_equal(np.sign(found), np.sign(np.spacing(x)))


def test_errors_say_what_is_needed():
    with pytest.raises(OpError, match="bitwise_count needs integers, got float32"):
        tnp.bitwise_count(np.ones(2, "f4"))
    with pytest.raises(OpError, match=r"unpackbits needs bytes \(uint8\), got int32"):
        tnp.unpackbits(np.ones(2, "i4"))
    with pytest.raises(OpError, match="bitorder 'middle' is not one of big, little"):
        tnp.packbits([1], bitorder="middle")
    with pytest.raises(OpError, match="integers, got float32 and float64"):
        tnp.ldexp(np.ones(2, "f4"), np.ones(2))
    with pytest.raises(OpError, match="frexp needs real floats"):
        tnp.frexp(np.ones(2, "c8"))
