"""All workloads, by name."""

from __future__ import annotations

from . import convolution, gemm, overhead, tensors
from .workload import Workload

WORKLOADS: dict[str, Workload] = {
    w.name: w for family in (gemm, convolution, tensors, overhead) for w in family.WORKLOADS
}
