"""Concrete arrays without a detour: NumPy's function at once, where it is what the op means.

Of operands outside of any trace that have one native element type (or are Python scalars that take
it) nothing needs to be promoted or inferred. Each function here returns None for all others, and
where NumPy refuses: then the op itself says what is wrong, at the user's line.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import TfnError
from ..ir.core import TensorType
from ..ir.dims import Dim
from ..ir.dtypes import as_dtype
from ..locks import once
from ..ops.declare import REGISTRY, definition
from ..ops.elementwise import COMPARISONS, Elementwise
from ..ops.host import CHECKS
from ..ops.reduction import COMBINERS, identity_of
from ..trace.core import Array, bind, trace
from ..trace.scope import graphs

if TYPE_CHECKING:
    from ..compile import Executable

_NATIVE = {kind: frozenset(np.dtype(f"{kind}{size}") for size in sizes)
           for kind, sizes in {"f": (4, 8), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "b": (1,)}.items()}
_FLOATS = _NATIVE["f"]
_EXPENSIVE = frozenset(
    n for n, op in REGISTRY.items() if issubclass(op, Elementwise) and op.expensive)
_ALL = frozenset().union(*_NATIVE.values())
_LARGE = 1 << 14
"""Elements from which an elementary function is worth a kernel of ours."""
_CONVOLUTION = "stablehlo.convolution"
_TAP_SECONDS, _PRODUCT_SECONDS, _LONG = 25e-6, 4e-10, 20e-3
"""What NumPy takes for each tap of a convolution's window and for each product, and what is long."""
_ANY_SIGN = 128
"""Python ints from 0 up to this are numbers of every type."""


def _ready() -> bool:
    return not (graphs() or CHECKS.nans or CHECKS.infs)


def _dtypes(kinds: str) -> frozenset[np.dtype]:
    return frozenset().union(*(_NATIVE[kind] for kind in kinds))


def function_of(name: str) -> Callable[..., np.ndarray]:
    """The NumPy function that an elementwise op is."""
    op = definition(name)
    assert issubclass(op, Elementwise) and op.function is not None
    return op.function


def of_one(function: Callable[[np.ndarray], np.ndarray],
           kinds: str) -> Callable[[object], Array | None]:
    """NumPy's `function` of one array of `kinds` of numbers."""
    dtypes = _dtypes(kinds)

    def apply(x):
        if type(x) is not Array or x._data.dtype not in dtypes or not _ready():
            return None
        with np.errstate(all="ignore"):
            return _array(function(x._data))

    return apply


def unary(name: str, kinds: str) -> Callable[[object], Array | None]:
    """The op `name` on one array; a kernel where that is faster."""
    function = function_of(name)
    if name not in _EXPENSIVE:
        return of_one(function, kinds)

    def evaluate(data: np.ndarray) -> np.ndarray:
        if data.size < _LARGE:
            return function(data)
        (result,) = _kernel(name, data.dtype)(np.ascontiguousarray(data).reshape(-1))
        return result.reshape(data.shape)

    return of_one(evaluate, kinds)


@once
def _kernel(name: str, dtype: np.dtype) -> Executable:
    """The op compiled for any number of elements."""
    from ..compile import compile_function

    function, _ = trace(lambda x: [bind(name, x)], [TensorType((Dim.named("n"),), as_dtype(dtype))])
    return compile_function(function)


def binary(function: Callable, kinds: str) -> Callable[[object, object], Array | None]:
    """NumPy's `function` of two arrays, or one and a Python number."""
    dtypes = _dtypes(kinds)

    def apply(x, y):
        pair = _pair(x, y, dtypes)
        if pair is None:
            return None
        try:
            with np.errstate(all="ignore"):
                return _array(function(*pair))
        except (ValueError, OverflowError):
            return None

    return apply


def comparison(direction: str) -> Callable[[object, object], Array | None]:
    """Like `binary`, for a direction of `stablehlo.compare`."""
    function, dtypes = COMPARISONS[direction][0], _dtypes("fiub")

    def apply(x, y):
        pair = _pair(x, y, dtypes)
        if pair is None:
            return None
        try:
            return _array(function(*pair))
        except ValueError:
            return None

    return apply


