"""Layout of convolutions: images last to first in memory, numbers of types that have kernels.

A convolution by one tap is a product of matrices. Narrow numbers are convolved as they are where the
target has an instruction for that, and as wider ones elsewhere.
"""

from __future__ import annotations

import math

import numpy as np

from ..codegen.product import product_of, sums_of
from ..codegen.target import Target
from ..ir.core import Op, TensorType, Value
from ..ir.dtypes import F32, I32, DType
from ..ir.rewrite import Rewriter
from ..ir.structs import ConvDimensionNumbers, DotDimensionNumbers
from ..ops.contraction import convolution_defaults
from .movement import append, transpose

_FEATURES, _TAPS = 32, 25
"""Of a kernel whose gradient is a sum of products: the fewest, and the most."""


def convolution(op: Op, rewriter: Rewriter, target: Target | None) -> Value:
    """Put the dims of an image last to first in memory as batch, spatial, features."""
    if op.result.type.size == 0:
        # Nothing to compute, and padding of an empty dim may be negative.
        empty = np.broadcast_to(np.zeros((), op.result.dtype.numpy),
                                [int(d) for d in op.result.shape])  # type: ignore[call-overload]
        return append(rewriter, op, "constant", (), {"value": empty}, op.result.type)
    a = convolution_defaults(op.attributes)
    lhs, rhs = (rewriter[v] for v in op.operands)
    n: ConvDimensionNumbers = a["dimension_numbers"]
    regular = _is_regular(op, a)
    wide = _wide_type(op)
    if wide is not None:
        gradient = _is_weight_gradient(op, a)
        # Numbers of less than a byte have no products of their own.
        narrow = regular and sums_of(op) is not None
        if narrow and gradient and _is_sum_of_products(op, a, target):
            return _sum_of_products(op, rewriter, lhs, rhs, a)
        if not narrow or gradient or not (_is_product(a, rhs) or _is_direct(op, a, target)):
            return _widened(op, rewriter, target, wide, lhs, rhs)
    if not regular:
        return _generic(op, rewriter, lhs, rhs, a)
    # A reversed kernel (of an input gradient) is read backwards where it is.
    while rhs.op is not None and rhs.op.name == "stablehlo.reverse" and (
            set(rhs.op.attributes["dimensions"]) <= set(n.kernel_spatial_dimensions)):
        turned = rhs.op.attributes["dimensions"]
        a["window_reversal"] = tuple(
            r != (d in turned) for d, r in zip(n.kernel_spatial_dimensions, a["window_reversal"],
                                               strict=True))
        rhs = rhs.op.operands[0]
    mixed = any(step > 1 and (stride > 1 or spacing > 1) for step, stride, spacing in zip(
        a["lhs_dilation"], a["window_strides"], a["rhs_dilation"], strict=True))
    gradient = _is_weight_gradient(op, a)
    if mixed or (gradient and set(a["lhs_dilation"]) - {1}):
        lhs = _padded(rewriter, op, lhs, a, with_edges=False)
        a["lhs_dilation"] = (1,) * len(a["lhs_dilation"])
    if gradient and any(a["window_reversal"]):
        rhs = _reversed(rewriter, op, rhs, a)
    spatial = range(1, len(lhs.shape) - 1)
    if gradient:
        lhs = transpose(rewriter, op, lhs, [n.input_feature_dimension, *n.input_spatial_dimensions,
                                            n.input_batch_dimension])
        rhs = transpose(rewriter, op, rhs, [n.kernel_input_feature_dimension,
                                            *n.kernel_spatial_dimensions,
                                            n.kernel_output_feature_dimension])
        last = len(lhs.shape) - 1
        order = [*n.output_spatial_dimensions, n.output_batch_dimension, n.output_feature_dimension]
        numbers = ConvDimensionNumbers(last, 0, tuple(spatial), 0, last, tuple(spatial), last - 1, last,
                                       tuple(range(last - 1)))
    else:
        lhs = transpose(rewriter, op, lhs, [n.input_batch_dimension, *n.input_spatial_dimensions,
                                            n.input_feature_dimension])
        last = len(lhs.shape) - 1
        order = [n.output_batch_dimension, *n.output_spatial_dimensions, n.output_feature_dimension]
        numbers = ConvDimensionNumbers(
            0, last, tuple(spatial), n.kernel_input_feature_dimension,
            n.kernel_output_feature_dimension, n.kernel_spatial_dimensions, 0, last, tuple(spatial))
    a["dimension_numbers"] = numbers
    kind = op.result.type.with_shape(tuple(op.result.shape[d] for d in order))
    if not gradient and _is_product(a, rhs):
        result = _product(rewriter, op, lhs, rhs, a, kind)
    else:
        result = append(rewriter, op, "convolution", [lhs, rhs], a, kind)
    return transpose(rewriter, op, result, [order.index(d) for d in range(len(order))])


