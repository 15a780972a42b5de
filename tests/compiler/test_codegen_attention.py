"""The kernels of attention, forward and backward, against attention written out in double precision."""

import ml_dtypes
import numpy as np
import pytest

from tfn.compiler import nn
from tfn.compiler.codegen.target import Target
from tfn.compiler.compile import compile_function, run_passes
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dims import Dim
from tfn.compiler.ir.dtypes import F32, as_dtype
from tfn.compiler.ir.evaluator import evaluate
from tfn.compiler.passes.inline import inline
from tfn.compiler.runtime.cache import KERNELS
from tfn.compiler.trace.core import trace
from tfn.compiler.trace.grad import grad, vjp
from tfn.compiler.trace.jit import jit

RNG = np.random.default_rng(5)


def random(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def attention(q, k, v, bias=None, mask=None, causal=False, ct=None):
    """The result, or the cotangents of query, key and value, in double precision."""
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    repeats, groups = q.shape[2] // k.shape[2], k.shape[2]
    wide_k, wide_v = (np.repeat(x, repeats, 2) for x in (k, v))
    scale = 1 / np.sqrt(q.shape[-1])
    scores = np.einsum("bthd,bshd->bhts", q, wide_k) * scale
    scores = scores if bias is None else scores + bias
    allowed = np.ones(scores.shape, bool) if mask is None else np.broadcast_to(mask, scores.shape)
    if causal:
        allowed = allowed & np.tri(*scores.shape[-2:], dtype=bool)
    scores = np.where(allowed, scores, -1e38)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    if ct is None:
        return np.einsum("bhts,bshd->bthd", weights, wide_v)
    slopes = np.einsum("bthd,bshd->bhts", ct, wide_v)
    slopes = weights * (slopes - (weights * slopes).sum(-1, keepdims=True)) * scale * allowed

    def grouped(x):
        b, s, _, d = x.shape
        return x.reshape(b, s, groups, repeats, d).sum(3)

    return (np.einsum("bhts,bshd->bthd", slopes, wide_k),
            grouped(np.einsum("bhts,bthd->bshd", slopes, q)),
            grouped(np.einsum("bhts,bthd->bshd", weights, ct)))


def kernels(program, *arrays):
    """The ops of a program that are kernels of attention."""
    types = [TensorType(a.shape, as_dtype(a.dtype)) for a in arrays]
    function, _ = trace(lambda *a: list(program(*a)), types)
    fused = run_passes(function, Target.host())
    return [inner.name for op in fused.ops for region in op.regions for inner in region.ops
            if inner.name.startswith("tfn.attention")]


CASES = {
    "square": ((2, 64, 4, 16), (2, 64, 4, 16), {}),
    "causal": ((1, 130, 2, 64), (1, 130, 2, 64), {"causal": True}),
    "odd sizes": ((2, 71, 3, 7), (2, 53, 3, 7), {}),
    "one query": ((3, 1, 4, 20), (3, 300, 2, 20), {}),
    "wide heads": ((1, 33, 1, 150), (1, 40, 1, 150), {}),
    "grouped, causal, more keys": ((1, 50, 6, 24), (1, 97, 3, 24), {"causal": True}),
    "long": ((1, 20, 1, 8), (1, 1500, 1, 8), {}),
    "padding mask": ((2, 40, 2, 16), (2, 40, 2, 16), {"mask": (2, 1, 1, 40)}),
    "mask of all, causal": ((2, 40, 2, 16), (2, 40, 2, 16), {"mask": (1, 2, 40, 40), "causal": True}),
    "mask without heads": ((2, 40, 2, 16), (2, 30, 2, 16), {"mask": (40, 30)}),
}


def arguments(name):
    query, key, given = CASES[name]
    arrays = [random(*query), random(*key), random(*key)]
    mask = given.get("mask")
    if mask is not None:
        drawn = RNG.random(mask) < 0.7
        drawn[..., 0] = True
        arrays.append(drawn)
    return arrays, {"is_causal": given.get("causal", False)}


@pytest.mark.parametrize("name", CASES)
def test_forward(name):
    arrays, given = arguments(name)

    def program(q, k, v, mask=None):
        return (nn.dot_product_attention(q, k, v, mask=mask, **given),)

    expected = attention(*arrays[:3], mask=arrays[3] if arrays[3:] else None, causal=given["is_causal"])
    np.testing.assert_allclose(np.asarray(jit(program)(*arrays)[0]), expected, rtol=1e-5, atol=3e-6)
    assert kernels(program, *arrays) == ["tfn.attention"]


@pytest.mark.parametrize("name", CASES)
def test_backward(name):
    arrays, given = arguments(name)
    ct = random(*arrays[0].shape)

    def program(ct, q, k, v, mask=None):
        _, pull = vjp(lambda *x: nn.dot_product_attention(*x, mask=mask, **given), q, k, v)
        return pull(ct)

    found = jit(program)(ct, *arrays)
    expected = attention(*arrays[:3], mask=arrays[3] if arrays[3:] else None,
                         causal=given["is_causal"], ct=ct)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.asarray(one), other, rtol=2e-5,
                                   atol=1e-5 * max(1, np.abs(other).max()))
    assert kernels(program, ct, *arrays) == ["tfn.attention_backward"]


