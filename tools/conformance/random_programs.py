"""Random well-typed StableHLO programs, from a number or as a hypothesis strategy that shrinks.

A program grows one op at a time from a pool of values, so values are shared, dead, returned twice and
read across loops. `random_ops.MAKERS` says how each op is made; the data of a program comes from a few
palettes (ordinary numbers, any bits, edge values), drawn by name so that it shrinks, too.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import ml_dtypes
import numpy as np

from ...compiler import numpy  # noqa: F401  (defines the operators that rules use)
from ...compiler.errors import TfnError
from ...compiler.ir.core import Function, TensorType
from ...compiler.ir.dims import Dim, Extent
from ...compiler.ir.dtypes import (
    ALL,
    C64,
    C128,
    F32,
    F64,
    I1,
    I8,
    I32,
    I64,
    MINIFLOATS,
    UI8,
    DType,
)
from ...compiler.ir.verify import infer_types
from ...compiler.ops.declare import definition
from ...compiler.trace.core import Graph, as_array, current_graph

EXTENTS = (2, 3, 1, 4, 0, 5, 7, 8, 16, 17, 33)
MAX_ELEMENTS = 600
BATCH = "b"
"""The name of the symbolic dim."""
_SIZES = (3, 1, 2, 5, 0)
COMMON = (F32, I32, F64, I64, I1, UI8, I8, C64, C128)
PALETTES = ("small", "ordinary", "edges", "bits", "wide")


@dataclass
class Program:
    """A function, the data it is run on, and the ops that the generator could not make."""

    function: Function
    arrays: list[np.ndarray]
    sizes: dict[str, int] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)


class Builder:
    """Makes choices and grows the program; `random_ops` uses it. `choose(low, high)` gives an integer,
    both included. Makers raise `TfnError` where the choices do not fit the op; it is left out then."""

    def __init__(self, choose: Callable[[int, int], int]):
        self.choose = choose
        self.symbolic = self.chance(6)
        self.pool: list[Any] = []
        self.depth = 0
        self.refused: list[str] = []

    # -- choices: the first of every sequence is what they shrink to

    def integer(self, low: int, high: int) -> int:
        return low if low >= high else self.choose(low, high)

    def pick(self, choices: Sequence[Any]) -> Any:
        return choices[self.integer(0, len(choices) - 1)]

    def chance(self, one_in: int) -> bool:
        return self.integer(0, one_in - 1) == one_in - 1

    def subset(self, choices: Sequence[Any]) -> list[Any]:
        mask = self.integer(0, (1 << len(choices)) - 1)
        return [c for i, c in enumerate(choices) if mask >> i & 1]

    def shuffled(self, choices: Sequence[Any]) -> list[Any]:
        left = list(choices)
        return [left.pop(self.integer(0, len(left) - 1)) for _ in choices]

    # -- types and data

    def dtype(self, accepts: frozenset[DType] | None = None) -> DType:
        common = [d for d in COMMON if accepts is None or d in accepts]
        rest = [d for d in ALL if (accepts is None or d in accepts) and d not in common]
        return self.pick(common if common and (not rest or self.chance(2)) else rest)

    def shape(self, rank: int | None = None, room: int = MAX_ELEMENTS) -> tuple[int, ...]:
        found: list[int] = []
        for _ in range(self.integer(0, 4) if rank is None else rank):
            extent = self.pick([e for e in EXTENTS if e <= max(room, 1)])
            found.append(extent)
            room //= max(extent, 1)
        return tuple(found)

    def data(self, type: TensorType) -> np.ndarray:
        assert type.is_static
        shape = [int(d) for d in type.shape if isinstance(d, int)]
        return make_data(shape, type.dtype, self.pick(PALETTES), self.integer(0, 255))

    def constant(self, array: np.ndarray) -> Any:
        """`array` as a constant op, or what it is when an op takes it as a literal."""
        (value,) = self.record("stablehlo.constant", value=array)
        return value

    # -- values

    def record(self, name: str, /, *operands: Any, regions: Sequence[Any] = (), **attributes: Any
               ) -> list[Any]:
        """Add an op even where tracing would evaluate it at once."""
        op = definition(name)
        inputs = [as_array(o) for o in operands]
        types = infer_types(op, [i.type for i in inputs], attributes, regions, None)
        graph = current_graph()
        assert graph is not None
        return graph.record(op, inputs, types, attributes, regions)

    def one(self, name: str, /, *operands: Any, **rest: Any) -> Any:
        return self.record(name, *operands, **rest)[0]

    def value(self, accepts: frozenset[DType] | None = None,
              ranks: Sequence[int] = (0, 1, 2, 3, 4, 5), static: bool = False) -> Any:
        """A value of the pool that fits, or a new constant."""
        fits = [v for v in reversed(self.pool)
                if (accepts is None or v.type.dtype in accepts) and len(v.shape) in ranks
                and (v.type.is_static or not static)]
        if fits and not self.chance(8):
            return self.pick(fits)
        return self.new(TensorType(self.shape(self.pick(ranks[:5])), self.dtype(accepts)))

    def new(self, type: TensorType) -> Any:
        """A constant, or a number spread out when the type has symbolic dims."""
        if not type.is_static:
            scalar = self.new(TensorType((), type.dtype))
            return self.one("stablehlo.broadcast_in_dim", scalar, shape=type.shape,
                            broadcast_dimensions=())
        return self.constant(self.data(type))

    def like(self, type: TensorType) -> Any:
        """A value of exactly this type."""
        same = [v for v in reversed(self.pool) if v.type == type]
        if same and not self.chance(4):
            return self.pick(same)
        near = [v for v in reversed(self.pool) if v.shape == type.shape and v.type != type]
        if near and not self.chance(3):
            return self.one("stablehlo.convert", self.pick(near), dtype=type.dtype)
        scalars = [v for v in self.pool if v.type == TensorType((), type.dtype)]
        if scalars and self.chance(2):
            return self.one("stablehlo.broadcast_in_dim", self.pick(scalars), shape=type.shape,
                            broadcast_dimensions=())
        return self.new(type)

    # -- growing

    def grow(self, steps: int) -> None:
        from .random_regions import MAKERS, NAMES

        for _ in range(steps):
            name = self.pick(NAMES)
            try:
                results = MAKERS[name](self)
            except TfnError:
                self.refused.append(name)
                continue
            self.pool += [r for r in map(as_array, results) if _is_small(r.type)]

    def region(self, types: Sequence[TensorType], finish: Callable[..., Sequence[Any]],
               steps: int = 2, closed: bool = False) -> Any:
        """A region that grows from its arguments (and, unless `closed`, the values outside); `finish`
        gives what it returns."""
        outer = self.pool
        with Graph(types, region=True) as graph:
            self.pool = ([] if closed else list(outer)) + graph.arguments
            self.depth += 1
            try:
                self.grow(steps)
                returned = finish(*graph.arguments)
                graph.block.returns = [graph.lift(as_array(o)) for o in returned]
            finally:
                self.depth -= 1
                self.pool = outer
        return graph.block

    def function(self, types: Sequence[TensorType], finish: Callable[..., Sequence[Any]],
                 name: str) -> Function:
        """A private function for calls and composites; it sees nothing from outside."""
        block = self.region(types, finish, closed=True)
        return Function(name, block, public=False)


def _is_small(type: TensorType) -> bool:
    size: Any = 1
    for d in type.shape:
        size *= 5 if isinstance(d, Dim) else d
    return size <= 4 * MAX_ELEMENTS and type.rank <= 6


def make_program(choose: Callable[[int, int], int], steps: int = 10) -> Program:
    """A program of at most `steps` top-level ops, by choices."""
    builder = Builder(choose)
    types = [_argument(builder) for _ in range(builder.integer(1, 4))]
    with Graph(types) as graph:
        builder.pool = list(graph.arguments)
        builder.grow(builder.integer(1, steps))
        used = {v for op in graph.block.ops for v in op.operands}
        results = [t for t in builder.pool if getattr(t, "value", None) not in used]
        results += [builder.pick(builder.pool) for _ in range(builder.integer(0, 3))]
        graph.block.returns = [graph.lift(r) for r in results]
    sizes = {BATCH: builder.pick(_SIZES)} if builder.symbolic else {}
    arrays = [np.asarray(builder.data(t.substitute(sizes))) for t in types]
    return Program(Function("main", graph.block), arrays, sizes, builder.refused)


def numbered(number: int) -> Program:
    """The random program of this number."""
    return make_program(random.Random(number).randint)


def programs(steps: int = 10) -> Any:
    """A hypothesis strategy: it shrinks to fewer and simpler ops on simpler data."""
    from hypothesis import strategies as st

    integers = lru_cache(maxsize=4096)(st.integers)

    @st.composite
    def program(draw: Any) -> Program:
        return make_program(lambda low, high: draw(integers(low, high)), steps)

    return program()


def _argument(builder: Builder) -> TensorType:
    shape: tuple[Extent, ...] = builder.shape()
    if builder.symbolic and shape:
        shape = (Dim.named(BATCH), *builder.shape(len(shape) - 1, MAX_ELEMENTS // 5))
    return TensorType(shape, builder.dtype())


# -- data -----------------------------------------------------------------------------------------

_FLOAT_EDGES = (0.0, -0.0, 1.0, -1.0, 0.5, 1.5, 2.0, np.nan, np.inf, -np.inf)


def _edges(dtype: DType) -> np.ndarray:
    kind = dtype.numpy
    if dtype.is_integer:
        info = ml_dtypes.iinfo(kind)
        values = [0, 1, info.max, info.min, info.min + 1, info.max - 1, info.max // 2]
        return np.array([*values, *([-1] if dtype.kind == "int" else [])]).astype(kind)
    limits = ml_dtypes.finfo(kind)
    special = [limits.max, limits.min, limits.tiny, limits.smallest_subnormal, limits.eps]
    return np.concatenate([np.array(_FLOAT_EDGES).astype(kind), np.array(special).astype(kind),
                           -np.array(special[2:]).astype(kind)])


def make_data(shape: Sequence[int], dtype: DType, palette: str, seed: int) -> np.ndarray:
    """An array from one of `PALETTES`; equal arguments give equal data."""
    rng = np.random.default_rng(seed)
    if dtype.kind == "complex":
        part = F32 if dtype is C64 else F64
        real, imaginary = make_data((2, *shape), part, palette, seed)
        whole = np.empty(shape, dtype.numpy)
        whole.real, whole.imag = real, imaginary
        return whole
    if dtype is I1:
        return rng.integers(0, 2, shape) == 1
    with np.errstate(all="ignore"):
        if palette == "edges":
            return rng.choice(_edges(dtype), shape).astype(dtype.numpy)
        if palette == "bits":
            words = rng.integers(0, 256, (*shape, dtype.itemsize), np.uint8)
            if dtype.bits < 8:
                words &= (1 << dtype.bits) - 1
                if dtype.is_integer:
                    return words[..., 0].astype(dtype.numpy)
            return np.ascontiguousarray(words).view(dtype.numpy)[..., 0]
        if dtype.is_integer:
            low = -8 if dtype.kind == "int" else 0
            high = {"small": 4, "ordinary": 100}.get(palette, 1 << 31)
            return rng.integers(low, high, shape).astype(dtype.numpy)
        if palette == "small":
            return rng.integers(-4, 5, shape).astype(np.float32).astype(dtype.numpy)
        spread = 40.0 if palette == "wide" and dtype not in MINIFLOATS else 1.0
        signs = rng.choice([-1.0, 1.0], shape)
        return (signs * np.exp(rng.normal(0, spread, shape))).astype(dtype.numpy)
