"""Predictions over HTTP: what TF Serving's clients send, and everything that is wrong with it."""

import contextlib
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfn.serving import Limits

URL = "/v1/models/linear:predict"
X = [[1.0, 2.0, 3.0, 4.0], [0.5, -1.0, 0.25, 8.0]]


def post(client, body, url=URL):
    """The status and the parsed answer; a body that is no bytes is sent as JSON."""
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    answer = client.post(url, content=body)
    assert answer.headers["content-type"] == "application/json"
    return answer.status_code, json.loads(answer.content)


@pytest.mark.parametrize(
    "url", [URL, "/v1/models/linear/versions/1:predict", "/V1/Models/linear/Versions/1:PREDICT"]
)
def test_rows(client, expected, url):
    code, answer = post(client, {"instances": X}, url)
    assert code == 200
    np.testing.assert_allclose(answer["predictions"], expected(X), rtol=1e-6)


def test_columns(client, expected):
    for inputs in (X, {"x": X}):
        code, answer = post(client, {"signature_name": "serving_default", "inputs": inputs})
        assert code == 200
        np.testing.assert_allclose(answer["outputs"], expected(X), rtol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 3, 17, 300])
def test_any_batch_size(client, expected, count):
    x = np.random.default_rng(count).normal(size=(count, 4)).astype(np.float32)
    code, answer = post(client, {"instances": x.tolist()})
    assert code == 200
    np.testing.assert_allclose(answer["predictions"], expected(x), rtol=1e-5, atol=1e-6)


def test_several_inputs_and_outputs(client):
    rows = [{"a": [1, 2], "n": 3}, {"a": [4, 5], "n": 6}]
    code, answer = post(client, {"signature_name": "two", "instances": rows})
    assert (code, answer) == (
        200,
        {"predictions": [
            {"double_a": [2.0, 4.0], "double_n": 6}, {"double_a": [8.0, 10.0], "double_n": 12},
        ]},
    )
    columns = {"a": [[1, 2], [4, 5]], "n": [3, 6]}
    code, answer = post(client, {"signature_name": "two", "inputs": columns})
    assert (code, answer) == (
        200, {"outputs": {"double_a": [[2.0, 4.0], [8.0, 10.0]], "double_n": [6, 12]}}
    )


def test_booleans(client):
    code, answer = post(client, {"signature_name": "positive", "instances": [[1, -1, 0, 2]]})
    assert (code, answer) == (200, {"predictions": [[True, False, False, True]]})


def test_nan_and_infinity_go_in_and_out(client):
    body = b'{"signature_name": "two", "inputs": {"a": [[NaN, -Infinity]], "n": [1]}}'
    answer = client.post(URL, content=body)
    assert answer.status_code == 200
    assert b"[[NaN, -Infinity]]" in answer.content


def test_a_scalar_output_has_no_rows(client):
    request = {"signature_name": "total", "inputs": [[1, 2, 3, 4]]}
    assert post(client, request) == (200, {"outputs": 10.0})
    code, answer = post(client, {"signature_name": "total", "instances": [[1, 2, 3, 4]]})
    assert code == 400
    assert "Tensor name: total has no shape information" in answer["error"]


