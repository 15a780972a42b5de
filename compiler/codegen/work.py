"""How the work of a kernel divides: tasks that may run at the same time, and what one costs.

Costs are estimates; they decide only whether and how finely work is shared between threads, never a
result: a task writes the same bits whoever runs it and whatever runs beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..ir.core import Op, Value
from ..ir.dims import Extent, nominal

_WORTH_SHARING = 8e6
"""Picoseconds of work that repay waking the workers."""
_SMALLEST_CHUNK = 2e6
_CHUNKS_PER_THREAD = 8


@dataclass(frozen=True)
class Work:
    """A grid of tasks, `ceil(extent / step)` along each axis, of `product(cost)` picoseconds each."""

    extents: tuple[Extent, ...] = ()
    steps: tuple[int, ...] = ()
    """Absent ones are 1."""
    cost: tuple[Extent, ...] = ()

    @property
    def axes(self) -> list[tuple[Extent, int]]:
        """Extent and step of each axis."""
        return list(zip(self.extents, (*self.steps, *[1] * len(self.extents)), strict=False))

    def tasks(self, sizes: Mapping[str, int]) -> int:
        """The number of tasks for given sizes of the symbolic dims."""
        return math.prod(-(-_product((e,), sizes) // step) for e, step in self.axes)

    def picoseconds(self, sizes: Mapping[str, int]) -> int:
        """The cost of all tasks."""
        return self.tasks(sizes) * _product(self.cost, sizes)

    def chunk(self, sizes: Mapping[str, int], threads: int) -> int:
        """Tasks a thread takes at once; 0 where one thread should do them all."""
        tasks = self.tasks(sizes)
        cost = self.picoseconds(sizes)
        if threads == 1 or tasks < 2 or cost < _WORTH_SHARING:
            return 0
        chunks = max(2, min(tasks, threads * _CHUNKS_PER_THREAD, int(cost // _SMALLEST_CHUNK)))
        size = -(-tasks // chunks)
        # Whole cache lines, where a task may be an element.
        return -(-size // 64) * 64 if size >= 256 else size


def _product(extents: Sequence[Extent], sizes: Mapping[str, int]) -> int:
    return math.prod(e if isinstance(e, int) else e.evaluate(sizes) for e in extents)


DEAR = frozenset("""
    exponential log log_plus_one exponential_minus_one tanh logistic sine cosine tan power sqrt rsqrt
    cbrt atan2 divide remainder erf erf_inv gelu gelu_slope gelu_tanh
    gelu_tanh_slope
""".split())
"""Elementwise ops, without their dialects, that cost more than reading a number from memory."""


def element_cost(ops: Sequence[Op], value: Value) -> int:
    """Picoseconds of computing and storing one element of `value` with `ops`."""
    own = max(_nominal(value.shape), 1)
    total = 50.0 * value.dtype.itemsize
    for op in ops:
        if not op.results:
            continue
        shape = op.operands[0].shape if op.name.startswith("stablehlo.reduce") else op.result.shape
        weight = 400 if op.name.rpartition(".")[2] in DEAR else 80
        total += weight * _nominal(shape) / own
    return max(1, int(total))


def _nominal(shape: Sequence[Extent]) -> float:
    return math.prod(float(nominal(e)) for e in shape)
