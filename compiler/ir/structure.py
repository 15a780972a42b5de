"""How many operands and which regions an op must have: what `infer` rules may rely on.

Text can give an op anything. The verifier asks here before it infers types, so that a rule unpacks its
operands and runs its regions without looking.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..errors import OpError
from .core import Block, Op, TensorType
from .dtypes import I1, I32

Types = list[TensorType]
Signature = tuple[Types | None, Types | None]
"""Types of a region's arguments and of what it returns; None: anything."""

OPERANDS: dict[str, int] = {
    **dict.fromkeys(("constant", "iota", "create_token", "replica_id", "partition_id"), 0),
    **dict.fromkeys(("broadcast_in_dim", "reshape", "transpose", "slice", "reverse", "if", "case",
                     "get_dimension_size", "cholesky", "fft", "rng_bit_generator", "convert",
                     "bitcast_convert", "reduce_precision", "uniform_quantize", "uniform_dequantize",
                     "collective_permute", "infeed", "recv", "real", "imag", "async_done"), 1),
    **dict.fromkeys(("dot_general", "convolution", "gather", "pad", "triangular_solve", "compare",
                     "complex"), 2),
    **dict.fromkeys(("select", "clamp", "select_and_scatter", "rng", "batch_norm_training"), 3),
    **dict.fromkeys(("batch_norm_inference", "batch_norm_grad"), 5),
}
AT_LEAST: dict[str, int] = {
    "concatenate": 1, "sort": 1, "map": 1, "dynamic_slice": 1, "dynamic_update_slice": 2, "reduce": 2,
    "reduce_window": 2, "scatter": 3, "send": 1, "outfeed": 1, "all_reduce": 1, "reduce_scatter": 1,
    "all_gather": 1, "all_to_all": 1, "collective_broadcast": 1}
IN_PAIRS = frozenset({"reduce", "reduce_window"})
"""As many initial values as inputs."""


def _scalars(types: Sequence[TensorType]) -> Types:
    return [TensorType((), t.dtype) for t in types]


_FLAG = TensorType((), I1)


def _reducer(types: Types) -> list[Signature]:
    half = _scalars(types[: len(types) // 2])
    return [([*half, *half], half)]


def _scatter(types: Types) -> list[Signature]:
    inputs = _scalars(types[: (len(types) - 1) // 2])
    return [([*inputs, *inputs], inputs)]


def _select_and_scatter(types: Types) -> list[Signature]:
    scalar = _scalars(types[:1])
    return [(scalar * 2, [_FLAG]), (scalar * 2, scalar)]


def _sort(types: Types) -> list[Signature]:
    return [([t for s in _scalars(types) for t in (s, s)], [_FLAG])]


REGIONS: dict[str, Callable[[Types], list[Signature]]] = {
    "reduce": _reducer, "reduce_window": _reducer, "scatter": _scatter,
    "select_and_scatter": _select_and_scatter, "sort": _sort,
    "map": lambda types: [(_scalars(types), None)],
    "while": lambda types: [(types, [_FLAG]), (types, types)],
    "if": lambda types: [([], None), ([], None)],
    "all_reduce": lambda types: [(_scalars(types[:1]) * 2, _scalars(types[:1]))],
    "reduce_scatter": lambda types: [(_scalars(types[:1]) * 2, _scalars(types[:1]))],
}
CHOICES: dict[str, TensorType] = {"if": _FLAG, "case": TensorType((), I32)}
"""The type of the operand that chooses a branch."""


def check_structure(op: Op) -> None:
    """Raise `OpError` where an op has not the operands and regions that its definition takes."""
    dialect, _, short = op.name.partition(".")
    count = len(op.operands)
    arity = getattr(op.definition, "arity", None)
    if dialect == "stablehlo":
        arity = OPERANDS.get(short, arity)
        least = AT_LEAST.get(short, 0)
        if count < least:
            raise OpError(f"{op.name} takes at least {least} operands, got {count}", op.location)
        if short in IN_PAIRS and count % 2:
            raise OpError(f"{op.name} takes an initial value for each input, got {count} operands",
                          op.location)
    if arity is not None and count != arity:
        raise OpError(f"{op.name} takes {arity} operands, got {count}", op.location)
    _check_regions(op, short if dialect == "stablehlo" else "")


def _check_regions(op: Op, short: str) -> None:
    expected, found = len(op.definition.regions), len(op.regions)
    if short == "case":
        expected = max(found, 1)
    if found != expected:
        wanted = ", ".join(op.definition.regions) or "none"
        raise OpError(f"{op.name} has {expected} regions ({wanted}), got {found}", op.location)
    types = [v.type for v in op.operands]
    if short in CHOICES and types[0] != CHOICES[short]:
        raise OpError(f"{op.name} chooses by a {CHOICES[short]}, got {types[0]}", op.location)
    if short == "case":
        signatures: list[Signature] = [([], None)] * found
    else:
        signatures = REGIONS[short](types) if short in REGIONS else []
    names = op.definition.regions * found
    for name, region, signature in zip(names, op.regions, signatures, strict=False):
        _check_region(op, name, region, signature)


def _check_region(op: Op, name: str, region: Block, signature: Signature) -> None:
    for what, values, expected in (("takes", region.arguments, signature[0]),
                                   ("returns", region.returns, signature[1])):
        got = [v.type for v in values]
        if expected is not None and not _agree(got, expected):
            raise OpError(f"the region `{name}` of {op.name} {what} {_list(got)}; it needs"
                          f" {_list(expected)}", op.location)


def _agree(got: Types, expected: Types) -> bool:
    """Equal but for extents that are not known."""
    return len(got) == len(expected) and all(
        a == b or (a.dtype is b.dtype and a.rank == b.rank and not (a.is_static and b.is_static))
        for a, b in zip(got, expected, strict=True))


def _list(types: Types) -> str:
    return ", ".join(map(str, types)) or "nothing"
