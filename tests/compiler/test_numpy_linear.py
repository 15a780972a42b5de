"""Products, einsum, sorting and order statistics against NumPy."""

import numpy as np
import pytest

import tfn.compiler.numpy as tnp
from tfn.compiler.errors import OpError, UnsupportedError
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dims import Dim
from tfn.compiler.ir.dtypes import F32
from tfn.compiler.trace.core import trace

RNG = np.random.default_rng(0)


def random(*shape):
    return RNG.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(("a", "b"), [
    ((3,), (3,)), ((3,), (3, 4)), ((2, 3), (3,)), ((2, 3), (3, 4)), ((5, 2, 3), (3, 4)),
    ((5, 2, 3), (5, 3, 4)), ((5, 2, 3), (3,)), ((3,), (5, 3, 4)), ((2, 3), (5, 3, 4)),
    ((1, 2, 3), (5, 3, 4)), ((5, 1, 2, 3), (6, 3, 4)), ((5, 2, 3), (1, 3, 4)),
    ((0, 3), (3, 4)), ((2, 0), (0, 4))])
def test_matmul(engine, a, b):
    x, y = random(*a), random(*b)
    found = engine(tnp.matmul, x, y)
    assert found.shape == np.matmul(x, y).shape
    np.testing.assert_allclose(found, np.matmul(x, y), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["dot", "inner", "outer", "vdot", "kron"])
def test_vector_products(engine, name):
    x, y = random(4), random(4)
    np.testing.assert_allclose(engine(getattr(tnp, name), x, y), getattr(np, name)(x, y),
                               rtol=1e-5, atol=1e-6)


def test_dot_and_inner_of_more_dims(engine):
    x, y = random(2, 3, 4), random(5, 4, 6)
    np.testing.assert_allclose(engine(tnp.dot, x, y), np.dot(x, y), rtol=1e-4, atol=1e-5)
    y = random(5, 4)
    np.testing.assert_allclose(engine(tnp.inner, x, y), np.inner(x, y), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(engine(tnp.kron, x, y), np.kron(x, y), rtol=1e-5)


@pytest.mark.parametrize("axes", [0, 1, 2, ([2, 1], [1, 0]), ((-1,), (1,))])
def test_tensordot(engine, axes):
    x = random(2, 3, 4)
    y = {0: random(2, 3), 1: random(4, 3), 2: random(3, 4)}.get(
        axes if isinstance(axes, int) else None, random(3, 4, 5))
    np.testing.assert_allclose(engine(lambda a, b: tnp.tensordot(a, b, axes), x, y),
                               np.tensordot(x, y, axes), rtol=1e-4, atol=1e-5)


EINSUMS = [
    ("ij,jk->ik", (2, 3), (3, 4)), ("ij,jk", (2, 3), (3, 4)),
    ("bij,bjk->bik", (5, 2, 3), (5, 3, 4)),
    ("ij->ji", (2, 3)), ("ij->i", (2, 3)), ("ij->", (2, 3)), ("ii->i", (3, 3)), ("ii", (3, 3)),
    ("iij->j", (3, 3, 2)), ("i,j->ij", (2,), (3,)), ("i,i->", (4,), (4,)), ("i,i->i", (4,), (4,)),
    ("...ij,...jk->...ik", (5, 2, 3), (5, 3, 4)), ("...ij,jk->...ik", (5, 2, 3), (3, 4)),
    ("...ij,...jk->...ik", (5, 2, 3), (6, 5, 3, 4)), ("ba,b->ab", (3, 4), (3,)),
    ("btnh,bsnh->bnts", (2, 3, 2, 4), (2, 5, 2, 4)),
    ("bnts,bsnh->btnh", (2, 2, 3, 5), (2, 5, 2, 4)),
    ("abc,cde,de->abe", (2, 3, 4), (4, 5, 6), (5, 6)), ("ij,jk,kl->il", (2, 3), (3, 4), (4, 5)),
    ("a,b,c,d->dcba", (2,), (3,), (4,), (5,)), ("ij,ij->ji", (2, 3), (2, 3)),
    ("b...,b...->b...", (2, 3), (2, 1)), ("abc,abd->cd", (2, 3, 4), (2, 3, 5)),
]


@pytest.mark.parametrize("case", EINSUMS, ids=[c[0] for c in EINSUMS])
def test_einsum(engine, case):
    subscripts, *shapes = case
    arrays = [random(*s) for s in shapes]
    expected = np.einsum(subscripts, *arrays)
    found = engine(lambda *a: tnp.einsum(subscripts, *a), *arrays)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_integer_products_in_a_wider_type(engine):
    x = np.full((2, 200), 100, np.int8)
    found = engine(lambda a: tnp.matmul(a, a.T, preferred_element_type="int32"), x)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, np.full((2, 2), 2_000_000))


