"""Models that every Keras backend trains alike: `python -P training_models.py JSON`, by `training.py`.

A plain Keras script: the same file builds, trains, saves and loads on tfn, JAX, TensorFlow and PyTorch.
What differs is how a step of one's own gets its gradients (`Gan`). Nothing is random while training: no
dropout, and data, noise and their order come from a seed. The first backend to run writes the weights
that all start from.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Batches = Iterator[tuple[Any, Any]]

BATCH = 16
PACKAGE = "tfn_training"


def _random(number: int) -> np.random.Generator:
    return np.random.default_rng(number)


# -- data -------------------------------------------------------------------------------------------

def digit_batches(digits: str) -> Batches:
    """Handwritten digits (8, 8, 1) and their classes, in one order."""
    with np.load(digits) as data:
        images = data["images"].astype(np.float32)[..., None] / 16
        labels = data["labels"].astype(np.int32)
    order = _random(1).permutation(len(images))
    for start in range(0, len(order) - BATCH, BATCH):
        chosen = order[start:start + BATCH]
        yield images[chosen], labels[chosen]


def review_batches(digits: str) -> Batches:
    """Word numbers behind which zeros are padding; which words occur decides."""
    random = _random(2)
    while True:
        lengths = random.integers(4, 40, (BATCH, 1))
        words = random.integers(1, 200, (BATCH, 40)) * (np.arange(40) < lengths)
        yield words.astype(np.int32), ((words % 7 == 3).sum(1) > (words % 5 == 2).sum(1)) * 1


def mask_batches(digits: str) -> Batches:
    """Discs on noise (32, 32, 3), and which pixels are theirs."""
    random = _random(3)
    rows, columns = np.mgrid[:32, :32]
    while True:
        y, x = random.uniform(8, 24, (2, BATCH, 1, 1))
        discs = (rows - y) ** 2 + (columns - x) ** 2 < random.uniform(9, 64, (BATCH, 1, 1))
        noise = random.standard_normal((BATCH, 32, 32, 3)) * 0.5
        yield (noise + discs[..., None]).astype(np.float32), discs[..., None].astype(np.int32)


def wave_batches(digits: str) -> Batches:
    """Sums of two waves (24, 2) and what comes next."""
    random = _random(4)
    while True:
        speed, phase = random.uniform(0.1, 0.9, (BATCH, 1, 2)), random.uniform(0, 6, (BATCH, 1, 2))
        values = np.sin(np.arange(25)[None, :, None] * speed + phase).astype(np.float32)
        yield values[:, :-1], values[:, -1]


def text_batches(digits: str) -> Batches:
    """Numbers that count up in steps of their own, modulo the vocabulary, and the ones after them."""
    random = _random(5)
    while True:
        start, step = random.integers(0, 50, (2, BATCH, 1))
        words = ((start + np.arange(25)[None] * (step % 5 + 1)) % 50).astype(np.int32)
        yield words[:, :-1], words[:, 1:]


def gan_batches(digits: str) -> Batches:
    """Digits and the noise to make others from."""
    random = _random(6)
    for images, _ in digit_batches(digits):
        yield images * 2 - 1, random.standard_normal((BATCH, 8)).astype(np.float32)


# -- models -----------------------------------------------------------------------------------------

def digits_cnn(keras: Any) -> Any:
    layers = keras.layers
    return keras.Sequential([
        keras.Input((8, 8, 1)), layers.Conv2D(16, 3, padding="same"), layers.BatchNormalization(),
        layers.ReLU(), layers.MaxPooling2D(), layers.Conv2D(32, 3, activation="relu"),
        layers.GlobalAveragePooling2D(), layers.Dense(10)])


def text(keras: Any) -> Any:
    layers = keras.layers
    return keras.Sequential([
        keras.Input((40,), dtype="int32"), layers.Embedding(200, 16, mask_zero=True),
        layers.Bidirectional(layers.LSTM(16)), layers.Dense(16, activation="relu"), layers.Dense(2)])


def unet(keras: Any) -> Any:
    layers = keras.layers

    def twice(x: Any, filters: int) -> Any:
        for _ in range(2):
            x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
            x = layers.ReLU()(layers.BatchNormalization()(x))
        return x

    inputs = x = keras.Input((32, 32, 3))
    skips = []
    for filters in (8, 16):
        x = twice(x, filters)
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = twice(x, 32)
    for filters in (16, 8):
        x = layers.Conv2DTranspose(filters, 2, strides=2)(x)
        x = twice(layers.Concatenate()([x, skips.pop()]), filters)
    return keras.Model(inputs, layers.Conv2D(2, 1)(x))


def gru(keras: Any) -> Any:
    layers = keras.layers
    return keras.Sequential([
        keras.Input((24, 2)), layers.GRU(16, return_sequences=True), layers.GRU(16), layers.Dense(2)])


def _positions(keras: Any) -> Any:
    @keras.saving.register_keras_serializable(PACKAGE)
    class Positions(keras.layers.Layer):
        """Adds a learned vector for each place."""

        def build(self, shape: Any) -> None:
            self.table = self.add_weight(shape=shape[1:], initializer="random_normal", name="table")

        def call(self, x: Any) -> Any:
            return x + self.table

    return Positions


def _block(keras: Any, x: Any, width: int, causal: bool) -> Any:
    """A transformer block that normalises first."""
    layers = keras.layers
    y = layers.LayerNormalization()(x)
    x = x + layers.MultiHeadAttention(4, width // 4)(y, y, use_causal_mask=causal)
    y = layers.Dense(2 * width, activation="gelu")(layers.LayerNormalization()(x))
    return x + layers.Dense(width)(y)


def vit(keras: Any) -> Any:
    layers = keras.layers
    inputs = keras.Input((8, 8, 1))
    x = layers.Reshape((16, 32))(layers.Conv2D(32, 2, strides=2)(inputs))
    x = _positions(keras)()(x)
    for _ in range(2):
        x = _block(keras, x, 32, causal=False)
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(inputs, layers.Dense(10)(x))


def decoder(keras: Any) -> Any:
    layers = keras.layers
    inputs = keras.Input((24,), dtype="int32")
    x = _positions(keras)()(layers.Embedding(50, 32)(inputs))
    for _ in range(2):
        x = _block(keras, x, 32, causal=True)
    return keras.Model(inputs, layers.Dense(50)(layers.LayerNormalization()(x)))


def gan(keras: Any) -> Any:
    """Generator and discriminator, which move at once in a step of their own."""
    layers, ops = keras.layers, keras.ops
    backend = keras.config.backend()

    class Pair(keras.Model):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.generator = keras.Sequential([
                keras.Input((8,)), layers.Dense(64, activation="relu"),
                layers.Dense(64, activation="tanh"), layers.Reshape((8, 8, 1))])
            self.discriminator = keras.Sequential([
                keras.Input((8, 8, 1)), layers.Conv2D(16, 3, strides=2), layers.LeakyReLU(0.2),
                layers.Flatten(), layers.Dense(1)])

        def call(self, noise: Any) -> Any:
            return self.generator(noise)

        def losses_of(self, real: Any, noise: Any, run: Callable[..., Any]) -> tuple[Any, Any]:
            """What discriminator and generator want small; `run(model, x)` calls a part."""
            made = run(self.generator, noise)
            wrong, right = run(self.discriminator, made), run(self.discriminator, real)
            return (ops.mean(ops.softplus(wrong)) + ops.mean(ops.softplus(-right)),
                    ops.mean(ops.softplus(-wrong)))

    class OnState(Pair):
        """A step from state to state, for backends that differentiate functions."""

        def train_step(self, state: Any, data: Any) -> Any:
            if backend == "jax":
                from jax import grad
            else:
                from tfn import grad  # type: ignore[no-redef, unused-ignore]
            real, noise, _ = keras.utils.unpack_x_y_sample_weight(data)
            trainable, fixed, optimizer, metrics = state
            count = len(self.generator.trainable_variables)

            def losses(generator: Any, discriminator: Any) -> tuple[Any, Any]:
                values = {id(self.generator): generator, id(self.discriminator): discriminator}
                return self.losses_of(real, noise, lambda model, x: model.stateless_call(
                    values[id(model)], [v.value for v in model.non_trainable_variables], x)[0])

            parts = trainable[:count], trainable[count:]
            slopes = [*grad(lambda g: losses(g, parts[1])[1])(parts[0]),
                      *grad(lambda d: losses(parts[0], d)[0])(parts[1])]
            found = losses(*parts)
            trainable, optimizer = self.optimizer.stateless_apply(optimizer, slopes, trainable)
            return {"loss": found[0] + found[1]}, (trainable, fixed, optimizer, metrics)

    class OnVariables(Pair):
        """A step that changes variables, for backends that record what is done to them."""

        def train_step(self, data: Any) -> Any:
            real, noise, _ = keras.utils.unpack_x_y_sample_weight(data)
            parts = (self.generator.trainable_variables, self.discriminator.trainable_variables)

            def losses() -> tuple[Any, Any]:
                return self.losses_of(real, noise, lambda model, x: model(x))

            if backend == "tensorflow":
                import tensorflow as tf

                with tf.GradientTape(persistent=True) as tape:
                    found = losses()
                slopes = [*tape.gradient(found[1], parts[0]), *tape.gradient(found[0], parts[1])]
                self.optimizer.apply(slopes, [*parts[0], *parts[1]])
            else:
                import torch

                found = losses()
                slopes = [*torch.autograd.grad(found[1], [v.value for v in parts[0]],
                                               retain_graph=True),
                          *torch.autograd.grad(found[0], [v.value for v in parts[1]])]
                with torch.no_grad():
                    self.optimizer.apply(slopes, [*parts[0], *parts[1]])
            return {"loss": found[0] + found[1]}

    kind = OnState if backend in ("jax", "tfn") else OnVariables
    # One name in files, whichever it is.
    named = type("Gan", (kind,), {"__module__": __name__})
    model = keras.saving.register_keras_serializable(PACKAGE)(named)()
    model(np.zeros((1, 8), np.float32))
    return model


MODELS: dict[str, tuple[Callable[[Any], Any], Callable[[str], Batches], str]] = {
    "digits_cnn": (digits_cnn, digit_batches, "classes"),
    "text": (text, review_batches, "classes"),
    "unet": (unet, mask_batches, "classes"),
    "gru": (gru, wave_batches, "numbers"),
    "vit": (vit, digit_batches, "classes"),
    "decoder": (decoder, text_batches, "classes"),
    "gan": (gan, gan_batches, "none"),
}
"""Name -> model, batches, and what its loss compares."""


# -- running ----------------------------------------------------------------------------------------

def built(keras: Any, name: str) -> Any:
    """The model, compiled."""
    make, _, kind = MODELS[name]
    keras.utils.set_random_seed(7)
    keras.backend.clear_session()
    model = make(keras)
    loss = {"classes": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            "numbers": "mse", "none": None}[kind]
    model.compile(keras.optimizers.Adam(1e-3), loss)
    return model


def probe(name: str, digits: str) -> Any:
    """What is predicted to compare models."""
    x, y = next(MODELS[name][1](digits))
    return y if name == "gan" else x


def trained(keras: Any, name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Losses of the steps, from weights in the folder `weights`; the model and what it predicts are
    saved in `folder`."""
    model = built(keras, name)
    weights = Path(options["weights"]) / f"{name}.weights.h5"
    if weights.exists():
        model.load_weights(weights)
    else:
        model.save_weights(weights)
    losses = []
    for _, (x, y) in zip(range(options["steps"]), MODELS[name][1](options["digits"]), strict=False):
        model.reset_metrics()
        losses.append(float(model.train_on_batch(x, y, return_dict=True)["loss"]))
    folder = Path(options["folder"])
    model.save(folder / f"{name}.keras")
    np.save(folder / f"{name}.npy", model.predict(probe(name, options["digits"]), verbose=0))
    return {"losses": losses}


def loaded(keras: Any, name: str, options: dict[str, Any]) -> dict[str, Any]:
    """How far what a model saved in `folder` predicts here is from what it predicted there, relative
    to the largest number."""
    built(keras, name)  # registers the classes of its own
    folder = Path(options["folder"])
    model = keras.models.load_model(folder / f"{name}.keras")
    found = model.predict(probe(name, options["digits"]), verbose=0)
    expected = np.load(folder / f"{name}.npy")
    return {"error": float(np.abs(found - expected).max() / np.abs(expected).max())}


def main(options: dict[str, Any]) -> None:
    """Do what `options["do"]` says to each model; results go to the file `results` as they come."""
    os.environ["KERAS_BACKEND"] = options["backend"]
    if options["backend"] == "tfn":
        import tfn  # noqa: F401
    import keras

    run = {"train": trained, "load": loaded}[options["do"]]
    with open(options["results"], "w", encoding="utf-8", buffering=1) as results:
        for name in options["names"]:
            try:
                found = run(keras, name, options)
            except Exception as error:  # any backend's, reported beside the model's name
                found = {"failed": f"{type(error).__name__}: {error}"}
            results.write(json.dumps({"name": name, **found}) + "\n")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
