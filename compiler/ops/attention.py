"""Attention as one op each way: what the composites `tfn.attention` and `tfn.attention_backward` become
where the code generator has a kernel for them (`codegen/attention.py`).

Everything else about them follows from their decompositions.
"""

from __future__ import annotations

from ..ir.core import Op
from ..ir.dtypes import BF16, F16, F32, F64
from .declare import Factors, OpDefinition, definition, op

_SMALLEST = 256
"""Scores of a head for which a kernel of their own repays its compilation."""


class _Kept(OpDefinition):
    attributes = {"composite_attributes": "dictionary", "decomposition": "symbol"}

    def expands(op):
        return False

    def infer(operands, attributes, regions):
        return list(attributes["decomposition"].result_types)

    def decompose(operands, attributes, regions):
        from ..trace.core import replay

        return replay(attributes["decomposition"], operands)

    def factors(op):
        batch = op.operands[0].shape[0]

        def row(value):
            rank = len(value.shape)
            whole = rank == 4 and value.shape[0] == batch
            return (0 if whole else None, *(None,) * (rank - 1)) if rank else ()

        return Factors([row(v) for v in op.operands], [row(v) for v in op.results])


@op("tfn.attention")
class Attention(_Kept):
    """softmax(query @ key * scale) @ value: `nn.dot_product_attention`."""

    def kernel(emit, op):
        from ..codegen.attention import forward

        forward(emit, op)


@op("tfn.attention_backward")
class AttentionBackward(_Kept):
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
    attributes = {name: composite.attributes[name] for name in _Kept.attributes}
    return Op(definition(composite.attributes["name"]), composite.operands,
              [r.type for r in composite.results], attributes, (), composite.location)
