"""Running sums, products and extremes along an axis.

A scan is a reduce_window that reaches back to the start; a long axis is scanned in blocks, so that
the work is not quadratic.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..errors import OpError, user_location
from ..ir.dtypes import F32
from ..ops.control import composite
from ..ops.reduction import identity_of, reducer
from ..trace.core import Array, bind
from . import elementwise as el
from .manipulation import concatenate, slice_along
from .promote import (
    ArrayLike,
    Value,
    asarray,
    broadcast_to,
    convert,
    dtype_argument,
    dtype_of,
    is_concrete,
    normalize_axis,
    shape_text,
)
from .reduction import sum_dtype

_SCANS: dict[str, Callable[..., np.ndarray]] = {
    "add": np.add.accumulate, "multiply": np.multiply.accumulate,
    "maximum": np.maximum.accumulate, "minimum": np.minimum.accumulate,
}
"""Kind of scan -> what computes it on concrete arrays."""


def cumsum(x: ArrayLike, axis: int | None = None, dtype=None) -> Value:
    """Running sum along `axis` (of the flattened array by default)."""
    return _sums(x, axis, dtype, "add")


def cumprod(x: ArrayLike, axis: int | None = None, dtype=None) -> Value:
    """Running product along `axis` (of the flattened array by default)."""
    return _sums(x, axis, dtype, "multiply")


def cummax(x: ArrayLike, axis: int | None = None) -> Value:
    """Running maximum along `axis` (of the flattened array by default); NaN stays."""
    return _cumulative(asarray(x), axis, "maximum")


def cummin(x: ArrayLike, axis: int | None = None) -> Value:
    """Running minimum along `axis` (of the flattened array by default); NaN stays."""
    return _cumulative(asarray(x), axis, "minimum")


def cumulative_sum(x: ArrayLike, axis: int | None = None, dtype=None,
                   include_initial: bool = False) -> Value:
    """Running sum along `axis`, which only a 1-d array may leave out.

    `include_initial` puts the sum of no elements, 0, first.
    """
    return _standard(x, axis, dtype, include_initial, "add")


def cumulative_prod(x: ArrayLike, axis: int | None = None, dtype=None,
                    include_initial: bool = False) -> Value:
    """Running product along `axis`; `include_initial` puts the empty product, 1, first."""
    return _standard(x, axis, dtype, include_initial, "multiply")


def nancumsum(x: ArrayLike, axis: int | None = None, dtype=None) -> Value:
    """Running sum with NaN counted as 0."""
    x = asarray(x)
    return cumsum(el.where(el.isnan(x), 0, x), axis, dtype)


def nancumprod(x: ArrayLike, axis: int | None = None, dtype=None) -> Value:
    """Running product with NaN counted as 1."""
    x = asarray(x)
    return cumprod(el.where(el.isnan(x), 1, x), axis, dtype)


def _standard(x: ArrayLike, axis: int | None, dtype, include_initial: bool, kind: str) -> Value:
    x = asarray(x)
    if axis is None and len(x.shape) != 1:
        raise OpError(f"cumulative_sum and cumulative_prod of an array of shape"
                      f" {shape_text(x.shape)} need an axis", user_location())
    axis = normalize_axis(axis or 0, len(x.shape))
    result = _sums(x, axis, dtype, kind)
    if not include_initial:
        return result
    shape = tuple(1 if d == axis else e for d, e in enumerate(x.shape))
    first = broadcast_to(Array(identity_of(kind, dtype_of(result))), shape)
    return concatenate([first, result], axis)


def _sums(x: ArrayLike, axis: int | None, dtype, kind: str) -> Value:
    x = asarray(x)
    wanted = dtype_argument(dtype) if dtype is not None else sum_dtype(dtype_of(x))
    return _cumulative(convert(x, wanted), axis, kind)


def _cumulative(x: Value, axis: int | None, kind: str) -> Value:
    if axis is None:
        x, axis = bind("stablehlo.reshape", x, shape=(x.size,)), 0
    axis = normalize_axis(axis, len(x.shape))
    dtype = dtype_of(x)
    if dtype.is_float and dtype.bits < 32:
        # As sums are: in f32, rounded once.
        return convert(_cumulative(convert(x, F32), axis, kind), dtype)
    if is_concrete(x):
        with np.errstate(all="ignore"):
            return Array(_SCANS[kind](x._data, axis=axis, dtype=x.dtype))
    return composite("tfn.cumulative", lambda x: _scan(x, axis, kind), x, axis=axis, kind=kind)


_DIRECT_WINDOW = 32
"""A longer axis is scanned in blocks: windows of the whole axis cost its length squared."""


def _scan(x: Value, axis: int, kind: str) -> Value:
    """Running combination along `axis` by windows that reach back to the start."""
    length = x.shape[axis]
    if not isinstance(length, int):
        raise OpError(f"a cumulative sum along the symbolic dimension `{length}` is not supported;"
                      " fix its size", user_location())
    if length <= _DIRECT_WINDOW:
        return _window_scan(x, axis, length, kind)
    block = math.isqrt(length - 1) + 1
    count = -(-length // block)
    rank = len(x.shape)
    identity = Array(identity_of(kind, dtype_of(x)))
    high = tuple(count * block - length if d == axis else 0 for d in range(rank))
    padded = bind("stablehlo.pad", x, identity, edge_padding_low=(0,) * rank,
                  edge_padding_high=high, interior_padding=(0,) * rank)
    shape = (*x.shape[:axis], count, block, *x.shape[axis + 1:])
    inner = _scan(bind("stablehlo.reshape", padded, shape=shape), axis + 1, kind)
    totals = slice_along(inner, axis + 1, block - 1, block)
    before = _scan(bind("stablehlo.reshape", totals, shape=shape[:axis + 1] + shape[axis + 2:]),
                   axis, kind)
    low = tuple(1 if d == axis else 0 for d in range(rank))
    before = bind("stablehlo.pad", before, identity, edge_padding_low=low,
                  edge_padding_high=tuple(-v for v in low), interior_padding=(0,) * rank)
    dims = tuple(d if d <= axis else d + 1 for d in range(rank))
    before = bind("stablehlo.broadcast_in_dim", before, shape=shape, broadcast_dimensions=dims)
    combined = bind(f"stablehlo.{kind}", inner, before)
    flat = bind("stablehlo.reshape", combined, shape=padded.shape)
    return slice_along(flat, axis, 0, length)


def _window_scan(x: Value, axis: int, length: int, kind: str) -> Value:
    rank, dtype = len(x.shape), dtype_of(x)
    if length == 0:
        return x
    return bind("stablehlo.reduce_window", x, identity_of(kind, dtype),
                window_dimensions=tuple(length if d == axis else 1 for d in range(rank)),
                window_strides=(1,) * rank, base_dilations=(1,) * rank,
                window_dilations=(1,) * rank,
                padding=tuple((length - 1 if d == axis else 0, 0) for d in range(rank)),
                regions=[reducer(kind, dtype)])
