"""Indexing with arrays: gather, scatter, sort.

`gather` clamps its start indices into bounds; `scatter` skips updates whose window is out of bounds.
"""

from __future__ import annotations

import numpy as np

from ..errors import UnsupportedError
from ..ir.core import Function, TensorType
from ..ir.dims import Dim
from ..ir.dtypes import I32, as_dtype
from ..ir.structs import GatherDimensionNumbers, ScatterDimensionNumbers
from ..trace.core import bind, iota_beside, replay, trace_region
from .declare import Factors, OpDefinition, op, require
from .reduction import COMBINERS, combiner, reducer, run_reducer
from .shape import later


def _batch_dims(rank: int, window: tuple[int, ...]) -> list[int]:
    return [d for d in range(rank) if d not in window]


def _index_component(indices: np.ndarray, vector_dim: int, component: int) -> np.ndarray:
    if vector_dim == indices.ndim:
        return indices
    return np.take(indices, component, axis=vector_dim)


def _batch_source(n_batching, index_batching, vector_dim, d):
    """Which batch dim (position among the batch dims) gives the index along batching dim `d`."""
    at = index_batching[n_batching.index(d)]
    return at - (1 if vector_dim < at else 0)


def _full_index(shape, indices, n: GatherDimensionNumbers, sizes, result_rank):
    """Index arrays into an operand of `shape`, broadcasting to the result; and in-bounds flags."""
    batch = _batch_dims(result_rank, n.offset_dims)
    kept = [d for d in range(len(shape))
            if d not in n.collapsed_slice_dims and d not in n.operand_batching_dims]
    lengths = [s for i, s in enumerate(indices.shape) if i != n.index_vector_dim]
    starts, inside = [], np.ones([1] * result_rank, bool)
    offsets = []

    def spread(values, dims):
        target = [1] * result_rank
        for d, size in zip(dims, values.shape, strict=True):
            target[d] = size
        return values.reshape(target)

    for d, extent in enumerate(shape):
        start = np.zeros([1] * result_rank, np.int64)
        if d in n.start_index_map:
            component = _index_component(indices, n.index_vector_dim, n.start_index_map.index(d))
            if component.dtype == np.uint64:
                component = np.minimum(component, np.uint64(np.iinfo(np.int64).max))
            start = spread(component.astype(np.int64), batch)
            inside = inside & (start >= 0) & (start <= extent - sizes[d])
        elif d in n.operand_batching_dims:
            at = _batch_source(n.operand_batching_dims, n.start_indices_batching_dims,
                               n.index_vector_dim, d)
            start = spread(np.arange(lengths[at]), [batch[at]])
        starts.append(start)
        offset = np.zeros([1] * result_rank, np.int64)
        if d in kept:
            offset = spread(np.arange(sizes[d]), [n.offset_dims[kept.index(d)]])
        offsets.append(offset)
    return starts, offsets, inside


_CONSTRAINTS = {"gather": (1, 3, 4, 5, 6, 8, 11, 14, 15, 16, 17, 18, 19),
                "scatter": (2, 19, 7, 8, 9, 11, 13, 15, 16, 17, 18, 20, 21)}
"""The numbers the specification gives the same constraints of the two ops."""


def _check_numbers(name: str, x: TensorType, indices: TensorType, n: GatherDimensionNumbers,
                   result_rank: int) -> None:
    """The constraints on dimension numbers that do not depend on the data."""
    vector = n.index_vector_dim
    paired = list(zip(n.operand_batching_dims, n.start_indices_batching_dims, strict=False))
    components = indices.shape[vector] if 0 <= vector < indices.rank else 1

    def unique(dims) -> bool:
        return len(set(dims)) == len(dims)

    def within(dims, rank: int) -> bool:
        return all(0 <= d < rank for d in dims)

    rules = (
        (x.rank == len(n.offset_dims) + len(n.collapsed_slice_dims) + len(n.operand_batching_dims),
         "each dim of the operand is a window dim, left out, or a batching dim"),
        (isinstance(components, Dim) or len(n.start_index_map) == components,
         f"an index has {components} components, {len(n.start_index_map)} are mapped"),
        (list(n.offset_dims) == sorted(set(n.offset_dims)), "window dims are in order"),
        (within(n.offset_dims, result_rank), "window dims are dims of the windows' tensor"),
        (unique((*n.collapsed_slice_dims, *n.operand_batching_dims)), "a dim is left out once"),
        (within(n.collapsed_slice_dims, x.rank), "what is left out are dims of the operand"),
        (within(n.operand_batching_dims, x.rank), "batching dims are dims of the operand"),
        (within(n.start_indices_batching_dims, indices.rank), "batching dims are dims of the indices"),
        (vector not in n.start_indices_batching_dims, "the index vector is no batching dim"),
        (len(n.operand_batching_dims) == len(n.start_indices_batching_dims),
         "operand and indices have as many batching dims"),
        (within(n.operand_batching_dims, x.rank)
         and within(n.start_indices_batching_dims, indices.rank)
         and all(x.shape[a] == indices.shape[b] for a, b in paired), "batching dims have one extent"),
        (unique((*n.start_index_map, *n.operand_batching_dims)), "a dim is indexed once"),
        (within(n.start_index_map, x.rank), "indexed dims are dims of the operand"),
    )
    for number, (holds, what) in zip(_CONSTRAINTS[name], rules, strict=True):
        require(holds, f"C{number}", f"{name} of {x} by {indices} with {n}: {what}")


