"""All workloads, by name."""

from __future__ import annotations

from . import convolution, gemm, inference, order, overhead, place, pooling, tensors, training
from .workload import Workload

WORKLOADS: dict[str, Workload] = {
    w.name: w
    for family in (
        gemm, convolution, pooling, tensors, order, place, overhead, training, inference)
    for w in family.WORKLOADS
}
