"""StableHLO's dynamic ops: those that take a shape, bounds or padding as operands.

They exist in text only. In memory tfn has one form of each op, with symbolic dims in its
attributes; `ir/dynamic.py` converts at the border. So these ops are declared for the parser, the
printer and the verifier, and have no other rule.
"""

from __future__ import annotations

from dataclasses import dataclass

from .declare import REGISTRY, OpDefinition, op, require


@dataclass(frozen=True)
class DynamicForm:
    """A static op and its attributes that are trailing operands in the dynamic form."""

    static: str
    moved: tuple[str, ...]
    extra: tuple[str, ...] = ()
    """Further attributes of the dynamic form: hints without a meaning of their own."""


DYNAMIC_FORMS: dict[str, DynamicForm] = {
    "stablehlo.dynamic_broadcast_in_dim": DynamicForm(
        "stablehlo.broadcast_in_dim", ("shape",),
        ("known_expanding_dimensions", "known_nonexpanding_dimensions")),
    "stablehlo.dynamic_conv": DynamicForm("stablehlo.convolution", ("padding",)),
    "stablehlo.dynamic_gather": DynamicForm("stablehlo.gather", ("slice_sizes",)),
    "stablehlo.dynamic_iota": DynamicForm("stablehlo.iota", ("type",)),
    "stablehlo.dynamic_pad": DynamicForm(
        "stablehlo.pad", ("edge_padding_low", "edge_padding_high", "interior_padding")),
    "stablehlo.dynamic_reshape": DynamicForm("stablehlo.reshape", ("shape",)),
    "stablehlo.real_dynamic_slice": DynamicForm(
        "stablehlo.slice", ("start_indices", "limit_indices", "strides")),
}

_OPERANDS = {"stablehlo.iota": 0, "stablehlo.broadcast_in_dim": 1, "stablehlo.reshape": 1,
             "stablehlo.slice": 1, "stablehlo.pad": 2, "stablehlo.gather": 2,
             "stablehlo.convolution": 2}
"""How many operands the static form has."""


class _Dynamic(OpDefinition):
    """An op whose result shape depends on the values of its last operands."""

    form: DynamicForm

    @classmethod
    def infer(cls, operands, attributes, regions):
        count = _OPERANDS[cls.form.static] + len(cls.form.moved)
        require(len(operands) == count, "I1",
                f"{cls.name} takes {count} operands, got {len(operands)}")
        for shape in operands[_OPERANDS[cls.form.static]:]:
            require(shape.dtype.is_integer and shape.rank in (1, 2), "I2",
                    f"{cls.name} needs integer vectors for its shape operands, got {shape}")
        return [attributes["type"]]


def _declare(name: str, form: DynamicForm) -> None:
    static = REGISTRY[form.static]
    kinds = {k: v for k, v in static.attributes.items()
             if k not in form.moved and v != "result_dtype"}
    kinds.update(dict.fromkeys(form.extra, "i64_array"), type="result_type")
    body = {"attributes": kinds, "optional": frozenset(static.optional) | set(form.extra),
            "form": form, "__doc__": f"`{form.static}` with {', '.join(form.moved)} as operands."}
    op(name)(type(name.partition(".")[2].title().replace("_", ""), (_Dynamic,), body))


def _declare_all() -> None:
    from . import contraction, indexing, shape  # noqa: F401  The static forms come first.

    for name, form in DYNAMIC_FORMS.items():
        _declare(name, form)


_declare_all()
