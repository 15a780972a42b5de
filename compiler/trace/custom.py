"""Functions with derivatives of one's own."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import TraceError, user_location
from . import names, tree
from .core import bind, current_graph, located, replay, trace
from .jit import as_leaf, trace_tree


def positional(function: Callable, args: Sequence[Any], kwargs: dict[str, Any]) -> Sequence[Any]:
    """All arguments by position, as the function's signature has them."""
    if not kwargs:
        return args
    try:
        bound = inspect.signature(function).bind(*args, **kwargs)
    except TypeError as error:
        raise TraceError(f"{names.function_name(function)}: {error}", user_location()) from None
    bound.apply_defaults()
    if bound.kwargs:
        raise TraceError(f"{names.function_name(function)} has keyword-only arguments; a function with"
                         " a derivative of its own takes them by position", user_location())
    return bound.args


def apply(op: str, function: Callable, args: Sequence[Any], rules: Callable[[Any, Any, int], dict]):
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

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        args = tuple(positional(self.function, args, kwargs))
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
                with located(None, afresh=True):
                    pair = forward(*full(given))
                    residuals = self._residuals(pair, result_structure)
                    ct = tree.unflatten(result_structure, cotangents)
                    found = backward(*fixed, residuals, ct)
                    return [None] * captured + self._cotangents(given, found)

            return {"backward": pull}

        return apply("tfn.custom_vjp", lambda *d: self.function(*full(d)), dynamic, rules)

    def _residuals(self, pair: Any, result_structure: Any) -> Any:
        """The residuals of what `forward` returns; `TraceError` when it is no (result, residuals)."""
        name = names.function_name(self.function)
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise TraceError(f"the forward rule of {name} returns a pair (result, residuals), not"
                             f" {names.described(tree.flatten(pair)[1])}", user_location())
        structure = tree.flatten(pair[0])[1]
        if structure != result_structure:
            wrong = names.difference(structure, result_structure, "the result",
                                     ("in the forward rule", f"in {name} itself"))
            raise TraceError(f"{wrong}; both compute the same", user_location())
        return pair[1]

    def _cotangents(self, given: Sequence[Any], found: Any) -> list[Any]:
        """The leaves of what `backward` returns, None for none; `TraceError` when they do not match
        the arguments."""
        rule = f"the backward rule of {names.function_name(self.function)}"
        if not isinstance(found, (tuple, list)) or len(found) != len(given):
            raise TraceError(
                f"{rule} returns a tuple of {len(given)} cotangents, one per differentiable argument"
                f" (None for no dependence), not {names.described(tree.flatten(found)[1])}",
                user_location())
        leaves: list[Any] = []
        for i, (argument, part) in enumerate(zip(given, found, strict=True)):
            arrays, structure = tree.flatten(argument)
            if part is None:
                leaves += [None] * len(arrays)
                continue
            parts, part_structure = tree.flatten(part)
            verbs, called = (f"from {rule}", "in the argument"), f"cotangent {i}"
            wrong = ""
            if part_structure != structure:
                wrong = names.difference(part_structure, structure, called, verbs)
            else:
                made = [as_leaf(p) for p in parts]
                pairs = [(m.type, a.type) for m, a in zip(made, arrays, strict=True)]
                # An integer has no cotangent: what is given for it is dropped.
                wrong = names.unequal(names.leaf_names(structure, called),
                                      [m if a.dtype.is_inexact else a for m, a in pairs],
                                      [a for _, a in pairs], verbs)
                leaves += made
            if wrong:
                raise TraceError(f"{wrong}; a cotangent is like its argument", user_location())
        return leaves


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

    def defjvps(self, *rules: Callable | None) -> None:
        """Set a rule for each argument: `rule(tangent, result, *primals)` is its part of the tangent;
        None for an argument without."""
        def whole(*given: Any) -> tuple[Any, Any]:
            *fixed, primals, tangents = given
            result = self(*self._full(fixed, primals))
            parts = [rule(t, result, *primals)
                     for rule, t in zip(rules, tangents, strict=True) if rule is not None]
            total = parts[0] if parts else tree.map(lambda x: x * 0, result)
            for part in parts[1:]:
                total = tree.map(lambda a, b: a + b, total, part)
            return result, total

        self._rule = whole

    def _full(self, fixed: Sequence[Any], given: Sequence[Any]) -> list[Any]:
        """All arguments: the nondifferentiable ones and the others, each in its place."""
        still, rest = iter(fixed), iter(given)
        return [next(still) if i in self.static else next(rest)
                for i in range(len(fixed) + len(given))]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        args = tuple(positional(self.function, args, kwargs))
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
                with located(None, afresh=True):
                    pair = rule(*fixed, primals, moving)
                    return self._tangents(pair, result_structure)

            return {"forward": push}

        return apply("tfn.custom_jvp", lambda *d: self.function(*full(d)), dynamic, rules)

    def _tangents(self, pair: Any, result_structure: Any) -> list[Any]:
        """The leaves of the tangent a rule returns; `TraceError` when it is not like the result."""
        name = names.function_name(self.function)
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise TraceError(f"the rule of {name} returns a pair (result, tangent), not"
                             f" {names.described(tree.flatten(pair)[1])}", user_location())
        results, structure = tree.flatten(pair[0])
        leaves, moving = tree.flatten(pair[1])
        verbs = (f"from the rule of {name}", "in its result")
        for found, wanted in ((structure, result_structure), (moving, result_structure)):
            if found != wanted:
                raise TraceError(names.difference(found, wanted, "what is returned", verbs),
                                 user_location())
        made = [as_leaf(leaf) for leaf in leaves]
        types = [as_leaf(r).type for r in results]
        wrong = names.unequal(names.leaf_names(moving, "the tangent"),
                              [m.type if t.dtype.is_inexact else t
                               for m, t in zip(made, types, strict=True)], types, verbs)
        if wrong:
            raise TraceError(f"{wrong}; a tangent is like the result", user_location())
        return made
