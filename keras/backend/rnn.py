"""Recurrent layers: a cell folded over time by `core.scan`.

Fused entry points that do not apply say so, and Keras then runs the cell over time with `rnn`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from keras.src import activations, tree

from ...compiler import nn
from ...compiler import numpy as tnp
from .missing import missing
from .ops.core import convert_to_tensor, fold, scan


def cudnn_ok(*args, **kwargs) -> bool:
    """There is no cuDNN here."""
    return False


def rnn(
    step_function: Callable[[Any, Any], tuple[Any, Any]], inputs: Any, initial_states: Sequence[Any],
    go_backwards: bool = False, mask: Any = None, constants: Sequence[Any] | None = None,
    unroll: bool = False, input_length: int | None = None, time_major: bool = False,
    zero_output_for_mask: bool = False, return_all_outputs: bool = True,
) -> tuple[Any, Any, Any]:
    """`(last output, all outputs, last states)` of a cell over time.

    `inputs` are (batch, time, ...), or (time, batch, ...) if `time_major`. Where `mask` (batch, time)
    is false, states stay and the output repeats the one before, zeros at first or with
    `zero_output_for_mask`. Outputs are in the order of computation.
    """
    rows = tree.map_structure(lambda x: _time_first(convert_to_tensor(x), time_major), inputs)
    first = tree.map_structure(lambda x: x[0], rows)
    states = tuple(convert_to_tensor(s) for s in tree.flatten(initial_states))
    fixed = tuple(constants or ())

    def cell(row, states):
        output, new = step_function(row, (*tree.pack_sequence_as(initial_states, states), *fixed))
        return output, tuple(tree.flatten(new))

    if mask is None:
        def step(states, row):
            output, states = cell(row, states)
            return states, output

        start, xs = states, rows
    else:
        def step(carry, row):
            row, keep = row
            states, before = carry
            output, new = cell(row, states)
            shown = tree.map_structure(lambda o, b: tnp.where(_beside(keep, o), o, b), output,
                                       before)
            states = tuple(tnp.where(_beside(keep, n), n, s)
                           for n, s in zip(new, states, strict=True))
            return (states, before if zero_output_for_mask else shown), shown

        # Only the shape is used; a traced program forgets the rest.
        zeros = tree.map_structure(tnp.zeros_like, cell(first, states)[0])
        start, xs = (states, zeros), (rows, _time_first(convert_to_tensor(mask, "bool"), time_major))
    run = fold if unroll else scan
    end, outputs = run(step, start, xs, reverse=go_backwards)
    if go_backwards:
        outputs = tree.map_structure(lambda y: tnp.flip(y, 0), outputs)
    states = end if mask is None else end[0]
    last = tree.map_structure(lambda y: y[-1], outputs)
    if not return_all_outputs:
        outputs = tree.map_structure(lambda y: y[-1:], outputs)
    outputs = tree.map_structure(lambda y: _time_first(y, time_major), outputs)
    return last, outputs, tree.pack_sequence_as(initial_states, states)


def _time_first(x: Any, time_major: bool) -> Any:
    """Swap batch and time, unless time leads already."""
    return x if time_major else tnp.swapaxes(x, 0, 1)


def _beside(keep: Any, x: Any) -> Any:
    """A (batch,) or (batch, 1) mask with as many dims as `x`."""
    return tnp.reshape(keep, (keep.shape[0],) + (1,) * (x.ndim - 1))


def lstm(
    inputs: Any, initial_state_h: Any, initial_state_c: Any, mask: Any, kernel: Any,
    recurrent_kernel: Any, bias: Any, activation: Any, recurrent_activation: Any,
    return_sequences: bool = False, go_backwards: bool = False, unroll: bool = False,
) -> tuple[Any, Any, Any]:
    """`rnn` of an LSTM cell, with the state's part in one kernel (`compiler/nn/recurrent.py`). Raises
    `NotImplementedError`, so that Keras falls back on `rnn`, for what that does not do."""
    x, h, c, own, recurrent = _plain(
        (inputs, initial_state_h, initial_state_c, kernel, recurrent_kernel),
        mask is None and not unroll, activation, recurrent_activation)
    outputs, h, c = nn.lstm(x, h, c, own, recurrent, None if bias is None else convert_to_tensor(bias),
                            go_backwards)
    return h, outputs if return_sequences else outputs[:, -1:], [h, c]


def gru(
    inputs: Any, initial_state: Any, mask: Any, kernel: Any, recurrent_kernel: Any, bias: Any,
    activation: Any, recurrent_activation: Any, return_sequences: bool = False,
    go_backwards: bool = False, unroll: bool = False, reset_after: bool = True,
) -> tuple[Any, Any, Any]:
    """`rnn` of a GRU cell, as `lstm`."""
    x, h, own, recurrent = _plain(
        (inputs, tree.flatten(initial_state)[0], kernel, recurrent_kernel),
        mask is None and not unroll and reset_after, activation, recurrent_activation)
    given, states = (None, None) if bias is None else (convert_to_tensor(bias)[i] for i in range(2))
    outputs, h = nn.gru(x, h, own, recurrent, given, states, go_backwards)
    return h, outputs if return_sequences else outputs[:, -1:], [h]


def _plain(values: Sequence[Any], usual: bool, activation: Any, recurrent_activation: Any
           ) -> list[Any]:
    """The tensors of a layer that has a kernel; `NotImplementedError` for another."""
    tensors = [convert_to_tensor(v) for v in values]
    steps = tensors[0].shape[1]
    if not (usual and activation is activations.tanh and recurrent_activation is activations.sigmoid
            and len({t.dtype for t in tensors}) == 1 and isinstance(steps, int) and steps > 0):
        raise NotImplementedError("this layer runs cell by cell")
    return tensors


bidirectional_lstm = missing("bidirectional_lstm")
bidirectional_gru = missing("bidirectional_gru")
