"""Transforms in any order through control flow, and what their signatures take: against closed forms,
loops, and each other."""

from itertools import permutations

import numpy as np
import pytest

import tfn
from tfn import numpy as tnp
from tfn.compiler.errors import TraceError

RNG = np.random.default_rng(0)
X = RNG.uniform(0.3, 0.9, (2, 3))
W = RNG.uniform(0.3, 0.9, 3)


def custom():
    f = tfn.custom_vjp(lambda a, b: tnp.sin(a) * b)
    f.defvjp(lambda a, b: (tnp.sin(a) * b, (a, b)),
             lambda r, ct: (ct * tnp.cos(r[0]) * r[1], ct * tnp.sin(r[0])))
    return f


def custom_forward():
    f = tfn.custom_jvp(lambda a, b: tnp.sin(a) * b)
    f.defjvps(lambda t, out, a, b: t * tnp.cos(a) * b, lambda t, out, a, b: t * tnp.sin(a))
    return f


def loop(x, w):
    for _ in range(3):
        x = tnp.sin(x) * w
    return tnp.sum(x)


# A function of x and w, and the same without the structure.
STRUCTURES = {
    "cond": (lambda x, w: tnp.sum(tfn.cond(tnp.sum(x) > 0, lambda a: tnp.sin(a) * w, lambda a: a, x)),
             lambda x, w: tnp.sum(tnp.sin(x) * w)),
    "switch": (lambda x, w: tnp.sum(tfn.switch(1, [lambda a: a, lambda a: tnp.sin(a) * w], x)),
               lambda x, w: tnp.sum(tnp.sin(x) * w)),
    "fori_loop": (lambda x, w: tnp.sum(tfn.fori_loop(0, 3, lambda i, a: tnp.sin(a) * w, x)), loop),
    "scan": (lambda x, w: tnp.sum(tfn.scan(lambda a, v: (tnp.sin(a) * v, a), x,
                                           tnp.stack([w, w, w]))[0]), loop),
    "custom_vjp": (lambda x, w: tnp.sum(custom()(x, w)), lambda x, w: tnp.sum(tnp.sin(x) * w)),
    "custom_jvp": (lambda x, w: tnp.sum(custom_forward()(x, b=w)),
                   lambda x, w: tnp.sum(tnp.sin(x) * w)),
    "checkpoint": (lambda x, w: tfn.checkpoint(loop)(x, w), loop),
    "checkpoint of a scan": (lambda x, w: tfn.checkpoint(
        lambda y: tnp.sum(tfn.scan(lambda a, _: (tnp.sin(a) * w, None), y, length=3)[0]))(x), loop),
    "scan of a cond": (lambda x, w: tnp.sum(tfn.scan(lambda a, _: (
        tfn.cond(tnp.sum(a) > -9, lambda b: tnp.sin(b) * w, lambda b: b, a), None), x, length=3)[0]),
        loop),
    "stop_gradient": (lambda x, w: tnp.sum(tnp.sin(x) * w + tfn.stop_gradient(x * w)),
                      lambda x, w: tnp.sum(tnp.sin(x) * w)),
    "jit": (lambda x, w: tfn.jit(loop)(x, w), loop),
}
TRANSFORMS = {
    "jit": lambda f: tfn.jit(f),
    "grad": lambda f: tfn.grad(f),
    "vmap": lambda f: tfn.vmap(f, (0, None)),
}


def same(a, b, rtol=1e-10):
    a, b = (v if isinstance(v, tuple) else (v,) for v in (a, b))
    for p, q in zip(a, b, strict=True):
        np.testing.assert_allclose(np.asarray(p), np.asarray(q), rtol=rtol, atol=1e-13)


@pytest.mark.parametrize("order", [o for o in permutations(TRANSFORMS)
                                   if o.index("vmap") < o.index("grad")], ids="-".join)
@pytest.mark.parametrize("name", STRUCTURES)
def test_any_order(name, order):
    """grad is inside of vmap, as it needs a scalar; the outermost comes first."""
    f, plain = STRUCTURES[name]
    for transform in reversed(order):
        f = TRANSFORMS[transform](f)
    same(f(X, W), np.stack([np.asarray(tfn.grad(plain)(x, W)) for x in X]))


@pytest.mark.parametrize("name", STRUCTURES)
def test_gradient_of_a_map(name):
    f, plain = STRUCTURES[name]
    total = lambda g: lambda x, w: tnp.sum(tfn.vmap(g, (0, None))(x, w))  # noqa: E731
    same(tfn.jit(tfn.grad(total(f), (0, 1)))(X, W), tfn.grad(total(plain), (0, 1))(X, W))


