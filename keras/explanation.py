"""`tfn.keras.explain`: where a model's time and memory go, layer by layer.

The step is compiled as `fit` or `predict` does it and runs under the profiler. Every op keeps the path
of the layer that was running when it was traced (`Location.scope`), its derivative as well, so a kernel
knows whose it is; one that was fused of several layers' ops is shared out by their operations.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from ..compiler.codegen.target import Target
from ..compiler.compile import Executable, run_passes
from ..compiler.errors import TfnError
from ..compiler.ir.core import Function, Op
from ..compiler.profile import Profile, Row, profile, row_of
from ..compiler.runtime.bound import size_of
from ..compiler.runtime.plan import make_plan, residents
from ..compiler.tally import Part, part_of, shares

BATCH = 32
"""The batch that is made up where no inputs are given."""
_LEAST_RUNS, _MOST_RUNS, _SECONDS = 3, 100, 0.5
OTHER = "(other)"
"""What belongs to no layer: copies, and ops traced outside of all."""


@dataclass(frozen=True)
class LayerCost:
    """What one layer takes in a step, its sublayers not counted."""

    path: str
    kind: str
    """Its class; "" for what is no layer, such as a loss or an optimizer."""
    forward_seconds: float = 0.0
    backward_seconds: float = 0.0
    flops: float = 0.0
    nbytes: float = 0.0
    """Bytes its kernels read and write."""
    parameters: int = 0
    parameter_bytes: int = 0
    peak_bytes: float = 0.0
    """Bytes of it that are in the arena when the arena is fullest."""

    @property
    def seconds(self) -> float:
        return self.forward_seconds + self.backward_seconds


@dataclass(frozen=True)
class Explanation:
    """A step of a model, by layers. Prints as a table (`print`, or `rich`'s)."""

    model: str
    program: str
    """"train" or "predict"."""
    inputs: dict[str, str]
    """Shape and dtype of each input."""
    runs: int
    """How many runs the times are the medians of; 0 when nothing was run."""
    ops: int
    kernels: int
    """Different ones."""
    steps: int
    """Calls of kernels, copies and jumps in the program."""
    arena_bytes: int
    weight_bytes: int
    optimizer_bytes: int
    layers: tuple[LayerCost, ...]
    """In the order of their first op."""
    profile: Profile | None = field(default=None, repr=False, compare=False)
    """The profile behind the times: `profile.save`, `profile.roofline`."""

    @property
    def seconds(self) -> float:
        """Time in kernels per step."""
        return sum(layer.seconds for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and names."""
        row = asdict(replace(self, profile=None))
        del row["profile"]
        return {**row, "seconds": self.seconds}

    def to_json(self, **options: Any) -> str:
        """As JSON; `options` are those of `json.dumps`."""
        return json.dumps(self.to_dict(), **options)

    def plot(self, path: str | Path) -> None:
        """Write a page with a bar per layer: time where it was measured, operations otherwise, and
        memory at the peak."""
        Path(path).write_text(_page(self))

    def summary(self) -> str:
        """One line about the whole."""
        took = ""
        if self.runs:
            took = f"{self.seconds * 1e3:.3f} ms per step, median of {self.runs} runs; "
        state = f", optimizer {_bytes(self.optimizer_bytes)}" if self.optimizer_bytes else ""
        given = ", ".join(f"{n} {t}" for n, t in self.inputs.items())
        return (f"{self.model}, {self.program} of {given}: {took}{self.ops} ops,"
                f" {self.kernels} kernels in {self.steps} steps; weights {_bytes(self.weight_bytes)}"
                f"{state}, arena {_bytes(self.arena_bytes)}")

    def __rich__(self) -> Any:
        """The table for a terminal."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        columns = [c for c in _COLUMNS if c.shown(self)]
        table = Table()
        for column in columns:
            table.add_column(column.title, justify="right" if column.is_number else "left",
                             overflow="fold")
        for layer in self.layers:
            table.add_row(*(Text(column.text(layer, self)) for column in columns))
        return Group(Text(self.summary()), table)

    def __str__(self) -> str:
        columns = [c for c in _COLUMNS if c.shown(self)]
        lines = [[c.title for c in columns]]
        lines += [[c.text(layer, self) for c in columns] for layer in self.layers]
        widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
        return "\n".join([self.summary(), *(
            "  ".join(cell.rjust(w) if c.is_number else cell.ljust(w)
                      for c, cell, w in zip(columns, line, widths, strict=True)).rstrip()
            for line in lines)])


@dataclass(frozen=True)
class _Column:
    title: str
    text: Any
    """`(layer, explanation)` -> the cell."""
    shown: Any = bool
    """`explanation` -> whether the column is there: `bool` is always true."""
    is_number: bool = True


def _percent(layer: LayerCost, whole: Explanation) -> str:
    return f"{100 * layer.seconds / (whole.seconds or 1.0):.1f}"


_COLUMNS = (
    _Column("layer", lambda la, _: la.path, is_number=False),
    _Column("kind", lambda la, _: la.kind, is_number=False),
    _Column("ms", lambda la, _: f"{la.seconds * 1e3:.3f}", lambda e: e.runs),
    _Column("%", _percent, lambda e: e.runs),
    _Column("forward", lambda la, _: f"{la.forward_seconds * 1e3:.3f}", lambda e: e.program == "train"),
    _Column("backward", lambda la, _: f"{la.backward_seconds * 1e3:.3f}",
            lambda e: e.program == "train"),
    _Column("flops", lambda la, _: _count(la.flops)),
    _Column("bytes", lambda la, _: _bytes(la.nbytes)),
    _Column("params", lambda la, _: f"{la.parameters:,}"),
    _Column("peak", lambda la, _: _bytes(la.peak_bytes)),
)


def explain(model: Any, inputs: Any = None, *, train: bool = False) -> Explanation:
    """Measure where a step of `model` spends time and memory.

    `inputs` is what `predict_on_batch` takes, or with `train` the tuple that `train_on_batch` takes,
    `(x, y)` or `(x, y, sample_weight)`; without any, a batch of 32 is made up for a model whose input
    shapes are known. The model stays as it is, its optimizer too. Raises `TfnError` when inputs are
    needed and not given, and `ValueError` for a model that is to train and was not compiled.
    """
    from .backend.steps import PREDICTED, TRAINED, arrays

    if train:
        model._assert_compile_called("explain")
        if not isinstance(inputs, (tuple, list)) or len(inputs) < 2:
            raise TfnError("explain(model, inputs, train=True) needs inputs=(x, y): what the loss"
                           " expects cannot be made up")
    data = arrays(tuple(inputs) if train else (_made_up(model) if inputs is None else inputs,))
    if train:
        model._symbolic_build(data_batch=(*data, None)[:3])
    elif not all(layer.built for layer in model._flatten_layers()):
        model.predict_on_batch(data[0])
    kinds, step = (TRAINED, model.train_step) if train else (PREDICTED, model.predict_step)
    state = tuple([v.value for v in model.variables_of(kind)] for kind in kinds)
    function = _traced(model.program_of(step, kinds), state, data)
    executable = _compiled(function)
    found, runs = _measured(executable, state, data)
    return _explanation(model, "train" if train else "predict", _named(data[0]), function, executable,
                        {}, _typical(found, runs), runs, found)


def costs(model: Any, batch: int = 1) -> Explanation:
    """What a step of prediction computes and needs for a batch of this size, without running it: a loop
    counts once. Raises `TfnError` as `trace_inference` does."""
    from .export import trace_inference

    program = trace_inference(model)
    executable = _compiled(program.function)
    sizes = {"batch": batch}
    rows = [(row_of(step, sizes), 1.0, 0.0) for step in executable.plan.steps
            if step.phase == 0 and step.jump is None]
    inputs = {name: f"{dtype.name}{[size_of(d, sizes) for d in shape]}"
              for name, dtype, shape in program.inputs}
    return _explanation(model, "predict", inputs, program.function, executable, sizes, rows, 0, None)


# -- running --------------------------------------------------------------------------------------

def _made_up(model: Any) -> Any:
    from keras.src import tree

    from .export import input_structure

    if not getattr(model, "inputs", None):
        raise TfnError(f"the model {model.name!r} has no known inputs: give a batch,"
                       " tfn.keras.explain(model, x)")
    rng = np.random.default_rng(0)

    def array(spec: Any) -> np.ndarray:
        if None in spec.shape[1:]:
            raise TfnError(f"the model {model.name!r} has an input of shape {tuple(spec.shape)}: give a"
                           " batch, tfn.keras.explain(model, x)")
        shape = (spec.shape[0] or BATCH, *spec.shape[1:])
        if "float" in spec.dtype:
            return rng.random(shape).astype(spec.dtype)
        return rng.integers(0, 2, shape).astype(spec.dtype)

    return tree.map_structure(array, input_structure(model))


def _traced(program: Any, state: Any, data: Any) -> Function:
    from ..compiler.trace.jit import Jitted, jit

    # A model that runs eagerly is explained as it would be compiled.
    program = program if isinstance(program, Jitted) else jit(program)
    return program.trace(state, data)


def _compiled(function: Function) -> Executable:
    """With its fused ops, which a plan from the cache does not have."""
    fused = run_passes(function, Target.host())
    return Executable(fused, make_plan(fused, Target.host()))


def _measured(executable: Executable, state: Any, data: Any) -> tuple[Profile, int]:
    from ..compiler.trace import tree

    leaves, _ = tree.flatten((state, data))
    # Copies: the program writes the new state over the one it is given.
    given = [np.array(leaf) for leaf in leaves]
    with profile():
        again = Executable(executable.function, executable.plan)
        again(*given)
    runs, begun = 0, time.monotonic()
    with profile() as found:
        while runs < _LEAST_RUNS or (runs < _MOST_RUNS and time.monotonic() - begun < _SECONDS):
            again(*given)
            runs += 1
    return found, runs


def _typical(found: Profile, runs: int) -> list[tuple[Row, float, float]]:
    """Calls and seconds of each row in one run: the median of what its steps took. Another program
    that has the processor for a while is none of the model's time."""
    each, rest = divmod(len(found.events), runs)
    if rest or found.lost:  # A loop whose rounds differ: its mean.
        return [(row, row.calls / runs, row.seconds / runs) for row in found.rows]
    took = np.array([end - start for _, start, end in found.events]).reshape(runs, each)
    seconds: dict[int, float] = {}
    for (row, _, _), median in zip(found.events, np.median(took, axis=0).tolist(), strict=False):
        seconds[id(row)] = seconds.get(id(row), 0.0) + median
    return [(row, row.calls / runs, seconds[id(row)]) for row in found.rows]


def _named(x: Any) -> dict[str, str]:
    from keras.src import tree

    leaves = tree.flatten(x)
    names = sorted(x) if isinstance(x, dict) else [f"input_{i}" for i in range(len(leaves))]
    return {n: f"{leaf.dtype}{list(leaf.shape)}" for n, leaf in zip(names, leaves, strict=True)}


# -- to whom it belongs ---------------------------------------------------------------------------

class _Layers:
    """The layers of a model by the scopes of ops."""

    def __init__(self, model: Any):
        layers = model._flatten_layers()
        self.top = f"{model.name}/"
        """What the paths of some layers begin with, and those of others, of a loaded model, do not."""
        self.by_path = {layer.path: layer for layer in layers if layer.path}
        self.by_name = {layer.name: layer for layer in layers if not layer.path}

    def path(self, scope: str) -> str:
        """The path of the layer a scope is in. Scopes that are no layers, a seed generator's or those
        a layer opens itself, are the layer's; outside of all layers the outermost name counts."""
        path = whole = scope.removeprefix(self.top)
        while path:
            if self.layer(path) is not None:
                return path
            path = path.rpartition("/")[0]
        return whole.partition("/")[0] or OTHER

    def layer(self, path: str) -> Any:
        return (self.by_path.get(path) or self.by_path.get(self.top + path)
                or self.by_name.get(path.rpartition("/")[2]))


def _explanation(model: Any, program: str, inputs: dict[str, str], function: Function,
                 executable: Executable, sizes: dict[str, int],
                 rows: Sequence[tuple[Row, float, float]], runs: int,
                 found: Profile | None) -> Explanation:
    """`rows` are kernels with the calls and seconds of one step."""
    layers, ops = _Layers(model), list(function.body.walk())
    table: dict[str, dict[str, float]] = {path: {} for path in _in_order(layers, ops)}
    for row, calls, seconds in rows:
        for (scope, derivative), share in (row.shares or {("", False): 1.0}).items():
            cell = table.setdefault(layers.path(scope), {})
            side = "backward_seconds" if derivative else "forward_seconds"
            for name, amount in ((side, seconds), ("flops", row.flops * calls),
                                 ("nbytes", row.nbytes * calls)):
                cell[name] = cell.get(name, 0.0) + share * amount
    for (scope, _), amount in _at_the_peak(executable, sizes).items():
        cell = table.setdefault(layers.path(scope), {})
        cell["peak_bytes"] = cell.get("peak_bytes", 0.0) + amount
    for path, layer in layers.by_path.items():
        variables = [*layer._trainable_variables, *layer._non_trainable_variables]
        if variables:
            path = path.removeprefix(layers.top)
            # A layer without ops of its own, such as an LSTM's cell, is part of the one around it.
            while path not in table and "/" in path:
                path = path.rpartition("/")[0]
            cell = table.setdefault(path, {})
            count = sum(int(np.prod(v.shape)) for v in variables)
            for name, amount in (("parameters", count), ("parameter_bytes", _size(variables))):
                cell[name] = cell.get(name, 0) + amount
    plan = executable.plan
    return Explanation(
        model.name, program, inputs, runs, len(ops), len(plan.kernels()), len(plan.steps),
        executable.peak_bytes(**sizes), _size(model.variables_of("trainable_variables"))
        + _size(model.variables_of("non_trainable_variables")),
        _size(model.variables_of("optimizer_variables")) if program == "train" else 0,
        tuple(_cost(path, layers.layer(path), cell) for path, cell in table.items()), found)


def _cost(path: str, layer: Any, cell: Mapping[str, Any]) -> LayerCost:
    return LayerCost(path, "" if layer is None else type(layer).__name__, **cell)


def _in_order(layers: _Layers, ops: Iterable[Op]) -> list[str]:
    """Layers in the order of the forward pass, then what is no layer."""
    paths = dict.fromkeys(map(layers.path, dict.fromkeys(part_of(op)[0] for op in ops)))
    return sorted(paths, key=lambda path: layers.layer(path) is None)


def _at_the_peak(executable: Executable, sizes: dict[str, int]) -> dict[Part, float]:
    """Bytes in the arena at the node that needs most, by part."""
    lives = [(op, size_of(b.size, sizes), b.first, b.last)
             for op, b in residents(executable.function, Target.host())]
    if not lives:
        return {}
    change = np.zeros(max(last for *_, last in lives) + 2, np.int64)
    for _, size, first, last in lives:
        change[first] += size
        change[last + 1] -= size
    fullest = int(np.cumsum(change).argmax())
    found: dict[Part, float] = {}
    for op, size, first, last in lives:
        if first <= fullest <= last:
            inside = [] if op is None else op.regions[0].ops if op.name == "tfn.kernel" else [op]
            for part, share in (shares(inside, sizes) or {("", False): 1.0}).items():
                found[part] = found.get(part, 0.0) + share * size
    return found


def _size(variables: Iterable[Any]) -> int:
    return sum(np.asarray(v.value).nbytes for v in variables)


# -- how it looks ---------------------------------------------------------------------------------

def _bytes(n: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if n < 1000 or unit == "GB":
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1000
    raise AssertionError


def _count(n: float) -> str:
    for unit in ("", "k", "M", "G"):
        if n < 1000 or unit == "G":
            return f"{n:.0f}" if not unit else f"{n:.2f} {unit}"
        n /= 1000
    raise AssertionError


_BAR, _ROW, _NAME = 520, 20, 300


def _page(whole: Explanation) -> str:
    series: list[tuple[str, list[tuple[str, list[float]]]]] = []
    if whole.runs:
        series.append(("time, ms", [
            ("forward", [la.forward_seconds * 1e3 for la in whole.layers]),
            ("backward", [la.backward_seconds * 1e3 for la in whole.layers])]))
    else:
        series.append(("operations", [("forward", [la.flops for la in whole.layers])]))
    series.append(("bytes in the arena at its peak",
                   [("memory", [la.peak_bytes for la in whole.layers])]))
    plots = "\n".join(f"<h2>{escape(title)}</h2>\n{_bars(whole, parts)}" for title, parts in series)
    return f"""<!DOCTYPE html>
<meta charset="utf-8"><title>{escape(whole.model)}</title>
<style>body {{ font: 14px sans-serif; margin: 2em }} pre {{ font-size: 12px }}
.forward {{ fill: #36c }} .backward {{ fill: #c63 }} .memory {{ fill: #393 }}</style>
<h1>{escape(whole.model)}</h1>
{plots}
<pre>{escape(str(whole))}</pre>
"""


def _bars(whole: Explanation, parts: Sequence[tuple[str, Sequence[float]]]) -> str:
    longest = max(map(sum, zip(*(values for _, values in parts), strict=True)), default=0.0) or 1.0
    shapes = []
    for i, layer in enumerate(whole.layers):
        y, x = i * _ROW, float(_NAME)
        shapes.append(f'<text x="{_NAME - 8}" y="{y + 14}" text-anchor="end">'
                      f"{escape(layer.path)}</text>")
        for name, values in parts:
            width = _BAR * values[i] / longest
            shapes.append(f'<rect class="{name}" x="{x:.1f}" y="{y + 3}" width="{width:.1f}"'
                          f' height="{_ROW - 6}"><title>{escape(layer.path)}, {name}:'
                          f" {values[i]:.4g}</title></rect>")
            x += width
    return (f'<svg width="{_NAME + _BAR + 10}" height="{len(whole.layers) * _ROW}" role="img">\n'
            + "\n".join(shapes) + "\n</svg>")
