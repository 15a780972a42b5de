"""`pad` and its modes.

A constant is one op; the other modes join slices, reversed slices, gathers or statistics of an axis
to its ends, one axis after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..errors import OpError, user_location
from ..trace.core import Array, Tracer, bind
from . import elementwise as el
from .indexing import take
from .manipulation import concatenate, flip, slice_along
from .promote import (
    ArrayLike,
    Value,
    asarray,
    broadcast_to,
    convert,
    dtype_of,
    normalize_axis,
    to_dtype,
)

Widths = list[tuple[int, int]]


def pad(x: ArrayLike, pad_width, mode: str | Callable = "constant",
        constant_values: ArrayLike = 0, *, end_values: ArrayLike = 0, stat_length=None,
        reflect_type: str = "even") -> Value:
    """`x` with `pad_width` (an int, (low, high), or such a pair per dim) elements at its edges.

    `pad_width` may also be a dict of axis to width. Modes, as of `np.pad`: constant
    (`constant_values`), edge, reflect and symmetric (`reflect_type` "even" or "odd"), wrap,
    linear_ramp (to `end_values`), maximum, minimum, mean and median (of `stat_length` elements next
    to the edge, all by default), empty.
    """
    x = asarray(x)
    rank = len(x.shape)
    widths = _pairs(_by_axis(pad_width, rank), rank, "pad_width")
    if any(w < 0 for pair in widths for w in pair):
        raise OpError(f"pad_width holds numbers of elements, got {pad_width}", user_location())
    if mode in ("constant", "empty"):
        return _pad_constant(x, widths, constant_values if mode == "constant" else 0)
    if mode not in _MODES:
        raise OpError(f"pad mode {mode!r} is not one of constant, empty, {', '.join(_MODES)}",
                      user_location())
    lengths = [(None, None)] * rank if stat_length is None else _pairs(stat_length, rank,
                                                                      "stat_length")
    ends = _values(end_values, rank)
    for axis, (low, high) in enumerate(widths):
        if not (low or high):
            continue
        if x.shape[axis] == 0:
            raise OpError(f"pad mode {mode!r} cannot extend axis {axis}: it has no elements",
                          user_location())
        pieces = _MODES[mode](x, axis, low, high, end_values=ends[axis],
                              stat_length=lengths[axis], odd=reflect_type == "odd")
        x = concatenate([p for p in pieces if p.shape[axis] != 0], axis)
    return x


def _by_axis(pad_width, rank: int):
    if not isinstance(pad_width, Mapping):
        return pad_width
    rows = [(0, 0)] * rank
    for axis, width in pad_width.items():
        low, high = np.broadcast_to(np.asarray(width), (2,)).tolist()
        rows[normalize_axis(axis, rank)] = (low, high)
    return rows


def _pairs(value, rank: int, name: str) -> list[Any]:
    try:
        rows = np.broadcast_to(np.asarray(value), (rank, 2)).tolist()
        return [tuple(v.__index__() for v in row) for row in rows]
    except (ValueError, AttributeError, TypeError):
        raise OpError(f"{name} is an int, a pair, or a pair for each of {rank} dims, got {value!r}",
                      user_location()) from None


def _values(value: ArrayLike, rank: int) -> list[tuple[Any, Any]]:
    """A low and a high value per dim; a traced value must be a scalar."""
    if isinstance(value, (Array, Tracer)) and not value.shape:
        return [(value, value)] * rank
    rows = np.broadcast_to(np.asarray(value), (rank, 2)).tolist()
    return [tuple(row) for row in rows]


def _pad_constant(x: Value, widths: Widths, constant_values) -> Value:
    rank = len(x.shape)
    values = _values(constant_values, rank)
    if not any(low or high for low, high in widths):
        return x
    if len({id(v) if isinstance(v, Tracer) else v for pair in values for v in pair}) > 1:
        for axis, (low, high) in enumerate(widths):
            for side, amount in enumerate((low, high)):
                if amount:
                    one = [(0, 0)] * rank
                    one[axis] = (amount, 0) if side == 0 else (0, amount)
                    x = _pad_constant(x, one, values[axis][side])
        return x
    return bind("stablehlo.pad", x, to_dtype(values[0][0], dtype_of(x)),
                edge_padding_low=tuple(w[0] for w in widths),
                edge_padding_high=tuple(w[1] for w in widths), interior_padding=(0,) * rank)


def _stretch(x: Value, axis: int, size: int) -> Value:
    return broadcast_to(x, tuple(size if d == axis else e for d, e in enumerate(x.shape)))


def _ends(x: Value, axis: int) -> tuple[Value, Value]:
    n = x.shape[axis]
    return slice_along(x, axis, 0, 1), slice_along(x, axis, n - 1, n)


# -- modes: the pieces to join, from an array, an axis and the widths ------------------------------

def _edge(x: Value, axis: int, low: int, high: int, **_) -> list[Value]:
    first, last = _ends(x, axis)
    return [_stretch(first, axis, low), x, _stretch(last, axis, high)]


def _periodic(mode: str, gap: int):
    """Modes whose padding is made of elements of the axis."""

    def pieces(x: Value, axis: int, low: int, high: int, *, odd: bool, **_) -> list[Value]:
        n = x.shape[axis]
        if odd and mode != "wrap":
            return _odd_reflection(x, axis, low, high, gap)
        if max(low, high) + gap <= n:
            if mode == "wrap":
                return [slice_along(x, axis, n - low, n), x, slice_along(x, axis, 0, high)]
            before = flip(slice_along(x, axis, gap, gap + low), axis)
            return [before, x, flip(slice_along(x, axis, n - gap - high, n - gap), axis)]
        how: Any = mode
        order = np.pad(np.arange(n), (low, high), mode=how)
        return [take(x, order.astype(np.int32), axis)]

    return pieces


def _odd_reflection(x: Value, axis: int, low: int, high: int, gap: int) -> list[Value]:
    """Reflection through the point at the edge; several times where the axis is short."""
    n = x.shape[axis]
    if n == gap:
        return _edge(x, axis, low, high)
    while low or high:
        step_low, step_high = min(low, n - gap), min(high, n - gap)
        first, last = _ends(x, axis)
        before = flip(slice_along(x, axis, gap, gap + step_low), axis)
        after = flip(slice_along(x, axis, n - gap - step_high, n - gap), axis)
        before, after = (el.subtract(el.multiply(edge, 2), part)
                         for edge, part in ((first, before), (last, after)))
        x = concatenate([p for p in (before, x, after) if p.shape[axis] != 0], axis)
        low, high, n = low - step_low, high - step_high, x.shape[axis]
    return [x]


def _linear_ramp(x: Value, axis: int, low: int, high: int, *, end_values, **_) -> list[Value]:
    from .creation import linspace

    first, last = _ends(x, axis)
    dtype = dtype_of(x)

    def ramp(end, edge: Value, width: int) -> Value:
        shape = tuple(1 if d == axis else e for d, e in enumerate(x.shape))
        start = broadcast_to(to_dtype(end, dtype), shape)
        start, edge = (bind("stablehlo.reshape", v, shape=shape[:axis] + shape[axis + 1:])
                       for v in (start, edge))
        line = linspace(start, edge, width, endpoint=False, axis=axis)
        return convert(el.trunc(line) if dtype.is_integer else line, dtype)

    return [ramp(end_values[0], first, low), x, flip(ramp(end_values[1], last, high), axis)]


def _statistic(name: str):
    """Modes that repeat a statistic of the elements next to the edge."""

    def pieces(x: Value, axis: int, low: int, high: int, *, stat_length, **_) -> list[Value]:
        from . import reduction, statistics

        function = statistics.median if name == "median" else getattr(reduction, name)
        n, dtype = x.shape[axis], dtype_of(x)
        counts = [n if c is None else min(c, n) for c in stat_length]
        parts = (slice_along(x, axis, 0, counts[0]), slice_along(x, axis, n - counts[1], n))
        values = [function(p, axis, keepdims=True) for p in parts]
        if dtype.is_integer and name in ("mean", "median"):
            values = [el.rint(v) for v in values]
        before, after = (convert(v, dtype) for v in values)
        return [_stretch(before, axis, low), x, _stretch(after, axis, high)]

    return pieces


_MODES: dict[Any, Callable[..., list[Value]]] = {
    "edge": _edge, "reflect": _periodic("reflect", 1), "symmetric": _periodic("symmetric", 0),
    "wrap": _periodic("wrap", 0), "linear_ramp": _linear_ramp, "maximum": _statistic("max"),
    "minimum": _statistic("min"), "mean": _statistic("mean"), "median": _statistic("median"),
}

__all__ = ["pad"]
