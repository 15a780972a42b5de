"""Operands of Keras's ops: what becomes a tensor of which dtype.

Keras promotes as JAX does (int32 with float32 is float32) and computes float functions of integers
in `floatx`.
"""

from __future__ import annotations

from typing import Any

from keras.src.backend import config
from keras.src.backend.common.dtypes import result_type

from ....compiler.trace.core import Array
from .core import convert_to_tensor, held


def dtype_of(x: Any) -> Any:
    """What `x` contributes to a result's dtype; a Python scalar only its type."""
    if isinstance(x, (list, tuple)):
        x = convert_to_tensor(x)
    return getattr(x, "dtype", type(x))


def floating(x: Any) -> Any:
    """`x` as a tensor; integers and booleans in `floatx`."""
    x = convert_to_tensor(x)
    if x.dtype.kind in "iub":
        return x.astype(config.floatx())
    return x


def together(*xs: Any) -> list:
    """Tensors of the dtype Keras gives their combination."""
    tensors = [held(x) for x in xs]
    if {type(x) for x in tensors} == {Array} and len({x.dtype for x in tensors}) == 1:
        return tensors
    dtype = result_type(*map(dtype_of, xs))
    return [convert_to_tensor(x, dtype) for x in xs]


def together_floating(*xs: Any) -> list:
    """Tensors of the float dtype Keras gives their combination."""
    dtype = result_type(*map(dtype_of, xs), float)
    return [convert_to_tensor(x, dtype) for x in xs]
