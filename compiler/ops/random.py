"""Random bits: rng_bit_generator (Threefry-2x32), and the Threefry block function as IR ops.

`tfn.random` draws from `threefry2x32` on counters, which is elementwise: it fuses with what uses the
bits and is sharded by sharding the counters. `rng_bit_generator` serves programs from elsewhere.
"""

from __future__ import annotations

import numpy as np

from ..errors import UnsupportedError
from ..ir.dtypes import UI64
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


@op("stablehlo.rng_bit_generator")
class RngBitGenerator(OpDefinition):
    """Uniform random bits from a state; returns the new state and the bits."""

    attributes = {"rng_algorithm": "rng_algorithm", "type": "result_type"}

    def infer(operands, attributes, regions):
        state, type = operands[0], attributes["type"]
        require(type.dtype.is_integer, "C3", f"rng_bit_generator makes integers, not {type}")
        require(state.rank == 1 and state.dtype is UI64, "C1",
                f"the state of rng_bit_generator is tensor<2xui64>, got {state}")
        return [state, type]

    def evaluate(operands, attributes, regions, result_types):
        algorithm = attributes["rng_algorithm"]
        if algorithm not in ("THREE_FRY", "DEFAULT"):
            raise UnsupportedError(f"rng_bit_generator with {algorithm} is not supported yet")
        (state,), type = operands, result_types[1]
        if type.dtype.bits != 32:
            raise UnsupportedError(f"rng_bit_generator for {type.dtype} is not supported yet")
        size = int(np.prod(type.shape, dtype=np.int64))
        half = (size + 1) // 2
        key, counter = state[0], state[1] + np.arange(half, dtype=np.uint64)
        low, high = (lambda v: (v & np.uint64(0xFFFFFFFF)).astype(np.uint32)), (
            lambda v: (v >> np.uint64(32)).astype(np.uint32))
        bits = np.concatenate(threefry2x32(low(key), high(key), low(counter), high(counter)))
        return [np.array([key, state[1] + np.uint64(half)], np.uint64),
                bits[:size].reshape(type.shape).astype(type.dtype.numpy)]

    def vjp(cotangents, op, operands, results):
        return [None]

    def batch(op, operands, batched, batch):
        return batch.each(op, operands, batched)

    def factors(op):
        return Factors([(None,)], [(None,) * len(r.shape) for r in op.results])