def test_products_on_a_symbolic_batch():
    batch = Dim.named("batch")

    def program(x):
        return [tnp.einsum("...ij,jk->...ik", x, np.ones((4, 2), np.float32)), x @ x.mT,
                tnp.tensordot(x, np.ones((4, 7), np.float32), 1)]

    function, _ = trace(program, [TensorType((batch, 3, 4), F32)])
    assert [t.shape for t in function.result_types] == [(batch, 3, 2), (batch, 3, 3), (batch, 3, 7)]


def test_errors_name_the_shapes():
    with pytest.raises(OpError, match=r"matmul of \(2, 3\) and \(4, 5\)"):
        tnp.matmul(random(2, 3), random(4, 5))
    with pytest.raises(OpError, match="names 2 operands, got 1"):
        tnp.einsum("ij,jk->ik", random(2, 3))


@pytest.mark.parametrize("ord", [None, 1, 2, 3, np.inf, -np.inf, 0])
def test_vector_norms(engine, ord):
    x = random(4, 5)
    np.testing.assert_allclose(engine(lambda v: tnp.norm(v, ord, 1, keepdims=True), x),
                               np.linalg.norm(x, ord, 1, keepdims=True), rtol=1e-5)


def test_cross(engine):
    x, y = random(4, 3), random(4, 3)
    np.testing.assert_allclose(engine(tnp.cross, x, y), np.cross(x, y), rtol=1e-4, atol=1e-6)


# -- order ----------------------------------------------------------------------------------------

TIES = np.float32([[3, 1, 2, 1, np.nan, -0.0, 0.0], [np.inf, 5, -np.inf, 5, 5, 2, np.nan]])


@pytest.mark.parametrize("axis", [-1, 0, None])
def test_sort_and_argsort(engine, axis):
    np.testing.assert_array_equal(engine(lambda x: tnp.sort(x, axis), TIES), np.sort(TIES, axis))
    found = engine(lambda x: tnp.argsort(x, axis), TIES)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, np.argsort(TIES, axis, kind="stable"))


def test_descending_order_is_stable(engine):
    x = np.int32([1, 3, 3, 2])
    np.testing.assert_array_equal(engine(lambda v: tnp.argsort(v, descending=True), x),
                                  [1, 2, 3, 0])
    np.testing.assert_array_equal(engine(lambda v: tnp.sort(v, descending=True), x), [3, 3, 2, 1])


def test_top_k(engine):
    values, places = engine(lambda x: tnp.top_k(x, 2), np.float32([[1, 9, 3], [4, 4, 0]]))
    np.testing.assert_array_equal(values, [[9, 3], [4, 4]])
    np.testing.assert_array_equal(places, [[1, 2], [0, 1]])


