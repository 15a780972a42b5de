"""Philox4x32-10 streams: bit for bit those of TensorFlow's `alg="philox"`.

A key is a uint64 array of three words: the key of the cipher and a counter of 128 bits, its low half
first. `key([a, b])` is what `tf.random.stateless_*` makes of the seed `[a, b]`; a draw starts at the
counter and does not move it. Rows of four words are numbered by the counter, so element i does not
depend on the shape's other elements.

Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
"""

from __future__ import annotations

import math

import numpy as np

from .. import numpy as tnp
from ..errors import OpError, user_location
from ..ir.core import TensorType
from ..ir.dtypes import F32, F64, I32, UI32, UI64, DType
from ..numpy.promote import (
    ArrayLike,
    Value,
    as_shape,
    asarray,
    broadcast_shapes,
    broadcast_to,
    convert,
    dtype_argument,
    dtype_of,
    to_dtype,
)
from ..ops.random import philox4x32
from ..trace.core import bind
from ..trace.jit import jit
from .continuous import MANTISSA, float_dtype, number, with_mantissa
from .rejection import binomial_proposals, loop
from .threefry import LOOP_PIECE, PIECE, UNSIGNED, in_pieces, is_large

# What scrambles a seed: the key of one block whose counter is the seed.
_SCRAMBLE = (0x3EC8F720, 0x02461E29)

# The counters that an element of a draw of unknown length may take.
_RESERVED = 256


def key(seed: ArrayLike) -> Value:
    """The key of `tf.random.stateless_*(seed=seed, alg="philox")`.

    `seed` is two integers; the result is a uint64 array (3,): key, 0, high half of the counter.
    """
    seed = asarray(seed)
    if seed.shape != (2,) or not dtype_of(seed).is_integer:
        raise OpError(f"the seed of a Philox key is two integers, got {seed.dtype} of shape"
                      f" {seed.shape}; write [seed, 0] for one", user_location())
    seed = convert(seed, UI64)
    counter = [w for half in (seed[0], seed[1]) for w in _halves(half)]
    words = philox4x32([number(k, UI32) for k in _SCRAMBLE], counter)
    return tnp.stack([_whole(*words[:2]), number(0, UI64), _whole(*words[2:])])


def _halves(x: Value) -> list[Value]:
    return [convert(x, UI32), convert(x >> np.uint64(32), UI32)]


def _whole(low: Value, high: Value) -> Value:
    return convert(high, UI64) << np.uint64(32) | convert(low, UI64)


def _key(key: ArrayLike) -> Value:
    key = asarray(key)
    if key.shape != (3,) or dtype_of(key) is not UI64:
        raise OpError(f"a Philox key is a uint64 array of shape (3,), got {key.dtype} of shape"
                      f" {key.shape}; make one with random.philox.key([a, b])", user_location())
    return key


def skipped(key: ArrayLike, count: ArrayLike) -> Value:
    """The key after `count` counters."""
    key = _key(key)
    low = key[1] + convert(asarray(count), UI64)
    return tnp.stack([key[0], low, key[2] + convert(low < key[1], UI64)])


# -- words ----------------------------------------------------------------------------------------

def _generate(key: Value, count: int, dtype: DType) -> list[Value]:
    return bind("stablehlo.rng_bit_generator", key, rng_algorithm="PHILOX",
                type=TensorType((count,), dtype))


