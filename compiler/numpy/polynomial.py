"""Polynomials as 1-d arrays of coefficients, the highest power first.

How many leading coefficients are zero depends on values, so only `roots` and `polydiv` on concrete
arrays drop them; everything else keeps the length its arguments imply, and traces.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..errors import OpError, user_location
from . import elementwise as el
from . import linalg
from .creation import arange, eye, ones, zeros
from .manipulation import concatenate, expand_dims, ravel
from .padding import pad
from .promote import (
    ArrayLike,
    Value,
    asarray,
    broadcast_to,
    dtype_of,
    floating,
    result_type,
    shape_text,
    to_dtype,
    unify,
)
from .reduction import sum as sum_
from .signals import convolve
from .statistics import vander


class Fit(NamedTuple):
    """Coefficients; sums of squared residuals, the rank, singular values, the cut of the fit."""

    coefficients: Value
    residuals: Value
    rank: Value
    singular_values: Value
    rcond: float


def _coefficients(p: ArrayLike, name: str) -> Value:
    p = asarray(p)
    if len(p.shape) > 1:
        raise OpError(f"{name} needs 1-d coefficients, got an array of shape {shape_text(p.shape)}",
                      user_location())
    return p if p.shape else expand_dims(p, 0)


def polyval(p: ArrayLike, x: ArrayLike) -> Value:
    """p[0] x**(n-1) + ... + p[n-1], by Horner's rule."""
    p = _coefficients(p, "polyval")
    dtype = result_type(p, x)
    p, x = to_dtype(p, dtype), to_dtype(x, dtype)
    total = zeros(x.shape, dtype)
    for i in range(p.shape[0]):
        total = el.add(el.multiply(total, x), p[i])
    return total


def _aligned(a: ArrayLike, b: ArrayLike, name: str) -> list[Value]:
    """Both with as many coefficients as the longer has, and their common type."""
    a, b = unify(_coefficients(a, name), _coefficients(b, name))
    size = max(a.shape[0], b.shape[0])
    return [pad(p, ((size - p.shape[0], 0),)) for p in (a, b)]


def polyadd(a: ArrayLike, b: ArrayLike) -> Value:
    """The sum of two polynomials."""
    return el.add(*_aligned(a, b, "polyadd"))


def polysub(a: ArrayLike, b: ArrayLike) -> Value:
    """The difference of two polynomials."""
    return el.subtract(*_aligned(a, b, "polysub"))


def polymul(a: ArrayLike, b: ArrayLike, *, trim_leading_zeros: bool = False) -> Value:
    """The product of two polynomials; `trim_leading_zeros` of concrete ones first."""
    a, b = _coefficients(a, "polymul"), _coefficients(b, "polymul")
    if trim_leading_zeros:
        a, b = _trimmed(a), _trimmed(b)
    a, b = (p if p.shape[0] else zeros((1,), dtype_of(p)) for p in (a, b))
    return convolve(a, b)


def _trimmed(p: Value) -> Value:
    """A concrete polynomial without its leading zeros, at least one coefficient."""
    from .sorting import concrete

    places = np.flatnonzero(concrete(p, "trim_leading_zeros"))
    return p[int(places[0]):] if places.size else p[-1:]


def polydiv(a: ArrayLike, b: ArrayLike, *, trim_leading_zeros: bool = False) -> tuple[Value, Value]:
    """Quotient and remainder of long division.

    `trim_leading_zeros` (concrete arrays only) shortens the remainder as NumPy does.
    """
    a, b = unify(floating(_coefficients(a, "polydiv")), floating(_coefficients(b, "polydiv")))
    steps = a.shape[0] - b.shape[0] + 1
    if steps <= 0:
        return zeros((1,), dtype_of(a)), _trimmed(a) if trim_leading_zeros else a
    quotient, rest = [], a
    for _ in range(steps):
        factor = el.divide(rest[0], b[0])
        quotient.append(expand_dims(factor, 0))
        head = el.subtract(rest[1:b.shape[0]], el.multiply(b[1:], factor))
        rest = concatenate([head, rest[b.shape[0]:]])
    rest = pad(rest, ((a.shape[0] - rest.shape[0], 0),))
    return concatenate(quotient), _trimmed(rest) if trim_leading_zeros else rest


def polyder(p: ArrayLike, m: int = 1) -> Value:
    """The `m`-th derivative."""
    if m < 0:
        raise OpError(f"polyder needs m >= 0, got {m}", user_location())
    p = _coefficients(p, "polyder")
    for _ in range(m):
        powers = to_dtype(arange(p.shape[0])[::-1], dtype_of(p))
        p = el.multiply(p, powers)[:-1]
    return p


