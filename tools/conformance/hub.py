"""`python -m tfn.tools.conformance hub`: the model families of keras-hub, against another backend.

The other backend runs in a Python of its own (`hub_families.py`): it draws weights and inputs, and says
what the model predicts and generates. tfn gets the same weights and inputs.
"""

from __future__ import annotations

import importlib.util
import json as jsonlib
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import typer
from rich.progress import Progress
from rich.table import Table

from ..console import console, errors
from ..doctor import KERAS_HUB
from .hub_families import FAMILIES, build, inputs_of, run
from .jax import distance

TOLERANCE = 1e-4
"""The largest error of a result, relative to its largest element."""
GENERATED = "generated."


@dataclass
class Row:
    """A family: seconds of CPU with tracing and compiling, the largest relative error of what it
    predicts, and how many tokens were generated alike (of how many)."""

    name: str
    kind: str
    outputs: int = 0
    error: float | None = None
    tokens: int = 0
    same_tokens: int = 0
    seconds: float = 0
    peer_seconds: float = 0
    failure: str = ""


def command(
    names: list[str] = typer.Argument(None, help="Families; default: all."),
    python: str = typer.Option(None, envvar="TFN_JAX_PYTHON",
                               help="A Python with jax, keras and keras-hub."),
    json: Path = typer.Option(None, "--json", help="Write the results to this file."),
) -> None:
    """Run tiny models of keras-hub's families with the same random weights on jax and tfn.

    A family passes when what it predicts is within 1e-4 of jax's, relative to the largest element of a
    result, and what it generates greedily is token for token the same. The exit code is 1 when a
    family does not pass.
    """
    if python is None:
        raise typer.BadParameter("give the Python that has jax and keras-hub: --python, or set"
                                 " TFN_JAX_PYTHON")
    if importlib.util.find_spec("keras_hub") is None:
        raise typer.BadParameter(f"keras-hub is not installed here: {KERAS_HUB}")
    unknown = next((n for n in names or () if n not in FAMILIES), None)
    if unknown is not None:
        raise typer.BadParameter(f"there is no family {unknown!r}; there are {', '.join(FAMILIES)}")
    chosen = list(names or FAMILIES)
    rows = []
    with Progress(console=errors, transient=True) as progress:
        task = progress.add_task("hub", total=len(chosen))
        for row in run_families(chosen, python):
            rows.append(row)
            progress.update(task, advance=1, description=row.name)
    if json is not None:
        json.write_text(jsonlib.dumps({"results": [asdict(r) for r in rows]}, indent=1) + "\n")
    report(rows)
    raise typer.Exit(1 if any(r.failure for r in rows) else 0)


def run_families(names: Sequence[str], python: str) -> Iterator[Row]:
    """A row for each family, as they get done; a failure is part of its row."""
    with tempfile.TemporaryDirectory(prefix="tfn-hub-") as folder:
        script = Path(__file__).with_name("hub_families.py")
        # Its folder must not be the first place to import from: jax.py beside it is not JAX.
        peer = subprocess.Popen(
            [python, "-P", str(script), folder, *names], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if len(names) == 1 else subprocess.DEVNULL, text=True,
            env={**os.environ, "KERAS_BACKEND": "jax"})
        with peer:
            assert peer.stdout is not None
            for name in names:
                line = next((line for line in peer.stdout if line.startswith("{")), None)
                yield compared(name, Path(folder), line)


def compared(name: str, folder: Path, told: str | None) -> Row:
    """The row of a family whose files are in `folder`; `told` is what the other side said of it."""
    row = Row(name, FAMILIES[name].kind)
    peer: dict[str, Any] = {"failure": "it stopped without a word"}
    if told is not None:
        peer = jsonlib.loads(told)
    if "failure" in peer:
        row.failure = f"the other backend: {peer['failure']}"
        return row
    row.peer_seconds = peer["seconds"]
    begun = process_time()
    try:
        _compare(row, folder)
    except Exception as error:
        row.failure = f"{type(error).__name__}: {error}"
    row.seconds = process_time() - begun
    return row


def _compare(row: Row, folder: Path) -> None:
    family = FAMILIES[row.name]
    model = build(family.backbone)
    model.load_weights(folder / f"{row.name}.weights.h5")
    given = inputs_of(family, model)
    with np.load(folder / f"{row.name}.in.npz") as drawn:
        if sorted(drawn) != sorted(given) or any(not np.array_equal(drawn[n], given[n]) for n in given):
            raise ValueError("the two backends give the model different inputs")
    ours = run(family, model, given)
    with np.load(folder / f"{row.name}.out.npz") as data:
        theirs = dict(data)
    if ours.keys() != theirs.keys():
        raise ValueError(f"results are called {sorted(ours)}, expected {sorted(theirs)}")
    row.outputs, row.error = len(theirs), 0.0
    wrong = []
    for name, other in theirs.items():
        mine = ours[name]
        if mine.shape != other.shape:
            wrong.append(f"{name} has shape {mine.shape}, expected {other.shape}")
        elif name.startswith(GENERATED):
            if "mask" not in name:
                row.tokens, row.same_tokens = other.size, int((mine == other).sum())
            if not np.array_equal(mine, other):
                wrong.append(f"{name} differs in {(mine != other).sum()} of {other.size} places")
        else:
            apart = distance(mine, other, other)
            row.error = max(row.error, apart)
            if apart > TOLERANCE:
                wrong.append(f"{name} is {apart:.1e} from the other backend's")
    row.failure = "; ".join(wrong)


def report(rows: Sequence[Row]) -> None:
    """A table, and why families did not pass."""
    table = Table("family", "kind", "outputs", "error", "tokens alike", "tfn s", "jax s")
    for r in rows:
        table.add_row(r.name, r.kind, str(r.outputs), "" if r.error is None else f"{r.error:.1e}",
                      f"{r.same_tokens}/{r.tokens}" if r.tokens else "", f"{r.seconds:.1f}",
                      f"{r.peer_seconds:.1f}")
    console.print(table)
    for r in rows:
        if r.failure:
            console.print(f"{r.name}: {r.failure}", soft_wrap=True, markup=False)
    console.print(f"{sum(not r.failure for r in rows)} of {len(rows)} passed")
