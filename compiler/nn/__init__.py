"""`tfn.nn`: neural-network functions over `tfn.numpy`: activations, convolution, pooling,
normalisation, attention, cross-entropies, embeddings."""

from ..numpy import one_hot, take
from .activation import (
    celu,
    elu,
    gelu,
    glu,
    hard_shrink,
    hard_sigmoid,
    hard_silu,
    hard_tanh,
    leaky_relu,
    log_sigmoid,
    log_softmax,
    relu,
    relu6,
    selu,
    sigmoid,
    silu,
    soft_shrink,
    softmax,
    softplus,
    softsign,
    sparse_plus,
    sparse_sigmoid,
    sparsemax,
    squareplus,
    swish,
    tanh,
    tanh_shrink,
    threshold,
)
from .attention import dot_product_attention
from .convolution import (
    average_pool,
    avg_pool,
    conv,
    conv_transpose,
    depthwise_conv,
    max_pool,
    same_padding,
    separable_conv,
)
from .ctc import ctc_beam_search_decode, ctc_greedy_decode, ctc_loss
from .loss import (
    pick,
    sigmoid_cross_entropy,
    softmax_cross_entropy,
    sparse_softmax_cross_entropy,
)
from .normalization import batch_normalization, layer_normalization, moments, rms_normalization
from .rearrange import (
    adaptive_average_pool,
    adaptive_max_pool,
    depth_to_space,
    fold,
    multi_hot,
    psnr,
    space_to_depth,
    unfold,
)
from .recurrent import gru, lstm, simple_rnn


def embedding(table, ids):
    """Rows of `table` (vocabulary, width) at integer `ids`; ids out of range are clamped."""
    return take(table, ids, 0)


__all__ = [
    "adaptive_average_pool", "adaptive_max_pool", "average_pool", "avg_pool",
    "batch_normalization", "celu", "conv", "conv_transpose", "ctc_beam_search_decode",
    "ctc_greedy_decode", "ctc_loss", "depth_to_space", "depthwise_conv",
    "dot_product_attention", "elu", "embedding", "fold", "gelu", "glu", "gru", "hard_shrink",
    "hard_sigmoid", "hard_silu", "hard_tanh", "layer_normalization", "leaky_relu", "log_sigmoid",
    "log_softmax", "lstm", "max_pool", "moments", "multi_hot", "one_hot", "pick", "psnr", "relu",
    "relu6", "rms_normalization", "same_padding", "selu", "separable_conv", "sigmoid",
    "sigmoid_cross_entropy", "silu", "simple_rnn", "soft_shrink", "softmax", "softmax_cross_entropy",
    "softplus", "softsign", "space_to_depth", "sparse_plus", "sparse_sigmoid",
    "sparse_softmax_cross_entropy", "sparsemax", "squareplus", "swish", "tanh", "tanh_shrink",
    "threshold", "unfold",
]
