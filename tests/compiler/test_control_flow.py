"""cond, switch, while_loop, fori_loop, scan: against Python loops, in every nesting of derivatives."""

import numpy as np
import pytest

import tfn
from tfn import numpy as tnp
from tfn.compiler.compile import compile_function
from tfn.compiler.errors import TraceError, UnsupportedError
from tfn.compiler.ir.parser import parse_module

RNG = np.random.default_rng(0)
W = RNG.normal(size=(3, 3)) * 0.5
XS = RNG.normal(size=(5, 3))
START = np.zeros(3)


def rolled(w, xs, reverse=False):
    def step(c, x):
        h = tnp.tanh(tnp.matmul(c, w) + x)
        return h, (h * 2, c[0])

    last, (a, b) = tfn.scan(step, START, xs, reverse=reverse)
    return tnp.sum(last * last) + tnp.sum(a * tnp.expand_dims(b, 1))


def unrolled(w, xs, reverse=False):
    c, total = START, 0.0
    for i in reversed(range(5)) if reverse else range(5):
        before = c
        c = tnp.tanh(tnp.matmul(c, w) + xs[i])
        total = total + tnp.sum(c * 2 * before[0])
    return tnp.sum(c * c) + total


def same(a, b, **tolerance):
    a, b = (v if isinstance(v, tuple) else (v,) for v in (a, b))
    for p, q in zip(a, b, strict=True):
        np.testing.assert_allclose(np.asarray(p), np.asarray(q), **{"rtol": 1e-10, "atol": 1e-12,
                                                                    **tolerance})


TRANSFORMED = {
    "value": lambda f: f,
    "grad": lambda f: tfn.grad(f, (0, 1)),
    "jvp": lambda f: lambda w, x: tfn.jvp(f, (w, x), (w + 1, x * 2)),
    "jvp of grad": lambda f: lambda w, x: tfn.jvp(tfn.grad(f), (w, x), (w + 1, x * 2)),
    "grad of grad": lambda f: tfn.grad(lambda w, x: tnp.sum(tfn.grad(f)(w, x) ** 2)),
    "checkpoint": lambda f: tfn.grad(lambda w, x: tfn.checkpoint(f)(w, x)),
}


@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("name", TRANSFORMED)
def test_scan_is_the_loop(name, reverse):
    transform = TRANSFORMED[name]
    found = tfn.jit(transform(lambda w, x: rolled(w, x, reverse)))(W, XS)
    same(found, tfn.jit(transform(lambda w, x: unrolled(w, x, reverse)))(W, XS))


def test_scan_under_vmap():
    batch = np.stack([XS, XS * 2])
    found = tfn.jit(tfn.vmap(tfn.grad(rolled), in_axes=(None, 0)))(W, batch)
    for i in range(2):
        same(np.asarray(found)[i], tfn.grad(unrolled)(W, batch[i]))


def test_scan_without_inputs_and_of_no_length():
    last, ys = tfn.jit(lambda c: tfn.scan(lambda c, _: (c + 1, c), c, length=4))(np.float32(2))
    assert float(last) == 6
    np.testing.assert_array_equal(np.asarray(ys), [2, 3, 4, 5])
    last, ys = tfn.scan(lambda c, x: (c + x, c), np.float32(1), np.zeros(0, np.float32))
    assert float(last) == 1
    assert ys.shape == (0,)


def test_scan_refuses():
    with pytest.raises(TraceError, match=r"carry is tensor<f32> before a step and tensor<2xf32> after"):
        tfn.scan(lambda c, x: (x, c), np.float32(0), np.zeros((3, 2), np.float32))
    with pytest.raises(TraceError, match="one length"):
        tfn.scan(lambda c, x: (c, c), 0.0, (np.zeros(3), np.zeros(4)))
    with pytest.raises(TraceError, match=r"returns a pair \(carry, y\), not an array"):
        tfn.scan(lambda c, x: c, 0.0, np.zeros(3))


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", ["value", "grad", "jvp"])
def test_cond_takes_one_branch(sign, name):
    def f(w, x):
        return tnp.sum(tfn.cond(tnp.sum(x) > 0, lambda a: tnp.sin(a) * w[0], lambda a: a * a, x))

    def chosen(w, x):
        return tnp.sum(tnp.sin(x) * w[0] if sign > 0 else x * x)

    x = np.abs(XS) * sign
    transform = TRANSFORMED[name]
    same(tfn.jit(transform(f))(W, x), transform(chosen)(W, x))


