"""Fusion: group ops into kernels.

Greedy, producer into consumer, in reverse program order. A group becomes one kernel
(`codegen/kernel.py`), so the rules below say what one loop nest can hold without computing anything
twice. What the plan does for free (reshapes, leading slices, large constants) stays outside.
"""

from __future__ import annotations

from ..codegen.accumulate import adds_rows
from ..codegen.emitter import is_splat
from ..codegen.gather import picks
from ..codegen.matrix import is_matrix_product
from ..codegen.transpose import is_turned
from ..codegen.window import is_convolution
from ..codegen.winograd import is_winograd
from ..ir.core import Block, Function, Op, Value, free_values
from ..ir.rewrite import Rewriter
from ..ops.declare import definition
from .regions import CONTROL

# LLVM's time grows faster than the block; the largest useful bodies (Threefry) have about 130.
MAX_OPS = 400

_MOST_PARTS, _LARGE, _LINE = 16, 1 << 16, 64
"""Parts of a concatenation that are made in place, and bytes: of all of it, of a line of the cache."""

FREE = frozenset({"stablehlo.iota", "stablehlo.broadcast_in_dim"})
"""Ops that cost nothing inside a loop: copied into every kernel that reads them."""

SINGLE = frozenset({"stablehlo.dot_general", "stablehlo.convolution", "stablehlo.scatter",
                    "stablehlo.select_and_scatter", "stablehlo.sort", "tfn.first_sorted",
                    "tfn.cumulative", "tfn.attention", "tfn.attention_backward", "tfn.lstm",
                    "tfn.lstm_backward", "tfn.gru", "tfn.gru_backward", "tfn.simple_rnn",
                    "tfn.simple_rnn_backward", "tfn.winograd", "tfn.winograd_kernel"})
"""Ops whose operands are buffers. They are a kernel alone, but for what follows a matrix product or a
convolution."""

REVISITING = frozenset({"stablehlo.broadcast_in_dim", "stablehlo.gather",
                        "stablehlo.reduce_window"})
"""Ops that read an operand element more than once: a computed operand is stored first."""


def is_alias(op: Op) -> bool:
    """A result that is its operand's memory under another type: the plan's business."""
    if op.name == "stablehlo.optimization_barrier":
        return True
    if op.name == "stablehlo.reshape":
        return True
    if op.name == "stablehlo.slice":
        x = op.operands[0]
        return (len(x.shape) > 0 and tuple(x.shape[1:]) == tuple(op.result.shape[1:])
                and op.attributes["strides"][0] == 1)
    return False


def is_planned(op: Op) -> bool:
    """Ops that never enter a kernel."""
    if op.name == "stablehlo.constant":
        return not is_splat(op.attributes["value"])
    return is_alias(op) or op.has_effect or op.definition.host or op.name in CONTROL


def is_free(op: Op | None) -> bool:
    return op is not None and (
        op.name in FREE or (op.name == "stablehlo.constant" and not is_planned(op)))


def may_fuse(producer: Op, consumer: Op) -> bool:
    """May `producer` be computed inside the kernel of `consumer`, which reads it?"""
    if consumer.name == "stablehlo.scatter" or picks(consumer):
        return _indexes(producer, consumer)
    if consumer.name in SINGLE or is_planned(consumer) or is_joined(consumer) or is_joined(producer):
        return False
    if producer.name in SINGLE:
        leads = is_matrix_product(producer) or is_convolution(producer) or is_winograd(producer)
        return leads and follows(consumer, producer)
    # Elements are turned over faster as squares than read in another order.
    if consumer.name in REVISITING or is_turned(producer) or is_turned(consumer):
        return False
    if producer.definition.pointwise:
        return True
    # Sums of columns are kernels of their own: those add whole rows, an element at a time would
    # stride through memory.
    if adds_rows(producer):
        return False
    # A reduction runs once per result element only under elementwise consumers of its shape.
    return (producer.name in ("stablehlo.reduce", "stablehlo.reduce_window")
            and getattr(consumer.definition, "scalar", None) is not None
            and consumer.result.shape == producer.results[0].shape)


def is_joined(op: Op) -> bool:
    """A concatenation whose parts are made by kernels of their own, each of which can store its result
    where it belongs (`runtime/parts.py`)."""
    if op.name != "stablehlo.concatenate" or part_offsets(op) is None:
        return False
    apart = sum(v.type.nominal_bytes for v in op.operands if _made_apart(v))
    return 2 * apart >= op.result.type.nominal_bytes


