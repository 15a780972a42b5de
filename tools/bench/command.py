"""`tfn bench`: what to run, on which peers, and where the results go."""

from __future__ import annotations

import datetime
import fnmatch
import json as json_module
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import typer
from rich.measure import Measurement
from rich.table import Table

from ...compiler.errors import TfnError
from ...compiler.runtime.peaks import measure as measure_peaks
from ..console import console, errors, print_json
from .measure import measure, set_fractions
from .peer import Peer, PeerFailed, PeerSpec, environment
from .plot import write_plot
from .report import Report, drift_table, footer, load, start_table, table
from .worker.catalog import WORKLOADS
from .worker.frameworks import FRAMEWORKS
from .worker.workload import Workload

NAME = "bench"

Clock = Literal["wall", "cpu"]


def command(
    names: list[str] = typer.Argument(None, metavar="[NAME]...",
                                      help="Workloads, families or patterns like 'gemm/*'."
                                      "  [default: all]"),
    peer: list[str] = typer.Option([], metavar="NAME[=PYTHON]",
                                   help="A framework to compare with, and the Python that has it."
                                   " Repeat for several."),
    threads: int = typer.Option(1, min=1, help="Threads, and cores, of every framework."),
    repeat: int = typer.Option(7, min=1, help="Rounds: samples of every framework."),
    clock: Clock = typer.Option("wall", help="What ratios compare: wall clock, or CPU time of all"
                                " threads (for a busy machine, with one thread)."),
    losses: int = typer.Option(None, min=2, help="Training steps whose losses are compared, however"
                               " long they take.  [default: 5, fewer of very slow peers]"),
    list_: bool = typer.Option(False, "--list", help="Print the names and stop."),
    json: Path = typer.Option(None, help="Write all samples to this file; - is standard output."),
    plot: Path = typer.Option(None, help="Write an HTML page with the ratios."),
) -> None:
    """Measure tfn and its peers on the same programs, in one interleaved run.

    Every framework runs in its own process; see docs/benchmarks.md for the method.

        tfn bench gemm conv --peer jax=jax-env/bin/python --peer torch=torch-env/bin/python
    """
    chosen = select(names or [])
    if list_:
        for workload in chosen:
            console.print(workload.name)
        return
    known = [n for n in FRAMEWORKS if n != "tfn"]
    specs = [PeerSpec("tfn", sys.executable),
             *(PeerSpec.parse(text, sys.executable, known) for text in peer)]
    doubled = {s.name for s in specs if sum(t.name == s.name for t in specs) > 1}
    if doubled:
        raise TfnError(f"--peer {sorted(doubled)[0]} is given twice; give each framework once")
    for file in (json, plot):
        if file is not None and not file.parent.is_dir():
            raise TfnError(f"there is no folder {file.parent} to write {file.name} to")
    to_file = json is not None and str(json) != "-"
    report = run(chosen, specs, threads, repeat, clock,
                 (lambda report: write_json(report, json)) if to_file else lambda report: None,
                 losses)
    if json is not None and str(json) == "-":
        print_json(report.as_json())
    else:
        for outcomes in report.families().values():
            _print_wide(table(report, outcomes))
            _print_wide(start_table(report, outcomes))
            if (drifts := drift_table(outcomes)) is not None:
                _print_wide(drifts)
        for line in footer(report):
            console.print(line, soft_wrap=True, markup=False)
    if plot is not None:
        write_plot(report, plot)


def select(names: Sequence[str]) -> list[Workload]:
    """The workloads a user means, in the catalogue's order. Raises `TfnError` for an unknown name."""
    if not names:
        return list(WORKLOADS.values())
    wanted: set[str] = set()
    for name in names:
        found = {w for w in WORKLOADS if fnmatch.fnmatchcase(w, name)
                 or w.startswith(name.rstrip("/") + "/")}
        if not found:
            families = ", ".join(sorted({w.family for w in WORKLOADS.values()}))
            raise TfnError(f"there is no workload {name!r}; the families are {families};"
                           " `tfn bench --list` prints all names")
        wanted |= found
    return [w for name, w in WORKLOADS.items() if name in wanted]


def run(workloads: Sequence[Workload], specs: Sequence[PeerSpec], threads: int, rounds: int,
        clock: str, keep: Callable[[Report], None] = lambda report: None,
        losses: int | None = None) -> Report:
    """Measure the machine, then every workload on every peer that starts, then the machine again: its
    peaks are the better of both. `keep` is called after each workload, so that what a long run has
    measured survives its end."""
    before = load()
    peaks = measure_peaks(threads)
    with tempfile.TemporaryDirectory(prefix="tfn-bench-") as cache:
        env = environment(threads, Path(cache), os.environ)
        peers = [Peer(spec, threads, env) for spec in specs]
        started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        report = Report(started, threads, rounds, clock, peaks, [], load_before=before)
        try:
            for peer in peers:
                _start(peer)
            with errors.status("") as status:
                for number, workload in enumerate(workloads, start=1):
                    outcome = measure(workload, peers, rounds, clock, peaks, status.update,
                                      losses)
                    report.outcomes.append(outcome)
                    report.peers, report.load_after = [p.description for p in peers], load()
                    keep(report)
                    if not errors.is_terminal:
                        errors.print(f"{number} of {len(workloads)}: {workload.name}")
            report.peaks = peaks.better(measure_peaks(threads))
            for outcome in report.outcomes:
                set_fractions(outcome, clock, report.peaks)
            keep(report)
        finally:
            for peer in peers:
                peer.stop()
    return report


def _start(peer: Peer) -> None:
    """Start a peer. One that cannot start is tried again, and reported, at each workload."""
    try:
        peer.start()
    except PeerFailed as failure:
        peer.description = {"name": peer.name, "program": peer.spec.python,
                            "failed": str(failure)}
        errors.print(f"{peer.name} does not start: {failure}", style="yellow", highlight=False)


def _print_wide(shown: Table) -> None:
    """Print a table as wide as it is: a row cut to the terminal would lose its figures."""
    whole = Measurement.get(console, console.options.update(max_width=1000), shown).maximum
    width, console.width = console.width, max(console.width, whole)
    try:
        console.print(shown)
    finally:
        console.width = width


def write_json(report: Report, path: Path) -> None:
    """Write everything, samples included."""
    path.write_text(json_module.dumps(report.as_json(), indent=1) + "\n", encoding="utf-8")
