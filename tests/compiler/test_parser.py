"""The parser: every spelling of a program gives the same IR, and bad text one clear error.

Oracle for whole programs is JAX (in its own environment): train steps it prints are read, run with
the evaluator and compared with JAX's results; what tfn prints is given to JAX's parser.
"""

import subprocess

import numpy as np
import pytest

from tfn.compiler.compile import compile_function
from tfn.compiler.errors import OpError, ParseError, TfnError, UnsupportedError
from tfn.compiler.ir.attributes import Verbatim
from tfn.compiler.ir.evaluator import evaluate
from tfn.compiler.ir.parser import parse_module
from tfn.compiler.ir.structs import ConvDimensionNumbers

JAX_PROGRAMS = '''
import sys, numpy as np, jax, jax.numpy as jnp
from jax import lax

folder = sys.argv[1]

def loss_of(logits, y):
    return -jnp.mean(jnp.sum(jax.nn.log_softmax(logits) * jax.nn.one_hot(y, 10), -1))

def step(apply):
    def run(params, x, y, key):
        loss, grads = jax.value_and_grad(lambda p: loss_of(apply(p, x, key), y))(params)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), loss
    return run

def mlp(p, x, key):
    h = jax.nn.relu(x.reshape(16, 64) @ p["w0"] + p["b0"])
    return h @ p["w1"] + p["b1"]

def cnn(p, x, key):
    h = lax.conv_general_dilated(x, p["k"], (1, 1), "SAME",
                                 dimension_numbers=("NHWC", "HWIO", "NHWC")) + p["kb"]
    h = lax.reduce_window(jax.nn.relu(h), -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    mean, var = jnp.mean(h, (0, 1, 2)), jnp.var(h, (0, 1, 2))
    h = ((h - mean) * lax.rsqrt(var + 1e-3)).reshape(16, -1)
    h = jnp.where(jax.random.bernoulli(key, 0.8, h.shape), h / 0.8, 0)
    return jax.nn.gelu(h) @ p["w"] + p["b"]

draw = np.random.default_rng(0)
normal = lambda *shape: draw.normal(size=shape).astype(np.float32) * 0.3
x, y = normal(16, 8, 8, 1), draw.integers(0, 10, 16).astype(np.int32)
key = np.array([0, 42], np.uint32)
programs = {
    "mlp": (mlp, {"w0": normal(64, 32), "b0": normal(32), "w1": normal(32, 10), "b1": normal(10)}),
    "cnn": (cnn, {"k": normal(3, 3, 1, 8), "kb": normal(8), "w": normal(128, 10), "b": normal(10)}),
}
for name, (apply, params) in programs.items():
    run = jax.jit(step(apply), donate_argnums=0)
    lowered = run.lower(params, x, y, key)
    open(f"{folder}/{name}.mlir", "w").write(lowered.as_text())
    open(f"{folder}/{name}.debug.mlir", "w").write(lowered.as_text(debug_info=True))
    module = lowered.compiler_ir()
    open(f"{folder}/{name}.generic.mlir", "w").write(
        module.operation.get_asm(print_generic_op_form=True))
    arguments = [*jax.tree.leaves(params), x, y, key]
    kept = sorted(lowered._lowering.compile_args["kept_var_idx"])
    np.savez(f"{folder}/{name}.in.npz", *[arguments[i] for i in kept])
    np.savez(f"{folder}/{name}.out.npz", *jax.tree.leaves(run(params, x, y, key)))
'''

JAX_PARSES = """
import sys
from jax._src.interpreters import mlir
from jax._src.lib.mlir import ir
with mlir.make_ir_context():
    ir.Module.parse(open(sys.argv[1]).read()).operation.verify()
"""


@pytest.fixture(scope="module")
def jax_programs(jax_python, tmp_path_factory):
    folder = tmp_path_factory.mktemp("jax")
    subprocess.run([jax_python, "-c", JAX_PROGRAMS, str(folder)], check=True)
    return folder


