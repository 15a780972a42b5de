"""The two macros of tfn's BUILD files: a Python package, and a folder of pytest files."""

load("@rules_python//python:defs.bzl", "py_library", "py_test")

# What Python and the linters leave behind, never an input.
LEFTOVERS = [
    "**/__pycache__/**",
    "**/.*_cache/**",
    "**/*.egg-info/**",
]

def tfn_library(name, deps = [], data = []):
    """Declares this folder as a Python package.

    Args:
      name: the folder's name.
      deps: the packages it imports.
      data: files it reads when it runs.

    Also defines `files`: everything in the folder, for the tests that read the tree itself.
    """
    py_library(
        name = name,
        srcs = native.glob(["**/*.py"], exclude = LEFTOVERS),
        data = data,
        deps = deps,
        visibility = ["//visibility:public"],
    )
    tfn_files()

def tfn_files():
    """Defines `files`: everything in this folder."""
    native.filegroup(
        name = "files",
        srcs = native.glob(["**"], exclude = LEFTOVERS),
        visibility = ["//visibility:public"],
    )

def tfn_pytests(srcs, deps = ["//:tfn"], data = [], size = "medium", tags = []):
    """Declares one Bazel test for each pytest file; `test_fuse.py` becomes the target `test_fuse`.

    Args:
      srcs: the files.
      deps: the libraries that they import.
      data: files that they read, besides all the other files of this folder.
      size: Bazel's test size: how long it may take.
      tags: Bazel's tags; "exclusive" for tests that need the machine to themselves.
    """
    support = native.glob(["**"], exclude = LEFTOVERS + ["BUILD", "**/test_*.py"])
    for src in srcs:
        py_test(
            name = src[:-len(".py")],
            srcs = [src, "//tools/bazel:run_pytest.py"],
            main = "//tools/bazel:run_pytest.py",
            args = ["$(rootpath %s)" % src],
            data = support + data + ["//:pyproject.toml", "//tests:conftest.py"],
            deps = deps,
            size = size,
            tags = tags,
        )
