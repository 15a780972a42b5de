"""Meshes, layouts, the partitioner, and the communicators that run partitioned programs."""

from __future__ import annotations

from .data_parallel import DataParallelProgram, data_parallel_compiler
from .launch import launch
from .mesh import UNSHARDED, Layout, LayoutError, Mesh
from .partition import partition
from .virtual import VirtualMesh, virtual_run
from .world import WorldError, communicator, rank, size

__all__ = [
    "UNSHARDED", "DataParallelProgram", "Layout", "LayoutError", "Mesh", "VirtualMesh",
    "WorldError", "communicator", "data_parallel_compiler", "launch", "partition", "rank", "size",
    "virtual_run",
]
