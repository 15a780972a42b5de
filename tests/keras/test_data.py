"""Sources of data: all give the same training, with the next batch made during a step or not; order,
errors and an early end are those of a plain loop."""

import threading
import traceback

import keras
import numpy as np
import pytest
from keras import layers

from tfn.keras.backend import prefetch

ROWS, BATCH = 48, 4
X = np.random.default_rng(0).random((ROWS, 3)).astype(np.float32)
Y = (X @ [[1.0], [-2.0], [0.5]]).astype(np.float32)


@pytest.fixture(params=[True, False], ids=["overlapped", "in turn"])
def overlap(request, monkeypatch):
    """Are batches made in the thread, from the fourth on?"""
    if request.param:
        monkeypatch.setattr(prefetch, "STEP", 0.0)
        monkeypatch.setattr(prefetch, "BATCH", 0.0)
    yield request.param
    assert not threads()


def threads():
    return [t for t in threading.enumerate() if t.name == "tfn-batches"]


def model():
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((3,)), layers.Dense(5, activation="tanh"), layers.Dense(1)])
    model.compile("adam", "mse", metrics=["mae"])
    return model


def batches():
    for i in range(0, ROWS, BATCH):
        yield X[i:i + BATCH], Y[i:i + BATCH]


class Dataset(keras.utils.PyDataset):
    def __len__(self):
        return ROWS // BATCH

    def __getitem__(self, i):
        return X[i * BATCH:(i + 1) * BATCH], Y[i * BATCH:(i + 1) * BATCH]


def pandas():
    frames = pytest.importorskip("pandas")
    return {"x": frames.DataFrame(X), "y": frames.DataFrame(Y), "batch_size": BATCH}


def torch():
    data = pytest.importorskip("torch.utils.data")
    rows = [(X[i], Y[i]) for i in range(ROWS)]
    return {"x": data.DataLoader(rows, batch_size=BATCH)}


def grain():
    python = pytest.importorskip("grain")
    rows = python.MapDataset.source([(X[i], Y[i]) for i in range(ROWS)])
    return {"x": rows.batch(BATCH)}


SOURCES = {
    "arrays": lambda: {"x": X, "y": Y, "batch_size": BATCH},
    "float64": lambda: {"x": X.astype(np.float64), "y": Y.astype(np.float64), "batch_size": BATCH},
    "lists": lambda: {"x": keras.ops.convert_to_tensor(X), "y": Y, "batch_size": BATCH},
    "generator": lambda: {"x": batches()},
    "dataset": lambda: {"x": Dataset()},
    "threads": lambda: {"x": Dataset(workers=2, max_queue_size=3)},
    "processes": lambda: {"x": Dataset(workers=2, use_multiprocessing=True)},
    "pandas": pandas, "torch": torch, "grain": grain,
}


@pytest.fixture(scope="module")
def expected():
    """Weights and evaluation after the same batches by `train_on_batch`."""
    reference = model()
    for x, y in batches():
        reference.train_on_batch(x, y)
    return reference.get_weights(), reference.predict_on_batch(X)


