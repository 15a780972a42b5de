"""Complex numbers: every function against NumPy, eagerly and compiled, with values at the edges."""

import numpy as np
import pytest

import tfn
from tfn import numpy as tnp
from tfn.compiler.compile import compile_function
from tfn.compiler.ir.evaluator import evaluate
from tfn.compiler.ir.parser import parse_module
from tfn.compiler.trace.core import as_array, bind

RNG = np.random.default_rng(0)
EDGES = np.array([0, -0.0, 1, -1, 0.5, 2, 1e-30, 1e30, 3.7])
GRID = (EDGES[:, None] + 1j * EDGES[None, :]).reshape(-1)
RANDOM = RNG.normal(size=200) + 1j * RNG.normal(size=200)

FUNCTIONS = {
    "stablehlo.exponential": np.exp, "stablehlo.exponential_minus_one": np.expm1,
    "stablehlo.log": np.log,
    "stablehlo.log_plus_one": lambda z: np.where(
        np.abs(z) < 1e-9, z, np.log(1 + z.astype(np.clongdouble)).astype(complex)),
    "stablehlo.sqrt": np.sqrt,
    "stablehlo.sine": np.sin, "stablehlo.cosine": np.cos, "stablehlo.tan": np.tan,
    "stablehlo.tanh": np.tanh, "chlo.square": np.square, "chlo.sinh": np.sinh, "chlo.cosh": np.cosh,
    "chlo.tan": np.tan, "chlo.asin": np.arcsin, "chlo.acos": np.arccos, "chlo.atan": np.arctan,
    "chlo.asinh": np.arcsinh, "chlo.acosh": np.arccosh, "chlo.atanh": np.arctanh,
    "stablehlo.rsqrt": lambda z: 1 / np.sqrt(z), "stablehlo.negate": np.negative,
    "stablehlo.logistic": lambda z: 1 / (1 + np.exp(-z)),
}
ENGINES = {"eager": lambda f: lambda *a: f(*map(as_array, a)), "jit": tfn.jit}


def close(found, expected, dtype):
    """Each number within a few ULP of its own size."""
    error = np.abs(found - expected)
    limit = 16 * np.finfo(dtype).eps * np.maximum(np.abs(expected), np.finfo(dtype).tiny)
    assert (error <= limit).all(), (found[error > limit][:3], expected[error > limit][:3])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name, dtype, engine):
    z = np.concatenate([GRID, RANDOM]).astype(dtype)
    with np.errstate(all="ignore"):
        expected = FUNCTIONS[name](z.astype(np.complex128))
        fits = np.isfinite(expected) & (np.abs(expected) < np.finfo(dtype).max / 4)
    found = np.asarray(ENGINES[engine](lambda x: bind(name, x))(z))
    assert found.dtype == dtype
    near_branch = np.abs(np.abs(z) - 1) < 1e-3 if name.startswith("chlo.a") else np.zeros(z.shape, bool)
    keep = fits & ~near_branch
    close(found.astype(np.complex128)[keep], expected[keep], dtype)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("name, function", [
    ("add", np.add), ("subtract", np.subtract), ("multiply", np.multiply), ("divide", np.divide),
    ("power", np.power)])
def test_arithmetic(name, function, dtype, engine):
    a = RANDOM[:100].astype(dtype)
    b = (RANDOM[100:] + 0.1).astype(dtype)
    found = np.asarray(ENGINES[engine](lambda x, y: bind(f"stablehlo.{name}", x, y))(a, b))
    np.testing.assert_allclose(found, function(a, b), rtol=60 * np.finfo(dtype).eps)


SPECIAL = np.array([0, -0.0, 1, -1, 2.5, -0.3, 30, 800, -800, np.inf, -np.inf, np.nan])
# NumPy's own expm1 and log1p of complex numbers are not C99's.
OF_C99 = ("exp", "log", "sqrt", "sin", "cos", "tan", "sinh", "cosh", "tanh", "arcsin", "arccos",
          "arctan", "arcsinh", "arccosh", "arctanh")


@pytest.mark.parametrize("name", OF_C99)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_special_values_of_c99(name):
    """The same infinities and NaNs as C99; the sign of what has none (inf or 0 beside NaN) is free."""
    z = np.array([complex(a, b) for a in SPECIAL for b in SPECIAL])
    expected = getattr(np, name)(z)
    for found in (getattr(tnp, name)(z), tfn.jit(getattr(tnp, name))(z)):
        for part, other in (("real", "imag"), ("imag", "real")):
            x, y = getattr(np.asarray(found), part), getattr(expected, part)
            free = np.isnan(getattr(expected, other))
            x, y = np.where(free, np.abs(x), x), np.where(free, np.abs(y), y)
            np.testing.assert_allclose(x, y, rtol=1e-12)
            zero = (y == 0) & ~free & np.isfinite(z)
            np.testing.assert_array_equal(np.signbit(x[zero]), np.signbit(y[zero]))