@pytest.mark.parametrize("shape", [(2, 3, 40, 40), (1, 1, 40, 40), (40, 1)])
def test_bias(shape):
    (q, k, v), bias = (random(2, 40, 3, 16) for _ in range(3)), random(*shape)
    found = jit(lambda *a: nn.dot_product_attention(*a))(q, k, v, bias)
    np.testing.assert_allclose(np.asarray(found), attention(q, k, v, bias), rtol=1e-5, atol=3e-6)
    # The derivative by the bias is that of the decomposition.
    slope = jit(grad(lambda bias: nn.dot_product_attention(q, k, v, bias).sum()))(bias)
    assert slope.shape == bias.shape


def test_a_row_that_may_look_at_nothing_weighs_all_keys_alike():
    q, k, v = (random(1, 32, 1, 8) for _ in range(3))
    mask = np.ones((1, 1, 32, 32), bool)
    mask[..., 5, :] = False
    found = np.asarray(jit(lambda q, k, v, m: nn.dot_product_attention(q, k, v, mask=m))(q, k, v, mask))
    np.testing.assert_allclose(found[0, 5, 0], v[0, :, 0].mean(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 2e-2), ("float16", 3e-3),
                                                  ("float64", 1e-12)])
def test_other_types(dtype, tolerance):
    dtype = np.dtype(getattr(ml_dtypes, dtype, dtype))
    q, k, v, ct = (random(2, 50, 2, 24).astype(dtype) for _ in range(4))

    def program(q, k, v, ct):
        result, pull = vjp(lambda *x: nn.dot_product_attention(*x), q, k, v)
        return result, *pull(ct)

    assert kernels(program, q, k, v, ct) == ["tfn.attention", "tfn.attention_backward"]
    found = jit(program)(q, k, v, ct)
    wide = [x.astype(np.float64) for x in (q, k, v, ct)]
    expected = (attention(*wide[:3]), *attention(*wide[:3], ct=wide[3]))
    for one, other in zip(found, expected, strict=True):
        assert np.asarray(one).dtype == dtype
        np.testing.assert_allclose(np.asarray(one).astype(np.float64), other, rtol=tolerance,
                                   atol=tolerance)


def test_a_new_batch_size_compiles_nothing_and_changes_no_bit():
    n = Dim.named("n")

    def program(q, k, v):
        _, pull = vjp(lambda *x: nn.dot_product_attention(*x, is_causal=True), q, k, v)
        return [nn.dot_product_attention(q, k, v, is_causal=True), *pull(q)]

    function, _ = trace(program, [TensorType((n, 60, 2, 16), F32)] * 3)
    executable = compile_function(function)
    arrays = [random(7, 60, 2, 16) for _ in range(3)]
    whole = executable(*arrays)
    made = KERNELS.statistics.compiled
    part = executable(*[a[3:5] for a in arrays])
    for one, other in zip(part, whole, strict=True):
        assert one.tobytes() == other[3:5].tobytes()
    jit(lambda *a: tuple(program(*a)))(*[a[:1] for a in arrays])
    assert KERNELS.statistics.compiled == made


def test_memory_grows_with_the_length_not_its_square():
    def peak(length):
        function, _ = trace(lambda q: [nn.dot_product_attention(q * 2, q, q) + 1],
                            [TensorType((1, length, 1, 16), F32)])
        return compile_function(function).peak_bytes()

    assert peak(8192) < 2.2 * peak(4096)


def test_small_attention_and_the_evaluator_use_the_decomposition():
    small = [random(2, 5, 2, 4) for _ in range(3)]
    assert kernels(lambda *a: (nn.dot_product_attention(*a),), *small) == []
    function, _ = trace(lambda *a: [nn.dot_product_attention(*a)],
                        [TensorType((2, 40, 2, 4), F32)] * 3)
    assert not [op for op in inline(function).ops if op.name.startswith("tfn.")]
    large = [random(2, 40, 2, 4) for _ in range(3)]
    (found,) = evaluate(function, large)
    np.testing.assert_allclose(found, attention(*large), rtol=1e-5, atol=1e-6)


def test_the_second_derivative():
    q, k, v = (random(1, 20, 1, 4) for _ in range(3))

    def slope(q):
        return grad(lambda x: (nn.dot_product_attention(x, k, v) ** 2).sum())(q)

    step = 1e-2 * random(*q.shape)
    along = np.asarray(jit(grad(lambda x: (slope(x) * step).sum()))(q))
    change = (np.asarray(slope(q + step)) - np.asarray(slope(q - step))) / 2
    np.testing.assert_allclose(along, change, atol=2e-3 * np.abs(change).max())
