"""The Keras models that are trained and served: each a function of keras that returns a model.

Every layer has a name, and dropout is left out: weights are drawn by name (`seeded_weights`), and
all frameworks then compute the same losses.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np


def seeded_weights(path: str, shape: tuple[int, ...]) -> np.ndarray:
    """A weight's first value, which depends on its name and shape only."""
    kind = path.rsplit("/", 1)[-1]
    if kind in ("gamma", "moving_variance"):
        return np.ones(shape, np.float32)
    if kind in ("beta", "bias", "moving_mean"):
        return np.zeros(shape, np.float32)
    random = np.random.default_rng(zlib.crc32(path.encode()))
    # A depthwise kernel is (rows, columns, channels, 1): each channel sees one window.
    depthwise = len(shape) == 4 and shape[-1] == 1
    fan_in = int(np.prod(shape[:2] if depthwise else shape[:-1]))
    scale = 0.02 if "embedding" in kind else np.sqrt(2.0 / fan_in)
    return random.standard_normal(shape, np.float32) * np.float32(scale)


def set_seeded_weights(model: Any) -> None:
    model.set_weights([seeded_weights(w.path, tuple(w.shape)) for w in model.weights])


# -- dense, convolutional, recurrent, wide ---------------------------------------------------------

def mlp(keras: Any) -> Any:
    layers = keras.layers
    return keras.Sequential([
        keras.Input((784,)), layers.Dense(512, activation="relu", name="hidden1"),
        layers.Dense(512, activation="relu", name="hidden2"), layers.Dense(10, name="logits")],
        name="model")


def cnn(keras: Any) -> Any:
    layers = keras.layers
    return keras.Sequential([
        keras.Input((28, 28, 1)),
        layers.Conv2D(32, 3, activation="relu", name="conv1"), layers.MaxPooling2D(name="pool1"),
        layers.Conv2D(64, 3, activation="relu", name="conv2"), layers.MaxPooling2D(name="pool2"),
        layers.Flatten(name="flatten"), layers.Dense(128, activation="relu", name="hidden"),
        layers.Dense(10, name="logits")], name="model")


def resnet50(keras: Any) -> Any:
    return keras.applications.ResNet50(weights=None, classifier_activation=None)


def mobilenet_v2(keras: Any) -> Any:
    return keras.applications.MobileNetV2(weights=None, classifier_activation=None)


def unet(keras: Any, size: int = 128, filters: int = 32, levels: int = 3) -> Any:
    layers = keras.layers

    def twice(x, filters, name):
        for i in (1, 2):
            x = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"{name}_conv{i}")(x)
            x = layers.BatchNormalization(name=f"{name}_norm{i}")(x)
            x = layers.ReLU(name=f"{name}_relu{i}")(x)
        return x

    inputs = x = keras.Input((size, size, 3))
    skips = []
    for level in range(levels):
        x = twice(x, filters << level, f"down{level}")
        skips.append(x)
        x = layers.MaxPooling2D(name=f"pool{level}")(x)
    x = twice(x, filters << levels, "bottom")
    for level in reversed(range(levels)):
        # Both ways up: a transposed convolution, and at the top resizing.
        if level:
            x = layers.Conv2DTranspose(filters << level, 2, strides=2, name=f"up{level}")(x)
        else:
            x = layers.UpSampling2D(2, name="up0")(x)
        x = layers.Concatenate(name=f"join{level}")([x, skips[level]])
        x = twice(x, filters << level, f"up{level}")
    return keras.Model(inputs, layers.Conv2D(2, 1, name="logits")(x))


def lstm(keras: Any) -> Any:
    layers = keras.layers
    return keras.Sequential([keras.Input((100, 64)), layers.LSTM(128, name="lstm"),
                             layers.Dense(10, name="logits")], name="model")


# Sizes of the vocabularies of a click log, and of its numeric part.
CATEGORIES = (10000, 5000, 1000, 1000, 200, 100, 20, 10)
NUMBERS = 13


def wide_and_deep(keras: Any) -> Any:
    layers = keras.layers
    ids, numbers = keras.Input((len(CATEGORIES),), dtype="int32"), keras.Input((NUMBERS,))
    deep, wide = [numbers], []
    for i, size in enumerate(CATEGORIES):
        column = ids[:, i]
        deep.append(layers.Embedding(size, 16, name=f"deep{i}")(column))
        wide.append(layers.Embedding(size, 1, name=f"wide{i}")(column))
    x = layers.Concatenate(name="deep_inputs")(deep)
    for i, width in enumerate((256, 128, 64)):
        x = layers.Dense(width, activation="relu", name=f"hidden{i}")(x)
    x = layers.Concatenate(name="all")([x, *wide])
    return keras.Model([ids, numbers], layers.Dense(1, name="logits")(x))


# -- transformers ----------------------------------------------------------------------------------

def _positions(keras: Any, length: int, width: int) -> Any:
    class Positions(keras.layers.Layer):
        """Adds a learned vector for each place."""

        def build(self, shape):
            self.table = self.add_weight(shape=(length, width), name="position_embeddings")

        def call(self, x):
            return x + self.table

    return Positions(name="positions")


def _block(keras: Any, x: Any, heads: int, name: str, causal: bool) -> Any:
    """A pre-norm transformer block with exact gelu."""
    layers, width = keras.layers, x.shape[-1]
    y = layers.LayerNormalization(epsilon=1e-5, name=f"{name}_norm1")(x)
    x = x + layers.MultiHeadAttention(heads, width // heads, name=f"{name}_attention")(
        y, y, use_causal_mask=causal)
    y = layers.LayerNormalization(epsilon=1e-5, name=f"{name}_norm2")(x)
    y = layers.Dense(4 * width, activation="gelu", name=f"{name}_wide")(y)
    return x + layers.Dense(width, name=f"{name}_narrow")(y)


