"""A TFLite graph under construction: tensors, nodes, and the two rewrites that make it small.

Biases, scales and activations move into the nodes that compute what they are applied to, and nodes
nothing needs are dropped. `model_record` turns finished graphs into the tables of `flatbuffer`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...compiler.ir.core import TensorType
from ...compiler.ir.dims import Dim
from ...compiler.ir.dtypes import F32, as_dtype
from .flatbuffer import OPTIONS, Record

TYPES = {"f32": 0, "i32": 2, "ui8": 3, "i64": 4, "i1": 6, "i16": 7, "i8": 9}
"""Element type -> TensorType of the schema: those that LiteRT's kernels compute with."""

CODES = {
    "ADD": 0, "AVERAGE_POOL_2D": 1, "CONCATENATION": 2, "CONV_2D": 3, "DEPTHWISE_CONV_2D": 4,
    "FLOOR": 8, "FULLY_CONNECTED": 9, "LOGISTIC": 14, "MAX_POOL_2D": 17, "MUL": 18, "RELU": 19,
    "RELU6": 21, "RESHAPE": 22, "SOFTMAX": 25, "TANH": 28, "PAD": 34, "GATHER": 36,
    "TRANSPOSE": 39, "SUB": 41, "DIV": 42, "STRIDED_SLICE": 45, "EXP": 47, "LOG_SOFTMAX": 50,
    "CAST": 53, "MAXIMUM": 55, "ARG_MAX": 56, "MINIMUM": 57, "LESS": 58, "NEG": 59, "PADV2": 60,
    "GREATER": 61, "GREATER_EQUAL": 62, "LESS_EQUAL": 63, "SLICE": 65, "SIN": 66,
    "TRANSPOSE_CONV": 67, "EQUAL": 71, "NOT_EQUAL": 72, "LOG": 73, "SUM": 74, "SQRT": 75,
    "RSQRT": 76, "SHAPE": 77, "POW": 78, "ARG_MIN": 79, "REDUCE_PROD": 81, "REDUCE_MAX": 82,
    "LOGICAL_OR": 84, "LOGICAL_AND": 86, "LOGICAL_NOT": 87, "REDUCE_MIN": 89, "REDUCE_ANY": 91,
    "ABS": 101, "CEIL": 104, "REVERSE_V2": 105, "GATHER_ND": 107, "COS": 108, "ROUND": 116,
    "SELECT_V2": 123, "BATCH_MATMUL": 126, "BROADCAST_TO": 130, "REDUCE_ALL": 140, "GELU": 150,
    "DYNAMIC_UPDATE_SLICE": 151, "ATAN2": 156, "SIGN": 158,
}
"""Builtin operator -> its code."""

# Only where the runtime has no version 1, or an option needs a later one.
VERSIONS = {"BROADCAST_TO": 2, "FULLY_CONNECTED": 5, "DEPTHWISE_CONV_2D": 2}

ARITHMETIC = {"ADD": "AddOptions", "SUB": "SubOptions", "MUL": "MulOptions", "DIV": "DivOptions"}
"""Operator -> its options table, which can hold an activation."""

NONE, RELU, RELU6 = 0, 1, 3
_ACTIVATIONS = {"RELU": RELU, "RELU6": RELU6}
_BIASED = frozenset({"FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D"})
_ACTIVATED = _BIASED | {"ADD", "SUB", "MUL", "DIV", "MAX_POOL_2D", "AVERAGE_POOL_2D"}


@dataclass(eq=False)
class Tensor:
    """A value at run time, or a constant with its `data`."""

    type: TensorType
    data: np.ndarray | None = None
    name: str = ""

    @property
    def shape(self):
        return self.type.shape

    @property
    def dtype(self):
        return self.type.dtype


@dataclass(eq=False)
class Node:
    """One operator. `options` is the record of its options table, `table` that table's name."""

    code: str
    inputs: list[Tensor]
    output: Tensor
    table: str = ""
    options: dict[str, Any] = field(default_factory=dict)


