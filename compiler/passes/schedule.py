"""Order: when each kernel runs, so that little memory is needed at once.

A traced train step updates weights at its end, and keeps every gradient until then. Several orders are
tried, each in time linear in the program, and the one that needs least memory is taken; the program's
own if they are equal. Sizes count as liveness has them: what dies is free, results and donated memory
cost nothing.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence

from ..codegen.overwrite import overwritable
from ..ir.core import Function, Op, Value, free_values
from ..ir.rewrite import Rewriter
from .fuse import is_alias
from .regions import CONTROL, REGION


def schedule(function: Function, target=None) -> Function:
    """`function` with its ops in the order that needs the least memory. Regions stay as they are."""
    if function.name == REGION or len(function.ops) < 3:
        return function
    graph = _Graph(function)
    own = list(range(len(function.ops)))
    late = _late(graph)
    orders = [own, _greedy(graph, own, _frees), _greedy(graph, late, _frees),
              _greedy(graph, own, _frees_most)]
    best = min(orders, key=graph.peak)
    if best is own:
        return function
    rewriter = Rewriter(function)
    for number in best:
        rewriter.copy(function.ops[number])
    return rewriter.finish()


class _Graph:
    """Ops by number: which must run before which, and the memory each makes and reads."""

    def __init__(self, function: Function):
        self.function = function
        ops = function.ops
        number = {op: n for n, op in enumerate(ops)}
        self.roots: dict[Value, Value] = {}
        self.before: list[set[int]] = [set() for _ in ops]
        self.reads: list[list[Value]] = []
        """The memory an op reads, each once."""
        self.readers: dict[Value, set[int]] = {}
        effect = None
        for n, op in enumerate(ops):
            values = [*op.operands, *(v for r in op.regions for v in free_values(r))]
            if is_alias(op):
                self.roots.update(zip(op.results, op.operands, strict=True))
            self.before[n].update(number[v.op] for v in values if v.op in number)
            roots = list(dict.fromkeys(map(self.root, values)))
            self.reads.append(roots)
            for root in roots:
                self.readers.setdefault(root, set()).add(n)
            if _has_effect(op):
                if effect is not None:
                    self.before[n].add(effect)
                effect = n
        self.kept = {self.root(v) for v in function.returns}
        self._update_last(number)
        self.makes = [[] if is_alias(op) or op.name == "stablehlo.constant" else
                      [r for r in op.results if r not in self.kept] for op in ops]
        self.over = [self._overwrites(op) for op in ops]

    def root(self, value: Value) -> Value:
        while value in self.roots:
            value = self.roots[value]
        return value

    def size(self, value: Value) -> int:
        """Bytes of memory that the order decides about."""
        inside = value.op is not None and value.op.name != "stablehlo.constant"
        return value.type.nominal_bytes if inside and value not in self.kept else 0

    def _update_last(self, number: dict[Op, int]) -> None:
        """What gets the memory of a donated argument is made after the argument's other readers."""
        function = self.function
        for argument, attributes in zip(function.arguments, function.argument_attributes, strict=True):
            j = attributes.get("tf.aliasing_output")
            maker = None if j is None else self.root(function.returns[j]).op
            if maker in number:
                last = number[maker]
                self.before[last].update(n for n in self.readers.get(argument, ()) if n < last)

    def _overwrites(self, op: Op) -> list[tuple[Value, Value]]:
        if op.name != "tfn.kernel":
            return []
        return [(self.root(op.operands[i]), op.results[j]) for i, j in sorted(overwritable(op))]

    def peak(self, order: Sequence[int]) -> int:
        """The most memory in use while an op runs."""
        left = {root: len(readers) for root, readers in self.readers.items()}
        now = most = 0
        for n in order:
            made = sum(map(self.size, self.makes[n]))
            dying = {r for r in self.reads[n] if left[r] == 1 and self.size(r)}
            spared, taken = 0, set()
            for operand, result in self.over[n]:
                if operand in dying and operand not in taken and result not in taken:
                    taken |= {operand, result}
                    spared += min(self.size(operand), self.size(result))
            now += made
            most = max(most, now - spared)
            for root in self.reads[n]:
                left[root] -= 1
            now -= sum(map(self.size, dying))
            now -= sum(self.size(r) for r in self.makes[n] if r not in self.readers)
        return most


def _has_effect(op: Op) -> bool:
    return op.has_effect or op.definition.host or (op.name in CONTROL and any(
        _has_effect(inner) for region in op.regions for inner in region.walk()))


def _late(graph: _Graph) -> list[int]:
    """The program's order, but what frees nothing by running is made when it is first needed."""
    order: list[int] = []
    done: set[int] = set()

    def run(first: int) -> None:
        stack = [first]
        while stack:
            n = stack[-1]
            waiting = [b for b in graph.before[n] if b not in done]
            if waiting:
                stack += sorted(waiting, reverse=True)
                continue
            stack.pop()
            if n not in done:
                done.add(n)
                order.append(n)

    ops = graph.function.ops
    for n, op in enumerate(ops):
        if any(map(graph.size, graph.reads[n])) or not graph.makes[n] or _has_effect(op):
            run(n)
    for n in range(len(ops)):
        run(n)
    return order


def _frees(change: int, place: int) -> tuple[int, int]:
    """What needs no more memory than it frees at once; all else in its turn."""
    return change > 0, place


def _frees_most(change: int, place: int) -> tuple[int, int]:
    return change, place


def _greedy(graph: _Graph, order: Sequence[int], rank: Callable[[int, int], tuple[int, int]]
            ) -> list[int]:
    """Of the ops that may run, always the lowest by `rank(bytes made less bytes freed, place)`."""
    place = {n: p for p, n in enumerate(order)}
    after: list[list[int]] = [[] for _ in order]
    waits = [len(b) for b in graph.before]
    for n, earlier in enumerate(graph.before):
        for b in earlier:
            after[b].append(n)
    left = {root: set(readers) for root, readers in graph.readers.items()}

    def change(n: int) -> int:
        return (sum(map(graph.size, graph.makes[n]))
                - sum(graph.size(r) for r in graph.reads[n] if len(left[r]) == 1))

    heap = [(*rank(change(n), place[n]), n) for n in order if not waits[n]]
    heapq.heapify(heap)
    done: set[int] = set()
    found: list[int] = []
    while heap:
        n = heapq.heappop(heap)[-1]
        # An op whose operands became its alone is there twice, the better first.
        if n in done:
            continue
        done.add(n)
        found.append(n)
        for root in graph.reads[n]:
            left[root].discard(n)
            if len(left[root]) == 1:
                (reader,) = left[root]
                if not waits[reader]:
                    heapq.heappush(heap, (*rank(change(reader), place[reader]), reader))
        for later in after[n]:
            waits[later] -= 1
            if not waits[later]:
                heapq.heappush(heap, (*rank(change(later), place[later]), later))
    return found
