"""`python -m tfn.tools.accuracy`: the errors of elementary functions on an engine, in ULP.

For 32 bits and less every argument is tried, against NumPy in 64 bits (far more precise than what is
measured). Functions of two arguments, 64 bits and what NumPy lacks are tried on samples: every pair of
special values, random bit patterns and ordinary numbers; the latter two against mpmath.

An error is |found - true| in units of the last place of the true value, as in Muller, "On the
definition of ulp(x)" (2005). An infinity found for a finite number counts as 2**(largest exponent + 1).
"""

from __future__ import annotations

import json as json_module
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.progress import Progress
from rich.table import Table

from ..compiler.compile import compile_function
from ..compiler.errors import TfnError
from ..compiler.ir.core import TensorType
from ..compiler.ir.dtypes import as_dtype
from ..compiler.ir.evaluator import evaluate
from ..compiler.trace.core import bind, trace
from .console import console

CHUNK = 1 << 17
"""Arguments at once: what fits the caches."""
SAMPLES = {"f32": 1 << 26, "f16": 1 << 24, "bf16": 1 << 24, "f64": 1 << 14}
"""Pairs of random arguments per function of two, and arguments in 64 bits."""
PRECISE_SAMPLES = 1 << 13
"""Arguments of a function that only mpmath knows."""
ENGINES = ("compiler", "evaluator")


def _logistic(x: np.ndarray) -> np.ndarray:
    return np.where(x < -40, np.exp(x), 1 / (1 + np.exp(-x)))


def _erf(x: np.ndarray) -> np.ndarray:
    """By series next to 0, 1 beyond 6."""
    result = x * (2 / math.sqrt(math.pi)) * (1 - x * x / 3)
    size = np.abs(x)
    between = (size > 2.0**-10) & (size < 6)
    result[between] = [math.erf(v) for v in x[between].tolist()]
    result[size >= 6] = np.sign(x[size >= 6])
    return result


@dataclass(frozen=True)
class Subject:
    """A function: its op, the truth in 64 bits and beyond, and the largest errors it may have.

    `wide` is None for what NumPy does not have.
    """

    op: str
    wide: Callable[..., np.ndarray] | None
    precise: str
    """Its name in mpmath."""
    bound: float
    arity: int = 1
    bound_f64: float = 2.0
    least: float = 0.0
    """Around zeros that are no floats the true value may be arbitrarily small beside the argument's
    rounding: below this size errors are counted in its last place."""
    monotone: bool = False
    parity: int = 0
    """1 for even functions, -1 for odd ones: half of the arguments tell about all."""


