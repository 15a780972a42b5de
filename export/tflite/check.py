"""Running an exported `.tflite` file in LiteRT and comparing it with the bundle."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path

from ...compiler.errors import CompileError
from ..bundle import Bundle, Runner
from ..report import BATCHES, Check, Samples, errors, take_samples


def check_tflite(bundle: Bundle, files: Sequence[Path], samples: Samples | None = None,
                 engine: str = "compiler") -> Check:
    """Run every signature in LiteRT's interpreter with batches of 1, 7 and 100 samples.

    `samples` gives real inputs per signature; made ones are used without. Needs `ai_edge_litert`;
    raises `CompileError`, a defect of tfn, when LiteRT refuses the file.
    """
    from ai_edge_litert.interpreter import Interpreter

    (file,) = files
    try:
        interpreter = Interpreter(model_path=str(file))
    except (RuntimeError, ValueError) as error:
        raise CompileError(f"LiteRT does not accept {file}: {error}") from error
    runners = {name: Runner(bundle, name, engine) for name in bundle.signatures}
    absolute = relative = 0.0
    sizes: dict[int, None] = {}
    for count in BATCHES:
        for name, inputs in take_samples(bundle, samples, count).items():
            try:
                actual = interpreter.get_signature_runner(name)(**inputs)
            except (RuntimeError, ValueError) as error:
                raise CompileError(f"LiteRT cannot run {name!r} of {file} on a batch of {count}:"
                                   f" {error}") from error
            expected = runners[name].run(inputs)
            found = errors(actual, expected)
            absolute, relative = max(absolute, found[0]), max(relative, found[1])
            sizes[max((len(v) for v in inputs.values() if v.ndim), default=1)] = None
    return Check("LiteRT", importlib.metadata.version("ai_edge_litert"), sum(sizes), absolute,
                 relative, tuple(sizes))
