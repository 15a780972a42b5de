"""Which operands a kernel may overwrite with its results: it reads each element where it writes it.

The kernel's text then says that their memory may be one (`kernel.py`), and the plan may make it so
(`runtime/coalesce.py`).
"""

from __future__ import annotations

from ..ir.core import Block, Op, Value
from ..passes.fuse import SINGLE
from .accumulate import adds_rows
from .matrix import is_matrix_product
from .update import updated


def overwritable(kernel: Op) -> frozenset[tuple[int, int]]:
    """Numbers of an operand and of a result that may be the same memory, of the `tfn.kernel` op."""
    block = kernel.regions[0]
    shape = tuple(block.returns[0].shape)
    if any(tuple(r.shape) != shape for r in block.returns) or updated(kernel) is not None:
        return frozenset()
    # Rows are passed over several times: one result is stored before another is made.
    if len(block.returns) > 1 and any(op.name == "stablehlo.reduce" for op in block.ops):
        return frozenset()
    single = [op for op in block.ops if op.name in SINGLE]
    # Tiles of convolutions may overlap; reductions are done in parts.
    if any(not is_matrix_product(op) for op in single) or any(
            r.op is not None and adds_rows(r.op) for r in block.returns):
        return frozenset()
    found: set[tuple[int, int]] = set()
    for number, argument in enumerate(block.arguments):
        made = _read_in_place(block, argument)
        if made is None or tuple(argument.shape) != shape or argument in block.returns:
            continue
        # A product is stored block by block: what does not depend on the operand may come first.
        found.update((number, j) for j, r in enumerate(block.returns)
                     if r.dtype.itemsize == argument.dtype.itemsize and (not single or r in made))
    return frozenset(found)


def _read_in_place(block: Block, argument: Value) -> set[Value] | None:
    """All that is made from an argument, if each element only of the one at its own index."""
    made = {argument}
    for op in block.ops:
        if not made.isdisjoint(op.operands):
            if (getattr(op.definition, "scalar", None) is None
                    or any(tuple(v.shape) != tuple(argument.shape)
                           for v in (*op.results, *op.operands) if v in made or v in op.results)):
                return None
            made.update(op.results)
    return made
