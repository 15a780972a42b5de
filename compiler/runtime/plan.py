"""The plan: which kernel runs when, and where every value lives.

Values that die inside the program share one arena: a value takes a free slot, a slot grows to its
largest tenant. Sizes and offsets are affine in the symbolic dims, so one plan serves every batch
size. Results live in buffers of their own; a donated argument lends its buffer to its result.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..codegen.kernel import Kernel, emit_kernel
from ..codegen.target import Target
from ..errors import UnsupportedError
from ..ir.core import Function, Op, Value
from ..ir.dims import Dim, Extent
from ..passes.fuse import is_alias

ALIGNMENT = 64
_NOMINAL = 32
"""A size for symbolic dims when slots are compared."""


@dataclass(frozen=True)
class Place:
    """A memory range: a base ("arena", "constant", "argument", "result"), its number, an offset."""

    base: str
    number: int
    offset: Extent = 0


@dataclass(frozen=True)
class Step:
    """One call. `kernel` is a compiled kernel; None is a copy (of `extents[0]` bytes) or, with
    `collective`, a call into the communicator."""

    kernel: Kernel | None
    places: tuple[Place, ...]
    extents: tuple[Extent, ...]
    collective: Op | None = None


@dataclass
class Plan:
    """Steps in order, constants, the size of the arena, and donated (result -> argument) pairs."""

    steps: list[Step] = field(default_factory=list)
    constants: list[np.ndarray] = field(default_factory=list)
    arena_bytes: Extent = 0
    donations: dict[int, int] = field(default_factory=dict)

    def kernels(self) -> list[Kernel]:
        """The distinct kernels, in order of first use."""
        return list({s.kernel.name: s.kernel for s in self.steps if s.kernel}.values())


def make_plan(function: Function, target: Target) -> Plan:
    """The plan of a fused function. Raises `UnsupportedError` for an op that cannot be planned."""
    return _Planner(function, target).run()


def _aligned(size: Extent) -> Extent:
    """`size` rounded up so that every multiple stays aligned, coefficient by coefficient."""
    if isinstance(size, int):
        return -(-size // ALIGNMENT) * ALIGNMENT
    total: Extent = _aligned(max(size.constant, 0))
    for name, coefficient in size.terms:
        total = total + _aligned(max(coefficient, 0)) * Dim.named(name)
    return total


def _larger(a: Extent, b: Extent) -> Extent:
    """An affine bound of both, coefficient by coefficient."""
    terms: dict[str, int] = {}
    constant = 0
    for size in (a, b):
        if isinstance(size, int):
            constant = max(constant, size)
        else:
            constant = max(constant, size.constant)
            for name, coefficient in size.terms:
                terms[name] = max(terms.get(name, 0), coefficient)
    total: Extent = constant
    for name, coefficient in terms.items():
        total = total + coefficient * Dim.named(name)
    return total


def _nominal(size: Extent) -> int:
    return size if isinstance(size, int) else size.evaluate(dict.fromkeys(size.names, _NOMINAL))


class _Planner:
    def __init__(self, function: Function, target: Target):
        self.function, self.target = function, target
        self.plan = Plan()
        self.roots: dict[Value, tuple[Value, Extent]] = {}
        self.places: dict[Value, Place] = {}
        self.slots: list[Extent] = []
        self.last: dict[Value, int] = {}
        self.kernels: dict[Op, Kernel] = {}
        self.scratch: dict[Op, Place] = {}

    def root(self, value: Value) -> tuple[Value, Extent]:
        """The value whose memory `value` is, and the byte offset inside it."""
        return self.roots.get(value, (value, 0))

    def run(self) -> Plan:
        function = self.function
        for i, argument in enumerate(function.arguments):
            self.places[argument] = Place("argument", i)
        steps = []
        for op in function.ops:
            if is_alias(op):
                self._alias(op)
            elif op.name == "stablehlo.constant":
                self._constant(op)
            elif op.name == "tfn.kernel" or op.definition.has_effect:
                steps.append(op)
            else:
                raise UnsupportedError(f"{op.name} cannot be compiled yet", op.location)
        for number, op in enumerate(steps):
            for operand in op.operands:
                self.last[self.root(operand)[0]] = number
        copies = self._results(steps)
        for op in steps:
            if op.name == "tfn.kernel":
                self.kernels[op] = emit_kernel(op, self.target)
        self._arena(steps)
        for op in steps:
            self.plan.steps.append(self._step(op))
        for place, value in copies:
            self.plan.steps.append(
                Step(None, (self.place(value), place), (value.type.nbytes,)))
        return self.plan

    def place(self, value: Value) -> Place:
        root, offset = self.root(value)
        base = self.places[root]
        return Place(base.base, base.number, base.offset + offset)

    def _alias(self, op: Op) -> None:
        root, offset = self.root(op.operands[0])
        if op.name == "stablehlo.slice":
            inner = op.operands[0].type.with_shape(op.operands[0].shape[1:]).nbytes
            start = op.attributes["start_indices"][0]
            offset = offset + (start * inner if isinstance(inner, int) else inner * start)
        self.roots[op.result] = (root, offset)

    def _constant(self, op: Op) -> None:
        value = np.ascontiguousarray(op.attributes["value"])
        self.places[op.result] = Place("constant", len(self.plan.constants))
        self.plan.constants.append(value)

    def _results(self, steps: list[Op]) -> list[tuple[Place, Value]]:
        """Give each result its own buffer; returns the copies needed at the end."""
        made = {r: n for n, op in enumerate(steps) for r in op.results}
        copies, taken = [], set()
        for j, value in enumerate(self.function.returns):
            root, offset = self.root(value)
            place = Place("result", j)
            whole = root in made and isinstance(offset, int) and offset == 0 \
                and root.type.nbytes == value.type.nbytes
            if whole and root not in taken:
                taken.add(root)
                self.places[root] = place
                self.last[root] = len(steps)
            else:
                self.last[root] = len(steps)
                copies.append((place, value))
        self._donate(steps, made, {self.root(v)[0] for _, v in copies})
        return copies

    def _donate(self, steps, made, copied) -> None:
        for i, attributes in enumerate(self.function.argument_attributes):
            j = attributes.get("tf.aliasing_output")
            if j is None:
                continue
            argument = self.function.arguments[i]
            root = self.root(self.function.returns[j])[0]
            if self.places.get(root) != Place("result", j) or argument in copied:
                continue
            producer, last_read = made[root], self.last.get(argument, -1)
            if last_read > producer or (last_read == producer
                                        and not _reads_in_place(steps[producer], argument,
                                                                self.root)):
                continue
            self.plan.donations[j] = i

    def _arena(self, steps: list[Op]) -> None:
        """Slots for everything that lives and dies inside the program."""
        tenants: dict[Value, int] = {}
        free: list[int] = []
        for number, op in enumerate(steps):
            for result in op.results:
                if result in self.places:
                    continue
                size = _aligned(result.type.nbytes)
                tenants[result] = self._slot(size, free)
            scratch = self.kernels[op].scratch_bytes if op in self.kernels else 0
            if scratch != 0:
                slot = self._slot(_aligned(scratch), free)
                self.scratch[op] = Place("slot", slot)
                free.append(slot)
            for value in [v for v in tenants if self.last.get(v, number) <= number]:
                free.append(tenants.pop(value))
                self.places[value] = Place("slot", free[-1])
        for value, slot in tenants.items():
            self.places[value] = Place("slot", slot)
        offsets: list[Extent] = []
        total: Extent = 0
        for size in self.slots:
            offsets.append(total)
            total = total + size
        self.plan.arena_bytes = total
        tables: tuple[dict[Any, Place], ...] = (self.places, self.scratch)
        for table in tables:
            for key, place in table.items():
                if place.base == "slot":
                    table[key] = Place("arena", 0, offsets[place.number])

    def _slot(self, size: Extent, free: list[int]) -> int:
        """The free slot that grows least, or a new one."""
        if not free:
            self.slots.append(size)
            return len(self.slots) - 1
        wanted = _nominal(size)

        def waste(slot: int) -> tuple[int, int]:
            have = _nominal(self.slots[slot])
            return max(0, wanted - have), abs(have - wanted)

        slot = min(free, key=waste)
        free.remove(slot)
        self.slots[slot] = _larger(self.slots[slot], size)
        return slot

    def _step(self, op: Op) -> Step:
        places = tuple(self.place(v) for v in (*op.operands, *op.results))
        if op.name != "tfn.kernel":
            return Step(None, places, (op.operands[0].type.size,), op)
        kernel = self.kernels[op]
        if op in self.scratch:
            places += (self.scratch[op],)
        return Step(kernel, places, kernel.extents)


def _reads_in_place(op: Op, argument: Value, root) -> bool:
    """Does the kernel read `argument` only at the index it writes?"""
    if op.name != "tfn.kernel":
        return False
    block = op.regions[0]
    shapes = {tuple(r.shape) for r in block.returns}
    if shapes != {tuple(argument.shape)}:
        return False
    inside = {a for a, operand in zip(block.arguments, op.operands, strict=True)
              if root(operand)[0] is argument}
    if any(tuple(a.shape) != tuple(argument.shape) for a in inside):
        return False
    return all(getattr(o.definition, "scalar", None) is not None
               and tuple(o.result.shape) == tuple(argument.shape)
               for o in block.ops if any(v in inside for v in o.operands))
