"""Order: sort, argsort, top_k, partition, searchsorted; places of non-zero elements; differences.

Concrete arrays go to NumPy; traced ones to `stablehlo.sort`. A function whose result shape depends on
values (`nonzero`) needs a concrete array, or the `size` of its result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import OpError, UnsupportedError, user_location
from ..ir.core import TensorType
from ..ir.dtypes import I1, I32
from ..trace.core import Array, Tracer, bind, trace_region
from ..trace.grad import stop_gradient
from . import elementwise as el
from .creation import iota
from .indexing import take_along_axis
from .manipulation import concatenate, expand_dims, flip, ravel, reshape, slice_along, stack
from .padding import pad
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
    result_type,
    unify,
)
from .reduction import sum as sum_


def concrete(x: ArrayLike, what: str) -> np.ndarray:
    """The data of a concrete array; `UnsupportedError` for a traced one."""
    x = asarray(x)
    if isinstance(x, Tracer):
        raise UnsupportedError(f"{what} of a traced array has a shape that depends on its values;"
                               " call it outside jit, give `size`, or use where() with a mask",
                               user_location())
    return x._data


def _sorted_order(x: Value, axis: int, descending: bool) -> Value:
    """Indices (i32) that sort `x` stably along `axis`; NaN last, first when descending."""
    dtype = dtype_of(x)
    if dtype is I1:
        return _sorted_order(convert(x, I32), axis, descending)
    key = TensorType((), dtype)
    place = TensorType((), I32)
    options: dict[str, Any] = {"comparison_direction": "GT" if descending else "LT"}
    if dtype.is_float:
        options["compare_type"] = "TOTALORDER"

    def before(a, b, i, j):
        return [bind("stablehlo.compare", _ordered(a), _ordered(b), **options)]

    region = trace_region(before, [key, key, place, place])
    return bind("stablehlo.sort", x, iota(x.shape, axis), dimension=axis, is_stable=True,
                regions=[region])[1]


def _ordered(x: Value) -> Value:
    """`x` with one zero and one NaN, so that the total order of floats is that of numbers."""
    if not dtype_of(x).is_float:
        return x
    zero, nan = (np.asarray(v, dtype_of(x).numpy) for v in (0, np.nan))
    return el.where(el.isnan(x), nan, el.where(el.equal(x, zero), zero, x))


def _axis(x: Value, axis: int | None) -> tuple[Value, int]:
    if axis is None:
        return ravel(x), 0
    return x, normalize_axis(axis, len(x.shape))


def argsort(x: ArrayLike, axis: int | None = -1, descending: bool = False, stable: bool = True,
            kind: str | None = None) -> Value:
    """Indices (i32) that sort `x` along `axis`; NaN last (first when descending).

    The sort is always stable, whatever `stable` and NumPy's `kind` ask for.
    """
    x, axis = _axis(asarray(x), axis)
    if not x.shape:
        return Array(np.zeros((), np.int32))
    if descending and (is_concrete(x) or dtype_of(x).kind == "complex"):
        # Reversed before and after, so that equal elements keep their order.
        order = flip(argsort(flip(x, axis), axis), axis)
        return el.subtract(x.shape[axis] - 1, order)
    if is_concrete(x):
        return Array(np.argsort(x._data, axis=axis, kind="stable").astype(np.int32))
    x = stop_gradient(x)
    if dtype_of(x).kind == "complex":
        return lexsort((el.imag(x), el.real(x)), axis)
    return _sorted_order(x, axis, descending)


def sort(x: ArrayLike, axis: int | None = -1, descending: bool = False, stable: bool = True,
         kind: str | None = None) -> Value:
    """`x` sorted along `axis`, stably; NaN last (first when descending)."""
    x, axis = _axis(asarray(x), axis)
    if not x.shape:
        return x
    if is_concrete(x):
        result = np.sort(x._data, axis=axis, kind="stable")
        return Array(np.flip(result, axis) if descending else result)
    return take_along_axis(x, argsort(x, axis, descending), axis)


def sort_complex(x: ArrayLike) -> Value:
    """The elements along the last dim as complex numbers, sorted by real part, then imaginary part."""
    x = asarray(x)
    return sort(convert(x, result_type(x, 0j)))


def argpartition(x: ArrayLike, kth: int, axis: int = -1) -> Value:
    """Indices that put the `kth` smallest at its place (a full sort does)."""
    return argsort(x, axis)


def partition(x: ArrayLike, kth: int, axis: int = -1) -> Value:
    """`x` with the `kth` smallest at its place (a full sort does)."""
    return sort(x, axis)


def lexsort(keys: Sequence[ArrayLike], axis: int = -1) -> Value:
    """Indices that sort by the last key, equal elements by the one before it, and so on."""
    first, *rest = [asarray(k) for k in keys]
    order = argsort(first, axis)
    for key in rest:
        order = take_along_axis(order, argsort(take_along_axis(key, order, axis), axis), axis)
    return order


def top_k(x: ArrayLike, k: int, axis: int = -1, largest: bool = True) -> tuple[Value, Value]:
    """The `k` largest (or smallest) along `axis`, the most extreme first, and their indices (i32)."""
    x = asarray(x)
    axis = normalize_axis(axis, len(x.shape))
    order = slice_along(argsort(x, axis, descending=largest), axis, 0, k)
    return take_along_axis(x, order, axis), order


def searchsorted(sorted_: ArrayLike, values: ArrayLike, side: str = "left",
                 sorter: ArrayLike | None = None) -> Value:
    """Where `values` go into the sorted 1-d array: how many elements are before (i32).

    `sorter` holds the indices that sort the array. NaN is larger than every number.
    """
    line, values = unify(sorted_, values)
    if sorter is not None:
        line = take_along_axis(line, sorter, 0)
    if is_concrete(line) and is_concrete(values):
        found = np.searchsorted(line._data, values._data, "right" if side == "right" else "left")
        return Array(np.asarray(found, np.int32))
    wide = expand_dims(values, len(values.shape))
    before = el.less(line, wide) if side == "left" else el.less_equal(line, wide)
    if dtype_of(line).is_inexact:
        # NaN is after every number, and beside NaN.
        after = el.isnan(wide) if side == "right" else el.logical_and(
            el.isnan(wide), el.logical_not(el.isnan(line)))
        before = el.logical_or(before, after)
    return sum_(convert(before, I32), -1)


def digitize(x: ArrayLike, bins: ArrayLike, right: bool = False) -> Value:
    """The bin each element falls into, for increasing bin edges."""
    return searchsorted(bins, x, side="left" if right else "right")


# -- shapes that depend on values -----------------------------------------------------------------

def nonzero(x: ArrayLike, size: int | None = None, fill_value: int = 0) -> tuple[Value, ...]:
    """The indices (i32) of the non-zero elements, one array per dim.

    With `size`, the first `size` of them, and `fill_value` where there are fewer: that works on
    traced arrays, too.
    """
    x = asarray(x)
    if not x.shape:
        raise OpError("nonzero needs at least one dim; use atleast_1d first", user_location())
    if size is None:
        return tuple(Array(i.astype(np.int32)) for i in np.nonzero(concrete(x, "nonzero")))
    from .statistics import unravel_index

    mask = ravel(el.truth(x))
    count = sum_(convert(mask, I32))
    # A stable sort puts the places of the non-zero elements first, in order.
    places = argsort(el.logical_not(mask))
    places = slice_along(places, 0, 0, min(size, mask.shape[0]))
    places = pad(places, (0, size - places.shape[0]))
    inside = el.less(iota((size,), 0), count)
    return tuple(el.where(inside, i, fill_value) for i in unravel_index(places, x.shape))


def argwhere(x: ArrayLike, size: int | None = None, fill_value: int = 0) -> Value:
    """The indices of the non-zero elements, one row each; `size` as in `nonzero`."""
    x = asarray(x)
    if not x.shape:
        return Array(np.argwhere(concrete(x, "argwhere")).astype(np.int32))
    return stack(nonzero(x, size, fill_value), -1)


def flatnonzero(x: ArrayLike, size: int | None = None, fill_value: int = 0) -> Value:
    """The flat indices of the non-zero elements; `size` as in `nonzero`."""
    return nonzero(ravel(x), size, fill_value)[0]


# -- differences -----------------------------------------------------------------------------------

def diff(x: ArrayLike, n: int = 1, axis: int = -1, prepend: ArrayLike | None = None,
         append: ArrayLike | None = None) -> Value:
    """The `n`-th difference of neighbours along `axis`, of `x` between `prepend` and `append`."""
    x = asarray(x)
    if n < 0:
        raise OpError(f"diff needs n >= 0, got {n}", user_location())
    axis = normalize_axis(axis, len(x.shape))
    one = tuple(1 if d == axis else e for d, e in enumerate(x.shape))
    parts = [broadcast_to(p, one) if not np.shape(p) else p
             for p in (prepend, x, append) if p is not None]
    x = concatenate(parts, axis) if n else x
    for _ in range(n):
        extent = x.shape[axis]
        if extent == 0:
            break
        after, before = slice_along(x, axis, 1, extent), slice_along(x, axis, 0, extent - 1)
        x = el.not_equal(after, before) if dtype_of(x) is I1 else el.subtract(after, before)
    return x


def trapezoid(y: ArrayLike, x: ArrayLike | None = None, dx: float = 1.0, axis: int = -1) -> Value:
    """Integral by the trapezoidal rule."""
    y = floating(y)
    axis = normalize_axis(axis, len(y.shape))
    extent = y.shape[axis]
    step: Value = dx
    if x is not None:
        x = asarray(x)
        step = diff(x, axis=axis if len(x.shape) > 1 else -1)
        if len(x.shape) == 1:
            step = reshape(step, tuple(-1 if d == axis else 1 for d in range(len(y.shape))))
    pair = el.add(slice_along(y, axis, 1, extent), slice_along(y, axis, 0, extent - 1))
    return sum_(el.multiply(el.multiply(pair, step), 0.5), axis)

