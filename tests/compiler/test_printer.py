"""The printer: StableHLO's own spelling of every op, exact constants, and text for broken IR."""

import json
import subprocess

import ml_dtypes
import numpy as np
import pytest

from tfn.compiler import nn
from tfn.compiler import numpy as tnp
from tfn.compiler.ir.attributes import write_attribute, write_string
from tfn.compiler.ir.core import Block, Function, Module, Op, TensorType
from tfn.compiler.ir.dtypes import F32, as_dtype
from tfn.compiler.ir.evaluator import evaluate
from tfn.compiler.ir.literal import read_dense, write_dense, write_float
from tfn.compiler.ir.parser import parse_module
from tfn.compiler.ops.declare import OpDefinition, definition
from tfn.compiler.trace.core import bind, trace
from tfn.compiler.trace.grad import value_and_grad

# One op per row: operand types, the line as StableHLO's own printer writes it, result type.
LINES = [
    ("4xf32 4xf32", "stablehlo.add %arg0, %arg1 : tensor<4xf32>", "4xf32"),
    ("4xf32", "stablehlo.exponential %arg0 : tensor<4xf32>", "4xf32"),
    ("4xf32", "chlo.erf %arg0 : tensor<4xf32> -> tensor<4xf32>", "4xf32"),
    ("4xf32", "stablehlo.is_finite %arg0 : (tensor<4xf32>) -> tensor<4xi1>", "4xi1"),
    ("4xf32", "stablehlo.convert %arg0 : (tensor<4xf32>) -> tensor<4xi32>", "4xi32"),
    ("4xi32", "stablehlo.bitcast_convert %arg0 : (tensor<4xi32>) -> tensor<4xf32>", "4xf32"),
    ("f32 4xf32 f32", "stablehlo.clamp %arg0, %arg1, %arg2 :"
     " (tensor<f32>, tensor<4xf32>, tensor<f32>) -> tensor<4xf32>", "4xf32"),
    ("4xf32 4xf32 4xf32", "stablehlo.clamp %arg0, %arg1, %arg2 : tensor<4xf32>", "4xf32"),
    ("4xf32 4xf32", "stablehlo.compare LT, %arg0, %arg1, FLOAT :"
     " (tensor<4xf32>, tensor<4xf32>) -> tensor<4xi1>", "4xi1"),
    ("4xi8 4xi8", "stablehlo.compare GE, %arg0, %arg1 :"
     " (tensor<4xi8>, tensor<4xi8>) -> tensor<4xi1>", "4xi1"),
    ("i1 4xf32 4xf32", "stablehlo.select %arg0, %arg1, %arg2 : tensor<i1>, tensor<4xf32>",
     "4xf32"),
    ("4xf32", "stablehlo.broadcast_in_dim %arg0, dims = [1] :"
     " (tensor<4xf32>) -> tensor<3x4xf32>", "3x4xf32"),
    ("f32", "stablehlo.broadcast_in_dim %arg0, dims = [] : (tensor<f32>) -> tensor<3xf32>",
     "3xf32"),
    ("2x6xf32", "stablehlo.reshape %arg0 : (tensor<2x6xf32>) -> tensor<3x4xf32>", "3x4xf32"),
    ("2x6xf32", "stablehlo.transpose %arg0, dims = [1, 0] : (tensor<2x6xf32>) -> tensor<6x2xf32>",
     "6x2xf32"),
    ("", "stablehlo.iota dim = 1 : tensor<2x3xi32>", "2x3xi32"),
    ("9x8xf32", "stablehlo.slice %arg0 [1:9:2, 0:8] : (tensor<9x8xf32>) -> tensor<4x8xf32>",
     "4x8xf32"),
    ("3xf32 f32", "stablehlo.pad %arg0, %arg1, low = [-1], high = [2], interior = [1] :"
     " (tensor<3xf32>, tensor<f32>) -> tensor<6xf32>", "6xf32"),
    ("3xf32 2xf32", "stablehlo.concatenate %arg0, %arg1, dim = 0 :"
     " (tensor<3xf32>, tensor<2xf32>) -> tensor<5xf32>", "5xf32"),
    ("3x2xf32", "stablehlo.reverse %arg0, dims = [0, 1] : tensor<3x2xf32>", "3x2xf32"),
    ("3xf32", "stablehlo.get_dimension_size %arg0, dim = 0 : (tensor<3xf32>) -> tensor<i32>",
     "i32"),
    ("3x4xf32 i32 i32", "stablehlo.dynamic_slice %arg0, %arg1, %arg2, sizes = [1, 2] :"
     " (tensor<3x4xf32>, tensor<i32>, tensor<i32>) -> tensor<1x2xf32>", "1x2xf32"),
    ("4xf32 2xf32 i32", "stablehlo.dynamic_update_slice %arg0, %arg1, %arg2 :"
     " (tensor<4xf32>, tensor<2xf32>, tensor<i32>) -> tensor<4xf32>", "4xf32"),
    ("3x4xf32 4x5xf32", "stablehlo.dot_general %arg0, %arg1, contracting_dims = [1] x [0],"
     " precision = [DEFAULT, HIGHEST] : (tensor<3x4xf32>, tensor<4x5xf32>) -> tensor<3x5xf32>",
     "3x5xf32"),
    ("2x3x4xf32 2x4x5xf32", "stablehlo.dot_general %arg0, %arg1, batching_dims = [0] x [0],"
     " contracting_dims = [2] x [1] : (tensor<2x3x4xf32>, tensor<2x4x5xf32>) -> tensor<2x3x5xf32>",
     "2x3x5xf32"),
    ("1x8x8x3xf32 3x3x3x4xf32", "stablehlo.convolution(%arg0, %arg1)"
     " dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],"
     " window = {stride = [2, 2], pad = [[1, 1], [0, 0]], lhs_dilate = [1, 1],"
     " rhs_dilate = [1, 1], reverse = [false, false]}"
     " {batch_group_count = 1 : i64, feature_group_count = 1 : i64,"
     " precision_config = [#stablehlo<precision DEFAULT>, #stablehlo<precision DEFAULT>]} :"
     " (tensor<1x8x8x3xf32>, tensor<3x3x3x4xf32>) -> tensor<1x4x3x4xf32>", "1x4x3x4xf32"),
    ("3x4xf32 f32", "stablehlo.reduce(%arg0 init: %arg1) applies stablehlo.add across"
     " dimensions = [1] : (tensor<3x4xf32>, tensor<f32>) -> tensor<3xf32>", "3xf32"),
    ("5x3xf32 2x1xi32", '"stablehlo.gather"(%arg0, %arg1) <{dimension_numbers ='
     " #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0],"
     " index_vector_dim = 1>, indices_are_sorted = false, slice_sizes = array<i64: 1, 3>}> :"
     " (tensor<5x3xf32>, tensor<2x1xi32>) -> tensor<2x3xf32>", "2x3xf32"),
    ("3xf32 1xi32", "stablehlo.dynamic_reshape %arg0, %arg1 :"
     " (tensor<3xf32>, tensor<1xi32>) -> tensor<?xf32>", "?xf32"),
    ("1xi32", "stablehlo.dynamic_iota %arg0, dim = 0 : (tensor<1xi32>) -> tensor<?xf32>", "?xf32"),
    ("f32 1xi32", "stablehlo.dynamic_broadcast_in_dim %arg0, %arg1, dims = [] :"
     " (tensor<f32>, tensor<1xi32>) -> tensor<?xf32>", "?xf32"),
]


