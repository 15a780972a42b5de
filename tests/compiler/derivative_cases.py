"""Programs whose derivatives are compared with JAX's: at least one for every op that has one.

A case is a JAX expression of operands `a`, `b`, `c` ... JAX lowers it to StableHLO, which tfn reads and
differentiates; JAX's own derivative programs are the reference. An op that JAX does not emit has a
`text`: StableHLO that means the same as the expression, with the element type written `T`.

This file is also run in the Python that has JAX (`jax_derivatives.py`): it needs NumPy only.
"""
# ruff: noqa: E501  (a table: one case a line)

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Operand = Callable[[np.random.Generator, np.dtype], np.ndarray]


@dataclass(frozen=True)
class Case:
    """`ops`: what it is about. `smooth`: second derivatives are compared, too."""

    ops: tuple[str, ...]
    program: str
    operands: tuple[Operand, ...]
    smooth: bool = True
    reference: str = ""
    """The same function as a JAX expression whose derivative JAX knows, where that of `program` it does not."""
    text: str = ""
    """StableHLO in place of the lowered `program`: `T` stands for the element type."""
    forward_only: bool = False
    """Without a reverse mode, as in JAX."""
    differs: Callable[..., np.ndarray] | None = None
    """Where we differ from JAX: a mask made of the operands. `why` says why."""
    why: str = ""
    tolerance: float = 1.0
    """Of the usual tolerance, for what is badly conditioned."""

    def kinds(self, dtype: str) -> list[str]:
        """The derivatives to compare; second ones in f64."""
        first = ["jvp"] if self.forward_only else ["vjp", "jvp"]
        second = self.smooth and not self.forward_only and dtype == "float64"
        return [*first, *(["jvp of vjp", "vjp of vjp"] if second else [])]

    def values(self, dtype: str) -> list[np.ndarray]:
        """Operands of the element type `dtype`, always the same."""
        rng = np.random.default_rng(len(self.program))
        return [o(rng, np.dtype(dtype)) for o in self.operands]


CASES: dict[str, Case] = {}


def case(name: str, ops: str, program: str, *operands: Operand, **options) -> None:
    """Add a case; `ops` are names without `stablehlo.`, separated by spaces."""
    full = tuple(o if "." in o else f"stablehlo.{o}" for o in ops.split())
    if name in CASES:
        raise ValueError(f"the case {name} is there twice")
    CASES[name] = Case(full, program, operands, **options)


# -- operands -------------------------------------------------------------------------------------

def real(*shape: int, low: float = -2.0, high: float = 2.0) -> Operand:
    """Random numbers, no two alike."""
    return lambda rng, dtype: np.asarray(rng.uniform(low, high, shape)).astype(dtype)


def positive(*shape: int) -> Operand:
    return real(*shape, low=0.3, high=3.0)


def given(*values) -> Operand:
    """These numbers, of the case's dtype."""
    return lambda rng, dtype: np.asarray(values).astype(dtype)


def index(*shape: int, low: int = 0, high: int = 5) -> Operand:
    return lambda rng, dtype: np.asarray(rng.integers(low, high, shape), np.int32)


def fixed(values, dtype="i4") -> Operand:
    """These values, of this dtype."""
    return lambda rng, _: np.asarray(values, dtype)


def whole(*shape: int) -> Operand:
    """Complex numbers."""
    def make(rng, dtype):
        parts = rng.uniform(-2, 2, (2, *shape))
        return (parts[0] + 1j * parts[1]).astype(np.result_type(dtype, np.complex64))

    return make


def ties(*shape: int) -> Operand:
    """Small whole numbers: many are equal."""
    return lambda rng, dtype: rng.integers(-2, 3, shape).astype(dtype)


def matrix(*shape: int, shift: float = 4.0) -> Operand:
    """Well conditioned matrices."""
    def make(rng, dtype):
        x = rng.uniform(-1, 1, shape)
        return (x + shift * np.eye(*shape[-2:])).astype(dtype)

    return make


TINY = 1e-40
"""Subnormal in f32."""
EDGES = (0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 3.0, -2.5, np.inf, -np.inf, np.nan, TINY, -TINY, 88.0,
         -88.0, 1e30, 1 + 1e-6, -1 - 1e-6)
PAIRS = (0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 3.0, -2.0, -2.5, np.inf, -np.inf, np.nan, TINY)
_X, _Y = (np.ravel(m) for m in np.meshgrid(PAIRS, PAIRS))


# -- elementwise functions of one operand: at random points and at the edges ----------------------

UNARY = {
    "abs": "lax.abs(a)", "negate": "lax.neg(a)", "sign": "lax.sign(a)",
    "exponential": "lax.exp(a)", "exponential_minus_one": "lax.expm1(a)", "log": "lax.log(a)",
    "log_plus_one": "lax.log1p(a)", "sqrt": "lax.sqrt(a)", "rsqrt": "lax.rsqrt(a)",
    "cbrt": "lax.cbrt(a)", "tanh": "lax.tanh(a)", "logistic": "lax.logistic(a)", "sine": "lax.sin(a)",
    "cosine": "lax.cos(a)", "tan": "lax.tan(a)", "floor": "lax.floor(a)", "ceil": "lax.ceil(a)",
    "round_nearest_even": "lax.round(a, lax.RoundingMethod.TO_NEAREST_EVEN)",
    "round_nearest_afz": "lax.round(a, lax.RoundingMethod.AWAY_FROM_ZERO)",
    "is_finite": "jnp.where(lax.is_finite(a), a * a, a)",
    "chlo.erf": "lax.erf(a)", "chlo.erfc": "lax.erfc(a)", "chlo.erf_inv": "lax.erf_inv(a)",
    "chlo.lgamma": "lax.lgamma(a)", "chlo.digamma": "lax.digamma(a)",
    "chlo.bessel_i1e": "lax.bessel_i1e(a)", "chlo.square": "lax.square(a)",
    "chlo.acos": "lax.acos(a)", "chlo.acosh": "lax.acosh(a)", "chlo.asin": "lax.asin(a)",
    "chlo.asinh": "lax.asinh(a)", "chlo.atan": "lax.atan(a)", "chlo.atanh": "lax.atanh(a)",
    "chlo.sinh": "lax.sinh(a)", "chlo.cosh": "lax.cosh(a)", "chlo.tan": "lax.tan(a)",
    "reduce_precision": "lax.reduce_precision(a, 5, 7)",
}
ABOVE_ONE = {"chlo.acosh"}
INSIDE_ONE = {"chlo.acos", "chlo.asin", "chlo.atanh", "chlo.erf_inv", "log_plus_one"}
ABOVE_ZERO = {"log", "sqrt", "rsqrt", "cbrt", "chlo.lgamma", "chlo.digamma"}
ROUGH = {"sign", "floor", "ceil", "round_nearest_even", "round_nearest_afz", "reduce_precision"}


