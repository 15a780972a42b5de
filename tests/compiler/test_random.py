"""`tfn.random`: streams equal to JAX's (recorded), distributions, reproducibility, sharding."""

import math

import numpy as np
import pytest

import tfn.compiler.numpy as tnp
import tfn.compiler.random as random
from tfn.compiler.errors import OpError
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dims import Dim
from tfn.compiler.ir.dtypes import UI32
from tfn.compiler.ir.evaluator import evaluate
from tfn.compiler.trace.core import trace

KEY = random.key(42)

# What jax.random (0.10, partitionable Threefry) gives for PRNGKey(42).
EXACT = {
    "bits": (lambda k: random.bits(k, (4,)), [2098992034, 2919706841, 2646866425, 2409546199]),
    "bits u8": (lambda k: random.bits(k, (5,), "uint8"), [162, 217, 249, 215, 21]),
    "bits u16": (lambda k: random.bits(k, (3,), "uint16"), [5026, 12505, 63993]),
    "bits u64": (lambda k: random.bits(k, (2,), "uint64"),
                 [7871734211187709741, 276886910877598708]),
    "split": (lambda k: random.split(k, 3), [[1832780943, 270669613], [64467757, 2916123636],
                                             [2465931498, 255383827]]),
    "fold_in": (lambda k: random.fold_in(k, 7), [2547012911, 1371500959]),
    "randint": (lambda k: random.randint(k, (5,), -5, 1000), [184, 514, 736, 539, 804]),
    "randint u8": (lambda k: random.randint(k, (5,), 0, 100, "uint8"), [44, 14, 71, 69, 9]),
    "uniform": (lambda k: random.uniform(k, (3,)), np.float32([0.48870957, 0.6797972, 0.6162715])),
    "uniform f16": (lambda k: random.uniform(k, (2,), "float16"), [0.076171875, 0.1904296875]),
    "uniform bf16": (lambda k: random.uniform(k, (2,), "bfloat16"), [0.6328125, 0.84375]),
    "categorical": (lambda k: random.categorical(k, tnp.arange(12.0).reshape(3, 4), shape=(5, 3)),
                    [[3, 3, 3], [3, 3, 3], [1, 1, 3], [3, 3, 3], [3, 1, 3]]),
    "permutation": (lambda k: random.permutation(k, 20),
                    [7, 4, 16, 19, 2, 5, 3, 6, 18, 10, 11, 15, 8, 9, 13, 14, 17, 0, 1, 12]),
    "choice": (lambda k: random.choice(k, 10, (4,)), [4, 4, 1, 9]),
    "choice without replacement": (lambda k: random.choice(k, 10, (4,), replace=False),
                                   [7, 4, 2, 5]),
}
CLOSE = {
    "normal": (lambda k: random.normal(k, (3,)), [-0.02830462, 0.46713185, 0.29570296]),
    "normal f64": (lambda k: random.normal(k, (4,), "float64"),
                   [-0.18471175, -2.1698246, 0.18693555, 0.61226536]),
    "truncated normal": (lambda k: random.truncated_normal(k, -2.0, 2.0, (4,)),
                         [-0.027016498, 0.44438082, 0.28187707, 0.14650805]),
    "gumbel": (lambda k: random.gumbel(k, (4,)), [0.33409339, 0.95201945, 0.72553056, 0.54817152]),
    "exponential": (lambda k: random.exponential(k, (4,)),
                    [0.67081749, 1.1388006, 0.95782, 0.82329249]),
    "uniform in a range": (lambda k: random.uniform(k, (4,), minval=-1.0, maxval=3.0),
                           [0.95483828, 1.7191887, 1.465086, 1.2440643]),
}


@pytest.mark.parametrize("name", EXACT)
def test_streams_are_jaxs(engine, name):
    draw, expected = EXACT[name]
    np.testing.assert_array_equal(engine(draw, KEY), np.asarray(expected))


@pytest.mark.parametrize("name", CLOSE)
def test_values_are_jaxs(engine, name):
    draw, expected = CLOSE[name]
    np.testing.assert_allclose(engine(draw, KEY), expected, rtol=2e-6)


@pytest.mark.parametrize(("seed", "words"), [(0, [0, 0]), (2**32 + 5, [1, 5]),
                                             (-3, [0, 2**32 - 3])])
def test_keys(seed, words):
    np.testing.assert_array_equal(random.key(seed), np.uint32(words))


