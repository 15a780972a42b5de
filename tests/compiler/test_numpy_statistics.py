"""Quantiles, correlation, windows, segments and the special functions against NumPy."""

import numpy as np
import pytest

import tfn.compiler.numpy as tnp
from tfn.compiler.errors import OpError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 4, 5)).astype(np.float32)
HOLES = np.where(RNG.random(X.shape) < 0.3, np.nan, X).astype(np.float32)


@pytest.mark.parametrize("axis", [None, 1, (0, 2)])
@pytest.mark.parametrize("name", ["nanmedian", "nanquantile", "nanpercentile"])
def test_quantiles_without_nan(engine, name, axis):
    q = {"nanmedian": (), "nanquantile": (0.3,), "nanpercentile": (40,)}[name]
    np.testing.assert_allclose(engine(lambda x: getattr(tnp, name)(x, *q, axis=axis), HOLES),
                               getattr(np, name)(HOLES, *q, axis=axis), rtol=1e-4, atol=1e-6)


def test_quantiles_beside_infinities(engine):
    x = np.float32([-np.inf, 1, 2, np.inf])
    np.testing.assert_array_equal(engine(lambda v: tnp.quantile(v, [0, 0.5, 1]), x),
                                  [-np.inf, 1.5, np.inf])


def test_covariance_and_correlation(engine):
    x = X[0]
    np.testing.assert_allclose(engine(tnp.cov, x), np.cov(x), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(engine(tnp.corrcoef, x), np.corrcoef(x), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(engine(lambda v: tnp.cov(v, rowvar=False), x),
                               np.cov(x, rowvar=False), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("options", [
    {"bias": True}, {"ddof": 0}, {"ddof": 2, "bias": True}, {"fweights": np.array([1, 2, 0, 3, 1])},
    {"aweights": np.array([0.5, 1, 2, 0.1, 1])},
    {"fweights": np.array([1, 2, 1, 3, 1]), "aweights": np.array([0.5, 1, 2, 0.1, 1]), "ddof": 1}],
    ids=str)
@pytest.mark.parametrize("dtype", ["f4", "c8"])
def test_weighted_covariance(engine, options, dtype):
    x, y = (X[k] * (1 + 0.5j if dtype == "c8" else 1) for k in (0, 1))
    found = engine(lambda a, b: tnp.cov(a, b, **options), x.astype(dtype), y.astype(dtype))
    assert found.dtype == np.dtype(dtype)
    np.testing.assert_allclose(found, np.cov(x, y, **options), rtol=2e-4, atol=1e-6)


def test_correlation_of_two_sets_of_variables(engine):
    np.testing.assert_allclose(engine(tnp.corrcoef, X[0], X[1]), np.corrcoef(X[0], X[1]), rtol=1e-4,
                               atol=1e-6)
    x = X[0] + 1j * X[1]
    np.testing.assert_allclose(engine(tnp.corrcoef, x), np.corrcoef(x), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["bartlett", "blackman", "hamming", "hanning"])
def test_windows(name):
    found = getattr(tnp, name)(7)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, getattr(np, name)(7), atol=1e-7)
    np.testing.assert_allclose(tnp.kaiser(7, 3.0), np.kaiser(7, 3.0), rtol=1e-6)


def test_segments(engine):
    ids = np.array([0, 2, 2, -1, 9])
    x = np.float32([[1, 2], [3, 4], [5, 6], [7, 8], [9, 9]])
    for name, expected in (("sum", [[1, 2], [0, 0], [8, 10]]), ("prod", [[1, 2], [1, 1], [15, 24]]),
                           ("max", [[1, 2], [-np.inf] * 2, [5, 6]]),
                           ("min", [[1, 2], [np.inf] * 2, [3, 4]])):
        found = engine(lambda v, n=name: getattr(tnp, f"segment_{n}")(v, ids, 3), x)
        np.testing.assert_array_equal(found, expected)
    assert tnp.segment_sum(x[:3], np.array([0, 0, 1])).shape == (2, 2)


def test_select(engine):
    x = np.arange(5, dtype=np.float32)
    np.testing.assert_array_equal(
        engine(lambda v: tnp.select([v < 2, v < 4], [v * 10, v * 100], -1.0), x),
        np.select([x < 2, x < 4], [x * 10, x * 100], -1.0))


def test_unravel_index_and_vander(engine):
    flat = np.int32([0, 7, 23])
    for ours, theirs in zip(engine(lambda i: tnp.unravel_index(i, (2, 3, 4)), flat),
                            np.unravel_index(flat, (2, 3, 4)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    x = np.float32([1, 2, 3])
    np.testing.assert_array_equal(engine(lambda v: tnp.vander(v, 4), x), np.vander(x, 4))
    np.testing.assert_array_equal(engine(lambda v: tnp.vander(v, increasing=True), x),
                                  np.vander(x, increasing=True))


def test_in_top_k(engine):
    rows = np.float32([[1, 5, 3], [2, 2, 2], [9, np.nan, 1]])
    np.testing.assert_array_equal(engine(lambda r: tnp.in_top_k(np.array([2, 0, 1]), r, 2), rows),
                                  [True, True, False])


def test_extract_sequences(engine):
    found = engine(lambda v: tnp.extract_sequences(v, 3, 2), np.arange(8, dtype=np.float32))
    np.testing.assert_array_equal(found, [[0, 1, 2], [2, 3, 4], [4, 5, 6]])


def test_allclose(engine):
    assert engine(lambda v: tnp.allclose(v, v * 1.000001), X)
    assert not engine(lambda v: tnp.allclose(v, v + 1), X)


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.int64])
def test_gcd_and_lcm(engine, dtype):
    a, b = np.array([12, 0, 7, 100, 0, 89], dtype), np.array([18, 5, 13, 75, 0, 55], dtype)
    np.testing.assert_array_equal(engine(tnp.gcd, a, b), np.gcd(a, b))
    a, b = a[:3], b[:3]
    np.testing.assert_array_equal(engine(tnp.lcm, a, b), np.lcm(a, b))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_nextafter(engine, dtype):
    x = np.array([0, -0.0, 1, -1, 0, np.inf, np.nan, 3, 1], dtype)
    y = np.array([1, 1, 2, 2, -1, 0, 1, 3, -np.inf], dtype)
    np.testing.assert_array_equal(engine(tnp.nextafter, x, y), np.nextafter(x, y))


def test_bessel_ldexp_angle(engine):
    x = np.float32([-9, -3.75, 0, 0.5, 3, 20, 80])
    np.testing.assert_allclose(engine(tnp.i0, x), np.i0(x.astype(np.float64)), rtol=1e-5)
    np.testing.assert_allclose(engine(lambda v: tnp.ldexp(v, np.int32(3)), x), x * 8)
    np.testing.assert_allclose(engine(tnp.angle, x), np.angle(x), rtol=1e-6)


def test_geomspace():
    np.testing.assert_allclose(tnp.geomspace(1, 1000, 4), [1, 10, 100, 1000], rtol=1e-5)
    np.testing.assert_allclose(tnp.geomspace(-2, -32, 5), np.geomspace(-2, -32, 5), rtol=1e-5)


@pytest.mark.parametrize(("old", "new"), [("f4", "u1"), ("i2", "f8"), ("u1", "u2"), ("i8", "f4")])
def test_view_as_a_type_of_another_width_changes_the_last_dim(engine, old, new):
    x = np.arange(16).reshape(2, 8).astype(old)
    np.testing.assert_array_equal(engine(lambda v: tnp.view(v, np.dtype(new)), x), x.view(new))
    with pytest.raises(OpError, match="multiple"):
        tnp.view(np.zeros((2, 3), "i2"), "float64")


def test_view(engine):
    found = engine(lambda v: tnp.view(v, "int32"), np.float32([1, -0.0]))
    np.testing.assert_array_equal(found, [0x3F800000, -(2**31)])


def test_complex_numbers(engine):
    z = np.array([1 + 2j, -3j, 0.5], np.complex64)
    for name in ("exp", "square", "tanh"):
        np.testing.assert_allclose(engine(getattr(tnp, name), z), getattr(np, name)(z), rtol=1e-5)
