"""Compiling many kernels at once: LLVM takes one lock per process, so helpers are processes.

They pay for large programs only, for starting one takes 0.3 s. A helper that fails, for whatever
reason, leaves its kernel to this process.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import IO

from ..codegen.native import compile_object
from ..codegen.target import Target

_WORTHWHILE = 1_000_000
"""Bytes of text that take LLVM about 1.4 s."""
_MOST = 7
_LONGEST = 1 << 30

_HELPER = """
import sys
sys.path[:] = sys.argv[1:]
from {package}.runtime.workers import serve
serve(sys.stdin.buffer, sys.stdout.buffer)
"""


def compile_many(texts: Sequence[str]) -> list[bytes]:
    """The object files of LLVM texts for this machine, in their order.

    Raises `CompileError` when LLVM rejects a text.
    """
    target = Target.host()
    size = sum(map(len, texts))
    helpers = min(_spare_processors(), int(size // _WORTHWHILE), _MOST)
    images: dict[int, bytes] = {}
    # The longest first, so that none is begun last.
    waiting = deque(sorted(range(len(texts)), key=lambda i: -len(texts[i])))
    teams = [_Helper(texts, waiting, images) for _ in range(helpers)]
    try:
        while waiting:
            try:
                number = waiting.popleft()
            except IndexError:
                break
            images[number] = compile_object(texts[number], target)
        for team in teams:
            team.thread.join()
    finally:
        for team in teams:
            team.stop()
    return [images[i] if i in images else compile_object(texts[i], target)
            for i in range(len(texts))]


def _spare_processors() -> int:
    from .pool import thread_count

    return thread_count() - 1


class _Helper:
    """A process that compiles what is waiting, and the thread that feeds it."""

    def __init__(self, texts: Sequence[str], waiting: deque[int], images: dict[int, bytes]):
        package = __name__.rpartition(".runtime")[0]
        self._process: subprocess.Popen | None = None
        with suppress(OSError):
            self._process = subprocess.Popen(
                [sys.executable, "-c", _HELPER.format(package=package), *sys.path],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.thread = threading.Thread(target=self._feed, args=(texts, waiting, images), daemon=True)
        self.thread.start()

    def _feed(self, texts: Sequence[str], waiting: deque[int], images: dict[int, bytes]) -> None:
        process = self._process
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None
        try:
            # Nothing is taken before the helper is ready: until then others do the work.
            if _receive(process.stdout) != b"ready":
                return
            while waiting:
                number = waiting.popleft()
                _send(process.stdin, texts[number].encode())
                image = _receive(process.stdout)
                if not image:
                    return
                images[number] = image
        except (OSError, IndexError, ValueError):
            return

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        self.thread.join()
        for stream in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                stream.close()  # type: ignore[union-attr]
        self._process.wait()


def _send(stream: IO[bytes], content: bytes) -> None:
    stream.write(len(content).to_bytes(8, "little") + content)
    stream.flush()


def _receive(stream: IO[bytes]) -> bytes:
    """What was sent; nothing at the end of the stream, or when it is something else: a Python may
    print as it starts."""
    size = int.from_bytes(stream.read(8), "little")
    if size > _LONGEST:
        return b""
    content = stream.read(size)
    return content if len(content) == size else b""


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Compile texts until there are no more: what a helper does."""
    target = Target.host()
    _send(answers, b"ready")
    while text := _receive(requests):
        _send(answers, compile_object(text.decode(), target))
