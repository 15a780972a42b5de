"""Convolutions and their gradients: windows, dims, groups and channel counts that leave remainders, in
any batch, against the evaluator, which NumPy does in f64 and which is itself tested against JAX."""

import math
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import tfn.compiler.numpy as tnp
from tfn.compiler import nn
from tfn.compiler.codegen.target import Target
from tfn.compiler.compile import compile_function
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dims import Dim
from tfn.compiler.ir.dtypes import F32, F64, I32, I64, as_dtype
from tfn.compiler.ir.evaluator import evaluate
from tfn.compiler.ir.structs import ConvDimensionNumbers
from tfn.compiler.trace.core import bind, trace
from tfn.compiler.trace.grad import vjp
from tfn.compiler.trace.jit import jit

RNG = np.random.default_rng(7)
TOLERANCE = {"float32": 4e-6, "float64": 1e-13}
"""Of the largest element."""
BATCH = Dim.named("batch")


def random(*shape, dtype="float32"):
    return RNG.standard_normal(shape).astype(as_dtype(dtype).numpy)


def compiled(program, *arrays, symbolic=()):
    types = [TensorType((BATCH, *a.shape[1:]) if i in symbolic else a.shape, as_dtype(a.dtype))
             for i, a in enumerate(arrays)]
    function, _ = trace(program, types)
    return compile_function(function)


def check(program, *arrays):
    function, _ = trace(program, [TensorType(a.shape, as_dtype(a.dtype)) for a in arrays])
    wide, _ = trace(program, [TensorType(a.shape, as_dtype("float64")) for a in arrays])
    executable = compile_function(function)
    expected = evaluate(wide, [a.astype(np.float64) for a in arrays])
    for found, right in zip(executable(*arrays), expected, strict=True):
        assert found.shape == right.shape
        assert found.dtype == arrays[0].dtype
        error = np.abs(found - right).max(initial=0)
        assert error <= TOLERANCE[found.dtype.name] * max(np.abs(right).max(initial=0), 1)
    return executable


def with_gradients(**options):
    def program(x, w):
        y, back = vjp(lambda x, w: nn.conv(x, w, **options), x, w)
        return [y, *back(y)]

    return program


