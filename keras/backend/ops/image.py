"""`keras.ops.image` on tfn: thin over `tfn.image`, which knows only batches with channels last."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
from keras.src.backend.config import standardize_data_format
from keras.src.random.seed_generator import draw_seed

from ....compiler import image as _image
from ....compiler import numpy as tnp
from ....compiler import random as trandom
from ....compiler.image.warping import MODES
from .core import convert_to_tensor

ORDERS = {"nearest": 0, "bilinear": 1}
RESIZE_INTERPOLATIONS = ("bilinear", "nearest", "lanczos3", "lanczos5", "bicubic")
SCALE_AND_TRANSLATE_METHODS = ("linear", "bilinear", "trilinear", "cubic", "bicubic", "tricubic",
                               "lanczos3", "lanczos5")


def _check(name: str, value: Any, allowed: Collection) -> None:
    if value not in allowed:
        raise ValueError(f"Invalid value for argument `{name}`. Expected one of {sorted(allowed)},"
                         f" got {value!r}")


def _check_rank(images: Any) -> None:
    if len(images.shape) not in (3, 4):
        raise ValueError("Invalid images rank: expected rank 3 (single image) or rank 4 (batch of"
                         f" images), got images of shape {tuple(images.shape)}")


def _axis(data_format: str | None) -> int:
    return -1 if standardize_data_format(data_format) == "channels_last" else -3


def _batched(images: Any, data_format: str | None, function: Callable[[Any], Any]) -> Any:
    """`function` of the images as (batch, height, width, channels), and its result as they were."""
    images = convert_to_tensor(images)
    _check_rank(images)
    single, first = images.ndim == 3, _axis(data_format) == -3
    images = images[None] if single else images
    result = function(tnp.moveaxis(images, 1, 3) if first else images)
    result = tnp.moveaxis(result, 3, 1) if first else result
    return result[0] if single else result


# -- colours ----------------------------------------------------------------------------------------

def rgb_to_grayscale(images, data_format=None):
    images, axis = convert_to_tensor(images), _axis(data_format)
    _check_rank(images)
    if images.shape[axis] not in (1, 3):
        raise ValueError("Invalid channel size: expected 3 (RGB) or 1 (Grayscale). Received images"
                         f" of shape {images.shape}")
    return images if images.shape[axis] == 1 else _image.rgb_to_grayscale(images, axis)


def rgb_to_hsv(images, data_format=None):
    return _image.rgb_to_hsv(_float_images(images), _axis(data_format))


def hsv_to_rgb(images, data_format=None):
    return _image.hsv_to_rgb(_float_images(images), _axis(data_format))


def _float_images(images):
    images = convert_to_tensor(images)
    _check_rank(images)
    if images.dtype.kind in "biu":
        raise ValueError(f"Invalid images dtype: expected float dtype. Received {images.dtype}")
    return images


# -- resampling ---------------------------------------------------------------------------------------

def resize(images, size, interpolation="bilinear", antialias=False, crop_to_aspect_ratio=False,
           pad_to_aspect_ratio=False, fill_mode="constant", fill_value=0.0, data_format=None):
    _check("interpolation", interpolation, RESIZE_INTERPOLATIONS)
    _check("fill_mode", fill_mode, ("constant",))
    if pad_to_aspect_ratio and crop_to_aspect_ratio:
        raise ValueError("Only one of `pad_to_aspect_ratio` & `crop_to_aspect_ratio` can be `True`.")
    if len(size) != 2:
        raise ValueError(f"Argument `size` must be a tuple (height, width), got {size}")

    def run(batch):
        if crop_to_aspect_ratio:
            batch = _cropped(batch, size)
        elif pad_to_aspect_ratio:
            batch = _padded(batch, size, fill_value)
        shape = (batch.shape[0], *size, batch.shape[3])
        return _image.resize(batch, shape, interpolation, antialias)

    return _batched(images, data_format, run)


def _same_ratio(height, width, target):
    """The height that fits the width, and the width that fits the height."""
    target_height, target_width = target
    return int(width * target_height / target_width), int(height * target_width / target_height)


def _cropped(batch, target):
    """The middle of the images with the target's proportions."""
    height, width = batch.shape[1:3]
    sizes = _same_ratio(height, width, target)
    new_height, new_width = (max(min(d, s), 1) for d, s in zip((height, width), sizes, strict=True))
    top, left = (height - new_height) // 2, (width - new_width) // 2
    return batch[:, top:top + new_height, left:left + new_width]


