"""Calls of compiled programs: odd arrays, memory that comes back, donation, `jit`."""

import gc
import itertools
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import tfn
import tfn.compiler.numpy as tnp
from tfn.compiler.compile import compile_function
from tfn.compiler.errors import DonatedError, OpError, TraceError
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dims import Dim
from tfn.compiler.ir.dtypes import BF16, F32, F64
from tfn.compiler.ir.evaluator import evaluate
from tfn.compiler.runtime import memory
from tfn.compiler.runtime.entry import _SMALL, Result, _Pieces
from tfn.compiler.runtime.memory import Memory, header
from tfn.compiler.trace.core import bind, trace
from tfn.compiler.trace.jit import jit

rng = np.random.default_rng(0)


def compiled(program, *shapes, dtype=F32):
    return compile_function(trace(program, [TensorType(s, dtype) for s in shapes])[0])


def misaligned(x):
    raw = np.zeros(x.nbytes + 1, np.uint8)
    odd = raw[1:].view(x.dtype).reshape(x.shape)
    odd[...] = x
    assert not odd.flags.aligned
    return odd


class Subclass(np.ndarray):
    pass


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


def mapped(x):
    with tempfile.NamedTemporaryFile() as file:
        copy = np.memmap(file.name, x.dtype, "w+", shape=x.shape)
        copy[...] = x
        return copy


ODD = {
    "misaligned": misaligned,
    "transposed": lambda x: np.ascontiguousarray(x.T).T,
    "strided": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "reversed": lambda x: np.ascontiguousarray(x[::-1])[::-1],
    "read-only": read_only,
    "a subclass": lambda x: x.view(Subclass),
    "a memory map": mapped,
    "another object of the element type": lambda x: x.view(np.dtype(np.float32, metadata={"a": 1})),
    "a broadcast": lambda x: np.broadcast_to(x[:1], x.shape),
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_arrays_of_any_layout(odd):
    run = compiled(lambda x, y: [x * 2 + y, tnp.sum(x, 1)], (5, 7), (5, 7))
    plain = rng.random((5, 7), np.float32)
    run(plain, plain)
    x = odd(plain)
    for a, b in ((x, plain), (plain, x), (x, x)):
        before = np.array(a), np.array(b)
        both, total = run(a, b)
        np.testing.assert_array_equal(both, np.asarray(a) * 2 + np.asarray(b))
        np.testing.assert_allclose(total, np.asarray(a).sum(1), rtol=1e-6)
        assert type(both) is np.ndarray and both.flags.c_contiguous and both.flags.writeable
        np.testing.assert_array_equal((a, b), before)


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_donated_arrays_of_any_layout_stay_as_they_are(odd):
    run = jit(lambda x: x * 2, donate_argnums=0)
    x = odd(rng.random((5, 7), np.float32))
    before = np.array(x)
    for _ in range(2):
        np.testing.assert_array_equal(run(tnp.asarray(x)), before * 2)
        np.testing.assert_array_equal(x, before)


def test_arguments_that_overlap():
    run = compiled(lambda x, y: [x + y], (100,), (100,))
    x = rng.random(150, np.float32)
    np.testing.assert_array_equal(run(x[:100], x[50:])[0], x[:100] + x[50:])
    np.testing.assert_array_equal(run(x[:100], x[:100])[0], x[:100] * 2)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0, 2)])
def test_arrays_without_elements(shape):
    run = compiled(lambda x: [x + 1, tnp.sum(x)], shape)
    for _ in range(3):
        same, total = run(np.zeros(shape, np.float32))
        assert same.shape == shape
        assert total == 0


@pytest.mark.parametrize("dtype", [F64, BF16, F32], ids=str)
def test_scalars_and_numpy_numbers(dtype):
    run = compiled(lambda x: [x + x], (), dtype=dtype)
    for _ in range(2):
        assert run(dtype.numpy.type(1.5))[0] == 3
        assert run(np.asarray(2.5, dtype.numpy))[0] == 5


