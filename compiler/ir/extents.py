"""Integer values that a program computes from sizes, as ints and symbolic dims.

`refine` needs the values of shape operands. They are small integer tensors made from constants and
`get_dimension_size`; here each such op is evaluated on NumPy arrays of objects, ints and `Dim`s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .core import Op, Value
from .dims import Dim, InconclusiveDimension

_LIMIT = 64
"""A tensor with more elements is data, not a shape."""


def known_extents(op: Op, known: Mapping[Value, np.ndarray]) -> np.ndarray | None:
    """The value of the op's result as an object array of ints and dims; None: not known."""
    rule = _RULES.get(op.name)
    if rule is None or len(op.results) != 1:
        return None
    result = op.result.type
    if not result.dtype.is_integer or not result.is_static or result.size > _LIMIT:
        return None
    if op.name == "stablehlo.get_dimension_size":
        return np.asarray(op.operands[0].shape[op.attributes["dimension"]], object)
    operands = [known.get(v) for v in op.operands]
    if any(o is None for o in operands):
        return None
    try:
        value = np.asarray(rule(op, *operands), object)
    except (InconclusiveDimension, ZeroDivisionError):
        return None
    return value if value.shape == result.shape else None


def _elementwise(function: Callable[..., Any]):
    """Apply a function of scalars; NumPy's own loops would turn the objects into floats."""

    def rule(op: Op, *operands: np.ndarray) -> np.ndarray:
        result = np.empty(operands[0].shape, object)
        for place in np.ndindex(*result.shape):
            result[place] = function(*(o[place] for o in operands))
        return result

    return rule


def _divide(a, b):
    """Truncates, as StableHLO; exact for dims."""
    if isinstance(a, Dim) or isinstance(b, Dim):
        return a // b
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


def _remainder(a, b):
    """The sign of the dividend."""
    return a % b if isinstance(a, Dim) or isinstance(b, Dim) else a - b * _divide(a, b)


def _slice(op: Op, x: np.ndarray) -> np.ndarray:
    names = ("start_indices", "limit_indices", "strides")
    bounds = zip(*(op.attributes[n] for n in names), strict=True)
    return x[tuple(slice(*b) for b in bounds)]


def _broadcast(op: Op, x: np.ndarray) -> np.ndarray:
    result = np.empty(op.result.shape, object)
    dims = op.attributes["broadcast_dimensions"]
    for place in np.ndindex(*result.shape):
        result[place] = x[tuple(0 if n == 1 else place[d]
                                for d, n in zip(dims, x.shape, strict=True))]
    return result


_RULES: dict[str, Callable[..., Any]] = {
    "stablehlo.get_dimension_size": lambda op: None,
    "stablehlo.constant": lambda op: op.attributes["value"].astype(object),
    "stablehlo.convert": lambda op, x: x,
    "stablehlo.reshape": lambda op, x: x.reshape(op.result.shape),
    "stablehlo.broadcast_in_dim": _broadcast,
    "stablehlo.concatenate": lambda op, *xs: np.concatenate(xs, op.attributes["dimension"]),
    "stablehlo.slice": _slice,
    "stablehlo.add": _elementwise(lambda a, b: a + b),
    "stablehlo.subtract": _elementwise(lambda a, b: a - b),
    "stablehlo.multiply": _elementwise(lambda a, b: a * b),
    "stablehlo.divide": _elementwise(_divide),
    "stablehlo.remainder": _elementwise(_remainder),
    "stablehlo.maximum": _elementwise(lambda a, b: a if a >= b else b),
    "stablehlo.minimum": _elementwise(lambda a, b: a if a <= b else b),
    "stablehlo.negate": _elementwise(lambda a: 0 - a),
}
