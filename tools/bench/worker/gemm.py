"""Matrix products: squares, the shapes of dense layers and their gradients, batches, low precision."""

from __future__ import annotations

import numpy as np

from .workload import Workload, integers, kernel, normal

# M, N, K
PLAIN = (
    (128, 128, 128), (256, 256, 256), (512, 512, 512), (1024, 1024, 1024), (2048, 2048, 2048),
    (32, 512, 784), (8192, 64, 64), (512, 3072, 768), (1, 4096, 4096),
)
FIRST_TRANSPOSED = ((784, 512, 32), (768, 3072, 512), (64, 64, 8192), (1024, 1024, 1024))
SECOND_TRANSPOSED = ((32, 784, 512), (512, 768, 3072), (1024, 1024, 1024))
LOW = ((256, 256, 256), (1024, 1024, 1024), (512, 3072, 768))


def _matmul(f, a, b):
    return f.np.matmul(a, b)


def _wide(f, a, b):
    return f.np.matmul(a, b, preferred_element_type=np.int32)


def _plain(m: int, n: int, k: int) -> Workload:
    return kernel(
        f"gemm/f32/{m}x{n}x{k}", (normal(m, k), normal(k, n)), 2 * m * n * k,
        result_bytes=4 * m * n, xp=_matmul, numpy=lambda f, a, b: f.matmul(a, b),
        torch=lambda f, a, b: f.matmul(a, b), tensorflow=lambda f, a, b: f.matmul(a, b))


def _first(m: int, n: int, k: int) -> Workload:
    return kernel(
        f"gemm/f32-At/{m}x{n}x{k}", (normal(k, m), normal(k, n)), 2 * m * n * k,
        result_bytes=4 * m * n, xp=lambda f, a, b: f.np.matmul(a.T, b),
        numpy=lambda f, a, b: f.matmul(a.T, b), torch=lambda f, a, b: f.matmul(a.t(), b),
        tensorflow=lambda f, a, b: f.matmul(a, b, transpose_a=True))


def _second(m: int, n: int, k: int) -> Workload:
    return kernel(
        f"gemm/f32-Bt/{m}x{n}x{k}", (normal(m, k), normal(n, k)), 2 * m * n * k,
        result_bytes=4 * m * n, xp=lambda f, a, b: f.np.matmul(a, b.T),
        numpy=lambda f, a, b: f.matmul(a, b.T), torch=lambda f, a, b: f.matmul(a, b.t()),
        tensorflow=lambda f, a, b: f.matmul(a, b, transpose_b=True))


def _batched(count: int, m: int, n: int, k: int) -> Workload:
    return kernel(
        f"gemm/f32-batch/{count}x{m}x{n}x{k}", (normal(count, m, k), normal(count, n, k)),
        2 * count * m * n * k, result_bytes=4 * count * m * n,
        xp=lambda f, a, b: f.np.matmul(a, f.np.swapaxes(b, 1, 2)),
        numpy=lambda f, a, b: f.matmul(a, b.swapaxes(1, 2)),
        torch=lambda f, a, b: f.bmm(a, b.transpose(1, 2)),
        tensorflow=lambda f, a, b: f.matmul(a, b, transpose_b=True))


def _bfloat16(m: int, n: int, k: int) -> Workload:
    return kernel(
        f"gemm/bf16/{m}x{n}x{k}", (normal(m, k, dtype="bfloat16"), normal(k, n, dtype="bfloat16")),
        2 * m * n * k, result_bytes=2 * m * n, tolerance=2e-2, xp=_matmul,
        torch=lambda f, a, b: f.matmul(a, b), tensorflow=lambda f, a, b: f.matmul(a, b))


def _int8(m: int, n: int, k: int) -> Workload:
    return kernel(
        f"gemm/int8/{m}x{n}x{k}", (integers(m, k, high=100, dtype="int8"),
                                   integers(k, n, high=100, dtype="int8")),
        2 * m * n * k, result_bytes=4 * m * n, tolerance=0.0, xp=_wide,
        torch=lambda f, a, b: f._int_mm(a, b),
        tensorflow=lambda f, a, b: f.matmul(a, b, output_type=f.int32))


WORKLOADS = (
    *(_plain(*size) for size in PLAIN),
    *(_first(*size) for size in FIRST_TRANSPOSED),
    *(_second(*size) for size in SECOND_TRANSPOSED),
    _batched(96, 128, 128, 64),
    *(_bfloat16(*size) for size in LOW),
    *(_int8(*size) for size in LOW),
)
