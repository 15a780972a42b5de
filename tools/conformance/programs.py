"""One StableHLO test file: parse, verify, refine, round-trip, run, and what its checks said.

A file may hold several programs (`// -----`). Functions without arguments are run. Their constants
become arguments, so that the compiler has code to make instead of folding the test away. A file whose
checks did not all run has failed.
"""

from __future__ import annotations

import json
import traceback
from dataclasses import asdict, dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from ...compiler.compile import ENGINE, compile_function
from ...compiler.errors import TfnError, UnsupportedError
from ...compiler.ir.core import Block, Function, Module, Op
from ...compiler.ir.dims import Dim
from ...compiler.ir.dynamic import refine
from ...compiler.ir.evaluator import evaluate
from ...compiler.ir.parser import parse_module
from ...compiler.ir.printer import print_module
from ...compiler.ir.rewrite import Rewriter
from ...compiler.ir.verify import verify_module
from ...compiler.ops.check import Record, recording
from ...compiler.passes.inline import inline
from ...compiler.passes.quantized import lower_quantized

ENGINES = ("compiler", "evaluator")
_SIZES = (4, 8, 12, 3, 2, 1, 20)
"""Sizes tried for the `?` of a program without data."""
MAX_BYTES = 64 << 20
DISABLED = "upstream disabled"
"""The tier of files that upstream skips: their expectations are known to be inaccurate, or untried."""


@dataclass
class Result:
    """What became of a file: `status` is passed, failed, unsupported or error."""

    file: str
    status: str
    worst_ulp: float | None = None
    detail: str = ""
    group: str = ""
    tier: str = ""
    checks: int = 0
    """Checks that ran."""

    def row(self) -> dict[str, Any]:
        values = asdict(self)
        # JSON has no infinity.
        if self.worst_ulp is not None and not np.isfinite(self.worst_ulp):
            values["worst_ulp"] = None
        return values


@cache
def manifest(folder: Path) -> dict[str, dict]:
    """The rows of the `manifest.jsonl` in a folder by file; empty without one."""
    path = folder / "manifest.jsonl"
    if not path.is_file():
        return {}
    rows = (json.loads(line) for line in path.read_text().splitlines() if line.strip())
    return {row["file"]: row for row in rows}


def described(path: Path) -> tuple[str, str]:
    """Group and tier of a file: from the nearest manifest above it, else its name.

    What upstream's own interpreter skips is a tier of its own.
    """
    for folder in path.absolute().parents:
        row = manifest(folder).get(str(path.absolute().relative_to(folder)))
        if row is not None:
            disabled = row.get("upstream_disabled")
            return row.get("group", path.stem), DISABLED if disabled else row.get("tier", "")
    return path.stem.split("__")[0], ""


