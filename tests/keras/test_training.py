"""fit, evaluate, predict, callbacks, and the state of variables between steps."""

import itertools
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

from tfn.compiler.errors import TraceError
from tfn.compiler.runtime.cache import KERNELS


def small_model(optimizer="adam", **kwargs):
    model = keras.Sequential([
        keras.Input((6,)), layers.Dense(16, activation="relu"), layers.BatchNormalization(),
        layers.Dense(3)])
    model.compile(optimizer, "mse", metrics=["mae"], **kwargs)
    return model


@pytest.fixture
def data(rng):
    x = rng.standard_normal((50, 6)).astype("float32")
    return x, (x @ rng.standard_normal((6, 3))).astype("float32")


def test_fit_learns_and_reports(data):
    history = small_model(keras.optimizers.Adam(0.01)).fit(
        *data, epochs=30, batch_size=16, verbose=0, validation_data=data)
    loss = history.history["loss"]
    assert set(history.history) == {"loss", "mae", "val_loss", "val_mae"}
    assert loss[-1] < 0.3 * loss[0]


def test_a_new_batch_size_compiles_no_kernel(data):
    x, y = data
    model = small_model()
    model.train_on_batch(x[:16], y[:16])
    before = KERNELS.statistics.compiled + KERNELS.statistics.loaded
    model.train_on_batch(x[:13], y[:13])
    assert KERNELS.statistics.compiled + KERNELS.statistics.loaded == before


def test_evaluate_and_predict_agree_with_numpy(data):
    x, y = data
    model = small_model()
    predicted = model.predict(x, batch_size=16, verbose=0)
    loss, mae = model.evaluate(x, y, batch_size=16, verbose=0)
    assert predicted.shape == (50, 3)
    np.testing.assert_allclose(loss, np.mean((predicted - y) ** 2), rtol=1e-5)
    np.testing.assert_allclose(mae, np.mean(np.abs(predicted - y)), rtol=1e-5)
    np.testing.assert_allclose(model(x, training=False), predicted, rtol=1e-5, atol=1e-6)


