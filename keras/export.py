"""What leaves Keras: the inference program of a model, as IR with its weights as arguments.

Exporters work on the IR and never see Keras.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..compiler.errors import TfnError
from ..compiler.ir.core import Function, TensorType
from ..compiler.ir.dims import Dim, Extent
from ..compiler.ir.dtypes import DType, as_dtype
from ..compiler.trace.core import trace

Spec = tuple[str, DType, tuple[Extent, ...]]
"""Name, dtype and shape of an input or output."""


@dataclass(frozen=True)
class InferenceProgram:
    """A model's forward pass. The function's arguments are the weights, then the inputs."""

    function: Function
    weights: dict[str, np.ndarray]
    inputs: tuple[Spec, ...]
    outputs: tuple[Spec, ...]


def trace_inference(model: Any, name: str = "serving_default") -> InferenceProgram:
    """Trace `model(inputs, training=False)` for any batch size.

    The first dim of every input is the symbolic dim `batch`. Raises `TfnError` for a model that has
    not been built or has other unknown dims.
    """
    from keras.src import tree

    if not model.built or not getattr(model, "inputs", None):
        raise TfnError(f"the model {model.name!r} has no known inputs: call it on a batch once, or"
                       " give its first layer a shape, before exporting it")
    structure = input_structure(model)
    inputs = tree.flatten(structure)
    input_specs = tuple((_identifier(x.name), as_dtype(x.dtype), _symbolic(model, x.shape))
                        for x in inputs)
    trainable, fixed = model.trainable_variables, model.non_trainable_variables
    variables = [*trainable, *fixed]
    weights = dict(zip(_unique([v.path for v in variables]),
                       [np.asarray(v.value) for v in variables], strict=True))
    results: list[Any] = []

    def forward(*arguments):
        values = arguments[: len(variables)]
        given = tree.pack_sequence_as(structure, list(arguments[len(variables):]))
        kwargs = {"training": False} if model._call_has_training_arg else {}
        outputs, _ = model.stateless_call(
            list(values[: len(trainable)]), list(values[len(trainable):]), given, **kwargs)
        results.append(outputs)
        return tree.flatten(outputs)

    types = [TensorType(w.shape, as_dtype(w.dtype)) for w in weights.values()]
    types += [TensorType(shape, dtype) for _, dtype, shape in input_specs]
    function, _ = trace(forward, types, name)
    names = _output_names(results[0])
    outputs = tuple((n, t.dtype, t.shape)
                    for n, t in zip(names, function.result_types, strict=True))
    return InferenceProgram(function, weights, input_specs, outputs)


def input_structure(model: Any) -> Any:
    """The inputs in the nesting the model is called with."""
    functional = getattr(model, "_functional", None) or model
    found = getattr(functional, "_inputs_struct", model.inputs)
    return found[0] if isinstance(found, (list, tuple)) and len(found) == 1 else found


def _symbolic(model: Any, shape) -> tuple[Extent, ...]:
    if None in shape[1:]:
        raise TfnError(f"the model {model.name!r} has an input of shape {tuple(shape)}: only the"
                       " batch may be unknown when exporting; fix the other dims in its Input")
    return (Dim.named("batch") if shape[0] is None else shape[0], *shape[1:])


def _output_names(outputs: Any) -> list[str]:
    if isinstance(outputs, dict):
        return [_identifier(k) for k in sorted(outputs)]
    count = len(outputs) if isinstance(outputs, (list, tuple)) else 1
    return [f"output_{i}" for i in range(count)]


def _identifier(name: str) -> str:
    """A name every format accepts."""
    return re.sub(r"\W", "_", name)


def _unique(names: list[str]) -> list[str]:
    seen: dict[str, int] = {}
    result = []
    for name in names:
        count = seen.get(name, 0)
        seen[name] = count + 1
        result.append(name if not count else f"{name}_{count}")
    return result
