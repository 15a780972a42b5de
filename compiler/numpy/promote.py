"""Operands of NumPy-style functions: element types, weak Python scalars, broadcasting.

The default types are 32 bits wide, as in JAX and Keras: a Python float is f32 (`ir.defaults` can
change it), a Python int i32. A Python scalar (and a `np.float64`, `np.int64` or `np.complex128`
scalar) is *weak*: next to an array it takes the array's type. Explicit 64-bit arrays keep their type.
Extents may be symbolic everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, TypeAlias

import numpy as np

from ..errors import OpError, TraceError, user_location
from ..ir.defaults import default_complex, default_float
from ..ir.dims import Dim, Extent
from ..ir.dtypes import ALL, BF16, C64, C128, F16, F32, F64, I1, I32, DType, as_dtype
from ..ops import elementwise as _elementwise  # noqa: F401  (declares the ops)
from ..ops import shape as _shape  # noqa: F401
from ..trace.core import Array, Tracer, as_array, bind, current_graph, record, shown
from .device import check_device

ArrayLike: TypeAlias = Any
"""Array, Tracer, NumPy array, Python number, Dim, or a (nested) sequence of these."""
Value: TypeAlias = Any
"""Array or Tracer. Any to a type checker: their operators are installed at run time."""

_PYTHON_TYPES = {bool: "bool", int: "int", float: "float", complex: "complex",
                 "bool": "bool", "int": "int", "float": "float", "complex": "complex"}
_DEFAULTS = {"bool": lambda: I1, "int": lambda: I32, "float": default_float,
             "complex": default_complex}
_NUMPY_CODES = {f"i{size}": np.dtype(f"i{size}") for size in (1, 2, 4, 8)}
"""What NumPy and StableHLO call by one name: to a user "i8" has eight bytes, in the IR eight bits."""
_ORDER = {"bool": 0, "int": 1, "uint": 1, "float": 2, "complex": 3}
_SIGNED = {d.bits: d for d in ALL if d.kind == "int"}


def dtype_argument(spec) -> DType:
    """The `DType` a user means by a `dtype=` argument; Python's `float` is f32, `int` is i32."""
    try:
        known = _PYTHON_TYPES.get(spec)
    except TypeError:
        known = None
    if known is not None:
        return _DEFAULTS[known]()
    if isinstance(spec, str):
        spec = _NUMPY_CODES.get(spec, spec)
    try:
        return as_dtype(spec)
    except TypeError as error:
        raise TraceError(str(error), user_location()) from None


def weak_kind(x) -> str | None:
    """"int", "float" or "complex" for a weak Python scalar, None for anything else."""
    if isinstance(x, (bool, np.bool_)):
        return None
    if isinstance(x, (int, np.int64)):
        return "int"
    if isinstance(x, float):
        return "float"
    return "complex" if isinstance(x, complex) else None


def asarray(x: ArrayLike, dtype=None, *, device=None, copy: bool | None = None) -> Value:
    """`x` as an `Array` or `Tracer`, converted to `dtype` when given.

    `copy`: True copies what others may write to, False raises `ValueError` where a copy is
    unavoidable, None (the default) copies only then.

    NumPy arrays are viewed and keep their type; Python numbers and (nested) lists of them become
    f32, i32 or i1; lists may contain arrays and tracers, which are stacked. A symbolic `Dim`
    becomes its value as an i32 scalar. `TypeError` on an element type the IR does not have.
    """
    if device is not None or copy is not None:
        check_device(device)
        return asarray(x, dtype) if copy is None else _copied(x, dtype, copy)
    target = None if dtype is None else dtype_argument(dtype)
    if isinstance(x, (Array, Tracer)):
        return x if target is None else convert(x, target)
    if hasattr(x, "__tfn_array__"):
        return asarray(x.__tfn_array__(), target)
    if isinstance(x, Dim):
        return convert(extent_value(x), target or I32)
    if isinstance(x, (list, tuple)):
        return _from_sequence(x, target)
    kind = weak_kind(x)
    if kind is not None:
        if kind == "int" and target is None and not -(2**31) <= int(x) < 2**31:
            return Array(np.asarray(x))
        return _scalar(x, target or _DEFAULTS[kind]())
    data = np.asarray(x)
    return convert(as_array(data), target) if target is not None else as_array(data)


