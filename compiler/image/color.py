"""Colour spaces. `axis` holds the channels; floats are from 0 to 1."""

from __future__ import annotations

from .. import numpy as tnp
from ..errors import OpError, user_location
from ..numpy.promote import ArrayLike, Value, asarray, convert, dtype_of, floating, shape_text

LUMA = (0.2989, 0.5870, 0.1140)
"""How much red, green and blue add to the brightness (ITU-R BT.601)."""


def _planes(x: Value, axis: int, name: str) -> list[Value]:
    if not x.shape or x.shape[axis] != 3:
        raise OpError(f"{name} needs 3 channels along axis {axis}, got {shape_text(x.shape)}",
                      user_location())
    return list(tnp.unstack(x, axis=axis))


def rgb_to_grayscale(x: ArrayLike, axis: int = -1) -> Value:
    """The brightness, as one channel; integers are truncated."""
    x = asarray(x)
    planes = _planes(floating(x), axis, "rgb_to_grayscale")
    grey = sum(plane * weight for plane, weight in zip(planes, LUMA, strict=True))
    return convert(tnp.expand_dims(grey, axis), dtype_of(x))


def rgb_to_hsv(x: ArrayLike, axis: int = -1) -> Value:
    """Hue (0 to 1), saturation and value; grey has hue and saturation 0."""
    x = floating(x)
    tiny = float(tnp.finfo(x.dtype).eps)
    red, green, blue = _planes(tnp.where(tnp.abs(x) < tiny, 0, x), axis, "rgb_to_hsv")
    value = tnp.maximum(tnp.maximum(red, green), blue)
    spread = value - tnp.minimum(tnp.minimum(red, green), blue)
    saturation = tnp.divide_no_nan(spread, value)
    sixth = tnp.divide_no_nan(1.0, spread) / 6
    # A sixth of the circle on either side of the largest channel, by the other two.
    hue = tnp.where(value == red, (green - blue) * sixth,
                    tnp.where(value == green, (blue - red) * sixth + 1 / 3,
                              (red - green) * sixth + 2 / 3))
    hue = tnp.where(spread > 0, tnp.where(hue < 0, hue + 1, hue), 0)
    return tnp.stack([hue, tnp.where(value > 0, saturation, 0), value], axis)


def hsv_to_rgb(x: ArrayLike, axis: int = -1) -> Value:
    """Red, green and blue from hue, saturation and value."""
    hue, saturation, value = _planes(floating(x), axis, "hsv_to_rgb")
    around = tnp.mod(hue, 1.0) * 6
    # How far each channel is from the hue, as a trapezoid around the circle.
    shares = (tnp.abs(around - 3) - 1, 2 - tnp.abs(around - 2), 2 - tnp.abs(around - 4))
    return tnp.stack([value * (1 - saturation + saturation * tnp.clip(s, 0, 1)) for s in shares],
                     axis)
