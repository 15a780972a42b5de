"""Ops of StableHLO and chlo that nothing else here makes: bits, narrow types, special functions, maps,
scans, batch normalisation, collectives between processes, tuples."""

import math

import ml_dtypes
import numpy as np
import pytest

import tfn
from tfn.compiler.compile import ENGINE, compile_function
from tfn.compiler.errors import OpError, UnsupportedError
from tfn.compiler.ir.dtypes import MINIFLOATS, as_dtype
from tfn.compiler.ir.evaluator import evaluate
from tfn.compiler.ir.parser import parse_module
from tfn.compiler.ir.printer import print_module
from tfn.compiler.ops.check import CheckError, recording, ulp_distance
from tfn.compiler.passes.inline import inline
from tfn.compiler.trace.core import as_array, bind

RNG = np.random.default_rng(0)


def both(name, *arrays, tolerance=0.0, **attributes):
    """The op evaluated and compiled, which agree; the evaluated results are returned."""
    eager = bind(name, *map(as_array, arrays), **attributes)
    eager = eager if isinstance(eager, list) else [eager]
    compiled = tfn.jit(lambda *a: bind(name, *a, **attributes))(*arrays)
    compiled = compiled if isinstance(compiled, (list, tuple)) else [compiled]
    for a, b in zip(eager, compiled, strict=True):
        if tolerance:
            np.testing.assert_allclose(np.asarray(b), np.asarray(a), rtol=tolerance, atol=tolerance)
        else:
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    return [np.asarray(e) for e in eager]


@pytest.mark.parametrize("dtype", ["i8", "i16", "i32", "i64", "ui8", "ui64", "i4", "ui4", "i2"])
def test_bits(dtype):
    t = as_dtype(dtype)
    raw = RNG.integers(0, 2 ** min(t.bits, 62), 40)
    x = raw.astype(f"u{max(t.itemsize, 1)}").view(t.wide).astype(t.numpy)
    patterns = [int(v) % 2**t.bits for v in x.astype(np.int64)]
    (counts,) = both("stablehlo.popcnt", x)
    assert [int(c) for c in counts.astype(np.int64)] == [
        _wrapped(bin(p).count("1"), t) for p in patterns]
    (zeros,) = both("stablehlo.count_leading_zeros", x)
    assert [int(c) for c in zeros.astype(np.int64)] == [
        _wrapped(t.bits - p.bit_length(), t) for p in patterns]
    (high,) = both("chlo.mulhi", x, x[::-1].copy())
    values = [int(v) for v in x.astype(object)]
    assert [int(v) for v in high.astype(object)] == [
        (a * b) >> t.bits for a, b in zip(values, values[::-1], strict=True)]


def _wrapped(value, dtype):
    """As an element of a type it may not fit."""
    low = value % 2**dtype.bits
    return low - 2**dtype.bits if dtype.kind == "int" and low >= 2 ** (dtype.bits - 1) else low


@pytest.mark.parametrize("dtype", MINIFLOATS, ids=str)
def test_floats_of_a_byte_and_less(dtype):
    bits = np.arange(2**dtype.bits, dtype=np.uint8).view(dtype.numpy)
    (wide,) = both("stablehlo.convert", bits, dtype=as_dtype("f32"))
    np.testing.assert_array_equal(wide, bits.astype(np.float32))
    x = np.concatenate([RNG.normal(size=500) * s for s in (1e-3, 1, 50, 1e4)]).astype(np.float32)
    x = np.concatenate([x, wide[np.isfinite(wide)], [np.inf, -np.inf, 0, -0.0]]).astype(np.float32)
    found = np.asarray(tfn.jit(lambda v: bind("stablehlo.convert", v, dtype=dtype))(x))
    with np.errstate(all="ignore"):
        assert found.tobytes() == x.astype(dtype.numpy).tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
