"""Ops that move elements without computing: constants, iota, reshape, transpose, slice, pad ...

Each `element` rule maps a result index to operand indices; nothing is copied when it is fused into
a consumer. Index arithmetic goes through `emit` (`iadd`, `imul`, ...), which folds Python ints.
"""

from __future__ import annotations

import numpy as np

from ..ir.core import TensorType
from ..ir.dims import Dim, product
from ..ir.dtypes import I32, as_dtype
from ..ir.structs import GatherDimensionNumbers, ScatterDimensionNumbers
from ..trace.core import bind
from .declare import Factors, OpDefinition, Shared, op, require


def later(dims) -> tuple[int, ...]:
    """The dims of an example, counted with the batch dim that leads."""
    return tuple(d + 1 for d in dims)


@op("stablehlo.constant")
class Constant(OpDefinition):
    """A literal. `value` is an ndarray; a splat may be stored with zero strides."""

    attributes = {"value": "dense"}
    pointwise = True

    def infer(operands, attributes, regions):
        value = attributes["value"]
        return [TensorType(value.shape, as_dtype(value.dtype))]

    def evaluate(operands, attributes, regions, result_types):
        return [attributes["value"].view()]

    def vjp(cotangents, op, operands, results):
        return []

    def factors(op):
        return Factors([], [(None,) * len(op.result.shape)])

    def element(emit, op, index):
        return emit.constant_element(op, index)


@op("stablehlo.iota")
class Iota(OpDefinition):
    """0, 1, 2 ... along `iota_dimension`."""

    attributes = {"iota_dimension": "i64", "type": "result_type"}
    pointwise = True

    def infer(operands, attributes, regions):
        type = attributes["type"]
        require(0 <= attributes["iota_dimension"] < type.rank, "C1",
                f"iota along dimension {attributes['iota_dimension']} of {type}")
        return [type]

    def evaluate(operands, attributes, regions, result_types):
        (type,), axis = result_types, attributes["iota_dimension"]
        line = np.arange(type.shape[axis]).astype(type.dtype.numpy)
        shape = [-1 if d == axis else 1 for d in range(type.rank)]
        return [np.broadcast_to(line.reshape(shape), type.shape)]

    def vjp(cotangents, op, operands, results):
        return []

    def factors(op):
        return Factors([], [tuple(range(len(op.result.shape)))])

    def element(emit, op, index):
        return emit.index_to(index[op.attributes["iota_dimension"]], op.result.dtype)


@op("stablehlo.broadcast_in_dim")
class BroadcastInDim(OpDefinition):
    """Operand dim i becomes result dim `broadcast_dimensions[i]`; size 1 stretches."""

    attributes = {"shape": "result_shape", "broadcast_dimensions": "i64_array"}
    pointwise = True

    def infer(operands, attributes, regions):
        (x,), shape, dims = operands, attributes["shape"], attributes["broadcast_dimensions"]
        require(len(dims) == x.rank, "C2",
                f"broadcast_in_dim needs one broadcast dimension per dim of {x}, got {list(dims)}")
        require(len(set(dims)) == len(dims), "C4", f"broadcast_dimensions {list(dims)} repeat")
        for d, extent in zip(dims, x.shape, strict=True):
            require(0 <= d < len(shape), "C3", f"broadcast dimension {d} is outside {list(shape)}")
            require(extent == 1 or extent == shape[d], "C5",
                    f"cannot broadcast {x} to shape {list(map(str, shape))} along {list(dims)}")
        return [x.with_shape(shape)]

    def evaluate(operands, attributes, regions, result_types):
        (x,), shape, dims = operands, result_types[0].shape, attributes["broadcast_dimensions"]
        order = np.argsort(dims, kind="stable")
        aligned = [1] * len(shape)
        for d, extent in zip(dims, x.shape, strict=True):
            aligned[d] = extent
        return [np.broadcast_to(x.transpose(order).reshape(aligned), shape)]

    def vjp(cotangents, op, operands, results):
        (x,), ct = operands, cotangents[0]
        dims = op.attributes["broadcast_dimensions"]
        shape = ct.shape
        stretched = [d for i, d in enumerate(dims) if x.shape[i] == 1 and shape[d] != 1]
        summed = [d for d in range(len(shape)) if d not in dims or d in stretched]
        total = _sum(ct, summed)
        kept = [d for d in range(len(shape)) if d not in summed]
        alive = [d for d in dims if d not in stretched]
        order = [kept.index(d) for d in alive]
        if order != sorted(order):
            total = bind("stablehlo.transpose", total, permutation=tuple(order))
        if tuple(total.shape) != tuple(x.shape):
            total = bind("stablehlo.reshape", total, shape=tuple(x.shape))
        return [total]

    def batch(op, operands, batched, batch):
        dims = (0, *later(op.attributes["broadcast_dimensions"]))
        return batch.bind(op, *operands, shape=(batch.size, *op.attributes["shape"]),
                          broadcast_dimensions=dims)

    def factors(op):
        x, result = op.operands[0], op.result
        dims = op.attributes["broadcast_dimensions"]
        row = [d if extent == result.shape[d] else None
               for d, extent in zip(dims, x.shape, strict=True)]
        return Factors([row], [tuple(range(len(result.shape)))])

    def element(emit, op, index):
        (x,), dims = op.operands, op.attributes["broadcast_dimensions"]
        return emit.at(x, [0 if extent == 1 else index[d]
                           for d, extent in zip(dims, x.shape, strict=True)])


