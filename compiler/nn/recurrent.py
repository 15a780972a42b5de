"""Recurrent layers over time: the composites `tfn.lstm` and `tfn.gru`, and those of their derivatives.

What does not depend on the state, the products with the inputs and with the cotangents of the weights,
is one matrix product for all steps and stays outside the composites.
"""

from __future__ import annotations

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
         bias: ArrayLike | None = None, go_backwards: bool = False) -> tuple[Value, Value, Value]:
    """`(outputs, last h, last c)` of an LSTM of u units over time; gates are sigmoids, the rest tanh.

    inputs (batch, time, features), states (batch, u), kernel (features, 4u), recurrent_kernel (u, 4u)
    and bias (4u,), whose columns are those of the input gate, forget gate, candidate and output gate.
    outputs (batch, time, u) are in the order of computation, from the last step if `go_backwards`.
    """
    inputs, h, c, kernel, weights = map(floating, (inputs, h, c, kernel, recurrent_kernel))
    units = weights.shape[0]
    if weights.shape[1] != 4 * units or kernel.shape[1] != 4 * units:
        raise OpError(f"lstm of {units} units needs kernels with {4 * units} columns, got"
                      f" {shape_text(kernel.shape)} and {shape_text(weights.shape)}", user_location())
    if go_backwards:
        inputs = tnp.flip(inputs, 1)
    gates = tnp.matmul(inputs, kernel)
    if bias is not None:
        gates = gates + bias
    outputs, cells, _ = composite("tfn.lstm", _steps, gates, h, c, weights)
    return outputs, outputs[:, -1], cells[:, -1]


def _steps(gates: Value, h: Value, c: Value, weights: Value) -> list[Value]:
    """(batch, time, u) outputs and cells, and (batch, time, 4u) gates after their activations."""

    def step(state, row):
        h, c = state
        i, f, g, o = tnp.split(row + tnp.matmul(h, weights), 4, -1)
        i, f, g, o = sigmoid(i), sigmoid(f), tnp.tanh(g), sigmoid(o)
        c = f * c + i * g
        h = o * tnp.tanh(c)
        return (h, c), (h, c, tnp.concatenate([i, f, g, o], -1))

    _, found = scan(step, (h, c), tnp.swapaxes(gates, 0, 1))
    return [tnp.swapaxes(x, 0, 1) for x in found]


def _steps_back(gates: Value, cells: Value, c: Value, dh: Value, dc: Value, weights: Value
                ) -> list[Value]:
    """Cotangents of the gates before their activations, of h and of c, from those of all outputs and
    all cells."""

    def step(state, row):
        h_back, c_back = state
        active, cell, before, dh, dc = row
        i, f, g, o = tnp.split(active, 4, -1)
        dh, grown = dh + h_back, tnp.tanh(cell)
        dc = dc + c_back + dh * o * (1 - grown * grown)
        slopes = tnp.concatenate([dc * g * i * (1 - i), dc * before * f * (1 - f),
                                  dc * i * (1 - g * g), dh * grown * o * (1 - o)], -1)
        return (tnp.matmul(slopes, weights.T), dc * f), slopes

    before = tnp.concatenate([tnp.expand_dims(c, 1), cells[:, :-1]], 1)
    rows = [tnp.swapaxes(x, 0, 1) for x in (gates, cells, before, dh, dc)]
    zero = tnp.zeros_like(c)
    (dh0, dc0), slopes = scan(step, (zero, zero), tuple(rows), reverse=True)
    return [tnp.swapaxes(slopes, 0, 1), dh0, dc0]


def _derivative(op: Op):
    body = op.attributes["decomposition"]

    def rule(cotangents, op, operands, results):
        _, h, c, weights = operands
        outputs, cells, gates = results
        dh, dc, of_gates = (tnp.zeros_like(r) if ct is None else ct
                            for ct, r in zip(cotangents, results, strict=True))
        if cotangents[2] is not None:
            # The gates themselves matter: a second derivative.
            return list(vjp(lambda *v: replay(body, v), *operands)[1]([dh, dc, of_gates]))
        slopes, dh0, dc0 = composite("tfn.lstm_backward", _steps_back, gates, cells, c, dh, dc, weights)
        before = tnp.concatenate([tnp.expand_dims(h, 1), outputs[:, :-1]], 1)
        return [slopes, dh0, dc0, tnp.einsum("btu,btv->uv", before, slopes)]

    return rule


DERIVATIVES["tfn.lstm"] = _derivative