def test_next_after(dtype):
    x = np.array([0, -0.0, 1, -1, 3.5, 1, np.nan, 2]).astype(dtype)
    y = np.array([1, -1, 2, 0, 3.5, 0, 1, np.inf]).astype(dtype)
    (found,) = both("chlo.next_after", x, y)
    expected = np.nextafter(x, y)
    np.testing.assert_array_equal(found.astype(np.float64), expected.astype(np.float64))


@pytest.mark.parametrize("source", [np.float32, np.float64])
def test_reduce_precision_to_half_is_half(source):
    x = np.concatenate([RNG.normal(size=500) * 10.0**k for k in (-6, -3, 0, 4)]).astype(source)
    (found,) = both("stablehlo.reduce_precision", x, exponent_bits=5, mantissa_bits=10)
    with np.errstate(over="ignore"):
        expected = x.astype(np.float16).astype(source)
    expected[np.abs(expected) < 2.0**-14] = 0  # Subnormals of the format become zero.
    np.testing.assert_array_equal(found, expected)


def test_special_functions():
    x = np.array([0.1, 0.5, 1.5, 2.0, 3.7, 12.5, -0.5, -2.3])
    (found,) = both("chlo.lgamma", x, tolerance=1e-13)
    np.testing.assert_allclose(found, [math.lgamma(v) for v in x], rtol=1e-12, atol=1e-13)
    (found,) = both("chlo.erfc", np.abs(x), tolerance=1e-14)
    np.testing.assert_allclose(found, [math.erfc(abs(v)) for v in x], rtol=1e-14)
    h = 1e-5
    (found,) = both("chlo.digamma", x, tolerance=1e-12)
    slope = [(math.lgamma(v + h) - math.lgamma(v - h)) / (2 * h) for v in x]
    np.testing.assert_allclose(found, slope, rtol=1e-7)
    (found,) = both("chlo.zeta", np.array([2.0, 4.0]), np.array([1.0, 1.0]), tolerance=1e-14)
    np.testing.assert_allclose(found, [math.pi**2 / 6, math.pi**4 / 90], rtol=1e-14)
    (found,) = both("chlo.polygamma", np.array([1.0, 3.0]), np.array([1.0, 1.0]),
                    tolerance=1e-12)
    np.testing.assert_allclose(found, [math.pi**2 / 6, math.pi**4 / 15], rtol=1e-12)
    # I1(x) by its series.
    t = np.array([0.3, 2.0, 9.0, -4.0])
    f = math.factorial
    series = [math.exp(-abs(v)) * sum((v / 2) ** (2 * k + 1) / (f(k) * f(k + 1)) for k in range(60))
              for v in t]
    (found,) = both("chlo.bessel_i1e", t, tolerance=1e-14)
    np.testing.assert_allclose(found, series, rtol=1e-13)


def test_top_k():
    x = np.array([[3, 1, np.nan, 2, 3], [0.0, -0.0, -1, 5, 5]], np.float32)
    values, places = both("chlo.top_k", x, k=3)
    np.testing.assert_array_equal(values, [[np.nan, 3, 3], [5, 5, 0]])
    np.testing.assert_array_equal(places, [[2, 0, 4], [3, 4, 0]])
    with pytest.raises(OpError, match="cannot select 6 of 5"):
        bind("chlo.top_k", as_array(x), k=6)


