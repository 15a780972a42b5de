"""The LAPACK custom calls of JAX's CPU programs (`lapack_sgetrf_ffi` ...), by tfn's own ops or NumPy.

The names begin with the type letter s, d, c or z; options are letters in the backend configuration.
Results named info are zero: a failure shows as NaN in the matrices.
"""

from __future__ import annotations

import numpy as np

from ..errors import UnsupportedError
from ..ir.core import TensorType
from ..ir.dtypes import as_dtype
from ..trace.core import bind
from . import linalg
from .custom_call import register


def _option(attributes, name: str, default: str = "") -> str:
    """An option letter of the call, such as `uplo`."""
    config = attributes.get("mhlo.backend_config") or {}
    value = config.get(name)
    return default if value is None else chr(int(np.asarray(value).item()))


def _zeros(type: TensorType):
    return bind("stablehlo.broadcast_in_dim", np.zeros((), type.dtype.numpy), shape=type.shape,
                broadcast_dimensions=())


def _potrf(operands, attributes, types):
    lower = _option(attributes, "uplo", "L") == "L"
    return [bind("stablehlo.cholesky", operands[0], lower=lower), _zeros(types[1])]


def _trsm(operands, attributes, types):
    mode = {"N": "NO_TRANSPOSE", "T": "TRANSPOSE", "C": "ADJOINT"}
    return [bind("stablehlo.triangular_solve", *operands,
                 left_side=_option(attributes, "side") == "L",
                 lower=_option(attributes, "uplo") == "L",
                 unit_diagonal=_option(attributes, "diag") == "U",
                 transpose_a=mode[_option(attributes, "trans_x", "N")])]


def _getrf(operands, attributes, types):
    matrix, pivots, _ = linalg.lu(operands[0])
    # LAPACK counts rows from 1.
    return [matrix, pivots + np.int32(1), _zeros(types[2])]


def _syevd(operands, attributes, types):
    from ..numpy import conjugate, swapaxes

    x = operands[0]
    if _option(attributes, "uplo", "L") == "U":
        x = conjugate(swapaxes(x, -1, -2))
    values, vectors = linalg.eigh(x)
    return [vectors, values, _zeros(types[2])]


def _gesdd(operands, attributes, types):
    if _option(attributes, "mode") == "A" and operands[0].shape[-1] != operands[0].shape[-2]:
        raise UnsupportedError("the full singular value decomposition of a matrix that is not square"
                               " is not supported; use full_matrices=False")
    u, s, vh = linalg.svd(operands[0])
    if _option(attributes, "mode") == "N":
        u, vh = _zeros(types[2]), _zeros(types[3])
    return [operands[0], s, u, vh, _zeros(types[4])]


def _geqrf(operands, attributes, result_types):
    """Householder reflectors below the diagonal, r above, and their scales."""
    x = operands[0]
    packed = np.empty(x.shape, x.dtype)
    scales = np.empty(result_types[1].shape, x.dtype)
    for place in np.ndindex(x.shape[:-2]):
        reflectors, scale = np.linalg.qr(x[place], mode="raw")
        packed[place], scales[place] = reflectors.T, scale
    return [packed, scales]


def _orgqr(operands, attributes, result_types):
    """The product of the reflectors: q."""
    packed, scales = operands
    columns = result_types[0].shape[-1]
    q = np.zeros((*packed.shape[:-1], columns), packed.dtype)
    q[..., range(min(packed.shape[-2], columns)), range(min(packed.shape[-2], columns))] = 1
    for i in reversed(range(scales.shape[-1])):
        v = packed[..., i:, i].copy()
        v[..., 0] = 1
        part = q[..., i:, :]
        along = np.einsum("...k,...kn->...n", v.conj(), part)
        part -= (scales[..., i, None, None] * v[..., :, None]) * along[..., None, :]
    return [q]


