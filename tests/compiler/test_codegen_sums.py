"""Sums of columns in compiled code: how exact they are, in every arrangement of dims."""

import numpy as np
import pytest

import tfn.compiler.numpy as tnp
from tfn.compiler.codegen.target import Target
from tfn.compiler.compile import compile_function, run_passes
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dims import Dim
from tfn.compiler.ir.dtypes import as_dtype
from tfn.compiler.ops.reduction import reduce
from tfn.compiler.trace.core import trace
from tfn.compiler.trace.jit import jit

RNG = np.random.default_rng(0)


def program(function, *types):
    return trace(lambda *x: [function(*x)], [TensorType(s, as_dtype(np.dtype(d))) for s, d in types])[0]


@pytest.mark.parametrize(("shape", "dims"), [
    ((8, 112, 112, 16), (0, 1, 2)),
    ((8, 7, 7, 64), (0, 1, 2)),
    ((100_000, 16), (0,)),
    ((300, 4, 300, 8), (0, 2)),
    ((5, 40, 3, 50, 8), (1, 3)),
    ((3, 1, 1, 5), (0, 1, 2)),
    ((256, 5), (0,)),
    ((257, 5), (0,)),
    ((0, 3), (0,)),
], ids=str)
def test_rounding_does_not_grow_with_the_number_of_rows(shape, dims):
    """One running sum of 100,000 numbers is wrong by 5e-6 of a typical sum; NumPy's pairwise is not."""
    x = RNG.normal(size=shape).astype(np.float32)
    expected = x.astype(np.float64).sum(dims)
    (found,) = compile_function(program(lambda x: tnp.sum(x, dims), (shape, "f4")))(x)
    error = np.sqrt(np.mean((found - expected) ** 2)) / (np.sqrt(np.mean(expected ** 2)) or 1)
    assert error < 5e-7


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "u4"])
def test_the_initial_value_counts_once(dtype):
    x = RNG.integers(0, 9, (3, 200, 7)).astype(dtype)
    (found,) = compile_function(program(lambda x: tnp.sum(x, (0, 1)) + x[0, 0], (x.shape, dtype)))(x)
    np.testing.assert_array_equal(found, x.sum((0, 1)) + x[0, 0])


@pytest.mark.parametrize("function", [tnp.max, tnp.min, tnp.prod])
def test_other_reductions_have_no_partial_sums(function):
    x = RNG.normal(size=(2, 130, 6)).astype(np.float32)
    (found,) = compile_function(program(lambda x: function(x, (0, 1)), (x.shape, "f4")))(x)
    np.testing.assert_allclose(found, getattr(np, function.__name__)(x, (0, 1)), rtol=1e-5)


def test_infinities_stay_infinite():
    x = RNG.normal(size=(600, 4)).astype(np.float32)
    x[7, 1], x[9, 2], x[400, 2] = np.inf, np.inf, -np.inf
    (found,) = compile_function(program(lambda x: tnp.sum(x, 0), (x.shape, "f4")))(x)
    assert found[1] == np.inf
    assert np.isnan(found[2])
    assert np.isfinite(found[[0, 3]]).all()


def test_rows_and_columns_may_be_symbolic():
    rows, columns = Dim.named("rows"), Dim.named("columns")
    run = compile_function(program(lambda x: tnp.sum(x, 0), ((rows, columns), "f4")))
    for shape in [(1000, 3), (256, 70), (1, 1), (130, 0)]:
        x = RNG.normal(size=shape).astype(np.float32)
        np.testing.assert_allclose(run(x)[0], x.astype(np.float64).sum(0), rtol=1e-4, atol=1e-5)


def test_several_sums_in_one_program_share_no_memory():
    x = RNG.normal(size=(4, 50, 9)).astype(np.float32)

    def both(x):
        return tnp.concatenate([tnp.sum(x, (0, 1)), tnp.sum(x * x, (0, 1)), tnp.mean(x, (0, 1))])

    (found,) = compile_function(program(both, (x.shape, "f4")))(x)
    wide = x.astype(np.float64)
    expected = np.concatenate([wide.sum((0, 1)), (wide ** 2).sum((0, 1)), wide.mean((0, 1))])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_a_sum_of_columns_is_a_kernel_of_its_own():
    """Under an elementwise consumer it would be computed an element at a time, striding."""
    fused = run_passes(program(lambda x: tnp.exp(tnp.mean(x, 0)), ((50, 8), "f4")), Target.host())
    bodies = [[o.name for o in op.regions[0].ops] for op in fused.ops if op.name == "tfn.kernel"]
    assert [b[-1] for b in bodies] == ["stablehlo.reduce", "stablehlo.exponential"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float8_e5m2"])
@pytest.mark.parametrize("dims", [(0,), (1,), (0, 1)])
def test_sums_of_narrow_floats_round_once(dtype, dims):
    x = np.ones((2000, 3) if 0 in dims else (3, 2000)).astype(as_dtype(dtype).numpy)
    (found,) = compile_function(program(lambda v: reduce(v, dims, "add"), (x.shape, x.dtype)))(x)
    expected = x.astype(np.float64).sum(dims).astype(x.dtype)
    np.testing.assert_array_equal(found, expected)


def test_products_of_narrow_floats_round_once():
    x = (1 + RNG.random((4, 50)) / 16).astype(as_dtype("bfloat16").numpy)
    (found,) = compile_function(program(lambda v: reduce(v, (1,), "multiply"), (x.shape, x.dtype)))(x)
    np.testing.assert_array_equal(found, x.astype(np.float64).prod(1).astype(x.dtype))


@pytest.mark.parametrize(("dims", "rest"), [((1,), (10, 16)), ((1, 2), (7, 9, 32)), ((2,), (3, 50, 8)),
                                            ((1,), (4, 600))], ids=str)
def test_sums_for_each_example_are_one_kernel_for_every_batch(dims, rest):
    def compiled(batch):
        return compile_function(program(lambda x: tnp.sum(x, dims), ((batch, *rest), "f4")))

    x = RNG.standard_normal((600, *rest), np.float32)
    names, found = set(), []
    for batch in (600, 32, 6, 1):
        executable = compiled(batch)
        names |= {k.name for k in executable.plan.kernels()}
        found.append(executable(x[:batch])[0])
    assert len(names) == 1
    np.testing.assert_allclose(found[0], x.astype(np.float64).sum(dims), rtol=1e-4, atol=1e-4)
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0][: len(other)])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("axes", [(0, 1), (1, 2), (0,), (2,), (0, 1, 2)])
def test_reductions_of_narrow_floats_are_rounded_once(axes, dtype):
    """Half a unit in the last place, and what f32 may be off."""
    narrow = as_dtype(dtype).numpy
    x = np.random.default_rng(5).normal(size=(40, 50, 33)).astype(narrow)
    wide = x.astype(np.float64)
    for kind, true in (("add", wide.sum(axes)), ("maximum", wide.max(axes)),
                       ("minimum", wide.min(axes))):
        found = np.asarray(jit(lambda x, kind=kind: reduce(x, axes, kind))(x))
        assert found.dtype == narrow
        error = np.abs(found.astype(np.float64) - true)
        unit = np.spacing(np.abs(found)).astype(np.float64)
        assert (error <= 0.51 * unit + 1e-6 * np.abs(wide).sum(axes)).all()
