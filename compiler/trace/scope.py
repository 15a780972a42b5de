"""What is being traced in this thread, and which line of the user's ops belong to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import user_location
from ..ir.core import Location

if TYPE_CHECKING:
    from .core import Graph

_STATE = threading.local()


def graphs() -> list[Graph]:
    """The graphs being traced, innermost last."""
    try:
        return _STATE.graphs
    except AttributeError:
        _STATE.graphs = []
        return _STATE.graphs


class located:
    """Context in which recorded ops belong to the user's line `location`: ops bound on behalf of an
    earlier one keep its place. None changes nothing; `afresh` forgets the place while a function of
    the user's runs, whose own lines count."""

    def __init__(self, location: Location | None, afresh: bool = False):
        self.location = location
        self.afresh = afresh

    def __enter__(self):
        self._saved = getattr(_STATE, "location", None)
        _STATE.location = None if self.afresh else self.location or self._saved

    def __exit__(self, *_):
        _STATE.location = self._saved


def current_location() -> Location | None:
    """The user's line that recorded ops belong to."""
    return getattr(_STATE, "location", None) or user_location(_path())


_path: Callable[[], str] = str
"""No part has a name until a front end gives it one."""


def named_by(path: Callable[[], str]) -> None:
    """Let `path` say which part of a model is running: the `scope` of the locations of its ops."""
    global _path
    _path = path


def current_graph() -> Graph | None:
    """The innermost graph being traced in this thread, None when running eagerly."""
    stack = graphs()
    return stack[-1] if stack else None


class eager:
    """Context in which concrete operations are evaluated at once, whatever is being traced."""

    def __enter__(self):
        self._saved = graphs()[:]
        graphs().clear()

    def __exit__(self, *_):
        graphs()[:] = self._saved
