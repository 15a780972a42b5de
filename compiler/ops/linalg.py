"""Linear algebra through NumPy's LAPACK on the host: triangular_solve, cholesky, and the custom calls
`tfn.qr`, `tfn.svd`, `tfn.eigh`, `tfn.lu`.

Matrices are the last two dims; all others are batch dims. Derivatives follow the convention that a
cotangent is transposed, not conjugated. Sources: Giles, "An extended collection of matrix derivative
results" (2008); Walter and Lehmann (2010) for QR; Wan and Zhang (2019) for SVD.
"""

from __future__ import annotations

import numpy as np

from ..errors import OpError
from ..ir.core import TensorType
from ..ir.dtypes import I32, as_dtype, widened
from ..trace.core import bind
from .custom_call import register
from .declare import COMPLEX, FLOAT, Factors, OpDefinition, op, require

_WIDE = frozenset(d for d in FLOAT | COMPLEX if not d.is_narrow)


def _matrices(op) -> Factors:
    """Batch dims move together; the matrices are whole."""
    row = [tuple(d if d < len(v.shape) - 2 else None for d in range(len(v.shape)))
           for v in (*op.operands, *op.results)]
    return Factors(row[: len(op.operands)], row[len(op.operands):])


def _transposed(x, conjugate: bool = False):
    """The matrix transposed, perhaps conjugated."""
    from ..numpy import conjugate as conj
    from ..numpy import swapaxes

    x = swapaxes(x, -1, -2)
    return conj(x) if conjugate else x


def _triangle(x, lower: bool, unit_diagonal: bool = False):
    from ..numpy import tril, triu

    return tril(x, -1 if unit_diagonal else 0) if lower else triu(x, 1 if unit_diagonal else 0)


# -- triangular_solve -----------------------------------------------------------------------------

@op("stablehlo.triangular_solve")
class TriangularSolve(OpDefinition):
    """x with op(a) x = b (`left_side`) or x op(a) = b, for a triangular a; op as `transpose_a` says."""

    host = True
    attributes = {"left_side": "bool", "lower": "bool", "unit_diagonal": "bool",
                  "transpose_a": "transpose"}
    factors = staticmethod(_matrices)

    def infer(operands, attributes, regions):
        a, b = operands
        require(a.dtype is b.dtype and a.dtype in FLOAT | COMPLEX, "C1",
                f"triangular_solve of {a} and {b} needs one float or complex type")
        require(a.rank == b.rank >= 2, "C2", f"triangular_solve of {a} and {b} needs matrices")
        require(a.shape[:-2] == b.shape[:-2], "C3", f"the batch dims of {a} and {b} differ")
        require(a.shape[-1] == a.shape[-2], "C3", f"{a} is not square")
        side = b.shape[-2] if attributes["left_side"] else b.shape[-1]
        require(a.shape[-1] == side, "C3", f"{a} and {b} do not fit")
        return [b]

    def evaluate(operands, attributes, regions, result_types):
        a, b = map(widened, operands)
        a = np.tril(a) if attributes["lower"] else np.triu(a)
        lower = attributes["lower"]
        if attributes["transpose_a"] != "NO_TRANSPOSE":
            a, lower = np.swapaxes(a, -1, -2), not lower
        if attributes["transpose_a"] == "ADJOINT":
            a = a.conj()
        if not attributes["left_side"]:
            a, b, lower = np.swapaxes(a, -1, -2), np.swapaxes(b, -1, -2), not lower
        x = _substitute(a, b, lower, attributes["unit_diagonal"])
        return [x if attributes["left_side"] else np.swapaxes(x, -1, -2)]

    def batch(op, operands, batched, batch):
        return batch.bind(op, *batch.spread_all(operands, batched))

    def vjp(cotangents, op, operands, results):
        from ..numpy import conjugate, matmul, negative

        (a, _), (x,), ct = operands, results, cotangents[0]
        attributes = dict(op.attributes)
        mode, left = attributes["transpose_a"], attributes["left_side"]
        adjoint = mode == "ADJOINT"
        # With M = op(a): b's cotangent solves with the transpose of M.
        matrix = conjugate(a) if adjoint else a
        back = "TRANSPOSE" if mode == "NO_TRANSPOSE" else "NO_TRANSPOSE"
        ct_b = bind("stablehlo.triangular_solve", matrix, ct,
                    **{**attributes, "transpose_a": back})
        if left:
            ct_m = negative(matmul(ct_b, _transposed(x)))
        else:
            ct_m = negative(matmul(_transposed(x), ct_b))
        ct_a = ct_m if mode == "NO_TRANSPOSE" else _transposed(ct_m, conjugate=adjoint)
        return [_triangle(ct_a, attributes["lower"], attributes["unit_diagonal"]), ct_b]


