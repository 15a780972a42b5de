"""The formats tfn exports to, one row each, and `export`, which writes, checks and reports them."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..compiler.codegen.target import Target
from ..compiler.errors import TfnError
from .bundle import Bundle, read_bundle
from .cpp import check_cpp, runs_here, write_cpp
from .report import REPORT, Check, Report, Samples
from .tflite import check_tflite, write_tflite


class ExportError(TfnError, ValueError):
    """An export that was asked for in a way that cannot work."""


@dataclass(frozen=True)
class Format:
    """How to write one format, how to check it, and what the check needs."""

    name: str
    title: str
    write: Callable[..., list[Path]]
    check: Callable[..., Check]
    runtime: str
    """What the check runs in."""
    is_installed: Callable[[], bool]
    install: str
    """The command that installs the runtime."""
    takes_target: bool = False
    """Whether `write` has a `target`: machine code."""


FORMATS: dict[str, Format] = {row.name: row for row in (
    Format("cpp", "C++: object file and header", write_cpp, check_cpp, "g++",
           lambda: shutil.which("g++") is not None, "apt-get install g++", takes_target=True),
    Format("tflite", "TensorFlow Lite, float32", write_tflite, check_tflite, "LiteRT",
           lambda: importlib.util.find_spec("ai_edge_litert") is not None,
           "pip install 'tfn[export]'"),
)}
"""Name -> format."""


def export(bundle: Bundle | str | os.PathLike, formats: Sequence[str] = tuple(FORMATS),
           out: str | os.PathLike = "export", samples: Samples | None = None,
           target: str | None = None, engine: str = "compiler") -> list[Report]:
    """Write `bundle` (or the one at that path) to out/FORMAT/ in each of `formats`.

    Every export is run in its real runtime when that is installed, on `samples` (signature ->
    input -> array with leading batch dim; made ones without), and gets a report.json. `target` is
    what machine code is for (a name or triple); `engine` runs the bundle in comparisons. Raises
    `ExportError` for an unknown format and `UnsupportedError` for a model it cannot hold; formats
    written before that stay.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise ExportError(f"there is no export format {unknown[0]!r}; there are"
                          f" {', '.join(FORMATS)}")
    if not isinstance(bundle, Bundle):
        bundle = read_bundle(bundle)
    return [_export(bundle, FORMATS[name], Path(out) / name, samples, target, engine)
            for name in formats]


def _export(bundle: Bundle, format: Format, folder: Path, samples: Samples | None,
            target: str | None, engine: str) -> Report:
    folder.mkdir(parents=True, exist_ok=True)
    # A report of an earlier export must not vouch for files that this one fails to write.
    (folder / REPORT).unlink(missing_ok=True)
    options = {"target": target} if format.takes_target else {}
    files = format.write(bundle, folder, **options)
    check, reason, install = None, None, None
    if options and target is not None and not runs_here(Target.named(target)):
        reason = f"this machine cannot run code for {target}"
    elif format.is_installed():
        try:
            check = format.check(bundle, files, samples, engine)
        except ImportError as error:
            reason, install = f"{format.runtime} cannot be loaded ({error})", format.install
    else:
        reason, install = f"{format.runtime} is not installed", format.install
    report = Report(format.name, f"{bundle.name}/{bundle.version}",
                    {file.name: file.stat().st_size for file in files}, check, reason, install,
                    folder)
    report.write()
    return report
