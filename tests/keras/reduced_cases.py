"""Reduced precision as Keras defines it, case by case, on any backend.

`python -P reduced_cases.py BACKEND FOLDER NAME...` writes what the cases give to FOLDER/BACKEND.npz. A
plain Keras script: `test_reduced_precision.py` runs it on tfn and on JAX and compares.
"""

import os
import sys
from pathlib import Path

import numpy as np

RNG_SEED = 11
TOKENS = 32


def random(shape, number=0):
    return np.random.default_rng(RNG_SEED + number).standard_normal(shape).astype(np.float32)


def set_weights(model):
    """Weights from a seed: of matrices small numbers, of vectors smaller ones."""
    for i, w in enumerate(model.trainable_weights):
        size = np.sqrt(w.shape[0]) if len(w.shape) > 1 else 10
        w.assign(random(tuple(w.shape), 100 + i) / size)


def mlp(keras, dtype=None):
    layers = keras.layers
    model = keras.Sequential([
        keras.Input((32,)), layers.Dense(64, activation="relu", dtype=dtype),
        layers.LayerNormalization(dtype=dtype),
        layers.EinsumDense("bi,ij->bj", output_shape=(48,), bias_axes="j", activation="relu",
                           dtype=dtype),
        layers.Dense(10, dtype=dtype)])
    set_weights(model)
    return model


def language_model(keras):
    """Embedding, two blocks, and a head: what GPTQ and AWQ quantize."""
    layers = keras.layers
    embedding = layers.Embedding(TOKENS, 16)
    blocks = [keras.Sequential([layers.Dense(32, activation="relu"), layers.Dense(16)])
              for _ in range(2)]
    inputs = x = keras.Input((12,), dtype="int32")
    x = embedding(x)
    for block in blocks:
        x = block(x)
    model = keras.Model(inputs, layers.Dense(TOKENS)(x))
    set_weights(model)
    return model, {"pre_block_layers": [embedding], "sequential_blocks": blocks}


def images(keras, dtype=None):
    layers = keras.layers
    model = keras.Sequential([
        keras.Input((8, 8, 3)), layers.Conv2D(8, 3, dtype=dtype),
        layers.BatchNormalization(dtype=dtype), layers.ReLU(dtype=dtype),
        layers.GlobalAveragePooling2D(dtype=dtype),
        layers.Dense(10, dtype=dtype)])
    set_weights(model)
    return model


X, Y = random((64, 32)), np.arange(64) % 10
IMAGES = random((64, 8, 8, 3), 1)
WORDS = np.random.default_rng(RNG_SEED).integers(0, TOKENS, (8, 12)).astype(np.int32)


def predicted(model, x):
    return np.asarray(model.predict(x, verbose=0, batch_size=64)).astype(np.float32)


def steps(keras, model, x, count=3, optimizer=None):
    """The losses of some steps on one batch."""
    model.compile(optimizer or keras.optimizers.SGD(0.05),
                  keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    losses = []
    for _ in range(count):
        model.reset_metrics()
        losses.append(model.train_on_batch(x, Y, return_dict=True)["loss"])
    return np.array(losses, np.float32)


def reload(keras, model, x):
    """The largest change of a prediction by saving and loading."""
    path = Path(sys.argv[2]) / f"{keras.config.backend()}.keras"
    model.save(path)
    again = keras.models.load_model(path)
    return np.abs(predicted(again, x) - predicted(model, x)).max()


def mixed_bfloat16(keras):
    model = mlp(keras, "mixed_bfloat16")
    before = predicted(model, X)
    losses = steps(keras, model, X)
    return {"before": before, "losses": losses, "after": predicted(model, X),
            "reloaded": reload(keras, model, X)}


def mixed_bfloat16_images(keras):
    model = images(keras, "mixed_bfloat16")
    before = predicted(model, IMAGES)
    losses = steps(keras, model, IMAGES)
    return {"before": before, "losses": losses, "reloaded": reload(keras, model, IMAGES)}


def mixed_float16(keras):
    """Two good steps, one that overflows and is left out, and good ones until the scale grows."""
    model = mlp(keras, "mixed_float16")
    inner = keras.optimizers.SGD(0.05)
    optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0**12,
                                                    dynamic_growth_steps=3)
    before = predicted(model, X)
    losses = [steps(keras, model, X, 2, optimizer)]
    scales, weights = [optimizer.dynamic_scale], [model.layers[0].kernel]
    scales, weights = [[np.asarray(v) for v in kept] for kept in (scales, weights)]
    for x in (X * np.float32(1e6), X, X, X):
        losses.append(np.float32([model.train_on_batch(x, Y)]))
        model.reset_metrics()
        scales.append(np.asarray(optimizer.dynamic_scale))
        weights.append(np.asarray(model.layers[0].kernel))
    return {"before": before, "losses": np.concatenate([losses[0], *losses[2:]]),
            "scales": np.array(scales, np.float32),
            "skipped": np.float32([np.array_equal(weights[0], weights[1])]),
            "moved": np.float32([np.array_equal(weights[1], weights[2])]),
            "iterations": np.float32([np.asarray(inner.iterations)]),
            "after": predicted(model, X), "reloaded": reload(keras, model, X)}