def _substitute(a: np.ndarray, b: np.ndarray, lower: bool, unit_diagonal: bool) -> np.ndarray:
    """Forward or backward substitution, row by row."""
    x = np.zeros(b.shape, b.dtype)
    rows = range(a.shape[-1]) if lower else reversed(range(a.shape[-1]))
    for i in rows:
        done = slice(0, i) if lower else slice(i + 1, None)
        rest = b[..., i, :] - np.matmul(a[..., i: i + 1, done], x[..., done, :])[..., 0, :]
        x[..., i, :] = rest if unit_diagonal else rest / a[..., i, i, None]
    return x


# -- cholesky -------------------------------------------------------------------------------------

@op("stablehlo.cholesky")
class Cholesky(OpDefinition):
    """The factor of a = l l^H (`lower`) or u^H u; NaN where a is not positive definite."""

    host = True
    attributes = {"lower": "bool"}
    optional = frozenset({"lower"})
    factors = staticmethod(_matrices)

    def infer(operands, attributes, regions):
        (a,) = operands
        require(a.dtype in FLOAT | COMPLEX, "I1", f"cholesky of {a}")
        require(a.rank >= 2, "C2", f"cholesky of {a}, which is no matrix")
        require(a.shape[-1] == a.shape[-2], "C3", f"cholesky of {a}, which is not square")
        return [a]

    def evaluate(operands, attributes, regions, result_types):
        a, lower = widened(operands[0]), attributes.get("lower", False)
        a = a if lower else np.swapaxes(a, -1, -2).conj()
        result = np.empty(a.shape, a.dtype)
        for place in np.ndindex(a.shape[:-2]):
            try:
                result[place] = np.linalg.cholesky(a[place])
            except np.linalg.LinAlgError:
                result[place] = np.tril(np.full(a.shape[-2:], np.nan, a.dtype))
        return [result if lower else np.swapaxes(result, -1, -2).conj()]

    def batch(op, operands, batched, batch):
        return batch.bind(op, *batch.spread_all(operands, batched))

    def vjp(cotangents, op, operands, results):
        from ..numpy import conjugate, eye, matmul, tril

        ct, factor = cotangents[0], results[0]
        lower = op.attributes.get("lower", False)
        if not lower:
            ct, factor = _transposed(ct, conjugate=True), _transposed(factor, conjugate=True)
        # With conjugated cotangents the formula is that of real matrices.
        ct = conjugate(ct)
        n = factor.shape[-1]
        inner = tril(matmul(_transposed(factor, conjugate=True), ct))
        inner = inner - inner * eye(n, dtype=inner.dtype) * 0.5
        solve = dict(lower=True, unit_diagonal=False, transpose_a="ADJOINT")
        left = bind("stablehlo.triangular_solve", factor, inner, left_side=True, **solve)
        both = bind("stablehlo.triangular_solve", factor, left, left_side=False,
                    **{**solve, "transpose_a": "NO_TRANSPOSE"})
        symmetric = (both + _transposed(both, conjugate=True)) * 0.5
        return [conjugate(symmetric)]


# -- factorisations by custom call ----------------------------------------------------------------

