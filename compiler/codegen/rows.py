"""Rows: reductions over the innermost dims, with everything elementwise around them, as one kernel.

A row is what one reduction reads. It is passed over as often as reductions wait for each other: softmax
takes the maximum, then the exponentials and their sum, then divides, while the row is in the cache.
What several passes need is computed in the first of them and kept in a buffer of one row.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from ..ir.core import Block, Op, Value
from ..ir.dims import Extent
from ..ir.dtypes import F32
from .emitter import Emitter
from .quotient import reciprocal
from .target import LINE
from .text import Index, register_type
from .work import Work, element_cost

_BUFFERS = 256 << 10
"""Bytes of row buffers a kernel may have: half of a small second-level cache."""
_LONG = 256
"""Elements of rows whose divisions are worth a reciprocal."""
_FETCHED = 16 << 10
"""Bytes of the next row that a first-level cache holds beside this one."""
_REDUCTIONS = 8
"""Accumulators of a pass that leave registers for the rest."""

EXACT = frozenset(f"stablehlo.{name}" for name in """
    abs add and ceil clamp compare convert floor maximum minimum negate not or select sign subtract xor
""".split())
"""Ops that give the same bits wherever they are computed, if their operands are in memory: there is no
product an addition could be contracted with. And they are cheaper than a buffer."""


@dataclass(frozen=True)
class Rows:
    """How a kernel passes over its rows."""

    shape: tuple[Extent, ...]
    kept: int
    """How many of the dims number the rows."""
    levels: dict[Value, int]
    """How many reductions a value waits for, one after the other."""
    passes: dict[Value, set[int]]
    """The passes in which an element of a row is needed; it is computed in the first."""
    buffered: tuple[Value, ...]
    """What is kept in a buffer from pass to pass."""
    single: frozenset[Value]
    """What there is one of per row, computed before or between passes."""

    @property
    def length(self) -> Extent:
        """Elements of a row."""
        return _product(self.shape[self.kept:])

    @property
    def count(self) -> Extent:
        return _product(self.shape[:self.kept])


def reduces_rows(op: Op) -> bool:
    """A reduction over the innermost dims that keeps others."""
    if op.name != "stablehlo.reduce":
        return False
    rank, dims = len(op.operands[0].shape), sorted(op.attributes["dimensions"])
    return 0 < len(dims) < rank and dims == list(range(rank - len(dims), rank))


def is_elementwise(op: Op) -> bool:
    return getattr(op.definition, "scalar", None) is not None


def rows_of(block: Block) -> Rows | None:
    """How to compute `block` by rows; None when that is not possible."""
    reductions = [op for op in block.ops if op.name == "stablehlo.reduce"]
    if not 0 < len(reductions) <= _REDUCTIONS or not all(map(reduces_rows, reductions)):
        return None
    shape = tuple(reductions[0].operands[0].shape)
    kept = len(reductions[0].results[0].shape)
    outer = shape[:kept]
    if any(tuple(op.operands[0].shape) != shape or len(op.results[0].shape) != kept
           for op in reductions):
        return None
    if any(tuple(v.shape) not in (shape, outer) for v in block.returns):
        return None
    levels = _levels(block, shape, outer)
    if levels is None:
        return None
    passes = _passes(block, shape, levels)
    several = [v for v, found in passes.items() if len(found) > 1]
    buffered = tuple(v for v in several if v not in block.returns and not _again(v, levels))
    bound = {*buffered, *(v for v in block.returns if v in several)}
    if any(v in bound and not _aligned(op, shape) for op in block.ops for v in op.operands):
        return None
    rows = Rows(shape, kept, levels, passes, buffered, _single(block, shape, outer, levels))
    if buffered and (not isinstance(rows.length, int) or sum(
            rows.length * v.dtype.itemsize for v in buffered) > _BUFFERS):
        return None
    return rows


def _levels(block: Block, shape, outer) -> dict[Value, int] | None:
    levels = dict.fromkeys(block.arguments, 0)
    for op in block.ops:
        level = max((levels[v] for v in op.operands), default=0)
        if op.name == "stablehlo.reduce":
            count = len(op.results)
            if any(levels[v] for v in op.operands[count:]):
                return None
            level += 1
        elif level:
            kind = tuple(op.results[0].shape)
            if op.name == "stablehlo.broadcast_in_dim":
                fits = (kind == shape and tuple(op.operands[0].shape) == outer
                        and list(op.attributes["broadcast_dimensions"]) == list(range(len(outer))))
            else:
                fits = (is_elementwise(op) and kind in (shape, outer)
                        and all(tuple(v.shape) in (kind, ()) for v in op.operands))
            if not fits:
                return None
        levels.update(dict.fromkeys(op.results, level))
    return levels


def _single(block: Block, shape, outer, levels: dict[Value, int]) -> frozenset[Value]:
    """The computed values per row that are read per row only."""
    found: set[Value] = set()
    other: set[Value] = set()
    for op in reversed(block.ops):
        spread = (op.name == "stablehlo.broadcast_in_dim" and tuple(op.result.shape) == shape
                  and list(op.attributes["broadcast_dimensions"]) == list(range(len(outer))))
        if (is_elementwise(op) and tuple(op.result.shape) == outer
                and (levels[op.result] or op.result not in other)):
            found.add(op.result)
        elif not spread:
            other.update(op.operands)
    return frozenset(found)


def _aligned(op: Op, shape) -> bool:
    """Does `op` read an element of a row where it makes one?"""
    return op.name == "stablehlo.reduce" or (is_elementwise(op) and tuple(op.result.shape) == shape)


def _again(value: Value, levels: dict[Value, int]) -> bool:
    """Is it better to compute an element of a row anew than to keep it?"""
    op = value.op
    if op is None or op.name == "stablehlo.constant":
        return True
    if op.name in ("stablehlo.broadcast_in_dim", "stablehlo.iota"):
        # An element of a row is the same all along it; anything else in memory is read again.
        return not op.operands or levels[value] > 0 or _again(op.operands[0], levels)
    return op.name in EXACT and all(_again(v, levels) for v in op.operands)


def _passes(block: Block, shape, levels: dict[Value, int]) -> dict[Value, set[int]]:
    """In which passes each computed element of a row is needed."""
    passes: dict[Value, set[int]] = {}

    def need(value: Value, when: set[int]) -> None:
        if value.op is not None and tuple(value.shape) == shape:
            passes.setdefault(value, set()).update(when)

    for value in block.returns:
        need(value, {levels[value]})
    for op in reversed(block.ops):
        if op.name == "stablehlo.reduce":
            for value in op.operands[:len(op.results)]:
                need(value, {levels[op.results[0]] - 1})
        elif op.results and op.results[0] in passes:
            result = op.results[0]
            when = passes[result]
            if result in block.returns or not _again(result, levels):
                when = {min(when)}
            for value in op.operands:
                need(value, when)
    return passes


def emit_rows(emit: Emitter, rows: Rows, block: Block, outputs: list[tuple[Value, str]]) -> None:
    """Emit the kernel: a task is a row, or all rows of an outermost index."""
    outer = min(rows.kept, 2)
    sample = next(op for op in block.ops if op.name == "stablehlo.reduce").operands[0]
    cost = element_cost(block.ops, sample)
    maker = _Maker(emit, rows, block, outputs, sample)
    with emit.phase(Work(tuple(rows.shape[:outer]), cost=(cost, *rows.shape[outer:]))):
        maker.allocate()
        with emit.loop("%first", "%last") as task, emit.scope():
            index: tuple[Index, ...] = (task,)
            if outer == 2:
                inner = emit.extent(sample, 1)
                index = (emit.idiv(task, inner), emit.irem(task, inner))
            maker.nest(index)


class _Maker:
    """The code of one row."""

    def __init__(self, emit: Emitter, rows: Rows, block: Block, outputs, sample: Value):
        self.emit, self.rows, self.block, self.outputs = emit, rows, block, outputs
        self.sample = sample
        """A value with the extents of all elements."""
        self.buffers: dict[Value, str] = {}
        self.divisors: dict[Value, tuple[str, str]] = {}
        """Divisors that are one number for a row: 1 / c, and whether it will do (`quotient.py`)."""
        long = not isinstance(rows.length, int) or rows.length >= _LONG
        self.divided = {_spread(op.operands[1]) for op in block.ops
                        if long and emit.target.has_fma and _is_quotient(op, rows)}
        self.last = max(rows.levels[v] for op in block.ops for v in op.results)

    def allocate(self) -> None:
        emit, rows = self.emit, self.rows
        sizes = [-(-rows.length * v.dtype.itemsize // 64) * 64 for v in rows.buffered]
        if not sizes:
            return
        memory = emit.workspace(sum(sizes))
        for number, value in enumerate(rows.buffered):
            self.buffers[value] = emit.inst(
                f"getelementptr inbounds i8, ptr {memory}, i64 {sum(sizes[:number])}")

    def nest(self, index: tuple[Index, ...]) -> None:
        emit = self.emit
        if len(index) < self.rows.kept:
            with emit.loop(0, emit.extent(self.sample, len(index))) as i, emit.scope():
                self.nest((*index, i))
            return
        with ExitStack() as known:
            for number in range(self.last + 1):
                self.between(index, number, known)
                self.fetch(index, number)
                self.over(index, number, known)

    def fetch(self, index, number: int) -> None:
        """Before every pass but the first, ask for a share of the next row: memory works while the
        passes that read nothing from it compute. Softmax, layer normalisation: 1.2 to 1.4 times."""
        emit, rows = self.emit, self.rows
        if not isinstance(rows.length, int):
            return
        sizes = {v: rows.length * v.dtype.itemsize for v in self.block.arguments
                 if tuple(v.shape) == rows.shape}
        later = [n for n in range(1, self.last + 1) if any(self.work(n))]
        if number not in later or sum(sizes.values()) > _FETCHED:
            return
        # What is stored once, in the last pass: a line that another one stores is there by then.
        made = {v: p for v, p in self.outputs if emit.target.fetches_results
                and tuple(v.shape) == rows.shape and rows.passes.get(v) == {self.last}}
        sizes |= {v: rows.length * v.dtype.itemsize for v in made}
        emit.declare("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
        share = later.index(number)
        for value, size in sizes.items():
            lines = -(-size // LINE)
            low, high = (size + LINE * (lines * n // len(later)) for n in (share, share + 1))
            begin = (*index, *[0] * (len(rows.shape) - rows.kept))
            pointer, write = made.get(value), int(value in made)
            start = self.place(pointer or emit.pointers[value], value, emit.linear(value, begin))
            with emit.loop(low, high, LINE) as i:
                line = emit.inst(f"getelementptr i8, ptr {start}, i64 {i}")
                emit.do(f"call void @llvm.prefetch.p0(ptr {line}, i32 {write}, i32 3, i32 1)")

    def work(self, number: int) -> tuple[list[Op], list[tuple[Value, str]]]:
        """The reductions of a pass, and the results it stores."""
        rows = self.rows
        return ([op for op in self.block.ops if op.name == "stablehlo.reduce"
                 and rows.levels[op.results[0]] == number + 1],
                [(v, p) for v, p in self.outputs
                 if len(v.shape) > rows.kept and min(rows.passes.get(v, {0})) == number])

    def between(self, index, number: int, known: ExitStack) -> None:
        """What there is one of per row, once `number` rounds of reductions are done."""
        emit, rows = self.emit, self.rows
        for op in self.block.ops:
            for value in op.results:
                if rows.levels[value] == number and value in rows.single:
                    self.know(value, self.settled(value, index), known)
        for value, pointer in self.outputs:
            if rows.levels[value] == number and len(value.shape) == rows.kept:
                place = self.place(pointer, value, emit.linear(value, index))
                emit.store_to(place, value.dtype, emit.at(value, index))

    def settled(self, value: Value, index) -> str:
        """The register of a value per row, which nothing in the passes may be contracted with."""
        register = self.emit.at(value, index)
        kind = register_type(value.dtype)
        if not value.dtype.is_float:
            return register
        name = f"llvm.arithmetic.fence.f{64 if kind == 'double' else 32}"
        self.emit.declare(f"declare {kind} @{name}({kind})")
        return self.emit.inst(f"call {kind} @{name}({kind} {register})")

    def over(self, index, number: int, known: ExitStack) -> None:
        """Pass `number` over the row."""
        emit, rows = self.emit, self.rows
        reductions, stores = self.work(number)
        if not reductions and not stores:
            return
        kept = dict(self.outputs) | self.buffers
        kept = {v: p for v, p in kept.items() if number in rows.passes.get(v, ())}
        loads = {v: p for v, p in kept.items() if min(rows.passes[v]) < number}
        writes = [(v, p) for v, p in self.buffers.items()
                  if v in kept and min(rows.passes[v]) == number]
        sums = [emit.accumulator(op.regions[0], [emit.at(v, []) for v in op.operands[len(op.results):]])
                for op in reductions]

        def element(at: tuple[Index, ...]) -> None:
            whole = emit.linear(self.sample, at)
            inside: Index = 0
            for d in range(rows.kept, len(at)):
                inside = emit.iadd(emit.imul(inside, emit.extent(self.sample, d)), at[d])
            with ExitStack() as here:
                for value, pointer in loads.items():
                    position = inside if value in self.buffers else whole
                    register = emit.load_from(self.place(pointer, value, position), value.dtype)
                    here.enter_context(emit.given(value, register))
                made = [emit.at(v, at) for v, _ in (*writes, *stores)]
                for op, total in zip(reductions, sums, strict=True):
                    total.add([emit.at(v, at) for v in op.operands[:len(op.results)]])
                for number, ((value, pointer), register) in enumerate(
                        zip((*writes, *stores), made, strict=True)):
                    position = inside if number < len(writes) else whole
                    emit.store_to(self.place(pointer, value, position), value.dtype, register)

        def nest(at: tuple[Index, ...]) -> None:
            if len(at) == len(rows.shape):
                element(at)
                return
            innermost = len(at) + 1 == len(rows.shape)
            with emit.loop(0, emit.extent(self.sample, len(at)), independent=innermost
                           ) as i, emit.scope():
                nest((*at, i))

        divisors = {op.operands[1]: self.divisors[source] for op in self.block.ops
                    if number in rows.passes.get(op.results[0], ()) and _is_quotient(op, rows)
                    and (source := _spread(op.operands[1])) in self.divisors and source is not None}
        if divisors:
            fast, slow, done = (emit.fresh(p) for p in ("multiplied", "divided", "row"))
            emit.do(f"br i1 {emit.all([fits for _, fits in divisors.values()])},"
                    f" label %{fast}, label %{slow}")
            emit.block(fast)
            emit.reciprocals = {v: r for v, (r, _) in divisors.items()}
            with emit.scope():
                nest(index)
            emit.reciprocals = {}
            emit.do(f"br label %{done}")
            emit.block(slow)
            with emit.scope():
                nest(index)
            emit.do(f"br label %{done}")
            emit.block(done)
        else:
            nest(index)
        for op, total in zip(reductions, sums, strict=True):
            for value, register in zip(op.results, total.results(), strict=True):
                self.know(value, register, known)

    def know(self, value: Value, register: str, known: ExitStack) -> None:
        """A value of which there is one per row, in its register from here on."""
        known.enter_context(self.emit.given(value, register))
        if value in self.divided:
            self.divisors[value] = reciprocal(self.emit, register)

    def place(self, pointer: str, value: Value, position: Index) -> str:
        return self.emit.inst(
            f"getelementptr inbounds {value.dtype.storage}, ptr {pointer}, i64 {position}")


def collapsed(block: Block, rows: Rows) -> Block:
    """The block with one dim for the rows and one along them, where every value allows it."""
    rank, kept = len(rows.shape), rows.kept
    outer, inner = rows.shape[:kept], rows.shape[kept:]
    shapes = {(): (), rows.shape: (rows.count, rows.length), outer: (rows.count,)}
    if rank == 2 or (inner == outer):
        return block
    shapes[inner] = (rows.length,)
    forms = {(): (), tuple(range(kept)): (0,), tuple(range(kept, rank)): (1,)}
    for op in block.ops:
        if op.name == "stablehlo.broadcast_in_dim":
            if (tuple(op.attributes["broadcast_dimensions"]) not in forms
                    or tuple(op.result.shape) != rows.shape):
                return block
        elif op.name not in ("stablehlo.constant", "stablehlo.reduce") and not is_elementwise(op):
            return block
    if any(tuple(v.shape) not in shapes for v in (
            *block.arguments, *(r for op in block.ops for r in op.results))):
        return block
    flat = Block([a.type.with_shape(shapes[tuple(a.shape)]) for a in block.arguments])
    values = dict(zip(block.arguments, flat.arguments, strict=True))
    for op in block.ops:
        attributes = dict(op.attributes)
        if op.name == "stablehlo.broadcast_in_dim":
            attributes |= {"shape": shapes[rows.shape], "broadcast_dimensions": forms[
                tuple(op.attributes["broadcast_dimensions"])]}
        elif op.name == "stablehlo.reduce":
            attributes["dimensions"] = (1,)
        new = Op(op.definition, [values[o] for o in op.operands],
                 [r.type.with_shape(shapes[tuple(r.shape)]) for r in op.results],
                 attributes, op.regions, op.location)
        flat.ops.append(new)
        values.update(zip(op.results, new.results, strict=True))
    flat.returns = [values[v] for v in block.returns]
    return flat


def _is_quotient(op: Op, rows: Rows) -> bool:
    """A division of the elements of a row by one number."""
    return (op.name == "stablehlo.divide" and op.result.dtype is F32
            and tuple(op.result.shape) == rows.shape and (
                (c := _spread(op.operands[1])) in rows.single
                or (c is not None and c.op is not None and c.op.name == "stablehlo.reduce")))


def _spread(value: Value) -> Value | None:
    """What is spread along the rows."""
    op = value.op
    return op.operands[0] if op is not None and op.name == "stablehlo.broadcast_in_dim" else None


def _product(extents) -> Extent:
    total: Extent = 1
    for extent in extents:
        total = total * extent
    return total