@pytest.mark.parametrize("engine", ENGINES)
def test_the_op_has_no_exponential_of_two_infinities(engine):
    """As StableHLO's own samples say; elsewhere infinities are C99's, in the function and the op."""
    z = np.array([complex(a, b) for a in (-np.inf, np.inf) for b in (np.inf, -np.inf, 0.5, np.nan)])
    found = np.asarray(ENGINES[engine](lambda x: bind("stablehlo.exponential", x))(z))
    both = np.isinf(z.real) & np.isinf(z.imag)
    np.testing.assert_array_equal(found[both], complex(np.nan, np.nan))
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(found[~both].real, np.exp(z[~both]).real)


def test_division_does_not_overflow():
    big = np.array([1e300 + 1e300j, 1e-300 - 1e-300j])
    found = np.asarray(tfn.jit(lambda x: x / x)(big))
    np.testing.assert_allclose(found, [1, 1], rtol=1e-14)


def test_abs_does_not_overflow():
    z = np.array([3e38 + 1e38j, 1e-40 + 2e-40j, np.inf + np.nan * 1j], np.complex64)
    np.testing.assert_allclose(np.asarray(tfn.jit(tnp.absolute)(z)), np.abs(z.astype(np.complex128)),
                               rtol=1e-5)


def test_programs_with_everything():
    """Movement, products, reductions, sorting by a key, control flow and borders of both kinds."""
    w = (RNG.normal(size=(4, 4)) + 1j * RNG.normal(size=(4, 4))).astype(np.complex64)
    x = RNG.normal(size=(3, 4)).astype(np.float32)

    def program(w, x):
        z = tnp.matmul(x.astype(np.complex64), w)
        z = tnp.concatenate([z, tnp.conj(z[:, ::-1])], 1)
        z = tnp.where(tnp.real(z) > 0, z, z * 1j)
        total = tnp.sum(z, 0) + tnp.prod(z[:2], 0)
        z, _ = tfn.scan(lambda c, r: (c * 0.5 + r, tnp.abs(r)), total, z)
        return z, tnp.real(z), tnp.fft.ifft(tnp.fft.fft(z)), tnp.linalg.inv(w)

    z = x.astype(np.complex64) @ w
    z = np.concatenate([z, z[:, ::-1].conj()], 1)
    z = np.where(z.real > 0, z, z * 1j)
    c = z.sum(0) + z[:2].prod(0)
    for row in z:
        c = c * 0.5 + row
    expected = (c, c.real, c, np.linalg.inv(w))
    for run in (program, tfn.jit(program)):
        for a, b in zip(run(as_array(w), as_array(x)), expected, strict=True):
            np.testing.assert_allclose(np.asarray(a), b, rtol=2e-4, atol=1e-5)


def test_holomorphic_derivative():
    z = RANDOM[:5]
    _, pull = tfn.vjp(lambda v: tnp.exp(v) * v, z)
    found = np.asarray(pull(np.ones(5, complex))[0])
    np.testing.assert_allclose(found, np.exp(z) * (z + 1), rtol=1e-12)


@pytest.mark.parametrize("engine", ["compiler", "evaluator"])
def test_bitcasts(engine):
    text = """
      func.func @main(%a: tensor<2xcomplex<f64>>, %b: tensor<2xcomplex<f32>>) ->
          (tensor<2x2xcomplex<f32>>, tensor<2xui64>) {
        %0 = stablehlo.bitcast_convert %a : (tensor<2xcomplex<f64>>) -> tensor<2x2xcomplex<f32>>
        %1 = stablehlo.bitcast_convert %b : (tensor<2xcomplex<f32>>) -> tensor<2xui64>
        return %0, %1 : tensor<2x2xcomplex<f32>>, tensor<2xui64>
      }"""
    main = parse_module(text)["main"]
    a, b = RANDOM[:2], RANDOM[:2].astype(np.complex64)
    if engine == "compiler":
        with np.errstate(all="ignore"):
            found = [compile_function(main)(a, b)[1]]
            np.testing.assert_array_equal(found[0], b.view(np.uint64))
    else:
        first, second = evaluate(main, (a, b))
        assert first.tobytes() == a.tobytes()
        np.testing.assert_array_equal(second, b.view(np.uint64))