BAD = [
    # (body, part of the message), each a 400
    (b"", "JSON Parse error: The document is empty"),
    (b"instances = [1, 2]", "JSON Parse error: Invalid value"),
    (b'{"instances": [[1, 2', "JSON Parse error"),
    (b"null", "JSON Value: null Is not object"),
    (b"[]", "JSON Value: [] Is not object"),
    (b"\xff\xfe{}", "Invalid encoding in string"),
    (b"{}", "Missing 'inputs' or 'instances' key"),
    ({"instances": X, "inputs": X}, "Not formatted correctly"),
    ({"instances": []}, "No values in 'instances' array"),
    ({"instances": [[1, 2, 3, 4], [1, 2]]}, "Expecting tensor size: 4 but got: 2"),
    ({"instances": [[1, 2, 3]]}, 'Input "x" has shape [1,3]'),
    ({"instances": [["a", "b", "c", "d"]]}, "not of expected type: float"),
    ({"instances": [[1, 2, 3, None]]}, "not of expected type: float"),
    ({"inputs": [1, 2, 3, 4]}, 'Input "x" has shape [4]'),
    ({"instances": X, "signature_name": 100}, "'signature_name' key must be a string value"),
    ({"instances": X, "signature_name": "no"}, 'Serving signature name: "no" not found'),
    (b'{"instances": [[1e400, 0, 0, 0]]}', "Number too big to be stored in double"),
    (b'{"instances": [1], "deep": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "nested too deeply"),
    (b'{"signature_name": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "nested too deeply"),
    (b'{"instances": "\\ud800"}', "Expecting 'instances' to be an list/array"),
]


@pytest.mark.parametrize(("body", "message"), BAD, ids=lambda v: str(v)[:30])
def test_a_wrong_body_is_a_400_that_says_why(client, expected, body, message):
    code, answer = post(client, body)
    assert code == 400
    assert message in answer["error"]
    assert list(answer) == ["error"]
    assert post(client, {"instances": X})[0] == 200


@pytest.mark.parametrize(
    ("url", "code", "message"),
    [
        ("/v1/models/nobody:predict", 404, "Servable not found for request: Latest(nobody)"),
        (
            "/v1/models/linear/versions/99:predict",
            404,
            "Servable not found for request: Specific(linear, 99)",
        ),
        ("/v1/models/a%20b:predict", 404, "Servable not found for request: Latest(a b)"),
        ("/v1/models/linear/labels/canary:predict", 400, "Unrecognized servable version label"),
        (
            f"/v1/models/linear/versions/{2**64 - 1}:predict",
            400,
            f"Failed to convert version: {2**64 - 1} to numeric.",
        ),
        ("/v1/models/linear/versions/HELLO:predict", 400, "Malformed request: POST /v1/models"),
        ("/v1/models/linear/version/1:predict", 400, "Malformed request"),
        ("/v1/models/linear/versions/1/labels/canary:predict", 400, "Malformed request"),
        ("/v1/models/linear", 400, "Malformed request: POST /v1/models/linear"),
        ("/v1/models", 400, "Malformed request: POST /v1/models"),
        ("/v1/models/linear:guess", 400, "Malformed request: POST /v1/models/linear:guess"),
        ("/v1/models/linear:classify", 501, "classify is not supported"),
        ("/v1/models/linear:regress", 501, "regress is not supported"),
    ],
)
def test_a_wrong_url(client, url, code, message):
    assert (result := post(client, {"instances": X}, url))[0] == code
    assert message in result[1]["error"]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_a_wrong_verb(client, method):
    answer = client.request(method, URL)
    assert answer.status_code == 400
    assert answer.json() == {"error": f"Malformed request: {method} {URL}"}


def test_a_compressed_body_is_refused(client):
    answer = client.post(URL, content=b"...", headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 400
    assert "Content-Encoding gzip is not supported" in answer.json()["error"]


def stream(size):
    for _ in range(size >> 16):
        yield b" " * (1 << 16)


@pytest.mark.parametrize(
    "content", [b" " * (5 << 20), stream(5 << 20)], ids=["declared", "chunked"]
)
def test_a_body_over_the_limit_is_a_413(client, content):
    answer = client.post(URL, content=content)
    assert answer.status_code == 413
    assert "the limit is 1048576 bytes" in answer.json()["error"]
    assert answer.headers["connection"] == "close"
    assert post(client, {"instances": X})[0] == 200


def test_a_body_at_the_limit_is_read(client):
    body = json.dumps({"instances": X}).encode()
    code, _ = post(client, body + b" " * ((1 << 20) - len(body)))
    assert code == 200


def test_requests_at_the_same_time_get_their_own_answers(client, expected):
    def ask(i):
        x = np.full((1 + i % 5, 4), i, np.float32)
        code, answer = post(client, {"instances": x.tolist()})
        assert code == 200
        np.testing.assert_allclose(answer["predictions"], expected(x), rtol=1e-5)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(200)))


# -- clients that are slow, many, or no HTTP clients ----------------------------------------------


@pytest.fixture
def limited(running, write):
    """A server with short times, and a limit of one request in flight."""
    limits = Limits(body_seconds=0.5, header_seconds=0.5, max_in_flight=1)
    with running({"linear": write().parent}, limits=limits) as server:
        yield server


def connect(server) -> socket.socket:
    connection = socket.create_connection((server.host, server.port), timeout=30)
    connection.settimeout(30)
    return connection


def read_all(connection: socket.socket) -> bytes:
    """What the server sends until it closes the connection, politely or not."""
    chunks = []
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(1 << 16):
            chunks.append(chunk)
    return b"".join(chunks)


HEAD = f"POST {URL} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n".encode()


def test_a_body_that_does_not_come_is_a_408(limited):
    with connect(limited) as connection:
        connection.sendall(HEAD + b"{")
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'{"error": "The body did not arrive within 0.5 seconds; 1 bytes came"}' in answer


@pytest.mark.parametrize("sent", [b"", b"POST / HT", b"POST / HTTP/1.1\r\nHost: x\r\nA: "])
def test_headers_that_do_not_come_end_the_connection(limited, sent):
    with connect(limited) as connection:
        connection.sendall(sent)
        assert read_all(connection) == b""


def test_headers_without_end_are_refused(limited):
    with connect(limited) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 30_000 + b"\r\n")
        # What was not read when the server closed may take the answer with it.
        assert read_all(connection)[:13] in (b"", b"HTTP/1.1 400 ")


