"""From a Keras model to a bundle, and `model.export(path, format=...)` for tfn's formats."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..export import (
    FORMATS,
    Bundle,
    Report,
    Signature,
    TensorSpec,
    export,
    read_bundle,
    write_bundle,
)
from ..keras.export import trace_inference

SIGNATURE = "serving_default"


def bundle_of(model: Any, name: str, version: int = 1) -> Bundle:
    """The bundle of a Keras model's inference program, for any batch size."""
    import keras

    program = trace_inference(model, SIGNATURE)
    signature = Signature(
        SIGNATURE, program.function, tuple(TensorSpec(*s) for s in program.inputs),
        tuple(TensorSpec(*s) for s in program.outputs), tuple(program.weights))
    return Bundle(name, version, {SIGNATURE: signature}, program.weights,
                  {"keras": keras.__version__, "tfn": __version__})


def write_model(model: Any, folder: Path, name: str, version: int | None = None,
                overwrite: bool = False) -> Path:
    """Write a model to folder/NAME/VERSION, the next free version unless one is given."""
    if version is None:
        taken = [int(p.name) for p in (Path(folder) / name).glob("*") if p.name.isdigit()]
        version = max(taken, default=0) + 1
    return write_bundle(folder, bundle_of(model, name, version), overwrite)


def exporter(format: str) -> Callable[..., Any] | None:
    """What `model.export(path, format=format, **options)` does; None for a format that is not tfn's.

    A bundle is written to path/NAME/VERSION, which is the result. Any other format is written beside
    it, to path/FORMAT, and run in its real runtime where that is installed, on `samples` (input name ->
    array) or on made ones: the result is the `Report`. `name` is the model's unless it is given.
    """
    if format == "bundle":
        return _to_bundle
    return functools.partial(_to_format, format) if format in FORMATS else None


def _to_bundle(model: Any, path: str | os.PathLike, **options: Any) -> Path:
    return write_model(model, Path(path), options.pop("name", model.name), **options)


def _to_format(format: str, model: Any, path: str | os.PathLike,
               samples: Mapping[str, np.ndarray] | None = None, **options: Any) -> Report:
    folder = write_model(model, Path(path), options.pop("name", model.name))
    given = None if samples is None else {SIGNATURE: samples}
    return export(read_bundle(folder), (format,), path, given, **options)[0]
