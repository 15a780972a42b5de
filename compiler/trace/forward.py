"""Forward-mode differentiation: tangents beside values, op by op.

An op's own `jvp` rule comes first. Elementwise derivatives are linear in the cotangent, so they serve
both modes; ops that are linear apply to tangents themselves; for all others the transposed `vjp` is the
`jvp`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import OpError, UnsupportedError, user_location
from ..ir.core import Block, Function, Op, Value
from ..ops.control import body_of
from ..ops.elementwise import Binary, Unary
from . import names, tree
from .core import bind, located, replay, replay_op, trace, trace_region
from .grad import STOPS, check_pair, vjp
from .jit import as_leaf, trace_tree

_FIRST = {"stablehlo.gather": 1, "stablehlo.dynamic_slice": 1, "stablehlo.dynamic_update_slice": 2}
_LINEAR = frozenset("stablehlo." + name for name in (
    "reshape", "transpose", "broadcast_in_dim", "slice", "pad", "concatenate", "reverse", "gather",
    "dynamic_slice", "dynamic_update_slice", "real", "imag", "optimization_barrier"))
"""Ops linear in their operands (`_FIRST`: in that many leading ones)."""


def _zeros(value: Any) -> Any:
    return bind("stablehlo.broadcast_in_dim", np.zeros((), value.dtype), shape=tuple(value.shape),
                broadcast_dimensions=())


def push_forward(function: Function, arguments: Sequence[Any], tangents: Sequence[Any]
                 ) -> tuple[list[Any], list[Any]]:
    """Results of a traced function and their tangents; None is a tangent of zero."""
    values = dict(zip(function.arguments, arguments, strict=True))
    moving = {v: t for v, t in zip(function.arguments, tangents, strict=True) if t is not None}
    _run(function.body, values, moving)
    return [values[v] for v in function.returns], [moving.get(v) for v in function.returns]


def _run(block: Block, values: dict[Value, Any], moving: dict[Value, Any]) -> None:
    for op in block.ops:
        operands = [values[v] for v in op.operands]
        with located(op.location):
            results, tangents = _op(op, operands, values, moving)
        values.update(zip(op.results, results, strict=True))
        for result, tangent in zip(op.results, tangents, strict=True):
            if tangent is not None and result.dtype.is_inexact:
                moving[result] = tangent


def _op(op: Op, operands: list[Any], values, moving) -> tuple[list[Any], list[Any]]:
    if op.regions and op.name in _REGIONS and _moves(op, moving):
        return _REGIONS[op.name](op, operands, values, moving)
    tangents = [moving.get(v) for v in op.operands]
    if all(t is None for t in tangents) or op.attributes.get("name") in STOPS:
        return replay_op(op, operands, values), [None] * len(op.results)
    rule = getattr(op.definition, "jvp", None)
    if rule is None and op.definition.vjp is None:
        inner = body_of(op)
        if inner is not None:
            return push_forward(inner, operands, tangents)
    results = replay_op(op, operands, values)
    if rule is not None:
        return results, list(rule(tangents, op, operands, results))
    return results, _tangents(op, operands, tangents, results)


def _tangents(op: Op, operands, tangents, results) -> list[Any]:
    definition = op.definition
    if op.name in _LINEAR:
        count = _FIRST.get(op.name, len(operands))
        given = [o if i >= count else _zeros(o) if t is None else t
                 for i, (o, t) in enumerate(zip(operands, tangents, strict=True))]
        found = bind(definition, *given, **op.attributes)
        return found if isinstance(found, list) else [found]
    complexes = any(v.dtype.kind == "complex" for v in (*op.operands, *op.results))
    if issubclass(definition, Unary) and not complexes and _is_own(definition, Unary):
        return [definition.derivative(tangents[0], results[0], operands[0])]
    if issubclass(definition, Binary) and not complexes and _is_own(definition, Binary):
        total = None
        for i, tangent in enumerate(tangents):
            part = None if tangent is None else definition.derivative(
                tangent, results[0], *operands)[i]
            if part is not None:
                total = part if total is None else bind("stablehlo.add", total, part)
        return [total]
    return transposed(op, operands, tangents, results)


def _is_own(definition, base) -> bool:
    """Is the op's `vjp` the one made of its `derivative`?"""
    return getattr(definition.vjp, "__func__", None) is base.vjp.__func__


def transposed(op: Op, operands, tangents, results) -> list[Any]:
    """The transpose of the op's `vjp`, a linear map of cotangents, applied to the tangents."""
    rule = op.definition.vjp
    inexact = [i for i, r in enumerate(op.results) if r.dtype.is_inexact]
    if not inexact:
        return [None] * len(results)
    if rule is None:
        raise UnsupportedError(f"{op.name} has no derivative", op.location)
    chosen: list[int] = []

    def back(*cotangents):
        given = dict(zip(inexact, cotangents, strict=True))
        found = rule([given.get(i) for i in range(len(results))], op, operands, results)
        chosen[:] = [i for i, f in enumerate(found)
                     if f is not None and op.operands[i].dtype.is_inexact]
        return [found[i] for i in chosen]

    points = [_zeros(results[i]) for i in inexact]
    _, pull = vjp(lambda *c: tuple(back(*c)), *points)
    seeds = tuple(_zeros(operands[i]) if tangents[i] is None else tangents[i] for i in chosen)
    found = iter(pull(seeds))
    return [next(found) if i in inexact else None for i in range(len(results))]


