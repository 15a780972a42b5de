"""Recurrent cells, LSTM, GRU and the simple one: a task is a few rows of the batch, through all steps
of time.

Rows do not depend on each other, so nobody waits between steps, and states stay in the cache. A first
phase packs the weights once for all. Where a mask is false, a row keeps its state and repeats it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..ir.core import Op, Value
from .emitter import Emitter
from .pack import Packer
from .product import Product
from .text import Index
from .tile import Micro, best_tile, multiply_panel
from .work import Work

_ROWS = 16
_PICOSECONDS = 20


def forward(emit: Emitter, op: Op, weights: int) -> None:
    """The kernel of `tfn.lstm`, `tfn.gru` or `tfn.simple_rnn`, whose operand `weights` those are."""
    _CELLS[op.name](emit, op, weights).forward()


def backward(emit: Emitter, op: Op, weights: int) -> None:
    """The kernel of the derivative."""
    _CELLS[op.name.removesuffix("_backward")](emit, op, weights).backward()


class _Recurrent:
    """What cells have in common. `blocks` is the number of gates."""

    blocks = 4

    def __init__(self, emit: Emitter, op: Op, weights: int):
        self.emit, self.op = emit, op
        self.sequence, self.weights = op.operands[0], op.operands[weights]
        self.operands = op.operands[:weights]
        self.mask = op.operands[weights + 1] if len(op.operands) > weights + 1 else None
        self.reverse = bool((op.attributes.get("composite_attributes") or {}).get("reverse"))
        _, steps, _ = self.sequence.shape
        _, gates = self.weights.shape
        assert isinstance(steps, int) and isinstance(gates, int)
        self.steps, self.gates, self.units = steps, gates, gates // self.blocks
        self.dtype = self.sequence.dtype
        self.product = Product(self.dtype, self.dtype)
        self.line = gates + 16
        """Numbers between rows of gates: not a power of two, which would share a cache set."""

    # -- numbers ------------------------------------------------------------------------------------

    def _at(self, pointer: str, offset: Index) -> str:
        return pointer if offset == 0 else self.emit.inst(
            f"getelementptr inbounds {self.dtype.storage}, ptr {pointer}, i64 {offset}")

    def _get(self, pointer: str, offset: Index) -> str:
        return self.emit.load_from(self._at(pointer, offset), self.dtype)

    def _put(self, pointer: str, offset: Index, number: str) -> None:
        self.emit.store_to(self._at(pointer, offset), self.dtype, number)

    def _binary(self, opcode: str, x: str, y: str) -> str:
        return self.emit.binary(opcode, self.dtype, x, y)

    def _times(self, first: str, *others: str) -> str:
        for other in others:
            first = self._binary("fmul", first, other)
        return first

    def _rest(self, x: str, y: str) -> str:
        """1 - x * y."""
        return self._binary("fsub", self.emit.constant(1, self.dtype), self._binary("fmul", x, y))

    def _rest_of(self, x: str) -> str:
        """x * (1 - x)."""
        return self._times(x, self._binary("fsub", self.emit.constant(1, self.dtype), x))

    # -- time ---------------------------------------------------------------------------------------

    def _time(self, done: Index, back: bool = False) -> Index:
        """The step of time after `done` of them, `back` through what the forward kernel did."""
        return done if self.reverse == back else self.emit.isub(self.steps - 1, done)

    def _before(self, states: Value, first: Value, b: Index, t: Index) -> str:
        """The state of row `b` before step `t`."""
        emit = self.emit
        earlier, there = (emit.iadd(t, 1), emit.icompare("slt", t, self.steps - 1)) if self.reverse \
            else (emit.isub(t, 1), emit.icompare("sgt", t, 0))
        inside = emit.imin(emit.imax(earlier, 0), self.steps - 1)
        return emit.inst(f"select i1 {there}, ptr {emit.pointer(states, (b, inside, 0))},"
                         f" ptr {emit.pointer(first, (b, 0))}")

    def _keep(self, b: Index, t: Index) -> str:
        """Does row `b` take step `t`?"""
        return "" if self.mask is None else self.emit.load(self.mask, (b, t))

    def _chosen(self, keep: str, number: str, other: str) -> str:
        return self.emit.select(keep, self.dtype, number, other) if keep else number

    def _zero_unless(self, keep: str, number: str) -> str:
        return self._chosen(keep, number, self.emit.constant(0, self.dtype))

    # -- rows and products --------------------------------------------------------------------------

    def _work(self) -> Work:
        return Work((self.sequence.shape[0],), (_ROWS,),
                    (_PICOSECONDS, _ROWS, self.steps * self.units, self.gates))

    def _rows(self, task: Index) -> tuple[Index, Index]:
        """The first row of a task, and how many it has."""
        row = self.emit.imul(task, _ROWS)
        return row, self.emit.imin(self.emit.isub(self.emit.extent(self.sequence, 0), row), _ROWS)

    def _workspace(self, *widths: int) -> list[str]:
        """Rows of numbers of this thread's own."""
        sizes = [_ROWS * width + 64 for width in widths]
        memory = self.emit.workspace(sum(sizes) * self.dtype.itemsize)
        return [self._at(memory, sum(sizes[:i])) for i in range(len(sizes))]

    def _pack(self, columns: int, depth: int, by_k: int, by_column: int) -> None:
        """A phase that packs the weights, or their transpose, as panels."""
        emit = self.emit
        tile = self.tile = best_tile(emit.target, self.dtype, _ROWS, columns)
        self.panel = -(-depth // tile.lanes) * tile.lanes * tile.columns
        self.packed = emit.scratch(-(-columns // tile.columns) * self.panel * self.dtype.itemsize)
        packer = Packer(emit, self.dtype, self.product, tile)
        with emit.phase(Work((columns,), (tile.columns,), (500, tile.columns, depth))), \
                emit.loop("%first", "%last") as panel, emit.scope():
            column = emit.imul(panel, tile.columns)
            source = self._at(emit.pointers[self.weights], emit.imul(column, by_column))
            packer.panel(source, self._at(self.packed, emit.imul(panel, self.panel)), by_k, by_column,
                         depth, emit.isub(columns, column))

    def _multiply(self, a: str, a_row: int, c: str, c_row: int, rows: Index, columns: int, depth: int,
                  add: str = "false") -> None:
        """c (+)= rows of a times the packed weights."""
        emit, tile = self.emit, self.tile
        micro = Micro(self.product, tile, a_row, 1, tile.columns, c_row, True)
        with emit.loop(0, columns, tile.columns) as column, emit.scope():
            b = self._at(self.packed, emit.imul(emit.idiv(column, tile.columns), self.panel))
            multiply_panel(emit, micro, a, b, self._at(c, column), rows,
                           emit.imin(emit.isub(columns, column), tile.columns), depth, add)

    def _start(self, memory: str, value: Value, row: Index, rows: Index) -> None:
        """Rows of a first state as the state."""
        emit = self.emit
        with emit.loop(0, rows) as r, emit.scope(), emit.loop(0, self.units) as j, emit.scope():
            self._put(memory, emit.iadd(emit.imul(r, self.units), j),
                      emit.load(value, (emit.iadd(row, r), j)))

    def _clear(self, memory: str, rows: Index) -> None:
        """Zeros as the state."""
        with self.emit.loop(0, self.emit.imul(rows, self.units)) as i, self.emit.scope():
            self._put(memory, i, self.emit.constant(0, self.dtype))

    @contextmanager
    def _each_row(self, row: Index, rows: Index, t: Index) -> Iterator[tuple[Index, Index, str]]:
        """The number of every row in the task and in the batch, and whether it takes step `t`."""
        with self.emit.loop(0, rows) as r, self.emit.scope():
            b = self.emit.iadd(row, r)
            yield r, b, self._keep(b, t)

    def _write(self, value: Value, source: str, row: Index, rows: Index) -> None:
        emit = self.emit
        with emit.loop(0, rows) as r, emit.scope():
            target = emit.pointer(value, (emit.iadd(row, r), 0))
            with emit.loop(0, self.units) as j:
                self._put(target, j, self._get(source, emit.iadd(emit.imul(r, self.units), j)))


class _Lstm(_Recurrent):
    def forward(self) -> None:
        emit, units = self.emit, self.units
        sequence, first_h, first_c = self.operands
        outputs, cells, gates = self.op.results
        self._pack(self.gates, units, self.gates, 1)
        with emit.phase(self._work()):
            h, c, z = self._workspace(units, units, self.line)
            with emit.loop("%first", "%last") as task, emit.scope():
                row, rows = self._rows(task)
                for value, memory in ((first_h, h), (first_c, c)):
                    self._start(memory, value, row, rows)
                with emit.loop(0, self.steps) as done, emit.scope():
                    t = self._time(done)
                    self._multiply(h, units, z, self.line, rows, self.gates, units)
                    with self._each_row(row, rows, t) as (r, b, keep):
                        given = emit.pointer(sequence, (b, t, 0))
                        own = self._at(z, emit.imul(r, self.line))
                        state_h, state_c = (self._at(m, emit.imul(r, units)) for m in (h, c))
                        targets = [(emit.pointer(v, (b, t, 0)) if v in emit.pointers else "")
                                   for v in (outputs, cells, gates)]
                        with emit.loop(0, units) as j, emit.scope():
                            self._step(given, own, state_h, state_c, targets, keep, j)

    def _step(self, given: str, own: str, state_h: str, state_c: str, targets: list[str], keep: str,
              j: Index) -> None:
        """One number of the new state."""
        emit, dtype = self.emit, self.dtype
        active = []
        for gate, function in enumerate(("logistic", "logistic", "tanh", "logistic")):
            place = emit.iadd(j, gate * self.units)
            total = self._binary("fadd", self._get(own, place), self._get(given, place))
            active.append(emit.math(function, dtype, total))
        i, f, g, o = active
        before = self._get(state_c, j)
        kept = self._binary("fmul", f, before)
        cell = self._binary("fadd", kept, self._binary("fmul", i, g))
        output = self._binary("fmul", o, emit.math("tanh", dtype, cell))
        if keep:
            cell = self._chosen(keep, cell, before)
            output = self._chosen(keep, output, self._get(state_h, j))
        self._put(state_c, j, cell)
        self._put(state_h, j, output)
        for target, number in zip(targets, (output, cell), strict=False):
            if target:
                self._put(target, j, number)
        if targets[2]:
            for gate, number in enumerate(active):
                self._put(targets[2], emit.iadd(j, gate * self.units), number)

    def backward(self) -> None:
        emit, units = self.emit, self.units
        gates, cells, first_c, dh, dc = self.operands
        add = "false" if self.mask is None else "true"
        slopes, dh0, dc0 = self.op.results
        self._pack(units, self.gates, 1, self.gates)
        with emit.phase(self._work()):
            h_back, c_back, z = self._workspace(units, units, self.line)
            with emit.loop("%first", "%last") as task, emit.scope():
                row, rows = self._rows(task)
                for memory in (h_back, c_back):
                    self._clear(memory, rows)
                with emit.loop(0, self.steps) as done, emit.scope():
                    t = self._time(done, back=True)
                    with self._each_row(row, rows, t) as (r, b, keep):
                        places = [emit.pointer(v, (b, t, 0)) for v in (gates, cells, dh, dc)]
                        before = self._before(cells, first_c, b, t)
                        own = self._at(z, emit.imul(r, self.line))
                        back = [self._at(m, emit.imul(r, units)) for m in (h_back, c_back)]
                        target = emit.pointer(slopes, (b, t, 0)) if slopes in emit.pointers else ""
                        with emit.loop(0, units) as j, emit.scope():
                            self._step_back(places, before, own, back, target, keep, j)
                    self._multiply(z, self.line, h_back, units, rows, units, self.gates, add)
                for value, memory in ((dh0, h_back), (dc0, c_back)):
                    if value in emit.pointers:
                        self._write(value, memory, row, rows)

    def _step_back(self, places: list[str], before: str, own: str, back: list[str], target: str,
                   keep: str, j: Index) -> None:
        """The cotangents of the four gates of one number of the state."""
        emit, times = self.emit, self._times
        gates, cells, dh, dc = places
        i, f, g, o = (self._get(gates, emit.iadd(j, gate * self.units)) for gate in range(4))
        grown = emit.math("tanh", self.dtype, self._get(cells, j))
        dh = self._binary("fadd", self._get(dh, j), self._get(back[0], j))
        dc = self._binary("fadd", self._get(dc, j), self._get(back[1], j))
        total = self._binary("fadd", dc, times(dh, o, self._rest(grown, grown)))
        found = (times(total, g, self._rest_of(i)),
                 times(total, self._get(before, j), self._rest_of(f)),
                 times(total, i, self._rest(g, g)), times(dh, grown, self._rest_of(o)))
        self._put(back[1], j, self._chosen(keep, times(total, f), dc))
        if keep:
            # The product with the weights is added to it: nothing, unless the step was taken.
            self._put(back[0], j, self._chosen(keep, emit.constant(0, self.dtype), dh))
        for gate, number in enumerate(found):
            place = emit.iadd(j, gate * self.units)
            number = self._zero_unless(keep, number)
            self._put(own, place, number)
            if target:
                self._put(target, place, number)


class _Gru(_Recurrent):
    """Three gates: update, reset, candidate. What is kept of a step are their values after activation
    and the state's share of the candidate before the reset."""

    blocks = 3

    def forward(self) -> None:
        emit, units = self.emit, self.units
        sequence, first, bias = self.operands
        outputs, kept = self.op.results
        self._pack(self.gates, units, self.gates, 1)
        with emit.phase(self._work()):
            h, z = self._workspace(units, self.line)
            with emit.loop("%first", "%last") as task, emit.scope():
                row, rows = self._rows(task)
                self._start(h, first, row, rows)
                with emit.loop(0, self.steps) as done, emit.scope():
                    t = self._time(done)
                    self._multiply(h, units, z, self.line, rows, self.gates, units)
                    with self._each_row(row, rows, t) as (r, b, keep):
                        places = (emit.pointer(sequence, (b, t, 0)), emit.pointers[bias],
                                  self._at(z, emit.imul(r, self.line)),
                                  self._at(h, emit.imul(r, units)))
                        targets = [(emit.pointer(v, (b, t, 0)) if v in emit.pointers else "")
                                   for v in (outputs, kept)]
                        with emit.loop(0, units) as j, emit.scope():
                            self._step(*places, targets, keep, j)

    def _step(self, given: str, bias: str, own: str, state: str, targets: list[str], keep: str, j: Index
              ) -> None:
        """One number of the new state."""
        emit, dtype = self.emit, self.dtype
        places = [emit.iadd(j, gate * self.units) for gate in range(3)]
        shares = [self._binary("fadd", self._get(own, p), self._get(bias, p)) for p in places]
        inputs = [self._get(given, p) for p in places]
        update, reset = (emit.math("logistic", dtype, self._binary("fadd", x, s))
                         for x, s in zip(inputs[:2], shares[:2], strict=True))
        candidate = emit.math("tanh", dtype, self._binary("fadd", inputs[2],
                                                          self._times(reset, shares[2])))
        before = self._get(state, j)
        change = self._times(update, self._binary("fsub", before, candidate))
        number = self._chosen(keep, self._binary("fadd", candidate, change), before)
        self._put(state, j, number)
        if targets[0]:
            self._put(targets[0], j, number)
        if targets[1]:
            for gate, value in enumerate((update, reset, candidate, shares[2])):
                self._put(targets[1], emit.iadd(j, gate * self.units), value)

    def backward(self) -> None:
        emit, units = self.emit, self.units
        outputs_ct, kept, outputs, first = self.operands
        slopes, dh0 = self.op.results
        self._pack(units, self.gates, 1, self.gates)
        with emit.phase(self._work()):
            back, z = self._workspace(units, self.line)
            with emit.loop("%first", "%last") as task, emit.scope():
                row, rows = self._rows(task)
                self._clear(back, rows)
                with emit.loop(0, self.steps) as done, emit.scope():
                    t = self._time(done, back=True)
                    with self._each_row(row, rows, t) as (r, b, keep):
                        before = self._before(outputs, first, b, t)
                        places = (emit.pointer(outputs_ct, (b, t, 0)), emit.pointer(kept, (b, t, 0)),
                                  before, self._at(z, emit.imul(r, self.line)),
                                  self._at(back, emit.imul(r, units)))
                        target = emit.pointer(slopes, (b, t, 0)) if slopes in emit.pointers else ""
                        with emit.loop(0, units) as j, emit.scope():
                            self._step_back(*places, target, keep, j)
                    self._multiply(z, self.line, back, units, rows, units, self.gates, "true")
                if dh0 in emit.pointers:
                    self._write(dh0, back, row, rows)

    def _step_back(self, ct: str, kept: str, before: str, own: str, back: str, target: str, keep: str,
                   j: Index) -> None:
        """The cotangents of the three gates of one number of the state."""
        emit, times = self.emit, self._times
        update, reset, candidate, share = (
            self._get(kept, emit.iadd(j, gate * self.units)) for gate in range(4))
        dh = self._binary("fadd", self._get(ct, j), self._get(back, j))
        step = self._binary("fsub", self._get(before, j), candidate)
        of_update = times(dh, step, self._rest_of(update))
        rest = self._binary("fsub", emit.constant(1, self.dtype), update)
        of_candidate = times(dh, rest, self._rest(candidate, candidate))
        of_reset = times(of_candidate, share, self._rest_of(reset))
        self._put(back, j, self._chosen(keep, times(dh, update), dh))
        for gate, number in enumerate((of_update, of_reset, of_candidate)):
            place = emit.iadd(j, gate * self.units)
            number = self._zero_unless(keep, number)
            if target:
                self._put(target, place, number)
            self._put(own, place, times(number, reset) if gate == 2 else number)


class _Simple(_Recurrent):
    """One gate, the new state itself."""

    blocks = 1

    def forward(self) -> None:
        emit, units = self.emit, self.units
        sequence, first = self.operands
        (outputs,) = self.op.results
        self._pack(units, units, units, 1)
        with emit.phase(self._work()):
            h, z = self._workspace(units, self.line)
            with emit.loop("%first", "%last") as task, emit.scope():
                row, rows = self._rows(task)
                self._start(h, first, row, rows)
                with emit.loop(0, self.steps) as done, emit.scope():
                    t = self._time(done)
                    self._multiply(h, units, z, self.line, rows, units, units)
                    with self._each_row(row, rows, t) as (r, b, keep):
                        given = emit.pointer(sequence, (b, t, 0))
                        own = self._at(z, emit.imul(r, self.line))
                        state = self._at(h, emit.imul(r, units))
                        target = emit.pointer(outputs, (b, t, 0))
                        with emit.loop(0, units) as j, emit.scope():
                            total = self._binary("fadd", self._get(own, j), self._get(given, j))
                            number = emit.math("tanh", self.dtype, total)
                            number = self._chosen(keep, number, self._get(state, j))
                            self._put(state, j, number)
                            self._put(target, j, number)

    def backward(self) -> None:
        emit, units = self.emit, self.units
        outputs_ct, outputs = self.operands
        slopes, dh0 = self.op.results
        self._pack(units, units, 1, units)
        with emit.phase(self._work()):
            back, z = self._workspace(units, self.line)
            with emit.loop("%first", "%last") as task, emit.scope():
                row, rows = self._rows(task)
                self._clear(back, rows)
                with emit.loop(0, self.steps) as done, emit.scope():
                    t = self._time(done, back=True)
                    with self._each_row(row, rows, t) as (r, b, keep):
                        ct, output = (emit.pointer(v, (b, t, 0)) for v in (outputs_ct, outputs))
                        own = self._at(z, emit.imul(r, self.line))
                        state = self._at(back, emit.imul(r, units))
                        target = emit.pointer(slopes, (b, t, 0)) if slopes in emit.pointers else ""
                        with emit.loop(0, units) as j, emit.scope():
                            dh = self._binary("fadd", self._get(ct, j), self._get(state, j))
                            made = self._get(output, j)
                            slope = self._zero_unless(keep, self._times(dh, self._rest(made, made)))
                            self._put(own, j, slope)
                            if keep:
                                self._put(state, j, self._chosen(
                                    keep, emit.constant(0, self.dtype), dh))
                            if target:
                                self._put(target, j, slope)
                    self._multiply(z, self.line, back, units, rows, units, units,
                                   "true" if self.mask is not None else "false")
                if dh0 in emit.pointers:
                    self._write(dh0, back, row, rows)


_CELLS: dict[str, type[_Lstm | _Gru | _Simple]] = {
    "tfn.lstm": _Lstm, "tfn.gru": _Gru, "tfn.simple_rnn": _Simple}