@pytest.mark.parametrize("source", SOURCES)
def test_sources_agree(source, overlap, expected):
    trained = model()
    trained.fit(**SOURCES[source](), shuffle=False, verbose=0)
    for mine, reference in zip(trained.get_weights(), expected[0], strict=True):
        np.testing.assert_array_equal(mine, reference)
    logs = trained.evaluate(**SOURCES[source](), verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(np.mean((expected[1] - Y) ** 2), rel=1e-5)
    if source in ("arrays", "float64", "lists", "pandas"):
        found = trained.predict(SOURCES[source]()["x"], batch_size=BATCH, verbose=0)
        np.testing.assert_allclose(found, expected[1], rtol=1e-5, atol=1e-6)


def test_predictions_of_a_generator_are_in_order(overlap):
    trained = model()
    found = trained.predict(((x,) for x, _ in batches()), verbose=0)
    np.testing.assert_array_equal(found, np.concatenate([trained.predict_on_batch(x)
                                                         for x, _ in batches()]))


def test_a_batch_is_made_during_a_step(monkeypatch):
    """The fifth step waits until the sixth batch is there: without a thread it would wait for ever."""
    monkeypatch.setattr(prefetch, "STEP", 0.0)
    monkeypatch.setattr(prefetch, "BATCH", 0.0)
    made = threading.Event()

    def source():
        for i, batch in enumerate(batches()):
            if i == 5:
                made.set()
            yield batch

    class Wait(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 4:
                assert made.wait(30)

    model().fit(source(), verbose=0, callbacks=[Wait()])


def test_short_steps_have_no_thread(monkeypatch):
    monkeypatch.setattr(prefetch, "STEP", 1e9)
    monkeypatch.setattr(prefetch, "BATCH", 0.0)
    started = []
    monkeypatch.setattr(prefetch, "_Maker", started.append)
    model().fit(X, Y, batch_size=BATCH, epochs=2, verbose=0)
    assert started == []


def test_an_error_of_a_generator_is_the_users(overlap):
    def broken():
        for i, batch in enumerate(batches()):
            if i == 7:
                raise LookupError("row 7 is gone")
            yield batch

    with pytest.raises(LookupError, match="row 7 is gone") as caught:
        model().fit(broken(), verbose=0)
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert frames[-1].name == "broken" and frames[-1].filename == __file__
    assert "test_an_error_of_a_generator_is_the_users" in {f.name for f in frames}


def test_an_error_in_the_loop_ends_the_thread(overlap):
    class Broken(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 6:
                raise ArithmeticError("in a callback")

    with pytest.raises(ArithmeticError) as caught:
        model().fit(batches(), verbose=0, callbacks=[Broken()])
    assert not threads()
    del caught


def test_an_early_end_does_not_wait_for_data_that_never_comes(monkeypatch):
    monkeypatch.setattr(prefetch, "STEP", 0.0)
    monkeypatch.setattr(prefetch, "BATCH", 0.0)
    monkeypatch.setattr(prefetch, "PATIENCE", 0.01)
    never, seen = threading.Event(), []

    def source():
        for i, batch in enumerate(batches()):
            if i == 6:
                never.wait()
                return
            yield batch

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(batch)
            self.model.stop_training = batch == 5

    model().fit(source(), verbose=0, callbacks=[Stop()])
    assert seen == [0, 1, 2, 3, 4, 5]
    never.set()
    for thread in threads():
        thread.join(30)


def test_an_epoch_takes_no_more_than_its_steps(overlap):
    taken = []

    def source():
        while True:
            for batch in batches():
                taken.append(len(taken))
                yield batch

    history = model().fit(source(), steps_per_epoch=7, epochs=3, verbose=0)
    assert taken == list(range(21)) and len(history.history["loss"]) == 3


def test_data_that_runs_out_is_said(overlap):
    with pytest.warns(UserWarning, match="ran out of data"):
        model().fit(batches(), steps_per_epoch=10, epochs=2, verbose=0)


def test_a_generator_may_use_keras(overlap):
    """Dtype policy and seed of the thread that called fit hold in the generator, too."""
    seen = set()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        flip = layers.RandomFlip(seed=3)

        def source():
            for x, y in batches():
                seen.add(keras.config.dtype_policy().name)
                image = keras.random.uniform((BATCH, 4, 4, 1))
                yield x + np.asarray(flip(image)).mean(), y

        small = keras.Sequential([keras.Input((3,)), layers.Dense(1)])
        small.compile("sgd", "mse")
        small.fit(source(), verbose=0)
    finally:
        keras.config.set_dtype_policy("float32")
    assert seen == {"mixed_bfloat16"}


def test_several_steps_per_call(overlap, expected):
    trained = model()
    trained.compile("adam", "mse", steps_per_execution=3)
    trained.fit(batches(), verbose=0)
    for mine, reference in zip(trained.get_weights(), expected[0], strict=True):
        np.testing.assert_array_equal(mine, reference)


@pytest.mark.parametrize("options", [{}, {"workers": 2}, {"workers": 2, "use_multiprocessing": True}],
                         ids=str)
def test_an_epoch_that_was_left_early_leaves_nothing_behind(overlap, options):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch == 5

    data, trained = Dataset(**options), model()
    trained.fit(data, shuffle=False, verbose=0, callbacks=[Stop()])
    np.testing.assert_array_equal(trained.predict(data, verbose=0),
                                  np.concatenate([trained.predict_on_batch(x) for x, _ in batches()]))
