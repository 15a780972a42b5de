"""Trigonometric and hyperbolic functions of the chlo dialect, of real and of complex numbers.

Real ones are defined by StableHLO's ops; complex ones by real arithmetic (`numpy/complexes.py`), to
which the compiler takes complex numbers apart.
"""

from __future__ import annotations

import numpy as np

from ..trace.core import bind
from .declare import COMPLEX, FLOAT, op
from .elementwise import Unary


def _one(x):
    return bind("stablehlo.broadcast_in_dim", np.ones((), x.dtype), shape=x.shape,
                broadcast_dimensions=())


def _over_root(inside):
    """Derivative ct / sqrt(inside(x))."""
    return lambda ct, result, x: ct / bind("stablehlo.sqrt", inside(x))


class _Function(Unary):
    """`function` evaluates real numbers; complex ones and compiled code go by the decomposition."""

    accepts = FLOAT | COMPLEX
    short = ""

    @classmethod
    def expands(cls, op):
        return op.operands[0].dtype.kind != "complex"

    @classmethod
    def decompose(cls, operands, attributes, regions):
        from ..numpy import real_functions

        return [getattr(real_functions, cls.short)(*operands)]

    @classmethod
    def evaluate(cls, operands, attributes, regions, result_types):
        from .complex import evaluate_parts

        if operands[0].dtype.kind == "c":
            return evaluate_parts(cls.name, operands)
        return super().evaluate(operands, attributes, regions, result_types)


def _declare(short, function, derivative) -> None:
    op(f"chlo.{short}")(type(short.title(), (_Function,), {
        "short": short, "function": staticmethod(function), "derivative": staticmethod(derivative),
        "expensive": True, "__doc__": f"{short}(x)."}))


_declare("acos", np.arccos, lambda ct, y, x: -ct / bind("stablehlo.sqrt", _one(x) - x * x))
_declare("acosh", np.arccosh, lambda ct, y, x: ct / (
    bind("stablehlo.sqrt", x - _one(x)) * bind("stablehlo.sqrt", x + _one(x))))
_declare("asin", np.arcsin, _over_root(lambda x: _one(x) - x * x))
_declare("asinh", np.arcsinh, _over_root(lambda x: _one(x) + x * x))
_declare("atan", np.arctan, lambda ct, y, x: ct / (_one(x) + x * x))
_declare("atanh", np.arctanh, lambda ct, y, x: ct / ((_one(x) - x) * (_one(x) + x)))
_declare("sinh", np.sinh, lambda ct, y, x: ct * bind("chlo.cosh", x))
_declare("cosh", np.cosh, lambda ct, y, x: ct * bind("chlo.sinh", x))
_declare("tan", np.tan, lambda ct, y, x: ct * (_one(x) + y * y))
