"""Tensor types as text: `tensor<2x?xf32>` to `TensorType`, with the limits a text may ask for.

Text has no names for symbolic dims. Every `?` reads as `UNKNOWN`; `ir.dynamic.refine` replaces it
once the types of the function's arguments are known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from ..errors import UnsupportedError
from .core import TensorType
from .dims import Dim
from .dtypes import DType, by_name
from .quantized import QuantizedDType, read_quantized

UNKNOWN = Dim.named("?")
"""The extent of every `?` in a text."""

MAX_ELEMENTS = 1 << 40
"""Larger tensors do not fit any machine tfn runs on; refusing them keeps sizes in 64 bits."""

MAX_RANK = 32
"""NumPy's limit is 64; loop nests grow with it."""

_TENSOR = re.compile(r"tensor<((?:(?:\d+|\?)x)*)([a-z][\w<>]*|!quant\.uniform<.*>)>", re.ASCII)


@lru_cache(maxsize=4096)
def read_type(text: str) -> TensorType:
    """The type spelled `text`.

    Raises `ValueError` when it is malformed and `UnsupportedError` for a kind or size of type
    tfn does not have.
    """
    match = _TENSOR.fullmatch(text.replace(" ", ""))
    if match is None:
        raise _refused(text)
    dims, element = match.groups()
    if element.startswith("!"):
        dtype: DType = read_quantized(element)
    else:
        try:
            dtype = by_name(element)
        except KeyError:
            raise UnsupportedError(f"the element type {element} of `{text}` is not supported"
                                   ) from None
    extents = dims.split("x")[:-1]
    if len(extents) > MAX_RANK:
        raise UnsupportedError(f"a tensor with {len(extents)} dims; tfn takes up to {MAX_RANK}")
    if any(len(d) > 18 for d in extents):
        raise UnsupportedError(f"`{_short(text)}` is too large")
    shape = tuple(UNKNOWN if d == "?" else int(d) for d in extents)
    if isinstance(dtype, QuantizedDType):
        _check_axis(shape, dtype, text)
    count = 1
    for d in shape:
        count *= d if isinstance(d, int) else 1
    if count > MAX_ELEMENTS:
        raise UnsupportedError(f"`{_short(text)}` has {count} elements, more than 2**40")
    return TensorType(shape, dtype)


def _check_axis(shape: tuple, dtype: QuantizedDType, text: str) -> None:
    if dtype.axis is None:
        return
    if dtype.axis >= len(shape):
        raise ValueError(f"`{_short(text)}` is quantized along axis {dtype.axis} (C11)")
    extent = shape[dtype.axis]
    if isinstance(extent, int) and extent != len(dtype.scales):
        raise ValueError(f"`{_short(text)}` has {len(dtype.scales)} scales for the {extent} indices of"
                         f" axis {dtype.axis} (C12)")


def _refused(text: str) -> Exception:
    for mark, what in (("!quant.any", "quantized types without parameters"),
                       ("!quant.calibrated", "calibrated types"), ("*x", "unranked tensors"),
                       ("#", "tensor encodings")):
        if mark in text:
            return UnsupportedError(f"{what} are not supported: `{_short(text)}`")
    return ValueError(f"`{_short(text)}` is not a tensor type such as tensor<2x3xf32>")


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."


def is_unknown(types: Iterable[TensorType]) -> bool:
    """Whether a type still has the extent of a `?`."""
    return any(isinstance(d, Dim) and "?" in d.names for t in types for d in t.shape)
