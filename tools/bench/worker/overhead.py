"""The price of a call: a compiled function of small buffers, eager small ops, a long loop."""

from __future__ import annotations

from typing import Any

from .frameworks import NumPy
from .workload import Kernel, KernelRun, Workload, kernel, normal


def _call(f, a, b, c, d):
    return a * b + c, d - a


def _eager(f, x, y):
    for _ in range(25):
        x = x * y + y
        x = x - y * y
    return x


SCAN = 1000


def _scan(f, x, w):
    def body(carry, _):
        return f.np.tanh(carry * w + x), None

    return f.scan(body, x, None, length=SCAN)[0]


def _loop(tanh):
    def run(f, x, w):
        carry = x
        for _ in range(SCAN):
            carry = tanh(f)(carry * w + x)
        return carry

    return run


def _tensorflow_scan(f, x, w):
    return f.while_loop(lambda i, c: i < SCAN, lambda i, c: (i + 1, f.tanh(c * w + x)), (0, x))[1]


class _Eager(KernelRun):
    """Runs op by op even where the framework has a compiler."""

    def __post_init__(self) -> None:
        f, function = self.framework.f, self.kernel.function
        self.function = lambda *arrays: function(f, *arrays)
        self.arguments = self._drawn(0)


def _start_eager(framework: NumPy, workload: Workload, program: Kernel) -> KernelRun:
    return _Eager(framework, program)


_SMALL = tuple(normal(16) for _ in range(4))
_STYLES = ("xp", "torch", "numpy", "tensorflow")
_CALLS: dict[str, Any] = dict.fromkeys(_STYLES, _call)

WORKLOADS = (
    kernel("overhead/call-4-buffers", _SMALL, **_CALLS),
    Workload("overhead/eager-100-ops",
             dict.fromkeys(_STYLES, Kernel(_eager, (normal(16), normal(16, scale=0.1)))),
             _start_eager),
    kernel("overhead/scan-1000-steps", (normal(256), normal(256, scale=0.5)), xp=_scan,
           torch=_loop(lambda f: f.tanh), numpy=_loop(lambda f: f.tanh),
           tensorflow=_tensorflow_scan),
)
