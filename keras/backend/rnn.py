"""Recurrent layers: a cell folded over time by `core.scan`, or one of the kernels for usual cells.

Entry points that do not apply say so, and Keras then runs the cell over time with `rnn`. What Keras
tells them leaves out `zero_output_for_mask`, so the plug asks `fused` about a whole layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from keras.src import activations, tree

from ...compiler import nn
from ...compiler import numpy as tnp
from .ops.core import convert_to_tensor, fold, is_tensor, scan


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
    is false, states stay and the output repeats the one before, at first the state if it is of that
    shape, else zeros; with `zero_output_for_mask` it is zeros. Outputs are in the order of computation.
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
        before = zeros
        if not zero_output_for_mask and is_tensor(zeros) and zeros.shape == states[0].shape:
            before = states[0].astype(zeros.dtype)
        start, xs = (states, before), (rows, _time_first(convert_to_tensor(mask, "bool"), time_major))
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
    `NotImplementedError`, so that Keras falls back on `rnn`, for what that does not do. Nothing here
    says what a mask makes of outputs: `fused` is asked next, which knows."""
    _require(mask is None and not unroll and _usual(activation, recurrent_activation))
    return _run(nn.lstm, inputs, (initial_state_h, initial_state_c),
                (kernel, recurrent_kernel, bias), return_sequences, go_backwards)


def gru(
    inputs: Any, initial_state: Any, mask: Any, kernel: Any, recurrent_kernel: Any, bias: Any,
    activation: Any, recurrent_activation: Any, return_sequences: bool = False,
    go_backwards: bool = False, unroll: bool = False, reset_after: bool = True,
) -> tuple[Any, Any, Any]:
    """`rnn` of a GRU cell, as `lstm`."""
    _require(mask is None and not unroll and reset_after and _usual(activation, recurrent_activation))
    return _run(nn.gru, inputs, tree.flatten(initial_state), (kernel, recurrent_kernel, *_halves(bias)),
                return_sequences, go_backwards)


def bidirectional_lstm(
    inputs: Any, fwd_initial_state_h: Any, fwd_initial_state_c: Any, bwd_initial_state_h: Any,
    bwd_initial_state_c: Any, mask: Any, fwd_kernel: Any, fwd_recurrent_kernel: Any, fwd_bias: Any,
    bwd_kernel: Any, bwd_recurrent_kernel: Any, bwd_bias: Any, activation: Any,
    recurrent_activation: Any, return_sequences: bool = False, unroll: bool = False,
) -> tuple[tuple[Any, Any, Any], tuple[Any, Any, Any]]:
    """`lstm` in both directions: what it returns for each, all outputs in the order of time."""
    _require(mask is None and not unroll and _usual(activation, recurrent_activation))
    ahead, back = (
        _run(nn.lstm, inputs, states, weights, return_sequences, reverse, in_time=True)
        for reverse, states, weights in (
            (False, (fwd_initial_state_h, fwd_initial_state_c),
             (fwd_kernel, fwd_recurrent_kernel, fwd_bias)),
            (True, (bwd_initial_state_h, bwd_initial_state_c),
             (bwd_kernel, bwd_recurrent_kernel, bwd_bias))))
    return ahead, back


def bidirectional_gru(
    inputs: Any, fwd_initial_state: Any, bwd_initial_state: Any, mask: Any, fwd_kernel: Any,
    fwd_recurrent_kernel: Any, fwd_bias: Any, bwd_kernel: Any, bwd_recurrent_kernel: Any, bwd_bias: Any,
    activation: Any, recurrent_activation: Any, return_sequences: bool = False, unroll: bool = False,
    reset_after: bool = True,
) -> tuple[tuple[Any, Any, Any], tuple[Any, Any, Any]]:
    """`gru` in both directions, as `bidirectional_lstm`."""
    _require(mask is None and not unroll and reset_after and _usual(activation, recurrent_activation))
    ahead, back = (
        _run(nn.gru, inputs, (state,), (*kernels, *_halves(bias)), return_sequences, reverse,
             in_time=True)
        for reverse, state, kernels, bias in (
            (False, fwd_initial_state, (fwd_kernel, fwd_recurrent_kernel), fwd_bias),
            (True, bwd_initial_state, (bwd_kernel, bwd_recurrent_kernel), bwd_bias)))
    return ahead, back


