"""Activation functions. softmax, log_softmax and gelu keep their names as composites.

Piecewise functions are written with selects whose unused branch is harmless, so that derivatives
are finite everywhere; at a kink the derivative is one of the two sides' (`relu`: 0 at 0).
"""

from __future__ import annotations

import math

import numpy as np

from .. import numpy as tnp
from ..ir.core import Op
from ..numpy import direct
from ..numpy.promote import ArrayLike, Value, asarray, dtype_of, floating, normalize_axes
from ..ops.control import DERIVATIVES, composite
from ..trace.grad import stop_gradient


def _positive(x: np.ndarray) -> np.ndarray:
    return np.where(x <= 0, x.dtype.type(0), x)


_eager_relu = direct.of_one(_positive, "f")


def relu(x: ArrayLike) -> Value:
    """max(x, 0); NaN stays NaN."""
    found = _eager_relu(x)
    if found is not None:
        return found
    x = asarray(x)
    return tnp.where(x <= 0, 0, x)


def relu6(x: ArrayLike) -> Value:
    """min(max(x, 0), 6)."""
    return tnp.clip(x, 0, 6)


def leaky_relu(x: ArrayLike, negative_slope: float = 0.2) -> Value:
    """x above 0, `negative_slope` * x below."""
    x = floating(x)
    return tnp.where(x >= 0, x, x * negative_slope)


def sigmoid(x: ArrayLike) -> Value:
    """1 / (1 + e**-x)."""
    return tnp.logistic(x)


def log_sigmoid(x: ArrayLike) -> Value:
    """log(sigmoid(x)), without overflow."""
    return -softplus(-floating(x))


def tanh(x: ArrayLike) -> Value:
    """Hyperbolic tangent."""
    return tnp.tanh(x)


def softplus(x: ArrayLike) -> Value:
    """log(1 + e**x), without overflow."""
    x = floating(x)
    return tnp.maximum(x, 0) + tnp.log1p(tnp.exp(-tnp.abs(x)))


def softsign(x: ArrayLike) -> Value:
    """x / (1 + |x|)."""
    x = floating(x)
    return x / (tnp.abs(x) + 1)


def silu(x: ArrayLike) -> Value:
    """x * sigmoid(x)."""
    x = floating(x)
    return x * tnp.logistic(x)


swish = silu


def elu(x: ArrayLike, alpha: float = 1.0) -> Value:
    """x above 0, alpha * (e**x - 1) below."""
    x = floating(x)
    positive = x > 0
    return tnp.where(positive, x, alpha * tnp.expm1(tnp.where(positive, 0, x)))


def celu(x: ArrayLike, alpha: float = 1.0) -> Value:
    """x above 0, alpha * (e**(x / alpha) - 1) below."""
    x = floating(x)
    positive = x > 0
    return tnp.where(positive, x, alpha * tnp.expm1(tnp.where(positive, 0, x) / alpha))


_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805


def selu(x: ArrayLike) -> Value:
    """The self-normalising scaled elu."""
    return _SELU_SCALE * elu(x, _SELU_ALPHA)


def hard_sigmoid(x: ArrayLike) -> Value:
    """relu6(x + 3) / 6."""
    return relu6(floating(x) + 3) / 6


def hard_silu(x: ArrayLike) -> Value:
    """x * hard_sigmoid(x)."""
    x = floating(x)
    return x * hard_sigmoid(x)


def hard_tanh(x: ArrayLike) -> Value:
    """x limited to [-1, 1]."""
    x = asarray(x)
    return tnp.where(x > 1, 1, tnp.where(x < -1, -1, x))


def tanh_shrink(x: ArrayLike) -> Value:
    """x - tanh(x)."""
    x = floating(x)
    return x - tnp.tanh(x)


def soft_shrink(x: ArrayLike, threshold: float = 0.5) -> Value:
    """x moved towards 0 by `threshold`, 0 within it."""
    x = floating(x)
    return tnp.where(x > threshold, x - threshold, tnp.where(x < -threshold, x + threshold, 0))


def hard_shrink(x: ArrayLike, threshold: float = 0.5) -> Value:
    """x, and 0 within `threshold` of 0."""
    x = asarray(x)
    return tnp.where(tnp.abs(x) > threshold, x, 0)


def threshold(x: ArrayLike, threshold: float, default_value: float) -> Value:
    """x above `threshold`, `default_value` elsewhere."""
    x = asarray(x)
    return tnp.where(x > threshold, x, default_value)


def squareplus(x: ArrayLike, b: float = 4) -> Value:
    """(x + sqrt(x*x + b)) / 2."""
    x = floating(x)
    root = tnp.sqrt(tnp.square(x) + b)
    # Below 0 the sum cancels; b / (root - x) is the same number.
    return tnp.where(x < 0, b / (root + tnp.abs(x)), x + root) / 2


