"""Tensors in requests and responses. The cases of TF Serving's json_tensor_test are the oracle."""

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tfn.compiler.ir.dims import Dim
from tfn.compiler.ir.dtypes import BF16, C64, F16, F32, F64, I1, I8, I32, I64, UI8, UI64, DType
from tfn.export.bundle import Signature, TensorSpec
from tfn.serving.errors import ServingError, Status
from tfn.serving.json_tensor import Form, read_inputs, signature_name, write_outputs
from tfn.serving.json_text import only_numbers, parse

BATCH = Dim.named("batch")


def takes(**inputs: tuple[DType, tuple]) -> Signature:
    """A signature with these inputs; reading a request needs nothing else of it."""
    specs = tuple(TensorSpec(name, *spec) for name, spec in inputs.items())
    return Signature("serving_default", None, specs, (), ())


def read(text: str, signature: Signature):
    body = text.encode()
    return read_inputs(parse(body), signature, only_numbers(body))


ONE = takes(x=(I32, (BATCH, 2)))
TWO = takes(a=(I32, (BATCH, 3, 2)), b=(F32, (BATCH, 2)))


# -- reading --------------------------------------------------------------------------------------


def test_rows():
    form, arrays = read('{"instances": [[1,2],[3,4],[5,6]]}', ONE)
    assert form is Form.ROW
    np.testing.assert_array_equal(arrays["x"], [[1, 2], [3, 4], [5, 6]])
    assert arrays["x"].dtype == np.int32


def test_rows_may_name_the_only_input():
    _, arrays = read('{"instances": [{"x": [1,2]}, {"x": [3,4]}]}', ONE)
    np.testing.assert_array_equal(arrays["x"], [[1, 2], [3, 4]])


def test_rows_of_several_inputs():
    rows = [
        {"a": [[1, 2], [3, 4], [5, 6]], "b": [1.0, float("nan")]},
        {"b": [2.0, float("inf")], "a": [[7, 8], [9, 0], [1, 2]]},
    ]
    _, arrays = read(json.dumps({"instances": rows}), TWO)
    np.testing.assert_array_equal(arrays["a"], [r["a"] for r in rows])
    np.testing.assert_array_equal(arrays["b"], [[1, np.nan], [2, np.inf]])


@pytest.mark.parametrize("text", ["[[1,2]]", '{"x": [[1,2]]}'])
def test_columns(text):
    form, arrays = read(f'{{"inputs": {text}}}', ONE)
    assert form is Form.COLUMN
    np.testing.assert_array_equal(arrays["x"], [[1, 2]])


def test_columns_of_several_inputs_may_have_more_names():
    inputs = {"a": [[[1, 2], [3, 4], [5, 6]]], "b": [[1, 2]], "other": "?"}
    _, arrays = read(json.dumps({"inputs": inputs}), TWO)
    assert {name: array.shape for name, array in arrays.items()} == {"a": (1, 3, 2), "b": (1, 2)}


def test_a_scalar_input():
    _, arrays = read('{"inputs": 3}', takes(x=(I32, ())))
    assert arrays["x"].shape == () and arrays["x"] == 3


@pytest.mark.parametrize("dtype", [F32, F64, F16, BF16])
def test_floats_take_integers(dtype):
    _, arrays = read('{"instances": [1, 2.0, 3, 0.5, 0.0]}', takes(x=(dtype, (BATCH,))))
    assert arrays["x"].dtype == dtype.numpy
    np.testing.assert_array_equal(arrays["x"].astype(np.float64), [1, 2, 3, 0.5, 0])


@pytest.mark.parametrize("text", ["1435774380", "1435774380.0"])
def test_integers_lose_precision_in_float32(text):
    _, arrays = read(f'{{"instances": [{text}]}}', takes(x=(F32, (BATCH,))))
    assert arrays["x"] == np.float32(1435774380)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1.7e308", np.inf), ("-1.7e308", -np.inf), ("2.3e-308", 0.0), ("1e-400", 0.0)],
)
def test_doubles_beyond_float32_become_infinite_or_zero(text, value):
    _, arrays = read(f'{{"instances": [{text}]}}', takes(x=(F32, (BATCH,))))
    np.testing.assert_array_equal(arrays["x"], [value])


@pytest.mark.parametrize(
    ("dtype", "text", "value"),
    [
        (I1, "true", True),
        (I8, "-128", -128),
        (UI8, "255", 255),
        (I64, "-9223372036854775808", -(2**63)),
        (UI64, "18446744073709551615", 2**64 - 1),
    ],
)
def test_extreme_values(dtype, text, value):
    _, arrays = read(f'{{"instances": [{text}]}}', takes(x=(dtype, (BATCH,))))
    assert arrays["x"].dtype == dtype.numpy
    assert arrays["x"][0] == value


