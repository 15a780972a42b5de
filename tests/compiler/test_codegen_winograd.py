"""Winograd convolutions against direct ones in f64: sizes that leave remainders, any padding and batch,
gradients, what follows, what a program must ask for, and what stays as it was."""

import os
import subprocess
import sys

import numpy as np
import pytest

import tfn
import tfn.compiler.numpy as tnp
from tfn.compiler import nn
from tfn.compiler.codegen.target import Target
from tfn.compiler.compile import compile_function, run_passes
from tfn.compiler.errors import CompileError, TraceError
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dims import Dim
from tfn.compiler.ir.dtypes import F32, F64
from tfn.compiler.ir.evaluator import evaluate
from tfn.compiler.ir.structs import ConvDimensionNumbers
from tfn.compiler.runtime import stored
from tfn.compiler.runtime.cache import KERNELS
from tfn.compiler.trace.core import bind, trace
from tfn.compiler.trace.grad import vjp

RNG = np.random.default_rng(5)
TOLERANCE = 2e-5
"""Of the largest element; direct convolutions stay below 4e-6."""
HOST = Target.host()
NARROW = Target(HOST.triple, HOST.cpu, ",".join(
    f.replace("+", "-") if f[1:].startswith(("avx512", "avx10")) else f
    for f in HOST.features.split(",")))
"""This machine without vectors of 512 bits."""


