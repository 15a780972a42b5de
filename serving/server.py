"""Runs the application: the socket, signals, draining, and the line that says where it is.

uvicorn speaks HTTP. Its own signal handling raises the signal again after it has shut down, so
that nothing behind it runs and the exit code is not 0; hence ours: on SIGTERM or SIGINT the
server is not ready any more at once, requests that have begun are finished, then `serve` returns.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import uvicorn

from ..compiler.errors import TfnError
from .app import Application
from .connection import Http
from .predict import Limits
from .repository import Repository, State

DEFAULT_PORT = 8501
"""TF Serving's port for REST."""

_POLL_SECONDS = 1.0
"""How often the base directories are looked at for new versions."""


def serve(
    models: Mapping[str, Path],
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    max_body_bytes: int = Limits.max_body_bytes,
    grace_seconds: float = 30.0,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve models over HTTP until SIGTERM or SIGINT; returns when the last request is answered.

    `models` maps a name to its base directory, which has one bundle per version. `port` 0 takes a
    free one. `on_ready` is called with the URL once every model is loaded and the server listens.
    After a signal, requests in flight have `grace_seconds` to finish. Raises `TfnError` when the
    address cannot be used or a model has no version that loads.
    """
    limits = Limits(max_body_bytes=max_body_bytes)
    Server(models, host, port, limits, grace_seconds).run(on_ready)


class Server:
    """A server that a program can also stop itself, from any thread. Arguments as for `serve`."""

    def __init__(
        self,
        models: Mapping[str, Path],
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        limits: Limits | None = None,
        grace_seconds: float = 30.0,
    ):
        self.repository = Repository(models)
        self.application = Application(self.repository, limits or Limits())
        self.grace_seconds = grace_seconds
        self.host = host
        self._socket = _listen(host, port)
        self.port: int = self._socket.getsockname()[1]
        self._uvicorn = _Uvicorn(
            uvicorn.Config(
                self.application,
                http=Http,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=None,
            )
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None

    @property
    def url(self) -> str:
        """Where the server is."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def run(self, on_ready: Callable[[str], None] | None = None) -> None:
        """Load the models, answer requests until `stop` or a signal, then drain and return."""
        try:
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                runner.run(self._run(on_ready))
        finally:
            self.repository.close()
            self._socket.close()

    def stop(self) -> None:
        """Begin to drain, as on SIGTERM. Safe from any thread, and more than once."""
        if self._loop is not None and self._stopping is not None:
            with contextlib.suppress(RuntimeError):  # The loop has ended already.
                self._loop.call_soon_threadsafe(self._stopping.set)

    async def _run(self, on_ready: Callable[[str], None] | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        with self._signals(self._loop):
            loading = asyncio.create_task(asyncio.to_thread(self.repository.refresh))
            stopping = asyncio.create_task(self._stopping.wait())
            await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not loading.done():
                return
            loading.result()
            self._check_models()
            self.repository.watch(_POLL_SECONDS)
            running = asyncio.create_task(self._uvicorn.serve(sockets=[self._socket]))
            print(self._announcement(), flush=True)
            if on_ready is not None:
                on_ready(self.url)
            await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                await self._drain(running)
            stopping.cancel()
            await running

    async def _drain(self, running: asyncio.Task[None]) -> None:
        """Finish what has begun, at most `grace_seconds`; refuse connections only after that.

        While the requests in flight at the signal are finished, the server goes on listening, so
        that load balancers see readiness 503 instead of connections that fail.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.grace_seconds
        self.application.draining = True
        begun = set(self.application.in_flight)
        while begun & self.application.in_flight and loop.time() < deadline:
            if self._uvicorn.force_exit:
                break
            await asyncio.sleep(0.02)
        self._uvicorn.config.timeout_graceful_shutdown = max(1, round(deadline - loop.time()))
        self._uvicorn.should_exit = True

    def _check_models(self) -> None:
        """Raise when there is nothing to serve; mention models that cannot be served."""
        problems = [
            _problem(name, self.repository)
            for name in self.repository.names
            if self.repository.serving(name) is None
        ]
        if problems and not any(map(self.repository.serving, self.repository.names)):
            raise TfnError("\n".join(problems))
        for problem in problems:
            print(f"warning: {problem}", file=sys.stderr, flush=True)

    def _announcement(self) -> str:
        served = [self.repository.serving(name) for name in self.repository.names]
        models = ", ".join(f"{s.name} (version {s.version})" for s in served if s is not None)
        return f"Serving {models} at {self.url}"

    @contextlib.contextmanager
    def _signals(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        """Drain on SIGTERM and SIGINT; a second signal ends the wait for requests in flight."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def received() -> None:
            assert self._stopping is not None
            self._uvicorn.force_exit = self._stopping.is_set()
            self._stopping.set()

        caught = (signal.SIGTERM, signal.SIGINT)
        for number in caught:
            loop.add_signal_handler(number, received)
        try:
            yield
        finally:
            for number in caught:
                loop.remove_signal_handler(number)


class _Uvicorn(uvicorn.Server):
    """uvicorn without signal handling of its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _problem(name: str, repository: Repository) -> str:
    """Why a model cannot be served, in one sentence with a remedy."""
    base = repository.base(name)
    damaged = [s for s in repository.states(name) if s.state is State.END]
    if damaged:
        return f"model {name}: version {damaged[0].version} cannot be served: " + (
            damaged[0].error_message
        )
    if (base / "bundle.json").exists():
        return (
            f"model {name}: {base} is one version of a bundle; give the directory above it,"
            f" {base.parent}"
        )
    if not base.is_dir():
        return f"model {name}: there is no directory {base}; export a bundle there first"
    return (
        f"model {name}: {base} has no version; expected a bundle in a directory named by a positive"
        f" number, such as {base / '1' / 'bundle.json'}"
    )


_REMEDIES = {
    errno.EADDRINUSE: "the port is in use; stop the program that has it, choose another port, or"
    " choose port 0 to get a free one",
    errno.EACCES: "ports below 1024 need privileges; choose a higher one",
    errno.EADDRNOTAVAIL: "this machine does not have that address; use 127.0.0.1 (this machine"
    " only) or 0.0.0.0 (everybody)",
}


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket. Raises `TfnError` with the remedy when the address cannot be used."""
    if not 0 <= port < 65536:
        raise TfnError(f"port {port} does not exist; choose 1 to 65535, or 0 for a free one")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise TfnError(
            f"cannot listen on {host}: {error.strerror}; use 127.0.0.1 (this machine only) or"
            " 0.0.0.0 (everybody)"
        ) from error
    listener = socket.socket(family, kind, protocol)
    # A port whose last connections are still timing out can be taken again; a used one cannot.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        remedy = _REMEDIES.get(error.errno or 0, error.strerror)
        raise TfnError(f"cannot listen on {host} port {port}: {remedy}") from error
    return listener


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where it exists (not on Windows): twice the requests per second."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
