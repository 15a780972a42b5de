"""Every error the compiler raises at a user, and where in the user's code it points.

An error says what was wrong, where (the user's file and line), what was expected with the actual
shapes or values, and what to do about it.
"""

from __future__ import annotations

import linecache
import os
import sys
from types import FrameType

from .ir.core import Location

_PACKAGE = os.path.dirname(os.path.abspath(__file__))
_ROOT = os.path.dirname(_PACKAGE)
_INTERNAL = [
    os.path.join(_ROOT, folder) + os.sep
    for folder in ("compiler", "keras", "distributed", "export", "serving", "compat", "tools")
]
_LIBRARY_PARTS = tuple(
    os.sep + part + os.sep for part in ("keras", "keras_hub", "optree", "tree")
)


class TfnError(Exception):
    """Base of tfn's own errors. `location` is the user's line, when there is one."""

    def __init__(self, message: str, location: Location | None = None):
        super().__init__(message)
        self.message = message
        self.location = location

    def __str__(self) -> str:
        if self.location is None:
            return self.message
        return f"{self.location}: {self.message}{excerpt(self.location)}"


def excerpt(location: Location) -> str:
    """The source line on a line of its own, with carets under the expression where it is known."""
    source = linecache.getline(location.file, location.line).rstrip()
    if not source:
        return ""
    shown = source.lstrip()
    columns = location.columns()
    if columns is None or len(shown) > _WIDEST:
        return f"\n    {shown[:_WIDEST]}"
    # Columns count UTF-8 bytes, from the beginning of the line.
    line = source.encode()
    start, end = columns[0], columns[1] if columns[1] >= 0 else len(line)
    before = len(line[:start].decode(errors="ignore")) - (len(source) - len(shown))
    width = max(len(line[start:end].decode(errors="ignore")), 1)
    return f"\n    {shown}\n    {' ' * max(before, 0)}{'^' * width}"


class OpError(TfnError, ValueError):
    """Operands, attributes or shapes an op does not accept; cites the spec's constraint."""


class TraceError(TfnError, TypeError):
    """A Python decision on a traced value, a leaked tracer, or a function jit cannot trace."""


class UnsupportedError(TfnError, NotImplementedError):
    """A program or target feature tfn does not have; it never returns a wrong number instead."""


class CompileError(TfnError):
    """Code generation failed: a defect of tfn, with the kernel's name for the report."""


class NanError(TfnError, FloatingPointError):
    """An operation made a NaN (or an infinity) out of finite numbers."""


class ParseError(TfnError, ValueError):
    """Malformed StableHLO text; `location` is the place in the text."""


def user_location() -> Location | None:
    """The innermost frame that is neither tfn nor a library between it and the user."""
    frame: FrameType | None = sys._getframe(1)
    last = None
    while frame is not None:
        file = frame.f_code.co_filename
        if not _is_internal(file):
            return _location(frame)
        last = frame
        frame = frame.f_back
    return _location(last) if last else None


def _location(frame: FrameType) -> Location:
    code = frame.f_code
    return Location(code.co_filename, frame.f_lineno, code.co_name, (code, frame.f_lasti))


_WIDEST = 200
"""A longer source line is cut."""

_KNOWN: dict[str, bool] = {}


def _is_internal(file: str) -> bool:
    known = _KNOWN.get(file)
    if known is None:
        path = os.path.abspath(file) if not file.startswith("<") else file
        site = "site-packages" in path
        known = (
            file.startswith("<")
            or any(path.startswith(folder) for folder in _INTERNAL)
            or (site and any(part in path for part in _LIBRARY_PARTS))
            or (os.sep + "lib" + os.sep + "python" in path and not site)
        )
        _KNOWN[file] = known
    return known
