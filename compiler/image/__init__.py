"""`tfn.image`: colours, resampling, warping and filters of images, over `tfn.numpy`.

Images are (..., height, width, channels) unless an argument says otherwise.
"""

from .color import hsv_to_rgb, rgb_to_grayscale, rgb_to_hsv
from .filters import gaussian_blur, gaussian_window, sobel_edges
from .resampling import resize, scale_and_translate
from .warping import (
    affine_coordinates,
    homography,
    homography_coordinates,
    map_coordinates,
    warp,
)

__all__ = [
    "affine_coordinates", "gaussian_blur", "gaussian_window", "homography",
    "homography_coordinates", "hsv_to_rgb", "map_coordinates", "resize", "rgb_to_grayscale",
    "rgb_to_hsv", "scale_and_translate", "sobel_edges", "warp",
]