@pytest.mark.parametrize("name", STRUCTURES)
def test_second_derivatives(name):
    """Forward over reverse, reverse over reverse, and both under vmap."""
    f, plain = STRUCTURES[name]
    x = X[0]
    along = lambda g: lambda x: tfn.jvp(lambda v: tfn.grad(g)(v, W), (x,), (W,))[1]  # noqa: E731
    twice = lambda g: tfn.grad(lambda v: tnp.sum(tfn.grad(g)(v, W) * W))  # noqa: E731
    if name == "stop_gradient":
        plain = f
    same(tfn.jit(along(f))(x), along(plain)(x))
    same(tfn.jit(twice(f))(x), twice(plain)(x))
    same(tfn.vmap(along(f))(X), np.stack([np.asarray(along(plain)(r)) for r in X]))


def test_while_in_forward_mode():
    f = lambda x: tfn.while_loop(lambda s: s[1] < 3, lambda s: (tnp.sin(s[0]) * W, s[1] + 1),  # noqa: E731
                                 (x, 0))[0]
    found = tfn.jit(tfn.vmap(lambda x: tfn.jvp(f, (x,), (W,))[1]))(X)
    same(found, np.stack([np.asarray(tfn.jacfwd(f)(x)) @ W for x in X]))
    y, push = tfn.linearize(f, X[0])
    same(y, f(X[0]))
    same(push(W), np.asarray(found)[0])


# -- checkpoint policies --------------------------------------------------------------------------

POLICIES = tfn.checkpoint_policies


@pytest.mark.parametrize("name", ["everything_saveable", "nothing_saveable", "dots_saveable",
                                  "dots_with_no_batch_dims_saveable"])
def test_policies_change_no_numbers(name):
    f = lambda x: tnp.sum(tnp.exp(tnp.matmul(tnp.sin(x), np.outer(W, W))))  # noqa: E731
    found = tfn.jit(tfn.grad(tfn.checkpoint(f, policy=getattr(POLICIES, name))))(X)
    same(found, tfn.grad(f)(X))


def sines(policy):
    """How many sines the gradient computes."""
    f = lambda x: tnp.sum(tnp.exp(tfn.checkpoint_name(tnp.sin(x), "sine")))  # noqa: E731
    function = tfn.jit(tfn.grad(tfn.checkpoint(f, policy=policy))).trace(X)
    count = 0

    def visit(block):
        nonlocal count
        for op in block.ops:
            count += op.name == "stablehlo.sine"
            for value in op.attributes.values():
                if hasattr(value, "body"):
                    visit(value.body)

    visit(function.body)
    return count


@pytest.mark.parametrize("policy, count", [
    (None, 2), (POLICIES.nothing_saveable, 2), (POLICIES.everything_saveable, 1),
    (POLICIES.dots_saveable, 2),
    (POLICIES.save_only_these_names("other"), 2),
    (POLICIES.save_anything_except_these_names("other"), 1),
    (POLICIES.save_from_both_policies(POLICIES.dots_saveable, POLICIES.everything_saveable), 1),
])
def test_what_is_kept_is_not_computed_again(policy, count):
    assert sines(policy) == count


def test_a_named_value_is_kept():
    f = lambda x: tnp.sum(tnp.exp(tfn.checkpoint_name(tnp.sin(x), "sine")))  # noqa: E731
    kept = tfn.checkpoint(f, policy=POLICIES.save_only_these_names("sine"))
    same(tfn.jit(tfn.grad(kept))(X), np.cos(X) * np.exp(np.sin(X)))
    same(tfn.jit(tfn.vmap(tfn.grad(kept)))(X), np.cos(X) * np.exp(np.sin(X)))


# -- signatures -----------------------------------------------------------------------------------

def test_static_arguments_by_name_and_position():
    calls = []

    @tfn.jit(static_argnames=("power",))
    def f(x, power=2, *, scale=1.0):
        calls.append(power)
        return x**power * scale

    for args, kwargs in (((X, 3), {}), ((X,), {"power": 3}), ((X, 2), {"scale": 2.0})):
        power = args[1] if len(args) > 1 else kwargs["power"]
        same(f(*args, **kwargs), X**power * kwargs.get("scale", 1.0))
    assert calls == [3, 3, 2]
    last = tfn.jit(lambda x, n: x * n, static_argnums=-1)
    same(last(X, 3), X * 3)
    same(last(X, n=4), X * 4)
    assert "static argument" in last.explain() or "structure" in last.explain()


def test_an_argument_that_is_not_there():
    with pytest.raises(TraceError, match="has no argument pow; it has x, power"):
        tfn.jit(lambda x, power: x, static_argnames="pow")


def test_donation_by_name():
    step = tfn.jit(lambda state, x: state + x, donate_argnames="state")
    (argument, other) = step.trace(state=X, x=X).argument_attributes
    assert "tf.aliasing_output" in argument
    assert "tf.aliasing_output" not in other


