"""Elementwise ops: each result element depends on the operand elements at the same index.

An op names what it accepts, its NumPy evaluation, its derivative and `scalar`, the rule that emits
one element (or one vector of elements) as LLVM IR. `emit` is `codegen.emitter.Emitter`.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np

from ..errors import OpError, UnsupportedError
from ..ir.core import TensorType
from ..ir.dtypes import (
    C64,
    C128,
    F32,
    F64,
    I1,
    UI2,
    UI4,
    UI8,
    UI16,
    UI32,
    UI64,
    DType,
    as_dtype,
    widened,
)
from ..trace.core import bind
from .declare import (
    ANY,
    BOOL,
    COMPLEX,
    FLOAT,
    INTEGER,
    NUMBER,
    Factors,
    OpDefinition,
    check_dtype,
    op,
    require,
)


def identity_factors(op) -> Factors:
    """Dim d of every operand and result of equal rank is factor d; scalars have none."""
    rank = len(op.results[0].shape)
    row = tuple(range(rank))
    return Factors([row[: len(o.shape)] for o in op.operands], [row for _ in op.results])


class Elementwise(OpDefinition):
    """Operands and result have one shape and, unless said otherwise, one dtype."""

    accepts = ANY
    arity = 1
    pointwise = True
    expensive = False
    """Costs tens of instructions: never duplicated into several consumers."""
    factors = staticmethod(identity_factors)
    function = None
    """NumPy function of the operand arrays."""

    @classmethod
    def infer(cls, operands, attributes, regions):
        if len(operands) != cls.arity:
            raise OpError(f"{cls.name} takes {cls.arity} operands, got {len(operands)}")
        first = operands[0]
        check_dtype(cls.name, first.dtype, cls.accepts)
        for other in operands[1:]:
            if other is not first and other != first:
                what = "shape" if other.shape != first.shape else "dtype"
                raise OpError(f"{cls.name} needs operands of one {what},"
                              f" got {' and '.join(map(str, operands))} (C1)")
        return [cls.result_type(operands[0])]

    @staticmethod
    def result_type(operand: TensorType) -> TensorType:
        return operand

    @classmethod
    def evaluate(cls, operands, attributes, regions, result_types):
        return [cls.function(*map(widened, operands))]

    @classmethod
    def batch(cls, op, operands, batched, batch):
        shape = max((v.shape for v in op.operands), key=len)
        return batch.bind(op, *(batch.align(x, b, shape)
                                for x, b in zip(operands, batched, strict=True)))

    scalar = None
    """`scalar(emit, dtype, *registers) -> register`: one element of the result."""


class Unary(Elementwise):
    arity = 1

    @classmethod
    def evaluate(cls, operands, attributes, regions, result_types):
        if operands[0].dtype.kind == "c":
            from ..passes.complex import FUNCTIONS
            from .complex import evaluate_parts

            if cls.name in FUNCTIONS:
                return evaluate_parts(cls.name, operands)
        return super().evaluate(operands, attributes, regions, result_types)

    @classmethod
    def vjp(cls, cotangents, op, operands, results):
        return [cls.derivative(cotangents[0], results[0], operands[0])]

    @staticmethod
    def derivative(ct, result, x):
        """Cotangent of the operand."""
        return


class Binary(Elementwise):
    arity = 2

    @classmethod
    def vjp(cls, cotangents, op, operands, results):
        return cls.derivative(cotangents[0], results[0], *operands)

    @staticmethod
    def derivative(ct, result, x, y):
        """Cotangents of both operands."""
        return None, None


_BUFFERED = 1 << 14
"""Elements from which NumPy's own buffering beats whole arrays in f64."""


def _rounded_once(function):
    """f32 computed in f64: these functions of NumPy are up to 3.4 ULP off, and this is the oracle."""

    def rounded(*operands):
        first = operands[0]
        if first.dtype != np.float32:
            return function(*operands)
        if isinstance(function, np.ufunc) and first.size >= _BUFFERED:
            return function(*operands, out=np.empty_like(first), dtype=np.float64,
                            casting="same_kind")
        return function(*(o.astype(np.float64) for o in operands)).astype(np.float32)

    return rounded


def _math(name: str):
    return lambda emit, dtype, x: emit.math(name, dtype, x)


def _intrinsic(name: str):
    return lambda emit, dtype, x: emit.intrinsic(name, dtype, x)


