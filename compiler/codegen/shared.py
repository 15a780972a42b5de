"""Functions that kernels share: machine code is made once for all kernels that call them.

They depend on types and tiles, not on a kernel: what differs from one to the next are their arguments,
strides included. Like micro-kernels they are part of a kernel's text, and objects of their own on this
machine (`micro.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from .emitter import Emitter
from .text import Index


@contextmanager
def shared(emit: Emitter, finished: bool, pointers: Sequence[str], numbers: Sequence[Index]
           ) -> Iterator[tuple[list[str], list[Index]]]:
    """Code of a function of its own, which is called here. Yields `pointers` and `numbers` under their
    names inside; a number that is 0 or 1 stays what it is. `finished`: see `native.py`."""
    inner = [f"%pointer{i}" for i in range(len(pointers))]
    known = [n if n in (0, 1) else f"%number{i}" for i, n in enumerate(numbers)]
    varying = [(n, k) for n, k in zip(numbers, known, strict=True) if k != n]
    with emit.elsewhere() as (entry, lines), emit.counted_anew():
        yield inner, known
    parameters = ", ".join([f"ptr {p}" for p in inner] + [f"i64 {k}" for _, k in varying])
    body = "\n".join(["entry:", *entry, "  br label %start", "start:", *lines, "  ret void"])
    digest = hashlib.sha256(f"{finished} {parameters} {body}".encode()).hexdigest()
    name = f"kernel.shared{digest[:16]}"
    emit.definitions[name] = (
        f"define internal void @{name}({parameters}) #{1 if finished else 2} {{\n{body}\n}}")
    given = [f"ptr {p or 'null'}" for p in pointers] + [f"i64 {n}" for n, _ in varying]
    emit.do(f"call void @{name}({', '.join(given)})")
