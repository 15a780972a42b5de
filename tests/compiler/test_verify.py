"""The verifier: each way a function can be malformed gives one error at the op's place."""

import pytest

from tfn.compiler.errors import OpError
from tfn.compiler.ir.core import Block, Function, Location, Op, TensorType
from tfn.compiler.ir.dtypes import F32, I32
from tfn.compiler.ir.parser import parse_module
from tfn.compiler.ir.verify import verify
from tfn.compiler.ops.declare import definition
from tfn.compiler.trace.core import bind, trace

PLACE = Location("model.py", 7)
X = TensorType((2, 3), F32)


def _op(name, operands, results, location=PLACE, regions=(), **attributes):
    return Op(definition(name), operands, results, attributes, regions, location)


def _function(*make, arguments=(X,), name="main"):
    """A function whose ops `make(block)` builds; returns the last op's results."""
    block = Block(arguments)
    for build in make:
        block.ops.append(build(block))
    block.returns = list(block.ops[-1].results) if block.ops else list(block.arguments)
    return Function(name, block)


def _call(callee, result):
    return _function(lambda b: _op("func.call", b.arguments, [result], callee=callee))


def test_a_traced_function_is_well_formed():
    program, _ = trace(lambda x: [bind("stablehlo.add", x, bind("stablehlo.tanh", x))], [X])
    assert verify(program) is program


STRAY = Block([X]).arguments[0]

MALFORMED = {
    "undefined operand": (
        _function(lambda b: _op("stablehlo.add", [b.arguments[0], STRAY], [X])),
        "operand 1 of stablehlo.add in @main is not defined before it"),
    "missing attribute": (
        _function(lambda b: _op("stablehlo.transpose", b.arguments, [X])),
        "stablehlo.transpose needs the attribute `permutation`"),
    "undeclared attribute": (
        _function(lambda b: _op("stablehlo.tanh", b.arguments, [X], scale=2)),
        "stablehlo.tanh does not declare the attribute `scale`"),
    "wrong result type": (
        _function(lambda b: _op("stablehlo.tanh", b.arguments, [X.with_dtype(I32)])),
        "stablehlo.tanh of tensor<2x3xf32> gives tensor<2x3xf32>, not tensor<2x3xi32>"),
    "broken constraint": (
        _function(lambda b: _op("stablehlo.transpose", b.arguments, [X], permutation=(0, 0))),
        "[0, 0] is not a permutation of the dims of tensor<2x3xf32> (C2)"),
    "wrong number of operands": (
        _function(lambda b: _op("stablehlo.select", b.arguments, [X])),
        "stablehlo.select takes 3 operands, got 1"),
    "stray value in a region": (
        _function(lambda b: _op("stablehlo.while", b.arguments, [X], regions=(
            Block([X]), _function(lambda r: _op("stablehlo.tanh", [STRAY], [X])).body))),
        "operand 0 of stablehlo.tanh in a region of stablehlo.while in @main is not defined"),
    "broken callee": (
        _call(_function(lambda b: _op("stablehlo.tanh", b.arguments, [X.with_dtype(I32)]),
                        name="inner"), X.with_dtype(I32)),
        "stablehlo.tanh of tensor<2x3xf32> gives tensor<2x3xf32>"),
    "call of another type": (
        _call(_function(arguments=(X.with_dtype(I32),), name="inner"), X),
        "inner takes tensor<2x3xi32>, got tensor<2x3xf32>"),
}


@pytest.mark.parametrize(("function", "message"), MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_functions(function, message):
    with pytest.raises(OpError) as caught:
        verify(function)
    assert message in caught.value.message
    assert caught.value.location == PLACE
    assert str(caught.value).startswith("model.py:7: ")


def test_stray_return():
    function = _function()
    function.body.returns = [STRAY]
    with pytest.raises(OpError, match="@main returns a value that is not defined in it"):
        verify(function)


def test_a_region_sees_outer_values():
    module = parse_module("""
func.func @main(%x: tensor<f32>, %go: tensor<i1>) -> tensor<f32> {
  %0 = "stablehlo.if"(%go) ({
    stablehlo.return %x : tensor<f32>
  }, {
    %1 = stablehlo.negate %x : tensor<f32>
    stablehlo.return %1 : tensor<f32>
  }) : (tensor<i1>) -> tensor<f32>
  return %0 : tensor<f32>
}""")
    assert verify(module["main"]) is module["main"]