def _copied(x: ArrayLike, dtype, copy: bool) -> Value:
    """`asarray` for an explicit `copy`."""
    result = asarray(x, dtype)
    if not isinstance(result, Array) or isinstance(x, Array):
        shared = result is x
    else:
        shared = isinstance(x, (np.ndarray, memoryview)) and np.shares_memory(
            np.asarray(x), result._data)
        if copy and shared:
            return Array(result._data.copy())
    if not copy and not shared and result.size:
        raise ValueError(f"asarray(copy=False): a {type(x).__name__} cannot become"
                         f" an array of {result.dtype} without a copy")
    return result


def _from_sequence(x, target: DType | None) -> Value:
    leaves = list(_leaves(x))
    if any(isinstance(v, (Tracer, Dim)) or hasattr(v, "__tfn_array__") for v in leaves):
        from .manipulation import stack

        rows = [asarray(v) for v in x]
        result = stack(rows)
        return result if target is None else convert(result, target)
    if target is None and leaves and not any(isinstance(v, (np.ndarray, Array)) for v in leaves):
        target = result_type(*leaves)
        if target is I32:
            data = np.asarray(x)
            fits = data.size == 0 or (data.min() >= -(2**31) and data.max() < 2**31)
            return Array(data.astype(np.int32) if fits else data)
    if target is None and not leaves:
        target = default_float()
    data = np.asarray(x)
    if target is not None and data.dtype != target.numpy:
        data = data.astype(target.numpy)
    return as_array(data)


def _leaves(x):
    for v in x:
        if isinstance(v, (list, tuple)):
            yield from _leaves(v)
        else:
            yield v


def _scalar(x, dtype: DType) -> Array:
    if dtype.is_integer and not isinstance(x, (int, np.integer)):
        x = int(x)
    if dtype.kind != "complex" and isinstance(x, complex):
        x = x.real
    return Array(np.asarray(x, dtype.numpy))


def extent_value(extent: Extent) -> Value:
    """An extent as an i32 scalar: a constant, or computed from an argument that has it."""
    if isinstance(extent, int):
        return Array(np.asarray(extent, np.int32))
    total: Any = Array(np.asarray(extent.constant, np.int32))
    for name, coefficient in extent.terms:
        total = total + _named_extent(name) * coefficient
    return total


def _named_extent(name: str) -> Value:
    graph = current_graph()
    while graph is not None:
        for argument in graph.arguments:
            for d, e in enumerate(argument.shape):
                if isinstance(e, Dim) and e.names == (name,):
                    size = bind("stablehlo.get_dimension_size", argument, dimension=d)
                    (_, coefficient), = e.terms
                    return (size - e.constant) // coefficient if e != Dim.named(name) else size
        graph = graph.parent
    raise OpError(f"no argument of the traced function has the symbolic dimension `{name}`",
                  user_location())


def is_concrete(x: Any) -> bool:
    """True for a concrete array outside of any trace, where NumPy may be called directly."""
    return isinstance(x, Array) and current_graph() is None


def dtype_of(x: Value) -> DType:
    """The `DType` of an Array or Tracer."""
    return x.value.type.dtype if isinstance(x, Tracer) else as_dtype(x._data.dtype)


def convert(x: Value, dtype: DType) -> Value:
    """`x` with element type `dtype`; no op when it has it already."""
    if dtype_of(x) is dtype:
        return x
    return bind("stablehlo.convert", x, dtype=dtype)


# -- promotion ------------------------------------------------------------------------------------