def _padded(batch, target, fill_value):
    """The images in the middle of a frame with the target's proportions."""
    height, width = batch.shape[1:3]
    sizes = _same_ratio(height, width, target)
    # As much after as before, so that the frame may lack a pixel.
    high, wide = ((max(d, s) - d) // 2 for d, s in zip((height, width), sizes, strict=True))
    widths = ((0, 0), (high, high), (wide, wide), (0, 0))
    return tnp.pad(batch, widths, constant_values=fill_value)


def scale_and_translate(images, output_shape, scale, translation, spatial_dims, method,
                        antialias=True):
    _check("method", method, SCALE_AND_TRANSLATE_METHODS)
    return _image.scale_and_translate(
        convert_to_tensor(images), output_shape, spatial_dims, convert_to_tensor(scale),
        convert_to_tensor(translation), method, antialias)


# -- warping ------------------------------------------------------------------------------------------

def map_coordinates(inputs, coordinates, order, fill_mode="constant", fill_value=0.0):
    inputs, coordinates = convert_to_tensor(inputs), convert_to_tensor(coordinates)
    if coordinates.shape[0] != inputs.ndim:
        raise ValueError("First dim of `coordinates` must be the same as the rank of `inputs`, got"
                         f" inputs of shape {inputs.shape} and {coordinates.shape[0]}")
    if coordinates.ndim < 2:
        raise ValueError("Invalid coordinates rank: expected at least rank 2, got the shape"
                         f" {coordinates.shape}")
    _check("fill_mode", fill_mode, MODES)
    _check("order", order, (0, 1))
    return _image.map_coordinates(inputs, coordinates, order, fill_mode, fill_value)


def affine_transform(images, transform, interpolation="bilinear", fill_mode="constant",
                     fill_value=0, data_format=None):
    _check("interpolation", interpolation, ORDERS)
    _check("fill_mode", fill_mode, MODES)
    transform = convert_to_tensor(transform)
    if transform.ndim not in (1, 2):
        raise ValueError("Invalid transform rank: expected rank 1 (single transform) or rank 2"
                         f" (batch of transforms), got a transform of shape {transform.shape}")

    def run(batch):
        transforms = _for_each(transform, 1, batch)
        coordinates = _image.affine_coordinates(transforms, *batch.shape[1:3])
        return _image.warp(batch, coordinates, ORDERS[interpolation], fill_mode, fill_value)

    return _batched(images, data_format, run)


def perspective_transform(images, start_points, end_points, interpolation="bilinear", fill_value=0,
                          data_format=None):
    _check("interpolation", interpolation, ORDERS)
    _check_rank(images)
    transform = compute_homography_matrix(start_points, end_points)

    def run(batch):
        transforms = _for_each(transform, 1, batch)
        coordinates = _image.homography_coordinates(transforms, *batch.shape[1:3])
        return _image.warp(batch, coordinates, ORDERS[interpolation], "constant", fill_value)

    return _batched(images, data_format, run)


def _for_each(x, rank, batch):
    """`x`, one of `rank` dims or a batch of them, for every image."""
    x = x[None] if x.ndim == rank else x
    return tnp.broadcast_to(x, (batch.shape[0], *x.shape[1:]))


def compute_homography_matrix(start_points, end_points):
    points = [convert_to_tensor(p) for p in (start_points, end_points)]
    for name, p in zip(("start_points", "end_points"), points, strict=True):
        if p.ndim not in (2, 3) or p.shape[-2:] != (4, 2):
            raise ValueError(f"Invalid {name} shape: expected (4,2) for a single image or (N,4,2)"
                             f" for a batch. Received shape: {p.shape}")
    if points[0].shape != points[1].shape:
        raise ValueError("start_points and end_points must have the same shape, got"
                         f" {points[0].shape} and {points[1].shape}")
    dtype = points[0].dtype.name
    found = _image.homography(*(p.astype("float32") if p.dtype.itemsize < 4 or p.dtype.kind in "iu"
                                else p for p in points))
    found = found.reshape((-1, 8))
    return found.astype(dtype) if points[0].dtype.kind not in "iu" else found


def elastic_transform(images, alpha=20.0, sigma=5.0, interpolation="bilinear", fill_mode="reflect",
                      fill_value=0.0, seed=None, data_format=None):
    """Pixels moved by smooth noise: `sigma` its scale, `alpha` how far."""
    _check("interpolation", interpolation, ORDERS)
    _check("fill_mode", fill_mode, MODES)
    points = int(6 * sigma) | 1
    seed = draw_seed(seed)

    def run(batch):
        count, height, width, _ = batch.shape
        noise = trandom.normal(seed, (count, height, width, 2)) * sigma
        width_of_noise = convert_to_tensor([sigma, sigma], "float32")
        moved = alpha * _image.gaussian_blur(noise, (points, points), width_of_noise)
        places = np.indices((height, width), dtype=np.float32)
        coordinates = tnp.moveaxis(moved, 3, 1) + places
        return _image.warp(batch, coordinates, ORDERS[interpolation], fill_mode, fill_value)

    return _batched(images, data_format, run)


# -- filters ------------------------------------------------------------------------------------------

def gaussian_blur(images, kernel_size=(3, 3), sigma=(1.0, 1.0), data_format=None):
    # Keras gives the width first.
    size, sigma = tuple(kernel_size)[::-1], convert_to_tensor(sigma)[::-1]
    return _batched(images, data_format, lambda batch: _image.gaussian_blur(batch, size, sigma))


def sobel_edges(images, data_format=None):
    edges = _image.sobel_edges(tnp.moveaxis(convert_to_tensor(images), _axis(data_format), -1))
    return edges if _axis(data_format) == -1 else tnp.moveaxis(edges, -2, -4)
