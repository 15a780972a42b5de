"""One `tfn.kernel` op to one LLVM function.

    void kernel(ptr *buffers, i64 *extents, i64 *scalars)

`buffers` are operands, results, and scratch memory if the kernel asks for any, `extents` the run-time
sizes, `scalars` float constants. The text does not depend on any of them, nor on the batch size, so it
is the key of the kernel cache.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from ..ir.core import Block, Op, Value
from ..ir.dims import Extent
from ..ir.dtypes import DType
from ..ops.reduction import combiner
from ..passes.fuse import SINGLE, adds_rows
from . import mathlib
from .contraction import contraction
from .emitter import Emitter
from .extents import Extents
from .target import Target
from .text import literal

VERSION = "1"
"""Part of every cache key: raise it when the meaning of a kernel's text changes."""


@dataclass(frozen=True)
class Kernel:
    """A kernel's code and what one call of it needs."""

    name: str
    text: str
    extents: tuple[Extent, ...]
    scalars: tuple[tuple[Any, DType], ...]
    scratch_bytes: Extent = 0


def emit_kernel(op: Op, target: Target) -> Kernel:
    """The LLVM text of a `tfn.kernel` op. Raises `UnsupportedError` for an op without code."""
    block = _flattened(op.regions[0])
    pointers: dict[Value, str] = {}
    for i, value in enumerate(block.arguments):
        pointers[value] = f"%b{i}"
    names = [f"%b{i}" for i in range(len(block.arguments) + len(block.returns))]
    extents = Extents(block.ops, [*block.arguments, *block.returns])
    emit = Emitter(extents, pointers)
    outputs = list(zip(block.returns, names[len(block.arguments):], strict=True))
    single = [o for o in block.ops if o.name in SINGLE]
    if single:
        (only,) = single
        emit.pointers.update(outputs)
        if only.definition.contraction is not None:
            contraction(emit, only, target)
        else:
            only.definition.rule("kernel")(emit, only)
    else:
        _element_loops(emit, outputs)
    if emit.scratch_bytes != 0:
        names.append("%scratch")
    text = _assemble(emit, names, target)
    digest = hashlib.sha256(
        "\0".join([VERSION, target.triple, target.cpu, target.features, text]).encode())
    name = f"k{digest.hexdigest()[:24]}"
    return Kernel(name, text.replace("@kernel", f"@{name}"), tuple(extents.arguments),
                  tuple(emit.scalars), emit.scratch_bytes)


def _assemble(emit: Emitter, names: list[str], target: Target) -> str:
    count = len(emit.extents.arguments)
    parameters = [f"ptr noalias {n}" for n in names]
    parameters += [f"i64 %n{i}" for i in range(count)] + ["ptr noalias %scalars"]
    arguments = [f"ptr {n}" for n in names] + [f"i64 %n{i}" for i in range(count)]
    arguments += ["ptr %scalars"]
    load = []
    for i, name in enumerate(names):
        load += [f"  %p{i} = getelementptr ptr, ptr %buffers, i64 {i}",
                 f"  {name} = load ptr, ptr %p{i}, align 8"]
    for i in range(count):
        load += [f"  %q{i} = getelementptr i64, ptr %extents, i64 {i}",
                 f"  %n{i} = load i64, ptr %q{i}, align 8"]
    body = "\n".join(emit.lines)
    entry = "\n".join(emit.entry)
    declarations = "\n".join(sorted(emit.declarations))
    library = mathlib.definitions(emit.functions)
    declared = set(declarations.split("\n"))
    library = "\n".join(line for line in library.split("\n") if line not in declared)
    width = target.tile.bits
    return f"""\
{declarations}
{library}
define internal void @kernel.body({', '.join(parameters)}) #0 {{
entry:
{entry}
  br label %start
start:
{body}
  ret void
}}
define void @kernel(ptr %buffers, ptr %extents, ptr %scalars) #0 {{
{chr(10).join(load)}
  call void @kernel.body({', '.join(arguments)})
  ret void
}}
attributes #0 = {{ nounwind "prefer-vector-width"="{width}" "no-trapping-math"="true" }}
"""


def _element_loops(emit: Emitter, outputs: list[tuple[Value, str]]) -> None:
    """A loop nest per distinct result shape, storing every result of that shape."""
    by_shape: dict[tuple, list[tuple[Value, str]]] = {}
    for value, pointer in outputs:
        by_shape.setdefault(tuple(value.shape), []).append((value, pointer))
    for group in by_shape.values():
        value, pointer = group[0]
        if len(group) == 1 and value.op is not None and adds_rows(value.op):
            _accumulate(emit, value, pointer)
            continue
        _nest(emit, group, ())


def _nest(emit: Emitter, group, index) -> None:
    first = group[0][0]
    if len(index) < len(first.shape):
        with emit.loop(0, emit.extent(first, len(index))) as i, emit.scope():
            _nest(emit, group, (*index, i))
        return
    registers = [emit.at(value, index) for value, _ in group]
    position = emit.linear(first, index)
    for (value, pointer), register in zip(group, registers, strict=True):
        place = emit.inst(
            f"getelementptr inbounds {value.dtype.storage}, ptr {pointer}, i64 {position}")
        emit.store_to(place, value.dtype, register)


