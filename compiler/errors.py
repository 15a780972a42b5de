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
_INTERNAL = tuple(
    os.path.join(_ROOT, folder) + os.sep
    for folder in ("compiler", "keras", "distributed", "export", "serving", "compat", "tools")
)
_LIBRARY_PARTS = tuple(
    os.sep + part + os.sep for part in ("keras", "keras_hub", "optree", "tree")
)


class TfnError(Exception):
    """Base of tfn's own errors. `location` is the user's line, when there is one; `related` another
    place that matters, with words for it (`("it was made", location)`)."""

    def __init__(self, message: str, location: Location | None = None,
                 related: tuple[str, Location] | None = None):
        super().__init__(message)
        self.message = message
        self.location = location
        self.related = related

    def __str__(self) -> str:
        report = self.message
        if self.location is not None:
            report = f"{self.location}{self.location.inside()}: {report}{excerpt(self.location)}"
        if self.related is not None and str(self.related[1]) != str(self.location):
            words, place = self.related
            report += f"\n{words} at {place}{place.inside()}:{excerpt(place)}"
        return report

    @property
    def args(self) -> tuple[str]:  # type: ignore[override]
        """The whole report: Keras makes a new error of this, which would lose the place."""
        return (str(self),)


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
    """An operation made a NaN (or an infinity) that none of its operands holds."""


class DonatedError(TfnError, RuntimeError):
    """An array whose memory was given to a compiled function is used again."""


class ParseError(TfnError, ValueError):
    """Malformed StableHLO text; `location` is the place in the text."""


def user_location(scope: str = "") -> Location | None:
    """The innermost frame that is neither tfn nor a library between it and the user.

    The library's own frame nearest to tfn is kept beside it: in a model made of a library's layers it
    tells which one; `scope` is that layer's path.
    """
    frame: FrameType | None = sys._getframe(1)
    last = library = None
    while frame is not None:
        whose = _KNOWN.get(frame.f_code.co_filename) or _classify(frame.f_code.co_filename)
        if whose is _USER:
            return _location(frame, library, scope)
        if whose is _LIBRARY and library is None:
            library = (frame.f_code, frame.f_lineno)
        last = frame
        frame = frame.f_back
    return _location(last, None, scope) if last else None


def _location(frame: FrameType, library: tuple | None, scope: str) -> Location:
    code = frame.f_code
    return Location(code.co_filename, frame.f_lineno, code.co_name, (code, frame.f_lasti), library,
                    scope=scope)


_WIDEST = 200
"""A longer source line is cut."""

_TFN, _LIBRARY, _USER = "tfn", "library", "user"

_PLUMBING = tuple(part.replace("/", os.sep) for part in (
    "/keras/src/ops/", "/keras/src/utils/", "/keras/src/backend/", "/keras/src/tree/",
    "/keras/src/trainers/", "/optree/", "/tree/"))
"""Parts of libraries that only pass on what others ask for."""

_GENERATED = ("<frozen ", "<__array_function__", "<attrs ", "<decorator-gen")
"""Code without a file that no user wrote; `<stdin>`, `<string>` and doctests are the user's."""

_KNOWN: dict[str, str] = {}
"""Whose code a file is."""


def _classify(file: str) -> str:
    path = os.path.abspath(file) if not file.startswith("<") else file
    site = "site-packages" in path
    standard = os.sep + "lib" + os.sep + "python" in path and not site
    if standard or file.startswith(_GENERATED) or path.startswith(_INTERNAL):
        whose = _TFN
    elif site and any(part in path for part in _LIBRARY_PARTS):
        whose = _TFN if any(part in path for part in _PLUMBING) else _LIBRARY
    else:
        whose = _USER
    _KNOWN[file] = whose
    return whose
