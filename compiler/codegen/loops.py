"""The loops of a contraction in the code of a kernel: how many rounds they have, and how far apart in
memory what they visit is.

Sizes and strides known now are ints; others are registers of the phase that asks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..ir.core import Value
from ..ir.dims import Extent
from ..ops.contraction import Affine, Contraction
from .emitter import Emitter
from .matrix import dims_of, extent_of
from .text import Index


class Loops:
    """Loops are numbers, groups of them from outer to inner; `spec` says which dims they run along."""

    def __init__(self, emit: Emitter, spec: Contraction):
        self.emit, self.spec = emit, spec

    def extent(self, loop: int) -> Index:
        extent = self.spec.extents[loop]
        return extent if isinstance(extent, int) else self.emit.extent(*extent)

    def size(self, group: Sequence[int]) -> Extent:
        """Rounds of a group, as the plan knows them."""
        total: Extent = 1
        for loop in group:
            total = extent_of(self.spec.extents[loop]) * total
        return total

    def fixed(self, group: Sequence[int]) -> int | None:
        """Rounds of a group where they are built into the code."""
        total = 1
        for loop in group:
            known = self.extent(loop)
            if not isinstance(known, int):
                return None
            total *= known
        return total

    def count(self, group: Sequence[int]) -> Index:
        """Rounds of a group as the code knows them."""
        total: Index = 1
        for loop in group:
            total = self.emit.imul(total, self.extent(loop))
        return total

    def stride(self, value: Value, indices: Sequence[Affine], group: Sequence[int]) -> Index:
        """Elements between neighbours of the innermost loop of a group."""
        return self.dim_stride(value, dims_of(indices)[group[-1]]) if group else 0

    def dim_stride(self, value: Value, dim: int) -> Index:
        """Elements between neighbours along a dim."""
        total: Index = 1
        for d in range(dim + 1, len(value.shape)):
            total = self.emit.imul(total, self.emit.extent(value, d))
        return total

    def offset(self, value: Value, indices: Sequence[Affine], at: Mapping[int, Index]) -> Index:
        """The first element of `value` at given rounds of some loops."""
        dims = dims_of(indices)
        total: Index = 0
        for loop, index in at.items():
            if loop in dims:
                stride = self.dim_stride(value, dims[loop])
                total = self.emit.iadd(total, self.emit.imul(index, stride))
        return total

    def split(self, index: Index, group: Sequence[int], places: dict[int, Index]) -> None:
        """The round of a group as a round of each of its loops."""
        for loop in reversed(group[1:]):
            extent = self.emit.imax(self.extent(loop), 1)
            places[loop] = self.emit.irem(index, extent)
            index = self.emit.idiv(index, extent)
        if group:
            places[group[0]] = index


def innermost(indices: Sequence[Affine], group: Sequence[int]) -> bool:
    """Is the innermost loop of a group along the last dim of an operand?"""
    return bool(group) and bool(indices) and indices[-1] == ((group[-1], 1),)
