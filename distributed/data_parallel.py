"""Data parallelism: compile a step so that each rank works on its part of the batch.

The step is traced on the global batch, which every rank is given; the compiler takes this rank's rows,
and the partitioner completes the sums. State is whole on every rank and stays equal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..compiler.compile import Communicator, Executable, compile_function
from ..compiler.ir.core import Function
from .mesh import Layout, Mesh
from .partition import logical_shards, partition

AXIS = "batch"


def layouts_of(function: Function, mesh: Mesh, state: int) -> tuple[list[Layout], int | None]:
    """Layouts of the arguments: the first `state` whole, the others split along their first dim.

    Also the size of the batch; None when the data has no common first dim.
    """
    data = function.arguments[state:]
    sizes = {a.shape[0] for a in data if a.shape}
    batch = next(iter(sizes)) if len(sizes) == 1 else None
    layouts = []
    for i, argument in enumerate(function.arguments):
        rank = len(argument.shape)
        split = i >= state and rank > 0 and batch is not None
        layouts.append(Layout.batch_sharded(mesh, AXIS, rank) if split
                       else Layout.replicated(mesh, rank))
    return layouts, batch if isinstance(batch, int) else None


class DataParallelProgram:
    """A compiled step: takes whole batches, works on this rank's rows."""

    def __init__(self, function: Function, state: int, rank: int, size: int,
                 communicator: Communicator | None):
        mesh = Mesh((AXIS,), (size,))
        layouts, batch = layouts_of(function, mesh, state)
        shards = logical_shards(batch, size) if batch else None
        self._rows: list[slice | None] = [None] * len(layouts)
        self.collectives = 0
        if shards is None:
            # A batch that cannot be shared in whole parts is done by every rank: equal results.
            self.function = function
        else:
            assert batch is not None
            local = batch // size
            rows = slice(rank * local, (rank + 1) * local)
            self._rows = [None if layout.sharded_dim is None else rows for layout in layouts]
            split = partition(function, layouts, rank, shards)
            self.function, self.collectives = split.function, split.collectives
        self.executable: Executable = compile_function(self.function, communicator=communicator)

    def local(self, arguments: Sequence[np.ndarray]) -> list[np.ndarray]:
        """This rank's part of the arguments."""
        return [a if rows is None else a[rows]
                for a, rows in zip(arguments, self._rows, strict=True)]

    def __call__(self, *arguments: np.ndarray) -> list[np.ndarray]:
        return self.executable(*self.local(arguments))


def data_parallel_compiler(
    state: Callable[[], int], rank: int, size: int, communicator: Communicator | None
) -> Callable[[Function], DataParallelProgram]:
    """A `compiler` for `jit`: the first `state()` arguments are whole, the rest are the batch."""
    return lambda function: DataParallelProgram(function, state(), rank, size, communicator)