def _geqrf_steps(a):
    """What `_geqrf` computes, as ops: for its derivative."""
    from ..numpy import concatenate, conjugate, matmul, real, sqrt, stack, where

    m, n = a.shape[-2:]
    columns, scales = [], []
    for k in range(min(m, n)):
        x, done = a[..., k:, k], a[..., :k, k]
        first, rest = x[..., :1], x[..., 1:]
        tail = real(rest * conjugate(rest)).sum(-1)
        size = sqrt(real(first[..., 0] * conjugate(first[..., 0])) + tail)
        beta = where(real(first[..., 0]) < 0, size, -size)[..., None].astype(a.dtype)
        still = (tail == 0)[..., None]
        if as_dtype(a.dtype).kind == "complex":
            still = still & (first == real(first))
        beta = where(still, first, beta)
        scale = where(still, 0, (beta - first) / where(still, 1, beta))
        v = concatenate([first * 0 + 1, rest / where(still, 1, first - beta)], -1)[..., None]
        columns.append(concatenate([done, beta, v[..., 1:, 0]], -1))
        scales.append(scale[..., 0])
        lower = a[..., k:, :]
        along = matmul(conjugate(v.swapaxes(-1, -2)), lower)
        lower = lower - conjugate(scale)[..., None] * v * along
        a = concatenate([a[..., :k, :], lower], -2)
    packed = stack(columns, -1)
    if n > m:
        packed = concatenate([packed, a[..., m:]], -1)
    return [packed, stack(scales, -1)]


def _orgqr_steps(packed, scales, columns: int):
    """What `_orgqr` computes, as ops: for its derivative."""
    from ..numpy import broadcast_to, concatenate, conjugate, eye, matmul

    m = packed.shape[-2]
    q = broadcast_to(eye(m, columns, dtype=packed.dtype), (*packed.shape[:-1], columns))
    for i in reversed(range(scales.shape[-1])):
        first = packed[..., i: i + 1, i] * 0 + 1
        v = concatenate([first, packed[..., i + 1:, i]], -1)[..., None]
        part = q[..., i:, :]
        along = matmul(conjugate(v.swapaxes(-1, -2)), part)
        q = concatenate([q[..., :i, :], part - scales[..., i, None, None] * v * along], -2)
    return [q]


def _by_steps(steps):
    """A `vjp` rule by the ops of `steps(op, *operands)`."""
    def vjp(cotangents, op, operands, results):
        from .functional import pull_all

        return pull_all(lambda *x: steps(op, *x), operands, cotangents, results)

    return vjp


def _geev_jvp(tangents, op, operands, results):
    from ..numpy import imag, real
    from .factorizations import eig, eig_tangents

    x = operands[0]
    values, vectors = eig_tangents(x, *eig(x), tangents[0])
    if as_dtype(x.dtype).kind == "complex":
        return [values, None, vectors, None]
    return [real(values), imag(values), None, vectors, None]


def _geev(operands, attributes, result_types):
    """Eigenvalues and right eigenvectors of a general matrix."""
    x = operands[0]
    values, vectors = np.linalg.eig(x)
    kind = np.complex64 if x.dtype in (np.float32, np.complex64) else np.complex128
    left = np.zeros(x.shape, kind)
    info = np.zeros(x.shape[:-2], np.int32)
    if x.dtype.kind == "c":
        return [values, left, vectors, info]
    return [values.real, values.imag, left, vectors, info]


for _letter in "sdcz":
    _orthogonal = "or" if _letter in "sd" else "un"
    _symmetric = "sy" if _letter in "sd" else "he"
    for _name, _rule in (("potrf", _potrf), ("trsm", _trsm), ("getrf", _getrf), ("gesdd", _gesdd),
                         (f"{_symmetric}evd", _syevd)):
        register(f"lapack_{_letter}{_name}_ffi", None, decompose=_rule)
    register(f"lapack_{_letter}geqrf_ffi", _geqrf, vjp=_by_steps(lambda op, a: _geqrf_steps(a)))
    register(f"lapack_{_letter}{_orthogonal}gqr_ffi", _orgqr, vjp=_by_steps(
        lambda op, packed, scales: _orgqr_steps(packed, scales, op.results[0].shape[-1])))
    register(f"lapack_{_letter}geev_ffi", _geev, jvp=_geev_jvp)
