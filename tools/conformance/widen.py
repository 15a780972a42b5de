"""A program with all its numbers twice as wide: what it would give without rounding errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...compiler.ir.core import Block, Function, Op, TensorType, Value
from ...compiler.ir.dtypes import C64, C128, F32, F64, DType
from ...compiler.ops.declare import definition

WIDER: dict[DType, DType] = {F32: F64, C64: C128}
_LAPACK = {"lapack_s": "lapack_d", "lapack_c": "lapack_z"}


def widened(function: Function) -> Function:
    """`function` in f64 and complex f64. Bits stay those of f32 where they are looked at."""
    return _Widening().function(function)


class _Widening:
    def __init__(self) -> None:
        self.functions: dict[Function, Function] = {}

    def function(self, old: Function) -> Function:
        if old not in self.functions:
            self.functions[old] = Function(old.name, self.block(old.body, {}), public=old.public)
        return self.functions[old]

    def block(self, old: Block, outer: Mapping[Value, Value]) -> Block:
        new = Block([_type(a.type) for a in old.arguments])
        values = {**outer, **dict(zip(old.arguments, new.arguments, strict=True))}
        for op in old.ops:
            operands = [values[v] for v in op.operands]
            types = [_type(r.type) for r in op.results]
            attributes = {k: self.attribute(v) for k, v in op.attributes.items()}
            if op.name == "stablehlo.bitcast_convert":
                operands = [_converted(new, v, o.type)
                            for v, o in zip(operands, op.operands, strict=True)]
                types, attributes = [r.type for r in op.results], op.attributes
            copy = Op(op.definition, operands, types, attributes,
                      [self.block(r, values) for r in op.regions], op.location)
            new.ops.append(copy)
            for r, result in zip(op.results, copy.results, strict=True):
                values[r] = _converted(new, result, _type(r.type))
        new.returns = [values[v] for v in old.returns]
        return new

    def attribute(self, value: Any) -> Any:
        if isinstance(value, np.ndarray) and value.dtype in (np.float32, np.complex64):
            return value.astype(np.result_type(value.dtype, np.float64))
        if isinstance(value, TensorType):
            return _type(value)
        if isinstance(value, Function):
            return self.function(value)
        if isinstance(value, str):
            return _LAPACK.get(value[:8], value[:8]) + value[8:]
        if isinstance(value, DType):
            return WIDER.get(value, value)
        if isinstance(value, tuple):
            return tuple(self.attribute(v) for v in value)
        return value


def _converted(block: Block, value: Value, type: TensorType) -> Value:
    if value.type == type:
        return value
    block.ops.append(Op(definition("stablehlo.convert"), [value], [type],
                        {"dtype": type.dtype}))
    return block.ops[-1].result


def _type(type: TensorType) -> TensorType:
    return type.with_dtype(WIDER.get(type.dtype, type.dtype))
