"""Kernels for contractions: vectors along the innermost result dim, a register tile of rows.

    for row tile:  for column tile:  acc = 0;  for k...: acc[r][v] += splat(lhs[r, k]) * rhs[k, v]

The order of accumulation depends on the shapes only, never on threads or the batch position.
Contractions without a contiguous rhs take the scalar path.
"""

from __future__ import annotations

from ..ir.core import Op, Value
from ..ops.contraction import Affine, Contraction
from .emitter import Emitter
from .target import Target
from .text import Index, literal, register_type
from .work import Work


def contraction(emit: Emitter, op: Op, target: Target) -> None:
    """Emit the whole kernel of one dot_general or convolution."""
    nest = _Nest(emit, op, op.definition.rule("contraction")(op))
    if nest.streams() and op.result.dtype.is_float and op.result.dtype.bits >= 32 and all(
            v.dtype is op.result.dtype for v in op.operands):
        _tiled(nest, target)
    else:
        _scalar(nest)


class _Nest:
    """The loops of a contraction and the addresses of its operands."""

    def __init__(self, emit: Emitter, op: Op, spec: Contraction):
        self.emit, self.op, self.spec = emit, op, spec
        self.lhs, self.rhs = op.operands
        self.out: Value = op.result
        self.extents: list[Index] = [
            e if isinstance(e, int) else emit.extent(*e) for e in spec.extents]
        # Outermost reduction first where the rhs strides widest: it is then read in order.
        reductions = range(spec.parallel, len(spec.extents))
        self.reductions = sorted(reductions, key=lambda i: -self._weight(i))
        self.vector = spec.parallel - 1

    def _weight(self, loop: int) -> float:
        """A size to order reduction loops by: the position of the loop's dim in the rhs."""
        for d, index in enumerate(self.spec.rhs):
            if any(i == loop for i, _ in index):
                return len(self.spec.rhs) - d
        return 0.0

    def streams(self) -> bool:
        """True when result and rhs are contiguous, and lhs constant, along the vector loop."""
        s, v = self.spec, self.vector
        if not s.out or not s.rhs:
            return False
        alone = ((v, 1),)
        constant_extent = isinstance(self.extents[v], int)
        ends = [m[-1] for m in (s.out, s.rhs)]
        rests = [i for m in (s.out, s.rhs) for i in m[:-1]]
        tail = all(e[-1:] == alone for e in ends)
        elsewhere = any(i == v for m in (*rests, *s.lhs) for i, _ in m)
        return constant_extent and tail and not elsewhere

    def row_loop(self) -> int | None:
        """The innermost parallel loop the rhs does not depend on: its rows share rhs vectors."""
        used = {i for index in self.spec.rhs for i, _ in index}
        for loop in reversed(range(self.vector)):
            if loop not in used and self.extents[loop] != 1:
                return loop
        return None

    def work(self, loops: list[int], divisor: int = 1) -> Work:
        """The parallel loops `loops` as tasks, `divisor` rounds of the last one at a time."""
        extents = [e if isinstance(e, int) else e[0].shape[e[1]] for e in self.spec.extents]
        rest = [e for i, e in enumerate(extents) if i not in loops]
        steps = (1,) * (len(loops) - 1) + (divisor,)
        return Work(tuple(extents[i] for i in loops), steps, (20, divisor, *rest))

    def place(self, value: Value, indices: tuple[Affine, ...], loops: dict[int, Index]) -> Index:
        """The linear position in `value` for loop counters `loops`."""
        emit = self.emit
        at: list[Index] = []
        for terms in indices:
            total: Index = 0
            for loop, coefficient in terms:
                total = emit.iadd(total, emit.imul(loops[loop], coefficient))
            at.append(total)
        return emit.linear(value, at)