def _wide_type(op: Op) -> DType | None:
    """The type of 32 bits for numbers of which some have less, and none more; None where none has."""
    dtypes = [v.dtype for v in (*op.operands, op.result)]
    if max(d.bits for d in dtypes) > 32 or min(d.bits for d in dtypes) == 32:
        return None
    if all(d.is_float for d in dtypes):
        return F32
    return I32 if all(d.is_integer for d in dtypes) else None


def _is_direct(op: Op, a, target: Target | None) -> bool:
    """Has the target an instruction for convolutions of these narrow numbers as they are?"""
    if target is None or a["feature_group_count"] > 1:
        return False
    product = product_of(op, target)
    channels, step = op.operands[1].shape[a["dimension_numbers"].kernel_input_feature_dimension], (
        product.group * product.depth)
    # Whole steps along K: for less than half a step, wide numbers take no more products.
    return (product.group > 1 and not product.flips and isinstance(channels, int)
            and 2 * channels >= step and all(v.dtype.bits == product.packed.bits for v in op.operands))


def _is_sum_of_products(op: Op, a, target: Target | None) -> bool:
    """Is the gradient of a kernel better a product of all pixels for each of its taps, since the target
    has an instruction for products of narrow floats?"""
    n: ConvDimensionNumbers = a["dimension_numbers"]
    features = [op.result.shape[d] for d in (n.output_batch_dimension, n.output_feature_dimension)]
    taps = math.prod(int(op.result.shape[d]) for d in n.output_spatial_dimensions)  # type: ignore[arg-type]
    return (target is not None and product_of(op, target).tiles and a["batch_group_count"] == 1
            and set(a["lhs_dilation"]) == {1} and not any(a["window_reversal"])
            and all(isinstance(f, int) and f >= _FEATURES for f in features) and taps <= _TAPS)


def _sum_of_products(op: Op, rewriter: Rewriter, lhs: Value, rhs: Value, a) -> Value:
    """The products of what each tap reads and the cotangent, in f32, rounded once at the end."""
    n: ConvDimensionNumbers = a["dimension_numbers"]
    taps = [int(op.result.shape[d]) for d in n.output_spatial_dimensions]  # type: ignore[call-overload]
    lhs = _padded(rewriter, op, lhs, a)
    lhs = transpose(rewriter, op, lhs, [n.input_feature_dimension, *n.input_spatial_dimensions,
                                        n.input_batch_dimension])
    rhs = transpose(rewriter, op, rhs, [n.kernel_input_feature_dimension,
                                        *n.kernel_spatial_dimensions,
                                        n.kernel_output_feature_dimension])
    pixels = rhs.shape[1:-1]
    channels, features = lhs.shape[-1], rhs.shape[-1]
    contracted = tuple(range(len(lhs.shape) - 1))
    dims = DotDimensionNumbers((), (), contracted, contracted)
    parts = []
    for tap in np.ndindex(*taps):
        starts = (0, *(t * s for t, s in zip(tap, a["window_strides"], strict=True)), 0)
        limits = (lhs.shape[0], *(s + (p - 1) * d + 1 for s, p, d in zip(
            starts[1:-1], pixels, a["rhs_dilation"], strict=True)), channels)
        read = lhs if (*starts, *limits) == (*[0] * len(limits), *lhs.shape) and not (
            set(a["rhs_dilation"]) - {1}) else append(
                rewriter, op, "slice", [lhs],
                {"start_indices": starts, "limit_indices": limits,
                 "strides": (1, *a["rhs_dilation"], 1)})
        product = append(rewriter, op, "dot_general", [read, rhs],
                         {"dot_dimension_numbers": dims, "dtype": F32})
        parts.append(append(rewriter, op, "reshape", [product],
                            {"shape": (1, channels, features)}))
    whole = parts[0] if len(parts) == 1 else append(
        rewriter, op, "concatenate", parts, {"dimension": 0})
    whole = append(rewriter, op, "reshape", [whole], {"shape": (*taps, channels, features)})
    order = [*n.output_spatial_dimensions, n.output_batch_dimension, n.output_feature_dimension]
    result = transpose(rewriter, op, whole, [order.index(d) for d in range(len(order))])
    return _converted(rewriter, op, result, op.result.dtype)


