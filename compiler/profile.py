"""Where the time of compiled programs goes: every kernel timed, beside what the machine could do.

    with tfn.profile() as profile:
        step(x, y)
    print(profile.table())

Programs that run inside are made with a walker that writes down when each step ran, and so compiled
anew the first time (their kernels come from the cache); call once before what you want to know. Counts
of operations and bytes are those of the IR: every operand read and every result written once.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from .ir.core import Function, Location, Value
from .ir.dims import Dim, Extent
from .runtime.peaks import Peaks, measure
from .runtime.plan import Step
from .runtime.pool import pool
from .runtime.records import RECORDS
from .runtime.walk import record_in
from .tally import Part, operations, shares

_CAPACITY = 1 << 20
_SILENT = ("constant", "broadcast_in_dim", "reshape", "iota")


@dataclass
class Row:
    """A kernel, copy or call of Python: what it took in all, and what one call computes and moves."""

    name: str
    ops: tuple[str, ...]
    location: Location | None
    flops: float
    nbytes: float
    calls: int = 0
    seconds: float = 0.0
    shares: dict[Part, float] = field(default_factory=dict)
    """How much of it belongs to which part of a model; 1 in all, or nothing for a copy."""

    @property
    def flops_per_second(self) -> float:
        return self.flops * self.calls / self.seconds if self.seconds else 0.0

    @property
    def bytes_per_second(self) -> float:
        return self.nbytes * self.calls / self.seconds if self.seconds else 0.0

    def fraction(self, peaks: Peaks) -> float:
        """The least time the machine could need, as a part of what it took."""
        return peaks.least_seconds(self.flops, self.nbytes) * self.calls / self.seconds \
            if self.seconds else 0.0

    def __str__(self) -> str:
        return ", ".join(self.ops) or self.name


@dataclass
class Profile:
    """What `profile` found, once its block is left."""

    rows: list[Row] = field(default_factory=list)
    """Longest first."""
    events: list[tuple[Row, float, float]] = field(default_factory=list)
    """A row, and start and end in seconds, for every run of every step, in order."""
    lost: int = 0
    """Runs of steps for which there was no room."""
    given: Peaks | None = None

    @property
    def peaks(self) -> Peaks:
        """The machine's limits: measured when first asked for, which takes two seconds."""
        if self.given is None:
            self.given = measure(pool().threads)
        return self.given

    @property
    def seconds(self) -> float:
        """Time spent in steps."""
        return sum(row.seconds for row in self.rows)

    def table(self, most: int = 20) -> str:
        """The longest rows as text, and what they make of the machine's limits."""
        head = ("ms", "%", "calls", "GFLOP/s", "GB/s", "% of peak", "where", "what")
        total, lines = self.seconds or 1.0, [head]
        for row in self.rows[:most]:
            lines.append((
                f"{row.seconds * 1e3:.3f}", f"{100 * row.seconds / total:.1f}", str(row.calls),
                f"{row.flops_per_second / 1e9:.2f}", f"{row.bytes_per_second / 1e9:.2f}",
                f"{100 * row.fraction(self.peaks):.0f}", _place(row.location), _shortened(str(row))))
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        texts = ["  ".join(cell.rjust(w) if i < 6 else cell.ljust(w) for i, (cell, w) in enumerate(
            zip(line, widths, strict=True))).rstrip() for line in lines]
        rest = len(self.rows) - most
        if rest > 0:
            texts.append(f"and {rest} more, {sum(r.seconds for r in self.rows[most:]) * 1e3:.3f} ms")
        if self.lost:
            texts.append(f"{self.lost} more runs of steps were not recorded")
        return "\n".join(texts)

    def save(self, path: str | os.PathLike) -> None:
        """Write the runs of all steps as JSON that chrome://tracing and ui.perfetto.dev read."""
        Path(path).write_text(json.dumps(self.trace()))

    def trace(self, batches: Sequence[tuple[int, float, float]] = ()) -> dict[str, Any]:
        """What `save` writes; on a line of their own `batches` of data, with the seconds of
        `time.monotonic` at which they began and ended."""
        first = min([start for _, start, _ in (*self.events, *batches)], default=0.0)
        kernels = [(str(row), 0, start, end,
                    {"cat": row.name, "args": {"where": _place(row.location), "flops": row.flops,
                                               "bytes": row.nbytes, "parts": _parts(row)}})
                   for row, start, end in self.events]
        nothing: dict[str, Any] = {}
        around = [(f"batch {number}", 1, start, end, nothing) for number, start, end in batches]
        events = [{"name": name, "ph": "X", "pid": os.getpid(), "tid": line,
                   "ts": (start - first) * 1e6, "dur": (end - start) * 1e6, **more}
                  for name, line, start, end, more in [*kernels, *around]]
        return {"traceEvents": events, "displayTimeUnit": "ns"}

    def roofline(self, path: str | os.PathLike) -> None:
        """Write a page with every kernel under the machine's roof: operations per byte across, per
        second upwards; the area of a circle is its share of the time."""
        Path(path).write_text(_page(self))


