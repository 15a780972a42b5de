"""A plan for given sizes of the symbolic dims: its table, its arena, and how it is called."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Mapping, Sequence

import numpy as np

from ..errors import UnsupportedError
from ..ir.core import Function, Op
from ..ir.dims import Extent
from ..locks import new_rlock
from . import walk
from .entry import Entry, Result
from .host import HostCall
from .memory import MEMORY, address, aligned_copy, allocate, may_overwrite
from .plan import Plan
from .pool import pool
from .processes import current_process

_KEEP_GIL = 10e6
"""Picoseconds of work up to which the interpreter's lock is kept: releasing it costs 0.7 us, and other
threads may take milliseconds to give it back."""
_BEFORE, _SIGNALS = 3, 1
"""Words of `scratch` before its pointers, and which of them is about signals and what was raised."""
_SELF = 8192
"""Bytes that a bound plan takes beside its arena, about."""
_STEP = 10_000
"""Picoseconds of a step besides its work."""


def size_of(extent: Extent, sizes: Mapping[str, int]) -> int:
    return extent if isinstance(extent, int) else extent.evaluate(sizes)


class Bound:
    """What is fixed once sizes are known. One call at a time: see `Executable._in_turn`."""

    def __init__(self, function: Function, plan: Plan, constants: Sequence[np.ndarray],
                 addresses: Sequence[int], scalars: Sequence[np.ndarray | None], communicator,
                 sizes: dict[str, int]):
        if plan.threads < pool().threads:
            raise ValueError(f"the plan of {function.name} has memory for {plan.threads} threads,"
                             f" the pool has {pool().threads}: leave out make_plan's `threads`")
        self.donations = plan.donations
        self.lock = new_rlock()
        self.runs_in: int | None = None
        """The thread that runs the plan, under the lock."""
        self._communicator = communicator
        self.arena = allocate((max(size_of(plan.arena_bytes, sizes), 1),), np.dtype(np.uint8))
        self.nbytes = self.arena.nbytes + _SELF
        count = len(function.arguments)
        first_argument = 1 + len(constants)
        first_result = first_argument + count
        self.bases = np.zeros(first_result + len(function.returns), np.int64)
        self.bases[0] = address(self.arena)
        for i, constant in enumerate(constants):
            self.bases[1 + i] = address(constant)
        self.host_calls: list[HostCall] = []
        self._fill(plan, addresses, scalars, sizes, {
            "arena": 0, "constant": 1, "argument": first_argument, "result": first_result})
        self._call = walk.walker()
        self._pointers = (self.table.ctypes.data, self.bases.ctypes.data,
                          self.scratch.ctypes.data + 8 * _BEFORE, pool().address, pool().entry)
        table, bases, scratch, shared, parallel = self._pointers
        types = [(tuple(size_of(d, sizes) for d in a.shape), a.dtype.numpy)
                 for a in function.arguments]
        self.shapes = [shape for shape, _ in types]
        self.dtypes = [dtype for _, dtype in types]
        results = [Result(tuple(size_of(d, sizes) for d in r.shape), r.dtype.numpy,
                          plan.donations.get(j, -1)) for j, r in enumerate(function.returns)]
        self._entry = Entry(types, results, {
            "prepare": not self.is_short, "walk": walk.address(), "plan": table, "words": self.words,
            "bases": bases, "scratch": scratch, "pool": shared, "parallel": parallel,
            "argument_bases": bases + 8 * first_argument,
            "result_bases": bases + 8 * first_result}, MEMORY,
            (self.arena, self.bases, self.table, self.scratch, constants, scalars))
        self.enter = self._entry.call
        """Takes ndarrays that fit exactly; `NotImplemented` otherwise. Of a plan that is not short this
        does all but `run` it."""

    def _fill(self, plan: Plan, addresses: Sequence[int], scalars: Sequence[np.ndarray | None],
              sizes: dict[str, int], numbers: Mapping[str, int]) -> None:
        """The table of the walker."""
        table: list[int] = []
        starts, jumps = [], []
        widest, cost = 2, 0.0
        for step, function, words in zip(plan.steps, addresses, scalars, strict=True):
            starts.append(len(table))
            pairs = [word for place in step.places
                     for word in (numbers[place.base] + place.number, size_of(place.offset, sizes))]
            if step.jump is not None:
                jumps.append((len(table) + 1, step.jump.target))
                table += [0, 0, step.jump.width, step.jump.unless, *(pairs or [0, 0])]
                continue
            host, parameters = step.host, 0 if words is None else words.ctypes.data
            if step.collective is not None and self._communicator is None and (
                    current_process() is not None):
                host = step.collective
            if host is not None:
                call = HostCall(host, sizes)
                self.host_calls.append(call)
                function, parameters = walk.host_address(), id(call)
            extents = [size_of(e, sizes) for e in step.extents]
            chunk = step.work.chunk(sizes, pool().threads) if host is None else 0
            if step.collective is not None and host is None:
                extents += self._collective(step.collective)
            table += [function, len(step.places), len(extents), parameters,
                      step.work.tasks(sizes), chunk, step.phase, *pairs, *extents]
            widest = max(widest, len(step.places))
            cost += _STEP + step.work.picoseconds(sizes)
        starts.append(len(table))
        for word, target in jumps:
            table[word] = starts[target]
        self.words = len(table)
        self.table = np.array(table or [0], np.int64)
        self.loops = bool(jumps)
        self.scratch = np.zeros(_BEFORE + widest, np.int64)
        waits = bool(self.host_calls or jumps or any(s.collective for s in plan.steps))
        self.is_short = not waits and cost <= _KEEP_GIL

    def _collective(self, op: Op) -> list[int]:
        if self._communicator is None:
            raise UnsupportedError(
                f"{op.name} needs a mesh: compile the program with a communicator", op.location)
        function, datatype, operation, handle = self._communicator.entry(op)
        return [datatype, operation, handle, function]

    def run(self) -> None:
        """Run the plan on what `enter` has prepared, without the interpreter's lock.

        Raises what a host call raised or, in a loop, the handler of a signal.
        """
        words = self.scratch
        # A run that was interrupted on its way out may have left what ended it.
        words[_BEFORE - 1] = 0
        words[_SIGNALS] = self.loops and threading.get_ident() == threading.main_thread().ident
        table, *others = self._pointers
        self._call(table, self.words, *others)
        if words[_BEFORE - 1]:
            # A reference of the walker's own to what was raised.
            word = ctypes.c_void_p(int(words[_SIGNALS]))
            error = ctypes.cast(word, ctypes.py_object).value
            ctypes.pythonapi.Py_DecRef(word)
            raise error

    def fit(self, arguments: Sequence[np.ndarray], lend: bool = True) -> list[np.ndarray]:
        """Arguments of the right types and shapes as `enter` takes them: copies where the order, the
        alignment or a donation asks for it. What is donated is copied whoever sees it if not `lend`: a
        view may be made between this and the call."""
        arrays = [_orderly(a, dtype) for a, dtype in zip(arguments, self.dtypes, strict=True)]
        for i in self.donations.values():
            if not (lend and may_overwrite(arrays, i)):
                arrays[i] = aligned_copy(arrays[i])
        return arrays


def _orderly(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    # A NumPy scalar has no memory of its own, nor is every subclass laid out as its elements say.
    if type(array) is not np.ndarray:
        array = np.array(array, order="C", subok=False)
    flags = array.flags
    if not (flags.c_contiguous and flags.aligned):
        array = np.array(array, order="C")
    # Equal element types may be different objects.
    return array if array.dtype is dtype else array.view(dtype)
