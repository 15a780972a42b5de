"""Steps written by users, on state or on variables, and how many a call takes."""

import copy
import pickle
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from keras import layers

import tfn


class OnState(keras.Sequential):
    def train_step(self, state, data):
        logs, state = super().train_step(state, data)
        return {**logs, "mine": logs["loss"] * 2}, state

    def test_step(self, state, data):
        logs, state = super().test_step(state, data)
        return {**logs, "mine": 7.0}, state

    def predict_step(self, state, data):
        outputs, non_trainable = super().predict_step(state, data)
        return outputs + 1, non_trainable


class OnVariables(keras.Sequential):
    def train_step(self, data):
        logs = super().train_step(data)
        return {**logs, "mine": logs["loss"] * 2}

    def test_step(self, data):
        return {**super().test_step(data), "mine": 7.0}

    def predict_step(self, data):
        return super().predict_step(data) + 1


def _model(kind, **options):
    keras.utils.set_random_seed(3)
    model = kind([keras.Input((6,)), layers.Dense(8, activation="relu"), layers.BatchNormalization(),
                  layers.Dropout(0.1), layers.Dense(3)])
    model.compile("adam", "mse", metrics=["mae"], **options)
    return model


@pytest.fixture
def data(rng):
    return (rng.standard_normal((50, 6)).astype("float32"),
            rng.standard_normal((50, 3)).astype("float32"))


@pytest.mark.parametrize("options", [{}, {"run_eagerly": True}, {"jit_compile": False},
                                     {"steps_per_execution": 3}], ids=str)
