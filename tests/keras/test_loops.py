"""Loops of the Keras backend: cells over time and `keras.ops` loops, against plain NumPy loops."""

import keras
import numpy as np
import pytest

import tfn
from tfn.keras.backend.ops import core
from tfn.keras.backend.rnn import rnn

RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((3, 5, 4)).astype("float32")
W = RANDOM.standard_normal((4, 4)).astype("float32") * np.float32(0.5)
MASK = np.array([[0, 1, 1, 0, 1], [1, 1, 1, 1, 1], [1, 0, 0, 1, 0]], bool)


def cell(x, states):
    state, = states
    new = tfn.numpy.tanh(x + tfn.numpy.matmul(state, W))
    return new * 2.0, [new]


def expected(mask, backwards=False, zero=False):
    """`(last output, outputs in the order of computation, last state)`."""
    state, before, outputs = np.zeros((3, 4)), np.zeros((3, 4)), []
    for t in reversed(range(5)) if backwards else range(5):
        new = np.tanh(X[:, t] + state @ W)
        keep = np.ones((3, 1), bool) if mask is None else mask[:, t, None]
        before = np.where(keep, new * 2, 0 if zero else before)
        state = np.where(keep, new, state)
        outputs.append(before)
    return outputs[-1], np.stack(outputs, 1), state


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("unroll", [False, True])
@pytest.mark.parametrize("options", [
    {}, {"go_backwards": True}, {"mask": MASK}, {"mask": MASK, "go_backwards": True},
    {"mask": MASK, "zero_output_for_mask": True}], ids=lambda o: "-".join(o) or "plain")
def test_a_cell_over_time(options, unroll, compiled):
    def run(x, state):
        return rnn(cell, x, [state], unroll=unroll, **options)

    run = tfn.jit(run) if compiled else run
    last, outputs, (state,) = run(core.convert_to_tensor(X), tfn.numpy.zeros((3, 4)))
    wanted = expected(options.get("mask"), options.get("go_backwards"),
                      options.get("zero_output_for_mask"))
    for found, right in zip((last, outputs, state), wanted, strict=True):
        np.testing.assert_allclose(np.asarray(found), right, rtol=1e-5, atol=1e-6)


def test_time_may_lead_and_outputs_may_be_left_out():
    rows = core.convert_to_tensor(X.swapaxes(0, 1).copy())
    last, outputs, _ = rnn(cell, rows, [tfn.numpy.zeros((3, 4))], time_major=True,
                           return_all_outputs=False)
    assert outputs.shape == (1, 3, 4)
    np.testing.assert_allclose(np.asarray(last), expected(None)[0], rtol=1e-5, atol=1e-6)


def test_a_long_sequence_is_one_loop():
    """The program does not grow with the number of steps."""
    def run(x):
        return rnn(cell, x, [tfn.numpy.zeros((3, 4))])[0]

    sizes = [len(tfn.jit(run).trace(tfn.numpy.zeros((3, steps, 4))).ops) for steps in (5, 500)]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("layer", ["LSTM", "GRU", "SimpleRNN"])