def _opcode(**by_kind: str):
    """`scalar` rule that picks the LLVM opcode by the kind of the dtype."""

    def scalar(emit, dtype, x, y):
        return emit.binary(by_kind[dtype.kind], dtype, x, y)

    return scalar


def full_like(x, value):
    return bind("stablehlo.broadcast_in_dim", np.asarray(value, x.dtype), shape=x.shape,
                broadcast_dimensions=())


def _where(condition, x, y):
    return bind("stablehlo.select", condition, x, y)


def _compare(x, direction, y):
    return bind("stablehlo.compare", x, y, comparison_direction=direction)


def declare_unary(name, function, scalar, derivative=None, accepts=FLOAT, expensive=False,
                  result=None, doc=""):
    """Declare a unary op from its rules."""
    body = dict(function=staticmethod(function), scalar=staticmethod(scalar), accepts=accepts,
                expensive=expensive, __doc__=doc)
    if derivative is not None:
        body["derivative"] = staticmethod(derivative)
    if result is not None:
        body["result_type"] = staticmethod(result)
    return op(name)(type(name.split(".")[1].title().replace("_", ""), (Unary,), body))


# -- unary: name, NumPy meaning, LLVM, cotangent of the operand -----------------------------------

def _real_part_type(operand: TensorType) -> TensorType:
    return operand.with_dtype({C64: F32, C128: F64}.get(operand.dtype, operand.dtype))


def _abs_scalar(emit, dtype, x):
    if dtype.is_float:
        return emit.intrinsic("fabs", dtype, x)
    if dtype.kind == "uint":
        return x
    negative = emit.binary("sub", dtype, emit.constant(0, dtype), x)
    return emit.select(emit.compare("slt", dtype, x, emit.constant(0, dtype)), dtype, negative, x)


def _abs_derivative(ct, y, x):
    """At 0 the slope is 1, as in JAX; a complex number's direction is that of its conjugate."""
    if x.dtype.kind != "c":
        return _where(_compare(x, "GE", full_like(x, 0)), ct, -ct)
    size = _where(_compare(y, "EQ", full_like(y, 0)), full_like(y, 1), y)
    return bind("stablehlo.complex", ct * (bind("stablehlo.real", x) / size),
                -ct * (bind("stablehlo.imag", x) / size))


def _negate_scalar(emit, dtype, x):
    if dtype.is_float:
        return emit.unary("fneg", dtype, x)
    return emit.binary("sub", dtype, emit.constant(0, dtype), x)


def _sign_scalar(emit, dtype, x):
    zero, one = emit.constant(0, dtype), emit.constant(1, dtype)
    if dtype.is_float:
        # Not copysign: of a number that was rounded to f16, LLVM wants a function nobody has.
        below = emit.select(emit.compare("olt", dtype, x, zero), dtype, emit.constant(-1, dtype), x)
        return emit.select(emit.compare("ogt", dtype, x, zero), dtype, one, below)
    positive = emit.compare("ugt" if dtype.kind == "uint" else "sgt", dtype, x, zero)
    result = emit.select(positive, dtype, one, zero)
    if dtype.kind == "uint":
        return result
    negative = emit.compare("slt", dtype, x, zero)
    return emit.select(negative, dtype, emit.constant(-1, dtype), result)


def _sign(x):
    if x.dtype.kind == "f":
        return np.where(x == 0, x, np.sign(x))
    return np.sign(x)


def _logistic(x):
    negative = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + negative), negative / (1 + negative))


def _round_away(x):
    # Adding a half would round: 2**23 + 1 in f32, or the number below a half.
    size = np.abs(x)
    whole = np.floor(size)
    return np.copysign(np.where(size - whole >= 0.5, whole + 1, whole), x).astype(x.dtype)


def _erf(x):
    from math import erf

    return np.vectorize(erf, otypes=[np.float64])(x.astype(np.float64)).astype(x.dtype)


def _is_finite_scalar(emit, dtype, x):
    magnitude = emit.intrinsic("fabs", dtype, x)
    return emit.compare("olt", dtype, magnitude, emit.constant(float("inf"), dtype))


def _not_scalar(emit, dtype, x):
    ones = emit.constant(True if dtype.kind == "bool" else -1, dtype)
    return emit.binary("xor", dtype, x, ones)