def test_a_key_from_a_traced_seed():
    function, _ = trace(lambda s: [random.key(s)], [tnp.asarray(1).type])
    np.testing.assert_array_equal(evaluate(function, [np.int32(-3)])[0], random.key(-3))


def test_element_i_does_not_depend_on_the_shape():
    line = np.asarray(random.normal(KEY, (24,)))
    np.testing.assert_array_equal(np.ravel(random.normal(KEY, (2, 3, 4))), line)
    np.testing.assert_array_equal(random.normal(KEY, (10,)), line[:10])


def test_symbolic_shapes():
    batch = Dim.named("batch")

    def program(key, x):
        return [random.uniform(key, x.shape), random.bits(key, (3, x.shape[0]))]

    function, _ = trace(program, [TensorType((2,), UI32), TensorType((batch, 5), UI32)])
    found = evaluate(function, [KEY, np.zeros((4, 5), np.uint32)])
    np.testing.assert_array_equal(found[0], random.uniform(KEY, (4, 5)))
    np.testing.assert_array_equal(found[1], random.bits(KEY, (3, 4)))


def test_bits_are_a_composite():
    function, _ = trace(lambda k: [random.uniform(k, (4,))], [TensorType((2,), UI32)])
    names = [op.attributes.get("name") for op in function.ops]
    assert "tfn.random_bits" in names


@pytest.mark.parametrize(("draw", "mean", "deviation"), [
    (lambda k, s: random.uniform(k, s), 0.5, math.sqrt(1 / 12)),
    (lambda k, s: random.normal(k, s), 0, 1),
    (lambda k, s: random.bernoulli(k, 0.3, s).astype("float32"), 0.3, math.sqrt(0.21)),
    (lambda k, s: random.gamma(k, 2.5, s), 2.5, math.sqrt(2.5)),
    (lambda k, s: random.gamma(k, 0.4, s), 0.4, math.sqrt(0.4)),
    (lambda k, s: random.beta(k, 2.0, 3.0, s), 0.4, 0.2),
    (lambda k, s: random.binomial(k, 10, 0.3, s), 3, math.sqrt(2.1)),
    (lambda k, s: random.randint(k, s, 0, 10).astype("float32"), 4.5, math.sqrt(8.25)),
    (lambda k, s: random.exponential(k, s), 1, 1),
], ids=["uniform", "normal", "bernoulli", "gamma", "small gamma", "beta", "binomial", "randint",
        "exponential"])
def test_moments_of_the_distributions(draw, mean, deviation):
    sample = np.asarray(draw(random.key(7), (20000,)))
    assert abs(sample.mean() - mean) < 5 * deviation / math.sqrt(20000)
    assert abs(sample.std() - deviation) < 0.04 * deviation


@pytest.mark.parametrize("draw", [
    lambda k: random.gamma(k, np.float32([0.3, 1, 2.5, 40])),
    lambda k: random.beta(k, 2.0, 3.0, (3,)),
    lambda k: random.binomial(k, 5, 0.4, (6,)), lambda k: random.bernoulli(k, 0.5, (4,)),
    lambda k: random.gumbel(k, (3,))])
def test_traced_draws_are_the_eager_ones(draw):
    function, _ = trace(lambda k: [draw(k)], [TensorType((2,), UI32)])
    np.testing.assert_allclose(evaluate(function, [KEY])[0], draw(KEY), rtol=1e-6)


def test_truncated_normal_stays_inside():
    sample = np.asarray(random.truncated_normal(KEY, -0.5, 0.25, (5000,)))
    assert -0.5 < sample.min() < -0.49
    assert 0.24 < sample.max() < 0.25


def test_uniform_never_reaches_the_end():
    sample = np.asarray(random.uniform(KEY, (100_000,)))
    assert sample.min() >= 0
    assert sample.max() < 1


def test_shuffle_keeps_rows():
    x = np.arange(12).reshape(6, 2)
    found = np.asarray(random.shuffle(KEY, x))
    np.testing.assert_array_equal(np.sort(found, 0), x)
    np.testing.assert_array_equal(found[:, 1] - found[:, 0], np.ones(6))
    assert not np.array_equal(found, x)


def test_errors():
    with pytest.raises(OpError, match=r"make one with random.key\(seed\)"):
        random.split(np.float32([1, 2]))
    with pytest.raises(OpError, match="float dtype"):
        random.uniform(KEY, (2,), "int32")
    with pytest.raises(OpError, match="integer dtype"):
        random.randint(KEY, (2,), 0, 5, "float32")
    with pytest.raises(OpError, match="without replacement"):
        random.choice(KEY, 3, (4,), replace=False)
