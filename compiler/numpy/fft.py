"""`tfn.numpy.fft`: discrete Fourier transforms, as `stablehlo.fft` over the last dims.

f32 transforms to complex<f32>, f64 to complex<f64>; all others through the default float. `norm` says
where the length divides: "backward" in the inverse, "forward" in the other, "ortho" by its square
root in both. `n` and `s` cut or zero-pad the input.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..errors import OpError, user_location
from ..ir.defaults import default_float
from ..ir.dtypes import C64, F32
from ..ops import fft as _fft  # noqa: F401  (declares the op)
from ..trace.core import Array, bind
from . import elementwise as el
from .device import check_device
from .manipulation import moveaxis, roll, slice_along
from .padding import pad
from .promote import (
    ArrayLike,
    Value,
    asarray,
    convert,
    dtype_argument,
    dtype_of,
    floating,
    normalize_axis,
    promote,
    shape_text,
)

_MOST_DIMS = 3
"""How many dims one op transforms."""
_NORMS = ("backward", "ortho", "forward")


def fft(x: ArrayLike, n: int | None = None, axis: int = -1, norm: str | None = None) -> Value:
    """The transform along `axis`."""
    return _complex("FFT", x, None if n is None else (n,), (axis,), norm)


def ifft(x: ArrayLike, n: int | None = None, axis: int = -1, norm: str | None = None) -> Value:
    """The inverse of `fft`."""
    return _complex("IFFT", x, None if n is None else (n,), (axis,), norm)


def rfft(x: ArrayLike, n: int | None = None, axis: int = -1, norm: str | None = None) -> Value:
    """The transform of real numbers along `axis`: the n // 2 + 1 non-negative frequencies."""
    return _forward_real(x, None if n is None else (n,), (axis,), norm)


def irfft(x: ArrayLike, n: int | None = None, axis: int = -1, norm: str | None = None) -> Value:
    """The inverse of `rfft`; `n` (the length of the result) is 2 (m - 1) by default."""
    return _inverse_real(x, None if n is None else (n,), (axis,), norm)


def hfft(x: ArrayLike, n: int | None = None, axis: int = -1, norm: str | None = None) -> Value:
    """The (real) transform of a signal with Hermitian symmetry, given its first half."""
    return _inverse_real(el.conj(_as_complex(x)), None if n is None else (n,), (axis,),
                         _opposite(norm))


def ihfft(x: ArrayLike, n: int | None = None, axis: int = -1, norm: str | None = None) -> Value:
    """The inverse of `hfft`."""
    return el.conj(_forward_real(x, None if n is None else (n,), (axis,), _opposite(norm)))


def fftn(x: ArrayLike, s: Sequence[int] | None = None, axes: Sequence[int] | None = None,
         norm: str | None = None) -> Value:
    """The transform along several axes (all by default)."""
    return _complex("FFT", x, s, axes, norm)


def ifftn(x: ArrayLike, s: Sequence[int] | None = None, axes: Sequence[int] | None = None,
          norm: str | None = None) -> Value:
    """The inverse of `fftn`."""
    return _complex("IFFT", x, s, axes, norm)


def rfftn(x: ArrayLike, s: Sequence[int] | None = None, axes: Sequence[int] | None = None,
          norm: str | None = None) -> Value:
    """The transform of real numbers; the last of `axes` has the non-negative frequencies only."""
    return _forward_real(x, s, axes, norm)


def irfftn(x: ArrayLike, s: Sequence[int] | None = None, axes: Sequence[int] | None = None,
           norm: str | None = None) -> Value:
    """The inverse of `rfftn`."""
    return _inverse_real(x, s, axes, norm)


def fft2(x: ArrayLike, s: Sequence[int] | None = None, axes: Sequence[int] = (-2, -1),
         norm: str | None = None) -> Value:
    """`fftn` along two axes."""
    return fftn(x, s, axes, norm)


def ifft2(x: ArrayLike, s: Sequence[int] | None = None, axes: Sequence[int] = (-2, -1),
          norm: str | None = None) -> Value:
    """`ifftn` along two axes."""
    return ifftn(x, s, axes, norm)


def rfft2(x: ArrayLike, s: Sequence[int] | None = None, axes: Sequence[int] = (-2, -1),
          norm: str | None = None) -> Value:
    """`rfftn` along two axes."""
    return rfftn(x, s, axes, norm)


def irfft2(x: ArrayLike, s: Sequence[int] | None = None, axes: Sequence[int] = (-2, -1),
           norm: str | None = None) -> Value:
    """`irfftn` along two axes."""
    return irfftn(x, s, axes, norm)


def fftfreq(n: int, d: float = 1.0, dtype=None, device=None) -> Value:
    """The frequencies of the bins of `fft`, in cycles per unit of the sample spacing `d`."""
    return _frequencies(np.fft.fftfreq(n, d), dtype, device)


def rfftfreq(n: int, d: float = 1.0, dtype=None, device=None) -> Value:
    """The frequencies of the bins of `rfft`."""
    return _frequencies(np.fft.rfftfreq(n, d), dtype, device)


