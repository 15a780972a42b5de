"""Sets: the distinct elements of an array, membership, union, intersection, difference.

How many elements are distinct depends on values, so these need concrete arrays; `unique` works on
traced arrays when it is given the `size` of its result.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..ir.dtypes import I32
from ..trace.core import Array
from . import elementwise as el
from .creation import iota
from .cumulative import cumsum
from .indexing import gather_elements, scatter_elements, take
from .manipulation import concatenate, expand_dims, ravel, reshape
from .promote import ArrayLike, Value, asarray, broadcast_to, convert, dtype_of, unify
from .reduction import any as any_
from .sorting import argsort, concrete


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
    smallest element by default) with the index 0 and the count 0. NaNs are one element unless
    `equal_nan` is False.
    """
    if size is not None:
        if axis is not None:
            raise ValueError("unique takes `size` without `axis`")
        parts = _sized_unique(asarray(x), size, fill_value, equal_nan)
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
    values = gather_elements(line, {0: starts}, 0)
    if fill_value is not None:
        values = convert(el.where(known, values, asarray(fill_value, x.dtype)), dtype_of(x))
    inverse = scatter_elements(broadcast_to(Array(np.zeros((), np.int32)), (n,)), {0: order}, 0,
                               rank, None)
    indices = el.where(known, gather_elements(order, {0: starts}, 0), 0)
    return values, indices, reshape(inverse, x.shape), counts


def unique_all(x: ArrayLike) -> UniqueAll:
    """The distinct elements and everything about them; every NaN is distinct."""
    data = concrete(x, "unique_all")
    values, first, inverse, counts = np.unique(data, True, True, True, equal_nan=False)
    return UniqueAll(Array(values), *(Array(i.astype(np.int32)) for i in (
        first, inverse.reshape(data.shape), counts)))


def unique_counts(x: ArrayLike) -> UniqueCounts:
    """The distinct elements and how often each occurs; every NaN is distinct."""
    found = unique_all(x)
    return UniqueCounts(found.values, found.counts)


def unique_inverse(x: ArrayLike) -> UniqueInverse:
    """The distinct elements and which of them each element is; every NaN is distinct."""
    found = unique_all(x)
    return UniqueInverse(found.values, found.inverse_indices)


def unique_values(x: ArrayLike) -> Value:
    """The distinct elements, sorted; every NaN is distinct."""
    return unique(x, equal_nan=False)


def isin(x: ArrayLike, test: ArrayLike, invert: bool = False) -> Value:
    """True where an element of `x` is one of `test`."""
    x, test = unify(x, test)
    found = any_(el.equal(expand_dims(x, len(x.shape)), ravel(test)), -1)
    return el.logical_not(found) if invert else found


def union1d(x: ArrayLike, y: ArrayLike, size: int | None = None) -> Value:
    """The distinct elements of both, sorted; `size` as in `unique`."""
    return unique(concatenate([x, y], None), size=size)


def intersect1d(x: ArrayLike, y: ArrayLike) -> Value:
    """The distinct elements that are in both, sorted. Needs concrete arrays."""
    a, b = unify(x, y)
    return Array(np.intersect1d(concrete(a, "intersect1d"), concrete(b, "intersect1d")))


def setdiff1d(x: ArrayLike, y: ArrayLike) -> Value:
    """The distinct elements of `x` that are not in `y`, sorted. Needs concrete arrays."""
    a, b = unify(x, y)
    return Array(np.setdiff1d(concrete(a, "setdiff1d"), concrete(b, "setdiff1d")))


def setxor1d(x: ArrayLike, y: ArrayLike) -> Value:
    """The distinct elements that are in exactly one of both, sorted. Needs concrete arrays."""
    a, b = unify(x, y)
    return Array(np.setxor1d(concrete(a, "setxor1d"), concrete(b, "setxor1d")))


__all__ = ["UniqueAll", "UniqueCounts", "UniqueInverse", "intersect1d", "isin", "setdiff1d",
           "setxor1d", "union1d", "unique", "unique_all", "unique_counts", "unique_inverse",
           "unique_values"]
