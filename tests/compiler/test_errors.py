"""Mistakes of users: every one gives one message with the user's line, carets under the expression, the
actual shapes and a remedy. Each mistake is a function whose wrong line ends in `# wrong`."""

import inspect
import math
import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import tfn
from tfn import numpy as tnp
from tfn.compiler.errors import DonatedError, OpError, TfnError, TraceError

X = np.arange(6, dtype=np.float32).reshape(2, 3)
V = np.arange(3, dtype=np.float32)
N = np.int32(2)
KEPT: list[Any] = []


@dataclass
class Mistake:
    """A function that fails, what its error says, and what the carets underline."""

    function: Any
    underlined: str
    words: tuple[str, ...]
    kind: type


MISTAKES: list[Mistake] = []


def mistake(underlined: str, *words: str, kind: type = TfnError):
    def add(function):
        MISTAKES.append(Mistake(function, underlined, words, kind))
        return function

    return add


def underlined(report: str) -> str:
    """The text above the first row of carets."""
    lines = report.splitlines()
    row = next(i for i, line in enumerate(lines) if line.strip() and not line.strip(" ^"))
    first, last = lines[row].index("^"), lines[row].rindex("^") + 1
    return lines[row - 1][first:last]


@pytest.mark.parametrize("case", MISTAKES, ids=lambda m: m.function.__name__)
def test_mistake(case):
    lines, first = inspect.getsourcelines(case.function)
    (wrong,) = [first + i for i, line in enumerate(lines) if line.rstrip().endswith("# wrong")]
    KEPT.clear()
    with pytest.raises(case.kind) as caught:
        case.function()
    error = caught.value
    assert isinstance(error, TfnError)
    assert (error.location.file, error.location.line) == (__file__, wrong), str(error)
    assert underlined(str(error)) == case.underlined
    for words in case.words:
        assert words in str(error)


# -- Python needs a value --------------------------------------------------------------------------

@mistake("x.sum() > 0", "bool()", "tensor<i1>", "where()", "cond", kind=TypeError)
def branch():
    @tfn.jit
    def f(x):
        if x.sum() > 0:  # wrong
            return x
        return -x
    f(X)


@mistake("x.sum() > 0", "bool()", "cond")
def branch_under_grad():
    def f(x):
        return x.sum() if x.sum() > 0 else x.mean()  # wrong
    tfn.grad(f)(X)


@mistake("r.sum() > 0", "bool()")
def branch_under_vmap():
    def f(r):
        return r if r.sum() > 0 else -r  # wrong
    tfn.jit(tfn.vmap(f))(X)


@mistake("r.sum() > 0", "while_loop")
def loop_in_scan():
    def step(c, r):
        while r.sum() > 0:  # wrong
            c = c + 1
        return c, r
    tfn.scan(step, V, X)


@mistake("x if not x.any() else -x", "bool()")
def branch_in_cond():
    def yes(x):
        return x if not x.any() else -x  # wrong
    tfn.jit(lambda x: tfn.cond(x.sum() > 0, yes, lambda x: x, x))(X)


@mistake("float(x.sum())", "float()", "tensor<f32>", "tfn.debug.print", kind=TypeError)
def float_of():
    tfn.jit(lambda x: float(x.sum()))(X)  # wrong


@mistake("int(x.sum())", "int()", "astype")
def int_of():
    tfn.jit(lambda x: int(x.sum()))(X)  # wrong


@mistake("math.sqrt(x.sum())", "float()")
def math_of():
    tfn.jit(lambda x: math.sqrt(x.sum()))(X)  # wrong


@mistake("x.sum().item()", "item()")
def item_of():
    tfn.jit(lambda x: x.sum().item())(X)  # wrong


@mistake('f"{x.sum():.2f}"', "formatting with '.2f'", "tfn.debug.print")
def formatted():
    tfn.jit(lambda x: f"{x.sum():.2f}")(X)  # wrong


@mistake("[1, 2, 3][i]", "Python index", "asarray(list)[i]", "tensor<i32>")
def list_index():
    tfn.jit(lambda i: [1, 2, 3][i])(N)  # wrong


@mistake("range(n)", "fori_loop")
def range_of():
    tfn.jit(lambda n: [2 * i for i in range(n)])(N)  # wrong


