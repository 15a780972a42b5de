"""`tfn.numpy.linalg` against NumPy: values by every engine, batches, gradients, edge cases."""

import numpy as np
import pytest

import tfn.compiler.numpy as tnp
from tfn.compiler.errors import OpError, UnsupportedError
from tfn.compiler.trace.core import Array
from tfn.compiler.trace.grad import grad
from tfn.compiler.trace.jit import jit

RNG = np.random.default_rng(0)
A = RNG.normal(size=(2, 4, 4)) + 3 * np.eye(4)
B = RNG.normal(size=(2, 4, 3))
TALL = RNG.normal(size=(2, 5, 3))
POSITIVE = A @ np.swapaxes(A, -1, -2)

SQUARE = {
    "det": np.linalg.det, "inv": np.linalg.inv, "slogdet": np.linalg.slogdet,
    "svdvals": lambda x: np.linalg.svd(x, compute_uv=False),
    "pinv": np.linalg.pinv, "matrix_rank": np.linalg.matrix_rank, "cond": np.linalg.cond,
    "matrix_norm": lambda x: np.linalg.norm(x, axis=(-2, -1)),
    "diagonal": lambda x: np.diagonal(x, axis1=-2, axis2=-1),
    "trace": lambda x: np.trace(x, axis1=-2, axis2=-1),
}


def results(found):
    return list(found) if isinstance(found, (tuple, list)) else [found]


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("name", SQUARE)
def test_functions_of_a_square_matrix(engine, name, dtype):
    x = A.astype(dtype)
    found = engine(getattr(tnp.linalg, name), x)
    expected = results(SQUARE[name](x))
    for ours, theirs in zip(results(found), expected, strict=True):
        assert ours.dtype == theirs.dtype or theirs.dtype.kind == "i"
        np.testing.assert_allclose(ours, theirs, rtol=2e-4 if dtype == "f4" else 1e-9, atol=1e-5)


def test_cholesky(engine):
    np.testing.assert_allclose(engine(tnp.linalg.cholesky, POSITIVE), np.linalg.cholesky(POSITIVE))
    upper = engine(lambda v: tnp.linalg.cholesky(v, upper=True), POSITIVE)
    np.testing.assert_allclose(np.swapaxes(upper, -1, -2) @ upper, POSITIVE)
    assert np.isnan(np.asarray(tnp.linalg.cholesky(-np.eye(2)))).any()
    inverse = tnp.linalg.cholesky_inverse(upper, upper=True)
    np.testing.assert_allclose(inverse, np.linalg.inv(POSITIVE), rtol=1e-6)


@pytest.mark.parametrize("x", [A, TALL, np.swapaxes(TALL, -1, -2)], ids=["square", "tall", "wide"])
def test_factors_multiply_to_the_matrix(engine, x):
    q, r = engine(tnp.linalg.qr, x)
    np.testing.assert_allclose(q @ r, x, atol=1e-12)
    q, r = engine(lambda v: tnp.linalg.qr(v, mode="complete"), x)
    np.testing.assert_allclose(q @ r, x, atol=1e-12)
    np.testing.assert_allclose(q @ np.swapaxes(q, -1, -2), np.broadcast_to(
        np.eye(x.shape[-2]), q.shape), atol=1e-12)
    u, s, vh = engine(lambda v: tnp.linalg.svd(v, full_matrices=False), x)
    np.testing.assert_allclose(u * s[:, None, :] @ vh, x, atol=1e-12)
    assert [p.shape for p in tnp.linalg.svd(x)] == [p.shape for p in np.linalg.svd(x)]


def test_eigenvalues(engine):
    values, vectors = engine(tnp.linalg.eigh, POSITIVE)
    np.testing.assert_allclose(POSITIVE @ vectors, vectors * values[:, None, :], atol=1e-9)
    upper = np.triu(POSITIVE)
    np.testing.assert_allclose(tnp.linalg.eigvalsh(upper, UPLO="U"), values)
    values, vectors = tnp.linalg.eig(A)
    np.testing.assert_allclose(A @ np.asarray(vectors), vectors * values[:, None, :], atol=1e-9)


@pytest.mark.parametrize("shape", [(4,), (4, 3), (2, 4, 3), (5, 1, 4, 2)])
def test_solve_broadcasts(engine, shape):
    b = RNG.normal(size=shape)
    np.testing.assert_allclose(engine(tnp.linalg.solve, A, b), np.linalg.solve(A, b), atol=1e-10)


