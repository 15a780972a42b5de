"""Quantized types: their text, the constraints on them, and programs against NumPy."""

import pickle

import numpy as np
import pytest

import tfn
from tfn.compiler.errors import OpError, TfnError, UnsupportedError
from tfn.compiler.ir.dtypes import by_name
from tfn.compiler.ir.evaluator import evaluate
from tfn.compiler.ir.parser import parse_module
from tfn.compiler.ir.printer import print_module
from tfn.compiler.ir.types import read_type

Q = "!quant.uniform<i8:f32, 0.5:-3>"
AXIS = "!quant.uniform<i8:f32:1, {0.5:-3, 0.25, 2.0:7}>"


def real(stored, scale, zero):
    """What stored integers mean."""
    return ((np.asarray(stored, np.int64) - zero) * np.float32(scale)).astype(np.float32)


def stored(numbers, scale, zero, low=-128, high=127, dtype=np.int8):
    """Integers for numbers."""
    scaled = np.asarray(numbers, np.float32) / np.float32(scale) + np.float32(zero)
    return np.rint(np.clip(np.nan_to_num(scaled, posinf=1e9, neginf=-1e9), low, high)).astype(dtype)


def program(body: str, arguments: str, results: str):
    return f"func.func @main({arguments}) -> {results} {{\n{body}\n}}"


def both(text: str, *arrays):
    """Results of the compiler, once they equal the evaluator's."""
    function = parse_module(text, "t")["main"]
    expected = evaluate(function, arrays)
    compiled = tfn.from_stablehlo(text)(*arrays)
    compiled = compiled if isinstance(compiled, tuple) else (compiled,)
    for a, b in zip(compiled, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(a), b)
    return expected


@pytest.mark.parametrize("text, canonical", [
    (Q, Q), (AXIS, AXIS),
    ("!quant.uniform<i8:f32, 5.000000e-01:-3>", Q),
    ("!quant.uniform< i8 : f32 ,0.5 : -3 >", Q),
    ("!quant.uniform<i8<-127:127>:f32, 0.1>", "!quant.uniform<i8<-127:127>:f32, 0.1>"),
    ("!quant.uniform<u8:f16, 0.1:255>", "!quant.uniform<u8:f16, 0.1:255>"),
    ("!quant.uniform<i32:f32, 1.0E-05>", "!quant.uniform<i32:f32, 1.0E-5>"),
    ("!quant.uniform<i32:f64, 1e-7>", "!quant.uniform<i32:f64, 1.0E-7>"),
    ("!quant.uniform<i4:bf16, 3:0>", "!quant.uniform<i4:bf16, 3.0>"),
])
def test_text(text, canonical):
    dtype = read_type(f"tensor<2x3x{text}>").dtype
    assert str(dtype) == canonical
    assert by_name(canonical) is dtype
    assert pickle.loads(pickle.dumps(dtype)) is dtype
    shape = "tensor<2x3x" + text + ">"
    source = program(f"return %a : {shape}", f"%a: {shape}", shape)
    printed = print_module(parse_module(source, "t"))
    assert canonical in printed and print_module(parse_module(printed, "t")) == printed


@pytest.mark.parametrize("text, error, said", [
    ("!quant.uniform<i8:f32, 0.0>", ValueError, "positive"),
    ("!quant.uniform<i8:f32, -1.0>", ValueError, "positive"),
    ("!quant.uniform<i8:f16, 1e9>", ValueError, "fit f16"),
    ("!quant.uniform<i8:f32, 1.0:128>", ValueError, "outside the storage range"),
    ("!quant.uniform<i8<-128:300>:f32, 1.0>", ValueError, "does not fit i8"),
    ("!quant.uniform<i8:f32:2, {1.0, 2.0, 3.0}>", ValueError, "axis 2"),
    ("!quant.uniform<i8:f32:1, {1.0, 2.0}>", ValueError, "2 scales for the 3"),
    ("!quant.uniform<i8:f32:{0:1, 1:3}, {{1.0}}>", UnsupportedError, "sub-channel"),
    ("!quant.uniform<i64:f32, 1.0>", UnsupportedError, "store"),
    ("!quant.uniform<i8:i32, 1.0>", UnsupportedError, "store"),
    ("!quant.uniform<i8:f32>", ValueError, "not a quantized type"),
    ("!quant.any<i8:f32>", UnsupportedError, "without parameters"),
    ("!quant.uniform<i8:f32, 1.0:99999999999999999999999999>", ValueError, "outside"),
])
def test_refused_types(text, error, said):
    with pytest.raises(error, match=said):
        read_type(f"tensor<2x3x{text}>")


