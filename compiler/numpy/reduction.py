"""Reductions over axes: sums, means, extremes, their places, and the NaN-ignoring ones.

Sums of booleans and small integers are i32 (u32 for unsigned ones); means are inexact. A mean over
a symbolic dim divides by its run-time size.
"""

from __future__ import annotations

import math

import numpy as np

from ..errors import OpError, user_location
from ..ir.dims import Dim
from ..ir.dtypes import C64, F32, I1, I32, UI32, DType
from ..ops.reduction import arg_extreme, identity_of, reduce
from ..trace.core import Array, bind, current_graph
from ..trace.grad import stop_gradient
from . import direct
from . import elementwise as el
from .promote import (
    ArrayLike,
    Value,
    asarray,
    broadcast_to,
    convert,
    dtype_argument,
    dtype_of,
    float_type,
    floating,
    normalize_axes,
    normalize_axis,
    result_type,
    shape_text,
    to_dtype,
)


def _keep(x: Value, axes: tuple[int, ...], result: Value, keepdims: bool) -> Value:
    if not keepdims or not axes:
        return result
    shape = tuple(1 if d in axes else e for d, e in enumerate(x.shape))
    return bind("stablehlo.reshape", result, shape=shape)


def _reduce(x: Value, axis, keepdims: bool, kind: str) -> Value:
    axes = normalize_axes(axis, len(x.shape))
    return _keep(x, axes, reduce(x, axes, kind), keepdims)


def _masked(x: Value, where, kind: str) -> Value:
    """`x` with the elements outside the mask replaced by the identity of `kind`."""
    return x if where is None else el.where(where, x, Array(identity_of(kind, dtype_of(x))))


def sum_dtype(dtype: DType) -> DType:
    """The element type of a sum: integers have at least 32 bits."""
    if dtype.kind in ("bool", "int"):
        return I32 if dtype.bits < 32 else dtype
    return UI32 if dtype.kind == "uint" and dtype.bits < 32 else dtype


def _accumulate(x, axis, dtype, keepdims, initial, where, kind) -> Value:
    x = asarray(x)
    x = convert(x, dtype_argument(dtype) if dtype is not None else sum_dtype(dtype_of(x)))
    result = _reduce(_masked(x, where, kind), axis, keepdims, kind)
    if initial is None:
        return result
    return el.add(result, initial) if kind == "add" else el.multiply(result, initial)


_sum = direct.reduction("add", "f")
_max = direct.reduction("maximum", "fiu")
_min = direct.reduction("minimum", "fiu")


def sum(x: ArrayLike, axis=None, dtype=None, keepdims: bool = False, initial=None,
        where=None) -> Value:
    """Sum over `axis` (an int, several, or None for all)."""
    result = _sum(x, axis, keepdims) if dtype is initial is where is None else None
    if result is not None:
        return result
    return _accumulate(x, axis, dtype, keepdims, initial, where, "add")


def prod(x: ArrayLike, axis=None, dtype=None, keepdims: bool = False, initial=None,
         where=None) -> Value:
    """Product over `axis`."""
    return _accumulate(x, axis, dtype, keepdims, initial, where, "multiply")


def _extreme(x, axis, keepdims, initial, where, kind) -> Value:
    x = asarray(x)
    axes = normalize_axes(axis, len(x.shape))
    if 0 in (x.shape[a] for a in axes):
        if initial is None:
            raise OpError(f"the {kind} of no elements (shape {shape_text(x.shape)}, axis {axis})"
                          " needs `initial`", user_location())
        rest = tuple(e for d, e in enumerate(x.shape) if d not in axes)
        return _keep(x, axes, broadcast_to(to_dtype(initial, dtype_of(x)), rest), keepdims)
    result = _reduce(_masked(x, where, kind), axis, keepdims, kind)
    if initial is None:
        return result
    return (el.maximum if kind == "maximum" else el.minimum)(result, initial)


