"""`tfn.numpy` reductions and scans against NumPy, and on symbolic dims."""

import math

import ml_dtypes
import numpy as np
import pytest

import tfn.compiler.numpy as tnp
from tfn.compiler.errors import OpError
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dims import Dim
from tfn.compiler.ir.dtypes import F32
from tfn.compiler.trace.core import trace

X = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
AXES = [None, 0, -1, (0, 2), (-1, 1), ()]


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("name", ["sum", "prod", "mean", "var", "std", "max", "min", "any", "all",
                                  "count_nonzero", "ptp", "nansum", "nanmean", "nanmax",
                                  "nanmin"])
def test_reductions(engine, name, axis, keepdims):
    if name == "ptp" and axis == ():
        pytest.skip("NumPy's ptp takes no empty axes")
    expected = getattr(np, name)(X, axis=axis, keepdims=keepdims)
    found = engine(lambda x: getattr(tnp, name)(x, axis=axis, keepdims=keepdims), X)
    assert found.shape == np.shape(expected)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["argmax", "argmin"])
@pytest.mark.parametrize("axis", [None, 0, 1, -1])
@pytest.mark.parametrize("keepdims", [False, True])
def test_arg_reductions(engine, name, axis, keepdims):
    x = np.round(X)
    found = engine(lambda v: getattr(tnp, name)(v, axis=axis, keepdims=keepdims), x)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, getattr(np, name)(x, axis=axis, keepdims=keepdims))


def test_argmax_finds_the_first_nan(engine):
    x = np.float32([1, np.nan, 3, np.nan])
    assert engine(tnp.argmax, x) == engine(tnp.argmin, x) == 1


def test_max_of_nan_is_nan(engine):
    x = np.float32([[1, np.nan], [2, 3]])
    np.testing.assert_array_equal(engine(lambda v: tnp.max(v, 1), x), [np.nan, 3])
    np.testing.assert_array_equal(engine(lambda v: tnp.nanmax(v, 1), x), [1, 3])


@pytest.mark.parametrize(("dtype", "expected"), [
    (np.bool_, np.int32), (np.int8, np.int32), (np.uint8, np.uint32), (np.int64, np.int64),
    (np.float16, np.float16), (ml_dtypes.bfloat16, ml_dtypes.bfloat16), (np.float64, np.float64)])
def test_type_of_a_sum(dtype, expected):
    assert tnp.sum(np.ones(3, dtype)).dtype == expected


@pytest.mark.parametrize(("dtype", "expected"), [
    (np.bool_, np.float32), (np.int64, np.float32), (np.float16, np.float16),
    (np.float64, np.float64)])
def test_type_of_a_mean(dtype, expected):
    assert tnp.mean(np.ones(3, dtype)).dtype == expected
    assert tnp.var(np.ones(3, dtype)).dtype == expected


def test_a_mean_of_f16_does_not_overflow(engine):
    assert engine(tnp.mean, np.full(4000, 100, np.float16)) == 100


def test_empty(engine):
    x = np.zeros((0, 3), np.float32)
    np.testing.assert_array_equal(engine(lambda v: tnp.sum(v, 0), x), [0, 0, 0])
    np.testing.assert_array_equal(engine(lambda v: tnp.prod(v, 0), x), [1, 1, 1])
    assert engine(lambda v: tnp.max(v, 1), x).shape == (0,)
    assert np.isnan(engine(tnp.mean, x))
    with pytest.raises(OpError, match="needs `initial`"):
        tnp.max(x)
    assert engine(lambda v: tnp.max(v, initial=7.0), x) == 7


def test_sum_with_where_and_initial(engine):
    mask = X > 0
    found = engine(lambda x: tnp.sum(x, 1, where=mask, initial=2.0), X)
    np.testing.assert_allclose(found, X.sum(1, where=mask, initial=2), rtol=1e-5)
    found = engine(lambda x: tnp.mean(x, 1, where=mask), X)
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(found, np.nanmean(np.where(mask, X, np.nan), 1), rtol=1e-5)


def test_variance_with_ddof_and_complex(engine):
    np.testing.assert_allclose(engine(lambda x: tnp.var(x, 0, ddof=1), X), X.var(0, ddof=1),
                               rtol=1e-5)


def test_average_with_weights(engine):
    weights = np.float32([1, 2, 3, 4])
    found = engine(lambda x: tnp.average(x, 1, weights), X)
    np.testing.assert_allclose(found, np.average(X, 1, weights), rtol=1e-5)


