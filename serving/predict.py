"""`POST .../NAME:predict`: a bare ASGI handler, because routing and validation by FastAPI would
cost more than a small model (70 to 200 us per request).

It reads a bounded body in bounded time and turns it into a response with one plain function,
`answer`. Requests that are known to be quick run on the event loop; the others, and the first of
their size, run on a few threads, so that the loop goes on serving. Compiled code holds no lock of
Python's.
"""

from __future__ import annotations

import asyncio
import os
import time
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ..compiler.errors import TfnError
from .errors import ServingError, Status, error_body, invalid
from .json_tensor import read_inputs, signature_name, write_outputs
from .json_text import only_numbers, parse
from .paths import Call
from .repository import Repository, Servable

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


@dataclass(frozen=True)
class Limits:
    """What one client, or all of them together, may take from the server."""

    max_body_bytes: int = 64 << 20
    """A longer request body gets 413."""
    body_seconds: float = 60.0
    """A body that takes longer to arrive gets 408."""
    header_seconds: float = 10.0
    """A connection that does not send its request's headers in this time is closed."""
    max_in_flight: int = 256
    """Predictions read or computed at the same time; more get 503 with `Retry-After`."""
    max_held_bytes: int = 256 << 20
    """Bytes of request bodies in memory at the same time; beyond it, 503 with `Retry-After`."""
    loop_seconds: float = 0.001
    """The longest a prediction may occupy the event loop; a longer one goes to a thread."""


def answer(servable: Servable, body: bytes) -> bytes:
    """The response body of a predict request. Raises `ServingError` for anything wrong in it."""
    document = parse(body)
    signature = servable.signature(signature_name(document))
    form, inputs = read_inputs(document, signature, only_numbers(body))
    try:
        outputs = servable.run(signature.name, inputs)
    except TfnError as error:
        raise invalid(str(error)) from error
    return write_outputs(outputs, form)


class Predict:
    """Answers predict calls on a repository's models."""

    def __init__(self, repository: Repository, limits: Limits):
        self.repository = repository
        self.limits = limits
        self._threads = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="tfn-predict")
        self._seconds: dict[tuple[str, int, int], float] = {}
        self._in_flight = 0
        self.held_bytes = 0

    async def __call__(self, call: Call, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. A client that goes away before it has sent all gets nothing."""
        try:
            if call.method != "predict":
                raise ServingError(
                    Status.UNIMPLEMENTED,
                    f"{call.method} is not supported: a bundle has no examples, only tensors; use"
                    f" {call.model}:predict",
                )
            servable = self.repository.servable(call.model, call.version, call.label)
            if self._in_flight >= self.limits.max_in_flight:
                raise _busy(f"{self._in_flight} requests are in flight")
            self._in_flight += 1
            chunks: list[bytes] = []
            try:
                await self._read(scope, receive, chunks)
                content = await self._answer(
                    servable, chunks[0] if len(chunks) == 1 else b"".join(chunks)
                )
            finally:
                self._in_flight -= 1
                self.held_bytes -= sum(map(len, chunks))
        except ServingError as error:
            await send_error(error, receive, send)
        except _Disconnected:
            pass
        except Exception as error:
            traceback.print_exc()
            await send_error(
                ServingError(
                    Status.INTERNAL,
                    f"{type(error).__name__} in the server; its log has the details",
                ),
                receive,
                send,
            )
        else:
            await send(_start(200, content))
            await send({"type": "http.response.body", "body": content})

    async def _answer(self, servable: Servable, body: bytes) -> bytes:
        """Run `answer` on the loop or in a thread, whichever its size has shown to need."""
        size = (servable.name, servable.version, len(body).bit_length())
        expected = self._seconds.get(size)
        if expected is not None and expected < self.limits.loop_seconds:
            start = time.perf_counter()
            content = answer(servable, body)
            seconds = time.perf_counter() - start
        else:
            loop = asyncio.get_running_loop()
            content, seconds = await loop.run_in_executor(
                self._threads, _timed_answer, servable, body
            )
        # The first time includes whatever is done only once, so it is not averaged in.
        self._seconds[size] = seconds if expected is None else (expected + seconds) / 2
        return content

    async def _read(self, scope: Scope, receive: Receive, chunks: list[bytes]) -> None:
        """Append the body to `chunks`, counting its bytes as held.

        Raises `ServingError`: 413, 408, 503, or 400 for a compressed body.
        """
        limit = self.limits.max_body_bytes
        for name, value in scope["headers"]:
            if name == b"content-length" and int(value) > limit:
                raise _too_large(limit, f"has {int(value)} bytes")
            if name == b"content-encoding" and value.lower() != b"identity":
                raise invalid(
                    f"Content-Encoding {value.decode('latin-1')} is not supported; send the body"
                    " uncompressed"
                )
        size = 0
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _Disconnected
                    chunks.append(message.get("body", b""))
                    size += len(chunks[-1])
                    self.held_bytes += len(chunks[-1])
                    if size > limit:
                        raise _too_large(limit, "is longer")
                    if self.held_bytes > max(limit, self.limits.max_held_bytes):
                        raise _busy(f"{self.held_bytes} bytes of requests are in memory")
                    more = message.get("more_body", False)
        except TimeoutError:
            raise ServingError(
                Status.REQUEST_TIMEOUT,
                f"The body did not arrive within {self.limits.body_seconds:g} seconds;"
                f" {size} bytes came",
            ) from None


def _timed_answer(servable: Servable, body: bytes) -> tuple[bytes, float]:
    # This thread's own time: waiting for Python's lock in a thread would look like slow work, and
    # the request would never come back to the loop, where there is no such wait.
    start = time.thread_time()
    content = answer(servable, body)
    return content, time.thread_time() - start


def _busy(why: str) -> ServingError:
    return ServingError(Status.UNAVAILABLE, f"{why} already; try again later")


def _too_large(limit: int, what: str) -> ServingError:
    return ServingError(
        Status.CONTENT_TOO_LARGE,
        f"The request body {what}, the limit is {limit} bytes; send fewer instances per request or"
        " start the server with a higher limit",
    )


class _Disconnected(Exception):
    """The client closed the connection before its request was complete."""


# -- responses ------------------------------------------------------------------------------------

_LINGER_SECONDS = 10.0
"""How long the rest of a refused body is read and thrown away, so that a client that sends all of
it before it reads gets to see the answer instead of a reset connection."""

# Answers after which the connection cannot go on, or that ask the client to come back.
_EXTRA_HEADERS: dict[Status, list[tuple[bytes, bytes]]] = {
    Status.CONTENT_TOO_LARGE: [(b"connection", b"close")],
    Status.REQUEST_TIMEOUT: [(b"connection", b"close")],
    Status.UNAVAILABLE: [(b"retry-after", b"1")],
}


def _start(status: int, content: bytes) -> dict[str, Any]:
    return {
        "type": "http.response.start",
        "status": status,
        "headers": [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(content)).encode()),
        ],
    }


async def send_error(error: ServingError, receive: Receive, send: Send) -> None:
    """Send an error in TF Serving's form."""
    content = error_body(error.message)
    start = _start(error.status.http, content)
    start["headers"] += _EXTRA_HEADERS.get(error.status, [])
    await send(start)
    if error.status is Status.CONTENT_TOO_LARGE:
        await send({"type": "http.response.body", "body": content, "more_body": True})
        await _discard(receive)
        content = b""
    await send({"type": "http.response.body", "body": content})


async def _discard(receive: Receive) -> None:
    try:
        async with asyncio.timeout(_LINGER_SECONDS):
            while (await receive()).get("more_body"):
                pass
    except TimeoutError:
        pass
