"""What is measured: a workload, its programs in several styles, and one of them at work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np


class Unsupported(Exception):
    """A framework cannot run a workload; the message says why."""


class Run(Protocol):
    """A workload being run by one framework."""

    def step(self) -> None:
        """One step, finished when it returns."""

    def evidence(self) -> list[float]:
        """Numbers that any framework doing the same work gives too: a loss trajectory, or
        statistics of the results."""

    def results(self) -> Sequence[np.ndarray]:
        """Everything the steps so far have made: a kernel's results, a model's losses and weights."""

    def alive(self) -> bool:
        """Does the result follow the input? Nothing was cached or optimised away."""


@dataclass(frozen=True)
class Workload:
    """Something to measure.

    `programs` maps a style (`xp`, `torch`, `keras` ...) to the program in it; `start` makes a `Run` of
    one of them. `flops` and `nbytes` are of one step and as the algorithm needs them, not as some
    framework does it; `tolerance` of the evidence is relative.
    """

    name: str
    programs: Mapping[str, Any]
    start: Callable[[Any, Workload, Any], Run]
    flops: float = 0.0
    nbytes: float = 0.0
    tolerance: float = 1e-3
    own_process: bool = False
    """Give it a fresh worker: peak memory and first step are then its own."""
    trajectory: bool = False
    """Its evidence is a trajectory of losses, one a step."""

    @property
    def family(self) -> str:
        return self.name.split("/")[0]

    def style_for(self, framework: Any) -> str:
        """The first style of `framework` there is a program in. Raises `Unsupported`."""
        for style in framework.styles:
            if style in self.programs:
                return style
        raise Unsupported(f"no {' or '.join(framework.styles)} version of this workload")


# -- arrays ----------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Spec:
    """An input array: normal with `scale`, or integers below `high`."""

    shape: tuple[int, ...]
    dtype: str = "float32"
    high: int = 0
    scale: float = 1.0
    offset: float = 0.0

    def draw(self, random: np.random.Generator) -> np.ndarray:
        if self.high:
            return random.integers(0, self.high, self.shape).astype(self.dtype)
        values = random.standard_normal(self.shape, np.float32)
        return values * np.float32(self.scale) + np.float32(self.offset)

    @property
    def nbytes(self) -> int:
        width = {"bfloat16": 2}.get(self.dtype) or np.dtype(self.dtype).itemsize
        return int(np.prod(self.shape)) * width


def normal(*shape: int, dtype: str = "float32", scale: float = 1.0, offset: float = 0.0) -> Spec:
    return Spec(shape, dtype, scale=scale, offset=offset)


def integers(*shape: int, high: int, dtype: str = "int32") -> Spec:
    return Spec(shape, dtype, high)


@dataclass(frozen=True)
class Kernel:
    """One function of arrays. `arrange` brings arrays into the layout its framework likes best,
    outside the measured time; the first `carry` arguments are replaced by the results."""

    function: Callable[..., Any]
    inputs: Sequence[Spec]
    arrange: Callable[[list[np.ndarray]], list[np.ndarray]] | None = None
    carry: int = 0


@dataclass
class KernelRun:
    """A kernel and its arguments, at home in a framework."""

    framework: Any
    kernel: Kernel
    arguments: list[Any] = field(default_factory=list)
    result: Any = None

    def __post_init__(self) -> None:
        self.function = self.framework.compiled(self.kernel.function, self.kernel.carry)
        self.arguments = self._drawn(0)

    def _drawn(self, seed: int) -> list[Any]:
        random = np.random.default_rng(seed)
        arrays = [spec.draw(random) for spec in self.kernel.inputs]
        if self.kernel.arrange is not None:
            arrays = self.kernel.arrange(arrays)
        return [self.framework.array(a, None if s.high or s.dtype == "float32" else s.dtype)
                for a, s in zip(arrays, self.kernel.inputs, strict=True)]

    def step(self) -> None:
        self.result = self.function(*self.arguments)
        self.framework.wait(self.result)
        if self.kernel.carry:
            self.arguments[:self.kernel.carry] = self.result

    def results(self) -> list[np.ndarray]:
        return [self.framework.numpy(r) for r in _parts(self.result)]

    def evidence(self) -> list[float]:
        return statistics_of(self.results())

    def alive(self) -> bool:
        before = self.evidence()
        other = self.function(*self._drawn(1))
        return statistics_of([self.framework.numpy(r) for r in _parts(other)]) != before


def _parts(result: Any) -> Sequence[Any]:
    return result if isinstance(result, (list, tuple)) else (result,)


def statistics_of(arrays: Sequence[np.ndarray]) -> list[float]:
    """Mean, root mean square, least and greatest of each array, whatever its layout."""
    found: list[float] = []
    for array in arrays:
        wide = np.asarray(array).astype(np.float64)
        found += [float(wide.mean()), float(np.sqrt(np.square(wide).mean())), float(wide.min()),
                  float(wide.max())]
    return found


def start_kernel(framework: Any, workload: Workload, kernel: Kernel) -> Run:
    return KernelRun(framework, kernel)


def kernel(name: str, inputs: Sequence[Spec], flops: float = 0.0, nbytes: float | None = None,
           result_bytes: float = 0.0, tolerance: float = 1e-3, carry: int = 0,
           arrange: Mapping[str, Callable] | None = None, **programs: Callable) -> Workload:
    """A workload of one function, given as a keyword per style. Without `nbytes` it moves its inputs
    and `result_bytes` once."""
    moved = sum(s.nbytes for s in inputs) + result_bytes if nbytes is None else nbytes
    return Workload(
        name, {style: Kernel(function, tuple(inputs), (arrange or {}).get(style), carry)
               for style, function in programs.items()},
        start_kernel, flops, moved, tolerance)
