"""Arrays put together from parts, cut, or changed at places: block, insert, delete, put, choose ...

Arrays are immutable: what NumPy changes in place (`put`, `place`, `fill_diagonal`) is returned here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import OpError, user_location
from ..ir.dtypes import I32
from ..trace.core import Array
from . import elementwise as el
from .cumulative import cumsum
from .indexing import scatter_elements, take
from .manipulation import concatenate, moveaxis, ravel, reshape
from .promote import (
    ArrayLike,
    Value,
    asarray,
    broadcast_arrays,
    broadcast_to,
    convert,
    dtype_of,
    normalize_axis,
    shape_text,
    to_dtype,
    unify,
)
from .sorting import concrete, flatnonzero


def _returned(inplace: bool, name: str) -> None:
    if inplace:
        raise OpError(f"{name}(inplace=True): arrays are immutable; use the returned array with"
                      " inplace=False", user_location())


# -- parts ----------------------------------------------------------------------------------------

def block(arrays: Any) -> Value:
    """Nested lists of blocks as one array: the innermost lists are joined along the last dim, the next
    ones along the dim before it, and so on."""
    depth = _depth(arrays)
    leaves: list[Value] = []
    _gather(arrays, leaves)
    rank = max(depth, *(len(v.shape) for v in leaves))
    return _joined(arrays, depth, rank)


def _depth(arrays: Any) -> int:
    if not isinstance(arrays, list):
        return 0
    if not arrays:
        raise OpError("block got an empty list", user_location())
    depths = {_depth(a) for a in arrays}
    if len(depths) != 1:
        raise OpError("block needs lists of one depth", user_location())
    return 1 + depths.pop()


def _gather(arrays: Any, leaves: list[Value]) -> None:
    for a in arrays if isinstance(arrays, list) else [arrays]:
        if isinstance(a, list):
            _gather(a, leaves)
        else:
            leaves.append(asarray(a))


def _joined(arrays: Any, depth: int, rank: int) -> Value:
    if not isinstance(arrays, list):
        x = asarray(arrays)
        return reshape(x, (1,) * (rank - len(x.shape)) + x.shape)
    return concatenate([_joined(a, depth - 1, rank) for a in arrays], rank - depth)


def _line(x: ArrayLike, axis: int | None) -> tuple[Value, int]:
    """`x` and the axis, flattened for None."""
    x = asarray(x)
    return (ravel(x), 0) if axis is None else (x, normalize_axis(axis, len(x.shape)))


def _places(where: Any, extent: int, name: str) -> Any:
    """What says where (an int, a slice, indices, a mask) as NumPy indices."""
    if isinstance(where, slice):
        return np.arange(extent)[where]
    if isinstance(where, (int, np.integer)):
        return int(where)
    data = concrete(asarray(where), name)
    return data if data.dtype == bool or data.size else data.astype(np.int64)


def delete(x: ArrayLike, where: Any, axis: int | None = None) -> Value:
    """`x` without the slices along `axis` (elements of the flattened array by default) that an int, a
    slice, indices or a mask names. `IndexError` for a place that is not there."""
    x, axis = _line(x, axis)
    kept = np.delete(np.arange(x.shape[axis]), _places(where, x.shape[axis], "delete"))
    return take(x, Array(kept.astype(np.int32)), axis)


def insert(x: ArrayLike, where: Any, values: ArrayLike, axis: int | None = None) -> Value:
    """`x` with `values` put before the given places along `axis` (of the flattened array by default).

    `where` is an int (all `values` go there), a slice, indices or a mask; a value may be broadcast.
    """
    x, axis = _line(x, axis)
    extent, rank = x.shape[axis], len(x.shape)
    places = _places(where, extent, "insert")
    values = to_dtype(values, dtype_of(x))
    values = reshape(values, (1,) * (rank - len(values.shape)) + values.shape)
    if np.ndim(places) == 0:
        values = moveaxis(values, 0, axis)
    elif places.dtype == bool:
        places = np.flatnonzero(places)
    count = values.shape[axis] if np.size(places) == 1 else np.size(places)
    shape = tuple(count if d == axis else e for d, e in enumerate(x.shape))
    values = broadcast_to(values, shape)
    both = concatenate([x, values], axis)
    new = np.arange(extent, extent + count)
    order = np.insert(np.arange(extent), places, new)
    return take(both, Array(order.astype(np.int32)), axis)


def resize(x: ArrayLike, shape) -> Value:
    """The elements of `x`, repeated as often as it takes, in another shape."""
    x = ravel(x)
    shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
    size = int(np.prod(shape))
    if min(shape, default=0) < 0:
        raise OpError(f"resize needs extents of at least 0, got {shape_text(shape)}", user_location())
    if not x.shape[0]:
        return broadcast_to(Array(np.zeros((), x.dtype)), shape)
    return reshape(take(x, Array((np.arange(size) % x.shape[0]).astype(np.int32)), 0), shape)


def rollaxis(x: ArrayLike, axis: int, start: int = 0) -> Value:
    """`x` with `axis` moved before the dim `start`; `moveaxis` says this more clearly."""
    x = asarray(x)
    rank = len(x.shape)
    axis = normalize_axis(axis, rank)
    start = start + rank if start < 0 else start
    if not 0 <= start <= rank:
        raise OpError(f"rollaxis start {start} is outside an array of {rank} dims", user_location())
    return moveaxis(x, axis, start - 1 if start > axis else start)


def compress(condition: ArrayLike, x: ArrayLike, axis: int | None = None, *,
             size: int | None = None, fill_value: ArrayLike = 0) -> Value:
    """The slices along `axis` where the 1-d `condition` holds. A traced one needs `size`: the first
    `size` of them, and `fill_value` where there are fewer."""
    x, axis = _line(x, axis)
    condition = el.truth(condition)
    if len(condition.shape) != 1 or condition.shape[0] > x.shape[axis]:
        raise OpError(f"compress along an axis of {x.shape[axis]} needs a 1-d condition of at most as"
                      f" many elements, got shape {shape_text(condition.shape)}", user_location())
    if size is None:
        return take(x, flatnonzero(condition), axis)
    found = take(x, flatnonzero(condition, size), axis)
    count = convert(condition, I32).sum()
    known = el.less(Array(np.arange(size, dtype=np.int32)), count)
    known = reshape(known, tuple(-1 if d == axis else 1 for d in range(len(x.shape))))
    return convert(el.where(known, found, to_dtype(fill_value, dtype_of(x))), dtype_of(x))


def extract(condition: ArrayLike, x: ArrayLike, *, size: int | None = None,
            fill_value: ArrayLike = 0) -> Value:
    """The elements of `x` where `condition` holds, flat; `size` as in `compress`."""
    return compress(ravel(condition), ravel(x), 0, size=size, fill_value=fill_value)


# -- changed places -------------------------------------------------------------------------------

def put(x: ArrayLike, indices: ArrayLike, values: ArrayLike, mode: str | None = None, *,
        inplace: bool = False) -> Value:
    """`x` with `values` (repeated as necessary) at flat `indices`.

    `mode`: None drops an index out of bounds, "clip" and "wrap" move it inside.
    """
    _returned(inplace, "put")
    x, indices, values = asarray(x), ravel(indices), ravel(to_dtype(values, dtype_of(asarray(x))))
    if not indices.shape[0]:
        return x
    if mode not in (None, "clip", "wrap"):
        raise OpError(f"put mode {mode!r} is not one of None, clip, wrap", user_location())
    if mode is not None:
        indices = el.clip(indices, 0, x.size - 1) if mode == "clip" else el.mod(indices, x.size)
    changed = scatter_elements(ravel(x), {0: indices}, 0, resize(values, indices.shape), None)
    return reshape(changed, x.shape)


def place(x: ArrayLike, mask: ArrayLike, values: ArrayLike, *, inplace: bool = False) -> Value:
    """`x` with the first of `values` at the first place where `mask` holds, and so on, repeated."""
    _returned(inplace, "place")
    x = asarray(x)
    mask, values = ravel(el.truth(mask)), ravel(to_dtype(values, dtype_of(x)))
    if mask.shape[0] != x.size:
        raise OpError(f"place needs as many mask elements as the array has ({x.size}), got"
                      f" {mask.shape[0]}", user_location())
    if not values.shape[0]:
        if x.size and mask.any():
            raise OpError("place needs at least one value", user_location())
        return x
    rank = el.mod(el.subtract(cumsum(convert(mask, I32)), 1), values.shape[0])
    return reshape(el.where(mask, take(values, rank, 0), ravel(x)), x.shape)


def fill_diagonal(x: ArrayLike, value: ArrayLike, wrap: bool = False, *,
                  inplace: bool = False) -> Value:
    """`x` with `value` (repeated as necessary) on its main diagonal; `wrap` starts a new one below the
    last row of a tall matrix."""
    _returned(inplace, "fill_diagonal")
    x = asarray(x)
    rank, shape = len(x.shape), x.shape
    if rank < 2 or (rank > 2 and len(set(shape)) != 1):
        raise OpError(f"fill_diagonal needs a matrix, or dims of one size, got {shape_text(shape)}",
                      user_location())
    step = 1 + sum(int(np.prod(shape[d + 1:])) for d in range(rank - 1))
    end = shape[1] * shape[1] if rank == 2 and not wrap else x.size
    at = np.arange(0, min(end, x.size), step)
    return put(x, Array(at.astype(np.int32)), value)


# -- choices --------------------------------------------------------------------------------------

def choose(index: ArrayLike, choices: Sequence[ArrayLike] | ArrayLike, mode: str = "raise") -> Value:
    """choices[index[i]][i] for every place i; everything is broadcast.

    `mode` as in `ravel_multi_index`: "raise" needs a concrete `index`.
    """
    index = asarray(index)
    options = broadcast_arrays(index, *unify(*choices))
    index, values = options[0], options[1:]
    count = len(values)
    if mode == "raise":
        data = concrete(index, 'choose with mode="raise"')
        if data.size and (data.min() < 0 or data.max() >= count):
            raise OpError(f"an index is outside the {count} choices", user_location())
    elif mode in ("clip", "wrap"):
        index = el.clip(index, 0, count - 1) if mode == "clip" else el.mod(index, count)
    else:
        raise OpError(f"choose mode {mode!r} is not one of raise, wrap, clip", user_location())
    result = values[0]
    for k in range(1, count):
        result = el.where(el.equal(index, k), values[k], result)
    return result


def piecewise(x: ArrayLike, conditions: Any, functions: Sequence[Callable | ArrayLike],
              *args: Any, **options: Any) -> Value:
    """`functions[k](x, *args)` (or a number) where the last condition that holds is the `k`-th; where
    none does, one more function, or 0. Every function sees the whole of `x`."""
    x = asarray(x)
    rows = asarray(conditions) if not isinstance(conditions, (list, tuple)) else None
    masks = list(conditions) if rows is None else (
        [rows] if rows.shape == x.shape else [rows[k] for k in range(rows.shape[0])])
    if rows is None and masks and all(isinstance(m, (bool, np.bool_)) for m in masks) and x.shape:
        masks = [asarray(masks)]
    if len(functions) not in (len(masks), len(masks) + 1):
        raise OpError(f"piecewise with {len(masks)} conditions takes {len(masks)} or"
                      f" {len(masks) + 1} functions, got {len(functions)}", user_location())
    dtype = dtype_of(x)

    def value(function):
        return to_dtype(function(x, *args, **options) if callable(function) else function, dtype)

    result = broadcast_to(value(functions[-1]) if len(functions) > len(masks)
                          else Array(np.zeros((), x.dtype)), x.shape)
    for mask, function in zip(masks, functions, strict=False):
        result = el.where(mask, value(function), result)
    return result


__all__ = ["block", "choose", "compress", "delete", "extract", "fill_diagonal", "insert",
           "piecewise", "place", "put", "resize", "rollaxis"]
