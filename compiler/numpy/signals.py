"""Functions of sampled signals: convolution, differences, derivatives, phases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import OpError, user_location
from ..trace.core import Array
from . import elementwise as el
from .cumulative import cumsum
from .linear import matmul
from .manipulation import concatenate, flip, ravel, reshape, slice_along
from .padding import pad
from .promote import (
    ArrayLike,
    Value,
    asarray,
    convert,
    dtype_of,
    floating,
    is_concrete,
    normalize_axes,
    normalize_axis,
    shape_text,
    to_dtype,
    unify,
)
from .sorting import concrete, diff

_MODES = ("valid", "same", "full")


def _lines(x: ArrayLike, y: ArrayLike, mode: str, name: str) -> list[Value]:
    """Two signals in their common type; what is wrong with them as an error."""
    a, b = unify(x, y)
    if mode not in _MODES:
        raise OpError(f"{name} mode {mode!r} is not one of {', '.join(_MODES)}", user_location())
    if len(a.shape) != 1 or len(b.shape) != 1 or 0 in a.shape + b.shape:
        raise OpError(f"{name} needs 1-d arrays with elements, got {shape_text(a.shape)} and"
                      f" {shape_text(b.shape)}", user_location())
    return [a, b]


def correlate(x: ArrayLike, y: ArrayLike, mode: str = "valid") -> Value:
    """Sums of products of two 1-d arrays at every shift: "valid", "same" or "full" overlap."""
    from .indexing import take

    x, y = _lines(x, y, mode, "correlate")
    n, m = x.shape[0], y.shape[0]
    if m > n:
        return flip(el.conj(correlate(y, x, mode)), 0)
    if is_concrete(x) and is_concrete(y) and x.dtype.type.__module__ == "numpy":
        run: Any = np.correlate
        return Array(run(x._data, y._data, mode))
    low = {"valid": 0, "same": m // 2, "full": m - 1}[mode]
    high = {"valid": 0, "same": m - 1 - m // 2, "full": m - 1}[mode]
    wide = pad(x, ((low, high),))
    count = n + low + high - m + 1
    windows = take(wide, np.arange(count)[:, None] + np.arange(m)[None, :], 0)
    return matmul(windows, el.conj(y))


def convolve(x: ArrayLike, y: ArrayLike, mode: str = "full") -> Value:
    """The convolution of two 1-d arrays where they overlap at all ("full"), wholly ("valid"), or
    the middle of it as long as the longer array ("same")."""
    x, y = _lines(x, y, mode, "convolve")
    if y.shape[0] > x.shape[0]:
        x, y = y, x
    return correlate(x, flip(el.conj(y), 0), mode)


def ediff1d(x: ArrayLike, to_end: ArrayLike | None = None,
            to_begin: ArrayLike | None = None) -> Value:
    """The differences of neighbours of the flattened array, between `to_begin` and `to_end`."""
    x = ravel(x)
    ends = [None if e is None else ravel(to_dtype(e, dtype_of(x))) for e in (to_begin, to_end)]
    return concatenate([p for p in (ends[0], diff(x), ends[1]) if p is not None])


def trim_zeros(x: ArrayLike, trim: str = "fb") -> Value:
    """A concrete 1-d array without its zeros at the front ("f"), the back ("b") or both."""
    x = asarray(x)
    if len(x.shape) != 1:
        raise OpError(f"trim_zeros needs a 1-d array, got {shape_text(x.shape)}", user_location())
    places = np.flatnonzero(concrete(x, "trim_zeros"))
    if not places.size:
        return x[:0]
    first = int(places[0]) if "f" in trim.lower() else 0
    return x[first:int(places[-1]) + 1 if "b" in trim.lower() else None]


def unwrap(x: ArrayLike, discont: float | None = None, axis: int = -1, *,
           period: float = 2 * math.pi) -> Value:
    """`x` with multiples of `period` added, so that no step along `axis` is above half a period.

    Steps below `discont` stay (by default half a period).
    """
    x = asarray(x)
    exact = dtype_of(x).is_integer and isinstance(period, int)
    x = x if exact else floating(x)
    axis = normalize_axis(axis, len(x.shape))
    discont = period / 2 if discont is None else discont
    half, uneven = (period // 2, period % 2) if exact else (period / 2, 0)
    step = diff(x, axis=axis)
    wrapped = el.subtract(el.mod(el.add(step, half), period), half)
    if not uneven:
        # A step of exactly half a period keeps its direction.
        wrapped = el.where(el.logical_and(el.equal(wrapped, -half), el.greater(step, 0)),
                           half, wrapped)
    change = el.where(el.less(el.absolute(step), discont), 0, el.subtract(wrapped, step))
    change = convert(cumsum(change, axis), dtype_of(x))
    first = slice_along(x, axis, 0, min(1, x.shape[axis]))
    return concatenate([first, el.add(slice_along(x, axis, min(1, x.shape[axis]), x.shape[axis]),
                                      change)], axis)


def gradient(x: ArrayLike, *spacing: ArrayLike, axis: int | Sequence[int] | None = None,
             edge_order: int = 1):
    """The derivative along each axis by central differences, one-sided at the edges.

    `spacing`: one distance for all axes, or per axis a distance or the coordinates. `edge_order`: 1
    or 2, how many neighbours the edges look at besides the first. One array for one axis, else a list.
    """
    x = floating(x)
    axes = [normalize_axis(a, len(x.shape)) for a in (
        normalize_axes(None, len(x.shape)) if axis is None
        else axis if isinstance(axis, (tuple, list)) else (axis,))]
    if len(spacing) not in (0, 1, len(axes)):
        raise OpError(f"gradient over {len(axes)} axes takes no, one or {len(axes)} spacings, got"
                      f" {len(spacing)}", user_location())
    if edge_order not in (1, 2):
        raise OpError(f"gradient's edge_order is 1 or 2, got {edge_order}", user_location())
    steps = list(spacing) * (len(axes) if len(spacing) == 1 else 1) or [1.0] * len(axes)
    results = [_slope(x, s, a, edge_order) for s, a in zip(steps, axes, strict=True)]
    return results[0] if len(results) == 1 else results


def _slope(x: Value, spacing: ArrayLike, axis: int, edge_order: int) -> Value:
    """The derivative along one axis: a parabola through three neighbours, a line at the edges."""
    size = x.shape[axis]
    if size < edge_order + 1:
        raise OpError(f"gradient along an axis of {size} needs at least {edge_order + 1} elements",
                      user_location())
    spacing = to_dtype(spacing, dtype_of(x))
    if spacing.shape and spacing.shape != (size,):
        raise OpError(f"gradient along an axis of {size} needs as many coordinates, got"
                      f" {shape_text(spacing.shape)}", user_location())
    gap = diff(spacing) if spacing.shape else spacing
    if gap.shape:
        gap = reshape(gap, tuple(-1 if d == axis else 1 for d in range(len(x.shape))))

    def part(v: Value, start: int, stop: int) -> Value:
        return slice_along(v, axis, start, stop) if v.shape else v

    rise = el.divide(diff(x, axis=axis), gap)
    before, after = part(rise, 0, size - 2), part(rise, 1, size - 1)
    near, far = part(gap, 0, size - 2), part(gap, 1, size - 1)
    inner = el.divide(el.add(el.multiply(before, far), el.multiply(after, near)),
                      el.add(near, far))
    first, last = part(rise, 0, 1), part(rise, size - 2, size - 1)
    if edge_order == 2:
        first = _extrapolated(first, part(rise, 1, 2), part(gap, 0, 1), part(gap, 1, 2))
        last = _extrapolated(last, part(rise, size - 3, size - 2), part(gap, size - 2, size - 1),
                             part(gap, size - 3, size - 2))
    return concatenate([first, inner, last], axis)


def _extrapolated(rise: Value, further: Value, gap: Value, beyond: Value) -> Value:
    """The slope at an edge, given those between the edge and the first, the first and the second
    neighbour, and the distances."""
    return el.add(rise, el.divide(el.multiply(el.subtract(rise, further), gap),
                                  el.add(gap, beyond)))


__all__ = ["convolve", "correlate", "ediff1d", "gradient", "trim_zeros", "unwrap"]
