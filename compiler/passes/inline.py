"""Inline: replace calls, composites and ops that are defined by others by their bodies."""

from __future__ import annotations

from ..ir.core import Block, Function, Op, Value
from ..ir.rewrite import Rewriter, clone_block
from ..ops.control import INLINED, body_of


def inline(function: Function, target=None, keep: frozenset[str] = frozenset()) -> Function:
    """`function` without ops that stand for a function, except composites named in `keep`."""
    if not any(_has_body(op) for op in function.body.walk()):
        return function
    rewriter = Rewriter(function)
    for op in function.ops:
        _inline_op(op, rewriter.block, rewriter.values, keep)
    return rewriter.finish()


def _has_body(op: Op) -> bool:
    return op.name in INLINED or (
        op.definition.decompose is not None and op.definition.expands(op))


def _inline_op(op: Op, block: Block, values: dict[Value, Value], keep) -> None:
    body = body_of(op) if op.attributes.get("name") not in keep else None
    if body is not None:
        inner = dict(zip(body.arguments, (values.get(v, v) for v in op.operands), strict=True))
        for nested in body.ops:
            _inline_op(nested, block, inner, keep)
        results = [inner.get(v, v) for v in body.returns]
    else:
        new = Op(op.definition, [values.get(v, v) for v in op.operands],
                 [r.type for r in op.results], op.attributes,
                 [_inline_region(r, values, keep) for r in op.regions], op.location)
        block.ops.append(new)
        results = list(new.results)
    values.update(zip(op.results, results, strict=True))


def _inline_region(region: Block, outer: dict[Value, Value], keep) -> Block:
    if not any(_has_body(op) for op in region.walk()):
        return clone_block(region, outer)
    block = Block([a.type for a in region.arguments])
    values = {**outer, **dict(zip(region.arguments, block.arguments, strict=True))}
    for op in region.ops:
        _inline_op(op, block, values, keep)
    block.returns = [values.get(v, v) for v in region.returns]
    return block
