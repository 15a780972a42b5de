"""Symbolic dims at the border to text: StableHLO's dynamic ops out, static forms back in.

In memory an op holds symbolic extents in its attributes. StableHLO text cannot: `to_dynamic` turns
them into operands computed from the sizes of the function's arguments, and `refine` evaluates such
computations again, given the types of the arguments. The two undo each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import OpError, UnsupportedError
from ..ops.declare import definition
from ..ops.dynamic import DYNAMIC_FORMS, DynamicForm
from .core import Block, Function, Op, TensorType, Value
from .dims import Dim, Extent
from .extents import depends_on_data, known_extents, unknown_extents
from .types import is_unknown
from .verify import infer_types

_TO_DYNAMIC = {form.static: name for name, form in DYNAMIC_FORMS.items()}


def to_dynamic(function: Function) -> Function:
    """`function` in valid StableHLO: shapes with symbolic dims are computed from its arguments.

    A function without symbolic dims is returned as it is. Raises `UnsupportedError` for an op that
    StableHLO does not have with such a shape, and for a dim no argument has.
    """
    return _Dynamizer().function(function)


def refine(
    function: Function,
    argument_types: Sequence[TensorType],
    known: Mapping[int, Extent] | None = None,
) -> Function:
    """`function` for arguments of these types, in static forms, all result types inferred anew.

    `argument_types` may have ints or `Dim`s where the function has `?` or a `Dim`. `known` gives
    values of integer scalar arguments that the function uses as sizes. Raises `OpError` when the
    types contradict the function and `UnsupportedError` when a shape depends on other data.
    """
    return _Refiner().function(function, tuple(argument_types), dict(known or {}))


def _is_symbolic(value: Any) -> bool:
    """Whether an attribute value holds a symbolic dim."""
    if isinstance(value, Dim):
        return True
    if isinstance(value, (tuple, list)):
        return any(_is_symbolic(v) for v in value)
    return isinstance(value, TensorType) and not value.is_static


def _mentions_dims(function: Function, seen: set[Function]) -> bool:
    """Whether any value of the function, or of one it calls, has a symbolic type."""
    if function in seen:
        return False
    seen.add(function)
    values = [*function.arguments, *(r for op in function.body.walk() for r in op.results)]
    return any(not v.type.is_static for v in values) or any(
        _mentions_dims(v, seen) for op in function.body.walk() for v in op.attributes.values()
        if isinstance(v, Function))


def _is_sized(function: Function) -> bool:
    """Whether the arguments of a function have all the dims in it; those of random bits are a key."""
    given = {e.names[0] for a in function.arguments for e in a.shape
             if isinstance(e, Dim) and len(e.terms) == 1}
    used = {name for op in function.body.walk() for r in op.results if isinstance(r.type, TensorType)
            for e in r.type.shape if isinstance(e, Dim) for name in e.names}
    return used <= given


# -- out ------------------------------------------------------------------------------------------

class _Sizes:
    """Computes extents from the arguments of a function; its ops go before all others."""

    def __init__(self, arguments: Sequence[Value]):
        self.ops: list[Op] = []
        self.sources: dict[str, tuple[Value, int]] = {}
        self.cache: dict[Any, Value] = {}
        for argument in arguments:
            for d, extent in enumerate(argument.shape):
                if isinstance(extent, Dim) and len(extent.terms) == 1:
                    self.sources.setdefault(extent.names[0], (argument, d))

    def _append(self, name: str, operands: Sequence[Value], **attributes: Any) -> Value:
        declared = definition(name)
        types = declared.infer([v.type for v in operands], attributes, ())
        self.ops.append(Op(declared, operands, types, attributes))
        return self.ops[-1].result

    def _constant(self, values) -> Value:
        return self._append("stablehlo.constant", (), value=np.asarray(values, np.int32))

    def _named(self, name: str, op: Op) -> Value:
        """The value of a named dim, an i32 scalar."""
        if name in self.cache:
            return self.cache[name]
        if name not in self.sources:
            raise UnsupportedError(
                f"the dimension `{name}` of {op.name} is not the size of any argument, so a"
                " program in StableHLO cannot compute it", op.location)
        argument, d = self.sources[name]
        extent = argument.shape[d]
        assert isinstance(extent, Dim)
        value = self._append("stablehlo.get_dimension_size", [argument], dimension=d)
        (_, coefficient), = extent.terms
        if extent.constant:
            value = self._append("stablehlo.subtract", [value, self._constant(extent.constant)])
        if coefficient != 1:
            value = self._append("stablehlo.divide", [value, self._constant(coefficient)])
        self.cache[name] = value
        return value

    def _element(self, extent: Extent, op: Op) -> Value:
        """An extent as `tensor<1xi32>`."""
        if extent in self.cache:
            return self.cache[extent]
        if not isinstance(extent, Dim):
            value = self._constant([extent])
        else:
            total: Value | None = None
            for name, coefficient in extent.terms:
                term = self._named(name, op)
                if coefficient != 1:
                    term = self._append("stablehlo.multiply",
                                        [term, self._constant(coefficient)])
                total = term if total is None else self._append("stablehlo.add", [total, term])
            assert total is not None
            if extent.constant:
                total = self._append("stablehlo.add", [total, self._constant(extent.constant)])
            value = self._append("stablehlo.reshape", [total], shape=(1,))
        self.cache[extent] = value
        return value

    def vector(self, extents: Sequence[Any], op: Op) -> Value:
        """Extents as a tensor of i32; rows of pairs as a matrix."""
        flat: tuple = tuple(extents)
        rows = bool(flat) and isinstance(flat[0], (tuple, list))
        if rows:
            shape = (len(flat), len(flat[0]))
            flat = tuple(e for row in flat for e in row)
        key = (rows, flat)
        if key not in self.cache:
            if not any(isinstance(e, Dim) for e in flat):
                value = self._constant(np.reshape(flat, shape) if rows else list(flat))
            else:
                pieces = [self._element(e, op) for e in flat]
                value = pieces[0] if len(pieces) == 1 else self._append(
                    "stablehlo.concatenate", pieces, dimension=0)
                if rows:
                    value = self._append("stablehlo.reshape", [value], shape=shape)
            self.cache[key] = value
        return self.cache[key]


class _Dynamizer:
    """Converts a function and those it calls."""

    def __init__(self) -> None:
        self.done: dict[Function, Function] = {}

    def function(self, source: Function) -> Function:
        if source not in self.done:
            self.done[source] = (
                self._convert(source) if _mentions_dims(source, set()) else source)
        return self.done[source]

    def _convert(self, source: Function) -> Function:
        block = Block(source.argument_types)
        values = dict(zip(source.arguments, block.arguments, strict=True))
        sizes = _Sizes(block.arguments)
        self._ops(source.body, block, values, sizes)
        block.ops[:0] = sizes.ops
        return Function(source.name, block, source.argument_attributes,
                        source.result_attributes, source.public)

    def _ops(self, source: Block, block: Block, values: dict[Value, Value], sizes: _Sizes) -> None:
        for op in source.ops:
            operands = [values[v] for v in op.operands]
            inner = op.attributes.get("decomposition")
            if inner is not None and not _is_sized(inner):
                # Only the caller can compute the size; its argument has it.
                self._ops(inner.body, block, dict(zip(inner.arguments, operands, strict=True)), sizes)
                values.update(zip(op.results, block.returns, strict=True))
                continue
            new = self._op(op, operands, values, sizes)
            block.ops.append(new)
            values.update(zip(op.results, new.results, strict=True))
        block.returns = [values[v] for v in source.returns]

    def _op(self, op: Op, operands: list[Value], values, sizes: _Sizes) -> Op:
        types = [r.type for r in op.results]
        attributes = {k: self.function(v) if isinstance(v, Function) else v
                      for k, v in op.attributes.items()}
        symbolic = [k for k, v in attributes.items()
                    if _is_symbolic(v) and op.name not in DYNAMIC_FORMS]
        if symbolic:
            name = _TO_DYNAMIC.get(op.name)
            if name is None or not set(symbolic) <= set(DYNAMIC_FORMS[name].moved):
                raise UnsupportedError(
                    f"StableHLO has no {op.name} with a symbolic {symbolic[0]}", op.location)
            for k in DYNAMIC_FORMS[name].moved:
                value = attributes.pop(k)
                extents: Any = value.shape if isinstance(value, TensorType) else value
                operands.append(sizes.vector(extents, op))
            if op.name == "stablehlo.convolution":
                attributes.pop("dtype", None)
                attributes = {"batch_group_count": 1, "feature_group_count": 1, **attributes}
            return Op(definition(name), operands, types, {**attributes, "type": types[0]},
                      (), op.location)
        regions = [self._region(r, values, sizes) for r in op.regions]
        return Op(op.definition, operands, types, attributes, regions, op.location)

    def _region(self, source: Block, values: dict[Value, Value], sizes: _Sizes) -> Block:
        block = Block([a.type for a in source.arguments])
        inner = {**values, **dict(zip(source.arguments, block.arguments, strict=True))}
        self._ops(source, block, inner, sizes)
        return block


# -- in -------------------------------------------------------------------------------------------

class _Refiner:
    """Infers a function and those it calls anew for given argument types."""

    def __init__(self) -> None:
        self.done: dict[Any, Function] = {}
        self.returned: dict[Function, list[np.ndarray | None]] = {}
        """Values of a function's results; None where they depend on data."""

    def function(self, source: Function, types: tuple[TensorType, ...],
                 known: dict[int, Any]) -> Function:
        key = (source, types, tuple(sorted((i, str(v)) for i, v in known.items())))
        if key not in self.done:
            self.done[key] = self._refine(source, types, known)
        return self.done[key]

    def _refine(self, source: Function, types, known) -> Function:
        if len(types) != len(source.arguments):
            raise OpError(f"@{source.name} takes {len(source.arguments)} arguments, got types of"
                          f" {len(types)}")
        for i, (argument, type) in enumerate(zip(source.arguments, types, strict=True)):
            if not _agrees(argument.type, type):
                raise OpError(f"argument {i} of @{source.name} is a {argument.type}; it cannot be"
                              f" a {_named(type)}")
        body = _Body(self)
        block = Block(types)
        for i, extent in known.items():
            body.extents[block.arguments[i]] = np.asarray(extent, object)
        body.block(source.body, block, {})
        body.drop_shape_code(block)
        refined = Function(source.name, block, source.argument_attributes,
                           source.result_attributes, source.public)
        values = (body.extents.get(v) for v in block.returns)
        self.returned[refined] = [None if v is None or depends_on_data(v) else v for v in values]
        return refined


