"""Scatter, compiled: every form of windows, against the specification's own loop written out here."""

import hashlib
import itertools
import os
import subprocess
import sys
import textwrap

import ml_dtypes
import numpy as np
import pytest

import tfn.compiler.numpy as tnp
from tfn.compiler.compile import compile_function
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dims import Dim
from tfn.compiler.ir.dtypes import F32, I32, as_dtype
from tfn.compiler.ir.structs import ScatterDimensionNumbers
from tfn.compiler.ops.reduction import reducer, replacement
from tfn.compiler.trace.core import as_array, bind, trace
from tfn.compiler.trace.grad import vjp
from tfn.compiler.trace.jit import jit

rng = np.random.default_rng(0)

COMBINE = {"add": np.add, "multiply": np.multiply, "maximum": np.maximum, "minimum": np.minimum,
           "or": np.bitwise_or, "replace": lambda old, new: new}


def specified(x, indices, updates, n, kind):
    """The loop of the specification, one element of the updates after the other."""
    result = x.copy()
    batch = [d for d in range(updates.ndim) if d not in n.update_window_dims]
    kept = [d for d in range(x.ndim)
            if d not in n.inserted_window_dims and d not in n.input_batching_dims]
    sizes = {d: updates.shape[w] for d, w in zip(kept, n.update_window_dims, strict=True)}
    for place in np.ndindex(*updates.shape):
        at = [place[d] for d in batch]
        vector = list(at)
        if n.index_vector_dim < indices.ndim:
            vector.insert(n.index_vector_dim, slice(None))
        start = dict(zip(n.scatter_dims_to_operand_dims, np.atleast_1d(indices[tuple(vector)]),
                         strict=True))
        full = [int(start.get(d, 0)) for d in range(x.ndim)]
        inside = all(0 <= full[d] <= x.shape[d] - sizes.get(d, 1) for d in start)
        places = [i for i in range(indices.ndim) if i != n.index_vector_dim]
        for d, i in zip(n.input_batching_dims, n.scatter_indices_batching_dims, strict=True):
            full[d] = at[places.index(i)]
        for d, w in zip(kept, n.update_window_dims, strict=True):
            full[d] += place[w]
        if inside:
            old = result[tuple(full)]
            result[tuple(full)] = COMBINE[kind](old, updates[place]).astype(x.dtype)
    return result


def scattered(x, indices, updates, n, kind):
    dtype = as_dtype(x.dtype)
    body = replacement(dtype) if kind == "replace" else reducer(kind, dtype)
    return bind("stablehlo.scatter", x, indices, updates, scatter_dimension_numbers=n, regions=[body])


def array(shape, dtype=np.float32):
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    if dtype.kind in "iu":
        return rng.integers(0, 9, shape).astype(dtype)
    if dtype.kind == "c":
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


def places(shape, high, dtype=np.int32):
    """Indices, duplicates and some out of bounds on both sides among them."""
    low = -2 if np.dtype(dtype).kind == "i" else 0
    return rng.integers(low, high + 2, shape).astype(dtype)


def check(x, indices, updates, n, kind, of=None):
    """Scatter into an operand, or into what `of` makes in the same program."""
    def program(x, indices, updates):
        return [scattered(x if of is None else of(x), indices, updates, n, kind)]

    function, _ = trace(program, [as_array(a).type for a in (x, indices, updates)])
    executable = compile_function(function)
    before = x.copy()
    start = x if of is None else np.asarray(of(as_array(x)))
    with np.errstate(all="ignore"):
        expected = specified(start, indices, updates, n, kind)
    for _ in range(2):
        (found,) = executable(x, indices, updates)
        assert found.dtype == x.dtype
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(x, before)
    return executable


def rows(axis=0, rank=2, index_rank=1):
    """The numbers of `x.at[indices]` along an axis of `x`."""
    total = rank - 1 + index_rank
    batch = range(axis, axis + index_rank)
    return ScatterDimensionNumbers(
        update_window_dims=tuple(d for d in range(total) if d not in batch),
        inserted_window_dims=(axis,), scatter_dims_to_operand_dims=(axis,),
        index_vector_dim=index_rank)