SUBJECTS = {
    "exp": Subject("stablehlo.exponential", np.exp, "exp", 1.1, monotone=True),
    "log": Subject("stablehlo.log", np.log, "log", 1.1, monotone=True),
    "log1p": Subject("stablehlo.log_plus_one", np.log1p, "log1p", 1.1, monotone=True),
    "sqrt": Subject("stablehlo.sqrt", np.sqrt, "sqrt", 1.1, monotone=True),
    "rsqrt": Subject("stablehlo.rsqrt", lambda x: 1 / np.sqrt(x), "rsqrt", 1.1),
    "sin": Subject("stablehlo.sine", np.sin, "sin", 1.1, parity=-1),
    "cos": Subject("stablehlo.cosine", np.cos, "cos", 1.1, parity=1),
    "erf": Subject("chlo.erf", _erf, "erf", 1.1, monotone=True, parity=-1),
    "tanh": Subject("stablehlo.tanh", np.tanh, "tanh", 2.0, monotone=True, parity=-1),
    "sigmoid": Subject("stablehlo.logistic", _logistic, "sigmoid", 2.0, monotone=True),
    "expm1": Subject("stablehlo.exponential_minus_one", np.expm1, "expm1", 2.0, monotone=True),
    "tan": Subject("stablehlo.tan", np.tan, "tan", 2.0, parity=-1),
    "cbrt": Subject("stablehlo.cbrt", np.cbrt, "cbrt", 2.0, parity=-1),
    "asin": Subject("chlo.asin", np.arcsin, "asin", 4.0, bound_f64=4.0, parity=-1),
    "acos": Subject("chlo.acos", np.arccos, "acos", 4.0, bound_f64=4.0),
    "atan": Subject("chlo.atan", np.arctan, "atan", 4.0, bound_f64=4.0, parity=-1),
    "sinh": Subject("chlo.sinh", np.sinh, "sinh", 48.0, bound_f64=4.0, parity=-1),
    "cosh": Subject("chlo.cosh", np.cosh, "cosh", 48.0, bound_f64=4.0, parity=1),
    "asinh": Subject("chlo.asinh", np.arcsinh, "asinh", 4.0, bound_f64=4.0, parity=-1),
    "acosh": Subject("chlo.acosh", np.arccosh, "acosh", 4.0, bound_f64=4.0),
    "atanh": Subject("chlo.atanh", np.arctanh, "atanh", 4.0, bound_f64=4.0, parity=-1),
    "erfc": Subject("chlo.erfc", None, "erfc", 4.0, bound_f64=4.0),
    "erf_inv": Subject("chlo.erf_inv", None, "erfinv", 4.0, bound_f64=4.0),
    "lgamma": Subject("chlo.lgamma", None, "lgamma", 4.0, bound_f64=20.0, least=1.0),
    "digamma": Subject("chlo.digamma", None, "digamma", 4.0, bound_f64=20.0, least=1.0),
    "bessel_i1e": Subject("chlo.bessel_i1e", None, "i1e", 4.0, bound_f64=8.0),
    "pow": Subject("stablehlo.power", np.power, "power", 2.0, 2),
    "atan2": Subject("stablehlo.atan2", np.arctan2, "atan2", 2.0, 2),
}


@dataclass
class Worst:
    """The worst error of a function, and where."""

    function: str
    dtype: str
    tried: int = 0
    ulp: float = 0.0
    """0.5 where every result is the nearest number."""
    at: tuple[float, ...] = ()
    wrong: int = 0
    """Special values that differ: NaN, infinities, the sign of 0."""
    wrong_at: tuple[float, ...] = ()

    def merge(self, other: Worst) -> None:
        self.tried += other.tried
        if other.ulp > self.ulp:
            self.ulp, self.at = other.ulp, other.at
        self.wrong += other.wrong
        self.wrong_at = self.wrong_at or other.wrong_at

    @property
    def holds(self) -> bool:
        return not self.wrong and self.ulp <= self.bound

    @property
    def bound(self) -> float:
        subject = SUBJECTS[self.function]
        return subject.bound_f64 if self.dtype == "f64" else subject.bound


@cache
def _program(op: str, dtype: str, size: int, engine: str) -> Callable[..., Any]:
    arity = next(s.arity for s in SUBJECTS.values() if s.op == op)
    function, _ = trace(lambda *xs: [bind(op, *xs)], [TensorType((size,), as_dtype(dtype))] * arity)
    if engine == "evaluator":
        return lambda *arrays: evaluate(function, arrays)
    return compile_function(function)


