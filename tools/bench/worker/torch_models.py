"""PyTorch's own versions of some models, as its users write them, with the weights of the Keras ones.

Images are `channels_last`, the faster layout on a CPU. With `torch.compile` the model's forward and
backward are compiled, the optimizer is not: that is what its guide shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .keras_models import seeded_weights

if TYPE_CHECKING:
    from .training import Training


@dataclass(frozen=True)
class TorchTraining:
    """`build(torch)` is a module; batch, loss and optimizer are those of `like`."""

    build: Callable[[Any], Any]
    like: Training

    def start(self, framework: Any) -> TorchRun:
        return TorchRun(framework, self)


class TorchRun:
    """The usual loop: forward, backward, optimizer, and reading the loss."""

    def __init__(self, framework: Any, program: TorchTraining):
        torch = framework.f
        torch.set_grad_enabled(True)
        self.model = program.build(torch).train()
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        like = program.like
        if like.optimizer == "SGD":
            self.optimizer = torch.optim.SGD(parameters, like.rate, momentum=0.9)
        else:
            self.optimizer = torch.optim.Adam(parameters, like.rate, eps=1e-7)
        self.forward = framework.module(self.model)
        self.loss = torch.nn.CrossEntropyLoss()
        (x,), y = like.batch()
        self.input, self.target = torch.from_numpy(x), torch.from_numpy(y).long()
        if x.ndim == 4:
            self.input = self.input.permute(0, 3, 1, 2)
        self.losses: list[float] = []

    def step(self) -> None:
        self.optimizer.zero_grad()
        loss = self.loss(self.forward(self.input), self.target)
        loss.backward()
        self.optimizer.step()
        self.losses.append(loss.item())

    def evidence(self) -> list[float]:
        return list(self.losses)

    def results(self) -> list[np.ndarray]:
        return [np.array(self.losses), *(p.detach().numpy() for p in self.model.parameters())]

    def alive(self) -> bool:
        return len(set(self.losses)) > 1 and bool(np.isfinite(self.losses).all())


# -- models ------------------------------------------------------------------------------------------

def _dense(torch: Any, path: str, inputs: int, outputs: int) -> Any:
    layer = torch.nn.Linear(inputs, outputs)
    kernel = seeded_weights(f"{path}/kernel", (inputs, outputs))
    layer.weight = torch.nn.Parameter(torch.from_numpy(kernel.T.copy()))
    torch.nn.init.zeros_(layer.bias)
    return layer


def mlp(torch: Any) -> Any:
    nn = torch.nn
    return nn.Sequential(_dense(torch, "model/hidden1", 784, 512), nn.ReLU(),
                         _dense(torch, "model/hidden2", 512, 512), nn.ReLU(),
                         _dense(torch, "model/logits", 512, 10))


def lstm(torch: Any) -> Any:
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.cells = torch.nn.LSTM(64, 128, batch_first=True)
            for name, kind, size in (("weight_ih_l0", "kernel", 64),
                                     ("weight_hh_l0", "recurrent_kernel", 128)):
                kernel = seeded_weights(f"model/lstm/lstm_cell/{kind}", (size, 512))
                setattr(self.cells, name, torch.nn.Parameter(torch.from_numpy(kernel.T.copy())))
            for bias in (self.cells.bias_ih_l0, self.cells.bias_hh_l0):
                torch.nn.init.zeros_(bias)
            # Keras has one bias.
            self.cells.bias_hh_l0.requires_grad_(False)
            self.logits = _dense(torch, "model/logits", 128, 10)

        def forward(self, x):
            return self.logits(self.cells(x)[0][:, -1])

    return Model()


def resnet50(torch: Any) -> Any:
    """The architecture of `keras.applications`: strides in the first convolution of a stage."""
    nn = torch.nn

    def conv(path: str, inputs: int, outputs: int, window: int = 1, stride: int = 1) -> Iterator:
        layer = nn.Conv2d(inputs, outputs, window, stride, window // 2)
        kernel = seeded_weights(f"{path}_conv/kernel", (window, window, inputs, outputs))
        layer.weight = nn.Parameter(torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()))
        nn.init.zeros_(layer.bias)
        yield layer
        yield nn.BatchNorm2d(outputs, eps=1.001e-5, momentum=0.01)

    class Block(torch.nn.Module):
        def __init__(self, path, inputs, filters, stride):
            super().__init__()
            self.body = nn.Sequential(
                *conv(f"{path}_1", inputs, filters, 1, stride), nn.ReLU(),
                *conv(f"{path}_2", filters, filters, 3), nn.ReLU(),
                *conv(f"{path}_3", filters, 4 * filters))
            self.beside = nn.Identity() if inputs == 4 * filters else nn.Sequential(
                *conv(f"{path}_0", inputs, 4 * filters, 1, stride))
            self.relu = nn.ReLU()

        def forward(self, x):
            return self.relu(self.beside(x) + self.body(x))

    layers = [*conv("conv1", 3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for stage, (filters, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), start=2):
        for block in range(1, blocks + 1):
            stride = 2 if block == 1 and stage > 2 else 1
            layers.append(Block(f"conv{stage}_block{block}", channels, filters, stride))
            channels = 4 * filters
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), _dense(torch, "predictions", 2048, 1000)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)
