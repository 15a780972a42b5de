"""Polynomials of `tfn.numpy` against NumPy's: by every engine, dtypes, lengths, zeros in front."""

import numpy as np
import pytest

import tfn.compiler.numpy as tnp
from tfn.compiler.errors import OpError, UnsupportedError
from tfn.compiler.trace.grad import grad
from tfn.compiler.trace.jit import jit

RNG = np.random.default_rng(0)
DTYPES = ["i4", "f4", "c16"]


def line(n, dtype="f8"):
    x = RNG.integers(-4, 5, n) if np.dtype(dtype).kind == "i" else RNG.normal(size=n)
    if np.dtype(dtype).kind == "c":
        x = x + 1j * RNG.normal(size=n)
    x = x.astype(dtype)
    if n:
        x[0] = 3
    return x


def close(found, expected, dtype="f8"):
    wide = np.dtype(dtype).name in ("float64", "complex128")
    limit = 1e-9 if wide else 1e-5
    np.testing.assert_allclose(found, expected, rtol=limit, atol=limit)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3)])
def test_polyval(engine, dtype, shape):
    p, x = line(4, dtype), line(int(np.prod(shape)), dtype).reshape(shape)
    found = engine(tnp.polyval, p, x)
    assert found.dtype == p.dtype and found.shape == shape
    close(found, np.polyval(p, x), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "m"), [(4, 2), (2, 4), (1, 5)])
@pytest.mark.parametrize("name", ["polyadd", "polysub", "polymul"])
def test_arithmetic(engine, name, n, m, dtype):
    a, b = line(n, dtype), line(m, dtype)
    found = engine(getattr(tnp, name), a, b)
    assert found.dtype == a.dtype
    # NumPy drops leading zeros of sums: compare from the end.
    expected = np.atleast_1d(getattr(np, name)(np.poly1d(a), np.poly1d(b)).coeffs)
    close(found[len(found) - len(expected):], expected, dtype)
    assert not np.any(found[:len(found) - len(expected)])


@pytest.mark.parametrize("dtype", ["f4", "f8", "c16"])
@pytest.mark.parametrize(("n", "m"), [(5, 3), (4, 4), (2, 4), (6, 1)])
def test_polydiv(engine, n, m, dtype):
    a, b = line(n, dtype), line(m, dtype)
    quotient, rest = engine(tnp.polydiv, a, b)
    back = np.polyadd(np.polymul(quotient, b), rest)
    close(back[len(back) - n:], a, dtype)
    theirs, remainder = np.polydiv(a, b)
    close(quotient, theirs, dtype)
    close(rest[len(rest) - len(remainder):], remainder, dtype)
    assert np.abs(rest[:max(n - m + 1, 0)]).max(initial=0) < 1e-5


def test_polydiv_of_concrete_arrays_trims_like_numpy():
    a = np.polymul([1.0, 2.0], [1.0, -3.0, 2.0])
    found = tnp.polydiv(a, [1.0, 2.0], trim_leading_zeros=True)
    for ours, theirs in zip(found, np.polydiv(a, [1.0, 2.0]), strict=True):
        close(ours, theirs)
    np.testing.assert_array_equal(tnp.polymul([0, 0, 1], [0, 2], trim_leading_zeros=True), [2])


@pytest.mark.parametrize("m", [0, 1, 2, 5])
@pytest.mark.parametrize("dtype", DTYPES)
def test_derivative_and_integral(engine, m, dtype):
    p = line(4, dtype)
    close(engine(lambda v: tnp.polyder(v, m), p), np.polyder(p, m), dtype)
    close(engine(lambda v: tnp.polyint(v, m), p), np.polyint(p, m), "f4")
    close(engine(lambda v: tnp.polyint(v, m, 2.0), p), np.polyint(p, m, 2.0), "f4")


def test_integration_constants_one_each(engine):
    p = line(3)
    close(engine(lambda v: tnp.polyint(v, 2, [3.0, 5.0]), p), np.polyint(p, 2, [3, 5]))


def ordered(values):
    return np.sort_complex(np.round(np.asarray(values).astype("c16"), 5))


@pytest.mark.parametrize("p", [[1.0, -6, 11, -6], [0, 0, 2.0, 1, 4], [1.0, 2, 0, 0], [5.0], [0.0, 0.0],
                               [1 + 1j, 2, 3]])
def test_roots(p):
    np.testing.assert_allclose(ordered(tnp.roots(p)), ordered(np.roots(p)), atol=1e-4)


def test_roots_of_a_traced_polynomial(engine):
    p = np.array([1.0, -6, 11, -6])
    np.testing.assert_allclose(ordered(engine(lambda v: tnp.roots(v, strip_zeros=False), p)), [1, 2, 3])
    with pytest.raises(UnsupportedError, match="roots with strip_zeros"):
        jit(tnp.roots)(p)


def test_poly(engine):
    zeros = RNG.normal(size=4)
    close(engine(tnp.poly, zeros), np.poly(zeros))
    close(engine(tnp.poly, zeros * (1 + 1j)), np.poly(zeros * (1 + 1j)))
    matrix = RNG.normal(size=(3, 3))
    close(engine(tnp.poly, matrix), np.poly(matrix))


X = np.linspace(-1, 2, 12)
Y = np.sin(X) + 0.1 * RNG.normal(size=12)


@pytest.mark.parametrize("deg", [0, 1, 4])
@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_polyfit(engine, deg, columns, weighted):
    y = np.stack([Y, X ** 3], 1) if columns else Y
    w = np.linspace(1, 2, 12) if weighted else None
    close(engine(lambda a, b: tnp.polyfit(a, b, deg, w=w), X, y), np.polyfit(X, y, deg, w=w))


def test_polyfit_tells_how_good_it_is():
    ours, theirs = tnp.polyfit(X, Y, 2, full=True), np.polyfit(X, Y, 2, full=True)
    for a, b in zip(ours[:4], theirs[:4], strict=True):
        close(np.ravel(a), np.ravel(b))
    for cov in (True, "unscaled"):
        for y in (Y, np.stack([Y, X], 1)):
            for a, b in zip(tnp.polyfit(X, y, 2, cov=cov), np.polyfit(X, y, 2, cov=cov), strict=True):
                close(a, b)


def test_gradient_through_a_fit():
    def bend(y):
        return tnp.polyfit(X, y, 2)[0]

    slopes = np.asarray(grad(bend)(tnp.asarray(Y)))
    # The fit is linear in y: the slopes are the first row of the pseudo-inverse.
    close(slopes, np.linalg.pinv(np.vander(X, 3))[0])


def test_errors_name_the_shapes():
    with pytest.raises(OpError, match=r"polyval needs 1-d coefficients, got .* shape \(2, 2\)"):
        tnp.polyval(np.ones((2, 2)), 1.0)
    with pytest.raises(OpError, match=r"as many rows of y, got \(3,\) and \(4,\)"):
        tnp.polyfit(np.ones(3), np.ones(4), 1)
    with pytest.raises(OpError, match="needs m >= 0"):
        tnp.polyder(np.ones(3), -1)