_ONE_AT_A_TIME = threading.Lock()


@contextmanager
def profile(peaks: Peaks | None = None) -> Iterator[Profile]:
    """Time every step of the compiled programs that run inside, on all Python threads.

    `peaks` are the machine's limits if they are known already; they are measured otherwise when a table
    or plot needs them. Raises `RuntimeError` inside another profile.
    """
    if not _ONE_AT_A_TIME.acquire(blocking=False):
        raise RuntimeError("a profile is being made already: leave its `with` block first")
    found = Profile(given=peaks)
    log = np.zeros(3 + 3 * _CAPACITY, np.int64)
    log[1] = _CAPACITY
    try:
        RECORDS.active = True
        RECORDS.log = log
        record_in(log)
        yield found
    finally:
        record_in(None)
        RECORDS.active = False
        _ONE_AT_A_TIME.release()
        _read(found, log)


def profile_function(function: Function, runs: int = 5, size: int = 32) -> Profile:
    """A profile of a function on numbers made up, after a first run; symbolic dims have a `size`."""
    rng = np.random.default_rng(0)
    names = {n for a in function.arguments for d in a.shape if isinstance(d, Dim) for n in d.names}
    sizes = dict.fromkeys(names, size)
    arrays = [np.asarray(rng.integers(0, 2, [_extent(d, sizes) for d in a.shape])
                         if not a.dtype.is_inexact else
                         rng.random([_extent(d, sizes) for d in a.shape])).astype(a.dtype.numpy)
              for a in function.arguments]
    from .compile import compile_function

    with profile():
        executable = compile_function(function)
        executable(*arrays)
    with profile() as found:
        for _ in range(runs):
            executable(*arrays)
    return found


def _read(found: Profile, log: np.ndarray) -> None:
    """Fill a profile from the records."""
    count = min(int(log[0]), _CAPACITY)
    found.lost = int(log[0]) - count
    rows: dict[int, Row] = {}
    by_op: dict[tuple, Row] = {}
    seen: set[tuple[int, int]] = set()
    for executable in list(RECORDS.executables):
        for sizes, bound in list(executable._bound.items()):
            for step, address in zip(executable.plan.steps, _addresses(bound.table), strict=True):
                # The phases of a kernel are one row, and so is what a loop runs again.
                key = (id(executable), sizes, id(step.op) if step.op is not None else address)
                if key not in by_op:
                    by_op[key] = row_of(step, dict(sizes))
                rows[address] = by_op[key]
                if step.phase == 0:
                    seen.add((address, 0))
    for address, start, end in log[3:3 + 3 * count].reshape(-1, 3).tolist():
        row = rows.get(address)
        if row is None:
            continue  # Its program is gone.
        row.calls += (address, 0) in seen
        row.seconds += (end - start) / 1e9
        found.events.append((row, start / 1e9, end / 1e9))
    found.rows = sorted({id(r): r for r, _, _ in found.events}.values(), key=lambda r: -r.seconds)


def _addresses(table: np.ndarray) -> list[int]:
    """The address of each step in a walker's table (`runtime/walk.py`)."""
    words, position, found = table.tolist(), 0, []
    base = table.ctypes.data
    while position < len(words) and len(words) > 1:
        found.append(base + 8 * position)
        jump = words[position] == 0
        position += 6 if jump else 7 + 2 * words[position + 1] + words[position + 2]
    return found


def row_of(step: Step, sizes: dict[str, int]) -> Row:
    """A step of a plan as a row that has not run."""
    op = step.op or step.host or step.collective
    if op is None:
        moved = 2 * step.work.tasks(sizes) if step.kernel is None and step.jump is None else 0
        return Row("copy", ("copy",), None, 0.0, float(moved))
    inside = list(op.regions[0].ops) if op.name == "tfn.kernel" else [op]
    names = tuple(o.name.partition(".")[2] for o in inside)
    told = tuple(dict.fromkeys(n for n in names if n not in _SILENT)) or names[:1]
    nbytes = sum(_value(v, sizes) for v in (*op.operands, *op.results))
    name = step.kernel.name if step.kernel is not None else op.name
    location = next((o.location for o in reversed(inside) if o.location is not None), op.location)
    return Row(name, told, location, operations(inside, sizes), float(nbytes),
               shares=shares(inside, sizes))


