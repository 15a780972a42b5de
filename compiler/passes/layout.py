"""Layout: bring contractions into the form the code generator streams.

Afterwards images are `[batch, *spatial, features]` wherever a kernel of `codegen/window.py` reads them,
and convolutions of those by a single tap are products.
Any other convolution has no padding, input dilation or reversal (they are ops of their own), and the
rhs of a contraction is contiguous along the innermost dim of the result.
"""

from __future__ import annotations

from collections import Counter

from ..codegen.matrix import is_matrix_product
from ..codegen.target import Target
from ..ir.core import Function, Op, Value
from ..ir.rewrite import Rewriter
from ..ir.structs import DotDimensionNumbers
from .convolutions import convolution
from .movement import append, transpose


def layout(function: Function, target: Target | None = None) -> Function:
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
            rewriter.replace(op, [rule(op, rewriter, target)])
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
    return append(rewriter, product, "dot_general", [rewriter[rhs], rewriter[lhs]],
                  {**product.attributes, "dot_dimension_numbers": _exchanged(n)}, op.result.type)


def _exchanged(n: DotDimensionNumbers) -> DotDimensionNumbers:
    return DotDimensionNumbers(n.rhs_batching_dimensions, n.lhs_batching_dimensions,
                               n.rhs_contracting_dimensions, n.lhs_contracting_dimensions)


def _dot(op: Op, rewriter: Rewriter, target: Target | None) -> Value:
    """Order the rhs as batching, contracting, free: contiguous along the last result dim. A matrix
    times a vector is the vector times the matrix."""
    n: DotDimensionNumbers = op.attributes["dot_dimension_numbers"]
    a, b = op.operands
    if len(b.shape) == len(n.rhs_batching_dimensions) + len(n.rhs_contracting_dimensions):
        n = _exchanged(n)
        op = Op(op.definition, [b, a], [op.result.type], {**op.attributes, "dot_dimension_numbers": n},
                location=op.location)
    lhs, rhs = (rewriter[v] for v in op.operands)
    batching, contracting = n.rhs_batching_dimensions, n.rhs_contracting_dimensions
    free = [d for d in range(len(rhs.shape)) if d not in (*batching, *contracting)]
    attributes = dict(op.attributes)
    if not is_matrix_product(op) and free and free[-1] != len(rhs.shape) - 1:
        rhs = transpose(rewriter, op, rhs, [*batching, *contracting, *free])
        count = len(batching)
        attributes["dot_dimension_numbers"] = DotDimensionNumbers(
            n.lhs_batching_dimensions, tuple(range(count)), n.lhs_contracting_dimensions,
            tuple(range(count, count + len(contracting))))
    return append(rewriter, op, "dot_general", [lhs, rhs], attributes, op.result.type)


RULES = {"stablehlo.dot_general": _dot, "stablehlo.convolution": convolution}
