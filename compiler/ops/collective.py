"""Collectives between ranks: all_reduce, all_gather. `distributed` puts them into programs.

A collective is run by a communicator (MPI, or a virtual mesh); the evaluator alone knows one rank.
"""

from __future__ import annotations

import numpy as np

from ..errors import UnsupportedError
from ..trace.core import bind
from .declare import Factors, OpDefinition, op, require
from .reduction import combiner


def _group_size(attributes) -> int:
    return np.asarray(attributes["replica_groups"]).shape[-1]


def _alone(name: str, attributes) -> None:
    if _group_size(attributes) != 1:
        raise UnsupportedError(f"{name} over {_group_size(attributes)} ranks cannot be evaluated on"
                               " one; run the program on a mesh")


class _Collective(OpDefinition):
    has_effect = True

    def factors(op):
        return Factors([(None,) * len(v.shape) for v in op.operands],
                       [(None,) * len(v.shape) for v in op.results])


@op("stablehlo.all_reduce")
class AllReduce(_Collective):
    """Every rank gets the combination of the operand over the ranks of its group."""

    attributes = {"replica_groups": "replica_groups", "channel_handle": "channel_handle",
                  "use_global_device_ids": "unit"}
    optional = frozenset({"channel_handle", "use_global_device_ids"})
    regions = ("computation",)

    def infer(operands, attributes, regions):
        return list(operands)

    def evaluate(operands, attributes, regions, result_types):
        _alone("all_reduce", attributes)
        return list(operands)

    def vjp(cotangents, op, operands, results):
        if combiner(op.regions[0]) != "add":
            raise UnsupportedError("only a summing all_reduce has a derivative", op.location)
        return [bind("stablehlo.all_reduce", cotangents[0], regions=op.regions, **op.attributes)]


@op("stablehlo.all_gather")
class AllGather(_Collective):
    """The operands of the ranks of a group one after the other along `all_gather_dim`."""

    attributes = {"all_gather_dim": "i64", "replica_groups": "replica_groups",
                  "channel_handle": "channel_handle", "use_global_device_ids": "unit"}
    optional = frozenset({"channel_handle", "use_global_device_ids"})

    def infer(operands, attributes, regions):
        (x,), dim = operands, attributes["all_gather_dim"]
        require(0 <= dim < x.rank, "C1", f"all_gather along {dim} of {x}")
        return [x.with_shape([n * _group_size(attributes) if d == dim else n
                              for d, n in enumerate(x.shape)])]

    def evaluate(operands, attributes, regions, result_types):
        _alone("all_gather", attributes)
        return list(operands)