def fused(layer: Any, sequences: Any, initial_state: Any, mask: Any, training: bool
          ) -> tuple[Any, Any, Any] | None:
    """What `rnn` returns for the cell of a Keras layer, by a kernel; None where none applies."""
    cell = layer.cell
    row = _CELLS.get(type(cell).__name__) if type(cell).__module__.startswith("keras.src.") else None
    if (row is None or layer.unroll or tree.is_nested(sequences) or not row.applies(cell)
            or getattr(layer, "use_cudnn", True) is False
            or (training and (cell.dropout or cell.recurrent_dropout))):
        return None
    weights = (cell.kernel, cell.recurrent_kernel, *row.biases(cell.bias))
    try:
        return _run(row.run, sequences, tree.flatten(initial_state), weights, layer.return_sequences,
                    layer.go_backwards, tree.flatten(mask)[0] if mask is not None else None,
                    layer.zero_output_for_mask)
    except NotImplementedError:
        return None


def _halves(bias: Any) -> tuple[Any, Any]:
    """The biases of inputs and of states of a GRU."""
    return (None, None) if bias is None else tuple(convert_to_tensor(bias)[i] for i in range(2))


@dataclass(frozen=True)
class _Cell:
    """How a Keras cell runs in one kernel."""

    run: Callable[..., tuple[Any, ...]]
    applies: Callable[[Any], bool]
    biases: Callable[[Any], tuple[Any, ...]] = lambda bias: (bias,)


def _usual(activation: Any, recurrent_activation: Any) -> bool:
    """Are these the activations the kernels have?"""
    return activation is activations.tanh and recurrent_activation is activations.sigmoid


_CELLS = {
    "LSTMCell": _Cell(lambda *a: nn.lstm(*a), lambda c: _usual(c.activation, c.recurrent_activation)),
    "GRUCell": _Cell(lambda *a: nn.gru(*a), lambda c: c.reset_after and _usual(
        c.activation, c.recurrent_activation), _halves),
    "SimpleRNNCell": _Cell(lambda *a: nn.simple_rnn(*a), lambda c: c.activation is activations.tanh),
}


def _require(usual: bool) -> None:
    if not usual:
        raise NotImplementedError("this layer runs cell by cell")


def _run(kernel: Callable[..., tuple[Any, ...]], inputs: Any, states: Sequence[Any],
         weights: Sequence[Any], return_sequences: bool, reverse: bool, mask: Any = None,
         zero_output_for_mask: bool = False, in_time: bool = False) -> tuple[Any, Any, Any]:
    """`(last output, all outputs or the last, last states)`, outputs in the order of computation unless
    `in_time`. `NotImplementedError` for tensors a kernel does not take."""
    x, *tensors = [convert_to_tensor(v) for v in (inputs, *states, *weights[:2])]
    steps = x.shape[1]
    _require(len({t.dtype for t in (x, *tensors)}) == 1 and isinstance(steps, int) and steps > 0)
    biases = [None if b is None else convert_to_tensor(b) for b in weights[2:]]
    keep = None if mask is None else convert_to_tensor(mask, "bool")
    _require(keep is None or tuple(keep.shape) == tuple(x.shape[:2]))
    outputs, *ends = kernel(x, *tensors, *biases, keep, reverse)
    if keep is not None and zero_output_for_mask:
        outputs = tnp.where(tnp.expand_dims(keep, -1), outputs, tnp.zeros_like(outputs))
    end = 0 if reverse else steps - 1
    last = outputs[:, end]
    if not return_sequences:
        outputs = outputs[:, end:end + 1]
    elif reverse and not in_time:
        outputs = tnp.flip(outputs, 1)
    return last, outputs, ends
