"""Programs as straight lists: control flow becomes copies and jumps, reshapes become aliases.

`while`, `if` and `case` own the buffers of their results. A loop copies its initial state there, its
regions read their arguments from there, and what the body returns is copied back. Which of the copies
need not be is found later (`coalesce.py`).
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, field

import numpy as np

from ..codegen.update import updated
from ..errors import UnsupportedError
from ..ir.core import Block, Op, Value
from ..ir.dims import Extent
from ..passes.fuse import is_alias, part_offsets


@dataclass(eq=False)
class Label:
    """A place to jump to: the number of the node that follows."""

    node: int = -1


@dataclass(eq=False)
class Node:
    """One step: a kernel or collective (`op`), a copy of `reads[0]` to `writes[0]`, or a jump.

    A jump is taken always, or when the integer `reads[0]` is not `unless`.
    """

    op: Op | None
    reads: tuple[Value, ...]
    writes: tuple[Value, ...] = ()
    target: Label | None = None
    unless: int = 0


@dataclass
class Program:
    """Nodes in order, aliases (value -> owner of its memory, byte offset), constants, loops."""

    nodes: list[Node] = field(default_factory=list)
    roots: dict[Value, tuple[Value, Extent]] = field(default_factory=dict)
    constants: dict[Value, np.ndarray] = field(default_factory=dict)
    loops: list[tuple[int, int]] = field(default_factory=list)
    """First and last node of each loop, inner loops first."""

    def root(self, value: Value) -> tuple[Value, Extent]:
        """The value whose memory `value` is, and the byte offset inside it."""
        offset: Extent = 0
        while value in self.roots:
            value, further = self.roots[value]
            offset = offset + further
        return value, offset

    def is_whole(self, value: Value) -> bool:
        """Is a value all of the memory it is in?"""
        root, offset = self.root(value)
        return offset == 0 and root.type.nbytes == value.type.nbytes

    def add(self, op: Op | None, reads: Sequence[Value], writes: Sequence[Value] = (),
            target: Label | None = None, unless: int = 0) -> None:
        self.nodes.append(Node(op, tuple(reads), tuple(writes), target, unless))

    def mark(self, label: Label) -> None:
        label.node = len(self.nodes)

    def drop(self, numbers: Set[int]) -> None:
        """Leave out some nodes."""
        left = [0]
        for number in range(len(self.nodes)):
            left.append(left[-1] + (number not in numbers))
        for label in {n.target for n in self.nodes if n.target is not None}:
            label.node = left[label.node]
        self.loops = [(left[first], left[last + 1] - 1) for first, last in self.loops]
        self.nodes = [n for i, n in enumerate(self.nodes) if i not in numbers]


def is_copy(node: Node) -> bool:
    return node.op is None and node.target is None


def linearise(block: Block, program: Program | None = None) -> Program:
    """The nodes of a fused block. Raises `UnsupportedError` for an op that has no code."""
    program = program or Program()
    for op in block.ops:
        rule = _RULES.get(op.name)
        if rule is not None:
            rule(op, program)
        elif is_alias(op):
            _alias(op, program)
        elif op.name == "tfn.kernel" and updated(op) is not None:
            _update(op, program)
        elif op.name == "tfn.kernel" and _joins(op, program):
            _join(op, program)
        elif op.name == "tfn.kernel" or op.has_effect or op.definition.host:
            program.add(op, op.operands, op.results)
        else:
            raise UnsupportedError(f"{op.name} cannot be compiled yet", op.location)
    return program


def _alias(op: Op, program: Program) -> None:
    for operand, result in zip(op.operands, op.results, strict=True):
        offset: Extent = 0
        if op.name == "stablehlo.slice":
            inner = operand.type.with_shape(operand.shape[1:]).nbytes
            start = op.attributes["start_indices"][0]
            offset = start * inner if isinstance(inner, int) else inner * start
        program.roots[result] = (operand, offset)


def _update(op: Op, program: Program) -> None:
    """The result begins as a copy of what is updated, which is nothing to do in the same memory."""
    number = updated(op)
    assert number is not None
    program.add(None, (op.operands[number],), (op.result,))
    reads = [op.result if i == number else v for i, v in enumerate(op.operands)]
    program.add(op, reads, op.results)


def _joins(kernel: Op, program: Program) -> bool:
    """Is it a concatenation of parts, of which a kernel makes one at least?"""
    block = kernel.regions[0]
    if (len(block.ops) != 1 or block.ops[0].name != "stablehlo.concatenate"
            or part_offsets(block.ops[0]) is None):
        return False
    makers = [program.root(v)[0].op for v in kernel.operands]
    return any(op is not None and op.name == "tfn.kernel" for op in makers)


def _join(kernel: Op, program: Program) -> None:
    """Copy each part into the result."""
    (op,) = kernel.regions[0].ops
    arguments = kernel.regions[0].arguments
    offsets = part_offsets(op)
    assert offsets is not None
    for value, offset in zip(op.operands, offsets, strict=True):
        source = kernel.operands[arguments.index(value)]
        part = Value(source.type, source.owner, -1)
        program.roots[part] = (kernel.result, offset)
        program.add(None, (source,), (part,))


def _constant(op: Op, program: Program) -> None:
    program.constants[op.result] = np.ascontiguousarray(op.attributes["value"])


def _while(op: Op, program: Program) -> None:
    condition, body = op.regions
    state = op.results
    for initial, owner in zip(op.operands, state, strict=True):
        program.add(None, (initial,), (owner,))
    for region in op.regions:
        for argument, owner in zip(region.arguments, state, strict=True):
            program.roots[argument] = (owner, 0)
    start, end = Label(), Label()
    program.mark(start)
    linearise(condition, program)
    program.add(None, condition.returns, (), end, unless=1)
    linearise(body, program)
    _write_back(program, body.returns, state)
    program.add(None, (), (), start)
    program.mark(end)
    program.loops.append((start.node, end.node - 1))


def _write_back(program: Program, values: Sequence[Value], state: Sequence[Value]) -> None:
    """Copy the new state over the old. An old value that moves to another place is saved before
    anything is overwritten."""
    moves = []
    for value, owner in zip(values, state, strict=True):
        if program.root(value) == (owner, 0):
            continue
        if program.root(value)[0] in state:
            saved = Value(value.type, value.owner, -1)
            program.add(None, (value,), (saved,))
            value = saved
        moves.append((value, owner))
    for value, owner in moves:
        program.add(None, (value,), (owner,))


def _branch(op: Op, program: Program, tests: Sequence[int]) -> None:
    """Region k runs when the operand is `tests[k]`; the last one runs otherwise."""
    end = Label()
    for number, region in enumerate(op.regions):
        other = Label()
        if number < len(tests):
            program.add(None, op.operands, (), other, unless=tests[number])
        linearise(region, program)
        for value, owner in zip(region.returns, op.results, strict=True):
            program.add(None, (value,), (owner,))
        if number < len(tests):
            program.add(None, (), (), end)
            program.mark(other)
    program.mark(end)


_RULES = {
    "stablehlo.constant": _constant,
    "stablehlo.while": _while,
    "stablehlo.if": lambda op, program: _branch(op, program, [1]),
    "stablehlo.case": lambda op, program: _branch(op, program, range(len(op.regions) - 1)),
}
