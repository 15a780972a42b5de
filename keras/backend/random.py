"""`keras.random` on tfn: every draw takes a fresh Threefry key from Keras's seed generator."""

from __future__ import annotations

from keras.src.backend.config import floatx
from keras.src.random.seed_generator import SeedGenerator, draw_seed, make_default_seed

from ...compiler import numpy as tnp
from ...compiler import random as trandom
from .ops.core import convert_to_tensor

__all__ = ["SeedGenerator", "make_default_seed"]


def normal(shape, mean=0.0, stddev=1.0, dtype=None, seed=None):
    dtype = dtype or floatx()
    sample = trandom.normal(draw_seed(seed), shape, dtype=dtype)
    return sample * convert_to_tensor(stddev, dtype) + convert_to_tensor(mean, dtype)


def uniform(shape, minval=0.0, maxval=1.0, dtype=None, seed=None):
    dtype = dtype or floatx()
    return trandom.uniform(draw_seed(seed), shape, dtype=dtype,
                           minval=convert_to_tensor(minval, dtype),
                           maxval=convert_to_tensor(maxval, dtype))


def truncated_normal(shape, mean=0.0, stddev=1.0, dtype=None, seed=None):
    dtype = dtype or floatx()
    sample = trandom.truncated_normal(draw_seed(seed), -2.0, 2.0, shape, dtype=dtype)
    return sample * convert_to_tensor(stddev, dtype) + convert_to_tensor(mean, dtype)


def randint(shape, minval, maxval, dtype="int32", seed=None):
    return trandom.randint(draw_seed(seed), shape, minval, maxval, dtype=dtype)


def categorical(logits, num_samples, dtype="int32", seed=None):
    logits = convert_to_tensor(logits)
    noise = trandom.gumbel(draw_seed(seed), (*logits.shape[:-1], num_samples, logits.shape[-1]))
    return tnp.argmax(noise + logits[..., None, :], axis=-1).astype(dtype)


def dropout(inputs, rate, noise_shape=None, seed=None):
    """Zero a fraction `rate` of the elements and scale the others by 1 / (1 - rate)."""
    inputs = convert_to_tensor(inputs)
    keep = 1.0 - rate
    shape = tuple(inputs.shape) if noise_shape is None else tuple(
        n if w is None else w for n, w in zip(inputs.shape, noise_shape, strict=True))
    mask = trandom.bernoulli(draw_seed(seed), keep, shape)
    return tnp.where(mask, inputs / keep, tnp.zeros_like(inputs))


def shuffle(x, axis=0, seed=None):
    return trandom.permutation(draw_seed(seed), convert_to_tensor(x), axis=axis)


def gamma(shape, alpha, dtype=None, seed=None):
    return trandom.gamma(draw_seed(seed), alpha, shape, dtype=dtype or floatx())


def beta(shape, alpha, beta, dtype=None, seed=None):
    return trandom.beta(draw_seed(seed), alpha, beta, shape, dtype=dtype or floatx())


def binomial(shape, counts, probabilities, dtype=None, seed=None):
    return trandom.binomial(draw_seed(seed), counts, probabilities, shape,
                            dtype=dtype or floatx())
