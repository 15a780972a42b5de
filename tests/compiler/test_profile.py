"""`tfn.profile`: what ran, how often, what it computes, and that other runs know nothing of it."""

import json
import threading
import time

import numpy as np
import pytest

import tfn
from tfn.compiler import nn
from tfn.compiler import numpy as tnp
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dims import Dim
from tfn.compiler.ir.dtypes import F32
from tfn.compiler.profile import profile_function
from tfn.compiler.runtime.peaks import Peaks
from tfn.compiler.runtime.records import RECORDS
from tfn.compiler.trace.core import trace

PEAKS = Peaks(1, 512, 1e11, {"l1": 4e11, "memory": 2e10}, {"l1": 4e11, "l2": 2e11, "l3": 1e11,
                                                           "memory": 1e10})
X = np.ones((64, 32), np.float32)


def test_a_product_is_counted_and_has_its_line():
    @tfn.jit
    def program(x):
        y = tnp.exp(x)
        return y @ y.T

    program(X)
    with tfn.profile(PEAKS) as profile:
        for _ in range(3):
            result = program(X)
    np.testing.assert_allclose(np.asarray(result), np.exp(X) @ np.exp(X).T, rtol=1e-5)
    by_op = {row.ops: row for row in profile.rows}
    product, exponential = by_op["dot_general",], by_op["exponential",]
    assert product.calls == exponential.calls == 3
    assert product.flops == 2 * 64 * 64 * 32 and exponential.flops == X.size
    assert exponential.nbytes == 2 * X.nbytes
    assert product.location.file == __file__
    assert product.location.line == exponential.location.line + 1
    assert profile.seconds == pytest.approx(sum(end - start for _, start, end in profile.events))


def test_time_is_that_of_the_clock():
    @tfn.jit
    def program(x):
        return tnp.sort(x)

    x = np.random.default_rng(0).random(300_000).astype(np.float32)
    with tfn.profile(PEAKS):
        program(x)
    with tfn.profile(PEAKS) as profile:
        before = time.monotonic()
        program(x)
        whole = time.monotonic() - before
    assert 0 < profile.seconds <= whole
    starts = [start for _, start, _ in profile.events]
    assert starts == sorted(starts) and before <= starts[0]


def test_loops_count_every_round():
    @tfn.jit
    def program(x):
        return tfn.fori_loop(0, 7, lambda i, c: tnp.tanh(c) + 1, x)

    with tfn.profile(PEAKS) as profile:
        program(X)
    (row,) = (row for row in profile.rows if "tanh" in row.ops)
    assert row.calls == 7


def test_runs_outside_leave_no_trace_and_are_the_same():
    program = tfn.jit(lambda x: tnp.tanh(x) * 2)
    before = np.asarray(program(X))
    with tfn.profile(PEAKS) as profile:
        inside = np.asarray(program(X))
        count = len(profile.rows)
    after = np.asarray(program(X))
    assert count == 0 and len(profile.events) == 1  # rows are there when the block is left
    assert before.tobytes() == inside.tobytes() == after.tobytes()


def test_another_thread_is_recorded_and_a_second_profile_refused():
    program = tfn.jit(lambda x: tnp.tanh(x) * 3)
    with tfn.profile(PEAKS) as profile:
        worker = threading.Thread(target=program, args=(X,))
        worker.start()
        worker.join()
        with pytest.raises(RuntimeError, match="a profile is being made already"), tfn.profile():
            pass
    assert len(profile.events) == 1


def test_the_table_says_what_part_of_the_peak_was_reached():
    program = tfn.jit(lambda x: tnp.tanh(x) @ x.T)
    with tfn.profile(PEAKS) as profile:
        program(X)
    lines = profile.table().splitlines()
    assert lines[0].split() == "ms % calls GFLOP/s GB/s % of peak where what".split()
    assert len(lines) == 1 + len(profile.rows)
    row = max(profile.rows, key=lambda r: r.flops)
    line = next(line for line in lines if "dot_general" in line)
    assert "test_profile.py:" in line
    assert row.fraction(PEAKS) == pytest.approx(
        max(row.flops / 1e11, row.nbytes / PEAKS.bandwidth(row.nbytes)) / row.seconds)
    assert ("more," in profile.table(most=1)) == (len(profile.rows) > 1)


def test_files(tmp_path):
    program = tfn.jit(lambda x: tnp.tanh(x) @ x.T)
    with tfn.profile(PEAKS) as profile:
        program(X)
    profile.save(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert {"name", "ph", "ts", "dur", "pid", "tid"} <= set(events[0])
    assert [e["dur"] for e in events] == pytest.approx(
        [1e6 * (end - start) for _, start, end in profile.events])
    profile.roofline(tmp_path / "roofline.html")
    page = (tmp_path / "roofline.html").read_text()
    assert page.count("<circle") == len(profile.rows) and "http" not in page


def test_attention_counts_both_products():
    q = np.ones((1, 32, 2, 8), np.float32)
    program = tfn.jit(lambda q: nn.dot_product_attention(q, q, q))
    with tfn.profile(PEAKS) as profile:
        program(q)
    (row,) = profile.rows
    assert row.ops == ("attention",) and row.flops == 4 * 2 * 32 * 32 * 8 and row.calls == 1


def test_a_function_with_sizes_unknown_is_profiled_on_numbers_made_up():
    function, _ = trace(lambda x: [tnp.tanh(x) + 1], [TensorType((Dim.named("n"), 4), F32)])
    profile = profile_function(function, runs=2, size=16)
    (row,) = profile.rows
    assert row.calls == 2 and row.nbytes == 2 * 16 * 4 * 4


def test_the_gradient_of_a_strided_convolution_is_counted_without_its_zeros():
    x, w = np.ones((2, 8, 8, 4), np.float32), np.ones((2, 2, 4, 16), np.float32)
    program = tfn.jit(tfn.grad(lambda x, w: (nn.conv(x, w, strides=2) ** 2).sum(), argnums=(0, 1)))
    program(x, w)
    with tfn.profile(PEAKS) as profile:
        program(x, w)
    counts = [row.flops for row in profile.rows if "convolution" in row.ops]
    products = 2 * 2 * 4 * 4 * 16 * 2 * 2 * 4
    # Forward (and what is done to its 512 results), for the image, for the kernel.
    assert len(counts) == 3 and all(products <= c <= 1.2 * products for c in counts)


def test_records_stay_where_they_are_written():
    """A thread may be at its last one when the timing ends."""
    f = tfn.jit(lambda x: x + 1)
    with tfn.profile():
        f(tnp.ones(3))
    assert RECORDS.log[0] > 0