@op("stablehlo.gather")
class Gather(OpDefinition):
    """Collect slices of the operand at start indices."""

    attributes = {"dimension_numbers": "gather_dimension_numbers", "slice_sizes": "i64_array",
                  "indices_are_sorted": "bool"}
    optional = frozenset({"indices_are_sorted"})
    pointwise = True

    def infer(operands, attributes, regions):
        x, indices = operands
        n, sizes = attributes["dimension_numbers"], attributes["slice_sizes"]
        require(len(sizes) == x.rank, "C12", f"gather from {x} needs {x.rank} slice sizes")
        require(all(0 <= s <= e for s, e in zip(sizes, x.shape, strict=True)), "C13",
                f"slice sizes {list(sizes)} of gather do not fit {x}")
        require(0 <= n.index_vector_dim <= indices.rank, "C2",
                f"index_vector_dim {n.index_vector_dim} of {indices}")
        require(indices.dtype.is_integer, "I2", f"gather needs integer indices, got {indices}")
        batch = [e for d, e in enumerate(indices.shape) if d != n.index_vector_dim]
        offset = [s for d, s in enumerate(sizes)
                  if d not in n.collapsed_slice_dims and d not in n.operand_batching_dims]
        require(len(offset) == len(n.offset_dims), "C1",
                f"gather needs {len(offset)} offset dims, got {list(n.offset_dims)}")
        rank = len(batch) + len(offset)
        _check_numbers("gather", x, indices, n, rank)
        batch_iter, offset_iter = iter(batch), iter(offset)
        return [x.with_shape([next(offset_iter) if d in n.offset_dims else next(batch_iter)
                              for d in range(rank)])]

    def evaluate(operands, attributes, regions, result_types):
        x, indices = operands
        n, sizes = attributes["dimension_numbers"], attributes["slice_sizes"]
        rank = len(result_types[0].shape)
        starts, offsets, _ = _full_index(x.shape, indices, n, sizes, rank)
        full = tuple(np.clip(s, 0, e - size) + o for s, o, e, size
                     in zip(starts, offsets, x.shape, sizes, strict=True))
        return [np.broadcast_to(x[full] if full else x, result_types[0].shape)]

    def vjp(cotangents, op, operands, results):
        x, indices = operands
        n, sizes = op.attributes["dimension_numbers"], op.attributes["slice_sizes"]
        zeros = bind("stablehlo.broadcast_in_dim", np.zeros((), x.dtype), shape=tuple(x.shape),
                     broadcast_dimensions=())
        limits = [x.shape[d] - sizes[d] for d in n.start_index_map]
        dtype = as_dtype(indices.dtype)
        if n.index_vector_dim < len(indices.shape):
            shape, dims = tuple(indices.shape), (n.index_vector_dim,)
            high = np.asarray(limits, dtype.numpy)
        else:
            shape, dims, high = tuple(indices.shape), (), np.asarray(limits[0], dtype.numpy)
        high = bind("stablehlo.broadcast_in_dim", high, shape=shape, broadcast_dimensions=dims)
        clamped = bind("stablehlo.clamp", np.zeros((), dtype.numpy), indices, high) \
            if not dims and not high.shape else bind(
                "stablehlo.minimum", bind("stablehlo.maximum", indices, bind(
                    "stablehlo.broadcast_in_dim", np.zeros((), dtype.numpy), shape=shape,
                    broadcast_dimensions=())), high)
        numbers = ScatterDimensionNumbers(
            n.offset_dims, n.collapsed_slice_dims, n.operand_batching_dims,
            n.start_indices_batching_dims, n.start_index_map, n.index_vector_dim)
        return [bind("stablehlo.scatter", zeros, clamped, cotangents[0],
                     scatter_dimension_numbers=numbers,
                     regions=[reducer("add", as_dtype(x.dtype))]), None]

    def batch(op, operands, batched, batch):
        n, sizes = op.attributes["dimension_numbers"], tuple(op.attributes["slice_sizes"])
        many, varied = batched
        # What varies in both is paired; of an operand alone the windows take all examples.
        lead = (0,) if many and varied else ()
        up = later if many else tuple
        up_indices = later if varied else tuple
        numbers = GatherDimensionNumbers(
            offset_dims=later(n.offset_dims) if varied else (0, *later(n.offset_dims)),
            collapsed_slice_dims=up(n.collapsed_slice_dims),
            operand_batching_dims=(*lead, *up(n.operand_batching_dims)),
            start_indices_batching_dims=(*lead, *up_indices(n.start_indices_batching_dims)),
            start_index_map=up(n.start_index_map),
            index_vector_dim=n.index_vector_dim + varied)
        if many:
            sizes = (1 if varied else batch.size, *sizes)
        return batch.bind(op, *operands, dimension_numbers=numbers, slice_sizes=sizes)

    def factors(op):
        return _gather_factors(op.operands[0], op.operands[1], op.result,
                               op.attributes["dimension_numbers"])

    def element(emit, op, index):
        return emit.at(op.operands[0], gather_place(emit, op, index))


