"""From the IR of a signature to a TFLite graph: one walk over the ops, one rule per op (`rules`).

TFLite's elementwise operators broadcast by themselves, so a broadcast is not computed when it is
met: a `View` remembers it, and only a consumer that needs all the elements pays for them. What
depends on weights alone is computed here, by the ops' own NumPy evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...compiler.errors import UnsupportedError
from ...compiler.ir.core import Block, Function, Op, TensorType, Value
from ...compiler.ir.dims import Dim, Extent
from ...compiler.ir.dtypes import I32
from ...compiler.ops.control import INLINED
from ...compiler.ops.elementwise import Elementwise
from ...compiler.trace.core import conform
from .graph import TYPES, Graph, Tensor

Shape = Sequence[Extent]

Rule = Callable[["Lowering", Op], Any]
"""Makes tensors or views of an op's results; None from a composite's rule: use its body."""


# Stored as they are, not with all their elements.
_KEPT_SMALL = frozenset({"stablehlo.broadcast_in_dim", "stablehlo.constant", "stablehlo.iota"})

_SCALAR_OPERANDS = frozenset({"stablehlo.clamp", "stablehlo.select"})
"""Elementwise ops with operands that may be scalars beside arrays."""


def _static(type: TensorType) -> tuple[int, ...]:
    """The shape of a type without symbolic dims."""
    return tuple(int(d) for d in type.shape)


@dataclass(frozen=True)
class View:
    """A value as a tensor of its rank whose extents of 1 stand for `type`'s extents."""

    core: Tensor
    type: TensorType

    @property
    def is_dense(self) -> bool:
        return self.core.shape == self.type.shape


