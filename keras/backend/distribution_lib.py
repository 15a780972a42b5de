"""What `keras.distribution` asks of a backend: the processes of the job, one device each."""

from __future__ import annotations

from typing import Any

from ...compiler.errors import UnsupportedError
from ...distributed import world


def initialize(job_addresses=None, num_processes=None, process_id=None) -> None:
    """Join the job this process was launched in; the arguments must agree with it."""
    if num_processes is not None and int(num_processes) != world.size():
        raise world.WorldError(
            f"keras.distribution.initialize was told of {num_processes} processes, the job has"
            f" {world.size()}; start the script with `tfn launch -n {num_processes}`")


def initialize_rng() -> None:
    """Agree on one seed: every process then draws the same initial weights."""
    from keras.src.backend.common import global_state
    from keras.src.utils import rng_utils

    communicator = world.communicator()
    if communicator is None or communicator.size == 1:
        return
    if global_state.get_global_attribute(rng_utils.GLOBAL_RANDOM_SEED) is None:
        from keras.src.random.seed_generator import make_default_seed

        rng_utils.set_random_seed(communicator.broadcast(make_default_seed()))


def num_processes() -> int:
    return world.size()


def process_id() -> int:
    return world.rank()


def list_devices(device_type: str | None = None) -> list[str]:
    """One device per process."""
    if device_type not in (None, "cpu"):
        raise ValueError(f"tfn has cpu devices only, not {device_type!r}")
    initialize_rng()
    return [f"cpu:{i}" for i in range(world.size())]


def get_device_count(device_type: str | None = None) -> int:
    return len(list_devices(device_type))


def distribute_tensor(tensor: Any, layout: Any) -> Any:
    """Values are whole on every process; a layout that splits one is refused."""
    axes = getattr(layout, "axes", None) or ()
    if any(axis is not None for axis in axes):
        raise UnsupportedError("the tfn backend shards data only (DataParallel); model parallel"
                               " layouts are not supported yet")
    return tensor


def distribute_variable(value: Any, layout: Any) -> Any:
    return distribute_tensor(value, layout)


def distribute_data_input(tensor: Any, layout: Any, batch_dim_name: str | None = None) -> Any:
    """Every process is given the whole batch and takes its rows in the compiled step."""
    return tensor


def _to_backend_device(device_name: str) -> str:
    return device_name


def _to_backend_mesh(device_mesh: Any) -> Any:
    return device_mesh


def _to_backend_layout(tensor_layout: Any) -> Any:
    return tensor_layout
