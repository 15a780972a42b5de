"""Where arrays live: in the memory of the CPU. The only device is `"cpu"`."""

from __future__ import annotations

from typing import Any

CPU = "cpu"


def check_device(device) -> None:
    """`ValueError` unless `device` is None or the CPU."""
    if device is not None and device != CPU:
        raise ValueError(f"the only device is {CPU!r}, got {device!r}")


def to_device(x: Any, device, /, *, stream=None) -> Any:
    """`x` itself: it lives on the CPU. `ValueError` on another device or a stream."""
    check_device(device)
    if stream is not None:
        raise ValueError(f"the CPU has no streams, got {stream!r}")
    return x
