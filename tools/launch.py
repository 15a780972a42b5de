"""`tfn launch`: a script on several MPI ranks."""

from __future__ import annotations

from pathlib import Path

import typer

NAME = "launch"


def command(
    script: Path = typer.Argument(..., help="A Python script."),
    arguments: list[str] = typer.Argument(None, help="Its arguments; put `--` before options."),
    n: int = typer.Option(2, "-n", min=1, help="Number of ranks (processes)."),
) -> None:
    """Run a script on N ranks, and refuse to run it on any other number.

        tfn launch -n 2 examples/digits_parallel.py
    """
    from ..compiler.errors import TfnError
    from ..distributed.launch import launch

    if not script.is_file():
        raise TfnError(f"there is no script {script}")
    code = launch(n, script, arguments or [])
    if code:
        raise typer.Exit(code)
