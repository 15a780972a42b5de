"""The errors a client sees: TensorFlow's status codes, their HTTP codes and TF Serving's body.

Everything below `serving/` raises `ServingError`; the ASGI handlers turn it into one response.
"""

from __future__ import annotations

import json
from enum import Enum

from ..compiler.errors import TfnError


class Status(Enum):
    """A canonical status code and the HTTP code TF Serving answers it with (http_server.cc)."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT", 400
    FAILED_PRECONDITION = "FAILED_PRECONDITION", 400
    OUT_OF_RANGE = "OUT_OF_RANGE", 400
    UNAUTHENTICATED = "UNAUTHENTICATED", 401
    PERMISSION_DENIED = "PERMISSION_DENIED", 403
    NOT_FOUND = "NOT_FOUND", 404
    ALREADY_EXISTS = "ALREADY_EXISTS", 409
    ABORTED = "ABORTED", 409
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED", 429
    CANCELLED = "CANCELLED", 499
    UNKNOWN = "UNKNOWN", 500
    INTERNAL = "INTERNAL", 500
    DATA_LOSS = "DATA_LOSS", 500
    UNIMPLEMENTED = "UNIMPLEMENTED", 501
    UNAVAILABLE = "UNAVAILABLE", 503
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED", 504
    # Two cases TF Serving has no limit for: a body over the limit, a client that stops sending.
    CONTENT_TOO_LARGE = "CONTENT_TOO_LARGE", 413
    REQUEST_TIMEOUT = "REQUEST_TIMEOUT", 408

    @property
    def http(self) -> int:
        """The HTTP status code."""
        return self.value[1]


class ServingError(TfnError):
    """A request that cannot be answered: `status` decides the HTTP code, `message` is the body."""

    def __init__(self, status: Status, message: str):
        super().__init__(message)
        self.status = status


def invalid(message: str) -> ServingError:
    """The most frequent error: the request itself is wrong."""
    return ServingError(Status.INVALID_ARGUMENT, message)


def error_body(message: str) -> bytes:
    """TF Serving's error body. ASCII only: a message may quote text that is not valid UTF-8."""
    return json.dumps({"error": message}).encode("ascii")
