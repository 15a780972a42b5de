"""Kernels that memory limits: rows, elementwise, optimizer, reductions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .workload import Workload, integers, kernel, normal

M = 1 << 20


# -- rows ------------------------------------------------------------------------------------------

def _softmax(rows: int, columns: int) -> Workload:
    def numpy(f, x):
        y = f.exp(x - x.max(-1, keepdims=True))
        y /= y.sum(-1, keepdims=True)
        return y

    x = normal(rows, columns)
    return kernel(f"rows/softmax/{rows}x{columns}", (x,), result_bytes=x.nbytes, numpy=numpy,
                  xp=lambda f, x: f.nn.softmax(x, axis=-1), torch=lambda f, x: f.softmax(x, -1),
                  tensorflow=lambda f, x: f.nn.softmax(x))


def _normalized(np, x, scale, offset):
    mean = np.mean(x, axis=-1, keepdims=True)
    centred = x - mean
    variance = np.mean(centred * centred, axis=-1, keepdims=True)
    return centred / np.sqrt(variance + 1e-5) * scale + offset


def _layernorm(rows: int, columns: int) -> Workload:
    def tensorflow(f, x, scale, offset):
        mean, variance = f.nn.moments(x, -1, keepdims=True)
        return f.nn.batch_normalization(x, mean, variance, offset, scale, 1e-5)

    x = normal(rows, columns)
    return kernel(
        f"rows/layernorm/{rows}x{columns}", (x, normal(columns), normal(columns)),
        result_bytes=x.nbytes, xp=lambda f, *a: _normalized(f.np, *a), numpy=_normalized,
        torch=lambda f, x, s, o: f.nn.functional.layer_norm(x, x.shape[1:], s, o),
        tensorflow=tensorflow)


def _layernorm_gradient(rows: int, columns: int) -> Workload:
    def xp(f, x, scale, dy):
        return f.vjp(lambda x, s: _normalized(f.np, x, s, 0.0), x, scale)[1](dy)

    def torch(f, x, scale, dy):
        shape = [x.shape[1]]
        _, mean, rstd = f.ops.aten.native_layer_norm(x, shape, scale, None, 1e-5)
        return f.ops.aten.native_layer_norm_backward(dy, x, shape, mean, rstd, scale, None,
                                                     [True, True, False])[:2]

    x = normal(rows, columns)
    return kernel(f"rows/layernorm-gradient/{rows}x{columns}", (x, normal(columns), x),
                  result_bytes=x.nbytes, xp=xp, torch=torch)


def _cross_entropy(rows: int, classes: int) -> Workload:
    def xp(f, logits, labels):
        picked = f.np.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
        return f.np.mean(f.logsumexp(logits, axis=-1) - picked)

    return kernel(
        f"rows/cross-entropy/{rows}x{classes}", (normal(rows, classes),
                                                 integers(rows, high=classes)), xp=xp,
        torch=lambda f, x, y: f.nn.functional.cross_entropy(x, y.long()),
        tensorflow=lambda f, x, y: f.reduce_mean(
            f.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=x)))


def _cross_entropy_gradient(rows: int, classes: int) -> Workload:
    def xp(f, logits, labels):
        def loss(logits):
            picked = f.np.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
            return f.np.mean(f.logsumexp(logits, axis=-1) - picked)

        return f.grad(loss)(logits)

    def torch(f, x, y):
        with f.enable_grad():
            x = x.detach().requires_grad_()
            return f.autograd.grad(f.nn.functional.cross_entropy(x, y.long()), x)[0]

    x = normal(rows, classes)
    return kernel(f"rows/cross-entropy-gradient/{rows}x{classes}",
                  (x, integers(rows, high=classes)), result_bytes=x.nbytes, xp=xp, torch=torch)


# -- elementwise -----------------------------------------------------------------------------------

def _gelu(kind: str, size: int) -> Workload:
    approximate = kind == "tanh"
    x = normal(size)
    return kernel(
        f"elementwise/gelu-{kind}/{size // M}M", (x,), result_bytes=x.nbytes,
        xp=lambda f, x: f.nn.gelu(x, approximate=approximate),
        torch=lambda f, x: f.nn.functional.gelu(x, approximate=kind if approximate else "none"),
        tensorflow=lambda f, x: f.nn.gelu(x, approximate=approximate))


def _unary(name: str, size: int) -> Workload:
    # Small enough for log1p: a NaN would hide any difference.
    x = normal(size, scale=0.1)

    def function(library):
        return lambda f, x: getattr(library(f), name)(x)

    return kernel(
        f"elementwise/{name}/{size // M}M", (x,), result_bytes=x.nbytes,
        xp=function(lambda f: f.np), torch=function(lambda f: f), numpy=function(lambda f: f),
        tensorflow=function(lambda f: f.math))


def _add(size: int) -> Workload:
    x = normal(size)
    return kernel(
        f"elementwise/add/{size // M}M", (x, x), result_bytes=x.nbytes,
        **_everywhere(lambda f, x, y: x + y))


def _everywhere(function: Callable) -> dict[str, Any]:
    """One program that is right in every style."""
    return dict.fromkeys(("xp", "torch", "numpy", "tensorflow"), function)


# Adam's first step from zero moments; state is updated in place where the framework can.
RATE, BETA1, BETA2, EPSILON = 1e-3, 0.9, 0.999, 1e-8


def _adam(size: int) -> Workload:
    def xp(f, p, m, v, g):
        m = BETA1 * m + (1 - BETA1) * g
        v = BETA2 * v + (1 - BETA2) * g * g
        scale = f.np.sqrt(v) / np.float32(np.sqrt(1 - BETA2)) + EPSILON
        return p - (RATE / (1 - BETA1)) * m / scale, m, v

    def torch(f, p, m, v, g):
        f._fused_adam_([p], [g], [m], [v], [], [f.ones(())], amsgrad=False, lr=RATE, beta1=BETA1,
                       beta2=BETA2, weight_decay=0.0, eps=EPSILON, maximize=False)
        return p, m, v

    def plain_torch(f, p, m, v, g):
        m.mul_(BETA1).add_(g, alpha=1 - BETA1)
        v.mul_(BETA2).addcmul_(g, g, value=1 - BETA2)
        scale = v.sqrt() / float(np.sqrt(1 - BETA2)) + EPSILON
        p.addcdiv_(m, scale, value=-RATE / (1 - BETA1))
        return p, m, v

    # The fused kernel cannot be compiled; the compiler fuses the plain one.
    programs: dict[str, Any] = {"xp": xp, "torch": torch, "torch.compile": plain_torch}
    x = normal(size)
    moment = normal(size, scale=1e-3, offset=1.0)
    return kernel(f"elementwise/adam/{size // M}M", (x, moment, moment, x), nbytes=7 * x.nbytes,
                  carry=3, **programs)


# -- sums ------------------------------------------------------------------------------------------

def _reduction(name: str, kind: str, axis: int | None, size: int) -> Workload:
    torch_kind = {"max": "amax", "sum": "sum"}[kind]

    def torch(f, x):
        return getattr(f, torch_kind)(x) if axis is None else getattr(f, torch_kind)(x, axis)

    return kernel(
        f"reduction/{name}/{size}x{size}", (normal(size, size),),
        xp=lambda f, x: getattr(f.np, kind)(x, axis=axis),
        numpy=lambda f, x: getattr(f, kind)(x, axis=axis), torch=torch,
        tensorflow=lambda f, x: getattr(f, "reduce_" + kind)(x, axis=axis))


WORKLOADS = (
    _softmax(1024, 1024), _softmax(16384, 1024),
    _layernorm(1365, 768), _layernorm(21845, 768), _layernorm_gradient(1365, 768),
    _cross_entropy(512, 10000), _cross_entropy_gradient(512, 10000),
    *(_gelu(kind, size) for kind in ("erf", "tanh") for size in (M, 16 * M)),
    *(_unary(name, M) for name in ("exp", "tanh", "log1p")), _add(M), _add(16 * M),
    _adam(M), _adam(16 * M),
    _reduction("sum-rows", "sum", -1, 2048), _reduction("sum-columns", "sum", 0, 2048),
    _reduction("max", "max", None, 2048),
)
