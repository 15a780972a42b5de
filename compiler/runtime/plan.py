"""The plan: which kernel runs when, and where every value lives.

Values that die inside the program share one arena (`arena.py`). Sizes and offsets are affine in the
symbolic dims, so one plan serves every batch size. Results live in buffers of their own; a donated
argument lends its buffer to its result.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..codegen.kernel import Kernel
from ..codegen.same import Emitted
from ..codegen.target import Target
from ..codegen.work import Work
from ..dump import write_plan
from ..ir.core import Function, Op, Value
from ..ir.dims import Extent
from .arena import Buffer, arrange
from .coalesce import coalesce
from .linear import Node, linearise
from .parts import place_parts
from .pool import pool


@dataclass(frozen=True)
class Place:
    """A memory range: a base ("arena", "constant", "argument", "result"), its number, an offset."""

    base: str
    number: int
    offset: Extent = 0


@dataclass(frozen=True)
class Jump:
    """Go on with step `target`: always, or (with a `width`, the bytes of the integer at the step's
    only place) when that integer is not `unless`."""

    target: int
    unless: int
    width: int


@dataclass(frozen=True)
class Step:
    """One call or jump. `kernel` is a compiled kernel; without any, a step is a copy (a
    byte is a task), a call into the communicator (`collective`) or Python (`host`), or a `jump`."""

    kernel: Kernel | None
    places: tuple[Place, ...]
    extents: tuple[Extent, ...]
    collective: Op | None = None
    host: Op | None = None
    jump: Jump | None = None
    work: Work = field(default_factory=Work)
    phase: int = 0
    """Which of the kernel's phases this is; they follow each other."""
    op: Op | None = None
    """What a kernel computes."""


@dataclass
class Plan:
    """Steps in order, constants, the size of the arena, and donated (result -> argument) pairs."""

    steps: list[Step] = field(default_factory=list)
    constants: list[np.ndarray] = field(default_factory=list)
    arena_bytes: Extent = 0
    donations: dict[int, int] = field(default_factory=dict)
    threads: int = 1
    """How many may run it: each has scratch memory of its own."""

    def kernels(self) -> list[Kernel]:
        """The distinct kernels, in order of first use."""
        return list({s.kernel.name: s.kernel for s in self.steps if s.kernel}.values())


def make_plan(function: Function, target: Target, threads: int | None = None) -> Plan:
    """The plan of a fused function, with scratch memory for `threads` threads (default: those of the
    pool of this process).

    Raises `UnsupportedError` for an op that cannot be planned.
    """
    plan = _Planner(function, target, pool().threads if threads is None else threads).run()
    write_plan(function, plan, target)
    return plan


def residents(function: Function, target: Target) -> list[tuple[Op | None, Buffer]]:
    """What lives in the arena of a fused function: who writes it (None: a copy), its size, and from
    which node to which it is there."""
    planner = _Planner(function, target, pool().threads)
    planner.run()
    nodes = planner.program.nodes
    return [(nodes[b.first].op, b) for b in planner.buffers]


