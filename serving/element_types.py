"""What TensorFlow calls our element types: `float` in its messages, `DT_FLOAT` in metadata."""

from __future__ import annotations

from ..compiler.ir import dtypes
from ..compiler.ir.dtypes import DType

_ENUM_NAMES = {
    dtypes.I1: "DT_BOOL",
    dtypes.I8: "DT_INT8",
    dtypes.I16: "DT_INT16",
    dtypes.I32: "DT_INT32",
    dtypes.I64: "DT_INT64",
    dtypes.UI8: "DT_UINT8",
    dtypes.UI16: "DT_UINT16",
    dtypes.UI32: "DT_UINT32",
    dtypes.UI64: "DT_UINT64",
    dtypes.F16: "DT_HALF",
    dtypes.BF16: "DT_BFLOAT16",
    dtypes.F32: "DT_FLOAT",
    dtypes.F64: "DT_DOUBLE",
    dtypes.C64: "DT_COMPLEX64",
    dtypes.C128: "DT_COMPLEX128",
}


def enum_name(dtype: DType) -> str:
    """TensorFlow's `DataType` enumerator, e.g. `DT_FLOAT`."""
    return _ENUM_NAMES[dtype]


def type_name(dtype: DType) -> str:
    """The name in TensorFlow's messages, e.g. `float`."""
    return _ENUM_NAMES[dtype].removeprefix("DT_").lower()
