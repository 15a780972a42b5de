"""Attribute kinds: how each is written in StableHLO text and read back.

An op class names the kind of each of its attributes (`OpDefinition.attributes`); `KINDS` has the
row for it. The parser first reads any attribute into plain values (ints, tuples, `Enum`, `Struct`,
...), then the kind's `read` checks and converts; `write` and `write_pretty` are the way back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from .core import Function, TensorType
from .dims import Dim
from .dtypes import DType, as_dtype
from .literal import write_dense, write_float
from .structs import (
    ConvDimensionNumbers,
    DotDimensionNumbers,
    GatherDimensionNumbers,
    ScatterDimensionNumbers,
)


@dataclass(frozen=True)
class Enum:
    """`#stablehlo<family case>`, or the bare word `case` (family "") in pretty forms."""

    family: str
    case: str


@dataclass(frozen=True)
class Symbol:
    """`@name`."""

    name: str


@dataclass(frozen=True)
class Struct:
    """`#stablehlo.family<field = value, ...>` with its source text."""

    family: str
    values: Mapping[str, Any] = field(hash=False)
    text: str


@dataclass(frozen=True)
class Verbatim:
    """An attribute tfn does not interpret, as it stood in the text."""

    text: str


@dataclass(frozen=True)
class DenseArray:
    """`array<i64: 1, 2>`."""

    dtype: str
    values: tuple


@dataclass(frozen=True)
class Kind:
    """How attributes of one kind are written and read.

    `read(raw)` raises `ValueError` with what was expected. A kind that is `implied` is not in the
    text: `implied(result_type)` gives the value.
    """

    write: Callable[[Any], str]
    read: Callable[[Any], Any]
    write_pretty: Callable[[Any], str] | None = None
    implied: Callable[[TensorType], Any] | None = None
    every: bool = False
    """What is implied is the list of all result types."""

    def pretty(self, value: Any) -> str:
        return (self.write_pretty or self.write)(value)


def write_attribute(value: Any) -> str:
    """Any attribute value, by its Python type; never fails (for printing while debugging)."""
    for types, write in _BY_TYPE:
        if isinstance(value, types):
            return write(value)
    return json.dumps(str(value))


def write_dictionary(values: Mapping[str, Any]) -> str:
    """`{a = 1 : i64, "b-c" = "text"}`."""
    return "{" + ", ".join(f"{write_name(k)} = {write_attribute(v)}"
                           for k, v in values.items()) + "}"


def write_name(name: str) -> str:
    """An attribute's name, quoted when it is not a bare identifier."""
    bare = name.replace(".", "_").replace("$", "_")
    return name if bare.isascii() and bare.isidentifier() else write_string(name)


def write_string(value: str) -> str:
    """A string literal; MLIR escapes bytes as two hex digits."""
    out = []
    for byte in str(value).encode("utf-8", "surrogateescape"):
        plain = 0x20 <= byte < 0x7F and byte not in b'"\\'
        out.append(chr(byte) if plain else f"\\{byte:02X}")
    return '"' + "".join(out) + '"'


def write_ints(values) -> str:
    """`[1, 2]`; symbolic extents by name (only in text meant for people)."""
    return "[" + ", ".join(str(v) for v in values) + "]"


def _write_scalar(value: np.generic) -> str:
    dtype = as_dtype(value.dtype)
    if dtype.kind == "bool":
        return "true" if value else "false"
    if dtype.kind == "complex":
        return write_dense(np.asarray(value))
    text = write_float(value) if dtype.is_float else str(int(value))
    return f"{text} : {dtype}"


