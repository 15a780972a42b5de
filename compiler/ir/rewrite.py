"""Building new functions from old ones: clone with a mapping, substitute dims.

Passes call `Rewriter`: it copies ops in order into a new block, and a pass says which ops become
something else. Nothing is edited in place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .core import Block, Function, Op, Value
from .dims import Dim, Extent


class Rewriter:
    """Copies a function, op by op. `values` maps old values to new ones."""

    def __init__(self, function: Function):
        self.source = function
        self.block = Block([a.type for a in function.arguments])
        self.values: dict[Value, Value] = dict(
            zip(function.arguments, self.block.arguments, strict=True))

    def __getitem__(self, value: Value) -> Value:
        """The new value that stands for an old one (a value outside the function: itself)."""
        return self.values.get(value, value)

    def append(self, definition, operands: Sequence[Value], types=None, attributes=None,
               regions=(), location=None) -> Op:
        """Add a new op on *new* values; result types are inferred unless given."""
        if types is None:
            types = definition.infer([o.type for o in operands], attributes or {}, regions)
        op = Op(definition, operands, types, attributes, regions, location)
        self.block.ops.append(op)
        return op

    def copy(self, op: Op) -> Op:
        """Copy an old op with its operands mapped."""
        new = clone_op(op, self.values)
        self.block.ops.append(new)
        return new

    def replace(self, op: Op, results: Sequence[Value]) -> None:
        """Let the new values `results` stand for the results of the old `op`."""
        self.values.update(zip(op.results, results, strict=True))

    def finish(self) -> Function:
        source = self.source
        self.block.returns = [self[v] for v in source.returns]
        return Function(source.name, self.block, source.argument_attributes,
                        source.result_attributes, source.public)


def clone_op(op: Op, values: dict[Value, Value]) -> Op:
    """A copy of `op` that reads what `values` says stands for its operands, which then says what stands
    for its results."""
    new = Op(op.definition, [values.get(v, v) for v in op.operands], [r.type for r in op.results],
             op.attributes, [clone_block(r, values) for r in op.regions], op.location)
    values.update(zip(op.results, new.results, strict=True))
    return new


def clone_block(block: Block, outer: Mapping[Value, Value]) -> Block:
    """A copy of a region whose references to outer values go through `outer`.

    A region that refers to nothing outside is shared, not copied.
    """
    from ..trace.core import free_values

    if not any(v in outer and outer[v] is not v for v in free_values(block)):
        return block
    new = Block([a.type for a in block.arguments])
    values = dict(outer)
    values.update(zip(block.arguments, new.arguments, strict=True))
    new.ops = [clone_op(op, values) for op in block.ops]
    new.returns = [values.get(v, v) for v in block.returns]
    return new


def substitute_attribute(value: Any, sizes: Mapping[str, Extent]) -> Any:
    """Replace symbolic dims inside an attribute value (shapes, types, index lists)."""
    if isinstance(value, Dim):
        return value.substitute(sizes)
    if isinstance(value, tuple):
        return tuple(substitute_attribute(v, sizes) for v in value)
    if hasattr(value, "substitute"):
        return value.substitute(sizes)
    if isinstance(value, Function):
        return substitute_function(value, sizes)
    return value


def _substitute_block(block: Block, sizes: Mapping[str, Extent], values: dict[Value, Value]) -> Block:
    """A copy of `block` with symbolic dims replaced; `values` gives what stands for outer values."""
    new = Block([a.type.substitute(sizes) for a in block.arguments])
    values.update(zip(block.arguments, new.arguments, strict=True))
    for op in block.ops:
        copy = Op(op.definition, [values.get(o, o) for o in op.operands],
                  [r.type.substitute(sizes) for r in op.results],
                  {k: substitute_attribute(v, sizes) for k, v in op.attributes.items()},
                  [_substitute_block(r, sizes, values) for r in op.regions], op.location)
        new.ops.append(copy)
        values.update(zip(op.results, copy.results, strict=True))
    new.returns = [values.get(v, v) for v in block.returns]
    return new


def substitute_function(function: Function, sizes: Mapping[str, Extent]) -> Function:
    """`function` for given sizes of its symbolic dims (ints, or other dims)."""
    return Function(function.name, _substitute_block(function.body, sizes, {}),
                    function.argument_attributes, function.result_attributes, function.public)