@cache
def promote(a: DType, b: DType) -> DType:
    """The smallest type both fit; ints never widen a float (i64 with f16 is f16, as in JAX).

    Two different floats of at most 8 bits meet in bf16, which holds them all.
    """
    if a is b:
        return a
    if _ORDER[a.kind] > _ORDER[b.kind]:
        a, b = b, a
    if b.kind == "complex":
        return C128 if F64 in (a, b) or C128 in (a, b) else C64
    if b.kind == "float":
        if a.kind != "float":
            return b
        if a.bits <= 8 and b.bits <= 8:
            return BF16
        return F32 if {a, b} == {F16, BF16} else max(a, b, key=lambda d: d.bits)
    if a.kind == "bool" or a.kind == b.kind:
        return b if a.kind == "bool" else max(a, b, key=lambda d: d.bits)
    signed, unsigned = (a, b) if a.kind == "int" else (b, a)
    if signed.bits > unsigned.bits:
        return signed
    return _SIGNED.get(2 * unsigned.bits, F32)


def _with_weak(dtype: DType, kind: str) -> DType:
    """The type of an array of `dtype` next to a Python scalar of `kind`."""
    if _ORDER[dtype.kind] >= _ORDER[kind]:
        return dtype
    if kind == "complex" and dtype.is_float:
        return promote(dtype, C64)
    return _DEFAULTS[kind]()


def result_type(*xs: Any) -> DType:
    """The common element type of operands, dtypes and Python scalars."""
    strong: DType | None = None
    weak: str | None = None
    for x in xs:
        kind = weak_kind(x)
        if kind is not None:
            weak = kind if weak is None or _ORDER[kind] > _ORDER[weak] else weak
            continue
        if isinstance(x, (Array, Tracer)):
            dtype = dtype_of(x)
        elif isinstance(x, DType):
            dtype = x
        elif isinstance(x, (bool, np.bool_)):
            dtype = I1
        elif isinstance(x, (type, str, np.dtype)):
            dtype = dtype_argument(x)
        else:
            dtype = dtype_of(asarray(x))
        strong = dtype if strong is None else promote(strong, dtype)
    if strong is None:
        return _DEFAULTS[weak or "float"]()
    return strong if weak is None else _with_weak(strong, weak)


def float_type(dtype: DType) -> DType:
    """`dtype` when it is inexact, otherwise the default: the type of a mean or a quotient."""
    return dtype if dtype.is_inexact else default_float()


def to_dtype(x: ArrayLike, dtype: DType) -> Value:
    """`x` as a value of element type `dtype`; weak scalars are written in it directly."""
    if isinstance(x, (Array, Tracer)):
        return convert(x, dtype)
    if weak_kind(x) is not None:
        return _scalar(x, dtype)
    return asarray(x, dtype)


def floating(x: ArrayLike) -> Value:
    """`x` as a value of an inexact type: integers and booleans become the default float."""
    x = asarray(x)
    dtype = dtype_of(x)
    return x if dtype.is_inexact else convert(x, default_float())


# -- broadcasting ---------------------------------------------------------------------------------

def broadcast_shapes(*shapes: Sequence[Extent]) -> tuple[Extent, ...]:
    """The shape NumPy broadcasting gives; a symbolic extent matches itself and 1."""
    rank = max((len(s) for s in shapes), default=0)
    result: list[Extent] = [1] * rank
    for shape in shapes:
        for d, extent in enumerate(shape, rank - len(shape)):
            if extent == 1 or extent == result[d]:
                continue
            if result[d] != 1:
                readable = " and ".join(shape_text(s) for s in shapes)
                raise OpError(f"operands of shapes {readable} cannot be broadcast together",
                              user_location())
            result[d] = extent
    return tuple(result)


def shape_text(shape: Sequence[Extent]) -> str:
    """A shape as the user knows it, `(batch, 3)`."""
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


def broadcast_to(x: ArrayLike, shape: Sequence[Extent]) -> Value:
    """`x` stretched to `shape` under NumPy's rules; `OpError` when it does not fit."""
    x = asarray(x)
    shape = as_shape(shape)
    if x.shape == shape:
        return x
    offset = len(shape) - len(x.shape)
    if offset < 0 or any(e != 1 and e != s for e, s in zip(x.shape, shape[offset:], strict=True)):
        raise OpError(f"cannot broadcast an array of shape {shape_text(x.shape)} to"
                      f" {shape_text(shape)}", user_location())
    return _stretch(x, shape)


# Traced, a small splat becomes a constant; a larger one a recorded broadcast (as in `bind`).
_SMALL = 1024


