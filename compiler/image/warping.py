"""Images sampled at computed places: arbitrary coordinates, affine maps, homographies."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import numpy as tnp
from ..errors import OpError, user_location
from ..ir.dtypes import F32, I32
from ..numpy.promote import ArrayLike, Value, asarray, convert, dtype_of, floating, shape_text


def _mirrored(index: Value, size: int) -> Value:
    """Back and forth between the centres of the edge pixels."""
    last = size - 1
    return tnp.abs(tnp.mod(index + last, 2 * last) - last) if last else tnp.zeros_like(index)


MODES: dict[str, Callable[[Value, int], Value]] = {
    "constant": lambda index, size: tnp.clip(index, 0, size - 1),
    "nearest": lambda index, size: tnp.clip(index, 0, size - 1),
    "wrap": lambda index, size: tnp.mod(index, size),
    "mirror": _mirrored,
    "reflect": lambda index, size: tnp.floor_divide(_mirrored(2 * index + 1, 2 * size + 1), 2),
}
"""What lies beyond the edges -> the pixel that stands for one at any index."""


def map_coordinates(x: ArrayLike, coordinates: ArrayLike, order: int = 1, mode: str = "constant",
                    cval: ArrayLike = 0.0) -> Value:
    """The values of `x` at `coordinates` (n, ...): places along its first n dims.

    `order` 0 takes the nearest pixel, 1 interpolates linearly. Beyond the edges: `mode` constant
    (`cval`), nearest, wrap, mirror (about the edge pixels' centres) or reflect (about the edges).
    The result has the shape of the places, then the other dims of `x`. Integers are rounded.
    """
    x, coordinates = asarray(x), floating(coordinates)
    if not coordinates.shape or coordinates.shape[0] > len(x.shape):
        raise OpError(f"map_coordinates of {shape_text(x.shape)} needs coordinates (n, ...) for at"
                      f" most {len(x.shape)} dims, got {shape_text(coordinates.shape)}",
                      user_location())
    return _sampled(x, (), [coordinates[d] for d in range(coordinates.shape[0])], order, mode, cval)


def _sampled(x: Value, first: tuple[Any, ...], coordinates: list[Value], order: int, mode: str,
             cval: ArrayLike) -> Value:
    """The values at whole places `first` and at `coordinates` along the dims after them."""
    if mode not in MODES or order not in (0, 1):
        raise OpError(f"sampling has order 0 and 1 and the modes {', '.join(MODES)}, got"
                      f" {order} and {mode!r}", user_location())
    compute = dtype_of(x) if dtype_of(x).is_float and dtype_of(x).bits >= 32 else F32
    rest = (1,) * (len(x.shape) - len(first) - len(coordinates))
    nodes = [_nodes(c, order) for c in coordinates]
    total = None
    for corner in itertools.product(*nodes):
        places, weight, inside = list(first), None, None
        for size, (index, share) in zip(x.shape[len(first):], corner, strict=False):
            places.append(MODES[mode](index, size))
            weight = share if weight is None else weight if share is None else weight * share
            here = tnp.logical_and(index >= 0, index < size)
            inside = here if inside is None else tnp.logical_and(inside, here)
        value = convert(x[tuple(places)], compute)
        if mode == "constant":
            assert inside is not None
            value = tnp.where(inside.reshape(inside.shape + rest), value,
                              convert(asarray(cval), compute))
        if weight is not None:
            value = value * convert(weight, compute).reshape(weight.shape + rest)
        total = value if total is None else total + value
    assert total is not None
    return convert(tnp.rint(total) if dtype_of(x).is_integer else total, dtype_of(x))


def _nodes(coordinate: Value, order: int) -> list[tuple[Value, Value | None]]:
    """The pixels a coordinate lies between and their shares."""
    if order == 0:
        # Half-way goes away from zero.
        nearest = tnp.trunc(coordinate + tnp.where(coordinate < 0, -0.5, 0.5))
        return [(convert(nearest, I32), None)]
    low = tnp.floor(coordinate)
    share = coordinate - low
    index = convert(low, I32)
    return [(index, 1 - share), (index + 1, share)]


def warp(images: ArrayLike, coordinates: ArrayLike, order: int = 1, mode: str = "constant",
         cval: ArrayLike = 0.0) -> Value:
    """Each of `images` (batch, height, width, channels) at its `coordinates` (batch, 2, ...), rows
    first; see `map_coordinates`."""
    images, coordinates = asarray(images), floating(coordinates)
    if coordinates.shape[:2] != (images.shape[0], 2):
        raise OpError(f"warp of {shape_text(images.shape)} needs coordinates ({images.shape[0]}, 2,"
                      f" ...), got {shape_text(coordinates.shape)}", user_location())
    each = np.arange(images.shape[0]).reshape((-1,) + (1,) * (len(coordinates.shape) - 2))
    return _sampled(images, (each,), [coordinates[:, 0], coordinates[:, 1]], order, mode, cval)


def _grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of every pixel."""
    rows, columns = np.indices((height, width), dtype=np.float32)
    return rows, columns


def _parts(transforms: Value, count: int) -> list[Value]:
    """The `count` parameters of every transform, each to broadcast with a grid."""
    transforms = convert(floating(transforms), F32)
    return [transforms[:, i, None, None] for i in range(count)]


def affine_coordinates(transforms: ArrayLike, height: int, width: int) -> Value:
    """Where each pixel of an affine image comes from: (batch, 2, height, width), rows first.

    `transforms` (batch, 6 or 8): the pixel (x, y) is taken from (a0 x + a1 y + a2, b0 x + b1 y + b2).
    """
    rows, columns = _grid(height, width)
    a0, a1, a2, b0, b1, b2 = _parts(asarray(transforms), 6)
    return tnp.stack([b0 * columns + b1 * rows + b2, a0 * columns + a1 * rows + a2], 1)


def homography_coordinates(transforms: ArrayLike, height: int, width: int) -> Value:
    """`affine_coordinates` divided by c0 x + c1 y + 1, of `transforms` (batch, 8)."""
    rows, columns = _grid(height, width)
    c0, c1 = _parts(asarray(transforms), 8)[6:]
    scale = c0 * columns + c1 * rows + 1
    return affine_coordinates(transforms, height, width) / scale[:, None]


def homography(start: ArrayLike, end: ArrayLike) -> Value:
    """The 8 parameters of the homography that takes the points `end` (..., 4, 2) to `start`."""
    start, end = floating(start), floating(end)
    x, y = end[..., 0], end[..., 1]
    one, zero = tnp.ones_like(x), tnp.zeros_like(x)
    u, v = start[..., 0], start[..., 1]
    rows = tnp.concatenate([
        tnp.stack([x, y, one, zero, zero, zero, -u * x, -u * y], -1),
        tnp.stack([zero, zero, zero, x, y, one, -v * x, -v * y], -1)], -2)
    return tnp.linalg.solve(rows, tnp.concatenate([u, v], -1)[..., None])[..., 0]
