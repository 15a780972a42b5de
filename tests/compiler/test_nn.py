"""`tfn.nn` against direct NumPy formulas and, for derivatives, known values."""

import math
from itertools import product

import numpy as np
import pytest

import tfn.compiler.nn as nn
import tfn.compiler.numpy as tnp
from tfn.compiler.codegen.target import Target
from tfn.compiler.errors import OpError
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dims import Dim
from tfn.compiler.ir.dtypes import BF16, F32, F64, as_dtype
from tfn.compiler.passes.inline import inline
from tfn.compiler.trace.batch import vmap
from tfn.compiler.trace.core import trace
from tfn.compiler.trace.grad import grad, vjp
from tfn.compiler.trace.jit import jit

RNG = np.random.default_rng(0)
X = np.float32([-120, -3, -1, -0.5, 0, 0.25, 1, 2.5, 6, 7, 120])


def random(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def _sigmoid(x):
    return np.where(x > 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(
        x))))


def _softmax(x, axis=-1):
    grown = np.exp(x - x.max(axis, keepdims=True))
    return grown / grown.sum(axis, keepdims=True)


ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.2 * x),
    "sigmoid": _sigmoid,
    "log_sigmoid": lambda x: -np.logaddexp(0, -x),
    "tanh": np.tanh,
    "softplus": lambda x: np.logaddexp(0, x),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "silu": lambda x: x * _sigmoid(x),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "celu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "selu": lambda x: 1.05070098 * np.where(x > 0, x, 1.67326324 * np.expm1(np.minimum(x, 0))),
    "hard_sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "hard_silu": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "hard_tanh": lambda x: np.clip(x, -1, 1),
    "hard_shrink": lambda x: np.where(np.abs(x) > 0.5, x, 0),
    "soft_shrink": lambda x: np.sign(x) * np.maximum(np.abs(x) - 0.5, 0),
    "tanh_shrink": lambda x: x - np.tanh(x),
    "squareplus": lambda x: (x + np.sqrt(x * x + 4)) / 2,
    "sparse_sigmoid": lambda x: np.clip((x + 1) / 2, 0, 1),
    "softmax": _softmax,
    "log_softmax": lambda x: x - x.max() - np.log(np.exp(x - x.max()).sum()),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(engine, name):
    found = engine(getattr(nn, name), X)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, ACTIVATIONS[name](X.astype(np.float64)), rtol=2e-6,
                               atol=1e-6)