@mistake("tnp.zeros((n, 2))", "shape", "static_argnums")
def shape_of():
    tfn.jit(lambda n: tnp.zeros((n, 2)))(N)  # wrong


@mistake("x[:n]", "slice with a fixed size")
def slice_to():
    tfn.jit(lambda x, n: x[:n])(X, N)  # wrong


@mistake("np.sin(x)", "NumPy array", "tensor<2x3xf32>", "tfn.numpy", "pure_callback")
def numpy_function():
    tfn.jit(lambda x: np.sin(x))(X)  # wrong


@mistake("np.concatenate([x, x])", "tfn.numpy")
def numpy_concatenate():
    tfn.jit(lambda x: np.concatenate([x, x]))(X)  # wrong


@mistake("x[x > 1]", "traced boolean mask", "where(mask, x, fill)")
def mask():
    tfn.jit(lambda x: x[x > 1])(X)  # wrong


# -- shapes and dtypes -----------------------------------------------------------------------------

@mistake("x @ x", "(2, 3) and (2, 3)", "(3) must equal 2", kind=ValueError)
def matmul():
    tfn.jit(lambda x: x @ x)(X)  # wrong


@mistake("tnp.matmul(X, X)", "(2, 3) and (2, 3)")
def matmul_eager():
    tnp.matmul(X, X)  # wrong


@mistake("r @ X", "(3,) and (2, 3)")
def matmul_in_vmap():
    tfn.vmap(lambda r: r @ X)(X)  # wrong


@mistake("x + y", "(2, 3) and (2,)", "broadcast")
def broadcast():
    tfn.jit(lambda x, y: x + y)(X, X[:, 0])  # wrong


@mistake("tnp.concatenate([x, x.T])", "tensor<2x3xf32> and tensor<3x2xf32> along dim 0", "C2")
def concatenate():
    tfn.jit(lambda x: tnp.concatenate([x, x.T]))(X)  # wrong


@mistake("x.reshape(4, 2)", "tensor<2x3xf32> (6 elements) to (4, 2) (8 elements)")
def reshape():
    tfn.jit(lambda x: x.reshape(4, 2))(X)  # wrong


@mistake("tnp.sum(x, axis=2)", "axis 2", "2 dims", kind=IndexError)
def axis():
    tfn.jit(lambda x: tnp.sum(x, axis=2))(X)  # wrong


@mistake("tnp.sum(x, axis=1.0)", "an axis is an int, not 1.0 (float)")
def axis_no_int():
    tfn.jit(lambda x: tnp.sum(x, axis=1.0))(X)  # wrong


@mistake("x << 2", "does not accept f32", "i32")
def shift_of_floats():
    tfn.jit(lambda x: x << 2)(X)  # wrong


@mistake('x.astype("flot32")', "'flot32'", "float32", kind=TypeError)
def no_dtype():
    tfn.jit(lambda x: x.astype("flot32"))(X)  # wrong


@mistake("x[0, 1, 2]", "3 for an array of 2 dims", kind=IndexError)
def too_many_indices():
    tfn.jit(lambda x: x[0, 1, 2])(X)  # wrong


@mistake("x[5]", "index 5", "axis of 2", "-2 to 1", kind=IndexError)
def index_out_of_range():
    tfn.jit(lambda x: x[5])(X)  # wrong


@mistake("x[1.0]", "not 1.0 (float)", kind=IndexError)
def float_index():
    tfn.jit(lambda x: x[1.0])(X)  # wrong


@mistake("x[0]", "x = x.at[key].set(value)", kind=TypeError)
def assignment():
    def f(x):
        x[0] = 1.0  # wrong
        return x
    tfn.jit(f)(X)


@mistake("a, b", "tensor<f32>", "unpacked", kind=TypeError)
def unpacking():
    def f(x):
        a, b = x.sum()  # wrong
        return a + b
    tfn.jit(f)(X)


# -- calls of compiled functions -------------------------------------------------------------------

@mistake("f(X)", "takes (x, y)", "missing a required argument: 'y'", kind=TypeError)
def too_few_arguments():
    f = tfn.jit(lambda x, y: x + y)
    f(X)  # wrong


