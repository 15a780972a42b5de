"""The package list of pyproject.toml and the packages of the tree are the same."""

import tomllib
from pathlib import Path

import pytest

# Folders of the repository that are no part of the package `tfn`.
OUTSIDE_THE_PACKAGE = {"tests", "docs", "build", "dist"}


def packages_of_tree(root: Path) -> set[str]:
    """Every folder with an `__init__.py`, as a dotted name below `tfn`."""
    found = set()
    for file in root.rglob("__init__.py"):
        parts = file.relative_to(root).parts[:-1]
        if parts and (parts[0] in OUTSIDE_THE_PACKAGE or parts[0].startswith((".", "bazel-"))):
            continue
        if "site-packages" not in parts:
            found.add(".".join(("tfn", *parts)))
    return found


@pytest.fixture(scope="module")
def project(repository: Path) -> dict:
    return tomllib.loads((repository / "pyproject.toml").read_text())


def test_every_package_is_listed_once(repository: Path, project: dict) -> None:
    listed = project["tool"]["setuptools"]["packages"]
    assert sorted(packages_of_tree(repository)) == listed


def test_the_root_has_no_stray_modules(repository: Path) -> None:
    assert {f.name for f in repository.glob("*.py")} <= {"__init__.py", "setup.py"}
