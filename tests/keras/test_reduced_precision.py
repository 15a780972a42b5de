"""Mixed precision, quantization and LoRA of Keras: on tfn against JAX, and the kernels they run in."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from tfn.compiler.codegen.target import Target
from tfn.compiler.compile import run_passes
from tfn.compiler.ir.core import TensorType
from tfn.compiler.ir.dtypes import F32
from tfn.compiler.trace.core import trace

CASES = Path(__file__).with_name("reduced_cases.py")
TOLERANCES = {
    # Sums are rounded to 8 bits of mantissa, in any order.
    "mixed_bfloat16": 2**-7, "mixed_bfloat16_images": 2**-7,
    # To 11 bits.
    "mixed_float16": 2**-10, "mixed_float16_default": 2**-10,
    # f32 between quantizations that agree; a number at a boundary may go either way.
    "float8": 1e-3, "int8": 1e-3, "int4": 1e-3, "gptq": 1e-3, "awq": 1e-3,
    "lora": 1e-5, "lora_int8": 1e-3, "lora_int4": 1e-3, "lora_embedding": 1e-5,
}
"""Of every result, relative to its largest number."""
QUICK = ["mixed_bfloat16", "mixed_float16", "float8", "int8", "int4", "lora_int8"]
"""What is compared with JAX here. It takes half a minute to compile the others, GPTQ and AWQ above all;
they agree as well when the list names them."""
LOADED_LORA = {"lora_int8", "lora_int4"}
"""Keras quantizes anew what it merges when it saves, so that predictions change a little."""


@pytest.fixture(scope="session")
def here(tmp_path_factory):
    """What the cases give on tfn."""
    return results("tfn", sys.executable, tmp_path_factory.mktemp("tfn"), TOLERANCES)


@pytest.fixture(scope="session")
def there(tmp_path_factory, jax_python):
    """What they give on JAX."""
    return results("jax", jax_python, tmp_path_factory.mktemp("jax"), QUICK)


def results(backend, python, folder, names):
    subprocess.run([python, "-P", CASES, backend, folder, *names], check=True, capture_output=True)
    with np.load(folder / f"{backend}.npz") as data:
        return dict(data)


def of_case(results, name):
    """Results of a case by name; what it raised is a failure."""
    found = {key.partition(".")[2]: value for key, value in results.items()
             if key.partition(".")[0] == name}
    assert "failed" not in found, found["failed"]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", TOLERANCES)
def test_a_case_alone(name, here):
    found = of_case(here, name)
    if "reloaded" in found and name not in LOADED_LORA:
        assert found["reloaded"] == 0
    assert found.get("scaled", 1) == 1
    if name.startswith("mixed_float16") and "scales" in found:
        # Two steps, one that overflows (and halves the scale), three that double it again.
        np.testing.assert_array_equal(found["scales"], [4096, 2048, 2048, 2048, 4096])
        assert (found["skipped"], found["moved"], found["iterations"]) == (1, 0, 5)
    if "near" in found:
        assert found["near"] == 1
    if "frozen" in found:
        assert found["frozen"] == 1
    if "losses" in found and name != "mixed_float16":
        assert found["losses"][-1] < found["losses"][0]


@pytest.mark.slow
@pytest.mark.outside("jax")
@pytest.mark.parametrize("name", QUICK)
def test_a_case_is_that_of_jax(name, here, there):
    found, expected = of_case(here, name), of_case(there, name)
    assert found.keys() == expected.keys()
    for key in found:
        bound = TOLERANCES[name] * max(1e-30, np.abs(expected[key]).max())
        np.testing.assert_allclose(found[key], expected[key], rtol=0, atol=bound, err_msg=key)


@pytest.mark.parametrize("kind, expected", [
    ({"dtype": "mixed_bfloat16"}, ("bf16", "bf16", "bf16")),
    ({"dtype": "mixed_float16"}, ("f16", "f16", "f16")), ({"quantize": "int8"}, ("i8", "i8", "i32"))])
def test_products_have_the_types_of_the_policy(kind, expected):
    """They reach the code generator unwidened, which has kernels for them (test_codegen_gemm)."""
    layer = layers.Dense(64, dtype=kind.get("dtype"))
    layer.build((None, 32))
    if "quantize" in kind:
        layer.quantize(kind["quantize"])
    function, _ = trace(lambda x: [layer(x)], [TensorType((16, 32), F32)])
    products = [op for op in run_passes(function, Target.host()).body.walk()
                if op.name == "stablehlo.dot_general"]
    assert [tuple(v.dtype.name for v in (*op.operands, op.result)) for op in products] == [expected]


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="int7"):
        keras.Sequential([keras.Input((4,)), layers.Dense(2)]).quantize("int7")
