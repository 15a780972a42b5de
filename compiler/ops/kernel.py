"""`tfn.kernel`: a group of ops that becomes one compiled function. Made by `passes/fuse.py`.

And what composites with a kernel of their own become (`passes/inline.py`).
"""

from __future__ import annotations

from ..ir.core import Op, Value
from .declare import Factors, OpDefinition, definition, op


@op("tfn.kernel")
class Kernel(OpDefinition):
    """Operands and results are buffers; the region says what is computed, isolated from outside."""

    regions = ("body",)

    def infer(operands, attributes, regions):
        return [r.type for r in regions[0].returns]

    def evaluate(operands, attributes, regions, result_types):
        from ..ir.evaluator import run_block

        return run_block(regions[0], operands)

    def factors(op):
        return Factors([(None,) * len(v.shape) for v in op.operands],
                       [(None,) * len(v.shape) for v in op.results])


class Kept(OpDefinition):
    """A composite as an op. All that is not its kernel follows from the decomposition; the first dim of
    operands and results is the batch."""

    attributes = {"composite_attributes": "dictionary", "decomposition": "symbol"}
    optional = frozenset({"composite_attributes"})
    unbatched: tuple[int, ...] = ()
    """Operands without a batch."""

    def expands(op):
        return False

    def infer(operands, attributes, regions):
        return list(attributes["decomposition"].result_types)

    def decompose(operands, attributes, regions):
        from ..trace.core import replay

        return replay(attributes["decomposition"], operands)

    @classmethod
    def factors(cls, op):
        first = op.operands[0]

        def row(value: Value, batched: bool = True) -> tuple[int | None, ...]:
            rank = len(value.shape)
            whole = batched and rank > 1 and value.shape[0] == first.shape[0]
            return (0 if whole else None, *(None,) * (rank - 1)) if rank else ()

        return Factors([row(v, i not in cls.unbatched) for i, v in enumerate(op.operands)],
                       [row(v) for v in op.results])


def kept(composite: Op) -> Op:
    """A composite as the op of its name."""
    attributes = {name: composite.attributes[name] for name in Kept.attributes
                  if name in composite.attributes}
    return Op(definition(composite.attributes["name"]), composite.operands,
              [r.type for r in composite.results], attributes, (), composite.location)
