"""Recurrent layers over time: the composites `tfn.lstm`, `tfn.gru`, `tfn.simple_rnn`, and those of
their derivatives.

What does not depend on the state, the products with the inputs and with the cotangents of the weights,
is one matrix product for all steps and stays outside the composites. All of them go through time as
inputs stand, or from the last step to the first if `reverse`. Where a `mask` (batch, time) is false, a
row keeps its state and its output repeats it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .. import numpy as tnp
from ..errors import OpError, user_location
from ..ir.core import Op
from ..numpy.promote import ArrayLike, Value, floating, shape_text
from ..ops.control import DERIVATIVES, composite
from ..trace.control import scan
from ..trace.core import replay
from ..trace.grad import vjp
from .activation import sigmoid


def lstm(inputs: ArrayLike, h: ArrayLike, c: ArrayLike, kernel: ArrayLike, recurrent_kernel: ArrayLike,
         bias: ArrayLike | None = None, mask: ArrayLike | None = None, reverse: bool = False
         ) -> tuple[Value, Value, Value]:
    """`(outputs, last h, last c)` of an LSTM of u units over time; gates are sigmoids, the rest tanh.

    inputs (batch, time, features), states (batch, u), kernel (features, 4u), recurrent_kernel (u, 4u)
    and bias (4u,), whose columns are those of the input gate, forget gate, candidate and output gate.
    outputs (batch, time, u) stand where their inputs do; with `reverse` the last states are those of
    the first step.
    """
    h, c = floating(h), floating(c)
    gates, weights, masks = _shares("lstm", 4, inputs, kernel, recurrent_kernel, bias, mask)
    outputs, cells, _ = _composite("tfn.lstm", _steps, reverse, gates, h, c, weights, *masks)
    last = 0 if reverse else -1
    return outputs, outputs[:, last], cells[:, last]


def gru(inputs: ArrayLike, h: ArrayLike, kernel: ArrayLike, recurrent_kernel: ArrayLike,
        bias: ArrayLike | None = None, recurrent_bias: ArrayLike | None = None,
        mask: ArrayLike | None = None, reverse: bool = False) -> tuple[Value, Value]:
    """`(outputs, last h)` of a GRU of u units over time whose reset gate acts after the product.

    inputs (batch, time, features), h (batch, u), kernel (features, 3u), recurrent_kernel (u, 3u) and
    biases (3u,), whose columns are those of the update gate, reset gate and candidate; outputs (batch,
    time, u), as those of `lstm`.
    """
    h = floating(h)
    gates, weights, masks = _shares("gru", 3, inputs, kernel, recurrent_kernel, bias, mask)
    own = tnp.zeros_like(weights[0]) if recurrent_bias is None else floating(recurrent_bias)
    outputs, _ = _composite("tfn.gru", _gru_steps, reverse, gates, h, own, weights, *masks)
    return outputs, outputs[:, 0 if reverse else -1]


def simple_rnn(inputs: ArrayLike, h: ArrayLike, kernel: ArrayLike, recurrent_kernel: ArrayLike,
               bias: ArrayLike | None = None, mask: ArrayLike | None = None, reverse: bool = False
               ) -> tuple[Value, Value]:
    """`(outputs, last h)` of u units whose state is the tanh of the products with input and state.

    inputs (batch, time, features), h (batch, u), kernel (features, u), recurrent_kernel (u, u), bias
    (u,); outputs (batch, time, u), as those of `lstm`.
    """
    h = floating(h)
    given, weights, masks = _shares("simple_rnn", 1, inputs, kernel, recurrent_kernel, bias, mask)
    outputs = _composite("tfn.simple_rnn", _simple_steps, reverse, given, h, weights, *masks)
    return outputs, outputs[:, 0 if reverse else -1]


def _shares(name: str, blocks: int, inputs: ArrayLike, kernel: ArrayLike, recurrent_kernel: ArrayLike,
            bias: ArrayLike | None, mask: ArrayLike | None) -> tuple[Value, Value, list[Value]]:
    """The inputs' share of the gates, the weights of the states, and the mask if there is one."""
    inputs, kernel, weights = map(floating, (inputs, kernel, recurrent_kernel))
    units = weights.shape[0]
    columns = blocks * units
    if weights.shape[1] != columns or kernel.shape[1] != columns:
        raise OpError(f"{name} of {units} units needs kernels with {columns} columns, got"
                      f" {shape_text(kernel.shape)} and {shape_text(weights.shape)}", user_location())
    gates = tnp.matmul(inputs, kernel)
    if bias is not None:
        gates = gates + bias
    if mask is None:
        return gates, weights, []
    mask = tnp.asarray(mask).astype("bool")
    if tuple(mask.shape) != tuple(inputs.shape[:2]):
        raise OpError(f"{name} over inputs {shape_text(inputs.shape)} needs a mask (batch, time) ="
                      f" {shape_text(inputs.shape[:2])}, got {shape_text(mask.shape)}", user_location())
    return gates, weights, [mask]


