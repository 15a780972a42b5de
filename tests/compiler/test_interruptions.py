"""Calls of compiled programs in the middle of others: threads, signals, finalizers, forks, the end."""

import asyncio
import ctypes
import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import tfn.compiler.numpy as tnp
from tfn.compiler.compile import compile_function
from tfn.compiler.errors import OpError
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dims import Dim
from tfn.compiler.ir.dtypes import F32
from tfn.compiler.runtime import memory
from tfn.compiler.runtime.bound import _BEFORE, Bound
from tfn.compiler.runtime.entry import _Pieces
from tfn.compiler.runtime.memory import Memory, allocate
from tfn.compiler.trace.core import trace
from tfn.compiler.trace.jit import jit

rng = np.random.default_rng(0)


def compiled(program, *shapes, dtype=F32):
    return compile_function(trace(program, [TensorType(s, dtype) for s in shapes])[0])


class Handler:
    """In the place of a finalizer or the handler of a signal: it runs a function when a method of the
    runtime is called."""

    def __init__(self, monkeypatch, owner, method, function):
        original, self.times = getattr(owner, method), 0

        def called(*arguments, **keywords):
            self.times += 1
            if self.times == 1:
                function()
            return original(*arguments, **keywords)

        monkeypatch.setattr(owner, method, called)


