"""`tfn.kernel`: a group of ops that becomes one compiled function. Made by `passes/fuse.py`."""

from __future__ import annotations

from .declare import Factors, OpDefinition, op


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
