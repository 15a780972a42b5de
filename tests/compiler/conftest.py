"""Fixtures of the compiler's tests."""

import numpy as np
import pytest

import tfn.compiler.numpy  # noqa: F401  (arrays get their operators)
from tfn.compiler.ir.evaluator import evaluate
from tfn.compiler.trace.core import as_array, trace


def _run_eagerly(function, *arrays):
    return function(*[as_array(a) for a in arrays])


def _run_traced(function, *arrays):
    """Trace the function on abstract arguments, then evaluate the recorded program."""
    inputs = [as_array(a) for a in arrays]
    single = []

    def flat(*tracers):
        result = function(*tracers)
        single.append(not isinstance(result, (list, tuple)))
        return [result] if single[-1] else list(result)

    program, _ = trace(flat, [i.type for i in inputs])
    results = evaluate(program, inputs)
    return results[0] if single[-1] else results


@pytest.fixture(params=["eager", "traced"])
def engine(request):
    """`engine(function, *arrays)`: the result as NumPy arrays, computed eagerly or by a trace."""
    run = {"eager": _run_eagerly, "traced": _run_traced}[request.param]

    def call(function, *arrays):
        result = run(function, *arrays)
        if isinstance(result, (list, tuple)):
            return [np.asarray(r) for r in result]
        return np.asarray(result)

    return call
