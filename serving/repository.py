"""The models a server has: directories of versions on disk, loaded bundles in memory.

A model is a name and a base directory with one bundle per version (`digits/3/bundle.json`). The
newest version that loads is served; a damaged one is kept in the list with its error and tried
again when its files change. `Repository.watch` looks for changes in a thread of its own; readers
always see whole versions, because a `Servable` is complete before it is assigned.
"""

from __future__ import annotations

import re
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import numpy as np

from ..compiler.errors import TfnError, UnsupportedError
from ..compiler.ir.dims import Dim
from ..export.bundle import Bundle, BundleError, Runner, Signature, read_bundle
from .errors import ServingError, Status, invalid

_VERSION = re.compile(r"[1-9][0-9]{0,18}")
"""Directory names that are versions: positive, no leading zero, no other characters."""

_NAME = re.compile(r"[^/:\s%?#]+")
"""Model names that can stand in a URL as they are."""


class State(Enum):
    """TF Serving's states of a version."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(frozen=True)
class VersionStatus:
    """Where one version is in its life, and what went wrong with it, if anything."""

    version: int
    state: State
    error_code: str = "OK"
    error_message: str = ""


class Servable:
    """One loaded version: its bundle, and a compiled runner for every signature."""

    def __init__(self, name: str, version: int, bundle: Bundle):
        self.name = name
        self.version = version
        self.bundle = bundle
        self._runners = {s: Runner(bundle, signature=s) for s in bundle.signatures}

    def signature(self, name: str) -> Signature:
        """The signature called `name`; `ServingError` (400) lists those there are."""
        try:
            return self.bundle.signatures[name]
        except KeyError:
            there = ", ".join(sorted(self.bundle.signatures))
            raise invalid(
                f"Serving signature name: \"{name}\" not found in signature def; it has: {there}"
            ) from None

    def run(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run one signature on arrays that fit it. Safe from several threads."""
        return self._runners[signature].run(dict(inputs))

    def warm_up(self) -> None:
        """Run every signature once on zeros, so that no client waits for a compiler."""
        for name, signature in self.bundle.signatures.items():
            inputs = {
                spec.name: np.zeros(
                    [d.evaluate(dict.fromkeys(d.names, 1)) if isinstance(d, Dim) else d
                     for d in spec.shape],
                    spec.dtype.numpy,
                )
                for spec in signature.inputs
            }
            self.run(name, inputs)


@dataclass
class _Version:
    """A version directory as last seen; `stamp` tells whether its files have changed since."""

    status: VersionStatus
    stamp: tuple = ()


@dataclass
class _Model:
    name: str
    base: Path
    versions: dict[int, _Version] = field(default_factory=dict)
    serving: Servable | None = None


