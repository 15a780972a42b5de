"""Locks that a forked child finds open: the thread that held one does not exist there."""

from __future__ import annotations

import functools
import os
import threading
import weakref
from collections.abc import Callable
from typing import TypeVar

_LOCKS: weakref.WeakSet = weakref.WeakSet()


def new_lock() -> threading.Lock:
    """A lock that is open in a child forked while it was held."""
    return _known(threading.Lock())


def new_rlock():
    """`new_lock`, for a thread that may come back to what it holds."""
    return _known(threading.RLock())


_T = TypeVar("_T")


def once(make: Callable[..., _T]) -> Callable[..., _T]:
    """`functools.cache` for what must exist once: of two threads that need it first, one makes it and
    the other waits. Machine code and what it points to must not be replaced by a twin."""
    known, lock = functools.cache(make), new_rlock()

    @functools.wraps(make)
    def made(*arguments) -> _T:
        with lock:
            return known(*arguments)

    return made


def _known(lock):
    _LOCKS.add(lock)
    return lock


def _open_all() -> None:
    for lock in list(_LOCKS):
        # What the thread that forks holds itself, in a callback say, it opens itself.
        if not getattr(lock, "_is_owned", bool)():
            lock._at_fork_reinit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_open_all)
