"""Layout: bring contractions into the form the code generator streams.

Afterwards a convolution has no padding, input dilation or reversal (they are ops of their own), and
the rhs of a contraction is contiguous along the innermost dim of the result.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from ..codegen.matrix import is_matrix_product
from ..ir.core import Function, Op, TensorType, Value
from ..ir.rewrite import Rewriter
from ..ir.structs import ConvDimensionNumbers, DotDimensionNumbers
from ..ops.contraction import convolution_defaults
from ..ops.declare import definition


def layout(function: Function, target=None) -> Function:
    """Canonicalise every dot_general and convolution."""
    rewriter = Rewriter(function)
    readers = Counter(v for op in function.ops for v in op.operands)
    readers.update(function.returns)
    for op in function.ops:
        product = _turned_product(op, readers)
        if product is not None:
            rewriter.replace(op, [_turned(product, rewriter, op)])
            continue
        rule = RULES.get(op.name)
        if rule is None:
            rewriter.copy(op)
        else:
            rewriter.replace(op, [rule(op, rewriter)])
    return rewriter.finish()


def _turned_product(op: Op, readers: Counter[Value]) -> Op | None:
    """The product of which `op` is the transpose, when `rhs * lhs` gives that at once.

    Gradients of weights come so: the product of two matrices, transposed for a reader of its own.
    """
    if op.name != "stablehlo.transpose":
        return None
    product = op.operands[0].op
    if (product is None or product.name != "stablehlo.dot_general" or readers[product.result] > 1
            or not is_matrix_product(product)):
        return None
    n: DotDimensionNumbers = product.attributes["dot_dimension_numbers"]
    rank, batch = len(op.result.shape), len(n.lhs_batching_dimensions)
    middle = len(product.operands[0].shape) - len(n.lhs_contracting_dimensions)
    order = [*range(batch), *range(middle, rank), *range(batch, middle)]
    return product if list(op.attributes["permutation"]) == order else None


def _turned(product: Op, rewriter: Rewriter, op: Op) -> Value:
    lhs, rhs = product.operands
    n: DotDimensionNumbers = product.attributes["dot_dimension_numbers"]
    dims = DotDimensionNumbers(n.rhs_batching_dimensions, n.lhs_batching_dimensions,
                               n.rhs_contracting_dimensions, n.lhs_contracting_dimensions)
    return _append(rewriter, product, product.name, [rewriter[rhs], rewriter[lhs]],
                   {**product.attributes, "dot_dimension_numbers": dims}, [op.result.type])


def _append(rewriter: Rewriter, op: Op, name: str, operands, attributes, types=None) -> Value:
    return rewriter.append(definition(name), operands, types, attributes,
                           location=op.location).result


def _transpose(rewriter: Rewriter, op: Op, value: Value, permutation: list[int]) -> Value:
    if permutation == list(range(len(permutation))):
        return value
    return _append(rewriter, op, "stablehlo.transpose", [value],
                   {"permutation": tuple(permutation)})


def _dot(op: Op, rewriter: Rewriter) -> Value:
    """Order the rhs as batching, contracting, free: contiguous along the last result dim."""
    lhs, rhs = (rewriter[v] for v in op.operands)
    n: DotDimensionNumbers = op.attributes["dot_dimension_numbers"]
    batching, contracting = n.rhs_batching_dimensions, n.rhs_contracting_dimensions
    free = [d for d in range(len(rhs.shape)) if d not in (*batching, *contracting)]
    attributes = dict(op.attributes)
    if not is_matrix_product(op) and free and free[-1] != len(rhs.shape) - 1:
        rhs = _transpose(rewriter, op, rhs, [*batching, *contracting, *free])
        count = len(batching)
        attributes["dot_dimension_numbers"] = DotDimensionNumbers(
            n.lhs_batching_dimensions, tuple(range(count)), n.lhs_contracting_dimensions,
            tuple(range(count, count + len(contracting))))
    return _append(rewriter, op, op.name, [lhs, rhs], attributes, [op.result.type])


def _convolution(op: Op, rewriter: Rewriter) -> Value:
    if op.result.type.size == 0:
        # Nothing to compute, and padding of an empty dim may be negative.
        empty = np.broadcast_to(np.zeros((), op.result.dtype.numpy),
                                [int(d) for d in op.result.shape])  # type: ignore[call-overload]
        return _append(rewriter, op, "stablehlo.constant", (), {"value": empty}, [op.result.type])
    a = convolution_defaults(op.attributes)
    n: ConvDimensionNumbers = a["dimension_numbers"]
    lhs, rhs = (rewriter[v] for v in op.operands)
    rank = len(lhs.shape)
    low, high, interior = [0] * rank, [0] * rank, [0] * rank
    for d, (before, after), dilation in zip(n.input_spatial_dimensions, a["padding"],
                                            a["lhs_dilation"], strict=True):
        low[d], high[d], interior[d] = before, after, dilation - 1
    if any(not isinstance(v, int) or v for v in (*low, *high, *interior)):
        zero = _append(rewriter, op, "stablehlo.constant", (),
                       {"value": np.zeros((), lhs.dtype.numpy)}, [TensorType((), lhs.dtype)])
        lhs = _append(rewriter, op, "stablehlo.pad", [lhs, zero], {
            "edge_padding_low": tuple(low), "edge_padding_high": tuple(high),
            "interior_padding": tuple(interior)})
    flipped = tuple(d for d, r in zip(n.kernel_spatial_dimensions, a["window_reversal"],
                                      strict=True) if r)
    if flipped:
        rhs = _append(rewriter, op, "stablehlo.reverse", [rhs], {"dimensions": flipped})
    rhs, kernel_dims = _kernel_order(rewriter, op, rhs, n)
    spatial = len(n.input_spatial_dimensions)
    a |= {"padding": ((0, 0),) * spatial, "lhs_dilation": (1,) * spatial,
          "window_reversal": (False,) * spatial}
    a["dimension_numbers"] = ConvDimensionNumbers(
        n.input_batch_dimension, n.input_feature_dimension, n.input_spatial_dimensions,
        *kernel_dims, n.output_batch_dimension, n.output_feature_dimension,
        n.output_spatial_dimensions)
    return _append(rewriter, op, op.name, [lhs, rhs], a, [op.result.type])


def _kernel_order(
    rewriter: Rewriter, op: Op, rhs: Value, n: ConvDimensionNumbers
) -> tuple[Value, tuple[int, int, tuple[int, ...]]]:
    """The kernel as spatial, input feature, output feature: contiguous along output features.

    Left alone when the output features are innermost already, as in a weight gradient.
    """
    last = len(rhs.shape) - 1
    if n.kernel_output_feature_dimension == last:
        return rhs, (n.kernel_input_feature_dimension, n.kernel_output_feature_dimension,
                     n.kernel_spatial_dimensions)
    order = [*n.kernel_spatial_dimensions, n.kernel_input_feature_dimension,
             n.kernel_output_feature_dimension]
    rhs = _transpose(rewriter, op, rhs, order)
    return rhs, (last - 1, last, tuple(range(last - 1)))


RULES = {"stablehlo.dot_general": _dot, "stablehlo.convolution": _convolution}