def test_another_byte_order_is_refused():
    x = np.arange(4, dtype=np.float32)
    swapped = x.astype(x.dtype.newbyteorder())
    with pytest.raises(OpError, match=r"argument 0 of .* must be tensor<4xf32>, got >f4\[4\]"):
        compiled(lambda x: [x + 1], (4,))(swapped)


WRONG = {
    "shape": (lambda x: (x[:3],), r"must be tensor<4xf32>, got float32\[3\]"),
    "rank": (lambda x: (x[None],), r"got float32\[1, 4\]"),
    "element type": (lambda x: (x.astype(np.float64),), r"got float64\[4\]"),
    "too few": (lambda x: (), "takes 1 arguments, got 0"),
    "too many": (lambda x: (x, x), "takes 1 arguments, got 2"),
}


@pytest.mark.parametrize(("arguments", "message"), WRONG.values(), ids=WRONG)
def test_wrong_arguments(arguments, message):
    run = compiled(lambda x: [x + 1], (4,))
    x = np.ones(4, np.float32)
    for _ in range(2):
        with pytest.raises(OpError, match=message):
            run(*arguments(x))
        np.testing.assert_array_equal(run(x)[0], x + 1)


def test_sizes_take_turns():
    n = Dim.named("n")
    run = compiled(lambda x, y: [x * y, tnp.sum(x, 0)], (n, 3), (n, 3))
    for size in (4, 9, 4, 0, 1, 9):
        x, y = rng.random((2, size, 3), np.float32)
        product, total = run(x, y)
        np.testing.assert_array_equal(product, x * y)
        np.testing.assert_allclose(total, x.sum(0), rtol=1e-6)
    with pytest.raises(OpError, match="argument 1"):
        run(np.ones((4, 3), np.float32), np.ones((5, 3), np.float32))


def at_bytecode(number, function, happen, results):
    """Call `happen` before a bytecode of those `function` runs here; False when there are fewer."""
    count = 0

    def trace(frame, event, _):
        nonlocal count
        if not frame.f_code.co_filename.endswith(("entry.py", "memory.py")):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            count += 1
            if count == number + 1:
                happen()
        return trace

    gc.disable()  # The end of what an earlier moment left is not to be interrupted.
    sys.settrace(trace)
    try:
        results.append(function())
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(None)
        gc.enable()
    return count > number


def test_sizes_that_are_let_go_of(monkeypatch):
    """A program called with ever other sizes keeps no arena for each; a thread may be using one."""
    monkeypatch.setattr("tfn.compiler.compile._KEPT_BYTES", 300_000)
    n = Dim.named("n")
    run = compiled(lambda x: [tnp.sort(x * 2, 0), tnp.sum(x)], (n,))

    def calls(first):
        for size in (*range(first, first + 150), 60_000 + first):
            double, total = run(np.full(size, first, np.float32))
            if not ((double == 2 * first).all() and total == size * first):
                return False
        return True

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            assert all(threads.map(calls, range(1, 9)))
    finally:
        sys.setswitchinterval(before)
    assert sum(b.nbytes for b in run._bound.values()) <= 300_000 or len(run._bound) == 1


