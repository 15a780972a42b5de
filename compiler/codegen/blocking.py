"""How a matrix product is cut for the caches: rows and columns of a task, and blocks of K.

Only shapes decide, never the number of threads, so that the order of every sum is theirs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .product import Product
from .target import Target
from .tile import Tile


@dataclass(frozen=True)
class Blocking:
    """What fits which cache, for a way to multiply."""

    depth: int
    """K is cut into blocks of about so many words: a panel of b stays in the first-level cache."""
    rows: int
    batched_rows: int
    panels: int
    open_rows: int
    open_panels: int
    """Of a task, where the number of rows is known at run time: the panels at least."""
    tasks: int
    """Tasks of a product large enough to share, so that they end together."""


_VECTORS = Blocking(depth=448, rows=192, batched_rows=512, panels=4, open_rows=96, open_panels=1,
                    tasks=16)
_TILES = Blocking(depth=256, rows=512, batched_rows=512, panels=16, open_rows=256, open_panels=16,
                  tasks=4)
"""Tile registers multiply as fast as vectors are packed: what is packed is used more often."""


_FEWEST_ROWS = 32
"""Of a task: each reads all of b's columns, which takes longer than fewer rows are worth."""


def blocking_of(product: Product, target: Target) -> Blocking:
    return _TILES if product.tiles else replace(_VECTORS, depth=target.depth)


def ceil_div(count: int, size: int) -> int:
    return -(-count // size)


def block_of(how: Blocking, tile: Tile, rows: int | None, columns: int | None, batched: bool,
             copied: bool = False, alone: int = 0) -> tuple[int, int]:
    """Rows and panels of a task for a product of so many rows and columns (None: known at run time):
    whole tiles, even blocks where the rows are known. Where rows are copied, each task copies its own:
    they are multiplied by twice as many columns then. Up to `alone` rows are one block."""
    if not rows:
        # Some blocks of columns, which threads share however few rows there are, or wide ones: a batch
        # of one streams through them.
        width = (columns or 0) // tile.columns
        panels = max(how.open_panels, min(how.panels, width // 4), min(width // 8, 16))
        return tile.rows * max(1, how.open_rows // tile.rows), panels
    if batched:
        return _even_rows(tile, rows, how.batched_rows), how.panels
    block, panels = (_even_rows(tile, rows, how.rows // 2), 2 * how.panels) if copied else (
        _even_rows(tile, rows, how.rows), how.panels)
    if rows <= alone:
        block = _even_rows(tile, rows, alone)
    if columns is None:
        return block, panels
    width = ceil_div(columns, tile.columns)
    while ceil_div(rows, block) * ceil_div(width, panels) < how.tasks:
        if (panels * tile.columns >= block or rows <= alone) and panels > 1:
            panels //= 2
        elif block > max(2 * tile.rows, _FEWEST_ROWS, alone):
            block = _even_rows(tile, rows, block // 2)
        else:
            break
    return block, panels


def _even_rows(tile: Tile, rows: int, most: int) -> int:
    even = ceil_div(rows, ceil_div(rows, max(most, tile.rows)))
    return ceil_div(even, tile.rows) * tile.rows


def depth_of(how: Blocking, words: int | None) -> int:
    """Words along K of a block: even blocks where K is known, whole vectors."""
    if words is None:
        return how.depth
    blocks = max(1, round(words / how.depth))
    return max(ceil_div(ceil_div(words, blocks), 16), 1) * 16
