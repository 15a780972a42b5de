"""MPI: the communicator of a real mesh. mpi4py is imported only here, and only when asked for.

Compiled code calls the MPI library itself: this file hands it addresses and handles.
"""

from __future__ import annotations

import ctypes
import functools
import os
from typing import Any

from ..compiler.errors import TfnError, UnsupportedError
from ..compiler.ir.core import Op
from ..compiler.ops.reduction import combiner

INSTALL = "pip install 'tfn[dist]'"

_DATATYPES = {"f32": "FLOAT", "f64": "DOUBLE", "i8": "INT8_T", "i16": "INT16_T", "i32": "INT32_T",
              "i64": "INT64_T", "ui8": "UINT8_T", "ui16": "UINT16_T", "ui32": "UINT32_T",
              "ui64": "UINT64_T", "i1": "UINT8_T"}
_OPERATIONS = {"add": "SUM", "multiply": "PROD", "maximum": "MAX", "minimum": "MIN", "and": "BAND",
               "or": "BOR", "xor": "BXOR"}
_FUNCTIONS = {"stablehlo.all_reduce": "MPI_Allreduce", "stablehlo.all_gather": "MPI_Allgather"}


def load() -> Any:
    """The mpi4py module `MPI`. Raises `TfnError` with the install line."""
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise TfnError(f"MPI cannot be used ({error}); {INSTALL}") from None
    return MPI


class MpiCommunicator:
    """Runs collectives over all ranks of the job (`compiler.compile.Communicator`)."""

    def __init__(self) -> None:
        self.mpi = load()
        self._comm = self.mpi.COMM_WORLD
        self.rank: int = self._comm.rank
        self.size: int = self._comm.size

    def entry(self, op: Op) -> tuple[int, int, int, int]:
        dtype = op.operands[0].dtype
        if dtype.name not in _DATATYPES:
            raise UnsupportedError(f"{op.name} of {dtype} over MPI is not supported", op.location)
        datatype = getattr(self.mpi, _DATATYPES[dtype.name])
        operation = 0
        if op.regions:
            kind = combiner(op.regions[0])
            if kind not in _OPERATIONS:
                raise UnsupportedError(f"{op.name} with a custom computation is not supported",
                                       op.location)
            operation = self._handle(getattr(self.mpi, _OPERATIONS[kind]))
        address = ctypes.cast(getattr(_library(), _FUNCTIONS[op.name]), ctypes.c_void_p).value
        assert address is not None
        return address, self._handle(datatype), operation, self._handle(self._comm)

    def _handle(self, thing: Any) -> int:
        """MPICH's handles are ints, Open MPI's pointers; both travel as 64 bits."""
        width = self.mpi._sizeof(type(thing))
        kind = ctypes.c_uint32 if width == 4 else ctypes.c_uint64
        return kind.from_address(self.mpi._addressof(thing)).value

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value on every rank."""
        return self._comm.bcast(value, root=0)

    def barrier(self) -> None:
        self._comm.Barrier()

    def abort(self, code: int) -> None:
        """End every rank of the job."""
        self._comm.Abort(code)


@functools.cache
def _library() -> ctypes.CDLL:
    """The MPI library mpi4py has loaded."""
    load()
    with open("/proc/self/maps") as maps:
        paths = {line.split()[-1] for line in maps if "libmpi" in os.path.basename(line.split()[-1])}
    for path in sorted(paths):
        library = ctypes.CDLL(path)
        if hasattr(library, "MPI_Allreduce"):
            return library
    raise TfnError(f"mpi4py is loaded but no MPI library is; {INSTALL}")