def _function(operands: str, line: str, result: str) -> str:
    arguments = ", ".join(f"%arg{i}: tensor<{t}>" for i, t in enumerate(operands.split()))
    return (f"module @main {{\n  func.func public @main({arguments}) -> tensor<{result}> {{\n"
            f"    %0 = {line}\n    return %0 : tensor<{result}>\n  }}\n}}\n")


@pytest.mark.parametrize("row", LINES, ids=lambda row: row[1].split()[0].strip('"')[:40])
def test_ops_are_spelled_as_stablehlo_spells_them(row):
    text = _function(*row)
    assert str(parse_module(text)) == text


@pytest.mark.outside("jax")
def test_the_spellings_above_are_stablehlo(jax_python):
    """JAX's own printer gives back each line (it may order or drop defaults of generic forms)."""
    script = """
import json, sys
from jax._src.interpreters import mlir
from jax._src.lib.mlir import ir
out = []
with mlir.make_ir_context():
    for text in json.load(sys.stdin):
        module = ir.Module.parse(text)
        module.operation.verify()
        out.append(str(module))
print(json.dumps(out))
"""
    texts = [_function(*row) for row in LINES]
    run = subprocess.run([jax_python, "-c", script], input=json.dumps(texts), text=True,
                         capture_output=True, check=True)
    for mine, theirs in zip(texts, json.loads(run.stdout), strict=True):
        assert str(parse_module(theirs)) == mine
        line, expected = (t.splitlines()[2].partition(" = ")[2] for t in (mine, theirs))
        assert line == expected


