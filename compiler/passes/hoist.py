"""Loop-invariant motion: what a loop computes each time, and always the same, is computed before it.

Values a loop carries and never changes become plain values from outside. Ops whose operands all come
from outside move out, unless they are cheap and would only fill memory: a broadcast, or a sum with
one, is done faster in the kernel that reads it. Everything moved is a pure function, so a loop that
runs zero times gives what it gave. What nobody needs afterwards is left to `dce`.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..codegen.work import DEAR
from ..ir.core import Block, Function, Op, Value, free_values
from ..ir.rewrite import Rewriter, clone_op
from .fuse import is_alias, is_free
from .regions import CONTROL, REGION

LOOP = "stablehlo.while"

PINNED = frozenset({"stablehlo.optimization_barrier", *CONTROL})
"""Ops that stay: a barrier says so, and control flow may not end when its loop never runs."""

CHEAP = 8
"""Elementwise ops that together cost less than reading a number from memory."""


def hoist(function: Function, target=None) -> Function:
    """Move what a step of a loop does not change out of it, and out of the loops around it.

    Branches are functions of their own: apply it to them with `regions.everywhere`.
    """
    if all(op.name != LOOP for op in function.ops):
        return function
    rewriter = Rewriter(function)
    changed = False
    for op in function.ops:
        if op.name == LOOP:
            changed |= _loop(op, rewriter)
        else:
            rewriter.copy(op)
    return rewriter.finish() if changed else function


def _loop(op: Op, rewriter: Rewriter) -> bool:
    """Append what stands for a loop. Is it another?"""
    before = [hoist(Function(REGION, region)).body for region in op.regions]
    fixed = _fixed(op, before[1])
    outside = {region.arguments[i]: rewriter[op.operands[i]] for region in before for i in fixed}
    varying = {a for region in before for a in region.arguments if a not in outside}
    found = [_movable(region, varying) for region in before]
    if not fixed and not any(moved for moved, _ in found) and tuple(before) == op.regions:
        rewriter.copy(op)
        return False
    values = {**rewriter.values, **outside}
    for moved, _ in found:
        for inner in moved:
            rewriter.block.ops.append(clone_op(inner, values))
    kept = [i for i in range(len(op.operands)) if i not in fixed]
    test, step = (_rest(region, kept, set(moved) - stays, values)
                  for region, (moved, stays) in zip(before, found, strict=True))
    step.returns = [step.returns[i] for i in kept]
    new = rewriter.append(op.definition, [rewriter[op.operands[i]] for i in kept],
                          [op.results[i].type for i in kept], op.attributes, [test, step], op.location)
    results = iter(new.results)
    rewriter.replace(op, [rewriter[v] if i in fixed else next(results)
                          for i, v in enumerate(op.operands)])
    return True


def _fixed(op: Op, body: Block) -> set[int]:
    """The carried values that a step does not change. One stays, or no loop would be left."""
    found = {i for i, (argument, new) in enumerate(zip(body.arguments, body.returns, strict=True))
             if new is argument or new is op.operands[i]}
    return found if len(found) < len(body.arguments) else found - {0}


def _movable(region: Block, varying: set[Value]) -> tuple[list[Op], set[Op]]:
    """The ops of a region to do before the loop, in order, and which of them to do inside as well.
    `varying` comes to hold all that the region makes from what changes."""
    steady: list[Op] = []
    for op in region.ops:
        if (op.has_effect or op.definition.host or op.name in PINNED
                or any(v in varying for v in _reads(op))):
            varying.update(op.results)
        else:
            steady.append(op)
    own = set(steady)
    needed = {*region.returns, *(v for op in region.ops if op not in own for v in _reads(op))}
    moved: set[Op] = set()
    stays: set[Op] = set()
    for op in reversed(steady):
        if any(r in needed for r in op.results):
            if _pays(op, own):
                moved.add(op)
            else:
                stays.add(op)
                needed.update(_reads(op))
        if op in moved:
            moved.update(v.op for v in _reads(op) if v.op in own)
    return [op for op in steady if op in moved], stays


def _reads(op: Op) -> list[Value]:
    return [*op.operands, *(v for region in op.regions for v in free_values(region))]


def _pays(op: Op, steady: set[Op]) -> bool:
    """Is it better to read the results of `op` in each step than to compute them?"""
    if _is_nothing(op):
        return False
    if not _is_cheap(op):
        return True
    chain, sources = [op], set()
    for at in chain:  # Grows.
        for value in at.operands:
            source = value.op
            if source not in steady or not (_is_nothing(source) or _is_cheap(source)):
                sources.add(value)
            elif source not in chain:
                chain.append(source)
    read = sum(v.type.nominal_bytes for v in sources)
    return (sum(not _is_nothing(o) for o in chain) > CHEAP
            or sum(r.type.nominal_bytes for r in op.results) <= read)


def _is_nothing(op: Op) -> bool:
    """Is it part of the kernel or the plan that reads it, at no cost?"""
    return is_free(op) or is_alias(op) or op.name == "stablehlo.constant"


def _is_cheap(op: Op) -> bool:
    return (getattr(op.definition, "scalar", None) is not None
            and op.name.rpartition(".")[2] not in DEAR)


def _rest(region: Block, kept: list[int], gone: set[Op], values: Mapping[Value, Value]) -> Block:
    """A region without what moved, and without the arguments that became values from outside."""
    new = Block([region.arguments[i].type for i in kept])
    inner = {**values, **dict(zip((region.arguments[i] for i in kept), new.arguments, strict=True))}
    new.ops = [clone_op(op, inner) for op in region.ops if op not in gone]
    new.returns = [inner.get(v, v) for v in region.returns]
    return new
