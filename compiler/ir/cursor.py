"""The position of the parser in the tokens: looking, stepping, and errors with line and column."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import ParseError, TfnError, UnsupportedError
from .core import TensorType
from .dtypes import TOKEN, future_of
from .lexer import Tokens
from .types import read_type

MAX_NESTING = 64
"""Regions in regions, brackets in brackets, calls of calls."""


class Cursor:
    """Steps through tokens. Whatever does not fit raises `ParseError` at the token."""

    def __init__(self, tokens: Tokens):
        self.tokens = tokens
        self.texts = tokens.texts
        self.index = 0
        self.depth = 0

    def error(self, message: str, offset: int = 0, kind: type = ParseError) -> TfnError:
        """An error at the next token (`offset` -1: at the one just read)."""
        return self.tokens.error(self.index + offset, message, kind)

    def unexpected(self, expected: str) -> TfnError:
        found = self.texts[self.index]
        shown = f"`{found[:40]}`" if found else "the end of the text"
        return self.error(f"expected {expected}, got {shown}")

    def take(self) -> str:
        """The next token, whatever it is."""
        text = self.texts[self.index]
        if not text:
            raise self.unexpected("more text")
        self.index += 1
        return text

    def at(self, *texts: str) -> bool:
        """Whether the next tokens are these."""
        return self.texts[self.index:self.index + len(texts)] == list(texts)

    def accept(self, text: str) -> bool:
        """Step over the next token if it is this one."""
        if self.texts[self.index] != text:
            return False
        self.index += 1
        return True

    def expect(self, *texts: str) -> None:
        for text in texts:
            if not self.accept(text):
                raise self.unexpected(f"`{text}`")

    def prefixed(self, first: str, what: str) -> str:
        if not self.texts[self.index].startswith(first):
            raise self.unexpected(what)
        return self.take()

    def integer(self) -> int:
        text = self.texts[self.index]
        if not re.fullmatch(r"-?\d{1,19}", text):
            raise self.unexpected("an integer")
        self.index += 1
        return int(text)

    def integers(self) -> tuple[int, ...]:
        """`[1, 2]`."""
        self.expect("[")
        values: list[int] = []
        while not self.accept("]"):
            if values:
                self.expect(",")
            values.append(self.integer())
        return tuple(values)

    def symbol_name(self) -> str:
        return unquote(self.prefixed("@", "a symbol such as @main")[1:])

    @contextmanager
    def nested(self) -> Iterator[None]:
        """Bounds the depth of brackets and regions."""
        self.depth += 1
        if self.depth > MAX_NESTING:
            raise self.error(f"nested deeper than {MAX_NESTING} levels")
        yield
        self.depth -= 1

    def location(self) -> str:
        """The text of a `loc(...)`, "" if none comes next."""
        if not self.at("loc", "("):
            return ""
        self.index += 1
        return "loc" + self.balanced()

    def balanced(self) -> str:
        """Step over one bracketed group; its source text."""
        start = self.tokens.starts[self.index]
        closers: list[str] = []
        pairs = {"(": ")", "[": "]", "{": "}", "<": ">"}
        while True:
            text = self.take()
            if text in pairs:
                closers.append(pairs[text])
            elif text in pairs.values() and (not closers or closers.pop() != text):
                raise self.error(f"`{text}` closes nothing", -1)
            if not closers:
                return self.tokens.text[start:self.tokens.starts[self.index - 1] + len(text)]

    # -- types

    def type(self) -> TensorType:
        text = self.texts[self.index]
        if text == "!stablehlo.token":
            self.index += 1
            return TensorType((), TOKEN)
        if text == "!stablehlo.future":
            return self.future()
        if text.startswith("!"):
            raise self.error(f"the type {text} is not supported", kind=UnsupportedError)
        if not text.startswith("tensor<"):
            raise self.unexpected("a tensor type")
        try:
            found = read_type(text)
        except UnsupportedError as error:
            raise self.error(error.message, kind=UnsupportedError) from None
        except ValueError as error:
            raise self.error(str(error)) from None
        self.index += 1
        return found

    def future(self) -> TensorType:
        """`!stablehlo.future<T>`."""
        place = self.index
        self.index += 1
        self.expect("<")
        with self.nested():
            found = self.type()
        if self.at(",") or found.dtype is TOKEN:
            raise self.tokens.error(place, "a future of anything but one tensor is not supported",
                                    UnsupportedError)
        self.expect(">")
        return found.with_dtype(future_of(found.dtype))

    def types(self, count: int = 1) -> list[TensorType]:
        """`A, B`."""
        found = [self.type()]
        while len(found) < count or self.at(","):
            self.expect(",")
            found.append(self.type())
        return found

    def types_in_parentheses(self) -> list[TensorType]:
        self.expect("(")
        found = [] if self.at(")") else self.types()
        self.expect(")")
        return found

    def results(self) -> list[TensorType]:
        """One type, or several in parentheses."""
        return self.types_in_parentheses() if self.at("(") else [self.type()]

    def function_type(self) -> tuple[list[TensorType], list[TensorType]]:
        """`(A, B) -> C`."""
        operands = self.types_in_parentheses()
        self.expect("->")
        return operands, self.results()


def unquote(text: str) -> str:
    """The content of a string literal (or a bare word)."""
    if not text.startswith('"'):
        return text
    raw = text[1:-1].encode("utf-8", "surrogateescape")
    simple = {b"n": b"\n", b"t": b"\t", b"\\": b"\\", b'"': b'"'}

    def escape(match: re.Match[bytes]) -> bytes:
        body = match.group(1)
        return simple[body] if body in simple else bytes.fromhex(body.decode())

    raw = re.sub(rb'\\([nt\\"]|[0-9a-fA-F]{2})', escape, raw)
    return raw.decode("utf-8", "surrogateescape")
