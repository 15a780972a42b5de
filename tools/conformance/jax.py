"""`python -m tfn.tools.conformance jax`: programs written in JAX, and what they cost and give on tfn.

JAX runs in a Python of its own (`jax_programs.py`). What it prints is parsed, compiled and run on the
same inputs; the results are compared with JAX's, and both with XLA's of the program in f64.
"""

from __future__ import annotations

import json as jsonlib
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import typer
from rich.progress import Progress
from rich.table import Table

from ...compiler.codegen.target import Target
from ...compiler.compile import Executable, compile_function, run_passes
from ...compiler.ir.core import Function, Module
from ...compiler.ir.evaluator import evaluate
from ...compiler.ir.parser import parse_module
from ...compiler.ir.printer import print_module
from ...compiler.ir.verify import reachable
from ...compiler.runtime.cache import KernelCache
from ...compiler.runtime.plan import make_plan
from ..console import console, errors
from .widen import widened

LARGE = ("resnet50", "resnet50_train", "bert", "bert_train")
SMALL = ("mlp", "lstm", "resnet", "transformer", "sorting", "indexing", "fourier", "randomness",
         "algebra", "functions")
TOLERANCE = 1e-4
"""The largest error of a result, relative to its largest element."""
NOISE = 10.0
"""Where JAX itself is further from exact than that: how much further tfn may be."""


@dataclass
class Row:
    """A program: seconds of CPU, bytes, and errors relative to the largest element of a result.

    `error` is the distance to JAX over the results which JAX has right to `TOLERANCE`; `unsettled`
    counts the others, such as gradients that are zero but for rounding errors. `tfn_error` and
    `jax_error` are medians over the results of the distance to the same program in f64; if there are
    unsettled results, tfn runs that too, and `wide_error` is its distance to XLA's.
    """

    name: str
    ops: int = 0
    parse_seconds: float = 0
    passes_seconds: float = 0
    plan_seconds: float = 0
    compile_seconds: float = 0
    warm_seconds: float = 0
    xla_seconds: float = 0
    kernels: int = 0
    arena_bytes: int = 0
    xla_temp_bytes: int = 0
    error: float | None = None
    evaluator_error: float | None = None
    unsettled: int = 0
    tfn_error: float | None = None
    jax_error: float | None = None
    wide_error: float | None = None
    failure: str = ""


_NAMES = ", ".join((*SMALL, *LARGE))


def command(
    names: list[str] = typer.Argument(None, help=f"Of {_NAMES}; default: all."),
    python: str = typer.Option(None, envvar="TFN_JAX_PYTHON", help="A Python with jax and keras."),
    json: Path = typer.Option(None, "--json", help="Write the results to this file."),
    double: bool = typer.Option(True, help="Also run each program in f64, to know who is closer."),
) -> None:
    """Run programs written in JAX: small ones on both engines, ResNet50 and BERT compiled.

    A program passes when what JAX prints is read, reads back as itself once printed, and gives JAX's
    results within 1e-4 of their largest element (integers: exactly). Where JAX's own result differs
    from XLA's in f64 by more than that, tfn's in f32 must be as near to f64 as JAX is, times 10, and
    tfn's in f64 within 1e-4. The exit code is 1 when a program does not pass.
    """
    if python is None:
        raise typer.BadParameter("give the Python that has JAX: --python, or set TFN_JAX_PYTHON")
    chosen = names or [*SMALL, *LARGE]
    unknown = next((n for n in chosen if n not in (*SMALL, *LARGE)), None)
    if unknown is not None:
        raise typer.BadParameter(f"there is no program {unknown!r}; there are"
                                 f" {_NAMES}")
    rows = []
    with Progress(console=errors, transient=True) as progress:
        task = progress.add_task("jax", total=len(chosen))
        for name in chosen:
            rows.append(run_program(name, python, double))
            progress.advance(task)
    if json is not None:
        json.write_text(jsonlib.dumps({"results": [asdict(r) for r in rows]}, indent=1) + "\n")
    report(rows)
    raise typer.Exit(1 if any(r.failure for r in rows) else 0)


