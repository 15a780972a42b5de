"""Kernels that write where the data says: scatter and select_and_scatter.

Updates are applied one after the other in row-major order, so colliding updates combine in a fixed
order whatever the machine.
"""

from __future__ import annotations

from ..errors import UnsupportedError
from ..ir.core import Op
from ..ops.indexing import Scatter, _batch_dims, _batch_source
from ..ops.reduction import combiner, window_defaults
from .emitter import Emitter
from .text import Index


def _nest(emit: Emitter, value, body, index=()) -> None:
    """Run `body(index)` for every index of `value`, in row-major order."""
    if len(index) == len(value.shape):
        body(list(index))
        return
    with emit.loop(0, emit.extent(value, len(index))) as i, emit.scope():
        _nest(emit, value, body, (*index, i))


def _when(emit: Emitter, conditions: list[str], body) -> None:
    """Run `body()` when all conditions hold."""
    if not conditions:
        body()
        return
    inside, after = emit.fresh("inside"), emit.fresh("after")
    emit.do(f"br i1 {emit.all(conditions)}, label %{inside}, label %{after}")
    emit.block(inside)
    with emit.scope():
        body()
    emit.do(f"br label %{after}")
    emit.block(after)


def scatter(emit: Emitter, op: Op) -> None:
    """Copy the operand to the result, then combine each in-bounds update into it."""
    x, indices, updates = op.operands
    n = Scatter.as_gather(op.attributes["scatter_dimension_numbers"])
    result, body = op.result, op.regions[0]
    _nest(emit, result, lambda index: emit.store_to(
        emit.pointer(result, index), result.dtype, emit.at(x, index)))
    sizes = Scatter.window_sizes(
        [emit.extent(x, d) for d in range(len(x.shape))],
        [emit.extent(updates, d) for d in range(len(updates.shape))],
        op.attributes["scatter_dimension_numbers"])
    kept = [d for d in range(len(x.shape))
            if d not in n.collapsed_slice_dims and d not in n.operand_batching_dims]

    def one(index: list) -> None:
        batch = [index[d] for d in _batch_dims(len(index), n.offset_dims)]
        place, conditions = [], []
        for d in range(len(x.shape)):
            start: Index = 0
            if d in n.start_index_map:
                at = list(batch)
                if n.index_vector_dim < len(indices.shape):
                    at.insert(n.index_vector_dim, n.start_index_map.index(d))
                start = emit.to_index(emit.at(indices, at), indices.dtype)
                last = emit.isub(emit.extent(x, d), sizes[d])
                conditions += [emit.icompare("sge", start, 0),
                               emit.icompare("sle", start, last)]
            elif d in n.operand_batching_dims:
                start = batch[_batch_source(n.operand_batching_dims,
                                            n.start_indices_batching_dims,
                                            n.index_vector_dim, d)]
            offset = index[n.offset_dims[kept.index(d)]] if d in kept else 0
            place.append(emit.iadd(start, offset))

        def combine() -> None:
            pointer = emit.pointer(result, place)
            update = emit.at(updates, index)
            old = emit.load_from(pointer, result.dtype)
            emit.store_to(pointer, result.dtype, emit.region(body, [old, update])[0])

        _when(emit, conditions, combine)

    _nest(emit, updates, one)


def select_and_scatter(emit: Emitter, op: Op) -> None:
    """For each source element find the selected place of its window and combine there."""
    x, source, initial = op.operands
    select, body = op.regions
    if combiner(body) is None:
        raise UnsupportedError("select_and_scatter with a custom scatter body", op.location)
    rank = len(x.shape)
    a = window_defaults({"window_dimensions": (1,) * rank, **op.attributes}, rank)
    result = op.result
    start = emit.at(initial, [])
    _nest(emit, result, lambda index: emit.store_to(
        emit.pointer(result, index), result.dtype, start))
    kind = emit.type(x.dtype)
    best, place = f"%{emit.fresh('best')}", f"%{emit.fresh('place')}"
    emit.entry += [f"  {best} = alloca {kind}, align 8", f"  {place} = alloca i64, align 8"]
    moving = [d for d, w in enumerate(a["window_dimensions"]) if w > 1]

    def one(index: list) -> None:
        emit.do(f"store i64 -1, ptr {place}")

        def window(offsets: tuple) -> None:
            if len(offsets) < len(moving):
                extent = a["window_dimensions"][moving[len(offsets)]]
                with emit.loop(0, extent) as i, emit.scope():
                    window((*offsets, i))
                return
            at, conditions = [], []
            by_dim = dict(zip(moving, offsets, strict=True))
            for d, i in enumerate(index):
                low, high = a["padding"][d]
                j = emit.isub(emit.iadd(emit.imul(i, a["window_strides"][d]), by_dim.get(d, 0)),
                              low)
                if low or high:
                    conditions += [emit.icompare("sge", j, 0),
                                   emit.icompare("slt", j, emit.extent(x, d))]
                at.append(j)

            def consider() -> None:
                candidate = emit.at(x, at)
                position = emit.linear(x, at)
                old = emit.inst(f"load {kind}, ptr {best}")
                chosen = emit.inst(f"load i64, ptr {place}")
                first = emit.icompare("slt", chosen, 0)
                keep = emit.region(select, [old, candidate])[0]
                take = emit.inst(f"or i1 {first}, {emit.inst(f'xor i1 {keep}, true')}")
                value = emit.inst(f"select i1 {take}, {kind} {candidate}, {kind} {old}")
                where = emit.inst(f"select i1 {take}, i64 {position}, i64 {chosen}")
                emit.do(f"store {kind} {value}, ptr {best}")
                emit.do(f"store i64 {where}, ptr {place}")

            _when(emit, conditions, consider)

        emit.do(f"store {kind} {emit.constant(0, x.dtype)}, ptr {best}")
        window(())
        chosen = emit.inst(f"load i64, ptr {place}")

        def add() -> None:
            pointer = emit.inst(f"getelementptr inbounds {result.dtype.storage},"
                                f" ptr {emit.pointers[result]}, i64 {chosen}")
            old = emit.load_from(pointer, result.dtype)
            new = emit.region(body, [old, emit.at(source, index)])[0]
            emit.store_to(pointer, result.dtype, emit.rounded(new, result.dtype))

        _when(emit, [emit.icompare("sge", chosen, 0)], add)

    _nest(emit, source, one)