@pytest.mark.parametrize("side", ["left", "right"])
def test_searchsorted(engine, side):
    line, v = np.float32([1, 2, 2, 5]), np.float32([[0, 2], [3, 9]])
    np.testing.assert_array_equal(engine(lambda a, b: tnp.searchsorted(a, b, side), line, v),
                                  np.searchsorted(line, v, side))
    np.testing.assert_array_equal(engine(lambda a, b: tnp.digitize(b, a), line, v),
                                  np.digitize(v, line))


@pytest.mark.parametrize("axis", [None, 0, 1, (0, 2)])
@pytest.mark.parametrize("method", ["linear", "lower", "higher", "midpoint", "nearest"])
def test_quantiles(engine, axis, method):
    x = random(3, 4, 5)
    q = [0.1, 0.5, 1.0]
    np.testing.assert_allclose(
        engine(lambda v: tnp.quantile(v, q, axis, method=method), x),
        np.quantile(x, q, axis, method=method), rtol=1e-4, atol=1e-6)


def test_median_and_percentile(engine):
    x = random(4, 6)
    np.testing.assert_allclose(engine(lambda v: tnp.median(v, 1, keepdims=True), x),
                               np.median(x, 1, keepdims=True), rtol=1e-6)
    np.testing.assert_allclose(engine(lambda v: tnp.percentile(v, 30), x), np.percentile(x, 30),
                               rtol=1e-4)
    assert np.isnan(engine(tnp.median, np.float32([1, np.nan])))


def test_shapes_that_depend_on_values_are_eager_only():
    x = np.int32([3, 0, 1, 3])
    np.testing.assert_array_equal(tnp.nonzero(x)[0], [0, 2, 3])
    np.testing.assert_array_equal(tnp.unique(x), [0, 1, 3])
    np.testing.assert_array_equal(tnp.where(x > 0)[0], [0, 2, 3])
    np.testing.assert_array_equal(tnp.bincount(x), [1, 1, 0, 2])
    with pytest.raises(UnsupportedError, match="outside jit"):
        trace(lambda v: [tnp.unique(v)], [TensorType((3,), F32)])


def test_histogram_and_bincount(engine):
    x = np.float32([0, 0.1, 0.5, 0.99, 1, 3])
    for ours, theirs in zip(engine(lambda v: tnp.histogram(v, 4), x), np.histogram(x, 4),
                            strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    found = engine(lambda v: tnp.bincount(v, length=5), np.int32([1, 4, 1]))
    np.testing.assert_array_equal(found, [0, 2, 0, 0, 1])


def test_isin(engine):
    np.testing.assert_array_equal(engine(lambda v: tnp.isin(v, [1, 5]), np.int32([1, 2, 5])),
                                  [True, False, True])


@pytest.mark.parametrize("axes", [{"axisa": 0, "axisb": 1}, {"axisc": 0}, {"axis": 0},
                                  {"axisa": 0, "axisb": 1, "axisc": 1}])
def test_cross_along_other_axes(engine, axes):
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=s) for s in ((3, 4), (4, 3)))
    if axes == {"axisc": 0}:
        a = a.T
    if axes == {"axis": 0}:
        b = b.T
    np.testing.assert_allclose(engine(lambda p, q: tnp.cross(p, q, **axes), a, b),
                               np.cross(a, b, **axes), rtol=1e-9)


def test_einsum_by_numbers(engine):
    a, b = np.arange(6.0).reshape(2, 3), np.arange(12.0).reshape(3, 4)
    for terms in (([0, 1], [1, 2], [2, 0]), ([0, 1], [1, 2]), ([0, 30], [30, 2]),
                  ([..., 1], [1, 2], [..., 2])):
        def call(module, p, q, terms=terms):
            return module.einsum(p, terms[0], q, terms[1], *terms[2:])

        found = engine(lambda p, q, run=call: run(tnp, p, q), a, b)
        np.testing.assert_array_equal(found, call(np, a, b))
    assert tnp.einsum_path("ij,jk,kl->il", a, b, b.T) == np.einsum_path("ij,jk,kl->il", a, b, b.T)
