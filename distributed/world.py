"""The processes of this job: how many there are, which one this is, and that they are the right ones.

`tfn launch -n N` tells each process what N is. A process that finds itself in a job of another size
(the wrong mpiexec starts N jobs of one) stops instead of computing something else.
"""

from __future__ import annotations

import functools
import os

from ..compiler.errors import TfnError
from .mpi import MpiCommunicator

SIZE_VARIABLE = "TFN_WORLD_SIZE"
_RANK_VARIABLES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "PMIX_RANK")
"""Set by the launchers of MPICH and Open MPI."""


class WorldError(TfnError, RuntimeError):
    """The job does not have the size it was launched with."""


def is_distributed() -> bool:
    """Was this process started as one of several?"""
    return any(name in os.environ for name in (SIZE_VARIABLE, *_RANK_VARIABLES))


@functools.cache
def communicator() -> MpiCommunicator | None:
    """The communicator of this job; None for a single process that nobody launched.

    Raises `WorldError` when the job is not of the size that was asked for.
    """
    if not is_distributed():
        return None
    found = MpiCommunicator()
    wanted = os.environ.get(SIZE_VARIABLE)
    if wanted is not None and int(wanted) != found.size:
        raise WorldError(
            f"this job was launched for {wanted} ranks but MPI sees {found.size}: the mpiexec on"
            " PATH does not belong to the MPI that mpi4py uses; start it with `tfn launch`, or"
            " install one MPI only")
    return found


def rank() -> int:
    """Which process this is, from 0."""
    found = communicator()
    return found.rank if found else 0


def size() -> int:
    """How many processes there are."""
    found = communicator()
    return found.size if found else 1
