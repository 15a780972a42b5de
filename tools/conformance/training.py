"""`python -m tfn.tools.conformance training`: models trained from the same weights on several backends.

Every backend runs `training_models.py` in a process of a Python of its own. tfn's losses are compared
step by step with the first peer's, and a model saved by either is loaded and asked by the other.
"""

from __future__ import annotations

import json as jsonlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import typer
from rich.progress import Progress
from rich.table import Table

from ..console import console, errors, print_json
from .training_models import MODELS

SCRIPT = Path(__file__).with_name("training_models.py")
DIGITS = Path(__file__).parents[2] / "examples" / "digits.npz"
TOLERANCE = 2e-4
"""The largest difference of a loss, relative to it."""
SPREAD = 2.0
"""Where the peers differ by more among themselves: how many times that tfn may."""
PREDICTED = 1e-5
"""The largest difference of what a loaded model predicts, relative to the largest number."""
NAMES = typer.Argument(None, help=f"Of {', '.join(MODELS)}; default: all.")
PYTHON = typer.Option(..., help="The Python of an environment with Keras and JAX, TensorFlow or"
                      " PyTorch; the first is compared with tfn, all with each other.")
PROBE = ("import importlib.util as u; print(next(b for b in ('jax', 'tensorflow', 'torch')"
         " if u.find_spec(b)))")


@dataclass
class Row:
    """A model. `difference` is tfn's from the first peer and `spread` the largest among the peers, over
    all steps, relative to the loss; `here` is the error of the peer's saved model on tfn, `there` that
    of tfn's on the peer."""

    name: str
    steps: int = 0
    difference: float = float("nan")
    spread: float | None = None
    here: float = float("nan")
    there: float = float("nan")
    failed: str = ""

    @property
    def verdict(self) -> str:
        """`equal`, `within the spread`, or what is wrong."""
        if self.failed:
            return self.failed
        if not all(error <= PREDICTED for error in (self.here, self.there)):
            return "loaded models differ"
        if self.difference <= TOLERANCE:
            return "equal"
        return ("within the spread" if self.spread is not None
                and self.difference <= SPREAD * self.spread else "losses differ")

    @property
    def passed(self) -> bool:
        return self.verdict in ("equal", "within the spread")


def command(
    models: list[str] = NAMES,
    python: list[str] = PYTHON,
    steps: int = typer.Option(50, min=1, help="Batches to train on."),
    json: bool = typer.Option(False, "--json", help="Print the results as JSON."),
) -> None:
    """Train models on tfn and on other Keras backends from the same weights, and compare the losses.

    A model passes when no loss is further than 2e-4 of it from the first peer's, or twice what the
    peers differ by, and when models saved on either side predict the same on the other (1e-5). The exit
    code is 1 when one does not.
    """
    unknown = sorted(set(models or []) - set(MODELS))
    if unknown:
        raise typer.BadParameter(f"there is no model {', '.join(unknown)}; there are"
                                 f" {', '.join(MODELS)}")
    names = models or list(MODELS)
    with Progress(console=errors, transient=True) as progress:
        task = progress.add_task("training", total=len(names) * (len(python) + 3))
        rows = compare(names, python, steps, lambda: progress.advance(task, len(names)))
    if json:
        print_json({"tolerance": TOLERANCE, "models": [
            {**asdict(row), "verdict": row.verdict, "passed": row.passed} for row in rows]})
    else:
        report(rows)
    raise typer.Exit(0 if all(row.passed for row in rows) else 1)


def compare(names: Sequence[str], pythons: Sequence[str], steps: int, advance: Any = lambda: None
            ) -> list[Row]:
    """Train and load everywhere, and compare. `advance` is called when a process is done."""
    with tempfile.TemporaryDirectory(prefix="tfn-training-") as home:
        backends = [_Backend("tfn", sys.executable, Path(home))]
        backends += [_Backend(backend_of(p), p, Path(home)) for p in pythons]
        trained = []
        for backend in backends:
            trained.append(backend.run("train", names, backend.folder, steps))
            advance()
        ours, peer = backends[:2]
        here = ours.run("load", names, peer.folder, steps)
        advance()
        there = peer.run("load", names, ours.folder, steps)
        advance()
        labels = [b.name for b in backends]
        return [row_of(name, dict(zip(labels, (t[name] for t in trained), strict=True)), here[name],
                       there[name]) for name in names]


def backend_of(python: str) -> str:
    """The first of jax, tensorflow and torch that a Python has."""
    try:
        return subprocess.run([python, "-c", PROBE], check=True, capture_output=True,
                              text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise typer.BadParameter(f"{python} runs no Keras backend: it must be a Python with jax,"
                                 " tensorflow or torch") from error


@dataclass
class _Backend:
    name: str
    python: str
    home: Path

    @property
    def folder(self) -> Path:
        """Where its models are saved."""
        return self.home / self.name

    def run(self, do: str, names: Sequence[str], folder: Path, steps: int) -> dict[str, dict[str, Any]]:
        """What `training_models.py` says of each model."""
        weights, results = self.home / "weights", self.home / f"{self.name}-{do}.jsonl"
        for needed in (weights, folder):
            needed.mkdir(exist_ok=True)
        options = {"do": do, "backend": self.name, "names": list(names), "steps": steps,
                   "weights": str(weights), "folder": str(folder), "digits": str(DIGITS),
                   "results": str(results)}
        environment = {**os.environ, "KERAS_HOME": str(self.home / "keras"),
                       "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run([self.python, "-P", str(SCRIPT), jsonlib.dumps(options)], cwd=self.home,
                              env=environment, capture_output=True, text=True, check=False)
        lines = results.read_text().splitlines() if results.exists() else []
        found = {one["name"]: one for one in map(jsonlib.loads, lines)}
        said = (done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"])[-1]
        return {name: found.get(name, {"failed": said}) for name in names}


def row_of(name: str, trained: dict[str, dict], here: dict, there: dict) -> Row:
    """One model's results. `trained` is by backend, tfn first, its first peer next."""
    told = [*trained.items(), ("loaded on tfn", here), ("loaded elsewhere", there)]
    failed = [f"{who}: {found['failed']}" for who, found in told if "failed" in found]
    if failed:
        return Row(name, failed="; ".join(failed))
    losses = [np.array(found["losses"]) for found in trained.values()]
    peers = [relative(a, b) for a, b in combinations(losses[1:], 2)]
    return Row(name, len(losses[0]), relative(losses[0], losses[1]),
               float(np.max(peers)) if peers else None,
               here["error"], there["error"])


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference of two rows of losses, relative to the loss; NaN if one is NaN."""
    return float(np.max(np.abs(found - expected) / np.abs(expected)))


def report(rows: Sequence[Row]) -> None:
    """A table, and why what failed did."""
    table = Table("model", "steps", "max relative difference", "spread of others", "theirs on tfn",
                  "tfn's on theirs", "verdict")
    for row in rows:
        spread = "" if row.spread is None else f"{row.spread:.1e}"
        table.add_row(row.name, str(row.steps or ""), f"{row.difference:.1e}", spread,
                      f"{row.here:.1e}", f"{row.there:.1e}", "failed" if row.failed else row.verdict)
    console.print(table)
    for row in rows:
        if row.failed:
            console.print(f"{row.name}: {row.failed}", soft_wrap=True, markup=False)
    passed = sum(row.passed for row in rows)
    console.print(f"{passed} of {len(rows)} models train and load alike", markup=False)
