"""What an export is worth: `report.json` beside the exported files.

It says what was written, in which runtime it was run, how far its numbers are from the bundle's,
and, where it was not run, why not and how to make that possible.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .bundle import Bundle, Signature

REPORT = "report.json"

REL_ERROR = "largest max|a - b| / max|b| of any output; a: this format, b: the bundle run by tfn"
"""The definition of `max_rel_error`, written into every report."""


@dataclass(frozen=True)
class Check:
    """The outcome of running an export in its real runtime."""

    runtime: str
    version: str
    samples: int
    max_abs_error: float
    max_rel_error: float
    batches: tuple[int, ...] = ()


@dataclass(frozen=True)
class Report:
    """One export. `check` is None when it was not run; then `reason` says why."""

    format: str
    bundle: str
    files: Mapping[str, int]
    """File name -> bytes."""
    check: Check | None = None
    reason: str | None = None
    install: str | None = None
    """The command that makes the check possible."""
    folder: Path = field(default=Path("."), compare=False)

    @property
    def ok(self) -> bool:
        """False when a check was made and its numbers are off."""
        return self.check is None or self.check.max_rel_error <= TOLERANCE

    def as_json(self) -> dict[str, Any]:
        """The contents of report.json."""
        row: dict[str, Any] = {"format": self.format, "bundle": self.bundle,
                               "files": dict(self.files), "bytes": sum(self.files.values()),
                               "checked": self.check is not None}
        if self.check is None:
            return {**row, "reason": self.reason, "install": self.install}
        found = asdict(self.check)
        return {**row, "ok": self.ok, "tolerance": TOLERANCE,
                "runtime": {"name": found.pop("runtime"), "version": found.pop("version")},
                **found, "batches": list(self.check.batches), "max_rel_error_is": REL_ERROR}

    def write(self) -> Path:
        """Write report.json into the export's folder."""
        file = self.folder / REPORT
        file.write_text(json.dumps(self.as_json(), indent=2, sort_keys=True) + "\n")
        return file


BATCHES = (1, 7, 100)
"""Batch sizes an export is checked with."""

TOLERANCE = 1e-5
"""A larger `max_rel_error` of a float32 export is a defect."""


def errors(actual: Mapping[str, np.ndarray],
           expected: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """Largest absolute and relative error over outputs (see `REL_ERROR`).

    NaN against NaN and equal infinities are no error; any other difference with them is infinite,
    as is a missing output or a wrong shape.
    """
    absolute = relative = 0.0
    for name, right in expected.items():
        got = np.asarray(actual.get(name, np.zeros(0)), np.float64)
        want = np.asarray(right, np.float64)
        if got.shape != want.shape:
            return float("inf"), float("inf")
        same = (got == want) | (np.isnan(got) & np.isnan(want))
        if same.all():
            continue
        with np.errstate(invalid="ignore"):
            gap = np.where(same, 0, np.abs(got - want))
        worst = float(np.where(np.isnan(gap), np.inf, gap).max())
        finite = np.abs(want[np.isfinite(want)])
        scale = float(finite.max()) if finite.size else 0.0
        absolute = max(absolute, worst)
        relative = max(relative, worst / scale if scale else float("inf"))
    return absolute, relative


Samples = Mapping[str, Mapping[str, np.ndarray]]
"""Signature -> input -> array."""


def make_samples(bundle: Bundle, count: int, seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    """Inputs for every signature: normal floats, integers and booleans of 0 and 1.

    Symbolic dims are `count`.
    """
    rng = np.random.default_rng(seed)
    return {name: _inputs(signature, count, rng)
            for name, signature in sorted(bundle.signatures.items())}


def _inputs(signature: Signature, count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    inputs = {}
    for spec in signature.inputs:
        shape = [d if isinstance(d, int) else d.evaluate(dict.fromkeys(d.names, count))
                 for d in spec.shape]
        values = rng.normal(size=shape) if spec.dtype.is_float else rng.integers(0, 2, shape)
        inputs[spec.name] = values.astype(spec.dtype.numpy)
    return inputs


def take_samples(bundle: Bundle, samples: Samples | None, count: int) -> Samples:
    """The first `count` given samples, or made ones; fixed shapes are kept."""
    if samples is None:
        return make_samples(bundle, count)
    chosen = {}
    for name, signature in bundle.signatures.items():
        if name in samples:
            chosen[name] = {s.name: samples[name][s.name][:count]
                            if s.shape and not isinstance(s.shape[0], int)
                            else samples[name][s.name] for s in signature.inputs}
    return chosen
