"""The import contract, ruff and mypy hold for the whole tree."""

import subprocess
import sys
from pathlib import Path

import pytest


def run(command: list[str], directory: Path) -> None:
    """Run a checker in `directory`; its report is the failure's message."""
    result = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if result.returncode:
        pytest.fail(f"{' '.join(command)}\n{result.stdout}{result.stderr}", pytrace=False)


@pytest.fixture
def above(repository: Path, tmp_path: Path) -> Path:
    """A folder in which `tfn` is the repository: checkers see the package by its name."""
    (tmp_path / "tfn").symlink_to(repository, target_is_directory=True)
    return tmp_path


def test_imports_point_one_way(repository: Path, above: Path) -> None:
    contract = repository / "pyproject.toml"
    lint = f"import sys; sys.path.insert(0, {str(above)!r}); from importlinter import cli; "
    lint += f"sys.exit(cli.lint_imports(config_filename={str(contract)!r}, no_cache=True))"
    run([sys.executable, "-c", lint], above)


def test_ruff_finds_nothing(repository: Path) -> None:
    run([sys.executable, "-m", "ruff", "check", "--no-cache", "."], repository)


def test_types_agree(repository: Path, above: Path) -> None:
    configuration = f"--config-file={repository / 'pyproject.toml'}"
    cache = f"--cache-dir={above / 'cache'}"
    run([sys.executable, "-m", "mypy", configuration, cache, "-p", "tfn"], above)
