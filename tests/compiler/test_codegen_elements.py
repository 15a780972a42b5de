"""Every elementwise and data-movement op in compiled code, against the evaluator."""

import warnings

import ml_dtypes
import numpy as np
import pytest

import tfn.compiler.numpy as tnp
from tfn.compiler.codegen import stream, target
from tfn.compiler.codegen.target import Target
from tfn.compiler.compile import compile_function
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dtypes import BF16, F16, F32, F64, I1, I8, I32, I64, UI8, UI32, as_dtype
from tfn.compiler.ir.evaluator import evaluate
from tfn.compiler.ir.parser import parse_module
from tfn.compiler.ops.declare import REGISTRY
from tfn.compiler.ops.elementwise import COMPARISONS, Binary, Unary
from tfn.compiler.trace.core import bind, trace
from tfn.compiler.trace.jit import jit

RNG = np.random.default_rng(4)
DTYPES = [I1, I8, I32, I64, UI8, UI32, F16, BF16, F32, F64]
EDGES = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 1e-40, -3e-41, 2.5, -2.5, 0.5, 88.0, -104.0]
SHAPES = [(), (0,), (1,), (7,), (3, 0, 2), (2, 3, 5)]

# Transcendental functions have their own tests; here a few units in the last place are enough.
TOLERANCE = {F16: 2e-3, BF16: 1.6e-2, F32: 2e-6, F64: 1e-13}


def values(dtype, shape):
    """Arrays with the edge cases of the type first."""
    count = int(np.prod(shape))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dtype is I1:
            data = RNG.integers(0, 2, count)
        elif dtype.is_integer:
            info = np.iinfo(dtype.numpy)
            data = RNG.integers(max(info.min, -50), min(info.max, 50), count, dtype=np.int64)
            ends = np.array([info.min, info.max, 0, 1, min(info.max, 33)], dtype.numpy)
            data = data.astype(dtype.numpy)
            data[: len(ends)] = RNG.permutation(ends)[:count]
        else:
            data = RNG.normal(size=count) * 4
            edges = RNG.permutation(EDGES)[:count]
            data[: len(edges)] = edges
        return data.reshape(shape).astype(dtype.numpy)


def check(function, *arrays, tolerance=0.0):
    types = [TensorType(a.shape, as_dtype(a.dtype)) for a in arrays]
    program, _ = trace(function, types)
    found = compile_function(program)(*arrays)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = evaluate(program, arrays)
        for a, b in zip(found, expected, strict=True):
            assert a.dtype == b.dtype
            assert a.shape == b.shape
            if as_dtype(a.dtype).is_float:
                a, b = a.astype(np.float64), b.astype(np.float64)
                np.testing.assert_allclose(a, b, rtol=tolerance, atol=0)
            else:
                np.testing.assert_array_equal(a, b)


ABSOLUTE = {"tfn.gelu", "tfn.gelu_slope", "tfn.gelu_tanh", "tfn.gelu_tanh_slope"}
"""Small results are as far from the true ones as larger ones are: `test_mathlib.py` tests these."""


def cases(base):
    return [(name, dtype) for name, d in sorted(REGISTRY.items())
            if issubclass(d, base) and not d.attributes and name not in ABSOLUTE for dtype in DTYPES
            if dtype in d.accepts]


@pytest.mark.parametrize(("name", "dtype"), cases(Unary), ids=str)
def test_unary(name, dtype):
    for shape in SHAPES:
        check(lambda x: [bind(name, x)], values(dtype, shape),
              tolerance=TOLERANCE.get(dtype, 0.0))


@pytest.mark.parametrize(("name", "dtype"), cases(Binary), ids=str)
def test_binary(name, dtype):
    exact = not REGISTRY[name].expensive
    for shape in SHAPES:
        check(lambda x, y: [bind(name, x, y)], values(dtype, shape), values(dtype, shape),
              tolerance=0.0 if exact else TOLERANCE.get(dtype, 0.0))


