"""Collectives over a named axis of `vmap`, before it is known how the axis is laid out.

The transform that made the axis resolves them by their `batch` rule; any other leaves them as they
are. A program in which one is left cannot be run. `trace/axis.py` has the functions for users.
"""

from __future__ import annotations

import numpy as np

from ..errors import UnsupportedError
from ..ir.core import TensorType
from ..ir.dtypes import I32
from ..ir.structs import GatherDimensionNumbers
from ..trace.core import bind
from .declare import Factors, OpDefinition, Shared, op, require
from .reduction import reduce, reduce_sum


class _Named(OpDefinition):
    """`resolve(op, x, batched, batch)` is its meaning on an axis, `shift(op)` its attributes when some
    other axis becomes the leading dim."""

    has_effect = True  # Not a constant, even if its operand is one.

    def factors(op):
        return Factors([(None,) * len(v.shape) for v in op.operands],
                       [(None,) * len(v.shape) for v in op.results])

    @classmethod
    def evaluate(cls, operands, attributes, regions, result_types):
        raise UnsupportedError(f"{cls.name} over {attributes['axis_name']!r} outside of that axis")

    @classmethod
    def batch(cls, op, operands, batched, batch):
        if op.attributes["axis_name"] == batch.name:
            return [cls.resolve(op, *operands, *batched, batch)]
        return batch.bind(op, *operands, **cls.shift(op.attributes))

    @staticmethod
    def shift(attributes) -> dict:
        return {}


@op("tfn.axis_index")
class AxisIndex(_Named):
    """Which member of the axis this is."""

    attributes = {"axis_name": "string"}

    def infer(operands, attributes, regions):
        return [TensorType((), I32)]

    @staticmethod
    def resolve(op, batch):
        return bind("stablehlo.iota", type=TensorType((batch.size,), I32), iota_dimension=0)


@op("tfn.axis_reduce")
class AxisReduce(_Named):
    """The operand combined over all members of the axis; `kind` is a combiner."""

    attributes = {"axis_name": "string", "kind": "string"}

    def infer(operands, attributes, regions):
        return list(operands)

    def vjp(cotangents, op, operands, results):
        ct, name = cotangents[0], op.attributes["axis_name"]
        total = _total(ct, name)
        if op.attributes["kind"] == "add":
            return [total]
        # Members that tie for the extreme share the cotangent.
        chosen = bind("stablehlo.compare", operands[0], results[0], comparison_direction="EQ")
        mask = bind("stablehlo.convert", chosen, dtype=ct.type.dtype)
        return [mask * (total / _total(mask, name))]

    @staticmethod
    def resolve(op, x, batched, batch):
        kind = op.attributes["kind"]
        if batched or kind == "add":
            return Shared(reduce(batch.spread(x, batched), (0,), kind))
        return Shared(x)


def _total(x, name):
    return bind("tfn.axis_reduce", x, axis_name=name, kind="add")


@op("tfn.axis_gather")
class AxisGather(_Named):
    """The operands of all members along a new dim."""

    attributes = {"axis_name": "string", "dimension": "i64", "size": "i64"}

    def infer(operands, attributes, regions):
        (x,), at = operands, attributes["dimension"]
        require(0 <= at <= x.rank, "C1", f"a new dim {at} of {x}")
        return [x.with_shape([*x.shape[:at], attributes["size"], *x.shape[at:]])]

    def vjp(cotangents, op, operands, results):
        at = op.attributes["dimension"]
        parts = bind("tfn.axis_exchange", cotangents[0], axis_name=op.attributes["axis_name"],
                     split_dimension=at, concat_dimension=at)
        return [reduce_sum(parts, (at,))]

    @staticmethod
    def shift(attributes):
        return {"dimension": attributes["dimension"] + 1}

    @staticmethod
    def resolve(op, x, batched, batch):
        from ..trace.batch import move

        return Shared(move(batch.spread(x, batched), 0, op.attributes["dimension"]))


@op("tfn.axis_permute")
class AxisPermute(_Named):
    """Each target of `pairs` gets the operand of its source, others zeros."""

    attributes = {"axis_name": "string", "pairs": "i64_matrix"}

    def infer(operands, attributes, regions):
        return list(operands)

    def vjp(cotangents, op, operands, results):
        back = tuple((t, s) for s, t in op.attributes["pairs"])
        return [bind("tfn.axis_permute", cotangents[0], axis_name=op.attributes["axis_name"],
                     pairs=back)]

    @staticmethod
    def resolve(op, x, batched, batch):
        if not isinstance(batch.size, int):
            raise UnsupportedError(f"ppermute over an axis of symbolic size {batch.size}", op.location)
        source = {t: s for s, t in op.attributes["pairs"]}
        members = range(batch.size)
        x = batch.spread(x, batched)
        numbers = GatherDimensionNumbers(
            offset_dims=tuple(range(1, len(x.shape))), collapsed_slice_dims=(0,),
            start_index_map=(0,), index_vector_dim=1)
        taken = bind("stablehlo.gather", x, np.array([source.get(m, 0) for m in members], np.int32),
                     dimension_numbers=numbers, slice_sizes=(1, *x.shape[1:]))
        if all(m in source for m in members):
            return taken
        shape = tuple(x.shape)
        got = bind("stablehlo.broadcast_in_dim", np.array([m in source for m in members]),
                   shape=shape, broadcast_dimensions=(0,))
        zero = bind("stablehlo.broadcast_in_dim", np.zeros((), x.dtype), shape=shape,
                    broadcast_dimensions=())
        return bind("stablehlo.select", got, taken, zero)


@op("tfn.axis_exchange")
class AxisExchange(_Named):
    """Part i along `split_dimension`, as long as the axis, goes to member i; the parts that come
    become a new `concat_dimension`."""

    attributes = {"axis_name": "string", "split_dimension": "i64", "concat_dimension": "i64"}

    def infer(operands, attributes, regions):
        (x,), split, join = operands, attributes["split_dimension"], attributes["concat_dimension"]
        require(0 <= split < x.rank and 0 <= join < x.rank, "C1", f"dims {split}, {join} of {x}")
        shape = list(x.shape)
        shape.insert(join, shape.pop(split))
        return [x.with_shape(shape)]

    def vjp(cotangents, op, operands, results):
        a = op.attributes
        return [bind("tfn.axis_exchange", cotangents[0], axis_name=a["axis_name"],
                     split_dimension=a["concat_dimension"], concat_dimension=a["split_dimension"])]

    @staticmethod
    def shift(attributes):
        return {k: attributes[k] + 1 for k in ("split_dimension", "concat_dimension")}

    @staticmethod
    def resolve(op, x, batched, batch):
        from ..trace.batch import move

        split, join = op.attributes["split_dimension"], op.attributes["concat_dimension"]
        x = batch.spread(x, batched)
        # The split dim becomes the batch dim, and the batch dim, then second, the new one.
        return move(move(x, split + 1, 0), 1, join + 1)
