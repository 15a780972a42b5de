"""`python -m tfn.tools.conformance printed PATH...`: does JAX's parser read what tfn prints?"""

from __future__ import annotations

import json as jsonlib
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import typer
from rich.table import Table

from ...compiler.errors import TfnError, UnsupportedError
from ...compiler.ir.parser import parse_module
from ...compiler.ir.printer import print_module
from ..console import console
from .programs import described, sections

_TEST_DIALECTS = ("check", "interpreter")
"""Dialects of StableHLO's test programs, which JAX does not have."""
STATUSES = ("accepted", "refused", "changed", "unsupported", "error")


def command(
    paths: list[Path] = typer.Argument(..., help="Files (.mlir) or folders of them."),
    python: str = typer.Option(None, envvar="TFN_JAX_PYTHON", help="A Python with jax."),
    json: Path = typer.Option(None, "--json", help="Write the results to this file."),
) -> None:
    """Print every program, and let JAX parse and verify the text.

    A file is accepted when each of its programs prints to text that reads back as itself (else it is
    "changed") and that JAX's own parser takes (else "refused"). The exit code is 1 when a file is not
    accepted. JAX's parser knows no quantized types: leave those files out.
    """
    if python is None:
        raise typer.BadParameter("give the Python that has JAX: --python, or set TFN_JAX_PYTHON")
    missing = next((p for p in paths if not p.exists()), None)
    if missing is not None:
        raise typer.BadParameter(f"there is no {missing}")
    files = sorted({f for p in paths for f in (p.rglob("*.mlir") if p.is_dir() else [p])})
    results = check(files, python)
    if json is not None:
        rows = [{"file": str(f), "status": s, "detail": d} for f, (s, d) in results.items()]
        json.write_text(jsonlib.dumps({"results": rows}, indent=1) + "\n")
    report(results)
    raise typer.Exit(0 if all(s == "accepted" for s, _ in results.values()) else 1)


def check(files: Sequence[Path], python: str) -> dict[Path, tuple[str, str]]:
    """Status and detail of each file."""
    results: dict[Path, tuple[str, str]] = {}
    with tempfile.TemporaryDirectory(prefix="tfn-printed-") as folder:
        texts: list[tuple[Path, Path]] = []
        for file in files:
            results[file] = ("accepted", "")
            try:
                for number, section in enumerate(sections(file.read_text(encoding="utf-8"))):
                    text = _fixed_point(section, file.name)
                    path = Path(folder, f"{len(texts)}.{number}.mlir")
                    path.write_text(text)
                    texts.append((file, path))
            except UnsupportedError as error:
                results[file] = ("unsupported", str(error))
            except (TfnError, OSError) as error:
                results[file] = ("error", str(error))
            except ValueError as error:
                results[file] = ("changed", str(error))
        for (file, _), refusal in zip(texts, _refusals([p for _, p in texts], python), strict=True):
            if refusal is not None and results[file][0] == "accepted":
                results[file] = ("refused", refusal.strip())
    return results


def _fixed_point(text: str, name: str) -> str:
    """What is printed of `text`, without the ops that belong to the test and not to the program."""
    module = parse_module(text, name)
    printed = print_module(module)
    again = print_module(parse_module(printed, name))
    for number, (a, b) in enumerate(zip(printed.splitlines(), again.splitlines(), strict=False), 1):
        if a != b:
            raise ValueError(f"line {number} of what is printed reads back as another: {a.strip()}")
    if printed != again:
        raise ValueError("what is printed reads back as a program of another length")
    for function in list(module.functions.values()):
        block = function.body
        dropped = {op for op in block.ops if op.name.partition(".")[0] in _TEST_DIALECTS}
        block.ops = [op for op in block.ops if op not in dropped]
        if any(v.op in dropped for v in block.returns):
            del module.functions[function.name]
    return print_module(module)


def _refusals(paths: Sequence[Path], python: str) -> list[str | None]:
    """What JAX says against each text; None when it takes it."""
    script = Path(__file__).with_name("jax_text.py")
    done = subprocess.run([python, "-P", str(script), "parse"], text=True, capture_output=True,
                          input="".join(f"{p}\n" for p in paths))
    lines = [jsonlib.loads(line) for line in done.stdout.splitlines()]
    if len(lines) != len(paths):
        last = done.stderr.strip().splitlines()[-1:]
        raise RuntimeError(f"{python} ended at program {len(lines)} of {len(paths)}: {''.join(last)}")
    return lines


def report(results: dict[Path, tuple[str, str]]) -> None:
    """A table per tier, and what was not accepted."""
    counts: dict[str, Counter] = {}
    for file, (status, _) in results.items():
        counts.setdefault(described(file)[1] or "-", Counter())[status] += 1
    table = Table("tier", "files", *STATUSES)
    for tier in sorted(counts):
        row = counts[tier]
        table.add_row(tier, str(sum(row.values())), *(str(row[s] or "") for s in STATUSES))
    console.print(table)
    for file, (status, detail) in results.items():
        if status != "accepted":
            console.print(f"{status}: {file}: {detail}", soft_wrap=True, markup=False)