def _sum(x, dims):
    from .reduction import reduce_sum

    return reduce_sum(x, dims) if dims else x


def common_ends(a, b) -> tuple[int, int]:
    """How many leading and trailing extents two shapes share (not counting one twice)."""
    lead = 0
    while lead < min(len(a), len(b)) and a[lead] == b[lead]:
        lead += 1
    tail = 0
    while tail < min(len(a), len(b)) - lead and a[-1 - tail] == b[-1 - tail]:
        tail += 1
    return lead, tail


@op("stablehlo.reshape")
class Reshape(OpDefinition):
    """The same elements in row-major order under another shape."""

    attributes = {"shape": "result_shape"}
    pointwise = True

    def infer(operands, attributes, regions):
        (x,), shape = operands, attributes["shape"]
        require(product(shape) == x.size, "C2",
                f"cannot reshape {x} ({x.size} elements) to ({', '.join(map(str, shape))})"
                f" ({product(shape)} elements)")
        return [x.with_shape(shape)]

    def evaluate(operands, attributes, regions, result_types):
        return [operands[0].reshape(result_types[0].shape)]

    def vjp(cotangents, op, operands, results):
        return [bind("stablehlo.reshape", cotangents[0], shape=tuple(operands[0].shape))]

    def batch(op, operands, batched, batch):
        return batch.bind(op, *operands, shape=(batch.size, *op.attributes["shape"]))

    def factors(op):
        a, b = op.operands[0].shape, op.result.shape
        lead, tail = common_ends(a, b)
        rank = len(b)
        row = [i if i < lead else (rank - len(a) + i if i >= len(a) - tail else None)
               for i in range(len(a))]
        column = [i if i < lead or i >= rank - tail else None for i in range(rank)]
        return Factors([row], [column])

    def element(emit, op, index):
        (x,) = op.operands
        lead, tail = common_ends(x.shape, op.result.shape)
        rank, source_rank = len(index), len(x.shape)
        middle = index[lead:rank - tail]
        linear = 0
        for d, i in enumerate(middle, lead):
            linear = emit.iadd(emit.imul(linear, emit.extent(op.result, d)), i)
        source = []
        for d in reversed(range(lead, source_rank - tail)):
            if d == lead:
                source.append(linear)
            else:
                source.append(emit.irem(linear, emit.extent(x, d)))
                linear = emit.idiv(linear, emit.extent(x, d))
        return emit.at(x, [*index[:lead], *reversed(source), *index[rank - tail:]])


@op("stablehlo.optimization_barrier")
class OptimizationBarrier(OpDefinition):
    """The operands themselves, stored in memory: nothing is fused across."""

    def infer(operands, attributes, regions):
        return list(operands)

    def evaluate(operands, attributes, regions, result_types):
        return list(operands)

    def vjp(cotangents, op, operands, results):
        return list(cotangents)

    def batch(op, operands, batched, batch):
        return [r if b else Shared(r)
                for r, b in zip(batch.bind(op, *operands), batched, strict=True)]

    def factors(op):
        rows, start = [], 0
        for value in op.operands:
            rows.append(tuple(range(start, start + len(value.shape))))
            start += len(value.shape)
        return Factors(rows, rows)


