"""Continuous distributions that a formula makes from uniform or normal numbers.

Numbers follow JAX's streams: the same key gives the same draw up to rounding.
"""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np

from .. import numpy as tnp
from ..errors import OpError, user_location
from ..ir.dtypes import BF16, F16, F32, F64, DType
from ..numpy.promote import (
    ArrayLike,
    Value,
    as_shape,
    broadcast_to,
    convert,
    dtype_argument,
    dtype_of,
    is_concrete,
    to_dtype,
)
from ..trace.core import Array, bind, current_graph
from ..trace.jit import jit
from .gaussian import normal_of
from .threefry import UNSIGNED, bits, in_pieces, split

MANTISSA = {"f16": 10, "bf16": 7, "f32": 23, "f64": 52}


def float_dtype(dtype) -> DType:
    dtype = dtype_argument(dtype)
    if not dtype.is_float:
        raise OpError(f"this distribution needs a float dtype, got {dtype}", user_location())
    return dtype


def number(value: float, dtype: DType) -> Array:
    return Array(np.asarray(value, dtype.numpy))


def limits(dtype: DType):
    return ml_dtypes.finfo(dtype.numpy)


def drawn_dtype(dtype: DType) -> DType:
    """The bits that a uniform number of a type is made of."""
    return UNSIGNED[dtype.bits if MANTISSA[dtype.name] >= 8 else 8]


def unit_of(drawn: Value, dtype: DType) -> Value:
    """Random bits as a number in [0, 1): a random mantissa with the exponent of 1, minus 1."""
    spare = dtype_of(drawn).bits - MANTISSA[dtype.name]
    carrier = UNSIGNED[dtype.bits]
    return with_mantissa(convert(drawn, carrier) >> carrier.numpy.type(spare), dtype)


def with_mantissa(mantissa: Value, dtype: DType) -> Value:
    """The number in [0, 1) that has, plus 1, this mantissa."""
    one = np.ones((), dtype.numpy).view(UNSIGNED[dtype.bits].numpy)
    return bind("stablehlo.bitcast_convert", mantissa | Array(one), dtype=dtype) - 1


_UNITS = {d: jit(lambda drawn, d=d: unit_of(drawn, d)) for d in (F16, BF16, F32, F64)}


def shape_of(shape, *parameters: Value) -> tuple:
    """`shape`, or the one that parameters broadcast to."""
    return tnp.broadcast_shapes(*(p.shape for p in parameters)) if shape is None else as_shape(shape)


def uniform(key: ArrayLike, shape=(), dtype=F32, minval: ArrayLike = 0.0,
            maxval: ArrayLike = 1.0) -> Value:
    """Uniform floats in [minval, maxval)."""
    dtype, shape = float_dtype(dtype), as_shape(shape)
    low, high = to_dtype(minval, dtype), to_dtype(maxval, dtype)
    unit = in_pieces(_UNITS[dtype], bits(key, shape, drawn_dtype(dtype)))
    if _is_number(minval, 0) and _is_number(maxval, 1):
        return unit
    return tnp.maximum(low, fused(unit, high - low, low))


def fused(x: Value, factor: Value, addend: Value) -> Value:
    """x * factor + addend, rounded once, as in a kernel where the two contract.

    Around 0 two roundings are thousands of ULP away. NumPy has no such operation: f32 goes through f64,
    and f64 adds the errors of product and sum (Dekker, 1971; Knuth, TAOCP 4.2.2).
    """
    dtype = dtype_of(x)
    if not (dtype in (F32, F64) and current_graph() is None
            and all(map(is_concrete, (x, factor, addend)))):
        return x * factor + addend
    a, b, c = (np.asarray(v).astype(np.float64) for v in (x, factor, addend))
    with np.errstate(all="ignore"):
        product = a * b
        if dtype is F32:
            return Array((product + c).astype(np.float32))
        (a_high, a_low), (b_high, b_low) = _split(a), _split(b)
        lost = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
        total = product + c
        rest = total - product
        lost += (product - (total - rest)) + (c - rest)
        return Array(total + np.where(np.isfinite(lost), lost, 0))