def _accumulate(emit: Emitter, value: Value, pointer: str) -> None:
    """Columns added up row by row: that streams through memory."""
    op = value.op
    assert op is not None
    x, initial = op.operands
    dims = sorted(op.attributes["dimensions"])
    kept = [d for d in range(len(x.shape)) if d not in dims]
    emit.pointers[value] = pointer
    columns = emit.extent(x, kept[-1])
    partial = _partial_rows(emit, op, dims)

    def each_column(at: dict[int, Any], row: int, element) -> None:
        """Store `element(old, at)` in each place of a row: partial sums, or (-1) the result."""
        with emit.loop(0, columns) as j, emit.scope():
            full = {**at, kept[-1]: j}
            if row < 0:
                place = emit.pointer(value, [full[d] for d in kept])
            else:
                place = emit.inst(f"getelementptr inbounds {value.dtype.storage}, ptr {partial[row]},"
                                  f" i64 {j}")
            emit.store_to(place, value.dtype, element(place, full))

    def combined(more):
        def element(place: str, full: dict[int, Any]) -> str:
            old = emit.load_from(place, value.dtype)
            return emit.region(op.regions[0], [old, more(full)])[0]
        return element

    def rows(at: dict[int, Any], rest: list[int], into: int) -> None:
        if not rest:
            each_column(at, into, combined(
                lambda full: emit.at(x, [full[d] for d in range(len(x.shape))])))
            return
        row = len(dims) - len(rest)
        extent = emit.extent(x, rest[0])
        step = 1 if row or row not in partial or len(rest) > 1 else _ROWS
        with emit.loop(0, extent, step) as i, emit.scope():
            if row not in partial:
                rows({**at, rest[0]: i}, rest[1:], into)
                return
            each_column(at, row, lambda *_: literal(-0.0, value.dtype))
            if step == 1:
                rows({**at, rest[0]: i}, rest[1:], row)
            else:
                with emit.loop(i, emit.imin(emit.iadd(i, step), extent)) as k, emit.scope():
                    rows({**at, rest[0]: k}, [], row)
            each_column(at, into, combined(lambda full: emit.load_from(emit.inst(
                f"getelementptr inbounds {value.dtype.storage}, ptr {partial[row]},"
                f" i64 {full[kept[-1]]}"), value.dtype)))

    def outer(at: dict[int, Any], rest: list[int]) -> None:
        if rest:
            with emit.loop(0, emit.extent(x, rest[0])) as i, emit.scope():
                outer({**at, rest[0]: i}, rest[1:])
            return
        each_column(at, -1, lambda *_: emit.at(initial, []))
        rows(at, dims, -1)

    outer({}, kept[:-1])
    del emit.pointers[value]


_ROWS = 256
"""Rows added to a partial sum before it is added to the result."""


def _partial_rows(emit: Emitter, op: Op, dims: list[int]) -> dict[int, str]:
    """Pointers to rows of partial sums, by the number of the reduced dim they begin anew with.

    One running sum of n numbers has an error that grows with n: over the 100,000 pixels of a batch
    40 times that of XLA's. Sums of the inner dims, added up in turn, keep it small.
    """
    x = op.operands[0]
    if combiner(op.regions[0]) != "add" or not x.dtype.is_float:
        return {}
    numbers = [0] if len(dims) == 1 else _boundaries([emit.extent(x, d) for d in dims])
    width = max(d for d in range(len(x.shape)) if d not in dims)
    size = x.type.with_shape((x.shape[width],)).nbytes
    columns = emit.extent(x, width)
    found = {}
    for place, number in enumerate(numbers):
        base = emit.scratch(emit.scratch_bytes + size)
        found[number] = emit.inst(f"getelementptr inbounds {x.dtype.storage}, ptr {base},"
                                  f" i64 {emit.imul(columns, place)}")
    return found


def _boundaries(extents: list[int | str]) -> list[int]:
    """The reduced dims in each round of which a partial sum begins, one for every 16 rows or more."""
    found, rows = [], 1
    for number in range(len(extents) - 2, -1, -1):
        extent = extents[number + 1]
        rows *= extent if isinstance(extent, int) else 16
        if rows >= 16:
            found.append(number)
            rows = 1
    return found


def _flattened(block: Block) -> Block:
    """The region as a 1-d one when it is elementwise throughout: one loop for every shape."""
    shapes = {tuple(v.shape) for v in (*block.arguments, *block.returns) if v.shape}
    if len(shapes) != 1:
        return block
    (shape,) = shapes
    if len(shape) < 2:
        return block
    for op in block.ops:
        splat = op.name == "stablehlo.broadcast_in_dim" and not op.operands[0].shape
        constant = op.name == "stablehlo.constant"
        if not (splat or constant or getattr(op.definition, "scalar", None) is not None):
            return block
    total = block.returns[0].type.size
    flat = Block([a.type.with_shape((total,)) if a.shape else a.type for a in block.arguments])
    values = dict(zip(block.arguments, flat.arguments, strict=True))
    for op in block.ops:
        attributes = dict(op.attributes)
        if op.name == "stablehlo.broadcast_in_dim":
            attributes["shape"] = (total,)
        new = Op(op.definition, [values[o] for o in op.operands],
                 [r.type.with_shape((total,)) if r.shape else r.type for r in op.results],
                 attributes, op.regions, op.location)
        flat.ops.append(new)
        values.update(zip(op.results, new.results, strict=True))
    flat.returns = [values[v] for v in block.returns]
    return flat