def fftshift(x: ArrayLike, axes: int | Sequence[int] | None = None) -> Value:
    """`x` with the zero frequency moved to the middle of `axes` (all by default)."""
    return _shift(x, axes, lambda size: size // 2)


def ifftshift(x: ArrayLike, axes: int | Sequence[int] | None = None) -> Value:
    """The inverse of `fftshift`."""
    return _shift(x, axes, lambda size: -(size // 2))


def _frequencies(values: np.ndarray, dtype, device) -> Value:
    check_device(device)
    target = default_float() if dtype is None else dtype_argument(dtype)
    return Array(values.astype(target.numpy))


def _shift(x: ArrayLike, axes, amount) -> Value:
    x = asarray(x)
    axes = range(len(x.shape)) if axes is None else [axes] if isinstance(axes, int) else axes
    for axis in axes:
        x = roll(x, amount(x.shape[axis]), axis)
    return x


# -- the transforms -------------------------------------------------------------------------------

def _as_complex(x: ArrayLike) -> Value:
    x = floating(x)
    return convert(x, promote(dtype_of(x), C64))


def _as_real(x: ArrayLike) -> Value:
    x = floating(x)
    if dtype_of(x).kind == "complex":
        raise OpError("a transform of real numbers got complex ones; use fft", user_location())
    return convert(x, promote(dtype_of(x), F32))


def _opposite(norm: str | None) -> str:
    return {"backward": "forward", "forward": "backward"}.get(norm or "backward", norm or "")


def _layout(x: Value, s, axes) -> tuple[list[int], list[int | None]]:
    """The axes to transform and, where given, the lengths along them."""
    rank = len(x.shape)
    if axes is None:
        chosen = list(range(rank)) if s is None else list(range(rank - len(s), rank))
    else:
        chosen = [normalize_axis(a, rank) for a in axes]
    lengths: list[int | None] = [None] * len(chosen)
    if s is not None:
        lengths = [None if n is None or n == -1 else int(n) for n in s]
    if len(lengths) != len(chosen) or len(set(chosen)) != len(chosen):
        raise OpError(f"a transform needs a length for each of its distinct axes, got s={s} and"
                      f" axes={axes}", user_location())
    return chosen, lengths


def _fit(x: Value, axis: int, length: int) -> Value:
    """`x` cut or zero-padded to `length` along `axis`."""
    extent = x.shape[axis]
    if not isinstance(extent, int) or length < 1 or extent < 1:
        raise OpError(f"cannot transform axis {axis} of {shape_text(x.shape)} with length {length}",
                      user_location())
    if extent > length:
        return slice_along(x, axis, 0, length)
    widths = [(0, length - extent if d == axis else 0) for d in range(len(x.shape))]
    return pad(x, widths) if extent < length else x


def _scaled(x: Value, inverse: bool, norm: str | None, count: int) -> Value:
    """`x`, transformed as "backward", under another norm."""
    norm = norm or "backward"
    if norm not in _NORMS:
        raise OpError(f"norm {norm!r} is not one of {', '.join(_NORMS)}", user_location())
    if norm == "backward" or count == 1:
        return x
    scale = math.sqrt(count) if norm == "ortho" else float(count)
    return el.multiply(x, scale if inverse else 1 / scale)


def _run(x: Value, kind: str, axes: Sequence[int], lengths: Sequence[int]) -> Value:
    """Transform along at most three axes, in that order of importance (the last halves)."""
    last = tuple(range(len(x.shape) - len(axes), len(x.shape)))
    result = bind("stablehlo.fft", moveaxis(x, tuple(axes), last), fft_type=kind,
                  fft_length=tuple(lengths))
    return moveaxis(result, last, tuple(axes))


def _complex(kind: str, x: ArrayLike, s, axes, norm) -> Value:
    x = _as_complex(x)
    axes, lengths = _layout(x, s, axes)
    full = [x.shape[a] if n is None else n for a, n in zip(axes, lengths, strict=True)]
    for axis, n in zip(axes, full, strict=True):
        x = _fit(x, axis, n)
    for i in range(0, len(axes), _MOST_DIMS):
        x = _run(x, kind, axes[i:i + _MOST_DIMS], full[i:i + _MOST_DIMS])
    return _scaled(x, kind == "IFFT", norm, math.prod(full))


def _forward_real(x: ArrayLike, s, axes, norm) -> Value:
    x = _as_real(x)
    axes, lengths = _layout(x, s, axes)
    full = [x.shape[a] if n is None else n for a, n in zip(axes, lengths, strict=True)]
    for axis, n in zip(axes, full, strict=True):
        x = _fit(x, axis, n)
    x = _run(x, "RFFT", axes[-_MOST_DIMS:], full[-_MOST_DIMS:])
    for i in range(0, len(axes) - _MOST_DIMS, _MOST_DIMS):
        stop = min(i + _MOST_DIMS, len(axes) - _MOST_DIMS)
        x = _run(x, "FFT", axes[i:stop], full[i:stop])
    return _scaled(x, False, norm, math.prod(full))


def _inverse_real(x: ArrayLike, s, axes, norm) -> Value:
    x = _as_complex(x)
    axes, lengths = _layout(x, s, axes)
    full = [x.shape[a] if n is None else n for a, n in zip(axes, lengths, strict=True)]
    if lengths[-1] is None:
        full[-1] = 2 * (x.shape[axes[-1]] - 1)
    for axis, n in zip(axes[:-1], full[:-1], strict=True):
        x = _fit(x, axis, n)
    x = _fit(x, axes[-1], full[-1] // 2 + 1 if full[-1] > 0 else 0)
    for i in range(0, len(axes) - _MOST_DIMS, _MOST_DIMS):
        stop = min(i + _MOST_DIMS, len(axes) - _MOST_DIMS)
        x = _run(x, "IFFT", axes[i:stop], full[i:stop])
    x = _run(x, "IRFFT", axes[-_MOST_DIMS:], full[-_MOST_DIMS:])
    return _scaled(x, True, norm, math.prod(full))


__all__ = ["fft", "fft2", "fftfreq", "fftn", "fftshift", "hfft", "ifft", "ifft2", "ifftn",
           "ifftshift", "ihfft", "irfft", "irfft2", "irfftn", "rfft", "rfft2", "rfftfreq", "rfftn"]
