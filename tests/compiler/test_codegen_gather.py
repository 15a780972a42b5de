"""Gathers that are a kernel alone, against NumPy."""

import itertools

import ml_dtypes
import numpy as np
import pytest

import tfn.compiler.numpy as tnp
from tfn.compiler.compile import compile_function
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dims import Dim
from tfn.compiler.ir.dtypes import F32, I32
from tfn.compiler.ir.structs import GatherDimensionNumbers
from tfn.compiler.trace.core import as_array, bind, trace

rng = np.random.default_rng(0)


def compiled(program, *arrays):
    function, _ = trace(lambda *a: [program(*a)], [as_array(a).type for a in arrays])
    return compile_function(function)(*arrays)[0]


def array(shape, dtype=np.float32):
    if np.dtype(dtype).kind in "iub":
        return rng.integers(0, 2 if np.dtype(dtype).kind == "b" else 100, shape).astype(dtype)
    if np.dtype(dtype).kind == "c":
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


@pytest.mark.parametrize(("shape", "places", "axis"), [
    ((50, 40), (30,), 0), ((50, 40), (3, 10), 0), ((50, 40), (2, 3, 5), 0), ((50, 40), (), 0),
    ((50, 16), (30,), 0), ((50, 17), (30,), 0), ((50, 1), (30,), 0), ((50, 600), (9,), 0),
    ((5, 40), (7,), 1), ((4, 5, 6), (7,), 1), ((4, 5, 6), (7, 2), 2), ((4, 5, 6), (3,), 0),
    ((100,), (9,), 0), ((50_000,), (9,), 0), ((3, 9000), (1000,), 1), ((50, 40), (0,), 0),
    ((50, 0), (3,), 0)], ids=str)
def test_take(shape, places, axis):
    x, i = array(shape), rng.integers(-shape[axis], shape[axis], places).astype(np.int32)
    np.testing.assert_array_equal(compiled(lambda x, i: tnp.take(x, i, axis=axis), x, i),
                                  np.take(x, i, axis=axis))


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn,
                                   np.int8, np.uint64, bool, np.complex64], ids=str)
@pytest.mark.parametrize("shape", [(50, 40), (50, 64), (50,)], ids=str)
def test_dtypes(shape, dtype):
    x, i = array(shape, dtype), rng.integers(0, 50, (30,)).astype(np.int64)
    found = compiled(lambda x, i: tnp.take(x, i, axis=0), x, i)
    assert found.dtype == x.dtype
    assert found.tobytes() == np.take(x, i, axis=0).tobytes()


@pytest.mark.parametrize(
    "dtype", [np.int8, np.uint8, np.int32, np.uint32, np.int64, np.uint64], ids=str)
def test_indices_out_of_bounds_are_clamped(dtype):
    info = np.iinfo(dtype)
    i = np.array([0, info.max, 7, info.min, 8, 9, info.max - 1, 3], dtype)
    x, numbers = array((9, 20)), GatherDimensionNumbers(
        offset_dims=(1,), collapsed_slice_dims=(0,), start_index_map=(0,), index_vector_dim=1)
    found = compiled(lambda x, i: bind("stablehlo.gather", x, i, dimension_numbers=numbers,
                                       slice_sizes=(1, 20)), x, i)
    np.testing.assert_array_equal(found, x[[min(max(int(k), 0), 8) for k in i]])


@pytest.mark.parametrize(("sizes", "offset"), list(itertools.product(
    [(2, 3, 7), (2, 3, 4), (1, 5, 7), (6, 1, 1)], [(1, 2, 3), (0, 1, 2), (0, 1, 3)])), ids=str)
def test_windows(sizes, offset):
    """Windows of three dims at two-dimensional places, wherever their dims are in the result."""
    x, starts = array((6, 5, 7)), rng.integers(-2, 9, (8, 2)).astype(np.int32)
    numbers = GatherDimensionNumbers(offset_dims=offset, start_index_map=(0, 1), index_vector_dim=1)
    found = compiled(lambda x, i: bind("stablehlo.gather", x, i, dimension_numbers=numbers,
                                       slice_sizes=sizes), x, starts)
    batch = next(d for d in range(4) if d not in offset)
    for number, (a, b) in enumerate(starts):
        a, b = min(max(a, 0), 6 - sizes[0]), min(max(b, 0), 5 - sizes[1])
        expected = x[a:a + sizes[0], b:b + sizes[1], :sizes[2]]
        np.testing.assert_array_equal(found.take(number, axis=batch), expected)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_along_an_axis(axis):
    x = array((7, 8, 30))
    i = rng.integers(0, x.shape[axis], tuple(5 if d == axis else e for d, e in enumerate(x.shape)))
    i = i.astype(np.int32)
    np.testing.assert_array_equal(compiled(lambda x, i: tnp.take_along_axis(x, i, axis), x, i),
                                  np.take_along_axis(x, i, axis))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16, np.int8,
                                   bool], ids=str)
@pytest.mark.parametrize(("shape", "count"), [((5, 100), 64), ((3, 4, 300), 77), ((1, 1), 5),
                                              ((2, 4096), 1024), ((3, 40), 7)], ids=str)
def test_many_elements_of_short_rows(shape, count, dtype):
    """With what makes the indices: one kernel."""
    x = array(shape, dtype)
    i = rng.integers(-shape[-1], shape[-1], (*shape[:-1], count)).astype(np.int32)
    function, _ = trace(lambda x, i: [tnp.take_along_axis(x, i, -1)],
                        [as_array(a).type for a in (x, i)])
    executable = compile_function(function)
    assert executable(x, i)[0].tobytes() == np.take_along_axis(x, i, -1).tobytes()
    assert len(executable.plan.kernels()) == 1


def test_elements_picked_out_of_bounds():
    numbers = GatherDimensionNumbers(
        collapsed_slice_dims=(1,), operand_batching_dims=(0,), start_indices_batching_dims=(0,),
        start_index_map=(1,), index_vector_dim=2)
    x, i = array((4, 50)), rng.integers(-100, 100, (4, 40)).astype(np.int64)
    found = compiled(lambda x, i: bind("stablehlo.gather", x, i, dimension_numbers=numbers,
                                       slice_sizes=(1, 1)), x, i)
    np.testing.assert_array_equal(found, np.take_along_axis(x, np.clip(i, 0, 49), 1))


def test_a_large_result():
    """Of more bytes than are kept in the cache, in rows of whole lines and in others."""
    for width in (1024, 1000):
        x, i = array((100, width)), rng.integers(0, 100, 2500).astype(np.int32)
        np.testing.assert_array_equal(compiled(lambda x, i: tnp.take(x, i, axis=0), x, i), x[i])


def test_symbolic_sizes():
    n, v = Dim.named("n"), Dim.named("v")
    function, _ = trace(lambda x, y, i: [tnp.take(x, i, axis=0), tnp.take(y, i, axis=1)],
                        [TensorType((v, 20), F32), TensorType((3, 9), F32), TensorType((n,), I32)])
    executable = compile_function(function)
    for size, count in ((5, 9), (1, 1), (7, 0)):
        x, y, i = array((size, 20)), array((3, 9)), rng.integers(0, size, count).astype(np.int32)
        rows, columns = executable(x, y, i)
        np.testing.assert_array_equal(rows, x[i])
        np.testing.assert_array_equal(columns, y[:, i])
