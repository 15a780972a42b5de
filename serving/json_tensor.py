"""Tensors in the JSON of TF Serving's predict API (json_tensor.cc): row and column format.

`read_inputs` turns a parsed request into NumPy arrays for a signature, `write_outputs` turns
results into the body of the response. A well-formed tensor takes the short path: flatten the lists
level by level, look at the set of element types once, convert. Only when that fails are the values
walked one by one, to say which of them is wrong.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from enum import Enum
from itertools import chain
from typing import Any, NoReturn

import numpy as np

from ..compiler.ir.dims import Dim, Extent
from ..compiler.ir.dtypes import BF16, DType
from ..export.bundle import Signature, TensorSpec
from .element_types import type_name
from .errors import ServingError, Status, invalid
from .json_text import decimals, excerpt, kind


class Form(Enum):
    """How a request lays out tensors; the value is the key of the answer."""

    ROW = "predictions"
    COLUMN = "outputs"


def signature_name(document: Mapping[str, Any], default: str = "serving_default") -> str:
    """The signature a request asks for; absent or empty means the default."""
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {excerpt(document)} not formatted correctly. 'signature_name' key must"
            " be a string value."
        )
    return name or default


def read_inputs(
    document: Mapping[str, Any], signature: Signature, only_numbers: bool = False
) -> tuple[Form, dict[str, np.ndarray]]:
    """The input arrays in a request, one per input of `signature`, and the request's form.

    `only_numbers` promises that the lists in the document hold numbers only (`json_text` finds out
    from the text), which saves the look at each of them when floats are wanted.

    Raises `ServingError` (400), in TF Serving's words where it has any, for: both or neither of
    `instances` and `inputs`, ragged lists, values of another type, names the signature does not
    have, and shapes it does not accept.
    """
    row, column = "instances" in document, "inputs" in document
    if row and column:
        raise invalid(
            f"JSON Value: {excerpt(document)} Not formatted correctly expecting only one of"
            " 'inputs' or 'instances' keys to exist"
        )
    if not row and not column:
        raise invalid("Missing 'inputs' or 'instances' key")
    if not signature.inputs:
        raise invalid(f"Failed to get input map for signature: {signature.name}")
    if row:
        arrays = _read_rows(document, signature, only_numbers)
    else:
        arrays = _read_columns(document["inputs"], signature, only_numbers)
    _check_shapes(arrays, signature)
    return (Form.ROW if row else Form.COLUMN), arrays


# -- row format -----------------------------------------------------------------------------------


def _read_rows(
    document: Mapping[str, Any], signature: Signature, only_numbers: bool
) -> dict[str, np.ndarray]:
    """`instances`: a list of values, or of objects with one value per input."""
    rows = document["instances"]
    if not isinstance(rows, list):
        raise invalid(f"JSON Value: {excerpt(document)} Expecting 'instances' to be an list/array")
    if not rows:
        raise invalid(f"JSON Value: {excerpt(document)} No values in 'instances' array")
    if not isinstance(rows[0], dict) and len(signature.inputs) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors"
            f" required as per tensorinfo_map: {_names(signature)}"
        )
    if _is_object(rows[0]):
        columns = _columns_of_objects(rows, signature)
    else:
        for place, row in enumerate(rows):
            if _is_object(row):
                raise invalid(
                    f"Expecting value/list but got object at item {place} of input list"
                )
        columns = {signature.inputs[0].name: rows}
    arrays = {}
    for spec in signature.inputs:
        array = _dense(columns[spec.name], spec.dtype, only_numbers)
        arrays[spec.name] = array if array is not None else _refuse_rows(columns, signature)
    return arrays


def _columns_of_objects(rows: list[Any], signature: Signature) -> dict[str, list[Any]]:
    names = {spec.name for spec in signature.inputs}
    for place, row in enumerate(rows):
        if not _is_object(row):
            raise invalid(f"Expecting object but got list at item {place} of input list")
        if row.keys() == names:
            continue
        unknown = next((name for name in row if name not in names), None)
        if unknown is not None:
            raise invalid(
                f"Failed to process element: {place} key: {unknown} of 'instances' list. Error:"
                f" INVALID_ARGUMENT: JSON object: does not have named input: {unknown}; this"
                f" signature takes {_names(signature)}"
            )
        raise invalid(
            f"Failed to process element: {place} of 'instances' list. JSON object:"
            f" {excerpt(row)} keys must be equal to: {','.join(sorted(names))}"
        )
    return {name: [row[name] for row in rows] for name in names}


def _refuse_rows(columns: Mapping[str, list[Any]], signature: Signature) -> NoReturn:
    """Find the element that is wrong and raise TF Serving's error about it."""
    named = len(signature.inputs) > 1
    for spec in signature.inputs:
        first: tuple[int, list[int]] | None = None
        for place, value in enumerate(columns[spec.name]):
            try:
                shape = _shape_by_first(value)
                size = _count(value, 0, shape, spec.dtype)
                first = first or (size, shape)
                if size != first[0]:
                    raise invalid(f"Expecting tensor size: {first[0]} but got: {size}")
                if shape != first[1]:
                    raise invalid(f"Expecting shape {_list(first[1])} but got: {_list(shape)}")
            except ServingError as error:
                key = f" key: {spec.name}" if named else ""
                raise invalid(
                    f"Failed to process element: {place}{key} of 'instances' list. Error:"
                    f" INVALID_ARGUMENT: {error.message}. {_expectation(spec, signature)}"
                ) from None
    raise ServingError(Status.INTERNAL, "the instances could not be converted to arrays")