def max(x: ArrayLike, axis=None, keepdims: bool = False, initial=None, where=None) -> Value:
    """Largest element over `axis`; NaN if there is one. No elements need `initial`."""
    result = _max(x, axis, keepdims) if initial is where is None else None
    return result if result is not None else _extreme(x, axis, keepdims, initial, where, "maximum")


def min(x: ArrayLike, axis=None, keepdims: bool = False, initial=None, where=None) -> Value:
    """Smallest element over `axis`; NaN if there is one. No elements need `initial`."""
    result = _min(x, axis, keepdims) if initial is where is None else None
    return result if result is not None else _extreme(x, axis, keepdims, initial, where, "minimum")


amax, amin = max, min


def ptp(x: ArrayLike, axis=None, keepdims: bool = False) -> Value:
    """The largest element minus the smallest."""
    return el.subtract(max(x, axis, keepdims), min(x, axis, keepdims))


def all(x: ArrayLike, axis=None, keepdims: bool = False, where=None) -> Value:
    """True where every element over `axis` (and in the mask `where`) is non-zero."""
    x = el.truth(x) if where is None else el.logical_or(x, el.logical_not(where))
    return _reduce(x, axis, keepdims, "and")


def any(x: ArrayLike, axis=None, keepdims: bool = False, where=None) -> Value:
    """True where an element over `axis` (and in the mask `where`) is non-zero."""
    x = el.truth(x) if where is None else el.logical_and(x, where)
    return _reduce(x, axis, keepdims, "or")


def count_nonzero(x: ArrayLike, axis=None, keepdims: bool = False) -> Value:
    """The number of non-zero elements over `axis`, as i32."""
    return sum(convert(el.truth(x), I32), axis, keepdims=keepdims)


def _count(x: Value, axes: tuple[int, ...], dtype: DType):
    """The number of elements over `axes`: a Python int, or a scalar when a dim is symbolic."""
    static = math.prod(e for a in axes if isinstance(e := x.shape[a], int))
    total: Value | int = static
    for a in axes:
        if isinstance(x.shape[a], Dim):
            size = bind("stablehlo.get_dimension_size", x, dimension=a)
            total = el.multiply(convert(size, dtype), total)
    return total


