"""Collectives between processes, and what tells a process which one it is.

`distributed` puts all_reduce and all_gather into programs and runs them through a communicator (MPI,
or a virtual mesh). All collectives also run between the threads of `runtime.processes`, by their
`evaluate` rule; outside of that they know one process.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import UnsupportedError
from ..ir.core import TensorType
from ..ir.dtypes import UI32
from ..runtime.processes import Process, current_process
from ..trace.core import bind
from .declare import Factors, OpDefinition, op, require
from .reduction import combiner, run_reducer

_GROUPS = {"replica_groups": "replica_groups", "channel_handle": "channel_handle"}


def channel(attributes) -> int:
    """The number of the channel; 0: none."""
    handle = attributes.get("channel_handle", 0)
    return int(handle if isinstance(handle, (int, np.integer)) else handle.values["handle"])


def _group_size(attributes) -> int:
    return np.asarray(attributes["replica_groups"]).shape[-1]


def group_of(process: Process, attributes, partitions_only: bool = False) -> list[int]:
    """Ids of the processes in this process's group, in the group's order; [] when it is in none.

    Without a channel the groups are of replicas; with one, of partitions (`partitions_only`), of
    replicas with all their partitions, or of global ids.
    """
    grid = process.grid
    rows = [[int(i) for i in row if i >= 0] for row in np.asarray(attributes["replica_groups"])]
    if not any(rows):
        rows = [list(range(grid.replicas))]
    if not channel(attributes):
        row = next((r for r in rows if process.replica in r), [])
        return [i * grid.partitions + process.partition for i in row]
    if attributes.get("use_global_device_ids"):
        return next((r for r in rows if process.id in r), [])
    if partitions_only:
        row = next((r for r in rows if process.partition in r), [])
        return [process.replica * grid.partitions + i for i in row]
    row = next((r for r in rows if process.replica in r), [])
    return [i * grid.partitions + p for p in range(grid.partitions) for i in row]


def _exchange(name: str, operands, attributes, partitions_only=False) -> list[list[np.ndarray]]:
    """For each operand its values in all processes of the group."""
    process = current_process()
    if process is None:
        if max(_group_size(attributes), 1) != 1:
            raise UnsupportedError(
                f"{name} over {_group_size(attributes)} processes cannot be evaluated by one; run the"
                " program on a mesh")
        return [[o] for o in operands]
    members = group_of(process, attributes, partitions_only)
    rounds = process.exchange(members or [process.id], [np.array(o) for o in operands])
    return [list(values) for values in zip(*rounds, strict=True)]


def _place(attributes, partitions_only=False) -> tuple[int, int]:
    """Place in the group, and its size."""
    process = current_process()
    if process is None:
        return 0, 1
    members = group_of(process, attributes, partitions_only) or [process.id]
    return members.index(process.id), len(members)


class _Collective(OpDefinition):
    has_effect = True

    moved: tuple[str, ...] = ()
    """Attributes that are dims of the operands."""

    @classmethod
    def batch(cls, op, operands, batched, batch):
        a = op.attributes
        changes = {k: a[k] + 1 for k in cls.moved}
        if a.get("types"):
            changes["types"] = tuple(t.with_shape((batch.size, *t.shape)) for t in a["types"])
        return batch.bind(op, *batch.spread_all(operands, batched), **changes)

    def factors(op):
        return Factors([(None,) * len(v.shape) for v in op.operands],
                       [(None,) * len(v.shape) for v in op.results])


class _Hosted(_Collective):
    host = True


def _scaled(x: TensorType, dim: int, multiply: int = 1, divide: int = 1) -> TensorType:
    return x.with_shape([n * multiply // divide if d == dim else n for d, n in enumerate(x.shape)])


def _combined(body, parts: Sequence[np.ndarray]) -> np.ndarray:
    total = parts[0]
    for part in parts[1:]:
        total = run_reducer(body, [total], [part])[0]
    return total


@op("stablehlo.all_reduce")
class AllReduce(_Collective):
    """Every process gets the combination of the operand over the processes of its group."""

    attributes = {**_GROUPS, "use_global_device_ids": "unit"}
    optional = frozenset({"channel_handle", "use_global_device_ids"})
    regions = ("computation",)

    def infer(operands, attributes, regions):
        return list(operands)

    def evaluate(operands, attributes, regions, result_types):
        return [_combined(regions[0], parts)
                for parts in _exchange("all_reduce", operands, attributes)]

    def vjp(cotangents, op, operands, results):
        if combiner(op.regions[0]) != "add":
            raise UnsupportedError("only a summing all_reduce has a derivative", op.location)
        return [bind("stablehlo.all_reduce", cotangents[0], regions=op.regions, **op.attributes)]


@op("stablehlo.all_gather")
class AllGather(_Collective):
    """The operands of the processes of a group one after the other along `all_gather_dim`."""

    moved = ("all_gather_dim",)

    attributes = {"all_gather_dim": "i64", **_GROUPS, "use_global_device_ids": "unit",
                  "types": "result_types"}
    optional = frozenset({"channel_handle", "use_global_device_ids", "types"})

    def infer(operands, attributes, regions):
        dim, size = attributes["all_gather_dim"], _group_size(attributes)
        for x in operands:
            require(0 <= dim < x.rank, "C1", f"all_gather along {dim} of {x}")
        stated = attributes.get("types")
        if stated:  # With a channel the partitions of the replicas gather, too.
            return list(stated)
        return [_scaled(x, dim, multiply=size) for x in operands]

    def evaluate(operands, attributes, regions, result_types):
        return [np.concatenate(parts, attributes["all_gather_dim"])
                for parts in _exchange("all_gather", operands, attributes)]


@op("stablehlo.reduce_scatter")
class ReduceScatter(_Hosted):
    """all_reduce, of which each process keeps its part along `scatter_dimension`."""

    moved = ("scatter_dimension",)

    attributes = {"scatter_dimension": "i64", **_GROUPS, "use_global_device_ids": "unit",
                  "types": "result_types"}
    optional = frozenset({"channel_handle", "use_global_device_ids"})
    regions = ("computation",)

    def infer(operands, attributes, regions):
        (x,), dim = operands, attributes["scatter_dimension"]
        (result,) = attributes["types"]
        require(0 <= dim < x.rank, "C2", f"reduce_scatter along {dim} of {x}")
        require(x.with_shape([1 if d == dim else n for d, n in enumerate(x.shape)])
                == result.with_shape([1 if d == dim else n for d, n in enumerate(result.shape)])
                and x.shape[dim] % max(result.shape[dim], 1) == 0,
                "C8", f"reduce_scatter of {x} along {dim} cannot give {result}")
        return [result]

    def evaluate(operands, attributes, regions, result_types):
        (parts,) = _exchange("reduce_scatter", operands, attributes)
        place, size = _place(attributes)
        total = _combined(regions[0], parts)
        return [np.split(total, size, attributes["scatter_dimension"])[place]]


@op("stablehlo.all_to_all")
class AllToAll(_Hosted):
    """Split along one dim, send part i to the group's process i, join what comes along another."""

    moved = ("split_dimension", "concat_dimension")

    attributes = {"split_dimension": "i64", "concat_dimension": "i64", "split_count": "i64",
                  **_GROUPS}
    optional = frozenset({"channel_handle"})

    def infer(operands, attributes, regions):
        split, join = attributes["split_dimension"], attributes["concat_dimension"]
        count = attributes["split_count"]
        for x in operands:
            require(0 <= split < x.rank, "C1", f"all_to_all splits dim {split} of {x}")
            require(0 <= join < x.rank, "C3", f"all_to_all joins dim {join} of {x}")
            require(count > 0 and x.shape[split] % count == 0, "C2",
                    f"dim {split} of {x} does not divide by {count}")
        return [_scaled(_scaled(x, split, divide=count), join, multiply=count) for x in operands]

    def evaluate(operands, attributes, regions, result_types):
        place, size = _place(attributes, partitions_only=True)
        parts = _exchange("all_to_all", operands, attributes, partitions_only=True)
        return [np.concatenate([np.split(x, size, attributes["split_dimension"])[place]
                                for x in values], attributes["concat_dimension"])
                for values in parts]


