"""The rounds: one workload on every peer, A B C A B C ..., and what they show.

A sample is the time of several steps in a row. Because every peer gives one sample a round, a slow
minute of the machine hits all of them, and ratios are taken within a round.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ...compiler.runtime.peaks import Peaks
from .peer import Peer, PeerFailed
from .worker.workload import Workload

# Longest time a sample, and all samples of one peer, should take.
SAMPLE_SECONDS, PEER_SECONDS = 0.05, 20.0
MOST_STEPS = 20_000
LOSSES = 5
"""Of a trajectory, unless more are asked for; a very slow peer then gives fewer, at least two."""


@dataclass
class Measured:
    """One peer on one workload. Seconds are per step."""

    status: str = "ok"
    reason: str = ""
    style: str = ""
    first_step_seconds: float = 0.0
    first_step_cpu_seconds: float = 0.0
    steps_per_sample: int = 1
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    evidence: list[float] = field(default_factory=list)
    alive: bool = False
    agrees: bool | None = None
    base_bytes: int | None = None
    peak_bytes: int | None = None
    flops_per_second: float | None = None
    bytes_per_second: float | None = None
    fraction_of_peak: float | None = None

    def seconds(self, clock: str) -> float:
        """Median seconds per step."""
        return statistics.median(getattr(self, clock))

    def quartiles(self, clock: str) -> tuple[float, float]:
        return quartiles(getattr(self, clock))


@dataclass
class Outcome:
    """All peers on one workload; `ratio` is the best other peer's time over tfn's: above 1 tfn is
    faster. Its spread is that of the ratios of single rounds."""

    name: str
    family: str
    flops: float
    nbytes: float
    peers: dict[str, Measured]
    best_peer: str | None = None
    ratio: float | None = None
    ratio_quartiles: tuple[float, float] | None = None
    ratios: dict[str, float] = field(default_factory=dict)
    trajectory: bool = False

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """The first and third quartile; of one value, that value twice."""
    if len(values) < 2:
        return values[0], values[0]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


def measure(workload: Workload, peers: Sequence[Peer], rounds: int, clock: str, peaks: Peaks,
            said: Callable[[str], None] = lambda text: None, losses: int | None = None) -> Outcome:
    """Run `workload` on all peers, `losses` steps at first if it has a trajectory. A peer that fails
    is reported and takes no further part."""
    found = {peer.name: Measured() for peer in peers}
    for peer in peers:
        said(f"{workload.name}: {peer.name} starts")
        _guarded(_prepare, peer, found[peer.name], workload, losses)
    for number in range(rounds):
        said(f"{workload.name}: round {number + 1} of {rounds}")
        for peer in peers:
            mine = found[peer.name]
            spent = sum(mine.wall) * mine.steps_per_sample
            if mine.status == "ok" and (not mine.wall or spent < PEER_SECONDS):
                _guarded(_sample, peer, mine)
    for peer in peers:
        mine = found[peer.name]
        if mine.status == "ok":
            _guarded(_finish, peer, mine)
        _close(peer)
    outcome = Outcome(workload.name, workload.family, workload.flops, workload.nbytes, found,
                      trajectory=workload.trajectory)
    _judge(outcome, workload, clock, peaks)
    return outcome


def _guarded(action: Callable[..., None], peer: Peer, mine: Measured, *more: Any) -> None:
    try:
        action(peer, mine, *more)
    except PeerFailed as failure:
        mine.status = "unsupported" if failure.unsupported else "failed"
        mine.reason = str(failure)


def _prepare(peer: Peer, mine: Measured, workload: Workload, losses: int | None) -> None:
    if not peer.running or (workload.own_process and not peer.fresh):
        peer.start()
    peer.fresh = False
    opened = peer.ask("open", workload=workload.name)
    mine.base_bytes, mine.style = opened["base_bytes"], opened["style"]
    first = peer.ask("steps", count=1)
    mine.first_step_seconds, mine.first_step_cpu_seconds = first["wall"], first["cpu"]
    trial, ends = first, time.monotonic() + PEER_SECONDS
    for _ in range((losses or LOSSES) - 1 if workload.trajectory else 0):
        if losses or time.monotonic() < ends or trial is first:
            trial = peer.ask("steps", count=1)
    mine.evidence = peer.ask("evidence")["evidence"]
    mine.alive = peer.ask("alive")["alive"]
    # The second step may still compile or fill caches; the third tells how many make a sample.
    for _ in range(2):
        if trial is first or trial["wall"] < SAMPLE_SECONDS:
            trial = peer.ask("steps", count=1)
    mine.steps_per_sample = max(1, min(MOST_STEPS, round(SAMPLE_SECONDS
                                                         / max(trial["wall"], 1e-7))))


def _sample(peer: Peer, mine: Measured) -> None:
    count = mine.steps_per_sample
    took = peer.ask("steps", count=count)
    mine.wall.append(took["wall"] / count)
    mine.cpu.append(took["cpu"] / count)


def _finish(peer: Peer, mine: Measured) -> None:
    mine.peak_bytes = peer.ask("memory")["peak_bytes"]


def _close(peer: Peer) -> None:
    if peer.running:
        try:
            peer.ask("close")
        except PeerFailed:
            peer.stop()


# -- what it shows -----------------------------------------------------------------------------------

def _judge(outcome: Outcome, workload: Workload, clock: str, peaks: Peaks) -> None:
    good = {name: m for name, m in outcome.peers.items() if m.status == "ok"}
    for mine in good.values():
        seconds = mine.seconds(clock)
        mine.flops_per_second = workload.flops / seconds or None
        mine.bytes_per_second = workload.nbytes / seconds or None
    set_fractions(outcome, clock, peaks)
    _compare_evidence(good, workload.tolerance, workload.trajectory)
    if "tfn" not in good:
        return
    ours = good["tfn"]
    others = {name: m for name, m in good.items() if name != "tfn"}
    outcome.ratios = {name: m.seconds(clock) / ours.seconds(clock) for name, m in others.items()}
    if others:
        best = min(others, key=lambda name: others[name].seconds(clock))
        outcome.best_peer, outcome.ratio = best, outcome.ratios[best]
        outcome.ratio_quartiles = quartiles(
            [b / a for a, b in zip(getattr(ours, clock), getattr(others[best], clock),
                                   strict=False)])


def set_fractions(outcome: Outcome, clock: str, peaks: Peaks) -> None:
    """How near each peer comes to what `peaks` allow."""
    least = peaks.least_seconds(outcome.flops, outcome.nbytes)
    for mine in outcome.peers.values():
        if mine.status == "ok" and least:
            mine.fraction_of_peak = least / mine.seconds(clock)


def _compare_evidence(good: dict[str, Measured], tolerance: float, trajectory: bool) -> None:
    """Does every peer find what most find? With two that differ, neither agrees. Trajectories are
    compared as far as the shortest goes."""
    common = min((len(m.evidence) for m in good.values()), default=0) if trajectory else None
    for name, mine in good.items():
        others = [m for other, m in good.items() if other != name]
        if others:
            near = sum(close(mine.evidence[:common], m.evidence[:common], tolerance)
                       for m in others)
            mine.agrees = near * 2 >= len(others)


@dataclass
class Drift:
    """How far trajectories of losses lie apart: largest relative differences of one step's losses."""

    steps: int
    first: float
    """tfn to the nearest peer, first step."""
    ours: float
    """tfn to the nearest peer, all steps; the nearest is that of the whole."""
    nearest: str
    peers: float | None
    """Between the two peers that lie farthest apart; None with one."""


