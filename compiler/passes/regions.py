"""Passes inside loops and branches: what applies to a function applies to the regions in it."""

from __future__ import annotations

from collections.abc import Callable

from ..ir.core import Block, Function
from ..ir.rewrite import Rewriter

CONTROL = frozenset({"stablehlo.while", "stablehlo.if", "stablehlo.case"})
"""Ops whose regions are programs; the regions of other ops are scalar expressions."""


REGION = "region"
"""The name of the function a region is while a pass works on it."""


def everywhere(apply: Callable[..., Function], function: Function, target=None) -> Function:
    """`apply` to the function, then to every region of its control flow, inner ones last."""
    function = apply(function, target)
    if not any(op.name in CONTROL for op in function.ops):
        return function
    rewriter = Rewriter(function)
    for op in function.ops:
        new = rewriter.copy(op)
        if op.name in CONTROL:
            new.regions = tuple(_region(apply, region, target) for region in new.regions)
    return rewriter.finish()


def _region(apply: Callable[..., Function], region: Block, target) -> Block:
    return everywhere(apply, Function(REGION, region), target).body
