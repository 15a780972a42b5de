"""Run one pytest file as a Bazel test: `run_pytest.py tests/package/test_file.py`.

Bazel starts it in the runfiles' copy of the repository. Caches go to the test's own folder, because
a sandboxed test may write nowhere else.
"""

import os
import sys
from pathlib import Path

import pytest


def main() -> int:
    """Run the file named on the command line and give pytest's exit code."""
    scratch = Path(os.environ.get("TEST_TMPDIR", "."))
    for variable, folder in (("HOME", "home"), ("XDG_CACHE_HOME", "cache")):
        directory = (scratch / folder).absolute()
        directory.mkdir(parents=True, exist_ok=True)
        os.environ[variable] = str(directory)
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    arguments = ["-c", "pyproject.toml", "--rootdir=.", "-p", "no:cacheprovider"]
    if report := os.environ.get("XML_OUTPUT_FILE"):
        arguments.append(f"--junitxml={report}")
    return int(pytest.main([*arguments, *sys.argv[1:]]))


if __name__ == "__main__":
    sys.exit(main())
