"""Functions by Chebyshev series: erfc, and the exponentially scaled Bessel functions i0e and i1e.

The coefficients were fitted with 50 digits; the series are good to 1e-16. f32 uses fewer terms.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.dtypes import F64
from .elementwise import absolute, erf, exp, isinf, less, maximum, minimum, sign, sqrt, where
from .gamma import in_double, in_single
from .promote import ArrayLike, Value, dtype_of

# (1 + 2x) exp(x**2) erfc(x) in t = (x - 3.75) / (x + 3.75)
_ERFCX = (1.1775789345674017, -0.004590054580646478, -0.08424913336651792, 0.05920993999819189,
    -0.026658668435305753, 0.009074997670705265, -0.002413163540417608, 0.0004907758365258086,
    -6.916973302501207e-05, 4.13902798607301e-06, 7.74038306619849e-07, -2.1886401049234397e-07,
    1.076499946567091e-08, 4.521959811218287e-09, -7.754400208831351e-10,
    -6.318088340886684e-11, 2.86879501093067e-11, 1.9455868545777347e-13, -9.65469674843344e-13,
    3.25254814814874e-14, 3.3478119482868056e-14, -1.864562880419313e-15,
    -1.2507950530688648e-15, 7.418235256624044e-17, 5.068148904796111e-17)

# exp(-x) I0(x) in t = x/4 - 1 up to 8, and times sqrt(x) in t = 16/x - 1 above; I1(x)/x likewise
_I0_SMALL = (0.33839763720473803, -0.3046826723431984, 0.17162090152220877, -0.09490109704804764,
    0.04930528423967071, -0.02373741480589947, 0.010546460394594998, -0.004324309995050576,
    0.0016394756169413357, -0.0005763755745385824, 0.00018850288509584165,
    -5.754195010082104e-05, 1.6448448070728896e-05, -4.4167383584587505e-06,
    1.1173875391201037e-06, -2.670793853940612e-07, 6.046995022541919e-08,
    -1.300025009986248e-08, 2.6598237246823866e-09, -5.189795601635263e-10,
    9.675809035373237e-11, -1.726826291441556e-11, 2.95505266312964e-12, -4.856446783111929e-13,
    7.676185498604936e-14, -1.1685332877993451e-14, 1.715391285555133e-15,
    -2.431279846547955e-16, 3.3307945188222384e-17, -4.4153416464793395e-18)
_I0_LARGE = (0.4022452055070544, 0.0033691164782556943, 6.889758346916825e-05, 2.8913705208347567e-06,
    2.0489185894690638e-07, 2.266668990498178e-08, 3.3962320257083865e-09, 4.94060238822497e-10,
    1.1889147107846439e-11, -3.1499165279632416e-11, -1.3215811840447713e-11,
    -1.7941785315068062e-12, 7.180124451383666e-13, 3.8527783827421426e-13,
    1.54008621752141e-14, -4.150569347287222e-14, -9.554846698828307e-15,
    3.8116806693526224e-15, 1.7725601330565263e-15, -3.425485619677219e-16,
    -2.8276239805165836e-16, 3.461222867697461e-17, 4.46562142029676e-17,
    -4.830504485944182e-18, -7.233180487874754e-18, 9.921475412173699e-19,
    1.193650890845982e-18)
_I1_SMALL = (0.12629359322181682, -0.17641651835783406, 0.1026436586898471, -0.05294598120809499,
    0.024726449030626516, -0.010564084894626197, 0.004156422944312888, -0.0015135724506312532,
    0.0005122859561685758, -0.00016176081582589674, 4.781565107550054e-05,
    -1.3273163656039436e-05, 3.4702513081376785e-06, -8.568720264695455e-07,
    2.0032947535521353e-07, -4.445059128796328e-08, 9.381537386495773e-09,
    -1.8872497517228294e-09, 3.625590281552117e-10, -6.663489723502027e-11,
    1.1736186298890901e-11, -1.9839743977649436e-12, 3.223793365945575e-13,
    -5.042185504727912e-14, 7.600684294735408e-15, -1.1055969477353862e-15,
    1.5536319577362005e-16, -2.111421214358166e-17, 2.7779141127610464e-18)
_I1_LARGE = (0.38928811750914005, -0.009761097491361469, -0.00011058893876262371,
    -3.882564808877691e-06,
    -2.512236237870209e-07, -2.6314688468895196e-08, -3.835380385964237e-09,
    -5.589743462196584e-10, -1.8974958123505413e-11, 3.2526035830154884e-11,
    1.4125807436613782e-11, 2.0356285441470896e-12, -7.198551776245908e-13,
    -4.0835511110921974e-13, -2.1015418427726643e-14, 4.272440016711951e-14,
    1.0420276984128802e-14, -3.8144030724370075e-15, -1.8803547755107825e-15,
    3.3082023109209285e-16, 2.96262899764595e-16, -3.209525921993424e-17,
    -4.6503053684893586e-17, 4.414348323071708e-18, 7.517296310842105e-18,
    -9.314178867326884e-19, -1.242193275194891e-18)


def _series(t: Value, coefficients: Sequence[float]) -> Value:
    """The Chebyshev series at t in [-1, 1], by Clenshaw's recurrence."""
    if dtype_of(t) is not F64:
        coefficients = [c for c in coefficients if abs(c) > 1e-9]
    twice = 2 * t
    ahead: Value | float = 0.0
    current: Value | float = coefficients[-1]
    for c in reversed(coefficients[1:-1]):
        ahead, current = current, twice * current - ahead + c
    return t * current - ahead + coefficients[0]


@in_single
def erfc(x: ArrayLike) -> Value:
    """1 - erf(x), without cancellation for large x."""
    size = absolute(x)
    t = (size - 3.75) / (size + 3.75)
    # exp(-x**2) with the rounding of the square put back.
    split = 2.0**27 + 1 if dtype_of(x) is F64 else 2.0**12 + 1
    bounded = minimum(size, 40.0)
    high = bounded * split
    high = high - (high - bounded)
    gauss = exp(-high * high) * exp((high - bounded) * (high + bounded))
    tail = where(isinf(size), 0.0, gauss * _series(where(isinf(size), 0.0, t), _ERFCX)
                 / (1 + 2 * bounded))
    return where(less(size, 0.5), 1 - erf(x), where(less(x, 0), 2 - tail, tail))


@in_double
def i0e(x: ArrayLike) -> Value:
    """exp(-abs(x)) times the modified Bessel function of order 0."""
    size = absolute(x)
    near = _series(minimum(size, 8.0) / 4 - 1, _I0_SMALL)
    far = maximum(size, 8.0)
    return where(less(size, 8.0), near, _series(16 / far - 1, _I0_LARGE) / sqrt(far))


@in_double
def i1e(x: ArrayLike) -> Value:
    """exp(-abs(x)) times the modified Bessel function of order 1."""
    size = absolute(x)
    near = _series(minimum(size, 8.0) / 4 - 1, _I1_SMALL) * size
    far = maximum(size, 8.0)
    return sign(x) * where(less(size, 8.0), near, _series(16 / far - 1, _I1_LARGE) / sqrt(far))


@in_single
def i0(x: ArrayLike) -> Value:
    """The modified Bessel function of order 0."""
    return exp(absolute(x)) * i0e(x)


__all__ = ["erfc", "i0", "i0e", "i1e"]