def test_solve_triangular(engine):
    lower = engine(lambda a, b: tnp.linalg.solve_triangular(a, b, lower=True), A, B)
    np.testing.assert_allclose(np.tril(A) @ lower, B, atol=1e-10)
    unit = np.triu(A[0], 1) + np.eye(4)
    found = tnp.linalg.solve_triangular(A[0], B[0, :, 0], unit_diagonal=True)
    np.testing.assert_allclose(unit @ np.asarray(found), B[0, :, 0], atol=1e-10)


def test_lu_factor_has_lapacks_pivots():
    """Rows swapped in the order of `pivots` are L U, and no multiplier is above 1: getrf's contract."""
    a = TALL[0].copy()
    lu, pivots = (np.asarray(x) for x in tnp.linalg.lu_factor(a))
    steps = min(a.shape)
    assert pivots.shape == (steps,)
    for row, other in enumerate(pivots):
        assert row <= other < a.shape[0]
        a[[row, other]] = a[[other, row]]
    lower = np.tril(lu, -1)[:, :steps] + np.eye(a.shape[0], steps)
    assert np.abs(lower).max() <= 1
    np.testing.assert_allclose(lower @ np.triu(lu)[:steps], a, atol=1e-12)


@pytest.mark.parametrize("b", [B[0], B[0, :, 0]], ids=["matrix", "vector"])
def test_lstsq(b):
    a = RNG.normal(size=(4, 2))
    ours, theirs = tnp.linalg.lstsq(a, b), np.linalg.lstsq(a, b)
    for x, y in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(np.ravel(x), np.ravel(y), atol=1e-9)


@pytest.mark.parametrize("n", [-2, -1, 0, 1, 2, 5])
def test_matrix_power(n):
    np.testing.assert_allclose(tnp.linalg.matrix_power(A, n), np.linalg.matrix_power(A, n))


@pytest.mark.parametrize("ord", [None, "fro", "nuc", 1, -1, 2, -2, np.inf, -np.inf])
def test_matrix_norms(ord):
    for axis, keepdims in (((0, 1), False), ((2, 0), True)):
        np.testing.assert_allclose(tnp.linalg.norm(A, ord, axis, keepdims),
                                   np.linalg.norm(A, ord, axis, keepdims))


@pytest.mark.parametrize("ord", [0, 1, 2, 3, 0.5, np.inf, -np.inf, -1])
def test_vector_norms(ord):
    found = tnp.linalg.vector_norm(A, axis=(0, 2), keepdims=True, ord=ord)
    np.testing.assert_allclose(found, np.linalg.vector_norm(A, axis=(0, 2), keepdims=True, ord=ord))


def test_products():
    chain = [RNG.normal(size=s) for s in ((3,), (3, 4), (4, 5), (5, 2))]
    np.testing.assert_allclose(tnp.linalg.multi_dot(chain), np.linalg.multi_dot(chain))
    np.testing.assert_allclose(tnp.linalg.vecdot(A, B[:, :, :1], axis=-2),
                               np.linalg.vecdot(A, B[:, :, :1], axis=-2))
    np.testing.assert_allclose(tnp.matvec(A, B[:, :, 0]), np.matvec(A, B[:, :, 0]))
    np.testing.assert_allclose(tnp.vecmat(B[:, :, 0], A), np.vecmat(B[:, :, 0], A))
    x = RNG.normal(size=(2, 3, 6))
    np.testing.assert_allclose(tnp.linalg.tensorinv(x), np.linalg.tensorinv(x))
    b = RNG.normal(size=(2, 3))
    np.testing.assert_allclose(tnp.linalg.tensorsolve(x, b), np.linalg.tensorsolve(x, b))


