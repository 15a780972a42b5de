"""Inline: replace calls, composites and ops that are defined by others by their bodies."""

from __future__ import annotations

from ..ir.core import Function, Op, Value
from ..ir.rewrite import Rewriter, clone_block
from ..ops.control import INLINED, body_of


def inline(function: Function, target=None, keep: frozenset[str] = frozenset()) -> Function:
    """`function` without ops that stand for a function, except composites named in `keep`."""
    if not any(_has_body(op) for op in function.ops):
        return function
    rewriter = Rewriter(function)
    for op in function.ops:
        _inline_op(op, rewriter, rewriter.values, keep)
    return rewriter.finish()


def _has_body(op: Op) -> bool:
    return op.name in INLINED or op.definition.decompose is not None


def _inline_op(op: Op, rewriter: Rewriter, values: dict[Value, Value], keep) -> None:
    body = body_of(op) if op.attributes.get("name") not in keep else None
    if body is not None:
        inner = dict(zip(body.arguments, (values.get(v, v) for v in op.operands), strict=True))
        for nested in body.ops:
            _inline_op(nested, rewriter, inner, keep)
        results = [inner.get(v, v) for v in body.returns]
    else:
        new = Op(op.definition, [values.get(v, v) for v in op.operands],
                 [r.type for r in op.results], op.attributes,
                 [clone_block(r, values) for r in op.regions], op.location)
        rewriter.block.ops.append(new)
        results = list(new.results)
    values.update(zip(op.results, results, strict=True))
