"""The predict calls in the OpenAPI schema: FastAPI does not see them, clients' tools should."""

from __future__ import annotations

from typing import Any

_PLACES = {
    "/v1/models/{model}:predict": ("the version that is served", ()),
    "/v1/models/{model}/versions/{version}:predict": ("one version", ("version",)),
}

_TENSOR = {"description": "A value or nested lists: one level per dimension of the tensor"}

_REQUEST = {
    "type": "object",
    "properties": {
        "signature_name": {"type": "string", "default": "serving_default"},
        "instances": {
            "type": "array",
            "minItems": 1,
            "items": _TENSOR,
            "description": "Row format: one item per example; objects when there are several"
            " inputs. Either this or `inputs`.",
        },
        "inputs": {
            "description": "Column format: the whole tensor, or an object of tensors by name.",
        },
    },
}

_ANSWER = {
    "type": "object",
    "properties": {
        "predictions": {"type": "array", "items": _TENSOR, "description": "For `instances`"},
        "outputs": {"description": "For `inputs`"},
    },
}

ERROR: dict[str, Any] = {
    "description": "What is wrong",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["error"],
                "properties": {"error": {"type": "string"}},
            }
        }
    },
}
"""The response of everything that fails."""


def add_predict(schema: dict[str, Any]) -> dict[str, Any]:
    """`schema` with the predict calls."""
    for path, (which, parameters) in _PLACES.items():
        schema["paths"].setdefault(path, {"post": _operation(which, ("model", *parameters))})
    return schema


def _operation(which: str, parameters: tuple[str, ...]) -> dict[str, Any]:
    types = {"model": {"type": "string"}, "version": {"type": "integer", "minimum": 0}}
    return {
        "summary": "Predict",
        "description": f"Runs {which} on tensors, in TensorFlow Serving's format.",
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": types[name]}
            for name in parameters
        ],
        "requestBody": {
            "required": True, "content": {"application/json": {"schema": _REQUEST}}
        },
        "responses": {
            "200": {
                "description": "The outputs",
                "content": {"application/json": {"schema": _ANSWER}},
            },
            "4XX": ERROR,
            "5XX": ERROR,
        },
    }
