"""The kernels of LSTMs against cells written out: in NumPy, and as a program without composites."""

import numpy as np
import pytest

from tfn.compiler import nn
from tfn.compiler import numpy as tnp
from tfn.compiler.codegen.target import Target
from tfn.compiler.compile import compile_function, run_passes
from tfn.compiler.errors import OpError
from tfn.compiler.ir.core import Module, TensorType
from tfn.compiler.ir.dims import Dim
from tfn.compiler.ir.dtypes import F32, as_dtype
from tfn.compiler.ir.dynamic import refine
from tfn.compiler.ir.parser import parse_module
from tfn.compiler.runtime.cache import KERNELS
from tfn.compiler.trace.core import trace
from tfn.compiler.trace.grad import grad
from tfn.compiler.trace.jit import jit

RNG = np.random.default_rng(9)
SIZES = [(5, 7, 6, 20), (1, 3, 4, 1), (33, 4, 3, 16), (16, 1, 8, 48), (40, 2, 5, 33)]
"""Batch, steps, features, units."""
CASES = [(SIZES[0], np.float32, True, True), (SIZES[1], np.float64, False, True),
         (SIZES[3], np.float32, False, False), (SIZES[4], np.float32, True, False)]
"""Of the derivatives: sizes, dtype, masked, reverse."""


def arguments(sizes, dtype=np.float32):
    b, t, f, u = sizes
    shapes = [(b, t, f), (b, u), (b, u), (f, 4 * u), (u, 4 * u), (4 * u,)]
    return [(RNG.standard_normal(s) * 0.5).astype(dtype) for s in shapes]


def cells(xp, x, h, c, kernel, weights, bias, mask=None, reverse=False):
    """An LSTM step by step."""

    def sigmoid(v):
        return 1 / (1 + xp.exp(-v))

    outputs = [None] * x.shape[1]
    for t in order(x, reverse):
        i, f, g, o = xp.split(x[:, t] @ kernel + h @ weights + bias, 4, axis=-1)
        cell = sigmoid(f) * c + sigmoid(i) * xp.tanh(g)
        h, c = (chosen(xp, mask, t, *both) for both in ((sigmoid(o) * xp.tanh(cell), h), (cell, c)))
        outputs[t] = h
    return xp.stack(outputs, 1), h, c


def order(x, reverse):
    steps = range(x.shape[1])
    return reversed(steps) if reverse else steps


def chosen(xp, mask, t, new, old):
    return new if mask is None else xp.where(mask[:, t, None], new, old)


def kernels(program, *arrays):
    """The ops of a program that are kernels of LSTMs."""
    types = [TensorType(a.shape, as_dtype(a.dtype)) for a in arrays]
    function, _ = trace(lambda *a: list(program(*a)), types)
    return [inner.name for op in run_passes(function, Target.host()).ops for region in op.regions
            for inner in region.ops if inner.name.startswith(("tfn.lstm", "tfn.gru", "tfn.simple_rnn"))]


def masks(sizes):
    """Steps that rows skip, first and last ones too, and a row that skips all of them."""
    mask = RNG.random(sizes[:2]) > 0.4
    mask[0] = False
    return mask


@pytest.mark.parametrize("masked, reverse", [(False, True), (True, False)])
@pytest.mark.parametrize("sizes", SIZES)
def test_forward(sizes, masked, reverse):
    arrays = arguments(sizes)
    mask = masks(sizes) if masked else None

    def program(*a):
        return nn.lstm(*a, mask=mask, reverse=reverse)

    expected = cells(np, *[a.astype(np.float64) for a in arrays], mask, reverse)
    for found, wanted in zip(jit(program)(*arrays), expected, strict=True):
        np.testing.assert_allclose(np.asarray(found), wanted, rtol=1e-5, atol=2e-6)
    assert kernels(program, *arrays) == ["tfn.lstm"]


