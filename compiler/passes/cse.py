"""Common subexpressions: one op for each distinct (op, operands, attributes)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..ir.core import Function, Op
from ..ir.rewrite import Rewriter


def cse(function: Function, target=None) -> Function:
    """Drop ops that compute what an earlier op already has. Ops with effects stay."""
    rewriter = Rewriter(function)
    seen: dict[Any, Op] = {}
    for op in function.ops:
        # Regions compare by identity: reducers are shared, so equal reductions are found.
        key = None if op.has_effect else _key(op, rewriter)
        known = seen.get(key) if key is not None else None
        if known is not None:
            rewriter.replace(op, known.results)
            continue
        new = rewriter.copy(op)
        if key is not None:
            seen[key] = new
    return rewriter.finish()


def _key(op: Op, rewriter: Rewriter) -> Any:
    attributes = tuple((k, hashable(op.attributes[k])) for k in sorted(op.attributes))
    operands = tuple(rewriter[v] for v in op.operands)
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
