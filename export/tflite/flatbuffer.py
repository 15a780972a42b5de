"""The tables of the TFLite schema that tfn writes, and their packing into a FlatBuffer.

A table is given as a dict; `SCHEMA` says which field has which number and kind. Field numbers and
codes are those of the TFLite schema, version 3 (tensorflow/compiler/mlir/lite/schema/schema.fbs).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import flatbuffers
import numpy as np

Record = Mapping[str, Any]
"""Field name -> value of one table."""

VERSION, IDENTIFIER = 3, b"TFL3"

_ACTIVATION = "fused_activation_function"
_STRIDES = {"padding": (0, "i8"), "stride_w": (1, "i32"), "stride_h": (2, "i32")}

SCHEMA: dict[str, dict[str, tuple[int, str]]] = {
    "Model": {"version": (0, "u32"), "operator_codes": (1, "[OperatorCode]"),
              "subgraphs": (2, "[SubGraph]"), "description": (3, "string"),
              "buffers": (4, "[Buffer]"), "signature_defs": (7, "[SignatureDef]")},
    "OperatorCode": {"deprecated_builtin_code": (0, "i8"), "version": (2, "i32=1"),
                     "builtin_code": (3, "i32")},
    "SubGraph": {"tensors": (0, "[Tensor]"), "inputs": (1, "i32s"), "outputs": (2, "i32s"),
                 "operators": (3, "[Operator]"), "name": (4, "string")},
    "Tensor": {"shape": (0, "i32s"), "type": (1, "i8"), "buffer": (2, "u32"),
               "name": (3, "string"), "shape_signature": (7, "i32s"), "has_rank": (8, "bool")},
    "Buffer": {"data": (0, "data")},
    "Operator": {"opcode_index": (0, "u32"), "inputs": (1, "i32s"), "outputs": (2, "i32s"),
                 "builtin_options_type": (3, "u8"), "builtin_options": (4, "options")},
    "SignatureDef": {"inputs": (0, "[TensorMap]"), "outputs": (1, "[TensorMap]"),
                     "signature_key": (2, "string"), "subgraph_index": (4, "u32")},
    "TensorMap": {"name": (0, "string"), "tensor_index": (1, "u32")},
    "Conv2DOptions": {**_STRIDES, _ACTIVATION: (3, "i8"), "dilation_w_factor": (4, "i32=1"),
                      "dilation_h_factor": (5, "i32=1")},
    "DepthwiseConv2DOptions": {**_STRIDES, "depth_multiplier": (3, "i32"), _ACTIVATION: (4, "i8"),
                               "dilation_w_factor": (5, "i32=1"),
                               "dilation_h_factor": (6, "i32=1")},
    "TransposeConvOptions": {**_STRIDES, _ACTIVATION: (3, "i8")},
    "Pool2DOptions": {**_STRIDES, "filter_width": (3, "i32"), "filter_height": (4, "i32"),
                      _ACTIVATION: (5, "i8")},
    "FullyConnectedOptions": {_ACTIVATION: (0, "i8"), "keep_num_dims": (2, "bool")},
    "SoftmaxOptions": {"beta": (0, "f32")},
    "ConcatenationOptions": {"axis": (0, "i32"), _ACTIVATION: (1, "i8")},
    "AddOptions": {_ACTIVATION: (0, "i8")},
    "SubOptions": {_ACTIVATION: (0, "i8")},
    "MulOptions": {_ACTIVATION: (0, "i8")},
    "DivOptions": {_ACTIVATION: (0, "i8")},
    "ReducerOptions": {"keep_dims": (0, "bool")},
    "CastOptions": {"in_data_type": (0, "i8"), "out_data_type": (1, "i8")},
    "GatherOptions": {"axis": (0, "i32"), "batch_dims": (1, "i32")},
    "StridedSliceOptions": {"begin_mask": (0, "i32"), "end_mask": (1, "i32")},
    "BatchMatMulOptions": {"adj_x": (0, "bool"), "adj_y": (1, "bool")},
    "GeluOptions": {"approximate": (0, "bool")},
    "ArgMaxOptions": {"output_type": (0, "i8")},
    "ArgMinOptions": {"output_type": (0, "i8")},
    "ShapeOptions": {"out_type": (0, "i8")},
}
"""Table -> field -> (number, kind). A kind is a scalar (with its default after `=`), `string`,
`i32s` (a vector), `data` (bytes, 16-aligned), `[T]` (a vector of tables) or `options` (a union)."""

OPTIONS = {
    "Conv2DOptions": 1, "DepthwiseConv2DOptions": 2, "Pool2DOptions": 5,
    "FullyConnectedOptions": 8, "SoftmaxOptions": 9, "ConcatenationOptions": 10, "AddOptions": 11,
    "MulOptions": 21, "GatherOptions": 23, "ReducerOptions": 27, "SubOptions": 28,
    "DivOptions": 29, "StridedSliceOptions": 32, "CastOptions": 37, "ArgMaxOptions": 40,
    "TransposeConvOptions": 49, "ShapeOptions": 55, "ArgMinOptions": 57,
    "BatchMatMulOptions": 101, "GeluOptions": 116,
}
"""Options table -> its number in the union BuiltinOptions."""


def pack_model(model: Record) -> bytes:
    """The bytes of a `.tflite` file from a `Model` record."""
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(_table(builder, "Model", model), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def _table(builder: flatbuffers.Builder, name: str, record: Record) -> int:
    """Write one table, what it refers to first; returns its offset."""
    schema = SCHEMA[name]
    ready = []
    for field, value in record.items():
        number, kind = schema[field]
        ready.append((number, kind, _child(builder, kind, value)))
    builder.StartObject(max(number for number, _ in schema.values()) + 1)
    for number, kind, value in ready:
        scalar, _, default = kind.partition("=")
        if scalar in _SLOTS:
            getattr(builder, _SLOTS[scalar])(number, value, int(default or 0))
        else:
            builder.PrependUOffsetTRelativeSlot(number, value, 0)
    return builder.EndObject()


_SLOTS = {"bool": "PrependBoolSlot", "i8": "PrependInt8Slot", "u8": "PrependUint8Slot",
          "i32": "PrependInt32Slot", "u32": "PrependUint32Slot", "f32": "PrependFloat32Slot"}


def _child(builder: flatbuffers.Builder, kind: str, value: Any) -> Any:
    """A scalar itself, or the offset of what the field refers to."""
    if kind.startswith("["):
        return _tables(builder, kind[1:-1], value)
    write = _WRITERS.get(kind)
    return value if write is None else write(builder, value)


def _tables(builder: flatbuffers.Builder, name: str, records: list[Record]) -> int:
    offsets = [_table(builder, name, record) for record in records]
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def _data(builder: flatbuffers.Builder, value: bytes) -> int:
    """Bytes that begin at a multiple of 16, as kernels expect of constants."""
    builder.StartVector(1, len(value), 16)
    builder.head = builder.head - len(value)
    builder.Bytes[builder.head:builder.head + len(value)] = value
    return builder.EndVector()


def _options(builder: flatbuffers.Builder, value: tuple[str, Record]) -> int:
    return _table(builder, *value)


_WRITERS: dict[str, Callable[[flatbuffers.Builder, Any], int]] = {
    "string": lambda builder, text: builder.CreateString(text),
    "i32s": lambda builder, numbers: builder.CreateNumpyVector(np.asarray(numbers, np.int32)),
    "data": _data,
    "options": _options,
}
