"""Indexing: `x[...]`, take, gather and scatter along axes, dynamic slices.

A key is split into a *basic* part (ints, slices, None, traced scalars: slice, reverse, reshape,
dynamic_slice) and an *advanced* part (integer arrays: gather). Negative indices count from the end;
run-time indices out of bounds are clamped when reading and dropped when writing, as in XLA.
Boolean masks change the shape of the result, so they must be concrete.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from ..errors import OpError, UnsupportedError, user_location
from ..ir.core import TensorType
from ..ir.dims import Dim, Extent
from ..ir.dtypes import I1, I32, DType
from ..ir.structs import GatherDimensionNumbers, ScatterDimensionNumbers
from ..ops import indexing as _indexing  # noqa: F401  (declares the ops)
from ..ops.reduction import reducer
from ..trace.core import Array, Tracer, bind, shown, trace_region
from . import elementwise as el
from .promote import (
    ArrayLike,
    Value,
    asarray,
    broadcast_shapes,
    broadcast_to,
    convert,
    dtype_of,
    is_concrete,
    normalize_axis,
    shape_text,
    to_dtype,
)

# -- gather and scatter along axes ----------------------------------------------------------------

def from_front(index: Value, x: Value, axis: int) -> Value:
    """`index` with negative entries counted from the end of `axis`, never narrower than i32."""
    dtype = dtype_of(index)
    if not dtype.is_integer:
        raise OpError(f"an index must hold integers, got {dtype}", user_location())
    if dtype.bits < 32:
        index = convert(index, I32)
    if dtype.kind == "uint":
        return index
    if isinstance(index, Array) and not (index._data < 0).any():
        return index
    extent = x.shape[axis]
    size = extent if isinstance(extent, int) else bind(
        "stablehlo.get_dimension_size", x, dimension=axis)
    return el.where(el.less(index, 0), el.add(index, to_dtype(size, dtype_of(index))), index)


def _start_indices(x: Value, index: Mapping[int, Value]) -> tuple[Value, tuple[Extent, ...]]:
    """Index arrays per axis as one array of index vectors, and their common shape."""
    from .manipulation import expand_dims
    from .promote import unify

    axes = sorted(index)
    parts = unify(*(from_front(index[a], x, a) for a in axes))
    shape = broadcast_shapes(*(p.shape for p in parts))
    parts = [broadcast_to(p, shape) for p in parts]
    if len(parts) == 1:
        return parts[0], shape
    rank = len(shape)
    vectors = bind("stablehlo.concatenate", *(expand_dims(p, rank) for p in parts),
                   dimension=rank)
    return vectors, shape


def gather_elements(x: Value, index: Mapping[int, Value], position: int) -> Value:
    """`x` read at integer arrays for some axes (axis -> array, broadcast together).

    The dims of the arrays take the place `position` among the remaining dims of `x`.
    """
    starts, shape = _start_indices(x, index)
    axes = tuple(sorted(index))
    rank = len(x.shape) - len(axes) + len(shape)
    batch = range(position, position + len(shape))
    if 0 in (x.shape[a] for a in axes):
        rest = [e for d, e in enumerate(x.shape) if d not in axes]
        return _nothing(x, (*rest[:position], *shape, *rest[position:]))
    numbers = GatherDimensionNumbers(
        offset_dims=tuple(d for d in range(rank) if d not in batch), collapsed_slice_dims=axes,
        start_index_map=axes, index_vector_dim=len(shape))
    sizes = tuple(1 if d in axes else e for d, e in enumerate(x.shape))
    return bind("stablehlo.gather", x, starts, dimension_numbers=numbers, slice_sizes=sizes)


def _nothing(x: Value, shape: tuple[Extent, ...]) -> Value:
    """What indices of `shape` read from an array without elements: nothing."""
    if 0 not in shape:
        raise OpError(f"an index array reads {shape_text(shape)} elements of an array of shape"
                      f" {shape_text(x.shape)}, which has none", user_location())
    return broadcast_to(Array(np.zeros((), x.dtype)), shape)


def _overwrite(dtype) -> Any:
    scalar = TensorType((), dtype)
    return trace_region(lambda old, new: [new], [scalar, scalar])


def scatter_elements(x: Value, index: Mapping[int, Value], position: int, updates: ArrayLike,
                     kind: str | None) -> Value:
    """`x` with `updates` combined into what `gather_elements` reads; `kind` None overwrites.

    `updates` is broadcast to the shape `gather_elements(x, index, position)` has.
    """
    starts, shape = _start_indices(x, index)
    axes = tuple(sorted(index))
    rest = [e for d, e in enumerate(x.shape) if d not in axes]
    full = (*rest[:position], *shape, *rest[position:])
    batch = range(position, position + len(shape))
    dtype = dtype_of(x)
    numbers = ScatterDimensionNumbers(
        update_window_dims=tuple(d for d in range(len(full)) if d not in batch),
        inserted_window_dims=axes, scatter_dims_to_operand_dims=axes,
        index_vector_dim=len(shape))
    return bind("stablehlo.scatter", x, starts, broadcast_to(to_dtype(updates, dtype), full),
                scatter_dimension_numbers=numbers,
                regions=[_overwrite(dtype) if kind is None else reducer(kind, dtype)])


def take(x: ArrayLike, indices: ArrayLike, axis: int | None = None, mode: str | None = None,
         fill_value=None) -> Value:
    """The slices of `x` at `indices` along `axis` (of the flattened array by default).

    `mode`: None or "clip" clamps indices that are out of bounds, "wrap" takes them modulo the size,
    "fill" gives `fill_value` there (by default NaN, the smallest signed or the largest unsigned
    integer, or True).
    """
    x, indices = asarray(x), asarray(indices)
    if axis is None:
        from .manipulation import ravel

        x, axis = ravel(x), 0
    axis = normalize_axis(axis, len(x.shape))
    if mode == "wrap":
        indices = el.mod(indices, _size_of(x, axis))
    result = gather_elements(x, {axis: indices}, axis)
    if mode != "fill":
        return result
    size = _size_of(x, axis)
    inside = el.logical_and(el.greater_equal(indices, -size if isinstance(size, int)
                                             else el.negative(size)), el.less(indices, size))
    shape = (1,) * axis + indices.shape + (1,) * (len(x.shape) - axis - 1)
    fill = missing_element(dtype_of(x)) if fill_value is None else fill_value
    return el.where(bind("stablehlo.reshape", inside, shape=shape), result, fill)


def missing_element(dtype: DType) -> Any:
    """What mode "fill" gives where there is no element: NaN, the smallest signed and the largest
    unsigned integer, True."""
    if dtype.is_inexact:
        return np.nan
    if dtype is I1:
        return True
    limits = ml_dtypes.iinfo(dtype.numpy)
    return int(limits.min if dtype.kind == "int" else limits.max)


def _size_of(x: Value, axis: int):
    extent = x.shape[axis]
    if isinstance(extent, int):
        return extent
    return bind("stablehlo.get_dimension_size", x, dimension=axis)


def _aligned(x: Value, indices: Value, axis: int) -> tuple[Value, Value]:
    """`x` and `indices` broadcast to equal extents everywhere but along `axis`."""
    if len(x.shape) != len(indices.shape):
        raise OpError(f"indices of shape {shape_text(indices.shape)} need as many dims as the array"
                      f" of shape {shape_text(x.shape)}", user_location())
    first = tuple(1 if d == axis else e for d, e in enumerate(x.shape))
    second = tuple(1 if d == axis else e for d, e in enumerate(indices.shape))
    common = broadcast_shapes(first, second)

    def full(v):
        return tuple(v.shape[axis] if d == axis else e for d, e in enumerate(common))

    return broadcast_to(x, full(x)), broadcast_to(indices, full(indices))


def take_along_axis(x: ArrayLike, indices: ArrayLike, axis: int | None = -1,
                    mode: str | None = None, fill_value: ArrayLike | None = None) -> Value:
    """x[..., indices[..., i, ...], ...]: one element of `x` along `axis` per index.

    `mode` and `fill_value` for indices out of bounds are as in `take`.
    """
    x, indices = asarray(x), asarray(indices)
    if axis is None:
        from .manipulation import ravel

        x, indices, axis = ravel(x), ravel(indices), 0
    axis = normalize_axis(axis, len(x.shape))
    x, indices = _aligned(x, indices, axis)
    if 0 in x.shape:
        return _nothing(x, indices.shape)
    others = tuple(d for d in range(len(x.shape)) if d != axis)
    numbers = GatherDimensionNumbers(
        collapsed_slice_dims=(axis,), operand_batching_dims=others,
        start_indices_batching_dims=others, start_index_map=(axis,),
        index_vector_dim=len(x.shape))
    if mode == "wrap":
        indices = el.mod(indices, _size_of(x, axis))
    result = bind("stablehlo.gather", x, from_front(indices, x, axis), dimension_numbers=numbers,
                  slice_sizes=(1,) * len(x.shape))
    if mode != "fill":
        return result
    size = _size_of(x, axis)
    inside = el.logical_and(el.greater_equal(indices, el.negative(size)), el.less(indices, size))
    fill = missing_element(dtype_of(x)) if fill_value is None else fill_value
    return el.where(inside, result, fill)


def put_along_axis(x: ArrayLike, indices: ArrayLike, values: ArrayLike, axis: int | None = -1, *,
                   inplace: bool = False) -> Value:
    """`x` with `values` written where `take_along_axis` would read."""
    if inplace:
        raise OpError("put_along_axis(inplace=True): arrays are immutable; use the returned array with"
                      " inplace=False", user_location())
    x, indices = asarray(x), asarray(indices)
    if axis is None:
        from .manipulation import ravel, reshape

        return reshape(put_along_axis(ravel(x), ravel(indices), values, 0), x.shape)
    axis = normalize_axis(axis, len(x.shape))
    x, indices = _aligned(x, indices, axis)
    others = tuple(d for d in range(len(x.shape)) if d != axis)
    numbers = ScatterDimensionNumbers(
        inserted_window_dims=(axis,), input_batching_dims=others,
        scatter_indices_batching_dims=others, scatter_dims_to_operand_dims=(axis,),
        index_vector_dim=len(x.shape))
    updates = broadcast_to(to_dtype(values, dtype_of(x)), indices.shape)
    return bind("stablehlo.scatter", x, from_front(indices, x, axis), updates,
                scatter_dimension_numbers=numbers, regions=[_overwrite(dtype_of(x))])


def dynamic_slice(x: ArrayLike, starts: Sequence[ArrayLike], sizes: Sequence[Extent]) -> Value:
    """The window of `sizes` at run-time `starts` (one per dim), moved into bounds if necessary."""
    x = asarray(x)
    if isinstance(starts, (Array, Tracer)) and starts.shape:
        starts = [starts[i] for i in range(len(x.shape))]
    return bind("stablehlo.dynamic_slice", x, *_scalars(starts), slice_sizes=tuple(sizes))


def dynamic_update_slice(x: ArrayLike, update: ArrayLike, starts: Sequence[ArrayLike]) -> Value:
    """`x` with the window at run-time `starts` (one per dim) replaced by `update`."""
    x = asarray(x)
    if isinstance(starts, (Array, Tracer)) and starts.shape:
        starts = [starts[i] for i in range(len(x.shape))]
    return bind("stablehlo.dynamic_update_slice", x, to_dtype(update, dtype_of(x)),
                *_scalars(starts))


def _scalars(starts) -> list[Value]:
    """Start indices as integer scalars of one type."""
    from .promote import unify

    return [s if not s.shape else bind("stablehlo.reshape", s, shape=())
            for s in unify(*(asarray(s) for s in starts))] if len(starts) else []


# -- keys -----------------------------------------------------------------------------------------

class IndexingError(OpError, IndexError):
    """An index an array does not have."""


@dataclass(frozen=True)
class BasicKey:
    """Per dim of the operand: start, limit, stride (negative: reversed), whether an int dropped
    it; and where the result gets new dims of size 1. A start may be a traced scalar (width 1)."""

    starts: tuple[Any, ...]
    limits: tuple[Any, ...]
    strides: tuple[int, ...]
    dropped: tuple[bool, ...]
    new_dims: tuple[int, ...]


def _expand(key: Any, rank: int) -> list[Any]:
    """The key as a list with one entry per dim (and the Nones), without Ellipsis."""
    items = list(key) if isinstance(key, tuple) else [key]
    items = [asarray(i) if isinstance(i, (list, np.ndarray)) else i for i in items]
    used = sum(_dims_of(i) for i in items)
    dots = [n for n, i in enumerate(items) if i is Ellipsis]
    if len(dots) > 1:
        raise IndexingError("an index may contain only one `...`", user_location())
    if used > rank:
        raise IndexingError(f"too many indices: {used} for an array of {rank} dims", user_location())
    fill = [slice(None)] * (rank - used)
    if dots:
        items[dots[0]:dots[0] + 1] = fill
    else:
        items += fill
    return items


def _dims_of(item: Any) -> int:
    if item is None or item is Ellipsis:
        return 0
    if isinstance(item, (bool, np.bool_)):
        raise UnsupportedError("a Python bool as an index is not supported; use where or reshape",
                               user_location())
    if isinstance(item, (Array, Tracer)) and dtype_of(item) is I1:
        return len(item.shape)
    return 1


def _unmask(items: list[Any]) -> list[Any]:
    """Boolean masks as the integer arrays NumPy's `nonzero` gives."""
    result: list[Any] = []
    for item in items:
        if isinstance(item, (Array, Tracer)) and dtype_of(item) is I1:
            if isinstance(item, Tracer):
                raise UnsupportedError(
                    "indexing with a traced boolean mask gives a shape that depends on values; use"
                    " where(mask, x, fill) instead", user_location())
            result += [Array(i.astype(np.int32)) for i in np.nonzero(item._data)]
        else:
            result.append(item)
    return result