@given(
    st.sampled_from([np.int8, np.int64, np.uint64, np.float32, np.float64, np.bool_]).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=1, max_dims=4, max_side=4))
    )
)
def test_any_array_survives_both_ways(array):
    names = {"b": I1, "i": {1: I8, 8: I64}, "u": UI64, "f": {4: F32, 8: F64}}
    found = names[array.dtype.kind]
    dtype = found[array.dtype.itemsize] if isinstance(found, dict) else found
    signature = takes(x=(dtype, (BATCH, *array.shape[1:])))
    rows = write_outputs({"x": array}, Form.ROW).replace(b'"predictions"', b'"instances"')
    columns = write_outputs({"x": array}, Form.COLUMN).replace(b'"outputs"', b'"inputs"')
    for body in (rows, columns):
        for fast in {False, only_numbers(body)}:
            _, arrays = read_inputs(parse(body), signature, fast)
            np.testing.assert_array_equal(arrays["x"], array)


# -- refusing -------------------------------------------------------------------------------------

FAULTS = [
    # (request, signature, parts of the message)
    ('{"instances": [[1,2]], "inputs": [[1,2]]}', ONE, ["Not formatted correctly", "'instances'"]),
    ('{"signature_name": "x"}', ONE, ["Missing 'inputs' or 'instances' key"]),
    ('{"instances": []}', ONE, ["No values in 'instances' array"]),
    ('{"instances": 1}', ONE, ["Expecting 'instances' to be an list/array"]),
    ('{"instances": null}', ONE, ["Expecting 'instances' to be an list/array"]),
    (
        '{"instances": [[1,2],[3,4],[5,6,7]]}',
        ONE,
        ["Failed to process element: 2 of 'instances' list", "Expecting tensor size: 2 but got: 3",
         'Input "x" of signature "serving_default" takes int32 [batch,2]'],
    ),
    ('{"instances": [[1,2],[3,4],[[5,6]]]}', ONE, ["Expecting shape [2] but got: [1,2]"]),
    ('{"instances": [1, [1]]}', ONE, ["Expecting shape [] but got: [1]"]),
    (
        '{"instances": [[1,2],["a", "b"]]}',
        ONE,
        ["element: 1", 'JSON Value: "a" Type: String is not of expected type: int32'],
    ),
    ('{"instances": [[1, 2.5]]}', ONE, ["JSON Value: 2.5 Type: Number", "expected type: int32"]),
    ('{"instances": [[1, true]]}', ONE, ["JSON Value: true Type: True", "expected type: int32"]),
    ('{"instances": [[1, null]]}', ONE, ["JSON Value: null Type: Null", "expected type: int32"]),
    ('{"instances": [[1, 3000000000]]}', ONE, ["3000000000 Type: Number", "type: int32"]),
    ('{"instances": [[1, [2]]]}', ONE, ["Encountered list at unexpected level: 1 expected < 1"]),
    ('{"instances": [[[1], 2]]}', ONE, ["JSON Value: 2 found at incorrect level: 2"]),
    ('{"instances": [[[1, 2], [3]]]}', ONE, ["list at unexpected size: 1 at level: 1"]),
    ('{"instances": [{"b64": "aGk="}]}', ONE, ["Type: Object is not of expected type: int32"]),
    ('{"instances": [{"x": [1,2]}, [1,2]]}', ONE, ["Expecting object but got list at item 1"]),
    ('{"instances": [[1,2], {"x": [1,2]}]}', ONE, ["Expecting value/list but got object at item"]),
    (
        '{"instances": [{"y": [1,2]}]}',
        ONE,
        ["element: 0 key: y", "does not have named input: y", "takes x"],
    ),
    ('{"instances": [[1,2,3]]}', ONE, ['Input "x" has shape [1,3]', "takes int32 [batch,2]"]),
    ('{"instances": [[[1,2]]]}', ONE, ['Input "x" has shape [1,1,2]', "takes int32 [batch,2]"]),
    ('{"inputs": [1,2]}', ONE, ['Input "x" has shape [2]', "takes int32 [batch,2]"]),
    ('{"inputs": []}', ONE, ['Input "x" has shape [0]', "takes int32 [batch,2]"]),
    ('{"inputs": [[]]}', ONE, ['Input "x" has shape [1,0]']),
    ('{"inputs": {"y": 1}}', ONE, ["Missing named input: x in 'inputs' object"]),
    ('{"inputs": "abc"}', ONE, ['JSON Value: "abc" Type: String is not of expected type: int32']),
    ('{"inputs": [[1,2],[3]]}', ONE, ["list at unexpected size: 1 at level: 1 expected size: 2"]),
    ('{"inputs": [[1,2],3]}', ONE, ["found at incorrect level: 2", "takes int32 [batch,2]"]),
    ('{"inputs": [[1,2],"ab"]}', ONE, ["found at incorrect level: 2"]),
    ('{"instances": [[1,2]]}', TWO, ["instances is a plain list", "a,b"]),
    ('{"inputs": [[1,2]]}', TWO, ["inputs is a plain value/list", "a,b"]),
    (
        '{"instances": [{"a": [[1,2],[3,4],[5,6]]}]}',
        TWO,
        ["Failed to process element: 0", "keys must be equal to: a,b"],
    ),
    (
        '{"instances": [{"a": [[1,2],[3,4],[5,6]], "b": [1,2]},'
        ' {"a": [[7,8],[9,0]], "b": [1,2]}]}',
        TWO,
        ["element: 1 key: a of 'instances'", "Expecting tensor size: 6 but got: 4"],
    ),
    (
        '{"inputs": {"a": [[[1,2],[3,4],[5,6]]], "b": [[1,2],[3,4]]}}',
        TWO,
        ['Input "b" has batch=2, but input "a" has batch=1; they must be equal'],
    ),
    ('{"instances": [[1,2],[3]]}', takes(x=(F32, (BATCH, 2))), ["Expecting tensor size: 2 but"]),
    ('{"inputs": [[1,2],[3]]}', takes(x=(F32, (BATCH, 2))), ["at unexpected size: 1 at level: 1"]),
    ('{"instances": [1, [2]]}', takes(x=(F32, (BATCH,))), ["Expecting shape [] but got: [1]"]),
    ('{"inputs": [' + "[" * 500 + "1" + "]" * 500 + "]}", takes(x=(F32, (BATCH,))), ["expected"]),
    ('{"instances": [' + "[" * 500 + "1" + "]" * 500 + "]}", ONE, ["expected"]),
]


