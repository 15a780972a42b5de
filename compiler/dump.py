"""Dumps: what `TFN_DUMP=folder` writes about every program, and running a kernel from one.

    folder/NAME.N/0.trace.mlir, 1.inline.mlir, ...   the program before and after every pass
    folder/NAME.N/plan.txt                           steps, and the memory each of them uses
    folder/kernels/K.ll, K.mlir, K.json              a kernel: its code, its meaning, one call of it

A kernel runs alone: `run_kernel` (or `tfn inspect K.ll`) compiles the `.ll` file, which may have been
edited, calls it on numbers it makes up, and compares with what the evaluator computes from the
`.mlir` file. Symbolic dims are written with a small size.
"""

from __future__ import annotations

import ctypes
import json
import os
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .codegen.kernel import Kernel, emit_kernel
from .codegen.native import Loader, compile_object
from .codegen.target import Target
from .codegen.update import updated
from .errors import TfnError
from .ir.core import Function, Op
from .ir.dims import Extent
from .ir.dtypes import as_dtype
from .ir.rewrite import substitute_function

if TYPE_CHECKING:
    from .runtime.plan import Plan

_SIZE = 6
"""What a symbolic dim is in a dump."""

_FOLDERS: weakref.WeakKeyDictionary[Function, Path] = weakref.WeakKeyDictionary()
"""The folder of a program, by its form after the last pass."""


class Stages:
    """Writes the stages of one program; does nothing unless `TFN_DUMP` is set."""

    def __init__(self, function: Function):
        root = os.environ.get("TFN_DUMP")
        self.folder = _new_folder(Path(root), function.name) if root else None
        self.count = 0

    def write(self, name: str, function: Function) -> None:
        if self.folder is not None:
            (self.folder / f"{self.count}.{name}.mlir").write_text(str(function))
            self.count += 1
            _FOLDERS[function] = self.folder


def _new_folder(root: Path, name: str) -> Path:
    """`root/name.N` for the first N no program has, whichever process it is of."""
    root.mkdir(parents=True, exist_ok=True)
    number = sum(1 for _ in root.glob(f"{name}.*"))
    while True:
        try:
            (root / f"{name}.{number}").mkdir()
        except FileExistsError:
            number += 1
            continue
        return root / f"{name}.{number}"


def plan_text(name: str, plan: Plan) -> str:
    """The steps of a plan, a line each."""
    lines = [f"{name}: {len(plan.steps)} steps, {len(plan.kernels())} kernels,"
             f" arena of {plan.arena_bytes} bytes"]
    for number, step in enumerate(plan.steps):
        if step.jump is not None:
            condition = f" unless it is {step.jump.unless}" if step.jump.width else ""
            what = f"jump to {step.jump.target}{condition}: "
        else:
            op = step.collective or step.host
            what = step.kernel.name if step.kernel else op.name if op else "copy"
        places = ", ".join(f"{p.base}{p.number}+{p.offset}" for p in step.places)
        lines.append(f"  {number}. {what}({places}) [{', '.join(map(str, step.extents))}]")
    return "\n".join(lines)


def write_plan(function: Function, plan: Plan, target: Target) -> None:
    """The plan and the kernels of a fused function whose stages were written."""
    folder = _FOLDERS.get(function)
    if folder is None:
        return
    (folder / "plan.txt").write_text(plan_text(function.name, plan) + "\n")
    kernels = folder.parent / "kernels"
    kernels.mkdir(exist_ok=True)
    for op in function.body.walk():
        if op.name == "tfn.kernel":
            _write_kernel(kernels, op, emit_kernel(op, target), target)


def _write_kernel(folder: Path, op: Op, kernel: Kernel, target: Target) -> None:
    sizes = dict.fromkeys(
        (n for v in (*op.operands, *op.results) for d in v.shape if not isinstance(d, int)
         for n in d.names), _SIZE)
    body = substitute_function(Function(kernel.name, op.regions[0]), sizes)
    call = {
        "name": kernel.name,
        "line": str(op.location) if op.location else None,
        "ops": [inner.name for inner in body.ops],
        "target": [target.triple, target.cpu, target.features],
        "extents": [_value(e, sizes) for e in kernel.extents],
        "scalars": [[float(value), dtype.name] for value, dtype in kernel.scalars],
        "scratch_bytes": [_value(size, sizes) for size in (kernel.scratch_bytes, kernel.lane_bytes)
                          if size != 0],
        "updates": updated(op),
        "phases": [{"tasks": work.tasks(sizes)} for work in kernel.phases],
    }
    for suffix, text in ((".mlir", str(body)), (".json", json.dumps(call, indent=1)),
                         (".ll", kernel.text)):
        (folder / f"{kernel.name}{suffix}").write_text(text)


