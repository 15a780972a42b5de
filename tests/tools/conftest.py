"""A tiny recipe, a run made from it, and the command line run in this process."""

import json
import textwrap

import pytest

from tfn.tools.cli import run as run_cli

RECIPE = '''
import keras
import numpy as np


def build_model():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, activation="relu"),
                              keras.layers.Dense(3, activation="softmax")])
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss="sparse_categorical_crossentropy",
                  metrics=["accuracy"])
    return model


def load_data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 8)).astype("float32")
    y = (x[:, 0] > 0).astype("int32")
    return (x, y), (x[:16], y[:16])
'''


class Outcome:
    """Exit code and what was printed."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    @property
    def json(self):
        return json.loads(self.out)

    def mistake(self, *parts):
        """It was the user's mistake: exit code 2, one message with all `parts`, no traceback."""
        flat = " ".join(self.err.split())
        assert self.code == 2, (self.code, self.out, self.err)
        assert "Traceback" not in self.err
        for part in parts:
            assert part in flat, self.err


@pytest.fixture
def cli(capsys, monkeypatch, tmp_path):
    """`cli("train", ...)` in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        capsys.readouterr()
        code = run_cli([str(a) for a in arguments])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


@pytest.fixture
def recipe(tmp_path):
    """`recipe(text)`: a recipe file; without text the one that works."""

    def write(text=RECIPE, name="tiny.py"):
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        return path

    return write


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A run folder of the tiny recipe, two epochs long."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.py").write_text(RECIPE)
    code = run_cli(["train", str(folder / "tiny.py"), "--epochs", "2", "--seed", "0", "--out",
                    str(folder / "run"), "--json"])
    assert code == 0
    return folder / "run"


@pytest.fixture(scope="session")
def bundle(trained, tmp_path_factory):
    """A bundle of that run."""
    out = tmp_path_factory.mktemp("bundle")
    assert run_cli(["export", str(trained), "--format", "bundle", "--out", str(out), "--json"]) == 0
    return next(out.rglob("bundle.json")).parent
