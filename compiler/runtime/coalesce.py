"""Values that share memory: what is copied is made where the copy would go, and a kernel may write over
an operand that nothing needs afterwards.

A straight program (`linear.py`) copies the first state of a loop into it, each new state over the old
one, results into their buffers. Two values may share memory when neither is written while the other is
still to be read: the test by which register allocators merge registers. Loops come before what runs
once, and large values before small ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..codegen.overwrite import overwritable
from ..ir.core import Value
from .linear import Node, Program, is_copy

Pair = tuple[Value, Value]


def coalesce(program: Program, arguments: Sequence[Value], results: Sequence[Pair],
             donated: Sequence[tuple[int, int]]) -> dict[int, int]:
    """Merge the memory of values that are copied to each other or computed in place, and drop those
    copies.

    `results` are values and where they are copied to at the end. `donated` are numbers of an argument
    and of the result that may have its memory; returned are those that do, argument by result. Other
    arguments are never written.
    """
    moves = [_move(number, node) for number, node in enumerate(program.nodes) if is_copy(node)]
    over = [pair for node in program.nodes for pair in _in_place(node)]
    pairs = [pair for pair in (*(pair for _, pair in moves), *over) if _fits(program, *pair)]
    classes = _Classes(program, [place for _, place in results], pairs + [
        (arguments[i], results[j][0]) for i, j in donated])
    classes.pinned.update(arguments)
    lent = {}
    for i, j in donated:
        value, place = results[j]
        classes.pinned.discard(arguments[i])
        if (_fits(program, arguments[i], value) and classes.merge(value, place)
                and classes.merge(arguments[i], value)):
            lent[j] = i
        else:
            classes.pinned.add(arguments[i])
    fitting = set(pairs)
    depth = _depth(program)
    for _, pair in sorted(moves, key=lambda m: (-depth[m[0]], -m[1][1].type.nominal_bytes)):
        if pair in fitting:
            classes.merge(*pair)
    for pair in over:
        if pair in fitting:
            classes.merge(*pair)
    program.roots.update(classes.shared())
    program.drop({n for n, (source, copy) in moves if program.root(source) == program.root(copy)})
    _fill(program, [place for _, place in results])
    return lent


def _fill(program: Program, results: Sequence[Value]) -> None:
    """Copies of what is made of nothing, such as the zeros a loop begins with, are made in place."""
    fills = {node.writes[0]: node for node in program.nodes
             if node.op is not None and node.op.name == "tfn.kernel"
             and not node.reads and len(node.writes) == 1}
    copied = set()
    for number, node in enumerate(program.nodes):
        if is_copy(node) and node.reads[0] in fills:
            copied.add(fills[node.reads[0]])
            program.nodes[number] = Node(fills[node.reads[0]].op, (), node.writes)
    read = {program.root(v)[0] for v in (*results, *(v for n in program.nodes for v in n.reads))}
    program.drop({number for number, node in enumerate(program.nodes)
                  if node in copied and program.root(node.writes[0])[0] not in read})


def _move(number: int, node: Node) -> tuple[int, Pair]:
    return number, (node.reads[0], node.writes[0])


def _in_place(node: Node) -> list[Pair]:
    """Operands of a kernel and the results that may be written over them."""
    if node.op is None or node.op.name != "tfn.kernel":
        return []
    return [(node.reads[i], node.writes[j]) for i, j in sorted(overwritable(node.op))]


def _fits(program: Program, source: Value, copy: Value) -> bool:
    """Could they be one memory? Each all of its own, of one size, and no constant."""
    for value in (source, copy):
        root, offset = program.root(value)
        if offset != 0 or root.type.nbytes != value.type.nbytes or root in program.constants:
            return False
    return source.type.nbytes == copy.type.nbytes


def _depth(program: Program) -> list[int]:
    """How many loops are around each node."""
    depth = [0] * len(program.nodes)
    for first, last in program.loops:
        for number in range(first, last + 1):
            depth[number] += 1
    return depth


class _Classes:
    """Values that share memory, in sets of bits."""

    def __init__(self, program: Program, results: Sequence[Value], pairs: Sequence[Pair]):
        self.program = program
        self.values: list[Value] = list(dict.fromkeys(
            program.root(v)[0] for pair in pairs for v in pair))
        self.numbers = {v: i for i, v in enumerate(self.values)}
        self.pinned: set[Value] = set()
        """Values that stay alone."""
        self.home = list(range(len(self.values)))
        """The class of each value, and for each class its members and what may not join them."""
        self.members = [1 << i for i in self.home]
        self.conflicts = [0] * len(self.home)
        self.last: dict[tuple[int, int], list[Node]] = {}
        """Nodes that write one value and are the last to read another. They may share memory if each is
        a kernel that reads each element where it writes it."""
        self._scan(self._bits(results))

    def merge(self, a: Value, b: Value) -> bool:
        """Let two values share memory, with all that share theirs; False when they must not."""
        a, b = (self.program.root(v)[0] for v in (a, b))
        if a is b:
            return True
        if a in self.pinned or b in self.pinned:
            return False
        x, y = (self._class(self.numbers[v]) for v in (a, b))
        if x == y:
            return True
        if (self.conflicts[x] & self.members[y] or self.conflicts[y] & self.members[x]
                or not self._in_place(x, y) or not self._in_place(y, x)):
            return False
        self.home[y] = x
        self.members[x] |= self.members[y]
        self.conflicts[x] |= self.conflicts[y]
        return True

    def shared(self) -> dict[Value, tuple[Value, int]]:
        """Value -> what has its memory, for all that share another's."""
        return {value: (self.values[self._class(i)], 0) for i, value in enumerate(self.values)
                if self._class(i) != i}

    def _class(self, number: int) -> int:
        while self.home[number] != number:
            number = self.home[number]
        return number

    def _in_place(self, written: int, read: int) -> bool:
        """May all nodes that write one class and are the last to read the other do it in place?"""
        return all(self._overwrites(node, self.values[w], self.values[r])
                   for w in _split(self.members[written]) for r in _split(self.members[read])
                   for node in self.last.get((w, r), ()))

    def _overwrites(self, node: Node, written: Value, read: Value) -> bool:
        if node.op is None or node.op.name != "tfn.kernel":
            return False
        may, root = overwritable(node.op), self.program.root
        return all((i, j) in may for i, operand in enumerate(node.reads) if root(operand)[0] is read
                   for j, result in enumerate(node.writes) if root(result)[0] is written)

    def _bits(self, values: Sequence[Value]) -> int:
        bits = 0
        for value in values:
            number = self.numbers.get(self.program.root(value)[0])
            if number is not None:
                bits |= 1 << number
        return bits

    def _scan(self, at_end: int) -> None:
        """What is still to be read after a node must not be where the node writes."""
        nodes = self.program.nodes
        reads = [self._bits(n.reads) for n in nodes]
        writes = [self._bits(n.writes) for n in nodes]
        # What is made in parts begins with the first of them.
        begun: dict[Value, int] = {}
        makes = [self._bits([v for v in n.writes if self.program.is_whole(v) or begun.setdefault(
            self.program.root(v)[0], number) == number]) for number, n in enumerate(nodes)]
        live = [0] * len(nodes) + [at_end]
        """What is still to be read before each node."""

        def after(number: int) -> int:
            target = nodes[number].target
            if target is None:
                return live[number + 1]
            return live[target.node] | (live[number + 1] if nodes[number].reads else 0)

        changed = True
        while changed:
            changed = False
            for number in reversed(range(len(nodes))):
                found = reads[number] | (after(number) & ~makes[number])
                changed |= found != live[number]
                live[number] = found
            # Without a jump back, what follows is known when it is asked for.
            changed &= bool(self.program.loops)
        for number, node in enumerate(nodes):
            kept = after(number) | writes[number]
            for written in _split(writes[number]):
                others = kept & ~(1 << written)
                if not all(map(self.program.is_whole, node.writes)):
                    self.conflicts[written] |= others | (reads[number] & ~(1 << written))
                    continue
                if is_copy(node):
                    self.conflicts[written] |= others & ~reads[number]
                    continue
                self.conflicts[written] |= others
                for read in _split(reads[number] & ~kept):
                    self.last.setdefault((written, read), []).append(node)
        for given in _split(live[0]):
            self.conflicts[given] |= live[0] & ~(1 << given)


def _split(bits: int) -> Iterator[int]:
    """The numbers in a set of bits."""
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest
