"""Convolutions of ResNet50 and MobileNet, forward and both gradients.

Arrays are NHWC and HWIO; PyTorch gets the same memory as NCHW views in `channels_last`, which is what
it likes best. All pad by half the window on every side, so that all frameworks do the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .workload import Workload, kernel, normal

# Image, channels in and out, window, stride.
SHAPES = (
    (56, 64, 64, 3, 1), (28, 128, 128, 3, 1), (14, 256, 256, 3, 1), (7, 512, 512, 3, 1),
    (56, 128, 128, 3, 2), (224, 3, 64, 7, 2), (56, 64, 256, 1, 1), (28, 512, 128, 1, 1),
    (14, 256, 1024, 1, 1), (7, 2048, 512, 1, 1), (56, 256, 512, 1, 2),
)
BATCHES = (1, 16)
# Batch, image, channels.
DEPTHWISE = ((1, 112, 32), (1, 14, 512), (8, 112, 32), (8, 14, 512))


def _pad(w) -> tuple[int, int]:
    return (w.shape[0] // 2, w.shape[0] // 2)


def _forward(stride: int) -> dict[str, Any]:
    def xp(f, x, w):
        return f.conv(x, w, stride, _pad(w))

    def torch(f, x, w):
        return f.nn.functional.conv2d(x, w, stride=stride, padding=w.shape[2] // 2)

    def tensorflow(f, x, w):
        pad = list(_pad(w))
        return f.nn.conv2d(x, w, stride, [[0, 0], pad, pad, [0, 0]])

    return {"xp": xp, "torch": torch, "tensorflow": tensorflow}


def _gradient(stride: int, which: int) -> dict[str, Any]:
    """Of the input (`which` 0) or of the weights (1)."""

    def xp(f, x, w, dy):
        return f.vjp(lambda x, w: f.conv(x, w, stride, _pad(w)), x, w)[1](dy)[which]

    def torch(f, x, w, dy):
        pad = w.shape[2] // 2
        mask = [which == 0, which == 1, False]
        return f.ops.aten.convolution_backward(dy, x, w, None, [stride] * 2, [pad] * 2, [1, 1],
                                               False, [0, 0], 1, mask)[which]

    def tensorflow(f, x, w, dy):
        pad = [n for pair in ((0, 0), _pad(w), _pad(w), (0, 0)) for n in pair]
        options = dict(out_backprop=dy, strides=[1, stride, stride, 1], padding="EXPLICIT",
                       explicit_paddings=pad)
        if which == 0:
            return f.raw_ops.Conv2DBackpropInput(input_sizes=x.shape, filter=w, **options)
        return f.raw_ops.Conv2DBackpropFilter(input=x, filter_sizes=w.shape, **options)

    return {"xp": xp, "torch": torch, "tensorflow": tensorflow}


def _channels_last(arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Images as NCHW views of NHWC memory; weights OIHW with the channels innermost."""
    x, w, *dy = arrays
    weights = np.ascontiguousarray(w.transpose(3, 0, 1, 2)).transpose(0, 3, 1, 2)
    return [x.transpose(0, 3, 1, 2), weights, *(d.transpose(0, 3, 1, 2) for d in dy)]


def _convolutions(batch: int, size: int, inputs: int, outputs: int, window: int,
                  stride: int) -> tuple[Workload, ...]:
    image = size // stride if window > 1 else -(-size // stride)
    x, w = normal(batch, size, size, inputs), normal(window, window, inputs, outputs, scale=0.05)
    dy = normal(batch, image, image, outputs)
    flops = 2 * batch * image * image * outputs * inputs * window * window
    moved = x.nbytes + w.nbytes + dy.nbytes
    name = f"conv/{{}}/n{batch}/{size}x{size}x{inputs}-{outputs}-{window}x{window}s{stride}"
    arrange = {"torch": _channels_last}
    return (
        kernel(name.format("forward"), (x, w), flops, moved, arrange=arrange, **_forward(stride)),
        kernel(name.format("dX"), (x, w, dy), flops, moved, arrange=arrange,
               **_gradient(stride, 0)),
        kernel(name.format("dW"), (x, w, dy), flops, moved, arrange=arrange, tolerance=2e-3,
               **_gradient(stride, 1)),
    )


# -- depthwise ---------------------------------------------------------------------------

def _depthwise(batch: int, size: int, channels: int) -> Workload:
    x, w = normal(batch, size, size, channels), normal(3, 3, channels, 1)

    def arrange(arrays):
        x, w = arrays
        return [x.transpose(0, 3, 1, 2), np.ascontiguousarray(w.transpose(2, 3, 0, 1))]

    return kernel(
        f"conv/depthwise/n{batch}/{size}x{size}x{channels}-3x3", (x, w),
        2 * 9 * batch * size * size * channels, result_bytes=x.nbytes, arrange={"torch": arrange},
        xp=lambda f, x, w: f.depthwise(x, w, (1, 1)),
        torch=lambda f, x, w: f.nn.functional.conv2d(x, w, padding=1, groups=w.shape[0]),
        tensorflow=lambda f, x, w: f.nn.depthwise_conv2d(x, w, [1, 1, 1, 1], "SAME"))


WORKLOADS = (
    *(w for batch in BATCHES for shape in SHAPES for w in _convolutions(batch, *shape)),
    *(_depthwise(*shape) for shape in DEPTHWISE),
)