CASES = {
    "one pixel": ((3, 1, 1, 5), (1, 1, 5, 7), {}),
    "1x1": ((2, 9, 11, 40), (1, 1, 40, 70), {}),
    "1x1, stride 2": ((2, 9, 12, 40), (1, 1, 40, 33), dict(strides=2)),
    "same": ((3, 13, 17, 6), (3, 3, 6, 20), dict(padding="same")),
    "whole tiles": ((2, 14, 14, 16), (3, 3, 16, 64), dict(padding="same")),
    "two lines a tile": ((5, 7, 7, 16), (3, 3, 16, 32), dict(padding="same")),
    "zeros beside lines": ((2, 9, 28, 64), (3, 3, 64, 40), dict(padding="same")),
    "zeros beside lines, tiles overlap": ((2, 5, 31, 68), (3, 3, 68, 32), dict(padding="same")),
    "zeros beside lines, stride 2": ((2, 9, 28, 64), (3, 3, 64, 80), dict(padding=[(1, 1), (1, 1)],
                                                                         strides=2)),
    "zeros after lines": ((2, 4, 15, 72), (2, 2, 72, 96), dict(padding="same")),
    "1 KB pixels": ((2, 6, 8, 256), (3, 3, 256, 16), dict(padding="same")),
    "valid": ((2, 9, 30, 3), (3, 5, 3, 17), dict(padding="valid")),
    "stride 2, same": ((2, 17, 15, 8), (3, 3, 8, 36), dict(padding="same", strides=2)),
    "stride beyond the kernel": ((2, 16, 15, 8), (2, 2, 8, 5), dict(padding="valid", strides=3)),
    "strides differ": ((1, 16, 15, 8), (3, 2, 8, 5), dict(padding="same", strides=(1, 2))),
    "stem": ((2, 33, 33, 3), (7, 7, 3, 24), dict(padding="same", strides=2)),
    "stem, two lines a tile": ((3, 14, 14, 3), (7, 7, 3, 24), dict(padding="same", strides=2)),
    "four parts in two vectors": ((2, 17, 30, 6), (5, 3, 6, 8), dict(padding="same", strides=2)),
    "even kernel": ((2, 8, 9, 4), (4, 2, 4, 6), dict(padding="same")),
    "dilated": ((2, 17, 15, 8), (3, 3, 8, 36), dict(padding="same", dilation=2)),
    "many features": ((2, 9, 11, 40), (3, 3, 40, 36), dict(padding="same")),
    "many features, stride 2": ((2, 9, 12, 40), (3, 2, 40, 36), dict(padding="same", strides=2)),
    "many features, dilated": ((2, 9, 12, 40), (3, 2, 40, 36), dict(padding="valid", dilation=2)),
    "many features, negative": ((2, 9, 9, 33), (3, 3, 33, 32), dict(padding=[(-1, 2), (3, -2)])),
    "dilated and strided": ((2, 17, 15, 8), (3, 2, 8, 6), dict(padding="same", dilation=(3, 1),
                                                              strides=(1, 2))),
    "asymmetric": ((2, 6, 7, 5), (3, 3, 5, 6), dict(padding=[(0, 2), (3, 1)])),
    "negative": ((2, 9, 9, 5), (3, 3, 5, 6), dict(padding=[(-1, 2), (3, -2)])),
    "padding beyond the kernel": ((2, 4, 4, 3), (2, 2, 3, 4), dict(padding=[(5, 4), (3, 6)])),
    "groups": ((2, 9, 8, 12), (3, 3, 4, 18), dict(padding="same")),
    "strided groups": ((2, 9, 8, 12), (3, 3, 3, 40), dict(padding="same", strides=2)),
    "depthwise": ((2, 9, 8, 20), (3, 3, 1, 20), dict(padding="same")),
    "depthwise, stride 2": ((2, 15, 16, 33), (3, 3, 1, 33), dict(padding="same", strides=2)),
    "depthwise, dilated": ((2, 15, 16, 16), (3, 3, 1, 16), dict(padding="same", dilation=2)),
    "depthwise, 5x5": ((1, 7, 7, 48), (5, 5, 1, 48), dict(padding="same")),
    "depthwise, valid": ((1, 9, 23, 17), (2, 4, 1, 17), dict(padding="valid")),
    "depthwise, negative": ((2, 9, 9, 5), (3, 3, 1, 5), dict(padding=[(-1, 2), (3, -2)])),
    "depth multiplier": ((2, 9, 8, 5), (3, 3, 1, 15), dict(padding="same")),
    "1-d": ((3, 70, 9), (5, 9, 21), dict(padding="same")),
    "1-d, long": ((1, 3000, 40), (3, 40, 33), dict(padding="same")),
    "1-d, stride 2": ((2, 71, 9), (5, 9, 21), dict(padding="same", strides=2)),
    "1-d, depthwise": ((2, 71, 19), (5, 1, 19), dict(padding="same")),
    "3-d": ((2, 6, 7, 8, 5), (3, 3, 3, 5, 18), dict(padding="same")),
    "3-d, stride 2": ((2, 6, 7, 9, 5), (3, 2, 3, 5, 18), dict(padding="same", strides=2)),
    "3-d, depthwise": ((2, 6, 7, 8, 5), (3, 3, 3, 1, 5), dict(padding="same")),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_convolutions_and_their_gradients(name, dtype):
    x, w, options = CASES[name]
    check(with_gradients(**options), random(*x, dtype=dtype), random(*w, dtype=dtype))


HOST = Target.host()
NARROW = {
    "bf16": ("bfloat16", ""), "bf16 in vectors": ("bfloat16", "+amx-bf16"),
    "bf16 as f32": ("bfloat16", "+amx-bf16 +avx512bf16"), "f16": ("float16", "")}
"""An element type, and features of this machine not to use."""


@pytest.mark.parametrize("way", NARROW)
@pytest.mark.parametrize("name", CASES)
def test_narrow_floats_are_rounded_once(name, way):
    """Of small whole numbers, whose sums are exact in f32."""
    x, w, options = CASES[name]

    def program(x, w, cotangent):
        y, back = vjp(lambda x, w: nn.conv(x, w, **options), x, w)
        return [y, *back(cotangent)]

    y = trace(lambda x, w: [nn.conv(x, w, **options)],
              [TensorType(s, F32) for s in (x, w)])[0].returns[0].shape
    arrays = [RNG.integers(-3, 4, shape).astype(np.float64) for shape in (x, w, y)]
    wide, _ = trace(program, [TensorType(a.shape, F64) for a in arrays])
    narrow = as_dtype(NARROW[way][0])
    function, _ = trace(program, [TensorType(a.shape, narrow) for a in arrays])
    executable = compile_function(function, host_without(NARROW[way][1]))
    found = executable(*(a.astype(narrow.numpy) for a in arrays))
    for one, right in zip(found, evaluate(wide, arrays), strict=True):
        assert one.dtype == narrow.numpy
        np.testing.assert_array_equal(one, right.astype(narrow.numpy))


WHOLE = {
    "i8": ("int8", "int32", ""), "i8 without tiles": ("int8", "int32", "+amx-int8"),
    "i8 kept": ("int8", "int8", ""), "i16": ("int16", "int32", ""), "i32": ("int32", "int32", ""),
    "ui32": ("uint32", "uint32", ""), "i64": ("int64", "int64", "")}
"""Types of operands and result, and features of this machine not to use."""


@pytest.mark.parametrize("way", WHOLE)
@pytest.mark.parametrize("name", CASES)
def test_whole_numbers_are_exact(name, way):
    """Modulo the range of the result, any number of the operands'."""
    *types, without = WHOLE[way]
    given, wanted = (as_dtype(t).numpy for t in types)
    x, w, options = CASES[name]
    arrays = [whole(s, given) for s in (x, w)]

    def program(x, w):
        return [nn.conv(x, w, preferred_element_type=wanted, **options)]

    function, _ = trace(program, [TensorType(a.shape, as_dtype(a.dtype)) for a in arrays])
    (found,) = compile_function(function, host_without(without))(*arrays)
    function, _ = trace(program, [TensorType(a.shape, I64) for a in arrays])
    (right,) = evaluate(function, [a.astype(np.int64) for a in arrays])
    np.testing.assert_array_equal(found, right.astype(wanted))


def whole(shape, dtype):
    """Any numbers of an integer type."""
    return np.frombuffer(RNG.bytes(math.prod(shape) * np.dtype(dtype).itemsize), dtype).reshape(shape)


def host_without(features):
    left = [f for f in HOST.features.split(",") if f not in features.split()]
    return replace(HOST, features=",".join(left))


@pytest.mark.parametrize("without", ["", "+amx-int8", "+amx-int8 +avx512vnni"])
@pytest.mark.parametrize(("given", "by"), [
    ("uint8", "int8"), ("int8", "uint8"), ("uint8", "uint8"), ("int16", "int8"), ("int32", "int8")])
def test_whole_numbers_of_two_types(given, by, without):
    x, w = whole((2, 9, 11, 70), given), whole((3, 3, 70, 40), by)
    numbers = ConvDimensionNumbers(0, 3, (1, 2), 2, 3, (0, 1), 0, 3, (1, 2))

    def program(x, w):
        return [bind("stablehlo.convolution", x, w, dimension_numbers=numbers, dtype=I32,
                     padding=((1, 1), (1, 1)))]

    function, _ = trace(program, [TensorType(a.shape, as_dtype(a.dtype)) for a in (x, w)])
    (found,) = compile_function(function, host_without(without))(x, w)
    around = np.pad(x.astype(np.int64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    right = sum(around[:, i:i + 9, j:j + 11] @ w[i, j].astype(np.int64)
                for i in range(3) for j in range(3))
    np.testing.assert_array_equal(found, right.astype(np.int32))


@pytest.mark.parametrize("channels", [3, 40, 64])
@pytest.mark.parametrize(("given", "wanted"), [
    ("float8_e4m3fn", "float32"), ("float4_e2m1fn", "float32"), ("bfloat16", "float32"),
    ("float16", "float32"), ("float32", "bfloat16"), ("float32", "float64")])
def test_results_of_another_type(given, wanted, channels):
    x, w = (RNG.integers(-3, 4, s).astype(as_dtype(given).numpy)
            for s in ((2, 9, 8, channels), (3, 3, channels, 20)))
    run = jit(lambda x, w: nn.conv(x, w, padding="same", preferred_element_type=wanted))
    expected = jit(lambda x, w: nn.conv(x, w, padding="same"))(
        x.astype(np.float64), w.astype(np.float64))
    found = np.asarray(run(x, w))
    assert found.dtype == as_dtype(wanted).numpy
    np.testing.assert_array_equal(found, np.asarray(expected).astype(found.dtype))


def test_blocks_of_a_large_image():
    """Several blocks of lines and of features a task, and more images than a block of pixels has."""
    check(with_gradients(padding="same"), random(1, 60, 61, 70), random(3, 3, 70, 130))
    check(with_gradients(padding="same"), random(19, 7, 7, 20), random(3, 3, 20, 40))


@pytest.mark.parametrize("window", [
    dict(window_strides=(2, 1), lhs_dilation=(2, 3), rhs_dilation=(1, 1)),
    dict(window_strides=(1, 1), lhs_dilation=(3, 2), rhs_dilation=(2, 1)),
    dict(window_strides=(1, 1), lhs_dilation=(4, 3), rhs_dilation=(1, 1)),
    dict(window_strides=(2, 2), lhs_dilation=(1, 1), rhs_dilation=(1, 2)),
])
@pytest.mark.parametrize("reversal", [(False, False), (True, False), (True, True)])
def test_dilations_and_reversals(window, reversal):
    numbers = ConvDimensionNumbers(0, 3, (1, 2), 2, 3, (0, 1), 0, 3, (1, 2))
    check(lambda x, w: [bind("stablehlo.convolution", x, w, padding=((2, 1), (0, 3)),
                             window_reversal=reversal, dimension_numbers=numbers,
                             feature_group_count=1, batch_group_count=1,
                             dtype=as_dtype("float32"), **window)],
          random(2, 7, 6, 5), random(3, 2, 5, 19))


@pytest.mark.parametrize("numbers", [
    ConvDimensionNumbers(0, 1, (2, 3), 1, 0, (2, 3), 0, 1, (2, 3)),
    ConvDimensionNumbers(1, 0, (3, 2), 3, 1, (2, 0), 2, 0, (3, 1)),
    ConvDimensionNumbers(3, 0, (1, 2), 0, 3, (1, 2), 2, 3, (0, 1)),
], ids=["NCHW", "mixed", "gradient"])
@pytest.mark.parametrize("groups", [1, 2])
def test_memory_orders(numbers, groups):
    x, w = [0] * 4, [0] * 4
    sizes = {"input_batch_dimension": 4, "input_feature_dimension": 6}
    for name, size in sizes.items():
        x[getattr(numbers, name)] = size
    w[numbers.kernel_input_feature_dimension] = 6 // groups
    w[numbers.kernel_output_feature_dimension] = 10
    for i, (d, k) in enumerate(zip(numbers.input_spatial_dimensions, numbers.kernel_spatial_dimensions,
                                   strict=True)):
        x[d], w[k] = (9, 8)[i], (3, 2)[i]
    check(lambda x, w: [bind("stablehlo.convolution", x, w, window_strides=(1, 1),
                             padding=((1, 1), (0, 1)), lhs_dilation=(1, 1), rhs_dilation=(1, 1),
                             window_reversal=(False, False), dimension_numbers=numbers,
                             feature_group_count=groups, batch_group_count=1,
                             dtype=as_dtype("float32"))], random(*x), random(*w))


def test_no_image():
    executable = compiled(with_gradients(padding="same"), random(2, 9, 9, 3), random(3, 3, 3, 4),
                          symbolic=(0,))
    y, dx, dw = executable(random(0, 9, 9, 3), random(3, 3, 3, 4))
    assert y.shape == (0, 9, 9, 4)
    assert dx.shape == (0, 9, 9, 3)
    np.testing.assert_array_equal(dw, np.zeros((3, 3, 3, 4), np.float32))


@pytest.mark.parametrize(("shape", "dtype"), [
    ((1, 18), "float32"), ((3, 6), "float32"), ((40, 20), "bfloat16"), ((64, 32), "bfloat16")])
def test_any_batch_by_the_same_kernels(shape, dtype):
    x, w = random(21, 7, 8, max(shape[0], 3), dtype=dtype), random(3, 3, *shape, dtype=dtype)
    program = with_gradients(padding="same", strides=1)
    any_batch = compiled(program, x, w, symbolic=(0,))
    whole = any_batch(x, w)
    for size in (1, 2, 21):
        one = compiled(program, x[:size], w)
        # Where the gradient of the kernel is a matrix product, its code may depend on the batch.
        assert shape == (64, 32) or (
            {k.name for k in one.plan.kernels()} == {k.name for k in any_batch.plan.kernels()})
        for a, b in zip(one(x[:size], w), any_batch(x[:size], w), strict=True):
            assert a.tobytes() == b.tobytes()
    for start, stop in ((0, 1), (5, 9)):
        part = any_batch(x[start:stop], w)
        for found, right in zip(part[:2], whole[:2], strict=True):
            assert found.tobytes() == right[start:stop].tobytes()


def test_a_large_kernel_gives_the_same_bits_in_any_batch():
    """One image packs it as it goes, many share what is packed."""
    x, w = random(17, 7, 6, 170), random(3, 3, 170, 180)
    program = with_gradients(padding="same")
    any_batch = compiled(program, x, w, symbolic=(0,))
    whole = any_batch(x, w)
    for start, stop in ((0, 1), (3, 4), (2, 7), (1, 17)):
        part = any_batch(x[start:stop], w)
        for found, right in zip(part[:2], whole[:2], strict=True):
            assert found.tobytes() == right[start:stop].tobytes()
    check(program, x[:1], w)


PROGRAM = """
import hashlib
import numpy as np
from tfn.compiler import nn
from tfn.compiler.compile import compile_function
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dtypes import BF16, F32
from tfn.compiler.trace.core import trace
from tfn.compiler.trace.grad import vjp

def program(x, w):
    y, back = vjp(lambda x, w: nn.conv(x, w, padding="same"), x, w)
    return [y, *back(y)]

rng = np.random.default_rng(0)
for shapes in [((5, 14, 14, 40), (3, 3, 40, 72)), ((9, 7, 7, 64), (3, 3, 64, 64)),
               ((9, 28, 28, 40), (3, 3, 1, 40)), ((2, 14, 14, 256), (1, 1, 256, 200)),
               ((5, 40, 40, 32), (1, 1, 32, 72))]:
    for dtype in (F32, BF16):
        arrays = [rng.standard_normal(s).astype(dtype.numpy) for s in shapes]
        function, _ = trace(program, [TensorType(s, dtype) for s in shapes])
        for result in compile_function(function)(*arrays):
            print(hashlib.sha256(result.tobytes()).hexdigest())
"""


def test_threads_do_not_change_a_bit():
    found = [subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True,
                            env=os.environ | {"TFN_NUM_THREADS": count}).stdout
             for count in ("1", "2", "5")]
    assert found[0] and found[0] == found[1] == found[2]


FOLLOWERS = {
    "bias and relu": (lambda t, y, b, r: t.maximum(y + b, 0), 1),
    "scale and residual": (lambda t, y, b, r: t.maximum(y * b + r, 0), 1),
    "kept": (lambda t, y, b, r: t.tanh(y) * y + r, 1),
}


@pytest.mark.parametrize("features", [32, 37])
@pytest.mark.parametrize("size", [7, 15])
@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("name", FOLLOWERS)
def test_what_follows_is_done_in_the_same_kernel(name, depthwise, size, features):
    program, kernels = FOLLOWERS[name]
    inputs, per_group = (features, 1) if depthwise else (5, 5)
    executable = check(lambda x, w, b, r: [program(tnp, nn.conv(x, w, padding="same"), b, r)],
                       random(2, size, size, inputs), random(3, 3, per_group, features),
                       random(features), random(2, size, size, features))
    assert len(executable.plan.kernels()) == kernels


@pytest.mark.parametrize(("inputs", "per_group"), [(5, 5), (32, 1)])
def test_a_residual_updated_in_place(inputs, per_group):
    """Tiles overlap at the end of a line: what is computed twice must not read its own result."""
    x, w, r = random(2, 9, 17, inputs), random(3, 3, per_group, 32), random(2, 9, 17, 32)
    step = jit(lambda r, x, w: r + nn.conv(x, w, padding="same"), donate_argnums=0)
    own = jit(lambda r: r + 0)(tnp.asarray(r))
    found = np.asarray(step(own, tnp.asarray(x), tnp.asarray(w)))
    right = compiled(lambda x, w: [nn.conv(x, w, padding="same")], x, w)(x, w)[0]
    np.testing.assert_allclose(found, r + right, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("dtype", "channels"), [("float32", 4), ("bfloat16", 40), ("bfloat16", 64)])
def test_infinities_and_nans_stay_where_they_are(dtype, channels):
    x, w = random(1, 9, 9, channels, dtype=dtype), random(3, 3, channels, 8, dtype=dtype)
    x[0, 4, 4, 1], x[0, 0, 8, 2] = np.nan, np.inf
    found = compiled(lambda x, w: [nn.conv(x, w, padding="same")], x, w)(x, w)[0]
    bad = ~np.isfinite(found.astype(np.float32))
    expected = np.zeros((1, 9, 9), bool)
    expected[0, 3:6, 3:6] = expected[0, 0:2, 7:9] = True
    np.testing.assert_array_equal(bad, np.broadcast_to(expected[..., None], bad.shape))


@pytest.mark.parametrize("kernel", [3, 7])
def test_infinities_reach_only_what_a_strided_kernel_multiplies(kernel):
    """The outputs of an input gradient have different taps, also where they are computed together."""
    dy, w = random(1, 9, 9, 4), random(kernel, kernel, 3, 4)
    dy[0, 4, 4, 1] = np.inf
    program = lambda dy, w: [vjp(lambda x: nn.conv(x, w, padding="same", strides=2),  # noqa: E731
                                 tnp.zeros((1, 18, 18, 3)))[1](dy)[0]]
    (found,) = compiled(program, dy, w)(dy, w)
    first = 8 - (kernel - 2) // 2
    expected = np.zeros((18, 18), bool)
    expected[first:first + kernel, first:first + kernel] = True
    np.testing.assert_array_equal(~np.isfinite(found[0]), np.broadcast_to(
        expected[..., None], (18, 18, 3)))


@pytest.mark.parametrize("features", [2, 3])
def test_what_follows_outputs_that_are_computed_together(features):
    """As in the last layer of a decoder: a transposed convolution, a bias and a sigmoid."""
    x, w, b = random(2, 9, 10, 24), random(5, 5, features, 24), random(features)

    def program(x, w, b):
        _, back = vjp(lambda image: nn.conv(image, w, padding="same", strides=2),
                      tnp.zeros((2, 17, 20, features)))
        return [nn.sigmoid(back(x)[0] + b)]

    assert len(check(program, x, w, b).plan.kernels()) == 1


# -- kernels of one tap ----------------------------------------------------------------------------

def contractions(executable):
    return sorted(op.name for kernel in executable.function.ops for region in kernel.regions
                  for op in region.ops if op.definition.contraction is not None)


@pytest.mark.parametrize("order", ["hwio", "oihw", "ohwi", "iohw"])
@pytest.mark.parametrize("image", ["nhwc", "nchw"])
def test_one_tap_is_a_product(order, image):
    x = random(*({"n": 3, "c": 37, "h": 6, "w": 7}[d] for d in image))
    w = random(*({"i": 37, "o": 50}.get(d, 1) for d in order))
    dims = tuple(image.index(d) for d in "hw")
    numbers = ConvDimensionNumbers(0, image.index("c"), dims, order.index("i"), order.index("o"),
                                   tuple(order.index(d) for d in "hw"), 0, image.index("c"), dims)

    def program(x, w):
        y, back = vjp(lambda x, w: bind("stablehlo.convolution", x, w, dimension_numbers=numbers,
                                        feature_group_count=1, batch_group_count=1), x, w)
        return [y, back(y)[0]]

    assert contractions(check(program, x, w)) == ["stablehlo.dot_general"] * 2


@pytest.mark.parametrize(("shape", "options"), [
    ((2, 6, 7, 8), dict(strides=2)), ((2, 6, 7, 8), dict(padding=[(1, 0), (0, 0)])),
    ((2, 6, 7, 16), {})])
def test_one_tap_of_some_pixels_or_groups_is_none(shape, options):
    executable = check(lambda x, w: [nn.conv(x, w, **options)], random(*shape), random(1, 1, 8, 12))
    assert contractions(executable) == ["stablehlo.convolution"]


@pytest.mark.parametrize("size", [1, 5])
def test_one_tap_gives_the_same_bits_in_any_batch(size):
    x, w = random(9, size, size, 600), random(1, 1, 600, 70)
    any_batch = compiled(lambda x, w: [nn.conv(x, w)], x, w, symbolic=(0,))
    (whole,) = any_batch(x, w)
    for start, stop in ((0, 1), (3, 4), (2, 9)):
        (part,) = any_batch(x[start:stop], w)
        assert part.tobytes() == whole[start:stop].tobytes()
