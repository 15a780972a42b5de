"""Random programs: the compiler and the evaluator agree, exactly or within a bound that is tested, too;
and the smallest form of each disagreement that random programs have found."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from tfn.compiler.compile import compile_function
from tfn.compiler.errors import UnsupportedError
from tfn.compiler.ir.dtypes import ALL, I2, I4, UI2, UI4
from tfn.compiler.ir.evaluator import evaluate
from tfn.compiler.ir.parser import parse_module
from tfn.compiler.ops.declare import REGISTRY
from tfn.compiler.ops.elementwise import Unary
from tfn.compiler.trace.core import bind
from tfn.tools.conformance.bound import difference
from tfn.tools.conformance.random_ops import LEFT_OUT, MAKERS
from tfn.tools.conformance.random_programs import Program, numbered, programs
from tfn.tools.conformance.random_regions import NAMES
from tfn.tools.conformance.random_run import check, reduced


@settings(max_examples=150, derandomize=True, deadline=None, database=None,
          suppress_health_check=list(HealthCheck))
@given(programs(steps=4))
def test_engines_agree(program):
    failure = check(program)
    assert failure is None, f"{failure.kind}: {failure.detail}\n{program.function}"


@pytest.mark.parametrize("start", range(0, 60, 20))
def test_engines_agree_on_larger_programs(start):
    for number in range(start, start + 20):
        failure = check(numbered(number))
        assert failure is None, f"program {number}: {failure.kind}: {failure.detail}"


def test_every_op_is_made_or_left_out():
    assert set(MAKERS) | LEFT_OUT | {"stablehlo.async_start"} >= set(REGISTRY)


def test_programs_have_every_op_and_element_type():
    ops, dtypes = set(), set()
    for number in range(700):
        for op in numbered(number).function.body.walk():
            ops.add(op.name)
            dtypes.update(v.dtype for v in op.results)
    assert set(NAMES) - ops == set()
    assert set(ALL) - dtypes == set()


def test_a_number_gives_the_same_program():
    first, second = numbered(11), numbered(11)
    assert str(first.function) == str(second.function)
    assert [a.tobytes() for a in first.arrays] == [a.tobytes() for a in second.arrays]


# -- the bound ------------------------------------------------------------------------------------

def _function(body, *types, result):
    arguments = ", ".join(f"%a{i}: {t}" for i, t in enumerate(types))
    text = f"func.func @main({arguments}) -> {result} {{\n{body}\n}}"
    return parse_module(text)["main"]


def _with_error(body, x, ulp):
    """Does the bound refuse results that are `ulp` off?"""
    function = _function(body, "tensor<4xf32>", result="tensor<4xf32>")
    (right,) = evaluate(function, [x])
    wrong = (right.view(np.int32) + ulp).view(np.float32)
    return difference(function, [x], {}, [wrong], [right]) is not None


X = np.array([0.5, 1.25, 2.0, 3.5], np.float32)


def test_the_bound_of_exact_ops_is_nothing():
    assert _with_error("%0 = stablehlo.multiply %a0, %a0 : tensor<4xf32>\n"
                       "return %0 : tensor<4xf32>", X, 1)


@pytest.mark.parametrize(("ulp", "refused"), [(2, False), (100, True)])
def test_the_bound_of_functions_is_a_few_ulp(ulp, refused):
    assert _with_error("%0 = stablehlo.tanh %a0 : tensor<4xf32>\nreturn %0 : tensor<4xf32>", X,
                       ulp) is refused


def test_the_bound_grows_with_cancellation():
    body = """
        %0 = stablehlo.multiply %a0, %a0 : tensor<4xf32>
        %1 = stablehlo.constant dense<1.0> : tensor<4xf32>
        %2 = stablehlo.subtract %0, %1 : tensor<4xf32>
        return %2 : tensor<4xf32>"""
    near_one = np.full(4, 1 + 2**-12 + 2**-20, np.float32)
    assert not _with_error(body, near_one, 20)
    assert _with_error(body, np.full(4, 100.0, np.float32), 20)


def test_a_comparison_is_open_only_where_rounding_decides_it():
    body = """
        %0 = stablehlo.tanh %a0 : tensor<4xf32>
        %1 = stablehlo.constant dense<{}> : tensor<4xf32>
        %2 = stablehlo.compare GT, %0, %1 : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xi1>
        return %2 : tensor<4xi1>"""
    for limit, refused in ((float(np.tanh(X[0])), False), (0.1, True)):
        function = _function(body.format(limit), "tensor<4xf32>", result="tensor<4xi1>")
        (right,) = evaluate(function, [X])
        wrong = right.copy()
        wrong[0] = not wrong[0]
        assert (difference(function, [X], {}, [wrong], [right]) is not None) is refused


def test_a_failing_program_is_reduced(monkeypatch):
    """With a wrong op, what is left of a program is that op."""
    monkeypatch.setattr(REGISTRY["stablehlo.not"], "evaluate", classmethod(
        lambda cls, operands, *_: [operands[0]]))
    assert issubclass(REGISTRY["stablehlo.not"], Unary)
    function = _function("""
        %0 = stablehlo.add %a0, %a0 : tensor<4xi32>
        %1 = stablehlo.not %0 : tensor<4xi32>
        %2 = stablehlo.multiply %1, %0 : tensor<4xi32>
        return %2, %0 : tensor<4xi32>, tensor<4xi32>""", "tensor<4xi32>",
                         result="(tensor<4xi32>, tensor<4xi32>)")
    small = reduced(Program(function, [np.arange(4, dtype=np.int32)]), "value")
    assert [op.name for op in small.function.ops] == ["stablehlo.not"]


# -- what they found ------------------------------------------------------------------------------

def _both(text, *arrays):
    """The results of both engines, which must be equal."""
    function = parse_module(text)["main"]
    evaluated, compiled = evaluate(function, arrays), compile_function(function)(*arrays)
    for e, c in zip(evaluated, compiled, strict=True):
        assert e.dtype == c.dtype
        np.testing.assert_array_equal(e.astype(c.dtype), c)
    return compiled


def test_a_complex_constant_that_a_kernel_stores():
    (found,) = _both("""func.func @main() -> tensor<3xcomplex<f32>> {
      %0 = stablehlo.constant dense<(1.0, -2.0)> : tensor<complex<f32>>
      %1 = stablehlo.broadcast_in_dim %0, dims = [] : (tensor<complex<f32>>) -> tensor<3xcomplex<f32>>
      return %1 : tensor<3xcomplex<f32>> }""")
    np.testing.assert_array_equal(found, np.full(3, 1 - 2j, np.complex64))


def test_special_functions_of_narrow_types_are_of_that_type():
    x = np.array([0.0, 0.5, -0.5], ml_dtypes.float8_e4m3)
    (found,) = _both("""func.func @main(%a: tensor<3xf8E4M3>) -> tensor<3xf8E4M3> {
      %0 = chlo.erf_inv %a : tensor<3xf8E4M3> -> tensor<3xf8E4M3>
      return %0 : tensor<3xf8E4M3> }""", x)
    np.testing.assert_array_equal(found, np.array([0, 0.476936, -0.476936]).astype(x.dtype))


def test_sorting_nothing():
    (found, _) = _both("""func.func @main(%a: tensor<3x0xf32>) -> (tensor<3x0xf32>, tensor<3x0xi32>) {
      %0:2 = chlo.top_k(%a, k = 0) : tensor<3x0xf32> -> (tensor<3x0xf32>, tensor<3x0xi32>)
      return %0#0, %0#1 : tensor<3x0xf32>, tensor<3x0xi32> }""", np.zeros((3, 0), np.float32))
    assert found.shape == (3, 0)


def test_what_only_a_dead_op_of_a_loop_reads_is_dead():
    (found,) = _both("""func.func @main(%a: tensor<f32>, %b: tensor<2xf32>) -> tensor<f32> {
      %z = stablehlo.constant dense<0> : tensor<i32>
      %n = stablehlo.abs %b : tensor<2xf32>
      %r:2 = stablehlo.while(%i = %z, %x = %a) : tensor<i32>, tensor<f32>
      cond {
        %l = stablehlo.constant dense<3> : tensor<i32>
        %c = stablehlo.compare LT, %i, %l : (tensor<i32>, tensor<i32>) -> tensor<i1>
        stablehlo.return %c : tensor<i1>
      } do {
        %dead = stablehlo.negate %n : tensor<2xf32>
        %one = stablehlo.constant dense<1> : tensor<i32>
        %j = stablehlo.add %i, %one : tensor<i32>
        %y = stablehlo.add %x, %x : tensor<f32>
        stablehlo.return %j, %y : tensor<i32>, tensor<f32>
      }
      return %r#1 : tensor<f32> }""", np.float32(1), np.zeros(2, np.float32))
    assert found == 8


def test_reducing_along_no_dim():
    (found,) = _both("""func.func @main(%a: tensor<2xi64>, %i: tensor<i64>) -> tensor<2xi64> {
      %0 = stablehlo.reduce(%a init: %i) applies stablehlo.add across dimensions = []
        : (tensor<2xi64>, tensor<i64>) -> tensor<2xi64>
      return %0 : tensor<2xi64> }""", np.array([1, 2]), np.array(10))
    np.testing.assert_array_equal(found, [11, 12])


def test_reducing_nothing_of_several():
    found = _both("""func.func @main(%a: tensor<0x2xi32>, %b: tensor<0x2xf32>, %i: tensor<i32>,
                                     %f: tensor<f32>) -> (tensor<2xi32>, tensor<2xf32>) {
      %0:2 = stablehlo.reduce(%a init: %i), (%b init: %f) across dimensions = [0]
        : (tensor<0x2xi32>, tensor<0x2xf32>, tensor<i32>, tensor<f32>) -> (tensor<2xi32>, tensor<2xf32>)
        reducer(%p: tensor<i32>, %q: tensor<i32>) (%r: tensor<f32>, %s: tensor<f32>) {
          %1 = stablehlo.add %p, %q : tensor<i32>
          %2 = stablehlo.maximum %r, %s : tensor<f32>
          stablehlo.return %1, %2 : tensor<i32>, tensor<f32>
        }
      return %0#0, %0#1 : tensor<2xi32>, tensor<2xf32> }""",
                  np.zeros((0, 2), np.int32), np.zeros((0, 2), np.float32), np.int32(5), np.float32(7))
    np.testing.assert_array_equal(found[0], [5, 5])
    np.testing.assert_array_equal(found[1], [7, 7])


@pytest.mark.parametrize(("x", "w", "shape"), [((0, 3), (3, 2), (0, 2)), ((2, 0), (0, 2), (2, 2))])
def test_convolution_of_nothing(x, w, shape):
    types = ["x".join(map(str, s)) + "xf32" for s in (x, w, shape)]
    (found,) = _both("""func.func @main(%a: tensor<{0}>, %b: tensor<{1}>) -> tensor<{2}> {{
      %0 = stablehlo.convolution(%a, %b) dim_numbers = [b, f]x[i, o]->[b, f], window = {{}}
        {{batch_group_count = 1 : i64, feature_group_count = 1 : i64}}
        : (tensor<{0}>, tensor<{1}>) -> tensor<{2}>
      return %0 : tensor<{2}> }}""".format(*types), np.zeros(x, np.float32), np.zeros(w, np.float32))
    np.testing.assert_array_equal(found, np.zeros(shape))


@pytest.mark.parametrize(("source", "target", "values", "expected"), [
    ("f8E5M2", "f8E8M0FNU", [1.0, 2.0, 3.0], [1.0, 2.0, 4.0]),
    ("f8E8M0FNU", "f8E4M3FN", [1.0, 2.0, 4.0], [1.0, 2.0, 4.0]),
    ("i2", "ui4", [1, -1, -2], [1, 15, 14]),
])
def test_conversions_between_narrow_types(source, target, values, expected):
    by_name = {d.name: d for d in ALL}
    x = np.array(values).astype(by_name[source].wide).astype(by_name[source].numpy)
    (found,) = _both(f"""func.func @main(%a: tensor<3x{source}>) -> tensor<3x{target}> {{
      %0 = stablehlo.convert %a : (tensor<3x{source}>) -> tensor<3x{target}>
      return %0 : tensor<3x{target}> }}""", x)
    np.testing.assert_array_equal(found.astype(np.float32), expected)


def test_a_barrier_of_real_and_complex_values():
    z, x = np.array([1 + 2j], np.complex64), np.arange(3, dtype=np.int8)
    found = _both("""func.func @main(%z: tensor<1xcomplex<f32>>, %x: tensor<3xi8>)
                      -> (tensor<1xcomplex<f32>>, tensor<3xi8>) {
      %0:2 = stablehlo.optimization_barrier %z, %x : tensor<1xcomplex<f32>>, tensor<3xi8>
      %1 = stablehlo.add %0#1, %0#1 : tensor<3xi8>
      return %0#0, %1 : tensor<1xcomplex<f32>>, tensor<3xi8> }""", z, x)
    np.testing.assert_array_equal(found[0], z)
    np.testing.assert_array_equal(found[1], 2 * x)


def test_symbolic_dims_inside_regions():
    program = next(p for p in map(numbered, range(1_000_000, 1_000_400)) if p.sizes and any(
        op.regions and not all(r.type.is_static for r in op.results)
        for op in p.function.ops if op.name in ("stablehlo.if", "stablehlo.while", "stablehlo.case")))
    assert check(program) is None


def test_scatter_into_a_scalar():
    (found,) = _both("""func.func @main(%a: tensor<f32>, %u: tensor<3xf32>) -> tensor<f32> {
      %i = stablehlo.constant dense<> : tensor<3x0xi32>
      %0 = "stablehlo.scatter"(%a, %i, %u) <{scatter_dimension_numbers =
        #stablehlo.scatter<index_vector_dim = 1>}> ({
        ^bb0(%p: tensor<f32>, %q: tensor<f32>):
          %1 = stablehlo.add %p, %q : tensor<f32>
          stablehlo.return %1 : tensor<f32>
      }) : (tensor<f32>, tensor<3x0xi32>, tensor<3xf32>) -> tensor<f32>
      return %0 : tensor<f32> }""", np.float32(10), np.arange(3, dtype=np.float32))
    assert found == 13


def test_scan_over_nothing():
    found = _both("""func.func @main(%x: tensor<0x2xf32>, %c: tensor<f32>)
                      -> (tensor<0x2xf32>, tensor<f32>) {
      %0:2 = chlo.scan(%x) inits(%c) dimension=0 attributes {is_reverse = false} {
      ^bb0(%p: tensor<2xf32>, %q: tensor<f32>):
        %1 = stablehlo.negate %q : tensor<f32>
        stablehlo.return %p, %1 : tensor<2xf32>, tensor<f32>
      } : (tensor<0x2xf32>, tensor<f32>) -> (tensor<0x2xf32>, tensor<f32>)
      return %0#0, %0#1 : tensor<0x2xf32>, tensor<f32> }""",
                  np.zeros((0, 2), np.float32), np.float32(3))
    assert found[0].shape == (0, 2) and found[1] == 3


@pytest.mark.parametrize("dtype", [I2, UI2, I4, UI4], ids=str)
@pytest.mark.parametrize("name", ["shift_left", "shift_right_logical", "shift_right_arithmetic"])
def test_shifts_of_integers_narrower_than_a_byte(name, dtype):
    """All pairs, against Python integers."""
    bits = dtype.bits
    mask = (1 << bits) - 1
    patterns = np.arange(1 << bits, dtype=np.int8)
    values = patterns.astype(dtype.wide).astype(dtype.numpy)
    x, y = (v.ravel() for v in np.meshgrid(values, values, indexing="ij"))
    expected = []
    for a, n in ((int(a) & mask, int(b) & mask) for a, b in zip(x, y, strict=True)):
        signed = a - (1 << bits) if a >> (bits - 1) else a
        result = {"shift_left": a << n if n < bits else 0, "shift_right_logical": a >> n,
                  "shift_right_arithmetic": signed >> n}[name] & mask
        negative = dtype.kind == "int" and result >> (bits - 1)
        expected.append(result - (1 << bits) if negative else result)
    found = np.asarray(bind(f"stablehlo.{name}", x, y))
    np.testing.assert_array_equal(found.astype(np.int32), expected)
    type = f"tensor<{x.size}x{dtype}>"
    _both(f"func.func @main(%a: {type}, %b: {type}) -> {type} {{\n"
          f"%0 = stablehlo.{name} %a, %b : {type}\nreturn %0 : {type}\n}}", x, y)


def test_rounding_away_of_numbers_without_fraction():
    x = np.array([2**23 + 1, -(2**23 + 3), 0.49999997, -0.5, 2.5, -0.0], np.float32)
    (found,) = _both("""func.func @main(%a: tensor<6xf32>) -> tensor<6xf32> {
      %0 = stablehlo.round_nearest_afz %a : tensor<6xf32>
      return %0 : tensor<6xf32> }""", x)
    np.testing.assert_array_equal(found, np.float32([2**23 + 1, -(2**23 + 3), 0, -1, 3, -0.0]))


@pytest.mark.parametrize(("start", "expected"), [(2**64 - 1, 3), (2**63, 3), (1, 1)])
def test_unsigned_indices_beyond_the_signed_ones(start, expected):
    x = np.arange(4, dtype=np.int32)
    found = _both("""func.func @main(%x: tensor<4xi32>, %i: tensor<ui64>)
                      -> (tensor<1xi32>, tensor<i32>) {
      %0 = stablehlo.dynamic_slice %x, %i, sizes = [1] : (tensor<4xi32>, tensor<ui64>) -> tensor<1xi32>
      %1 = "stablehlo.gather"(%x, %i) <{dimension_numbers = #stablehlo.gather<
        collapsed_slice_dims = [0], start_index_map = [0]>, slice_sizes = array<i64: 1>}>
        : (tensor<4xi32>, tensor<ui64>) -> tensor<i32>
      return %0, %1 : tensor<1xi32>, tensor<i32> }""", x, np.uint64(start))
    assert found[0] == [expected] and found[1] == expected


@pytest.mark.parametrize("dtype", ["f16", "f32", "f64"])
def test_minus_zero_is_below_zero(dtype):
    by_name = {d.name: d.numpy for d in ALL}
    x, y = (np.array(v, by_name[dtype]) for v in ([0.0, -0.0, -0.0], [-0.0, 0.0, -0.0]))
    type = f"tensor<3x{dtype}>"
    low, high = _both(f"""func.func @main(%a: {type}, %b: {type}) -> ({type}, {type}) {{
      %0 = stablehlo.minimum %a, %b : {type}
      %1 = stablehlo.maximum %a, %b : {type}
      return %0, %1 : {type}, {type} }}""", x, y)
    for found, expected in ((low, [True, True, True]), (high, [False, False, True])):
        np.testing.assert_array_equal(np.signbit(found), expected)
    assert list(np.signbit(np.asarray(bind("stablehlo.minimum", x, y)))) == [True] * 3


@pytest.mark.parametrize(("dtype", "above"), [("f16", 2**-11), ("bf16", 2**-8), ("f8E5M2", 2**-3)])
def test_f64_rounds_once_to_a_narrow_type(dtype, above):
    """Just above the middle between 1 and the next number, which f32 cannot tell from the middle."""
    by_name = {d.name: d.numpy for d in ALL}
    x = np.array([1 + above + 2**-40, 1 + above - 2**-40, 1 + above])
    (found,) = _both(f"""func.func @main(%a: tensor<3xf64>) -> tensor<3x{dtype}> {{
      %0 = stablehlo.convert %a : (tensor<3xf64>) -> tensor<3x{dtype}>
      return %0 : tensor<3x{dtype}> }}""", x)
    assert found.dtype == by_name[dtype]
    np.testing.assert_array_equal(found.astype(np.float64), [1 + 2 * above, 1, 1])


def test_f32_functions_through_f64_before_a_conversion_to_f16():
    x = np.array([1, 2, 3, 4], np.float32)
    function = _function("""
        %0 = stablehlo.sine %a0 : tensor<4xf32>
        %1 = stablehlo.convert %0 : (tensor<4xf32>) -> tensor<4xf16>
        return %1 : tensor<4xf16>""", "tensor<4xf32>", result="tensor<4xf16>")
    np.testing.assert_allclose(compile_function(function)(x)[0], np.sin(x), rtol=1e-3)


def test_numpy_scalars_as_arguments():
    """They have no memory that outlives the look at their address."""
    function = _function("%0 = stablehlo.add %a0, %a1 : tensor<f64>\nreturn %0 : tensor<f64>",
                         "tensor<f64>", "tensor<f64>", result="tensor<f64>")
    executable = compile_function(function)
    for i in range(50):
        junk = [np.full(1, 1e9) for _ in range(8)]
        assert executable(np.float64(i), np.float64(1))[0] == i + 1
        del junk


def test_a_branch_with_complex_host_ops_reads_outer_values():
    text = """func.func @main(%i: tensor<i32>, %x: tensor<4xf32>, %y: tensor<i8>) -> tensor<i8> {
      %0 = "stablehlo.case"(%i) ({
        %1 = stablehlo.fft %x, type = RFFT, length = [4] : (tensor<4xf32>) -> tensor<3xcomplex<f32>>
        %2 = stablehlo.real %1 : (tensor<3xcomplex<f32>>) -> tensor<3xf32>
        %3 = stablehlo.slice %2 [0:1] : (tensor<3xf32>) -> tensor<1xf32>
        %4 = stablehlo.reshape %3 : (tensor<1xf32>) -> tensor<f32>
        %5 = stablehlo.convert %4 : (tensor<f32>) -> tensor<i8>
        %6 = stablehlo.add %5, %y : tensor<i8>
        stablehlo.return %6 : tensor<i8>
      }, {
        stablehlo.return %y : tensor<i8>
      }) : (tensor<i32>) -> tensor<i8>
      return %0 : tensor<i8> }"""
    (found,) = _both(text, np.int32(0), np.arange(4, dtype=np.float32), np.int8(1))
    assert found == 7


@pytest.mark.parametrize(("source", "target"), [("i4", "f4E2M1FN"), ("f4E2M1FN", "ui4")])
def test_bitcasts_between_types_of_half_a_byte(source, target):
    by_name = {d.name: d for d in ALL}
    x = np.array([1, 2, 3]).astype(by_name[source].wide).astype(by_name[source].numpy)
    (found,) = _both(f"""func.func @main(%a: tensor<3x{source}>) -> tensor<3x{target}> {{
      %0 = stablehlo.bitcast_convert %a : (tensor<3x{source}>) -> tensor<3x{target}>
      return %0 : tensor<3x{target}> }}""", x)
    np.testing.assert_array_equal(found.view(np.uint8) & 15, x.view(np.uint8) & 15)


def test_the_remainder_of_complex_numbers_is_refused():
    function = _function("%0 = stablehlo.remainder %a0, %a0 : tensor<complex<f32>>\n"
                         "return %0 : tensor<complex<f32>>", "tensor<complex<f32>>",
                         result="tensor<complex<f32>>")
    for engine in (lambda: evaluate(function, [np.complex64(1)]), lambda: compile_function(function)):
        with pytest.raises(UnsupportedError, match="remainder of complex numbers"):
            engine()
