"""How many arithmetic operations ops do: a multiply-add is two, an exponential one. And which parts of
a model do them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from .ir.core import Op, Value
from .ir.dims import Dim, Extent
from .ops.contraction import convolution_defaults
from .ops.winograd import OUTPUTS, POINTS


def operations(ops: Sequence[Op], sizes: Mapping[str, int]) -> float:
    """Of the ops of one kernel, for given sizes of the symbolic dims."""
    return sum(_COUNTS.get(op.name, _elements)(op, sizes) for op in ops)


Part = tuple[str, bool]
"""The scope of a part of a model (`Location.scope`), and whether it is the derivative's."""


def part_of(op: Op) -> Part:
    return ("", False) if op.location is None else (op.location.scope, op.location.derivative)


def shares(ops: Sequence[Op], sizes: Mapping[str, int]) -> dict[Part, float]:
    """How much of a kernel belongs to which part, 1 in all: by the operations of its ops, or by the
    numbers they move if they compute nothing."""
    found: dict[Part, float] = {}
    for weigh in (lambda op: operations([op], sizes), lambda op: _moved(op, sizes), lambda op: 1.0):
        for op in ops:
            found[part_of(op)] = found.get(part_of(op), 0.0) + weigh(op)
        total = sum(found.values())
        if total:
            return {part: weight / total for part, weight in found.items() if weight}
    return {}


def _moved(op: Op, sizes: Mapping[str, int]) -> float:
    if op.name == "stablehlo.constant":
        return 0.0
    return sum(_count(result, sizes) for result in op.results)


def _size(extent: Extent, sizes: Mapping[str, int]) -> int:
    return extent.evaluate(sizes) if isinstance(extent, Dim) else extent


def _count(value: Value, sizes: Mapping[str, int]) -> float:
    return math.prod(float(_size(e, sizes)) for e in value.shape)


def _elements(op: Op, sizes: Mapping[str, int]) -> float:
    scalar = getattr(op.definition, "scalar", None) is not None
    return _count(op.result, sizes) if scalar and op.results else 0.0


def _products(op: Op, sizes: Mapping[str, int]) -> float:
    extents = op.definition.rule("contraction")(op).extents
    return 2 * math.prod(float(_size(e if isinstance(e, int) else e[0].shape[e[1]], sizes))
                         for e in extents)


def _windows(op: Op, sizes: Mapping[str, int]) -> float:
    """A window's products for every result; zeros between elements of the image are none."""
    a = convolution_defaults(op.attributes)
    kernel, numbers = op.operands[1], a["dimension_numbers"]
    window = math.prod(float(_size(kernel.shape[d], sizes)) for d in (
        numbers.kernel_input_feature_dimension, *numbers.kernel_spatial_dimensions))
    return 2 * _count(op.result, sizes) * window / math.prod(a["lhs_dilation"])


def _reads(op: Op, sizes: Mapping[str, int]) -> float:
    return _count(op.operands[0], sizes)


def _attention(products: int):
    """So many products of queries, or the like, and all keys; half of them count if causal."""

    def count(op: Op, sizes: Mapping[str, int]) -> float:
        query, key = op.operands[:2]
        share = 0.5 if op.attributes["composite_attributes"]["is_causal"] else 1.0
        return 2 * products * share * _count(query, sizes) * float(_size(key.shape[1], sizes))

    return count


def _winograd(op: Op, sizes: Mapping[str, int]) -> float:
    """The products at the points."""
    batch, height, width, features = (_size(e, sizes) for e in op.result.shape)
    tiles = batch * -(-height // OUTPUTS) * -(-width // OUTPUTS)
    return 2.0 * POINTS * tiles * _size(op.operands[0].shape[3], sizes) * features


def _recurrent(op: Op, sizes: Mapping[str, int]) -> float:
    """A product with the weights of the state, and the activations of the gates, for every step."""
    gates, weights = op.operands[0], op.operands[-1]
    steps = float(_size(gates.shape[0], sizes)) * float(_size(gates.shape[1], sizes))
    return 2 * steps * _count(weights, sizes) + _count(gates, sizes)


_COUNTS = {
    "stablehlo.dot_general": _products, "stablehlo.convolution": _windows,
    "tfn.winograd": _winograd, "stablehlo.reduce": _reads, "stablehlo.reduce_window": _reads,
    **dict.fromkeys(("tfn.lstm", "tfn.lstm_backward", "tfn.gru", "tfn.gru_backward"), _recurrent),
    "tfn.attention": _attention(2), "tfn.attention_backward": _attention(5),
}
