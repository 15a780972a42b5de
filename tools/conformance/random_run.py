"""`python -m tfn.tools.conformance random`: random programs through both engines.

A program is known by its number; `random_programs.numbered` gives it again.
"""

from __future__ import annotations

import json as jsonlib
import os
import shutil
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import typer
from rich.progress import Progress

from ...compiler.compile import compile_function
from ...compiler.errors import CompileError, OpError, TfnError, UnsupportedError
from ...compiler.ir.core import Block, Function, Value
from ...compiler.ir.evaluator import evaluate
from ...compiler.ir.rewrite import Rewriter, substitute_function
from ...compiler.passes.dce import dce
from ..console import console, errors
from .bound import difference

if TYPE_CHECKING:
    from .random_programs import Program

BATCH = 100
"""Programs of one task."""
_TASKS = 4
"""Tasks of a process."""
_SEEDS = 1_000_000_000
"""Numbers of programs between those of one seed and the next."""


@dataclass
class Failure:
    """A program on which the engines disagree, and the folder of its reduced text and inputs."""

    kind: str
    detail: str
    folder: str = ""


@dataclass
class Tally:
    """What became of a run of programs."""

    programs: int = 0
    exact: int = 0
    bounded: int = 0
    unsupported: Counter[str] = field(default_factory=Counter)
    ops: Counter[str] = field(default_factory=Counter)
    dtypes: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        for name in ("programs", "exact", "bounded"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("unsupported", "ops", "dtypes"):
            getattr(self, name).update(getattr(other, name))
        self.failures += other.failures


def check(program: Program, tally: Tally | None = None) -> Failure | None:
    """Run a program on both engines: None when they agree, or both refuse it in a `TfnError`."""
    tally = tally if tally is not None else Tally()
    refusal = failed = None
    try:
        with np.errstate(all="ignore"):
            evaluated = evaluate(program.function, program.arrays)
    except UnsupportedError as error:
        refusal = error
    except OpError as error:
        # A window larger than nothing: well typed for every size but this one.
        if 0 in program.sizes.values():
            tally.unsupported[f"evaluator: {error.message}"] += 1
            return None
        failed = _failed("evaluator", error)
    except Exception as error:
        failed = _failed("evaluator", error)
    if failed is not None:
        return failed
    try:
        compiled = compile_function(program.function)(*program.arrays)
    except UnsupportedError as error:
        tally.unsupported[error.message] += 1
        return None
    except Exception as error:
        return _failed("compiler", error)
    if refusal is not None:
        tally.unsupported[f"evaluator: {refusal.message}"] += 1
        return None
    shapes = [[(a.dtype, a.shape) for a in results] for results in (compiled, evaluated)]
    if shapes[0] != shapes[1]:
        return Failure("shape", f"compiled {shapes[0]}, evaluated {shapes[1]}")
    if all(c.tobytes() == e.tobytes() for c, e in zip(compiled, evaluated, strict=True)):
        tally.exact += 1
        return None
    with np.errstate(all="ignore"):
        found = difference(program.function, program.arrays, program.sizes, compiled,
                           evaluated)
    if found is not None:
        return Failure("value", str(found))
    tally.bounded += 1
    return None


def _failed(engine: str, error: Exception) -> Failure:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    said = str(error)
    if not isinstance(error, CompileError):
        said = said.partition("\n")[0] + f" ({Path(frame.filename).name}:{frame.lineno})"
    return Failure(f"{engine} {type(error).__name__}", said)


# -- reducing -------------------------------------------------------------------------------------

def reduced(program: Program, kind: str, tries: int = 60) -> Program:
    """A part of the program that fails in the same way: single results, and values of its ops in place
    of the ops that make them."""
    budget = [tries]
    found = program

    def fails(candidate: Program) -> bool:
        budget[0] -= 1
        found = check(candidate)
        return found is not None and found.kind == kind

    values = list(program.function.returns)
    while values:
        value = values.pop(0)
        candidate = _returning(program, value)
        if budget[0] > 0 and fails(candidate):
            # Perhaps it is wrong before.
            found = candidate
            values = list(value.op.operands) if value.op is not None else []
    program = found
    while budget[0] > 0:
        for number in reversed(range(len(program.function.ops))):
            smaller = _cut(program, number)
            if smaller is not None and budget[0] > 0 and fails(smaller):
                program = smaller
                break
        else:
            break
    return program


def _returning(program: Program, value: Value) -> Program:
    f = program.function
    block = Block()
    block.arguments, block.ops, block.returns = f.body.arguments, f.body.ops, [value]
    return _live(program, Function(f.name, block), program.arrays)


def _live(program: Program, function: Function, arrays: list[np.ndarray]) -> Program:
    """The program without dead ops and arguments."""
    function = dce(function)
    used = {v for op in function.body.walk() for v in op.operands} | set(function.returns)
    used |= {v for op in function.body.walk() for r in op.regions for v in r.returns}
    kept = [i for i, a in enumerate(function.arguments) if a in used]
    rewriter = Rewriter(function)
    rewriter.block = Block([function.arguments[i].type for i in kept])
    rewriter.values = dict(zip([function.arguments[i] for i in kept], rewriter.block.arguments,
                               strict=True))
    for op in function.ops:
        rewriter.copy(op)
    block = rewriter.block
    block.returns = [rewriter[v] for v in function.returns]
    from .random_programs import Program

    return Program(Function("main", block), [arrays[i] for i in kept], program.sizes)


def _cut(program: Program, number: int) -> Program | None:
    """The program with the results of an op as arguments, which hold what the op evaluates to."""
    function = program.function
    op = function.ops[number]
    if op.name == "stablehlo.constant" and op.result in function.returns:
        return None
    if all(r in function.returns for r in op.results):
        return None
    block = Block()
    block.arguments, block.returns = function.body.arguments, list(op.results)
    block.ops = function.ops[: number + 1]
    try:
        values = evaluate(Function("part", block), program.arrays)
    except Exception:
        return None
    rewriter = Rewriter(function)
    for i, other in enumerate(function.ops):
        if i == number:
            for result in op.results:
                rewriter.values[result] = rewriter.block.add_argument(result.type)
        else:
            rewriter.copy(other)
    block = rewriter.block
    block.returns = [rewriter[v] for v in function.returns]
    return _live(program, Function("main", block), [*program.arrays, *values])


def write(program: Program, failure: Failure, folder: Path) -> None:
    """`program.mlir` with its inputs (`inputs.npz` of bytes), and what is wrong in `failure.txt`."""
    folder.mkdir(parents=True, exist_ok=True)
    f = substitute_function(program.function, program.sizes) if program.sizes else program.function
    (folder / "program.mlir").write_text(str(f))
    inputs: dict[str, Any] = {f"argument{i}": np.frombuffer(a.tobytes(), np.uint8)
                              for i, a in enumerate(program.arrays)}
    np.savez(folder / "inputs.npz", **inputs)
    (folder / "failure.txt").write_text(f"{failure.kind}: {failure.detail}\n")
    failure.folder = str(folder)


# -- running --------------------------------------------------------------------------------------

def run_batch(numbers: range, folder: str, cache: str) -> Tally:
    """Run the programs of these numbers; failures are reduced and written below `folder`."""
    from .random_programs import numbered

    os.environ["TFN_CACHE_DIR"] = cache
    tally = Tally()
    current = Path(folder, f"current-{numbers.start}")
    for number in numbers:
        program = numbered(number)
        tally.programs += 1
        _count(program, tally)
        write(program, Failure("crash", "the process died"), current)
        (current / "number").write_text(str(number))
        failure = check(program, tally)
        if failure is not None:
            small = reduced(program, failure.kind)
            failure = check(small) or failure
            write(small, failure, Path(folder, str(number)))
            tally.failures.append(failure)
    if current.is_dir():
        shutil.rmtree(current)
    return tally


def _count(program: Program, tally: Tally) -> None:
    for op in program.function.body.walk():
        tally.ops[op.name] += 1
        tally.dtypes.update(str(r.dtype) for r in op.results)
        for value in op.attributes.values():
            if isinstance(value, Function):
                tally.ops.update(inner.name for inner in value.body.walk())


def run_batches(count: int, seed: int, jobs: int, folder: Path) -> Iterator[Tally]:
    """Tallies as they come; a program that takes its process down is a failure, and is left out."""
    first = seed * _SEEDS
    batches = [range(n, min(n + BATCH, first + count)) for n in range(first, first + count, BATCH)]
    with tempfile.TemporaryDirectory() as cache:
        while batches:
            done: list[range] = []
            broken = False
            # A pool for a few tasks each: what a process compiled stays in its memory.
            with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
                futures = {pool.submit(run_batch, b, str(folder), cache): b
                           for b in batches[: _TASKS * jobs]}
                for future in as_completed(futures):
                    try:
                        yield future.result()
                        done.append(futures[future])
                    except BrokenProcessPool:
                        broken = True
            batches = [b for b in batches if b not in done]
            if broken:
                batches, crashed = _without_crash(batches, folder)
                yield crashed


def _without_crash(batches: list[range], folder: Path) -> tuple[list[range], Tally]:
    """The batches without the programs that were running when a process died, and these."""
    left, tally = [], Tally()
    for batch in batches:
        current = folder / f"current-{batch.start}"
        if not current.is_dir():
            left.append(batch)
            continue
        number = int((current / "number").read_text())
        kept = current.rename(folder / f"crash-{number}")
        tally.failures.append(Failure("crash", "the process died", str(kept)))
        left += [b for b in (range(batch.start, number), range(number + 1, batch.stop)) if b]
    return left, tally


def command(
    count: int = typer.Option(20_000, min=1, help="Programs."),
    seed: int = typer.Option(0, help="Another seed gives other programs."),
    jobs: int = typer.Option(1, "-n", min=1, help="Processes."),
    json: Path = typer.Option(None, "--json", help="Write the tally to this file."),
    out: Path = typer.Option(Path("random-failures"), help="Where failing programs are written."),
) -> None:
    """Run random programs on the compiler and on the evaluator.

    They must agree: integers exactly, floats within the bound of `bound.py`. Each failing program is
    reduced and written with its inputs. The exit code is 1 when one fails.
    """
    total, begin = Tally(), time.monotonic()
    with Progress(console=errors, transient=True) as progress:
        task = progress.add_task("random", total=count)
        for tally in run_batches(count, seed, jobs, out):
            total.add(tally)
            progress.advance(task, tally.programs)
    seconds = time.monotonic() - begin
    if json is not None:
        json.write_text(jsonlib.dumps(row(total, seconds), indent=1) + "\n")
    report(total, seconds)
    raise typer.Exit(1 if total.failures else 0)


def row(total: Tally, seconds: float) -> dict[str, Any]:
    """The tally as JSON."""
    return {"programs": total.programs, "exact": total.exact, "bounded": total.bounded,
            "unsupported": dict(total.unsupported.most_common()),
            "ops": dict(total.ops.most_common()), "dtypes": dict(total.dtypes.most_common()),
            "failures": [vars(f) for f in total.failures], "seconds": round(seconds, 1)}


def report(total: Tally, seconds: float) -> None:
    """Counts, and each failure on a line."""
    console.print(f"{total.programs} programs in {seconds:.0f} s: {total.exact} bit-equal,"
                  f" {total.bounded} within the bound, {sum(total.unsupported.values())} refused,"
                  f" {len(total.failures)} failed; {sum(total.ops.values())} ops of"
                  f" {len(total.ops)} kinds, {len(total.dtypes)} element types")
    for message, number in total.unsupported.most_common(20):
        console.print(f"  refused {number}: {message}", markup=False)
    for failure in total.failures:
        console.print(f"  {failure.kind}: {failure.detail} [{failure.folder}]", markup=False,
                      soft_wrap=True)


__all__ = ["Failure", "Tally", "TfnError", "check", "command", "reduced", "run_batch"]
