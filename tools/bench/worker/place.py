"""Elements moved without computing: transposes, rows gathered and added, parts joined, padded, cut;
dtypes changed, random bits made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .workload import Spec, Workload, integers, kernel, normal

M = 1 << 20


def _everywhere(function: Callable) -> dict[str, Any]:
    """`function(f.np, *arrays)` where the program is the same in NumPy's words."""
    return {"xp": lambda f, *a: function(f.np, *a), "numpy": function}


# -- transposes ------------------------------------------------------------------------------------

def _transpose(*shape: int, order: tuple[int, ...], dtype: str = "float32") -> Workload:
    x = integers(*shape, high=100, dtype=dtype) if dtype == "int8" else normal(*shape, dtype=dtype)
    words = {"float32": ""}.get(dtype, f"-{dtype}")
    name = f"{'x'.join(map(str, shape))}-{''.join(map(str, order))}{words}"
    return kernel(
        f"place/transpose/{name}", (x,), nbytes=2 * x.nbytes,
        xp=lambda f, x: f.np.transpose(x, order), torch=lambda f, x: x.permute(order).contiguous(),
        numpy=lambda f, x: f.ascontiguousarray(x.transpose(order)),
        tensorflow=lambda f, x: f.transpose(x, order))


# -- rows ------------------------------------------------------------------------------------------

def _embedding(words: int, width: int, count: int) -> Workload:
    return kernel(
        f"place/embedding/{words}x{width}-{count}",
        (normal(words, width), integers(count, high=words)), nbytes=8 * count * width,
        xp=lambda f, table, ids: f.np.take(table, ids, axis=0),
        numpy=lambda f, table, ids: f.take(table, ids, axis=0),
        torch=lambda f, table, ids: f.nn.functional.embedding(ids, table),
        tensorflow=lambda f, table, ids: f.gather(table, ids))


def _embedding_gradient(words: int, width: int, count: int) -> Workload:
    table, dy = normal(words, width), normal(count, width)
    return kernel(
        f"place/embedding-gradient/{words}x{width}-{count}",
        (table, integers(count, high=words), dy), nbytes=2 * dy.nbytes + table.nbytes,
        xp=lambda f, table, ids, dy: f.vjp(lambda t: f.np.take(t, ids, axis=0), table)[1](dy)[0],
        torch=lambda f, table, ids, dy: f.ops.aten.embedding_dense_backward(
            dy, ids.long(), table.shape[0], -1, False),
        tensorflow=lambda f, table, ids, dy: f.math.unsorted_segment_sum(dy, ids, table.shape[0]))


def _gather_along(rows: int, columns: int, count: int) -> Workload:
    return kernel(
        f"place/take-along-axis/{rows}x{columns}-{count}",
        (normal(rows, columns), integers(rows, count, high=columns)), nbytes=12 * rows * count,
        xp=lambda f, x, i: f.np.take_along_axis(x, i, 1),
        numpy=lambda f, x, i: f.take_along_axis(x, i, 1),
        torch=lambda f, x, i: f.gather(x, 1, i.long()),
        tensorflow=lambda f, x, i: f.gather(x, i, batch_dims=1, axis=1))


def _scatter_along(rows: int, columns: int, count: int) -> Workload:
    """The gradient of `_gather_along`."""

    def torch(f, x, i, dy):
        return f.zeros_like(x).scatter_add_(1, i.long(), dy)

    return kernel(
        f"place/take-along-axis-gradient/{rows}x{columns}-{count}",
        (normal(rows, columns), integers(rows, count, high=columns), normal(rows, count)),
        nbytes=12 * rows * count + 4 * rows * columns, torch=torch,
        xp=lambda f, x, i, dy: f.vjp(lambda x: f.np.take_along_axis(x, i, 1), x)[1](dy)[0])


def _histogram(bins: int, count: int) -> Workload:
    """Numbers added into the cells that indices name."""
    return kernel(
        f"place/histogram/{bins}-{count}", (integers(count, high=bins), normal(count)),
        nbytes=8 * count + 4 * bins, xp=lambda f, i, x: f.np.zeros(bins, np.float32).at[i].add(x),
        numpy=lambda f, i, x: f.bincount(i, x, bins).astype(f.float32),
        torch=lambda f, i, x: f.zeros(bins).index_add_(0, i, x),
        tensorflow=lambda f, i, x: f.math.unsorted_segment_sum(x, i, bins))


# -- parts -----------------------------------------------------------------------------------------

def _part(name: str, inputs: tuple[Spec, ...], share: float, torch: Callable, xp: Callable,
          tensorflow: Callable | None = None) -> Workload:
    """`share`: bytes read and written over those of the inputs."""
    programs = _everywhere(xp) | {"torch": torch}
    if tensorflow is not None:
        programs["tensorflow"] = tensorflow
    return kernel(f"place/{name}", inputs, nbytes=share * sum(s.nbytes for s in inputs), **programs)


