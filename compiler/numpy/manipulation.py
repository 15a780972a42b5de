"""Shapes and order: reshape, transpose, join, split, repeat, roll, diagonals.

None of these compute: each is a few ops that the compiler folds into the reader's index.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import OpError, user_location
from ..ir.dims import Dim, Extent, product
from ..trace.core import Array, Tracer, bind
from . import direct
from .promote import (
    ArrayLike,
    Value,
    as_shape,
    asarray,
    broadcast_to,
    dtype_of,
    normalize_axes,
    normalize_axis,
    shape_text,
    unify,
)


def _reshaped(x: Value, shape: tuple[Extent, ...]) -> Value:
    if x.shape == shape:
        return x
    result = direct.view(x, "reshape", shape)
    return bind("stablehlo.reshape", x, shape=shape) if result is None else result


def reshape(x: ArrayLike, shape, *more: Extent, order: str = "C",
            copy: bool | None = None) -> Value:
    """`x` in row-major order under another shape; one extent may be -1.

    `copy` changes nothing: arrays are immutable.
    """
    result = direct.view(x, "reshape", shape, *more) if order == "C" else None
    if result is not None:
        return result
    x = asarray(x)
    if order == "F":
        return transpose(reshape(transpose(x), as_shape(shape)[::-1]))
    target = as_shape((shape, *more) if more else shape)
    unknown = [d for d, e in enumerate(target) if isinstance(e, int) and e == -1]
    if len(unknown) > 1:
        raise OpError(f"only one extent of {shape_text(target)} may be -1", user_location())
    if unknown:
        inferred = _missing_extent(x, target)
        target = tuple(inferred if d in unknown else e for d, e in enumerate(target))
    return _reshaped(x, target)


def _missing_extent(x: Value, target: tuple[Extent, ...]) -> Extent:
    rest, have = list(target), list(x.shape)
    rest.remove(-1)
    # Cancel equal symbolic extents first: products of two of them are not affine.
    for e in list(rest):
        if isinstance(e, Dim) and e in have:
            rest.remove(e)
            have.remove(e)
    known, size = product(rest), product(have)
    if known == 0 or (isinstance(known, int) and isinstance(size, int) and size % known):
        raise OpError(f"cannot reshape {shape_text(x.shape)} ({size} elements) to"
                      f" {shape_text(target)}", user_location())
    return size // known


def ravel(x: ArrayLike, order: str = "C") -> Value:
    """`x` as one dim; `order` "F": the first index varies fastest."""
    if order == "F":
        x = transpose(x)
    return reshape(x, (-1,)) if asarray(x).size != 0 else reshape(x, (0,))


def transpose(x: ArrayLike, axes: Sequence[int] | None = None) -> Value:
    """`x` with its dims in the order `axes` (reversed by default)."""
    result = direct.view(x, "transpose", axes)
    if result is not None:
        return result
    x = asarray(x)
    rank = len(x.shape)
    if axes is None:
        order = tuple(reversed(range(rank)))
    else:
        order = tuple(normalize_axis(a, rank) for a in axes)
    return x if order == tuple(range(rank)) else bind("stablehlo.transpose", x, permutation=order)


permute_dims = transpose


def swapaxes(x: ArrayLike, axis1: int, axis2: int) -> Value:
    """`x` with two dims exchanged."""
    x = asarray(x)
    rank = len(x.shape)
    a, b = normalize_axis(axis1, rank), normalize_axis(axis2, rank)
    order = list(range(rank))
    order[a], order[b] = b, a
    return transpose(x, order)


def moveaxis(x: ArrayLike, source, destination) -> Value:
    """`x` with the dims `source` moved to the places `destination`."""
    x = asarray(x)
    rank = len(x.shape)
    starts = [source] if isinstance(source, int) else list(source)
    ends = [destination] if isinstance(destination, int) else list(destination)
    starts = [normalize_axis(a, rank) for a in starts]
    ends = [normalize_axis(a, rank) for a in ends]
    order = [d for d in range(rank) if d not in starts]
    for end, start in sorted(zip(ends, starts, strict=True)):
        order.insert(end, start)
    return transpose(x, order)


def expand_dims(x: ArrayLike, axis) -> Value:
    """`x` with new dims of size 1 at the places `axis` of the result."""
    x = asarray(x)
    count = 1 if isinstance(axis, (int, np.integer)) else len(axis)
    axes = normalize_axes(axis if count != 1 or isinstance(axis, (int, np.integer)) else axis[0],
                          len(x.shape) + count)
    rest = iter(x.shape)
    return _reshaped(x, tuple(1 if d in axes else next(rest) for d in range(len(x.shape) + count)))


def squeeze(x: ArrayLike, axis=None) -> Value:
    """`x` without the dims `axis` of size 1 (all of size 1 by default)."""
    x = asarray(x)
    if axis is None:
        axes = tuple(d for d, e in enumerate(x.shape) if e == 1)
    else:
        axes = normalize_axes(axis, len(x.shape))
        wrong = [a for a in axes if x.shape[a] != 1]
        if wrong:
            raise OpError(f"cannot squeeze axis {wrong[0]} of {shape_text(x.shape)}: its size is"
                          f" {x.shape[wrong[0]]}, not 1", user_location())
    return _reshaped(x, tuple(e for d, e in enumerate(x.shape) if d not in axes))


def _at_least(x: ArrayLike, rank: int) -> Value:
    x = asarray(x)
    missing = rank - len(x.shape)
    if missing <= 0:
        return x
    if rank == 3:
        shape = {0: (1, 1, 1), 1: (1, *x.shape, 1), 2: (*x.shape, 1)}[len(x.shape)]
        return _reshaped(x, shape)
    return _reshaped(x, (1,) * missing + x.shape)


def atleast_1d(x: ArrayLike) -> Value:
    """`x` with at least one dim."""
    return _at_least(x, 1)


def atleast_2d(x: ArrayLike) -> Value:
    """`x` with at least two dims."""
    return _at_least(x, 2)


def atleast_3d(x: ArrayLike) -> Value:
    """`x` with at least three dims."""
    return _at_least(x, 3)


# -- join and split -------------------------------------------------------------------------------

def concatenate(xs: Sequence[ArrayLike], axis: int | None = 0, dtype=None) -> Value:
    """The arrays one after the other along `axis` (flattened when it is None)."""
    if isinstance(xs, (Array, Tracer)):
        xs = list(xs)
    if not xs:
        raise OpError("concatenate needs at least one array", user_location())
    result = direct.concatenate(xs, axis) if dtype is None else None
    if result is not None:
        return result
    values = unify(*xs) if dtype is None else [asarray(x, dtype) for x in xs]
    if axis is None:
        values, axis = [ravel(v) for v in values], 0
    if len(values) == 1:
        return values[0]
    rank = len(values[0].shape)
    return bind("stablehlo.concatenate", *values, dimension=normalize_axis(axis, rank))


concat = concatenate


def append(x: ArrayLike, values: ArrayLike, axis: int | None = None) -> Value:
    """`values` after `x` along `axis` (both flattened by default)."""
    return concatenate([x, values], axis)


def stack(xs: Sequence[ArrayLike], axis: int = 0, dtype=None) -> Value:
    """The arrays, all of one shape, along a new dim at `axis`."""
    if isinstance(xs, (Array, Tracer)):
        xs = list(xs)
    if not xs:
        raise OpError("stack needs at least one array", user_location())
    values = unify(*xs) if dtype is None else [asarray(x, dtype) for x in xs]
    shape = values[0].shape
    for v in values:
        if v.shape != shape:
            raise OpError(f"stack needs arrays of one shape, got {shape_text(shape)} and"
                          f" {shape_text(v.shape)}", user_location())
    axis = normalize_axis(axis, len(shape) + 1)
    return concatenate([expand_dims(v, axis) for v in values], axis)


def vstack(xs: Sequence[ArrayLike], dtype=None) -> Value:
    """The arrays as rows, one below the other."""
    return concatenate([atleast_2d(x) for x in xs], 0, dtype)


def hstack(xs: Sequence[ArrayLike], dtype=None) -> Value:
    """The arrays side by side (1-d: one after the other)."""
    values = [atleast_1d(x) for x in xs]
    return concatenate(values, 0 if len(values[0].shape) == 1 else 1, dtype)


def dstack(xs: Sequence[ArrayLike], dtype=None) -> Value:
    """The arrays along a third dim."""
    return concatenate([atleast_3d(x) for x in xs], 2, dtype)


def column_stack(xs: Sequence[ArrayLike]) -> Value:
    """1-d arrays as columns."""
    return hstack([_reshaped(v, (*v.shape, 1)) if len(v.shape) == 1 else v
                   for v in map(asarray, xs)])


def slice_along(x: Value, axis: int, start: Extent, limit: Extent, stride: int = 1) -> Value:
    """`x[start:limit:stride]` along one axis, with non-negative bounds."""
    rank = len(x.shape)
    return bind("stablehlo.slice", x,
                start_indices=tuple(start if d == axis else 0 for d in range(rank)),
                limit_indices=tuple(limit if d == axis else e for d, e in enumerate(x.shape)),
                strides=tuple(stride if d == axis else 1 for d in range(rank)))


def split(x: ArrayLike, indices_or_sections, axis: int = 0) -> list[Value]:
    """`x` cut along `axis` into equal sections (an int) or at indices (a sequence)."""
    x = asarray(x)
    axis = normalize_axis(axis, len(x.shape))
    extent = x.shape[axis]
    if isinstance(indices_or_sections, (int, np.integer)):
        sections = int(indices_or_sections)
        if isinstance(extent, int) and extent % sections:
            raise OpError(f"an axis of {extent} does not split into {sections} equal sections",
                          user_location())
        size = extent // sections
        cuts = [size * i for i in range(1, sections)]
    else:
        cuts = [int(i) for i in np.asarray(indices_or_sections).tolist()]
        if isinstance(extent, int):
            cuts = [min(max(c if c >= 0 else c + extent, 0), extent) for c in cuts]
    starts, ends = [0, *cuts], [*cuts, extent]
    return [slice_along(x, axis, a, b if not _before(b, a) else a)
            for a, b in zip(starts, ends, strict=True)]


def _before(b: Extent, a: Extent) -> bool:
    return isinstance(a, int) and isinstance(b, int) and b < a


def array_split(x: ArrayLike, indices_or_sections, axis: int = 0) -> list[Value]:
    """Like `split`, but sections may differ in size by one."""
    x = asarray(x)
    if not isinstance(indices_or_sections, (int, np.integer)):
        return split(x, indices_or_sections, axis)
    size, extra = divmod(x.shape[normalize_axis(axis, len(x.shape))], int(indices_or_sections))
    sizes = [size + 1] * extra + [size] * (int(indices_or_sections) - extra)
    return split(x, np.cumsum(sizes)[:-1], axis)


def hsplit(x: ArrayLike, indices_or_sections) -> list[Value]:
    """`split` along the columns (1-d: the only dim)."""
    return split(x, indices_or_sections, 0 if len(asarray(x).shape) == 1 else 1)


def vsplit(x: ArrayLike, indices_or_sections) -> list[Value]:
    """`split` along the rows."""
    return split(x, indices_or_sections, 0)


def dsplit(x: ArrayLike, indices_or_sections) -> list[Value]:
    """`split` along the third dim."""
    return split(x, indices_or_sections, 2)


def unstack(x: ArrayLike, num: int | None = None, axis: int = 0) -> tuple[Value, ...]:
    """The slices of `x` along `axis`, without that dim."""
    x = asarray(x)
    axis = normalize_axis(axis, len(x.shape))
    count = x.shape[axis].__index__() if num is None else num
    return tuple(squeeze(part, axis) for part in split(x, count, axis)) if count else ()


# -- repetition and order -------------------------------------------------------------------------

def repeat(x: ArrayLike, repeats, axis: int | None = None,
           total_repeat_length: int | None = None) -> Value:
    """Each element (or slice along `axis`) repeated; `repeats` is an int or one count each."""
    x = asarray(x)
    if axis is None:
        x, axis = ravel(x), 0
    axis = normalize_axis(axis, len(x.shape))
    counts = repeats if isinstance(repeats, (int, np.integer)) else np.asarray(repeats)
    if isinstance(counts, np.ndarray) and counts.size == 1:
        counts = int(counts.reshape(()))
    if isinstance(counts, np.ndarray):
        from .indexing import take

        if not counts.size:
            return x
        order = np.repeat(np.arange(x.shape[axis]), counts)
        return take(x, order[:total_repeat_length].astype(np.int32), axis)
    wide = (*x.shape[:axis + 1], int(counts), *x.shape[axis + 1:])
    dims = tuple(d if d <= axis else d + 1 for d in range(len(x.shape)))
    spread = bind("stablehlo.broadcast_in_dim", x, shape=wide, broadcast_dimensions=dims)
    return _reshaped(spread, (*x.shape[:axis], x.shape[axis] * int(counts), *x.shape[axis + 1:]))


def tile(x: ArrayLike, reps) -> Value:
    """`x` repeated as a whole `reps[d]` times along each dim d."""
    x = asarray(x)
    reps = [int(r) for r in np.atleast_1d(np.asarray(reps)).tolist()]
    rank = max(len(reps), len(x.shape))
    reps = [1] * (rank - len(reps)) + reps
    shape = (1,) * (rank - len(x.shape)) + x.shape
    wide: list[Extent] = []
    dims = []
    for r, e in zip(reps, shape, strict=True):
        if r != 1:
            wide.append(r)
        dims.append(len(wide))
        wide.append(e)
    spread = bind("stablehlo.broadcast_in_dim", _reshaped(x, shape), shape=tuple(wide),
                  broadcast_dimensions=tuple(dims))
    return _reshaped(spread, tuple(r * e if r != 1 else e
                                   for r, e in zip(reps, shape, strict=True)))


def flip(x: ArrayLike, axis=None) -> Value:
    """`x` with the order along `axis` (all by default) reversed."""
    x = asarray(x)
    axes = normalize_axes(axis, len(x.shape))
    return bind("stablehlo.reverse", x, dimensions=axes) if axes else x


def fliplr(x: ArrayLike) -> Value:
    """`x` reversed along dim 1."""
    return flip(x, 1)


def flipud(x: ArrayLike) -> Value:
    """`x` reversed along dim 0."""
    return flip(x, 0)


def rot90(x: ArrayLike, k: int = 1, axes: tuple[int, int] = (0, 1)) -> Value:
    """`x` turned by 90 degrees `k` times in the plane of `axes`, from the first to the second."""
    x = asarray(x)
    a, b = (normalize_axis(i, len(x.shape)) for i in axes)
    if a == b:
        raise OpError(f"rot90 needs two different axes, got {axes}", user_location())
    turned = {0: lambda v: v, 1: lambda v: swapaxes(flip(v, b), a, b),
              2: lambda v: flip(v, (a, b)), 3: lambda v: flip(swapaxes(v, a, b), b)}
    return turned[k % 4](x)


def roll(x: ArrayLike, shift, axis=None) -> Value:
    """`x` shifted along `axis`; what leaves one end enters at the other."""
    x = asarray(x)
    if axis is None:
        return _reshaped(roll(ravel(x), shift, 0), x.shape)
    axes = [axis] if isinstance(axis, int) else list(axis)
    shifts: list[Any]
    if isinstance(shift, Tracer):
        shifts = [shift] if not shift.shape else list(unstack(shift))
    else:
        shifts = np.broadcast_to(np.asarray(shift), (len(axes),)).tolist()
    for a, s in zip(axes, shifts, strict=True):
        x = _roll_one(x, s, normalize_axis(a, len(x.shape)))
    return x


def _roll_one(x: Value, shift, axis: int) -> Value:
    extent = x.shape[axis]
    if isinstance(shift, Tracer):
        from .creation import arange
        from .elementwise import mod
        from .indexing import take

        return take(x, mod(arange(extent) - shift, extent), axis)
    cut = -int(shift) % extent if isinstance(extent, int) and extent else -int(shift)
    if cut == 0 or extent == 0:
        return x
    cut = cut if cut > 0 or isinstance(extent, int) else extent + cut
    return concatenate([slice_along(x, axis, cut, extent), slice_along(x, axis, 0, cut)], axis)


# -- diagonals ------------------------------------------------------------------------------------

def diagonal(x: ArrayLike, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Value:
    """The elements x[i, i + offset] of the plane (axis1, axis2), as a last dim."""
    from .indexing import gather_elements

    x = moveaxis(x, (axis1, axis2), (-2, -1))
    rows, columns = x.shape[-2:]
    first = np.arange(max(0, min(rows + min(offset, 0), columns - max(offset, 0))))
    rank = len(x.shape)
    index = {rank - 2: first + max(-offset, 0), rank - 1: first + max(offset, 0)}
    return gather_elements(x, {a: Array(i.astype(np.int32)) for a, i in index.items()}, rank - 2)


def diag(x: ArrayLike, k: int = 0) -> Value:
    """The `k`-th diagonal of a matrix, or a matrix with the 1-d `x` on it."""
    from .creation import eye, zeros
    from .elementwise import where
    from .padding import pad

    x = asarray(x)
    if len(x.shape) == 2:
        return diagonal(x, k)
    if len(x.shape) != 1:
        raise OpError(f"diag needs 1 or 2 dims, got {shape_text(x.shape)}", user_location())
    n = x.shape[0] + abs(k)
    line = pad(x, (max(k, 0), max(-k, 0)))
    return where(eye(n, k=k, dtype="bool"), broadcast_to(line, (n, n)),
                 zeros((), dtype_of(x)))


def diagflat(x: ArrayLike, k: int = 0) -> Value:
    """A matrix with the flattened `x` on its `k`-th diagonal."""
    return diag(ravel(x), k)


def trace(x: ArrayLike, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype=None) -> Value:
    """The sum of a diagonal."""
    from .reduction import sum

    return sum(diagonal(x, offset, axis1, axis2), -1, dtype)
