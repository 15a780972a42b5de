"""`tfn.numpy.linalg`: factorisations, solvers, determinants, norms of matrices.

Matrices are the last two dims, all others are batch dims. Everything ends in ops (`ops.linalg`,
`ops.factorizations`), so it traces, compiles and differentiates. Where LAPACK would give up (a singular
matrix, one that is not positive definite), results are NaN or infinite: a traced program cannot
raise. 16-bit floats are computed in f32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from ..errors import OpError, user_location
from ..ir.dtypes import F32, I32, DType
from ..ops import factorizations
from ..ops import linalg as ops
from ..trace.core import bind
from . import elementwise as el
from . import linear
from .creation import eye, zeros
from .indexing import take_along_axis
from .linear import cross, matmul, matrix_transpose, tensordot, vecdot
from .manipulation import diagonal as _diagonal
from .manipulation import expand_dims, reshape, transpose
from .norms import matrix_norm, norm, vector_norm
from .promote import (
    ArrayLike,
    Value,
    asarray,
    broadcast_shapes,
    broadcast_to,
    convert,
    dtype_of,
    floating,
    normalize_axis,
    shape_text,
    to_dtype,
    unify,
)
from .reduction import all as all_
from .reduction import max as max_
from .reduction import prod
from .reduction import sum as sum_


class QR(NamedTuple):
    """Orthonormal columns and an upper triangular matrix."""

    Q: Value
    R: Value


class SVD(NamedTuple):
    """Left singular vectors, singular values (descending), right singular vectors as rows."""

    U: Value
    S: Value
    Vh: Value


class Eigen(NamedTuple):
    """Eigenvalues, and eigenvectors as columns."""

    eigenvalues: Value
    eigenvectors: Value


class SignedLog(NamedTuple):
    """The sign (complex: the phase) of a determinant and the logarithm of its size."""

    sign: Value
    logabsdet: Value


class LeastSquares(NamedTuple):
    """A solution, the sums of squared residuals, the rank, the singular values."""

    x: Value
    residuals: Value
    rank: Value
    s: Value


def _matrix(x: ArrayLike, name: str, square: bool = False) -> Value:
    x = floating(x)
    if len(x.shape) < 2 or (square and x.shape[-1] != x.shape[-2]):
        raise OpError(f"linalg.{name} needs {'square ' if square else ''}matrices, got an array of"
                      f" shape {shape_text(x.shape)}", user_location())
    return convert(x, F32) if dtype_of(x).is_float and dtype_of(x).bits < 32 else x


def _like(x: ArrayLike, *results: Value) -> list[Value]:
    """Results of a computation in f32 in the 16-bit type of its input."""
    dtype = dtype_of(floating(x))
    if dtype.kind == "complex" or dtype.bits >= 32:
        return list(results)
    return [convert(r, dtype) if dtype_of(r).is_float else r for r in results]


def _adjoint(x: Value) -> Value:
    return el.conj(matrix_transpose(x))


# -- factorisations -------------------------------------------------------------------------------

def cholesky(x: ArrayLike, upper: bool = False) -> Value:
    """The lower triangular L with L L^H = x (`upper`: U with U^H U = x); NaN if there is none."""
    a = _matrix(x, "cholesky", square=True)
    return _like(x, bind("stablehlo.cholesky", a, lower=not upper))[0]


def qr(x: ArrayLike, mode: str = "reduced"):
    """`QR` with Q R = x; `mode` "complete" makes Q square, "r" gives R only."""
    a = _matrix(x, "qr")
    m, n = a.shape[-2:]
    if mode not in ("reduced", "complete", "r"):
        raise OpError(f"qr mode {mode!r} is not one of reduced, complete, r", user_location())
    q, r = _like(x, *(factorizations.qr_complete(a) if mode == "complete" and m > n else ops.qr(a)))
    return r if mode == "r" else QR(q, r)


def svd(x: ArrayLike, full_matrices: bool = True, compute_uv: bool = True, hermitian: bool = False):
    """`SVD` with U diag(S) Vh = x; `full_matrices` makes U and Vh square (no derivative then)."""
    a = _matrix(x, "svd")
    m, n = a.shape[-2:]
    if not compute_uv:
        return svdvals(x)
    return SVD(*_like(x, *(factorizations.svd_full(a) if full_matrices and m != n else ops.svd(a))))


def svdvals(x: ArrayLike) -> Value:
    """The singular values, descending."""
    return _like(x, ops.svd(_matrix(x, "svdvals"))[1])[0]


def eigh(x: ArrayLike, UPLO: str = "L") -> Eigen:
    """`Eigen` of Hermitian matrices, from the lower ("L") or upper triangle; values ascending."""
    a = _matrix(x, "eigh", square=True)
    return Eigen(*_like(x, *ops.eigh(a if UPLO == "L" else _adjoint(a))))


def eigvalsh(x: ArrayLike, UPLO: str = "L") -> Value:
    """The eigenvalues of Hermitian matrices, ascending."""
    return eigh(x, UPLO).eigenvalues


def eig(x: ArrayLike) -> Eigen:
    """`Eigen` of any square matrices: complex, in no order. Distinct eigenvalues have
    derivatives, and their vectors, whose length is 1 and whose phase is free."""
    return Eigen(*factorizations.eig(_matrix(x, "eig", square=True)))


def eigvals(x: ArrayLike) -> Value:
    """The (complex) eigenvalues of square matrices."""
    return eig(x).eigenvalues


def lu_factor(x: ArrayLike) -> tuple[Value, Value]:
    """L (below the diagonal, which is 1) and U in one matrix, and LAPACK's row swaps (i32)."""
    lu, pivots, _ = ops.lu(_matrix(x, "lu_factor"))
    return _like(x, lu)[0], pivots


