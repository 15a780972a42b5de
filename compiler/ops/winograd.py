"""Winograd's algorithm F(4x4, 3x3): convolutions of images by 3x3 kernels with 4 times fewer products.

What `passes/winograd.py` makes of a convolution where a program may trade accuracy for speed, and
`codegen/winograd.py` has the kernels of. Tiles of 6x6 pixels and the kernel, 6x6 numbers per pair of
features, are multiplied at 36 points; each tile gives 4x4 pixels of the result. The points are 0, 1,
-1, 2, -2 and infinity (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015).
"""

from __future__ import annotations

import numpy as np

from ..ir.core import TensorType
from ..ir.dtypes import as_dtype
from .declare import Factors, OpDefinition, op, require

OUTPUTS, WINDOW, TAPS = 4, 6, 3
"""Along an axis: results of a tile, the pixels they read, and elements of the kernel."""
POINTS = WINDOW * WINDOW

SPREAD = np.array([[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
                   [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]])
"""Pixels of a tile -> points."""
KERNEL = np.array([[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
                   [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]])
"""Elements of the kernel -> points."""
GATHER = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0],
                   [0, 1, -1, 8, -8, 1]])
"""Points -> results of a tile."""


@op("tfn.winograd_kernel")
class WinogradKernel(OpDefinition):
    """A 3x3 kernel `[3, 3, inputs, outputs]` at the points, in panels of `columns` output features:
    `[36, panels, inputs, columns]`, zeros in the columns that do not exist.

    `turned`: the kernel is `[3, 3, outputs, inputs]`. `reversed`: is it read backwards along each axis?
    """

    attributes = {"columns": "i64", "reversed": "bool_array", "turned": "bool"}
    folds = True

    def kernel(emit, op):
        from ..codegen.points import winograd_kernel

        winograd_kernel(emit, op)

    def infer(operands, attributes, regions):
        (kernel,) = operands
        require(len(kernel.shape) == 4 and tuple(kernel.shape[:2]) == (TAPS, TAPS), "I1",
                f"tfn.winograd_kernel needs a kernel of 3x3, got {kernel}")
        inputs, outputs = kernel.shape[2:][::-1 if attributes["turned"] else 1]
        columns = attributes["columns"]
        return [TensorType((POINTS, -(-outputs // columns), inputs, columns), kernel.dtype)]

    def evaluate(operands, attributes, regions, result_types):
        wide = as_dtype(operands[0].dtype).wide
        backwards = [d for d, r in enumerate(attributes["reversed"]) if r]
        w = np.flip(operands[0], backwards).astype(np.result_type(wide, np.float64))
        if attributes["turned"]:
            w = w.swapaxes(2, 3)
        points, panels, inputs, columns = result_types[0].shape
        at = np.einsum("ap,pqio,bq->abio", KERNEL, w, KERNEL, optimize=True)
        result = np.zeros((points, inputs, panels * columns))
        result[:, :, :w.shape[3]] = at.reshape(points, inputs, -1)
        return [result.reshape(points, inputs, panels, columns).swapaxes(1, 2)
                .astype(operands[0].dtype)]


@op("tfn.winograd")
class Winograd(OpDefinition):
    """Convolve images `[batch, height, width, inputs]` by what `tfn.winograd_kernel` makes of a kernel
    for `features` outputs; `padding` as of `stablehlo.convolution`."""

    attributes = {"padding": "i64_pairs", "features": "i64"}

    def infer(operands, attributes, regions):
        image, kernel = operands
        require(image.rank == kernel.rank == 4 and image.shape[3] == kernel.shape[2], "I1",
                f"tfn.winograd of {image} by {kernel}")
        sizes = [size + low + high - (TAPS - 1) for size, (low, high) in zip(
            image.shape[1:3], attributes["padding"], strict=True)]
        return [TensorType((image.shape[0], *sizes, attributes["features"]), image.dtype)]

    def evaluate(operands, attributes, regions, result_types):
        image, kernel = operands
        batch, height, width, features = result_types[0].shape
        tall, wide = -(-height // OUTPUTS), -(-width // OUTPUTS)
        padded = np.zeros((batch, tall * OUTPUTS + 2, wide * OUTPUTS + 2, image.shape[3]))
        (top, _), (left, _) = attributes["padding"]
        source = image[:, max(-top, 0):, max(-left, 0):]
        room = padded[:, max(top, 0):, max(left, 0):]
        rows, columns = (min(source.shape[d], room.shape[d]) for d in (1, 2))
        room[:, :rows, :columns] = source[:, :rows, :columns]
        tiles = np.lib.stride_tricks.sliding_window_view(padded, (WINDOW, WINDOW), (1, 2))
        tiles = tiles[:, ::OUTPUTS, ::OUTPUTS]
        with np.errstate(all="ignore"):
            at = np.einsum("ap,nrcipq,bq->abnrci", SPREAD, tiles, SPREAD, optimize=True)
            products = np.einsum("xti,xpij->xtpj", at.reshape(POINTS, -1, image.shape[3]),
                                 kernel.astype(np.float64), optimize=True)
            products = products.reshape(WINDOW, WINDOW, batch, tall, wide, -1)
            out = np.einsum("pa,abnrcj,qb->nrpcqj", GATHER, products, GATHER, optimize=True)
        out = out.reshape(batch, tall * OUTPUTS, wide * OUTPUTS, out.shape[-1])
        return [out[:, :height, :width, :features].astype(image.dtype)]

    def factors(op):
        return Factors([(0, None, None, None), (None,) * 4], [(0, None, None, None)])
