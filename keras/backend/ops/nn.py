"""`keras.ops.nn` on tfn: thin over `tfn.nn`, with Keras's argument names."""

from __future__ import annotations

from keras.src import backend as _backend
from keras.src.backend import config
from keras.src.backend.common.dtypes import result_type
from keras.src.backend.config import standardize_data_format

from ....compiler import nn as tnn
from ....compiler import numpy as tnp
from .core import convert_to_tensor, refuse_sparse
from .operands import floating, together_floating
from .tables import declare

declare(globals(), "floating", tnn, """
    relu(x)
    relu6(x)
    sigmoid(x)
    sparse_sigmoid(x)
    tanh(x)
    tanh_shrink(x)
    softplus(x)
    softsign(x)
    soft_shrink(x, threshold=0.5)
    sparse_plus(x)
    silu(x)
    squareplus(x, b=4)
    log_sigmoid(x)
    leaky_relu(x, negative_slope=0.2)
    hard_sigmoid(x)
    hard_silu(x)
    elu(x, alpha=1.0)
    selu(x)
    gelu(x, approximate=True)
    celu(x, alpha=1.0)
    glu(x, axis=-1)
    hard_tanh(x)
    hard_shrink(x, threshold=0.5)
    threshold(x, threshold, default_value)
    softmax(x, axis=-1)
    log_softmax(x, axis=-1)
    sparsemax(x, axis=-1)
""")


# -- convolution and pooling ------------------------------------------------------------------------

def max_pool(inputs, pool_size, strides=None, padding="valid", data_format=None):
    return tnn.max_pool(convert_to_tensor(inputs), pool_size, strides, padding,
                        standardize_data_format(data_format))


def average_pool(inputs, pool_size, strides=None, padding="valid", data_format=None):
    return tnn.average_pool(floating(inputs), pool_size, strides, padding,
                            standardize_data_format(data_format))


def adaptive_average_pool(inputs, output_size, data_format=None):
    return tnn.adaptive_average_pool(floating(inputs), output_size,
                                     standardize_data_format(data_format))


def adaptive_max_pool(inputs, output_size, data_format=None):
    return tnn.adaptive_max_pool(convert_to_tensor(inputs), output_size,
                                 standardize_data_format(data_format))


def conv(inputs, kernel, strides=1, padding="valid", data_format=None, dilation_rate=1):
    return tnn.conv(convert_to_tensor(inputs), convert_to_tensor(kernel), strides, padding,
                    dilation_rate, standardize_data_format(data_format))


def depthwise_conv(inputs, kernel, strides=1, padding="valid", data_format=None, dilation_rate=1):
    return tnn.depthwise_conv(convert_to_tensor(inputs), convert_to_tensor(kernel), strides,
                              padding, dilation_rate, standardize_data_format(data_format))


def separable_conv(inputs, depthwise_kernel, pointwise_kernel, strides=1, padding="valid",
                   data_format=None, dilation_rate=1):
    return tnn.separable_conv(
        convert_to_tensor(inputs), convert_to_tensor(depthwise_kernel),
        convert_to_tensor(pointwise_kernel), strides, padding, dilation_rate,
        standardize_data_format(data_format))


def conv_transpose(inputs, kernel, strides=1, padding="valid", output_padding=None,
                   data_format=None, dilation_rate=1):
    return tnn.conv_transpose(
        convert_to_tensor(inputs), convert_to_tensor(kernel), strides, padding, dilation_rate,
        output_padding, standardize_data_format(data_format))


def unfold(x, kernel_size, dilation=1, padding=0, stride=1):
    return tnn.unfold(convert_to_tensor(x), kernel_size, dilation, padding, stride)


def fold(x, output_size, kernel_size, dilation=1, padding=0, stride=1):
    return tnn.fold(convert_to_tensor(x), output_size, kernel_size, dilation, padding, stride)


def depth_to_space(x, block_size, data_format="channels_last"):
    return tnn.depth_to_space(convert_to_tensor(x), block_size, data_format)


def space_to_depth(x, block_size, data_format="channels_last"):
    return tnn.space_to_depth(convert_to_tensor(x), block_size, data_format)


# -- encodings, normalisation, attention --------------------------------------------------------------

def one_hot(x, num_classes, axis=-1, dtype=None, sparse=False):
    refuse_sparse(sparse)
    return tnn.one_hot(convert_to_tensor(x, "int32"), num_classes, axis=axis,
                       dtype=dtype or config.floatx())


def multi_hot(x, num_classes, axis=-1, dtype=None, sparse=False):
    refuse_sparse(sparse)
    return tnn.multi_hot(convert_to_tensor(x, "int32"), num_classes, axis=axis,
                         dtype=dtype or config.floatx())


