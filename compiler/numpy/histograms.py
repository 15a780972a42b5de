"""Counting into bins: bincount, histograms of one and several variables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import OpError, user_location
from ..trace.core import Array
from . import elementwise as el
from .creation import linspace
from .indexing import scatter_elements
from .manipulation import ravel, reshape, stack
from .promote import (
    ArrayLike,
    Value,
    asarray,
    broadcast_to,
    dtype_of,
    floating,
    shape_text,
    to_dtype,
    unify,
)
from .reduction import max as max_
from .reduction import min as min_
from .reduction import sum as sum_
from .sorting import concrete, diff, searchsorted


def bincount(x: ArrayLike, weights: ArrayLike | None = None, minlength: int = 0,
             length: int | None = None) -> Value:
    """How often each of 0, 1, ... occurs. Traced arrays need `length`."""
    x = asarray(x)
    if length is None:
        data = concrete(x, "bincount")
        length = max(minlength, int(data.max()) + 1 if data.size else 0)
    ones = Array(np.ones((), np.int32)) if weights is None else asarray(weights)
    zero = broadcast_to(Array(np.zeros((), ones.dtype)), (length,))
    return scatter_elements(zero, {0: x}, 0, ones, "add")


def histogram_bin_edges(x: ArrayLike, bins: int | ArrayLike = 10, range=None,
                        weights=None) -> Value:
    """The edges of `bins` equal bins between the extremes of `x` (or over `range`), or `bins`."""
    x = ravel(floating(x))
    if not isinstance(bins, (int, np.integer)):
        return to_dtype(bins, dtype_of(x))
    low, high = range if range is not None else (min_(x), max_(x)) if x.size else (0.0, 1.0)
    low, high = to_dtype(low, dtype_of(x)), to_dtype(high, dtype_of(x))
    empty = el.equal(low, high)
    low, high = el.where(empty, low - 0.5, low), el.where(empty, high + 0.5, high)
    return linspace(low, high, int(bins) + 1)


def histogram(x: ArrayLike, bins: int | ArrayLike = 10, range=None, weights=None,
              density: bool = False):
    """Counts per bin and the bin edges; the last bin includes its right edge.

    `weights` are summed instead of counted; `density` divides by the sum and the bin widths.
    """
    x = ravel(floating(x))
    edges = histogram_bin_edges(x, bins, range)
    place, inside = _bins_of(x, edges)
    value = el.where(inside, 1.0 if weights is None else ravel(weights), 0.0)
    total = bincount(place, value, length=edges.shape[0] - 1)
    if density:
        total = el.divide(el.divide(total, diff(edges)), sum_(total))
    return total, edges


def _bins_of(line: Value, edges: Value) -> tuple[Value, Value]:
    """The bin of every element, and which elements are in one."""
    count = edges.shape[0] - 1
    place = el.subtract(searchsorted(edges, line, "right"), 1)
    place = el.where(el.equal(line, edges[-1]), count - 1, place)
    inside = el.logical_and(el.greater_equal(line, edges[0]), el.less_equal(line, edges[-1]))
    return el.clip(place, 0, count - 1), inside


def histogramdd(x: ArrayLike, bins: int | Sequence[Any] = 10, range: Sequence[Any] | None = None,
                weights: ArrayLike | None = None,
                density: bool = False) -> tuple[Value, list[Value]]:
    """Counts of the rows of `x` (one variable a column) in a grid of bins, and the edges per variable.

    `bins` and `range` are for all variables, or one each; otherwise as in `histogram`.
    """
    x = floating(x)
    if len(x.shape) != 2:
        raise OpError(f"histogramdd needs rows of variables, got an array of shape"
                      f" {shape_text(x.shape)}", user_location())
    dims = x.shape[1]
    each = [bins] * dims if isinstance(bins, (int, np.integer)) else list(bins)
    ranges = [None] * dims if range is None else list(range)
    for name, given in (("bins", each), ("range", ranges)):
        if len(given) != dims:
            raise OpError(f"{name} has {len(given)} entries for {dims} variables", user_location())
    lines = [x[:, d] for d, _ in enumerate(each)]
    edges = [histogram_bin_edges(line, b, r)
             for line, b, r in zip(lines, each, ranges, strict=True)]
    shape = tuple(e.shape[0] - 1 for e in edges)
    flat: Value = 0
    known: Value = True
    for line, e in zip(lines, edges, strict=True):
        place, inside = _bins_of(line, e)
        flat = el.add(el.multiply(flat, e.shape[0] - 1), place)
        known = el.logical_and(known, inside)
    value = el.where(known, 1.0 if weights is None else ravel(weights), 0.0)
    total = reshape(bincount(flat, value, length=int(np.prod(shape))), shape)
    if density:
        total = el.divide(total, sum_(total))
        for d, e in enumerate(edges):
            width = reshape(diff(e), tuple(-1 if d == k else 1 for k, _ in enumerate(shape)))
            total = el.divide(total, width)
    return total, edges


def histogram2d(x: ArrayLike, y: ArrayLike, bins: Any = 10, range: Sequence[Any] | None = None,
                weights: ArrayLike | None = None,
                density: bool = False) -> tuple[Value, Value, Value]:
    """Counts of the points (x, y) in a grid of bins, and the edges along both.

    `bins`: a number or edges for both, or a pair of these; otherwise as in `histogram`.
    """
    if not isinstance(bins, (int, np.integer)) and len(bins) != 2:
        bins = [asarray(bins)] * 2
    points = stack(unify(ravel(x), ravel(y)), 1)
    total, (first, second) = histogramdd(points, bins, range, weights, density)
    return total, first, second


__all__ = ["bincount", "histogram", "histogram2d", "histogram_bin_edges", "histogramdd"]
