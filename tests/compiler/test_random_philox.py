"""`random.philox` and the Philox `Generator` against TensorFlow 2.21 (recorded).

The records were made in an environment with TensorFlow, for seed=[12345, -678] and alg="philox", e.g.
`sha256(tf.random.stateless_uniform([1_000_000], seed, None, None, "uint32", alg="philox").numpy()
.tobytes()).hexdigest()[:32]`; of normal numbers x, in f64: sum(x), sum(x * (arange(1_000_000) % 997))
and x[::125_000].
"""

import hashlib

import numpy as np
import pytest

import tfn.compiler.random as random
from tfn.compiler.errors import OpError
from tfn.compiler.random import philox
from tfn.compiler.trace.jit import jit

N = 1_000_000
KEY = philox.key([12345, -678])
COUNTS, CHANCES = np.float32([3, 10, 100, 1000]), np.float32([0.3, 0.8, 0.5, 0.9])

# name: (draw, SHA-256 of TensorFlow's million numbers)
EXACT = {
    "bits u32": (lambda k: philox.bits(k, (N,), "uint32"), "ed23a80231df7a235a4a4f0760102ecc"),
    "bits i32": (lambda k: philox.bits(k, (N,), "int32"), "ed23a80231df7a235a4a4f0760102ecc"),
    "bits u64": (lambda k: philox.bits(k, (N,), "uint64"), "69fa12c7dd030cd4264608e341563fe6"),
    "bits i64": (lambda k: philox.bits(k, (N,), "int64"), "69fa12c7dd030cd4264608e341563fe6"),
    "randint i32": (lambda k: philox.randint(k, (N,), 3, 1003), "5d1d460b6b263007bf8a81e970147f3a"),
    "randint i64": (lambda k: philox.randint(k, (N,), 3, 1003, "int64"),
                    "1f8e4d2ff7dc3579e91943c55919d94f"),
    "randint wide": (lambda k: philox.randint(k, (N,), -2**31, 2**31 - 1),
                     "464066b0fafa65ddfc6f40f0e3e61397"),
    "uniform f32": (lambda k: philox.uniform(k, (N,)), "2781c89e33f569784a245807ea6ff570"),
    "uniform f64": (lambda k: philox.uniform(k, (N,), "float64"), "9fdb346132d99e9036fc5f67c483ef45"),
    "uniform f16": (lambda k: philox.uniform(k, (N,), "float16"), "32c18742d6bb5a5ab302b0f6597810a9"),
    "uniform bf16": (lambda k: philox.uniform(k, (N,), "bfloat16"),
                     "7119610358c5975734ecca6e05dcd38f"),
    "uniform in a range": (lambda k: philox.uniform(k, (N,), "float32", -3, 2.5),
                           "09d3e0dc975d1f0a48e9d51bbcbca247"),
    "binomial": (lambda k: philox.binomial(k, COUNTS, CHANCES, (50_000, 4)),
                 "7e042a86a7f2d75dd866f6a91b28c757"),
}
# name: (draw, sums and every 125,000th of TensorFlow's million numbers, ULP that those may be away)
NORMAL = {
    "normal f32": (lambda k: philox.normal(k, (N,)), (1158.03573529485, 741553.5958113086, np.float32([
        1.2853163480758667, 0.5066759586334229, -0.03993542492389679, 1.5468937158584595,
        -0.8751639127731323, 0.5610039234161377, -0.19723384082317352, -1.5366789102554321])), 2),
    "normal f64": (lambda k: philox.normal(k, (N,), "float64"), (
        -332.59353532060885, 41076.20181168127, np.float64([
            1.4538838998263524, 0.1984115322812331, 0.030250993070436008, 0.46962834646404594,
            -1.039841075742001, 1.9447659728861313, -2.0095202324006864, -0.2217997307917203])), 3),
    "truncated f32": (lambda k: philox.truncated_normal(k, (N,)), (
        51.227659244928134, 269155.4216260292, np.float32([
            1.2853163480758667, -0.8221300840377808, 0.7354529500007629, 1.0525416135787964,
            1.1976250410079956, -0.3065810799598694, 1.4809672832489014, -0.5513792037963867])), 2),
    "truncated f64": (lambda k: philox.truncated_normal(k, (N,), "float64"), (
        -51.39706071468538, 100217.96235363191, np.float64([
            1.4538838998263524, -1.6200538769559627, -1.004113831055191, -1.355110967499273,
            -0.3134956562111861, 0.3762403695523905, 1.053435309013719, -0.4576858946957898])), 3),
}


# In a kernel the product and the sum of a range contract; TensorFlow rounds both.
JITTED = [name for name in EXACT if name != "uniform in a range"]


@pytest.mark.parametrize(("name", "run"), [*((n, lambda f: f) for n in EXACT),
                                           *((n, jit) for n in JITTED)])
def test_a_million_draws_are_tensorflows(name, run):
    draw, digest = EXACT[name]
    found = np.asarray(run(draw)(KEY))
    assert hashlib.sha256(found.tobytes()).hexdigest()[:32] == digest