FORMS = {
    "rows": ((9, 20), (30,), (30, 20), rows()),
    "long rows": ((5, 300), (12,), (12, 300), rows()),
    "rows of several dims": ((7, 3, 11), (9,), (9, 3, 11), rows(rank=3)),
    "indices of several dims": ((9, 17), (4, 5), (4, 5, 17), rows(index_rank=2)),
    "elements": ((50,), (200,), (200,), rows(rank=1)),
    "a large result": ((100_000,), (40,), (40,), rows(rank=1)),
    "one index": ((6, 5), (), (5,), rows(index_rank=0)),
    "columns": ((6, 9), (12,), (6, 12), rows(axis=1)),
    "a dim in the middle": ((4, 7, 5), (6,), (4, 6, 5), rows(axis=1, rank=3)),
    "pairs of indices": ((6, 7), (20, 2), (20,), ScatterDimensionNumbers(
        inserted_window_dims=(0, 1), scatter_dims_to_operand_dims=(0, 1), index_vector_dim=1)),
    "pairs the other way": ((6, 7, 4), (2, 20), (20, 4), ScatterDimensionNumbers(
        update_window_dims=(1,), inserted_window_dims=(0, 1), scatter_dims_to_operand_dims=(1, 0),
        index_vector_dim=0)),
    "part of a row": ((8, 30), (15, 2), (15, 12), ScatterDimensionNumbers(
        update_window_dims=(1,), inserted_window_dims=(0,), scatter_dims_to_operand_dims=(0, 1),
        index_vector_dim=1)),
    "windows that overlap": ((40,), (25, 1), (25, 6), ScatterDimensionNumbers(
        update_window_dims=(1,), scatter_dims_to_operand_dims=(0,), index_vector_dim=1)),
    "windows that overlap, first": ((40,), (25, 1), (6, 25), ScatterDimensionNumbers(
        update_window_dims=(0,), scatter_dims_to_operand_dims=(0,), index_vector_dim=1)),
    "boxes": ((7, 8, 9), (10, 2), (10, 3, 4, 9), ScatterDimensionNumbers(
        update_window_dims=(1, 2, 3), scatter_dims_to_operand_dims=(0, 1), index_vector_dim=1)),
    "along the last axis": ((5, 40), (5, 30, 1), (5, 30), ScatterDimensionNumbers(
        inserted_window_dims=(1,), input_batching_dims=(0,), scatter_indices_batching_dims=(0,),
        scatter_dims_to_operand_dims=(1,), index_vector_dim=2)),
    "along the first axis": ((40, 5), (30, 5), (30, 5), ScatterDimensionNumbers(
        inserted_window_dims=(0,), input_batching_dims=(1,), scatter_indices_batching_dims=(1,),
        scatter_dims_to_operand_dims=(0,), index_vector_dim=2)),
    "examples of rows": ((3, 2, 6, 20), (3, 2, 8), (3, 2, 8, 20), ScatterDimensionNumbers(
        update_window_dims=(3,), inserted_window_dims=(2,), input_batching_dims=(0, 1),
        scatter_indices_batching_dims=(0, 1), scatter_dims_to_operand_dims=(2,), index_vector_dim=3)),
    "no updates": ((6, 5), (0,), (0, 5), rows()),
    "empty rows": ((6, 0), (4,), (4, 0), rows()),
    "every element": ((30,), (0,), (30,), ScatterDimensionNumbers(update_window_dims=(0,))),
}


def indices_for(shape, form, dtype=np.int32):
    x = FORMS[form][0]
    n = FORMS[form][3]
    if form == "windows that overlap" or form == "windows that overlap, first":
        return places(shape, 34, dtype)
    return places(shape, max((x[d] for d in n.scatter_dims_to_operand_dims), default=0), dtype)


@pytest.mark.parametrize("kind", ["add", "replace"])
@pytest.mark.parametrize("form", FORMS)
def test_windows(form, kind):
    x, indices, updates, n = FORMS[form]
    check(array(x), indices_for(indices, form), array(updates), n, kind)
    check(array(x), indices_for(indices, form), array(updates), n, kind,
          of=lambda x: tnp.zeros_like(x))


