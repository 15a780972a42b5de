"""The worker: reads one JSON request a line, runs it, writes one JSON answer a line.

What a framework prints on standard output goes to standard error: the answers have the pipe to
themselves.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import json
import os
import platform
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from .catalog import WORKLOADS
from .frameworks import FRAMEWORKS, NumPy
from .workload import Run, Unsupported

UNSUPPORTED = (Unsupported, NotImplementedError)


class Worker:
    """One framework, and the workload it has open."""

    def __init__(self, name: str, threads: int):
        self.framework: NumPy = FRAMEWORKS[name](threads)
        self.run: Run | None = None

    def describe(self) -> dict[str, Any]:
        """Versions of what is measured."""
        return {"python": platform.python_version(),
                "versions": {m: _version(m) for m in self.framework.modules}}

    def open(self, workload: str) -> dict[str, Any]:
        """Make the inputs and the program of a workload."""
        self.close()
        chosen = WORKLOADS[workload]
        style = chosen.style_for(self.framework)
        _reset_peak()
        base = _memory("VmRSS")
        self.run = chosen.start(self.framework, chosen, chosen.programs[style])
        return {"base_bytes": base, "style": style}

    def steps(self, count: int) -> dict[str, Any]:
        """`count` steps; seconds of wall clock and of CPU, all threads, for all of them."""
        assert self.run is not None
        step = self.run.step
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(count):
            step()
        return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}

    def evidence(self) -> dict[str, Any]:
        assert self.run is not None
        return {"evidence": self.run.evidence()}

    def alive(self) -> dict[str, Any]:
        assert self.run is not None
        return {"alive": self.run.alive()}

    def digest(self) -> dict[str, Any]:
        """A hash of the bits of all results, and whether a batch in the opposite order has the same
        ones; None where there is no batch to turn round."""
        assert self.run is not None
        turned = getattr(self.run, "reversed", None)
        digest = _digest(self.run.results())
        return {"digest": digest,
                "any_position": None if turned is None else _digest(turned()) == digest}

    def memory(self) -> dict[str, Any]:
        """Peak resident memory since the workload was opened."""
        return {"peak_bytes": _memory("VmHWM")}

    def close(self) -> dict[str, Any]:
        self.run = None
        return {}


def _digest(arrays: Sequence[np.ndarray]) -> str:
    found = hashlib.sha256()
    for array in arrays:
        found.update(f"{array.dtype} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def _version(module: str) -> str:
    names = {"tensorflow": ("tensorflow", "tensorflow_cpu")}.get(module, (module,))
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return str(getattr(sys.modules.get(module), "__version__", "unknown"))


def _memory(field: str) -> int | None:
    """Bytes in a field of /proc/self/status; None where there is none."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            for line in status:
                if line.startswith(field + ":"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def _reset_peak() -> None:
    """Let VmHWM start from what is resident now (Linux; ru_maxrss would keep the parent's)."""
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as switch:
            switch.write("5")
    except OSError:
        pass


def _answer(action: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return {"ok": True, **action()}
    except Exception as error:
        traceback.print_exc()
        # tfn's own refusals are NotImplementedErrors too, or say so in their name.
        refused = isinstance(error, UNSUPPORTED) or "Unsupported" in type(error).__name__
        reason = " ".join(str(error).split()) or type(error).__name__
        kind = "" if isinstance(error, Unsupported) else f"{type(error).__name__}: "
        return {"ok": False, "unsupported": refused, "reason": (kind + reason)[:500]}


def _end_with_parent() -> None:
    """Linux: be killed when the parent goes, however it goes. A frozen worker would stay for ever."""
    if sys.platform == "linux":
        set_death_signal = 1
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)


def main() -> None:
    """Serve requests until standard input ends."""
    _end_with_parent()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    name, threads = sys.argv[1], int(sys.argv[2])
    worker: Worker | None = None

    def start() -> dict[str, Any]:
        nonlocal worker
        worker = Worker(name, threads)
        return worker.describe()

    def reply(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    reply(_answer(start))
    for line in sys.stdin:
        if worker is None:
            break
        request = json.loads(line)
        reply(_answer(partial(getattr(worker, request.pop("do")), **request)))


if __name__ == "__main__":
    main()