def _range(name: str) -> dict[str, float]:
    if name in ABOVE_ONE:
        return {"low": 1.1, "high": 4.0}
    if name in INSIDE_ONE:
        return {"low": -0.9, "high": 0.9}
    return {"low": 0.2, "high": 4.0} if name in ABOVE_ZERO else {}


def _elementwise_text(name: str, size: int, element: str = "T") -> dict[str, str]:
    """For an op that JAX lowers to others."""
    if name not in LOWERED:
        return {}
    t = f"tensor<{size}x{element}>"
    return {"text": f'func.func @main(%a: {t}) -> {t} {{ %0 = "{LOWERED[name]}"(%a) : ({t}) -> {t}  return %0 : {t} }}'}


LOWERED = {"logistic": "stablehlo.logistic", "chlo.tan": "chlo.tan"}
UNARY_OPTIONS: dict[str, dict] = {
    "chlo.acosh": {"differs": lambda x: (x <= -1) | (x > 1e15) | (x == x.dtype.type(1 + 1e-6)),
                   "why": "below -1 there is no function to have a slope; JAX's x * x - 1 overflows"
                   " for large x and cancels next to 1"},
}
for _name, _program in UNARY.items():
    _options = UNARY_OPTIONS.get(_name, {})
    case(_name, _name, _program, real(16, **_range(_name)), smooth=_name not in ROUGH,
         **_elementwise_text(_name, 16))
    case(f"{_name}, edges", _name, _program, given(*EDGES), smooth=False, **_options,
         **_elementwise_text(_name, len(EDGES)))

COMPLEX_OPTIONS: dict[str, dict] = {
    "chlo.acosh": {"differs": lambda z: z.real < 0, "why": "JAX's sqrt(z * z - 1) is on the wrong branch"
                   " in the left half plane"},
}
for _name in ("negate", "exponential", "exponential_minus_one", "log", "log_plus_one", "sqrt", "rsqrt",
              "tanh", "logistic", "sine", "cosine", "tan", "chlo.square", "chlo.acos", "chlo.acosh",
              "chlo.asin", "chlo.asinh", "chlo.atan", "chlo.atanh", "chlo.sinh", "chlo.cosh", "abs"):
    case(f"{_name}, complex", _name, UNARY[_name], whole(6), tolerance=10, **COMPLEX_OPTIONS.get(_name, {}),
         **_elementwise_text(_name, 6, "complex<T>"))
case("sign, complex", "sign", "lax.sign(a)", whole(6), smooth=False)
case("abs, complex zero", "abs", "lax.abs(a)", fixed([0, 1j, 2], "c8"), smooth=False)
case("real, imag, complex", "real imag complex",
     "lax.complex(lax.real(a) * 2, lax.imag(a) * lax.real(a))", whole(5))
case("conj", "chlo.conj", "lax.conj(a)", whole(5), text="""
func.func @main(%a: tensor<5xcomplex<T>>) -> tensor<5xcomplex<T>> {
  %0 = "chlo.conj"(%a) : (tensor<5xcomplex<T>>) -> tensor<5xcomplex<T>>
  return %0 : tensor<5xcomplex<T>>
}""")

# -- and of two and three -------------------------------------------------------------------------

BINARY = {
    "add": "lax.add(a, b)", "subtract": "lax.sub(a, b)", "multiply": "lax.mul(a, b)",
    "divide": "lax.div(a, b)", "remainder": "lax.rem(a, b)", "maximum": "lax.max(a, b)",
    "minimum": "lax.min(a, b)", "power": "lax.pow(a, b)", "atan2": "lax.atan2(a, b)",
    "chlo.next_after": "lax.nextafter(a, b) * a",
}
BINARY_OPTIONS: dict[str, dict] = {
    # JAX has no rule; the next float moves as its neighbour does.
    "chlo.next_after": {"differs": lambda x, y: ~np.isfinite(x), "why": "JAX has no rule, and the"
                        " reference subtracts infinities", "reference": "(a + lax.nextafter(*lax.stop_gradient((a, b))) - lax.stop_gradient(a)) * a"},
    "power": {"differs": lambda x, y: y == 0, "why": "x ** 0 is 1 for every x, so its slope in x is 0;"
              " JAX has NaN where x ** -1 is infinite"},
    "divide": {"differs": lambda x, y: np.abs(y) < 1e-30, "why": "JAX squares the divisor, which"
               " underflows; we divide twice"},
}
for _name, _program in BINARY.items():
    _options = BINARY_OPTIONS.get(_name, {})
    case(_name, _name, _program, real(16), real(16, low=0.5, high=3.0),
         smooth=_name not in ("remainder", "chlo.next_after"), reference=_options.get("reference", ""))
    case(f"{_name}, edges", _name, _program, given(*_X), given(*_Y), smooth=False, **_options)