def _widened(op: Op, rewriter: Rewriter, target: Target | None, dtype: DType, lhs: Value, rhs: Value
             ) -> Value:
    """The convolution of the same numbers in another type, converted once at the end."""
    wide = Op(op.definition, [_converted(rewriter, op, v, dtype) for v in (lhs, rhs)],
              [op.result.type.with_dtype(dtype)], {**op.attributes, "dtype": dtype}, (), op.location)
    return _converted(rewriter, op, convolution(wide, rewriter, target), op.result.dtype)


def _converted(rewriter: Rewriter, op: Op, value: Value, dtype: DType) -> Value:
    if value.dtype is dtype:
        return value
    if value.op is not None and value.op.name == "stablehlo.reverse":
        # A reversed kernel stays one: it is read backwards where it is.
        turned = _converted(rewriter, op, value.op.operands[0], dtype)
        return append(rewriter, op, "reverse", [turned], value.op.attributes)
    return append(rewriter, op, "convert", [value], {"dtype": dtype})


def _is_product(a, rhs: Value) -> bool:
    """Is a convolution the product of all pixels and a matrix: by a kernel of one tap, which meets
    every pixel once? `codegen/gemm.py` is faster at that, by a quarter for few input features."""
    n: ConvDimensionNumbers = a["dimension_numbers"]
    return (a["feature_group_count"] == 1
            and all(rhs.shape[d] == 1 for d in n.kernel_spatial_dimensions)
            and not any(p for pair in a["padding"] for p in pair)
            and set(a["window_strides"]) == set(a["lhs_dilation"]) == {1})


def _product(rewriter: Rewriter, op: Op, lhs: Value, rhs: Value, a, kind: TensorType) -> Value:
    n: ConvDimensionNumbers = a["dimension_numbers"]
    turned = n.kernel_output_feature_dimension < n.kernel_input_feature_dimension
    matrix = [rhs.shape[d] for d in sorted((n.kernel_input_feature_dimension,
                                            n.kernel_output_feature_dimension))]
    rhs = append(rewriter, op, "reshape", [rhs], {"shape": tuple(matrix)})
    attributes = {name: a[name] for name in ("precision_config", "dtype") if name in a}
    dims = DotDimensionNumbers((), (), (len(lhs.shape) - 1,), (1 if turned else 0,))
    return append(rewriter, op, "dot_general", [lhs, rhs],
                  {"dot_dimension_numbers": dims, **attributes}, kind)


