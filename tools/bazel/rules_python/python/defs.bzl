"""Stand-in for @rules_python//python:defs.bzl: each name is Bazel's built-in rule."""

py_binary = native.py_binary
py_library = native.py_library
py_test = native.py_test
