"""Broken StableHLO texts out of good ones: what `fuzz` feeds to the parser and the compiler.

A mutation is chosen by a random generator, so a number names a text. Most work on tokens (delete,
repeat, swap, replace by a token of another kind, change a number or a type); some on bytes.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

_TOKEN = re.compile(r'"(?:[^"\\\n]|\\.)*"|tensor<[^\n]*?>(?=\W|$)|[%@^#!]?[\w$.-]+|->|\s+|.', re.DOTALL)

NUMBERS = ("0", "1", "-1", "2", "3", "5", "64", "1000000", str(2**31), str(2**62), str(2**63),
           str(-2**63), str(2**64), "9" * 40, "-" + "9" * 25, "1e999",
           "0x7FF0000000000000", "0xZ", "1.5", "-0")
TYPES = ("tensor<f32>", "tensor<2xf32>", "tensor<0x3xi64>", "tensor<?xf32>", "tensor<4xcomplex<f32>>",
         "tensor<2x2xi1>", f"tensor<{2**62}xf32>", f"tensor<{2**20}x{2**20}x{2**20}xi8>",
         f"tensor<{2**30}xf64>", "tensor<-1xf32>", f"tensor<{'9' * 30}xf32>",
         "tensor<1x1x1x1x1x1x1xf16>", "tensor<*xf32>", "tensor<3xf8E8M0FNU>", "tensor<2xi2>",
         "tensor<2xi3>", "tensor<2xindex>",
         "!stablehlo.token", "!stablehlo.future<tensor<f32>>", "tensor<2x!quant.uniform<i8:f32, 0.1>>",
         "tuple<tensor<f32>>", "tensor<2x", "tensor<f32, #x>")
TOKENS = ("(", ")", "{", "}", "[", "]", "<", ">", ",", ":", "=", "->", "%0", "%arg0", "%zz", "%0#1",
          "@main", "@f", "@missing", "^bb0", "#alias", "#stablehlo", "!x", '"text"', '"', "\\",
          "func.func", "module", "return", "stablehlo.return", "stablehlo.add", "stablehlo.while",
          '"stablehlo.if"', "dense<",
          "dense<1>", 'dense<"0x">', 'dense<"0xFF">', "array<i64>", "array<i64: 1, 2>", "true", "i64",
          "loc(unknown)", "//", "\n", "\x00", "é", "stablehlo.constant", "chlo.top_k", "call", "dim")


def _tokens(text: str) -> list[str]:
    return _TOKEN.findall(text)


def _place(rng: random.Random, tokens: list[str]) -> int:
    """A token that is no space, if there is one."""
    for _ in range(20):
        at = rng.randrange(len(tokens))
        if not tokens[at].isspace():
            break
    return at


def _delete(rng: random.Random, text: str) -> str:
    tokens = _tokens(text)
    at = _place(rng, tokens)
    return "".join(tokens[:at] + tokens[at + rng.choice((1, 1, 1, 3, 10)):])


def _repeat(rng: random.Random, text: str) -> str:
    tokens = _tokens(text)
    at = _place(rng, tokens)
    piece = tokens[at:at + rng.choice((1, 1, 3, 10))]
    return "".join(tokens[:at] + piece + [" "] + tokens[at:])


def _swap(rng: random.Random, text: str) -> str:
    tokens = _tokens(text)
    i, j = _place(rng, tokens), _place(rng, tokens)
    tokens[i], tokens[j] = tokens[j], tokens[i]
    return "".join(tokens)


def _replace(rng: random.Random, text: str) -> str:
    tokens = _tokens(text)
    at = _place(rng, tokens)
    tokens[at] = rng.choice(TOKENS) if rng.random() < 0.7 else rng.choice(tokens)
    return "".join(tokens)


def _matching(pattern: str, choices: tuple[str, ...]) -> Callable[[random.Random, str], str]:
    expression = re.compile(pattern)

    def mutate(rng: random.Random, text: str) -> str:
        found = list(expression.finditer(text))
        if not found:
            return _replace(rng, text)
        match = rng.choice(found)
        return text[:match.start()] + rng.choice(choices) + text[match.end():]

    return mutate


_number = _matching(r"(?<![\w%@#.])-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?", NUMBERS)
_dim = _matching(r"(?<=[<x])\d+(?=x)", NUMBERS)
_type = _matching(r"tensor<[^>\n]*(?:<[^>\n]*>)?>", TYPES)
_name = _matching(r"%[\w#]+", ("%0", "%1", "%arg0", "%arg1", "%undefined", "%0#7", "%0:2"))
_op = _matching(r"(?:stablehlo|chlo)\.\w+", (
    "stablehlo.add", "stablehlo.reduce", "stablehlo.dot_general", "stablehlo.constant",
    "stablehlo.transpose", "stablehlo.convolution", "stablehlo.while", "stablehlo.convert",
    "stablehlo.sort", "stablehlo.fft", "chlo.top_k", "stablehlo.rng_bit_generator",
    "stablehlo.nothing"))


def _rename(rng: random.Random, text: str) -> str:
    """Another value, op, attribute or type of the same text in place of one."""
    kinds = (r"%[\w#]+", r"(?:stablehlo|chlo)\.\w+", r"tensor<[^>\n]*(?:<[^>\n]*>)?>", r"\b\d+\b",
             r"\b[a-z_]+(?= =)", r"\b[A-Z]{2,}\b")
    found = list(re.finditer(rng.choice(kinds), text))
    if not found:
        return _swap(rng, text)
    match = rng.choice(found)
    return text[:match.start()] + rng.choice(found).group() + text[match.end():]


def _truncate(rng: random.Random, text: str) -> str:
    return text[:rng.randrange(len(text) + 1)]


def _nest(rng: random.Random, text: str) -> str:
    at = rng.randrange(len(text) + 1)
    opening = rng.choice(("(", "[", "{", "<", '"stablehlo.if"(%0) ({', "tuple<", "dense<[", "{a = ",
                          "tensor<1x", "loc(", "!stablehlo.future<", "-", "//", "\\"))
    return text[:at] + opening * rng.choice((70, 10_000)) + text[at:]


def _random_byte(rng: random.Random, data: bytes) -> bytes:
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        found[rng.randrange(len(found))] = rng.randrange(256)
    return bytes(found)


def _cut_bytes(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + data[at + rng.choice((1, 2, 7, 100)):]


ON_TEXT = (_delete, _repeat, _swap, _replace, _replace, _number, _number, _dim, _dim, _type, _type,
           _name, _op, _truncate, *[_rename] * 8)
ON_BYTES = (_random_byte, _cut_bytes)


def mutated(text: str, number: int) -> bytes:
    """The mutation `number` of a text that is not empty."""
    rng = random.Random(number)
    if rng.random() < 0.03:
        return _nest(rng, text).encode()
    if rng.random() < 0.08:
        return rng.choice(ON_BYTES)(rng, text.encode())
    for _ in range(rng.choice((1, 1, 2))):
        text = rng.choice(ON_TEXT)(rng, text or " ")
    return text.encode("utf-8", "surrogateescape")