_BY_TYPE: tuple[tuple[Any, Callable[[Any], str]], ...] = (
    (bool, lambda v: "true" if v else "false"),
    (int, lambda v: f"{v} : i64"),
    (float, lambda v: f"{write_float(np.float64(v))} : f64"),
    (np.generic, _write_scalar),
    (str, write_string),
    ((tuple, list), lambda v: "[" + ", ".join(write_attribute(x) for x in v) + "]"),
    (Mapping, write_dictionary),
    (np.ndarray, write_dense),
    (Enum, lambda v: f"#stablehlo<{v.family} {v.case}>" if v.family else v.case),
    (Symbol, lambda v: write_symbol(v.name)),
    ((Struct, Verbatim), lambda v: v.text),
    (DenseArray, lambda v: _write_dense_array(v.dtype, v.values)),
    (Function, lambda v: write_symbol(v.name)),
    ((DotDimensionNumbers, ConvDimensionNumbers, GatherDimensionNumbers, ScatterDimensionNumbers),
     lambda v: _STRUCTS[type(v)](v)),
    ((TensorType, DType), str),
    (type(None), lambda v: "unit"),
    (Dim, lambda v: json.dumps(str(v))),
)


def write_symbol(name: str) -> str:
    bare = name.replace(".", "_").replace("$", "_").replace("-", "_")
    return f"@{name}" if bare.isascii() and bare.isidentifier() else "@" + write_string(name)


def _write_dense_array(dtype: str, values) -> str:
    if not len(values):
        return f"array<{dtype}>"
    return f"array<{dtype}: {', '.join(_element(v) for v in values)}>"


def _element(value) -> str:
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    return write_float(np.float64(value)) if isinstance(value, float) else str(value)


# -- reading --------------------------------------------------------------------------------------

def _int(raw) -> int:
    if isinstance(raw, np.ndarray) and raw.size == 1:
        raw = raw.item()
    if isinstance(raw, (bool, np.bool_)) or not isinstance(raw, (int, np.integer)):
        raise ValueError("an integer")
    return int(raw)


def _sequence(raw, what: str):
    if isinstance(raw, DenseArray):
        return raw.values
    if isinstance(raw, np.ndarray) and raw.ndim == 1:
        return raw.tolist()
    if not isinstance(raw, tuple):
        raise ValueError(what)
    return raw


def _ints(raw) -> tuple[int, ...]:
    return tuple(_int(v) for v in _sequence(raw, "a list of integers"))


def _bool(raw) -> bool:
    if isinstance(raw, np.ndarray) and raw.size == 1:
        raw = raw.item()
    if isinstance(raw, Verbatim) and raw.text == "unit":
        return True
    if not isinstance(raw, (bool, np.bool_)):
        raise ValueError("true or false")
    return bool(raw)


def _bools(raw) -> tuple[bool, ...]:
    return tuple(bool(v) for v in _sequence(raw, "a list of booleans"))


def _string(raw) -> str:
    if not isinstance(raw, str):
        raise ValueError("a string")
    return raw


def _dense(raw) -> np.ndarray:
    if not isinstance(raw, np.ndarray):
        raise ValueError("a dense literal")
    return raw


def _rows(raw) -> tuple[tuple[int, ...], ...]:
    if isinstance(raw, np.ndarray) and raw.ndim == 2:
        return tuple(tuple(int(v) for v in row) for row in raw)
    if isinstance(raw, tuple):
        return tuple(_ints(row) for row in raw)
    raise ValueError("a list of rows of integers")


def _pairs(raw) -> tuple[tuple[int, int], ...]:
    rows = _rows(raw)
    if any(len(row) != 2 for row in rows):
        raise ValueError("a list of [low, high] pairs")
    return rows  # type: ignore[return-value]


def _dictionary(raw) -> dict:
    if not isinstance(raw, dict):
        raise ValueError("a dictionary")
    return raw


def _symbol(raw) -> Any:
    if not isinstance(raw, (Symbol, Function)):
        raise ValueError("a function reference")
    return raw


def _programs(raw) -> tuple:
    """Functions by name in rows, or in one row."""
    if not isinstance(raw, tuple) or not raw:
        raise ValueError("a list of functions such as [[@f, @g]]")
    return tuple(row if isinstance(row, tuple) else (row,) for row in raw)


def _write_programs(value) -> str:
    return "[" + ", ".join("[" + ", ".join(write_symbol(f.name) for f in row) + "]"
                           for row in value) + "]"


