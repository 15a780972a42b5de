"""A seeded generator: a key that moves on with every draw.

Eager code draws from it as from `numpy.random.Generator`. Under `jit` the state has to be a value of
the program, or every call would repeat the draw that was traced: a generator is a pytree of its state,
so pass it in and return it, or make it from a key inside.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from typing import Any

import numpy as np
import optree

from .. import numpy as tnp
from ..errors import OpError, TraceError, user_location
from ..ir.dtypes import F32, I32, I64, UI32, UI64
from ..numpy.promote import (
    ArrayLike,
    Value,
    as_shape,
    asarray,
    broadcast_shapes,
    convert,
    dtype_argument,
    dtype_of,
)
from ..trace import tree
from ..trace.core import Array, Tracer, current_graph
from . import continuous, discrete, philox, rejection, threefry

# How many counters TensorFlow's generator moves on for an element of a draw.
_RESERVED = 256

_STATES = {"threefry": (2, UI32), "philox": (3, UI64)}


class Generator:
    """Random numbers from a seed, other ones with each draw.

    `algorithm` is "threefry" (the state is a key, uint32 (2,); each draw splits it, and the draw is
    what `tfn.random` gives for the second half) or "philox" (the state is uint64 (3,): key and counter;
    draws are those of `tf.random.Generator.from_seed(seed, alg="philox")`).

    Drawing inside a traced function raises `TraceError` unless the state is a value of that trace.
    """

    def __init__(self, seed: int | None = None, algorithm: str = "threefry"):
        if algorithm not in _STATES:
            raise OpError(f"algorithm is one of {', '.join(_STATES)}, not {algorithm!r}",
                          user_location())
        self.algorithm = algorithm
        self.reset(secrets.randbits(63) if seed is None else seed)

    @classmethod
    def from_state(cls, state: ArrayLike, algorithm: str = "threefry") -> Generator:
        """A generator that goes on from a state: a key of `random.key` or `random.philox.key`."""
        made = cls(0, algorithm)
        made.state = state  # type: ignore[assignment]
        return made

    def reset(self, seed: int) -> None:
        """Begin anew from a seed, as a new generator would."""
        if not isinstance(seed, (int, np.integer)):
            raise OpError(f"a seed is an int, got {seed!r}; use Generator.from_state for a key",
                          user_location())
        if self.algorithm == "threefry":
            self._state = threefry.key(int(seed))
        else:
            # TensorFlow: the counter's low half first, then its high half, then the key.
            low, high, key = (int(seed) >> 64 * i & 2**64 - 1 for i in range(3))
            self._state = Array(np.array([key, low, high], np.uint64))

    @property
    def state(self) -> Value:
        """What the next draw depends on. It may be saved, set, and given to `from_state`."""
        return self._state

    @state.setter
    def state(self, state: ArrayLike) -> None:
        state = asarray(state)
        size, dtype = _STATES[self.algorithm]
        if state.shape != (size,) or dtype_of(state) is not dtype:
            raise OpError(f"the state of a {self.algorithm} generator is {dtype} of shape ({size},),"
                          f" got {state.dtype} of shape {state.shape}", user_location())
        self._state = state

    def __repr__(self) -> str:
        return f"Generator({self._state!r}, {self.algorithm!r})"

    # -- moving on --------------------------------------------------------------------------------

    def _advance(self, counters: int) -> Value:
        """The key of the next draw; the state moves past it, by `counters` elements for Philox."""
        graph = current_graph()
        if graph is not None and not isinstance(self._state, Tracer):
            raise TraceError(
                "a draw from a generator inside a traced function would be made once, while it is"
                " traced, and be the same in every call; pass the generator (or its state) as an"
                " argument and return it, or draw from a key with random.uniform(key, ...)",
                user_location())
        if self.algorithm == "threefry":
            keys = threefry.split(self._state)
            self._state = keys[0]
            return keys[1]
        key = self._state
        self._state = philox.skipped(key, counters * _RESERVED)
        return key

    def skip(self, count: int) -> None:
        """Move on as if `count` elements had been drawn (Philox), or `count` draws made."""
        if self.algorithm == "philox":
            self._advance(count)
        else:
            for _ in range(count):
                self._advance(0)

    def split(self, count: int = 1) -> list[Generator]:
        """`count` new generators, independent of this one, which moves on."""
        key = self._advance(count)
        if self.algorithm == "threefry":
            keys = threefry.split(key, count)
            return [Generator.from_state(keys[i]) for i in range(count)]
        keys = philox.bits(key, (count,), UI64)
        zero = tnp.zeros((), UI64)
        return [Generator.from_state(tnp.stack([keys[i], zero, zero]), "philox")
                for i in range(count)]

    def make_seeds(self, count: int = 1) -> Value:
        """Seeds for draws without a state, (2, count) int64: one in a column (Philox only)."""
        self._only_philox("make_seeds", "split")
        keys = self.bits((count,), I64)
        return tnp.stack([keys, tnp.zeros_like(keys)])

    def _only_philox(self, name: str, instead: str) -> None:
        if self.algorithm != "philox":
            raise OpError(f"{name} needs a philox generator, this one is {self.algorithm}; use"
                          f" {instead}", user_location())

    # -- draws ------------------------------------------------------------------------------------

    def _draw(self, name: str, shape, *args) -> Value:
        shape = as_shape(shape)
        sampler = _SAMPLERS[self.algorithm][name]
        return sampler(self._advance(math.prod(shape)), shape, *args)

    def bits(self, shape=(), dtype="uint32") -> Value:
        """Uniform integers over all of `dtype` (TensorFlow: `uniform_full_int`)."""
        return self._draw("bits", shape, dtype)

    def uniform(self, shape=(), minval: ArrayLike = 0.0, maxval: ArrayLike = 1.0, dtype=F32) -> Value:
        """Uniform floats, or integers for an integer `dtype`, in [minval, maxval)."""
        if dtype_argument(dtype).is_integer:
            return self.integers(minval, maxval, shape, dtype)
        return self._draw("uniform", shape, dtype, minval, maxval)

    def integers(self, low: ArrayLike, high: ArrayLike, shape=(), dtype=I32) -> Value:
        """Uniform integers in [low, high)."""
        return self._draw("randint", shape, low, high, dtype)

    def normal(self, shape=(), mean: ArrayLike = 0.0, stddev: ArrayLike = 1.0, dtype=F32) -> Value:
        """Normal floats."""
        return _scaled(self._draw("normal", shape, dtype), mean, stddev)

    def truncated_normal(self, shape=(), mean: ArrayLike = 0.0, stddev: ArrayLike = 1.0,
                         dtype=F32) -> Value:
        """Normal floats within two standard deviations."""
        return _scaled(self._draw("truncated_normal", shape, dtype), mean, stddev)

    def binomial(self, n: ArrayLike, p: ArrayLike, shape=None, dtype=I32) -> Value:
        """The number of successes in `n` trials of probability `p`."""
        batch = broadcast_shapes(asarray(n).shape, asarray(p).shape)
        shape = batch if shape is None else as_shape(shape)
        if self.algorithm == "threefry":
            drawn = rejection.binomial(self._advance(0), n, p, shape)
            return convert(drawn, dtype_argument(dtype))
        batches = math.prod(batch)
        samples = math.prod(shape) // max(1, batches)
        key = self._advance(batches * 200 * (samples + 3) // 4)
        return philox.binomial(key, n, p, shape, dtype)

    def draw(self, sampler: Callable[..., Value], *args, **kwargs) -> Value:
        """`sampler(key, ...)` of `tfn.random` with the next key of a Threefry generator."""
        if self.algorithm != "threefry":
            raise OpError("draw needs a threefry generator: samplers of tfn.random take its keys",
                          user_location())
        return sampler(self._advance(0), *args, **kwargs)

    def permutation(self, x: int | ArrayLike, axis: int = 0) -> Value:
        """0 ... x-1 in random order, or `x` with its slices along `axis` in random order."""
        return self.draw(discrete.permutation, x, axis)

    def choice(self, x: int | ArrayLike, shape=(), replace: bool = True,
               p: ArrayLike | None = None) -> Value:
        """Elements of `x` along its first axis (or of 0 ... x-1), with probabilities `p`."""
        return self.draw(discrete.choice, x, shape, replace, p)


def _scaled(drawn: Value, mean: ArrayLike, stddev: ArrayLike) -> Value:
    if isinstance(mean, (int, float)) and isinstance(stddev, (int, float)) and (mean, stddev) == (0, 1):
        return drawn
    dtype = dtype_of(drawn)
    return drawn * tnp.asarray(stddev, dtype) + tnp.asarray(mean, dtype)


_SAMPLERS: dict[str, dict[str, Callable[..., Value]]] = {
    "threefry": {
        "bits": threefry.bits, "uniform": continuous.uniform, "randint": discrete.randint,
        "normal": continuous.normal,
        "truncated_normal": lambda key, shape, dtype: continuous.truncated_normal(
            key, -2.0, 2.0, shape, dtype)},
    "philox": {
        "bits": philox.bits, "uniform": philox.uniform, "randint": philox.randint,
        "normal": philox.normal, "truncated_normal": philox.truncated_normal},
}


def _opened(generator: Generator) -> tuple:
    return (generator._state,), generator.algorithm


def _rebuilt(algorithm: Any, states: Any) -> Any:
    """A generator around whatever a transformation puts in the place of the state."""
    made = object.__new__(Generator)
    made.algorithm, made._state = algorithm, states[0]
    return made


optree.register_pytree_node(Generator, _opened, _rebuilt,  # type: ignore[type-var,arg-type]
                            namespace=tree.NAMESPACE)

_DEFAULT = Generator()


def default_generator() -> Generator:
    """The generator that `seed` seeds; from the system's entropy until then."""
    return _DEFAULT


def seed(seed: int) -> None:
    """Seed the default generator: the draws that follow are the same every time."""
    _DEFAULT.reset(seed)
