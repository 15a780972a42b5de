"""Real MPI ranks: the same bits as one process, and jobs that fail together."""

import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest

pytestmark = [pytest.mark.outside("mpi4py", "mpiexec"), pytest.mark.slow]
SECONDS = 120


def launch(n, script, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "tfn.tools.cli", "launch", "-n", str(n), str(script), "--", *arguments],
        capture_output=True, text=True, timeout=SECONDS, env={**os.environ, **environment})


@pytest.fixture
def script(tmp_path):
    def write(text):
        path = tmp_path / "script.py"
        path.write_text(text)
        return path

    return write


def test_two_ranks_train_the_same_weights(repository, tmp_path):
    found = {}
    for n in (1, 2):
        out = tmp_path / f"{n}.npz"
        result = launch(n, repository / "examples" / "digits_parallel.py", "--out", str(out))
        assert result.returncode == 0, result.stderr
        with np.load(out) as data:
            found[n] = {k: data[k] for k in data.files}
    assert found[1].keys() == found[2].keys()
    for name, value in found[1].items():
        assert value.tobytes() == found[2][name].tobytes(), name


def test_ranks_know_themselves(script):
    path = script("from tfn import distributed as d\nprint(f'rank {d.rank()} of {d.size()}')\n")
    result = launch(3, path)
    assert result.returncode == 0
    found = re.findall(r"rank \d of 3", result.stdout)
    assert sorted(found) == [f"rank {i} of 3" for i in range(3)]


def test_the_wrong_number_of_ranks_is_refused(script):
    path = script("print('computed')\n")
    # A launcher that starts processes which know nothing of each other.
    result = subprocess.run(
        [sys.executable, "-m", "tfn.distributed.rank", str(path)], capture_output=True, text=True,
        timeout=SECONDS, env={**os.environ, "TFN_WORLD_SIZE": "4"})
    assert result.returncode == 2
    assert "launched for 4 ranks but MPI sees 1" in result.stderr
    assert "computed" not in result.stdout


def test_a_failing_rank_ends_the_job(script):
    path = script("import time\nfrom tfn import distributed as d\n"
                  "if d.rank() == 1:\n    raise ValueError('rank one gives up')\ntime.sleep(100)\n")
    began = time.monotonic()
    result = launch(2, path)
    assert result.returncode != 0
    assert "rank one gives up" in result.stderr
    assert time.monotonic() - began < 60
