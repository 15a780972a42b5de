"""Common subexpressions: one op for each distinct (op, operands, attributes)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..ir.core import Function, Op, Value
from ..ir.rewrite import Rewriter


def cse(function: Function, target=None) -> Function:
    """Drop ops that compute what an earlier op already has. Ops with effects stay."""
    rewriter = Rewriter(function)
    seen: dict[Any, Op] = {}
    for op in function.ops:
        # Regions compare by identity: reducers are shared, so equal reductions are found.
        key = None if op.has_effect else _key(op, (rewriter[v] for v in op.operands))
        known = seen.get(key) if key is not None else None
        if known is not None:
            rewriter.replace(op, known.results)
            continue
        new = rewriter.copy(op)
        if key is not None:
            seen[key] = new
    return rewriter.finish()


def distinct(op: Op, seen: dict[Any, Op]) -> Op:
    """The op among those `seen` that computes what `op` does; `op` itself if it is the first."""
    key = None if op.has_effect else _key(op, op.operands)
    return op if key is None else seen.setdefault(key, op)


def _key(op: Op, values: Iterable[Value]) -> Any:
    """What `op` computes, given what stands for its operands."""
    attributes = tuple((k, hashable(op.attributes[k])) for k in sorted(op.attributes))
    operands = tuple(values)
    types = tuple(r.type for r in op.results)
    key = (op.name, operands, attributes, types, tuple(id(r) for r in op.regions))
    try:
        hash(key)
    except TypeError:
        return None
    return key


def hashable(value: Any) -> Any:
    """What stands for an attribute in a key: equal for equal ones, while both exist."""
    if isinstance(value, np.ndarray):
        small = value.nbytes <= 4096
        return (value.shape, value.dtype.str, value.tobytes()) if small else id(value)
    if isinstance(value, float):
        return repr(value)  # 0.0 is not -0.0.
    if type(value) in (list, tuple):
        return tuple([hashable(v) for v in value])
    if isinstance(value, dict):
        return tuple([(k, hashable(v)) for k, v in value.items()])
    return value
