"""The TensorBoard callback: traces of batches, and what it says without TensorFlow, which writes its
files."""

import gzip
import importlib.util
import json

import keras
import numpy as np
import pytest
from keras import layers

import tfn
from tfn.keras.backend import tensorboard

X, Y = np.ones((12, 3), np.float32), np.ones((12, 1), np.float32)
HAS_TENSORFLOW = importlib.util.find_spec("tensorflow") is not None


def fitted(*callbacks, **options):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4, name="wide"), layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(X, Y, batch_size=2, verbose=0, callbacks=list(callbacks), **options)
    return model


def traces(folder):
    found = []
    for file in sorted(folder.glob(f"**/plugins/profile/*/*{tensorboard.SUFFIX}")):
        with gzip.open(file, "rt") as text:
            found.append(json.load(text)["traceEvents"])
    return found


class Tracing(keras.callbacks.Callback):
    """What the callback of Keras does around batches, without its summaries."""

    def __init__(self, folder, first, last):
        super().__init__()
        self.folder, self.first, self.last = folder, first, last

    def on_train_batch_begin(self, batch, logs=None):
        if batch == self.first:
            tensorboard.start_trace(str(self.folder))
        self.context = tensorboard.start_batch_trace(batch)

    def on_train_batch_end(self, batch, logs=None):
        tensorboard.stop_batch_trace(self.context)
        if batch == self.last:
            tensorboard.stop_trace(save=True)


def test_a_trace_has_the_kernels_inside_of_their_batches(tmp_path):
    fitted(Tracing(tmp_path, 2, 4))
    (events,) = traces(tmp_path)
    batches = {e["name"]: e for e in events if e["tid"] == 1}
    kernels = [e for e in events if e["tid"] == 0]
    assert sorted(batches) == ["batch 2", "batch 3", "batch 4"]
    assert any("wide" in part for e in kernels for part in e["args"]["parts"])

    def is_inside(kernel, batch):
        return (batch["ts"] <= kernel["ts"]
                and kernel["ts"] + kernel["dur"] <= batch["ts"] + batch["dur"] + 1)

    counts = {name: sum(is_inside(k, b) for k in kernels) for name, b in batches.items()}
    assert sum(counts.values()) == len(kernels) and counts["batch 3"] == counts["batch 4"] > 0


def test_no_folder_no_trace(tmp_path):
    tensorboard.start_trace("")
    tensorboard.stop_trace(save=False)
    tensorboard.start_trace(str(tmp_path))
    with pytest.raises(RuntimeError, match="a profile is being made already"), tfn.profile():
        pass
    tensorboard.stop_trace(save=False)
    assert not list(tmp_path.iterdir())


def test_the_callback_takes_batches_to_profile():
    callback = keras.callbacks.TensorBoard("logs", profile_batch=(2, 3))
    assert (callback._start_batch, callback._stop_batch) == (2, 3)


@pytest.mark.skipif(HAS_TENSORFLOW, reason="TensorFlow is installed")
def test_without_tensorflow_the_callback_says_what_to_do(tmp_path):
    for options in ({}, {"write_graph": False}):
        with pytest.raises(ImportError, match=r"writes its files with TensorFlow.*CSVLogger"):
            fitted(keras.callbacks.TensorBoard(tmp_path, **options))


@pytest.mark.skipif(not HAS_TENSORFLOW, reason="TensorFlow is not installed")
def test_with_tensorflow_all_of_it_is_written(tmp_path):
    fitted(keras.callbacks.TensorBoard(tmp_path, histogram_freq=1, write_images=True, profile_batch=3,
                                       update_freq="batch"), epochs=2, validation_data=(X, Y))
    (events,) = traces(tmp_path)
    assert {e["name"] for e in events if e["tid"] == 1} == {"batch 2"}
    assert list(tmp_path.glob("train/events.*")) and list(tmp_path.glob("validation/events.*"))
