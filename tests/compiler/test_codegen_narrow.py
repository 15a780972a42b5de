"""Products of numbers of 8 and 16 bits: memory orders, edges, mixed types, all ways to multiply."""

import ml_dtypes
import numpy as np
import pytest

import tfn.compiler.numpy as tnp
from tfn.compiler.codegen.product import INSTRUCTIONS, Product, product_of
from tfn.compiler.codegen.target import Target
from tfn.compiler.compile import Executable, compile_function, run_passes
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dims import Dim
from tfn.compiler.ir.dtypes import BF16, F32, I32, as_dtype
from tfn.compiler.ir.structs import DotDimensionNumbers
from tfn.compiler.runtime.plan import make_plan
from tfn.compiler.trace.core import bind, trace
from tfn.compiler.trace.jit import jit

RNG = np.random.default_rng(11)
HOST = Target.host()
VECTORS = Target(HOST.triple, HOST.cpu, HOST.features.replace("+amx-", "-amx-"))
"""This machine without tile registers."""
GENERIC = Target(HOST.triple, HOST.cpu, VECTORS.features.replace("+avx512bf16", "-avx512bf16").replace(
    "+avx512vnni", "-avx512vnni"))
"""And without other instructions for narrow products."""
PLAIN = Target(HOST.triple, HOST.cpu, ",".join(
    f.replace("+", "-") if f[1:].startswith(("avx512", "avx10")) else f
    for f in VECTORS.features.split(",")))
"""And without vectors of 512 bits."""
UNIT = {"bfloat16": 2.0**-8, "float16": 2.0**-11, "float32": 2.0**-24}

ORDERS = ["ij,jk", "ji,jk", "ij,kj", "ji,kj"]
CASES = [*((order, (33, 65, 70)) for order in ORDERS), ("ij,kj", (13, 7, 5)), ("ij,jk", (1, 130, 100)),
         ("ij,kj", (1, 130, 100)), ("ij,jk", (130, 66, 1)), ("ji,jk", (97, 1030, 49)),
         ("ij,kj", (3, 2050, 3)), ("ij,jk", (4, 0, 5)), ("ij,jk", (64, 128, 96))]
"""Memory orders and sizes of i, j, k."""


def values(shape, dtype):
    if np.issubdtype(np.dtype(dtype), np.integer):
        info = np.iinfo(dtype)
        return RNG.integers(info.min, info.max, shape, dtype, endpoint=True)
    return RNG.standard_normal(shape).astype(dtype)


def dot(order, left, right, result, target=HOST):
    """The product of two arrays in the compiled program, and in exact or double arithmetic."""
    (a, b) = order.split(",")
    numbers = DotDimensionNumbers((), (), (a.index("j"),), (b.index("j"),))
    types = [TensorType(x.shape, as_dtype(x.dtype)) for x in (left, right)]
    function, _ = trace(lambda x, y: [bind("stablehlo.dot_general", x, y, dot_dimension_numbers=numbers,
                                           dtype=as_dtype(result))], types)
    fused = run_passes(function, target)
    (found,) = Executable(fused, make_plan(fused, target))(left, right)
    wide = np.int64 if np.issubdtype(left.dtype, np.integer) else np.float64
    return found, np.einsum(f"{order}->ik", left.astype(wide), right.astype(wide))


def operands(order, shape, left, right):
    sizes = dict(zip("ijk", shape, strict=True))
    return [values([sizes[c] for c in part], dtype)
            for part, dtype in zip(order.split(","), (left, right), strict=True)]


FLOATS = [("bfloat16", "bfloat16", "float32"), ("bfloat16", "bfloat16", "bfloat16"),
          ("float16", "float16", "float16"), ("float16", "bfloat16", "float32"),
          ("bfloat16", "float32", "float32"), ("float8_e4m3fn", "float8_e5m2", "bfloat16")]
INTEGERS = [("int8", "int8", "int32"), ("uint8", "int8", "int32"), ("int8", "uint8", "int32"),
            ("uint8", "uint8", "int32"), ("int8", "int8", "int8"), ("int16", "int16", "int16"),
            ("int32", "int32", "int32"), ("int8", "int8", "int64"), ("uint32", "uint32", "uint32"),
            ("uint8", "uint8", "uint8"), ("int64", "int64", "int64")]
HERE = [pytest.param(target, id=name) for name, target in
        (("host", HOST), ("vectors", VECTORS), ("generic", GENERIC), ("plain", PLAIN))]


def dtype_of(name):
    return np.dtype(getattr(ml_dtypes, name, name))


def check_floats(order, shape, dtypes, target):
    left, right, result = map(dtype_of, dtypes)
    a, b = operands(order, shape, left, right)
    found, expected = dot(order, a, b, result, target)
    assert found.dtype == result
    size = np.einsum(f"{order}->ik", np.abs(a.astype(np.float64)), np.abs(b.astype(np.float64)))
    bound = UNIT[result.name] * np.abs(expected) + 2e-6 * size + 1e-30
    assert (np.abs(found.astype(np.float64) - expected) <= bound).all()


@pytest.mark.parametrize("target", HERE[:2])
@pytest.mark.parametrize(("order", "shape"), CASES)
def test_bf16_in_every_memory_order(order, shape, target):
    check_floats(order, shape, FLOATS[0], target)


