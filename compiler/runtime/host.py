"""Host calls: steps of a plan that run an op's `evaluate` rule in Python.

For what has no machine code of its own: linear algebra through NumPy's LAPACK, checks, callbacks.
A program with such a step runs only inside Python; `walk.host_address` calls it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

import numpy as np

from ..errors import TfnError
from ..ir.core import Op, TensorType
from ..ir.dims import Extent
from ..trace.core import conform, eager


class HostCall:
    """One op as a function of the address of its buffers, for given sizes of the symbolic dims. What it
    raises ends the program."""

    def __init__(self, op: Op, sizes: Mapping[str, Extent]):
        self.op = op
        self.types = [v.type.substitute(sizes) for v in (*op.operands, *op.results)]

    def __call__(self, buffers: int) -> None:
        pointers = (ctypes.c_void_p * len(self.types)).from_address(buffers)
        arrays = [view(p or 0, t) for p, t in zip(pointers, self.types, strict=True)]
        count = len(self.op.operands)
        for array in arrays[:count]:
            array.flags.writeable = False
        types = self.types[count:]
        try:
            with eager(), np.errstate(all="ignore"):
                results = self.op.definition.rule("evaluate")(
                    arrays[:count], self.op.attributes, self.op.regions, types)
            for place, result, type in zip(arrays[count:], results, types, strict=True):
                place[...] = conform(result, type)
        except TfnError as error:
            if error.location is None:
                error.location = self.op.location
            raise


def view(address: int, type: TensorType) -> np.ndarray:
    """The memory at `address` as an array of `type`."""
    size = type.nbytes
    assert isinstance(size, int)
    if not size:
        return np.empty(type.shape, type.dtype.numpy)
    raw = (ctypes.c_char * size).from_address(address)
    return np.frombuffer(memoryview(raw), type.dtype.numpy).reshape(type.shape)
