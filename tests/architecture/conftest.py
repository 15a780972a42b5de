"""Copies of the repository and environments with tfn in them, for tests of how tfn is installed.

The environments share the site-packages of the running Python, so that making one takes a second.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

NO_SOURCES = shutil.ignore_patterns(
    ".*_cache", ".build", ".git", ".hypothesis", "*.egg-info", "__pycache__", "tfn-demo"
)


def environment_variables(**changes: str) -> dict[str, str]:
    """This process's variables without what would let a subprocess find tfn or choose a backend."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "KERAS"))}
    return kept | changes


@pytest.fixture(scope="session")
def clean_environment() -> Callable[..., dict[str, str]]:
    """See `environment_variables`."""
    return environment_variables


@pytest.fixture(scope="session")
def checkout(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository that tests may write to."""
    copy = tmp_path_factory.mktemp("clone") / "tfn-checkout"
    shutil.copytree(repository, copy, ignore=NO_SOURCES)
    return copy


def _environment(folder: Path, what: list[str]) -> str:
    """Make a virtual environment, pip-install `what` there, and return its Python."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = str(folder / "bin" / "python")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = folder / "lib" / version / "site-packages"
    (site / "zz_shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    result = subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, *install, "--ignore-installed", *what],
        env=environment_variables(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return python


@pytest.fixture(scope="session")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of tfn."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    result = subprocess.run(
        [*pip, "--wheel-dir", str(folder), str(checkout)],
        env=environment_variables(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return next(folder.glob("tfn-*.whl"))


@pytest.fixture(scope="session")
def wheel_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Python of an environment in which the wheel is installed."""
    return _environment(tmp_path_factory.mktemp("wheel-env"), [str(wheel)])


@pytest.fixture(scope="session")
def editable_python(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Python of an environment in which `checkout` is installed as editable."""
    return _environment(tmp_path_factory.mktemp("editable-env"), ["--editable", str(checkout)])
