"""Results too large to wait in the cache for who reads them: stored past it, whole lines at a time.

Other stores read the line they write to first, which is a third of the traffic of a copy.
"""

from __future__ import annotations

from collections.abc import Callable

from ..ir.core import Value
from .emitter import Emitter
from .target import LINE
from .text import Index

_LARGE = 8 << 20


def past_the_cache(emit: Emitter, result: Value, make: Callable[[str], None]) -> None:
    """`make(note)` twice, of which one is run: `note` ends the stores of whole lines, each aligned as a
    line, that go past the cache; it is empty where none do."""
    total: Index = result.dtype.itemsize
    for d in range(len(result.shape)):
        total = emit.imul(total, emit.extent(result, d))
    start = emit.inst(f"ptrtoint ptr {emit.pointers[result]} to i64")
    aligned = emit.icompare("eq", emit.inst(f"and i64 {start}, {LINE - 1}"), 0)
    past = emit.all([aligned, emit.icompare("sge", total, _LARGE)])
    note = f"!{len(emit.metadata)}"
    emit.metadata.append(f"{note} = !{{i32 1}}")
    yes, no, done = (emit.fresh(p) for p in ("past", "through", "stored"))
    emit.do(f"br i1 {past}, label %{yes}, label %{no}")
    emit.block(yes)
    with emit.scope():
        make(f", !nontemporal {note}")
    # Such stores are in no order with those of other threads.
    emit.do("fence seq_cst")
    emit.do(f"br label %{done}")
    emit.block(no)
    with emit.scope():
        make("")
    emit.do(f"br label %{done}")
    emit.block(done)
