"""Operands of contractions copied into the order in which the micro-kernel reads them."""

from __future__ import annotations

from dataclasses import dataclass

from ..ir.dtypes import DType
from .emitter import Emitter
from .shuffle import lane_mask, transpose
from .text import Index
from .tile import Tile


@dataclass(frozen=True)
class Packer:
    """Copies between places of one dtype. `tile` is that of the micro-kernel; a packed row of b has its
    columns, a packed row of a `a_width` elements."""

    emit: Emitter
    dtype: DType
    tile: Tile

    @property
    def a_lanes(self) -> int:
        return min(1 << (self.tile.rows - 1).bit_length(), self.tile.lanes)

    @property
    def a_width(self) -> int:
        """The tile's rows, rounded up to whole vectors."""
        return -(-self.tile.rows // self.a_lanes) * self.a_lanes

    def at(self, pointer: str, offset: Index) -> str:
        """The address of the element `offset` after a pointer."""
        return pointer if offset == 0 else self.emit.inst(
            f"getelementptr inbounds {self.dtype.storage}, ptr {pointer}, i64 {offset}")

    def panel(self, source: str, target: str, by_k: Index, by_column: Index, depth: Index, left: Index
              ) -> None:
        """`depth` rows of K of a panel of b, `left` columns of which exist.

        Where K is contiguous, whole squares are written: up to `lanes - 1` rows after the last.
        """
        emit, tile = self.emit, self.tile
        width = tile.columns
        if by_column == 1:
            with emit.loop(0, depth) as k, emit.scope():
                for v in range(0, width, tile.lanes):
                    self._move(self.at(source, emit.iadd(emit.imul(k, by_k), v)),
                               self.at(target, emit.iadd(emit.imul(k, width), v)),
                               emit.isub(left, v), tile.lanes)
        elif by_k == 1:
            self._squares(source, target, by_column, depth, left)
        else:
            columns = emit.imin(left, width)
            with emit.loop(0, depth) as k, emit.scope(), emit.loop(0, columns) as j, emit.scope():
                place = self.at(source, emit.iadd(emit.imul(k, by_k), emit.imul(j, by_column)))
                emit.store_to(self.at(target, emit.iadd(emit.imul(k, width), j)), self.dtype,
                              emit.load_from(place, self.dtype))

    def _squares(self, source: str, target: str, by_column: Index, depth: Index, left: Index) -> None:
        """Transposed squares; columns that do not exist repeat the last one."""
        emit, lanes, width = self.emit, self.tile.lanes, self.tile.columns
        vector, kind = self._vector(lanes)
        size = self.dtype.itemsize
        last = emit.isub(left, 1)
        with emit.loop(0, depth, lanes) as k, emit.scope():
            mask = lane_mask(emit, emit.isub(depth, k), lanes)
            for v in range(0, width, lanes):
                rows = []
                for j in range(lanes):
                    column = emit.imin(v + j, last)
                    place = self.at(source, emit.iadd(k, emit.imul(column, by_column)))
                    rows.append(emit.inst(
                        f"call {vector} @llvm.masked.load.{kind}.p0(ptr {place}, i32 {size},"
                        f" <{lanes} x i1> {mask}, {vector} zeroinitializer)"))
                for u, row in enumerate(transpose(emit, rows, vector)):
                    place = self.at(target, emit.iadd(emit.imul(emit.iadd(k, u), width), v))
                    emit.do(f"store {vector} {row}, ptr {place}, align {size}")

    def rows(self, source: str, target: str, by_k: Index, depth: Index, rows: Index, tile_stride: int
             ) -> None:
        """A block of a, whose rows are neighbours in memory, as tiles `[k][rows]` that begin
        `tile_stride` elements apart; in memory order."""
        emit, height = self.emit, self.tile.rows
        with emit.loop(0, depth) as k, emit.scope(), emit.loop(0, rows, height) as r, emit.scope():
            tile = emit.imul(emit.idiv(r, height), tile_stride)
            for v in range(0, self.a_width, self.a_lanes):
                count = emit.imin(emit.isub(emit.isub(rows, r), v), height - v)
                self._move(self.at(source, emit.iadd(emit.imul(k, by_k), emit.iadd(r, v))),
                           self.at(target, emit.iadd(tile, emit.iadd(emit.imul(k, self.a_width), v))),
                           count, self.a_lanes)

    def _vector(self, lanes: int) -> tuple[str, str]:
        """The LLVM type of a vector and its suffix; declares what loads part of one."""
        vector, kind = f"<{lanes} x {self.dtype.llvm}>", f"v{lanes}f{self.dtype.bits}"
        self.emit.declare(f"declare {vector} @llvm.masked.load.{kind}.p0(ptr, i32,"
                          f" <{lanes} x i1>, {vector})")
        return vector, kind

    def _move(self, source: str, target: str, count: Index, lanes: int) -> None:
        """A vector, zeros after its first `count` elements."""
        emit, size = self.emit, self.dtype.itemsize
        vector, kind = self._vector(lanes)
        mask = lane_mask(emit, count, lanes)
        value = emit.inst(f"call {vector} @llvm.masked.load.{kind}.p0(ptr {source}, i32 {size},"
                          f" <{lanes} x i1> {mask}, {vector} zeroinitializer)")
        emit.do(f"store {vector} {value}, ptr {target}, align {size}")