@mistake("f(X, X)", "takes (x)", "too many positional arguments", kind=TypeError)
def too_many_arguments():
    f = tfn.jit(lambda x: x)
    f(X, X)  # wrong


@mistake("f(X, 'mean')", "'mean' (str) as how", "static_argnums", kind=TypeError)
def argument_no_array():
    f = tfn.jit(lambda x, how: x)
    f(X, 'mean')  # wrong


@mistake("f({'w': [X, object]})", "as state['w'][1]")
def leaf_no_array():
    f = tfn.jit(lambda state: state)
    f({'w': [X, object]})  # wrong


@mistake("f(X)", "returns 'text' (str) as result['b'][0]")
def result_no_array():
    f = tfn.jit(lambda x: {"a": x, "b": ["text"]})
    f(X)  # wrong


@mistake("f(X, [1, 2])", "static argument 1", "[1, 2] (list)", "not hashable", "tuple", kind=TypeError)
def static_not_hashable():
    f = tfn.jit(lambda x, s: x, static_argnums=1)
    f(X, [1, 2])  # wrong


@mistake("f(X, tnp.ones(3))", "static argument 1", "is an array")
def static_array():
    f = tfn.jit(lambda x, s: x, static_argnums=1)
    f(X, tnp.ones(3))  # wrong


@mistake("state + 1", "donated to step", "test_errors.py", "copy", kind=DonatedError)
def donated():
    def step(state):
        return state * 2
    state = tnp.ones(1000)
    tfn.jit(step, donate_argnums=0)(state)
    state + 1  # wrong


@mistake("np.asarray(state)", "donated", kind=RuntimeError)
def donated_to_numpy():
    state = tnp.ones(1000)
    tfn.jit(lambda s: s * 2, donate_argnums=0)(state)
    np.asarray(state)  # wrong


@mistake("f(state)", "donated")
def donated_twice():
    state = tnp.ones(1000)
    f = tfn.jit(lambda s: s * 2, donate_argnums=0)
    f(state)
    f(state)  # wrong


# -- leaks: the line of the use, and the line where the value was made ------------------------------

@mistake("KEPT[0] + 1", "Tracer(tensor<2x3xf32>) leaked", "return it", "KEPT.append(x * 2)\n    "
         "            ^^^^^", kind=TraceError)
def leak_to_a_global():
    @tfn.jit
    def f(x):
        KEPT.append(x * 2)
        return x
    f(X)
    KEPT[0] + 1  # wrong


@mistake("y + KEPT[0]", "leaked", "it is argument 0 of the function traced at")
def leak_of_an_argument():
    def f(x):
        KEPT.append(x)
        return x
    tfn.jit(f)(X)
    tfn.jit(lambda y: y + KEPT[0])(X)  # wrong


@mistake("float(layer.cache)", "leaked", "self.cache = x.sum()")
def leak_to_an_attribute():
    class Layer:
        def __call__(self, x):
            self.cache = x.sum()
            return x

    layer = Layer()
    tfn.jit(layer.__call__)(X)
    float(layer.cache)  # wrong


@mistake("KEPT[0] * 2", "leaked", "KEPT.append(x.sum())")
def leak_from_grad():
    def loss(x):
        KEPT.append(x.sum())
        return x.sum()
    tfn.grad(loss)(X)
    KEPT[0] * 2  # wrong


@mistake("c + KEPT[0]", "leaked", "KEPT.append(r + 1)")
def leak_from_scan():
    def step(c, r):
        KEPT.append(r + 1)
        return c + r, None

    def f(c, x):
        tfn.scan(step, c, x)
        return c + KEPT[0]  # wrong
    tfn.jit(f)(V, X)


# -- derivatives -----------------------------------------------------------------------------------

@mistake("tfn.grad(lambda x: x * 2)(X)", "float scalar", "tensor<2x3xf32>", "mean() or sum()",
         kind=TypeError)
def grad_of_no_scalar():
    tfn.grad(lambda x: x * 2)(X)  # wrong


@mistake("tfn.grad(lambda n, x: n * x.sum())(3, X)", "with respect to n, tensor<i32>", "3.0 for 3")
def grad_of_an_integer():
    tfn.grad(lambda n, x: n * x.sum())(3, X)  # wrong


