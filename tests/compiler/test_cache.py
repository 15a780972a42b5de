"""The kernel cache: what is compiled, loaded and reused; damage; several processes."""

import os
import subprocess
import sys

import numpy as np
import pytest

import tfn.compiler.numpy as tnp
from tfn.compiler.compile import compile_function
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dtypes import F32
from tfn.compiler.runtime import cache
from tfn.compiler.runtime.cache import KERNELS, KernelCache, trim
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
    files = list(cache.directory().glob("*.o"))
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
    root = cache.directory()
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
