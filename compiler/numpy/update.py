"""Indexed updates: `x.at[key].set(values)`, `.add`, `.multiply`, `.divide`, `.max`, `.apply` ...

Arrays are immutable, so an update gives a new array. A basic key becomes dynamic_update_slice or a
select; a key with integer arrays becomes a scatter into what the basic part reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import OpError, UnsupportedError, user_location
from ..ir.dims import Extent
from ..ir.dtypes import I1
from ..trace.core import Array, Tracer, bind
from . import elementwise as el
from .indexing import (
    BasicKey,
    basic_key,
    dynamic_update_slice,
    expanded,
    from_front,
    getitem,
    missing_element,
    read_basic,
    scatter_elements,
    split_key,
)
from .promote import (
    ArrayLike,
    Value,
    asarray,
    broadcast_to,
    convert,
    dtype_of,
    extent_value,
    to_dtype,
)


class At:
    """`x.at[key].set(v)` and friends: a copy of `x` with the elements at `key` changed."""

    def __init__(self, x: ArrayLike):
        self.x = asarray(x)

    def __getitem__(self, key: Any) -> Update:
        return Update(self.x, key)


def _only_hints(hints: dict[str, bool]) -> None:
    """`TypeError` for keywords that are not hints about indices; tfn does not need those."""
    unknown = hints.keys() - {"indices_are_sorted", "unique_indices", "wrap_negative_indices"}
    if unknown or not hints.get("wrap_negative_indices", True):
        raise TypeError(f"unknown options of .at[...]: {', '.join(sorted(unknown or hints))}")


def _updating(kind: str | None, doc: str) -> Callable[..., Value]:
    """A method of `Update`. `mode` for indices out of bounds: None, "drop" and "fill" leave them out,
    "clip" and "wrap" move them inside."""

    def method(self: Update, values: ArrayLike, *, mode: str | None = None, **hints: bool) -> Value:
        _only_hints(hints)
        if mode in (None, "drop", "fill"):
            return self._apply(kind, values)
        return Update(self.x, _inside(self.x, self.key, mode))._apply(kind, values)

    method.__doc__ = doc
    return method


@dataclass(frozen=True)
class Update:
    """The elements of `x` at `key`; see `At`. Repeated indices combine; for `set` one wins."""

    x: Value
    key: Any

    def get(self, *, mode: str | None = None, fill_value: ArrayLike | None = None,
            **hints: bool) -> Value:
        """`x[key]`. `mode` for indices out of bounds: "clip" reads the nearest element, "wrap" counts
        on from the start, "fill" gives `fill_value` (by default as in `take`); None is "clip" on traced
        arrays, and an `IndexError` on concrete ones."""
        _only_hints(hints)
        if mode == "fill":
            return _filled(self.x, self.key, fill_value)
        return getitem(self.x, self.key if mode is None else _inside(self.x, self.key, mode))

    set = _updating(None, "Replace the elements.")
    add = _updating("add", "Add to the elements.")
    multiply = _updating("multiply", "Multiply the elements.")
    max = _updating("maximum", "The larger of element and value.")
    min = _updating("minimum", "The smaller of element and value.")
    mul = multiply

    def subtract(self, values: ArrayLike, **options: Any) -> Value:
        """Subtract from the elements."""
        return self.add(el.negative(values), **options)

    def divide(self, values: ArrayLike, **options: Any) -> Value:
        """Divide the elements (floats)."""
        return el.divide(self.x, self._factor(values, options))

    def power(self, values: ArrayLike, **options: Any) -> Value:
        """Raise the elements to powers."""
        return el.power(self.x, self._factor(values, options))

    def apply(self, function: Callable[[Value], Value], **options: Any) -> Value:
        """Replace the elements by a function of them (once where indices repeat)."""
        return self.set(function(self.get()), **options)

    def _factor(self, values: ArrayLike, options: dict[str, Any]) -> Value:
        """1 everywhere but at the places, where it is the product of their values."""
        one = broadcast_to(to_dtype(1, dtype_of(self.x)), self.x.shape)
        return Update(one, self.key).multiply(values, **options)

    def _apply(self, kind: str | None, values: ArrayLike) -> Value:
        x = self.x
        mask = asarray(self.key) if isinstance(self.key, (Array, Tracer, np.ndarray)) else None
        if mask is not None and dtype_of(mask) is I1 and not np.shape(values):
            wide = mask.shape + (1,) * (len(x.shape) - len(mask.shape))
            mask = bind("stablehlo.reshape", mask, shape=wide)
            changed = values if kind is None else bind(
                f"stablehlo.{kind}", x, broadcast_to(to_dtype(values, dtype_of(x)), x.shape))
            return convert(el.where(mask, to_dtype(changed, dtype_of(x)), x), dtype_of(x))
        basic, index, position = split_key(self.key, x.shape)
        key = basic_key(basic, x.shape)
        part = read_basic(x, key)
        if index:
            part = scatter_elements(part, index, position, values, kind)
        else:
            new = broadcast_to(to_dtype(values, dtype_of(x)), part.shape)
            part = new if kind is None else bind(f"stablehlo.{kind}", part, new)
        return _write_basic(x, key, part)


def _inside(x: Value, key: Any, mode: str) -> tuple[Any, ...]:
    """The key with every integer in it moved into bounds."""
    if mode not in ("clip", "wrap"):
        raise OpError(f"index mode {mode!r} is not one of drop or fill, clip, wrap", user_location())
    dims = iter(range(len(x.shape)))
    items = []
    for item in expanded(key, x.shape):
        d = None if item is None else next(dims)
        if d is not None and not isinstance(item, slice):
            item = el.mod(item, x.shape[d]) if mode == "wrap" else el.clip(
                from_front(asarray(item), x, d), 0, x.shape[d] - 1)
            item = int(item) if isinstance(item, Array) and not item.shape else item
        items.append(item)
    return tuple(items)


def _filled(x: Value, key: Any, fill_value: ArrayLike | None) -> Value:
    """`x[key]`, and `fill_value` for indices out of bounds."""
    items = expanded(key, x.shape)
    known: Value = asarray(True)
    indexed = [i for i in items if i is not None]
    for extent, item in zip(x.shape, indexed, strict=True):
        if not isinstance(item, slice):
            known = el.logical_and(known, el.logical_and(
                el.greater_equal(item, -extent), el.less(item, extent)))
    inside = _inside(x, key, "clip")
    result = getitem(x, inside)
    if known.shape:
        position = split_key(inside, x.shape)[2]
        rest = len(result.shape) - position - len(known.shape)
        known = bind("stablehlo.reshape", known, shape=(1,) * position + known.shape + (1,) * rest)
    fill = missing_element(dtype_of(x)) if fill_value is None else fill_value
    return el.where(known, result, to_dtype(fill, dtype_of(x)))


def _write_basic(x: Value, key: BasicKey, part: Value) -> Value:
    """`x` with what `read_basic(x, key)` reads replaced by `part`."""
    sizes = []
    for start, limit, stride in zip(key.starts, key.limits, key.strides, strict=True):
        span = 1 if isinstance(start, Tracer) else limit - start
        sizes.append(span if abs(stride) == 1 else -(-span // abs(stride)))
    part = bind("stablehlo.reshape", part, shape=tuple(sizes))
    if tuple(sizes) == x.shape and all(s == 1 for s in key.strides):
        return part
    if any(isinstance(n, int) and n == 0 for n in sizes):
        return x
    backward = tuple(d for d, s in enumerate(key.strides) if s < 0)
    if backward:
        part = bind("stablehlo.reverse", part, dimensions=backward)
    if all(abs(s) == 1 for s in key.strides):
        starts = [from_front(s, x, d) if isinstance(s, Tracer) else extent_value(s)
                  for d, s in enumerate(key.starts)]
        return dynamic_update_slice(x, part, starts)
    if any(isinstance(s, Tracer) for s in key.starts):
        raise UnsupportedError("a traced index beside a strided slice in .at[...]; use two steps",
                               user_location())
    return el.where(_spread(broadcast_to(True, part.shape), key, x.shape),
                    _spread(part, key, x.shape), x)


def _spread(part: Value, key: BasicKey, shape: Sequence[Extent]) -> Value:
    """`part` at its places in an otherwise zero array of `shape`."""
    low, high, interior = [], [], []
    for start, stride, size, extent in zip(key.starts, key.strides, part.shape, shape, strict=True):
        step = abs(stride)
        low.append(start)
        high.append(extent - start - ((size - 1) * step + 1))
        interior.append(step - 1)
    return bind("stablehlo.pad", part, np.zeros((), part.dtype), edge_padding_low=tuple(low),
                edge_padding_high=tuple(high), interior_padding=tuple(interior))
