"""Fixtures of the compiler's tests."""

import numpy as np
import pytest

import tfn.compiler.numpy  # noqa: F401  (arrays get their operators)
from tfn.compiler.compile import compile_function
from tfn.compiler.ir.evaluator import evaluate
from tfn.compiler.trace.core import as_array, trace


def _run_eagerly(function, *arrays):
    return function(*[as_array(a) for a in arrays])


def _run_traced(function, *arrays, run=evaluate):
    """Trace the function on abstract arguments, then evaluate the recorded program."""
    inputs = [as_array(a) for a in arrays]
    single = []

    def flat(*tracers):
        result = function(*tracers)
        single.append(not isinstance(result, (list, tuple)))
        return [result] if single[-1] else list(result)

    program, _ = trace(flat, [i.type for i in inputs])
    results = run(program, inputs)
    return results[0] if single[-1] else results


def _run_compiled(function, *arrays):
    """Trace the function, then compile and run the program."""
    return _run_traced(function, *arrays, run=_compile_and_run)


def _compile_and_run(program, inputs):
    return compile_function(program)(*[np.asarray(i) for i in inputs])


_ENGINES = {"eager": _run_eagerly, "traced": _run_traced, "compiled": _run_compiled}


@pytest.fixture(params=list(_ENGINES))
def engine(request):
    """`engine(function, *arrays)`: the result as NumPy arrays, by each way of computing it."""
    run = _ENGINES[request.param]

    def call(function, *arrays):
        result = run(function, *arrays)
        if isinstance(result, (list, tuple)):
            return [np.asarray(r) for r in result]
        return np.asarray(result)

    return call


@pytest.fixture
def agree():
    """`agree(function, *arrays)`: compiled code gives the evaluator's results, NaN and the signs of
    zeros included; sums may differ by `tolerance`. Returns them."""

    def call(function, *arrays, tolerance=0.0):
        program, _ = trace(function, [as_array(a).type for a in arrays])
        found = compile_function(program)(*arrays)
        with np.errstate(all="ignore"):
            expected = evaluate(program, arrays)
        for a, b in zip(found, expected, strict=True):
            assert a.dtype == b.dtype
            assert a.shape == b.shape
            if a.dtype.kind in "biu":
                np.testing.assert_array_equal(a, b)
                continue
            a, b = (x.astype(np.complex128 if x.dtype.kind == "c" else np.float64) for x in (a, b))
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
            if tolerance == 0.0 and a.dtype.kind != "c":
                numbers = ~np.isnan(a)
                np.testing.assert_array_equal(np.signbit(a[numbers]), np.signbit(b[numbers]))
        return found

    return call
