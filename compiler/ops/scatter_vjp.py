"""Derivatives of scatter, one for each way of combining.

An update whose window lies outside of the operand is skipped and has no cotangent.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..ir.core import TensorType
from ..ir.dtypes import I32, as_dtype
from ..trace.core import bind
from .elementwise import full_like
from .reduction import reduce, reducer, replacement


class _Places:
    """Reads and adds where a scatter writes."""

    def __init__(self, op, indices, x_shape, updates_shape):
        from .indexing import Scatter

        self.attributes = {k: op.attributes[k] for k in (
            "scatter_dimension_numbers", "indices_are_sorted", "unique_indices") if k in op.attributes}
        self.numbers = op.attributes["scatter_dimension_numbers"]
        self.gather = Scatter.as_gather(self.numbers)
        self.indices, self.x_shape = indices, tuple(x_shape)
        self.shape = tuple(updates_shape)
        self.sizes = tuple(Scatter.window_sizes(x_shape, updates_shape, self.numbers))
        self.inside = self._inside()

    def _inside(self):
        """For each element of the updates: does its window lie in the operand?"""
        n, indices = self.numbers, self.indices
        limits = [self.x_shape[d] - self.sizes[d] for d in n.scatter_dims_to_operand_dims]
        dtype = as_dtype(indices.dtype)
        vector = n.index_vector_dim < len(indices.shape)
        last = np.asarray(limits if vector else limits[0] if limits else 0, dtype.numpy)
        high = bind("stablehlo.broadcast_in_dim", last, shape=tuple(indices.shape),
                    broadcast_dimensions=(n.index_vector_dim,) if vector else ())
        fits = bind("stablehlo.and",
                    bind("stablehlo.compare", indices, full_like(indices, 0),
                         comparison_direction="GE"),
                    bind("stablehlo.compare", indices, high, comparison_direction="LE"))
        if vector:
            fits = reduce(fits, (n.index_vector_dim,), "and")
        batch = tuple(d for d in range(len(self.shape)) if d not in n.update_window_dims)
        return bind("stablehlo.broadcast_in_dim", fits, shape=self.shape, broadcast_dimensions=batch)

    def read(self, x):
        """What is at the places of the updates; zero outside."""
        found = bind("stablehlo.gather", x, self.indices, dimension_numbers=self.gather,
                     slice_sizes=self.sizes)
        return bind("stablehlo.select", self.inside, found, full_like(found, 0))

    def put(self, x, updates, kind: str):
        """`updates` combined into `x`."""
        dtype = as_dtype(x.dtype)
        body = replacement(dtype) if kind == "replace" else reducer(kind, dtype)
        return bind("stablehlo.scatter", x, self.indices, updates, regions=[body], **self.attributes)


def _where(condition: Any, x: Any, y: Any) -> Any:
    return bind("stablehlo.select", condition, x, y)


def _equal(x: Any, y: Any) -> Any:
    return bind("stablehlo.compare", x, y, comparison_direction="EQ")


def _counted(condition: Any, like: Any) -> Any:
    """1 where the condition holds, else 0."""
    return _where(condition, full_like(like, 1), full_like(like, 0))


def _add(ct, op, operands, result):
    x, indices, updates = operands
    return ct, _Places(op, indices, x.shape, updates.shape).read(ct)


def _replace(ct, op, operands, result):
    """The update that was written last has the cotangent of its place."""
    x, indices, updates = operands
    at = _Places(op, indices, x.shape, updates.shape)
    kept = at.put(ct, full_like(updates, 0), "replace")
    taken = at.read(ct)
    if op.attributes.get("unique_indices"):
        return kept, taken
    size = int(np.prod(at.shape, dtype=np.int64))
    names = bind("stablehlo.reshape", bind(
        "stablehlo.iota", type=TensorType((size,), I32), iota_dimension=0), shape=at.shape)
    none = bind("stablehlo.broadcast_in_dim", np.int32(-1), shape=at.x_shape, broadcast_dimensions=())
    last = at.read(at.put(none, names, "replace"))
    return kept, _where(_equal(last, names), taken, full_like(taken, 0))


def _multiply(ct, op, operands, result):
    x, indices, updates = operands
    at = _Places(op, indices, x.shape, updates.shape)
    to_x = at.put(ct, updates, "multiply")
    if op.attributes.get("unique_indices"):
        return to_x, at.read(ct * x)
    # The product of the other updates of a place, of which some may be zero.
    zero = _equal(updates, full_like(updates, 0))
    safe = _where(zero, full_like(updates, 1), updates)
    zeros = at.read(at.put(full_like(x, 0), _counted(zero, updates), "add"))
    product = at.read(at.put(ct * x, safe, "multiply"))
    others = _where(zero, _where(_equal(zeros, full_like(zeros, 1)), product, full_like(product, 0)),
                    _where(_equal(zeros, full_like(zeros, 0)), product / safe,
                           full_like(product, 0)))
    return to_x, others


def _extreme(ct, op, operands, result):
    """All that tie for the extreme of a place share its cotangent, as in JAX."""
    x, indices, updates = operands
    at = _Places(op, indices, x.shape, updates.shape)
    keeps = _equal(x, result)
    wins = bind("stablehlo.and", at.inside, _equal(updates, at.read(result)))
    count = at.put(_counted(keeps, x), _counted(wins, updates), "add")
    share = ct / count
    touched = at.put(full_like(x, 0), _counted(at.inside, updates), "add")
    alone = _equal(touched, full_like(touched, 0))
    to_x = _where(alone, ct, _where(keeps, share, full_like(ct, 0)))
    return to_x, _where(wins, at.read(share), full_like(updates, 0))


RULES = {"add": _add, "replace": _replace, "multiply": _multiply, "maximum": _extreme,
         "minimum": _extreme}
"""Combiner -> `rule(cotangent, op, operands, result)`: cotangents of the operand and of the updates."""
