"""`python -m tfn.tools.conformance stablehlo PATH...`: StableHLO test programs on an engine."""

from __future__ import annotations

import json as jsonlib
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import typer
from rich.progress import Progress
from rich.table import Table

from ..console import console, errors
from .programs import ENGINES, Result, described, run_file

STATUSES = ("passed", "failed", "unsupported", "error")


def command(
    paths: list[Path] = typer.Argument(..., help="Files (.mlir) or folders of them."),
    engine: str = typer.Option("compiler", help="compiler or evaluator."),
    json: Path = typer.Option(None, "--json", help="Write the results to this file."),
    jobs: int = typer.Option(os.cpu_count() or 1, "-n", min=1, help="Processes."),
    list_all: bool = typer.Option(False, "--list", help="Print every case that did not pass."),
) -> None:
    """Run StableHLO test programs.

    A file passes when it parses, verifies, refines, prints to text that reads back as itself, and
    all checks in it hold. The exit code is 1 when a file does not pass.
    """
    if engine not in ENGINES:
        raise typer.BadParameter(f"{engine!r} is not one of {', '.join(ENGINES)}")
    missing = next((p for p in paths if not p.exists()), None)
    if missing is not None:
        raise typer.BadParameter(f"there is no {missing}")
    files = sorted({f for p in paths for f in (p.rglob("*.mlir") if p.is_dir() else [p])})
    with Progress(console=errors, transient=True) as progress:
        task = progress.add_task("stablehlo", total=len(files))
        results = []
        for result in run_files(files, engine, jobs):
            results.append(result)
            progress.advance(task)
    results.sort(key=lambda r: r.file)
    if json is not None:
        json.write_text(jsonlib.dumps({"results": [r.row() for r in results]}, indent=1) + "\n")
    report(results, list_all)
    raise typer.Exit(0 if all(r.status == "passed" for r in results) else 1)


def run_files(files: list[Path], engine: str, jobs: int) -> Iterator[Result]:
    """Results as they come. Each process is a child: a crash costs one file its result, not the run."""
    pending = list(files)
    while pending:
        done: set[Path] = set()
        broken = False
        with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
            futures = {pool.submit(run_file, f, engine): f for f in pending}
            for future in as_completed(futures):
                try:
                    yield future.result()
                    done.add(futures[future])
                except BrokenProcessPool:
                    broken = True
        pending = [f for f in pending if f not in done]
        if broken:
            # Which file took the process down? The first left decides, alone.
            yield _alone(pending.pop(0), engine)


def _alone(file: Path, engine: str) -> Result:
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        try:
            return pool.submit(run_file, file, engine).result()
        except BrokenProcessPool:
            group, tier = described(file)
            return Result(str(file), "error", None, "the process died", group, tier)


def report(results: list[Result], list_all: bool) -> None:
    """Tables per tier and per group, and what did not pass."""
    for title, key in (("tier", lambda r: r.tier or "-"), ("group", lambda r: r.group)):
        counts: dict[str, Counter] = {}
        for r in results:
            counts.setdefault(key(r), Counter())[r.status] += 1
        table = Table(title, "files", *STATUSES, "%")
        for name in sorted(counts):
            row = counts[name]
            total = sum(row.values())
            if title == "group" and row["passed"] == total:
                continue
            table.add_row(name, str(total), *(str(row[s] or "") for s in STATUSES),
                          f"{100 * row['passed'] / total:.1f}")
        if title == "tier" or table.row_count:
            console.print(table)
    left = [r for r in results if r.status != "passed"]
    for r in left if list_all else left[:20]:
        console.print(f"{r.status}: {r.file}: {r.detail}", soft_wrap=True, markup=False)
    if len(left) > 20 and not list_all:
        console.print(f"... {len(left) - 20} more; --list prints all, --json FILE keeps them")
    console.print(f"{len(results) - len(left)} of {len(results)} passed")