def mixed_float16_default(keras):
    """What `compile` makes of an optimizer under this policy."""
    keras.config.set_dtype_policy("mixed_float16")
    model = mlp(keras)
    losses = steps(keras, model, X)
    keras.config.set_dtype_policy("float32")
    return {"scaled": np.float32([type(model.optimizer).__name__ == "LossScaleOptimizer"]),
            "scale": np.float32([np.asarray(model.optimizer.dynamic_scale)]), "losses": losses}


def float8(keras):
    model = mlp(keras)
    for layer in model.layers:
        if "Dense" in type(layer).__name__:
            layer.quantize("float8")
    before = predicted(model, X)
    losses = steps(keras, model, X)
    scales = [np.asarray(w).ravel() for layer in model.layers for w in layer.weights
              if "amax" in w.path or "scale" in w.path]
    return {"before": before, "losses": losses, "after": predicted(model, X),
            "scales": np.concatenate(scales)[None], "reloaded": reload(keras, model, X)}


def _quantized(mode):
    def case(keras):
        model = mlp(keras)
        full = predicted(model, X)
        model.quantize(mode)
        found = predicted(model, X)
        stored = [np.asarray(w).astype(np.float32).ravel() for w in model.weights
                  if w.path.endswith("kernel")]
        return {"after": found, "stored": np.concatenate(stored), "reloaded": reload(keras, model, X),
                "near": np.float32([np.abs(found - full).max() / np.abs(full).max() < 0.3])}
    return case


def _calibrated(mode):
    def case(keras):
        model, structure = language_model(keras)
        full = predicted(model, WORDS)
        config = {"gptq": keras.quantizers.GPTQConfig, "awq": keras.quantizers.AWQConfig}[mode](
            dataset=[w[None] for w in WORDS], tokenizer=lambda text: text, weight_bits=4, num_samples=8,
            sequence_length=12, group_size=8)
        model.get_quantization_layer_structure = lambda mode: structure
        model.quantize(mode, config=config)
        found = predicted(model, WORDS)
        stored = [np.asarray(w).astype(np.float32).ravel() for w in model.weights
                  if w.dtype == "uint8"]
        # Keras 3.15 saves such a layer without its zero points, and refuses to load that.
        return {"after": found, "stored": np.concatenate(stored),
                "near": np.float32([np.abs(found - full).max() / np.abs(full).max() < 0.3])}
    return case


def _lora(mode):
    def case(keras):
        model = mlp(keras)
        if mode:
            model.quantize(mode)
        for layer in model.layers:
            if "Dense" in type(layer).__name__:
                layer.enable_lora(4)
                layer.lora_kernel_b.assign(random(tuple(layer.lora_kernel_b.shape), 5) * 0.05)
                layer.lora_kernel_a.assign(random(tuple(layer.lora_kernel_a.shape), 6) * 0.05)
        frozen = np.asarray(model.layers[0]._kernel)
        before = predicted(model, X)
        losses = steps(keras, model, X)
        return {"before": before, "losses": losses, "after": predicted(model, X),
                "trained": np.float32([len(model.trainable_weights)]),
                "frozen": np.float32([np.array_equal(frozen, np.asarray(model.layers[0]._kernel))]),
                # What is saved is the merged kernel, and is loaded without LoRA.
                "reloaded": reload(keras, model, X)}
    return case


def lora_embedding(keras):
    layers = keras.layers
    model = keras.Sequential([keras.Input((12,), dtype="int32"), layers.Embedding(TOKENS, 16),
                              layers.GlobalAveragePooling1D(), layers.Dense(10)])
    set_weights(model)
    model.layers[0].enable_lora(2)
    model.layers[0].lora_embeddings_b.assign(random((2, 16), 4) * 0.1)
    words = np.tile(WORDS, (8, 1))
    losses = steps(keras, model, words)
    return {"losses": losses, "after": predicted(model, words), "reloaded": reload(keras, model, words)}


CASES = {
    "mixed_bfloat16": mixed_bfloat16, "mixed_bfloat16_images": mixed_bfloat16_images,
    "mixed_float16": mixed_float16, "mixed_float16_default": mixed_float16_default, "float8": float8,
    "int8": _quantized("int8"), "int4": _quantized("int4"), "gptq": _calibrated("gptq"),
    "awq": _calibrated("awq"), "lora": _lora(None), "lora_int8": _lora("int8"),
    "lora_int4": _lora("int4"), "lora_embedding": lora_embedding,
}


def main(backend, folder, *names):
    os.environ["KERAS_BACKEND"] = backend
    if backend == "tfn":
        import tfn  # noqa: F401
    import keras

    found = {}
    for name in names or CASES:
        keras.utils.set_random_seed(1)
        try:
            results = CASES[name](keras)
        except Exception as error:  # compared like any other result
            results = {"failed": np.array(f"{type(error).__name__}: {error}")}
            if os.environ.get("SHOW"):
                import traceback
                traceback.print_exc()
        found.update({f"{name}.{key}": value for key, value in results.items()})
    np.savez(Path(folder) / f"{backend}.npz", **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
