"""Recurrent layers as one op each way: what the composites `tfn.lstm`, `tfn.gru`, `tfn.simple_rnn` and
those of their derivatives become (`nn/recurrent.py` makes them, `codegen/recurrent.py` their kernels).

The weights of the states come behind what depends on the batch, and a mask (batch, time), if there is
one, behind the weights.
"""

from __future__ import annotations

from ..ir.core import Op
from ..ir.dtypes import F32, F64, I1
from .declare import definition, op
from .kernel import Kept, kept


class _Forward(Kept):
    @classmethod
    def kernel(cls, emit, op):
        from ..codegen.recurrent import forward

        forward(emit, op, cls.unbatched[-1])


class _Backward(Kept):
    @classmethod
    def kernel(cls, emit, op):
        from ..codegen.recurrent import backward

        backward(emit, op, cls.unbatched[-1])


@op("tfn.lstm")
class Lstm(_Forward):
    """Outputs, cells and gates of all steps, from the inputs' share of the gates, the states, and the
    weights of the states."""

    unbatched = (3,)


@op("tfn.lstm_backward")
class LstmBackward(_Backward):
    """Cotangents of the gates and states, from gates, cells, the first cell, the cotangents of outputs
    and cells, and the weights."""

    unbatched = (5,)


@op("tfn.gru")
class Gru(_Forward):
    """Outputs and what the derivative needs of all steps, from the inputs' share of the gates, the
    state, and the bias and the weights of the state's share."""

    unbatched = (2, 3)


@op("tfn.gru_backward")
class GruBackward(_Backward):
    """Cotangents of the inputs' share of the gates and of the state, from those of outputs, what was
    kept, outputs, the first state and the weights."""

    unbatched = (4,)


@op("tfn.simple_rnn")
class SimpleRnn(_Forward):
    """Outputs of all steps, from the inputs' share, the state and its weights."""

    unbatched = (2,)


@op("tfn.simple_rnn_backward")
class SimpleRnnBackward(_Backward):
    """Cotangents of the inputs' share and of the state, from those of outputs, outputs and weights."""

    unbatched = (2,)


def as_kernel(composite: Op) -> Op | None:
    """A composite as an op with a kernel, None for sizes and types that have none."""
    kind = definition(composite.attributes["name"])
    assert issubclass(kind, Kept)
    place = kind.unbatched[-1]
    *states, weights = composite.operands[:place + 1]
    masks = composite.operands[place + 1:]
    sizes = [*(s for v in (*states, *masks) for s in v.shape[1:]), *weights.shape]
    dtypes = {v.dtype for v in (*states, weights)}
    fits = (all(isinstance(s, int) and s > 0 for s in sizes) and len(dtypes) == 1
            and all(m.dtype == I1 for m in masks))
    return kept(composite) if fits and dtypes <= {F32, F64} else None