def _call(op: Op, operands: Sequence[Value]) -> tuple[tuple[TensorType, ...], int]:
    """The types that the function of an op is called with, and how many of the first operands it gets
    as they are: a scan gives its body rows, and a carry that changes."""
    types = [v.type for v in operands]
    if op.name != "tfn.scan":
        return tuple(types), len(types)
    same, carries = op.attributes["constants"], op.attributes["carries"]
    whole, stacked = types[:same + carries], types[same + carries:]
    return (*whole, *(TensorType(t.shape[1:], t.dtype) for t in stacked)), same


class _Body:
    """The refined copy of one function: known values of integers, and what lost a use."""

    def __init__(self, refiner: _Refiner):
        self.refiner = refiner
        self.extents: dict[Value, np.ndarray] = {}
        self.suspects: list[Value] = []
        self.symbols = 0

    def block(self, source: Block, block: Block, outer: Mapping[Value, Value]) -> None:
        values = {**outer, **dict(zip(source.arguments, block.arguments, strict=True))}
        for op in source.ops:
            new = self._op(op, [values[v] for v in op.operands], values, block)
            block.ops.append(new)
            values.update(zip(op.results, new.results, strict=True))
            self._note(new)
        block.returns = [values[v] for v in source.returns]

    def _note(self, op: Op) -> None:
        """Remember the values of an op's results: known, or a symbol for what depends on data."""
        extents = [known_extents(op, self.extents)] * len(op.results)
        called = next((v for v in op.attributes.values() if isinstance(v, Function)), None)
        if called is not None and op.name != "tfn.scan":
            extents = self.refiner.returned.get(called, extents)
        for result, found in zip(op.results, extents, strict=True):
            if found is None or depends_on_data(found):
                self.symbols += 1
            if found is None:
                found = unknown_extents(result, self.symbols)
            if found is not None:
                self.extents[result] = found

    def _op(self, op: Op, operands: list[Value], values: Mapping[Value, Value], block: Block) -> Op:
        declared, attributes = op.definition, dict(op.attributes)
        form = DYNAMIC_FORMS.get(op.name)
        if op.name == "stablehlo.real_dynamic_slice" and self._starts_anywhere(operands):
            declared = definition("stablehlo.dynamic_slice")
            operands, attributes = self._dynamic_slice(op, operands, block)
        elif form is not None:
            declared = definition(form.static)
            operands, attributes = self._static(op, form, operands)
        regions = [self._region(op, r, operands, values) for r in op.regions]
        for name, value in attributes.items():
            if isinstance(value, Function):
                given, same = _call(op, operands)
                known = {i: self.extents[v].item() for i, v in enumerate(operands[:same])
                         if v in self.extents and self.extents[v].ndim == 0
                         and not depends_on_data(self.extents[v])}
                attributes[name] = self.refiner.function(value, given, known)
        types = infer_types(declared, [v.type for v in operands], attributes, regions,
                            op.location, [r.type for r in op.results])
        if is_unknown(types):
            raise UnsupportedError(f"the result type of {op.name} cannot be inferred: "
                                   + ", ".join(str(r.type) for r in op.results), op.location)
        for result, type in zip(op.results, types, strict=True):
            if not _agrees(result.type, type):
                raise OpError(f"{op.name} gives {_named(type)} for these arguments, but the text"
                              f" says {result.type}", op.location)
        return Op(declared, operands, types, attributes, regions, op.location)

    def _static(self, op: Op, form: DynamicForm, operands: list[Value]):
        """Operands and attributes of the static form."""
        count = len(operands) - len(form.moved)
        attributes = {k: v for k, v in op.attributes.items()
                      if k not in ("type", *form.extra)}
        dtype = op.result.dtype
        for name, operand in zip(form.moved, operands[count:], strict=True):
            extents = self.extents.get(operand)
            if extents is None or depends_on_data(extents):
                raise UnsupportedError(
                    f"the `{name}` of {op.name} is not computed from the sizes of the arguments",
                    op.location)
            self.suspects.append(operand)
            shape = _tuples(extents)
            attributes[name] = TensorType(shape, dtype) if name == "type" else shape
        if "dtype" in definition(form.static).attributes and dtype != operands[0].dtype:
            attributes["dtype"] = dtype
        return operands[:count], attributes

    def _starts_anywhere(self, operands: list[Value]) -> bool:
        start = self.extents.get(operands[1])
        return start is not None and depends_on_data(start)

    def _dynamic_slice(self, op: Op, operands: list[Value], block: Block):
        """`real_dynamic_slice` from where data says: its size must still be known."""
        x, start, limit, strides = operands
        bounds = [b for b in map(self.extents.get, (start, limit, strides)) if b is not None]
        if len(bounds) != 3 or any(s != 1 for s in bounds[2]):
            raise UnsupportedError(f"{op.name} with steps, from where data says, is not supported",
                                   op.location)
        sizes = np.asarray([b - a for a, b in zip(bounds[0], bounds[1], strict=True)], object)
        if depends_on_data(sizes):
            raise UnsupportedError(f"the size of what {op.name} cuts out depends on data",
                                   op.location)
        self.suspects += [limit, strides]
        scalars = []
        for d in range(len(sizes)):
            for name, operand, attributes in (
                    ("slice", start, {"start_indices": (d,), "limit_indices": (d + 1,),
                                      "strides": (1,)}), ("reshape", None, {"shape": ()})):
                declared = definition(f"stablehlo.{name}")
                source = operand or block.ops[-1].result
                types = infer_types(declared, [source.type], attributes, (), op.location)
                block.ops.append(Op(declared, [source], types, attributes, (), op.location))
            scalars.append(block.ops[-1].result)
        return [x, *scalars], {"slice_sizes": _tuples(sizes)}

    def _region(self, op: Op, source: Block, operands, values: Mapping[Value, Value]) -> Block:
        looping = op.name == "stablehlo.while"
        types = [v.type for v in (operands if looping else source.arguments)]
        block = Block(types)
        self.block(source, block, values)
        return block

    def drop_shape_code(self, root: Block) -> None:
        """Remove what only computed operands that are attributes now."""
        count: dict[Value, int] = {}
        blocks = [root]
        for block in blocks:
            for op in block.ops:
                blocks += op.regions
                for operand in op.operands:
                    count[operand] = count.get(operand, 0) + 1
            for value in block.returns:
                count[value] = count.get(value, 0) + 1
        dropped: set[Op] = set()
        queue = self.suspects
        while queue:
            maker = queue.pop().op
            if maker is None or maker in dropped or maker.has_effect:
                continue
            if maker.regions or any(count.get(r) for r in maker.results):
                continue
            dropped.add(maker)
            for operand in maker.operands:
                count[operand] -= 1
                queue.append(operand)
        for block in blocks:
            block.ops = [op for op in block.ops if op not in dropped]


def _tuples(extents: np.ndarray):
    """Nested tuples of ints and dims."""
    if extents.ndim == 0:
        return extents.item()
    return tuple(_tuples(row) if isinstance(row, np.ndarray) else row for row in extents)


def _agrees(declared: TensorType, actual: TensorType) -> bool:
    """Whether `actual` is `declared` with its symbolic extents made more precise."""
    return declared.dtype is actual.dtype and declared.rank == actual.rank and all(
        isinstance(d, Dim) or d == a
        for d, a in zip(declared.shape, actual.shape, strict=True))


def _named(type: TensorType) -> str:
    """A type with its dims by name."""
    return f"tensor<{''.join(f'{d}x' for d in type.shape)}{type.dtype}>"
