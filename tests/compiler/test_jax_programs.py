"""Programs written in JAX, as JAX prints them today: read, run on both engines, transformed, bundled.

The oracle is JAX, in its own environment. The programs are those of `conformance jax`, which also
runs ResNet50 and BERT.
"""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

import tfn
import tfn.compiler.numpy as tnp
from tfn.compiler.compile import compile_function
from tfn.compiler.ir.core import Module
from tfn.compiler.ir.evaluator import evaluate
from tfn.compiler.ir.parser import parse_module
from tfn.compiler.ir.printer import print_module
from tfn.compiler.ir.verify import verify
from tfn.export.bundle import Bundle, Runner, Signature, TensorSpec, read_bundle, write_bundle
from tfn.tools.conformance.jax import SMALL, distance, read_arrays, save_programs
from tfn.tools.conformance.printed import check
from tfn.tools.conformance.widen import widened

pytestmark = pytest.mark.outside("jax")
# Random numbers and special functions have tests of their own; the nightly command runs them all.
NAMES = [n for n in SMALL if n not in ("randomness", "functions")]
ENGINES = {"evaluator": evaluate, "compiler": lambda main, inputs: compile_function(main)(*inputs)}


@pytest.fixture(scope="module")
def folder(jax_python, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("jax")
    costs = save_programs(path, jax_python, NAMES)
    assert [c["name"] for c in costs] == NAMES
    return path


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", NAMES)
def test_results_are_those_of_jax(folder, name, engine):
    main = parse_module((folder / f"{name}.mlir").read_text(), f"{name}.mlir")["main"]
    found = ENGINES[engine](main, read_arrays(folder / f"{name}.in.npz"))
    for mine, theirs in zip(found, read_arrays(folder / f"{name}.out.npz"), strict=True):
        assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape)
        if mine.dtype.kind in "fc":
            assert distance(mine, theirs, theirs) < 2e-5
        else:
            np.testing.assert_array_equal(mine, theirs)


def test_jax_accepts_what_is_printed(folder, jax_python):
    """... of each program, and of each in f64."""
    for name in NAMES:
        main = parse_module((folder / f"{name}.mlir").read_text())["main"]
        wide = verify(widened(main))
        (folder / f"{name}.wide.mlir").write_text(print_module(Module({"main": wide})))
    results = check(sorted(folder.glob("*.mlir")), jax_python)
    assert len(results) == 2 * len(NAMES)
    assert [(f.name, *r) for f, r in results.items() if r[0] != "accepted"] == []


@pytest.mark.parametrize(("text", "status", "detail"), [
    # JAX does not have this dialect.
    ('func.func @main(%a: tensor<2xf32>) -> tensor<2xf32> {\n'
     '  %0 = "tfn.all_to_all_nowhere"(%a) : (tensor<2xf32>) -> tensor<2xf32>\n'
     '  return %0 : tensor<2xf32>\n}\n', "unsupported", "tfn.all_to_all_nowhere"),
    ("func.func @main(%a: tensor<!quant.uniform<i8:f32, 2.0:1>>) ->"
     " tensor<!quant.uniform<i8:f32, 2.0:1>> {\n"
     "  return %a : tensor<!quant.uniform<i8:f32, 2.0:1>>\n}\n", "refused", "quant"),
    ("func.func @main(", "error", "expected"),
])
def test_what_jax_does_not_accept_is_told(jax_python, tmp_path, text, status, detail):
    file = tmp_path / "a.mlir"
    file.write_text(text)
    (found,) = check([file], jax_python).values()
    assert found[0] == status
    assert detail in found[1]


# -- programs from elsewhere as callables: what JAX's own transformations give is the oracle

FORWARD = """
import numpy as np, jax, jax.numpy as jnp
draw = np.random.default_rng(5)
normal = lambda *shape: draw.normal(size=shape).astype(np.float32)
params = {"kernel": normal(6, 24) * 0.4, "recurrent": normal(6, 24) * 0.4, "head": normal(6, 3)}
x, xs = normal(9, 6), normal(4, 9, 6)

def attend(params, x):
    "Attention, a convolution, a gather and a normalisation: no loop."
    q, k, v, g = jnp.split(x @ params["kernel"], 4, -1)
    mixed = jax.nn.softmax(q @ k.T) @ v
    h = jnp.convolve(jax.nn.gelu(mixed + g)[:, 0], params["head"][:, 0], "same")
    h = (h - h.mean()) * jax.lax.rsqrt(h.var() + 1e-3)
    return {"rows": mixed @ params["head"], "picked": h[jnp.array([1, 3, 1])]}

def lstm(params, x):
    def cell(carry, x):
        h, c = carry
        i, f, g, o = jnp.split(x @ params["kernel"] + h @ params["recurrent"], 4, -1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h @ params["head"]
    (h, _), rows = jax.lax.scan(cell, (jnp.zeros(6), jnp.zeros(6)), x)
    return {"rows": rows, "picked": jax.lax.top_k(h, 3)[0]}

def loss(f):
    return lambda params, x: (f(params, x)["rows"] ** 2).sum() + f(params, x)["picked"].sum()

def flat(tree):
    return [np.asarray(tree[k]) for k in sorted(tree)]
"""