@pytest.mark.parametrize("run", [lambda f: f, jit], ids=["eager", "jit"])
@pytest.mark.parametrize("name", NORMAL)
def test_normal_numbers_are_tensorflows(name, run):
    draw, (total, weighted, some), ulp = NORMAL[name]
    found = np.asarray(run(draw)(KEY))
    np.testing.assert_array_max_ulp(found[::N // 8], some, ulp)
    wide = found.astype(np.float64)
    # A single number out of place moves the weighted sum by about 1.
    assert wide.sum() == pytest.approx(total, abs=0.02)
    assert (wide * (np.arange(N) % 997)).sum() == pytest.approx(weighted, abs=0.5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_small_normal_floats_are_rounded_ones(dtype):
    wide = np.asarray(philox.normal(KEY, (1000,)))
    np.testing.assert_array_equal(philox.normal(KEY, (1000,), dtype), wide.astype(
        np.asarray(philox.normal(KEY, (), dtype)).dtype))


@pytest.mark.parametrize(("seed", "words"), [
    ([0, 0], [16103252647613272195, 0, 18388005586443337812]),
    ([1, 2], [10413732777507651514, 0, 17830669156045600267]),
    ([-1, 5], [14871329193082503880, 0, 13010662996493797292]),
    ([2**40 + 3, 2**35 + 9], [13079091143718401134, 0, 6321204567916839325]),
])
def test_a_seed_is_scrambled(seed, words):
    np.testing.assert_array_equal(philox.key(np.int64(seed)), np.uint64(words))
    np.testing.assert_array_equal(jit(philox.key)(np.int64(seed)), np.uint64(words))


def test_the_counter_carries():
    # tf.raw_ops.StatelessRandomUniformFullIntV2, key 5, counter [2**64 - 2, 2**64 - 1]
    key = np.uint64([5, 2**64 - 2, 2**64 - 1])
    np.testing.assert_array_equal(philox.bits(key, (16,)), np.uint32([
        2914826838, 334851730, 828122064, 3355403621, 4279158131, 3594256059, 915404630, 3822220754,
        3289868317, 299389332, 4225117243, 4147765880, 1491303360, 670720010, 2467182222, 513040669]))
    np.testing.assert_array_equal(philox.skipped(key, 3), np.uint64([5, 1, 0]))


def test_seeds_from_seeds():
    np.testing.assert_array_equal(philox.split([1, 2]), [[1105988140, 1738052849],
                                                         [-335576002, 370444179]])
    np.testing.assert_array_equal(philox.fold_in([1, 2], 3), [1105988140, 3])


def test_element_i_does_not_depend_on_the_shape():
    line = np.asarray(philox.truncated_normal(KEY, (40_000,)))
    np.testing.assert_allclose(philox.truncated_normal(KEY, (10, 4)), line[:40].reshape(10, 4),
                               rtol=1e-6)
    np.testing.assert_array_equal(philox.bits(KEY, (200_001,))[:3], philox.bits(KEY, (3,)))


def test_the_first_draws_of_a_generator():
    """`g = tf.random.Generator.from_seed(1234, alg="philox")`, drawn from in this order."""
    g = random.Generator(1234, "philox")

    def after(draw, counter):
        found = np.asarray(draw)
        assert [int(w) for w in np.asarray(g.state)] == [0, counter, 0]
        return found

    np.testing.assert_allclose(after(g.uniform((4,)), 0x8D2),
                               [0.3581475, 0.11322761, 0.56670904, 0.6712369], rtol=1e-7)
    after(g.uniform((5,)), 0xDD2)
    after(g.uniform(()), 0xED2)
    np.testing.assert_allclose(after(g.uniform((4,), dtype="float64"), 0x12D2),
                               [0.17431091, 0.23747484, 0.1172249, 0.41679631], rtol=1e-7)
    assert after(g.normal(()), 0x13D2) == pytest.approx(-1.2584243, rel=1e-6)
    after(g.normal((1000,)), 0x3FBD2)
    np.testing.assert_allclose(after(g.truncated_normal((3,)), 0x3FED2),
                               [0.71598035, -0.087593, -1.0615864], rtol=1e-6)
    after(g.truncated_normal((1000,)), 0x7E6D2)
    np.testing.assert_array_equal(after(g.bits((3,), "uint64"), 0x7E9D2), np.uint64(
        [711280056394716582, 3401327155103195568, 10243911943438548344]))
    np.testing.assert_array_equal(after(g.uniform((3,), 0, 10, "int32"), 0x7ECD2), [8, 9, 4])
    np.testing.assert_array_equal(after(g.uniform((3,), 0, 10, "int64"), 0x7EFD2), [0, 8, 7])
    drawn = g.binomial([10.0, 20.0, 5.0], np.float32([0.5, 0.3, 0.8]), (3,))
    np.testing.assert_array_equal(after(drawn, 0xA47D2), [5, 4, 5])
    np.testing.assert_array_equal(after(g.make_seeds(3), 0xA4AD2), [
        [-7758781746803777423, -2821404178148224602, 149478485033432775], [0, 0, 0]])
    g.skip(10)
    made = g.split(2)
    assert [int(w) for w in np.asarray(g.state)] == [0, 0xA56D2, 0]
    assert [int(np.asarray(m.state)[0]) for m in made] == [6638073978941038800, 4440943283761296788]


def test_errors():
    with pytest.raises(OpError, match=r"make one with random.philox.key\(\[a, b\]\)"):
        philox.uniform(random.key(1))
    with pytest.raises(OpError, match="two integers"):
        philox.key([1.5, 2])
    with pytest.raises(OpError, match="int32, int64, uint32 or uint64, not ui8"):
        philox.bits(KEY, (2,), "uint8")
    with pytest.raises(OpError, match="does not end with"):
        philox.binomial(KEY, COUNTS, CHANCES, (3,))
