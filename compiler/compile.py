"""From a function to something callable: passes, plan, kernels, and the buffers of a call."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from .codegen.target import Target
from .dump import Stages
from .errors import CompileError, OpError, TfnError, user_location
from .ir.core import Function, Op
from .ir.dims import Dim, Extent
from .ir.verify import verify
from .locks import new_rlock
from .ops.host import CHECKS
from .passes import CHOICES, PIPELINE
from .passes.inline import inline
from .passes.regions import everywhere
from .passes.rematerialise import rematerialise
from .runtime import stored, walk
from .runtime.bound import Bound, size_of
from .runtime.cache import KERNELS
from .runtime.memory import aligned_copy
from .runtime.plan import Plan, make_plan
from .runtime.records import RECORDS


class Communicator(Protocol):
    """What runs collectives: see `distributed`."""

    def entry(self, op: Op) -> tuple[int, int, int, int]:
        """`(function address, datatype, operation, communicator)` of a collective op. The function
        has the C signature MPI gives it: see `runtime.walk.COLLECTIVES`."""


def run_passes(
    function: Function, target: Target, until: str | None = None,
    observe: Callable[[str, Function], None] | None = None,
    fast_convolution: bool | None = None,
) -> Function:
    """`function` after the pipeline, or after the pass named `until`.

    `fast_convolution`: may 3x3 convolutions be faster and less exact (`passes/winograd.py`)? What the
    environment's `TFN_FAST_CONVOLUTION` says, 0 or 1, if None; no without it.
    With `TFN_VERIFY` set, what a pass makes is verified: `CompileError` names the pass that broke it.
    """
    if fast_convolution is None:
        fast_convolution = _from_environment("TFN_FAST_CONVOLUTION")
    asked = {"fast_convolution": fast_convolution}
    stages = Stages(function)
    stages.write("trace", function)
    for name, apply in PIPELINE:
        if name not in CHOICES or asked[CHOICES[name]]:
            function = everywhere(apply, function, target)
        if os.environ.get("TFN_VERIFY"):
            _verify(function, name)
        if observe is not None:
            observe(name, function)
        stages.write(name, function)
        if name == until:
            break
    return function


def _from_environment(name: str) -> bool:
    """A choice of the environment: 1 or 0, which is the default."""
    text = os.environ.get(name, "")
    if text not in ("", "0", "1"):
        raise CompileError(f"{name} is {text!r}: set it to 1 or to 0, or unset it", user_location())
    return text == "1"


def _verify(function: Function, stage: str) -> None:
    try:
        verify(function)
    except TfnError as error:
        raise CompileError(f"the pass {stage} broke {function.name}, a defect of tfn:"
                           f" {error.message}", error.location) from error


def compile_function(
    function: Function, target: Target | None = None, communicator: Communicator | None = None,
    memory_budget: int | None = None, fast_convolution: bool | None = None
) -> Executable:
    """Compile for this machine.

    `communicator` runs the collectives of a partitioned program. `memory_budget`: the bytes that may be
    used beside arguments and results; values are made anew rather than kept where that takes more.
    `fast_convolution`: see `run_passes`.
    Raises `UnsupportedError` with the user's line for an op the compiler does not have, and
    `CompileError` when the budget is too small.
    """
    target = target or Target.host()
    if fast_convolution is None:
        fast_convolution = _from_environment("TFN_FAST_CONVOLUTION")
    with _uncollected():
        name = None
        if communicator is None and not _is_observed():
            name = stored.name_of(function, target, memory_budget, fast_convolution)
        plan = stored.read(name) if name else None
        if plan is not None and KERNELS.load(plan.kernels()):
            KERNELS.statistics.planned += 1
            return Executable(function, plan)
        fused = run_passes(function, target, fast_convolution=fast_convolution)
        plan = make_plan(fused, target)
        if memory_budget is not None:
            fused, plan = _within(memory_budget, fused, plan, target)
        executable = Executable(fused, plan, communicator)
        if name:
            stored.store(name, plan)
        return executable


def _is_observed() -> bool:
    """Does anybody want to see what the passes and the plan make of a program?"""
    return (CHECKS.nans or CHECKS.infs or RECORDS.active
            or bool(os.environ.get("TFN_DUMP") or os.environ.get("TFN_VERIFY")))


def _within(budget: int, fused: Function, plan: Plan, target: Target) -> tuple[Function, Plan]:
    """A fused function and its plan, within a budget of bytes."""
    found, limit, least = fused, budget, plan.arena_bytes
    if not isinstance(least, int):
        raise CompileError(f"a memory budget for {fused.name} needs known sizes, its memory is {least}"
                           " bytes: jit a function for each batch size", user_location())
    # The plan needs a little more than what is alive at once: for scratch memory, and between buffers.
    attempts = 0
    while plan.arena_bytes > budget:  # type: ignore[operator]
        if attempts == 4:
            raise CompileError(
                f"{fused.name} needs {least:,} bytes of memory beside its arguments and results, its"
                f" budget is {budget:,}: raise memory_budget, take a smaller batch, or let parts be"
                " computed again (tfn.checkpoint)", user_location())
        attempts += 1
        found = rematerialise(fused, limit)
        plan = make_plan(found, target)
        least = min(least, plan.arena_bytes)  # type: ignore[type-var]
        limit -= max(plan.arena_bytes - budget, 0)  # type: ignore[operator]
    return found, plan


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without Python's collector of cycles: it visited all ops again and again, 2 s of the 4 s that
    passes and plan of BERT's train step took."""
    enabled = gc.isenabled()
    try:
        if enabled:
            _COMPILING.add(threading.get_ident())
            gc.disable()
        yield
    finally:
        if enabled:
            gc.enable()
            _COMPILING.discard(threading.get_ident())


