"""Recomputation: a value that is cheap to make from what is there anyway is made where it is read.

Backward passes read what forward passes made. Of a normalisation followed by an activation that is
the centred value, the value before the activation, and so on: each as large as the convolution's
result, each a few operations from it. What is left out is neither stored nor kept.

What there is one of per row, the mean in a layer normalisation, becomes a result of the kernel that
makes it.

The bits of what is made stay the same. A multiplication whose sum is contracted into one instruction
in one kernel must be in the other as well, so none is copied away from a sum, nor brought to another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..codegen.rows import rows_of
from ..codegen.work import DEAR
from ..ir.core import Block, Function, Op, Value, free_values, uses
from ..ir.rewrite import Rewriter, clone_op
from .fuse import MAX_OPS, SINGLE, is_alias, is_free
from .regions import REGION

CHEAP = 8
"""Operations on an element that cost less than reading it from memory."""

_FEW = 64
"""Elements of a row of which one number costs little to store."""

_SUMS = frozenset({"stablehlo.add", "stablehlo.subtract", "stablehlo.negate", "stablehlo.reduce"})
"""Ops into which LLVM may contract a multiplication, or through which it may look for one."""

_EXACT = frozenset({"divide", "sqrt", "remainder"})
"""Of the dear ops, those that do not end in a multiplication."""


def recompute(function: Function, target=None) -> Function:
    """Copy cheap elementwise ops from kernels that store their results into kernels that read them,
    where no value is needed longer than one of its size was before.

    Regions of control flow are left alone: apply it to them with `regions.everywhere`.
    """
    graph = _Graph(function)
    changed = False
    for kernel in list(graph.kernels):
        for value in list(kernel.results):
            changed |= graph.try_to_spare(kernel, value)
    return graph.rebuilt() if changed else function


@dataclass(eq=False)
class _Kernel:
    """A `tfn.kernel` under change: the function's values it reads and makes, and its region."""

    op: Op
    position: int
    operands: list[Value]
    results: list[Value]
    block: Block


@dataclass(frozen=True)
class _Chain:
    """How a result of a kernel is made: ops of its region, and the arguments they read."""

    ops: list[Op]
    large: list[Value]
    """Read an element for an element."""
    small: list[Value]
    """Broadcast: arguments as well, or what the kernel has one of per row."""