@mistake("tfn.grad(lambda x: (x.sum(), x))(X)", "a tuple of 2", "has_aux=True")
def grad_of_a_pair():
    tfn.grad(lambda x: (x.sum(), x))(X)  # wrong


@mistake("tfn.grad(lambda x: x.sum(), has_aux=True)(X)", "a pair (value, aux), not an array")
def grad_without_aux():
    tfn.grad(lambda x: x.sum(), has_aux=True)(X)  # wrong


@mistake("tfn.grad(lambda x: x.sum(), argnums=1)(X)", "argument 1 (argnums)", "1 positional")
def grad_argnums():
    tfn.grad(lambda x: x.sum(), argnums=1)(X)  # wrong


@mistake("pull(V)", "cotangent is tensor<3xf32> as given and tensor<2x3xf32> in the result")
def cotangent_shape():
    _, pull = tfn.vjp(lambda x: x * 2, X)
    pull(V)  # wrong


@mistake("pull(X)", "cotangent is an array as given and a dict of 'a', 'b' in the result")
def cotangent_structure():
    _, pull = tfn.vjp(lambda x: {"a": x, "b": x}, X)
    pull(X)  # wrong


@mistake("tfn.jvp(tnp.sin, (X,), (V,))", "tangents[0] is tensor<3xf32>", "tensor<2x3xf32> in primals")
def tangent_shape():
    tfn.jvp(tnp.sin, (X,), (V,))  # wrong


def product(forward, backward):
    @tfn.custom_vjp
    def f(x, y):
        return x * y

    f.defvjp(forward, backward)
    return tfn.jit(tfn.grad(lambda x, y: f(x, y).sum()))


@mistake("f(X, X)", "backward rule of f", "tuple of 2 cotangents", "not a tuple of 1", kind=TypeError)
def backward_too_short():
    f = product(lambda x, y: (x * y, (x, y)), lambda r, ct: (ct * r[1],))
    f(X, X)  # wrong


@mistake("f(X, X)", "cotangent 1 is tensor<f32>", "tensor<2x3xf32> in the argument")
def backward_shape():
    f = product(lambda x, y: (x * y, (x, y)), lambda r, ct: (ct * r[1], ct.sum()))
    f(X, X)  # wrong


@mistake("f(X, X)", "forward rule of f", "pair (result, residuals), not an array")
def forward_no_pair():
    f = product(lambda x, y: x * y, lambda r, ct: (ct, ct))
    f(X, X)  # wrong


@mistake("f(X)", "f has no rules yet", "defvjp")
def no_rules():
    f = tfn.custom_vjp(lambda x: x)
    f.__name__ = "f"
    f(X)  # wrong


# -- control flow: which leaf -----------------------------------------------------------------------

@mistake("tfn.scan(step, {'a': V, 'b': V}, X)", "carry['b'] is tensor<3xf32> before a step and "
         "tensor<3xi32> after it", "astype", kind=TypeError)
def carry_dtype():
    def step(c, _):
        return {"a": c["a"] + 1, "b": (c["b"] > 0).astype("int32")}, None
    tfn.scan(step, {'a': V, 'b': V}, X)  # wrong


@mistake("tfn.scan(step, (V, [V]), X)", "carry[1] is a list of 1 before a step and an array after it")
def carry_structure():
    def step(c, _):
        return (c[0], c[1][0]), None
    tfn.scan(step, (V, [V]), X)  # wrong


@mistake("tfn.scan(lambda c, r: c, V, X)", "pair (carry, y), not an array", "y may be None")
def scan_without_y():
    tfn.scan(lambda c, r: c, V, X)  # wrong


@mistake("tfn.scan(f, V, {'x': X, 'y': V})", "xs['x'] has 2, xs['y'] has 3")
def scan_lengths():
    f = lambda c, r: (c, None)  # noqa: E731
    tfn.scan(f, V, {'x': X, 'y': V})  # wrong


@mistake("tfn.while_loop(more, step, {'n': 0, 'x': X})", "state['n'] is tensor<i32> before a step and "
         "tensor<f32> after it")
def while_state():
    more, step = lambda c: c["n"] < 3, lambda c: {**c, "n": c["n"] + 0.5}
    tfn.while_loop(more, step, {'n': 0, 'x': X})  # wrong