case("power, positive base", "power", "lax.pow(a, b)", positive(12), real(12))
case("integer exponent", "multiply", "lax.integer_pow(a, 3) + lax.integer_pow(a, -2)", real(9))
case("power, integers as exponents", "power convert", "lax.pow(a, b)", real(6), fixed([0, 1, 2, 3, -1, -2]))
for _name in ("add", "subtract", "multiply", "divide"):
    case(f"{_name}, complex", _name, BINARY[_name], whole(6), whole(6))
case("power, complex", "power", "lax.pow(a, b)", whole(6), whole(6), tolerance=10)

case("compare", "compare convert", "(a < b).astype(a.dtype) * a", real(6), real(6))
case("select", "select compare", "lax.select(a > b, a * b, b)", real(8), real(8))
case("select, scalar", "select", "lax.select(c > 0, a, b)", real(8), real(8), fixed(1))
case("select, NaN in the other branch", "select", "jnp.where(a > 0, lax.log(a), b)",
     given(0.0, -1.0, 1.0, np.inf, np.nan), real(5), smooth=False)
case("clamp", "clamp", "lax.clamp(a, b, c)", ties(40), ties(40), ties(40), smooth=False)
_BOUNDS = "lax.clamp(jnp.broadcast_to(a, b.shape), b, jnp.broadcast_to(c, b.shape))"
case("clamp, scalars", "clamp", "lax.clamp(a[0], b, c[0])", given(-1.0), real(12), given(1.5), smooth=False,
     reference=_BOUNDS)
case("clamp, NaN", "clamp", "lax.clamp(a[0], b, c[0])", given(-1.0), given(np.nan, np.inf, -np.inf, -1, 1, 0), given(1.0),
     smooth=False, reference=_BOUNDS)
case("convert", "convert", "a.astype(jnp.bfloat16).astype(a.dtype) * a", real(5), tolerance=1e4)
case("convert, narrow", "convert", "a.astype(jnp.float16).astype(a.dtype) * a", real(5), tolerance=1e4)
case("convert, to complex", "convert", "a.astype(jnp.complex128)", real(5))
case("convert, of integers", "convert", "a.astype(jnp.int32).astype(a.dtype) * a", real(5))
case("bitcast", "bitcast_convert", "lax.bitcast_convert_type(a, {4: jnp.int32, 8: jnp.int64}[a.dtype.itemsize])"
     ".astype(a.dtype) * a", real(4), smooth=False)
case("zeta", "chlo.zeta", "jax.scipy.special.zeta(3.5, b) * a", positive(6), positive(6))
case("polygamma", "chlo.polygamma", "lax.polygamma(jnp.full_like(a, 2.0), a)", positive(6))
for _name in ("is_inf", "is_pos_inf", "is_neg_inf"):
    case(_name, f"chlo.{_name}", f"jnp.where(jnp.{_name.replace('_', '')}(a), a, a * a)", given(*EDGES), smooth=False,
         text=f"""func.func @main(%a: tensor<20xT>) -> tensor<20xT> {{
  %0 = "chlo.{_name}"(%a) : (tensor<20xT>) -> tensor<20xi1>
  %1 = stablehlo.multiply %a, %a : tensor<20xT>
  %2 = stablehlo.select %0, %a, %1 : tensor<20xi1>, tensor<20xT>
  return %2 : tensor<20xT>
}}""")
case("integers", "and or xor not shift_left shift_right_arithmetic shift_right_logical popcnt"
     " count_leading_zeros chlo.mulhi",
     "(lax.population_count(b & 3 | ~b ^ 5) + lax.clz(b << 1) + (b >> 1)"
     " + lax.shift_right_logical(b, jnp.int32(1)) + lax.mulhi(b, b)).astype(a.dtype) * a", real(4), index(4))

# -- shapes ---------------------------------------------------------------------------------------

case("broadcast_in_dim", "broadcast_in_dim", "lax.broadcast_in_dim(a, (4, 2, 3), (0, 2)) * b",
     real(4, 3), real(4, 2, 3))
case("broadcast_in_dim, stretched", "broadcast_in_dim", "lax.broadcast_in_dim(a, (4, 2, 3), (1, 2)) * b",
     real(1, 3), real(4, 2, 3))
case("reshape", "reshape", "lax.reshape(a, (4, 3)) * b", real(2, 6), real(4, 3))
case("transpose", "transpose", "lax.transpose(a, (2, 0, 1)) ** 2", real(2, 3, 4))
case("slice", "slice", "lax.slice(a, (1, 0), (5, 6), (2, 1)) ** 2", real(5, 6))
case("slice, strides that skip the end", "slice", "lax.slice(a, (1, 1), (6, 7), (3, 4)) ** 2", real(7, 8))
case("pad", "pad", "lax.pad(a, b, ((1, 2, 0), (0, 1, 2))) ** 2", real(3, 4), real())
case("pad, negative", "pad", "lax.pad(a, b, ((-1, 2, 1), (2, -2, 0))) ** 2", real(4, 5), real())
case("pad, negative and interior", "pad", "lax.pad(a, b, ((-2, -1, 2), (-1, -3, 3))) ** 2", real(4, 5), real())
case("concatenate", "concatenate", "lax.concatenate([a, b, a], 1) ** 2", real(2, 3), real(2, 1))
case("reverse", "reverse", "lax.rev(a, (0, 2)) * a", real(2, 3, 4))
case("optimization_barrier", "optimization_barrier",
     "[x * y for x, y in [lax.optimization_barrier((a, b))]]", real(3), real(3))
case("dynamic_slice", "dynamic_slice", "lax.dynamic_slice(a, (b, c), (2, 3)) ** 2", real(4, 5),
     fixed(3), fixed(-1))
case("dynamic_update_slice", "dynamic_update_slice", "lax.dynamic_update_slice(a, b, (c, d)) ** 2",
     real(4, 5), real(2, 3), fixed(1), fixed(9))

# -- reductions -----------------------------------------------------------------------------------

