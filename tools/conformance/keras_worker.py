"""Keras's own tests in one process, run by `keras.py`: `python -P keras_worker.py OPTIONS_AS_JSON`.

The wheel of Keras has the tests, but not the `conftest.py` they need; this file stands in for it. Each
thing that happens is a line of JSON in the file `channel`, written at once, so that a crash loses
nothing. tfn is imported only when Keras runs on it: the peers are measured without it.
"""

from __future__ import annotations

import json
import os
import re
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

TEST_GRAFTS = {"keras.src.trainers.trainer_test": "trainer.Trainer"}
"""Test modules that choose the class under test by the backend's name, as Keras's own modules do."""

OPTIONAL = ("PIL", "grain", "jax", "onnxruntime", "orbax", "pandas", "pydot", "scipy", "sklearn",
            "tensorboard", "tensorflow", "torch")
"""What Keras's tests import and Keras does not need. Without it a test is skipped."""

_LACKING = re.compile(r"ModuleNotFoundError: No module named '(\w+)|requires installing (TensorFlow)|"
                      r"(TensorFlow), which is not installed|"
                      r"requires the (\w+) module|requires (PIL)\b")
"""How Python and Keras say that a package is missing."""


def skip_if_backend(name: str, reason: str) -> pytest.MarkDecorator:
    """What test files import from `conftest`."""
    return pytest.mark.skipif(os.environ["KERAS_BACKEND"] == name, reason=reason)


class Suite:
    """The pytest plugin: marks, exclusions, and the channel."""

    def __init__(self, options: dict[str, Any]):
        self.root = Path(options["root"])
        self.backend: str = options["backend"]
        self.excluded: dict[str, str] = options["excluded"]
        self.done = set(options["done"])
        # Held open for the life of the process.
        self.channel = open(options["channel"], "a", encoding="utf-8", buffering=1)  # noqa: SIM115

    def below(self, test: str) -> str:
        """A test's id without the folders above the tests."""
        return test.removeprefix(f"{self.root.parent.name}/{self.root.name}/")

    def tell(self, **event: Any) -> None:
        self.channel.write(json.dumps(event) + "\n")

    def pytest_configure(self, config: pytest.Config) -> None:
        if self.backend == "tfn":
            from tfn.keras import plug  # type: ignore[import-not-found, unused-ignore]

            # Here, so that it comes before pytest's own finder.
            plug.GRAFTS.update(TEST_GRAFTS)
            plug.install()
        if self.root.parent.name == "keras":
            # Where it is missing, pytest makes modules for the packages above a test file.
            import_module("keras")
        for name in ("requires_trainable_backend", "multi_device"):
            config.addinivalue_line("markers", f"{name}: Keras's own")

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if self.below(item.nodeid) not in self.done]
        for item in items:
            reason = self.excluded.get(self.below(item.nodeid))
            if reason is None and item.get_closest_marker("multi_device"):
                reason = "needs several devices"
            if reason is None and self.backend == "numpy" and item.get_closest_marker(
                    "requires_trainable_backend"):
                reason = "the numpy backend does not train"
            if reason is not None:
                item.add_marker(pytest.mark.skip(reason=reason))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if not report.passed:
            self.tell(id=self.below(report.nodeid), **_said(report))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.tell(started=self.below(nodeid))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or not report.passed:
            self.tell(id=self.below(report.nodeid), **_said(report))

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.tell(finished=self.below(nodeid))


def _said(report: Any) -> dict[str, str]:
    """The outcome of a test, and why."""
    if report.passed:
        return {"outcome": "passed", "detail": ""}
    detail = _last_line(report)
    # The backend imports none of these: it is Keras or the test that asks.
    asked = _LACKING.search(detail)
    name = "" if asked is None else asked[asked.lastindex or 0].replace("TensorFlow", "tensorflow")
    if report.failed and name in OPTIONAL and find_spec(name) is None:
        return {"outcome": "skipped", "detail": f"needs {name}, which is not installed"}
    return {"outcome": report.outcome, "detail": detail}


def _last_line(report: Any) -> str:
    """The message of a failure, or the reason of a skip."""
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None:
        return f"{crash.path}:{crash.lineno}: {crash.message}"
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[-1])
    return next((line for line in reversed(str(report.longrepr).splitlines()) if line.strip()), "")


def main(options: dict[str, Any]) -> int:
    os.environ["KERAS_BACKEND"] = options["backend"]
    sys.modules["conftest"] = sys.modules[__name__]
    # The folder Keras is installed in: a test folder that is no package gets its modules' names by it.
    top = str(Path(options["root"]).parent.parent)
    return pytest.main(
        [*options["targets"], "--rootdir", top, "-q", "--import-mode=importlib",
         "--continue-on-collection-errors", "-p", "no:cacheprovider",
         "-o", "addopts=", "-W", "ignore", "--tb=short"],
        plugins=[Suite(options)])


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