def _scalar(nest: _Nest) -> None:
    emit, spec = nest.emit, nest.spec
    dtype = nest.out.dtype
    wide = register_type(dtype)
    cell = f"%{emit.fresh('sum')}"

    def reduce(loops: dict[int, Index], rest: list[int]) -> None:
        if rest:
            with emit.loop(0, nest.extents[rest[0]]) as i, emit.scope():
                reduce({**loops, rest[0]: i}, rest[1:])
            return
        pair = []
        for value, indices in ((nest.lhs, spec.lhs), (nest.rhs, spec.rhs)):
            position = nest.place(value, indices, loops)
            pointer = emit.inst(f"getelementptr inbounds {value.dtype.storage},"
                                f" ptr {emit.pointers[value]}, i64 {position}")
            pair.append(emit.convert(emit.load_from(pointer, value.dtype), value.dtype, dtype))
        old = emit.inst(f"load {wide}, ptr {cell}")
        opcodes = {"float": ("fmul", "fadd"), "bool": ("and", "or")}.get(dtype.kind,
                                                                         ("mul", "add"))
        product = emit.binary(opcodes[0], dtype, *pair)
        emit.do(f"store {wide} {emit.binary(opcodes[1], dtype, old, product)}, ptr {cell}")

    def outer(loops: dict[int, Index], rest: list[int]) -> None:
        if rest:
            with emit.loop(0, nest.extents[rest[0]]) as i, emit.scope():
                outer({**loops, rest[0]: i}, rest[1:])
            return
        emit.do(f"store {wide} {literal(0, dtype)}, ptr {cell}")
        reduce(loops, nest.reductions)
        position = nest.place(nest.out, spec.out, loops)
        pointer = emit.inst(f"getelementptr inbounds {dtype.storage},"
                            f" ptr {emit.pointers[nest.out]}, i64 {position}")
        emit.store_to(pointer, dtype, emit.inst(f"load {wide}, ptr {cell}"))

    parallel = list(range(spec.parallel))
    with emit.phase(nest.work(parallel[:1])):
        emit.entry.append(f"  {cell} = alloca {wide}, align 8")
        if not parallel:
            outer({}, [])
            return
        with emit.loop("%first", "%last") as i, emit.scope():
            outer({0: i}, parallel[1:])


