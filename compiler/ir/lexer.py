"""Splits StableHLO text into tokens for `ir/parser.py`.

One regular expression does the work. A tensor type and a dense literal are one token each: they
are the bulk of real programs, and the parser caches the former and scans the latter with NumPy.
"""

from __future__ import annotations

import re
from bisect import bisect_right

from ..errors import ParseError
from .core import Location

_TOKEN = re.compile(
    r"""
    (?P<skip>\s++|//[^\n]*+)
  | (?P<token>
        "(?:[^"\\\n]|\\.)*+"                               # string
      | dense<(?:"[^"]*+"|[^">]*+)>                        # literal: hex string, splat or list
      | tensor<(?:[^<>]++|<(?:[^<>]++|<[^<>]*+>)*+>)*+>    # tensor type, encodings included
      | %[\w$.-]++(?:\#\d++)?                              # value, or one result of several
      | @(?:[\w$.-]++|"(?:[^"\\\n]|\\.)*+")                # symbol
      | \^[\w$.-]++                                        # block label
      | \#[\w$.]*+                                         # attribute of a dialect, or an alias
      | ![\w$.]++                                          # type of a dialect
      | ->
      | -?0x[0-9a-fA-F]++
      | -?\d++(?:\.\d*+(?:[eE][-+]?\d++)?)?
      | [A-Za-z_][\w$.]*+                                  # keyword, op name, attribute name
      | [(){}\[\]<>,:=*+/?|;-]
    )
    """,
    re.VERBOSE | re.ASCII,
)

_LONGEST = 500
"""A longer message is cut."""


class Tokens:
    """The tokens of a text: `texts[i]` begins at character `starts[i]`; the last one is empty."""

    def __init__(self, text: str, filename: str):
        self.text = text
        self.filename = filename
        self.texts: list[str] = []
        self.starts: list[int] = []
        self._lines: list[int] | None = None
        position = 0
        for match in _TOKEN.finditer(text):
            if match.start() != position:
                break
            position = match.end()
            if match.lastgroup == "token":
                self.texts.append(match.group())
                self.starts.append(match.start())
        if position != len(text):
            self.texts.append(text[position])
            self.starts.append(position)
            raise self.error(len(self.texts) - 1, f"unexpected character {text[position]!r}")
        self.texts.append("")
        self.starts.append(len(text))

    def place(self, index: int) -> tuple[int, int]:
        """Line and column, both from 1, of token `index`."""
        if self._lines is None:
            self._lines = [0, *(m.end() for m in re.finditer("\n", self.text))]
        line = bisect_right(self._lines, self.starts[index])
        return line, self.starts[index] - self._lines[line - 1] + 1

    def location(self, index: int) -> Location:
        line, column = self.place(index)
        return Location(self.filename, line, "", self._span(index, column))

    def _span(self, index: int, column: int) -> tuple[int, int]:
        return column - 1, column - 1 + max(len(self.texts[index]), 1)

    def error(self, index: int, message: str, kind: type = ParseError):
        """An error at token `index`, to be raised; the message names the column."""
        line, column = self.place(index)
        if len(message) > _LONGEST:  # It may quote a literal.
            message = message[:_LONGEST - 3] + "..."
        return kind(f"{message} (column {column})",
                    Location(self.filename, line, "", self._span(index, column)))