def _check(shapes):
    """A check of a call with one matrix operand; `shapes(batch, m, n, attributes)` gives the results'
    shapes."""

    def check(operands, attributes, result_types):
        name = attributes["call_target_name"]
        if len(operands) != 1 or operands[0].rank < 2 or operands[0].dtype not in _WIDE:
            raise OpError(f"@{name} takes one matrix of f32, f64 or complex, got"
                          f" {', '.join(map(str, operands))}")
        *batch, m, n = operands[0].shape
        expected = [(*batch, *s) for s in shapes(m, n)]
        if [tuple(t.shape) for t in result_types] != expected:
            raise OpError(f"@{name} of {operands[0]} gives shapes {expected}, not"
                          f" {', '.join(map(str, result_types))}")

    return check


def _flat(function):
    """Apply a function of one matrix to every matrix of a batch; NaN where LAPACK gives up."""

    def evaluate(operands, attributes, result_types):
        a = operands[0]
        results = [np.empty(t.shape, t.dtype.numpy) for t in result_types]
        for place in np.ndindex(a.shape[:-2]):
            try:
                parts = function(a[place])
            except np.linalg.LinAlgError:
                parts = [np.nan if r.dtype.kind in "fc" else 0 for r in results]
            for result, part in zip(results, parts, strict=True):
                result[place] = part
        return results

    return evaluate


def _lu(a: np.ndarray):
    """Row-pivoted LU in one matrix, each step's pivot row, and the rows as they were moved."""
    lu, rows = a.copy(), np.arange(a.shape[0], dtype=np.int32)
    pivots = np.arange(min(a.shape), dtype=np.int32)
    for k in range(min(a.shape)):
        pivot = pivots[k] = k + int(np.argmax(np.abs(lu[k:, k])))
        if pivot != k:
            lu[[k, pivot]], rows[[k, pivot]] = lu[[pivot, k]], rows[[pivot, k]]
        if lu[k, k] != 0:
            lu[k + 1:, k] /= lu[k, k]
            lu[k + 1:, k + 1:] -= np.outer(lu[k + 1:, k], lu[k, k + 1:])
    return lu, pivots, rows


def _call(name: str, x, types) -> list:
    results = bind("stablehlo.custom_call", x, call_target_name=name, types=tuple(types))
    return results if isinstance(results, list) else [results]


def _typed(x, *shapes, real=()) -> list[TensorType]:
    dtype = x.type.dtype
    part = {"complex<f32>": "f32", "complex<f64>": "f64"}.get(dtype.name, dtype.name)
    from ..ir.dtypes import by_name

    *batch, _, _ = x.shape
    return [TensorType((*batch, *s), by_name(part) if i in real else dtype)
            for i, s in enumerate(shapes)]


def qr(x) -> list:
    """Reduced QR: q with orthonormal columns, r upper triangular."""
    m, n = x.shape[-2:]
    k = min(m, n)
    return _call("tfn.qr", x, _typed(x, (m, k), (k, n)))


def svd(x) -> list:
    """Reduced singular value decomposition: u, s (descending, real), v^H."""
    m, n = x.shape[-2:]
    k = min(m, n)
    return _call("tfn.svd", x, _typed(x, (m, k), (k,), (k, n), real=(1,)))


def eigh(x) -> list:
    """Eigenvalues (ascending, real) and eigenvectors of a Hermitian matrix, from its lower half."""
    n = x.shape[-1]
    return _call("tfn.eigh", x, _typed(x, (n,), (n, n), real=(0,)))


def lu(x) -> list:
    """LU with row pivoting: both factors in one matrix, the row swapped in at each step, and the
    permutation of the rows (both i32, from 0)."""
    m, n = x.shape[-2:]
    matrix, pivots, rows = _typed(x, (m, n), (min(m, n),), (m,))
    return _call("tfn.lu", x, [matrix, pivots.with_dtype(I32), rows.with_dtype(I32)])


