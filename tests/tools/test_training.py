"""Models trained on tfn and on JAX: the verdicts, and a few steps of small ones."""

import sys

import numpy as np
import pytest
import typer

from tfn.tools.conformance.training import backend_of, command, compare, row_of

LOSSES = np.array([2.0, 1.0, 0.5])


def trained(*factors):
    """Results of tfn and peers whose last loss is so many times the first peer's."""
    names = ("tfn", "jax", "tensorflow")
    return {name: {"losses": [*LOSSES[:-1], LOSSES[-1] * factor]}
            for name, factor in zip(names, factors, strict=False)}


@pytest.mark.parametrize("factors, error, verdict", [
    ((1, 1), 0, "equal"), ((1 + 1e-4, 1), 1e-6, "equal"), ((1 + 3e-4, 1), 0, "losses differ"),
    ((1 + 3e-4, 1, 1 - 2e-4), 0, "within the spread"), ((1 + 3e-4, 1, 1 - 1e-4), 0, "losses differ"),
    ((float("nan"), 1), 0, "losses differ"), ((1, 1), 1e-4, "loaded models differ"),
    ((1, 1), float("nan"), "loaded models differ")])
def test_verdicts(factors, error, verdict):
    for here, there in ((error, 0), (0, error)):
        row = row_of("m", trained(*factors), {"error": here}, {"error": there})
        assert (row.verdict, row.passed) == (verdict, verdict in ("equal", "within the spread"))


def test_a_backend_that_fails_is_named():
    results = {**trained(1, 1), "jax": {"failed": "ValueError: no"}}
    row = row_of("m", results, {"error": 0}, {"error": 0})
    assert (row.verdict, row.passed) == ("jax: ValueError: no", False)


def test_what_cannot_be_run_is_refused():
    with pytest.raises(typer.BadParameter, match="no model resnet; there are digits_cnn, text"):
        command(["resnet"], [sys.executable], 1, False)
    with pytest.raises(typer.BadParameter, match="must be a Python with jax, tensorflow or torch"):
        backend_of("/no/such/python")


@pytest.mark.slow
@pytest.mark.outside("jax")
def test_models_train_and_load_alike_on_jax(jax_python):
    rows = compare(["text", "gan"], [jax_python], 10)
    assert [(row.name, row.steps, row.verdict) for row in rows] == [
        ("text", 10, "equal"), ("gan", 10, "equal")]