def test_quantize_and_dequantize():
    q = f"tensor<8x{Q}>"
    text = program(f"""
      %q = stablehlo.uniform_quantize %x : (tensor<8xf32>) -> {q}
      %s = stablehlo.bitcast_convert %q : ({q}) -> tensor<8xi8>
      %r = stablehlo.uniform_dequantize %q : ({q}) -> tensor<8xf32>
      return %s, %r : tensor<8xi8>, tensor<8xf32>""",
      "%x: tensor<8xf32>", "(tensor<8xi8>, tensor<8xf32>)")
    x = np.float32([0.25, 0.75, -0.25, np.inf, -np.inf, 1e9, -62.4, 5])
    integers, numbers = both(text, x)
    np.testing.assert_array_equal(integers, stored(x, 0.5, -3))
    np.testing.assert_array_equal(numbers, real(integers, 0.5, -3))


def test_nan_is_stored_as_zero():
    q = f"tensor<1x{Q}>"
    text = program(f"""
      %q = stablehlo.uniform_quantize %x : (tensor<1xf32>) -> {q}
      %s = stablehlo.bitcast_convert %q : ({q}) -> tensor<1xi8>
      return %s : tensor<1xi8>""", "%x: tensor<1xf32>", "tensor<1xi8>")
    np.testing.assert_array_equal(both(text, np.float32([np.nan]))[0], [0])


def test_every_index_of_an_axis_has_its_scale():
    q, turned = f"tensor<2x3x{AXIS}>", f"tensor<3x2x{AXIS.replace(':1,', ':0,')}>"
    text = program(f"""
      %q = stablehlo.uniform_quantize %x : (tensor<2x3xf32>) -> {q}
      %s = stablehlo.bitcast_convert %q : ({q}) -> tensor<2x3xi8>
      %t = stablehlo.transpose %q, dims = [1, 0] : ({q}) -> {turned}
      %r = stablehlo.uniform_dequantize %t : ({turned}) -> tensor<3x2xf32>
      return %s, %r : tensor<2x3xi8>, tensor<3x2xf32>""",
      "%x: tensor<2x3xf32>", "(tensor<2x3xi8>, tensor<3x2xf32>)")
    x = np.float32([[1.1, -2.3, 9], [-40, 31.8, 1000]])
    integers, numbers = both(text, x)
    scales, zeros = np.float32([0.5, 0.25, 2]), np.int64([-3, 0, 7])
    np.testing.assert_array_equal(integers, stored(x, scales, zeros))
    np.testing.assert_array_equal(numbers, real(integers, scales, zeros).T)


def test_arguments_are_stored_integers():
    q = f"tensor<4x{Q}>"
    text = program(f"""
      %s = stablehlo.add %a, %b : {q}
      return %s : {q}""", f"%a: {q}, %b: {q}", q)
    a, b = np.int8([1, -100, 127, 5]), np.int8([2, -100, 127, -5])
    (total,) = both(text, a, b)
    np.testing.assert_array_equal(total, stored(real(a, 0.5, -3) + real(b, 0.5, -3), 0.5, -3))


def test_contraction_into_an_accumulator():
    a, b = "tensor<3x4x!quant.uniform<i8:f32, 0.5>>", "tensor<4x2x!quant.uniform<i8:f32, 0.25:1>>"
    c = "tensor<3x2x!quant.uniform<i32:f32, 0.125>>"
    text = program(f"""
      %s = stablehlo.dot_general %a, %b, contracting_dims = [1] x [0] : ({a}, {b}) -> {c}
      return %s : {c}""", f"%a: {a}, %b: {b}", c)
    rng = np.random.default_rng(0)
    x, y = rng.integers(-128, 128, (3, 4), np.int8), rng.integers(-128, 128, (4, 2), np.int8)
    (got,) = both(text, x, y)
    np.testing.assert_array_equal(got, x.astype(np.int32) @ (y.astype(np.int32) - 1))