def _parts() -> tuple[Workload, ...]:
    x, image = normal(2048, 2048), normal(16, 112, 112, 64)
    return (
        _part("concatenate-rows/2048x2048", (x, x), 2, lambda f, *x: f.cat(x, 0),
              lambda np, *x: np.concatenate(x, 0), lambda f, *x: f.concat(x, 0)),
        _part("concatenate-columns/2048x2048", (x, x), 2, lambda f, *x: f.cat(x, 1),
              lambda np, *x: np.concatenate(x, 1), lambda f, *x: f.concat(x, 1)),
        _part("stack-last/1M", (normal(M), normal(M)), 2, lambda f, *x: f.stack(x, -1),
              lambda np, *x: np.stack(x, -1), lambda f, *x: f.stack(x, -1)),
        _part("pad/16x112x112x64", (image,), 2,
              lambda f, x: f.nn.functional.pad(x, (0, 0, 1, 1, 1, 1)),
              lambda np, x: np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))),
              lambda f, x: f.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))),
        _part("slice/2048x2048", (x,), 1, lambda f, x: x[:, 512:1536].contiguous(),
              lambda np, x: np.array(x[:, 512:1536]), lambda f, x: f.identity(x[:, 512:1536])),
        _part("slice-step/2048x2048", (x,), 1, lambda f, x: x[:, ::2].contiguous(),
              lambda np, x: np.array(x[:, ::2]), lambda f, x: f.identity(x[:, ::2])),
        _part("reverse-last/2048x2048", (x,), 2, lambda f, x: f.flip(x, [1]),
              lambda np, x: np.array(np.flip(x, 1)), lambda f, x: f.reverse(x, [1])),
        _part("reverse-first/2048x2048", (x,), 2, lambda f, x: f.flip(x, [0]),
              lambda np, x: np.array(np.flip(x, 0)), lambda f, x: f.reverse(x, [0])),
        _part("broadcast-row/2048x2048", (normal(2048),), 2048,
              lambda f, x: x.expand(2048, -1).contiguous(),
              lambda np, x: np.array(np.broadcast_to(x, (2048, 2048))),
              lambda f, x: f.identity(f.broadcast_to(x, (2048, 2048)))),
        _part("broadcast-column/2048x2048", (normal(2048, 1),), 2048,
              lambda f, x: x.expand(-1, 2048).contiguous(),
              lambda np, x: np.array(np.broadcast_to(x, (2048, 2048))),
              lambda f, x: f.identity(f.broadcast_to(x, (2048, 2048)))),
    )


# -- dtypes and bits -------------------------------------------------------------------------------

def _cast(source: str, target: str, size: int) -> Workload:
    x = integers(size, high=100, dtype=source) if source == "int8" else normal(size, dtype=source)
    widths = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}
    programs: dict[str, Any] = {
        "xp": lambda f, x: x.astype(target), "torch": lambda f, x: x.to(getattr(f, target)),
        "tensorflow": lambda f, x: f.cast(x, target)}
    if "bfloat16" not in (source, target):
        programs["numpy"] = lambda f, x: x.astype(target)
    return kernel(f"place/cast/{source}-{target}", (x,),
                  nbytes=size * (widths[source] + widths[target]), **programs)


def _bits(name: str, size: int) -> Workload:
    """Uniform u32 from a key; other frameworks have other generators, so only JAX's are compared."""
    return kernel(f"place/random-bits/{name}", (integers(2, high=1 << 30, dtype="uint32"),),
                  nbytes=4 * size, tolerance=1e-2,
                  xp=lambda f, key: f.random_bits(key, (size,)),
                  numpy=lambda f, key: np.random.Generator(np.random.Philox(key=int(key[0])))
                  .integers(0, 1 << 32, size, np.uint32))


WORKLOADS = (
    _transpose(4096, 4096, order=(1, 0)), _transpose(4096, 4096, order=(1, 0), dtype="float64"),
    _transpose(4096, 4096, order=(1, 0), dtype="bfloat16"),
    _transpose(4096, 4096, order=(1, 0), dtype="int8"),
    _transpose(64, 128, 12, 64, order=(0, 2, 1, 3)),
    _transpose(16, 112, 112, 64, order=(0, 3, 1, 2)),
    _transpose(16, 64, 112, 112, order=(0, 2, 3, 1)),
    _transpose(16, 3, 224, 224, order=(0, 2, 3, 1)),
    _embedding(30522, 768, 8192), _embedding_gradient(30522, 768, 8192),
    *(_embedding(30000, width, 16384) for width in (128, 512)),
    *(_embedding_gradient(30000, width, count) for width in (128, 512) for count in (2048, 16384)),
    _histogram(1000, M), _histogram(M, M),
    _gather_along(1024, 4096, 1024), _scatter_along(1024, 4096, 1024),
    *_parts(),
    *(_cast(a, b, 4 * M) for a, b in (
        ("float32", "bfloat16"), ("bfloat16", "float32"), ("float32", "float16"),
        ("float16", "float32"), ("float32", "int8"), ("int8", "float32"))),
    _bits("threefry-4M", 4 * M),
)