@pytest.mark.outside("jax")
def test_xla_runs_what_is_printed(jax_python, tmp_path):
    """A training step traced by tfn, derivatives included, gives in XLA the same numbers."""
    draw = np.random.default_rng(0)

    def normal(*shape):
        return draw.normal(size=shape).astype(np.float32) * np.float32(0.3)

    def step(kernel, bias, weights, x, y):
        def loss(kernel, bias, weights):
            h = nn.max_pool(nn.relu(nn.conv(x, kernel, padding="same") + bias), 2)
            logits = tnp.reshape(h, (h.shape[0], 128)) @ weights
            return tnp.mean(nn.softmax_cross_entropy(logits, y))

        value, grads = value_and_grad(loss, argnums=(0, 1, 2))(kernel, bias, weights)
        pairs = zip((kernel, bias, weights), grads, strict=True)
        return [value, *(p - g * np.float32(0.1) for p, g in pairs)]

    arrays = [normal(3, 3, 1, 8), normal(8), normal(128, 10), normal(16, 8, 8, 1),
              np.eye(10, dtype=np.float32)[draw.integers(0, 10, 16)]]
    program, _ = trace(step, [TensorType(a.shape, as_dtype(a.dtype)) for a in arrays])
    (tmp_path / "step.mlir").write_text(str(Module({"main": program})))
    np.savez(tmp_path / "in.npz", *arrays)
    script = """
import sys, jax, numpy as np
from jax._src.interpreters import mlir
from jax._src.lib import xla_client
from jax._src.lib.mlir import ir
folder = sys.argv[1]
arrays = np.load(f"{folder}/in.npz")
device = jax.devices()[0]
with mlir.make_ir_context():
    module = ir.Module.parse(open(f"{folder}/step.mlir").read())
    code = mlir.module_to_bytecode(module)
run = device.client.compile_and_load(
    code, xla_client.DeviceList((device,)), xla_client.CompileOptions())
results = run.execute_sharded([jax.device_put(arrays[k]) for k in arrays.files])
np.savez(f"{folder}/out.npz", *[np.asarray(r[0]) for r in
                                results.disassemble_into_single_device_arrays()])
"""
    subprocess.run([jax_python, "-c", script, str(tmp_path)], check=True)
    with np.load(tmp_path / "out.npz") as theirs:
        for mine, name in zip(evaluate(program, arrays), theirs.files, strict=True):
            np.testing.assert_allclose(mine, theirs[name], rtol=1e-5, atol=1e-6)