class Lowering:
    """The graph so far, and what each IR value has become."""

    def __init__(self, name: str, rules: Mapping[str, Rule], composites: Mapping[str, Rule]):
        self.rules, self.composites = rules, composites
        self.graph = Graph(name)
        self.views: dict[Value, View] = {}
        self.averages: dict[Tensor, tuple[Tensor, np.ndarray]] = {}
        """A sum over windows -> the average, and how many elements each window has."""
        self._sizes: dict[Any, Tensor] = {}
        self._op: Op | None = None

    # -- values

    def set(self, value: Value, result: Tensor | View) -> None:
        view = result if isinstance(result, View) else View(result, value.type)
        assert view.type == value.type, f"{view.type} for {value.type}"
        self.views[value] = view

    def view(self, value: Value) -> View:
        return self.views[value]

    def dense(self, value: Value) -> Tensor:
        """The value with all its elements."""
        return self.expand(self.views[value])

    def data(self, value: Value) -> np.ndarray | None:
        """The elements of a constant, broadcast only as far as it was stored; None otherwise."""
        return self.views[value].core.data

    def is_filled(self, value: Value, number: float) -> bool:
        """Whether the value is a constant with `number` everywhere."""
        data = self.data(value)
        return data is not None and bool(np.all(data == number))

    def input(self, name: str, type: TensorType) -> Tensor:
        tensor = Tensor(type, name=name)
        self.check_type(tensor.type)
        self.graph.inputs.append((name, tensor))
        return tensor

    def output(self, value: Value) -> Tensor:
        """A result; inputs and constants are passed on by an operator of their own."""
        tensor = self.dense(value)
        passed = any(tensor is t for _, t in [*self.graph.inputs, *self.graph.outputs])
        if tensor.data is None and not passed:
            return tensor
        shape = self.shape_vector(tensor.shape)
        return self.graph.emit("RESHAPE", [tensor, shape], tensor.type)

    # -- ops

    def block(self, block: Block) -> None:
        for op in block.ops:
            self.op(op)

    def op(self, op: Op) -> None:
        """Lower one op: as constants, by its rule, or through its decomposition."""
        outer, self._op = self._op, op
        constants = [data for v in op.operands if (data := self.data(v)) is not None]
        results: Any = None
        if len(constants) == len(op.operands) and op.name not in INLINED:
            results = self._evaluate(op, constants)
        if results is None:
            results = self._by_rule(op)
        if not isinstance(results, (list, tuple)):
            results = [results]
        for value, result in zip(op.results, results, strict=True):
            self.check_type(value.type)
            self.set(value, result)
        self._op = outer

    def _by_rule(self, op: Op):
        if op.name in INLINED:
            rule = self.composites.get(op.attributes.get("name", ""))
            result = rule(self, op) if rule else None
            return self._inline(op) if result is None else result
        if op.name not in self.rules:
            raise self.unsupported("TFLite has no such operator")
        return self.rules[op.name](self, op)

    def _inline(self, op: Op) -> list[View]:
        body: Function = op.attributes[INLINED[op.name]]
        for argument, operand in zip(body.arguments, op.operands, strict=True):
            self.views[argument] = self.views[operand]
        self.block(body.body)
        return [self.views[v] for v in body.returns]

    def _evaluate(self, op: Op, constants: list[np.ndarray]) -> list[View] | None:
        """The results of an op on constants; None when its shape is not known here."""
        if op.definition.evaluate is None or op.name in _KEPT_SMALL:
            return None
        types = [r.type for r in op.results]
        if issubclass(op.definition, Elementwise):
            rank = len(types[0].shape)
            common = np.broadcast_shapes(*(c.shape for c in constants))
            shape = (1,) * (rank - len(common)) + common
            scalars = op.name in _SCALAR_OPERANDS
            operands = [c if scalars and c.ndim == 0 else np.broadcast_to(c, shape)
                        for c in constants]
            inner = [t.with_shape(shape) for t in types]
        elif all(t.is_static for t in (*types, *(v.type for v in op.operands))):
            operands = [np.broadcast_to(c, _static(v.type))
                        for c, v in zip(constants, op.operands, strict=True)]
            inner = types
        else:
            return None
        with np.errstate(all="ignore"):
            results = op.definition.evaluate(operands, op.attributes, op.regions, inner)
        return [View(self.graph.constant(conform(r, t)), full)
                for r, t, full in zip(results, inner, types, strict=True)]

    # -- what rules use

    def unsupported(self, why: str) -> UnsupportedError:
        """The error for the op being lowered."""
        assert self._op is not None
        types = ", ".join(f"{v.dtype}[{', '.join(map(str, v.shape))}]" for v in self._op.operands)
        return UnsupportedError(
            f"{self._op.name} of {types or 'nothing'} cannot be exported to TFLite: {why}. Change"
            " the model there, or export to another format", self._op.location)

    def check_type(self, type: TensorType) -> None:
        if type.dtype.name not in TYPES:
            what = "an input of the signature" if self._op is None else self._op.name
            raise UnsupportedError(
                f"{what} has element type {type.dtype}, which TFLite's kernels do not compute with;"
                " use float32 and int32", self._op.location if self._op else None)

    def emit(self, code: str, inputs: Sequence[Tensor], type: TensorType, table: str = "",
             **options: Any) -> Tensor:
        return self.graph.emit(code, inputs, type, table, **options)

    def constant(self, data: Any, dtype=None) -> Tensor:
        return self.graph.constant(np.asarray(data, None if dtype is None else dtype.numpy))

    def numbers(self, values: Any) -> Tensor:
        """An int32 constant: axes, paddings, permutations."""
        return self.graph.constant(np.asarray(values, np.int32))

    def expand(self, view: View) -> Tensor:
        """All elements of a view."""
        if view.is_dense:
            return view.core
        if view.core.data is not None and view.type.is_static:
            return self.graph.constant(np.broadcast_to(view.core.data, _static(view.type)))
        shape = self.shape_vector(view.type.shape, exact=True)
        return self.emit("BROADCAST_TO", [view.core, shape], view.type)

    def reshape(self, tensor: Tensor, shape: Shape) -> Tensor:
        """The same elements under another shape."""
        shape = tuple(shape)
        if tensor.shape == shape:
            return tensor
        if tensor.data is not None:
            return self.graph.constant(tensor.data.reshape(shape), tensor.name)
        return self.emit("RESHAPE", [tensor, self.shape_vector(shape)],
                         tensor.type.with_shape(shape))

    def transpose(self, tensor: Tensor, permutation: Sequence[int]) -> Tensor:
        permutation = list(permutation)
        if permutation == list(range(len(permutation))):
            return tensor
        if tensor.data is not None:
            data = np.ascontiguousarray(tensor.data.transpose(permutation))
            return self.graph.constant(data, tensor.name)
        type = tensor.type.with_shape([tensor.shape[d] for d in permutation])
        return self.emit("TRANSPOSE", [tensor, self.numbers(permutation)], type)

    def shape_vector(self, shape: Shape, exact: bool = False) -> Tensor:
        """A shape as int32 numbers; unless `exact`, one symbolic extent is -1 ("the rest")."""
        symbolic = [d for d in shape if isinstance(d, Dim)]
        if not symbolic or (len(symbolic) == 1 and not exact and 0 not in shape):
            return self.numbers([-1 if isinstance(d, Dim) else d for d in shape])
        pieces = [self.size(d) for d in shape]
        if len(pieces) == 1:
            return pieces[0]
        return self.emit("CONCATENATION", pieces, TensorType((len(pieces),), I32),
                         "ConcatenationOptions", axis=0)

    def size(self, extent: Extent) -> Tensor:
        """An extent as an int32 tensor of one element, computed from the inputs if symbolic."""
        if not isinstance(extent, Dim):
            return self.numbers([extent])
        if extent not in self._sizes:
            self._sizes[extent] = self._affine(extent)
        return self._sizes[extent]

    def _affine(self, extent: Dim) -> Tensor:
        type = TensorType((1,), I32)
        total: Tensor | None = None
        for name, coefficient in extent.terms:
            term = self._named(name)
            if coefficient != 1:
                term = self.emit("MUL", [term, self.numbers([coefficient])], type, "MulOptions")
            total = term if total is None else self.emit("ADD", [total, term], type, "AddOptions")
        assert total is not None
        if extent.constant:
            total = self.emit("ADD", [total, self.numbers([extent.constant])], type, "AddOptions")
        return total

    def _named(self, name: str) -> Tensor:
        for _, tensor in self.graph.inputs:
            for d, extent in enumerate(tensor.shape):
                if extent == Dim.named(name):
                    shape = self.emit("SHAPE", [tensor], TensorType((len(tensor.shape),), I32),
                                      "ShapeOptions", out_type=TYPES["i32"])
                    return self.slice(shape, [d], [d + 1])
        raise self.unsupported(f"no input has an extent that is just `{name}`")

    def slice(self, tensor: Tensor, start: Sequence[int], limit: Sequence[int]) -> Tensor:
        """A static slice."""
        type = tensor.type.with_shape([b - a for a, b in zip(start, limit, strict=True)])
        return self.emit("STRIDED_SLICE", [tensor, self.numbers(start), self.numbers(limit),
                                           self.numbers([1] * len(start))],
                         type, "StridedSliceOptions", begin_mask=0, end_mask=0)
