"""Values: arrays, and the tracers that stand for them while a function is traced.

What a tracer cannot do says so here, with the user's line and what to do instead.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import OpError, TraceError, user_location
from ..ir.core import Location, TensorType, Value
from ..ir.dims import Extent
from ..ir.dtypes import DType, as_dtype
from .scope import graphs

if TYPE_CHECKING:
    from .core import Graph


class Operators:
    """Operators and methods shared by `Array` and `Tracer`; `compiler.numpy` fills them in."""

    __slots__ = ()
    __array_priority__ = 1000

    shape: tuple[Extent, ...]
    dtype: Any

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self):
        if not self.shape:
            raise TypeError("a 0-d array has no length")
        return self.shape[0] if isinstance(self.shape[0], int) else self.shape[0].__index__()


@functools.lru_cache(4096)
def _type(shape: tuple[int, ...], dtype: np.dtype) -> TensorType:
    return TensorType(shape, as_dtype(dtype))


class Array(Operators):
    """A concrete, immutable n-dimensional array. `np.asarray(a)` views it without a copy."""

    # `__dict__`: Keras sets attributes on arrays, such as `trainable` when it quantizes.
    __slots__ = ("_data", "__weakref__", "__dict__")

    def __init__(self, data: np.ndarray):
        self._data = data

    @property
    def type(self) -> TensorType:
        return _type(self._data.shape, self._data.dtype)

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self._data.shape

    @property
    def dtype(self) -> np.dtype:  # type: ignore[override]
        return self._data.dtype

    @property
    def size(self) -> int:
        return self._data.size

    @property
    def nbytes(self) -> int:
        return self._data.nbytes

    def numpy(self) -> np.ndarray:
        """The values as a read-only NumPy array (no copy)."""
        return self.__array__()

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        if copy:
            return np.array(self._data, dtype=dtype)
        view = self._data.view()
        view.flags.writeable = False
        return view if dtype is None else view.astype(dtype, copy=False)

    def item(self, *index):
        return self._data.item(*index)

    def tolist(self):
        return self._data.tolist()

    def __bool__(self):
        return bool(self._data)

    def __int__(self):
        return int(self._data)

    def __float__(self):
        return float(self._data)

    def __complex__(self):
        return complex(self._data)

    def __index__(self):
        return self._data.__index__()

    def __format__(self, spec):
        return format(self._data.item() if self._data.ndim == 0 and spec else self._data, spec)

    def __repr__(self):
        body = np.array2string(self._data, separator=", ", prefix="Array(")
        return f"Array({body}, dtype={self._data.dtype})"

    def __reduce__(self):
        return (Array, (self._data,))

    def __deepcopy__(self, memo):
        return self


_NO_BRANCH = ("Use where() to choose between values, cond, while_loop or scan for what runs, or make"
              " the argument it depends on static (jit's static_argnums)")
_NO_NUMBER = ("Keep it an array: tfn.numpy computes with it, astype() changes its dtype,"
              " tfn.debug.print shows it when the program runs; where only a Python number will do,"
              " make the argument it depends on static (jit's static_argnums)")
_NO_INDEX = ("Index an array instead of a list (asarray(list)[i]), loop with fori_loop or scan, and"
             " slice with a fixed size; a shape or an axis must be a Python int (jit's"
             " static_argnums)")
_NO_NUMPY = ("Use the function of that name in tfn.numpy instead of NumPy's, or"
             " tfn.debug.pure_callback to call NumPy when the program runs")


def leaked(tracer: Tracer) -> TraceError:
    """The error for a value used after (or beside) the trace that it belongs to."""
    return TraceError(
        f"{tracer!r} leaked out of the function that was traced at {tracer.graph.location}; return"
        " it from that function instead of storing it in a global, an attribute or a list",
        user_location(), tracer.origin())


class Tracer(Operators):
    """A value that stands for an array while a function is traced."""

    __slots__ = ("value", "graph", "__weakref__")

    def __init__(self, value: Value, graph: Graph):
        self.value = value
        self.graph = graph

    @property
    def type(self) -> TensorType:
        return self.value.type

    @property
    def shape(self) -> tuple[Extent, ...]:  # type: ignore[override]
        return self.value.type.shape

    @property
    def dtype(self) -> np.dtype:  # type: ignore[override]
        return self.value.type.dtype.numpy

    @property
    def size(self) -> Extent:
        return self.value.type.size

    def origin(self) -> tuple[str, Location] | None:
        """Where the value was made, or the function traced that it is an argument of: `related` of
        an error about it."""
        if self.value.op is None:
            words = f"it is argument {self.value.index} of the function traced"
            return (words, self.graph.location) if self.graph.location else None
        return ("it was made", self.value.op.location) if self.value.op.location else None

    def _no_value(self, what: str, remedy: str) -> TraceError:
        if self.graph not in graphs():
            return leaked(self)
        return TraceError(
            f"{what} needs the value of {self!r}, which is not known while the function is traced."
            f" {remedy}, or keep this part outside jit (run_eagerly=True in Keras)",
            user_location(), self.origin())

    def __bool__(self):
        raise self._no_value("bool(), as in `if`, `while`, `and`, `or`, `not`, `in`", _NO_BRANCH)

    def __int__(self):
        raise self._no_value("int()", _NO_NUMBER)

    def __float__(self):
        raise self._no_value("float()", _NO_NUMBER)

    def __complex__(self):
        raise self._no_value("complex()", _NO_NUMBER)

    def __index__(self):
        raise self._no_value("use as a Python index, in a range or as a shape", _NO_INDEX)

    def __array__(self, dtype=None, copy=None):
        raise self._no_value("conversion to a NumPy array", _NO_NUMPY)

    def numpy(self):
        raise self._no_value("numpy()", _NO_NUMPY)

    def item(self, *index):
        raise self._no_value("item()", _NO_NUMBER)

    def tolist(self):
        raise self._no_value("tolist()", _NO_NUMBER)

    def __format__(self, spec):
        if not spec:
            return repr(self)
        raise self._no_value(f"formatting with {spec!r}", "Print it with tfn.debug.print when the"
                             " program runs")

    def __repr__(self):
        return f"Tracer({self.value.type})"

    def __deepcopy__(self, memo):
        return self


def as_array(value: Any, dtype: DType | None = None) -> Array | Tracer:
    """`value` as an `Array` (NumPy arrays are viewed, not copied); tracers pass through."""
    if isinstance(value, (Array, Tracer)):
        return value
    try:
        data = np.asarray(value, dtype=None if dtype is None else dtype.numpy)
    except ValueError as error:
        raise OpError(f"{shown(value)} is no array: {error}", user_location()) from None
    try:
        as_dtype(data.dtype)
    except TypeError:
        raise TraceError(f"{shown(value)} is no array of numbers: NumPy makes {data.dtype} of it",
                         user_location()) from None
    return Array(data)


def shown(value: Any) -> str:
    """A Python value in a message: its repr, cut, and its type."""
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