# -- determinants ---------------------------------------------------------------------------------

def _lu_diagonal(x: ArrayLike, name: str) -> tuple[Value, Value]:
    """The diagonal of U, and the sign (1 or -1) of the permutation of the rows."""
    lu, _, rows = ops.lu(_matrix(x, name, square=True))
    later = el.greater(expand_dims(rows, -1), expand_dims(rows, -2))
    place = eye(rows.shape[-1], dtype=I32)
    above = el.greater(place.cumsum(1) - place, 0)
    inversions = sum_(convert(el.logical_and(later, above), I32), (-2, -1))
    values = diagonal(lu)
    real = dtype_of(el.real(values))
    return values, convert(1 - 2 * el.mod(inversions, 2), real)


def det(x: ArrayLike) -> Value:
    """The determinant of square matrices."""
    values, sign = _lu_diagonal(x, "det")
    return _like(x, el.multiply(prod(values, -1), to_dtype(sign, dtype_of(values))))[0]


def slogdet(x: ArrayLike) -> SignedLog:
    """The sign and the logarithm of the size of the determinant; 0 and -inf if it is 0."""
    values, sign = _lu_diagonal(x, "slogdet")
    size = el.absolute(values)
    sign = el.multiply(to_dtype(sign, dtype_of(values)), prod(el.sign(values), -1))
    return SignedLog(*_like(x, sign, sum_(el.log(size), -1)))


# -- solvers --------------------------------------------------------------------------------------

def solve(a: ArrayLike, b: ArrayLike) -> Value:
    """x with a x = b; `b` is one vector (1-d) or matrices. Not finite for a singular `a`."""
    a, b = unify(floating(a), floating(b))
    matrix = _matrix(a, "solve", square=True)
    vector = len(b.shape) == 1
    right = convert(expand_dims(b, -1) if vector else b, dtype_of(matrix))
    if len(right.shape) < 2 or right.shape[-2] != matrix.shape[-1]:
        raise OpError(f"solve of {shape_text(a.shape)} and {shape_text(b.shape)}: the rows differ",
                      user_location())
    batch = broadcast_shapes(matrix.shape[:-2], right.shape[:-2])
    lu, _, rows = ops.lu(matrix)
    lu, rows = (broadcast_to(v, batch + v.shape[len(matrix.shape) - 2:]) for v in (lu, rows))
    right = broadcast_to(right, batch + right.shape[-2:])
    moved = take_along_axis(right, broadcast_to(expand_dims(rows, -1), right.shape), -2)
    x = _triangular(lu, _triangular(lu, moved, lower=True, unit=True), lower=False)
    x = reshape(x, x.shape[:-1]) if vector else x
    return _like(a, x)[0]


def _triangular(a: Value, b: Value, lower: bool, unit: bool = False,
                transpose_a: str = "NO_TRANSPOSE") -> Value:
    return bind("stablehlo.triangular_solve", a, b, left_side=True, lower=lower,
                unit_diagonal=unit, transpose_a=transpose_a)


