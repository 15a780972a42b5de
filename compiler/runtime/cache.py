"""Kernels ready to call: in memory, on disk, or compiled now.

The kernels of a program are linked together: 196 of them in 8 ms, one by one in 29.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..codegen.micro import apart, called
from ..codegen.native import Loader
from ..codegen.target import Target
from ..locks import new_rlock
from . import disk
from .workers import compile_many

if TYPE_CHECKING:
    from ..codegen.kernel import Kernel

_TRIM_AFTER = 64 << 20
"""Bytes a process stores between looks at the size of the cache; the first store is followed by one."""


@dataclass
class Statistics:
    """How many kernels this process compiled, loaded from disk and found in memory."""

    compiled: int = 0
    loaded: int = 0
    reused: int = 0
    planned: int = 0
    """Programs whose plan was on disk: no pass ran for them."""


class KernelCache:
    """Finds or makes the addresses of kernels."""

    def __init__(self) -> None:
        self.statistics = Statistics()
        self._loader = Loader()
        self._addresses: dict[str, int] = {}
        self._lock = new_rlock()
        self._untrimmed = _TRIM_AFTER

    def address(self, kernel: Kernel) -> int:
        """The address of the kernel's function in this process."""
        return self.addresses([kernel])[0]

    def addresses(self, kernels: Sequence[Kernel]) -> list[int]:
        """The address of each kernel's function in this process."""
        with self._lock:
            missing = {k.name: k for k in kernels if k.name not in self._addresses}
            self.statistics.reused += len(kernels) - len(missing)
            if missing:
                self._from_disk(list(missing))
                self._compile([k for k in missing.values() if k.name not in self._addresses])
            return [self._addresses[k.name] for k in kernels]

    def load(self, kernels: Sequence[Kernel]) -> bool:
        """Are all of them here now? Loads those that are on disk; none is compiled."""
        with self._lock:
            missing = {k.name for k in kernels if k.name not in self._addresses}
            if missing:
                self._from_disk(sorted(missing))
            return all(k.name in self._addresses for k in kernels)

    def _from_disk(self, names: Sequence[str]) -> None:
        images = {name: image for name in names if (image := disk.read(name)) is not None}
        self._load_micro({name for image in images.values() for name in called(image)})
        found = self._link({name: image for name, image in images.items()
                            if called(image) <= self._addresses.keys()})
        self._addresses |= found
        self.statistics.loaded += len(found)
        for name in found:
            disk.touch(name)

    def _load_micro(self, names: Collection[str]) -> None:
        """Load those micro-kernels that are on disk and not here."""
        images = {name: image for name in sorted(names)
                  if name not in self._addresses and (image := disk.read(name)) is not None}
        found = self._link(images)
        self._addresses |= found
        for name in found:
            disk.touch(name)

    def _link(self, images: dict[str, bytes]) -> dict[str, int]:
        """The addresses of those that can be linked: all at once, or each by itself."""
        if not images:
            return {}
        try:
            return self._linked(images)
        except RuntimeError:
            if len(images) == 1:
                return {}
        return {n: a for name, image in images.items()
                for n, a in self._link({name: image}).items()}

    def _linked(self, images: dict[str, bytes]) -> dict[str, int]:
        """The addresses of objects whose micro-kernels are here, linked at once."""
        micro = {name for image in images.values() for name in called(image)} - images.keys()
        found = self._loader.load_all(list(images), *images.values(),
                                      imported={name: self._addresses[name] for name in micro})
        return dict(zip(images, found, strict=True))

    def _compile(self, kernels: Sequence[Kernel]) -> None:
        if not kernels:
            return
        texts: dict[str, str] = {}
        micro: dict[str, str] = {}
        for kernel in kernels:
            texts[kernel.name], own = apart(kernel.text, Target.host())
            micro |= own
        self._load_micro(micro)
        micro = {name: text for name, text in micro.items() if name not in self._addresses}
        missing = micro | texts
        made = dict(zip(missing, compile_many(list(missing.values())), strict=True))
        self.statistics.compiled += len(texts)
        for images in ({n: made[n] for n in micro}, {n: made[n] for n in texts}):
            if images:
                self._keep(images)

    def _keep(self, images: dict[str, bytes]) -> None:
        """Store and load what was compiled."""
        for name, image in images.items():
            disk.store(name, image)
            self._untrimmed += len(image)
        self._addresses |= self._linked(images)
        if self._untrimmed >= _TRIM_AFTER:
            self._untrimmed = 0
            disk.trim()


KERNELS = KernelCache()
"""The cache of this process."""
