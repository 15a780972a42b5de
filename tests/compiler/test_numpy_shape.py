"""`tfn.numpy` creation and manipulation against NumPy, and on symbolic dims."""

import numpy as np
import pytest

import tfn.compiler.numpy as tnp
from tfn.compiler.errors import OpError
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dims import Dim
from tfn.compiler.ir.dtypes import F32
from tfn.compiler.trace.core import trace

X = np.arange(60, dtype=np.float32).reshape(3, 4, 5)

SAME = {
    "reshape": lambda m, x: m.reshape(x, (4, -1)),
    "reshape to 1-d": lambda m, x: m.reshape(x, -1),
    "ravel": lambda m, x: m.ravel(x),
    "transpose": lambda m, x: m.transpose(x),
    "transpose axes": lambda m, x: m.transpose(x, (1, -1, 0)),
    "swapaxes": lambda m, x: m.swapaxes(x, 0, -1),
    "moveaxis": lambda m, x: m.moveaxis(x, 0, 2),
    "moveaxis several": lambda m, x: m.moveaxis(x, (0, 1), (-1, 0)),
    "expand_dims": lambda m, x: m.expand_dims(x, 1),
    "expand_dims several": lambda m, x: m.expand_dims(x, (0, -1)),
    "squeeze": lambda m, x: m.squeeze(x[:1, :, None]),
    "squeeze axis": lambda m, x: m.squeeze(x[:1, :, None], 2),
    "concatenate": lambda m, x: m.concatenate([x, x * 2], 1),
    "concatenate flat": lambda m, x: m.concatenate([x, x[0]], None),
    "append": lambda m, x: m.append(x, x, 2),
    "stack": lambda m, x: m.stack([x, x + 1], 1),
    "stack last": lambda m, x: m.stack([x, x + 1], -1),
    "vstack": lambda m, x: m.vstack([x[0, 0], x[1, 1]]),
    "hstack": lambda m, x: m.hstack([x, x]),
    "hstack 1-d": lambda m, x: m.hstack([x[0, 0], x[1, 1]]),
    "dstack": lambda m, x: m.dstack([x[0], x[1]]),
    "repeat": lambda m, x: m.repeat(x, 3, 1),
    "repeat flat": lambda m, x: m.repeat(x, 2),
    "repeat each": lambda m, x: m.repeat(x, np.array([1, 0, 2]), 0),
    "tile": lambda m, x: m.tile(x, 2),
    "tile dims": lambda m, x: m.tile(x, (2, 1, 3)),
    "tile more dims": lambda m, x: m.tile(x, (2, 1, 1, 2)),
    "flip": lambda m, x: m.flip(x),
    "flip axis": lambda m, x: m.flip(x, (0, -1)),
    "fliplr": lambda m, x: m.fliplr(x),
    "flipud": lambda m, x: m.flipud(x),
    "rot90": lambda m, x: m.rot90(x),
    "rot90 axes": lambda m, x: m.rot90(x, 3, (1, 2)),
    "roll": lambda m, x: m.roll(x, 7),
    "roll axis": lambda m, x: m.roll(x, -2, 1),
    "roll axes": lambda m, x: m.roll(x, (1, 2), (0, 2)),
    "pad": lambda m, x: m.pad(x, 2),
    "pad value": lambda m, x: m.pad(x, ((0, 1), (2, 0), (1, 1)), constant_values=7),
    "pad edge": lambda m, x: m.pad(x, ((0, 1), (2, 0), (1, 1)), "edge"),
    "pad reflect": lambda m, x: m.pad(x, ((2, 1), (2, 3), (0, 4)), "reflect"),
    "pad reflect far": lambda m, x: m.pad(x, ((5, 5), (0, 0), (0, 0)), "reflect"),
    "pad symmetric": lambda m, x: m.pad(x, ((3, 1), (0, 0), (5, 2)), "symmetric"),
    "pad wrap": lambda m, x: m.pad(x, ((3, 1), (0, 0), (7, 2)), "wrap"),
    "broadcast_to": lambda m, x: m.broadcast_to(x[:, :1], (2, 3, 4, 5)),
    "diagonal": lambda m, x: m.diagonal(x),
    "diagonal offset": lambda m, x: m.diagonal(x, 1, 1, 2),
    "diagonal below": lambda m, x: m.diagonal(x, -2, 0, 1),
    "diag of a matrix": lambda m, x: m.diag(x[0], -1),
    "diag of a vector": lambda m, x: m.diag(x[0, 0], 2),
    "diagflat": lambda m, x: m.diagflat(x[0, :2], -1),
    "trace": lambda m, x: m.trace(x, 1),
    "tril": lambda m, x: m.tril(x, 1),
    "triu": lambda m, x: m.triu(x, -1),
    "zeros_like": lambda m, x: m.zeros_like(x),
    "full_like": lambda m, x: m.full_like(x, 3),
    "diff": lambda m, x: m.diff(x, 2, 1),
    "atleast_2d": lambda m, x: m.atleast_2d(x[0, 0]),
    "atleast_3d": lambda m, x: m.atleast_3d(x[0]),
    "column_stack": lambda m, x: m.column_stack([x[0, 0], x[1, 1]]),
}