def test_regions():
    """Several reduced values, loops and generic regions keep their arguments and order."""
    text = """module @main {
  func.func public @main(%arg0: tensor<4xf32>, %arg1: tensor<4xi32>, %arg2: tensor<f32>, %arg3: tensor<i32>) -> (tensor<f32>, tensor<i32>) {
    %2:2 = stablehlo.reduce(%arg0 init: %arg2), (%arg1 init: %arg3) across dimensions = [0] : (tensor<4xf32>, tensor<4xi32>, tensor<f32>, tensor<i32>) -> (tensor<f32>, tensor<i32>)
     reducer(%arg4: tensor<f32>, %arg6: tensor<f32>) (%arg5: tensor<i32>, %arg7: tensor<i32>) {
      %0 = stablehlo.maximum %arg4, %arg6 : tensor<f32>
      %1 = stablehlo.minimum %arg5, %arg7 : tensor<i32>
      stablehlo.return %0, %1 : tensor<f32>, tensor<i32>
    }
    %5:2 = stablehlo.while(%arg8 = %2#0, %arg9 = %2#1) : tensor<f32>, tensor<i32>
    cond {
      %3 = stablehlo.compare LT, %arg9, %arg3 : (tensor<i32>, tensor<i32>) -> tensor<i1>
      stablehlo.return %3 : tensor<i1>
    } do {
      %4 = stablehlo.add %arg8, %arg8 : tensor<f32>
      stablehlo.return %4, %arg9 : tensor<f32>, tensor<i32>
    }
    %8:2 = "stablehlo.sort"(%arg0, %arg1) <{dimension = 0 : i64, is_stable = true}> ({
    ^bb0(%arg12: tensor<f32>, %arg13: tensor<f32>, %arg14: tensor<i32>, %arg15: tensor<i32>):
      %6 = stablehlo.compare LT, %arg12, %arg13, TOTALORDER : (tensor<f32>, tensor<f32>) -> tensor<i1>
      stablehlo.return %6 : tensor<i1>
    }) : (tensor<4xf32>, tensor<4xi32>) -> (tensor<4xf32>, tensor<4xi32>)
    return %5#0, %5#1 : tensor<f32>, tensor<i32>
  }
}
"""  # noqa: E501
    module = parse_module(text)
    assert str(parse_module(str(module))) == str(module)
    names = [op.name.partition(".")[2] for op in module["main"].ops]
    assert names == ["reduce", "while", "sort"]
    for line in ("stablehlo.while(%arg8 = %2#0, %arg9 = %2#1) : tensor<f32>, tensor<i32>",
                 "reducer(%arg4: tensor<f32>, %arg6: tensor<f32>)"
                 " (%arg5: tensor<i32>, %arg7: tensor<i32>) {", "} do {"):
        assert line in str(module)


ARRAYS = {
    "scalar": np.float32(0.1),
    "list": np.array([[1, -2], [3, 4]], np.int8),
    "splat": np.broadcast_to(np.float32(2.5), (3, 1000)),
    "equal elements": np.full((40,), 7, np.uint64),
    "empty": np.zeros((0, 2), np.int64),
    "specials": np.array([np.inf, -np.inf, np.nan, -0.0, 1e-45, 3.4e38, 1 / 3], np.float32),
    "nan payload": np.array([0x7FC00001, 0xFFC00000], np.uint32).view(np.float32),
    "half": np.array([0.1, 65504, 6e-8], np.float16),
    "bfloat16": np.array([0.1, 3e38, -1], ml_dtypes.bfloat16),
    "double": np.array([0.1, 1e-308, np.pi]),
    "many": np.random.default_rng(0).normal(size=(7, 9)),
    "booleans": np.arange(50) % 3 == 0,
    "complex": np.array([1 + 2j, -0.5j], np.complex64),
    "many complex": np.arange(40) * (1 + 1j),
    "extremes": np.array([-2**63, 2**63 - 1, 0]),
}


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS.keys())
def test_constants_read_back_bit_for_bit(array):
    text = write_dense(np.asarray(array))
    type = TensorType(np.shape(array), as_dtype(array.dtype))
    literal, _, printed = text.rpartition(" : ")
    assert printed == str(type)
    back = read_dense(literal, type)
    assert back.dtype == array.dtype and back.shape == np.shape(array)
    assert back.tobytes() == np.ascontiguousarray(array).tobytes()


