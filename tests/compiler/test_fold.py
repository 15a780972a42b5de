"""Constant folding: small results, and weights that take no more room than before."""

import numpy as np
import pytest

import tfn.compiler.numpy as tnp
from tfn.compiler.codegen.target import Target
from tfn.compiler.compile import compile_function, run_passes
from tfn.compiler.ir.core import Block, Function, Op, TensorType
from tfn.compiler.ir.dtypes import F32, F64
from tfn.compiler.ir.evaluator import evaluate
from tfn.compiler.ir.rewrite import clone_op
from tfn.compiler.ir.structs import ConvDimensionNumbers
from tfn.compiler.ops.declare import definition
from tfn.compiler.passes.fold import MAX_BYTES, fold
from tfn.compiler.trace.core import bind, trace

rng = np.random.default_rng(2)
LARGE = rng.standard_normal((200, 300)).astype(np.float32)
SMALL = rng.standard_normal((3, 4)).astype(np.float32)
assert LARGE.nbytes > MAX_BYTES


REPEATED = np.broadcast_to(np.float32(1), (300, 200))
"""One number in memory."""


CASES = {
    "a large transpose": (True, lambda large, small, one: tnp.transpose(large)),
    "large rows": (True, lambda large, small, one: large[:150]),
    "a large sum": (True, lambda large, small, one: large + large),
    "a large conversion": (True, lambda large, small, one: large.astype("bfloat16")),
    "a larger conversion": (False, lambda large, small, one: large.astype("float64")),
    "a repetition": (False, lambda large, small, one: tnp.broadcast_to(small[:, None], (3, 9000, 4))),
    "a large product": (False, lambda large, small, one: large @ large.T),
    "a small product": (True, lambda large, small, one: small @ small.T),
    "a small repetition": (False, lambda large, small, one: tnp.broadcast_to(
        small[:, None], (3, 9, 4))),
    "what is made of one": (True, lambda large, small, one: tnp.sin(
        tnp.broadcast_to(small[:, None], (3, 99, 4)))),
    "a large one's": (False, lambda large, small, one: tnp.sin(
        tnp.broadcast_to(small[:, None], (3, 9000, 4)))),
    "one number": (False, lambda large, small, one: tnp.transpose(one)),
}


@pytest.mark.parametrize(("is_constant", "program"), CASES.values(), ids=CASES)
def test_what_is_folded(is_constant, program):
    values = (LARGE, SMALL, REPEATED)
    function, _ = trace(lambda *arrays: [program(*arrays)], [TensorType(v.shape, F32) for v in values])
    constants = [Op(definition("stablehlo.constant"), [], [a.type], {"value": v})
                 for a, v in zip(function.arguments, values, strict=True)]
    known = {a: c.result for a, c in zip(function.arguments, constants, strict=True)}
    block = Block()
    block.ops = [*constants, *(clone_op(op, known) for op in function.ops)]
    block.returns = [known[v] for v in function.returns]
    whole = Function("main", block)
    short = fold(whole)
    np.testing.assert_array_equal(evaluate(whole, [])[0], evaluate(short, [])[0])
    assert (short.returns[0].op.name == "stablehlo.constant") == is_constant


def test_weights_of_a_compiled_function_are_brought_into_order_once():
    """Kernels with output features first, as other frameworks have them, for sums of another type:
    others are packed from any order."""
    kernel = rng.standard_normal((64, 32, 3, 3)).astype(F32.numpy)
    numbers = ConvDimensionNumbers(0, 3, (1, 2), 1, 0, (2, 3), 0, 3, (1, 2))

    def program(x):
        return [bind("stablehlo.convolution", x, tnp.asarray(kernel), dimension_numbers=numbers,
                     window_strides=(1, 1), padding=((1, 1), (1, 1)), lhs_dilation=(1, 1),
                     rhs_dilation=(1, 1), feature_group_count=1, batch_group_count=1, dtype=F64)]

    function, _ = trace(program, [TensorType((2, 8, 8, 32), F32)])
    before, after = ([op.result.type for op in run_passes(function, Target.host(), until=until).ops
                      if op.name == "stablehlo.transpose" and op.operands[0].op is not None]
                     for until in ("simplify2", "dce"))
    assert TensorType((3, 3, 32, 64), F32) in before
    assert TensorType((3, 3, 32, 64), F32) not in after
    x = rng.standard_normal((2, 8, 8, 32)).astype(F32.numpy)
    found, wanted = compile_function(function)(x)[0], evaluate(function, [x])[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)
