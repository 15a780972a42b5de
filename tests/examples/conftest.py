"""Recipes as modules."""

import importlib.util
import sys
from types import ModuleType

import pytest


@pytest.fixture
def recipe(repository, monkeypatch):
    """`recipe("vit")`: the module examples/vit.py, which finds the files beside it."""
    monkeypatch.syspath_prepend(str(repository / "examples"))

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(
            f"recipe_{name}", repository / "examples" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module

    return load
