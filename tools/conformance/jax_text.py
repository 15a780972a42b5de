"""JAX's parser and XLA on StableHLO texts: run by the Python that has JAX, it knows nothing of tfn.

`PYTHON -P jax_text.py parse` reads paths from standard input, a line each, and prints a line of JSON
per file: why JAX's parser or verifier refuses it, or null. `PYTHON -P jax_text.py run TEXT IN OUT` runs
`main` of a text on the arrays of an .npz file, made 64 bits wide where the program asks for it.
(`-P`: the `jax.py` beside this file is not JAX.)
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax._src.interpreters import mlir
from jax._src.lib import xla_client
from jax._src.lib.mlir import ir


def parse() -> None:
    """The verdict on each file."""
    with mlir.make_ir_context() as context:
        context.allow_unregistered_dialects = False
        for line in sys.stdin:
            refusal = None
            try:
                ir.Module.parse(Path(line.strip()).read_text()).operation.verify()
            except Exception as error:
                refusal = str(error)
            print(json.dumps(refusal), flush=True)


def run(text: str, inputs: str, outputs: str) -> None:
    """Compile and run a program in which numbers may have 64 bits."""
    jax.config.update("jax_enable_x64", True)
    # A program may call LAPACK, which JAX loads when it lowers the first such call: else it crashes.
    jax.numpy.linalg.cholesky(np.eye(1))
    device = jax.devices("cpu")[0]
    with mlir.make_ir_context():
        module = ir.Module.parse(Path(text).read_text())
        (entry,) = (op for op in module.body
                    if ir.StringAttr(op.attributes["sym_name"]).value == "main")
        types = ir.FunctionType(ir.TypeAttr(entry.attributes["function_type"]).value).inputs
        wide = [str(ir.RankedTensorType(t).element_type) in ("f64", "complex<f64>") for t in types]
        code = mlir.module_to_bytecode(module)
    program: Any = device.client.compile_and_load(
        code, xla_client.DeviceList((device,)), xla_client.CompileOptions())
    with np.load(inputs) as data:
        arrays = [data[name] for name in data.files]
    arrays = [a.astype("c16" if a.dtype.kind == "c" else "f8") if w else a
              for a, w in zip(arrays, wide, strict=True)]
    results = program.execute_sharded([jax.device_put(a, device) for a in arrays])
    np.savez(outputs, *[np.asarray(r[0]) for r in results.disassemble_into_single_device_arrays()])


if __name__ == "__main__":
    {"parse": parse, "run": run}[sys.argv[1]](*sys.argv[2:])