def in_time(function):
    """What `function` returns; a failure when it waits for ever."""
    found = []
    thread = threading.Thread(target=lambda: found.append(function()), daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "it waits for itself"
    return found[0]


@pytest.mark.parametrize(("owner", "method"), [
    (Bound, "__init__"), (Bound, "fit"), (Bound, "run"), (_Pieces, "__call__"), (Memory, "take")],
    ids=lambda x: getattr(x, "__name__", x))
@pytest.mark.parametrize("size", [50, 3_000_000], ids=["short", "long"])
def test_a_handler_that_calls_the_program_that_is_called(monkeypatch, owner, method, size):
    n = Dim.named("n")
    f = compiled(lambda x: [x * 2 + 1, tnp.sum(x)], (n,))
    x = np.full(size, 3, np.float32)
    inner = []
    handler = Handler(monkeypatch, owner, method, lambda: inner.extend(f(x[:40]) + f(x)))
    outer = in_time(lambda: f(x) + f(x) + f(x))
    assert handler.times > 0 or (method, size) == ("run", 50)
    for results in (outer[:2], outer[2:4], outer[4:], inner[2:]):
        for found, expected in zip(results, (7, 3 * size), strict=bool(results)):
            np.testing.assert_array_equal(found, np.full_like(found, expected))
    for found, expected in zip(inner[:2], (7, 120), strict=bool(inner)):
        np.testing.assert_array_equal(found, np.full_like(found, expected))


def test_a_handler_that_calls_the_function_that_is_compiled():
    def compiler(function):
        if sizes:
            handled.append(f(tnp.ones(sizes.pop())))
        return compile_function(function)

    sizes, handled = [2, 3], []
    f = jit(lambda x: x + 1, compiler=compiler)
    for x in (in_time(lambda: f(tnp.ones(2))), f(tnp.ones(2)), *handled):
        assert (np.asarray(x) == 2).all()


def test_a_view_that_is_made_when_its_memory_is_already_given(monkeypatch):
    step = jit(lambda w: w + 1, donate_argnums=0)
    w = step(tnp.zeros(8))
    view = np.asarray(w)
    monkeypatch.setattr("tfn.compiler.runtime.bound.may_overwrite", lambda arrays, i: True)
    assert (np.asarray(step(w)) == 2).all()
    assert (view == 1).all()


@pytest.mark.parametrize("size", [50, 200_000], ids=["short", "long"])
def test_threads_that_call_one_program(size):
    f = jit(lambda x: tnp.exp(x) * 2 + x)
    failures = []

    def work(number):
        x = np.full(size, number / 10, np.float32)
        expected = np.exp(x) * 2 + x
        held = [f(tnp.asarray(x)) for _ in range(60)]
        failures.extend(number for r in held if not np.allclose(r, expected, rtol=1e-5))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_call_of_another_size_does_not_wait():
    from tfn.compiler import debug

    def hold(x):
        if len(x) == 9:
            inside.set()
            assert go.wait(20)
        return x

    n = Dim.named("n")
    f = compiled(lambda x: [debug.pure_callback(hold, x, x) * 2], (n,))
    inside, go = threading.Event(), threading.Event()
    nine, two = np.ones(9, np.float32), np.ones(2, np.float32)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(f, nine)
        assert inside.wait(20)
        try:
            for number in range(3):
                second = threads.submit(f, two * number).result(10)
                np.testing.assert_array_equal(second[0], two * number * 2)
        finally:
            go.set()
        np.testing.assert_array_equal(first.result()[0], nine * 2)


def test_asyncio():
    f = jit(lambda x: tnp.sum(tnp.exp(x)))

    async def call(number):
        x = tnp.asarray(np.full(100_000, number / 10, np.float32))
        here = f(x)
        there = await asyncio.get_running_loop().run_in_executor(None, f, x)
        return float(here), float(there)

    async def main():
        return await asyncio.gather(*map(call, range(8)))

    for number, (here, there) in enumerate(asyncio.run(main())):
        assert here == there
        assert here == pytest.approx(100_000 * np.exp(number / 10), rel=1e-4)


def run(program: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", PREAMBLE + textwrap.dedent(program)], timeout=60,
                          capture_output=True, text=True, env={**os.environ, **environment},
                          check=False)


PREAMBLE = """
import os, signal, sys, threading, time
import numpy as np
import tfn
from tfn import numpy as tnp
big = tnp.asarray(np.ones((1500, 1500), np.float32))
step = tfn.jit(lambda x: tnp.tanh(x @ x / 1500) + 1)
expected = np.asarray(step(big))
ever = tfn.jit(lambda x: tfn.while_loop(lambda s: s[0] < 2, lambda s: (tnp.sqrt(s[0]), s[1] + 1),
                                        (x, tnp.asarray(0)))[0])
ever(tnp.asarray(3.0))
"""


@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_fork_while_other_threads_run(threads):
    done = run("""
        stop = False
        def work():
            while not stop:
                step(big)
        workers = [threading.Thread(target=work) for _ in range(3)]
        for w in workers: w.start()
        for _ in range(5):
            time.sleep(0.02)
            child = os.fork()
            if child == 0:
                signal.alarm(20)
                fresh = tfn.jit(lambda x: tnp.sin(x) + len(sys.argv))
                same = np.array_equal(step(big), expected)
                fine = np.allclose(fresh(big), np.sin(1) + len(sys.argv))
                os._exit(7 if same and fine else 8)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            assert code == 7, code
        stop = True
        for w in workers: w.join()
    """, TFN_NUM_THREADS=threads)
    assert done.returncode == 0, done.stderr


def test_a_fork_in_a_callback():
    done = run("""
        def fork(x):
            children.append(os.fork())
            return x
        children = []
        again = tfn.jit(lambda x: tfn.debug.pure_callback(fork, x, x) * 2)
        fine = np.array_equal(again(big), big * 2)
        if children[0] == 0:
            os._exit(7 if fine and np.array_equal(step(big), expected) else 8)
        code = os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1])
        assert code == 7, code
    """)
    assert done.returncode == 0, done.stderr


def test_a_fork_while_another_thread_compiles():
    """The child can compile, and Python collects cycles in it."""
    done = run("""
        import gc
        from concurrent.futures import ThreadPoolExecutor
        os.environ["TFN_CACHE_DIR"] = os.devnull
        def work(number=0):
            while True:
                number += 1
                tfn.jit(lambda x: tnp.tanh(x @ x))(big[:50 + number, :50 + number])
        threading.Thread(target=work, daemon=True).start()
        for number in range(3):
            time.sleep(0.1)
            child = os.fork()
            if child == 0:
                signal.alarm(20)
                fresh = tfn.jit(lambda x: tnp.sin(x) + tnp.cumsum(x, 0)[number])
                with ThreadPoolExecutor(1) as thread:
                    fine = np.allclose(thread.submit(fresh, big[:9]).result(), np.sin(1) + number + 1)
                os._exit(7 if fine and gc.isenabled() else 8)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            assert code == 7, code
    """)
    assert done.returncode == 0, done.stderr


def test_an_endless_loop_can_be_interrupted():
    done = run("""
        threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        try:
            ever(tnp.asarray(1.0))
        except KeyboardInterrupt:
            print("interrupted")
        class Late(Exception): pass
        def late(*_): raise Late("too late")
        signal.signal(signal.SIGALRM, late)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        try:
            ever(tnp.asarray(1.0))
        except Late as error:
            print(error)
        print(float(ever(tnp.asarray(5.0))), np.array_equal(step(big), expected))
    """)
    assert done.stdout.splitlines() == ["interrupted", "too late", "5.0 True"], done.stderr


def test_a_signal_during_a_long_step():
    done = run("""
        give = tfn.jit(lambda x: tnp.tanh(x @ x / 1500) + 1, donate_argnums=0)
        threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        x = big
        try:
            while True:
                x = give(x + 0)
        except KeyboardInterrupt:
            print("interrupted")
        print(np.array_equal(step(big), expected))
    """)
    assert done.stdout.splitlines() == ["interrupted", "True"], done.stderr


def test_a_signal_before_a_host_call():
    """Python looks at signals before the first line of the function that is called."""
    done = run("""
        class Late(Exception): pass
        def late(*_): raise Late("too late")
        signal.signal(signal.SIGALRM, late)
        def begin(x):
            signal.setitimer(signal.ITIMER_REAL, armed * 0.02)
            return x
        def middle(x):
            return x
        @tfn.jit
        def program(x):
            y = x = tfn.debug.pure_callback(begin, x, x)
            for _ in range(12):
                y = y @ x / 1500
            return tfn.debug.pure_callback(middle, y, y)
        for armed in (False, True, True, False):
            try:
                print(np.array_equal(program(big), big))
            except Late as error:
                print(error)
    """)
    assert done.stdout.splitlines() == ["True", "too late", "too late", "True"], done.stderr
    assert not done.stderr


def test_a_failure_nobody_heard_of():
    """A second interrupt may end a call that was about to say what had ended it."""
    from tfn.compiler import debug

    def halve(x):
        if x[0] < 0:
            raise ValueError("negative")
        return x / 2

    f = compiled(lambda x: [debug.pure_callback(halve, TensorType((4,), F32), x) + 1], (4,))
    x = np.full(4, 3, np.float32)
    np.testing.assert_array_equal(f(x)[0], x / 2 + 1)
    (bound,) = f._bound.values()
    bound.scratch[_BEFORE - 1] = 1
    np.testing.assert_array_equal(f(x)[0], x / 2 + 1)
    with pytest.raises(ValueError, match="negative") as caught:
        f(-x)
    assert caught.traceback[-1].name == "halve"
    np.testing.assert_array_equal(f(x)[0], x / 2 + 1)


@pytest.mark.parametrize("work", ["step(big)", "ever(tnp.asarray(1.0))", "step(small)"],
                         ids=["long", "endless", "short"])
def test_the_end_while_a_thread_runs(work):
    done = run(f"""
        small = big[:3, :3]
        step(small)
        def work():
            while True:
                {work}
        step(big if "big" in {work!r} else small)
        threading.Thread(target=work, daemon=True).start()
        time.sleep(0.3)
        print("end", flush=True)
    """)
    assert (done.returncode, done.stdout) == (0, "end\n"), done.stderr


def test_results_at_exit():
    done = run("""
        import atexit
        kept = step(big)
        atexit.register(lambda: print(np.array_equal(step(big), kept)))
    """)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


def test_references_balance():
    """A call keeps no reference to its arguments, its results or the element types."""
    run = compiled(lambda x, y: [x + y, x * 2.0, tnp.sum(y)], (4,), (4,))
    x, y = rng.random((2, 4), np.float32)
    things = [x, y, x.dtype, NotImplemented]
    run(x, y)
    before = [sys.getrefcount(t) for t in things]
    for _ in range(1000):
        run(x, y)
        with pytest.raises(OpError):
            run(x)
    after = [sys.getrefcount(t) for t in things]
    assert all(abs(a - b) < 20 for a, b in zip(after, before, strict=True))
    (first, *_) = results = run(x, y)
    assert ctypes.c_ssize_t.from_address(id(first)).value == 2
    assert sys.getrefcount(results) == 2
    assert allocate((3,), np.dtype(np.float32)).base.dtype is memory.PIECE
