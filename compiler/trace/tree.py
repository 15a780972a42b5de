"""Pytrees: nested containers of arrays flattened to leaves, through `optree`.

None is an empty subtree, dicts are ordered by key, as in JAX.
"""

from __future__ import annotations

from typing import Any

import optree

NAMESPACE = "tfn"


def flatten(tree: Any) -> tuple[list[Any], optree.PyTreeSpec]:
    """`(leaves, structure)`; the structure is hashable and compares by value."""
    return optree.tree_flatten(tree, namespace=NAMESPACE)


def unflatten(structure: optree.PyTreeSpec, leaves) -> Any:
    return optree.tree_unflatten(structure, leaves)


def map(function, tree: Any, *rest: Any) -> Any:
    """`function` applied to corresponding leaves."""
    return optree.tree_map(function, tree, *rest, namespace=NAMESPACE)


def leaves(tree: Any) -> list[Any]:
    return flatten(tree)[0]


def is_flat(values: tuple) -> bool:
    """Is every item of a tuple a leaf by itself?"""
    return all(optree.tree_is_leaf(v, namespace=NAMESPACE) for v in values)


def is_leaf(structure: optree.PyTreeSpec) -> bool:
    """Is it the structure of a single leaf?"""
    return structure.is_leaf()
