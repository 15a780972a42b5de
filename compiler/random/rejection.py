"""Distributions drawn by rejection: a loop proposes until every element has accepted.

Each element of the gamma family has a key of its own and proposes alone; for the others all elements
propose together. Numbers follow JAX's streams: the same key gives the same draw, except where rounding
decides a proposal otherwise.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .. import numpy as tnp
from ..errors import OpError, user_location
from ..ir.dtypes import F32, F64, I32, DType
from ..numpy.promote import (
    ArrayLike,
    Value,
    asarray,
    broadcast_shapes,
    broadcast_to,
    convert,
    dtype_argument,
    dtype_of,
    floating,
    to_dtype,
)
from ..trace.core import bind, current_graph, trace_region
from ..trace.custom import custom_jvp
from ..trace.jit import jit
from .continuous import (
    drawn_dtype,
    exponential,
    float_dtype,
    normal,
    number,
    open_unit,
    rademacher,
    shape_of,
    uniform,
    unit_of,
)
from .gaussian import normal_of
from .threefry import LOOP_PIECE, Lanes, in_pieces, split

State = list[Value]


def loop(condition: Callable[..., Value], body: Callable[..., State], state: State) -> State:
    """Run `body` on the state while `condition` holds: at once, or as a recorded loop."""
    if current_graph() is None:
        while condition(*state):
            state = body(*state)
        return state
    types = [s.type for s in state]
    found = bind("stablehlo.while", *state, regions=[
        trace_region(lambda *s: [condition(*s)], types), trace_region(body, types)])
    return found if isinstance(found, list) else [found]


# -- the gamma family -----------------------------------------------------------------------------

def gamma(key: ArrayLike, alpha: ArrayLike, shape=None, dtype=F32) -> Value:
    """Gamma floats of shape parameter `alpha` and rate 1 (Marsaglia and Tsang, 2000).

    Their derivative with respect to `alpha` is that of the inverse distribution function at the drawn
    probability (Figurnov, Mohamed and Mnih, 2018).
    """
    return _gamma(key, alpha, shape, dtype, in_logarithms=False)


def loggamma(key: ArrayLike, alpha: ArrayLike, shape=None, dtype=F32) -> Value:
    """The logarithm of gamma floats, which does not underflow for a small `alpha`."""
    return _gamma(key, alpha, shape, dtype, in_logarithms=True)


def _gamma(key: ArrayLike, alpha: ArrayLike, shape, dtype, in_logarithms: bool) -> Value:
    dtype = float_dtype(dtype)
    alpha = to_dtype(alpha, dtype)
    shape = shape_of(shape, alpha)
    return _DRAWN[in_logarithms](asarray(key), broadcast_to(alpha, shape))


def _gamma_of(key: Value, alpha: Value, in_logarithms: bool) -> Value:
    lanes = Lanes.of(key, alpha.shape)
    return in_pieces(_LANES[in_logarithms], *lanes.words, alpha, piece=LOOP_PIECE)


def _derivative(sample: Value, alpha: Value, in_logarithms: bool) -> Value:
    """d sample / d alpha = -(dP/d alpha) / (dP/dx) of the distribution function P(alpha, x).

    P is a power, which cancels, times the sum of the positive terms x**k / ((alpha+1) ... (alpha+k)).
    In f64: the bracket loses digits where x is far above alpha.
    """
    dtype = dtype_of(sample)
    sample, alpha = convert(sample, F64), convert(alpha, F64)
    x = tnp.exp(sample) if in_logarithms else sample
    logarithm = sample if in_logarithms else tnp.log(tnp.where(x > 0, x, 1))

    def more(k: Value, term: Value, inverses: Value, total: Value, slope: Value) -> State:
        term, inverses = term * x / (alpha + k), inverses + 1 / (alpha + k)
        return [k + 1, term, inverses, total + term, slope - term * inverses]

    def open_(k: Value, term: Value, inverses: Value, total: Value, slope: Value) -> Value:
        return (k < 2) | tnp.any((term * inverses > 1e-17 * total) & (term < 1e280))

    one = tnp.ones(x.shape, F64)
    _, _, _, total, slope = loop(open_, more, [number(1, F64), one, one - 1, one, one - 1])
    bracket = total * (logarithm - tnp.digamma(alpha + 1)) + slope
    found = -bracket / alpha * (1 if in_logarithms else x)
    return convert(found if in_logarithms else tnp.where(x > 0, found, 0), dtype)


def _differentiable(in_logarithms: bool) -> Callable[[Value, Value], Value]:
    def draw(key: Value, alpha: Value) -> Value:
        return _gamma_of(key, alpha, in_logarithms)

    def rule(primals, tangents):
        sample = draw(*primals)
        if tangents[1] is None:
            return sample, None
        return sample, _derivative(sample, primals[1], in_logarithms) * tangents[1]

    drawn = custom_jvp(draw)
    drawn.defjvp(rule)
    return drawn


_DRAWN = {flag: _differentiable(flag) for flag in (False, True)}


def _gamma_lanes(first: Value, second: Value, alpha: Value, in_logarithms: bool) -> Value:
    shape, dtype = alpha.shape, dtype_of(alpha)
    # Below 1: gamma(alpha) = gamma(alpha + 1) * u**(1 / alpha).
    boosted = alpha < 1
    third = number(1 / 3, dtype)
    d = tnp.where(boosted, alpha + 1, alpha) - third
    c = third / tnp.sqrt(d)
    lanes, last = Lanes(first, second).split(2)

    def unit(own: Lanes) -> Value:
        return unit_of(own.bits(drawn_dtype(dtype)), dtype)

    def gauss(own: Lanes) -> Value:
        low = number(open_unit(dtype), dtype)
        return normal_of(tnp.maximum(low, unit(own) * (1 - low) + low))

    def open_(square: Value, cube: Value, u: Value) -> Value:
        """Which elements have not accepted."""
        quick = u >= 1 - number(0.0331, dtype) * (square * square)
        return quick & (tnp.log(u) >= square * 0.5 + d * ((1 - cube) + tnp.log(cube)))

    def proposed(own: Lanes, wanted: Value) -> tuple[Value, Value]:
        """Normal x and v = 1 + c x that is positive, where wanted."""
        def again(first: Value, second: Value, x: Value, v: Value) -> State:
            pending = wanted & (v <= 0)
            following, draw = Lanes(first, second).split(2)
            fresh = gauss(draw)
            kept = following.where(pending, Lanes(first, second))
            return [*kept.words, tnp.where(pending, fresh, x),
                    tnp.where(pending, 1 + fresh * c, v)]

        zero = tnp.zeros(shape, dtype)
        _, _, x, v = loop(lambda first, second, x, v: tnp.any(wanted & (v <= 0)), again,
                            [*own.words, zero, zero - 1])
        return x, v

    def attempt(first: Value, second: Value, square: Value, cube: Value, u: Value) -> State:
        pending = open_(square, cube, u)
        own = Lanes(first, second)
        following, for_x, for_u = own.split(3)
        x, v = proposed(for_x, pending)
        kept = following.where(pending, own)
        return [*kept.words, tnp.where(pending, x * x, square),
                tnp.where(pending, v * v * v, cube), tnp.where(pending, unit(for_u), u)]

    one = tnp.ones(shape, dtype)
    start = [*lanes.words, one - 1, one, one + 1]
    _, _, _, cube, _ = loop(
        lambda first, second, square, cube, u: tnp.any(open_(square, cube, u)), attempt, start)
    if in_logarithms:
        logarithm = tnp.log1p(-unit(last))
        boost = tnp.where(boosted & (logarithm != 0), logarithm * (1 / alpha), 0)
        return tnp.log(d) + tnp.log(cube) + boost
    return d * cube * tnp.where(boosted, tnp.power(1 - unit(last), 1 / alpha), 1)


_LANES = {flag: jit(lambda first, second, alpha, flag=flag: _gamma_lanes(first, second, alpha, flag))
          for flag in (False, True)}


def beta(key: ArrayLike, a: ArrayLike, b: ArrayLike, shape=None, dtype=F32) -> Value:
    """Beta floats with parameters `a` and `b`."""
    dtype = float_dtype(dtype)
    a, b = to_dtype(a, dtype), to_dtype(b, dtype)
    shape, keys = shape_of(shape, a, b), split(key)
    x, y = loggamma(keys[0], a, shape, dtype), loggamma(keys[1], b, shape, dtype)
    most = tnp.maximum(x, y)
    x, y = tnp.exp(x - most), tnp.exp(y - most)
    return x / (x + y)


def dirichlet(key: ArrayLike, alpha: ArrayLike, shape=None, dtype=F32) -> Value:
    """Probability vectors (..., n) from the Dirichlet distribution of `alpha` (..., n)."""
    dtype = float_dtype(dtype)
    alpha = to_dtype(alpha, dtype)
    batch = alpha.shape[:-1] if shape is None else shape_of(shape)
    logarithms = loggamma(key, alpha, (*batch, alpha.shape[-1]), dtype)
    scaled = tnp.exp(logarithms - tnp.max(logarithms, -1, keepdims=True))
    return scaled / tnp.sum(scaled, -1, keepdims=True)


def t(key: ArrayLike, df: ArrayLike, shape=(), dtype=F32) -> Value:
    """Student's t floats of `df` degrees of freedom."""
    dtype = float_dtype(dtype)
    half = to_dtype(df, dtype) / 2
    shape, keys = shape_of(shape or None, half), split(key)
    return normal(keys[0], shape, dtype) * tnp.sqrt(half / gamma(keys[1], half, shape, dtype))


