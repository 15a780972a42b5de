"""The kernel cache: what is compiled, loaded and reused; damage; several processes."""

import ctypes
import os
import subprocess
import sys
import time

import numpy as np
import pytest

import tfn.compiler.numpy as tnp
from tfn.compiler.codegen.micro import apart
from tfn.compiler.codegen.native import Loader
from tfn.compiler.codegen.target import Target
from tfn.compiler.compile import compile_function
from tfn.compiler.errors import CompileError
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dims import Dim
from tfn.compiler.ir.dtypes import F32
from tfn.compiler.runtime import disk, workers
from tfn.compiler.runtime.cache import KERNELS, KernelCache
from tfn.compiler.runtime.disk import trim
from tfn.compiler.trace.core import trace


def model(batch, scale=0.3):
    def program(x, w):
        h = tnp.maximum(x @ w, 0.0)
        return [tnp.sum(tnp.exp(h) * scale / batch, axis=0), tnp.mean(h, axis=-1)]

    return trace(program, [TensorType((batch, 6), F32), TensorType((6, 5), F32)])[0]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TFN_CACHE_DIR", str(tmp_path))
    return tmp_path


def load_all(plan):
    """The statistics of a fresh process that needs the kernels of `plan`."""
    fresh = KernelCache()
    for kernel in plan.kernels():
        fresh.address(kernel)
    return fresh.statistics


def test_a_new_batch_size_or_constant_compiles_nothing(folder):
    compile_function(model(8))
    before = KERNELS.statistics.compiled
    for batch in (2, 9, 64):
        executable = compile_function(model(batch, scale=0.7))
        x = np.ones((batch, 6), np.float32)
        total, mean = executable(x, np.ones((6, 5), np.float32))
        np.testing.assert_allclose(total, np.full(5, np.exp(6) * 0.7), rtol=1e-5)
        np.testing.assert_allclose(mean, np.full(batch, 6.0), rtol=1e-6)
    assert KERNELS.statistics.compiled == before


def test_kernels_compile_once_and_load_afterwards(folder):
    plan = compile_function(model(4)).plan
    count = len(plan.kernels())
    first, second = load_all(plan), load_all(plan)
    assert first.compiled + first.loaded == count
    assert (second.compiled, second.loaded) == (0, count)


SCRIPT = """
import numpy as np
import tfn.compiler.numpy as tnp
from tfn.compiler.runtime.cache import KERNELS
from tfn.compiler.trace.jit import jit
x = tnp.asarray(np.arange(6, dtype=np.float32))
print(np.asarray(jit(lambda x: tnp.tanh(x) * 3.0)(x)).sum(), KERNELS.statistics.compiled)
"""


def test_a_second_process_compiles_nothing(folder):
    lines = [subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True,
                            text=True, env=os.environ.copy()).stdout.split() for _ in range(2)]
    assert lines[0][0] == lines[1][0]
    assert int(lines[0][1]) > 0
    assert int(lines[1][1]) == 0


@pytest.mark.parametrize("damage", [lambda b: b[:40], lambda b: b"", lambda b: b"\0" * len(b),
                                    lambda b: b[:8] + b"\x7fELF" + b"\0" * (len(b) - 12)],
                         ids=["truncated", "empty", "zeroed", "nonsense inside"])
def test_a_damaged_entry_is_compiled_again(folder, damage):
    plan = compile_function(model(3)).plan
    load_all(plan)
    files = list(disk.directory().glob("*.o"))
    for file in files:
        file.write_bytes(damage(file.read_bytes()))
    again = load_all(plan)
    assert (again.compiled, again.loaded) == (len(plan.kernels()), 0)
    assert load_all(plan).compiled == 0


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("TFN_CACHE_DIR", str(blocked))
    plan = compile_function(model(5)).plan
    assert load_all(plan).compiled == len(plan.kernels())


def test_the_oldest_entries_go_when_the_cache_is_full(folder):
    root = disk.directory()
    root.mkdir(parents=True)
    for age, name in enumerate(("new", "middle", "old")):
        file = root / f"{name}.o"
        file.write_bytes(b"x" * 100)
        os.utime(file, (1e9 - age, 1e9 - age))
    assert trim(limit=250) == 100
    assert sorted(f.stem for f in root.glob("*.o")) == ["middle", "new"]


def test_equal_kernels_of_a_program_are_one():
    def program(x, y):
        return [tnp.cumsum(tnp.exp(x)), tnp.cumsum(tnp.exp(y))]

    function, _ = trace(program, [TensorType((7,), F32)] * 2)
    plan = compile_function(function).plan
    assert len(plan.kernels()) < len(plan.steps)


def test_an_entry_of_another_kernel_is_compiled_again(folder):
    """Sound objects under wrong names, all linked at once with right ones."""
    plan = compile_function(model(3)).plan
    load_all(plan)
    files = sorted(disk.directory().glob("k*.o"))
    assert len(files) > 1
    files[0].write_bytes(files[1].read_bytes())
    again = load_all(plan)
    assert (again.compiled, again.loaded) == (1, len(files) - 1)
    assert load_all(plan).compiled == 0


def test_the_objects_of_the_runtime_are_kept_too(folder, monkeypatch):
    text = "define i64 @seven() { ret i64 7 }"
    first = disk.cached_object(text)
    monkeypatch.setattr(disk, "compile_object", None)
    assert disk.cached_object(text) == first


