"""tanh of f32 by tables that a processor looks up in a register, sixteen numbers at once (AVX-512).

A polynomial for each half of an octave, about a number whose tanh is almost an f32: no division, half
the instructions of what all processors can do (`mathlib_single.py`).
"""

from __future__ import annotations

from collections.abc import Mapping

from .mathbody import Body

LANES = 16
_TABLES = (
    (2.5009396076202393, 3.50058650970459, 5.001413345336914, 7.0, 8.75, 8.75, 0.0, 0.0,
     0.15629765391349792, 0.21875740587711334, 0.31252342462539673, 0.4375085234642029,
     0.6251066327095032, 0.875141978263855, 1.2504210472106934, 1.7504297494888306),
    (0.9866392612457275, 0.9981800317764282, 0.9999094605445862, 0.9999983310699463,
     0.9999999403953552, 0.9999999403953552, 0.0, 0.0, 0.15503723919391632, 0.21533340215682983,
     0.3027310073375702, 0.41157713532447815, 0.5546735525131226, 0.7039772272109985,
     0.848401665687561, 0.9414244294166565),
    (0.02654297463595867, 0.003636623965576291, 0.000181064082426019, 3.3261094358749688e-06,
     1.0043996212516504e-07, 1.0043996212516504e-07, 1.0, 1.0, 0.9759634733200073, 0.9536315202713013,
     0.9083539247512817, 0.8306042551994324, 0.6923372745513916, 0.5044160485267639,
     0.2802146077156067, 0.11372004449367523),
    (-0.026188205927610397, -0.003630031133070588, -0.0001811683614505455, -3.2249420200969325e-06,
     1.9310972732000664e-07, 1.9310972732000664e-07, -3.22355364623661e-10, -3.22355364623661e-10,
     -0.15131059288978577, -0.20534878969192505, -0.27498695254325867, -0.3418577313423157,
     -0.384021133184433, -0.3550974428653717, -0.23773455619812012, -0.10705879330635071),
    (0.01699044741690159, 0.0024112039245665073, 0.00012076705752406269, 2.2178817289386643e-06,
     6.696245691273361e-08, 6.696245691273361e-08, -0.333333283662796, -0.333333283662796,
     -0.3020072877407074, -0.2736155390739441, -0.21951380372047424, -0.13615448772907257,
     -0.01778450421988964, 0.08184932172298431, 0.10829012840986252, 0.06288103014230728),
    (-0.008037394843995571, -0.0011961797717958689, -5.9633966884575784e-05, -1.3692980473933858e-06,
     -1.4183967778080842e-06, -1.4183967778080842e-06, -2.467127615091158e-06, -2.467127615091158e-06,
     0.09676290303468704, 0.12764041125774384, 0.15817780792713165, 0.17000827193260193,
     0.1378564089536667, 0.06075777858495712, -0.012625457718968391, -0.023515107110142708),
    (0.0028575719334185123, 0.00047152864863164723, 2.383075661782641e-05, 4.404517994771595e-07,
     1.3364156892237133e-08, 1.3364156892237133e-08, 0.1333879679441452, 0.1333879679441452,
     0.38631927967071533, 0.0020286578219383955, 0.034100428223609924, -0.012427570298314095,
     -0.0537291020154953, -0.05977482721209526, -0.019177839159965515, 0.0037040868774056435),
    (-0.000698537565767765, -0.00015687281847931445, -9.183104339172132e-06, 1.2125591197786889e-08,
     1.633240572118666e-06, 1.633240572118666e-06, -0.0005784697714261711, -0.0005784697714261711,
     0.41363033652305603, -0.2888762354850769, -0.08489570021629333, -0.06483443826436996,
     -0.02343938499689102, 0.012745765969157219, 0.015081441961228848, 0.002075705910101533),
    (5.926522862864658e-05, 4.182269549346529e-05, 2.6156344574701507e-06, 4.719647606066246e-08,
     1.3577022839328379e-09, 1.3577022839328379e-09, -0.051427241414785385, -0.051427241414785385,
     -153.9921417236328, 45.66960525512695, 1.565894365310669, 0.913479208946228, -0.02007271908223629,
     0.044374264776706696, -0.004351392854005098, -0.0019774932879954576),
)
"""The number t is the distance from, tanh there, and the coefficients of t, t**2 ... (fitted with 40
digits, error 0.16 of a last place). The place is the last bit of the exponent field but two and those
around it: 8 holds 1/8 to 3/16, 9 holds 3/16 to 1/4, and so on; 6 and 7 hold what is below 1/8."""
_END = 9.5
"""From here on tanh is 1."""
_LEAST = 2.0**-4
"""Below, the place is that of this number."""


def tanh(lanes: int, variants: Mapping[int, str] | None = None) -> str:
    """The function of vectors of 16, which others call. They are called until loops are vectorised;
    `variants`: those of the scalar function, by their lanes."""
    b = Body("tanh", 32, lanes=lanes)
    if lanes != LANES:
        return widened(b, variants)
    size = b.call("fabs", "%x")
    size = b.select(b.compare("ogt", size, b.number(_END)), b.number(_END), size)
    least = b.number(_LEAST)
    place = b.integer("lshr", b.bits_of(b.select(b.compare("olt", size, least), least, size)), 22)
    centre, *coefficients = (look_up(b, table, place) for table in _TABLES)
    t = b.op("fsub", size, centre)
    y = coefficients[-1]
    for c in reversed(coefficients[:-1]):
        y = b.fma(y, t, c)
    return b.finish(b.call("copysign", y, "%x"))


def look_up(b: Body, table: tuple[float, ...], place: str) -> str:
    """The numbers of a table of 16 or 32 at the places that the low bits of words name."""
    parts = [f"{b.kind} <{_constants(b, table[k:k + LANES])}>" for k in range(0, len(table), LANES)]
    name = "permvar.sf" if len(parts) == 1 else "vpermi2var.ps"
    given = ", ".join([parts[0], f"{b.word} {place}", *parts[1:]])
    return b.do(f"call {b.kind} @llvm.x86.avx512.{name}.512({given})")


def widened(b: Body, variants: Mapping[int, str] | None) -> str:
    """The function of vectors of 16 for fewer numbers."""
    kind = f"<{LANES} x float>"
    if b.lanes == 1:
        given = b.do(f"insertelement {kind} zeroinitializer, float %x, i32 0")
    else:
        places = ", ".join(f"i32 {n % b.lanes}" for n in range(LANES))
        given = b.do(f"shufflevector {b.kind} %x, {b.kind} poison, <{LANES} x i32> <{places}>")
    y = b.do(f"call {kind} @{b.name.removesuffix(b.suffix)}v{LANES}f32({kind} {given})")
    if b.lanes == 1:
        y = b.do(f"extractelement {kind} {y}, i32 0")
    else:
        places = ", ".join(f"i32 {n}" for n in range(b.lanes))
        y = b.do(f"shufflevector {kind} {y}, {kind} poison, <{b.lanes} x i32> <{places}>")
    return b.finish_called(y, variants)


def _constants(b: Body, table: tuple[float, ...]) -> str:
    scalar = Body(b.name, 32)
    return ", ".join(f"float {scalar.number(v)}" for v in table)
