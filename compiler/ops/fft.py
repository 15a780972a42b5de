"""Discrete Fourier transforms over the last dims, through NumPy's FFT on the host.

f32 and c64 are computed in double precision by NumPy and rounded once.
"""

from __future__ import annotations

import numpy as np

from ..ir.core import TensorType
from ..ir.dtypes import C64, C128, F32, F64
from ..trace.core import bind
from .declare import Factors, OpDefinition, op, require

_REAL = {C64: F32, C128: F64}
_COMPLEX = {real: complex for complex, real in _REAL.items()}
_INVERSE = {"FFT": "IFFT", "IFFT": "FFT"}


@op("stablehlo.fft")
class Fft(OpDefinition):
    """FFT, IFFT, RFFT (real to half spectrum) or IRFFT over the last `len(fft_length)` dims."""

    host = True
    attributes = {"fft_type": "fft_type", "fft_length": "i64_array"}

    def infer(operands, attributes, regions):
        (x,), kind, length = operands, attributes["fft_type"], tuple(attributes["fft_length"])
        require(1 <= len(length) <= 3 and len(length) <= x.rank, "C1",
                f"fft over {len(length)} dims of {x}")
        real = kind == "RFFT"
        require(x.dtype in (_COMPLEX if real else _REAL), "C2", f"{kind} of {x}")
        head, tail = tuple(x.shape[: -len(length)]), tuple(x.shape[-len(length):])
        if kind == "RFFT":
            require(tail == length, "C5", f"RFFT of length {list(length)} of {x}")
            return [TensorType((*head, *length[:-1], length[-1] // 2 + 1 if length[-1] else 0),
                               _COMPLEX[x.dtype])]
        if kind == "IRFFT":
            half = (*length[:-1], length[-1] // 2 + 1 if length[-1] else 0)
            require(tail == half, "C5", f"IRFFT to length {list(length)} needs last dims"
                    f" {list(half)}, got {x}")
            return [TensorType((*head, *length), _REAL[x.dtype])]
        require(tail == length, "C5", f"{kind} of length {list(length)} of {x}")
        return [x]

    def evaluate(operands, attributes, regions, result_types):
        (x,), length = operands, tuple(attributes["fft_length"])
        axes = tuple(range(x.ndim - len(length), x.ndim))
        if x.size == 0 or 0 in result_types[0].shape:
            return [np.zeros(result_types[0].shape, result_types[0].dtype.numpy)]
        function = {"FFT": np.fft.fftn, "IFFT": np.fft.ifftn, "RFFT": np.fft.rfftn,
                    "IRFFT": np.fft.irfftn}[attributes["fft_type"]]
        wide = x.astype(np.complex128 if x.dtype.kind == "c" else np.float64)
        return [function(wide, s=length, axes=axes)]

    def vjp(cotangents, op, operands, results):
        ct, kind = cotangents[0], op.attributes["fft_type"]
        length = tuple(op.attributes["fft_length"])
        count = int(np.prod(length))
        if kind in _INVERSE:
            # The matrix of the transform is symmetric: its transpose is itself.
            return [bind("stablehlo.fft", ct, **op.attributes)]
        last = length[-1]
        weights = _half_weights(last)
        if kind == "RFFT":
            # Transposed: the spectrum's cotangent padded to the full length, transformed, real part.
            widths = [0] * (len(ct.shape) - 1) + [last - ct.shape[-1]]
            zero = np.zeros((), ct.dtype)
            full = bind("stablehlo.pad", ct, zero, edge_padding_low=(0,) * len(ct.shape),
                        edge_padding_high=tuple(widths), interior_padding=(0,) * len(ct.shape))
            back = bind("stablehlo.fft", full, fft_type="FFT", fft_length=length)
            return [bind("stablehlo.real", back)]
        spectrum = bind("stablehlo.fft", ct, fft_type="RFFT", fft_length=length)
        scale = (weights / count).astype(ct.dtype)
        shape = tuple(spectrum.shape)
        factor = bind("stablehlo.broadcast_in_dim", scale, shape=shape,
                      broadcast_dimensions=(len(shape) - 1,))
        zero = bind("stablehlo.broadcast_in_dim", np.zeros((), ct.dtype), shape=shape,
                    broadcast_dimensions=())
        scaled = bind("stablehlo.multiply", spectrum, bind("stablehlo.complex", factor, zero))
        return [_conjugate(scaled)]

    def batch(op, operands, batched, batch):
        return batch.bind(op, *batch.spread_all(operands, batched))

    def factors(op):
        count = len(op.attributes["fft_length"])
        rank = len(op.operands[0].shape)
        row = tuple(d if d < rank - count else None for d in range(rank))
        return Factors([row], [row])


def _half_weights(last: int) -> np.ndarray:
    """How often each bin of a half spectrum occurs in the whole."""
    bins = last // 2 + 1
    weights = np.full(bins, 2.0)
    weights[0] = 1.0
    if last % 2 == 0:
        weights[-1] = 1.0
    return weights


def _conjugate(x):
    return bind("stablehlo.complex", bind("stablehlo.real", x),
                bind("stablehlo.negate", bind("stablehlo.imag", x)))