def reduction(kind: str, kinds: str) -> Callable[[object, object, bool], Array | None]:
    """A reduction of one array over NumPy's `axis` by a combiner."""
    function, dtypes = COMBINERS[kind], _dtypes(kinds)
    # NumPy refuses extremes of nothing, as it should.
    starts = {d: {} if function.identity is None else {"initial": identity_of(kind, as_dtype(d))[()]}
              for d in dtypes}

    def apply(x, axis, keepdims):
        if type(x) is not Array or x._data.dtype not in dtypes or not _ready():
            return None
        data = x._data
        try:
            with np.errstate(all="ignore"):
                return _array(function.reduce(data, axis=axis, dtype=data.dtype,
                                              keepdims=keepdims, **starts[data.dtype]))
        except (ValueError, TypeError):
            return None

    return apply


def matmul(x, y) -> Array | None:
    """NumPy's matrix product."""
    pair = _pair(x, y, _FLOATS) if type(x) is type(y) is Array else None
    if pair is None:
        return None
    a, b = pair
    try:
        with np.errstate(all="ignore"):
            if a.ndim > 2 and b.ndim == 2:
                # One product of all rows, whatever the rank.
                return Array((a.reshape(-1, a.shape[-1]) @ b).reshape(*a.shape[:-1], b.shape[1]))
            return _array(a @ b)
    except ValueError:
        return None


def convolution(x, kernel, attributes: Mapping[str, Any]) -> Array | None:
    """A convolution that NumPy takes long for, by a kernel for any batch size."""
    pair = _pair(x, kernel, _FLOATS) if type(x) is type(kernel) is Array else None
    if pair is None:
        return None
    image, weights = x.type, kernel.type
    try:
        (result,) = definition(_CONVOLUTION).infer([image, weights], attributes, ())
    except TfnError:
        return None
    numbers = attributes["dimension_numbers"]
    taps = math.prod(weights.shape[d] for d in numbers.kernel_spatial_dimensions)
    products = result.size * taps * weights.shape[numbers.kernel_input_feature_dimension]
    if taps * _TAP_SECONDS + products * _PRODUCT_SECONDS < _LONG:
        return None
    at = numbers.input_batch_dimension
    any_batch = (*image.shape[:at], Dim.named("n"), *image.shape[at + 1:])
    run = _convolution(TensorType(any_batch, image.dtype), weights, tuple(attributes.items()))
    return Array(run(*pair)[0])


@functools.lru_cache(maxsize=64)  # Each keeps its arena; images may have any number of sizes.
def _convolution(image: TensorType, weights: TensorType, attributes: tuple) -> Executable:
    from ..compile import compile_function

    function, _ = trace(lambda x, w: [bind(_CONVOLUTION, x, w, **dict(attributes))], [image, weights])
    return compile_function(function)


def where(condition, x, y) -> Array | None:
    """NumPy's choice between two operands by a mask."""
    if type(condition) is not Array or condition._data.dtype != np.bool_:
        return None
    pair = _pair(x, y, _ALL)
    try:
        return None if pair is None else _array(np.where(condition._data, *pair))
    except ValueError:
        return None


def concatenate(xs, axis) -> Array | None:
    """Arrays of one element type, one after the other."""
    if not all(type(x) is Array for x in xs) or not _ready():
        return None
    arrays = [x._data for x in xs]
    first = arrays[0].dtype
    if not isinstance(axis, int) or not all(a.dtype is first for a in arrays):
        return None
    try:
        return Array(np.concatenate(arrays, axis))
    except ValueError:
        return None


def view(x, method: str, *arguments) -> Array | None:
    """What ndarray's `method` makes of the array, such as `reshape`."""
    if type(x) is not Array or not _ready():
        return None
    try:
        return Array(getattr(x._data, method)(*arguments))
    except (ValueError, TypeError):
        return None


def _pair(x, y, dtypes: frozenset[np.dtype]) -> tuple | None:
    """What NumPy is to be called with."""
    if type(x) is Array:
        data = x._data
        if type(y) is Array:
            fits = y._data.dtype is data.dtype
            pair = data, y._data
        else:
            fits = _is_weak(y, data.dtype)
            pair = data, y
    elif type(y) is Array:
        data = y._data
        fits = _is_weak(x, data.dtype)
        pair = x, data
    else:
        return None
    return pair if fits and data.dtype in dtypes and _ready() else None


def _is_weak(x, dtype: np.dtype) -> bool:
    """Is `x` a Python number that next to an array of `dtype` has its type?"""
    if type(x) is float:
        return dtype in _FLOATS
    return type(x) is int and 0 <= x < _ANY_SIGN and dtype.kind in "fiu"


def _array(data) -> Array:
    return Array(data if type(data) is np.ndarray else np.asarray(data))
