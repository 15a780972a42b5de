"""CTC against all paths, counted one by one."""

import itertools

import numpy as np
import pytest

from tfn import nn
from tfn.compiler import numpy as tnp
from tfn.compiler.nn.ctc import _compiled, _loss
from tfn.compiler.trace.grad import grad
from tfn.compiler.trace.jit import jit

RNG = np.random.default_rng(0)


def log_softmax(x):
    return x - np.log(np.sum(np.exp(x), -1, keepdims=True))


def probabilities(logits, blank):
    """Labels -> the probability of all their paths."""
    logs, found = log_softmax(logits.astype("f8")), {}
    for path in itertools.product(range(logits.shape[1]), repeat=logits.shape[0]):
        labels = tuple(k for k, _ in itertools.groupby(path) if k != blank)
        found[labels] = found.get(labels, 0) + np.exp(sum(logs[t, k] for t, k in enumerate(path)))
    return found


@pytest.mark.parametrize("blank", [0, 2])
def test_loss(engine, blank):
    logits = RNG.normal(size=(5, 5, 3)).astype("f4")
    one, two = [k for k in range(3) if k != blank]
    labels = np.int32([[one, two, one], [one, one, -1], [two, 0, 0], [0, 0, 0], [two, one, two]])
    counts, lengths = np.int32([3, 2, 1, 0, 3]), np.int32([5, 4, 5, 2, 3])
    found = engine(lambda lab, log, n, t: nn.ctc_loss(lab, log, n, t, blank), labels, logits, counts,
                   lengths)
    for i in range(5):
        known = probabilities(logits[i, :lengths[i]], blank)
        np.testing.assert_allclose(found[i], -np.log(known[tuple(labels[i, :counts[i]])]), rtol=1e-4)


def test_what_cannot_be_costs_much_and_gradients_stay_finite():
    logits, labels = RNG.normal(size=(1, 2, 3)).astype("f4"), np.int32([[1, 1]])
    assert float(nn.ctc_loss(labels, logits, [2], [2])[0]) > 9e4
    slope = grad(lambda x: tnp.sum(nn.ctc_loss(labels, x, [2], [2])))(logits)
    assert np.isfinite(np.asarray(slope)).all()


def test_gradient():
    logits = RNG.normal(size=(1, 4, 3)).astype("f4")
    labels = np.int32([[1, 2]])
    slope = np.asarray(grad(lambda x: tnp.sum(nn.ctc_loss(labels, x, [2], [4])))(logits))
    step = 1e-5
    for at in np.ndindex(4, 3):
        up, down = logits[0].astype("f8"), logits[0].astype("f8")
        up[at] += step
        down[at] -= step
        rise = np.log(probabilities(down, 0)[1, 2]) - np.log(probabilities(up, 0)[1, 2])
        np.testing.assert_allclose(slope[(0, *at)], rise / (2 * step), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("blank", [0, 3])
def test_a_wide_beam_finds_the_most_probable_labels(engine, blank):
    logits = RNG.normal(size=(3, 4, 4)).astype("f4") * 2
    lengths = np.int32([4, 1, 3])
    paths, scores = engine(lambda x, n: nn.ctc_beam_search_decode(x, n, 200, 3, blank), logits, lengths)
    assert paths.shape == (3, 3, 4) and scores.shape == (3, 3)
    for i in range(3):
        known = probabilities(logits[i, :lengths[i]], blank)
        best = sorted(known, key=known.get, reverse=True)[:3]
        for rank, labels in enumerate(best):
            assert tuple(k for k in paths[rank, i] if k >= 0) == labels
            np.testing.assert_allclose(scores[i, rank], np.log(known[labels]), rtol=1e-4)


def test_greedy(engine):
    best = np.int32([[1, 1, 0, 1, 2], [2, 2, 2, 0, 0]])
    inputs = np.eye(3, dtype="f4")[best] * np.float32(2)
    found, scores = engine(lambda x, n: nn.ctc_greedy_decode(x, n), inputs, np.int32([5, 2]))
    np.testing.assert_array_equal(found, [[[1, 1, 2, -1, -1], [2, -1, -1, -1, -1]]])
    np.testing.assert_array_equal(scores, [[-10], [-4]])
    every, _ = engine(lambda x, n: nn.ctc_greedy_decode(x, n, False), inputs, np.int32([5, 2]))
    np.testing.assert_array_equal(every[0], [[1, 1, 1, 2, -1], [2, 2, -1, -1, -1]])


def test_eager_calls_are_traced_once_per_signature():
    logits = RNG.normal(size=(2, 4, 3)).astype("f4")
    labels, counts, lengths = np.int32([[1, 2], [2, 0]]), np.int32([2, 1]), np.int32([4, 3])
    first = nn.ctc_loss(labels, logits, counts, lengths)
    compiled = _compiled(_loss, 4, 1)
    text = compiled.explain()
    again = nn.ctc_loss(labels, logits * 2, counts, lengths)
    assert compiled.explain() == text
    for found, values in ((first, logits), (again, logits * 2)):
        traced = jit(lambda v: nn.ctc_loss(labels, v, counts, lengths))(values)
        np.testing.assert_allclose(np.asarray(found), np.asarray(traced), rtol=1e-6)
