"""What `pip install` puts on a machine: the package, and a start-up file for `import keras`."""

from __future__ import annotations

import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

START_UP = "import keras, sys; print(keras.config.backend(), 'tfn' in sys.modules)"


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"tfn/__init__.py", "tfn/py.typed", "tfn/examples/digits.npz"} <= names
    assert {"tfn_boot.py", "tfn_boot.pth"} <= names
    top = {name.split("/")[0] for name in names}
    assert top == {
        "tfn",
        "tfn_boot.py",
        "tfn_boot.pth",
        f"{wheel.name.rsplit('-', 3)[0]}.dist-info",
    }
    assert not {name for name in names if name.startswith(("tfn/tests/", "tfn/setup"))}


def test_the_wheel_needs_no_compiler(wheel: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")


@pytest.mark.parametrize("kind", ["wheel_python", "editable_python"])
def test_a_script_that_imports_only_keras_gets_the_backend(
    kind: str,
    request: pytest.FixtureRequest,
    clean_environment: Callable[..., dict],
    tmp_path: Path,
) -> None:
    result = subprocess.run(
        [request.getfixturevalue(kind), "-c", START_UP],
        cwd=tmp_path,
        env=clean_environment(KERAS_BACKEND="tfn"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout == "tfn True\n", result.stderr


def test_python_starts_without_tfn_otherwise(
    wheel_python: str, clean_environment: Callable[..., dict]
) -> None:
    code = "import sys; print([m for m in sys.modules if m.startswith('tfn')])"
    result = subprocess.run(
        [wheel_python, "-c", code],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == "[]\n"