def errors(found: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Errors in ULP, and where a special value is wrong. `true` has more bits than `found`."""
    info = _format(found.dtype)
    with np.errstate(all="ignore"):
        nearest = true.astype(found.dtype)
        _, exponent = np.frexp(true)
        unit = np.ldexp(np.ones((), true.dtype),
                        np.maximum(exponent - 1, info.minexp) - info.nmant)
        value = found.astype(true.dtype)
        limit = np.ldexp(np.ones((), true.dtype), info.maxexp)
        value = np.where(np.isinf(value), np.copysign(limit, value), value)
        finite = np.isfinite(nearest) & ~np.isnan(value)
        ulp = np.where(finite, np.abs(value - true) / unit, 0).astype(np.float64)
        same = (found == nearest) | (np.isnan(value) & np.isnan(true))
        signs = (found == 0) & (true == 0) & (np.signbit(value) != np.signbit(true))
    wrong = (~finite & ~same & ~_nearly(value, true, limit)) | signs
    return ulp, wrong


def _nearly(value: np.ndarray, true: np.ndarray, limit) -> np.ndarray:
    """The largest finite number where the truth rounds to an infinity is an error, not a special."""
    with np.errstate(all="ignore"):
        return np.isfinite(true) & (np.abs(value) >= limit * 0.99) & (np.sign(value) == np.sign(true))


@cache
def _format(dtype: np.dtype):
    import ml_dtypes

    return ml_dtypes.finfo(dtype)


def measure(name: str, dtype: str, arguments: tuple[np.ndarray, ...],
            engine: str = "compiler", in_order: bool = False) -> Worst:
    """The worst error of a function on arguments; `in_order`: those of each sign are sorted."""
    subject = SUBJECTS[name]
    in_order &= bool(np.signbit(arguments[0][0]) == np.signbit(arguments[0][-1]))
    found = np.asarray(_program(subject.op, dtype, arguments[0].size, engine)(*arguments)[0])
    with np.errstate(all="ignore"):
        if dtype == "f64" or subject.wide is None:
            return _precise(subject, name, dtype, found, arguments)
        if in_order and subject.parity and np.signbit(arguments[0][0]):
            other = np.asarray(_program(subject.op, dtype, found.size, engine)(-arguments[0])[0])
            if _same(found, other * found.dtype.type(subject.parity)):
                return Worst(name, dtype, found.size, 0.5)
        if in_order and _is_constant(subject, found, arguments[0]):
            return Worst(name, dtype, found.size, 0.5)
    # Nearly all results are the nearest number, bit by bit: what is left is looked at.
    word = f"u{found.dtype.itemsize}"
    with np.errstate(all="ignore"):
        true = subject.wide(*(a.astype(np.float64) for a in arguments))
        left = np.flatnonzero(found.view(word) != true.astype(found.dtype).view(word))
    result = Worst(name, dtype, found.size, 0.5)
    if left.size:
        ulp, wrong = errors(found[left], true[left])
        worst = int(ulp.argmax())
        if ulp[worst] > 0.5:
            result.ulp = float(ulp[worst])
            result.at = tuple(float(a[left[worst]]) for a in arguments)
        result.wrong = int(wrong.sum())
        result.wrong_at = tuple(float(a[left[i]]) for a in arguments
                                for i in np.flatnonzero(wrong)[:1])
    return result


def _same(x: np.ndarray, y: np.ndarray) -> bool:
    """The same numbers with the same signs; NaN is NaN."""
    return bool(np.array_equal(x, y, equal_nan=True)
                and (np.isnan(x) | (np.signbit(x) == np.signbit(y))).all())


def _is_constant(subject: Subject, found: np.ndarray, arguments: np.ndarray) -> bool:
    """Is the nearest number the same everywhere, and found? Monotone functions show it at the ends."""
    if not subject.monotone:
        return False
    nearest = subject.wide(arguments[[0, -1]].astype(np.float64))  # type: ignore[misc]
    nearest = nearest.astype(found.dtype)
    if np.isnan(nearest).all():  # Outside the domain.
        return bool(np.isnan(found).all())
    word = f"u{found.dtype.itemsize}"
    bits = nearest.view(word)
    return bool(bits[0] == bits[1] and (found.view(word) == bits[0]).all())


def _precise(subject: Subject, name: str, dtype: str, found: np.ndarray, arguments) -> Worst:
    """Against mpmath, one by one, where argument and truth are finite numbers but 0."""
    try:
        import mpmath
    except ImportError:
        raise TfnError("this is measured against mpmath: pip install mpmath") from None
    own = {"rsqrt": lambda x: 1 / mpmath.sqrt(x), "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
           "cbrt": lambda x: mpmath.sign(x) * mpmath.cbrt(abs(x)),
           "lgamma": lambda x: mpmath.log(abs(mpmath.gamma(x))) if abs(x) < 1e4
           else mpmath.loggamma(x),
           "i1e": lambda x: mpmath.exp(-abs(x)) * mpmath.besseli(1, x)}
    function = own.get(subject.precise) or getattr(mpmath, subject.precise)
    result = Worst(name, dtype, found.size)
    info = _format(found.dtype)
    specials = found if subject.wide is None else subject.wide(*arguments)
    with mpmath.workprec(160):
        for i, given in enumerate(zip(*arguments, strict=True)):
            values = tuple(map(float, given))
            special, got = float(specials[i]), float(found[i])
            if not all(map(math.isfinite, (special, got, *values))) or 0 in (special, *values):
                # mpmath has no -0 and few powers of infinity; NumPy has.
                same = math.isclose(got, special, rel_tol=1e-15) or (
                    math.isnan(got) and math.isnan(special))
                if not same or (math.copysign(1, got) != math.copysign(1, special) and got == 0):
                    result.merge(Worst(name, dtype, 0, wrong=1, wrong_at=values))
                continue
            # mpmath has powers of negative numbers as complex ones.
            true = mpmath.re(function(*map(mpmath.mpf, values)))
            if (not true and not subject.least) or not mpmath.isfinite(true):
                raise TfnError(f"mpmath has {true} for {name} of {values}")
            _, exponent = mpmath.frexp(max(abs(true), subject.least))
            unit = mpmath.ldexp(1, max(int(exponent) - 1, info.minexp) - info.nmant)
            result.merge(Worst(name, dtype, 0, float(abs(got - true) / unit), values))
    return result


def batches(name: str, dtype: str, stride: int) -> Iterator[tuple[str, str, str, int, int]]:
    """Pieces of the work on a function: its name, dtype, kind of arguments, start, step."""
    bits = as_dtype(dtype).bits
    subject = SUBJECTS[name]
    if subject.arity == 1 and bits <= 32 and subject.wide is not None:
        for start in range(0, 1 << bits, CHUNK * stride):
            yield name, dtype, "every", start, stride
        return
    yield name, dtype, "special", 0, 1
    for start in range(0, _samples(name, dtype) // stride, CHUNK):
        yield name, dtype, "patterns", start, stride
        yield name, dtype, "ordinary", start, stride


def _samples(name: str, dtype: str) -> int:
    return SAMPLES[dtype] if SUBJECTS[name].wide is not None else PRECISE_SAMPLES


def arguments(name: str, dtype: str, kind: str, start: int, stride: int) -> tuple[np.ndarray, ...]:
    """The arguments of a piece of work."""
    element, bits = as_dtype(dtype).numpy, as_dtype(dtype).bits
    arity = SUBJECTS[name].arity
    word = np.dtype(f"u{bits // 8}")
    if kind == "every":
        count = min(CHUNK, -(-((1 << bits) - start) // stride))
        return ((start + stride * np.arange(count, dtype=np.uint64)).astype(word).view(element),)
    if kind == "special":
        grid = np.meshgrid(*[_specials(element)] * arity)
        return tuple(g.ravel() for g in grid)
    rng = np.random.default_rng([start, stride, len(kind)])
    count = max(1, min(CHUNK, _samples(name, dtype) // stride))
    if kind == "patterns":
        drawn = rng.integers(0, 1 << 62, (arity, count)).astype(np.uint64) * np.uint64(5)
        return tuple((d >> np.uint64(64 - bits)).astype(word).view(element) for d in drawn)
    # Magnitudes around 1, both signs; up to 1 where the function ends there.
    top = 0 if name in _UP_TO_ONE else 12
    scale = np.exp2(rng.uniform(-20, top, (arity, count))) * rng.choice([-1.0, 1.0], (arity, count))
    if name in _UP_TO_ONE:
        near = rng.integers(0, 2, (arity, count)) == 1
        scale = np.where(near, np.copysign(1 - np.abs(scale), scale), scale)
    if name == "pow":
        scale[0] = np.abs(scale[0])
        # Exponents that keep the result finite.
        near = rng.integers(0, 2, count) == 1
        finite = rng.uniform(-80, 80, count) / np.abs(np.log2(scale[0]) + 0.1)
        scale[1] = np.where(near, scale[1], finite)
    with np.errstate(over="ignore"):
        return tuple(scale.astype(element))


def _specials(element: np.dtype) -> np.ndarray:
    info = _format(element)
    tiny, normal, most = (float(v) for v in (info.smallest_subnormal, info.tiny, info.max))
    eps = float(info.eps)
    positive = [0.0, tiny, normal, 1e-3, 0.5, 1 - eps / 2, 1, 1 + eps, 1.5, 2, 3, 4, 10, 31, 33, 87.5,
                88.8, 103.9, 1 / eps, 2 / eps, most, np.inf, np.nan]
    with np.errstate(all="ignore"):
        return np.array([*positive, *(-p for p in positive)]).astype(element)


_UP_TO_ONE = frozenset({"asin", "acos", "atanh", "erf_inv"})


def _work(piece: tuple[str, str, str, int, int], engine: str) -> Worst:
    name, dtype, *_ = piece
    return measure(name, dtype, arguments(*piece), engine, in_order=piece[2] == "every")


def command(
    functions: Annotated[list[str] | None, typer.Argument(help="Names; default: all.")] = None,
    dtype: Annotated[str, typer.Option(help="f32, f64, f16 or bf16.")] = "f32",
    stride: Annotated[int, typer.Option(help="Try one argument in so many.")] = 1,
    engine: Annotated[str, typer.Option(help="compiler or evaluator.")] = "compiler",
    jobs: Annotated[int, typer.Option(help="Processes.")] = 2,
    json: Annotated[Path | None, typer.Option(help="Write the results here.")] = None,
) -> None:
    """Measure elementary functions; exit code 1 when an error is above its bound."""
    names = functions or list(SUBJECTS)
    for name in names:
        if name not in SUBJECTS:
            raise typer.BadParameter(f"{name} is not one of {', '.join(SUBJECTS)}")
    if dtype not in SAMPLES:
        raise typer.BadParameter(f"{dtype} is not one of {', '.join(SAMPLES)}")
    if engine not in ENGINES:
        raise typer.BadParameter(f"{engine!r} is not one of {', '.join(ENGINES)}")
    if not 0 < stride <= SAMPLES[dtype]:
        raise typer.BadParameter(f"a stride of {stride}")
    work = [piece for name in names for piece in batches(name, dtype, stride)]
    results = {name: Worst(name, dtype) for name in names}
    with ProcessPoolExecutor(jobs) as pool, Progress(console=console, transient=True) as progress:
        made = pool.map(partial(_work, engine=engine), work, chunksize=16)
        for done in progress.track(made, total=len(work), description=dtype):
            results[done.function].merge(done)
    table = Table("function", "tried", "max ULP", "bound", "at", "specials wrong", "")
    for result in results.values():
        table.add_row(result.function, f"{result.tried:,}", f"{result.ulp:.3f}",
                      str(result.bound), ", ".join(f"{a:.9g}" for a in result.at),
                      f"{result.wrong} {result.wrong_at}" if result.wrong else "0",
                      "ok" if result.holds else "above")
    console.print(table)
    if json is not None:
        json.write_text(json_module.dumps([asdict(r) for r in results.values()], indent=1))
    if not all(r.holds for r in results.values()):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(command)