case("reduce add", "reduce", "jnp.sum(a, (0, 2)) ** 2", real(3, 4, 2))
for _kind in ("max", "min"):
    case(f"reduce {_kind}", "reduce", f"jnp.{_kind}(a, (0, 2)) ** 2", real(3, 4, 2))
    case(f"reduce {_kind}, ties", "reduce", f"jnp.{_kind}(a, 1)", ties(6, 7), smooth=False)
    case(f"reduce {_kind}, edges", "reduce", f"jnp.{_kind}(a, 1)", given(
        (np.inf, np.inf, 1.0), (np.nan, 1.0, 2.0), (-np.inf, -np.inf, -np.inf), (0.0, -0.0, 0.0)), smooth=False)
    case(f"arg{_kind}", "reduce", f"jnp.take_along_axis(a, jnp.arg{_kind}(a, 1, keepdims=True), 1) ** 2",
         real(4, 5))
case("reduce multiply", "reduce", "jnp.prod(a, (0, 2))", real(3, 4, 2))
case("reduce multiply, zeros", "reduce", "jnp.prod(a, 1)", given(
    (0.0, 2, 3), (0, 0, 3), (1, 2, 3), (0, 0, 0), (np.inf, 2, 3)), smooth=False)
case("reduce multiply, one zero", "reduce", "jnp.prod(a, 1)", given((0.0, 2, 3, 4), (1, 2, 3, 0)))
case("reduce logsumexp", "reduce", "lax.reduce(a, a.dtype.type(-np.inf), jnp.logaddexp, (1,))", real(3, 5))
case("reduce, a body of one's own", "reduce",
     "lax.reduce(a, a.dtype.type(0), lambda x, y: x + y + x * y, (0,)) ** 2", real(5, 2))
case("reduce, two operands", "reduce",
     "lax.reduce((a, b), (jnp.asarray(1, a.dtype), jnp.asarray(0, a.dtype)),"
     " lambda x, y: (x[0] * y[0], x[1] * y[0] + y[1]), (1,))", real(3, 5), real(3, 5),
     # JAX's rule takes the body to commute.
     reference="[jnp.prod(a, 1), b[:, 4] + a[:, 4] * (b[:, 3] + a[:, 3] * (b[:, 2] + a[:, 2] * (b[:, 1]"
     " + a[:, 1] * b[:, 0])))]")
case("reduce, complex", "reduce", "jnp.sum(a, 0) * jnp.prod(a, 0)", whole(3, 2))
for _name, _function in (("cumsum", "jnp.cumsum(a, 1)"), ("cumprod", "jnp.cumprod(a, 1)"),
                         ("cummax", "lax.cummax(a, 1)"), ("cumlogsumexp", "lax.cumlogsumexp(a, 1)")):
    case(_name, "reduce_window", f"{_function} * a", real(3, 6))

case("reduce_window add", "reduce_window", "lax.reduce_window(a, a.dtype.type(0), lax.add, (2, 3), (2, 1),"
     " ((1, 0), (0, 1))) ** 2", real(5, 6))
case("reduce_window add, dilations", "reduce_window",
     "lax.reduce_window(a, a.dtype.type(0), lax.add, (2, 2), (1, 2), ((1, 2), (0, 1)), (2, 1), (2, 3)) ** 2",
     real(5, 6))
case("reduce_window add, strides that skip the end", "reduce_window",
     "lax.reduce_window(a, a.dtype.type(0), lax.add, (2,), (3,), 'VALID') ** 2", real(9))
for _kind, _start in (("max", "-"), ("min", "")):
    case(f"reduce_window {_kind}", "reduce_window select_and_scatter",
         f"lax.reduce_window(a, a.dtype.type({_start}np.inf), lax.{_kind}, (2, 3), (1, 2),"
         " ((1, 0), (0, 1))) ** 2", real(5, 6))
    case(f"reduce_window {_kind}, ties", "reduce_window select_and_scatter",
         f"lax.reduce_window(a, a.dtype.type({_start}np.inf), lax.{_kind}, (2, 2), (2, 1), 'VALID')",
         ties(6, 6), smooth=False)
    case(f"reduce_window {_kind}, dilated input", "reduce_window",
         f"lax.reduce_window(a, a.dtype.type({_start}np.inf), lax.{_kind}, (3, 2), (1, 1), 'VALID', (2, 2))"
         , real(4, 5))
    case(f"reduce_window {_kind}, dilated window", "reduce_window",
         f"lax.reduce_window(a, a.dtype.type({_start}np.inf), lax.{_kind}, (3, 2), (1, 1), 'VALID', (1, 1),"
         " (1, 2))", real(4, 5),
         reference=f"jnp.{_kind}(jnp.stack([a[i:i + 2, j:j + 3] for i in range(3) for j in (0, 2)]), 0)")
case("reduce_window multiply", "reduce_window",
     "lax.reduce_window(a, a.dtype.type(1), lax.mul, (3, 2), (1, 2), 'VALID')", real(4, 5),
     reference="jnp.prod(jnp.stack([a[i:i + 2, j:j + 3:2] for i in range(3) for j in range(2)]), 0)")
case("reduce_window, a body of one's own", "reduce_window",
     "lax.reduce_window(a, a.dtype.type(0), lambda x, y: x + y + x * y, (3,), (2,), 'SAME')", real(7),
     reference="(lambda p: (1 + p[:-2:2]) * (1 + p[1:-1:2]) * (1 + p[2::2]) - 1)(jnp.pad(a, 1))")
case("select_and_scatter", "select_and_scatter",
     "lax_windows._select_and_scatter_add(b, a, lax.ge_p, (2, 2), (2, 1), ((0, 0), (1, 0))) ** 2",
     real(4, 5), real(2, 5))

# -- sorting, indexing ----------------------------------------------------------------------------

case("sort", "sort", "lax.sort(a, dimension=0) ** 2", real(6, 2))
case("sort, ties and NaN", "sort", "lax.sort(a, dimension=0)", given(1.0, np.nan, 0, -0.0, 1, np.inf, 0), smooth=False)
case("sort, several operands", "sort", "lax.sort((a, b, c), dimension=1, num_keys=2)", ties(2, 6), ties(2, 6),
     real(2, 6), smooth=False)
