"""Complex numbers from their parts, and their parts.

Derivatives follow the convention of the other ops: a cotangent is transposed, not conjugated, so
that of `imag` is -i times its own.
"""

from __future__ import annotations

import numpy as np

from ..ir.core import TensorType
from ..ir.dtypes import C64, C128, F32, F64
from ..trace.core import bind
from .declare import COMPLEX, FLOAT, op
from .elementwise import Binary, Unary

PART = {C64: F32, C128: F64}
WHOLE = {part: whole for whole, part in PART.items()}


def _zeros(x):
    return bind("stablehlo.broadcast_in_dim", np.zeros((), x.dtype), shape=x.shape,
                broadcast_dimensions=())


def _part_type(operand: TensorType) -> TensorType:
    return operand.with_dtype(PART.get(operand.dtype, operand.dtype))


@op("stablehlo.real")
class Real(Unary):
    """The real part; a float is its own."""

    accepts = FLOAT | COMPLEX
    function = staticmethod(np.real)
    result_type = staticmethod(_part_type)

    @staticmethod
    def derivative(ct, result, x):
        return bind("stablehlo.complex", ct, _zeros(ct)) if x.dtype.kind == "c" else ct

    def scalar(emit, dtype, x):
        if dtype.is_float:
            return x
        return emit.inst(f"extractvalue {dtype.llvm} {x}, 0")


@op("stablehlo.imag")
class Imag(Unary):
    """The imaginary part; that of a float is 0."""

    accepts = FLOAT | COMPLEX
    function = staticmethod(np.imag)
    result_type = staticmethod(_part_type)

    @staticmethod
    def derivative(ct, result, x):
        if x.dtype.kind != "c":
            return None
        return bind("stablehlo.complex", _zeros(ct), bind("stablehlo.negate", ct))

    def scalar(emit, dtype, x):
        if dtype.is_float:
            return emit.constant(0, dtype)
        return emit.inst(f"extractvalue {dtype.llvm} {x}, 1")


@op("stablehlo.complex")
class Complex(Binary):
    """The complex number with these real and imaginary parts."""

    accepts = frozenset(WHOLE)

    @staticmethod
    def function(real, imag):
        whole = np.empty(real.shape, _WHOLE_NUMPY[real.dtype])
        whole.real, whole.imag = real, imag
        return whole

    @staticmethod
    def result_type(operand: TensorType) -> TensorType:
        return operand.with_dtype(WHOLE[operand.dtype])

    @staticmethod
    def derivative(ct, result, x, y):
        return (bind("stablehlo.real", ct),
                bind("stablehlo.negate", bind("stablehlo.imag", ct)))

    def scalar(emit, dtype, x, y):
        whole = WHOLE[dtype].llvm
        half = emit.inst(f"insertvalue {whole} poison, {dtype.llvm} {x}, 0")
        return emit.inst(f"insertvalue {whole} {half}, {dtype.llvm} {y}, 1")


_WHOLE_NUMPY = {part.numpy: whole.numpy for part, whole in WHOLE.items()}


def evaluate_parts(name: str, operands) -> list[np.ndarray]:
    """A function of complex arrays by the rules that compiled programs use."""
    from ..passes.complex import FUNCTIONS
    from ..trace.core import Array, eager

    x = np.asarray(operands[0])
    with eager():
        real, imag = FUNCTIONS[name](Array(np.ascontiguousarray(x.real)),
                                     Array(np.ascontiguousarray(x.imag)))
    whole = np.empty(x.shape, x.dtype)
    whole.real, whole.imag = np.asarray(real), np.asarray(imag)
    return [whole]
