"""A peer: a worker process in some Python environment, asked over a pipe, frozen while others run."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...compiler.errors import TfnError

WORKER = Path(__file__).parent / "worker"
_START = (f"import sys; sys.path[:0] = [{str(WORKER.parent)!r}];"
          " from worker.__main__ import main; main()")


class PeerFailed(Exception):
    """A peer could not do what it was asked."""

    def __init__(self, reason: str, unsupported: bool = False):
        super().__init__(reason)
        self.unsupported = unsupported


@dataclass(frozen=True)
class PeerSpec:
    """A framework and the Python that has it."""

    name: str
    python: str

    @staticmethod
    def parse(text: str, default: str, known: Sequence[str]) -> PeerSpec:
        """`NAME=PYTHON`, or `NAME` for the Python of tfn itself. Raises `TfnError`."""
        name, _, python = text.partition("=")
        if name not in known:
            raise TfnError(f"--peer {text}: there is no framework {name!r};"
                           f" use one of {', '.join(known)}")
        if python and not (os.path.isfile(python) and os.access(python, os.X_OK)):
            raise TfnError(f"--peer {text}: {python} is no program; give the Python of an"
                           f" environment with {name}, such as ENVIRONMENT/bin/python")
        return PeerSpec(name, python or default)


# What makes a comparison unfair when it differs: other kernels chosen by variable, memory given back
# to the system after every large result and faulted in again by the next.
UNSET = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "KERAS_BACKEND")
MEMORY_REUSE = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "17179869184",
                "MALLOC_TOP_PAD_": "268435456"}
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
                    "NUMEXPR_NUM_THREADS", "TFN_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")


def environment(threads: int, cache: Path, base: Mapping[str, str]) -> dict[str, str]:
    """What every worker gets: the same threads, the same memory policy, an empty kernel cache."""
    env = {k: v for k, v in base.items() if k not in UNSET}
    env |= MEMORY_REUSE | dict.fromkeys(THREAD_VARIABLES, str(threads))
    env |= {"TFN_CACHE_DIR": str(cache), "TF_CPP_MIN_LOG_LEVEL": "3", "TF_NUM_INTEROP_THREADS": "1",
            "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "", "PYTHONUNBUFFERED": "1"}
    if threads == 1:
        env["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    return env


def cores(threads: int) -> set[int]:
    """The cores that workers may use: the last `threads` of ours, since others start at the first."""
    if not hasattr(os, "sched_getaffinity"):
        return set()
    return set(sorted(os.sched_getaffinity(0))[-threads:])


@dataclass
class Peer:
    """A running worker. It is frozen (SIGSTOP) except while a request runs."""

    spec: PeerSpec
    threads: int
    environment: Mapping[str, str]
    description: dict[str, Any] = field(default_factory=dict)

    fresh: bool = False
    """Has it opened no workload yet?"""

    def __post_init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the peer
        self._buffer = b""

    @property
    def name(self) -> str:
        return self.spec.name

    def start(self, seconds: float = 300.0) -> None:
        """Start the worker and learn its versions. Raises `PeerFailed`."""
        self.stop()
        self._buffer = b""
        self.fresh = True
        affinity = cores(self.threads)
        try:
            self._process = subprocess.Popen(
                [self.spec.python, "-c", _START, self.name, str(self.threads)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
                env=dict(self.environment), cwd=tempfile.gettempdir())
        except OSError as error:
            raise PeerFailed(f"cannot start {self.spec.python}: {error}") from None
        if affinity:
            os.sched_setaffinity(self._process.pid, affinity)
        self.description = {"name": self.name, "program": self.spec.python,
                            **self._answer(seconds)}
        self._freeze()

    def ask(self, do: str, seconds: float = 600.0, **arguments: Any) -> dict[str, Any]:
        """Have the worker do something and wait for the answer. Raises `PeerFailed`."""
        process = self._process
        if process is None or process.stdin is None:
            raise PeerFailed("the worker has ended")
        try:
            process.send_signal(signal.SIGCONT)
            process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            process.stdin.flush()
        except (OSError, ValueError):
            self._died()
        answer = self._answer(seconds)
        self._freeze()
        return answer

    def _answer(self, seconds: float) -> dict[str, Any]:
        assert self._process is not None and self._process.stdout is not None
        stream, ends = self._process.stdout.fileno(), time.monotonic() + seconds
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([stream], [], [], max(0.0, ends - time.monotonic()))
            if not ready:
                self.stop()
                raise PeerFailed(f"no answer in {seconds:.0f} s; the worker was stopped")
            block = os.read(stream, 1 << 16)
            if not block:
                self._died()
            self._buffer += block
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer = json.loads(line)
        if not answer.pop("ok"):
            raise PeerFailed(answer["reason"], answer["unsupported"])
        return answer

    def _freeze(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def _died(self) -> None:
        assert self._process is not None
        code = self._process.wait()
        self._process = None
        said = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
        raise PeerFailed(f"the worker ended with {said}: {self._last_words()}")

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "no message"

    @property
    def running(self) -> bool:
        return self._process is not None

    def stop(self) -> None:
        """End the worker."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()