def _is_regular(op: Op, a) -> bool:
    """Is this a convolution for kernels of `codegen.window`, once its dims are in order?"""
    n: ConvDimensionNumbers = a["dimension_numbers"]
    lhs, rhs = op.operands
    gradient = _is_weight_gradient(op, a)
    batch = ((lhs, n.input_feature_dimension if gradient else n.input_batch_dimension),
             (rhs, n.kernel_input_feature_dimension if gradient else None),
             (op.result, None if gradient else n.output_batch_dimension))
    dtypes = {op.result.dtype, *(v.dtype for v in op.operands)}
    whole = all(d.is_integer for d in dtypes) and not gradient and a["feature_group_count"] == 1
    return ((whole or all(d.is_float for d in dtypes)) and len(lhs.shape) > 2
            and (len(dtypes) == 1 or _wide_type(op) is not None)
            and (a["feature_group_count"] if gradient else a["batch_group_count"]) == 1
            and all(isinstance(p, int) for pair in a["padding"] for p in pair)
            and all(isinstance(e, int) and e > 0 for value, dim in batch
                    for d, e in enumerate(value.shape) if d != dim))


def _is_weight_gradient(op: Op, a) -> bool:
    """Does a convolution contract a batch of images? Their features lie innermost then, or, where no
    operand says so, the window is larger than the result."""
    n: ConvDimensionNumbers = a["dimension_numbers"]
    last = len(op.result.shape) - 1
    if a["batch_group_count"] > 1 or n.input_batch_dimension == last:
        return True
    if n.input_feature_dimension == last or a["feature_group_count"] > 1:
        return False
    window = [op.operands[1].shape[d] for d in n.kernel_spatial_dimensions]
    result = [op.result.shape[d] for d in n.output_spatial_dimensions]
    known = all(isinstance(e, int) for e in (*window, *result))
    return known and math.prod(window) > math.prod(result)


def _padded(rewriter: Rewriter, op: Op, lhs: Value, a, with_edges: bool = True) -> Value:
    """The image with zeros between its elements, and around them."""
    n: ConvDimensionNumbers = a["dimension_numbers"]
    rank = len(lhs.shape)
    low, high, interior = [0] * rank, [0] * rank, [0] * rank
    for d, (before, after), dilation in zip(n.input_spatial_dimensions, a["padding"],
                                            a["lhs_dilation"], strict=True):
        if with_edges:
            low[d], high[d] = before, after
        interior[d] = dilation - 1
    if not any(not isinstance(v, int) or v for v in (*low, *high, *interior)):
        return lhs
    zero = append(rewriter, op, "constant", (),
                  {"value": np.zeros((), lhs.dtype.numpy)}, TensorType((), lhs.dtype))
    return append(rewriter, op, "pad", [lhs, zero], {
        "edge_padding_low": tuple(low), "edge_padding_high": tuple(high),
        "interior_padding": tuple(interior)})


def _reversed(rewriter: Rewriter, op: Op, rhs: Value, a) -> Value:
    """The kernel as it is applied; `a` says so."""
    n: ConvDimensionNumbers = a["dimension_numbers"]
    flipped = tuple(d for d, r in zip(n.kernel_spatial_dimensions, a["window_reversal"],
                                      strict=True) if r)
    a["window_reversal"] = (False,) * len(a["window_reversal"])
    if not flipped:
        return rhs
    return append(rewriter, op, "reverse", [rhs], {"dimensions": flipped})


def _generic(op: Op, rewriter: Rewriter, lhs: Value, rhs: Value, a) -> Value:
    """A convolution without padding, input dilation or reversal."""
    n: ConvDimensionNumbers = a["dimension_numbers"]
    lhs, rhs = _padded(rewriter, op, lhs, a), _reversed(rewriter, op, rhs, a)
    rhs, kernel_dims = _kernel_order(rewriter, op, rhs, n)
    spatial = len(n.input_spatial_dimensions)
    a |= {"padding": ((0, 0),) * spatial, "lhs_dilation": (1,) * spatial}
    a["dimension_numbers"] = ConvDimensionNumbers(
        n.input_batch_dimension, n.input_feature_dimension, n.input_spatial_dimensions,
        *kernel_dims, n.output_batch_dimension, n.output_feature_dimension,
        n.output_spatial_dimensions)
    return append(rewriter, op, "convolution", [lhs, rhs], a, op.result.type)


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
    rhs = transpose(rewriter, op, rhs, order)
    return rhs, (last - 1, last, tuple(range(last - 1)))
