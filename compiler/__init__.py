"""The compiler: one typed IR (StableHLO), tracing, transforms, passes and LLVM code generation.

Needs numpy, ml_dtypes, llvmlite and optree only; every other package of tfn stands on this one.
"""

# Declaring an op is importing its family.
from .ops import (  # noqa: F401
    contraction,
    control,
    elementwise,
    indexing,
    kernel,
    random,
    reduction,
    shape,
)