def test_any_float_reads_back():
    scalar = TensorType((), F32)
    for bits in np.random.default_rng(1).integers(0, 2**32, 500, np.uint32):
        text = write_float(np.asarray(bits).view(np.float32)[()])
        assert read_dense(f"dense<{text}>", scalar).view(np.uint32) == bits, text


def test_large_constants_are_hex_and_splats_one_number():
    assert write_dense(np.arange(64, dtype=np.int32)).startswith('dense<"0x00000000010000000200')
    assert write_dense(np.ones((100, 100), np.float32)) == (
        "dense<1.000000e+00> : tensor<100x100xf32>")


@pytest.mark.parametrize(("value", "text"), [
    (True, "true"), (3, "3 : i64"), (np.int32(3), "3 : i32"), (0.5, "5.000000e-01 : f64"),
    (np.float32(0.1), "1.000000e-01 : f32"), ("a\"b\n", '"a\\22b\\0A"'),
    ((1, "x"), '[1 : i64, "x"]'),
    ({"a": 1, "b-c": True}, '{a = 1 : i64, "b-c" = true}'),
    (np.array([1, 2]), "dense<[1, 2]> : tensor<2xi64>"), (F32, "f32"),
])
def test_attributes_by_python_type(value, text):
    assert write_attribute(value) == text


def test_strings_keep_every_byte():
    text = "é\x00\\" + '"'
    module = parse_module("module @m attributes {mhlo.note = " + write_string(text)
                          + "} { func.func @main() { return } }")
    assert module.attributes["mhlo.note"] == text


def test_functions_that_ops_hold_are_printed_once_under_unique_names():
    def make(name):
        inner, _ = trace(lambda x: [bind("stablehlo.add", x, x)], [TensorType((2,), F32)], name)
        inner.public = False
        return inner

    first, second = make("twice"), make("twice")

    def body(x):
        for callee in (first, second, first):
            x = bind("func.call", x, callee=callee)
        return [x]

    program, _ = trace(body, [TensorType((2,), F32)])
    for text in (str(program), str(Module({"main": program}))):
        assert text.count("func.func private @twice(") == 1
        assert text.count("func.func private @twice_0(") == 1
        assert text.count("func.call @twice(") == 2
    again = parse_module(str(Module({"main": program})))
    assert list(again.functions) == ["main"]


def test_argument_and_result_attributes():
    program, _ = trace(lambda x: [x], [TensorType((2,), F32)])
    program.argument_attributes[0] = {"tf.aliasing_output": 0}
    program.result_attributes[0] = {"jax.result_info": "loss"}
    assert ('(%arg0: tensor<2xf32> {tf.aliasing_output = 0 : i32})'
            ' -> (tensor<2xf32> {jax.result_info = "loss"})') in str(program)


class _Odd(OpDefinition):
    name = "tfn.odd"
    attributes = {"kernel": "no such kind"}


def test_printing_never_fails():
    """Ops without their attributes, undefined operands, unknown attribute values, internal ops."""
    block = Block([TensorType((2,), F32)])
    elsewhere = Block([TensorType((2,), F32)])
    (x,) = block.arguments
    for name, operands in [("stablehlo.transpose", [x]), ("stablehlo.slice", []),
                           ("stablehlo.dot_general", [x]), ("stablehlo.constant", []),
                           ("stablehlo.while", [x]), ("stablehlo.reduce", [x]),
                           ("stablehlo.convolution", []), ("func.call", []),
                           ("stablehlo.select", [elsewhere.arguments[0]])]:
        block.ops.append(Op(definition(name), operands, [x.type]))
    block.ops.append(Op(_Odd, [x], [x.type], {"kernel": object(), "n": None}, [elsewhere]))
    text = str(Function("broken", block))
    assert '"tfn.odd"(%arg0) <{kernel = "<object' in text
    assert "%undefined" in text
    assert '"stablehlo.transpose"(%arg0) : (tensor<2xf32>) -> tensor<2xf32>' in text
