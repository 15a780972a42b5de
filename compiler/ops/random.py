"""Random bits: rng_bit_generator, and the Threefry-2x32 and Philox4x32-10 functions as IR ops.

`tfn.random` draws from `threefry2x32` on counters, which is elementwise: it fuses with what uses the
bits and is sharded by sharding the counters. `rng_bit_generator` serves programs from elsewhere.
"""

from __future__ import annotations

import numpy as np

from ..errors import OpError, UnsupportedError
from ..ir.core import TensorType
from ..ir.dtypes import UI32, UI64
from ..trace.core import bind, iota_beside
from .declare import Factors, OpDefinition, op, require

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA


def threefry2x32(key0, key1, x0, x1):
    """Threefry-2x32, 20 rounds (Salmon et al., SC 2011), on uint32 NumPy arrays or traced values."""
    keys = (key0, key1, key0 ^ key1 ^ np.uint32(PARITY))
    x0, x1 = x0 + keys[0], x1 + keys[1]
    for group in range(5):
        for rotation in ROTATIONS[group % 2]:
            x0 = x0 + x1
            x1 = (x1 << np.uint32(rotation)) | (x1 >> np.uint32(32 - rotation))
            x1 = x1 ^ x0
        x0 = x0 + keys[(group + 1) % 3]
        x1 = x1 + keys[(group + 2) % 3] + np.uint32(group + 1)
    return x0, x1


def _word(state, i: int):
    return bind("stablehlo.slice", state, start_indices=(i,), limit_indices=(i + 1,), strides=(1,))


def _halves(x):
    """The low and high 32 bits of ui64."""
    shift = bind("stablehlo.broadcast_in_dim", np.uint64(32), shape=x.shape, broadcast_dimensions=())
    high = bind("stablehlo.shift_right_logical", x, shift)
    return [bind("stablehlo.convert", v, dtype=UI32) for v in (x, high)]


def _joined(low, high):
    """ui64 from its halves."""
    low, high = (bind("stablehlo.convert", v, dtype=UI64) for v in (low, high))
    shift = bind("stablehlo.broadcast_in_dim", np.uint64(32), shape=high.shape,
                 broadcast_dimensions=())
    return bind("stablehlo.or", low, bind("stablehlo.shift_left", high, shift))


def _spread(x, count: int):
    return bind("stablehlo.broadcast_in_dim", x, shape=(count,), broadcast_dimensions=(0,))


def _counters(state, count: int):
    place = iota_beside(state, TensorType((count,), UI64), 0)
    return bind("stablehlo.add", _spread(_word(state, 1), count), place)


