"""Values and gradients of `tfn.numpy.linalg` against `jax.numpy.linalg`: the same expressions in both,
JAX's in one child process. Factors are compared where their signs and phases do not matter."""

from __future__ import annotations

import io
import json
import subprocess
from base64 import b64decode

import numpy as np
import pytest

import tfn.compiler.numpy as tnp
from tfn.compiler.trace.grad import grad
from tfn.compiler.trace.jit import jit

CASES = {
    "cholesky": ("linalg.cholesky(a @ h(a) + eye)", "square"),
    "inv": ("linalg.inv(a + 3 * eye)", "square"),
    "det": ("linalg.det(a)", "square"),
    "slogdet": ("linalg.slogdet(a).logabsdet", "square"),
    "solve": ("linalg.solve(a + 3 * eye, a[..., :2])", "square"),
    "matrix_power": ("linalg.matrix_power(a, 3)", "square"),
    "inverse power": ("linalg.matrix_power(a + 3 * eye, -2)", "square"),
    "eigvalsh": ("linalg.eigvalsh(a + h(a))", "square"),
    "eigh": ("(lambda w, v: (v * np.exp(w / 4)[..., None, :]) @ h(v))(*linalg.eigh(a + h(a)))",
             "square"),
    "svdvals": ("linalg.svd(a, compute_uv=False)", "tall"),
    "svdvals, wide": ("linalg.svdvals(a)", "wide"),
    "svd": ("(lambda u, s, v: (u * np.sin(s)[..., None, :]) @ v)(*linalg.svd(a, full_matrices=False))",
            "tall"),
    "svd, wide": ("(lambda u, s, v: (u * s[..., None, :] ** 2) @ v)"
                  "(*linalg.svd(a, full_matrices=False))", "wide"),
    "qr": ("(lambda q, r: q @ np.abs(r) + q @ h(q) @ a)(*linalg.qr(a + np.ones_like(a)))", "tall"),
    "qr, wide": ("(lambda q, r: np.abs(r) ** 2)(*linalg.qr(a))", "wide"),
    "pinv": ("linalg.pinv(a)", "tall"),
    "pinv, wide": ("linalg.pinv(a)", "wide"),
    "lstsq": ("linalg.lstsq(a[0], a[1, :, :2])[0]", "tall"),
    "norm": ("linalg.norm(a)", "tall"),
    "vector norm": ("linalg.vector_norm(a, axis=-1, ord=3)", "tall"),
    "spectral norm": ("linalg.norm(a, ord=2, axis=(-2, -1))", "tall"),
    "nuclear norm": ("linalg.matrix_norm(a, ord='nuc')", "wide"),
    "cond": ("linalg.cond(a + 3 * eye)", "square"),
    "tensorinv": ("linalg.tensorinv((a[0] + 3 * eye).reshape(2, 2, 2, 2))", "square"),
    "eigvals": ("np.sum(np.exp(linalg.eigvals(a)), -1)", "square"),
}
SHAPES = {"square": (2, 4, 4), "tall": (2, 5, 3), "wide": (2, 3, 5)}
DTYPES = {"float64": 1e-8, "complex128": 1e-8}

# Runs in both: `np` is tfn.numpy or jax.numpy.
SHARED = '''
import numpy
def operand(shape, dtype):
    rng = numpy.random.default_rng(3)
    x = rng.normal(size=shape)
    return (x + 1j * rng.normal(size=shape) if "complex" in dtype else x).astype(dtype)

def readout(text, np, x):
    h = lambda m: np.conj(np.swapaxes(m, -1, -2))
    names = {"np": np, "linalg": np.linalg, "h": h, "eye": numpy.eye(4).astype(x.dtype)}
    function = eval("lambda a: " + text, names)
    def run(a):
        value = function(a)
        weight = numpy.cos(1 + numpy.arange(numpy.prod(value.shape, dtype=int))).reshape(value.shape)
        weight = weight.astype(np.real(a).dtype)
        return np.sum(np.real(value) * weight + np.imag(value) * weight ** 2)
    return run
'''
IN_JAX = SHARED + '''
import base64, io, json, sys, jax
import jax.numpy as jnp
jax.config.update("jax_enable_x64", True)
job, found = json.load(sys.stdin), {}
for name, (text, shape) in job["cases"].items():
    for dtype in job["dtypes"]:
        x = operand(job["shapes"][shape], dtype)
        value, slope = jax.jit(jax.value_and_grad(readout(text, jnp, x)))(jnp.asarray(x))
        found[f"{name}/{dtype}/value"], found[f"{name}/{dtype}/grad"] = value, slope
file = io.BytesIO()
numpy.savez(file, **found)
print(base64.b64encode(file.getvalue()).decode())
'''
exec(SHARED)


@pytest.fixture(scope="module")
def in_jax(jax_python):
    job = {"cases": CASES, "dtypes": list(DTYPES), "shapes": SHAPES}
    found = subprocess.run([jax_python, "-c", IN_JAX], input=json.dumps(job), text=True,
                           capture_output=True, check=True)
    return np.load(io.BytesIO(b64decode(found.stdout)))


@pytest.mark.outside("jax")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_gradient(in_jax, name, dtype):
    text, shape = CASES[name]
    x = operand(SHAPES[shape], dtype)  # noqa: F821  (SHARED defines it)
    run = readout(text, tnp, x)  # noqa: F821
    value, slope = run(tnp.asarray(x)), grad(run)(tnp.asarray(x))
    assert slope.dtype == np.dtype(dtype)
    expected = in_jax[f"{name}/{dtype}/grad"]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(value, in_jax[f"{name}/{dtype}/value"], rtol=DTYPES[dtype])
    np.testing.assert_allclose(slope, expected, rtol=DTYPES[dtype], atol=DTYPES[dtype] * scale)


@pytest.mark.outside("jax")
@pytest.mark.parametrize("name", ["cholesky", "eigh", "svd", "qr", "solve", "pinv", "lstsq"])
def test_compiled_gradient(in_jax, name):
    text, shape = CASES[name]
    x = operand(SHAPES[shape], "float32")  # noqa: F821
    slope = jit(grad(readout(text, tnp, x)))(tnp.asarray(x))  # noqa: F821
    expected = in_jax[f"{name}/float64/grad"]
    np.testing.assert_allclose(slope, expected, rtol=3e-3, atol=3e-3 * np.abs(expected).max())
