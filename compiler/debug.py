"""Looking inside programs: `print` and callbacks in compiled code, and where NaN is born.

`check_nans()` adds a flag per operation to the program itself: the first operation that makes a NaN
out of numbers is named with the user's line, in that very run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from .errors import NanError, OpError, user_location
from .ir.core import TensorType
from .ir.dtypes import as_dtype
from .ops.host import CHECKS
from .runtime.cache import KERNELS, Statistics
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


def compilations() -> Statistics:
    """What has been compiled in this process so far: see `Statistics`.

    A difference of two says what a piece of code cost: another batch size, say, compiles no kernel.

        before = tfn.debug.compilations()
        model.evaluate(x, y, batch_size=13)
        assert tfn.debug.compilations().compiled == before.compiled
    """
    return replace(KERNELS.statistics)


def print(format: str, *arguments: Any, **keywords: Any) -> None:
    """Print `format.format(*arguments, **keywords)` when the program runs, eagerly and in jit.

    Lines come in program order. Raises `OpError` (a `ValueError`) at the user's line for a format that
    does not fit the arguments.
    """
    names = list(keywords)
    leaves, structure = tree.flatten((arguments, list(keywords.values())))
    samples, named_samples = tree.unflatten(structure, [_sample(leaf) for leaf in leaves])
    try:
        format.format(*samples, **dict(zip(names, named_samples, strict=True)))
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        given = [str(as_leaf(leaf).type) for leaf in leaves]
        wrong = f"there is no {error}" if isinstance(error, KeyError) else error
        raise OpError(f"the format {format!r} does not fit {', '.join(given) or 'no arguments'}:"
                      f" {wrong}", user_location()) from None

    def show(*values: Any) -> None:
        positional, named = values[: len(arguments)], values[len(arguments):]
        _write(format.format(*positional, **dict(zip(names, named, strict=True))))

    callback(show, *arguments, *keywords.values())


def _sample(leaf: Any) -> np.ndarray:
    """An array like `leaf`, to try a format on."""
    type = as_leaf(leaf).type
    shape = [d if isinstance(d, int) else 1 for d in type.shape]
    return np.broadcast_to(np.zeros((), type.dtype.numpy), shape)[()]


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def callback(function: Callable[..., None], *arguments: Any) -> None:
    """Call `function` with NumPy arrays of its own when the program runs; its result is dropped.

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
