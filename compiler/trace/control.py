"""Control flow on traced values: cond, switch, while_loop, fori_loop, scan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import TraceError, user_location
from ..ir.core import Function, TensorType
from ..ir.dtypes import I1, I32
from . import names, tree
from .core import bind, trace_region
from .jit import as_leaf, call, trace_tree


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

    index = as_leaf(index)
    if index.shape != () or index.dtype.kind not in "iub":
        raise TraceError(f"the index of switch is {index.type}; it must be an integer scalar",
                         user_location())
    if not branches:
        raise TraceError("switch needs at least one branch", user_location())
    called = [f"branch {i}" for i in range(len(branches))]
    return _switch(clip(index, 0, len(branches) - 1), branches, called, operands)


def _switch(index: Any, branches: Sequence[Callable], called: Sequence[str], operands: Any) -> Any:
    """`branches[index]`, which is in range; `called` are what messages call the branches."""
    arrays = [as_leaf(leaf) for leaf in tree.leaves(operands)]
    traced = [_traced(b, operands, "branch") for b in branches]
    first = traced[0]
    for name, (function, structure, _) in zip(called[1:], traced[1:], strict=True):
        verbs = (f"from {called[0]}", f"from {name}")
        if structure != first[1]:
            wrong = names.difference(first[1], structure, "result", verbs)
        else:
            wrong = names.unequal(names.leaf_names(structure, "result"), first[0].result_types,
                                  function.result_types, verbs)
        if wrong:
            raise TraceError(f"{wrong}; all branches must return the same types", user_location())
    functions, captures = _merged(traced, len(arrays))
    place = bind("stablehlo.convert", index, dtype=I32)
    found = bind("tfn.switch", place, *arrays, *captures, branches=tuple(functions))
    return tree.unflatten(first[1], found if isinstance(found, list) else [found])


def cond(predicate: Any, true_function: Callable, false_function: Callable, *operands: Any) -> Any:
    """`true_function(*operands)` where the scalar `predicate` holds, else `false_function(*operands)`.
    Only one of them runs. Differentiable in both modes."""
    predicate = as_leaf(predicate)
    if predicate.shape != ():
        raise TraceError(f"the predicate of cond is {predicate.type}; it must be a scalar: reduce it"
                         " with any() or all(), or choose element by element with where()",
                         user_location())
    place = bind("stablehlo.convert", bind("stablehlo.convert", predicate, dtype=I1), dtype=I32)
    return _switch(place, (false_function, true_function),
                   ("false_function", "true_function"), operands)


def while_loop(condition: Callable[[Any], Any], body: Callable[[Any], Any], initial: Any) -> Any:
    """`initial`, then `body` of it again and again while `condition` holds. Forward mode only."""
    leaves, structure = tree.flatten(initial)
    state = [as_leaf(leaf) for leaf in leaves]
    types = [s.type for s in state]

    def flat_condition(*values):
        given = (tree.unflatten(structure, values),)
        leaves, found = tree.flatten(call(condition, given))
        if not found.is_leaf() or as_leaf(leaves[0]).type != TensorType((), I1):
            shown = as_leaf(leaves[0]).type if found.is_leaf() else names.described(found)
            raise TraceError(f"the condition of while_loop is {shown}; it must be a boolean scalar:"
                             " compare (x != 0), and reduce with any() or all()", user_location())
        return [as_leaf(leaves[0])]

    def flat_body(*values):
        made, made_structure = tree.flatten(call(body, (tree.unflatten(structure, values),)))
        made = [as_leaf(m) for m in made]
        _check_carry("while_loop", "state", structure, types, made_structure, made)
        return made

    regions = [trace_region(flat_condition, types), trace_region(flat_body, types)]
    found = bind("stablehlo.while", *state, regions=regions)
    return tree.unflatten(structure, found if isinstance(found, list) else [found])


def _check_carry(what: str, name: str, structure, types, made_structure, made) -> None:
    """What a loop carries keeps its structure, shapes and dtypes."""
    verbs = ("before a step", "after it")
    if made_structure != structure:
        wrong = names.difference(structure, made_structure, name, verbs)
    else:
        wrong = names.unequal(names.leaf_names(structure, name), types, [m.type for m in made], verbs)
    if wrong:
        raise TraceError(f"{what}: {wrong}; a step must keep the structure, shapes and dtypes of"
                         f" the {name} (astype converts)", user_location())


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
    for name, x in zip(names.leaf_names(row_structure, "xs"), inputs, strict=True):
        if not x.shape:
            raise TraceError(f"{name} of scan is a scalar, {x.type}: its leading dim would count the"
                             " steps", user_location())
    lengths = {r.shape[0] for r in inputs} | ({length} if length is not None else set())
    if len(lengths) != 1:
        given = [f"{name} has {x.shape[0]}" for name, x
                 in zip(names.leaf_names(row_structure, "xs"), inputs, strict=True)]
        given += [f"`length` is {length}"] * (length is not None)
        raise TraceError("scan needs one length, the leading dim of all xs or `length`; "
                         + (", ".join(given) or "there is neither"), user_location())
    (count,) = lengths
    outs: list[Any] = []

    def flat(*values):
        given = tree.unflatten(structure, values[:len(state)])
        row = tree.unflatten(row_structure, values[len(state):])
        result = call(function, (given, row))
        if not isinstance(result, tuple) or len(result) != 2:
            raise TraceError("the function of scan returns a pair (carry, y), not"
                             f" {names.described(tree.flatten(result)[1])}; y may be None",
                             user_location())
        leaves, made_structure = tree.flatten(result[0])
        ys, y_structure = tree.flatten(result[1])
        made = [as_leaf(leaf) for leaf in leaves]
        _check_carry("scan", "carry", structure, types[:len(state)], made_structure, made)
        outs.append(y_structure)
        return [*made, *(as_leaf(y) for y in ys)]

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


def map(function: Callable[[Any], Any], xs: Any, batch_size: int | None = None) -> Any:
    """`function` of each row of `xs`, one after the other: the results stacked. With `batch_size` that
    many rows at once, by `vmap`."""
    if batch_size is None:
        return scan(lambda _, x: (None, function(x)), None, xs)[1]
    from ..numpy import asarray, concatenate, reshape
    from .batch import vmap

    rows = [as_leaf(r) for r in tree.leaves(xs)]
    count = rows[0].shape[0]
    whole = count // batch_size

    xs = tree.map(asarray, xs)

    def groups(x):
        return reshape(x[: whole * batch_size], (whole, batch_size, *x.shape[1:]))

    def flat(y):
        return reshape(y, (whole * batch_size, *y.shape[2:]))

    many = vmap(function)
    parts = []
    if whole:
        parts.append(tree.map(flat, map(many, tree.map(groups, xs))))
    if count > whole * batch_size:
        parts.append(many(tree.map(lambda x: x[whole * batch_size:], xs)))
    return parts[0] if len(parts) == 1 else tree.map(lambda a, b: concatenate([a, b], 0), *parts)


def associative_scan(function: Callable[[Any, Any], Any], elems: Any, reverse: bool = False,
                     axis: int = 0) -> Any:
    """All prefixes of `elems` along `axis` combined by the associative `function(a, b)`, which takes
    many at once: in as many steps as the logarithm of the length."""
    from ..numpy import concatenate, flip

    leaves, structure = tree.flatten(elems)
    arrays = [as_leaf(leaf) for leaf in leaves]
    lengths = {a.shape[axis] for a in arrays}
    if len(lengths) != 1:
        raise TraceError(f"associative_scan needs one length along axis {axis}, got"
                         f" {', '.join(str(a.type) for a in arrays)}", user_location())

    def part(xs, start, stop, step=1):
        return [x[(slice(None),) * (axis % x.ndim) + (slice(start, stop, step),)] for x in xs]

    def combine(a, b):
        return [as_leaf(leaf) for leaf in tree.leaves(
            function(tree.unflatten(structure, a), tree.unflatten(structure, b)))]

    def interleave(first, second):
        """first[0], second[0], first[1], ...: `first` has as many or one more."""
        n, m = (xs[0].shape[axis] for xs in (first, second))
        pairs = []
        for a, b in zip(first, second, strict=True):
            at = axis % a.ndim
            shape = list(b.shape)
            shape[at] = 2 * m
            both = concatenate([x.reshape((*x.shape[:at + 1], 1, *x.shape[at + 1:]))
                                for x in (part([a], 0, m)[0], b)], at + 1).reshape(shape)
            pairs.append(both if n == m else concatenate([both, part([a], m, n)[0]], at))
        return pairs

    def prefixes(xs):
        count = xs[0].shape[axis]
        if count < 2:
            return xs
        odd = prefixes(combine(part(xs, 0, count - 1, 2), part(xs, 1, count, 2)))
        made = odd[0].shape[axis]
        even = combine(part(odd, 0, made if count % 2 else made - 1), part(xs, 2, count, 2)) \
            if count > 2 else []
        first = part(xs, 0, 1)
        if even:
            first = [concatenate([a, b], axis) for a, b in zip(first, even, strict=True)]
        return interleave(first, odd)

    if reverse:
        arrays = [flip(a, axis) for a in arrays]
    found = prefixes(arrays)
    return tree.unflatten(structure, [flip(f, axis) for f in found] if reverse else found)


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
