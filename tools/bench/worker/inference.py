"""Prediction: what a server does, batch 1 and batch 8."""

from __future__ import annotations

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
        self.input = program.batch()[0][0]
        self.result: Any = None

    def step(self) -> None:
        self.result = self.model.predict_on_batch(self.input)

    def evidence(self) -> list[float]:
        return statistics_of([np.asarray(self.result)])

    def alive(self) -> bool:
        other = self.model.predict_on_batch(np.flip(self.input, 1).copy())
        return not np.array_equal(np.asarray(other), np.asarray(self.result))


def _start(framework: Any, workload: Workload, program: Training) -> Run:
    return KerasPrediction(framework, program)


def _predict(name: str, batch: int, build, spec, multiply_adds: float) -> Workload:
    training = Training(build, (spec,), integers(batch, high=2))
    return Workload(f"predict/{name}/n{batch}", {"keras": training}, _start,
                    2.0 * multiply_adds * batch, tolerance=1e-3, own_process=True)


WORKLOADS = (
    *(_predict("resnet50", n, keras_models.resnet50, normal(n, 224, 224, 3), RESNET50)
      for n in (1, 8)),
    _predict("mobilenet-v2", 1, keras_models.mobilenet_v2, normal(1, 224, 224, 3), MOBILENET_V2),
    *(_predict("bert-base-128", n, keras_models.bert_base, integers(n, 128, high=30522),
               BASE_BLOCKS) for n in (1, 8)),
    _predict("gpt2-generate-32", 1, keras_models.gpt2_generation, integers(1, 32, high=50257),
             63 * 12 * 12 * 768**2 + 32 * 50257 * 768),
)