def solve_triangular(a: ArrayLike, b: ArrayLike, lower: bool = False,
                     unit_diagonal: bool = False) -> Value:
    """x with a x = b for a triangular `a`, of which the other half is not read."""
    a, b = unify(floating(a), floating(b))
    matrix = _matrix(a, "solve_triangular", square=True)
    vector = len(b.shape) == len(a.shape) - 1
    right = convert(expand_dims(b, -1) if vector else b, dtype_of(matrix))
    batch = broadcast_shapes(matrix.shape[:-2], right.shape[:-2])
    matrix, right = (broadcast_to(v, batch + v.shape[-2:]) for v in (matrix, right))
    x = _triangular(matrix, right, lower, unit_diagonal)
    return _like(a, reshape(x, x.shape[:-1]) if vector else x)[0]


def inv(x: ArrayLike) -> Value:
    """The inverse of square matrices; not finite for a singular one."""
    a = _matrix(x, "inv", square=True)
    return _like(x, solve(a, eye(a.shape[-1], dtype=dtype_of(a))))[0]


def cholesky_inverse(x: ArrayLike, upper: bool = False) -> Value:
    """The inverse of the matrix whose Cholesky factor is `x`."""
    a = _matrix(x, "cholesky_inverse", square=True)
    one = broadcast_to(eye(a.shape[-1], dtype=dtype_of(a)), a.shape)
    root = solve_triangular(a, one, lower=not upper)
    return _like(x, matmul(root, _adjoint(root)) if upper else matmul(_adjoint(root), root))[0]


def pinv(x: ArrayLike, rcond=None, hermitian: bool = False, *, rtol=None) -> Value:
    """The Moore-Penrose inverse.

    Singular values up to `rtol` (`rcond`; by default max(m, n) eps) times the largest count as 0.
    """
    a = _matrix(x, "pinv")
    rtol = rcond if rtol is None else rtol
    real = dtype_of(el.real(a))
    cut = to_dtype(_tolerance(a, real) if rtol is None else rtol, real)
    return _like(x, factorizations.pinv(a, broadcast_to(cut, a.shape[:-2])))[0]


def _tolerance(a: Value, real: DType) -> float:
    from .dtypes import finfo

    return max(a.shape[-2:]) * finfo(real.numpy).eps


def lstsq(a: ArrayLike, b: ArrayLike, rcond: float | None = None) -> LeastSquares:
    """`LeastSquares` of |a x - b|; of several solutions the smallest.

    The residuals are empty unless `a` has more rows than columns. `rcond` as in `pinv`.
    """
    a, b = unify(floating(a), floating(b))
    matrix = _matrix(a, "lstsq")
    vector = len(b.shape) == 1
    right = convert(expand_dims(b, -1) if vector else b, dtype_of(matrix))
    values = svdvals(matrix)
    cut = _tolerance(matrix, dtype_of(values)) if rcond is None else rcond
    x = matmul(pinv(matrix, cut), right)
    m, n = matrix.shape[-2:]
    rest = el.subtract(right, matmul(matrix, x))
    residuals = sum_(el.square(el.absolute(rest)), -2) if m > n else zeros((0,), dtype_of(values))
    rank = _rank(values, cut)
    x = reshape(x, x.shape[:-1]) if vector else x
    x, residuals, values = _like(a, x, residuals, values)
    return LeastSquares(x, residuals, rank, values)


def _rank(values: Value, rtol: ArrayLike) -> Value:
    if values.shape[-1] == 0:
        return zeros(values.shape[:-1], I32)
    largest = max_(values, -1, keepdims=True)
    cut = el.multiply(largest, expand_dims(to_dtype(rtol, dtype_of(values)), -1))
    return sum_(convert(el.greater(values, cut), I32), -1)


def matrix_rank(x: ArrayLike, tol: ArrayLike | None = None, hermitian: bool = False, *,
                rtol: ArrayLike | None = None) -> Value:
    """The number (i32) of singular values above `tol`, or above `rtol` times the largest."""
    x = floating(x)
    if len(x.shape) < 2:
        return convert(el.logical_not(all_(el.equal(x, 0))), I32)
    values = svdvals(x)
    if tol is not None:
        return sum_(convert(el.greater(values, expand_dims(to_dtype(tol, dtype_of(values)), -1)),
                            I32), -1)
    return _rank(values, _tolerance(x, dtype_of(values)) if rtol is None else rtol)


