"""Reductions: reduce, reduce_window, select_and_scatter.

StableHLO gives each a region that combines two elements. `combiner` recognises the usual regions
(add, maximum, ...) so that evaluation, derivatives and code generation need not interpret them.
"""

from __future__ import annotations

import math
from itertools import product as cartesian

import ml_dtypes
import numpy as np

from ..errors import UnsupportedError
from ..ir.core import Block, TensorType, Value
from ..ir.dtypes import DType, as_dtype
from ..trace.core import bind, iota_beside, trace_region
from .declare import Factors, OpDefinition, op, require
from .shape import later

COMBINERS: dict[str, np.ufunc] = {
    "add": np.add, "multiply": np.multiply, "maximum": np.maximum, "minimum": np.minimum,
    "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
}


def combiner(block: Block) -> str | None:
    """The name of the one op a reducer region applies to its two arguments, None if it is more."""
    if len(block.ops) == 1 and len(block.arguments) == 2 and len(block.returns) == 1:
        (only,) = block.ops
        short = only.name.partition(".")[2]
        if (short in COMBINERS and set(only.operands) == set(block.arguments)
                and block.returns[0] is only.result):
            return short
    return None


_REDUCERS: dict[tuple[str, DType], Block] = {}


def reducer(kind: str, dtype: DType) -> Block:
    """A region that applies `stablehlo.<kind>` to two scalars; shared, never edited."""
    block = _REDUCERS.get((kind, dtype))
    if block is None:
        scalar = TensorType((), dtype)
        block = trace_region(lambda a, b: [bind(f"stablehlo.{kind}", a, b)], [scalar, scalar])
        _REDUCERS[kind, dtype] = block
    return block


def replacement(dtype: DType) -> Block:
    """A region that returns its second argument: a scatter with it writes, the last one wins."""
    block = _REDUCERS.get(("replace", dtype))
    if block is None:
        scalar = TensorType((), dtype)
        block = trace_region(lambda _, new: [new], [scalar, scalar])
        _REDUCERS["replace", dtype] = block
    return block


def identity_of(kind: str, dtype: DType) -> np.ndarray:
    """The value that leaves the other operand unchanged, as a 0-d array."""
    if kind in ("maximum", "minimum"):
        sign = -1 if kind == "maximum" else 1
        if dtype.kind == "float":
            extreme = np.asarray(sign * np.inf).astype(dtype.numpy)
            info = ml_dtypes.finfo(dtype.numpy)
            return extreme if extreme == sign * np.inf else np.asarray(
                info.min if sign < 0 else info.max, dtype.numpy)
        if dtype.kind == "bool":
            return np.asarray(kind == "minimum")
        info = ml_dtypes.iinfo(dtype.numpy)
        return np.asarray(info.min if kind == "maximum" else info.max, dtype.numpy)
    value = {"add": 0, "multiply": 1, "or": 0, "xor": 0, "and": -1 if dtype.kind == "int" else 1}
    if kind == "and" and dtype.kind == "uint":
        return np.asarray(ml_dtypes.iinfo(dtype.numpy).max, dtype.numpy)
    return np.asarray(value[kind]).astype(dtype.numpy)


def reduce(x, dims, kind: str):
    """`x` reduced over `dims` with the combiner `kind`; the dims are removed."""
    dtype = as_dtype(x.dtype)
    dims = tuple(sorted(dims))
    if not dims:
        return x
    return bind("stablehlo.reduce", x, identity_of(kind, dtype), dimensions=dims,
                regions=[reducer(kind, dtype)])


def reduce_sum(x, dims):
    """Sum over `dims`."""
    return reduce(x, dims, "add")


def arg_extreme(x, dim: int, kind: str, index_dtype: DType):
    """`(extreme, index)` along `dim`: the first index of the maximum or minimum, NaN first of all.

    `kind` is "maximum" or "minimum".
    """
    dtype = as_dtype(x.dtype)
    direction = "GT" if kind == "maximum" else "LT"

    def body(value, index, other, at):
        better = bind("stablehlo.compare", value, other, comparison_direction=direction)
        nan = bind("stablehlo.compare", value, value, comparison_direction="NE")
        better = bind("stablehlo.or", better, nan)
        tie = bind("stablehlo.and",
                   bind("stablehlo.compare", value, other, comparison_direction="EQ"),
                   bind("stablehlo.compare", index, at, comparison_direction="LT"))
        both_nan_or_tie = bind("stablehlo.or", better, tie)
        return [bind("stablehlo.select", better, value, other),
                bind("stablehlo.select", both_nan_or_tie, index, at)]

    types = [TensorType((), dtype), TensorType((), index_dtype)] * 2
    iota = iota_beside(x, TensorType(tuple(x.shape), index_dtype), dim)
    return bind("stablehlo.reduce", x, iota, identity_of(kind, dtype),
                np.zeros((), index_dtype.numpy), dimensions=(dim,),
                regions=[trace_region(body, types)])


