"""Select: a sort of which only the first elements are read becomes `tfn.first_sorted`."""

from __future__ import annotations

from ..codegen.order import Order
from ..ir.core import Function, Op, Value, free_values
from ..ir.rewrite import Rewriter
from ..ops.declare import definition

_SHARE = 8
"""A selection sorts a few times as many elements as it keeps."""


def select_first(function: Function, target=None) -> Function:
    """Top-k: sorts whose results are only read by slices of their beginning, all as long."""
    readers: dict[Value, list[Op]] = {}
    kept = set(function.returns)
    for op in function.ops:
        for value in op.operands:
            readers.setdefault(value, []).append(op)
        for region in op.regions:
            kept.update(free_values(region))
    counts = {op: count for op in function.ops
              if op.name == "stablehlo.sort" and not kept.intersection(op.results)
              and (count := _count(op, [r for v in op.results for r in readers.get(v, ())]))}
    if not counts:
        return function
    rewriter = Rewriter(function)
    for op in function.ops:
        source = op.operands[0].op if op.operands else None
        if op in counts:
            attributes = dict(op.attributes) | {"count": counts[op]}
            new = rewriter.append(definition("tfn.first_sorted"), [rewriter[v] for v in op.operands],
                                  None, attributes, op.regions, op.location)
            rewriter.replace(op, new.results)
        elif source in counts and op.name == "stablehlo.slice":
            rewriter.replace(op, [rewriter[op.operands[0]]])
        else:
            rewriter.copy(op)
    return rewriter.finish()


def _count(op: Op, readers: list[Op]) -> int | None:
    """How many of the first elements all readers of a sort take; None where one takes others."""
    x = op.operands[0]
    axis = op.attributes.get("dimension", -1) % len(x.shape)
    length = x.shape[axis]
    shapes = {tuple(r.result.shape) for r in readers if r.name == "stablehlo.slice"}
    if len(shapes) != 1 or not isinstance(length, int) or Order.of(op) is None:
        return None
    (shape,) = shapes
    count = shape[axis]
    whole = (*x.shape[:axis], count, *x.shape[axis + 1:])
    for reader in readers:
        if (reader.name != "stablehlo.slice" or any(reader.attributes["start_indices"])
                or set(reader.attributes["strides"]) != {1} or shape != whole):
            return None
    return count if isinstance(count, int) and 0 < count * _SHARE <= length else None
