"""`tfn compile`: a StableHLO file to an object file for a named target."""

from __future__ import annotations

from pathlib import Path

import typer

from ..compiler.errors import TfnError
from .console import console, print_json

NAME = "compile"


def command(
    file: Path = typer.Argument(..., help="StableHLO text (.mlir)."),
    target: str = typer.Option("host", help="host, x86-64, x86-64-v3, aarch64 or an LLVM triple."),
    out: Path = typer.Option(None, help="Object file.  [default: FILE.o]"),
    function: str = typer.Option(None, help="Only this function.  [default: every public one]"),
    json: bool = typer.Option(False, "--json", help="Print what was made as JSON."),
) -> None:
    """Compile StableHLO ahead of time.

    Each public function becomes a C symbol `void f(const int64_t *dims, void **arguments, void
    **results, void *arena)` without any runtime.

        tfn compile step.mlir --target aarch64 --out step.o
    """
    from ..compiler.codegen.aot import emit_object
    from ..compiler.codegen.target import Target

    functions = read_functions(file, function)
    compiled = emit_object(functions, Target.named(target))
    path = out or file.with_suffix(".o")
    path.write_bytes(compiled.image)
    entries = [{"symbol": e.symbol, "arguments": [str(t) for t in e.arguments],
                "results": [str(t) for t in e.results], "dims": list(e.dims),
                "arena_bytes": str(e.arena_bytes)} for e in compiled.entries.values()]
    if json:
        print_json({"object": str(path), "bytes": len(compiled.image), "target": str(compiled.target),
                    "kernels": compiled.kernels, "entries": entries})
        return
    console.print(f"{path}: {len(compiled.image)} bytes for {compiled.target},"
                  f" {compiled.kernels} kernels")
    for entry in entries:
        console.print(f"  {entry['symbol']}({', '.join(entry['arguments'])})"
                      f" -> {', '.join(entry['results'])}; arena {entry['arena_bytes']} bytes")


def read_functions(file: Path, name: str | None = None) -> dict:
    """The public functions of a StableHLO file by name. Raises `TfnError` subclasses."""
    from ..compiler.ir.dynamic import refine
    from ..compiler.ir.parser import parse_module

    if not file.is_file():
        raise TfnError(f"there is no file {file}")
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise TfnError(f"{file} is not text: byte {error.start} is not UTF-8; give StableHLO text,"
                       " not bytecode") from None
    module = parse_module(text, str(file))
    if name is not None and name not in module.functions:
        raise TfnError(f"{file} has no function `{name}`; it has {', '.join(module.functions)}")
    return {f.name: refine(f, f.argument_types) for f in module.functions.values()
            if (f.public if name is None else f.name == name)}
