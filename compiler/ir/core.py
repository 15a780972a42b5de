"""The IR: Module > Function > Block > Op over typed SSA values, with StableHLO's semantics.

Plain data. An op's meaning lives in its definition (`compiler/ops`), which the `Op` points to;
nothing here knows a particular op. Functions are not edited in place: a pass builds a new one
(`ir/rewrite.py`), so a `Function` may be shared and cached freely.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from .dims import Dim, Extent, nominal, product
from .dtypes import DType, FutureDType

if TYPE_CHECKING:
    from ..ops.declare import OpDefinition


@dataclass(frozen=True)
class Location:
    """Where the user wrote it."""

    file: str
    line: int
    function: str = ""
    span: tuple[Any, int] | None = field(default=None, compare=False, repr=False)
    """First and last column (from 0), or a code object and the offset of an instruction in it."""
    library: tuple[Any, int] | None = field(default=None, compare=False, repr=False)
    """Code object (or its name) and line of the library function between the user and the op."""
    derivative: bool = field(default=False, compare=False)
    """The op belongs to the derivative of what stands there."""
    scope: str = field(default="", compare=False)
    """The part of a model that was running, as a path of names: `encoder/dense_1`."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"

    def __reduce__(self):
        library = self.library and (self._library_name(), self.library[1])
        return Location, (self.file, self.line, self.function, self.columns(), library,
                          self.derivative, self.scope)

    def of_derivative(self) -> Location:
        return replace(self, derivative=True)

    def inside(self) -> str:
        """`" (in Dense.call, keras/src/layers/core/dense.py:152)"` for what a library did on the user's
        behalf, `" (in its derivative)"`, or ""."""
        derivative = " (in its derivative)" if self.derivative else ""
        return derivative + (
            f" (in {self._library_name()}:{self.library[1]})" if self.library else "")

    def _library_name(self) -> str:
        assert self.library is not None
        code = self.library[0]
        if isinstance(code, str):
            return code
        return f"{code.co_qualname}, {code.co_filename.rpartition('site-packages/')[2]}"

    def columns(self) -> tuple[int, int] | None:
        """First and last column (exclusive) of the expression on its line, if known."""
        if self.span is None:
            return None
        code, offset = self.span
        if isinstance(code, int):
            return code, offset
        positions = next(islice(code.co_positions(), offset // 2, None), None)
        if positions is None or None in positions or positions[0] != self.line:
            return None
        first, last, start, end = positions
        return start, end if first == last else -1


@dataclass(frozen=True)
class TensorType:
    """An element type and a shape; every extent is an int or a symbolic `Dim`."""

    shape: tuple[Extent, ...]
    dtype: DType

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> Extent:
        """Number of elements."""
        return product(self.shape)

    @property
    def nbytes(self) -> Extent:
        return self.size * self.dtype.itemsize

    @property
    def nominal_bytes(self) -> int:
        """Bytes to compare by: a symbolic dim counts as some number."""
        return math.prod(map(nominal, self.shape)) * self.dtype.itemsize

    @property
    def is_static(self) -> bool:
        return not any(isinstance(d, Dim) for d in self.shape)

    def with_shape(self, shape: Sequence[Extent]) -> TensorType:
        return TensorType(tuple(shape), self.dtype)

    def with_dtype(self, dtype: DType) -> TensorType:
        return TensorType(self.shape, dtype)

    def substitute(self, sizes: Mapping[str, Extent]) -> TensorType:
        if self.is_static:
            return self
        return self.with_shape(
            [d.substitute(sizes) if isinstance(d, Dim) else d for d in self.shape]
        )

    def __str__(self) -> str:
        if self.dtype.kind == "token":
            return "!stablehlo.token"
        if isinstance(self.dtype, FutureDType):
            return f"!stablehlo.future<{self.with_dtype(self.dtype.element)}>"
        dims = "".join(f"{'?' if isinstance(d, Dim) else d}x" for d in self.shape)
        return f"tensor<{dims}{self.dtype}>"


class Value:
    """One SSA value: the result of an op or the argument of a block."""

    __slots__ = ("type", "owner", "index")

    def __init__(self, type: TensorType, owner: Op | Block, index: int):
        self.type = type
        self.owner = owner
        self.index = index

    @property
    def op(self) -> Op | None:
        """The op this is a result of; None for a block argument."""
        return self.owner if isinstance(self.owner, Op) else None

    @property
    def shape(self) -> tuple[Extent, ...]:
        return self.type.shape

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    def __repr__(self) -> str:
        kind = self.op.name if self.op else "argument"
        return f"<Value {kind}#{self.index}: {self.type}>"


class Op:
    """One operation. `attributes` hold Python values; `ir.attributes.KINDS` has their kinds."""

    __slots__ = ("definition", "operands", "attributes", "regions", "results", "location")

    def __init__(
        self,
        definition: type[OpDefinition],
        operands: Sequence[Value],
        result_types: Sequence[TensorType],
        attributes: Mapping[str, Any] | None = None,
        regions: Sequence[Block] = (),
        location: Location | None = None,
    ):
        self.definition = definition
        self.operands = tuple(operands)
        self.attributes = dict(attributes or {})
        self.regions = tuple(regions)
        self.results = tuple(Value(t, self, i) for i, t in enumerate(result_types))
        self.location = location

    @property
    def name(self) -> str:
        return self.definition.name

    @property
    def has_effect(self) -> bool:
        """Must be kept, and kept in order with others of its kind."""
        return self.definition.has_effect or bool(
            self.attributes.get("has_side_effect") or self.attributes.get("effect"))

    @property
    def result(self) -> Value:
        """The only result."""
        (value,) = self.results
        return value

    def __repr__(self) -> str:
        types = ", ".join(str(r.type) for r in self.results)
        return f"<Op {self.name} -> {types}>"


class Block:
    """Arguments, ops in order, and the values it returns (the terminator's operands)."""

    __slots__ = ("arguments", "ops", "returns")

    def __init__(self, argument_types: Sequence[TensorType] = ()):
        self.arguments: list[Value] = []
        self.ops: list[Op] = []
        self.returns: list[Value] = []
        for t in argument_types:
            self.add_argument(t)

    def add_argument(self, type: TensorType) -> Value:
        value = Value(type, self, len(self.arguments))
        self.arguments.append(value)
        return value

    def walk(self) -> Iterator[Op]:
        """Every op, outer before inner."""
        for op in self.ops:
            yield op
            for region in op.regions:
                yield from region.walk()


@dataclass(eq=False)
class Function:
    """A named block. `argument_attributes` / `result_attributes` hold MLIR attributes per value,
    such as `{"tf.aliasing_output": 0}` (donation) or `{"jax.result_info": "loss"}`."""

    name: str
    body: Block
    argument_attributes: list[dict[str, Any]] = field(default_factory=list)
    result_attributes: list[dict[str, Any]] = field(default_factory=list)
    public: bool = True

    def __post_init__(self):
        missing = len(self.body.arguments) - len(self.argument_attributes)
        self.argument_attributes += [{} for _ in range(missing)]
        missing = len(self.body.returns) - len(self.result_attributes)
        self.result_attributes += [{} for _ in range(missing)]

    @property
    def arguments(self) -> list[Value]:
        return self.body.arguments

    @property
    def ops(self) -> list[Op]:
        return self.body.ops

    @property
    def returns(self) -> list[Value]:
        return self.body.returns

    @property
    def argument_types(self) -> tuple[TensorType, ...]:
        return tuple(a.type for a in self.arguments)

    @property
    def result_types(self) -> tuple[TensorType, ...]:
        return tuple(r.type for r in self.returns)

    @property
    def dim_names(self) -> tuple[str, ...]:
        """Names of the symbolic dims in the arguments, in order of appearance."""
        names: dict[str, None] = {}
        for t in self.argument_types:
            for d in t.shape:
                if isinstance(d, Dim):
                    names.update(dict.fromkeys(d.names))
        return tuple(names)

    def __str__(self) -> str:
        from .printer import print_function

        return print_function(self)


@dataclass(eq=False)
class Module:
    """Functions by name. `main` is the entry unless said otherwise. Private functions that ops
    refer to (calls, composites) are held by those ops and collected when printing."""

    functions: dict[str, Function] = field(default_factory=dict)
    name: str = "main"
    attributes: dict[str, Any] = field(default_factory=dict)

    def add(self, function: Function) -> Function:
        self.functions[function.name] = function
        return function

    def __getitem__(self, name: str) -> Function:
        return self.functions[name]

    def __str__(self) -> str:
        from .printer import print_module

        return print_module(self)


def uses(block: Block) -> dict[Value, list[Op]]:
    """For each value, the ops that read it (inner regions included), in program order.

    A value returned by the block itself is not listed here: look in `block.returns`.
    """
    table: dict[Value, list[Op]] = {}
    for op in block.walk():
        for operand in op.operands:
            table.setdefault(operand, []).append(op)
        for region in op.regions:
            for value in region.returns:
                table.setdefault(value, []).append(op)
    return table


def free_values(block: Block) -> list[Value]:
    """Values used in `block` (or its inner regions) that are defined outside it, in order."""
    defined: set[Value] = set()
    free: dict[Value, None] = {}

    def visit(b: Block):
        defined.update(b.arguments)
        for op in b.ops:
            free.update((o, None) for o in op.operands if o not in defined)
            for region in op.regions:
                visit(region)
            defined.update(op.results)
        free.update((r, None) for r in b.returns if r not in defined)

    visit(block)
    return list(free)
