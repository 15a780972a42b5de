"""The Keras backend: upstream's plug-in layout, plus the flat names Keras 3.15 imports.

No numerics of its own: everything is thin over `tfn.numpy`, `tfn.nn` and `tfn.random`.
"""

from . import distribution_lib, random, tensorboard
from .ops import core, image, linalg, math, nn, numpy
from .ops.core import (
    IS_THREAD_SAFE,
    SUPPORTS_COMPLEX_DTYPES,
    SUPPORTS_RAGGED_TENSORS,
    SUPPORTS_SPARSE_TENSORS,
    cast,
    compute_output_spec,
    cond,
    convert_to_numpy,
    convert_to_tensor,
    device_scope,
    is_tensor,
    name_scope,
    random_seed_dtype,
    scatter,
    shape,
    stop_gradient,
    vectorized_map,
)
from .rnn import bidirectional_gru, bidirectional_lstm, cudnn_ok, gru, lstm, rnn
from .variable import Variable

__all__ = [
    "IS_THREAD_SAFE", "SUPPORTS_COMPLEX_DTYPES", "SUPPORTS_RAGGED_TENSORS",
    "SUPPORTS_SPARSE_TENSORS", "Variable", "bidirectional_gru", "bidirectional_lstm", "cast",
    "compute_output_spec", "cond", "convert_to_numpy", "convert_to_tensor", "core", "cudnn_ok",
    "device_scope", "distribution_lib", "gru", "image", "is_tensor", "linalg", "lstm", "math",
    "name_scope", "nn", "numpy", "random", "random_seed_dtype", "rnn", "scatter", "shape",
    "stop_gradient", "tensorboard", "vectorized_map",
]