@pytest.mark.parametrize("direction", COMPARISONS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_compare(direction, dtype):
    x = values(dtype, (40,))
    y = np.where(np.arange(40) % 3 == 0, x, values(dtype, (40,)))
    check(lambda x, y: [bind("stablehlo.compare", x, y, comparison_direction=direction)], x, y)


@pytest.mark.parametrize("source", DTYPES, ids=str)
@pytest.mark.parametrize("target", DTYPES, ids=str)
def test_convert(source, target):
    x = values(source, (60,))
    check(lambda x: [bind("stablehlo.convert", x, dtype=target)], x)


@pytest.mark.parametrize(("source", "target"), [
    (F32, I32), (I32, F32), (F64, I64), (F16, BF16), (BF16, F16), (UI8, I8), (UI32, F32)])
def test_bitcast(source, target):
    check(lambda x: [bind("stablehlo.bitcast_convert", x, dtype=target)], values(source, (40,)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_select_and_clamp(dtype):
    x, y, p = values(dtype, (5, 6)), values(dtype, (5, 6)), values(I1, (5, 6))
    check(lambda p, x, y: [bind("stablehlo.select", p, x, y)], p, x, y)
    check(lambda p, x, y: [bind("stablehlo.select", p, x, y)], np.array(True), x, y)
    if dtype is not I1:
        low, high = np.zeros((), dtype.numpy), np.ones((), dtype.numpy)
        check(lambda x, a, b: [bind("stablehlo.clamp", a, x, b)], x, low, high)


def movement():
    i = {"strides": (1, 1, 1)}
    yield "transpose", [(3, 4, 5)], dict(permutation=(2, 0, 1))
    yield "reshape", [(3, 4, 5)], dict(shape=(6, 10))
    yield "reshape", [(1, 1)], dict(shape=())
    yield "slice", [(5, 6, 7)], dict(start_indices=(1, 0, 3), limit_indices=(4, 6, 7), **i)
    yield "slice", [(5, 6)], dict(start_indices=(0, 1), limit_indices=(5, 6), strides=(2, 3))
    yield "pad", [(3, 4), ()], dict(edge_padding_low=(1, -1), edge_padding_high=(2, 3),
                                    interior_padding=(2, 0))
    yield "pad", [(0, 2), ()], dict(edge_padding_low=(1, 0), edge_padding_high=(1, 0),
                                    interior_padding=(0, 0))
    yield "concatenate", [(2, 3), (2, 1), (2, 4)], dict(dimension=1)
    yield "reverse", [(3, 4, 5)], dict(dimensions=(0, 2))
    yield "broadcast_in_dim", [(3, 1)], dict(shape=(3, 4, 2), broadcast_dimensions=(0, 1))
    yield "broadcast_in_dim", [()], dict(shape=(2, 2), broadcast_dimensions=())


@pytest.mark.parametrize(("name", "shapes", "attributes"), list(movement()), ids=str)
@pytest.mark.parametrize("dtype", [I1, I8, BF16, F32, I64], ids=str)
def test_data_movement(name, shapes, attributes, dtype):
    check(lambda *xs: [bind(f"stablehlo.{name}", *xs, **attributes)],
          *[values(dtype, s) for s in shapes])
    # The same between computed values, so that it is fused.
    if dtype is F32:
        check(lambda *xs: [bind("stablehlo.negate", bind(
            f"stablehlo.{name}", *[bind("stablehlo.abs", x) for x in xs], **attributes))],
            *[values(dtype, s) for s in shapes])


@pytest.mark.parametrize("start", [-5, 0, 1, 9])
def test_dynamic_slices_are_clamped(start):
    x, at, zero = values(F32, (6, 4)), np.array(start, np.int32), np.array(0, np.int32)
    check(lambda x, i, j: [bind("stablehlo.dynamic_slice", x, i, j, slice_sizes=(3, 2))],
          x, at, zero)
    check(lambda x, u, i, j: [bind("stablehlo.dynamic_update_slice", x, u, i, j)],
          x, values(F32, (2, 2)), at, zero)


@pytest.mark.parametrize("dtype", [I32, UI8, F16, F32, I64], ids=str)
def test_iota(dtype):
    for axis in (0, 1):
        check(lambda axis=axis: [bind("stablehlo.iota", iota_dimension=axis,
                                      type=TensorType((300, 70), dtype))])


def test_bfloat16_rounds_to_nearest_even():
    bits = RNG.integers(0, 2**32, 5000, dtype=np.uint64).astype(np.uint32)
    x = bits.view(np.float32)
    x = x[~np.isnan(x)]
    program, _ = trace(lambda x: [bind("stablehlo.convert", x, dtype=BF16)],
                       [TensorType(x.shape, F32)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = x.astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(compile_function(program)(x)[0].view(np.uint16),
                                  expected.view(np.uint16))


@pytest.mark.parametrize("dtype", ["bf16", "f16", "f4E2M1FN", "f8E5M2"])
def test_an_iota_of_narrow_floats_is_rounded_before_it_is_used(dtype):
    function = parse_module(f"""func.func @main() -> tensor<3000xf32> {{
      %0 = stablehlo.iota dim = 0 : tensor<3000x{dtype}>
      %1 = stablehlo.convert %0 : (tensor<3000x{dtype}>) -> tensor<3000xf32>
      return %1 : tensor<3000xf32>
    }}""")["main"]
    np.testing.assert_array_equal(compile_function(function)()[0], evaluate(function, [])[0])


@pytest.mark.parametrize("dtype", ["ui2", "i2", "ui4", "i4", "i8", "ui16"])
def test_the_upper_half_of_products_of_small_integers(dtype):
    function = parse_module(f"""func.func @main(%x: tensor<64x{dtype}>, %y: tensor<64x{dtype}>)
        -> tensor<64x{dtype}> {{
      %0 = chlo.mulhi %x, %y : tensor<64x{dtype}>, tensor<64x{dtype}> -> tensor<64x{dtype}>
      %1 = stablehlo.reverse %0, dims = [0] : tensor<64x{dtype}>
      return %1 : tensor<64x{dtype}>
    }}""")["main"]
    kind = as_dtype(dtype).numpy
    x, y = (np.arange(64)[::step].astype(np.int64).astype(kind) for step in (1, -1))
    np.testing.assert_array_equal(compile_function(function)(x, y)[0], evaluate(function, [x, y])[0])


@pytest.mark.parametrize("shape", [(5, 40), (3, 4, 33)])
def test_a_row_is_added_in_place(shape):
    """By whole vectors, though the result may be the same memory as the operand."""
    step = jit(lambda x, b: tnp.maximum(x + b, 0.5), donate_argnums=0)
    expected, b = values(F32, shape), np.linspace(-1, 1, shape[-1]).astype(np.float32)
    x = jit(lambda x: x + 0)(tnp.asarray(expected))
    place = x._data.ctypes.data
    for _ in range(3):
        x, expected = step(x, tnp.asarray(b)), np.maximum(expected + b, np.float32(0.5))
        np.testing.assert_array_equal(x, expected)
        assert x._data.ctypes.data == place
    ((kernel,),) = (p.executable.plan.kernels() for p in step._programs.values())
    assert kernel.text.count("llvm.loop.parallel_accesses") == 1


STREAMS = {
    "one": lambda x, y: [x * 2 + y],
    "two": lambda x, y: [x + y, tnp.maximum(x, y)],
    "integers": lambda x, y: [(x + y).astype("int32")],
    "a row": lambda x, y: [x + y[(0,) * (y.ndim - 1)]],
    "dear": lambda x, y: [tnp.exp(x) * y],
    "halves": lambda x, y: [(x + y).astype("float16")],
    "bfloat16": lambda x, y: [(x + y).astype("bfloat16").astype("float32").astype("bfloat16")],
    "bytes": lambda x, y: [(x + y).astype("int8")],
    "truths": lambda x, y: [x < y],
    "doubles": lambda x, y: [(x.astype("float64") + y).astype("float32")],
    "double results": lambda x, y: [x.astype("float64") + y],
    "every other": lambda x, y: [tnp.concatenate([x, y], -1)[..., ::2] + x],
    "several types": lambda x, y: [x + y, (x - y).astype("int8")],
}


@pytest.mark.parametrize("shape", [(1,), (255,), (256,), (4096,), (300_000,), (3, 1024), (5, 333),
                                   (2, 3, 272)])
@pytest.mark.parametrize("program", STREAMS.values(), ids=STREAMS)
@pytest.mark.parametrize("past", [True, False], ids=["past the cache", "read ahead"])
def test_large_results(program, shape, past, monkeypatch):
    """They go around the cache, or their operands are read ahead; here all."""
    monkeypatch.setattr(target, "BYTES_UNCACHED", (("", 0 if past else 1 << 60),))
    monkeypatch.setattr(stream, "_FAR", 0)
    x, y = values(F32, shape), values(F32, shape)[::-1].copy()
    function, _ = trace(program, [TensorType(shape, F32)] * 2)
    executable = compile_function(function)
    bits = Target.host().tile.bits
    if bits >= 256 and Target.host().triple.startswith("x86_64") and (
            bits == 512 or program is not STREAMS["dear"]):
        text = "".join(k.text for k in executable.plan.kernels())
        stored = (past and (len(shape) == 1 or shape[-1] >= 256)
                  and program is not STREAMS["halves"])
        assert ("nontemporal" in text) == stored
        whole = len(shape) == 1 or (shape[-1] >= 256 and shape[-1] % 64 == 0)
        if stored or (whole and program is not STREAMS["every other"]):
            assert "llvm.prefetch" in text
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for found, expected in zip(executable(x, y), evaluate(function, [x, y]), strict=True):
            assert found.dtype == expected.dtype
            np.testing.assert_allclose(found.astype(np.float64), expected.astype(np.float64),
                                       rtol=1e-6, atol=1e-38)


def test_a_large_result_over_its_operand(monkeypatch):
    monkeypatch.setattr(target, "BYTES_UNCACHED", (("", 0),))
    step = jit(lambda x: x * 2 + 1, donate_argnums=0)
    expected = RNG.normal(size=3000).astype(np.float32)
    x = jit(lambda x: x + 0)(tnp.asarray(expected))
    place = x._data.ctypes.data
    for _ in range(3):
        x, expected = step(x), expected * 2 + 1
        np.testing.assert_allclose(x, expected, rtol=1e-6)
        assert x._data.ctypes.data == place