def run_file(path: Path, engine: str) -> Result:
    """Run one file; every failure becomes a result."""
    group, tier = described(path)
    result = Result(str(path), "passed", None, "", group, tier)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise TfnError(f"the file has more than {MAX_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
        for number, section in enumerate(sections(text)):
            _run_text(section, f"{path.name}#{number}" if number else path.name, engine, result)
            if result.status != "passed":
                break
    except UnsupportedError as error:
        result.status, result.detail = "unsupported", str(error)
    except (TfnError, OSError, UnicodeDecodeError) as error:
        result.status, result.detail = "error", str(error)
    except Exception as error:
        result.status = "error"
        frame = traceback.extract_tb(error.__traceback__)[-1]
        result.detail = (f"{type(error).__name__}: {error}"
                         f" ({Path(frame.filename).name}:{frame.lineno})")
    return result


def sections(text: str) -> list[str]:
    """The programs of a text: lines that begin with `// -----` stand between them."""
    parts = [""]
    for line in text.splitlines(keepends=True):
        if line.startswith("// -----"):
            parts.append("")
        else:
            parts[-1] += line
    return [p for p in parts if p.strip()]


def _run_text(text: str, name: str, engine: str, result: Result) -> None:
    module = verify_module(parse_module(text, name))
    _round_trip(module, name)
    entries = [f for f in module.functions.values() if f.public and not f.arguments]
    if "main" in module.functions and not module["main"].arguments:
        entries = [module["main"]]
    for function in module.functions.values():
        if function.arguments and function.public and _is_symbolic(function):
            _refine_somehow(function)
    ran = missed = 0
    for function in entries:
        written = _checks(inline(function))
        if not written:
            continue
        record = run(function, engine)
        ran += len(record.outcomes)
        missed += max(0, written - len(record.outcomes))
        for outcome in record.outcomes:
            result.worst_ulp = max(result.worst_ulp or 0.0, outcome.worst)
            if not outcome.holds and result.status == "passed":
                result.status, result.detail = "failed", outcome.detail
    result.checks += ran
    missed = max(missed, sum(map(_checks, module.functions.values())) - ran)
    if missed > 0 and result.status == "passed":
        result.status, result.detail = "failed", f"{missed} checks did not run"


def _round_trip(module: Module, name: str) -> None:
    printed = print_module(module)
    again = print_module(parse_module(printed, name))
    if printed != again:
        line = next(i for i, (a, b) in enumerate(
            zip(printed.splitlines(), again.splitlines(), strict=False)) if a != b)
        raise TfnError(f"print(parse(text)) is no fixed point: line {line + 1} of what is printed"
                       " reads back as another program")


def _is_symbolic(function: Function) -> bool:
    return any(isinstance(d, Dim) for t in function.argument_types for d in t.shape)


def _refine_somehow(function: Function) -> None:
    """Refine with one size for all `?`; integer scalars may be sizes (all, or the leading ones)."""
    failure: TfnError | None = None
    scalars = [i for i, t in enumerate(function.argument_types)
               if not t.shape and t.dtype.is_integer]
    leading = [i for n, i in enumerate(scalars) if i == n]
    for sizes, size in product((scalars, leading), _SIZES):
        types = [t.with_shape([size if isinstance(d, Dim) else d for d in t.shape])
                 for t in function.argument_types]
        try:
            refine(function, types, dict.fromkeys(sizes, size))
            return
        except TfnError as error:
            failure = failure or error
    assert failure is not None
    raise failure


def _is_check(op: Op) -> bool:
    called = op.attributes.get("call_target_name") if op.name == "stablehlo.custom_call" else op.name
    return str(called).startswith("check.")


def _checks(function: Function) -> int:
    """How many checks are written in a function."""
    return sum(map(_is_check, function.body.walk()))


def run(function: Function, engine: str) -> Record:
    """Run a function without arguments on an engine; the record of its checks."""
    flat, arrays = hoist_constants(lower_quantized(_kept(inline(refine(function, ())))))
    with recording(terms=accumulated(flat)) as record:
        ENGINE.name = engine
        if engine == "evaluator":
            evaluate(flat, arrays)
        else:
            compile_function(flat)(*arrays)
    return record


def _kept(function: Function) -> Function:
    """The function with an effect for every check: a call that returns an i1 nobody uses is none."""
    for op in function.body.walk():
        if op.name == "stablehlo.custom_call" and _is_check(op):
            op.attributes["has_side_effect"] = True
    return function


def hoist_constants(function: Function) -> tuple[Function, list[np.ndarray]]:
    """The function with its top-level constants as arguments, and their values."""
    rewriter = Rewriter(function)
    rewriter.block = Block()
    arrays = []
    for op in function.ops:
        if op.name == "stablehlo.constant":
            arrays.append(np.array(op.attributes["value"], order="C"))
            rewriter.values[op.result] = rewriter.block.add_argument(op.result.type)
        else:
            rewriter.copy(op)
    hoisted = rewriter.finish()
    return Function(function.name, hoisted.body), arrays


def accumulated(function: Function) -> int:
    """The most terms any op of the program adds up: the order is open in StableHLO."""
    most = 1
    for op in function.body.walk():
        most = max(most, _terms(op))
    return most


def _terms(op: Op) -> int:
    def count(extents) -> int:
        return int(np.prod([e for e in extents if isinstance(e, int)] or [1]))

    first = op.operands[0].shape if op.operands else ()
    match op.name:
        case "stablehlo.dot_general":
            dims = op.attributes["dot_dimension_numbers"].lhs_contracting_dimensions
            return count(first[d] for d in dims)
        case "stablehlo.convolution":
            kernel = op.operands[1].shape
            return count(kernel) // max(1, int(
                kernel[op.attributes["dimension_numbers"].kernel_output_feature_dimension]))
        case "stablehlo.reduce":
            return count(first[d] for d in op.attributes["dimensions"])
        case "stablehlo.reduce_window":
            return count(op.attributes["window_dimensions"])
        case "stablehlo.scatter":
            # Every index may be the same; the elements of a window are not.
            indices = op.operands[len(op.results)].shape
            vector = op.attributes["scatter_dimension_numbers"].index_vector_dim
            return count(e for d, e in enumerate(indices) if d != vector)
        case "stablehlo.select_and_scatter":
            return count(op.operands[1].shape)
        case "stablehlo.triangular_solve" | "stablehlo.cholesky":
            return count(first[-1:])
        case "stablehlo.fft":
            return count(op.attributes["fft_length"])
    return 1
