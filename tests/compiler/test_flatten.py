"""Kernels with merged dims: which shapes share one, and that the results are those of NumPy."""

import numpy as np
import pytest

import tfn.compiler.numpy as tnp
from tfn.compiler.compile import compile_function
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dims import Dim
from tfn.compiler.ir.dtypes import F32
from tfn.compiler.trace.core import trace

RNG = np.random.default_rng(3)


def compiled(function, *shapes):
    return compile_function(trace(lambda *a: [function(*a)], [TensorType(s, F32) for s in shapes])[0])


def arrays(*shapes):
    return [RNG.standard_normal(s).astype(np.float32) for s in shapes]


def kernels(executable):
    return [k.name for k in executable.plan.kernels()]


def normalised(x, mean, scale):
    return (x - mean) * scale + 1


def squares(x, mean):
    return ((x - mean) ** 2).sum((0, 1, 2))


@pytest.mark.parametrize("shapes", [((2, 8, 9, 16), (5, 3, 4, 16)), ((7, 1, 6, 16), (1, 1, 1, 16))])
def test_images_of_all_sizes_share_what_goes_along_channels(shapes):
    names = {what: set() for what in ("normalised", "squares")}
    for shape in shapes:
        x, mean, scale = arrays(shape, (16,), (16,))
        program = compiled(normalised, shape, (16,), (16,))
        names["normalised"].add(tuple(kernels(program)))
        np.testing.assert_allclose(program(x, mean, scale)[0], normalised(x, mean, scale),
                                   rtol=1e-5, atol=1e-5)
        program = compiled(squares, shape, (16,))
        names["squares"].add(tuple(kernels(program)))
        np.testing.assert_allclose(program(x, mean)[0], squares(x.astype(np.float64), mean), rtol=1e-4)
    assert all(len(found) == 1 for found in names.values())


@pytest.mark.parametrize(("function", "shapes"), [
    (lambda x, y: x * 2 + y, ((3, 4, 5), (4, 5))),
    (lambda x, y: x * 2 + y, ((3, 4, 5), (3, 4, 5))),
    (lambda x, y: x * 2 + y, ((5, 5), (5,))),
    (lambda x, y: x * 2 + y[:, None], ((5, 5), (5,))),
    (lambda x, y: x * 2 + y[:, None, :], ((4, 6, 5), (4, 5))),
    (lambda x, y: (x * y).sum(0), ((6, 4, 5), (4, 5))),
    (lambda x, y: (x * y).sum((0, 2)), ((6, 4, 5), (5,))),
    (lambda x, y: (x * y).sum((0, 1)) - y, ((0, 4, 5), (5,))),
    (lambda x, y: x.max((0, 1)) + y, ((6, 4, 5), (5,)))],
    ids=["rows", "elements", "square", "columns", "between", "planes", "apart", "empty", "largest"])
def test_dims_are_merged_only_where_they_may_be(function, shapes):
    given = arrays(*shapes)
    (found,) = compiled(function, *shapes)(*given)
    np.testing.assert_allclose(found, function(*given), rtol=1e-5, atol=1e-5)


def test_the_size_of_a_batch_may_be_unknown():
    n = Dim.named("n")
    program = compiled(normalised, (n, 3, 2, 5), (5,), (5,))
    for batch in (1, 4):
        given = arrays((batch, 3, 2, 5), (5,), (5,))
        np.testing.assert_allclose(program(*given)[0], normalised(*given), rtol=1e-5, atol=1e-6)


def test_the_zero_that_sums_begin_with_keeps_its_sign():
    (found,) = compiled(lambda x: tnp.sum(x, (0, 1)), (3, 4, 2))(np.full((3, 4, 2), -0.0, np.float32))
    np.testing.assert_array_equal(np.signbit(found), np.signbit(np.float32(0.0) + np.full(2, -0.0)))
