"""Bundles and what is shipped from them: one module per format, all written from the IR."""

from __future__ import annotations

from .bundle import (
    Bundle,
    BundleError,
    Runner,
    Signature,
    TensorSpec,
    read_bundle,
    write_bundle,
)
from .formats import FORMATS, export
from .report import Check, Report

__all__ = [
    "FORMATS", "Bundle", "BundleError", "Check", "Report", "Runner", "Signature", "TensorSpec",
    "export", "read_bundle", "write_bundle",
]
