"""Transposes in compiled code, against NumPy: squares, lines they do not fill, small dims."""

import ml_dtypes
import numpy as np
import pytest

from tfn.compiler import numpy as tnp
from tfn.compiler.codegen.target import Target
from tfn.compiler.compile import compile_function, run_passes
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dims import Dim
from tfn.compiler.ir.dtypes import F32, as_dtype
from tfn.compiler.trace.core import bind, trace

DTYPES = [np.bool_, np.int8, np.uint16, np.float16, ml_dtypes.bfloat16, ml_dtypes.int4, np.float32,
          np.int32, np.float64, np.uint64]
CASES = [
    ((16, 16), (1, 0)), ((64, 48), (1, 0)), ((17, 33), (1, 0)), ((300, 20), (1, 0)),
    ((20, 300), (1, 0)), ((9, 11), (1, 0)), ((5000, 3), (1, 0)), ((3, 5000), (1, 0)),
    ((1, 40), (1, 0)), ((0, 5), (1, 0)), ((2, 130, 7, 19), (0, 2, 1, 3)),
    ((3, 18, 5, 24), (0, 3, 1, 2)),
    ((2, 3, 40, 20), (0, 2, 3, 1)), ((4, 5, 6, 70), (3, 1, 2, 0)), ((18, 4, 20), (2, 1, 0)),
    ((3, 17, 2, 19), (0, 1, 3, 2)), ((19, 1, 21), (2, 1, 0)), ((2, 3, 4, 5, 20), (4, 0, 2, 1, 3)),
]


def transposed(permutation):
    return lambda x: [bind("stablehlo.transpose", x, permutation=permutation)]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: np.dtype(t).name)
def test_transposes(dtype):
    for shape, permutation in CASES:
        x = np.random.default_rng(1).integers(0, 8, shape).astype(dtype)
        program, _ = trace(transposed(permutation), [TensorType(shape, as_dtype(dtype))])
        (found,) = compile_function(program)(x)
        assert found.tobytes() == np.ascontiguousarray(x.transpose(permutation)).tobytes(), shape


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape, permutation", [
    ((2056, 1400), (1, 0)), ((3, 1000, 1024), (0, 2, 1)), ((5, 32, 128, 130), (0, 2, 3, 1))], ids=str)
def test_results_too_large_for_a_cache(dtype, shape, permutation):
    """They are stored past it, in lines; where rows are no multiples of lines, squares overlap."""
    x = np.arange(np.prod(shape), dtype=dtype).reshape(shape)
    function, _ = trace(transposed(permutation), [TensorType(shape, as_dtype(x.dtype))])
    (found,) = compile_function(function)(x)
    assert found.nbytes >= 8 << 20
    np.testing.assert_array_equal(found, x.transpose(permutation))


def test_a_batch_of_any_size():
    program, _ = trace(transposed((0, 2, 1)), [TensorType((Dim.named("n"), 20, 40), F32)])
    run = compile_function(program)
    for n in (0, 1, 5):
        x = np.random.default_rng(n).normal(size=(n, 20, 40)).astype(np.float32)
        np.testing.assert_array_equal(run(x)[0], x.transpose(0, 2, 1))


def test_an_unknown_size_among_those_that_move():
    program, _ = trace(transposed((2, 0, 1)), [TensorType((Dim.named("n"), 20, 40), F32)])
    x = np.random.default_rng(0).normal(size=(3, 20, 40)).astype(np.float32)
    np.testing.assert_array_equal(compile_function(program)(x)[0], x.transpose(2, 0, 1))


def test_transposed_operands_and_results_of_other_ops(agree):
    x = np.random.default_rng(0).normal(size=(2, 40, 24)).astype(np.float32)

    def function(x):
        turned = tnp.transpose(x, (0, 2, 1))
        return [turned * 2 + 1, tnp.transpose(tnp.maximum(x, 0), (2, 1, 0)), tnp.sum(turned, -1)]

    agree(function, x, tolerance=1e-5)


@pytest.mark.parametrize(("permutation", "kernels"), [((0, 2, 1), 2), ((1, 0, 2), 1)])
def test_only_transposes_that_move_the_innermost_dim_are_kernels_alone(permutation, kernels):
    program, _ = trace(lambda x: [tnp.transpose(x, permutation) * 2], [TensorType((8, 40, 24), F32)])
    assert len(run_passes(program, Target.host()).ops) == kernels
