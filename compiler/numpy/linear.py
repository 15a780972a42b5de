"""Products of arrays: matmul, dot, tensordot, einsum and relatives, all through dot_general.

16-bit floats accumulate in f32. `preferred_element_type` gives the result another type (i32 for
i8 operands, say) without converting the operands first. `precision` is there for programs that ask
for more than their processor would give: products are always computed in full.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import OpError, user_location
from ..ir.dims import Dim, Extent
from ..ir.structs import DotDimensionNumbers
from ..ops import contraction as _contraction  # noqa: F401  (declares the ops)
from ..trace.core import bind
from . import direct
from . import elementwise as el
from .manipulation import diagonal, expand_dims, moveaxis, reshape, swapaxes, transpose
from .promote import (
    ArrayLike,
    Value,
    asarray,
    broadcast_shapes,
    broadcast_to,
    dtype_argument,
    dtype_of,
    normalize_axis,
    shape_text,
    unify,
)
from .reduction import sum as sum_


def dot_general(x: ArrayLike, y: ArrayLike, contracting: tuple[Sequence[int], Sequence[int]],
                batching: tuple[Sequence[int], Sequence[int]] = ((), ()),
                preferred_element_type=None) -> Value:
    """Sum of products over the contracting dims (lhs dims, rhs dims).

    Result dims: the batching dims, the other dims of `x`, the other dims of `y`.
    """
    a, b = unify(x, y)
    numbers = DotDimensionNumbers(tuple(batching[0]), tuple(batching[1]),
                                  tuple(contracting[0]), tuple(contracting[1]))
    dtype = dtype_argument(preferred_element_type) if preferred_element_type else dtype_of(a)
    return bind("stablehlo.dot_general", a, b, dot_dimension_numbers=numbers, dtype=dtype)


def matmul(x: ArrayLike, y: ArrayLike, preferred_element_type=None, *, precision=None) -> Value:
    """Matrix product over the last dim of `x` and the second last of `y`; others broadcast."""
    result = direct.matmul(x, y) if preferred_element_type is None else None
    if result is not None:
        return result
    x, y = unify(x, y)
    if not x.shape or not y.shape:
        raise OpError("matmul needs arrays of at least one dim; use multiply for scalars",
                      user_location())
    inner = y.shape[-2] if len(y.shape) > 1 else y.shape[0]
    if x.shape[-1] != inner:
        raise OpError(f"matmul of {shape_text(x.shape)} and {shape_text(y.shape)}: the last dim of"
                      f" the first ({x.shape[-1]}) must equal {inner}", user_location())
    rank_x, rank_y = len(x.shape), len(y.shape)
    if rank_y <= 2:
        return _plain(x, y, rank_x - 1, max(rank_y - 2, 0), preferred_element_type)
    if rank_x == 1:
        return _plain(x, y, 0, rank_y - 2, preferred_element_type)
    batch = broadcast_shapes(x.shape[:-2], y.shape[:-2])
    if product_is_one(x.shape[:-2]) and len(x.shape) - 2 <= len(batch):
        # One matrix times many: (m, k) @ (..., k, n) contracts to (m, ..., n).
        flat = reshape(x, x.shape[-2:])
        return moveaxis(_plain(flat, broadcast_to(y, batch + y.shape[-2:]), 1, len(batch),
                               preferred_element_type), 0, -2)
    x = broadcast_to(x, batch + x.shape[-2:])
    y = broadcast_to(y, batch + y.shape[-2:])
    dims = tuple(range(len(batch)))
    return dot_general(x, y, ((len(batch) + 1,), (len(batch),)), (dims, dims),
                       preferred_element_type)


def product_is_one(shape: Sequence[Extent]) -> bool:
    """True when every extent is 1."""
    return all(isinstance(e, int) and e == 1 for e in shape)


def _plain(x, y, lhs_dim: int, rhs_dim: int, preferred_element_type) -> Value:
    return dot_general(x, y, ((lhs_dim,), (rhs_dim,)),
                       preferred_element_type=preferred_element_type)


def dot(x: ArrayLike, y: ArrayLike, *, precision=None) -> Value:
    """Product over the last dim of `x` and the second last (or only) dim of `y`; no batching."""
    x, y = unify(x, y)
    if not x.shape or not y.shape:
        return el.multiply(x, y)
    return _plain(x, y, len(x.shape) - 1, max(len(y.shape) - 2, 0), None)


def vdot(x: ArrayLike, y: ArrayLike, *, precision=None) -> Value:
    """Inner product of the flattened arrays; the first is conjugated."""
    x, y = unify(x, y)
    return dot(reshape(el.conj(x), (-1,)), reshape(y, (-1,)))


def inner(x: ArrayLike, y: ArrayLike, *, precision=None) -> Value:
    """Product over the last dims of both."""
    x, y = unify(x, y)
    if not x.shape or not y.shape:
        return el.multiply(x, y)
    return _plain(x, y, len(x.shape) - 1, len(y.shape) - 1, None)


def outer(x: ArrayLike, y: ArrayLike) -> Value:
    """x[i] * y[j] of the flattened arrays."""
    return el.multiply(reshape(x, (-1, 1)), reshape(y, (1, -1)))


def kron(x: ArrayLike, y: ArrayLike) -> Value:
    """Kronecker product."""
    x, y = unify(x, y)
    rank = max(len(x.shape), len(y.shape))
    a = reshape(x, (1,) * (rank - len(x.shape)) + x.shape)
    b = reshape(y, (1,) * (rank - len(y.shape)) + y.shape)
    wide = el.multiply(expand_dims(a, tuple(range(1, 2 * rank, 2))),
                       expand_dims(b, tuple(range(0, 2 * rank, 2))))
    return reshape(wide, tuple(p * q for p, q in zip(a.shape, b.shape, strict=True)))


def cross(x: ArrayLike, y: ArrayLike, axis: int = -1, *, axisa: int | None = None,
          axisb: int | None = None, axisc: int | None = None) -> Value:
    """Cross product of 3-vectors (or 2-vectors) along `axis`.

    `axisa`, `axisb`, `axisc`: that axis in `x`, in `y` and in the result, where they differ.
    """
    from .manipulation import split, squeeze, stack

    x, y = unify(x, y)
    if (axisa, axisb, axisc) != (None, None, None):
        first, second, last = (axis if a is None else a for a in (axisa, axisb, axisc))
        found = cross(moveaxis(x, first, -1), moveaxis(y, second, -1))
        return found if x.shape[first] == y.shape[second] == 2 else moveaxis(found, -1, last)
    a = [squeeze(p, axis) for p in split(x, x.shape[axis], axis)]
    b = [squeeze(p, axis) for p in split(y, y.shape[axis], axis)]
    if len(a) == len(b) == 2:
        return a[0] * b[1] - a[1] * b[0]
    zero = el.multiply(a[0], 0)
    a, b = a + [zero] * (3 - len(a)), b + [zero] * (3 - len(b))
    return stack([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2],
                  a[0] * b[1] - a[1] * b[0]], axis)


def vecdot(x: ArrayLike, y: ArrayLike, axis: int = -1) -> Value:
    """Sum of conj(x) * y along `axis`, counted in each array; the other dims broadcast."""
    x, y = unify(x, y)
    a, b = (moveaxis(v, normalize_axis(axis, len(v.shape)), -1) for v in (x, y))
    if a.shape[-1] != b.shape[-1]:
        raise OpError(f"vecdot of {shape_text(x.shape)} and {shape_text(y.shape)}: the sizes along"
                      f" axis {axis} differ", user_location())
    shape = broadcast_shapes(a.shape, b.shape)
    dims = tuple(range(len(shape) - 1))
    return dot_general(broadcast_to(el.conj(a), shape), broadcast_to(b, shape),
                       ((len(dims),), (len(dims),)), (dims, dims))


def matvec(x: ArrayLike, y: ArrayLike) -> Value:
    """Matrices (the last two dims of `x`) times vectors (the last dim of `y`); others broadcast."""
    y = asarray(y)
    product = matmul(x, reshape(y, (*y.shape, 1)))
    return reshape(product, product.shape[:-1])


def vecmat(x: ArrayLike, y: ArrayLike) -> Value:
    """Conjugated vectors (the last dim of `x`) times matrices (the last two dims of `y`)."""
    x = asarray(x)
    product = matmul(reshape(el.conj(x), (*x.shape[:-1], 1, x.shape[-1])), y)
    return reshape(product, (*product.shape[:-2], product.shape[-1]))


def matrix_transpose(x: ArrayLike) -> Value:
    """`x` with its last two dims exchanged."""
    x = asarray(x)
    if len(x.shape) < 2:
        raise OpError(f"matrix_transpose needs two dims, got {shape_text(x.shape)}",
                      user_location())
    return swapaxes(x, -1, -2)


def tensordot(x: ArrayLike, y: ArrayLike, axes=2, preferred_element_type=None, *,
              precision=None) -> Value:
    """Product over `axes`: the last and first n dims (an int), or (dims of x, dims of y)."""
    x, y = unify(x, y)
    rank_x, rank_y = len(x.shape), len(y.shape)
    if isinstance(axes, (int, np.integer)):
        left, right = list(range(rank_x - axes, rank_x)), list(range(axes))
    else:
        left, right = ([a] if isinstance(a, int) else list(a) for a in axes)
    left = [normalize_axis(a, rank_x) for a in left]
    right = [normalize_axis(a, rank_y) for a in right]
    return dot_general(x, y, (left, right), preferred_element_type=preferred_element_type)


# -- einsum ---------------------------------------------------------------------------------------

def einsum(subscripts: str | ArrayLike, *arrays: ArrayLike, preferred_element_type=None, **_) -> Value:
    """Sum of products over named dims, `"ij,jk->ik"`; `...` stands for broadcast dims.

    Dims of equal name must have equal sizes (or 1). Without `->` the result has the names that
    occur once, in alphabetical order. `einsum(x, [0, 1], y, [1, 2], [0, 2])` is another spelling.
    """
    text, operands = _named_dims(subscripts, arrays)
    values = unify(*operands)
    terms, output = _parse_einsum(text, [v.shape for v in values])
    pairs = [_diagonals(v, t) for v, t in zip(values, terms, strict=True)]
    order = _contraction_order(pairs, output)
    for i, j in order:
        i, j = sorted(k % len(pairs) for k in (i, j))
        second, first = pairs.pop(j), pairs.pop(i)
        wanted = set(output).union(*(t for _, t in pairs))
        pairs.append(_contract(first, second, wanted, preferred_element_type))
    value, names = pairs[0]
    summed = tuple(d for d, n in enumerate(names) if n not in output)
    value = sum_(value, summed) if summed else value
    kept = [n for n in names if n in output]
    return transpose(value, [kept.index(n) for n in output])


def einsum_path(subscripts: str | ArrayLike, *arrays: ArrayLike,
                optimize: bool | str | Sequence = "greedy") -> tuple[list, str]:
    """The order NumPy would multiply the operands in, as `np.einsum_path` tells it; `einsum` chooses
    its own."""
    text, operands = _named_dims(subscripts, arrays)
    path: Any = np.einsum_path
    stand_ins = [np.broadcast_to(np.zeros((), v.dtype), v.shape) for v in map(asarray, operands)]
    return path(text, *stand_ins, optimize=optimize)


def _named_dims(subscripts: str | ArrayLike, arrays: Sequence[ArrayLike]) -> tuple[str, Sequence]:
    """The subscripts as text, and the operands, from either spelling."""
    if isinstance(subscripts, str):
        return subscripts, arrays
    items = [subscripts, *arrays]
    pairs = len(items) // 2

    def names(term):
        # Upper case first: without a result, dims are in the order of their numbers.
        return "".join("..." if n is Ellipsis else chr(n + (65 if n < 26 else 71)) for n in term)

    text = ",".join(names(term) for term in items[1:2 * pairs:2])
    return text + (f"->{names(items[-1])}" if len(items) % 2 else ""), items[:2 * pairs:2]


def _parse_einsum(subscripts: str, shapes) -> tuple[list[str], str]:
    """Operand names and result names, with `...` replaced by capital-like private names."""
    text = subscripts.replace(" ", "")
    inputs, arrow, output = text.partition("->")
    terms = inputs.split(",")
    if len(terms) != len(shapes):
        raise OpError(f"einsum {subscripts!r} names {len(terms)} operands, got {len(shapes)}",
                      user_location())
    ranks = [len(s) - len(t.replace("...", "")) for t, s in zip(terms, shapes, strict=True)]
    dots = max((r for t, r in zip(terms, ranks, strict=True) if "..." in t), default=0)
    spare = [chr(c) for c in range(0x3B1, 0x3B1 + dots)]
    result = []
    for term, rank, shape in zip(terms, ranks, shapes, strict=True):
        filled = term.replace("...", "".join(spare[dots - rank:])) if "..." in term else term
        if len(filled) != len(shape):
            raise OpError(f"einsum {subscripts!r}: {term!r} does not name the dims of"
                          f" {shape_text(shape)}", user_location())
        result.append(filled)
    if arrow:
        return result, output.replace("...", "".join(spare))
    named = "".join(result)
    once = sorted(n for n in set(named) if named.count(n) == 1 and n not in spare)
    return result, "".join(spare) + "".join(once)


def _diagonals(value: Value, names: str) -> tuple[Value, str]:
    """The diagonal for every name that occurs twice in one operand."""
    for name in dict.fromkeys(names):
        while names.count(name) > 1:
            first = names.index(name)
            second = names.index(name, first + 1)
            value = diagonal(value, 0, first, second)
            names = "".join(n for d, n in enumerate(names) if d not in (first, second)) + name
    return value, names


def _contraction_order(pairs, output: str) -> list[tuple[int, int]]:
    """Which operands to contract next (positions; the result goes last)."""
    if len(pairs) <= 2:
        return [(0, 1)] * (len(pairs) - 1)
    # A symbolic extent counts as a large one: any concrete size would do for choosing an order.
    dummies = [np.broadcast_to(np.float32(0), [97 if isinstance(e, Dim) else e for e in v.shape])
               for v, _ in pairs]
    letters = {n: chr(ord("a") + i) for i, n in enumerate(dict.fromkeys(
        "".join(t for _, t in pairs)))}
    spell = "".join
    text = ",".join(spell(letters[n] for n in t) for _, t in pairs)
    text += "->" + spell(letters[n] for n in output)
    steps = np.einsum_path(text, *dummies, optimize="greedy")[0][1:]
    return [pair for step in steps for pair in _binary_steps(step)]


def _binary_steps(step: tuple[int, ...]) -> list[tuple[int, int]]:
    """A step over several operands as pairs: the highest two, then the result with the next."""
    positions = sorted(step, reverse=True)
    if len(positions) == 1:
        return []
    return [(positions[0], positions[1]), *((p, -1) for p in positions[2:])]


def _contract(first, second, wanted: set[str], preferred_element_type):
    """Contract two named operands, keeping the names in `wanted`."""
    a, a_names = _drop_unneeded(first[0], first[1], second[1], wanted)
    b, b_names = _drop_unneeded(second[0], second[1], first[1], wanted)
    a, a_names, b, b_names = _squeeze_ones(a, a_names, b, b_names)
    shared = [n for n in a_names if n in b_names]
    batch = [n for n in shared if n in wanted]
    contracted = [n for n in shared if n not in wanted]
    result = dot_general(a, b, ([a_names.index(n) for n in contracted],
                                [b_names.index(n) for n in contracted]),
                         ([a_names.index(n) for n in batch], [b_names.index(n) for n in batch]),
                         preferred_element_type)
    names = batch + [n for n in a_names if n not in shared] + [
        n for n in b_names if n not in shared]
    return result, "".join(names)


def _drop_unneeded(value: Value, names: str, other: str, wanted: set[str]):
    """Sum over names that occur neither in the other operand nor later."""
    summed = tuple(d for d, n in enumerate(names) if n not in other and n not in wanted)
    if summed:
        value = sum_(value, summed)
        names = "".join(n for d, n in enumerate(names) if d not in summed)
    return value, names


def _squeeze_ones(a: Value, a_names: str, b: Value, b_names: str):
    """Drop a dim of size 1 that the other operand has with another size (broadcasting)."""
    def without(value, names, other, other_names):
        keep = [d for d, n in enumerate(names) if not (
            n in other_names and value.shape[d] == 1 and other.shape[other_names.index(n)] != 1)]
        if len(keep) == len(names):
            return value, names
        return (reshape(value, tuple(value.shape[d] for d in keep)),
                "".join(names[d] for d in keep))

    new_a, new_a_names = without(a, a_names, b, b_names)
    new_b, new_b_names = without(b, b_names, a, a_names)
    return new_a, new_a_names, new_b, new_b_names


__all__ = ["cross", "dot", "dot_general", "einsum", "einsum_path", "inner", "kron", "matmul",
           "matrix_transpose", "matvec", "outer", "tensordot", "vdot", "vecdot", "vecmat"]
