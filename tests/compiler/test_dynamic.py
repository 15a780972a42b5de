"""Symbolic dims in text: `to_dynamic` and `refine` undo each other; JAX accepts the text."""

import re
import subprocess

import numpy as np
import pytest

from tfn.compiler.errors import OpError, UnsupportedError
from tfn.compiler.ir.attributes import kind_of, write_attribute
from tfn.compiler.ir.core import Block, Function, Module, TensorType
from tfn.compiler.ir.dims import Dim
from tfn.compiler.ir.dtypes import F32, I32
from tfn.compiler.ir.dynamic import refine, to_dynamic
from tfn.compiler.ir.evaluator import evaluate
from tfn.compiler.ir.parser import parse_module
from tfn.compiler.ir.printer import print_module
from tfn.compiler.ir.structs import (
    ConvDimensionNumbers,
    DotDimensionNumbers,
    GatherDimensionNumbers,
)
from tfn.compiler.ir.verify import verify
from tfn.compiler.ops.reduction import reduce
from tfn.compiler.trace.core import bind, trace, trace_region

BATCH, TIME = Dim.named("batch"), Dim.named("time")


def _structure(block: Block, numbers=None):
    """A block as nested tuples: equal for structurally equal blocks."""
    numbers = dict(numbers or {})
    for argument in block.arguments:
        numbers[argument] = len(numbers)
    ops = []
    for op in block.ops:
        kinds = op.definition.attributes
        attributes = {
            k: _structure(v.body) if isinstance(v, Function) else write_attribute(v)
            for k, v in op.attributes.items() if kind_of(kinds[k]).implied is None}
        ops.append((op.name, [numbers[v] for v in op.operands], attributes,
                    [str(_shape(r)) for r in op.results],
                    [_structure(r, numbers) for r in op.regions]))
        for result in op.results:
            numbers[result] = len(numbers)
    return ([_shape(a) for a in block.arguments], ops, [numbers[v] for v in block.returns])


def _shape(value):
    return (*map(str, value.shape), value.dtype.name)


def _fill(shape, value=0.5):
    return bind("stablehlo.broadcast_in_dim", np.float32(value), shape=shape,
                broadcast_dimensions=())


def dense(x, w):
    numbers = DotDimensionNumbers((), (), (1,), (0,))
    y = bind("stablehlo.dot_general", x, w, dot_dimension_numbers=numbers)
    return [bind("stablehlo.maximum", y, _fill(y.shape, 0))]


def softmax(x):
    top = bind("stablehlo.broadcast_in_dim", reduce(x, [1], "maximum"), shape=x.shape,
               broadcast_dimensions=(0,))
    y = bind("stablehlo.exponential", bind("stablehlo.subtract", x, top))
    total = bind("stablehlo.broadcast_in_dim", reduce(y, [1], "add"), shape=x.shape,
                 broadcast_dimensions=(0,))
    return [bind("stablehlo.divide", y, total)]


def flatten(x):
    return [bind("stablehlo.reshape", x, shape=(x.shape[0], 12))]


def merge(x):
    return [bind("stablehlo.reshape", x, shape=(x.shape[0] * 3, 4))]


def positions(x):
    return [bind("stablehlo.iota", iota_dimension=1, type=TensorType(tuple(x.shape), I32))]