def expanded(key: Any, shape: Sequence[Extent]) -> list[Any]:
    """A key with one entry per dim (and the Nones): ints, slices, integer arrays."""
    return _unmask(_expand(key, len(shape)))


def _is_scalar_index(item: Any) -> bool:
    return isinstance(item, (int, np.integer, Dim)) or (
        isinstance(item, (Array, Tracer)) and not item.shape)


def _is_advanced(item: Any) -> bool:
    return isinstance(item, (Array, Tracer)) and bool(item.shape)


def _bound(value: Any) -> Any:
    if value is None or isinstance(value, Dim):
        return value
    return value.__index__()


def _slice_bounds(item: slice, extent: Extent) -> tuple[Extent, Extent, int]:
    start, stop, step = _bound(item.start), _bound(item.stop), _bound(item.step) or 1
    if isinstance(extent, int) and not isinstance(start, Dim) and not isinstance(stop, Dim):
        first, end, step = slice(start, stop, step).indices(extent)
        if step > 0:
            return first, max(first, end), step
        count = max(0, -((end - first) // -step))
        last = first + (count - 1) * step
        return (last, first + 1, step) if count else (0, 0, step)
    if step < 0 and (start is not None or stop is not None):
        raise UnsupportedError(f"a reversed slice with bounds along the symbolic dim `{extent}`",
                               user_location())
    low = _from_end(start, extent, 0)
    high = _from_end(stop, extent, extent)
    if high != extent and high > extent:
        high = extent
    return low, high, step


def _from_end(bound: Any, extent: Extent, default: Extent) -> Extent:
    if bound is None:
        return default
    return bound if isinstance(bound, Dim) or bound >= 0 else bound + extent


def basic_key(items: Sequence[Any], shape: Sequence[Extent]) -> BasicKey:
    """The basic part of an expanded key; advanced entries take their whole dim."""
    columns: tuple[list[Any], ...] = ([], [], [], [])
    new_dims = []
    place = 0
    extents = iter(shape)
    for item in items:
        if item is None:
            new_dims.append(place)
            place += 1
            continue
        extent = next(extents)
        drop = _is_scalar_index(item)
        if drop:
            start = _scalar_start(item, extent)
            bounds = (start, start + 1 if not isinstance(start, Tracer) else None, 1)
        elif isinstance(item, slice):
            bounds = _slice_bounds(item, extent)
        elif _is_advanced(item):
            bounds = (0, extent, 1)
        else:
            raise IndexingError("an index is an int, a slice, None, `...`, or an array of integers or"
                                f" booleans, not {shown(item)}", user_location())
        place += 0 if drop else 1
        for column, value in zip(columns, (*bounds, drop), strict=True):
            column.append(value)
    starts, limits, strides, dropped = map(tuple, columns)
    return BasicKey(starts, limits, strides, dropped, tuple(new_dims))


def _scalar_start(item: Any, extent: Extent) -> Any:
    if isinstance(item, Tracer):
        return item
    i = item if isinstance(item, Dim) else item.__index__()
    if isinstance(extent, int) and isinstance(i, int) and not -extent <= i < extent:
        raise IndexingError(f"index {i} is outside an axis of {extent} (it may be {-extent} to"
                            f" {extent - 1})", user_location())
    return i if isinstance(i, Dim) or i >= 0 else i + extent


def read_basic(x: Value, key: BasicKey) -> Value:
    if any(isinstance(s, Tracer) for s in key.starts):
        x, key = _read_dynamic(x, key)
    forward = tuple(abs(s) for s in key.strides)
    if any(s != 0 or e != x.shape[d] or forward[d] != 1
           for d, (s, e) in enumerate(zip(key.starts, key.limits, strict=True))):
        starts = key.starts
        limits = key.limits
        x = bind("stablehlo.slice", x, start_indices=starts, limit_indices=limits,
                 strides=forward)
    backward = tuple(d for d, s in enumerate(key.strides) if s < 0)
    if backward:
        x = bind("stablehlo.reverse", x, dimensions=backward)
    shape = _result_shape(x.shape, key)
    return x if shape == x.shape else bind("stablehlo.reshape", x, shape=shape)


def _result_shape(sliced: Sequence[Extent], key: BasicKey) -> tuple[Extent, ...]:
    shape = [e for e, drop in zip(sliced, key.dropped, strict=True) if not drop]
    for d in key.new_dims:
        shape.insert(d, 1)
    return tuple(shape)


def _read_dynamic(x: Value, key: BasicKey) -> tuple[Value, BasicKey]:
    """Read the dims with traced starts; returns what is left to do."""
    starts = [from_front(s, x, d) if isinstance(s, Tracer) else 0
              for d, s in enumerate(key.starts)]
    sizes = [1 if isinstance(s, Tracer) else e for s, e in zip(key.starts, x.shape, strict=True)]
    x = dynamic_slice(x, starts, sizes)
    rest = [(0, 1) if isinstance(s, Tracer) else (s, e)
            for s, e in zip(key.starts, key.limits, strict=True)]
    return x, BasicKey(tuple(r[0] for r in rest), tuple(r[1] for r in rest), key.strides,
                       key.dropped, key.new_dims)


def split_key(key: Any, shape: Sequence[Extent]) -> tuple[list[Any], dict[int, Value], int]:
    """The basic part of a key, the advanced index arrays by dim of its result, and the position
    their dims take in the final result (NumPy: in place if adjacent, else first)."""
    items = _unmask(_expand(key, len(shape)))
    if not any(_is_advanced(i) for i in items):
        return items, {}, 0
    basic, index, places = [], {}, []
    for dim, item in enumerate(items):
        if _is_advanced(item) or _is_scalar_index(item):
            # Next to arrays an int is an index array too: it decides where the dims go.
            index[dim] = asarray(item)
            places.append(dim)
            item = slice(None)
        basic.append(item)
    adjacent = places == list(range(places[0], places[0] + len(places)))
    return basic, index, places[0] if adjacent else 0


def getitem(x: Value, key: Any) -> Value:
    """`x[key]` under NumPy's rules, for ints, slices, None, `...`, integer arrays, masks."""
    if is_concrete(x):
        plain = _numpy_key(key)
        if plain is not None:
            return Array(np.asarray(x._data[plain]))
    basic, index, position = split_key(key, x.shape)
    result = read_basic(x, basic_key(basic, x.shape))
    return gather_elements(result, index, position) if index else result


def _numpy_key(key: Any) -> Any:
    """The key with arrays as NumPy arrays; None when it holds a Dim or a tracer."""
    items = key if isinstance(key, tuple) else (key,)
    if any(isinstance(i, (Tracer, Dim)) for i in items):
        return None
    return tuple(i._data if isinstance(i, Array) else i for i in items)