declare_unary("stablehlo.abs", np.abs, _abs_scalar, _abs_derivative, NUMBER,
              result=_real_part_type)
declare_unary("stablehlo.negate", np.negative, _negate_scalar, lambda ct, y, x: -ct, NUMBER)
declare_unary("stablehlo.sign", _sign, _sign_scalar, None, NUMBER)
declare_unary("stablehlo.exponential", _rounded_once(np.exp), _math("exp"),
              lambda ct, y, x: ct * y, FLOAT | COMPLEX, True)
declare_unary("stablehlo.exponential_minus_one", _rounded_once(np.expm1), _math("expm1"),
              lambda ct, y, x: ct * (y + 1), FLOAT | COMPLEX, True)
declare_unary("stablehlo.log", _rounded_once(np.log), _math("log"),
              lambda ct, y, x: ct / x, FLOAT | COMPLEX, True)
declare_unary("stablehlo.log_plus_one", _rounded_once(np.log1p), _math("log1p"),
              lambda ct, y, x: ct / (x + 1), FLOAT | COMPLEX, True)
declare_unary("stablehlo.sqrt", np.sqrt, _intrinsic("sqrt"),
              lambda ct, y, x: ct * 0.5 / y, FLOAT | COMPLEX)
declare_unary("stablehlo.rsqrt", _rounded_once(lambda x: 1 / np.sqrt(x)), _math("rsqrt"),
              lambda ct, y, x: ct * -0.5 * y / x, FLOAT | COMPLEX, True)
declare_unary("stablehlo.cbrt", np.cbrt, _math("cbrt"),
              lambda ct, y, x: ct / (3 * y * y), FLOAT | COMPLEX, True)
declare_unary("stablehlo.tanh", np.tanh, _math("tanh"),
              lambda ct, y, x: ct * (1 - y * y), FLOAT | COMPLEX, True)
declare_unary("stablehlo.logistic", _rounded_once(_logistic), _math("logistic"),
              lambda ct, y, x: ct * (y * (1 - y)), FLOAT | COMPLEX, True)
declare_unary("stablehlo.sine", _rounded_once(np.sin), _math("sin"),
              lambda ct, y, x: ct * bind("stablehlo.cosine", x), FLOAT | COMPLEX, True)
declare_unary("stablehlo.cosine", _rounded_once(np.cos), _math("cos"),
              lambda ct, y, x: -ct * bind("stablehlo.sine", x), FLOAT | COMPLEX, True)
declare_unary("stablehlo.tan", _rounded_once(np.tan), _math("tan"),
              lambda ct, y, x: ct * (1 + y * y), FLOAT | COMPLEX, True)
declare_unary("chlo.erf", _erf, _math("erf"),
              lambda ct, y, x: ct * (1.1283791670955126 * bind("stablehlo.exponential", -x * x)),
              FLOAT, True)
declare_unary("chlo.square", np.square,
              lambda emit, dtype, x: emit.binary(
                  "fmul" if dtype.is_float else "mul", dtype, x, x),
              lambda ct, y, x: ct * 2 * x, NUMBER)
declare_unary("stablehlo.floor", np.floor, _intrinsic("floor"))
declare_unary("stablehlo.ceil", np.ceil, _intrinsic("ceil"))
declare_unary("stablehlo.round_nearest_even", np.rint, _intrinsic("roundeven"))
declare_unary("stablehlo.round_nearest_afz", _round_away, _intrinsic("round"))
declare_unary("stablehlo.is_finite", np.isfinite, _is_finite_scalar,
              result=lambda t: t.with_dtype(I1))
declare_unary("stablehlo.not", np.invert, _not_scalar, None, INTEGER | BOOL)


# -- binary ---------------------------------------------------------------------------------------

def declare_binary(name, function, scalar, derivative=None, accepts=NUMBER, expensive=False):
    """Declare a binary op from its rules."""
    body = dict(function=staticmethod(function), scalar=staticmethod(scalar), accepts=accepts,
                expensive=expensive)
    if derivative is not None:
        body["derivative"] = staticmethod(derivative)
    return op(name)(type(name.split(".")[1].title().replace("_", ""), (Binary,), body))


