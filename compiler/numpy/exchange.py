"""Arrays to and from other libraries without a copy: DLPack, the buffer protocol, NumPy.

DLPack: "DLPack: Open In Memory Tensor Structure", version 1. NumPy makes and reads the capsules; the
element types it does not know (bfloat16 and the narrower floats) travel as unsigned integers of their
width, and the type code in the capsule is changed on the way.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import numpy as np

from ..ir.dtypes import BF16, F4E2M1FN, F8E3M4, F8E4M3, F8E5M2, MINIFLOATS, by_name
from ..trace.core import Array
from .device import check_device
from .promote import asarray

_CPU_DEVICE = (1, 0)
"""kDLCPU, and the number of the only one."""

_CODES = {BF16: 4, F8E3M4: 7, F8E4M3: 8, by_name("f8E4M3B11FNUZ"): 9, by_name("f8E4M3FN"): 10,
          by_name("f8E4M3FNUZ"): 11, F8E5M2: 12, by_name("f8E5M2FNUZ"): 13,
          by_name("f8E8M0FNU"): 14}
"""Element type -> `DLDataTypeCode`, for those NumPy cannot export."""
_BY_CODE = {(code, dtype.bits): dtype for dtype, code in _CODES.items()}

# Byte offset of `DLDataType` in a capsule's structure: DLTensor begins after data (8), device (8),
# ndim (4); a versioned one follows version (8), manager_ctx (8), deleter (8), flags (8).
_TYPE_OFFSET = {b"dltensor": 20, b"dltensor_versioned": 52}


def dlpack_device(x: Array) -> tuple[int, int]:
    """The DLPack device of an array: the CPU."""
    return _CPU_DEVICE


def dlpack(x: Array, /, *, stream=None, max_version: tuple[int, int] | None = None,
           dl_device: tuple[Any, int] | None = None, copy: bool | None = None):
    """A DLPack capsule of the array's memory.

    A consumer that does not know versions cannot be told that the memory is read-only; it gets the
    memory all the same when it is contiguous and writable, else a copy. `BufferError` on a device
    other than the CPU, or where `copy=False` is impossible.
    """
    if stream is not None:
        raise ValueError(f"the CPU has no streams, got {stream!r}")
    if dl_device is not None and (int(dl_device[0]), dl_device[1]) != _CPU_DEVICE:
        raise BufferError(f"only DLPack device {_CPU_DEVICE} is supported, got {dl_device}")
    # A view of its own: donated memory that a consumer sees is not overwritten.
    data = x._data.view()
    code = _CODES.get(x.type.dtype)
    if x.type.dtype in MINIFLOATS and (code is None or x.type.dtype is F4E2M1FN):
        raise BufferError(f"DLPack has no unpacked element type {x.dtype}")
    if code is not None:
        data = data.view(f"u{data.itemsize}")
    versioned = max_version is not None and max_version[0] >= 1
    if copy or not (versioned or data.flags.writeable):
        if copy is False:
            raise BufferError("read-only memory needs DLPack version 1 or a copy")
        data = data.copy()
    capsule = data.__dlpack__(max_version=max_version if versioned else None)
    if code is not None:
        _type_of(capsule)[0] = code
    return capsule


def from_dlpack(x: Any, /, *, device=None, copy: bool | None = None) -> Array:
    """An array over the memory of `x`, any object with `__dlpack__` on the CPU.

    `copy`: True copies, False raises when a copy is unavoidable. Later writes through `x` show when
    nothing was copied.
    """
    check_device(device)
    if isinstance(x, Array):
        return Array(x._data.copy()) if copy else x
    kind = x.__dlpack_device__()[0]
    if int(kind) != _CPU_DEVICE[0]:
        raise BufferError(f"from_dlpack reads memory of the CPU, not of DLPack device {int(kind)}")
    source = _Reader(x)
    result = np.from_dlpack(source, copy=copy)
    return Array(result if source.dtype is None else result.view(source.dtype))


class _Reader:
    """An exporter whose capsule has an element type NumPy knows; `dtype` is the real one if not."""

    def __init__(self, source: Any):
        self.source = source
        self.dtype: np.dtype | None = None

    def __dlpack_device__(self):
        return self.source.__dlpack_device__()

    def __dlpack__(self, **options):
        try:
            capsule = self.source.__dlpack__(**options)
        except TypeError:  # An exporter from before version 1 knows `stream` only.
            capsule = self.source.__dlpack__()
        fields = _type_of(capsule)
        known = _BY_CODE.get((fields[0], fields[1]))
        if known is not None:
            self.dtype = known.numpy
            fields[0] = 1
        return capsule


def _type_of(capsule: Any):
    """The bytes of a capsule's `DLDataType` (code, bits), to be read and changed."""
    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype, api.PyCapsule_GetName.argtypes = ctypes.c_char_p, [ctypes.py_object]
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    name = api.PyCapsule_GetName(capsule)
    address = api.PyCapsule_GetPointer(capsule, name)
    return (ctypes.c_uint8 * 2).from_address(address + _TYPE_OFFSET[name])


def buffer(x: Array, flags: int = 0) -> memoryview:
    """A read-only memoryview of the array's memory (PEP 688, from Python 3.12)."""
    return memoryview(x.numpy())  # type: ignore[arg-type]


def frombuffer(data: Any, dtype=None, count: int = -1, offset: int = 0) -> Array:
    """A 1-d array over the memory of an object with the buffer protocol; f32 by default."""
    from .promote import default_float, dtype_argument

    target = default_float() if dtype is None else dtype_argument(dtype)
    return asarray(np.frombuffer(data, target.numpy, count, offset))


def tobytes(x: Array) -> bytes:
    """The elements in row-major order as bytes."""
    return x._data.tobytes()


def contains(x: Array, value: Any) -> bool:
    """Is an element of the array equal to `value`? Element by element, as NumPy's `in`."""
    return bool((x._data == np.asarray(value)).any())


METHODS = {"__dlpack__": dlpack, "__dlpack_device__": dlpack_device,
           "__contains__": contains, "data": property(buffer), "tobytes": tobytes}
"""Methods of `Array` that only concrete memory can have."""
if sys.version_info >= (3, 12):
    METHODS["__buffer__"] = buffer
