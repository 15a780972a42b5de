"""The partitioner: a program on global shapes to the program of one rank.

One mesh axis splits the batch. Each op says by its factors which dims move together; from the
arguments' layouts the partitioner follows the split through the program, gives every op its local
shapes, and completes sums over the batch with `all_reduce`. What it cannot split it gathers first or
refuses; it never guesses.

Sums over the batch are reproducible: the batch has a fixed number of logical shards, each is summed
on its own, and the parts are added as a binary tree. A rank holds whole subtrees, so one rank and
several make the same additions and the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..compiler.errors import OpError, UnsupportedError
from ..compiler.ir.core import Block, Function, Op, TensorType, Value
from ..compiler.ir.rewrite import Rewriter, clone_block
from ..compiler.ops.declare import Factors, definition
from ..compiler.ops.reduction import identity_of, reducer
from ..compiler.passes.dce import dce
from ..compiler.passes.fold import fold
from ..compiler.passes.inline import inline
from ..compiler.passes.simplify import simplify, splat
from ..compiler.trace.core import free_values
from .mesh import Layout

LOGICAL_SHARDS = 8
"""Parts a batch is summed in, whatever the number of ranks: at most this many ranks agree in bits."""


def logical_shards(batch: int, ranks: int) -> int | None:
    """How many parts a batch is summed in: the largest power of two up to `LOGICAL_SHARDS` that
    divides it. None when `ranks` cannot share it in whole parts."""
    parts = LOGICAL_SHARDS
    while batch % parts:
        parts //= 2
    return parts if parts % ranks == 0 else None


@dataclass(frozen=True)
class Partitioned:
    """One rank's program. `sharded[i]` is the split dim of result i before it was gathered."""

    function: Function
    collectives: int


def partition(function: Function, layouts: Sequence[Layout], rank: int, shards: int) -> Partitioned:
    """The program of `rank`. Arguments whose layout is sharded come in as this rank's part; results
    are whole on every rank.

    `shards` logical parts make up the batch; the ranks of the mesh divide them. Raises
    `UnsupportedError` with the user's line for a program that cannot be partitioned.
    """
    ranks = layouts[0].mesh.size if layouts else 1
    # Constants must be seen through their broadcasts for `initial` operands to be recognised.
    function = dce(fold(simplify(inline(function))))
    return _Partitioner(function, layouts, rank, ranks, shards).run()


