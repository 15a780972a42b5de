"""Order along an axis: sort, argsort, top-k, running sums, products and extremes."""

from __future__ import annotations

from typing import Any

from .workload import Workload, integers, kernel, normal

M = 1 << 20


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _sort(*shape: int, axis: int = -1, integer: bool = False) -> Workload:
    x = integers(*shape, high=1 << 30) if integer else normal(*shape)
    name = f"{_shape(shape)}{'-first-axis' if axis == 0 else ''}{'-i32' if integer else ''}"
    return kernel(
        f"order/sort/{name}", (x,), result_bytes=x.nbytes,
        xp=lambda f, x: f.np.sort(x, axis=axis), numpy=lambda f, x: f.sort(x, axis=axis),
        torch=lambda f, x: f.sort(x, axis).values,
        tensorflow=lambda f, x: f.sort(x, axis=axis))


def _argsort(*shape: int, axis: int = -1) -> Workload:
    x = normal(*shape)
    name = f"{_shape(shape)}{'-first-axis' if axis == 0 else ''}"
    return kernel(
        f"order/argsort/{name}", (x,), result_bytes=x.nbytes,
        xp=lambda f, x: f.np.argsort(x, axis=axis),
        numpy=lambda f, x: f.argsort(x, axis=axis, kind="stable"),
        torch=lambda f, x: f.sort(x, dim=axis, stable=True).indices,
        tensorflow=lambda f, x: f.argsort(x, axis=axis, stable=True))


def _sort_by_key(size: int) -> Workload:
    """Values brought into the order of their keys."""
    x = normal(size)
    return kernel(
        f"order/sort-by-key/{size}", (x, x), result_bytes=x.nbytes,
        xp=lambda f, key, x: f.np.take(x, f.np.argsort(key)),
        numpy=lambda f, key, x: x[f.argsort(key, kind="stable")],
        torch=lambda f, key, x: x[f.sort(key, stable=True).indices],
        tensorflow=lambda f, key, x: f.gather(x, f.argsort(key, stable=True)))


def _top_k(rows: int, columns: int, k: int) -> Workload:
    x = normal(rows, columns)
    return kernel(
        f"order/top-{k}/{rows}x{columns}", (x,), xp=lambda f, x: f.top_k(x, k),
        torch=lambda f, x: f.topk(x, k), tensorflow=lambda f, x: f.math.top_k(x, k))


def _cumulative(name: str, rows: int, columns: int, axis: int) -> Workload:
    x = normal(rows, columns, scale=1e-2, offset=1.0 if name == "cumprod" else 0.0)

    def numpy(f, x):
        function = {"cummax": f.maximum.accumulate}.get(name) or getattr(f, name)
        return function(x, axis=axis)

    def through_torch(f, x):
        found = getattr(f, name)(x, axis)
        return found.values if name == "cummax" else found

    programs: dict[str, Any] = {"xp": lambda f, x: getattr(f, name)(x, axis),
                                "torch": through_torch, "numpy": numpy}
    if name != "cummax":
        programs["tensorflow"] = lambda f, x: getattr(f.math, name)(x, axis=axis)
    return kernel(f"order/{name}/{rows}x{columns}-{'rows' if axis else 'columns'}", (x,),
                  result_bytes=x.nbytes, **programs)


WORKLOADS = (
    _sort(M), _sort(M, integer=True), _sort(1000, 1000), _sort(1000, 1000, axis=0),
    _argsort(M), _argsort(1000, 1000), _argsort(1000, 1000, axis=0), _sort_by_key(M),
    *(_top_k(*shape, k) for shape in ((1, M), (128, 50000)) for k in (10, 100)),
    *(_cumulative(name, 4096, 4096, axis)
      for name in ("cumsum", "cumprod", "cummax") for axis in (1, 0)),
)
