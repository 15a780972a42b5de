"""`__array_namespace_info__`: what a library that takes any array module can ask about tfn.

Array API standard 2024.12, "inspection".
"""

from __future__ import annotations

import numpy as np

from ..ir.defaults import default_complex, default_float
from .device import CPU, check_device
from .dtypes import dtypes_of_kind

ARRAY_API_VERSION = "2024.12"


class NamespaceInfo:
    """Capabilities, devices and element types of `tfn.numpy`."""

    def capabilities(self) -> dict[str, bool | int | None]:
        """Masks as indices and shapes that depend on values work on concrete arrays."""
        return {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": 64}

    def default_device(self) -> str:
        """The device of new arrays."""
        return CPU

    def default_dtypes(self, *, device=None) -> dict[str, np.dtype]:
        """The element types of numbers that do not name theirs."""
        check_device(device)
        return {"real floating": default_float().numpy, "complex floating": default_complex().numpy,
                "integral": np.dtype(np.int32), "indexing": np.dtype(np.int32)}

    def dtypes(self, *, device=None, kind=None) -> dict[str, np.dtype]:
        """The element types of the standard, of one kind (or a tuple of kinds) or all."""
        check_device(device)
        return dtypes_of_kind(kind)

    def devices(self) -> list[str]:
        """Every device."""
        return [CPU]


def namespace_info() -> NamespaceInfo:
    """The answers of this module to questions of the array API standard."""
    return NamespaceInfo()
