"""Jacobians and Hessians: a derivative along (or back from) every unit vector, by `vmap`.

The result is a tree: the structure of the function's result, in each leaf that of the arguments. A leaf
has the dims of the result, then those of the argument.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import TraceError, user_location
from . import tree
from .batch import vmap
from .forward import jvp
from .grad import vjp
from .jit import as_leaf


def _units(leaves: Sequence[Any]) -> list[Any]:
    """Unit vectors of the space of all leaves, stacked: for each leaf its part of all of them."""
    from ..numpy import eye, reshape

    sizes = [int(np.prod(x.shape, dtype=np.int64)) for x in leaves]
    total, start, found = sum(sizes), 0, []
    for x, size in zip(leaves, sizes, strict=True):
        part = eye(total, dtype=x.dtype)[:, start: start + size]
        found.append(reshape(part, (total, *x.shape)))
        start += size
    return found


def _cut(x: Any, axis: int, shapes: Sequence[Sequence[int]]) -> list[Any]:
    """`x` in parts along `axis`, which become dims of these shapes."""
    from ..numpy import reshape

    start, found = 0, []
    for shape in shapes:
        size = int(np.prod(shape, dtype=np.int64))
        at = (slice(None),) * axis + (slice(start, start + size),)
        found.append(reshape(x[at], (*x.shape[:axis], *shape, *x.shape[axis + 1:])))
        start += size
    return found


def _chosen(function: Callable, argnums: int | Sequence[int], args: Sequence[Any],
            kwargs: dict[str, Any]) -> tuple[Callable, Any]:
    """The function of the chosen arguments alone, as one tree, and that tree."""
    numbers = [argnums] if isinstance(argnums, int) else list(argnums)
    for i in numbers:
        if not -len(args) <= i < len(args):
            raise TraceError(f"a Jacobian with respect to argument {i} (argnums) of {len(args)}",
                             user_location())
    places = [i % len(args) for i in numbers]

    def of(chosen):
        full = list(args)
        parts = [chosen] if isinstance(argnums, int) else chosen
        for i, part in zip(places, parts, strict=True):
            full[i] = part
        return function(*full, **kwargs)

    picked = tuple(args[i] for i in places)
    return of, picked[0] if isinstance(argnums, int) else picked


def _arrays(x: Any) -> tuple[list[Any], Any]:
    leaves, structure = tree.flatten(x)
    arrays = [as_leaf(leaf) for leaf in leaves]
    for a in arrays:
        if not a.type.dtype.is_inexact:
            raise TraceError(f"a Jacobian with respect to {a.type}: it must be floating-point; convert"
                             " it (astype), or choose another argument with argnums", user_location())
    return arrays, structure


def jacfwd(function: Callable, argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Callable:
    """The Jacobian by forward mode, best for few inputs and many outputs.

    `argnums` as in `grad`. With `has_aux` the function returns `(value, aux)`, and the result is
    `(jacobian, aux)`.

    >>> from tfn.compiler import numpy as tnp
    >>> jacfwd(lambda x: x * x)(tnp.asarray([1.0, 2.0])).tolist()
    [[2.0, 0.0], [0.0, 4.0]]
    """
    from ..numpy import moveaxis

    @functools.wraps(function)
    def jacobian(*args: Any, **kwargs: Any) -> Any:
        of, chosen = _chosen(function, argnums, args, kwargs)
        arrays, structure = _arrays(chosen)
        point = tree.unflatten(structure, arrays)

        def along(*directions):
            found = jvp(of, (point,), (tree.unflatten(structure, directions),), has_aux)
            return (found[1], found[2]) if has_aux else (found[1], None)

        columns, aux = vmap(along, out_axes=(0, None))(*_units(arrays))

        def rows(column):
            last = moveaxis(column, 0, -1)
            parts = _cut(last, last.ndim - 1, [a.shape for a in arrays])
            return tree.unflatten(structure, parts)

        found = tree.map(rows, columns)
        return (found, aux) if has_aux else found

    return jacobian


def jacrev(function: Callable, argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Callable:
    """The Jacobian by reverse mode, best for many inputs and few outputs; see `jacfwd`."""

    @functools.wraps(function)
    def jacobian(*args: Any, **kwargs: Any) -> Any:
        of, chosen = _chosen(function, argnums, args, kwargs)
        arrays, structure = _arrays(chosen)
        found = vjp(of, tree.unflatten(structure, arrays), has_aux=has_aux)
        y, pull = found[:2]
        outs, out_structure = tree.flatten(y)

        def back(*directions):
            return pull(tree.unflatten(out_structure, directions))[0]

        rows = tree.leaves(vmap(back)(*_units(outs)))
        parts = [_cut(r, 0, [o.shape for o in outs]) for r in rows]
        result = tree.unflatten(out_structure, [
            tree.unflatten(structure, [p[i] for p in parts]) for i in range(len(outs))])
        return (result, found[2]) if has_aux else result

    return jacobian


def hessian(function: Callable, argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Callable:
    """Second derivatives of a scalar function: forward over reverse."""
    return jacfwd(jacrev(function, argnums, has_aux), argnums, has_aux)


__all__ = ["hessian", "jacfwd", "jacrev"]
