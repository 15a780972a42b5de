"""`checkpoint`: functions that compute anew for their derivative instead of remembering, and policies
that say what is worth remembering."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from ..ir.core import Op
from ..ops.control import composite
from . import tree
from .core import bind, current_graph, replay, trace
from .jit import as_leaf, trace_tree

Policy = Callable[[Op], bool]
"""Are the results of this op kept?"""

_NAME = "tfn.checkpoint_name"


def checkpoint(function: Callable | None = None, *, policy: Policy | None = None,
               static_argnums: int | Sequence[int] = ()) -> Callable:
    """`function`, whose intermediate values are computed again in the backward pass instead of kept.

    What `policy` (one of `checkpoint_policies`) says yes to is kept. Arguments `static_argnums` are
    Python values.
    """
    if function is None:
        return functools.partial(checkpoint, policy=policy, static_argnums=static_argnums)
    static = {static_argnums} if isinstance(static_argnums, int) else set(static_argnums)
    inner: Callable = function

    @functools.wraps(inner)
    def rematerialised(*args: Any, **kwargs: Any) -> Any:
        if current_graph() is None:
            return inner(*args, **kwargs)
        places = {i % len(args) for i in static}
        dynamic = [a for i, a in enumerate(args) if i not in places]

        def call(*given: Any, **named: Any) -> Any:
            rest = iter(given)
            return inner(*(a if i in places else next(rest) for i, a in enumerate(args)), **named)

        leaves, structure = tree.flatten((tuple(dynamic), kwargs))
        arrays = [as_leaf(leaf) for leaf in leaves]
        traced, result_structure, captures = trace_tree(call, structure, [a.type for a in arrays])
        n = len(captures)
        flat = trace(lambda *v: replay(traced, [*v[n:], *v[:n]]),
                     [*(c.type for c in captures), *(a.type for a in arrays)], "checkpoint")[0]
        results = len(flat.returns)
        if policy is not None:
            kept = [r for op in flat.ops if policy(op) for r in op.results]
            flat.body.returns = [*flat.returns, *dict.fromkeys(kept)]
        found = bind("tfn.checkpoint", *captures, *arrays, function=flat,
                     kept=len(flat.returns) - results)
        found = found if isinstance(found, list) else [found]
        return tree.unflatten(result_structure, found[:results])

    return rematerialised


def checkpoint_name(x: Any, name: str) -> Any:
    """`x`, which `checkpoint_policies.save_only_these_names` can speak of."""
    def same(leaf):
        return bind("stablehlo.reshape", leaf, shape=tuple(leaf.shape))

    return tree.map(lambda leaf: composite(_NAME, same, leaf, label=name), x)


def _name_of(op: Op) -> str | None:
    if op.attributes.get("name") != _NAME:
        return None
    return (op.attributes.get("composite_attributes") or {}).get("label")


def _is_dot(op: Op) -> bool:
    return op.name == "stablehlo.dot_general"


class checkpoint_policies:
    """What a checkpoint keeps."""

    everything_saveable: Policy = staticmethod(lambda op: True)
    nothing_saveable: Policy = staticmethod(lambda op: False)
    dots_saveable: Policy = staticmethod(_is_dot)
    checkpoint_dots: Policy = dots_saveable
    dots_with_no_batch_dims_saveable: Policy = staticmethod(
        lambda op: _is_dot(op)
        and not op.attributes["dot_dimension_numbers"].lhs_batching_dimensions)
    checkpoint_dots_with_no_batch_dims: Policy = dots_with_no_batch_dims_saveable

    @staticmethod
    def save_only_these_names(*names: str) -> Policy:
        """Values named by `checkpoint_name`."""
        return lambda op: _name_of(op) in names

    @staticmethod
    def save_anything_except_these_names(*names: str) -> Policy:
        """All values but those named so."""
        return lambda op: _name_of(op) not in names

    @staticmethod
    def save_from_both_policies(first: Policy, second: Policy) -> Policy:
        """What either of them keeps."""
        return lambda op: first(op) or second(op)


__all__ = ["Policy", "checkpoint", "checkpoint_name", "checkpoint_policies"]