_COMPILING: set[int] = set()
"""The threads that have switched it off."""


def _collect_in_child() -> None:
    """In a forked child nobody else would switch it on again."""
    if _COMPILING:
        _COMPILING.clear()
        gc.enable()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_collect_in_child)


ENGINE = threading.local()
"""`ENGINE.name`: what runs programs inside host calls, "compiler" unless said otherwise."""


def run_function(function: Function, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Run a function once, on the engine in use."""
    if getattr(ENGINE, "name", "compiler") == "evaluator":
        from .ir.evaluator import evaluate

        return evaluate(inline(function), arrays)
    return compile_function(function)(*arrays)


_KEPT_BYTES = 256 << 20
"""Bytes of the arenas of all sizes up to which an executable keeps those of earlier calls."""


class Executable:
    """A compiled function: call it with one NumPy array per argument."""

    def __init__(self, function: Function, plan: Plan, communicator: Communicator | None = None):
        self.function = function
        """After the passes; as it was traced when its plan came from the cache."""
        self.plan = plan
        self.communicator = communicator
        self._argument_types = [(a.shape, a.dtype.numpy) for a in function.arguments]
        self._scalars = [scalar_words(s.kernel.scalars) if s.kernel else None
                         for s in plan.steps]
        self._constants = [aligned_copy(c) for c in plan.constants]
        KERNELS.addresses(plan.kernels())
        self._addresses = [self._address(s) for s in plan.steps]
        self._bound: dict[tuple, Bound] = {}
        """By sizes; those called longest ago come first."""
        self._lock = new_rlock()
        self.enter: Callable[..., Any] = lambda *arguments: NotImplemented
        """Takes ndarrays that are exactly what was called with last; `NotImplemented` otherwise."""
        if RECORDS.active:
            RECORDS.executables.add(self)

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
        results = self.enter(*arguments)
        return results if results is not NotImplemented else self._prepare(arguments)

    def _prepare(self, arguments: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Call with arguments that the entry did not take: of other sizes, or to be copied."""
        sizes = self._check(arguments)
        with self._lock:
            bound = self._bound.get(sizes) or self._bind(sizes)
            self._keep(sizes, bound)
            self.enter = enter = self._in_turn(bound)
        results = enter(*bound.fit(arguments))
        if results is NotImplemented:
            results = enter(*bound.fit(arguments, lend=False))
        assert results is not NotImplemented, "the entry refuses arguments that fit"
        return results

    def _keep(self, sizes: tuple, bound: Bound) -> None:
        """Keep `bound` for the next call, as the one called last."""
        if self._bound.pop(sizes, None) is not bound:
            excess = bound.nbytes + sum(b.nbytes for b in self._bound.values()) - _KEPT_BYTES
            for first in list(self._bound):
                if excess <= 0:
                    break
                excess -= self._bound.pop(first).nbytes
        self._bound[sizes] = bound

    def _bind(self, sizes: tuple) -> Bound:
        return Bound(self.function, self.plan, self._constants, self._addresses, self._scalars,
                     self.communicator, dict(sizes))

    def _in_turn(self, bound: Bound) -> Callable[..., Any]:
        """How `bound` is called. The interpreter's lock guards a short plan's arena; another plan is
        run by one thread at a time. What calls its own program while it runs, a callback, a finalizer
        or the handler of a signal, gets a fresh arena."""
        if bound.is_short:
            return bound.enter
        varied = [(i, found) for i, (found, (declared, _)) in enumerate(
            zip(bound.shapes, self._argument_types, strict=True)) if found != declared]

        def enter(*arrays: np.ndarray) -> Any:
            if len(arrays) != len(bound.shapes):
                return NotImplemented
            for i, shape in varied:
                if arrays[i].shape != shape:
                    # Arrays of another size do not wait for those of this.
                    return NotImplemented
            with bound.lock:
                if bound.runs_in == threading.get_ident():
                    return self._again(arrays)
                try:
                    bound.runs_in = threading.get_ident()
                    results = bound.enter(*arrays)
                    if results is not NotImplemented:
                        bound.run()
                    return results
                finally:
                    bound.runs_in = None

        return enter

    def _again(self, arguments: Sequence[np.ndarray]) -> list[np.ndarray]:
        bound = self._bind(self._check(arguments))
        results = bound.enter(*bound.fit(arguments, lend=False))
        if not bound.is_short:
            bound.run()
        return results

    def peak_bytes(self, **sizes: int) -> int:
        """Bytes of the arena for given sizes of the symbolic dims."""
        return size_of(self.plan.arena_bytes, sizes)

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
