"""One `tfn.kernel` op to one LLVM function.

    void kernel(ptr *buffers, i64 *extents, i64 *scalars, i64 first, i64 last, i64 lane, i64 phase)

`buffers` are operands, results, and scratch memory if the kernel asks for any, `extents` the run-time
sizes, `scalars` float constants. A call does the tasks from `first` to before `last` of a phase, on the
thread number `lane`. The text does not depend on any of them, nor on the batch size, so it is the key
of the kernel cache.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..ir.core import Block, Op, Value
from ..ir.dims import Extent
from ..ir.dtypes import DType
from ..passes.fuse import SINGLE
from . import mathlib
from .accumulate import accumulate, accumulates, adds_rows
from .contraction import contraction
from .convolution import convolution
from .emitter import Emitter, Outline
from .extents import Extents
from .flatten import flattened
from .gather import gather, gathering, pick, picking
from .gemm import gemm
from .matrix import is_matrix_product
from .overwrite import overwritable
from .rows import Rows, collapsed, emit_rows, rows_of
from .stream import finish_streams, inner_loop, is_streamed
from .target import Target
from .text import Index
from .transpose import transposed, transposition
from .update import update_window, updated
from .weight_gradient import weight_gradient
from .window import is_convolution, is_weight_gradient
from .winograd import is_winograd, winograd
from .work import Work, element_cost

LEADERS = ((is_matrix_product, gemm), (is_convolution, convolution), (is_winograd, winograd),
           (is_weight_gradient, weight_gradient))
"""Contractions with code of their own; all but the last also make what follows them."""

_PARTS, _PART = 16, 16
"""The most loops of a concatenation, and the fewest rounds of one."""

VERSION = "2"
"""Part of every cache key: raise it when the meaning of a kernel's text changes."""


@dataclass(frozen=True)
class Kernel:
    """A kernel's code and what one call of it needs."""

    name: str
    text: str
    """Empty when the plan it belongs to comes from the cache, as its machine code does."""
    extents: tuple[Extent, ...]
    scalars: tuple[tuple[Any, DType], ...]
    phases: tuple[Work, ...]
    scratch_bytes: Extent = 0
    lane_bytes: int = 0
    """Scratch memory of each thread."""


def emit_kernel(op: Op, target: Target) -> Kernel:
    """The LLVM text of a `tfn.kernel` op. Raises `UnsupportedError` for an op without code."""
    block, rows = _shaped(op.regions[0])
    pointers: dict[Value, str] = {}
    for i, value in enumerate(block.arguments):
        pointers[value] = f"%b{i}"
    names = [f"%b{i}" for i in range(len(block.arguments) + len(block.returns))]
    extents = Extents(block.ops, [*block.arguments, *block.returns])
    emit = Emitter(extents, pointers, target)
    outputs = list(zip(block.returns, names[len(block.arguments):], strict=True))
    single = [o for o in block.ops if o.name in SINGLE]
    leader = next((make for is_it, make in LEADERS if single and is_it(single[0])), None)
    if leader is not None:
        emit.pointers.update((v, p) for v, p in outputs if v is single[0].result)
        leader(emit, single[0], target, outputs)
    elif single:
        (only,) = single
        emit.pointers.update(outputs)
        number = updated(op)
        if number is not None:
            emit.pointers[block.arguments[number]] = outputs[0][1]
        if only.definition.contraction is not None:
            contraction(emit, only, target)
        else:
            only.definition.rule("kernel")(emit, only)
    elif transposition(block) is not None:
        transposed(emit, block.ops[0], outputs[0][1], target)
    elif (picked := picking(block)) is not None:
        pick(emit, picked, outputs[0][1], block.ops)
    elif gathering(block) is not None:
        gather(emit, block.ops[0], outputs[0][1])
    elif updated(op) is not None:
        (result, pointer), = outputs
        assert result.op is not None
        update_window(emit, result.op, pointer, block.ops)
    elif rows is not None:
        emit_rows(emit, rows, block, outputs)
    else:
        _element_loops(emit, outputs, block.ops)
    if emit.scratch_bytes != 0:
        names.append("%scratch")
    if emit.lane_bytes:
        names.append("%lanes")
    shared = {f"%b{n}" for pair in overwritable(op) for n in (pair[0], len(op.operands) + pair[1])}
    text = _assemble(emit, names, shared, target)
    digest = hashlib.sha256(
        "\0".join([VERSION, target.triple, target.cpu, target.features, text]).encode())
    name = f"k{digest.hexdigest()[:24]}"
    return Kernel(name, text.replace("@kernel", f"@{name}"), tuple(extents.arguments),
                  tuple(emit.scalars), tuple(p.work for p in emit.phases), emit.scratch_bytes,
                  emit.lane_bytes)


