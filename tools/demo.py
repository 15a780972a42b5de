"""`tfn demo`: everything once, on real data: train, export, run without Python, two ranks, serve."""

from __future__ import annotations

import importlib.util
import json as json_module
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import typer
from rich.table import Table

from .console import console

NAME = "demo"

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
EPOCHS = 15
SAMPLES = 100
PARALLEL_EPOCHS = 2


@dataclass
class Step:
    """One line of the report. `ok` is None for a step whose outside tool is missing."""

    name: str
    seconds: float = 0.0
    ok: bool | None = None
    detail: str = ""


@dataclass
class Demo:
    """The figures the demo reports, and its steps."""

    folder: Path
    validation_accuracy: float | None = None
    cpp_max_rel_error: float | None = None
    litert_max_rel_error: float | None = None
    two_rank_max_rel_error: float | None = None
    http_equal: bool | None = None
    steps: list[Step] = field(default_factory=list)

    def run(self, name: str, action: Callable[[], tuple[bool | None, str]]) -> bool | None:
        """Time a step, record what it says, and go on whatever happens in it."""
        from ..compiler.errors import TfnError

        step = Step(name)
        self.steps.append(step)
        start = time.perf_counter()
        with console.status(name):
            try:
                step.ok, step.detail = action()
            except (TfnError, OSError, subprocess.SubprocessError, ValueError) as error:
                step.ok, step.detail = False, " ".join(str(error).split())[:400]
        step.seconds = round(time.perf_counter() - start, 2)
        mark = {True: "[green]ok[/]", False: "[red]failed[/]", None: "[yellow]skipped[/]"}[step.ok]
        console.print(f"{mark} {name}: {step.detail}", soft_wrap=True)
        return step.ok

    def as_json(self) -> dict[str, Any]:
        return {"validation_accuracy": self.validation_accuracy,
                "cpp_max_rel_error": self.cpp_max_rel_error,
                "litert_max_rel_error": self.litert_max_rel_error,
                "two_rank_max_rel_error": self.two_rank_max_rel_error,
                "http_equal": self.http_equal,
                "steps": [vars(s) for s in self.steps]}


def command(
    out: Path = typer.Option(Path("tfn-demo"), help="Folder for everything the demo makes."),
    json: Path = typer.Option(None, "--json", help="Write the figures to this file."),
) -> None:
    """Train a network on handwritten digits, ship it in three ways, and ask it over HTTP.

    Nothing is downloaded. Steps whose outside tool is missing say how to get it.
    """
    demo = Demo(out)
    perform(demo)
    if json is not None:
        json.write_text(json_module.dumps(demo.as_json(), indent=2) + "\n")
    _table(demo)
    if any(step.ok is False for step in demo.steps):
        raise typer.Exit(1)


def perform(demo: Demo) -> None:
    """Run every step; one that fails leaves out those that need its result."""
    _empty(demo.folder)
    ranks = _Ranks(demo)
    session = _Session(demo)
    if not demo.run("train", session.train):
        return
    demo.run("evaluate", session.evaluate)
    if demo.run("bundle", session.bundle):
        demo.run("C++", session.cpp)
        demo.run("LiteRT", session.litert)
    demo.run("two ranks", ranks.compare)
    if session.folder is not None:
        demo.run("serve", session.serve)


_MARK = ".tfn-demo"


def _empty(folder: Path) -> None:
    """An empty folder; what an earlier demo left there goes, anything else is not touched."""
    from ..compiler.errors import TfnError

    if folder.exists() and any(folder.iterdir()) and not (folder / _MARK).exists():
        raise TfnError(f"{folder} holds files that no demo made; choose another folder with --out")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / _MARK).touch()


