"""`tfn train` and `tfn evaluate`: runs, recipes that are wrong, resuming, and signals."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tfn.tools.recipe import RecipeError, load_recipe

RECIPE = Path(__file__).with_name("conftest.py").read_text().split("RECIPE = '''")[1].split("'''")[0]
BATCHES = '''
class Batches(keras.utils.PyDataset):
    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return 2

    def __getitem__(self, i):
        return self.x[8 * i:8 * i + 8], self.y[8 * i:8 * i + 8]


'''
DOUBLE = '''
@keras.saving.register_keras_serializable("tiny")
class Double(keras.layers.Layer):
    def call(self, x):
        return 2 * x


def build_model():'''


def changed(old, new):
    assert old in RECIPE
    return RECIPE.replace(old, new)


def test_a_run(cli, recipe):
    result = cli("train", recipe(), "--epochs", "3", "--out", "run", "--json")
    assert result.code == 0
    assert result.json["epochs"] == 3
    assert result.json["loss"] < 2
    record = json.loads(Path("run/run.json").read_text())
    assert len(record["history"]["loss"]) == 3
    assert set(os.listdir("run")) == {"model.keras", "checkpoint.keras", "run.json"}


def test_the_default_folder_is_named_after_the_recipe(cli, recipe):
    assert cli("train", recipe()).code == 0
    assert os.path.exists("runs/tiny/model.keras")


def test_a_seed_makes_a_run_repeatable(cli, recipe):
    losses = [cli("train", recipe(), "--seed", "7", "--out", f"run{i}", "--json").json["loss"]
              for i in range(2)]
    assert losses[0] == losses[1]


def test_resume_goes_on(cli, recipe):
    path = recipe()
    whole = cli("train", path, "--seed", "1", "--epochs", "4", "--out", "whole", "--json").json
    assert cli("train", path, "--seed", "1", "--epochs", "2", "--out", "parts").code == 0
    rest = cli("train", path, "--epochs", "4", "--out", "parts", "--resume", "--json")
    assert rest.json["epochs"] == 4
    history = json.loads(Path("parts/run.json").read_text())["history"]["loss"]
    assert len(history) == 4
    # The data is shuffled anew, the weights and the optimizer go on.
    assert history[-1] < history[0]
    assert abs(rest.json["loss"] - whole["loss"]) < 0.2


def test_evaluate_agrees_with_training(cli, trained):
    result = cli("evaluate", trained, "--json")
    assert result.code == 0
    record = json.loads((trained / "run.json").read_text())
    assert result.json["loss"] == pytest.approx(record["history"]["val_loss"][-1], rel=1e-5)


def test_evaluate_without_a_run(cli):
    cli("evaluate", "nowhere").mistake("nowhere", "is not a run", "tfn train")


def test_a_damaged_record(cli, trained, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.keras").write_bytes((trained / "model.keras").read_bytes())
    (tmp_path / "run" / "run.json").write_text('{"recipe": ')
    cli("evaluate", "run").mistake("run.json", "damaged")


def test_a_truncated_model(cli, trained, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_bytes((trained / "run.json").read_bytes())
    (tmp_path / "run" / "model.keras").write_bytes((trained / "model.keras").read_bytes()[:500])
    cli("evaluate", "run").mistake("model.keras", "cannot be loaded")


def test_weights_of_examples_are_no_batch_size(cli, recipe):
    """Examples of weight 0 count neither in training nor in evaluation."""
    path = recipe(changed("return (x, y), (x[:16], y[:16])",
                          "w = (x[:, 0] > 0).astype('float32')\n"
                          "    return (x, y, w), (x[:16], y[:16], 0 * w[:16])"))
    assert cli("train", path, "--out", "run").code == 0
    assert cli("evaluate", "run", "--json").json["loss"] == 0


def test_validation_data_in_batches_of_its_own(cli, recipe):
    path = recipe(RECIPE.replace("def load_data", BATCHES + "def load_data").replace(
        "(x[:16], y[:16])\n", "Batches(x[:16], y[:16])\n"))
    assert cli("train", path, "--out", "run").code == 0
    assert cli("evaluate", "run").code == 0


def test_a_recipe_with_layers_of_its_own(cli, recipe):
    path = recipe(RECIPE.replace("def build_model():", DOUBLE).replace(
        "keras.Input((8,)),", "keras.Input((8,)), Double(),"))
    assert cli("train", path, "--out", "run").code == 0
    assert cli("export", "run", "--format", "bundle").code == 0


def test_a_recipe_imports_the_files_beside_it(cli, recipe, monkeypatch):
    monkeypatch.delitem(sys.modules, "beside", raising=False)
    path = recipe("import beside\n" + changed("size=(64, 8)", "size=(64, beside.WIDTH)"))
    path.with_name("beside.py").write_text("WIDTH = 8\n")
    before = list(sys.path)
    assert cli("train", path).code == 0
    assert sys.path == before


class TestRecipes:
    def test_no_file(self, cli):
        cli("train", "nowhere.py").mistake("there is no recipe nowhere.py")

    @pytest.mark.parametrize("name", ["build_model", "load_data"])
    def test_a_missing_function(self, cli, recipe, name):
        path = recipe(RECIPE.replace(f"def {name}", "def something"))
        cli("train", path).mistake(f"{path}:1", f"no function {name}()", "examples/digits.py")

    def test_a_syntax_error(self, cli, recipe):
        path = recipe("import keras\n\ndef build_model(:\n    pass\n")
        cli("train", path).mistake(f"{path}:3", "cannot be loaded")

    def test_an_exception_points_at_its_line(self, cli, recipe):
        path = recipe(changed("model.compile(", "model.complie("))
        line = 1 + path.read_text().splitlines().index(
            next(t for t in path.read_text().splitlines() if "complie" in t))
        cli("train", path).mistake(f"{path}:{line}", "build_model() failed", "complie")

    def test_a_model_that_is_none(self, cli, recipe):
        cli("train", recipe(changed("    return model", "    return 3"))).mistake(
            "build_model() returned int, not a keras.Model")

    def test_a_model_that_is_not_compiled(self, cli, recipe):
        path = recipe(changed("model.compile(", "dict("))
        cli("train", path).mistake("not compiled", "model.compile")

    def test_data_of_the_wrong_kind(self, cli, recipe):
        path = recipe(changed("return (x, y), (x[:16], y[:16])", "return x"))
        cli("train", path).mistake("load_data() must return (training data, validation data)")

    def test_loading_runs_nothing_else(self, recipe):
        with pytest.raises(RecipeError, match="is not a Python file"):
            load_recipe(recipe(name="tiny.txt"))


LAYER = '''
class Gate(keras.layers.Layer):
    def call(self, x):
        {line}
        return x


def build_model():
    model = keras.Sequential([keras.Input((8,)), Gate(), keras.layers.Dense(3)])
'''


class TestModels:
    def with_layer(self, recipe, line):
        head, tail = RECIPE.split("def build_model():")
        body = tail[tail.index("    model.compile("):]
        path = recipe(head + LAYER.format(line=line) + body)
        number = 1 + next(i for i, t in enumerate(path.read_text().splitlines()) if line in t)
        return path, f"{path}:{number}"

    def test_a_branch_on_a_tensor(self, cli, recipe):
        path, place = self.with_layer(recipe, "x = x if keras.ops.sum(x) > 0 else -x")
        cli("train", path).mistake(place, "bool(), as in `if`", "not known while", "Use where()")

    def test_shapes_that_do_not_fit(self, cli, recipe):
        path, place = self.with_layer(recipe, "x = keras.ops.matmul(x, keras.ops.ones((5, 3)))")
        cli("train", path).mistake(place, "8", "5")

    def test_data_that_does_not_fit_the_model(self, cli, recipe):
        path = recipe(changed("keras.Input((8,))", "keras.Input((9,))"))
        cli("train", path).mistake("tiny.py", "training failed", "expected axis -1", "9", "(32, 8)")

    def test_nothing_is_left_behind(self, cli, recipe):
        path, _ = self.with_layer(recipe, "x = x if keras.ops.sum(x) > 0 else -x")
        cli("train", path, "--out", "run")
        assert not os.path.exists("run/model.keras")


SLOW = RECIPE.replace("def load_data", '''
class Wait(keras.utils.PyDataset):
    def __len__(self):
        return 4

    def __getitem__(self, i):
        import time
        time.sleep(0.1)
        return np.ones((4, 8), "float32"), np.zeros(4, "int32")


def load_data():
    return Wait(), None


def unused''')


@pytest.mark.slow
class TestSignals:
    @pytest.mark.parametrize("sent, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
    def test_the_last_checkpoint_survives(self, tmp_path, sent, code):
        import keras

        (tmp_path / "slow.py").write_text(SLOW)
        out = tmp_path / "run"
        child = subprocess.Popen(
            [sys.executable, "-m", "tfn.tools.cli", "train", str(tmp_path / "slow.py"), "--epochs",
             "1000", "--out", str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=tmp_path)
        try:
            deadline = time.monotonic() + 120
            while not (out / "run.json").exists() and time.monotonic() < deadline:
                assert child.poll() is None, child.stderr.read()
                time.sleep(0.05)
            child.send_signal(sent)
            _, err = child.communicate(timeout=60)
        finally:
            child.kill()
        assert child.returncode == code, err
        assert "Traceback" not in err
        record = json.loads((out / "run.json").read_text())
        assert record["epochs"] >= 1
        assert f"{record['epochs']} epochs are complete" in " ".join(err.split())
        model = keras.models.load_model(out / "checkpoint.keras")
        assert model.predict(np.ones((2, 8), "float32"), verbose=0).shape == (2, 3)
        assert not [f for f in os.listdir(out) if f.startswith(".")]
