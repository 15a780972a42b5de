"""LSTM and GRU layers in one kernel against the same layers run cell by cell."""

import numpy as np
import pytest
from keras import layers, tree

from tfn.compiler import nn

RNG = np.random.default_rng(4)


@pytest.mark.parametrize("given", [
    {}, {"go_backwards": True}, {"return_sequences": True, "return_state": True},
    {"return_sequences": True, "go_backwards": True}, {"use_bias": False}], ids=str)
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_a_layer_in_one_kernel_is_the_layer_cell_by_cell(kind, given, monkeypatch):
    x = RNG.standard_normal((3, 6, 5)).astype(np.float32)
    layer = getattr(layers, kind.upper())(8, bias_initializer="random_normal", **given)
    calls = []
    fused = getattr(nn, kind)
    monkeypatch.setattr(nn, kind, lambda *a: calls.append(a) or fused(*a))
    found = layer(x)
    assert calls
    layer.use_cudnn = False
    expected = layer(x)
    assert len(calls) == 1
    for one, other in zip(tree.flatten(found), tree.flatten(expected), strict=True):
        np.testing.assert_allclose(np.asarray(one), np.asarray(other), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("given", [{"activation": "relu"}, {"recurrent_activation": "hard_sigmoid"},
                                   {"unroll": True}], ids=str)
def test_unusual_layers_run_cell_by_cell(given, monkeypatch):
    monkeypatch.setattr(nn, "lstm", lambda *a: pytest.fail("not for this layer"))
    assert layers.LSTM(4, **given)(np.ones((2, 3, 4), np.float32)).shape == (2, 4)


def test_a_gru_that_resets_before_the_product_runs_cell_by_cell(monkeypatch):
    monkeypatch.setattr(nn, "gru", lambda *a: pytest.fail("not for this layer"))
    assert layers.GRU(4, reset_after=False)(np.ones((2, 3, 4), np.float32)).shape == (2, 4)


def test_a_mask_runs_cell_by_cell():
    x = RNG.standard_normal((2, 4, 3)).astype(np.float32)
    layer = layers.LSTM(4)
    mask = np.array([[1, 1, 0, 0], [1, 1, 1, 1]], bool)
    short = layer(x[:1, :2])
    np.testing.assert_allclose(np.asarray(layer(x, mask=mask))[0], np.asarray(short)[0], rtol=1e-5,
                               atol=1e-6)