def _mean(x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
    total = _keep(x, axes, reduce(x, axes, "add"), keepdims)
    return el.divide(total, _count(x, axes, dtype_of(x)))


def _computed(x: ArrayLike, dtype) -> tuple[Value, DType]:
    """`x` in the type a mean is computed in, and the type of the result."""
    x = asarray(x)
    target = dtype_argument(dtype) if dtype is not None else float_type(dtype_of(x))
    computed = F32 if target.is_float and target.bits == 16 else float_type(target)
    return convert(x, computed), target


def mean(x: ArrayLike, axis=None, dtype=None, keepdims: bool = False, where=None) -> Value:
    """Arithmetic mean over `axis`; 16-bit floats are summed in f32."""
    x, target = _computed(x, dtype)
    axes = normalize_axes(axis, len(x.shape))
    found = _mean(x, axes, keepdims) if where is None else _masked_mean(x, axes, keepdims, where)
    return convert(found, target)


def _chosen(x: Value, axes: tuple[int, ...], keepdims: bool, where: ArrayLike, dtype: DType) -> Value:
    """The number of elements over `axes` that are in the mask."""
    weight = broadcast_to(convert(el.truth(where), dtype), x.shape)
    return _keep(x, axes, reduce(weight, axes, "add"), keepdims)


def _masked_mean(x: Value, axes: tuple[int, ...], keepdims: bool, where: ArrayLike) -> Value:
    total = _keep(x, axes, reduce(_masked(x, where, "add"), axes, "add"), keepdims)
    return el.divide(total, _chosen(x, axes, keepdims, where, dtype_of(x)))


def var(x: ArrayLike, axis=None, dtype=None, ddof: float = 0, keepdims: bool = False,
        correction: float | None = None, where=None, mean: ArrayLike | None = None) -> Value:
    """Mean squared distance from the mean over `axis`, of the elements in the mask `where`.

    `correction` (or `ddof`, NumPy's name for it) is subtracted from the count. `mean`: the mean with
    its dims kept, when it is known.
    """
    ddof = ddof if correction is None else correction
    x, target = _computed(x, dtype)
    axes = normalize_axes(axis, len(x.shape))
    if mean is None:
        mean = _mean(x, axes, True) if where is None else _masked_mean(x, axes, True, where)
    distance = el.subtract(x, mean)
    if dtype_of(x).kind == "complex":
        distance = el.absolute(distance)
        target = F32 if target is C64 else dtype_of(distance)
    if where is not None:
        distance = el.where(where, distance, 0)
    squared = _keep(x, axes, reduce(el.square(distance), axes, "add"), keepdims)
    count = _count(x, axes, dtype_of(distance)) if where is None else _chosen(
        x, axes, keepdims, where, dtype_of(distance))
    return convert(el.divide(squared, count - ddof if ddof else count), target)


def std(x: ArrayLike, axis=None, dtype=None, ddof: float = 0, keepdims: bool = False,
        correction: float | None = None, where=None, mean: ArrayLike | None = None) -> Value:
    """Square root of the variance."""
    return el.sqrt(var(x, axis, dtype, ddof, keepdims, correction, where, mean))


def average(x: ArrayLike, axis=None, weights: ArrayLike | None = None, returned: bool = False,
            keepdims: bool = False):
    """Mean of `x` weighted by `weights` (the shape of `x`, or 1-d along one axis)."""
    from .manipulation import expand_dims

    if weights is None:
        result = mean(x, axis, keepdims=keepdims)
        x = asarray(x)
        total = el.multiply(el.add(result * 0, 1),
                            _count(x, normalize_axes(axis, len(x.shape)), dtype_of(result)))
        return (result, total) if returned else result
    dtype = float_type(result_type(x, weights))
    x, w = to_dtype(x, dtype), to_dtype(weights, dtype)
    if w.shape != x.shape:
        at = normalize_axis(axis, len(x.shape))
        others = [d for d in range(len(x.shape)) if d != at]
        w = broadcast_to(expand_dims(w, others), x.shape)
    total = sum(w, axis, keepdims=keepdims)
    result = el.divide(sum(el.multiply(x, w), axis, keepdims=keepdims), total)
    return (result, total) if returned else result


def logsumexp(x: ArrayLike, axis=None, keepdims: bool = False) -> Value:
    """log(sum(e**x)) over `axis`, without overflow."""
    x = floating(x)
    axes = normalize_axes(axis, len(x.shape))
    peak = stop_gradient(_keep(x, axes, reduce(x, axes, "maximum"), True))
    # All -inf (or a +inf): subtracting an infinite peak would make NaN.
    peak = el.where(el.isfinite(peak), peak, 0)
    total = _keep(x, axes, reduce(el.exp(el.subtract(x, peak)), axes, "add"), True)
    result = el.add(el.log(total), peak)
    if keepdims or not axes:
        return result
    shape = tuple(e for d, e in enumerate(x.shape) if d not in axes)
    return bind("stablehlo.reshape", result, shape=shape)


def _arg(x: ArrayLike, axis, keepdims: bool, kind: str) -> Value:
    x = asarray(x)
    rank = len(x.shape)
    if dtype_of(x) is I1:
        x = convert(x, I32)
    flat = x if axis is not None else bind("stablehlo.reshape", x, shape=(x.size,))
    at = 0 if axis is None else normalize_axis(axis, rank)
    if flat.shape[at] == 0:
        raise OpError(f"the arg{kind[:3]} of no elements (shape {x.shape})", user_location())
    if isinstance(flat, Array) and current_graph() is None:
        index = (np.argmax if kind == "maximum" else np.argmin)(flat._data, axis=at)
        index = Array(np.asarray(index, np.int32))
    else:
        index = arg_extreme(stop_gradient(flat), at, kind, I32)[1]
    axes = tuple(range(rank)) if axis is None else (at,)
    return _keep(x, axes, index, keepdims)


def argmax(x: ArrayLike, axis: int | None = None, keepdims: bool = False) -> Value:
    """Index (i32) of the first largest element; of the first NaN when there is one."""
    return _arg(x, axis, keepdims, "maximum")


def argmin(x: ArrayLike, axis: int | None = None, keepdims: bool = False) -> Value:
    """Index (i32) of the first smallest element; of the first NaN when there is one."""
    return _arg(x, axis, keepdims, "minimum")


# -- NaN-ignoring ---------------------------------------------------------------------------------

def _numbers(x: Value, where: ArrayLike | None) -> Value:
    """The mask of the elements that are not NaN and in the mask `where`."""
    valid = el.logical_not(el.isnan(x))
    return valid if where is None else el.logical_and(valid, where)


def nansum(x: ArrayLike, axis=None, dtype=None, keepdims: bool = False, initial=None,
           where=None) -> Value:
    """Sum of the elements that are not NaN."""
    x = asarray(x)
    return sum(x, axis, dtype, keepdims, initial, _numbers(x, where))


def nanprod(x: ArrayLike, axis=None, dtype=None, keepdims: bool = False, initial=None,
            where=None) -> Value:
    """Product of the elements that are not NaN."""
    x = asarray(x)
    return prod(x, axis, dtype, keepdims, initial, _numbers(x, where))


def nanmean(x: ArrayLike, axis=None, dtype=None, keepdims: bool = False, where=None) -> Value:
    """Mean of the elements that are not NaN."""
    x = asarray(x)
    return mean(x, axis, dtype, keepdims, _numbers(x, where))


def nanvar(x: ArrayLike, axis=None, dtype=None, ddof: float = 0, keepdims: bool = False,
           where=None, mean: ArrayLike | None = None) -> Value:
    """Variance of the elements that are not NaN; NaN for at most `ddof` of them."""
    x = floating(x)
    valid = _numbers(x, where)
    found = var(x, axis, dtype, ddof, keepdims, None, valid, mean)
    count = sum(convert(broadcast_to(valid, x.shape), I32), axis, keepdims=keepdims)
    return el.where(el.greater(count, ddof), found, math.nan)


def nanstd(x: ArrayLike, axis=None, dtype=None, ddof: float = 0, keepdims: bool = False,
           where=None, mean: ArrayLike | None = None) -> Value:
    """Standard deviation of the elements that are not NaN."""
    return el.sqrt(nanvar(x, axis, dtype, ddof, keepdims, where, mean))


def _nan_extreme(x, axis, keepdims, initial, where, kind):
    x = asarray(x)
    if not dtype_of(x).is_float:
        return _extreme(x, axis, keepdims, initial, where, kind)
    valid = _numbers(x, where)
    result = _extreme(x, axis, keepdims, initial, valid, kind)
    return result if initial is not None else el.where(any(valid, axis, keepdims), result, math.nan)


def nanmax(x: ArrayLike, axis=None, keepdims: bool = False, initial=None, where=None) -> Value:
    """Largest element that is not NaN; NaN when all are."""
    return _nan_extreme(x, axis, keepdims, initial, where, "maximum")


def nanmin(x: ArrayLike, axis=None, keepdims: bool = False, initial=None, where=None) -> Value:
    """Smallest element that is not NaN; NaN when all are."""
    return _nan_extreme(x, axis, keepdims, initial, where, "minimum")


def nanargmax(x: ArrayLike, axis: int | None = None, keepdims: bool = False) -> Value:
    """Index of the largest element that is not NaN."""
    x = asarray(x)
    return argmax(el.where(el.isnan(x), -math.inf, x) if dtype_of(x).is_float else x,
                  axis, keepdims)


def nanargmin(x: ArrayLike, axis: int | None = None, keepdims: bool = False) -> Value:
    """Index of the smallest element that is not NaN."""
    x = asarray(x)
    return argmin(el.where(el.isnan(x), math.inf, x) if dtype_of(x).is_float else x,
                  axis, keepdims)
