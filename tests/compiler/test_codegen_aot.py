"""Objects compiled ahead of time: linked into this process and called through their C signature."""

import ctypes

import numpy as np
import pytest

import tfn.compiler.numpy as tnp
from tfn.compiler.codegen.aot import emit_object, freeze
from tfn.compiler.codegen.native import Loader
from tfn.compiler.codegen.target import Target
from tfn.compiler.errors import UnsupportedError
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dims import Dim
from tfn.compiler.ir.dtypes import F32
from tfn.compiler.trace.core import bind, trace, trace_region

RNG = np.random.default_rng(5)
BATCH = Dim.named("batch")
LOADER = Loader()


def call(compiled, symbol, sizes, arguments, results):
    """Call an entry with 64-byte aligned scratch memory."""
    entry = compiled.entries[symbol]
    address = LOADER.load(symbol, compiled.image)
    size = entry.arena_bytes
    size = size if isinstance(size, int) else size.evaluate(sizes)
    arena = np.zeros(size + 64, np.uint8)
    start = arena.ctypes.data + -arena.ctypes.data % 64
    dims = np.array([sizes[d] for d in entry.dims] or [0], np.int64)
    pointers = [np.array([a.ctypes.data for a in group] or [0], np.uint64)
                for group in (arguments, results)]
    function = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 4)(address)
    function(dims.ctypes.data, pointers[0].ctypes.data, pointers[1].ctypes.data, start)


def test_a_model_with_weights_inside_runs_for_any_batch_size():
    w = RNG.normal(size=(6, 4)).astype(np.float32)
    function, _ = trace(lambda w, x: [tnp.tanh(x @ w)],
                        [TensorType((6, 4), F32), TensorType((BATCH, 6), F32)], "dense")
    compiled = emit_object({"dense_any": freeze(function, {0: w})}, Target.host())
    for batch in (1, 5):
        x = RNG.normal(size=(batch, 6)).astype(np.float32)
        y = np.zeros((batch, 4), np.float32)
        call(compiled, "dense_any", {"batch": batch}, [x], [y])
        np.testing.assert_allclose(y, np.tanh(x @ w), rtol=1e-5)


def test_loops_become_branches():
    def program(x):
        state = [TensorType((), tnp.asarray(np.int32(0)).type.dtype), TensorType((3,), F32)]
        return [bind("stablehlo.while", np.int32(0), x, regions=[
            trace_region(lambda i, t: [i < np.int32(5)], state),
            trace_region(lambda i, t: [i + np.int32(1), t * 2.0], state)])[1]]

    function, _ = trace(program, [TensorType((3,), F32)], "loop")
    compiled = emit_object({"doubled": function}, Target.host())
    x, y = np.arange(3, dtype=np.float32), np.zeros(3, np.float32)
    call(compiled, "doubled", {}, [x], [y])
    np.testing.assert_array_equal(y, x * 32)


@pytest.mark.parametrize("name", ["x86-64", "x86-64-v3", "aarch64", "riscv64-unknown-linux-gnu",
                                  "wasm32-unknown-unknown"])
def test_other_targets_compile_in_a_child_process(name):
    function, _ = trace(lambda x: [tnp.exp(x) @ x], [TensorType((8, 8), F32)])
    compiled = emit_object({"f": function}, Target.named(name))
    assert compiled.image[:4] in (b"\x7fELF", b"\0asm")


def test_an_unknown_target_is_named_with_the_known_ones():
    with pytest.raises(UnsupportedError, match=r"no target `pdp11`.*aarch64"):
        Target.named("pdp11")