class Graph:
    """The nodes of one signature in order; constants are shared by value."""

    def __init__(self, name: str):
        self.name = name
        self.inputs: list[tuple[str, Tensor]] = []
        self.outputs: list[tuple[str, Tensor]] = []
        self.nodes: list[Node] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], Tensor] = {}

    def constant(self, data: np.ndarray, name: str = "") -> Tensor:
        data = np.asarray(data)
        dtype = as_dtype(data.dtype)
        key = (dtype.name, data.shape, data.tobytes())
        if key not in self._constants:
            self._constants[key] = Tensor(TensorType(data.shape, dtype), data, name)
        return self._constants[key]

    def emit(self, code: str, inputs: Sequence[Tensor], type: TensorType,
             table: str = "", **options: Any) -> Tensor:
        node = Node(code, list(inputs), Tensor(type), table, options)
        self.nodes.append(node)
        return node.output

    # -- rewrites

    def finish(self) -> Graph:
        """Fuse biases, scales and activations; drop dead nodes."""
        self._drop_dead()
        self._fuse()
        self._drop_dead()
        return self

    def _drop_dead(self) -> None:
        needed = {t for _, t in self.outputs}
        kept = []
        for node in reversed(self.nodes):
            if node.output in needed:
                kept.append(node)
                needed.update(node.inputs)
        self.nodes = kept[::-1]

    def _fuse(self) -> None:
        reads: dict[Tensor, int] = {}
        for tensor in [t for n in self.nodes for t in n.inputs] + [t for _, t in self.outputs]:
            reads[tensor] = reads.get(tensor, 0) + 1
        makers: dict[Tensor, Node] = {}
        kept = []
        for node in self.nodes:
            maker = self._absorbs(node, makers, reads)
            if maker is None:
                kept.append(node)
                maker = node
            else:
                maker.output = node.output
            makers[node.output] = maker
        self.nodes = kept

    def _absorbs(self, node: Node, makers: Mapping[Tensor, Node],
                 reads: Mapping[Tensor, int]) -> Node | None:
        """The earlier node that now also does what `node` does; None when there is none."""
        for i, tensor in enumerate(node.inputs):
            maker = makers.get(tensor)
            if (maker is None or reads[tensor] != 1 or tensor.dtype is not F32
                    or maker.options.get("fused_activation_function", NONE) != NONE):
                continue
            if node.code in _ACTIVATIONS and maker.code in _ACTIVATED:
                maker.options["fused_activation_function"] = _ACTIVATIONS[node.code]
                return maker
            if node.code in ("ADD", "MUL") and maker.code in _BIASED:
                vector = _along_last(node.inputs[1 - i], tensor)
                if vector is not None and self._affine(maker, node.code, vector):
                    return maker
        return None

    def _affine(self, maker: Node, code: str, vector: np.ndarray) -> bool:
        """Move a bias or a scale per output channel into the constants of `maker`."""
        weights = maker.inputs[1].data
        bias = maker.inputs[2].data if len(maker.inputs) == 3 else np.zeros_like(vector)
        if weights is None or bias is None:
            return False
        if code == "ADD":
            changed = bias + vector
        else:
            # A normalisation after the contraction; in float64, so that it costs no accuracy.
            wide = vector.astype(np.float64)
            last = maker.code == "DEPTHWISE_CONV_2D"
            shape = (-1,) if last else (-1, *(1,) * (weights.ndim - 1))
            scaled = (weights * wide.reshape(shape)).astype(np.float32)
            maker.inputs[1] = self.constant(scaled, maker.inputs[1].name)
            changed = (bias * wide).astype(np.float32)
        maker.inputs[2:] = [self.constant(changed)]
        return True

    # -- tables

    def tensors(self) -> list[Tensor]:
        """Every tensor in use: inputs, then constants and results in order of use."""
        found: dict[Tensor, None] = dict.fromkeys(t for _, t in self.inputs)
        for node in self.nodes:
            found.update(dict.fromkeys(node.inputs))
            found[node.output] = None
        found.update(dict.fromkeys(t for _, t in self.outputs))
        return list(found)


