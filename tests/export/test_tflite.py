"""TFLite files, run by LiteRT's interpreter and compared with the evaluator and NumPy."""

import re
from pathlib import Path

import numpy as np
import pytest

from tfn.compiler import nn
from tfn.compiler import numpy as tnp
from tfn.compiler.errors import UnsupportedError
from tfn.compiler.ir.dims import Dim
from tfn.compiler.ir.dtypes import F32, F64, I1, I32, I64
from tfn.compiler.trace.core import bind
from tfn.export.bundle import Runner
from tfn.export.report import errors, make_samples
from tfn.export.tflite.check import check_tflite
from tfn.export.tflite.write import lower, tflite_bytes, write_tflite

BATCH, TIME = Dim.named("batch"), Dim.named("time")
litert = pytest.mark.outside("ai_edge_litert")


def codes(bundle):
    """The operators of the only signature in order."""
    (signature,) = bundle.signatures.values()
    return [node.code for node in lower(bundle, signature).nodes]


def run_litert(data, inputs, strict=False):
    """Outputs by name of the signature `serving_default`."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=data)
    if strict:
        details = {d["name"]: d["index"] for d in interpreter.get_input_details()}
        for name, array in inputs.items():
            interpreter.resize_tensor_input(details[name], array.shape, strict=True)
    return interpreter.get_signature_runner("serving_default")(**inputs)


def assert_same(bundle, inputs=None, tolerance=1e-5):
    """LiteRT and the evaluator agree for batches of 1 and 5, or on `inputs`."""
    data = tflite_bytes(bundle)
    for values in [inputs] if inputs else [make_samples(bundle, n)["serving_default"]
                                           for n in (1, 5)]:
        expected = Runner(bundle, engine="evaluator").run(values)
        actual = run_litert(data, values)
        assert actual.keys() == expected.keys()
        for name, want in expected.items():
            assert actual[name].dtype == want.dtype
        _, relative = errors(actual, expected)
        assert relative <= tolerance, f"{relative:.2e}: {codes(bundle)}"


# -- whole models ---------------------------------------------------------------------------------

@litert
@pytest.mark.parametrize("model", ["mlp", "cnn"])
@pytest.mark.parametrize("engine", ["evaluator", "compiler"])
def test_models_in_litert(model, engine, tmp_path, request):
    bundle = request.getfixturevalue(model)
    check = check_tflite(bundle, write_tflite(bundle, tmp_path), engine=engine)
    assert check.max_rel_error <= 1e-5
    assert (check.batches, check.samples) == ((1, 7, 100), 108)


@litert
def test_mlp_against_numpy(mlp):
    x = np.random.default_rng(5).normal(size=(100, 8)).astype(np.float32)
    w = {k: v.astype(np.float64) for k, v in mlp.weights.items()}
    logits = np.maximum(x @ w["w1"] + w["b1"], 0) @ w["w2"] + w["b2"]
    grown = np.exp(logits - logits.max(1, keepdims=True))
    got = run_litert(tflite_bytes(mlp), {"x": x})["output_0"]
    np.testing.assert_allclose(got, grown / grown.sum(1, keepdims=True), rtol=1e-5, atol=1e-7)


@litert
def test_batch_can_be_resized_strictly(mlp):
    x = np.ones((7, 8), np.float32)
    got = run_litert(tflite_bytes(mlp), {"x": x}, strict=True)["output_0"]
    assert got.shape == (7, 4)


def test_bias_and_activation_are_fused(mlp, cnn):
    assert codes(mlp) == ["FULLY_CONNECTED", "FULLY_CONNECTED", "SOFTMAX"]
    assert codes(cnn) == ["CONV_2D", "MUL", "ADD", "MAX_POOL_2D", "CONV_2D", "MAX_POOL_2D",
                          "RESHAPE", "FULLY_CONNECTED", "SOFTMAX"]


@litert
@pytest.mark.parametrize("kernel", [(3, 3, 4, 8), (3, 3, 1, 8), (1, 1, 2, 6)])
def test_a_normalisation_after_a_convolution_is_part_of_it(bundle_of, kernel):
    rng = np.random.default_rng(4)
    width = kernel[-1]
    weights = {"k": rng.normal(size=kernel), "b": rng.normal(size=width),
               "mean": rng.normal(size=width), "variance": rng.uniform(0.1, 2, width),
               "gamma": rng.normal(size=width), "beta": rng.normal(size=width)}
    weights = {k: v.astype(np.float32) for k, v in weights.items()}

    def apply(w, x):
        y = nn.conv(x, w["k"], padding="same") + w["b"]
        return nn.relu(nn.batch_normalization(y, w["mean"], w["variance"], -1, w["beta"],
                                              w["gamma"]))

    bundle = bundle_of(apply, {"x": ((BATCH, 6, 6, 4), F32)}, weights)
    assert len(codes(bundle)) == 1
    assert_same(bundle)


def test_same_bundle_gives_same_bytes(cnn):
    assert tflite_bytes(cnn) == tflite_bytes(cnn)


def test_file_has_the_identifier_and_aligned_constants(cnn):
    data = tflite_bytes(cnn)
    assert data[4:8] == b"TFL3"
    place = data.find(cnn.weights["w"].T.copy().tobytes())
    assert place > 0 and place % 16 == 0


@litert
def test_several_signatures(mlp):
    from dataclasses import replace

    from ai_edge_litert.interpreter import Interpreter

    first = mlp.signature("serving_default")
    both = replace(mlp, signatures={**mlp.signatures, "score": replace(first, name="score")})
    interpreter = Interpreter(model_content=tflite_bytes(both))
    assert set(interpreter.get_signature_list()) == {"serving_default", "score"}
    x = np.ones((2, 8), np.float32)
    np.testing.assert_array_equal(interpreter.get_signature_runner("score")(x=x)["output_0"],
                                  interpreter.get_signature_runner("serving_default")(
                                      x=x)["output_0"])


# -- elementwise ----------------------------------------------------------------------------------

UNARY = {
    "exp": tnp.exp, "log": lambda x: tnp.log(tnp.abs(x) + 1), "sqrt": lambda x: tnp.sqrt(x * x),
    "rsqrt": lambda x: tnp.rsqrt(x * x + 1), "tanh": tnp.tanh, "logistic": nn.sigmoid,
    "sin": tnp.sin, "cos": tnp.cos, "neg": lambda x: -x, "abs": tnp.abs, "sign": tnp.sign,
    "floor": tnp.floor, "ceil": tnp.ceil, "round": tnp.round, "expm1": tnp.expm1,
    "log1p": lambda x: tnp.log1p(tnp.abs(x)), "square": tnp.square,
    "relu": nn.relu, "relu6": lambda x: nn.relu6(x * 5), "leaky_relu": nn.leaky_relu,
    "elu": nn.elu, "selu": nn.selu, "silu": nn.silu, "gelu": nn.gelu, "softplus": nn.softplus,
    "gelu_erf": lambda x: nn.gelu(x, approximate=False),
    "softsign": nn.softsign, "hard_sigmoid": nn.hard_sigmoid, "hard_silu": nn.hard_silu,
    "hard_tanh": nn.hard_tanh, "clip": lambda x: tnp.clip(x, -0.5, 0.25),
    "maximum_0": lambda x: tnp.maximum(x, 0), "minimum": lambda x: tnp.minimum(0.5, x),
    "power": lambda x: tnp.power(tnp.abs(x), 1.7), "isfinite": tnp.isfinite,
    "where": lambda x: tnp.where(x > 0.1, x, 2.0), "scalar": lambda x: 3 - 2 * x / 7,
    "to_int": lambda x: (x * 10).astype(np.int32), "to_bool": lambda x: x.astype(bool),
}


@litert
@pytest.mark.parametrize("name", UNARY)
def test_unary(bundle_of, name):
    bundle = bundle_of(lambda w, x: UNARY[name](x), {"x": ((BATCH, 3, 4), F32)}, {})
    assert_same(bundle)


def test_relu_is_one_operator_however_it_is_written(bundle_of):
    for relu in (nn.relu, lambda x: tnp.maximum(x, 0), lambda x: tnp.where(x > 0, x, 0)):
        assert codes(bundle_of(lambda w, x, f=relu: f(x), {"x": ((BATCH, 3), F32)}, {})) == ["RELU"]


BINARY = {
    "add": lambda a, b: a + b, "subtract": lambda a, b: a - b, "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / (1 + b * b), "maximum": tnp.maximum, "minimum": tnp.minimum,
    "equal": lambda a, b: tnp.round(a) == tnp.round(b), "not_equal": lambda a, b: a != b,
    "less": lambda a, b: a < b, "less_equal": lambda a, b: a <= b,
    "greater": lambda a, b: a > b, "greater_equal": lambda a, b: a >= b,
    "and": lambda a, b: (a > 0) & (b > 0), "or": lambda a, b: (a > 0) | (b > 0),
    "xor": lambda a, b: (a > 0) ^ (b > 0), "not": lambda a, b: ~(a > b),
}


@litert
@pytest.mark.parametrize("shapes", [((BATCH, 3, 4), (BATCH, 3, 4)), ((BATCH, 3, 4), (4,)),
                                    ((BATCH, 1, 4), (BATCH, 3, 1)), ((BATCH, 3), ())])
@pytest.mark.parametrize("name", BINARY)
def test_binary_with_broadcasts(bundle_of, name, shapes):
    bundle = bundle_of(lambda w, a, b: BINARY[name](a, b),
                       {"a": (shapes[0], F32), "b": (shapes[1], F32)}, {})
    assert_same(bundle)


@litert
@pytest.mark.parametrize("dtype", [I32, I64])
def test_integers(bundle_of, dtype):
    def apply(w, a, b):
        return [a + b, a * b - 3, tnp.maximum(a, b), tnp.where(a > b, a, 7)]

    bundle = bundle_of(apply, {"a": ((BATCH, 3), dtype), "b": ((BATCH, 3), dtype)}, {})
    assert_same(bundle)


@litert
def test_weights_that_depend_on_weights_only_are_folded(bundle_of):
    weights = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "s": np.float32([1, 2, 3])}
    bundle = bundle_of(lambda w, x: tnp.matmul(x, tnp.exp(w["w"] / 6) * tnp.rsqrt(w["s"])),
                       {"x": ((BATCH, 2), F32)}, weights)
    assert codes(bundle) == ["FULLY_CONNECTED"]
    assert_same(bundle)


@litert
def test_outputs_that_are_inputs_or_constants(bundle_of):
    bundle = bundle_of(lambda w, x: [x, x, w["c"] * 2, x + 1], {"x": ((BATCH, 2), F32)},
                       {"c": np.float32([1, 2])})
    assert_same(bundle)


# -- shapes ---------------------------------------------------------------------------------------

SHAPES = {
    "reshape": lambda x: tnp.reshape(x, (x.shape[0], 12)),
    "merge_batch": lambda x: tnp.reshape(x, (3 * x.shape[0], 4)),
    "transpose": lambda x: tnp.transpose(x, (0, 2, 1)),
    "transpose_batch": lambda x: tnp.transpose(x, (2, 0, 1)),
    "expand": lambda x: x[:, None], "slice": lambda x: x[:, 1:, ::2], "last": lambda x: x[:, -1],
    "reverse": lambda x: x[:, ::-1], "flip_two": lambda x: tnp.flip(x, (1, 2)),
    "concatenate": lambda x: tnp.concatenate([x, x * 2, tnp.zeros((x.shape[0], 1, 4))], 1),
    "stack": lambda x: tnp.stack([x, -x], 1), "split": lambda x: tnp.split(x, 3, 1)[1],
    "pad": lambda x: tnp.pad(x, ((0, 0), (1, 2), (0, 3))),
    "pad_value": lambda x: tnp.pad(x, ((0, 0), (1, 2), (0, 3)), constant_values=7.0),
    "broadcast": lambda x: tnp.broadcast_to(x[:, :, :1], (x.shape[0], 3, 5)),
    "repeat_batch": lambda x: tnp.broadcast_to(x[None], (2, *x.shape)),
    "iota": lambda x: x + tnp.arange(4, dtype=np.float32),
    "zeros": lambda x: tnp.zeros((x.shape[0], 2)) + 1, "full": lambda x: tnp.full_like(x, 2.5),
}


@litert
@pytest.mark.parametrize("name", SHAPES)
def test_shapes(bundle_of, name):
    bundle = bundle_of(lambda w, x: SHAPES[name](x), {"x": ((BATCH, 3, 4), F32)}, {})
    assert_same(bundle)


@litert
def test_two_symbolic_dims(bundle_of):
    def apply(w, x):
        y = nn.relu(tnp.matmul(x, w["w"]) + w["b"])
        return tnp.concatenate([y, tnp.zeros((*x.shape[:2], 1)) + 1], -1)

    bundle = bundle_of(apply, {"x": ((BATCH, TIME, 4), F32)},
                       {"w": np.ones((4, 8), np.float32), "b": np.ones(8, np.float32)})
    x = np.random.default_rng(0).normal(size=(3, 5, 4)).astype(np.float32)
    assert_same(bundle, {"x": x})


# -- reductions -----------------------------------------------------------------------------------

REDUCTIONS = {
    "sum": lambda x: tnp.sum(x, 1), "mean": lambda x: tnp.mean(x, (1, 2)),
    "max": lambda x: tnp.max(x, -1), "min": lambda x: tnp.min(x, 1, keepdims=True),
    "prod": lambda x: tnp.prod(x, 2), "any": lambda x: tnp.any(x > 1, 1),
    "all": lambda x: tnp.all(x > -1, 2), "argmax": lambda x: tnp.argmax(x, -1),
    "argmin": lambda x: tnp.argmin(x, 1), "over_batch": lambda x: tnp.sum(x, 0),
    "var": lambda x: tnp.var(x, 1), "softmax": lambda x: nn.softmax(x, 1),
    "softmax_two_axes": lambda x: nn.softmax(x, (1, 2)), "log_softmax": nn.log_softmax,
    "layer_norm": nn.layer_normalization, "int_max": lambda x: tnp.max((x * 9).astype(np.int32), 1),
}


@litert
@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(bundle_of, name):
    bundle = bundle_of(lambda w, x: REDUCTIONS[name](x), {"x": ((BATCH, 3, 4), F32)}, {})
    assert_same(bundle)


# -- contractions ---------------------------------------------------------------------------------

@litert
@pytest.mark.parametrize("equation, shape, weight, expected", [
    ("bi,io->bo", (BATCH, 3), (3, 5), "FULLY_CONNECTED"),
    ("bi,oi->bo", (BATCH, 3), (5, 3), "FULLY_CONNECTED"),
    ("bti,io->bto", (BATCH, 4, 3), (3, 5), "FULLY_CONNECTED"),
    ("bti,ihd->bthd", (BATCH, 4, 3), (3, 2, 5), "FULLY_CONNECTED"),
    ("bthd,hdo->bto", (BATCH, 4, 2, 3), (2, 3, 5), "FULLY_CONNECTED"),
    ("bhi,hio->bho", (BATCH, 2, 3), (2, 3, 5), "BATCH_MATMUL"),
])
def test_products_with_weights(bundle_of, equation, shape, weight, expected):
    w = np.random.default_rng(1).normal(size=weight).astype(np.float32)
    bundle = bundle_of(lambda p, x: tnp.einsum(equation, x, p["w"]), {"x": (shape, F32)}, {"w": w})
    assert expected in codes(bundle)
    assert_same(bundle)


@litert
@pytest.mark.parametrize("equation, a, b", [
    ("bij,bjk->bik", (BATCH, 2, 3), (BATCH, 3, 4)), ("bthd,bshd->bhts", (BATCH, 4, 2, 3),
                                                     (BATCH, 5, 2, 3)),
    ("bi,bi->b", (BATCH, 3), (BATCH, 3)), ("bi,bj->bij", (BATCH, 3), (BATCH, 4)),
])
def test_products_of_inputs(bundle_of, equation, a, b):
    bundle = bundle_of(lambda w, x, y: tnp.einsum(equation, x, y), {"x": (a, F32), "y": (b, F32)},
                       {})
    assert_same(bundle)


@litert
def test_attention(bundle_of):
    shape = (BATCH, 6, 2, 8)
    bundle = bundle_of(lambda w, q, k, v: nn.dot_product_attention(q, k, v),
                       {"q": (shape, F32), "k": (shape, F32), "v": (shape, F32)}, {})
    assert_same(bundle)


# -- convolution and pooling ----------------------------------------------------------------------

CONVOLUTIONS = {
    "valid": ((8, 9, 3), (3, 2, 3, 5), {}),
    "same": ((8, 9, 3), (3, 2, 3, 5), {"padding": "same"}),
    "strided": ((8, 9, 3), (3, 3, 3, 5), {"strides": 2}),
    "strided_same": ((8, 9, 3), (3, 3, 3, 5), {"strides": (2, 3), "padding": "same"}),
    "dilated": ((8, 9, 3), (3, 3, 3, 5), {"dilation": 2}),
    "dilated_same": ((8, 9, 3), (3, 3, 3, 5), {"dilation": 2, "padding": "same"}),
    "explicit": ((8, 9, 3), (3, 3, 3, 5), {"padding": [(2, 0), (0, 3)]}),
    "pointwise": ((8, 9, 3), (1, 1, 3, 5), {}),
    "grouped": ((8, 9, 4), (3, 3, 2, 6), {}),
    "depthwise": ((8, 9, 4), (3, 3, 1, 8), {"padding": "same"}),
    "channels_first": ((3, 8, 9), (3, 3, 3, 5), {"data_format": "channels_first"}),
    "one_dim": ((9, 3), (3, 3, 5), {"padding": "same", "strides": 2}),
    "one_dim_causal": ((9, 3), (3, 3, 5), {"padding": [(2, 0)]}),
    "one_dim_first": ((3, 9), (3, 3, 5), {"data_format": "channels_first"}),
}


@litert
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(bundle_of, name):
    shape, kernel, options = CONVOLUTIONS[name]
    rng = np.random.default_rng(2)
    channel = 1 if "data_format" in options else -1
    bias = rng.normal(size=kernel[-1]).astype(np.float32)
    aligned = bias.reshape(-1, *(1,) * (len(shape) - 1)) if channel == 1 else bias
    weights = {"k": rng.normal(size=kernel).astype(np.float32), "b": aligned}
    bundle = bundle_of(lambda w, x: nn.relu(nn.conv(x, w["k"], **options) + w["b"]),
                       {"x": ((BATCH, *shape), F32)}, weights)
    assert_same(bundle)


@litert
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("window, strides, padding", [
    (3, 2, "same"), (3, 2, "valid"), (2, 2, "same"), (1, 2, "valid"), (4, (3, 2), "same"),
    (3, 1, "same"), (2, 3, "valid"), (2, 3, [(3, 0), (0, 4)]),
])
def test_transposed_convolutions(bundle_of, window, strides, padding, data_format):
    shape = (4, 5, 2) if data_format == "channels_last" else (2, 4, 5)
    kernel = np.random.default_rng(2).normal(size=(window, window, 3, 2)).astype(np.float32)
    bundle = bundle_of(lambda w, x: nn.conv_transpose(x, w["k"], strides, padding,
                                                      data_format=data_format),
                       {"x": ((BATCH, *shape), F32)}, {"k": kernel})
    assert_same(bundle)


POOLS = {
    "max": (nn.max_pool, 2, {}), "max_same": (nn.max_pool, 3, {"strides": 2, "padding": "same"}),
    "max_overlap": (nn.max_pool, (3, 2), {"strides": 1}),
    "max_explicit": (nn.max_pool, 3, {"padding": [(1, 1), (2, 2)]}),
    "average": (nn.avg_pool, 2, {}),
    "average_same": (nn.avg_pool, 3, {"strides": 2, "padding": "same"}),
    "average_explicit": (nn.avg_pool, 3, {"strides": 2, "padding": [(1, 1), (2, 2)]}),
}


@litert
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("name", POOLS)
def test_pools(bundle_of, name, data_format):
    pool, size, options = POOLS[name]
    bundle = bundle_of(lambda w, x: pool(x, size, data_format=data_format, **options),
                       {"x": ((BATCH, 8, 9, 7), F32)}, {})
    assert_same(bundle)


@litert
@pytest.mark.parametrize("pool", [nn.max_pool, nn.avg_pool])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_pools_of_one_dim(bundle_of, pool, padding):
    assert_same(bundle_of(lambda w, x: pool(x, 2, padding=padding), {"x": ((BATCH, 7, 3), F32)},
                          {}))


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_an_average_pool_is_one_operator(bundle_of, padding):
    bundle = bundle_of(lambda w, x: nn.avg_pool(x, 2, padding=padding),
                       {"x": ((BATCH, 7, 5, 3), F32)}, {})
    assert codes(bundle) == ["AVERAGE_POOL_2D"]


# -- indexing -------------------------------------------------------------------------------------

@litert
@pytest.mark.parametrize("dtype", [I32, I64])
def test_embedding(bundle_of, dtype):
    table = np.random.default_rng(3).normal(size=(10, 4)).astype(np.float32)
    bundle = bundle_of(lambda w, ids: nn.embedding(w["table"], ids), {"ids": ((BATCH, 5), dtype)},
                       {"table": table})
    ids = np.array([[0, 9, 3, 3, 1], [11, -1, 2, 0, 100]], dtype.numpy)
    assert_same(bundle, {"ids": ids})
    assert "GATHER" in codes(bundle)


@litert
def test_one_hot_and_take_along_the_middle(bundle_of):
    bundle = bundle_of(lambda w, ids, x: [nn.one_hot(ids, 5), tnp.take(x, np.array([2, 0]), 1)],
                       {"ids": ((BATCH,), I32), "x": ((BATCH, 3, 2), F32)}, {})
    assert_same(bundle)


@litert
def test_dynamic_slice_of_a_fixed_shape(bundle_of):
    def apply(w, x, at):
        piece = bind("stablehlo.dynamic_slice", x, at, at, slice_sizes=(2, 2))
        return piece, bind("stablehlo.dynamic_update_slice", x, piece * 0, at, at)

    bundle = bundle_of(apply, {"x": ((4, 5), F32), "at": ((), I32)}, {})
    x = np.arange(20, dtype=np.float32).reshape(4, 5)
    for at in (0, 1, 9):
        assert_same(bundle, {"x": x, "at": np.int32(at).reshape(())})


# -- what TFLite cannot hold ----------------------------------------------------------------------

UNSUPPORTED = {
    "sort": (lambda x: tnp.sort(x, -1), "stablehlo.sort"),
    "erf": (lambda x: tnp.erf(x), "erf"),
    "conv3d": (lambda x: nn.conv(x[:, :, :, None, None], np.ones((2, 2, 1, 1, 3), np.float32)),
               "over 1 or 2 dims, not 3"),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_unsupported_ops_name_the_op_and_the_line(bundle_of, name):
    function, message = UNSUPPORTED[name]
    bundle = bundle_of(lambda w, x: function(x), {"x": ((BATCH, 3, 4), F32)}, {})
    with pytest.raises(UnsupportedError, match="cannot be exported to TFLite") as caught:
        tflite_bytes(bundle)
    assert message in str(caught.value)
    assert Path(caught.value.location.file).name == "test_tflite.py"
    assert re.search(r"test_tflite\.py:\d+", str(caught.value))


def test_unsupported_element_types(bundle_of):
    with pytest.raises(UnsupportedError, match="element type f64"):
        tflite_bytes(bundle_of(lambda w, x: x + 1, {"x": ((BATCH, 3), F64)}, {}))


@litert
def test_booleans(bundle_of):
    assert_same(bundle_of(lambda w, m, x: [tnp.where(m, x, -x), m.astype(np.float32) * x],
                          {"m": ((BATCH, 3), I1), "x": ((BATCH, 3), F32)}, {}))
