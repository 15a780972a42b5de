"""What a program is, as a hash: equal for equal programs, in whatever process they were traced.

Ops, types and attributes count; names of functions, source locations and which ops share a region do
not. A program that holds what has no content to hash, such as a Python function to call back or an op
that a user declared, has no digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from .core import Block, Function, Op, TensorType, Value
from .dims import Dim
from .dtypes import DType

_PACKAGE = __name__.rpartition(".ir.")[0]
_PLAIN = (bool, int, float, complex, str, bytes, type(None))


def digest(function: Function) -> str | None:
    """The hash of what `function` computes and which arguments it may overwrite; None without one."""
    try:
        return _Writer().function(function)
    except _NoContent:
        return None


class _NoContent(Exception):
    """Something that cannot be told from its like by what it holds."""


class _Writer:
    """Writes programs as text, values as numbers in order of appearance."""

    def __init__(self) -> None:
        self._types: dict[TensorType, str] = {}
        self._functions: dict[int, str] = {}
        self._names: dict[type, str] = {}
        self._numbers: dict[Value, int] = {}

    def function(self, function: Function) -> str:
        known = self._functions.get(id(function))
        if known is None:
            # A body refers to nothing outside of it: its numbers begin anew.
            outer, self._numbers = self._numbers, {}
            lines: list[str] = []
            self._block(function.body, lines)
            self._numbers = outer
            lines += map(self._attribute, (function.argument_attributes, function.result_attributes))
            known = hashlib.sha256("\n".join(lines).encode()).hexdigest()
            self._functions[id(function)] = known
        return known

    def _block(self, block: Block, lines: list[str]) -> None:
        numbers, types = self._numbers, self._type
        for value in block.arguments:
            numbers[value] = len(numbers)
        lines.append(f"^{[types(a.type) for a in block.arguments]}")
        for op in block.ops:
            attributes = [f"{k}={self._attribute(v)}" for k, v in op.attributes.items()]
            lines.append(f"{self._name(op)}{[numbers[v] for v in op.operands]}{attributes}"
                         f"{[types(r.type) for r in op.results]}{len(op.regions)}")
            for region in op.regions:
                self._block(region, lines)
            for result in op.results:
                numbers[result] = len(numbers)
        lines.append(f"${[numbers[v] for v in block.returns]}")

    def _name(self, op: Op) -> str:
        definition = op.definition
        name = self._names.get(definition)
        if name is None:
            if definition.host or not definition.__module__.startswith(_PACKAGE + "."):
                raise _NoContent
            name = self._names[definition] = definition.name
        return name

    def _type(self, type: TensorType) -> str:
        text = self._types.get(type)
        if text is None:
            text = self._types[type] = f"{self._attribute(type.shape)}{type.dtype.name}"
        return text

    def _attribute(self, value: Any) -> str:
        kind = type(value)
        if kind in _PLAIN:
            return repr(value)
        if kind in (tuple, list):
            return f"{kind.__name__}({','.join(map(self._attribute, value))})"
        if isinstance(value, Mapping):
            return self._attribute(list(value.items()))
        if isinstance(value, (np.ndarray, np.generic)):
            return _array(np.asarray(value))
        if isinstance(value, DType):
            return value.name
        if isinstance(value, Dim):
            return f"Dim{value.terms}{value.constant}"
        if isinstance(value, TensorType):
            return self._type(value)
        if isinstance(value, Function):
            return self.function(value)
        if is_dataclass(value) and kind.__module__.startswith(_PACKAGE + "."):
            held = [getattr(value, f.name) for f in fields(value)]
            return f"{kind.__qualname__}{self._attribute(held)}"
        raise _NoContent


def _array(array: np.ndarray) -> str:
    splat = array.size > 1 and not any(array.strides)
    content = array[(0,) * array.ndim].tobytes() if splat else array.tobytes()
    held = content.hex() if len(content) <= 32 else hashlib.sha256(content).hexdigest()
    return f"{array.dtype.name}{array.shape}{'splat' * splat}{held}"
