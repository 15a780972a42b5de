"""Small models as bundles, traced with `tfn.nn` over a symbolic batch, as fixtures."""

from __future__ import annotations

import numpy as np
import pytest

from tfn.compiler import nn
from tfn.compiler import numpy as tnp
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dims import Dim
from tfn.compiler.ir.dtypes import F32, as_dtype
from tfn.compiler.trace.core import trace
from tfn.export.bundle import Bundle, Signature, TensorSpec

BATCH = Dim.named("batch")


def make_bundle(function, inputs, weights, name="model", version=1) -> Bundle:
    """A bundle whose one signature is `function(weights dict, *inputs)`.

    `inputs`: name -> (shape, dtype); `weights`: name -> array.
    """
    types = [TensorType(w.shape, as_dtype(w.dtype)) for w in weights.values()]
    types += [TensorType(shape, dtype) for shape, dtype in inputs.values()]
    count = len(weights)

    def flat(*values):
        results = function(dict(zip(weights, values[:count], strict=True)), *values[count:])
        return results if isinstance(results, (list, tuple)) else [results]

    traced, _ = trace(flat, types, "serving_default")
    outputs = [TensorSpec(f"output_{i}", t.dtype, t.shape)
               for i, t in enumerate(traced.result_types)]
    specs = [TensorSpec(n, dtype, shape) for n, (shape, dtype) in inputs.items()]
    signature = Signature("serving_default", traced, tuple(specs), tuple(outputs), tuple(weights))
    return Bundle(name, version, {signature.name: signature}, dict(weights), {"tfn": "test"})


def weight(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Normal numbers, scaled so that activations keep their size."""
    scale = np.sqrt(2 / max(1, np.prod(shape[:-1], dtype=int)))
    return (rng.normal(size=shape) * scale).astype(np.float32)


def make_mlp(seed: int = 0, name: str = "mlp") -> Bundle:
    """8 features, one hidden layer of 16, softmax over 4."""
    rng = np.random.default_rng(seed)
    weights = {"w1": weight(rng, 8, 16), "b1": weight(rng, 16),
               "w2": weight(rng, 16, 4), "b2": weight(rng, 4)}

    def apply(w, x):
        hidden = nn.relu(tnp.matmul(x, w["w1"]) + w["b1"])
        return nn.softmax(tnp.matmul(hidden, w["w2"]) + w["b2"])

    return make_bundle(apply, {"x": ((BATCH, 8), F32)}, weights, name)


def mlp_oracle(bundle: Bundle, x: np.ndarray) -> np.ndarray:
    """`make_mlp` in NumPy and float64."""
    w = {k: v.astype(np.float64) for k, v in bundle.weights.items()}
    logits = np.maximum(x @ w["w1"] + w["b1"], 0) @ w["w2"] + w["b2"]
    grown = np.exp(logits - logits.max(1, keepdims=True))
    return grown / grown.sum(1, keepdims=True)


def make_cnn(seed: int = 0, name: str = "cnn") -> Bundle:
    """8x8 images: two convolutions with batch normalisation and pooling, then a dense softmax."""
    rng = np.random.default_rng(seed)
    weights = {
        "k1": weight(rng, 3, 3, 1, 8), "c1": weight(rng, 8),
        "gamma": 1 + weight(rng, 8), "beta": weight(rng, 8),
        "mean": weight(rng, 8), "variance": 1 + weight(rng, 8) ** 2,
        "k2": weight(rng, 3, 3, 8, 16), "c2": weight(rng, 16),
        "w": weight(rng, 64, 10), "b": weight(rng, 10),
    }

    def apply(w, image):
        x = nn.relu(nn.conv(image, w["k1"], padding="same") + w["c1"])
        x = nn.batch_normalization(x, w["mean"], w["variance"], -1, w["beta"], w["gamma"])
        x = nn.max_pool(x, 2)
        x = nn.relu(nn.conv(x, w["k2"], padding="same") + w["c2"])
        x = nn.max_pool(x, 2)
        x = tnp.reshape(x, (x.shape[0], 64))
        return nn.softmax(tnp.matmul(x, w["w"]) + w["b"])

    return make_bundle(apply, {"image": ((BATCH, 8, 8, 1), F32)}, weights, name)


@pytest.fixture(scope="session")
def bundle_of():
    """The function `make_bundle`."""
    return make_bundle


@pytest.fixture(scope="session")
def mlp() -> Bundle:
    return make_mlp()


@pytest.fixture(scope="session")
def cnn() -> Bundle:
    return make_cnn()
