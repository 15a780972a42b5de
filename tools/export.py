"""`tfn export`: a trained model to a bundle, and from it to other formats, each one checked."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.table import Table

from .console import console, print_json

NAME = "export"


def command(
    run: Path = typer.Argument(..., help="A run folder, a .keras file, or a bundle."),
    format: str = typer.Option("cpp,tflite", help="Formats, separated by commas; `bundle` alone"
                               " writes only the bundle."),
    out: Path = typer.Option(Path("exported"), help="Folder to write to."),
    name: str = typer.Option(None, help="Name of the bundle.  [default: the recipe's]"),
    version: int = typer.Option(None, min=1, help="Version of the bundle.  [default: the next]"),
    target: str = typer.Option(None, help="What machine code is for: host, x86-64-v3, aarch64, or"
                               " an LLVM triple."),
    json: bool = typer.Option(False, "--json", help="Print the reports as JSON."),
) -> None:
    """Export a model.

    Writes OUT/NAME/VERSION (the bundle) and OUT/FORMAT, and runs every format in its own runtime
    when that is installed.

        tfn export runs/digits --format cpp,tflite --out exported
    """
    from ..export import export, read_bundle
    from .exporters import write_model
    from .run_folder import open_model

    if is_bundle(run):
        folder = run
    else:
        model, known = open_model(run)
        folder = write_model(model, out, name or known, version)
    formats = [f.strip() for f in format.split(",") if f.strip() and f.strip() != "bundle"]
    reports = export(read_bundle(folder), formats, out, target=target) if formats else []
    if json:
        print_json({"bundle": str(folder), "reports": [r.as_json() for r in reports]})
    else:
        console.print(f"bundle: {folder}")
        _show(reports)
    if not all(r.ok for r in reports):
        raise typer.Exit(1)


def is_bundle(path: Path) -> bool:
    """Is this a bundle's version folder, or a folder of versions?"""
    return (path / "bundle.json").exists() or any(path.glob("[1-9]*/bundle.json"))


def _show(reports) -> None:
    if not reports:
        return
    table = Table("format", "bytes", "checked in", "max relative error", "result")
    for report in reports:
        size = str(sum(report.files.values()))
        if report.check is None:
            hint = f"; {report.install}" if report.install else ""
            table.add_row(report.format, size, "-", "-", f"not checked: {report.reason}{hint}")
        else:
            check = report.check
            table.add_row(report.format, size, f"{check.runtime} {check.version}",
                          f"{check.max_rel_error:.1e}", "ok" if report.ok else "off")
    console.print(table)
