"""`python -m tfn.tools.conformance fuzz PATH...`: broken programs must end in a clear error.

Each case is a mutation of a file (`mutations.py`), read and, if it still is a program, compiled, in a
child process of bounded memory. It passes when it succeeds or raises a `TfnError` that knows its line
and column, in time. A child that dies is a failure of the case it was at.
"""

from __future__ import annotations

import json as jsonlib
import random
import resource
import shutil
import signal
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import typer

from ...compiler.errors import CompileError, TfnError, UnsupportedError
from ..console import console

LIMIT = 2.0
"""Seconds of processor time for reading one case; compiling it may take `COMPILE_LIMIT`."""
COMPILE_LIMIT = 20.0
MEMORY = 3 << 30
"""Bytes of address space beyond what the process has at the start."""
BATCH = 200
_MAX_FILE = 20_000
_MAX_COMPILED = 1 << 16
"""Elements of the largest value of programs that are compiled: larger ones only cost time."""


@dataclass
class Finding:
    """A case that failed, where it is kept, and how often the like of it was met."""

    kind: str
    detail: str
    file: str
    mutation: int
    kept: str = ""


@dataclass
class Outcomes:
    cases: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)


class _OutOfTime(BaseException):
    """Not an `Exception`: nothing below may swallow it."""


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise _OutOfTime

    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def outcome(data: bytes, name: str = "<text>", compiled: bool = False) -> tuple[str, str]:
    """What reading (and compiling) a text comes to: `ok`, the name of a `TfnError`, or a kind that
    begins with `defect`; and the detail."""
    try:
        with _limited(LIMIT):
            try:
                text = data.decode("utf-8")
            except UnicodeDecodeError:
                return "not UTF-8", ""
            functions = _read(text, name)
    except TfnError as error:
        return _judged(error)
    except (_OutOfTime, MemoryError, Exception) as error:
        return _defect("reading", error)
    if not compiled:
        return "ok", ""
    try:
        with _limited(COMPILE_LIMIT):
            for function in functions:
                _compile(function)
    except UnsupportedError as error:
        return "ok, not compiled", str(error)
    except TfnError as error:
        if isinstance(error, CompileError):
            return _defect("compiling", error)
        return "ok, refused", str(error)
    except (_OutOfTime, MemoryError, Exception) as error:
        return _defect("compiling", error)
    return "ok, compiled", ""


def _read(text: str, name: str) -> list:
    from ...compiler.ir.parser import parse_module

    return [f for f in parse_module(text, name).functions.values() if f.public]


def _compile(function) -> None:
    from ...compiler.compile import compile_function
    from ...compiler.ir.dynamic import refine

    refined = refine(function, function.argument_types)
    sizes = [t.size for op in refined.body.walk() for t in (r.type for r in op.results)]
    if all(isinstance(s, int) and s <= _MAX_COMPILED for s in sizes):
        compile_function(refined)


def _judged(error: TfnError) -> tuple[str, str]:
    place = error.location
    if place is None or place.line < 1:
        return "defect: no line", str(error)
    if place.columns() is None:
        return "defect: no column", str(error)
    if not error.message.strip() or len(error.message) > 2000:
        return "defect: no clear message", str(error)[:300]
    return type(error).__name__, str(error)


def _defect(stage: str, error: BaseException) -> tuple[str, str]:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "compiler" in f.filename] or frames
    place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
    return f"defect: {stage} {type(error).__name__.strip('_')} at {place}", str(error)[:500]


# -- many cases -----------------------------------------------------------------------------------