def _or_zeros(ct, like):
    from ..numpy import zeros_like

    return zeros_like(like) if ct is None else ct


def _wide_qr(x):
    """QR of fewer rows than columns by that of its first columns."""
    from ..numpy import concatenate, matmul

    m = x.shape[-2]
    q, r = qr(x[..., :m])
    return q, concatenate([r, matmul(_transposed(q, conjugate=True), x[..., m:])], -1)


def _qr_vjp(cotangents, op, operands, results):
    from ..numpy import conjugate, matmul, tril
    from .functional import pull_all

    q, r = results
    m, n = operands[0].shape[-2:]
    if m < n:
        return pull_all(_wide_qr, operands, cotangents, results)
    ct_q, ct_r = (conjugate(_or_zeros(c, v)) for c, v in zip(cotangents, results, strict=True))
    inner = (matmul(r, _transposed(ct_r, conjugate=True))
             - matmul(_transposed(ct_q, conjugate=True), q))
    strict = tril(inner, -1)
    diagonal = tril(inner) - strict
    hermitian = strict + _transposed(strict, conjugate=True) + (
        diagonal + _transposed(diagonal, conjugate=True)) * 0.5
    right = ct_q + matmul(q, hermitian)
    back = bind("stablehlo.triangular_solve", r, right, left_side=False, lower=False,
                unit_diagonal=False, transpose_a="ADJOINT")
    return [conjugate(back)]


def _gaps(values):
    """1 / (v[j] - v[i]), zero on the diagonal and for equal values."""
    from ..numpy import expand_dims, where

    gap = expand_dims(values, -2) - expand_dims(values, -1)
    nonzero = gap != 0
    return where(nonzero, 1 / where(nonzero, gap, 1.0), 0.0)


def _eigh_vjp(cotangents, op, operands, results):
    from ..numpy import conjugate, expand_dims, eye, matmul

    values, vectors = results
    ct_values = _or_zeros(cotangents[0], values)
    inner = eye(values.shape[-1], dtype=vectors.dtype) * expand_dims(ct_values, -1)
    if cotangents[1] is not None:
        ct = conjugate(cotangents[1])
        inner = inner + _gaps(values) * matmul(_transposed(vectors, conjugate=True), ct)
    full = matmul(matmul(vectors, inner), _transposed(vectors, conjugate=True))
    return [conjugate((full + _transposed(full, conjugate=True)) * 0.5)]


def _svd_vjp(cotangents, op, operands, results):
    from ..numpy import conjugate, expand_dims, eye, matmul

    u, s, vh = results
    v = _transposed(vh, conjugate=True)
    m, n = operands[0].shape[-2:]
    ct_s = _or_zeros(cotangents[1], s)
    k = s.shape[-1]
    one = eye(k, dtype=u.dtype)
    inner = one * expand_dims(ct_s, -1)
    squares = _gaps(s * s)
    row, column = expand_dims(s, -2), expand_dims(s, -1)
    outer = None
    if cotangents[0] is not None:
        ct_u = conjugate(cotangents[0])
        g = squares * matmul(_transposed(u, conjugate=True), ct_u)
        inner = inner + (g + _transposed(g, conjugate=True)) * row
        if as_dtype(u.dtype).kind == "complex":
            # The phases of u and v are one: where v's does not move, u's does.
            turn = one * matmul(_transposed(u, conjugate=True), ct_u)
            inner = inner + (turn - conjugate(turn)) * 0.5 / row
        if m > k:
            rest = (ct_u - matmul(u, matmul(_transposed(u, conjugate=True), ct_u))) / row
            outer = matmul(rest, vh)
    if cotangents[2] is not None:
        ct_v = _transposed(cotangents[2])
        g = squares * matmul(vh, ct_v)
        inner = inner + column * (g + _transposed(g, conjugate=True))
        if n > k:
            rest = (ct_v - matmul(v, matmul(vh, ct_v))) / row
            part = matmul(u, _transposed(rest, conjugate=True))
            outer = part if outer is None else outer + part
    full = matmul(matmul(u, inner), vh)
    return [conjugate(full if outer is None else full + outer)]