def _stretch(x: Value, shape: Any, beside_tracers: bool = False) -> Value:
    """`broadcast_to` for a shape that is known to fit; `beside_tracers` whose shape it is."""
    if beside_tracers and isinstance(x, Array) and x.size != 1:
        offset = len(shape) - len(x.shape)
        return record("stablehlo.broadcast_in_dim", x, shape=shape,
                      broadcast_dimensions=tuple(range(offset, len(shape))))
    if isinstance(x, Array) and (current_graph() is None or _is_small(shape)):
        data = x._data
        if data.ndim == 0 and data.dtype.kind in "biufc":
            # Much cheaper than np.broadcast_to, and every Python scalar comes this way.
            return Array(np.ndarray(shape, data.dtype, data, 0, (0,) * len(shape)))
        return Array(np.broadcast_to(data, shape))
    offset = len(shape) - len(x.shape)
    return bind("stablehlo.broadcast_in_dim", x, shape=shape,
                broadcast_dimensions=tuple(range(offset, len(shape))))


def _is_small(shape: Sequence[Extent]) -> bool:
    size: Extent = 1
    for extent in shape:
        if not isinstance(extent, int):
            return False
        size *= extent
    return size <= _SMALL


def broadcast_arrays(*xs: ArrayLike) -> list[Value]:
    """Every operand stretched to the common shape; element types are kept."""
    values = [asarray(x) for x in xs]
    return _stretched(values)


def unify(*xs: ArrayLike) -> list[Value]:
    """Every operand in the common element type, shapes kept."""
    dtype = result_type(*xs)
    return [to_dtype(x, dtype) for x in xs]


def operands(*xs: ArrayLike, dtype: DType | None = None) -> list[Value]:
    """Every operand in the common element type (or `dtype`) and the common shape."""
    if dtype is None and all(type(x) is Array for x in xs):
        first, *rest = [x._data for x in xs]  # type: ignore[union-attr]
        if all(d.shape == first.shape and d.dtype is first.dtype for d in rest):
            return list(xs)  # type: ignore[arg-type]
    dtype = dtype or result_type(*xs)
    values = [to_dtype(x, dtype) for x in xs]
    shape = values[0].shape
    if all(v.shape == shape for v in values):
        return values
    return _stretched(values)


def _stretched(values: Sequence[Value]) -> list[Value]:
    """Every value in the common shape."""
    shape = broadcast_shapes(*(v.shape for v in values))
    traced = any(isinstance(v, Tracer) for v in values)
    return [v if v.shape == shape else _stretch(v, shape, traced) for v in values]


# -- arguments ------------------------------------------------------------------------------------

def as_shape(shape) -> tuple[Extent, ...]:
    """A shape argument (an int, a Dim, or a sequence of them) as a tuple of extents."""
    if isinstance(shape, (int, Dim, np.integer)):
        shape = (shape,)
    return tuple(e if isinstance(e, Dim) else _extent(e) for e in shape)


def _extent(e) -> int:
    try:
        return e.__index__() if not isinstance(e, float) else int(e)
    except AttributeError:
        raise OpError(f"a shape holds ints and dims, got {e!r}", user_location()) from None


class AxisError(OpError, IndexError):
    """An axis an array does not have."""


def normalize_axis(axis: int, rank: int) -> int:
    """`axis` counted from the front; `AxisError` when it is outside an array of `rank` dims."""
    try:
        axis = axis.__index__()
    except AttributeError:
        raise TraceError(f"an axis is an int, not {shown(axis)}", user_location()) from None
    if not -rank <= axis < rank:
        raise AxisError(f"axis {axis} is outside an array of {rank} dims", user_location())
    return axis % rank


def normalize_axes(axis, rank: int) -> tuple[int, ...]:
    """An axis argument (None for all, an int, or several) as sorted distinct axes."""
    if axis is None:
        return tuple(range(rank))
    if not isinstance(axis, (tuple, list)):
        axis = (axis,)
    axes = tuple(sorted(normalize_axis(a, rank) for a in axis))
    if len(set(axes)) != len(axes):
        raise OpError(f"axes {list(axis)} repeat", user_location())
    return axes