def random(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def traced(program, *arrays, dtype=F32):
    return trace(program, [TensorType(a.shape, dtype) for a in arrays])[0]


def fast(program, *arrays, **options):
    return compile_function(traced(program, *arrays), fast_convolution=True, **options)


def inside(function):
    """Names of the ops in the kernels of a compiled function that are contractions."""
    return sorted(op.name for kernel in function.ops for region in kernel.regions
                  for op in region.ops if "winograd" in op.name or "convolution" in op.name)


def check(program, *arrays, **options):
    """The program's results, compared with those of direct convolutions in f64."""
    executable = fast(program, *arrays, **options)
    assert "tfn.winograd" in inside(executable.function)
    found = executable(*arrays)
    right = evaluate(traced(program, *arrays, dtype=F64), [a.astype(np.float64) for a in arrays])
    for mine, exact in zip(found, right, strict=True):
        assert mine.shape == exact.shape
        assert np.abs(mine - exact).max(initial=0) <= TOLERANCE * max(np.abs(exact).max(initial=0), 1)
    return executable


def convolution(**options):
    return lambda x, w: [nn.conv(x, w, **options)]


SAME = convolution(padding="same")
CASES = {
    "whole tiles": ((3, 16, 16, 32), (3, 3, 32, 32), "same"),
    "one tile": ((20, 4, 4, 32), (3, 3, 32, 64), "same"),
    "many lines": ((1, 56, 28, 64), (3, 3, 64, 32), "same"),
    "lines that do not divide": ((2, 30, 31, 96), (3, 3, 96, 64), "same"),
    "channels left over": ((3, 13, 15, 33), (3, 3, 33, 47), "same"),
    "one column left over": ((6, 9, 10, 32), (3, 3, 32, 97), "valid"),
    "many images a task": ((9, 8, 7, 160), (3, 3, 160, 200), "same"),
    "panels shared": ((1, 18, 18, 256), (3, 3, 256, 288), "same"),
    "asymmetric": ((3, 12, 14, 40), (3, 3, 40, 32), [(0, 2), (3, 1)]),
    "beyond the kernel": ((3, 9, 11, 32), (3, 3, 32, 32), [(4, 5), (6, 1)]),
    "negative": ((4, 14, 15, 32), (3, 3, 32, 33), [(-1, 2), (3, -2)]),
    "a large kernel": ((6, 8, 8, 256), (3, 3, 256, 256), "same"),
}


@pytest.mark.parametrize("name", CASES)
def test_like_a_direct_convolution(name):
    image, kernel, padding = CASES[name]
    check(convolution(padding=padding), random(*image), random(*kernel))


@pytest.mark.parametrize("name", ["lines that do not divide", "channels left over",
                                  "many images a task", "asymmetric"])
def test_with_narrow_vectors(name):
    image, kernel, padding = CASES[name]
    check(convolution(padding=padding), random(*image), random(*kernel), target=NARROW)


@pytest.mark.parametrize("channels", [(32, 32), (40, 70), (65, 33)])
@pytest.mark.parametrize("padding", ["same", "valid", [(0, 2), (2, 0)]])
def test_gradient_of_the_image(channels, padding):
    def gradient(x, w, dy):
        return [vjp(lambda x, w: nn.conv(x, w, padding=padding), x, w)[1](dy)[0]]

    x, w = random(4, 12, 13, channels[0]), random(3, 3, *channels)
    dy = random(*traced(convolution(padding=padding), x, w).returns[0].shape)
    executable = check(gradient, x, w, dy)
    assert inside(executable.function) == ["tfn.winograd", "tfn.winograd_kernel"]


@pytest.mark.parametrize("order", ["oihw", "ohwi", "hwoi", "iohw"])
@pytest.mark.parametrize("image", ["nchw", "nhwc"])
def test_any_order_of_dims(order, image):
    sizes = {"n": 2, "c": 34, "h": 14, "w": 12}
    x = random(*(sizes[d] for d in image))
    w = random(*({"o": 40, "i": 34}.get(d, 3) for d in order))
    dims = tuple(image.index(d) for d in "hw")
    numbers = ConvDimensionNumbers(
        0, image.index("c"), dims, order.index("i"), order.index("o"),
        tuple(order.index(d) for d in "hw"), 0, image.index("c"), dims)
    check(lambda x, w: [bind("stablehlo.convolution", x, w, padding=((1, 1), (0, 2)),
                             dimension_numbers=numbers, window_reversal=(False, True),
                             feature_group_count=1, batch_group_count=1)], x, w)


FOLLOWERS = {
    "bias and relu": lambda y, b, r: [tnp.maximum(y + b, 0)],
    "residual": lambda y, b, r: [tnp.maximum(y * b + r, 0)],
    "kept": lambda y, b, r: [y, tnp.tanh(y + r)],
    "two types": lambda y, b, r: [tnp.maximum(y + b, 0), y > r],
}


@pytest.mark.parametrize("features", [32, 50])
@pytest.mark.parametrize("name", list(FOLLOWERS)[:2])
def test_what_follows_is_done_in_the_same_kernel(name, features):
    def program(x, w, b, r):
        return FOLLOWERS[name](nn.conv(x, w, padding="same"), b, r)

    executable = check(program, random(3, 14, 15, 32), random(3, 3, 32, features), random(features),
                       random(3, 14, 15, features))
    assert len(executable.plan.kernels()) == 2


@pytest.mark.parametrize("name", list(FOLLOWERS)[2:])
def test_several_results(name):
    def program(x, w, b, r):
        return FOLLOWERS[name](nn.conv(x, w, padding="same"), b, r)

    arrays = random(3, 14, 15, 32), random(3, 3, 32, 40), random(40), random(3, 14, 15, 40)
    plain = compile_function(traced(program, *arrays))(*arrays)
    for mine, other in zip(fast(program, *arrays)(*arrays), plain, strict=True):
        assert mine.dtype == other.dtype
        assert (np.abs(mine.astype("f8") - other) > 1e-3).mean() < 1e-3


def test_the_evaluator_agrees_on_what_the_pass_makes():
    x, w = random(2, 13, 14, 33), random(3, 3, 33, 40)
    for padding in ("same", [(-1, 2), (3, -2)]):
        program = convolution(padding=padding)
        made = run_passes(traced(program, x, w), HOST, until="dce", fast_convolution=True)
        assert [op.name for op in made.ops] == ["tfn.winograd_kernel", "tfn.winograd"]
        (mine,), (right,) = fast(program, x, w)(x, w), evaluate(made, [x, w])
        np.testing.assert_allclose(mine, right, atol=TOLERANCE * np.abs(right).max())


# -- batches, threads ------------------------------------------------------------------------------

def test_any_batch_by_one_kernel():
    batch = Dim.named("batch")
    w = random(3, 3, 40, 48)
    function, _ = trace(SAME, [TensorType((batch, 14, 14, 40), F32), TensorType(w.shape, F32)])
    executable = compile_function(function, fast_convolution=True)
    x = random(9, 14, 14, 40)
    (whole,) = executable(x, w)
    made = KERNELS.statistics.compiled
    for count in (0, 1, 2, 5):
        (some,) = executable(x[:count], w)
        assert some.shape == (count, 14, 14, 48)
        assert some.tobytes() == whole[:count].tobytes()
    (last,) = executable(x[4:], w)
    assert last.tobytes() == whole[4:].tobytes()
    assert KERNELS.statistics.compiled == made


def test_no_images():
    x, w = random(0, 8, 8, 32), random(3, 3, 32, 32)
    (found,) = fast(SAME, x, w)(x, w)
    assert found.shape == (0, 8, 8, 32)


PROGRAM = """
import hashlib
import numpy as np
from tfn.compiler import nn
from tfn.compiler.compile import compile_function
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dtypes import F32
from tfn.compiler.trace.core import trace
from tfn.compiler.trace.grad import vjp

def program(x, w):
    y, back = vjp(lambda x, w: nn.conv(x, w, padding="same"), x, w)
    return [y, back(y)[0]]

rng = np.random.default_rng(0)
for shapes in [((5, 30, 30, 40), (3, 3, 40, 72)), ((2, 14, 14, 256), (3, 3, 256, 256))]:
    arrays = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    function, _ = trace(program, [TensorType(s, F32) for s in shapes])
    for result in compile_function(function, fast_convolution=True)(*arrays):
        print(hashlib.sha256(result.tobytes()).hexdigest())
"""


def test_threads_do_not_change_a_bit():
    found = [subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True,
                            env=os.environ | {"TFN_NUM_THREADS": count}).stdout
             for count in ("1", "2")]
    assert found[0] and found[0] == found[1]


