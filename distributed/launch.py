"""`launch`: a script on N ranks, by the mpiexec that belongs to this Python's MPI."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ..compiler.errors import TfnError
from .mpi import INSTALL
from .world import SIZE_VARIABLE


def find_mpiexec() -> str:
    """The mpiexec beside this Python, else the one on PATH. Raises `TfnError` when there is none."""
    beside = Path(sys.executable).parent
    found = shutil.which("mpiexec", path=str(beside)) or shutil.which("mpiexec")
    if found is None:
        raise TfnError(f"there is no mpiexec; {INSTALL}")
    return found


def launch(n: int, script: str | os.PathLike, arguments: Sequence[str] = (),
           mpiexec: str | None = None) -> int:
    """Run `script` on `n` ranks and return the exit code of the job.

    Every rank checks that the job has `n` ranks before it computes (`world.communicator`).
    """
    if n < 1:
        raise TfnError(f"a job has at least one rank, got {n}")
    program = mpiexec or find_mpiexec()
    environment = {**os.environ, SIZE_VARIABLE: str(n)}
    # Open MPI refuses root and more ranks than cores unless told otherwise; MPICH ignores these.
    environment.setdefault("OMPI_ALLOW_RUN_AS_ROOT", "1")
    environment.setdefault("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
    environment.setdefault("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe")
    command = [program, "-n", str(n), sys.executable, "-m", f"{__package__}.rank", str(script),
               *arguments]
    return subprocess.run(command, env=environment).returncode
