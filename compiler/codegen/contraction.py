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
    emit.entry.append(f"  {cell} = alloca {wide}, align 8")

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

    outer({}, list(range(spec.parallel)))


def _tiled(nest: _Nest, target: Target) -> None:
    emit, spec = nest.emit, nest.spec
    tile = target.tile
    dtype = nest.out.dtype
    lanes = tile.bits // dtype.bits
    row = nest.row_loop()
    outer = [i for i in range(spec.parallel) if i not in (nest.vector, row)]
    columns = nest.extents[nest.vector]
    assert isinstance(columns, int)

    def rows(loops: dict[int, Index]) -> None:
        if row is None:
            _columns(nest, {**loops}, None, 1, columns, lanes, tile.vectors)
            return
        extent = nest.extents[row]
        whole = emit.imul(emit.idiv(extent, tile.rows), tile.rows)
        for low, high, count in ((0, whole, tile.rows), (whole, extent, 1)):
            if low == high:
                continue
            with emit.loop(low, high, count) as i, emit.scope():
                _columns(nest, {**loops, row: i}, row, count, columns, lanes, tile.vectors)

    def nested(loops: dict[int, Index], rest: list[int]) -> None:
        if not rest:
            rows(loops)
            return
        with emit.loop(0, nest.extents[rest[0]]) as i, emit.scope():
            nested({**loops, rest[0]: i}, rest[1:])

    nested({}, outer)


def _columns(nest: _Nest, loops, row, rows: int, columns: int, lanes: int, vectors: int) -> None:
    """Cover the vector loop: whole tiles in a loop, then what remains with a masked last vector."""
    emit, width = nest.emit, lanes * vectors
    whole = columns // width * width
    if whole:
        with emit.loop(0, whole, width) as j, emit.scope():
            _micro(nest, {**loops, nest.vector: j}, row, rows, lanes, vectors, 0)
    rest = columns - whole
    if rest:
        count = -(-rest // lanes)
        _micro(nest, {**loops, nest.vector: whole}, row, rows, lanes, count, rest % lanes)


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

    def step(at: dict[int, Index]) -> None:
        base = nest.place(nest.rhs, spec.rhs, at)
        columns = []
        for v in range(vectors):
            p = _pointer(emit, nest.rhs, emit.iadd(base, v * lanes))
            if masked and v == vectors - 1:
                columns.append(emit.inst(
                    f"call {vector} @llvm.masked.load.{kind}.p0(ptr {p}, i32 {size},"
                    f" <{lanes} x i1> {mask}, {vector} zeroinitializer)"))
            else:
                columns.append(emit.inst(f"load {vector}, ptr {p}, align {size}"))
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
    for r in range(rows):
        here = loops if row is None else {**loops, row: emit.iadd(loops[row], r)}
        base = nest.place(nest.out, spec.out, here)
        for v in range(vectors):
            p = _pointer(emit, nest.out, emit.iadd(base, v * lanes))
            value = emit.inst(f"load {vector}, ptr {cells[r][v]}, align 64")
            if masked and v == vectors - 1:
                emit.do(f"call void @llvm.masked.store.{kind}.p0({vector} {value}, ptr {p},"
                        f" i32 {size}, <{lanes} x i1> {mask})")
            else:
                emit.do(f"store {vector} {value}, ptr {p}, align {size}")


def _pointer(emit: Emitter, value: Value, position: Index) -> str:
    return emit.inst(f"getelementptr inbounds {value.dtype.storage},"
                     f" ptr {emit.pointers[value]}, i64 {position}")