def _write_rows(value) -> str:
    table = list(value)
    if any(isinstance(v, Dim) for row in table for v in row):
        return json.dumps(str([tuple(map(str, row)) for row in table]))
    return write_dense(np.asarray(table, np.int64).reshape(len(table), -1 if table else 2))


def _enum(family: str, *cases: str) -> Kind:
    def read(raw) -> str:
        case = raw if isinstance(raw, str) else getattr(raw, "case", None)
        if case not in cases or getattr(raw, "family", "") not in ("", family):
            raise ValueError("one of " + ", ".join(cases))
        return case

    return Kind(lambda v: f"#stablehlo<{family} {v}>", read, str)


_PRECISIONS = ("DEFAULT", "HIGH", "HIGHEST")


def _precisions(raw) -> tuple[str, ...]:
    if not isinstance(raw, tuple):
        raise ValueError("a list of precisions")
    cases = tuple(str(getattr(v, "case", v)) for v in raw)
    if any(c not in _PRECISIONS for c in cases):
        raise ValueError("precisions out of " + ", ".join(_PRECISIONS))
    return cases


def _write_precisions(value) -> str:
    return "[" + ", ".join(f"#stablehlo<precision {v}>" for v in value) + "]"


# -- dimension numbers ----------------------------------------------------------------------------

def _write_numbers(family: str):
    """A record: empty lists are left out; integers are always written, as StableHLO does."""

    def write(value) -> str:
        parts = []
        for f in fields(value):
            item = getattr(value, f.name)
            if isinstance(item, int):
                parts.append(f"{f.name} = {item}")
            elif item:
                parts.append(f"{f.name} = {write_ints(item)}")
        return f"#stablehlo.{family}<{', '.join(parts)}>"

    return write


def _read_numbers(family: str, record: type):
    known = {f.name: f for f in fields(record)}

    def read(raw):
        if isinstance(raw, record):
            return raw
        if not isinstance(raw, Struct) or raw.family != family:
            raise ValueError(f"#stablehlo.{family}<...>")
        values = {}
        for name, value in raw.values.items():
            if name not in known:
                raise ValueError(f"the fields {', '.join(known)} (there is no `{name}`)")
            values[name] = _int(value) if name == "index_vector_dim" else _ints(value)
        return record(**values)

    return read


def write_conv_numbers(n: ConvDimensionNumbers) -> str:
    """`[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]`."""

    def side(spatial, **letters) -> str:
        row = {d: str(i) for i, d in enumerate(spatial)}
        row.update({d: letter for letter, d in letters.items()})
        return "[" + ", ".join(row[d] for d in sorted(row)) + "]"

    return (
        side(n.input_spatial_dimensions, b=n.input_batch_dimension, f=n.input_feature_dimension)
        + "x" + side(n.kernel_spatial_dimensions, i=n.kernel_input_feature_dimension,
                     o=n.kernel_output_feature_dimension)
        + "->" + side(n.output_spatial_dimensions, b=n.output_batch_dimension,
                      f=n.output_feature_dimension))


def conv_numbers(sides) -> ConvDimensionNumbers:
    """From three rows of letters and spatial numbers; `ValueError` when they do not fit."""
    values: list = []
    for row, letters in zip(sides, ("bf", "io", "bf"), strict=True):
        items = [getattr(v, "case", v) for v in row]
        spatial = len(items) - 2
        expected = {*letters, *range(spatial)}
        if len(items) != len(expected) or set(items) != expected:
            raise ValueError(f"dimensions {letters[0]}, {letters[1]} and 0 to {spatial - 1}")
        values += [items.index(letter) for letter in letters]
        values.append(tuple(items.index(i) for i in range(spatial)))
    return ConvDimensionNumbers(*values)


def _read_conv(raw) -> ConvDimensionNumbers:
    if isinstance(raw, Struct) and raw.family == "conv":
        raw = raw.values.get("")
    if not isinstance(raw, ConvDimensionNumbers):
        raise ValueError("#stablehlo.conv<[b, 0, f]x[0, i, o]->[b, 0, f]>")
    return raw


