"""Layers, losses, metrics and optimizers against the same configuration on the jax backend.

One script builds everything from seeds that do not depend on the backend, and runs on both.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = r"""
import json, os, sys
import numpy as np
if os.environ["KERAS_BACKEND"] == "tfn":
    import tfn
import keras
from keras import layers, losses, metrics, optimizers

rng = np.random.default_rng(7)
image = rng.standard_normal((4, 8, 9, 3)).astype("float32")
rows = rng.standard_normal((5, 6)).astype("float32")
tokens = rng.integers(0, 11, (4, 7)).astype("int32")

LAYERS = {
    "dense": (lambda: layers.Dense(5, activation="tanh"), rows),
    "conv_same_strides": (lambda: layers.Conv2D(4, 3, strides=2, padding="same"), image),
    "conv_dilated": (lambda: layers.Conv2D(4, 3, dilation_rate=2, activation="relu"), image),
    "conv_grouped": (lambda: layers.Conv2D(6, 3, groups=3), image),
    "conv_1d": (lambda: layers.Conv1D(4, 3, padding="causal"), image[:, :, 0]),
    "depthwise": (lambda: layers.DepthwiseConv2D(3, depth_multiplier=2), image),
    "transposed": (lambda: layers.Conv2DTranspose(4, 3, strides=2, padding="same"), image),
    "max_pool": (lambda: layers.MaxPooling2D(2, padding="same"), image),
    "average_pool": (lambda: layers.AveragePooling2D(3, strides=2, padding="same"), image),
    "global_average": (lambda: layers.GlobalAveragePooling2D(), image),
    "global_max": (lambda: layers.GlobalMaxPooling2D(), image),
    "batch_norm": (lambda: layers.BatchNormalization(), image),
    "layer_norm": (lambda: layers.LayerNormalization(), image),
    "group_norm": (lambda: layers.GroupNormalization(3), image),
    "embedding": (lambda: layers.Embedding(11, 6), tokens),
    "flatten": (lambda: layers.Flatten(), image),
    "reshape": (lambda: layers.Reshape((-1, 3)), image),
    "permute": (lambda: layers.Permute((3, 1, 2)), image),
    "rescaling": (lambda: layers.Rescaling(0.5, -1.0), image),
    "zero_padding": (lambda: layers.ZeroPadding2D((1, 2)), image),
    "up_sampling": (lambda: layers.UpSampling2D(2), image),
    "prelu": (lambda: layers.PReLU(), rows),
    "attention": (lambda: layers.MultiHeadAttention(2, 4), None),
}
for name in ("relu relu6 sigmoid tanh softplus softsign silu gelu elu selu leaky_relu softmax"
             " log_softmax hard_sigmoid hard_silu mish exponential linear").split():
    LAYERS["activation_" + name] = ((lambda n: lambda: layers.Activation(n))(name), rows * 3)

def flat(x):
    return np.asarray(x, "float64").ravel().tolist()

out = {}
for name, (make, x) in LAYERS.items():
    layer = make()
    if name == "attention":
        inputs = keras.Input((7, 6))
        model = keras.Model(inputs, layer(inputs, inputs))
        x = rng.standard_normal((2, 7, 6)).astype("float32")
    else:
        model = keras.Sequential([keras.Input(x.shape[1:], dtype=str(x.dtype)), layer])
    local = np.random.default_rng(3)
    model.set_weights([(local.standard_normal(w.shape) * 0.3 + (w == 1)).astype("float32") ** 2
                       if "norm" in name else (local.standard_normal(w.shape) * 0.3).astype("float32")
                       for w in model.get_weights()])
    out[name] = flat(model.predict(x, verbose=0))
    if model.trainable_weights:
        model.compile("sgd", "mse")
        y = local.standard_normal(model.compute_output_shape(x.shape)).astype("float32")
        loss = [float(model.train_on_batch(x, y)) for _ in range(3)]
        out[name + "/losses"] = loss
        out[name + "/weights"] = [v for w in model.get_weights() for v in flat(w)]

