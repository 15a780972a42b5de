"""Ops of the chlo dialect that are defined by StableHLO's: special functions, top-k, scan, ragged dot.

Elementary functions of the dialect are in `chlo_trig.py`, those on bit patterns in `bits.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np

from ..errors import OpError, UnsupportedError
from ..ir.core import Block, Function, TensorType
from ..ir.dtypes import F32, I1, I32, as_dtype
from ..ir.structs import DotDimensionNumbers
from ..trace.core import bind, iota_beside, replay, trace, trace_region
from .declare import COMPLEX, FLOAT, Factors, OpDefinition, op, require
from .elementwise import Elementwise, full_like, identity_factors


class _Special(Elementwise):
    """A function of `compiler.numpy`, element by element."""

    accepts = FLOAT
    evaluate = None
    functions = ""
    """Module and name in `compiler.numpy`."""

    @classmethod
    def decompose(cls, operands, attributes, regions):
        dtype = as_dtype(operands[0].dtype)
        if not dtype.is_narrow:
            return [_numpy(cls.functions)(*operands)]
        # The coefficients of a series need more digits than a narrow type has.
        wide = [bind("stablehlo.convert", x, dtype=F32) for x in operands]
        result = _numpy(cls.functions)(*wide)
        return [result if as_dtype(result.dtype) is I1 else bind(
            "stablehlo.convert", result, dtype=dtype)]


def _numpy(functions: str):
    """A function of `compiler.numpy`, given as module and name."""
    from importlib import import_module

    module, _, name = functions.partition(".")
    return getattr(import_module(f"..numpy.{module}", __package__), name)


def _special(name: str, functions: str, doc: str, slope=None, arity: int = 1) -> None:
    """Declare a function; `slope(result, *operands)` is its derivative by the last operand."""
    body: dict = {"functions": functions, "arity": arity, "__doc__": doc}
    if slope is not None:
        def vjp(cotangents, op, operands, results):
            return [*[None] * (arity - 1), cotangents[0] * slope(results[0], *operands)]

        body["vjp"] = vjp
    op(name)(type(name.partition(".")[2].title().replace("_", ""), (_Special,), body))


def _bell(factor: float, power: int = -1):
    """factor * exp(power * x**2)."""
    return lambda x: factor * bind("stablehlo.exponential", power * x * x)


def _i1e_slope(y, x):
    """At 0 the limit, as the quotient has none there."""
    tiny = full_like(x, ml_dtypes.finfo(x.dtype).eps)
    large = bind("stablehlo.compare", bind("stablehlo.abs", x), tiny, comparison_direction="GT")
    safe = bind("stablehlo.select", large, x, tiny)
    slope = _numpy("chebyshev.i0e")(safe) - y * (bind("stablehlo.sign", safe) + 1 / safe)
    return bind("stablehlo.select", large, slope, full_like(x, 0.5))


def _polygamma_slope(y, n, x):
    return bind("chlo.polygamma", n + 1, x)


_special("chlo.erfc", "chebyshev.erfc", "1 - erf(x).", lambda y, x: _bell(-2 / np.sqrt(np.pi))(x))
_special("chlo.erf_inv", "special.erf_inv", "The inverse of erf.",
         lambda y, x: _bell(np.sqrt(np.pi) / 2, 1)(y))
_special("chlo.lgamma", "gamma.gammaln", "log(abs(gamma(x))).",
         lambda y, x: bind("chlo.digamma", x))
_special("chlo.digamma", "gamma.digamma", "The derivative of lgamma.",
         lambda y, x: bind("chlo.polygamma", full_like(x, 1), x))
_special("chlo.bessel_i1e", "chebyshev.i1e", "exp(-abs(x)) times the Bessel function I1.", _i1e_slope)
_special("chlo.polygamma", "gamma.polygamma", "The n-th derivative of digamma. Operands: n, x.",
         _polygamma_slope, arity=2)
_special("chlo.zeta", "gamma.zeta", "Hurwitz zeta. Operands: s, q.", arity=2)


class _Test(_Special):
    """A predicate: the result is i1."""

    @staticmethod
    def result_type(operand):
        return operand.with_dtype(I1)

    def vjp(cotangents, op, operands, results):
        return [None]


for _name, _function in (("is_inf", "isinf"), ("is_pos_inf", "isposinf"),
                         ("is_neg_inf", "isneginf")):
    op(f"chlo.{_name}")(type(_name.title().replace("_", ""), (_Test,), {
        "functions": f"elementwise.{_function}", "__doc__": f"{_function} as i1."}))


@op("chlo.conj")
class Conj(Elementwise):
    """The complex conjugate; a real number is its own."""

    accepts = FLOAT | COMPLEX
    evaluate = None

    def decompose(operands, attributes, regions):
        from ..numpy.elementwise import conjugate

        return [conjugate(operands[0])]


@op("chlo.constant_like")
class ConstantLike(Elementwise):
    """`value` in the shape and dtype of the operand."""

    attributes = {"value": "opaque"}
    evaluate = None

    def decompose(operands, attributes, regions):
        x = operands[0]
        value = np.asarray(attributes["value"]).astype(as_dtype(x.dtype).numpy)
        return [bind("stablehlo.broadcast_in_dim", value, shape=x.shape, broadcast_dimensions=())]


@op("chlo.top_k")
class TopK(OpDefinition):
    """The k largest elements of the last dim in descending order, and their positions (i32).

    Of equal elements the first comes first; floats are in total order, NaN above infinity.
    """

    attributes = {"k": "i64"}

    def infer(operands, attributes, regions):
        (x,), k = operands, attributes["k"]
        require(x.rank > 0, "C1", f"top_k of {x} needs a dim to select from")
        last = x.shape[-1]
        require(k >= 0 and (not isinstance(last, int) or k <= last), "C2",
                f"top_k cannot select {k} of {last} elements")
        shape = (*x.shape[:-1], k)
        return [TensorType(shape, x.dtype), TensorType(shape, I32)]

    def decompose(operands, attributes, regions):
        (x,), k = operands, attributes["k"]
        rank = len(x.shape)
        dtype = as_dtype(x.dtype)
        place = iota_beside(x, TensorType(tuple(x.shape), I32), rank - 1)
        kind = {"compare_type": "TOTALORDER"} if dtype.is_float else {}

        def before(a, b, i, j):
            return [bind("stablehlo.compare", a, b, comparison_direction="GT", **kind)]

        scalars = [TensorType((), t) for t in (dtype, dtype, I32, I32)]
        region = trace_region(before, scalars)
        found = bind("stablehlo.sort", x, place, regions=[region], dimension=rank - 1,
                     is_stable=True)
        bounds = {"start_indices": (0,) * rank, "limit_indices": (*x.shape[:-1], k),
                  "strides": (1,) * rank}
        return [bind("stablehlo.slice", f, **bounds) for f in found]

    def batch(op, operands, batched, batch):
        return batch.bind(op, *batch.spread_all(operands, batched))

    def vjp(cotangents, op, operands, results):
        from ..numpy import put_along_axis, zeros_like

        if cotangents[0] is None:
            return [None]
        zero = zeros_like(operands[0])
        return [put_along_axis(zero, results[1], cotangents[0], -1)]


@op("chlo.scan")
class Scan(OpDefinition):
    """Fold `body` over slices along `dimension`. Operands: inputs, then initial carries.

    The body takes one slice per input and the carries; it returns one slice per output and the new
    carries. Results: the outputs stacked, then the last carries.
    """

    attributes = {"dimension": "i64", "is_reverse": "bool", "is_associative": "bool"}
    optional = frozenset({"is_reverse", "is_associative"})
    regions = ("body",)

    def infer(operands, attributes, regions):
        body: Block = regions[0]
        carries = _carries(operands, body)
        inputs = operands[: len(operands) - carries]
        dimension = attributes["dimension"]
        require(len(inputs) > 0, "C1", "scan needs an input to run over")
        require(all(0 <= dimension < x.rank for x in inputs), "C2",
                f"scan over dimension {dimension} of {', '.join(map(str, inputs))}")
        length = inputs[0].shape[dimension]
        require(all(x.shape[dimension] == length for x in inputs), "C3",
                "the inputs of scan differ in length")
        outputs = [v.type for v in body.returns]
        made = outputs[: len(outputs) - carries]
        return [TensorType((*t.shape[:dimension], length, *t.shape[dimension:]), t.dtype)
                for t in made] + outputs[len(made):]

    def decompose(operands, attributes, regions):
        from ..trace.batch import move

        body, dimension = regions[0], attributes["dimension"]
        count = len(operands) - _carries([o.type for o in operands], body)
        inputs, carries = operands[:count], operands[count:]
        length = inputs[0].shape[dimension]
        if not isinstance(length, int):
            raise UnsupportedError("chlo.scan over a symbolic length is not supported")
        rows = [move(x, dimension, 0) for x in inputs]
        types = [*(c.type for c in carries), *(x.type.with_shape(x.shape[1:]) for x in rows)]
        made = len(body.returns) - len(carries)

        def step(*values):
            state, slices = values[:len(carries)], values[len(carries):]
            results = replay(Function("step", body), [*slices, *state])
            return [*results[made:], *results[:made]]

        found = bind("tfn.scan", *carries, *rows, body=trace(step, types, "step")[0], constants=0,
                     carries=len(carries), length=length, reverse=attributes.get("is_reverse", False))
        found = found if isinstance(found, list) else [found]
        last, stacked = found[:len(carries)], found[len(carries):]
        return [*(move(y, 0, dimension) for y in stacked), *last]

    def factors(op):
        return Factors([(None,) * len(v.shape) for v in op.operands],
                       [(None,) * len(v.shape) for v in op.results])


def _carries(operands, body: Block) -> int:
    """How many of the operands are carries: those whose type is the body argument's itself."""
    if len(body.arguments) != len(operands):
        raise OpError(f"the body of scan takes {len(body.arguments)} values for"
                      f" {len(operands)} operands")
    count = 0
    for argument, operand in zip(reversed(body.arguments), reversed(operands), strict=True):
        if argument.type != operand:
            break
        count += 1
    return count


