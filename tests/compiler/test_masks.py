"""Masks: comparisons of activations give what comparisons of their operands give, and spare those."""

import numpy as np
import pytest

import tfn.compiler.numpy as tnp
from tfn.compiler.codegen.target import Target
from tfn.compiler.compile import Executable, run_passes
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dtypes import BF16, F32, I32, DType
from tfn.compiler.ir.evaluator import evaluate
from tfn.compiler.ir.verify import verify
from tfn.compiler.passes.masks import masks
from tfn.compiler.runtime.plan import make_plan
from tfn.compiler.trace.core import bind, trace

NUMBERS = [0.0, -0.0, 1.0, -1.0, 0.5, 6.0, 7.0, np.inf, -np.inf, np.nan, 1e-40, -1e-40]


def redirected(program, dtype: DType) -> bool:
    """Does a comparison read something else afterwards? Compared with the evaluator."""
    x = np.array(NUMBERS if dtype.is_float else [0, 1, -1, 6, 7, 2**31 - 1, -2**31]).astype(dtype.numpy)
    function, _ = trace(program, [TensorType(x.shape, dtype)])
    found = masks(function)
    verify(found)
    for a, b in zip(evaluate(function, [x]), evaluate(found, [x]), strict=True):
        np.testing.assert_array_equal(a.astype(np.float64), b.astype(np.float64))
    return found is not function


def compare(direction, x, number, **attributes):
    return bind("stablehlo.compare", x, tnp.full(x.shape, number, x.dtype),
                comparison_direction=direction, **attributes)


@pytest.mark.parametrize("dtype", [F32, BF16, I32], ids=str)
@pytest.mark.parametrize("number", [0, -0.0, 1, 6])
@pytest.mark.parametrize("direction", ["GT", "GE", "LT", "LE", "EQ", "NE"])
@pytest.mark.parametrize("activation", ["maximum", "minimum"])
def test_every_comparison(activation, direction, number, dtype):
    def program(x):
        bound = tnp.full(x.shape, number, x.dtype)
        return [bind(f"stablehlo.{activation}", x, bound), compare(direction, x, number)]

    assert redirected(program, dtype) == (
        (activation, direction) in {("maximum", "GT"), ("maximum", "LE"), ("minimum", "LT"),
                                    ("minimum", "GE")})


OTHER = {
    "another number": lambda x: [tnp.maximum(x, 1.0), compare("GT", x, 0)],
    "the total order": lambda x: [tnp.maximum(x, 0.0), compare("GT", x, 0, compare_type="TOTALORDER")],
    "of another value": lambda x: [tnp.maximum(-x, 0.0), compare("GT", x, 0)],
    "the activation comes later": lambda x: [compare("GT", x, 0), tnp.maximum(x, 0.0)],
    "not one number": lambda x: [tnp.maximum(x, x[::-1]), x > x[::-1]],
}


@pytest.mark.parametrize("program", OTHER.values(), ids=OTHER)
def test_what_stays(program):
    assert not redirected(program, F32)


def test_the_sum_of_a_residual_block_is_not_kept():
    """Of each block, the derivative needs the product's operand and where it is positive."""
    side = 64

    def program(x, w):
        kept = []
        for _ in range(4):
            total = x @ w + x
            kept.append((x, total))
            x = tnp.maximum(total, 0.0)
        ct = tnp.ones_like(x)
        for before, total in reversed(kept):
            ct = tnp.where(total > 0, ct, 0.0)
            ct = ct @ w.T + ct * before
        return [ct]

    host = Target.host()
    function, _ = trace(program, [TensorType((side, side), F32)] * 2)
    arrays = [np.random.default_rng(i).standard_normal((side, side)).astype(np.float32) * 0.1
              for i in range(2)]
    executable = Executable(fused := run_passes(function, host), make_plan(fused, host, 2))
    np.testing.assert_allclose(executable(*arrays)[0], evaluate(function, arrays)[0], rtol=1e-4,
                               atol=1e-5)
    for op in fused.ops:
        if op.name == "tfn.kernel" and any(o.name == "stablehlo.maximum" for o in op.regions[0].ops):
            assert len(op.results) == 1