labels = rng.integers(0, 4, (6,)).astype("int32")
logits = rng.standard_normal((6, 4)).astype("float32")
probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
one_hot = np.eye(4, dtype="float32")[labels]
binary = (rng.random((6, 3)) > 0.5).astype("float32")
scores = rng.random((6, 3)).astype("float32")
LOSSES = {
    "mse": (losses.MeanSquaredError(), one_hot, logits),
    "mae": (losses.MeanAbsoluteError(), one_hot, logits),
    "huber": (losses.Huber(), one_hot, logits),
    "cosine": (losses.CosineSimilarity(), one_hot, logits),
    "kl": (losses.KLDivergence(), one_hot, probabilities),
    "hinge": (losses.Hinge(), binary, scores),
    "log_cosh": (losses.LogCosh(), one_hot, logits),
    "poisson": (losses.Poisson(), binary, scores),
    "categorical": (losses.CategoricalCrossentropy(), one_hot, probabilities),
    "categorical_logits": (losses.CategoricalCrossentropy(from_logits=True), one_hot, logits),
    "sparse": (losses.SparseCategoricalCrossentropy(), labels, probabilities),
    "sparse_logits": (losses.SparseCategoricalCrossentropy(from_logits=True), labels, logits),
    "binary": (losses.BinaryCrossentropy(), binary, scores),
    "binary_logits": (losses.BinaryCrossentropy(from_logits=True), binary, scores * 4 - 2),
    "focal": (losses.BinaryFocalCrossentropy(), binary, scores),
}
for name, (loss, y, p) in LOSSES.items():
    out["loss_" + name] = flat(loss(y, p))

METRICS = {
    "accuracy": (metrics.SparseCategoricalAccuracy(), labels, probabilities),
    "categorical_accuracy": (metrics.CategoricalAccuracy(), one_hot, probabilities),
    "binary_accuracy": (metrics.BinaryAccuracy(), binary, scores),
    "top_k": (metrics.SparseTopKCategoricalAccuracy(2), labels, probabilities),
    "mean_squared": (metrics.MeanSquaredError(), one_hot, logits),
    "root_mean_squared": (metrics.RootMeanSquaredError(), one_hot, logits),
    "auc": (metrics.AUC(), binary, scores),
    "precision": (metrics.Precision(), binary, scores),
    "recall": (metrics.Recall(), binary, scores),
}
for name, (metric, y, p) in METRICS.items():
    metric.update_state(y, p)
    metric.update_state(y, p * 0.5)
    out["metric_" + name] = flat(metric.result())

OPTIMIZERS = {
    "sgd": lambda: optimizers.SGD(0.05),
    "momentum": lambda: optimizers.SGD(0.05, momentum=0.9),
    "nesterov": lambda: optimizers.SGD(0.05, momentum=0.9, nesterov=True, weight_decay=1e-2),
    "adam": lambda: optimizers.Adam(0.01),
    "amsgrad": lambda: optimizers.Adam(0.01, amsgrad=True, clipnorm=0.5),
    "adamw": lambda: optimizers.AdamW(0.01, weight_decay=0.05),
    "rmsprop": lambda: optimizers.RMSprop(0.01, momentum=0.5, centered=True),
    "adagrad": lambda: optimizers.Adagrad(0.05),
    "schedule": lambda: optimizers.Adam(optimizers.schedules.CosineDecay(0.05, 20)),
}
for name, make in OPTIMIZERS.items():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8, activation="relu"), layers.Dense(4)])
    local = np.random.default_rng(5)
    model.set_weights([(local.standard_normal(w.shape) * 0.4).astype("float32")
                       for w in model.get_weights()])
    model.compile(make(), "mse")
    x, y = rows, np.random.default_rng(6).standard_normal((5, 4)).astype("float32")
    out["optimizer_" + name] = [float(model.train_on_batch(x, y)) for _ in range(15)]
json.dump(out, open(sys.argv[1], "w"))
"""


def run(python, backend, folder):
    result = folder / f"{backend}.json"
    environment = {**os.environ, "KERAS_BACKEND": backend}
    done = subprocess.run([python, "-c", SCRIPT, str(result)], env=environment, text=True,
                          capture_output=True, timeout=900, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(result.read_text())


@pytest.mark.outside("jax")
def test_agrees_with_the_jax_backend(jax_python, tmp_path):
    """Within 2e-5 of the largest value of each result; 15 optimizer steps within 1e-4."""
    ours, theirs = run(sys.executable, "tfn", tmp_path), run(jax_python, "jax", tmp_path)
    assert ours.keys() == theirs.keys()
    worst = {}
    for name, expected in theirs.items():
        a, b = np.asarray(ours[name]), np.asarray(expected)
        assert a.shape == b.shape, name
        worst[name] = float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-6))
    wrong = {n: e for n, e in worst.items() if e > (1e-4 if "optimizer" in n else 2e-5)}
    assert not wrong
