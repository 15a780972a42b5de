"""`tfn evaluate`: losses and metrics of a trained model on its recipe's validation data."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.table import Table

from .console import console, print_json
from .recipe import arguments, blame, load_recipe
from .run_folder import RunFolder

NAME = "evaluate"


def command(
    run: Path = typer.Argument(..., help="A run folder of `tfn train`."),
    recipe: Path = typer.Option(None, help="Take the data from another recipe."),
    batch_size: int = typer.Option(128, min=1, help="Examples in a step."),
    json: bool = typer.Option(False, "--json", help="Print the result as JSON."),
) -> None:
    """Evaluate a trained model.

        tfn evaluate runs/digits
    """
    result = evaluate(RunFolder(run), recipe, batch_size)
    if json:
        print_json(result)
        return
    table = Table("metric", "value")
    for name, value in result.items():
        table.add_row(name, f"{value:.4f}")
    console.print(table)


def evaluate(folder: RunFolder, recipe: Path | None = None, batch_size: int = 128):
    """Metric name -> value on the validation data. Raises `TfnError` subclasses."""
    loaded = load_recipe(recipe or folder.run().recipe)
    model = folder.load_model()
    _, validation = loaded.load_data()
    with blame(loaded.path, "evaluation failed"):
        result = model.evaluate(**arguments(validation), verbose=0, return_dict=True,
                                batch_size=batch_size if isinstance(validation, tuple) else None)
    return {name: float(value) for name, value in result.items()}