# -- control flow ---------------------------------------------------------------------------------

def _moves(op: Op, moving) -> bool:
    from .core import free_values

    return any(v in moving for v in op.operands) or any(
        v in moving for r in op.regions for v in free_values(r))


def _dual_region(block: Block, values, moving, pairs: bool) -> Block:
    """The block on (and to) values followed by the tangents of the inexact ones."""
    active = [i for i, a in enumerate(block.arguments) if a.dtype.is_inexact]

    def body(*arguments):
        count = len(block.arguments)
        inner, tangents = dict(values), dict(moving)
        inner.update(zip(block.arguments, arguments[:count], strict=True))
        tangents.update(zip([block.arguments[i] for i in active], arguments[count:], strict=True))
        _run(block, inner, tangents)
        made = [inner[v] for v in block.returns]
        if not pairs:
            return made
        return [*made, *(tangents[v] if v in tangents else _zeros(inner[v])
                         for v in block.returns if v.dtype.is_inexact)]

    types = [a.type for a in block.arguments]
    return trace_region(body, [*types, *(types[i] for i in active)])


def _grouped(op: Op, found: Any) -> tuple[list[Any], list[Any]]:
    found = found if isinstance(found, list) else [found]
    count = len(op.results)
    rest = iter(found[count:])
    return found[:count], [next(rest) if r.dtype.is_inexact else None for r in op.results]


def _while(op: Op, operands, values, moving):
    condition, body = op.regions
    tangents = [moving[v] if v in moving else _zeros(x)
                for v, x in zip(op.operands, operands, strict=True) if v.dtype.is_inexact]
    regions = [_dual_region(condition, values, moving, pairs=False),
               _dual_region(body, values, moving, pairs=True)]
    return _grouped(op, bind("stablehlo.while", *operands, *tangents, regions=regions))


def _branches(op: Op, operands, values, moving):
    regions = [_dual_region(r, values, moving, pairs=True) for r in op.regions]
    return _grouped(op, bind(op.definition, *operands, regions=regions))


_REGIONS: dict[str, Callable[..., Any]] = {
    "stablehlo.while": _while, "stablehlo.if": _branches, "stablehlo.case": _branches}


# -- what users call ------------------------------------------------------------------------------

def jvp(function: Callable, primals: Sequence[Any], tangents: Sequence[Any], has_aux: bool = False
        ) -> Any:
    """`(function(*primals), tangents of it)`: the derivative along `tangents`, in the structure of the
    result.

    With `has_aux` the function returns `(value, aux)`, and aux, which has no tangent, comes third.
    Raises `OpError` when a tangent has not the shape and dtype of its primal.
    """
    leaves, structure = tree.flatten((tuple(primals), {}))
    arrays = [as_leaf(leaf) for leaf in leaves]
    given = checked_tangents(structure, arrays, tangents)
    traced, result_structure, captures = trace_tree(function, structure, [a.type for a in arrays])
    moving = [t if t.type.dtype.is_inexact else None for t in given]
    results, found = push_forward(traced, [*arrays, *captures], [*moving, *[None] * len(captures)])
    out = [_zeros(r) if t is None else t for r, t in zip(results, found, strict=True)]
    value, tangent = (tree.unflatten(result_structure, r) for r in (results, out))
    if not has_aux:
        return value, tangent
    check_pair(result_structure, function)
    return value[0], tangent[0], value[1]


def checked_tangents(structure, arrays, tangents: Sequence[Any]) -> list[Any]:
    """The leaves of tangents; `OpError` when they are not like the primals."""
    moves, found_structure = tree.flatten((tuple(tangents), {}))
    given = [as_leaf(leaf) for leaf in moves]
    if found_structure != structure:
        wrong = names.difference(found_structure.child(0), structure.child(0), "tangents",
                                 ("as given", "in primals"))
    else:
        wrong = names.unequal(names.leaf_names(structure.child(0), "tangents"),
                              [t.type for t in given], [a.type for a in arrays],
                              ("as given", "in primals"))
    if wrong:
        raise OpError(f"{wrong}; tangents have the structure, shapes and dtypes of"
                      " primals", user_location())
    return given


def linearize(function: Callable, *primals: Any) -> tuple[Any, Callable[..., Any]]:
    """`(function(*primals), push)`; `push(*tangents)` is the derivative along them, traced once."""
    leaves, structure = tree.flatten((primals, {}))
    arrays = [as_leaf(leaf) for leaf in leaves]
    traced, result_structure, captures = trace_tree(function, structure, [a.type for a in arrays])
    point = [*arrays, *captures]
    values: list[Any] = []

    def along(*tangents):
        given = [t if t.type.dtype.is_inexact else None for t in tangents]
        values[:], found = push_forward(traced, point, [*given, *[None] * len(captures)])
        return [_zeros(r) if t is None else t for r, t in zip(values, found, strict=True)]

    linear, taken = trace(along, [a.type for a in arrays], "linear")

    def push(*tangents):
        given = checked_tangents(structure, arrays, tangents)
        return tree.unflatten(result_structure, replay(linear, [*given, *taken]))

    return tree.unflatten(result_structure, replay(traced, point)), push
