"""Uniform quantization: the ops between quantized and real numbers, and the types of all others.

Programs compute on the stored integers: `passes.quantized` says what becomes of each op.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..ir.core import Function, TensorType
from ..ir.dtypes import DType
from ..ir.quantized import QuantizedDType, expressed, stored
from .declare import OpDefinition, op, require

MOVES = frozenset("stablehlo." + name for name in (
    "all_gather", "all_to_all", "broadcast_in_dim", "collective_broadcast", "collective_permute",
    "concatenate", "dynamic_slice", "dynamic_update_slice", "gather", "optimization_barrier", "pad",
    "reshape", "reverse", "select", "slice", "transpose"))
"""Ops that move elements: of quantized ones they move the stored integers."""


@op("stablehlo.uniform_quantize")
class UniformQuantize(OpDefinition):
    """The quantized numbers nearest to real or to otherwise quantized ones."""

    attributes = {"dtype": "result_dtype"}

    def infer(operands, attributes, regions):
        (x,), target = operands, attributes["dtype"]
        require(isinstance(target, QuantizedDType), "I1", f"uniform_quantize of {x} to {target}")
        require(expressed(x.dtype) is target.expressed, "C1",
                f"uniform_quantize of {x} to {target}: they express different types")
        return [x.with_dtype(target)]


@op("stablehlo.uniform_dequantize")
class UniformDequantize(OpDefinition):
    """The real numbers that quantized ones mean."""

    def infer(operands, attributes, regions):
        (x,) = operands
        require(isinstance(x.dtype, QuantizedDType), "I1", f"uniform_dequantize of {x}")
        return [x.with_dtype(expressed(x.dtype))]


def with_elements(value: Any, elements) -> Any:
    """An attribute value with `elements(dtype)` in place of every element type in it."""
    if isinstance(value, DType):
        return elements(value)
    if isinstance(value, TensorType):
        return value.with_dtype(elements(value.dtype))
    if isinstance(value, tuple):
        return tuple(with_elements(v, elements) for v in value)
    return value


def infer_quantized(definition: type[OpDefinition], operands: Sequence[TensorType],
                    attributes: Mapping[str, Any], declared: Sequence[TensorType],
                    ) -> list[TensorType]:
    """Result types of an op with quantized operands or results: those of the same op on real
    numbers, stored as `declared`. Raises `OpError` when these express something else."""
    if (definition in (UniformQuantize, UniformDequantize) or "result_types" in attributes
            or any(isinstance(v, Function) for v in attributes.values())):
        return definition.infer(operands, attributes, ())
    elements = stored if definition.name == "stablehlo.bitcast_convert" else expressed
    inferred = definition.infer(
        [t.with_dtype(elements(t.dtype)) for t in operands],
        {name: with_elements(value, elements) for name, value in attributes.items()}, ())
    if definition.name in MOVES:
        kept = [t.dtype for t in operands if isinstance(t.dtype, QuantizedDType)]
        for result in declared:
            if isinstance(result.dtype, QuantizedDType) or definition.name != "stablehlo.select":
                require(all(d.means_the_same(result.dtype) for d in kept), "C1",
                        f"{definition.name} of {', '.join(map(str, operands))} cannot give {result}:"
                        " it does not quantize anew")
    return [i.with_dtype(d.dtype) if elements(d.dtype) is i.dtype else i
            for i, d in zip(inferred, declared, strict=True)]