def run_reducer(block: Block, left: list[np.ndarray], right: list[np.ndarray]):
    """Apply a reducer region elementwise to whole arrays."""
    kind = combiner(block)
    if kind is not None:
        return [COMBINERS[kind](left[0], right[0])]
    from ..ir.evaluator import run_scalar_block

    return run_scalar_block(block, [*left, *right])


@op("stablehlo.reduce")
class Reduce(OpDefinition):
    """Combine elements along `dimensions`. Operands: n inputs, then n scalar initial values."""

    attributes = {"dimensions": "i64_array"}
    regions = ("body",)

    def infer(operands, attributes, regions):
        count = len(operands) // 2
        inputs, inits = operands[:count], operands[count:]
        dims = attributes["dimensions"]
        first = inputs[0]
        require(all(x.shape == first.shape for x in inputs), "C1",
                f"reduce needs inputs of one shape, got {' and '.join(map(str, inputs))}")
        require(all(i.rank == 0 for i in inits), "C2", "initial values of reduce are scalars")
        require(all(0 <= d < first.rank for d in dims), "C4",
                f"reduce dimensions {list(dims)} of {first}")
        require(len(set(dims)) == len(dims), "C5", f"reduce dimensions {list(dims)} repeat")
        shape = [e for d, e in enumerate(first.shape) if d not in dims]
        return [x.with_shape(shape) for x in inputs]

    def evaluate(operands, attributes, regions, result_types):
        count = len(operands) // 2
        dims, (body,) = tuple(attributes["dimensions"]), regions
        inputs, inits = operands[:count], operands[count:]
        kind = combiner(body)
        if kind is not None:
            (x,), (init,) = inputs, inits
            function = COMBINERS[kind]
            # NumPy's pairwise order needs a wider accumulator for narrow types.
            wide = as_dtype(x.dtype).wide
            total = function.reduce(x.astype(wide, copy=False), axis=dims, dtype=wide,
                                    initial=init.astype(wide)[()])
            return [total.astype(x.dtype)]
        rest = [d for d in range(inputs[0].ndim) if d not in dims]
        shape = [inputs[0].shape[d] for d in rest]
        count = int(np.prod([inputs[0].shape[d] for d in dims], dtype=np.int64))
        flat = [x.transpose([*rest, *dims]).reshape([*shape, count]) for x in inputs]
        state = [np.broadcast_to(i, shape) for i in inits]
        for k in range(count):
            state = run_reducer(body, state, [x[..., k] for x in flat])
        return state

    def vjp(cotangents, op, operands, results):
        if len(op.results) > 1:
            return _variadic_vjp(cotangents, op, operands, results)
        (x, _), (result,), ct = operands, results, cotangents[0]
        kind, dims = combiner(op.regions[0]), op.attributes["dimensions"]
        kept = tuple(d for d in range(len(x.shape)) if d not in dims)
        constant = is_constant(op.operands[1])

        def spread(y):
            return bind("stablehlo.broadcast_in_dim", y, shape=tuple(x.shape),
                        broadcast_dimensions=kept)

        if kind == "add":
            return [spread(ct), None if constant else reduce_sum(ct, range(len(ct.shape)))]
        if kind in ("maximum", "minimum") and constant:
            # Elements that tie for the extreme share the cotangent, as in JAX.
            chosen = bind("stablehlo.compare", x, spread(result), comparison_direction="EQ")
            mask = bind("stablehlo.convert", chosen, dtype=as_dtype(x.dtype))
            return [mask * spread(ct / reduce_sum(mask, dims)), None]
        return _tree_vjp(cotangents, op, operands, results)

    def batch(op, operands, batched, batch):
        count, dims = len(op.results), later(op.attributes["dimensions"])
        inputs, inits = operands[:count], operands[count:]
        whole = batch.spread_all(inputs, batched[:count])
        if not any(batched[count:]):
            return batch.bind(op, *whole, *inits, dimensions=dims)
        kind = combiner(op.regions[0])
        if kind is None:
            return batch.each(op, operands, batched)
        total = reduce(*whole, dims, kind)
        return [bind(f"stablehlo.{kind}", batch.align(*inits, True, op.result.shape), total)]

    def factors(op):
        count, dims = len(op.results), op.attributes["dimensions"]
        x = op.operands[0]
        row = tuple(range(len(x.shape)))
        kept = tuple(d for d in row if d not in dims)
        kind = combiner(op.regions[0])
        reduction = dict.fromkeys(dims, kind) if kind else {}
        if not kind:
            row = tuple(None if d in dims else d for d in row)
        return Factors([row] * count + [()] * count, [kept] * count, reduction,
                       initial=range(count, 2 * count))

    def element(emit, op, index, number=0):
        count, dims = len(op.results), op.attributes["dimensions"]
        inputs, inits = op.operands[:count], op.operands[count:]

        def at(reduced):
            place = dict(zip(sorted(dims), reduced, strict=True))
            kept = iter(index)
            return [place[d] if d in place else next(kept)
                    for d in range(len(inputs[0].shape))]

        extents = [emit.extent(inputs[0], d) for d in sorted(dims)]
        return emit.reduce(
            op.regions[0], [emit.at(i, []) for i in inits], extents,
            lambda reduced: [emit.at(x, at(reduced)) for x in inputs])


