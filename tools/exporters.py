"""From a Keras model to a bundle, and `model.export(path, format=...)` for tfn's formats."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import __version__
from ..export import FORMATS, Bundle, Signature, TensorSpec, export, read_bundle, write_bundle
from ..keras.export import EXPORTERS, trace_inference, wrap_model_export

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


def install() -> None:
    """Teach `keras.Model.export` the formats `bundle` and those of `tfn.export`."""
    import keras

    if "bundle" in EXPORTERS:
        return

    def to_bundle(model, path, **options):
        return write_model(model, Path(path), options.pop("name", model.name), **options)

    def to_format(format: str) -> Callable[..., Any]:
        def write(model, path, samples=None, **options):
            folder = write_model(model, Path(path), options.pop("name", model.name))
            return export(read_bundle(folder), (format,), path, samples, **options)[0]

        return write

    EXPORTERS["bundle"] = to_bundle
    for format in FORMATS:
        EXPORTERS[format] = to_format(format)
    wrap_model_export(keras.Model)
