"""What `keras.callbacks.TensorBoard(profile_batch=...)` asks of a backend: traces of some batches.

A trace is what `tfn.profile` finds, in a file `plugins/profile/RUN/HOST.trace.json.gz` below the log
folder, which ui.perfetto.dev and chrome://tracing open.
"""

from __future__ import annotations

import gzip
import json
import socket
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

SUFFIX = ".trace.json.gz"


@dataclass
class _Trace:
    folder: Path
    context: AbstractContextManager[Any]
    profile: Any
    batches: list[tuple[int, float, float]] = field(default_factory=list)
    """Number, start and end in seconds of the clock that steps are timed by."""


_running: list[_Trace] = []


def start_trace(logdir: str) -> None:
    """Time the programs that run from here on; no folder, no trace. Raises `RuntimeError` inside of
    another profile."""
    if logdir:
        from ...compiler.profile import profile

        context = profile()
        _running.append(_Trace(Path(logdir), context, context.__enter__()))


def stop_trace(save: bool) -> None:
    """End the trace, and write it if it is to be saved."""
    if not _running:
        return
    trace = _running.pop()
    trace.context.__exit__(None, None, None)
    if save:
        run = datetime.now().strftime("%Y_%m_%d_%H_%M_%S")
        folder = trace.folder / "plugins" / "profile" / run
        folder.mkdir(parents=True, exist_ok=True)
        with gzip.open(folder / f"{socket.gethostname()}{SUFFIX}", "wt") as file:
            json.dump(trace.profile.trace(trace.batches), file)


def start_batch_trace(batch: int) -> tuple[int, float]:
    return batch, time.monotonic()


def stop_batch_trace(batch_trace_context: tuple[int, float]) -> None:
    batch, begun = batch_trace_context
    if _running:
        _running[-1].batches.append((batch, begun, time.monotonic()))


def summary() -> ModuleType:
    """TensorFlow's writer of summaries, which the callback uses on every backend."""
    try:
        import tensorflow.summary as found
    except ImportError as error:
        raise ImportError(
            "keras.callbacks.TensorBoard writes its files with TensorFlow, which is not installed: pip"
            " install tensorflow-cpu, or take keras.callbacks.CSVLogger, and tfn.profile for traces",
            name="tensorflow") from error
    return found
