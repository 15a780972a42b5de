"""Inline: replace calls, composites and ops that are defined by others by their bodies.

For the code generator, composites that have a kernel become the op of the same name.
"""

from __future__ import annotations

from collections.abc import Callable

from ..ir.core import Block, Function, Op, Value
from ..ir.rewrite import Rewriter, clone_block
from ..ops import attention, cumulative, gelu, recurrent
from ..ops.control import INLINED, body_of

KERNELS: dict[str, Callable[[Op], Op | None]] = {
    "tfn.attention": attention.as_kernel, "tfn.attention_backward": attention.as_kernel,
    "tfn.lstm": recurrent.as_kernel, "tfn.lstm_backward": recurrent.as_kernel,
    "tfn.gru": recurrent.as_kernel, "tfn.gru_backward": recurrent.as_kernel,
    "tfn.simple_rnn": recurrent.as_kernel, "tfn.simple_rnn_backward": recurrent.as_kernel,
    "tfn.cumulative": cumulative.as_kernel,
    "tfn.gelu": gelu.as_kernel, "tfn.gelu_slope": gelu.as_kernel,
}
"""Composite -> the op that has a kernel for it, if it fits."""


def inline(function: Function, target=None, keep: frozenset[str] = frozenset()) -> Function:
    """`function` without ops that stand for a function, except composites named in `keep`. Given the
    `target` to make code for, composites of `KERNELS` stay as ops of their own."""
    if not any(_has_body(op) for op in function.body.walk()):
        return function
    rewriter = Rewriter(function)
    for op in function.ops:
        _inline_op(op, rewriter.block, rewriter.values, keep, target is not None)
    return rewriter.finish()


def _has_body(op: Op) -> bool:
    return op.name in INLINED or (
        op.definition.decompose is not None and op.definition.expands(op))


def _inline_op(op: Op, block: Block, values: dict[Value, Value], keep, compiles: bool) -> None:
    name = op.attributes.get("name")
    kept = KERNELS[name](op) if compiles and name in KERNELS else None
    body = body_of(op) if name not in keep and kept is None else None
    op_made = kept or op
    if body is not None:
        inner = dict(zip(body.arguments, (values.get(v, v) for v in op.operands), strict=True))
        for nested in body.ops:
            _inline_op(nested, block, inner, keep, compiles)
        results = [inner.get(v, v) for v in body.returns]
    else:
        new = Op(op_made.definition, [values.get(v, v) for v in op.operands],
                 [r.type for r in op.results], op_made.attributes,
                 [_inline_region(r, values, keep, compiles) for r in op.regions], op.location)
        block.ops.append(new)
        results = list(new.results)
    values.update(zip(op.results, results, strict=True))


def _inline_region(region: Block, outer: dict[Value, Value], keep, compiles: bool) -> Block:
    if not any(_has_body(op) for op in region.walk()):
        return clone_block(region, outer)
    block = Block([a.type for a in region.arguments])
    values = {**outer, **dict(zip(region.arguments, block.arguments, strict=True))}
    for op in region.ops:
        _inline_op(op, block, values, keep, compiles)
    block.returns = [values.get(v, v) for v in region.returns]
    return block
