"""JSON text as TF Serving reads and writes it: NaN and Infinity bare, floats in `%g` style.

`parse` reads a request body, `decimals` writes the numbers of a response, `excerpt` quotes a value
in an error. Tensors are the business of `json_tensor.py`.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

import numpy as np
import orjson

from .errors import invalid

_EXCERPT = 256
"""Characters of a JSON value that an error quotes, as in TF Serving."""


def parse(body: bytes | bytearray) -> dict[str, Any]:
    """The object in a request body.

    NaN, Infinity and -Infinity are numbers, and text after the object is ignored, both as in TF
    Serving. Raises `ServingError` (400) with the offset in bytes for anything else: malformed or
    empty text, a number no double can hold, nesting of about a thousand levels, not an object.
    """
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = _parse_lenient(bytes(body))
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {excerpt(document)} Is not object")
    return document


def only_numbers(body: bytes) -> bool:
    """Whether there is nothing but numbers and lists from the first `[` of a JSON text on.

    No strings or names, and no true, false or null, each of which has a `u` or an `l`: three
    searches at memory speed instead of a look at every parsed element.
    """
    start = body.find(b"[")
    return start >= 0 and all(body.find(letter, start) < 0 for letter in (b'"', b"u", b"l"))


def _parse_lenient(body: bytes) -> Any:
    """What orjson refuses: NaN and Infinity, text behind the object, and real errors."""
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        _refuse("Invalid encoding in string.", error.start)
    try:
        document, _ = _LENIENT.raw_decode(text, _first_character(text))
    except json.JSONDecodeError as error:
        reason = next(ours for theirs, ours in _REASONS if error.msg.startswith(theirs))
        _refuse(reason, len(text[: error.pos].encode()))
    except _TooBig as error:
        _refuse("Number too big to be stored in double.", body.find(str(error).encode()))
    except RecursionError:
        raise invalid(
            "JSON Parse error: nested too deeply; a tensor has one level of lists per dimension"
        ) from None
    return document


def _first_character(text: str) -> int:
    return len(text) - len(text.lstrip(" \t\r\n"))


def _refuse(reason: str, offset: int) -> NoReturn:
    raise invalid(f"JSON Parse error: {reason} at offset: {offset}") from None


# The messages of Python's decoder, and what TF Serving's parser says for the same fault.
_REASONS = (
    ("Expecting value", "Invalid value."),
    ("Expecting property name", "Missing a name for object member."),
    ("Illegal trailing comma", "Invalid value."),
    ("Expecting ':'", "Missing a colon after a name of object member."),
    ("Unterminated string", "Missing a closing quotation mark in string."),
    ("Invalid control character", "Invalid encoding in string."),
    ("Invalid \\uXXXX", "Incorrect hex digit after \\u escape in string."),
    ("Invalid \\escape", "Invalid escape character in string."),
    ("", "Missing a comma or a closing bracket after a value."),
)


class _TooBig(ValueError):
    """The text of a number outside the doubles."""


def _float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise _TooBig(text)
    return number


def _integer(text: str) -> int | float:
    # Like orjson: an integer beyond 64 bits is a double. This also keeps Python from refusing
    # (or slowly converting) integers of thousands of digits.
    return int(text) if len(text) < 19 else _wide_integer(text)


def _wide_integer(text: str) -> int | float:
    number = _float(text)
    if abs(number) < 2.0**65:
        exact = int(text)
        if -(2**63) <= exact < 2**64:
            return exact
    return number


_LENIENT = json.JSONDecoder(parse_float=_float, parse_int=_integer)


def excerpt(value: Any) -> str:
    """The first characters of a parsed value as JSON, for an error message."""
    parts: list[str] = []
    length = 0
    for part in json.JSONEncoder(ensure_ascii=False).iterencode(value):
        parts.append(part)
        length += len(part)
        if length > _EXCERPT:
            return "".join(parts)[:_EXCERPT] + "..."
    return "".join(parts)


_KINDS = {
    dict: "Object",
    list: "Array",
    str: "String",
    int: "Number",
    float: "Number",
    type(None): "Null",
}


def kind(value: Any) -> str:
    """The JSON type of a parsed value as TF Serving names it: `Number`, `Array`, `True` ..."""
    return str(value) if isinstance(value, bool) else _KINDS[type(value)]


def decimals(values: np.ndarray) -> list[str]:
    """Text for each float of a one-dimensional array: exactly what TF Serving writes.

    Six significant digits when they give the same number back, otherwise as many as the type
    needs (9 or 17); `.0` behind what would look like an integer; NaN and Infinity bare. float16 and
    bfloat16 are written as float32.
    """
    if values.dtype != np.float64:
        values = values.astype(np.float32, copy=False)
    numbers = values.tolist()
    texts = [format(number, ".6g") for number in numbers]
    with np.errstate(over="ignore"):
        same = np.array([float(text) for text in texts]).astype(values.dtype) == values
    if not same.all():
        digits = ".17g" if values.dtype == np.float64 else ".9g"
        for index in np.flatnonzero(~same).tolist():
            texts[index] = format(numbers[index], digits)
    return [
        text if "." in text or "e" in text else _NOT_FINITE.get(text) or text + ".0"
        for text in texts
    ]


_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