def losses(program, sizes):
    b, t, _, u = sizes
    seen, last = RNG.standard_normal((b, t, u)), RNG.standard_normal((b, u))

    def loss(*a):
        outputs, h, c = program(*a)
        return (outputs * seen.astype(outputs.dtype)).sum() + (h * c * last.astype(h.dtype)).sum()

    return loss


@pytest.mark.parametrize("sizes, dtype, masked, reverse", CASES)
def test_backward(sizes, dtype, masked, reverse):
    arrays = arguments(sizes, dtype)
    mask = masks(sizes) if masked else None
    state = RNG.bit_generator.state
    fused = losses(lambda *a: nn.lstm(*a, mask=mask, reverse=reverse), sizes)
    RNG.bit_generator.state = state
    plain = losses(lambda *a: cells(tnp, *a, mask, reverse), sizes)
    every = tuple(range(6))
    agree(jit(grad(fused, argnums=every))(*arrays), grad(plain, argnums=every)(*arrays), dtype)
    assert kernels(grad(fused, argnums=every), *arrays) == ["tfn.lstm", "tfn.lstm_backward"]


def agree(found, expected, dtype):
    for one, other in zip(found, expected, strict=True):
        bound = (2e-5 if dtype == np.float32 else 1e-12) * max(1, np.abs(np.asarray(other)).max())
        np.testing.assert_allclose(np.asarray(one), np.asarray(other), rtol=0, atol=bound)


def test_only_what_is_asked_for_is_made():
    arrays = arguments((5, 7, 6, 20))
    loss = losses(nn.lstm, (5, 7, 6, 20))
    every = jit(grad(loss, argnums=(1, 4)))(*arrays)
    for number, expected in zip((1, 4), every, strict=True):
        found = jit(grad(loss, argnums=number))(*arrays)
        assert np.asarray(found).tobytes() == np.asarray(expected).tobytes()
    last = jit(lambda *a: nn.lstm(*a)[2])(*arrays)
    np.testing.assert_allclose(np.asarray(last), cells(np, *arrays)[2], rtol=1e-5, atol=2e-6)


def test_the_second_derivative():
    arrays = arguments((2, 3, 2, 3), np.float64)
    step = RNG.standard_normal(arrays[4].shape)

    def slope(program):
        def along(weights):
            first = grad(lambda w: (program(*arrays[:4], w, arrays[5])[0] ** 2).sum())(weights)
            return (first * step).sum()
        return along

    found = jit(grad(slope(nn.lstm)))(arrays[4])
    expected = grad(slope(lambda *a: cells(tnp, *a)))(arrays[4])
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=1e-9, atol=1e-11)


def test_a_new_batch_size_compiles_nothing_and_changes_no_bit():
    n = Dim.named("n")
    x, h, c, *weights = arguments((50, 6, 5, 24))
    types = [TensorType((n, *a.shape[1:]), F32) for a in (x, h, c)]
    types += [TensorType(a.shape, F32) for a in weights]
    loss = losses(nn.lstm, (1, 6, 5, 24))
    function, _ = trace(lambda *a: [*nn.lstm(*a), grad(loss)(*a)], types)
    executable = compile_function(function)
    whole = executable(x, h, c, *weights)
    made = KERNELS.statistics.compiled
    part = executable(x[3:23], h[3:23], c[3:23], *weights)
    assert KERNELS.statistics.compiled == made
    for one, other in zip(part, whole, strict=True):
        assert one.tobytes() == other[3:23].tobytes()


def test_narrow_numbers_use_the_decomposition():
    arrays = [a.astype(np.float16) for a in arguments((3, 4, 5, 6))]
    assert kernels(nn.lstm, *arrays) == []
    found = np.asarray(jit(nn.lstm)(*arrays)[0]).astype(np.float64)
    np.testing.assert_allclose(found, cells(np, *[a.astype(np.float64) for a in arrays])[0], atol=5e-3)


def test_kernels_that_do_not_fit_are_refused():
    x, h, c, kernel, weights, _ = arguments((3, 4, 5, 6))
    with pytest.raises(OpError, match=r"lstm of 6 units needs kernels with 24 columns, got \(5, 23\)"):
        nn.lstm(x, h, c, kernel[:, :23], weights)