@pytest.mark.parametrize("kind", [OnState, OnVariables])
def test_custom_steps(kind, options, data):
    x, y = data
    plain, custom = _model(keras.Sequential), _model(kind, **options)
    expected, found = (m.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0).history
                       for m in (plain, custom))
    # The logs of a step that adds its own are those of the last batch; the weights say more.
    assert set(found) == {"loss", "mae", "mine"}
    for a, b in zip(plain.get_weights(), custom.get_weights(), strict=True):
        np.testing.assert_allclose(b, a, rtol=2e-4, atol=1e-5)
    for a, b in zip(plain.optimizer.variables, custom.optimizer.variables, strict=True):
        np.testing.assert_allclose(np.asarray(b), np.asarray(a), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found["mine"], 2 * np.array(found["loss"]), rtol=1e-6)
    assert len(expected["loss"]) == len(found["loss"]) == 2
    assert custom.evaluate(x, y, verbose=0, return_dict=True)["mine"] == 7.0
    np.testing.assert_allclose(custom.predict(x, batch_size=16, verbose=0),
                               plain.predict(x, verbose=0) + 1, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("make", [
    lambda: layers.RandomTranslation(0.2, 0.2, seed=3), lambda: layers.RandomRotation(0.1, seed=3),
    lambda: layers.RandomZoom(0.2, seed=3), lambda: layers.RandomShear(0.2, 0.2, seed=3),
    lambda: layers.RandomPerspective(seed=3),
], ids="translation rotation zoom shear perspective".split())
def test_a_model_that_augments_its_images_is_compiled(make, rng):
    """Keras says these layers cannot be; the numbers are those of eager steps."""
    x, y = rng.random((8, 6, 5, 2)).astype("float32"), np.zeros(8)
    losses = []
    for options in {}, {"jit_compile": True}, {"run_eagerly": True}:
        keras.utils.set_random_seed(3)
        model = keras.Sequential([keras.Input((6, 5, 2)), make(), layers.Flatten(), layers.Dense(1)])
        model.compile("sgd", "mse", **options)
        assert model.jit_compile == (not model.run_eagerly)
        losses.append([model.train_on_batch(x, y) for _ in range(3)])
    np.testing.assert_allclose(losses[0], losses[2], rtol=1e-5)
    assert losses[0] == losses[1]


def test_a_random_crop_is_not_compiled(rng):
    """Its window begins where a number drawn in the step says, as a Python index."""
    x = rng.random((8, 6, 5, 2)).astype("float32")
    model = keras.Sequential([keras.Input((6, 5, 2)), layers.RandomCrop(3, 3),
                              layers.GlobalAveragePooling2D(), layers.Dense(1)])
    model.compile("sgd", "mse")
    assert np.isfinite(model.train_on_batch(x, np.zeros(8)))


class Outside(layers.Layer):
    """A layer which only works outside of programs."""

    def __init__(self):
        super().__init__()
        self.supports_jit = False

    def compute_output_shape(self, shape):
        return shape

    def call(self, x):
        return np.sort(np.asarray(x), axis=-1)


def test_a_layer_that_says_it_cannot_be_compiled(data):
    x, _ = data
    model = keras.Sequential([keras.Input((6,)), Outside()])
    model.compile(loss="mse")
    assert not model.jit_compile
    with pytest.warns(UserWarning, match="a layer of the model cannot be compiled"):
        model.jit_compile = True
    np.testing.assert_array_equal(model.predict(x, verbose=0), np.sort(x, axis=-1))


class _Count(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.begun = []

    def on_train_batch_begin(self, batch, logs=None):
        self.begun.append(batch)

    on_predict_batch_begin = on_test_batch_begin = on_train_batch_begin


@pytest.mark.parametrize("method", ["fit", "evaluate", "predict"])
def test_several_steps_per_call(method, data):
    x, y = data
    model, count = _model(keras.Sequential, steps_per_execution=3), _Count()
    arguments = (x,) if method == "predict" else (x, y)
    result = getattr(model, method)(*arguments, batch_size=8, verbose=0, callbacks=[count])
    assert count.begun == [0, 3, 6]
    if method == "predict":
        assert result.shape == (50, 3)


def test_an_interrupted_fit_leaves_averaged_weights(data):
    """Ctrl-C in the middle: an optimizer that averages has put its average into the model."""

    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 2:
                raise KeyboardInterrupt

    model = _model(keras.Sequential)
    model.compile(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5), "mse")
    with pytest.raises(KeyboardInterrupt):
        model.fit(*data, batch_size=8, verbose=0, callbacks=[Interrupt()])
    averages = [np.asarray(v) for v in model.optimizer._model_variables_moving_average]
    for weight, average in zip(model.trainable_variables, averages, strict=True):
        np.testing.assert_array_equal(np.asarray(weight), average)


def test_a_thread_that_reads_while_a_step_runs(data):
    """It gets what the step makes, not what the step writes over."""
    x, y = data
    model = _model(keras.Sequential)
    before = model.weights[0].numpy()
    readers = (lambda: model.weights[0].numpy(), lambda: model.predict_on_batch(x),
               lambda: np.asarray(model(x)))
    for read in readers:
        read()
    with ThreadPoolExecutor(len(readers)) as threads:
        found = []

        def begin(_):
            found.extend(threads.submit(read) for read in readers)
            time.sleep(0.05)

        def loss(y, p):
            tfn.debug.callback(begin, p)
            return keras.ops.mean((y - p) ** 2)

        model.compile("adam", loss)
        model.train_on_batch(x, y)
        assert len(found) == len(readers)
        for future, read in zip(found, readers, strict=True):
            np.testing.assert_allclose(future.result(), read(), rtol=1e-5, atol=1e-6)
    assert not np.array_equal(before, model.weights[0].numpy())


@pytest.mark.parametrize("run", [
    lambda model, x, y: model.fit(x, y, epochs=9, verbose=0),
    lambda model, x, y: model.evaluate(x, y, verbose=0),
    lambda model, x, y: model.train_on_batch(x, y)], ids=["fit", "evaluate", "train_on_batch"])
@pytest.mark.parametrize("times", [1, 2])
def test_an_interrupt_waits_for_the_end_of_a_step(run, times, data):
    """A second one does not."""
    x, y = data
    model = _model(keras.Sequential)
    ended = []

    def begin(_):
        for _ in range(times):
            signal.raise_signal(signal.SIGINT)
        ended.append(True)

    def loss(y, p):
        tfn.debug.callback(begin, p)
        return keras.ops.mean((y - p) ** 2)

    model.compile("adam", loss)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(model, x, y)
    assert signal.getsignal(signal.SIGINT) is handler
    assert len(ended) == (times == 1)
    if times == 1:
        assert np.isfinite(model.predict(x, verbose=0)).all()
        assert np.isfinite(np.concatenate([w.ravel() for w in model.get_weights()])).all()


def test_threads_that_train_one_model(data):
    """Their steps take turns."""
    x, y = data
    model = _model(keras.Sequential)
    model.train_on_batch(x, y)
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as threads:
            losses = list(threads.map(lambda _: model.train_on_batch(x, y)[0], range(60)))
    finally:
        sys.setswitchinterval(switch)
    assert int(model.optimizer.iterations.numpy()) == 61
    assert np.isfinite(losses).all()


@pytest.mark.parametrize("options", [{}, {"run_eagerly": True}], ids=str)
@pytest.mark.parametrize("kind", [keras.Sequential, OnState, OnVariables])
def test_a_prediction_assigns_only_what_it_changes(kind, options, data):
    """Another thread may have trained the model meanwhile."""
    x, _ = data
    model = _model(kind, **options)
    before = [v._value for v in model.non_trainable_variables]
    model.predict_on_batch(x)
    after = [v._value for v in model.non_trainable_variables]
    assert len(before) >= 2
    assert all(a is b for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("copy", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))],
                         ids=["copied", "pickled"])
def test_copies_of_a_model_that_was_trained(copy, data):
    x, y = data
    model = _model(keras.Sequential)
    model.train_on_batch(x, y)
    other = copy(model)
    np.testing.assert_array_equal(other.predict_on_batch(x), model.predict_on_batch(x))
    variable = copy(model.weights[0])
    np.testing.assert_array_equal(variable.numpy(), model.weights[0].numpy())
