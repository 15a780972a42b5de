"""Elementwise ops on bit patterns: counting bits, the high half of a product, the next float, a float
rounded to a smaller format, shifts."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from ..errors import UnsupportedError
from ..ir.dtypes import DType, as_dtype, widened
from .declare import FLOAT, INTEGER, check_dtype, op, require
from .elementwise import Binary, Elementwise, Unary


def _pattern(x: np.ndarray) -> np.ndarray:
    """The bits of an integer, as unsigned."""
    dtype = as_dtype(x.dtype)
    wide = widened(x).view(f"u{dtype.itemsize}")
    return wide & wide.dtype.type((1 << dtype.bits) - 1)


class _Count(Unary):
    """Counts bits: the result has the operand's type."""

    accepts = INTEGER
    intrinsic = ""

    @classmethod
    def scalar(cls, emit, dtype, x):
        return emit.count_bits(cls.intrinsic, dtype, x)


@op("stablehlo.popcnt")
class PopulationCount(_Count):
    """How many bits are set."""

    intrinsic = "ctpop"

    def evaluate(operands, attributes, regions, result_types):
        return [np.bitwise_count(_pattern(operands[0]))]


@op("stablehlo.count_leading_zeros")
class CountLeadingZeros(_Count):
    """How many of the highest bits are clear."""

    intrinsic = "ctlz"

    def evaluate(operands, attributes, regions, result_types):
        x = operands[0]
        left, bits = _pattern(x), as_dtype(x.dtype).bits
        count = np.zeros(x.shape, np.int64)
        for _ in range(bits):
            count += left != 0
            left = left >> left.dtype.type(1)
        return [bits - count]


@op("chlo.mulhi")
class MultiplyHigh(Binary):
    """The upper half of the double-width product of two integers."""

    accepts = INTEGER

    def evaluate(operands, attributes, regions, result_types):
        x, y = operands
        product = x.astype(object) * y.astype(object)
        high = product >> as_dtype(x.dtype).bits
        return [np.asarray(high, object).astype(widened(x).dtype)]

    def scalar(emit, dtype, x, y):
        return emit.multiply_high(dtype, x, y)


@op("chlo.next_after")
class NextAfter(Binary):
    """The float next to x in the direction of y."""

    accepts = FLOAT

    def evaluate(operands, attributes, regions, result_types):
        return [np.nextafter(*operands)]

    def decompose(operands, attributes, regions):
        from ..numpy.special import next_after

        if operands[0].type.dtype.bits == 6:
            raise UnsupportedError("next_after of six-bit floats is not supported: there are no"
                                   " integers of their width")
        return [next_after(*operands)]

    @staticmethod
    def derivative(ct, result, x, y):
        return ct, None


@op("stablehlo.reduce_precision")
class ReducePrecision(Elementwise):
    """Round to a float format of fewer exponent and mantissa bits, in the operand's own type.

    What is too large becomes infinite, what would be subnormal in the format a zero; NaN stays.
    """

    accepts = FLOAT
    attributes = {"exponent_bits": "i32", "mantissa_bits": "i32"}

    def infer(operands, attributes, regions):
        check_dtype("reduce_precision", operands[0].dtype, FLOAT)
        require(attributes["exponent_bits"] >= 1, "C2",
                f"reduce_precision to {attributes['exponent_bits']} exponent bits")
        require(attributes["mantissa_bits"] >= 0, "C3",
                f"reduce_precision to {attributes['mantissa_bits']} mantissa bits")
        return [operands[0]]

    def evaluate(operands, attributes, regions, result_types):
        x = widened(operands[0])
        word = f"u{x.dtype.itemsize}"
        format = Format(as_dtype(operands[0].dtype), **attributes)
        bits = x.view(word)
        t = bits.dtype.type
        sign = bits & t(format.sign)
        size = bits & t(format.sign - 1)
        if format.dropped:
            odd = (size >> t(format.dropped)) & t(1)
            size = (size + odd + t(format.half)) & t(~((1 << format.dropped) - 1) & (format.sign - 1))
        if format.clamps:
            size = np.where(size >= t(format.overflow), t(format.infinity),
                            np.where(size < t(format.smallest), t(0), size))
        result = (size | sign).view(x.dtype)
        return [np.where(np.isnan(x), x, result)]

    def vjp(cotangents, op, operands, results):
        from ..trace.core import bind

        return [bind("stablehlo.reduce_precision", cotangents[0], **op.attributes)]

    def scalar(emit, dtype, x, *, exponent_bits, mantissa_bits):
        return emit.reduce_precision(dtype, Format(dtype, exponent_bits, mantissa_bits), x)


