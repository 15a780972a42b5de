"""The micro-kernel of contractions: a tile of accumulators in registers.

    c[r, j] (+)= sum over k of a[r * a_row + k * a_k] * b[k * b_k + j]

A convolution has loops around that over k, along which a moves by strides of their own and b goes on.

It is a function of its own in the kernel's text: drivers (`gemm.py`) differ, the inner loop does not.
Elements of a and b are words of a `Product`, and so strides are in words.
The edge variant does any smaller tile: rows beyond the last read the last one again and are not
stored, columns beyond are masked. Every element is summed in the order of k alone, whichever variant
does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..ir.dtypes import DType
from . import amx
from .emitter import Emitter
from .product import Product
from .shuffle import lane_mask
from .target import LINE, Target
from .text import Index, Text


@dataclass(frozen=True)
class Tile:
    """`rows` by `vectors` accumulators of `lanes` elements each."""

    rows: int
    vectors: int
    lanes: int

    @property
    def columns(self) -> int:
        return self.vectors * self.lanes


AMX_TILE = Tile(2 * amx.ROWS, 2, amx.ROWS)


@dataclass(frozen=True)
class Micro:
    """A micro-kernel: its tile, and strides in words. Strides known now are built in."""

    product: Product
    tile: Tile
    a_row: Index
    a_k: Index
    b_k: Index
    c_row: Index
    whole_rows_of_b: bool = False
    """Rows of b have all columns of the tile, so that nothing beyond them is read."""
    name: str = ""
    """Tells the micro-kernels of one kernel apart."""
    outer: tuple[int, ...] = ()
    """Strides of a along the loops around that over k; a call gives their counts."""
    a_rows: tuple[int, ...] = ()
    """Offsets of the rows of a, where they are not evenly spaced."""
    sides: bool = False
    """Are the first and the last row of a zeros in one round each of the innermost loop around that
    over k? A call gives where the zeros are, and in which rounds."""
    unroll: int = 4
    depth: int | None = None
    """K, where it is the same in all calls."""
    adds: bool = True
    """Does a call ever add to what is there?"""
    fetches: bool = False
    """Do rows of a lie in memory, those of the next tile after these? Long ones come from far."""
    coming: int = 0
    """Cache lines that `unroll` steps along K fetch into the second-level cache of what a call says is
    coming: from the third, words of b come too late otherwise. Tile registers fetch them one after the
    other, vectors as far apart along K, and beside each other, as the call says."""

    keeps: bool = False
    """Copy the rows of b to where a call says, one after the other, zeros beyond the columns."""

    def call(self, emit: Emitter, a: str, b: str, c: str, depth: Index, add: str,
             edge: tuple[Index, Index] | None = None, counts: tuple[Index, ...] = (),
             coming: str = "", apart: Index | None = None, beside: Index = LINE, kept: str = "",
             zeros: tuple[str, Index, Index] = ("null", -1, -1)) -> None:
        """Emit a call; `edge` gives the rows and columns of a smaller tile. Lines that are fetched lie
        together, unless they are `apart` along K."""
        if apart is None:
            apart = LINE * self.coming // self.unroll
        name = f"kernel.{'tile' if edge is None else 'edge'}{self.name}"
        if name not in emit.definitions:
            make = amx.micro_kernel if self.product.tiles else _function
            emit.definitions[name] = make(emit, name, self, edge is not None)
        rows, columns = edge or (self.tile.rows, self.tile.columns)
        numbers = (depth, self.a_row, self.a_k, self.b_k, self.c_row, rows, columns, *counts)
        pointer, low, high = zeros
        emit.do(f"call void @{name}(ptr {a}, ptr {b}, ptr {c},"
                f" {', '.join(f'i64 {n}' for n in numbers)}, i1 {add}"
                f"{f', ptr {coming}, i64 {apart}, i64 {beside}' if self.coming else ''}"
                f"{f', ptr {kept}' if self.keeps else ''}"
                f"{f', ptr {pointer}, i64 {low}, i64 {high}' if self.sides else ''})")


def multiply_panel(emit: Emitter, micro: Micro, a: str, b: str, c: str, rows: Index, columns: Index,
                   depth: Index, add: str) -> None:
    """The tiles of one panel of b: whole ones, then smaller ones. Strides are the micro-kernel's."""
    height = micro.tile.rows
    whole: Index = emit.idiv(rows, height)
    if columns != micro.tile.columns:
        narrow = emit.icompare("slt", columns, micro.tile.columns)
        whole = emit.inst(f"select i1 {narrow}, i64 0, i64 {whole}")
    ends = emit.idiv(emit.iadd(rows, height - 1), height)
    for low, high in ((0, whole), (whole, ends)):
        if low == high:
            continue
        with emit.loop(low, high) as t, emit.scope():
            r = emit.imul(t, height)
            edge = None if high == whole else (emit.imin(emit.isub(rows, r), height), columns)
            at = emit.inst(f"getelementptr inbounds {micro.product.word}, ptr {a},"
                           f" i64 {emit.imul(r, micro.a_row)}")
            to = emit.inst(f"getelementptr inbounds {micro.product.sums.llvm}, ptr {c},"
                           f" i64 {emit.imul(r, micro.c_row)}")
            micro.call(emit, at, b, to, depth, add, edge)