def _threefry(state, shape: tuple[int, ...], bits: int):
    """Words and how many counters they took: two u32 or one u64 each.

    As XLA: the two u32 of a counter are neighbours along the first even dim (else the longest).
    """
    split = next((d for d, n in enumerate(shape) if n % 2 == 0),
                 max(range(len(shape)), key=shape.__getitem__, default=0))
    half = [(n + 1) // 2 if d == split else n for d, n in enumerate(shape or (1,))]
    size = int(np.prod(shape, dtype=np.int64))
    count = size if bits == 64 else int(np.prod(half, dtype=np.int64))
    key = [_spread(k, count) for k in _halves(_word(state, 0))]
    low, high = threefry2x32(*key, *_halves(_counters(state, count)))
    if bits == 64:
        return _joined(low, high), count
    paired = [*half[:split + 1], 1, *half[split + 1:]]
    both = bind("stablehlo.concatenate", *(bind("stablehlo.reshape", w, shape=tuple(paired))
                                           for w in (low, high)), dimension=split + 1)
    half[split] *= 2
    whole = bind("stablehlo.reshape", both, shape=tuple(half))
    cut = bind("stablehlo.slice", whole, start_indices=(0,) * len(half),
               limit_indices=tuple(shape or (1,)), strides=(1,) * len(half))
    return bind("stablehlo.reshape", cut, shape=(size,)), count


_PHILOX_FACTORS = (0xD2511F53, 0xCD9E8D57)
_PHILOX_STEPS = (0x9E3779B9, 0xBB67AE85)


def philox4x32(key, counter):
    """Philox4x32-10 (Salmon et al., SC 2011): four uint32 words from four, under a key of two.

    `key` and `counter` are lists of arrays or traced values, all of one shape.
    """
    x, shape = list(counter), counter[0].shape

    def full(value):
        return bind("stablehlo.broadcast_in_dim", np.uint32(value), shape=shape,
                    broadcast_dimensions=())

    for step in range(10):
        high = [bind("chlo.mulhi", x[2 * i], full(f)) for i, f in enumerate(_PHILOX_FACTORS)]
        low = [bind("stablehlo.multiply", x[2 * i], full(f)) for i, f in enumerate(_PHILOX_FACTORS)]
        round_key = [bind("stablehlo.add", k, full(step * s % 2**32))
                     for k, s in zip(key, _PHILOX_STEPS, strict=True)]
        mixed = [bind("stablehlo.xor", bind("stablehlo.xor", high[1 - i], x[2 * i + 1]), round_key[i])
                 for i in range(2)]
        x = [mixed[0], low[1], mixed[1], low[0]]
    return x


def _carried(upper, low, before):
    """`upper` + 1 where the 64 bits below it have wrapped round: `low` is less than `before`."""
    wrapped = bind("stablehlo.compare", low, before, comparison_direction="LT")
    return bind("stablehlo.add", upper, bind("stablehlo.convert", wrapped, dtype=UI64))


def _philox(state, size: int, bits: int):
    """Philox words: four u32 or two u64 for each counter."""
    count = -(-size // (4 if bits == 32 else 2))
    key = [_spread(k, count) for k in _halves(_word(state, 0))]
    counters = _counters(state, count)
    # As XLA: a state of two words counts in the lower half only, and the key is the upper one.
    upper = _spread(_word(state, 2 if state.shape[0] == 3 else 0), count)
    upper = _carried(upper, counters, _spread(_word(state, 1), count))
    x = philox4x32(key, [*_halves(counters), *_halves(upper)])
    words = x if bits == 32 else [_joined(x[0], x[1]), _joined(x[2], x[3])]
    columns = [bind("stablehlo.reshape", w, shape=(count, 1)) for w in words]
    table = bind("stablehlo.concatenate", *columns, dimension=1)
    return bind("stablehlo.reshape", table, shape=(count * len(words),)), count


_UNSEEDED = np.random.default_rng()


@op("stablehlo.rng")
class Rng(OpDefinition):
    """Numbers from a source without a state in the program: other ones each time.

    Uniform ones are in [a, b), normal ones have mean a and standard deviation b. `tfn.random` is what
    reproducible programs use.
    """

    host = True
    has_effect = True
    attributes = {"rng_distribution": "rng_distribution", "type": "result_type"}

    def infer(operands, attributes, regions):
        a, b, shape = operands
        type, normal = attributes["type"], attributes["rng_distribution"] == "NORMAL"
        require(a == b and a.rank == 0 and a.dtype is type.dtype, "C1",
                f"the parameters of rng are scalars of its type {type.dtype}, not {a} and {b}")
        require(not normal or a.dtype.is_float, "C2", f"normal numbers are floats, not {a.dtype}")
        require(shape.dtype.is_integer and tuple(shape.shape) == (type.rank,), "C3",
                f"the shape of rng is a vector of {type.rank} integers, not {shape}")
        return [type]

    def evaluate(operands, attributes, regions, result_types):
        (a, b, shape), (type,) = operands, result_types
        if tuple(shape) != tuple(type.shape):
            raise OpError(f"rng is asked for the shape {tuple(shape)} and declared as {type}")
        if attributes["rng_distribution"] == "NORMAL":
            draw = _UNSEEDED.standard_normal(type.shape) * float(b) + float(a)
        elif type.dtype.is_float:
            draw = _UNSEEDED.random(type.shape) * (float(b) - float(a)) + float(a)
            # Rounding to the type must not reach b.
            highest = np.nextafter(np.asarray(b), np.asarray(a))
            return [np.minimum(draw.astype(type.dtype.numpy), highest)]
        elif type.dtype.kind == "bool":
            draw = _UNSEEDED.integers(0, 2, type.shape) == 1
        else:
            wide = np.uint64 if type.dtype.kind == "uint" else np.int64
            draw = _UNSEEDED.integers(int(a), max(int(b), int(a) + 1), type.shape, wide)
        return [draw.astype(type.dtype.numpy)]

    def vjp(cotangents, op, operands, results):
        return [None, None, None]

    def batch(op, operands, batched, batch):
        return batch.each(op, operands, batched)

    def factors(op):
        return Factors([(), (), (None,)], [(None,) * len(r.shape) for r in op.results])


@op("stablehlo.rng_bit_generator")
class RngBitGenerator(OpDefinition):
    """Uniform random bits from a state; returns the new state and the bits."""

    attributes = {"rng_algorithm": "rng_algorithm", "type": "result_type"}

    def infer(operands, attributes, regions):
        state, type = operands[0], attributes["type"]
        require(type.dtype.is_integer, "C3", f"rng_bit_generator makes integers, not {type}")
        sizes = (2, 3) if attributes["rng_algorithm"] == "PHILOX" else (2,)
        require(state.dtype is UI64 and tuple(state.shape) in {(n,) for n in sizes}, "C1",
                f"the state of rng_bit_generator is a vector of {' or '.join(map(str, sizes))} ui64,"
                f" got {state}")
        return [state, type]

    def decompose(operands, attributes, regions):
        (state,), type = operands, attributes["type"]
        if type.dtype.bits not in (32, 64) or not type.is_static:
            raise UnsupportedError(f"rng_bit_generator of {type} is not supported; make ui32 or ui64"
                                   " of a fixed shape")
        size = int(np.prod(type.shape, dtype=np.int64))
        if attributes["rng_algorithm"] == "PHILOX":
            words, blocks = _philox(state, size, type.dtype.bits)
        else:
            words, blocks = _threefry(state, tuple(type.shape), type.dtype.bits)
        flat = bind("stablehlo.slice", words, start_indices=(0,), limit_indices=(size,), strides=(1,))
        bits = bind("stablehlo.reshape", flat, shape=tuple(type.shape))
        if type.dtype.kind == "int":
            bits = bind("stablehlo.bitcast_convert", bits, dtype=type.dtype)
        grown = bind("stablehlo.add", _word(state, 1), np.uint64([blocks]))
        parts = [_word(state, 0), grown]
        if state.shape[0] == 3:
            parts.append(_carried(_word(state, 2), grown, _word(state, 1)))
        return [bind("stablehlo.concatenate", *parts, dimension=0), bits]

    def vjp(cotangents, op, operands, results):
        return [None]

    def batch(op, operands, batched, batch):
        return batch.each(op, operands, batched)

    def factors(op):
        return Factors([(None,)], [(None,) * len(r.shape) for r in op.results])


