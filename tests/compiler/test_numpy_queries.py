"""Kinds of numbers, equality of arrays, element types by name, against NumPy."""

import ml_dtypes
import numpy as np
import pytest

import tfn.compiler.numpy as tnp
from tfn.compiler.trace.jit import jit

VALUES = [1, 2.5, 1j, True, np.float32(1), np.ones(()), np.ones((2, 0), "c8"), np.arange(3)]


@pytest.mark.parametrize("x", VALUES, ids=repr)
@pytest.mark.parametrize("name", ["shape", "ndim", "size", "iscomplexobj", "isrealobj"])
def test_answers_are_numpys(name, x):
    assert getattr(tnp, name)(x) == getattr(np, name)(x)
    assert getattr(tnp, name)(tnp.asarray(x)) == getattr(np, name)(x)


def test_size_along_axes():
    x = np.ones((2, 3, 4))
    assert (tnp.size(x, 1), tnp.size(x, (0, -1)), tnp.size(x, ())) == (3, 8, 1)


def test_scalars_and_iterables():
    assert tnp.isscalar(3) and tnp.isscalar("text") and tnp.isscalar(tnp.asarray(3.0))
    assert not tnp.isscalar(tnp.asarray([3.0])) and not tnp.isscalar([3])
    assert tnp.iterable([1]) and tnp.iterable(tnp.ones(2)) and not tnp.iterable(tnp.ones(()))
    assert not tnp.iterable(3)
    assert jit(lambda v: tnp.ones(1) * tnp.isscalar(v))(2.0).tolist() == [1]


PAIRS = [([1, 2], [1, 2]), ([1, 2], [1, 3]), ([1, 2], [[1, 2], [1, 2]]), ([], []), ([], [1]),
         ([1.0, np.nan], [1.0, np.nan]), ([[1], [1]], [[1, 1]]), (1, [1, 1]), ([1, 2], [1, 2, 3])]


@pytest.mark.parametrize(("a", "b"), PAIRS, ids=repr)
def test_equality_of_arrays(engine, a, b):
    a, b = np.array(a, float), np.array(b, float)
    assert bool(engine(tnp.array_equal, a, b)) == np.array_equal(a, b)
    assert bool(engine(lambda p, q: tnp.array_equal(p, q, equal_nan=True), a, b)) == np.array_equal(
        a, b, equal_nan=True)
    assert bool(engine(tnp.array_equiv, a, b)) == np.array_equiv(a, b)


def test_iscomplex(engine):
    x = np.array([1, 1j, 0, complex(0, np.nan), 2 + 1j])
    np.testing.assert_array_equal(engine(tnp.iscomplex, x), np.iscomplex(x))
    np.testing.assert_array_equal(engine(tnp.iscomplex, x.real), np.iscomplex(x.real))


ABSTRACT = ["generic", "number", "integer", "signedinteger", "unsignedinteger", "inexact", "floating",
            "complexfloating"]


@pytest.mark.parametrize("kind", ABSTRACT)
def test_issubdtype(kind):
    cls = getattr(tnp, kind)
    assert cls is getattr(np, kind)
    for dtype in ("bool", "int8", "uint16", "float16", "complex64", np.int32, np.dtype("f4")):
        assert tnp.issubdtype(dtype, cls) == np.issubdtype(dtype, cls)
    for other in ABSTRACT:
        assert tnp.issubdtype(getattr(np, other), cls) == np.issubdtype(getattr(np, other), cls)


def test_issubdtype_knows_the_narrow_types():
    assert tnp.issubdtype(tnp.bfloat16, tnp.floating) and tnp.issubdtype("float8_e4m3fn", tnp.inexact)
    assert tnp.issubdtype(ml_dtypes.int4, tnp.signedinteger)
    assert not tnp.issubdtype(tnp.bfloat16, tnp.integer)
    assert tnp.issubdtype("float32", np.float32) and not tnp.issubdtype("float32", np.float64)
    assert tnp.issubdtype(tnp.ones(1).dtype, tnp.floating)


def test_every_element_type_has_a_name():
    for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2", "float4_e2m1fn", "int4", "uint2"):
        assert getattr(tnp, name) is getattr(ml_dtypes, name)
        assert tnp.zeros(2, getattr(tnp, name)).dtype == getattr(ml_dtypes, name)
    assert (tnp.half, tnp.single, tnp.double) == (np.float16, np.float32, np.float64)
    assert (tnp.csingle, tnp.cdouble) == (np.complex64, np.complex128)
