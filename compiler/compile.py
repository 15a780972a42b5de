"""From a function to something callable: passes, plan, kernels, and the buffers of a call."""

from __future__ import annotations

import gc
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np

from .codegen.target import Target
from .dump import Stages
from .errors import CompileError, OpError, TfnError, UnsupportedError, user_location
from .ir.core import Function, Op
from .ir.dims import Dim, Extent
from .ir.verify import verify
from .passes import PIPELINE
from .passes.inline import inline
from .passes.regions import everywhere
from .runtime import walk
from .runtime.arena import ALIGNMENT
from .runtime.cache import KERNELS
from .runtime.host import HostCall
from .runtime.plan import Plan, make_plan
from .runtime.pool import pool
from .runtime.processes import current_process


class Communicator(Protocol):
    """What runs collectives: see `distributed`."""

    def entry(self, op: Op) -> tuple[int, int, int, int]:
        """`(function address, datatype, operation, communicator)` of a collective op. The function
        has the C signature MPI gives it: see `runtime.walk.COLLECTIVES`."""


# Raw memory made by executables, the only memory donation may overwrite. A plain ndarray on purpose:
# NumPy then makes it the `base` of every view of a result, so its reference count tells of views.
_OWNED: weakref.WeakValueDictionary[int, np.ndarray] = weakref.WeakValueDictionary()


