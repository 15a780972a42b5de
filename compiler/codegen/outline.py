"""Loops over single elements, taken out of code that is finished as it is.

What drives a micro-kernel has nothing for LLVM's passes to do (see `native.py`), but the ops that
follow a product, say, are loops that LLVM shall make vectors of. Those become functions of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from .emitter import Emitter, Outline
from .text import Index


@contextmanager
def outlined(emit: Emitter, pointers: Sequence[str], numbers: Sequence[Index]
             ) -> Iterator[tuple[list[str], list[Index]]]:
    """Code of a function of its own, which is called here. Yields `pointers` and `numbers` under their
    names inside: of the registers outside, it knows the kernel's parameters only."""
    inner = [f"%pointer{i}" for i in range(len(pointers))]
    counted = [n if isinstance(n, int) else f"%number{i}" for i, n in enumerate(numbers)]
    varying = [(n, c) for n, c in zip(numbers, counted, strict=True) if not isinstance(n, int)]
    parameters = tuple([f"ptr {p}" for p in inner] + [f"i64 {c}" for _, c in varying])
    with emit.elsewhere() as (entry, lines), emit.counted_anew():
        yield inner, counted
    # The parts of a strided convolution's derivative, say, are followed by the same.
    code = parameters, entry, lines
    name = next((o.name for o in emit.outlines if (o.parameters, o.entry, o.lines) == code), "")
    if not name:
        name = f"kernel.outline{len(emit.outlines)}"
        emit.outlines.append(Outline(name, *code))
    given = [f"ptr {p}" for p in pointers] + [f"i64 {n}" for n, _ in varying]
    emit.do(f"call void @{name}({', '.join([*given, '%arguments'])})")
