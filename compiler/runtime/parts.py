"""Parts of a concatenation, made where they belong: the kernel of a part stores it in the result.

A straight program (`linear.py`) copies each part into the result. Where a part is all of what one
kernel makes, and nothing is copied from it but this, its memory is that piece of the result, and the
copy goes (`coalesce.py`).
"""

from __future__ import annotations

from collections import Counter

from ..codegen.update import updated
from ..ir.core import Value
from .linear import Program, is_copy


def place_parts(program: Program) -> None:
    """Let parts have their piece of the result as memory.

    Between kernel and copy the program is straight: the result is made once for each part of it.
    """
    nodes = program.nodes
    writers: dict[Value, list[int]] = {}
    copied: Counter[Value] = Counter()
    for number, node in enumerate(nodes):
        for value in node.writes:
            writers.setdefault(program.root(value)[0], []).append(number)
        if is_copy(node):
            copied[program.root(node.reads[0])[0]] += 1
    # Numbers of nodes that do not always follow the one before.
    apart = {number + 1 for number, node in enumerate(nodes) if node.target is not None}
    apart |= {node.target.node for node in nodes if node.target is not None}
    for number, node in enumerate(nodes):
        if not is_copy(node) or program.is_whole(node.writes[0]):
            continue
        source, made = node.reads[0], program.root(node.reads[0])[0]
        if not program.is_whole(source) or copied[made] > 1 or len(writers.get(made, ())) != 1:
            continue
        (first,) = writers[made]
        op = nodes[first].op
        if (op is not None and op.name == "tfn.kernel" and updated(op) is None
                and apart.isdisjoint(range(first + 1, number + 1))):
            program.roots[made] = program.root(node.writes[0])