@op("stablehlo.transpose")
class Transpose(OpDefinition):
    """Result dim i is operand dim `permutation[i]`."""

    attributes = {"permutation": "i64_array"}
    pointwise = True

    def infer(operands, attributes, regions):
        (x,), permutation = operands, attributes["permutation"]
        require(sorted(permutation) == list(range(x.rank)), "C2",
                f"{list(permutation)} is not a permutation of the dims of {x}")
        return [x.with_shape([x.shape[d] for d in permutation])]

    def evaluate(operands, attributes, regions, result_types):
        return [operands[0].transpose(attributes["permutation"])]

    def vjp(cotangents, op, operands, results):
        inverse = tuple(int(i) for i in np.argsort(op.attributes["permutation"]))
        return [bind("stablehlo.transpose", cotangents[0], permutation=inverse)]

    def batch(op, operands, batched, batch):
        return batch.bind(op, *operands, permutation=(0, *later(op.attributes["permutation"])))

    def factors(op):
        permutation = op.attributes["permutation"]
        return Factors([tuple(range(len(permutation)))], [tuple(permutation)])

    def element(emit, op, index):
        source = [0] * len(index)
        for d, i in zip(op.attributes["permutation"], index, strict=True):
            source[d] = i
        return emit.at(op.operands[0], source)


