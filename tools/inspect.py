"""`tfn inspect`: the IR of a program at any stage, what a bundle offers, or what a model costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from rich.table import Table

from ..compiler.errors import TfnError
from .console import console, print_json

NAME = "inspect"


def command(
    path: Path = typer.Argument(None, help="A bundle, a StableHLO file, a run folder, a .keras file,"
                                " or a kernel's .ll file among the dumps of TFN_DUMP, which is run"
                                " alone."),
    stage: str = typer.Option(None, help="Show the IR after this pass; `parse` shows it as read,"
                              " `plan` the steps and the memory they use, `profile` how long each"
                              " takes on numbers made up, `list` what there is."),
    function: str = typer.Option(None, help="Which function or signature.  [default: all]"),
    batch: int = typer.Option(1, min=1, help="The batch size a .keras file's costs are for."),
    json: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """Look inside.

        tfn inspect exported/digits
        tfn inspect model.keras --batch 32
        tfn inspect exported/digits --stage fuse
        tfn inspect step.mlir --stage plan
        tfn inspect step.mlir --stage profile
        tfn inspect --stage list
        tfn inspect dumps/kernels/k07f1.ll
    """
    if stage == "list":
        _list_stages(json)
        return
    if path is None:
        raise TfnError("inspect needs a path: of a bundle, a StableHLO file, a run folder or a dumped"
                       " kernel")
    if path.suffix == ".ll":
        _kernel(path, json)
        return
    from .export import is_bundle

    if path.suffix == ".keras" and stage is None:
        _costs(path, batch, json)
        return
    if path.is_dir() and is_bundle(path):
        from ..export import read_bundle

        bundle = read_bundle(path)
        if stage is None:
            _signatures(bundle, json)
            return
        functions = {n: s.function for n, s in bundle.signatures.items()}
    elif path.is_dir() or path.suffix == ".keras":
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


def _costs(path: Path, batch: int, json: bool) -> None:
    from ..keras.explanation import costs
    from ..keras.loading import load

    found = costs(load(path, compile=False), batch)
    if json:
        print_json(found.to_dict())
    else:
        console.print(found)


def _list_stages(json: bool) -> None:
    from ..compiler.passes import PIPELINE

    stages = {"parse": "The program as it was read or traced."}
    for name, apply in PIPELINE:
        stages[name] = (apply.__doc__ or "").split("\n")[0]
    stages["plan"] = "Which kernel runs when, and where every value lives."
    stages["profile"] = "How long each kernel takes, on numbers made up."
    if json:
        print_json(stages)
        return
    table = Table("stage", "what it does")
    for name, text in stages.items():
        table.add_row(name, text)
    console.print(table)


def _kernel(file: Path, json: bool) -> None:
    from ..compiler.dump import run_kernel

    run = run_kernel(file)
    about: dict[str, Any] = {"name": run.name, "line": run.line, "ops": run.ops,
             "arguments": [f"{a.dtype}{list(a.shape)}" for a in run.arguments],
             "results": [f"{r.dtype}{list(r.shape)}" for r in run.results],
             "microseconds": run.seconds * 1e6, "error": run.error()}
    if json:
        print_json(about)
        return
    console.print(f"{run.name}, of {run.line or 'no line'}: {', '.join(run.ops)}")
    console.print(f"({', '.join(about['arguments'])}) -> ({', '.join(about['results'])})")
    console.print(f"{about['microseconds']:.1f} microseconds; largest difference from the evaluator,"
                  f" relative to the largest number: {about['error']:.3g}")


def _stage(function, stage: str) -> str:
    from ..compiler.codegen.target import Target
    from ..compiler.compile import run_passes
    from ..compiler.dump import plan_text
    from ..compiler.passes import PIPELINE
    from ..compiler.runtime.plan import make_plan

    names = [name for name, _ in PIPELINE]
    target = Target.host()
    if stage == "parse":
        return str(function)
    if stage == "plan":
        return plan_text(function.name, make_plan(run_passes(function, target), target))
    if stage == "profile":
        from ..compiler.profile import profile_function

        return profile_function(function).table()
    if stage not in names:
        raise TfnError(f"there is no stage `{stage}`; there are parse, {', '.join(names)}, plan,"
                       " profile")
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