def _extreme(function, sign):
    """`function` with -0 below 0, which NumPy leaves open; `sign` combines the signs of two zeros."""

    def extreme(x, y):
        result = function(x, y)
        if result.dtype.kind != "f":
            return result
        zero = (x == 0) & (y == 0)
        if not zero.any():
            return result
        signs = sign(np.signbit(x), np.signbit(y))
        return np.where(zero, np.where(signs, result.dtype.type(-0.0), result.dtype.type(0.0)), result)

    return extreme


_maximum = _extreme(np.maximum, np.logical_and)
_minimum = _extreme(np.minimum, np.logical_or)


def _divide(x, y):
    """Integers: truncation, x/0 = -1, INT_MIN/-1 = INT_MIN (as XLA)."""
    if x.dtype.kind not in "iu":
        return x / y
    safe = np.where(y == 0, 1, y)
    floor, remainder = np.floor_divide(x, safe), np.remainder(x, safe)
    truncated = floor + ((remainder != 0) & ((x < 0) != (y < 0))).astype(x.dtype)
    return np.where(y == 0, np.array(-1).astype(x.dtype), truncated)


def _remainder(x, y):
    """Sign of the dividend; integers: x % 0 = x."""
    if x.dtype.kind == "c":
        raise UnsupportedError("remainder of complex numbers is not supported: the specification does"
                               " not say what it is")
    if x.dtype.kind not in "iu":
        return np.fmod(x, y)
    return np.where(y == 0, x, np.fmod(x, np.where(y == 0, 1, y)))


def _power(x, y):
    if x.dtype.kind in "iu":
        negative = y < 0
        base = np.power(x, np.where(negative, 0, y))
        inverse = np.where(x == 1, 1, np.where(x == -1, np.where(y % 2 == 0, 1, -1), 0))
        return np.where(negative, inverse.astype(x.dtype), base)
    return np.power(x, y)


def _divide_scalar(emit, dtype, x, y):
    if dtype.is_float:
        return emit.binary("fdiv", dtype, x, y)
    return emit.safe_divide("div", dtype, x, y)


def _remainder_scalar(emit, dtype, x, y):
    if dtype.is_float:
        return emit.math("fmod", dtype, x, y)
    return emit.safe_divide("rem", dtype, x, y)


def _extreme_scalar(float_name, signed, unsigned, boolean):
    def scalar(emit, dtype, x, y):
        if dtype.is_float:
            return emit.intrinsic(float_name, dtype, x, y)
        if dtype.kind == "bool":
            return emit.binary(boolean, dtype, x, y)
        return emit.intrinsic(unsigned if dtype.kind == "uint" else signed, dtype, x, y)

    return scalar


def _extreme_derivative(direction):
    """Ties share the cotangent equally, as JAX does."""

    def derivative(ct, result, x, y):
        half = ct * 0.5
        tie = _compare(x, "EQ", y)
        zero = full_like(ct, 0)
        first = _where(_compare(x, direction, y), ct, zero)
        second = _where(_compare(y, direction, x), ct, zero)
        return _where(tie, half, first), _where(tie, half, second)

    return derivative


def _power_derivative(ct, result, x, y):
    one, zero = full_like(x, 1), full_like(x, 0)
    y_is_zero = _compare(y, "EQ", zero)
    slope = y * bind("stablehlo.power", x, _where(y_is_zero, one, y - 1))
    base = _where(_compare(x, "EQ", zero), one, x)
    dx = ct * _where(y_is_zero, zero, slope)
    dy = ct * (bind("stablehlo.log", base) * result)
    return dx, dy


declare_binary("stablehlo.add", np.add, _opcode(float="fadd", int="add", uint="add", bool="or"),
               lambda ct, r, x, y: (ct, ct), ANY)
declare_binary("stablehlo.subtract", np.subtract, _opcode(float="fsub", int="sub", uint="sub"),
               lambda ct, r, x, y: (ct, -ct))
declare_binary("stablehlo.multiply", np.multiply,
               _opcode(float="fmul", int="mul", uint="mul", bool="and"),
               lambda ct, r, x, y: (ct * y, ct * x), ANY)
declare_binary("stablehlo.divide", _divide, _divide_scalar,
               lambda ct, r, x, y: (ct / y, -(ct * r) / y))
declare_binary("stablehlo.remainder", _remainder, _remainder_scalar,
               lambda ct, r, x, y: (ct, -ct * bind("stablehlo.sign", x / y)
                                    * bind("stablehlo.floor", bind("stablehlo.abs", x / y))),
               NUMBER, True)
