"""Index arrays and grids of `tfn.numpy` against NumPy: shapes, sparse ones, masks, flat indices."""

import numpy as np
import pytest

import tfn.compiler.numpy as tnp
from tfn.compiler.errors import OpError, UnsupportedError
from tfn.compiler.trace.jit import jit

GRIDS = {
    "a range": np.s_[2:7], "a step": np.s_[1:9:3], "backwards": np.s_[5:0:-2], "points": np.s_[0:1:5j],
    "two": np.s_[0:3, 1:5:2], "mixed": np.s_[0:3, -1:1:3j], "three": np.s_[:2, :3, :4],
    "empty": np.s_[3:3, 0:2],
}


@pytest.mark.parametrize("key", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("name", ["mgrid", "ogrid"])
def test_grids(name, key):
    ours, theirs = getattr(tnp, name)[key], getattr(np, name)[key]
    for a, b in zip(ours if isinstance(ours, tuple) else [ours],
                    theirs if isinstance(theirs, tuple) else [theirs], strict=True):
        assert a.dtype == (np.float32 if b.dtype.kind == "f" else np.int32)
        np.testing.assert_allclose(a, b, rtol=1e-6)


A, B = np.arange(3.0), np.arange(4.0, 7.0)
MATRIX = np.arange(6.0).reshape(2, 3)
JOINS = {
    "arrays": np.s_[A, B], "numbers": np.s_[A, 5.0, B], "ranges": np.s_[0.0:3, A],
    "points": np.s_[0:1:3j, A], "rows": ("0,2", A, B), "columns": ("1,2", A, B),
    "matrices": ("-1", MATRIX, MATRIX), "placed": ("0,2,0", A, B), "deep": ("0,3,1", A, B),
    "one": A,
}


@pytest.mark.parametrize("key", JOINS.values(), ids=JOINS)
def test_r(key):
    np.testing.assert_allclose(tnp.r_[key], np.r_[key], rtol=1e-6)


@pytest.mark.parametrize("key", [np.s_[A, B], np.s_[MATRIX, MATRIX], np.s_[MATRIX, A[:2]], A],
                         ids=["lines", "matrices", "both", "one"])
def test_c(engine, key):
    np.testing.assert_allclose(tnp.c_[key], np.c_[key])
    first, *rest = key if isinstance(key, tuple) else (key,)
    np.testing.assert_allclose(engine(lambda v: tnp.c_[(v, *rest)], first), np.c_[key])


def test_keys_as_values():
    assert tnp.s_[1:, ..., None] == np.s_[1:, ..., None] and tnp.s_[2] == 2
    assert tnp.index_exp[2] == (2,) and tnp.index_exp[1, 2:] == np.index_exp[1, 2:]


@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (2, 0, 3)])
def test_indices(shape):
    np.testing.assert_array_equal(tnp.indices(shape), np.indices(shape))
    for a, b in zip(tnp.indices(shape, sparse=True), np.indices(shape, sparse=True), strict=True):
        np.testing.assert_array_equal(a, b)
    assert tnp.indices(shape).dtype == np.int32
    assert tnp.indices((2, 3), dtype=tnp.float64).dtype == np.float64


def test_ix(engine):
    x = np.arange(20).reshape(4, 5)
    found = engine(lambda v: v[tnp.ix_([0, 3], [4, 1, 1])], x)
    np.testing.assert_array_equal(found, x[np.ix_([0, 3], [4, 1, 1])])
    mask = np.array([True, False, True, False])
    np.testing.assert_array_equal(tnp.asarray(x)[tnp.ix_(mask, [2])], x[np.ix_(mask, [2])])
    with pytest.raises(OpError, match=r"ix_ needs 1-d arrays, got \(2, 2\)"):
        tnp.ix_(np.eye(2))


def same(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == np.int32
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("k", [-1, 0, 2])
@pytest.mark.parametrize(("n", "m"), [(3, 3), (2, 5), (4, 2), (0, 0)])
def test_triangles(n, m, k):
    same(tnp.tril_indices(n, k, m), np.tril_indices(n, k, m))
    same(tnp.triu_indices(n, k, m), np.triu_indices(n, k, m))
    x = np.ones((n, m), "f4")
    same(tnp.tril_indices_from(x, k), np.tril_indices_from(x, k))
    same(tnp.triu_indices_from(x, k), np.triu_indices_from(x, k))
    same(tnp.mask_indices(n, tnp.triu, k), np.mask_indices(n, np.triu, k))


def test_diagonals(engine):
    same(tnp.diag_indices(4, 3), np.diag_indices(4, 3))
    x = np.arange(27.0).reshape(3, 3, 3)
    same(tnp.diag_indices_from(x), np.diag_indices_from(x))
    np.testing.assert_array_equal(engine(lambda v: v[tnp.diag_indices_from(v)], x),
                                  x[np.diag_indices_from(x)])
    with pytest.raises(OpError, match=r"at least two dims of one size, got \(2, 3\)"):
        tnp.diag_indices_from(np.ones((2, 3)))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("mode", ["raise", "wrap", "clip"])
def test_ravel_multi_index(order, mode):
    index = np.array([[0, 2, 1], [3, 0, 1]]) if mode == "raise" else np.array([[-1, 2, 7], [3, -5, 9]])
    found = tnp.ravel_multi_index(index, (3, 4), mode, order)
    assert found.dtype.kind == "i"
    np.testing.assert_array_equal(found, np.ravel_multi_index(index, (3, 4), mode, order))


def test_ravel_multi_index_traced(engine):
    rows, columns = np.array([[0, 2], [5, 1]]), np.array([1, -3])
    found = engine(lambda a, b: tnp.ravel_multi_index((a, b), (3, 4), "wrap"), rows, columns)
    np.testing.assert_array_equal(found, np.ravel_multi_index(
        np.broadcast_arrays(rows, columns), (3, 4), "wrap"))
    with pytest.raises(OpError, match="an index is outside an axis of 4"):
        tnp.ravel_multi_index(([0], [4]), (3, 4))
    with pytest.raises(UnsupportedError, match='mode="raise"'):
        jit(lambda i: tnp.ravel_multi_index((i,), (3,)))(rows)
