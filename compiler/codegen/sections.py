"""Parts of a convolution's outputs that are computed together, side by side in the columns of a tile.

Parts have different taps. A section is the taps that some parts share: its sums are added up for those
parts alone, so that nothing is multiplied that they do not read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product as cartesian

from .window import Part, Window


def together(window: Window, lanes: int) -> bool:
    """Do the parts of the outputs take fewer vectors side by side, for all taps of any, than one by
    one? The gradient of an image of three colours takes a third."""
    if window.groups > 1:
        return False
    own = sum(math.prod(len(p.taps) for p in part)
              for part in cartesian(*(a.parts for a in window.axes)))
    columns = math.prod(len(a.parts) for a in window.axes) * window.features
    return columns <= 4 * lanes and (math.prod(a.together.taps for a in window.axes)
                                     * -(-columns // lanes) < own * -(-window.features // lanes))


@dataclass(frozen=True)
class Section:
    """Taps that the same parts have: elements of the kernel by number of the part."""

    parts: tuple[Part, ...]
    elements: dict[int, list[tuple[int, ...]]]


def sections(window: Window) -> list[Section]:
    """The sections of a window; a part has a number, counted along the axes, the last one fastest."""
    counts = [len(a.parts) for a in window.axes]
    found = []
    for runs in cartesian(*(a.sections for a in window.axes)):
        elements = {
            dot(numbers, [math.prod(counts[i + 1:]) for i in range(len(counts))]):
                list(cartesian(*(run[n] for (_, run), n in zip(runs, numbers, strict=True))))
            for numbers in cartesian(*(run for _, run in runs))}
        found.append(Section(tuple(part for part, _ in runs), elements))
    return found


def dot(numbers: Sequence[int], strides: Sequence[int]) -> int:
    """The place of an element with these numbers along dims of these strides."""
    return sum(n * s for n, s in zip(numbers, strides, strict=True))
