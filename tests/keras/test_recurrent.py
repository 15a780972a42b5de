"""Recurrent layers in kernels against the same layers run cell by cell."""

import keras
import numpy as np
import pytest
from keras import layers, ops, tree

from tfn.compiler import nn

RNG = np.random.default_rng(4)
MASK = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0], [0, 1, 0, 1, 1, 0], [0, 0, 0, 0, 0, 0]], bool)
"""All steps, the usual padding, holes at both ends, none at all."""
KINDS = {"LSTM": "lstm", "GRU": "gru", "SimpleRNN": "simple_rnn"}
WAYS = [{}, {"go_backwards": True}, {"return_sequences": True, "return_state": True},
        {"return_sequences": True, "go_backwards": True}, {"use_bias": False},
        {"return_sequences": True, "zero_output_for_mask": True},
        {"go_backwards": True, "zero_output_for_mask": True}]


@pytest.fixture
def calls(monkeypatch):
    """The names of the kernels that are called."""
    names = []
    for name in KINDS.values():
        kernel = getattr(nn, name)
        monkeypatch.setattr(nn, name, lambda *a, n=name, k=kernel: names.append(n) or k(*a))
    return names


def cell_by_cell(layer):
    """The same layer with the same weights, of a cell that has no kernel."""
    kind = type(layer.cell)
    cell = type(f"Own{kind.__name__}", (kind,), {"__module__": __name__}).from_config(
        layer.cell.get_config())
    config = {name: getattr(layer, name) for name in (
        "return_sequences", "return_state", "go_backwards", "zero_output_for_mask")}
    plain = layers.RNN(cell, **config)
    plain.build((None, None, layer.cell.kernel.shape[0]))
    plain.set_weights(layer.get_weights())
    return plain



def run_cell_by_cell(layer):
    """Put other layers into a wrapper that is built, which Keras does not let one do."""
    for name in ("forward_layer", "backward_layer"):
        object.__setattr__(layer, name, cell_by_cell(getattr(layer, name)))


def close(found, expected):
    for one, other in zip(tree.flatten(found), tree.flatten(expected), strict=True):
        np.testing.assert_allclose(np.asarray(one), np.asarray(other), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("given", WAYS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_in_one_kernel_is_the_layer_cell_by_cell(kind, given, masked, calls):
    x = RNG.standard_normal((4, 6, 5)).astype(np.float32)
    states = [RNG.standard_normal((4, 8)).astype(np.float32) for _ in range(1 + (kind == "LSTM"))]
    layer = getattr(layers, kind)(8, bias_initializer="random_normal", **given)
    mask = MASK if masked else None
    found = layer(x, mask=mask, initial_state=states)
    assert calls == [KINDS[kind]]
    close(found, cell_by_cell(layer)(x, mask=mask, initial_state=states))
    assert len(calls) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_under_a_mask_are_those_cell_by_cell(kind, calls):
    from tfn.compiler.trace.grad import grad
    from tfn.compiler.trace.jit import jit

    x = RNG.standard_normal((4, 6, 5)).astype(np.float32)
    seen = RNG.standard_normal((4, 6, 8)).astype(np.float32)
    layer = getattr(layers, kind)(8, return_sequences=True, zero_output_for_mask=True)
    layer.build((4, 6, 5))
    plain = cell_by_cell(layer)

    def slopes(model):
        def loss(values, x):
            kept = [v.value for v in model.non_trainable_variables]
            outputs, _ = model.stateless_call(values, kept, x, mask=MASK)
            return ops.sum(outputs * seen)
        return grad(loss, argnums=(0, 1))

    given = [v.value for v in layer.trainable_variables], x
    found = jit(slopes(layer))(*given)
    assert calls
    calls.clear()
    close(found, jit(slopes(plain))(*given))
    assert not calls


@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("merge", ["concat", "sum", None])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_both_directions(kind, masked, merge, sequences, calls):
    x = RNG.standard_normal((4, 6, 5)).astype(np.float32)
    layer = layers.Bidirectional(
        getattr(layers, kind)(8, return_sequences=sequences, return_state=True), merge_mode=merge)
    layer.build((4, 6, 5))
    mask = MASK if masked else None
    found = layer(x, mask=mask)
    assert calls == [KINDS[kind]] * 2
    run_cell_by_cell(layer)
    close(found, layer(x, mask=mask))


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_both_directions_from_states_that_are_given(kind, calls):
    x = RNG.standard_normal((4, 6, 5)).astype(np.float32)
    states = [RNG.standard_normal((4, 8)).astype(np.float32) for _ in range(4 if kind == "LSTM" else 2)]
    layer = layers.Bidirectional(getattr(layers, kind)(8, return_sequences=True))
    layer.build((4, 6, 5))
    found = layer(x, initial_state=states)
    assert len(calls) == 2
    run_cell_by_cell(layer)
    close(found, layer(x, initial_state=states))


def test_a_model_with_masks_trains_in_kernels(calls):
    keras.utils.set_random_seed(3)
    model = keras.Sequential([
        keras.Input((12,), dtype="int32"), layers.Embedding(20, 8, mask_zero=True),
        layers.Bidirectional(layers.LSTM(8)), layers.Dense(1, activation="sigmoid")])
    tokens = RNG.integers(1, 20, (64, 12)) * (np.arange(12) < RNG.integers(1, 12, (64, 1)))
    labels = (tokens == 7).any(1).astype(np.float32)
    model.compile(keras.optimizers.Adam(0.02), "binary_crossentropy")
    history = model.fit(tokens, labels, epochs=15, verbose=0).history["loss"]
    assert set(calls) == {"lstm"}
    assert history[-1] < history[0] / 3


@pytest.mark.parametrize("given", [
    {"activation": "relu"}, {"recurrent_activation": "hard_sigmoid"}, {"unroll": True},
    {"use_cudnn": False}], ids=str)
@pytest.mark.parametrize("masked", [False, True])
def test_unusual_layers_run_cell_by_cell(given, masked, calls):
    layer = layers.LSTM(4, **given)
    assert layer(np.ones((4, 6, 4), np.float32), mask=MASK if masked else None).shape == (4, 4)
    assert not calls


def test_a_mask_of_another_shape_runs_cell_by_cell(calls):
    x = RNG.standard_normal((4, 6, 5)).astype(np.float32)
    layer = layers.LSTM(8, return_sequences=True)
    found = layer(x, mask=MASK[..., None])
    assert not calls
    close(found, layer(x, mask=MASK))
    assert calls == ["lstm"]


def test_dropout_runs_cell_by_cell_under_a_mask_while_training(calls):
    layer = layers.LSTM(4, dropout=0.5)
    x = np.ones((4, 6, 4), np.float32)
    layer(x, mask=MASK, training=True)
    assert not calls
    layer(x, mask=MASK)
    assert calls == ["lstm"]


def test_a_gru_that_resets_before_the_product_runs_cell_by_cell(calls):
    assert layers.GRU(4, reset_after=False)(np.ones((2, 3, 4), np.float32)).shape == (2, 4)
    assert not calls
