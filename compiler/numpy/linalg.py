"""`tfn.numpy.linalg`: decompositions and solvers.

The factorisations run eagerly, through NumPy's LAPACK; a traced array raises `UnsupportedError`.
`norm` is traced as usual.
"""

from __future__ import annotations

import numpy as np

from ..errors import UnsupportedError, user_location
from ..ir.dtypes import F32
from ..trace.core import Array, Tracer
from .linear import norm
from .promote import ArrayLike, Value, asarray, convert, dtype_of, floating


def _concrete(x: ArrayLike, name: str) -> np.ndarray:
    x = floating(x)
    if isinstance(x, Tracer):
        raise UnsupportedError(f"linalg.{name} of a traced array is not supported yet; call it"
                               " outside jit", user_location())
    return np.asarray(convert(x, F32) if dtype_of(x).bits == 16 else x)


def _wrapped(name: str, doc: str):
    function = getattr(np.linalg, name)

    def run(x: ArrayLike, *args, **kwargs):
        source = _concrete(x, name)
        rest = [_concrete(a, name) if isinstance(a, (Array, Tracer, np.ndarray)) else a
                for a in args]
        result = function(source, *rest, **kwargs)
        if isinstance(result, tuple):
            return tuple(asarray(np.asarray(r)) for r in result)
        return asarray(np.asarray(result))

    run.__name__ = run.__qualname__ = name
    run.__doc__ = doc
    return run


cholesky = _wrapped("cholesky", "The lower triangular L with L @ L.T = x. Concrete arrays only.")
det = _wrapped("det", "The determinant. Concrete arrays only.")
eig = _wrapped("eig", "Eigenvalues and right eigenvectors. Concrete arrays only.")
eigh = _wrapped("eigh", "Eigenvalues and eigenvectors of a symmetric x. Concrete arrays only.")
inv = _wrapped("inv", "The inverse. Concrete arrays only.")
pinv = _wrapped("pinv", "The Moore-Penrose inverse. Concrete arrays only.")
qr = _wrapped("qr", "Orthogonal Q and upper triangular R with Q @ R = x. Concrete arrays only.")
slogdet = _wrapped("slogdet", "Sign and log of the determinant. Concrete arrays only.")
solve = _wrapped("solve", "The solution of a @ x = b. Concrete arrays only.")
svd = _wrapped("svd", "Singular value decomposition. Concrete arrays only.")
matrix_rank = _wrapped("matrix_rank", "The number of non-zero singular values. Concrete only.")


def lstsq(a: ArrayLike, b: ArrayLike, rcond=None) -> Value:
    """The least-squares solution of a @ x = b. Concrete arrays only."""
    return asarray(np.linalg.lstsq(_concrete(a, "lstsq"), _concrete(b, "lstsq"), rcond=rcond)[0])


def solve_triangular(a: ArrayLike, b: ArrayLike, lower: bool = False) -> Value:
    """The solution of a @ x = b for a triangular `a`. Concrete arrays only."""
    matrix = _concrete(a, "solve_triangular")
    matrix = np.tril(matrix) if lower else np.triu(matrix)
    return asarray(np.linalg.solve(matrix, _concrete(b, "solve_triangular")))


__all__ = ["cholesky", "det", "eig", "eigh", "inv", "lstsq", "matrix_rank", "norm", "pinv", "qr",
           "slogdet", "solve", "solve_triangular", "svd"]
