"""Kernels of repeated blocks are emitted once, and only those that are the same."""

import numpy as np
import pytest

import tfn
from tfn.compiler import numpy as tnp
from tfn.compiler.codegen.same import Emitted
from tfn.compiler.codegen.target import Target
from tfn.compiler.compile import run_passes
from tfn.compiler.trace.core import Array, trace

X = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)


def kernels(function, *arrays):
    traced, _ = trace(function, [Array(a).type for a in arrays])
    host = Target.host()
    emitted = Emitted(host)
    ops = [op for op in run_passes(traced, host).ops if op.name == "tfn.kernel"]
    return [emitted.kernel(op) for op in ops]


def test_repeated_blocks_share_a_kernel():
    def blocks(x, w):
        for _ in range(3):
            x = tnp.tanh(x @ w)
        return [x]

    found = kernels(blocks, X[:, :3].copy(), np.eye(3, dtype=np.float32))
    assert len(found) == 3 and found[0] is found[1] is found[2]


@pytest.mark.parametrize("first, second", [
    (lambda x: tnp.max(x * 2.0, axis=0), lambda x: tnp.max(x * 3.0, axis=0)),
    (lambda x: tnp.max(x, axis=0), lambda x: tnp.min(x, axis=0)),
    (lambda x: x * 0.0, lambda x: x * -0.0),
    (lambda x: x[:, 1:], lambda x: x[:, :3]),
], ids=["constant", "region", "sign of zero", "attribute"])
def test_what_differs_in_one_thing_is_not_shared(first, second):
    found = kernels(lambda x, y: [first(x), second(y)], X, X)
    assert len(found) == 2 and found[0] is not found[1]
    results = tfn.jit(lambda x, y: (first(x), second(y)))(X, X)
    for result, function in zip(results, (first, second), strict=True):
        want = np.asarray(function(X))
        np.testing.assert_array_equal(np.asarray(result), want)
        np.testing.assert_array_equal(np.signbit(np.asarray(result)), np.signbit(want))
