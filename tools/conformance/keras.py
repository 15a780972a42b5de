"""`python -m tfn.tools.conformance keras`: Keras's own tests, on tfn or on another backend.

The tests run in processes of their own (`keras_worker.py`), a few files at a time. When one dies, or a
test takes too long, that test has failed and a new process goes on with the next.
"""

from __future__ import annotations

import json as jsonlib
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from pathlib import Path

import typer
from rich.progress import Progress
from rich.table import Table

from ..console import console, errors

OUTCOMES = ("passed", "failed", "skipped")
OTHER_BACKENDS = ("jax", "numpy", "openvino", "tensorflow", "torch")
"""Folders below `backend` that test the insides of a backend."""
START = 120
"""Seconds a process may take to its first test."""
FILES_AT_ONCE = 8
"""Test files per process: importing Keras and TensorFlow takes as long as a file of tests."""
EXCLUDED = Path(__file__).with_name("keras_excluded.txt")


@dataclass
class Outcome:
    """What became of a test. `detail` says why it failed or was skipped."""

    id: str
    outcome: str
    detail: str = ""

    @property
    def folder(self) -> str:
        return str(Path(self.id.split("::")[0]).parent)


def command(
    paths: list[str] = typer.Argument(None, help="Folders, files or test ids below keras/src, such"
                                      " as losses or layers/core; default: all."),
    backend: str = typer.Option("tfn", help="The Keras backend to run them on."),
    jobs: int = typer.Option(1, "-n", min=1, help="Processes."),
    json: Path = typer.Option(None, "--json", help="Write the results to this file."),
    compare: Path = typer.Option(None, help="Results of another backend (--json): list what passed"
                                 " there and fails here."),
    limit: float = typer.Option(300, help="Seconds a test may take."),
) -> None:
    """Run Keras's own tests.

    Prints a table per folder and the tests that fail. Tests in keras_excluded.txt are skipped for the
    reason given there, and those that need a package which is not installed. The exit code is 1 when a
    test fails, with --compare only when it passed there.
    """
    root = keras_source()
    theirs = None if compare is None else read_passed(compare)
    groups = batches(root, paths or [])
    excluded = read_exclusions(EXCLUDED) if backend == "tfn" else {}
    begun = time.monotonic()
    outcomes: dict[str, Outcome] = {}
    with Progress(console=errors, transient=True) as progress:
        task = progress.add_task("keras", total=sum(map(len, groups)))
        for files, found in run(root, groups, backend, excluded, jobs, limit):
            outcomes.update((o.id, o) for o in found)
            progress.advance(task, files)
    seconds = time.monotonic() - begun
    results = summary([outcomes[i] for i in sorted(outcomes)], backend, seconds)
    if json is not None:
        json.write_text(jsonlib.dumps(results, indent=1) + "\n")
    failures = [o for o in outcomes.values() if o.outcome == "failed"]
    if theirs is not None:
        failures = [o for o in failures if o.id in theirs]
    report(results, sorted(failures, key=lambda o: o.id),
           "" if compare is None else f" and passed in {compare}")
    raise typer.Exit(1 if failures or not outcomes else 0)


def keras_source() -> Path:
    """The folder `keras/src` of the installed Keras, found without importing it."""
    here = Path(__file__).parents[2]
    path = [p for p in sys.path if Path(p or ".").resolve() != here.resolve()]
    spec = PathFinder.find_spec("keras", path)
    if spec is None or not spec.origin:
        raise typer.BadParameter("Keras is not installed: pip install 'keras>=3.15,<3.16'")
    return Path(spec.origin).parent / "src"


def batches(root: Path, paths: Sequence[str]) -> list[list[str]]:
    """The test files below `paths`, a few of one folder at a time; test ids as they are."""
    found: dict[Path, list[str]] = {}
    for path in paths or [""]:
        file = root / path.split("::")[0]
        if not file.exists():
            raise typer.BadParameter(f"there is no {path} below {root}")
        for test in sorted(file.rglob("*_test.py")) if file.is_dir() else [file]:
            name = test.relative_to(root)
            if name.parts[0] == "backend" and name.parts[1] in OTHER_BACKENDS:
                continue
            target = path if "::" in path else str(name)
            group = found.setdefault(name.parent, [])
            if target not in group:
                group.append(target)
    return [group[i:i + FILES_AT_ONCE] for group in found.values()
            for i in range(0, len(group), FILES_AT_ONCE)]


def read_exclusions(file: Path) -> dict[str, str]:
    """Test id -> why it is not run: the line that starts with `#` above it."""
    reasons: dict[str, str] = {}
    reason = ""
    for line in file.read_text().splitlines():
        if line.startswith("#"):
            reason = line[1:].strip()
        elif line.strip():
            if not reason:
                raise ValueError(f"{file}: {line} has no reason above it")
            reasons[line.strip()] = reason
    return reasons


def read_passed(file: Path) -> set[str]:
    """The ids that passed in results written by `--json`."""
    try:
        outcomes = jsonlib.loads(file.read_text())["outcomes"]
    except (OSError, ValueError, KeyError) as error:
        raise typer.BadParameter(f"{file} holds no results of this command: {error}") from error
    return {name for name, outcome in outcomes.items() if outcome == "passed"}


def run(root: Path, groups: Sequence[list[str]], backend: str, excluded: dict[str, str], jobs: int = 1,
        limit: float = 300) -> Iterator[tuple[int, list[Outcome]]]:
    """The outcomes of each group, with the number of its files, as they come."""
    with tempfile.TemporaryDirectory(prefix="tfn-keras-") as home, ThreadPoolExecutor(jobs) as pool:
        # Large groups first: none is left to run alone at the end.
        futures = [pool.submit(_Group(root, targets, backend, excluded, limit, jobs, Path(home),
                                      f"group{i}").run)
                   for i, targets in sorted(enumerate(groups), key=lambda g: -len(g[1]))]
        for future in as_completed(futures):
            yield future.result()