def moments(x, axes, keepdims=False, synchronized=False):
    """Mean and variance; under a distribution they are those of the global batch anyway."""
    x = convert_to_tensor(x)
    dtype = x.dtype.name
    # 16-bit sums overflow: accumulate in f32. What then overflows is the largest number.
    mean, variance = tnn.moments(x.astype("float32") if x.dtype.itemsize == 2 else x, axes,
                                 keepdims=keepdims)
    if dtype == "float16":
        limit = float(tnp.finfo(dtype).max)
        mean, variance = (tnp.clip(v, -limit, limit) for v in (mean, variance))
    return mean.astype(dtype), variance.astype(dtype)


def batch_normalization(x, mean, variance, axis, offset=None, scale=None, epsilon=1e-3):
    return tnn.batch_normalization(convert_to_tensor(x), mean, variance, axis=axis, offset=offset,
                                   scale=scale, epsilon=epsilon)


def psnr(x1, x2, max_val):
    return tnn.psnr(convert_to_tensor(x1), convert_to_tensor(x2), max_val)


def dot_product_attention(query, key, value, bias=None, mask=None, scale=None, is_causal=False,
                          flash_attention=None, attn_logits_soft_cap=None):
    query, key, value = together_floating(query, key, value)
    return tnn.dot_product_attention(query, key, value, bias=bias, mask=mask, scale=scale,
                                     is_causal=is_causal, soft_cap=attn_logits_soft_cap)


# -- losses -------------------------------------------------------------------------------------------

def _same_shape(name, target, output):
    if len(target.shape) != len(output.shape) or any(
            a != b for a, b in zip(target.shape, output.shape, strict=True)):
        raise ValueError(f"{name}: target and output must have the same shape, got"
                         f" {tuple(target.shape)} and {tuple(output.shape)}")


def _log_probabilities(output, from_logits, axis):
    """Log of class probabilities from logits, or from probabilities kept off 0 and 1."""
    if from_logits:
        return tnn.log_softmax(output, axis=axis)
    output = output / tnp.sum(output, axis=axis, keepdims=True)
    epsilon = _backend.epsilon()
    return tnp.log(tnp.clip(output, epsilon, 1.0 - epsilon))


def categorical_crossentropy(target, output, from_logits=False, axis=-1):
    target, output = convert_to_tensor(target), convert_to_tensor(output)
    _same_shape("categorical_crossentropy", target, output)
    return -tnp.sum(target * _log_probabilities(output, from_logits, axis), axis=axis)


def sparse_categorical_crossentropy(target, output, from_logits=False, axis=-1):
    target, output = convert_to_tensor(target, "int32"), convert_to_tensor(output)
    if len(target.shape) == len(output.shape) and target.shape[-1] == 1:
        target = tnp.squeeze(target, axis=-1)
    if tuple(target.shape) != tuple(
            d for i, d in enumerate(output.shape) if i != axis % output.ndim):
        raise ValueError("sparse_categorical_crossentropy needs labels of the shape of the output"
                         f" without its class axis, got labels {tuple(target.shape)} for output"
                         f" {tuple(output.shape)}")
    chosen = tnn.one_hot(target, output.shape[axis], axis=axis, dtype=output.dtype)
    return -tnp.sum(chosen * _log_probabilities(output, from_logits, axis), axis=axis)


def binary_crossentropy(target, output, from_logits=False):
    target, output = convert_to_tensor(target), convert_to_tensor(output)
    _same_shape("binary_crossentropy", target, output)
    if from_logits:
        # log(1 + exp(-|x|)) + max(x, 0) - x t never overflows.
        return (tnp.maximum(output, 0.0) - output * target
                + tnp.log1p(tnp.exp(-tnp.abs(output))))
    epsilon = _backend.epsilon()
    output = tnp.clip(output, epsilon, 1.0 - epsilon)
    return -(target * tnp.log(output) + (1.0 - target) * tnp.log(1.0 - output))


def ctc_loss(target, output, target_length, output_length, mask_index=0):
    return tnn.ctc_loss(convert_to_tensor(target, "int32"), floating(output),
                        convert_to_tensor(target_length, "int32"),
                        convert_to_tensor(output_length, "int32"), mask_index)


def ctc_decode(inputs, sequence_lengths, strategy="greedy", beam_width=100, top_paths=1,
               merge_repeated=True, mask_index=0):
    inputs = convert_to_tensor(inputs)
    inputs = inputs.astype(result_type(inputs.dtype, "float32"))
    lengths = convert_to_tensor(sequence_lengths, "int32")
    blank = inputs.shape[-1] - 1 if mask_index is None else mask_index
    if strategy == "greedy":
        return tnn.ctc_greedy_decode(inputs, lengths, merge_repeated, blank)
    if strategy == "beam_search":
        return tnn.ctc_beam_search_decode(inputs, lengths, beam_width, top_paths, blank)
    raise ValueError(f"Invalid strategy {strategy}. Supported values are 'greedy' and 'beam_search'.")
