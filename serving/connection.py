"""uvicorn's HTTP connection with a limit on what a client may send before its request begins.

uvicorn bounds neither the time nor the size of a request's headers, so a few thousand connections
that send a byte now and then would hold the server's memory and files for ever.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .errors import error_body

_MAX_HEADER_BYTES = 64 << 10


class Http(HttpToolsProtocol):
    """A connection whose request headers must come soon and be short."""

    _timer: asyncio.TimerHandle | None = None
    _header_bytes = 0

    @property
    def _seconds(self) -> float:
        return self.config.app.limits.header_seconds  # type: ignore[union-attr]

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect_headers()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + len(": \r\n"))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, with the same body as every other error."""
        body = error_body(msg)
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode("ascii") + body)
        self.transport.close()

    def _expect_headers(self) -> None:
        self._stop_waiting()
        self._header_bytes = 0
        self._timer = self.loop.call_later(self._seconds, self._give_up)

    def _count(self, received: int) -> None:
        self._header_bytes += received
        if self._header_bytes > _MAX_HEADER_BYTES:
            raise ValueError("request headers too long")  # Ends as "Invalid HTTP request".

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
