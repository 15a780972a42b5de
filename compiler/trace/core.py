"""Tracing: how a Python call becomes IR.

Every operation of the library ends in `bind`. On concrete `Array`s it evaluates at once with NumPy
(the eager engine); on `Tracer`s it records an `Op` in the innermost `Graph`. Transformations trace a
function (`trace`) and bind its ops again in another way (`replay`, `grad`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import NanError, OpError, TfnError, user_location
from ..ir.core import Block, Function, Location, Op, TensorType, Value, free_values
from ..ops.declare import OpDefinition, definition
from ..ops.host import CHECKS, holds, message
from .scope import current_graph, current_location, eager, graphs, located
from .values import Array, Operators, Tracer, as_array, leaked, shown

_LEFT = ("stablehlo.broadcast_in_dim", "stablehlo.iota")
"""What a traced function has of these was left to it by `record`."""

# A concrete result up to this size is evaluated during tracing (and becomes a constant); a larger
# one is recorded, so that `zeros((4096, 4096))` inside `jit` is not a 64 MB constant.
_EAGER_IN_TRACE = 1024


class Graph:
    """A block under construction.

    A *function* graph turns outer tracers it meets into extra arguments (`captures`); a *region*
    graph refers to them directly, as StableHLO regions may.
    """

    def __init__(self, argument_types: Sequence[TensorType], region: bool = False):
        self.block = Block(argument_types)
        self.parent = current_graph()
        self.region = region
        self.captures: list[Tracer] = []
        self._lifted: dict[int, tuple[Any, Value]] = {}
        self.location = user_location()

    @property
    def arguments(self) -> list[Tracer]:
        return [Tracer(v, self) for v in self.block.arguments]

    def lift(self, operand: Array | Tracer) -> Value:
        """The value of `operand` inside this graph."""
        if isinstance(operand, Tracer) and operand.graph is self:
            return operand.value
        known = self._lifted.get(id(operand))
        if known is not None:
            return known[1]
        value = self._lift_new(operand)
        self._lifted[id(operand)] = (operand, value)
        return value

    def _lift_new(self, operand: Array | Tracer) -> Value:
        if isinstance(operand, Array):
            constant = definition("stablehlo.constant")
            # A view: memory that is donated is overwritten unless somebody else sees it.
            attributes = {"value": operand._data.view()}
            op = Op(constant, (), [operand.type], attributes, location=current_location())
            self.block.ops.append(op)
            return op.result
        ancestor = self.parent
        while ancestor is not None and ancestor is not operand.graph:
            ancestor = ancestor.parent
        if ancestor is None:
            raise leaked(operand)
        if self.region:
            assert self.parent is not None
            return self.parent.lift(operand)
        self.captures.append(operand)
        return self.block.add_argument(operand.type)

    def record(
        self,
        op: type[OpDefinition],
        operands: Sequence[Array | Tracer],
        result_types: Sequence[TensorType],
        attributes: Mapping[str, Any],
        regions: Sequence[Block],
    ) -> list[Tracer]:
        values = [self.lift(o) for o in operands]
        node = Op(op, values, result_types, attributes, regions, current_location())
        self.block.ops.append(node)
        return [Tracer(v, self) for v in node.results]

    def __enter__(self) -> Graph:
        graphs().append(self)
        return self

    def __exit__(self, *_):
        graphs().pop()


def bind(
    op: str | type[OpDefinition], *operands: Any, regions: Sequence[Block] = (), **attributes: Any
) -> Any:
    """Apply an op: evaluate it on arrays, record it on tracers.

    `operands` are Arrays, Tracers or anything NumPy makes an array of; `attributes` as the op
    declares them. Returns one value, or a list for an op with several results. Raises `OpError` at
    the user's line when the op does not accept them.
    """
    if isinstance(op, str):
        op = definition(op)
    inputs = [as_array(o) for o in operands]
    try:
        types = op.infer([i.type for i in inputs], attributes, regions)
    except TfnError as error:
        if error.location is None:
            error.location = current_location()
        raise
    graph = current_graph()
    results: Sequence[Array | Tracer]
    if graph is not None and (
        any(isinstance(i, Tracer) for i in inputs)
        or op.has_effect
        or attributes.get("effect")
        or attributes.get("has_side_effect")
        or any(not t.is_static or t.size > _EAGER_IN_TRACE for t in types)
        or any(free_values(r) or not _is_static(r) for r in regions)
    ):
        results = graph.record(op, inputs, types, attributes, regions)
    else:
        results = _evaluate(op, inputs, attributes, regions, types)
    return results[0] if len(results) == 1 else results


def record(op: str, *operands: Any, **attributes: Any) -> Tracer:
    """`bind` of an op with one result that is left to the program being traced, also when it is small
    and could be evaluated now. What has the batch among its dims must not be a constant for small
    batches only: each would get kernels of its own."""
    graph = current_graph()
    assert graph is not None, "nothing is being traced"
    inputs = [as_array(o) for o in operands]
    declared = definition(op)
    types = declared.infer([i.type for i in inputs], attributes, ())
    return graph.record(declared, inputs, types, attributes, ())[0]


def iota_beside(x: Any, type: TensorType, dimension: int) -> Array | Tracer:
    """`stablehlo.iota`, left to the program where `x`, which it goes with, is traced."""
    make = record if isinstance(x, Tracer) else bind
    return make("stablehlo.iota", type=type, iota_dimension=dimension)


def _is_static(region: Block) -> bool:
    """Are all sizes in a region known?"""
    return all(r.type.is_static for op in region.walk() for r in op.results)


def _evaluate(op, inputs, attributes, regions, types) -> list[Array]:
    stray = next((i for i in inputs if isinstance(i, Tracer)), None)
    if stray is not None:
        raise leaked(stray)
    with np.errstate(all="ignore"):
        held = [i._data for i in inputs]
        outputs = op.rule("evaluate")(held, attributes, regions, types)
        results = [Array(_apart(conform(o, t), held)) for o, t in zip(outputs, types, strict=True)]
    if CHECKS.nans or CHECKS.infs:
        _check(op, inputs, results)
    return results


def _apart(data: np.ndarray, held: list[np.ndarray]) -> np.ndarray:
    """`data`, or a view of it where an array has it already: donation counts the views of memory."""
    for other in held:
        if other is data:
            return data.view()
    held.append(data)
    return data


def _check(op, inputs, results) -> None:
    """`debug.check_nans` for one eager op; a constant is what its author wrote."""
    if op.name == "stablehlo.constant":
        return
    for result in results:
        if holds(result._data, CHECKS.nans, CHECKS.infs) and not any(
                holds(i._data, CHECKS.nans, CHECKS.infs) for i in inputs):
            raise NanError(message(op.name, result.type, CHECKS.nans, CHECKS.infs),
                           current_location())


def conform(data, type: TensorType) -> np.ndarray:
    """`data` as an ndarray of exactly `type` (NumPy likes to widen and to return scalars)."""
    data = np.asarray(data, dtype=type.dtype.numpy)
    if data.shape != type.shape and type.is_static:
        raise OpError(f"evaluation gave shape {data.shape}, inference {type.shape}")
    return data


def trace(
    function: Callable[..., Sequence[Any]],
    argument_types: Sequence[TensorType],
    name: str = "main",
) -> tuple[Function, list[Tracer]]:
    """Trace `function(*tracers) -> sequence of values` to a `Function`.

    Outer tracers the function closes over become further arguments, returned as the second item
    in argument order; it is empty at top level.
    """
    with Graph(argument_types) as graph:
        outputs = function(*graph.arguments)
        graph.block.returns = [graph.lift(as_array(o)) for o in outputs]
    return Function(name, graph.block), graph.captures


def trace_region(
    function: Callable[..., Sequence[Any]], argument_types: Sequence[TensorType]
) -> Block:
    """Trace a region (a reducer, a loop body); outer values are referred to directly."""
    with Graph(argument_types, region=True) as graph:
        outputs = function(*graph.arguments)
        graph.block.returns = [graph.lift(as_array(o)) for o in outputs]
    return graph.block


def replay(function: Function, arguments: Sequence[Any]) -> list[Any]:
    """Bind every op of `function` again on `arguments`; returns its results."""
    environment = dict(zip(function.arguments, arguments, strict=True))
    replay_ops(function.ops, environment)
    return [environment[v] for v in function.returns]


def replay_ops(ops: Sequence[Op], environment: dict[Value, Any]) -> None:
    """Bind `ops` again, reading operands from and writing results to `environment`."""
    for op in ops:
        results = replay_op(op, [environment[v] for v in op.operands], environment)
        for value, result in zip(op.results, results, strict=True):
            environment[value] = result


def replay_op(op: Op, operands: Sequence[Any], environment: Mapping[Value, Any]) -> list[Any]:
    """Bind one op again on new operands; returns a list of its results."""
    with located(op.location):
        if op.name in _LEFT and current_graph() is not None and not any(
                isinstance(o, Tracer) or o.size == 1 for o in operands):
            return [record(op.name, *operands, **op.attributes)]
        regions = replay_regions(op, environment)
        results = bind(op.definition, *operands, regions=regions, **op.attributes)
    return results if len(op.results) != 1 else [results]


def replay_regions(op: Op, environment: Mapping[Value, Any]) -> list[Block]:
    """The regions of `op`, referring to what `environment` has in place of outer values."""
    return [_replay_region(r, environment) for r in op.regions]


def _replay_region(block: Block, environment: Mapping[Value, Any]) -> Block:
    if not free_values(block):
        return block

    def body(*arguments):
        inner = dict(environment)
        inner.update(zip(block.arguments, arguments, strict=True))
        replay_ops(block.ops, inner)
        return [inner[v] for v in block.returns]

    return trace_region(body, [a.type for a in block.arguments])


__all__ = [
    "Array", "Graph", "Location", "Operators", "Tracer", "as_array", "bind", "conform",
    "current_graph", "current_location", "eager", "free_values", "iota_beside", "located", "record",
    "replay", "replay_op", "replay_ops", "replay_regions", "shown", "trace", "trace_region",
]
