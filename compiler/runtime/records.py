"""Are programs being timed? `jit` asks this, so it is apart from the walker, which needs LLVM."""

from __future__ import annotations

import weakref
from typing import Any


class Records:
    """While `active`, programs are made with a timed walker (`walk.py`)."""

    def __init__(self) -> None:
        self.active = False
        self.executables: weakref.WeakSet[Any] = weakref.WeakSet()
        """The programs that have one."""
        self.log: Any = None
        """Where they write. It stays when the timing ends: a thread may be at its last record."""


RECORDS = Records()
