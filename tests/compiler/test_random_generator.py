"""`random.Generator`: reproducible, other numbers each time, and nothing frozen by a trace."""

import math

import numpy as np
import pytest

import tfn.compiler.random as random
from tfn.compiler.errors import OpError, TraceError
from tfn.compiler.trace.control import scan
from tfn.compiler.trace.jit import jit

ALGORITHMS = pytest.mark.parametrize("algorithm", ["threefry", "philox"])
DRAWS = {
    "bits": lambda g: g.bits((3,)), "uniform": lambda g: g.uniform((3,)),
    "integers": lambda g: g.integers(0, 1000, (3,)), "normal": lambda g: g.normal((3,), 1.0, 2.0),
    "truncated_normal": lambda g: g.truncated_normal((3,)),
    "binomial": lambda g: g.binomial(100.0, np.float32(0.5), (3,)),
}


@ALGORITHMS
@pytest.mark.parametrize("name", DRAWS)
def test_draws(name, algorithm):
    g, same = random.Generator(7, algorithm), random.Generator(7, algorithm)
    first, second = np.asarray(DRAWS[name](g)), np.asarray(DRAWS[name](g))
    assert first.shape == (3,)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(DRAWS[name](same), first)
    saved = random.Generator.from_state(same.state, algorithm)
    np.testing.assert_array_equal(DRAWS[name](saved), second)


def test_threefry_draws_are_those_of_split_keys():
    g, key = random.Generator(3), random.key(3)
    for _ in range(2):
        key, own = random.split(key)
        np.testing.assert_array_equal(g.normal((4,)), random.normal(own, (4,)))
    key, own = random.split(key)
    np.testing.assert_array_equal(g.draw(random.gamma, 2.0, (3,)), random.gamma(own, 2.0, (3,)))


@ALGORITHMS
def test_a_generator_is_state_of_a_jitted_program(algorithm):
    @jit
    def step(g):
        return g.uniform((4,)), g

    g, eager = random.Generator(5, algorithm), random.Generator(5, algorithm)
    for _ in range(3):
        found, g = step(g)
        np.testing.assert_array_equal(found, eager.uniform((4,)))


def test_a_generator_is_carried_by_scan():
    def step(g, _):
        return g, g.bits(())

    _, found = jit(lambda g: scan(step, g, None, length=4))(random.Generator(5))
    eager = random.Generator(5)
    np.testing.assert_array_equal(found, [np.asarray(eager.bits(())) for _ in range(4)])


@ALGORITHMS
def test_a_draw_that_a_trace_would_freeze_is_refused(algorithm):
    g = random.Generator(5, algorithm)
    before = np.asarray(g.state)
    with pytest.raises(TraceError, match="be the same in every call; pass the generator"):
        jit(lambda x: x + g.normal((3,)))(np.zeros(3, np.float32))
    np.testing.assert_array_equal(g.state, before)


@ALGORITHMS
def test_split_generators_are_independent(algorithm):
    g = random.Generator(5, algorithm)
    drawn = [np.asarray(x.uniform((5000,))) for x in (*g.split(2), g)]
    assert abs(np.corrcoef(drawn) - np.eye(3)).max() < 5 / math.sqrt(5000)


def test_the_default_generator():
    random.seed(11)
    first = np.asarray(random.default_generator().normal((3,)))
    random.seed(11)
    np.testing.assert_array_equal(random.default_generator().normal((3,)), first)
    np.testing.assert_array_equal(random.Generator(11).normal((3,)), first)
    assert not np.array_equal(random.Generator().state, random.Generator().state)


def test_errors():
    with pytest.raises(OpError, match="one of threefry, philox, not 'mt19937'"):
        random.Generator(1, "mt19937")
    with pytest.raises(OpError, match=r"use Generator\.from_state for a key"):
        random.Generator(random.key(1))
    with pytest.raises(OpError, match="the state of a philox generator is ui64 of shape"):
        random.Generator.from_state(random.key(1), "philox")
    with pytest.raises(OpError, match="make_seeds needs a philox generator"):
        random.Generator(1).make_seeds(2)
    with pytest.raises(OpError, match="samplers of tfn"):
        random.Generator(1, "philox").permutation(5)