def run_program(name: str, python: str, double: bool = True) -> Row:
    """Everything about one program; a failure is part of the row."""
    row = Row(name)
    with tempfile.TemporaryDirectory(prefix="tfn-jax-") as folder:
        # Compiled anew: the seconds are those of a first run.
        old = os.environ.get("TFN_CACHE_DIR")
        os.environ["TFN_CACHE_DIR"] = folder
        try:
            _run(row, Path(folder), python, double)
        except Exception as error:
            row.failure = f"{type(error).__name__}: {error}"
        finally:
            if old is None:
                del os.environ["TFN_CACHE_DIR"]
            else:
                os.environ["TFN_CACHE_DIR"] = old
    return row


def save_programs(folder: Path, python: str, names: Sequence[str]) -> list[dict[str, Any]]:
    """Let JAX write `NAME.mlir`, `NAME.in.npz` and `NAME.out.npz`; what each cost it."""
    lines = _outside(python, "jax_programs.py", str(folder), *names).splitlines()
    return [jsonlib.loads(line) for line in lines if line.startswith("{")]


def _outside(python: str, script: str, *arguments: str) -> str:
    file = Path(__file__).with_name(script)
    done = subprocess.run([python, "-P", str(file), *arguments], capture_output=True, text=True)
    if done.returncode:
        last = [line for line in done.stderr.splitlines() if line.strip()][-1:]
        raise RuntimeError(f"{python} {script} failed: {''.join(last)}")
    return done.stdout


def read_arrays(file: Path) -> list[np.ndarray]:
    """The arrays of an .npz file in order."""
    with np.load(file) as data:
        return [data[f"arr_{i}"] for i in range(len(data.files))]


def _run(row: Row, folder: Path, python: str, double: bool) -> None:
    (cost,) = save_programs(folder, python, [row.name])
    row.xla_seconds, row.xla_temp_bytes = cost["xla_seconds"], cost["xla_temp_bytes"]
    text = (folder / f"{row.name}.mlir").read_text()
    begun = process_time()
    module = parse_module(text, f"{row.name}.mlir")
    row.parse_seconds = process_time() - begun
    row.ops = sum(1 for f in reachable(module["main"]) for _ in f.body.walk())
    printed = print_module(module)
    if print_module(parse_module(printed)) != printed:
        raise ValueError("what is printed does not read back as itself")
    main = module["main"]
    inputs = read_arrays(folder / f"{row.name}.in.npz")
    theirs = read_arrays(folder / f"{row.name}.out.npz")
    wide = widened(main) if double else None
    exact = _in_double(row, folder, python, wide) if wide is not None else None
    ours = _compiled(row, main)(*[a.copy() for a in inputs])
    row.error = _compare(row, ours, theirs, exact)
    if row.name in SMALL:
        row.evaluator_error = _compare(row, evaluate(main, inputs), theirs, exact)
    if wide is not None and exact is not None and row.unsettled:
        arrays = [a.astype(t.dtype.numpy) for a, t in zip(inputs, wide.argument_types, strict=True)]
        # What is zero but for rounding errors is measured by those of f32.
        row.wide_error = max(
            distance(mine, reference, np.maximum(np.abs(reference), np.abs(other)))
            for mine, reference, other in zip(compile_function(wide)(*arrays), exact, theirs,
                                              strict=True))
        if row.wide_error > TOLERANCE and not row.failure:
            row.failure = f"in f64, a result is {row.wide_error:.2e} from XLA's"


def _compiled(row: Row, main: Function) -> Executable:
    target = Target.host()
    times = [process_time()]
    fused = run_passes(main, target)
    times.append(process_time())
    plan = make_plan(fused, target)
    times.append(process_time())
    executable = Executable(fused, plan)
    times.append(process_time())
    fresh = KernelCache()
    for kernel in plan.kernels():
        fresh.address(kernel)
    times.append(process_time())
    (row.passes_seconds, row.plan_seconds, row.compile_seconds,
     row.warm_seconds) = np.diff(times).tolist()
    row.kernels, row.arena_bytes = len(plan.kernels()), executable.peak_bytes()
    return executable


