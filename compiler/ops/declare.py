"""How an op is declared: one class per op, every rule of it in one place.

    @op("stablehlo.exponential")
    class Exponential(Unary):
        accepts = FLOAT | COMPLEX
        evaluate = elementwise(np.exp)
        ...

`@op` registers the class under its name. The class is never instantiated; its rules are static
methods or plain functions. What a rule is given and returns is written at `OpDefinition`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import OpError, UnsupportedError
from ..ir.core import Op, TensorType
from ..ir.dtypes import ALL, DType

if TYPE_CHECKING:
    import numpy as np

BOOL = frozenset(d for d in ALL if d.kind == "bool")
INT = frozenset(d for d in ALL if d.kind == "int")
UINT = frozenset(d for d in ALL if d.kind == "uint")
INTEGER = INT | UINT
FLOAT = frozenset(d for d in ALL if d.kind == "float")
COMPLEX = frozenset(d for d in ALL if d.kind == "complex")
NUMBER = INTEGER | FLOAT | COMPLEX
ANY = NUMBER | BOOL


class OpDefinition:
    """Base of every op. Rules:

    - `infer(operands, attributes, regions) -> list[TensorType]`: result types from operand types;
      raises `OpError` that cites the spec's constraint (`C3`).
    - `evaluate(operands, attributes, regions, result_types) -> list[np.ndarray]`: the meaning, with
      NumPy. Regions are `Block`s; `ir.evaluator.run_block` runs one.
    - `decompose(operands, attributes, regions) -> list`: the results by binding other ops. An op with
      it needs no other rule but `infer`: it is evaluated, differentiated, batched and compiled as
      its body (`ops.control.body_of`).
    - `vjp(cotangents, op, operands, results) -> list`: cotangents of the operands (None where there
      is none). All values may be traced; write it with `compiler.numpy` / `ops.bind`. `cotangents`
      has one entry per result, None for a result nothing depends on.
    - `jvp(tangents, op, operands, results) -> list`: tangents of the results, None for zero. Most ops
      need none: see `trace.forward`.
    - `batch(op, operands, batched, batch) -> list`: the results for many examples at once. Operands
      that differ between the examples (`batched[i]`) have a leading dim for them, and so have the
      results, except one that is `Shared`. `batch` (`trace.batch.Batch`) knows the number of examples;
      its `regions(op)` are the op's regions with what they refer to.
    - `factors(op) -> Factors`: which dims of operands and results move together (see `Factors`).
    - how the code generator makes it, one of: `scalar(emit, dtype, *registers)`, one element from
      the elements at the same index; `element(emit, op, index)`, one element from any; `contraction`,
      a loop nest of products; `kernel(emit, op)`, a whole kernel (`codegen/emitter.py`).

    A rule an op does not have is None, and asking for it raises `UnsupportedError` with the name.
    """

    name: str = ""
    spec: str = ""
    """Anchor in the StableHLO specification, "" for ops of other dialects."""
    attributes: dict[str, str] = {}
    """Attribute name -> kind, in print order; the kinds are `ir.attributes.KINDS`."""
    optional: frozenset[str] = frozenset()
    """Attributes that may be absent."""
    regions: tuple[str, ...] = ()
    """Names of the regions in order."""
    pointwise = False
    """Each result element is a cheap function of a bounded number of operand elements."""
    has_effect = False
    """Must be kept and kept in order (collectives, outfeed)."""
    folds = False
    """On a constant, however large the result is: it is computed once and not in every run."""
    host = False
    """Compiled programs call back into Python, which runs `evaluate`."""

    infer: Callable[..., list[TensorType]]
    evaluate: Callable[..., Sequence[np.ndarray]] | None = None
    decompose: Callable[..., Sequence[Any]] | None = None
    expands: Callable[[Op], bool] = staticmethod(lambda op: True)
    """Does this op need its decomposition?"""
    vjp: Callable[..., Sequence[Any]] | None = None
    jvp: Callable[..., Sequence[Any]] | None = None
    batch: Callable[..., Sequence[Any]] | None = None
    batches_regions = False
    """The rule `batch` replays the regions itself, so they may refer to batched values."""
    factors: Callable[[Op], Factors] | None = None
    element: Callable[..., Any] | None = None
    contraction: Callable[..., Any] | None = None
    kernel: Callable[..., Any] | None = None
    scalar: Callable[..., str] | None = None

    @classmethod
    def rule(cls, name: str):
        """The rule called `name`; raises `UnsupportedError` when the op has none."""
        found = getattr(cls, name, None)
        if found is None:
            raise UnsupportedError(f"{cls.name} has no rule `{name}`: not supported yet")
        return found


@dataclass(frozen=True)
class Shared:
    """A result of a `batch` rule that is the same for all examples and has no dim for them."""

    value: Any


class Factors:
    """How an op's dims relate, for sharding and for naming the runtime extents of a kernel.

    `operands[i][d]` and `results[j][d]` are factor numbers (or None: a dim that moves with no
    other). A factor that appears in results is a batch-like factor: sharding it shards the op. A
    factor listed in `reduction` is summed over (`"add"`), maximised, ... : sharding it leaves each
    shard with a partial result that an all-reduce of that kind completes. That is only right when the
    operands listed in `initial` (a reduce's initial value, what a scatter adds to) hold the identity
    of the reduction, or every shard would count them.
    """

    __slots__ = ("operands", "results", "reduction", "initial")

    def __init__(
        self,
        operands: Sequence[Sequence[int | None]],
        results: Sequence[Sequence[int | None]],
        reduction: dict[int, str] | None = None,
        initial: Sequence[int] = (),
    ):
        self.operands = [tuple(o) for o in operands]
        self.results = [tuple(r) for r in results]
        self.reduction = dict(reduction or {})
        self.initial = tuple(initial)


REGISTRY: dict[str, type[OpDefinition]] = {}


def op(name: str, spec: str | None = None):
    """Class decorator: declare the op `name` (dialect included)."""

    def register(cls: type[OpDefinition]) -> type[OpDefinition]:
        if name in REGISTRY:
            raise ValueError(f"{name} is declared twice")
        cls.name = name
        dialect, _, short = name.partition(".")
        cls.spec = spec if spec is not None else (short if dialect == "stablehlo" else "")
        for rule in ("infer", "evaluate", "decompose", "expands", "vjp", "jvp", "batch", "factors",
                     "element", "contraction", "kernel"):
            function = cls.__dict__.get(rule)
            if callable(function) and not isinstance(function, (staticmethod, classmethod)):
                setattr(cls, rule, staticmethod(function))
        if cls.decompose is not None and cls.evaluate is None:
            cls.evaluate = staticmethod(_by_decomposition(cls))
        REGISTRY[name] = cls
        return cls

    return register


def _by_decomposition(cls: type[OpDefinition]):
    """The `evaluate` rule of an op that is defined by others."""

    def evaluate(operands, attributes, regions, result_types):
        from .. import numpy  # noqa: F401  (defines the operators that rules use)
        from ..trace.core import Array, eager

        with eager():
            results = cls.rule("decompose")([Array(o) for o in operands], attributes, regions)
            return [r.numpy() for r in results]

    return evaluate


def definition(name: str) -> type[OpDefinition]:
    """The declared op `name`; `UnsupportedError` when tfn does not have it."""
    try:
        return REGISTRY[name]
    except KeyError:
        raise UnsupportedError(f"the op `{name}` is not supported by this version of tfn") from None


def require(condition: bool, constraint: str, message: str) -> None:
    """Raise `OpError` citing the spec's `constraint` unless `condition` holds."""
    if not condition:
        raise OpError(f"{message} ({constraint})")


def check_dtype(name: str, dtype: DType, accepts: frozenset[DType]) -> None:
    if dtype not in accepts:
        names = ", ".join(sorted(d.name for d in accepts))
        raise OpError(f"{name} does not accept {dtype} (it accepts {names})")
