"""Run by the Python that has JAX: lowers the cases and their derivatives to StableHLO.

    python jax_derivatives.py derivative_cases.py > {name: {dtype: {"primal": text, ...}}}

All derivatives of a case are one program, whose results `counts` divides among the kinds. Nothing is
computed here: the programs are evaluated by who asked for them.
"""

from __future__ import annotations

import json
import runpy
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax._src.lax import windowed_reductions
from jax.lax import linalg

NAMES = {"jax": jax, "jnp": jnp, "lax": lax, "linalg": linalg, "np": np,
         "lax_windows": windowed_reductions}


def inexact(x) -> bool:
    return jnp.issubdtype(x.dtype, jnp.inexact)


def functions(program: str, reference: str, operands):
    """The program, and its derivatives by kind: functions of the operands, the cotangents and the
    tangents. Only inexact operands and results take part."""
    letters = ", ".join("abcdefg"[: len(operands)])
    primal, function = (eval(f"lambda {letters}: {p}", dict(NAMES)) for p in (program, reference))
    moving = [i for i, o in enumerate(operands) if inexact(o)]
    types = [jax.ShapeDtypeStruct(o.shape, o.dtype) for o in operands]

    def results(f, *x):
        return [y for y in jax.tree.leaves(f(*x)) if inexact(y)]

    def full(x, inner):
        values = list(x)
        for i, v in zip(moving, inner, strict=True):
            values[i] = v
        return values

    def vjp(x, ct, tangents):
        return jax.vjp(lambda *v: results(function, *full(x, v)), *(x[i] for i in moving))[1](ct)

    def jvp(x, ct, tangents):
        return jax.jvp(lambda *v: results(function, *full(x, v)), [x[i] for i in moving], tangents)[1]

    def forward_over_reverse(x, ct, tangents):
        return jax.jvp(lambda *v: vjp(full(x, v), ct, ()), [x[i] for i in moving], tangents)[1]

    def reverse_over_reverse(x, ct, tangents):
        return jax.vjp(lambda v, c: vjp(full(x, v), c, ()), [x[i] for i in moving], ct)[1](
            tuple(tangents))

    outs = jax.eval_shape(lambda *x: results(function, *x), *types)
    return (lambda *x: results(primal, *x), (types, outs, [types[i] for i in moving]),
            {"vjp": vjp, "jvp": jvp, "jvp of vjp": forward_over_reverse,
             "vjp of vjp": reverse_over_reverse})


def text(function, *types) -> str:
    return jax.jit(function, keep_unused=True).lower(*types).as_text()


def lowered(case, dtype: str) -> dict:
    """f32 is compared with the derivative in f64, but at the edges, where rounding matters."""
    primal, types, derivatives = functions(case.program, case.reference or case.program,
                                           case.values(dtype))
    made = {} if case.text else {"primal": text(primal, *types[0])}
    if dtype == "float64" or not case.smooth:
        kinds = case.kinds(dtype)

        def every(x, ct, tangents):
            return [jax.tree.leaves(derivatives[k](x, ct, tangents)) for k in kinds]

        made["derivatives"] = text(every, *types)
        made["counts"] = [len(r) for r in jax.eval_shape(every, *types)]
    return made


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    cases = runpy.run_path(sys.argv[1], run_name="derivative_cases")["CASES"]
    json.dump({name: {dtype: lowered(case, dtype) for dtype in ("float32", "float64")}
               for name, case in cases.items()}, sys.stdout)


if __name__ == "__main__":
    main()
