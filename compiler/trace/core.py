"""Tracing: how a Python call becomes IR.

Every operation of the library ends in `bind`. On concrete `Array`s it evaluates at once with NumPy
(the eager engine); on `Tracer`s it records an `Op` in the innermost `Graph`. Transformations trace a
function (`trace`) and bind its ops again in another way (`replay`, `grad`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import NanError, OpError, TfnError, TraceError, user_location
from ..ir.core import Block, Function, Location, Op, TensorType, Value
from ..ir.dims import Dim, Extent
from ..ir.dtypes import DType, as_dtype
from ..ops.declare import OpDefinition, definition
from ..ops.host import CHECKS, holds, message

# A concrete result up to this size is evaluated during tracing (and becomes a constant); a larger
# one is recorded, so that `zeros((4096, 4096))` inside `jit` is not a 64 MB constant.
_EAGER_IN_TRACE = 1024


class Operators:
    """Operators and methods shared by `Array` and `Tracer`; `compiler.numpy` fills them in."""

    __slots__ = ()
    __array_priority__ = 1000

    shape: tuple[Extent, ...]
    dtype: Any

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self):
        if not self.shape:
            raise TypeError("a 0-d array has no length")
        return self.shape[0] if isinstance(self.shape[0], int) else self.shape[0].__index__()


class Array(Operators):
    """A concrete, immutable n-dimensional array. `np.asarray(a)` views it without a copy."""

    __slots__ = ("_data", "__weakref__")

    def __init__(self, data: np.ndarray):
        self._data = data

    @property
    def type(self) -> TensorType:
        return TensorType(self._data.shape, as_dtype(self._data.dtype))

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self._data.shape

    @property
    def dtype(self) -> np.dtype:  # type: ignore[override]
        return self._data.dtype

    @property
    def size(self) -> int:
        return self._data.size

    @property
    def nbytes(self) -> int:
        return self._data.nbytes

    def numpy(self) -> np.ndarray:
        """The values as a read-only NumPy array (no copy)."""
        view = self._data.view()
        view.flags.writeable = False
        return view

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        if copy:
            return np.array(self._data, dtype=dtype)
        view = self.numpy()
        return view if dtype is None else view.astype(dtype, copy=False)

    def item(self, *index):
        return self._data.item(*index)

    def tolist(self):
        return self._data.tolist()

    def __bool__(self):
        return bool(self._data)

    def __int__(self):
        return int(self._data)

    def __float__(self):
        return float(self._data)

    def __complex__(self):
        return complex(self._data)

    def __index__(self):
        return self._data.__index__()

    def __format__(self, spec):
        return format(self._data.item() if self._data.ndim == 0 and spec else self._data, spec)

    def __repr__(self):
        body = np.array2string(self._data, separator=", ", prefix="Array(")
        return f"Array({body}, dtype={self._data.dtype})"

    def __reduce__(self):
        return (Array, (self._data,))

    def __deepcopy__(self, memo):
        return self


_NO_BRANCH = ("Use where() to choose between values, cond, while_loop or scan for what runs, or make"
              " the argument it depends on static (jit's static_argnums)")
_NO_NUMBER = ("Keep it an array: tfn.numpy computes with it, astype() changes its dtype,"
              " tfn.debug.print shows it when the program runs; where only a Python number will do,"
              " make the argument it depends on static (jit's static_argnums)")
_NO_INDEX = ("Index an array instead of a list (asarray(list)[i]), loop with fori_loop or scan, and"
             " slice with a fixed size; a shape or an axis must be a Python int (jit's"
             " static_argnums)")
_NO_NUMPY = ("Use the function of that name in tfn.numpy instead of NumPy's, or"
             " tfn.debug.pure_callback to call NumPy when the program runs")


def leaked(tracer: Tracer) -> TraceError:
    """The error for a value used after (or beside) the trace that it belongs to."""
    return TraceError(
        f"{tracer!r} leaked out of the function that was traced at {tracer.graph.location}; return"
        " it from that function instead of storing it in a global, an attribute or a list",
        user_location(), tracer.origin())


class Tracer(Operators):
    """A value that stands for an array while a function is traced."""

    __slots__ = ("value", "graph", "__weakref__")

    def __init__(self, value: Value, graph: Graph):
        self.value = value
        self.graph = graph

    @property
    def type(self) -> TensorType:
        return self.value.type

    @property
    def shape(self) -> tuple[Extent, ...]:  # type: ignore[override]
        return self.value.type.shape

    @property
    def dtype(self) -> np.dtype:  # type: ignore[override]
        return self.value.type.dtype.numpy

    @property
    def size(self) -> Extent:
        return self.value.type.size

    def origin(self) -> tuple[str, Location] | None:
        """Where the value was made, or the function traced that it is an argument of: `related` of
        an error about it."""
        if self.value.op is None:
            words = f"it is argument {self.value.index} of the function traced"
            return (words, self.graph.location) if self.graph.location else None
        return ("it was made", self.value.op.location) if self.value.op.location else None

    def _no_value(self, what: str, remedy: str) -> TraceError:
        if self.graph not in _stack():
            return leaked(self)
        return TraceError(
            f"{what} needs the value of {self!r}, which is not known while the function is traced."
            f" {remedy}, or keep this part outside jit (run_eagerly=True in Keras)",
            user_location(), self.origin())

    def __bool__(self):
        raise self._no_value("bool(), as in `if`, `while`, `and`, `or`, `not`, `in`", _NO_BRANCH)

    def __int__(self):
        raise self._no_value("int()", _NO_NUMBER)

    def __float__(self):
        raise self._no_value("float()", _NO_NUMBER)

    def __complex__(self):
        raise self._no_value("complex()", _NO_NUMBER)

    def __index__(self):
        raise self._no_value("use as a Python index, in a range or as a shape", _NO_INDEX)

    def __array__(self, dtype=None, copy=None):
        raise self._no_value("conversion to a NumPy array", _NO_NUMPY)

    def numpy(self):
        raise self._no_value("numpy()", _NO_NUMPY)

    def item(self, *index):
        raise self._no_value("item()", _NO_NUMBER)

    def tolist(self):
        raise self._no_value("tolist()", _NO_NUMBER)

    def __format__(self, spec):
        if not spec:
            return repr(self)
        raise self._no_value(f"formatting with {spec!r}", "Print it with tfn.debug.print when the"
                             " program runs")

    def __repr__(self):
        return f"Tracer({self.value.type})"

    def __deepcopy__(self, memo):
        return self


class Graph:
    """A block under construction.

    A *function* graph turns outer tracers it meets into extra arguments (`captures`); a *region*
    graph refers to them directly, as StableHLO regions may.
    """

    def __init__(self, argument_types: Sequence[TensorType], region: bool = False):
        self.block = Block(argument_types)
        self.parent = current_graph()
        self.region = region
        self.captures: list[Tracer] = []
        self._lifted: dict[int, tuple[Any, Value]] = {}
        self.location = user_location()

    @property
    def arguments(self) -> list[Tracer]:
        return [Tracer(v, self) for v in self.block.arguments]

    def lift(self, operand: Array | Tracer) -> Value:
        """The value of `operand` inside this graph."""
        if isinstance(operand, Tracer) and operand.graph is self:
            return operand.value
        known = self._lifted.get(id(operand))
        if known is not None:
            return known[1]
        value = self._lift_new(operand)
        self._lifted[id(operand)] = (operand, value)
        return value

    def _lift_new(self, operand: Array | Tracer) -> Value:
        if isinstance(operand, Array):
            constant = definition("stablehlo.constant")
            attributes = {"value": operand._data}
            op = Op(constant, (), [operand.type], attributes, location=current_location())
            self.block.ops.append(op)
            return op.result
        ancestor = self.parent
        while ancestor is not None and ancestor is not operand.graph:
            ancestor = ancestor.parent
        if ancestor is None:
            raise leaked(operand)
        if self.region:
            assert self.parent is not None
            return self.parent.lift(operand)
        self.captures.append(operand)
        return self.block.add_argument(operand.type)

    def record(
        self,
        op: type[OpDefinition],
        operands: Sequence[Array | Tracer],
        result_types: Sequence[TensorType],
        attributes: Mapping[str, Any],
        regions: Sequence[Block],
    ) -> list[Tracer]:
        values = [self.lift(o) for o in operands]
        node = Op(op, values, result_types, attributes, regions, current_location())
        self.block.ops.append(node)
        return [Tracer(v, self) for v in node.results]

    def __enter__(self) -> Graph:
        _stack().append(self)
        return self

    def __exit__(self, *_):
        _stack().pop()


_STATE = threading.local()


def _stack() -> list[Graph]:
    try:
        return _STATE.graphs
    except AttributeError:
        _STATE.graphs = []
        return _STATE.graphs


class located:
    """Context in which recorded ops belong to the user's line `location`: ops bound on behalf of an
    earlier one keep its place. None changes nothing; `afresh` forgets the place while a function of
    the user's runs, whose own lines count."""

    def __init__(self, location: Location | None, afresh: bool = False):
        self.location = location
        self.afresh = afresh

    def __enter__(self):
        self._saved = getattr(_STATE, "location", None)
        _STATE.location = None if self.afresh else self.location or self._saved

    def __exit__(self, *_):
        _STATE.location = self._saved


