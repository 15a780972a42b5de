"""The recipes learn what they say they learn.

In short form a recipe gets past a bar that it misses untrained; in full form (`pytest -m nightly
tests/examples`) it reaches the score its docstring and its page in docs/examples state.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from tfn.export.bundle import Runner, read_bundle
from tfn.tools.exporters import write_model

EXAMPLES = Path(__file__).absolute().parents[2] / "examples"
STATED = re.compile(r"at (least|most) (\d+\.\d+)")


@dataclass(frozen=True)
class Short:
    """A short form: arguments of `main`, the bar, and what makes of it an untrained model."""

    bar: float
    trained: dict = field(default_factory=dict)
    untrained: dict = field(default_factory=lambda: {"epochs": 0})


SHORT = {
    "addition": Short(0.15, {"epochs": 3}),
    "cartpole": Short(40.0, {"updates": 20}, {"updates": 1}),
    "chords": Short(0.45, {"epochs": 2, "examples": 1200}),
    "diffusion": Short(0.4, {"epochs": 2, "judge_epochs": 3}),
    "forecast": Short(0.6, {"epochs": 2, "step": 12}),
    "recommender": Short(0.9, {"epochs": 2}),
    "segmentation": Short(0.3, {"epochs": 3, "examples": 900}),
    "sentiment": Short(0.85, {"epochs": 2, "examples": 3000}),
    "similarity": Short(0.7, {"epochs": 4}),
    "vae": Short(28.0, {"epochs": 8}),
    "vit": Short(0.5, {"epochs": 3}),
    "wide_and_deep": Short(0.8, {"epochs": 2, "rows": 20_000}),
}


def stated(module) -> tuple[str, float]:
    """("least" or "most", score) of a recipe's docstring."""
    (found,) = STATED.findall(" ".join(module.__doc__.split()))
    return found[0], float(found[1])


def reaches(score: float, which: str, bar: float) -> bool:
    return score >= bar if which == "least" else score <= bar


def test_every_recipe_is_tested():
    """Here, or in a file of its own; digits_parallel.py by the tests of `tfn launch`."""
    recipes = {f.stem for f in EXAMPLES.glob("*.py") if "def main(" in f.read_text()}
    elsewhere = {f.stem.removeprefix("test_") for f in Path(__file__).parent.glob("test_*.py")}
    assert recipes - elsewhere - {"digits_parallel"} == set(SHORT)


@pytest.mark.parametrize("name", SHORT)
def test_short(recipe, name):
    module, short = recipe(name), SHORT[name]
    which, _ = stated(module)
    assert not reaches(module.main(**short.untrained), which, short.bar)
    assert reaches(module.main(**short.trained), which, short.bar)


@pytest.mark.parametrize("name", SHORT)
def test_page(recipe, repository, name):
    """The page states the docstring's score and gives the docstring's command."""
    module = recipe(name)
    page = (repository / "docs" / "examples" / f"{name}.md").read_text()
    assert [(which, float(score)) for which, score in STATED.findall(" ".join(page.split()))] == [
        stated(module)]
    (command,) = re.findall(r"^    (.+)$", module.__doc__, re.MULTILINE)
    assert f"\n{command}\n" in page


@pytest.mark.nightly
@pytest.mark.parametrize("name", SHORT)
def test_full(recipe, name):
    module = recipe(name)
    which, score = stated(module)
    assert reaches(module.main(), which, score)


def test_a_model_that_draws_at_random_is_exported(recipe, tmp_path):
    module = recipe("vae")
    runner = Runner(read_bundle(write_model(module.build_model(), tmp_path, "vae")))
    scans = module.load_data()[1][0]
    for size in 1, 3:
        (drawn,) = runner.run({"scan": scans[:size]}).values()
        assert drawn.shape == (size, 8, 8, 1)
        # The untrained decoder draws grey, but not the same grey for each point.
        assert np.ptp(drawn) > 0.01 and np.all(abs(drawn - 0.5) < 0.3)


@pytest.mark.parametrize("name", [n for n in SHORT if n != "cartpole"])
def test_exported(recipe, name, tmp_path):
    """A bundle of the model, read back, computes what the model does, for two sizes of batch."""
    module = recipe(name)
    model = module.build_model()
    if name == "vae":  # What the whole model gives is drawn at random.
        model, x = model.get_layer("decoder"), np.ones((3, 2), "float32")
    else:
        _, validation = module.load_data()
        x = (validation if isinstance(validation, tuple) else validation[0])[0]
    given = x if isinstance(x, dict) else {model.inputs[0].name: x}
    runner = Runner(read_bundle(write_model(model, tmp_path, name)))
    for size in 1, 3:
        some = {key: value[:size] for key, value in given.items()}
        (found,) = runner.run(some).values()
        expected = model.predict_on_batch(some if isinstance(x, dict) else x[:size])
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
