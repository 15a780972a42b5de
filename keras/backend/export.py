"""Keras's SavedModel archive on tfn: refused with the way that works."""

from __future__ import annotations

from typing import Any

from ...compiler.errors import UnsupportedError


class SavedModelExportArchive:
    """`keras.export.ExportArchive` writes TensorFlow SavedModels, which tfn does not write yet."""

    def __init__(self, *args: Any, **kwargs: Any):
        raise UnsupportedError(
            "`export_saved_model` only currently supports the tensorflow, jax and torch backends."
            " On tfn use model.export(path, format='bundle'), 'cpp' or 'tflite'")
