"""Keys and random bits: Threefry-2x32 of the element's index.

Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). Streams are bit for bit
those of JAX (`jax_threefry_partitionable`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from .. import numpy as tnp
from ..errors import OpError, user_location
from ..ir.dims import Dim, Extent
from ..ir.dtypes import UI8, UI16, UI32, UI64, DType
from ..numpy.promote import (
    ArrayLike,
    Value,
    as_shape,
    asarray,
    convert,
    dtype_argument,
    dtype_of,
    extent_value,
    is_concrete,
    to_dtype,
)
from ..ops.control import composite
from ..ops.random import threefry2x32
from ..trace.core import Array, Tracer, current_graph
from ..trace.jit import jit

UNSIGNED: dict[int, DType] = {8: UI8, 16: UI16, 32: UI32, 64: UI64}


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


# A large concrete draw is made by compiled programs of this many elements: one program serves every
# shape, and is 10 times as fast as NumPy. A program for a small draw would not pay for its compilation.
PIECE = 1 << 17


# A loop that runs until every element has accepted is 100 times as slow in NumPy.
LOOP_PIECE = 1 << 14


def is_large(x: Value, size: Extent, piece: int = PIECE) -> bool:
    """Whether a draw of `size` elements from the key or numbers `x` goes through compiled pieces."""
    return (is_concrete(x) and current_graph() is None and isinstance(size, int) and size >= piece)


@jit
def _piece(key: Value, high: Value, low: Value) -> tuple[Value, Value]:
    # A piece does not straddle two high words: its length divides 2**32.
    index = tnp.iota((PIECE,), 0, UI32) + low
    return threefry2x32(key[0], key[1], tnp.zeros((PIECE,), UI32) + high, index)


def _concrete_block(key: np.ndarray, shape: tuple[int, ...]) -> tuple[Array, Array]:
    size = math.prod(shape)
    if is_large(Array(key), size):
        words = np.empty((2, size), np.uint32)
        for start in range(0, size, PIECE):
            drawn = _piece(Array(key), np.uint32(start >> 32), np.uint32(start & 0xFFFFFFFF))
            for line, word in zip(words, drawn, strict=True):
                line[start:start + PIECE] = np.asarray(word)[:size - start]
    else:
        index = np.arange(size, dtype=np.uint64)
        with np.errstate(over="ignore"):
            words = threefry2x32(key[0], key[1], (index >> np.uint64(32)).astype(np.uint32),
                                 index.astype(np.uint32))
    return Array(words[0].reshape(shape)), Array(words[1].reshape(shape))


def in_pieces(function: Callable[..., Value], *xs: Value, shared: Sequence[Value] = (),
              piece: int = PIECE) -> Value:
    """`function(*shared, *xs)`, which is jitted and elementwise in `xs`: results may have further dims.

    Large concrete arrays go piece by piece, the last one filled up with its last element.
    """
    size = xs[0].size
    if not all(is_large(x, size, piece) for x in (*shared, *xs)):
        return function.function(*shared, *xs)  # type: ignore[attr-defined]
    whole = np.empty(0)
    for start in range(0, size, piece):
        parts = [x._data.reshape(-1)[start:start + piece] for x in xs]
        missing = piece - len(parts[0])
        if missing:
            parts = [np.pad(p, (0, missing), "edge") for p in parts]
        found = np.asarray(function(*shared, *parts))
        if start == 0:
            whole = np.empty((size, *found.shape[1:]), found.dtype)
        whole[start:start + piece] = found[:size - start]
    return Array(whole.reshape(*xs[0].shape, *whole.shape[1:]))


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
        return _joined(*_block(k, shape), dtype)

    key = asarray(key)
    size = math.prod(shape)
    if is_large(key, size):
        # A program for each of four sizes an octave: XOR fuses with the rounds, 20 times as fast.
        step = 1 << (int(size).bit_length() - 3)
        drawn = np.asarray(_flat_bits(key, -(-size // step) * step, dtype))
        return Array(drawn[:size].reshape(shape))
    return composite("tfn.random_bits", draw, key, width=dtype.bits)


def _flat(key: Value, size: int, dtype: DType) -> Value:
    return _joined(*_block(key, (size,)), dtype)


_flat_bits = jit(_flat, static_argnums=(1, 2))


def _joined(high: Value, low: Value, dtype: DType) -> Value:
    if dtype.bits == 64:
        return convert(high, UI64) << np.uint64(32) | convert(low, UI64)
    return convert(high ^ low, dtype)


class Lanes:
    """A key for each element of an array, for samplers that take as many draws as an element needs."""

    def __init__(self, first: Value, second: Value):
        self.words = first, second

    @classmethod
    def of(cls, key: ArrayLike, shape: tuple[Extent, ...]) -> Lanes:
        """What `split(key, number of elements)` gives, in the shape."""
        return cls(*_block(key, shape))

    def _block(self, index: int) -> tuple[Value, Value]:
        zero = tnp.zeros(self.words[0].shape, UI32)
        return threefry2x32(self.words[0], self.words[1], zero, zero + np.uint32(index))

    def split(self, num: int) -> list[Lanes]:
        """`num` new keys for each element."""
        return [Lanes(*self._block(i)) for i in range(num)]

    def bits(self, dtype: DType) -> Value:
        """One draw of bits for each element."""
        high, low = self._block(0)
        return _joined(high, low, dtype)

    def where(self, condition: Value, other: Lanes) -> Lanes:
        """Own keys where the condition holds, else the other's."""
        return Lanes(*(tnp.where(condition, a, b)
                       for a, b in zip(self.words, other.words, strict=True)))