declare_binary("stablehlo.maximum", _maximum,
               _extreme_scalar("maximum", "smax", "umax", "or"), _extreme_derivative("GT"), ANY)
declare_binary("stablehlo.minimum", _minimum,
               _extreme_scalar("minimum", "smin", "umin", "and"), _extreme_derivative("LT"), ANY)
declare_binary("stablehlo.power", _power, lambda emit, dtype, x, y: emit.math("pow", dtype, x, y),
               _power_derivative, NUMBER, True)
declare_binary("stablehlo.atan2", _rounded_once(np.arctan2),
               lambda emit, dtype, x, y: emit.math("atan2", dtype, x, y),
               lambda ct, r, x, y: (ct * y / (x * x + y * y), -ct * x / (x * x + y * y)),
               FLOAT, True)
declare_binary("stablehlo.and", np.bitwise_and, _opcode(int="and", uint="and", bool="and"), None,
               INTEGER | BOOL)
declare_binary("stablehlo.or", np.bitwise_or, _opcode(int="or", uint="or", bool="or"), None,
               INTEGER | BOOL)
declare_binary("stablehlo.xor", np.bitwise_xor, _opcode(int="xor", uint="xor", bool="xor"), None,
               INTEGER | BOOL)


# -- the rest -------------------------------------------------------------------------------------

COMPARISONS = {
    "EQ": (np.equal, "oeq", "eq", "eq"), "NE": (np.not_equal, "une", "ne", "ne"),
    "LT": (np.less, "olt", "slt", "ult"), "LE": (np.less_equal, "ole", "sle", "ule"),
    "GT": (np.greater, "ogt", "sgt", "ugt"), "GE": (np.greater_equal, "oge", "sge", "uge"),
}
"""Direction -> (NumPy function, LLVM float, signed and unsigned predicate)."""


def _total_order(x: np.ndarray) -> np.ndarray:
    """Integers in the order -NaN < -inf < ... < -0 < 0 < ... < inf < NaN."""
    bits = np.ascontiguousarray(x).view(f"i{x.dtype.itemsize}").reshape(x.shape)
    return np.where(bits < 0, bits ^ np.iinfo(bits.dtype).max, bits)


@op("stablehlo.compare")
class Compare(Elementwise):
    """Elementwise comparison to i1; any comparison with NaN but NE is false, except in TOTALORDER."""

    arity = 2
    attributes = {"comparison_direction": "comparison_direction", "compare_type": "compare_type"}
    optional = frozenset({"compare_type"})

    @staticmethod
    def result_type(operand):
        return operand.with_dtype(I1)

    def evaluate(operands, attributes, regions, result_types):
        function = COMPARISONS[attributes["comparison_direction"]][0]
        x, y = map(widened, operands)
        if attributes.get("compare_type") == "TOTALORDER" and x.dtype.kind == "f":
            x, y = _total_order(x), _total_order(y)
        return [function(x, y)]

    def vjp(cotangents, op, operands, results):
        return [None, None]

    def scalar(emit, dtype, x, y, *, comparison_direction, compare_type=None):
        _, ordered, signed, unsigned = COMPARISONS[comparison_direction]
        if compare_type == "TOTALORDER" and dtype.is_float:
            return emit.compare_total(signed, dtype, x, y)
        column = {"float": ordered, "int": signed}.get(dtype.kind, unsigned)
        return emit.compare(column, dtype, x, y)


@op("stablehlo.select")
class Select(Elementwise):
    """`on_true` where `pred`, else `on_false`; `pred` may be a scalar."""

    arity = 3

    def infer(operands, attributes, regions):
        pred, on_true, on_false = operands
        require(on_true == on_false, "C2",
                f"select needs branches of one type, got {on_true} and {on_false}")
        require(pred.dtype is I1, "I1", f"select needs an i1 predicate, got {pred}")
        require(pred.rank == 0 or pred.shape == on_true.shape, "C1",
                f"the predicate {pred} of select does not have the shape of {on_true}")
        return [on_true]

    def evaluate(operands, attributes, regions, result_types):
        return [np.where(*operands)]

    def vjp(cotangents, op, operands, results):
        ct, pred = cotangents[0], operands[0]
        zero = full_like(ct, 0)
        return [None, _where(pred, ct, zero), _where(pred, zero, ct)]

    def scalar(emit, dtype, pred, on_true, on_false):
        return emit.select(pred, dtype, on_true, on_false)