@op("chlo.ragged_dot")
class RaggedDot(OpDefinition):
    """A dot_general whose lhs is cut into groups along a ragged dim, by the sizes of the third operand.

    The ragged dim is free (each group of rows has its own matrix in rhs), contracted (the result has
    a leading dim of groups), or a batching dim (the groups do not matter).
    """

    attributes = {"ragged_dot_dimension_numbers": "opaque", "precision_config": "opaque",
                  "dtype": "result_dtype"}
    optional = frozenset({"precision_config"})

    def infer(operands, attributes, regions):
        n, mode = _ragged(operands, attributes)
        lhs, rhs, _ = operands
        groups = operands[2].shape[-1]
        batch = [lhs.shape[d] for d in n.lhs_batching]
        left = [s for d, s in enumerate(lhs.shape) if d not in (*n.lhs_batching, *n.lhs_contracting)]
        taken = (*n.rhs_batching, *n.rhs_contracting, *n.rhs_group)
        right = [s for d, s in enumerate(rhs.shape) if d not in taken]
        lead = [groups] if mode == "contracting" else []
        return [TensorType((*lead, *batch, *left, *right), attributes["dtype"])]

    def decompose(operands, attributes, regions):
        from ..numpy import cumsum

        types = [o.type for o in operands]
        n, mode = _ragged(types, attributes)
        lhs, rhs, sizes = operands
        dtype = attributes["dtype"]
        if mode == "batching":
            return [_dot(lhs, rhs, n.lhs_batching, n.rhs_batching, n.lhs_contracting,
                         n.rhs_contracting, dtype)]
        if len(sizes.shape) != 1:
            raise UnsupportedError("ragged_dot with group sizes per batch is not supported")
        groups = sizes.shape[0]
        ends = cumsum(sizes)
        # mask[g, i]: row i of the ragged dim is in group g.
        shape = (groups, *lhs.shape)
        row = bind("stablehlo.iota", type=TensorType(shape, as_dtype(sizes.dtype)),
                   iota_dimension=1 + n.ragged)
        spread = {"shape": shape, "broadcast_dimensions": (0,)}
        end = bind("stablehlo.broadcast_in_dim", ends, **spread)
        start = bind("stablehlo.broadcast_in_dim", ends - sizes, **spread)
        inside = bind("stablehlo.and",
                      bind("stablehlo.compare", row, start, comparison_direction="GE"),
                      bind("stablehlo.compare", row, end, comparison_direction="LT"))
        wide = bind("stablehlo.broadcast_in_dim", lhs, shape=shape,
                    broadcast_dimensions=tuple(range(1, len(shape))))
        zero = bind("stablehlo.broadcast_in_dim", np.zeros((), lhs.dtype), shape=shape,
                    broadcast_dimensions=())
        masked = bind("stablehlo.select", inside, wide, zero)
        up = lambda dims: tuple(d + 1 for d in dims)  # noqa: E731
        if mode == "free":
            return [_dot(masked, rhs, up(n.lhs_batching), n.rhs_batching,
                         (0, *up(n.lhs_contracting)), (*n.rhs_group, *n.rhs_contracting), dtype)]
        result = _dot(masked, rhs, up(n.lhs_batching), n.rhs_batching, up(n.lhs_contracting),
                      n.rhs_contracting, dtype)
        batch = len(n.lhs_batching)
        order = (batch, *range(batch), *range(batch + 1, len(result.shape)))
        return [bind("stablehlo.transpose", result, permutation=order)]


