"""Reductions by any body, as trees of elementwise ops: differentiated where there is no formula.

A body is associative, as StableHLO demands, so neighbours may be combined first: the tree is as deep as
the logarithm of the length.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product as cartesian
from typing import Any

import numpy as np

from ..errors import UnsupportedError
from ..ir.core import Block, Function
from ..ir.dtypes import I1, I32
from ..ir.structs import GatherDimensionNumbers
from ..trace.core import bind, replay, trace_region
from .control import INLINED


def elementwise(body: Block, operands: Sequence[Any]) -> list[Any]:
    """A body of scalars applied to the elements of arrays of one shape."""
    shape = tuple(operands[0].shape)

    def whole(x):
        return x if tuple(x.shape) == shape else bind(
            "stablehlo.broadcast_in_dim", x, shape=shape, broadcast_dimensions=())

    values = dict(zip(body.arguments, operands, strict=True))
    for inner in body.ops:
        if inner.regions:
            raise UnsupportedError(f"{inner.name} inside a region of scalars is not supported here",
                                   inner.location)
        given = [values[v] for v in inner.operands]
        if any(tuple(g.shape) for g in given):
            given = [whole(g) for g in given]
        if inner.name in _SAME:
            results = given
        elif inner.name in INLINED:
            results = elementwise(inner.attributes[INLINED[inner.name]].body,
                                  [whole(g) for g in given])
        else:
            results = bind(inner.definition, *given, **inner.attributes)
        results = results if isinstance(results, list) else [results]
        values.update(zip(inner.results, results, strict=True))
    return [whole(values[v]) for v in body.returns]


_SAME = frozenset({"stablehlo.reshape", "stablehlo.broadcast_in_dim", "stablehlo.transpose"})
"""What these make of a scalar is the scalar."""


def tree_reduce(body: Block, inputs: Sequence[Any], initial: Sequence[Any],
                dims: Sequence[int]) -> list[Any]:
    """The results of `reduce` over `dims`."""
    shape = inputs[0].shape
    kept = [d for d in range(len(shape)) if d not in dims]
    rest = [shape[d] for d in kept]
    length = int(np.prod([shape[d] for d in dims], dtype=np.int64))
    rows = [bind("stablehlo.reshape",
                 bind("stablehlo.transpose", x, permutation=(*sorted(dims), *kept)),
                 shape=(length, *rest)) for x in inputs]
    start = [bind("stablehlo.broadcast_in_dim", i, shape=(1, *rest), broadcast_dimensions=())
             for i in initial]
    while length > 1:
        # Neighbours, so that a body need not commute.
        even = length - length % 2
        left, right, last = ([_rows(x, a, b, step) for x in rows] for a, b, step in (
            (0, even, 2), (1, even, 2), (even, length, 1)))
        made = elementwise(body, [*left, *right])
        rows = made if even == length else [
            bind("stablehlo.concatenate", m, x, dimension=0)
            for m, x in zip(made, last, strict=True)]
        length -= even // 2
    found = elementwise(body, [*start, *rows]) if length else start
    return [bind("stablehlo.reshape", f, shape=tuple(rest)) for f in found]


def _rows(x: Any, start: int, limit: int, step: int) -> Any:
    more = len(x.shape) - 1
    return bind("stablehlo.slice", x, start_indices=(start, *(0,) * more),
                limit_indices=(limit, *x.shape[1:]), strides=(step, *(1,) * more))


def windows(x: Any, value: Any, window: dict, shape: Sequence[int]) -> Any:
    """The windows of `x` as a last dim: what `reduce_window`, whose result has `shape`, combines."""
    padded = bind("stablehlo.pad", x, value,
                  edge_padding_low=tuple(p[0] for p in window["padding"]),
                  edge_padding_high=tuple(p[1] for p in window["padding"]),
                  interior_padding=tuple(b - 1 for b in window["base_dilations"]))
    offsets = np.asarray(list(cartesian(*(
        range(0, n * d, d) for n, d in zip(window["window_dimensions"], window["window_dilations"],
                                           strict=True)))), np.int32)
    rank = len(shape)
    corners = np.moveaxis(np.indices(shape), 0, -1) * np.asarray(window["window_strides"])
    places = (corners[..., None, :] + offsets.reshape(-1, rank)).astype(np.int32)
    numbers = GatherDimensionNumbers(
        offset_dims=(), collapsed_slice_dims=tuple(range(rank)), start_index_map=tuple(range(rank)),
        index_vector_dim=rank + 1)
    return bind("stablehlo.gather", padded, places, dimension_numbers=numbers,
                slice_sizes=(1,) * rank)


def tree_reduce_window(body: Block, inputs: Sequence[Any], initial: Sequence[Any], window: dict,
                       shape: Sequence[int]) -> list[Any]:
    """The results of `reduce_window`, of this shape."""
    taken = [windows(x, i, window, shape) for x, i in zip(inputs, initial, strict=True)]
    return tree_reduce(body, taken, initial, (len(shape),))


def chosen(select: Block, x: Any, window: dict, shape: Sequence[int]) -> Any:
    """The position in the flat `x` that each window of select_and_scatter selects; -1: none."""
    size = int(np.prod(x.shape, dtype=np.int64))
    place = np.arange(size, dtype=np.int32).reshape(x.shape)
    where = windows(place, np.int32(-1), window, shape)
    values = windows(x, np.zeros((), x.dtype), window, shape)
    scalars = [a.type for a in select.arguments[:1]]

    def body(value, at, other, at_other):
        (keeps,) = replay(Function("select", select), [value, other])
        outside = bind("stablehlo.compare", at_other, np.int32(0), comparison_direction="LT")
        first = bind("stablehlo.compare", at, np.int32(0), comparison_direction="LT")
        keeps = bind("stablehlo.or", outside, bind(
            "stablehlo.and", keeps, bind("stablehlo.not", first)))
        return [bind("stablehlo.select", keeps, value, other),
                bind("stablehlo.select", keeps, at, at_other)]

    index = scalars[0].with_dtype(I32)
    region = trace_region(body, [*scalars, index, *scalars, index])
    assert region.ops[-1].operands[0].dtype is I1
    return bind("stablehlo.reduce", values, where, np.zeros((), x.dtype), np.int32(-1),
                dimensions=(len(shape),), regions=[region])[1]


def taken_at(x: Any, places: Any) -> Any:
    """Elements of the flat `x` at `places`, 0 where a place is negative."""
    flat = bind("stablehlo.reshape", x, shape=(int(np.prod(x.shape, dtype=np.int64)),))
    numbers = GatherDimensionNumbers(offset_dims=(), collapsed_slice_dims=(0,), start_index_map=(0,),
                                     index_vector_dim=len(places.shape))
    found = bind("stablehlo.gather", flat, places, dimension_numbers=numbers, slice_sizes=(1,))
    zero = bind("stablehlo.broadcast_in_dim", np.zeros((), np.int32), shape=tuple(places.shape),
                broadcast_dimensions=())
    none = bind("stablehlo.compare", places, zero, comparison_direction="LT")
    empty = bind("stablehlo.broadcast_in_dim", np.zeros((), x.dtype), shape=tuple(places.shape),
                 broadcast_dimensions=())
    return bind("stablehlo.select", none, empty, found)


__all__ = ["chosen", "elementwise", "taken_at", "tree_reduce", "tree_reduce_window", "windows"]