def test_masks_that_do_not_fit_are_refused():
    arrays = arguments((3, 4, 5, 6))
    with pytest.raises(OpError, match=r"a mask \(batch, time\) = \(3, 4\), got \(4, 3\)"):
        nn.lstm(*arrays, mask=np.ones((4, 3), bool))


def test_a_layer_for_any_batch_is_the_same_when_it_is_read_again():
    arrays = [*arguments((3, 4, 5, 6)), masks((3, 4))]
    n = Dim.named("n")
    types = [TensorType((n, *a.shape[1:]) if i in (0, 1, 2, 6) else a.shape, as_dtype(a.dtype))
             for i, a in enumerate(arrays)]
    function, _ = trace(lambda *a: list(nn.lstm(*a, reverse=True)), types)
    text = str(Module({function.name: function}))
    again = refine(parse_module(text)[function.name], types)
    for one, other in zip(compile_function(again)(*arrays), compile_function(function)(*arrays),
                          strict=True):
        assert one.tobytes() == other.tobytes()
    names = [inner.name for op in run_passes(again, Target.host()).ops for region in op.regions
             for inner in region.ops]
    assert names.count("tfn.lstm") == 1


def gru_cells(xp, x, h, kernel, weights, bias, own_bias, mask=None, reverse=False):
    """A GRU step by step."""

    def sigmoid(v):
        return 1 / (1 + xp.exp(-v))

    outputs = [None] * x.shape[1]
    for t in order(x, reverse):
        given = xp.split(x[:, t] @ kernel + bias, 3, axis=-1)
        own = xp.split(h @ weights + own_bias, 3, axis=-1)
        update, reset = sigmoid(given[0] + own[0]), sigmoid(given[1] + own[1])
        new = update * h + (1 - update) * xp.tanh(given[2] + reset * own[2])
        h = outputs[t] = chosen(xp, mask, t, new, h)
    return xp.stack(outputs, 1), h


def simple_cells(xp, x, h, kernel, weights, bias, mask=None, reverse=False):
    """A cell of one gate, step by step."""
    outputs = [None] * x.shape[1]
    for t in order(x, reverse):
        h = outputs[t] = chosen(xp, mask, t, xp.tanh(x[:, t] @ kernel + bias + h @ weights), h)
    return xp.stack(outputs, 1), h


def cell_arguments(name, sizes, dtype=np.float32):
    b, t, f, u = sizes
    blocks = 3 if name == "gru" else 1
    shapes = [(b, t, f), (b, u), (f, blocks * u), (u, blocks * u), *[(blocks * u,)] * (blocks // 2 + 1)]
    return [(RNG.standard_normal(s) * 0.5).astype(dtype) for s in shapes]


CELLS = {"gru": gru_cells, "simple_rnn": simple_cells}


@pytest.mark.parametrize("sizes, dtype, masked, reverse", CASES)
@pytest.mark.parametrize("name", CELLS)
def test_cells_of_one_state(name, sizes, dtype, masked, reverse):
    arrays = cell_arguments(name, sizes, dtype)
    mask = masks(sizes) if masked else None

    def fused(*a):
        return getattr(nn, name)(*a, mask=mask, reverse=reverse)

    def plain(*a):
        return CELLS[name](tnp, *a, mask, reverse)

    agree(jit(fused)(*arrays), CELLS[name](np, *[a.astype(np.float64) for a in arrays], mask, reverse),
          dtype)
    state = RNG.bit_generator.state
    slopes = []
    for program in (fused, plain):
        RNG.bit_generator.state = state
        slopes.append(grad(losses(lambda *a, p=program: (*p(*a), p(*a)[1]), sizes),
                           argnums=tuple(range(len(arrays)))))
    agree(jit(slopes[0])(*arrays), slopes[1](*arrays), dtype)
    assert set(kernels(slopes[0], *arrays)) == {f"tfn.{name}", f"tfn.{name}_backward"}
