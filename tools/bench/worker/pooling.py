"""Pooling of images, forward and its gradient. NHWC; PyTorch gets the same memory as NCHW views."""

from __future__ import annotations

from .workload import Workload, kernel, normal

# Images, their size, channels, window, stride.
SHAPES = ((16, 112, 64, 3, 2), (16, 112, 64, 2, 2), (32, 28, 32, 3, 2), (32, 28, 32, 2, 2))


def _views(arrays):
    return [a.transpose(0, 3, 1, 2) for a in arrays]


def _poolings(batch: int, size: int, channels: int, window: int, stride: int
              ) -> tuple[Workload, ...]:
    small = (size - window) // stride + 1
    x, dy = normal(batch, size, size, channels), normal(batch, small, small, channels)

    def name(what: str) -> str:
        return f"pool/{what}/n{batch}/{size}x{size}x{channels}-{window}x{window}s{stride}"

    def largest_gradient(f, x, dy):
        _, places = f.nn.functional.max_pool2d(x, window, stride, return_indices=True)
        return f.ops.aten.max_pool2d_with_indices_backward(
            dy, x, [window] * 2, [stride] * 2, [0, 0], [1, 1], False, places)

    def mean_gradient(f, x, dy):
        return f.ops.aten.avg_pool2d_backward(dy, x, [window] * 2, [stride] * 2, [0, 0], False,
                                              True, None)

    def tensorflow_gradient(f, x, dy):
        y = f.nn.max_pool2d(x, window, stride, "VALID")
        return f.raw_ops.MaxPoolGrad(
            orig_input=x, orig_output=y, grad=dy, ksize=[1, window, window, 1],
            strides=[1, stride, stride, 1], padding="VALID")

    arrange = {"torch": _views}
    return (
        kernel(name("max"), (x,), result_bytes=dy.nbytes, arrange=arrange,
               xp=lambda f, x: f.max_pool(x, window, stride),
               torch=lambda f, x: f.nn.functional.max_pool2d(x, window, stride),
               tensorflow=lambda f, x: f.nn.max_pool2d(x, window, stride, "VALID")),
        kernel(name("max-gradient"), (x, dy), result_bytes=x.nbytes, arrange=arrange,
               xp=lambda f, x, dy: f.vjp(lambda x: f.max_pool(x, window, stride), x)[1](dy)[0],
               torch=largest_gradient, tensorflow=tensorflow_gradient),
        kernel(name("mean"), (x,), result_bytes=dy.nbytes, arrange=arrange,
               xp=lambda f, x: f.mean_pool(x, window, stride),
               torch=lambda f, x: f.nn.functional.avg_pool2d(x, window, stride),
               tensorflow=lambda f, x: f.nn.avg_pool2d(x, window, stride, "VALID")),
        kernel(name("mean-gradient"), (x, dy), nbytes=x.nbytes + dy.nbytes, arrange=arrange,
               xp=lambda f, x, dy: f.vjp(lambda x: f.mean_pool(x, window, stride), x)[1](dy)[0],
               torch=mean_gradient),
    )


WORKLOADS = tuple(w for shape in SHAPES for w in _poolings(*shape))
