"""`tfn.keras.explain`: time, operations and memory find their layer, fused or not; the model stays."""

import json

import keras
import numpy as np
import pytest
from keras import layers
from rich.console import Console

import tfn
from tfn.compiler.errors import TfnError
from tfn.compiler.profile import Profile
from tfn.keras.explanation import costs
from tfn.tools.cli import run

BATCH, IN, HIDDEN, OUT = 16, 48, 64, 10
X = np.random.default_rng(0).random((BATCH, IN)).astype(np.float32)
Y = np.arange(BATCH) % OUT


@keras.saving.register_keras_serializable("test_explanation")
class Residual(layers.Layer):
    """A layer with layers inside."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.Dense(HIDDEN, activation="gelu", name="inner")
        self.norm = layers.LayerNormalization(name="norm")

    def call(self, x):
        return self.norm(x + self.inner(x))


@pytest.fixture
def model():
    model = keras.Sequential([
        keras.Input((IN,)), layers.Dense(HIDDEN, activation="relu", name="first"),
        Residual(name="residual"), layers.Dropout(0.5, name="drop"), layers.Dense(OUT, name="last")])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def rows(explanation):
    return {layer.path: layer for layer in explanation.layers}


def test_prediction(model):
    found = tfn.keras.explain(model, X)
    by_path = rows(found)
    assert [la.kind for la in found.layers][:1] == ["Dense"] and found.runs >= 3
    assert list(by_path)[:1] == ["first"] and "last" in by_path and "drop" not in by_path
    # Sums of products, a bias, and a comparison and a choice.
    assert by_path["first"].flops == pytest.approx(BATCH * HIDDEN * (2 * IN + 3), rel=0.01)
    assert by_path["last"].flops == pytest.approx(BATCH * OUT * (2 * HIDDEN + 1), rel=0.01)
    assert by_path["residual/inner"].flops > BATCH * HIDDEN * 2 * HIDDEN
    assert by_path["residual/norm"].flops > 0
    assert by_path["first"].parameters == IN * HIDDEN + HIDDEN
    assert sum(la.parameters for la in found.layers) == model.count_params()
    assert found.weight_bytes == 4 * model.count_params() + 4 * 2  # the dropout's seed
    assert all(la.backward_seconds == 0 for la in found.layers)
    assert found.seconds == pytest.approx(sum(la.seconds for la in found.layers))
    assert 0 < sum(la.peak_bytes for la in found.layers) <= found.arena_bytes


def test_the_whole_is_the_profile(model):
    found = tfn.keras.explain(model, X)
    assert isinstance(found.profile, Profile)
    assert sum(la.flops for la in found.layers) == pytest.approx(
        sum(row.flops * row.calls for row in found.profile.rows) / found.runs)
    assert sum(la.nbytes for la in found.layers) == pytest.approx(
        sum(row.nbytes * row.calls for row in found.profile.rows) / found.runs)


def test_training_has_a_way_back_and_an_optimizer(model):
    before = [np.array(v) for v in model.variables]
    found = tfn.keras.explain(model, (X, Y), train=True)
    by_path = rows(found)
    assert by_path["first"].backward_seconds > 0 and by_path["first"].forward_seconds > 0
    assert by_path["last"].flops > 2 * BATCH * OUT * 2 * HIDDEN
    assert by_path["adam"].flops > model.count_params() and by_path["adam"].kind == ""
    assert "drop" in by_path
    assert found.optimizer_bytes >= 2 * 4 * model.count_params()
    # What was explained has not been trained.
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(np.asarray(variable), value)
    assert int(model.optimizer.iterations) == 0
    model.fit(X, Y, verbose=0)


def test_an_expensive_layer_takes_most_of_the_time():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(1024, name="cheap"),
                              layers.Dense(2048, name="expensive"), layers.Dense(1, name="last")])
    by_path = rows(tfn.keras.explain(model))
    assert by_path["expensive"].seconds > 5 * by_path["cheap"].seconds


def test_layers_that_look_alike_are_told_apart():
    shared = layers.Dense(32, name="shared")
    x = keras.Input((32,))
    y = layers.Dense(32, name="a")(x)
    y = layers.Dense(32, name="b")(y)
    model = keras.Model(x, shared(shared(y)))
    by_path = rows(tfn.keras.explain(model))
    each = by_path["a"].flops
    assert each > 0 and by_path["b"].flops == each
    assert by_path["shared"].flops == pytest.approx(2 * each, rel=0.01)


def test_recurrent_and_dictionaries():
    ids, features = keras.Input((7,), dtype="int32", name="ids"), keras.Input((7, 4), name="features")
    h = layers.LSTM(6, name="lstm")(layers.Embedding(9, 4, name="table")(ids) + features)
    model = keras.Model({"ids": ids, "features": features}, layers.Dense(2, name="last")(h))
    found = tfn.keras.explain(model)
    by_path = rows(found)
    # The cell has the weights, the layer has the ops.
    assert by_path["lstm"].parameters == 4 * 6 * (4 + 6 + 1)
    assert by_path["lstm"].flops >= 32 * 7 * 2 * 4 * 6 * (4 + 6)
    assert found.inputs == {"features": "float32[32, 7, 4]", "ids": "int32[32, 7]"}


def test_forms(tmp_path, model):
    found = tfn.keras.explain(model, (X, Y), train=True)
    row = json.loads(found.to_json(indent=1))
    assert row["program"] == "train" and row["seconds"] == pytest.approx(found.seconds)
    assert [la["path"] for la in row["layers"]] == [la.path for la in found.layers]
    assert "residual/inner" in str(found) and "backward" in str(found)
    console = Console(width=150, record=True, file=open(tmp_path / "out.txt", "w"))  # noqa: SIM115
    console.print(found)
    assert "residual/inner" in console.export_text()
    found.plot(tmp_path / "plot.html")
    page = (tmp_path / "plot.html").read_text()
    assert page.count("<svg") == 2 and page.count('class="backward"') == len(found.layers)


def test_costs_without_running(tmp_path, capsys, model):
    static, measured = rows(costs(model, BATCH)), rows(tfn.keras.explain(model, X))
    for path in ("first", "last", "residual/inner"):
        assert static[path].flops == pytest.approx(measured[path].flops, rel=0.01)
    model.save(tmp_path / "model.keras")
    assert run(["inspect", str(tmp_path / "model.keras"), "--batch", "4", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    by_path = {la["path"]: la for la in row["layers"]}
    assert by_path["first"]["flops"] == pytest.approx(static["first"].flops / 4)
    assert row["weight_bytes"] == 4 * model.count_params() + 8 and row["arena_bytes"] > 0
    assert row["kernels"] > 0 and row["ops"] > 10
    assert run(["inspect", str(tmp_path / "model.keras")]) == 0
    assert "residual/norm" in capsys.readouterr().out
    assert run(["inspect", str(tmp_path / "model.keras"), "--stage", "plan"]) == 0
    assert "arena of" in capsys.readouterr().out


def test_mistakes(model):
    with pytest.raises(TfnError, match=r"inputs=\(x, y\)"):
        tfn.keras.explain(model, X, train=True)
    with pytest.raises(TfnError, match="give a batch"):
        tfn.keras.explain(keras.Sequential([layers.Dense(2)]))
    with pytest.raises(TfnError, match="give a batch"):
        tfn.keras.explain(keras.Sequential([keras.Input((None, 3)), layers.Dense(2)]))
    with pytest.raises(ValueError, match="compile"):
        tfn.keras.explain(keras.Sequential([keras.Input((3,)), layers.Dense(2)]), (X, Y), train=True)
