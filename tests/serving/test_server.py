"""The server as a process: where it says it is, signals, draining, and addresses it cannot use."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tfn.compiler.errors import TfnError
from tfn.serving import Server, serve

SECONDS = 60
X = [[1.0, 2.0, 3.0, 4.0]]
BODY = json.dumps({"instances": X}).encode()

PROGRAM = """
import sys
from pathlib import Path
from tfn.serving import serve
serve({"linear": Path(sys.argv[1])}, port=0, grace_seconds=float(sys.argv[2]))
print("after serve")
"""


class Process:
    """`serve` in a Python of its own; `url` is taken from the line it prints."""

    def __init__(self, base: Path, cwd: Path, grace: float):
        self.child = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(base), str(grace)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd,
        )  # fmt: skip
        self.line = self.child.stdout.readline()
        found = re.fullmatch(
            r"Serving linear \(version 1\) at (http://127\.0\.0\.1:(\d+))\n", self.line
        )
        assert found, self.line + self.child.stderr.read()
        self.url, self.port = found[1], int(found[2])

    def begin_request(self) -> socket.socket:
        """A connection whose request the server has begun: all is sent but the last byte."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS)
        head = f"POST /v1/models/linear:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}"
        connection.sendall(head.encode() + b"\r\nExpect: 100-continue\r\n\r\n")
        # The server asks for the body when the handler begins to read it.
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        connection.sendall(BODY[:-1])
        return connection

    def wait(self) -> tuple[int, str, str]:
        """Exit code, the rest of stdout, stderr."""
        out, err = self.child.communicate(timeout=SECONDS)
        return self.child.returncode, out, err


@pytest.fixture
def start(write, tmp_path):
    """`start(grace)` starts a server process; all are killed at the end."""
    base = write().parent
    started: list[Process] = []

    def go(grace: float = SECONDS) -> Process:
        started.append(Process(base, tmp_path, grace))
        return started[-1]

    yield go
    for process in started:
        process.child.kill()
        process.child.wait()
        process.child.stdout.close()
        process.child.stderr.close()


def wait_until(condition) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited for too long"
        time.sleep(0.01)


def refuses(process: Process) -> bool:
    try:
        socket.create_connection(("127.0.0.1", process.port), timeout=SECONDS).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_an_idle_server_with_exit_code_0(start, number):
    process = start()
    assert httpx.post(process.url + "/v1/models/linear:predict", content=BODY).status_code == 200
    process.child.send_signal(number)
    assert process.wait() == (0, "after serve\n", "")


def test_a_request_in_flight_is_answered_after_sigterm(start):
    process = start()
    with process.begin_request() as connection, httpx.Client(base_url=process.url) as client:
        assert client.get("/v1/health/ready").status_code == 200
        process.child.send_signal(signal.SIGTERM)
        wait_until(lambda: client.get("/v1/health/ready").status_code == 503)
        draining = client.get("/v1/health/ready")
        assert draining.json() == {"error": "The server is shutting down"}
        assert draining.headers["connection"] == "close"
        assert client.get("/v1/health/live").status_code == 200
        late = client.post("/v1/models/linear:predict", content=BODY)
        assert late.status_code == 200, "what still arrives is answered, too"
        assert process.child.poll() is None
        connection.sendall(BODY[-1:])
        # Head and body may come apart; the server closes the connection after them.
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert json.loads(answer.split(b"\r\n\r\n")[1])["predictions"] == late.json()["predictions"]
    assert process.wait() == (0, "after serve\n", "")


def test_an_idle_connection_does_not_delay_the_end(start):
    process = start()
    with httpx.Client(base_url=process.url) as client:
        client.get("/healthz")
        process.child.send_signal(signal.SIGTERM)
        assert process.wait()[0] == 0


def test_the_grace_time_ends_the_wait(start):
    process = start(grace=1.0)
    with process.begin_request():
        process.child.send_signal(signal.SIGTERM)
        code, out, _ = process.wait()
    assert (code, out) == (0, "after serve\n")


def test_a_second_signal_ends_the_wait(start):
    process = start()
    with process.begin_request(), httpx.Client(base_url=process.url) as client:
        process.child.send_signal(signal.SIGTERM)
        wait_until(lambda: client.get("/v1/health/ready").status_code == 503)
        process.child.send_signal(signal.SIGTERM)
        assert process.wait()[0] == 0


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_port_in_use_is_an_error_with_a_remedy(write):
    base = write().parent
    with (
        taken_port() as port,
        pytest.raises(TfnError, match=f"cannot listen on 127.0.0.1 port {port}: the port is in use")
        as caught,
    ):
        serve({"linear": base}, port=port)
    assert "choose port 0 to get a free one" in str(caught.value)


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [
        ("127.0.0.1", 70_000, "port 70000 does not exist"),
        ("no.such.host.invalid", 0, "cannot listen on no.such.host.invalid"),
        ("192.0.2.1", 0, "this machine does not have that address"),
    ],
)
def test_an_address_that_cannot_be_used(write, host, port, message):
    with pytest.raises(TfnError, match=message):
        serve({"linear": write().parent}, host=host, port=port)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("nowhere", "there is no directory"),
        ("", "has no version; expected a bundle in a directory named by a positive number"),
        ("linear/1", "is one version of a bundle; give the directory above it"),
    ],
)
def test_nothing_to_serve_is_an_error_with_a_remedy(write, tmp_path, place, message):
    write()
    with pytest.raises(TfnError, match=f"model linear: .*{message}"):
        serve({"linear": tmp_path / place}, port=0)


def test_a_damaged_bundle_is_named(write):
    path = write() / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(TfnError, match=r"version 1 cannot be served: .*weights.safetensors"):
        serve({"linear": path.parent.parent}, port=0)


def test_a_port_is_free_again_after_the_server(write):
    base = write().parent
    server = Server({"linear": base}, port=0)
    for _ in range(2):
        urls = []
        ready = threading.Event()
        thread = threading.Thread(
            target=server.run, args=(lambda url: (urls.append(url), ready.set()),)  # noqa: B023
        )
        thread.start()
        assert ready.wait(SECONDS)
        assert urls == [server.url]
        assert httpx.post(server.url + "/v1/models/linear:predict", content=BODY).is_success
        server.stop()
        thread.join(SECONDS)
        assert not thread.is_alive()
        server.stop()  # Once more does nothing.
        server = Server({"linear": base}, port=server.port)
    server._socket.close()


def test_ipv6(running, write):
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with running({"linear": write().parent}, host="::1") as server:
        assert server.url.startswith("http://[::1]:")
        assert httpx.get(server.url + "/v1/health/ready").status_code == 200
