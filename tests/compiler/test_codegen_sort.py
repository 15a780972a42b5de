"""Sorts and selections in compiled code, by radix and by merging, against the evaluator and NumPy."""

import ml_dtypes
import numpy as np
import pytest

from tfn.compiler import numpy as tnp
from tfn.compiler.codegen.order import Order
from tfn.compiler.codegen.target import Target
from tfn.compiler.compile import compile_function, run_passes
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dtypes import F32, I32, as_dtype
from tfn.compiler.trace.core import bind, trace, trace_region

DTYPES = [np.bool_, np.int8, np.uint8, np.int32, np.int64, np.uint64, np.float16,
          ml_dtypes.bfloat16, ml_dtypes.int4, np.float32, np.float64]


def draw(shape, dtype, seed=0):
    """All bit patterns, and many ties: zeros of both signs, NaN, infinities."""
    random, dtype = np.random.default_rng(seed), np.dtype(dtype)
    if dtype == np.bool_:
        return random.integers(0, 2, shape).astype(dtype)
    if dtype == ml_dtypes.int4:
        return random.integers(-8, 8, shape).astype(dtype)
    if dtype.kind in "iu":
        whole = random.integers(0, 256, (*shape, dtype.itemsize), np.uint8).view(dtype)[..., 0]
        return np.where(random.random(shape) < 0.5, whole, whole & dtype.type(3)).astype(dtype)
    values = random.normal(size=shape) * 10.0 ** random.integers(-3, 4, shape)
    some = random.choice([0.0, -0.0, np.nan, -np.nan, np.inf, -np.inf, 1.0], shape)
    return np.where(random.random(shape) < 0.3, some, values).astype(dtype)


def compiled(function, *arrays):
    program, _ = trace(function, [TensorType(a.shape, as_dtype(a.dtype)) for a in arrays])
    return compile_function(program)(*arrays)


def wide(x):
    return x.astype(np.int32 if x.dtype == ml_dtypes.int4 else np.float64) \
        if x.dtype.kind not in "biuf" else x


def ordered(x, axis, descending):
    """NumPy's stable order; descending, equal elements keep their order, NaN are first."""
    x = wide(x)
    if not descending:
        return np.argsort(x, axis=axis, kind="stable")
    flipped = np.argsort(np.flip(x, axis), axis=axis, kind="stable")
    return x.shape[axis] - 1 - np.flip(flipped, axis)


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: np.dtype(t).name)
def test_orders(dtype, descending):
    for shape, axis in (((0,), 0), ((1,), 0), ((1000,), 0), ((3, 31), 1), ((3, 33), 1), ((40, 5), 0),
                        ((2, 300, 3), 1), ((2, 0, 3), 1), ((0, 40), 1)):
        x = draw(shape, dtype)
        (order,) = compiled(lambda x, axis=axis: [tnp.argsort(x, axis, descending)], x)
        np.testing.assert_array_equal(order, ordered(x, axis, descending))


@pytest.mark.parametrize("largest", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: np.dtype(t).name)
def test_first_elements(dtype, largest):
    for shape, k in (((1000,), 10), ((3, 5000), 100), ((2, 129), 1), ((4, 700), 87), ((2, 64), 64)):
        x = draw(shape, dtype, 1)
        values, places = compiled(lambda x, k=k: list(tnp.top_k(x, k, largest=largest)), x)
        expected = ordered(x, -1, largest)[..., :k]
        np.testing.assert_array_equal(places, expected)
        assert values.tobytes() == np.take_along_axis(x, expected, -1).tobytes()


@pytest.mark.parametrize("make", [np.sort, lambda x: np.sort(x)[::-1], np.zeros_like],
                         ids=["rising", "falling", "equal"])
def test_first_elements_of_lines_in_order(make):
    x = make(draw((20_000,), np.int32))
    _, places = compiled(lambda x: list(tnp.top_k(x, 50)), x)
    np.testing.assert_array_equal(places, ordered(x, 0, True)[:50])


def by(comparator, *arrays, dimension=-1):
    scalars = [TensorType((), as_dtype(a.dtype)) for a in arrays for _ in range(2)]
    region = trace_region(comparator, scalars)
    return lambda *x: list(bind("stablehlo.sort", *x, dimension=dimension, is_stable=True,
                                regions=[region]))


def compare(a, b, direction, kind=None):
    return bind("stablehlo.compare", a, b, comparison_direction=direction,
                **({"compare_type": kind} if kind else {}))


COMPARATORS = {
    "total order": (True, lambda a, b, i, j: [compare(a, b, "LT", "TOTALORDER")]),
    "swapped": (True, lambda a, b, i, j: [compare(b, a, "LT", "TOTALORDER")]),
    "the second operand": (True, lambda a, b, i, j: [compare(i, j, "GT")]),
    "a function": (True, lambda a, b, i, j: [compare(abs(a), abs(b), "LT", "TOTALORDER")]),
    "different functions": (False, lambda a, b, i, j: [compare(a, b + 1, "LT", "TOTALORDER")]),
    "two keys": (False, lambda a, b, i, j: [tnp.logical_or(compare(i, j, "LT"), tnp.logical_and(
        compare(i, j, "EQ"), compare(a, b, "LT", "TOTALORDER")))]),
    "not strict": (False, lambda a, b, i, j: [compare(i, j, "LE")]),
}


@pytest.mark.parametrize("name", COMPARATORS)
def test_comparators(agree, name):
    """Those that order by a key are recognised; sorts by others are right, too."""
    is_order, comparator = COMPARATORS[name]
    keys, others = draw((2, 60), np.float32), draw((2, 60), np.int32) % 5
    function = by(comparator, keys, others)
    program, _ = trace(function, [TensorType(a.shape, as_dtype(a.dtype)) for a in (keys, others)])
    (op,) = program.ops
    assert (Order.of(op) is not None) == is_order
    if name not in ("not strict", "different functions"):
        agree(function, keys, others)


@pytest.mark.parametrize(("slices", "selects"), [
    ([(0, 5)], True), ([(0, 5), (0, 5)], True), ([(0, 5), (0, 6)], False), ([(1, 5)], False),
    ([(0, 30)], False)])
def test_a_sort_of_which_the_beginning_is_read_is_a_selection(slices, selects):
    def function(x):
        order = tnp.argsort(x)
        return [order[:, low:high] * (n + 1) for n, (low, high) in enumerate(slices)]

    program, _ = trace(function, [TensorType((3, 60), F32)])
    names = [o.name for o in run_passes(program, Target.host(), until="select").ops]
    assert ("tfn.first_sorted" in names) == selects
    x = draw((3, 60), np.float32)
    for n, (low, high) in enumerate(slices):
        expected = ordered(x, 1, False)[:, low:high] * (n + 1)
        np.testing.assert_array_equal(compiled(function, x)[n], expected)


def test_an_order_that_is_also_returned_is_sorted():
    x = draw((200,), np.int32)
    whole, few = compiled(lambda x: [order := tnp.argsort(x), order[:3]], x)
    np.testing.assert_array_equal(whole, ordered(x, 0, False))
    np.testing.assert_array_equal(few, whole[:3])


def test_a_first_axis_of_any_length_is_sorted_by_the_same_kernel():
    names = []
    for n in (50, 90):
        program, _ = trace(lambda x: [tnp.argsort(x, 0)], [TensorType((n, 3), I32)])
        names.append([k.name for k in compile_function(program).plan.kernels()])
    assert names[0] == names[1]