def _value(value: Value, sizes: dict[str, int]) -> int:
    return _extent(value.type.nbytes, sizes)


def _extent(extent: Extent, sizes: dict[str, int]) -> int:
    return extent.evaluate(sizes) if isinstance(extent, Dim) else extent


def _parts(row: Row) -> dict[str, float]:
    """How much of a kernel belongs to which scopes."""
    found: dict[str, float] = {}
    for (scope, _), share in row.shares.items():
        if scope:
            found[scope] = found.get(scope, 0.0) + share
    return found


def _place(location: Location | None) -> str:
    return "" if location is None else f"{Path(location.file).name}:{location.line}"


def _shortened(text: str, most: int = 60) -> str:
    return text if len(text) <= most else text[:most - 3] + "..."


# -- the plot -----------------------------------------------------------------------------------------

_WIDTH, _HEIGHT, _MARGIN = 900, 560, 60


def _page(found: Profile) -> str:
    peaks, rows = found.peaks, [r for r in found.rows if r.flops and r.nbytes and r.seconds]
    bandwidth = peaks.bandwidth(float("inf"))
    xs = [r.flops / r.nbytes for r in rows] + [peaks.f32_flops / bandwidth]
    ys = [r.flops_per_second for r in rows] + [peaks.f32_flops]
    left, right = min(xs) / 2, max(xs) * 4
    low, high = min(ys) / 2, peaks.f32_flops * 2

    def across(x: float) -> float:
        return _MARGIN + (_WIDTH - 2 * _MARGIN) * float(np.log(x / left) / np.log(right / left))

    def up(y: float) -> float:
        return _HEIGHT - _MARGIN - (_HEIGHT - 2 * _MARGIN) * float(np.log(y / low) / np.log(high / low))

    shapes = [_roof(level, across, up, rate, peaks.f32_flops, left, right)
              for level, rate in peaks.read_bytes.items()]
    total = found.seconds or 1.0
    for row in rows:
        title = (f"{row} at {_place(row.location)}\n{row.flops_per_second / 1e9:.2f} GFLOP/s,"
                 f" {row.bytes_per_second / 1e9:.2f} GB/s, {100 * row.seconds / total:.1f} % of time,"
                 f" {100 * row.fraction(peaks):.0f} % of peak")
        shapes.append(
            f'<circle cx="{across(row.flops / row.nbytes):.1f}" cy="{up(row.flops_per_second):.1f}"'
            f' r="{4 + 24 * (row.seconds / total) ** 0.5:.1f}"><title>{escape(title)}</title></circle>')
    return f"""<!DOCTYPE html>
<meta charset="utf-8"><title>Roofline</title>
<style>body {{ font: 14px sans-serif; margin: 2em }} circle {{ fill: #36c8; stroke: #139 }}
path {{ fill: none; stroke: #888 }} pre {{ font-size: 12px }}</style>
<h1>Roofline</h1>
<svg width="{_WIDTH}" height="{_HEIGHT}" role="img">
<rect x="{_MARGIN}" y="{_MARGIN}" width="{_WIDTH - 2 * _MARGIN}" height="{_HEIGHT - 2 * _MARGIN}"
 fill="none" stroke="#ccc"/>
{chr(10).join(shapes)}
<text x="{_WIDTH / 2}" y="{_HEIGHT - 20}" text-anchor="middle">operations per byte, {left:.2g} to
 {right:.2g}</text>
<text x="20" y="{_MARGIN - 10}">operations per second, {low:.2g} to {high:.2g}</text>
</svg>
<pre>{escape(found.table(most=1000))}</pre>
"""


def _roof(level: str, across, up, rate: float, top: float, left: float, right: float) -> str:
    """The line no kernel that reads from a level of memory is above."""
    corner = min(max(top / rate, left), right)
    start = min(rate * left, top)
    return (f'<path d="M {across(left):.1f} {up(start):.1f} L {across(corner):.1f} {up(top):.1f}'
            f' L {across(right):.1f} {up(top):.1f}"><title>{level}: {rate / 1e9:.0f} GB/s</title>'
            '</path>')
