"""`keras.ops.linalg` on tfn: thin over `tfn.numpy.linalg`."""

from __future__ import annotations

from ....compiler.numpy import linalg as _linalg
from ..missing import missing
from .numpy import _float

NAMES = ("cholesky cholesky_inverse det eig eigh inv lu_factor norm qr solve solve_triangular svd"
         " lstsq matrix_rank pinv slogdet jvp").split()


def _declare() -> None:
    def function(name):
        target = getattr(_linalg, name)
        two = name in ("solve", "solve_triangular", "lstsq")

        def call(a, *args, **kwargs):
            if two:
                args = (_float(args[0]), *args[1:])
            result = target(_float(a), *args, **kwargs)
            return result.x if name == "lstsq" else result

        call.__name__ = name
        return call

    for name in NAMES:
        globals()[name] = function(name) if hasattr(_linalg, name) else missing(name)


_declare()