# -- column format --------------------------------------------------------------------------------


def _read_columns(
    value: Any, signature: Signature, only_numbers: bool
) -> dict[str, np.ndarray]:
    """`inputs`: one value, or an object with one value per input (others are ignored)."""
    if _is_object(value):
        for spec in signature.inputs:
            if spec.name not in value:
                raise invalid(
                    f"Missing named input: {spec.name} in 'inputs' object. It takes"
                    f" {_names(signature)}"
                )
        columns = value
    elif len(signature.inputs) > 1:
        raise invalid(
            "inputs is a plain value/list, but expecting an object as multiple input tensors"
            f" required as per tensorinfo_map: {_names(signature)}"
        )
    else:
        columns = {signature.inputs[0].name: value}
    arrays = {}
    for spec in signature.inputs:
        array = _dense(columns[spec.name], spec.dtype, only_numbers)
        if array is None:
            _refuse_column(columns[spec.name], spec, signature)
        arrays[spec.name] = array
    return arrays


def _refuse_column(value: Any, spec: TensorSpec, signature: Signature) -> NoReturn:
    try:
        _count(value, 0, _shape_by_first(value), spec.dtype)
    except ServingError as error:
        raise invalid(f"{error.message}. {_expectation(spec, signature)}") from None
    raise ServingError(Status.INTERNAL, f"{spec.name} could not be converted to an array")


# -- values to arrays -----------------------------------------------------------------------------

_MAX_RANK = 32
"""More levels of lists than any tensor has dimensions here."""

_ELEMENTS = {
    "bool": frozenset({bool}),
    "int": frozenset({int}),
    "uint": frozenset({int}),
    "float": frozenset({int, float}),
}
"""Which parsed JSON values an element type takes. TF Serving takes no bool for a number, either."""


def _dense(value: Any, dtype: DType, only_numbers: bool) -> np.ndarray | None:
    """Nested lists of one element type as an array; None when they are not that."""
    accepted = _ELEMENTS.get(dtype.kind)
    if accepted is None:
        raise ServingError(
            Status.UNIMPLEMENTED, f"Conversion of JSON values to type: {type_name(dtype)}"
        )
    if only_numbers and dtype.is_float:
        return _converted(value, dtype)
    shape: list[int] = []
    flat = [value]
    while flat and type(flat[0]) is list:
        if set(map(type, flat)) != {list} or len(shape) > _MAX_RANK:
            return None
        lengths = set(map(len, flat))
        if len(lengths) != 1:
            return None
        shape.append(lengths.pop())
        flat = list(chain.from_iterable(flat))
    if not accepted.issuperset(map(type, flat)):
        return None
    array = _converted(flat, dtype)
    return None if array is None else array.reshape(shape)


def _converted(values: Any, dtype: DType) -> np.ndarray | None:
    """Lists of numbers or bools as an array; None when they are ragged or out of range."""
    # NumPy makes float32 an infinity of a double beyond it and zero of a tiny one, as TF Serving.
    target = np.float32 if dtype is BF16 else dtype.numpy
    try:
        with np.errstate(all="ignore"):
            array = np.array(values, target)
    except (OverflowError, ValueError):
        return None
    return array.astype(dtype.numpy, copy=False)


def _shape_by_first(value: Any) -> list[int]:
    """The shape a value would have if all its lists were as long as the first ones."""
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        if not value or len(shape) > _MAX_RANK:
            break
        value = value[0]
    return shape


def _count(value: Any, level: int, shape: list[int], dtype: DType) -> int:
    """The number of elements of a value of this shape and type; raises at the first other one."""
    if isinstance(value, list):
        if level >= len(shape) or level >= _MAX_RANK:
            raise invalid(
                f"Encountered list at unexpected level: {level} expected < {len(shape)}"
            )
        if len(value) != shape[level]:
            raise invalid(
                f"Encountered list at unexpected size: {len(value)} at level: {level} expected"
                f" size: {shape[level]}"
            )
        return sum(_count(v, level + 1, shape, dtype) for v in value)
    if level != len(shape):
        raise invalid(
            f"JSON Value: {excerpt(value)} found at incorrect level: {level + 1} in the JSON DOM."
            f" Expected at level: {len(shape)}"
        )
    if type(value) not in _ELEMENTS[dtype.kind] or not _in_range(value, dtype):
        raise invalid(
            f"JSON Value: {excerpt(value)} Type: {kind(value)} is not of expected type:"
            f" {type_name(dtype)}"
        )
    return 1


