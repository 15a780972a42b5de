"""Dense literals: `dense<...> : tensor<...>` to and from NumPy arrays.

A splat is one scalar with zero strides. Long arrays are written as one hex string of their
little-endian bytes, which is exact and an order of magnitude faster than decimal lists.
"""

from __future__ import annotations

import re

import ml_dtypes
import numpy as np

from .core import TensorType
from .dims import Dim
from .dtypes import DType, as_dtype

_HEX_FROM = 32
"""Arrays of more elements than this are written in hex."""


def write_float(value) -> str:
    """A float so that it reads back exactly: six decimals, else the shortest, else its bits."""
    dtype = as_dtype(value.dtype)
    exact = value if value.dtype.kind == "f" else np.float32(value)
    if not np.isfinite(exact):
        bits = int(np.asarray(value).view(f"u{dtype.itemsize}"))
        return f"0x{bits:0{2 * dtype.itemsize}X}"
    text = f"{float(exact):.6e}"
    if type(exact)(float(text)) == exact:
        return text
    return np.format_float_scientific(exact, unique=True, trim="0", exp_digits=2)


def _write_element(value, dtype: DType) -> str:
    if dtype.kind == "bool":
        return "true" if value else "false"
    if dtype.kind == "complex":
        return f"({write_float(value.real)}, {write_float(value.imag)})"
    return write_float(value) if dtype.is_float else str(int(value))


def write_dense(value: np.ndarray) -> str:
    """`dense<[1, 2]> : tensor<2xi32>`."""
    value = np.asarray(value)
    dtype = as_dtype(value.dtype)
    return f"dense<{_body(value, dtype)}> : {TensorType(value.shape, dtype)}"


def _body(value: np.ndarray, dtype: DType) -> str:
    if value.size == 0:
        return ""
    if _is_splat(value):
        return _write_element(value[(0,) * value.ndim], dtype)
    if value.size > _HEX_FROM and dtype.kind != "bool":
        return '"0x' + np.ascontiguousarray(value).tobytes().hex().upper() + '"'
    return _nested(value, dtype)


def _is_splat(value: np.ndarray) -> bool:
    if value.size == 1 or not any(value.strides):
        return True
    bits = np.ascontiguousarray(value).reshape(-1, 1).view(np.uint8)
    return bool((bits == bits[0]).all())


def _nested(value: np.ndarray, dtype: DType) -> str:
    if value.ndim == 0:
        return _write_element(value[()], dtype)
    return "[" + ", ".join(_nested(row, dtype) for row in value) + "]"


# -- reading --------------------------------------------------------------------------------------

_ITEM = re.compile(r"\s*(?:(\[)|(\])|(,)|\(\s*([^\s,()\[\]]+)\s*,\s*([^\s,()\[\]]+)\s*\)"
                   r"|([^\s,()\[\]]+))")


def _quoted(element: str) -> str:
    return repr(element if len(element) <= 40 else element[:37] + "...")


def read_dense(text: str, type: TensorType) -> np.ndarray:
    """The array of a token `dense<...>`; `ValueError` says what does not fit `type`."""
    body = text[len("dense<"):-1].strip()
    shape = tuple(d for d in type.shape if not isinstance(d, Dim))
    if len(shape) != type.rank:
        raise ValueError(f"a dense literal needs a static shape, not {type}")
    if not body:
        if type.size:
            raise ValueError(f"the literal is empty but {type} has {type.size} elements")
        return np.zeros(shape, type.dtype.numpy)
    if body[0] == '"':
        return _read_hex(body.strip('"'), type, shape)
    if body[0] == "[":
        return _read_list(body, type).reshape(shape)
    return np.broadcast_to(_read_elements([body], type.dtype)[0], shape)


def _read_hex(body: str, type: TensorType, shape: tuple[int, ...]) -> np.ndarray:
    if not body.startswith("0x"):
        raise ValueError("a dense string begins with 0x")
    try:
        data = bytes.fromhex(body[2:])
    except ValueError:
        raise ValueError("the hex string has an odd length or a character that is no hex digit"
                         ) from None
    item = type.dtype.itemsize
    if len(data) == item and type.size != 1:
        return np.broadcast_to(np.frombuffer(data, type.dtype.numpy)[0], shape)
    if len(data) != type.nbytes:
        raise ValueError(f"the hex string has {len(data)} bytes, {type} needs {type.nbytes}")
    return np.frombuffer(data, type.dtype.numpy).reshape(shape)