def test_eager_and_compiled_training_agree(data):
    losses = []
    for eager in (False, True):
        keras.utils.set_random_seed(1)
        model = small_model("sgd", run_eagerly=eager)
        losses.append([model.train_on_batch(*data)[0] for _ in range(5)])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_callbacks_see_the_values_of_their_step(data):
    """No state is behind: the weights a callback reads give the loss of the next batch."""
    x, y = data
    seen = []

    class Record(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append((logs["loss"], [np.array(w) for w in self.model.get_weights()]))

    model = small_model("sgd")
    model.fit(x[:32], y[:32], batch_size=16, epochs=2, verbose=0, shuffle=False,
              callbacks=[Record()])
    weights = [w for _, w in seen]
    assert all(any((a != b).any() for a, b in zip(u, v, strict=True))
               for u, v in itertools.pairwise(weights))
    for (_, after), current in zip(seen[-1:], [model.get_weights()], strict=True):
        assert all((a == b).all() for a, b in zip(after, current, strict=True))


def test_arrays_a_callback_keeps_do_not_change(data):
    """Donation reuses memory, but never memory somebody else still looks at."""
    model = small_model()
    model.train_on_batch(*data)
    views = [np.asarray(v.value) for v in model.variables]
    copies = [v.copy() for v in views]
    given = [w + 1 for w in model.get_weights()]
    for _ in range(3):
        model.train_on_batch(*data)
    assert all((a == b).all() for a, b in zip(views, copies, strict=True))
    model.set_weights(given)
    kept = [g.copy() for g in given]
    model.train_on_batch(*data)
    assert all((a == b).all() for a, b in zip(given, kept, strict=True))


@pytest.mark.parametrize("set_to", [keras.Variable, lambda a: keras.Variable(a * 0)])
def test_writing_to_an_array_that_was_assigned_leaves_the_variable_alone(set_to):
    array = np.arange(6, dtype="float32").reshape(2, 3)
    variable = set_to(array)
    variable.assign(array)
    array[:] = 7
    np.testing.assert_array_equal(variable.value, [[0, 1, 2], [3, 4, 5]])


def test_the_first_step_writes_new_weights_where_the_old_ones_are(data):
    def places():
        return [np.asarray(v.value).__array_interface__["data"][0] for v in model.trainable_variables]

    x, y = data
    model = small_model()
    model.set_weights([w + 1 for w in model.get_weights()])
    before = places()
    model.train_on_batch(x, y)
    assert places() == before


def test_early_stopping_restores_the_best_weights(data):
    stop = keras.callbacks.EarlyStopping(monitor="loss", patience=0, restore_best_weights=True,
                                         mode="max")
    model = small_model("sgd")
    model.fit(*data, epochs=5, verbose=0, callbacks=[stop])
    assert stop.stopped_epoch == 1


def test_functional_models_with_two_inputs_and_outputs(rng):
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    joined = layers.Concatenate()([layers.Dense(5)(a), b])
    model = keras.Model({"a": a, "b": b}, [layers.Dense(1, name="p")(joined),
                                           layers.Dense(2, activation="softmax", name="q")(joined)])
    model.compile("adam", ["mse", "categorical_crossentropy"])
    x = {"a": rng.random((8, 4)), "b": rng.random((8, 3))}
    y = [rng.random((8, 1)), np.eye(2)[rng.integers(0, 2, 8)]]
    history = model.fit(x, y, epochs=3, verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0]
    p, q = model.predict(x, verbose=0)
    assert p.shape == (8, 1) and q.shape == (8, 2)


def test_weights_of_samples_and_classes(rng):
    x, y = rng.random((8, 4)).astype("float32"), rng.integers(0, 2, 8)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    weights = np.where(y == 1, 3.0, 1.0)
    by_sample = model.test_on_batch(x, y, sample_weight=weights)
    per_sample = -np.log(model.predict(x, verbose=0)[np.arange(8), y])
    np.testing.assert_allclose(by_sample, (per_sample * weights).mean(), rtol=1e-5)
    model.fit(x, y, class_weight={0: 1.0, 1: 3.0}, verbose=0)


def test_dropout_drops_in_training_only(rng):
    layer = layers.Dropout(0.5, seed=1)
    x = np.ones((100, 100), "float32")
    assert (np.asarray(layer(x, training=False)) == 1).all()
    dropped = np.asarray(layer(x, training=True))
    assert set(np.unique(dropped)) == {0.0, 2.0}
    assert 0.45 < (dropped == 0).mean() < 0.55


def test_a_branch_on_a_tensor_names_the_users_line(data):
    class Branching(layers.Layer):
        def call(self, x):
            if keras.ops.sum(x) > 0:  # the user's mistake
                return x
            return -x

    with pytest.raises(TraceError, match=r"test_training.py:\d+: bool\(\), as in `if`"):
        model = keras.Sequential([keras.Input((6,)), Branching(), layers.Dense(3)])
        model.compile("sgd", "mse")
        model.fit(*data, verbose=0)


def test_shapes_that_do_not_fit_are_named(data):
    x, y = data
    with pytest.raises(ValueError, match=r"value 6, but received input with shape"):
        small_model().fit(x[:, :5], y, verbose=0)


SCRIPT = """
import json, os, sys
import numpy as np
import keras
sys.path.insert(0, sys.argv[1])
import digits
(x, y), _ = digits.load_data()
model = digits.build_model(dropout=0.0)
rng = np.random.default_rng(0)
model.set_weights([(rng.standard_normal(w.shape) * 0.1).astype("float32") if w.ndim > 1 else w
                   for w in model.get_weights()])
losses = []
class Record(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        losses.append(float(logs["loss"]))
model.fit(x[:640], y[:640], batch_size=32, shuffle=False, verbose=0, callbacks=[Record()])
print(json.dumps({"backend": keras.backend.backend(), "losses": losses}))
"""


@pytest.mark.outside("jax")
def test_the_digits_script_runs_unchanged_on_tfn_and_jax(jax_python, repository, tmp_path):
    """Same initial weights, no dropout: 20 losses within 1e-4 relative."""
    losses = {}
    for backend, python in (("tfn", sys.executable), ("jax", jax_python)):
        done = subprocess.run(
            [python, "-c", SCRIPT, str(repository / "examples")], text=True, timeout=600,
            capture_output=True, env={**os.environ, "KERAS_BACKEND": backend}, cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-2000:]
        result = json.loads(done.stdout.splitlines()[-1])
        assert result["backend"] == backend
        losses[backend] = np.array(result["losses"])
    assert losses["tfn"].shape == (20,)
    np.testing.assert_allclose(losses["tfn"], losses["jax"], rtol=1e-4)