SAVE = FORWARD + """
import sys
folder = sys.argv[1]
np.savez(f"{folder}/arguments.npz", x=x, xs=xs, **params)
for f in (attend, lstm):
    # Unused arguments stay: the files take what the functions take.
    text = jax.jit(f, keep_unused=True).lower(params, x).as_text()
    open(f"{folder}/{f.__name__}.mlir", "w").write(text)
    tangents = jax.tree.map(jnp.ones_like, params)
    outcomes = {
        "call": flat(jax.jit(f)(params, x)),
        "vmap": flat(jax.jit(jax.vmap(f, (None, 0)))(params, xs)),
        "jvp": flat(jax.jit(lambda p: jax.jvp(lambda p: f(p, x), (p,), (tangents,))[1])(params)),
        "grad": flat(jax.jit(jax.grad(loss(f)))(params, x)),
    }
    np.savez(f"{folder}/{f.__name__}.npz",
             **{f"{k}{i}": a for k, v in outcomes.items() for i, a in enumerate(v)})
"""


@pytest.fixture(scope="module")
def callables(jax_python, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("callables")
    subprocess.run([jax_python, "-c", SAVE, str(path)], check=True)
    return path


class Case:
    """A function from a file, its arguments, and what JAX makes of it."""

    def __init__(self, folder: Path, name: str):
        self.function = tfn.from_stablehlo(folder / f"{name}.mlir")
        with np.load(folder / "arguments.npz") as arrays:
            self.params = [tnp.array(arrays[k]) for k in ("head", "kernel", "recurrent")]
            self.x, self.xs = tnp.array(arrays["x"]), tnp.array(arrays["xs"])
        self._outcomes = dict(np.load(folder / f"{name}.npz"))

    def agrees(self, kind: str, found) -> None:
        expected = [v for k, v in self._outcomes.items() if k.rstrip("0123456789") == kind]
        for mine, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(np.asarray(mine), theirs, rtol=2e-4, atol=2e-5)

    def loss(self, params, x):
        picked, rows = self.function(*params, x)
        return tnp.sum(rows ** 2) + tnp.sum(picked)


@pytest.fixture(params=["attend", "lstm"])
def case(callables, request) -> Case:
    return Case(callables, request.param)


def test_call_and_jit(case):
    case.agrees("call", case.function(*case.params, case.x))
    case.agrees("call", tfn.jit(lambda *a: case.function(*a))(*case.params, case.x))


def test_vmap(case):
    batched = tfn.vmap(lambda x: case.function(*case.params, x))
    case.agrees("vmap", batched(case.xs))
    case.agrees("vmap", tfn.jit(batched)(case.xs))


def test_jvp(case):
    ones = [tnp.ones_like(p) for p in case.params]
    _, tangents = tfn.jvp(lambda *p: case.function(*p, case.x), case.params, ones)
    case.agrees("jvp", tangents)


def test_grad(callables):
    case = Case(callables, "attend")
    case.agrees("grad", tfn.grad(case.loss)(case.params, case.x))
    case.agrees("grad", tfn.jit(tfn.grad(case.loss))(case.params, case.x))


def test_a_loop_without_a_known_end_has_no_gradient(callables):
    """StableHLO text has `while`, whatever it was before."""
    case = Case(callables, "lstm")
    with pytest.raises(tfn.TfnError, match="while"):
        tfn.grad(case.loss)(case.params, case.x)


def test_bundle(case, tmp_path):
    """The function of a file is a signature like any other, its parameters are weights."""
    names = ("head", "kernel", "recurrent")
    main = case.function.function
    specs = [tuple(TensorSpec(n, t.dtype, t.shape) for n, t in zip(ns, types, strict=True))
             for ns, types in ((("x",), main.argument_types[3:]),
                               (("picked", "rows"), main.result_types))]
    signature = Signature("serving_default", main, *specs, names)
    weights = {n: np.asarray(p) for n, p in zip(names, case.params, strict=True)}
    written = write_bundle(tmp_path, Bundle("model", 1, {"serving_default": signature}, weights))
    for engine in ("compiler", "evaluator"):
        found = Runner(read_bundle(written), engine=engine).run({"x": np.asarray(case.x)})
        case.agrees("call", [found["picked"], found["rows"]])


FROM_JAX = FORWARD + """
import sys, tfn, tfn.numpy as tnp
for f in (attend, lstm):
    ours = tfn.from_jax(f, params, jax.ShapeDtypeStruct(x.shape, x.dtype))
    assert ours.__name__ == f.__name__
    outcomes = {"call": ours(params, x), "vmap": tfn.vmap(lambda x: ours(params, x))(xs)}
    if f is attend:
        outcomes["grad"] = tfn.grad(loss(ours))(params, x)
    expected = np.load(f"{sys.argv[1]}/{f.__name__}.npz")
    for kind, tree in outcomes.items():
        assert type(tree) is dict
        for i, mine in enumerate(flat(tree)):
            np.testing.assert_allclose(mine, expected[f"{kind}{i}"], rtol=2e-4, atol=2e-5)
try:
    ours(params, x[:3])
except tfn.TfnError as error:
    assert "argument 3 of lstm must be tensor<9x6xf32>" in str(error), error
else:
    raise AssertionError("accepted another shape")
print("done")
"""


def test_from_jax(callables, jax_python, repository, tmp_path):
    """A JAX function as one of ours, in a Python that has both."""
    import llvmlite

    (tmp_path / "tfn").symlink_to(repository)
    (tmp_path / "llvmlite").symlink_to(Path(llvmlite.__file__).parent)
    done = subprocess.run([jax_python, "-c", FROM_JAX, str(callables)], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.stdout == "done\n", done.stderr