def sparse_plus(x: ArrayLike) -> Value:
    """0 below -1, x above 1, a parabola between."""
    x = floating(x)
    return tnp.where(x <= -1, 0, tnp.where(x < 1, tnp.square(x + 1) / 4, x))


def sparse_sigmoid(x: ArrayLike) -> Value:
    """0 below -1, 1 above 1, a line between."""
    x = floating(x)
    return 0.5 * hard_tanh(x) + 0.5


def glu(x: ArrayLike, axis: int = -1) -> Value:
    """The first half along `axis` times the sigmoid of the second."""
    first, second = tnp.split(x, 2, axis)
    return first * tnp.logistic(second)


def gelu(x: ArrayLike, approximate: bool = True) -> Value:
    """x times the normal distribution function of x (`approximate`: through tanh)."""
    x = floating(x)
    return composite("tfn.gelu", _gelu_tanh if approximate else _gelu_erf, x,
                     approximate=approximate)


def _gelu_tanh(x: Value) -> Value:
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))
    return 0.5 * x * (1 + tnp.tanh(inner))


def _gelu_erf(x: Value) -> Value:
    return 0.5 * x * (1 + tnp.erf(x * math.sqrt(0.5)))


def _slope_tanh(x: Value) -> Value:
    line, cube = math.sqrt(2 / math.pi), 0.044715 * math.sqrt(2 / math.pi)
    t = tnp.tanh(x * (line + cube * (x * x)))
    return 0.5 * (1 + t) + 0.5 * x * ((1 - t * t) * (line + 3 * cube * (x * x)))


def _slope_erf(x: Value) -> Value:
    density = tnp.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))
    return 0.5 * (1 + tnp.erf(x * math.sqrt(0.5))) + x * density


def _gelu_derivative(op: Op):
    """The rule `vjp`: the derivative is a composite of its own."""
    approximate = op.attributes["composite_attributes"]["approximate"]
    slope = _slope_tanh if approximate else _slope_erf

    def rule(cotangents, op, operands, results):
        return [cotangents[0] * composite("tfn.gelu_slope", slope, *operands, approximate=approximate)]

    return rule


DERIVATIVES["tfn.gelu"] = _gelu_derivative


def softmax(x: ArrayLike, axis=-1) -> Value:
    """e**x normalised to sum 1 over `axis` (an int, several, or None for all)."""
    x = floating(x)
    axes = normalize_axes(axis, len(x.shape))
    return composite("tfn.softmax", lambda v: _softmax(v, axes), x, axis=list(axes))


def log_softmax(x: ArrayLike, axis=-1) -> Value:
    """log(softmax(x, axis)), accurate where the softmax is tiny."""
    x = floating(x)
    axes = normalize_axes(axis, len(x.shape))
    return composite("tfn.log_softmax", lambda v: _log_softmax(v, axes), x, axis=list(axes))


def _shifted(x: Value, axes: tuple[int, ...]) -> Value:
    return x - stop_gradient(tnp.max(x, axes, keepdims=True))


def _softmax(x: Value, axes: tuple[int, ...]) -> Value:
    dtype = dtype_of(x)
    wide = x.astype("f32") if dtype.bits == 16 else x
    grown = tnp.exp(_shifted(wide, axes))
    return tnp.convert(grown / tnp.sum(grown, axes, keepdims=True), dtype)


def _log_softmax(x: Value, axes: tuple[int, ...]) -> Value:
    dtype = dtype_of(x)
    wide = _shifted(x.astype("f32") if dtype.bits == 16 else x, axes)
    total = tnp.sum(tnp.exp(wide), axes, keepdims=True)
    return tnp.convert(wide - tnp.log(total), dtype)


def sparsemax(x: ArrayLike, axis: int = -1) -> Value:
    """The Euclidean projection of `x` onto the probability simplex along `axis`."""
    x = floating(x)
    axis %= len(x.shape)
    ordered = tnp.sort(x, axis, descending=True)
    shape = tuple(-1 if d == axis else 1 for d in range(len(x.shape)))
    rank = tnp.reshape(tnp.arange(1, x.shape[axis] + 1, dtype=dtype_of(x)), shape)
    running = tnp.cumsum(ordered, axis)
    support = 1 + rank * ordered > running
    size = tnp.sum(support.astype(dtype_of(x)), axis, keepdims=True)
    total = tnp.sum(tnp.where(support, ordered, 0), axis, keepdims=True)
    return tnp.maximum(x - (total - 1) / size, 0)