def current_location() -> Location | None:
    """The user's line that recorded ops belong to."""
    return getattr(_STATE, "location", None) or user_location()


def current_graph() -> Graph | None:
    """The innermost graph being traced in this thread, None when running eagerly."""
    stack = _stack()
    return stack[-1] if stack else None


class eager:
    """Context in which concrete operations are evaluated at once, whatever is being traced."""

    def __enter__(self):
        self._saved = _stack()[:]
        _stack().clear()

    def __exit__(self, *_):
        _stack()[:] = self._saved


def as_array(value: Any, dtype: DType | None = None) -> Array | Tracer:
    """`value` as an `Array` (NumPy arrays are viewed, not copied); tracers pass through."""
    if isinstance(value, (Array, Tracer)):
        return value
    try:
        data = np.asarray(value, dtype=None if dtype is None else dtype.numpy)
    except ValueError as error:
        raise OpError(f"{shown(value)} is no array: {error}", user_location()) from None
    try:
        as_dtype(data.dtype)
    except TypeError:
        raise TraceError(f"{shown(value)} is no array of numbers: NumPy makes {data.dtype} of it",
                         user_location()) from None
    return Array(data)


def shown(value: Any) -> str:
    """A Python value in a message: its repr, cut, and its type."""
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


def bind(
    op: str | type[OpDefinition], *operands: Any, regions: Sequence[Block] = (), **attributes: Any
) -> Any:
    """Apply an op: evaluate it on arrays, record it on tracers.

    `operands` are Arrays, Tracers or anything NumPy makes an array of; `attributes` as the op
    declares them. Returns one value, or a list for an op with several results. Raises `OpError` at
    the user's line when the op does not accept them.
    """
    if isinstance(op, str):
        op = definition(op)
    inputs = [as_array(o) for o in operands]
    try:
        types = op.infer([i.type for i in inputs], attributes, regions)
    except TfnError as error:
        if error.location is None:
            error.location = current_location()
        raise
    graph = current_graph()
    results: Sequence[Array | Tracer]
    if graph is not None and (
        any(isinstance(i, Tracer) for i in inputs)
        or op.has_effect
        or attributes.get("effect")
        or attributes.get("has_side_effect")
        or any(not t.is_static or t.size > _EAGER_IN_TRACE for t in types)
        or any(free_values(r) for r in regions)
    ):
        results = graph.record(op, inputs, types, attributes, regions)
    else:
        results = _evaluate(op, inputs, attributes, regions, types)
    return results[0] if len(results) == 1 else results