def cond(x: ArrayLike, p: float | str | None = None) -> Value:
    """The condition number: the norm of `x` times that of its inverse, 2-norms by default."""
    if p is None or p in (2, -2):
        values = svdvals(x)
        large, small = values[..., 0], values[..., -1]
        return el.divide(small, large) if p == -2 else el.divide(large, small)
    return el.multiply(matrix_norm(x, ord=p), matrix_norm(inv(x), ord=p))


# -- products and parts ---------------------------------------------------------------------------

def matrix_power(x: ArrayLike, n: int) -> Value:
    """`x` multiplied by itself `n` times; of the inverse for a negative `n`."""
    x = asarray(x)
    if len(x.shape) < 2 or x.shape[-1] != x.shape[-2]:
        raise OpError(f"linalg.matrix_power needs square matrices, got {shape_text(x.shape)}",
                      user_location())
    if n < 0:
        return matrix_power(inv(x), -n)
    result, square = None, x
    while n:
        if n & 1:
            result = square if result is None else matmul(result, square)
        n >>= 1
        square = matmul(square, square) if n else square
    return broadcast_to(eye(x.shape[-1], dtype=dtype_of(x)), x.shape) if result is None else result


def multi_dot(arrays: Sequence[ArrayLike]) -> Value:
    """The product of several matrices (the first and last may be vectors), cheapest order first."""
    values = unify(*arrays)
    names, operands = 0, []
    for i, v in enumerate(values):
        first = i > 0 or len(v.shape) > 1
        last = i < len(values) - 1 or len(v.shape) > 1
        operands.append("".join(chr(97 + names + d) for d in range(first + last)))
        names += first + last - 1
    ends = [n for n in "".join(operands) if "".join(operands).count(n) == 1]
    return linear.einsum(f"{','.join(operands)}->{''.join(ends)}", *values)


def outer(x: ArrayLike, y: ArrayLike) -> Value:
    """x[i] * y[j] of two 1-d arrays."""
    a, b = asarray(x), asarray(y)
    if len(a.shape) != 1 or len(b.shape) != 1:
        raise OpError(f"linalg.outer needs 1-d arrays, got {shape_text(a.shape)} and"
                      f" {shape_text(b.shape)}", user_location())
    return linear.outer(a, b)


def diagonal(x: ArrayLike, offset: int = 0) -> Value:
    """The elements x[..., i, i + offset] as a last dim."""
    return _diagonal(x, offset, -2, -1)


def trace(x: ArrayLike, offset: int = 0, dtype=None) -> Value:
    """The sum of the `offset`-th diagonal of the last two dims."""
    return sum_(diagonal(x, offset), -1, dtype)


def tensorsolve(a: ArrayLike, b: ArrayLike, axes: Sequence[int] | None = None) -> Value:
    """x with tensordot(a, x, ndim(x)) = b; `axes` of `a` are moved to its end first."""
    a, b = asarray(a), asarray(b)
    if axes is not None:
        moved = [normalize_axis(d, len(a.shape)) for d in axes]
        a = transpose(a, [d for d in range(len(a.shape)) if d not in moved] + moved)
    shape = a.shape[len(b.shape):]
    size = math.prod(shape)
    return reshape(solve(reshape(a, (-1, size)), reshape(b, (-1,))), shape)


def tensorinv(x: ArrayLike, ind: int = 2) -> Value:
    """The inverse with respect to tensordot of the first `ind` dims and the rest."""
    x = asarray(x)
    first, rest = x.shape[:ind], x.shape[ind:]
    size = math.prod(first)
    return reshape(inv(reshape(x, (size, -1))), rest + first)


__all__ = ["cholesky", "cholesky_inverse", "cond", "cross", "det", "diagonal", "eig", "eigh",
           "eigvals", "eigvalsh", "inv", "lstsq", "lu_factor", "matmul", "matrix_norm",
           "matrix_power", "matrix_rank", "matrix_transpose", "multi_dot", "norm", "outer", "pinv",
           "qr", "slogdet", "solve", "solve_triangular", "svd", "svdvals", "tensordot",
           "tensorinv", "tensorsolve", "trace", "vecdot", "vector_norm"]
