"""Processes of a program that is run on several at once inside one Python: a grid of replicas and
partitions, one thread each.

This is the reference for collectives: they exchange NumPy arrays. Real jobs run them through a
communicator (`distributed`).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..errors import TfnError

PATIENCE = 60.0
"""Seconds a process waits for the others before the run is given up."""

_STATE = threading.local()


class Process:
    """One process: `replica` and `partition` are its place in the grid."""

    def __init__(self, grid: Grid, replica: int, partition: int):
        self.grid, self.replica, self.partition = grid, replica, partition
        self._rounds: dict[Any, int] = {}

    @property
    def id(self) -> int:
        """Its number when replicas are counted first."""
        return self.replica * self.grid.partitions + self.partition

    def exchange(self, members: Sequence[int], value: Any) -> list[Any]:
        """The values of all members (process ids) of a group this process is in, in their order."""
        key = tuple(members)
        number = self._rounds.get(key, 0)
        self._rounds[key] = number + 1
        return self.grid.meet((key, number), self.id, value)


class Grid:
    """`replicas` x `partitions` processes, their mailboxes, and the outside world's feeds."""

    def __init__(self, replicas: int, partitions: int, infeed: Sequence[Sequence[Any]] = ()):
        self.replicas, self.partitions = replicas, partitions
        self.infeed = deque(infeed)
        self.outfeed: list[Any] = []
        self._changed = threading.Condition()
        self._meetings: dict[Any, dict[int, Any]] = {}
        self._channels: dict[int, deque] = {}
        self._failed = False

    def meet(self, key: Any, member: int, value: Any) -> list[Any]:
        """Show `value`; returns all values when every member of the group has come."""
        members = key[0]
        with self._changed:
            room = self._meetings.setdefault(key, {})
            room[member] = value
            self._changed.notify_all()
            self._wait(lambda: len(room) == len(members),
                       f"{len(members) - len(room)} processes did not come to a collective")
            return [room[m] for m in members]

    def send(self, channel: int, value: Any) -> None:
        with self._changed:
            self._channels.setdefault(channel, deque()).append(value)
            self._changed.notify_all()

    def receive(self, channel: int) -> Any:
        """The next value of a channel, once there is one."""
        with self._changed:
            box = self._channels.setdefault(channel, deque())
            self._wait(lambda: bool(box), f"nothing was sent on channel {channel}")
            return box.popleft()

    def _wait(self, ready: Callable[[], bool], what: str) -> None:
        if not self._changed.wait_for(lambda: ready() or self._failed, PATIENCE) or not ready():
            raise TfnError(f"{what}; another process failed or the program is stuck")

    def run(self, programs: Sequence[Sequence[Callable[[], list[Any]]]]) -> list[list[Any]]:
        """Run `programs[replica][partition]` at the same time; their results in that order.

        Raises the first error of a process; the others are released.
        """
        jobs = [(Process(self, r, p), program) for r, row in enumerate(programs)
                for p, program in enumerate(row)]
        results: list[Any] = [None] * len(jobs)
        errors: list[BaseException] = []

        def work(number: int) -> None:
            process, program = jobs[number]
            try:
                with _as(process):
                    results[number] = program()
            except BaseException as error:
                errors.append(error)
                with self._changed:
                    self._failed = True
                    self._changed.notify_all()

        threads = [threading.Thread(target=work, args=(i,)) for i in range(len(jobs))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return results


@contextmanager
def _as(process: Process) -> Iterator[None]:
    _STATE.process = process
    try:
        yield
    finally:
        _STATE.process = None


def current_process() -> Process | None:
    """The process this thread plays; None outside a grid."""
    return getattr(_STATE, "process", None)