def chisquare(key: ArrayLike, df: ArrayLike, shape=None, dtype=F32) -> Value:
    """Chi-squared floats of `df` degrees of freedom."""
    dtype = float_dtype(dtype)
    return tnp.exp(loggamma(key, to_dtype(df, dtype) / 2, shape, dtype)) * 2


def f(key: ArrayLike, dfnum: ArrayLike, dfden: ArrayLike, shape=None, dtype=F32) -> Value:
    """F floats: the ratio of two chi-squared floats, each over its degrees of freedom."""
    dtype = float_dtype(dtype)
    dfnum, dfden = to_dtype(dfnum, dtype), to_dtype(dfden, dtype)
    shape, keys = shape_of(shape, dfnum, dfden), split(key)
    return (chisquare(keys[1], dfnum, shape, dtype) / dfnum) / (
        chisquare(keys[0], dfden, shape, dtype) / dfden)


def generalized_normal(key: ArrayLike, p: float, shape=(), dtype=F32) -> Value:
    """Floats of a density proportional to exp(-|x|**p)."""
    keys = split(key)
    magnitude = gamma(keys[0], 1 / p, shape, dtype) ** (1 / p)
    return rademacher(keys[1], shape, dtype) * magnitude


def ball(key: ArrayLike, d: int, p: float = 2, shape=(), dtype=F32) -> Value:
    """Points (..., d) uniform in the unit ball of the p-norm (Barthe et al., 2005)."""
    keys, shape = split(key), shape_of(shape)
    x = generalized_normal(keys[0], p, (*shape, d), dtype)
    e = exponential(keys[1], shape, dtype)
    return x / ((tnp.sum(tnp.abs(x) ** p, -1) + e) ** (1 / p))[..., None]


