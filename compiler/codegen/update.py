"""A kernel that overwrites parts of a buffer: `dynamic_update_slice` and `scatter` of something stored.

It writes the updates and nothing else. The plan sees to it that the result's memory holds the operand
before, by a copy unless it is the same memory: what a scan stacks is written once, not once a step.
"""

from __future__ import annotations

from ..ir.core import Op
from ..ops.shape import window_start
from .emitter import Emitter
from .work import Work, element_cost

_UPDATES = ("stablehlo.dynamic_update_slice", "stablehlo.scatter")


def updated(kernel: Op) -> int | None:
    """The number of the operand that the `tfn.kernel` op overwrites in part; None when it makes its
    results as a whole."""
    block = kernel.regions[0]
    if len(block.returns) != 1:
        return None
    op = block.returns[0].op
    if op is None or op.name not in _UPDATES or not op.result.shape:
        return None
    x = op.operands[0]
    reads = [v for o in block.ops for v in o.operands]
    if x not in block.arguments or reads.count(x) != 1 or _covers(op):
        return None
    return block.arguments.index(x)


def _covers(op: Op) -> bool:
    x, update = op.operands[:2]
    return op.name == "stablehlo.dynamic_update_slice" and tuple(update.shape) == tuple(x.shape)


def update_window(emit: Emitter, op: Op, pointer: str, ops: list[Op]) -> None:
    """Store the update of a dynamic_update_slice in the buffer of its result."""
    x, update, *starts = op.operands
    emit.pointers[op.result] = pointer
    shape = update.shape
    # Tasks are the two outermost loops: the first is often a single row.
    outer = min(len(shape), 2)
    cost = element_cost(ops, update)
    with emit.phase(Work(tuple(shape[:outer]), cost=(cost, *shape[outer:]))):
        sizes = [emit.extent(update, d) for d in range(len(shape))]
        base = window_start(emit, op, starts, x, sizes)

        def nest(index: tuple) -> None:
            if len(index) < len(shape):
                with emit.loop(0, sizes[len(index)]) as i, emit.scope():
                    nest((*index, i))
                return
            register = emit.at(update, index)
            place = [emit.iadd(i, s) for i, s in zip(index, base, strict=True)]
            emit.store_to(emit.pointer(op.result, place), op.result.dtype, register)

        with emit.loop("%first", "%last") as task, emit.scope():
            if outer == 1:
                nest((task,))
            else:
                nest((emit.idiv(task, sizes[1]), emit.irem(task, sizes[1])))
