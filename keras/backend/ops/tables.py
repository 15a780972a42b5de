"""Ops from tables: a line has the signature `keras.ops` gives a function, the table a rule for its
tensors; the function called has the same name elsewhere in tfn."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable
from typing import Any

from .core import convert_to_tensor
from .operands import floating, together, together_floating

RULES: dict[str, tuple[int, str]] = {
    "plain": (0, ""),
    "tensor": (1, "tensor({0})"),
    "floating": (1, "floating({0})"),
    "together": (2, "*together({0}, {1})"),
    "together_floating": (2, "*together_floating({0}, {1})"),
    "sequence": (1, "together(*{0})"),
}
"""Rule -> how many of the first arguments it takes, and what it makes of them."""

_SCOPE = {"tensor": convert_to_tensor, "floating": floating, "together": together,
          "together_floating": together_floating}
# Below this package, so that an error points at the user's line and not at one of these.
_FILE = os.path.join(os.path.dirname(__file__), "<{}>")


def declare(namespace: dict[str, Any], rule: str, module: Any, table: str) -> None:
    """Define in `namespace` a function for each signature of `table`.

    It hands the first arguments on as `rule` says and the others as they are, by name if they have a
    default, to the function of its name in `module`.
    """
    for signature in filter(None, map(str.strip, table.split("\n"))):
        name = signature[:signature.index("(")]
        namespace[name] = _function(name, signature, rule, getattr(module, name))


def _function(name: str, signature: str, rule: str, target: Callable[..., Any]) -> Callable[..., Any]:
    definition = ast.parse(f"def {signature}: ...").body[0]
    assert isinstance(definition, ast.FunctionDef)
    arguments = [a.arg for a in definition.args.args]
    count, template = RULES[rule]
    optional = len(arguments) - len(definition.args.defaults)
    call = [template.format(*arguments)] if template else []
    call += [a if i < optional else f"{a}={a}" for i, a in enumerate(arguments) if i >= count]
    call += [f"{a.arg}={a.arg}" for a in definition.args.kwonlyargs]
    scope: dict[str, Any] = {**_SCOPE, "_target": target}
    source = f"def {signature}: return _target({', '.join(call)})"
    exec(compile(source, _FILE.format(name), "exec"), scope)
    function = scope[name]
    function.__doc__ = f"`keras.ops.{name}`."
    return function
