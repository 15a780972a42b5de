"""Which extents of a kernel are constants and which are run-time arguments.

Dims that must be equal (by the ops' `factors`) form classes. A class that is outermost in every
tensor it occurs in, such as the batch, becomes an argument: the text of the kernel is then the same
for every batch size. So does a symbolic dim. Everything else is a constant the code is built on.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..ir.core import Op, Value
from ..ir.dims import Dim, Extent
from ..ir.dtypes import DType

Place = tuple[Value, int]


class Extents:
    """The extents of every value in a kernel: `name(value, dim)` is an int or `%nK`."""

    def __init__(self, ops: Iterable[Op], values: Iterable[Value], flat: bool = False):
        self._parent: dict[Place, Place] = {}
        self._values = dict.fromkeys(values)
        for op in ops:
            self._values.update(dict.fromkeys((*op.operands, *op.results)))
            self._unite(op)
        classes: dict[Place, list[Place]] = {}
        for value in self._values:
            for d in range(len(value.shape)):
                classes.setdefault(self._find((value, d)), []).append((value, d))
        self.arguments: list[Extent] = []
        self._names: dict[Place, int | str] = {}
        for root, members in classes.items():
            extent = root[0].shape[root[1]]
            runtime = isinstance(extent, Dim) or all(d == 0 for _, d in members)
            if runtime:
                self._names[root] = f"%n{len(self.arguments)}"
                self.arguments.append(extent)
            else:
                assert isinstance(extent, int)
                self._names[root] = extent

    def name(self, value: Value, dim: int) -> int | str:
        return self._names[self._find((value, dim))]

    def hold(self, dtype: DType) -> bool:
        """Is any value in the kernel of `dtype`?"""
        return any(v.dtype == dtype for v in self._values)

    def _find(self, place: Place) -> Place:
        path = []
        while (parent := self._parent.get(place, place)) != place:
            path.append(place)
            place = parent
        for p in path:
            self._parent[p] = place
        return place

    def _unite(self, op: Op) -> None:
        if op.definition.factors is None:
            return
        factors = op.definition.factors(op)
        first: dict[int, Place] = {}
        rows = [*zip(op.operands, factors.operands, strict=False),
                *zip(op.results, factors.results, strict=False)]
        for value, row in rows:
            for d, factor in enumerate(row):
                if factor is None:
                    continue
                place = (value, d)
                known = first.setdefault(factor, place)
                a, b = self._find(known), self._find(place)
                # Size-1 dims may stretch; only equal extents are one extent.
                if a != b and known[0].shape[known[1]] == value.shape[d]:
                    self._parent[b] = a
