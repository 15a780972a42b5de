"""`python -m tfn.tools.accuracy`: the errors of compiled elementary functions, in ULP.

For 32 bits and less every argument is tried, against NumPy in 64 bits (far more precise than what is
measured). Functions of two arguments, and 64 bits, are tried on samples: every pair of special values,
random bit patterns and ordinary numbers; for 64 bits against mpmath.

An error is |found - true| in units of the last place of the true value, as in Muller, "On the
definition of ulp(x)" (2005). An infinity found for a finite number counts as 2**(largest exponent + 1).
"""

from __future__ import annotations

import json as json_module
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
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
from ..compiler.trace.core import bind, trace
from .console import console

CHUNK = 1 << 21
SAMPLES = {"f32": 1 << 26, "f16": 1 << 24, "bf16": 1 << 24, "f64": 1 << 14}
"""Pairs of random arguments per function of two, and arguments in 64 bits."""


def _logistic(x: np.ndarray) -> np.ndarray:
    return np.where(x < -40, np.exp(x), 1 / (1 + np.exp(-x)))


def _erf(x: np.ndarray) -> np.ndarray:
    """By series next to 0, saturated beyond 4 (a sixteenth of the last place of 1 in 32 bits)."""
    result = x * (2 / math.sqrt(math.pi)) * (1 - x * x / 3)
    between = (np.abs(x) > 2.0**-10) & (np.abs(x) < 4.2)
    result[between] = [math.erf(v) for v in x[between]]
    result[np.abs(x) >= 4.2] = np.sign(x[np.abs(x) >= 4.2])
    return result


@dataclass(frozen=True)
class Subject:
    """A function: its op, the truth in 64 bits and beyond, and the largest error it may have in f32.

    In 64 bits it may have `WIDE_BOUND`.
    """

    op: str
    wide: Callable[..., np.ndarray]
    precise: str
    """Its name in mpmath."""
    bound: float
    arity: int = 1


SUBJECTS = {
    "exp": Subject("stablehlo.exponential", np.exp, "exp", 1.1),
    "log": Subject("stablehlo.log", np.log, "log", 1.1),
    "log1p": Subject("stablehlo.log_plus_one", np.log1p, "log1p", 1.1),
    "sqrt": Subject("stablehlo.sqrt", np.sqrt, "sqrt", 1.1),
    "rsqrt": Subject("stablehlo.rsqrt", lambda x: 1 / np.sqrt(x), "rsqrt", 1.1),
    "sin": Subject("stablehlo.sine", np.sin, "sin", 1.1),
    "cos": Subject("stablehlo.cosine", np.cos, "cos", 1.1),
    "erf": Subject("chlo.erf", _erf, "erf", 1.1),
    "tanh": Subject("stablehlo.tanh", np.tanh, "tanh", 2.0),
    "sigmoid": Subject("stablehlo.logistic", _logistic, "sigmoid", 2.0),
    "expm1": Subject("stablehlo.exponential_minus_one", np.expm1, "expm1", 2.0),
    "tan": Subject("stablehlo.tan", np.tan, "tan", 2.0),
    "cbrt": Subject("stablehlo.cbrt", np.cbrt, "cbrt", 2.0),
    "pow": Subject("stablehlo.power", np.power, "power", 2.0, 2),
    "atan2": Subject("stablehlo.atan2", np.arctan2, "atan2", 2.0, 2),
}


WIDE_BOUND = 4.0


@dataclass
class Worst:
    """The worst error of a function, and where."""

    function: str
    dtype: str
    tried: int = 0
    ulp: float = 0.0
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
        return WIDE_BOUND if self.dtype == "f64" else SUBJECTS[self.function].bound


@cache
def _compiled(op: str, dtype: str, size: int) -> Callable[..., Any]:
    arity = next(s.arity for s in SUBJECTS.values() if s.op == op)
    function, _ = trace(lambda *xs: [bind(op, *xs)], [TensorType((size,), as_dtype(dtype))] * arity)
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


def measure(name: str, dtype: str, arguments: tuple[np.ndarray, ...]) -> Worst:
    """The worst error of a function on arguments."""
    subject = SUBJECTS[name]
    found = np.asarray(_compiled(subject.op, dtype, arguments[0].size)(*arguments)[0])
    with np.errstate(all="ignore"):
        if dtype == "f64":
            return _precise(subject, name, found, arguments)
        true = subject.wide(*(a.astype(np.float64) for a in arguments))
    ulp, wrong = errors(found, true)
    worst = int(ulp.argmax())
    first = np.flatnonzero(wrong)[:1]
    return Worst(name, dtype, found.size, float(ulp[worst]), tuple(float(a[worst]) for a in arguments),
                 int(wrong.sum()), tuple(float(a[i]) for a in arguments for i in first))


