"""A finished run as one HTML file: a bar per workload, best peer over tfn, on a logarithmic axis."""

from __future__ import annotations

import html
import math
from pathlib import Path

from .measure import Outcome
from .report import Report, seconds_text

ROW, LEFT, WIDTH, RIGHT = 20, 340, 560, 230
FASTER, SLOWER, SPREAD = "#2a7f62", "#b8512f", "#00000066"

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>tfn bench</title>
<style>body{{font:13px system-ui,sans-serif;margin:24px;color:#222}} h2{{margin:24px 0 4px}}
text{{font-size:12px}} .quiet{{fill:#666}}</style>
<h1>tfn bench</h1>
<p>{about}</p>
{charts}
</html>
"""


def write_plot(report: Report, path: Path) -> None:
    """Write the page; it needs nothing but itself."""
    means = report.means()
    charts = []
    for family, outcomes in report.families().items():
        rows = [o for o in outcomes if o.ratio]
        if rows:
            charts.append(f"<h2>{html.escape(family)}: geometric mean {means[family]:.2f}</h2>\n"
                          + _chart(rows, report.clock))
    peers = ", ".join(p["name"] for p in report.peers)
    about = (f"{html.escape(peers)}; {report.threads} threads, {report.rounds} rounds,"
             f" {report.clock} time. A bar is the time of the best peer over tfn's: to the right of"
             " 1 tfn is faster. The line across a bar spans the quartiles of single rounds.")
    path.write_text(PAGE.format(about=about, charts="\n".join(charts)), encoding="utf-8")


def _chart(outcomes: list[Outcome], clock: str) -> str:
    shown = [x for o in outcomes for x in (o.ratio or 1.0, *(o.ratio_quartiles or ()))]
    limit = max(2.0, *(max(x, 1 / x) for x in shown))

    def place(ratio: float) -> float:
        return LEFT + WIDTH / 2 * (1 + math.log(ratio) / math.log(limit))

    height = ROW * (len(outcomes) + 1)
    parts = [f'<svg width="{LEFT + WIDTH + RIGHT}" height="{height}" role="img">']
    power = math.floor(math.log2(limit))
    for exponent in range(-power, power + 1, max(1, power // 4)):
        x = place(2.0 ** exponent)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height - ROW}" stroke="#ddd"/>'
                     f'<text class="quiet" x="{x:.1f}" y="{height - 5}" text-anchor="middle">'
                     f'{2.0 ** exponent:g}</text>')
    for row, outcome in enumerate(outcomes):
        parts.append(_bar(outcome, row * ROW, place, clock))
    return "\n".join([*parts, "</svg>"])


def _bar(outcome: Outcome, y: float, place, clock: str) -> str:
    ratio, best = outcome.ratio or 1.0, outcome.best_peer or ""
    low, high = outcome.ratio_quartiles or (ratio, ratio)
    start, end = sorted((place(1.0), place(ratio)))
    ours, theirs = outcome.peers["tfn"], outcome.peers[best]
    times = (f"{seconds_text(ours.seconds(clock))}; {best}"
             f" {seconds_text(theirs.seconds(clock))}")
    starts = (f"first step {seconds_text(ours.first_step_seconds)}; {best}"
              f" {seconds_text(theirs.first_step_seconds)}")
    middle = y + ROW / 2
    return (f'<text x="{LEFT - 8}" y="{middle + 4}" text-anchor="end">'
            f'{html.escape(outcome.name)}</text>'
            f'<rect x="{start:.1f}" y="{y + 4}" width="{end - start:.1f}" height="{ROW - 8}"'
            f' fill="{FASTER if ratio >= 1 else SLOWER}"/>'
            f'<line x1="{place(low):.1f}" x2="{place(high):.1f}" y1="{middle}" y2="{middle}"'
            f' stroke="{SPREAD}" stroke-width="2"/>'
            f'<text class="quiet" x="{LEFT + WIDTH + 8}" y="{middle + 4}">{ratio:.2f}'
            f' ({html.escape(times)})<title>{html.escape(starts)}</title></text>')