class _Planner:
    def __init__(self, function: Function, target: Target, threads: int):
        self.function, self.target, self.threads = function, target, threads
        self.plan = Plan(threads=threads)
        self.program = linearise(function.body)
        self.places: dict[Value, Place] = {}
        self.last: dict[Value, int] = {}
        self.kernels: dict[Node, Kernel] = {}
        self.scratch: dict[tuple[Node, str], Place] = {}
        self.buffers: list[Buffer] = []
        """What is in the arena."""
        self.numbers: list[int] = []
        """The first step of each node."""

    def root(self, value: Value) -> Value:
        return self.program.root(value)[0]

    def run(self) -> Plan:
        self._share()
        for i, argument in enumerate(self.function.arguments):
            self.places.setdefault(self.root(argument), Place("argument", i))
        for value, array in self.program.constants.items():
            self.places[value] = Place("constant", len(self.plan.constants))
            self.plan.constants.append(array)
        nodes = self.program.nodes
        emitted = Emitted(self.target)
        for node in nodes:
            if node.op is not None and node.op.name == "tfn.kernel":
                self.kernels[node] = emitted.kernel(node.op)
        self._lifetimes(nodes)
        self._arena(nodes)
        total = 0
        for node in nodes:
            self.numbers.append(total)
            total += len(self.kernels[node].phases) if node in self.kernels else 1
        self.numbers.append(total)
        for node in nodes:
            self.plan.steps += self._steps(node)
        return self.plan

    def _share(self) -> None:
        """Copy what is returned to the results, let donated arguments lend them their memory, and drop
        the copies that need not be."""
        function = self.function
        results = [Value(v.type, function.body, -1) for v in function.returns]
        for value, result in zip(function.returns, results, strict=True):
            self.program.add(None, (value,), (result,))
        place_parts(self.program)
        # From a text it is a number of NumPy's.
        donated = [(i, int(j)) for i, attributes in enumerate(function.argument_attributes)
                   for j in [attributes.get("tf.aliasing_output")] if j is not None]
        self.plan.donations = coalesce(self.program, function.arguments,
                                       list(zip(function.returns, results, strict=True)), donated)
        for j, result in enumerate(results):
            self.places[self.root(result)] = Place("result", j)

    def place(self, value: Value) -> Place:
        root, offset = self.program.root(value)
        base = self.places[root]
        return Place(base.base, base.number, base.offset + offset)

    def _lifetimes(self, nodes: list[Node]) -> None:
        """Fill `last`, the last node that needs a value."""
        made: dict[Value, int] = {}
        for number, node in enumerate(nodes):
            for value in node.writes:
                made.setdefault(self.root(value), number)
            for value in (*node.reads, *node.writes):
                self.last[self.root(value)] = number
        # What a loop uses and did not make must survive until its last round.
        for first, end in self.program.loops:
            for value, number in self.last.items():
                if first <= number < end and made.get(value, -1) < first:
                    self.last[value] = end

    def _arena(self, nodes: list[Node]) -> None:
        """Offsets for everything that lives and dies inside the program, and for scratch memory."""
        tenants: list[Value | tuple[Node, str]] = []
        buffers = self.buffers
        for number, node in enumerate(nodes):
            for value in map(self.root, node.writes):
                if value not in self.places:
                    self.places[value] = Place("arena", 0)
                    tenants.append(value)
                    buffers.append(Buffer(value.type.nbytes, number, self.last[value]))
            for name, size in self._scratch_of(node):
                tenants.append((node, name))
                buffers.append(Buffer(size, number, number))
        offsets, self.plan.arena_bytes = arrange(buffers)
        for tenant, offset in zip(tenants, offsets, strict=True):
            if isinstance(tenant, Value):
                self.places[tenant] = Place("arena", 0, offset)
            else:
                self.scratch[tenant] = Place("arena", 0, offset)

    def _scratch_of(self, node: Node) -> list[tuple[str, Extent]]:
        """Name and bytes of the scratch memories a node needs."""
        kernel = self.kernels.get(node)
        if kernel is None:
            return []
        found: list[tuple[str, Extent]] = []
        if kernel.scratch_bytes != 0:
            found.append(("shared", kernel.scratch_bytes))
        if kernel.lane_bytes:
            found.append(("lanes", kernel.lane_bytes * self.threads))
        return found

    def _steps(self, node: Node) -> list[Step]:
        places = tuple(self.place(v) for v in (*node.reads, *node.writes))
        if node.target is not None:
            width = node.reads[0].dtype.itemsize if node.reads else 0
            target = self.numbers[node.target.node]
            return [Step(None, places, (), jump=Jump(target, node.unless, width))]
        if node.op is None:
            source, target_place = places
            return [_copy(source, target_place, node.writes[0])]
        if node.op.definition.host:
            return [Step(None, places, (), host=node.op)]
        if node not in self.kernels:
            return [Step(None, places, (node.op.operands[0].type.size,), node.op)]
        kernel = self.kernels[node]
        places += tuple(self.scratch[node, name] for name, _ in self._scratch_of(node))
        return [Step(kernel, places, kernel.extents, work=work, phase=phase, op=node.op)
                for phase, work in enumerate(kernel.phases)]


def _copy(source: Place, target: Place, value: Value) -> Step:
    return Step(None, (source, target), (), work=Work((value.type.nbytes,), (), (50,)))