def _along_last(addend: Tensor, tensor: Tensor) -> np.ndarray | None:
    """`addend` as a vector along the last dim of `tensor`, when it is such a constant."""
    width, data = tensor.shape[-1], addend.data
    if data is None or not isinstance(width, int) or data.ndim > len(tensor.shape):
        return None
    if data.size == 1:
        return np.full(width, data.reshape(-1)[0], data.dtype)
    return data.reshape(width) if data.shape[-1] == width == data.size else None


def model_record(graphs: Sequence[Graph], description: str) -> Record:
    """The `Model` of finished graphs: one subgraph and one signature for each."""
    codes: dict[str, int] = {}
    buffers: dict[bytes, int] = {b"": 0}
    for graph in graphs:
        for node in graph.nodes:
            # Kernels without a bias are not in every runtime.
            if node.code in _BIASED and len(node.inputs) == 2:
                width = node.output.shape[-1]
                node.inputs.append(graph.constant(np.zeros(width, np.float32)))
            codes.setdefault(node.code, len(codes))
    subgraphs = [_subgraph(graph, codes, buffers) for graph in graphs]
    return {
        "version": 3, "description": description, "subgraphs": subgraphs,
        "operator_codes": [{"deprecated_builtin_code": min(CODES[code], 127),
                            "builtin_code": CODES[code], "version": VERSIONS.get(code, 1)}
                           for code in codes],
        "buffers": [{"data": data} if data else {} for data in buffers],
        "signature_defs": [_signature(graph, i) for i, graph in enumerate(graphs)],
    }


def _subgraph(graph: Graph, codes: Mapping[str, int], buffers: dict[bytes, int]) -> Record:
    tensors = graph.tensors()
    index = {tensor: i for i, tensor in enumerate(tensors)}
    operators = []
    for node in graph.nodes:
        operator: dict[str, Any] = {"opcode_index": codes[node.code],
                                    "inputs": [index[t] for t in node.inputs],
                                    "outputs": [index[node.output]]}
        if node.table:
            operator["builtin_options_type"] = OPTIONS[node.table]
            operator["builtin_options"] = (node.table, node.options)
        operators.append(operator)
    return {"name": graph.name, "operators": operators,
            "inputs": [index[t] for _, t in graph.inputs],
            "outputs": [index[t] for _, t in graph.outputs],
            "tensors": [_tensor(t, i, buffers) for i, t in enumerate(tensors)]}


def _tensor(tensor: Tensor, number: int, buffers: dict[bytes, int]) -> Record:
    record: dict[str, Any] = {
        "name": tensor.name or f"t{number}", "type": TYPES[tensor.dtype.name], "has_rank": True,
        # A symbolic extent is shown for dims of 1; the runtime resizes it.
        "shape": [d.evaluate(dict.fromkeys(d.names, 1)) if isinstance(d, Dim) else d
                  for d in tensor.shape]}
    if not tensor.type.is_static:
        record["shape_signature"] = [-1 if isinstance(d, Dim) else d for d in tensor.shape]
    if tensor.data is not None:
        data = np.ascontiguousarray(tensor.data).tobytes()
        record["buffer"] = buffers.setdefault(data, len(buffers))
    return record


def _signature(graph: Graph, number: int) -> Record:
    index = {tensor: i for i, tensor in enumerate(graph.tensors())}
    inputs, outputs = ([{"name": n, "tensor_index": index[t]} for n, t in side]
                       for side in (graph.inputs, graph.outputs))
    return {"signature_key": graph.name, "inputs": inputs, "outputs": outputs,
            "subgraph_index": number}
