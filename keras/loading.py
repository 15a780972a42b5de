"""Reading a `.keras` file that may come from anywhere: checked before Keras opens it.

Keras in safe mode runs no code of a file. What is left is what a file may ask for: to be written
elsewhere, to be blown up, to take all memory for weights it does not hold. Each is refused here.
"""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

from ..compiler.errors import TfnError

_CONFIG, _WEIGHTS = "config.json", ("model.weights.h5", "model.weights.npz")
_RATIO, _SPARE = 100, 64 << 20
"""A file may grow so many times when it is unpacked, and by so many bytes. Keras does not compress."""
_COPIES = 4
"""What a model may take besides: a copy of the weights in a wider dtype, an optimizer's two."""
_SAID = 400


class KerasFileError(TfnError, ValueError):
    """A `.keras` file that holds no model, or that is not safe to load."""


def load(file: str | os.PathLike, compile: bool = True) -> Any:
    """The model in a `.keras` file, by Keras's safe mode; without its optimizer unless `compile`.

    Raises `KerasFileError` that says what is wrong with the file, and `FileNotFoundError`.
    """
    path = Path(file)
    stored = _checked(path)

    import keras

    from .backend.variable import memory_limit

    limit = _COPIES * stored + _SPARE
    try:
        with memory_limit(limit):
            return keras.models.load_model(path, compile=compile, safe_mode=True)
    except Exception as error:
        # Keras puts the whole config around the reason.
        said = " ".join(str(error).split()) or type(error).__name__
        said = said.rpartition("Exception encountered: ")[2].partition(" Full object config:")[0]
        said = said if len(said) <= _SAID else said[:_SAID] + "..."
        raise KerasFileError(f"{path} cannot be loaded as a Keras model: {said}") from error


def _checked(path: Path) -> int:
    """The bytes of the weights in a file that is safe to open."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check_entries(path, entries)
            sizes = {entry.filename: entry.file_size for entry in entries}
            if _CONFIG not in sizes:
                raise KerasFileError(f"{path} has no {_CONFIG}: it is a zip archive, but no model that"
                                     " Keras saved")
            _check_config(path, archive.read(_CONFIG))
            archive.testzip()
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError,
            RuntimeError) as error:
        raise KerasFileError(f"{path} cannot be loaded: it is no .keras file, or only a part of one:"
                             f" {error}") from None
    stored = [sizes[name] for name in _WEIGHTS if name in sizes]
    if not stored:
        raise KerasFileError(f"{path} has no weights ({' or '.join(_WEIGHTS)})")
    return max(stored)


def _check_entries(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    for entry in entries:
        # As stored: ZipInfo cleans what it shows.
        name = entry.orig_filename.replace("\\", "/")
        if name.startswith("/") or ":" in name.split("/")[0] or ".." in PurePosixPath(name).parts:
            raise KerasFileError(f"{path} is not safe to open: its entry {entry.orig_filename!r} would"
                                 " be written outside of its folder")
    size, whole = path.stat().st_size, sum(entry.file_size for entry in entries)
    if whole > _RATIO * size + _SPARE:
        raise KerasFileError(f"{path} is not safe to open: its {size:,} bytes become {whole:,} when"
                             " they are unpacked")


def _check_config(path: Path, text: bytes) -> None:
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise KerasFileError(f"{path}: its {_CONFIG} is damaged: {error}") from None
    if not isinstance(config, dict) or "class_name" not in config:
        raise KerasFileError(f"{path}: its {_CONFIG} describes no model")
