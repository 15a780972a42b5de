"""Pretty text forms that a row of `ir/syntax.py` cannot express: constants, reductions, loops ...

Each form has `write(printer, op, indent)`, which returns None when the op does not fit it (the
generic form is printed then), and `read(parser, definition)`, called after the op's name, which
returns operands, attributes, regions and result types.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .attributes import KINDS, conv_numbers, write_conv_numbers, write_string
from .core import Block, Op, TensorType, Value
from .dtypes import as_dtype
from .syntax import function_type

if TYPE_CHECKING:
    from .attribute_parser import AttributeParser
    from .parser import Argument, Parser
    from .printer import Printer

Parsed = tuple[list, dict[str, Any], list[Block], list]


@dataclass(frozen=True)
class OpForm:
    write: Callable[[Printer, Op, str], str | None]
    read: Callable[[Parser, Any], Parsed]


def _types(op: Op) -> str:
    return function_type([o.type for o in op.operands], [r.type for r in op.results])


def _spaced(text: str) -> str:
    return f" {text}" if text else ""


# -- constant -------------------------------------------------------------------------------------

def _write_constant(printer: Printer, op: Op, indent: str) -> str:
    rest = printer.dictionary(op, skip=["value"])
    return f"stablehlo.constant{_spaced(rest)} {KINDS['dense'].write(op.attributes['value'])}"


def _read_constant(parser: Parser, definition) -> Parsed:
    attributes = parser.op_dictionary(definition)
    value = parser.attribute_of(definition, "value")
    return [], {**attributes, "value": value}, [], [TensorType(value.shape, as_dtype(value.dtype))]


# -- reduce ---------------------------------------------------------------------------------------

_COMPACT = frozenset("stablehlo." + name for name in (
    "add", "multiply", "maximum", "minimum", "and", "or", "xor"))


def _compact(body: Block) -> str | None:
    """The op a reducer applies to its two arguments in order, if it does nothing else."""
    if len(body.ops) != 1 or len(body.arguments) != 2:
        return None
    (only,) = body.ops
    fits = (only.name in _COMPACT and list(only.operands) == body.arguments
            and body.returns == [only.result])
    return only.name if fits else None


def _write_reduce(printer: Printer, op: Op, indent: str) -> str:
    count, (body,) = len(op.results), op.regions
    pairs = ", ".join(
        f"({printer.name(x)} init: {printer.name(init)})"
        for x, init in zip(op.operands[:count], op.operands[count:], strict=True))
    dims = f"across dimensions = {KINDS['i64_array'].pretty(op.attributes['dimensions'])}"
    rest = _spaced(printer.dictionary(op, skip=["dimensions"]))
    compact = _compact(body)
    if compact:
        return f"stablehlo.reduce{pairs} applies {compact} {dims}{rest} : {_types(op)}"
    head = f"stablehlo.reduce{pairs} {dims}{rest} : {_types(op)}"
    named = [printer.argument(a) for a in body.arguments]
    arguments = " ".join(f"({a}, {b})" for a, b in
                         zip(named[:count], named[count:], strict=True))
    return (f"{head}\n{indent} reducer{arguments} {{\n{printer.body(body, indent + '  ')}\n"
            f"{indent}}}")


def _read_reduce(parser: Parser, definition) -> Parsed:
    inputs: list[Value] = []
    inits: list[Value] = []
    while not inputs or parser.accept(","):
        parser.expect("(")
        inputs.append(parser.operand())
        parser.expect("init", ":")
        inits.append(parser.operand())
        parser.expect(")")
    applied = None
    if parser.accept("applies"):
        applied = parser.take_op_name()
    parser.expect("across", "dimensions", "=")
    attributes = {"dimensions": parser.integers()}
    attributes.update(parser.op_dictionary(definition))
    types = parser.op_types([*inputs, *inits], "function")
    if applied is not None:
        body = parser.compact_region(applied, inits[0].type)
    else:
        parser.expect("reducer")
        lhs, rhs = [], []
        while parser.at("("):
            pair = parser.arguments()
            if len(pair) != 2:
                raise parser.error("expected two arguments per reduced value")
            lhs.append(pair[0])
            rhs.append(pair[1])
        body = parser.braced_region([*lhs, *rhs])
    return [*inputs, *inits], attributes, [body], types


# -- while ----------------------------------------------------------------------------------------

def _write_while(printer: Printer, op: Op, indent: str) -> str:
    cond, body = op.regions
    operands = [printer.name(v) for v in op.operands]
    names = [printer.argument(a).partition(":")[0] for a in cond.arguments]
    for argument, name in zip(body.arguments, names, strict=True):
        printer.names[argument] = name
    pairs = ", ".join(f"{n} = {o}" for n, o in zip(names, operands, strict=True))
    types = ", ".join(str(v.type) for v in op.operands)
    rest = printer.dictionary(op)
    return (f"stablehlo.while({pairs}) : {types}{' attributes' if rest else ''}{_spaced(rest)}\n"
            f"{indent}cond {{\n{printer.body(cond, indent + '  ')}\n"
            f"{indent}}} do {{\n{printer.body(body, indent + '  ')}\n{indent}}}")


def _read_while(parser: Parser, definition) -> Parsed:
    names: list[str] = []
    operands: list[Value] = []
    parser.expect("(")
    while not parser.accept(")"):
        if names:
            parser.expect(",")
        names.append(parser.new_name())
        parser.expect("=")
        operands.append(parser.operand())
    types = []
    if operands:
        parser.expect(":")
        types = parser.types(len(operands))
    if parser.accept("attributes"):
        parser.op_dictionary(definition)
    arguments: list[Argument] = [(name, type, {}) for name, type in zip(names, types, strict=True)]
    parser.expect("cond")
    cond = parser.braced_region(arguments)
    parser.expect("do")
    body = parser.braced_region(arguments)
    return operands, {}, [cond, body], types


# -- scan -----------------------------------------------------------------------------------------

def _write_scan(printer: Printer, op: Op, indent: str) -> str:
    body = op.regions[0]
    # The slices of inputs have a dim less than the inputs; carries have the carries' own types.
    count = sum(a.type != o.type for a, o in zip(body.arguments, op.operands, strict=True))
    names = [printer.name(v) for v in op.operands]
    rest = printer.dictionary(op, skip=["dimension"])
    return (f"chlo.scan({', '.join(names[:count])}) inits({', '.join(names[count:])})"
            f" dimension={op.attributes['dimension']}{' attributes' if rest else ''}{_spaced(rest)}"
            f" {printer.region(body, indent)} : {_types(op)}")


def _read_scan(parser: Parser, definition) -> Parsed:
    operands = parser.operands_in_parentheses()
    parser.expect("inits")
    operands += parser.operands_in_parentheses()
    parser.expect("dimension", "=")
    attributes: dict[str, Any] = {"dimension": parser.integer()}
    if parser.accept("attributes"):
        attributes.update(parser.op_dictionary(definition))
    body = parser.region()
    return operands, attributes, [body], parser.op_types(operands, "function")


# -- convolution ----------------------------------------------------------------------------------

_WINDOW = {"stride": ("window_strides", "i64_array"), "pad": ("padding", "i64_pairs"),
           "lhs_dilate": ("lhs_dilation", "i64_array"),
           "rhs_dilate": ("rhs_dilation", "i64_array"),
           "reverse": ("window_reversal", "bool_array")}


def _write_convolution(printer: Printer, op: Op, indent: str) -> str:
    attributes = {"batch_group_count": 1, "feature_group_count": 1, **op.attributes}
    full = Op(op.definition, op.operands, [], attributes, (), op.location)
    window = ", ".join(
        f"{word} = {KINDS[kind].pretty(attributes[name])}"
        for word, (name, kind) in _WINDOW.items() if attributes.get(name) is not None)
    rest = printer.dictionary(full, skip=["dimension_numbers", *(n for n, _ in _WINDOW.values())])
    operands = ", ".join(map(printer.name, op.operands))
    numbers = write_conv_numbers(attributes["dimension_numbers"])
    return (f"{op.name}({operands}) dim_numbers = {numbers},"
            f" window = {{{window}}}{_spaced(rest)} : {_types(op)}")


def _read_convolution(parser: Parser, definition) -> Parsed:
    parser.expect("(")
    operands = parser.operands()
    parser.expect(")", "dim_numbers", "=")
    attributes: dict[str, Any] = {"dimension_numbers": read_conv_numbers(parser)}
    parser.expect(",", "window", "=", "{")
    first = True
    while not parser.accept("}"):
        if not first:
            parser.expect(",")
        first = False
        word = parser.take()
        if word not in _WINDOW:
            raise parser.error(f"expected one of {', '.join(_WINDOW)}, got `{word}`", -1)
        parser.expect("=")
        name, kind = _WINDOW[word]
        attributes[name] = parser.attribute_as(kind, name)
    attributes.update(parser.op_dictionary(definition))
    return operands, attributes, [], parser.op_types(operands, "function")


def read_conv_numbers(parser: AttributeParser):
    """`[b, 0, f]x[0, i, o]->[b, 0, f]`."""
    sides = [parser.attribute()]
    for separator in ("x", "->"):
        parser.expect(separator)
        sides.append(parser.attribute())
    if not all(isinstance(s, tuple) for s in sides):
        raise parser.error("expected dimension numbers such as [b, 0, f]x[0, i, o]->[b, 0, f]")
    try:
        return conv_numbers(sides)
    except ValueError as error:
        raise parser.error(f"expected in these dimension numbers {error}", -1) from None


# -- calls ----------------------------------------------------------------------------------------

def _write_call(printer: Printer, op: Op, indent: str) -> str:
    operands = ", ".join(map(printer.name, op.operands))
    rest = _spaced(printer.dictionary(op, skip=["callee"]))
    return f"func.call {printer.symbol(op.attributes['callee'])}({operands}){rest} : {_types(op)}"


def _read_call(parser: Parser, definition) -> Parsed:
    callee = parser.attribute_of(definition, "callee")
    operands = parser.operands_in_parentheses()
    attributes = {"callee": callee, **parser.op_dictionary(definition)}
    return operands, attributes, [], parser.op_types(operands, "function")


def _write_custom_call(printer: Printer, op: Op, indent: str) -> str:
    operands = ", ".join(map(printer.name, op.operands))
    rest = _spaced(printer.dictionary(op, skip=["call_target_name"]))
    target = KINDS["symbol"].write(op.attributes["call_target_name"])[1:-1]
    return f"stablehlo.custom_call @{target}({operands}){rest} : {_types(op)}"


def _read_custom_call(parser: Parser, definition) -> Parsed:
    target = parser.symbol_name()
    operands = parser.operands_in_parentheses()
    attributes = {"call_target_name": target, **parser.op_dictionary(definition)}
    return operands, attributes, [], parser.op_types(operands, "function")


def _write_composite(printer: Printer, op: Op, indent: str) -> str:
    parts = []
    for name in sorted(set(op.attributes) - {"name"}):
        value = op.attributes[name]
        if name == "composite_attributes" and not value:
            continue
        # StableHLO's version is an i32.
        text = f"{value} : i32" if name == "version" else printer.attribute(op, name)
        parts.append(f"{name} = {text}")
    operands = ", ".join(map(printer.name, op.operands))
    return (f"stablehlo.composite {write_string(op.attributes['name'])}{_spaced(operands)}"
            f" {{{', '.join(parts)}}} : {_types(op)}")


def _read_composite(parser: Parser, definition) -> Parsed:
    name = parser.attribute_of(definition, "name")
    operands = parser.operands()
    attributes = {"name": name, **parser.op_dictionary(definition)}
    return operands, attributes, [], parser.op_types(operands, "function")


FORMS: dict[str, OpForm] = {
    "stablehlo.constant": OpForm(_write_constant, _read_constant),
    "stablehlo.reduce": OpForm(_write_reduce, _read_reduce),
    "chlo.scan": OpForm(_write_scan, _read_scan),
    "stablehlo.while": OpForm(_write_while, _read_while),
    "stablehlo.convolution": OpForm(_write_convolution, _read_convolution),
    "stablehlo.custom_call": OpForm(_write_custom_call, _read_custom_call),
    "stablehlo.composite": OpForm(_write_composite, _read_composite),
    # Newer StableHLO prints this one pretty; the generic form is read by every version.
    "stablehlo.dynamic_conv": OpForm(lambda printer, op, indent: None, _read_convolution),
    "func.call": OpForm(_write_call, _read_call),
}
