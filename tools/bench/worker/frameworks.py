"""The frameworks that can be measured, each behind the same few words.

`styles` are the kinds of program a framework runs, the preferred one first. Every class imports its
framework when it is made, so that a worker needs only its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np


class NumPy:
    """NumPy as it is."""

    styles: tuple[str, ...] = ("numpy",)
    modules: tuple[str, ...] = ("numpy",)
    keras_backend: str | None = None
    keras_options: dict[str, Any] = {}
    """What `Model.compile` is told; without any, Keras's default for its backend."""

    def __init__(self, threads: int):
        self.f: Any = np

    def array(self, array: np.ndarray, dtype: str | None = None) -> Any:
        if dtype == "bfloat16":
            from .workload import Unsupported

            raise Unsupported("NumPy has no bfloat16")
        return array if dtype is None else array.astype(dtype)

    def compiled(self, function: Callable, carry: int = 0) -> Callable:
        """`function` with the framework's namespace filled in, compiled where there is a compiler;
        the first `carry` arguments may be overwritten."""
        f = self.f
        return lambda *arrays: function(f, *arrays)

    def wait(self, result: Any) -> None:
        """Return when `result` is there."""

    def numpy(self, result: Any) -> np.ndarray:
        return np.asarray(result)


class Tfn(NumPy):
    """tfn under `tfn.jit`."""

    styles = ("xp", "keras")
    modules = ("tfn", "llvmlite", "numpy")
    keras_backend = "tfn"

    def __init__(self, threads: int):
        import tfn

        nn: Any = tfn.nn
        xp: Any = tfn.numpy
        random: Any = tfn.random
        self.jit = tfn.jit
        self.f = SimpleNamespace(
            np=xp, nn=nn, vjp=tfn.vjp, grad=tfn.grad, scan=tfn.scan, top_k=xp.top_k,
            logsumexp=xp.logsumexp, jit=tfn.jit, cumsum=xp.cumsum, cumprod=xp.cumprod,
            cummax=xp.cummax, random_bits=random.bits,
            conv=lambda x, w, stride, pad: nn.conv(x, w, stride, [pad, pad]),
            depthwise=lambda x, w, pad: nn.depthwise_conv(x, w, 1, [pad, pad]),
            max_pool=lambda x, size, stride: nn.max_pool(x, size, stride, "valid"),
            mean_pool=lambda x, size, stride: nn.avg_pool(x, size, stride, "valid"))

    def array(self, array: np.ndarray, dtype: str | None = None) -> Any:
        return self.f.np.asarray(array, dtype=dtype)

    def compiled(self, function: Callable, carry: int = 0) -> Callable:
        f = self.f
        return self.jit(lambda *arrays: function(f, *arrays), donate_argnums=tuple(range(carry)))

    def numpy(self, result: Any) -> np.ndarray:
        return np.asarray(result)


class Jax(Tfn):
    """JAX under `jax.jit`, on the CPU."""

    modules = ("jax", "jaxlib", "numpy")
    keras_backend = "jax"

    def __init__(self, threads: int):
        import jax
        from jax import lax

        self.jax = jax
        self.jit = jax.jit
        layout = ("NHWC", "HWIO", "NHWC")

        def conv(x, w, stride, pad):
            return lax.conv_general_dilated(x, w, (stride, stride), (pad, pad),
                                            dimension_numbers=layout)

        def depthwise(x, w, pad):
            rows, columns, channels, _ = w.shape
            return lax.conv_general_dilated(
                x, w.reshape(rows, columns, 1, channels), (1, 1), (pad, pad),
                dimension_numbers=layout, feature_group_count=channels)

        def max_pool(x, size, stride):
            return lax.reduce_window(x, -np.inf, lax.max, (1, size, size, 1),
                                     (1, stride, stride, 1), "VALID")

        def mean_pool(x, size, stride):
            return lax.reduce_window(x, 0.0, lax.add, (1, size, size, 1),
                                     (1, stride, stride, 1), "VALID") / (size * size)

        self.f = SimpleNamespace(
            np=jax.numpy, nn=jax.nn, vjp=jax.vjp, grad=jax.grad, scan=lax.scan, top_k=lax.top_k,
            logsumexp=jax.nn.logsumexp, jit=jax.jit, conv=conv, depthwise=depthwise,
            max_pool=max_pool, mean_pool=mean_pool, cumsum=lax.cumsum, cumprod=lax.cumprod,
            cummax=lax.cummax, random_bits=jax.random.bits)

    def array(self, array: np.ndarray, dtype: str | None = None) -> Any:
        return self.jax.numpy.array(array, dtype=dtype)

    def wait(self, result: Any) -> None:
        self.jax.block_until_ready(result)