def _words(key: ArrayLike, count: int, dtype: DType) -> Value:
    """`count` words of 32 or 64 bits from the key's counter on."""
    key = _key(key)
    if not is_large(key, count):
        return _generate(key, count, dtype)[1]
    pieces = []
    for _ in range(-(-count // PIECE)):
        key, words = _PIECES[dtype.bits](key)
        pieces.append(np.asarray(words))
    return asarray(np.concatenate(pieces)[:count])


# One program a word size, for pieces of large concrete draws.
_PIECES = {d.bits: jit(lambda key, d=d: _generate(key, PIECE, d)) for d in (UI32, UI64)}


def _size(shape: tuple) -> int:
    if not all(isinstance(e, int) for e in shape):
        raise OpError(f"a Philox draw needs a fixed shape, got {shape}; draw from a Threefry key for a"
                      " symbolic one", user_location())
    return math.prod(shape)


def bits(key: ArrayLike, shape=(), dtype="uint32") -> Value:
    """Uniform integers over all of a 32- or 64-bit `dtype` (TensorFlow: `minval=maxval=None`)."""
    dtype, shape = _integer(dtype), as_shape(shape)
    words = _words(key, _size(shape), UNSIGNED[dtype.bits])
    if dtype.kind == "int":
        words = bind("stablehlo.bitcast_convert", words, dtype=dtype)
    return tnp.reshape(words, shape)


def _integer(dtype) -> DType:
    dtype = dtype_argument(dtype)
    if not dtype.is_integer or dtype.bits not in (32, 64):
        raise OpError(f"a Philox draw of integers makes int32, int64, uint32 or uint64, not {dtype}",
                      user_location())
    return dtype


def randint(key: ArrayLike, shape, minval: ArrayLike, maxval: ArrayLike, dtype=I32) -> Value:
    """Integers in [minval, maxval): a word modulo the span, as `tf.random.stateless_uniform`."""
    dtype = _integer(dtype)
    unsigned = UNSIGNED[dtype.bits]
    low, high = to_dtype(minval, dtype), to_dtype(maxval, dtype)
    span = convert(high, unsigned) - convert(low, unsigned)
    return low + convert(bits(key, shape, unsigned) % span, dtype)


# -- floats ---------------------------------------------------------------------------------------

def _fraction(words: Value, dtype: DType) -> Value:
    """Words as floats in [0, 1), by their low bits: of f64, the first u32 has the high part."""
    if dtype is F64:
        mantissa = (words & np.uint64(0xFFFFF)) << np.uint64(32) | words >> np.uint64(32)
    else:
        mantissa = convert(words & np.uint32(2**MANTISSA[dtype.name] - 1), UNSIGNED[dtype.bits])
    return with_mantissa(mantissa, dtype)


def uniform(key: ArrayLike, shape=(), dtype=F32, minval: ArrayLike = 0.0,
            maxval: ArrayLike = 1.0) -> Value:
    """Floats in [minval, maxval), as `tf.random.stateless_uniform`."""
    dtype, shape = float_dtype(dtype), as_shape(shape)
    words = _words(key, _size(shape), UI64 if dtype is F64 else UI32)
    unit = tnp.reshape(_fraction(words, dtype), shape)
    if isinstance(minval, (int, float)) and isinstance(maxval, (int, float)) and (
            minval, maxval) == (0, 1):
        return unit
    low, high = to_dtype(minval, dtype), to_dtype(maxval, dtype)
    return unit * (high - low) + low


def _gauss(first: Value, second: Value, kind: DType) -> tuple[Value, Value]:
    """Two independent normal floats from two words (Box and Muller, 1958)."""
    u, v = _fraction(first, kind), _fraction(second, kind)
    # TensorFlow multiplies by a double 2 pi and rounds the angle, for floats too. The rest in doubles
    # keeps floats within 2 ULP of its own, whatever libm that has.
    angle = convert(convert(convert(v, F64) * (2 * math.pi), kind), F64)
    least = convert(tnp.maximum(u, number(1e-7, kind)), F64)
    radius = tnp.sqrt(-2 * tnp.log(least))
    return convert(tnp.sin(angle) * radius, kind), convert(tnp.cos(angle) * radius, kind)


def _wide(dtype: DType) -> tuple[DType, DType]:
    """The type that normal floats of `dtype` are made in, and that of their words."""
    return (F64, UI64) if dtype is F64 else (F32, UI32)


def _pairs(words: Value, kind: DType) -> Value:
    """Normal floats from words (2n,)."""
    words = tnp.reshape(words, (-1, 2))
    return tnp.reshape(tnp.stack(_gauss(words[:, 0], words[:, 1], kind), -1), (-1,))


_PAIRS = {kind: jit(lambda words, kind=kind: _pairs(words, kind)) for kind in (F32, F64)}


def normal(key: ArrayLike, shape=(), dtype=F32) -> Value:
    """Standard normal floats, as `tf.random.stateless_normal`: to rounding of log, sin and cos."""
    dtype, shape = float_dtype(dtype), as_shape(shape)
    size = _size(shape)
    kind, word = _wide(dtype)
    words = _words(key, size + size % 2, word)
    drawn = in_pieces(_PAIRS[kind], words)
    return convert(tnp.reshape(drawn[:size], shape), dtype)


def truncated_normal(key: ArrayLike, shape=(), dtype=F32) -> Value:
    """Standard normal floats of magnitude below 2, as `tf.random.stateless_truncated_normal`.

    Rows of four floats (two of f64) take normal floats, from counters of their own, until they are
    full.
    """
    dtype, shape = float_dtype(dtype), as_shape(shape)
    size, (kind, _) = _size(shape), _wide(dtype)
    width = 2 if kind is F64 else 4
    rows = -(-size // width)
    first = tnp.iota((rows,), 0, UI64) * np.uint64(width * _RESERVED // 4)
    kept = in_pieces(_ROWS[kind], first, shared=[_key(key)], piece=LOOP_PIECE)
    return convert(tnp.reshape(tnp.reshape(kept, (-1,))[:size], shape), dtype)


def _rows(own: Value, first: Value, kind: DType, width: int) -> Value:
    """The first `width` normal floats of magnitude below 2 from each of the counters `first` on."""
    place, shape = tnp.arange(width)[None, :], (first.shape[0],)

    def more(block: Value, count: Value, kept: Value) -> list[Value]:
        words = _blocks(own, first + block)
        if kind is F64:
            words = [_whole(words[0], words[1]), _whole(words[2], words[3])]
        drawn = [x for i in range(0, len(words), 2) for x in _gauss(words[i], words[i + 1], kind)]
        for x in drawn:
            fits = (tnp.abs(x) < 2) & (count < width)
            kept = tnp.where((place == count[:, None]) & fits[:, None], x[:, None], kept)
            count = count + convert(fits, I32)
        return [block + np.uint64(1), count, kept]

    start = [number(0, UI64), tnp.zeros(shape, I32), tnp.zeros((*shape, width), kind)]
    return loop(lambda block, count, kept: tnp.any(count < width), more, start)[2]


_ROWS = {kind: jit(lambda own, first, kind=kind, width=width: _rows(own, first, kind, width))
         for kind, width in ((F32, 4), (F64, 2))}


def _blocks(key: Value, offset: Value) -> list[Value]:
    """Four words for each counter that is `offset` after the key's."""
    low = offset + key[1]
    high = key[2] + convert(low < key[1], UI64)
    words = [broadcast_to(w, offset.shape) for w in _halves(key[0])]
    return philox4x32(words, [*_halves(low), *_halves(high)])


# -- counts ---------------------------------------------------------------------------------------

def binomial(key: ArrayLike, n: ArrayLike, p: ArrayLike, shape=None, dtype=I32) -> Value:
    """The number of successes in `n` trials of probability `p`, as `tf.random.stateless_binomial`.

    `shape` ends with the shape that `n` and `p` broadcast to; dims before that are further draws.
    """
    dtype, p = dtype_argument(dtype), asarray(p)
    if not dtype_of(p).is_float:
        raise OpError(f"binomial needs a float probability, got {p.dtype}", user_location())
    n = to_dtype(n, dtype_of(p))
    batch = broadcast_shapes(n.shape, p.shape)
    shape = batch if shape is None else as_shape(shape)
    extra = shape[:len(shape) - len(batch)]
    if shape[len(extra):] != batch:
        raise OpError(f"binomial: the shape {shape} does not end with {batch}, the shape of n and p",
                      user_location())
    samples, batches = _size(extra), _size(batch)
    # Draws are numbered with the further ones last.
    number_of = tnp.reshape(tnp.arange(batches)[None, :] * samples + tnp.arange(samples)[:, None],
                            shape)
    n, p = broadcast_to(n, shape), broadcast_to(p, shape)
    q = tnp.where(p > 0.5, 1 - p, p)
    many = n * q >= 10
    own, offset = _key(key), convert(number_of, UI64)
    certain = (n <= 0) | (p <= 0) | (p >= 1) | tnp.isnan(p)
    count, q = convert(n, F64), convert(q, F64)
    few = certain | ~many
    steps = in_pieces(_by_steps, offset * np.uint64(42), tnp.where(certain | many, 0, count),
                      tnp.where(certain | many, 0.5, q), shared=[own], piece=LOOP_PIECE)
    rejected = in_pieces(_by_rejection, offset * np.uint64(_RESERVED), tnp.where(few, 1e4, count),
                         tnp.where(few, 0.5, q), shared=[own], piece=LOOP_PIECE)
    found = tnp.where(many, rejected, steps)
    found = tnp.where(p > 0.5, count - found, found)
    found = tnp.where(certain, tnp.where(p >= 1, count, 0), found)
    found = tnp.where((n <= 0) | (p <= 0), 0, found)
    return convert(tnp.where(tnp.isnan(p), np.nan, found), dtype)


def _two_units(own: Value, counter: Value) -> tuple[Value, Value]:
    """Two f64 in [0, 1) of a block; TensorFlow takes the second one first."""
    words = _blocks(own, counter)
    second, first = (_fraction(_whole(*w), F64) for w in (words[:2], words[2:]))
    return first, second


@jit
def _by_steps(own: Value, offset: Value, n: Value, q: Value) -> Value:
    """Geometric steps until they exceed `n` (Devroye, 1986)."""
    scale = tnp.log1p(-q)

    def more(block, place, count):
        for u in _two_units(own, offset + block):
            place = place + tnp.ceil(tnp.log(u) / scale)
            count = tnp.where(place <= n, count + 1, count)
        return [block + np.uint64(1), place, count]

    zero = tnp.zeros(n.shape, F64)
    return loop(lambda block, place, count: tnp.any(place <= n), more,
                [number(0, UI64), zero, zero])[2]


@jit
def _by_rejection(own: Value, offset: Value, n: Value, q: Value) -> Value:
    """Transformed rejection (BTRS; Hörmann, 1993)."""
    propose = binomial_proposals(n, q)

    def more(block, found, accepted):
        u, v = _two_units(own, offset + block)
        k, accept = propose(u, v)
        return [block + np.uint64(1), tnp.where(accept & ~accepted, k, found), accepted | accept]

    return loop(lambda block, found, accepted: ~tnp.all(accepted), more,
                [number(0, UI64), tnp.full(n.shape, -1, F64), tnp.zeros(n.shape, bool)])[1]


# -- seeds ----------------------------------------------------------------------------------------

def split(seed: ArrayLike, num: int = 2) -> Value:
    """`num` new seeds (num, 2) from one, as `tf.random.split(seed, num, alg="philox")`."""
    seed = asarray(seed)
    return bits(key(seed), (num, 2), dtype_of(seed))


def fold_in(seed: ArrayLike, data: ArrayLike) -> Value:
    """A new seed from one and an integer, as `tf.random.fold_in(seed, data, alg="philox")`."""
    data = asarray(data)
    return tnp.stack([bits(key(seed), (), dtype_of(data)), data])