# -- counts ---------------------------------------------------------------------------------------

def poisson(key: ArrayLike, lam: ArrayLike, shape=None, dtype=I32) -> Value:
    """Poisson integers of rate `lam`: by products below 10 (Knuth), else by transformed rejection
    (Hörmann, 1993)."""
    dtype = dtype_argument(dtype)
    lam = to_dtype(lam, F32) if not dtype_of(asarray(lam)).is_float else asarray(lam)
    shape = shape_of(shape, lam)
    lam = broadcast_to(lam, shape)
    small = tnp.isnan(lam) | (lam < 10)
    few = _poisson_by_products(key, tnp.where(small, lam, 0), dtype)
    many = _poisson_by_rejection(key, tnp.where(small, 1e5, lam), dtype)
    return tnp.where(lam == 0, tnp.zeros(shape, dtype), tnp.where(small, few, many))


def _poisson_by_products(key: ArrayLike, lam: Value, dtype: DType) -> Value:
    def body(own: Value, count: Value, logarithm: Value) -> State:
        keys = split(own)
        count = tnp.where(logarithm > -lam, count + 1, count)
        return [keys[0], count, logarithm + tnp.log(uniform(keys[1], lam.shape))]

    start = [asarray(key), tnp.zeros(lam.shape, dtype), tnp.zeros(lam.shape, F32)]
    _, count, _ = loop(lambda own, count, logarithm: tnp.any(logarithm > -lam), body, start)
    return count - 1


