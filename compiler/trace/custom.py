"""Functions with derivatives of one's own, and functions that compute anew instead of remembering."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import TraceError, user_location
from . import tree
from .core import bind, current_graph, replay, trace
from .jit import as_leaf, trace_tree


def _apply(op: str, function: Callable, args: Sequence[Any], rules: Callable[[Any, Any, int], dict]):
    """`function(*args)` as the op `op`; `rules(structure, result structure, captures)` are its
    attributes beside the function. Captured values become the first operands."""
    leaves, structure = tree.flatten((tuple(args), {}))
    arrays = [as_leaf(leaf) for leaf in leaves]
    traced, result_structure, captures = trace_tree(function, structure, [a.type for a in arrays])
    n = len(captures)
    flat = trace(lambda *v: replay(traced, [*v[n:], *v[:n]]),
                 [*(c.type for c in captures), *(a.type for a in arrays)], "custom")[0]
    found = bind(op, *captures, *arrays, function=flat, **rules(structure, result_structure, n))
    return tree.unflatten(result_structure, found if isinstance(found, list) else [found])


class custom_vjp:
    """A function whose reverse-mode derivative is given by `defvjp(forward, backward)`.

    `forward(*args) -> (result, residuals)`; `backward(*nondifferentiable, residuals, cotangent) ->
    cotangents of the differentiable args` (None: zero). `nondiff_argnums` are Python values. The rules
    must not close over traced values: pass them as arguments.
    """

    def __init__(self, function: Callable, nondiff_argnums: Sequence[int] = ()):
        functools.update_wrapper(self, function)
        self.function = function
        self.static = tuple(nondiff_argnums)
        self._rules: tuple[Callable, Callable] | None = None

    def defvjp(self, forward: Callable, backward: Callable) -> None:
        """Set the rules."""
        self._rules = (forward, backward)

    def __call__(self, *args: Any) -> Any:
        if self._rules is None:
            raise TraceError(f"{self.__name__} has no rules yet: call defvjp(forward, backward)",  # type: ignore[attr-defined]
                             user_location())
        if current_graph() is None:
            return self.function(*args)
        forward, backward = self._rules
        fixed = [args[i] for i in self.static]
        dynamic = [a for i, a in enumerate(args) if i not in self.static]

        def full(given):
            rest = iter(given)
            return [args[i] if i in self.static else next(rest) for i in range(len(args))]

        def rules(structure, result_structure, captured):
            def pull(operands, cotangents):
                given = tree.unflatten(structure, operands[captured:])[0]
                _, residuals = forward(*full(given))
                ct = tree.unflatten(result_structure, cotangents)
                found = backward(*fixed, residuals, ct)
                leaves: list[Any] = []
                for argument, part in zip(given, found, strict=True):
                    count = len(tree.leaves(argument))
                    leaves += [None] * count if part is None else [
                        as_leaf(leaf) for leaf in tree.leaves(part)]
                return [None] * captured + leaves

            return {"backward": pull}

        return _apply("tfn.custom_vjp", lambda *d: self.function(*full(d)), dynamic, rules)


class custom_jvp:
    """A function whose forward-mode derivative is given by `@f.defjvp`; reverse mode transposes it.

    The rule is `rule(*nondifferentiable, primals, tangents) -> (result, tangent of it)`.
    """

    def __init__(self, function: Callable, nondiff_argnums: Sequence[int] = ()):
        functools.update_wrapper(self, function)
        self.function = function
        self.static = tuple(nondiff_argnums)
        self._rule: Callable | None = None

    def defjvp(self, rule: Callable) -> Callable:
        """Set the rule (a decorator)."""
        self._rule = rule
        return rule

    def __call__(self, *args: Any) -> Any:
        rule = self._rule
        if rule is None:
            raise TraceError(f"{self.__name__} has no rule yet: decorate one with defjvp",  # type: ignore[attr-defined]
                             user_location())
        if current_graph() is None:
            return self.function(*args)
        fixed = [args[i] for i in self.static]
        dynamic = [a for i, a in enumerate(args) if i not in self.static]

        def full(given):
            rest = iter(given)
            return [args[i] if i in self.static else next(rest) for i in range(len(args))]

        def rules(structure, result_structure, captured):
            def push(operands, tangents):
                primals = tree.unflatten(structure, operands[captured:])[0]
                moving = tree.unflatten(structure, tangents[captured:])[0]
                _, out = rule(*fixed, primals, moving)
                return [as_leaf(leaf) for leaf in tree.leaves(out)]

            return {"forward": push}

        return _apply("tfn.custom_jvp", lambda *d: self.function(*full(d)), dynamic, rules)


def checkpoint(function: Callable) -> Callable:
    """`function`, whose intermediate values are computed again in the backward pass instead of kept."""

    @functools.wraps(function)
    def rematerialised(*args: Any) -> Any:
        if current_graph() is None:
            return function(*args)
        return _apply("tfn.checkpoint", function, args, lambda *_: {})

    return rematerialised