class TestMemoryOfResults:
    @pytest.mark.parametrize("size", [7, _SMALL, 1 << 20])
    def test_results_that_are_kept_keep_their_values(self, size):
        run = compiled(lambda x: [x + 1, x * 2], (size,))
        kept = []
        for i in range(12):
            x = np.full(size, i, np.float32)
            kept.append((i, run(x)))
            if i % 3 == 0:
                kept[-1][1].pop()
        for i, results in kept:
            for r, expected in zip(results, (i + 1, i * 2), strict=False):
                np.testing.assert_array_equal(r, np.full(size, expected, np.float32))

    @pytest.mark.parametrize("size", [7, 1 << 20])
    @pytest.mark.parametrize("view", [
        lambda r: r[1:3], memoryview, lambda r: np.frombuffer(r, np.float32),
        lambda r: np.from_dlpack(r), lambda r: r.reshape(-1, 1).T],
        ids=["slice", "memoryview", "buffer", "dlpack", "view"])
    def test_a_view_keeps_the_memory(self, size, view):
        run = compiled(lambda x: [x + 1], (size,))
        (result,) = run(np.zeros(size, np.float32))
        seen = view(result)
        del result
        for i in range(5):
            run(np.full(size, 5 + i, np.float32))
        assert (np.asarray(seen) == 1).all()

    @pytest.mark.parametrize("size", [7, 1 << 20])
    def test_what_is_freed_is_used_again(self, size):
        run = compiled(lambda x: [x + 1], (size,))
        x = np.zeros(size, np.float32)
        places = {run(x)[0].ctypes.data for _ in range(20)}
        assert len(places) <= 2
        assert all(p % 64 == 0 for p in places)

    def test_threads_that_run_out_of_memory_at_once(self):
        """A thread in need of memory runs Python, where another may enter."""
        run = compiled(lambda x: [x + 1, x * 2], (7,))
        inputs = [np.full(7, i, np.float32) for i in range(8)]

        def calls(x):
            kept = []
            for _ in range(400):
                results = run(x)
                kept = [*kept[-3:], results]
                if not all((a == x + 1).all() and (b == x * 2).all() for a, b in kept):
                    return False
            return True

        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            with ThreadPoolExecutor(8) as threads:
                assert all(threads.map(calls, inputs))
        finally:
            sys.setswitchinterval(before)

    @pytest.mark.parametrize("happens", ["an interrupt", "another call"])
    @pytest.mark.parametrize("of", ["small results", "large results"])
    def test_at_any_moment(self, of, happens):
        """An interrupt, or a finalizer that calls the program, between any two bytecodes."""
        moments = itertools.takewhile(lambda m: self.is_well(m, of, happens), range(1000))
        assert 50 < sum(1 for _ in moments) < 1000

    def is_well(self, moment, of, happens):
        """Check what is true when something has happened; False when nothing has."""
        store = Memory(limit=14_000)
        pieces = _Pieces([Result((4,), np.dtype(np.float32))], store)
        pieces.rows.append(np.zeros(2, np.int64))
        take = (lambda: pieces(0)) if of == "small results" else (lambda: store.take(4000))
        seen = [take() for _ in range(4)]

        def happen():
            if happens == "an interrupt":
                raise KeyboardInterrupt
            seen.append(take())

        came = at_bytecode(moment, take, happen, seen)
        seen.append(take())
        kept = pieces._kept[0] + [p for c in store._classes.values() for p in c]
        assert set(pieces.rows[0]) <= {0, *map(id, kept)}
        for piece in seen:
            assert header(piece)[0] <= sum(piece is k for k in kept)
        assert len({id(p) for p in seen}) == len(seen)
        assert len(kept) <= 8
        return came

    def test_a_result_outlives_its_program(self):
        run = compiled(lambda x: [x + 1], (9,))
        (result,) = run(np.zeros(9, np.float32))
        del run
        gc.collect()
        [compiled(lambda x: [x - 1], (9,))(np.zeros(9, np.float32)) for _ in range(3)]
        assert (result == 1).all()

    def test_what_is_kept_is_bounded(self):
        pool = Memory(limit=10_000)
        pieces = [pool.take(3000) for _ in range(20)]
        assert len({p.ctypes.data for p in pieces}) == 20
        assert pool.held <= 10_000
        ours = sum(int(header(p)[0]) for p in pieces)
        assert ours * 3072 == pool.held
        assert pool.take(50_000).size >= 50_000
        pool.clear()
        assert pool.held == 0
        assert not any(header(p)[0] for p in pieces)

    def test_the_sizes_of_pieces(self):
        for size in [0, 1, 63, 64, 65, 511, 513, 4095, 4097, 1_000_003]:
            room = memory._class(size)
            assert size <= room <= max(size * 1.125, size + 64)


    def test_large_results_begin_at_different_places_of_a_page(self):
        # Four new pieces: those kept from elsewhere were made at any time.
        memory.MEMORY.clear()
        run = compiled(lambda x: [x + 1, x + 2, x + 3, x * 2], (1 << 18,))
        results = run(np.zeros(1 << 18, np.float32))
        places = [r.ctypes.data for r in results]
        assert all(p % 64 == 0 for p in places)
        assert len({p % 4096 for p in places}) == 4
        assert [float(r[-1]) for r in results] == [1, 2, 3, 0]


