"""Which contractions are matrix products, and which of their loops are rows, columns and K."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..ir.core import Op, Value
from ..ir.dims import Extent
from ..ops.contraction import Affine, Contraction
from .product import sums_of


@dataclass(frozen=True)
class Axes:
    """The loops of a contraction as those of a matrix product, each from outer to inner."""

    batch: tuple[int, ...]
    m: tuple[int, ...]
    n: tuple[int, ...]
    k: tuple[int, ...]
    sums: tuple[int, ...] = ()
    """Loops over products that are added up."""


def matrix_axes(op: Op, spec: Contraction) -> Axes | None:
    """How a contraction is a batch of matrix products, or None.

    Loops over rows (or columns, or K) that are neighbours in memory are one loop; of those that are
    not, the inner one stays and the others become a batch (of products that are added up, for K).
    """
    if op.name != "stablehlo.dot_general":
        return None
    lhs, rhs, out = (dims_of(index) for index in (spec.lhs, spec.rhs, spec.out))
    loops = range(len(spec.extents))
    batch = [i for i in loops if i in lhs and i in rhs and i in out]
    m = [i for i in loops if i in lhs and i in out and i not in rhs]
    n = [i for i in loops if i in rhs and i in out and i not in lhs]
    k = sorted((i for i in loops if i not in out), key=lambda i: lhs[i])
    if not n:
        return None
    depth, more_depth = _neighbours(k, spec, (lhs, rhs))
    rows, more_rows = _neighbours(m, spec, (lhs, out))
    columns, more_columns = _neighbours(n, spec, (rhs, out))
    if len(n) > len(columns):
        # The innermost columns must be those of the result.
        return None
    return Axes((*batch, *more_rows, *more_columns), tuple(rows), tuple(columns), tuple(depth),
                tuple(more_depth))


def dims_of(indices: Sequence[Affine]) -> dict[int, int]:
    """Loop -> dim of an operand; every dim of a dot has one loop."""
    return {loop: d for d, terms in enumerate(indices) for loop, _ in terms}


def _neighbours(loops: Sequence[int], spec: Contraction, operands) -> tuple[list[int], list[int]]:
    """The innermost loops that form one, and the others."""
    group = list(loops[-1:])
    for loop in reversed(loops[:-1]):
        apart = any(dims[group[0]] - dims[loop] != 1 for dims in operands)
        if apart or not is_affine([spec.extents[i] for i in (loop, *group)]):
            break
        group.insert(0, loop)
    return group, [i for i in loops if i not in group]


def is_affine(extents: Iterable) -> bool:
    """At most one symbolic extent: a product is affine."""
    return sum(not isinstance(extent_of(e), int) for e in extents) < 2


def extent_of(extent: int | tuple[Value, int]) -> Extent:
    """The extent of a loop."""
    return extent if isinstance(extent, int) else extent[0].shape[extent[1]]


def is_matrix_product(op: Op) -> bool:
    """Does `gemm` make the code of this contraction, whatever the memory order of its operands?"""
    if op.name != "stablehlo.dot_general":
        return False
    if sums_of(op) is None:
        return False
    return matrix_axes(op, op.definition.rule("contraction")(op)) is not None