def test_a_disk_that_fills_up_is_no_error_and_left_clean(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    plan = compile_function(model(5)).plan
    assert load_all(plan).compiled == len(plan.kernels())
    assert not list(disk.directory().iterdir())


def test_entries_that_cannot_be_touched_are_used(folder, monkeypatch):
    """A cache on a read-only disk."""
    plan = compile_function(model(5)).plan
    load_all(plan)

    def refused(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "utime", refused)
    assert load_all(plan).compiled == 0


def test_trimming_knows_all_versions_and_what_writers_left(folder):
    other = folder / "objects-llvmlite0.1"
    other.mkdir()
    (other / "old.o").write_bytes(b"x" * 100)
    os.utime(other / "old.o", (1e9, 1e9))
    root = disk.directory()
    root.mkdir()
    (root / "new.o").write_bytes(b"x" * 100)
    for name, seconds in (("dead.tmp", 1e9), ("alive.tmp", None)):
        (root / name).write_bytes(b"x")
        if seconds:
            os.utime(root / name, (seconds, seconds))
    assert trim(limit=150) == 100
    assert not (other / "old.o").exists()
    assert sorted(f.name for f in root.iterdir()) == ["alive.tmp", "new.o"]


def test_compiling_trims(folder, monkeypatch):
    root = disk.directory()
    root.mkdir(parents=True)
    (root / "old.o").write_bytes(b"x" * 1000)
    os.utime(root / "old.o", (1e9, 1e9))
    monkeypatch.setattr(disk.trim, "__defaults__", (900,))
    load_all(compile_function(model(7)).plan)
    assert not (root / "old.o").exists()


CROWD = """
import sys
import numpy as np
import tfn
from tfn import numpy as tnp
x = tnp.asarray(np.arange(6, dtype=np.float32))
programs = [tfn.jit(lambda x, n=n: tnp.tanh(x) * n + tnp.cumsum(x ** n)) for n in range(2, 6)]
print([float(tnp.sum(p(x))) for p in programs])
"""


def test_many_processes_share_an_empty_cache(folder):
    crowd = [subprocess.Popen([sys.executable, "-c", CROWD], stdout=subprocess.PIPE, text=True)
             for _ in range(4)]
    found = {p.communicate(timeout=60)[0] for p in crowd}
    assert len(found) == 1
    assert all(p.returncode == 0 for p in crowd)
    assert not list(folder.glob("**/*.tmp"))


def products(features):
    """Two kernels that call the same micro-kernels."""
    def program(x, y, w):
        return [tnp.tanh(x @ w), tnp.exp(y @ w - 70)]

    x, w = TensorType((50, 70), F32), TensorType((70, features), F32)
    return trace(program, [x, x, w])[0]


def test_kernels_share_their_micro_kernels(folder):
    plan = compile_function(products(48)).plan
    load_all(plan)
    texts = [apart(k.text, Target.host()) for k in plan.kernels()]
    shared = set.intersection(*({*micro} for _, micro in texts if micro))
    assert shared and len([1 for _, micro in texts if micro]) > 1
    assert not any("#1 {" in text and ".tile" in text for text, _ in texts)
    assert {f.stem for f in disk.directory().glob("m*")} == {n for _, micro in texts for n in micro}


def test_products_of_all_sizes_share_what_packs_and_what_multiplies_few_rows(folder):
    def functions(depth, features):
        rows = Dim.named("n")
        program, _ = trace(lambda x, w, v: [x @ tnp.transpose(w), x @ v], [
            TensorType((rows, depth), F32), TensorType((features, depth), F32),
            TensorType((depth, features), F32)])
        texts = [apart(k.text, Target.host())[1] for k in compile_function(program).plan.kernels()]
        return {name for micro in texts for name, text in micro.items() if "ptr %pointer0" in text}

    first, second = functions(300, 192), functions(700, 1984)
    # Squares that are transposed, and few rows times either order of a matrix.
    assert first == second and len(first) == 3


def test_a_kernel_whose_micro_kernel_is_gone_is_compiled_again(folder):
    plan = compile_function(products(48)).plan
    load_all(plan)
    x, w = np.ones((50, 70), np.float32), np.ones((70, 48), np.float32)
    for file in disk.directory().glob("m*"):
        file.unlink()
    again = load_all(plan)
    assert 0 < again.compiled <= len(plan.kernels())
    assert load_all(plan).compiled == 0
    for found in compile_function(products(48))(x, x, w):
        np.testing.assert_allclose(found, np.ones((50, 48)), rtol=1e-6)


class TestHelpers:
    TEXTS = [f"define i64 @f{i}() {{ ret i64 {i} }}" for i in range(30)]

    @pytest.fixture(autouse=True)
    def always(self, monkeypatch):
        monkeypatch.setattr(workers, "_WORTHWHILE", 1)
        monkeypatch.setattr(workers, "_spare_processors", lambda: 2)

    def check(self, images):
        loader = Loader()
        addresses = loader.load_all([f"f{i}" for i in range(30)], *images)
        assert [ctypes.CFUNCTYPE(ctypes.c_int64)(a)() for a in addresses] == list(range(30))

    def test_helpers_compile_what_this_process_would(self, monkeypatch):
        real, mine = workers.compile_object, []

        def slow(text, target):
            time.sleep(0.1)
            mine.append(text)
            return real(text, target)

        monkeypatch.setattr(workers, "compile_object", slow)
        self.check(workers.compile_many(self.TEXTS))
        assert 0 < len(mine) < 30

    @pytest.mark.parametrize("program", ["raise SystemExit", "import os; os.abort()", "print('ready')"])
    def test_helpers_that_fail(self, monkeypatch, program):
        monkeypatch.setattr(workers, "_HELPER", program.replace("{", "{{"))
        self.check(workers.compile_many(self.TEXTS))

    def test_helpers_that_cannot_start(self, monkeypatch):
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
        self.check(workers.compile_many(self.TEXTS))

    def test_a_text_that_is_wrong(self):
        with pytest.raises(CompileError, match="LLVM rejects"):
            workers.compile_many([*self.TEXTS, "define nonsense"])