class TestDonation:
    def step(self):
        return jit(lambda w, x: (w + x, tnp.sum(x)), donate_argnums=0)

    def test_memory_goes_round(self):
        step = self.step()
        w, x = tnp.zeros(1000), tnp.ones(1000)
        w, _ = step(w, x)
        place = w._data.ctypes.data
        for i in range(5):
            w, _ = step(w, x)
            assert w._data.ctypes.data == place
            np.testing.assert_array_equal(w, np.full(1000, i + 2, np.float32))

    @pytest.mark.parametrize("size", [10, 100_000])
    def test_a_view_of_what_is_donated_keeps_its_values(self, size):
        step = self.step()
        w, _ = step(tnp.zeros(size), tnp.ones(size))
        for view in (np.asarray(w), np.from_dlpack(w), w.numpy()[2:5]):
            before = view.copy()
            w, _ = step(w, tnp.ones(size))
            np.testing.assert_array_equal(view, before)

    def test_the_same_array_twice(self):
        step = self.step()
        w, _ = step(tnp.zeros(8), tnp.ones(8))
        result, total = step(w, w)
        np.testing.assert_array_equal(result, np.full(8, 2, np.float32))
        assert total == 8
        both = jit(lambda a, b: (a + b, a - b), donate_argnums=(0, 1))
        w = step(tnp.zeros(8), tnp.ones(8))[0]
        plus, minus = both(w, w)
        np.testing.assert_array_equal([plus, minus], [np.full(8, 2), np.zeros(8)])

    @pytest.mark.parametrize("same", [
        lambda x: tfn.while_loop(lambda s: False, lambda s: s, x),
        lambda x: bind("stablehlo.optimization_barrier", x)], ids=["loop", "barrier"])
    def test_what_is_the_same_keeps_its_values(self, same):
        """Ops that give back what they are given make an array of its own of it."""
        w = self.step()(tnp.zeros(8), tnp.ones(8))[0]
        again = same(w)
        self.step()(w, tnp.ones(8))
        assert (np.asarray(again) == 1).all()

    def test_a_constant_keeps_its_values(self):
        w = self.step()(tnp.zeros(8), tnp.ones(8))[0]
        function = jit(lambda x: (x + w, w)).trace(tnp.zeros(8))
        self.step()(w, tnp.ones(8))
        for _ in range(2):
            results = [tnp.asarray(r) for r in evaluate(function, [np.zeros(8, np.float32)])]
            assert all((np.asarray(r) == 1).all() for r in results)
            self.step()(results[1], tnp.ones(8))

    def test_a_call_that_fails_has_taken_the_memory_all_the_same(self):
        from tfn.compiler import debug

        def fail(x):
            raise RuntimeError("half way")

        step = jit(lambda w: debug.pure_callback(fail, TensorType((8,), F32), w + 1),
                   donate_argnums=0)
        w = jit(lambda x: x + 0)(tnp.ones(8))
        with pytest.raises(RuntimeError, match="half way"):
            step(w)
        with pytest.raises(DonatedError, match=r"was donated to .* at .*test_calls.py"):
            np.asarray(w)

    @pytest.mark.parametrize("size", [10, 1_000_000], ids=["short", "long"])
    def test_threads_that_donate_the_same_array(self, size):
        """One of them gets it."""
        step, x = self.step(), tnp.ones(size)
        w = step(tnp.zeros(size), x)[0]

        def give(w):
            try:
                return step(w, x)[0]
            except DonatedError:
                return None

        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            with ThreadPoolExecutor(4) as threads:
                for i in range(100):
                    (w,) = [r for r in threads.map(give, [w] * 4) if r is not None]
                    assert (np.asarray(w) == i + 2).all()
        finally:
            sys.setswitchinterval(before)

    def test_what_is_donated_is_gone_while_the_program_runs(self):
        from tfn.compiler import debug

        def look(x):
            with pytest.raises(DonatedError):
                np.asarray(w)
            return x

        step = jit(lambda w: debug.pure_callback(look, TensorType((8,), F32), w + 1),
                   donate_argnums=0)
        w = tnp.ones(8)
        assert (np.asarray(step(w)) == 2).all()

    def test_a_donated_array_is_an_argument_no_more(self):
        step = self.step()
        w = step(tnp.zeros(8), tnp.ones(8))[0]
        step(w, tnp.ones(8))
        for _ in range(2):
            with pytest.raises(DonatedError):
                step(w, tnp.ones(8))


