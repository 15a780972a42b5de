"""Short-time Fourier transforms: spectra of overlapping frames of a signal, and the signal back."""

from __future__ import annotations

from ..errors import OpError, user_location
from . import elementwise as el
from .fft import irfft, rfft
from .padding import pad
from .promote import ArrayLike, Value, asarray, broadcast_to, dtype_of, floating, shape_text, to_dtype
from .reduction import sum as sum_
from .statistics import extract_sequences


def overlap_add(frames: ArrayLike, stride: int) -> Value:
    """The sum of the frames (..., count, length), each `stride` after the one before."""
    frames = asarray(frames)
    if len(frames.shape) < 2 or stride < 1:
        raise OpError(f"overlap_add needs frames (..., count, length) and a positive stride, got"
                      f" {shape_text(frames.shape)} and {stride}", user_location())
    *batch, count, length = frames.shape
    pieces = -(-length // stride)
    outer = [(0, 0)] * len(batch)
    frames = pad(frames, [*outer, (0, 0), (0, pieces * stride - length)])
    frames = frames.reshape((*batch, count, pieces, stride))
    total = None
    # The i-th pieces of all frames lie side by side, i strides from the start.
    for i in range(pieces):
        row = pad(frames[..., i, :], [*outer, (i, pieces - 1 - i), (0, 0)])
        total = row if total is None else el.add(total, row)
    assert total is not None
    return total.reshape((*batch, -1))[..., :(count - 1) * stride + length]


def stft(x: ArrayLike, window: ArrayLike, stride: int, n: int | None = None) -> Value:
    """`rfft` to `n` points (the window's by default) of the frames of the last dim times `window`: a
    complex (..., frames, n // 2 + 1)."""
    x = floating(x)
    window = to_dtype(window, dtype_of(x))
    frames = extract_sequences(x, window.shape[0], stride)
    return rfft(el.multiply(frames, window), n)


def istft(z: ArrayLike, window: ArrayLike, stride: int, n: int | None = None) -> Value:
    """The signal of which `z` (..., frames, frequencies) is the `stft`.

    It is exact where as many windows overlap as anywhere; towards the ends it fades.
    """
    frames = irfft(z, n)
    window = to_dtype(window, dtype_of(frames))
    return overlap_add(el.multiply(frames[..., :window.shape[0]], dual_window(window, stride)), stride)


def dual_window(window: ArrayLike, stride: int) -> Value:
    """The window w' with which frames are weighted, so that the sum of w w' over the frames `stride`
    apart is 1 everywhere (0 where no frame has weight)."""
    window = floating(window)
    length, = window.shape
    pieces = -(-length // stride)
    squares = pad(el.square(window), (0, pieces * stride - length)).reshape((pieces, stride))
    weight = broadcast_to(sum_(squares, 0, keepdims=True), (pieces, stride)).reshape(-1)[:length]
    return el.divide_no_nan(window, weight)


__all__ = ["dual_window", "istft", "overlap_add", "stft"]
