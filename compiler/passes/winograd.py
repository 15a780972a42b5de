"""Winograd: 3x3 convolutions in f32 with 4 times fewer products, and 6 to 9 times the rounding error.

Only for programs that ask for it (`fast_convolution`), as errors are of the order of 1e-5 of the
largest result. Each tile of 4x4 results comes from 6x6 pixels, so that NaN and infinities in the image
reach up to 3 pixels further than the kernel does. A convolution whose `precision_config` says HIGH or
HIGHEST stays as it is.

The kernel at the points is a value of its own: constants are folded, loops make it once, and two
convolutions by the same kernel share it.
"""

from __future__ import annotations

import math

from ..codegen.target import Target
from ..codegen.window import Axis, direct_window
from ..codegen.winograd import kernel_columns
from ..ir.core import Function, Op, Value
from ..ir.dims import nominal
from ..ir.dtypes import F32
from ..ir.rewrite import Rewriter
from ..ir.structs import ConvDimensionNumbers
from ..ops.declare import definition
from ..ops.winograd import OUTPUTS, POINTS, TAPS

CONVOLUTION = "stablehlo.convolution"

_FEATURES = 32
"""Fewer of them do not repay going to the points and back."""
_GAIN = 1.5
"""Fewer products by this factor at least."""
_PIXELS = 300
"""Results of so many places repay bringing the kernel to the points in every run."""
_EXACT = frozenset({"HIGH", "HIGHEST"})


def winograd(function: Function, target: Target) -> Function:
    """`function` with `tfn.winograd` in place of the convolutions that gain by it; after `layout`."""
    rewriter = Rewriter(function)
    for op in function.ops:
        if gains(op, op.name == CONVOLUTION and _is_constant(rewriter[op.operands[1]])):
            rewriter.replace(op, [_winograd(op, rewriter, target)])
        else:
            rewriter.copy(op)
    return rewriter.finish()


def gains(op: Op, constant: bool) -> bool:
    """Is a convolution, in the form `layout` gives it, one that Winograd's algorithm is faster for?
    `constant`: is its kernel one, and at the points before the program runs?"""
    if (op.name != CONVOLUTION or op.result.dtype is not F32
            or not _EXACT.isdisjoint(op.attributes.get("precision_config", ()))):
        return False
    window = direct_window(op)
    if window is None or window.groups > 1 or len(window.axes) != 2 or not all(
            _is_plain(axis) for axis in window.axes):
        return False
    if min(window.channels, window.features) < _FEATURES:
        return False
    tiles = math.prod(-(-axis.out // OUTPUTS) for axis in window.axes)
    pixels = math.prod(axis.out for axis in window.axes)
    return pixels * TAPS * TAPS >= _GAIN * tiles * POINTS and (
        constant or pixels * nominal(op.result.shape[0]) >= _PIXELS)


def _is_constant(value: Value) -> bool:
    """Will `value` be folded?"""
    while value.op is not None and value.op.name == "stablehlo.transpose":
        value = value.op.operands[0]
    return value.op is not None and value.op.name == "stablehlo.constant"


def _is_plain(axis: Axis) -> bool:
    return axis.taps == TAPS and axis.stride == axis.spacing == axis.step == 1


def _winograd(op: Op, rewriter: Rewriter, target: Target) -> Value:
    image, kernel = (rewriter[v] for v in op.operands)
    n: ConvDimensionNumbers = op.attributes["dimension_numbers"]
    inputs, outputs = n.kernel_input_feature_dimension, n.kernel_output_feature_dimension
    if tuple(n.kernel_spatial_dimensions) != (0, 1):
        order = (*n.kernel_spatial_dimensions, inputs, outputs)
        kernel = rewriter.append(definition("stablehlo.transpose"), [kernel], None,
                                 {"permutation": order}, location=op.location).result
        inputs, outputs = 2, 3
    reversal = op.attributes.get("window_reversal", (False, False))
    points = rewriter.append(
        definition("tfn.winograd_kernel"), [kernel], None,
        {"columns": kernel_columns(target), "reversed": tuple(bool(r) for r in reversal)[:2],
         "turned": outputs < inputs}, location=op.location)
    padding = tuple(tuple(p) for p in op.attributes.get("padding", ((0, 0), (0, 0))))[:2]
    return rewriter.append(
        definition("tfn.winograd"), [image, points.result], [op.result.type],
        {"padding": padding, "features": op.result.shape[3]}, location=op.location).result
