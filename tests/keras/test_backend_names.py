"""Every name of Keras's backend API exists in ours, with the signature Keras calls it by."""

import ast
import inspect
from importlib import import_module
from pathlib import Path

import keras
import pytest

from tfn.keras.backend.missing import missing

FILES = ["core", "image", "linalg", "math", "nn", "numpy", "random", "rnn"]
INNER = {"numpy_scan", "unstack"}
"""What is public in Keras's `rnn.py` for its own use."""
OWN_ARGUMENTS = {"multi_hot", "custom_gradient"}
"""Ops whose front end calls the backend with other arguments than it has itself."""


def api(file):
    """Names and signatures of Keras's NumPy backend, read from its source: importing it needs JAX."""
    source = Path(keras.src.__file__).parent / "backend" / "numpy" / f"{file}.py"
    for node in ast.parse(source.read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield node


def ours(file):
    return import_module("tfn.keras.backend." + (file if file in ("random", "rnn") else f"ops.{file}"))


@pytest.mark.parametrize("file", FILES)
def test_every_name_of_the_backend_api_exists(file):
    names = {node.name for node in api(file)} - (INNER if file == "rnn" else set())
    if file == "core":
        names.remove("Variable")  # A module of its own.
    holes = {name for name in names if not hasattr(ours(file), name)}
    stand_ins = {name for name in names - holes
                 if getattr(ours(file), name).__code__.co_filename == missing.__code__.co_filename}
    assert holes == set()
    assert stand_ins <= {"bidirectional_lstm", "bidirectional_gru"}


@pytest.mark.parametrize("file", ["core", "image", "linalg", "math", "nn", "numpy"])
def test_functions_take_the_arguments_keras_has(file):
    front = import_module(f"keras.src.ops.{file}")
    different = []
    for node in api(file):
        op = getattr(front, node.name, None)
        if inspect.isfunction(op) and node.name not in OWN_ARGUMENTS:
            theirs = inspect.signature(op).parameters
            found = inspect.signature(getattr(ours(file), node.name)).parameters
            if list(theirs.values()) != list(found.values()):
                different.append((node.name, str(theirs), str(found)))
    assert different == []
