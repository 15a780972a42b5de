"""Compiled products and convolutions against NumPy in f64, over shapes that leave remainders."""

import numpy as np
import pytest

import tfn.compiler.numpy as tnp
from tfn.compiler import nn
from tfn.compiler.compile import compile_function
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dims import Dim
from tfn.compiler.ir.dtypes import F32, as_dtype
from tfn.compiler.ir.evaluator import evaluate
from tfn.compiler.ir.parser import parse_module
from tfn.compiler.trace.core import trace
from tfn.compiler.trace.grad import grad

RNG = np.random.default_rng(2)
BATCH = Dim.named("batch")


def random(*shape, dtype=np.float32):
    return RNG.normal(size=shape).astype(dtype)


def compiled(program, *arrays, symbolic=()):
    types = [TensorType((BATCH, *a.shape[1:]) if i in symbolic else a.shape, as_dtype(a.dtype))
             for i, a in enumerate(arrays)]
    return compile_function(trace(program, types)[0])


ROWS = [0, 1, 2, 5, 6, 7, 12, 13, 24, 25]
COLUMNS = [1, 3, 8, 15, 16, 17, 31, 32, 48, 63, 64, 65, 80, 96, 129]


@pytest.mark.parametrize("columns", COLUMNS)
def test_products_of_every_remainder(columns):
    """A symbolic batch makes the rows a run-time size, a fixed one makes them constants."""
    w = random(19, columns)
    any_rows = compiled(lambda x, w: [x @ w], random(4, 19), w, symbolic=(0,))
    for rows in ROWS:
        x = random(rows, 19)
        wide = x.astype(np.float64) @ w
        for executable in (any_rows, compiled(lambda w, x: [tnp.transpose(w) @ tnp.transpose(x)],
                                              w, x)):
            found = executable(x, w)[0] if executable is any_rows else executable(w, x)[0].T
            np.testing.assert_allclose(found, wide, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16", "int32", "uint8", "bool"])
def test_products_of_other_types(dtype):
    import ml_dtypes  # noqa: F401  (registers bfloat16)

    x, w = (RNG.integers(0, 4, s).astype(np.dtype(dtype)) for s in ((7, 9), (9, 21)))
    found = compiled(lambda x, w: [x @ w], x, w)(x, w)[0]
    assert found.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(found.astype(np.float64), (x @ w).astype(np.float64))


def test_a_row_has_the_same_bits_in_every_batch():
    w = random(40, 150)
    executable = compiled(lambda x, w: [x @ w], random(4, 40), w, symbolic=(0,))
    x = random(31, 40)
    whole = executable(x, w)[0]
    for i in (0, 5, 30):
        np.testing.assert_array_equal(executable(x[i:i + 1], w)[0][0], whole[i])


@pytest.mark.parametrize("expression", ["bij,bjk->bik", "bij,bkj->bik", "bji,bjk->bik", "ij,kj->ki",
                                        "abc,cd->abd", "bhqd,bhkd->bhqk", "i,j->ij", "ij,ij->"])
def test_einsum_layouts(expression):
    sizes = dict(zip("abcdhijkq", (3, 4, 5, 33, 2, 7, 20, 17, 6), strict=True))
    first, second = expression.split("->")[0].split(",")
    x, y = (random(*[sizes[c] for c in term]) for term in (first, second))
    found = compiled(lambda x, y: [tnp.einsum(expression, x, y)], x, y)(x, y)[0]
    wide = np.einsum(expression, x.astype(np.float64), y.astype(np.float64))
    np.testing.assert_allclose(found, wide, rtol=1e-4, atol=1e-4)


CONVOLUTIONS = [
    dict(strides=1, padding="same"), dict(strides=2, padding="same"),
    dict(strides=1, padding="valid"), dict(strides=2, padding="valid"),
    dict(strides=1, padding="same", dilation=2),
]


@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("channels", [6, 36])
def test_convolutions_and_their_gradients(options, groups, channels):
    """The evaluator is the oracle: it is itself tested against JAX."""
    x = random(5, 9, 8, 6)
    w = random(3, 3, 6 // groups, channels)

    def loss(x, w):
        return tnp.sum(tnp.tanh(nn.conv(x, w, **options) * 0.2))

    def program(x, w):
        return [nn.conv(x, w, **options), *grad(loss, argnums=(0, 1))(x, w)]

    function, _ = trace(program, [TensorType(a.shape, F32) for a in (x, w)])
    for a, b in zip(compile_function(function)(x, w), evaluate(function, [x, w]), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4)


def test_a_convolution_over_any_batch():
    w = random(3, 3, 2, 5)
    executable = compiled(lambda x, w: [nn.conv(x, w, padding="same")], random(2, 6, 6, 2), w,
                          symbolic=(0,))
    x = random(7, 6, 6, 2)
    whole = executable(x, w)[0]
    np.testing.assert_array_equal(executable(x[3:4], w)[0][0], whole[3])


def test_a_convolution_of_nothing_with_negative_padding():
    function = parse_module("""func.func @main(%x: tensor<2x5x0x8xf32>, %w: tensor<3x1x8x4xf32>)
        -> tensor<2x3x0x4xf32> {
      %0 = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
        window = {pad = [[0, 0], [-1, 0]]} {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
        : (tensor<2x5x0x8xf32>, tensor<3x1x8x4xf32>) -> tensor<2x3x0x4xf32>
      return %0 : tensor<2x3x0x4xf32>
    }""")["main"]
    (found,) = compile_function(function)(np.zeros((2, 5, 0, 8), np.float32), random(3, 1, 8, 4))
    assert found.shape == (2, 3, 0, 4)