def drift(outcome: Outcome) -> Drift | None:
    """Of a workload with a trajectory that tfn and a peer ran, else None."""
    losses = {n: m.evidence for n, m in outcome.peers.items() if m.status == "ok" and m.evidence}
    if not outcome.trajectory or "tfn" not in losses or len(losses) < 2:
        return None
    steps = min(map(len, losses.values()))

    def apart(a: str, b: str, steps: int) -> float:
        return max(abs(x - y) / max(abs(x), abs(y), 1e-30)
                   for x, y in zip(losses[a][:steps], losses[b][:steps], strict=True))

    others = sorted(losses.keys() - {"tfn"})
    nearest = min(others, key=lambda name: apart("tfn", name, steps))
    pairs = [apart(a, b, steps) for a, b in itertools.combinations(others, 2)]
    return Drift(steps, apart("tfn", nearest, 1), apart("tfn", nearest, steps), nearest,
                 max(pairs, default=None))


def close(a: Sequence[float], b: Sequence[float], tolerance: float) -> bool:
    """Are two pieces of evidence the same, up to `tolerance` of their largest number?"""
    if len(a) != len(b):
        return False
    scale = max((abs(x) for x in (*a, *b)), default=0.0)
    return all(abs(x - y) <= tolerance * scale for x, y in zip(a, b, strict=True))


def geometric_mean(outcomes: Sequence[Outcome]) -> float | None:
    """Of the ratios to the best peer; None without any."""
    ratios = [o.ratio for o in outcomes if o.ratio]
    return math.exp(statistics.fmean(map(math.log, ratios))) if ratios else None
