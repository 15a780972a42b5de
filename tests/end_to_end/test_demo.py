"""`tfn demo`: everything at once, with the figures it promises."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


def demo(folder, *arguments):
    return subprocess.run([sys.executable, "-m", "tfn.tools.cli", "demo", *arguments],
                          cwd=folder, capture_output=True, text=True, timeout=300)


@pytest.mark.outside("g++", "ai_edge_litert", "mpi4py", "mpiexec")
def test_the_figures(tmp_path):
    result = demo(tmp_path, "--json", "demo.json")
    assert result.returncode == 0, result.stdout + result.stderr
    figures = json.loads((tmp_path / "demo.json").read_text())
    assert figures["validation_accuracy"] >= 0.98
    assert figures["cpp_max_rel_error"] <= 1e-5
    assert figures["litert_max_rel_error"] <= 1e-5
    assert figures["two_rank_max_rel_error"] <= 1e-6
    assert figures["http_equal"] is True
    assert all(step["ok"] for step in figures["steps"]), figures["steps"]
    assert {"name", "seconds", "ok", "detail"} <= set(figures["steps"][0])
    assert (tmp_path / "tfn-demo").is_dir()


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    mine = tmp_path / "tfn-demo"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    result = demo(tmp_path)
    assert result.returncode == 2
    assert "tfn-demo" in result.stderr
    assert (mine / "thesis.txt").read_text() == "years of work"
    assert [p.name for p in mine.iterdir()] == ["thesis.txt"]
