"""Control flow on traced values: cond, switch, while_loop, fori_loop, scan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import TraceError, user_location
from ..ir.core import Function
from ..ir.dtypes import I32
from . import tree
from .core import bind, trace_region
from .jit import as_leaf, trace_tree


def _traced(function: Callable, operands: Any, what: str) -> tuple[Function, Any, list[Any]]:
    leaves, structure = tree.flatten((operands, {}))
    return trace_tree(function, structure, [as_leaf(leaf).type for leaf in leaves], what)


def _merged(functions: Sequence[tuple[Function, Any, list[Any]]], count: int
            ) -> tuple[list[Function], list[Any]]:
    """Functions that take the same captures after `count` operands, and these captures."""
    from .core import replay, trace

    captures: dict[int, Any] = {}
    for _, _, found in functions:
        captures.update((id(c), c) for c in found)
    order = list(captures)
    merged = []
    for function, _, found in functions:
        places = [order.index(id(c)) for c in found]
        types = [a.type for a in function.arguments[:count]] + [c.type for c in captures.values()]

        def call(*values, function=function, places=places):
            return replay(function, [*values[:count], *(values[count + p] for p in places)])

        merged.append(trace(call, types, function.name)[0])
    return merged, list(captures.values())


def switch(index: Any, branches: Sequence[Callable], *operands: Any) -> Any:
    """`branches[index](*operands)`; an index out of range takes the nearest. All branches return one
    structure of one type. Differentiable in both modes."""
    from ..numpy import clip

    arrays = [as_leaf(leaf) for leaf in tree.leaves(operands)]
    traced = [_traced(b, operands, "branch") for b in branches]
    first = traced[0]
    for number, (function, structure, _) in enumerate(traced[1:], 1):
        if structure != first[1] or function.result_types != first[0].result_types:
            shown = [", ".join(map(str, f.result_types)) for f in (first[0], function)]
            raise TraceError(f"branch 0 returns {first[1]} of ({shown[0]}), branch {number}"
                             f" {structure} of ({shown[1]}); branches must return one type",
                             user_location())
    functions, captures = _merged(traced, len(arrays))
    place = bind("stablehlo.convert", clip(as_leaf(index), 0, len(branches) - 1), dtype=I32)
    found = bind("tfn.switch", place, *arrays, *captures, branches=tuple(functions))
    return tree.unflatten(first[1], found if isinstance(found, list) else [found])


def cond(predicate: Any, true_function: Callable, false_function: Callable, *operands: Any) -> Any:
    """`true_function(*operands)` where the scalar `predicate` holds, else `false_function(*operands)`.
    Only one of them runs. Differentiable in both modes."""
    place = bind("stablehlo.convert", as_leaf(predicate), dtype=I32)
    return switch(place, (false_function, true_function), *operands)


def while_loop(condition: Callable[[Any], Any], body: Callable[[Any], Any], initial: Any) -> Any:
    """`initial`, then `body` of it again and again while `condition` holds. Forward mode only."""
    leaves, structure = tree.flatten(initial)
    state = [as_leaf(leaf) for leaf in leaves]
    types = [s.type for s in state]

    def flat_condition(*values):
        return [as_leaf(condition(tree.unflatten(structure, values)))]

    def flat_body(*values):
        made, made_structure = tree.flatten(body(tree.unflatten(structure, values)))
        if made_structure != structure:
            raise TraceError(f"the body of while_loop returns {made_structure} for a state of"
                             f" {structure}", user_location())
        made = [as_leaf(m) for m in made]
        for i, (m, t) in enumerate(zip(made, types, strict=True)):
            if m.type != t:
                raise TraceError(f"the body of while_loop makes {m.type} of element {i} of the state,"
                                 f" which is {t}; both must be one type", user_location())
        return made

    regions = [trace_region(flat_condition, types), trace_region(flat_body, types)]
    found = bind("stablehlo.while", *state, regions=regions)
    return tree.unflatten(structure, found if isinstance(found, list) else [found])


def scan(function: Callable[[Any, Any], tuple[Any, Any]], initial: Any, xs: Any = None,
         length: int | None = None, reverse: bool = False, unroll: int = 1) -> tuple[Any, Any]:
    """Fold `function(carry, x) -> (carry, y)` over the leading dim of `xs`: the last carry, and all y
    stacked. Differentiable in both modes.

    `length` is needed without `xs`. `unroll` is a hint that changes nothing.
    """
    from .core import replay, trace

    carry, structure = tree.flatten(initial)
    state = [as_leaf(c) for c in carry]
    rows, row_structure = tree.flatten(xs)
    inputs = [as_leaf(r) for r in rows]
    lengths = {r.shape[0] for r in inputs} | ({length} if length is not None else set())
    if len(lengths) != 1:
        raise TraceError(f"scan needs one length, got {sorted(map(str, lengths)) or 'none'}: the"
                         " leading dims of xs, and `length`", user_location())
    (count,) = lengths
    outs: list[Any] = []

    def flat(*values):
        given = tree.unflatten(structure, values[:len(state)])
        row = tree.unflatten(row_structure, values[len(state):])
        result = function(given, row)
        if not isinstance(result, tuple) or len(result) != 2:
            raise TraceError("the function of scan returns (carry, y)", user_location())
        made, made_structure = tree.flatten(result[0])
        ys, y_structure = tree.flatten(result[1])
        if made_structure != structure:
            raise TraceError(f"scan's carry is {structure} before a step and {made_structure} after"
                             " it", user_location())
        outs.append(y_structure)
        return [as_leaf(v) for v in (*made, *ys)]

    types = [s.type for s in state]
    types += [x.type.with_shape(x.shape[1:]) for x in inputs]
    traced, captures = trace(flat, types, "body")
    n = len(captures)
    body = trace(lambda *v: replay(traced, [*v[n:], *v[:n]]),
                 [*(c.type for c in captures), *types], "body")[0]
    found = bind("tfn.scan", *captures, *state, *inputs, body=body, constants=n,
                 carries=len(state), length=count, reverse=reverse)
    found = found if isinstance(found, list) else [found]
    return (tree.unflatten(structure, found[:len(state)]),
            tree.unflatten(outs[-1], found[len(state):]))


def fori_loop(lower: Any, upper: Any, body: Callable[[Any, Any], Any], initial: Any) -> Any:
    """`initial`, then `body(i, value)` for i from `lower` below `upper`. With Python ints as bounds it
    is differentiable in both modes."""
    if isinstance(lower, int) and isinstance(upper, int):
        count = max(upper - lower, 0)
        steps = np.arange(lower, lower + count, dtype=np.int32)
        return scan(lambda c, i: (body(i, c), None), initial, steps)[0]
    from ..numpy import asarray

    low, high = asarray(lower), asarray(upper)
    return while_loop(lambda s: s[0] < high, lambda s: (s[0] + 1, body(s[0], s[1])),
                      (low, initial))[1]
