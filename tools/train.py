"""`tfn train`: a recipe to a run folder, with a checkpoint after every epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from .console import console, print_json
from .interrupt import interruptible
from .recipe import Recipe, arguments, blame, load_recipe
from .run_folder import CHECKPOINT, MODEL, Run, RunFolder

NAME = "train"


def command(
    recipe: Path = typer.Argument(..., help="A Python file with build_model() and load_data()."),
    out: Path = typer.Option(None, help="Run folder.  [default: runs/RECIPE]"),
    epochs: int = typer.Option(1, min=1, help="Passes over the training data."),
    batch_size: int = typer.Option(32, min=1, help="Examples in a step."),
    seed: int = typer.Option(None, help="Make the run repeatable."),
    resume: bool = typer.Option(False, help="Go on from the last complete epoch in the folder."),
    json: bool = typer.Option(False, "--json", help="Print the result as JSON."),
) -> None:
    """Train a recipe.

    After every epoch the folder holds a complete checkpoint; stopping the command (SIGTERM, Ctrl-C)
    loses at most the epoch it was in.

        tfn train examples/digits.py --epochs 12 --out runs/digits
    """
    loaded = load_recipe(recipe)
    folder = RunFolder(out or Path("runs") / loaded.name)
    run = train(loaded, folder, epochs, batch_size, seed, resume, verbose=0 if json else "auto")
    if json:
        print_json({"run": str(folder.path), "epochs": run.epochs,
                    **{name: values[-1] for name, values in run.history.items()}})
    else:
        console.print(f"trained {run.epochs} epochs; the model is {folder.path / MODEL}")


def train(recipe: Recipe, folder: RunFolder, epochs: int, batch_size: int = 32,
          seed: int | None = None, resume: bool = False, verbose: Any = "auto",
          callbacks: tuple = ()) -> Run:
    """Train into `folder` until `epochs` epochs are complete; returns what was done."""
    import keras

    if seed is not None:
        keras.utils.set_random_seed(seed)
    run = Run(str(recipe.path.resolve()), recipe.name)
    if resume and (folder.path / CHECKPOINT).exists():
        run = folder.run()
        from .run_folder import load_model

        model = load_model(folder.path / CHECKPOINT)
    else:
        model = recipe.build_model()
    data, validation = recipe.load_data()

    class Checkpoint(keras.callbacks.Callback):
        """Writes the model, then the record of it: the record never runs ahead."""

        def on_epoch_end(self, epoch, logs=None):
            for name, value in (logs or {}).items():
                run.history.setdefault(name, []).append(float(value))
            run.epochs = epoch + 1
            folder.save_model(self.model, CHECKPOINT)
            folder.save_run(run)

    def left() -> str:
        if not run.epochs:
            return "no epoch was complete, so nothing was saved"
        return (f"{run.epochs} epochs are complete and saved in {folder.path / CHECKPOINT};"
                " go on with --resume")

    with interruptible(left), blame(recipe.path, "training failed"):
        model.fit(**arguments(data), validation_data=validation, epochs=epochs,
                  batch_size=batch_size if isinstance(data, tuple) else None,
                  initial_epoch=run.epochs, verbose=verbose,
                  callbacks=[*callbacks, Checkpoint()])
    folder.save_model(model, MODEL)
    folder.save_run(run)
    return run