def _value(extent: Extent, sizes: dict[str, int]) -> int:
    return extent if isinstance(extent, int) else extent.evaluate(sizes)


@dataclass(frozen=True)
class KernelRun:
    """One kernel run alone."""

    name: str
    line: str | None
    """The user's line its last op belongs to."""
    ops: list[str]
    arguments: list[np.ndarray]
    results: list[np.ndarray]
    expected: list[np.ndarray]
    """What the evaluator computes."""
    seconds: float
    """Of the fastest of several calls."""

    def error(self) -> float:
        """The largest difference from what is expected, relative to the largest number expected."""
        worst = 0.0
        for found, right in zip(self.results, self.expected, strict=True):
            a, b = (x.astype(np.float64) for x in (found, right))
            same = (a == b) | (np.isnan(a) & np.isnan(b))
            with np.errstate(invalid="ignore"):
                apart = np.where(same, 0, np.abs(a - b))
            finite = np.abs(b[np.isfinite(b)])
            scale = float(finite.max(initial=0)) or 1.0
            worst = max(worst, float(np.nan_to_num(apart, nan=np.inf).max(initial=0)) / scale)
        return worst


def run_kernel(file: str | os.PathLike, arguments: Sequence[np.ndarray] | None = None,
               repeat: int = 10) -> KernelRun:
    """Run a dumped kernel (its `.ll` file) alone, on `arguments` or on numbers made up.

    Raises `TfnError` when files are missing or the kernel was made for another machine, and
    `CompileError` when LLVM rejects the text.
    """
    from .compile import scalar_words
    from .ir.evaluator import evaluate
    from .ir.parser import parse_module
    from .runtime.memory import allocate

    path = Path(file)
    for needed in (path, path.with_suffix(".json"), path.with_suffix(".mlir")):
        if not needed.is_file():
            raise TfnError(f"there is no file {needed}: a dumped kernel is a .ll, a .json and a .mlir"
                           " file of one name")
    call = json.loads(path.with_suffix(".json").read_text())
    *made_for, features = call["target"]
    here = Target.host()
    # Code for other processes does without features that a process has to ask for.
    needed_here = {f for f in features.split(",") if f.startswith("+")}
    if made_for != [here.triple, here.cpu] or not needed_here <= {*here.features.split(",")}:
        raise TfnError(f"{path} was made for {' '.join(call['target'][:2])}, not for this machine")
    function = parse_module(path.with_suffix(".mlir").read_text(), str(path))[call["name"]]
    arguments = [_made_up(t, i) for i, t in enumerate(function.argument_types)] \
        if arguments is None else list(arguments)
    inputs = []
    for given, type in zip(arguments, function.argument_types, strict=True):
        aligned = allocate(type.shape, type.dtype.numpy)  # type: ignore[arg-type]
        aligned[...] = given
        inputs.append(aligned)
    results = [allocate(t.shape, t.dtype.numpy) for t in function.result_types]  # type: ignore[arg-type]
    buffers = [*inputs, *results]
    buffers += [allocate((size,), np.dtype(np.uint8)) for size in call["scratch_bytes"]]
    run = _entry(call["name"], path.read_text())
    pointers = np.array([b.ctypes.data for b in buffers], np.int64)
    extents = np.array(call["extents"] or [0], np.int64)
    words = scalar_words([(value, as_dtype(dtype)) for value, dtype in call["scalars"]])
    scalars = words if words is not None else np.zeros(1, np.int64)
    fastest = float("inf")
    for _ in range(max(repeat, 1)):
        if call["updates"] is not None:
            results[0][...] = inputs[call["updates"]]
        start = time.perf_counter()
        for phase, work in enumerate(call["phases"]):
            run(pointers.ctypes.data, extents.ctypes.data, scalars.ctypes.data, 0, work["tasks"], 0,
                phase)
        fastest = min(fastest, time.perf_counter() - start)
    return KernelRun(call["name"], call["line"], call["ops"], inputs, results,
                     evaluate(function, inputs), fastest)


def _made_up(type: Any, seed: int) -> np.ndarray:
    """Numbers that most ops like: floats from 0.5 to 1.5, small integers, booleans of both kinds."""
    generator = np.random.default_rng(seed)
    if type.dtype.kind == "bool":
        return generator.random(type.shape) < 0.5
    if type.dtype.is_integer:
        return generator.integers(0, 2, type.shape).astype(type.dtype.numpy)
    return (generator.random(type.shape) + 0.5).astype(type.dtype.numpy)


def _entry(name: str, text: str) -> Any:
    signature = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3, *[ctypes.c_int64] * 4)
    address = _LOADER.load(name, compile_object(text, Target.host()))
    return signature(address)


_LOADER = Loader()
