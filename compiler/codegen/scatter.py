"""The scatter kernel: it writes where the data says.

Updates are applied one after the other in row-major order, so colliding updates combine in a fixed
order whatever the machine.
"""

from __future__ import annotations

from ..ir.core import Op
from ..ops.indexing import Scatter, _batch_dims, _batch_source
from .emitter import Emitter
from .text import Index


def nest(emit: Emitter, value, body, index=()) -> None:
    """Run `body(index)` for every index of `value`, in row-major order."""
    if len(index) == len(value.shape):
        body(list(index))
        return
    with emit.loop(0, emit.extent(value, len(index))) as i, emit.scope():
        nest(emit, value, body, (*index, i))


def when(emit: Emitter, conditions: list[str], body) -> None:
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
    nest(emit, result, lambda index: emit.store_to(
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

        when(emit, conditions, combine)

    nest(emit, updates, one)