@dataclass(frozen=True)
class _RaggedNumbers:
    lhs_batching: tuple[int, ...]
    rhs_batching: tuple[int, ...]
    lhs_contracting: tuple[int, ...]
    rhs_contracting: tuple[int, ...]
    rhs_group: tuple[int, ...]
    ragged: int


def _ragged(operands, attributes) -> tuple[_RaggedNumbers, str]:
    """The dimension numbers, and what the ragged dim is: free, contracting or batching."""
    values = getattr(attributes["ragged_dot_dimension_numbers"], "values", {})
    lists = {k: tuple(values.get(f"{k}_dimensions", ())) for k in (
        "lhs_batching", "rhs_batching", "lhs_contracting", "rhs_contracting", "rhs_group",
        "lhs_ragged")}
    ragged = lists.pop("lhs_ragged")
    require(len(ragged) == 1, "C12", "ragged_dot needs exactly one ragged dimension")
    n = _RaggedNumbers(ragged=ragged[0], **lists)
    mode = ("batching" if n.ragged in n.lhs_batching
            else "contracting" if n.ragged in n.lhs_contracting else "free")
    require(len(n.rhs_group) == (mode == "free"), "C15",
            f"ragged_dot over a {mode} dim with {len(n.rhs_group)} group dims")
    return n, mode


def _dot(lhs, rhs, lhs_batching, rhs_batching, lhs_contracting, rhs_contracting, dtype):
    numbers = DotDimensionNumbers(lhs_batching, rhs_batching, lhs_contracting, rhs_contracting)
    return bind("stablehlo.dot_general", lhs, rhs, dot_dimension_numbers=numbers, dtype=dtype)


@op("stablehlo.map")
class Map(OpDefinition):
    """Apply the region of scalars to the elements of the operands at each index."""

    attributes = {"dimensions": "i64_array"}
    regions = ("computation",)
    factors = staticmethod(identity_factors)

    def infer(operands, attributes, regions):
        first = operands[0]
        require(all(o.shape == first.shape for o in operands), "C1",
                f"map needs operands of one shape, got {', '.join(map(str, operands))}")
        require(tuple(attributes["dimensions"]) == tuple(range(first.rank)), "C3",
                f"map over dimensions {list(attributes['dimensions'])} of {first}")
        require(len(regions[0].returns) == 1, "C4", "the computation of map returns one value")
        return [TensorType(first.shape, regions[0].returns[0].dtype)]

    def decompose(operands, attributes, regions):
        from .fold import elementwise

        return elementwise(regions[0], operands)
