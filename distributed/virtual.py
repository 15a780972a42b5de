"""A virtual mesh: N ranks as threads of one process, with the bits N real ranks have.

For developing and testing distributed programs without MPI. Each rank has its own executable; the
collectives are callbacks that meet at a barrier.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..compiler.compile import Executable
from ..compiler.errors import TfnError, UnsupportedError
from ..compiler.ir.core import Op
from ..compiler.ir.dtypes import ALL
from ..compiler.ops.reduction import COMBINERS, combiner

_SIGNATURES = {
    "stablehlo.all_reduce": ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int64,
        ctypes.c_int64, ctypes.c_int64),
    "stablehlo.all_gather": ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int,
        ctypes.c_int64, ctypes.c_int64),
}
_KINDS = tuple(COMBINERS)


class VirtualMesh:
    """`size` ranks in this process."""

    def __init__(self, size: int):
        self.size = size
        self._barrier = threading.Barrier(size)
        self._sent: list[np.ndarray | None] = [None] * size
        self._failures: list[BaseException] = []
        self._callbacks = {
            "stablehlo.all_reduce": _SIGNATURES["stablehlo.all_reduce"](
                self._guarded(self._all_reduce)),
            "stablehlo.all_gather": _SIGNATURES["stablehlo.all_gather"](
                self._guarded(self._all_gather))}

    def _guarded(self, collective: Callable[..., int]) -> Callable[..., int]:
        """No exception may cross compiled code: it is kept, and the other ranks are released."""

        def call(*arguments: Any) -> int:
            try:
                return collective(*arguments)
            except BaseException as error:
                self._failures.append(error)
                self._barrier.abort()
                return 1

        return call

    def communicator(self, rank: int) -> VirtualCommunicator:
        return VirtualCommunicator(self, rank)

    def run(self, executables: Sequence[Executable], arguments: Sequence[Sequence[np.ndarray]]
            ) -> list[list[np.ndarray]]:
        """Run one executable per rank at the same time; results per rank.

        An error in one rank is raised here, and the others are released.
        """
        results: list[Any] = [None] * self.size
        failures = self._failures = []

        def one(rank: int) -> None:
            try:
                results[rank] = executables[rank](*arguments[rank])
            except BaseException as error:
                failures.append(error)
                self._barrier.abort()

        threads = [threading.Thread(target=one, args=(r,)) for r in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            self._barrier.reset()
            raise next((f for f in failures if not isinstance(f, threading.BrokenBarrierError)),
                       failures[0])
        return results

    def callback(self, name: str) -> int:
        if name not in self._callbacks:
            raise UnsupportedError(f"{name} is not supported on a virtual mesh")
        address = ctypes.cast(self._callbacks[name], ctypes.c_void_p).value
        assert address is not None
        return address

    def _meet(self, rank: int, send: int, count: int, datatype: int) -> list[np.ndarray]:
        """Show this rank's operand to the others; returns those of all ranks."""
        self._sent[rank] = _view(send, count, datatype)
        self._barrier.wait()
        return [s for s in self._sent if s is not None]

    def _all_reduce(self, send, receive, count, datatype, operation, rank) -> int:
        parts = self._meet(rank, send, count, datatype)
        combine = COMBINERS[_KINDS[operation]]
        while len(parts) > 1:
            pairs = [combine(a, b) for a, b in zip(parts[::2], parts[1::2], strict=False)]
            parts = pairs + parts[2 * len(pairs):]
        result = parts[0].copy()
        self._barrier.wait()
        _view(receive, count, datatype)[...] = result
        self._barrier.wait()
        return 0

    def _all_gather(self, send, count, datatype, receive, _, __, rank) -> int:
        parts = np.concatenate(self._meet(rank, send, count, datatype))
        self._barrier.wait()
        _view(receive, count * self.size, datatype)[...] = parts
        self._barrier.wait()
        return 0


class VirtualCommunicator:
    """One rank's view of a virtual mesh (`compiler.compile.Communicator`)."""

    def __init__(self, mesh: VirtualMesh, rank: int):
        self.mesh, self.rank, self.size = mesh, rank, mesh.size

    def entry(self, op: Op) -> tuple[int, int, int, int]:
        operation = 0
        if op.regions:
            kind = combiner(op.regions[0])
            if kind is None:
                raise UnsupportedError(f"{op.name} with a custom computation is not supported",
                                       op.location)
            operation = _KINDS.index(kind)
        datatype = ALL.index(op.operands[0].dtype)
        return self.mesh.callback(op.name), datatype, operation, self.rank


def _view(address: int, count: int, datatype: int) -> np.ndarray:
    dtype = ALL[datatype]
    raw = (ctypes.c_char * (count * dtype.itemsize)).from_address(address)
    return np.frombuffer(memoryview(raw), dtype.numpy)


def virtual_run(make: Callable[[int, VirtualCommunicator], Executable], size: int,
                arguments: Sequence[Sequence[np.ndarray]]) -> list[list[np.ndarray]]:
    """Make one executable per rank with `make(rank, communicator)` and run them together."""
    if len(arguments) != size:
        raise TfnError(f"{size} ranks need {size} lists of arguments, got {len(arguments)}")
    mesh = VirtualMesh(size)
    executables = [make(rank, mesh.communicator(rank)) for rank in range(size)]
    return mesh.run(executables, arguments)