GRADIENTS = {
    "cholesky": (lambda a: tnp.linalg.cholesky(tnp.matmul(a, tnp.matrix_transpose(a))), A[0]),
    "det": (tnp.linalg.det, A[0]), "inv": (tnp.linalg.inv, A[0]),
    "slogdet": (lambda a: tnp.linalg.slogdet(a).logabsdet, A[0]),
    "solve": (lambda a: tnp.linalg.solve(a, B[0]), A[0]),
    "solve's right side": (lambda b: tnp.linalg.solve(A[0], b), B[0]),
    "triangular": (lambda a: tnp.linalg.solve_triangular(a, B[0]), A[0]),
    "eigvalsh": (lambda a: tnp.linalg.eigvalsh(a + tnp.matrix_transpose(a)), A[0]),
    "svdvals": (tnp.linalg.svdvals, TALL[0]),
    "qr": (lambda a: tnp.linalg.qr(a).R, TALL[0]),
    "pinv": (tnp.linalg.pinv, TALL[0]), "wide pinv": (tnp.linalg.pinv, TALL[0].T),
    "lstsq": (lambda a: tnp.linalg.lstsq(a, np.ones(5)).x, TALL[0]),
    "nuclear norm": (lambda a: tnp.linalg.matrix_norm(a, ord="nuc"), TALL[0]),
    "matrix_power": (lambda a: tnp.linalg.matrix_power(a, 3), A[0]),
    "eigvals": (lambda a: tnp.sum(tnp.exp(tnp.linalg.eigvals(a) / 4)).real, A[0]),
    "eig": (lambda a: tnp.sum(tnp.absolute(tnp.linalg.eig(a).eigenvectors) ** 4), A[0]),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_agree_with_finite_differences(name):
    function, at = GRADIENTS[name]
    weight = RNG.normal(size=np.shape(function(Array(at))))
    direction = RNG.normal(size=at.shape)

    def scalar(x):
        return tnp.sum(function(x) * weight)

    slope = np.sum(np.asarray(grad(scalar)(Array(at))) * direction)
    step = 1e-6
    ends = [float(scalar(Array(at + s * step * direction))) for s in (1, -1)]
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * step), rtol=1e-5, atol=1e-7)


def test_second_derivative_of_pinv():
    a = TALL[0]

    def inner(x):
        return tnp.sum(grad(lambda v: tnp.sum(tnp.linalg.pinv(v) ** 2))(x) * a)

    slope = np.sum(np.asarray(grad(inner)(Array(a))) * a)
    ends = [float(inner(Array(a * (1 + s * 1e-5)))) for s in (1, -1)]
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / 2e-5, rtol=1e-5)


def test_a_compiled_step_through_solve():
    @jit
    def loss(a, b):
        return grad(lambda v: tnp.sum(tnp.linalg.solve(v, b) ** 2))(a)

    a, b = A.astype("f4"), B.astype("f4")
    eager = grad(lambda v: tnp.sum(tnp.linalg.solve(v, b) ** 2))(Array(a))
    np.testing.assert_allclose(loss(a, b), eager, rtol=1e-4, atol=1e-5)


def test_empty_matrices():
    assert float(tnp.linalg.det(np.zeros((0, 0)))) == 1
    assert tnp.linalg.inv(np.zeros((3, 0, 0), "f4")).shape == (3, 0, 0)
    assert tnp.linalg.solve(np.zeros((0, 0)), np.zeros((0, 2))).shape == (0, 2)
    assert int(tnp.linalg.matrix_rank(np.zeros((0, 3)))) == 0


def test_singular_matrices():
    x = np.ones((2, 2))
    assert float(tnp.linalg.det(x)) == 0
    sign, log = tnp.linalg.slogdet(x)
    assert float(sign) == 0 and float(log) == -np.inf
    assert not np.isfinite(np.asarray(tnp.linalg.inv(x))).any()


def test_half_precision_is_computed_in_f32():
    found = tnp.linalg.inv(np.array([[2, 0], [0, 4]], np.float16))
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, [[0.5, 0], [0, 0.25]])


def test_errors_say_what_does_not_fit():
    with pytest.raises(OpError, match=r"linalg.inv needs square matrices, got .* \(2, 3\)"):
        tnp.linalg.inv(np.ones((2, 3)))
    with pytest.raises(OpError, match="the rows differ"):
        tnp.linalg.solve(np.eye(2), np.ones((3, 1)))
    with pytest.raises(OpError, match=r"linalg.outer needs 1-d arrays"):
        tnp.linalg.outer(np.eye(2), np.ones(3))
    with pytest.raises(UnsupportedError, match=r"@tfn\.qr_complete has no derivative"):
        grad(lambda v: tnp.sum(tnp.linalg.qr(v, "complete")[0]))(Array(TALL[0]))


def test_gradient_of_a_general_eigenvalue_problem():
    """The trace of x x is the sum of the squares of the eigenvalues."""
    found = grad(lambda v: tnp.sum(tnp.real(tnp.linalg.eigvals(v) ** 2)))(Array(A[0]))
    np.testing.assert_allclose(found, 2 * A[0].T, rtol=1e-9, atol=1e-12)
