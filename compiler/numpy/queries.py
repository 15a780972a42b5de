"""Questions about arrays whose answers are Python values: shape, kind of number, equality."""

from __future__ import annotations

import numpy as np

from ..ir.dims import Extent
from ..trace.core import Array, Tracer
from . import elementwise as el
from .promote import ArrayLike, Value, asarray, dtype_of, normalize_axes, unify
from .reduction import all as all_


def shape(x: ArrayLike) -> tuple[Extent, ...]:
    """The shape of `x`; symbolic extents are `Dim`s."""
    return asarray(x).shape


def ndim(x: ArrayLike) -> int:
    """The number of dims of `x`."""
    return len(asarray(x).shape)


def size(x: ArrayLike, axis=None) -> Extent:
    """The number of elements of `x`, along `axis` (an int or several) if given."""
    x = asarray(x)
    if axis is None:
        return x.size
    total: Extent = 1
    for d in normalize_axes(axis, len(x.shape)):
        total *= x.shape[d]
    return total


def iscomplexobj(x: ArrayLike) -> bool:
    """Is the element type of `x` complex?"""
    return dtype_of(asarray(x)).kind == "complex"


def isrealobj(x: ArrayLike) -> bool:
    """Is the element type of `x` not complex?"""
    return not iscomplexobj(x)


def isscalar(x: object) -> bool:
    """Is `x` a number, or an array or tracer without dims?"""
    return np.isscalar(x) or (isinstance(x, (Array, Tracer, np.ndarray)) and not x.shape)


def iterable(x: object) -> bool:
    """Can `x` be iterated over? A 0-d array cannot."""
    if isinstance(x, (Array, Tracer)):
        return bool(x.shape)
    return np.iterable(x)


def array_equal(x: ArrayLike, y: ArrayLike, equal_nan: bool = False) -> Value:
    """True when the shapes and all elements are equal (NaNs too when `equal_nan`)."""
    a, b = asarray(x), asarray(y)
    if a.shape != b.shape:
        return Array(np.zeros((), np.bool_))
    return _equal(a, b, equal_nan)


def array_equiv(x: ArrayLike, y: ArrayLike) -> Value:
    """True when the shapes broadcast and all elements are equal then."""
    a, b = asarray(x), asarray(y)
    pairs = zip(a.shape[::-1], b.shape[::-1], strict=False)
    if any(m != n and m != 1 and n != 1 for m, n in pairs):
        return Array(np.zeros((), np.bool_))
    return _equal(a, b, False)


def _equal(a: Value, b: Value, equal_nan: bool) -> Value:
    a, b = unify(a, b)
    same = el.equal(a, b)
    if equal_nan and dtype_of(a).is_inexact:
        same = el.logical_or(same, el.logical_and(el.isnan(a), el.isnan(b)))
    return all_(same)


__all__ = ["array_equal", "array_equiv", "iscomplexobj", "isrealobj", "isscalar", "iterable", "ndim",
           "shape", "size"]