def run_cases(files: Sequence[str], seed: int, start: int, count: int, folder: str) -> Outcomes:
    """Cases `start` to `start + count` of a run, in this process."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() \
        if Path("/proc/self/statm").exists() else 0
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
    outcomes = Outcomes()
    current = Path(folder, "current")
    current.mkdir(parents=True, exist_ok=True)
    for number in range(start, start + count):
        file, data, mutation = case(files, seed, number)
        (current / "text.mlir").write_bytes(data)
        (current / "case").write_text(f"{number}\n{file}\n{mutation}\n")
        kind, detail = outcome(data, Path(file).name, compiled=True)
        outcomes.cases += 1
        outcomes.kinds[kind] += 1
        if kind.startswith("defect") and outcomes.kinds[kind] <= 3:
            outcomes.findings.append(_kept(Finding(kind, detail, file, mutation), current, folder))
    return outcomes


def case(files: Sequence[str], seed: int, number: int) -> tuple[str, bytes, int]:
    """File, text and mutation of a case."""
    from .mutations import mutated

    mutation = seed * 1_000_000_007 + number
    file = random.Random(mutation).choice(list(files))
    return file, mutated(Path(file).read_text(encoding="utf-8"), mutation), mutation


def _kept(finding: Finding, current: Path, folder: str) -> Finding:
    path = Path(folder, f"{finding.mutation}.mlir")
    shutil.copy(current / "text.mlir", path)
    path.with_suffix(".txt").write_text(f"{finding.kind}: {finding.detail}\n{finding.file}\n")
    finding.kept = str(path)
    return finding


def run_for(seconds: float, files: Sequence[str], seed: int, folder: Path) -> Outcomes:
    """Cases until the time is over, each batch in a child process."""
    total, number, end = Outcomes(), 0, time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                while time.monotonic() < end:
                    found = pool.submit(run_cases, files, seed, number, BATCH, str(folder)).result()
                    number += BATCH
                    _add(total, found)
        except BrokenProcessPool:
            current = folder / "current"
            at, file, mutation = (current / "case").read_text().split("\n")[:3]
            total.kinds["defect: the process died"] += 1
            total.findings.append(_kept(Finding("defect: the process died", "", file, int(mutation)),
                                        current, str(folder)))
            total.cases += int(at) - number + 1
            number = int(at) + 1
    return total


def _add(total: Outcomes, found: Outcomes) -> None:
    total.cases += found.cases
    known = {f.kind for f in total.findings}
    total.kinds.update(found.kinds)
    total.findings += [f for f in found.findings if f.kind not in known]


def command(
    paths: list[Path] = typer.Argument(..., help="Files (.mlir) or folders of them."),
    seconds: float = typer.Option(60.0, min=1.0, help="How long."),
    seed: int = typer.Option(0, help="Another seed gives other mutations."),
    json: Path = typer.Option(None, "--json", help="Write the counts to this file."),
    out: Path = typer.Option(Path("fuzz-failures"), help="Where failing texts are kept."),
) -> None:
    """Mutate StableHLO texts, and read and compile what comes out.

    Each case must succeed or raise an error of tfn with line and column, within two seconds and bounded
    memory. The exit code is 1 when one does not.
    """
    missing = next((p for p in paths if not p.exists()), None)
    if missing is not None:
        raise typer.BadParameter(f"there is no {missing}")
    files = sorted({str(f) for p in paths for f in (p.rglob("*.mlir") if p.is_dir() else [p])
                    if 0 < f.stat().st_size <= _MAX_FILE})
    if not files:
        raise typer.BadParameter("there are no .mlir files of a fitting size")
    total = run_for(seconds, files, seed, out)
    failed = sum(n for kind, n in total.kinds.items() if kind.startswith("defect"))
    if json is not None:
        json.write_text(jsonlib.dumps({
            "cases": total.cases, "kinds": dict(total.kinds.most_common()),
            "findings": [vars(f) for f in total.findings]}, indent=1) + "\n")
    console.print(f"{total.cases} cases of {len(files)} files, {failed} failed")
    for kind, count in total.kinds.most_common():
        console.print(f"  {count}: {kind}", markup=False)
    for finding in total.findings:
        console.print(f"  {finding.kind}: {finding.detail} [{finding.kept}]", markup=False,
                      soft_wrap=True)
    raise typer.Exit(1 if failed else 0)
