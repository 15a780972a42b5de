"""Running sums, products and extremes as one op: what the composite `tfn.cumulative` becomes
(`numpy/cumulative.py` makes it, `codegen/cumulative.py` its kernel)."""

from __future__ import annotations

from ..ir.core import Op
from ..ir.dtypes import F32, F64, I32, I64, UI32, UI64
from .declare import op
from .kernel import Kept, kept

_SHORTEST = 16
"""Of fewer elements the windows of the decomposition, which fuse with what is around them."""


@op("tfn.cumulative")
class Cumulative(Kept):
    """Combine each element with all before it along an axis; the attributes of the composite are the
    `axis` and the `kind`, a combiner."""

    def kernel(emit, op):
        from ..codegen.cumulative import cumulative

        cumulative(emit, op)


def as_kernel(composite: Op) -> Op | None:
    """The composite as an op with a kernel, None for sizes and types that have none."""
    (x,) = composite.operands
    axis = composite.attributes["composite_attributes"]["axis"]
    length = x.shape[axis]
    fits = (x.dtype in (F32, F64, I32, I64, UI32, UI64) and isinstance(length, int)
            and length >= _SHORTEST and all(isinstance(e, int) for e in x.shape[axis + 1:]))
    return kept(composite) if fits else None
