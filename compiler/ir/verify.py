"""Checks that a function is well formed: SSA, declared attributes, and types as each op infers.

Passes run it between stages when asked to, the parser after reading. An error names the op's place
and cites the constraint of the specification that `infer` found broken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import OpError, TfnError, UnsupportedError
from ..ops.declare import OpDefinition
from ..ops.quantized import infer_quantized
from .core import Block, Function, Location, Module, Op, TensorType, Value
from .dims import InconclusiveDimension
from .quantized import is_quantized
from .structure import check_structure
from .types import is_unknown


def verify(function: Function) -> Function:
    """`function` itself, once it is known to be well formed; functions it calls are included.

    Raises `OpError` at the first op that uses a value before its definition, has an attribute it
    does not declare or lacks one, or whose types are not those its `infer` rule gives.
    """
    _verify(function, set())
    return function


def verify_module(module: Module) -> Module:
    """Verify every function of a module."""
    seen: set[Function] = set()
    for function in module.functions.values():
        _verify(function, seen)
    return module


def _verify(root: Function, seen: set[Function]) -> None:
    # Callees first: whether a call is right depends on whether its callee is.
    for function in reversed(reachable(root, seen)):
        _verify_block(function.body, set(), f"@{function.name}")


def reachable(root: Function, seen: set[Function] | None = None) -> list[Function]:
    """`root` and the functions its ops hold that are not in `seen`, callers first."""
    seen = set() if seen is None else seen
    found: list[Function] = []
    queue = [root]
    while queue:
        function = queue.pop()
        if function in seen:
            continue
        seen.add(function)
        found.append(function)
        queue += [v for op in function.body.walk() for v in op.attributes.values()
                  if isinstance(v, Function)]
    return found


def _verify_block(block: Block, outer: set[Value], where: str) -> None:
    visible = outer | set(block.arguments)
    for op in block.ops:
        for i, operand in enumerate(op.operands):
            if operand not in visible:
                raise OpError(f"operand {i} of {op.name} in {where} is not defined before it",
                              op.location)
        _verify_attributes(op)
        for region in op.regions:
            _verify_block(region, visible, f"a region of {op.name} in {where}")
        check_structure(op)
        _verify_types(op)
        visible.update(op.results)
    for value in block.returns:
        if value not in visible:
            raise OpError(f"{where} returns a value that is not defined in it",
                          block.ops[-1].location if block.ops else None)


def _verify_attributes(op: Op) -> None:
    declared = op.definition.attributes
    for name in op.attributes:
        if name not in declared:
            raise OpError(f"{op.name} does not declare the attribute `{name}`", op.location)
    for name in declared:
        if name not in op.attributes and name not in op.definition.optional:
            raise OpError(f"{op.name} needs the attribute `{name}`", op.location)


def _verify_types(op: Op) -> None:
    operands = [v.type for v in op.operands]
    results = [v.type for v in op.results]
    if is_unknown([*operands, *results]):
        return  # `ir.dynamic.refine` infers these.
    inferred = infer_types(op.definition, operands, op.attributes, op.regions, op.location, results)
    if list(inferred) != results:
        raise OpError(f"{op.name} of {_list(operands)} gives {_list(inferred)}, not"
                      f" {_list(results)}", op.location)


def infer_types(
    definition: type[OpDefinition], operands: Sequence[TensorType], attributes: Mapping[str, Any],
    regions: Sequence[Block], location: Location | None, declared: Sequence[TensorType] = (),
) -> list[TensorType]:
    """Result types by the op's `infer` rule; an `OpError` from it points at `location`.

    The elements of quantized results are as `declared`: an op on numbers does not say how its result is
    stored.
    """
    try:
        if not regions and is_quantized([*operands, *declared]):
            return infer_quantized(definition, operands, attributes, declared)
        return definition.infer(operands, attributes, regions)
    except TfnError as error:
        if error.location is None:
            error.location = location
        raise
    except InconclusiveDimension as error:
        raise UnsupportedError(f"{definition.name} of {_list(operands)} is not the same program"
                               f" for every size: {error}", location) from error
    except (ArithmeticError, AssertionError, AttributeError, IndexError, KeyError, TypeError,
            ValueError) as error:
        # An `infer` rule may rely on the number and rank of operands that a text got wrong.
        raise OpError(f"{definition.name} does not accept {_list(operands)} with these attributes"
                      f" ({type(error).__name__}: {error})", location) from error


def _list(types: Iterable[TensorType]) -> str:
    return ", ".join(map(str, types)) or "no values"