def _assemble(emit: Emitter, names: list[str], shared: set[str], target: Target) -> str:
    """The module. Memory of the parameters `shared` may be one."""
    count = len(emit.extents.arguments)
    tail = ["%scalars", "%first", "%last", "%lane"]
    typed = [f"ptr {n}" for n in names] + [f"i64 %n{i}" for i in range(count)]
    arguments = ", ".join([*typed, "ptr %scalars", *(f"i64 {t}" for t in tail[1:])])
    parameters = ", ".join([*(t if t.removeprefix("ptr ") in shared else
                              t.replace("ptr", "ptr noalias") for t in typed),
                            "ptr noalias %scalars", *(f"i64 {t}" for t in tail[1:])])
    load = []
    for i, name in enumerate(names):
        load += [f"  %p{i} = getelementptr ptr, ptr %buffers, i64 {i}",
                 f"  {name} = load ptr, ptr %p{i}, align 8"]
    for i in range(count):
        load += [f"  %q{i} = getelementptr i64, ptr %extents, i64 {i}",
                 f"  %n{i} = load i64, ptr %q{i}, align 8"]
    bodies = "\n".join([*(_outline(emit, o, parameters) for o in emit.outlines),
                        *(_body(emit, number, parameters) for number in range(len(emit.phases)))])
    bodies = bodies.replace("%arguments", arguments)
    declarations = "\n".join(sorted(emit.declarations))
    width = target.tile.bits
    library = mathlib.definitions(emit.functions, width)
    declared = set(declarations.split("\n"))
    library = "\n".join(line for line in library.split("\n") if line not in declared)
    return f"""\
{declarations}
{library}
{chr(10).join(emit.definitions.values())}
{bodies}
define void @kernel(ptr %buffers, ptr %extents, ptr %scalars, i64 %first, i64 %last, i64 %lane,
                    i64 %phase) #0 {{
{chr(10).join(load)}
{_dispatch(len(emit.phases), arguments)}
}}
attributes #1 = {{ noinline nounwind "prefer-vector-width"="{width}" }}
attributes #2 = {{ noinline nounwind "prefer-vector-width"="{width}" "no-trapping-math"="true" }}
attributes #0 = {{ nounwind "prefer-vector-width"="{width}" "no-trapping-math"="true" }}
{chr(10).join(emit.metadata)}
"""


def _body(emit: Emitter, number: int, parameters: str) -> str:
    """The function of one phase."""
    phase = emit.phases[number]
    workspace = f"""\
  %lanestart = mul i64 %lane, {emit.lane_bytes}
  %workspace = getelementptr i8, ptr %lanes, i64 %lanestart
""" if emit.lane_bytes else ""
    # Loops that convert numbers by a function are not finished.
    finished = emit.finished and not any("@tfn." in line for line in phase.lines)
    return _function(f"kernel.body{number}", parameters, 1 if finished else 0,
                     [*workspace.splitlines(), *phase.entry], phase.lines)


def _outline(emit: Emitter, outline: Outline, parameters: str) -> str:
    """A function that a phase calls."""
    return _function(outline.name, ", ".join([*outline.parameters, parameters]), 2, outline.entry,
                     outline.lines)


def _function(name: str, parameters: str, attributes: int, entry: list[str], lines: list[str]) -> str:
    return f"""\
define internal void @{name}({parameters}) #{attributes} {{
entry:
{chr(10).join(entry)}
  br label %start
start:
{chr(10).join(lines)}
  ret void
}}"""