def is_constant(value: Value) -> bool:
    """Is it a literal, which needs no cotangent?"""
    while value.op is not None and value.op.name == "stablehlo.broadcast_in_dim":
        value = value.op.operands[0]
    return value.op is not None and value.op.name == "stablehlo.constant"


def _tree_vjp(cotangents, op, operands, results):
    """By the derivative of the same reduction as a tree."""
    from .fold import tree_reduce
    from .functional import pull_all

    body, dims, count = op.regions[0], tuple(op.attributes["dimensions"]), len(op.results)
    found = pull_all(lambda *x: tree_reduce(body, x[:count], x[count:], dims), operands, cotangents,
                     results)
    return _without_constants(op, found)


def _without_constants(op, found):
    """0 * inf would be NaN where a derivative by a constant is multiplied by its tangent."""
    count = len(op.results)
    return [None if i >= count and is_constant(v) else f
            for i, (v, f) in enumerate(zip(op.operands, found, strict=True))]


def _variadic_vjp(cotangents, op, operands, results):
    """arg_extreme: the cotangent of the extreme goes to the element at the returned index."""
    x, iota = operands[0], operands[1]
    if all(c is None for c in cotangents):
        return [None] * len(operands)
    if not _keeps_an_element(op):
        return _tree_vjp(cotangents, op, operands, results)
    dims = op.attributes["dimensions"]
    kept = tuple(d for d in range(len(x.shape)) if d not in dims)

    def spread(y):
        return bind("stablehlo.broadcast_in_dim", y, shape=tuple(x.shape),
                    broadcast_dimensions=kept)

    here = bind("stablehlo.compare", iota, spread(results[1]), comparison_direction="EQ")
    zero = bind("stablehlo.broadcast_in_dim", np.zeros((), x.dtype), shape=tuple(x.shape),
                broadcast_dimensions=())
    return [bind("stablehlo.select", here, spread(cotangents[0]), zero), None, None, None]


def _keeps_an_element(op) -> bool:
    """Is it a reduce of values with their positions along the one dim, which selects one of them?"""
    if len(op.results) != 2 or not op.results[1].dtype.is_integer:
        return False
    place, dims = op.operands[1].op, tuple(op.attributes["dimensions"])
    return (place is not None and place.name == "stablehlo.iota"
            and dims == (place.attributes["iota_dimension"],)
            and all(r.op is not None and r.op.name == "stablehlo.select"
                    for r in op.regions[0].returns)
            and is_constant(op.operands[2]))


# -- windows --------------------------------------------------------------------------------------

_STRAIGHT = 32
"""The most elements of a window that are combined without a loop."""

_WINDOW = {"window_dimensions": "i64_array", "window_strides": "i64_array",
           "base_dilations": "i64_array", "window_dilations": "i64_array",
           "padding": "i64_pairs"}


def window_defaults(attributes, rank: int) -> dict:
    """The window attributes with absent ones filled in (strides and dilations 1, no padding)."""
    full = dict(attributes)
    for name in ("window_strides", "base_dilations", "window_dilations"):
        full.setdefault(name, (1,) * rank)
    full.setdefault("padding", ((0, 0),) * rank)
    return full


