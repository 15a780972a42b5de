"""The element types of numbers that do not name theirs: f32 for a Python float, i32 for an int.

The float is settable, for programs that want f64 throughout; the complex default follows it. An
explicit element type is never changed by this.
"""

from __future__ import annotations

from .dtypes import BF16, C64, C128, F16, F32, F64, DType, as_dtype

_FLOATS = (F16, BF16, F32, F64)
_float = F32


def default_float() -> DType:
    """The element type of a Python float: f32 unless `set_default_float` changed it."""
    return _float


def default_complex() -> DType:
    """The element type of a Python complex: complex<f64> when the default float is f64."""
    return C128 if _float is F64 else C64


def set_default_float(dtype) -> None:
    """Make `dtype` (float16, bfloat16, float32 or float64) the type of numbers without one.

    It holds for the whole process and for everything traced later; `TypeError` on other types.
    """
    global _float
    wanted = as_dtype(dtype)
    if wanted not in _FLOATS:
        names = ", ".join(str(d.numpy) for d in _FLOATS)
        raise TypeError(f"the default float is one of {names}, not {wanted.numpy}")
    _float = wanted
