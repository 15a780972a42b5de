"""A finished run as JSON for machines and as a table for people."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

from ...compiler.runtime.peaks import Peaks
from .measure import Measured, Outcome, drift, geometric_mean

FORMAT = 1


@dataclass
class Report:
    """Everything that was measured, and under which circumstances."""

    started: str
    threads: int
    rounds: int
    clock: str
    peaks: Peaks
    peers: list[dict[str, Any]]
    outcomes: list[Outcome] = field(default_factory=list)
    load_before: float | None = None
    load_after: float | None = None

    def families(self) -> dict[str, list[Outcome]]:
        found: dict[str, list[Outcome]] = {}
        for outcome in self.outcomes:
            found.setdefault(outcome.family, []).append(outcome)
        return found

    def means(self) -> dict[str, float | None]:
        """Geometric mean of the ratios to the best peer, for each family and for all."""
        means = {family: geometric_mean(some) for family, some in self.families().items()}
        return {**means, "all": geometric_mean(self.outcomes)}

    def as_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT, "started": self.started, "machine": machine(),
            "settings": {"threads": self.threads, "rounds": self.rounds, "clock": self.clock},
            "load": {"before": self.load_before, "after": self.load_after},
            "peaks": self.peaks.as_json(), "peers": self.peers,
            "workloads": [o.as_json() for o in self.outcomes], "geometric_mean": self.means()}


def machine() -> dict[str, Any]:
    """The processor, the system, the cores this process may use."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            model = next((line.split(":", 1)[1].strip() for line in info
                          if line.startswith("model name")), model)
    except OSError:
        pass
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"processor": model, "system": platform.platform(), "cores": usable}


def load() -> float | None:
    """Programs that wanted a core during the last minute, ours included; None where unknown."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


# -- for people ----------------------------------------------------------------------------------------

def seconds_text(seconds: float) -> str:
    """`12.3 ms`, in the unit that fits."""
    for factor, unit in ((1e-6, "ns"), (1e-3, "µs"), (1.0, "ms")):
        if seconds < factor:
            return f"{seconds / factor * 1e3:.3g} {unit}"
    return f"{seconds:.3g} s"


def table(report: Report, outcomes: Sequence[Outcome]) -> Table:
    """One row per workload: each peer's median, tfn's rate, the ratio and its spread."""
    names = [p["name"] for p in report.peers]
    title = (f"{report.clock} seconds per step, median; {report.threads}"
             f" thread{'s' * (report.threads > 1)}")
    shown = Table("workload", *names, "tfn rate", "of peak", "best peer / tfn", title=title,
                  title_justify="left")
    for outcome in outcomes:
        ours = outcome.peers.get("tfn")
        shown.add_row(outcome.name, *[_cell(outcome.peers.get(n), report.clock) for n in names],
                      _rate(outcome, ours), _fraction(ours), _ratio(outcome))
    for column in shown.columns:
        column.no_wrap = True
    return shown


def start_table(report: Report, outcomes: Sequence[Outcome]) -> Table:
    """One row per workload: each peer's first step, compilation included, and its peak memory."""
    names = [p["name"] for p in report.peers]
    shown = Table("workload", *names, title="first step; peak memory beyond what the process held"
                  " before", title_justify="left")
    for outcome in outcomes:
        shown.add_row(outcome.name, *[_start_cell(outcome.peers.get(n), report.clock)
                                      for n in names])
    for column in shown.columns:
        column.no_wrap = True
    return shown


def drift_table(outcomes: Sequence[Outcome]) -> Table | None:
    """One row per training workload: how far its losses lie from the peers'; None without any."""
    shown = Table("workload", "steps", "first loss", "all losses", "nearest peer", "among peers",
                  title="largest relative difference of losses: tfn to the nearest peer, and"
                  " between peers", title_justify="left")
    for outcome in outcomes:
        found = drift(outcome)
        if found is not None:
            shown.add_row(outcome.name, str(found.steps), f"{found.first:.1e}", f"{found.ours:.1e}",
                          found.nearest, "" if found.peers is None else f"{found.peers:.1e}")
    return shown if shown.rows else None


def _start_cell(measured: Measured | None, clock: str) -> str:
    if measured is None or measured.status != "ok":
        return ""
    first = (measured.first_step_seconds if clock == "wall" else measured.first_step_cpu_seconds)
    if measured.peak_bytes is None or measured.base_bytes is None:
        return seconds_text(first)
    return f"{seconds_text(first)}; {(measured.peak_bytes - measured.base_bytes) / 1e6:.3g} MB"


def _cell(measured: Measured | None, clock: str) -> str:
    if measured is None:
        return ""
    if measured.status != "ok":
        return f"[yellow]{measured.status}[/]"
    low, high = measured.quartiles(clock)
    middle = measured.seconds(clock)
    return f"{seconds_text(middle)} [dim]±{100 * (high - low) / 2 / middle:.0f}%[/]"


def _rate(outcome: Outcome, ours: Measured | None) -> str:
    if ours is None or ours.status != "ok":
        return ""
    if ours.flops_per_second:
        return f"{ours.flops_per_second / 1e9:.3g} GFLOP/s"
    if ours.bytes_per_second:
        return f"{ours.bytes_per_second / 1e9:.3g} GB/s"
    return ""


def _fraction(ours: Measured | None) -> str:
    return "" if ours is None or ours.fraction_of_peak is None else f"{ours.fraction_of_peak:.0%}"


def _ratio(outcome: Outcome) -> str:
    if outcome.ratio is None or outcome.ratio_quartiles is None:
        return ""
    low, high = outcome.ratio_quartiles
    colour = "green" if outcome.ratio >= 1 else "red"
    return (f"[{colour}]{outcome.ratio:.2f}[/] [dim]{low:.2f}-{high:.2f}[/]"
            f" {outcome.best_peer}")


def notes(outcomes: Sequence[Outcome]) -> list[str]:
    """What a reader must know before believing a row: refusals, failures, different results."""
    found: dict[str, list[str]] = {}
    for outcome in outcomes:
        for name, measured in outcome.peers.items():
            for said in _doubts(measured):
                found.setdefault(f"{name}: {said}", []).append(outcome.name)
    return [f"{said} ({names[0]}{f' and {len(names) - 1} more' if names[1:] else ''})"
            for said, names in found.items()]


def _doubts(measured: Measured) -> list[str]:
    if measured.status != "ok":
        return [f"{measured.status}: {measured.reason}"]
    doubts = [] if measured.alive else ["the result does not follow the input"]
    return doubts + ["the result differs from the others'"] * (measured.agrees is False)


def footer(report: Report) -> list[str]:
    """Lines below the tables: notes, means and peaks."""
    lines = notes(report.outcomes)
    lines += [f"geometric mean of best peer / tfn, {family}: {mean:.2f}"
             for family, mean in report.means().items() if mean is not None]
    peaks = report.peaks
    copies = ", ".join(f"{level} {rate / 1e9:.3g}" for level, rate in peaks.copy_bytes.items())
    lines.append(f"machine, {peaks.threads} thread{'s' * (peaks.threads > 1)}:"
                 f" {peaks.f32_flops / 1e9:.3g} GFLOP/s f32; copying {copies} GB/s")
    if report.load_before is not None and report.load_before > 1:
        lines.append(f"the machine was busy (load {report.load_before:.1f}): compare ratios and"
                     " CPU time, not wall time")
    return lines