@mistake("tfn.while_loop(lambda v: v > 0, tnp.sin, V)", "condition", "tensor<3xi1>", "any() or all()")
def while_condition():
    tfn.while_loop(lambda v: v > 0, tnp.sin, V)  # wrong


@mistake("tfn.fori_loop(0, 3, lambda i, c: c + 0.5, 1)", "tensor<i32> before a step and tensor<f32>")
def fori_carry():
    tfn.fori_loop(0, 3, lambda i, c: c + 0.5, 1)  # wrong


@mistake("tfn.cond(True, yes, no, X)", "result['b'] is tensor<f32> from false_function and "
         "tensor<2x3xf32> from true_function", kind=TypeError)
def cond_types():
    yes, no = lambda x: {"a": x, "b": x}, lambda x: {"a": x, "b": x.sum()}
    tfn.cond(True, yes, no, X)  # wrong


@mistake("tfn.cond(True, yes, no, X)", "a list of 1 from false_function and a dict of 'a' from true")
def cond_structure():
    yes, no = lambda x: {"a": x}, lambda x: [x]
    tfn.cond(True, yes, no, X)  # wrong


@mistake("tfn.cond(X > 0, tnp.sin, tnp.cos, X)", "tensor<2x3xi1>", "scalar", "where()")
def cond_predicate():
    tfn.cond(X > 0, tnp.sin, tnp.cos, X)  # wrong


@mistake("tfn.switch(1.5, [tnp.sin, tnp.cos], X)", "tensor<f32>", "integer scalar")
def switch_index():
    tfn.switch(1.5, [tnp.sin, tnp.cos], X)  # wrong


@mistake("tfn.vmap(tnp.add)(X, V)", "dim 0 of tensor<2x3xf32> (2)", "dim 0 of tensor<3xf32> (3)")
def vmap_sizes():
    tfn.vmap(tnp.add)(X, V)  # wrong


# -- while the program runs ------------------------------------------------------------------------

@mistake("tfn.debug.pure_callback(lambda a: a[0], x, x)", "float32[3]", "tensor<2x3xf32> was declared")
def callback_shape():
    def f(x):
        return tfn.debug.pure_callback(lambda a: a[0], x, x) + 1  # wrong
    tfn.jit(f)(X)


@mistake("tfn.debug.pure_callback(list, (x, x, x), x)", "returned 2 arrays, but 3 were declared")
def callback_count():
    def f(x):
        return tfn.debug.pure_callback(list, (x, x, x), x)  # wrong
    tfn.jit(f)(X)


@mistake('tfn.debug.print("{} {}", x.sum())', "the format '{} {}'", "tensor<f32>", kind=ValueError)
def print_format():
    def f(x):
        tfn.debug.print("{} {}", x.sum())  # wrong
        return x
    tfn.jit(f)(X)


# -- the errors themselves -------------------------------------------------------------------------

def test_an_error_made_again_of_its_arguments_keeps_the_place():
    """Keras and `multiprocessing` do that."""
    with pytest.raises(OpError) as caught:
        tnp.matmul(X, X)
    again = type(caught.value)(*caught.value.args)
    assert str(again) == str(caught.value)
    assert "test_errors.py:" in str(again)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.message, copy.location, str(copy)) == (
        caught.value.message, caught.value.location, str(caught.value))


def test_a_donated_array_is_a_name_for_nothing_only_when_memory_could_be_reused():
    state, other = tnp.ones(10), tnp.ones(3)
    tfn.jit(lambda s, o: s * 2, donate_argnums=(0, 1))(state, other)
    assert other.tolist() == [1, 1, 1]
    with pytest.raises(DonatedError):
        state.tolist()


def test_numpy_arrays_are_never_given_away():
    tfn.jit(lambda s: s * 2, donate_argnums=0)(X)
    np.testing.assert_array_equal(X, np.arange(6).reshape(2, 3))


def test_numpys_reductions_call_the_methods_of_traced_values():
    found = tfn.jit(lambda x: (np.sum(x), np.mean(x, axis=0)))(X)
    np.testing.assert_array_equal(found[0], 15)
    np.testing.assert_array_equal(found[1], [1.5, 2.5, 3.5])