@op("stablehlo.clamp")
class Clamp(Elementwise):
    """`min(max(x, low), high)`; the bounds have x's shape or are scalars. Operands: low, x, high."""

    arity = 3
    accepts = NUMBER

    def infer(operands, attributes, regions):
        low, x, high = operands
        for bound in (low, high):
            require(bound.rank == 0 or bound.shape == x.shape, "C1",
                    f"the bound {bound} of clamp has neither the shape of {x} nor is it a scalar")
            require(bound.dtype is x.dtype, "C3", f"clamp needs one dtype, got {bound} and {x}")
        return [x]

    def evaluate(operands, attributes, regions, result_types):
        low, x, high = map(widened, operands)
        return [_minimum(_maximum(x, low), high)]

    def vjp(cotangents, op, operands, results):
        low, x, high = operands
        low, high = (b if b.shape == x.shape else bind(
            "stablehlo.broadcast_in_dim", b, shape=x.shape, broadcast_dimensions=())
            for b in (low, high))
        ct, zero = cotangents[0], full_like(x, 0)
        inside = bind("stablehlo.and", _compare(x, "GT", low), _compare(x, "LT", high))
        below = bind("stablehlo.and", _compare(low, "GT", x), _compare(low, "LT", high))
        return [_clamp_bound(ct, below, op.operands[0]), _where(inside, ct, zero),
                _clamp_bound(ct, _compare(high, "LT", x), op.operands[2])]

    def scalar(emit, dtype, low, x, high):
        pick = _extreme_scalar("maximum", "smax", "umax", "or")(emit, dtype, x, low)
        return _extreme_scalar("minimum", "smin", "umin", "and")(emit, dtype, pick, high)


def _clamp_bound(ct, decides, bound):
    """Cotangent of a bound of clamp where it `decides`; a constant needs none."""
    from .reduction import is_constant, reduce_sum

    if is_constant(bound):
        return None
    mine = _where(decides, ct, full_like(ct, 0))
    return mine if bound.shape == ct.shape else reduce_sum(mine, range(len(ct.shape)))


def _saturating(x: np.ndarray, target: DType) -> np.ndarray:
    """Float to integer as XLA: saturate, NaN to 0."""
    info = ml_dtypes.iinfo(target.numpy)
    wide = np.nan_to_num(x.astype(np.float64), nan=0.0, posinf=info.max, neginf=info.min)
    low, high = wide <= info.min, wide >= info.max
    middle = np.where(low | high, 0, wide).astype(target.wide)
    return np.where(low, info.min, np.where(high, info.max, middle)).astype(target.numpy)


def _to_odd(x: np.ndarray) -> np.ndarray:
    """f64 as f32 that rounds to a narrow type as the f64 does: where it is not exact, the last bit is
    set."""
    near = np.asarray(x.astype(np.float32))
    back = near.astype(np.float64)
    exact = (back == x) | np.isnan(x)
    bits = near.view(np.int32)
    odd = (bits - (np.abs(back) > np.abs(x))) | 1
    return np.where(exact, bits, odd).astype(np.int32).view(np.float32)


@op("stablehlo.convert")
class Convert(Elementwise):
    """Change the element type: float to int truncates, saturates and maps NaN to 0; to i1 is != 0."""

    attributes = {"dtype": "result_dtype"}

    def infer(operands, attributes, regions):
        return [operands[0].with_dtype(attributes["dtype"])]

    def evaluate(operands, attributes, regions, result_types):
        (x,), target = operands, attributes["dtype"]
        if target is I1:
            return [x != 0]
        if target.is_integer and as_dtype(x.dtype).is_float:
            return [_saturating(x, target)]
        if x.dtype.kind == "c" and target.kind != "complex":
            x = x.real
        if x.dtype == np.float64 and target.is_narrow and target.is_float:
            return [_to_odd(x).astype(target.numpy)]
        # ml_dtypes does not convert every narrow type to every other.
        return [widened(x).astype(target.wide).astype(target.numpy)]

    def vjp(cotangents, op, operands, results):
        source = op.operands[0].dtype
        if not (source.is_inexact and op.attributes["dtype"].is_inexact):
            return [None]
        return [bind("stablehlo.convert", cotangents[0], dtype=source)]

    def scalar(emit, source, x, *, dtype):
        return emit.convert(x, source, dtype)