case("top_k", "chlo.top_k", "lax.top_k(a, 3)[0] ** 2", real(2, 6))
case("top_k, ties", "chlo.top_k", "lax.top_k(a, 3)[0]", ties(3, 6), smooth=False)

GATHERS = {
    "rows": ("(1,), (0,), (0,)", "(1, 3)", (5, 3), (4, 1), ""),
    "blocks": ("(0, 2), (), (1, 0)", "(2, 3)", (5, 4), (3, 2), ""),
    "batching": ("(1,), (1,), (1,), (0,), (0,)", "(1, 1, 3)", (2, 5, 3), (2, 1), ""),
    "two batching": ("(2,), (1,), (1,), (0, 2), (1, 0)", "(1, 1, 1, 2)", (2, 5, 3, 4), (3, 2, 1), ""),
    "clipped": ("(1,), (0,), (0,)", "(2, 3)", (5, 3), (4, 1), ""),
}
for _name, (_numbers, _sizes, _shape, _at, _) in GATHERS.items():
    if _name == "clipped":
        _numbers = "(1, 2), (), (0,)"
    _lax = f"lax.GatherDimensionNumbers({_numbers})"
    for _mode in ("clip", "fill"):
        case(f"gather {_name}, {_mode}", "gather", f"lax.gather(a, b, {_lax}, {_sizes}, mode='{_mode}') ** 2",
             real(*_shape), index(*_at, low=-1, high=7))

SCATTERS = {
    "rows": ("(1,), (0,), (0,)", (5, 3), [[0], [4], [2], [0]], (4, 3)),
    "rows outside": ("(1,), (0,), (0,)", (5, 3), [[0], [4], [7], [-1]], (4, 3)),
    "blocks": ("(0, 2), (), (1, 0)", (5, 4), [[0, 1], [1, 3], [1, 1]], (2, 3, 3)),
    "batching": ("(1,), (1,), (1,), (0,), (0,)", (2, 5, 3), [[4], [0]], (2, 3)),
    "two batching": ("(2,), (1,), (1,), (0, 2), (1, 0)", (2, 5, 3, 4), [[[0], [1]], [[2], [4]], [[3], [3]]],
                     (3, 2, 4)),
}
for _name, (_numbers, _shape, _at, _updates) in SCATTERS.items():
    _lax = f"lax.ScatterDimensionNumbers({_numbers})"
    for _kind in ("add", "sub", "apply", "set", "mul", "max", "min"):
        if _kind in ("apply", "sub") or (_kind in ("max", "min") and _name != "rows"):
            continue
        _function = "scatter" if _kind == "set" else f"scatter_{_kind}"
        # JAX differentiates scatter_mul only where no place is written twice.
        _unique = ", unique_indices=True" if _kind == "mul" else ""
        if _kind == "mul" and _name in ("rows", "blocks"):
            _at = {"rows": [[0], [4], [2], [1]], "blocks": [[0, 0], [1, 2], [0, 3]]}[_name]
        case(f"scatter_{_kind} {_name}", "scatter",
             f"lax.{_function}(a, b, c, {_lax}{_unique}) ** 2", real(*_shape), fixed(_at), real(*_updates))
for _kind in ("add", "mul", "max"):
    case(f"segment {_kind}", "scatter", f"jnp.zeros(4, a.dtype).at[b].{_kind}(a, unique_indices={_kind == 'mul'})"
         " ** 2", real(4), fixed([2, 0, 3, 1]))
case("scatter, ties", "scatter", "a.at[b].max(c)", given(1.0, 1, 0, 2), fixed([0, 1, 1, 3]), given(1.0, 1, 1, 0),
     smooth=False)

# -- contractions ---------------------------------------------------------------------------------

case("dot_general", "dot_general", "lax.dot_general(a, b, (((1,), (0,)), ((), ())))", real(3, 4), real(4, 2))
case("dot_general, batching", "dot_general", "lax.dot_general(a, b, (((2, 3), (1, 0)), ((0,), (2,))))",
     real(2, 3, 5, 4), real(4, 5, 2))
case("dot_general, two batching and free dims in the middle", "dot_general",
     "lax.dot_general(a, b, (((1,), (3,)), ((4, 0), (0, 2)))) ** 2", real(3, 4, 2, 1, 5), real(5, 2, 3, 4))
case("dot_general, vectors", "dot_general", "lax.dot_general(a, b, (((0,), (0,)), ((), ()))) ** 2", real(4), real(4))
case("dot_general, complex", "dot_general", "lax.dot_general(a, b, (((1,), (0,)), ((), ())))", whole(3, 4), whole(4, 2))
case("dot_general, result of another type", "dot_general",
     "lax.dot_general(a, b, (((1,), (0,)), ((), ())), preferred_element_type=jnp.float64)", real(3, 4), real(4, 2))

CONVOLUTIONS = {
    "plain": ("(1, 1), 'VALID'", (2, 3, 5, 6), (4, 3, 2, 3)),
    "strides and padding": ("(2, 3), ((1, 2), (0, 1))", (2, 3, 6, 7), (4, 3, 2, 3)),
    "negative padding": ("(1, 2), ((-1, 2), (1, -2))", (2, 3, 6, 7), (4, 3, 2, 3)),
    "dilated input": ("(2, 1), ((1, 0), (2, 1)), (2, 3)", (2, 3, 4, 3), (4, 3, 3, 2)),
    "dilated kernel": ("(1, 2), ((1, 0), (2, 1)), (1, 1), (2, 3)", (2, 3, 6, 7), (4, 3, 2, 3)),
    "all dilated": ("(2, 2), ((2, 1), (1, 3)), (3, 2), (2, 1)", (2, 3, 4, 5), (4, 3, 3, 2)),
    "groups": ("(2, 1), 'SAME', feature_group_count=2", (2, 6, 5, 4), (4, 3, 2, 3)),
    "depthwise": ("(1, 1), 'SAME', feature_group_count=3", (2, 3, 5, 4), (6, 1, 3, 3)),
    "batch groups": ("(1, 2), ((1, 0), (0, 1)), batch_group_count=2", (4, 3, 5, 6), (6, 3, 2, 3)),
    "batch groups, dilated": ("(2, 1), ((1, 0), (0, 1)), (1, 2), (2, 1), batch_group_count=3",
                              (6, 2, 6, 4), (3, 2, 2, 3)),
    "all elements skipped": ("(4, 4), 'VALID'", (1, 2, 6, 7), (2, 2, 1, 2)),
}
for _name, (_window, _lhs, _rhs) in CONVOLUTIONS.items():
    case(f"convolution, {_name}", "convolution", f"lax.conv_general_dilated(a, b, {_window})", real(*_lhs), real(*_rhs))