def test_batch_norm():
    x = RNG.normal(size=(4, 3, 5)).astype(np.float32)
    scale, offset = RNG.normal(size=(2, 3)).astype(np.float32)
    ct = RNG.normal(size=x.shape).astype(np.float32)
    attributes = {"epsilon": 1e-3, "feature_index": 1}
    mean, variance = x.mean((0, 2)), x.var((0, 2))
    spread = lambda v: v[None, :, None]  # noqa: E731
    normal = (x - spread(mean)) / np.sqrt(spread(variance) + 1e-3)
    train = tfn.jit(lambda *a: bind("stablehlo.batch_norm_training", *a, **attributes))
    out, m, v = train(x, scale, offset)
    np.testing.assert_allclose(np.asarray(out), normal * spread(scale) + spread(offset), rtol=1e-4,
                               atol=1e-5)
    np.testing.assert_allclose(np.asarray(m), mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(np.asarray(v), variance, rtol=1e-4)
    (found,) = [np.asarray(bind("stablehlo.batch_norm_inference",
                                *map(as_array, (x, scale, offset, mean, variance)), **attributes))]
    np.testing.assert_allclose(found, np.asarray(out), rtol=1e-4, atol=1e-5)
    # The gradient op is the gradient of the training op.
    back = bind("stablehlo.batch_norm_grad", *map(as_array, (x, scale, mean, variance, ct)),
                **attributes)
    _, pull = tfn.vjp(lambda *a: bind("stablehlo.batch_norm_training", *a, **attributes)[0],
                      x, scale, offset)
    for a, b in zip(back, pull(ct), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=2e-3, atol=1e-4)


def run(text, engine):
    """Run `@main` of a program on an engine; the outcomes of its checks."""
    module = parse_module(text)
    assert print_module(parse_module(print_module(module))) == print_module(module)
    with recording() as record:
        ENGINE.name = engine
        main = inline(module["main"])
        if engine == "compiler":
            compile_function(main)()
        else:
            evaluate(main, [])
    ENGINE.name = "compiler"
    return record.outcomes


PROGRAMS = {
    "map": """
      func.func @main() {
        %a = stablehlo.constant dense<[[0, 1], [2, 3]]> : tensor<2x2xi64>
        %r = "stablehlo.map"(%a, %a) ({
          ^bb0(%x: tensor<i64>, %y: tensor<i64>):
            %c = stablehlo.constant dense<10> : tensor<i64>
            %0 = stablehlo.multiply %x, %y : tensor<i64>
            %1 = stablehlo.add %0, %c : tensor<i64>
            stablehlo.return %1 : tensor<i64>
        }) {dimensions = array<i64: 0, 1>} : (tensor<2x2xi64>, tensor<2x2xi64>) -> tensor<2x2xi64>
        check.expect_eq_const %r, dense<[[10, 11], [14, 19]]> : tensor<2x2xi64>
        return
      }""",
    "scan": """
      func.func @main() {
        %x = stablehlo.constant dense<[1, 2, 3, 4]> : tensor<4xi32>
        %i = stablehlo.constant dense<100> : tensor<i32>
        %0:2 = chlo.scan(%x) inits(%i) dimension=0 {
        ^bb0(%a: tensor<i32>, %b: tensor<i32>):
          %1 = stablehlo.add %a, %b : tensor<i32>
          stablehlo.return %1, %1 : tensor<i32>, tensor<i32>
        } : (tensor<4xi32>, tensor<i32>) -> (tensor<4xi32>, tensor<i32>)
        check.expect_eq_const %0#0, dense<[101, 103, 106, 110]> : tensor<4xi32>
        check.expect_eq_const %0#1, dense<110> : tensor<i32>
        return
      }""",
    "tuples": """
      func.func @main() {
        %a = stablehlo.constant dense<[1.0, 2.0]> : tensor<2xf64>
        %b = stablehlo.constant dense<3> : tensor<i64>
        %t = stablehlo.tuple %b : tuple<tensor<i64>>
        %u = stablehlo.tuple %a, %t : tuple<tensor<2xf64>, tuple<tensor<i64>>>
        %v = stablehlo.get_tuple_element %u[1] : (tuple<tensor<2xf64>, tuple<tensor<i64>>>) ->
          tuple<tensor<i64>>
        %w = stablehlo.get_tuple_element %v[0] : (tuple<tensor<i64>>) -> tensor<i64>
        check.expect_eq_const %w, dense<3> : tensor<i64>
        return
      }""",
    "collectives": """
      func.func @f(%x: tensor<4xi64>) -> (tensor<4xi64>, tensor<8xi64>, tensor<2xi64>, tensor<ui32>) {
        %0 = "stablehlo.all_reduce"(%x) ({
          ^bb0(%a: tensor<i64>, %b: tensor<i64>):
            %s = stablehlo.add %a, %b : tensor<i64>
            stablehlo.return %s : tensor<i64>
        }) {replica_groups = dense<[[0, 1]]> : tensor<1x2xi64>} : (tensor<4xi64>) -> tensor<4xi64>
        %1 = "stablehlo.all_gather"(%x) {all_gather_dim = 0 : i64, replica_groups = dense<[[0, 1]]> :
          tensor<1x2xi64>} : (tensor<4xi64>) -> tensor<8xi64>
        %2 = "stablehlo.reduce_scatter"(%x) ({
          ^bb0(%a: tensor<i64>, %b: tensor<i64>):
            %s = stablehlo.maximum %a, %b : tensor<i64>
            stablehlo.return %s : tensor<i64>
        }) {scatter_dimension = 0 : i64, replica_groups = dense<[[0, 1]]> : tensor<1x2xi64>} :
          (tensor<4xi64>) -> tensor<2xi64>
        %3 = stablehlo.replica_id : tensor<ui32>
        return %0, %1, %2, %3 : tensor<4xi64>, tensor<8xi64>, tensor<2xi64>, tensor<ui32>
      }
      func.func @main() {
        %a = stablehlo.constant dense<[1, 2, 3, 4]> : tensor<4xi64>
        %b = stablehlo.constant dense<[10, -20, 30, -40]> : tensor<4xi64>
        %r:8 = "interpreter.run_parallel"(%a, %b) {programs = [[@f], [@f]]} :
          (tensor<4xi64>, tensor<4xi64>) -> (tensor<4xi64>, tensor<8xi64>, tensor<2xi64>, tensor<ui32>,
                                             tensor<4xi64>, tensor<8xi64>, tensor<2xi64>, tensor<ui32>)
        check.expect_eq_const %r#0, dense<[11, -18, 33, -36]> : tensor<4xi64>
        check.expect_eq_const %r#5, dense<[1, 2, 3, 4, 10, -20, 30, -40]> : tensor<8xi64>
        check.expect_eq_const %r#2, dense<[10, 2]> : tensor<2xi64>
        check.expect_eq_const %r#6, dense<[30, 4]> : tensor<2xi64>
        check.expect_eq_const %r#7, dense<1> : tensor<ui32>
        return
      }""",
    "futures": """
      func.func @f(%x: tensor<2xi64>) -> tensor<4xi64> {
        %0 = "stablehlo.async_start"(%x) ({
          ^bb0(%a: tensor<2xi64>):
            %1 = "stablehlo.all_gather"(%a) {all_gather_dim = 0 : i64,
              replica_groups = dense<[[0, 1]]> : tensor<1x2xi64>} : (tensor<2xi64>) -> tensor<4xi64>
            stablehlo.return %1 : tensor<4xi64>
        }) : (tensor<2xi64>) -> !stablehlo.future<tensor<4xi64>>
        %2 = "stablehlo.async_done"(%0) : (!stablehlo.future<tensor<4xi64>>) -> tensor<4xi64>
        return %2 : tensor<4xi64>
      }
      func.func @main() {
        %a = stablehlo.constant dense<[1, 2]> : tensor<2xi64>
        %b = stablehlo.constant dense<[3, 4]> : tensor<2xi64>
        %r:2 = "interpreter.run_parallel"(%a, %b) {programs = [[@f], [@f]]} :
          (tensor<2xi64>, tensor<2xi64>) -> (tensor<4xi64>, tensor<4xi64>)
        check.expect_eq_const %r#1, dense<[1, 2, 3, 4]> : tensor<4xi64>
        return
      }""",
}


@pytest.mark.parametrize("engine", ["compiler", "evaluator"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(name, engine):
    outcomes = run(PROGRAMS[name], engine)
    assert len(outcomes) == PROGRAMS[name].count("check.")
    assert all(o.holds for o in outcomes), [o.detail for o in outcomes]


@pytest.mark.parametrize("engine", ["compiler", "evaluator"])
def test_a_check_that_does_not_hold(engine):
    text = """func.func @main() {
      %a = stablehlo.constant dense<[1.0, 2.0]> : tensor<2xf32>
      check.expect_eq_const %a, dense<[1.0, 3.0]> : tensor<2xf32>
      return
    }"""
    main = parse_module(text, "wrong.mlir")["main"]
    with pytest.raises(CheckError, match=r"1 of 2 elements differ; at \[1\] got 2.0, expected 3.0"):
        compile_function(main)() if engine == "compiler" else evaluate(main, [])


@pytest.mark.parametrize("engine", [evaluate, lambda f, a: compile_function(f)(*a)],
                         ids=["evaluator", "compiler"])
@pytest.mark.parametrize("distribution, element, a, b", [
    ("UNIFORM", "f32", 2.0, 5.0), ("UNIFORM", "i32", -3, 4), ("UNIFORM", "ui8", 7, 250),
    ("NORMAL", "f64", 10.0, 0.5), ("UNIFORM", "i1", False, True)])
def test_rng(distribution, element, a, b, engine):
    text = f"""func.func @main(%a: tensor<{element}>, %b: tensor<{element}>) -> (
        tensor<500x20x{element}>, tensor<500x20x{element}>) {{
      %s = stablehlo.constant dense<[500, 20]> : tensor<2xi64>
      %0 = stablehlo.rng %a, %b, %s, distribution = {distribution} :
        (tensor<{element}>, tensor<{element}>, tensor<2xi64>) -> tensor<500x20x{element}>
      %1 = stablehlo.rng %a, %b, %s, distribution = {distribution} :
        (tensor<{element}>, tensor<{element}>, tensor<2xi64>) -> tensor<500x20x{element}>
      return %0, %1 : tensor<500x20x{element}>, tensor<500x20x{element}>
    }}"""
    function = parse_module(text)["main"]
    one, other = engine(function, [np.asarray(v, as_dtype(element).numpy) for v in (a, b)])
    assert (one != other).any()
    wide = np.asarray(one, np.float64)
    if distribution == "NORMAL":
        assert abs(wide.mean() - a) < 0.05 and abs(wide.std() - b) < 0.05
    elif element == "i1":
        assert 0.45 < wide.mean() < 0.55
    else:
        assert wide.min() >= a and wide.max() < b
        middle = (a + b - (element != "f32")) / 2
        assert abs(wide.mean() - middle) < 0.03 * (b - a)


def test_an_unknown_custom_call():
    text = """func.func @main(%a: tensor<2xf32>) -> tensor<2xf32> {
      %0 = stablehlo.custom_call @os.system(%a) : (tensor<2xf32>) -> tensor<2xf32>
      return %0 : tensor<2xf32>
    }"""
    with pytest.raises(UnsupportedError, match=r"@os\.system is not known to tfn"):
        compile_function(parse_module(text)["main"])(np.zeros(2, np.float32))


def test_a_collective_of_two_needs_a_mesh():
    with pytest.raises(UnsupportedError, match="run the program on a mesh"):
        run(
            PROGRAMS["collectives"].split("func.func @main")[0].replace("@f(", "@g(")
            + """func.func @main() {
              %a = stablehlo.constant dense<[1, 2, 3, 4]> : tensor<4xi64>
              %r:4 = func.call @g(%a) : (tensor<4xi64>) ->
                (tensor<4xi64>, tensor<8xi64>, tensor<2xi64>, tensor<ui32>)
              check.expect_eq_const %r#0, dense<[1, 2, 3, 4]> : tensor<4xi64>
              return
            }""", "evaluator")


def test_ulp_distance():
    one = np.float32(1)
    x = np.array([1, 0.0, np.inf, np.nan, -1], np.float32)
    y = np.array([np.nextafter(one, 2), -0.0, np.inf, np.nan, 1], np.float32)
    np.testing.assert_array_equal(ulp_distance(x, y)[:4], [1, 0, 0, 0])
    assert ulp_distance(x[4:], y[4:])[0] == 2 * 0x3F800000
    assert ulp_distance(x[2:3], x[3:4])[0] == np.inf
