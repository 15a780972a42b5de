"""Blocks with as few dims as their loops need, so that one kernel does for many shapes.

What is elementwise throughout has one dim. Where values along the innermost dims are spread over the
others, or sums over the others are made, there are two: the bias and the statistics of an image's
channels are those of a matrix with a row per pixel. The number of rows is a run-time argument.
"""

from __future__ import annotations

from typing import Any

from ..ir.core import Block, Op
from ..ir.dims import Extent, product

Shape = tuple[Extent, ...]


def flattened(block: Block) -> Block:
    """The block with its dims merged; the block itself where they are needed or few."""
    shapes = {tuple(v.shape) for v in (
        *block.arguments, *block.returns, *(r for op in block.ops for r in op.results))} - {()}
    if not shapes or len(shapes) > 2:
        return block
    whole, *rest = sorted(shapes, key=len, reverse=True)
    (inner,) = rest or [()]
    outer = whole[:len(whole) - len(inner)]
    if len(whole) < 2 or (inner and (whole[len(outer):] != inner or len(outer) == len(inner) == 1)):
        return block
    rows: Shape = (product(outer),)
    merged: dict[Shape, Shape] = {(): (), whole: (*rows, product(inner)) if inner else rows}
    if inner:
        merged[inner] = (product(inner),)
    flat = Block([a.type.with_shape(merged[tuple(a.shape)]) for a in block.arguments])
    values = dict(zip(block.arguments, flat.arguments, strict=True))
    for op in block.ops:
        changed = _changed(op, whole, inner, merged)
        if changed is None:
            return block
        new = Op(op.definition, [values[o] for o in op.operands],
                 [r.type.with_shape(merged[tuple(r.shape)]) for r in op.results],
                 {**op.attributes, **changed}, op.regions, op.location)
        flat.ops.append(new)
        values.update(zip(op.results, new.results, strict=True))
    flat.returns = [values[v] for v in block.returns]
    return flat


def _changed(op: Op, whole: Shape, inner: Shape, merged: dict[Shape, Shape]) -> dict[str, Any] | None:
    """The attributes of an op that are others with merged dims; None if it needs its dims apart."""
    rank, outer = len(whole), len(whole) - len(inner)
    if op.name == "stablehlo.broadcast_in_dim":
        shape = merged[tuple(op.result.shape)]
        if not op.operands[0].shape:
            return {"shape": shape}
        spread = tuple(op.attributes["broadcast_dimensions"]) == tuple(range(outer, rank))
        return {"shape": shape, "broadcast_dimensions": (1,)} if inner and spread else None
    if op.name == "stablehlo.reduce":
        sums = (len(op.results) == 1 and tuple(op.operands[0].shape) == whole
                and sorted(op.attributes["dimensions"]) == list(range(outer)))
        # A buffer holds a row of sums: merged, several dims may be too many.
        return {"dimensions": (0,)} if len(inner) == 1 and sums else None
    if op.name == "stablehlo.constant":
        return {} if not op.result.shape or not any(op.attributes["value"].strides) else None
    return {} if getattr(op.definition, "scalar", None) is not None else None
