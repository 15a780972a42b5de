"""Quotients by a constant, or by one number per row, without divisions, the same to the last bit.

With r the nearest number to 1/c, q = x r, e = x - q c (exact, by FMA), the nearest number to x/c is
q + e r, but for a c whose bits are all ones: Markstein, "Computation of elementary functions on the
IBM RISC System/6000 processor" (1990). Three multiply-adds leave the divider to the rest of the loop:
Adam in cache takes a quarter less time. It needs x whose e does not underflow: roots and whole numbers.
Along rows x may be any number: a quotient of one below 2**-78 may be the other of its two neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..ir.core import Op
from ..ir.dtypes import F32
from ..passes.arithmetic import splat

if TYPE_CHECKING:
    from .emitter import Emitter

_LARGEST = 2.0**40
_ONES = 0x7FFFFF


def has_reciprocal(op: Op) -> bool:
    """Is it a quotient of roots, or of what was an integer, by a constant of moderate size?"""
    if op.name != "stablehlo.divide" or op.result.dtype is not F32:
        return False
    x, divisor = op.operands
    number = splat(divisor)
    if x.op is None or number is None or not 1 / _LARGEST <= abs(float(number)) <= _LARGEST:
        return False
    if int(np.float32(number).view(np.uint32)) & _ONES == _ONES:
        return False
    return x.op.name == "stablehlo.sqrt" or (
        x.op.name == "stablehlo.convert" and not x.op.operands[0].dtype.is_inexact)


def quotient(emit: Emitter, op: Op, operands: Sequence[str]) -> str:
    """x / c for registers of both."""
    x, c = operands
    number = np.float32(splat(op.operands[1]))
    return corrected(emit, x, c, emit.run_time(np.float32(1) / number, F32))


def corrected(emit: Emitter, x: str, c: str, r: str) -> str:
    """x / c for registers of both and of the nearest number to 1 / c."""
    q = emit.inst(f"fmul float {x}, {r}")
    e = emit.intrinsic("fma", F32, emit.inst(f"fneg float {q}"), c, x)
    better = emit.intrinsic("fma", F32, e, r, q)
    # Where e is 0, so is x perhaps, whose sign a sum would lose; where q is infinite, a sum is NaN.
    return emit.select(emit.compare("one", F32, better, q), F32, better, q)


def reciprocal(emit: Emitter, c: str) -> tuple[str, str]:
    """1 / c, and whether quotients by c may be made with it."""
    bits = emit.inst(f"bitcast float {c} to i32")
    ones = emit.inst(f"and i32 {bits}, {_ONES}")
    size = emit.intrinsic("fabs", F32, c)
    fits = [emit.inst(f"icmp ne i32 {ones}, {_ONES}"),
            emit.compare("ogt", F32, size, emit.constant(1 / _LARGEST, F32)),
            emit.compare("olt", F32, size, emit.constant(_LARGEST, F32))]
    return emit.inst(f"fdiv float {emit.constant(1.0, F32)}, {c}"), emit.all(fits)
