"""Forward mode, Jacobians and derivatives of one's own: against finite differences in f64, reverse mode
and closed forms."""

import numpy as np
import pytest

import tfn
from tfn import numpy as tnp
from tfn.compiler.errors import OpError, TraceError, UnsupportedError

RNG = np.random.default_rng(0)
X = RNG.uniform(0.2, 0.9, (4, 3))
V = RNG.normal(size=(4, 3))
W = RNG.normal(size=(3, 3))

FUNCTIONS = {
    "elementwise": lambda x: tnp.tanh(x) * tnp.exp(-x) / (1 + x * x),
    "powers": lambda x: tnp.power(x, 2.5) + tnp.sqrt(x) + tnp.log1p(x),
    "inverse functions": lambda x: tnp.arcsin(x) + tnp.arctan2(x, 2.0) + tnp.arctanh(x),
    "matmul": lambda x: tnp.matmul(x, W),
    "reductions": lambda x: (tnp.sum(x, 0), tnp.mean(x, 1), tnp.max(x, 0), tnp.prod(x, 1)),
    "movement": lambda x: tnp.concatenate([tnp.transpose(x), tnp.reshape(x, (3, 4))[:, ::-1]], 1),
    "indexing": lambda x: (x[1:3, ::2], tnp.take(x, np.array([2, 0, 2]), 0), tnp.pad(x, 1)),
    "sorting": lambda x: (tnp.sort(x, 0), tnp.cumsum(x, 1)),
    "selection": lambda x: tnp.where(x > 0.5, x * x, -x),
    "convolution": lambda x: tfn.nn.conv(tnp.reshape(x, (1, 4, 3, 1)),
                                         np.ones((2, 2, 1, 2)) * W[0, 0], 1, "same"),
    "linear algebra": lambda x: tnp.linalg.inv(tnp.matmul(tnp.transpose(x), x) + 2 * np.eye(3)),
    "complex": lambda x: tnp.absolute(tnp.fft.fft(x)),
}


def leaves(y):
    return [np.asarray(v) for v in (y if isinstance(y, tuple) else (y,))]


def differences(f, x, v, h=1e-6):
    return [(a - b) / (2 * h) for a, b in zip(leaves(f(x + h * v)), leaves(f(x - h * v)), strict=True)]


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_jvp_is_the_directional_derivative(name, jitted):
    f = FUNCTIONS[name]
    run = lambda x, v: tfn.jvp(f, (x,), (v,))  # noqa: E731
    value, tangent = (tfn.jit(run) if jitted else run)(X, V)
    for a, b in zip(leaves(value), leaves(f(X)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)
    for a, b in zip(leaves(tangent), differences(f, X, V), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-8)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_forward_and_reverse_agree(name):
    """<ct, J v> = <J^T ct, v>."""
    f = FUNCTIONS[name]
    _, tangents = tfn.jvp(f, (X,), (V,))
    value, pull = tfn.vjp(f, X)
    rng = np.random.default_rng(1)
    cts = [rng.normal(size=a.shape) for a in leaves(value)]
    back = np.asarray(pull(tuple(cts) if isinstance(value, tuple) else cts[0])[0])
    forward = sum(float((c * t).sum()) for c, t in zip(cts, leaves(tangents), strict=True))
    np.testing.assert_allclose(forward, (back * V).sum(), rtol=1e-10)


def test_jacobians_and_hessian():
    f = lambda x: tnp.tanh(tnp.matmul(x, W))  # noqa: E731
    forward, reverse = np.asarray(tfn.jacfwd(f)(X)), np.asarray(tfn.jacrev(f)(X))
    assert forward.shape == reverse.shape == (4, 3, 4, 3)
    np.testing.assert_allclose(forward, reverse, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(forward[1, :, 1], ((1 - np.tanh(X @ W)[1] ** 2)[:, None] * W.T),
                               rtol=1e-12)
    g = lambda x: tnp.sum(x**3)  # noqa: E731
    found = np.asarray(tfn.hessian(g)(X)).reshape(12, 12)
    np.testing.assert_allclose(found, np.diag(6 * X.reshape(-1)), rtol=1e-12, atol=1e-12)


def test_tangents_must_fit():
    message = r"tangents\[0\] is tensor<4x2xf64> as given and tensor<4x3xf64> in primals"
    with pytest.raises(OpError, match=message):
        tfn.jvp(tnp.sin, (X,), (V[:, :2],))


class TestCustomVjp:
    def make(self):
        f = tfn.custom_vjp(lambda a, b: tnp.sin(a) * b)
        f.defvjp(lambda a, b: (tnp.sin(a) * b, (a, b)), lambda r, ct: (7.0 * ct * r[1], None))
        return f

    def test_the_rule_is_used(self):
        f = self.make()
        found = tfn.jit(tfn.grad(lambda x: tnp.sum(f(x, 2 * x))))(X)
        np.testing.assert_allclose(np.asarray(found), 14 * X, rtol=1e-12)
        np.testing.assert_allclose(np.asarray(f(X, X)), np.sin(X) * X, rtol=1e-12)

    def test_without_rules(self):
        with pytest.raises(TraceError, match="no rules yet"):
            tfn.custom_vjp(tnp.sin)(X)

    def test_static_arguments(self):
        f = tfn.custom_vjp(lambda n, a: a**n, nondiff_argnums=(0,))
        f.defvjp(lambda n, a: (a**n, a), lambda n, a, ct: (ct * n * 100.0,))
        np.testing.assert_allclose(np.asarray(tfn.grad(lambda x: tnp.sum(f(3, x)))(X)),
                                   np.full((4, 3), 300.0))


def test_custom_jvp_serves_both_modes():
    f = tfn.custom_jvp(lambda a: tnp.sin(a))

    @f.defjvp
    def rule(primals, tangents):
        return f(*primals), 5.0 * tangents[0]

    assert np.allclose(np.asarray(tfn.jvp(f, (X,), (V,))[1]), 5 * V)
    np.testing.assert_allclose(np.asarray(tfn.jit(tfn.grad(lambda x: tnp.sum(f(x))))(X)),
                               np.full((4, 3), 5.0))


def test_checkpoint_computes_again():
    seen = []

    def body(x):
        y = tnp.sin(x)
        tfn.debug.callback(lambda v: seen.append(v.shape), y)
        return tnp.sum(tnp.tanh(y) ** 2)

    plain = np.asarray(tfn.jit(tfn.grad(body))(X))
    assert len(seen) == 1
    seen.clear()
    again = np.asarray(tfn.jit(tfn.grad(lambda x: tfn.checkpoint(body)(x)))(X))
    assert len(seen) == 2
    np.testing.assert_allclose(plain, again, rtol=1e-12)


def test_what_has_no_derivative_says_so():
    with pytest.raises(UnsupportedError, match=r"tfn\.callback has no derivative"):
        tfn.jvp(lambda x: tfn.debug.pure_callback(np.sin, x, x), (X,), (V,))
