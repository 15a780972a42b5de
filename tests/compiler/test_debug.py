"""NaN checks, printing, callbacks, explanations, carets, and programs from elsewhere."""

import re

import numpy as np
import pytest

import tfn
from tfn import numpy as tnp
from tfn.compiler.errors import OpError, ParseError, TfnError, TraceError

X = np.array([2.0, 0.5, 3.0], np.float32)


def loss(x):
    shifted = x - 1
    return tnp.sum(tnp.log(shifted))  # A NaN is born here.


LINE = loss.__code__.co_firstlineno + 2


class TestNans:
    @pytest.mark.parametrize("run", [loss, tfn.jit(loss), tfn.jit(tfn.grad(loss))],
                             ids=["eager", "jit", "grad"])
    def test_the_line_is_named(self, run):
        with tfn.debug.check_nans(), pytest.raises(FloatingPointError, match="made a NaN") as caught:
            run(X)
        assert "stablehlo.log made" in str(caught.value)
        assert (caught.value.location.file, caught.value.location.line) == (__file__, LINE)
        assert "tnp.log(shifted)" in str(caught.value)
        assert "^^^^" in str(caught.value)

    def test_numbers_pass(self):
        with tfn.debug.check_nans():
            found = float(tfn.jit(loss)(X + 1))
        np.testing.assert_allclose(found, np.log(X).sum(), rtol=1e-6)

    def test_outside_nothing_is_checked(self):
        assert np.isnan(float(tfn.jit(loss)(X)))

    def test_an_argument(self):
        message = "the argument x, tensor<1xf32>, holds a NaN"
        with tfn.debug.check_nans(), pytest.raises(FloatingPointError, match=message):
            tfn.jit(loss)(np.array([np.nan], np.float32))

    def test_infinities(self):
        f = tfn.jit(lambda x: tnp.exp(x * 100))
        with tfn.debug.check_nans():
            f(X)
        with tfn.debug.check_nans(infs=True), pytest.raises(FloatingPointError, match="exponential"):
            f(X)

    def test_inside_a_loop(self):
        f = tfn.jit(lambda x: tfn.while_loop(lambda c: tnp.sum(c) > -9, lambda c: tnp.sqrt(c - 1), x))
        with tfn.debug.check_nans(), pytest.raises(FloatingPointError, match="sqrt made a NaN"):
            f(X)


def smallest(x):
    return tnp.sum(tnp.sqrt(x - 1))


def fold(x):
    def step(c, r):
        return c + tnp.log(r - 1), None
    return tfn.scan(step, np.float32(0), x)[0]


@tfn.custom_vjp
def doubled(x):
    return tnp.sum(x * 2)


doubled.defvjp(lambda x: (tnp.sum(x * 2), x), lambda x, ct: (ct * tnp.log(x - 1),))


@tfn.custom_jvp
def tripled(x):
    return tnp.sum(x * 3)


tripled.defjvp(lambda p, t: (tnp.sum(p[0] * 3), tnp.sum(tnp.log(p[0] - 1) * t[0])))

BORN = {
    # the program, its argument, the op, the text underlined
    "vmap": (tfn.vmap(lambda r: tnp.log(r - 1)), X, "log", "tnp.log(r - 1)"),
    "scan": (fold, X, "log", "tnp.log(r - 1)"),
    "grad of scan": (tfn.grad(fold), X, "log", "tnp.log(r - 1)"),
    "cond": (lambda x: tfn.cond(x[0] > 0, lambda y: tnp.log(y - 1), lambda y: y, x), X, "log",
             "tnp.log(y - 1)"),
    "fori_loop": (lambda x: tfn.fori_loop(0, 3, lambda i, c: tnp.sqrt(c - 1), x), X, "sqrt",
                  "tnp.sqrt(c - 1)"),
    "checkpoint": (tfn.grad(tfn.checkpoint(smallest)), X, "sqrt", "tnp.sqrt(x - 1)"),
    "custom_vjp": (tfn.grad(doubled), X, "log", "tnp.log(x - 1)"),
    "custom_jvp": (tfn.grad(tripled), X, "log", "tnp.log(p[0] - 1)"),
    "where": (tfn.grad(lambda x: tnp.sum(tnp.where(x > 1, tnp.log(x - 1), 0))), X, "log",
              "tnp.log(x - 1)"),
    "0/0": (lambda x: (x - x) / (x - x), X, "divide", "(x - x) / (x - x)"),
    "inf - inf": (lambda x: x / 0 - x / 0, X, "subtract", "x / 0 - x / 0"),
    "dead code": (lambda x: (tnp.log(x - 1), x)[1], X, "log", "tnp.log(x - 1)"),
    "complex": (lambda x: x * 1j / (x - x), X, "divide", "x * 1j / (x - x)"),
    "bfloat16": (lambda x: tnp.log(x.astype("bfloat16") - 1), X, "log",
                 'tnp.log(x.astype("bfloat16") - 1)'),
}


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("name", BORN)
def test_where_a_nan_is_born(name, compiled):
    function, argument, op, expression = BORN[name]
    run = tfn.jit(function) if compiled else function
    with tfn.debug.check_nans(), pytest.raises(FloatingPointError) as caught:
        run(tnp.asarray(argument))
    assert f"stablehlo.{op} made a NaN, in tensor<" in str(caught.value)
    assert "which none of its operands holds" in str(caught.value)
    assert caught.value.location.file == __file__
    _, shown, carets = str(caught.value).splitlines()
    assert shown[carets.index("^"):carets.rindex("^") + 1] == expression