case("convolution, NHWC", "convolution", "lax.conv_general_dilated(a, b, (2, 1), 'SAME',"
     " dimension_numbers=('NHWC', 'HWIO', 'NHWC'), feature_group_count=2)", real(2, 5, 4, 6), real(3, 2, 3, 4))
case("convolution, odd layout", "convolution", "lax.conv_general_dilated(a, b, (1, 2), 'VALID',"
     " dimension_numbers=('HNCW', 'IWOH', 'CHNW'))", real(5, 2, 3, 6), real(3, 3, 4, 2))
case("convolution, no spatial dims", "convolution", "lax.conv_general_dilated(a, b, (), ())", real(2, 3), real(4, 3))
case("convolution, complex", "convolution", "lax.conv_general_dilated(a, b, (1,), 'SAME')", whole(1, 2, 5), whole(3, 2, 3))

# -- transforms and linear algebra ----------------------------------------------------------------

for _kind, _operand, _length in (("FFT", whole(3, 8), "8"), ("IFFT", whole(3, 5), "5"), ("RFFT", real(3, 8), "8"),
                                 ("RFFT", real(2, 7), "7"), ("IRFFT", whole(3, 5), "8"), ("IRFFT", whole(3, 4), "7")):
    case(f"{_kind} of {_length}", "fft", f"lax.fft(a, lax.FftType.{_kind}, ({_length},))", _operand)
for _kind, _operand, _length in (("FFT", whole(3, 4, 5), "4, 5"), ("RFFT", real(3, 4, 6), "4, 6"),
                                 ("IRFFT", whole(3, 4, 3), "4, 4"), ("RFFT", real(2, 3, 5), "2, 3, 5")):
    case(f"{_kind} of {_length}", "fft", f"lax.fft(a, lax.FftType.{_kind}, ({_length}))", _operand)

_SIDES = [(left, lower, transpose, conjugate, unit) for left in (True, False) for lower in (True, False)
          for transpose, conjugate in ((False, False), (True, False), (True, True)) for unit in (True, False)]
for _left, _lower, _transposed, _conjugate, _unit in _SIDES:
    _flags = (f"left_side={_left}, lower={_lower}, transpose_a={_transposed}, conjugate_a={_conjugate},"
              f" unit_diagonal={_unit}")
    _kind = whole if _conjugate else real
    case(f"triangular_solve, {_flags}", "triangular_solve",
         f"linalg.triangular_solve(a + 3 * jnp.eye(3, dtype=a.dtype), b, {_flags})",
         _kind(3, 3), _kind(3, 2) if _left else _kind(2, 3), tolerance=10, smooth=not _unit)
case("triangular_solve, batched", "triangular_solve",
     "linalg.triangular_solve(a, b, left_side=True, lower=True)", matrix(2, 3, 3), real(2, 3, 4), tolerance=10)
for _name, _kind, _h in (("real", real, "T"), ("complex", whole, "T.conj()")):
    case(f"cholesky, {_name}", "cholesky", f"linalg.cholesky(a @ a.{_h} + 3 * jnp.eye(3, dtype=a.dtype),"
         " symmetrize_input=False)", _kind(3, 3), tolerance=10)
    case(f"cholesky, symmetrized, {_name}", "cholesky",
         f"linalg.cholesky(a @ a.{_h} + 3 * jnp.eye(3, dtype=a.dtype))", _kind(3, 3), tolerance=10)
    case(f"eigh, {_name}", "custom_call", f"(lambda w, v: [w, v * v.conj()])(*jnp.linalg.eigh(a + a.{_h}))",
         _kind(3, 3), tolerance=100, smooth=_name == "real")
    case(f"eigvalsh, {_name}", "custom_call", f"jnp.linalg.eigvalsh(a + a.{_h})", _kind(3, 3), tolerance=100)
    for _m, _n in ((3, 3), (5, 3), (3, 5)):
        case(f"svd of {_m}x{_n}, {_name}", "custom_call",
             "(lambda u, s, v: [u @ v, s])(*jnp.linalg.svd(a, full_matrices=False))", _kind(_m, _n), tolerance=100,
             smooth=False)
        case(f"singular values of {_m}x{_n}, {_name}", "custom_call", "jnp.linalg.svd(a, compute_uv=False)",
             _kind(_m, _n), tolerance=100, smooth=False)
        case(f"qr of {_m}x{_n}, {_name}", "custom_call",
             "(lambda q, r: [q @ jnp.abs(q.T), q @ r, r[0, 0] * r])(*jnp.linalg.qr(a))", _kind(_m, _n), tolerance=100,
             smooth=False)
        case(f"lu of {_m}x{_n}, {_name}", "custom_call", "linalg.lu(a)[0]", _kind(_m, _n), tolerance=100)