def halves(x):
    n = x.shape[0]
    return [bind("stablehlo.slice", x, start_indices=(0, 0), limit_indices=(n // 2, 1),
                 strides=(1, 1)),
            bind("stablehlo.slice", x, start_indices=(n // 2, 0), limit_indices=(n, 4),
                 strides=(1, 2))]


def double(x):
    return [bind("stablehlo.pad", x, np.float32(0), edge_padding_low=(0, 1),
                 edge_padding_high=(x.shape[0], 0), interior_padding=(0, 0))]


def convolve(x, k):
    numbers = ConvDimensionNumbers(0, 2, (1,), 1, 2, (0,), 0, 2, (1,))
    return [bind("stablehlo.convolution", x, k, dimension_numbers=numbers,
                 window_strides=(1,), padding=((x.shape[1], 1),), feature_group_count=1,
                 batch_group_count=1)]


def rows(x, i):
    numbers = GatherDimensionNumbers((0,), (1,), (), (), (1,), 1)
    return [bind("stablehlo.gather", x, i, dimension_numbers=numbers,
                 slice_sizes=(x.shape[0], 1))]


def join(x, y):
    return [bind("stablehlo.concatenate", x, y, _fill(x.shape), dimension=0)]


def size(x):
    n = bind("stablehlo.convert", bind("stablehlo.get_dimension_size", x, dimension=0), dtype=F32)
    return [bind("stablehlo.divide", reduce(x, [0, 1], "add"), n)]


def loop(x):
    types = [TensorType((), I32), TensorType(tuple(x.shape), F32)]

    def body(i, state):
        return [bind("stablehlo.add", i, np.int32(1)),
                bind("stablehlo.add", state, _fill(state.shape))]

    def cond(i, state):
        return [bind("stablehlo.compare", i, np.int32(3), comparison_direction="LT")]

    return bind("stablehlo.while", np.int32(0), x,
                regions=[trace_region(cond, types), trace_region(body, types)])


def call(x):
    inner, _ = trace(lambda v: softmax(v), [TensorType(tuple(x.shape), F32)], "softmax.impl")
    inner.public = False
    return [bind("stablehlo.composite", x, name="tfn.softmax", composite_attributes={"axis": 1},
                 decomposition=inner)]


PROGRAMS = {
    "dense": (dense, [((BATCH, 4), F32), ((4, 3), F32)]),
    "softmax": (softmax, [((BATCH, 4), F32)]),
    "flatten": (flatten, [((BATCH, 3, 4), F32)]),
    "merge two dims": (merge, [((BATCH, 3, 4), F32)]),
    "multiple of a dim": (softmax, [((2 * BATCH + 3, 4), F32)]),
    "two dims": (softmax, [((BATCH, TIME), F32)]),
    "iota": (positions, [((BATCH, 4), F32)]),
    "slice": (halves, [((2 * BATCH, 4), F32)]),
    "pad": (double, [((BATCH, 4), F32)]),
    "convolution padding": (convolve, [((2, TIME, 3), F32), ((2, 3, 5), F32)]),
    "gather": (rows, [((BATCH, 4), F32), ((2, 1), I32)]),
    "concatenate": (join, [((BATCH, 4), F32), ((3, 4), F32)]),
    "dimension size as data": (size, [((BATCH, 4), F32)]),
    "loop": (loop, [((BATCH, 4), F32)]),
    "composite": (call, [((BATCH, 4), F32)]),
}

def fold(w, carry, rows):
    """A loop of tfn's own, as recurrent layers are: each step gets a row of what the op gets whole."""
    body, _ = trace(lambda w, carry, row: [bind("stablehlo.add", carry, w * row), row],
                    [w.type, carry.type, TensorType(tuple(rows.shape[1:]), F32)], "step")
    return bind("tfn.scan", w, carry, rows, body=body, constants=1, carries=1, length=5, reverse=False)


def noise(x):
    """Bits for each row, in a function that is given a seed alone."""
    def bits(seed):
        return [bind("stablehlo.convert", bind("stablehlo.multiply", bind(
            "stablehlo.broadcast_in_dim", seed, shape=tuple(x.shape), broadcast_dimensions=()),
            bind("stablehlo.iota", iota_dimension=0, type=TensorType(tuple(x.shape), I32))), dtype=F32)]

    inner, _ = trace(bits, [TensorType((), I32)], "bits.impl")
    inner.public = False
    made = bind("stablehlo.composite", np.int32(3), name="tfn.bits", composite_attributes={},
                decomposition=inner)
    return [x + made]


OURS = PROGRAMS | {
    "scan": (fold, [((BATCH, 4), F32), ((BATCH, 4), F32), ((5, BATCH, 4), F32)]),
}
"""And with ops that only tfn has."""

SIZES = {"batch": 3, "time": 5}


@pytest.fixture(params=OURS.items(), ids=OURS.keys())
def program(request):
    _, (function, arguments) = request.param
    traced, _ = trace(function, [TensorType(shape, dtype) for shape, dtype in arguments])
    return verify(traced)


def _text(function):
    return print_module(Module({"main": to_dynamic(function)}))


def test_round_trip(program):
    parsed = parse_module(_text(program))["main"]
    back = verify(refine(parsed, program.argument_types))
    assert _structure(back.body) == _structure(program.body)


INLINED = {"composite without a dim": (noise, [((BATCH, 4), F32)])}
"""What is not called any more in the text, so that the caller can compute its sizes."""


@pytest.mark.parametrize(("function", "arguments"), (OURS | INLINED).values(), ids=OURS | INLINED)
def test_refined_to_sizes_it_is_the_program_traced_at_these_sizes(function, arguments):
    symbolic, _ = trace(function, [TensorType(*a) for a in arguments])
    types = [t.substitute(SIZES) for t in symbolic.argument_types]
    static = verify(refine(parse_module(_text(symbolic))["main"], types))
    assert "?" not in str(static)
    draw = np.random.default_rng(0)
    arrays = [draw.normal(size=t.shape).astype(t.dtype.numpy) for t in types]
    expected, _ = trace(function, types)
    for mine, theirs in zip(evaluate(static, arrays), evaluate(expected, arrays), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_module_is_printed_in_dynamic_form(program):
    assert print_module(Module({"main": program})) == _text(program)
    assert to_dynamic(to_dynamic(program)).body.ops[0].name == to_dynamic(program).ops[0].name


@pytest.mark.outside("jax")
def test_jax_accepts_the_text(jax_python, tmp_path):
    files = []
    for name, (function, arguments) in PROGRAMS.items():
        traced, _ = trace(function, [TensorType(*a) for a in arguments])
        files.append(tmp_path / f"{name}.mlir")
        files[-1].write_text(_text(traced))
    script = """
import sys
from jax._src.interpreters import mlir
from jax._src.lib.mlir import ir
with mlir.make_ir_context():
    for file in sys.argv[1:]:
        ir.Module.parse(open(file).read()).operation.verify()
"""
    subprocess.run([jax_python, "-c", script, *map(str, files)], check=True)


def test_a_static_function_stays_as_it_is():
    program, _ = trace(softmax, [TensorType((2, 4), F32)])
    assert to_dynamic(program) is program


def test_sizes_come_from_arguments():
    program, _ = trace(lambda x, w: [_fill((2 * BATCH + 1,))],
                       [TensorType((3 * BATCH + 2, 4), F32), TensorType((4,), F32)])
    names = [op.name.partition(".")[2] for op in to_dynamic(program).ops]
    assert names[:9] == ["get_dimension_size", "constant", "subtract", "constant", "divide",
                         "constant", "multiply", "constant", "add"]


def test_jax_style_size_arguments():
    """A size passed as an integer argument, also through a call, is evaluated with `known`."""
    text = """
func.func public @main(%n: tensor<i64>, %x: tensor<?x4xf32>) -> tensor<2x?x4xf32> {
  %0 = call @spread(%n, %x) : (tensor<i64>, tensor<?x4xf32>) -> tensor<2x?x4xf32>
  return %0 : tensor<2x?x4xf32>
}
func.func private @spread(%n: tensor<i64>, %x: tensor<?x4xf32>) -> tensor<2x?x4xf32> {
  %0 = stablehlo.constant dense<2> : tensor<1xi32>
  %1 = stablehlo.convert %n : (tensor<i64>) -> tensor<i32>
  %2 = stablehlo.reshape %1 : (tensor<i32>) -> tensor<1xi32>
  %3 = stablehlo.constant dense<4> : tensor<1xi32>
  %4 = stablehlo.concatenate %0, %2, %3, dim = 0 : (tensor<1xi32>, tensor<1xi32>, tensor<1xi32>) -> tensor<3xi32>
  %5 = stablehlo.dynamic_broadcast_in_dim %x, %4, dims = [1, 2] : (tensor<?x4xf32>, tensor<3xi32>) -> tensor<2x?x4xf32>
  return %5 : tensor<2x?x4xf32>
}"""  # noqa: E501
    main = parse_module(text)["main"]
    types = [main.argument_types[0], TensorType((BATCH, 4), F32)]
    refined = verify(refine(main, types, known={0: BATCH}))
    assert refined.result_types == (TensorType((2, BATCH, 4), F32),)
    (inner,) = refined.ops[0].attributes["callee"].ops
    assert inner.name == "stablehlo.broadcast_in_dim"
    with pytest.raises(UnsupportedError, match="is not computed from the sizes of the arguments"):
        refine(main, types)


def test_a_dim_that_no_argument_has():
    program, _ = trace(lambda x: [_fill((TIME, 2))], [TensorType((BATCH,), F32)])
    with pytest.raises(UnsupportedError, match=re.escape(
            "the dimension `time` of stablehlo.broadcast_in_dim is not the size of any argument")):
        to_dynamic(program)


def test_an_op_without_a_dynamic_form():
    program, _ = trace(lambda x: [bind("stablehlo.dynamic_slice", x, np.int32(0),
                                       slice_sizes=(BATCH,))], [TensorType((BATCH,), F32)])
    with pytest.raises(UnsupportedError, match=re.escape(
            "StableHLO has no stablehlo.dynamic_slice with a symbolic slice_sizes")):
        to_dynamic(program)


@pytest.mark.parametrize(("types", "message"), [
    ([], "@main takes 1 arguments, got types of 0"),
    ([TensorType((BATCH, 5), F32)],
     "argument 0 of @main is a tensor<?x4xf32>; it cannot be a tensor<batchx5xf32>"),
    ([TensorType((BATCH, 4), I32)], "argument 0 of @main"),
])
def test_types_that_contradict_the_text(types, message):
    program, _ = trace(softmax, [TensorType((BATCH, 4), F32)])
    with pytest.raises(OpError, match=re.escape(message)):
        refine(parse_module(_text(program))["main"], types)


def test_text_whose_shapes_contradict_the_arguments():
    text = """
func.func @main(%x: tensor<?xf32>, %y: tensor<?xf32>) -> tensor<?xf32> {
  %0 = stablehlo.add %x, %y : tensor<?xf32>
  return %0 : tensor<?xf32>
}"""
    types = [TensorType((BATCH,), F32), TensorType((TIME,), F32)]
    with pytest.raises(OpError) as caught:
        refine(parse_module(text, "add.mlir")["main"], types)
    assert str(caught.value.location) == "add.mlir:3"
    assert "(C1)" in caught.value.message
