"""Kernels of rows: quotients by one number per row, maxima and minima."""

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


@pytest.mark.parametrize("name, kind", [("max", np.maximum), ("min", np.minimum)])
@pytest.mark.parametrize("axis", [None, 1])
def test_extremes_with_nan_infinities_and_zeros_of_both_signs(name, kind, axis):
    """Wherever in a row they are; -0 is below 0."""
    rng = np.random.default_rng(6)
    sign = -1 if name == "max" else 1
    for special in ([], [np.nan], [-np.nan], [np.inf], [-np.inf], [0.0], [-0.0], [0.0, -0.0],
                    [-0.0, 0.0, np.nan]):
        for length in (1, 7, 40, 333):
            x = (sign * rng.uniform(0.5, 2, (3, max(length, len(special))))).astype(np.float32)
            x[1, rng.permutation(x.shape[1])[:len(special)]] = special
            function, _ = trace(lambda x: [getattr(tnp, name)(x, axis=axis)],
                                [TensorType(x.shape, F32)])
            (found,) = compile_function(function)(x)
            # Zeros in the order of their signs, which NumPy leaves open.
            shifted = np.where(x == 0, np.copysign(np.float32(1e-30), x), x)
            expected = kind.reduce(shifted, axis=axis)
            tiny = np.abs(expected) == np.float32(1e-30)
            np.testing.assert_array_equal(found, np.where(tiny, 0, expected))
            np.testing.assert_array_equal(np.signbit(found)[tiny], np.signbit(expected)[tiny])
