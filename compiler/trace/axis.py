"""Named axes: collectives between the examples of a batch (`vmap(f, axis_name="batch")`).

Traced, a collective is an op that names its axis (`ops.axis`); the transform that made the axis
resolves it. The values may be trees of arrays.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..errors import OpError, user_location
from ..ir.dims import Extent
from . import tree
from .core import bind
from .jit import as_leaf

_STATE = threading.local()

Names = str | Sequence[str]


def _scope() -> list[tuple[str, Extent]]:
    try:
        return _STATE.axes
    except AttributeError:
        _STATE.axes = []
        return _STATE.axes


@contextmanager
def named(name: str | None, size: Extent) -> Iterator[None]:
    """Inside, `name` is an axis of `size` (None: an axis nobody can refer to)."""
    if name is None:
        yield
        return
    _scope().append((name, size))
    try:
        yield
    finally:
        _scope().pop()


def axis_size(axis_name: Names) -> Extent:
    """How many members the axis has; of several axes, the product. `OpError` for an unknown one."""
    total: Extent = 1
    for name in _names(axis_name):
        total = total * _size(name)
    return total


def _names(axis_name: Names) -> tuple[str, ...]:
    return (axis_name,) if isinstance(axis_name, str) else tuple(axis_name)


def _size(name: str) -> Extent:
    for known, size in reversed(_scope()):
        if known == name:
            return size
    names = ", ".join(repr(known) for known, _ in _scope()) or "none"
    raise OpError(f"there is no axis {name!r} here; the axes in scope are: {names}. Name one with"
                  f" vmap(..., axis_name={name!r})", user_location())


def axis_index(axis_name: Names) -> Any:
    """Which member this is (int32); of several axes, counting along the last one first."""
    total: Any = None
    for name in _names(axis_name):
        size = _size(name)
        index = bind("tfn.axis_index", axis_name=name)
        total = index if total is None else bind("stablehlo.add", bind(
            "stablehlo.multiply", total, np.int32(size)), index)
    return total


def psum(x: Any, axis_name: Names) -> Any:
    """The sum over the members of the axes; a Python number is multiplied by their size at once."""
    if isinstance(x, (int, float)) and not isinstance(x, bool):
        return x * axis_size(axis_name)
    return _reduced(x, axis_name, "add")


def pmean(x: Any, axis_name: Names) -> Any:
    """The mean over the members of the axes."""
    size = axis_size(axis_name)
    return tree.map(lambda leaf: leaf / size, psum(x, axis_name))


def pmax(x: Any, axis_name: Names) -> Any:
    """The largest value among the members of the axes."""
    return _reduced(x, axis_name, "maximum")


def pmin(x: Any, axis_name: Names) -> Any:
    """The smallest value among the members of the axes."""
    return _reduced(x, axis_name, "minimum")


def _reduced(x: Any, axis_name: Names, kind: str) -> Any:
    from ..ir.dtypes import I32

    def reduce(leaf):
        leaf = as_leaf(leaf)
        if leaf.dtype == bool and kind == "add":
            leaf = bind("stablehlo.convert", leaf, dtype=I32)
        for name in _names(axis_name):
            _size(name)
            leaf = bind("tfn.axis_reduce", leaf, axis_name=name, kind=kind)
        return leaf

    return tree.map(reduce, x)


def all_gather(x: Any, axis_name: Names, *, axis: int = 0, tiled: bool = False) -> Any:
    """The values of all members along a new dim `axis`, or with `tiled` one after the other along
    the dim there is."""
    def gather(leaf):
        leaf = as_leaf(leaf)
        place = axis % (len(leaf.shape) + (not tiled))
        shape = list(leaf.shape)
        for name in reversed(_names(axis_name)):
            leaf = bind("tfn.axis_gather", leaf, axis_name=name, dimension=place, size=_size(name))
        count = axis_size(axis_name)
        if tiled:
            shape[place] = shape[place] * count
        else:
            shape.insert(place, count)
        return bind("stablehlo.reshape", leaf, shape=tuple(shape))

    return tree.map(gather, x)


def ppermute(x: Any, axis_name: str, perm: Sequence[tuple[int, int]]) -> Any:
    """Each `(source, target)` of `perm` sends the source's value to the target; a member that is no
    target gets zeros."""
    size = _size(axis_name)
    pairs = tuple((int(s), int(t)) for s, t in perm)
    for column, what in enumerate(("source", "target")):
        members = [p[column] for p in pairs]
        if len(set(members)) != len(members) or not all(0 <= m < size for m in members):
            raise OpError(f"ppermute over {axis_name!r} of size {size}: each {what} of {list(pairs)}"
                          " must be one member, and none twice", user_location())
    return tree.map(lambda leaf: bind("tfn.axis_permute", as_leaf(leaf), axis_name=axis_name,
                                      pairs=pairs), x)


def all_to_all(x: Any, axis_name: str, split_axis: int, concat_axis: int, *, tiled: bool = False
               ) -> Any:
    """Part i along `split_axis` goes to member i; what comes is joined along `concat_axis`.

    The split dim has the size of the axis: it goes, and a new dim of that size comes. With `tiled`
    it is cut into that many equal parts, which are joined along the dim there is.
    """
    size = _size(axis_name)

    def exchange(leaf):
        leaf = as_leaf(leaf)
        rank = len(leaf.shape)
        split, join = split_axis % rank, concat_axis % rank
        if tiled:
            leaf = _cut(leaf, split, size, axis_name)
            join += join > split
        elif leaf.shape[split] != size:
            raise OpError(f"all_to_all splits dim {split} of {leaf.type}, which must have the size"
                          f" {size} of the axis {axis_name!r}", user_location())
        # Tiled, the new dim goes before the dim it is joined with, which lost the split dim.
        place = join - (join > split) if tiled else join
        leaf = bind("tfn.axis_exchange", leaf, axis_name=axis_name, split_dimension=split,
                    concat_dimension=place)
        return _merge(leaf, place) if tiled else leaf

    return tree.map(exchange, x)


def psum_scatter(x: Any, axis_name: str, *, scatter_dimension: int = 0, tiled: bool = False) -> Any:
    """`psum`, of which member i keeps part i along `scatter_dimension`: the dim goes, or with `tiled`
    is cut into equal parts."""
    from ..ops.reduction import reduce_sum

    def scatter(leaf):
        leaf = as_leaf(leaf)
        split = scatter_dimension % len(leaf.shape)
        if tiled:
            leaf = _cut(leaf, split, _size(axis_name), axis_name)
        return reduce_sum(all_to_all(leaf, axis_name, split, split), (split,))

    return tree.map(scatter, x)


def _cut(x: Any, dim: int, size: Extent, name: str) -> Any:
    """Dim `dim` as two: `size` parts and what is in each."""
    if x.shape[dim] % size != 0:
        raise OpError(f"dim {dim} of {x.type} does not divide by the size {size} of the axis {name!r}",
                      user_location())
    shape = (*x.shape[:dim], size, x.shape[dim] // size, *x.shape[dim + 1:])
    return bind("stablehlo.reshape", x, shape=shape)


def _merge(x: Any, dim: int) -> Any:
    """Dims `dim` and `dim + 1` as one."""
    shape = (*x.shape[:dim], x.shape[dim] * x.shape[dim + 1], *x.shape[dim + 2:])
    return bind("stablehlo.reshape", x, shape=shape)


__all__ = [
    "all_gather", "all_to_all", "axis_index", "axis_size", "named", "pmax", "pmean", "pmin",
    "ppermute", "psum", "psum_scatter",
]
