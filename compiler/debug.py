"""Looking inside programs: `print` and callbacks in compiled code, and where NaN is born.

`check_nans()` adds a flag per operation to the program itself: the first operation that makes a NaN
out of numbers is named with the user's line, in that very run.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from .errors import NanError
from .ir.core import TensorType
from .ir.dtypes import as_dtype
from .ops.host import CHECKS
from .trace import tree
from .trace.core import bind
from .trace.jit import as_leaf


@contextmanager
def check_nans(nans: bool = True, infs: bool = False) -> Iterator[None]:
    """Raise `NanError` where the first NaN (with `infs`: or infinity) is born, eagerly and in jit.

    Programs are compiled again with the checks, which cost about one more read of every
    intermediate value. An argument that holds one already is named, too.

        with tfn.debug.check_nans():
            model.fit(x, y)
    """
    before = (CHECKS.nans, CHECKS.infs)
    CHECKS.nans, CHECKS.infs = nans, infs
    try:
        yield
    finally:
        CHECKS.nans, CHECKS.infs = before


def print(format: str, *arguments: Any, **keywords: Any) -> None:
    """Print `format.format(*arguments, **keywords)` when the program runs, eagerly and in jit.

    Lines come in program order. Raises `ValueError` for a format that does not fit the arguments.
    """
    names = list(keywords)
    expected = [name for _, name, _, _ in string.Formatter().parse(format) if name is not None]
    numbered = sum(not n or n[0].isdigit() for n in expected)
    unknown = [n for n in expected if n and not n[0].isdigit()
               and n.split(".")[0].split("[")[0] not in keywords]
    if unknown or (numbered and not arguments):
        raise ValueError(f"the format {format!r} needs {', '.join(unknown) or 'arguments'}")

    def show(*values: Any) -> None:
        positional, named = values[: len(arguments)], values[len(arguments):]
        _write(format.format(*positional, **dict(zip(names, named, strict=True))))

    callback(show, *arguments, *keywords.values())


def _write(line: str) -> None:
    import sys

    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def callback(function: Callable[..., None], *arguments: Any) -> None:
    """Call `function` with NumPy arrays when the program runs; its result is dropped.

    Calls keep their order. An exception it raises ends the program and comes out of the call.
    """
    leaves, structure = tree.flatten(arguments)

    def run(*values: Any) -> list[Any]:
        function(*tree.unflatten(structure, values))
        return []

    bind("tfn.callback", *map(as_leaf, leaves), function=run, types=(), effect=True)


def pure_callback(function: Callable[..., Any], result: Any, *arguments: Any) -> Any:
    """The result of calling `function` with NumPy arrays when the program runs.

    `result` is a pytree of arrays or `TensorType`s with the shapes and dtypes of what it returns. The
    call may be dropped or repeated: it must depend on its arguments alone. It has no derivative; use
    `custom_vjp`.
    """
    leaves, structure = tree.flatten(arguments)
    patterns, result_structure = tree.flatten(result)
    types = tuple(_type_of(p) for p in patterns)

    def run(*values: Any) -> Sequence[Any]:
        return tree.leaves(function(*tree.unflatten(structure, values)))

    found = bind("tfn.callback", *map(as_leaf, leaves), function=run, types=types, effect=False)
    return tree.unflatten(result_structure, found if isinstance(found, list) else [found])


def _type_of(pattern: Any) -> TensorType:
    if isinstance(pattern, TensorType):
        return pattern
    if hasattr(pattern, "shape") and hasattr(pattern, "dtype"):
        return TensorType(tuple(pattern.shape), as_dtype(pattern.dtype))
    return as_leaf(pattern).type


__all__ = ["NanError", "callback", "check_nans", "print", "pure_callback"]
