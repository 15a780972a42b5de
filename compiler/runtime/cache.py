"""Kernels ready to call: in memory, on disk, or compiled now.

The disk cache holds one object file per kernel under `$TFN_CACHE_DIR` (default `~/.cache/tfn`). The
name of a kernel is the hash of its text, the target and the versions, so an entry is never stale;
files are written to a temporary name and renamed, so any number of processes may share it.
"""

from __future__ import annotations

import os
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import llvmlite

from ..codegen.kernel import Kernel
from ..codegen.native import Loader, compile_object
from ..codegen.target import Target

MAX_BYTES = 512 << 20
"""Size of the disk cache; the files used longest ago go first."""


@dataclass
class Statistics:
    """How many kernels this process compiled, loaded from disk, and found in memory."""

    compiled: int = 0
    loaded: int = 0
    reused: int = 0


class KernelCache:
    """Finds or makes the address of a kernel."""

    def __init__(self) -> None:
        self.statistics = Statistics()
        self._loader = Loader()
        self._addresses: dict[str, int] = {}
        self._lock = threading.RLock()

    def address(self, kernel: Kernel) -> int:
        """The address of the kernel's function in this process."""
        with self._lock:
            known = self._addresses.get(kernel.name)
            if known is not None:
                self.statistics.reused += 1
                return known
            address = self._from_disk(kernel)
            if address is None:
                image = compile_object(kernel.text, Target.host())
                self.statistics.compiled += 1
                _store(kernel.name, image)
                address = self._loader.load(kernel.name, image)
            self._addresses[kernel.name] = address
            return address

    def _from_disk(self, kernel: Kernel) -> int | None:
        file = _file(kernel.name)
        try:
            image = file.read_bytes()
        except OSError:
            return None
        # A truncated file must not reach the linker: the length is part of the file.
        size, image = int.from_bytes(image[:8], "little"), image[8:]
        if len(image) != size or not image.startswith((b"\x7fELF", b"\xcf\xfa\xed\xfe")):
            return None
        try:
            address = self._loader.load(kernel.name, image)
        except RuntimeError:
            return None
        self.statistics.loaded += 1
        os.utime(file)
        return address


def directory() -> Path:
    """Where objects are kept; versions of LLVM and of the format have folders of their own."""
    root = os.environ.get("TFN_CACHE_DIR")
    base = Path(root) if root else Path.home() / ".cache" / "tfn"
    return base / f"objects-llvmlite{llvmlite.__version__}"


def _file(name: str) -> Path:
    return directory() / f"{name}.o"


def _store(name: str, image: bytes) -> None:
    """Write an entry; a cache that cannot be written is no error."""
    folder = directory()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder)
        with os.fdopen(handle, "wb") as stream:
            stream.write(len(image).to_bytes(8, "little") + image)
        os.replace(temporary, _file(name))
    except OSError:
        return


def trim(limit: int = MAX_BYTES) -> int:
    """Remove the files used longest ago until the cache fits `limit` bytes; returns bytes freed."""
    entries = []
    for file in directory().glob("*.o"):
        try:
            entries.append((file.stat().st_mtime, file.stat().st_size, file))
        except OSError:
            continue
    excess, freed = sum(e[1] for e in entries) - limit, 0
    for _, size, file in sorted(entries):
        if freed >= excess:
            break
        file.unlink(missing_ok=True)
        freed += size
    return freed


KERNELS = KernelCache()
"""The cache of this process."""