_STRUCTS: dict[type, Callable[[Any], str]] = {
    DotDimensionNumbers: _write_numbers("dot"),
    GatherDimensionNumbers: _write_numbers("gather"),
    ScatterDimensionNumbers: _write_numbers("scatter"),
    ConvDimensionNumbers: lambda n: f"#stablehlo.conv<{write_conv_numbers(n)}>",
}


def _write_handle(value) -> str:
    if isinstance(value, (int, np.integer)):
        return f"#stablehlo.channel_handle<handle = {value}, type = 1>"
    return write_attribute(value)


def _opaque(raw):
    return raw


def _implied(of: Callable[[TensorType], Any]) -> Kind:
    return Kind(write_attribute, _opaque, None, of)


OPAQUE = Kind(write_attribute, _opaque)
"""Kept as read."""

KINDS: dict[str, Kind] = {
    "i32": Kind(lambda v: f"{v} : i32", _int, str),
    "i64": Kind(lambda v: f"{v} : i64", _int, str),
    "bool": Kind(lambda v: "true" if v else "false", _bool),
    "string": Kind(write_string, _string),
    "i64_array": Kind(lambda v: _write_dense_array("i64", v), _ints, write_ints),
    "bool_array": Kind(lambda v: _write_dense_array("i1", [bool(x) for x in v]), _bools,
                       lambda v: "[" + ", ".join("true" if x else "false" for x in v) + "]"),
    "i64_pairs": Kind(_write_rows, _pairs,
                      lambda v: "[" + ", ".join(write_ints(row) for row in v) + "]"),
    "i64_matrix": Kind(_write_rows, _rows),
    "replica_groups": Kind(_write_rows, _rows),
    "dense": Kind(write_dense, _dense),
    "dictionary": Kind(write_dictionary, _dictionary),
    "symbol": Kind(write_attribute, _symbol),
    "comparison_direction": _enum("comparison_direction", "EQ", "NE", "GE", "GT", "LE", "LT"),
    "compare_type": _enum("comparison_type", "FLOAT", "TOTALORDER", "SIGNED", "UNSIGNED",
                          "NOTYPE"),
    "rng_algorithm": _enum("rng_algorithm", "DEFAULT", "THREE_FRY", "PHILOX"),
    "rng_distribution": _enum("rng_distribution", "UNIFORM", "NORMAL"),
    "fft_type": _enum("fft_type", "FFT", "IFFT", "RFFT", "IRFFT"),
    "transpose": _enum("transpose", "NO_TRANSPOSE", "TRANSPOSE", "ADJOINT"),
    "precision_config": Kind(_write_precisions, _precisions,
                             lambda v: "[" + ", ".join(v) + "]"),
    "dot_algorithm": Kind(write_attribute, _opaque,
                          lambda v: write_attribute(v).removeprefix("#stablehlo.dot_algorithm")),
    "channel_handle": Kind(_write_handle, _opaque),
    "dot_dimension_numbers": Kind(_STRUCTS[DotDimensionNumbers],
                                  _read_numbers("dot", DotDimensionNumbers)),
    "conv_dimension_numbers": Kind(_STRUCTS[ConvDimensionNumbers], _read_conv),
    "gather_dimension_numbers": Kind(_STRUCTS[GatherDimensionNumbers],
                                     _read_numbers("gather", GatherDimensionNumbers)),
    "scatter_dimension_numbers": Kind(_STRUCTS[ScatterDimensionNumbers],
                                      _read_numbers("scatter", ScatterDimensionNumbers)),
    "result_dtype": _implied(lambda t: t.dtype),
    "result_shape": _implied(lambda t: t.shape),
    "result_type": _implied(lambda t: t),
    "result_types": Kind(write_attribute, _opaque, None, lambda t: t, every=True),
    "programs": Kind(_write_programs, _programs),
    "opaque": OPAQUE,
}


def kind_of(name: str) -> Kind:
    """The row for a kind; an unknown one is written by its Python type and kept as read."""
    return KINDS.get(name, OPAQUE)