def test_weights_alone_may_be_quantized():
    w = "tensor<4x2x!quant.uniform<i8:f32:1, {0.5, 0.25:3}>>"
    text = program(f"""
      %s = stablehlo.dot_general %a, %w, contracting_dims = [1] x [0] :
        (tensor<3x4xf32>, {w}) -> tensor<3x2xf32>
      return %s : tensor<3x2xf32>""", f"%a: tensor<3x4xf32>, %w: {w}", "tensor<3x2xf32>")
    rng = np.random.default_rng(0)
    x, y = rng.integers(-9, 9, (3, 4)).astype(np.float32), rng.integers(-128, 128, (4, 2), np.int8)
    np.testing.assert_array_equal(
        both(text, x, y)[0], x @ real(y, np.float32([0.5, 0.25]), np.int64([0, 3])))


def test_regions_and_calls():
    q, s = f"tensor<4x{Q}>", f"tensor<{Q}>"
    text = f"""
    func.func private @twice(%a: {s}) -> {s} {{
      %0 = stablehlo.add %a, %a : {s}
      return %0 : {s}
    }}
    func.func @main(%a: {q}, %i: {s}, %n: tensor<i32>) -> {s} {{
      %m = stablehlo.reduce(%a init: %i) applies stablehlo.maximum across dimensions = [0] :
        ({q}, {s}) -> {s}
      %one = stablehlo.constant dense<1> : tensor<i32>
      %k, %r = stablehlo.while(%j = %n, %v = %m) : tensor<i32>, {s}
      cond {{
        %zero = stablehlo.constant dense<0> : tensor<i32>
        %go = stablehlo.compare GT, %j, %zero : (tensor<i32>, tensor<i32>) -> tensor<i1>
        stablehlo.return %go : tensor<i1>
      }} do {{
        %less = stablehlo.subtract %j, %one : tensor<i32>
        %more = func.call @twice(%v) : ({s}) -> {s}
        stablehlo.return %less, %more : tensor<i32>, {s}
      }}
      return %r : {s}
    }}"""
    (got,) = both(text, np.int8([-9, 3, 1, -5]), np.int8(-100), np.int32(2))
    assert got == stored(4 * real(3, 0.5, -3), 0.5, -3)


@pytest.mark.parametrize("line, said", [
    ("stablehlo.uniform_quantize %x : (tensor<4xf32>) -> tensor<4xf32>", "uniform_quantize"),
    (f"stablehlo.uniform_quantize %x : (tensor<4xf32>) -> tensor<5x{Q}>", "tensor<4x"),
    ("stablehlo.uniform_quantize %x : (tensor<4xf32>) -> tensor<4x!quant.uniform<i8:f16, 0.5>>",
     "express"),
    ("stablehlo.uniform_dequantize %x : (tensor<4xf32>) -> tensor<4xf32>", "uniform_dequantize"),
    (f"stablehlo.uniform_dequantize %q : (tensor<4x{Q}>) -> tensor<4xf16>", "f16"),
    (f"stablehlo.reshape %q : (tensor<4x{Q}>) -> tensor<2x2x!quant.uniform<i8:f32, 0.25>>",
     "does not quantize"),
    (f"stablehlo.add %q, %q : (tensor<4x{Q}>, tensor<4x{Q}>) -> tensor<4xi8>", "i8"),
])
def test_ill_typed_programs(line, said):
    text = program(f"%r = {line}\nreturn %x : tensor<4xf32>",
                   f"%x: tensor<4xf32>, %q: tensor<4x{Q}>", "tensor<4xf32>")
    with pytest.raises(TfnError, match=said) as caught:
        parse_module(text, "t")
    assert isinstance(caught.value, OpError) and caught.value.location.line == 2