def polyint(p: ArrayLike, m: int = 1, k: ArrayLike | None = None) -> Value:
    """The `m`-th integral; `k` are its constants (one for all, or one per integration)."""
    if m < 0:
        raise OpError(f"polyint needs m >= 0, got {m}", user_location())
    p = floating(_coefficients(p, "polyint"))
    constants = broadcast_to(ravel(to_dtype(0 if k is None else k, dtype_of(p))), (m,))
    for i in range(m):
        powers = to_dtype(arange(p.shape[0], 0, -1), dtype_of(p))
        p = concatenate([el.divide(p, powers), constants[i:i + 1]])
    return p


def poly(roots_or_matrix: ArrayLike) -> Value:
    """The polynomial with the given roots, or the characteristic one of a square matrix."""
    x = floating(roots_or_matrix)
    if len(x.shape) == 2:
        real = dtype_of(x).is_float
        x = linalg.eigvals(x)
        result = _from_roots(x)
        return el.real(result) if real else result
    return _from_roots(_coefficients(x, "poly"))


def _from_roots(zeros_: Value) -> Value:
    result = ones((1,), dtype_of(zeros_))
    for i in range(zeros_.shape[0]):
        shifted = el.multiply(result, zeros_[i])
        result = el.subtract(pad(result, ((0, 1),)), pad(shifted, ((1, 0),)))
    return result


def roots(p: ArrayLike, *, strip_zeros: bool = True) -> Value:
    """The (complex) roots, as eigenvalues of the companion matrix.

    `strip_zeros` drops leading and trailing zero coefficients, whose number depends on values; pass
    False for a traced `p`, whose first coefficient must not be 0 then.
    """
    p = floating(_coefficients(p, "roots"))
    trailing = 0
    if strip_zeros:
        from .sorting import concrete

        places = np.flatnonzero(concrete(p, "roots with strip_zeros"))
        if not places.size:
            return zeros((0,), dtype_of(p))
        trailing = p.shape[0] - 1 - int(places[-1])
        p = p[int(places[0]):int(places[-1]) + 1]
    size = p.shape[0] - 1
    if size < 1:
        found = zeros((0,), result_type(p, 0j))
    else:
        top = expand_dims(el.negative(el.divide(p[1:], p[0])), 0)
        found = linalg.eigvals(concatenate([top, eye(size - 1, size, dtype=dtype_of(p))]))
    return pad(found, ((0, trailing),))


def polyfit(x: ArrayLike, y: ArrayLike, deg: int, rcond: float | None = None, full: bool = False,
            w: ArrayLike | None = None, cov: bool | str = False):
    """The polynomial of degree `deg` nearest to the points (x, y) in least squares.

    `y` may have several columns; `w` weighs the points. `full` gives a `Fit`; `cov` also gives the
    covariance of the coefficients, scaled by the residuals unless it is "unscaled".
    """
    dtype = result_type(x, y, 0.0)
    x, y = to_dtype(x, dtype), to_dtype(y, dtype)
    if len(x.shape) != 1 or len(y.shape) not in (1, 2) or x.shape[0] != y.shape[0]:
        raise OpError(f"polyfit needs 1-d x and as many rows of y, got {shape_text(x.shape)} and"
                      f" {shape_text(y.shape)}", user_location())
    count, order = x.shape[0], deg + 1
    cut = count * float(np.finfo(x.dtype).eps) if rcond is None else rcond
    system = vander(x, order)
    if w is not None:
        weight = to_dtype(w, dtype)
        system = el.multiply(system, expand_dims(weight, 1))
        y = el.multiply(y, expand_dims(weight, 1) if len(y.shape) == 2 else weight)
    # Columns of length 1: the powers of x differ by orders of magnitude.
    scale = el.sqrt(sum_(el.square(system), 0))
    scale = el.where(el.equal(scale, 0), 1, scale)
    scaled = el.divide(system, scale)
    fit, residuals, rank, values = linalg.lstsq(scaled, y, cut)
    found = el.divide(fit, expand_dims(scale, 1) if len(y.shape) == 2 else scale)
    if full:
        return Fit(found, residuals, rank, values, cut)
    if not cov:
        return found
    gram = linalg.inv(linalg.matmul(linalg.matrix_transpose(scaled), scaled))
    gram = el.divide(gram, el.multiply(expand_dims(scale, 1), scale))
    if cov == "unscaled":
        factor: Value = ones((), dtype)
    else:
        if count <= order:
            raise OpError(f"polyfit with cov needs more than {order} points for degree {deg}, got"
                          f" {count}", user_location())
        miss = el.subtract(y, linalg.matmul(scaled, fit))
        factor = el.divide(sum_(el.square(miss), 0), count - order)
    if len(y.shape) == 2:
        return found, el.multiply(expand_dims(gram, -1), factor)
    return found, el.multiply(gram, factor)


__all__ = ["Fit", "poly", "polyadd", "polyder", "polydiv", "polyfit", "polyint", "polymul", "polysub",
           "polyval", "roots"]