def gather_place(emit, op, index) -> list:
    """Code: where in the operand of a gather an element of the result is."""
    x, indices = op.operands
    n, sizes = op.attributes["dimension_numbers"], op.attributes["slice_sizes"]
    batch = [index[d] for d in _batch_dims(len(index), n.offset_dims)]
    kept = [d for d in range(len(sizes))
            if d not in n.collapsed_slice_dims and d not in n.operand_batching_dims]
    place = []
    for d, size in enumerate(sizes):
        start = 0
        if d in n.start_index_map:
            at = list(batch)
            if n.index_vector_dim < len(indices.shape):
                at.insert(n.index_vector_dim, n.start_index_map.index(d))
            raw = emit.to_index(emit.at(indices, at), indices.dtype)
            last = emit.isub(emit.extent(x, d), size)
            start = emit.imax(emit.imin(raw, last), 0)
        elif d in n.operand_batching_dims:
            start = batch[_batch_source(n.operand_batching_dims, n.start_indices_batching_dims,
                                        n.index_vector_dim, d)]
        offset = index[n.offset_dims[kept.index(d)]] if d in kept else 0
        place.append(emit.iadd(start, offset))
    return place


def _gather_factors(x, indices, result, n: GatherDimensionNumbers, reduction=False) -> Factors:
    """Batch dims of indices and result move together; so do whole slice dims of the operand.

    With `reduction` (scatter) the batch dims are summed over instead.
    """
    rank = len(result.shape)
    batch = _batch_dims(rank, n.offset_dims)
    row: list[int | None] = []
    remaining = iter(batch)
    for d in range(len(indices.shape)):
        row.append(None if d == n.index_vector_dim else next(remaining))
    column: list[int | None] = [None] * rank
    for d in batch:
        column[d] = d
    kept = [d for d in range(len(x.shape))
            if d not in n.collapsed_slice_dims and d not in n.operand_batching_dims]
    source: list[int | None] = [None] * len(x.shape)
    for d in kept:
        at = n.offset_dims[kept.index(d)]
        if result.shape[at] == x.shape[d] and d not in n.start_index_map:
            source[d] = column[at] = at
    for d in n.operand_batching_dims:
        source[d] = batch[_batch_source(n.operand_batching_dims, n.start_indices_batching_dims,
                                        n.index_vector_dim, d)]
    if not reduction:
        return Factors([source, row], [column])
    summed = {d: "add" for d in batch if d not in source}
    return Factors([source, row, column], [source], summed, initial=(0,))


