"""The pretty text forms of ops: one row per op says how it is printed and parsed.

A row is a sequence of items: `%` an operand, `%*` all of them, `$name` an attribute (`$name:form`
in a special form), `[...]` a group that may be absent, anything else literal text. Then comes an
attribute dictionary with what the row does not name, and the types in the row's style. Ops with
regions or more syntax than this are in `ir/forms.py`; ops without a row are printed generically.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .attributes import kind_of, write_ints
from .core import Op, TensorType
from .structs import DotDimensionNumbers

if TYPE_CHECKING:
    from .parser import Parser
    from .printer import Printer


@dataclass(frozen=True)
class Literal:
    text: str


@dataclass(frozen=True)
class Operands:
    """One operand, or all that are left."""

    all: bool


@dataclass(frozen=True)
class Attribute:
    name: str
    form: str = ""


@dataclass(frozen=True)
class Group:
    """Printed when its attribute is there and worth printing; parsed when its first words are."""

    items: tuple[Any, ...]

    @property
    def attribute(self) -> Attribute:
        return next(i for i in self.items if isinstance(i, Attribute))

    @property
    def lead(self) -> tuple[str, ...]:
        """The literals it begins with."""
        words = []
        for item in self.items:
            if not isinstance(item, Literal):
                break
            words.append(item.text)
        return tuple(words)


@dataclass(frozen=True)
class Row:
    items: tuple[Any, ...]
    types: str

    @property
    def names(self) -> Iterator[str]:
        """Attributes that the row spells out."""
        for item in self.items:
            if isinstance(item, Group):
                item = item.attribute
            if isinstance(item, Attribute):
                yield from FORMS[item.form].covers or (item.name,)


def row(text: str, types: str = "function") -> Row:
    """Compile a row. `types` is a key of `TYPE_STYLES`."""
    words = iter(text.split())
    return Row(tuple(_items(words)), types)


def _items(words: Iterator[str]) -> Iterator[Any]:
    for word in words:
        if word == "[":
            yield Group(tuple(_items(words)))
        elif word == "]":
            return
        elif word[0] == "%":
            yield Operands(word == "%*")
        elif word[0] == "$":
            name, _, form = word[1:].partition(":")
            yield Attribute(name, form)
        else:
            yield Literal(word)


# -- attribute forms of their own -----------------------------------------------------------------

@dataclass(frozen=True)
class Form:
    """How `$name:form` prints and parses; `covers` lists the attributes it stands for."""

    write: Callable[[Op, str], str]
    read: Callable[[Parser, Op | None, str, type], dict[str, Any]]
    covers: tuple[str, ...] = ()
    worth: Callable[[Any], bool] = lambda value: True
    """Whether a group around it is printed for this value."""


def _write_plain(op: Op, name: str) -> str:
    return kind_of(op.definition.attributes.get(name, "")).pretty(op.attributes[name])


def _read_plain(parser: Parser, op, name: str, definition) -> dict[str, Any]:
    return {name: parser.attribute_of(definition, name)}


def _write_as(suffix: str):
    return lambda op, name: f"{op.attributes[name]}{suffix}"


_SLICE = ("start_indices", "limit_indices", "strides")


def _write_slices(op: Op, name: str) -> str:
    bounds = zip(*(op.attributes[k] for k in _SLICE), strict=True)
    return "[" + ", ".join(f"{a}:{b}" if c == 1 else f"{a}:{b}:{c}" for a, b, c in bounds) + "]"


def _read_slices(parser: Parser, op, name: str, definition) -> dict[str, Any]:
    bounds: list[tuple[int, int, int]] = []
    parser.expect("[")
    while not parser.accept("]"):
        if bounds:
            parser.expect(",")
        start = parser.integer()
        parser.expect(":")
        limit = parser.integer()
        bounds.append((start, limit, parser.integer() if parser.accept(":") else 1))
    return dict(zip(_SLICE, zip(*bounds, strict=True) if bounds else [()] * 3, strict=True))


def _write_dot(op: Op, name: str) -> str:
    n: DotDimensionNumbers = op.attributes[name]
    batching = ""
    if n.lhs_batching_dimensions:
        batching = (f"batching_dims = {write_ints(n.lhs_batching_dimensions)} x"
                    f" {write_ints(n.rhs_batching_dimensions)}, ")
    return (f"{batching}contracting_dims = {write_ints(n.lhs_contracting_dimensions)} x"
            f" {write_ints(n.rhs_contracting_dimensions)}")


def _read_dot(parser: Parser, op, name: str, definition) -> dict[str, Any]:
    dims: dict[str, tuple] = {}
    for word, field in (("batching_dims", "batching"), ("contracting_dims", "contracting")):
        if not parser.accept(word):
            continue
        parser.expect("=")
        dims[f"lhs_{field}_dimensions"] = parser.integers()
        parser.expect("x")
        dims[f"rhs_{field}_dimensions"] = parser.integers()
        if field == "batching":
            parser.accept(",")
    if not dims:
        raise parser.error("expected contracting_dims = [...] x [...]")
    return {name: DotDimensionNumbers(**dims)}


def _write_format(op: Op, name: str) -> str:
    return f"e{op.attributes['exponent_bits']}m{op.attributes['mantissa_bits']}"


def _read_format(parser: Parser, op, name: str, definition) -> dict[str, Any]:
    text = parser.take()
    exponent, _, mantissa = text[1:].partition("m")
    if text[:1] != "e" or not (exponent.isdigit() and mantissa.isdigit()):
        raise parser.error("expected a format such as e5m10", -1)
    return {"exponent_bits": int(exponent), "mantissa_bits": int(mantissa)}


FORMS: Mapping[str, Form] = {
    "": Form(_write_plain, _read_plain),
    "precision": Form(_write_plain, _read_plain, worth=bool),
    "slices": Form(_write_slices, _read_slices, _SLICE),
    "dot": Form(_write_dot, _read_dot),
    "format": Form(_write_format, _read_format, ("exponent_bits", "mantissa_bits")),
}


# -- rows -----------------------------------------------------------------------------------------

_ANY = row("%*", "same")
_ARROW = row("%*", "arrow")
_FUNCTION = row("%*")

ROWS: Mapping[str, Row] = {
    "stablehlo.bitcast_convert": _FUNCTION,
    "stablehlo.broadcast_in_dim": row("% , dims = $broadcast_dimensions"),
    "stablehlo.cholesky": row("% [ , lower = $lower ]", "same"),
    "stablehlo.compare": row("$comparison_direction , % , % [ , $compare_type ]"),
    "stablehlo.complex": row("% , %", "result"),
    "stablehlo.concatenate": row("%* , dim = $dimension"),
    "stablehlo.convert": _FUNCTION,
    "stablehlo.dot": row("% , % [ , precision = $precision_config:precision ]"),
    "stablehlo.dot_general": row(
        "% , % , $dot_dimension_numbers:dot [ , precision = $precision_config:precision ]"
        " [ , algorithm = $algorithm ]"),
    "stablehlo.dynamic_broadcast_in_dim": row("% , % , dims = $broadcast_dimensions"),
    "stablehlo.dynamic_iota": row("% , dim = $iota_dimension"),
    "stablehlo.dynamic_pad": _FUNCTION,
    "stablehlo.dynamic_reshape": _FUNCTION,
    "stablehlo.dynamic_slice": row("%* , sizes = $slice_sizes"),
    "stablehlo.dynamic_update_slice": _FUNCTION,
    "stablehlo.fft": row("% , type = $fft_type , length = $fft_length"),
    "stablehlo.get_dimension_size": row("% , dim = $dimension"),
    "stablehlo.iota": row("dim = $iota_dimension", "result"),
    "stablehlo.is_finite": _FUNCTION,
    "stablehlo.optimization_barrier": row("%*", "pairwise"),
    "stablehlo.pad": row(
        "% , % , low = $edge_padding_low , high = $edge_padding_high ,"
        " interior = $interior_padding"),
    "stablehlo.partition_id": row("", "result"),
    "stablehlo.real_dynamic_slice": _FUNCTION,
    "stablehlo.reduce_precision": row("% , format = $exponent_bits:format", "same"),
    "stablehlo.replica_id": row("", "result"),
    "stablehlo.reshape": _FUNCTION,
    "stablehlo.reverse": row("% , dims = $dimensions", "result"),
    "stablehlo.rng": row("% , % , % , distribution = $rng_distribution"),
    "stablehlo.rng_bit_generator": row("% , algorithm = $rng_algorithm"),
    "stablehlo.select": row("% , % , %", "select"),
    "stablehlo.slice": row("% $start_indices:slices"),
    "stablehlo.transpose": row("% , dims = $permutation"),
    "chlo.top_k": row("( % , k = $k )", "arrow"),
    "check.expect_almost_eq": row("% , % [ , tolerance = $tolerance ]", "first"),
    "check.expect_almost_eq_const": row("% , $value", "none"),
    "check.expect_close": row(
        "% , % [ , max_ulp_difference = $max_ulp_difference ]"
        " [ , min_ulp_difference = $min_ulp_difference ]", "operands"),
    "check.expect_eq": row("% , %", "first"),
    "check.expect_eq_const": row("% , $value", "none"),
}


def row_of(definition) -> Row | None:
    """The row of an op, or the default one for an op without attributes and regions."""
    found = ROWS.get(definition.name)
    if found is not None:
        return found
    explicit = any(kind_of(k).implied is None for k in definition.attributes.values())
    if explicit or definition.regions:
        return None
    dialect = definition.name.partition(".")[0]
    return {"stablehlo": _ANY, "chlo": _ARROW}.get(dialect)


# -- types ----------------------------------------------------------------------------------------

Types = list[TensorType]


def write_types(operands: Types, results: Types, style: str) -> str:
    """The text after the colon."""
    short = TYPE_STYLES[style][0](operands, results)
    return short if short is not None else function_type(operands, results)


def function_type(operands: Types, results: Types) -> str:
    """`(A, B) -> C`, several results in parentheses."""
    return f"({', '.join(map(str, operands))}) -> {result_types(results)}"


def result_types(results: Types) -> str:
    return str(results[0]) if len(results) == 1 else f"({', '.join(map(str, results))})"


def _same(operands: Types, results: Types) -> str | None:
    return str(results[0]) if {*operands, *results} == {*results[:1]} else None


def _only(listed: Types) -> Types | None:
    return listed if len(listed) == 1 else None


def _select(operands: Types, results: Types) -> str | None:
    fits = len(operands) == 3 and operands[1] == operands[2] == results[0]
    return f"{operands[0]}, {results[0]}" if fits else None


TYPE_STYLES: Mapping[str, tuple[Callable[[Types, Types], str | None],
                                Callable[[Types], Types | None]]] = {
    "function": (lambda o, r: None, _only),
    "same": (_same, _only),
    "result": (lambda o, r: str(r[0]), _only),
    "select": (_select, lambda listed: listed[1:] if len(listed) == 2 else None),
    "pairwise": (lambda o, r: ", ".join(map(str, r)) if o == r else None, lambda listed: listed),
    "first": (lambda o, r: str(o[0]), lambda listed: []),
    "operands": (lambda o, r: ", ".join(map(str, o)), lambda listed: []),
    "none": (lambda o, r: "", lambda listed: []),
    "arrow": (lambda o, r: f"{', '.join(map(str, o))} -> {result_types(r)}", lambda listed: None),
}
"""Style -> (short text or None for the functional type, result types of a list without arrow)."""


# -- interpreting a row ---------------------------------------------------------------------------

def write_row(printer: Printer, op: Op, form: Row) -> str:
    """The op's text from its name to its types."""
    operands = iter(op.operands)
    parts: list[str] = []
    for item in form.items:
        if isinstance(item, Group):
            name = item.attribute.name
            if name not in op.attributes or not FORMS[item.attribute.form].worth(
                    op.attributes[name]):
                continue
            parts += [_write_item(printer, op, operands, i) for i in item.items]
        else:
            parts.append(_write_item(printer, op, operands, item))
    parts.append(printer.dictionary(op, skip=set(form.names)))
    types = write_types([o.type for o in op.operands], [r.type for r in op.results], form.types)
    parts.append(f": {types}" if types else "")
    text = " ".join(p for p in [op.name, *parts] if p)
    for loose, tight in ((" ,", ","), (" ( ", "("), (" )", ")")):
        text = text.replace(loose, tight)
    return text


def _write_item(printer: Printer, op: Op, operands, item) -> str:
    if isinstance(item, Literal):
        return item.text
    if isinstance(item, Operands):
        if item.all:
            return ", ".join(printer.name(v) for v in operands)
        return printer.name(next(operands))
    return FORMS[item.form].write(op, item.name)


def read_row(parser: Parser, definition, form: Row):
    """Operands, attributes and result types of an op whose name was just read."""
    operands: list = []
    attributes: dict[str, Any] = {}

    def read(item) -> None:
        if isinstance(item, Literal):
            parser.expect(item.text)
        elif isinstance(item, Attribute):
            attributes.update(FORMS[item.form].read(parser, None, item.name, definition))
        elif item.all:
            operands.extend(parser.operands())
        else:
            operands.append(parser.operand())

    for item in form.items:
        if not isinstance(item, Group):
            read(item)
        elif parser.at(*item.lead):
            for inner in item.items:
                read(inner)
    attributes.update(parser.op_dictionary(definition))
    types = parser.op_types(operands, form.types)
    return operands, attributes, types