# -- what is not finite ----------------------------------------------------------------------------

@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_in_tiles_that_read_it(value):
    x, w = random(2, 12, 12, 32), random(3, 3, 32, 32)
    executable = fast(SAME, x, w)
    (clean,) = executable(x, w)
    bad = x.copy()
    bad[1, 4, 9, 5] = value
    (found,) = executable(bad, w)
    reads = np.zeros((2, 12, 12), bool)
    # Tiles of 4 results read from one pixel before to one after them.
    reads[1, 0:8, 8:12] = True
    assert (found == clean).all(-1)[~reads].all()
    direct = ~np.isfinite(compile_function(traced(SAME, x, w))(bad, w)[0])
    assert (~np.isfinite(found))[direct].all()


def test_a_kernel_that_is_not_finite():
    x, w = random(2, 12, 12, 32), random(3, 3, 32, 32)
    w[1, 1, 3, 7] = np.nan
    (found,) = fast(SAME, x, w)(x, w)
    assert np.isnan(found[..., 7]).all()
    assert np.isfinite(np.delete(found, 7, -1)).all()


# -- who asks for it -------------------------------------------------------------------------------

def test_only_programs_that_ask(monkeypatch):
    monkeypatch.delenv("TFN_FAST_CONVOLUTION", raising=False)
    x, w = random(2, 14, 14, 32), random(3, 3, 32, 32)
    function = traced(SAME, x, w)

    def ops(**options):
        return inside(compile_function(function, **options).function)

    winograd, direct = ["tfn.winograd", "tfn.winograd_kernel"], ["stablehlo.convolution"]
    assert ops() == ops(fast_convolution=False) == direct
    assert ops(fast_convolution=True) == winograd
    monkeypatch.setenv("TFN_FAST_CONVOLUTION", "1")
    assert ops() == winograd
    assert ops(fast_convolution=False) == direct
    monkeypatch.setenv("TFN_FAST_CONVOLUTION", "0")
    assert ops() == direct
    assert ops(fast_convolution=True) == winograd
    monkeypatch.setenv("TFN_FAST_CONVOLUTION", "yes")
    with pytest.raises(CompileError, match="TFN_FAST_CONVOLUTION is 'yes': set it to 1 or to 0"):
        ops()


def test_jit(monkeypatch):
    monkeypatch.delenv("TFN_FAST_CONVOLUTION", raising=False)
    x, w = random(2, 14, 14, 32), random(3, 3, 32, 32)

    def same(x, w):
        return nn.conv(x, w, padding="same")

    exact, quick = tfn.jit(same), tfn.jit(same, fast_convolution=True)
    decorated = tfn.jit(fast_convolution=True)(same)
    a, b, c = (np.asarray(f(x, w)) for f in (exact, quick, decorated))
    assert a.tobytes() != b.tobytes() == c.tobytes()
    np.testing.assert_allclose(a, b, atol=TOLERANCE * np.abs(a).max())
    with pytest.raises(TraceError, match="a compiler or a fast_convolution, not both"):
        tfn.jit(same, fast_convolution=True, compiler=compile_function)
    both = tfn.jit(same, fast_convolution=True, memory_budget=10_000_000)
    assert np.asarray(both(x, w)).tobytes() == b.tobytes()


