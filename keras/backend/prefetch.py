"""The next batch is made while a step runs: in a thread, once both take long enough for that to pay."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from time import perf_counter
from typing import Any

from keras.src.backend.common import global_state

STEP, BATCH = 1e-3, 2e-4
"""Seconds a step and a batch must take each. A step below that keeps the interpreter's lock, so nothing
could run beside it; and handing a batch over takes some 30 us."""
PROOF = 3
"""So many times in a row: the first step of a program is compiled."""
PATIENCE = 1.0
"""Seconds to wait for the thread when nobody wants its batch any more."""


@contextmanager
def overlapped(batches: Iterable, prepare: Callable[[Any], Any]) -> Iterator[Iterator]:
    """The items of `batches` in order, with `prepare` applied to those that were made in the thread.

    No more than one is made ahead, none beyond the end of `batches`. What making one raises is raised
    in the loop, with its own traceback. Leaving the context ends the thread.
    """
    items = _items(batches, prepare)
    try:
        yield items
    finally:
        items.close()


def _items(batches: Iterable, prepare: Callable[[Any], Any]) -> Generator[Any]:
    source, slow = iter(batches), 0
    while slow < PROOF:
        begun = perf_counter()
        try:
            item = next(source)
        except StopIteration:
            return
        made = perf_counter()
        yield item
        slow = slow + 1 if made - begun >= BATCH and perf_counter() - made >= STEP else 0
    maker = _Maker(source, prepare)
    try:
        yield from maker
    finally:
        maker.close()


class _Maker:
    """A thread that makes one item at a time, when there is room for it."""

    def __init__(self, source: Iterator, prepare: Callable[[Any], Any]):
        self._source, self._prepare = source, prepare
        self._made: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self._room = threading.Semaphore(1)
        self._unwanted = False
        self._state = [_copied(local) for local in _locals()]
        self._thread = threading.Thread(target=self._run, name="tfn-batches", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator:
        while True:
            item, error = self._made.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            self._room.release()
            yield item

    def close(self) -> None:
        self._unwanted = True
        self._room.release()
        # A generator that waits for something must not keep the caller.
        self._thread.join(PATIENCE)

    def _run(self) -> None:
        for local, state in zip(_locals(), self._state, strict=True):
            local.__dict__.update(state)
        while True:
            self._room.acquire()
            if self._unwanted:
                return
            try:
                self._made.put((self._prepare(next(self._source)), None))
            except BaseException as error:
                self._made.put((None, error))
                return


def _locals() -> list[threading.local]:
    """What Keras keeps per thread: the dtype policy, the seed, scopes. A generator may use layers."""
    return [global_state.GLOBAL_STATE_TRACKER, global_state.GLOBAL_SETTINGS_TRACKER]


def _copied(local: threading.local) -> dict[str, Any]:
    """Stacks of scopes are the thread's own."""
    return {name: list(value) if isinstance(value, list) else value
            for name, value in local.__dict__.items()}