class _Partitioner:
    def __init__(self, function: Function, layouts, rank: int, ranks: int, shards: int):
        self.source, self.rank, self.ranks, self.shards = function, rank, ranks, shards
        self.rewriter = Rewriter(function)
        self.split: dict[Value, int] = {}
        self.collectives = 0
        types = []
        for argument, layout in zip(function.arguments, layouts, strict=True):
            shape = layout.local_shape(argument.shape)
            types.append(argument.type.with_shape(shape))
            if layout.sharded_dim is not None:
                self.split[argument] = layout.sharded_dim
        self.rewriter.block = Block(types)
        self.rewriter.values = dict(
            zip(function.arguments, self.rewriter.block.arguments, strict=True))

    def run(self) -> Partitioned:
        for op in self.source.ops:
            self._op(op)
        source, block = self.source, self.rewriter.block
        block.returns = [self._whole(v) for v in source.returns]
        return Partitioned(
            Function(source.name, block, source.argument_attributes, source.result_attributes,
                     source.public), self.collectives)

    # -- one op -----------------------------------------------------------------------------------

    def _op(self, op: Op) -> None:
        split = [self.split.get(v) for v in op.operands]
        if all(d is None for d in split):
            self._replicated(op)
            return
        if op.regions and op.definition.factors is None:
            raise self._refusal(op, "it has no sharding factors")
        if op.name == "stablehlo.reshape" and self._reshape(op):
            return
        factors = op.definition.rule("factors")(op)
        factor = self._factor(op, factors, split)
        if factor is None:
            self._replicated(op)
        elif factor in factors.reduction:
            self._reduction(op, factors, factor)
        else:
            self._local(op, factors, factor)

    def _factor(self, op: Op, factors: Factors, split) -> int | None:
        """The factor the op is split along: that of its first split operand that has one."""
        for row, d in zip(factors.operands, split, strict=True):
            if d is not None and row[d] is not None:
                return row[d]
        return None

    def _regions(self, op: Op) -> list[Block]:
        """The regions of an op; what they use from outside is whole."""
        outer = dict(self.rewriter.values)
        for region in op.regions:
            outer.update((v, self._whole(v)) for v in free_values(region) if v in self.split)
        return [clone_block(region, outer) for region in op.regions]

    def _replicated(self, op: Op) -> None:
        """Run the op whole on every rank."""
        operands = [self._whole(v) for v in op.operands]
        new = self.rewriter.append(op.definition, operands, [r.type for r in op.results],
                                   op.attributes, self._regions(op), op.location)
        self.rewriter.replace(op, new.results)

    def _reshape(self, op: Op) -> bool:
        """A split outermost dim stays one: a rank's rows are contiguous under both shapes."""
        (x,), result = op.operands, op.result
        if self.split[x] != 0 or not result.shape or result.shape[0] % self.shards \
                or x.shape[0] % self.shards:
            return False
        self._append(op, [self.rewriter[x]], [self._local_type(result.type, 0)])
        self.split[result] = 0
        return True

    def _local(self, op: Op, factors: Factors, factor: int) -> None:
        """The op on this rank's part of the dims of `factor`."""
        operands = [self._part(v, row, factor)
                    for v, row in zip(op.operands, factors.operands, strict=True)]
        types = []
        for result, row in zip(op.results, factors.results, strict=True):
            d = _position(row, factor)
            types.append(result.type if d is None else self._local_type(result.type, d))
            if d is not None:
                self.split[result] = d
        self._append(op, operands, types)

    def _append(self, op: Op, operands: list[Value], types: list[TensorType]) -> None:
        """Add the op with local types, its shape attributes made local, and have it verified."""
        attributes, regions = _localised(op, operands, types), self._regions(op)
        try:
            inferred = op.definition.infer([v.type for v in operands], attributes, regions)
        except OpError as error:
            raise self._refusal(op, error.message) from None
        if list(inferred) != types:
            raise self._refusal(op, f"its local result would be {inferred[0]}, not {types[0]}")
        new = self.rewriter.append(op.definition, operands, types, attributes, regions,
                                   op.location)
        self.rewriter.replace(op, new.results)

    # -- sums over the batch ----------------------------------------------------------------------

    def _reduction(self, op: Op, factors: Factors, factor: int) -> None:
        """The op on each logical shard this rank holds, the parts combined as a tree."""
        kind = factors.reduction[factor]
        if len(op.results) != 1:
            raise self._refusal(op, "it reduces several values together over the batch")
        for i in factors.initial:
            found = splat(self.rewriter[op.operands[i]])
            identity = identity_of(kind, op.operands[i].dtype)
            if found is None or found != identity:
                raise self._refusal(op, f"it starts from a value that is not the identity of"
                                    f" {kind}, which every rank would add")
        parts = []
        for shard in range(self.shards // self.ranks):
            operands = [self._shard(v, row, factor, shard)
                        for v, row in zip(op.operands, factors.operands, strict=True)]
            new = self.rewriter.append(
                op.definition, operands, [op.result.type],
                _localised(op, operands, [op.result.type]), self._regions(op), op.location)
            parts.append(new.result)
        total = self._tree(parts, kind, op)
        self.rewriter.replace(op, [self._across(total, kind, op)])

    def _shard(self, value: Value, row, factor: int, shard: int) -> Value:
        """One logical shard of an operand (all of it, when it has no dim of `factor`)."""
        d = _position(row, factor)
        if d is None:
            return self._whole(value)
        part = self._part(value, row, factor)
        if self.shards // self.ranks > 1:
            size = value.shape[d] // self.shards
            return self._slice(part, d, shard * size, (shard + 1) * size)
        if self.shards == 1:
            return part
        # Slices end kernels; a single shard must end one too, or fusion would round differently.
        return self.rewriter.append(definition("stablehlo.optimization_barrier"), [part]).result

    def _tree(self, parts: list[Value], kind: str, op: Op) -> Value:
        """Combine neighbours, then neighbours of those, and so on."""
        while len(parts) > 1:
            parts = [self.rewriter.append(definition(f"stablehlo.{kind}"), pair,
                                          location=op.location).result
                     for pair in zip(parts[::2], parts[1::2], strict=True)]
        return parts[0]

    def _across(self, value: Value, kind: str, op: Op) -> Value:
        """Combine the ranks' subtrees: the upper levels of the same tree."""
        if self.ranks == 1:
            return value
        self.collectives += 1
        groups = np.arange(self.ranks).reshape(1, -1)
        extreme = kind in ("maximum", "minimum")
        if (self.ranks == 2 or kind not in ("add", "multiply")) and not (
                extreme and value.dtype.is_float):
            # Two operands commute, and bits and extremes do not round: any order gives the same. But
            # an MPI library may lose a NaN in a maximum.
            return self.rewriter.append(
                definition("stablehlo.all_reduce"), [value], None, {"replica_groups": groups},
                [reducer(kind, value.dtype)], op.location).result
        row = self.rewriter.append(
            definition("stablehlo.reshape"), [value], None, {"shape": (1, *value.shape)},
            location=op.location).result
        rows = self._gather(row, 0, op.location)
        parts = []
        for i in range(self.ranks):
            one = self._slice(rows, 0, i, i + 1)
            parts.append(self.rewriter.append(
                definition("stablehlo.reshape"), [one], None, {"shape": tuple(value.shape)},
                location=op.location).result)
        return self._tree(parts, kind, op)

    # -- moving values ----------------------------------------------------------------------------

    def _part(self, value: Value, row, factor: int) -> Value:
        """This rank's part of an operand along its dim of `factor`."""
        d, here = _position(row, factor), self.split.get(value)
        if d is None:
            return self._whole(value)
        if here == d:
            return self.rewriter[value]
        size = self._local_size(value, d)
        return self._slice(self._whole(value), d, self.rank * size, (self.rank + 1) * size)

    def _whole(self, value: Value) -> Value:
        """The value on every rank."""
        d = self.split.get(value)
        if d is None or self.ranks == 1:
            return self.rewriter[value]
        self.collectives += 1
        return self._gather(self.rewriter[value], d, value.op.location if value.op else None)

    def _gather(self, value: Value, d: int, location) -> Value:
        """all_gather along dim `d`: communicators concatenate outermost dims, so `d` goes there."""
        order = [d, *(i for i in range(len(value.shape)) if i != d)]
        back = tuple(int(i) for i in np.argsort(order))
        value = self._transpose(value, tuple(order), location)
        groups = np.arange(self.ranks).reshape(1, -1)
        value = self.rewriter.append(
            definition("stablehlo.all_gather"), [value], None,
            {"all_gather_dim": 0, "replica_groups": groups}, location=location).result
        return self._transpose(value, back, location)

    def _transpose(self, value: Value, permutation: tuple[int, ...], location) -> Value:
        if permutation == tuple(range(len(permutation))):
            return value
        return self.rewriter.append(definition("stablehlo.transpose"), [value], None,
                                    {"permutation": permutation}, location=location).result

    def _slice(self, value: Value, d: int, start: int, limit: int) -> Value:
        if start == 0 and limit == value.shape[d]:
            return value
        rank = len(value.shape)
        attributes = {
            "start_indices": tuple(start if i == d else 0 for i in range(rank)),
            "limit_indices": tuple(limit if i == d else n for i, n in enumerate(value.shape)),
            "strides": (1,) * rank}
        return self.rewriter.append(definition("stablehlo.slice"), [value], None, attributes).result

    def _local_size(self, value: Value, d: int) -> int:
        extent = value.shape[d]
        if not isinstance(extent, int) or extent % self.shards:
            where = value.op.location if value.op else None
            raise UnsupportedError(f"a dim of {extent} cannot be split into {self.shards} equal"
                                   f" parts ({value.type})", where)
        return extent // self.ranks

    def _local_type(self, type: TensorType, d: int) -> TensorType:
        extent = type.shape[d]
        assert isinstance(extent, int)
        if extent % self.ranks:
            raise UnsupportedError(f"a dim of {extent} does not divide over {self.ranks} ranks")
        return type.with_shape([n // self.ranks if i == d else n
                                for i, n in enumerate(type.shape)])

    def _refusal(self, op: Op, why: str) -> UnsupportedError:
        return UnsupportedError(f"{op.name} cannot be split over the batch: {why}; run this part on"
                                " one process", op.location)


def _position(row, factor: int) -> int | None:
    return next((d for d, f in enumerate(row) if f == factor), None)


def _localised(op: Op, operands: Sequence[Value], types: Sequence[TensorType]) -> dict:
    """The attributes of an op that speak of shapes, for its local operands and results."""
    attributes = dict(op.attributes)
    for name, kind in op.definition.attributes.items():
        if name not in attributes:
            continue
        if kind == "result_shape":
            attributes[name] = tuple(types[0].shape)
        elif kind == "result_type":
            attributes[name] = types[0]
    if op.name == "stablehlo.slice":
        attributes["limit_indices"] = tuple(
            local if limit == whole else limit for limit, whole, local in zip(
                attributes["limit_indices"], op.operands[0].shape, operands[0].shape, strict=True))
    elif op.name in ("stablehlo.gather", "stablehlo.dynamic_slice"):
        attributes["slice_sizes"] = tuple(
            local if size == whole else size for size, whole, local in zip(
                attributes["slice_sizes"], op.operands[0].shape, operands[0].shape, strict=True))
    return attributes