def _encoder(keras: Any, words: int, length: int, width: int, depth: int, heads: int,
             causal: bool) -> tuple[Any, Any, Any]:
    ids = keras.Input((length,), dtype="int32")
    table = keras.layers.Embedding(words, width, name="words")
    x = _positions(keras, length, width)(table(ids))
    for i in range(depth):
        x = _block(keras, x, heads, f"block{i}", causal)
    return ids, table, keras.layers.LayerNormalization(epsilon=1e-5, name="norm")(x)


def _bert(keras: Any, width: int, depth: int, heads: int) -> Any:
    ids, _, x = _encoder(keras, 30522, 128, width, depth, heads, causal=False)
    x = keras.layers.Dense(width, activation="tanh", name="pooled")(x[:, 0])
    return keras.Model(ids, keras.layers.Dense(2, name="logits")(x))


def bert_small(keras: Any) -> Any:
    return _bert(keras, 512, 4, 8)


def bert_base(keras: Any) -> Any:
    return _bert(keras, 768, 12, 12)


def gpt2(keras: Any, length: int = 256) -> Any:
    """124 million weights; logits come from the embedding table."""
    class Logits(keras.layers.Layer):
        def __init__(self, table, **options):
            super().__init__(**options)
            self.words = table

        def call(self, x):
            return keras.ops.matmul(x, keras.ops.transpose(self.words.embeddings))

    ids, table, x = _encoder(keras, 50257, length, 768, 12, 12, causal=True)
    return keras.Model(ids, Logits(table, name="logits")(x))


def gpt2_generation(keras: Any, prompt: int = 32, new: int = 32) -> Any:
    """Greedy generation, one program: keys and values of what was read are kept in a cache."""
    layers, ops = keras.layers, keras.ops
    width, depth, heads, words, length = 768, 12, 12, 50257, prompt + new

    class Block(keras.layers.Layer):
        def __init__(self, **options):
            super().__init__(**options)
            self.norms = [layers.LayerNormalization(epsilon=1e-5, name=f"norm{i}") for i in (1, 2)]
            self.mix = layers.Dense(3 * width, name="query_key_value")
            self.project = layers.Dense(width, name="project")
            self.wide = layers.Dense(4 * width, activation="gelu", name="wide")
            self.narrow = layers.Dense(width, name="narrow")

        def build(self, shape):
            for layer in (*self.norms, self.mix, self.project, self.wide):
                layer.build(shape)
            self.narrow.build((*shape[:-1], 4 * width))

        def call(self, x, cache, start):
            """`x` are tokens from `start` on; returns them further on, and the cache with theirs."""
            batch, count, size = x.shape[0], x.shape[1], width // heads
            mixed = ops.reshape(self.mix(self.norms[0](x)), (batch, count, 3, heads, size))
            cache = ops.slice_update(cache, (0, start, 0, 0, 0), mixed[:, :, 1:])
            scores = ops.einsum("bqhd,bkhd->bhqk", mixed[:, :, 0] / size**0.5, cache[:, :, 0])
            seen = ops.arange(length)[None] <= start + ops.arange(count)[:, None]
            shares = ops.softmax(ops.where(seen, scores, -1e9))
            found = ops.einsum("bhqk,bkhd->bqhd", shares, cache[:, :, 1])
            x = x + self.project(ops.reshape(found, (batch, count, width)))
            return x + self.narrow(self.wide(self.norms[1](x))), cache

    class Generate(keras.layers.Layer):
        def __init__(self, **options):
            super().__init__(**options)
            self.words = layers.Embedding(words, width, name="words")
            self.blocks = [Block(name=f"block{i}") for i in range(depth)]
            self.norm = layers.LayerNormalization(epsilon=1e-5, name="norm")

        def build(self, shape):
            self.table = self.add_weight(shape=(length, width), name="position_embeddings")
            self.words.build(shape)
            for layer in (*self.blocks, self.norm):
                layer.build((*shape, width))

        def read(self, ids, caches, start):
            """The token that follows `ids`, and the caches with them."""
            places = ops.slice(ops.convert_to_tensor(self.table), (start, 0),
                               (ids.shape[1], width))
            x, kept = self.words(ids) + places, []
            for block, cache in zip(self.blocks, caches, strict=True):
                x, cache = block(x, cache=cache, start=start)
                kept.append(cache)
            table = ops.transpose(ops.convert_to_tensor(self.words.embeddings))
            logits = ops.matmul(self.norm(x[:, -1:]), table)
            return ops.cast(ops.argmax(logits, axis=-1), "int32"), kept

        def call(self, ids):
            batch = ids.shape[0]
            caches = [ops.zeros((batch, length, 2, heads, width // heads)) for _ in self.blocks]
            token, caches = self.read(ids, caches, 0)

            def step(i, state):
                token, tokens, *caches = state
                tokens = ops.slice_update(tokens, (0, i), token)
                token, caches = self.read(token, caches, prompt + i)
                return (token, tokens, *caches)

            tokens = ops.zeros((batch, new), "int32")
            token, tokens, *_ = ops.fori_loop(0, new - 1, step, (token, tokens, *caches))
            return ops.slice_update(tokens, (0, new - 1), token)

    ids = keras.Input(batch_shape=(1, prompt), dtype="int32")
    return keras.Model(ids, Generate(name="generate")(ids))
