"""Concatenations in compiled code, of long parts, short ones and computed ones, against NumPy."""

import numpy as np
import pytest

from tfn.compiler import numpy as tnp
from tfn.compiler.compile import compile_function
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dtypes import as_dtype
from tfn.compiler.trace.core import trace


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8, np.bool_], ids=lambda t: t.__name__)
@pytest.mark.parametrize(("shapes", "axis"), [
    (((3, 20), (3, 30)), 1), (((3, 5), (3, 30)), 1), (((4, 20, 3), (4, 16, 3), (4, 17, 3)), 1),
    (((20, 3), (30, 3)), 0), (((3, 0), (3, 30)), 1), (((2, 1, 40), (2, 1, 40)), 1),
    (((2, 3, 17),) * 20, 2)])
def test_concatenations(shapes, axis, dtype):
    random = np.random.default_rng(0)
    arrays = [random.integers(0, 2, s).astype(dtype) for s in shapes]
    program, _ = trace(lambda first, *rest: [tnp.concatenate(
        [*rest, tnp.logical_not(first).astype(dtype)], axis)],
        [TensorType(a.shape, as_dtype(a.dtype)) for a in arrays])
    (found,) = compile_function(program)(*arrays)
    expected = np.concatenate([*arrays[1:], np.logical_not(arrays[0]).astype(dtype)], axis)
    np.testing.assert_array_equal(found, expected)
