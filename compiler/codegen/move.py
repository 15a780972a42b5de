"""Runs of neighbouring elements cleared or copied, a vector at a time."""

from __future__ import annotations

from collections.abc import Callable

from ..ir.dtypes import DType
from .emitter import Emitter
from .shuffle import lane_mask
from .text import Index


def place(emit: Emitter, dtype: DType, pointer: str, offset: Index) -> str:
    """The address of the element `offset` after a pointer, which may be none that is used."""
    return pointer if offset == 0 else emit.inst(
        f"getelementptr {dtype.llvm}, ptr {pointer}, i64 {offset}")


def clear_run(emit: Emitter, dtype: DType, lanes: int, target: str, low: Index, high: Index,
              multiple: int = 1) -> None:
    """Zeros in the elements from `low` to before `high`, a `multiple` of so many."""
    _run(emit, dtype, lanes, target, low, high, multiple, lambda i, mask: "zeroinitializer")


def copy_run(emit: Emitter, dtype: DType, lanes: int, source: str, target: str, low: Index,
             high: Index, multiple: int = 1) -> None:
    """The elements from `low` to before `high` of two runs, a `multiple` of so many; source and target
    begin alike."""
    vector, kind = _kind(dtype, lanes)
    emit.declare(f"declare {vector} @llvm.masked.load.{kind}.p0(ptr, i32, <{lanes} x i1>, {vector})")

    def load(i: Index, mask: str | None) -> str:
        pointer = place(emit, dtype, source, i)
        if mask is None:
            return emit.inst(f"load {vector}, ptr {pointer}, align {dtype.itemsize}")
        return emit.inst(f"call {vector} @llvm.masked.load.{kind}.p0(ptr {pointer},"
                         f" i32 {dtype.itemsize}, <{lanes} x i1> {mask}, {vector} zeroinitializer)")

    _run(emit, dtype, lanes, target, low, high, multiple, load)


_VECTORS = (8, 4, 2, 1)
"""Of a round, where no elements are left over."""


def _run(emit: Emitter, dtype: DType, lanes: int, target: str, low: Index, high: Index, multiple: int,
         value: Callable[[Index, str | None], str]) -> None:
    vector, kind = _kind(dtype, lanes)
    emit.declare(f"declare void @llvm.masked.store.{kind}.p0({vector}, ptr, i32, <{lanes} x i1>)")
    step = next((lanes * v for v in _VECTORS if multiple % (lanes * v) == 0), 0)
    if step:
        with emit.loop(low, high, step) as i, emit.scope():
            places = [emit.iadd(i, v) for v in range(0, step, lanes)]
            for at, store in [(at, value(at, None)) for at in places]:
                emit.do(f"store {vector} {store}, ptr {place(emit, dtype, target, at)},"
                        f" align {dtype.itemsize}")
        return
    count = emit.imax(emit.isub(high, low), 0)
    whole = emit.iadd(low, emit.imul(emit.idiv(count, lanes), lanes))
    with emit.loop(low, whole, lanes) as i, emit.scope():
        store = value(i, None)
        emit.do(f"store {vector} {store}, ptr {place(emit, dtype, target, i)}, align {dtype.itemsize}")
    if isinstance(low, int) and isinstance(high, int) and whole == max(high, low):
        return
    mask = lane_mask(emit, emit.isub(high, whole), lanes)
    rest = value(whole, mask)
    emit.do(f"call void @llvm.masked.store.{kind}.p0({vector} {rest},"
            f" ptr {place(emit, dtype, target, whole)}, i32 {dtype.itemsize}, <{lanes} x i1> {mask})")


def _kind(dtype: DType, lanes: int) -> tuple[str, str]:
    """The LLVM type of a vector of elements, narrow ones as integers, and the suffix of intrinsics."""
    if dtype.llvm in ("float", "double"):
        return f"<{lanes} x {dtype.llvm}>", f"v{lanes}f{dtype.bits}"
    return f"<{lanes} x i{dtype.bits}>", f"v{lanes}i{dtype.bits}"
