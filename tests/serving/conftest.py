"""Bundles, repositories on disk and real servers on free loopback ports, as fixtures."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

import tfn.compiler.numpy as tnp
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dims import Dim
from tfn.compiler.ir.dtypes import F32, I32, as_dtype
from tfn.compiler.trace.core import trace
from tfn.export.bundle import Bundle, Signature, TensorSpec, write_bundle
from tfn.serving import Limits, Server

BATCH = Dim.named("batch")
SECONDS = 60
"""Longer than any of these tests waits when all is well, on a busy machine too."""


def _signature(name, function, weights, inputs, outputs) -> Signature:
    """`function(*weights, *inputs)` as a signature; `inputs` are specs, `outputs` names."""
    types = [TensorType(w.shape, as_dtype(w.dtype)) for w in weights.values()]
    traced, _ = trace(function, [*types, *(spec.type for spec in inputs)], name)
    specs = tuple(
        TensorSpec(output, t.dtype, t.shape)
        for output, t in zip(outputs, traced.result_types, strict=True)
    )
    return Signature(name, traced, tuple(inputs), specs, tuple(weights))


def linear_bundle(name: str = "linear", version: int = 1, scale: float = 1.0) -> Bundle:
    """`y = scale * (x @ w + b)` with 4 features and 3 results, and some other signatures.

    `two` has two inputs and two outputs, `total` a scalar output, `positive` a boolean one.
    """
    rng = np.random.default_rng(7)
    weights = {
        "w": (scale * rng.normal(size=(4, 3))).astype(np.float32),
        "b": (scale * rng.normal(size=3)).astype(np.float32),
    }
    x = TensorSpec("x", F32, (BATCH, 4))
    pair = [TensorSpec("a", F32, (BATCH, 2)), TensorSpec("n", I32, (BATCH,))]
    signatures = [
        _signature(
            "serving_default", lambda w, b, x: [tnp.matmul(x, w) + b], weights, [x], ["y"]
        ),
        _signature("two", lambda a, n: [a + a, n + n], {}, pair, ["double_a", "double_n"]),
        _signature("total", lambda x: [tnp.sum(x)], {}, [x], ["total"]),
        _signature("positive", lambda x: [x > 0], {}, [x], ["positive"]),
    ]
    return Bundle(name, version, {s.name: s for s in signatures}, weights, {"tfn": "test"})


@pytest.fixture(scope="session")
def linear() -> Bundle:
    return linear_bundle()


@pytest.fixture(scope="session")
def expected(linear: Bundle) -> Callable[[object], np.ndarray]:
    """The linear model in NumPy."""
    w, b = linear.weights["w"], linear.weights["b"]
    return lambda x: np.asarray(x, np.float32) @ w + b


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """`write(version, scale)` puts a version of the linear model on disk; returns its directory."""

    def put(version: int = 1, scale: float = 1.0, overwrite: bool = False) -> Path:
        return write_bundle(tmp_path, linear_bundle("linear", version, scale), overwrite)

    return put


@contextmanager
def serving(models: dict[str, Path], **options) -> Iterator[Server]:
    """A server in a thread of this process, stopped at the end."""
    server = Server(models, port=0, **options)
    ready = threading.Event()
    thread = threading.Thread(target=server.run, args=(lambda url: ready.set(),), daemon=True)
    thread.start()
    assert ready.wait(SECONDS), "the server did not start"
    try:
        yield server
    finally:
        server.stop()
        thread.join(SECONDS)
        assert not thread.is_alive(), "the server did not stop"


@pytest.fixture
def running() -> Callable:
    """The function `serving`, for tests that need a server of their own."""
    return serving


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory, linear: Bundle) -> Iterator[httpx.Client]:
    """A client of a server with the model `linear`, version 1. Its body limit is 1 MiB."""
    base = write_bundle(tmp_path_factory.mktemp("models"), linear).parent
    with (
        serving({"linear": base}, limits=Limits(max_body_bytes=1 << 20)) as server,
        httpx.Client(base_url=server.url, timeout=SECONDS) as client,
    ):
        yield client