def test_a_nan_of_a_derivative_is_called_that():
    """sqrt'(0) is infinite; the two infinities meet where `x - x` adds up its cotangents."""
    with tfn.debug.check_nans(), pytest.raises(FloatingPointError) as caught:
        tfn.jit(tfn.grad(lambda x: tnp.sum(tnp.sqrt(x - x))))(X)
    assert re.search(r"test_debug.py:\d+ \(in its derivative\): stablehlo.add made", str(caught.value))


def test_the_infinity_before_it():
    with tfn.debug.check_nans(infs=True), pytest.raises(FloatingPointError) as caught:
        tfn.jit(tfn.grad(lambda x: tnp.sum(tnp.sqrt(x - x))))(X)
    assert "stablehlo.divide made a NaN or an infinity" in str(caught.value)
    assert "tnp.sqrt(x - x)" in str(caught.value)


def test_infinities_that_somebody_wrote_are_no_births():
    with tfn.debug.check_nans(infs=True):
        tfn.jit(lambda x: tnp.max(tnp.where(x > 1, x, -np.inf)))(X)
        tfn.grad(lambda x: tfn.nn.softmax(x)[0])(X)


def test_a_branch_not_taken_is_not_checked():
    with tfn.debug.check_nans():
        tfn.jit(lambda x: tfn.cond(x[0] < 0, lambda y: tnp.log(y - 1), lambda y: y, x))(X)


def test_nothing_is_donated_while_nans_are_looked_for():
    state = tnp.asarray(X) + 0
    with tfn.debug.check_nans(), pytest.raises(FloatingPointError):
        tfn.jit(lambda s: s + tnp.log(s - 1), donate_argnums=0)(state)
    np.testing.assert_array_equal(state, X)


