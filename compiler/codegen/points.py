"""Winograd's points: vectors of f32 on their way there and back, and kernels of convolutions there.

Each operation is rounded as it is written, so that the bits are the same wherever a tile lies.
`ops/winograd.py` has the matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ..ir.core import Op, Value
from ..ir.dtypes import F32
from ..ops.winograd import POINTS, TAPS
from .emitter import Emitter
from .shuffle import lane_mask, transpose
from .text import Index, Text, literal
from .work import Work

_PICOSECONDS = 20


class Vector:
    """Vectors of `lanes` f32 in a text."""

    def __init__(self, text: Text, lanes: int):
        self.text, self.lanes = text, lanes
        self.type, self.mask, self._kind = f"<{lanes} x float>", f"<{lanes} x i1>", f"v{lanes}f32"

    def at(self, pointer: str, offset: Index) -> str:
        return pointer if offset == 0 else self.text.inst(
            f"getelementptr float, ptr {pointer}, i64 {offset}")

    def load(self, pointer: str, mask: str | None) -> str:
        if mask is None:
            return self.text.inst(f"load {self.type}, ptr {pointer}, align 4")
        name = f"llvm.masked.load.{self._kind}.p0"
        self.text.declare(f"declare {self.type} @{name}(ptr, i32, {self.mask}, {self.type})")
        return self.text.inst(f"call {self.type} @{name}(ptr {pointer}, i32 4, {self.mask} {mask},"
                              f" {self.type} zeroinitializer)")

    def store(self, value: str, pointer: str, mask: str | None) -> None:
        if mask is None:
            self.text.do(f"store {self.type} {value}, ptr {pointer}, align 4")
            return
        name = f"llvm.masked.store.{self._kind}.p0"
        self.text.declare(f"declare void @{name}({self.type}, ptr, i32, {self.mask})")
        self.text.do(f"call void @{name}({self.type} {value}, ptr {pointer}, i32 4,"
                     f" {self.mask} {mask})")

    def when(self, condition: str, mask: str) -> str:
        """`mask` if the condition holds, else no lane."""
        return self.text.inst(
            f"select i1 {condition}, {self.mask} {mask}, {self.mask} zeroinitializer")

    def add(self, a: str, b: str) -> str:
        return self.text.inst(f"fadd {self.type} {a}, {b}")

    def subtract(self, a: str, b: str) -> str:
        return self.text.inst(f"fsub {self.type} {a}, {b}")

    def times(self, factor: float, a: str) -> str:
        return self.text.inst(f"fmul {self.type} {self._splat(factor)}, {a}")

    def fma(self, factor: float, a: str, b: str) -> str:
        """`factor * a + b`, rounded once."""
        name = f"llvm.fma.{self._kind}"
        self.text.declare(f"declare {self.type} @{name}({self.type}, {self.type}, {self.type})")
        return self.text.inst(f"call {self.type} @{name}({self.type} {self._splat(factor)},"
                              f" {self.type} {a}, {self.type} {b})")

    def _splat(self, number: float) -> str:
        return f"splat (float {literal(number, F32)})"


def both_ways(v: Vector, rule: Callable[[Vector, Sequence[str]], list[str]],
              columns: Iterable[Sequence[str]]) -> list[str]:
    """What a rule makes of the columns of a square, and then of the lines of that; line after line."""
    made = [rule(v, column) for column in columns]
    return [value for line in zip(*made, strict=True) for value in rule(v, line)]


def to_points(v: Vector, x: Sequence[str]) -> list[str]:
    """`ops.winograd.SPREAD` times x."""
    even, odd = v.fma(-4, x[2], x[4]), v.fma(-4, x[1], x[3])
    near, far = v.subtract(x[4], x[2]), v.subtract(x[3], x[1])
    return [v.fma(4, x[0], v.fma(-5, x[2], x[4])), v.add(even, odd), v.subtract(even, odd),
            v.fma(2, far, near), v.fma(-2, far, near), v.fma(4, x[1], v.fma(-5, x[3], x[5]))]


def from_points(v: Vector, m: Sequence[str]) -> list[str]:
    """`ops.winograd.GATHER` times m."""
    one, one_odd = v.add(m[1], m[2]), v.subtract(m[1], m[2])
    two, two_odd = v.add(m[3], m[4]), v.subtract(m[3], m[4])
    return [v.add(v.add(m[0], one), two), v.fma(2, two_odd, one_odd), v.fma(4, two, one),
            v.add(v.fma(8, two_odd, one_odd), m[5])]


def _kernel_to_points(v: Vector, g: Sequence[str]) -> list[str]:
    """`ops.winograd.KERNEL` times g."""
    ends = v.add(g[0], g[2])
    even = v.fma(1 / 24, g[0], v.times(1 / 6, g[2]))
    return [v.times(1 / 4, g[0]), v.times(-1 / 6, v.add(ends, g[1])),
            v.times(-1 / 6, v.subtract(ends, g[1])), v.fma(1 / 12, g[1], even),
            v.fma(-1 / 12, g[1], even), g[2]]


# -- the kernel of a convolution --------------------------------------------------------------------

def winograd_kernel(emit: Emitter, op: Op) -> None:
    """Emit the kernel of a `tfn.winograd_kernel`."""
    emit.finished = True
    _KernelToPoints(emit, op).emit_phase()


class _KernelToPoints:
    """A task is a panel by a vector of inputs: squares of features, of which a line is in memory either
    way, go to the points, and from there to the result, turned over where lines are inputs."""

    def __init__(self, emit: Emitter, op: Op):
        self.emit, self.op, (self.kernel,) = emit, op, op.operands
        self.lanes = emit.target.tile.bits // F32.bits
        self.square = self.lanes * self.lanes
        self.vector = Vector(emit, self.lanes)
        self.turned = op.attributes["turned"]
        _, self.panels, self.inputs, self.columns = _known(op.result)
        _, _, self.height, self.width = _known(self.kernel)
        self.outputs = self.height if self.turned else self.width
        self.vectors = self.columns // self.lanes

    def emit_phase(self) -> None:
        emit, blocks = self.emit, -(-self.inputs // self.lanes)
        work = Work((self.panels, blocks), (), (_PICOSECONDS, POINTS, self.lanes, self.columns))
        with emit.phase(work), emit.loop("%first", "%last") as task, emit.scope():
            self.memory = emit.workspace(POINTS * self.square * self.vectors * F32.itemsize)
            panel, first = emit.idiv(task, blocks), emit.imul(emit.irem(task, blocks), self.lanes)
            count = emit.imin(emit.isub(self.inputs, first), self.lanes)
            with emit.loop(0, self.vectors) as v, emit.scope():
                self._square(v, first, count, emit.iadd(
                    emit.imul(panel, self.columns), emit.imul(v, self.lanes)))
            self._store(panel, first, count)

    def _square(self, v: Index, first: Index, count: Index, output: Index) -> None:
        """The square number `v` of a panel, of `count` inputs from `first` on, in the workspace."""
        emit, vector = self.emit, self.vector
        left = emit.isub(self.outputs, output)
        row, rows, column, columns = (
            (output, left, first, count) if self.turned else (first, count, output, left))
        mask = lane_mask(emit, columns, self.lanes)
        with emit.loop(0, self.lanes) as i, emit.scope():
            line = vector.at(emit.pointers[self.kernel], emit.iadd(
                emit.imul(emit.iadd(row, i), self.width), column))
            place = vector.at(self.memory, emit.iadd(
                emit.imul(v, self.square), emit.imul(i, self.lanes)))
            exists = vector.when(emit.icompare("slt", i, rows), mask)
            for point, value in enumerate(self._at_points(line, exists)):
                vector.store(value, vector.at(place, point * self.square * self.vectors), None)

    def _at_points(self, line: str, mask: str) -> list[str]:
        """A line of neighbouring features of the kernel at the points."""
        vector, taps = self.vector, [range(TAPS)[::-1] if r else range(TAPS)
                                     for r in self.op.attributes["reversed"]]
        return both_ways(vector, _kernel_to_points, (
            [vector.load(vector.at(line, (p * TAPS + q) * self.height * self.width), mask)
             for p in taps[0]] for q in taps[1]))

    def _store(self, panel: Index, first: Index, count: Index) -> None:
        """The squares of the workspace, in their places of the result."""
        emit, vector, lanes = self.emit, self.vector, self.lanes
        target = vector.at(emit.pointers[self.op.result], emit.imul(
            emit.iadd(emit.imul(panel, self.inputs), first), self.columns))
        plane = self.panels * self.inputs * self.columns
        with emit.loop(0, POINTS) as point, emit.scope(), emit.loop(0, self.vectors) as v, emit.scope():
            begin = vector.at(self.memory, emit.imul(
                emit.iadd(emit.imul(point, self.vectors), v), self.square))
            place = vector.at(target, emit.iadd(emit.imul(point, plane), emit.imul(v, lanes)))
            lines = [vector.load(vector.at(begin, i * lanes), None) for i in range(lanes)]
            for i, value in enumerate(transpose(emit, lines, vector.type) if self.turned else lines):
                mask = None if self.inputs % lanes == 0 else vector.when(
                    emit.icompare("slt", i, count), lane_mask(emit, lanes, lanes))
                vector.store(value, vector.at(place, i * self.columns), mask)


def _known(value: Value) -> tuple[int, ...]:
    """A shape of known extents."""
    assert all(isinstance(e, int) for e in value.shape)
    return tuple(value.shape)  # type: ignore[arg-type]
