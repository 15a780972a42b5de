"""Sets: the distinct elements of an array, membership, union, intersection, difference.

How many elements are distinct depends on values, so these need concrete arrays; they work on
traced arrays when they are given the `size` of the result.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..ir.dtypes import I32
from ..trace.core import Array
from . import elementwise as el
from .creation import iota
from .cumulative import cumsum
from .indexing import gather_elements, scatter_elements, take
from .manipulation import concatenate, expand_dims, moveaxis, ravel, reshape
from .promote import ArrayLike, Value, asarray, broadcast_to, convert, dtype_of, unify
from .reduction import any as any_
from .reduction import argmax
from .reduction import sum as sum_
from .sorting import argsort, concrete, lexsort, nonzero


class UniqueAll(NamedTuple):
    """Distinct elements; where each is first; which of them each element is; how often it occurs."""

    values: Value
    indices: Value
    inverse_indices: Value
    counts: Value


class UniqueCounts(NamedTuple):
    """Distinct elements and how often each occurs."""

    values: Value
    counts: Value


class UniqueInverse(NamedTuple):
    """Distinct elements and which of them each element is."""

    values: Value
    inverse_indices: Value


def unique(x: ArrayLike, return_index: bool = False, return_inverse: bool = False,
           return_counts: bool = False, axis: int | None = None, *, equal_nan: bool = True,
           size: int | None = None, fill_value: ArrayLike | None = None):
    """The distinct elements, sorted, and what else was asked for (i32).

    `size`: the first `size` of them, for traced arrays; where there are fewer, `fill_value` (the
    smallest element by default) with the smallest's index and the count 0. NaNs are one element unless
    `equal_nan` is False.
    """
    if size is not None:
        parts = _sized_unique(asarray(x), size, fill_value, equal_nan) if axis is None else (
            _sized_slices(asarray(x), axis, size, fill_value))
        wanted = (True, return_index, return_inverse, return_counts)
        chosen = tuple(p for p, w in zip(parts, wanted, strict=True) if w)
        return chosen if len(chosen) > 1 else chosen[0]
    options: Any = {"return_index": return_index, "return_inverse": return_inverse,
                    "return_counts": return_counts, "axis": axis, "equal_nan": equal_nan}
    found = np.unique(concrete(x, "unique"), **options)
    if not isinstance(found, tuple):
        return Array(found)
    first, *more = found
    return (Array(first), *(Array(m.astype(np.int32)) for m in more))


def _sized_slices(x: Value, axis: int, size: int, fill_value) -> tuple[Value, ...]:
    """The distinct slices along `axis` in lexical order, first places, inverse and counts."""
    lines = moveaxis(x, axis, 0)
    rest = lines.shape[1:]
    rows = reshape(lines, (lines.shape[0], math.prod(rest)))
    order = lexsort([rows[:, c] for c in reversed(range(rows.shape[1]))]) if rows.shape[1] else (
        iota((rows.shape[0],), 0))
    line = take(rows, order, 0)
    new = any_(el.not_equal(line[1:], line[:-1]), 1)
    starts, indices, inverse, counts = _groups(order, new, size)
    values = reshape(take(line, starts, 0), (size, *rest))
    if fill_value is not None:
        known = reshape(el.greater(counts, 0), (size,) + (1,) * len(rest))
        values = convert(el.where(known, values, asarray(fill_value, x.dtype)), dtype_of(x))
    return moveaxis(values, 0, axis), indices, inverse, counts


def _sized_unique(x: Value, size: int, fill_value, equal_nan: bool) -> tuple[Value, ...]:
    """The distinct elements of a flattened array, first places, inverse and counts."""
    flat = ravel(x)
    n = flat.shape[0]
    if n == 0:
        zero = broadcast_to(Array(np.zeros((), np.int32)), (size,))
        fill = broadcast_to(asarray(0 if fill_value is None else fill_value, x.dtype), (size,))
        return fill, zero, broadcast_to(zero[:1], x.shape), zero
    order = argsort(flat)
    line = take(flat, order, 0)
    before, after = line[:-1], line[1:]
    new = el.not_equal(after, before)
    if equal_nan and dtype_of(x).is_inexact:
        new = el.logical_and(new, el.logical_not(el.logical_and(el.isnan(before), el.isnan(after))))
    starts, indices, inverse, counts = _groups(order, new, size)
    values = gather_elements(line, {0: starts}, 0)
    if fill_value is not None:
        known = el.greater(counts, 0)
        values = convert(el.where(known, values, asarray(fill_value, x.dtype)), dtype_of(x))
    return values, indices, reshape(inverse, x.shape), counts


def _groups(order: Value, new: Value, size: int) -> tuple[Value, ...]:
    """Equal neighbours in a sorted line as `size` groups: where each starts in the line, its first
    place before sorting, the group of every place, and the sizes.

    `order` sorts the line, `new` tells which elements but the first differ from the one before.
    """
    n = order.shape[0]
    new = concatenate([broadcast_to(True, (1,)), new])
    rank = el.subtract(cumsum(convert(new, I32)), 1)
    # What does not fit goes past the end, where a scatter drops it.
    place = {0: rank}
    zeros = broadcast_to(Array(np.zeros((), np.int32)), (size,))
    counts = scatter_elements(zeros, place, 0, 1, "add")
    far = broadcast_to(Array(np.asarray(n, np.int32)), (size,))
    starts = scatter_elements(far, place, 0, iota((n,), 0), "minimum")
    known = el.greater(counts, 0)
    starts = el.where(known, starts, 0)
    inverse = scatter_elements(broadcast_to(Array(np.zeros((), np.int32)), (n,)), {0: order}, 0,
                               rank, None)
    indices = gather_elements(order, {0: starts}, 0)
    return starts, indices, inverse, counts


def unique_all(x: ArrayLike, *, size: int | None = None,
               fill_value: ArrayLike | None = None) -> UniqueAll:
    """The distinct elements and everything about them; every NaN is distinct. `size` and `fill_value`
    as in `unique`."""
    if size is not None:
        return UniqueAll(*_sized_unique(asarray(x), size, fill_value, equal_nan=False))
    data = concrete(x, "unique_all")
    values, first, inverse, counts = np.unique(data, True, True, True, equal_nan=False)
    return UniqueAll(Array(values), *(Array(i.astype(np.int32)) for i in (
        first, inverse.reshape(data.shape), counts)))


def unique_counts(x: ArrayLike, *, size: int | None = None,
                  fill_value: ArrayLike | None = None) -> UniqueCounts:
    """The distinct elements and how often each occurs; every NaN is distinct."""
    found = unique_all(x, size=size, fill_value=fill_value)
    return UniqueCounts(found.values, found.counts)


def unique_inverse(x: ArrayLike, *, size: int | None = None,
                   fill_value: ArrayLike | None = None) -> UniqueInverse:
    """The distinct elements and which of them each element is; every NaN is distinct."""
    found = unique_all(x, size=size, fill_value=fill_value)
    return UniqueInverse(found.values, found.inverse_indices)


def unique_values(x: ArrayLike, *, size: int | None = None,
                  fill_value: ArrayLike | None = None) -> Value:
    """The distinct elements, sorted; every NaN is distinct."""
    return unique(x, equal_nan=False, size=size, fill_value=fill_value)


def isin(x: ArrayLike, test: ArrayLike, assume_unique: bool = False, invert: bool = False) -> Value:
    """True where an element of `x` is one of `test`. `assume_unique` changes nothing."""
    x, test = unify(x, test)
    found = any_(el.equal(expand_dims(x, len(x.shape)), ravel(test)), -1)
    return el.logical_not(found) if invert else found


def union1d(x: ArrayLike, y: ArrayLike, *, size: int | None = None,
            fill_value: ArrayLike | None = None) -> Value:
    """The distinct elements of both, sorted; `size` and `fill_value` as in `unique`."""
    return unique(concatenate([x, y], None), size=size, fill_value=fill_value)


def intersect1d(x: ArrayLike, y: ArrayLike, assume_unique: bool = False,
                return_indices: bool = False, *, size: int | None = None,
                fill_value: ArrayLike | None = None):
    """The distinct elements that are in both, sorted; with `return_indices` also their first places in
    `x` and `y`. `assume_unique` changes nothing.

    `size`, for traced arrays: the first `size` of them; where there are fewer, `fill_value` (by default
    the smallest) with indices past the end.
    """
    a, b = (ravel(v) for v in unify(x, y))
    if size is None:
        options: Any = {"return_indices": return_indices}
        found = np.intersect1d(concrete(a, "intersect1d"), concrete(b, "intersect1d"), **options)
        if not return_indices:
            return Array(found)
        return tuple(Array(part if k == 0 else part.astype(np.int32))
                     for k, part in enumerate(found))
    values, first, _, counts = _sized_unique(a, a.shape[0], None, equal_nan=True)
    wanted = el.logical_and(isin(values, b), el.greater(counts, 0))
    chosen = _chosen(values, wanted, size, fill_value)
    if not return_indices:
        return chosen
    (places,) = nonzero(wanted, size, 0)
    known = el.less(iota((size,), 0), sum_(convert(wanted, I32)))
    firsts = el.where(known, take(first, places, 0), a.shape[0])
    same = el.equal(expand_dims(take(values, places, 0), 1), b)
    return chosen, firsts, el.where(known, argmax(same, 1), b.shape[0])


def setdiff1d(x: ArrayLike, y: ArrayLike, assume_unique: bool = False, *, size: int | None = None,
              fill_value: ArrayLike | None = None) -> Value:
    """The distinct elements of `x` that are not in `y`, sorted.

    `size`, for traced arrays: the first `size` of them, then `fill_value` (0 by default).
    `assume_unique` changes nothing.
    """
    a, b = (ravel(v) for v in unify(x, y))
    if size is None:
        return Array(np.setdiff1d(concrete(a, "setdiff1d"), concrete(b, "setdiff1d")))
    values, _, _, counts = _sized_unique(a, a.shape[0], None, equal_nan=True)
    wanted = el.logical_and(isin(values, b, invert=True), el.greater(counts, 0))
    return _chosen(values, wanted, size, fill_value, 0)


def setxor1d(x: ArrayLike, y: ArrayLike, assume_unique: bool = False, *, size: int | None = None,
             fill_value: ArrayLike | None = None) -> Value:
    """The distinct elements that are in exactly one of both, sorted; `size` as in `setdiff1d`."""
    a, b = (ravel(v) for v in unify(x, y))
    if size is None:
        return Array(np.setxor1d(concrete(a, "setxor1d"), concrete(b, "setxor1d")))
    both = concatenate([a, b])
    values, _, _, counts = _sized_unique(both, both.shape[0], None, equal_nan=True)
    one = el.not_equal(isin(values, a), isin(values, b))
    return _chosen(values, el.logical_and(one, el.greater(counts, 0)), size, fill_value, 0)


def _chosen(values: Value, wanted: Value, size: int, fill_value: ArrayLike | None,
            default: ArrayLike | None = None) -> Value:
    """The first `size` of the sorted values where `wanted`, then `fill_value` or the default (None:
    the first of them)."""
    (places,) = nonzero(wanted, size, 0)
    found = take(values, places, 0) if values.shape[0] else broadcast_to(
        Array(np.zeros((), values.dtype)), (size,))
    fill = default if fill_value is None else fill_value
    if size == 0:
        return found
    fill = found[0] if fill is None else asarray(fill, values.dtype)
    known = el.less(iota((size,), 0), sum_(convert(wanted, I32)))
    return convert(el.where(known, found, fill), dtype_of(values))


__all__ = ["UniqueAll", "UniqueCounts", "UniqueInverse", "intersect1d", "isin", "setdiff1d",
           "setxor1d", "union1d", "unique", "unique_all", "unique_counts", "unique_inverse",
           "unique_values"]
