"""The short way of eager functions: arrays of one float type go straight to NumPy.

The evaluator computes the same, after inferring types and checking constraints: ten times what a
small array costs. Whatever is not plain (a trace, other types, NaN checks, shapes that do not fit)
takes the long way, which also explains what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..ops.host import CHECKS
from ..trace.core import Array
from ..trace.scope import graphs

_PLAIN = (np.dtype(np.float32), np.dtype(np.float64))


def direct(function: Callable[..., Any], *xs: Any) -> Array | None:
    """`function` of the arrays' values, None when it has to be bound as an op.

    `function` must give what the op's evaluation gives, in the operands' type.
    """
    if type(xs[0]) is not Array or graphs() or CHECKS.nans or CHECKS.infs:
        return None
    dtype = xs[0]._data.dtype
    if dtype not in _PLAIN:
        return None
    values = []
    for x in xs:
        if type(x) is not Array or x._data.dtype is not dtype:
            return None
        values.append(x._data)
    try:
        with np.errstate(all="ignore"):
            return Array(np.asarray(function(*values)))
    except ValueError:
        return None


def product(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The matrix product with a matrix `y`: one product, whatever the rank of `x`."""
    if y.ndim != 2 or x.ndim < 2:
        raise ValueError("not a product of matrices")
    if x.ndim == 2:
        return np.matmul(x, y)
    return np.matmul(x.reshape(-1, x.shape[-1]), y).reshape(*x.shape[:-1], y.shape[1])
