"""Rules of `simplify` for dims of one element: what they are around is done without them.

`keepdims` makes a column of the sums of rows. The reshape moves behind what is done to the column, up
to the broadcast that spreads it over the rows: nothing stands between a reduction and its readers.
"""

from __future__ import annotations

import numpy as np

from ..ir.core import Op, Value
from ..ir.dims import Extent
from ..ir.rewrite import Rewriter
from ..ops.declare import definition


def _widened_from(value: Value) -> Value | None:
    """What `value` is a reshape of that only puts dims of one element in."""
    if value.op is None or value.op.name != "stablehlo.reshape":
        return None
    source = value.op.operands[0]
    left = list(source.shape)
    for extent in value.shape:
        if left and left[0] == extent:
            left.pop(0)
        elif extent != 1:
            return None
    return None if left or len(source.shape) == len(value.shape) else source


def reshaped_afterwards(op: Op, operands: list[Value], rewriter: Rewriter) -> Value | None:
    """f(reshape(x), reshape(y)) as reshape(f(x, y)), for an elementwise f; constants fit any shape."""
    if len(op.results) != 1 or not op.result.shape:
        return None
    sources = [_widened_from(v) for v in operands]
    shapes = {s.shape for s in sources if s is not None}
    if len(shapes) != 1:
        return None
    (shape,) = shapes
    taken: list[Value] = []
    for value, source in zip(operands, sources, strict=True):
        if source is None and value.shape:
            source = _filled(value, shape, rewriter)
            if source is None:
                return None
        taken.append(value if source is None else source)
    inner = rewriter.append(op.definition, taken, [op.result.type.with_shape(shape)], op.attributes,
                            location=op.location).result
    return rewriter.append(definition("stablehlo.reshape"), [inner], [op.result.type],
                           {"shape": op.result.shape}, location=op.location).result


def _filled(value: Value, shape: tuple[Extent, ...], rewriter: Rewriter) -> Value | None:
    """A constant or broadcast scalar in another shape."""
    op = value.op
    kind = value.type.with_shape(shape)
    if op is not None and op.name == "stablehlo.broadcast_in_dim" and not op.operands[0].shape:
        return rewriter.append(op.definition, op.operands, [kind],
                               {"shape": shape, "broadcast_dimensions": ()},
                               location=op.location).result
    if op is None or op.name != "stablehlo.constant":
        return None
    data = op.attributes["value"]
    sizes = [e for e in shape if isinstance(e, int)]
    if len(sizes) < len(shape) or not data.size or (any(data.strides) and data.size > 1):
        return None
    spread = np.broadcast_to(data.reshape(-1)[0], sizes)
    return rewriter.append(op.definition, [], [kind], {"value": spread}, location=op.location).result
