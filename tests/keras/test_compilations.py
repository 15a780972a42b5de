"""What the sizes of batches compile: no kernel after the first step, in this process or the next."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfn

COUNT, CLASSES = 70, 40
"""So many that a batch of 32 has more than the 1024 elements up to which constants are evaluated early,
and the last one has not."""


def dense():
    scale = layers.Normalization(mean=np.arange(40.0), variance=np.arange(40.0) + 1)
    return keras.Sequential([keras.Input((40,)), scale, layers.Dense(16, activation="relu"),
                             layers.Dropout(0.2), layers.Dense(CLASSES)])


def convolutional():
    return keras.Sequential([
        keras.Input((12, 12, 2)), layers.Conv2D(8, 3, padding="same", use_bias=False),
        layers.BatchNormalization(), layers.ReLU(), layers.MaxPooling2D(),
        layers.Conv2D(16, 3, strides=2), layers.AveragePooling2D(2), layers.Flatten(),
        layers.Dense(CLASSES)])


class Positions(layers.Layer):
    def build(self, shape):
        self.table = self.add_weight(shape=shape[1:], name="table")

    def call(self, x):
        return x + self.table


def attentive():
    ids = keras.Input((10,), dtype="int32")
    x = Positions()(layers.Embedding(50, 16)(ids))
    y = layers.LayerNormalization()(x)
    x = x + layers.MultiHeadAttention(2, 8)(y, y)
    y = layers.Dense(32, activation="gelu")(layers.LayerNormalization()(x))
    return keras.Model(ids, layers.Dense(CLASSES)(ops.mean(layers.Dense(16)(y) + x, axis=1)))


MODELS = {
    "dense": (dense, lambda random: random.standard_normal((COUNT, 40), np.float32)),
    "convolutional": (convolutional,
                      lambda random: random.standard_normal((COUNT, 12, 12, 2), np.float32)),
    "attentive": (attentive, lambda random: random.integers(0, 50, (COUNT, 10), np.int32))}


class Counts(keras.callbacks.Callback):
    """Kernels compiled so far, after each batch."""

    def __init__(self):
        super().__init__()
        self.found = []

    def _count(self, batch, logs=None):
        self.found.append(tfn.debug.compilations().compiled)

    on_train_batch_end = on_test_batch_end = on_predict_batch_end = _count


def life(name):
    """Fit, evaluate and predict; the model and kernels compiled before and after each batch of each."""
    make, draw = MODELS[name]
    random = np.random.default_rng(5)
    x, y = draw(random), random.integers(0, CLASSES, COUNT)
    keras.utils.set_random_seed(2)
    model = make()
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                  metrics=["accuracy"])
    counts = {}
    for what, run in {
            "fit": lambda c: model.fit(x, y, batch_size=32, verbose=0, callbacks=c),
            "evaluate": lambda c: model.evaluate(x, y, batch_size=32, verbose=0, callbacks=c),
            "evaluate 13": lambda c: model.evaluate(x, y, batch_size=13, verbose=0, callbacks=c),
            "predict": lambda c: model.predict(x, batch_size=32, verbose=0, callbacks=c),
            "predict 7": lambda c: model.predict(x, batch_size=7, verbose=0, callbacks=c)}.items():
        counter = Counts()
        before = tfn.debug.compilations().compiled
        run([counter])
        counts[what] = [before, *counter.found]
    return model, counts


@pytest.mark.parametrize("name", MODELS)
def test_only_the_first_batch_of_a_kind_compiles(name, tmp_path, monkeypatch):
    monkeypatch.setenv("TFN_CACHE_DIR", str(tmp_path))
    _, counts = life(name)
    for what in ("fit", "evaluate", "predict"):
        # The last batch of 70 has 6 examples.
        assert len(set(counts[what][1:])) == 1, what
    for what in ("evaluate 13", "predict 7"):
        assert len(set(counts[what])) == 1, what


SCRIPT = f"""
import json, os, sys
os.environ["KERAS_BACKEND"] = "tfn"
sys.path.insert(0, {os.path.dirname(__file__)!r})
import numpy as np
import tfn
from test_compilations import MODELS, life
weights = [np.asarray(w).tolist() for name in MODELS for w in life(name)[0].get_weights()]
print(json.dumps([vars(tfn.debug.compilations()), weights]))
"""


def test_a_second_process_compiles_nothing(tmp_path):
    env = {**os.environ, "TFN_CACHE_DIR": str(tmp_path)}
    (first, weights), (second, again) = [
        json.loads(subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True,
                                  text=True, env=env).stdout.splitlines()[-1]) for _ in range(2)]
    assert first["compiled"] > 0
    assert second["compiled"] == 0 and second["loaded"] > 0
    assert weights == again
