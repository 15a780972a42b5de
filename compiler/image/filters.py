"""Filters that look at a pixel's neighbours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .. import nn
from .. import numpy as tnp
from ..ir.dtypes import F32
from ..numpy.promote import ArrayLike, Value, asarray, convert, dtype_of, floating


def gaussian_window(size: int, sigma: ArrayLike) -> Value:
    """`size` points of a Gaussian around the middle, with the sum 1."""
    places = np.arange(size, dtype=np.float32) - (size - 1) / 2
    weights = tnp.exp(-0.5 * tnp.square(places / floating(sigma)))
    return weights / tnp.sum(weights)


def _along(x: Value, window: Value, axis: int) -> Value:
    """Images (batch, height, width, channels) filtered along rows (1) or columns (2); 0 outside."""
    shape = (-1, 1) if axis == 1 else (1, -1)
    kernel = tnp.reshape(convert(window, dtype_of(x)), (*shape, 1, 1))
    channels = x.shape[-1]
    kernel = tnp.broadcast_to(kernel, (*kernel.shape[:2], channels, 1))
    return nn.depthwise_conv(x, kernel, padding="same")


def gaussian_blur(images: ArrayLike, size: Sequence[int], sigma: ArrayLike) -> Value:
    """Images (batch, height, width, channels) blurred by Gaussians of `size` and `sigma` (rows,
    columns)."""
    images, sigma = floating(images), asarray(sigma)
    wide = convert(images, F32) if dtype_of(images).bits < 32 else images
    for axis, points in enumerate(size):
        wide = _along(wide, gaussian_window(int(points), sigma[axis]), axis + 1)
    return convert(wide, dtype_of(images))


def sobel_edges(images: ArrayLike) -> Value:
    """The slopes of images (batch, height, width, channels) along rows and columns, as a last dim."""
    images = floating(images)
    smooth, slope = np.array([1, 2, 1], np.float32), np.array([-1, 0, 1], np.float32)
    down = _along(_along(images, tnp.asarray(slope), 1), tnp.asarray(smooth), 2)
    across = _along(_along(images, tnp.asarray(smooth), 1), tnp.asarray(slope), 2)
    return tnp.stack([down, across], -1)
