"""Windows in compiled code, their sums, extremes and what pooling's gradient selects, against the
evaluator."""

import ml_dtypes
import numpy as np
import pytest

from tfn.compiler import nn
from tfn.compiler import numpy as tnp
from tfn.compiler.codegen.target import Target
from tfn.compiler.compile import compile_function, run_passes
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dtypes import as_dtype
from tfn.compiler.ops.reduction import identity_of, reducer
from tfn.compiler.trace.core import bind, trace, trace_region
from tfn.compiler.trace.grad import grad

BF16 = ml_dtypes.bfloat16
DTYPES = [np.float32, np.float64, np.float16, BF16, np.int8, np.int32, np.int64, np.uint8]

# Shape, window, strides, padding: channels of a vector, of less, of more, windows along all dims.
WINDOWS = [
    ((2, 7, 9, 16), (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (0, 0), (0, 0), (0, 0))),
    ((2, 7, 9, 5), (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (0, 2), (0, 0))),
    ((1, 6, 8, 37), (1, 2, 2, 1), (1, 2, 2, 1), ((0, 0), (0, 0), (0, 0), (0, 0))),
    ((3, 5, 6, 4), (1, 2, 3, 1), (1, 1, 2, 1), ((0, 0), (1, 0), (2, 1), (0, 0))),
    ((4, 6, 5), (3, 2, 1), (2, 1, 1), ((1, 1), (0, 1), (0, 0))),
    ((2, 3, 8, 8), (1, 1, 3, 3), (1, 1, 2, 2), ((0, 0), (0, 0), (1, 0), (0, 1))),
    ((2, 9, 11, 3), (1, 7, 7, 1), (1, 1, 2, 1), ((0, 0), (3, 3), (3, 3), (0, 0))),
    ((2, 4, 6, 20), (1, 3, 3, 1), (1, 4, 4, 1), ((0, 0), (2, 2), (1, 3), (0, 0))),
    ((5, 12), (2, 1), (2, 1), ((0, 1), (0, 0))),
    ((13,), (4,), (3,), ((2, 2),)),
    ((2, 0, 4, 8), (1, 2, 2, 1), (1, 1, 1, 1), ((0, 0), (2, 2), (0, 0), (0, 0))),
]


def draw(shape, dtype, seed=3):
    """Small integers, so that ties are frequent and sums exact; zeros of both signs and NaN."""
    random = np.random.default_rng(seed)
    values = random.integers(-3, 4, shape).astype(np.float64)
    dtype = np.dtype(dtype)
    if dtype.kind == "u":
        return np.abs(values).astype(dtype)
    if dtype.kind not in "iu":
        values = np.where(random.random(shape) < 0.05, np.nan, values)
        values = np.where(random.random(shape) < 0.1, -0.0, values)
    return values.astype(dtype)


def windowed(x, kind, window, strides, padding, **options):
    dtype = as_dtype(x.dtype)
    return bind("stablehlo.reduce_window", x, identity_of(kind, dtype), window_dimensions=window,
                window_strides=strides, padding=padding, regions=[reducer(kind, dtype)], **options)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: np.dtype(t).name)
@pytest.mark.parametrize("kind", ["add", "maximum", "minimum"])
def test_windows(agree, kind, dtype):
    for case in WINDOWS:
        # The greater of 0 and -0 is open: there is one zero here.
        x = draw(case[0], dtype)
        agree(lambda x, case=case: [windowed(x, kind, *case[1:])],
              x if kind == "add" else x + x.dtype.type(0))


def test_dilated_windows_of_dilated_images(agree):
    for base, dilation in (((1, 2, 3, 1), (1, 1, 1, 1)), ((1, 2, 2, 1), (1, 2, 3, 1))):
        agree(lambda x, base=base, dilation=dilation: [windowed(
            x, "maximum", (1, 3, 2, 1), (1, 1, 2, 1), ((0, 0), (2, 3), (1, -1), (0, 0)),
            base_dilations=base, window_dilations=dilation)], draw((2, 6, 7, 8), np.float32) + 0)