def _in_double(row: Row, folder: Path, python: str, wide: Function) -> list[np.ndarray]:
    text, results = folder / "wide.mlir", folder / "wide.npz"
    text.write_text(str(Module({"main": wide})))
    _outside(python, "jax_text.py", "run", str(text), str(folder / f"{row.name}.in.npz"), str(results))
    return read_arrays(results)


def _compare(row: Row, ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray],
             exact: Sequence[np.ndarray] | None) -> float:
    """The largest error of a settled result; what is wrong becomes the row's failure."""
    worst, distances, row.unsettled = 0.0, [], 0
    for number, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        reference = exact[number] if exact is not None else other
        wrong = None
        if (mine.dtype, mine.shape) != (other.dtype, other.shape):
            wrong = f"is {mine.dtype}{list(mine.shape)}, not {other.dtype}{list(other.shape)}"
        elif mine.dtype.kind not in "fc":
            if not np.array_equal(mine, other):
                wrong = f"differs in {np.count_nonzero(mine != other)} of {mine.size} elements"
        else:
            apart = distance(mine, other, other)
            to_exact = distance(mine, reference, reference), distance(other, reference, reference)
            distances.append(to_exact)
            if to_exact[1] <= TOLERANCE:
                worst = max(worst, apart)
                if apart > TOLERANCE:
                    wrong = f"is {apart:.2e} from JAX's"
            else:
                row.unsettled += 1
                if to_exact[0] > NOISE * to_exact[1]:
                    wrong = f"is {to_exact[0]:.2e} from exact, JAX's {to_exact[1]:.2e}"
        if wrong and not row.failure:
            row.failure = f"result {number} {wrong}"
    if exact is not None and distances:
        row.tfn_error, row.jax_error = np.median(distances, axis=0).tolist()
    return worst


def distance(a: np.ndarray, b: np.ndarray, scale: np.ndarray) -> float:
    """max |a - b| / max |scale|; elements that are not finite must be equal."""
    if a.size == 0:
        return 0.0
    kind = np.complex128 if a.dtype.kind == "c" else np.float64
    a, b = a.astype(kind), b.astype(kind)
    with np.errstate(all="ignore"):
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        apart = np.abs(np.where(same, 0, a - b))
        size = np.abs(scale[np.isfinite(scale)]).max(initial=0)
    largest = float(apart.max())
    if largest == 0:
        return 0.0
    return largest / float(size) if size and np.isfinite(largest) else float("inf")


def report(rows: Sequence[Row]) -> None:
    """A table, and why programs did not pass."""
    table = Table("program", "ops", "parse s", "passes s", "plan s", "compile s", "warm s", "XLA s",
                  "kernels", "MB", "XLA MB", "error", "evaluator", "unsettled", "to f64", "JAX to f64",
                  "in f64")
    for r in rows:
        seconds = (r.parse_seconds, r.passes_seconds, r.plan_seconds, r.compile_seconds,
                   r.warm_seconds, r.xla_seconds)
        table.add_row(
            r.name, str(r.ops), *(f"{s:.2f}" for s in seconds), str(r.kernels),
            f"{r.arena_bytes / 1e6:.1f}", f"{r.xla_temp_bytes / 1e6:.1f}",
            _shown(r.error), _shown(r.evaluator_error), str(r.unsettled or ""), _shown(r.tfn_error),
            _shown(r.jax_error), _shown(r.wide_error))
    console.print(table)
    for r in rows:
        if r.failure:
            console.print(f"{r.name}: {r.failure}", soft_wrap=True, markup=False)
    console.print(f"{sum(not r.failure for r in rows)} of {len(rows)} passed")


def _shown(error: float | None) -> str:
    return "" if error is None else f"{error:.1e}"