def _window_shape(x: TensorType, attributes) -> list:
    a = window_defaults(attributes, x.rank)
    require(len(a["window_dimensions"]) == x.rank, "C4",
            f"window {list(a['window_dimensions'])} does not have the rank of {x}")
    shape = []
    for extent, window, stride, base, dilation, (low, high) in zip(
            x.shape, a["window_dimensions"], a["window_strides"], a["base_dilations"],
            a["window_dilations"], a["padding"], strict=True):
        require(window > 0 and stride > 0 and base > 0 and dilation > 0, "C5",
                "window dimensions, strides and dilations are positive")
        if window == stride == base == 1 and low == high == 0:
            shape.append(extent)
            continue
        size = low + ((extent - 1) * base + 1 if extent != 0 else 0) + high
        span = (window - 1) * dilation + 1
        shape.append(0 if size < span else (size - span) // stride + 1)
    return shape


def _window_views(x, init, a):
    """`x` padded and dilated, and the list of window offsets (in row-major window order)."""
    from .shape import Pad

    pads = dict(edge_padding_low=[p[0] for p in a["padding"]],
                edge_padding_high=[p[1] for p in a["padding"]],
                interior_padding=[b - 1 for b in a["base_dilations"]])
    type = Pad.infer([TensorType(x.shape, as_dtype(x.dtype)),
                      TensorType((), as_dtype(x.dtype))], pads, ())[0]
    padded = Pad.evaluate([x, init], pads, (), [type])[0]
    offsets = list(cartesian(*(range(0, w * d, d) for w, d in
                               zip(a["window_dimensions"], a["window_dilations"], strict=True))))
    return padded, offsets


def _window_at(padded, offset, strides, shape):
    return padded[tuple(slice(o, o + (n - 1) * s + 1 if n else o, s)
                        for o, s, n in zip(offset, strides, shape, strict=True))]


def _lead_window(attributes) -> dict:
    """The window attributes with a leading dim on which the window does not move."""
    return {k: ((0, 0) if k == "padding" else 1, *v) for k, v in attributes.items() if k in _WINDOW}


@op("stablehlo.reduce_window")
class ReduceWindow(OpDefinition):
    """Combine the elements of each window (pooling, cumulative sums)."""

    attributes = _WINDOW
    optional = frozenset(_WINDOW) - {"window_dimensions"}
    regions = ("body",)

    def infer(operands, attributes, regions):
        count = len(operands) // 2
        shape = _window_shape(operands[0], attributes)
        return [x.with_shape(shape) for x in operands[:count]]

    def evaluate(operands, attributes, regions, result_types):
        count = len(operands) // 2
        inputs, inits = operands[:count], operands[count:]
        shape = result_types[0].shape
        a = window_defaults(attributes, inputs[0].ndim)
        views = [_window_views(x, i, a) for x, i in zip(inputs, inits, strict=True)]
        state = [np.broadcast_to(i, shape) for i in inits]
        for offset in views[0][1]:
            window = [_window_at(p, offset, a["window_strides"], shape) for p, _ in views]
            state = run_reducer(regions[0], state, window)
        return state

    def vjp(cotangents, op, operands, results):
        x, ct = operands[0], cotangents[0]
        kind = combiner(op.regions[0])
        a = window_defaults(op.attributes, len(x.shape))
        constant = is_constant(op.operands[-1])
        if kind == "add":
            if constant:
                return [_sum_window_vjp(ct, x, a), None]
            # What lies outside of x is the initial value, as often as it is in windows.
            return _window_tree_vjp(cotangents, op, operands, results)
        if kind in ("maximum", "minimum") and constant and set(a["window_dilations"]) == {1}:
            return [_extreme_window_vjp(ct, x, a, kind), None]
        return _window_tree_vjp(cotangents, op, operands, results)

    def batch(op, operands, batched, batch):
        count = len(op.results)
        if any(batched[count:]):
            return batch.each(op, operands, batched)
        inputs = batch.spread_all(operands[:count], batched[:count])
        return batch.bind(op, *inputs, *operands[count:], **_lead_window(op.attributes))

    def factors(op):
        count, rank = len(op.results), len(op.operands[0].shape)
        a = window_defaults(op.attributes, rank)
        row = [d if a["window_dimensions"][d] == a["window_strides"][d] == 1
               == a["base_dilations"][d] and tuple(a["padding"][d]) == (0, 0) else None
               for d in range(rank)]
        return Factors([row] * count + [()] * count, [row] * count)

    def element(emit, op, index, number=0):
        count = len(op.results)
        inputs, inits = op.operands[:count], op.operands[count:]
        a = window_defaults(op.attributes, len(index))
        initial = [emit.at(i, []) for i in inits]
        moving = [d for d, w in enumerate(a["window_dimensions"]) if w > 1]
        dtypes = [i.dtype for i in inits]

        # Few elements are combined without loops or branches, so that LLVM makes vectors along the
        # innermost dim: 15 times as fast for a 3 x 3 window.
        straight = (math.prod(a["window_dimensions"]) <= _STRAIGHT
                    and 0 not in inputs[0].shape)

        def window_element(window):
            offset = dict(zip(moving, window, strict=True))
            place, inside = [], []
            for d, i in enumerate(index):
                low, high = a["padding"][d]
                base = a["base_dilations"][d]
                j = emit.imul(i, a["window_strides"][d])
                if d in offset:
                    j = emit.iadd(j, emit.imul(offset[d], a["window_dilations"][d]))
                j = emit.isub(j, low)
                if low or high or base > 1:
                    last = emit.isub(emit.extent(inputs[0], d), 1)
                    inside.append(emit.icompare("sge", j, 0))
                    if base > 1:
                        inside.append(emit.icompare("eq", emit.irem(j, base), 0))
                        j = emit.idiv(emit.imax(j, 0) if straight else j, base)
                    inside.append(emit.icompare("sle", j, last))
                    if straight:
                        j = emit.imin(emit.imax(j, 0), last)
                place.append(j)
            if not inside:
                return [emit.at(x, place) for x in inputs]
            if straight:
                return [emit.select(emit.all(inside), dtype, emit.at(x, place), v)
                        for x, v, dtype in zip(inputs, initial, dtypes, strict=True)]
            return [emit.conditional(emit.all(inside), dtype, lambda x=x: emit.at(x, place),
                                     lambda v=v: v)
                    for x, v, dtype in zip(inputs, initial, dtypes, strict=True)]

        extents = [a["window_dimensions"][d] for d in moving]
        if not straight:
            return emit.reduce(op.regions[0], initial, extents, window_element)
        state = initial
        for window in cartesian(*map(range, extents)):
            state = emit.combine(op.regions[0], state, window_element(window))
        return [emit.rounded(r, t) for r, t in zip(state, dtypes, strict=True)]


def _window_tree_vjp(cotangents, op, operands, results):
    from .fold import tree_reduce_window
    from .functional import pull_all

    body, count, shape = op.regions[0], len(op.results), tuple(results[0].shape)
    a = window_defaults(op.attributes, len(shape))
    found = pull_all(lambda *x: tree_reduce_window(body, x[:count], x[count:], a, shape), operands,
                     cotangents, results)
    return _without_constants(op, found)


def _extreme_window_vjp(ct, x, a, kind: str):
    """Each cotangent goes to the first element of its window that is the extreme."""
    dtype = as_dtype(x.dtype)
    scalar = TensorType((), dtype)
    direction = "GE" if kind == "maximum" else "LE"
    select = trace_region(lambda p, q: [bind(
        "stablehlo.compare", p, q, comparison_direction=direction)], [scalar, scalar])
    spaces = tuple(b - 1 for b in a["base_dilations"])
    none = (0,) * len(spaces)
    if any(spaces):
        x = bind("stablehlo.pad", x, identity_of(kind, dtype), edge_padding_low=none,
                 edge_padding_high=none, interior_padding=spaces)
    found = bind("stablehlo.select_and_scatter", x, ct, np.zeros((), x.dtype),
                 window_dimensions=a["window_dimensions"], window_strides=a["window_strides"],
                 padding=a["padding"], regions=[select, reducer("add", dtype)])
    if not any(spaces):
        return found
    return bind("stablehlo.slice", found, start_indices=none, limit_indices=tuple(found.shape),
                strides=a["base_dilations"])


def _sum_window_vjp(ct, x, a):
    """Transpose of a windowed sum: spread each cotangent over its window."""
    rank = len(x.shape)
    low, high, interior = [], [], []
    for d in range(rank):
        window, stride = a["window_dimensions"][d], a["window_strides"][d]
        base, dilation = a["base_dilations"][d], a["window_dilations"][d]
        if window == stride == base == 1:
            low.append(-a["padding"][d][0])
            high.append(-a["padding"][d][1])
            interior.append(0)
            continue
        span = (window - 1) * dilation
        wide = (x.shape[d] - 1) * base + 1
        spread = (ct.shape[d] - 1) * stride + 1
        before = span - a["padding"][d][0]
        low.append(before)
        high.append(wide + span - spread - before)
        interior.append(stride - 1)
    padded = bind("stablehlo.pad", ct, np.zeros((), ct.dtype), edge_padding_low=tuple(low),
                  edge_padding_high=tuple(high), interior_padding=tuple(interior))
    return bind("stablehlo.reduce_window", padded, np.zeros((), ct.dtype),
                window_dimensions=a["window_dimensions"], window_strides=a["base_dilations"],
                window_dilations=a["window_dilations"],
                regions=[reducer("add", as_dtype(x.dtype))])


@op("stablehlo.select_and_scatter")
class SelectAndScatter(OpDefinition):
    """Add each source element to the place its window selects (the gradient of max pooling)."""

    attributes = {k: _WINDOW[k] for k in ("window_dimensions", "window_strides", "padding")}
    optional = frozenset(attributes)
    regions = ("select", "scatter")

    def infer(operands, attributes, regions):
        x, source, _ = operands
        full = {"window_dimensions": (1,) * x.rank, **attributes}
        expected = _window_shape(x, full)
        require(list(source.shape) == expected, "C1",
                f"select_and_scatter of {x} needs a source of shape {expected}, got {source}")
        return [x]

    def evaluate(operands, attributes, regions, result_types):
        x, source, init = operands
        a = window_defaults({"window_dimensions": (1,) * x.ndim, **attributes}, x.ndim)
        outside = identity_like_padding(regions[0], x.dtype)
        padded, offsets = _window_views(x, outside, a)
        valid, _ = _window_views(np.ones(x.shape, bool), np.asarray(False), a)
        shape, strides = source.shape, a["window_strides"]
        best = np.broadcast_to(outside, shape)
        chosen = np.full(shape, -1)
        for k, offset in enumerate(offsets):
            candidate = _window_at(padded, offset, strides, shape)
            inside = _window_at(valid, offset, strides, shape)
            keep = run_reducer(regions[0], [best], [candidate])[0]
            take = inside & ((chosen < 0) | ~keep.astype(bool))
            best = np.where(take, candidate, best)
            chosen = np.where(take, k, chosen)
        result = np.full(padded.shape, init, x.dtype)
        scatter = combiner(regions[1])
        if scatter is None:
            raise UnsupportedError("select_and_scatter with a custom scatter body")
        places = np.indices(shape)
        windows = np.asarray(offsets).reshape(len(offsets), -1)
        hit = chosen >= 0
        where = tuple((places[d] * strides[d] + windows[chosen][..., d])[hit]
                      for d in range(x.ndim))
        COMBINERS[scatter].at(result, where, source[hit])
        crop = tuple(slice(low, low + extent)
                     for (low, _), extent in zip(a["padding"], x.shape, strict=True))
        return [result[crop]]

    def vjp(cotangents, op, operands, results):
        from .fold import chosen, taken_at

        (x, source, _), ct = operands, cotangents[0]
        if combiner(op.regions[1]) != "add":
            raise UnsupportedError("no derivative for a select_and_scatter that does not add",
                                   op.location)
        a = window_defaults({"window_dimensions": (1,) * len(x.shape), **op.attributes},
                            len(x.shape))
        places = chosen(op.regions[0], x, a, tuple(source.shape))
        return [None, taken_at(ct, places),
                None if is_constant(op.operands[2]) else reduce_sum(ct, range(len(ct.shape)))]

    def batch(op, operands, batched, batch):
        if batched[2]:
            return batch.each(op, operands, batched)
        full = {"window_dimensions": (1,) * len(op.result.shape), **op.attributes}
        return batch.bind(op, *batch.spread_all(operands[:2], batched[:2]), operands[2],
                          **_lead_window(full))

    def factors(op):
        x = op.operands[0]
        a = window_defaults({"window_dimensions": (1,) * len(x.shape), **op.attributes},
                            len(x.shape))
        row = [d if a["window_dimensions"][d] == a["window_strides"][d] == 1
               and tuple(a["padding"][d]) == (0, 0) else None for d in range(len(x.shape))]
        return Factors([row, row, ()], [row])

    def kernel(emit, op):
        emit.select_and_scatter(op)


def identity_like_padding(select: Block, dtype) -> np.ndarray:
    """A value no real element loses to: what lies outside the operand in select_and_scatter."""
    direction = select.ops[0].attributes.get("comparison_direction") if select.ops else None
    kind = "minimum" if direction in ("LE", "LT") else "maximum"
    return identity_of(kind, as_dtype(dtype))


