"""Floats of at most 8 bits as LLVM text: `tfn.widen.TYPE` (bits to f32) and `tfn.narrow.TYPE`.

Widening reads a table of the 256 values. Narrowing rounds to nearest even on the bits of the f32;
what the type cannot hold becomes what ml_dtypes makes of it (infinity, NaN, or the largest value).
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import ml_dtypes
import numpy as np

from ..ir.dtypes import F8E8M0FNU, MINIFLOATS, DType


def _code(dtype: DType, value: float) -> int:
    """The bits of `value` in the type."""
    with np.errstate(all="ignore"):
        return int(np.asarray(np.float32(value).astype(dtype.numpy)).view(np.uint8))


def _widen(dtype: DType) -> str:
    values = np.arange(256, dtype=np.uint8).view(dtype.numpy).astype(np.float32)
    with np.errstate(all="ignore"):
        words = values.astype(np.float64).view(np.uint64)
    row = ", ".join(f"float 0x{int(w):016X}" for w in words)
    return f"""@tfn.table.{dtype.name} = internal unnamed_addr constant [256 x float] [{row}]
define internal float @tfn.widen.{dtype.name}(i8 %x) alwaysinline {{
  %i = zext i8 %x to i64
  %p = getelementptr [256 x float], ptr @tfn.table.{dtype.name}, i64 0, i64 %i
  %v = load float, ptr %p
  ret float %v
}}"""


def _narrow(dtype: DType) -> str:
    info = ml_dtypes.finfo(dtype.numpy)
    mantissa, bias = info.nmant, 1 - info.minexp
    dropped = 23 - mantissa
    smallest = np.float32(2.0 ** info.minexp).view(np.uint32)
    # Adding 2**23 quanta leaves the number of quanta, rounded to even, in the low bits.
    magic = np.float32(2.0 ** (info.minexp - mantissa + 23))
    magic_word = np.float64(magic).view(np.uint64)
    sign = 1 << (dtype.bits - 1)
    negative_zero = _code(dtype, -0.0)
    signed_zero = negative_zero == sign
    infinity, nan = _code(dtype, np.inf), _code(dtype, np.nan)
    # Types without NaN make a zero of it, whose sign is not that of the NaN.
    nan_sign = 0 if nan == _code(dtype, -np.nan) else sign
    largest = _code(dtype, float(info.max))
    lines = f"""define internal i8 @tfn.narrow.{dtype.name}(float %x) alwaysinline {{
  %u = bitcast float %x to i32
  %a = and i32 %u, 2147483647
  %top = lshr i32 %a, {dropped}
  %odd = and i32 %top, 1
  %half = add i32 %odd, {(1 << (dropped - 1)) - 1}
  %up = add i32 %a, %half
  %r = lshr i32 %up, {dropped}
  %normal = sub i32 %r, {(127 - bias) << mantissa}
  %fa = bitcast i32 %a to float
  %sum = fadd float %fa, 0x{int(magic_word):016X}
  %sb = bitcast float %sum to i32
  %tiny = sub i32 %sb, {int(magic.view(np.uint32))}
  %small = icmp ult i32 %a, {int(smallest)}
  %m = select i1 %small, i32 %tiny, i32 %normal
  %over = icmp ugt i32 %m, {largest}
  %c = select i1 %over, i32 {infinity}, i32 %m
  %sbit = lshr i32 %u, 31
  %s = shl i32 %sbit, {dtype.bits - 1}
""".splitlines()
    if signed_zero:
        lines.append("  %w = or i32 %c, %s")
    else:
        # No negative zero: its bits are NaN, and so is what overflows.
        lines += ["  %zero = icmp eq i32 %c, 0",
                  "  %with = or i32 %c, %s",
                  "  %w = select i1 %zero, i32 0, i32 %with"]
    lines += ["  %isnan = fcmp uno float %x, %x",
              f"  %ns = and i32 %s, {nan_sign}",
              f"  %nans = xor i32 %ns, {nan}",
              "  %out = select i1 %isnan, i32 %nans, i32 %w",
              "  %byte = trunc i32 %out to i8",
              "  ret i8 %byte", "}"]
    return "\n".join(lines)


def _narrow_exponent(dtype: DType) -> str:
    """f8E8M0FNU: a power of two, ties upwards; no sign and no zero."""
    return f"""define internal i8 @tfn.narrow.{dtype.name}(float %x) alwaysinline {{
  %u = bitcast float %x to i32
  %top = lshr i32 %u, 23
  %up = add i32 %u, 4194304
  %r = lshr i32 %up, 23
  %subnormal = icmp eq i32 %top, 0
  %large = icmp ugt i32 %u, 4194304
  %one = zext i1 %large to i32
  %c = select i1 %subnormal, i32 %one, i32 %r
  %bad = icmp ugt i32 %c, 254
  %negative = icmp slt i32 %u, 0
  %zero = icmp eq i32 %u, 0
  %b1 = or i1 %bad, %negative
  %b2 = or i1 %b1, %zero
  %out = select i1 %b2, i32 255, i32 %c
  %byte = trunc i32 %out to i8
  ret i8 %byte
}}"""


MINI: dict[str, Callable[[], str]] = {}
"""Symbol -> the text that defines it."""
for _dtype in MINIFLOATS:
    MINI[f"tfn.widen.{_dtype.name}"] = functools.partial(_widen, _dtype)
    MINI[f"tfn.narrow.{_dtype.name}"] = functools.partial(
        _narrow_exponent if _dtype is F8E8M0FNU else _narrow, _dtype)