@dataclass
class _Group:
    """Test files that one process after the other runs until all their tests have an outcome."""

    root: Path
    targets: list[str]
    backend: str
    excluded: dict[str, str]
    limit: float
    jobs: int
    home: Path
    name: str
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    started: list[str] = field(default_factory=list)
    finished: set[str] = field(default_factory=set)

    def run(self) -> tuple[int, list[Outcome]]:
        left = [self.targets]
        while left:
            targets = left.pop()
            before = len(self.finished)
            why = self._process(targets)
            if why is None:
                continue
            broken = [i for i in self.started if i not in self.finished]
            for test in broken:
                self.outcomes[test] = Outcome(test, "failed", why)
                self.finished.add(test)
            if broken or len(self.finished) > before:
                left.append(targets)
            elif len(targets) > 1:
                # It died while it read the files: which one does not load?
                left += [[t] for t in targets]
            else:
                self.outcomes[targets[0]] = Outcome(targets[0], "failed", why)
        return len(self.targets), list(self.outcomes.values())

    def _process(self, targets: list[str]) -> str | None:
        """Run the tests in `targets` that have no outcome. Returns why the process did not end well."""
        channel = self.home / f"{self.name}.jsonl"
        channel.write_text("")
        folder = self.home / self.name
        folder.mkdir(exist_ok=True)
        options = {"root": str(self.root), "targets": [str(self.root / t) for t in targets],
                   "backend": self.backend, "excluded": self.excluded, "channel": str(channel),
                   "done": sorted(self.finished)}
        environment = {**os.environ, "KERAS_HOME": str(self.home / "keras"), "TMPDIR": str(folder),
                       "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "",
                       # What the user adds to pytest's options is for other tests.
                       "PYTEST_ADDOPTS": ""}
        if self.jobs > 1:
            threads = max(1, (os.cpu_count() or 1) // self.jobs)
            environment.setdefault("TFN_NUM_THREADS", str(threads))
        with (self.home / f"{self.name}.txt").open("w+") as output:
            process = subprocess.Popen(
                [sys.executable, "-P", str(Path(__file__).with_name("keras_worker.py")),
                 jsonlib.dumps(options)],
                cwd=folder, stdout=output, stderr=subprocess.STDOUT, env=environment)
            overdue = self._wait(process, channel)
            self._read(channel)
            if overdue:
                return f"took more than {self.limit:g} s"
            if process.returncode in (0, 1, 5):
                # pytest: all passed, some failed, none collected.
                return None
            output.seek(0)
            lines = [line for line in output.read().splitlines() if line.strip()]
        said = [line for line in lines if "Fatal" in line][-1:] or lines[-1:]
        return f"the process ended with code {process.returncode}: {''.join(said)}"

    def _wait(self, process: subprocess.Popen, channel: Path) -> bool:
        """Wait for the end of `process`; end it and return True when nothing happens for too long."""
        size, since = 0, time.monotonic()
        while True:
            try:
                process.wait(0.2)
                return False
            except subprocess.TimeoutExpired:
                now = channel.stat().st_size
                if now != size:
                    size, since = now, time.monotonic()
                elif time.monotonic() - since > (self.limit if size else max(START, self.limit)):
                    process.kill()
                    process.wait()
                    return True

    def _read(self, channel: Path) -> None:
        for line in channel.read_text().splitlines():
            try:
                event = jsonlib.loads(line)
            except ValueError:
                continue  # the line it was writing when it died
            if "started" in event:
                self.started.append(event["started"])
            elif "finished" in event:
                self.finished.add(event["finished"])
            else:
                new = Outcome(event["id"], event["outcome"], event["detail"])
                old = self.outcomes.get(new.id)
                # A test has several phases and subtests: the worst counts.
                if old is None or _severity(new) > _severity(old):
                    self.outcomes[new.id] = new


def _severity(outcome: Outcome) -> int:
    return ("passed", "skipped", "failed").index(outcome.outcome)


def summary(outcomes: Sequence[Outcome], backend: str, seconds: float) -> dict:
    """The results as `--json` writes them."""
    folders: dict[str, Counter] = {}
    for o in outcomes:
        folders.setdefault(o.folder, Counter())[o.outcome] += 1

    def counts(counter: Counter) -> dict[str, int]:
        return {name: counter[name] for name in OUTCOMES}

    return {
        "backend": backend,
        "seconds": round(seconds, 1),
        "totals": counts(sum(folders.values(), Counter())),
        "folders": {name: counts(folders[name]) for name in sorted(folders)},
        "failures": [{"id": o.id, "detail": o.detail} for o in outcomes if o.outcome == "failed"],
        "outcomes": {o.id: o.outcome for o in outcomes},
    }


def report(results: dict, failures: Sequence[Outcome], where: str) -> None:
    """A table per folder, and the failures."""
    table = Table("folder", *OUTCOMES)
    for name, counts in results["folders"].items():
        table.add_row(name, *(str(counts[o] or "") for o in OUTCOMES))
    table.add_section()
    table.add_row("all", *(str(results["totals"][o]) for o in OUTCOMES))
    console.print(table)
    for o in failures:
        console.print(f"{o.id}: {' '.join(o.detail.split())[:300]}", soft_wrap=True, markup=False)
    console.print(f"{len(failures)} failed{where}; {results['totals']['passed']} passed on"
                  f" {results['backend']} in {results['seconds']:.0f} s", markup=False)
