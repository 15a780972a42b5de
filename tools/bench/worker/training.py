"""Training steps of Keras models: one script, whatever backend Keras runs on."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import keras_models, torch_models
from .keras_models import CATEGORIES, NUMBERS, set_seeded_weights
from .torch_models import TorchTraining
from .workload import Run, Spec, Workload, integers, normal


@dataclass(frozen=True)
class Training:
    """A model, the specs of a batch (inputs, then target), a loss and an optimizer by name."""

    build: Callable[[Any], Any]
    inputs: tuple[Spec, ...]
    target: Spec
    loss: str = "SparseCategoricalCrossentropy"
    optimizer: str = "Adam"
    rate: float = 1e-3

    def batch(self) -> tuple[list[np.ndarray], np.ndarray]:
        random = np.random.default_rng(0)
        return [s.draw(random) for s in self.inputs], self.target.draw(random)

    def start(self, framework: Any) -> Run:
        return KerasTraining(framework, self)


def keras_of(framework: Any) -> Any:
    """Keras on the backend of `framework`."""
    os.environ["KERAS_BACKEND"] = framework.keras_backend
    import keras

    if keras.config.backend() != framework.keras_backend:
        raise RuntimeError(f"Keras runs on {keras.config.backend()} already")
    return keras


class KerasTraining:
    """`train_on_batch` on one batch again and again: the loss falls, the same way everywhere."""

    def __init__(self, framework: Any, training: Training):
        keras = keras_of(framework)
        if framework.keras_backend == "torch":
            framework.f.set_grad_enabled(True)
        self.model = training.build(keras)
        set_seeded_weights(self.model)
        self.model.compile(optimizer=optimizer(keras, training),
                           loss=getattr(keras.losses, training.loss)(from_logits=True),
                           **framework.keras_options)
        inputs, self.target = training.batch()
        self.inputs = inputs if len(inputs) > 1 else inputs[0]
        self.losses: list[float] = []

    def step(self) -> None:
        loss = self.model.train_on_batch(self.inputs, self.target)
        # Reported losses are means over the steps since the metrics were reset.
        self.model.reset_metrics()
        self.losses.append(float(np.asarray(loss)))

    def evidence(self) -> list[float]:
        return list(self.losses)

    def results(self) -> list[np.ndarray]:
        return [np.array(self.losses), *self.model.get_weights()]

    def alive(self) -> bool:
        return len(set(self.losses)) > 1 and bool(np.isfinite(self.losses).all())


def optimizer(keras: Any, training: Training) -> Any:
    options = {"momentum": 0.9} if training.optimizer == "SGD" else {}
    return getattr(keras.optimizers, training.optimizer)(training.rate, **options)


def _start(framework: Any, workload: Workload, program: Training | TorchTraining) -> Run:
    return program.start(framework)


def _train(name: str, training: Training, flops: float = 0.0, tolerance: float = 1e-2,
           torch: Callable[[Any], Any] | None = None) -> Workload:
    """`flops` are those of the matrix products and convolutions of a step: forward three times."""
    programs: dict[str, Any] = {"keras": training}
    if torch is not None:
        programs["torch"] = TorchTraining(torch, training)
    return Workload(f"train/{name}", programs, _start, flops, tolerance=tolerance,
                    own_process=True, trajectory=True)


def _classes(count: int, classes: int) -> Spec:
    return integers(count, high=classes)


# Multiply-adds of one forward step of one example.
RESNET50, MOBILENET_V2, UNET = 3.86e9, 0.3e9, 2.42e9
SMALL_BLOCKS = 4 * 128 * (12 * 512**2 + 2 * 128 * 512)
GPT2_BLOCKS = 256 * (12 * (12 * 768**2 + 2 * 256 * 768) + 50257 * 768)


def _steps(multiply_adds: float, batch: int) -> float:
    return 6.0 * multiply_adds * batch


WORKLOADS = (
    _train("mlp/n128", Training(keras_models.mlp, (normal(128, 784),), _classes(128, 10)),
           _steps(784 * 512 + 512 * 512 + 5120, 128), torch=torch_models.mlp),
    _train("cnn/n64", Training(keras_models.cnn, (normal(64, 28, 28, 1),), _classes(64, 10)),
           _steps(26 * 26 * 288 + 11 * 11 * 64 * 288 + 1600 * 128 + 1280, 64)),
    _train("resnet50/n8", Training(keras_models.resnet50, (normal(8, 224, 224, 3),),
                                   _classes(8, 1000), optimizer="SGD", rate=1e-2),
           _steps(RESNET50, 8), tolerance=5e-2, torch=torch_models.resnet50),
    _train("mobilenet-v2/n8", Training(keras_models.mobilenet_v2, (normal(8, 224, 224, 3),),
                                       _classes(8, 1000), optimizer="SGD", rate=1e-2),
           _steps(MOBILENET_V2, 8), tolerance=5e-2),
    _train("unet-128x128/n4", Training(keras_models.unet, (normal(4, 128, 128, 3),),
                                       integers(4, 128, 128, high=2)),
           _steps(UNET, 4), tolerance=2e-2),
    _train("bert-small-128/n16", Training(keras_models.bert_small, (integers(16, 128, high=30522),),
                                          _classes(16, 2), rate=1e-4), _steps(SMALL_BLOCKS, 16)),
    _train("gpt2-124m-256/n2", Training(keras_models.gpt2, (integers(2, 256, high=50257),),
                                        integers(2, 256, high=50257), rate=1e-4),
           _steps(GPT2_BLOCKS, 2)),
    _train("lstm-128-100/n32", Training(keras_models.lstm, (normal(32, 100, 64),),
                                        _classes(32, 10)),
           _steps(100 * 4 * 128 * (64 + 128), 32), torch=torch_models.lstm),
    _train("wide-and-deep/n256",
           Training(keras_models.wide_and_deep,
                    (Spec((256, len(CATEGORIES)), "int32", min(CATEGORIES)), normal(256, NUMBERS)),
                    Spec((256, 1), "float32", 2), "BinaryCrossentropy"),
           _steps(141 * 256 + 256 * 128 + 128 * 64 + 72, 256)),
)
