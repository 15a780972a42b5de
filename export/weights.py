"""Weights as safetensors: named arrays to bytes and back, every element type of the IR included.

The `safetensors` package reads; writing is a few lines here, because that package's serializer
takes other arguments from version to version. The bytes depend on the names and values only.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping

import numpy as np
import safetensors

from ..compiler.ir.dtypes import ALL, DType, as_dtype, by_name

_STORED = {"BOOL": "i1", "U8": "ui8", "U16": "ui16", "U32": "ui32", "U64": "ui64",
           **{d.name.upper(): d.name for d in ALL if d.kind in ("int", "float")}}
"""The name in the file -> element type."""

_SPELLED = {name: stored for stored, name in _STORED.items()}

_ALIGNMENT = 64
"""The data begins at a multiple of this, so that a mapped file is aligned for vectors."""


def pack_weights(weights: Mapping[str, np.ndarray]) -> bytes:
    """The safetensors file of `weights`. Raises `ValueError` for an element type it cannot hold."""
    # Wide elements first: every tensor is then aligned to its element size.
    order = sorted(weights, key=lambda name: (-_dtype(weights, name).itemsize, name))
    entries, chunks, end = {}, [], 0
    for name in order:
        chunk = np.ascontiguousarray(weights[name]).tobytes()
        entries[name] = {"dtype": _SPELLED[_dtype(weights, name).name],
                         "shape": list(weights[name].shape),
                         "data_offsets": [end, end + len(chunk)]}
        chunks.append(chunk)
        end += len(chunk)
    header = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-(8 + len(header)) % _ALIGNMENT)
    return b"".join([struct.pack("<Q", len(header)), header, *chunks])


def unpack_weights(data: bytes) -> dict[str, np.ndarray]:
    """The arrays in a safetensors file; `ValueError` says what is wrong with it."""
    try:
        entries = safetensors.deserialize(data)
    except safetensors.SafetensorError as error:
        raise ValueError(str(error)) from None
    weights = {}
    for name, entry in entries:
        stored = entry["dtype"]
        if stored not in _STORED:
            raise ValueError(f"the tensor {name!r} has element type {stored}, which tfn lacks")
        dtype = by_name(_STORED[stored]).numpy
        weights[name] = np.frombuffer(entry["data"], dtype).reshape(entry["shape"])
    return weights


def _dtype(weights: Mapping[str, np.ndarray], name: str) -> DType:
    dtype = as_dtype(weights[name].dtype)
    if dtype.name not in _SPELLED:
        raise ValueError(f"the weight {name!r} is {dtype}, which safetensors cannot hold; keep its"
                         " real and imaginary parts as two weights")
    return dtype
