"""Dead code: drop ops nothing depends on, and of loops and branches the results nobody reads.

A value that a loop carries is needed for its result, for the condition, for an effect, or for another
value that is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..ir.core import Block, Function, Op, Value
from ..ir.rewrite import Rewriter, clone_op
from .regions import CONTROL

LOOP = "stablehlo.while"


def dce(function: Function, target=None) -> Function:
    """Keep what the returns and ops with effects need. Of regions, only what they return changes: apply
    it to them with `regions.everywhere`."""
    kept, needed = _live(function.body, function.returns)
    used = {op: _used(op, needed) for op in kept if op.name in CONTROL}
    if len(kept) == len(function.ops) and all(len(u) == len(op.results) for op, u in used.items()):
        return function
    rewriter = Rewriter(function)
    for op in function.ops:
        if op in used and len(used[op]) < len(op.results):
            _trim(op, used[op], rewriter)
        elif op in kept:
            rewriter.copy(op)
    return rewriter.finish()


def _live(block: Block, returns: Iterable[Value]) -> tuple[set[Op], set[Value]]:
    """The ops of a block that are needed, and the values they need: of a region's, what it only reads
    in order to drop it does not count."""
    needed: set[Value] = set(returns)
    kept: set[Op] = set()
    for op in reversed(block.ops):
        if not (any(r in needed for r in op.results) or _has_effect(op)):
            continue
        kept.add(op)
        if op.name not in CONTROL:
            needed.update(op.operands)
            for region in op.regions:
                needed |= _live(region, region.returns)[1]
            continue
        used = _used(op, needed)
        needed.update(op.operands[i] for i in used) if op.name == LOOP else needed.update(op.operands)
        needed |= _read(op, used)
    return kept, needed


def _has_effect(op: Op) -> bool:
    return op.has_effect or (op.name in CONTROL and any(
        inner.has_effect for region in op.regions for inner in region.walk()))


def _used(op: Op, needed: set[Value]) -> list[int]:
    """The results of control flow that must be: those needed, and what a loop needs for them."""
    used = [i for i, r in enumerate(op.results) if r in needed]
    if op.name != LOOP:
        return used
    while len(used) < len(op.results):
        read = _read(op, used)
        more = [i for i, arguments in enumerate(zip(*(r.arguments for r in op.regions), strict=True))
                if i in used or any(a in read for a in arguments)]
        if more == used:
            break
        used = more
    return used


def _read(op: Op, used: Sequence[int]) -> set[Value]:
    """What the regions of control flow read for the results `used`."""
    found: set[Value] = set()
    for region in op.regions:
        found |= _live(region, _returned(op, region, used))[1]
    return found


def _returned(op: Op, region: Block, used: Sequence[int]) -> list[Value]:
    tests = op.name == LOOP and region is op.regions[0]
    return region.returns if tests else [region.returns[i] for i in used]


def _trim(op: Op, used: Sequence[int], rewriter: Rewriter) -> None:
    """Append control flow with only the results `used`."""
    operands = [rewriter[op.operands[i]] for i in used] if op.name == LOOP \
        else [rewriter[v] for v in op.operands]
    new = rewriter.append(op.definition, operands, [op.results[i].type for i in used], op.attributes,
                          [_trimmed(op, region, used, rewriter) for region in op.regions], op.location)
    rewriter.values.update(zip((op.results[i] for i in used), new.results, strict=True))


def _trimmed(op: Op, region: Block, used: Sequence[int], rewriter: Rewriter) -> Block:
    """A region with the arguments and returns of the results `used`, and the ops these need."""
    kept, _ = _live(region, _returned(op, region, used))
    arguments = [region.arguments[i] for i in used] if op.name == LOOP else []
    new = Block([a.type for a in arguments])
    values = {**rewriter.values, **dict(zip(arguments, new.arguments, strict=True))}
    new.ops = [clone_op(inner, values) for inner in region.ops if inner in kept]
    new.returns = [values.get(v, v) for v in _returned(op, region, used)]
    return new