class TestCallbacks:
    def test_print(self, capsys):
        @tfn.jit
        def f(x):
            tfn.debug.print("x = {}, sum {s:.1f}", x, s=tnp.sum(x))
            tfn.debug.print("second")
            return x

        f(X)
        assert capsys.readouterr().out == "x = [2.  0.5 3. ], sum 5.5\nsecond\n"

    @pytest.mark.parametrize(("run", "lines"), [
        (tfn.grad(lambda x: (tfn.debug.print("{}", x), tnp.sum(x))[1]), ["[2.  0.5 3. ]"]),
        (tfn.vmap(lambda x: (tfn.debug.print("{}", x), x)[1]), ["2.0", "0.5", "3.0"]),
        (lambda x: tfn.scan(lambda c, r: (tfn.debug.print("{} {}", c, r), (c + r, r))[1],
                            np.float32(0), x), ["0.0 2.0", "2.0 0.5", "2.5 3.0"]),
        (lambda x: tfn.cond(x[0] > 0, lambda y: (tfn.debug.print("yes"), y)[1],
                            lambda y: (tfn.debug.print("no"), y)[1], x), ["yes"]),
        (lambda x: tfn.jvp(lambda y: (tfn.debug.print("{:.1f}", y[0]), y)[1], (x,), (x,)), ["2.0"]),
    ], ids=["grad", "vmap", "scan", "cond", "jvp"])
    def test_print_inside(self, capsys, run, lines):
        tfn.jit(run)(X)
        assert capsys.readouterr().out.splitlines() == lines

    def test_print_needs_its_arguments(self):
        with pytest.raises(ValueError, match="there is no 's'"):
            tfn.debug.print("{s}")

    @pytest.mark.parametrize("compile", [lambda f: f, tfn.jit], ids=["eager", "jit"])
    def test_a_callback_keeps_or_changes_what_it_is_given(self, compile):
        kept = []

        def keep(x):
            kept.append(x)
            x += 1

        f = compile(lambda x: (tfn.debug.callback(keep, x * 2), tfn.debug.callback(keep, x), x + 3)[2])
        for i in range(4):
            x = tnp.full(100, i, np.float32)
            assert (np.asarray(f(x)) == i + 3).all()
            assert (np.asarray(x) == i).all()
        assert [(k.min(), k.max()) for k in kept] == [
            (v + 1, v + 1) for i in range(4) for v in (2 * i, i)]

    def test_pure_callback(self):
        f = tfn.jit(lambda x: tfn.debug.pure_callback(np.sort, x, x) * 2)
        np.testing.assert_array_equal(np.asarray(f(X)), [1, 4, 6])

    def test_exceptions_come_out(self):
        def fail(_):
            raise KeyError("mine")

        f = tfn.jit(lambda x: (tfn.debug.callback(fail, x), x)[1])
        for _ in range(2):
            with pytest.raises(KeyError, match="mine"):
                f(X)


def test_why_it_was_compiled_again():
    f = tfn.jit(lambda x: x + 1)
    f(X)
    f(X[:2])
    f(X.astype(np.float64))
    lines = f.explain().splitlines()
    assert lines[0].endswith("compiled for 3 signatures")
    assert lines[1:] == ["1. the first call", "2. array 0 has shape (2,), had (3,)",
                         "3. array 0 has dtype float64, had float32"]


def test_a_leaked_tracer_says_where_it_was_made():
    kept = []
    tfn.jit(lambda x: kept.append(x * 2) or x)(X)
    with pytest.raises(TraceError, match=r"leaked(.|\n)*it was made at .*test_debug\.py:\d+"):
        kept[0] + 1


class TestStableHlo:
    TEXT = """
    func.func @main(%x: tensor<?x3xf32>, %w: tensor<3xf32>) -> tensor<?xf32> {
      %0 = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0] :
        (tensor<?x3xf32>, tensor<3xf32>) -> tensor<?xf32>
      return %0 : tensor<?xf32>
    }"""

    def test_called_differentiated_batched(self):
        f = tfn.from_stablehlo(self.TEXT)
        x = np.arange(6, dtype=np.float32).reshape(2, 3)
        np.testing.assert_allclose(np.asarray(f(x, X)), x @ X)
        np.testing.assert_allclose(np.asarray(f(x[:1], X)), x[:1] @ X)
        np.testing.assert_allclose(np.asarray(tfn.grad(lambda w: tnp.sum(f(x, w)))(X)), x.sum(0))
        many = tfn.jit(tfn.vmap(f, in_axes=(0, None)))(np.stack([x, x + 1]), X)
        np.testing.assert_allclose(np.asarray(many), np.stack([x, x + 1]) @ X, rtol=1e-6)

    def test_what_does_not_fit(self):
        f = tfn.from_stablehlo(self.TEXT)
        with pytest.raises(OpError, match=r"argument 1 of main must be tensor<3xf32>, got tensor<2xf"):
            f(np.ones((2, 3), np.float32), X[:2])
        with pytest.raises(OpError, match="takes 2 arrays, got 1"):
            f(np.ones((2, 3), np.float32))

    def test_files(self, tmp_path):
        with pytest.raises(TfnError, match="there is no file"):
            tfn.from_stablehlo(tmp_path / "no.mlir")
        (tmp_path / "b.mlir").write_bytes(b"ML\xefR\xff")
        with pytest.raises(TfnError, match="byte 2 is not UTF-8"):
            tfn.from_stablehlo(tmp_path / "b.mlir")
        (tmp_path / "c.mlir").write_text("func.func @main( {")
        with pytest.raises(ParseError, match=r"c\.mlir:1: .*column"):
            tfn.from_stablehlo(tmp_path / "c.mlir")
