"""Every package has its BUILD file, and every test file of the tree is a Bazel target."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

PACKAGES = ("compat", "compiler", "distributed", "examples", "export", "keras", "serving", "tools")


def folders_with_tests(root: Path) -> list[Path]:
    return sorted({file.parent for file in (root / "tests").rglob("test_*.py")})


def build_file(folder: Path) -> Path:
    """The BUILD file whose package `folder` belongs to."""
    return next(d / "BUILD" for d in (folder, *folder.parents) if (d / "BUILD").exists())


def test_every_package_has_a_build_file(repository: Path) -> None:
    missing = [
        str(file.parent.relative_to(repository))
        for package in PACKAGES
        for file in (repository / package).rglob("__init__.py")
        if not (file.parent / "BUILD").exists()
    ]
    assert not missing


def test_every_package_is_part_of_the_tree(repository: Path) -> None:
    """`//:tree` lists each package, so tests of the tree see all of it inside Bazel too."""
    text = (repository / "BUILD").read_text()
    listed = set(re.findall(r'"//([a-z_/]+):files"', text))
    folders = (*PACKAGES, "tests")
    found = {
        str(f.parent.relative_to(repository))
        for d in folders
        for f in (repository / d).rglob("BUILD")
        if "rules_" not in str(f) and "remote_" not in str(f)
    }
    assert found == listed


def test_the_library_holds_every_package(repository: Path) -> None:
    """Tests depend on `//:tfn`; a package that it does not reach is missing from their sandbox."""
    reached, waiting = set(), [""]
    while waiting:
        package = waiting.pop()
        if package not in reached:
            reached.add(package)
            text = (repository / package / "BUILD").read_text().split("filegroup(")[0]
            waiting += re.findall(r'"//([a-z_/]+)"', text)
    packages = {
        str(file.parent.relative_to(repository))
        for package in PACKAGES
        for file in (repository / package).rglob("__init__.py")
    }
    assert packages <= reached


def test_every_folder_of_tests_declares_all_of_its_files(repository: Path) -> None:
    for folder in folders_with_tests(repository):
        build = build_file(folder)
        assert build.parent != repository / "tests", f"{folder} needs a BUILD file"
        assert 'glob(["**/test_*.py"])' in build.read_text(), build


@pytest.mark.outside("bazel")
@pytest.mark.skipif("TEST_SRCDIR" in os.environ, reason="Bazel cannot ask itself while it tests")
def test_bazel_sees_every_test_file(
    repository: Path, outside_program: Callable[[str], str], tmp_path: Path
) -> None:
    command = [
        outside_program("bazel"),
        f"--output_user_root={tmp_path}",
        "--max_idle_secs=1",
        "query",
        "--noshow_progress",
        "tests(//...)",
    ]
    found = subprocess.run(
        command, cwd=repository, capture_output=True, text=True, timeout=300, check=False
    )
    assert found.returncode == 0, found.stderr
    targets = {line.removeprefix("//").replace(":", "/") for line in found.stdout.split()}
    files = {
        str(file.relative_to(repository).with_suffix(""))
        for file in (repository / "tests").rglob("test_*.py")
    }
    assert targets == files