class _Graph:
    """The ops of a function, and which of them read what."""

    def __init__(self, function: Function):
        self.function = function
        self.kernels: list[_Kernel] = []
        self.by_op: dict[Op, _Kernel] = {}
        self.roots: dict[Value, Value] = {}
        self.readers: dict[Value, dict[_Kernel | Op, None]] = {}
        """Who reads a value itself; those who read it as another shape are under that."""
        self.positions: dict[Op, int] = {}
        self.aliases: dict[Value, list[Value]] = {}
        self.returned = set(function.returns)
        # A donated argument or the state of a loop is overwritten once it is not read any more.
        self.fleeting = {a for a, attributes in zip(
            function.arguments, function.argument_attributes, strict=True)
            if function.name == REGION or "tf.aliasing_output" in attributes}
        for position, op in enumerate(function.ops):
            self.positions[op] = position
            reader: _Kernel | Op = op
            if op.name == "tfn.kernel":
                reader = self.by_op[op] = _Kernel(op, position, list(op.operands), list(op.results),
                                                  op.regions[0])
                self.kernels.append(reader)
            elif is_alias(op):
                for operand, result in zip(op.operands, op.results, strict=True):
                    self.roots[result] = operand
                    self.aliases.setdefault(operand, []).append(result)
            for value in (*op.operands, *(v for r in op.regions for v in free_values(r))):
                self.readers.setdefault(value, {})[reader] = None

    # -- lifetimes --------------------------------------------------------------------------------

    def root(self, value: Value) -> Value:
        while value in self.roots:
            value = self.roots[value]
        return value

    def last(self, value: Value) -> int:
        """The position of the last op that reads the memory of `value`."""
        end = len(self.function.ops)
        return max((end if v in self.returned else max(map(self._at, self.readers.get(v, ())),
                                                       default=-1))
                   for v in self._same(self.root(value)))

    def _at(self, reader: _Kernel | Op) -> int:
        return reader.position if isinstance(reader, _Kernel) else self.positions[reader]

    def _same(self, root: Value) -> Iterator[Value]:
        yield root
        for view in self.aliases.get(root, ()):
            yield from self._same(view)

    def stays(self, value: Value) -> bool:
        """Is its memory there to the end, whoever reads it?"""
        root = self.root(value)
        if root.op is None:
            return root.owner is not self.function.body or root not in self.fleeting
        return root in self.returned or root.op.name == "stablehlo.constant" \
            or root.op not in self.positions

    # -- one value --------------------------------------------------------------------------------

    def try_to_spare(self, kernel: _Kernel, value: Value) -> bool:
        """Let readers of `value`, a result of `kernel`, make it themselves, if that spares memory."""
        readers = list(self.readers.get(value, ()))
        if not value.shape or value in self.returned or value in self.aliases or not readers:
            return False
        inner = kernel.block.returns[kernel.results.index(value)]
        chain = _chain(kernel.block, inner)
        if chain is None:
            return False
        able = [r for r in readers
                if isinstance(r, _Kernel) and self._can_make(r, value, chain, kernel)]
        kept_until = max((self._at(r) for r in readers if r not in able), default=kernel.position)
        far = [r for r in able if r.position > kept_until]
        more = any(self._outside(kernel, v) is None for v in chain.small)
        if (not far or (more and len(far) < len(readers))
                or not self._spares(kernel, value, chain, kept_until, far)):
            return False
        for reader in far:
            self._make_in(reader, value, inner, chain, kernel)
            del self.readers[value][reader]
        self._part(kernel, value if not self.readers[value] else None)
        return True

    def _outside(self, kernel: _Kernel, inner: Value) -> Value | None:
        """The function's value of what a region reads or makes; None where it is no result."""
        for inside, outside in ((kernel.block.arguments, kernel.operands),
                                (kernel.block.returns, kernel.results)):
            if inner in inside:
                return outside[inside.index(inner)]
        return None

    def _operand(self, kernel: _Kernel, inner: Value) -> Value:
        """The same; it becomes a result where it is none."""
        found = self._outside(kernel, inner)
        if found is None:
            found = Value(inner.type, kernel.op, len(kernel.results))
            block = Block()
            block.arguments, block.ops = kernel.block.arguments, kernel.block.ops
            block.returns = [*kernel.block.returns, inner]
            kernel.block = block
            kernel.results.append(found)
        return found

    def _can_make(self, reader: _Kernel, value: Value, chain: _Chain, kernel: _Kernel) -> bool:
        """Does a kernel read `value` only at the element it computes, and may it compute it?"""
        argument = reader.block.arguments[reader.operands.index(value)]
        ops = reader.block.ops
        if (argument in reader.block.returns or len(ops) + len(chain.ops) > MAX_OPS
                or any(op.name == "stablehlo.dynamic_update_slice" for op in ops)):
            return False
        leaders = [op for op in ops if op.name in SINGLE]
        if leaders and (len(ops) == 1 or leaders[0].name not in (
                "stablehlo.dot_general", "stablehlo.convolution", "tfn.winograd")):
            return False
        using = [op for op in ops if argument in op.operands]
        if leaders and any(tuple(value.shape) != tuple(leaders[0].result.shape) or op in leaders
                           for op in using):
            return False
        if not all(_is_elementwise(op) or op.name == "stablehlo.reduce" for op in using):
            return False
        root = chain.ops[-1]
        if _is_product(root) and any(op.name in _SUMS for op in using):
            return False
        large = {self._operand(kernel, v) for v in chain.large}
        return len(large - set(reader.operands)) <= 1

    def _spares(self, kernel: _Kernel, value: Value, chain: _Chain, kept_until: int,
                far: list[_Kernel]) -> bool:
        """Is no more memory needed at any time? One operand may live on in the place of `value`."""
        end = max(r.position for r in far)
        longer = []
        for argument in chain.large:
            operand = self._operand(kernel, argument)
            if self.stays(operand) or self.last(operand) >= end:
                continue
            root = self.root(operand)
            if (root in self.fleeting or root.type.size != value.type.size
                    or root.dtype.itemsize > value.dtype.itemsize or self.last(operand) < kept_until):
                return False
            longer.append(root)
        for argument in chain.small:
            known = self._outside(kernel, argument)
            if known is not None and self.root(known) in self.fleeting and self.last(known) < end:
                return False
        return len(set(longer)) <= 1

    # -- changes ----------------------------------------------------------------------------------

    def _make_in(self, reader: _Kernel, value: Value, inner: Value, chain: _Chain,
                 kernel: _Kernel) -> None:
        """Let `reader` compute `value`."""
        old, block = reader.block, Block()
        values: dict[Value, Value] = {}
        operands: list[Value] = []
        for argument, operand in zip(old.arguments, reader.operands, strict=True):
            if operand is not value:
                values[argument] = block.add_argument(argument.type)
                operands.append(operand)
        inside: dict[Value, Value] = {}
        for argument in (*chain.large, *chain.small):
            operand = self._operand(kernel, argument)
            if operand not in operands:
                operands.append(operand)
                block.add_argument(argument.type)
            inside[argument] = block.arguments[operands.index(operand)]
            self.readers.setdefault(operand, {})[reader] = None
        block.ops = [clone_op(op, inside) for op in chain.ops]
        for argument, operand in zip(old.arguments, reader.operands, strict=True):
            if operand is value:
                values[argument] = inside[inner]
        block.ops += [clone_op(op, values) for op in old.ops]
        block.returns = [values[v] for v in old.returns]
        reader.block, reader.operands = block, operands

    def _part(self, kernel: _Kernel, unread: Value | None) -> None:
        """Give a kernel a region of its own, without a result nobody reads and what only that
        needed."""
        kept = [v for v, result in zip(kernel.block.returns, kernel.results, strict=True)
                if result is not unread]
        kernel.results = [v for v in kernel.results if v is not unread]
        block, operands = part(kernel.block, kernel.operands, kept)
        for operand in kernel.operands:
            if operand not in operands:
                self.readers[operand].pop(kernel, None)
        kernel.block, kernel.operands = block, operands

    def rebuilt(self) -> Function:
        rewriter = Rewriter(self.function)
        for op in self.function.ops:
            kernel = self.by_op.get(op)
            if kernel is None or kernel.block is op.regions[0]:
                rewriter.copy(op)
            elif kernel.results:
                new = rewriter.append(op.definition, [rewriter[v] for v in kernel.operands],
                                      [v.type for v in kernel.results], op.attributes, [kernel.block],
                                      op.location)
                rewriter.values.update(zip(kernel.results, new.results, strict=True))
        return rewriter.finish()


