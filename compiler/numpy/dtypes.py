"""Element types as a user meets them: NumPy dtypes, their limits, kinds and promotion.

Inside tfn an element type is an `ir.dtypes.DType`; what these functions return are `np.dtype`s, as
`x.dtype` is one. `bfloat16` and the narrower floats come from ml_dtypes.
"""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np

from ..ir.dtypes import ALL, C64, F16, DType
from ..trace.core import Array, Tracer
from .device import check_device
from .promote import (
    ArrayLike,
    Value,
    asarray,
    convert,
    dtype_argument,
    dtype_of,
    promote,
)
from .promote import result_type as common_type

_KINDS = {
    "bool": ("bool",), "signed integer": ("int",), "unsigned integer": ("uint",),
    "integral": ("int", "uint"), "real floating": ("float",), "complex floating": ("complex",),
    "numeric": ("int", "uint", "float", "complex"),
}
"""Kind of the array API standard -> kinds of `DType`."""


@dataclass(frozen=True)
class FloatLimits:
    """Limits of a float type (of a complex type: of its parts), as Python floats."""

    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float
    dtype: np.dtype

    @property
    def tiny(self) -> float:
        return self.smallest_normal


@dataclass(frozen=True)
class IntegerLimits:
    """Limits of an integer type."""

    bits: int
    max: int
    min: int
    dtype: np.dtype


def _type_of(x) -> DType:
    return dtype_of(x) if isinstance(x, (Array, Tracer)) else dtype_argument(x)


def finfo(type) -> FloatLimits:
    """The limits of a float or complex type, or of the type of an array."""
    dtype = _type_of(type)
    if not dtype.is_inexact:
        raise TypeError(f"finfo needs a float or complex type, got {dtype.numpy}")
    if dtype.kind == "complex":
        return finfo(np.float32 if dtype is C64 else np.float64)
    limits = ml_dtypes.finfo(dtype.numpy)
    eps, largest, smallest = (float(v) for v in (limits.eps, limits.max, limits.smallest_normal))
    return FloatLimits(dtype.bits, eps, largest, float(limits.min), smallest, dtype.numpy)


def iinfo(type) -> IntegerLimits:
    """The limits of an integer type, or of the type of an array."""
    dtype = _type_of(type)
    if not dtype.is_integer:
        raise TypeError(f"iinfo needs an integer type, got {dtype.numpy}")
    limits = ml_dtypes.iinfo(dtype.numpy)
    return IntegerLimits(dtype.bits, int(limits.max), int(limits.min), dtype.numpy)


def isdtype(dtype, kind) -> bool:
    """Whether `dtype` is of `kind`: a dtype, a kind of the array API standard, or a tuple of them.

    >>> isdtype("float32", "real floating"), isdtype("int8", ("bool", "unsigned integer"))
    (True, False)
    """
    if isinstance(kind, tuple):
        return any(isdtype(dtype, k) for k in kind)
    known = dtype_argument(dtype)
    if isinstance(kind, str) and kind in _KINDS:
        return known.kind in _KINDS[kind]
    try:
        return known is dtype_argument(kind)
    except TypeError:
        raise ValueError(f"{kind!r} is neither a dtype nor one of {', '.join(_KINDS)}") from None


_ABSTRACT: dict[type, tuple[str, ...]] = {
    np.generic: ("bool", "int", "uint", "float", "complex"),
    np.number: ("int", "uint", "float", "complex"), np.integer: ("int", "uint"),
    np.signedinteger: ("int",), np.unsignedinteger: ("uint",), np.inexact: ("float", "complex"),
    np.floating: ("float",), np.complexfloating: ("complex",),
}
"""NumPy's class of element types -> kinds of `DType`."""


def issubdtype(dtype, kind) -> bool:
    """Whether `dtype` is `kind`, or of the class of types `kind` (`floating`, `integer` ...).

    Unlike NumPy's, it knows that bfloat16 and the narrower floats are `floating`.

    >>> issubdtype("bfloat16", np.floating), issubdtype("int8", np.floating)
    (True, False)
    """
    if isinstance(dtype, type) and dtype in _ABSTRACT:
        return isinstance(kind, type) and issubclass(dtype, kind)
    known = _type_of(dtype)
    if isinstance(kind, type) and kind in _ABSTRACT:
        return known.kind in _ABSTRACT[kind]
    return known is dtype_argument(kind)


def can_cast(from_, to) -> bool:
    """Whether promotion may turn `from_` (a dtype or an array) into `to`.

    >>> can_cast("int8", "int16"), can_cast("float64", "float32")
    (True, False)
    """
    target = dtype_argument(to)
    return promote(_type_of(from_), target) is target


def result_type(*arrays_and_dtypes: ArrayLike) -> np.dtype:
    """The element type of a result of these arrays, dtypes and (weak) Python scalars."""
    if not arrays_and_dtypes:
        raise ValueError("result_type needs at least one array or dtype")
    return common_type(*arrays_and_dtypes).numpy


def promote_types(a, b) -> np.dtype:
    """The smallest element type both fit under tfn's promotion; integers never widen a float."""
    return promote(dtype_argument(a), dtype_argument(b)).numpy


def astype(x: ArrayLike, dtype, copy: bool = True, device=None) -> Value:
    """`x` with another element type; floats become integers by truncation.

    `copy` changes nothing: arrays are immutable.
    """
    check_device(device)
    return convert(asarray(x), dtype_argument(dtype))


def dtypes_of_kind(kind=None) -> dict[str, np.dtype]:
    """The element types of the array API standard by name, of one kind (or a tuple) or all."""
    standard = {d.numpy.name: d.numpy for d in ALL
                if d.numpy.type.__module__ == "numpy" and d is not F16}
    return {name: dtype for name, dtype in standard.items()
            if kind is None or isdtype(dtype, kind)}


__all__ = ["FloatLimits", "IntegerLimits", "astype", "can_cast", "dtypes_of_kind", "finfo", "iinfo",
           "isdtype", "issubdtype", "promote_types", "result_type"]