def test_what_is_not_http_is_refused(limited):
    with connect(limited) as connection:
        connection.sendall(b"\x16\x03\x01\x00\xa5 this is TLS\r\n\r\n")
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'{"error": "Invalid HTTP request received."}' in answer


def test_more_requests_than_allowed_get_503_and_later_200(limited):
    with connect(limited) as first:
        first.sendall(HEAD + b"{")
        deadline = time.monotonic() + 30
        while not limited.application.in_flight and time.monotonic() < deadline:
            time.sleep(0.01)
        busy = httpx.post(limited.url + URL, json={"instances": X})
        assert busy.status_code == 503
        assert busy.headers["retry-after"] == "1"
        assert "try again later" in busy.json()["error"]
        read_all(first)
    assert httpx.post(limited.url + URL, json={"instances": X}).status_code == 200


def test_bodies_in_memory_are_bounded_together(running, write):
    limits = Limits(max_body_bytes=100, max_held_bytes=150)
    with running({"linear": write().parent}, limits=limits) as server:
        with connect(server) as first, connect(server) as second:
            first.sendall(HEAD + b" " * 99)
            deadline = time.monotonic() + 30
            while server.application.held_bytes < 99 and time.monotonic() < deadline:
                time.sleep(0.01)
            second.sendall(HEAD + b" " * 99)
            answer = b""
            while b"}" not in answer:
                answer += second.recv(1 << 16)
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"198 bytes of requests are in memory already" in answer
        deadline = time.monotonic() + 30
        while server.application.held_bytes and time.monotonic() < deadline:
            time.sleep(0.01)
        assert httpx.post(server.url + URL, json={"instances": X}).status_code == 200


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data())
def test_no_body_is_a_fault_of_the_server(client, data):
    """Bytes changed, removed and put in anywhere give 200 or 400, never 5xx."""
    valid = data.draw(st.sampled_from(SEEDS))
    body = bytearray(valid)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(body)))
        cut = data.draw(st.integers(0, 3))
        body[place : place + cut] = data.draw(st.sampled_from(TOKENS) | st.binary(max_size=3))
    answer = client.post(URL, content=bytes(body))
    assert answer.status_code in (200, 400), (bytes(body), answer.text)
    if answer.status_code == 400:
        assert list(json.loads(answer.content)) == ["error"]


SEEDS = [
    json.dumps({"instances": X}).encode(),
    json.dumps({"signature_name": "serving_default", "inputs": {"x": X}}).encode(),
    json.dumps({"signature_name": "two", "instances": [{"a": [1, 2], "n": 3}] * 2}).encode(),
]
TOKENS = [b"[", b"]", b"{", b"}", b",", b":", b'"', b"null", b"true", b"NaN", b"-", b"1e999",
          b"99999999999999999999", b'{"b64": "aGk="}', b"\xff", b"\0", b"-Infinity", b"1.5"]


def test_a_client_that_leaves_costs_nothing(limited):
    for _ in range(20):
        with connect(limited) as connection:
            connection.sendall(HEAD + b"{")
    deadline = time.monotonic() + 30
    while limited.application.in_flight and time.monotonic() < deadline:
        time.sleep(0.01)
    assert httpx.post(limited.url + URL, json={"instances": X}).status_code == 200