def _composite(name: str, steps: Callable, reverse: bool, *operands: Value):
    """`steps` under a name that says which way it goes."""

    def function(*given):
        return steps(*given, reverse=reverse)

    return composite(name, function, *operands, **({"reverse": True} if reverse else {}))


def _reversed(op: Op) -> bool:
    return bool((op.attributes.get("composite_attributes") or {}).get("reverse"))


def _over_time(step: Callable, start, rows: Sequence[Value], mask: Sequence[Value], reverse: bool):
    """`scan` along the second dim of `rows`: the last state, and all results beside each other.
    `step(state, row, choose)` keeps with `choose(new, old)` what a mask holds back."""

    def masked(state, row):
        *row, keep = row
        keep = tnp.expand_dims(keep, -1)
        return step(state, row, lambda new, old: tnp.where(keep, new, old))

    turned = tuple(tnp.swapaxes(x, 0, 1) for x in (*rows, *mask))
    plain = masked if mask else lambda state, row: step(state, row, lambda new, old: new)
    end, found = scan(plain, start, turned, reverse=reverse)
    return end, [tnp.swapaxes(x, 0, 1) for x in found]


def _before(first: Value, states: Value, reverse: bool) -> Value:
    """The state before every step."""
    first = tnp.expand_dims(first, 1)
    return tnp.concatenate([states[:, 1:], first] if reverse else [first, states[:, :-1]], 1)


def _second(op: Op, cotangents, operands, results) -> list:
    """The derivative by that of the decomposition: what only the derivative reads matters, too."""
    body = op.attributes["decomposition"]
    given = [tnp.zeros_like(r) if ct is None else ct
             for ct, r in zip(cotangents, results, strict=True)]
    return list(vjp(lambda *v: replay(body, v), *operands)[1](given))


def _nothing(masks: Sequence[Value]) -> list[None]:
    """Masks have no derivative."""
    return [None] * len(masks)


# -- LSTM -------------------------------------------------------------------------------------------

def _steps(gates: Value, h: Value, c: Value, weights: Value, *mask: Value, reverse: bool
           ) -> list[Value]:
    """(batch, time, u) outputs and cells, and (batch, time, 4u) gates after their activations."""

    def step(state, row, choose):
        h, c = state
        i, f, g, o = tnp.split(row[0] + tnp.matmul(h, weights), 4, -1)
        i, f, g, o = sigmoid(i), sigmoid(f), tnp.tanh(g), sigmoid(o)
        cell = f * c + i * g
        h, c = choose(o * tnp.tanh(cell), h), choose(cell, c)
        return (h, c), (h, c, tnp.concatenate([i, f, g, o], -1))

    return _over_time(step, (h, c), [gates], mask, reverse)[1]


def _steps_back(gates: Value, cells: Value, c: Value, dh: Value, dc: Value, weights: Value,
                *mask: Value, reverse: bool) -> list[Value]:
    """Cotangents of the gates before their activations, of h and of c, from those of all outputs and
    all cells."""

    def step(state, row, choose):
        h_back, c_back = state
        active, cell, before, dh, dc = row
        i, f, g, o = tnp.split(active, 4, -1)
        dh, grown = dh + h_back, tnp.tanh(cell)
        dc = dc + c_back
        total = dc + dh * o * (1 - grown * grown)
        slopes = tnp.concatenate([total * g * i * (1 - i), total * before * f * (1 - f),
                                  total * i * (1 - g * g), dh * grown * o * (1 - o)], -1)
        slopes = choose(slopes, tnp.zeros_like(slopes))
        return (choose(tnp.matmul(slopes, weights.T), dh), choose(total * f, dc)), [slopes]

    zero = tnp.zeros_like(c)
    rows = [gates, cells, _before(c, cells, reverse), dh, dc]
    (dh0, dc0), (slopes,) = _over_time(step, (zero, zero), rows, mask, not reverse)
    return [slopes, dh0, dc0]


def _derivative(op: Op):
    reverse = _reversed(op)

    def rule(cotangents, op, operands, results):
        if cotangents[2] is not None:
            return _second(op, cotangents, operands, results)
        _, h, c, weights, *mask = operands
        outputs, cells, gates = results
        dh, dc = (tnp.zeros_like(r) if ct is None else ct
                  for ct, r in zip(cotangents[:2], results[:2], strict=True))
        slopes, dh0, dc0 = _composite("tfn.lstm_backward", _steps_back, reverse, gates, cells, c, dh,
                                      dc, weights, *mask)
        before = _before(h, outputs, reverse)
        return [slopes, dh0, dc0, tnp.einsum("btu,btv->uv", before, slopes), *_nothing(mask)]

    return rule


