"""Broken programs end in an error that says where, never in a crash: mutations of small programs, and
the sizes, nestings, cycles and wrong structures an attacker would think of."""

import time

import pytest

from tfn.compiler.errors import OpError, ParseError, TfnError, UnsupportedError
from tfn.compiler.ir.parser import parse_module
from tfn.tools.conformance.fuzz import outcome
from tfn.tools.conformance.mutations import mutated

PROGRAMS = {
    "elementwise": """
func.func @main(%arg0: tensor<2x3xf32>, %arg1: tensor<2x3xf32>) -> (tensor<2x3xf32>, tensor<2x3xi1>) {
  %0 = stablehlo.add %arg0, %arg1 : tensor<2x3xf32>
  %cst = stablehlo.constant dense<[[1.0, 2.0, 3.0], [0x7F800000, -0.0, 1e3]]> : tensor<2x3xf32>
  %1 = stablehlo.compare LT, %0, %cst, FLOAT : (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<2x3xi1>
  %2 = stablehlo.select %1, %0, %cst : tensor<2x3xi1>, tensor<2x3xf32>
  return %2, %1 : tensor<2x3xf32>, tensor<2x3xi1>
}
""",
    "control": """
module @m attributes {mhlo.num_replicas = 1 : i32} {
  func.func public @main(%arg0: tensor<i32>) -> tensor<i32> {
    %c = stablehlo.constant dense<0> : tensor<i32>
    %0:2 = stablehlo.while(%i = %c, %x = %arg0) : tensor<i32>, tensor<i32>
    cond {
      %3 = stablehlo.compare LT, %i, %arg0 : (tensor<i32>, tensor<i32>) -> tensor<i1>
      stablehlo.return %3 : tensor<i1>
    } do {
      %4 = func.call @step(%i) : (tensor<i32>) -> tensor<i32>
      stablehlo.return %4, %x : tensor<i32>, tensor<i32>
    }
    %1 = stablehlo.compare EQ, %0#0, %c : (tensor<i32>, tensor<i32>) -> tensor<i1>
    %2 = "stablehlo.if"(%1) ({
      stablehlo.return %c : tensor<i32>
    }, {
      stablehlo.return %0#1 : tensor<i32>
    }) : (tensor<i1>) -> tensor<i32>
    return %2 : tensor<i32>
  }
  func.func private @step(%arg0: tensor<i32>) -> tensor<i32> {
    %c = stablehlo.constant dense<1> : tensor<i32>
    %0 = stablehlo.add %arg0, %c : tensor<i32>
    return %0 : tensor<i32>
  }
}
""",
    "contractions": """
func.func @main(%a: tensor<4x5xf32>, %b: tensor<5x3xf32>, %x: tensor<1x8x8x2xf32>,
                %w: tensor<3x3x2x4xf32>) -> (tensor<4xf32>, tensor<1x6x6x4xf32>) {
  %0 = stablehlo.dot_general %a, %b, contracting_dims = [1] x [0], precision = [DEFAULT, DEFAULT]
    : (tensor<4x5xf32>, tensor<5x3xf32>) -> tensor<4x3xf32>
  %z = stablehlo.constant dense<0.0> : tensor<f32>
  %1 = stablehlo.reduce(%0 init: %z) applies stablehlo.add across dimensions = [1]
    : (tensor<4x3xf32>, tensor<f32>) -> tensor<4xf32>
  %2 = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {stride = [1, 1], pad = [[0, 0], [0, 0]]} {batch_group_count = 1 : i64,
    feature_group_count = 1 : i64} : (tensor<1x8x8x2xf32>, tensor<3x3x2x4xf32>) -> tensor<1x6x6x4xf32>
  return %1, %2 : tensor<4xf32>, tensor<1x6x6x4xf32>
}
""",
    "indexing": """
func.func @main(%x: tensor<5x4xi8>, %i: tensor<3x1xi32>) -> (tensor<3x4xi8>, tensor<5x4xi8>) {
  %0 = "stablehlo.gather"(%x, %i) <{dimension_numbers = #stablehlo.gather<offset_dims = [1],
    collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>,
    slice_sizes = array<i64: 1, 4>}> : (tensor<5x4xi8>, tensor<3x1xi32>) -> tensor<3x4xi8>
  %1 = "stablehlo.scatter"(%x, %i, %0) <{scatter_dimension_numbers = #stablehlo.scatter<
    update_window_dims = [1], inserted_window_dims = [0], scatter_dims_to_operand_dims = [0],
    index_vector_dim = 1>, unique_indices = true}> ({
  ^bb0(%p: tensor<i8>, %q: tensor<i8>):
    %s = stablehlo.maximum %p, %q : tensor<i8>
    stablehlo.return %s : tensor<i8>
  }) : (tensor<5x4xi8>, tensor<3x1xi32>, tensor<3x4xi8>) -> tensor<5x4xi8>
  %2 = "stablehlo.sort"(%1) <{dimension = 1 : i64, is_stable = true}> ({
  ^bb0(%p: tensor<i8>, %q: tensor<i8>):
    %s = stablehlo.compare LT, %p, %q : (tensor<i8>, tensor<i8>) -> tensor<i1>
    stablehlo.return %s : tensor<i1>
  }) : (tensor<5x4xi8>) -> tensor<5x4xi8>
  %3 = stablehlo.slice %2 [0:5:1, 0:4:1] : (tensor<5x4xi8>) -> tensor<5x4xi8>
  %4 = stablehlo.pad %3, %c, low = [0, 0], high = [0, 0], interior = [0, 0]
    : (tensor<5x4xi8>, tensor<i8>) -> tensor<5x4xi8>
  return %0, %4 : tensor<3x4xi8>, tensor<5x4xi8>
}
""".replace("  %3 = ", "  %c = stablehlo.constant dense<1> : tensor<i8>\n  %3 = "),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_programs_themselves_are_right(name):
    assert outcome(PROGRAMS[name].encode(), compiled=True) == ("ok, compiled", "")


@pytest.mark.parametrize("name", PROGRAMS)
def test_mutations(name):
    kinds = set()
    for number in range(500):
        data = mutated(PROGRAMS[name], number)
        kind, detail = outcome(data)
        assert not kind.startswith("defect"), f"mutation {number}: {kind}: {detail}"
        kinds.add(kind)
    assert {"ok", "ParseError", "not UTF-8"} <= kinds


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_survives_a_mutation_compiles_or_is_refused(name):
    compiled = 0
    for number in range(1000, 2000):
        data = mutated(PROGRAMS[name], number)
        if outcome(data)[0] != "ok" or data.decode() == PROGRAMS[name]:
            continue
        kind, detail = outcome(data, compiled=True)
        assert not kind.startswith("defect"), f"mutation {number}: {kind}: {detail}"
        compiled += kind == "ok, compiled"
        if compiled == 5:
            break
    assert compiled == 5


def _function(body, arguments="%a: tensor<2x3xf32>"):
    return (f"func.func @main({arguments}) -> tensor<2x3xf32> {{\n{body}\n"
            "  return %a : tensor<2x3xf32>\n}")


DEEP = 10_000
BAD = {
    "2**62 elements": (_function("%0 = stablehlo.iota dim = 0 : tensor<4611686018427387904xf32>"),
                       UnsupportedError, 2, "too large"),
    "product over 2**63": (
        _function("%0 = stablehlo.iota dim = 0 : tensor<1048576x1048576x1048576x1048576xi8>"),
        UnsupportedError, 2, "more than 2**40"),
    "negative dim": (_function("%0 = stablehlo.iota dim = 0 : tensor<-1xf32>"), ParseError, 2,
                     "not a tensor type"),
    "pad to 2**62": (
        _function("%z = stablehlo.constant dense<0.0> : tensor<f32>\n"
                  "%0 = stablehlo.pad %a, %z, low = [4611686018427387904, 0], high = [0, 0],"
                  " interior = [0, 0] : (tensor<2x3xf32>, tensor<f32>) -> tensor<2x3xf32>"),
        OpError, 3, "gives tensor<4611686018427387906x3xf32>"),
    "a cycle of calls": ("""func.func @main(%a: tensor<f32>) -> tensor<f32> {
  %0 = call @f(%a) : (tensor<f32>) -> tensor<f32>
  return %0 : tensor<f32>
}
func.func private @f(%a: tensor<f32>) -> tensor<f32> {
  %0 = call @main(%a) : (tensor<f32>) -> tensor<f32>
  return %0 : tensor<f32>
}""", ParseError, 6, "calls itself"),
    "a value that is its own operand": (
        _function("%0 = stablehlo.add %0, %0 : tensor<2x3xf32>"), ParseError, 2, "%0 is not defined"),
    "deep regions": (_function('"stablehlo.if"(%a) ({' * DEEP), ParseError, 2, "nested deeper"),
    "deep arrays": (_function("%0 = stablehlo.foo {a = " + "[" * DEEP), TfnError, 2, ""),
    "deep attributes": ("module attributes {a = " + "{a = " * DEEP, ParseError, 1, "nested deeper"),
    "deep lists": (_function(f"%0 = stablehlo.constant dense<{'[' * DEEP}{']' * DEEP}>"
                             " : tensor<1xf32>"), ParseError, 2, "nested deeper"),
    "deep locations": (_function("%0 = stablehlo.add %a, %a : tensor<2x3xf32> " + "loc(" * DEEP),
                       ParseError, 4, "closes nothing"),
    "deep futures": (_function("%0 = stablehlo.add %a, %a : " + "!stablehlo.future<" * DEEP),
                     ParseError, 2, "nested deeper"),
    "deep tuples": (_function("%0 = stablehlo.tuple %a : " + "tuple<" * DEEP), TfnError, 2, ""),
    "too few operands": (
        _function('%0 = "stablehlo.convert"(%a, %a) : (tensor<2x3xf32>, tensor<2x3xf32>)'
                  " -> tensor<2x3xf64>"), OpError, 2, "stablehlo.convert takes 1 operands, got 2"),
    "no region": (_function('%0 = "stablehlo.sort"(%a) <{dimension = 0 : i64}> : (tensor<2x3xf32>)'
                            " -> tensor<2x3xf32>"), OpError, 2, "has 1 regions (comparator), got 0"),
    "a region of the wrong type": (
        _function('%0 = "stablehlo.sort"(%a) <{dimension = 0 : i64}> ({\n'
                  "^bb0(%p: tensor<f32>, %q: tensor<f32>):\n"
                  "stablehlo.return %p : tensor<f32>\n}) : (tensor<2x3xf32>) -> tensor<2x3xf32>"),
        OpError, 2, "returns tensor<f32>; it needs tensor<i1>"),
    "a branch chosen by a float": (
        _function('%0 = "stablehlo.case"(%a) ({\nstablehlo.return %a : tensor<2x3xf32>\n})'
                  " : (tensor<2x3xf32>) -> tensor<2x3xf32>"), OpError, 2, "chooses by a tensor<i32>"),
    "a dim indexed twice": (
        'func.func @main(%a: tensor<4xf32>, %i: tensor<2xi32>) -> tensor<f32> {\n'
        '%0 = "stablehlo.gather"(%a, %i) <{dimension_numbers = #stablehlo.gather<'
        "collapsed_slice_dims = [0], start_index_map = [0, 0]>, slice_sizes = array<i64: 1>}>"
        " : (tensor<4xf32>, tensor<2xi32>) -> tensor<f32>\nreturn %0 : tensor<f32>\n}",
        OpError, 2, "a dim is indexed once (C18)"),
    "a layout that names a dim twice": (
        "func.func @main(%x: tensor<2x2xf32>) -> tensor<2x2xf32> {\n"
        "%0 = stablehlo.convolution(%x, %x) dim_numbers = [b, f]x[i, o]->[b, f], window = {}"
        " {batch_group_count = 0 : i64, feature_group_count = 1 : i64}"
        " : (tensor<2x2xf32>, tensor<2x2xf32>) -> tensor<2x2xf32>\nreturn %0 : tensor<2x2xf32>\n}",
        OpError, 2, "`batch_group_count` of convolution is 0, not positive (C22)"),
    "a literal that is no number": (
        _function(f"%0 = stablehlo.constant dense<{'x' * 5000}> : tensor<2x3xf32>"), ParseError, 2,
        "is not a number"),
}


@pytest.mark.parametrize(("text", "kind", "line", "message"), BAD.values(), ids=BAD.keys())
def test_bad_programs(text, kind, line, message):
    begin = time.process_time()
    with pytest.raises(kind) as caught:
        parse_module(text, "bad.mlir")
    assert time.process_time() - begin < 2
    error = caught.value
    assert error.location.file == "bad.mlir" and error.location.line == line
    assert error.location.columns() is not None
    assert message in error.message and len(error.message) < 1000
