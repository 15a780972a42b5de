"""`Mesh` and `Layout`: where the ranks are, and how a value lies on them (the words of DTensor)."""

from __future__ import annotations

from dataclasses import dataclass

from ..compiler.errors import TfnError

UNSHARDED = "unsharded"
"""In a layout: the dim is whole on every rank."""


class LayoutError(TfnError, ValueError):
    """A layout that does not fit the mesh or the value."""


@dataclass(frozen=True)
class Mesh:
    """Ranks in a grid with named axes: `Mesh(("batch",), (4,))`."""

    axes: tuple[str, ...]
    shape: tuple[int, ...]

    def __post_init__(self):
        if len(self.axes) != len(self.shape) or len(set(self.axes)) != len(self.axes):
            raise LayoutError(f"a mesh needs one distinct name per axis, got {self.axes} for"
                              f" {self.shape}")
        if any(n < 1 for n in self.shape):
            raise LayoutError(f"a mesh axis has at least one rank, got {self.shape}")

    @property
    def size(self) -> int:
        """Number of ranks."""
        total = 1
        for n in self.shape:
            total *= n
        return total

    def axis_size(self, name: str) -> int:
        """Ranks along the axis `name`; `LayoutError` names the axes there are."""
        if name not in self.axes:
            raise LayoutError(f"the mesh has no axis {name!r}; it has {', '.join(self.axes)}")
        return self.shape[self.axes.index(name)]


@dataclass(frozen=True)
class Layout:
    """Per dim of a value the mesh axis it is split over, or `UNSHARDED`."""

    spec: tuple[str, ...]
    mesh: Mesh

    def __post_init__(self):
        used = [s for s in self.spec if s != UNSHARDED]
        for axis in used:
            self.mesh.axis_size(axis)
        if len(set(used)) != len(used):
            raise LayoutError(f"the layout {self.spec} uses a mesh axis for two dims")

    @staticmethod
    def replicated(mesh: Mesh, rank: int) -> Layout:
        """Whole on every rank."""
        return Layout((UNSHARDED,) * rank, mesh)

    @staticmethod
    def batch_sharded(mesh: Mesh, axis: str, rank: int) -> Layout:
        """Split along the first dim."""
        return Layout((axis, *(UNSHARDED,) * (rank - 1)), mesh)

    @property
    def sharded_dim(self) -> int | None:
        """The first dim that is split, None when the value is whole on every rank."""
        return next((d for d, s in enumerate(self.spec) if s != UNSHARDED), None)

    def local_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of one rank's part. Raises `LayoutError` when it does not divide."""
        if len(shape) != len(self.spec):
            raise LayoutError(f"the layout {self.spec} is for {len(self.spec)} dims, the value has"
                              f" shape {shape}")
        local = []
        for n, axis in zip(shape, self.spec, strict=True):
            parts = 1 if axis == UNSHARDED else self.mesh.axis_size(axis)
            if n % parts:
                raise LayoutError(f"a dim of {n} does not divide over the {parts} ranks of the mesh"
                                  f" axis {axis!r}")
            local.append(n // parts)
        return tuple(local)