def _tiled(nest: _Nest, target: Target) -> None:
    emit, spec = nest.emit, nest.spec
    lanes = target.tile.bits // nest.out.dtype.bits
    row = nest.row_loop()
    columns = nest.extents[nest.vector]
    assert isinstance(columns, int)
    widths = _widths(-(-columns // lanes), target.tile.vectors)
    # Fewer vectors leave registers for more rows.
    height = min(target.tile.rows * target.tile.vectors // max(widths, default=1), 12)
    outer = [i for i in range(spec.parallel) if i not in (nest.vector, row)]

    def tile(loops: dict[int, Index], count: int) -> None:
        _columns(nest, loops, row, count, columns, lanes, widths)

    def rows(loops: dict[int, Index]) -> None:
        if row is None:
            tile(loops, 1)
            return
        for low, high, count in _row_tiles(emit, nest.extents[row], height):
            with emit.loop(low, high, count) as i, emit.scope():
                tile({**loops, row: i}, count)

    def nested(loops: dict[int, Index], rest: list[int]) -> None:
        if not rest:
            rows(loops)
            return
        with emit.loop(0, nest.extents[rest[0]]) as i, emit.scope():
            nested({**loops, rest[0]: i}, rest[1:])

    if outer:
        with emit.phase(nest.work(outer[:2])), emit.loop("%first", "%last") as task, emit.scope():
            if len(outer) == 1:
                nested({outer[0]: task}, [])
            else:
                inner = nest.extents[outer[1]]
                nested({outer[0]: emit.idiv(task, inner), outer[1]: emit.irem(task, inner)},
                       outer[2:])
        return
    if row is None:
        with emit.phase(nest.work([])):
            rows({})
        return
    with emit.phase(nest.work([row], height)):
        # A task is a tile of rows; the tiles of one height form a loop.
        extent = nest.extents[row]
        number: Index = 0
        for low, high, count in _row_tiles(emit, extent, height):
            tiles = emit.idiv(emit.isub(high, low), count)
            if not isinstance(extent, int) and count == 1:
                # What is left of a run-time extent: one task.
                mine = emit.icompare("sgt", "%last", number)
                until = emit.inst(f"select i1 {mine}, i64 {high}, i64 {low}")
                with emit.loop(low, until) as i, emit.scope():
                    tile({row: i}, 1)
                continue
            begin = emit.imax(emit.isub("%first", number), 0)
            end = emit.imin(emit.isub("%last", number), tiles)
            with emit.loop(begin, end) as t, emit.scope():
                tile({row: emit.iadd(low, emit.imul(t, count))}, count)
            number = emit.iadd(number, tiles)


def _widths(vectors: int, most: int) -> list[int]:
    """Vectors per column tile: as many as fit, but no lonely last one."""
    widths = [most] * (vectors // most)
    rest = vectors % most
    if rest == 1 and widths and most > 2:
        return [*widths[:-1], most - 1, 2]
    return [*widths, rest] if rest else widths


def _row_tiles(emit: Emitter, extent: Index, height: int) -> list[tuple[Index, Index, int]]:
    """`(low, high, height)` of tile loops: even heights where the extent is known."""
    if isinstance(extent, int):
        if extent == 0:
            return []
        count = -(-extent // height)
        tall, short = -(-extent // count), extent // count
        border = (extent - short * count) * tall
        return [t for t in ((0, border, tall), (border, extent, short)) if t[0] != t[1]]
    whole = emit.imul(emit.idiv(extent, height), height)
    return [(0, whole, height), (whole, extent, 1)]


def _columns(nest: _Nest, loops, row, rows: int, columns: int, lanes: int,
             widths: list[int]) -> None:
    """Cover the vector loop: equal tiles in a loop, the last vector masked if need be."""
    emit = nest.emit
    masked = columns % lanes
    start, position = 0, 0
    while position < len(widths):
        width, end = widths[position], position
        while end < len(widths) and widths[end] == width and not (
                masked and end == len(widths) - 1):
            end += 1
        if end == position:
            _micro(nest, {**loops, nest.vector: start}, row, rows, lanes, width, masked)
            return
        stop = start + (end - position) * width * lanes
        with emit.loop(start, stop, width * lanes) as j, emit.scope():
            _micro(nest, {**loops, nest.vector: j}, row, rows, lanes, width, 0)
        start, position = stop, end


def _micro(nest: _Nest, loops, row, rows: int, lanes: int, vectors: int, masked: int) -> None:
    """A tile of `rows` x `vectors` accumulators; `masked` > 0: lanes used of the last vector."""
    emit, spec = nest.emit, nest.spec
    dtype = nest.out.dtype
    element, size = dtype.llvm, dtype.itemsize
    vector = f"<{lanes} x {element}>"
    kind = f"v{lanes}f{dtype.bits}"
    mask = "<" + ", ".join(f"i1 {'true' if i < masked else 'false'}" for i in range(lanes)) + ">"
    emit.declare(f"declare {vector} @llvm.fma.{kind}({vector}, {vector}, {vector})")
    if masked:
        emit.declare(f"declare {vector} @llvm.masked.load.{kind}.p0"
                     f"(ptr, i32, <{lanes} x i1>, {vector})")
        emit.declare(f"declare void @llvm.masked.store.{kind}.p0"
                     f"({vector}, ptr, i32, <{lanes} x i1>)")
    cells = [[f"%{emit.fresh('acc')}" for _ in range(vectors)] for _ in range(rows)]
    for cell in (c for line in cells for c in line):
        emit.entry.append(f"  {cell} = alloca {vector}, align 64")
        emit.do(f"store {vector} zeroinitializer, ptr {cell}, align 64")

    def results():
        """`(accumulator, pointer, is masked)` of every vector of the tile."""
        for r in range(rows):
            here = loops if row is None else {**loops, row: emit.iadd(loops[row], r)}
            base = nest.place(nest.out, spec.out, here)
            for v in range(vectors):
                yield (cells[r][v], _pointer(emit, nest.out, emit.iadd(base, v * lanes)),
                       bool(masked) and v == vectors - 1)

    def load(pointer: str, is_masked: bool) -> str:
        if is_masked:
            return emit.inst(f"call {vector} @llvm.masked.load.{kind}.p0(ptr {pointer},"
                             f" i32 {size}, <{lanes} x i1> {mask}, {vector} zeroinitializer)")
        return emit.inst(f"load {vector}, ptr {pointer}, align {size}")

    def step(at: dict[int, Index]) -> None:
        base = nest.place(nest.rhs, spec.rhs, at)
        columns = []
        for v in range(vectors):
            p = _pointer(emit, nest.rhs, emit.iadd(base, v * lanes))
            columns.append(load(p, bool(masked) and v == vectors - 1))
        for r in range(rows):
            here = at if row is None else {**at, row: emit.iadd(at[row], r)}
            p = _pointer(emit, nest.lhs, nest.place(nest.lhs, spec.lhs, here))
            x = emit.inst(f"load {element}, ptr {p}, align {size}")
            first = emit.inst(f"insertelement {vector} poison, {element} {x}, i64 0")
            splat = emit.inst(f"shufflevector {vector} {first}, {vector} poison,"
                              f" <{lanes} x i32> zeroinitializer")
            for v in range(vectors):
                old = emit.inst(f"load {vector}, ptr {cells[r][v]}, align 64")
                new = emit.inst(f"call {vector} @llvm.fma.{kind}({vector} {splat},"
                                f" {vector} {columns[v]}, {vector} {old})")
                emit.do(f"store {vector} {new}, ptr {cells[r][v]}, align 64")

    def reduce(at: dict[int, Index], rest: list[int]) -> None:
        if not rest:
            step(at)
            return
        with emit.loop(0, nest.extents[rest[0]]) as i, emit.scope():
            reduce({**at, rest[0]: i}, rest[1:])

    reduce(loops, nest.reductions)
    for cell, pointer, is_masked in results():
        value = emit.inst(f"load {vector}, ptr {cell}, align 64")
        if is_masked:
            emit.do(f"call void @llvm.masked.store.{kind}.p0({vector} {value}, ptr {pointer},"
                    f" i32 {size}, <{lanes} x i1> {mask})")
        else:
            emit.do(f"store {vector} {value}, ptr {pointer}, align {size}")


def _pointer(emit: Emitter, value: Value, position: Index) -> str:
    return emit.inst(f"getelementptr inbounds {value.dtype.storage},"
                     f" ptr {emit.pointers[value]}, i64 {position}")