def _poisson_by_rejection(key: ArrayLike, lam: Value, dtype: DType) -> Value:
    kind = dtype_of(lam)
    logarithm = tnp.log(lam)
    b = 0.931 + 2.53 * tnp.sqrt(lam)
    a = -0.059 + 0.02483 * b
    inverse = 1.1239 + 1.1328 / (b - 3.4)
    limit = 0.9277 - 3.6224 / (b - 2)

    def body(own: Value, found: Value, accepted: Value) -> State:
        keys = split(own, 3)
        u, v = uniform(keys[1], lam.shape, kind) - 0.5, uniform(keys[2], lam.shape, kind)
        beside = 0.5 - tnp.abs(u)
        k = tnp.floor((2 * a / beside + b) * u + lam + 0.43)
        s = tnp.log(v * inverse / (a / (beside * beside) + b))
        bound = -lam + k * logarithm - tnp.gammaln(k + 1)
        never = (k < 0) | ((beside < 0.013) & (v > beside))
        accept = ((beside >= 0.07) & (v <= limit)) | (~never & (s <= bound))
        return [keys[0], tnp.where(accept, k, found), accepted | accept]

    start = [asarray(key), tnp.full(lam.shape, -1, kind), tnp.zeros(lam.shape, bool)]
    _, found, _ = loop(lambda own, found, accepted: ~tnp.all(accepted), body, start)
    return convert(found, dtype)


def binomial(key: ArrayLike, n: ArrayLike, p: ArrayLike, shape=None, dtype=F32) -> Value:
    """The number of successes in `n` trials of probability `p`, as floats: by geometric steps where few
    are expected (Devroye, 1986), else by transformed rejection (BTRS; Hörmann, 1993).

    NaN for a negative `n` or a `p` that is negative or NaN.
    """
    dtype = float_dtype(dtype)
    p = floating(p)
    kind = dtype_of(p)
    n = to_dtype(n, kind)
    shape = shape_of(shape, n, p)
    n, p = broadcast_to(n, shape), broadcast_to(p, shape)
    rare = p < 0.5
    q = tnp.where(rare, p, 1 - p)
    undefined = tnp.isnan(q) | (q < 0)
    q = tnp.where(undefined, 0.01, q)
    no_count = tnp.isnan(n) | (n < 0)
    endless = tnp.isinf(n) & ~no_count
    few = no_count | (n * q <= 10)
    n = tnp.floor(n)
    found = tnp.where(
        few, _binomial_by_steps(key, tnp.where(few, n, 0), q),
        _binomial_by_rejection(key, tnp.where(few | endless, 1e4, n), tnp.where(few, 0.5, q)))
    found = tnp.where(rare | endless, found, n - found)
    found = tnp.where(endless, np.inf, found)
    return convert(tnp.where(undefined | no_count, np.nan, found), dtype)


def _binomial_by_steps(key: ArrayLike, n: Value, q: Value) -> Value:
    kind, shape = dtype_of(q), q.shape
    scale = tnp.log1p(-q)

    def body(own: Value, count: Value, place: Value) -> State:
        keys = split(own)
        count = tnp.where(place <= n, count + 1, count)
        step = tnp.ceil(tnp.log(uniform(keys[0], shape, kind)) / scale)
        return [keys[1], count, place + step]

    start = [asarray(key), tnp.zeros(shape, kind), tnp.zeros(shape, kind)]
    _, count, _ = loop(lambda own, count, place: tnp.any(place <= n), body, start)
    return count - 1


