"""The measurement of elementary functions: what it sees, and a part of what it measures."""

import json
import subprocess
import sys

import numpy as np
import pytest

from tfn.tools import accuracy
from tfn.tools.accuracy import ENGINES, SUBJECTS, arguments, batches, errors, measure


def test_errors_in_units_of_the_last_place():
    one = np.float32(1)
    found = np.array([1, np.nextafter(one, 2), np.nextafter(one, 0), 0, 1e-45], np.float32)
    true = np.array([1, 1, 1, 1e-45, 1.5e-45])
    ulp, wrong = errors(found, true)
    np.testing.assert_allclose(ulp[:3], [0, 1, 0.5])
    assert abs(ulp[3] - 1e-45 / 2.0**-149) < 1e-6 and not wrong.any()


@pytest.mark.parametrize("found, true, is_wrong", [
    (np.nan, 1.0, True), (1.0, np.nan, True), (np.nan, np.nan, False), (np.inf, np.inf, False),
    (-np.inf, np.inf, True), (0.0, -0.0, True), (-0.0, -0.0, False), (3.4e38, 1e39, False),
    (1.0, 1e39, True)])
def test_special_values(found, true, is_wrong):
    _, wrong = errors(np.array([found], np.float32), np.array([true]))
    assert bool(wrong[0]) == is_wrong


def test_infinity_for_a_finite_number_is_an_error():
    ulp, _ = errors(np.array([np.inf], np.float32), np.array([3e38]))
    assert ulp[0] > 1e5


def test_every_argument_is_tried():
    pieces = list(batches("exp", "f16", 1))
    bits = np.concatenate([arguments(*p)[0].view(np.uint16) for p in pieces])
    np.testing.assert_array_equal(np.sort(bits), np.arange(1 << 16))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype, stride", [("f32", 1 << 14), ("f16", 8), ("bf16", 8)])
@pytest.mark.parametrize("name", SUBJECTS)
def test_functions(name, dtype, stride, engine):
    if SUBJECTS[name].wide is None:
        pytest.importorskip("mpmath", reason="pip install mpmath")
        stride = 32
    for piece in list(batches(name, dtype, stride))[:3]:
        worst = measure(name, dtype, arguments(*piece), engine, in_order=piece[2] == "every")
        assert worst.holds, worst


@pytest.mark.parametrize("found", [1.0, np.nan])
def test_a_wrong_constant_is_seen(found, monkeypatch):
    """Where the truth is one number throughout, a piece is decided by its ends."""
    x = np.linspace(20, 30, 64).astype(np.float32)
    result = np.ones_like(x)
    result[40] = found + 0.5
    monkeypatch.setattr(accuracy, "_program", lambda *_: lambda *_: [result])
    worst = measure("tanh", "f32", (x,), in_order=True)
    assert not worst.holds


def test_command(tmp_path):
    report = tmp_path / "report.json"
    ran = subprocess.run(
        [sys.executable, "-m", "tfn.tools.accuracy", "exp", "tan", "--stride", "65536", "--jobs", "1",
         "--json", str(report)], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert [r["function"] for r in json.loads(report.read_text())] == ["exp", "tan"]
    refused = subprocess.run([sys.executable, "-m", "tfn.tools.accuracy", "gamma"],
                             capture_output=True, text=True, timeout=300)
    assert refused.returncode == 2 and "gamma is not one of" in refused.stderr
