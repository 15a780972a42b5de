"""The reciprocal of the square root, on f32 and f64."""

from __future__ import annotations

import math

from .mathbody import Body

_SCALES = {32: (-90, 60), 64: (-900, 600)}
"""Where residuals would underflow, and the power of two that prevents it."""


def reciprocal_root(bits: int) -> str:
    """One over the root, and one step for what the root and the division rounded away."""
    b = Body("rsqrt", bits)
    below, scale = _SCALES[bits]
    small = b.compare("olt", "%x", b.number(2.0**below))
    x = b.select(small, b.op("fmul", "%x", b.number(2.0**scale)), "%x")
    root = b.call("sqrt", x)
    y = b.op("fdiv", b.number(1.0), root)
    minus = b.do(f"fneg {b.kind} {root}")
    division = b.fma(minus, y, b.number(1.0))
    rooting = b.op("fmul", b.op("fmul", b.fma(minus, root, x), y), b.number(-0.5))
    better = b.fma(y, b.fma(rooting, y, division), y)
    # 1 / 0 and 1 / inf are right as they are.
    finite = b.do(f"and i1 {b.compare('olt', b.call('fabs', y), b.number(math.inf))}, "
                  f"{b.compare('olt', x, b.number(math.inf))}")
    y = b.select(finite, better, y)
    return b.finish(b.select(small, b.op("fmul", y, b.number(2.0 ** (scale // 2))), y))