@op("stablehlo.bitcast_convert")
class BitcastConvert(Elementwise):
    """Reinterpret the bits as another element type.

    To a narrower type the parts of an element, lowest first, become a new last dim; to a wider type
    the last dim holds the parts.
    """

    attributes = {"dtype": "result_dtype"}

    def infer(operands, attributes, regions):
        (x,), target = operands, attributes["dtype"]
        complexes = (x.dtype.kind == "complex") + (target.kind == "complex")
        require(complexes != 1 or x.dtype.bits == target.bits, "C2",
                f"bitcast_convert of {x} to {target}")
        many, one = max(x.dtype.bits, target.bits), min(x.dtype.bits, target.bits)
        require(many % one == 0, "C1", f"bitcast_convert of {x} to {target}: the width of one is no"
                " multiple of the other's")
        if x.dtype.bits == target.bits:
            return [x.with_dtype(target)]
        if x.dtype.bits > target.bits:
            return [TensorType((*x.shape, many // one), target)]
        require(x.rank > 0 and x.shape[-1] == many // one, "C1",
                f"bitcast_convert of {x} to {target} needs a last dim of {many // one}")
        return [TensorType(tuple(x.shape[:-1]), target)]

    def expands(op):
        x, target = op.operands[0].dtype, op.attributes["dtype"]
        return x.bits != target.bits and x.kind != "complex"

    @staticmethod
    def decompose(operands, attributes, regions):
        x, target = operands[0], attributes["dtype"]
        source = as_dtype(x.dtype)
        if source.bits > target.bits:
            return [_split_bits(x, source, target)]
        return [_join_bits(x, source, target)]

    def evaluate(operands, attributes, regions, result_types):
        x, target = operands[0], attributes["dtype"]
        source = as_dtype(x.dtype)
        if source.bits != target.bits and source.kind != "complex":
            from ..trace.core import Array, eager

            with eager():
                return [BitcastConvert.decompose([Array(x)], attributes, regions)[0].numpy()]
        if source.bits != target.bits:  # Complex numbers: parts by parts.
            whole = np.ascontiguousarray(x).view(target.numpy)
            return [whole.reshape(result_types[0].shape)]
        return [np.ascontiguousarray(x).view(attributes["dtype"].numpy).reshape(x.shape)]

    def scalar(emit, source, x, *, dtype):
        return emit.bitcast(x, source, dtype)


def _unsigned(bits: int) -> DType:
    return next(d for d in (I1, UI2, UI4, UI8, UI16, UI32, UI64) if d.bits == bits)


def _bits_as(x, target: DType):
    """Bits of the same width as another type; i1 is not an integer."""
    if as_dtype(x.dtype) is target:
        return x
    return bind("stablehlo.bitcast_convert", x, dtype=target)


def _positions(shape, dtype: DType, width: int):
    """Multiples of `width` along the last dim."""
    place = bind("stablehlo.iota", type=TensorType(shape, dtype), iota_dimension=len(shape) - 1)
    return bind("stablehlo.multiply", place, full_like(place, width))


def _split_bits(x, source: DType, target: DType):
    word, part = _unsigned(source.bits), _unsigned(target.bits)
    shape = (*x.shape, source.bits // target.bits)
    wide = bind("stablehlo.broadcast_in_dim", _bits_as(x, word), shape=shape,
                broadcast_dimensions=tuple(range(len(x.shape))))
    moved = bind("stablehlo.shift_right_logical", wide, _positions(shape, word, target.bits))
    low = bind("stablehlo.and", moved, full_like(moved, (1 << target.bits) - 1))
    return _bits_as(bind("stablehlo.convert", low, dtype=part), target)


def _join_bits(x, source: DType, target: DType):
    from .reduction import reduce

    part, word = _unsigned(source.bits), _unsigned(target.bits)
    wide = bind("stablehlo.convert", _bits_as(x, part), dtype=word)
    moved = bind("stablehlo.shift_left", wide, _positions(x.shape, word, source.bits))
    return _bits_as(reduce(moved, (len(x.shape) - 1,), "or"), target)


__all__ = ["COMPARISONS", "Binary", "Elementwise", "Unary", "identity_factors"]
