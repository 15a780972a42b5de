"""Uniform-quantized element types: integers that stand for real numbers.

An element holds an integer `q` (of the storage type) and means `(q - zero_point) * scale` (of the
expressed type), with one scale for the whole tensor or one per index of an axis. Text spells them
`!quant.uniform<i8:f32, 0.5:-3>` and `!quant.uniform<i8:f32:1, {0.5:-3, 0.25}>`.

Source: StableHLO specification, "Quantized types" and "QuantizedType".
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..errors import UnsupportedError
from .dtypes import BF16, F16, F32, F64, I4, I8, I16, I32, UI4, UI8, UI16, UI32, DType

_STORAGE = {"i4": I4, "i8": I8, "i16": I16, "i32": I32, "u4": UI4, "u8": UI8, "u16": UI16, "u32": UI32}
_EXPRESSED = {d.name: d for d in (BF16, F16, F32, F64)}
_SPELLED = {d: name for name, d in _STORAGE.items()}

MAX_SCALES = 1 << 20
"""Channels of a per-axis quantized type."""

_FLOAT = r"-?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?"
_PARAMETERS = rf"{_FLOAT}(?::-?\d+)?"
_UNIFORM = re.compile(
    rf"!quant\.uniform<(\w+)(?:<(-?\d+):(-?\d+)>)?:(\w+)"
    rf"(?:,({_PARAMETERS})|:(\d+),\{{({_PARAMETERS}(?:,{_PARAMETERS})*+)\}})>", re.ASCII)


@dataclass(frozen=True, eq=False)
class QuantizedDType(DType):
    """A quantized element type; in memory it is its storage type. Instances are singletons."""

    base: DType
    """The integer type an element is stored as."""
    expressed: DType
    """The float type of the numbers it means."""
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int | None
    """The axis with one scale and zero point per index; None when there is one of each."""
    minimum: int
    maximum: int
    """The storage values in use."""

    @property
    def per_axis(self) -> bool:
        return self.axis is not None

    def means_the_same(self, other: DType) -> bool:
        """Whether storage values mean the same numbers in `other`, its axis aside."""
        return isinstance(other, QuantizedDType) and self.rest == other.rest

    @property
    def rest(self) -> tuple:
        return (self.base, self.expressed, self.scales, self.zero_points, self.per_axis, self.minimum,
                self.maximum)


def expressed(dtype: DType) -> DType:
    """The type of the numbers that elements of `dtype` mean."""
    return dtype.expressed if isinstance(dtype, QuantizedDType) else dtype


def stored(dtype: DType) -> DType:
    """The type that elements of `dtype` have in memory."""
    return dtype.base if isinstance(dtype, QuantizedDType) else dtype


@lru_cache(maxsize=4096)
def read_quantized(text: str) -> QuantizedDType:
    """The type spelled `text`.

    Raises `ValueError` when it is malformed and `UnsupportedError` for a kind of quantization tfn does
    not have.
    """
    match = _UNIFORM.fullmatch(re.sub(r"\s+", "", text))
    if match is None:
        if "{{" in text or re.search(r":\s*\{", text):
            raise UnsupportedError(f"sub-channel quantization is not supported: `{text[:80]}`")
        raise ValueError(
            f"`{text[:80]}` is not a quantized type such as !quant.uniform<i8:f32, 0.5:-3>")
    base_name, low, high, expressed_name, one, axis, many = match.groups()
    if base_name not in _STORAGE or expressed_name not in _EXPRESSED:
        raise UnsupportedError(
            f"quantized types store one of {', '.join(_STORAGE)} for one of {', '.join(_EXPRESSED)},"
            f" not `{text[:80]}`")
    base = _STORAGE[base_name]
    pairs = [p.partition(":") for p in (one or many).split(",")]
    if len(pairs) > MAX_SCALES:
        raise UnsupportedError(f"{len(pairs)} scales; tfn takes up to {MAX_SCALES}")
    least, most = _bounds(base)
    return _type(base, _EXPRESSED[expressed_name], tuple(float(scale) for scale, _, _ in pairs),
                 tuple(int(zero or 0) for _, _, zero in pairs), None if axis is None else int(axis),
                 least if low is None else int(low), most if high is None else int(high))


@lru_cache(maxsize=4096)
def _type(base, expressed, scales, zero_points, axis, minimum, maximum) -> QuantizedDType:
    least, most = _bounds(base)
    if not least <= minimum < maximum <= most:
        raise ValueError(f"the storage range {minimum}:{maximum} does not fit {base} (C1, C2)")
    if any(not (math.isfinite(s) and s > 0) for s in scales):
        raise ValueError("scales of quantized types are positive and finite (C5, C6)")
    finite = np.finfo(np.float32 if expressed is BF16 else expressed.numpy)
    if any(not float(finite.smallest_subnormal) <= s <= float(finite.max) for s in scales):
        raise ValueError(f"a scale of a quantized type does not fit {expressed} (C6)")
    if any(not minimum <= z <= maximum for z in zero_points):
        raise ValueError(f"a zero point is outside the storage range {minimum}:{maximum} (C7)")
    if axis is not None and axis > 31:
        raise ValueError(f"a quantized type along axis {axis} (C10)")
    limits = "" if (minimum, maximum) == (least, most) else f"<{minimum}:{maximum}>"
    parameters = ", ".join(_number(s) + (f":{z}" if z else "")
                           for s, z in zip(scales, zero_points, strict=True))
    spread = f", {parameters}" if axis is None else f":{axis}, {{{parameters}}}"
    name = f"!quant.uniform<{_SPELLED[base]}{limits}:{expressed}{spread}>"
    return QuantizedDType(name, "quantized", base.bits, base.numpy, base.llvm, base, expressed, scales,
                          zero_points, axis, minimum, maximum)


def _bounds(base: DType) -> tuple[int, int]:
    signed = base.kind == "int"
    return (-(1 << base.bits - 1), (1 << base.bits - 1) - 1) if signed else (0, (1 << base.bits) - 1)


def _number(scale: float) -> str:
    """A scale that reads back as itself; MLIR's floats have a point."""
    digits, e, exponent = repr(scale).partition("e")
    return (digits if "." in digits else digits + ".0") + (f"E{int(exponent)}" if e else "")


def is_quantized(types: Iterable) -> bool:
    """Whether a tensor type among `types` has quantized elements."""
    return any(isinstance(t.dtype, QuantizedDType) for t in types)
