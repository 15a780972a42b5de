"""`tfn inspect`: the IR of a program at any stage, or what a bundle offers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from rich.table import Table

from ..compiler.errors import TfnError
from .console import console, print_json

NAME = "inspect"


def command(
    path: Path = typer.Argument(..., help="A bundle, a StableHLO file, or a run folder."),
    stage: str = typer.Option(None, help="Show the IR after this pass; `parse` shows it as read,"
                              " `plan` the steps and the memory they use."),
    function: str = typer.Option(None, help="Which function or signature.  [default: all]"),
    json: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """Look inside.

        tfn inspect exported/digits
        tfn inspect exported/digits --stage fuse
        tfn inspect step.mlir --stage plan
    """
    from .export import is_bundle

    if path.is_dir() and is_bundle(path):
        from ..export import read_bundle

        bundle = read_bundle(path)
        if stage is None:
            _signatures(bundle, json)
            return
        functions = {n: s.function for n, s in bundle.signatures.items()}
    elif path.is_dir():
        from .exporters import bundle_of
        from .run_folder import open_model

        model, name = open_model(path)
        bundle = bundle_of(model, name)
        if stage is None:
            _signatures(bundle, json)
            return
        functions = {n: s.function for n, s in bundle.signatures.items()}
    else:
        from .compile import read_functions

        functions = read_functions(path)
    if function is not None and function not in functions:
        raise TfnError(f"{path} has no function `{function}`; it has {', '.join(functions)}")
    chosen = [functions[function]] if function else list(functions.values())
    texts = {f.name: _stage(f, stage or "parse") for f in chosen}
    if json:
        print_json(texts)
    else:
        for text in texts.values():
            print(text)


def _stage(function, stage: str) -> str:
    from ..compiler.codegen.target import Target
    from ..compiler.compile import run_passes
    from ..compiler.passes import PIPELINE
    from ..compiler.runtime.plan import make_plan

    names = [name for name, _ in PIPELINE]
    target = Target.host()
    if stage == "parse":
        return str(function)
    if stage == "plan":
        plan = make_plan(run_passes(function, target), target)
        lines = [f"{function.name}: {len(plan.steps)} steps, {len(plan.kernels())} kernels,"
                 f" arena of {plan.arena_bytes} bytes"]
        for step in plan.steps:
            what = step.kernel.name if step.kernel else (
                step.collective.name if step.collective else "copy")
            places = ", ".join(f"{p.base}{p.number}+{p.offset}" for p in step.places)
            lines.append(f"  {what}({places}) [{', '.join(map(str, step.extents))}]")
        return "\n".join(lines)
    if stage not in names:
        raise TfnError(f"there is no stage `{stage}`; there are parse, {', '.join(names)}, plan")
    return str(run_passes(function, target, until=stage))


def _signatures(bundle, json: bool) -> None:
    rows: dict[str, dict[str, Any]] = {name: {"inputs": {s.name: str(s.type) for s in signature.inputs},
                   "outputs": {s.name: str(s.type) for s in signature.outputs},
                   "ops": len(signature.function.ops)}
            for name, signature in bundle.signatures.items()}
    size = sum(w.nbytes for w in bundle.weights.values())
    if json:
        print_json({"name": bundle.name, "version": bundle.version, "signatures": rows,
                    "weights": {n: f"{w.dtype}{list(w.shape)}" for n, w in bundle.weights.items()},
                    "weight_bytes": size, "provenance": bundle.provenance})
        return
    console.print(f"{bundle.name}, version {bundle.version}: {len(bundle.weights)} weights,"
                  f" {size:,} bytes")
    table = Table("signature", "inputs", "outputs", "ops")
    for name, row in rows.items():
        table.add_row(name, "\n".join(f"{k}: {v}" for k, v in row["inputs"].items()),
                      "\n".join(f"{k}: {v}" for k, v in row["outputs"].items()), str(row["ops"]))
    console.print(table)
