"""Element types: one table for every name the IR, NumPy and the targets use.

A `DType` knows its StableHLO spelling (`f32`), its NumPy dtype and its LLVM type. Everything that
depends on the element type looks it up here instead of branching on strings.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import ml_dtypes
import numpy as np


@dataclass(frozen=True, eq=False)
class DType:
    """An element type. Instances are singletons: compare with `is` or `==`."""

    name: str
    """The StableHLO spelling, e.g. `f32`, `ui8`, `i1`."""
    kind: str
    """One of `bool`, `int`, `uint`, `float`, `complex`, `token`, `quantized`,
    `future`."""
    bits: int
    numpy: np.dtype = field(repr=False)
    llvm: str = field(repr=False)
    """The LLVM type of a register holding one element; memory uses `storage`."""

    @property
    def storage(self) -> str:
        """The LLVM type of one element in memory (less than a byte is a byte, as in NumPy)."""
        return "i8" if self.bits < 8 else self.llvm

    @property
    def itemsize(self) -> int:
        """Bytes of one element in memory."""
        return self.numpy.itemsize

    @property
    def is_float(self) -> bool:
        return self.kind == "float"

    @property
    def is_integer(self) -> bool:
        return self.kind in ("int", "uint")

    @property
    def is_inexact(self) -> bool:
        return self.kind in ("float", "complex")

    @property
    def is_narrow(self) -> bool:
        """A float below 32 bits (computed in f32) or an integer below 8 (a byte in memory)."""
        return self.bits < (32 if self.is_float else 8) and self.kind != "bool"

    @property
    def wide(self) -> np.dtype:
        """The NumPy dtype the evaluator computes in."""
        if not self.is_narrow:
            return self.numpy
        return np.dtype({"float": np.float32, "int": np.int8, "uint": np.uint8}[self.kind])

    def __str__(self) -> str:
        return self.name

    def __reduce__(self):
        return (by_name, (self.name,))


def _row(name: str, kind: str, bits: int, numpy, llvm: str) -> DType:
    return DType(name, kind, bits, np.dtype(numpy), llvm)


I1 = _row("i1", "bool", 1, np.bool_, "i1")
I2 = _row("i2", "int", 2, ml_dtypes.int2, "i2")
I4 = _row("i4", "int", 4, ml_dtypes.int4, "i4")
I8 = _row("i8", "int", 8, np.int8, "i8")
I16 = _row("i16", "int", 16, np.int16, "i16")
I32 = _row("i32", "int", 32, np.int32, "i32")
I64 = _row("i64", "int", 64, np.int64, "i64")
UI2 = _row("ui2", "uint", 2, ml_dtypes.uint2, "i2")
UI4 = _row("ui4", "uint", 4, ml_dtypes.uint4, "i4")
UI8 = _row("ui8", "uint", 8, np.uint8, "i8")
UI16 = _row("ui16", "uint", 16, np.uint16, "i16")
UI32 = _row("ui32", "uint", 32, np.uint32, "i32")
UI64 = _row("ui64", "uint", 64, np.uint64, "i64")
# The letters after E and M count the exponent and mantissa bits; FN: no infinities, UZ: no -0 and one
# NaN in its place. Their LLVM type is that of their bits.
F4E2M1FN = _row("f4E2M1FN", "float", 4, ml_dtypes.float4_e2m1fn, "i8")
F6E2M3FN = _row("f6E2M3FN", "float", 6, ml_dtypes.float6_e2m3fn, "i8")
F6E3M2FN = _row("f6E3M2FN", "float", 6, ml_dtypes.float6_e3m2fn, "i8")
F8E3M4 = _row("f8E3M4", "float", 8, ml_dtypes.float8_e3m4, "i8")
F8E4M3 = _row("f8E4M3", "float", 8, ml_dtypes.float8_e4m3, "i8")
F8E4M3B11FNUZ = _row("f8E4M3B11FNUZ", "float", 8, ml_dtypes.float8_e4m3b11fnuz, "i8")
F8E4M3FN = _row("f8E4M3FN", "float", 8, ml_dtypes.float8_e4m3fn, "i8")
F8E4M3FNUZ = _row("f8E4M3FNUZ", "float", 8, ml_dtypes.float8_e4m3fnuz, "i8")
F8E5M2 = _row("f8E5M2", "float", 8, ml_dtypes.float8_e5m2, "i8")
F8E5M2FNUZ = _row("f8E5M2FNUZ", "float", 8, ml_dtypes.float8_e5m2fnuz, "i8")
F8E8M0FNU = _row("f8E8M0FNU", "float", 8, ml_dtypes.float8_e8m0fnu, "i8")
F16 = _row("f16", "float", 16, np.float16, "half")
BF16 = _row("bf16", "float", 16, ml_dtypes.bfloat16, "bfloat")
F32 = _row("f32", "float", 32, np.float32, "float")
F64 = _row("f64", "float", 64, np.float64, "double")
C64 = _row("complex<f32>", "complex", 64, np.complex64, "{float, float}")
C128 = _row("complex<f64>", "complex", 128, np.complex128, "{double, double}")

MINIFLOATS = (F4E2M1FN, F6E2M3FN, F6E3M2FN, F8E3M4, F8E4M3, F8E4M3B11FNUZ, F8E4M3FN, F8E4M3FNUZ,
              F8E5M2, F8E5M2FNUZ, F8E8M0FNU)
"""Floats of at most 8 bits."""

ALL = (I1, I2, I4, I8, I16, I32, I64, UI2, UI4, UI8, UI16, UI32, UI64, *MINIFLOATS, F16, BF16, F32,
       F64, C64, C128)
TOKEN = _row("token", "token", 8, np.bool_, "i8")
"""The type of tokens: a byte that means nothing. No array has it."""



@dataclass(frozen=True, eq=False)
class FutureDType(DType):
    """The elements of a tensor that is being computed; in memory they are what they will be."""

    element: DType


@lru_cache(maxsize=256)
def future_of(element: DType) -> FutureDType:
    """The element type of futures of tensors of `element`."""
    return FutureDType(f"future<{element}>", "future", element.bits, element.numpy, element.llvm,
                       element)


_BY_NAME = {d.name: d for d in ALL}
_BY_NUMPY = {d.numpy: d for d in ALL}
_ML_DTYPES = {d.numpy.name: d.numpy for d in ALL if d.numpy.type.__module__ == "ml_dtypes"}


def by_name(name: str) -> DType:
    """The dtype StableHLO spells `name`; `KeyError` if there is none."""
    if name.startswith("future<"):
        return future_of(by_name(name[len("future<"):-1]))
    if name.startswith("!quant"):
        from .quantized import read_quantized

        return read_quantized(name)
    return _BY_NAME[name]


def as_dtype(spec) -> DType:
    """The `DType` for a DType, a StableHLO name, a NumPy dtype, scalar type or dtype name.

    Raises `TypeError` for an element type the IR does not have.
    """
    if isinstance(spec, np.dtype) and (known := _BY_NUMPY.get(spec)) is not None:
        return known
    if isinstance(spec, DType):
        return spec
    if isinstance(spec, str) and spec in _BY_NAME:
        return _BY_NAME[spec]
    try:
        return _BY_NUMPY[np.dtype(_ML_DTYPES.get(spec, spec) if isinstance(spec, str) else spec)]
    except (TypeError, KeyError):
        names = ", ".join(str(d.numpy) for d in ALL)
        raise TypeError(f"{spec!r} is not an element type tfn knows; use one of {names}") from None


def widened(x: np.ndarray) -> np.ndarray:
    """`x` in the dtype the evaluator computes in: narrow floats as f32, narrow integers as bytes."""
    dtype = as_dtype(x.dtype)
    return x.astype(dtype.wide, copy=False) if dtype.is_narrow else x
