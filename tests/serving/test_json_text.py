"""JSON text: what is read, what is refused and where, and how floats are written."""

import json
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfn.serving.errors import ServingError, Status
from tfn.serving.json_text import decimals, excerpt, kind, only_numbers, parse


def test_plain_json_is_what_the_standard_library_reads():
    text = '{"a": [1, -2.5, 1e3, true, null, "\\u00e9"], "b": {"c": []}}'
    assert parse(text.encode()) == json.loads(text)


def test_nan_and_infinity_are_numbers():
    a, b, c = parse(b'{"instances": [NaN, Infinity, -Infinity]}')["instances"]
    assert math.isnan(a) and b == math.inf and c == -math.inf


@pytest.mark.parametrize("body", [b'{"a": 1} x', b'{"a": 1}{"b": 2}', b' {"a": 1}\0'])
def test_text_after_the_object_is_ignored(body):
    assert parse(body) == {"a": 1}


@pytest.mark.parametrize(
    ("number", "value"),
    [
        ("18446744073709551615", 2**64 - 1),
        ("-9223372036854775808", -(2**63)),
        ("18446744073709551616", 2.0**64),
        ("1" * 300, float("1" * 300)),
    ],
)
@pytest.mark.parametrize("rest", ["", ", NaN"], ids=["fast", "lenient"])
def test_integers_beyond_64_bits_are_doubles(number, value, rest):
    read = parse(f'{{"a": [{number}{rest}]}}'.encode())["a"][0]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "JSON Parse error: The document is empty"),
        (b"instances = [1, 2]", "JSON Parse error: Invalid value. at offset: 0"),
        (b'{"instances": [1, 2}', "a closing bracket after a value. at offset: 19"),
        (b'{"instances": [1, ]}', "JSON Parse error: Invalid value. at offset: 18"),
        (b'{"instances": [1', "a closing bracket after a value. at offset: 16"),
        (b"{1: 2}", "Missing a name for object member. at offset: 1"),
        (b'{"a" 1}', "Missing a colon after a name of object member. at offset: 5"),
        (b'{"a": "b', "Missing a closing quotation mark in string. at offset: 6"),
        (b'{"a": "\\x"}', "Invalid escape character in string. at offset: 7"),
        (b'{"a": "\\u12"}', "Incorrect hex digit after \\u escape in string."),
        (b'{"a": "\xff"}', "Invalid encoding in string. at offset: 7"),
        (b'{"a": 1e400}', "Number too big to be stored in double. at offset: 6"),
        (b'{"a": ' + b"9" * 5000 + b"}", "Number too big to be stored in double."),
        (b'{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "nested too deeply"),
        (b"[" * 200_000, "nested too deeply"),
        (b"null", "JSON Value: null Is not object"),
        (b"[1, 2]", "JSON Value: [1, 2] Is not object"),
        (b'"text"', 'JSON Value: "text" Is not object'),
    ],
)
def test_what_is_not_an_object_is_refused(body, message):
    with pytest.raises(ServingError, match=re.escape(message)) as caught:
        parse(body)
    assert caught.value.status is Status.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ('{"signature_name": "null", "inputs": [[1, -2.5e3], [NaN, -Infinity]]}', True),
        ('{"instances": []}', True),
        ('{"inputs": 1}', False),
        ('{"instances": [1, true]}', False),
        ('{"instances": [1, false]}', False),
        ('{"instances": [1, null]}', False),
        ('{"instances": ["1"]}', False),
        ('{"instances": [{"x": 1}]}', False),
    ],
)
def test_texts_of_numbers_only_are_recognised(text, answer):
    assert only_numbers(text.encode()) is answer


def test_an_excerpt_is_short():
    assert excerpt({"a": [1, "b"]}) == '{"a": [1, "b"]}'
    assert len(excerpt(list(range(10_000)))) == 256 + len("...")


def test_kinds_are_called_as_in_tf_serving():
    assert [kind(v) for v in (None, True, False, {}, [], "", 1, 1.5)] == [
        "Null", "True", "False", "Object", "Array", "String", "Number", "Number",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.2, "0.2"),
        (1.0, "1.0"),
        (-0.0, "-0.0"),
        (9_000_000, "9e+06"),
        (999_999, "999999.0"),
        (1_000_000, "1e+06"),
        (0.00003, "3e-05"),
        (0.0001, "0.0001"),
        (1 / 3, "0.333333343"),
        (16777216, "16777216.0"),
        (3.4028235e38, "3.40282347e+38"),
        (1e-45, "1.4013e-45"),
        (math.nan, "NaN"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
    ],
)
def test_floats_are_written_as_tf_serving_writes_them(value, text):
    assert decimals(np.array([value], np.float32)) == [text]


def test_doubles_have_up_to_17_digits():
    assert decimals(np.array([0.1, 1 / 3, 1e300, 2.0])) == [
        "0.1", "0.33333333333333331", "1e+300", "2.0",
    ]  # fmt: skip


@given(st.lists(st.floats(width=32, allow_nan=False), max_size=20))
def test_a_float32_survives_its_text(values):
    array = np.array(values, np.float32)
    texts = decimals(array)
    np.testing.assert_array_equal(np.array([float(t) for t in texts], np.float32), array)
    assert all(len(re.sub(r"e.*|[^0-9]", "", t).strip("0")) <= 9 for t in texts)
