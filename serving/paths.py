"""The URLs of TF Serving's REST API (http_rest_api_util.cc) and what they name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from .errors import ServingError, invalid

_CALL = re.compile(
    r"/v1/models/([^/:]+)(?:/versions/([0-9]+)|/labels/([^/:]+))?:(classify|regress|predict)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Call:
    """A POST to a model: which model, which of its versions, which method."""

    model: str
    version: int | None
    label: str | None
    method: str


def parse_call(path: str) -> Call | None:
    """The call an undecoded path names, None when it is no call at all.

    Raises `ServingError` (400) for a version beyond 64 bits.
    """
    match = _CALL.fullmatch(path)
    if match is None:
        return None
    model, version, label, method = match.groups()
    return Call(
        unquote(model),
        None if version is None else version_number(version),
        None if label is None else unquote(label),
        method.lower(),
    )


def version_number(text: str) -> int:
    """A version in a URL as a number; `ServingError` (400) when it does not fit in 64 bits."""
    number = int(text) if len(text) < 20 else 2**63
    if number >= 2**63:
        raise invalid(f"Failed to convert version: {text} to numeric.")
    return number


def malformed(method: str, path: str) -> ServingError:
    """TF Serving's answer to any path or verb below `/v1/` that it does not know."""
    return invalid(f"Malformed request: {method} {path}")


_STATUS = re.compile(
    r"/v1/models/([^/:]+)(?:(/versions/)([0-9]+)|(/labels/)([^/:]+))?(/metadata)?", re.IGNORECASE
)


def canonical(path: str) -> str:
    """A status or metadata path with its fixed words in lower case, any other path unchanged."""
    match = _STATUS.fullmatch(path)
    if match is None:
        return path.lower() if path.lower() == "/v1/models" else path
    model, versions, version, labels, label, metadata = (group or "" for group in match.groups())
    words = (versions.lower(), version, labels.lower(), label, metadata.lower())
    return f"/v1/models/{model}" + "".join(words)