@pytest.mark.parametrize("name", SAME)
def test_manipulation_is_numpys(engine, name):
    expected = SAME[name](np, X)
    found = engine(lambda x: SAME[name](tnp, x), X)
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


SPLITS = {
    "split": lambda m, x: m.split(x, 2, 1),
    "split at": lambda m, x: m.split(x, [1, 3], 2),
    "split at the end": lambda m, x: m.split(x, [2, 9], 1),
    "split at unordered": lambda m, x: m.split(x, [3, 1], 2),
    "array_split": lambda m, x: m.array_split(x, 3, 2),
    "hsplit": lambda m, x: m.hsplit(x, 2),
    "vsplit": lambda m, x: m.vsplit(x, 3),
    "dsplit": lambda m, x: m.dsplit(x, [2]),
    "unstack": lambda m, x: m.unstack(x, axis=1),
    "meshgrid": lambda m, x: m.meshgrid(x[0, 0], x[0, :, 0], x[:, 0, 0]),
    "meshgrid ij": lambda m, x: m.meshgrid(x[0, 0], x[0, :, 0], indexing="ij"),
    "meshgrid sparse": lambda m, x: m.meshgrid(x[0, 0], x[0, :, 0], sparse=True),
    "broadcast_arrays": lambda m, x: m.broadcast_arrays(x, x[0, 0], x[:, :1]),
}


@pytest.mark.parametrize("name", SPLITS)
def test_several_results(engine, name):
    expected = SPLITS[name](np, X)
    found = engine(lambda x: SPLITS[name](tnp, x), X)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


CREATED = {
    "zeros": lambda m, t: m.zeros((2, 3), t), "ones": lambda m, t: m.ones(3, t),
    "full": lambda m, t: m.full((2, 2), 7, t), "eye": lambda m, t: m.eye(3, 4, 1, dtype=t),
    "identity": lambda m, t: m.identity(3, dtype=t), "tri": lambda m, t: m.tri(3, 4, -1, dtype=t),
    "arange": lambda m, t: m.arange(5, dtype=t), "arange step": lambda m, t: m.arange(
        2, 9, 3, dtype=t),
    "linspace": lambda m, t: m.linspace(0, 8, 5, dtype=t),
}


@pytest.mark.parametrize("name", CREATED)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "float16"])
def test_creation(name, dtype):
    found, expected = CREATED[name](tnp, dtype), CREATED[name](np, dtype)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_default_types_of_creation():
    assert tnp.zeros(2).dtype == tnp.ones(2).dtype == tnp.eye(2).dtype == np.float32
    assert tnp.arange(3).dtype == np.int32
    assert tnp.arange(0.0, 1.0, 0.25).dtype == tnp.linspace(0, 1).dtype == np.float32
    assert tnp.full(2, 1).dtype == np.int32
    assert tnp.full(2, True).dtype == np.bool_
    assert tnp.zeros(2, dtype=float).dtype == np.float32


def test_linspace_and_logspace():
    for kwargs in ({}, {"endpoint": False}, {"num": 1}):
        np.testing.assert_allclose(tnp.linspace(-1, 3, **kwargs), np.linspace(-1, 3, **kwargs),
                                   rtol=1e-6, atol=1e-6)
    low, high = np.float32([0, 1]), np.float32([1, 5])
    np.testing.assert_allclose(tnp.linspace(low, high, 4, axis=1), np.linspace(low, high, 4,
                                                                               axis=1), rtol=1e-6)
    np.testing.assert_allclose(tnp.logspace(0, 2, 5), np.logspace(0, 2, 5), rtol=1e-5)


