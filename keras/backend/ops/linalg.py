"""`keras.ops.linalg` on tfn: thin over `tfn.numpy.linalg`."""

from __future__ import annotations

from ....compiler import numpy as tnp
from ....compiler.numpy import linalg as _linalg
from ....compiler.trace.core import Array
from ....compiler.trace.forward import jvp as _jvp
from .core import convert_to_tensor
from .operands import floating
from .tables import declare

declare(globals(), "floating", _linalg, """
    cholesky_inverse(x, upper=False)
    det(x)
    eig(x)
    eigh(x)
    inv(x)
    lu_factor(x)
    norm(x, ord=None, axis=None, keepdims=False)
    svd(x, full_matrices=True, compute_uv=True)
    matrix_rank(x, tol=None)
    pinv(x, rcond=None)
""")

declare(globals(), "together_floating", _linalg, """
    solve(a, b)
    solve_triangular(a, b, lower=False)
""")


def cholesky(x, upper=False):
    factor = _linalg.cholesky(floating(x), upper)
    if isinstance(factor, Array) and bool(tnp.any(tnp.isnan(factor))):
        raise ValueError("Cholesky decomposition failed: the input is not a positive definite"
                         f" matrix, shape {factor.shape}")
    return factor


def qr(x, mode="reduced"):
    if mode not in ("reduced", "complete"):
        raise ValueError("`mode` argument value not supported. Expected one of"
                         f" {{'reduced', 'complete'}}. Received: mode={mode}")
    return _linalg.qr(floating(x), mode)


def lstsq(a, b, rcond=None):
    return _linalg.lstsq(floating(a), floating(b), rcond).x


def jvp(fun, primals, tangents, has_aux=False):
    primals, tangents = ([convert_to_tensor(v) for v in values] for values in (primals, tangents))
    return _jvp(fun, primals, tangents, has_aux)