class TestJit:
    def test_structures_take_turns(self):
        f = jit(lambda tree: {"sum": sum(tnp.sum(x) for x in tree["all"]), "all": tree["all"]})
        a, b = tnp.ones(3), tnp.arange(4)
        for arrays in ([a], [a, b], [b, a], [a], (a, b)):
            found = f({"all": arrays})
            assert float(found["sum"]) == sum(float(np.asarray(x).sum()) for x in arrays)
            assert type(found["all"]) is type(arrays)

    def test_settings_and_types_take_turns(self):
        from tfn.compiler import debug
        from tfn.compiler.errors import NanError
        from tfn.compiler.ir.defaults import set_default_float

        f = jit(lambda x: (tnp.log(x), tnp.zeros(2)))
        x = tnp.asarray(np.full(3, -1, np.float32))
        assert np.isnan(np.asarray(f(x)[0])).all()
        with debug.check_nans(), pytest.raises(NanError):
            f(x)
        assert np.isnan(np.asarray(f(x)[0])).all()
        try:
            set_default_float(np.float64)
            assert f(x)[1].dtype == np.float64
        finally:
            set_default_float(np.float32)
        assert f(x)[1].dtype == np.float32
        assert f(tnp.asarray(np.ones(3)))[0].dtype == np.float64
        assert f(np.ones(3, np.float32))[0].dtype == np.float32
        assert f(2.0)[0].shape == ()

    def test_static_arguments(self):
        f = jit(lambda x, n: x * n, static_argnums=1)
        x = tnp.ones(3)
        for n in (2, 3, 2, 2, 3):
            assert float(f(x, n)[0]) == n

    def test_keyword_arguments(self):
        f = jit(lambda x, y: x - y)
        a, b = tnp.ones(3), tnp.zeros(3)
        for _ in range(2):
            assert float(f(a, b)[0]) == float(f(a, y=b)[0]) == float(f(y=b, x=a)[0]) == 1
            assert float(f(x=b, y=a)[0]) == -1
        with pytest.raises(TypeError):
            f(a)

    def test_another_byte_order_is_refused(self):
        swapped = np.arange(4, dtype=">f4") if sys.byteorder == "little" else np.arange(4, dtype="<f4")
        with pytest.raises((TraceError, OpError)):
            jit(lambda x: x + 1)(swapped)

    def test_a_program_that_calls_itself(self):
        """Its callback needs the program whose arena is in use."""
        from tfn.compiler import debug

        def inner(x):
            return np.asarray(f(tnp.asarray(x - 1))) if x[0] > 0 else x

        f = jit(lambda x: debug.pure_callback(inner, TensorType((2,), F32), x) * 2 + x)

        def expected(x):
            return (expected(x - 1) if x[0] > 0 else x) * 2 + x

        x = np.asarray([3, 4], np.float32)
        np.testing.assert_array_equal(f(tnp.asarray(x)), expected(x))
