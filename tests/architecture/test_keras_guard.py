"""The folder `keras/` of this repository never hides upstream Keras, whichever way Python starts.

Each way prints where `keras` and `tfn.keras` were found: the first must be upstream's, the second
ours.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path

import pytest

PROBE = """
import keras, tfn.keras
from keras import layers
print("FOUND", keras.__file__, tfn.keras.__file__, keras.__version__, sep="|")
"""

# What follows `python`, and where: relative to the checkout.
WAYS = {
    "python -c at the root": (["-c", PROBE], "."),
    "python -c in keras/": (["-c", PROBE], "keras"),
    "script at the root": (["probe.py"], "."),
    "script at the root, from elsewhere": (["{checkout}/probe.py"], "/"),
    "python -m pytest at the root": (
        ["-m", "pytest", "-sq", "-p", "no:cacheprovider", "probe.py"],
        ".",
    ),
    "python -P": (["-P", "-c", PROBE], "."),
}


def upstream() -> Path:
    """The `__init__.py` of the installed Keras, as its metadata tell."""
    return Path(str(distribution("keras").locate_file("keras/__init__.py")))


def check(command: list[str], folder: Path, variables: dict[str, str], home: Path) -> None:
    """Run `command` in `folder`; `keras` must be upstream's and `tfn.keras` that of `home`."""
    variables = variables | {"KERAS_BACKEND": "tfn"}
    result = subprocess.run(
        command, cwd=folder, env=variables, capture_output=True, text=True, check=False
    )
    found = [line for line in result.stdout.splitlines() if "FOUND|" in line]
    assert found, result.stdout + result.stderr
    _, keras, ours, version = found[0].split("|")
    assert Path(keras).samefile(upstream())
    assert Path(ours).samefile(home / "keras" / "__init__.py")
    assert version == distribution("keras").version


@pytest.fixture(scope="module")
def probed(checkout: Path) -> Path:
    """The checkout with a script at its root: as a script, and as a test."""
    script = PROBE + "\ndef test_both():\n    assert keras is not tfn.keras\n"
    (checkout / "probe.py").write_text(script)
    return checkout


@pytest.mark.parametrize("way", WAYS)
def test_editable_install(
    way: str, probed: Path, editable_python: str, clean_environment: Callable[..., dict]
) -> None:
    arguments, folder = WAYS[way]
    command = [editable_python, *(a.replace("{checkout}", str(probed)) for a in arguments)]
    check(command, probed / folder, clean_environment(), probed)


def test_root_on_the_python_path(
    probed: Path, editable_python: str, clean_environment: Callable[..., dict], tmp_path: Path
) -> None:
    variables = clean_environment(PYTHONPATH=str(probed))
    check([editable_python, "-c", PROBE], tmp_path, variables, probed)


@pytest.mark.parametrize("folder", ["elsewhere", "root"])
def test_wheel(
    folder: str,
    probed: Path,
    wheel_python: str,
    clean_environment: Callable[..., dict],
    tmp_path: Path,
) -> None:
    environment = Path(wheel_python).parent.parent
    (installed,) = environment.glob("lib/python*/site-packages/tfn")
    where = probed if folder == "root" else tmp_path
    check([wheel_python, "-c", PROBE], where, clean_environment(), installed)


def test_console_script_at_the_root(
    probed: Path, editable_python: str, clean_environment: Callable[..., dict]
) -> None:
    """pip's console scripts, made by hand with the probe for a body."""
    script = Path(editable_python).parent / "probe"
    script.write_text(f"#!{editable_python}\n{PROBE}")
    script.chmod(0o755)
    check([str(script)], probed, clean_environment(), probed)


def test_tfn_command_at_the_root(
    probed: Path, editable_python: str, clean_environment: Callable[..., dict]
) -> None:
    command = [str(Path(editable_python).parent / "tfn"), "--help"]
    result = subprocess.run(
        command, cwd=probed, env=clean_environment(), capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_this_process(repository: Path) -> None:
    """The tests themselves: under pytest, and under Bazel, whose runfiles are on sys.path."""
    import keras

    import tfn.keras

    assert Path(str(keras.__file__)).samefile(upstream())
    assert Path(str(tfn.keras.__file__)).samefile(repository / "keras" / "__init__.py")


def test_without_upstream_the_error_says_so(repository: Path) -> None:
    """Nothing but our folder: the import fails as if the folder were not there."""
    code = f"import sys; sys.path.insert(0, {str(repository)!r}); import keras"
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False
    )
    assert "ModuleNotFoundError" in result.stderr