@op("stablehlo.scatter")
class Scatter(OpDefinition):
    """Combine update windows into the operand at scatter indices. Operands: input, indices, updates."""

    attributes = {"scatter_dimension_numbers": "scatter_dimension_numbers",
                  "indices_are_sorted": "bool", "unique_indices": "bool"}
    optional = frozenset({"indices_are_sorted", "unique_indices"})
    regions = ("update_computation",)

    def infer(operands, attributes, regions):
        if len(operands) != 3:
            raise UnsupportedError("scatter of several operands at once is not supported yet")
        x, indices, updates = operands
        n = attributes["scatter_dimension_numbers"]
        require(updates.dtype is x.dtype, "C6", f"cannot scatter {updates} into {x}")
        require(indices.dtype.is_integer, "I2", f"scatter needs integer indices, got {indices}")
        batch = [e for d, e in enumerate(indices.shape) if d != n.index_vector_dim]
        _check_numbers("scatter", x, indices, Scatter.as_gather(n), updates.rank)
        sizes = Scatter.window_sizes(x.shape, updates.shape, n)
        require(updates.rank == len(batch) + len(n.update_window_dims)
                and all(isinstance(s, Dim) or isinstance(e, Dim) or s <= e
                        for s, e in zip(sizes, x.shape, strict=True)), "C4",
                f"the windows of {updates} do not fit {x}")
        got = [updates.shape[d] for d in _batch_dims(updates.rank, n.update_window_dims)]
        require(got == batch, "C4", f"updates {updates} do not match indices {indices}")
        return [x]

    @staticmethod
    def as_gather(op_or_numbers) -> GatherDimensionNumbers:
        """The dimension numbers of the gather that reads what this scatter writes."""
        n = op_or_numbers
        return GatherDimensionNumbers(
            n.update_window_dims, n.inserted_window_dims, n.input_batching_dims,
            n.scatter_indices_batching_dims, n.scatter_dims_to_operand_dims, n.index_vector_dim)

    @staticmethod
    def window_sizes(x_shape, updates_shape, n: ScatterDimensionNumbers) -> list:
        """The extent of an update window along each dim of the operand."""
        kept = [d for d in range(len(x_shape))
                if d not in n.inserted_window_dims and d not in n.input_batching_dims]
        return [updates_shape[n.update_window_dims[kept.index(d)]] if d in kept else 1
                for d in range(len(x_shape))]

    def evaluate(operands, attributes, regions, result_types):
        x, indices, updates = operands
        n = attributes["scatter_dimension_numbers"]
        sizes = Scatter.window_sizes(x.shape, updates.shape, n)
        starts, offsets, inside = _full_index(x.shape, indices, Scatter.as_gather(n), sizes,
                                              updates.ndim)
        inside = np.broadcast_to(inside, updates.shape)
        place = tuple(np.broadcast_to(s + o, updates.shape)[inside]
                      for s, o in zip(starts, offsets, strict=True))
        result, values = x.copy(), updates[inside]
        kind = combiner(regions[0])
        body = regions[0]
        if not place:
            for value in updates.reshape(-1):
                x = np.asarray(run_reducer(body, [x], [value])[0], x.dtype)
            return [x]
        if kind is not None:
            COMBINERS[kind].at(result, place, values)
        elif body.returns[0] is body.arguments[1] and not body.ops:
            result[place] = values
        else:
            for k in range(len(values)):
                at = tuple(p[k] for p in place)
                result[at] = run_reducer(body, [result[at]], [values[k]])[0]
        return [result]

    def vjp(cotangents, op, operands, results):
        from .scatter_vjp import RULES

        body = op.regions[0]
        replaces = not body.ops and body.returns[0] is body.arguments[1]
        rule = RULES.get("replace" if replaces else combiner(body) or "")
        if rule is None:
            raise UnsupportedError("no derivative for a scatter with this body", op.location)
        x, updates = rule(cotangents[0], op, operands, results[0])
        return [x, None, updates]

    def batch(op, operands, batched, batch):
        n = op.attributes["scatter_dimension_numbers"]
        (x, indices, updates), varied = operands, batched[1]
        x, updates = batch.spread(x, batched[0]), batch.spread(updates, batched[2])
        lead, window = ((0,), ()) if varied else ((), (0,))
        up_indices = later if varied else tuple
        numbers = ScatterDimensionNumbers(
            update_window_dims=(*window, *later(n.update_window_dims)),
            inserted_window_dims=later(n.inserted_window_dims),
            input_batching_dims=(*lead, *later(n.input_batching_dims)),
            scatter_indices_batching_dims=(*lead, *up_indices(n.scatter_indices_batching_dims)),
            scatter_dims_to_operand_dims=later(n.scatter_dims_to_operand_dims),
            index_vector_dim=n.index_vector_dim + varied)
        return batch.bind(op, x, indices, updates, scatter_dimension_numbers=numbers)

    def factors(op):
        x, indices, updates = op.operands
        n = Scatter.as_gather(op.attributes["scatter_dimension_numbers"])
        if combiner(op.regions[0]) != "add":
            return Factors([(None,) * len(v.shape) for v in op.operands],
                           [(None,) * len(x.shape)])
        return _gather_factors(x, indices, updates, n, reduction=True)

    def kernel(emit, op):
        emit.scatter(op)