def test_windows_that_overlap_padding_start_from_any_value(agree):
    def function(x):
        return [bind("stablehlo.reduce_window", x, np.float32(5), window_dimensions=(3, 1),
                     window_strides=(1, 1), padding=((2, 1), (0, 0)),
                     regions=[reducer("add", x.type.dtype)])]

    agree(function, draw((6, 18), np.float32))


def selected(x, source, window, strides, padding, direction="GE", scatter="add", initial=0):
    dtype = as_dtype(x.dtype)
    scalar = TensorType((), dtype)
    select = trace_region(lambda p, q: [bind(
        "stablehlo.compare", p, q, comparison_direction=direction)], [scalar, scalar])
    return bind("stablehlo.select_and_scatter", x, source, np.asarray(initial, dtype.numpy),
                window_dimensions=window, window_strides=strides, padding=padding,
                regions=[select, reducer(scatter, dtype)])


def source_shape(shape, window, strides, padding):
    return tuple(max((e + low + high - w) // s + 1, 0) for e, w, s, (low, high) in zip(
        shape, window, strides, padding, strict=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: np.dtype(t).name)
@pytest.mark.parametrize("direction", ["GE", "LE", "GT"])
def test_selected_places(agree, direction, dtype):
    for shape, *case in WINDOWS[:-1]:
        source = np.abs(draw(source_shape(shape, *case), dtype, 5))
        agree(lambda x, s, case=case: [selected(x, s, *case, direction=direction)],
              draw(shape, dtype), source)


def test_a_start_value_and_other_combinations(agree):
    shape, *case = WINDOWS[1]
    x, source = draw(shape, np.int32), draw(source_shape(shape, *case), np.int32, 5)
    agree(lambda x, s: [selected(x, s, *case, initial=7)], x, source)
    agree(lambda x, s: [selected(x, s, *case, scatter="multiply", initial=1)], x, source)


def test_any_batch_runs_the_same_kernel():
    def kernels(batch):
        types = [TensorType((batch, 8, 8, 16), as_dtype(np.float32)),
                 TensorType((batch, 4, 4, 16), as_dtype(np.float32))]
        program, _ = trace(lambda x, s: [selected(x, s, (1, 2, 2, 1), (1, 2, 2, 1), ((0, 0),) * 4)],
                           types)
        return [k.name for k in compile_function(program).plan.kernels()]

    assert kernels(3) == kernels(64)


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_gradients_of_pooling(agree, padding):
    x = draw((2, 9, 10, 6), np.float32)
    x = np.nan_to_num(x)

    def gradient(pool):
        def function(x):
            return [grad(lambda x: tnp.sum(pool(x, 3, 2, padding) ** 2))(x)]
        return function

    agree(gradient(nn.max_pool), x, tolerance=1e-6)
    agree(gradient(nn.avg_pool), x, tolerance=1e-6)


def padded(low, high, between, value=0.0):
    def function(x):
        wide = bind("stablehlo.pad", x, np.asarray(value, x.dtype), edge_padding_low=low,
                    edge_padding_high=high, interior_padding=between)
        return [windowed(wide, "add", (1, 2, 3), (1, 1, 2), ((0, 0), (1, 0), (0, 1)))]
    return function


@pytest.mark.parametrize(("function", "folds"), [
    (padded((0, 1, 2), (0, 2, 0), (0, 1, 2)), True),
    (padded((0, 0, -1), (0, 0, -2), (0, 1, 1)), False),
    (padded((0, 0, -1), (1, 0, 0), (0, 0, 0)), True),
    (padded((0, 1, 2), (0, 2, 0), (0, 0, 0), 1.0), False),
    (padded((0, 1, 2), (0, 2, 0), (0, 0, 0), -0.0), False),
])
def test_padding_with_the_initial_value_is_part_of_the_windows(agree, function, folds):
    x = draw((3, 5, 7), np.float32)
    agree(function, x)
    program, _ = trace(function, [TensorType(x.shape, as_dtype(x.dtype))])
    made = run_passes(program, Target.host(), until="dce")
    assert ("stablehlo.pad" in [o.name for o in made.ops]) != folds
