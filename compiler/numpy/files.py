"""Arrays in files and as text: NumPy's `.npy` and `.npz`, raw bytes, lists of numbers.

NumPy writes the files, without pickle. It knows no bfloat16: such an array is stored as its 16-bit
patterns and read back as bfloat16, which no other 2-byte record of an array can be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..errors import OpError, user_location
from ..ir.dtypes import BF16
from ..trace.core import Array, Tracer
from .promote import ArrayLike, asarray, default_float, dtype_argument
from .sorting import concrete

_BFLOAT16_RECORD = np.dtype("V2")


def _data(x: ArrayLike, what: str) -> np.ndarray:
    data = concrete(asarray(x), what)
    if data.dtype.type.__module__ != "numpy":
        if data.dtype != BF16.numpy:
            raise OpError(f"{what} cannot store elements of {data.dtype}; convert them first",
                          user_location())
        return data.view(_BFLOAT16_RECORD)
    return data


def _array(data: np.ndarray) -> Array:
    found = asarray(data.view(BF16.numpy) if data.dtype == _BFLOAT16_RECORD else data)
    assert isinstance(found, Array)
    return found


def save(file: str | Path | IO[bytes], x: ArrayLike) -> None:
    """Write a concrete array as a `.npy` file."""
    np.save(file, _data(x, "save"), allow_pickle=False)


def savez(file: str | Path | IO[bytes], *arrays: ArrayLike, **named: ArrayLike) -> None:
    """Write concrete arrays as a `.npz` file; those without a name are `arr_0`, `arr_1` ..."""
    np.savez(file, *(_data(x, "savez") for x in arrays), allow_pickle=False,
             **{name: _data(x, "savez") for name, x in named.items()})


def load(file: str | Path | IO[bytes]) -> Array | Mapping[str, Array]:
    """The array of a `.npy` file, or the arrays of a `.npz` file by name."""
    found = np.load(file, allow_pickle=False)
    if isinstance(found, np.ndarray):
        return _array(found)
    with found:
        return {name: _array(found[name]) for name in found.files}


def fromfile(file: Any, dtype=None, count: int = -1, sep: str = "", offset: int = 0) -> Array:
    """Numbers from raw bytes, or from text with `sep` between them; the default float by default."""
    target = default_float() if dtype is None else dtype_argument(dtype)
    return Array(np.fromfile(file, target.numpy, count, sep, offset))


def fromstring(text: str, dtype=None, count: int = -1, *, sep: str) -> Array:
    """Numbers from text with `sep` between them; the default float by default."""
    target = default_float() if dtype is None else dtype_argument(dtype)
    return Array(np.fromstring(text, target.numpy, count, sep=sep))


def fromiter(numbers: Iterable, dtype, count: int = -1) -> Array:
    """A 1-d array of what an iterable gives (at most `count`)."""
    return Array(np.fromiter(numbers, dtype_argument(dtype).numpy, count))


# -- text -----------------------------------------------------------------------------------------

def array_repr(x: ArrayLike, max_line_width: int | None = None, precision: int | None = None,
               suppress_small: bool | None = None) -> str:
    """`x` as `repr` shows it, with other print options."""
    x = asarray(x)
    if isinstance(x, Tracer):
        return repr(x)
    body = np.array2string(x._data, max_line_width=max_line_width, precision=precision,
                           suppress_small=suppress_small, separator=", ", prefix="Array(")
    return f"Array({body}, dtype={x.dtype})"


def array_str(x: ArrayLike, max_line_width: int | None = None, precision: int | None = None,
              suppress_small: bool | None = None) -> str:
    """The elements of `x` as text, without its type."""
    x = asarray(x)
    if isinstance(x, Tracer):
        return str(x)
    return np.array_str(x._data, max_line_width, precision, suppress_small)


__all__ = ["array_repr", "array_str", "fromfile", "fromiter", "fromstring", "load", "save", "savez"]
