"""`keras.ops.image` on tfn: colour to grey; the rest is not there yet."""

from __future__ import annotations

import numpy as np
from keras.src.backend.config import standardize_data_format

from ....compiler import numpy as tnp
from ..missing import missing
from .core import convert_to_tensor

# ITU-R BT.601 luma.
_LUMA = (0.2989, 0.5870, 0.1140)


def rgb_to_grayscale(images, data_format=None):
    images = convert_to_tensor(images)
    axis = -1 if standardize_data_format(data_format) == "channels_last" else -3
    shape = [3 if d == images.ndim + axis else 1 for d in range(images.ndim)]
    weights = np.asarray(_LUMA, np.float32).reshape(shape)
    grey = tnp.sum(images.astype("float32") * weights, axis=axis, keepdims=True)
    return grey.astype(images.dtype.name)


for _name in ("rgb_to_hsv hsv_to_rgb resize affine_transform perspective_transform"
              " compute_homography_matrix map_coordinates gaussian_blur elastic_transform"
              " scale_and_translate sobel_edges").split():
    globals()[_name] = missing(_name)
