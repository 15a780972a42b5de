"""Locations in text, `loc(...)`: the user's line that an op of an imported program came from.

JAX writes them as aliases at the end of the text, several steps away from file and line; so ops are
noted while parsing and given their locations at the end.
"""

from __future__ import annotations

import re

from .core import Location, Op

_FILE = re.compile(r'"((?:[^"\\]|\\.)+)":(\d{1,9})')
_ALIAS = re.compile(r"#\w+")
_NAMED = re.compile(r'loc\("([^"/()]+)"\(')

_STEPS = 32
"""How many aliases may lie between an op and its file."""


class SourceLocations:
    """The `loc(...)` of ops and the `#alias = loc(...)` lines of one text."""

    def __init__(self) -> None:
        self.aliases: dict[str, str] = {}
        self.noted: list[tuple[Op, str]] = []
        self._found: dict[str, Location | None] = {}

    def resolve(self) -> None:
        """Give the noted ops the locations their text names; the others keep what they have."""
        for op, text in self.noted:
            if text not in self._found:
                self._found[text] = self._follow(text)
            op.location = self._found[text] or op.location

    def _follow(self, text: str) -> Location | None:
        function = ""
        for _ in range(_STEPS):
            named = _NAMED.match(text)
            function = named.group(1) if named else function
            place = _FILE.search(text)
            if place is not None:
                return Location(place.group(1), int(place.group(2)), function)
            # Of `callsite(#callee at #caller)` the callee is the line that made the op.
            alias = _ALIAS.search(text)
            if alias is None or alias.group() not in self.aliases:
                return None
            text = self.aliases[alias.group()]
        return None