class Format:
    """Numbers of a float format as bit patterns of the type that is computed in (f32 or f64)."""

    def __init__(self, dtype: DType, exponent_bits: int, mantissa_bits: int):
        own = ml_dtypes.finfo(dtype.numpy)
        wide = np.finfo(dtype.wide)
        self.word = wide.bits
        self.sign = 1 << (wide.bits - 1)
        bias = 2 ** (exponent_bits - 1) - 1
        self.dropped = wide.nmant - min(mantissa_bits, own.nmant)
        self.half = (1 << self.dropped >> 1) - 1 if self.dropped else 0
        self.clamps = exponent_bits < own.bits - 1 - own.nmant
        center = wide.maxexp - 1
        self.infinity = (2 * center + 1) << wide.nmant
        self.overflow = (center + bias + 1) << wide.nmant
        self.smallest = (center - bias + 1) << wide.nmant


# -- shifts ---------------------------------------------------------------------------------------

def _bits(x: np.ndarray, dtype: DType) -> np.ndarray:
    """Integers as unsigned ones of their bits alone."""
    unsigned = widened(x).view(f"u{dtype.itemsize}")
    return unsigned & unsigned.dtype.type((1 << dtype.bits) - 1)


def _signed(bits: np.ndarray, dtype: DType) -> np.ndarray:
    """Bits as integers whose highest one is a sign."""
    unused = bits.dtype.type(8 * dtype.itemsize - dtype.bits)
    signed = np.left_shift(bits, unused).view(f"i{dtype.itemsize}")
    return np.right_shift(signed, unused.astype(signed.dtype))


def _left(bits, amount, dtype):
    return np.left_shift(bits, amount)


def _logical_right(bits, amount, dtype):
    return np.right_shift(bits, amount)


def _arithmetic_right(bits, amount, dtype):
    """The highest bit is a sign, in unsigned types, too (as XLA)."""
    signed = _signed(bits, dtype)
    return np.right_shift(signed, amount.astype(signed.dtype)).view(bits.dtype)


class _Shift(Binary):
    """Shifts by as much as the width or more: nothing is left, or the sign alone."""

    accepts = INTEGER
    keeps_sign = False

    @classmethod
    def evaluate(cls, operands, attributes, regions, result_types):
        dtype = result_types[0].dtype
        bits, amount = (_bits(x, dtype) for x in operands)
        outside = amount >= dtype.bits
        most = amount.dtype.type(dtype.bits - 1)
        shifted = cls.function(bits, np.where(outside, most, amount), dtype)
        if not cls.keeps_sign:
            shifted = np.where(outside, 0, shifted).astype(bits.dtype)
        shifted = shifted & bits.dtype.type((1 << dtype.bits) - 1)
        return [_signed(shifted, dtype) if dtype.kind == "int" else shifted]


def _declare_shift(name, function, opcode, keeps_sign=False):
    body = dict(function=staticmethod(function), keeps_sign=keeps_sign, scalar=staticmethod(
        lambda emit, dtype, x, y: emit.shift(opcode, dtype, x, y)))
    return op(name)(type(name.split(".")[1].title().replace("_", ""), (_Shift,), body))


_declare_shift("stablehlo.shift_left", _left, "shl")
_declare_shift("stablehlo.shift_right_arithmetic", _arithmetic_right, "ashr", keeps_sign=True)
_declare_shift("stablehlo.shift_right_logical", _logical_right, "lshr")