def part_offsets(op: Op) -> list[int] | None:
    """Where each part of a concatenation is in the result, in bytes. None where that is not one piece
    of memory, which begins with a line of the cache, or where it is not worth a step of the plan."""
    shape, d = op.result.shape, op.attributes["dimension"]
    sizes = [n for v in op.operands if isinstance(n := v.type.nbytes, int)]
    if (not all(isinstance(e, int) for e in shape) or any(e != 1 for e in shape[:d])
            or len(sizes) > _MOST_PARTS or min(sizes) == 0 or op.result.type.nbytes < _LARGE):
        return None
    offsets = [sum(sizes[:i]) for i in range(len(sizes))]
    return offsets if len(sizes) > 1 and not any(offset % _LINE for offset in offsets) else None


def _made_apart(value: Value, depth: int = 6) -> bool:
    """Is it what a kernel makes that no concatenation can be part of, or what follows in there?"""
    op = value.op
    if op is None or depth == 0 or is_free(op):
        return False
    if op.name == "stablehlo.reshape" or getattr(op.definition, "scalar", None) is not None:
        return any(_made_apart(v, depth - 1) for v in op.operands if v.type.size == value.type.size)
    return op.name in SINGLE or is_turned(op) or adds_rows(op)


def _indexes(producer: Op, consumer: Op) -> bool:
    """Is it what the indices of a scatter or of what picks are, element by element? Each is looked at
    once or twice."""
    return (getattr(producer.definition, "scalar", None) is not None
            and list(consumer.operands).count(producer.result) == 1
            and consumer.operands[1] is producer.result)


def follows(op: Op, product: Op) -> bool:
    """Can `op` be done on a block of `product` that was just made? Elementwise, in its memory."""
    return getattr(op.definition, "scalar", None) is not None and all(
        r.shape == product.result.shape for r in op.results)


class _Group:
    def __init__(self, root: Op):
        self.ops: list[Op] = [root]
        self.product: Op | None = None
        """The matrix product the others follow."""
        self.shape = root.results[0].shape if root.results else ()


def fuse(function: Function, target=None) -> Function:
    """`function` with every op inside a `tfn.kernel`, but for what the plan does for free.

    Regions of control flow are left alone: apply it to them with `regions.everywhere`.
    """
    function = _sunk(function)
    readers = _readers(function)
    returned = set(function.returns)
    group: dict[Op, _Group] = {}
    for op in reversed(function.ops):
        if is_planned(op) or (is_free(op) and not _must_exist(op, readers, returned)):
            continue
        home = _home(op, readers, returned, group)
        if home is None:
            group[op] = _Group(op)
        else:
            home.ops.append(op)
            group[op] = home
            if op.name in SINGLE:
                home.product = op
    return _build(function, group, readers, returned)


def _sunk(function: Function) -> Function:
    """Free constants of outer functions, copied into a region: they cost nothing there."""
    outer = [v.op for v in free_values(function.body)
             if v.op is not None and _is_free_constant(v)]
    if not outer:
        return function
    rewriter = Rewriter(function)
    for op in outer:
        rewriter.copy(op)
    for op in function.ops:
        rewriter.copy(op)
    return rewriter.finish()


def _is_free_constant(value: Value) -> bool:
    return value.op is not None and is_free(value.op) and not value.op.operands


def _readers(function: Function) -> dict[Value, list[Op]]:
    """The ops that read a value; control flow reads what its regions take from outside."""
    table: dict[Value, list[Op]] = {}
    for op in function.ops:
        outside = [v for region in op.regions for v in free_values(region)
                   if not _is_free_constant(v)]
        for value in (*op.operands, *outside):
            table.setdefault(value, []).append(op)
    return table


def _must_exist(op: Op, readers, returned) -> bool:
    """A free op is materialised when it is returned, or read by something that needs a buffer."""
    return any(r in returned or any(_needs_buffer(reader, r) for reader in readers.get(r, ()))
               for r in op.results)


def _needs_buffer(reader: Op, value: Value) -> bool:
    if reader.name in ("stablehlo.sort", "tfn.first_sorted") and value.op is not None:
        return value.op.name != "stablehlo.iota"  # Which is what a sort counts by itself.
    if reader.name == "stablehlo.scatter":
        return False
    return reader.name in SINGLE or is_planned(reader)