def allocate(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """An uninitialised array of owned, 64-byte aligned memory."""
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    raw = np.empty(size + ALIGNMENT, np.uint8)
    _OWNED[id(raw)] = raw
    offset = -_pointer(raw) % ALIGNMENT
    return np.ndarray(shape, dtype, buffer=raw, offset=offset)


def run_passes(
    function: Function, target: Target, until: str | None = None,
    observe: Callable[[str, Function], None] | None = None,
) -> Function:
    """`function` after the pipeline, or after the pass named `until`.

    With `TFN_VERIFY` set, what a pass makes is verified: `CompileError` names the pass that broke it.
    """
    stages = Stages(function)
    stages.write("trace", function)
    for name, apply in PIPELINE:
        function = everywhere(apply, function, target)
        if os.environ.get("TFN_VERIFY"):
            _verify(function, name)
        if observe is not None:
            observe(name, function)
        stages.write(name, function)
        if name == until:
            break
    return function


def _verify(function: Function, stage: str) -> None:
    try:
        verify(function)
    except TfnError as error:
        raise CompileError(f"the pass {stage} broke {function.name}, a defect of tfn:"
                           f" {error.message}", error.location) from error


def compile_function(
    function: Function, target: Target | None = None, communicator: Communicator | None = None
) -> Executable:
    """Compile for this machine.

    `communicator` runs the collectives of a partitioned program. Raises `UnsupportedError` with the
    user's line for an op the compiler does not have.
    """
    target = target or Target.host()
    with _uncollected():
        fused = run_passes(function, target)
        plan = make_plan(fused, target, pool().threads)
    return Executable(fused, plan, communicator)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without Python's collector of cycles: it visited all ops again and again, 2 s of the 4 s that
    passes and plan of BERT's train step took."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


ENGINE = threading.local()
"""`ENGINE.name`: what runs programs inside host calls, "compiler" unless said otherwise."""


def run_function(function: Function, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Run a function once, on the engine in use."""
    if getattr(ENGINE, "name", "compiler") == "evaluator":
        from .ir.evaluator import evaluate

        return evaluate(inline(function), arrays)
    return compile_function(function)(*arrays)


class Executable:
    """A compiled function: call it with one NumPy array per argument."""

    def __init__(self, function: Function, plan: Plan, communicator: Communicator | None = None):
        self.function = function
        self.plan = plan
        self.communicator = communicator
        self._argument_types = [(a.shape, a.dtype.numpy) for a in function.arguments]
        self._scalars = [scalar_words(s.kernel.scalars) if s.kernel else None
                         for s in plan.steps]
        self._constants = [_aligned_copy(c) for c in plan.constants]
        self._addresses = [self._address(s) for s in plan.steps]
        self._bound: dict[tuple, _Bound] = {}
        self._lock = threading.Lock()
        if walk.RECORDS.active:
            walk.RECORDS.executables.add(self)

    def _address(self, step) -> int:
        if step.jump is not None:
            return 0
        if step.kernel is not None:
            return KERNELS.address(step.kernel)
        if step.host is not None:
            return 0  # Per call shapes: see `_Bound`.
        if step.collective is None:
            return walk.copy_address()
        return walk.collective_address(step.collective.name)

    def __call__(self, *arguments: np.ndarray) -> list[np.ndarray]:
        """Run on arrays of the declared types; returns one new array per result.

        A donated argument's memory may come back as a result. Raises `OpError` when an argument
        does not fit its declared type.
        """
        sizes = self._check(arguments)
        # A NumPy scalar has no memory of its own; asarray gives it some.
        arrays = [a if type(a) is np.ndarray and a.flags.c_contiguous else np.asarray(a, order="C")
                  for a in arguments]
        with self._lock:
            bound = self._bound.get(sizes)
            if bound is None:
                bound = self._bound[sizes] = _Bound(self, dict(sizes))
            return bound.run(arrays)

    def peak_bytes(self, **sizes: int) -> int:
        """Bytes of the arena for given sizes of the symbolic dims."""
        return _value(self.plan.arena_bytes, sizes)

    def _check(self, arguments) -> tuple:
        expected = self._argument_types
        if len(arguments) != len(expected):
            raise OpError(f"{self.function.name} takes {len(expected)} arguments,"
                          f" got {len(arguments)}", user_location())
        sizes: dict[str, int] = {}
        for i, (array, (shape, dtype)) in enumerate(zip(arguments, expected, strict=True)):
            if array.dtype != dtype or (array.shape != shape
                                        and not _fits(array.shape, shape, sizes)):
                raise OpError(
                    f"argument {i} of {self.function.name} must be"
                    f" {self.function.arguments[i].type}, got {array.dtype}{list(array.shape)}",
                    user_location())
        return tuple(sorted(sizes.items()))


def _fits(actual: tuple[int, ...], declared: tuple[Extent, ...], sizes: dict[str, int]) -> bool:
    """Does a shape fit a symbolic one? Records what each named dim turns out to be."""
    if len(actual) != len(declared):
        return False
    for n, extent in zip(actual, declared, strict=True):
        if not isinstance(extent, Dim):
            if n != extent:
                return False
            continue
        unknown = [(name, c) for name, c in extent.terms if name not in sizes]
        if len(unknown) == 1:
            (name, coefficient), = unknown
            rest = n - extent.constant - sum(
                c * sizes[m] for m, c in extent.terms if m in sizes)
            if rest % coefficient or rest // coefficient < 0:
                return False
            sizes[name] = rest // coefficient
        elif unknown or extent.evaluate(sizes) != n:
            return False
    return True


def _value(extent: Extent, sizes) -> int:
    return extent if isinstance(extent, int) else extent.evaluate(sizes)


def _aligned_copy(array: np.ndarray) -> np.ndarray:
    copy = allocate(array.shape, array.dtype)
    copy[...] = array
    return copy


def scalar_words(scalars) -> np.ndarray | None:
    """Scalars as a kernel reads them: one 8-byte word each, f32 in the low half."""
    if not scalars:
        return None
    words = np.zeros(len(scalars), np.int64)
    for i, (value, dtype) in enumerate(scalars):
        wide = np.float64 if dtype.bits == 64 else np.float32
        raw = np.asarray(value).astype(wide).tobytes()
        words[i:i + 1].view(np.uint8)[: len(raw)] = np.frombuffer(raw, np.uint8)
    return words


class _Bound:
    """An executable for given sizes of the symbolic dims: table, arena, result shapes."""

    def __init__(self, executable: Executable, sizes: dict[str, int]):
        self.executable = executable
        plan, function = executable.plan, executable.function
        self.donations = plan.donations
        self.results = [(tuple(_value(d, sizes) for d in r.shape), r.dtype.numpy)
                        for r in function.returns]
        self.arena = allocate((max(_value(plan.arena_bytes, sizes), 1),), np.dtype(np.uint8))
        count = len(function.arguments)
        constants = executable._constants
        self._first_argument = 1 + len(constants)
        self._first_result = self._first_argument + count
        self.bases = np.zeros(self._first_result + len(self.results), np.int64)
        self.bases[0] = self.arena.ctypes.data
        for i, constant in enumerate(constants):
            self.bases[1 + i] = constant.ctypes.data
        numbers = {"arena": 0, "constant": 1, "argument": self._first_argument,
                   "result": self._first_result}
        table: list[int] = []
        starts, jumps = [], []
        widest = 2
        self.host_calls: list[HostCall] = []
        for step, address, scalars in zip(plan.steps, executable._addresses,
                                          executable._scalars, strict=True):
            starts.append(len(table))
            pairs = [word for place in step.places
                     for word in (numbers[place.base] + place.number,
                                  _value(place.offset, sizes))]
            if step.jump is not None:
                jumps.append((len(table) + 1, step.jump.target))
                table += [address, 0, step.jump.width, step.jump.unless, *(pairs or [0, 0])]
                continue
            host = step.host
            if step.collective is not None and executable.communicator is None and (
                    current_process() is not None):
                host = step.collective
            if host is not None:
                call = HostCall(host, sizes)
                self.host_calls.append(call)
                address = call.address
            extents = [_value(e, sizes) for e in step.extents]
            chunk = step.work.chunk(sizes, pool().threads) if host is None else 0
            if step.collective is not None and host is None:
                extents += self._collective(step.collective)
            table += [address, len(step.places), len(extents),
                      0 if scalars is None else scalars.ctypes.data,
                      step.work.tasks(sizes), chunk, step.phase, *pairs, *extents]
            widest = max(widest, len(step.places))
        starts.append(len(table))
        for word, target in jumps:
            table[word] = starts[target]
        self.words = len(table)
        self.table = np.array(table or [0], np.int64)
        # The word before the pointers is the walker's stop flag.
        self.scratch = np.zeros(1 + widest, np.int64)
        for call in self.host_calls:
            call.stop = self.scratch[:1]
        self._call = walk.walker()
        self._pointers = (self.table.ctypes.data, self.bases.ctypes.data,
                          self.scratch.ctypes.data + 8, pool().address, pool().entry)

    def _collective(self, op: Op) -> list[int]:
        communicator = self.executable.communicator
        if communicator is None:
            raise UnsupportedError(
                f"{op.name} needs a mesh: compile the program with a communicator", op.location)
        address, datatype, operation, handle = communicator.entry(op)
        return [datatype, operation, handle, address]

    def run(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        bases = self.bases
        lent: dict[int, np.ndarray] = {}
        for j, i in self.donations.items():
            if not _may_overwrite(arrays, i):
                arrays[i] = _aligned_copy(arrays[i])
            lent[j] = arrays[i]
        results = [lent[j] if j in lent else allocate(shape, dtype)
                   for j, (shape, dtype) in enumerate(self.results)]
        bases[self._first_argument:self._first_result] = [_pointer(a) for a in arrays]
        bases[self._first_result:] = [_pointer(r) for r in results]
        table, *others = self._pointers
        self._call(table, self.words, *others)
        if self.host_calls:
            self._raise_failure()
        return results

    def _raise_failure(self) -> None:
        self.scratch[0] = 0
        for call in self.host_calls:
            failure, call.failure = call.failure, None
            if failure is not None:
                raise failure


def _pointer(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


# References to the memory of an array nobody else views: the array's `base`, and the argument here.
_UNSHARED = 2


def _may_overwrite(arrays: list[np.ndarray], i: int) -> bool:
    """Donated memory is overwritten only if an executable made it, nothing else views it (a NumPy
    view a callback kept must not change), and no other argument is the same memory."""
    array = arrays[i]
    if array.base is None or _OWNED.get(id(array.base)) is not array.base:
        return False
    if sys.getrefcount(array.base) > _UNSHARED:
        return False
    return sum(a is array for a in arrays) == 1

