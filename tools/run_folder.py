"""Run folders: what `tfn train --out DIR` leaves and the other commands read.

    model.keras         the trained model, written when training is complete
    checkpoint.keras    the model after the last complete epoch
    run.json            the recipe, what was done so far, and the history of losses and metrics

Files are written beside their place and renamed, so a reader never sees half of one.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..compiler.errors import TfnError
from .recipe import load_recipe

MODEL, CHECKPOINT, RUN = "model.keras", "checkpoint.keras", "run.json"


class RunError(TfnError, ValueError):
    """A run folder that is missing something."""


@dataclass
class Run:
    """The contents of run.json."""

    recipe: str
    name: str
    epochs: int = 0
    history: dict[str, list[float]] = field(default_factory=dict)


class RunFolder:
    """A folder with a run in it."""

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)

    def save_model(self, model: Any, name: str) -> Path:
        """Write a `.keras` file atomically."""
        self.path.mkdir(parents=True, exist_ok=True)
        target = self.path / name
        temporary = self.path / f".{os.getpid()}.{name}"
        try:
            model.save(temporary)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
        return target

    def save_run(self, run: Run) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        temporary = self.path / f".{os.getpid()}.{RUN}"
        temporary.write_text(json.dumps(asdict(run), indent=2) + "\n")
        os.replace(temporary, self.path / RUN)

    def run(self) -> Run:
        """What run.json says. Raises `RunError` when there is none or it is damaged."""
        file = self.path / RUN
        try:
            row = json.loads(file.read_text())
            return Run(str(row["recipe"]), str(row["name"]), int(row["epochs"]),
                       dict(row["history"]))
        except FileNotFoundError:
            raise RunError(f"{self.path} is not a run: it has no {RUN}; make one with"
                           f" `tfn train RECIPE --out {self.path}`") from None
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{file} is damaged ({error}); train again or restore it") from None

    def load_model(self) -> Any:
        """The trained model, or the last checkpoint of an unfinished run.

        Its recipe is loaded first, if it is still there: layers and losses of its own must be known.
        """
        recipe = Path(self.run().recipe)
        if recipe.is_file():
            load_recipe(recipe)
        for name in (MODEL, CHECKPOINT):
            if (self.path / name).exists():
                return load_model(self.path / name)
        raise RunError(f"{self.path} has no {MODEL}; make one with"
                       f" `tfn train RECIPE --out {self.path}`")


def load_model(file: Path) -> Any:
    """The Keras model in a `.keras` file. Raises `RunError` when it cannot be read."""
    from ..keras.loading import KerasFileError, load

    try:
        return load(file)
    except KerasFileError as error:
        raise RunError(f"{error}; train again or give another file") from error


def open_model(path: Path) -> tuple[Any, str]:
    """`(model, name)` of a run folder or of a `.keras` file."""
    if path.is_dir():
        folder = RunFolder(path)
        return folder.load_model(), folder.run().name
    if not path.exists():
        raise RunError(f"there is no {path}; give a run folder of `tfn train` or a .keras file")
    return load_model(path), path.stem
