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