@pytest.mark.parametrize(("text", "signature", "parts"), FAULTS, ids=lambda v: str(v)[:40])
def test_a_wrong_tensor_is_refused_with_what_was_expected(text, signature, parts):
    with pytest.raises(ServingError) as caught:
        read(text, signature)
    assert caught.value.status is Status.INVALID_ARGUMENT
    for part in parts:
        assert part in caught.value.message
    assert len(caught.value.message) < 1000


@pytest.mark.parametrize(
    ("dtype", "text", "name"),
    [
        (F32, '"1.5"', "float"),
        (F32, "true", "float"),
        (F32, "null", "float"),
        (F64, "false", "double"),
        (I1, "1", "bool"),
        (UI8, "-1", "uint8"),
        (UI8, "256", "uint8"),
        (I64, "9223372036854775808", "int64"),
        (UI64, "18446744073709551616", "uint64"),
        (I32, "NaN", "int32"),
        (I32, "1.0", "int32"),
    ],
)
def test_values_of_another_type_are_refused(dtype, text, name):
    with pytest.raises(ServingError, match=f"is not of expected type: {name}"):
        read(f'{{"instances": [{text}]}}', takes(x=(dtype, (BATCH,))))


def test_complex_inputs_are_not_implemented():
    with pytest.raises(ServingError) as caught:
        read('{"instances": [1]}', takes(x=(C64, (BATCH,))))
    assert caught.value.status is Status.UNIMPLEMENTED


def test_a_signature_without_inputs_is_refused():
    with pytest.raises(ServingError, match="Failed to get input map for signature"):
        read('{"instances": [1]}', takes())


def test_signature_names():
    assert signature_name({}) == "serving_default"
    assert signature_name({"signature_name": ""}) == "serving_default"
    assert signature_name({"signature_name": "other"}) == "other"
    with pytest.raises(ServingError, match="'signature_name' key must be a string value"):
        signature_name({"signature_name": 5})


# -- writing --------------------------------------------------------------------------------------

INTEGERS = np.array([[[1, 2], [3, 4], [5, 6]], [[7, 8], [9, 0], [1, 2]]], np.int32)


@pytest.mark.parametrize(
    ("outputs", "form", "text"),
    [
        ({"a": INTEGERS}, Form.ROW, {"predictions": INTEGERS.tolist()}),
        ({"a": INTEGERS}, Form.COLUMN, {"outputs": INTEGERS.tolist()}),
        ({"a": np.arange(3)}, Form.ROW, {"predictions": [0, 1, 2]}),
        ({"a": np.array(5)}, Form.COLUMN, {"outputs": 5}),
        (
            {"a": np.arange(2), "b": np.array([[True], [False]])},
            Form.ROW,
            {"predictions": [{"a": 0, "b": [True]}, {"a": 1, "b": [False]}]},
        ),
        (
            {"a": np.arange(2), "b": np.float32(2.5).reshape(())},
            Form.COLUMN,
            {"outputs": {"a": [0, 1], "b": 2.5}},
        ),
        ({"a": np.zeros((2, 0, 3))}, Form.COLUMN, {"outputs": [[], []]}),
    ],
)
def test_outputs(outputs, form, text):
    assert json.loads(write_outputs(outputs, form)) == text


def test_float_outputs_keep_a_point_and_bare_nan():
    body = write_outputs({"y": np.array([[1, np.nan], [np.inf, 0.1]], np.float32)}, Form.ROW)
    assert body == b'{"predictions": [[1.0, NaN], [Infinity, 0.1]]}'


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"a": np.array(1.0)}, "Tensor name: a has no shape information"),
        ({"a": np.ones(2), "b": np.ones(3)}, "Tensor name: b has inconsistent batch size: 3"),
        ({"a": np.ones(2, np.complex64)}, "Failed to write JSON value for tensor type: complex64"),
    ],
)
def test_outputs_without_rows_are_refused(outputs, message):
    with pytest.raises(ServingError, match=re.escape(message)):
        write_outputs(outputs, Form.ROW)