DERIVATIVES["tfn.lstm"] = _derivative


# -- GRU --------------------------------------------------------------------------------------------

def _gru_steps(gates: Value, h: Value, bias: Value, weights: Value, *mask: Value, reverse: bool
               ) -> list[Value]:
    """(batch, time, u) outputs, and (batch, time, 4u) gates after their activations and the state's
    share of the candidate."""

    def step(h, row, choose):
        own = tnp.split(tnp.matmul(h, weights) + bias, 3, -1)
        given = tnp.split(row[0], 3, -1)
        update, reset = sigmoid(given[0] + own[0]), sigmoid(given[1] + own[1])
        candidate = tnp.tanh(given[2] + reset * own[2])
        h = choose(candidate + update * (h - candidate), h)
        return h, (h, tnp.concatenate([update, reset, candidate, own[2]], -1))

    return _over_time(step, h, [gates], mask, reverse)[1]


def _gru_steps_back(dh: Value, kept: Value, outputs: Value, h: Value, weights: Value, *mask: Value,
                    reverse: bool) -> list[Value]:
    """Cotangents of the inputs' share of the gates, and of h, from those of all outputs."""

    def step(back, row, choose):
        ct, active, before = row
        update, reset, candidate, share = tnp.split(active, 4, -1)
        ct = ct + back
        of_update = ct * (before - candidate) * update * (1 - update)
        of_candidate = ct * (1 - update) * (1 - candidate * candidate)
        of_reset = of_candidate * share * reset * (1 - reset)
        own = tnp.concatenate([of_update, of_reset, of_candidate * reset], -1)
        slopes = tnp.concatenate([of_update, of_reset, of_candidate], -1)
        return (choose(ct * update + tnp.matmul(own, weights.T), ct),
                [choose(slopes, tnp.zeros_like(slopes))])

    rows = [dh, kept, _before(h, outputs, reverse)]
    dh0, (slopes,) = _over_time(step, tnp.zeros_like(h), rows, mask, not reverse)
    return [slopes, dh0]


def _gru_derivative(op: Op):
    reverse = _reversed(op)

    def rule(cotangents, op, operands, results):
        if cotangents[1] is not None:
            return _second(op, cotangents, operands, results)
        _, h, _, weights, *mask = operands
        outputs, kept = results
        dh = tnp.zeros_like(outputs) if cotangents[0] is None else cotangents[0]
        slopes, dh0 = _composite("tfn.gru_backward", _gru_steps_back, reverse, dh, kept, outputs, h,
                                 weights, *mask)
        units = h.shape[1]
        own = tnp.concatenate([slopes[..., :2 * units],
                               slopes[..., 2 * units:] * kept[..., units:2 * units]], -1)
        return [slopes, dh0, own.sum((0, 1)),
                tnp.einsum("btu,btv->uv", _before(h, outputs, reverse), own), *_nothing(mask)]

    return rule


DERIVATIVES["tfn.gru"] = _gru_derivative


# -- one gate ---------------------------------------------------------------------------------------

def _simple_steps(given: Value, h: Value, weights: Value, *mask: Value, reverse: bool) -> Value:
    """(batch, time, u) outputs."""

    def step(h, row, choose):
        h = choose(tnp.tanh(row[0] + tnp.matmul(h, weights)), h)
        return h, [h]

    return _over_time(step, h, [given], mask, reverse)[1][0]


def _simple_steps_back(dh: Value, outputs: Value, weights: Value, *mask: Value, reverse: bool
                       ) -> list[Value]:
    """Cotangents of the inputs' share and of h, from those of all outputs."""

    def step(back, row, choose):
        ct, made = row
        ct = ct + back
        slopes = ct * (1 - made * made)
        return (choose(tnp.matmul(slopes, weights.T), ct), [choose(slopes, tnp.zeros_like(slopes))])

    dh0, (slopes,) = _over_time(step, tnp.zeros_like(dh[:, 0]), [dh, outputs], mask, not reverse)
    return [slopes, dh0]


def _simple_derivative(op: Op):
    reverse = _reversed(op)

    def rule(cotangents, op, operands, results):
        _, h, weights, *mask = operands
        slopes, dh0 = _composite("tfn.simple_rnn_backward", _simple_steps_back, reverse, cotangents[0],
                                 results[0], weights, *mask)
        before = _before(h, results[0], reverse)
        return [slopes, dh0, tnp.einsum("btu,btv->uv", before, slopes), *_nothing(mask)]

    return rule


DERIVATIVES["tfn.simple_rnn"] = _simple_derivative
