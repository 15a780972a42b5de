"""The conformance runner on programs of our own: what passes, fails, is not supported or malformed."""

import json
import subprocess
import sys

import pytest

PASSING = """
func.func @main() {
  %a = stablehlo.constant dense<[1.0, 2.0]> : tensor<2xf32>
  %b = stablehlo.add %a, %a : tensor<2xf32>
  check.expect_eq_const %b, dense<[2.0, 4.0]> : tensor<2xf32>
  return
}
"""
CALLED = """
func.func @main() -> tensor<2xf32> {
  %a = stablehlo.constant dense<[1.0, 2.0]> : tensor<2xf32>
  %b = stablehlo.add %a, %a : tensor<2xf32>
  %c = stablehlo.constant dense<[2.0, 4.0]> : tensor<2xf32>
  %d = stablehlo.custom_call @check.eq(%b, %c) : (tensor<2xf32>, tensor<2xf32>) -> tensor<i1>
  return %b : tensor<2xf32>
}
"""
UNREACHED = """
func.func @other(%a: tensor<f32>) {
  check.expect_eq %a, %a : tensor<f32>
  return
}
"""
CASES = {
    "passes.mlir": (PASSING, "passed", ""),
    "fails.mlir": (PASSING.replace("4.0]", "5.0]"), "failed", "got 4.0, expected 5.0"),
    "sections.mlir": (PASSING + "// -----\n" + PASSING.replace("4.0]", "5.0]"), "failed", "5.0"),
    "unsupported.mlir": (PASSING.replace("stablehlo.add", "stablehlo.teleport"), "unsupported",
                         "stablehlo.teleport"),
    "result.mlir": (CALLED, "passed", ""),
    "wrong_result.mlir": (CALLED.replace("4.0]", "5.0]"), "failed", "check.eq: 1 of 2"),
    "unreached.mlir": (PASSING + UNREACHED, "failed", "1 checks did not run"),
    "malformed.mlir": (PASSING.replace("%b = ", "%b = = "), "error", "column"),
    "dynamic.mlir": ("func.func @main(%a: tensor<?xf32>) -> tensor<?xf32> {\n"
                     "  %0 = stablehlo.add %a, %a : tensor<?xf32>\n  return %0 : tensor<?xf32>\n}\n",
                     "passed", ""),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("cases")
    for name, (text, _, _) in CASES.items():
        (path / name).write_text(text)
    rows = [{"file": name, "group": name.split(".")[0], "tier": "core"} for name in CASES]
    (path / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


@pytest.mark.parametrize("engine", ["compiler", "evaluator"])
def test_results(folder, tmp_path, engine):
    found = subprocess.run(
        [sys.executable, "-m", "tfn.tools.conformance", "stablehlo", str(folder), "--engine", engine,
         "--json", str(tmp_path / "r.json"), "-n", "1"], capture_output=True, text=True, timeout=120)
    assert found.returncode == 1
    assert "3 of 9 passed" in found.stdout
    results = json.loads((tmp_path / "r.json").read_text())["results"]
    assert len(results) == len(CASES)
    for row in results:
        _, status, detail = CASES[row["file"].rsplit("/", 1)[1]]
        assert row["status"] == status, row
        assert detail in row["detail"]
        assert row["tier"] == "core"
        assert set(row) >= {"file", "status", "worst_ulp", "detail"}
    checks = {row["file"].rsplit("/", 1)[1]: row["checks"] for row in results}
    assert checks["sections.mlir"] == 2 and checks["result.mlir"] == 1 and not checks["dynamic.mlir"]


@pytest.mark.parametrize(("arguments", "says"), [
    (["stablehlo", "nowhere.mlir"], "nowhere.mlir"),
    (["printed", "nowhere.mlir", "--python", "python"], "nowhere.mlir"),
    (["printed", "."], "TFN_JAX_PYTHON"),
    (["jax", "mlp"], "TFN_JAX_PYTHON"),
    (["jax", "perceptron", "--python", "python"], "'perceptron'"),
], ids=str)
def test_a_mistake(arguments, says, tmp_path, monkeypatch):
    monkeypatch.delenv("TFN_JAX_PYTHON", raising=False)
    found = subprocess.run([sys.executable, "-m", "tfn.tools.conformance", *arguments], cwd=tmp_path,
                           capture_output=True, text=True, timeout=120)
    assert found.returncode == 2
    assert says in found.stderr


def _run(*arguments):
    return subprocess.run([sys.executable, "-m", "tfn.tools.conformance", *map(str, arguments)],
                          capture_output=True, text=True, timeout=300)


def test_random_programs_of_a_seed(tmp_path):
    done = _run("random", "--count", 5, "--seed", 1, "--json", tmp_path / "out.json",
                "--out", tmp_path / "failures")
    found = json.loads((tmp_path / "out.json").read_text())
    assert done.returncode == 0, done.stdout + done.stderr
    assert found["programs"] == 5 and found["failures"] == []
    assert found["exact"] + found["bounded"] + sum(found["unsupported"].values()) == 5
    assert "5 programs" in done.stdout


def test_bits_do_not_depend_on_the_threads(tmp_path):
    done = _run("bits", "gemm/f32/256x256x256", "--json", tmp_path / "out.json")
    assert done.returncode == 0, done.stdout + done.stderr
    row, = json.loads((tmp_path / "out.json").read_text())["results"]
    assert row == {"workload": "gemm/f32/256x256x256", "same": True, "any_position": None,
                   "failed": ""}


def test_fuzzing_for_a_while(tmp_path):
    (tmp_path / "good.mlir").write_text(PASSING)
    done = _run("fuzz", tmp_path, "--seconds", 1, "--json", tmp_path / "out.json",
                "--out", tmp_path / "failures")
    found = json.loads((tmp_path / "out.json").read_text())
    assert done.returncode == 0, done.stdout + done.stderr
    assert found["cases"] >= 200 and found["findings"] == []
    assert found["kinds"]["ParseError"] > 0
