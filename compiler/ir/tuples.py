"""Tuples exist in text only: the parser keeps the values in them apart, so the IR has none.

`stablehlo.tuple` gives its values one name; `stablehlo.get_tuple_element` takes one out again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .core import TensorType, Value

if TYPE_CHECKING:
    from .parser import Parser

TUPLE_OPS = frozenset({"stablehlo.tuple", "stablehlo.get_tuple_element"})


@dataclass(frozen=True, eq=False)
class TupleOf:
    """The values of a tuple; its type prints like a type."""

    values: tuple[Value | TupleOf, ...]

    @property
    def type(self) -> str:
        return f"tuple<{', '.join(str(v.type) for v in self.values)}>"


def read_tuple_op(parser: Parser, name: str, results: Sequence[tuple[str, int]]) -> None:
    """Read the rest of a tuple op and name its result."""
    read = _tuple if name == "stablehlo.tuple" else _element
    value = read(parser)
    if results:
        if len(results) != 1 or results[0][1] != 1:
            raise parser.error(f"{name} has one result")
        parser.define(results[0][0], value)  # type: ignore[arg-type]


def _tuple(parser: Parser) -> TupleOf:
    values: list[Value | TupleOf] = []
    generic = parser.accept("(")
    while parser.texts[parser.index].startswith("%"):
        values.append(parser.any_operand())
        if not parser.accept(","):
            break
    if generic:
        parser.expect(")")
    made = TupleOf(tuple(values))
    parser.expect(":")
    if generic:
        parser.expect("(")
        for i, value in enumerate(values):
            if i:
                parser.expect(",")
            _check(parser, value)
        parser.expect(")", "->")
    _check(parser, made)
    return made


def _element(parser: Parser) -> Value | TupleOf:
    generic = parser.accept("(")
    source = parser.any_operand()
    if generic:
        parser.expect(")", "<", "{", "index", "=")
        number = parser.integer()
        if parser.accept(":"):
            parser.take()
        parser.expect("}", ">")
    else:
        parser.expect("[")
        number = parser.integer()
        parser.expect("]")
    if not isinstance(source, TupleOf) or not 0 <= number < len(source.values):
        raise parser.error(f"a {source.type} has no element {number}", -1)
    parser.expect(":", "(")
    _check(parser, source)
    parser.expect(")", "->")
    _check(parser, source.values[number])
    return source.values[number]


def _check(parser: Parser, value: Value | TupleOf) -> None:
    """Read a type, which must be that of `value`."""
    found = _type(parser)
    if str(value.type) != str(found):
        raise parser.error(f"the value is a {value.type}, not a {found}", -1)


def _type(parser: Parser) -> TensorType | str:
    if not parser.accept("tuple"):
        return parser.type()
    with parser.nested():
        parser.expect("<")
        parts: list[str] = []
        while not parser.accept(">"):
            if parts:
                parser.expect(",")
            parts.append(str(_type(parser)))
        return f"tuple<{', '.join(parts)}>"
