"""Order statistics and set-like functions: sort, argsort, top_k, median, quantile, searchsorted.

Concrete arrays go to NumPy; traced ones to `stablehlo.sort`. Functions whose result shape depends
on values (`nonzero`, `unique`) need concrete arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import UnsupportedError, user_location
from ..ir.core import TensorType
from ..ir.dtypes import I1, I32
from ..trace.core import Array, Tracer, bind, trace_region
from ..trace.grad import stop_gradient
from . import elementwise as el
from .creation import iota
from .indexing import take_along_axis
from .manipulation import expand_dims, flip, ravel, reshape, slice_along
from .promote import (
    ArrayLike,
    Value,
    asarray,
    broadcast_to,
    convert,
    dtype_of,
    floating,
    is_concrete,
    normalize_axis,
    to_dtype,
    unify,
)
from .reduction import sum as sum_


def _concrete(x: ArrayLike, what: str) -> np.ndarray:
    x = asarray(x)
    if isinstance(x, Tracer):
        raise UnsupportedError(f"{what} of a traced array has a shape that depends on its values;"
                               " call it outside jit, or use where() with a mask", user_location())
    return x._data


def _sorted_order(x: Value, axis: int) -> Value:
    """Indices (i32) that sort `x` stably along `axis`; NaN last."""
    dtype = dtype_of(x)
    key = TensorType((), dtype)
    place = TensorType((), I32)

    def before(a, b, i, j):
        less = el.less(a, b)
        if dtype.is_inexact:
            less = el.logical_or(less, el.logical_and(el.isnan(b), el.logical_not(el.isnan(a))))
        return [less]

    if dtype is I1:
        return _sorted_order(convert(x, I32), axis)
    region = trace_region(before, [key, key, place, place])
    return bind("stablehlo.sort", x, iota(x.shape, axis), dimension=axis, is_stable=True,
                regions=[region])[1]


def _axis(x: Value, axis: int | None) -> tuple[Value, int]:
    if axis is None:
        return ravel(x), 0
    return x, normalize_axis(axis, len(x.shape))


def argsort(x: ArrayLike, axis: int | None = -1, descending: bool = False, **_) -> Value:
    """Indices (i32) that sort `x` along `axis`, stably; NaN last (first when descending)."""
    x, axis = _axis(asarray(x), axis)
    if not x.shape:
        return Array(np.zeros((), np.int32))
    if descending:
        # Reversed before and after, so that equal elements keep their order.
        order = flip(argsort(flip(x, axis), axis), axis)
        return el.subtract(x.shape[axis] - 1, order)
    if is_concrete(x):
        return Array(np.argsort(x._data, axis=axis, kind="stable").astype(np.int32))
    return _sorted_order(stop_gradient(x), axis)


def sort(x: ArrayLike, axis: int | None = -1, descending: bool = False, **_) -> Value:
    """`x` sorted along `axis`; NaN last (first when descending)."""
    x, axis = _axis(asarray(x), axis)
    if not x.shape:
        return x
    if is_concrete(x):
        result = np.sort(x._data, axis=axis, kind="stable")
        return Array(np.flip(result, axis) if descending else result)
    return take_along_axis(x, argsort(x, axis, descending), axis)


def argpartition(x: ArrayLike, kth: int, axis: int = -1) -> Value:
    """Indices that put the `kth` smallest at its place (a full sort does)."""
    return argsort(x, axis)


def partition(x: ArrayLike, kth: int, axis: int = -1) -> Value:
    """`x` with the `kth` smallest at its place (a full sort does)."""
    return sort(x, axis)


def top_k(x: ArrayLike, k: int) -> tuple[Value, Value]:
    """The `k` largest along the last dim, largest first, and their indices (i32)."""
    x = asarray(x)
    axis = len(x.shape) - 1
    order = slice_along(argsort(x, axis, descending=True), axis, 0, k)
    return take_along_axis(x, order, axis), order


def searchsorted(sorted_: ArrayLike, values: ArrayLike, side: str = "left") -> Value:
    """Where `values` go into the sorted 1-d array: how many elements are before (i32)."""
    line, values = unify(sorted_, values)
    if is_concrete(line) and is_concrete(values):
        found = np.searchsorted(line._data, values._data, "right" if side == "right" else "left")
        return Array(np.asarray(found, np.int32))
    wide = expand_dims(values, len(values.shape))
    compare = el.less if side == "left" else el.less_equal
    return sum_(convert(compare(line, wide), I32), -1)


def digitize(x: ArrayLike, bins: ArrayLike, right: bool = False) -> Value:
    """The bin each element falls into, for increasing bin edges."""
    return searchsorted(bins, x, side="left" if right else "right")


# -- shapes that depend on values -----------------------------------------------------------------

def nonzero(x: ArrayLike) -> tuple[Value, ...]:
    """The indices (i32) of the non-zero elements, one array per dim. Needs a concrete array."""
    return tuple(Array(i.astype(np.int32)) for i in np.nonzero(_concrete(x, "nonzero")))


def argwhere(x: ArrayLike) -> Value:
    """The indices of the non-zero elements, one row each. Needs a concrete array."""
    return Array(np.argwhere(_concrete(x, "argwhere")).astype(np.int32))


def flatnonzero(x: ArrayLike) -> Value:
    """The flat indices of the non-zero elements. Needs a concrete array."""
    return nonzero(ravel(x))[0]


def unique(x: ArrayLike, return_index: bool = False, return_inverse: bool = False,
           return_counts: bool = False, axis: int | None = None):
    """The distinct elements, sorted, and what else was asked for. Needs a concrete array."""
    options: Any = {"return_index": return_index, "return_inverse": return_inverse,
                    "return_counts": return_counts, "axis": axis}
    found = np.unique(_concrete(x, "unique"), **options)
    if not isinstance(found, tuple):
        return Array(found)
    first, *more = found
    return (Array(first), *(Array(m.astype(np.int32)) for m in more))


def bincount(x: ArrayLike, weights: ArrayLike | None = None, minlength: int = 0,
             length: int | None = None) -> Value:
    """How often each of 0, 1, ... occurs. Traced arrays need `length`."""
    x = asarray(x)
    if length is None:
        data = _concrete(x, "bincount")
        length = max(minlength, int(data.max(initial=-1)) + 1)
    ones = Array(np.ones((), np.int32)) if weights is None else asarray(weights)
    zero = broadcast_to(Array(np.zeros((), ones.dtype)), (length,))
    from .indexing import scatter_elements

    return scatter_elements(zero, {0: x}, 0, ones, "add")


def histogram(x: ArrayLike, bins: int | ArrayLike = 10, range=None, weights=None):
    """Counts per bin and the bin edges; the last bin includes its right edge."""
    from .creation import linspace
    from .reduction import max as max_
    from .reduction import min as min_

    x = ravel(floating(x))
    if isinstance(bins, (int, np.integer)):
        low, high = (min_(x), max_(x)) if range is None else range
        edges = linspace(low, high, int(bins) + 1)
    else:
        edges = to_dtype(bins, dtype_of(x))
    count = edges.shape[0] - 1
    place = el.subtract(searchsorted(edges, x, "right"), 1)
    place = el.where(el.equal(x, edges[-1]), count - 1, place)
    inside = el.logical_and(el.greater_equal(x, edges[0]), el.less_equal(x, edges[-1]))
    value = el.where(inside, 1.0 if weights is None else weights, 0.0)
    return bincount(el.clip(place, 0, count - 1), value, length=count), edges


def isin(x: ArrayLike, test: ArrayLike, invert: bool = False) -> Value:
    """True where an element of `x` is one of `test`."""
    from .reduction import any as any_

    x, test = unify(x, test)
    found = any_(el.equal(expand_dims(x, len(x.shape)), ravel(test)), -1)
    return el.logical_not(found) if invert else found


def diff(x: ArrayLike, n: int = 1, axis: int = -1) -> Value:
    """The `n`-th difference of neighbours along `axis`."""
    x = asarray(x)
    axis = normalize_axis(axis, len(x.shape))
    for _ in range(n):
        extent = x.shape[axis]
        after, before = slice_along(x, axis, 1, extent), slice_along(x, axis, 0, extent - 1)
        x = el.not_equal(after, before) if dtype_of(x) is I1 else el.subtract(after, before)
    return x


def trapezoid(y: ArrayLike, x: ArrayLike | None = None, dx: float = 1.0, axis: int = -1) -> Value:
    """Integral by the trapezoidal rule."""
    y = floating(y)
    axis = normalize_axis(axis, len(y.shape))
    extent = y.shape[axis]
    step = asarray(dx if x is None else diff(x))
    if len(step.shape) == 1:
        step = reshape(step, tuple(-1 if d == axis else 1 for d in range(len(y.shape))))
    pair = el.add(slice_along(y, axis, 1, extent), slice_along(y, axis, 0, extent - 1))
    return sum_(el.multiply(el.multiply(pair, step), 0.5), axis)

