"""How a matrix product is cut for the caches: rows and columns of a task, and blocks of K.

Only shapes decide, never the number of threads, so that the order of every sum is theirs.
"""

from __future__ import annotations

from .tile import Tile

_DEPTH = 448
"""K is cut into blocks of about so many words."""
_ROWS = 192
_BATCHED_ROWS = 512
_PANELS = 4
_TASKS = 16
"""Tasks of a product large enough to share, so that they end together."""
_FEWEST_ROWS = 32
"""Of a task: each reads all of b's columns, which takes longer than fewer rows are worth."""


def ceil_div(count: int, size: int) -> int:
    return -(-count // size)


def block_of(tile: Tile, rows: int | None, columns: int | None, batched: bool,
             copied: bool = False) -> tuple[int, int]:
    """Rows and panels of a task for a product of so many rows and columns (None: known at run time):
    whole tiles, even blocks where the rows are known. Where rows are copied, each task copies its own:
    they are multiplied by twice as many columns then."""
    if not rows:
        # Wide blocks: a batch of one streams through them.
        wide = (columns or 0) // (8 * tile.columns)
        return tile.rows * max(1, _ROWS // 2 // tile.rows), min(max(_PANELS, wide), 16)
    if batched:
        return _even_rows(tile, rows, _BATCHED_ROWS), _PANELS
    block, panels = (_even_rows(tile, rows, _ROWS // 2), 2 * _PANELS) if copied else (
        _even_rows(tile, rows, _ROWS), _PANELS)
    if columns is None:
        return block, panels
    width = ceil_div(columns, tile.columns)
    while ceil_div(rows, block) * ceil_div(width, panels) < _TASKS:
        if panels * tile.columns >= block and panels > 1:
            panels //= 2
        elif block > max(2 * tile.rows, _FEWEST_ROWS):
            block = _even_rows(tile, rows, block // 2)
        else:
            break
    return block, panels


def _even_rows(tile: Tile, rows: int, most: int) -> int:
    even = ceil_div(rows, ceil_div(rows, max(most, tile.rows)))
    return ceil_div(even, tile.rows) * tile.rows


def depth_of(words: int | None) -> int:
    """Words along K of a block: even blocks where K is known, whole vectors."""
    if words is None:
        return _DEPTH
    blocks = max(1, round(words / _DEPTH))
    return max(ceil_div(ceil_div(words, blocks), 16), 1) * 16
