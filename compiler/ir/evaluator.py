"""The evaluator: runs IR op by op with NumPy.

It is the specification the compiler is tested against, and what eager code uses through `bind`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .core import Block, Function, Value
from .dims import Dim


def evaluate(function: Function, arguments: Sequence) -> list[np.ndarray]:
    """Run `function` on arrays (one per argument); symbolic dims take the arrays' sizes.

    Raises `OpError` where an argument does not have the declared type.
    """
    from ..errors import OpError
    from ..passes.quantized import lower_quantized

    function = lower_quantized(function)
    arrays = [np.asarray(a) for a in arguments]
    if len(arrays) != len(function.arguments):
        raise OpError(f"{function.name} takes {len(function.arguments)} arguments,"
                      f" got {len(arrays)}")
    for i, (array, argument) in enumerate(zip(arrays, function.arguments, strict=True)):
        fits = array.ndim == len(argument.shape) and all(
            isinstance(d, Dim) or d == n
            for d, n in zip(argument.shape, array.shape, strict=True))
        if array.dtype != argument.dtype.numpy or not fits:
            raise OpError(f"argument {i} of {function.name} must be {argument.type},"
                          f" got {array.dtype}{list(array.shape)}")
    sizes = _sizes(function, arrays)
    if sizes:
        from .rewrite import substitute_function

        function = substitute_function(function, sizes)
    return run_block(function.body, arrays)


def run_block(
    block: Block, arguments: Sequence[np.ndarray], outer: Mapping[Value, np.ndarray] | None = None
) -> list[np.ndarray]:
    """Run a block on its arguments; `outer` gives the values it refers to from outside."""
    from ..trace.core import Array, eager, replay_ops

    environment = {v: Array(a) for v, a in (outer or {}).items()}
    environment.update(
        (v, Array(np.asarray(a))) for v, a in zip(block.arguments, arguments, strict=True))
    with eager():
        replay_ops(block.ops, environment)
    return [np.asarray(environment[v]) for v in block.returns]


def _sizes(function: Function, arrays: Sequence[np.ndarray]) -> dict[str, int]:
    """The symbolic dims of the arguments, as the arrays have them."""
    sizes: dict[str, int] = {}
    for value, array in zip(function.arguments, arrays, strict=True):
        for extent, actual in zip(value.shape, array.shape, strict=True):
            if isinstance(extent, Dim) and len(extent.terms) == 1:
                (name, coefficient), = extent.terms
                sizes.setdefault(name, (actual - extent.constant) // coefficient)
    return sizes


def run_scalar_block(block: Block, arguments: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Run a region of scalars on whole arrays, elementwise (a reducer over many windows)."""
    shape = np.broadcast_shapes(*(np.shape(a) for a in arguments))
    environment = {
        v: np.broadcast_to(a, shape) for v, a in zip(block.arguments, arguments, strict=True)}
    with np.errstate(all="ignore"):
        for op in block.ops:
            types = [r.type.with_shape(shape) for r in op.results]
            operands = [environment[o] for o in op.operands]
            attributes = op.attributes
            if op.name == "stablehlo.constant":
                results = [np.broadcast_to(attributes["value"], shape)]
            elif op.name == "func.call":
                results = run_scalar_block(attributes["callee"].body, operands)
            else:
                results = op.definition.rule("evaluate")(operands, attributes, op.regions, types)
            for value, result, type in zip(op.results, results, types, strict=True):
                environment[value] = np.asarray(result, dtype=type.dtype.numpy)
    return [environment[v] for v in block.returns]