def _in_range(value: float, dtype: DType) -> bool:
    if not dtype.is_integer:
        return True
    limits = np.iinfo(dtype.numpy)
    return bool(limits.min <= value <= limits.max)


def _is_object(value: Any) -> bool:
    """Whether a value is an object of named tensors; `{"b64": text}` is one string of bytes."""
    return isinstance(value, dict) and not (
        value.keys() == {"b64"} and isinstance(value["b64"], str)
    )


# -- shapes ---------------------------------------------------------------------------------------


def _check_shapes(arrays: Mapping[str, np.ndarray], signature: Signature) -> None:
    """Refuse arrays that do not fit the signature; a named dim is the same size everywhere."""
    sizes: dict[str, tuple[int, str]] = {}
    for spec in signature.inputs:
        shape = arrays[spec.name].shape
        if len(shape) != len(spec.shape) or not all(
            actual > 0 if isinstance(expected, Dim) else expected == actual
            for expected, actual in zip(spec.shape, shape, strict=True)
        ):
            raise invalid(
                f"Input \"{spec.name}\" has shape {_list(shape)}. {_expectation(spec, signature)}"
            )
        for expected, actual in zip(spec.shape, shape, strict=True):
            name = str(expected)
            if not isinstance(expected, Dim):
                continue
            size, other = sizes.setdefault(name, (actual, spec.name))
            if size != actual:
                raise invalid(
                    f"Input \"{spec.name}\" has {name}={actual}, but input \"{other}\" has"
                    f" {name}={size}; they must be equal"
                )


def _expectation(spec: TensorSpec, signature: Signature) -> str:
    return (
        f"Input \"{spec.name}\" of signature \"{signature.name}\" takes {type_name(spec.dtype)}"
        f" {_list(spec.shape)}"
    )


def _list(extents: list[int] | tuple[Extent, ...]) -> str:
    return "[" + ",".join(map(str, extents)) + "]"


def _names(signature: Signature) -> str:
    return ",".join(spec.name for spec in signature.inputs)


# -- responses ------------------------------------------------------------------------------------


def write_outputs(outputs: Mapping[str, np.ndarray], form: Form) -> bytes:
    """The response body for named outputs; the name is left out when there is only one.

    Raises `ServingError` (400) when rows are asked for and an output has none, or the outputs have
    different numbers of rows.
    """
    if form is Form.COLUMN:
        texts = {name: _nested(array)[0] for name, array in outputs.items()}
        content = next(iter(texts.values())) if len(texts) == 1 else _object(texts)
    else:
        count = _row_count(outputs)
        columns = {name: _nested(array, outer=1) for name, array in outputs.items()}
        if len(columns) == 1:
            rows = next(iter(columns.values()))
        else:
            rows = [_object({n: c[i] for n, c in columns.items()}) for i in range(count)]
        content = "[" + ", ".join(rows) + "]"
    return f'{{"{form.value}": {content}}}'.encode()


def _row_count(outputs: Mapping[str, np.ndarray]) -> int:
    count = -1
    for name, array in outputs.items():
        if not array.ndim:
            raise invalid(
                f"Tensor name: {name} has no shape information; ask with 'inputs' instead of"
                " 'instances'"
            )
        if count not in (-1, len(array)):
            raise invalid(
                f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting:"
                f" {count}; ask with 'inputs' instead of 'instances'"
            )
        count = len(array)
    return count


def _object(members: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{json.dumps(name)}: {text}" for name, text in members.items()) + "}"


def _nested(array: np.ndarray, outer: int = 0) -> list[str]:
    """JSON text of each sub-array below the first `outer` dimensions."""
    write = _WRITERS.get(array.dtype.kind, decimals)
    if array.dtype.kind == "c":
        raise invalid(f"Failed to write JSON value for tensor type: {array.dtype}")
    texts = write(array.ravel())
    for axis in range(array.ndim - 1, outer - 1, -1):
        length, count = array.shape[axis], math.prod(array.shape[:axis])
        texts = [
            "[" + ", ".join(texts[i * length : (i + 1) * length]) + "]" for i in range(count)
        ]
    return texts


# By NumPy's kind letter; what is not here is a float (bfloat16's kind is `V`).
_WRITERS = {
    "b": lambda values: ["true" if value else "false" for value in values.tolist()],
    "i": lambda values: [str(value) for value in values.tolist()],
    "u": lambda values: [str(value) for value in values.tolist()],
}
