"""`tfn doctor`: what is installed, what is missing for which feature, and how to get it."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.table import Table

from .console import console, print_json

NAME = "doctor"


@dataclass(frozen=True)
class Need:
    """Something a feature needs."""

    feature: str
    what: str
    find: Callable[[], str | None]
    install: str


def _package(name: str) -> Callable[[], str | None]:
    def version() -> str | None:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return None

    return version


def _program(name: str) -> Callable[[], str | None]:
    return lambda: shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)


KERAS_HUB = "pip install 'tfn[hub]' && pip install --no-deps 'keras-hub==0.32.*'"
"""It asks for tensorflow-text, which it does not use here: hence without what it asks for."""

NEEDS = (
    Need("compile", "numpy", _package("numpy"), "pip install tfn"),
    Need("compile", "llvmlite", _package("llvmlite"), "pip install tfn"),
    Need("train", "keras", _package("keras"), "pip install tfn"),
    Need("export tflite", "flatbuffers", _package("flatbuffers"), "pip install tfn"),
    Need("serve", "fastapi", _package("fastapi"), "pip install tfn"),
    Need("serve", "uvicorn", _package("uvicorn"), "pip install tfn"),
    Need("check C++ exports", "g++", _program("g++"), "apt-get install g++"),
    Need("check TFLite exports", "ai-edge-litert", _package("ai-edge-litert"),
         "pip install 'tfn[export]'"),
    Need("models of keras-hub", "keras-hub", _package("keras-hub"), KERAS_HUB),
    Need("models of keras-hub", "sentencepiece", _package("sentencepiece"),
         "pip install 'tfn[hub]'"),
    Need("fit of keras-hub on strings", "grain", _package("grain"), "pip install 'tfn[hub]'"),
    Need("several ranks", "mpi4py", _package("mpi4py"), "pip install 'tfn[dist]'"),
    Need("several ranks", "mpiexec", _program("mpiexec"), "pip install 'tfn[dist]'"),
)


def command(json: bool = typer.Option(False, "--json", help="Print as JSON.")) -> None:
    """Say what is installed, what is missing for which feature, and how to install it."""
    from .. import __version__
    from ..compiler.codegen.target import Target
    from ..compiler.runtime.disk import directory

    rows = [{"feature": n.feature, "needs": n.what, "found": n.find(), "install": n.install}
            for n in NEEDS]
    host = Target.host()
    facts = {"tfn": __version__, "python": platform.python_version(), "target": str(host),
             "vector_bits": host.tile.bits, "kernel_cache": str(directory())}
    if json:
        print_json({**facts, "needs": rows})
        return
    for name, value in facts.items():
        console.print(f"[bold]{name}[/]: {value}")
    table = Table("feature", "needs", "found")
    for row in rows:
        table.add_row(row["feature"], row["needs"],
                      row["found"] or f"[yellow]missing:[/] {row['install']}")
    console.print(table)
