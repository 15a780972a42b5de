"""Vectors of neighbouring elements, as registers: narrow floats are f32 there, as in `emitter.py`."""

from __future__ import annotations

from collections.abc import Callable

from ..ir.dtypes import BF16, DType
from .emitter import Emitter
from .shuffle import lane_mask
from .text import Index, register_type


class Lanes:
    """Vectors of `dtype`, a full register of what they are computed as, in one kernel."""

    def __init__(self, emit: Emitter, dtype: DType, count: int = 0):
        self.emit, self.dtype = emit, dtype
        element = register_type(dtype)
        bits = {"float": 32, "double": 64}.get(element) or dtype.bits
        self.count = count or emit.target.tile.bits // max(bits, 8)
        self.kind = f"<{self.count} x {element}>"
        self.stored = f"<{self.count} x {dtype.storage}>"
        self.mask = f"<{self.count} x i1>"

    @staticmethod
    def fit(dtype: DType) -> bool:
        """Are elements of `dtype` numbers that memory holds as vectors do?"""
        return dtype.kind in ("float", "int", "uint") and dtype.bits >= (16 if dtype.is_float else 8)

    def _suffix(self) -> str:
        name = {"float": "f32", "double": "f64", "half": "f16", "bfloat": "bf16"}
        return f"v{self.count}{name.get(self.dtype.storage, self.dtype.storage)}"

    def place(self, pointer: str, offset: Index) -> str:
        """The address of the element `offset` after a pointer."""
        return pointer if offset == 0 else self.emit.inst(
            f"getelementptr {self.dtype.storage}, ptr {pointer}, i64 {offset}")

    def load(self, pointer: str, mask: str | None = None) -> str:
        """The vector at a pointer; lanes outside of the mask are not read."""
        emit, align = self.emit, self.dtype.itemsize
        if mask is None:
            x = emit.inst(f"load {self.stored}, ptr {pointer}, align {align}")
        else:
            name = f"@llvm.masked.load.{self._suffix()}.p0"
            emit.declare(f"declare {self.stored} {name}(ptr, i32, {self.mask}, {self.stored})")
            x = emit.inst(f"call {self.stored} {name}(ptr {pointer}, i32 {align}, {self.mask} {mask},"
                          f" {self.stored} zeroinitializer)")
        if not (self.dtype.is_float and self.dtype.is_narrow):
            return x
        if self.dtype is not BF16:
            return emit.inst(f"fpext {self.stored} {x} to {self.kind}")
        short, word = f"<{self.count} x i16>", f"<{self.count} x i32>"
        bits = emit.inst(f"zext {short} {emit.inst(f'bitcast {self.stored} {x} to {short}')} to {word}")
        shift = self.every("i32", 16)
        return emit.inst(f"bitcast {word} {emit.inst(f'shl {word} {bits}, {shift}')} to {self.kind}")

    def store(self, pointer: str, x: str, mask: str | None = None) -> None:
        """Store a vector that holds values of the dtype, as rounded as they are to be."""
        emit, align = self.emit, self.dtype.itemsize
        if self.dtype is BF16:
            short, word = f"<{self.count} x i16>", f"<{self.count} x i32>"
            shift = self.every("i32", 16)
            bits = emit.inst(f"bitcast {self.kind} {x} to {word}")
            top = emit.inst(f"trunc {word} {emit.inst(f'lshr {word} {bits}, {shift}')} to {short}")
            x = emit.inst(f"bitcast {short} {top} to {self.stored}")
        elif self.kind != self.stored:
            x = emit.inst(f"fptrunc {self.kind} {x} to {self.stored}")
        if mask is None:
            emit.do(f"store {self.stored} {x}, ptr {pointer}, align {align}")
            return
        name = f"@llvm.masked.store.{self._suffix()}.p0"
        emit.declare(f"declare void {name}({self.stored}, ptr, i32, {self.mask})")
        emit.do(f"call void {name}({self.stored} {x}, ptr {pointer}, i32 {align}, {self.mask} {mask})")

    def rounded(self, x: str) -> str:
        """f32 lanes rounded to the narrow float they stand for."""
        emit = self.emit
        if not (self.dtype.is_float and self.dtype.is_narrow):
            return x
        if self.dtype is not BF16:
            near = emit.inst(f"fptrunc {self.kind} {x} to {self.stored}")
            return emit.inst(f"fpext {self.stored} {near} to {self.kind}")
        word = f"<{self.count} x i32>"
        bits = emit.inst(f"bitcast {self.kind} {x} to {word}")
        odd = emit.inst(f"lshr {word} {bits}, {self.every('i32', 16)}")
        odd = emit.inst(f"and {word} {odd}, {self.every('i32', 1)}")
        half = emit.inst(f"add {word} {odd}, {self.every('i32', 32767)}")
        near = emit.inst(f"add {word} {bits}, {half}")
        quiet = emit.inst(f"or {word} {bits}, {self.every('i32', 1 << 22)}")
        nan = emit.inst(f"fcmp uno {self.kind} {x}, {x}")
        chosen = emit.inst(f"select {self.mask} {nan}, {word} {quiet}, {word} {near}")
        top = emit.inst(f"and {word} {chosen}, {self.every('i32', -65536)}")
        return emit.inst(f"bitcast {word} {top} to {self.kind}")

    def every(self, kind: str, value: object) -> str:
        """A vector constant of one number."""
        return "<" + ", ".join([f"{kind} {value}"] * self.count) + ">"

    def splat(self, register: str) -> str:
        """A register of the element's type in every lane."""
        first = self.emit.inst(f"insertelement {self.kind} poison,"
                               f" {register_type(self.dtype)} {register}, i64 0")
        return self.emit.inst(f"shufflevector {self.kind} {first}, {self.kind} poison,"
                              f" <{self.count} x i32> zeroinitializer")

    def run(self, low: Index, high: Index, body: Callable[[Index, str | None], None]) -> None:
        """`body(i, mask)` for the vectors from `low` to before `high`; only the last has a mask."""
        emit = self.emit
        size = emit.imax(emit.isub(high, low), 0)
        whole = emit.iadd(low, emit.imul(emit.idiv(size, self.count), self.count))
        if low != whole:
            with emit.loop(low, whole, self.count) as i, emit.scope():
                body(i, None)
        if isinstance(low, int) and isinstance(high, int) and whole == max(high, low):
            return
        # Not with an empty mask: where a store would fault, the processor takes long to find out.
        with emit.loop(whole, high, self.count) as i, emit.scope():
            body(i, lane_mask(emit, emit.isub(high, i), self.count))
