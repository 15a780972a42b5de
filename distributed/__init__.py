"""Meshes, layouts, the partitioner, and the communicators that run partitioned programs.

A name is loaded when it is asked for: a trainer that runs alone asks `world` whether it does, and
needs neither partitioner nor code generator for that. The functions `launch` and `partition` are in
the files of these names.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .data_parallel import DataParallelProgram, data_parallel_compiler
    from .mesh import UNSHARDED, Layout, LayoutError, Mesh
    from .virtual import VirtualMesh, virtual_run
    from .world import WorldError, communicator, rank, size

__all__ = [
    "UNSHARDED", "DataParallelProgram", "Layout", "LayoutError", "Mesh", "VirtualMesh",
    "WorldError", "communicator", "data_parallel_compiler", "rank", "size", "virtual_run",
]

_FILES = {
    "data_parallel": ("DataParallelProgram", "data_parallel_compiler"),
    "mesh": ("UNSHARDED", "Layout", "LayoutError", "Mesh"),
    "virtual": ("VirtualMesh", "virtual_run"),
    "world": ("WorldError", "communicator", "rank", "size"),
}


def __getattr__(name: str) -> Any:
    for file, names in _FILES.items():
        if name in names:
            return getattr(import_module(f".{file}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
