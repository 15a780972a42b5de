"""Derivatives of every op against JAX's: both modes, f32 and f64, and second ones of smooth functions.

JAX lowers the cases of `derivative_cases.py` and their derivatives to StableHLO, in one child process.
Its derivative programs are evaluated by our evaluator, which other tests hold to StableHLO's corpus:
what is compared is the rules.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest

import tfn
from tfn.compiler.ir.core import Function
from tfn.compiler.ir.evaluator import evaluate
from tfn.compiler.ir.parser import parse_module
from tfn.compiler.ops import catalog  # noqa: F401
from tfn.compiler.ops.control import body_of
from tfn.compiler.ops.declare import REGISTRY
from tfn.compiler.trace.core import as_array
from tfn.compiler.trace.imported import from_stablehlo

HERE = Path(__file__).parent
CASES = run_path(str(HERE / "derivative_cases.py"), run_name="derivative_cases")["CASES"]

ELEMENT = {"float32": "f32", "float64": "f64"}
TOLERANCES = {"float32": 2e-5, "float64": 1e-12}


@pytest.fixture(scope="module")
def programs(jax_python):
    """Case -> dtype -> the StableHLO text of the case and of its derivatives."""
    found = subprocess.run([jax_python, HERE / "jax_derivatives.py", HERE / "derivative_cases.py"],
                           text=True, capture_output=True, check=True)
    return json.loads(found.stdout)


def parsed(text: str) -> Function:
    return parse_module(text, "<jax>")["main"]


def inexact(x) -> bool:
    return np.asarray(x).dtype.kind in "fc"


class Subject:
    """A case in one element type: our function, and the numbers it is differentiated at."""

    def __init__(self, case, texts, dtype: str):
        self.values = [as_array(v) for v in case.values(dtype)]
        self.moving = [i for i, v in enumerate(self.values) if inexact(v)]
        text = case.text.replace("T>", f"{ELEMENT[dtype]}>").replace(": T}", f": {ELEMENT[dtype]}}}")
        self.function = from_stablehlo(text or texts["primal"])
        rng = np.random.default_rng(5)
        self.outs = self.function.function.result_types
        self.cotangents = [self._like(rng, t.shape, t.dtype.numpy) for t in self.outs]
        self.tangents = [self._like(rng, v.shape, v.dtype) for v in self.point]

    @staticmethod
    def _like(rng, shape, dtype):
        x = rng.uniform(0.5, 1.5, shape)
        if np.dtype(dtype).kind == "c":
            x = x + 1j * rng.uniform(0.5, 1.5, shape)
        return as_array(np.asarray(x).astype(dtype))

    def at(self, *moved):
        """Our results as a function of the inexact operands."""
        full = list(self.values)
        for i, v in zip(self.moving, moved, strict=True):
            full[i] = v
        found = self.function(*full)
        return found if isinstance(found, tuple) else (found,)

    @property
    def point(self):
        return [self.values[i] for i in self.moving]

    def pulled(self, point, cotangents):
        return tfn.vjp(self.at, *point)[1](tuple(cotangents))

    def ours(self, kind: str):
        if kind == "vjp":
            return self.pulled(self.point, self.cotangents)
        if kind == "jvp":
            return tfn.jvp(self.at, self.point, self.tangents)[1]
        if kind == "jvp of vjp":
            return tfn.jvp(lambda *x: self.pulled(x, self.cotangents), self.point, self.tangents)[1]
        _, pull = tfn.vjp(lambda x, ct: self.pulled(x, ct), self.point, self.cotangents)
        x, ct = pull(tuple(self.tangents))
        return [*x, *ct]

    def theirs(self, texts, kinds) -> dict[str, list]:
        function = parsed(texts["derivatives"])
        given = [np.asarray(v).astype(a.dtype.numpy) for v, a in zip(
            [*self.values, *self.cotangents, *self.tangents], function.arguments, strict=True)]
        found = iter(evaluate(function, given))
        return {k: [next(found) for _ in range(n)] for k, n in zip(kinds, texts["counts"], strict=True)}


def check(kind, ours, theirs, tolerance, differs=None):
    ours, theirs = [np.asarray(o) for o in ours], list(theirs)
    assert len(ours) == len(theirs)
    for actual, expected in zip(ours, theirs, strict=True):
        assert actual.shape == expected.shape
        if differs is not None and actual.shape == differs.shape:
            assert differs.any()
            actual, expected = actual[~differs], expected[~differs]
        finite = np.abs(expected[np.isfinite(expected)])
        scale = float(finite.max()) if finite.size and finite.max() < 1e3 else 1.0
        np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * scale,
                                   err_msg=kind)


@pytest.mark.outside("jax")
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("name", CASES)
def test_derivatives(name, dtype, programs):
    case, texts = CASES[name], programs[name]
    reference = dtype if "derivatives" in texts[dtype] else "float64"
    subject = Subject(case, texts[dtype], dtype)
    differs = case.differs and case.differs(*(np.asarray(v) for v in subject.values))
    with np.errstate(all="ignore"):
        theirs = subject.theirs(texts[reference], case.kinds(reference))
        for kind in case.kinds(dtype):
            check(kind, subject.ours(kind), theirs[kind], TOLERANCES[dtype] * case.tolerance, differs)


@pytest.mark.outside("jax")
@pytest.mark.parametrize("name", [n for n, c in CASES.items()
                                  if not c.forward_only and "edges" not in n])
def test_pullback_under_vmap(name, programs):
    """All operands mapped, and the first alone, against a loop."""
    subject = Subject(CASES[name], programs[name]["float64"], "float64")
    rows = [np.stack([np.asarray(p), np.asarray(p) * 1.01]) for p in subject.point]
    for mapped in {len(rows), 1}:
        given = [r if i < mapped else as_array(r[0]) for i, r in enumerate(rows)]
        axes = [0 if i < mapped else None for i in range(len(rows))]
        found = tfn.vmap(lambda *p: subject.pulled(p, subject.cotangents), axes)(*given)
        expected = []
        for k in range(2):
            point = [as_array(r[k] if i < mapped else r[0]) for i, r in enumerate(rows)]
            expected.append(subject.pulled(point, subject.cotangents))
        check("vjp", found, [np.stack([np.asarray(e[i]) for e in expected])
                             for i in range(len(rows))], 1e-9)


def named(function: Function) -> set[str]:
    """The ops of a function, of its regions, of what it calls and of what custom calls stand for."""
    found: set[str] = set()

    def visit(block):
        for op in block.ops:
            found.add(op.name)
            inside = [*op.regions, *(a.body for a in op.attributes.values() if isinstance(a, Function))]
            if op.name == "stablehlo.custom_call" and op.definition.expands(op):
                inside.append(body_of(op).body)
            for inner in inside:
                visit(inner)

    visit(function.body)
    return found


@pytest.mark.outside("jax")
@pytest.mark.parametrize("name", CASES)
def test_case_is_about_its_ops(name, programs):
    case = CASES[name]
    subject = Subject(case, programs[name]["float64"], "float64")
    derived = {"stablehlo.select_and_scatter"} if "reduce_window" in name else set()
    assert {*case.ops} - named(subject.function.function) <= derived


# Ops that have no derivative: of integers, booleans, tokens, random bits, or nobody reads the result.
WITHOUT = {
    "check.expect_almost_eq", "check.expect_almost_eq_const", "check.expect_close",
    "check.expect_eq", "check.expect_eq_const", "interpreter.run_parallel", "stablehlo.after_all",
    "stablehlo.create_token", "stablehlo.infeed", "stablehlo.outfeed", "stablehlo.send",
    "stablehlo.recv", "stablehlo.partition_id", "stablehlo.replica_id", "stablehlo.constant",
    "stablehlo.iota",
    "stablehlo.rng", "stablehlo.rng_bit_generator", "stablehlo.uniform_quantize",
    "stablehlo.uniform_dequantize", "tfn.axis_index", "tfn.callback", "tfn.check_finite", "tfn.kernel",
    "tfn.attention", "tfn.attention_backward", "tfn.lstm",
    "tfn.lstm_backward", "tfn.gru", "tfn.gru_backward", "tfn.simple_rnn", "tfn.simple_rnn_backward",
    "tfn.gelu", "tfn.gelu_slope", "tfn.gelu_tanh", "tfn.gelu_tanh_slope", "tfn.winograd",
    "tfn.winograd_kernel", "tfn.first_sorted", "tfn.cumulative",
}
# Forms of text, which become the static op before anything is differentiated.
REFINED = {f"stablehlo.{n}" for n in (
    "dynamic_broadcast_in_dim", "dynamic_conv", "dynamic_gather", "dynamic_iota", "dynamic_pad",
    "dynamic_reshape", "real_dynamic_slice", "async_start", "async_done")}
# Collectives, and ops that only our own functions make: tests of meshes, of vmap and of control flow.
ELSEWHERE = {f"stablehlo.{n}" for n in (
    "all_gather", "all_reduce", "all_to_all", "collective_broadcast", "collective_permute",
    "reduce_scatter")} | {f"tfn.{n}" for n in (
        "axis_exchange", "axis_gather", "axis_permute", "axis_reduce", "switch", "scan", "custom_vjp",
        "custom_jvp", "checkpoint")}


def test_every_op_with_a_derivative_is_in_the_table():
    covered = {op for case in CASES.values() for op in case.ops}
    assert {*REGISTRY} - covered == WITHOUT | REFINED | ELSEWHERE
    assert not covered & (WITHOUT | ELSEWHERE)