def test_a_recurrent_layer_learns(layer):
    """Through the loop and back: the mean of a sequence is easy."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((5, 4)), getattr(keras.layers, layer)(8),
                              keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.02), "mse")
    x = RANDOM.standard_normal((64, 5, 4)).astype("float32")
    losses = [model.train_on_batch(x, x.mean((1, 2))[:, None]) for _ in range(60)]
    assert losses[-1] < 0.2 * losses[0]


def test_scan_carries_and_stacks():
    def run(x):
        return keras.ops.scan(lambda c, v: (c + v, c * v), x[0] * 0, x)

    carry, stacked = tfn.jit(run)(core.convert_to_tensor(X[0]))
    sums = np.cumsum(X[0], 0)
    np.testing.assert_allclose(np.asarray(carry), sums[-1], rtol=1e-5)
    np.testing.assert_allclose(np.asarray(stacked), (sums - X[0]) * X[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("limit", [None, 3])
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_while_loops_may_depend_on_traced_values(limit, compiled):
    def run(x):
        return keras.ops.while_loop(lambda v, n: v < 100.0, lambda v, n: (v * 2.0, n + 1), (x, 0),
                                    maximum_iterations=limit)

    value, rounds = (tfn.jit(run) if compiled else run)(core.convert_to_tensor(3.0))
    assert (float(value), int(rounds)) == ((24.0, 3) if limit else (192.0, 6))


def test_a_while_loop_whose_rounds_are_known_is_one_loop_with_a_derivative():
    def run(rounds, x):
        return keras.ops.while_loop(lambda i, v: i < rounds, lambda i, v: (i + 1, tfn.numpy.sin(v) * x),
                                    (0, x))[1]

    x = np.array([0.5, 1.5], np.float32)
    sizes = [len(tfn.jit(lambda v, n=n: run(n, v)).trace(x).ops) for n in (3, 300)]
    assert sizes[0] == sizes[1]
    value, slope, expected = x, np.ones_like(x), None
    for _ in range(3):
        value, slope = np.sin(value) * x, np.cos(value) * slope * x + np.sin(value)
        expected = slope
    found = tfn.jit(tfn.grad(lambda v: run(3, v).sum()))(x)
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-5)
    np.testing.assert_allclose(np.asarray(tfn.jit(lambda v: run(3, v))(x)), value, rtol=1e-5)
    np.testing.assert_allclose(np.asarray(tfn.jit(lambda v: run(0, v))(x)), x)


@pytest.mark.parametrize("limit", [None, 2])
def test_a_while_loop_with_more_rounds_than_are_counted(limit):
    def run(x):
        return keras.ops.while_loop(lambda i, v: i < 100_000, lambda i, v: (i + 1, v + 1.0), (0, x),
                                    maximum_iterations=limit)[1]

    assert float(tfn.jit(run)(core.convert_to_tensor(1.0))) == (limit or 100_000) + 1


def test_a_while_loop_that_grows_or_asks_for_values_is_unrolled():
    def grow(x):
        return keras.ops.while_loop(lambda i, v: i < 3, lambda i, v: (
            i + 1, tfn.numpy.concatenate([v, v])), (0, x))[1]

    def ask(x):
        return keras.ops.while_loop(lambda i, v: i < 4, lambda i, v: (
            i + 1, v * 2.0 if int(i) % 2 else v + 1.0), (0, x))[1]

    x = core.convert_to_tensor(np.array([1.0, 2.0], np.float32))
    np.testing.assert_array_equal(np.asarray(tfn.jit(grow)(x)), np.tile([1, 2], 8))
    np.testing.assert_array_equal(np.asarray(tfn.jit(ask)(x)), np.asarray(ask(x)))


def test_a_while_loop_writes_variables_that_have_a_value():
    seed = keras.random.SeedGenerator(1)

    def draw(i):
        keras.random.uniform((2,), seed=seed)
        return i + 1

    def draws(state, most):
        with keras.StatelessScope(state_mapping=[(seed.state, state)]) as scope:
            keras.ops.while_loop(lambda i: i < most, draw, 0)
        return scope.get_current_value(seed.state)

    state = tfn.jit(lambda s: draws(s, 3))(seed.state.value)
    assert np.asarray(state)[1] == np.asarray(seed.state.value)[1] + 3
    state = tfn.jit(draws)(seed.state.value, 3)
    assert np.asarray(state)[1] == np.asarray(seed.state.value)[1] + 3

    def unknown(most):
        with keras.StatelessScope():
            return keras.ops.while_loop(lambda i: i < most, draw, 0)

    with pytest.raises(NotImplementedError, match="assign it after the loop"):
        tfn.jit(unknown)(3)


def test_counted_loops_and_maps():
    x = core.convert_to_tensor(X[0])

    def run(x):
        return (keras.ops.fori_loop(0, 4, lambda i, v: v + i, x),
                keras.ops.map(lambda row: row * 2.0, x),
                keras.ops.vectorized_map(lambda row: row.sum(), x))

    for call in (run, tfn.jit(run)):
        counted, doubled, sums = call(x)
        np.testing.assert_allclose(np.asarray(counted), X[0] + 6, rtol=1e-5)
        np.testing.assert_allclose(np.asarray(doubled), X[0] * 2)
        np.testing.assert_allclose(np.asarray(sums), X[0].sum(1), rtol=1e-5, atol=1e-6)


def test_a_body_that_writes_variables_is_unrolled():
    """Each step draws its own numbers: the seed's state advances inside the loop."""
    seed = keras.random.SeedGenerator(1)

    def draws(state):
        with keras.StatelessScope(state_mapping=[(seed.state, state)]) as scope:
            _, ys = keras.ops.scan(lambda c, _: (c, keras.random.uniform((2,), seed=seed)), 0,
                                   length=3)
        return ys, scope.get_current_value(seed.state)

    ys, state = tfn.jit(draws)(seed.state.value)
    assert len({tuple(y) for y in np.asarray(ys).tolist()}) == 3
    assert not np.array_equal(np.asarray(state), np.asarray(seed.state.value))


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_a_loop_up_to_a_computed_limit(compiled):
    """The limit of iterations may be a value of the program."""
    def power(x, times):
        return keras.ops.while_loop(lambda y: keras.ops.convert_to_tensor(True),
                                    lambda y: (y * 2,), (x,), maximum_iterations=times)[0]

    run = tfn.jit(power) if compiled else power
    for times in (0, 1, 5):
        assert float(run(core.convert_to_tensor(3.0), core.convert_to_tensor(times))) == 3 * 2 ** times


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_a_loop_that_writes_variables(compiled):
    """Its body counts the rounds; one variable it reads is written by nobody."""
    count, step = keras.Variable(10.0), keras.Variable(3.0)

    def body(i, total):
        count.assign(count + step)
        return i + 1, total + count

    def run(values, limit):
        with keras.StatelessScope(list(zip((count, step), values, strict=True))) as scope:
            _, total = keras.ops.while_loop(lambda i, total: i < limit, body, (0, 0.0))
        return total, scope.get_current_value(count), scope.get_current_value(step)

    run = tfn.jit(run) if compiled else run
    for limit in (0, 1, 4):
        rounds = 20 + 5 * np.arange(1, limit + 1)
        values = [core.convert_to_tensor(v) for v in (20.0, 5.0)]
        total, last, kept = (float(v) for v in run(values, core.convert_to_tensor(limit)))
        assert (total, last, kept) == (rounds.sum(), 20 + 5 * limit, 5)
    assert (float(count), float(step)) == (10, 3)


def test_a_loop_that_draws_random_numbers_draws_new_ones():
    """Compiled, the generator's state goes round with the loop: the numbers are the eager ones."""
    def run(state, rounds):
        seeds = keras.random.SeedGenerator(0)
        with keras.StatelessScope([(seeds.state, state)]) as scope:
            _, drawn = keras.ops.while_loop(
                lambda i, _: i < rounds,
                lambda i, drawn: (i + 1, keras.ops.slice_update(
                    drawn, [i], keras.random.uniform((1,), seed=seeds))),
                (0, keras.ops.zeros(4)))
        return drawn, scope.get_current_value(seeds.state)

    state = keras.random.SeedGenerator(5).state.value
    results = [function(state, core.convert_to_tensor(4)) for function in (run, tfn.jit(run))]
    for eager, compiled in zip(*results, strict=True):
        np.testing.assert_array_equal(np.asarray(eager), np.asarray(compiled))
    assert len(np.unique(np.asarray(results[0][0]))) == 4
