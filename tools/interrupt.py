"""SIGTERM and SIGINT as an exception, so that a command can say what it leaves behind."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator


class Interrupted(BaseException):
    """The process was told to stop. A BaseException: no library's `except Exception` keeps it."""

    def __init__(self, number: int, message: str):
        super().__init__(message)
        self.signal = number


@contextlib.contextmanager
def interruptible(message: Callable[[], str]) -> Iterator[None]:
    """Inside, SIGTERM and SIGINT raise `Interrupted(message())` at the next line of Python."""

    def stop(number, frame):
        raise Interrupted(number, f"stopped by {signal.Signals(number).name}: {message()}")

    previous = {number: signal.signal(number, stop)
                for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
