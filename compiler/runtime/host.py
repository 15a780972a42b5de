"""Host calls: steps of a plan that run an op's `evaluate` rule in Python.

For what has no machine code of its own: linear algebra through NumPy's LAPACK, checks, callbacks.
A program with such a step runs only inside Python.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

import numpy as np

from ..errors import TfnError
from ..ir.core import Op, TensorType
from ..ir.dims import Extent
from ..trace.core import conform, eager

_SIGNATURE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)


class HostCall:
    """One op as a function the walker can call, for given sizes of the symbolic dims."""

    def __init__(self, op: Op, sizes: Mapping[str, Extent]):
        self.op = op
        self.types = [v.type.substitute(sizes) for v in (*op.operands, *op.results)]
        self.failure: BaseException | None = None
        self.stop = np.zeros(1, np.int64)
        self._function = _SIGNATURE(self._run)
        address = ctypes.cast(self._function, ctypes.c_void_p).value
        assert address is not None
        self.address = address

    def _run(self, buffers: int, extents: int, scalars: int) -> None:
        """Called from compiled code, which no exception may cross."""
        try:
            pointers = (ctypes.c_void_p * len(self.types)).from_address(buffers)
            arrays = [view(p or 0, t) for p, t in zip(pointers, self.types, strict=True)]
            count = len(self.op.operands)
            for array in arrays[:count]:
                array.flags.writeable = False
            types = self.types[count:]
            with eager(), np.errstate(all="ignore"):
                results = self.op.definition.rule("evaluate")(
                    arrays[:count], self.op.attributes, self.op.regions, types)
            for place, result, type in zip(arrays[count:], results, types, strict=True):
                place[...] = conform(result, type)
        except BaseException as error:
            if isinstance(error, TfnError) and error.location is None:
                error.location = self.op.location
            self.failure = error
            self.stop[0] = 1


def view(address: int, type: TensorType) -> np.ndarray:
    """The memory at `address` as an array of `type`."""
    size = type.nbytes
    assert isinstance(size, int)
    if not size:
        return np.empty(type.shape, type.dtype.numpy)
    raw = (ctypes.c_char * size).from_address(address)
    return np.frombuffer(memoryview(raw), type.dtype.numpy).reshape(type.shape)