case("eigvals", "custom_call", "jnp.linalg.eigvals(a)", real(3, 3), tolerance=100, smooth=False)
case("eigvals, complex", "custom_call", "jnp.linalg.eigvals(a)", whole(3, 3), tolerance=100, smooth=False)
case("solve", "custom_call triangular_solve", "jnp.linalg.solve(a, b)", matrix(3, 3), real(3, 2), tolerance=100)
case("inv", "custom_call triangular_solve", "jnp.linalg.inv(a)", matrix(2, 3, 3), tolerance=100)
case("det", "custom_call", "jnp.linalg.det(a)", matrix(4, 4), tolerance=100)
case("slogdet", "custom_call", "jnp.linalg.slogdet(a)[1]", matrix(4, 4), tolerance=100)
case("pinv", "custom_call", "jnp.linalg.pinv(a)", real(4, 3), tolerance=100, smooth=False)

# -- control flow ---------------------------------------------------------------------------------

case("call", "func.call", "jax.jit(lambda x: jnp.sin(x) * a)(b)", real(3), real(3))
case("while", "while", "lax.while_loop(lambda s: s[1] < 4, lambda s: (s[0] * jnp.sin(s[0]) + a, s[1] + 1),"
     " (b, 0))[0]", real(3), real(3), forward_only=True)
case("while, until", "while", "lax.while_loop(lambda s: jnp.sum(s) < 50, lambda s: s * s + a, b)", positive(3), positive(3),
     forward_only=True)
case("cond", "case", "lax.cond(c > 0, lambda x: jnp.sin(x) * a, lambda x: x * x, b)", real(3), real(3), fixed(1))
case("switch", "case", "lax.switch(c, [lambda x: x * x * a, jnp.sin, lambda x: a], b)", real(3), real(3), fixed(2))


# -- ops that JAX does not emit -------------------------------------------------------------------

case("batch_norm_training", "batch_norm_training",
     "[(a - a.mean(0)) / jnp.sqrt(a.var(0) + 0.125) * b + c, a.mean(0), a.var(0)]", real(4, 3), real(3), real(3),
     text="""func.func @main(%a: tensor<4x3xT>, %b: tensor<3xT>, %c: tensor<3xT>)
    -> (tensor<4x3xT>, tensor<3xT>, tensor<3xT>) {
  %0:3 = "stablehlo.batch_norm_training"(%a, %b, %c) {epsilon = 0.125 : f32, feature_index = 1 : i64}
    : (tensor<4x3xT>, tensor<3xT>, tensor<3xT>) -> (tensor<4x3xT>, tensor<3xT>, tensor<3xT>)
  return %0#0, %0#1, %0#2 : tensor<4x3xT>, tensor<3xT>, tensor<3xT>
}""")
case("batch_norm_inference", "batch_norm_inference", "(a - d) / jnp.sqrt(e + 0.125) * b + c",
     real(4, 3), real(3), real(3), real(3), positive(3),
     text="""func.func @main(%a: tensor<4x3xT>, %b: tensor<3xT>, %c: tensor<3xT>, %d: tensor<3xT>, %e: tensor<3xT>)
    -> tensor<4x3xT> {
  %0 = "stablehlo.batch_norm_inference"(%a, %b, %c, %d, %e) {epsilon = 0.125 : f32, feature_index = 1 : i64}
    : (tensor<4x3xT>, tensor<3xT>, tensor<3xT>, tensor<3xT>, tensor<3xT>) -> tensor<4x3xT>
  return %0 : tensor<4x3xT>
}""")
_GRAD = ("(lambda n, i: [b * i * (e - e.mean(0) - n * (e * n).mean(0)), (e * n).sum(0), e.sum(0)])"
         "((a - c) / jnp.sqrt(d + 0.125), 1 / jnp.sqrt(d + 0.125))")
case("batch_norm_grad", "batch_norm_grad", _GRAD, real(4, 3), real(3), real(3), positive(3), real(4, 3),
     text="""func.func @main(%a: tensor<4x3xT>, %b: tensor<3xT>, %c: tensor<3xT>, %d: tensor<3xT>, %e: tensor<4x3xT>)
    -> (tensor<4x3xT>, tensor<3xT>, tensor<3xT>) {
  %0:3 = "stablehlo.batch_norm_grad"(%a, %b, %c, %d, %e) {epsilon = 0.125 : f32, feature_index = 1 : i64}
    : (tensor<4x3xT>, tensor<3xT>, tensor<3xT>, tensor<3xT>, tensor<4x3xT>)
    -> (tensor<4x3xT>, tensor<3xT>, tensor<3xT>)
  return %0#0, %0#1, %0#2 : tensor<4x3xT>, tensor<3xT>, tensor<3xT>
}""")
case("map", "map", "a * jnp.sin(b)", real(2, 3), real(2, 3),
     text="""func.func @main(%a: tensor<2x3xT>, %b: tensor<2x3xT>) -> tensor<2x3xT> {
  %0 = "stablehlo.map"(%a, %b) ({
    ^bb0(%x: tensor<T>, %y: tensor<T>):
      %1 = stablehlo.sine %y : tensor<T>
      %2 = stablehlo.multiply %x, %1 : tensor<T>
      stablehlo.return %2 : tensor<T>
  }) {dimensions = array<i64: 0, 1>} : (tensor<2x3xT>, tensor<2x3xT>) -> tensor<2x3xT>
  return %0 : tensor<2x3xT>
}""")
case("if", "if", "lax.cond(c != 0, lambda: jnp.sin(b) * a, lambda: b * b)", real(3), real(3), fixed(True, "?"),
     text="""func.func @main(%a: tensor<3xT>, %b: tensor<3xT>, %c: tensor<i1>) -> tensor<3xT> {
  %0 = "stablehlo.if"(%c) ({
    %1 = stablehlo.sine %b : tensor<3xT>
    %2 = stablehlo.multiply %1, %a : tensor<3xT>
    stablehlo.return %2 : tensor<3xT>
  }, {
    %1 = stablehlo.multiply %b, %b : tensor<3xT>
    stablehlo.return %1 : tensor<3xT>
  }) : (tensor<i1>) -> tensor<3xT>
  return %0 : tensor<3xT>
}""")
case("composite", "composite", "jnp.sin(a) * a", real(3),
     text="""func.func @main(%a: tensor<3xT>) -> tensor<3xT> {
  %0 = stablehlo.composite "tests.f" %a {decomposition = @f} : (tensor<3xT>) -> tensor<3xT>
  return %0 : tensor<3xT>
}
func.func private @f(%a: tensor<3xT>) -> tensor<3xT> {
  %0 = stablehlo.sine %a : tensor<3xT>
  %1 = stablehlo.multiply %0, %a : tensor<3xT>
  return %1 : tensor<3xT>
}""")
case("get_dimension_size", "get_dimension_size", "a * 3", real(2, 3),
     text="""func.func @main(%a: tensor<2x3xT>) -> tensor<2x3xT> {
  %0 = "stablehlo.get_dimension_size"(%a) {dimension = 1 : i64} : (tensor<2x3xT>) -> tensor<i32>
  %1 = stablehlo.convert %0 : (tensor<i32>) -> tensor<T>
  %2 = stablehlo.broadcast_in_dim %1, dims = [] : (tensor<T>) -> tensor<2x3xT>
  %3 = stablehlo.multiply %a, %2 : tensor<2x3xT>
  return %3 : tensor<2x3xT>
}""")
case("constant_like", "chlo.constant_like", "a * 2", real(3),
     text="""func.func @main(%a: tensor<3xT>) -> tensor<3xT> {
  %0 = "chlo.constant_like"(%a) {value = 2.0 : T} : (tensor<3xT>) -> tensor<3xT>
  %1 = stablehlo.multiply %a, %0 : tensor<3xT>
  return %1 : tensor<3xT>
}""")
_REDUCE = """func.func @main(%a: tensor<3x2xT>, %b: tensor<T>) -> tensor<2xT> {
  %0 = stablehlo.reduce(%a init: %b) applies stablehlo.KIND across dimensions = [0]
    : (tensor<3x2xT>, tensor<T>) -> tensor<2xT>
  return %0 : tensor<2xT>
}"""
for _kind, _expression in (("add", "a.sum(0) + b"), ("multiply", "a.prod(0) * b"),
                           ("maximum", "jnp.maximum(a.max(0), b)"), ("minimum", "jnp.minimum(a.min(0), b)")):
    case(f"reduce {_kind}, from a value", "reduce", _expression, real(3, 2), real(),
         text=_REDUCE.replace("KIND", _kind))
