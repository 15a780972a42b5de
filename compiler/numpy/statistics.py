"""Quantiles, covariance, windows, and sums over segments."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import OpError, user_location
from ..ir.defaults import default_float
from ..ir.dims import Extent
from ..ir.dtypes import F32, I32
from ..ops.reduction import identity_of
from ..trace.core import Array, bind
from . import elementwise as el
from .indexing import scatter_elements, take, take_along_axis
from .linear import matmul
from .manipulation import (
    concatenate,
    expand_dims,
    moveaxis,
    reshape,
    slice_along,
    stack,
    swapaxes,
)
from .promote import (
    ArrayLike,
    Value,
    asarray,
    broadcast_to,
    convert,
    dtype_argument,
    dtype_of,
    floating,
    normalize_axes,
    result_type,
    to_dtype,
)
from .reduction import mean
from .reduction import sum as sum_
from .sorting import argsort, searchsorted, sort

_PARAMETERS = {
    "linear": (1.0, 1.0), "hazen": (0.5, 0.5), "weibull": (0.0, 0.0),
    "median_unbiased": (1 / 3, 1 / 3), "normal_unbiased": (3 / 8, 3 / 8),
    "interpolated_inverted_cdf": (0.0, 1.0),
}
"""Continuous methods -> (alpha, beta) of Hyndman and Fan (1996): the position of q among n sorted
elements, counted from 0, is n q + alpha + q (1 - alpha - beta) - 1."""


def _step(offset: float, weight):
    """A discontinuous method: position n q + offset, and the weight of the upper neighbour."""
    return lambda q, n: el.add(el.multiply(q, n), offset), weight


def _between(position: Value, low: Value, value: float) -> Value:
    return el.where(el.equal(position, low), 0.0, value)


_METHODS = {
    **{name: (lambda q, n, a=a, b=b: el.add(el.multiply(q, el.add(n, 1 - a - b)), a - 1),
              lambda position, low: el.subtract(position, low))
       for name, (a, b) in _PARAMETERS.items()},
    "lower": (lambda q, n: el.multiply(q, el.subtract(n, 1)), lambda position, low: 0.0),
    "higher": (lambda q, n: el.multiply(q, el.subtract(n, 1)),
               lambda position, low: _between(position, low, 1.0)),
    "midpoint": (lambda q, n: el.multiply(q, el.subtract(n, 1)),
                 lambda position, low: _between(position, low, 0.5)),
    "nearest": (lambda q, n: el.multiply(q, el.subtract(n, 1)),
                lambda position, low: el.subtract(el.rint(position), low)),
    "inverted_cdf": _step(-1.0, lambda position, low: _between(position, low, 1.0)),
    "averaged_inverted_cdf": _step(
        -1.0, lambda position, low: el.where(el.equal(position, low), 0.5, 1.0)),
    # At a tie the element with the even number, counted from 1.
    "closest_observation": _step(
        -1.5, lambda position, low: el.where(
            el.logical_and(el.equal(position, low), el.equal(el.mod(low, 2.0), 1.0)), 0.0, 1.0)),
}
"""Method -> the position from q and the number of elements, and the weight of the upper neighbour
from the position and its floor."""


def quantile(x: ArrayLike, q: ArrayLike, axis=None, method: str = "linear",
             keepdims: bool = False) -> Value:
    """The `q`-th quantiles (0 to 1) over `axis`; NaN when an element is.

    `method`: linear, lower, higher, midpoint, nearest or another of `np.quantile`.
    """
    return _quantile(x, q, axis, method, keepdims, ignore_nan=False)


def nanquantile(x: ArrayLike, q: ArrayLike, axis=None, method: str = "linear",
                keepdims: bool = False) -> Value:
    """The `q`-th quantiles of the elements that are not NaN."""
    return _quantile(x, q, axis, method, keepdims, ignore_nan=True)


def _quantile(x, q, axis, method, keepdims, ignore_nan) -> Value:
    if method not in _METHODS:
        raise OpError(f"quantile method {method!r} is not one of {', '.join(_METHODS)}",
                      user_location())
    x = floating(x)
    # Positions among more than 2,048 elements need more bits than 16-bit floats have.
    narrow = dtype_of(x)
    x = convert(x, F32) if narrow.is_float and narrow.bits < 32 else x
    q = to_dtype(q, dtype_of(x))
    rank = len(x.shape)
    axes = normalize_axes(axis, rank)
    rest = tuple(x.shape[d] for d in range(rank) if d not in axes)
    flat = moveaxis(x, axes, tuple(range(rank - len(axes), rank)))
    ordered = sort(reshape(flat, (*rest, -1)), -1)
    size = ordered.shape[-1]
    nan = el.isnan(ordered)
    points = reshape(q, (-1,))
    count: Value = size
    if ignore_nan:
        count = sum_(convert(el.logical_not(nan), dtype_of(x)), -1, keepdims=True)
    place, weight_of = _METHODS[method]
    position = broadcast_to(place(points, count), (*rest, points.shape[0]))
    low = el.floor(position)
    weight = weight_of(position, low)
    last = el.subtract(count, 1)
    below = take_along_axis(ordered, convert(el.clip(low, 0, el.maximum(last, 0)), I32), -1)
    above = take_along_axis(ordered, convert(el.clip(low + 1, 0, el.maximum(last, 0)), I32), -1)
    # Between equal (infinite) neighbours, or at a weight of 0, the difference may be NaN.
    same = el.logical_or(el.equal(below, above), el.equal(weight, 0.0))
    result = el.where(same, below, below + el.multiply(el.subtract(above, below), weight))
    if not ignore_nan:
        result = el.where(slice_along(nan, len(rest), size - 1, size), np.nan, result)
    result = moveaxis(result, -1, 0)
    kept = tuple(1 if d in axes else e for d, e in enumerate(x.shape)) if keepdims else rest
    return convert(reshape(result, q.shape + kept), narrow)


def percentile(x: ArrayLike, q: ArrayLike, axis=None, method: str = "linear",
               keepdims: bool = False) -> Value:
    """The `q`-th percentiles (0 to 100) over `axis`."""
    return quantile(x, el.divide(q, 100.0), axis, method, keepdims)


def nanpercentile(x: ArrayLike, q: ArrayLike, axis=None, method: str = "linear",
                  keepdims: bool = False) -> Value:
    """The `q`-th percentiles of the elements that are not NaN."""
    return nanquantile(x, el.divide(q, 100.0), axis, method, keepdims)


def median(x: ArrayLike, axis=None, keepdims: bool = False) -> Value:
    """The middle value over `axis` (the mean of the two middle ones)."""
    return quantile(x, 0.5, axis, keepdims=keepdims)


def nanmedian(x: ArrayLike, axis=None, keepdims: bool = False) -> Value:
    """The median of the elements that are not NaN."""
    return nanquantile(x, 0.5, axis, keepdims=keepdims)


def interp(x: ArrayLike, xp: ArrayLike, fp: ArrayLike, left: ArrayLike | None = None,
           right: ArrayLike | None = None, period: float | None = None) -> Value:
    """The line through the points (xp, fp), `xp` increasing, at `x`.

    Below `xp[0]` it is `left` (by default `fp[0]`), above `xp[-1]` it is `right` (`fp[-1]`). With
    `period`, `xp` need not be sorted and the line repeats.
    """
    dtype = result_type(x, xp, fp, 0.0)
    x, xp, fp = (to_dtype(v, dtype) for v in (x, xp, fp))
    if period is not None:
        x, xp = el.mod(x, period), el.mod(xp, period)
        order = argsort(xp)
        xp, fp = take(xp, order, 0), take(fp, order, 0)
        xp = concatenate([xp[-1:] - period, xp, xp[:1] + period])
        fp = concatenate([fp[-1:], fp, fp[:1]])
    n = xp.shape[0]
    high = el.clip(searchsorted(xp, x, "right"), min(1, n - 1), n - 1)
    low = el.maximum(el.subtract(high, 1), 0)
    x0, x1, y0, y1 = (take(v, i, 0) for v, i in ((xp, low), (xp, high), (fp, low), (fp, high)))
    width = el.subtract(x1, x0)
    flat = el.equal(width, 0)
    slope = el.divide(el.subtract(y1, y0), el.where(flat, 1, width))
    result = el.where(flat, y0, y0 + el.multiply(slope, el.subtract(x, x0)))
    result = el.where(el.equal(x, x1), y1, result)
    result = el.where(el.less(x, xp[0]), fp[0] if left is None or period else left, result)
    return el.where(el.greater(x, xp[-1]), fp[-1] if right is None or period else right, result)


def cov(x: ArrayLike, y: ArrayLike | None = None, rowvar: bool = True, bias: bool = False,
        ddof: int | None = None, fweights: ArrayLike | None = None,
        aweights: ArrayLike | None = None) -> Value:
    """Covariance of the variables in the rows of `x` (the columns when not `rowvar`) and of `y`.

    The sum is divided by the number of observations less `ddof`, by default 1 (0 with `bias`).
    `fweights`: how often each was observed; `aweights`: how much each counts.
    """
    lines = [_variables(v, rowvar) for v in (x, y) if v is not None]
    x = lines[0] if len(lines) == 1 else concatenate(lines, 0)
    ddof = ddof if ddof is not None else 0 if bias else 1
    size = x.shape[-1]
    if fweights is None and aweights is None:
        centred = el.subtract(x, mean(x, -1, keepdims=True))
        return el.divide(matmul(centred, el.conj(swapaxes(centred, -1, -2))), size - ddof)
    real = dtype_of(el.real(x))
    weight = to_dtype(1.0, real)
    for given in (fweights, aweights):
        if given is not None:
            weight = el.multiply(weight, to_dtype(given, real))
    total = sum_(weight)
    # Repeated observations are as good as several; those that only weigh more are not.
    lost = el.multiply(1.0 if aweights is None else el.divide(
        sum_(el.multiply(weight, to_dtype(aweights, real))), total), ddof)
    centred = el.subtract(x, el.divide(sum_(el.multiply(x, weight), -1, keepdims=True), total))
    product = matmul(el.multiply(centred, weight), el.conj(swapaxes(centred, -1, -2)))
    return el.divide(product, el.subtract(total, lost))


def _variables(x: ArrayLike, rowvar: bool) -> Value:
    """`x` with one variable a row."""
    x = floating(x)
    x = x if rowvar or len(x.shape) < 2 else swapaxes(x, 0, 1)
    return reshape(x, (1, -1)) if len(x.shape) < 2 else x


def corrcoef(x: ArrayLike, y: ArrayLike | None = None, rowvar: bool = True) -> Value:
    """Correlation of the variables in the rows of `x` (and of `y`)."""
    from .manipulation import diagonal

    covariance = cov(x, y, rowvar)
    if covariance.shape == (1, 1):
        return reshape(el.divide(covariance, covariance), ())
    deviation = el.sqrt(el.real(diagonal(covariance)))
    scaled = el.divide(el.divide(covariance, expand_dims(deviation, 1)), expand_dims(deviation, 0))
    if dtype_of(scaled).kind == "complex":
        return bind("stablehlo.complex", el.clip(el.real(scaled), -1, 1),
                    el.clip(el.imag(scaled), -1, 1))
    return el.clip(scaled, -1, 1)


# -- windows --------------------------------------------------------------------------------------

def _window(name: str, doc: str):
    function = getattr(np, name)

    def window(size: int, dtype=None) -> Value:
        return Array(function(int(size)).astype(_float_argument(dtype)))

    window.__name__ = window.__qualname__ = name
    window.__doc__ = doc
    return window


bartlett = _window("bartlett", "The triangular window of `size` points.")
blackman = _window("blackman", "The Blackman window of `size` points.")
hamming = _window("hamming", "The Hamming window of `size` points.")
hanning = _window("hanning", "The Hann window of `size` points.")


def kaiser(size: int, beta: float, dtype=None) -> Value:
    """The Kaiser window of `size` points; the larger `beta`, the narrower."""
    return Array(np.kaiser(int(size), float(beta)).astype(_float_argument(dtype)))


def _float_argument(dtype) -> np.dtype:
    return (default_float() if dtype is None else dtype_argument(dtype)).numpy


# -- segments -------------------------------------------------------------------------------------

def _segments(x: ArrayLike, ids: ArrayLike, num_segments: Extent | None, kind: str) -> Value:
    x, ids = asarray(x), asarray(ids)
    if num_segments is None:
        num_segments = int(np.max(np.asarray(ids), initial=-1)) + 1
    start = broadcast_to(Array(identity_of(kind, dtype_of(x))), (num_segments, *x.shape[1:]))
    if dtype_of(ids).bits < 32:
        ids = convert(ids, I32)
    # A negative id belongs to no segment; an id that is too large is dropped by scatter.
    dropped = el.where(el.less(ids, 0), np.iinfo(ids.dtype).max, ids)
    return scatter_elements(start, {0: dropped}, 0, x, kind)


def segment_sum(x: ArrayLike, ids: ArrayLike, num_segments: Extent | None = None) -> Value:
    """Sums of the slices of `x` with equal `ids`; traced ids need `num_segments`."""
    return _segments(x, ids, num_segments, "add")


def segment_prod(x: ArrayLike, ids: ArrayLike, num_segments: Extent | None = None) -> Value:
    """Products of the slices of `x` with equal `ids`."""
    return _segments(x, ids, num_segments, "multiply")


def segment_max(x: ArrayLike, ids: ArrayLike, num_segments: Extent | None = None) -> Value:
    """Maxima of the slices of `x` with equal `ids`; the smallest number for an empty segment."""
    return _segments(x, ids, num_segments, "maximum")


def segment_min(x: ArrayLike, ids: ArrayLike, num_segments: Extent | None = None) -> Value:
    """Minima of the slices of `x` with equal `ids`; the largest number for an empty segment."""
    return _segments(x, ids, num_segments, "minimum")


# -- the rest -------------------------------------------------------------------------------------

def select(conditions: Sequence[ArrayLike], choices: Sequence[ArrayLike],
           default: ArrayLike = 0) -> Value:
    """The choice of the first condition that holds, `default` where none does."""
    result = default
    for condition, choice in zip(reversed(conditions), reversed(choices), strict=True):
        result = el.where(condition, choice, result)
    return asarray(result)


def unravel_index(indices: ArrayLike, shape: Sequence[int]) -> tuple[Value, ...]:
    """Flat indices as one index array per dim of `shape`."""
    rest, result = asarray(indices), []
    for extent in reversed(shape):
        result.append(el.mod(rest, extent))
        rest = el.floor_divide(rest, extent)
    return tuple(reversed(result))


def vander(x: ArrayLike, n: int | None = None, increasing: bool = False) -> Value:
    """Powers of `x` as columns, the highest first unless `increasing`."""
    x = asarray(x)
    columns = [el.power(x, k) for k in range(x.shape[0] if n is None else n)]
    if not columns:
        return reshape(x, (-1, 1))[:, :0]
    return stack(columns if increasing else columns[::-1], -1)


def allclose(x: ArrayLike, y: ArrayLike, rtol: float = 1e-5, atol: float = 1e-8,
             equal_nan: bool = False) -> Value:
    """True when every element of `x` is close to that of `y`; see `isclose`."""
    from .reduction import all as all_

    return all_(el.isclose(x, y, rtol, atol, equal_nan))


def in_top_k(targets: ArrayLike, predictions: ArrayLike, k: int) -> Value:
    """True where the prediction of the target class is among the `k` largest of its row."""
    targets, predictions = asarray(targets), asarray(predictions)
    own = take_along_axis(predictions, expand_dims(targets, -1), -1)
    larger = sum_(convert(el.greater(predictions, own), I32), -1)
    valid = el.logical_and(el.greater_equal(targets, 0), el.less(targets, predictions.shape[-1]))
    return el.logical_and(el.less(larger, k),
                          el.logical_and(valid, el.isfinite(reshape(own, own.shape[:-1]))))


def extract_sequences(x: ArrayLike, length: int, stride: int) -> Value:
    """Overlapping windows of `length` along the last dim, `stride` apart, as a new last dim."""
    x = asarray(x)
    count = 1 + (x.shape[-1] - length) // stride
    at = np.arange(count)[:, None] * stride + np.arange(length)[None, :]
    return take(x, at.astype(np.int32), -1)

