"""Attention as one op each way: what the composites `tfn.attention` and `tfn.attention_backward` become
where the code generator has a kernel for them (`codegen/attention.py`).

Everything else about them follows from their decompositions.
"""

from __future__ import annotations

from ..ir.core import Op
from ..ir.dtypes import BF16, F16, F32, F64
from .declare import op
from .kernel import Kept, kept

_SMALLEST = 256
"""Scores of a head for which a kernel of their own repays its compilation."""


@op("tfn.attention")
class Attention(Kept):
    """softmax(query @ key * scale) @ value: `nn.dot_product_attention`."""

    def kernel(emit, op):
        from ..codegen.attention import forward

        forward(emit, op)


@op("tfn.attention_backward")
class AttentionBackward(Kept):
    """Cotangents of query, key and value from those, the mask if any, and that of the result."""

    def kernel(emit, op):
        from ..codegen.attention import backward

        backward(emit, op)


def as_kernel(composite: Op) -> Op | None:
    """A composite of attention as an op with a kernel, None for sizes and types that have none."""
    query, key, value = composite.operands[:3]
    sizes = (*query.shape[1:], *key.shape[1:], *value.shape[1:])
    dtypes = {v.dtype for v in (query, key, value, composite.results[0])}
    masks = composite.operands[3:]
    if not (all(isinstance(s, int) and s > 0 for s in sizes) and len(dtypes) == 1
            and dtypes <= {F16, BF16, F32, F64} and query.shape[1] * key.shape[1] >= _SMALLEST
            and key.shape == value.shape
            and all(isinstance(s, int) for m in masks for s in m.shape[1:])):
        return None
    return kept(composite)
