"""Programs from elsewhere as callables: StableHLO text and JAX functions.

What they give can be called with arrays, traced, differentiated, batched and exported like a
function of our own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import OpError, TfnError, user_location
from ..ir.core import Function, TensorType
from ..ir.dims import Dim
from ..ir.quantized import stored
from ..locks import new_rlock
from ..ops.host import CHECKS
from . import tree
from .core import Array, Tracer, current_graph, replay
from .jit import as_leaf

MAX_TEXT = 1 << 30
"""Bytes of the largest text that is read."""


class Imported:
    """A function read from elsewhere: call it with arrays in the structure of its arguments."""

    def __init__(self, function: Function, name: str, structure: Any = None,
                 result: Callable[[Sequence[Any]], Any] | None = None):
        self.function = function
        self.__name__ = name
        self._structure = structure
        self._result = result
        self._programs: dict[Any, Any] = {}
        self._lock = new_rlock()

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Raises `OpError` at the user's line when the arguments do not fit."""
        leaves, structure = tree.flatten((arguments, keywords))
        if self._structure is not None and structure != self._structure:
            raise OpError(f"{self.__name__} takes arguments of the structure {self._structure},"
                          f" got {structure}", user_location())
        values = [self._fitted(i, leaf) for i, leaf in enumerate(leaves)]
        if len(values) != len(self.function.arguments):
            raise OpError(f"{self.__name__} takes {len(self.function.arguments)} arrays, got"
                          f" {len(values)}", user_location())
        if current_graph() is None and all(isinstance(v, Array) for v in values):
            executable = self._program(tuple(v.type for v in values))
            results: list[Any] = [
                Array(r) for r in executable(*[v._data for v in values if isinstance(v, Array)])]
        else:
            results = replay(self._refined(tuple(v.type for v in values)), values)
        if self._result is not None:
            return self._result(results)
        return results[0] if len(results) == 1 else tuple(results)

    def _fitted(self, number: int, leaf: Any) -> Array | Tracer:
        value = as_leaf(leaf)
        if number >= len(self.function.arguments):
            return value
        declared = self.function.arguments[number].type
        if isinstance(leaf, (bool, int, float, complex)):
            value = Array(np.asarray(leaf, declared.dtype.numpy))
        shape, actual = declared.shape, value.type
        fits = actual.dtype is stored(declared.dtype) and len(shape) == actual.rank and all(
            isinstance(d, Dim) or d == n for d, n in zip(shape, actual.shape, strict=True))
        if not fits:
            raise OpError(f"argument {number} of {self.__name__} must be {declared}, got {actual}",
                          user_location())
        return value

    def _refined(self, types: tuple[TensorType, ...]) -> Function:
        from ..ir.dynamic import refine
        from ..passes.quantized import lower_quantized

        quantized = [t.with_dtype(a.dtype) for t, a in zip(types, self.function.arguments, strict=True)]
        return lower_quantized(refine(self.function, quantized))

    def _program(self, types: tuple[TensorType, ...]) -> Any:
        from ..compile import compile_function

        with self._lock:
            key = (types, CHECKS.nans, CHECKS.infs)
            if key not in self._programs:
                self._programs[key] = compile_function(self._refined(types))
            return self._programs[key]


def from_stablehlo(source: str | os.PathLike, name: str = "main") -> Imported:
    """The function `name` of a StableHLO program: a path of a file, or the text itself.

    Raises `ParseError`, `UnsupportedError` or `OpError` with line and column of the text.
    """
    from ..ir.parser import parse_module

    if isinstance(source, str) and ("\n" in source or "{" in source):
        text, file = source, "<text>"
    else:
        path = Path(source)
        if not path.is_file():
            raise TfnError(f"there is no file {path}")
        if path.stat().st_size > MAX_TEXT:
            raise TfnError(f"{path} has more than {MAX_TEXT} bytes")
        try:
            text, file = path.read_text(encoding="utf-8"), str(path)
        except UnicodeDecodeError as error:
            raise TfnError(f"{path} is not text: byte {error.start} is not UTF-8; give StableHLO"
                           " text, not bytecode") from None
    module = parse_module(text, file)
    if name not in module.functions:
        raise TfnError(f"{file} has no function `{name}`; it has {', '.join(module.functions)}")
    return Imported(module[name], name)


def from_jax(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Imported:
    """A JAX function as one of ours, for arguments of these shapes and dtypes.

    `arguments` are what JAX's `lower` takes: arrays or `jax.ShapeDtypeStruct`s in any pytree of
    lists, tuples, named tuples and dicts. JAX itself is needed only here. Raises `UnsupportedError`
    at the user's own line for an operation tfn does not have.
    """
    try:
        import jax
    except ImportError:
        raise TfnError("from_jax needs JAX to trace the function: pip install jax") from None
    from ..ir.parser import parse_module

    lowered = jax.jit(function, keep_unused=True).lower(*arguments, **keywords)
    name = getattr(function, "__name__", "function")
    module = parse_module(lowered.as_text(debug_info=True), f"<{name}>")
    _, structure = tree.flatten((arguments, keywords))
    pattern = lowered.out_tree.unflatten(range(lowered.out_tree.num_leaves))
    order, result_structure = tree.flatten(pattern)

    def result(leaves: Sequence[Any]) -> Any:
        return tree.unflatten(result_structure, [leaves[i] for i in order])

    return Imported(module["main"], name, structure, result)


