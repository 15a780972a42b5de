"""Functions applied along axes and over broadcast arrays, through `vmap`."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any

from ..errors import OpError, user_location
from .grids import indices
from .manipulation import expand_dims, moveaxis, reshape
from .promote import (
    ArrayLike,
    Value,
    asarray,
    broadcast_shapes,
    broadcast_to,
    default_float,
    normalize_axis,
    shape_text,
)

_ARGUMENT = r"\((?:\w+(?:,\w+)*)?\)"
_SIGNATURE = re.compile(rf"({_ARGUMENT}(?:,{_ARGUMENT})*)->({_ARGUMENT}(?:,{_ARGUMENT})*)")


def apply_along_axis(function: Callable, axis: int, x: ArrayLike, *args: Any, **options: Any) -> Value:
    """`function` of every 1-d line of `x` along `axis`; the dims of its result take the place of
    `axis`."""
    from ..trace.batch import vmap

    x = asarray(x)
    rank = len(x.shape)
    axis = normalize_axis(axis, rank)
    rest = tuple(e for d, e in enumerate(x.shape) if d != axis)
    lines = reshape(moveaxis(x, axis, -1), (-1, x.shape[axis])) if 0 not in rest else None
    if lines is None:
        raise OpError(f"apply_along_axis of no lines (shape {shape_text(x.shape)}, axis {axis})",
                      user_location())
    found = vmap(lambda line: asarray(function(line, *args, **options)))(lines)
    own = found.shape[1:]
    found = reshape(found, rest + own)
    return moveaxis(found, tuple(range(len(rest), len(rest) + len(own))),
                    tuple(range(axis, axis + len(own))))


def apply_over_axes(function: Callable, x: ArrayLike, axes: int | Sequence[int]) -> Value:
    """`function(x, axis)` for one axis after the other; what it reduces stays as dims of size 1."""
    x = asarray(x)
    rank = len(x.shape)
    for axis in (axes,) if isinstance(axes, int) else axes:
        axis = normalize_axis(axis, rank)
        found = asarray(function(x, axis))
        x = found if len(found.shape) == rank else expand_dims(found, axis)
    return x


def fromfunction(function: Callable, shape: Sequence[int], *, dtype=None, **options: Any) -> Value:
    """`function` of the index arrays along every dim of `shape` (of the default float)."""
    shape = tuple(shape)
    grids = indices(shape, default_float() if dtype is None else dtype)
    return asarray(function(*(grids[d] for d in range(len(shape))), **options))


def vectorize(function: Callable, *, excluded: Collection[int | str] | None = None,
              signature: str | None = None) -> Callable:
    """`function` of scalars as one of arrays, which are broadcast together.

    `excluded`: positions and names of arguments that are passed as they are. `signature`:
    "(n,m),(m)->(n)" for a function of arrays, whose dims are the last ones of what it gets.

    >>> vectorize(lambda x, y: x if x.ndim else x + y)([1, 2], 3).tolist()
    [4, 5]
    """
    ranks = None if signature is None else _parse(signature)
    excluded = excluded or ()

    @functools.wraps(function)
    def vectorized(*args, **options):
        named = {k: v for k, v in options.items() if k not in excluded}
        fixed = {k: v for k, v in options.items() if k in excluded}
        mapped = [i for i in range(len(args)) if i not in excluded]
        if ranks is not None and len(ranks) != len(mapped) + len(named):
            raise OpError(f"the signature {signature} has {len(ranks)} arguments, the call"
                          f" {len(mapped) + len(named)}", user_location())
        values = [asarray(v) for v in (*(args[i] for i in mapped), *named.values())]

        def one(*parts):
            given = list(args)
            for place, part in zip(mapped, parts, strict=False):
                given[place] = part
            rest = dict(zip(named, parts[len(mapped):], strict=True))
            return function(*given, **rest, **fixed)

        return _mapped(one, values, ranks or [()] * len(values))

    return vectorized


def _parse(signature: str) -> list[tuple[str, ...]]:
    """The names of the dims of every argument."""
    match = _SIGNATURE.fullmatch(signature.replace(" ", ""))
    if match is None:
        raise OpError(f"{signature!r} is not a signature such as '(n,m),(m)->(n)'", user_location())
    return [tuple(filter(None, a[1:-1].split(","))) for a in re.findall(_ARGUMENT, match[1])]


def _mapped(function: Callable, values: list[Value], ranks: Sequence[tuple[str, ...]]) -> Any:
    """`function` under as many `vmap`s as the operands have dims beside their own."""
    from ..trace.batch import vmap

    sizes: dict[str, Any] = {}
    outer = []
    for value, names in zip(values, ranks, strict=True):
        own = len(names)
        if len(value.shape) < own:
            raise OpError(f"an argument ({','.join(names)}) needs at least {own} dims, got"
                          f" {shape_text(value.shape)}", user_location())
        outer.append(value.shape[:len(value.shape) - own])
        for name, extent in zip(names, value.shape[len(value.shape) - own:], strict=True):
            if sizes.setdefault(name, extent) != extent:
                raise OpError(f"the dim {name} is {sizes[name]} in one argument, {extent} in another",
                              user_location())
    shape = broadcast_shapes(*outer)
    wide = [broadcast_to(v, (*shape, *v.shape[len(o):])) for v, o in zip(values, outer, strict=True)]
    for _ in shape:
        function = vmap(function)
    return function(*wide)


__all__ = ["apply_along_axis", "apply_over_axes", "fromfunction", "vectorize"]