def test_logsumexp(engine):
    x = np.array([[1e4, 1e4 - 1], [-np.inf, -np.inf], [-np.inf, 2], [np.inf, 1], [np.nan, 1]],
                 np.float32)
    expected = [1e4 + math.log1p(math.exp(-1)), -np.inf, 2, np.inf, np.nan]
    np.testing.assert_allclose(engine(lambda v: tnp.logsumexp(v, 1), x), expected, rtol=1e-6)
    np.testing.assert_allclose(engine(tnp.logsumexp, X), np.log(np.exp(X).sum()), rtol=1e-5)


@pytest.mark.parametrize("length", [0, 1, 5, 32, 33, 100, 1025])
@pytest.mark.parametrize("axis", [0, 1])
def test_cumulative_sum(engine, length, axis):
    shape = (length, 2) if axis == 0 else (2, length)
    x = np.random.default_rng(1).integers(-9, 9, shape).astype(np.float32)
    np.testing.assert_array_equal(engine(lambda v: tnp.cumsum(v, axis), x), x.cumsum(axis))


def test_cumulative_product(engine):
    x = np.float32(np.random.default_rng(1).uniform(0.9, 1.1, 70))
    np.testing.assert_allclose(engine(tnp.cumprod, x), np.cumprod(x), rtol=1e-5)


def test_methods(engine):
    for name in ("sum", "mean", "max", "min", "prod", "var", "std", "argmax", "all", "any",
                 "cumsum"):
        np.testing.assert_allclose(engine(lambda x, n=name: getattr(x, n)(1), X),
                                   getattr(X, name)(1), rtol=1e-4, atol=1e-6)


def test_reductions_over_a_symbolic_dim():
    batch = Dim.named("batch")

    def program(x):
        return [tnp.mean(x, 0), tnp.var(x), tnp.sum(x, (0, 1), keepdims=True), tnp.argmax(x, -1),
                tnp.logsumexp(x, 0), tnp.max(x, 1), tnp.average(x, 0)]

    function, _ = trace(program, [TensorType((batch, 4), F32)])
    shapes = [t.shape for t in function.result_types]
    assert shapes == [(4,), (), (1, 1), (batch,), (4,), (batch,), (4,)]
    assert any(op.name == "stablehlo.get_dimension_size" for op in function.ops)


def test_axis_out_of_range():
    with pytest.raises(OpError, match="axis 3 is outside an array of 3 dims"):
        tnp.sum(X, 3)


HOLES = np.where(np.random.default_rng(4).random((3, 4, 5)) < 0.3, np.nan,
                 np.random.default_rng(5).normal(size=(3, 4, 5)))
CHOSEN = np.random.default_rng(6).random((3, 1, 5)) < 0.7


@pytest.mark.parametrize("axis", [None, 1, (0, 2)])
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("name", ["nansum", "nanprod", "nanmean", "nanvar", "nanstd"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_nan_reductions_of_chosen_elements(engine, name, axis, keepdims):
    options = {"axis": axis, "keepdims": keepdims, "where": CHOSEN}
    np.testing.assert_allclose(engine(lambda x: getattr(tnp, name)(x, **options), HOLES),
                               getattr(np, name)(HOLES, **options), rtol=1e-9)
    found = getattr(tnp, name)(HOLES.astype("f4"), dtype="f8", where=CHOSEN)
    assert found.dtype == np.float64


@pytest.mark.parametrize("name", ["nanmax", "nanmin"])
def test_nan_extremes_of_chosen_elements(engine, name):
    options = {"axis": 1, "initial": 0.25, "where": CHOSEN}
    np.testing.assert_array_equal(engine(lambda x: getattr(tnp, name)(x, **options), HOLES),
                                  getattr(np, name)(HOLES, **options))
    assert np.isnan(np.asarray(getattr(tnp, name)(np.full((2, 0), np.nan), axis=0))).all()
    assert np.isnan(float(getattr(tnp, name)([np.nan, np.nan])))


@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("name", ["var", "std"])
@pytest.mark.parametrize("dtype", ["f8", "c16"])
def test_spread_of_chosen_elements(engine, name, ddof, dtype):
    x = np.nan_to_num(HOLES).astype(dtype) * (1 + 2j if dtype == "c16" else 1)
    options = {"axis": 0, "ddof": ddof, "where": np.broadcast_to(CHOSEN, x.shape)}
    options["where"] = options["where"] | (np.arange(3) < 2)[:, None, None]
    np.testing.assert_allclose(engine(lambda v: getattr(tnp, name)(v, **options), x),
                               getattr(np, name)(x, **options), rtol=1e-9)
    mean = np.mean(x, 0, keepdims=True)
    np.testing.assert_allclose(engine(lambda v, m: getattr(tnp, name)(v, 0, mean=m), x, mean),
                               getattr(np, name)(x, 0, mean=mean), rtol=1e-9)