def _read_list(body: str, type: TensorType) -> np.ndarray:
    """The elements of nested lists, whose lengths must be those of `type`."""
    elements: list = []
    counts = [0] * (type.rank + 1)
    depth, position, item_due = 0, 0, True

    def misfit(found: int, at: int):
        return ValueError(f"dimension {at} of the literal has {found} elements, {type} needs"
                          f" {type.shape[at]}")

    while position < len(body):
        match = _ITEM.match(body, position)
        if match is None:
            raise ValueError(f"unexpected {body[position:position + 10]!r} in the literal")
        position = match.end()
        opening, closing, comma, real, imaginary, element = match.groups()
        if comma:
            if item_due:
                raise ValueError("a comma without an element before it in the literal")
            item_due = True
            continue
        if closing:
            if depth == 0 or counts[depth] != type.shape[depth - 1]:
                raise misfit(counts[depth], max(depth - 1, 0))
            counts[depth] = 0
            depth -= 1
            counts[depth] += 1
            item_due = False
            continue
        if not item_due:
            raise ValueError("a comma is missing in the literal")
        if opening:
            depth += 1
            if depth > type.rank:
                raise ValueError(f"the literal is nested deeper than {type}")
            continue
        if depth != type.rank:
            raise ValueError(f"the literal is nested less deep than {type}")
        elements.append((real, imaginary) if real else element)
        counts[depth] += 1
        item_due = False
    if depth or counts[0] != 1:
        raise ValueError("the brackets of the literal do not match")
    return _read_elements(elements, type.dtype)


def _read_elements(elements: list, dtype: DType) -> np.ndarray:
    if dtype.kind == "complex":
        part = np.dtype(f"f{dtype.itemsize // 2}")
        pairs = [e if isinstance(e, tuple) else _complex_pair(e) for e in elements]
        flat = [_read_float(p, part) for pair in pairs for p in pair]
        return np.asarray(flat, part).view(dtype.numpy)
    if any(isinstance(e, tuple) for e in elements):
        raise ValueError(f"a complex element in a literal of {dtype}")
    if dtype.is_float:
        return np.asarray([_read_float(e, dtype.numpy) for e in elements], dtype.numpy)
    if dtype.kind == "bool":
        words = {"true": True, "false": False, "1": True, "0": False, "-1": True}
        unknown = next((e for e in elements if e not in words), None)
        if unknown is not None:
            raise ValueError(f"{_quoted(unknown)} is not true or false")
        return np.asarray([words[e] for e in elements], np.bool_)
    return _read_integers(elements, dtype)


def _complex_pair(element: str):
    inner = element.strip()
    if not (inner.startswith("(") and inner.endswith(")")) or inner.count(",") != 1:
        raise ValueError(f"{_quoted(element)} is not a complex number (re, im)")
    return tuple(part.strip() for part in inner[1:-1].split(","))


def _read_float(element: str, dtype: np.dtype):
    if "0x" in element:
        bits = int(element, 16)
        if not 0 <= bits < 1 << (8 * dtype.itemsize):
            raise ValueError(f"{element} has more than {8 * dtype.itemsize} bits")
        return np.asarray(bits, f"u{dtype.itemsize}").view(dtype)[()]
    try:
        if not element.lstrip("-")[:1].isdigit():
            raise ValueError
        with np.errstate(over="ignore"):
            return np.asarray(float(element)).astype(dtype)[()]
    except ValueError:
        raise ValueError(f"{_quoted(element)} is not a number") from None


def _read_integers(elements: list[str], dtype: DType) -> np.ndarray:
    info = ml_dtypes.iinfo(dtype.numpy)
    try:
        values = [int(e, 0) if "0x" in e else int(e) for e in elements]
    except ValueError:
        raise ValueError(f"{_quoted(next(e for e in elements if not _is_integer(e)))} is not an"
                         " integer") from None
    outside = next((v for v in values if not info.min <= v < 1 << dtype.bits), None)
    if outside is not None:
        raise ValueError(f"{outside} does not fit {dtype}")
    # MLIR takes the unsigned spelling of a signless integer, too.
    return np.asarray([v if v <= info.max else v - (1 << dtype.bits) for v in values], dtype.numpy)


def _is_integer(text: str) -> bool:
    return re.fullmatch(r"-?(?:\d+|0x[0-9a-fA-F]+)", text) is not None
