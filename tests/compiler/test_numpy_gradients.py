"""Gradients of `tfn.numpy` and `tfn.nn` functions against finite differences in f64."""

import numpy as np
import pytest

import tfn.compiler.nn as nn
import tfn.compiler.numpy as tnp
from tfn.compiler.trace.grad import grad

X = np.random.default_rng(0).uniform(0.2, 2.0, (3, 4))
Y = np.random.default_rng(1).uniform(0.2, 2.0, (3, 4))
IMAGE = np.random.default_rng(2).normal(size=(2, 5, 6, 3))
KERNEL = np.random.default_rng(3).normal(size=(3, 2, 3, 4))

FUNCTIONS = {
    "mean": lambda x: tnp.mean(x, 0), "var": lambda x: tnp.var(x, 1), "std": lambda x: tnp.std(x),
    "prod": lambda x: tnp.prod(x, 1), "max": lambda x: tnp.max(x, 1), "min": tnp.min,
    "logsumexp": lambda x: tnp.logsumexp(x, 1), "cumsum": lambda x: tnp.cumsum(x, 1),
    "long cumsum": lambda x: tnp.cumsum(tnp.tile(x, (1, 20)), 1),
    "sort": lambda x: tnp.sort(x, 0), "median": lambda x: tnp.median(x, 1),
    "norm": lambda x: tnp.norm(x, axis=1), "p-norm": lambda x: tnp.norm(x, 3, 1),
    "einsum": lambda x: tnp.einsum("ij,kj,il->kl", x, x, x),
    "einsum diagonal": lambda x: tnp.einsum("ii->i", x[:, :3]),
    "matmul": lambda x: x @ x.T, "outer": lambda x: tnp.outer(x[0], x[1]),
    "batched matmul": lambda x: tnp.matmul(x[None, :, :2], x.reshape(1, 3, 4)[:, :2]),
    "power": lambda x: x ** Y, "power of 3": lambda x: x ** 3, "power of -2": lambda x: x ** -2,
    "to the": lambda x: 2.0 ** x, "divide": lambda x: Y / x, "mod": lambda x: tnp.mod(x, 0.7),
    "arctan2": lambda x: tnp.arctan2(x, Y), "hypot": lambda x: tnp.hypot(x, Y),
    "logaddexp": lambda x: tnp.logaddexp(x, Y), "arcsin": lambda x: tnp.arcsin(x / 3),
    "arccos": lambda x: tnp.arccos(x / 3), "sinh": tnp.sinh, "cosh": tnp.cosh,
    "arcsinh": tnp.arcsinh, "arccosh": lambda x: tnp.arccosh(x + 1), "cbrt": tnp.cbrt,
    "arctanh": lambda x: tnp.arctanh(x / 3), "erf": tnp.erf, "rsqrt": tnp.rsqrt,
    "erf_inv": lambda x: tnp.erf_inv(x / 3), "log1p": tnp.log1p, "expm1": tnp.expm1,
    "tan": lambda x: tnp.tan(x / 2), "sinc": tnp.sinc, "log2": tnp.log2,
    "clip": lambda x: tnp.clip(x, 0.5, 1.5), "maximum": lambda x: tnp.maximum(x, Y),
    "where": lambda x: tnp.where(x > 1, x * x, -x), "abs": lambda x: tnp.abs(x - 1),
    "slice": lambda x: x[1:, ::2], "reverse": lambda x: x[::-1, 3:0:-1],
    "index": lambda x: x[np.array([0, 0, 2]), np.array([1, 1, 3])],
    "take": lambda x: tnp.take(x, np.array([[0, 3], [3, 3]]), 1),
    "take_along_axis": lambda x: tnp.take_along_axis(x, np.array([[0, 0, 3]] * 3), 1),
    "set": lambda x: x.at[1:, 0].set(x[0, :2]), "add": lambda x: x.at[np.array([0, 0])].add(x[2]),
    "set step": lambda x: x.at[:, ::2].set(x[:, :2] ** 2),
    "dynamic_slice": lambda x: tnp.dynamic_slice(x, (1, 1), (2, 2)),
    "pad": lambda x: tnp.pad(x, 1), "pad reflect": lambda x: tnp.pad(x, 2, "reflect"),
    "pad edge": lambda x: tnp.pad(x, 2, "edge"), "roll": lambda x: tnp.roll(x, 1, 1),
    "repeat": lambda x: tnp.repeat(x, 2, 1), "tile": lambda x: tnp.tile(x, (2, 1)),
    "concatenate": lambda x: tnp.concatenate([x, x * x], 1),
    "stack": lambda x: tnp.stack([x, 2 * x]),
    "split": lambda x: tnp.split(x, 2, 1)[1], "transpose": lambda x: x.T * Y.T,
    "diagonal": lambda x: tnp.diagonal(x, 1), "diag": lambda x: tnp.diag(x[0]), "tril": tnp.tril,
    "segment_sum": lambda x: tnp.segment_sum(x, np.array([1, 0, 1])),
    "broadcast": lambda x: x[:, :1] * Y, "cov": tnp.cov, "nanmean": tnp.nanmean,
    "average": lambda x: tnp.average(x, 1, Y), "cross": lambda x: tnp.cross(x[:, :3], Y[:, 1:]),
    "softmax": nn.softmax, "log_softmax": lambda x: nn.log_softmax(x, 0), "gelu": nn.gelu,
    "gelu erf": lambda x: nn.gelu(x, False), "softplus": nn.softplus, "silu": nn.silu,
    "selu": lambda x: nn.selu(x - 1), "layer_normalization": nn.layer_normalization,
    "rms_normalization": nn.rms_normalization,
    "moments": lambda x: nn.moments(x, 0)[1],
    "attention": lambda x: nn.dot_product_attention(*[x.reshape(1, 3, 2, 2)] * 3, is_causal=True),
    "cross-entropy": lambda x: nn.softmax_cross_entropy(x, Y),
    "sigmoid cross-entropy": lambda x: nn.sigmoid_cross_entropy(x, Y),
}
IMAGE_FUNCTIONS = {
    "conv": lambda x: nn.conv(x, KERNEL), "conv same": lambda x: nn.conv(x, KERNEL, 2, "same"),
    "conv dilated": lambda x: nn.conv(x, KERNEL, 1, "same", 2),
    "depthwise": lambda x: nn.depthwise_conv(x, KERNEL, 1, "same"),
    "conv_transpose": lambda x: nn.conv_transpose(x, np.swapaxes(KERNEL, 2, 3)[:, :, :, :3], 2,
                                                  "same"),
    "max_pool": lambda x: nn.max_pool(x, 2),
    "max_pool same": lambda x: nn.max_pool(x, 3, 2, "same"),
    "avg_pool": lambda x: nn.avg_pool(x, 3, 2, "same"), "unfold": lambda x: nn.unfold(x, 2),
    "space_to_depth": lambda x: nn.space_to_depth(x[:, :4], 2),
    "adaptive": lambda x: nn.adaptive_average_pool(x, 2),
    "batch_normalization": lambda x: nn.batch_normalization(
        x, *nn.moments(x, (0, 1, 2)), -1, np.ones(3), np.ones(3)),
}
KERNEL_FUNCTIONS = {
    "conv": lambda k: nn.conv(IMAGE, k), "conv same": lambda k: nn.conv(IMAGE, k, 2, "same"),
    "conv dilated": lambda k: nn.conv(IMAGE, k, 1, "same", (1, 2)),
    "groups": lambda k: nn.conv(np.tile(IMAGE, 2), k, 1, "same"),
    "depthwise": lambda k: nn.depthwise_conv(IMAGE, k, 2, "same"),
    "conv_transpose": lambda k: nn.conv_transpose(np.tile(IMAGE, 2)[..., :4], k, 2, "valid"),
}


def _check(function, x, places=12):
    """The slope along random places of `x` equals the central difference of a random readout."""
    rng = np.random.default_rng(7)
    weight = rng.normal(size=function(tnp.asarray(x)).shape)

    def readout(v):
        return tnp.sum(function(tnp.asarray(v)) * weight)

    slopes = np.asarray(grad(readout)(x))
    assert slopes.dtype == x.dtype
    assert slopes.shape == x.shape
    step = 1e-6
    for place in rng.choice(x.size, min(places, x.size), replace=False):
        change = np.zeros(x.size)
        change[place] = step
        change = change.reshape(x.shape)
        expected = (float(readout(x + change)) - float(readout(x - change))) / (2 * step)
        np.testing.assert_allclose(slopes.ravel()[place], expected, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradient(name):
    _check(FUNCTIONS[name], X)


@pytest.mark.parametrize("name", IMAGE_FUNCTIONS)
def test_gradient_of_an_image(name):
    _check(IMAGE_FUNCTIONS[name], IMAGE)


@pytest.mark.parametrize("name", KERNEL_FUNCTIONS)
def test_gradient_of_a_kernel(name):
    _check(KERNEL_FUNCTIONS[name], KERNEL)
