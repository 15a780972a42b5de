"""How a random program gets each op: `MAKERS[name](builder)` adds it and returns its results.

One small function per family. A maker picks operands from the builder's pool and attributes that fit
them most of the time; what an op refuses (`TfnError`) is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...compiler.errors import OpError
from ...compiler.ir.core import TensorType
from ...compiler.ir.dims import Dim
from ...compiler.ir.dtypes import (
    ALL,
    F32,
    F64,
    I1,
)
from ...compiler.ir.structs import (
    GatherDimensionNumbers,
    ScatterDimensionNumbers,
)
from ...compiler.ops import dynamic  # noqa: F401  Declares all ops.
from ...compiler.ops.declare import BOOL, COMPLEX, FLOAT, INTEGER, NUMBER, REGISTRY
from ...compiler.ops.elementwise import Elementwise
from .random_programs import MAX_ELEMENTS, Builder

Maker = Callable[[Builder], Sequence[Any]]
MAKERS: dict[str, Maker] = {}
REAL = FLOAT | INTEGER
ORDERED = REAL | BOOL
RANKED = (1, 2, 3, 4)
MATRICES = (2, 3, 4)
_DIRECTIONS = ("EQ", "NE", "LT", "LE", "GT", "GE")

LEFT_OUT = frozenset({
    # Unspecified results, or no result at all.
    "stablehlo.rng", "stablehlo.custom_call",
    # Between processes, or with the host.
    *(n for n in REGISTRY if n.startswith(("check.", "interpreter.", "tfn."))),
    "stablehlo.all_reduce", "stablehlo.all_gather", "stablehlo.reduce_scatter",
    "stablehlo.all_to_all", "stablehlo.collective_broadcast", "stablehlo.collective_permute",
    "stablehlo.replica_id", "stablehlo.partition_id", "stablehlo.after_all",
    "stablehlo.create_token", "stablehlo.send", "stablehlo.recv", "stablehlo.infeed",
    "stablehlo.outfeed",
    # In text only; in memory they are their static forms.
    *(n for n in REGISTRY if n.startswith("stablehlo.dynamic_")
      and n not in ("stablehlo.dynamic_slice", "stablehlo.dynamic_update_slice")),
    "stablehlo.real_dynamic_slice",
    # Its dimension numbers are text only: `tests/compiler/test_ops_stablehlo.py`.
    "chlo.ragged_dot",
    # On quantized types: `tests/compiler/test_quantized.py`.
    "stablehlo.uniform_quantize", "stablehlo.uniform_dequantize",
})
"""Declared ops that random programs do not have, and why."""


def maker(name: str) -> Callable[[Maker], Maker]:
    def register(function: Maker) -> Maker:
        MAKERS[name] = function
        return function

    return register


# -- elementwise ----------------------------------------------------------------------------------

def _elementwise(name: str, op: type[Elementwise]) -> Maker:
    def make(b: Builder) -> Sequence[Any]:
        x = b.value(op.accepts)
        return b.record(name, x, *(b.like(x.type) for _ in range(op.arity - 1)))

    return make


for _name, _op in REGISTRY.items():
    if issubclass(_op, Elementwise) and not _op.attributes and _op.arity <= 2:
        MAKERS[_name] = _elementwise(_name, _op)


@maker("stablehlo.compare")
def _compare(b: Builder) -> Sequence[Any]:
    x = b.value()
    kinds = _DIRECTIONS[:2] if x.type.dtype in COMPLEX else _DIRECTIONS
    kind = {"compare_type": "TOTALORDER"} if x.type.dtype in FLOAT and b.chance(4) else {}
    return b.record("stablehlo.compare", x, b.like(x.type), comparison_direction=b.pick(kinds), **kind)


@maker("stablehlo.select")
def _select(b: Builder) -> Sequence[Any]:
    x = b.value()
    pred = b.like(TensorType(() if b.chance(3) else x.shape, I1))
    return b.record("stablehlo.select", pred, x, b.like(x.type))


@maker("stablehlo.clamp")
def _clamp(b: Builder) -> Sequence[Any]:
    x = b.value(REAL)
    low, high = (b.like(x.type if b.chance(2) else TensorType((), x.type.dtype)) for _ in range(2))
    return b.record("stablehlo.clamp", low, x, high)


@maker("stablehlo.convert")
def _convert(b: Builder) -> Sequence[Any]:
    return b.record("stablehlo.convert", b.value(), dtype=b.dtype())


@maker("stablehlo.bitcast_convert")
def _bitcast(b: Builder) -> Sequence[Any]:
    x = b.value()
    same = [d for d in ALL if d.bits == x.type.dtype.bits]
    return b.record("stablehlo.bitcast_convert", x, dtype=b.pick(ALL if b.chance(2) else same))


@maker("stablehlo.reduce_precision")
def _reduce_precision(b: Builder) -> Sequence[Any]:
    return b.record("stablehlo.reduce_precision", b.value(FLOAT),
                    exponent_bits=b.pick((5, 8, 2, 11, 4)), mantissa_bits=b.pick((10, 7, 0, 3, 23)))


@maker("stablehlo.complex")
def _complex(b: Builder) -> Sequence[Any]:
    x = b.value(frozenset({F32, F64}))
    return b.record("stablehlo.complex", x, b.like(x.type))


@maker("chlo.constant_like")
def _constant_like(b: Builder) -> Sequence[Any]:
    return b.record("chlo.constant_like", b.value(NUMBER), value=b.pick((0, 1, 3)))


# -- moving elements ------------------------------------------------------------------------------

@maker("stablehlo.constant")
def _constant(b: Builder) -> Sequence[Any]:
    shape, dtype = b.shape(), b.dtype()
    if b.chance(2):
        return [b.constant(b.data(TensorType(shape, dtype)))]
    return [b.constant(np.broadcast_to(b.data(TensorType((), dtype)), shape))]


@maker("stablehlo.iota")
def _iota(b: Builder) -> Sequence[Any]:
    type = TensorType(b.shape(b.pick(RANKED)), b.dtype(NUMBER))
    return b.record("stablehlo.iota", iota_dimension=b.integer(0, type.rank - 1), type=type)


@maker("stablehlo.broadcast_in_dim")
def _broadcast(b: Builder) -> Sequence[Any]:
    x = b.value(ranks=(0, 1, 2, 3))
    room = MAX_ELEMENTS
    for d in x.shape:
        room //= max(5 if isinstance(d, Dim) else d, 1)
    shape = [d if isinstance(d, Dim) or d != 1 or b.chance(2) else b.pick((1, 3, 4)) for d in x.shape]
    order = b.shuffled(range(len(shape))) if b.chance(3) else list(range(len(shape)))
    extra = list(b.shape(b.integer(0, 4 - len(shape)), room))
    result: list[Any] = [shape[i] for i in order]
    places = [order.index(i) for i in range(len(shape))]
    for extent in extra:
        at = b.integer(0, len(result))
        result.insert(at, extent)
        places = [p + (p >= at) for p in places]
    return b.record("stablehlo.broadcast_in_dim", x, shape=tuple(result),
                    broadcast_dimensions=tuple(places))


@maker("stablehlo.reshape")
def _reshape(b: Builder) -> Sequence[Any]:
    x = b.value()
    shape = list(x.shape)
    if x.type.is_static and b.chance(2):
        return b.record("stablehlo.reshape", x, shape=(int(np.prod(shape, dtype=np.int64)),))
    for _ in range(b.integer(1, 3)):
        at = b.integer(0, len(shape))
        nearby = [i for i in range(len(shape) - 1)
                  if isinstance(shape[i], int) and isinstance(shape[i + 1], int)]
        if nearby and b.chance(2):
            i = b.pick(nearby)
            shape[i:i + 2] = [shape[i] * shape[i + 1]]
        elif at < len(shape) and isinstance(shape[at], int) and shape[at] % 2 == 0 and b.chance(2):
            shape[at:at + 1] = b.shuffled([2, shape[at] // 2])
        elif len(shape) < 5:
            shape.insert(at, 1)
    return b.record("stablehlo.reshape", x, shape=tuple(shape))


@maker("stablehlo.transpose")
def _transpose(b: Builder) -> Sequence[Any]:
    x = b.value()
    return b.record("stablehlo.transpose", x, permutation=tuple(b.shuffled(range(len(x.shape)))))


@maker("stablehlo.optimization_barrier")
def _barrier(b: Builder) -> Sequence[Any]:
    return b.record("stablehlo.optimization_barrier", *(b.value() for _ in range(b.integer(1, 3))))


@maker("stablehlo.slice")
def _slice(b: Builder) -> Sequence[Any]:
    x = b.value()
    starts: list[Any] = []
    limits: list[Any] = []
    strides: list[int] = []
    for extent in x.shape:
        if isinstance(extent, Dim):
            starts, limits, strides = [*starts, 0], [*limits, extent], [*strides, 1]
            continue
        starts.append(b.integer(0, extent))
        limits.append(extent - b.integer(0, extent - starts[-1]))
        strides.append(b.pick((1, 2, 3)))
    return b.record("stablehlo.slice", x, start_indices=tuple(starts), limit_indices=tuple(limits),
                    strides=tuple(strides))


@maker("stablehlo.pad")
def _pad(b: Builder) -> Sequence[Any]:
    x = b.value()
    low = [0 if isinstance(d, Dim) else b.pick((0, 1, 2, -1)) for d in x.shape]
    high = [0 if isinstance(d, Dim) else b.pick((0, 1, 3, -1)) for d in x.shape]
    inner = [0 if isinstance(d, Dim) else b.pick((0, 0, 1, 2)) for d in x.shape]
    return b.record("stablehlo.pad", x, b.like(TensorType((), x.type.dtype)),
                    edge_padding_low=tuple(low), edge_padding_high=tuple(high),
                    interior_padding=tuple(inner))


@maker("stablehlo.concatenate")
def _concatenate(b: Builder) -> Sequence[Any]:
    x = b.value(ranks=RANKED)
    axis = b.integer(0, len(x.shape) - 1)
    others = []
    for _ in range(b.integer(0, 3)):
        shape = list(x.shape)
        if not isinstance(shape[axis], Dim) and b.chance(2):
            shape[axis] = b.pick((1, 2, 0, 5))
        others.append(b.like(TensorType(tuple(shape), x.type.dtype)))
    return b.record("stablehlo.concatenate", x, *others, dimension=axis)


@maker("stablehlo.reverse")
def _reverse(b: Builder) -> Sequence[Any]:
    x = b.value()
    return b.record("stablehlo.reverse", x, dimensions=tuple(b.subset(range(len(x.shape)))))


@maker("stablehlo.get_dimension_size")
def _dimension_size(b: Builder) -> Sequence[Any]:
    x = b.value(ranks=RANKED)
    return b.record("stablehlo.get_dimension_size", x, dimension=b.integer(0, len(x.shape) - 1))


def _starts(b: Builder, count: int) -> list[Any]:
    dtype = b.dtype(INTEGER)
    return [b.like(TensorType((), dtype)) for _ in range(count)]


@maker("stablehlo.dynamic_slice")
def _dynamic_slice(b: Builder) -> Sequence[Any]:
    x = b.value()
    sizes = tuple(d if isinstance(d, Dim) else b.integer(0, d) for d in x.shape)
    return b.record("stablehlo.dynamic_slice", x, *_starts(b, len(sizes)), slice_sizes=sizes)


@maker("stablehlo.dynamic_update_slice")
def _dynamic_update_slice(b: Builder) -> Sequence[Any]:
    x = b.value()
    shape = tuple(d if isinstance(d, Dim) else b.integer(0, d) for d in x.shape)
    update = b.like(x.type.with_shape(shape))
    return b.record("stablehlo.dynamic_update_slice", x, update, *_starts(b, len(shape)))


# -- gather, scatter, sort ------------------------------------------------------------------------

def _index_layout(b: Builder, x: Any) -> tuple[Any, ...]:
    """Which dims of `x` are indexed, collapsed and paired, the indices, and the place of windows."""
    rank = len(x.shape)
    paired = [d for d in b.subset(range(rank)) if b.chance(3)]
    indexed = b.shuffled([d for d in b.subset(range(rank)) if d not in paired
                          and not isinstance(x.shape[d], Dim)])
    collapsed = sorted(d for d in b.subset(indexed) if x.shape[d] != 0)
    many = [x.shape[d] for d in paired] + list(b.shape(b.integer(0, 2), 12))
    vector = b.integer(0, len(many)) if len(indexed) != 1 or b.chance(2) else len(many)
    shape = list(many)
    implicit = len(indexed) == 1 and vector == len(many) and b.chance(2)
    if not implicit:
        shape.insert(vector, len(indexed))
    at = [i + (not implicit and i >= vector) for i in range(len(paired))]
    if len(indexed) != len(set(indexed)):
        raise OpError("a dim is indexed twice")
    dtype = b.dtype(INTEGER)
    if b.chance(4) or not all(isinstance(d, int) for d in shape):
        indices = b.like(TensorType(tuple(shape), dtype))
    else:
        rng = np.random.default_rng(b.integer(0, 99))
        indices = b.constant(rng.integers(-1 if dtype.kind == "int" else 0, 3 if dtype.bits < 8 else 6,
                                          shape).clip(-2, 1 if dtype.bits < 4 else 6
                                                      ).astype(dtype.numpy))
    kept = [d for d in range(rank) if d not in collapsed and d not in paired]
    total = len(many) + len(kept)
    windows = sorted(b.shuffled(range(total))[: len(kept)])
    return paired, indexed, collapsed, indices, vector, at, kept, windows, many


@maker("stablehlo.gather")
def _gather(b: Builder) -> Sequence[Any]:
    x = b.value()
    paired, indexed, collapsed, indices, vector, at, _, windows, _ = _index_layout(b, x)
    sizes = tuple(1 if d in collapsed or d in paired else
                  (b.integer(0, e) if d in indexed else e) for d, e in enumerate(x.shape))
    numbers = GatherDimensionNumbers(tuple(windows), tuple(collapsed), tuple(paired), tuple(at),
                                     tuple(indexed), vector)
    return b.record("stablehlo.gather", x, indices, dimension_numbers=numbers, slice_sizes=sizes)


@maker("stablehlo.scatter")
def _scatter(b: Builder) -> Sequence[Any]:
    x = b.value()
    paired, indexed, collapsed, indices, vector, at, kept, windows, many = _index_layout(b, x)
    window = iter([b.integer(0, x.shape[d]) if d in indexed else x.shape[d] for d in kept])
    batch = iter(many)
    shape = [next(window) if d in windows else next(batch)
             for d in range(len(kept) + len(many))]
    numbers = ScatterDimensionNumbers(tuple(windows), tuple(collapsed), tuple(paired), tuple(at),
                                      tuple(indexed), vector)
    updates = b.like(x.type.with_shape(tuple(shape)))
    scalar = TensorType((), x.type.dtype)
    body = _replacing(b, scalar) if b.chance(3) else _reducer(b, [scalar])
    return b.record("stablehlo.scatter", x, indices, updates, scatter_dimension_numbers=numbers,
                    regions=[body])


def _replacing(b: Builder, scalar: TensorType) -> Any:
    return b.region([scalar, scalar], lambda _, new: [new], 0, closed=True)


@maker("stablehlo.sort")
def _sort(b: Builder) -> Sequence[Any]:
    x = b.value(ORDERED, RANKED)
    others = [b.like(x.type.with_dtype(b.dtype())) for _ in range(b.integer(0, 2))]
    kind = {"compare_type": "TOTALORDER"} if x.type.dtype in FLOAT else {}
    direction = b.pick(("LT", "GT"))
    scalars = [TensorType((), v.type.dtype) for v in (x, *others) for _ in range(2)]
    region = b.region(scalars, lambda a, c, *_: b.record(
        "stablehlo.compare", a, c, comparison_direction=direction, **kind), 0, closed=True)
    return b.record("stablehlo.sort", x, *others, regions=[region], is_stable=True,
                    dimension=b.integer(0, len(x.shape) - 1))


@maker("chlo.top_k")
def _top_k(b: Builder) -> Sequence[Any]:
    x = b.value(REAL, RANKED, static=True)
    return b.record("chlo.top_k", x, k=b.integer(0, x.shape[-1]))


NAMES: list[str] = []
"""Names of `MAKERS`, in the order programs shrink to (filled once all are declared)."""


def _reducer(b: Builder, scalars: Sequence[TensorType]) -> Any:
    """A region that combines two elements of each type in an order that does not matter."""
    from .random_regions import reducer

    return reducer(b, scalars)