_STIRLING = (0.0810614667953272, 0.0413406959554092, 0.0276779256849983, 0.02079067210376509,
             0.0166446911898211, 0.0138761288230707, 0.0118967099458917, 0.0104112652619720,
             0.00925546218271273, 0.00833056343336287)
"""log(k!) minus Stirling's approximation, for k up to 9."""


def _stirling_tail(k: Value) -> Value:
    kind = dtype_of(k)
    square = (k + 1) * (k + 1)
    series = (1 / 12 - (1 / 360 - 1 / 1260 / square) / square) / (k + 1)
    place = convert(tnp.clip(k, 0, 9), I32)
    return tnp.where(k <= 9, tnp.take(asarray(np.asarray(_STIRLING, kind.numpy)), place, 0), series)


def _binomial_by_rejection(key: ArrayLike, n: Value, q: Value) -> Value:
    kind, shape = dtype_of(q), q.shape
    propose = binomial_proposals(n, q)

    def body(own: Value, found: Value, accepted: Value) -> State:
        keys = split(own, 3)
        k, accept = propose(uniform(keys[1], shape, kind), uniform(keys[2], shape, kind))
        return [keys[0], tnp.where(accept, k, found), accepted | accept]

    start = [asarray(key), tnp.full(shape, -1, kind), tnp.zeros(shape, bool)]
    _, found, _ = loop(lambda own, found, accepted: ~tnp.all(accepted), body, start)
    return found


def binomial_proposals(n: Value, q: Value) -> Callable[[Value, Value], tuple[Value, Value]]:
    """BTRS: a function of two uniform numbers to a proposed count and whether it is accepted."""
    deviation = tnp.sqrt(n * q * (1 - q))
    b = 1.15 + 2.53 * deviation
    a = -0.0873 + 0.0248 * b + 0.01 * q
    middle = n * q + 0.5
    limit = 0.92 - 4.2 / b
    ratio = q / (1 - q)
    alpha = (2.83 + 5.1 / b) * deviation
    m = tnp.floor((n + 1) * q)

    def propose(u: Value, v: Value) -> tuple[Value, Value]:
        u = u - 0.5
        beside = 0.5 - tnp.abs(u)
        quick = (beside >= 0.07) & (v <= limit)
        k = tnp.floor((2 * a / beside + b) * u + middle)
        never = (k < 0) | (k > n)
        v = tnp.log(v * alpha / (a / (beside * beside) + b))
        bound = ((m + 0.5) * tnp.log((m + 1) / (ratio * (n - m + 1)))
                 + (n + 1) * tnp.log((n - m + 1) / (n - k + 1))
                 + (k + 0.5) * tnp.log(ratio * (n - k + 1) / (k + 1))
                 + _stirling_tail(m) + _stirling_tail(n - m) - _stirling_tail(k)
                 - _stirling_tail(n - k))
        return k, quick | (~never & (v <= bound))

    return propose


def multinomial(key: ArrayLike, n: ArrayLike, p: ArrayLike, shape=None, dtype=F32) -> Value:
    """How often each of the outcomes along the last axis of `p` comes in `n` trials, as floats.

    `shape` is that of the result: it ends with the number of outcomes.
    """
    dtype = float_dtype(dtype)
    p, n = floating(p), asarray(n)
    if shape is None:
        shape = (*broadcast_shapes(n.shape, p.shape[:-1]), p.shape[-1])
    shape = shape_of(shape)
    if shape[-1:] != p.shape[-1:]:
        raise OpError(f"multinomial: the shape {shape} does not end with {p.shape[-1]}, the number of"
                      " outcomes", user_location())
    p = broadcast_to(p, shape)
    remaining = broadcast_to(to_dtype(n, dtype_of(p)), shape[:-1])
    after = tnp.flip(tnp.cumsum(tnp.flip(p, -1), -1), -1)
    ratios = tnp.clip(p / tnp.where(after == 0, 1, after), 0, 1)
    keys = split(key, shape[-1])
    counts: list[Value] = []
    for i in range(shape[-1]):
        counts.append(binomial(keys[i], remaining, ratios[..., i], dtype=dtype_of(p)))
        remaining = remaining - counts[-1]
    return convert(tnp.stack(counts, -1), dtype)