def gru(inputs: ArrayLike, h: ArrayLike, kernel: ArrayLike, recurrent_kernel: ArrayLike,
        bias: ArrayLike | None = None, recurrent_bias: ArrayLike | None = None,
        go_backwards: bool = False) -> tuple[Value, Value]:
    """`(outputs, last h)` of a GRU of u units over time whose reset gate acts after the product.

    inputs (batch, time, features), h (batch, u), kernel (features, 3u), recurrent_kernel (u, 3u) and
    biases (3u,), whose columns are those of the update gate, reset gate and candidate. outputs (batch,
    time, u) are in the order of computation, from the last step if `go_backwards`.
    """
    inputs, h, kernel, weights = map(floating, (inputs, h, kernel, recurrent_kernel))
    units = weights.shape[0]
    if weights.shape[1] != 3 * units or kernel.shape[1] != 3 * units:
        raise OpError(f"gru of {units} units needs kernels with {3 * units} columns, got"
                      f" {shape_text(kernel.shape)} and {shape_text(weights.shape)}", user_location())
    if go_backwards:
        inputs = tnp.flip(inputs, 1)
    gates = tnp.matmul(inputs, kernel)
    if bias is not None:
        gates = gates + bias
    own = tnp.zeros_like(weights[0]) if recurrent_bias is None else floating(recurrent_bias)
    outputs, _ = composite("tfn.gru", _gru_steps, gates, h, own, weights)
    return outputs, outputs[:, -1]


def _gru_steps(gates: Value, h: Value, bias: Value, weights: Value) -> list[Value]:
    """(batch, time, u) outputs, and (batch, time, 4u) gates after their activations and the state's
    share of the candidate."""

    def step(h, row):
        own = tnp.split(tnp.matmul(h, weights) + bias, 3, -1)
        given = tnp.split(row, 3, -1)
        update, reset = sigmoid(given[0] + own[0]), sigmoid(given[1] + own[1])
        candidate = tnp.tanh(given[2] + reset * own[2])
        h = candidate + update * (h - candidate)
        return h, (h, tnp.concatenate([update, reset, candidate, own[2]], -1))

    _, found = scan(step, h, tnp.swapaxes(gates, 0, 1))
    return [tnp.swapaxes(x, 0, 1) for x in found]


def _gru_steps_back(dh: Value, kept: Value, outputs: Value, h: Value, weights: Value) -> list[Value]:
    """Cotangents of the inputs' share of the gates, and of h, from those of all outputs."""

    def step(back, row):
        ct, active, before = row
        update, reset, candidate, share = tnp.split(active, 4, -1)
        ct = ct + back
        of_update = ct * (before - candidate) * update * (1 - update)
        of_candidate = ct * (1 - update) * (1 - candidate * candidate)
        of_reset = of_candidate * share * reset * (1 - reset)
        own = tnp.concatenate([of_update, of_reset, of_candidate * reset], -1)
        return ct * update + tnp.matmul(own, weights.T), tnp.concatenate(
            [of_update, of_reset, of_candidate], -1)

    before = tnp.concatenate([tnp.expand_dims(h, 1), outputs[:, :-1]], 1)
    rows = tuple(tnp.swapaxes(x, 0, 1) for x in (dh, kept, before))
    dh0, slopes = scan(step, tnp.zeros_like(h), rows, reverse=True)
    return [tnp.swapaxes(slopes, 0, 1), dh0]


def _gru_derivative(op: Op):
    body = op.attributes["decomposition"]

    def rule(cotangents, op, operands, results):
        _, h, _, weights = operands
        outputs, kept = results
        dh, of_kept = (tnp.zeros_like(r) if ct is None else ct
                       for ct, r in zip(cotangents, results, strict=True))
        if cotangents[1] is not None:
            return list(vjp(lambda *v: replay(body, v), *operands)[1]([dh, of_kept]))
        slopes, dh0 = composite("tfn.gru_backward", _gru_steps_back, dh, kept, outputs, h, weights)
        units = h.shape[1]
        before = tnp.concatenate([tnp.expand_dims(h, 1), outputs[:, :-1]], 1)
        own = tnp.concatenate([slopes[..., :2 * units],
                               slopes[..., 2 * units:] * kept[..., units:2 * units]], -1)
        return [slopes, dh0, own.sum((0, 1)), tnp.einsum("btu,btv->uv", before, own)]

    return rule


DERIVATIVES["tfn.gru"] = _gru_derivative