def test_one_hot(engine):
    found = engine(lambda i: tnp.one_hot(i, 3), np.array([0, 2, -1, 5]))
    np.testing.assert_array_equal(found, [[1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]])
    found = engine(lambda i: tnp.one_hot(i, 3, axis=0, dtype="bool"), np.array([0, 2]))
    np.testing.assert_array_equal(found, [[True, False], [False, False], [False, True]])


def test_lists_of_traced_values_are_stacked(engine):
    found = engine(lambda x: tnp.asarray([[x[0, 0, 0], 2.0], [x[1, 1, 1], 4]]), X)
    np.testing.assert_array_equal(found, [[0, 2], [26, 4]])


def test_an_array_copies_and_asarray_views():
    source = np.zeros(2, np.float32)
    copied, viewed = tnp.array(source), tnp.asarray(source)
    source[0] = 5
    assert copied[0] == 0
    assert viewed[0] == 5


def test_errors_name_the_shapes():
    with pytest.raises(OpError, match=r"cannot reshape \(3, 4, 5\) \(60 elements\) to \(7, -1\)"):
        tnp.reshape(X, (7, -1))
    with pytest.raises(OpError, match="only one extent"):
        tnp.reshape(X, (-1, -1))
    with pytest.raises(OpError, match="cannot squeeze axis 0"):
        tnp.squeeze(X, 0)
    with pytest.raises(OpError, match="stack needs arrays of one shape"):
        tnp.stack([X, X[0]])
    with pytest.raises(OpError, match="does not split into 3"):
        tnp.split(X, 3, 1)


BATCH = Dim.named("batch")
SYMBOLIC = {
    "reshape": (lambda x: x.reshape(-1, 20), (BATCH, 20)),
    "reshape by dim": (lambda x: x.reshape(x.shape[0], -1), (BATCH, 20)),
    "merge": (lambda x: x.reshape(-1, 5), (4 * BATCH, 5)),
    "flatten": (lambda x: x.ravel(), (20 * BATCH,)),
    "transpose": (lambda x: x.T, (5, 4, BATCH)),
    "concatenate": (lambda x: tnp.concatenate([x, x]), (2 * BATCH, 4, 5)),
    "pad": (lambda x: tnp.pad(x, ((1, 2), (0, 0), (0, 0))), (BATCH + 3, 4, 5)),
    "tail": (lambda x: x[1:], (BATCH - 1, 4, 5)),
    "head": (lambda x: x[:-1], (BATCH - 1, 4, 5)),
    "last": (lambda x: x[-1], (4, 5)),
    "first": (lambda x: x[0], (4, 5)),
    "columns": (lambda x: x[:, 1:3, ::2], (BATCH, 2, 3)),
    "split": (lambda x: tnp.split(x, 2, 1)[1], (BATCH, 2, 5)),
    "repeat": (lambda x: tnp.repeat(x, 3, 0), (3 * BATCH, 4, 5)),
    "tile": (lambda x: tnp.tile(x, (2, 1, 1)), (2 * BATCH, 4, 5)),
    "zeros_like": (tnp.zeros_like, (BATCH, 4, 5)),
    "full": (lambda x: tnp.ones((x.shape[0], 3)), (BATCH, 3)),
    "arange": (lambda x: tnp.arange(x.shape[0]), (BATCH,)),
    "roll": (lambda x: tnp.roll(x, 1, 0), (BATCH, 4, 5)),
    "add a row": (lambda x: x + x[:1], (BATCH, 4, 5)),
    "matmul": (lambda x: x @ np.ones((5, 2), np.float32), (BATCH, 4, 2)),
    "extent as a value": (lambda x: x * tnp.asarray(x.shape[0]), (BATCH, 4, 5)),
}


@pytest.mark.parametrize("name", SYMBOLIC)
def test_symbolic_leading_dim(name):
    from tfn.compiler.ir.evaluator import evaluate

    program, shape = SYMBOLIC[name]
    function, _ = trace(lambda x: [program(x)], [TensorType((BATCH, 4, 5), F32)])
    assert function.result_types[0].shape == shape
    (found,) = evaluate(function, [X])
    np.testing.assert_array_equal(found, program(tnp.asarray(X)))


def test_joins_convert_to_a_type():
    for name in ("hstack", "vstack", "dstack", "stack", "concatenate"):
        found = getattr(tnp, name)([np.ones(2, "f4"), np.ones(2, "f4")], dtype="i2")
        assert found.dtype == np.int16
        np.testing.assert_array_equal(found, getattr(np, name)([np.ones(2), np.ones(2)]))
    assert tnp.trace(np.ones((3, 3), "i1"), dtype="i8").dtype == np.int64
