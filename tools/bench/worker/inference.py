"""Prediction: what a server does, batch 1 and batch 8."""

from __future__ import annotations

import os
import tempfile
from typing import Any

import numpy as np

from . import keras_models
from .keras_models import set_seeded_weights
from .training import MOBILENET_V2, RESNET50, Training, keras_of
from .workload import Run, Workload, integers, normal, statistics_of

BASE_BLOCKS = 12 * 128 * (12 * 768**2 + 2 * 128 * 768)


class KerasPrediction:
    """`predict_on_batch` of a model with seeded weights."""

    def __init__(self, framework: Any, program: Training):
        keras = keras_of(framework)
        self.model = program.build(keras)
        set_seeded_weights(self.model)
        if framework.keras_options:
            self.model.compile(**framework.keras_options)
        self.input = program.batch()[0][0]
        self.result: Any = None

    def step(self) -> None:
        self.result = self.model.predict_on_batch(self.input)

    def results(self) -> list[np.ndarray]:
        return [np.asarray(self.result)]

    def evidence(self) -> list[float]:
        return statistics_of(self.results())

    def alive(self) -> bool:
        other = self.model.predict_on_batch(np.flip(self.input, 1).copy())
        return not np.array_equal(np.asarray(other), np.asarray(self.result))

    def reversed(self) -> list[np.ndarray]:
        """The results when the batch comes in the opposite order, put back in its own."""
        found = self.model.predict_on_batch(np.flip(self.input, 0).copy())
        return [np.flip(np.asarray(found), 0)]


class OnnxPrediction:
    """The same model as an ONNX file, in ONNX Runtime."""

    def __init__(self, framework: Any, program: Training):
        keras = keras_of(framework)
        model = program.build(keras)
        set_seeded_weights(model)
        spec = program.inputs[0]
        signature = [keras.InputSpec(shape=spec.shape, dtype=spec.dtype)]
        with tempfile.TemporaryDirectory(prefix="tfn-bench-") as folder:
            file = os.path.join(folder, "model.onnx")
            model.export(file, format="onnx", input_signature=signature, verbose=False)
            self.session = framework.session(file)
        self.input = program.batch()[0][0]
        self.result = self._run(self.input)

    def _run(self, array: np.ndarray) -> np.ndarray:
        return self.session.run(None, {self.session.get_inputs()[0].name: array})[0]

    def step(self) -> None:
        self.result = self._run(self.input)

    def results(self) -> list[np.ndarray]:
        return [self.result]

    def evidence(self) -> list[float]:
        return statistics_of(self.results())

    def alive(self) -> bool:
        return not np.array_equal(self._run(np.flip(self.input, 1).copy()), self.result)


def _start(framework: Any, workload: Workload, program: Training) -> Run:
    onnx = workload.style_for(framework) == "onnx"
    return (OnnxPrediction if onnx else KerasPrediction)(framework, program)


def _predict(name: str, batch: int, build, spec, multiply_adds: float,
             styles: tuple[str, ...] = ("keras", "onnx")) -> Workload:
    training = Training(build, (spec,), integers(batch, high=2))
    return Workload(f"predict/{name}/n{batch}", dict.fromkeys(styles, training), _start,
                    2.0 * multiply_adds * batch, tolerance=1e-3, own_process=True)


WORKLOADS = (
    *(_predict("resnet50", n, keras_models.resnet50, normal(n, 224, 224, 3), RESNET50)
      for n in (1, 8)),
    _predict("mobilenet-v2", 1, keras_models.mobilenet_v2, normal(1, 224, 224, 3), MOBILENET_V2),
    *(_predict("bert-base-128", n, keras_models.bert_base, integers(n, 128, high=30522),
               BASE_BLOCKS) for n in (1, 8)),
    _predict("gpt2-generate-32", 1, keras_models.gpt2_generation, integers(1, 32, high=50257),
             63 * 12 * 12 * 768**2 + 32 * 50257 * 768,
             styles=("keras",)),  # a loop with a cache, which the exporter does not take
)
