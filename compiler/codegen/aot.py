"""Ahead of time: functions to one object file that needs no runtime.

Each function becomes an exported symbol

    void symbol(const int64_t *dims, const void *const *arguments, void *const *results, void *arena)

that calls its kernels one after the other. Constants (the weights of a model) are read-only data in
the object, sizes and offsets are computed from the symbolic dims, and nothing is allocated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from ..errors import CompileError, UnsupportedError
from ..ir.core import Function, TensorType
from ..ir.dims import Extent
from ..ir.rewrite import Rewriter
from ..ops.declare import definition
from ..runtime.plan import Jump, Place, Plan, make_plan
from .native import compile_linked
from .target import Target
from .work import Work


@dataclass(frozen=True)
class Entry:
    """One exported function: what a caller must pass."""

    symbol: str
    arguments: tuple[TensorType, ...]
    results: tuple[TensorType, ...]
    dims: tuple[str, ...]
    """Names of the symbolic dims, in the order of the `dims` array."""
    arena_bytes: Extent
    """Bytes of scratch memory, 64-byte aligned, as an affine expression of the dims."""


@dataclass(frozen=True)
class CompiledObject:
    """An object file for `target` and its entries by name."""

    image: bytes
    entries: dict[str, Entry]
    target: Target
    kernels: int


def freeze(function: Function, constants: Mapping[int, np.ndarray]) -> Function:
    """`function` with the arguments numbered in `constants` fixed to those arrays."""
    from ..ir.core import Block

    rewriter = Rewriter(function)
    kept = [i for i in range(len(function.arguments)) if i not in constants]
    rewriter.block = Block([function.arguments[i].type for i in kept])
    for new, i in zip(rewriter.block.arguments, kept, strict=True):
        rewriter.values[function.arguments[i]] = new
    for i, array in constants.items():
        op = rewriter.append(definition("stablehlo.constant"), (), None,
                             {"value": np.ascontiguousarray(array)})
        rewriter.values[function.arguments[i]] = op.result
    for op in function.ops:
        rewriter.copy(op)
    frozen = rewriter.finish()
    return Function(frozen.name, frozen.body, [function.argument_attributes[i] for i in kept],
                    function.result_attributes, function.public)


def emit_object(functions: Mapping[str, Function], target: Target) -> CompiledObject:
    """Compile functions for `target`, one exported symbol each (the key of `functions`).

    Raises `UnsupportedError` for an op without code or a program with collectives, `CompileError`
    when LLVM cannot generate code for the target.
    """
    from ..compile import run_passes

    texts: dict[str, str] = {}
    entries, bodies = {}, []
    placeholders: dict[bytes, bytes] = {}
    for symbol, function in functions.items():
        # Files do not depend on the environment.
        fused = run_passes(function, target, fast_convolution=False)
        plan = make_plan(fused, target, threads=1)
        for kernel in plan.kernels():
            texts[kernel.name] = kernel.text
        entries[symbol] = Entry(symbol, fused.argument_types, fused.result_types,
                                fused.dim_names, plan.arena_bytes)
        body = _Entry(symbol, plan, fused.dim_names)
        bodies.append(body.text())
        placeholders |= body.placeholders
    image = compile_linked([*texts.values(), *bodies], list(functions), target)
    return CompiledObject(_fill(image, placeholders), entries, target, len(texts))


# Writing a large constant as LLVM text and parsing it again costs 0.5 s and 25 MB per MB.
_LITERAL_BYTES = 4096
"""A larger constant is compiled as a placeholder, and its bytes are put into the object."""


def _placeholder(data: bytes, name: str) -> bytes:
    """What stands at the beginning of the constant `name` until it is filled."""
    return b"tfn constant " + sha256(name.encode() + b"\0" + data).digest()


def _fill(image: bytes, placeholders: Mapping[bytes, bytes]) -> bytes:
    """The object with every placeholder replaced; one that nothing uses is not in it."""
    filled = bytearray(image)
    for mark, data in placeholders.items():
        place = filled.find(mark)
        if place < 0:
            continue
        rest, end = place + len(mark), place + len(data)
        if filled.count(mark) != 1 or filled.count(0, rest, end) != end - rest:
            raise CompileError("a constant is not in one piece in the object file")
        filled[place:end] = data
    return bytes(filled)


class _Entry:
    """The LLVM text of one entry."""

    def __init__(self, symbol: str, plan: Plan, dims: tuple[str, ...]):
        self.symbol, self.plan, self.dims = symbol, plan, dims
        self.lines: list[str] = []
        self.globals: list[str] = []
        self.placeholders: dict[bytes, bytes] = {}
        self.declared: set[str] = set()
        self.count = 0

    def inst(self, text: str) -> str:
        self.count += 1
        self.lines.append(f"  %r{self.count} = {text}")
        return f"%r{self.count}"

    def extent(self, value: Extent) -> str:
        if isinstance(value, int):
            return str(value)
        total = str(value.constant)
        for name, coefficient in value.terms:
            term = self.inst(f"mul i64 %dim{self.dims.index(name)}, {coefficient}")
            total = self.inst(f"add i64 {total}, {term}")
        return total

    def tasks(self, work: Work) -> str:
        """The number of tasks, all of which one thread does."""
        total = "1"
        for extent, step in work.axes:
            up = self.inst(f"add i64 {self.extent(extent)}, {step - 1}")
            total = self.inst(f"mul i64 {total}, {self.inst(f'udiv i64 {up}, {step}')}")
        return total

    def pointer(self, place: Place) -> str:
        if place.base == "arena":
            base = "%arena"
        elif place.base == "constant":
            base = f"@{self.symbol}.constant{place.number}"
        else:
            slot = self.inst(f"getelementptr ptr, ptr %{place.base}s, i64 {place.number}")
            base = self.inst(f"load ptr, ptr {slot}")
        return self.inst(f"getelementptr i8, ptr {base}, i64 {self.extent(place.offset)}")

    def text(self) -> str:
        widest = max((len(s.places) for s in self.plan.steps), default=1)
        extents = max((len(s.extents) for s in self.plan.steps), default=1)
        self.lines += [f"  %buffers = alloca ptr, i64 {widest}, align 8",
                       f"  %extents = alloca i64, i64 {max(extents, 1)}, align 8"]
        for i in range(len(self.dims)):
            self.lines += [f"  %dimp{i} = getelementptr i64, ptr %dims, i64 {i}",
                           f"  %dim{i} = load i64, ptr %dimp{i}"]
        targets = {s.jump.target for s in self.plan.steps if s.jump is not None}
        for number, step in enumerate(self.plan.steps):
            if number in targets:
                self.lines += [f"  br label %step{number}", f"step{number}:"]
            self._step(number, step)
        if len(self.plan.steps) in targets:
            end = f"step{len(self.plan.steps)}"
            self.lines += [f"  br label %{end}", f"{end}:"]
        for i, constant in enumerate(self.plan.constants):
            self.globals.append(self._constant(f"{self.symbol}.constant{i}", constant.tobytes()))
        body = "\n".join(self.lines)
        head = "\n".join([*self.globals, *sorted(self.declared)])
        return (f"{head}\ndefine void @{self.symbol}(ptr %dims, ptr %arguments, ptr %results,"
                f" ptr %arena) nounwind {{\nentry:\n{body}\n  ret void\n}}\n")

    def _constant(self, name: str, data: bytes) -> str:
        """The definition of a constant."""
        if len(data) <= _LITERAL_BYTES:
            return f"@{name} = internal constant {_bytes(data)}, align 64"
        mark = _placeholder(data, name)
        self.placeholders[mark] = data
        rest = f"[{len(data) - len(mark)} x i8]"
        # externally_initialized: the optimiser must not take the placeholder for the value.
        return (f"@{name} = internal externally_initialized constant"
                f" <{{ [{len(mark)} x i8], {rest} }}> <{{ {_bytes(mark)}, {rest}"
                " zeroinitializer }>, align 64")

    def _step(self, number: int, step) -> None:
        if step.collective is not None:
            raise UnsupportedError(f"{step.collective.name} cannot be exported: export the program"
                                   " before it is partitioned", step.collective.location)
        if step.host is not None:
            raise UnsupportedError(f"{step.host.name} runs in Python and cannot be exported to"
                                   " machine code", step.host.location)
        pointers = [self.pointer(p) for p in step.places]
        if step.jump is not None:
            self._jump(number, step.jump, pointers)
            return
        if step.kernel is None:
            self.declared.add("declare void @llvm.memmove.p0.p0.i64(ptr, ptr, i64, i1)")
            self.lines.append(f"  call void @llvm.memmove.p0.p0.i64(ptr {pointers[1]}, ptr"
                              f" {pointers[0]}, i64 {self.tasks(step.work)}, i1 false)")
            return
        for i, pointer in enumerate(pointers):
            slot = self.inst(f"getelementptr ptr, ptr %buffers, i64 {i}")
            self.lines.append(f"  store ptr {pointer}, ptr {slot}")
        for i, extent in enumerate(step.extents):
            value = self.extent(extent)
            slot = self.inst(f"getelementptr i64, ptr %extents, i64 {i}")
            self.lines.append(f"  store i64 {value}, ptr {slot}")
        scalars = "null"
        if step.kernel.scalars:
            from ..compile import scalar_words

            values = scalar_words(step.kernel.scalars)
            assert values is not None
            words = ", ".join(f"i64 {w}" for w in values)
            scalars = f"@{self.symbol}.scalars{number}"
            self.globals.append(f"{scalars} = internal constant"
                                f" [{len(step.kernel.scalars)} x i64] [{words}], align 8")
        self.declared.add(f"declare void @{step.kernel.name}(ptr, ptr, ptr, i64, i64, i64, i64)")
        self.lines.append(f"  call void @{step.kernel.name}(ptr %buffers, ptr %extents, ptr {scalars},"
                          f" i64 0, i64 {self.tasks(step.work)}, i64 0, i64 {step.phase})")

    def _jump(self, number: int, jump: Jump, pointers: list[str]) -> None:
        onward = f"on{number}"
        if jump.width:
            value = self.inst(f"load i{8 * jump.width}, ptr {pointers[0]}")
            goes_on = self.inst(f"icmp eq i{8 * jump.width} {value}, {jump.unless}")
            self.lines.append(f"  br i1 {goes_on}, label %{onward}, label %step{jump.target}")
        else:
            self.lines.append(f"  br label %step{jump.target}")
        self.lines.append(f"{onward}:")


def _bytes(data: bytes) -> str:
    """Bytes as typed LLVM text."""
    return f"[{len(data)} x i8] c\"" + "".join(f"\\{b:02x}" for b in data) + "\""