@op("stablehlo.slice")
class Slice(OpDefinition):
    """`x[start:limit:stride]` per dim."""

    attributes = {"start_indices": "i64_array", "limit_indices": "i64_array",
                  "strides": "i64_array"}
    pointwise = True

    def infer(operands, attributes, regions):
        (x,) = operands
        starts, limits, strides = (attributes[k] for k in Slice.attributes)
        require(len(starts) == len(limits) == len(strides) == x.rank, "C2",
                f"slice of {x} needs {x.rank} starts, limits and strides")
        shape = []
        for start, limit, stride, extent in zip(starts, limits, strides, x.shape, strict=True):
            require(start >= 0 and start <= limit and limit <= extent, "C3",
                    f"slice [{start}:{limit}:{stride}] is outside a dim of {extent} of {x}")
            require(stride > 0, "C4", f"slice needs positive strides, got {stride}")
            span = limit - start
            shape.append(span if stride == 1 else (span + (stride - 1)) // stride)
        return [x.with_shape(shape)]

    def evaluate(operands, attributes, regions, result_types):
        bounds = zip(*(attributes[k] for k in Slice.attributes), strict=True)
        return [operands[0][tuple(slice(*b) for b in bounds)]]

    def vjp(cotangents, op, operands, results):
        (x,), ct = operands, cotangents[0]
        starts, strides = op.attributes["start_indices"], op.attributes["strides"]
        # The padded result must be exactly as long as x: what the strides skip at the end is high.
        high = [extent - (start + (n - 1) * stride + 1) if not isinstance(n, int) or n else extent
                for extent, start, n, stride
                in zip(x.shape, starts, ct.shape, strides, strict=True)]
        low = [start if not isinstance(n, int) or n else 0
               for start, n in zip(starts, ct.shape, strict=True)]
        interior = tuple(s - 1 for s in strides)
        return [bind("stablehlo.pad", ct, np.zeros((), ct.dtype), edge_padding_low=tuple(low),
                     edge_padding_high=tuple(high), interior_padding=interior)]

    def batch(op, operands, batched, batch):
        whole = {"start_indices": 0, "limit_indices": batch.size, "strides": 1}
        return batch.bind(op, *operands, **{k: (v, *op.attributes[k]) for k, v in whole.items()})

    def factors(op):
        x = op.operands[0]
        row = [d if result == extent and op.attributes["strides"][d] == 1 else None
               for d, (extent, result) in enumerate(zip(x.shape, op.result.shape, strict=True))]
        return Factors([row], [row])

    def element(emit, op, index):
        starts, strides = op.attributes["start_indices"], op.attributes["strides"]
        return emit.at(op.operands[0], [
            emit.iadd(emit.imul(i, stride), emit.dim(start) if isinstance(start, Dim) else start)
            for i, start, stride in zip(index, starts, strides, strict=True)])


@op("stablehlo.pad")
class Pad(OpDefinition):
    """Pad with a scalar at the low and high edge (negative: crop) and between elements."""

    attributes = {"edge_padding_low": "i64_array", "edge_padding_high": "i64_array",
                  "interior_padding": "i64_array"}
    pointwise = True

    def infer(operands, attributes, regions):
        x, value = operands
        low, high, interior = (attributes[k] for k in Pad.attributes)
        require(value.rank == 0 and value.dtype is x.dtype, "C1",
                f"pad needs a scalar {x.dtype} padding value, got {value}")
        require(len(low) == len(high) == len(interior) == x.rank, "C2",
                f"pad of {x} needs {x.rank} low, high and interior amounts")
        require(all(i >= 0 for i in interior), "C3", f"interior padding {interior} is negative")
        shape = []
        for extent, a, b, i in zip(x.shape, low, high, interior, strict=True):
            inner = extent if i == 0 or extent == 0 else (extent - 1) * (i + 1) + 1
            require(inner + a + b >= 0, "C4", f"padding {a}, {b} of {x} leaves a negative size")
            shape.append(inner + a + b)
        return [x.with_shape(shape)]

    def evaluate(operands, attributes, regions, result_types):
        x, value = operands
        result = np.full(result_types[0].shape, value, result_types[0].dtype.numpy)
        target, source = [], []
        for extent, a, out, i in zip(x.shape, attributes["edge_padding_low"], result.shape,
                                     attributes["interior_padding"], strict=True):
            step = i + 1
            first = max(0, -(a // step)) if a < 0 else 0
            last = min(extent, max(first, -((a - out) // step)))
            source.append(slice(first, last))
            start = a + first * step
            target.append(slice(start, start + (last - first - 1) * step + 1 if last > first
                                else start, step))
        if all(s.stop > s.start for s in source):
            result[tuple(target)] = x[tuple(source)]
        elif not x.shape:
            result[()] = x
        return [result]

    def vjp(cotangents, op, operands, results):
        ct = cotangents[0]
        low, high, interior = (op.attributes[k] for k in Pad.attributes)
        unpadded = bind("stablehlo.pad", ct, np.zeros((), ct.dtype),
                        edge_padding_low=tuple(-a for a in low),
                        edge_padding_high=tuple(-b for b in high),
                        interior_padding=(0,) * len(low))
        dx = unpadded
        if any(interior):
            dx = bind("stablehlo.slice", unpadded, start_indices=(0,) * len(low),
                      limit_indices=tuple(unpadded.shape), strides=tuple(i + 1 for i in interior))
        total = _sum(ct, range(len(low))) - _sum(dx, range(len(low)))
        return [dx, total]

    def batch(op, operands, batched, batch):
        x, value = operands
        amounts = {k: (0, *op.attributes[k]) for k in Pad.attributes}
        if not batched[1]:
            return batch.bind(op, x, value, **amounts)
        # Each example has a value of its own: pad with zeros, then put the value where x is not.
        zero = bind("stablehlo.constant", value=np.zeros((), x.dtype))
        padded = batch.bind(op, batch.spread(x, batched[0]), zero, **amounts)
        real = bind("stablehlo.broadcast_in_dim", np.asarray(True), shape=op.operands[0].shape,
                    broadcast_dimensions=())
        real = batch.bind(op, real, np.asarray(False))
        return [bind("stablehlo.select", batch.spread(*real), *padded,
                     batch.align(value, True, op.result.shape))]

    def factors(op):
        low, high, interior = (op.attributes[k] for k in Pad.attributes)
        row = [d if low[d] == high[d] == interior[d] == 0 else None for d in range(len(low))]
        return Factors([row, ()], [row])

    def element(emit, op, index):
        x, value = op.operands
        low, interior = op.attributes["edge_padding_low"], op.attributes["interior_padding"]
        inside, source = [], []
        for d, i in enumerate(index):
            if low[d] == op.attributes["edge_padding_high"][d] == interior[d] == 0:
                source.append(i)
                continue
            j = emit.isub(i, low[d])
            inside.append(emit.icompare("sge", j, 0))
            if interior[d]:
                step = interior[d] + 1
                inside.append(emit.icompare("eq", emit.irem(j, step), 0))
                j = emit.idiv(j, step)
            inside.append(emit.icompare("slt", j, emit.extent(x, d)))
            source.append(j)
        if not inside:
            return emit.at(x, source)
        return emit.conditional(emit.all(inside), op.result.dtype,
                                lambda: emit.at(x, source), lambda: emit.at(value, []))


@op("stablehlo.concatenate")
class Concatenate(OpDefinition):
    """Operands one after the other along `dimension`."""

    attributes = {"dimension": "i64"}
    pointwise = True

    def infer(operands, attributes, regions):
        axis, first = attributes["dimension"], operands[0]
        require(0 <= axis < first.rank, "C4", f"concatenate along {axis} of {first}")
        total = 0
        for x in operands:
            rest = [e for d, e in enumerate(x.shape) if d != axis]
            require(x.rank == first.rank
                    and rest == [e for d, e in enumerate(first.shape) if d != axis], "C2",
                    f"cannot concatenate {' and '.join(map(str, operands))} along dim {axis}")
            require(x.dtype is first.dtype, "C1",
                    f"concatenate needs one dtype, got {' and '.join(map(str, operands))}")
            total = x.shape[axis] + total
        return [first.with_shape([total if d == axis else e for d, e in enumerate(first.shape)])]

    def evaluate(operands, attributes, regions, result_types):
        return [np.concatenate(operands, axis=attributes["dimension"])]

    def vjp(cotangents, op, operands, results):
        axis, ct, start, pieces = op.attributes["dimension"], cotangents[0], 0, []
        for x in operands:
            starts = [0] * len(ct.shape)
            limits = list(ct.shape)
            starts[axis], limits[axis] = start, start + x.shape[axis]
            start = limits[axis]
            pieces.append(bind("stablehlo.slice", ct, start_indices=tuple(starts),
                               limit_indices=tuple(limits), strides=(1,) * len(starts)))
        return pieces

    def batch(op, operands, batched, batch):
        return batch.bind(op, *batch.spread_all(operands, batched),
                          dimension=op.attributes["dimension"] + 1)

    def factors(op):
        axis = op.attributes["dimension"]
        row = [None if d == axis else d for d in range(len(op.result.shape))]
        return Factors([row] * len(op.operands), [row])

    def element(emit, op, index):
        axis = op.attributes["dimension"]

        def pick(operands, i):
            x, rest = operands[0], operands[1:]
            here = [*index[:axis], i, *index[axis + 1:]]
            if not rest:
                return emit.at(x, here)
            size = emit.extent(x, axis)
            return emit.conditional(
                emit.icompare("slt", i, size), op.result.dtype,
                lambda: emit.at(x, here), lambda: pick(rest, emit.isub(i, size)))

        return pick(list(op.operands), index[axis])


@op("stablehlo.reverse")
class Reverse(OpDefinition):
    """Reverse the order along `dimensions`."""

    attributes = {"dimensions": "i64_array"}
    pointwise = True

    def infer(operands, attributes, regions):
        (x,), dims = operands, attributes["dimensions"]
        require(len(set(dims)) == len(dims) and all(0 <= d < x.rank for d in dims), "C2",
                f"reverse of {x} along {list(dims)}")
        return [x]

    def evaluate(operands, attributes, regions, result_types):
        return [np.flip(operands[0], attributes["dimensions"])]

    def vjp(cotangents, op, operands, results):
        return [bind("stablehlo.reverse", cotangents[0], **op.attributes)]

    def batch(op, operands, batched, batch):
        return batch.bind(op, *operands, dimensions=later(op.attributes["dimensions"]))

    def factors(op):
        dims = op.attributes["dimensions"]
        row = [None if d in dims else d for d in range(len(op.result.shape))]
        return Factors([row], [row])

    def element(emit, op, index):
        dims = op.attributes["dimensions"]
        return emit.at(op.operands[0], [
            emit.isub(emit.isub(emit.extent(op.result, d), 1), i) if d in dims else i
            for d, i in enumerate(index)])


@op("stablehlo.get_dimension_size")
class GetDimensionSize(OpDefinition):
    """The extent of `dimension` as an i32 scalar."""

    attributes = {"dimension": "i64"}

    def infer(operands, attributes, regions):
        require(0 <= attributes["dimension"] < operands[0].rank, "C1",
                f"dimension {attributes['dimension']} of {operands[0]}")
        return [TensorType((), I32)]

    def evaluate(operands, attributes, regions, result_types):
        return [np.int32(operands[0].shape[attributes["dimension"]])]

    def vjp(cotangents, op, operands, results):
        return [None]

    def batch(op, operands, batched, batch):
        return [Shared(*batch.bind(op, *operands, dimension=op.attributes["dimension"] + 1))]

    def factors(op):
        return Factors([(None,) * len(op.operands[0].shape)], [()])

    def element(emit, op, index):
        return emit.index_to(emit.extent(op.operands[0], op.attributes["dimension"]), I32)


def _clamped_start(operands, sizes):
    x = operands[0]
    return [int(np.clip(int(s), 0, extent - size))
            for s, extent, size in zip(operands[-x.ndim:] if x.ndim else [], x.shape, sizes,
                                       strict=True)]


def window_start(emit, op, starts, x, sizes):
    """The start of a dynamic slice, clamped so that the window lies inside `x`."""
    result = []
    for d, s in enumerate(starts):
        raw = emit.to_index(emit.at(s, []), s.dtype)
        last = emit.isub(emit.extent(x, d), sizes[d])
        result.append(emit.imax(emit.imin(raw, last), 0))
    return result


def _zero(starts):
    """A start index of the batch dim."""
    return np.zeros((), starts[0].dtype if starts else np.int32)


def _start_vectors(values, starts, batched, batch):
    """The start indices of each example as one row of a matrix."""
    dtypes = {v.dtype for v in values}
    if len(dtypes) > 1:
        starts = [bind("stablehlo.convert", s, dtype=max(dtypes, key=lambda d: d.bits))
                  for s in starts]
    columns = [batch.align(s, b, (1,)) for s, b in zip(starts, batched, strict=True)]
    return bind("stablehlo.concatenate", *columns, dimension=1)


def _window(x, batched: bool, starts, sizes):
    """The windows of a dynamic_slice whose start differs between the examples."""
    dims = tuple(range(len(sizes)))
    lead = (0,) if batched else ()
    numbers = GatherDimensionNumbers(
        offset_dims=later(dims), operand_batching_dims=lead, start_indices_batching_dims=lead,
        start_index_map=later(dims) if batched else dims, index_vector_dim=1)
    return [bind("stablehlo.gather", x, starts, dimension_numbers=numbers,
                 slice_sizes=(1, *sizes) if batched else sizes)]


@op("stablehlo.dynamic_slice")
class DynamicSlice(OpDefinition):
    """A window of `slice_sizes` at run-time start indices, clamped into bounds."""

    attributes = {"slice_sizes": "i64_array"}
    pointwise = True

    def infer(operands, attributes, regions):
        x, starts = operands[0], operands[1:]
        sizes = attributes["slice_sizes"]
        require(len(starts) == x.rank == len(sizes), "C2",
                f"dynamic_slice of {x} needs {x.rank} start indices and sizes")
        require(all(s.rank == 0 and s.dtype.is_integer for s in starts), "C3",
                "start indices of dynamic_slice are integer scalars")
        require(all(0 <= n <= e for n, e in zip(sizes, x.shape, strict=True)), "C4",
                f"slice sizes {list(sizes)} do not fit {x}")
        return [x.with_shape(sizes)]

    def evaluate(operands, attributes, regions, result_types):
        sizes = attributes["slice_sizes"]
        starts = _clamped_start(operands, sizes)
        return [operands[0][tuple(slice(s, s + n) for s, n in zip(starts, sizes, strict=True))]]

    def vjp(cotangents, op, operands, results):
        x, *starts = operands
        zeros = bind("stablehlo.broadcast_in_dim", np.zeros((), x.dtype), shape=tuple(x.shape),
                     broadcast_dimensions=())
        return [bind("stablehlo.dynamic_update_slice", zeros, cotangents[0], *starts),
                *(None for _ in starts)]

    def batch(op, operands, batched, batch):
        x, *starts = operands
        sizes = tuple(op.attributes["slice_sizes"])
        if not any(batched[1:]):
            return batch.bind(op, x, _zero(starts), *starts, slice_sizes=(batch.size, *sizes))
        return _window(x, batched[0], _start_vectors(op.operands[1:], starts, batched[1:], batch),
                       sizes)

    def factors(op):
        x = op.operands[0]
        row = [d if a == b else None
               for d, (a, b) in enumerate(zip(x.shape, op.result.shape, strict=True))]
        return Factors([row, *(() for _ in op.operands[1:])], [row])

    def element(emit, op, index):
        x, *starts = op.operands
        base = window_start(emit, op, starts, x, [emit.extent(op.result, d)
                                                    for d in range(len(index))])
        return emit.at(x, [emit.iadd(i, s) for i, s in zip(index, base, strict=True)])


@op("stablehlo.dynamic_update_slice")
class DynamicUpdateSlice(OpDefinition):
    """`x` with a window replaced by `update` at run-time start indices, clamped into bounds."""

    pointwise = True

    def infer(operands, attributes, regions):
        x, update, starts = operands[0], operands[1], operands[2:]
        require(update.rank == x.rank == len(starts), "C3",
                f"dynamic_update_slice of {x} with {update} needs {x.rank} start indices")
        require(update.dtype is x.dtype, "C2", f"cannot write {update} into {x}")
        require(all(n <= e for n, e in zip(update.shape, x.shape, strict=True)), "C6",
                f"the update {update} does not fit into {x}")
        return [x]

    def evaluate(operands, attributes, regions, result_types):
        x, update, *starts = operands
        first = _clamped_start([x, *starts], update.shape)
        result = np.array(x)
        result[tuple(slice(s, s + n) for s, n in zip(first, update.shape, strict=True))] = update
        return [result]

    def vjp(cotangents, op, operands, results):
        update, *starts = operands[1:]
        ct = cotangents[0]
        zeros = bind("stablehlo.broadcast_in_dim", np.zeros((), ct.dtype),
                     shape=tuple(update.shape), broadcast_dimensions=())
        return [bind("stablehlo.dynamic_update_slice", ct, zeros, *starts),
                bind("stablehlo.dynamic_slice", ct, *starts, slice_sizes=tuple(update.shape)),
                *(None for _ in starts)]

    def batch(op, operands, batched, batch):
        x, update = batch.spread_all(operands[:2], batched[:2])
        starts = operands[2:]
        if not any(batched[2:]):
            return batch.bind(op, x, update, _zero(starts), *starts)
        starts = _start_vectors(op.operands[2:], starts, batched[2:], batch)
        return _write_windows(x, update, starts)

    def factors(op):
        x, update = op.operands[:2]
        row = [d if a == b else None
               for d, (a, b) in enumerate(zip(x.shape, update.shape, strict=True))]
        return Factors([row, row, *(() for _ in op.operands[2:])], [row])

    def element(emit, op, index):
        x, update, *starts = op.operands
        sizes = [emit.extent(update, d) for d in range(len(index))]
        base = window_start(emit, op, starts, x, sizes)
        offset = [emit.isub(i, s) for i, s in zip(index, base, strict=True)]
        inside = [c for o, n in zip(offset, sizes, strict=True)
                  for c in (emit.icompare("sge", o, 0), emit.icompare("slt", o, n))]
        if not inside:
            return emit.at(update, [])
        return emit.conditional(emit.all(inside), op.result.dtype,
                                lambda: emit.at(update, offset), lambda: emit.at(x, index))


def _write_windows(x, update, starts):
    """A dynamic_update_slice whose start differs between the examples; a scatter does not clamp."""
    from .reduction import replacement

    dims = tuple(range(1, len(x.shape)))
    dtype = as_dtype(starts.dtype)
    last = _extents([n - m for n, m in zip(x.shape[1:], update.shape[1:], strict=True)], dtype)
    bounds = [bind("stablehlo.broadcast_in_dim", b, shape=tuple(starts.shape),
                   broadcast_dimensions=tuple(range(1, 1 + len(b.shape))))
              for b in (np.zeros((), dtype.numpy), last)]
    starts = bind("stablehlo.clamp", bounds[0], starts, bounds[1])
    numbers = ScatterDimensionNumbers(
        update_window_dims=dims, input_batching_dims=(0,), scatter_indices_batching_dims=(0,),
        scatter_dims_to_operand_dims=dims, index_vector_dim=1)
    return [bind("stablehlo.scatter", x, starts, update, scatter_dimension_numbers=numbers,
                 unique_indices=True, regions=[replacement(as_dtype(x.dtype))])]


def _extents(extents, dtype):
    """Extents as a vector."""
    return np.asarray([int(n) for n in extents], dtype.numpy)
