"""Dumps: every stage of every program is written, and every kernel runs alone from its files."""

import json

import numpy as np
import pytest

import tfn
from tfn import numpy as tnp
from tfn.compiler.compile import compile_function, run_passes
from tfn.compiler.dump import run_kernel
from tfn.compiler.errors import CompileError, OpError, TfnError
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dims import Dim
from tfn.compiler.ir.dtypes import F32
from tfn.compiler.ir.parser import parse_module
from tfn.compiler.passes import PIPELINE
from tfn.compiler.trace.jit import jit

X = np.linspace(0.1, 1, 12, dtype=np.float32).reshape(4, 3)


def loss(w, x):
    return tnp.mean(tfn.nn.softmax(x @ w) ** 2) / 7


def folded(x):
    return tfn.scan(lambda c, r: (c + tnp.sqrt(r), tnp.sort(c)), x[0], x)


PROGRAMS = {
    "gradients": lambda: jit(tfn.grad(loss))(np.ones((3, 5), np.float32), X),
    "loops": lambda: jit(folded)(X),
    "gather and scatter": lambda: jit(lambda x, i: x.at[i].add(1.5)[i])(X, np.array([0, 1, 1])),
    "integers and booleans": lambda: jit(lambda x: tnp.where(x > 0.5, x.astype("int8") // 3, 1))(X),
    "half precision": lambda: jit(lambda x: tnp.exp(x.astype("bfloat16")) + 1)(X),
    "no arguments": lambda: jit(lambda: tnp.ones((40, 40)))(),
    "any batch": lambda: compile_function(jit(tnp.tanh).trace(TensorType((Dim.named("n"), 3), F32))),
}


@pytest.fixture(params=PROGRAMS)
def dump(request, tmp_path, monkeypatch):
    """The folder a program was dumped to."""
    monkeypatch.setenv("TFN_DUMP", str(tmp_path))
    PROGRAMS[request.param]()
    monkeypatch.delenv("TFN_DUMP")
    return tmp_path


def test_every_stage_is_written_and_can_be_read(dump):
    stages = ["trace", *(name for name, _ in PIPELINE)]
    (folder,) = [f for f in dump.iterdir() if f.name != "kernels"]
    files = sorted(folder.glob("*.mlir"), key=lambda f: int(f.name.split(".")[0]))
    assert [f.name for f in files] == [f"{i}.{name}.mlir" for i, name in enumerate(stages)]
    assert all(f.read_text().startswith("func.func") for f in files)
    plan = (folder / "plan.txt").read_text()
    assert "steps" in plan.splitlines()[0]
    written = {f.stem for f in (dump / "kernels").glob("*.ll")}
    assert written
    assert all(name in plan for name in written)


def test_every_kernel_runs_alone_and_does_what_the_evaluator_does(dump):
    for file in (dump / "kernels").glob("*.ll"):
        run = run_kernel(file, repeat=1)
        assert run.error() < 1e-2 if any(r.dtype.itemsize < 4 for r in run.results) else (
            run.error() < 1e-5), run
        assert run.ops
        assert "test_dump.py:" in run.line


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """A kernel that adds 2.5."""
    monkeypatch.setenv("TFN_DUMP", str(tmp_path))
    jit(lambda x: x + 2.5)(X)
    monkeypatch.delenv("TFN_DUMP")
    (file,) = (tmp_path / "kernels").glob("*.ll")
    return file


def test_a_kernel_runs_on_given_numbers_and_may_be_edited(kernel):
    np.testing.assert_array_equal(run_kernel(kernel, [X]).results[0], X + np.float32(2.5))
    kernel.write_text(kernel.read_text().replace("fadd contract", "fsub contract"))
    edited = run_kernel(kernel, [X])
    np.testing.assert_array_equal(edited.results[0], X - np.float32(2.5))
    assert edited.error() > 1


def test_a_kernel_says_what_is_missing(kernel, tmp_path):
    with pytest.raises(TfnError, match=r"there is no file .*none\.ll"):
        run_kernel(tmp_path / "none.ll")
    other = json.loads(kernel.with_suffix(".json").read_text()) | {"target": ["mips", "r1", ""]}
    kernel.with_suffix(".json").write_text(json.dumps(other))
    with pytest.raises(TfnError, match="made for mips r1, not for this machine"):
        run_kernel(kernel)


def test_programs_of_one_name_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("TFN_DUMP", str(tmp_path))
    f = jit(loss)
    for n in (2, 3):
        f(np.ones((3, n), np.float32), X)
    assert {f.name for f in tmp_path.iterdir()} == {"loss.0", "loss.1", "kernels"}


def test_nothing_is_written_unasked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    jit(tnp.cosh)(X)
    assert not list(tmp_path.iterdir())


# -- verification ----------------------------------------------------------------------------------

@pytest.mark.parametrize("name", PROGRAMS)
def test_what_passes_make_is_well_formed(name, monkeypatch):
    monkeypatch.setenv("TFN_VERIFY", "1")
    PROGRAMS[name]()


def test_a_pass_that_breaks_a_program_is_named(monkeypatch):
    def broken(function, target=None):
        function = parse_module(str(function))[function.name]
        function.ops[0].attributes["colour"] = 1
        return function

    monkeypatch.setattr("tfn.compiler.compile.PIPELINE", (("paint", broken),))
    function = jit(tnp.tanh).trace(X)
    run_passes(function, None)
    monkeypatch.setenv("TFN_VERIFY", "1")
    with pytest.raises(CompileError, match="the pass paint broke tanh, a defect of tfn") as caught:
        run_passes(function, None)
    assert "does not declare the attribute `colour`" in str(caught.value)
    assert isinstance(caught.value.__cause__, OpError)
