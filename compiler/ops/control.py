"""Control flow and calls: while, if, case, func.call, composite.

Regions of while/if/case may refer to values of the enclosing function. A composite keeps the name of
a high-level operation (`tfn.softmax`) beside its decomposition, a private `Function`: exporters and
the code generator match the name, everything else uses the decomposition.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import UnsupportedError
from ..ir.core import Block, Function, Op
from ..ir.dtypes import FutureDType, future_of
from ..ir.evaluator import run_block
from ..trace.core import (
    Array,
    as_array,
    bind,
    current_graph,
    free_values,
    located,
    replay,
    replay_ops,
    trace,
    trace_region,
)
from .declare import Factors, OpDefinition, Shared, op, require


def _opaque(op) -> Factors:
    return Factors([(None,) * len(v.shape) for v in op.operands],
                   [(None,) * len(v.shape) for v in op.results])


@op("stablehlo.while")
class While(OpDefinition):
    """Run `body` on the state while `cond` holds."""

    def vjp(cotangents, op, operands, results):
        raise UnsupportedError(
            "while_loop has no reverse-mode derivative, as its number of steps is not known; use scan,"
            " fori_loop with fixed bounds, or forward mode (jvp)", op.location)

    regions = ("cond", "body")
    batches_regions = True
    factors = staticmethod(_opaque)

    def infer(operands, attributes, regions):
        _, body = regions
        got = [r.type for r in body.returns]
        require(got == list(operands), "C3",
                f"the body of while returns {', '.join(map(str, got))} for a state of"
                f" {', '.join(map(str, operands))}")
        return list(operands)

    def evaluate(operands, attributes, regions, result_types):
        from ..ir.evaluator import run_block

        state = list(operands)
        cond, body = regions
        while run_block(cond, state)[0]:
            state = run_block(body, state)
        return state

    def batch(op, operands, batched, batch):
        cond, body = op.regions
        varied = list(batched)
        while True:
            _, found = batch.region(body, varied)
            grown = [a or b for a, b in zip(varied, found, strict=True)]
            if grown == varied:
                break
            varied = grown
        test, (differs,) = batch.region(cond, varied)
        if differs:
            varied = [True] * len(varied)
            test, step = _until_all(cond, body, varied, batch)
        else:
            step, _ = batch.region(body, varied, varied)
        state = [batch.spread(x, b) if v else x
                 for x, b, v in zip(operands, batched, varied, strict=True)]
        results = bind("stablehlo.while", *state, regions=[test, step])
        return shared_unless(results if len(state) != 1 else [results], varied)


def _until_all(cond: Block, body: Block, varied, batch) -> tuple[Block, Block]:
    """Regions of a loop that runs until all examples are done; one that is done keeps its state."""
    from .reduction import reduce

    types = [a.type.with_shape((batch.size, *a.shape)) for a in cond.arguments]

    def going(state):
        return batch.inline(cond, state, varied)[0][0]

    def step(*state):
        more = going(state)
        results, found = batch.inline(body, state, varied)
        return [select(batch, more, new, old) for new, old
                in zip(batch.spread_all(results, found), state, strict=True)]

    return (trace_region(lambda *state: [reduce(going(state), (0,), "or")], types),
            trace_region(step, types))


def select(batch, chosen, x, y):
    """For each example `x` or `y`, as its element of `chosen` says."""
    return bind("stablehlo.select", batch.align(chosen, True, x.shape[1:]), x, y)


def shared_unless(results, batched) -> list:
    """Results as a `batch` rule returns them."""
    return [r if b else Shared(r) for r, b in zip(results, batched, strict=True)]


def _branches(op, batch) -> tuple[list[Block], list[bool]]:
    """A conditional whose choice is the same for all examples."""
    found = [batch.region(r, ())[1] for r in op.regions]
    wanted = [any(column) for column in zip(*found, strict=True)]
    return [batch.region(r, (), wanted)[0] for r in op.regions], wanted


def _computed(op, batch) -> list[list]:
    """The results of every branch, all batched."""
    return [batch.spread_all(*batch.inline(r, (), ())) for r in op.regions]


@op("stablehlo.case")
class Case(OpDefinition):
    """Run branch `index`; an index out of range runs the last branch."""

    regions = ("branches",)
    batches_regions = True
    factors = staticmethod(_opaque)

    def infer(operands, attributes, regions):
        types = [[r.type for r in b.returns] for b in regions]
        require(all(t == types[0] for t in types), "C4",
                f"branches return different types: {types}")
        return types[0]

    def evaluate(operands, attributes, regions, result_types):
        from ..ir.evaluator import run_block

        index = int(operands[0])
        return run_block(regions[index if 0 <= index < len(regions) else -1], [])

    def batch(op, operands, batched, batch):
        (index,) = operands
        if not batched[0]:
            regions, varied = _branches(op, batch)
            results = bind("stablehlo.case", index, regions=regions)
            return shared_unless(results if len(varied) != 1 else [results], varied)
        *others, total = _computed(op, batch)
        for number, results in enumerate(others):
            here = bind("stablehlo.compare", index, batch.spread(np.int32(number)),
                        comparison_direction="EQ")
            total = [select(batch, here, x, y) for x, y in zip(results, total, strict=True)]
        return total


@op("stablehlo.if")
class If(OpDefinition):
    """Run `true_branch` when the predicate holds, else `false_branch`."""

    regions = ("true_branch", "false_branch")
    batches_regions = True
    factors = staticmethod(_opaque)

    def infer(operands, attributes, regions):
        first, second = ([r.type for r in b.returns] for b in regions)
        require(first == second, "C3", f"branches return {first} and {second}")
        return first

    def evaluate(operands, attributes, regions, result_types):
        from ..ir.evaluator import run_block

        return run_block(regions[0] if bool(operands[0]) else regions[1], [])

    def batch(op, operands, batched, batch):
        (predicate,) = operands
        if not batched[0]:
            regions, varied = _branches(op, batch)
            results = bind("stablehlo.if", predicate, regions=regions)
            return shared_unless(results if len(varied) != 1 else [results], varied)
        return [select(batch, predicate, x, y)
                for x, y in zip(*_computed(op, batch), strict=True)]


class _Inlined(OpDefinition):
    """An op that means a function given as an attribute."""

    callee = ""

    @classmethod
    def infer(cls, operands, attributes, regions):
        function: Function = attributes[cls.callee]
        require(list(function.argument_types) == list(operands), "C1",
                f"{function.name} takes {', '.join(map(str, function.argument_types))},"
                f" got {', '.join(map(str, operands))}")
        return list(function.result_types)

    @classmethod
    def evaluate(cls, operands, attributes, regions, result_types):
        from ..ir.evaluator import run_block

        return run_block(attributes[cls.callee].body, operands)

    factors = staticmethod(_opaque)


def _along_axis(attributes) -> dict:
    return {**attributes, "axis": [a + (a >= 0) for a in attributes["axis"]]}


KEPT: dict[str, Callable[[dict], dict]] = {
    "tfn.gelu": dict, "tfn.gelu_slope": dict, "tfn.log_softmax": _along_axis,
    "tfn.softmax": _along_axis, "tfn.stop_gradient": dict,
}
"""Composites that mean the same for a batch of examples, and their attributes then."""


DERIVATIVES: dict[str, Callable[[Op], Callable[..., Any] | None]] = {}
"""Composite -> what gives its rule `vjp`, or None where that of its decomposition is as good. Filled by
the modules that make the composites."""


@op("func.call")
class Call(_Inlined):
    """Call a function; `callee` is the `Function` itself."""

    callee = "callee"
    attributes = {"callee": "symbol"}


@op("stablehlo.composite")
class Composite(_Inlined):
    """A named operation with its decomposition."""

    callee = "decomposition"
    attributes = {"name": "string", "composite_attributes": "dictionary",
                  "decomposition": "symbol", "version": "i64"}
    optional = frozenset({"composite_attributes", "version"})

    def batch(op, operands, batched, batch):
        body, change = op.attributes["decomposition"], KEPT.get(op.attributes["name"])
        if change is None:
            return batch.expand(op, operands, batched)
        results = composite(
            op.attributes["name"],
            lambda *given: batch.spread_all(*batch.inline(body, given, [True] * len(given))),
            *batch.spread_all(operands, batched),
            **change(op.attributes.get("composite_attributes") or {}))
        return list(results)


INLINED: dict[str, str] = {"func.call": "callee", "stablehlo.composite": "decomposition"}
"""Ops that stand for the function in the attribute."""


@op("stablehlo.async_start")
class AsyncStart(OpDefinition):
    """Begin what the region computes. Programs here run one op after the other, so it is also done."""

    regions = ("body",)

    def infer(operands, attributes, regions):
        (body,) = regions
        expected = [a.type for a in body.arguments]
        require(list(operands) == expected, "C1", f"the region of async_start takes"
                f" {', '.join(map(str, expected))}, its operands are {', '.join(map(str, operands))}")
        if free_values(body):
            raise UnsupportedError("the region of async_start refers to values outside it")
        require(len(body.returns) == 1, "C2", "the region of async_start returns one tensor,"
                f" not {len(body.returns)}")
        return [body.returns[0].type.with_dtype(future_of(body.returns[0].dtype))]

    def decompose(operands, attributes, regions):
        environment = dict(zip(regions[0].arguments, operands, strict=True))
        replay_ops(regions[0].ops, environment)
        return [environment[v] for v in regions[0].returns]

    def evaluate(operands, attributes, regions, result_types):
        return run_block(regions[0], operands)


@op("stablehlo.async_done")
class AsyncDone(OpDefinition):
    """What a future holds, once it is computed."""

    def infer(operands, attributes, regions):
        (x,) = operands
        return [x.with_dtype(x.dtype.element) if isinstance(x.dtype, FutureDType) else x]

    def decompose(operands, attributes, regions):
        return list(operands)

    def evaluate(operands, attributes, regions, result_types):
        return list(operands)


def body_of(op: Op) -> Function | None:
    """The function an op stands for: that of a call or composite, or the traced decomposition of an
    op that has one; None for any other op."""
    if op.name in INLINED:
        return op.attributes[INLINED[op.name]]
    if op.definition.decompose is None or not op.definition.expands(op):
        return None
    from .. import numpy  # noqa: F401  (defines the operators that rules use)

    # Ops of a function that is applied keep their own lines.
    with located(op.location):
        body, _ = trace(
            lambda *operands: op.definition.rule("decompose")(operands, op.attributes, op.regions),
            [o.type for o in op.operands], op.name.partition(".")[2])
    return body


def composite(name: str, function: Callable[..., Any], *arguments: Any, **attributes: Any) -> Any:
    """`function(*arguments)` under the name `name`; `attributes` are kept with it.

    Run eagerly it is just the function. Traced, the body becomes a private function that must not
    depend on traced values other than its arguments.
    """
    inputs = [as_array(a) for a in arguments]
    if current_graph() is None or all(isinstance(i, Array) for i in inputs):
        return function(*inputs)
    single = []

    def body(*tracers):
        result = function(*tracers)
        single.append(not isinstance(result, (list, tuple)))
        return [result] if single[-1] else list(result)

    short = name.rpartition(".")[2]
    decomposition, captures = trace(body, [i.type for i in inputs], f"{short}.impl")
    if captures:
        return function(*inputs)
    decomposition.public = False
    results = bind("stablehlo.composite", *inputs, name=name, composite_attributes=attributes,
                   decomposition=decomposition)
    results = results if isinstance(results, list) else [results]
    return results[0] if single[-1] else results


def inline(op, operands):
    """The results of an inlinable op, by binding the ops of its function."""
    return replay(body_of(op), operands)