def test_switch_clamps():
    branches = [tnp.sin, tnp.cos, lambda a: a * 3]
    run = tfn.jit(lambda i, x: tfn.switch(i, branches, x))
    thrice = XS * 3
    for i, expected in ((-5, np.sin(XS)), (0, np.sin(XS)), (1, np.cos(XS)), (2, thrice), (9, thrice)):
        same(run(np.int32(i), XS), expected)


def test_branches_of_different_types_are_refused():
    message = "result is tensor<3xf64> from false_function and tensor<5x3xf64> from true_function"
    with pytest.raises(TraceError, match=message):
        tfn.cond(np.True_, lambda a: a, lambda a: a[0], XS)


def test_while_loop():
    f = lambda x: tfn.while_loop(  # noqa: E731
        lambda s: tnp.sum(s[0]) < 50, lambda s: (s[0] * 1.5 + 1, s[1] + 1), (x, 0))
    x, expected, count = np.abs(XS), np.abs(XS), 0
    while expected.sum() < 50:
        expected, count = expected * 1.5 + 1, count + 1
    value, steps = tfn.jit(f)(x)
    same(value, expected)
    assert int(steps) == count
    _, tangent = tfn.jit(lambda x: tfn.jvp(lambda v: f(v)[0], (x,), (x,)))(x)
    same(tangent, x * 1.5**count)


def test_while_loop_has_no_reverse_mode():
    with pytest.raises(UnsupportedError, match="use scan") as caught:
        tfn.grad(lambda x: tfn.while_loop(lambda s: s < 5, lambda s: s * 2, x))(1.0)
    assert caught.value.location.file == __file__


def test_while_loop_keeps_its_type():
    message = "state is tensor<i32> before a step and tensor<f32> after it"
    with pytest.raises(TraceError, match=message):
        tfn.while_loop(lambda s: s < 5, lambda s: s * 0.5, np.int32(1))


def test_fori_loop():
    f = lambda x: tnp.sum(tfn.fori_loop(0, 5, lambda i, c: c * 0.9 + i, x) ** 2)  # noqa: E731
    c = XS
    for i in range(5):
        c = c * 0.9 + i
    same(tfn.jit(f)(XS), (c**2).sum())
    same(tfn.jit(tfn.grad(f))(XS), 2 * c * 0.9**5)
    dynamic = tfn.jit(lambda n, x: tfn.fori_loop(0, n, lambda i, c: c + i, x))
    same(dynamic(np.int32(4), XS), XS + 6)


def test_a_loop_that_makes_arrays_of_an_unknown_size_and_starts_from_constants():
    """Every pass leaves such a loop to run time."""
    function = parse_module("""func.func @main(%x: tensor<?x2xi8>) -> (tensor<i32>, tensor<?x2xi8>) {
      %z = stablehlo.constant dense<(1.0, 2.0)> : tensor<complex<f32>>
      %0 = stablehlo.constant dense<0> : tensor<i32>
      %1:2 = stablehlo.while(%i = %0, %c = %z) : tensor<i32>, tensor<complex<f32>>
      cond {
        %2 = stablehlo.constant dense<3> : tensor<i32>
        %5 = stablehlo.compare LT, %i, %2 : (tensor<i32>, tensor<i32>) -> tensor<i1>
        stablehlo.return %5 : tensor<i1>
      } do {
        %2 = stablehlo.constant dense<1> : tensor<i32>
        %3 = stablehlo.constant dense<1> : tensor<i8>
        %4 = stablehlo.broadcast_in_dim %3, dims = [] : (tensor<i8>) -> tensor<?x2xi8>
        %6 = stablehlo.add %i, %2 : tensor<i32>
        stablehlo.return %6, %c : tensor<i32>, tensor<complex<f32>>
      }
      return %1#0, %x : tensor<i32>, tensor<?x2xi8>
    }""")["main"]
    x = np.zeros((4, 2), np.int8)
    count, same = compile_function(function)(x)
    assert count == 3
    assert same.shape == (4, 2)
