"""The JAX side of `conformance jax`: run by the Python that has JAX, it knows nothing of tfn.

`PYTHON -P jax_programs.py FOLDER NAME...` lowers each program of `PROGRAMS` and runs it. It leaves
`NAME.mlir` (what JAX prints), `NAME.in.npz`, `NAME.out.npz`, and prints a line of JSON per program.
(`-P`: the `jax.py` beside this file is not JAX.)
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import jax
import jax.numpy as jnp
import numpy as np

Program = tuple[Callable[..., Any], tuple]
"""A function and the arguments it is lowered for and run on."""


def _draw(seed: int = 0) -> Callable[..., np.ndarray]:
    """Normal numbers of a shape, scaled by the square root of the fan-in unless told otherwise."""
    source = np.random.default_rng(seed)

    def normal(*shape: int, scale: float | None = None) -> np.ndarray:
        fan_in = int(np.prod(shape[:-1])) if len(shape) > 1 else 1
        wanted = fan_in ** -0.5 if scale is None else scale
        return (source.normal(size=shape) * wanted).astype(np.float32)

    return normal


def _labels(classes: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, classes, shape).astype(np.int32)


def _cross_entropy(logits, labels):
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], -1))


# -- optimizers: (initial state, update) pairs on trees of parameters

def _adam(params, grads, state, rate=1e-3, b1=0.9, b2=0.999):
    step, first, second = state
    step = step + 1
    first = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, first, grads)
    second = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, second, grads)
    scale = rate * jnp.sqrt(1 - b2 ** step) / (1 - b1 ** step)
    # A visible epsilon: with 1e-8, the first steps divide rounding errors by themselves.
    params = jax.tree.map(lambda p, m, v: p - scale * m / (jnp.sqrt(v) + 1e-4), params, first, second)
    return params, (step, first, second)


def _adam_state(params):
    zeros = jax.tree.map(np.zeros_like, params)
    return np.float32(3), zeros, jax.tree.map(lambda p: np.full_like(p, 1e-2), params)


def _step(loss: Callable, params, *data) -> Program:
    """One step of Adam down `loss(params, *data)`; parameters and state are donated."""

    def step(params, state, *data):
        value, grads = jax.value_and_grad(loss)(params, *data)
        params, state = _adam(params, grads, state)
        return value, params, state

    return functools.partial(jax.jit, donate_argnums=(0, 1))(step), (params, _adam_state(params), *data)


# -- programs of a few hundred ops

def mlp() -> Program:
    """Three dense layers, Adam."""
    normal = _draw()
    params = [(normal(64, 128), normal(128)), (normal(128, 128), normal(128)),
              (normal(128, 10), normal(10))]

    def loss(params, x, y):
        for kernel, bias in params[:-1]:
            x = jax.nn.gelu(x @ kernel + bias)
        return _cross_entropy(x @ params[-1][0] + params[-1][1], y)

    return _step(loss, params, normal(32, 64, scale=1.0), _labels(10, 32))


def lstm() -> Program:
    """An LSTM over time by `lax.scan`, differentiated, Adam."""
    normal = _draw()
    units = 32
    params = {"kernel": normal(16, 4 * units), "recurrent": normal(units, 4 * units),
              "bias": normal(4 * units), "head": normal(units, 5)}

    def loss(params, x, y):
        def cell(carry, x):
            h, c = carry
            gates = x @ params["kernel"] + h @ params["recurrent"] + params["bias"]
            i, f, g, o = jnp.split(gates, 4, axis=-1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        zeros = jnp.zeros((x.shape[0], units))
        (h, _), states = jax.lax.scan(cell, (zeros, zeros), jnp.swapaxes(x, 0, 1))
        return _cross_entropy(h @ params["head"], y) + 0.01 * jnp.mean(states ** 2)

    return _step(loss, params, normal(8, 20, 16, scale=1.0), _labels(5, 8))


def _convolve(x, kernel, stride=1):
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), "SAME",
                                        dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _normalised(x, norm, axes):
    scale, bias = norm
    mean = jnp.mean(x, axes, keepdims=True)
    variance = jnp.mean((x - mean) ** 2, axes, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * scale + bias


def resnet() -> Program:
    """Residual blocks with batch normalisation and strides, Adam."""
    normal = _draw()
    widths = (8, 16, 32)
    params: dict[str, Any] = {"stem": normal(3, 3, 3, 8), "head": normal(32, 10), "blocks": []}
    for inner, outer in zip((8, *widths), widths, strict=False):
        params["blocks"].append({
            "first": normal(3, 3, inner, outer), "second": normal(3, 3, outer, outer),
            "short": normal(1, 1, inner, outer),
            "norms": [(np.ones(outer, np.float32), np.zeros(outer, np.float32)) for _ in range(2)]})

    def loss(params, x, y):
        x = jax.nn.relu(_convolve(x, params["stem"]))
        for number, block in enumerate(params["blocks"]):
            stride = 1 if number == 0 else 2
            h = _normalised(_convolve(x, block["first"], stride), block["norms"][0], (0, 1, 2))
            h = _normalised(_convolve(jax.nn.relu(h), block["second"]), block["norms"][1], (0, 1, 2))
            x = jax.nn.relu(h + _convolve(x, block["short"], stride))
        x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        return _cross_entropy(jnp.mean(x, (1, 2)) @ params["head"], y)

    return _step(loss, params, normal(8, 32, 32, 3, scale=1.0), _labels(10, 8))


def transformer() -> Program:
    """Two causal transformer layers over embedded tokens, Adam."""
    normal = _draw()
    width, heads, vocabulary = 64, 4, 100
    params: dict[str, Any] = {
        "embed": normal(vocabulary, width, scale=0.1), "position": normal(24, width, scale=0.1),
        "layers": []}
    for _ in range(2):
        params["layers"].append({
            "qkv": normal(width, 3 * width), "out": normal(width, width),
            "up": normal(width, 4 * width), "down": normal(4 * width, width),
            "norms": [(np.ones(width, np.float32), np.zeros(width, np.float32)) for _ in range(2)]})

    def attention(x, layer):
        batch, length, _ = x.shape
        q, k, v = jnp.split((x @ layer["qkv"]).reshape(batch, length, heads, -1), 3, axis=-1)
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / np.float32(np.sqrt(width // heads))
        scores = jnp.where(jnp.tril(jnp.ones((length, length), bool)), scores, -1e9)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), v)
        return mixed.reshape(x.shape) @ layer["out"]

    def loss(params, tokens):
        x = params["embed"][tokens[:, :-1]] + params["position"]
        for layer in params["layers"]:
            x = x + attention(_normalised(x, layer["norms"][0], -1), layer)
            h = _normalised(x, layer["norms"][1], -1)
            x = x + jax.nn.gelu(h @ layer["up"]) @ layer["down"]
        return _cross_entropy(x @ params["embed"].T, tokens[:, 1:])

    return _step(loss, params, _labels(vocabulary, 4, 25))


# -- what is not a network

def sorting() -> Program:
    """Sorts by key, arguments, medians and the largest k, with ties and infinities."""
    normal = _draw()
    x = normal(4, 30, scale=1.0).round(1)
    x[2, 3], x[3, 5] = np.inf, -np.inf

    def function(x, keys):
        largest, places = jax.lax.top_k(x, 5)
        pairs = jax.lax.sort((keys, x), dimension=1, num_keys=2)
        return (jnp.sort(x, 0), jnp.argsort(x, 1), jnp.sort(x, 1, descending=True), largest, places,
                *pairs, jnp.median(x, 0), jnp.argmax(x, 1), jnp.argmin(x), jnp.cumsum(x[:2], 1),
                jnp.searchsorted(jnp.sort(x[0]), x[1]), jnp.unique(keys, size=20, fill_value=-1))

    return function, (x, _labels(9, 4, 30))


def indexing() -> Program:
    """Gathers and scatters of every mode, slices from data, segment sums, one-hots."""
    normal = _draw()

    def function(x, update, rows, columns):
        return (x[rows], x[rows, columns], jnp.take_along_axis(x[rows], columns[:, None], 1),
                x.at[rows].add(update), x.at[rows, columns].set(update[:, 0]), x.at[rows].max(update),
                x.at[:, 1:5].multiply(2.0), x.at[rows].min(update, mode="drop"),
                x.at[rows + 5].get(mode="fill", fill_value=7.0),
                jax.lax.dynamic_slice(x, (rows[0], columns[0]), (3, 4)),
                jax.lax.dynamic_update_slice(x, update[:2, :3], (rows[1], columns[1])),
                jax.ops.segment_sum(update, rows, 12), jax.nn.one_hot(rows, 12),
                jnp.repeat(x, 2, axis=0)[::3], jnp.roll(x, 3, 1), jnp.flip(x, 0))

    return function, (normal(12, 8, scale=1.0), normal(10, 8, scale=1.0), _labels(12, 10),
                      _labels(8, 10))


def fourier() -> Program:
    """Transforms of all kinds, a spectral filter and its gradient, complex arithmetic."""
    normal = _draw()

    def function(x, z):
        def filtered(x):
            return jnp.sum(jnp.fft.irfft(jnp.fft.rfft(x) * jnp.exp(-jnp.arange(33.0))) ** 3)

        return (jnp.fft.fft(z), jnp.fft.ifft2(z), jnp.fft.rfft(x), jnp.fft.irfft(z, 30),
                jnp.abs(jnp.fft.fftshift(jnp.fft.fftn(x))), jax.grad(filtered)(x),
                jnp.angle(z), z * jnp.conj(z) + jnp.exp(z), jnp.sqrt(z))

    z = normal(4, 16, scale=1.0) + 1j * normal(4, 16, scale=1.0)
    return function, (normal(4, 64, scale=1.0), z.astype(np.complex64))


def randomness() -> Program:
    """Threefry: uniform, normal, categorical, permutations, and dropout."""

    def function(key, x):
        keys = jax.random.split(key, 6)
        return (jax.random.uniform(keys[0], (40,)), jax.random.normal(keys[1], (40,)),
                jax.random.categorical(keys[2], x), jax.random.permutation(keys[3], 20),
                jax.random.randint(keys[4], (30,), 0, 100),
                jnp.where(jax.random.bernoulli(keys[5], 0.8, x.shape), x / 0.8, 0))

    return function, (np.array([0, 42], np.uint32), _draw()(16, 10, scale=1.0))


def algebra() -> Program:
    """Cholesky, triangular solves, QR, eigenvalues, inverse; norms of what they give back."""
    normal = _draw()

    def function(a, b):
        spd = a @ a.T + 4 * jnp.eye(12)
        lower = jnp.linalg.cholesky(spd)
        q, r = jnp.linalg.qr(b)
        return (lower, jax.scipy.linalg.solve_triangular(lower, b, lower=True),
                jnp.abs(q) @ jnp.abs(r), jnp.linalg.eigvalsh(spd), jnp.linalg.inv(spd),
                jnp.linalg.solve(spd, b), jnp.linalg.slogdet(spd)[1],
                jnp.linalg.svd(b, compute_uv=False),
                jax.grad(lambda m: jnp.linalg.slogdet(m @ m.T + jnp.eye(12))[1])(a))

    return function, (normal(12, 12, scale=1.0), normal(12, 5, scale=1.0))


def functions() -> Program:
    """Elementary and special functions, integer and half-precision arithmetic, control flow."""
    normal = _draw()

    def function(x, n):
        special = jax.scipy.special
        y = jnp.abs(x) + 0.1
        half = x.astype(jnp.bfloat16)
        root = jax.lax.while_loop(lambda v: jnp.max(jnp.abs(v * v - y)) > 1e-4,
                                  lambda v: 0.5 * (v + y / v), jnp.ones_like(y))
        chosen = jax.lax.cond(n[0] > 3, jnp.sin, jnp.cos, x)
        switched = jax.lax.switch(n[1] % 3, (jnp.exp, jnp.tanh, jnp.square), x)
        return (jnp.exp(x), jnp.log(y), jnp.log1p(y), jnp.expm1(x), jnp.sin(x), jnp.tan(x),
                jnp.arctan2(x, y), jnp.arcsin(jnp.tanh(x)), jnp.arccosh(1 + y), jnp.cbrt(x),
                special.erf(x), special.erfinv(jnp.tanh(x)), special.gammaln(y), special.digamma(y),
                special.erfc(x), special.i0e(x), y ** x, jnp.floor(x * 4), jnp.round(x * 4),
                jnp.sign(x), x % 0.3, n // 3, n % 3, n << 2, n ^ 5, jax.lax.population_count(n),
                jax.lax.clz(n), jax.lax.bitcast_convert_type(half * half, jnp.uint16),
                jnp.sum(half, 0).astype(jnp.float32), jax.nn.logsumexp(x, 1), jnp.prod(y[:, :4], 1),
                jnp.any(x > 2, 1), jax.lax.reduce_precision(x, 5, 10), root, chosen, switched,
                jnp.cumprod(y[:3], 1), jnp.isfinite(1 / jnp.floor(x)), jax.vmap(jnp.outer)(x, x)[:, 0])

    return function, (normal(8, 16, scale=1.0), _labels(9, 24))


# -- whole networks, written with Keras

def _keras_state(variables) -> list[np.ndarray]:
    return [np.asarray(v.value) for v in variables]


def _forward(model, *inputs) -> Program:
    def predict(trainable, other, *inputs):
        return model.stateless_call(trainable, other, _unpacked(inputs), training=False)[0]

    return predict, (_keras_state(model.trainable_variables),
                     _keras_state(model.non_trainable_variables), *inputs)


def _unpacked(inputs):
    return inputs[0] if len(inputs) == 1 else list(inputs)


def _train_step(model, optimizer, labels, *inputs) -> Program:
    """Loss, gradients, optimizer, and the new non-trainable state; all state is donated."""
    import keras

    optimizer.build(model.trainable_variables)
    objective = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def loss(trainable, other, labels, *inputs):
        logits, other = model.stateless_call(trainable, other, _unpacked(inputs), training=True)
        return objective(labels, logits), other

    def step(trainable, other, state, labels, *inputs):
        (value, other), grads = jax.value_and_grad(loss, has_aux=True)(
            trainable, other, labels, *inputs)
        trainable, state = optimizer.stateless_apply(state, grads, trainable)
        return value, trainable, other, state

    return jax.jit(step, donate_argnums=(0, 1, 2)), (
        _keras_state(model.trainable_variables), _keras_state(model.non_trainable_variables),
        _keras_state(optimizer.variables), labels, *inputs)


def _resnet50():
    import keras

    keras.utils.set_random_seed(0)
    return keras.applications.ResNet50(weights=None, classifier_activation=None)


def _images() -> np.ndarray:
    """8 images that differ: of mere noise all features are alike, and their statistics cancel."""
    normal = _draw()
    coarse = normal(8, 7, 7, 3, scale=1.0) + normal(8, 1, 1, 3, scale=1.0)
    return coarse.repeat(32, 1).repeat(32, 2) + normal(8, 224, 224, 3, scale=0.1)


def resnet50() -> Program:
    """ResNet50 of keras.applications, forward, batch 8."""
    return _forward(_resnet50(), _images())


def resnet50_train() -> Program:
    """Its train step with SGD and momentum."""
    import keras

    return _train_step(_resnet50(), keras.optimizers.SGD(1e-2, momentum=0.9), _labels(1000, 8),
                       _images())


def _bert(classes: int = 2):
    """BERT-base: 12 layers of width 768, 12 heads, 30,522 words, 128 tokens."""
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    tokens = keras.Input((128,), dtype="int32")
    segments = keras.Input((128,), dtype="int32")
    places = keras.ops.arange(128)
    x = layers.Embedding(30522, 768)(tokens) + layers.Embedding(2, 768)(segments)
    x = layers.LayerNormalization(epsilon=1e-12)(x + layers.Embedding(512, 768)(places))
    x = layers.Dropout(0.1)(x)
    for _ in range(12):
        attended = layers.MultiHeadAttention(12, 64, dropout=0.1)(x, x)
        x = layers.LayerNormalization(epsilon=1e-12)(x + layers.Dropout(0.1)(attended))
        h = layers.Dense(768)(layers.Dense(3072, activation="gelu")(x))
        x = layers.LayerNormalization(epsilon=1e-12)(x + layers.Dropout(0.1)(h))
    pooled = layers.Dense(768, activation="tanh")(x[:, 0])
    return keras.Model([tokens, segments], layers.Dense(classes)(layers.Dropout(0.1)(pooled)))


def bert() -> Program:
    """BERT-base, forward, 4 sequences of 128."""
    return _forward(_bert(), _labels(30522, 4, 128), _labels(2, 4, 128))


def bert_train() -> Program:
    """Its train step with Adam, dropout included."""
    import keras

    return _train_step(_bert(), keras.optimizers.Adam(1e-4, epsilon=1e-4), _labels(2, 4),
                       _labels(30522, 4, 128), _labels(2, 4, 128))


PROGRAMS: dict[str, Callable[[], Program]] = {
    p.__name__: p for p in (mlp, lstm, resnet, transformer, sorting, indexing, fourier, randomness,
                            algebra, functions, resnet50, resnet50_train, bert, bert_train)}


def save(name: str, folder: Path) -> dict[str, Any]:
    """Write the files of a program; what it cost JAX, in seconds of CPU and bytes."""
    function, arguments = PROGRAMS[name]()
    start = time.process_time()
    lowered = (function if hasattr(function, "lower") else jax.jit(function)).lower(*arguments)
    traced = time.process_time()
    (folder / f"{name}.mlir").write_text(lowered.as_text())
    # The text has no unused arguments.
    kept = sorted(lowered._lowering.compile_args["kept_var_idx"])
    leaves = jax.tree.leaves(arguments)
    np.savez(folder / f"{name}.in.npz", *[np.asarray(leaves[i]) for i in kept])
    begun = time.process_time()
    compiled = lowered.compile()
    ended = time.process_time()
    results = [np.asarray(r) for r in jax.tree.leaves(compiled(*arguments))]
    np.savez(folder / f"{name}.out.npz", *results)
    memory = compiled.memory_analysis()
    return {"name": name, "trace_seconds": traced - start, "xla_seconds": ended - begun,
            "xla_temp_bytes": memory.temp_size_in_bytes}


def main(folder: str, *names: str) -> None:
    """Save the named programs, or all."""
    for name in names or PROGRAMS:
        print(json.dumps(save(name, Path(folder))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
