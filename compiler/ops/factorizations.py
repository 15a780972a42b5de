"""More custom calls through NumPy's LAPACK: `tfn.eig`, `tfn.pinv`, `tfn.qr_complete`, `tfn.svd_full`.

What `linalg.py` has are the factorisations others are built from; these are what they do not give.
`tfn.pinv` has a derivative, Golub and Pereyra (1973), for a matrix of constant rank; `tfn.eig` where
the eigenvalues are simple.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..errors import OpError
from ..ir.core import TensorType
from ..ir.dtypes import C64, C128, F32, F64, DType
from ..trace.core import bind
from .custom_call import register

_REAL = {C64: F32, C128: F64}
_COMPLEX = {F32: C64, F64: C128}


def _each(function: Callable[..., Sequence[np.ndarray]]):
    """Apply a function of one matrix (and scalars) to every matrix of a batch; NaN where LAPACK
    gives up."""

    def evaluate(operands, attributes, result_types):
        results = [np.empty(t.shape, t.dtype.numpy) for t in result_types]
        for place in np.ndindex(operands[0].shape[:-2]):
            try:
                parts = function(*(o[place] for o in operands))
            except np.linalg.LinAlgError:
                parts = [np.asarray(np.nan if r.dtype.kind in "fc" else 0) for r in results]
            for result, part in zip(results, parts, strict=True):
                result[place] = part
        return results

    return evaluate


def _matrix(operands, attributes, result_types) -> None:
    first = operands[0]
    if first.rank < 2 or not first.dtype.is_inexact or first.dtype.bits < 32:
        raise OpError(f"@{attributes['call_target_name']} takes a matrix of f32, f64 or complex,"
                      f" got {first}")


def _call(name: str, *operands, types: Sequence[TensorType]):
    return bind("stablehlo.custom_call", *operands, call_target_name=name, types=tuple(types))


def _type(x, shape, dtype: DType | None = None) -> TensorType:
    return TensorType((*x.shape[:-2], *shape), dtype or x.type.dtype)


def eig(x) -> list:
    """Eigenvalues and right eigenvectors of any square matrix, complex, in no order."""
    dtype = _COMPLEX.get(x.type.dtype, x.type.dtype)
    n = x.shape[-1]
    return _call("tfn.eig", x, types=[_type(x, (n,), dtype), _type(x, (n, n), dtype)])


def pinv(x, rtol):
    """The Moore-Penrose inverse; singular values up to `rtol` (one per matrix) of the largest are 0."""
    m, n = x.shape[-2:]
    return _call("tfn.pinv", x, rtol, types=[_type(x, (n, m))])


def qr_complete(x) -> list:
    """QR with a square q and r of the shape of x."""
    m, n = x.shape[-2:]
    return _call("tfn.qr_complete", x, types=[_type(x, (m, m)), _type(x, (m, n))])


def svd_full(x) -> list:
    """The singular value decomposition with square u and v^H."""
    m, n = x.shape[-2:]
    real = _REAL.get(x.type.dtype, x.type.dtype)
    return _call("tfn.svd_full", x, types=[
        _type(x, (m, m)), _type(x, (min(m, n),), real), _type(x, (n, n))])


def _pinv(a: np.ndarray, rtol: np.ndarray) -> list[np.ndarray]:
    return [np.linalg.pinv(a, rcond=float(rtol))]


def _pinv_vjp(cotangents, op, operands, results):
    from ..numpy import conjugate, eye, matmul, swapaxes

    def adjoint(x):
        return conjugate(swapaxes(x, -1, -2))

    # dP = -P dA P + P P^H dA^H (1 - A P) + (1 - P A) dA^H P^H P, transposed.
    (a, _), (p,) = operands, results
    ct = conjugate(cotangents[0])
    m, n = a.shape[-2:]
    left = eye(m, dtype=a.dtype) - matmul(a, p)
    right = eye(n, dtype=a.dtype) - matmul(p, a)
    direct = matmul(matmul(adjoint(p), ct), adjoint(p))
    first = matmul(matmul(matmul(left, adjoint(ct)), p), adjoint(p))
    second = matmul(matmul(matmul(adjoint(p), p), adjoint(ct)), right)
    return [conjugate(first + second - direct), None]


def eig_tangents(a, values, vectors, tangent):
    """Tangents of `eig`, for simple eigenvalues: perturbation theory, and what LAPACK normalises: the
    length of a vector is 1, its largest component real."""
    from ..numpy import (
        absolute,
        argmax,
        conjugate,
        expand_dims,
        eye,
        imag,
        linalg,
        matmul,
        real,
        take_along_axis,
    )

    n = values.shape[-1]
    tangent = bind("stablehlo.convert", tangent, dtype=vectors.type.dtype)
    moved = linalg.solve(vectors, matmul(tangent, vectors))
    one = eye(n, dtype=vectors.dtype)
    gaps = expand_dims(values, -2) - expand_dims(values, -1)
    free = matmul(vectors, moved * ((1 - one) / (gaps + one)))
    largest = argmax(absolute(vectors), -2, keepdims=True)
    turn = imag(take_along_axis(free, largest, -2)) / real(take_along_axis(vectors, largest, -2))
    shrink = real((conjugate(vectors) * free).sum(-2, keepdims=True))
    return (moved * one).sum(-1), free - vectors * bind("stablehlo.complex", shrink, turn)


def _eig_jvp(tangents, op, operands, results):
    return eig_tangents(operands[0], *results, tangents[0])


register("tfn.eig", _each(lambda a: np.linalg.eig(a)), check=_matrix, leading=True, jvp=_eig_jvp)
register("tfn.pinv", _each(_pinv), check=_matrix, leading=True, vjp=_pinv_vjp)
register("tfn.qr_complete", _each(lambda a: np.linalg.qr(a, mode="complete")), check=_matrix,
         leading=True)
register("tfn.svd_full", _each(lambda a: np.linalg.svd(a, full_matrices=True)), check=_matrix,
         leading=True)

__all__ = ["eig", "pinv", "qr_complete", "svd_full"]
