"""Running sums, products and extremes in compiled code, along any axis, against NumPy."""

import numpy as np
import pytest

from tfn.compiler import numpy as tnp
from tfn.compiler.codegen.target import Target
from tfn.compiler.compile import compile_function, run_passes
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dims import Dim
from tfn.compiler.ir.dtypes import F32, as_dtype
from tfn.compiler.trace.core import trace
from tfn.compiler.trace.grad import grad

KINDS = {"cumsum": np.add, "cumprod": np.multiply, "cummax": np.maximum, "cummin": np.minimum}
CASES = [((1000,), 0), ((16,), 0), ((3, 37), 1), ((37, 3), 0), ((40, 1030), 0), ((2, 20, 5), 1),
         ((2, 3, 64), 2), ((2, 0, 40), 2), ((40, 0), 0), ((20, 2, 3), 0), ((5, 7), 1), ((0,), 0)]


def compiled(function, *arrays):
    program, _ = trace(function, [TensorType(a.shape, as_dtype(a.dtype)) for a in arrays])
    return compile_function(program)(*arrays)


@pytest.mark.parametrize(("name", "dtype"), [
    *((name, dtype) for name in KINDS for dtype in ("float32", "int32")),
    ("cumsum", "float64"), ("cumprod", "int64"), ("cummax", "uint32"), ("cummin", "float16")])
def test_cumulative(name, dtype):
    for shape, axis in CASES:
        random = np.random.default_rng(0)
        # Whole numbers, whose sums are exact; no long products.
        x = random.integers(0 if dtype == "uint32" else -3, 4, shape)
        x = np.where(random.random(shape) < 0.9, 1, x) if name == "cumprod" else x
        x = x.astype(dtype)
        (found,) = compiled(lambda x, axis=axis: [getattr(tnp, name)(x, axis)], x)
        expected = KINDS[name].accumulate(x.astype(found.dtype), axis=axis, dtype=found.dtype)
        np.testing.assert_allclose(found, expected, rtol=2e-3 if dtype == "float16" else 1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_floats_are_added_in_f32(dtype):
    """Compiled and at once: the true sum rounded, or its neighbour, and what f32 may be off."""
    narrow = as_dtype(dtype).numpy
    x = np.random.default_rng(0).normal(size=(3, 3000)).astype(narrow)
    true = np.cumsum(x.astype(np.float64), 1)
    for found in (*compiled(lambda x: [tnp.cumsum(x, 1)], x), np.asarray(tnp.cumsum(x, 1))):
        assert found.dtype == narrow
        error = np.abs(found.astype(np.float64) - true)
        assert (error <= np.spacing(np.abs(found)).astype(np.float64) * 0.51 + 1e-4).all()


@pytest.mark.parametrize("name", KINDS)
def test_nan_and_infinity_stay(name):
    x = np.random.default_rng(0).normal(size=(2, 40)).astype(np.float32) + 1
    x[0, 17], x[1, 30] = np.nan, -np.inf
    for axis in (0, 1):
        (found,) = compiled(lambda x, axis=axis: [getattr(tnp, name)(x, axis)], x)
        np.testing.assert_allclose(found, KINDS[name].accumulate(x, axis=axis), rtol=1e-5)


def test_zeros_keep_their_signs():
    x = np.full((20,), -0.0, np.float32)
    (found,) = compiled(lambda x: [tnp.cumsum(x)], x)
    assert np.signbit(found).all()


def test_sums_are_as_accurate_as_numpys():
    x = np.random.default_rng(0).normal(size=(1 << 16,)).astype(np.float32)
    exact = np.cumsum(x.astype(np.float64))
    (found,) = compiled(lambda x: [tnp.cumsum(x)], x)
    assert np.abs(found - exact).max() <= np.abs(np.cumsum(x) - exact).max()


@pytest.mark.parametrize("name", KINDS)
def test_gradients(name, agree):
    x = np.random.default_rng(0).normal(size=(2, 20)).astype(np.float32) + 1
    agree(lambda x: [grad(lambda x: tnp.sum(getattr(tnp, name)(x, 1) ** 2))(x)], x, tolerance=1e-3)


def test_a_batch_of_any_size():
    program, _ = trace(lambda x: [tnp.cumsum(x, 1)], [TensorType((Dim.named("n"), 40), F32)])
    run = compile_function(program)
    for n in (0, 1, 5):
        x = np.ones((n, 40), np.float32)
        np.testing.assert_array_equal(run(x)[0], np.cumsum(x, 1))


def test_long_axes_are_one_kernel():
    program, _ = trace(lambda x: [tnp.cumsum(x, 0)], [TensorType((100, 4), F32)])
    (op,) = run_passes(program, Target.host()).ops
    assert [o.name for o in op.regions[0].ops] == ["tfn.cumulative"]
