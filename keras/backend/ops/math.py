"""`keras.ops.math` on tfn."""

from __future__ import annotations

from ....compiler import numpy as tnp
from ....compiler.numpy import fft as _fft
from ....compiler.trace.core import bind
from ..missing import missing
from .core import convert_to_tensor
from .numpy import _float


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
    return tnp.logsumexp(_float(x), axis=axis, keepdims=keepdims)


def rsqrt(x):
    return tnp.rsqrt(_float(x))


def erf(x):
    return tnp.erf(_float(x))


def erfc(x):
    return 1 - tnp.erf(_float(x))


def erfinv(x):
    return tnp.erfinv(_float(x))


def logdet(x):
    return tnp.linalg.slogdet(convert_to_tensor(x))[1]


def extract_sequences(x, sequence_length, sequence_stride):
    x = convert_to_tensor(x)
    count = 1 + (x.shape[-1] - sequence_length) // sequence_stride
    starts = [i * sequence_stride for i in range(count)]
    return tnp.stack([x[..., s:s + sequence_length] for s in starts], axis=-2)


# -- Fourier transforms: complex tensors are pairs of real ones -------------------------------------

def fft(x):
    return _pair(_fft.fft(_complex(x)))


def fft2(x):
    return _pair(_fft.fft2(_complex(x)))


def ifft2(x):
    return _pair(_fft.ifft2(_complex(x)))


def rfft(x, fft_length=None):
    return _pair(_fft.rfft(_float(x), fft_length))


def irfft(x, fft_length=None):
    return _fft.irfft(_complex(x), fft_length)


def _complex(pair):
    if not isinstance(pair, (list, tuple)) or len(pair) != 2:
        raise ValueError(f"a complex tensor is a pair (real, imaginary), got {pair!r}")
    return bind("stablehlo.complex", *(_float(part) for part in pair))


def _pair(x):
    return tnp.real(x), tnp.imag(x)


for _name in ("cdist", "stft", "istft"):
    globals()[_name] = missing(_name)
