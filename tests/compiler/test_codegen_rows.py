"""Kernels of rows: quotients by one number per row."""

import numpy as np
import pytest

import tfn.compiler.numpy as tnp
from tfn.compiler.compile import compile_function
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dtypes import F32
from tfn.compiler.trace.core import trace


@pytest.mark.filterwarnings("ignore")
def test_quotients_by_one_number_per_row_are_those_of_a_division():
    """Also by numbers whose bits are all ones, and by those that are too large, too small or none."""
    rng = np.random.default_rng(5)
    ones = np.uint32(0x3F7FFFFF).view(np.float32)
    divisors = np.float32([ones, 4 * ones, 1, 3, 0.1, 1e-45, 1e-39, 2e-38, 1e-20, 1e20, 3e38, np.inf,
                           0.0, np.nan, -3, *rng.uniform(0.5, 2, 500)])
    x = rng.standard_normal((len(divisors), 300)).astype(np.float32)
    x[:, :8] = np.float32([0, -0.0, np.inf, -np.inf, np.nan, 1e30, -1e-20, 3e38])
    spread = np.repeat(divisors[:, None], 300, axis=1)
    function, _ = trace(lambda x, y: [x / tnp.max(y, axis=1, keepdims=True)],
                        [TensorType(x.shape, F32)] * 2)
    (found,) = compile_function(function)(x, spread)
    expected = x / divisors[:, None]
    np.testing.assert_array_equal(found, expected)
    known = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(found)[known], np.signbit(expected)[known])