_SHORT, _LOW = 96, 4
"""Of so few words along K, a high tile takes longer to begin and to end than it saves: 10 % for 64."""


def best_tile(target: Target, dtype: DType, rows: int | None, columns: int | None,
              depth: int | None = None) -> Tile:
    """The tile that wastes least on a result of so many rows and columns, each a sum of `depth` words
    (None: unknown, large)."""
    lanes = target.tile.bits // dtype.bits
    budget = target.tile.rows * target.tile.vectors

    def merit(tile: Tile) -> float:
        used = _used(rows, tile.rows) * _used(columns, tile.columns)
        # Loads per FMA: the load ports keep up with the multipliers from about one of each.
        reuse = tile.rows * tile.vectors / (tile.rows + tile.vectors)
        return used * min(1.0, 0.55 + 0.2 * reuse)

    tiles = [Tile(height, vectors, lanes) for vectors in (3, 2, 4, 1)
             for height in range(min(budget // vectors, 14), 0, -1)]
    best = max(tiles, key=merit)
    if depth is not None and depth <= _SHORT and best.vectors == 4:
        return Tile(min(best.rows, _LOW), 4, lanes)
    return best


def best_rows(target: Target, dtype, rows: int, more: int, columns: int, close: bool, apart: int,
              short: bool = False, vectors: Sequence[int] = (4, 2, 3, 1)) -> tuple[Tile, int]:
    """A tile for `rows` outputs side by side, `more` such rows that are neighbours in memory (1 if
    they are not), and how many of these rows a tile has. Is the kernel `close`, or read as seldom as
    the image? Elements of the image for neighbouring outputs are `apart` bytes from each other. Is K so
    `short` that a large tile takes longer to begin and to end than it saves?"""
    lanes = target.tile.bits // dtype.bits
    # 512-bit targets broadcast from memory, so that only accumulators and columns need registers.
    budget = 28 if target.tile.bits == 512 else target.tile.rows * target.tile.vectors
    if short:
        budget = min(budget, 16)

    def tile(vectors: int) -> tuple[float, Tile, int]:
        most = max(budget // vectors, 1)
        height = -(-rows // -(-rows // most))
        count = 1
        if height == rows:
            count = -(-more // -(-more // max(1, most // rows)))
        used = rows / (-(-rows // height) * height) * more / (-(-more // count) * count)
        used *= columns / (-(-columns // (vectors * lanes)) * vectors * lanes)
        total = height * count
        reuse = total * vectors / (total + vectors)
        merit = used * min(1.0, 0.55 + 0.25 * reuse) * min(1.0, 0.4 + total * vectors / 20)
        if not close:
            # The kernel comes from the second-level cache, once for a tile: tall ones read it less.
            merit *= min(1.0, 0.8 + total / 70)
        if apart % 4096 == 0 and total > 8:
            merit *= 0.8
        return merit, Tile(total, vectors, lanes), count

    best = max((tile(v) for v in vectors), key=lambda t: t[0])
    return best[1], best[2]


def register_rows(rows: int, more: int, columns: int) -> tuple[Tile, int]:
    """`best_rows` for tile registers: of neighbouring outputs, or of a line of them each."""
    vectors = 2 if columns > amx.ROWS else 1
    if rows <= amx.ROWS:
        lines = min(more, 2)
        return Tile(rows * lines, vectors, amx.ROWS), lines
    height = -(-rows // -(-rows // (2 * amx.ROWS)))
    return Tile(height - height % 2, vectors, amx.ROWS), 1


def _used(extent: int | None, step: int) -> float:
    return 1.0 if extent is None or extent == 0 else extent / (-(-extent // step) * step)


def _function(emit: Emitter, name: str, micro: Micro, edge: bool) -> str:
    tile, product = micro.tile, micro.product
    element, size = product.word, product.packed.itemsize
    vector, kind = f"<{tile.lanes} x {element}>", _kind(tile.lanes, element)
    sums, sums_kind = f"<{tile.lanes} x {product.sums.llvm}>", _kind(tile.lanes, product.sums.llvm)
    for t, k in {vector: kind, sums: sums_kind}.items():
        emit.declare(f"declare {t} @llvm.masked.load.{k}.p0(ptr, i32, <{tile.lanes} x i1>, {t})")
    emit.declare(f"declare void @llvm.masked.store.{sums_kind}.p0({sums}, ptr, i32,"
                 f" <{tile.lanes} x i1>)")
    emit.declare("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
    text = Text()
    a_row, a_k, b_k, c_row = (
        stride if isinstance(stride, int) else parameter for stride, parameter in (
            (micro.a_row, "%ar"), (micro.a_k, "%ak"), (micro.b_k, "%bk"), (micro.c_row, "%cr")))

    def at(base: str, offset: Index, kind: str = element) -> str:
        return base if offset == 0 else text.inst(
            f"getelementptr inbounds {kind}, ptr {base}, i64 {offset}")

    masks = [lane_mask(text, text.isub("%cols", v * tile.lanes), tile.lanes)
             for v in range(tile.vectors)] if edge else []

    def load(pointer: str, v: int) -> str:
        if edge and not micro.whole_rows_of_b:
            return text.inst(f"call {vector} @llvm.masked.load.{kind}.p0(ptr {pointer}, i32 {size},"
                             f" <{tile.lanes} x i1> {masks[v]}, {vector} zeroinitializer)")
        return text.inst(f"load {vector}, ptr {pointer}, align {size}")

    last = text.isub("%rows", 1)
    offsets: list[Index] = list(micro.a_rows) or [
        text.imul(text.imin(r, last) if edge and r else r, a_row) for r in range(tile.rows)]
    outputs = [[at("%c", text.iadd(text.imul(r, c_row), v * tile.lanes), product.sums.llvm)
                for v in range(tile.vectors)] for r in range(tile.rows)]
    cells = [[f"%{text.fresh('acc')}" for _ in range(tile.vectors)] for _ in range(tile.rows)]
    entry = [f"  {cell} = alloca {sums}, align 64" for row in cells for cell in row]
    first, starts = "%b", ["zeroinitializer"] * tile.vectors
    if product.flips:
        starts = [text.inst(f"load {sums}, ptr {at('%b', v * tile.lanes)}, align {size}")
                  for v in range(tile.vectors)]
        first = at("%b", b_k)
    for r in range(tile.rows):
        for v in range(tile.vectors):
            text.do(f"store {sums} {starts[v]}, ptr {cells[r][v]}, align 64")
            if not edge:
                # Rows of c are far apart: without this, large products lose 10 to 15 %.
                text.do(f"call void @llvm.prefetch.p0(ptr {outputs[r][v]}, i32 1, i32 3, i32 1)")

    # Lines a multiple of 4 KB apart would only drive each other out of the cache.
    apart = micro.a_row * size if isinstance(micro.a_row, int) else 1
    ahead = text.imul(tile.rows, a_row) if micro.fetches and not edge and apart % 4096 else 0

    def steps(pa: str, pb: str, count: int, k: Index, beside: dict[int, str]) -> None:
        for i in range(micro.coming if count > 1 else 0):
            place = text.iadd(text.imul(k, "%apart"), text.imul("%beside", i))
            line = text.inst(f"getelementptr i8, ptr %coming, i64 {place}")
            text.do(f"call void @llvm.prefetch.p0(ptr {line}, i32 0, i32 2, i32 1)")
        if ahead and count > 1:
            for r in range(tile.rows):
                # Too many short runs for the hardware to see them come: 20 % of a large a.
                next_row = text.inst(
                    f"getelementptr {element}, ptr {pa}, i64 {text.iadd(offsets[r], ahead)}")
                text.do(f"call void @llvm.prefetch.p0(ptr {next_row}, i32 0, i32 3, i32 1)")
        for u in range(count):
            if u:
                # Nothing moves across: where the columns of the next step are loaded early, a tall tile
                # has an accumulator in memory. Up to 5 % of a convolution.
                text.do('call void asm sideeffect "", "~{memory}"()')
            line = at(pb, text.imul(u, b_k))
            columns = [load(at(line, v * tile.lanes), v) for v in range(tile.vectors)]
            if micro.keeps:
                copy = at("%kept", text.imul(text.iadd(k, u), tile.columns))
                for v, register in enumerate(columns):
                    text.do(f"store {vector} {register}, ptr {at(copy, v * tile.lanes)}, align {size}")
            for r in range(tile.rows):
                place = at(pa, text.iadd(offsets[r], text.imul(u, a_k)))
                if r in beside:
                    place = at(beside[r], text.iadd(text.imul(k, a_k), text.imul(u, a_k)))
                x = text.inst(f"load {element}, ptr {place}, align {size}")
                one = text.inst(f"insertelement {vector} poison, {element} {x}, i64 0")
                splat = text.inst(f"shufflevector {vector} {one}, {vector} poison,"
                                  f" <{tile.lanes} x i32> zeroinitializer")
                for v in range(tile.vectors):
                    old = text.inst(f"load {sums}, ptr {cells[r][v]}, align 64")
                    new = product.add(text, old, splat, columns[v], tile.lanes)
                    text.do(f"store {sums} {new}, ptr {cells[r][v]}, align 64")

    depth: Index = "%k" if micro.depth is None else micro.depth

    def rounds(pa: str, pb: str, number: Index) -> None:
        beside = {r: text.inst(f"select i1 {text.icompare('eq', number, zero)}, ptr %zeros,"
                               f" ptr {at(pa, offsets[r])}")
                  for r, zero in ((0, "%low"), (tile.rows - 1, "%high")) if micro.sides}
        whole = text.imul(text.idiv(depth, micro.unroll), micro.unroll)
        for low, high, count in ((0, whole, micro.unroll), (whole, depth, 1)):
            if low == high:
                continue
            with text.loop(low, high, count) as k:
                steps(at(pa, text.imul(k, a_k)), at(pb, text.imul(k, b_k)), count, k, beside)

    def around(pa: str, done: Index, number: int, i: Index = 0) -> None:
        """The loops from `number` on, after `done` rounds of the loop over k, in the round `i`."""
        if number == len(micro.outer):
            rounds(pa, at(first, text.imul(text.imul(done, depth), b_k)), i)
            return
        with text.loop(0, f"%o{number}") as i:
            around(at(pa, text.imul(i, micro.outer[number])),
                   text.iadd(text.imul(done, f"%o{number}"), i), number + 1, i)

    around("%a", 0, 0)
    for r in range(tile.rows):
        _store_row(text, edge, micro.adds, r, product.sums, tile.lanes, masks, outputs[r], cells[r])
    lines = "\n".join(text.lines)
    for declaration in text.declarations:
        emit.declare(declaration)
    counts = "".join(f", i64 %o{i}" for i in range(len(micro.outer)))
    return (f"define internal void @{name}(ptr noalias %a, ptr noalias %b, ptr noalias %c, i64 %k,"
            f" i64 %ar, i64 %ak, i64 %bk, i64 %cr, i64 %rows, i64 %cols{counts}, i1 %add"
            f"{', ptr %coming, i64 %apart, i64 %beside' if micro.coming else ''}"
            f"{', ptr noalias %kept' if micro.keeps else ''}"
            f"{', ptr %zeros, i64 %low, i64 %high' if micro.sides else ''}) #1 {{\n"
            "entry:\n"
            + "\n".join(entry) + f"\n  br label %start\nstart:\n{lines}\n  ret void\n}}")


def _kind(lanes: int, element: str) -> str:
    """The suffix of intrinsics on vectors of an LLVM type."""
    return f"v{lanes}{element.replace('float', 'f32').replace('double', 'f64')}"


def _store_row(text: Text, edge: bool, adds: bool, row: int, dtype: DType, lanes: int, masks: list[str],
               outputs: list[str], cells: list[str]) -> None:
    """Store a row of accumulators, or add it to what is there."""
    vector, kind, size = f"<{lanes} x {dtype.llvm}>", _kind(lanes, dtype.llvm), dtype.itemsize
    after = text.fresh("row")
    if edge:
        inside, these = text.icompare("slt", row, "%rows"), text.fresh("store")
        text.do(f"br i1 {inside}, label %{these}, label %{after}")
        text.block(these)
    if adds:
        _add_row(text, edge, dtype, lanes, masks, outputs, cells)
    for v, cell in enumerate(cells):
        value = text.inst(f"load {vector}, ptr {cell}, align 64")
        if edge:
            text.do(f"call void @llvm.masked.store.{kind}.p0({vector} {value}, ptr {outputs[v]},"
                    f" i32 {size}, <{lanes} x i1> {masks[v]})")
        else:
            text.do(f"store {vector} {value}, ptr {outputs[v]}, align {size}")
    if edge:
        text.do(f"br label %{after}")
        text.block(after)


def _add_row(text: Text, edge: bool, dtype: DType, lanes: int, masks: list[str], outputs: list[str],
             cells: list[str]) -> None:
    """Add what is there to a row of accumulators, if the call says so."""
    vector, kind, size = f"<{lanes} x {dtype.llvm}>", _kind(lanes, dtype.llvm), dtype.itemsize
    add = "fadd" if dtype.is_float else "add"
    more, store = text.fresh("more"), text.fresh("put")
    text.do(f"br i1 %add, label %{more}, label %{store}")
    text.block(more)

    def old(v: int) -> str:
        if edge:
            return text.inst(f"call {vector} @llvm.masked.load.{kind}.p0(ptr {outputs[v]}, i32 {size},"
                             f" <{lanes} x i1> {masks[v]}, {vector} zeroinitializer)")
        return text.inst(f"load {vector}, ptr {outputs[v]}, align {size}")

    for v, cell in enumerate(cells):
        sum = text.inst(f"{add} {vector} {old(v)}, {text.inst(f'load {vector}, ptr {cell}, align 64')}")
        text.do(f"store {vector} {sum}, ptr {cell}, align 64")
    text.do(f"br label %{store}")
    text.block(store)
