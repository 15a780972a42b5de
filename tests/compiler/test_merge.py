"""Kernels that read the same numbers become one, with the results of the evaluator."""

import numpy as np
import pytest

from tfn.compiler import nn
from tfn.compiler import numpy as tnp
from tfn.compiler.codegen.target import Target
from tfn.compiler.compile import compile_function, run_passes
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dtypes import as_dtype
from tfn.compiler.ir.evaluator import evaluate
from tfn.compiler.passes.inline import inline
from tfn.compiler.trace.core import trace
from tfn.compiler.trace.grad import vjp


def _gradient(function, count):
    def gradient(*arguments):
        _, back = vjp(function, *arguments[:count])
        return back(arguments[count])
    return gradient


def _normalised(x, scale, offset):
    mean, variance = nn.moments(x, (0,))
    return nn.batch_normalization(x, mean, variance, -1, offset, scale)


def _several(x, y):
    total = x * y
    return tnp.exp(total - tnp.max(total, -1, keepdims=True)), total + 1, tnp.sum(total, -1)


PROGRAMS = {
    "softmax": (nn.softmax, "x", 1),
    "log softmax": (nn.log_softmax, "x", 1),
    "gradient of softmax": (_gradient(nn.softmax, 1), "xx", 1),
    "gradient of log softmax": (_gradient(nn.log_softmax, 1), "xx", 1),
    "layer": (nn.layer_normalization, "xcc", 1),
    "gradient of layer": (_gradient(nn.layer_normalization, 3), "xccx", 2),
    "rms": (nn.rms_normalization, "xc", 1),
    "gradient of rms": (_gradient(nn.rms_normalization, 2), "xcx", 2),
    "batch": (_normalised, "xcc", 7),
    "gradient of batch": (_gradient(_normalised, 3), "xccx", 14),
    "a computed row": (_several, "xx", 1),
    "sums of columns": (lambda x, y: (tnp.sum(x, 0), tnp.sum(x * y, 0)), "xx", 1),
    "a row that is a mean": (lambda x, y: x - tnp.mean(x + y, -1, keepdims=True), "xx", 1),
}


def _traced(name, shape, dtype="f4"):
    function, kinds, most = PROGRAMS[name]
    rng = np.random.default_rng(3)
    arrays = [(3 * rng.standard_normal(shape if k == "x" else shape[-1:])).astype(dtype)
              for k in kinds]
    types = [TensorType(a.shape, as_dtype(a.dtype)) for a in arrays]

    def flat(*arguments):
        results = function(*arguments)
        return list(results) if isinstance(results, (tuple, list)) else [results]

    return trace(flat, types)[0], arrays, most


@pytest.mark.parametrize("name", PROGRAMS)
def test_kernels(name):
    traced, _, most = _traced(name, (40, 96))
    fused = run_passes(traced, Target.host())
    assert sum(op.name == "tfn.kernel" for op in fused.ops) <= most


SHAPES = [(40, 96), (3, 5, 33), (1, 700), (70, 3), (600, 40)]


@pytest.mark.parametrize(("name", "shape"), [
    (name, shape) for name in PROGRAMS for shape in SHAPES
    if "batch" not in name or (len(shape) == 2 and shape[0] > 1)])
def test_results(name, shape):
    traced, arrays, _ = _traced(name, shape)
    wide = [a.astype("f8") for a in arrays]
    exact = evaluate(inline(_traced(name, shape, "f8")[0]), wide)
    found = compile_function(traced)(*arrays)
    for a, b in zip(found, exact, strict=True):
        scale = np.abs(b).max() if b.dtype.kind == "f" else 0
        np.testing.assert_allclose(a, b, rtol=3e-5, atol=3e-5 * scale + 1e-6)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("name", ["softmax", "log softmax", "layer", "rms", "a computed row"])
def test_not_finite(name, value):
    traced, arrays, _ = _traced(name, (4, 64))
    arrays[0][1, 5] = value
    arrays[0][2, :] = value
    with np.errstate(all="ignore"):
        expected = evaluate(inline(traced), arrays)
        found = compile_function(traced)(*arrays)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_what_lies_between_stays_between():
    """The sum waits for a product that waits for the exponentials: they cannot be one kernel."""
    def between(x, w):
        grown = tnp.exp(x)
        return tnp.sum(grown * (grown @ w), -1), grown

    types = [TensorType((64, 64), as_dtype("f4"))] * 2
    traced = trace(lambda *a: list(between(*a)), types)[0]
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((64, 64)).astype("f4") for _ in types]
    grown = np.exp(arrays[0].astype("f8"))
    found = compile_function(traced)(*arrays)
    np.testing.assert_allclose(found[0], (grown * (grown @ arrays[1])).sum(-1), rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(found[1], grown, rtol=1e-6)