@pytest.mark.parametrize(("kind", "dtype"), [
    *itertools.product(["add", "multiply", "maximum", "minimum", "replace"],
                       [np.float64, np.float16, ml_dtypes.bfloat16, np.int8, np.uint8, np.int64]),
    *itertools.product(["add", "replace"], [np.complex64]),
    *itertools.product(["or", "maximum", "replace"], [bool])])
@pytest.mark.parametrize("form", ["rows", "elements"])
def test_dtypes(form, kind, dtype):
    x, indices, updates, n = FORMS[form]
    check(array(x, dtype), indices_for(indices, form), array(updates, dtype), n, kind)


@pytest.mark.parametrize(
    "dtype", [np.int8, np.uint8, np.int16, np.uint32, np.int64, np.uint64], ids=str)
@pytest.mark.parametrize("form", ["rows", "elements", "pairs of indices"])
def test_indices(form, dtype):
    x, indices, updates, n = FORMS[form]
    check(array(x), indices_for(indices, form, dtype), array(updates), n, "add")


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.int32, np.uint32], ids=str)
def test_extreme_indices(dtype):
    info = np.iinfo(dtype)
    i = np.array([0, info.max, 5, info.min, info.max // 2 + 1, 4], dtype)
    check(array((6, 20)), i, array((6, 20)), rows(), "add")


def test_values_that_are_no_numbers():
    u = array((30, 20))
    u[::3, ::2], u[1::3, ::5], u[::7] = np.nan, np.inf, -0.0
    for kind in ("add", "maximum", "minimum", "replace"):
        check(array((9, 20)), places((30,), 9), u, rows(), kind)


STARTS = {
    "ones": lambda x: tnp.ones_like(x),
    "a row for all": lambda x: tnp.broadcast_to(x[0], x.shape),
    "counts": lambda x: tnp.astype(tnp.broadcast_to(tnp.arange(x.shape[1]), x.shape), x.dtype),
    "computed": lambda x: x * 2 + 1,
}


@pytest.mark.parametrize("of", STARTS.values(), ids=STARTS)
def test_what_a_result_begins_with(of):
    check(array((9, 20)), places((30,), 9), array((30, 20)), rows(), "add", of=of)


def test_updates_that_are_all_the_same():
    """A histogram of ones: nothing is made in memory but the counts."""
    def program(i):
        return [tnp.zeros(10, np.int32).at[i].add(1)]

    i = rng.integers(0, 10, 1000).astype(np.uint32)
    function, _ = trace(program, [as_array(i).type])
    executable = compile_function(function)
    np.testing.assert_array_equal(executable(i)[0], np.bincount(i, minlength=10))
    assert len(executable.plan.kernels()) == 1


def test_the_operand_is_its_own_update(agree):
    def program(x, i):
        return [scattered(x, i, x, rows(), "add")]

    agree(program, array((8, 20)), places((8,), 8))


PROGRAMS = {
    "the operand is needed afterwards": lambda x, i, u: [scattered(x, i, u, rows(), "add"), x * 2],
    "the operand is returned": lambda x, i, u: [scattered(x, i, u, rows(), "add"), x],
    "one after the other": lambda x, i, u: [
        scattered(scattered(x, i, u, rows(), "add"), i, u * 2, rows(), "maximum")],
    "two of one operand": lambda x, i, u: [
        scattered(x, i, u, rows(), "add"), scattered(x, i, u, rows(), "replace")],
    "the zeros are returned": lambda x, i, u: [
        (z := tnp.zeros_like(x)), scattered(z, i, u, rows(), "add")],
    "of the operand's rows": lambda x, i, u: [scattered(x, i, tnp.take(x, i, 0), rows(), "add")],
    "what it made is read": lambda x, i, u: [tnp.sum(scattered(x, i, u, rows(), "add"), 0)],
    "of a constant": lambda x, i, u: [scattered(tnp.asarray(
        np.arange(180, dtype=np.float32).reshape(9, 20)), i, u, rows(), "add")],
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_programs(program, agree):
    agree(program, array((9, 20)), places((30,), 9), array((30, 20)), tolerance=1e-6)


def test_donated_memory_is_written_in_place():
    step = jit(lambda x, i, u: x.at[i].add(u), donate_argnums=0)
    expected = array((50, 20))
    x = jit(lambda x: x + 0)(tnp.asarray(expected))
    place = x._data.ctypes.data
    for _ in range(3):
        i, u = rng.integers(0, 50, 30).astype(np.int32), array((30, 20))
        x = step(x, tnp.asarray(i), tnp.asarray(u))
        np.add.at(expected, i, u)
        np.testing.assert_array_equal(x, expected)
        assert x._data.ctypes.data == place


def test_the_gradient_of_an_embedding():
    def gradient(table, ids, ct):
        return [vjp(lambda t: tnp.take(t, ids, axis=0), table)[1](ct)[0]]

    table, ids = array((300, 24)), rng.integers(0, 300, (8, 50)).astype(np.int64)
    ct = array((8, 50, 24))
    function, _ = trace(gradient, [as_array(a).type for a in (table, ids, ct)])
    expected = np.zeros_like(table)
    np.add.at(expected, ids, ct)
    np.testing.assert_array_equal(compile_function(function)(table, ids, ct)[0], expected)


def test_symbolic_sizes():
    n, v = Dim.named("n"), Dim.named("v")
    function, _ = trace(lambda x, i, u: [scattered(x, i, u, rows(), "add"),
                                         scattered(tnp.zeros_like(x), i, u, rows(), "maximum")],
                        [TensorType((v, 20), F32), TensorType((n,), I32), TensorType((n, 20), F32)])
    executable = compile_function(function)
    for size, count in ((5, 9), (1, 1), (7, 0), (0, 3), (30, 4)):
        x, i, u = array((size, 20)), places((count,), size), array((count, 20))
        found = executable(x, i, u)
        np.testing.assert_array_equal(found[0], specified(x, i, u, rows(), "add"))
        np.testing.assert_array_equal(found[1], specified(np.zeros_like(x), i, u, rows(), "maximum"))


def test_segments_of_narrow_ids():
    """A negative id of a narrow type belongs to no segment, however many there are."""
    ids = np.array([0, -1, 127, -128, 5], np.int8)
    x = array((5, 3))
    found = tnp.segment_sum(x, ids, 200)
    expected = np.zeros((200, 3), np.float32)
    for i, row in zip(ids, x, strict=True):
        if i >= 0:
            expected[i] += row
    np.testing.assert_array_equal(found, expected)


_THREADS = textwrap.dedent("""
    import hashlib
    import numpy as np
    import tfn
    from tfn import numpy as tnp

    r = np.random.default_rng(0)
    ids, rows = r.integers(-3, 3003, 8000).astype(np.int32), r.integers(0, 4000, (300, 700))
    u, v = r.standard_normal((8000, 256)).astype(np.float32), r.standard_normal((300, 700), np.float32)
    def program(ids, rows, u, v):
        along = tfn.vjp(lambda x: tnp.take_along_axis(x, rows, 1), tnp.zeros((300, 4000)))[1](v)[0]
        return [tnp.segment_sum(u, ids, 3000), along, tnp.ones((3000, 256)).at[ids].multiply(u),
                tnp.zeros(3000).at[ids].add(u[:, 0]), tnp.zeros((3000, 256)).at[ids].set(u)]
    results = tfn.jit(program)(ids, rows.astype(np.int32), u, v)
    expected = np.zeros((3000, 256), np.float32)
    inside = (ids >= 0) & (ids < 3000)
    np.add.at(expected, ids[inside], u[inside])
    np.testing.assert_array_equal(results[0], expected)
    print(hashlib.sha256(b"".join(np.asarray(a).tobytes() for a in results)).hexdigest())
""")


def test_the_bits_do_not_depend_on_the_number_of_threads():
    digests = set()
    for count in ("1", "2", "5"):
        done = subprocess.run(
            [sys.executable, "-c", _THREADS], capture_output=True, text=True, timeout=120,
            env={**os.environ, "TFN_NUM_THREADS": count}, check=False)
        assert done.returncode == 0, done.stderr
        digests.add(done.stdout)
    assert len(digests) == 1 and len(digests.pop().strip()) == 2 * hashlib.sha256().digest_size
