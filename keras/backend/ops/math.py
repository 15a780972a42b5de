"""`keras.ops.math` on tfn."""

from __future__ import annotations

from ....compiler import numpy as tnp
from ....compiler.numpy import fft as _fft
from ....compiler.trace.core import bind
from .core import convert_to_tensor
from .operands import floating, together_floating


def segment_sum(data, segment_ids, num_segments=None, sorted=False):
    return tnp.segment_sum(convert_to_tensor(data), convert_to_tensor(segment_ids), num_segments)


def segment_max(data, segment_ids, num_segments=None, sorted=False):
    return tnp.segment_max(convert_to_tensor(data), convert_to_tensor(segment_ids), num_segments)


def segment_min(data, segment_ids, num_segments=None, sorted=False):
    return tnp.segment_min(convert_to_tensor(data), convert_to_tensor(segment_ids), num_segments)


def segment_prod(data, segment_ids, num_segments=None, sorted=False):
    return tnp.segment_prod(convert_to_tensor(data), convert_to_tensor(segment_ids), num_segments)


def top_k(x, k, sorted=True):
    return tnp.top_k(convert_to_tensor(x), k)


def in_top_k(targets, predictions, k):
    return tnp.in_top_k(convert_to_tensor(targets), convert_to_tensor(predictions), k)


def logsumexp(x, axis=None, keepdims=False):
    return tnp.logsumexp(floating(x), axis=axis, keepdims=keepdims)


def rsqrt(x):
    return tnp.rsqrt(floating(x))


def erf(x):
    return tnp.erf(floating(x))


def erfc(x):
    return tnp.erfc(floating(x))


def erfinv(x):
    return tnp.erfinv(floating(x))


def logdet(x):
    return tnp.linalg.slogdet(convert_to_tensor(x))[1]


def extract_sequences(x, sequence_length, sequence_stride):
    return tnp.extract_sequences(convert_to_tensor(x), sequence_length, sequence_stride)


def cdist(x, y):
    x, y = together_floating(x, y)
    if x.ndim < 2 or y.ndim < 2 or x.shape[-1] != y.shape[-1]:
        raise ValueError("`cdist` inputs must have rank >= 2 and one last dimension, got shapes"
                         f" {x.shape} and {y.shape}")
    return tnp.linalg.vector_norm(x[..., :, None, :] - y[..., None, :, :], axis=-1)


# -- Fourier transforms: complex tensors are pairs of real ones -------------------------------------

def fft(x):
    return _pair(_fft.fft(_get_complex_tensor_from_tuple(x)))


def fft2(x):
    return _pair(_fft.fft2(_get_complex_tensor_from_tuple(x)))


def ifft2(x):
    return _pair(_fft.ifft2(_get_complex_tensor_from_tuple(x)))


def rfft(x, fft_length=None):
    return _pair(_fft.rfft(floating(x), fft_length))


def irfft(x, fft_length=None):
    return _fft.irfft(_get_complex_tensor_from_tuple(x), fft_length)


def stft(x, sequence_length, sequence_stride, fft_length, window="hann", center=True):
    x = convert_to_tensor(x)
    if x.dtype.name not in ("float32", "float64"):
        raise TypeError(f"Invalid input type. Expected `float32` or `float64`, got {x.dtype}")
    if fft_length < sequence_length:
        raise ValueError("`fft_length` must equal or larger than `sequence_length`, got"
                         f" sequence_length={sequence_length}, fft_length={fft_length}")
    if center:
        half = fft_length // 2
        x = tnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(half, half)], mode="reflect")
    window = _window(window, sequence_length, fft_length)
    return _pair(tnp.stft(x, window, sequence_stride))


def istft(x, sequence_length, sequence_stride, fft_length, length=None, window="hann", center=True):
    x = _get_complex_tensor_from_tuple(x)
    if x.ndim < 2:
        raise ValueError(f"`x` must have at least 2 dimensions, got the shape {x.shape}")
    if window is None:
        signal = tnp.overlap_add(_fft.irfft(x, fft_length), sequence_stride)
    else:
        window = _window(window, sequence_length, fft_length)
        signal = tnp.istft(x, window, sequence_stride, fft_length)
    half = fft_length // 2 if center else 0
    return signal[..., half:half + length if length is not None else signal.shape[-1] - half]


def _window(window, sequence_length, fft_length):
    """The window's values, with zeros around them to the length of the transform."""
    if window is None:
        return tnp.ones((fft_length,))
    if isinstance(window, str):
        windows = {"hann": tnp.hanning, "hamming": tnp.hamming}
        if window not in windows:
            raise ValueError('If a string is passed to `window`, it must be one of `"hann"`,'
                             f' `"hamming"`, got {window!r}')
        # Of a period, whose last point is the next one's first.
        window = windows[window](sequence_length + 1, dtype="float64")[:-1]
    window = convert_to_tensor(window)
    if window.shape != (sequence_length,):
        raise ValueError("The shape of `window` must be equal to [sequence_length], got"
                         f" {window.shape}")
    low = (fft_length - sequence_length) // 2
    return tnp.pad(window, (low, fft_length - sequence_length - low))


def _get_complex_tensor_from_tuple(x):
    """The complex tensor of a pair; `keras.ops.polar` calls it by this name."""
    if not isinstance(x, (list, tuple)) or len(x) != 2:
        raise ValueError("Input `x` should be a tuple of two tensors - real and imaginary - since a"
                         f" complex tensor is a pair in Keras; got {type(x).__name__}")
    real, imaginary = (convert_to_tensor(part) for part in x)
    if real.shape != imaginary.shape:
        raise ValueError("Both the real and imaginary parts should have the same shape, got"
                         f" {real.shape} and {imaginary.shape}")
    if real.dtype.kind in "iub" or imaginary.dtype.kind in "iub":
        raise ValueError(f"At least one tensor in input `x` is not of type float, got {real.dtype}"
                         f" and {imaginary.dtype}")
    return bind("stablehlo.complex", real, imaginary)


def _pair(x):
    return tnp.real(x), tnp.imag(x)
