"""What NumPy's ufuncs have beside being called: `add.reduce`, `.accumulate`, `.outer`, `.at`.

The functions stay plain functions; these are attributes of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import cumulative, reduction, special
from . import elementwise as el
from .manipulation import reshape
from .promote import ArrayLike, Value, asarray
from .update import Update

_REDUCTIONS: dict[str, Callable] = {
    "add": reduction.sum, "multiply": reduction.prod, "maximum": reduction.max,
    "minimum": reduction.min, "logical_and": reduction.all, "logical_or": reduction.any,
    "logaddexp": reduction.logsumexp,
}
_RUNNING: dict[str, Callable] = {
    "add": cumulative.cumsum, "multiply": cumulative.cumprod, "maximum": cumulative.cummax,
    "minimum": cumulative.cummin,
}
_UPDATES = {"add": "add", "multiply": "multiply", "maximum": "max", "minimum": "min",
            "subtract": "subtract", "divide": "divide", "power": "power"}
_BINARY = ("add", "subtract", "multiply", "divide", "floor_divide", "mod", "power", "maximum",
           "minimum", "fmax", "fmin", "bitwise_and", "bitwise_or", "bitwise_xor", "left_shift",
           "right_shift", "equal", "not_equal", "less", "less_equal", "greater", "greater_equal",
           "logical_and", "logical_or", "logical_xor", "copysign", "heaviside", "fmod")
_SPECIAL = ("arctan2", "hypot", "logaddexp", "logaddexp2", "nextafter", "gcd", "lcm")


def _outer(function: Callable) -> Callable:
    def outer(x: ArrayLike, y: ArrayLike) -> Value:
        """The function of every element of `x` with every element of `y`."""
        x, y = asarray(x), asarray(y)
        return function(reshape(x, x.shape + (1,) * len(y.shape)), y)

    return outer


def _reduce(function: Callable) -> Callable:
    def reduce(x: ArrayLike, axis: Any = 0, **options: Any) -> Value:
        """The function of all elements along `axis` (None: of all), one after the other."""
        return function(x, axis=axis, **options)

    return reduce


def _accumulate(function: Callable) -> Callable:
    def accumulate(x: ArrayLike, axis: int = 0, **options: Any) -> Value:
        """The results of `reduce` up to every element along `axis`."""
        return function(x, axis=axis, **options)

    return accumulate


def _at(method: str) -> Callable:
    def at(x: ArrayLike, key: Any, values: ArrayLike, *, inplace: bool = False) -> Value:
        """A copy of `x` with the function of the elements at `key` and `values` there; places that
        are named more than once combine."""
        if inplace:
            raise TypeError("arrays are immutable; use the returned array with inplace=False")
        return getattr(Update(asarray(x), key), method)(values)

    return at


def _install() -> None:
    for name in _BINARY + _SPECIAL:
        function: Any = getattr(el if name in _BINARY else special, name)
        function.outer = _outer(function)
        if name in _REDUCTIONS:
            function.reduce = _reduce(_REDUCTIONS[name])
        if name in _RUNNING:
            function.accumulate = _accumulate(_RUNNING[name])
        if name in _UPDATES:
            function.at = _at(_UPDATES[name])


_install()