def test_aux():
    f = lambda x: (tnp.sin(x), {"twice": 2 * x, "count": 3})  # noqa: E731
    value, pull, aux = tfn.vjp(f, X, has_aux=True)
    same(value, np.sin(X))
    same(pull(np.ones_like(X)), np.cos(X))
    same(aux["twice"], 2 * X)
    value, tangent, aux = tfn.jvp(f, (X,), (X,), has_aux=True)
    same(tangent, np.cos(X) * X)
    for jacobian in (tfn.jacfwd, tfn.jacrev):
        found, aux = jacobian(f, has_aux=True)(W)
        same(found, np.diag(np.cos(W)))
        assert int(aux["count"]) == 3
    with pytest.raises(TraceError, match="a pair"):
        tfn.vjp(tnp.sin, X, has_aux=True)


def test_jacobians_of_trees():
    def f(a, b, scale):
        return {"p": a["w"] * tnp.sum(b) * scale, "s": tnp.sum(a["w"] * b**2)}

    a, b = {"w": W}, X[0]
    for jacobian in (tfn.jacfwd, tfn.jacrev):
        found = jacobian(f, argnums=(0, 1))(a, b, scale=2.0)
        same(found["p"][0]["w"], np.eye(3) * b.sum() * 2)
        same(found["p"][1], np.repeat(W[:, None] * 2, 3, 1))
        same(found["s"][0]["w"], b**2)
        same(found["s"][1], 2 * W * b)
    second = tfn.hessian(lambda a, b: f(a, b, 1.0)["s"], argnums=(0, 1))(a, b)
    same(second[0]["w"][1], np.diag(2 * b))
    same(second[1][1], np.diag(2 * W))


def test_linearize():
    y, push = tfn.jit(lambda x: tfn.linearize(tnp.sin, x)[0])(X), tfn.linearize(tnp.sin, X)[1]
    same(y, np.sin(X))
    for t in (X, -X):
        same(push(t), np.cos(X) * t)
    same(tfn.jit(lambda x, t: tfn.linearize(tnp.sin, x)[1](t))(X, X), np.cos(X) * X)


@pytest.mark.parametrize("length", [1, 2, 5, 8, 13])
@pytest.mark.parametrize("reverse", [False, True])
def test_associative_scan(length, reverse):
    a, b = RNG.uniform(0.5, 1.5, (2, length, 2))

    def affine(f, g):
        return {"a": f["a"] * g["a"], "b": f["b"] * g["a"] + g["b"]}

    found = tfn.jit(lambda x: tfn.associative_scan(affine, x, reverse=reverse))({"a": a, "b": b})
    order = range(length)[::-1] if reverse else range(length)
    p, q = np.ones(2), np.zeros(2)
    for i in order:
        p, q = p * a[i], q * a[i] + b[i]
        same(found["a"][i], p)
        same(found["b"][i], q)
    other = tfn.associative_scan(tnp.add, a, axis=1)
    same(other, np.cumsum(a, 1))
    slope = tfn.grad(lambda x: tnp.sum(tfn.associative_scan(tnp.multiply, x, reverse=reverse)[-1]))(a)
    assert np.isfinite(np.asarray(slope)).all()


@pytest.mark.parametrize("batch_size", [None, 2, 3, 7])
def test_map(batch_size):
    xs = RNG.normal(size=(6, 2))
    f = lambda x: {"s": tnp.sum(x), "d": x * 2}  # noqa: E731
    found = tfn.jit(lambda x: tfn.map(f, x, batch_size=batch_size))(xs)
    same(found["s"], xs.sum(1))
    same(found["d"], xs * 2)


def test_collectives_by_public_names():
    def f(x):
        return (tfn.psum(x, "i"), tfn.pmean(x, "i"), tfn.pmax(x, "i"), x * tfn.axis_index("i"),
                tfn.all_gather(x, "i"))

    total, mean, largest, indexed, gathered = tfn.jit(tfn.vmap(f, axis_name="i"))(X)
    same(total, np.broadcast_to(X.sum(0), X.shape))
    same(mean, np.broadcast_to(X.mean(0), X.shape))
    same(largest, np.broadcast_to(X.max(0), X.shape))
    same(indexed, X * np.arange(2)[:, None])
    same(gathered, np.broadcast_to(X, (2, 2, 3)))


def test_conditionals_of_programs_have_gradients():
    program = tfn.from_stablehlo("""
func.func @main(%x: tensor<f64>, %i: tensor<i32>) -> tensor<f64> {
  %0 = "stablehlo.case"(%i) ({
    %1 = stablehlo.sine %x : tensor<f64>
    stablehlo.return %1 : tensor<f64>
  }, {
    %1 = stablehlo.multiply %x, %x : tensor<f64>
    stablehlo.return %1 : tensor<f64>
  }) : (tensor<i32>) -> tensor<f64>
  return %0 : tensor<f64>
}""")
    for index, slope in ((0, np.cos(0.5)), (1, 1.0), (7, 1.0), (-3, 1.0)):
        same(tfn.grad(program)(np.asarray(0.5), np.int32(index)), slope)
