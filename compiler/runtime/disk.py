"""Object files and plans on disk, under `$TFN_CACHE_DIR` (default `~/.cache/tfn`).

The name of an entry is the hash of all it depends on, so an entry is never stale. Files are written
to a temporary name and renamed, so any number of processes may share them, and begin with a checksum,
so a damaged one is as good as none.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from pathlib import Path

import llvmlite

from ..codegen.native import compile_object
from ..codegen.target import Target

MAX_BYTES = 512 << 20
"""Size of the disk cache; the files used longest ago go first."""


_ABANDONED = 3600
"""Seconds after which a temporary file belongs to no living writer."""
_DIGEST = 32
_SUFFIXES = {"k": ".o", "m": ".o", "r": ".o", "p": ".plan"}
"""By the first letter of a name: kernels, micro-kernels, the runtime's own functions, plans."""


def cached_object(text: str) -> bytes:
    """The object file of a text of the runtime's own, compiled for this machine once."""
    target = Target.host()
    digest = hashlib.sha256("\0".join(
        [target.triple, target.cpu, target.features, text]).encode()).hexdigest()
    name = f"r{digest[:24]}"
    image = read(name)
    if image is None:
        image = compile_object(text, target)
        store(name, image)
    return image


def directory() -> Path:
    """Where objects are kept; versions of LLVM and of the format have folders of their own."""
    return _root() / f"objects2-llvmlite{llvmlite.__version__}"


def _root() -> Path:
    root = os.environ.get("TFN_CACHE_DIR")
    try:
        return Path(root) if root else Path.home() / ".cache" / "tfn"
    except RuntimeError:
        # A user without a home: a name that cannot be written.
        return Path(os.devnull)


def _file(name: str) -> Path:
    return directory() / f"{name}{_SUFFIXES[name[0]]}"


def read(name: str) -> bytes | None:
    """An entry as it was stored, None when there is none or the file is damaged."""
    try:
        content = _file(name).read_bytes()
    except OSError:
        return None
    digest, image = content[:_DIGEST], content[_DIGEST:]
    return image if hashlib.sha256(image).digest() == digest else None


def touch(name: str) -> None:
    """An entry was used."""
    try:
        os.utime(_file(name))
    except OSError:
        return


def store(name: str, image: bytes) -> None:
    """Write an entry; a cache that cannot be written is no error."""
    folder, temporary = directory(), None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(suffix=".tmp", dir=folder)
        with os.fdopen(handle, "wb") as stream:
            stream.write(hashlib.sha256(image).digest() + image)
        os.replace(temporary, _file(name))
    except OSError:
        if temporary is not None:
            _remove(Path(temporary))


def _remove(file: Path) -> None:
    try:
        file.unlink()
    except OSError:
        return


def trim(limit: int = MAX_BYTES) -> int:
    """Remove the files used longest ago, of whatever version, until the cache fits `limit` bytes;
    returns bytes freed."""
    entries = []
    for file in _root().glob("objects*/*"):
        try:
            status = file.stat()
        except OSError:
            continue
        if file.suffix == ".tmp" and status.st_mtime < time.time() - _ABANDONED:
            _remove(file)
        elif file.suffix in _SUFFIXES.values():
            entries.append((status.st_mtime, status.st_size, file))
    excess, freed = sum(e[1] for e in entries) - limit, 0
    for _, size, file in sorted(entries):
        if freed >= excess:
            break
        _remove(file)
        freed += size
    return freed