def _precise(subject: Subject, name: str, found: np.ndarray, arguments) -> Worst:
    """64 bits: one by one, where the truth is a finite number that is not tiny."""
    try:
        import mpmath
    except ImportError:
        raise TfnError("64 bits are measured against mpmath: pip install mpmath") from None
    own = {"rsqrt": lambda x: 1 / mpmath.sqrt(x), "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
           "cbrt": lambda x: mpmath.sign(x) * mpmath.cbrt(abs(x))}
    function = own.get(subject.precise) or getattr(mpmath, subject.precise)
    result = Worst(name, "f64", found.size)
    specials = subject.wide(*arguments)
    with mpmath.workprec(160):
        for i, values in enumerate(zip(*(a.tolist() for a in arguments), strict=True)):
            special, got = float(specials[i]), float(found[i])
            if not all(map(math.isfinite, (special, got, *values))) or 0 in (special, *values):
                # mpmath has no -0 and few powers of infinity; NumPy has.
                same = math.isclose(got, special, rel_tol=1e-15) or (
                    math.isnan(got) and math.isnan(special))
                if not same or (math.copysign(1, got) != math.copysign(1, special) and got == 0):
                    result.merge(Worst(name, "f64", 0, wrong=1, wrong_at=values))
                continue
            # mpmath has powers of negative numbers as complex ones.
            true = mpmath.re(function(*map(mpmath.mpf, values)))
            if not true or not mpmath.isfinite(true):
                raise TfnError(f"mpmath has {true} for {name} of {values}")
            _, exponent = mpmath.frexp(true)
            unit = mpmath.ldexp(1, max(int(exponent) - 1, -1022) - 52)
            result.merge(Worst(name, "f64", 0, float(abs(got - true) / unit), values))
    return result


def batches(name: str, dtype: str, stride: int) -> Iterator[tuple[str, str, str, int, int]]:
    """Pieces of the work on a function: its name, dtype, kind of arguments, start, step."""
    bits = as_dtype(dtype).bits
    if SUBJECTS[name].arity == 1 and bits <= 32:
        for start in range(0, 1 << bits, CHUNK * stride):
            yield name, dtype, "every", start, stride
        return
    yield name, dtype, "special", 0, 1
    for start in range(0, SAMPLES[dtype] // stride, CHUNK):
        yield name, dtype, "patterns", start, stride
        yield name, dtype, "ordinary", start, stride


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
    count = min(CHUNK, SAMPLES[dtype] // stride)
    if kind == "patterns":
        drawn = rng.integers(0, 1 << 62, (arity, count)).astype(np.uint64) * np.uint64(5)
        return tuple((d >> np.uint64(64 - bits)).astype(word).view(element) for d in drawn)
    # Magnitudes around 1, both signs.
    scale = np.exp2(rng.uniform(-20, 12, (arity, count))) * rng.choice([-1.0, 1.0], (arity, count))
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


def _work(piece: tuple[str, str, str, int, int]) -> Worst:
    name, dtype, *_ = piece
    return measure(name, dtype, arguments(*piece))


def command(
    functions: Annotated[list[str] | None, typer.Argument(help="Names; default: all.")] = None,
    dtype: Annotated[str, typer.Option(help="f32, f64, f16 or bf16.")] = "f32",
    stride: Annotated[int, typer.Option(help="Try one argument in so many.")] = 1,
    jobs: Annotated[int, typer.Option(help="Processes.")] = 2,
    json: Annotated[Path | None, typer.Option(help="Write the results here.")] = None,
) -> None:
    """Measure compiled elementary functions; exit code 1 when an error is above its bound."""
    names = functions or list(SUBJECTS)
    for name in names:
        if name not in SUBJECTS:
            raise typer.BadParameter(f"{name} is not one of {', '.join(SUBJECTS)}")
    if dtype not in SAMPLES:
        raise typer.BadParameter(f"{dtype} is not one of {', '.join(SAMPLES)}")
    if not 0 < stride <= SAMPLES[dtype]:
        raise typer.BadParameter(f"a stride of {stride}")
    work = [piece for name in names for piece in batches(name, dtype, stride)]
    results = {name: Worst(name, dtype) for name in names}
    with ProcessPoolExecutor(jobs) as pool, Progress(console=console, transient=True) as progress:
        for done in progress.track(pool.map(_work, work), total=len(work), description=dtype):
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