def _arrays(file):
    with np.load(file) as data:
        return [data[f"arr_{i}"] for i in range(len(data.files))]


@pytest.mark.outside("jax")
@pytest.mark.parametrize("name", ["mlp", "cnn"])
class TestJaxTrainSteps:
    @pytest.mark.parametrize("engine", ["evaluator", "compiler"])
    def test_reads_and_agrees(self, jax_programs, name, engine):
        module = parse_module((jax_programs / f"{name}.mlir").read_text(), f"{name}.mlir")
        main = module["main"]
        assert main.argument_attributes[0] == {"tf.aliasing_output": 0}
        inputs = _arrays(jax_programs / f"{name}.in.npz")
        results = (evaluate(main, inputs) if engine == "evaluator"
                   else compile_function(main)(*inputs))
        for mine, theirs in zip(results, _arrays(jax_programs / f"{name}.out.npz"), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("form", ["debug", "generic"])
    def test_all_forms_are_one_program(self, jax_programs, name, form):
        plain = parse_module((jax_programs / f"{name}.mlir").read_text())
        other = parse_module((jax_programs / f"{name}.{form}.mlir").read_text())
        assert str(other) == str(plain)

    def test_jax_reads_what_is_printed(self, jax_programs, jax_python, name, tmp_path):
        module = parse_module((jax_programs / f"{name}.mlir").read_text())
        printed = tmp_path / "printed.mlir"
        printed.write_text(str(module))
        subprocess.run([jax_python, "-c", JAX_PARSES, str(printed)], check=True)
        assert str(parse_module(printed.read_text())) == str(module)


def _main(body: str, arguments: str = "%a: tensor<2x3xf32>", results: str = "tensor<2x3xf32>"):
    return f"func.func @main({arguments}) -> {results} {{\n{body}\n}}"


def _only(body: str, **signature):
    return parse_module(_main(body, **signature))["main"].ops[0]


# Spellings of one op: each list reads as the same text.
EQUIVALENT = {
    "transpose": (
        "tensor<3x2xf32>",
        ["stablehlo.transpose %a, dims = [1, 0] : (tensor<2x3xf32>) -> tensor<3x2xf32>",
         '"stablehlo.transpose"(%a) <{permutation = array<i64: 1, 0>}>'
         " : (tensor<2x3xf32>) -> tensor<3x2xf32>",
         '"stablehlo.transpose"(%a) {permutation = dense<[1, 0]> : tensor<2xi64>}'
         " : (tensor<2x3xf32>) -> tensor<3x2xf32>",
         "stablehlo.transpose %a, dims = [1, 0] {sdy.note = 1 : i64}"
         " : (tensor<2x3xf32>) -> tensor<3x2xf32> loc(\"x.py\":1:2)"]),
    "negate": (
        "tensor<2x3xf32>",
        ["stablehlo.negate %a : tensor<2x3xf32>",
         "stablehlo.negate %a : (tensor<2x3xf32>) -> tensor<2x3xf32>",
         '"stablehlo.negate"(%a) : (tensor<2x3xf32>) -> tensor<2x3xf32> // why']),
    "compare": (
        "tensor<2x3xi1>",
        ["stablehlo.compare  LT, %a, %a,  TOTALORDER :"
         " (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<2x3xi1>",
         '"stablehlo.compare"(%a, %a) {compare_type = #stablehlo<comparison_type TOTALORDER>,'
         " comparison_direction = #stablehlo<comparison_direction LT>} :"
         " (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<2x3xi1>"]),
    "dot_general": (
        "tensor<2x2xf32>",
        ["stablehlo.dot_general %a, %a, contracting_dims = [1] x [1]"
         " : (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<2x2xf32>",
         '"stablehlo.dot_general"(%a, %a) <{dot_dimension_numbers ='
         " #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}>"
         " : (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<2x2xf32>"]),
}


@pytest.mark.parametrize(("results", "spellings"), EQUIVALENT.values(), ids=EQUIVALENT.keys())
def test_spellings_of_one_op(results, spellings):
    result = results.strip()
    texts = [str(parse_module(_main(f"  %0 = {s}\n  return %0 : {result}", results=results)))
             for s in spellings]
    assert texts == texts[:1] * len(texts)


def test_reducers():
    pretty = """
  %0 = stablehlo.reduce(%a init: %b) applies stablehlo.add across dimensions = [1]
    : (tensor<2x3xf32>, tensor<f32>) -> tensor<2xf32>"""
    region = """
  %0 = stablehlo.reduce(%a init: %b) across dimensions = [1]
    : (tensor<2x3xf32>, tensor<f32>) -> tensor<2xf32>
   reducer(%p: tensor<f32>, %q: tensor<f32>)  {
    %s = stablehlo.add %p, %q : tensor<f32>
    stablehlo.return %s : tensor<f32>
  }"""
    generic = """
  %0 = "stablehlo.reduce"(%a, %b) ({
  ^bb0(%p: tensor<f32>, %q: tensor<f32>):
    %s = "stablehlo.add"(%p, %q) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%s) : (tensor<f32>) -> ()
  }) {dimensions = array<i64: 1>} : (tensor<2x3xf32>, tensor<f32>) -> tensor<2xf32>"""
    texts = [str(parse_module(_main(body + "\n  return %0 : tensor<2xf32>",
                                    "%a: tensor<2x3xf32>, %b: tensor<f32>", "tensor<2xf32>")))
             for body in (pretty, region, generic)]
    assert texts == texts[:1] * 3


def test_convolution_window_and_defaults():
    op = _only("""
  %0 = stablehlo.convolution(%a, %b) dim_numbers = [b, 0, f]x[0, i, o]->[f, b, 0],
    window = {pad = [[2, 1]], lhs_dilate = [2], reverse = [true]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x4x2xf32>, tensor<3x2x5xf32>) -> tensor<5x1x8xf32>
  return %0 : tensor<5x1x8xf32>""",
               arguments="%a: tensor<1x4x2xf32>, %b: tensor<3x2x5xf32>",
               results="tensor<5x1x8xf32>")
    assert op.attributes["dimension_numbers"] == ConvDimensionNumbers(
        0, 2, (1,), 1, 2, (0,), 1, 0, (2,))
    assert op.attributes["padding"] == ((2, 1),)
    assert op.attributes["window_reversal"] == (True,)
    assert "window_strides" not in op.attributes


LITERALS = [
    ("dense<5> : tensor<i32>", np.int32(5)),
    ("dense<[[1, 2], [3, 4]]> : tensor<2x2xi64>", np.array([[1, 2], [3, 4]])),
    ("dense<0x7F800000> : tensor<f32>", np.float32(np.inf)),
    ("dense<[0x7FC00000, -1.5]> : tensor<2xf32>", np.array([np.nan, -1.5], np.float32)),
    ("dense<-1.250000e-01> : tensor<3xf16>", np.full(3, -0.125, np.float16)),
    ("dense<true> : tensor<2xi1>", np.array([True, True])),
    ('dense<"0x0100000002000000"> : tensor<2xui32>', np.array([1, 2], np.uint32)),
    ('dense<"0x01000100"> : tensor<4xi1>', np.array([1, 0, 1, 0], bool)),
    ("dense<(1.0, -2.0)> : tensor<complex<f32>>", np.complex64(1 - 2j)),
    ("dense<[(1.0, 0x7FF0000000000000), (0.0, 1.0)]> : tensor<2xcomplex<f64>>",
     np.array([complex(1, np.inf), 1j])),
    ("dense<> : tensor<0x3xf32>", np.zeros((0, 3), np.float32)),
    ("dense<4294967295> : tensor<i32>", np.int32(-1)),
]


@pytest.mark.parametrize(("text", "value"), LITERALS, ids=[t for t, _ in LITERALS])
def test_dense_literals(text, value):
    type = text.partition(" : ")[2]
    op = _only(f"  %c = stablehlo.constant {text}\n  return %c : {type}", results=type)
    got = op.attributes["value"]
    assert got.dtype == value.dtype and got.shape == value.shape
    np.testing.assert_array_equal(got, value)


def test_a_splat_takes_no_memory():
    op = _only("  %c = stablehlo.constant dense<1.0> : tensor<65536x65536xf32>\n"
               "  return %c : tensor<65536x65536xf32>", results="tensor<65536x65536xf32>")
    assert op.attributes["value"].strides == (0, 0)


def test_values_of_ops_with_several_results():
    module = parse_module("""
func.func @main(%a: tensor<f32>, %b: tensor<i32>) -> (tensor<i32>, tensor<f32>) {
  %x:2 = call @swap(%a, %b) : (tensor<f32>, tensor<i32>) -> (tensor<i32>, tensor<f32>)
  %y, %z = func.call @swap(%a, %b) : (tensor<f32>, tensor<i32>) -> (tensor<i32>, tensor<f32>)
  return %x#0, %z : tensor<i32>, tensor<f32>
}
func.func private @swap(%a: tensor<f32>, %b: tensor<i32>) -> (tensor<i32>, tensor<f32>) {
  return %b, %a : tensor<i32>, tensor<f32>
}""")
    first, second = module["main"].ops
    assert module["main"].returns == [first.results[0], second.results[1]]
    assert first.attributes["callee"] is second.attributes["callee"]
    assert list(module.functions) == ["main"]


def test_attributes_of_modules_arguments_and_results_are_carried():
    text = """module @m attributes {mhlo.num_partitions = 2 : i32, x.list = [1, "a", unit]} {
  sdy.mesh @mesh = <["x"=2]>
  func.func public @main(%arg0: tensor<4xf32> {mhlo.sharding = "{replicated}", sdy.sharding = #sdy.sharding<@mesh, [{"x"}]>}, %arg1: tensor<4xf32> {tf.aliasing_output = 0 : i32}) -> (tensor<4xf32> {jax.result_info = "r[0]"}) {
    return %arg1 : tensor<4xf32>
  }
}"""  # noqa: E501
    module = parse_module(text)
    assert module.name == "m"
    assert module.attributes["mhlo.num_partitions"] == 2
    main = module["main"]
    assert main.argument_attributes[0]["sdy.sharding"] == Verbatim(
        '#sdy.sharding<@mesh, [{"x"}]>')
    assert main.argument_attributes[1] == {"tf.aliasing_output": 0}
    assert main.result_attributes == [{"jax.result_info": "r[0]"}]
    for line in text.replace('[1, "a"', '[1 : i64, "a"').splitlines():
        assert line in str(module)


def test_composites_keep_name_attributes_and_decomposition():
    text = """
func.func public @main(%arg0: tensor<4xf32>) -> tensor<4xf32> {
  %0 = stablehlo.composite "tfn.softmax" %arg0 {composite_attributes = {axis = -1 : i64, scale = 0.5 : f32}, decomposition = @impl, version = 2 : i32} : (tensor<4xf32>) -> tensor<4xf32>
  return %0 : tensor<4xf32>
}
func.func private @impl(%arg0: tensor<4xf32>) -> tensor<4xf32> {
  return %arg0 : tensor<4xf32>
}"""  # noqa: E501
    module = parse_module(text)
    op = module["main"].ops[0]
    assert op.attributes["name"] == "tfn.softmax"
    assert op.attributes["composite_attributes"] == {"axis": -1, "scale": np.float32(0.5)}
    assert op.attributes["decomposition"].name == "impl"
    assert str(parse_module(str(module))) == str(module)


def test_ops_know_their_line():
    op = parse_module(_main("  %0 = stablehlo.negate %a : tensor<2x3xf32>\n"
                            "  return %0 : tensor<2x3xf32>"), "net.mlir")["main"].ops[0]
    assert str(op.location) == "net.mlir:2"


def test_ops_know_the_users_line_when_the_text_does():
    """As JAX prints them with `debug_info=True`."""
    body = """
  %0 = stablehlo.tanh %a : tensor<2x3xf32> loc(#loc4)
  %1 = stablehlo.negate %0 : tensor<2x3xf32> loc("net.py":9:1)
  %2 = stablehlo.abs %1 : tensor<2x3xf32> loc(unknown)
  return %2 : tensor<2x3xf32> loc(#loc)"""
    aliases = """
#loc = loc(unknown)
#loc1 = loc("model.py":3:19 to :30)
#loc2 = loc("layer"(#loc1))
#loc3 = loc(callsite(#loc2 at #loc5))
#loc4 = loc("jit(f)/tanh"(#loc3))
#loc5 = loc("main.py":1:1)"""
    ops = parse_module(_main(body) + aliases, "f.mlir")["main"].ops
    assert [str(op.location) for op in ops] == ["model.py:3", "net.py:9", "f.mlir:5"]
    assert ops[0].location.function == "layer"


NEG = "  %0 = stablehlo.negate %a : tensor<2x3xf32>\n"
RETURN = "  return %0 : tensor<2x3xf32>"

BAD = {
    "empty": ("", ParseError, 1, "the text defines no function"),
    "not MLIR": ("hello world", ParseError, 1, "expected `func.func`, got `hello`"),
    "stray character": (_main("  ~"), ParseError, 2, "unexpected character '~' (column 3)"),
    "unknown op": (_main("  %0 = stablehlo.frob %a : tensor<2x3xf32>\n" + RETURN),
                   UnsupportedError, 2, "the op `stablehlo.frob` is not supported (column 8)"),
    "no op": (_main("  %0 = frob %a\n" + RETURN), ParseError, 2, "`frob` is not an op"),
    "undefined value": (_main("  %0 = stablehlo.negate %b : tensor<2x3xf32>\n" + RETURN),
                        ParseError, 2, "%b is not defined here (column 25)"),
    "twice defined": (_main(NEG + NEG + RETURN), ParseError, 3, "%0 is defined twice"),
    "other operand type": (_main("  %0 = stablehlo.negate %a : tensor<3x3xf32>\n" + RETURN),
                           ParseError, 2,
                           "operand 0 is a tensor<2x3xf32> where it is defined, a tensor<3x3xf32>"),
    "other result type": (
        _main("  %0 = stablehlo.transpose %a, dims = [1, 0] :"
              " (tensor<2x3xf32>) -> tensor<2x3xf32>\n" + RETURN),
        OpError, 2, "gives tensor<3x2xf32>, not tensor<2x3xf32>"),
    "broken constraint": (
        _main("  %0 = stablehlo.transpose %a, dims = [1, 1] :"
              " (tensor<2x3xf32>) -> tensor<2x3xf32>\n" + RETURN), OpError, 2, "(C2)"),
    "missing attribute": (
        _main('  %0 = "stablehlo.transpose"(%a) : (tensor<2x3xf32>) -> tensor<2x3xf32>\n'
              + RETURN), ParseError, 2, "stablehlo.transpose needs the attribute `permutation`"),
    "attribute of another kind": (
        _main('  %0 = "stablehlo.transpose"(%a) <{permutation = "x"}> :'
              " (tensor<2x3xf32>) -> tensor<2x3xf32>\n" + RETURN),
        ParseError, 2, "`permutation` must be a list of integers"),
    "unknown attribute": (
        _main("  %0 = stablehlo.negate %a {frob = 1 : i64} : tensor<2x3xf32>\n" + RETURN),
        UnsupportedError, 2, "the attribute `frob` of stablehlo.negate is not supported"),
    "unknown enum case": (
        _main("  %0 = stablehlo.compare ABOVE, %a, %a :"
              " (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<2x3xi1>\n" + RETURN),
        ParseError, 2, "`comparison_direction` must be one of EQ, NE, GE, GT, LE, LT"),
    "results and names": (_main("  %0:2 = stablehlo.negate %a : tensor<2x3xf32>\n" + RETURN),
                          ParseError, 2, "stablehlo.negate has 1 results, 2 are named"),
    "no terminator": (_main(NEG), ParseError, 4, "expected an op or `return`, got `}`"),
    "returns another type": (_main("  return %a : tensor<2x3xf32>", results="tensor<f32>"),
                             ParseError, 3, "@main returns tensor<2x3xf32> but is declared"),
    "no such function": (_main("  %0 = call @f(%a) : (tensor<2x3xf32>) -> tensor<2x3xf32>\n"
                               + RETURN), ParseError, 2, "there is no function @f"),
    "recursion": (_main("  %0 = call @main(%a) : (tensor<2x3xf32>) -> tensor<2x3xf32>\n"
                        + RETURN), ParseError, 2, "the function @main calls itself"),
    "function twice": (_main(NEG + RETURN) * 2, ParseError, 4, "@main is defined twice"),
    "declaration": ("func.func private @f(tensor<f32>) -> tensor<f32>",
                    UnsupportedError, 1, "@f is declared without a body"),
    "element type": (_main("  return", "%a: tensor<4xtf32>"), UnsupportedError, 1,
                     "the element type tf32 of `tensor<4xtf32>` is not supported"),
    "quantized": (_main("  return", "%a: tensor<4x!quant.uniform<i8:i32, 0.5>>"),
                  UnsupportedError, 1, "for one of bf16, f16, f32, f64, not `!quant.uniform<i8:i32"),
    "dialect type": (_main("  return", "%a: !stablehlo.witness"), UnsupportedError, 1,
              "the type !stablehlo.witness is not supported"),
    "bad type": (_main("  return", "%a: tensor<4yf32>"), ParseError, 1,
                 "`tensor<4yf32>` is not a tensor type"),
    "huge": (_main("  return", "%a: tensor<4611686018427387904xf32>"), UnsupportedError, 1,
             "`tensor<4611686018427387904xf32>` is too large"),
    "huge product": (_main("  return", "%a: tensor<2097152x2097152xf32>"), UnsupportedError, 1,
                     "has 4398046511104 elements, more than 2**40"),
    "many dims": (_main("  return", f"%a: tensor<{'1x' * 10_000}f32>"), UnsupportedError, 1,
                  "a tensor with 10000 dims"),
    "short literal": (_main("  %0 = stablehlo.constant dense<[1.0, 2.0]> : tensor<3xf32>"),
                      ParseError, 2, "dimension 0 of the literal has 2 elements"),
    "ragged literal": (_main("  %0 = stablehlo.constant dense<[[1], [2, 3]]> : tensor<2x2xi32>"),
                       ParseError, 2, "dimension 1 of the literal has 1 elements"),
    "hex literal": (_main('  %0 = stablehlo.constant dense<"0x00"> : tensor<3xf32>'),
                    ParseError, 2, "the hex string has 1 bytes, tensor<3xf32> needs 12"),
    "word in a literal": (_main("  %0 = stablehlo.constant dense<nan> : tensor<f32>"),
                          ParseError, 2, "'nan' is not a number"),
    "number out of range": (_main("  %0 = stablehlo.constant dense<300> : tensor<i8>"),
                            ParseError, 2, "300 does not fit i8"),
    "blocks": (_main(NEG + "  return\n^bb1:\n  return"), UnsupportedError, 4,
               "regions of several blocks are not supported"),
}


@pytest.mark.parametrize(("text", "error", "line", "message"), BAD.values(), ids=BAD.keys())
def test_bad_text(text, error, line, message):
    with pytest.raises(TfnError) as caught:
        parse_module(text, "bad.mlir")
    assert type(caught.value) is error
    assert message in caught.value.message
    assert (caught.value.location.file, caught.value.location.line) == ("bad.mlir", line)
    if error is ParseError:
        assert "(column " in caught.value.message


DEPTH = 10_000
IF = '%0 = "stablehlo.if"(%c) ({\n'
DEEP = {
    "regions": "func.func @main(%c: tensor<i1>) -> tensor<f32> {\n" + IF * DEPTH,
    "arrays": "module attributes {a = " + "[" * DEPTH,
    "dictionaries": "module attributes {a = " + "{a = " * DEPTH,
    "structs": "module attributes {a = " + "#stablehlo.x<a = " * DEPTH,
    "opaque": "module attributes {a = #x" + "<" * DEPTH,
    "types": "func.func @main(%a: " + "tensor<" * DEPTH,
    "locations": "module {} loc" + "(" * DEPTH,
    "literal": _main("  %0 = stablehlo.constant dense<" + "[" * DEPTH + "> : tensor<1xf32>"),
    "calls": "".join(
        f"func.func @f{i}(%a: tensor<f32>) -> tensor<f32> {{\n"
        f"  %0 = call @f{i + 1}(%a) : (tensor<f32>) -> tensor<f32>\n"
        "  return %0 : tensor<f32>\n}\n" for i in range(DEPTH))
    + f"func.func @f{DEPTH}(%a: tensor<f32>) -> tensor<f32> {{ return %a : tensor<f32> }}",
}


@pytest.mark.parametrize("text", DEEP.values(), ids=DEEP.keys())
def test_nesting_is_bounded(text):
    with pytest.raises(ParseError):
        parse_module(text)


WHOLE = """module @m attributes {mhlo.num_replicas = 1 : i32} {
  func.func public @main(%arg0: tensor<2x3xf32> {a.b = [1, {c = "d"}]}, %arg1: tensor<f32>) -> (tensor<2xf32> {jax.result_info = "r"}) {
    %c = stablehlo.constant dense<[[1.0, 0x7F800000, -2.5e-1], [0.0, 1.0, 2.0]]> : tensor<2x3xf32>
    %0 = stablehlo.add %arg0, %c : tensor<2x3xf32>
    %1 = stablehlo.slice %0 [0:2, 0:3:1] : (tensor<2x3xf32>) -> tensor<2x3xf32>
    %2:2 = stablehlo.while(%x = %1, %y = %arg1) : tensor<2x3xf32>, tensor<f32>
    cond {
      %p = stablehlo.compare LT, %y, %arg1, FLOAT : (tensor<f32>, tensor<f32>) -> tensor<i1>
      stablehlo.return %p : tensor<i1>
    } do {
      stablehlo.return %x, %y : tensor<2x3xf32>, tensor<f32>
    }
    %3 = "stablehlo.reduce"(%2#0, %arg1) <{dimensions = array<i64: 1>}> ({
    ^bb0(%p: tensor<f32>, %q: tensor<f32>):
      %s = stablehlo.add %p, %q : tensor<f32>
      stablehlo.return %s : tensor<f32>
    }) : (tensor<2x3xf32>, tensor<f32>) -> tensor<2xf32>
    return %3 : tensor<2xf32>
  }
}
"""  # noqa: E501


def test_truncated_text_is_an_error_wherever_it_ends():
    assert parse_module(WHOLE)
    for end in range(len(WHOLE.rstrip())):
        with pytest.raises(TfnError) as caught:
            parse_module(WHOLE[:end])
        assert caught.value.location is not None


def test_damaged_text_gives_a_program_or_an_error():
    """Delete, repeat or replace a character anywhere: never anything but a `TfnError`."""
    random = np.random.default_rng(0)
    for _ in range(1500):
        at = int(random.integers(len(WHOLE)))
        new = random.choice(["", WHOLE[at] * 2, *'%@#!<>{}()[]:,=-"0x?é\n'])
        try:
            parse_module(WHOLE[:at] + new + WHOLE[at + 1:])
        except TfnError as error:
            assert error.location is not None
