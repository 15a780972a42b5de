"""Tiny models of keras-hub with the same weights on jax and tfn."""

import json
import subprocess
import sys

import pytest

from tfn.tools.conformance import hub, hub_families


def run(*arguments):
    return subprocess.run([sys.executable, "-m", "tfn.tools.conformance", "hub", *arguments],
                          capture_output=True, text=True, timeout=300)


def test_there_are_families_of_every_kind():
    kinds = [family.kind for family in hub_families.FAMILIES.values()]
    for kind, least in {"language": 12, "vision": 8, "audio": 2, "diffusion": 1}.items():
        assert kinds.count(kind) >= least


@pytest.mark.slow
@pytest.mark.outside("jax", "keras_hub", "keras_hub of jax")
def test_families_give_what_they_give_on_jax(jax_python, tmp_path):
    names = ["bert", "opt", "vit", "moonshine"]
    done = run(*names, "--python", jax_python, "--json", str(tmp_path / "rows.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 of 4 passed" in done.stdout
    rows = {r["name"]: r for r in json.loads((tmp_path / "rows.json").read_text())["results"]}
    assert list(rows) == names
    assert all(0 <= r["error"] < hub.TOLERANCE and r["outputs"] for r in rows.values())
    assert rows["opt"]["tokens"] == rows["opt"]["same_tokens"] == 24


@pytest.mark.outside("keras_hub")
def test_a_wrong_model_does_not_pass(tmp_path, monkeypatch):
    """One weight is not what it is there."""
    def altered(family, model, given):
        model.weights[0].assign(1.01 * model.weights[0])
        return hub_families.run(family, model, given)

    told = json.dumps(hub_families.save("bert", tmp_path))
    assert hub.compared("bert", tmp_path, told).failure == ""
    monkeypatch.setattr(hub, "run", altered)
    row = hub.compared("bert", tmp_path, told)
    assert "from the other backend" in row.failure and row.error > hub.TOLERANCE


@pytest.mark.outside("keras_hub")
@pytest.mark.parametrize(("arguments", "says"), [
    (["bert"], "TFN_JAX_PYTHON"),
    (["ernie", "--python", "python"], "'ernie'"),
], ids=str)
def test_a_mistake(arguments, says, monkeypatch):
    monkeypatch.delenv("TFN_JAX_PYTHON", raising=False)
    done = run(*arguments)
    assert done.returncode == 2
    assert says in done.stderr
