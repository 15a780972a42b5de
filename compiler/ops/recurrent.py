"""Recurrent layers as one op each way: what the composites `tfn.lstm` and `tfn.gru` and those of their
derivatives become (`nn/recurrent.py` makes them, `codegen/recurrent.py` their kernels)."""

from __future__ import annotations

from ..ir.core import Op
from ..ir.dtypes import F32, F64
from .declare import op
from .kernel import Kept, kept


@op("tfn.lstm")
class Lstm(Kept):
    """Outputs, cells and gates of all steps, from the inputs' share of the gates, the states, and the
    weights of the states."""

    unbatched = (3,)

    def kernel(emit, op):
        from ..codegen.recurrent import forward

        forward(emit, op)


@op("tfn.lstm_backward")
class LstmBackward(Kept):
    """Cotangents of the gates and states, from gates, cells, the first cell, the cotangents of outputs
    and cells, and the weights."""

    unbatched = (5,)

    def kernel(emit, op):
        from ..codegen.recurrent import backward

        backward(emit, op)


@op("tfn.gru")
class Gru(Kept):
    """Outputs and what the derivative needs of all steps, from the inputs' share of the gates, the
    state, and the bias and the weights of the state's share."""

    unbatched = (2, 3)

    def kernel(emit, op):
        from ..codegen.recurrent import gru_forward

        gru_forward(emit, op)


@op("tfn.gru_backward")
class GruBackward(Kept):
    """Cotangents of the inputs' share of the gates and of the state, from those of outputs, what was
    kept, outputs, the first state and the weights."""

    unbatched = (4,)

    def kernel(emit, op):
        from ..codegen.recurrent import gru_backward

        gru_backward(emit, op)


def as_kernel(composite: Op) -> Op | None:
    """A composite as an op with a kernel, None for sizes and types that have none."""
    *states, weights = composite.operands
    sizes = [*(s for v in states for s in v.shape[1:]), *weights.shape]
    dtypes = {v.dtype for v in composite.operands}
    fits = all(isinstance(s, int) and s > 0 for s in sizes) and len(dtypes) == 1
    return kept(composite) if fits and dtypes <= {F32, F64} else None