@pytest.mark.parametrize("name", [n for n in ACTIVATIONS if "softmax" not in n])
def test_slope_is_finite_and_that_of_the_function(name):
    slopes = np.asarray(grad(lambda x: getattr(nn, name)(x).sum())(X))
    assert np.isfinite(slopes).all()
    smooth = np.float64([-3.3, -0.8, 0.3, 2.2])
    step = 1e-6
    expected = (ACTIVATIONS[name](smooth + step) - ACTIVATIONS[name](smooth - step)) / (2 * step)
    found = grad(lambda x: getattr(nn, name)(x).sum())(smooth.astype(np.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_relu_has_slope_0_at_0_and_keeps_nan(engine):
    assert grad(lambda x: nn.relu(x).sum())(np.float32([0.0]))[0] == 0
    assert np.isnan(engine(nn.relu, np.float32(np.nan)))


@pytest.mark.parametrize("approximate", [True, False])
def test_gelu(engine, approximate):
    from math import erf, pi, sqrt, tanh

    expected = [0.5 * v * (1 + (tanh(sqrt(2 / pi) * (v + 0.044715 * v**3)) if approximate
                                else erf(v / sqrt(2)))) for v in X.tolist()]
    np.testing.assert_allclose(engine(lambda x: nn.gelu(x, approximate), X), expected, rtol=1e-5,
                               atol=1e-6)


@pytest.mark.parametrize("approximate", [True, False])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_gelu_of_narrow_floats_is_rounded_once(dtype, approximate):
    """Every finite number: half a unit in the last place, and what f32 may be off."""
    narrow = as_dtype(dtype).numpy
    x = np.arange(1 << 16, dtype=np.uint16).view(narrow)
    x = x[np.isfinite(x.astype(np.float32))]
    found = np.asarray(jit(lambda x: nn.gelu(x, approximate))(x))
    assert found.dtype == narrow
    wide = x.astype(np.float64)
    if approximate:
        with np.errstate(over="ignore"):
            true = wide / (1 + np.exp(-2 * np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3)))
    else:
        true = wide * np.array([math.erfc(-v * math.sqrt(0.5)) / 2 for v in wide])
    with np.errstate(over="ignore"):
        unit = np.spacing(np.abs(found)).astype(np.float64)
    assert (np.abs(found.astype(np.float64) - true) <= 0.51 * unit + 2e-9 * np.abs(wide)).all()


@pytest.mark.parametrize("approximate", [True, False])
def test_gelu_and_its_gradient_are_ops_where_code_is_made(approximate):
    """Batched, too; the formula stays for f64."""
    def both(x):
        y, pull = vjp(lambda v: nn.gelu(v, approximate), x)
        return [y, *pull(y)]

    for function, dtype, count in ((both, F32, 2), (vmap(both), F32, 2), (both, BF16, 2),
                                   (both, F64, 0)):
        traced, _ = trace(lambda x, f=function: list(f(x)), [TensorType((4, 8), dtype)])
        names = [op.name for op in inline(traced, Target.host()).ops]
        assert sum(name.startswith("tfn.gelu") for name in names) == count


@pytest.mark.parametrize("axis", [-1, 0, (0, 1)])
def test_softmax_over_axes(engine, axis):
    x = random(3, 4) * 50
    np.testing.assert_allclose(engine(lambda v: nn.softmax(v, axis), x), _softmax(x, axis),
                               rtol=1e-5)


def test_named_functions_are_composites():
    function, _ = trace(lambda x: [nn.softmax(x), nn.gelu(x), nn.log_softmax(x)],
                        [TensorType((Dim.named("batch"), 4), F32)])
    names = {op.attributes["name"] for op in function.ops if op.name == "stablehlo.composite"}
    assert names == {"tfn.softmax", "tfn.gelu", "tfn.log_softmax"}


def test_softmax_gradient():
    x, weight = random(3, 5), random(3, 5)
    found = grad(lambda v: (nn.softmax(v) * weight).sum())(x)
    y = _softmax(x)
    np.testing.assert_allclose(found, y * (weight - (y * weight).sum(-1, keepdims=True)),
                               rtol=1e-4, atol=1e-6)


def test_sparsemax(engine):
    found = engine(nn.sparsemax, np.float32([[0.5, 0.4, -2], [3, 0, 0]]))
    np.testing.assert_allclose(found, [[0.55, 0.45, 0], [1, 0, 0]], rtol=1e-5)


# -- convolution and pooling ----------------------------------------------------------------------

def _pads(padding, extents, windows, strides, dilations):
    if padding != "same":
        return [(0, 0)] * len(extents) if padding == "valid" else padding
    pairs = []
    for n, w, s, d in zip(extents, windows, strides, dilations, strict=True):
        total = max((-(-n // s) - 1) * s + (w - 1) * d + 1 - n, 0)
        pairs.append((total // 2, total - total // 2))
    return pairs


def _conv(x, kernel, strides, padding, dilations):
    """Convolution by its definition: one output element at a time."""
    rank = x.ndim - 2
    windows, per_group, features = kernel.shape[:rank], kernel.shape[-2], kernel.shape[-1]
    groups = x.shape[-1] // per_group
    pads = _pads(padding, x.shape[1:-1], windows, strides, dilations)
    x = np.pad(x.astype(np.float64), [(0, 0), *pads, (0, 0)])
    sizes = [(n - (w - 1) * d - 1) // s + 1
             for n, w, s, d in zip(x.shape[1:-1], windows, strides, dilations, strict=True)]
    out = np.zeros((x.shape[0], *sizes, features))
    for place in product(*map(range, sizes)):
        for offset in product(*map(range, windows)):
            at = tuple(p * s + o * d for p, s, o, d in zip(place, strides, offset, dilations,
                                                           strict=True))
            for f in range(features):
                g = f // (features // groups)
                channels = x[(slice(None), *at)][:, g * per_group:(g + 1) * per_group]
                out[(slice(None), *place, f)] += channels @ kernel[(*offset, slice(None), f)]
    return out


CONVOLUTIONS = {
    "plain": ((2, 6, 5, 3), (3, 2, 3, 4), 1, "valid", 1),
    "same": ((2, 6, 5, 3), (3, 2, 3, 4), 1, "same", 1),
    "strided": ((2, 7, 6, 3), (3, 3, 3, 4), (2, 3), "same", 1),
    "dilated": ((1, 8, 8, 2), (3, 2, 2, 3), 1, "same", (2, 3)),
    "groups": ((2, 5, 5, 6), (3, 3, 2, 9), 1, "valid", 1),
    "depthwise": ((2, 5, 5, 4), (3, 3, 1, 8), 2, "same", 1),
    "explicit": ((1, 5, 5, 2), (2, 2, 2, 3), 2, ((1, 0), (2, 3)), 1),
    "1-d": ((2, 9, 3), (4, 3, 5), 2, "same", 1),
    "3-d": ((1, 4, 5, 4, 2), (2, 3, 2, 2, 3), 1, "valid", 1),
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolution(engine, case):
    shape, kernel_shape, strides, padding, dilation = CONVOLUTIONS[case]
    x, kernel = random(*shape), random(*kernel_shape)
    count = len(shape) - 2
    full = [(v,) * count if isinstance(v, int) else v for v in (strides, dilation)]
    expected = _conv(x, kernel, full[0], padding, full[1])
    found = engine(lambda a, b: nn.conv(a, b, strides, padding, dilation), x, kernel)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    first = np.moveaxis(x, -1, 1)
    found = engine(lambda a, b: nn.conv(a, b, strides, padding, dilation, "channels_first"),
                   first, kernel)
    np.testing.assert_allclose(np.moveaxis(found, 1, -1), expected, rtol=1e-4, atol=1e-5)


def test_depthwise_and_separable_convolution(engine):
    x, depth, point = random(2, 5, 5, 3), random(3, 3, 3, 2), random(1, 1, 6, 4)
    grouped = depth.reshape(3, 3, 1, 6)
    expected = _conv(x, grouped, (1, 1), "same", (1, 1))
    np.testing.assert_allclose(engine(lambda a, b: nn.depthwise_conv(a, b, 1, "same"), x, depth),
                               expected, rtol=1e-4, atol=1e-5)
    found = engine(lambda a: nn.separable_conv(a, depth, point, 1, "same"), x)
    np.testing.assert_allclose(found, expected @ point[0, 0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("strides", [1, 2, (3, 2)])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_transposed_convolution_is_the_transpose(engine, strides, padding):
    kernel, y = random(3, 2, 5, 4), random(2, 4, 3, 4)
    s = (strides,) * 2 if isinstance(strides, int) else strides
    sizes = [n * k if padding == "same" else (n - 1) * k + max(w, k)
             for n, k, w in zip((4, 3), s, (3, 2), strict=True)]
    found = engine(lambda a, k: nn.conv_transpose(a, k, strides, padding), y, kernel)
    assert found.shape == (2, *sizes, 5)
    expected = grad(lambda v: (nn.conv(v, kernel, strides, padding) * y).sum())(
        np.zeros((2, *sizes, 5), np.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_transposed_convolution_with_output_padding(engine):
    y, kernel = random(1, 4, 2), random(3, 5, 2)
    for padding, size in (("valid", 3 * 2 + 3 + 1), ("same", 3 * 2 + 1 + 1)):
        found = engine(lambda a, p=padding: nn.conv_transpose(a, kernel, 2, p, output_padding=1),
                       y)
        assert found.shape == (1, size, 5)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("strides", [None, 1, (2, 1)])
def test_pooling(engine, padding, strides):
    x = random(2, 7, 6, 3)
    s = (3, 2) if strides is None else (strides,) * 2 if isinstance(strides, int) else strides
    pads = _pads(padding, (7, 6), (3, 2), s, (1, 1))
    wide = np.pad(x, [(0, 0), *pads, (0, 0)], constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(wide, (3, 2), (1, 2))[:, ::s[0], ::s[1]]
    for ours, theirs in ((nn.max_pool, np.nanmax), (nn.avg_pool, np.nanmean)):
        found = engine(lambda v, f=ours: f(v, (3, 2), strides, padding), x)
        np.testing.assert_allclose(found, theirs(windows, (-2, -1)), rtol=1e-5, atol=1e-6)


def test_max_pool_gradient_goes_to_the_maximum():
    x = np.float32([1, 3, 2, 0, 5, 4]).reshape(1, 6, 1)
    found = grad(lambda v: (nn.max_pool(v, 2) * np.float32([1, 2, 3]).reshape(1, 3, 1)).sum())(x)
    np.testing.assert_array_equal(np.ravel(found), [0, 1, 2, 0, 3, 0])


def test_convolution_errors_name_the_shapes():
    with pytest.raises(OpError, match=r"has 3 channels, no multiple of the kernel's 2"):
        nn.conv(random(1, 5, 5, 3), random(2, 2, 2, 4))
    with pytest.raises(OpError, match="of equal rank"):
        nn.conv(random(1, 5, 3), random(2, 2, 3, 4))
    with pytest.raises(OpError, match="'valid', 'same' or pairs"):
        nn.conv(random(1, 5, 3), random(2, 3, 4), padding="full")


def test_symbolic_batch():
    batch = Dim.named("batch")

    def program(x):
        y = nn.conv(x, np.ones((3, 3, 2, 4), np.float32), 2, "same")
        return [y, nn.max_pool(y, 2), nn.avg_pool(y, 3, 1, "same"), nn.moments(x, (0, 1, 2))[1],
                nn.softmax(y), nn.dot_product_attention(x, x, x)]

    function, _ = trace(program, [TensorType((batch, 8, 8, 2), F32)])
    assert [t.shape for t in function.result_types] == [
        (batch, 4, 4, 4), (batch, 2, 2, 4), (batch, 4, 4, 4), (2,), (batch, 4, 4, 4),
        (batch, 8, 8, 2)]


# -- normalisation, attention, losses -------------------------------------------------------------

def test_moments_and_batch_normalization(engine):
    x, scale, offset = random(4, 3, 5) * 3 + 2, random(5), random(5)
    mean, variance = engine(lambda v: nn.moments(v, (0, 1)), x)
    np.testing.assert_allclose(mean, x.mean((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(variance, x.var((0, 1)), rtol=1e-5)
    found = engine(lambda v: nn.batch_normalization(v, mean, variance, -1, offset, scale), x)
    expected = (x - mean) / np.sqrt(variance + 1e-3) * scale + offset
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_moments_of_f16_do_not_overflow(engine):
    mean, variance = engine(lambda v: nn.moments(v, 0), np.float16([300, 301, 299] * 1000))
    assert (float(mean), round(float(variance), 2)) == (300, 0.67)


def test_layer_and_rms_normalization(engine):
    x, scale = random(3, 6), random(6)
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-3) * scale
    np.testing.assert_allclose(engine(lambda v: nn.layer_normalization(v, scale), x), expected,
                               rtol=1e-4, atol=1e-5)
    expected = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * scale
    np.testing.assert_allclose(engine(lambda v: nn.rms_normalization(v, scale), x), expected,
                               rtol=1e-4)


@pytest.mark.parametrize("groups", [4, 2])
@pytest.mark.parametrize("variant", ["plain", "mask", "bias", "causal"])
def test_attention(engine, groups, variant):
    q, k, v = random(2, 5, 4, 8), random(2, 5, groups, 8), random(2, 5, groups, 8)
    bias, mask = random(2, 1, 5, 5), RNG.random((2, 1, 5, 5)) > 0.4
    mask[..., 0] = True
    given = {"mask": {"mask": mask}, "bias": {"bias": bias}, "causal": {"is_causal": True}}.get(
        variant, {})
    found = engine(lambda a, b, c: nn.dot_product_attention(a, b, c, **given), q, k, v)
    scores = np.einsum("btnh,bsnh->bnts", q, np.repeat(k, 4 // groups, 2)) / np.sqrt(8)
    scores = {"mask": lambda: np.where(mask, scores, -np.inf), "bias": lambda: scores + bias,
              "causal": lambda: np.where(np.tri(5, dtype=bool), scores, -np.inf)}.get(
                  variant, lambda: scores)()
    expected = np.einsum("bnts,bsnh->btnh", _softmax(scores), np.repeat(v, 4 // groups, 2))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_attention_with_a_soft_cap(engine):
    q, k, v = (random(2, 5, 4, 8) * 4 for _ in range(3))
    mask = RNG.random((2, 1, 5, 5)) > 0.4
    mask[..., 0] = True
    found = engine(lambda a, b, c: nn.dot_product_attention(a, b, c, mask=mask, soft_cap=3.0), q, k, v)
    scores = 3 * np.tanh(np.einsum("btnh,bsnh->bnts", q, k) / np.sqrt(8) / 3)
    expected = np.einsum("bnts,bsnh->btnh", _softmax(np.where(mask, scores, -np.inf)), v)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(OpError, match="soft_cap must be above 0, got 0"):
        nn.dot_product_attention(q, k, v, soft_cap=0)


def test_cross_entropies(engine):
    logits = np.float32([[2, -1, 100], [0, 0, 0], [-100, 3, 5]])
    labels = np.array([0, 2, 1])
    logp = logits - logits.max(-1, keepdims=True)
    logp = logp - np.log(np.exp(logp).sum(-1, keepdims=True))
    found = engine(nn.sparse_softmax_cross_entropy, logits, labels)
    np.testing.assert_allclose(found, -logp[np.arange(3), labels], rtol=1e-5)
    found = engine(lambda x: nn.softmax_cross_entropy(x, np.eye(3, dtype=np.float32)[labels]),
                   logits)
    np.testing.assert_allclose(found, -logp[np.arange(3), labels], rtol=1e-5)
    targets = np.float32([[1, 0, 1]])
    p = _sigmoid(logits.astype(np.float64))
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = np.where(targets == 1, -np.log(p), np.logaddexp(0, logits.astype(np.float64)))
    np.testing.assert_allclose(engine(lambda x: nn.sigmoid_cross_entropy(x, targets), logits),
                               expected, rtol=1e-5, atol=1e-6)


def test_cross_entropy_gradient_is_probability_minus_target():
    logits, labels = random(4, 5), np.array([0, 4, 2, 2])
    found = grad(lambda x: nn.sparse_softmax_cross_entropy(x, labels).sum())(logits)
    np.testing.assert_allclose(found, _softmax(logits) - np.eye(5)[labels], rtol=1e-4, atol=1e-6)


def test_embedding(engine):
    table = random(7, 3)
    ids = np.array([[0, 6], [3, 99]])
    np.testing.assert_array_equal(engine(nn.embedding, table, ids),
                                  table[np.minimum(ids, 6)])
    found = grad(lambda t: tnp.sum(nn.embedding(t, np.array([1, 1, 5]))))(table)
    np.testing.assert_array_equal(found[:, 0], [0, 2, 0, 0, 0, 1, 0])


# -- rearranging space ----------------------------------------------------------------------------

@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_depth_and_space_are_inverse(engine, data_format):
    x = random(2, 4, 6, 3) if data_format == "channels_last" else random(2, 3, 4, 6)
    deep = engine(lambda v: nn.space_to_depth(v, 2, data_format), x)
    channel = 3 if data_format == "channels_last" else 1
    assert deep.shape[channel] == 12
    last = np.moveaxis(x, channel, -1)
    np.testing.assert_array_equal(np.moveaxis(deep, channel, -1)[0, 1, 2, 3:6], last[0, 2, 5])
    np.testing.assert_array_equal(engine(lambda v: nn.depth_to_space(v, 2, data_format), deep), x)


def test_unfold_and_fold_are_transposes(engine):
    x = random(2, 3, 6, 7)
    options = {"dilation": (1, 2), "padding": 1, "stride": (2, 1)}
    patches = engine(lambda v: nn.unfold(v, (2, 3), **options), x)
    wide = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    np.testing.assert_array_equal(patches[0, :6, 6], wide[0, 0, 2:4, 1:6:2].ravel())
    y = random(*patches.shape)
    folded = engine(lambda v: nn.fold(v, (6, 7), (2, 3), **options), y)
    np.testing.assert_allclose((folded * x).sum(), (patches * y).sum(), rtol=1e-4)


def test_adaptive_pooling(engine):
    x = random(2, 7, 5, 3)
    for ours, theirs in ((nn.adaptive_average_pool, np.mean), (nn.adaptive_max_pool, np.max)):
        found = engine(lambda v, f=ours: f(v, (3, 2)), x)
        assert found.shape == (2, 3, 2, 3)
        np.testing.assert_allclose(found[:, 1, 1], theirs(x[:, 2:5, 2:5], (1, 2)), rtol=1e-5,
                                   atol=1e-6)


def test_multi_hot(engine):
    np.testing.assert_array_equal(engine(lambda i: nn.multi_hot(i, 4), np.array([[0, 2], [1, 1]])),
                                  [[1, 0, 1, 0], [0, 1, 0, 0]])


def test_psnr(engine):
    x = random(4, 4)
    found = engine(lambda v: nn.psnr(v, v + 0.1, 1.0), x)
    np.testing.assert_allclose(found, 20, rtol=1e-4)
