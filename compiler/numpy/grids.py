"""Index arrays and grids: `mgrid`, `ogrid`, `ix_`, `r_`, `c_`, triangles, diagonals, flat indices.

What depends on sizes only is computed with NumPy at once; indices are i32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import OpError, user_location
from ..ir.dtypes import I1, I32
from ..trace.core import Array
from . import elementwise as el
from .creation import arange, iota, linspace, meshgrid
from .manipulation import concatenate, moveaxis, reshape, stack
from .promote import (
    ArrayLike,
    Value,
    asarray,
    convert,
    dtype_argument,
    result_type,
    shape_text,
)
from .sorting import nonzero


def _line(part: slice) -> Value:
    """The 1-d range a slice means; a step of `5j` means 5 points with both ends."""
    start = 0 if part.start is None else part.start
    if isinstance(part.step, complex):
        return linspace(start, part.stop, int(abs(part.step)))
    return arange(start, part.stop, 1 if part.step is None else part.step)


class _Grid:
    """`mgrid[0:3, 0:1:5j]`: the coordinates of a grid."""

    def __init__(self, sparse: bool):
        self.sparse = sparse

    def __getitem__(self, key: slice | tuple[slice, ...]):
        if isinstance(key, slice):
            return _line(key)
        lines = [_line(k) for k in key]
        dtype = result_type(*lines)
        grids = meshgrid(*(convert(line, dtype) for line in lines), indexing="ij",
                         sparse=self.sparse)
        return tuple(grids) if self.sparse else stack(grids)


mgrid, ogrid = _Grid(sparse=False), _Grid(sparse=True)


class _Join:
    """`r_[a, 0:3, 5]`: arrays, ranges and numbers one after the other.

    A first item "axis,ndmin,place" says along which axis, how many dims the parts have at least, and
    where their own dims go among those.
    """

    def __init__(self, axis: int = 0, ndmin: int = 1, place: int = -1):
        self.axis, self.ndmin, self.place = axis, ndmin, place

    def __getitem__(self, key: Any) -> Value:
        items = list(key) if isinstance(key, tuple) else [key]
        axis, ndmin, place = self.axis, self.ndmin, self.place
        if isinstance(items[0], str):
            numbers = _directive(items.pop(0))
            axis, ndmin, place = (*numbers, *(axis, ndmin, place)[len(numbers):])
        parts = [self._part(item, ndmin, place) for item in items]
        return concatenate(parts, axis)

    @staticmethod
    def _part(item: Any, ndmin: int, place: int) -> Any:
        part = _line(item) if isinstance(item, slice) else asarray(item)
        missing = ndmin - len(part.shape)
        if missing <= 0:
            return part
        own = len(part.shape)
        part = reshape(part, (1,) * missing + part.shape)
        start = place if place >= 0 else missing + place + 1
        return moveaxis(part, tuple(range(missing, ndmin)), tuple(range(start, start + own)))


def _directive(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise OpError(f"r_ understands 'axis,ndmin,place' as its first item, not {text!r}",
                      user_location()) from None


r_, c_ = _Join(), _Join(-1, 2, 0)


class _Key:
    """`s_[1:, ..., None]`: an index as a value."""

    def __init__(self, always_tuple: bool):
        self.always_tuple = always_tuple

    def __getitem__(self, key: Any) -> Any:
        return (key,) if self.always_tuple and not isinstance(key, tuple) else key


s_, index_exp = _Key(always_tuple=False), _Key(always_tuple=True)


def indices(dimensions: Sequence[int], dtype=None, sparse: bool = False):
    """The index along each dim at every place of an array of shape `dimensions`, as one array (a tuple
    of broadcastable ones when `sparse`)."""
    shape = tuple(dimensions)
    target = I32 if dtype is None else dtype_argument(dtype)
    if not sparse:
        if not shape:
            return Array(np.zeros((0,), target.numpy))
        return stack([iota(shape, d, target) for d in range(len(shape))])
    return tuple(reshape(iota((n,), 0, target), tuple(-1 if d == e else 1 for e in range(len(shape))))
                 for d, n in enumerate(shape))


def ix_(*lines: ArrayLike) -> tuple[Value, ...]:
    """1-d index arrays (or concrete masks) shaped so that together they index a grid."""
    arrays = [asarray(line) for line in lines]
    for a in arrays:
        if len(a.shape) != 1:
            raise OpError(f"ix_ needs 1-d arrays, got {shape_text(a.shape)}", user_location())
    arrays = [nonzero(a)[0] if a.type.dtype is I1 else a for a in arrays]
    return tuple(reshape(a, tuple(-1 if d == e else 1 for e in range(len(arrays))))
                 for d, a in enumerate(arrays))


def _fixed(found: Sequence[np.ndarray]) -> tuple[Array, ...]:
    return tuple(Array(i.astype(np.int32)) for i in found)


def tril_indices(n: int, k: int = 0, m: int | None = None) -> tuple[Array, ...]:
    """Rows and columns of the places at and below the `k`-th diagonal of an `n` by `m` matrix."""
    return _fixed(np.tril_indices(n, k, m))


def triu_indices(n: int, k: int = 0, m: int | None = None) -> tuple[Array, ...]:
    """Rows and columns of the places at and above the `k`-th diagonal of an `n` by `m` matrix."""
    return _fixed(np.triu_indices(n, k, m))


def tril_indices_from(x: ArrayLike, k: int = 0) -> tuple[Array, ...]:
    """`tril_indices` for the shape of a matrix."""
    rows, columns = _matrix_shape(x, "tril_indices_from")
    return tril_indices(rows, k, columns)


def triu_indices_from(x: ArrayLike, k: int = 0) -> tuple[Array, ...]:
    """`triu_indices` for the shape of a matrix."""
    rows, columns = _matrix_shape(x, "triu_indices_from")
    return triu_indices(rows, k, columns)


def _matrix_shape(x: ArrayLike, name: str) -> tuple[int, int]:
    shape = asarray(x).shape
    if len(shape) != 2:
        raise OpError(f"{name} needs a matrix, got an array of shape {shape_text(shape)}",
                      user_location())
    return shape


def diag_indices(n: int, ndim: int = 2) -> tuple[Value, ...]:
    """The places of the main diagonal of an array of `ndim` dims of size `n`."""
    return (arange(n),) * ndim


def diag_indices_from(x: ArrayLike) -> tuple[Value, ...]:
    """`diag_indices` for the shape of an array with equal extents."""
    shape = asarray(x).shape
    if len(shape) < 2 or len(set(shape)) != 1:
        raise OpError(f"diag_indices_from needs at least two dims of one size, got"
                      f" {shape_text(shape)}", user_location())
    return diag_indices(shape[0], len(shape))


def mask_indices(n: int, mask_function: Callable, k: int = 0) -> tuple[Value, ...]:
    """The places of an `n` by `n` matrix that `mask_function(ones, k)` (`triu`, say) keeps."""
    return nonzero(mask_function(Array(np.ones((n, n), np.int32)), k))


def ravel_multi_index(multi_index: Sequence[ArrayLike], dims: Sequence[int], mode: str = "raise",
                      order: str = "C") -> Value:
    """Index arrays, one per dim, as indices into the flattened array of shape `dims`.

    `mode`: "wrap" and "clip" move indices that are out of bounds inside; "raise" (an `OpError`) needs
    concrete ones.
    """
    from .sorting import concrete

    if len(multi_index) != len(dims):
        raise OpError(f"{len(dims)} dims need as many index arrays, got {len(multi_index)}",
                      user_location())
    fitted = []
    for index, extent in zip(multi_index, dims, strict=True):
        index = asarray(index)
        if mode == "wrap":
            index = el.mod(index, extent)
        elif mode == "clip":
            index = el.clip(index, 0, extent - 1)
        elif mode == "raise":
            data = concrete(index, 'ravel_multi_index with mode="raise"')
            if data.size and (data.min() < 0 or data.max() >= extent):
                raise OpError(f"an index is outside an axis of {extent}", user_location())
        else:
            raise OpError(f"ravel_multi_index mode {mode!r} is not one of raise, wrap, clip",
                          user_location())
        fitted.append(index)
    pairs = list(zip(fitted, dims, strict=True))
    total: Value = asarray(0)
    for index, extent in pairs if order == "C" else reversed(pairs):
        total = el.add(el.multiply(total, extent), index)
    return total


__all__ = ["c_", "diag_indices", "diag_indices_from", "index_exp", "indices", "ix_", "mask_indices",
           "mgrid", "ogrid", "r_", "ravel_multi_index", "s_", "tril_indices", "tril_indices_from",
           "triu_indices", "triu_indices_from"]
