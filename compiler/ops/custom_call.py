"""custom_call: functions of the host by name, in one registry.

A target is a NumPy function run by Python when the program runs. There is no way to name code in a
program: a target that is not in `TARGETS` is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import OpError, UnsupportedError
from .declare import Factors, OpDefinition, op


@dataclass(frozen=True)
class Target:
    """What a custom call runs: `evaluate(operands, attributes, result_types) -> results` in NumPy, or
    `decompose` with the same arguments, which binds ops.

    `check(operand_types, attributes, result_types)` raises `OpError` for a call that does not fit;
    `vjp` and `jvp` are as in `OpDefinition`; one is made of the other. `leading` says that further
    leading dims of all operands and results are dims of independent calls.
    """

    evaluate: Callable[..., Sequence[Any]] | None = None
    decompose: Callable[..., Sequence[Any]] | None = None
    check: Callable[..., None] | None = None
    vjp: Callable[..., Sequence[Any]] | None = None
    jvp: Callable[..., Sequence[Any]] | None = None
    leading: bool = False


TARGETS: dict[str, Target] = {}
"""Name -> target; families add theirs with `register`."""


def register(name: str, evaluate: Callable[..., Sequence[Any]] | None, **rules: Any) -> None:
    """Add a target. Raises `ValueError` for a name that is taken."""
    if name in TARGETS:
        raise ValueError(f"the custom call {name} is registered twice")
    TARGETS[name] = Target(evaluate, **rules)


def target(name: str) -> Target:
    """The target `name`; `UnsupportedError` names those there are."""
    if name not in TARGETS:
        raise UnsupportedError(f"the custom call @{name} is not known to tfn; known are"
                               f" {', '.join(sorted(TARGETS))}")
    return TARGETS[name]


@op("stablehlo.custom_call")
class CustomCall(OpDefinition):
    """Call the registered host function `call_target_name`."""

    host = True
    attributes = {"call_target_name": "string", "has_side_effect": "bool",
                  "backend_config": "opaque", "api_version": "i32",
                  "called_computations": "opaque", "operand_layouts": "opaque",
                  "result_layouts": "opaque", "output_operand_aliases": "opaque",
                  "mhlo.backend_config": "opaque",
                  "types": "result_types"}
    optional = frozenset(attributes) - {"call_target_name", "types"}

    def infer(operands, attributes, regions):
        known = TARGETS.get(attributes["call_target_name"])
        types = list(attributes["types"])
        if known is not None and known.check is not None:
            known.check(operands, attributes, types)
        return types

    def expands(op):
        known = TARGETS.get(op.attributes["call_target_name"])
        return known is not None and known.decompose is not None

    def decompose(operands, attributes, regions):
        rule = target(attributes["call_target_name"]).decompose
        assert rule is not None
        return rule(operands, attributes, attributes["types"])

    def evaluate(operands, attributes, regions, result_types):
        known = target(attributes["call_target_name"])
        if known.evaluate is not None:
            return known.evaluate(operands, attributes, result_types)
        from ..trace.core import Array, eager

        with eager():
            results = CustomCall.decompose([Array(o) for o in operands], attributes, regions)
            return [r.numpy() for r in results]

    def vjp(cotangents, op, operands, results):
        known = target(op.attributes["call_target_name"])
        if known.decompose is not None:
            from ..numpy import zeros_like
            from ..trace.grad import vjp

            _, pull = vjp(lambda *o: tuple(CustomCall.decompose(o, op.attributes, ())), *operands)
            return list(pull(tuple(zeros_like(r) if ct is None else ct
                                   for ct, r in zip(cotangents, results, strict=True))))
        rule = known.vjp
        if known.jvp is not None:
            from .functional import transposed_jvp

            return transposed_jvp(known.jvp, cotangents, op, operands, results)
        if rule is None:
            raise UnsupportedError(
                f"the custom call @{op.attributes['call_target_name']} has no derivative",
                op.location)
        return rule(cotangents, op, operands, results)

    def jvp(tangents, op, operands, results):
        from ..trace.forward import transposed

        rule = target(op.attributes["call_target_name"]).jvp
        if rule is None:
            return transposed(op, operands, tangents, results)
        return rule(tangents, op, operands, results)

    def batch(op, operands, batched, batch):
        known = target(op.attributes["call_target_name"])
        if known.decompose is not None:
            return batch.expand(op, operands, batched)
        if not known.leading:
            return batch.each(op, operands, batched)
        types = tuple(t.with_shape((batch.size, *t.shape)) for t in op.attributes["types"])
        return batch.bind(op, *batch.spread_all(operands, batched), types=types)

    def factors(op):
        return Factors([(None,) * len(v.shape) for v in op.operands],
                       [(None,) * len(v.shape) for v in op.results])


def same_types(operands, attributes, result_types) -> None:
    """A check that all operands have one type."""
    if len(set(operands)) > 1:
        raise OpError(f"@{attributes['call_target_name']} needs operands of one type, got"
                      f" {' and '.join(map(str, operands))}")
