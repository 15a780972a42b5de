"""Reverse-mode differentiation: trace, replay forward, then bind each op's `vjp` rule in reverse.

The rules bind ordinary ops, so gradients are traced, compiled and differentiated again like any
other code.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import OpError, TraceError, UnsupportedError, user_location
from ..ir.core import Function, Op, TensorType, Value
from ..ir.dtypes import as_dtype
from ..ops.control import DERIVATIVES, body_of, composite
from ..ops.functional import CONDITIONALS, conditional
from . import names, tree
from .core import Tracer, bind, free_values, located, replay_op
from .jit import as_leaf, trace_tree

STOPS = frozenset({"tfn.stop_gradient"})
"""Composites whose operands get no cotangent."""


def stop_gradient(x):
    """`x`, treated as a constant by differentiation."""
    return tree.map(lambda leaf: composite("tfn.stop_gradient", _identity, leaf)
                    if isinstance(leaf, Tracer) else leaf, x)


def _identity(x):
    return bind("stablehlo.reshape", x, shape=tuple(x.shape))


def _zeros(value):
    return bind("stablehlo.broadcast_in_dim", np.zeros((), value.dtype), shape=tuple(value.shape),
                broadcast_dimensions=())


class Pullback:
    """Maps cotangents of the results of a function to cotangents of chosen arguments.

    Ops all of whose results are in `known` are not computed again.
    """

    def __init__(self, function: Function, arguments: Sequence[Any], wanted: Sequence[int],
                 known: Mapping[Value, Any] | None = None):
        self.known = known or {}
        self.function = function
        self.environment: dict[Value, Any] = dict(zip(function.arguments, arguments, strict=True))
        self.wanted = list(wanted)
        self.tape: list[tuple[Any, list[Any], list[Any]]] = []
        active = {function.arguments[i] for i in self.wanted
                  if function.arguments[i].dtype.is_inexact}
        self._forward(function.ops, self.environment, active)
        self.active = active

    def _forward(self, ops, environment, active) -> None:
        for op in ops:
            operands = [environment[v] for v in op.operands]
            captured = [v for r in op.regions for v in free_values(r)]
            live = any(v in active for v in (*op.operands, *captured))
            inner = _inner(op) if live else None
            if inner is not None:
                scope = dict(zip(inner.arguments, operands, strict=True))
                reached = {a for a, v in zip(inner.arguments, op.operands, strict=True)
                           if v in active}
                nested = Scope(inner, op, scope)
                self.tape.append((nested.enter, [], []))
                self._forward(inner.ops, scope, reached)
                self.tape.append((nested.leave, [], []))
                results = [scope[v] for v in inner.returns]
                active.update(r for r, v in zip(op.results, inner.returns, strict=True)
                              if v in reached)
            else:
                results = [self.known[r] for r in op.results if r in self.known]
                if len(results) != len(op.results) or not results:
                    results = replay_op(op, operands, environment)
                if live and op.attributes.get("name") not in STOPS:
                    inexact = [r for r in op.results if r.dtype.is_inexact]
                    active.update(inexact)
                    if inexact and op.name in CONDITIONALS:
                        chosen, operands = conditional(op, operands, environment)
                        self.tape.append((chosen, operands, results))
                    elif inexact:
                        self._refuse_captures(op, captured, active)
                        self.tape.append((op, operands, results))
            environment.update(zip(op.results, results, strict=True))

    @staticmethod
    def _refuse_captures(op: Op, captured: Sequence[Value], active: set[Value]) -> None:
        """A rule gives no cotangents to what a region refers to."""
        if op.definition.vjp is not None and op.name != "stablehlo.while" and any(
                v in active for v in captured):
            raise UnsupportedError(f"{op.name} has no derivative by values that its region refers to;"
                                   " make them operands", op.location)

    @property
    def results(self) -> list[Any]:
        return [self.environment[v] for v in self.function.returns]

    def __call__(self, cotangents: Sequence[Any]) -> list[Any]:
        """Cotangents of the wanted arguments (zeros where there is no dependence)."""
        found: dict[Value, Any] = {}
        for value, ct in zip(self.function.returns, cotangents, strict=True):
            if ct is not None and value.dtype.is_inexact:
                accumulate(found, value, ct)
        for op, operands, results in reversed(self.tape):
            if callable(op):
                op(found)
                continue
            given = [found.pop(r, None) for r in op.results]
            if all(ct is None for ct in given):
                continue
            rule = rule_of(op)
            if rule is None:
                raise UnsupportedError(f"{op.name} has no derivative", op.location)
            with located(op.location and op.location.of_derivative()):
                back = rule(given, op, operands, results)
                for value, ct in zip(op.operands, back, strict=True):
                    if ct is not None and value.dtype.is_inexact:
                        accumulate(found, value, ct)
        arguments = (self.function.arguments[i] for i in self.wanted)
        return [found[a] if a in found else _zeros(self.environment[a]) for a in arguments]


def rule_of(op: Op) -> Callable[..., Sequence[Any]] | None:
    """The rule `vjp` of an op, or that of a composite of its name."""
    if op.definition.vjp is not None:
        return op.definition.vjp
    find = DERIVATIVES.get(op.attributes.get("name", ""))
    return find(op) if find is not None else None


def _inner(op: Op) -> Function | None:
    """The function whose derivative is that of `op`."""
    if rule_of(op) is not None or op.attributes.get("name") in STOPS:
        return None
    return body_of(op)


class Scope:
    """Carries cotangents across the boundary of an inlined call, in reverse."""

    def __init__(self, function: Function, op: Op, scope):
        self.function, self.op = function, op

    def leave(self, found) -> None:
        # Reverse of returning: the call's result cotangents become those of the inner returns.
        for outer, inner in zip(self.op.results, self.function.returns, strict=True):
            ct = found.pop(outer, None)
            if ct is not None:
                accumulate(found, inner, ct)

    def enter(self, found) -> None:
        # Reverse of entering. Popped, because the same function may be called again earlier.
        for outer, inner in zip(self.op.operands, self.function.arguments, strict=True):
            ct = found.pop(inner, None)
            if ct is not None:
                accumulate(found, outer, ct)


def accumulate(found: dict[Value, Any], value: Value, ct: Any) -> None:
    previous = found.get(value)
    found[value] = ct if previous is None else bind("stablehlo.add", previous, ct)


def vjp(function: Callable, *primals: Any, has_aux: bool = False) -> Any:
    """`(function(*primals), pullback)`; `pullback(cotangent)` gives a tuple of cotangents.

    The cotangent has the structure of the result; each returned one that of its primal. With `has_aux`
    the function returns `(value, aux)`, and aux, which has no cotangent, comes third.
    """
    leaves, structure = tree.flatten((primals, {}))
    arrays = [as_leaf(leaf) for leaf in leaves]
    traced, result_structure, captures = trace_tree(function, structure,
                                                    [a.type for a in arrays])
    pull = Pullback(traced, [*arrays, *captures], range(len(arrays)))
    value_structure = result_structure
    if has_aux:
        check_pair(result_structure, function)
        value_structure = result_structure.child(0)
    count = value_structure.num_leaves

    def pullback(cotangent):
        given = cotangents_of(cotangent, value_structure, traced.result_types[:count],
                              names.function_name(function))
        none = [None] * (len(traced.returns) - count)
        return tree.unflatten(structure, pull([*given, *none]))[0]

    result = tree.unflatten(result_structure, pull.results)
    return (result[0], pullback, result[1]) if has_aux else (result, pullback)


def cotangents_of(cotangent: Any, structure, types: Sequence[TensorType], name: str) -> list[Any]:
    """The leaves of a cotangent; `OpError` when it is not like the result of the function."""
    leaves, found = tree.flatten(cotangent)
    verbs = ("as given", f"in the result of {name}")
    wrong = ""
    if found != structure:
        wrong = names.difference(found, structure, "the cotangent", verbs)
    else:
        given = [as_leaf(leaf) for leaf in leaves]
        pairs = [(g.type, t) for g, t in zip(given, types, strict=True)]
        # Integers have no tangents: what is given for them is not looked at.
        wrong = names.unequal(names.leaf_names(structure, "the cotangent"),
                              [g if t.dtype.is_inexact else t for g, t in pairs], types, verbs)
    if wrong:
        raise OpError(f"{wrong}; a cotangent has the structure, shapes and dtypes"
                      " of the result", user_location())
    return given


def value_and_grad(function: Callable, argnums: int | Sequence[int] = 0, has_aux: bool = False):
    """A function returning `(value, gradient)` of the scalar-valued `function`.

    `argnums`: which positional arguments to differentiate (an int gives one gradient, a sequence a
    tuple). With `has_aux` the function returns `(value, aux)` and so does the result in place of
    the value. Raises `TraceError` when the value is not a float scalar.
    """

    @functools.wraps(function)
    def differentiated(*args, **kwargs):
        # With aux the result is (value, aux): its first leaf is the value either way.
        leaves, structure = tree.flatten((args, kwargs))
        arrays = [as_leaf(leaf) for leaf in leaves]
        traced, result_structure, captures = trace_tree(function, structure,
                                                        [a.type for a in arrays])
        _check_results(result_structure, has_aux, function)
        loss = traced.returns[0] if traced.returns else None
        if loss is None or loss.shape != () or not loss.dtype.is_float:
            shown = loss.type if loss is not None else "nothing"
            raise TraceError(f"grad needs a function with a float scalar value, got {shown};"
                             " reduce it with mean() or sum()", user_location())
        numbers = [argnums] if isinstance(argnums, int) else list(argnums)
        for i in numbers:
            if not -len(args) <= i < len(args):
                raise TraceError(f"grad with respect to argument {i} (argnums) of"
                                 f" {names.function_name(function)}, which is given {len(args)}"
                                 " positional arguments", user_location())
        counts = [len(tree.leaves(a)) for a in args]
        starts = [sum(counts[:i]) for i in range(len(args))]
        wanted = [starts[i] + k for i in numbers for k in range(counts[i])]
        for i in wanted:
            if not as_dtype(arrays[i].dtype).is_inexact:
                called = names.argument_names(function, args, kwargs)[i]
                raise TraceError(f"grad with respect to {called}, {arrays[i].type}: it must be"
                                 " floating-point; convert it (astype, or 3.0 for 3), or choose"
                                 " another argument with argnums", user_location())
        pull = Pullback(traced, [*arrays, *captures], wanted)
        seed = bind("stablehlo.constant", value=np.ones((), loss.dtype.numpy))
        found = iter(pull([seed, *(None for _ in traced.returns[1:])]))
        gradients = tuple(
            tree.map(lambda _: next(found), args[i]) for i in numbers)
        value = tree.unflatten(result_structure, pull.results)
        return value, gradients[0] if isinstance(argnums, int) else gradients

    return differentiated


def _check_results(structure, has_aux: bool, function: Callable) -> None:
    """One array, or with aux a pair of one and anything."""
    name, found = names.function_name(function), structure
    if has_aux:
        check_pair(structure, function)
        found = structure.child(0)
    if not found.is_leaf():
        raise TraceError(f"grad needs one float scalar, but {name} returns"
                         f" {names.described(found)}; return (value, aux) with has_aux=True to have"
                         " more than the value", user_location())


def check_pair(structure, function: Callable) -> None:
    """With aux a function returns `(value, aux)`."""
    if structure.type is None or not issubclass(structure.type, tuple) or structure.num_children != 2:
        raise TraceError(f"with has_aux, {names.function_name(function)} returns a pair (value, aux),"
                         f" not {names.described(structure)}", user_location())


def grad(function: Callable, argnums: int | Sequence[int] = 0, has_aux: bool = False):
    """Like `value_and_grad`, returning the gradient only (and aux with `has_aux`)."""
    both = value_and_grad(function, argnums, has_aux)

    @functools.wraps(function)
    def gradient(*args, **kwargs):
        value, found = both(*args, **kwargs)
        return (found, value[1]) if has_aux else found

    return gradient
