"""What `keras.distribution` asks of a backend: processes, devices, placement."""

from __future__ import annotations

from typing import Any


def num_processes() -> int:
    return 1


def process_id() -> int:
    return 0


def list_devices(device_type: str | None = None) -> list[str]:
    return ["cpu:0"]


def get_device_count(device_type: str | None = None) -> int:
    return len(list_devices(device_type))


def distribute_value(value: Any, layout: Any) -> Any:
    return value


def distribute_tensor(tensor: Any, layout: Any) -> Any:
    return tensor


def distribute_variable(value: Any, layout: Any) -> Any:
    return value


def distribute_data_input(tensor: Any, layout: Any, batch_dim_name: str | None = None) -> Any:
    return tensor
