"""Parses MLIR attributes into plain values and the classes of `ir/attributes.py`.

Here an attribute has no meaning yet; `attributes.KINDS` gives it one when an op's declaration says
what kind it is.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from ..errors import UnsupportedError
from .attributes import DenseArray, Enum, Struct, Symbol, Verbatim
from .core import TensorType
from .cursor import Cursor, unquote
from .dtypes import F64, DType, by_name
from .forms import read_conv_numbers
from .lexer import Tokens
from .literal import read_dense

_NUMBER = re.compile(r"-?(?:0x[0-9a-fA-F]{1,32}|\d{1,32}(?:\.\d*(?:[eE][-+]?\d+)?)?)")

_SCALAR = re.compile(r"u?i\d+|si\d+|b?f\d+\w*|index")


class AttributeParser(Cursor):
    """A cursor that reads attributes; `aliases` are the `#name = ...` lines seen so far."""

    def __init__(self, tokens: Tokens):
        super().__init__(tokens)
        self.aliases: dict[str, Any] = {}

    def dictionary(self) -> dict[str, Any]:
        """`{name = value, unit_name}`."""
        return {name: value for name, value, _ in self.entries()}

    def entries(self) -> list[tuple[str, Any, int]]:
        """Name, value and place of each entry of a dictionary."""
        found: list[tuple[str, Any, int]] = []
        with self.nested():
            self.expect("{")
            while not self.accept("}"):
                if found:
                    self.expect(",")
                place = self.index
                text = self.take()
                if not (text[0].isalpha() or text[0] in '"_'):
                    raise self.error(f"expected an attribute's name, got `{text[:40]}`", -1)
                value = self.attribute() if self.accept("=") else Verbatim("unit")
                found.append((unquote(text), value, place))
        return found

    def attribute(self) -> Any:
        """Any attribute, as plain values and the classes of `ir/attributes.py`."""
        text = self.texts[self.index]
        first = text[:1]
        if first == "[":
            return self.array()
        if first == "{":
            return self.dictionary()
        if first == '"':
            self.index += 1
            return unquote(text)
        if first == "@":
            return Symbol(self.symbol_name())
        if first == "#":
            return self.dialect_attribute()
        if first.isdigit() or first == "-":
            return self.number()
        if text.startswith("dense<"):
            if self.at(text, ":") and self.texts[self.index + 2].endswith("xindex>"):
                self.index += 3  # Layouts of buffers: hints.
                return Verbatim(f"{text} : {self.texts[self.index - 1]}")
            return self.dense()
        if text in ("true", "false"):
            self.index += 1
            return text == "true"
        if text == "array" and self.texts[self.index + 1] == "<":
            return self.dense_array()
        if text.startswith("tensor<"):
            return self.type()
        if text in ("dense_resource", "sparse", "dense"):
            raise self.error(f"`{text}` constants are not supported", kind=UnsupportedError)
        if first.isalpha():
            self.index += 1
            return Verbatim("unit") if text == "unit" else Enum("", text)
        if first == "(":
            return self.function_type()
        if first == "<":  # A struct whose name the pretty form leaves out.
            return Verbatim(self.balanced())
        raise self.unexpected("an attribute")

    def array(self) -> tuple:
        with self.nested():
            self.expect("[")
            values: list[Any] = []
            while not self.accept("]"):
                if values:
                    self.expect(",")
                values.append(self.attribute())
            return tuple(values)

    def number(self) -> Any:
        """`1`, `1 : i32`, `1.0 : f32`: Python numbers for i64 and f64, NumPy scalars for others."""
        text = self.take()
        if not _NUMBER.fullmatch(text):
            raise self.error(f"expected a number, got `{text[:40]}`", -1)
        # A tensor type after the colon belongs to the op, not to the number.
        typed = self.at(":") and _SCALAR.fullmatch(self.texts[self.index + 1]) is not None
        name = ""
        if typed:
            self.expect(":")
            name = self.take()
        whole = "." not in text
        if name in ("", "i64", "f64", "index"):
            if name == "f64":
                return float(self.scalar(text, F64))
            return int(text, 16 if "x" in text else 10) if whole else float(text)
        try:
            dtype = by_name(name)
        except KeyError:
            raise self.error(f"the number type {name} is not supported", -1,
                             UnsupportedError) from None
        return self.scalar(text, dtype)

    def scalar(self, text: str, dtype: DType) -> Any:
        """A NumPy scalar; floats also from their bits in hex."""
        try:
            return read_dense(f"dense<{text}>", TensorType((), dtype))[()]
        except ValueError as error:
            raise self.error(str(error), -1) from None

    def dense(self) -> np.ndarray:
        place, text = self.index, self.take()
        self.expect(":")
        type = self.type()
        try:
            return read_dense(text, type)
        except ValueError as error:
            raise self.tokens.error(place, str(error)) from None

    def dense_array(self) -> DenseArray:
        self.expect("array", "<")
        dtype = self.take()
        values: list[Any] = []
        if self.accept(":"):
            while not values or self.accept(","):
                value = self.attribute()
                if isinstance(value, (tuple, dict, str)):
                    raise self.error("expected a number", -1)
                values.append(value)
        self.expect(">")
        return DenseArray(dtype, tuple(values))

    def dialect_attribute(self) -> Any:
        """`#stablehlo<family case>`, `#stablehlo.family<...>`, an alias, or any other as text."""
        start = self.tokens.starts[self.index]
        name = self.take()
        if not self.at("<"):
            if name in self.aliases:
                return self.aliases[name]
            return Verbatim(name)
        if name == "#stablehlo":
            self.expect("<")
            found = Enum(self.take(), self.take())
            self.expect(">")
            return found
        if name == "#stablehlo.conv" and self.texts[self.index + 1] == "[":
            self.expect("<")
            values: dict[str, Any] = {"": read_conv_numbers(self)}
            self.expect(">")
        elif name.startswith(("#stablehlo.", "#chlo.")):
            values = self.fields()
        else:
            return Verbatim(name + self.balanced())
        end = self.tokens.starts[self.index - 1] + 1
        return Struct(name.partition(".")[2], values, self.tokens.text[start:end])

    def fields(self) -> dict[str, Any]:
        """`<name = value, ...>`."""
        with self.nested():
            self.expect("<")
            values: dict[str, Any] = {}
            while not self.accept(">"):
                if values:
                    self.expect(",")
                field = self.take()
                self.expect("=")
                values[field] = self.attribute()
            return values