def _evaluate(op, inputs, attributes, regions, types) -> list[Array]:
    stray = next((i for i in inputs if isinstance(i, Tracer)), None)
    if stray is not None:
        raise leaked(stray)
    with np.errstate(all="ignore"):
        outputs = op.rule("evaluate")([i._data for i in inputs], attributes, regions, types)
    results = [Array(conform(o, t)) for o, t in zip(outputs, types, strict=True)]
    if CHECKS.nans or CHECKS.infs:
        _check(op, inputs, results)
    return results


def _check(op, inputs, results) -> None:
    """`debug.check_nans` for one eager op; a constant is what its author wrote."""
    if op.name == "stablehlo.constant":
        return
    for result in results:
        if holds(result._data, CHECKS.nans, CHECKS.infs) and not any(
                holds(i._data, CHECKS.nans, CHECKS.infs) for i in inputs):
            raise NanError(message(op.name, result.type, CHECKS.nans, CHECKS.infs),
                           current_location())


def conform(data, type: TensorType) -> np.ndarray:
    """`data` as an ndarray of exactly `type` (NumPy likes to widen and to return scalars)."""
    data = np.asarray(data, dtype=type.dtype.numpy)
    if data.shape != type.shape and type.is_static:
        raise OpError(f"evaluation gave shape {data.shape}, inference {type.shape}")
    return data


