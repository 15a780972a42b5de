"""`tfn.random`: reproducible random numbers from explicit keys.

A key is a uint32 array of two words. Bits are Threefry-2x32 of the element's index, so a draw is
elementwise: it fuses with its reader, may be sharded, and element i does not depend on the shape's
other elements. Streams are bit for bit those of JAX (`jax_threefry_partitionable`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from . import numpy as tnp
from .errors import OpError, user_location
from .ir.dims import Dim, Extent
from .ir.dtypes import F32, I32, UI8, UI16, UI32, UI64, DType
from .numpy.promote import (
    ArrayLike,
    Value,
    as_shape,
    asarray,
    broadcast_to,
    convert,
    dtype_argument,
    dtype_of,
    extent_value,
    floating,
    is_concrete,
    to_dtype,
)
from .ops.control import composite
from .ops.random import threefry2x32
from .trace.core import Array, Tracer, bind, current_graph, trace_region
from .trace.grad import stop_gradient

_UNSIGNED: dict[int, DType] = {8: UI8, 16: UI16, 32: UI32, 64: UI64}


def key(seed: int | ArrayLike) -> Value:
    """A key from an integer seed."""
    if isinstance(seed, Tracer):
        low = convert(seed, UI32)
        high = tnp.zeros((), UI32)
        if dtype_of(seed).bits == 64:
            high = convert(seed >> 32, UI32)
        return tnp.stack([high, low])
    seed = int(seed) & 0xFFFFFFFFFFFFFFFF
    if seed >> 32 == 0xFFFFFFFF:
        # Negative seeds are 32-bit numbers, as in JAX without 64-bit types.
        seed &= 0xFFFFFFFF
    return Array(np.array([seed >> 32, seed & 0xFFFFFFFF], np.uint32))


PRNGKey = key


def _words(key: ArrayLike) -> tuple[Value, Value]:
    key = asarray(key)
    if key.shape != (2,) or dtype_of(key) is not UI32:
        raise OpError(f"a random key is a uint32 array of shape (2,), got {key.dtype} of shape"
                      f" {key.shape}; make one with random.key(seed)", user_location())
    return key[0], key[1]


def _counters(shape: tuple[Extent, ...]) -> tuple[Value, Value]:
    """The row-major index of each element as (high, low) words."""
    stride: Extent | Value = 1
    index = None
    wide = all(isinstance(e, int) for e in shape) and math.prod(shape) > 2**32
    dtype = UI64 if wide else UI32
    for d in reversed(range(len(shape))):
        line = tnp.iota(shape, d, dtype)
        if not (isinstance(stride, int) and stride == 1):
            factor = extent_value(stride) if isinstance(stride, Dim) else stride
            line = line * to_dtype(factor, dtype)
        index = line if index is None else index + line
        stride = shape[d] * stride
    if index is None:
        index = tnp.zeros((), dtype)
    if wide:
        return convert(index >> 32, UI32), convert(index, UI32)
    return tnp.zeros(shape, UI32), index


def _block(key: ArrayLike, shape: tuple[Extent, ...]) -> tuple[Value, Value]:
    """Two random words for each element of `shape`."""
    key = asarray(key)
    if is_concrete(key):
        _words(key)
        return _concrete_block(key._data, tuple(e.__index__() for e in shape))
    k0, k1 = _words(key)
    high, low = _counters(shape)
    return threefry2x32(k0, k1, high, low)


# Concrete draws go through NumPy in pieces that stay in the cache: 5 to 10 times faster.
_PIECE = 1 << 15


def _concrete_block(key: np.ndarray, shape: tuple[int, ...]) -> tuple[Array, Array]:
    size = math.prod(shape)
    first, second = np.empty(size, np.uint32), np.empty(size, np.uint32)
    with np.errstate(over="ignore"):
        for start in range(0, size, _PIECE):
            index = np.arange(start, min(start + _PIECE, size), dtype=np.uint64)
            high, low = (index >> np.uint64(32)).astype(np.uint32), index.astype(np.uint32)
            piece = slice(start, start + len(index))
            first[piece], second[piece] = threefry2x32(key[0], key[1], high, low)
    return Array(first.reshape(shape)), Array(second.reshape(shape))


def _in_pieces(function: Callable[[Value], Value], x: Value) -> Value:
    """`function`, which is elementwise, of `x`; a large concrete `x` goes piece by piece."""
    if not is_concrete(x) or x.size <= _PIECE:
        return function(x)
    flat = x._data.reshape(-1)
    pieces = [function(Array(flat[i:i + _PIECE]))._data for i in range(0, flat.size, _PIECE)]
    return Array(np.concatenate(pieces).reshape(x.shape))


def split(key: ArrayLike, num: int = 2) -> Value:
    """`num` new independent keys, shape (num, 2)."""
    return tnp.stack(_block(key, as_shape(num)), -1)


def fold_in(key: ArrayLike, data: int | ArrayLike) -> Value:
    """A new key from `key` and an integer (a step number, say)."""
    k0, k1 = _words(key)
    if not isinstance(data, (Array, Tracer)):
        data = np.uint32(int(data) & 0xFFFFFFFF)
    words = threefry2x32(k0, k1, tnp.zeros((), UI32), convert(asarray(data), UI32))
    return tnp.stack(words)


def bits(key: ArrayLike, shape=(), dtype="uint32") -> Value:
    """Uniform random bits as unsigned integers."""
    dtype = dtype_argument(dtype)
    shape = as_shape(shape)

    def draw(k: Value) -> Value:
        high, low = _block(k, shape)
        if dtype.bits == 64:
            return convert(high, UI64) << np.uint64(32) | convert(low, UI64)
        return convert(high ^ low, dtype)

    return composite("tfn.random_bits", draw, asarray(key), width=dtype.bits)


def _float_dtype(dtype) -> DType:
    dtype = dtype_argument(dtype)
    if not dtype.is_float:
        raise OpError(f"this distribution needs a float dtype, got {dtype}", user_location())
    return dtype


def _unit(key: ArrayLike, shape, dtype: DType) -> Value:
    """Uniform on [0, 1): random mantissa bits with the exponent of 1, minus 1."""
    mantissa = {"f16": 10, "bf16": 7, "f32": 23, "f64": 52}[dtype.name]
    width = dtype.bits if mantissa >= 8 else 8
    carrier = _UNSIGNED[dtype.bits]
    drawn = bits(key, shape, _UNSIGNED[width])
    fraction = convert(drawn, carrier) >> carrier.numpy.type(width - mantissa)
    one = np.ones((), dtype.numpy).view(carrier.numpy)
    return bind("stablehlo.bitcast_convert", fraction | Array(one), dtype=dtype) - 1


def uniform(key: ArrayLike, shape=(), dtype=F32, minval: ArrayLike = 0.0,
            maxval: ArrayLike = 1.0) -> Value:
    """Uniform floats in [minval, maxval)."""
    dtype, shape = _float_dtype(dtype), as_shape(shape)
    low, high = to_dtype(minval, dtype), to_dtype(maxval, dtype)
    unit = _unit(key, shape, dtype)
    if _is_number(minval, 0) and _is_number(maxval, 1):
        return unit
    return tnp.maximum(low, unit * (high - low) + low)


def _is_number(x, value: float) -> bool:
    return isinstance(x, (int, float)) and x == value


def normal(key: ArrayLike, shape=(), dtype=F32) -> Value:
    """Standard normal floats."""
    dtype = _float_dtype(dtype)
    low = np.nextafter(np.array(-1, dtype.numpy), np.array(0, dtype.numpy))
    root = _number(math.sqrt(2), dtype)
    return _in_pieces(lambda u: tnp.erf_inv(u) * root, uniform(key, shape, dtype, low, 1.0))


def _number(value: float, dtype: DType) -> Array:
    return Array(np.asarray(value, dtype.numpy))


def truncated_normal(key: ArrayLike, lower: ArrayLike = -2.0, upper: ArrayLike = 2.0, shape=None,
                     dtype=F32) -> Value:
    """Standard normal floats conditioned to lie in (lower, upper)."""
    dtype = _float_dtype(dtype)
    low, high = to_dtype(lower, dtype), to_dtype(upper, dtype)
    shape = tnp.broadcast_shapes(low.shape, high.shape) if shape is None else as_shape(shape)
    root = _number(math.sqrt(2), dtype)
    drawn = uniform(key, shape, dtype, tnp.erf(low / root), tnp.erf(high / root))
    result = _in_pieces(lambda u: root * tnp.erf_inv(u), drawn)
    return tnp.minimum(tnp.maximum(result, tnp.nextafter(low, math.inf)),
                       tnp.nextafter(high, -math.inf))


def bernoulli(key: ArrayLike, p: ArrayLike = 0.5, shape=None) -> Value:
    """True with probability `p`."""
    p = floating(p)
    shape = p.shape if shape is None else as_shape(shape)
    return uniform(key, shape, dtype_of(p)) < p


def randint(key: ArrayLike, shape, minval: ArrayLike, maxval: ArrayLike, dtype=I32) -> Value:
    """Uniform integers in [minval, maxval)."""
    dtype, shape = dtype_argument(dtype), as_shape(shape)
    if not dtype.is_integer:
        raise OpError(f"randint needs an integer dtype, got {dtype}", user_location())
    unsigned = _UNSIGNED[max(32, dtype.bits)]
    low, high = to_dtype(minval, dtype), to_dtype(maxval, dtype)
    keys = split(key)
    upper, lower = (bits(keys[i], shape, unsigned) for i in range(2))
    span = tnp.where(high <= low, 1, convert(high, unsigned) - convert(low, unsigned))
    # upper * 2**bits + lower, modulo span, without a type twice as wide.
    half = Array(np.asarray(2 ** (unsigned.bits // 2), unsigned.numpy)) % span
    multiplier = half * half % span
    offset = (upper % span * multiplier + lower % span) % span
    return low + convert(offset, dtype)


def gumbel(key: ArrayLike, shape=(), dtype=F32) -> Value:
    """Standard Gumbel floats."""
    dtype = _float_dtype(dtype)
    tiny = float(np.finfo(np.float32 if dtype.name == "bf16" else dtype.numpy).tiny)
    return -tnp.log(-tnp.log(uniform(key, shape, dtype, tiny, 1.0)))


def exponential(key: ArrayLike, shape=(), dtype=F32) -> Value:
    """Exponential floats of rate 1."""
    return -tnp.log1p(-uniform(key, shape, dtype))


def categorical(key: ArrayLike, logits: ArrayLike, axis: int = -1, shape=None) -> Value:
    """Class numbers (i32) with probabilities softmax(logits) along `axis`.

    `shape` ends with the shape of `logits` without `axis`; dims before that are further draws.
    """
    logits = floating(logits)
    axis = axis % len(logits.shape) - len(logits.shape)
    batch = tuple(e for d, e in enumerate(logits.shape) if d - len(logits.shape) != axis)
    shape = batch if shape is None else as_shape(shape)
    extra = shape[:len(shape) - len(batch)]
    if shape[len(extra):] != batch:
        raise OpError(f"categorical: the shape {shape} does not end with {batch}, the shape of the"
                      " logits without the class axis", user_location())
    noise = gumbel(key, extra + logits.shape, dtype_of(logits))
    return tnp.argmax(noise + logits, axis)


def permutation(key: ArrayLike, x: int | ArrayLike, axis: int = 0) -> Value:
    """0 ... x-1 in random order (an int), or `x` with its slices along `axis` in random order."""
    if isinstance(x, (int, np.integer)):
        return _shuffled(key, tnp.arange(int(x)))
    x = asarray(x)
    if len(x.shape) == 1:
        return _shuffled(key, x)
    return tnp.take(x, _shuffled(key, tnp.arange(x.shape[axis])), axis)


shuffle = permutation


def _shuffled(key: ArrayLike, x: Value) -> Value:
    """Sorted by random words, often enough that equal words do not matter."""
    size = x.shape[0]
    if not isinstance(size, int):
        raise OpError(f"cannot shuffle along the symbolic dim `{size}`; fix its size",
                      user_location())
    rounds = math.ceil(3 * math.log(max(1, size)) / math.log(2**32 - 1))
    for _ in range(rounds):
        keys = split(key)
        key = keys[0]
        x = tnp.take(x, tnp.argsort(bits(keys[1], (size,))), 0)
    return x


def choice(key: ArrayLike, x: int | ArrayLike, shape=(), replace: bool = True) -> Value:
    """Uniformly chosen elements of `x` (or of 0 ... x-1)."""
    x = tnp.arange(int(x)) if isinstance(x, (int, np.integer)) else asarray(x)
    shape = as_shape(shape)
    count = math.prod(shape)
    if replace:
        return tnp.take(x, randint(key, shape, 0, x.shape[0]), 0)
    if count > x.shape[0]:
        raise OpError(f"cannot choose {count} of {x.shape[0]} without replacement",
                      user_location())
    return tnp.reshape(permutation(key, x)[:count], shape + x.shape[1:])


def gamma(key: ArrayLike, alpha: ArrayLike, shape=None, dtype=F32) -> Value:
    """Gamma floats of shape parameter `alpha` and rate 1 (Marsaglia and Tsang, 2000).

    Proposals are rejected less than one time in twenty; a loop runs until all are accepted.
    """
    dtype = _float_dtype(dtype)
    alpha = to_dtype(alpha, dtype)
    shape = alpha.shape if shape is None else as_shape(shape)
    alpha = stop_gradient(broadcast_to(alpha, shape))
    keys = split(key, 2)
    # Below 1: gamma(alpha) = gamma(alpha + 1) * u**(1 / alpha).
    small = alpha < 1
    d = tnp.where(small, alpha + 1, alpha) - 1 / 3
    c = 1 / (3 * tnp.sqrt(d))

    def pending(attempt: Value, own: Value, result: Value, found: Value) -> list[Value]:
        return [tnp.logical_not(tnp.all(found))]

    def propose(attempt: Value, own: Value, result: Value, found: Value) -> list[Value]:
        trial = split(fold_in(own, attempt))
        x, u = normal(trial[0], shape, dtype), uniform(trial[1], shape, dtype)
        v = (1 + c * x) ** 3
        safe = tnp.where(v > 0, v, 1)
        accept = (v > 0) & (tnp.log(u) < 0.5 * x * x + d - d * safe + d * tnp.log(safe))
        result = tnp.where(found | ~accept, result, d * safe)
        return [attempt + 1, own, result, found | accept]

    start = [Array(np.zeros((), np.int32)), keys[0], d, broadcast_to(False, shape)]
    _, _, result, _ = _while(pending, propose, start)
    boost = tnp.exp(tnp.log1p(-uniform(keys[1], shape, dtype)) / alpha)
    return tnp.where(small, result * boost, result)


def _while(condition: Callable[..., list[Value]], body: Callable[..., list[Value]],
           state: list[Value]) -> list[Value]:
    """Run `body` on the state while `condition` holds: at once, or as a recorded loop."""
    if current_graph() is None:
        while condition(*state)[0]:
            state = body(*state)
        return state
    types = [s.type for s in state]
    return bind("stablehlo.while", *state,
                regions=[trace_region(condition, types), trace_region(body, types)])


def beta(key: ArrayLike, a: ArrayLike, b: ArrayLike, shape=None, dtype=F32) -> Value:
    """Beta floats with parameters `a` and `b`."""
    keys = split(key)
    a, b = asarray(a), asarray(b)
    shape = tnp.broadcast_shapes(a.shape, b.shape) if shape is None else as_shape(shape)
    x = gamma(keys[0], a, shape, dtype)
    return x / (x + gamma(keys[1], b, shape, dtype))


def binomial(key: ArrayLike, n: ArrayLike, p: ArrayLike, shape=None, dtype=F32) -> Value:
    """The number of successes in `n` trials (concrete) of probability `p`, as floats."""
    dtype = _float_dtype(dtype)
    limit = _most_trials(n)
    n, p = to_dtype(n, dtype), to_dtype(p, dtype)
    shape = tnp.broadcast_shapes(n.shape, p.shape) if shape is None else as_shape(shape)
    trial = tnp.iota((limit, *shape), 0, dtype)
    success = (uniform(key, (limit, *shape), dtype) < p) & (trial < n)
    return tnp.sum(convert(success, dtype), 0)


def _most_trials(count: ArrayLike) -> int:
    """The largest concrete count of trials, which bounds a loop over them."""
    count = asarray(count)
    if isinstance(count, Tracer):
        raise OpError("binomial needs a concrete number of trials", user_location())
    return int(np.max(count._data, initial=0))


def dropout_mask(key: ArrayLike, keep: float, shape: Sequence[Extent]) -> Value:
    """True for the elements dropout keeps, each with probability `keep`."""
    return uniform(key, shape) < keep
