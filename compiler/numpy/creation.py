"""Arrays from nothing: constants, ranges, grids, triangles.

Results are of the default float (or i32 for integer ranges) unless a `dtype` says otherwise. Shapes
may hold symbolic dims; such arrays are broadcasts and iotas in the traced program. `device` is None
or "cpu", the only one.
"""

from __future__ import annotations

import numpy as np

from ..ir.core import TensorType
from ..ir.defaults import default_float
from ..ir.dims import Dim, Extent
from ..ir.dtypes import F64, I32, DType
from ..trace.core import Array, Tracer, bind, iota_beside
from .device import check_device
from .promote import (
    ArrayLike,
    Value,
    as_shape,
    asarray,
    broadcast_to,
    convert,
    dtype_argument,
    dtype_of,
    extent_value,
    operands,
    promote,
    result_type,
    to_dtype,
)


def full(shape, fill_value: ArrayLike, dtype=None, device=None) -> Value:
    """An array of `shape` filled with `fill_value` (a scalar or broadcastable array)."""
    check_device(device)
    fill = asarray(fill_value) if dtype is None else to_dtype(fill_value, dtype_argument(dtype))
    return broadcast_to(fill, as_shape(shape))


def zeros(shape, dtype=None, device=None) -> Value:
    """Zeros of `shape`."""
    return full(shape, 0, dtype or default_float(), device)


def ones(shape, dtype=None, device=None) -> Value:
    """Ones of `shape`."""
    return full(shape, 1, dtype or default_float(), device)


empty = zeros


def full_like(x: ArrayLike, fill_value: ArrayLike, dtype=None, shape=None, device=None) -> Value:
    """`fill_value` in the shape and element type of `x`, unless others are given."""
    x = asarray(x)
    return full(x.shape if shape is None else shape, fill_value, dtype or dtype_of(x), device)


def zeros_like(x: ArrayLike, dtype=None, shape=None, device=None) -> Value:
    """Zeros in the shape and element type of `x`."""
    return full_like(x, 0, dtype, shape, device)


def ones_like(x: ArrayLike, dtype=None, shape=None, device=None) -> Value:
    """Ones in the shape and element type of `x`."""
    return full_like(x, 1, dtype, shape, device)


empty_like = zeros_like


def array(x: ArrayLike, dtype=None, copy: bool = True, ndmin: int = 0) -> Value:
    """Like `asarray`, but a NumPy array is copied, so later writes to it do not show."""
    if copy and isinstance(x, np.ndarray):
        x = x.copy()
    result = asarray(x, dtype)
    missing = ndmin - len(result.shape)
    return result if missing <= 0 else broadcast_to(result, (1,) * missing + result.shape)


def copy(x: ArrayLike) -> Value:
    """`x`: arrays are immutable, so nothing needs to be copied (a NumPy array is)."""
    return array(x)


def iota(shape, axis: int, dtype: DType = I32) -> Value:
    """0, 1, 2 ... along `axis` of an array of `shape`."""
    return bind("stablehlo.iota", iota_dimension=axis, type=TensorType(as_shape(shape), dtype))


def arange(start, stop=None, step=None, dtype=None, device=None) -> Value:
    """Evenly spaced numbers from `start` (default 0) up to `stop` by `step`.

    The bounds are Python numbers or concrete arrays; `stop` may be a symbolic dim when the step
    is 1. Integers give i32, floats the default float.
    """
    check_device(device)
    if stop is None:
        start, stop = 0, start
    if isinstance(stop, Dim) or isinstance(start, Dim):
        return _symbolic_range(start, stop, step, dtype)
    step = 1 if step is None else step
    bounds = [start, stop, step]
    numbers = [b.item() if isinstance(b, (Array, Tracer, np.ndarray)) else b for b in bounds]
    target = dtype_argument(dtype) if dtype is not None else result_type(*(
        b if not isinstance(b, np.integer) else int(b) for b in bounds))
    data = np.arange(*numbers)
    return Array(data.astype(target.numpy))


def _symbolic_range(start, stop: Extent, step, dtype) -> Value:
    if step not in (None, 1):
        raise ValueError(f"arange over a symbolic dim needs step 1, got {step}")
    target = dtype_argument(dtype) if dtype is not None else I32
    line = iota((stop - start,), 0, target)
    if isinstance(start, int) and start == 0:
        return line
    return line + convert(extent_value(start), target)


def linspace(start, stop, num: int = 50, endpoint: bool = True, retstep: bool = False, dtype=None,
             axis: int = 0, device=None):
    """`num` evenly spaced numbers from `start` to `stop`; the bounds may be arrays."""
    from .manipulation import moveaxis

    check_device(device)

    wanted = None if dtype is None else dtype_argument(dtype)
    target = result_type(start, stop, 0.0)
    if wanted is not None:
        # Integers below 2**53 are exact in f64.
        target = promote(target, F64 if wanted.is_integer else wanted)
    low, high = to_dtype(start, target), to_dtype(stop, target)
    spaces = num - 1 if endpoint else num
    shape = np.broadcast_shapes(low.shape, high.shape)
    steps = np.arange(num, dtype=np.float64) / max(spaces, 1)
    at = Array(steps.astype(target.numpy).reshape((num,) + (1,) * len(shape)))
    # Interpolate from both ends, so that both are hit exactly.
    result = low * (1 - at) + high * at
    if axis != 0 and shape:
        result = moveaxis(result, 0, axis)
    if wanted is not None:
        if wanted.is_integer:
            from .elementwise import floor

            result = floor(result)
        result = convert(result, wanted)
    return (result, (high - low) / spaces) if retstep else result