def _home(op: Op, readers, returned, group) -> _Group | None:
    """The one group that reads `op` and may compute it; None when it needs a kernel of its own."""
    consumers = {reader for r in op.results for reader in readers.get(r, ())}
    homes: set[_Group] = set()
    for consumer in _through_free(consumers, readers, returned):
        if consumer not in group or not may_fuse(op, consumer):
            return None
        homes.add(group[consumer])
    if len(homes) != 1 or any(is_free(c) for c in consumers):
        return None
    (home,) = homes
    if len(home.ops) >= MAX_OPS:
        return None
    if home.ops[0].name == "stablehlo.scatter" and (
            getattr(op.definition, "scalar", None) is None or any(r in returned for r in op.results)):
        return None
    kept = any(r in returned for r in op.results)
    if op.name in SINGLE and not _takes(home, op, returned):
        return None
    if home.product is not None and not (follows(op, home.product) and op.result.shape == home.shape):
        return None
    # A result that is also needed outside is stored by the same loop, if the loop visits it.
    if kept and (op.results[0].shape != home.shape
                 or getattr(op.definition, "scalar", None) is None):
        return None
    return home


def _takes(home: _Group, product: Op, returned) -> bool:
    """Do all ops of a group follow the product?"""
    root = home.ops[0]
    return (home.product is None and root.name not in SINGLE and product.result not in returned
            and all(follows(o, product) for o in home.ops))


def _through_free(consumers, readers, returned) -> set[Op]:
    found = set()
    for consumer in consumers:
        if is_free(consumer) and not _must_exist(consumer, readers, returned):
            found |= _through_free({reader for r in consumer.results
                                    for reader in readers.get(r, ())}, readers, returned)
        else:
            found.add(consumer)
    return found


def _build(function: Function, group, readers, returned) -> Function:
    rewriter = Rewriter(function)
    kernel = definition("tfn.kernel")
    members: dict[int, list[Op]] = {}
    own = set(function.ops)
    for op in function.ops:
        if op in group:
            members.setdefault(id(group[op]), []).append(op)
    for op in function.ops:
        if is_planned(op):
            rewriter.copy(op)
        elif op in group and members[id(group[op])][-1] is op:
            inside = members[id(group[op])]
            outputs = [r for o in inside for r in o.results if r in returned
                       or any(group.get(reader) is not group[op]
                              and not (is_free(reader) and reader not in group)
                              for reader in readers.get(r, ()))
                       or _read_by_free_elsewhere(r, group[op], group, readers)]
            body, operands = _region(inside, outputs, group, own)
            new = rewriter.append(kernel, [rewriter[v] for v in operands],
                                  [v.type for v in outputs], {}, [body], inside[-1].location)
            rewriter.values.update(zip(outputs, new.results, strict=True))
    return rewriter.finish()


def _read_by_free_elsewhere(value: Value, home: _Group, group, readers) -> bool:
    """Is `value` read, through ops copied into kernels, by a kernel other than `home`?"""
    for reader in readers.get(value, ()):
        if is_free(reader) and reader not in group:
            for r in reader.results:
                if any(group.get(x) is not home and not (is_free(x) and x not in group)
                       for x in readers.get(r, ())):
                    return True
                if _read_by_free_elsewhere(r, home, group, readers):
                    return True
    return False


def _region(inside: list[Op], outputs: list[Value], group, own: set[Op]
            ) -> tuple[Block, list[Value]]:
    """The body of a kernel, with the free ops it reads copied in, and its operands."""
    block = Block()
    values: dict[Value, Value] = {}
    operands: list[Value] = []
    chosen = set(inside)
    # A kernel with one of these reads buffers: what was materialised for it must not be copied.
    alone = any(o.name in SINGLE for o in inside)

    def lift(value: Value) -> Value:
        if value in values:
            return values[value]
        op = value.op
        if op is not None and (op in chosen or (is_free(op) and not (alone and op in group))):
            add(op)
        else:
            operands.append(value)
            values[value] = block.add_argument(value.type)
        return values[value]

    def add(op: Op) -> None:
        new_operands = [lift(v) for v in op.operands]
        if op.results and op.results[0] in values:
            return
        new = Op(op.definition, new_operands, [r.type for r in op.results], op.attributes,
                 op.regions, op.location)
        block.ops.append(new)
        values.update(zip(op.results, new.results, strict=True))

    for op in inside:
        if not op.results or op.results[0] not in values:
            add(op)
    block.returns = [values[v] for v in outputs]
    return block, operands