@pytest.mark.parametrize("target", HERE)
@pytest.mark.parametrize("dtypes", FLOATS, ids="-".join)
def test_floats_are_rounded_once_from_a_single_precision_sum(dtypes, target):
    check_floats(ORDERS[FLOATS.index(dtypes) % 4], (37, 131, 50), dtypes, target)


def check_integers(order, shape, dtypes, target):
    left, right, result = map(dtype_of, dtypes)
    a, b = operands(order, shape, left, right)
    found, expected = dot(order, a, b, result, target)
    np.testing.assert_array_equal(found, expected.astype(result))


@pytest.mark.parametrize("target", HERE[:2])
@pytest.mark.parametrize(("order", "shape"), CASES)
def test_bytes_in_every_memory_order_are_exact(order, shape, target):
    check_integers(order, shape, INTEGERS[0], target)


@pytest.mark.parametrize("target", HERE)
@pytest.mark.parametrize("dtypes", INTEGERS, ids="-".join)
def test_integers_are_exact_modulo_the_range_of_the_result(dtypes, target):
    check_integers(ORDERS[INTEGERS.index(dtypes) % 4], (37, 131, 50), dtypes, target)


@pytest.mark.parametrize("dtypes", [INTEGERS[0], INTEGERS[1]], ids="-".join)
def test_extreme_bytes_over_many_blocks_of_k(dtypes):
    left, right, result = map(dtype_of, dtypes)
    a = np.full((5, 9001), np.iinfo(left).max, left)
    a[1], a[2] = np.iinfo(left).min, np.iinfo(left).min
    b = np.full((9001, 3), np.iinfo(right).min, right)
    b[:, 1] = np.iinfo(right).max
    found, expected = dot("ij,jk", a, b, result)
    np.testing.assert_array_equal(found, expected)


def test_nan_and_infinity_pass_through():
    a, b = np.ones((3, 40), BF16.numpy), np.ones((40, 20), BF16.numpy)
    a[1, 7], a[2, 39] = np.nan, np.inf
    found, _ = dot("ij,jk", a, b, "float32")
    assert (found[0] == 40).all() and np.isnan(found[1]).all() and np.isposinf(found[2]).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_what_follows_sees_the_rounded_product(dtype):
    dtype = dtype_of(dtype)
    x, w, b = values((77, 64), dtype), values((64, 33), dtype), values((33,), dtype)
    found = np.asarray(jit(lambda x, w, b: tnp.maximum(x @ w + b, 0))(x, w, b))
    product = (x.astype(np.float32) @ w.astype(np.float32)).astype(dtype)
    expected = np.maximum(product + b, 0).astype(np.float64)
    assert found.dtype == dtype
    np.testing.assert_allclose(found.astype(np.float64), expected, rtol=3 * UNIT[dtype.name],
                               atol=8 * UNIT[dtype.name])


@pytest.mark.parametrize(("spec", "left", "right"), [
    ("bij,bjk->bik", (5, 20, 30), (5, 30, 40)), ("bthd,bshd->bhts", (2, 33, 4, 16), (2, 21, 4, 16)),
    ("bhts,bshd->bhtd", (2, 4, 33, 21), (2, 21, 4, 16)), ("btc,btd->cd", (3, 40, 50), (3, 40, 60))])
def test_batches(spec, left, right):
    a, b = values(left, BF16.numpy), values(right, BF16.numpy)
    found = np.asarray(jit(lambda a, b: tnp.einsum(spec, a, b))(a, b)).astype(np.float64)
    expected = np.einsum(spec, a.astype(np.float64), b.astype(np.float64))
    np.testing.assert_allclose(found, expected, rtol=UNIT["bfloat16"], atol=1e-4)


@pytest.mark.parametrize("dtype", ["bf16", "i8"])
def test_a_row_has_the_same_bits_anywhere_in_a_batch_of_any_size(dtype):
    rows, kind = Dim.named("rows"), as_dtype(dtype)
    function, _ = trace(lambda x, w: [tnp.matmul(x, w)], [TensorType((rows, 1001), kind),
                                                          TensorType((1001, 130), kind)])
    executable = compile_function(function)
    x, w = values((300, 1001), kind.numpy), values((1001, 130), kind.numpy)
    whole = executable(x, w)[0]
    for start, stop in ((0, 7), (100, 131), (290, 300), (3, 203)):
        assert executable(x[start:stop], w)[0].tobytes() == whole[start:stop].tobytes()


def test_the_first_row_of_the_table_that_fits_is_taken():
    function, _ = trace(lambda x, y: [x @ y], [TensorType((4, 4), BF16)] * 2)
    (op,) = (o for o in function.ops if o.name == "stablehlo.dot_general")
    rows = {feature: product for left, _, feature, product in INSTRUCTIONS if BF16 in left}
    for features in ("+avx512f,+avx512bw,+avx512bf16", "+avx512f,+avx512bf16,+amx-tile,+amx-bf16"):
        target = Target("x86_64-unknown-linux-gnu", "emeraldrapids", features)
        assert product_of(op, target) == rows[features.rpartition(",")[2]]
    assert product_of(op, Target.named("x86-64-v3")) == Product(F32, F32)
    assert product_of(op, Target.named("aarch64")).sums is not I32


def test_code_for_other_processes_does_without_tile_registers():
    """Those would have to ask Linux for them first."""
    assert "+amx" not in Target.named("host").features
    assert Target.named("host").cpu == HOST.cpu
