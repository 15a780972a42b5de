"""Locks that a forked child finds open: the thread that held one does not exist there."""

from __future__ import annotations

import os
import threading
import weakref

_LOCKS: weakref.WeakSet = weakref.WeakSet()


def new_lock() -> threading.Lock:
    """A lock that is open in a child forked while it was held."""
    return _known(threading.Lock())


def new_rlock():
    """`new_lock`, for a thread that may come back to what it holds."""
    return _known(threading.RLock())


def _known(lock):
    _LOCKS.add(lock)
    return lock


def _open_all() -> None:
    for lock in list(_LOCKS):
        lock._at_fork_reinit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_open_all)
