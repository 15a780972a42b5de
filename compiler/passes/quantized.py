"""Quantized numbers as the integers they are stored as.

What moves elements moves integers. Every other op is, by the specification, the op on the numbers that
its operands mean, quantized to the type of its result. Regions take and return integers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import UnsupportedError
from ..ir.core import Block, Function, Op, TensorType, Value
from ..ir.dtypes import I32, I64
from ..ir.quantized import QuantizedDType, expressed, is_quantized, stored
from ..ops.quantized import MOVES, with_elements
from ..trace.core import bind, located, replay_op, trace, trace_region
from .inline import inline

_STORED = MOVES | {"stablehlo.bitcast_convert"}


def lower_quantized(function: Function, target=None) -> Function:
    """`function` on stored integers; itself when it has no quantized values."""
    if not _has_quantized(function, set()):
        return function
    function = inline(function)

    def body(*arguments):
        environment = dict(zip(function.arguments, arguments, strict=True))
        _run(function.body, environment)
        return [environment[v] for v in function.returns]

    new, _ = trace(body, _stored_types(function.arguments), function.name)
    return Function(new.name, new.body, function.argument_attributes, function.result_attributes,
                    function.public)


def _has_quantized(function: Function, seen: set[Function]) -> bool:
    """Whether a value of the function or of one it calls is quantized."""
    if function in seen:
        return False
    seen.add(function)
    return is_quantized(function.argument_types) or any(
        is_quantized(r.type for r in op.results) or any(
            _has_quantized(v, seen) for v in op.attributes.values() if isinstance(v, Function))
        for op in function.body.walk())


def _stored_types(values) -> list[TensorType]:
    return [v.type.with_dtype(stored(v.dtype)) for v in values]


def _run(block: Block, environment: dict[Value, Any]) -> None:
    for op in block.ops:
        with located(op.location):
            results = _op(op, [environment[v] for v in op.operands], environment)
        environment.update(zip(op.results, results, strict=True))


def _op(op: Op, operands: list[Any], environment: Mapping[Value, Any]) -> list[Any]:
    inside = (v for r in op.regions for o in r.walk() for v in (*o.operands, *o.results))
    if not is_quantized(v.type for v in (*op.operands, *op.results, *inside)):
        return replay_op(op, operands, environment)
    if op.regions:
        regions = [_region(r, environment) for r in op.regions]
        return _bound(op, operands, stored, regions)
    if op.name in _STORED or op.definition.host or op.has_effect:
        return _bound(op, operands, stored)
    numbers = [dequantize(o, v.dtype) for o, v in zip(operands, op.operands, strict=True)]
    if not op.name.startswith("stablehlo.uniform_"):
        numbers = _bound(op, numbers, expressed)
    return [quantize(n, r.dtype) for n, r in zip(numbers, op.results, strict=True)]


def _bound(op: Op, operands: list[Any], elements, regions=()) -> list[Any]:
    attributes = {name: with_elements(value, elements) for name, value in op.attributes.items()}
    results = bind(op.definition, *operands, regions=regions, **attributes)
    return results if isinstance(results, list) else [results]


def _region(block: Block, environment: Mapping[Value, Any]) -> Block:
    def body(*arguments):
        inner = dict(environment)
        inner.update(zip(block.arguments, arguments, strict=True))
        _run(block, inner)
        return [inner[v] for v in block.returns]

    return trace_region(body, _stored_types(block.arguments))


def dequantize(x: Any, dtype) -> Any:
    """The numbers that stored integers `x` of a quantized type mean; others as they are."""
    if not isinstance(dtype, QuantizedDType):
        return x
    if any(dtype.zero_points):
        # Differences of stored values need one bit more.
        wide = I32 if dtype.bits < 32 else I64
        x = bind("stablehlo.subtract", bind("stablehlo.convert", x, dtype=wide),
                 _parameters(dtype.zero_points, wide.numpy, x, dtype))
    numbers = bind("stablehlo.convert", x, dtype=dtype.expressed)
    return bind("stablehlo.multiply", numbers,
                _parameters(dtype.scales, dtype.expressed.numpy, x, dtype))


def quantize(x: Any, dtype) -> Any:
    """The stored integers of a quantized type for numbers `x`; `x` itself for another type.

    Ties round to even, numbers out of range saturate and NaN becomes 0.
    """
    if not isinstance(dtype, QuantizedDType):
        return x
    element = dtype.expressed.numpy
    scaled = bind("stablehlo.divide", x, _parameters(dtype.scales, element, x, dtype))
    if any(dtype.zero_points):
        scaled = bind("stablehlo.add", scaled, _parameters(dtype.zero_points, element, x, dtype))
    within = bind("stablehlo.clamp", np.asarray(dtype.minimum, element), scaled,
                  np.asarray(dtype.maximum, element))
    return bind("stablehlo.convert", bind("stablehlo.round_nearest_even", within), dtype=dtype.base)


def _parameters(values: tuple, element: np.dtype, x: Any, dtype: QuantizedDType) -> Any:
    """Scales or zero points for every element of `x`."""
    if dtype.axis is None:
        return bind("stablehlo.broadcast_in_dim", np.asarray(values[0], element), shape=x.shape,
                    broadcast_dimensions=())
    if x.shape[dtype.axis] != len(values):
        raise UnsupportedError(f"{x.shape[dtype.axis]} indices of axis {dtype.axis} with"
                               f" {len(values)} scales")
    return bind("stablehlo.broadcast_in_dim", np.asarray(values, element), shape=x.shape,
                broadcast_dimensions=(dtype.axis,))
