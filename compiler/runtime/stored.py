"""Plans on disk: a second process that traces the same program runs no pass and plans nothing.

An entry is JSON, followed by the bytes of the constants. Its name is the hash of all that decides what
it says: the program, the compiler's own sources, the machine, the versions of what folds constants.
Kernels are entries of their own; a plan is of use only where all of its kernels are there.
"""

from __future__ import annotations

import functools
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from ..codegen.kernel import Kernel
from ..codegen.target import Target
from ..codegen.work import Work
from ..ir.core import Function
from ..ir.defaults import default_float
from ..ir.digest import digest
from ..ir.dims import Dim, Extent
from ..ir.dtypes import by_name
from ..locks import once
from . import disk
from .plan import Jump, Place, Plan, Step
from .pool import pool

_WORTHWHILE = 200
"""Ops of a program that is kept: those of fewer are compiled as fast as they are read."""
_MAX_CONSTANTS = 16 << 20
"""Bytes of constants up to which a plan is kept."""
_BASES = ("arena", "constant", "argument", "result")


def name_of(function: Function, target: Target, memory_budget: int | None,
            fast_convolution: bool = False) -> str | None:
    """The name of a program's entry; None for a program that has none."""
    if len(function.ops) < _WORTHWHILE:
        return None
    program, compiler = digest(function), _fingerprint()
    if program is None or compiler is None:
        return None
    parts = (compiler, target.triple, target.cpu, target.features, pool().threads, memory_budget,
             fast_convolution, default_float().name, program)
    return f"p{hashlib.sha256(repr(parts).encode()).hexdigest()[:40]}"


@once
def _fingerprint() -> str | None:
    """The compiler and what it evaluates constants with; None where its sources cannot be read."""
    hashed = hashlib.sha256(
        f"{sys.version} numpy {np.__version__} ml_dtypes {ml_dtypes.__version__}".encode())
    root = Path(__file__).parent.parent
    try:
        for file in sorted(root.rglob("*.py")):
            hashed.update(f"\0{file.relative_to(root)}\0".encode() + file.read_bytes())
    except OSError:
        return None
    return hashed.hexdigest()


def read(name: str) -> Plan | None:
    """A plan as it was stored; None when there is none."""
    content = disk.read(name)
    if content is None:
        return None
    try:
        plan = _decode(content)
    except (ValueError, KeyError, IndexError, TypeError):
        return None
    disk.touch(name)
    return plan


def store(name: str, plan: Plan) -> None:
    """Keep a plan, unless it calls what only this process has or its constants are large."""
    if any(step.host is not None or step.collective is not None for step in plan.steps):
        return
    if sum(c.nbytes for c in plan.constants) <= _MAX_CONSTANTS:
        disk.store(name, _encode(plan))


# -- the format --------------------------------------------------------------------------------------

def _encode(plan: Plan) -> bytes:
    kernels: dict[int, Kernel] = {id(s.kernel): s.kernel for s in plan.steps if s.kernel is not None}
    numbers = {known: number for number, known in enumerate(kernels)}
    document = {
        "kernels": [_kernel_row(k) for k in kernels.values()],
        "steps": [_step_row(s, numbers) for s in plan.steps],
        "constants": [[c.dtype.name, c.shape] for c in plan.constants],
        "arena": _extent_row(plan.arena_bytes), "donations": list(plan.donations.items()),
        "threads": plan.threads}
    text = json.dumps(document, separators=(",", ":")).encode()
    return b"".join([len(text).to_bytes(8, "little"), text, *(c.tobytes() for c in plan.constants)])


def _decode(content: bytes) -> Plan:
    end = 8 + int.from_bytes(content[:8], "little")
    document = json.loads(content[8:end])
    constants = []
    for dtype, shape in document["constants"]:
        element = np.dtype(getattr(ml_dtypes, dtype, dtype))
        size = element.itemsize * int(np.prod(shape, dtype=np.int64))
        constants.append(np.frombuffer(content[end:end + size], element).reshape(shape))
        end += size
    kernels = [_kernel(*row) for row in document["kernels"]]
    return Plan([_step(row, kernels) for row in document["steps"]], constants,
                _extent(document["arena"]), dict(document["donations"]), document["threads"])


def _extent_row(extent: Extent) -> Any:
    return extent if isinstance(extent, int) else [list(extent.terms), extent.constant]


def _extent(row: Any) -> Extent:
    return row if isinstance(row, int) else Dim(dict(row[0]), row[1])


def _extents(rows: Sequence[Any]) -> tuple[Extent, ...]:
    return tuple([_extent(row) for row in rows])


def _extent_rows(extents: Sequence[Extent]) -> list[Any]:
    return [_extent_row(e) for e in extents]


def _work_row(work: Work) -> list[Any]:
    return [_extent_rows(work.extents), work.steps, _extent_rows(work.cost)]


def _work(row: Sequence[Any]) -> Work:
    return Work(_extents(row[0]), tuple(row[1]), _extents(row[2]))


def _kernel_row(kernel: Kernel) -> list[Any]:
    # The bits of scalars as f64, which every other float is exactly.
    scalars = [[np.asarray(value).astype("<f8").tobytes().hex(), dtype.name]
               for value, dtype in kernel.scalars]
    return [kernel.name, _extent_rows(kernel.extents), scalars, [_work_row(w) for w in kernel.phases],
            _extent_row(kernel.scratch_bytes), kernel.lane_bytes]


def _kernel(name: str, extents, scalars, phases, scratch, lanes: int) -> Kernel:
    values = [(np.frombuffer(bytes.fromhex(value), "<f8")[0], by_name(dtype))
              for value, dtype in scalars]
    return Kernel(name, "", _extents(extents), tuple(values), tuple(map(_work, phases)),
                  _extent(scratch), lanes)


def _step_row(step: Step, numbers: dict[int, int]) -> list[Any]:
    places = [word for p in step.places
              for word in (_BASES.index(p.base), p.number, _extent_row(p.offset))]
    if step.kernel is not None:
        return [numbers[id(step.kernel)], step.phase, places]
    jump = step.jump
    return [-1, 0, places, _work_row(step.work), jump and [jump.target, jump.unless, jump.width]]


def _step(row: list[Any], kernels: Sequence[Kernel]) -> Step:
    number, phase, words = row[:3]
    places = tuple([_place(_BASES[words[i]], words[i + 1], _extent(words[i + 2]))
                    for i in range(0, len(words), 3)])
    if number < 0:
        return Step(None, places, (), jump=row[4] and Jump(*row[4]), work=_work(row[3]))
    kernel = kernels[number]
    return Step(kernel, places, kernel.extents, work=kernel.phases[phase], phase=phase)


_place = functools.lru_cache(maxsize=1 << 14)(Place)
"""Places repeat: what one step writes, others read."""
