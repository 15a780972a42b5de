"""The runner of Keras's tests: on small files that pass, fail, crash and hang, and on a real one."""

import json
import os
import subprocess
import sys

import pytest

from tfn.tools.conformance.keras import EXCLUDED, batches, keras_source, read_exclusions, run, summary

FILES = {
    "good/one_test.py": """
import os
import pytest
from conftest import skip_if_backend

def test_passes():
    assert os.environ["KERAS_BACKEND"] == "numpy"

@skip_if_backend("numpy", "not here")
def test_skips():
    assert False

@pytest.mark.requires_trainable_backend
def test_trains():
    assert False

def test_excluded():
    assert False
""",
    "good/two_test.py": """
import unittest

class Two(unittest.TestCase):
    def test_one_of_three(self):
        for i in range(3):
            with self.subTest(i=i):
                assert i != 1

    def test_other(self):
        pass
""",
    "bad/crash_test.py": """
import os
import time

def test_before():
    pass

def test_dies():
    os._exit(7)

def test_hangs():
    time.sleep(60)

def test_after():
    pass
""",
    "bad/load_test.py": "import no_such_module\n",
    "bad/abort_test.py": "import os\nos.abort()\n",
}
EXPECTED = {
    "good/one_test.py::test_passes": ("passed", ""),
    "good/one_test.py::test_skips": ("skipped", "not here"),
    "good/one_test.py::test_trains": ("skipped", "does not train"),
    "good/one_test.py::test_excluded": ("skipped", "a reason"),
    "good/two_test.py::Two::test_one_of_three": ("failed", "assert 1 != 1"),
    "good/two_test.py::Two::test_other": ("passed", ""),
    "bad/crash_test.py::test_before": ("passed", ""),
    "bad/crash_test.py::test_dies": ("failed", "code 7"),
    "bad/crash_test.py::test_hangs": ("failed", "more than 5 s"),
    "bad/crash_test.py::test_after": ("passed", ""),
    "bad/load_test.py": ("failed", "no_such_module"),
    "bad/abort_test.py": ("failed", "Abort"),
}


@pytest.mark.slow
def test_nothing_is_lost(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    groups = batches(tmp_path, [])
    assert sorted(f for group in groups for f in group) == sorted(FILES)
    excluded = {"good/one_test.py::test_excluded": "a reason"}
    found = [o for _, outcomes in run(tmp_path, groups, "numpy", excluded, limit=5) for o in outcomes]
    assert sorted(o.id for o in found) == sorted(EXPECTED)
    for o in found:
        outcome, detail = EXPECTED[o.id]
        assert o.outcome == outcome and detail in o.detail, o
    results = summary(found, "numpy", 1.0)
    assert results["totals"] == {"passed": 4, "failed": 5, "skipped": 3}
    assert results["folders"]["bad"] == {"passed": 2, "failed": 4, "skipped": 0}
    failed = {i for i, (outcome, _) in EXPECTED.items() if outcome == "failed"}
    assert {f["id"] for f in results["failures"]} == failed


def test_paths(tmp_path):
    for name in ("losses/a_test.py", "losses/b_test.py", "backend/jax/c_test.py", "losses/tool.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert batches(tmp_path, ["."]) == [["losses/a_test.py", "losses/b_test.py"]]
    assert batches(tmp_path, ["losses/b_test.py::B::test"]) == [["losses/b_test.py::B::test"]]


def test_exclusions_have_reasons(tmp_path):
    excluded = read_exclusions(EXCLUDED)
    assert len(excluded) <= 60
    for test, reason in excluded.items():
        assert (keras_source() / test.split("::")[0]).exists(), test
        assert len(reason.split()) > 3 and "fail" not in reason.lower(), reason
    (tmp_path / "bad.txt").write_text("a_test.py::test\n")
    with pytest.raises(ValueError, match="has no reason"):
        read_exclusions(tmp_path / "bad.txt")


def _suite(folder, *arguments):
    environment = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
    command = [sys.executable, "-m", "tfn.tools.conformance", "keras", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment,
                          cwd=folder)


@pytest.mark.slow
def test_a_file_of_keras(tmp_path):
    done = _suite(tmp_path, "losses/loss_test.py", "--json", tmp_path / "mine.json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "mine.json").read_text())
    assert found["totals"]["passed"] > 10 and found["failures"] == []
    assert found["folders"] == {"losses": found["totals"]}
    # What fails here but did not pass there is no difference.
    (tmp_path / "theirs.json").write_text(json.dumps({"outcomes": {}}))
    done = _suite(tmp_path, "losses/loss_test.py", "--compare", tmp_path / "theirs.json")
    assert done.returncode == 0 and "0 failed and passed in" in done.stdout


def test_mistakes(tmp_path):
    done = _suite(tmp_path, "losing")
    assert done.returncode == 2 and "losing" in done.stderr
    (tmp_path / "old.json").write_text("{}")
    done = _suite(tmp_path, "losses", "--compare", tmp_path / "old.json")
    assert done.returncode == 2 and "results of this command" in done.stderr
