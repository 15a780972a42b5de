"""Simplification of ops that only move elements: two in a row as one, and none where nothing moves.

A rule takes an op, its operands (already simplified) and the rewriter, and returns the value that can
stand for the result, or None. See `simplify.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..ir.core import Op, TensorType, Value
from ..ir.rewrite import Rewriter
from ..ops.declare import definition


def made_by(value: Value, name: str) -> Op | None:
    """The op that makes `value`, if it is `stablehlo.<name>`."""
    op = value.op
    return op if op is not None and op.name == f"stablehlo.{name}" else None


def append(rewriter: Rewriter, at: Op, name: str, operands: Sequence[Value],
           attributes: dict[str, Any] | None = None, type: TensorType | None = None) -> Value:
    """The result of a new op in the place of `at`; its type is inferred unless given."""
    return rewriter.append(definition(f"stablehlo.{name}"), operands, type and [type], attributes,
                           location=at.location).result


def transpose(rewriter: Rewriter, at: Op, value: Value, permutation: Sequence[int]) -> Value:
    """A value with its dims in another order; itself where they are in order."""
    if list(permutation) == list(range(len(permutation))):
        return value
    return append(rewriter, at, "transpose", [value], {"permutation": tuple(permutation)})


def same_type(op: Op, operands: list[Value], _) -> Value | None:
    """A reshape, broadcast or convert to the type its operand already has."""
    ordered = op.name != "stablehlo.broadcast_in_dim" or _in_order(op)
    return operands[0] if operands[0].type == op.result.type and ordered else None


def _in_order(op: Op) -> bool:
    dims = op.attributes["broadcast_dimensions"]
    return list(dims) == list(range(len(dims)))


def _identity_permutation(op: Op, operands, _) -> Value | None:
    permutation = op.attributes["permutation"]
    return operands[0] if list(permutation) == list(range(len(permutation))) else None


def _composed(op: Op, operands: list[Value], rewriter: Rewriter) -> Value | None:
    """reshape(reshape(x)), transpose(transpose(x)), broadcast(broadcast(x)) as one op."""
    inner = operands[0].op
    if inner is None or inner.name != op.name:
        return None
    attributes = dict(op.attributes)
    if op.name == "stablehlo.transpose":
        first = inner.attributes["permutation"]
        attributes["permutation"] = tuple(first[d] for d in op.attributes["permutation"])
    elif op.name == "stablehlo.broadcast_in_dim":
        outer = op.attributes["broadcast_dimensions"]
        attributes["broadcast_dimensions"] = tuple(
            outer[d] for d in inner.attributes["broadcast_dimensions"])
    return rewriter.append(op.definition, inner.operands, [op.result.type], attributes,
                           location=op.location).result


def _reshape_of_broadcast_scalar(op: Op, operands: list[Value], rewriter) -> Value | None:
    inner = made_by(operands[0], "broadcast_in_dim")
    if inner is None or inner.operands[0].shape != ():
        return None
    return _broadcast(rewriter, op, inner.operands[0], op.result.type, ())


def _broadcast(rewriter: Rewriter, at: Op, x: Value, type: TensorType, dims: Sequence[int]) -> Value:
    return append(rewriter, at, "broadcast_in_dim", [x],
                  {"shape": type.shape, "broadcast_dimensions": tuple(dims)}, type)


def _transpose_of_broadcast(op: Op, operands: list[Value], rewriter: Rewriter) -> Value | None:
    inner = made_by(operands[0], "broadcast_in_dim")
    if inner is None:
        return None
    order = list(op.attributes["permutation"])
    dims = [order.index(d) for d in inner.attributes["broadcast_dimensions"]]
    return _broadcast(rewriter, op, inner.operands[0], op.result.type, dims)


def _broadcast_of_reshape(op: Op, operands: list[Value], rewriter: Rewriter) -> Value | None:
    """A reshape that only puts in dims of 1 says nothing that the broadcast does not."""
    inner = made_by(operands[0], "reshape")
    if inner is None:
        return None
    left = list(inner.operands[0].shape)
    dims = []
    for extent, d in zip(inner.result.shape, op.attributes["broadcast_dimensions"], strict=True):
        if left and left[0] == extent:
            left.pop(0)
            dims.append(d)
        elif extent != 1:
            return None
    return None if left else _broadcast(rewriter, op, inner.operands[0], op.result.type, dims)


def _empty_pad(op: Op, operands: list[Value], _) -> Value | None:
    amounts = [*op.attributes["edge_padding_low"], *op.attributes["edge_padding_high"],
               *op.attributes["interior_padding"]]
    return operands[0] if all(isinstance(a, int) and a == 0 for a in amounts) else None


# -- slices -----------------------------------------------------------------------------------------

Bounds = list[tuple[int, int, int]]
"""Start, limit and stride per dim."""


def _bounds(op: Op) -> Bounds | None:
    """Of a slice; None when some are symbolic."""
    names = ("start_indices", "limit_indices", "strides")
    found = list(zip(*(op.attributes[k] for k in names), strict=True))
    known = all(isinstance(n, int) for bound in found for n in bound)
    return found if known and op.operands[0].type.is_static else None


def _slice(rewriter: Rewriter, at: Op, x: Value, bounds: Bounds) -> Value:
    starts, limits, strides = zip(*bounds, strict=True) if bounds else ((), (), ())
    return append(rewriter, at, "slice", [x], {
        "start_indices": starts, "limit_indices": limits, "strides": strides})


def _slice_of_slice(op: Op, operands: list[Value], rewriter: Rewriter) -> Value | None:
    inner, outer = made_by(operands[0], "slice"), _bounds(op)
    first = _bounds(inner) if inner is not None else None
    if inner is None or first is None or outer is None or op.result.type.size == 0:
        return None
    bounds = [(a + start * by, a + (start + (n - 1) * step) * by + 1, by * step)
              for (a, _, by), (start, _, step), n in zip(first, outer, op.result.shape, strict=True)
              if isinstance(n, int)]
    return _slice(rewriter, op, inner.operands[0], bounds)


def _slice_of_concatenate(op: Op, operands: list[Value], rewriter: Rewriter) -> Value | None:
    """What lies within one of the parts is a slice of that."""
    inner, bounds = made_by(operands[0], "concatenate"), _bounds(op)
    if inner is None or bounds is None:
        return None
    axis = inner.attributes["dimension"]
    start, limit, stride = bounds[axis]
    for part in inner.operands:
        extent = part.shape[axis]
        assert isinstance(extent, int)
        if start >= 0 and limit <= extent:
            bounds[axis] = (start, limit, stride)
            return _slice(rewriter, op, part, bounds)
        start, limit = start - extent, limit - extent
    return None


def _slice_of_pad(op: Op, operands: list[Value], rewriter: Rewriter) -> Value | None:
    """What has none of the padding is a slice of what was padded."""
    inner, bounds = made_by(operands[0], "pad"), _bounds(op)
    if inner is None or bounds is None or any(inner.attributes["interior_padding"]):
        return None
    x = inner.operands[0]
    shifted = [(start - low, limit - low, stride) for (start, limit, stride), low in zip(
        bounds, inner.attributes["edge_padding_low"], strict=True)]
    if any(start < 0 or limit > extent for (start, limit, _), extent in zip(
            shifted, x.shape, strict=True)):
        return None
    return _slice(rewriter, op, x, shifted)


def _slice_of_broadcast(op: Op, operands: list[Value], rewriter: Rewriter) -> Value | None:
    """A slice along dims that repeat is a shorter repetition."""
    inner = made_by(operands[0], "broadcast_in_dim")
    if inner is None:
        return None
    x, dims = inner.operands[0], inner.attributes["broadcast_dimensions"]
    if any(op.result.shape[d] != operands[0].shape[d]
           for d, extent in zip(dims, x.shape, strict=True) if extent != 1):
        return None
    # Of a dim of 1 that does not repeat, nothing may be left.
    if any(op.result.shape[d] == 0 for d in dims):
        return None
    return _broadcast(rewriter, op, x, op.result.type, dims)


def _known_starts(op: Op, operands: Sequence[Value], sizes: Sequence[Any], x: Value
                  ) -> list[int] | None:
    """Constant starts of a window, clamped as the op does."""
    if not x.type.is_static:
        return None
    starts = []
    for value, size, extent in zip(operands, sizes, x.shape, strict=True):
        if size == extent:
            starts.append(0)
            continue
        source = made_by(value, "constant")
        if source is None:
            return None
        starts.append(min(max(int(source.attributes["value"]), 0), extent - size))
    return starts


def _dynamic_slice(op: Op, operands: list[Value], rewriter: Rewriter) -> Value | None:
    """At constant places it is a slice."""
    x, *starts = operands
    sizes = op.attributes["slice_sizes"]
    known = _known_starts(op, starts, sizes, x)
    if known is None:
        return None
    return _slice(rewriter, op, x, [(s, s + n, 1) for s, n in zip(known, sizes, strict=True)])


def _whole_update(op: Op, operands: list[Value], _) -> Value | None:
    return operands[1] if operands[1].type == operands[0].type else None


# -- concatenations and reversals ---------------------------------------------------------------------

def _parts(op: Op, operands: list[Value], rewriter: Rewriter) -> Value | None:
    """A concatenation without what is empty, with the parts of its parts, and with neighbouring slices
    of a value as one."""
    axis = op.attributes["dimension"]
    parts: list[Value] = []
    for operand in operands:
        inner = made_by(operand, "concatenate")
        nested = inner is not None and inner.attributes["dimension"] == axis
        parts += inner.operands if inner is not None and nested else [operand]
    kept = [p for p in parts if p.shape[axis] != 0] or parts[:1]
    joined = [kept[0]]
    for part in kept[1:]:
        both = _neighbours(joined[-1], part, axis)
        if both is None:
            joined.append(part)
        else:
            joined[-1] = _slice(rewriter, op, *both)
    if len(joined) == 1:
        return joined[0]
    return None if joined == list(operands) else append(
        rewriter, op, "concatenate", joined, dict(op.attributes))


def _neighbours(a: Value, b: Value, axis: int) -> tuple[Value, Bounds] | None:
    """The value and the bounds of two slices of it as one, when the second begins where the first
    ends."""
    first, second = made_by(a, "slice"), made_by(b, "slice")
    if first is None or second is None or first.operands[0] is not second.operands[0]:
        return None
    low, high = _bounds(first), _bounds(second)
    if low is None or high is None or low[axis][2] != 1 or high[axis][2] != 1:
        return None
    if low[axis][1] != high[axis][0] or any(
            p != q for d, (p, q) in enumerate(zip(low, high, strict=True)) if d != axis):
        return None
    low[axis] = (low[axis][0], high[axis][1], 1)
    return first.operands[0], low


def _reverse(op: Op, operands: list[Value], rewriter: Rewriter) -> Value | None:
    """Twice is not at all, and a dim of 1 has no order."""
    inner = made_by(operands[0], "reverse")
    x = operands[0] if inner is None else inner.operands[0]
    turned = set(op.attributes["dimensions"]) ^ set(inner.attributes["dimensions"] if inner else ())
    dims = tuple(sorted(d for d in turned if x.shape[d] != 1))
    if not dims:
        return x
    if inner is None and len(dims) == len(op.attributes["dimensions"]):
        return None
    return append(rewriter, op, "reverse", [x], {"dimensions": dims})


MOVEMENT = {
    "stablehlo.reshape": (same_type, _composed, _reshape_of_broadcast_scalar),
    "stablehlo.broadcast_in_dim": (same_type, _composed, _broadcast_of_reshape),
    "stablehlo.transpose": (_identity_permutation, _composed, _transpose_of_broadcast),
    "stablehlo.pad": (_empty_pad,),
    "stablehlo.slice": (same_type, _slice_of_slice, _slice_of_concatenate, _slice_of_pad,
                        _slice_of_broadcast),
    "stablehlo.dynamic_slice": (_dynamic_slice,),
    "stablehlo.dynamic_update_slice": (_whole_update,),
    "stablehlo.concatenate": (_parts,),
    "stablehlo.reverse": (_reverse,),
}
"""Op name -> rules."""