class _Session:
    """The steps that share the trained model."""

    def __init__(self, demo: Demo):
        self.demo = demo
        self.model: Any = None
        self.images: Any = None
        self.labels: Any = None
        self.folder: Path | None = None

    def train(self) -> tuple[bool, str]:
        from .recipe import load_recipe
        from .run_folder import RunFolder
        from .train import train

        recipe = load_recipe(EXAMPLES / "digits.py")
        run = train(recipe, RunFolder(self.demo.folder / "run"), EPOCHS, seed=0, verbose=0)
        loss = run.history["loss"]
        return loss[-1] < loss[0], (f"{EPOCHS} epochs on 1,437 scans, loss {loss[0]:.3f} ->"
                                    f" {loss[-1]:.3f}")

    def evaluate(self) -> tuple[bool, str]:
        from .recipe import load_recipe
        from .run_folder import RunFolder

        self.model = RunFolder(self.demo.folder / "run").load_model()
        _, (self.images, self.labels) = load_recipe(EXAMPLES / "digits.py").load_data()
        result = self.model.evaluate(self.images, self.labels, verbose=0, return_dict=True)
        self.demo.validation_accuracy = float(result["accuracy"])
        return (self.demo.validation_accuracy >= 0.98,
                f"accuracy {self.demo.validation_accuracy:.4f} on 360 scans it has not seen")

    def bundle(self) -> tuple[bool, str]:
        from .exporters import write_model

        self.folder = write_model(self.model, self.demo.folder / "models", "digits")
        size = sum(f.stat().st_size for f in self.folder.iterdir())
        return True, f"{self.folder}, {size:,} bytes, any batch size"

    def cpp(self) -> tuple[bool | None, str]:
        ok, error, detail = self._export("cpp")
        self.demo.cpp_max_rel_error = error
        return ok, detail

    def litert(self) -> tuple[bool | None, str]:
        ok, error, detail = self._export("tflite")
        self.demo.litert_max_rel_error = error
        return ok, detail

    def _export(self, format: str) -> tuple[bool | None, float | None, str]:
        """Export, run in the real runtime, and compare with `model.predict`.

        The report compares the runtime with the bundle; adding how far the bundle is from the model
        bounds the distance from the model.
        """
        from ..export import Runner, export, read_bundle

        assert self.folder is not None
        images = self.images[:SAMPLES]
        bundle = read_bundle(self.folder)
        (report,) = export(bundle, (format,), self.demo.folder / "exported",
                           {"serving_default": {"image": images}})
        if report.check is None:
            return None, None, f"{report.reason}; {report.install}"
        expected = self.model.predict(images, verbose=0)
        (served,) = Runner(bundle).run({"image": images}).values()
        error = report.check.max_rel_error + _relative_error(served, expected)
        size = sum(report.files.values())
        return (report.ok and error <= 1e-5, error,
                f"{size:,} bytes, run by {report.check.runtime} on {SAMPLES} scans:"
                f" within {error:.1e} of model.predict")

    def serve(self) -> tuple[bool, str]:
        """Start the server, ask it about one scan, stop it."""
        assert self.folder is not None
        server = _Server(self.folder.parent)
        try:
            url = server.wait()
            index = 0
            image, label = self.images[index], int(self.labels[index])
            body = json_module.dumps({"instances": [image.tolist()]}).encode()
            request = urllib.request.Request(f"{url}/v1/models/digits:predict", body,
                                             {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=30) as response:
                answer = json_module.loads(response.read())
        finally:
            code = server.stop()
        got = np.array(answer["predictions"], np.float32)
        expected = self.model.predict(self.images[index:index + 1], verbose=0)
        self.demo.http_equal = bool(np.array_equal(got, expected))
        console.print(_picture(image, int(got[0].argmax()), label))
        return (self.demo.http_equal and code == 0 and int(got.argmax()) == label,
                f"the answer over HTTP equals model.predict: {self.demo.http_equal};"
                f" stopped with code {code}")


class _Ranks:
    """The same training on one rank and on two, in processes of their own."""

    def __init__(self, demo: Demo):
        self.demo = demo

    def compare(self) -> tuple[bool | None, str]:
        if importlib.util.find_spec("mpi4py") is None or not _beside("mpiexec"):
            return None, "no MPI; pip install 'tfn[dist]'"
        one, two = (self._train(n) for n in (1, 2))
        error = max(_relative_error(two[k], one[k]) for k in one)
        self.demo.two_rank_max_rel_error = error
        equal = all(np.array_equal(one[k], two[k]) for k in one)
        same = "the same bits" if equal else "not the same bits"
        return error <= 1e-6, (f"{PARALLEL_EPOCHS} epochs on 1 and on 2 MPI ranks: weights and"
                               f" losses within {error:.1e}, {same}")

    def _train(self, ranks: int) -> dict[str, np.ndarray]:
        out = self.demo.folder.resolve() / f"ranks-{ranks}.npz"
        done = subprocess.run(
            [sys.executable, "-m", f"{__package__}.cli", "launch", "-n", str(ranks),
             str(EXAMPLES / "digits_parallel.py"), "--", "--epochs", str(PARALLEL_EPOCHS),
             "--out", str(out)], capture_output=True, text=True, timeout=300,
            env={**os.environ, "KERAS_BACKEND": "tfn"})
        if done.returncode:
            raise ValueError(f"{ranks} ranks stopped with code {done.returncode}:"
                             f" {done.stderr.strip()[-300:]}")
        with np.load(out) as data:
            return {name: data[name] for name in data.files}


class _Server:
    """`tfn serve` as a process on a free loopback port."""

    def __init__(self, base: Path):
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.cli", "serve", str(base), "--port", "0"],
            stdout=subprocess.PIPE, text=True)

    def wait(self) -> str:
        """The URL, once the server says it."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if " at http" not in line:
            raise ValueError(f"the server did not start: {line.strip() or 'it printed nothing'}")
        return line.rsplit(" at ", 1)[1].strip()

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def _beside(program: str) -> str | None:
    return shutil.which(program, path=str(Path(sys.executable).parent)) or shutil.which(program)


def _relative_error(a: np.ndarray, b: np.ndarray) -> float:
    """Largest |a - b| over largest |b|."""
    scale = float(np.abs(b).max())
    return float(np.abs(a.astype(np.float64) - b).max()) / scale if scale else 0.0


_SHADES = " ░▒▓█"


def _picture(image: np.ndarray, predicted: int, label: int) -> str:
    """The scan in the terminal beside what it is taken for."""
    rows = ["".join(_SHADES[round(float(v) * (len(_SHADES) - 1))] * 2 for v in row)
            for row in image[..., 0]]
    rows[3] += f"    predicted: {predicted}"
    rows[4] += f"    label:     {label}"
    return "\n".join(rows)


def _table(demo: Demo) -> None:
    table = Table("step", "seconds", "what was checked", "result", title="tfn demo")
    for step in demo.steps:
        result = {True: "[green]ok[/]", False: "[red]failed[/]", None: "[yellow]skipped[/]"}
        table.add_row(step.name, f"{step.seconds:.1f}", step.detail, result[step.ok])
    table.add_row("total", f"{sum(s.seconds for s in demo.steps):.1f}", "", "")
    console.print(table)
