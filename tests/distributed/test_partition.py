"""Partitioned programs on a virtual mesh: equal to the whole program, with the same bits on any number
of ranks."""

import numpy as np
import pytest

import tfn
from tfn import nn
from tfn import numpy as tnp
from tfn.compiler.errors import UnsupportedError
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dtypes import as_dtype
from tfn.compiler.trace.core import bind, trace, trace_region
from tfn.distributed.data_parallel import DataParallelProgram
from tfn.distributed.virtual import VirtualMesh

RNG = np.random.default_rng(0)
W = RNG.normal(size=(5, 3)).astype("f4")
X = RNG.normal(size=(16, 5)).astype("f4")
IMAGES = RNG.normal(size=(16, 6, 6, 2)).astype("f4")
KERNEL = RNG.normal(size=(3, 3, 2, 4)).astype("f4")
LABELS = RNG.integers(0, 3, 16).astype("i4")


def program(function, arrays):
    return trace(lambda *a: [function(*a)] if not isinstance(function(*a), (list, tuple))
                 else list(function(*a)),
                 [TensorType(a.shape, as_dtype(a.dtype)) for a in arrays])[0]


def run(function, arrays, state, ranks):
    """Results of all ranks; the first `state` arguments are whole."""
    traced = program(function, arrays)
    mesh = VirtualMesh(ranks)
    programs = [DataParallelProgram(traced, state, r, ranks, mesh.communicator(r))
                for r in range(ranks)]
    return mesh.run([p.executable for p in programs], [p.local(arrays) for p in programs])


def loss(w, x, y):
    logits = tnp.matmul(x, w)
    picked = tnp.take_along_axis(nn.log_softmax(logits), tnp.expand_dims(y, -1), -1)
    return -tnp.mean(picked)


def batch_norm(w, x):
    mean = tnp.mean(x, 0)
    variance = tnp.mean(tnp.square(x - mean), 0)
    return (x - mean) * tnp.rsqrt(variance + 1e-3), mean, variance


def captured(w, x):
    """A branch that refers to a value that is split over the batch."""
    doubled = x * 2
    true = trace_region(lambda: [tnp.sum(doubled, 0)], [])
    false = trace_region(lambda: [tnp.sum(doubled * w[0, 1], 0)], [])
    return bind("stablehlo.if", w[0, 0] > 0, regions=[true, false])


PROGRAMS = {
    "elementwise": (lambda w, x: tnp.tanh(x) * 2 + w[0, 0], (W, X)),
    "sum over the batch": (lambda w, x: tnp.sum(x, 0), (W, X)),
    "sum over features": (lambda w, x: tnp.sum(x, 1), (W, X)),
    "sum of all": (lambda w, x: tnp.sum(x * x), (W, X)),
    "product": (lambda w, x: tnp.prod(1 + 0.1 * x, 0), (W, X)),
    "maximum": (lambda w, x: tnp.max(x, 0), (W, X)),
    "matmul": (lambda w, x: tnp.matmul(x, w), (W, X)),
    "weight gradient": (lambda w, x: tnp.matmul(tnp.transpose(x), x), (W, X)),
    "reshape and transpose": (lambda w, x: tnp.transpose(tnp.reshape(x, (16, 5, 1)), (1, 0, 2)),
                              (W, X)),
    "batch norm": (batch_norm, (W, X)),
    "gradient": (lambda w, x, y: tfn.grad(loss)(w, x, y), (W, X, LABELS)),
    "embedding gradient": (
        lambda w, y: tfn.grad(lambda t: tnp.sum(tnp.square(tnp.take(t, y, 0))))(w), (W, LABELS)),
    "concatenate rows": (lambda w, x: tnp.concatenate([x, x + 1], 0), (W, X)),
    "sort rows": (lambda w, x: tnp.sort(x, 0), (W, X)),
    "captured by a branch": (captured, (W, X)),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_rank_count_gives_the_whole_result(name):
    function, arrays = PROGRAMS[name]
    whole = tfn.jit(function)(*arrays)
    whole = [np.asarray(v) for v in (whole if isinstance(whole, (list, tuple)) else [whole])]
    found = {ranks: run(function, arrays, 1, ranks) for ranks in (1, 2, 4, 8)}
    for ranks, per_rank in found.items():
        for results in per_rank:
            for a, b, first in zip(results, whole, found[1][0], strict=True):
                np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)
                assert a.tobytes() == first.tobytes(), f"{ranks} ranks"


def test_convolution_and_its_gradient():
    def function(k, x):
        value = lambda k: tnp.sum(tnp.square(nn.conv(x, k, 1, "same")))  # noqa: E731
        return tfn.grad(value)(k)

    whole = np.asarray(tfn.jit(function)(KERNEL, IMAGES))
    first = run(function, (KERNEL, IMAGES), 1, 1)[0][0]
    for results in run(function, (KERNEL, IMAGES), 1, 4):
        np.testing.assert_allclose(results[0], whole, rtol=1e-4, atol=1e-3)
        assert results[0].tobytes() == first.tobytes()


@pytest.mark.parametrize("ranks", [2, 4])
def test_a_nan_reaches_a_maximum(ranks):
    x = X.copy()
    x[13, 2] = np.nan
    for results in run(lambda w, x: tnp.max(x, 0), (W, x), 1, ranks):
        np.testing.assert_array_equal(np.isnan(results[0]), [False, False, True, False, False])


def test_a_batch_that_does_not_divide_is_done_by_all():
    x = X[:7]
    for results in run(lambda w, x: tnp.sum(x, 0), (W, x), 1, 2):
        np.testing.assert_allclose(results[0], x.sum(0), rtol=1e-5)


def test_inputs_of_different_length_are_done_by_all():
    for results in run(lambda w, x, y: (tnp.sum(x), tnp.sum(y)), (W, X, LABELS[:4]), 1, 2):
        np.testing.assert_allclose(results[0], X.sum(), rtol=1e-5)
        assert results[1] == LABELS[:4].sum()


def test_what_adds_to_something_else_is_refused():
    def function(w, x):
        return bind("stablehlo.reduce", x, w[0, 0], dimensions=(0,),
                    regions=[trace_region(lambda a, b: [a + b], [TensorType((), as_dtype("f32"))] * 2)])

    with pytest.raises(UnsupportedError, match="not the identity of add"):
        run(function, (W, X), 1, 2)


def test_a_failing_rank_is_heard():
    mesh = VirtualMesh(2)

    class Failing:
        def __call__(self, *_):
            raise ZeroDivisionError("rank 1")

    traced = program(lambda w, x: tnp.sum(x), (W, X))
    first = DataParallelProgram(traced, 1, 0, 2, mesh.communicator(0))
    with pytest.raises(ZeroDivisionError, match="rank 1"):
        mesh.run([first.executable, Failing()], [first.local((W, X)), []])