def _split(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A float of 26 bits and the rest of `x`."""
    high = x * (2.0**27 + 1)
    high = high - (high - x)
    return high, x - high


def _is_number(x, value: float) -> bool:
    return isinstance(x, (int, float)) and x == value


def open_unit(dtype: DType) -> float:
    """The float next to -1, which begins the open interval to 1."""
    return float(np.nextafter(np.array(-1, dtype.numpy), np.array(0, dtype.numpy)))


def normal(key: ArrayLike, shape=(), dtype=F32) -> Value:
    """Standard normal floats; complex ones have a variance of 1, half of it in each part."""
    dtype = dtype_argument(dtype)
    if dtype.kind == "complex":
        keys, part = split(key), np.float32 if dtype.bits == 64 else np.float64
        real, imag = (normal(keys[i], shape, part) for i in range(2))
        return bind("stablehlo.complex", real, imag) / math.sqrt(2)
    dtype = float_dtype(dtype)
    return normal_of(uniform(key, shape, dtype, open_unit(dtype), 1.0))


def truncated_normal(key: ArrayLike, lower: ArrayLike = -2.0, upper: ArrayLike = 2.0, shape=None,
                     dtype=F32) -> Value:
    """Standard normal floats conditioned to lie in (lower, upper)."""
    dtype = float_dtype(dtype)
    low, high = to_dtype(lower, dtype), to_dtype(upper, dtype)
    root = number(math.sqrt(2), dtype)
    drawn = uniform(key, shape_of(shape, low, high), dtype, tnp.erf(low / root), tnp.erf(high / root))
    result = normal_of(drawn)
    return tnp.minimum(tnp.maximum(result, tnp.nextafter(low, math.inf)),
                       tnp.nextafter(high, -math.inf))


def lognormal(key: ArrayLike, sigma: ArrayLike = 1.0, shape=None, dtype=F32) -> Value:
    """exp of normal floats of standard deviation `sigma`."""
    dtype = float_dtype(dtype)
    sigma = to_dtype(sigma, dtype)
    return tnp.exp(normal(key, shape_of(shape, sigma), dtype) * sigma)


def multivariate_normal(key: ArrayLike, mean: ArrayLike, cov: ArrayLike, shape=None, dtype=F32,
                        method: str = "cholesky") -> Value:
    """Vectors of mean `mean` (..., n) and covariance `cov` (..., n, n); `shape` is that of the batch.

    `method` is how the covariance is factorised: cholesky (positive definite only), eigh or svd.
    """
    dtype = float_dtype(dtype)
    mean, cov = to_dtype(mean, dtype), to_dtype(cov, dtype)
    if len(mean.shape) < 1 or cov.shape[-2:] != (mean.shape[-1],) * 2:
        raise OpError(f"multivariate_normal needs a mean of shape (..., n) and a covariance of shape"
                      f" (..., n, n), got {mean.shape} and {cov.shape}", user_location())
    if method not in _FACTORS:
        raise OpError(f"method is one of {', '.join(_FACTORS)}, not {method!r}", user_location())
    batch = (tnp.broadcast_shapes(mean.shape[:-1], cov.shape[:-2]) if shape is None
             else as_shape(shape))
    drawn = normal(key, (*batch, mean.shape[-1]), dtype)
    return mean + tnp.einsum("...ij,...j->...i", _FACTORS[method](cov), drawn)


def _by_eigenvalues(cov: Value) -> Value:
    values, vectors = tnp.linalg.eigh(cov)
    return vectors * tnp.sqrt(values[..., None, :])


def _by_singular_values(cov: Value) -> Value:
    u, s, _ = tnp.linalg.svd(cov)
    return u * tnp.sqrt(s[..., None, :])


_FACTORS = {"cholesky": lambda cov: tnp.linalg.cholesky(cov), "eigh": _by_eigenvalues,
            "svd": _by_singular_values}


def exponential(key: ArrayLike, shape=(), dtype=F32) -> Value:
    """Exponential floats of rate 1."""
    return -tnp.log1p(-uniform(key, shape, float_dtype(dtype)))


def gumbel(key: ArrayLike, shape=(), dtype=F32) -> Value:
    """Standard Gumbel floats."""
    dtype = float_dtype(dtype)
    return -tnp.log(-tnp.log(uniform(key, shape, dtype, float(limits(dtype).tiny), 1.0)))


def cauchy(key: ArrayLike, shape=(), dtype=F32) -> Value:
    """Standard Cauchy floats."""
    dtype = float_dtype(dtype)
    u = uniform(key, shape, dtype, float(limits(dtype).eps), 1.0)
    return tnp.tan(number(math.pi, dtype) * (u - number(0.5, dtype)))


def laplace(key: ArrayLike, shape=(), dtype=F32) -> Value:
    """Standard Laplace floats."""
    dtype = float_dtype(dtype)
    u = uniform(key, shape, dtype, float(limits(dtype).epsneg) - 1, 1.0)
    return tnp.sign(u) * tnp.log1p(-tnp.abs(u))


def logistic(key: ArrayLike, shape=(), dtype=F32) -> Value:
    """Standard logistic floats."""
    dtype = float_dtype(dtype)
    u = uniform(key, shape, dtype, float(limits(dtype).tiny), 1.0)
    return tnp.log(u) - tnp.log1p(-u)


def pareto(key: ArrayLike, b: ArrayLike, shape=None, dtype=F32) -> Value:
    """Pareto floats of shape parameter `b` and scale 1."""
    dtype = float_dtype(dtype)
    b = to_dtype(b, dtype)
    return tnp.exp(exponential(key, shape_of(shape, b), dtype) / b)


def weibull_min(key: ArrayLike, scale: ArrayLike, concentration: ArrayLike, shape=(),
                dtype=F32) -> Value:
    """Weibull floats of scale `scale` and shape parameter `concentration`."""
    dtype = float_dtype(dtype)
    power = 1 / to_dtype(concentration, dtype)
    return tnp.power(exponential(key, shape, dtype), power) * to_dtype(scale, dtype)


def rayleigh(key: ArrayLike, scale: ArrayLike, shape=None, dtype=F32) -> Value:
    """Rayleigh floats of scale `scale`."""
    dtype = float_dtype(dtype)
    scale = to_dtype(scale, dtype)
    return scale * tnp.sqrt(tnp.log(uniform(key, shape_of(shape, scale), dtype)) * -2)


def maxwell(key: ArrayLike, shape=(), dtype=F32) -> Value:
    """Maxwell floats of scale 1: the length of a standard normal vector in three dimensions."""
    drawn = normal(key, (*as_shape(shape), 3), float_dtype(dtype))
    return tnp.sqrt(tnp.sum(drawn * drawn, -1))


def double_sided_maxwell(key: ArrayLike, loc: ArrayLike, scale: ArrayLike, shape=(),
                         dtype=F32) -> Value:
    """Maxwell floats of either sign, times `scale`, plus `loc`."""
    dtype = float_dtype(dtype)
    loc, scale = to_dtype(loc, dtype), to_dtype(scale, dtype)
    shape = as_shape(shape) or tnp.broadcast_shapes(loc.shape, scale.shape)
    keys = split(key)
    return rademacher(keys[1], shape, dtype) * maxwell(keys[0], shape, dtype) * scale + loc


def rademacher(key: ArrayLike, shape=(), dtype="int32") -> Value:
    """-1 or 1, each with probability one half."""
    positive = uniform(key, shape) < 0.5
    return convert(2 * convert(positive, dtype_argument("int32")) - 1, dtype_argument(dtype))


def triangular(key: ArrayLike, left: ArrayLike, mode: ArrayLike, right: ArrayLike, shape=None,
               dtype=F32) -> Value:
    """Triangular floats between `left` and `right`, most of them around `mode`."""
    dtype = float_dtype(dtype)
    left, mode, right = (to_dtype(v, dtype) for v in (left, mode, right))
    u = uniform(key, shape_of(shape, left, mode, right), dtype)
    rising = left + tnp.sqrt(u * (right - left) * (mode - left))
    falling = right - tnp.sqrt((1 - u) * (right - left) * (right - mode))
    return tnp.where(u < (mode - left) / (right - left), rising, falling)


def wald(key: ArrayLike, mean: ArrayLike, shape=None, dtype=F32) -> Value:
    """Inverse Gaussian floats of mean `mean` and scale 1 (Michael, Schucany and Haas, 1976)."""
    dtype = float_dtype(dtype)
    mean = to_dtype(mean, dtype)
    shape, keys = shape_of(shape, mean), split(key)
    mean = broadcast_to(mean, shape)
    y = normal(keys[0], shape, dtype) ** 2
    z = uniform(keys[1], shape, dtype)
    square = mean * mean
    x = mean + square * y / 2 - mean / 2 * tnp.sqrt(4 * mean * y + square * (y * y))
    return tnp.where(z <= mean / (mean + x), x, square / x)


def orthogonal(key: ArrayLike, n: int, shape=(), dtype=F32, m: int | None = None) -> Value:
    """Matrices (n, m) with orthonormal rows or columns, uniform over all of them (Mezzadri, 2007)."""
    m = n if m is None else m
    drawn = normal(key, (*as_shape(shape), max(n, m), min(n, m)), dtype)
    q, r = tnp.linalg.qr(drawn)
    q = q * tnp.sign(tnp.linalg.diagonal(r))[..., None, :]
    return tnp.swapaxes(q, -1, -2) if n < m else q

