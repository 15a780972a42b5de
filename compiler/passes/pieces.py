"""Pieces put together again: a concatenation of all the slices of an array, some of them updated, is
the array with these updates.

A cache of keys and values is often written as slices of one array, an update of each, and all of them
stacked: every token copies the whole cache. As updates of the array they are made where it lies, and
what reads an updated slice reads it there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..ir.core import Function, Op, Value
from ..ir.dims import Extent
from ..ir.rewrite import Rewriter
from .movement import append


@dataclass(frozen=True)
class Piece:
    """A value that holds a box of another one, `root`, after some updates of it."""

    root: Value
    starts: tuple[int, ...]
    sizes: tuple[Extent, ...]
    """Of the box, for each dim of the root."""
    dims: tuple[int | None, ...]
    """For each dim of the value the root's; None for a dim of one element that is none of them."""
    updates: tuple[Op, ...] = ()

    def is_whole(self, dim: int) -> bool:
        """Does the box hold all of the root along `dim`?"""
        return self.starts[dim] == 0 and self.sizes[dim] == self.root.shape[dim]

    def is_root(self) -> bool:
        ordered = self.dims == tuple(range(len(self.root.shape)))
        return ordered and all(self.is_whole(d) for d in self.dims if d is not None)


def pieces(function: Function, target=None) -> Function:
    """Let arrays that are taken apart, updated and put together again be updated as they are."""
    known: dict[Value, Piece] = {}
    chains: dict[Op, _Chain] = {}
    joins: dict[Op, _Chain] = {}
    for op in function.ops:
        rule = _RULES.get(op.name)
        found = rule(op, known) if rule is not None else None
        if found is None:
            continue
        known[op.result] = found
        if op.name == "stablehlo.concatenate" and found.is_root() and not any(
                update in chains for update in found.updates):
            joins[op] = _Chain(found.root)
            chains.update(dict.fromkeys(found.updates, joins[op]))
    if not joins:
        return function
    rewriter = Rewriter(function)
    for op in function.ops:
        if op in chains:
            rewriter.replace(op, [_update(op, _piece(op.operands[0], known), chains[op], rewriter)])
        elif op in joins:
            rewriter.replace(op, [joins[op].current(rewriter)])
        else:
            rewriter.copy(op)
    return rewriter.finish()


@dataclass(eq=False)
class _Chain:
    """The updates of one array, in the order of the program."""

    root: Value
    value: Value | None = field(default=None)

    def current(self, rewriter: Rewriter) -> Value:
        return rewriter[self.root] if self.value is None else self.value


def _piece(value: Value, known: dict[Value, Piece]) -> Piece:
    """What is known of a value; else it is all of itself."""
    if value in known:
        return known[value]
    rank = len(value.shape)
    return Piece(value, (0,) * rank, value.shape, tuple(range(rank)))


def _slice(op: Op, known: dict[Value, Piece]) -> Piece | None:
    piece = _piece(op.operands[0], known)
    if piece.updates or any(s != 1 for s in op.attributes["strides"]):
        return None
    starts, sizes = list(piece.starts), list(piece.sizes)
    for dim, begin, size in zip(piece.dims, op.attributes["start_indices"], op.result.shape,
                                strict=True):
        if dim is not None:
            starts[dim], sizes[dim] = starts[dim] + begin, size
        elif size != 1:
            return None
    return replace(piece, starts=tuple(starts), sizes=tuple(sizes))


def _reshape(op: Op, known: dict[Value, Piece]) -> Piece | None:
    """Dims of one element come and go; the others stay as they are."""
    piece = known.get(op.operands[0])
    if piece is None:
        return None
    old, new = op.operands[0].shape, op.result.shape
    dims: list[int | None] = []
    i = 0
    for extent in new:
        while i < len(old) and old[i] != extent and old[i] == 1:
            i += 1
        if i < len(old) and old[i] == extent:
            dims.append(piece.dims[i])
            i += 1
        elif extent == 1:
            dims.append(None)
        else:
            return None
    return replace(piece, dims=tuple(dims)) if all(e == 1 for e in old[i:]) else None


def _update_slice(op: Op, known: dict[Value, Piece]) -> Piece | None:
    piece = known.get(op.operands[0])
    if piece is None:
        return None
    for dim, size in zip(piece.dims, op.operands[1].shape, strict=True):
        # Where the box is less than the root, other starts would be moved to make the update fit.
        if dim is not None and not piece.is_whole(dim) and size != piece.sizes[dim]:
            return None
    return replace(piece, updates=(*piece.updates, op))


def _concatenate(op: Op, known: dict[Value, Piece]) -> Piece | None:
    parts = [known.get(v) for v in op.operands]
    first = parts[0]
    if first is None or any(p is None or p.root is not first.root or p.dims != first.dims
                            for p in parts):
        return None
    boxes = [list(zip(p.starts, p.sizes, strict=True)) for p in parts if p is not None]
    apart = [d for d in range(len(first.starts)) if any(box[d] != boxes[0][d] for box in boxes)]
    along = op.attributes["dimension"]
    if len(apart) != 1 or first.dims[along] not in (None, apart[0]):
        return None
    (dim,) = apart
    if first.dims[along] is None and dim in first.dims:
        return None
    end: Extent = boxes[0][dim][0]
    for box in boxes:
        if box[dim][0] != end:
            return None
        end = end + box[dim][1]
    start = boxes[0][dim][0]
    dims = list(first.dims)
    dims[along] = dim
    return Piece(first.root, first.starts, _replaced(first.sizes, dim, end - start), tuple(dims),
                 tuple(u for p in parts if p is not None for u in p.updates))


def _replaced(sizes: Sequence[Extent], dim: int, size: Extent) -> tuple[Extent, ...]:
    return (*sizes[:dim], size, *sizes[dim + 1:])


_RULES = {"stablehlo.slice": _slice, "stablehlo.reshape": _reshape,
          "stablehlo.dynamic_update_slice": _update_slice, "stablehlo.concatenate": _concatenate}
"""What a value is a piece of, by the op that makes it."""


def _update(op: Op, piece: Piece, chain: _Chain, rewriter: Rewriter) -> Value:
    """Update the whole array instead of a piece of it; the piece is read there."""
    _, update, *starts = op.operands
    rank = len(piece.starts)
    shape: list[Extent] = [1] * rank
    begins: list[Value | None] = [None] * rank
    for dim, size, start in zip(piece.dims, update.shape, starts, strict=True):
        if dim is not None:
            shape[dim] = size
            begins[dim] = rewriter[start] if piece.is_whole(dim) else None
    placed = append(rewriter, op, "reshape", [rewriter[update]], {"shape": tuple(shape)})
    places = [_number(op, start, starts[0], rewriter) if begin is None else begin
              for begin, start in zip(begins, piece.starts, strict=True)]
    chain.value = append(rewriter, op, "dynamic_update_slice",
                         [chain.current(rewriter), placed, *places])
    box = append(rewriter, op, "slice", [chain.value], {
        "start_indices": piece.starts, "strides": (1,) * rank,
        "limit_indices": tuple(s + n for s, n in zip(piece.starts, piece.sizes, strict=True))})
    return append(rewriter, op, "reshape", [box], {"shape": op.result.shape})


def _number(op: Op, number: int, like: Value, rewriter: Rewriter) -> Value:
    return append(rewriter, op, "constant", [],
                  {"value": np.asarray(number, like.dtype.numpy)}, like.type)
