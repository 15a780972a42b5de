"""Running sums, products and extremes along an axis.

Along the innermost dim a vector is combined with itself shifted by 1, 2, 4 ... lanes, then with the
total of all before it; lines are tasks. Along another dim a row of the result is the one before it
combined with a row of the operand; stripes of columns are tasks. No order depends on threads.
"""

from __future__ import annotations

import math

from ..ir.core import Op
from ..ops.reduction import identity_of
from .emitter import Emitter
from .lanes import Lanes
from .text import Index, literal
from .work import Work

_STRIPE = 1024
_PICOSECONDS = 200


def cumulative(emit: Emitter, op: Op) -> None:
    """The kernel of `tfn.cumulative`."""
    _Cumulative(emit, op).emit_phase()


class _Cumulative:
    def __init__(self, emit: Emitter, op: Op):
        self.emit, self.x, self.result = emit, op.operands[0], op.result
        attributes = op.attributes["composite_attributes"]
        self.axis, self.kind = attributes["axis"], attributes["kind"]
        self.length = emit.extent(self.x, self.axis)
        self.lanes = Lanes(emit, self.x.dtype)

    def emit_phase(self) -> None:
        emit, shape, axis = self.emit, self.x.shape, self.axis
        inner = math.prod(e for e in shape[axis + 1:] if isinstance(e, int))
        if axis == len(shape) - 1:
            with emit.phase(Work(tuple(shape[:axis]), cost=(_PICOSECONDS, shape[axis]))):
                if not axis:
                    self._line(0)
                    return
                with emit.loop("%first", "%last") as task, emit.scope():
                    self._line(emit.imul(task, self.length))
            return
        work = Work((*shape[:axis], inner), (*[1] * axis, _STRIPE),
                    (_PICOSECONDS, shape[axis], min(inner, _STRIPE)))
        with emit.phase(work), emit.loop("%first", "%last") as task, emit.scope():
            stripes = max(-(-inner // _STRIPE), 1)
            low = emit.imul(emit.irem(task, stripes), _STRIPE)
            size = emit.imul(self.length, inner)
            self._rows(emit.imul(emit.idiv(task, stripes), size), inner, low,
                       emit.imin(emit.iadd(low, _STRIPE), inner))

    def _combine(self, x: str, y: str) -> str:
        emit, dtype, kind = self.emit, self.x.dtype, self.lanes.kind
        if self.kind in ("add", "multiply"):
            opcode = {"add": "add", "multiply": "mul"}[self.kind]
            return emit.inst(f"{'f' if dtype.is_float else ''}{opcode} {kind} {x}, {y}")
        sign = {"float": "", "int": "s"}.get(dtype.kind, "u")
        word = self.kind if dtype.is_float else self.kind[:3]
        element = {"float": "f", "int": "i"}.get(dtype.kind, "i") + str(dtype.bits)
        name = f"@llvm.{sign}{word}.v{self.lanes.count}{element}"
        emit.declare(f"declare {kind} {name}({kind}, {kind})")
        return emit.inst(f"call {kind} {name}({kind} {x}, {kind} {y})")

    def _neutral(self) -> str:
        dtype = self.x.dtype
        # 0 + -0 is 0: the neutral element of float addition is -0.
        value = -0.0 if self.kind == "add" and dtype.is_float else identity_of(self.kind, dtype)[()]
        return self.lanes.every(dtype.llvm, literal(value, dtype))

    def _shifted(self, x: str, by: int) -> str:
        """The lanes of a vector `by` places on, after neutral ones."""
        count, kind = self.lanes.count, self.lanes.kind
        order = ", ".join(f"i32 {i - by if i >= by else count + i}" for i in range(count))
        return self.emit.inst(f"shufflevector {kind} {x}, {kind} {self._neutral()},"
                              f" <{count} x i32> <{order}>")

    def _line(self, start: Index) -> None:
        emit, lanes = self.emit, self.lanes
        total = emit.cell(lanes.kind)
        emit.do(f"store {lanes.kind} {self._neutral()}, ptr {total}, align 64")

        def vector(i: Index, mask: str | None) -> None:
            place = emit.iadd(start, i)
            x = lanes.load(lanes.place(emit.pointers[self.x], place), mask)
            by = 1
            while by < lanes.count:
                x = self._combine(self._shifted(x, by), x)
                by *= 2
            before = emit.inst(f"load {lanes.kind}, ptr {total}, align 64")
            lanes.store(lanes.place(emit.pointers[self.result], place), self._combine(before, x), mask)
            last = ", ".join([f"i32 {lanes.count - 1}"] * lanes.count)
            sums = emit.inst(f"shufflevector {lanes.kind} {x}, {lanes.kind} poison,"
                             f" <{lanes.count} x i32> <{last}>")
            emit.do(f"store {lanes.kind} {self._combine(before, sums)}, ptr {total}, align 64")

        lanes.run(0, self.length, vector)

    def _rows(self, start: Index, row: int, low: Index, high: Index) -> None:
        emit, lanes = self.emit, self.lanes
        for begin, end in ((0, emit.imin(self.length, 1)), (1, self.length)):
            with emit.loop(begin, end) as i, emit.scope():
                here = emit.iadd(start, emit.imul(i, row))

                def vector(c: Index, mask: str | None, here=here, begin=begin) -> None:
                    place = emit.iadd(here, c)
                    x = lanes.load(lanes.place(emit.pointers[self.x], place), mask)
                    target = emit.pointers[self.result]
                    if begin:
                        before = lanes.load(lanes.place(target, emit.isub(place, row)), mask)
                        x = self._combine(before, x)
                    lanes.store(lanes.place(target, place), x, mask)

                lanes.run(low, high, vector)