class Torch(NumPy):
    """PyTorch, eagerly."""

    styles: tuple[str, ...] = ("torch", "keras")
    modules: tuple[str, ...] = ("torch", "numpy")
    keras_backend = "torch"

    def __init__(self, threads: int):
        import torch

        torch.set_num_threads(threads)
        torch.set_num_interop_threads(1)
        torch.set_grad_enabled(False)
        self.f = torch

    def array(self, array: np.ndarray, dtype: str | None = None) -> Any:
        tensor = self.f.from_numpy(array)
        return tensor if dtype is None else tensor.to(getattr(self.f, dtype))

    def module(self, model: Any) -> Any:
        """What runs the forward pass of a module."""
        return model

    def numpy(self, result: Any) -> np.ndarray:
        tensor = result.detach()
        return (tensor.float() if tensor.dtype == self.f.bfloat16 else tensor).numpy()


class TorchKeras(Torch):
    """Keras on PyTorch, also where there is a program in PyTorch's own terms."""

    styles = ("keras",)


class TorchCompile(Torch):
    """PyTorch's own programs under `torch.compile`."""

    styles = ("torch.compile", "torch")

    def compiled(self, function: Callable, carry: int = 0) -> Callable:
        return self.f.compile(super().compiled(function, carry), dynamic=False)

    def module(self, model: Any) -> Any:
        return self.f.compile(model, dynamic=False)


class TensorFlow(NumPy):
    """TensorFlow under `tf.function`."""

    styles = ("tensorflow", "keras")
    modules = ("tensorflow", "numpy")
    keras_backend = "tensorflow"

    def __init__(self, threads: int):
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        self.f = tf

    def array(self, array: np.ndarray, dtype: str | None = None) -> Any:
        return self.f.cast(array, dtype) if dtype else self.f.constant(array)

    def compiled(self, function: Callable, carry: int = 0) -> Callable:
        return self.f.function(super().compiled(function, carry), autograph=False)

    def numpy(self, result: Any) -> np.ndarray:
        return result.numpy()


class TensorFlowXla(TensorFlow):
    """TensorFlow's programs, compiled by XLA."""

    keras_options = {"jit_compile": True}

    def compiled(self, function: Callable, carry: int = 0) -> Callable:
        return self.f.function(NumPy.compiled(self, function), autograph=False, jit_compile=True)


class OnnxRuntime(Torch):
    """ONNX Runtime, on what PyTorch's exporter makes of Keras's model."""

    styles = ("onnx",)
    modules = ("onnxruntime", "onnx", "torch")

    def __init__(self, threads: int):
        super().__init__(threads)
        import onnxruntime

        self.threads, self.runtime = threads, onnxruntime

    def session(self, file: str) -> Any:
        """A session that runs the model in `file` with this framework's threads."""
        options = self.runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        return self.runtime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


FRAMEWORKS: dict[str, type[NumPy]] = {
    "tfn": Tfn, "numpy": NumPy, "jax": Jax, "torch": Torch, "torch.compile": TorchCompile,
    "torch-keras": TorchKeras, "tensorflow": TensorFlow, "tensorflow-xla": TensorFlowXla,
    "onnxruntime": OnnxRuntime,
}
"""By the name of a peer."""