class Repository:
    """Named models and the version of each that is served.

    `models` maps names to base directories. Nothing is loaded before `refresh`. Raises `TfnError`
    for a name that cannot stand in a URL.
    """

    def __init__(self, models: Mapping[str, Path]):
        for name in models:
            if not _NAME.fullmatch(name):
                raise TfnError(
                    f"{name!r} cannot be a model's name: it becomes part of a URL, so it may not be"
                    " empty or hold spaces or any of / : % ? #"
                )
        self._models = {name: _Model(name, Path(base)) for name, base in models.items()}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._watcher: threading.Thread | None = None

    # -- what clients ask

    @property
    def names(self) -> tuple[str, ...]:
        """The models' names, in the order they were given."""
        return tuple(self._models)

    @property
    def ready(self) -> bool:
        """Whether every model has a version to answer with."""
        return all(model.serving is not None for model in self._models.values())

    def serving(self, name: str) -> Servable | None:
        """The version of a model that is served now, if any."""
        return self._models[name].serving

    def base(self, name: str) -> Path:
        """The base directory of a model."""
        return self._models[name].base

    def states(self, name: str) -> list[VersionStatus]:
        """The states of the versions of a known model, newest first; none when it has none."""
        with self._lock:
            versions = dict(self._models[name].versions)
        return [versions[number].status for number in sorted(versions, reverse=True)]

    def servable(
        self, name: str, version: int | None = None, label: str | None = None
    ) -> Servable:
        """The loaded version a request asks for; without version or label, the one served.

        Raises `ServingError`: 404 for a model or version that is not loaded, 400 for a label.
        """
        _refuse_label(label)
        model = self._models.get(name)
        found = model.serving if model else None
        if found is None or version not in (None, found.version):
            request = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise ServingError(
                Status.NOT_FOUND, f"Servable not found for request: {request}"
            )
        return found

    def status(
        self, name: str, version: int | None = None, label: str | None = None
    ) -> list[VersionStatus]:
        """The states of a model's versions, newest first, or of one of them.

        Raises `ServingError`: 404 for a model or version that does not exist, 400 for a label.
        """
        _refuse_label(label)
        states = self.states(name) if name in self._models else []
        if version is None and not states:
            raise ServingError(Status.NOT_FOUND, f"Could not find any versions of model {name}")
        found = [state for state in states if version in (None, state.version)]
        if not found:
            raise ServingError(
                Status.NOT_FOUND, f"Could not find version {version} of model {name}"
            )
        return found

    # -- what is on disk

    def refresh(self) -> None:
        """Look at every base directory once and load what is new. Errors end in the states."""
        for model in self._models.values():
            self._refresh(model)

    def watch(self, seconds: float) -> None:
        """Refresh every `seconds` in a background thread until `close`."""

        def loop() -> None:
            while not self._stop.wait(seconds):
                self.refresh()

        self._watcher = threading.Thread(target=loop, name="tfn-repository", daemon=True)
        self._watcher.start()

    def close(self) -> None:
        """Stop watching. A load under way ends with the process."""
        self._stop.set()

    def _refresh(self, model: _Model) -> None:
        """Serve the newest version on disk that loads; when it is served already, do nothing."""
        current = model.serving
        for number in sorted(_versions_in(model.base), reverse=True):
            directory = model.base / str(number)
            stamp = _stamp(directory)
            known = model.versions.get(number)
            if known is not None and known.stamp == stamp:
                if current is not None and number == current.version:
                    return
                if known.status.state is State.END and known.status.error_code != "OK":
                    continue
            if self._load(model, number, directory, stamp):
                return

    def _load(self, model: _Model, number: int, directory: Path, stamp: tuple) -> bool:
        """Load one version and serve it instead of the one before; False when it is damaged."""
        before = model.serving
        replaces = before is not None and before.version == number
        if not replaces:
            self._set(model, VersionStatus(number, State.START), stamp)
            self._set(model, VersionStatus(number, State.LOADING), stamp)
        try:
            servable = Servable(model.name, number, read_bundle(directory))
            servable.warm_up()
        except Exception as error:
            # The thread must survive anything a damaged bundle can raise.
            code = next(code for kind, code in _ERROR_CODES if isinstance(error, kind))
            if code == "INTERNAL":
                traceback.print_exc()
            message = str(error) if isinstance(error, TfnError) else _describe(error)
            # A version that was rewritten badly is still in memory and goes on answering.
            state = State.AVAILABLE if replaces else State.END
            self._set(model, VersionStatus(number, state, code, message), stamp)
            return replaces
        model.serving = servable
        self._set(model, VersionStatus(number, State.AVAILABLE), stamp)
        if before is not None and not replaces:
            self._set(model, VersionStatus(before.version, State.END))
        return True

    def _set(self, model: _Model, status: VersionStatus, stamp: tuple | None = None) -> None:
        with self._lock:
            known = model.versions.get(status.version)
            if stamp is None:
                stamp = known.stamp if known else ()
            model.versions[status.version] = _Version(status, stamp)


# What kind of failure ends a load, as TensorFlow's error code; the first match counts.
_ERROR_CODES: tuple[tuple[type[Exception], str], ...] = (
    (BundleError, "DATA_LOSS"),
    (UnsupportedError, "UNIMPLEMENTED"),
    (TfnError, "FAILED_PRECONDITION"),
    (OSError, "UNAVAILABLE"),
    (Exception, "INTERNAL"),
)


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _refuse_label(label: str | None) -> None:
    if label is not None:
        raise invalid(f"Unrecognized servable version label: {label}")


def _versions_in(base: Path) -> list[int]:
    """The numbers of the version directories below `base`; none when it cannot be read."""
    try:
        return [
            int(entry.name)
            for entry in base.iterdir()
            if _VERSION.fullmatch(entry.name) and int(entry.name) < 2**63 and entry.is_dir()
        ]
    except OSError:
        return []


def _stamp(directory: Path) -> tuple:
    """Names, sizes and times of a version's files: equal as long as nothing was written."""
    try:
        return tuple(
            sorted((e.name, s.st_size, s.st_mtime_ns)
                   for e in directory.iterdir() if (s := e.stat()))
        )
    except OSError:
        return ()
