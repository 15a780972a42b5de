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
    whole = result.dtype.is_integer or result.dtype.kind == "bool"
    if not whole or not result.is_static or result.size > _LIMIT:
        return None
    if op.name == "stablehlo.get_dimension_size":
        return np.asarray(op.operands[0].shape[op.attributes["dimension"]], object)
    operands = [known[v] for v in op.operands if v in known]
    if len(operands) != len(op.operands):
        return None
    if op.name not in _EXACT and any(depends_on_data(o) for o in operands):
        return None  # Sizes are not negative; data may be.
    try:
        value = np.asarray(rule(op, *operands), object)
    except (InconclusiveDimension, TypeError, ZeroDivisionError):
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


def _not(a):
    return not a if isinstance(a, bool) else ~a


def _compare(op: Op, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _elementwise(_COMPARISONS[op.attributes["comparison_direction"]])(op, x, y)


def _equal(a, b) -> bool:
    if a == b:
        return True
    if isinstance(a, Dim) or isinstance(b, Dim):
        raise InconclusiveDimension(f"{a} == {b} depends on sizes")
    return False


_COMPARISONS: dict[str, Callable[..., bool]] = {
    "EQ": _equal, "NE": lambda a, b: not _equal(a, b),
    "LT": lambda a, b: bool(a < b), "LE": lambda a, b: bool(a <= b),
    "GT": lambda a, b: bool(a > b), "GE": lambda a, b: bool(a >= b)}


def _select(op: Op, pred: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _elementwise(lambda p, a, b: a if p else b)(op, np.broadcast_to(pred, x.shape), x, y)


_DATA = "data#"


def unknown_extents(value: Value, number: int) -> np.ndarray | None:
    """A fresh symbol for each element of a small integer tensor that depends on data: differences of
    such values may still be sizes."""
    type = value.type
    if not type.dtype.is_integer or not type.is_static or type.size > _LIMIT:
        return None
    symbols = [Dim.named(f"{_DATA}{number}.{i}") for i in range(type.size)]
    result = np.empty(len(symbols), object)
    result[:] = symbols
    return result.reshape(type.shape)


def depends_on_data(extents: np.ndarray) -> bool:
    """Whether a value mentions a symbol of `unknown_extents`."""
    return any(isinstance(e, Dim) and any(n.startswith(_DATA) for n in e.names)
               for e in extents.reshape(-1))


_EXACT = frozenset("stablehlo." + name for name in (
    "convert", "reshape", "broadcast_in_dim", "concatenate", "slice", "add", "subtract", "multiply",
    "negate"))
"""Ops whose value is right for negative symbols, too."""

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
    "stablehlo.sign": _elementwise(lambda a: 0 if a == 0 else 1 if a > 0 else -1),
    "stablehlo.and": _elementwise(lambda a, b: a & b),
    "stablehlo.or": _elementwise(lambda a, b: a | b),
    "stablehlo.not": _elementwise(_not),
    "stablehlo.compare": _compare,
    "stablehlo.select": _select,
}
