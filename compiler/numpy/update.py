"""Indexed updates: `x.at[key].set(values)`, `.add`, `.multiply`, `.max`, `.min`.

Arrays are immutable, so an update gives a new array. A basic key becomes dynamic_update_slice or a
select; a key with integer arrays becomes a scatter into what the basic part reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UnsupportedError, user_location
from ..ir.dims import Extent
from ..ir.dtypes import I1
from ..trace.core import Array, Tracer, bind
from . import elementwise as el
from .indexing import (
    BasicKey,
    basic_key,
    dynamic_update_slice,
    from_front,
    getitem,
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


@dataclass(frozen=True)
class Update:
    """The elements of `x` at `key`; see `At`. Repeated indices combine; for `set` one wins."""

    x: Value
    key: Any

    def get(self) -> Value:
        """`x[key]`."""
        return getitem(self.x, self.key)

    def set(self, values: ArrayLike) -> Value:
        """Replace the elements."""
        return self._apply(None, values)

    def add(self, values: ArrayLike) -> Value:
        """Add to the elements."""
        return self._apply("add", values)

    def subtract(self, values: ArrayLike) -> Value:
        """Subtract from the elements."""
        return self._apply("add", el.negative(values))

    def multiply(self, values: ArrayLike) -> Value:
        """Multiply the elements."""
        return self._apply("multiply", values)

    mul = multiply

    def max(self, values: ArrayLike) -> Value:
        """The larger of element and value."""
        return self._apply("maximum", values)

    def min(self, values: ArrayLike) -> Value:
        """The smaller of element and value."""
        return self._apply("minimum", values)

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