def _oblong_lu(x):
    """LU of a matrix that is not square, in the order its rows are in, by that of its square part."""
    from ..numpy import concatenate

    m, n = x.shape[-2:]
    k = min(m, n)
    square = _square_lu(x[..., :k, :k])
    if m < n:
        rest = bind("stablehlo.triangular_solve", square, x[..., k:], left_side=True, lower=True,
                    unit_diagonal=True, transpose_a="NO_TRANSPOSE")
        return concatenate([square, rest], -1)
    rest = bind("stablehlo.triangular_solve", square, x[..., k:, :], left_side=False, lower=False,
                unit_diagonal=False, transpose_a="NO_TRANSPOSE")
    return concatenate([square, rest], -2)


def _square_lu(x):
    """LU without pivoting, for a matrix whose rows are in order."""
    return bind("stablehlo.custom_call", x, call_target_name="tfn.lu_in_order", types=(x.type,))


def _lu_in_order(a: np.ndarray):
    lu = a.copy()
    for k in range(a.shape[-1]):
        lu[k + 1:, k] /= lu[k, k]
        lu[k + 1:, k + 1:] -= np.outer(lu[k + 1:, k], lu[k, k + 1:])
    return [lu]


def _lu_vjp(cotangents, op, operands, results):
    from ..numpy import argsort, expand_dims, take_along_axis
    from .functional import pull_all

    matrix, _, rows = results
    m, n = operands[0].shape[-2:]
    if cotangents[0] is None:
        return [None]
    if m != n:
        return pull_all(lambda x: [_oblong_lu(take_along_axis(x, expand_dims(rows, -1), -2))],
                        operands, cotangents[:1], results[:1])
    (both,) = _lu_in_order_vjp(cotangents[:1], op, operands, [matrix])
    return [take_along_axis(both, expand_dims(argsort(rows, -1), -1), -2)]


def _lu_in_order_vjp(cotangents, op, operands, results):
    from ..numpy import conjugate, eye, matmul, tril, triu

    (matrix,), ct = results, conjugate(cotangents[0])
    n = matrix.shape[-1]
    lower = tril(matrix, -1) + eye(n, dtype=matrix.dtype)
    upper = triu(matrix)
    inner = (tril(matmul(_transposed(lower, conjugate=True), tril(ct, -1)), -1)
             + triu(matmul(triu(ct), _transposed(upper, conjugate=True))))
    left = bind("stablehlo.triangular_solve", lower, inner, left_side=True, lower=True,
                unit_diagonal=True, transpose_a="ADJOINT")
    both = bind("stablehlo.triangular_solve", upper, left, left_side=False, lower=False,
                unit_diagonal=False, transpose_a="ADJOINT")
    return [conjugate(both)]


register("tfn.qr", _flat(lambda a: np.linalg.qr(a)), vjp=_qr_vjp, leading=True,
         check=_check(lambda m, n: [(m, min(m, n)), (min(m, n), n)]))
register("tfn.svd", _flat(lambda a: np.linalg.svd(a, full_matrices=False)), vjp=_svd_vjp, leading=True,
         check=_check(lambda m, n: [(m, min(m, n)), (min(m, n),), (min(m, n), n)]))
register("tfn.eigh", _flat(lambda a: np.linalg.eigh(a)), vjp=_eigh_vjp, leading=True,
         check=_check(lambda m, n: [(n,), (m, n)]))
register("tfn.lu", _flat(_lu), vjp=_lu_vjp, leading=True,
         check=_check(lambda m, n: [(m, n), (min(m, n),), (m,)]))
register("tfn.lu_in_order", _flat(_lu_in_order), vjp=_lu_in_order_vjp, leading=True,
         check=_check(lambda m, n: [(m, n)]))

__all__ = ["eigh", "lu", "qr", "svd"]
