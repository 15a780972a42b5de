"""Threads: the same bits for any number of them, after a fork, and from several callers."""

import gc
import hashlib
import os
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import tfn.compiler.numpy as tnp
from tfn.compiler.codegen.work import Work
from tfn.compiler.compile import compile_function
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dims import Dim
from tfn.compiler.ir.dtypes import F32
from tfn.compiler.locks import once
from tfn.compiler.runtime.pool import Pool
from tfn.compiler.trace.core import trace

PROGRAM = textwrap.dedent("""
    import hashlib
    import numpy as np
    import tfn
    from tfn import numpy as tnp

    r = np.random.default_rng(0)
    def array(*shape):
        return tnp.asarray(r.standard_normal(shape).astype(np.float32))

    x, w, image = array(700, 1000), array(1000, 300), array(8, 30, 30, 16)
    def program(x, w, image):
        y = tnp.tanh(x) * 2 + 1
        return [y, tnp.sum(y, 0), tnp.sum(x @ w, 0), x @ w, tnp.sum(image, (0, 1, 2)), tnp.sum(x, 1),
                tnp.transpose(image, (3, 0, 2, 1)), tnp.max(x, 0), tnp.mean(image, (1, 2))]
    jitted = tfn.jit(program)
    results = jitted(x, w, image)
    np.testing.assert_allclose(results[3], np.asarray(x) @ np.asarray(w), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(results[4], np.asarray(image, np.float64).sum((0, 1, 2)), atol=1e-3)
    for _ in range(20):
        again = jitted(x, w, image)
        assert all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in zip(results, again))
    print(hashlib.sha256(b"".join(np.asarray(a).tobytes() for a in results)).hexdigest())
""")


def run(program: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120,
                          env={**os.environ, **environment}, check=False)


def test_the_bits_do_not_depend_on_the_number_of_threads():
    digests = set()
    for count in ("1", "2", "7"):
        done = run(PROGRAM, TFN_NUM_THREADS=count)
        assert done.returncode == 0, done.stderr
        digests.add(done.stdout)
    assert len(digests) == 1


@pytest.mark.parametrize("count", ["0", "1000", "two", "-1", "²", ""])
def test_a_number_of_threads_that_is_none(count):
    done = run(PROGRAM, TFN_NUM_THREADS=count)
    assert done.returncode == 1
    assert "set it to a whole number from 1 to 256" in done.stderr


FORK = """
import os
import numpy as np
import tfn
from tfn import numpy as tnp

x = tnp.asarray(np.random.default_rng(0).random((1000, 1000)).astype(np.float32))
f = tfn.jit(lambda x: tnp.exp(x) + 1)
before = np.asarray(f(x))
child = os.fork()
if child == 0:
    same = all(np.array_equal(f(x), before) for _ in range(50))
    os._exit(7 if same else 8)
for _ in range(50):
    assert np.array_equal(f(x), before)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""


def test_a_forked_child_has_workers_of_its_own():
    done = run(FORK, TFN_NUM_THREADS="3")
    assert done.returncode == 0, done.stderr


def test_callers_at_the_same_time():
    function, _ = trace(lambda x: [tnp.exp(x) + 1], [TensorType((Dim.named("n"), 500), F32)])
    executables = [compile_function(function) for _ in range(4)]
    failures = []

    def work(number: int) -> None:
        x = np.random.default_rng(number).random((900, 500)).astype(np.float32)
        expected = np.exp(x) + 1
        for _ in range(30):
            if not np.allclose(executables[number % 4](x)[0], expected, rtol=1e-6):
                failures.append(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_threads_that_need_a_thing_first_share_it():
    made = []

    @once
    def make(name: str) -> object:
        time.sleep(0.01)
        made.append(name)
        return object()

    with ThreadPoolExecutor(8) as executor:
        found = list(executor.map(make, ["a", "b"] * 8))
    assert sorted(made) == ["a", "b"] and len(set(found)) == 2


@pytest.mark.parametrize(("work", "tasks", "chunk"), [
    (Work(), 1, 0),
    (Work((10,), (), (1000,)), 10, 0),
    (Work((1 << 20,), (), (1000,)), 1 << 20, 1 << 16),
    (Work((Dim.named("n"), 7), (4,), (1 << 30,)), 14, 1),
])
def test_chunks(work, tasks, chunk):
    assert work.tasks({"n": 5}) == tasks
    assert work.chunk({"n": 5}, 2) == chunk
    assert work.chunk({"n": 5}, 1) == 0


@pytest.mark.parametrize("rows", [0, 1, 2, 15, 16, 17, 5000])
@pytest.mark.parametrize("reduce", ["sum", "max", "min", "prod"])
def test_sums_in_blocks_of_rows(rows, reduce):
    function, _ = trace(lambda x: [getattr(tnp, reduce)(x, (0, 1))],
                        [TensorType((Dim.named("n"), 11, 13), F32)])
    x = np.random.default_rng(rows).normal(size=(rows, 11, 13)).astype(np.float32)
    if reduce == "prod":
        x = 1 + x / 300
    if rows == 0 and reduce in ("max", "min"):
        return
    found = compile_function(function)(x)[0]
    expected = getattr(np, reduce)(x.astype(np.float64), (0, 1))
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-3)


def test_a_sum_of_negative_zeros():
    function, _ = trace(lambda x: [tnp.sum(x, 0)], [TensorType((40_000, 3), F32)])
    found = compile_function(function)(np.full((40_000, 3), -0.0, np.float32))[0]
    assert hashlib.sha256(found.tobytes()).digest() == hashlib.sha256(
        np.zeros(3, np.float32).tobytes()).digest()


def test_an_interrupt_leaves_the_workers_the_memory_they_look_at():
    class Interrupted(Pool):
        def _start(self):
            memory.append(weakref.ref(self._memory))
            super()._start()
            if len(memory) == 1:
                raise KeyboardInterrupt

    memory: list[weakref.ref] = []
    with pytest.raises(KeyboardInterrupt):
        Interrupted(2)
    gc.collect()
    assert memory[0]() is not None
