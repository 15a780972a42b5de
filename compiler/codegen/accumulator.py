"""The running state of a reduction in registers, whatever loops feed it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..ir.core import Block
from .text import register_type

if TYPE_CHECKING:
    from .emitter import Emitter


class Accumulator:
    """Starts from the registers `initial` and combines elements by the region `body`."""

    def __init__(self, emit: Emitter, body: Block, initial: Sequence[str]):
        self.emit, self.body = emit, body
        self.dtypes = [a.dtype for a in body.arguments[: len(initial)]]
        self.kinds = [register_type(t) for t in self.dtypes]
        self.cells = [emit.cell(kind) for kind in self.kinds]
        for cell, kind, value in zip(self.cells, self.kinds, initial, strict=True):
            emit.do(f"store {kind} {value}, ptr {cell}")

    def _state(self) -> list[str]:
        return [self.emit.inst(f"load {kind}, ptr {cell}")
                for kind, cell in zip(self.kinds, self.cells, strict=True)]

    def add(self, elements: Sequence[str]) -> None:
        """Combine the registers of one element of each operand with the state."""
        emit = self.emit
        combined = emit.combine(self.body, self._state(), elements)
        for cell, kind, value in zip(self.cells, self.kinds, combined, strict=True):
            emit.do(f"store {kind} {value}, ptr {cell}")

    def results(self) -> list[str]:
        """The registers of the state, rounded to the dtypes they stand for."""
        return [self.emit.rounded(register, dtype)
                for register, dtype in zip(self._state(), self.dtypes, strict=True)]
