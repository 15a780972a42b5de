"""`vmap`: trace for one example, then bind every op again on all examples at once.

A batched value has its batch dim leading. An op none of whose operands is batched is bound as it
is; any other by its `batch` rule (`ops.declare`), which binds ordinary ops. So what `vmap` makes is
differentiated, compiled and batched again like any other code.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optree

from ..errors import OpError, TraceError, UnsupportedError, user_location
from ..ir.core import Block, Function, Op, Value
from ..ir.dims import Extent
from ..ops.control import body_of, shared_unless
from ..ops.declare import Shared
from . import tree
from .axis import named
from .core import Array, Tracer, bind, free_values, located, replay_op, trace_region
from .core import replay_regions as _replay_regions
from .jit import as_leaf, trace_tree


def vmap(function: Callable, in_axes: Any = 0, out_axes: Any = 0, axis_name: str | None = None,
         axis_size: int | None = None) -> Callable:
    """`function`, written for one example, as a function of a batch of examples.

    `in_axes`: for each positional argument which dim counts the examples: an int, None for what all
    examples share, or a tree of these that is a prefix of the argument. Keyword arguments are mapped
    over dim 0. `out_axes`: where the results have that dim, in the same way; None for a result that
    is the same for all examples. `axis_name` names the batch axis for collectives (`axis.psum`);
    `axis_size` is its size, needed when nothing is mapped.

    Raises `OpError` when sizes or ranks do not fit the axes, `UnsupportedError` at the user's line
    for an op that cannot be batched.

    >>> from tfn.compiler import numpy as tnp
    >>> vmap(lambda row, x: tnp.sum(row * x), in_axes=(0, None))(tnp.ones((2, 3)), 4.0).tolist()
    [12.0, 12.0]
    """
    in_axes = tuple(in_axes) if isinstance(in_axes, list) else in_axes
    if not all(a is None or isinstance(a, (int, np.integer)) for a in _leaves(in_axes)):
        raise TraceError(f"in_axes of vmap are ints, None, or trees of them, not {in_axes!r}",
                         user_location())

    @functools.wraps(function)
    def batched(*args, **kwargs):
        leaves, structure = tree.flatten((args, kwargs))
        arrays = [as_leaf(leaf) for leaf in leaves]
        axes = [*_along(in_axes, args, "in_axes"), *(0 for _ in tree.leaves(kwargs))]
        places = [_place(a, len(x.shape), x) for a, x in zip(axes, arrays, strict=True)]
        size = _common_size(arrays, places, axis_size)
        types = [x.type if p is None else x.type.with_shape((*x.shape[:p], *x.shape[p + 1:]))
                 for x, p in zip(arrays, places, strict=True)]
        with named(axis_name, size):
            traced, result_structure, captures = trace_tree(function, structure, types)
        batch = Batch(size, axis_name)
        given = [x if p is None else move(x, p, 0) for x, p in zip(arrays, places, strict=True)]
        flags = [p is not None for p in places] + [False] * len(captures)
        results, found = batch.inline(traced, [*given, *captures], flags)
        result = tree.unflatten(result_structure, results)
        out = [_placed(batch, r, f, a) for r, f, a
               in zip(results, found, _along(out_axes, result, "out_axes"), strict=True)]
        return tree.unflatten(result_structure, out)

    return batched


class Batch:
    """Binds traced ops for `size` examples at once: what `batch` rules are given as `batch`."""

    def __init__(self, size: Extent, name: str | None = None):
        self.size = size
        self.name = name
        self.values: dict[Value, Any] = {}
        self._batched: set[Value] = set()

    # -- what rules use

    def spread(self, x: Any, batched: bool = False) -> Any:
        """`x` with a leading batch dim; `batched` says that it has one already."""
        if batched:
            return x
        return bind("stablehlo.broadcast_in_dim", x, shape=(self.size, *x.shape),
                    broadcast_dimensions=tuple(range(1, len(x.shape) + 1)))

    def spread_all(self, operands: Sequence[Any], batched: Sequence[bool]) -> list[Any]:
        return [self.spread(x, b) for x, b in zip(operands, batched, strict=True)]

    def align(self, x: Any, batched: bool, shape: Sequence[Extent]) -> Any:
        """`x`, a scalar or of `shape` in each example, stretched to `shape` with the batch dim."""
        shape = (self.size, *shape)
        if batched and len(x.shape) == len(shape):
            return x
        dims = (0,) if batched else tuple(range(1, len(x.shape) + 1))
        return bind("stablehlo.broadcast_in_dim", x, shape=shape, broadcast_dimensions=dims)

    def bind(self, op: Op, *operands: Any, **changes: Any) -> list[Any]:
        """`op` on other operands with some attributes changed; always a list of results."""
        found = bind(op.definition, *operands, regions=self.regions(op),
                     **{**op.attributes, **changes})
        return found if len(op.results) != 1 else [found]

    def regions(self, op: Op) -> list[Block]:
        """The regions of `op`, referring to values of the graph being traced now."""
        return _replay_regions(op, self.values)

    def inline(self, body: Function | Block, operands: Sequence[Any], batched: Sequence[bool]
               ) -> tuple[list[Any], list[bool]]:
        """Bind the ops of `body`; its results, and which of them are batched."""
        for value, x, flag in zip(body.arguments, operands, batched, strict=True):
            self._set(value, x, flag)
        for op in body.ops:
            self._replay(op)
        return [self.values[v] for v in body.returns], [v in self._batched for v in body.returns]

    def expand(self, op: Op, operands: Sequence[Any], batched: Sequence[bool]) -> list[Any]:
        """The results of `op` by binding the ops of the function it stands for."""
        body = body_of(op)
        if body is None:
            raise UnsupportedError(f"vmap: {op.name} has no rule `batch`: not supported yet",
                                   op.location)
        return shared_unless(*self.inline(body, operands, batched))

    def region(self, block: Block, batched: Sequence[bool], wanted: Sequence[bool] = ()
               ) -> tuple[Block, list[bool]]:
        """`block` on arguments some of which are batched, and which results are; those `wanted`
        are in any case."""
        found: list[bool] = []

        def body(*arguments):
            results, flags = self.inline(block, arguments, batched)
            found[:] = [f or w for f, w in zip(flags, wanted or [False] * len(flags), strict=True)]
            return [x if f or not w else self.spread(x)
                    for x, f, w in zip(results, flags, found, strict=True)]

        types = [a.type.with_shape((self.size, *a.shape)) if b else a.type
                 for a, b in zip(block.arguments, batched, strict=True)]
        return trace_region(body, types), found

    def captured(self, op: Op) -> list[Value]:
        """Batched values the regions of `op` refer to."""
        return [v for r in op.regions for v in free_values(r) if v in self._batched]

    def each(self, op: Op, operands: Sequence[Any], batched: Sequence[bool]) -> list[Any]:
        """The results of `op` one example after the other."""
        if not isinstance(self.size, int):
            raise UnsupportedError(f"vmap of {op.name} runs one example after the other, which needs"
                                   f" to know how many; the batch axis is `{self.size}`", op.location)
        captured = self.captured(op)
        parts = []
        for k in range(self.size):
            given = [example(x, k) if b else x for x, b in zip(operands, batched, strict=True)]
            scope = {**self.values, **{v: example(self.values[v], k) for v in captured}}
            parts.append(replay_op(op, given, scope))
        if not parts:
            return [self.spread(bind("stablehlo.broadcast_in_dim", np.zeros((), r.dtype.numpy),
                                     shape=r.shape, broadcast_dimensions=())) for r in op.results]
        return [stack(column) for column in zip(*parts, strict=True)]

    # -- how ops are replayed

    def _set(self, value: Value, x: Any, batched: bool) -> None:
        self.values[value] = x
        (self._batched.add if batched else self._batched.discard)(value)

    def _replay(self, op: Op) -> None:
        operands = [self.values[v] for v in op.operands]
        batched = [v in self._batched for v in op.operands]
        captured = self.captured(op)
        if any(batched) or captured or (self.name is not None and mentions(op, self.name)):
            with located(op.location):
                results = self._results(op, operands, batched, bool(captured))
        else:
            results = [Shared(r) for r in replay_op(op, operands, self.values)]
        for value, result in zip(op.results, results, strict=True):
            shared = isinstance(result, Shared)
            self._set(value, result.value if shared else result, not shared)

    def _results(self, op: Op, operands, batched, captures: bool) -> Sequence[Any]:
        rule = op.definition.batch
        if captures and not op.definition.batches_regions:
            return self.each(op, operands, batched)
        if rule is not None:
            return rule(op, operands, batched, self)
        return self.expand(op, operands, batched)


def mentions(op: Op, name: str) -> bool:
    """Does `op`, or one inside it, refer to the named axis?"""
    inside = [*op.regions, *(a.body for a in op.attributes.values() if isinstance(a, Function))]
    return op.attributes.get("axis_name") == name or any(
        mentions(inner, name) for block in inside for inner in block.ops)


# -- dims -----------------------------------------------------------------------------------------

def move(x: Any, source: int, target: int) -> Any:
    """`x` with the dim `source` moved to `target`."""
    order = [d for d in range(len(x.shape)) if d != source]
    order.insert(target, source)
    if order == sorted(order):
        return x
    return bind("stablehlo.transpose", x, permutation=tuple(order))


def example(x: Any, k: int) -> Any:
    """Example number `k` of a batched value."""
    rank = len(x.shape)
    part = bind("stablehlo.slice", x, start_indices=(k, *(0,) * (rank - 1)),
                limit_indices=(k + 1, *x.shape[1:]), strides=(1,) * rank)
    return bind("stablehlo.reshape", part, shape=tuple(x.shape[1:]))


def stack(parts: Sequence[Any]) -> Any:
    """Values of one type along a new leading dim."""
    rows = [bind("stablehlo.reshape", p, shape=(1, *p.shape)) for p in parts]
    return bind("stablehlo.concatenate", *rows, dimension=0)


# -- axes of arguments and results ----------------------------------------------------------------

def _leaves(axes: Any) -> list[Any]:
    return optree.tree_leaves(axes, none_is_leaf=True, namespace=tree.NAMESPACE)


def _along(axes: Any, values: Any, what: str) -> list[Any]:
    """The axis of each leaf of `values`, given a prefix tree of axes."""
    options: dict[str, Any] = {"none_is_leaf": True, "namespace": tree.NAMESPACE}
    if isinstance(axes, tuple) and isinstance(values, tuple) and len(axes) != len(values):
        raise OpError(f"vmap: {what} has {len(axes)} entries for {len(values)} values",
                      user_location())
    try:
        spread = optree.broadcast_prefix(axes, values, **options)
    except ValueError as error:
        raise OpError(f"vmap: {what} {axes!r} is no prefix of the tree it goes with: {error}",
                      user_location()) from None
    leaves = optree.tree_leaves(values, **options)
    return [a for a, leaf in zip(spread, leaves, strict=True) if leaf is not None]


def _place(axis: int | None, rank: int, x: Array | Tracer) -> int | None:
    """`axis` counted from the front; None stays None."""
    if axis is None:
        return None
    if not -rank <= axis < rank:
        raise OpError(f"vmap: axis {axis} is none of the {rank} dims of {x.type}", user_location())
    return int(axis) % rank


def _common_size(arrays, places, axis_size: int | None) -> Extent:
    """The number of examples all mapped arguments agree on."""
    sizes = [x.shape[p] for x, p in zip(arrays, places, strict=True) if p is not None]
    if axis_size is not None:
        sizes.append(axis_size)
    if not sizes:
        raise OpError("vmap has nothing to map over: give an argument an axis, or `axis_size`",
                      user_location())
    if any(s != sizes[0] for s in sizes):
        mapped = [f"dim {p} of {x.type} ({x.shape[p]})"
                  for x, p in zip(arrays, places, strict=True) if p is not None]
        mapped += [f"axis_size {axis_size}"] * (axis_size is not None)
        raise OpError(f"vmap: the sizes of the mapped axes differ: {', '.join(mapped)}",
                      user_location())
    return sizes[0]


def _placed(batch: Batch, x: Any, batched: bool, axis: int | None) -> Any:
    """A result with its batch dim where `out_axes` wants it."""
    if axis is None:
        if batched:
            raise OpError("vmap: out_axes is None for a result that differs between the examples",
                          user_location())
        return x
    whole = batch.spread(x, batched)
    place = _place(axis, len(whole.shape), whole)
    assert place is not None
    return move(whole, 0, place)
