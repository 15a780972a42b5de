"""Norms of vectors and matrices."""

from __future__ import annotations

import math

from ..errors import OpError, user_location
from . import elementwise as el
from .manipulation import expand_dims, moveaxis
from .promote import (
    ArrayLike,
    Value,
    convert,
    dtype_of,
    floating,
    normalize_axes,
    normalize_axis,
    shape_text,
)
from .reduction import max as max_
from .reduction import min as min_
from .reduction import sum as sum_


def vector_norm(x: ArrayLike, axis=None, keepdims: bool = False, ord: float = 2) -> Value:
    """(sum |x|**ord)**(1 / ord) over `axis` (all by default); the limits at inf, -inf and 0."""
    x = floating(x)
    size = el.absolute(x)
    if ord == math.inf:
        return max_(size, axis, keepdims, initial=0)
    if ord == -math.inf:
        return min_(size, axis, keepdims, initial=math.inf)
    if ord == 0:
        return sum_(convert(el.not_equal(x, 0), dtype_of(size)), axis, keepdims=keepdims)
    if ord == 1:
        return sum_(size, axis, keepdims=keepdims)
    if ord == 2:
        return el.sqrt(sum_(el.square(size), axis, keepdims=keepdims))
    return el.power(sum_(el.power(size, ord), axis, keepdims=keepdims), 1.0 / ord)


def matrix_norm(x: ArrayLike, keepdims: bool = False, ord: float | str | None = "fro") -> Value:
    """A norm of the last two dims.

    `ord`: "fro" (also None), "nuc" (the sum of the singular values), 1 and inf (the largest column
    and row sum of absolute values), 2 (the largest singular value), and -1, -inf, -2 (the smallest).
    """
    x = floating(x)
    if len(x.shape) < 2:
        raise OpError(f"matrix_norm needs two dims, got {shape_text(x.shape)}", user_location())
    if ord is None or ord == "fro":
        return vector_norm(x, (-2, -1), keepdims)
    extreme = max_ if isinstance(ord, str) or ord > 0 else min_
    initial = 0 if extreme is max_ else math.inf
    if ord in ("nuc", 2, -2):
        from .linalg import svdvals

        values = svdvals(x)
        result = sum_(values, -1) if ord == "nuc" else extreme(values, -1, initial=initial)
    elif ord in (1, -1, math.inf, -math.inf):
        sums = sum_(el.absolute(x), -2 if ord in (1, -1) else -1)
        result = extreme(sums, -1, initial=initial)
    else:
        raise OpError(f"matrix_norm has no order {ord!r}", user_location())
    return expand_dims(result, (-2, -1)) if keepdims else result


def norm(x: ArrayLike, ord: float | str | None = None, axis=None,
         keepdims: bool = False) -> Value:
    """NumPy's norm: a vector norm over one axis, a matrix norm over two; 2 or "fro" by default."""
    x = floating(x)
    rank = len(x.shape)
    if ord is None:
        return vector_norm(x, axis, keepdims)
    axes = normalize_axes(axis, rank) if axis is None or not isinstance(axis, (tuple, list)) else (
        tuple(normalize_axis(a, rank) for a in axis))
    if len(axes) == 1 and not isinstance(ord, str):
        return vector_norm(x, axes, keepdims, ord)
    if len(axes) != 2:
        raise OpError(f"norm of order {ord!r} is of one or two axes, got {len(axes)}",
                      user_location())
    result = matrix_norm(moveaxis(x, axes, (-2, -1)), keepdims, ord)
    return moveaxis(result, (-2, -1), axes) if keepdims else result


__all__ = ["matrix_norm", "norm", "vector_norm"]