def _dispatch(count: int, arguments: str) -> str:
    """Call the body of the phase."""
    calls = [f"  call void @kernel.body{i}({arguments})\n  ret void" for i in range(count)]
    if count < 2:
        return "".join(calls) or "  ret void"
    cases = " ".join(f"i64 {i}, label %phase{i}" for i in range(1, count))
    return "\n".join([f"  switch i64 %phase, label %phase0 [{cases}]",
                      *(f"phase{i}:\n{call}" for i, call in enumerate(calls))])


def _element_loops(emit: Emitter, outputs: list[tuple[Value, str]], ops: list[Op]) -> None:
    """A loop nest per distinct result shape, storing every result of that shape."""
    if accumulates([v for v, _ in outputs]):
        sums = [o for o in outputs if o[0].op is not None and adds_rows(o[0].op)]
        accumulate(emit, sums, [o for o in outputs if o not in sums])
        return
    by_shape: dict[tuple, list[tuple[Value, str]]] = {}
    for value, pointer in outputs:
        by_shape.setdefault(tuple(value.shape), []).append((value, pointer))
    for group in by_shape.values():
        value = group[0][0]
        # Tasks are the outermost loop, or the two outermost: the first may be a batch of one.
        shape = value.shape
        outer = min(len(shape), 2 if len(shape) > 2 else 1)
        cost = element_cost(ops, value)
        loop = inner_loop(emit, group, ops)
        with emit.phase(Work(tuple(shape[:outer]), cost=(cost, *shape[outer:]))):
            if outer == 0:
                _nest(emit, group, ())
                continue
            alone = outer == len(shape) == 1
            if alone and loop:
                loop((), "%first", "%last")
            else:
                with emit.loop("%first", "%last", independent=alone) as task, emit.scope():
                    if outer == 1:
                        _nest(emit, group, (task,), inner=loop)
                    else:
                        second = emit.extent(value, 1)
                        _nest(emit, group, (emit.idiv(task, second), emit.irem(task, second)),
                              inner=loop)
            if loop and is_streamed(emit, group, ops):
                finish_streams(emit)


def _nest(emit: Emitter, group, index, part: tuple[Value, int] | None = None,
          inner: Callable[[tuple, Index, Index], None] | None = None) -> None:
    """The loops from dim `len(index)` on; `part`: an operand of a concatenation, where it begins;
    `inner`: emits the innermost loop where it is not as any other."""
    first, d = group[0][0], len(index)
    # Where a result is written over an operand, each element is read where it is written.
    innermost = d + 1 == len(first.shape)
    if d < len(first.shape):
        if part is None and len(group) == 1 and _joins(first.op, d):
            start = 0
            for operand in first.op.operands:
                end = start + operand.shape[d]
                with emit.loop(start, end, independent=innermost) as i, emit.scope():
                    _nest(emit, group, (*index, i), (operand, start))
                start = end
            return
        if inner and innermost:
            inner(index, 0, emit.extent(first, d))
            return
        with emit.loop(0, emit.extent(first, d), independent=innermost) as i, emit.scope():
            _nest(emit, group, (*index, i), part, inner)
        return
    if part is None:
        registers = [emit.at(value, index) for value, _ in group]
    else:
        source, start = part
        axis = first.op.attributes["dimension"]
        registers = [emit.at(source, [emit.isub(i, start) if e == axis else i
                                      for e, i in enumerate(index)])]
    position = emit.linear(first, index)
    for (value, pointer), register in zip(group, registers, strict=True):
        place = emit.inst(
            f"getelementptr inbounds {value.dtype.storage}, ptr {pointer}, i64 {position}")
        emit.store_to(place, value.dtype, register)


def _joins(op: Op | None, d: int) -> bool:
    """Is it a concatenation along dim `d` of parts that repay a loop each? One loop would ask for every
    element which part it is of."""
    return (op is not None and op.name == "stablehlo.concatenate" and op.attributes["dimension"] == d
            and len(op.operands) <= _PARTS
            and all(isinstance(v.shape[d], int) and v.shape[d] >= _PART for v in op.operands))


def _shaped(block: Block) -> tuple[Block, Rows | None]:
    """The region with as few dims as its loops need, and how its rows are reduced if they are."""
    rows = rows_of(block)
    if rows is None:
        return flattened(block), None
    flat = collapsed(block, rows)
    return flat, rows if flat is block else rows_of(flat)