def trace(
    function: Callable[..., Sequence[Any]],
    argument_types: Sequence[TensorType],
    name: str = "main",
) -> tuple[Function, list[Tracer]]:
    """Trace `function(*tracers) -> sequence of values` to a `Function`.

    Outer tracers the function closes over become further arguments, returned as the second item
    in argument order; it is empty at top level.
    """
    with Graph(argument_types) as graph:
        outputs = function(*graph.arguments)
        graph.block.returns = [graph.lift(as_array(o)) for o in outputs]
    return Function(name, graph.block), graph.captures


def trace_region(
    function: Callable[..., Sequence[Any]], argument_types: Sequence[TensorType]
) -> Block:
    """Trace a region (a reducer, a loop body); outer values are referred to directly."""
    with Graph(argument_types, region=True) as graph:
        outputs = function(*graph.arguments)
        graph.block.returns = [graph.lift(as_array(o)) for o in outputs]
    return graph.block


def replay(function: Function, arguments: Sequence[Any]) -> list[Any]:
    """Bind every op of `function` again on `arguments`; returns its results."""
    environment = dict(zip(function.arguments, arguments, strict=True))
    replay_ops(function.ops, environment)
    return [environment[v] for v in function.returns]


def replay_ops(ops: Sequence[Op], environment: dict[Value, Any]) -> None:
    """Bind `ops` again, reading operands from and writing results to `environment`."""
    for op in ops:
        results = replay_op(op, [environment[v] for v in op.operands], environment)
        for value, result in zip(op.results, results, strict=True):
            environment[value] = result


def replay_op(op: Op, operands: Sequence[Any], environment: Mapping[Value, Any]) -> list[Any]:
    """Bind one op again on new operands; returns a list of its results."""
    with located(op.location):
        regions = replay_regions(op, environment)
        results = bind(op.definition, *operands, regions=regions, **op.attributes)
    return results if len(op.results) != 1 else [results]


def replay_regions(op: Op, environment: Mapping[Value, Any]) -> list[Block]:
    """The regions of `op`, referring to what `environment` has in place of outer values."""
    return [_replay_region(r, environment) for r in op.regions]


def _replay_region(block: Block, environment: Mapping[Value, Any]) -> Block:
    if not free_values(block):
        return block

    def body(*arguments):
        inner = dict(environment)
        inner.update(zip(block.arguments, arguments, strict=True))
        replay_ops(block.ops, inner)
        return [inner[v] for v in block.returns]

    return trace_region(body, [a.type for a in block.arguments])


def free_values(block: Block) -> list[Value]:
    """Values used in `block` (or its inner regions) that are defined outside it, in order."""
    defined: set[Value] = set()
    free: dict[Value, None] = {}

    def visit(b: Block):
        defined.update(b.arguments)
        for op in b.ops:
            free.update((o, None) for o in op.operands if o not in defined)
            for region in op.regions:
                visit(region)
            defined.update(op.results)
        free.update((r, None) for r in b.returns if r not in defined)

    visit(block)
    return list(free)


def dims_of(types: Sequence[TensorType]) -> set[str]:
    """Names of the symbolic dims that occur in `types`."""
    return {n for t in types for d in t.shape if isinstance(d, Dim) for n in d.names}


__all__ = [
    "Array", "Graph", "Location", "Operators", "Tracer", "as_array", "bind", "conform",
    "current_graph", "current_location", "dims_of", "eager", "free_values", "located", "replay",
    "replay_op", "replay_ops",
    "replay_regions", "trace", "trace_region",
]
