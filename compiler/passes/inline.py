"""Inline: replace calls and composites by the bodies of their functions."""

from __future__ import annotations

from ..ir.core import Function, Op, Value
from ..ir.rewrite import Rewriter, clone_block
from ..ops.control import INLINED


def inline(function: Function, target=None, keep: frozenset[str] = frozenset()) -> Function:
    """`function` without calls and composites, except composites named in `keep`."""
    if not any(op.name in INLINED for op in function.ops):
        return function
    rewriter = Rewriter(function)
    for op in function.ops:
        _inline_op(op, rewriter, rewriter.values, keep)
    return rewriter.finish()


def _inline_op(op: Op, rewriter: Rewriter, values: dict[Value, Value], keep) -> None:
    if op.name in INLINED and op.attributes.get("name") not in keep:
        body: Function = op.attributes[INLINED[op.name]]
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
