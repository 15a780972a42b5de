"""Recipes: a Python file with `build_model()` and `load_data()`.

Whatever goes wrong in a recipe is reported at its own line.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..compiler.errors import TfnError
from ..compiler.ir.core import Location

_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


class RecipeError(TfnError, ValueError):
    """A recipe that cannot be used, with the place in it."""


@dataclass(frozen=True)
class Recipe:
    """A loaded recipe."""

    path: Path
    build: Callable[[], Any]
    load: Callable[[], Any]

    @property
    def name(self) -> str:
        return self.path.stem

    def build_model(self) -> Any:
        """The compiled model. Raises `RecipeError`."""
        import keras

        with blame(self.path, "build_model() failed"):
            model = self.build()
        if not isinstance(model, keras.Model):
            raise RecipeError(f"build_model() returned {type(model).__name__}, not a keras.Model",
                              _definition(self.build))
        if not model.compiled:
            raise RecipeError("build_model() returned a model that is not compiled; call"
                              " model.compile(optimizer=..., loss=...) before returning it",
                              _definition(self.build))
        return model

    def load_data(self) -> tuple[Any, Any]:
        """`(training data, validation data or None)`. Raises `RecipeError`."""
        with blame(self.path, "load_data() failed"):
            data = self.load()
        if not isinstance(data, tuple) or len(data) != 2:
            raise RecipeError("load_data() must return (training data, validation data), each in"
                              " any form keras.Model.fit takes, such as (x, y)",
                              _definition(self.load))
        return data


def load_recipe(path: str | os.PathLike) -> Recipe:
    """Load the recipe at `path`. Raises `RecipeError` naming what is missing, and where."""
    file = Path(path)
    if not file.is_file():
        raise RecipeError(f"there is no recipe {file}; give the path of a Python file with"
                          " build_model() and load_data()")
    spec = importlib.util.spec_from_file_location(f"tfn_recipe_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise RecipeError(f"{file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    with blame(file, "the recipe cannot be loaded"), _files_beside(file):
        spec.loader.exec_module(module)
    for name in ("build_model", "load_data"):
        if not callable(getattr(module, name, None)):
            raise RecipeError(f"the recipe has no function {name}(); see examples/digits.py in"
                              " the tfn package for one that is complete", Location(str(file), 1))
    return Recipe(file, module.build_model, module.load_data)


def arguments(data: Any) -> dict[str, Any]:
    """What `fit` and `evaluate` are given for (x, y), (x, y, sample_weight) or anything else."""
    given = data if isinstance(data, tuple) else (data,)
    return dict(zip(("x", "y", "sample_weight"), given, strict=False))


@contextmanager
def blame(file: Path, what: str) -> Iterator[None]:
    """Report an exception of user code as a `RecipeError` at the last line of `file` it passed."""
    try:
        yield
    except TfnError as error:
        if error.location is None:
            error.location = _last_line(error, file)
        raise
    except SyntaxError as error:
        raise RecipeError(f"{what}: {error.msg}",
                          Location(error.filename or str(file), error.lineno or 1)) from error
    except Exception as error:
        # Keras prints some words in bold.
        text = " ".join(_ESCAPES.sub("", str(error)).split()) or type(error).__name__
        place = _last_line(error, file)
        where = "" if place else f"{file}: "
        raise RecipeError(f"{where}{what}: {type(error).__name__}: {text}", place) from error


@contextmanager
def _files_beside(file: Path) -> Iterator[None]:
    """A recipe may import the files in its folder, as when Python runs it; nothing else sees them."""
    folder = str(file.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _last_line(error: BaseException, file: Path) -> Location | None:
    frames = [f for f in traceback.extract_tb(error.__traceback__)
              if os.path.abspath(f.filename) == os.path.abspath(file)]
    return Location(frames[-1].filename, frames[-1].lineno or 1) if frames else None


def _definition(function: Callable) -> Location | None:
    code = getattr(function, "__code__", None)
    return Location(code.co_filename, code.co_firstlineno) if code else None