def test_plans_on_disk_are_kept_apart(tmp_path, monkeypatch):
    monkeypatch.setenv("TFN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(stored, "_WORTHWHILE", 1)
    x, w = random(2, 14, 14, 32), random(3, 3, 32, 32)
    function, found = traced(SAME, x, w), []
    for quick in (False, True, False, True):
        before = KERNELS.statistics.planned
        found.append(compile_function(function, fast_convolution=quick)(x, w)[0].tobytes())
        assert KERNELS.statistics.planned - before == (len(found) > 2)
    assert found[0] == found[2] != found[1] == found[3]


@pytest.mark.parametrize(("precision", "exact"), [
    (None, False), (("DEFAULT", "DEFAULT"), False), (("HIGH", "HIGH"), True),
    (("HIGHEST", "HIGHEST"), True), (("DEFAULT", "HIGHEST"), True)])
def test_precision_of_the_program_comes_first(precision, exact):
    numbers = ConvDimensionNumbers(0, 3, (1, 2), 2, 3, (0, 1), 0, 3, (1, 2))

    def program(x, w):
        options = {} if precision is None else {"precision_config": precision}
        y, back = vjp(lambda x, w: bind(
            "stablehlo.convolution", x, w, padding=((1, 1), (1, 1)), dimension_numbers=numbers,
            feature_group_count=1, batch_group_count=1, **options), x, w)
        return [y, back(y)[0]]

    x, w = random(2, 14, 14, 32), random(3, 3, 32, 32)
    names = set(inside(fast(program, x, w).function))
    assert names == ({"stablehlo.convolution"} if exact else {"tfn.winograd", "tfn.winograd_kernel"})


@pytest.mark.parametrize(("image", "kernel", "options"), [
    ((2, 14, 14, 32), (5, 5, 32, 32), {}), ((2, 14, 14, 32), (3, 2, 32, 32), {}),
    ((2, 14, 14, 32), (3, 3, 32, 32), {"strides": 2}),
    ((2, 14, 14, 32), (3, 3, 32, 32), {"dilation": 2}),
    ((2, 14, 14, 64), (3, 3, 32, 64), {}), ((2, 14, 14, 16), (3, 3, 16, 32), {}),
    ((2, 14, 14, 32), (3, 3, 32, 16), {}), ((9, 2, 2, 32), (3, 3, 32, 32), {}),
    ((1, 7, 7, 64), (3, 3, 64, 64), {}), ((2, 14, 32), (3, 32, 32), {})])
def test_other_convolutions_stay_direct(image, kernel, options):
    x, w = random(*image), random(*kernel)
    executable = fast(convolution(padding="same", **options), x, w)
    assert inside(executable.function) == ["stablehlo.convolution"]


def test_f64_stays_direct():
    function = traced(SAME, random(2, 14, 14, 32), random(3, 3, 32, 32), dtype=F64)
    assert inside(compile_function(function, fast_convolution=True).function) == [
        "stablehlo.convolution"]


# -- the kernel at the points ----------------------------------------------------------------------

def test_a_constant_kernel_is_at_the_points_before_the_program_runs():
    x, w = random(1, 7, 7, 64), random(3, 3, 64, 64)

    def program(x):
        return [nn.conv(x, w, padding="same")]

    executable = fast(program, x)
    assert inside(executable.function) == ["tfn.winograd"]
    (found,), (right,) = executable(x), evaluate(
        traced(SAME, x, w, dtype=F64), [x.astype("f8"), w.astype("f8")])
    assert np.abs(found - right).max() <= TOLERANCE * np.abs(right).max()


def test_two_convolutions_share_a_kernel():
    x, y, w = random(2, 14, 14, 32), random(2, 14, 14, 32), random(3, 3, 32, 32)

    def program(x, y, w):
        return [*SAME(x, w), *SAME(y, w)]

    assert inside(fast(program, x, y, w).function) == ["tfn.winograd", "tfn.winograd",
                                                       "tfn.winograd_kernel"]


def test_a_loop_brings_a_kernel_to_the_points_once():
    x, w = random(2, 14, 14, 32), random(3, 3, 32, 32) / 20

    def program(x, w):
        return [tfn.fori_loop(0, 3, lambda i, y: nn.conv(y, w, padding="same"), x)]

    executable = fast(program, x, w)
    assert "tfn.winograd_kernel" in inside(executable.function)
    (loop,) = (op for op in executable.function.ops if op.name == "stablehlo.while")
    assert [op.name for kernel in loop.regions[1].ops for region in kernel.regions
            for op in region.ops if "winograd" in op.name] == ["tfn.winograd"]
    (found,), (right,) = executable(x, w), compile_function(traced(program, x, w))(x, w)
    np.testing.assert_allclose(found, right, atol=3 * TOLERANCE * np.abs(right).max())