case("reduce_window add, from a value", "reduce_window",
     "jnp.stack([a[i:i + 2].sum() for i in range(4)] + [a[4] + b]) + b", real(5), real(),
     text="""func.func @main(%a: tensor<5xT>, %b: tensor<T>) -> tensor<5xT> {
  %0 = "stablehlo.reduce_window"(%a, %b) ({
    ^bb0(%x: tensor<T>, %y: tensor<T>):
      %1 = stablehlo.add %x, %y : tensor<T>
      stablehlo.return %1 : tensor<T>
  }) {window_dimensions = array<i64: 2>, padding = dense<[[0, 1]]> : tensor<1x2xi64>}
    : (tensor<5xT>, tensor<T>) -> tensor<5xT>
  return %0 : tensor<5xT>
}""")
case("convolution, reversed kernel", "convolution",
     "lax.conv_general_dilated(a, b[:, :, ::-1], (1, 2), ((1, 0), (0, 1)))", real(2, 3, 5, 6), real(4, 3, 2, 3),
     text="""func.func @main(%a: tensor<2x3x5x6xT>, %b: tensor<4x3x2x3xT>) -> tensor<2x4x5x3xT> {
  %0 = "stablehlo.convolution"(%a, %b) {batch_group_count = 1 : i64, feature_group_count = 1 : i64,
    window_strides = array<i64: 1, 2>, padding = dense<[[1, 0], [0, 1]]> : tensor<2x2xi64>,
    window_reversal = array<i1: true, false>, dimension_numbers = #stablehlo.conv<[b, f, 0, 1]x[o, i, 0, 1]->[b, f, 0, 1]>}
    : (tensor<2x3x5x6xT>, tensor<4x3x2x3xT>) -> tensor<2x4x5x3xT>
  return %0 : tensor<2x4x5x3xT>
}""")
case("chlo.scan", "chlo.scan", "[jnp.stack([a[:, :i + 1].prod(1) * b for i in range(4)], 1), a.prod(1) * b]",
     real(2, 4), real(2),
     text="""func.func @main(%a: tensor<2x4xT>, %b: tensor<2xT>) -> (tensor<2x4xT>, tensor<2xT>) {
  %0:2 = chlo.scan(%a) inits(%b) dimension=1 {
    ^bb0(%x: tensor<2xT>, %c: tensor<2xT>):
      %1 = stablehlo.multiply %x, %c : tensor<2xT>
      stablehlo.return %1, %1 : tensor<2xT>, tensor<2xT>
  } : (tensor<2x4xT>, tensor<2xT>) -> (tensor<2x4xT>, tensor<2xT>)
  return %0#0, %0#1 : tensor<2x4xT>, tensor<2xT>
}""")
case("chlo.ragged_dot", "chlo.ragged_dot", "jnp.concatenate([a[:2] @ b[0], a[2:3] @ b[1], a[3:] @ b[2]])",
     real(5, 4), real(3, 4, 2), fixed([2, 1, 2]),
     text="""func.func @main(%a: tensor<5x4xT>, %b: tensor<3x4x2xT>, %c: tensor<3xi32>) -> tensor<5x2xT> {
  %0 = "chlo.ragged_dot"(%a, %b, %c) {ragged_dot_dimension_numbers = #chlo.ragged_dot<
    lhs_batching_dimensions = [], rhs_batching_dimensions = [], lhs_contracting_dimensions = [1],
    rhs_contracting_dimensions = [1], lhs_ragged_dimensions = [0], rhs_group_dimensions = [0]>}
    : (tensor<5x4xT>, tensor<3x4x2xT>, tensor<3xi32>) -> tensor<5x2xT>
  return %0 : tensor<5x2xT>
}""")
