"""The compiler: one typed IR (StableHLO), tracing, transforms, passes and LLVM code generation.

Needs numpy, ml_dtypes, llvmlite and optree only; every other package of tfn stands on this one.
"""

from .ops import catalog  # noqa: F401