def part(block: Block, operands: Sequence[Value], returns: Sequence[Value]
         ) -> tuple[Block, list[Value]]:
    """The region of a kernel that makes only `returns`, and the operands it reads."""
    needed = set(returns)
    ops = []
    for op in reversed(block.ops):
        if any(r in needed for r in op.results):
            ops.append(op)
            needed.update(op.operands)
            needed.update(v for region in op.regions for v in free_values(region))
    new, values = Block(), {}
    read = []
    for argument, operand in zip(block.arguments, operands, strict=True):
        if argument in needed:
            values[argument] = new.add_argument(argument.type)
            read.append(operand)
    new.ops = [clone_op(op, values) for op in reversed(ops)]
    new.returns = [values[v] for v in returns]
    return new, read


def _is_elementwise(op: Op) -> bool:
    return getattr(op.definition, "scalar", None) is not None


def _is_product(op: Op) -> bool:
    """Does it end in a multiplication of floats?"""
    name = op.name.rpartition(".")[2]
    return op.result.dtype.is_float and (name == "multiply" or (name in DEAR and name not in _EXACT))


def _divides_row(op: Op) -> bool:
    """A division by what is broadcast: vectors of quotients take no longer than reading them."""
    divisor = op.operands[-1].op
    return (op.name == "stablehlo.divide" and divisor is not None
            and divisor.name == "stablehlo.broadcast_in_dim")


def _chain(block: Block, value: Value) -> _Chain | None:
    """How `value` is made; None unless cheaply, element by element, with the same bits elsewhere."""
    ops: dict[Op, None] = {}
    large: dict[Value, None] = {}
    small: dict[Value, None] = {}
    rows = rows_of(block) if any(op.name == "stablehlo.reduce" for op in block.ops) else None
    per_row = {r for op in block.ops for r in op.results
               if rows is not None and tuple(r.shape) == rows.shape[:rows.kept]
               and _FEW * r.type.nominal_bytes <= value.type.nominal_bytes}

    def visit(v: Value, found: dict[Value, None]) -> bool:
        op = v.op
        if op is None or (found is small and v in per_row):
            found[v] = None
            return True
        if op in ops:
            return True
        if is_free(op):
            inner = small
        elif _is_elementwise(op) and v.shape == value.shape:
            inner = large
        else:
            return False
        if not all(visit(o, inner) for o in op.operands):
            return False
        ops[op] = None
        return True

    if value.op is None or is_free(value.op) or not visit(value, large):
        return None
    work = [op for op in ops if not is_free(op)]
    dear = [op for op in work if op.name.rpartition(".")[2] in DEAR]
    if not large or len(work) > CHEAP or len(dear) > 1 or not all(map(_divides_row, dear)):
        return None
    if not contracts_alike(block, work):
        return None
    return _Chain(list(ops), list(large), [v for v in small if v not in large])


def contracts_alike(block: Block, ops: Iterable[Op]) -> bool:
    """Are some of a kernel's ops the same instructions without the others? A sum takes a multiplication
    in only if it is its only reader."""
    users = uses(block)
    return not any(
        _is_product(op) and (op.result in block.returns or len(users[op.result]) > 1)
        and any(user.name in _SUMS for user in users.get(op.result, ())) for op in ops)
