"""The pass pipeline, in one place.

A pass is `pass(function, target) -> function`; it builds a new function and never edits the old one.
`tfn inspect --stage NAME` and `TFN_DUMP` show the IR after any of them.
"""

from __future__ import annotations

from collections.abc import Callable

from ..ir.core import Function
from .check_finite import check_finite
from .complex import split_complex
from .cse import cse
from .dce import dce
from .fold import fold
from .fuse import fuse
from .hoist import hoist
from .inline import inline
from .layout import layout
from .masks import masks
from .merge import merge
from .pieces import pieces
from .quantized import lower_quantized
from .recompute import recompute
from .schedule import schedule
from .select import select_first
from .simplify import simplify
from .winograd import winograd

Pass = Callable[..., Function]

PIPELINE: tuple[tuple[str, Pass], ...] = (
    ("inline", inline),          # calls and composites become their bodies
    ("quantized", lower_quantized),  # quantized numbers become the integers that store them
    ("complex", split_complex),  # complex numbers become pairs
    ("check", check_finite),     # under debug.check_nans: a flag per op
    ("pieces", pieces),          # arrays taken apart and put together again are updated as they are
    ("hoist", hoist),            # what loops compute anew and always the same, before them
    ("simplify", simplify),      # local algebra, exact in IEEE arithmetic
    ("fold", fold),              # ops on constants become constants
    ("cse", cse),                # one op per distinct computation
    ("layout", layout),          # contractions into streamable form
    ("winograd", winograd),      # 3x3 convolutions with fewer products, less exact
    ("hoist2", hoist),           # what layout does to weights
    ("simplify2", simplify),     # transposes and reshapes that layout made adjacent
    ("fold2", fold),             # weights in the order that layout asks for
    ("cse2", cse),
    ("masks", masks),            # derivatives ask activations, not what went into them
    ("dce", dce),                # drop what nothing needs
    ("select", select_first),    # sorts of which only the first elements are wanted
    ("fuse", fuse),              # group ops into kernels
    ("recompute", recompute),    # what is cheaper to compute again than to keep
    ("merge", merge),            # kernels over the same numbers become one
    ("schedule", schedule),      # the order that needs the least memory
)
"""Name and pass, in order; `plan` (liveness and offsets) follows in `runtime`."""

CHOICES: dict[str, str] = {"winograd": "fast_convolution"}
"""Passes that trade accuracy for speed, and what a program asks for them by (`compile.run_passes`)."""