def sort_order(op, operands):
    """The positions (i32) along the sorted dim that a sort op takes its elements from."""
    axis = op.attributes.get("dimension", -1) % len(operands[0].shape)
    place = iota_beside(operands[0], TensorType(tuple(operands[0].shape), I32), axis)
    comparator = op.regions[0]
    count = len(comparator.arguments)
    types = [*(a.type for a in comparator.arguments), *[TensorType((), I32)] * 2]
    region = trace_region(
        lambda *scalars: replay(Function("comparator", comparator), scalars[:count]), types)
    results = bind("stablehlo.sort", *operands, place, regions=[region], **op.attributes)
    return results[-1]


@op("stablehlo.sort")
class Sort(OpDefinition):
    """Sort the operands together along `dimension` by the comparator region."""

    attributes = {"dimension": "i64", "is_stable": "bool"}
    optional = frozenset({"dimension", "is_stable"})
    regions = ("comparator",)

    def infer(operands, attributes, regions):
        require(all(x.shape == operands[0].shape for x in operands), "C3",
                f"sort needs operands of one shape, got {' and '.join(map(str, operands))}")
        rank, axis = operands[0].rank, attributes.get("dimension", -1)
        require(-rank <= axis < rank, "C4", f"sort of {operands[0]} along dimension {axis}")
        return list(operands)

    def evaluate(operands, attributes, regions, result_types):
        from functools import cmp_to_key

        from ..ir.evaluator import run_block

        axis = attributes.get("dimension", -1)
        moved = [np.moveaxis(x, axis, -1) for x in operands]
        results = [np.empty_like(m) for m in moved]
        for place in np.ndindex(*moved[0].shape[:-1]):
            rows = [m[place] for m in moved]

            def order(i, j, rows=rows):
                pair = [np.asarray(r[k]) for r in rows for k in (i, j)]
                if run_block(regions[0], pair)[0]:
                    return -1
                swapped = [np.asarray(r[k]) for r in rows for k in (j, i)]
                return 1 if run_block(regions[0], swapped)[0] else 0

            permutation = sorted(range(len(rows[0])), key=cmp_to_key(order))
            for result, row in zip(results, rows, strict=True):
                result[place] = row[permutation]
        return [np.moveaxis(r, -1, axis) for r in results]

    def batch(op, operands, batched, batch):
        axis = op.attributes.get("dimension", -1) % len(op.results[0].shape)
        return batch.bind(op, *batch.spread_all(operands, batched), dimension=axis + 1)

    def factors(op):
        rank = len(op.operands[0].shape)
        axis = op.attributes.get("dimension", -1) % rank
        row = tuple(None if d == axis else d for d in range(rank))
        return Factors([row] * len(op.operands), [row] * len(op.results))

    def vjp(cotangents, op, operands, results):
        from ..numpy import put_along_axis, zeros_like

        axis = op.attributes.get("dimension", -1)
        order = sort_order(op, operands)
        return [None if ct is None else put_along_axis(zeros_like(ct), order, ct, axis)
                for ct in cotangents]

    def kernel(emit, op):
        emit.sort(op)


@op("tfn.first_sorted")
class FirstSorted(OpDefinition):
    """The first `count` elements of what a sort with the same attributes gives (`passes/select.py`)."""

    attributes = {**Sort.attributes, "count": "i64"}
    optional = Sort.optional
    regions = Sort.regions

    def infer(operands, attributes, regions):
        axis = attributes.get("dimension", -1) % operands[0].rank
        return [x.with_shape([attributes["count"] if d == axis else e for d, e in enumerate(x.shape)])
                for x in operands]

    def evaluate(operands, attributes, regions, result_types):
        axis = attributes.get("dimension", -1)
        whole = Sort.evaluate(operands, attributes, regions, result_types)
        return [np.take(r, range(attributes["count"]), axis) for r in whole]

    factors = Sort.factors

    def kernel(emit, op):
        emit.first_sorted(op)
