"""Operators and methods of `Array` and `Tracer`: `x + y`, `x[...]`, `x.mean()`, `x.T`, `x.at[...]`.

`trace.core.Operators` is their common base; the tables below are installed on it on import.
"""

from __future__ import annotations

import numpy as np

from ..errors import TraceError, user_location
from ..ir.dims import Dim
from ..trace.core import Array, Operators, Tracer
from . import (
    cumulative,
    editing,
    exchange,
    indexing,
    linear,
    manipulation,
    reduction,
    sorting,
    update,
)
from . import elementwise as el
from .device import CPU, to_device
from .inspection import ARRAY_API_VERSION
from .promote import asarray, convert, dtype_argument

_OPERANDS = (Array, Tracer, Dim, np.ndarray, np.generic, int, float, complex, bool, list, tuple)

_BINARY = {
    "add": el.add, "sub": el.subtract, "mul": el.multiply, "truediv": el.divide,
    "floordiv": el.floor_divide, "mod": el.mod, "pow": el.power, "matmul": linear.matmul,
    "and": el.bitwise_and, "or": el.bitwise_or, "xor": el.bitwise_xor, "lshift": el.left_shift,
    "rshift": el.right_shift, "divmod": el.divmod,
    "lt": el.less, "le": el.less_equal, "gt": el.greater, "ge": el.greater_equal,
    "eq": el.equal, "ne": el.not_equal,
}
_COMPARISONS = frozenset({"lt", "le", "gt", "ge", "eq", "ne"})
_UNARY = {"neg": el.negative, "pos": el.positive, "abs": el.absolute, "invert": el.invert}

_METHODS = {
    "transpose": lambda x, *axes: manipulation.transpose(
        x, None if not axes or axes == (None,) else
        axes[0] if isinstance(axes[0], (tuple, list)) else axes),
    "reshape": manipulation.reshape, "ravel": manipulation.ravel, "flatten": manipulation.ravel,
    "squeeze": manipulation.squeeze, "swapaxes": manipulation.swapaxes,
    "repeat": manipulation.repeat, "diagonal": manipulation.diagonal,
    "sum": reduction.sum, "prod": reduction.prod, "mean": reduction.mean, "var": reduction.var,
    "std": reduction.std, "max": reduction.max, "min": reduction.min, "all": reduction.all,
    "any": reduction.any, "argmax": reduction.argmax, "argmin": reduction.argmin,
    "cumsum": cumulative.cumsum, "cumprod": cumulative.cumprod, "round": el.round, "clip": el.clip,
    "conj": el.conj, "take": indexing.take, "dot": linear.dot, "sort": sorting.sort,
    "argsort": sorting.argsort, "copy": asarray, "ptp": reduction.ptp, "nonzero": sorting.nonzero,
    "trace": manipulation.trace, "searchsorted": sorting.searchsorted,
    "conjugate": el.conj, "view": el.view, "argpartition": sorting.argpartition,
    "choose": editing.choose, "compress": lambda x, condition, axis=None, **options: editing.compress(
        condition, x, axis, **options),
}
_PROPERTIES = {
    "T": manipulation.transpose, "mT": lambda x: manipulation.swapaxes(x, -1, -2),
    "real": el.real, "imag": el.imag, "at": update.At,
    "itemsize": lambda x: x.dtype.itemsize, "device": lambda x: CPU, "flat": manipulation.ravel,
}


def _binary(function):
    def operator(self, other):
        if not isinstance(other, _OPERANDS) and not hasattr(other, "__tfn_array__"):
            return NotImplemented
        return function(self, other)

    return operator


def _reflected(function):
    def operator(self, other):
        if not isinstance(other, _OPERANDS) and not hasattr(other, "__tfn_array__"):
            return NotImplemented
        return function(other, self)

    return operator


def _astype(self, dtype, copy: bool = False):
    """This array with another element type."""
    return convert(self, dtype_argument(dtype))


def _iterate(self):
    if not self.shape:
        raise TraceError(f"a scalar, {self!r}, cannot be iterated over or unpacked", user_location())
    return (self[i] for i in range(len(self)))


def _round(self, decimals: int = 0):
    return el.round(self, decimals)


def _set_item(self, key, value, /):
    raise TraceError("arrays are immutable: instead of x[key] = value write x = x.at[key].set(value);"
                     " .at[key].add, .multiply, .min and .max combine", user_location())


def _namespace(self, /, *, api_version: str | None = None):
    """The array module of the array API standard this array belongs to."""
    known = ("2021.12", "2022.12", "2023.12", ARRAY_API_VERSION)
    if api_version is not None and api_version not in known:
        raise ValueError(f"array API version {api_version!r} is not one of {', '.join(known)}")
    from .. import numpy as module

    return module


def _method(function, name: str):
    def method(self, *args, **kwargs):
        # NumPy's own functions call these methods, `np.sum(x)` does `x.sum(out=None)`.
        if kwargs.get("out", self) is None:
            del kwargs["out"]
        return function(self, *args, **kwargs)

    method.__name__ = name
    method.__doc__ = function.__doc__
    return method


def _forward(function):
    def operator(self):
        return function(self)

    return operator


def _install() -> None:
    members = {
        **{f"__{n}__": _binary(f) for n, f in _BINARY.items()},
        **{f"__r{n}__": _reflected(f) for n, f in _BINARY.items() if n not in _COMPARISONS},
        **{f"__{n}__": _forward(f) for n, f in _UNARY.items()},
        **{n: _method(f, n) for n, f in _METHODS.items()},
        **{n: property(f) for n, f in _PROPERTIES.items()},
        # Comparison is elementwise, so arrays hash by identity.
        "__hash__": object.__hash__,
        "__getitem__": indexing.getitem, "__iter__": _iterate, "__round__": _round,
        "astype": _astype, "__setitem__": _set_item, "__array_namespace__": _namespace,
        "to_device": to_device,
    }
    for name, member in members.items():
        setattr(Operators, name, member)
    for name, member in exchange.METHODS.items():
        setattr(Array, name, member)


_install()