@op("stablehlo.collective_broadcast")
class CollectiveBroadcast(_Hosted):
    """Every process gets the operand of one of its group: the first, or what the second operand says.

    A process in no group gets zeros.
    """

    attributes = {**_GROUPS, "has_dynamic_root": "bool"}
    optional = frozenset({"channel_handle", "has_dynamic_root"})

    def infer(operands, attributes, regions):
        return [operands[0]]

    @classmethod
    def batch(cls, op, operands, batched, batch):
        if any(batched[1:]):
            return batch.each(op, operands, batched)
        return batch.bind(op, *operands)

    def evaluate(operands, attributes, regions, result_types):
        process = current_process()
        if process is not None and not group_of(process, attributes, partitions_only=True):
            return [np.zeros_like(operands[0])]
        (parts, *roots) = _exchange("collective_broadcast", operands, attributes,
                                    partitions_only=True)
        if not roots:
            return [parts[0]]
        rows = [[int(i) for i in r if i >= 0] for r in np.asarray(attributes["replica_groups"])]
        mine = 0
        if process is not None and len(roots[0][0]) > 1:
            own = process.partition if channel(attributes) else process.replica
            mine = next(i for i, row in enumerate(rows) if own in row)
        return [parts[int(roots[0][0][mine])]]


@op("stablehlo.collective_permute")
class CollectivePermute(_Hosted):
    """Each target gets the operand of its source; a process that is no target gets zeros."""

    attributes = {"source_target_pairs": "i64_matrix", "channel_handle": "channel_handle"}
    optional = frozenset({"channel_handle"})

    def infer(operands, attributes, regions):
        pairs = np.asarray(attributes["source_target_pairs"]).reshape(-1, 2)
        for column, constraint, what in ((0, "C2", "source"), (1, "C3", "target")):
            require(len(set(pairs[:, column])) == len(pairs), constraint,
                    f"a process is {what} of two pairs in {pairs.tolist()}")
        return list(operands)

    def evaluate(operands, attributes, regions, result_types):
        process = current_process()
        pairs = np.asarray(attributes["source_target_pairs"]).reshape(-1, 2)
        if process is None:
            return list(operands) if [0, 0] in pairs.tolist() else [
                np.zeros_like(o) for o in operands]
        grid = process.grid
        if channel(attributes):
            members = [process.replica * grid.partitions + p for p in range(grid.partitions)]
            own = process.partition
        else:
            members = [r * grid.partitions + process.partition for r in range(grid.replicas)]
            own = process.replica
        parts = process.exchange(members, [np.array(o) for o in operands])
        source = next((int(s) for s, t in pairs if t == own), None)
        return [np.zeros_like(o) for o in operands] if source is None else parts[source]


class _Identity(OpDefinition):
    host = True
    has_effect = True  # Not a constant: each process has its own.

    def infer(operands, attributes, regions):
        return [TensorType((), UI32)]


@op("stablehlo.replica_id")
class ReplicaId(_Identity):
    """Which replica this process is."""

    def evaluate(operands, attributes, regions, result_types):
        process = current_process()
        return [np.uint32(process.replica if process else 0)]


@op("stablehlo.partition_id")
class PartitionId(_Identity):
    """Which partition of its replica this process is."""

    def evaluate(operands, attributes, regions, result_types):
        process = current_process()
        return [np.uint32(process.partition if process else 0)]