def logspace(start, stop, num: int = 50, endpoint: bool = True, base=10.0, dtype=None,
             axis: int = 0) -> Value:
    """`base ** linspace(start, stop)`."""
    from .elementwise import power

    result = power(base, linspace(start, stop, num, endpoint, axis=axis))
    return result if dtype is None else convert(result, dtype_argument(dtype))


def eye(n: Extent, m: Extent | None = None, k: int = 0, dtype=None, device=None) -> Value:
    """Ones on the `k`-th diagonal of an `n` by `m` matrix, zeros elsewhere."""
    check_device(device)
    shape = as_shape((n, n if m is None else m))
    row, column = iota(shape, 0), iota(shape, 1)
    if isinstance(shape[0], int) and isinstance(shape[1], int):
        k = max(-shape[0], min(k, shape[1]))  # Of any size; outside there is nothing.
    on = bind("stablehlo.compare", row + k if k else row, column, comparison_direction="EQ")
    return convert(on, dtype_argument(dtype or default_float()))


def identity(n: Extent, dtype=None) -> Value:
    """The `n` by `n` identity matrix."""
    return eye(n, dtype=dtype)


def tri(n: Extent, m: Extent | None = None, k: int = 0, dtype=None) -> Value:
    """Ones at and below the `k`-th diagonal, zeros above."""
    return convert(_lower(as_shape((n, n if m is None else m)), k),
                   dtype_argument(dtype or default_float()))


def _lower(shape, k) -> Value:
    row = iota(shape, len(shape) - 2)
    return bind("stablehlo.compare", row if isinstance(k, int) and k == 0 else row + k,
                iota(shape, len(shape) - 1), comparison_direction="GE")


def tril(x: ArrayLike, k: int = 0) -> Value:
    """`x` with the elements above the `k`-th diagonal of its last two dims set to zero."""
    x = asarray(x)
    return bind("stablehlo.select", _lower(x.shape, k), x, zeros_like(x))


def triu(x: ArrayLike, k: int = 0) -> Value:
    """`x` with the elements below the `k`-th diagonal of its last two dims set to zero."""
    x = asarray(x)
    return bind("stablehlo.select", _lower(x.shape, k - 1), zeros_like(x), x)


def meshgrid(*xs: ArrayLike, indexing: str = "xy", sparse: bool = False) -> list[Value]:
    """Coordinate grids from 1-d axes; "xy" (the default) swaps the first two dims."""
    axes = [asarray(x) for x in xs]
    order = list(range(len(axes)))
    if indexing == "xy" and len(axes) > 1:
        order[:2] = [1, 0]
    elif indexing not in ("xy", "ij"):
        raise ValueError(f"indexing is 'xy' or 'ij', got {indexing!r}")
    shape: list[Extent] = [1] * len(axes)
    for d, x in zip(order, axes, strict=True):
        shape[d] = x.size
    grids = []
    for d, x in zip(order, axes, strict=True):
        own: list[Extent] = [1] * len(axes)
        own[d] = x.size
        line = bind("stablehlo.reshape", x, shape=tuple(own))
        grids.append(line if sparse else broadcast_to(line, shape))
    return grids


def one_hot(indices: ArrayLike, num_classes: int, axis: int = -1, dtype=None) -> Value:
    """1 where the new dim of size `num_classes` equals `indices`, else 0 (also out of range)."""
    from .manipulation import expand_dims

    indices = asarray(indices)
    rank = len(indices.shape) + 1
    axis = axis % rank
    wide = expand_dims(indices, axis)
    shape = tuple(num_classes if d == axis else e for d, e in enumerate(wide.shape))
    classes = iota_beside(indices, TensorType(shape, dtype_of(indices)), axis)
    on = bind("stablehlo.compare", broadcast_to(wide, shape), classes, comparison_direction="EQ")
    return convert(on, default_float() if dtype is None else dtype_argument(dtype))


def geomspace(start, stop, num: int = 50, endpoint: bool = True, dtype=None,
              axis: int = 0) -> Value:
    """`num` numbers from `start` to `stop` with equal ratios; both have the same sign."""
    from .elementwise import absolute, exp, log, sign

    low, high = operands(start, stop, dtype=result_type(start, stop, 0.0))
    result = sign(low) * exp(linspace(log(absolute(low)), log(absolute(high)), num, endpoint,
                                      axis=axis))
    return result if dtype is None else convert(result, dtype_argument(dtype))
