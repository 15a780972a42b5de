"""Names for messages: what an argument is called, which leaf of a tree is meant, how two trees differ.

Nothing here runs unless an error is being made.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optree

from ..errors import TraceError, user_location
from ..ir.core import TensorType


def leaf_names(structure: optree.PyTreeSpec, root: str) -> list[str]:
    """The leaves of a tree called `root`: `carry['b'][0]`, in order."""
    return [accessor.codify(root) for accessor in structure.accessors()]


def argument_names(function: Callable, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[str]:
    """The leaves of a call's arguments by the names the function gives them: `x`, `state['w']`."""
    names = [f"args[{i}]" for i in range(len(args))]
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        parameters = {}.values()
    for i, parameter in zip(range(len(args)), parameters, strict=False):
        if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            break
        names[i] = parameter.name
    found: list[str] = []
    for name, value in (*zip(names, args, strict=True), *sorted(kwargs.items())):
        found += leaf_names(optree.tree_structure(value, namespace="tfn"), name)
    return found


def function_name(function: Callable) -> str:
    """How a function is called in messages: its name, with place for a lambda."""
    name = getattr(function, "__name__", type(function).__name__)
    code = getattr(function, "__code__", None)
    return f"the lambda of line {code.co_firstlineno}" if name == "<lambda>" and code else name


def check_call(function: Callable, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Raise `TraceError` at the user's line when the function does not take these arguments."""
    try:
        signature = inspect.signature(function)
        signature.bind(*args, **kwargs)
    except TypeError as error:
        given = ", ".join([*("..." for _ in args), *(f"{k}=..." for k in kwargs)])
        raise TraceError(f"{function_name(function)} takes {signature}, but is called as ({given}):"
                         f" {error}", user_location()) from None
    except ValueError:
        return


def difference(first: optree.PyTreeSpec, second: optree.PyTreeSpec, name: str, verbs: tuple[str, str]
               ) -> str:
    """How two tree structures differ, at the first place they do, in words.

    `verbs` say what each is: `("before the step", "after it")`.
    """
    if first.type is not second.type or first.entries() != second.entries():
        return f"{name} is {described(first)} {verbs[0]} and {described(second)} {verbs[1]}"
    mapping = first.type is not None and issubclass(first.type, dict)
    pairs = zip(first.entries(), first.children(), second.children(), strict=True)
    for entry, a, b in pairs:
        if a != b:
            inner = f"{name}[{entry!r}]" if mapping or isinstance(entry, int) else f"{name}.{entry}"
            return difference(a, b, inner, verbs)
    return f"{name} has the structure {first} {verbs[0]} and {second} {verbs[1]}"


def described(structure: optree.PyTreeSpec) -> str:
    """What a tree is at its top: `a dict of 'a', 'b'`, `an array`."""
    if structure.is_leaf():
        return "an array"
    if structure.type in (None, type(None)):
        return "None"
    if issubclass(structure.type, dict):
        return f"a dict of {', '.join(map(repr, structure.entries())) or 'nothing'}"
    return f"a {structure.type.__name__} of {structure.num_children}"


def unequal(names: Sequence[str], first: Sequence[TensorType], second: Sequence[TensorType],
            verbs: tuple[str, str]) -> str:
    """Which leaves differ in type, `carry['b'] is tensor<3xf32> before a step and ...`; "" if none."""
    return "; ".join(f"{name} is {a} {verbs[0]} and {b} {verbs[1]}"
                     for name, a, b in zip(names, first, second, strict=True) if a != b)
